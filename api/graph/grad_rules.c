/* SPDX-License-Identifier: Apache-2.0 */
/* grad_rules.c: the gradient of each op, from the same small set of ops. */
#include "graph/graph_private.h"

/* One node on its way back. Values and adjoints are asked for only where a rule reads them: in a scan, what is asked for must
 * have been kept at every step. */
typedef struct rule {
  vjp *v;
  unroll_graph *g; /* where constants go */
  const node *n;
} rule;

static unroll_tensor in(const rule *r, uint32_t i) {
  return i < r->n->n_in && r->n->in[i] != GRAPH_NONE ? r->v->value(r->v, r->n->in[i]) : unroll_none();
}
static unroll_tensor out(const rule *r, uint32_t i) { return r->v->value(r->v, r->n->out[i]); }
static unroll_tensor dout(const rule *r, uint32_t i) { return r->v->adjoint(r->v, r->n->out[i]); }
static bool want(const rule *r, uint32_t i) {
  return i < r->n->n_in && r->n->in[i] != GRAPH_NONE && r->v->wants(r->v, r->n, i);
}
static void give(const rule *r, uint32_t i, unroll_tensor x) {
  if (x.graph && want(r, i))
    r->v->give(r->v, r->n, i, x);
}
/* The shape of an input as the node was made with; a copy, since the array of tensors moves as nodes are added. */
static tensor_spec spec(const rule *r, uint32_t i) { return r->v->graph->tensors[r->n->in[i]].spec; }

static void put(const rule *r, uint32_t i, unroll_tensor x) {
  if (x.graph && want(r, i))
    r->v->put(r->v, r->n, i, x);
}

/* Sums x over the axes that broadcasting made from `like`. */
static unroll_tensor unbroadcast(unroll_tensor x, tensor_spec like) {
  if (!x.graph || graph_failed(x.graph))
    return unroll_none();
  const tensor_spec *s = graph_spec(x);
  const int extra = s->rank - like.rank;
  uint32_t axes = 0;
  for (int i = 0; i < s->rank; i++)
    if (i < extra || (like.shape[i - extra] == 1 && (s->shape[i] != 1 || s->dim[i] >= 0)))
      axes |= 1u << i;
  if (axes)
    x = unroll_reduce(x, UNROLL_SUM, axes, 1);
  return graph_reshape(x, &like);
}

/* Gives input i what flows through x, whose axes broadcasting made. Where time is one of them, in blocks. */
static void give_summed(const rule *r, uint32_t i, unroll_tensor x) {
  if (!x.graph || graph_failed(x.graph) || !want(r, i))
    return;
  const tensor_spec like = spec(r, i), s = *graph_spec(x);
  if (r->v->block == 0 || s.rank <= like.rank) {
    give(r, i, unbroadcast(x, like));
    return;
  }
  uint32_t axes = 0;
  tensor_spec kept = s;
  for (int k = 0; k < s.rank; k++)
    if (k < s.rank - like.rank || like.shape[k - (s.rank - like.rank)] == 1) {
      axes |= 1u << k;
      kept.shape[k] = 1;
      kept.dim[k] = -1;
    }
  const op_attr attr = {
      .reduce = {
          .kind = UNROLL_SUM, .axes = axes, .keep_dims = 1, .block = r->v->block, .block_order = r->v->block_order}};
  const unroll_tensor before = r->v->so_far(r->v, r->n, i);
  const unroll_tensor in_blocks = graph_op(
      UNROLL_OP_REDUCE, &attr, (unroll_tensor[]){x, before.graph ? graph_reshape(before, &kept) : unroll_none()},
      before.graph ? 2 : 1, NULL);
  put(r, i, graph_reshape(in_blocks, &like));
}

static unroll_tensor keep_dims(unroll_tensor y, tensor_spec s, uint32_t axes) {
  for (int i = 0; i < s.rank; i++)
    if (axes >> i & 1u) {
      s.shape[i] = 1;
      s.dim[i] = -1;
    }
  return graph_reshape(y, &s);
}

static unroll_tensor sum_last(unroll_tensor x) {
  return x.graph && !graph_failed(x.graph) ? unroll_reduce(x, UNROLL_SUM, 1u << (graph_spec(x)->rank - 1), 1)
                                           : unroll_none();
}

static void unsupported(const rule *r) {
  graph_fail(r->g, UNROLL_E_UNSUPPORTED, "%s: %s has no gradient", r->n->name, graph_op_name(r->n->op));
}

/* Rows of y in a block of steps; 0: no blocks. */
static int64_t rows_of_block(const rule *r, unroll_tensor y) {
  if (r->v->block == 0 || !y.graph || graph_failed(y.graph))
    return 0;
  const tensor_spec *s = graph_spec(y);
  int64_t rows = r->v->block;
  for (int i = 1; i + 1 < s->rank; i++)
    rows *= s->shape[i];
  return rows;
}

static unroll_tensor product(unroll_tensor a, int trans_a, unroll_tensor b, int trans_b, unroll_tensor c,
                             unroll_matmul_attr attr) {
  attr.trans_a = trans_a != 0;
  attr.trans_b = trans_b != 0;
  const op_attr any = {.matmul = attr};
  return graph_op(UNROLL_OP_MATMUL, &any, (unroll_tensor[]){a, b, c}, 3, NULL);
}

static void matmul(const rule *r) {
  const unroll_matmul_attr t = r->n->attr.matmul;
  const unroll_tensor dy = dout(r, 0), none = unroll_none();
  const bool batched = spec(r, 1).rank == 3;
  if (want(r, 0)) {
    const unroll_tensor before = r->v->joins ? r->v->so_far(r->v, r->n, 0) : none;
    unroll_tensor da;
    if (t.trans_a)
      da = unroll_matmul_add(in(r, 1), t.trans_b, dy, 1, before);
    else
      da = product(dy, 0, in(r, 1), !t.trans_b, before, (unroll_matmul_attr){.m_block = rows_of_block(r, dy)});
    if (before.graph)
      put(r, 0, da);
    else
      give(r, 0, da);
  }
  if (want(r, 1)) {
    unroll_tensor a = in(r, 0), d = dy;
    if (!batched && !t.trans_a) { /* a sum over all rows at once, whatever their axes */
      a = graph_flatten_rows(a);
      d = graph_flatten_rows(d);
    }
    const int64_t block = batched || t.trans_a ? 0 : rows_of_block(r, dy);
    if (block == 0)
      give(r, 1,
           t.trans_b ? unroll_matmul_add(d, 1, a, t.trans_a, none) : unroll_matmul_add(a, !t.trans_a, d, 0, none));
    else {
      const unroll_matmul_attr blocks = {.k_block = block, .block_order = r->v->block_order};
      const unroll_tensor before = r->v->so_far(r->v, r->n, 1);
      put(r, 1, t.trans_b ? product(d, 1, a, 0, before, blocks) : product(a, 1, d, 0, before, blocks));
    }
  }
  if (want(r, 2))
    give_summed(r, 2, dy);
}

static unroll_tensor scalar(const rule *r, int32_t dtype, double value) {
  const tensor_spec spec_ = graph_make_spec(dtype, 0, NULL);
  return graph_zeros_like(r->g, &spec_, value);
}
static unroll_tensor zero(const rule *r, int32_t dtype) { return scalar(r, dtype, 0.0); }
static unroll_tensor one(const rule *r, int32_t dtype) { return scalar(r, dtype, 1.0); }

/* d times the derivative at each element. */
static unroll_tensor unary_times(const rule *r, unroll_tensor d) {
  switch (r->n->attr.unary.kind) {
  case UNROLL_COPY: return d;
  case UNROLL_NEG: return unroll_unary(d, UNROLL_NEG);
  case UNROLL_ABS: return unroll_mul(d, unroll_unary(in(r, 0), UNROLL_SIGN));
  case UNROLL_EXP: return unroll_mul(d, out(r, 0));
  case UNROLL_LOG: return unroll_div(d, in(r, 0));
  case UNROLL_SQRT: return unroll_div(d, unroll_scale(out(r, 0), 2.0));
  case UNROLL_RECIPROCAL: return unroll_unary(unroll_mul(d, unroll_unary(out(r, 0), UNROLL_SQUARE)), UNROLL_NEG);
  case UNROLL_SQUARE: return unroll_mul(d, unroll_scale(in(r, 0), 2.0));
  case UNROLL_TANH: return unroll_binary(d, out(r, 0), UNROLL_TANH_GRAD);
  case UNROLL_SIGMOID: return unroll_binary(d, out(r, 0), UNROLL_SIGMOID_GRAD);
  case UNROLL_EXPM1: return unroll_mul(d, unroll_add(out(r, 0), one(r, spec(r, 0).dtype)));
  case UNROLL_LOG1P: return unroll_div(d, unroll_add(in(r, 0), one(r, spec(r, 0).dtype)));
  case UNROLL_RELU: return unroll_binary(d, out(r, 0), UNROLL_RELU_GRAD);
  default: return unroll_none(); /* sign is flat */
  }
}

unroll_tensor grad_unary(vjp *v, unroll_graph *g, const node *n, unroll_tensor d) {
  const rule r = {v, g, n};
  return unary_times(&r, d);
}

static void binary(const rule *r) {
  const unroll_tensor dy = dout(r, 0);
  const int32_t kind = r->n->attr.binary.kind;
  unroll_tensor da = unroll_none(), db = unroll_none();
  switch (kind) {
  case UNROLL_ADD:
    da = dy;
    db = dy;
    break;
  case UNROLL_SUB:
    da = dy;
    if (want(r, 1))
      db = unroll_unary(dy, UNROLL_NEG);
    break;
  case UNROLL_MUL:
    if (want(r, 0))
      da = unroll_mul(dy, in(r, 1));
    if (want(r, 1))
      db = unroll_mul(dy, in(r, 0));
    break;
  case UNROLL_DIV:
    if (want(r, 0))
      da = unroll_div(dy, in(r, 1));
    if (want(r, 1)) /* -dy·a/b² */
      db = unroll_unary(unroll_div(unroll_mul(dy, unroll_div(in(r, 0), in(r, 1))), in(r, 1)), UNROLL_NEG);
    break;
  case UNROLL_MAX:
  case UNROLL_MIN: { /* of equals, the first one has it */
    const unroll_tensor first = unroll_binary(in(r, 0), in(r, 1), kind == UNROLL_MAX ? UNROLL_GE : UNROLL_LE);
    const unroll_tensor nothing = zero(r, spec(r, 0).dtype);
    da = unroll_select(first, dy, nothing);
    db = unroll_select(first, nothing, dy);
    break;
  }
  case UNROLL_TANH_GRAD:
  case UNROLL_SIGMOID_GRAD:
  case UNROLL_RELU_GRAD: unsupported(r); return;
  default: return; /* comparisons */
  }
  give_summed(r, 0, da);
  give_summed(r, 1, db);
}

static void reduce(const rule *r) {
  const unroll_reduce_attr a = r->n->attr.reduce;
  const tensor_spec x = spec(r, 0);
  const unroll_tensor dy = keep_dims(dout(r, 0), x, a.axes);
  switch (a.kind) {
  case UNROLL_SUM: give(r, 0, unroll_add(graph_zeros_like(r->g, &x, 0.0), dy)); break;
  case UNROLL_SUM_SQUARES: give(r, 0, unroll_mul(in(r, 0), unroll_scale(dy, 2.0))); break;
  default: { /* max and min: equals share it, as PyTorch's amax has it */
    const unroll_tensor hit = unroll_cast(unroll_binary(in(r, 0), keep_dims(out(r, 0), x, a.axes), UNROLL_EQ), x.dtype);
    give(r, 0, unroll_mul(hit, unroll_div(dy, unroll_reduce(hit, UNROLL_SUM, a.axes, 1))));
  }
  }
}

static void concat(const rule *r) {
  const int32_t axis = r->n->attr.axis.axis;
  int64_t start = 0;
  for (uint32_t i = 0; i < r->n->n_in; i++) {
    const int64_t size = spec(r, i).shape[axis];
    if (want(r, i))
      give(r, i, unroll_slice(dout(r, 0), axis, start, size));
    start += size;
  }
}

static void transpose(const rule *r) {
  int32_t inverse[UNROLL_MAX_RANK] = {0};
  for (int i = 0; i < spec(r, 0).rank; i++)
    inverse[r->n->attr.transpose.perm[i]] = i;
  give(r, 0, unroll_transpose(dout(r, 0), inverse));
}

/* A gradient op: n_out results that go to the inputs in order. */
static void by_op(const rule *r, uint32_t op, const unroll_tensor *inputs, uint32_t n_in, uint32_t n_out) {
  unroll_tensor d[8];
  graph_add_node(graph_common(inputs, n_in), op, &r->n->attr, inputs, n_in, NULL, d, n_out);
  for (uint32_t i = 0; i < n_out; i++)
    give(r, i, d[i]);
}

/* The inputs that an op sums over rows: sums go on from what is there; where time is one of the rows, in blocks. */
static op_attr sums_of(const rule *r, uint32_t first, unroll_tensor *so_far) {
  op_attr attr = r->n->attr;
  attr.layer_norm.block = r->v->block;
  attr.layer_norm.block_order = r->v->block_order;
  for (uint32_t i = 0; i < 2; i++)
    so_far[i] = r->v->block && want(r, first + i) ? r->v->so_far(r->v, r->n, first + i) : unroll_none();
  if (r->n->n_in > first + 1 && r->n->in[first] == r->n->in[first + 1]) /* one tensor is both */
    so_far[1] = unroll_none();
  return attr;
}

static void give_sums(const rule *r, uint32_t first, const unroll_tensor *sums) {
  const bool same = r->n->n_in > first + 1 && r->n->in[first] == r->n->in[first + 1];
  for (uint32_t i = 0; i < 2; i++)
    if (r->v->block && !(same && i))
      put(r, first + i, sums[i]);
    else
      give(r, first + i, sums[i]);
}

static void layer_norm(const rule *r) {
  const unroll_tensor dy = dout(r, 0);
  unroll_tensor x[5] = {in(r, 0), in(r, 1), dy}, d[3];
  const bool row = want(r, 2) && spec(r, 2).rank == 1;
  if (want(r, 0) || want(r, 1) || row) {
    const op_attr attr = sums_of(r, 1, x + 3);
    if (!row)
      x[4] = unroll_none(); /* a shift of x's shape */
    graph_add_node(r->g, UNROLL_OP_LAYER_NORM_GRAD, &attr, x, 5, NULL, d, 3);
    give(r, 0, d[0]);
    if (!row)
      d[2] = unroll_none();
    give_sums(r, 1, d + 1);
  }
  if (!row)
    give(r, 2, dy);
}

/* The gates of a step, side by side along the last axis. */
static unroll_tensor side_by_side(const unroll_tensor *blocks, uint32_t n) {
  if (!blocks[0].graph || graph_failed(blocks[0].graph))
    return unroll_none();
  return unroll_concat(blocks, n, graph_spec(blocks[0])->rank - 1);
}

/* The gates themselves are read by somebody beside the state: what flows into them goes on through their activations. */
static void lstm_gates_themselves(const rule *r) {
  const unroll_tensor gates = out(r, 2), d = dout(r, 2);
  unroll_tensor all[4];
  for (int64_t b = 0; b < 4; b++)
    all[b] =
        unroll_binary(graph_block(d, b, 4), graph_block(gates, b, 4), b == 2 ? UNROLL_TANH_GRAD : UNROLL_SIGMOID_GRAD);
  give(r, 0, side_by_side(all, 4));
}

/* r z n, and q = W_h·h₋ + b_n: n = tanh(x's part + r⊙q) */
static void gru_gates_themselves(const rule *r) {
  unroll_tensor gate[4], d[4];
  for (int64_t b = 0; b < 4; b++) {
    gate[b] = graph_block(out(r, 1), b, 4);
    d[b] = graph_block(dout(r, 1), b, 4);
  }
  const unroll_tensor of_n = unroll_binary(d[2], gate[2], UNROLL_TANH_GRAD);
  const unroll_tensor of_r = unroll_binary(unroll_add(d[0], unroll_mul(of_n, gate[3])), gate[0], UNROLL_SIGMOID_GRAD);
  const unroll_tensor of_z = unroll_binary(d[1], gate[1], UNROLL_SIGMOID_GRAD);
  give(r, 0, side_by_side((unroll_tensor[]){of_r, of_z, of_n}, 3));
  give(r, 1, side_by_side((unroll_tensor[]){of_r, of_z, unroll_add(d[3], unroll_mul(of_n, gate[0]))}, 3));
}

static void lstm_gates(const rule *r) {
  const bool normed = r->n->n_in > 2;
  if (want(r, 0) && dout(r, 2).graph)
    lstm_gates_themselves(r);
  unroll_tensor x[8] = {out(r, 2), in(r, 1), dout(r, 0), dout(r, 1), in(r, 2), in(r, 3)}, d[4];
  if (!x[2].graph && !x[3].graph)
    return;
  const op_attr attr = sums_of(r, 2, x + 6);
  graph_add_node(r->g, UNROLL_OP_LSTM_GATES_GRAD, normed ? &attr : NULL, x, normed ? 8 : 4, NULL, d, normed ? 4 : 2);
  give(r, 0, d[0]);
  give(r, 1, d[1]);
  if (normed)
    give_sums(r, 2, d + 2);
}

static void layer(const rule *r) {
  const int32_t cell = r->n->attr.layer.cell;
  unroll_tensor x[20], d[7];
  bool masked = false;
  for (uint32_t i = 0; i < 5; i++)
    x[i] = in(r, i);
  x[5] = in(r, 7);
  for (uint32_t i = 0; i < 4; i++)
    x[6 + i] = layer_saved_blocks(cell, i) ? out(r, 3 + i) : unroll_none();
  for (uint32_t i = 0; i < 3; i++)
    x[10 + i] = dout(r, i);
  const op_attr attr = r->n->attr;
  bool goes_on = false, again[5] = {false}; /* one tensor is two of the weights */
  for (uint32_t i = 1; i <= 4; i++) {
    for (uint32_t k = 1; k < i; k++)
      again[i] = again[i] || r->n->in[i] == r->n->in[k];
    /* the sums of weights and biases go on from what is there */
    x[12 + i] = want(r, i) && !again[i] ? r->v->so_far(r->v, r->n, i) : unroll_none();
    goes_on = goes_on || x[12 + i].graph;
  }
  for (uint32_t i = 0; i < 3; i++) {
    static const char *const names[] = {"h_mask", "keep_h", "keep_c"};
    if (want(r, 8 + i)) {
      graph_fail(r->g, UNROLL_E_UNSUPPORTED, "%s: no gradient flows into a layer's %s", r->n->name, names[i]);
      return;
    }
    x[17 + i] = in(r, 8 + i);
    masked = masked || x[17 + i].graph;
  }
  graph_add_node(r->g, UNROLL_OP_LAYER_GRAD, &attr, x, masked ? 20 : goes_on ? 17 : 13, NULL, d, 7);
  for (uint32_t i = 0; i < 7; i++)
    if (i >= 1 && i <= 4 && !again[i])
      put(r, i, d[i]);
    else
      give(r, i, d[i]);
}

void grad_node(vjp *v, unroll_graph *g, const node *n) {
  const rule rule_ = {v, g, n}, *r = &rule_;
  switch (n->op) {
  case UNROLL_OP_MATMUL: matmul(r); break;
  case UNROLL_OP_UNARY: give(r, 0, unary_times(r, dout(r, 0))); break;
  case UNROLL_OP_BINARY: binary(r); break;
  case UNROLL_OP_REDUCE: reduce(r); break;
  case UNROLL_OP_SOFTMAX: {
    const unroll_tensor y = out(r, 0), dy = dout(r, 0);
    give(r, 0, unroll_mul(y, unroll_sub(dy, sum_last(unroll_mul(dy, y)))));
    break;
  }
  case UNROLL_OP_LOG_SOFTMAX: {
    const unroll_tensor dy = dout(r, 0);
    give(r, 0, unroll_sub(dy, unroll_mul(unroll_unary(out(r, 0), UNROLL_EXP), sum_last(dy))));
    break;
  }
  case UNROLL_OP_CROSS_ENTROPY:
    give(r, 0,
         graph_op(UNROLL_OP_CROSS_ENTROPY_GRAD, NULL, (unroll_tensor[]){in(r, 0), in(r, 1), dout(r, 0)}, 3, NULL));
    break;
  case UNROLL_OP_EMBEDDING: {
    const tensor_spec table = spec(r, 0);
    give(r, 0, graph_op(UNROLL_OP_EMBEDDING_GRAD, NULL, (unroll_tensor[]){in(r, 1), dout(r, 0)}, 2, &table));
    break;
  }
  case UNROLL_OP_SLICE: {
    const unroll_slice_attr s = n->attr.slice;
    const int64_t size = v->graph->tensors[n->out[0]].spec.shape[s.axis];
    if (v->give_rows && s.axis == 0 && want(r, 0))
      v->give_rows(v, n, 0, s.start, dout(r, 0));
    else
      give(r, 0, unroll_pad(dout(r, 0), s.axis, s.start, spec(r, 0).shape[s.axis] - s.start - size));
    break;
  }
  case UNROLL_OP_PAD:
    give(r, 0, unroll_slice(dout(r, 0), n->attr.pad.axis, n->attr.pad.before, spec(r, 0).shape[n->attr.pad.axis]));
    break;
  case UNROLL_OP_CONCAT: concat(r); break;
  case UNROLL_OP_TRANSPOSE: transpose(r); break;
  case UNROLL_OP_RESHAPE: {
    const tensor_spec x = spec(r, 0);
    give(r, 0, graph_reshape(dout(r, 0), &x));
    break;
  }
  case UNROLL_OP_REVERSE: give(r, 0, unroll_reverse(dout(r, 0), in(r, 1))); break;
  case UNROLL_OP_SELECT: {
    const unroll_tensor condition = in(r, 0), dy = dout(r, 0), nothing = zero(r, spec(r, 1).dtype);
    if (want(r, 1))
      give(r, 1, unbroadcast(unroll_select(condition, dy, nothing), spec(r, 1)));
    if (want(r, 2))
      give(r, 2, unbroadcast(unroll_select(condition, nothing, dy), spec(r, 2)));
    break;
  }
  case UNROLL_OP_CAST:
    if (want(r, 0))
      give(r, 0, unroll_cast(dout(r, 0), spec(r, 0).dtype));
    break;
  case UNROLL_OP_DROPOUT: {
    const unroll_tensor dy = dout(r, 0);
    give(r, 0, graph_op(UNROLL_OP_DROPOUT, &n->attr, &dy, 1, NULL));
    break;
  }
  case UNROLL_OP_LENGTH_MASK: {
    const unroll_length_mask_attr m = n->attr.length_mask;
    if (want(r, 0))
      give(r, 0, graph_length_mask(dout(r, 0), unroll_none(), in(r, 2), m.time_axis, m.invert));
    if (want(r, 1))
      give(r, 1, graph_length_mask(dout(r, 0), unroll_none(), in(r, 2), m.time_axis, !m.invert));
    break;
  }
  case UNROLL_OP_GATHER: {
    const tensor_spec x = spec(r, 0);
    give(r, 0, graph_op(UNROLL_OP_GATHER_GRAD, NULL, (unroll_tensor[]){in(r, 1), dout(r, 0)}, 2, &x));
    break;
  }
  case UNROLL_OP_TOP_K: {
    const tensor_spec x = spec(r, 0);
    give(r, 0, graph_op(UNROLL_OP_GATHER_GRAD, NULL, (unroll_tensor[]){out(r, 1), dout(r, 0)}, 2, &x));
    break;
  }
  case UNROLL_OP_LAYER_NORM: layer_norm(r); break;
  case UNROLL_OP_LINEAR_SCAN:
    by_op(r, UNROLL_OP_LINEAR_SCAN_GRAD,
          (unroll_tensor[]){in(r, 0), out(r, 0), in(r, 2), dout(r, 0), dout(r, 1), in(r, 3)}, 6, 3);
    break;
  case UNROLL_OP_LSTM_GATES: lstm_gates(r); break;
  case UNROLL_OP_GRU_AFTER_GATES:
    if (dout(r, 1).graph)
      gru_gates_themselves(r);
    if (dout(r, 0).graph)
      by_op(r, UNROLL_OP_GRU_AFTER_GATES_GRAD, (unroll_tensor[]){out(r, 1), in(r, 2), dout(r, 0)}, 3, 3);
    break;
  case UNROLL_OP_GRU_RESET:
    by_op(r, UNROLL_OP_GRU_RESET_GRAD, (unroll_tensor[]){out(r, 0), in(r, 1), dout(r, 0), dout(r, 1)}, 4, 2);
    break;
  case UNROLL_OP_GRU_UPDATE:
    if (dout(r, 1).graph)
      give(r, 0, unroll_binary(dout(r, 1), out(r, 1), UNROLL_TANH_GRAD));
    if (dout(r, 0).graph)
      by_op(r, UNROLL_OP_GRU_UPDATE_GRAD, (unroll_tensor[]){in(r, 1), out(r, 1), in(r, 2), dout(r, 0)}, 4, 3);
    break;
  case UNROLL_OP_LAYER: layer(r); break;
  case UNROLL_OP_CONSTANT:
  case UNROLL_OP_RANDOM:
  case UNROLL_OP_ARGMAX:
  case UNROLL_OP_CATEGORICAL: break;
  default: unsupported(r);
  }
}
