/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every op of <unroll/plugin.h> on any backend, against the cpu backend in f64.
 *
 * A case is a graph of one or two nodes with its data; op_case_list has them all. The device runs it laid out in the ways
 * that a host may choose: at offsets, with guard bytes around, in place, as a step template over a range of t, with a
 * run-time size below its maximum, each private group by itself. The reference runs the same nodes as plain static ones, one
 * time step after another, each tensor in a buffer of its own, so that layout, template and reference share nothing but the
 * data.
 */
#ifndef OP_CASES_H
#define OP_CASES_H
#include <stdint.h>
#include <unroll/base.h>

enum { OP_REAL = 100 }; /* a dtype: that of the run on the device, f64 in the reference */
enum { OP_MAX_TENSORS = 16, OP_MAX_NODES = 2, OP_MAX_EDGES = 8 };

typedef struct op_shape {
  int32_t rank;
  int64_t n[UNROLL_MAX_RANK];
} op_shape;
op_shape op_shape_of(size_t rank, const int64_t *n);
#define SHAPE(...) op_shape_of(sizeof((const int64_t[]){__VA_ARGS__}) / sizeof(int64_t), (const int64_t[]){__VA_ARGS__})
#define SCALAR ((op_shape){0, {0}})

enum {
  FILL_NAN,     /* of what is only written: bytes 0xFF */
  FILL_UNIFORM, /* reals of lo..hi */
  FILL_INTEGER, /* whole numbers of lo..hi, whatever the dtype: ties */
  FILL_NONZERO, /* magnitude of lo..hi, either sign */
  FILL_SPECIAL, /* NaN, infinities, signed zeros and ±lo..hi, mixed */
  FILL_MASKED,  /* reals of lo..hi, a fifth of them -infinity */
  FILL_LENGTHS  /* hi, 0, then whole numbers of 0..hi */
};
typedef struct op_fill {
  int32_t kind;
  double lo, hi;
} op_fill;
/* Not symmetric: a sum of products then is of the order of the sum of their magnitudes, which tolerances count on. */
#define FILL_DEFAULT ((op_fill){FILL_UNIFORM, -0.5, 1.5})
#define FILL(kind, lo, hi) ((op_fill){(kind), (lo), (hi)})

typedef struct op_tensor {
  op_shape shape; /* a run-time axis 0 at its maximum */
  int32_t dtype, storage, alias, is_dynamic, is_input;
  int64_t at, step; /* place in the storage, in units; step per t */
  uint32_t period;
} op_tensor;

typedef struct op_storage { /* a buffer; tensors of a recurrence share one */
  op_fill fill;
  int32_t dtype;
  int64_t unit; /* elements from one time step to the next */
  int64_t units;
  int32_t is_internal; /* between the nodes of a case */
} op_storage;

typedef struct op_node {
  uint32_t op, attr_size, n_in, n_out;
  uint32_t in[OP_MAX_EDGES], out[OP_MAX_EDGES];
  union {
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
  } attr;
} op_node;

typedef struct op_case {
  char name[120];
  uint32_t n_nodes, n_tensors, n_storages;
  op_node nodes[OP_MAX_NODES];
  op_tensor tensors[OP_MAX_TENSORS];
  op_storage storages[OP_MAX_TENSORS];
  int32_t is_template, direction;
  int32_t whole; /* reference: the op over all time steps at once, time_axis 0 */
  int64_t steps, first, count;
  int64_t dim_max, dim; /* the run-time size: maximum, this run's; 0: all static */
  uint64_t seed, update;
  int64_t t0, row0;
  double roundings, terms; /* of the tolerance, see op_case_tolerance */
} op_case;

typedef struct op_case_list {
  const unroll_allocator *allocator;
  op_case *cases;
  uint32_t n, capacity;
  int32_t failed; /* out of memory: some case is missing */
  op_case spare;  /* where the missing one was built */
} op_case_list;

/* All cases, of every op but LAYER, LAYER_GRAD, SCAN and RESHAPE. 0 when out of memory. Free with op_case_list_free. */
int op_case_list_make(op_case_list *list, const unroll_allocator *allocator);
void op_case_list_free(op_case_list *list);
/* Has it a tensor that is f32 in one run and f64 in another? */
int op_case_is_real(const op_case *c);

/* How cases are built. The pointer is good until the next case is added. */
op_case *op_case_add(op_case_list *list, uint32_t op, const void *attr, size_t attr_size, const char *format, ...)
    __attribute__((format(printf, 5, 6)));
op_node *op_case_node(op_case *c, uint32_t op, const void *attr, size_t attr_size); /* a node after the others */
uint32_t op_in(op_case *c, int32_t dtype, op_shape shape, op_fill fill);
uint32_t op_out(op_case *c, int32_t dtype, op_shape shape);
void op_in_of(op_case *c, uint32_t tensor); /* the last node reads it too */
void op_no_in(op_case *c);
void op_no_out(op_case *c);
uint32_t op_out_over(op_case *c, uint32_t input); /* in place */
void op_round(op_case *c, double roundings, double terms);
void op_dynamic(op_case *c, int64_t max, int64_t now, uint32_t tensors); /* a bit per tensor whose axis 0 it is */
void op_template(op_case *c, int64_t steps, int64_t first, int64_t count, int32_t direction);
void op_stepped(op_case *c, uint32_t tensors); /* a bit per tensor that has a place for every t */
/* out is what the step finds as in at the next one: in turns in two places, or kept for every step */
void op_carry(op_case *c, uint32_t in, uint32_t out, int is_kept);
int64_t op_elements(op_shape shape);

void op_cases_dense(op_case_list *list);
void op_cases_rows(op_case_list *list);
void op_cases_moves(op_case_list *list);
void op_cases_cells(op_case_list *list);
void op_cases_forms(op_case_list *list); /* derived from those before: templates, run-time sizes, two nodes */
void op_cases_scan(op_case_list *list);
void op_cases_norm(op_case_list *list);
void op_cases_exact(op_case_list *list); /* whole numbers, compared bit by bit */

/*
 * |device - reference| <= tolerance · max|reference|, over a tensor.
 *
 * eps·(roundings + 2·sqrt(terms)), eps = 2^-23 or 2^-52. `roundings` is the sum of the errors, in units of eps, along the
 * longest chain of elementary steps: 1/2 of an addition or a product, 2.5 of a quotient, 3 of exp, log and sqrt, 5 of tanh
 * (OpenCL C 3.0, table of single precision accuracy), 0 where the result is one of the inputs: that is compared exactly.
 * `terms` is the length of the longest sum: the probabilistic bound λ·sqrt(n)·eps/2·Σ|a b| of Higham & Mary 2019 (SIAM J. Sci.
 * Comput. 41) with λ = 2.5, and Σ|a b| <= 1.6·|Σ a b| for the values of FILL_DEFAULT: E|x|² = 0.39 to E[x]² = 0.25.
 */
double op_case_tolerance(const op_case *c, int32_t dtype);

/* A device, and the queue that cases use. */
typedef struct op_target {
  const unroll_allocator *allocator; /* of the judge's own memory; NULL: the C library's */
  const unroll_backend_ops *ops;
  unroll_backend_device *device;
  unroll_backend_queue *queue;
  uint64_t alignment, dtypes;
} op_target;
enum { OP_RAN = 0, OP_UNSUPPORTED = 1, OP_DECLINED = 2, OP_BROKEN = 3 };

/*
 * Runs one case, laid out as a host would, or as plain nodes. data: an array per storage, read and written; internal: a bit per
 * storage that has no slot, or that nobody looks at, and so no result. OP_UNSUPPORTED: the device lacks an element type.
 * OP_DECLINED: it does not claim a node, which the message names; err->native has a bit per op that is not claimed. OP_BROKEN: err says what went wrong. In
 * op_run.c.
 */
int op_run(const op_target *target, const op_case *c, int32_t dtype, uint32_t layout, void **data, uint32_t *internal,
           unroll_error *err);
int op_run_plain(const op_target *target, const op_case *c, int32_t dtype, void **data, unroll_error *err);

/* One case judged: run, run again where the device is deterministic, compared with the reference. In op_check.c. */
typedef struct op_check_options {
  const op_target *target, *reference;
  int32_t dtype, is_deterministic;
  uint32_t layout; /* counts through the layouts of op_run */
  uint64_t seed;   /* of the data */
  uint64_t *left;  /* of OP_DECLINED: a bit per op that is not claimed */
} op_check_options;
/* OP_*; message says why it isn't OP_RAN. */
int op_check(const op_check_options *x, const op_case *c, char *message, size_t size);

#endif
