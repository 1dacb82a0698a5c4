/* SPDX-License-Identifier: Apache-2.0 */
/*
 * unroll/graph.h: describe a computation over time as a graph.
 *
 *     unroll_graph *g;
 *     unroll_graph_create(NULL, &g, &err);
 *     unroll_tensor x = unroll_input(g, "x", UNROLL_F32, 2, (int64_t[]){3, 4});
 *     unroll_tensor w = unroll_param(g, "w", UNROLL_F32, 2, (int64_t[]){4, 5});
 *     unroll_output(unroll_tanh(unroll_matmul(x, w)), "y");
 *     if (unroll_graph_status(g, &err) != UNROLL_OK) ...
 *
 * A tensor is a value: the graph it stands in and its number there. Building code needs no checks: the graph keeps the first
 * error (which names the op, the tensors and their sizes), later calls do nothing, and unroll_graph_status and
 * unroll_compile report it. Shapes are row-major, the time is axis 0 and the batch axis 1 of a sequence: [T,B,H].
 *
 * Threads: a graph belongs to one thread at a time. [obj]
 */
#ifndef UNROLL_GRAPH_H
#define UNROLL_GRAPH_H
#include <unroll/base.h>
#ifdef __cplusplus
extern "C" {
#endif

typedef struct unroll_graph unroll_graph;
typedef struct unroll_tensor {
  unroll_graph *graph; /* NULL: no tensor, for optional arguments and after an error */
  uint32_t id;
} unroll_tensor;

/* The absent tensor. */
static inline unroll_tensor unroll_none(void) {
  unroll_tensor none = {NULL, 0};
  return none;
}

/* ---- the graph ---- */

/* A new, empty graph. Its memory comes from the allocator (NULL: malloc), which is copied. UNROLL_E_MEMORY. */
UNROLL_API unroll_status unroll_graph_create(const unroll_allocator *allocator, unroll_graph **graph,
                                             unroll_error *err);
UNROLL_API void unroll_graph_destroy(unroll_graph *graph);
/* The first error of the building calls, or UNROLL_OK. */
UNROLL_API unroll_status unroll_graph_status(const unroll_graph *graph, unroll_error *err);

/*
 * A size that is known only when the graph runs, between min and max (both at least 1): the number of time steps above all.
 * The value returned is used as the extent of axis 0 in shapes. The plan is made for max. A name is used once.
 */
UNROLL_API int64_t unroll_graph_dim(unroll_graph *graph, const char *name, int64_t min, int64_t max);

/* ---- tensors that live outside of a run; names are unique among them ---- */

/* Written by the caller before a run. */
UNROLL_API unroll_tensor unroll_input(unroll_graph *graph, const char *name, int32_t dtype, int32_t rank,
                                      const int64_t *shape);
/* Stays between runs: weights and biases. */
UNROLL_API unroll_tensor unroll_param(unroll_graph *graph, const char *name, int32_t dtype, int32_t rank,
                                      const int64_t *shape);
/* Stays between runs: h and c that are carried on, an optimizer's moments. Starts as zeros. */
UNROLL_API unroll_tensor unroll_state(unroll_graph *graph, const char *name, int32_t dtype, int32_t rank,
                                      const int64_t *shape);
/* x can be read by the caller, under this name, after a run. Returns the tensor that is read (a copy if x is no temporary). */
UNROLL_API unroll_tensor unroll_output(unroll_tensor x, const char *name);
/* When the run is over, target (a parameter or a state) holds value. Within the run every op reads the old value. */
UNROLL_API void unroll_update(unroll_tensor target, unroll_tensor value);

/* What a tensor is. A run-time size stands at its maximum in shape. rank -1 for unroll_none(). */
typedef struct unroll_tensor_info {
  uint32_t struct_size;
  int32_t dtype, rank, role; /* UNROLL_ROLE_* */
  int64_t shape[UNROLL_MAX_RANK];
  const char *name; /* lives as long as the graph */
} unroll_tensor_info;
UNROLL_API unroll_tensor_info unroll_tensor_describe(unroll_tensor x);

/* The tensor under that name among inputs, parameters, states and outputs, or unroll_none(). */
UNROLL_API unroll_tensor unroll_graph_find(unroll_graph *graph, const char *name);
/* The number of those tensors, and the i-th of them in order of creation. */
UNROLL_API uint32_t unroll_graph_count(const unroll_graph *graph);
UNROLL_API unroll_tensor unroll_graph_tensor(unroll_graph *graph, uint32_t i);

/* ---- ops; their exact meaning stands in plugin.h ---- */

/* a [..,M,K] · b [K,N]; or batched, a [P,M,K] · b [P,K,N]. */
UNROLL_API unroll_tensor unroll_matmul(unroll_tensor a, unroll_tensor b);
/* op(a)·op(b) + c; c may be unroll_none(), a row [N] or of the product's shape. */
UNROLL_API unroll_tensor unroll_matmul_add(unroll_tensor a, int trans_a, unroll_tensor b, int trans_b, unroll_tensor c);
/* kind: UNROLL_TANH and the like */
UNROLL_API unroll_tensor unroll_unary(unroll_tensor x, int32_t kind);
/* kind: UNROLL_ADD and the like; broadcast as NumPy does */
UNROLL_API unroll_tensor unroll_binary(unroll_tensor a, unroll_tensor b, int32_t kind);
/* kind: UNROLL_SUM and the like; axes: bit i is axis i, 0 means all of them */
UNROLL_API unroll_tensor unroll_reduce(unroll_tensor x, int32_t kind, uint32_t axes, int keep_dims);
UNROLL_API unroll_tensor unroll_softmax(unroll_tensor x);     /* over the last axis */
UNROLL_API unroll_tensor unroll_log_softmax(unroll_tensor x); /* over the last axis */
/* logits [..,V], targets i32 [..] -> [..], in nats; a negative target is ignored: its loss is 0 */
UNROLL_API unroll_tensor unroll_cross_entropy_rows(unroll_tensor logits, unroll_tensor targets);
/* table [V,E], ids i32 [..] -> [..,E] */
UNROLL_API unroll_tensor unroll_embedding(unroll_tensor table, unroll_tensor ids);
UNROLL_API unroll_tensor unroll_slice(unroll_tensor x, int32_t axis, int64_t start, int64_t size);
UNROLL_API unroll_tensor unroll_pad(unroll_tensor x, int32_t axis, int64_t before, int64_t after);
UNROLL_API unroll_tensor unroll_concat(const unroll_tensor *x, uint32_t n, int32_t axis);
UNROLL_API unroll_tensor unroll_transpose(unroll_tensor x, const int32_t *perm);
UNROLL_API unroll_tensor unroll_reshape(unroll_tensor x, int32_t rank, const int64_t *shape);
/* x [T,B,..], lengths i32 [B]: each sequence reversed within its own length */
UNROLL_API unroll_tensor unroll_reverse(unroll_tensor x, unroll_tensor lengths);
UNROLL_API unroll_tensor unroll_select(unroll_tensor condition, unroll_tensor a, unroll_tensor b);
UNROLL_API unroll_tensor unroll_cast(unroll_tensor x, int32_t dtype);
UNROLL_API unroll_tensor unroll_constant(unroll_graph *graph, int32_t dtype, int32_t rank, const int64_t *shape,
                                         double value);
/* x·mask/(1-p). x [T,B,..], or one step [B,..] inside a scan. Each call is a site of its own in the random numbers. */
UNROLL_API unroll_tensor unroll_dropout(unroll_tensor x, double p);
UNROLL_API unroll_tensor unroll_argmax(unroll_tensor x); /* over the last axis, i32 */
/* logits [B,V] -> ids i32 [B], sampled from softmax(logits) over the top_k largest (0: all) */
UNROLL_API unroll_tensor unroll_categorical(unroll_tensor logits, int64_t top_k);
/* The same over the smallest set of the likeliest of these whose probabilities sum to at least top_p, 0 or 1: all of them
 * (nucleus sampling; Holtzman et al. 2020). UNROLL_E_RANGE outside of 0..1. */
UNROLL_API unroll_tensor unroll_categorical_top_p(unroll_tensor logits, int64_t top_k, double top_p);
/*
 * Independent random numbers, f32 or f64: kind UNROLL_RANDOM_UNIFORM in [0,1) or UNROLL_RANDOM_NORMAL of mean 0 and variance
 * 1. [T,B,..], T may be a run-time size; in the body of a scan (unroll_scan_body) one step [B,..], other numbers at every
 * step. Each call is a site of its own: the numbers follow from seed, update, site, t, row and unit alone (philox.h). No
 * gradient flows.
 */
UNROLL_API unroll_tensor unroll_random(unroll_graph *graph, int32_t kind, int32_t dtype, int32_t rank,
                                       const int64_t *shape);
/* One step [B,..] outside of a scan too, counted as that of the run's first step: the mask that all steps share. */
UNROLL_API unroll_tensor unroll_random_step(unroll_graph *graph, int32_t kind, int32_t dtype, int32_t rank,
                                            const int64_t *shape);
/* x [..,N], ids i32 [..,M], the axes in front equal -> [..,M]: along the last axis x's element of that id, NaN where there is
 * none. */
UNROLL_API unroll_tensor unroll_gather(unroll_tensor x, unroll_tensor ids);
/* x [..,N] -> the k largest of each row in descending order, values [..,k] and ids i32 [..,k]; ties by lower index, NaN counts
 * as largest. Either may be NULL. UNROLL_E_RANGE where k is not in 1..N. */
UNROLL_API void unroll_top_k(unroll_tensor x, int64_t k, unroll_tensor *values, unroll_tensor *ids);
/*
 * Layer normalisation of each row (Ba, Kiros & Hinton 2016, eq. 3 and 4): x [..,N], gain [N] -> gain⊙(x - mean)/sqrt(variance +
 * epsilon) + shift, mean and variance over the row, the variance divided by N. shift: [N], of x's shape, or none for 0.
 * UNROLL_E_RANGE where epsilon is not a finite number from 0 on.
 */
UNROLL_API unroll_tensor unroll_layer_norm(unroll_tensor x, unroll_tensor gain, unroll_tensor shift, double epsilon);
/*
 * The linear recurrence h_t = a_t⊙h_{t-1} + b_t over a sequence at once, in parallel over time where there is too little else to
 * do (Blelloch 1990; Martin & Cundy 2018): a, b [T,B,..] -> h at every step, [T,B,..]. h0 [B,..] or none: zeros. direction
 * UNROLL_FORWARD or UNROLL_REVERSE (h_t = a_t⊙h_{t+1} + b_t). lengths i32 [B] or none: past its length a sequence's result is 0,
 * and a reverse scan begins at its own end. h_last [B,..]: h as the last step leaves it, to go on from; may be NULL.
 */
UNROLL_API unroll_tensor unroll_linear_scan(unroll_tensor a, unroll_tensor b, unroll_tensor h0, unroll_tensor lengths,
                                            int32_t direction, unroll_tensor *h_last);
/* x [T,B,..] (in a scan one step [B,..]), lengths i32 [B]: x where t < length, else 0 */
UNROLL_API unroll_tensor unroll_length_mask(unroll_tensor x, unroll_tensor lengths);

static inline unroll_tensor unroll_tanh(unroll_tensor x) { return unroll_unary(x, UNROLL_TANH); }
static inline unroll_tensor unroll_sigmoid(unroll_tensor x) { return unroll_unary(x, UNROLL_SIGMOID); }
static inline unroll_tensor unroll_relu(unroll_tensor x) { return unroll_unary(x, UNROLL_RELU); }
static inline unroll_tensor unroll_add(unroll_tensor a, unroll_tensor b) { return unroll_binary(a, b, UNROLL_ADD); }
static inline unroll_tensor unroll_sub(unroll_tensor a, unroll_tensor b) { return unroll_binary(a, b, UNROLL_SUB); }
static inline unroll_tensor unroll_mul(unroll_tensor a, unroll_tensor b) { return unroll_binary(a, b, UNROLL_MUL); }
static inline unroll_tensor unroll_div(unroll_tensor a, unroll_tensor b) { return unroll_binary(a, b, UNROLL_DIV); }
/* x times a number */
UNROLL_API unroll_tensor unroll_scale(unroll_tensor x, double factor);

/*
 * One update of a parameter by an optimizer (unroll_optimizer_attr in plugin.h has the formulas). lr [] of the parameter's
 * dtype, step i32 [] counted from 1, grad_scale [] may be none. Makes the states that the kind needs, named NAME.s1 and
 * NAME.s2 after the parameter, and declares the updates of parameter and states.
 */
UNROLL_API void unroll_optimize(unroll_tensor param, unroll_tensor grad, unroll_tensor lr, unroll_tensor step,
                                unroll_tensor grad_scale, const unroll_optimizer_attr *attr);
/* The same where condition, bool [], is true; where it is false, parameter and states keep every bit. None: always. */
UNROLL_API void unroll_optimize_if(unroll_tensor condition, unroll_tensor param, unroll_tensor grad, unroll_tensor lr,
                                   unroll_tensor step, unroll_tensor grad_scale, const unroll_optimizer_attr *attr);

/* ---- layers: a standard cell over a whole sequence; see plugin.h, LAYER, for shapes ---- */

typedef struct unroll_layer_inputs {
  unroll_tensor x;           /* [T,B,I] */
  unroll_tensor W_x, W_h, b; /* [GH,I], [GH,H], [GH] */
  unroll_tensor b_n;         /* [H], gru_after only */
  unroll_tensor h0, c0;      /* [B,H]; c0 lstm only; none: zeros */
  unroll_tensor lengths;     /* i32 [B] or none */
  /* None, or masks, into which no gradient flows: asking for one is UNROLL_E_UNSUPPORTED. */
  unroll_tensor h_mask; /* [B,H], of h before W_h, the same for all steps */
  unroll_tensor keep_h,
      keep_c; /* bool, or real 0..1; [T,B,H] or [B,H]: how much of its old value a unit keeps; keep_c lstm */
} unroll_layer_inputs;
typedef struct unroll_layer_outputs {
  unroll_tensor y;              /* [T,B,H] */
  unroll_tensor h_last, c_last; /* [B,H]; c_last lstm only */
} unroll_layer_outputs;
/* One node; index says which layer of the network it is, for dumps and messages. */
UNROLL_API unroll_layer_outputs unroll_layer(const unroll_layer_inputs *in, const unroll_layer_attr *attr,
                                             int32_t index);

/* ---- scan: any other recurrence ---- */

/*
 * A recurrence with a body of the caller's own:
 *
 *     unroll_scan *s = unroll_scan_begin(g, UNROLL_FORWARD, unroll_none());
 *     unroll_tensor x_t = unroll_scan_input(s, x);              x [T,B,I] -> x_t [B,I]
 *     unroll_tensor h = unroll_scan_carry(s, h0);               h0 [B,H], h as the step finds it
 *     unroll_tensor next = unroll_tanh(unroll_matmul_add(h, 0, W_h, 1, unroll_matmul(x_t, W_x)));
 *     unroll_scan_next(s, h, next);
 *     unroll_tensor y = unroll_scan_output(s, next);            y [T,B,H]
 *     unroll_tensor last = unroll_scan_last(s, h);              [B,H]
 *     unroll_scan_end(s);                                       y and last can be used from here on
 *
 * Ops on step tensors stand in the body. A tensor of the graph around it that the body uses (a weight) is captured. Ops in
 * the body that depend on captured tensors alone are computed once, outside. UNROLL_REVERSE runs from the last step to the
 * first. With lengths i32 [B], past its length a sequence's outputs are 0, its carries stand still, and what its inputs
 * hold there is never looked at; a reverse scan begins at each sequence's own end. A scan without inputs says its number of
 * steps. Every carry has the batch on axis 0, every input time on axis 0 and batch on axis 1, else UNROLL_E_SHAPE. Scans
 * don't nest. The scan object belongs to the graph and ends with unroll_scan_end.
 */
typedef struct unroll_scan unroll_scan;
UNROLL_API unroll_scan *unroll_scan_begin(unroll_graph *graph, int32_t direction, unroll_tensor lengths);
UNROLL_API void unroll_scan_steps(unroll_scan *scan, int64_t steps);
UNROLL_API unroll_graph *unroll_scan_body(unroll_scan *scan); /* for unroll_constant */
UNROLL_API unroll_tensor unroll_scan_input(unroll_scan *scan, unroll_tensor x);
UNROLL_API unroll_tensor unroll_scan_carry(unroll_scan *scan, unroll_tensor initial);
UNROLL_API void unroll_scan_next(unroll_scan *scan, unroll_tensor carry, unroll_tensor value);
UNROLL_API unroll_tensor unroll_scan_output(unroll_scan *scan, unroll_tensor step);
UNROLL_API unroll_tensor unroll_scan_last(unroll_scan *scan, unroll_tensor carry);
UNROLL_API void unroll_scan_end(unroll_scan *scan);

/* ---- gradient ---- */

/*
 * Reverse mode: dx[i] = the sum over j of dy[j] · dy_j/dx_i, as nodes of the same graph. dy[j] of none stands for ones. Where no
 * path leads from x[i] to any y, dx[i] is zeros. Through integers, comparisons, argmax and samples no gradient flows.
 */
UNROLL_API void unroll_vjp(const unroll_tensor *y, const unroll_tensor *dy, uint32_t n_y, const unroll_tensor *x,
                           uint32_t n_x, unroll_tensor *dx);
/* The gradient of a scalar loss. */
UNROLL_API void unroll_gradient(unroll_tensor loss, const unroll_tensor *x, uint32_t n_x, unroll_tensor *dx);
/*
 * Forward mode, the tangent pass: dy[j] = the sum over i of dy_j/dx_i · dx[i], as nodes of the same graph: the derivative
 * along one direction, with no product of Jacobians (Wengert 1964; Griewank & Walther 2008, ch. 3). dx[i], of x[i]'s dtype
 * and shape, of none stands for zeros. Where no path leads from any x to y[j], dy[j] is zeros. Of a gradient it is the
 * Hessian's product with the direction (Pearlmutter 1994). UNROLL_E_UNSUPPORTED names an op that has no tangent: an
 * optimizer's, and the gradients of a layer, of a gate op, of a linear scan and of layer norm.
 */
UNROLL_API void unroll_jvp(const unroll_tensor *x, const unroll_tensor *dx, uint32_t n_x, const unroll_tensor *y,
                           uint32_t n_y, unroll_tensor *dy);

/* ---- looking at it ---- */
enum { UNROLL_DUMP_TEXT = 0, UNROLL_DUMP_DOT = 1 };
/*
 * The graph as text or for Graphviz. steps 0: as it is. steps > 0: layers lowered and scans laid out over that many time
 * steps, node by node, each tagged with step, layer and direction. The string is freed with unroll_string_free.
 */
UNROLL_API unroll_status unroll_graph_dump(const unroll_graph *graph, int32_t format, int64_t steps, char **text,
                                           unroll_error *err);
UNROLL_API void unroll_string_free(char *text);

#ifdef __cplusplus
}
#endif
#endif
