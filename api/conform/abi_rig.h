/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For cases that open the plugin themselves: the plugin with a host of its own, and small pieces of work whose right results
 * are computed here. What suite_abi*.c, suite_faults.c and suite_threads.c share.
 */
#ifndef CONFORM_ABI_RIG_H
#define CONFORM_ABI_RIG_H
#include "conform/conform_private.h"

/* ---- messages: the first one of a case stays ---- */
enum conform_outcome abi_fail(char *message, const char *format, ...) PRINTF_LIKE(2, 3);
enum conform_outcome abi_skip(char *message, const char *format, ...) PRINTF_LIKE(2, 3);

/* Bytes of no meaning but for struct_size, so that what a call writes shows. */
void abi_error_init(unroll_error *err);
/* Whether a call succeeded; if not, message says which call, and why. */
bool abi_ok(char *message, const char *call, unroll_status status, const unroll_error *err);
/*
 * Whether a call failed as R5 wants it: a status of the table, its code in err and a message that ends within err. first
 * and second: the only statuses allowed, 0 for any. err NULL: only the status counts.
 */
bool abi_refused(char *message, const char *call, unroll_status status, const unroll_error *err, unroll_status first,
                 unroll_status second);

/* ---- the plugin, opened ---- */
struct abi_lane { /* what work needs; a thread has one of its own */
  const struct conform_session *session;
  const unroll_backend_ops *ops;
  unroll_backend_device *device;
  unroll_backend_queue *queue;
  const unroll_device_info *info;
  char *message;
};

struct abi_rig {
  struct abi_lane lane;
  struct conform_host host;
  unroll_backend *backend;
  unroll_device_info info;
};

enum abi_stage { ABI_CLOSED, ABI_BACKEND, ABI_DEVICE };
/* The host is initialized, and opened as far as stage says (ABI_DEVICE: with a queue). */
bool abi_rig_open(struct abi_rig *rig, const struct conform_session *s, enum abi_stage stage, char *message);
/* Closes all that is open. What the plugin left behind, or a close that fails, turns a passed case into a failed one. */
enum conform_outcome abi_rig_close(struct abi_rig *rig, enum conform_outcome outcome);

typedef enum conform_outcome (*abi_check)(struct abi_rig *rig);
struct abi_case {
  const char *name;
  enum abi_stage stage;
  abi_check check;
};
/* Adds cases that run with a rig opened to their stage. The table outlives the list. */
void abi_cases_add(struct conform_list *list, const struct abi_case *cases, uint32_t n);
#define ABI_CASES_ADD(list, cases) abi_cases_add((list), (cases), sizeof(cases) / sizeof *(cases))

void suite_buffers_add(struct conform_list *list);
void suite_sizes_add(struct conform_list *list);
void suite_runs_add(struct conform_list *list);
void suite_faults_add(struct conform_list *list);

/* ---- buffers ---- */
/* With these bytes in it, or undefined where bytes is NULL. NULL where it failed, with a message. */
unroll_backend_buffer *abi_buffer(const struct abi_lane *lane, const void *bytes, uint64_t n);
/* Whether the n bytes from offset on are these; what: for the message. */
bool abi_buffer_is(const struct abi_lane *lane, unroll_backend_buffer *b, uint64_t offset, const void *bytes,
                   uint64_t n, const char *what);

/* ---- work: one node that the plugin claims ---- */
enum abi_kind { ABI_MATMUL, ABI_ADD, ABI_TANH, ABI_RNN, ABI_LSTM, ABI_KINDS };
enum { ABI_TENSORS = 10, ABI_EDGES = 40 };
union abi_attr {
  unroll_matmul_attr matmul;
  unroll_unary_attr unary;
  unroll_binary_attr binary;
  unroll_layer_attr layer;
  uint8_t bytes[64];
};
struct abi_work { /* tensor i is in slot i; the inputs come first */
  const char *name;
  unroll_graph_view view;
  unroll_node_view node;
  unroll_tensor_view tensors[ABI_TENSORS];
  uint32_t edges[ABI_EDGES];
  int64_t dim_min, dim_max; /* rows of axis 0, where they are a run-time size; else 0 */
  union abi_attr attr;
  enum abi_kind kind;
  int32_t dtype;
  uint32_t n_tensors, n_in;
  uint64_t bytes[ABI_TENSORS]; /* at the maximum of rows */
  uint64_t at[ABI_TENSORS];    /* where its bytes are in abi_work_data */
  uint64_t total;
  int64_t rows, columns, inner; /* matmul: M, N, K; add, tanh: M, N; layers: T, H = I, B */
};
/*
 * The view of a kind, of reals of that size in each direction. rows: a run-time size of 1..rows where is_dynamic. Not to be
 * copied: it points into itself.
 */
void abi_work_make(struct abi_work *w, enum abi_kind kind, int32_t dtype, int64_t size, bool is_dynamic);
/* The first kind that the plugin claims. NO_DTYPE without f32 and f64, SKIPPED with a message where it claims none. */
enum conform_outcome abi_work_choose(const struct abi_lane *lane, struct abi_work *w, int64_t size, bool is_dynamic);
/* Is it claimed? A failing claim leaves a message. */
bool abi_work_claimed(const struct abi_lane *lane, struct abi_work *w);
/* Bytes of all tensors one after another: inputs of that seed, and bytes 0xFF for outputs. NULL: out of memory. */
uint8_t *abi_work_data(const struct abi_lane *lane, const struct abi_work *w, uint64_t seed);
void abi_work_free(const struct abi_lane *lane, void *data);
/* Whether the outputs in data, of that many rows, are what the inputs give. What lies beyond has to be 0xFF still. */
bool abi_work_right(const struct abi_lane *lane, const struct abi_work *w, const uint8_t *data, int64_t rows,
                    const char *what);

/* ---- and a binding of it ---- */
struct abi_bound {
  unroll_backend_exec *exec;
  unroll_backend_binding *binding;
  unroll_backend_buffer *workspace, *buffers[ABI_TENSORS];
};
bool abi_compile(const struct abi_lane *lane, const struct abi_work *w, unroll_backend_exec **exec);
bool abi_make_buffers(const struct abi_lane *lane, const struct abi_work *w, struct abi_bound *b);
void abi_slots(const struct abi_work *w, const struct abi_bound *b, unroll_slot slots[ABI_TENSORS]);
bool abi_make_workspace(const struct abi_lane *lane, unroll_backend_exec *exec, struct abi_bound *b);
/* All buffers and the binding; exec may be shared. */
bool abi_bind(const struct abi_lane *lane, const struct abi_work *w, unroll_backend_exec *exec, struct abi_bound *b);
unroll_run_args abi_args(const struct abi_work *w, const int64_t *rows, const uint64_t *generations);
bool abi_write(const struct abi_lane *lane, const struct abi_work *w, const struct abi_bound *b, const uint8_t *data);
bool abi_read(const struct abi_lane *lane, const struct abi_work *w, const struct abi_bound *b, uint8_t *data);
/* Inputs written, run with these generations (or NULL), outputs read into data. rows: the run-time size, if there is one. */
bool abi_run(const struct abi_lane *lane, const struct abi_work *w, const struct abi_bound *b, uint8_t *data,
             int64_t rows, const uint64_t *generations);
/* All of it. What is not there is left alone, so it may be called at any point. */
void abi_unbind(const struct abi_lane *lane, struct abi_bound *b);

#endif
