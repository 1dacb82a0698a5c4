/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The check: misuse of the ABI by the host. Each finding is UNROLL_E_STATE with function, object and rule in its message, and
 * the same as a line of the log at UNROLL_LOG_ERROR; functions that return nothing only log. A call with a finding does not
 * reach the backend. What is destroyed too early is destroyed in the backend once nothing holds it any more, so that one
 * mistake does not become a crash.
 *
 *   handles     destroyed ones (the last WRAP_DEAD_MAX are known), of another type, backend or device, NULL
 *   lives       a parent destroyed before its children, a buffer while a binding has it or a call uses it; what is still
 *               alive at close, or calls that have not returned then
 *   threads     an [obj] function entered while another is in the same object; queues in run too
 *   bind        slots that are missing, leave their buffer, or are too small for the tensors at their largest; a workspace
 *               that is missing, too small, misaligned or under a slot; tensors in the same place, as below
 *   run         struct_size, run-time sizes, direction, steps that leave a slot, mapped or destroyed buffers
 *   generations the same number for other bytes, per slot of a binding that its nodes read before they write it
 *   bytes       read or copied before anybody wrote them
 *
 * Two tensors of a group may share bytes where
 *   - neither is written by a node of the group;
 *   - `alias` says so, or the writer is an OPTIMIZER and they are the same bytes;
 *   - the value that is overwritten is not needed any more: nodes run in the order of the view, so the writer stands after
 *     the last reader and the value is no output of the graph. Not in a private group, whose nodes run as one: a group in
 *     which a tensor has no slot is known to be one, another is taken for the host's;
 *   - the one that no node of the group writes is a TEMP within the other's bytes, or around them, or within those of a later
 *     node: the host's views (RESHAPE, SLICE) are no nodes, so it may be one of those;
 *   - of a template, a carry and its next value stand at the same bytes one step apart.
 * Of the steps of a template an even and an odd one are looked at, each with the one that follows it in its run. Bindings may
 * share anything: what the nodes of one find then depends on the order of the runs, which is the host's business.
 */
#ifndef PLUGINS_WRAP_CHECK_H
#define PLUGINS_WRAP_CHECK_H
#include "plugins/wrap_private.h"

/* More pieces of a buffer than that are not kept apart: what lies between two of them then counts as written. */
enum { CHECK_INTERVALS = 256 };

/* Logs, and fails with UNROLL_E_STATE. */
unroll_status check_found(struct wrap_call *call, unroll_error *err, const char *format, ...) PRINTF_LIKE(3, 4);

#define CHECK_NOBODY UINT32_MAX /* no node */

struct check_tensor { /* of a group, as compile saw it */
  char name[40];
  uint32_t slot, period;
  uint64_t offset, bytes; /* bytes: at its largest */
  int64_t step;
  int32_t role, alias;
  uint32_t element;
  uint32_t writer, first_reader, last_reader; /* nodes of the view, or CHECK_NOBODY */
  uint32_t next;                              /* of a carry: the tensor that the next step finds there */
  bool in_optimizer;                          /* its writer is one */
  bool is_output;
};

struct check_buffer {
  struct wrap_object base;
  uint64_t bytes;
  struct check_interval { /* what was written: CHECK_INTERVALS + 1 of them, sorted, apart from each other */
    uint64_t begin, end;
  } * written;
  uint32_t n_written;
  bool bytes_unknown; /* written by a group whose view could not be read */
  struct check_mapping {
    const void *memory;
    uint64_t begin, end;
  } * mapped;
  uint32_t n_mapped, mapped_capacity;
};

struct check_exec {
  struct wrap_object base;
  bool known; /* the view could be read */
  bool is_template, is_private;
  uint32_t n_tensors, n_dims, n_slots; /* tensors: those that the nodes use and that have a slot */
  struct check_tensor *tensors;
  int64_t *dim_min, *dim_max; /* one allocation */
};

struct check_binding {
  struct wrap_object base;
  uint32_t n_slots;
  struct check_slot {
    struct check_buffer *buffer; /* NULL: not given */
    uint64_t offset, bytes;
    uint64_t generation, hash; /* of the last run that gave a generation */
    bool is_read;              /* by a node, before any of the group writes it */
  } * slots;
  struct check_buffer *workspace; /* NULL: none */
  uint32_t seen; /* steps that were compared: 1, 2: an even, an odd one; 4, 8: each with the one that follows */
};

/* wrap_check_graph.c. The exec is the call's made; false: no memory. */
bool check_exec_read(struct check_exec *exec, const unroll_graph_view *view, const unroll_allocator *a);
/* The binding is the call's made, its slots are filled. */
unroll_status check_bind(struct wrap_call *call, struct check_binding *b, unroll_error *err);
unroll_status check_run(struct wrap_call *call, struct check_binding *b, unroll_error *err);

/* wrap_check_bytes.c. All but check_generations with the layer's mutex held. */
unroll_status check_generations(struct wrap_call *call, struct check_binding *b, unroll_error *err);
void check_written(struct check_buffer *buffer, uint64_t begin, uint64_t end);
/* What the run writes, its tensors at their largest. */
void check_written_by(struct check_binding *b, const unroll_run_args *args);
/* Before a read or copy of a buffer. */
unroll_status check_defined(struct wrap_call *call, const struct check_buffer *buffer, uint64_t begin, uint64_t n,
                            unroll_error *err);

/* Where a tensor begins in its slot at step t, from the slot's own beginning on. */
int64_t check_place(const struct check_tensor *t, int64_t step);
/* The lowest and the highest place in steps low..high. */
void check_places(const struct check_tensor *t, int64_t low, int64_t high, int64_t *first, int64_t *last);
/* The steps of a run; false for none. Of no template: 0 and 0. */
bool check_steps(const struct check_exec *exec, const unroll_run_args *args, int64_t *low, int64_t *high);
#endif
