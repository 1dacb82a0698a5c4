/* SPDX-License-Identifier: Apache-2.0 */
/* tangent_rules.c: the tangent of each op's results. A tangent of none is zeros, and what is made of it alone is none again. */
#include "graph/graph_private.h"

typedef struct rule {
  jvp *t;
  const node *n;
} rule;

/* Values are asked for only where a rule reads them: in a scan, what is asked for must have been kept at every step. */
static unroll_tensor in(const rule *r, uint32_t i) {
  return i < r->n->n_in && r->n->in[i] != GRAPH_NONE ? r->t->v.value(&r->t->v, r->n->in[i]) : unroll_none();
}
static unroll_tensor out(const rule *r, uint32_t i) { return r->t->v.value(&r->t->v, r->n->out[i]); }
static unroll_tensor din(const rule *r, uint32_t i) {
  return i < r->n->n_in && r->n->in[i] != GRAPH_NONE ? r->t->tangent[r->n->in[i]] : unroll_none();
}
static bool wanted(const rule *r, uint32_t o) { return r->n->out[o] != GRAPH_NONE && r->t->wanted[r->n->out[o]]; }
static tensor_spec spec_in(const rule *r, uint32_t i) { return r->t->v.graph->tensors[r->n->in[i]].spec; }
static tensor_spec spec_out(const rule *r, uint32_t o) { return r->t->v.graph->tensors[r->n->out[o]].spec; }

static unroll_tensor filled(const rule *r, tensor_spec spec, double value) {
  return graph_zeros_like(r->t->to, &spec, value);
}
static unroll_tensor scalar(const rule *r, double value) {
  return filled(r, graph_make_spec(spec_out(r, 0).dtype, 0, NULL), value);
}
/* What a tangent of a value of that shape has. */
static tensor_spec of_tangent(const rule *r, tensor_spec s) {
  if (r->t->rows && s.rank > 0)
    s.shape[0] = r->t->rows;
  return s;
}
static unroll_tensor din_or_zeros(const rule *r, uint32_t i) {
  const unroll_tensor d = din(r, i);
  return d.graph ? d : filled(r, of_tangent(r, spec_in(r, i)), 0.0);
}

/* The tangent of result o; what stands for an operand that was broadcast is given the result's shape. */
static void give(const rule *r, uint32_t o, unroll_tensor d) {
  if (!d.graph || graph_failed(d.graph) || r->n->out[o] == GRAPH_NONE)
    return;
  const tensor_spec y = of_tangent(r, spec_out(r, o));
  if (!graph_same_shape(graph_spec(d), &y))
    d = unroll_add(filled(r, y, 0.0), d);
  tangent_flow(r->t, r->n->out[o], d);
}

/* ---- sums and products in which none is zero ---- */

static unroll_tensor plus(unroll_tensor a, unroll_tensor b) { return !a.graph ? b : !b.graph ? a : unroll_add(a, b); }
static unroll_tensor minus(unroll_tensor a, unroll_tensor b) {
  return !b.graph ? a : !a.graph ? unroll_unary(b, UNROLL_NEG) : unroll_sub(a, b);
}
static unroll_tensor times(unroll_tensor d, unroll_tensor x) { return d.graph ? unroll_mul(d, x) : d; }
static unroll_tensor through(unroll_tensor d, unroll_tensor y, int32_t kind) {
  return d.graph ? unroll_binary(d, y, kind) : d;
}
static unroll_tensor sum_last(unroll_tensor x, bool keep) {
  return x.graph && !graph_failed(x.graph) ? unroll_reduce(x, UNROLL_SUM, 1u << (graph_spec(x)->rank - 1), keep)
                                           : unroll_none();
}
static unroll_tensor mean_last(unroll_tensor x) {
  if (!x.graph || graph_failed(x.graph))
    return unroll_none();
  return unroll_scale(sum_last(x, true), 1 / (double)graph_spec(x)->shape[graph_spec(x)->rank - 1]);
}
static unroll_tensor reduced(unroll_tensor x, int32_t kind, const unroll_reduce_attr *a) {
  return x.graph ? unroll_reduce(x, kind, a->axes, a->keep_dims) : x;
}

/* ---- the rules ---- */

static unroll_tensor softmax(unroll_tensor y, unroll_tensor dx) {
  const unroll_tensor d = unroll_mul(y, dx);
  return unroll_sub(d, unroll_mul(y, sum_last(d, true)));
}

static void matmul(const rule *r) {
  const op_attr *attr = &r->n->attr;
  const unroll_tensor da = din(r, 0), db = din(r, 1), dc = din(r, 2), none = unroll_none();
  unroll_tensor d = dc;
  if (da.graph) {
    const tensor_spec y = of_tangent(r, spec_out(r, 0));
    /* blocks of k take what they start from in the product's shape alone */
    if (d.graph && attr->matmul.k_block && !graph_failed(d.graph) && !graph_same_shape(graph_spec(d), &y))
      d = unroll_add(filled(r, y, 0.0), d);
    const bool known = r->t->identity.graph && da.id == r->t->identity.id && !attr->matmul.trans_a;
    if (known && attr->matmul.trans_b)
      d = plus(unroll_transpose(in(r, 1), (int32_t[]){1, 0}), d);
    else
      d = known ? plus(in(r, 1), d) : graph_op(UNROLL_OP_MATMUL, attr, (unroll_tensor[]){da, in(r, 1), d}, 3, NULL);
  }
  if (db.graph) {
    if (d.graph && !da.graph && attr->matmul.k_block)
      d = unroll_add(filled(r, spec_out(r, 0), 0.0), d);
    d = graph_op(UNROLL_OP_MATMUL, attr, (unroll_tensor[]){in(r, 0), db, d.graph ? d : none}, 3, NULL);
  }
  give(r, 0, d);
}

static void binary(const rule *r) {
  const int32_t kind = r->n->attr.binary.kind;
  const unroll_tensor da = din(r, 0), db = din(r, 1);
  unroll_tensor d = unroll_none();
  switch (kind) {
  case UNROLL_ADD: d = plus(da, db); break;
  case UNROLL_SUB: d = minus(da, db); break;
  case UNROLL_MUL:
    d = da.graph ? unroll_mul(da, in(r, 1)) : d;
    d = plus(d, db.graph ? unroll_mul(db, in(r, 0)) : unroll_none());
    break;
  case UNROLL_DIV: { /* (da - y·db)/b */
    const unroll_tensor top = minus(da, db.graph ? unroll_mul(db, out(r, 0)) : unroll_none());
    d = unroll_div(top, in(r, 1));
    break;
  }
  case UNROLL_MAX:
  case UNROLL_MIN: { /* of equals, the first one has it */
    const unroll_tensor first = unroll_binary(in(r, 0), in(r, 1), kind == UNROLL_MAX ? UNROLL_GE : UNROLL_LE);
    const unroll_tensor nothing = scalar(r, 0.0);
    d = unroll_select(first, da.graph ? da : nothing, db.graph ? db : nothing);
    break;
  }
  case UNROLL_TANH_GRAD: /* a·(1 - b²) */
    d = through(da, da.graph ? in(r, 1) : da, kind);
    if (db.graph)
      d = plus(d, unroll_scale(unroll_mul(unroll_mul(in(r, 0), in(r, 1)), db), -2.0));
    break;
  case UNROLL_SIGMOID_GRAD: /* a·b·(1 - b) */
    d = through(da, da.graph ? in(r, 1) : da, kind);
    if (db.graph)
      d = plus(d, unroll_mul(unroll_mul(in(r, 0), unroll_sub(scalar(r, 1.0), unroll_scale(in(r, 1), 2.0))), db));
    break;
  case UNROLL_RELU_GRAD: d = through(da, da.graph ? in(r, 1) : da, kind); break;
  default: return; /* comparisons */
  }
  give(r, 0, d);
}

static void reduce(const rule *r) {
  const unroll_reduce_attr a = r->n->attr.reduce;
  const unroll_tensor dx = din(r, 0);
  unroll_tensor d = unroll_none();
  switch (a.kind) {
  case UNROLL_SUM: d = reduced(dx, UNROLL_SUM, &a); break;
  case UNROLL_SUM_SQUARES:
    d = dx.graph ? unroll_scale(reduced(unroll_mul(in(r, 0), dx), UNROLL_SUM, &a), 2.0) : d;
    break;
  default: { /* max and min: equals share it */
    if (!dx.graph)
      break;
    const tensor_spec x = spec_in(r, 0);
    tensor_spec kept = x;
    for (int i = 0; i < kept.rank; i++)
      if (a.axes >> i & 1u) {
        kept.shape[i] = 1;
        kept.dim[i] = -1;
      }
    const unroll_tensor hit = unroll_cast(unroll_binary(in(r, 0), graph_reshape(out(r, 0), &kept), UNROLL_EQ), x.dtype);
    d = unroll_div(reduced(unroll_mul(hit, dx), UNROLL_SUM, &a), reduced(hit, UNROLL_SUM, &a));
  }
  }
  give(r, 0, plus(d, din(r, 1)));
}

/* Of (softmax - onehot)·dloss, 0 where a target is ignored. */
static void cross_entropy_grad(const rule *r) {
  const unroll_tensor dx = din(r, 0), dloss = din(r, 2);
  const unroll_tensor x[3] = {in(r, 0), in(r, 1), dloss};
  unroll_tensor d = dloss.graph ? graph_op(UNROLL_OP_CROSS_ENTROPY_GRAD, NULL, x, 3, NULL) : dloss;
  if (dx.graph) {
    const unroll_tensor none = filled(r, graph_make_spec(spec_in(r, 1).dtype, 0, NULL), 0.0);
    const unroll_tensor counted =
        unroll_select(unroll_binary(in(r, 1), none, UNROLL_GE), in(r, 2), filled(r, spec_in(r, 2), 0.0));
    tensor_spec column = spec_in(r, 2);
    column.dim[column.rank] = -1;
    column.shape[column.rank++] = 1;
    d = plus(d, unroll_mul(softmax(unroll_softmax(in(r, 0)), dx), graph_reshape(counted, &column)));
  }
  give(r, 0, d);
}

static void concat(const rule *r) {
  unroll_graph *g = r->t->to;
  unroll_tensor *parts = mem_array(&g->allocator, (uint64_t)r->n->n_in + 1, sizeof *parts);
  if (!parts) {
    graph_fail(g, UNROLL_E_MEMORY, "out of memory for a tangent");
    return;
  }
  for (uint32_t i = 0; i < r->n->n_in; i++)
    parts[i] = din_or_zeros(r, i);
  give(r, 0, unroll_concat(parts, r->n->n_in, r->n->attr.axis.axis));
  mem_free(&g->allocator, parts);
}

/* With x̂ = (x - mean)·rate: dx̂ = rate·(dx - mean(dx) - x̂·mean(x̂⊙dx)), as the gradient's own projection. */
static unroll_tensor normed(unroll_tensor x, unroll_tensor dx, unroll_tensor gain, unroll_tensor dgain,
                            unroll_tensor dshift, double epsilon) {
  if (!x.graph || graph_failed(x.graph))
    return unroll_none();
  const graph_normed n = graph_normalise(x, epsilon);
  unroll_tensor d = unroll_none();
  if (dx.graph) {
    const unroll_tensor centred = unroll_sub(dx, mean_last(dx));
    const unroll_tensor along = unroll_mul(n.xhat, mean_last(unroll_mul(n.xhat, centred)));
    d = unroll_mul(unroll_mul(unroll_sub(centred, along), n.rate), gain);
  }
  return plus(plus(d, times(dgain, n.xhat)), dshift);
}

static void lstm_gates(const rule *r) {
  const unroll_tensor gates = out(r, 2), dpre = din(r, 0), dc_prev = din(r, 1);
  const bool has_norm = r->n->n_in > 2 && r->n->in[2] != GRAPH_NONE;
  unroll_tensor s[4], d[4]; /* i f g o */
  for (int k = 0; k < 4; k++) {
    s[k] = graph_block(gates, k, 4);
    d[k] = through(graph_block(dpre, k, 4), s[k], k == 2 ? UNROLL_TANH_GRAD : UNROLL_SIGMOID_GRAD);
  }
  const unroll_tensor c_prev = in(r, 1);
  unroll_tensor dc = times(dc_prev, s[1]);
  if (dpre.graph)
    dc = plus(dc, plus(unroll_mul(d[1], c_prev), plus(unroll_mul(d[0], s[2]), unroll_mul(s[0], d[2]))));
  give(r, 1, dc);
  if (wanted(r, 2) && dpre.graph)
    give(r, 2, unroll_concat(d, 4, spec_out(r, 2).rank - 1));
  if (!wanted(r, 0))
    return;
  unroll_tensor c = unroll_add(unroll_mul(s[1], c_prev), unroll_mul(s[0], s[2])), dseen = dc;
  if (has_norm) {
    const double epsilon = r->n->attr.layer_norm.epsilon;
    dseen = normed(c, dc, in(r, 2), din(r, 2), din(r, 3), epsilon);
    c = unroll_layer_norm(c, in(r, 2), in(r, 3), epsilon);
  }
  const unroll_tensor h = unroll_tanh(c);
  give(r, 0, plus(times(d[3], h), times(through(dseen, h, UNROLL_TANH_GRAD), s[3])));
}

/* Of h = (1 - z)⊙n + z⊙h_prev. */
static unroll_tensor between(const rule *r, unroll_tensor z, unroll_tensor dz, unroll_tensor n, unroll_tensor dn,
                             uint32_t h_prev) {
  const unroll_tensor d = plus(dn, times(minus(din(r, h_prev), dn), z));
  return dz.graph ? plus(d, unroll_mul(dz, unroll_sub(in(r, h_prev), n))) : d;
}

static void gru_after_gates(const rule *r) {
  const unroll_tensor gates = out(r, 1);
  unroll_tensor s[4], dx[3], dh[3];
  for (int k = 0; k < 4; k++)
    s[k] = graph_block(gates, k, 4); /* r z n hn */
  for (int k = 0; k < 3; k++) {
    dx[k] = graph_block(din(r, 0), k, 3);
    dh[k] = graph_block(din(r, 1), k, 3);
  }
  const unroll_tensor dr = through(plus(dx[0], dh[0]), s[0], UNROLL_SIGMOID_GRAD);
  const unroll_tensor dz = through(plus(dx[1], dh[1]), s[1], UNROLL_SIGMOID_GRAD);
  const unroll_tensor inner = plus(times(dr, s[3]), times(dh[2], s[0]));
  const unroll_tensor dn = through(plus(dx[2], inner), s[2], UNROLL_TANH_GRAD);
  give(r, 0, between(r, s[1], dz, s[2], dn, 2));
  const unroll_tensor all[4] = {dr, dz, dn, dh[2]};
  if (!wanted(r, 1) || !(dr.graph || dn.graph))
    return;
  unroll_tensor d[4];
  const tensor_spec h = spec_out(r, 0);
  for (int k = 0; k < 4; k++)
    d[k] = all[k].graph ? all[k] : filled(r, h, 0.0);
  give(r, 1, unroll_concat(d, 4, h.rank - 1));
}

static void gru_reset(const rule *r) {
  const unroll_tensor rz = out(r, 0), d = through(din(r, 0), rz, UNROLL_SIGMOID_GRAD), dh = din(r, 1);
  give(r, 0, d);
  if (wanted(r, 1))
    give(r, 1, plus(d.graph ? unroll_mul(graph_block(d, 0, 2), in(r, 1)) : d, times(dh, graph_block(rz, 0, 2))));
}

static void gru_update(const rule *r) {
  const unroll_tensor n = out(r, 1), dn = through(din(r, 0), n, UNROLL_TANH_GRAD);
  give(r, 0, between(r, graph_block(in(r, 1), 1, 2), graph_block(din(r, 1), 1, 2), n, dn, 2));
  give(r, 1, dn);
}

/* dh_t = a_t⊙dh_{t-1} + (da_t⊙h_{t-1} + db_t): a scan of the same kind. */
static void linear_scan(const rule *r) {
  const op_attr *attr = &r->n->attr;
  const unroll_tensor da = din(r, 0), db = din(r, 1), lengths = in(r, 3);
  unroll_tensor u = db, d[3];
  if (da.graph) { /* with a = 0 and a flow of ones the gradient of a is h_{t-1} */
    const tensor_spec y = spec_out(r, 0);
    const unroll_tensor x[6] = {filled(r, y, 0.0), out(r, 0), in(r, 2), filled(r, y, 1.0), unroll_none(), lengths};
    graph_add_node(r->t->to, UNROLL_OP_LINEAR_SCAN_GRAD, attr, x, 6, NULL, d, 3);
    u = plus(u, unroll_mul(da, d[0]));
  }
  const unroll_tensor x[4] = {in(r, 0), u.graph ? u : filled(r, spec_out(r, 0), 0.0), din(r, 2), lengths};
  graph_add_node(r->t->to, UNROLL_OP_LINEAR_SCAN, attr, x, 4, NULL, d, 2);
  give(r, 0, d[0]);
  give(r, 1, d[1]);
}

static void layer(const rule *r) {
  unroll_tensor x[11] = {unroll_none()}, dx[11] = {unroll_none()}, saved[4], d[3] = {unroll_none()};
  bool asked[3];
  for (uint32_t i = 0; i < r->n->n_in && i < 11; i++) {
    x[i] = in(r, i);
    dx[i] = din(r, i);
  }
  for (uint32_t i = 0; i < 4; i++)
    saved[i] = layer_saved_blocks(r->n->attr.layer.cell, i) ? out(r, 3 + i) : unroll_none();
  if (r->n->attr.layer.cell == UNROLL_CELL_RNN &&
      r->n->n_in <= 8) /* without masks it is y, and a device runs it whole */
    saved[1] = out(r, 0);
  for (uint32_t i = 0; i < 3; i++)
    asked[i] = wanted(r, i);
  layer_tangent(r->t->to, r->n, x, saved, dx, asked, d);
  for (uint32_t i = 0; i < 3; i++)
    give(r, i, d[i]);
}

/* Ops that are linear in their first input, with the others as they are. */
static void linear(const rule *r) {
  const tensor_spec y = of_tangent(r, spec_out(r, 0));
  const unroll_tensor x[2] = {din(r, 0), r->n->n_in > 1 ? in(r, 1) : unroll_none()};
  give(r, 0, graph_op(r->n->op, &r->n->attr, x, r->n->n_in, &y));
}

void tangent_node(jvp *t, const node *n) {
  const rule rule_ = {t, n}, *r = &rule_;
  switch (n->op) {
  case UNROLL_OP_MATMUL: matmul(r); break;
  case UNROLL_OP_UNARY: give(r, 0, grad_unary(&t->v, t->to, n, din(r, 0))); break;
  case UNROLL_OP_BINARY: binary(r); break;
  case UNROLL_OP_REDUCE: reduce(r); break;
  case UNROLL_OP_SOFTMAX: give(r, 0, softmax(out(r, 0), din(r, 0))); break;
  case UNROLL_OP_LOG_SOFTMAX: {
    const unroll_tensor d = din(r, 0);
    give(r, 0, unroll_sub(d, sum_last(unroll_mul(unroll_unary(out(r, 0), UNROLL_EXP), d), true)));
    break;
  }
  case UNROLL_OP_CROSS_ENTROPY: {
    const unroll_tensor x[3] = {in(r, 0), in(r, 1), filled(r, spec_out(r, 0), 1.0)};
    give(r, 0, sum_last(unroll_mul(graph_op(UNROLL_OP_CROSS_ENTROPY_GRAD, NULL, x, 3, NULL), din(r, 0)), false));
    break;
  }
  case UNROLL_OP_CROSS_ENTROPY_GRAD: cross_entropy_grad(r); break;
  case UNROLL_OP_RESHAPE: {
    const tensor_spec y = of_tangent(r, spec_out(r, 0));
    give(r, 0, graph_reshape(din(r, 0), &y));
    break;
  }
  case UNROLL_OP_EMBEDDING:
  case UNROLL_OP_SLICE:
  case UNROLL_OP_PAD:
  case UNROLL_OP_TRANSPOSE:
  case UNROLL_OP_REVERSE:
  case UNROLL_OP_GATHER:
  case UNROLL_OP_DROPOUT: linear(r); break;
  case UNROLL_OP_EMBEDDING_GRAD:
  case UNROLL_OP_GATHER_GRAD: {
    const tensor_spec y = spec_out(r, 0);
    give(r, 0, graph_op(n->op, &n->attr, (unroll_tensor[]){in(r, 0), din(r, 1)}, 2, &y));
    break;
  }
  case UNROLL_OP_CAST:
    if (gradient_is_real(&t->v.graph->tensors[n->out[0]].spec))
      linear(r);
    break;
  case UNROLL_OP_CONCAT: concat(r); break;
  case UNROLL_OP_SELECT: {
    const unroll_tensor a = din(r, 1), b = din(r, 2), nothing = scalar(r, 0.0);
    give(r, 0, unroll_select(in(r, 0), a.graph ? a : nothing, b.graph ? b : nothing));
    break;
  }
  case UNROLL_OP_LENGTH_MASK: {
    const unroll_length_mask_attr m = n->attr.length_mask;
    const unroll_tensor d = din(r, 0), other = din(r, 1);
    give(r, 0,
         d.graph ? graph_length_mask(d, other, in(r, 2), m.time_axis, m.invert)
                 : graph_length_mask(other, d, in(r, 2), m.time_axis, !m.invert));
    break;
  }
  case UNROLL_OP_TOP_K: give(r, 0, unroll_gather(din(r, 0), out(r, 1))); break;
  case UNROLL_OP_LAYER_NORM: {
    const unroll_tensor gain = din(r, 0).graph ? in(r, 1) : unroll_none();
    give(r, 0, normed(in(r, 0), din(r, 0), gain, din(r, 1), din(r, 2), n->attr.layer_norm.epsilon));
    break;
  }
  case UNROLL_OP_LINEAR_SCAN: linear_scan(r); break;
  case UNROLL_OP_LSTM_GATES: lstm_gates(r); break;
  case UNROLL_OP_GRU_AFTER_GATES: gru_after_gates(r); break;
  case UNROLL_OP_GRU_RESET: gru_reset(r); break;
  case UNROLL_OP_GRU_UPDATE: gru_update(r); break;
  case UNROLL_OP_LAYER: layer(r); break;
  case UNROLL_OP_CONSTANT:
  case UNROLL_OP_RANDOM:
  case UNROLL_OP_ARGMAX:
  case UNROLL_OP_CATEGORICAL: break;
  default: graph_fail(t->to, UNROLL_E_UNSUPPORTED, "%s: %s has no tangent", n->name, graph_op_name(n->op));
  }
}
