/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The reference backend: the meaning of every op, in the plainest C. What its files share.
 *
 *   cpu_backend.c  the plugin, its device, buffers and queue
 *   cpu_view.c     a graph view, checked, in the backend's own terms
 *   resolve*.c     one check per op: what the node may look like, and which loop runs it
 *   cpu_exec.c     claim, compile, bind, run
 *   cpu_profile.c  how long each node took
 *   cpu_pool.c     threads
 *   ops_*.c        the loops; an .inc file is one source for f32 and f64
 */
#ifndef CPU_H
#define CPU_H
#include <stdatomic.h>
#include <stdbool.h>
#include <unroll/plugin.h>

#define TRY(expression)                            \
  do {                                             \
    const unroll_status try_status = (expression); \
    if (try_status < 0)                            \
      return try_status;                           \
  } while (0)

#define CPU_ALIGNMENT 64u
#define CPU_MAX_MAPPED 3 /* inputs of an elementwise op */

/* ---- errors ---- */
unroll_status(cpu_fail)(unroll_error *err, unroll_status code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
#ifdef __clang_analyzer__ /* it looks into one file at a time: the status that comes back is the one given */
#define cpu_fail(err, status, ...) ((void)(cpu_fail)(err, status, __VA_ARGS__), (status))
#endif

/* ---- tensors of a group ---- */
typedef struct cpu_shape {
  int32_t rank;
  int32_t dim; /* the run-time size that axis 0 follows, or -1 */
  int64_t size[UNROLL_MAX_RANK];
} cpu_shape;

typedef struct cpu_tensor {
  cpu_shape shape;
  int32_t dtype;
  uint32_t slot, period;
  uint64_t offset;
  int64_t step;
  int64_t per_size; /* axis 0 in a run: per_size times the run-time size */
  char name[32];    /* messages of a run outlive the view's own names */
} cpu_tensor;

typedef struct cpu_operand { /* a tensor in one step of one run */
  char *data;
  int32_t rank;
  int64_t size[UNROLL_MAX_RANK];
} cpu_operand;

typedef struct cpu_text {
  char text[112];
} cpu_text;

uint32_t cpu_dtype_size(int32_t dtype); /* 0 for a code that is none */
const char *cpu_dtype_name(int32_t dtype);
int64_t cpu_shape_count(const cpu_shape *s);
bool cpu_shape_same(const cpu_shape *a, const cpu_shape *b);
cpu_text cpu_shape_text(const cpu_shape *s);
unroll_status cpu_view_check(const unroll_graph_view *view, unroll_error *err);
const unroll_node_view *cpu_view_node(const unroll_graph_view *view, uint32_t i);
unroll_status cpu_view_tensor(const unroll_graph_view *view, uint32_t i, cpu_tensor *out, unroll_error *err);

/* ---- nodes ---- */
typedef struct cpu_node cpu_node;
typedef struct cpu_position { /* where in the whole computation a step stands */
  uint64_t seed, update;
  int64_t t0, row0, t;
} cpu_position;

typedef struct cpu_pool cpu_pool;
typedef struct cpu_call { /* one node in one step */
  const cpu_node *node;
  const cpu_operand *operands;
  const cpu_position *at;
  void *workspace;
  cpu_pool *pool;
} cpu_call;

typedef void (*cpu_run_fn)(const cpu_call *call);
/* n elements of y; input i is read stride[i] elements apart. */
typedef void (*cpu_map_fn)(const cpu_node *node, int64_t n, void *y, const void *const *in, const int64_t *stride);

/* How y's elements, in their own order, walk over the inputs. Axis 0's size is what is left of y's count. */
typedef struct cpu_map {
  int32_t rank, n_in;
  int64_t size[UNROLL_MAX_RANK];
  int64_t stride[CPU_MAX_MAPPED][UNROLL_MAX_RANK], start[CPU_MAX_MAPPED]; /* in elements */
  uint32_t in_bytes[CPU_MAX_MAPPED], out_bytes;                           /* of an element */
} cpu_map;

typedef union cpu_attr {
  unroll_matmul_attr matmul;
  unroll_unary_attr unary;
  unroll_binary_attr binary;
  unroll_reduce_attr reduce;
  unroll_slice_attr slice;
  unroll_pad_attr pad;
  unroll_axis_attr axis;
  unroll_transpose_attr transpose;
  unroll_constant_attr constant;
  unroll_dropout_attr dropout;
  unroll_categorical_attr categorical;
  unroll_random_attr random;
  unroll_top_k_attr top_k;
  unroll_linear_scan_attr linear_scan;
  unroll_layer_norm_attr layer_norm;
  unroll_length_mask_attr length_mask;
  unroll_optimizer_attr optimizer;
} cpu_attr;

struct cpu_node {
  cpu_run_fn run; /* NULL: nobody reads what it would write */
  const uint32_t *edges;
  uint32_t n_in, n_out; /* edges holds the inputs, then the outputs */
  uint32_t index, op;   /* index: in the view that was compiled */
  uint32_t elem_bytes;  /* of the tensors that a copying op moves */
  bool batched;         /* matmul */
  uint64_t workspace;   /* bytes of scratch */
  cpu_attr attr;
  cpu_map_fn kernel; /* elementwise: what run does with each stretch */
  cpu_map map;
};

static inline const cpu_operand *cpu_edge(const cpu_call *c, uint32_t edge) {
  const uint32_t tensor = c->node->edges[edge];
  return tensor == UNROLL_NO_TENSOR ? NULL : &c->operands[tensor];
}
/* An edge that is absent, at the end of the list too, is NULL. */
static inline const cpu_operand *cpu_in(const cpu_call *c, uint32_t i) {
  return i < c->node->n_in ? cpu_edge(c, i) : NULL;
}
static inline const cpu_operand *cpu_out(const cpu_call *c, uint32_t i) {
  return i < c->node->n_out ? cpu_edge(c, c->node->n_in + i) : NULL;
}
static inline void *cpu_in_data(const cpu_call *c, uint32_t i) {
  const cpu_operand *o = cpu_in(c, i);
  return o ? o->data : NULL;
}
static inline void *cpu_out_data(const cpu_call *c, uint32_t i) {
  const cpu_operand *o = cpu_out(c, i);
  return o ? o->data : NULL;
}
/* Product of the sizes of axes from..to-1. */
static inline int64_t cpu_count(const cpu_operand *o, int32_t from, int32_t to) {
  int64_t n = 1;
  for (int32_t i = from; i < to; i++)
    n *= o->size[i];
  return n;
}

/* ---- threads ---- */
/*
 * Work is cut into pieces by its size alone and each piece is computed by one thread, so that the number of threads
 * changes no bit. Whoever finds the pool busy does all of its pieces itself.
 */
typedef void (*cpu_piece_fn)(const void *work, int64_t piece);
typedef void (*cpu_range_fn)(const void *work, int64_t begin, int64_t end);
unroll_status cpu_pool_create(const unroll_host *host, uint32_t n_threads, cpu_pool **out, unroll_error *err);
void cpu_pool_destroy(cpu_pool *pool);
void cpu_pool_pieces(cpu_pool *pool, int64_t n_pieces, cpu_piece_fn fn, const void *work);
/* Items 0..n-1 in ranges; cost: operations of an item, about. A small amount of work stays on this thread. */
void cpu_pool_ranges(cpu_pool *pool, int64_t n, int64_t cost, cpu_range_fn fn, const void *work);
#define CPU_PARALLEL_COST 131072 /* operations below which waking a thread costs more than it saves */

/* ---- backend ---- */
struct unroll_backend_device {
  unroll_backend *backend;
};
struct unroll_backend {
  unroll_host host;
  cpu_pool *pool;
  unroll_backend_device device;
  uint64_t memory; /* bytes of the machine */
  char model[128];
};
struct unroll_backend_event {
  char unused; /* work is done before its event exists */
};
typedef struct cpu_profile { /* spans since they were last asked for */
  unroll_profile_span *spans;
  uint64_t n, room;
} cpu_profile;
struct unroll_backend_queue {
  unroll_backend_device *device;
  unroll_backend_event done;
  bool profiled;
  cpu_profile profile;
};
struct unroll_backend_buffer {
  unroll_backend_device *device;
  char *data;
  uint64_t bytes;
  bool owned;
};

unroll_status cpu_buffer_range(const unroll_backend_buffer *b, uint64_t offset, uint64_t n, unroll_error *err);
void *cpu_alloc(const unroll_host *host, uint64_t bytes); /* zeroed; NULL when there is no memory */

/* cpu_profile.c. What is recorded needs its room before: then a run fails before it did anything, or not at all. */
extern const unroll_profile cpu_profile_table;
uint64_t cpu_now(void); /* nanoseconds of CLOCK_MONOTONIC */
unroll_status cpu_profile_room(unroll_backend_queue *q, uint64_t n, unroll_error *err);
void cpu_profile_node(unroll_backend_queue *q, const cpu_node *node, unroll_backend_binding *binding, int64_t t,
                      uint64_t begin, uint64_t end);
void cpu_profile_transfer(unroll_backend_queue *q, const char *label, uint64_t begin, uint64_t bytes);
void cpu_profile_free(unroll_backend_queue *q);

/* cpu_exec.c, behind the vtable */
unroll_status cpu_claim(unroll_backend_device *device, const unroll_graph_view *view, unroll_claim *claims,
                        uint32_t claim_stride, unroll_error *err);
unroll_status cpu_compile(unroll_backend_device *device, const unroll_graph_view *view, const unroll_option *options,
                          uint32_t n_options, unroll_backend_exec **out, unroll_error *err);
unroll_status cpu_exec_info(unroll_backend_exec *exec, unroll_exec_info *info, unroll_error *err);
void cpu_exec_destroy(unroll_backend_exec *exec);
unroll_status cpu_bind(unroll_backend_exec *exec, const unroll_slot *slots, uint32_t n_slots, uint32_t slot_stride,
                       unroll_backend_buffer *workspace, uint64_t workspace_offset, unroll_backend_binding **out,
                       unroll_error *err);
void cpu_binding_destroy(unroll_backend_binding *binding);
unroll_status cpu_run(unroll_backend_binding *binding, unroll_backend_queue *queue, const unroll_run_args *args,
                      unroll_backend_event **event, unroll_error *err);
#endif
