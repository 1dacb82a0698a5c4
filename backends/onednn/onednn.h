/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The oneDNN backend: products and whole recurrent layers in f32 on a processor, by oneDNN's C API of version 2. What its
 * files share.
 *
 *   onednn_backend.c     the plugin, its device, buffers and queue
 *   onednn_view.c        a graph view, checked, in the backend's own terms
 *   onednn_exec.c        claim, compile, bind, run
 *   onednn_profile.c     how long each node took
 *   onednn_call.c        primitives and their arguments
 *   onednn_constant.c    constants, which layers without a state or a bias begin with
 *   onednn_matmul.c      products
 *   onednn_rnn.c         what a layer and its gradient have in common: shapes, descriptors, weights
 *   onednn_layer.c       layers
 *   onednn_layer_grad.c  and their gradients
 */
#ifndef ONEDNN_H
#define ONEDNN_H
#include <dnnl.h>
#include <stdbool.h>
#include <unroll/plugin.h>

#define TRY(expression)                            \
  do {                                             \
    const unroll_status try_status = (expression); \
    if (try_status < 0)                            \
      return try_status;                           \
  } while (0)

#define ONEDNN_ALIGNMENT UINT64_C(64)
enum { ONEDNN_MAX_IN = 13, ONEDNN_MAX_OUT = 7, ONEDNN_MAX_ARGS = 24 };

/* ---- errors ---- */
unroll_status(onednn_fail)(unroll_error *err, unroll_status code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
#ifdef __clang_analyzer__ /* it looks into one file at a time: the status that comes back is the one given */
#define onednn_fail(err, status, ...) ((void)(onednn_fail)(err, status, __VA_ARGS__), (status))
#endif
/* Nothing for dnnl_success, else a failure that has oneDNN's status. */
unroll_status onednn_check(unroll_error *err, dnnl_status_t code, const char *call, const char *what);

/* ---- backend ---- */
struct unroll_backend {
  const unroll_host *host;
  uint32_t n_threads; /* 0: as OpenMP has it */
  char model[128], driver[64];
};
struct unroll_backend_device {
  unroll_backend *backend;
  dnnl_engine_t engine;
  dnnl_primitive_attr_t attr; /* scratch memory is the caller's */
};
struct unroll_backend_event {
  char unused; /* work is done before its event exists */
};
struct unroll_backend_queue {
  unroll_backend_device *device;
  dnnl_stream_t stream;
  unroll_backend_event done;
  bool profiled;
  unroll_profile_span *spans; /* since they were last asked for */
  uint64_t n_spans, room;
};
struct unroll_backend_buffer {
  unroll_backend_device *device;
  char *data;
  uint64_t bytes;
  bool owned;
};

void *onednn_alloc(const unroll_backend *backend, uint64_t bytes); /* zeroed; NULL when there is no memory */
void onednn_free(const unroll_backend *backend, void *p);
unroll_status onednn_buffer_range(const unroll_backend_buffer *b, uint64_t offset, uint64_t n, unroll_error *err);

/*
 * oneDNN asks OpenMP for the number of threads, when it plans a primitive and when it runs one. OpenMP keeps that number
 * per calling thread: it is the backend's from enter to leave, and nobody else sees it.
 */
int onednn_enter(const unroll_backend *backend);
void onednn_leave(int before);

/* ---- onednn_profile.c: nothing is done for a queue that is not profiled ---- */
extern const unroll_profile onednn_profile_table;
uint64_t onednn_now(void); /* nanoseconds of CLOCK_MONOTONIC */
/* Before the work: then it fails before anything was done, or not at all. */
unroll_status onednn_profile_room(unroll_backend_queue *q, uint64_t n, unroll_error *err);
/* After it: the span ends now. */
void onednn_profile_add(unroll_backend_queue *q, const unroll_profile_span *span);

/* ---- tensors of a group ---- */
typedef struct onednn_tensor {
  int32_t dtype, rank;
  int32_t dim; /* the run-time size that axis 0 follows, or -1 */
  uint32_t slot, period;
  uint64_t offset;
  int64_t step;
  int64_t per_size; /* axis 0 in a run: per_size times the run-time size */
  int64_t size[UNROLL_MAX_RANK];
  char name[32]; /* messages of a run outlive the view's own names */
} onednn_tensor;

uint32_t onednn_dtype_size(int32_t dtype); /* 0 for a code that is none */
int64_t onednn_count(const onednn_tensor *t);
/* Its elements where the run-time sizes are these. */
int64_t onednn_count_at(const onednn_tensor *t, const int64_t *dims);
unroll_status onednn_view_check(const unroll_graph_view *view, unroll_error *err);
const unroll_node_view *onednn_view_node(const unroll_graph_view *view, uint32_t i);
unroll_status onednn_view_tensor(const unroll_graph_view *view, uint32_t i, onednn_tensor *out, unroll_error *err);

/* ---- nodes ---- */
typedef struct onednn_node onednn_node;
typedef struct onednn_state onednn_state; /* what a binding keeps of a node; each op has its own */

/* One node, looked at for the first time. */
typedef struct onednn_resolver {
  unroll_backend_device *device;
  const unroll_graph_view *view;
  const unroll_node_view *node_view;
  const onednn_tensor *tensors;
  unroll_claim *claim; /* NULL: to be compiled */
  unroll_error *err;
} onednn_resolver;

/* One node in one step of one run. */
typedef struct onednn_step {
  dnnl_stream_t stream;
  const unroll_run_args *args;
  char *const *data; /* of each tensor, in this step */
  unroll_error *err;
} onednn_step;

/* release, bind and unbind are NULL where there is nothing to keep. */
typedef struct onednn_op {
  const char *label;
  /* Whether the node is one for this backend: E_UNSUPPORTED, E_DTYPE, E_SHAPE if not. What it made release undoes, also
   * after a failure. */
  unroll_status (*resolve)(const onednn_resolver *r, onednn_node *n);
  void (*release)(onednn_node *n);
  /* data: the tensors' places, of step 0; workspace: n->workspace bytes. */
  unroll_status (*bind)(unroll_backend_exec *e, const onednn_node *n, char *const *data, char *workspace,
                        onednn_state **out, unroll_error *err);
  void (*unbind)(unroll_backend_exec *e, onednn_state *s);
  unroll_status (*run)(const unroll_backend_exec *e, const onednn_node *n, onednn_state *s, const onednn_step *step);
} onednn_op;

typedef struct onednn_product { /* y[p,m,n] = Σk a[p,m,k]·b[p,k,n] + c; strides in elements */
  int64_t P, M, N, K;
  int64_t a_batch, a_row, a_col, b_batch, b_row, b_col;
} onednn_product;

typedef struct onednn_matmul {
  bool batched, trans_a, trans_b, full_c;
  onednn_product largest;
} onednn_matmul;

typedef struct onednn_reserve { /* where in the reserve what stands, in bytes */
  uint64_t y, h_last, c_last, h0, c0, workspace, total;
} onednn_reserve;

typedef struct onednn_rnn {
  int32_t cell, direction, activation;
  bool training;
  int64_t T, B, I, H, G;
  dnnl_primitive_desc_t forward, backward;
  dnnl_primitive_t primitive; /* of the one that the node is; only where it was compiled */
  onednn_reserve reserve;
  /* Offsets into the workspace. */
  uint64_t scratchpad, bias, staging, y, h_last, c_last, dx, dh0, dc0, dW_x, dW_h, db, zeros;
} onednn_rnn;

struct onednn_node {
  const onednn_op *op; /* NULL: nobody reads what it would write */
  uint32_t in[ONEDNN_MAX_IN], out[ONEDNN_MAX_OUT];
  uint64_t workspace, persistent; /* bytes */
  uint32_t index;                 /* in the view */
  char name[64];
  union {
    float constant;
    onednn_matmul matmul;
    onednn_rnn rnn;
  } as;
};

struct unroll_backend_exec {
  unroll_backend_device *device;
  bool is_template;
  uint32_t n_tensors, n_nodes, n_dims, n_slots;
  uint64_t workspace_bytes, persistent_bytes;
  onednn_tensor *tensors;
  onednn_node *nodes;
  int64_t *dim_min, *dim_max;
  uint8_t *used; /* a flag per tensor: some node reads or writes it */
};

extern const onednn_op onednn_constant_op, onednn_matmul_op, onednn_layer_op, onednn_layer_grad_op;

/* The tensor at an edge, NULL where it is absent. */
const onednn_tensor *onednn_in(const onednn_resolver *r, const onednn_node *n, uint32_t i);
const onednn_tensor *onednn_out(const onednn_resolver *r, const onednn_node *n, uint32_t i);
static inline char *onednn_data(char *const *data, uint32_t tensor) {
  return tensor == UNROLL_NO_TENSOR ? NULL : data[tensor];
}
/* A stretch of a node's workspace. */
uint64_t onednn_take(uint64_t *bytes, uint64_t n);

/* ---- primitives ---- */
typedef struct onednn_call { /* a primitive with its arguments */
  const_dnnl_primitive_t primitive;
  dnnl_exec_arg_t args[ONEDNN_MAX_ARGS];
  int32_t n_args;
} onednn_call;

/* An argument that stands at data; a descriptor of no bytes adds none. */
unroll_status onednn_call_add(onednn_call *c, dnnl_engine_t engine, int arg, const dnnl_memory_desc_t *md, void *data,
                              unroll_error *err);
unroll_status onednn_call_run(const onednn_call *c, dnnl_stream_t stream, unroll_error *err);
void onednn_call_release(onednn_call *c); /* the arguments; the primitive is whoever's made it */
const dnnl_memory_desc_t *onednn_arg(const_dnnl_primitive_desc_t desc, int arg);
uint64_t onednn_desc_bytes(const dnnl_memory_desc_t *md);

/* ---- onednn_rnn.c ---- */
/* Shapes, attributes and descriptors of LAYER, or of LAYER_GRAD. */
unroll_status onednn_rnn_resolve(const onednn_resolver *r, onednn_node *n, bool is_gradient);
void onednn_rnn_release(onednn_node *n);
/* Answers a claim whose saved value, of rank 3 or a reserve, is t (NULL: none). */
unroll_status onednn_rnn_claim(const onednn_resolver *r, const onednn_node *n, const onednn_tensor *saved);
/* oneDNN has u r o where this library has r z n, u = z. Which of our blocks its block is, for any cell. */
int64_t onednn_rnn_block(int32_t cell, int64_t block);

/* W_x and W_h as a primitive wants them, made again when they changed. */
typedef struct onednn_weights {
  onednn_call reorder;
  dnnl_primitive_t primitive;
  const char *from;
  char *staging; /* blocks in oneDNN's order; NULL: they are */
  void *packed;
  uint32_t slot;
  uint64_t generation, block_bytes;
} onednn_weights;
/* wanted: the primitive's descriptor; inner: I or H. */
unroll_status onednn_weights_bind(unroll_backend_exec *e, const onednn_node *n, const dnnl_memory_desc_t *wanted,
                                  int64_t inner, uint32_t tensor, char *const *data, char *workspace, onednn_weights *w,
                                  unroll_error *err);
void onednn_weights_release(unroll_backend_exec *e, onednn_weights *w);
unroll_status onednn_weights_run(const onednn_rnn *q, onednn_weights *w, const onednn_step *step);
/* W [G·H,inner] as this library lays it out, blocks aside. */
unroll_status onednn_weights_desc(const onednn_rnn *q, int64_t inner, dnnl_memory_desc_t *md, unroll_error *err);
unroll_status onednn_reorder_create(unroll_backend_device *device, const dnnl_memory_desc_t *from,
                                    const dnnl_memory_desc_t *to, dnnl_primitive_t *out, unroll_error *err);
/* What the primitive takes as bias: b itself, or b and b_n in oneDNN's order, which is written before each run. */
char *onednn_bias_place(const onednn_node *n, char *const *data, char *workspace);
void onednn_bias_write(const onednn_node *n, char *const *data, char *bias);

/* ---- onednn_exec.c, behind the vtable ---- */
unroll_status onednn_claim(unroll_backend_device *device, const unroll_graph_view *view, unroll_claim *claims,
                           uint32_t claim_stride, unroll_error *err);
unroll_status onednn_compile(unroll_backend_device *device, const unroll_graph_view *view, const unroll_option *options,
                             uint32_t n_options, unroll_backend_exec **out, unroll_error *err);
unroll_status onednn_exec_info(unroll_backend_exec *exec, unroll_exec_info *info, unroll_error *err);
void onednn_exec_destroy(unroll_backend_exec *exec);
unroll_status onednn_bind(unroll_backend_exec *exec, const unroll_slot *slots, uint32_t n_slots, uint32_t slot_stride,
                          unroll_backend_buffer *workspace, uint64_t workspace_offset, unroll_backend_binding **out,
                          unroll_error *err);
void onednn_binding_destroy(unroll_backend_binding *binding);
unroll_status onednn_run(unroll_backend_binding *binding, unroll_backend_queue *queue, const unroll_run_args *args,
                         unroll_backend_event **event, unroll_error *err);
#endif
