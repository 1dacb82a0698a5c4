/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the judge share.
 *
 *   conform.c          the public calls; a run from its options to its report
 *   conform_list.c     the list of cases
 *   conform_report.c   totals, cases, coverage
 *   conform_child.c    child processes: many cases each, a time limit per case, a crash charged to the case in flight
 *   session.c          the plugin opened in this process, on demand
 *   suite_ops.c        one node or two through the vtable itself: op_cases*.c, op_run.c, op_check.c
 *   suite_layers.c     layers, scans and their gradients through the runtime, as a user's graph comes to the plugin
 *   suite_abi*.c       the table's own rules: open and close again, sizes, ranges, bindings; abi_rig.c, abi_work.c
 *   suite_faults.c     the same while the host's memory ends: conform_host.c
 *   suite_threads.c    queues and threads at once
 */
#ifndef CONFORM_PRIVATE_H
#define CONFORM_PRIVATE_H
#include "base/base_private.h"
#include "conform/op_cases.h"
#include <stdbool.h>
#include <unroll/conform.h>
#include <unroll/runtime.h>

/* What a case's function says. The session turns it, with the plugin's declarations, into a verdict. */
enum conform_outcome {
  CONFORM_PASSED = 0,
  CONFORM_FAILED = 1,
  CONFORM_DECLINED = 2, /* the plugin does not take it: right only where it is declared. message names what it left */
  CONFORM_NO_DTYPE = 3, /* the device does not have the element type: no declaration is needed */
  CONFORM_SKIPPED = 4   /* can't be tried here; message says why */
};

enum { CONFORM_NAME = 144, CONFORM_MESSAGE = 400 };

struct conform_session;
struct conform_case;
/* Never aborts, and releases all that it made whatever comes. message: "" on entry, of CONFORM_MESSAGE bytes. */
typedef enum conform_outcome (*conform_case_fn)(struct conform_session *session, const struct conform_case *c,
                                                char *message);

struct conform_case {
  char name[CONFORM_NAME]; /* "matmul rank 2 y 3x33 k 7 trans_b + row, f32": unique; begins with the op or the suite */
  conform_case_fn run;
  const void *data;             /* the suite's own, lives as long as the list; may be NULL */
  uint32_t index;               /* the suite's own */
  int32_t dtype;                /* UNROLL_F32 or UNROLL_F64, or -1 */
  uint32_t first_mark, n_marks; /* of the list's: see conform_cover */
};

/*
 * What a case stands for in the tables of <unroll/plugin.h>: an op, and one value of one attribute of it. The values are those
 * of the attribute struct, or as given here; coverage.c turns them into rows.
 */
enum conform_attribute {
  COVER_OP,      /* the op itself, implied by any other */
  COVER_KIND,    /* unary, binary, reduce, optimizer, random: UNROLL_TANH, .. */
  COVER_TRANS_A, /* matmul: 0, 1 */
  COVER_TRANS_B,
  COVER_RANK,      /* matmul: of b, 2 or 3 */
  COVER_ADDEND,    /* matmul: CONFORM_NO_ADDEND.., what c is */
  COVER_KEEP_DIMS, /* reduce: 0, 1 */
  COVER_TIME_AXIS, /* dropout, random, length_mask: 0, -1 */
  COVER_INVERT,    /* length_mask: 0, 1 */
  COVER_OTHER,     /* length_mask: absent 0, given 1 */
  COVER_TOP_K,     /* categorical: all 0, some 1 */
  COVER_TOP_P,     /* categorical: all 0, some 1 */
  COVER_LENGTHS,   /* linear_scan: absent 0, given 1 */
  COVER_CAST,      /* CONFORM_CAST(from, to) */
  COVER_LAYER,     /* layer, layer_grad: CONFORM_LAYER(..) */
  COVER_H_MASK,    /* layer, layer_grad: absent 0, given 1 */
  COVER_KEEP_H,    /* layer, layer_grad: CONFORM_NO_KEEP.., what it is of */
  COVER_KEEP_C,    /* likewise */
  COVER_DIRECTION, /* scan, linear_scan: UNROLL_FORWARD, UNROLL_REVERSE */
  COVER_FORM,      /* CONFORM_STATIC.., how it was compiled */
  COVER_END
};
enum {
  CONFORM_STATIC,
  CONFORM_STEP_FORWARD,
  CONFORM_STEP_REVERSE,
  CONFORM_RUN_TIME_SIZE,
  CONFORM_IN_PLACE,
  CONFORM_FORMS
};
enum { CONFORM_NO_ADDEND, CONFORM_FULL, CONFORM_ROW };
enum { CONFORM_NO_KEEP, CONFORM_KEEP_BOOL, CONFORM_KEEP_REAL };
#define CONFORM_CAST(from, to) (16 * (from) + (to))
/* activation counts for the rnn alone; has_lengths: 0, 1. */
#define CONFORM_LAYER(cell, direction, has_lengths, activation) \
  ((cell) + 8 * (direction) + 16 * (has_lengths) + 32 * ((cell) == UNROLL_CELL_RNN ? (activation) : 0))

struct conform_mark {
  uint32_t op;
  int32_t attribute, value;
};

struct conform_list {
  const unroll_allocator *allocator;
  struct conform_case *cases;
  uint32_t n, capacity;
  struct conform_mark *marks;
  uint32_t n_marks, mark_capacity;
  bool failed;      /* out of memory */
  op_case_list ops; /* what the cases of suite_ops.c point to */
  void *layers;     /* what those of suite_layers.c point to, one allocation */
  uint64_t seed;
};

/* A case at the end of the list, zeroed but for its name; NULL when out of memory (list->failed is set). */
struct conform_case *conform_list_add(struct conform_list *list, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* The case that was added last covers that; the same again changes nothing in the report. */
void conform_cover(struct conform_list *list, uint32_t op, int32_t attribute, int32_t value);

/* Each adds its cases, in an order in which the cheap and basic ones come first. */
void suite_abi_list(struct conform_list *list);
void suite_ops_list(struct conform_list *list);
void suite_layers_list(struct conform_list *list);
void suite_threads_list(struct conform_list *list);

/* All suites' cases. UNROLL_E_MEMORY. */
unroll_status conform_list_make(struct conform_list *list, const unroll_allocator *allocator, unroll_error *err);
void conform_list_free(struct conform_list *list);

/* A host for plugins that are opened directly. What it allocates is counted and can be made to fail. [any] */
struct conform_host {
  unroll_host host;        /* ctx is this struct */
  uint64_t allocations;    /* that were made, in all */
  uint64_t live;           /* and are not freed */
  uint64_t fail_at;        /* the number, from 1, of the first allocation that fails; 0: none */
  uint32_t fail_all_after; /* not only that one, but all from there on */
  uint32_t n_threads;      /* "unroll.threads/1" */
};
void conform_host_init(struct conform_host *host);

/* ---- the session: one process's view of the plugin. [obj] ---- */
struct conform_session {
  const unroll_allocator *allocator;
  const unroll_plugin *plugin; /* loaded, and all checks of the loader passed */
  const char *id;
  const char *file; /* absolute; NULL: linked in */
  uint32_t device_index;
  const unroll_option *device_options;
  uint32_t n_device_options;
  uint64_t seed;      /* of the data */
  char device_id[64]; /* "opencl:0.0"; known once the plugin was opened */
  void *library;      /* dlopen's; stays */
  int printed;        /* where stdout and stderr of a child go; -1 in_process */

  /* Of a case of more than one node that is declined: a bit per op that went elsewhere, of nodes whose element types the device
   * has. is_graph: the case has filled it in. */
  uint64_t left;
  bool is_graph;

  /* opened by session_target */
  struct conform_host host, reference_host;
  unroll_backend *backend;
  op_target target;
  unroll_device_info info;
  /* opened by session_reference */
  unroll_backend *reference_backend;
  op_target reference;
  /* opened by session_device: the plugin through a context of its own, as a program has it */
  unroll_context *ctx;
  unroll_device *device;
  /* opened by session_cpu */
  unroll_context *cpu_ctx;
  unroll_device *cpu;
};

/*
 * Loads the plugin, with the loader's checks, and makes sure that it wants to run here. id and file are set, library is kept.
 * Messages are the reason alone. UNROLL_E_PLUGIN, UNROLL_E_ABI, UNROLL_E_IO, UNROLL_E_UNSUPPORTED.
 */
unroll_status session_load(struct conform_session *s, unroll_error *err);
/* After session_close: unloads it where the plugin allows that. */
void session_unload(struct conform_session *s);

/*
 * A plugin is opened once at a time: session_target closes the context, session_device the target. What is open already is
 * given again. Errors as the plugin's own.
 */
unroll_status session_target(struct conform_session *s, const op_target **target, unroll_error *err);
unroll_status session_device(struct conform_session *s, unroll_device **device, unroll_error *err);
/* The cpu backend, for results in f64; independent of the others, also where the plugin is the cpu backend itself. */
unroll_status session_reference(struct conform_session *s, const op_target **reference, unroll_error *err);
/* The cpu device of a context of its own, for graphs in f64. */
unroll_status session_cpu(struct conform_session *s, unroll_device **cpu, unroll_error *err);
/* Closes all but the reference: for cases that open the plugin themselves. */
unroll_status session_close_plugin(struct conform_session *s, unroll_error *err);
/* Closes all. The plugin's own status. */
unroll_status session_close(struct conform_session *s, unroll_error *err);

#endif
