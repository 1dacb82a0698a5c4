/* SPDX-License-Identifier: Apache-2.0 */
/* graph_private.h: how a graph is stored, and what the passes of this folder and the runtime share. */
#ifndef GRAPH_PRIVATE_H
#define GRAPH_PRIVATE_H
#include "base/base_private.h"
#include <stdbool.h>
#include <unroll/checkpoint.h>
#include <unroll/graph.h>

#define GRAPH_NONE UINT32_MAX /* no tensor, no node */

/* What shape inference works on. An axis with dim >= 0 has a run-time size; shape holds its maximum (a multiple of the
 * dim's own maximum, after reshapes that flatten axes into it). Only axis 0 may have one. */
typedef struct tensor_spec {
  int32_t dtype, rank;
  int64_t shape[UNROLL_MAX_RANK];
  int32_t dim[UNROLL_MAX_RANK];
} tensor_spec;

typedef struct tensor {
  tensor_spec spec;
  char *name;
  int32_t role;
  uint32_t producer; /* the node that makes it; GRAPH_NONE for inputs and the like */
  uint32_t update;   /* parameter, state: the tensor that it holds after a run, or GRAPH_NONE */
  bool pending;      /* a result of a scan that has not ended yet */
} tensor;

typedef union op_attr {
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
  unroll_layer_attr layer;
  unroll_scan_attr scan;
} op_attr;

typedef struct node {
  uint32_t op, n_in, n_out;
  uint32_t *in, *out; /* tensors; GRAPH_NONE where absent */
  op_attr attr;
  int32_t layer, direction; /* -1 outside of a recurrence */
  uint32_t region;          /* the innermost that it stands in, counted from 1; 0: none */
  bool again;               /* made once more for a gradient, to save memory */
  bool backward;            /* made by the reverse pass */
  unroll_graph *body;       /* of a scan; owned */
  uint32_t only; /* the one device that may take it, as whoever lowered the graph numbers them; GRAPH_NONE: any */
  char *name;
} node;

typedef struct graph_dim {
  char *name;
  int64_t min, max;
} graph_dim;

/* A part of the graph of which the gradient keeps nothing: nodes first to end-1, all of them. */
typedef struct graph_region {
  uint32_t parent, first, end; /* parent 0: none. end 0: still open */
} graph_region;

/* The edges of a body. in, next, inner: tensors of the body; init, last, outer: tensors of the graph around it. */
typedef struct scan_carry {
  uint32_t in, next, init, last;
} scan_carry;
typedef struct scan_edge {
  uint32_t inner, outer;
} scan_edge;

struct unroll_graph {
  unroll_allocator allocator;
  unroll_error error; /* code UNROLL_OK while there is none */
  tensor *tensors;
  node *nodes;
  graph_dim *dims;
  uint32_t n_tensors, tensors_capacity, n_nodes, nodes_capacity, n_dims, dims_capacity;
  uint32_t n_sites; /* of random ops */
  bool ended;       /* a body whose scan has ended takes no more nodes */
  bool backward;    /* what new nodes are tagged with, */
  int32_t layer;    /* likewise; -1 outside of layers */
  unroll_scan *open_scans;
  graph_region *regions;
  uint32_t n_regions, regions_capacity, region; /* region: what new nodes stand in */

  unroll_graph *cut; /* bodies of which segments have copies; the caller may still hold tensors of theirs */

  /* of a body only */
  unroll_graph *next_cut;
  unroll_graph *parent;
  int32_t direction;
  int64_t steps; /* at most; 0 while unknown */
  int32_t steps_dim;
  scan_carry *carries;
  scan_edge *inputs, *captures, *outputs;
  scan_edge kept[6]; /* tensors of the body whose steps stand in the graph around it already: a layer's saved values,
                        and products of them */
  uint32_t n_kept;
  uint32_t n_carries, carries_capacity, n_inputs, inputs_capacity, n_captures, captures_capacity, n_outputs,
      outputs_capacity;
};

struct unroll_scan {
  unroll_graph *graph, *body;
  uint32_t lengths; /* in graph, or GRAPH_NONE */
  int32_t cell;
  bool unchecked;                      /* made by a pass: carries may have any shape */
  int64_t t0;                          /* of its first step in the sequence */
  unroll_checkpoint_policy checkpoint; /* struct_size 0: none */
  unroll_scan *next_open;
};

/* graph.c */
unroll_tensor graph_fail(unroll_graph *graph, unroll_status code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
bool graph_failed(const unroll_graph *graph);
/* The graph around a body; else the graph itself. */
static inline unroll_graph *graph_root(unroll_graph *g) { return g->parent ? g->parent : g; }
static inline const unroll_graph *graph_root_of(const unroll_graph *g) { return g->parent ? g->parent : g; }
bool node_reads(const node *n, uint32_t tensor_id);
/* Of a copy of a node: its edges, [n_in + n_out], become these, which stay when the graph writes its own anew. */
void node_keep_edges(node *n, uint32_t *edges);
unroll_tensor graph_handle(unroll_graph *graph, uint32_t id); /* GRAPH_NONE gives unroll_none() */
uint32_t graph_add_tensor(unroll_graph *graph, const tensor_spec *spec, int32_t role, uint32_t producer, char *name);
const tensor_spec *graph_spec(unroll_tensor x);
/* The graph that an op on a and b stands in: a body where one of them does, else the graph of both. */
unroll_graph *graph_common(const unroll_tensor *x, uint32_t n);
/* x as a tensor of graph: itself, or captured from the graph around it. GRAPH_NONE on misuse, with the error kept. */
uint32_t graph_resolve(unroll_graph *graph, unroll_tensor x, const char *op);
/* Adds a node after inferring its results. Absent inputs are unroll_none(). want: the result asked for, of the ops whose
 * inputs do not tell it (reshape, slice, cast, constant, random, embedding_grad, gather_grad); else NULL. out has room for n_out handles. Returns
 * the node's index, or GRAPH_NONE. */
uint32_t graph_add_node(unroll_graph *graph, uint32_t op, const op_attr *attr, const unroll_tensor *in, uint32_t n_in,
                        const tensor_spec *want, unroll_tensor *out, uint32_t n_out);
/* unroll_optimize_if that starts from another value than the parameter's own, which it keeps where it is not updated. */
void graph_optimize(unroll_tensor condition, unroll_tensor param, unroll_tensor from, unroll_tensor grad,
                    unroll_tensor lr, unroll_tensor step, unroll_tensor grad_scale, const unroll_optimizer_attr *attr);
/* An op with one result, in the graph of its operands. */
unroll_tensor graph_op(uint32_t op, const op_attr *attr, const unroll_tensor *in, uint32_t n_in,
                       const tensor_spec *want);
void graph_node_free(unroll_graph *graph, node *n);
unroll_graph *graph_create_body(unroll_graph *parent);
const char *graph_op_name(uint32_t op);
uint32_t graph_attr_size(uint32_t op);
/* Above 1: of inputs or attributes that the version before had not, without which the result would be another. */
uint32_t graph_op_version(const node *n);
/* "x f32 [7,4,3]"; buffer of GRAPH_DESCRIBE bytes */
#define GRAPH_DESCRIBE 160
const char *graph_describe(const unroll_graph *graph, uint32_t id, char *buffer);
bool graph_same_shape(const tensor_spec *a, const tensor_spec *b);
tensor_spec graph_make_spec(int32_t dtype, int32_t rank, const int64_t *shape);
/* A caller's dtype and shape, where a negative extent is what unroll_graph_dim returned. Errors are the graph's, too. */
unroll_status graph_spec_of_shape(unroll_graph *graph, const char *what, int32_t dtype, int32_t rank,
                                  const int64_t *shape, tensor_spec *spec);

/* infer.c: the results of a node; errors name op, tensors and sizes. out_specs of n_out. */
unroll_status infer_node(const unroll_graph *graph, uint32_t op, const op_attr *attr, const uint32_t *in, uint32_t n_in,
                         tensor_spec *out, uint32_t n_out, unroll_error *err);

/* ops.c */
unroll_tensor graph_reshape(unroll_tensor x, const tensor_spec *spec);
/* [R..,N] -> [R,N]: all axes but the last flattened into one */
unroll_tensor graph_flatten_rows(unroll_tensor x);
/* Block i of n on the last axis, as gates stand. */
unroll_tensor graph_block(unroll_tensor x, int64_t i, int64_t n);
unroll_tensor graph_zeros_like(unroll_graph *graph, const tensor_spec *spec, double value);
uint32_t graph_next_site(unroll_graph *graph);
/* unroll_dropout at a site, of steps from t0 on. */
unroll_tensor graph_dropout(unroll_tensor x, double p, uint32_t site, int64_t t0);
unroll_tensor graph_length_mask(unroll_tensor x, unroll_tensor other, unroll_tensor lengths, int32_t time_axis,
                                bool invert);

/* scan_segments.c: the scan of s, whose body is complete, in segments; its results get their producers. False: the
 * error is kept. */
bool scan_build_segments(unroll_scan *s);

/* scan.c */
/* The node of a scan whose body is complete; the graph owns the body from then on. False: the error is kept. */
bool scan_add_node(unroll_graph *graph, unroll_graph *body, int32_t cell, int64_t t0);
unroll_scan *scan_begin_unchecked(unroll_graph *graph, int32_t direction, int64_t steps, int32_t steps_dim);
/* The steps [T,..] of a tensor of an ended scan's body: what is kept already, else one more output of the scan. */
unroll_tensor scan_add_output(unroll_graph *graph, uint32_t scan_node, uint32_t inner);

/* layer.c */
uint32_t layer_gates(int32_t cell);                   /* G */
int64_t layer_saved_blocks(int32_t cell, uint32_t i); /* saved value i is [T,B,that times H]; 0: the cell has no such */
/* The same layer in terms of products and a scan; used[i]: does anybody read result i? */
void layer_lower(unroll_graph *g, const node *layer, const unroll_tensor *in, const bool *used, unroll_tensor *out);
/* The tangents of y, h_last and c_last from those of the inputs (none: zeros), where wanted; saved: the layer's. */
void layer_tangent(unroll_graph *g, const node *n, const unroll_tensor *in, const unroll_tensor *saved,
                   const unroll_tensor *d_in, const bool *wanted, unroll_tensor *d_out);
/* The same by numbers that the gates' gradient has, for cells and layers that allow it; else false. */
bool tangent_of_layer(unroll_graph *g, const node *n, const unroll_tensor *in, const unroll_tensor *saved,
                      const unroll_tensor *d_in, const bool *wanted, unroll_tensor *d_out);
/* A state of a step with what is added to it, `tap` [T,..], an input of the scan; none: as it is. */
unroll_tensor layer_tapped(unroll_scan *scan, unroll_tensor x, unroll_tensor tap);
/*
 * The gradients of a layer's input x, where want_x, and of its states h and c at every step, from those of y, h_last and c_last
 * (none: zeros). The layer itself stays one node; the way back is a scan that reads what it has saved.
 */
void layer_states_gradient(unroll_graph *g, uint32_t node_index, const unroll_tensor *d_out, bool want_x,
                           unroll_tensor *dx, unroll_tensor *dh, unroll_tensor *dc);
/* Likewise the gradient of a layer. It leaves nodes behind that nobody reads. */
void layer_grad_lower(unroll_graph *g, const node *n, const unroll_tensor *in, unroll_tensor *out);

/* lower.c */
unroll_graph *graph_copy_body(unroll_graph *to, const unroll_graph *body);
/* One more node like node i, at the end of the same graph; map: from tensors to those that take their place. False:
 * no memory. */
bool graph_clone_node(unroll_graph *graph, uint32_t i, uint32_t *map);
typedef struct layer_fate {
  bool keep;              /* the layer, or layer_grad, stays as it is */
  uint32_t only;          /* with reserve_bytes: node.only of the copy */
  uint64_t reserve_bytes; /* above 0: one opaque u8 tensor of that size stands for the saved values */
  bool spell_out;         /* of what graph_can_spell_out, or of a scan with such in its body, all of which go */
} layer_fate;
/* spell_out.c: layer norm, alone and in gates, as elementary ops; out has the node's outputs in their order. */
bool graph_can_spell_out(const node *n);
void graph_spell_out(const node *n, const unroll_tensor *in, unroll_tensor *out);
/* The rows of x without their mean and scaled, xhat [..,N], by rate [..,1] = 1/sqrt(variance + epsilon). */
typedef struct graph_normed {
  unroll_tensor xhat, rate;
} graph_normed;
graph_normed graph_normalise(unroll_tensor x, double epsilon);
/* A body once more in `to`, with all such nodes spelled out and the same tensors around it. NULL: no memory, or to failed. */
unroll_graph *graph_spell_out_body(unroll_graph *to, const unroll_graph *body);
/* A copy of the graph in which the layers that are not kept have become products and scans, and in which only what an output
 * or an update needs is left. fates: one per node, looked at for layers and what is spelled out;
 * NULL lowers all layers. A layer and the gradients that
 * read what it saves have the same reserve. Inputs, parameters and states stand in the same order in both; outputs have the
 * same names. */
unroll_status graph_lower(const unroll_graph *from, const layer_fate *fates, unroll_graph **lowered, unroll_error *err);

/* gradient.c: what the reverse pass over a graph and that over the body of a scan share */
typedef struct vjp vjp;
struct vjp {
  const unroll_graph *graph; /* whose nodes are walked */
  void *user;
  unroll_tensor (*value)(vjp *, uint32_t tensor);     /* that tensor, in the graph where the gradient is built */
  unroll_tensor (*adjoint)(vjp *, uint32_t tensor);   /* what has flowed into it so far, or none */
  bool (*wants)(vjp *, const node *, uint32_t input); /* is the gradient of this input asked for? */
  void (*give)(vjp *, const node *, uint32_t input, unroll_tensor); /* adds to what flows into it */
  /* Rows start, start + 1, .. of it alone. NULL: nobody collects them. */
  void (*give_rows)(vjp *, const node *, uint32_t input, int64_t start, unroll_tensor);
  /* What has flowed into an input so far, and what takes its place: for sums that go on where they were interrupted. */
  unroll_tensor (*so_far)(vjp *, const node *, uint32_t input);
  void (*put)(vjp *, const node *, uint32_t input, unroll_tensor);
  bool joins;    /* a product adds what has flowed into an operand so far: it is of that shape, and one op less */
  int64_t block; /* above 0: time is axis 0 of the operands, and sums over it are of blocks of so many steps, */
  int32_t block_order;
};
/* Steps of a block, for a batch of so many rows: about 512 rows, an even number. */
int64_t gradient_block(int64_t batch);
/* Marks what depends on the tensors marked already through nodes first to end-1 and real numbers. */
void gradient_mark(const unroll_graph *graph, uint32_t first, uint32_t end, bool *needs);
/* unroll_vjp that walks no further back than to node first. so_far: what dx starts from, or NULL; block as in vjp. */
void gradient_walk(const unroll_tensor *y, const unroll_tensor *dy, uint32_t n_y, const unroll_tensor *x, uint32_t n_x,
                   unroll_tensor *dx, uint32_t first, const unroll_tensor *so_far, int64_t block, int32_t block_order);
bool gradient_is_real(const tensor_spec *s);

/* grad_rules.c: the gradient of one node, all but scan */
void grad_node(vjp *v, unroll_graph *g, const node *n);
/* d times the derivative of a unary at each element; of v only value is used. None: it is flat. */
unroll_tensor grad_unary(vjp *v, unroll_graph *g, const node *n, unroll_tensor d);
/* grad_scan.c */
void grad_scan(vjp *outer, unroll_graph *g, uint32_t scan_node);
/* The value of a tensor of an ended scan's body, as the step of another scan s over the same steps sees it. */
unroll_tensor scan_step_value(unroll_graph *g, uint32_t scan_node, unroll_scan *s, uint32_t tensor);

/* tangent.c: what the forward pass over a graph and that over the body of a scan share */
typedef struct jvp {
  vjp v;                  /* of which graph, user and value are used */
  unroll_graph *to;       /* where tangents are built */
  unroll_tensor *tangent; /* of the walked graph's tensors; none: zeros */
  const bool *wanted;     /* does anything that is asked for hang on this tensor? */
  int64_t rows;           /* tangent_rows; else 0 */
  unroll_tensor identity; /* tangent_rows; else none */
} jvp;
/* Adds to the tangent of a tensor; x of none adds nothing. */
void tangent_flow(jvp *t, uint32_t id, unroll_tensor x);
/* Like unroll_jvp, over nodes from `first` on alone. */
void tangent_walk(const unroll_tensor *x, const unroll_tensor *dx, uint32_t n_x, const unroll_tensor *y, uint32_t n_y,
                  unroll_tensor *dy, uint32_t first);
/*
 * Like unroll_jvp, along many directions at once, through ops on one row: x and y are [1,..], dx and dy [rows,..]. So the
 * values are computed once. UNROLL_E_UNSUPPORTED where a scan or layer is met. identity: of dx, the one that is known to
 * hold the identity, whose products with a matrix are that matrix; none.
 */
void tangent_rows(const unroll_tensor *x, const unroll_tensor *dx, uint32_t n_x, const unroll_tensor *y, uint32_t n_y,
                  unroll_tensor *dy, int64_t rows, unroll_tensor identity);
/* tangent_rules.c: the tangents of one node's results, all but scan */
void tangent_node(jvp *t, const node *n);
#endif
