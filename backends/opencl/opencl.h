/* SPDX-License-Identifier: Apache-2.0 */
/*
 * opencl.h: the OpenCL backend's own types. OpenCL 1.2 is enough.
 *
 * A group of nodes is compiled to a list of launches (plan*.c writes it, exec.c keeps and runs it). A launch is a
 * kernel, its build options, how many work-items it needs, and a list of arguments that say where their values come
 * from: what is fixed is set when an executable is bound, what depends on the run's sizes once a run, what depends on
 * the time step at every step.
 */
#ifndef UNROLL_OPENCL_H
#define UNROLL_OPENCL_H
#ifndef CL_TARGET_OPENCL_VERSION
#define CL_TARGET_OPENCL_VERSION 120
#endif
#define CL_USE_DEPRECATED_OPENCL_1_2_APIS
#include <CL/cl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <unroll/plugin.h>

#define TRY(expression)                            \
  do {                                             \
    const unroll_status try_status = (expression); \
    if (try_status != UNROLL_OK)                   \
      return try_status;                           \
  } while (0)

enum { OPENCL_ALIGNMENT = 128 }; /* of tensors in a buffer, and of scratch in a workspace */
enum { OPENCL_WALK_AXES = 8, OPENCL_MAX_TERMS = 4 };

/* ---- devices (backend.c) ---- */
typedef struct device_entry { /* a device as it was found; no context */
  cl_platform_id platform;
  cl_device_id device;
  cl_device_type type;
  char id[24];
  char *name, *vendor, *driver;
  uint64_t mem_total, max_buffer;
  bool fp64, integrated;
} device_entry;

struct unroll_backend {
  const unroll_host *host;
  device_entry *devices;
  uint32_t n_devices;
};

/*
 * SCAN: layers are lowered to steps of products and gates. STEP: a launch a step. SEQUENCE: a launch for many steps.
 * PERSISTENT: a launch for many steps whose work-groups wait for each other. LAYER: as AUTO, but never SCAN.
 */
enum {
  RECURRENCE_AUTO = 0,
  RECURRENCE_SCAN = 1,
  RECURRENCE_STEP = 2,
  RECURRENCE_SEQUENCE = 3,
  RECURRENCE_PERSISTENT = 4,
  RECURRENCE_LAYER = 5
};
/* QUICK: layers with much work are timed, a few ways. OFF: nothing is. AGAIN: THOROUGH, whatever was measured before. */
enum { TUNE_QUICK = 0, TUNE_OFF = 1, TUNE_THOROUGH = 2, TUNE_AGAIN = 3 };
enum { PRODUCT_AUTO = 0, PRODUCT_CLBLAST = 1, PRODUCT_OWN = 2, PRODUCT_TILE = 3 };
/* HALF: what a product of f32 multiplies may be rounded to half, and weights are kept so; sums stay in float. */
enum { PRECISION_FLOAT = 0, PRECISION_HALF = 1 };
/* Matrix instructions, where precision allows them. EMULATED: the same kernel with plain code in their place. */
enum { MATRIX_AUTO = 0, MATRIX_OFF = 1, MATRIX_EMULATED = 2 };
enum { SWITCH_AUTO = 0, SWITCH_OFF = 1, SWITCH_ON = 2 };
enum { KERNELS_AUTO = 0, KERNELS_CPU = 1, KERNELS_GPU = 2 };

struct unroll_backend_device {
  unroll_backend *backend;
  const unroll_host *host;
  const device_entry *entry;
  cl_context context;
  cl_command_queue own_queue; /* for the self-test of products and for sizes that CLBlast wants a queue for */
  bool cpu;
  int64_t cores;                                                                             /* compute units */
  int32_t product, recurrence, tune, precision, matrix, command_buffer, concurrent, kernels; /* as options say */
  struct tuning *tuning;
  uint32_t width32, width64; /* lanes of f32 and f64 that a kernel handles at once */
  uint64_t local_bytes;
  size_t group; /* work-items of a work-group */
  bool masked[UNROLL_OP_END];
  char *cache;                    /* directory, or NULL */
  struct command_calls *commands; /* of command buffers; NULL: none are used */
  atomic_uint_least64_t queues;   /* made so far */
  unroll_backend_queue *live;     /* those that are not destroyed, a list under the lock */
  atomic_int lost;                /* the error that said so, or 0 */
  atomic_int_least64_t
      refused;              /* so many work-groups don't wait for each other (persistent.c); 0: none was seen to fail */
  pthread_mutex_t alone;    /* held while a launch runs that wants the device for itself */
  atomic_uint faults;       /* calls of OpenCL that failed: what was packed before the last one is packed again */
  pthread_mutex_t lock;     /* guards what follows */
  struct program *programs; /* every program built so far */
  bool tidied;              /* the cache's folder */
  int clblast_state[2];     /* f32, f64: 0 not tried, 1 right, -1 not to be used */
  int32_t matrix_state;     /* 0 not tried, -1 none, else which instruction (matrix.c) */
};

/* ---- errors and memory (backend.c) ---- */
unroll_status(opencl_fail)(unroll_error *err, unroll_status code, int64_t native, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
#ifdef __clang_analyzer__ /* it looks into one file at a time: the status that comes back is the one given */
#define opencl_fail(err, status, ...) ((void)(opencl_fail)(err, status, __VA_ARGS__), (status))
#endif
/* The status of a cl_int, with the name of the call and what it was about in the message; notes a lost device. */
unroll_status opencl_error(unroll_backend_device *d, unroll_error *err, cl_int code, const char *call,
                           const char *what);
unroll_status opencl_alive(unroll_backend_device *d, unroll_error *err); /* an error once the device is lost */
void opencl_log(const unroll_host *host, int32_t level, const char *format, ...) __attribute__((format(printf, 3, 4)));
void *opencl_alloc(const unroll_host *host, size_t count, size_t size); /* zeroed; NULL when there is none */
void opencl_free(const unroll_host *host, void *p);
char *opencl_copy_text(const unroll_host *host, const char *text);

/* ---- programs (program.c) ---- */
/* A program built from kernels/SOURCE with these options, from memory, from disk or by the compiler. [any] */
unroll_status program_get(unroll_backend_device *d, const char *name, const char *options, cl_program *out,
                          unroll_error *err);
void program_free_all(unroll_backend_device *d);
/* The directory of the disk cache: the option's, or the user's; NULL where there is none. The caller frees it. */
char *program_cache_folder(const unroll_host *host, const char *option);
/* Lines that say which device, driver and settings of its compiler these are, and a hash of all kernels. The caller frees. */
char *program_device_key(unroll_backend_device *d, uint64_t *sources);
uint64_t program_hash(const void *bytes, size_t n);

/* ---- what is measured (tune*.c, tune.h) ---- */
unroll_status tune_open(unroll_backend_device *d, unroll_error *err);
void tune_close(unroll_backend_device *d);
typedef struct trial_choice { /* what is to be timed: takes the place of a choice */
  const struct layer_split *split;
  int32_t product; /* PRODUCT_AUTO: as ever */
} trial_choice;

/* ---- buffers and queues (queue.c) ---- */
struct unroll_backend_buffer {
  unroll_backend_device *device;
  cl_mem mem;
  bool borrowed; /* the memory is the caller's */
  uint64_t bytes;
};

struct unroll_backend_queue {
  unroll_backend_device *device;
  uint64_t number; /* of all that the device made */
  cl_command_queue queue;
  cl_kernel fill;                     /* made at the first fill */
  cl_event marker;                    /* the work up to here is waited for before much more is queued */
  uint32_t launches;                  /* since the last flush, */
  uint32_t marked;                    /* and since the last marker */
  struct unroll_backend_queue *aside; /* for the second branch of a flight; made at the first one */
  bool aside_refused;
  struct unroll_backend_queue *before, *after; /* in the device's list */
  struct profile *profile;                     /* NULL: nothing is timed */
  cl_int profile_refused; /* what the driver said to a queue that is profiled; CL_SUCCESS where it made one */
};

struct unroll_backend_event {
  unroll_backend_device *device;
  cl_event event;
};

unroll_status queue_count_launch(unroll_backend_queue *q,
                                 unroll_error *err); /* flushes and bounds the work in flight */
/* A queue whose work begins after what is queued here, until the join; *aside is NULL where there is none to be had. */
unroll_status queue_fork(unroll_backend_queue *q, unroll_backend_queue **aside, unroll_error *err);
/* What is queued from now on begins after the work of aside, too. */
unroll_status queue_join(unroll_backend_queue *q, unroll_error *err);
/* Instead of that, after an error: none of its work is left. */
void queue_drop(unroll_backend_queue *q);
/* An event after all that is queued, where one is asked for. */
unroll_status queue_event(unroll_backend_queue *q, unroll_backend_event **event, unroll_error *err);

/* The calls of command buffers, where the option wants them and the device has them (command_buffer.c). */
unroll_status commands_open(unroll_backend_device *d, unroll_error *err);

/* ---- times (queue_profile.c): "unroll.profile/1" ---- */
extern const unroll_profile opencl_profile;
unroll_status profile_create(unroll_backend_device *d, struct profile **out, unroll_error *err);
void profile_free(unroll_backend_device *d, struct profile *p); /* NULL: nothing */
/* The queue is profiled: room for so many spans more, so that a run that has it can't lack it half way. */
unroll_status profile_room(unroll_backend_queue *q, uint64_t n, unroll_error *err);
/* The queue is profiled: where the next command, which is the span, has to put its event. Until the next one. */
unroll_status profile_command(unroll_backend_queue *q, const unroll_profile_span *span, cl_event **event,
                              unroll_error *err);
/* Likewise for a transfer; *event is NULL where the queue is not profiled or there is nothing to transfer. */
unroll_status profile_transfer(unroll_backend_queue *q, const char *label, uint64_t bytes, cl_event **event,
                               unroll_error *err);
/* The queue is profiled: what is queued between the two is the span. */
unroll_status profile_begin(unroll_backend_queue *q, const unroll_profile_span *span, unroll_error *err);
unroll_status profile_end(unroll_backend_queue *q, unroll_error *err);

/* The entries of the vtable that other files than backend.c define (queue.c, exec.c). */
unroll_status buffer_create(unroll_backend_device *d, uint64_t bytes, uint64_t usage, unroll_backend_buffer **out,
                            unroll_error *err);
unroll_status buffer_from_host(unroll_backend_device *d, void *data, uint64_t bytes, uint64_t usage,
                               unroll_backend_buffer **out, unroll_error *err);
void buffer_destroy(unroll_backend_buffer *b);
unroll_status queue_write(unroll_backend_queue *q, unroll_backend_buffer *b, uint64_t offset, const void *data,
                          uint64_t n, unroll_backend_event **event, unroll_error *err);
unroll_status queue_read(unroll_backend_queue *q, unroll_backend_buffer *b, uint64_t offset, void *data, uint64_t n,
                         unroll_backend_event **event, unroll_error *err);
unroll_status queue_fill(unroll_backend_queue *q, unroll_backend_buffer *b, uint64_t offset, uint64_t n, uint8_t value,
                         unroll_backend_event **event, unroll_error *err);
unroll_status queue_copy(unroll_backend_queue *q, unroll_backend_buffer *to, uint64_t to_offset,
                         unroll_backend_buffer *from, uint64_t from_offset, uint64_t n, unroll_backend_event **event,
                         unroll_error *err);
unroll_status queue_map(unroll_backend_queue *q, unroll_backend_buffer *b, uint64_t offset, uint64_t n, uint64_t usage,
                        void **out, unroll_error *err);
unroll_status queue_unmap(unroll_backend_queue *q, unroll_backend_buffer *b, void *memory, unroll_error *err);
unroll_status queue_create(unroll_backend_device *d, uint64_t flags, unroll_backend_queue **out, unroll_error *err);
void queue_destroy(unroll_backend_queue *q);
unroll_status queue_flush(unroll_backend_queue *q, unroll_error *err);
unroll_status queue_sync(unroll_backend_queue *q, unroll_error *err);
unroll_status queue_wait(unroll_backend_queue *q, unroll_backend_event *event, unroll_error *err);
unroll_status event_wait(unroll_backend_event *event, unroll_error *err);
void event_destroy(unroll_backend_event *event);
unroll_status exec_claim(unroll_backend_device *d, const unroll_graph_view *g, unroll_claim *claims,
                         uint32_t claim_stride, unroll_error *err);
unroll_status exec_compile(unroll_backend_device *d, const unroll_graph_view *g, const unroll_option *options,
                           uint32_t n_options, unroll_backend_exec **out, unroll_error *err);
unroll_status exec_compile_trial(unroll_backend_device *d, const unroll_graph_view *g, const trial_choice *trial,
                                 unroll_backend_exec **out, unroll_error *err);
unroll_status exec_info(unroll_backend_exec *e, unroll_exec_info *info, unroll_error *err);
void exec_destroy(unroll_backend_exec *e);
unroll_status exec_bind(unroll_backend_exec *e, const unroll_slot *slots, uint32_t n_slots, uint32_t slot_stride,
                        unroll_backend_buffer *workspace, uint64_t workspace_offset, unroll_backend_binding **out,
                        unroll_error *err);
void binding_destroy(unroll_backend_binding *b);
unroll_status binding_run(unroll_backend_binding *b, unroll_backend_queue *q, const unroll_run_args *run,
                          unroll_backend_event **event, unroll_error *err);

/* ---- launches ---- */
typedef struct extent { /* per·dims[dim], or per alone where dim is -1 */
  int64_t per;
  int32_t dim;
} extent;

typedef enum arg_kind {
  ARG_MEM,        /* the buffer of tensor */
  ARG_AT,         /* where tensor starts, in elements of value bytes, plus n_extents extents */
  ARG_SCRATCH,    /* the workspace */
  ARG_SCRATCH_AT, /* value bytes into it, in elements of `bytes` bytes */
  ARG_PACKED,     /* the binding's own buffer */
  ARG_PACKED_AT,
  ARG_LONG,   /* value */
  ARG_UINT,   /* value */
  ARG_EXTENT, /* the product of n_extents extents, divided by value and rounded up */
  ARG_ITEMS,  /* how many work-items have work */
  ARG_BYTES,  /* a copy of n bytes */
  ARG_CLAIMS, /* the binding's counters, from which work-items take their work: 0 between launches */
  ARG_FIRST,  /* of a loop: the first step of this launch, */
  ARG_COUNT,  /* and how many */
  ARG_KEY0,   /* the key of random site number value */
  ARG_KEY1,
  ARG_TIME, /* the step of a template, as a long; plus t0 where value is 1 */
  ARG_T0,   /* plus value */
  ARG_ROW0
} arg_kind;

typedef struct launch_arg {
  arg_kind kind;
  uint32_t tensor, bytes;
  int64_t value, extra; /* extra: elements added to ARG_AT */
  uint32_t first_extent, n_extents;
  void *data;
} launch_arg;

/* INSTEAD: for when a PERSISTENT loop, the one before, is not to be, or was given up. */
enum { LOOP_PLAIN, LOOP_PERSISTENT, LOOP_INSTEAD };

/* Neighbouring launches that are repeated over time steps, some steps at a time. */
typedef struct time_loop {
  extent steps;
  int64_t extra, chunk; /* steps + extra in all, at most chunk at a time */
  int32_t kind;
  uint64_t meeting; /* PERSISTENT: where in the binding's counters its work-groups meet */
} time_loop;

typedef struct launch {
  const char *source, *kernel; /* source NULL: a product by CLBlast */
  const char *name;            /* of the node, for messages */
  uint32_t node;               /* its index in the view */
  char *options;
  cl_program program;
  struct {
    uint32_t first, n; /* the product of these extents, */
    int64_t divisor;   /* divided and rounded up */
  } term[OPENCL_MAX_TERMS];
  uint32_t n_terms;
  int64_t times;   /* and times this: the work-items that have work */
  size_t group;    /* work-items of a work-group */
  bool once;       /* of a template: before its first step */
  uint32_t cached; /* the tensor that it packs into the binding's buffer, or UNROLL_NO_TENSOR */
  uint32_t loop;   /* its number, from 1 on; 0: none */
  uint32_t flight; /* its number, from 1 on; 0: none */
  bool aside;      /* it is of the flight's second branch */
  uint32_t first_arg, n_args;
  struct product *product; /* of CLBlast */
} launch;

typedef struct place { /* what a run needs of a view */
  int32_t dtype;
  uint32_t slot, period;
  uint64_t offset, bytes; /* bytes: at the maximum of its run-time size, */
  int32_t dim;            /* which is this, or -1 */
  bool used;              /* by a node */
  int64_t step;
  const char *name;
} place;

/* Where a launch finds a matrix: in a tensor, in the workspace or in the binding's buffer; at so many bytes into it. */
typedef struct operand {
  arg_kind mem; /* ARG_MEM, ARG_SCRATCH or ARG_PACKED */
  uint32_t tensor;
  uint64_t at;
} operand;

typedef struct flight { /* a node's place in one, see concurrent.c */
  uint32_t number;      /* from 1 on; 0: it is in none */
  bool aside;           /* in the second branch */
  uint64_t scratch;     /* bytes of it that the node needs */
} flight;

/* What a group is planned into. Errors stick: planning code stays straight, and the end reports the first. */
typedef struct plan {
  unroll_backend_device *device;
  const unroll_graph_view *graph;
  launch *launches;
  launch_arg *args;
  extent *extents;
  time_loop *loops;
  uint32_t n_launches, n_args, n_extents, n_loops;
  uint32_t room_launches, room_args, room_extents, room_loops;
  uint64_t workspace, node_workspace; /* bytes; what a node needs is free again for the next */
  uint64_t packed;                    /* bytes that a binding keeps */
  uint64_t claims;                    /* bytes of its counters */
  uint64_t reserve;                   /* what this layer wants to hand to its gradient, or its gradient to be handed */
  uint64_t temp;                      /* bytes of CLBlast's temporary buffer, which can't start at an offset */
  const unroll_node_view *node;
  uint32_t node_index;
  flight *flights; /* by node; NULL: each node has the device for itself */
  uint32_t n_flights;
  const trial_choice *trial; /* NULL but for a trial */
  bool dry;                  /* for a claim: nothing is compiled or tested on the device */
  launch nowhere;            /* what plan_launch returns after an error, so that callers may fill its fields */
  unroll_status status;
  unroll_error error;
} plan;

/* plan.c: the parts that every node's planning uses */
const unroll_tensor_view *graph_tensor(const unroll_graph_view *g, uint32_t tensor);
const unroll_node_view *graph_node(const unroll_graph_view *g, uint32_t node);
uint32_t plan_in(const plan *p, uint32_t i); /* edges of the current node, UNROLL_NO_TENSOR past the last */
uint32_t plan_out(const plan *p, uint32_t i);
operand operand_of(uint32_t tensor);
operand operand_after(operand o, uint64_t bytes);
const unroll_tensor_view *plan_view(const plan *p, uint32_t tensor);
unroll_status(plan_decline)(plan *p, const char *format, ...) __attribute__((format(printf, 2, 3)));
#ifdef __clang_analyzer__
#define plan_decline(p, ...) ((void)(plan_decline)(p, __VA_ARGS__), UNROLL_E_UNSUPPORTED)
#endif
size_t dtype_bytes(int32_t dtype);
const char *dtype_c(int32_t dtype);
bool plan_real(const plan *p, int32_t dtype); /* f32, or f64 where the device has it */
int32_t plan_panels(const plan *p,
                    int32_t dtype); /* what packed weights of this dtype are kept as: f16 for f32 if asked */
bool plan_number(const plan *p, int32_t dtype); /* real, i32, i64 */
uint32_t plan_width(const plan *p, int32_t dtype);
extent plan_axis(const plan *p, uint32_t id, int32_t axis);
extent plan_axes(const plan *p, uint32_t id, int32_t from, int32_t to); /* the product of axes from..to-1 */
int64_t extent_max(const plan *p, extent e);

launch *plan_launch(plan *p, const char *source, const char *kernel, const char *options, ...)
    __attribute__((format(printf, 4, 5)));
/* What follows speaks of the last launch. */
void plan_items(plan *p, extent e, int64_t divisor); /* multiplies the number of work-items */
void arg_tensor(plan *p, uint32_t id);               /* buffer and offset; an absent edge becomes NULL and 0 */
void arg_window(plan *p, uint32_t id, int64_t elements, const extent *more, uint32_t n);
void arg_operand(plan *p, operand o, int32_t dtype); /* likewise, of elements of dtype */
void arg_claims(plan *p);                            /* counters of this launch's own */
void arg_long(plan *p, int64_t value);
void arg_uint(plan *p, uint32_t value);
void arg_extent(plan *p, extent e);
void arg_blocks(plan *p, extent e, int64_t block); /* the extent divided by block, rounded up */
void arg_real(plan *p, int32_t dtype, double value);
void arg_bytes(plan *p, const void *data, uint32_t n);
void arg_kind_of(plan *p, arg_kind kind, int64_t value);
void plan_loop(plan *p, extent steps, int64_t extra, int64_t chunk); /* the launches that follow with plan_in_loop */
void plan_in_loop(plan *p);
/* Likewise, of launches whose work-groups wait for each other. What the next loop does takes their place where they fail. */
void plan_persistent_loop(plan *p, extent steps, int64_t extra, int64_t chunk);
/* Of the last launch, which is in such a loop: where the groups meet, and how long they wait. */
void arg_meeting(plan *p);
operand plan_scratch(plan *p, uint64_t bytes);                 /* in the workspace, for this node */
operand plan_packed(plan *p, uint64_t bytes);                  /* in the binding's own buffer */
void plan_elements(plan *p, uint32_t tensor, int64_t divisor); /* items: a tensor's elements by divisor */
unroll_status plan_node(plan *p, uint32_t node); /* UNROLL_E_UNSUPPORTED where this backend has no kernel for it */
void plan_free(plan *p);

/* Layers in flight at once (concurrent.c): which nodes are, before they are planned; and after it, which launches. */
unroll_status flights_find(plan *p);
void flights_settle(plan *p);
bool plan_in_flight(const plan *p); /* the current node */

/* plan_elements.c, plan_rows.c, plan_scan.c, plan_cells.c, plan_matmul.c: a function for each family of ops */
unroll_status plan_unary(plan *p);
unroll_status plan_binary(plan *p);
unroll_status plan_select(plan *p);
unroll_status plan_cast(plan *p);
unroll_status plan_constant(plan *p);
unroll_status plan_slice(plan *p);
unroll_status plan_pad(plan *p);
unroll_status plan_concat(plan *p);
unroll_status plan_transpose(plan *p);
unroll_status plan_reshape(plan *p);
unroll_status plan_reverse(plan *p);
unroll_status plan_length_mask(plan *p);
unroll_status plan_dropout(plan *p);
unroll_status plan_random(plan *p);
unroll_status plan_optimizer(plan *p);
unroll_status plan_reduce(plan *p);
unroll_status plan_softmax(plan *p);
unroll_status plan_cross_entropy(plan *p);
unroll_status plan_cross_entropy_grad(plan *p);
unroll_status plan_embedding(plan *p);
unroll_status plan_embedding_grad(plan *p);
unroll_status plan_gather(plan *p);
unroll_status plan_gather_grad(plan *p);
unroll_status plan_argmax(plan *p);
unroll_status plan_top_k(plan *p);
unroll_status plan_categorical(plan *p);
unroll_status plan_linear_scan(plan *p);
unroll_status plan_linear_scan_grad(plan *p);
/* Neighbours in a step that are one launch (plan_join.c). The node is a sum that the next one's kernel adds up. */
bool plan_adds_into_next(const plan *p, uint32_t node);
/* Of the node that is planned: the second addend of such a sum, and the first instead of *first; or UNROLL_NO_TENSOR. */
uint32_t plan_added(const plan *p, uint32_t *first);
/* The activation that the next node is, of what this layer_norm gives; UNROLL_COPY: none. */
int32_t plan_activates(const plan *p, uint32_t node);
bool plan_is_joined(const plan *p, uint32_t node); /* to a neighbour: it needs no launch of its own */
unroll_status plan_layer_norm(plan *p);
unroll_status plan_layer_norm_grad(plan *p);
unroll_status plan_gates(plan *p);
unroll_status plan_norm_gates(plan *p); /* an LSTM's, of version 2 */
unroll_status plan_norm_gates_grad(plan *p);
unroll_status plan_layer(plan *p);
unroll_status plan_layer_grad(plan *p);
unroll_status plan_matmul(plan *p);
void plan_fill(plan *p, uint32_t id, double value); /* one value everywhere */

/* ---- products (plan_matmul.c) ---- */
typedef struct gemm { /* y [P,M,N] = op(a) · op(b) + c */
  operand a, b, c, y;
  int32_t dtype;
  bool trans_a, trans_b, batched;
  bool have_c, row_c; /* c is a row */
  bool steady;        /* b has the same bytes for every step, and for every run while its slot's generation stands */
  extent p, m, n, k;
  int64_t a_row, b_row; /* elements from row to row in memory; 0: as many as a row has */
  int64_t k_block; /* above 0: y = c, or 0, and then the sums of blocks of so many values of k, one after the other */
  bool from_first; /* of the blocks; else from the last */
  int64_t m_block; /* above 0: what decides over the order of a sum looks at no more rows than these */
} gemm;
unroll_status plan_gemm(plan *p, const gemm *g);
/* Whether a tensor is what gemm.steady says. */
bool plan_steady(const plan *p, uint32_t tensor);
/* y = x where row t·B + b has t < lengths[b], else 0; values of so many bytes. (plan_elements.c) */
void plan_mask(plan *p, size_t bytes, operand x, uint32_t lengths, operand y, extent rows, int64_t B, int64_t columns);
/* y = a⊙b, n elements each. (plan_elements.c) */
void plan_multiply(plan *p, int32_t dtype, uint32_t a, uint32_t b, operand y, int64_t n);
/* Sums over rows of x, row elements apart: y [columns]. (plan_rows.c) */
typedef struct row_blocks { /* blocks of so many rows, added to c, or 0, one after the other; 0: one sum */
  int64_t rows;
  bool from_first;
  operand c; /* UNROLL_NO_TENSOR: none */
} row_blocks;
void plan_column_sums(plan *p, int32_t dtype, operand x, int64_t row, operand y, extent rows, int64_t columns,
                      const row_blocks *blocks);
/* Likewise of parts [..][columns] that are sums of so many rows already, which divide those of a block. */
void plan_sum_parts(plan *p, int32_t dtype, operand parts, int64_t part, operand y, extent rows, int64_t columns,
                    const row_blocks *blocks);
int64_t plan_part_rows(int64_t rows); /* of a part, where a block has so many */

/* ---- launches whose work-groups wait for each other (persistent.c) ---- */
cl_uint persistent_spins(const unroll_backend_device *d);
/* Whether so many groups of this kernel do, tried on the device. */
bool persistent_works(unroll_backend_device *d, cl_program program, const char *name, size_t group, int64_t groups);
/* Around the launches of a loop: whether they are left out; before some steps; after them, which waits. */
bool persistent_skips(unroll_backend_binding *b, const time_loop *l);
void persistent_begin(unroll_backend_binding *b, const time_loop *l);
unroll_status persistent_end(unroll_backend_binding *b, unroll_backend_queue *q, const time_loop *l,
                             unroll_status status, unroll_error *err);

/* ---- products by CLBlast (product.c) ---- */
typedef struct product {
  int32_t dtype, trans_a, trans_b, has_c, from_first;
  int64_t k_block, m_block; /* 0: none; as gemm has them, but rows are really cut into calls of m_block */
  operand a, b, y;
  extent m, n, k;
  int64_t a_row, b_row;
  uint64_t temp_bytes;
} product;

/* Whether CLBlast works on this device for this dtype: compares one product with the plain sum, once. */
bool product_clblast_works(unroll_backend_device *d, int32_t dtype);
/* The test itself. err says why not, where it is not the numbers. */
bool product_test(unroll_backend_device *d, int32_t dtype, unroll_error *err);
unroll_status product_temp_bytes(unroll_backend_device *d, const product *g, int64_t m, int64_t n, int64_t k,
                                 uint64_t *bytes, unroll_error *err);
/* Whether CLBlast makes a product of such sizes, or one row more, by its kernel for small ones. */
bool product_is_direct(unroll_backend_device *d, const product *g, int64_t m, int64_t n, int64_t k);
unroll_status product_enqueue(unroll_backend_device *d, cl_command_queue queue, const product *g, int64_t m, int64_t n,
                              int64_t k, cl_mem a, uint64_t a_at, cl_mem b, uint64_t b_at, cl_mem y, uint64_t y_at,
                              cl_mem temp, const char *name, unroll_error *err);

/* ---- products by matrix instructions (matrix.c) ---- */
enum { MATRIX_DEPTH = 32 }; /* values of k that kernels/matmul_matrix.cl takes at a time: DEPTH there */
typedef struct matrix_tile {
  int64_t m, n;         /* of y */
  size_t items;         /* of a work-group */
  uint64_t local_bytes; /* that it needs */
  char options[128];    /* of kernels/matmul_matrix.cl, beside those of the product */
} matrix_tile;
/*
 * Whether [p,m,k]·[k,n] in f32 is a product for the device's matrix instruction, and by which tiles. The first time the
 * instruction is tried: the caller holds no lock of the device's.
 */
bool matrix_choose(unroll_backend_device *d, int64_t p, int64_t m, int64_t n, int64_t k, int64_t longest_row,
                   matrix_tile *out);
#endif
