/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cost_ops.c: what each op costs, from shapes alone. The numbers beside a formula are what it takes for each element, row or
 * unit; tests/counting runs the formulas on numbers that count.
 */
#include "diagnose/cost_private.h"

int64_t cost_times(cost_walk *w, int64_t n, int64_t m) {
  int64_t product = 0;
  w->overflow = !extent_mul(n, m, &product) || w->overflow;
  return product;
}

void cost_add(cost_walk *w, int64_t *sum, int64_t n, int64_t times) {
  const int64_t product = cost_times(w, n, times);
  w->overflow = !extent_add(*sum, product, sum) || w->overflow;
}

int64_t cost_extent(cost_walk *w, const tensor_spec *s, int32_t axis) {
  const int64_t extent = s->shape[axis];
  if (axis > 0 || s->dim[0] < 0 || !w->dims)
    return extent;
  return cost_times(w, extent / graph_root_of(w->graph)->dims[s->dim[0]].max, w->dims[s->dim[0]]);
}

/* ---- operands ---- */

static const tensor_spec *spec_of(const cost_walk *w, uint32_t id) {
  return id == GRAPH_NONE ? NULL : &w->graph->tensors[id].spec;
}
static const tensor_spec *in(const cost_walk *w, uint32_t i) {
  return i < w->now->n_in ? spec_of(w, w->now->in[i]) : NULL;
}
static const tensor_spec *out(const cost_walk *w, uint32_t i) {
  return i < w->now->n_out ? spec_of(w, w->now->out[i]) : NULL;
}

/* Elements of axes first to end-1; of an absent tensor 0. */
static int64_t elements(cost_walk *w, const tensor_spec *s, int32_t first, int32_t end) {
  int64_t n = s ? 1 : 0;
  for (int32_t a = first; s && a < end; a++)
    n = cost_times(w, n, cost_extent(w, s, a));
  return n;
}
static int64_t all(cost_walk *w, const tensor_spec *s) { return elements(w, s, 0, s ? s->rank : 0); }
static int64_t rows(cost_walk *w, const tensor_spec *s) { return elements(w, s, 0, s->rank - 1); }
static int64_t last(cost_walk *w, const tensor_spec *s) { return cost_extent(w, s, s->rank - 1); }

/* ---- what is counted ---- */

static void flops(cost_walk *w, int64_t each, int64_t n) { cost_add(w, &w->one.flops, each, n); }
static void transcendental(cost_walk *w, int64_t each, int64_t n) { cost_add(w, &w->one.transcendental, each, n); }

static void read_some(cost_walk *w, uint32_t i, int64_t n) {
  if (in(w, i))
    cost_add(w, &w->one.read, n, unroll_dtype_size(in(w, i)->dtype));
}
static void read_whole(cost_walk *w, uint32_t i) { read_some(w, i, all(w, in(w, i))); }

static void write_all(cost_walk *w) {
  for (uint32_t i = 0; i < w->now->n_out; i++)
    if (out(w, i))
      cost_add(w, &w->one.written, all(w, out(w, i)), unroll_dtype_size(out(w, i)->dtype));
}

/* ---- elementwise ---- */

static void unary(cost_walk *w) {
  const int64_t n = all(w, in(w, 0));
  if (!gradient_is_real(in(w, 0)))
    return;
  switch (w->now->attr.unary.kind) {
  case UNROLL_COPY: break;
  case UNROLL_EXP:
  case UNROLL_LOG:
  case UNROLL_SQRT:
  case UNROLL_TANH:
  case UNROLL_SIGMOID:
  case UNROLL_EXPM1:
  case UNROLL_LOG1P: transcendental(w, 1, n); break;
  default: flops(w, 1, n); break; /* neg abs sign reciprocal square relu */
  }
}

static void binary(cost_walk *w) {
  const int32_t kind = w->now->attr.binary.kind;
  const bool slope = kind == UNROLL_TANH_GRAD || kind == UNROLL_SIGMOID_GRAD; /* dy·(1-y²), dy·y·(1-y) */
  if (gradient_is_real(in(w, 0)))
    flops(w, slope ? 3 : 1, all(w, out(w, 0)));
}

/* ---- sums ---- */

/* How many blocks an axis is summed in. */
static int64_t blocks_of(int64_t extent, int64_t block) { return extent / block + (extent % block != 0); }

static void matmul(cost_walk *w) {
  const unroll_matmul_attr *attr = &w->now->attr.matmul;
  const tensor_spec *a = in(w, 0), *y = out(w, 0);
  const bool batched = in(w, 1)->rank == 3;
  const int64_t K = attr->trans_a ? elements(w, a, batched ? 1 : 0, a->rank - 1) : last(w, a), n = all(w, y);
  flops(w, cost_times(w, 2, K), n);
  if (attr->k_block > 0)
    flops(w, blocks_of(K, attr->k_block), n);
  else if (in(w, 2))
    flops(w, 1, n);
}

static void reduce(cost_walk *w) {
  const unroll_reduce_attr *attr = &w->now->attr.reduce;
  const tensor_spec *x = in(w, 0);
  if (!gradient_is_real(x))
    return;
  flops(w, attr->kind == UNROLL_SUM_SQUARES ? 2 : 1, all(w, x));
  if (attr->block > 0)
    flops(w, blocks_of(cost_extent(w, x, 0), attr->block), all(w, out(w, 0)));
}

/* ---- rows ---- */

/* The largest, x - largest, exp, their sum: 3 and 1 an element. What else: for each element, and each row. */
static void softmax(cost_walk *w, int64_t each, int64_t each_row, int64_t logs) {
  const tensor_spec *x = in(w, 0);
  flops(w, 3 + each, all(w, x));
  flops(w, each_row, rows(w, x));
  transcendental(w, 1, all(w, x));
  transcendental(w, logs, rows(w, x));
}

/* Tables and rows that are looked up: what each id names, twice where it stands twice. */
static void lookup(cost_walk *w) {
  read_some(w, 0, all(w, out(w, 0)));
  read_whole(w, 1);
}

/* ---- layer norm, of rows of N ---- */

/* The mean (N + 1), x - mean (N), the mean of their squares (2·N + 1), 1/sqrt(that + epsilon) (2 and a root) */
static void norm_row(cost_walk *w, int64_t r, int64_t N) {
  flops(w, 4, cost_times(w, r, N));
  flops(w, 4, r);
  transcendental(w, 1, r);
}

/* d = dy⊙gain (1), its mean (1 and 1 a row), that of d⊙x̂ (2 and 1), (d - mean - x̂⊙mean)·rate (4) */
static void norm_back(cost_walk *w, int64_t r, int64_t N) {
  flops(w, 8, cost_times(w, r, N));
  flops(w, 2, r);
}

/* dgain: dy⊙x̂, summed (2); dshift: dy, summed (1); and what sums of blocks are added to */
static void norm_sums(cost_walk *w, const tensor_spec *x, uint32_t first_in, uint32_t first_out) {
  const int64_t block = w->now->attr.layer_norm.block, N = last(w, x), n = all(w, x);
  for (uint32_t k = 0; k < 2; k++) {
    if (!out(w, first_out + k))
      continue;
    flops(w, k == 0 ? 2 : 1, n);
    if (block > 0)
      flops(w, blocks_of(cost_extent(w, x, 0), block), N);
    else if (in(w, first_in + k))
      flops(w, 1, N);
  }
}

static void layer_norm(cost_walk *w) {
  const int64_t r = rows(w, in(w, 0)), N = last(w, in(w, 0)), n = all(w, in(w, 0));
  norm_row(w, r, N);
  flops(w, in(w, 2) ? 3 : 2, n); /* ·rate, ·gain, + shift */
}

static void layer_norm_grad(cost_walk *w) {
  const tensor_spec *x = in(w, 0);
  norm_row(w, rows(w, x), last(w, x));
  flops(w, 1, all(w, x)); /* x̂ */
  if (out(w, 0))
    norm_back(w, rows(w, x), last(w, x));
  norm_sums(w, x, 3, 1);
}

/* ---- recurrences ---- */

static void linear_scan_grad(cost_walk *w) {
  const tensor_spec *a = in(w, 0);
  const int64_t n = all(w, a), step = elements(w, a, 1, a->rank);
  flops(w, 1 + (in(w, 3) != NULL) + (out(w, 0) != NULL), n); /* a⊙g; dy + what comes back; g⊙h before */
  read_whole(w, 0);
  if (out(w, 0)) {
    read_some(w, 1, n - step);
    read_whole(w, 2);
  }
  for (uint32_t i = 3; i < 6; i++)
    read_whole(w, i);
}

/* c = f⊙c_prev + i⊙g (3), h = o⊙tanh(c) (1); three logistic functions and two tanh */
static void lstm_gates(cost_walk *w) {
  const tensor_spec *c = in(w, 1);
  flops(w, 4, all(w, c));
  transcendental(w, 5, all(w, c));
  if (in(w, 2)) {
    norm_row(w, rows(w, c), last(w, c));
    flops(w, 3, all(w, c));
  }
}

/*
 * With s what flows into c: s⊙g⊙i⊙(1-i) (4), s⊙c_prev⊙f⊙(1-f) (4), s⊙i⊙(1-g²) (4), s⊙f (1). From dh, where it is there:
 * c once more (3), dh⊙o⊙(1-tanh²) (4), dh⊙tanh⊙o⊙(1-o) (4), + dc (1).
 */
static void lstm_gates_grad(cost_walk *w) {
  const tensor_spec *c = in(w, 1);
  const int64_t n = all(w, c);
  flops(w, 13, n);
  if (!in(w, 2))
    return;
  flops(w, in(w, 3) ? 12 : 11, n);
  transcendental(w, 1, n);
  if (in(w, 4)) {
    norm_row(w, rows(w, c), last(w, c));
    flops(w, 3, n); /* x̂, and gain⊙x̂ + shift */
    norm_back(w, rows(w, c), last(w, c));
    norm_sums(w, c, 6, 2);
  }
}

/* dr = drz + drh⊙h_prev, times r⊙(1-r); dz = drz, times z⊙(1-z); dh_prev = drh⊙r */
static void gru_reset_grad(cost_walk *w) {
  const bool drz = in(w, 2) != NULL, drh = in(w, 3) != NULL;
  flops(w, 3 + (drz ? 3 : 0) + (drh ? 2 : 0) + (drz && drh), all(w, in(w, 1)));
}

/* ---- training ---- */

static void optimizer(cost_walk *w) {
  const unroll_optimizer_attr *attr = &w->now->attr.optimizer;
  const int64_t n = all(w, in(w, 0));
  if (in(w, 4))
    flops(w, 1, n); /* g = grad·scale */
  if (attr->weight_decay != 0) {
    flops(w, 2, n);
    flops(w, attr->kind == UNROLL_ADAMW, 1); /* lr·weight_decay */
  }
  switch (attr->kind) {
  case UNROLL_SGD: flops(w, in(w, 5) ? 4 : 2, n); break;
  case UNROLL_RMSPROP:
    flops(w, 8, n); /* 4 for s1, 4 for param */
    transcendental(w, 1, n);
    break;
  default: /* s1 3, s2 4, what they are divided by 2, param 4 */
    flops(w, 13, n);
    transcendental(w, 1, n);
    flops(w, 2, 1); /* 1-beta^step */
    transcendental(w, 2, 1);
  }
}

/* What inputs are read of is said here, where it is not all of each. */
static bool reads_in_part(cost_walk *w) {
  switch (w->now->op) {
  case UNROLL_OP_SLICE: read_some(w, 0, all(w, out(w, 0))); return true;
  case UNROLL_OP_EMBEDDING:
  case UNROLL_OP_GATHER: lookup(w); return true;
  case UNROLL_OP_LINEAR_SCAN_GRAD: linear_scan_grad(w); return true;
  case UNROLL_OP_LAYER_NORM_GRAD: /* gain for dx alone, sums where they are asked for */
    read_whole(w, 0);
    read_some(w, 1, out(w, 0) ? all(w, in(w, 1)) : 0);
    read_whole(w, 2);
    for (uint32_t k = 0; k < 2; k++)
      read_some(w, 3 + k, out(w, 1 + k) ? all(w, in(w, 3 + k)) : 0);
    return true;
  default: return false;
  }
}

static void arithmetic(cost_walk *w) {
  const int64_t n = w->now->n_in ? all(w, in(w, 0)) : 0;
  switch (w->now->op) {
  case UNROLL_OP_MATMUL: matmul(w); break;
  case UNROLL_OP_UNARY: unary(w); break;
  case UNROLL_OP_BINARY: binary(w); break;
  case UNROLL_OP_REDUCE: reduce(w); break;
  case UNROLL_OP_SOFTMAX: softmax(w, 1, 0, 0); break;            /* / sum */
  case UNROLL_OP_LOG_SOFTMAX: softmax(w, 1, 0, 1); break;        /* - log sum */
  case UNROLL_OP_CROSS_ENTROPY: softmax(w, 0, 2, 1); break;      /* log sum - (x[target] - largest) */
  case UNROLL_OP_CROSS_ENTROPY_GRAD: softmax(w, 2, 1, 0); break; /* / sum, - 1 at the target, ·dloss */
  case UNROLL_OP_CATEGORICAL: softmax(w, 2, 1, 0); break;        /* running sums, compared with u·sum */
  case UNROLL_OP_EMBEDDING_GRAD:
  case UNROLL_OP_GATHER_GRAD: flops(w, 1, all(w, in(w, 1))); break;
  case UNROLL_OP_DROPOUT:
  case UNROLL_OP_ARGMAX: flops(w, 1, n); break;
  case UNROLL_OP_TOP_K: flops(w, w->now->attr.top_k.k, n); break; /* the largest of what is left, k times */
  case UNROLL_OP_LINEAR_SCAN: flops(w, 2, n); break;
  case UNROLL_OP_LAYER_NORM: layer_norm(w); break;
  case UNROLL_OP_LAYER_NORM_GRAD: layer_norm_grad(w); break;
  case UNROLL_OP_OPTIMIZER: optimizer(w); break;
  case UNROLL_OP_LSTM_GATES: lstm_gates(w); break;
  case UNROLL_OP_LSTM_GATES_GRAD: lstm_gates_grad(w); break;
  case UNROLL_OP_GRU_AFTER_GATES: /* xr + hr, xz + hz, xn + r⊙hn (4), (1-z)⊙n + z⊙h_prev (4) */
    flops(w, 8, all(w, in(w, 2)));
    transcendental(w, 3, all(w, in(w, 2)));
    break;
  case UNROLL_OP_GRU_AFTER_GATES_GRAD: /* dxn = dh⊙(1-z)⊙(1-n²) (5), dr (4), dz (5), dxn⊙r (1), dh⊙z (1) */
    flops(w, 16, all(w, in(w, 1)));
    break;
  case UNROLL_OP_GRU_RESET: /* r⊙h_prev */
    flops(w, 1, all(w, in(w, 1)));
    transcendental(w, 2, all(w, in(w, 1)));
    break;
  case UNROLL_OP_GRU_RESET_GRAD: gru_reset_grad(w); break;
  case UNROLL_OP_GRU_UPDATE:
    flops(w, 4, n);
    transcendental(w, 1, n);
    break;
  case UNROLL_OP_GRU_UPDATE_GRAD: /* dh⊙(h_prev-n) (2), dh⊙(1-z)⊙(1-n²) (5), dh⊙z (1) */
    flops(w, 8, all(w, in(w, 1)));
    break;
  default: break; /* moves, casts, constants, random numbers */
  }
}

void cost_of_node(cost_walk *w, const node *n) {
  w->now = n;
  w->one = (unroll_cost_count){.runs = 1};
  if (n->op == UNROLL_OP_SCAN || n->op == UNROLL_OP_RESHAPE || (n->op == UNROLL_OP_SLICE && n->attr.slice.axis == 0)) {
    w->one.runs = 0;
    return;
  }
  arithmetic(w);
  if (!reads_in_part(w))
    for (uint32_t i = 0; i < n->n_in; i++)
      read_whole(w, i);
  write_all(w);
}
