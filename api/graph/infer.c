/* SPDX-License-Identifier: Apache-2.0 */
/* infer.c: what comes out of a node, and whether what goes in fits. plugin.h says the meaning of every op. */
#include "graph/infer_private.h"
#include <inttypes.h>
#include <math.h>
#include <string.h>

/* ---- dense ---- */

static unroll_status matmul(inference *f) {
  const unroll_matmul_attr *t = &f->attr->matmul;
  TRY(infer_need_real(f, 0));
  TRY(infer_need_real(f, 1));
  TRY(infer_need_rank(f, 1, 2, 3));
  const tensor_spec *a = in(f, 0), *b = in(f, 1), *c = in(f, 2);
  const bool batched = b->rank == 3;
  TRY(infer_need_rank(f, 0, batched ? 3 : 2, batched ? 3 : t->trans_a ? 2 : UNROLL_MAX_RANK));
  const int a_m = a->rank - (t->trans_a ? 1 : 2), a_k = a->rank - (t->trans_a ? 2 : 1);
  const int b_k = b->rank - (t->trans_b ? 1 : 2), b_n = b->rank - (t->trans_b ? 2 : 1);
  if (!same_extent(a, a_k, b, b_k) || (batched && !same_extent(a, 0, b, 0)))
    return fail(f->err, UNROLL_E_SHAPE, "%s%s times %s%s: the inner sizes %" PRId64 " and %" PRId64 " differ%s",
                describe(f, 0, 0), t->trans_a ? " transposed" : "", describe(f, 1, 1), t->trans_b ? " transposed" : "",
                a->shape[a_k], b->shape[b_k], batched ? ", or the batches do" : "");
  tensor_spec y = *a;
  y.shape[y.rank - 2] = a->shape[a_m];
  y.dim[y.rank - 2] = a->dim[a_m];
  y.shape[y.rank - 1] = b->shape[b_n];
  y.dim[y.rank - 1] = b->dim[b_n];
  if (t->k_block < 0 || t->m_block < 0)
    return fail(f->err, UNROLL_E_RANGE, "blocks of %" PRId64 ", expected 0 (none) or more",
                t->k_block < 0 ? t->k_block : t->m_block);
  if (c && t->k_block > 0 && !graph_same_shape(c, &y))
    return fail(f->err, UNROLL_E_SHAPE, "%s is what a sum of blocks starts from: expected its shape",
                describe(f, 2, 2));
  if (c) {
    TRY(infer_need_real(f, 2));
    if (!graph_same_shape(c, &y) && !(c->rank == 1 && same_extent(c, 0, &y, y.rank - 1)))
      return fail(f->err, UNROLL_E_SHAPE,
                  "%s is added to the product of %s and %s: expected its shape or a row of %" PRId64, describe(f, 2, 2),
                  describe(f, 0, 0), describe(f, 1, 1), y.shape[y.rank - 1]);
  }
  f->out[0] = y;
  return UNROLL_OK;
}

static unroll_status unary(inference *f) {
  const int32_t kind = f->attr->unary.kind;
  const tensor_spec *x = in(f, 0);
  if (!x || kind < 0 || kind >= UNROLL_UNARY_COUNT)
    return fail(f->err, UNROLL_E_INVALID, "%s", x ? "no such function" : "input 0 is missing");
  const bool integers = kind == UNROLL_NEG || kind == UNROLL_ABS || kind == UNROLL_SIGN || kind == UNROLL_SQUARE;
  const bool fits = kind == UNROLL_COPY          ? true
                    : kind == UNROLL_LOGICAL_NOT ? x->dtype == UNROLL_BOOL
                                                 : is_real(x) || (integers && is_number(x));
  if (!fits)
    return fail(f->err, UNROLL_E_DTYPE, "the function does not take %s", describe(f, 0, 0));
  f->out[0] = *x;
  return UNROLL_OK;
}

/* NumPy's broadcasting of input i into *s; false where they do not fit. */
static bool broadcast(tensor_spec *s, const tensor_spec *x) {
  tensor_spec r = graph_make_spec(s->dtype, 0, NULL);
  r.rank = s->rank > x->rank ? s->rank : x->rank;
  for (int k = 1; k <= r.rank; k++) {
    const int i = s->rank - k, j = x->rank - k, o = r.rank - k;
    if (j < 0 || (i >= 0 && (same_extent(s, i, x, j) || has_extent(x, j, 1)))) {
      r.shape[o] = s->shape[i];
      r.dim[o] = s->dim[i];
    } else if (i < 0 || has_extent(s, i, 1)) {
      r.shape[o] = x->shape[j];
      r.dim[o] = x->dim[j];
    } else
      return false;
  }
  *s = r;
  return true;
}

static unroll_status binary(inference *f) {
  const int32_t kind = f->attr->binary.kind;
  const tensor_spec *a = in(f, 0), *b = in(f, 1);
  if (!a || !b || kind < 0 || kind >= UNROLL_BINARY_COUNT)
    return fail(f->err, UNROLL_E_INVALID, "%s", a && b ? "no such function" : "an operand is missing");
  if (a->dtype != b->dtype)
    return fail(f->err, UNROLL_E_DTYPE, "%s and %s differ in type; there is no implicit conversion", describe(f, 0, 0),
                describe(f, 1, 1));
  const bool compares = kind >= UNROLL_EQ && kind <= UNROLL_GE;
  if (!is_number(a) || (kind >= UNROLL_TANH_GRAD && !is_real(a)))
    return fail(f->err, UNROLL_E_DTYPE, "the function does not take %s", describe(f, 0, 0));
  tensor_spec y = *a;
  if (!broadcast(&y, b))
    return fail(f->err, UNROLL_E_SHAPE, "%s and %s cannot be broadcast", describe(f, 0, 0), describe(f, 1, 1));
  y.dtype = compares ? UNROLL_BOOL : a->dtype;
  f->out[0] = y;
  return UNROLL_OK;
}

static unroll_status select_(inference *f) {
  const tensor_spec *a = in(f, 1), *b = in(f, 2);
  TRY(infer_need_dtype(f, 0, UNROLL_BOOL));
  if (!a || !b)
    return fail(f->err, UNROLL_E_INVALID, "an operand is missing");
  TRY(infer_need_dtype(f, 2, a->dtype));
  tensor_spec y = *a;
  if (!broadcast(&y, b) || !broadcast(&y, in(f, 0)))
    return fail(f->err, UNROLL_E_SHAPE, "%s, %s and %s cannot be broadcast", describe(f, 0, 0), describe(f, 1, 1),
                describe(f, 2, 2));
  y.dtype = a->dtype;
  f->out[0] = y;
  return UNROLL_OK;
}

static unroll_status reduce(inference *f) {
  const unroll_reduce_attr *r = &f->attr->reduce;
  const tensor_spec *x = in(f, 0);
  if (!x || !is_number(x) || r->kind < 0 || r->kind >= UNROLL_REDUCTION_COUNT)
    return fail(f->err, UNROLL_E_DTYPE, "%s cannot be reduced so", describe(f, 0, 0));
  if (r->axes >> x->rank)
    return fail(f->err, UNROLL_E_SHAPE, "axes 0x%x of %s: it has rank %d", r->axes, describe(f, 0, 0), x->rank);
  tensor_spec y = graph_make_spec(x->dtype, 0, NULL);
  for (int i = 0; i < x->rank; i++) {
    const bool gone = r->axes >> i & 1u;
    if (gone && !r->keep_dims)
      continue;
    y.shape[y.rank] = gone ? 1 : x->shape[i];
    y.dim[y.rank++] = gone ? -1 : x->dim[i];
  }
  if (r->block < 0 || (r->block > 0 && (r->kind != UNROLL_SUM || !(r->axes & 1u) || !is_real(x))))
    return fail(f->err, UNROLL_E_INVALID, "blocks of %" PRId64 " of %s: expected a sum of real numbers over axis 0",
                r->block, describe(f, 0, 0));
  if (in(f, 1) && r->block == 0)
    return fail(f->err, UNROLL_E_INVALID, "input 1, what a sum of blocks starts from, is %s; there are no blocks",
                describe(f, 1, 0));
  TRY(infer_need_spec(f, 1, &y, true));
  f->out[0] = y;
  return UNROLL_OK;
}

static unroll_status rows(inference *f) { /* softmax, log_softmax */
  TRY(infer_need_real(f, 0));
  TRY(infer_need_rank(f, 0, 1, UNROLL_MAX_RANK));
  f->out[0] = *in(f, 0);
  return UNROLL_OK;
}

static unroll_status cross_entropy(inference *f, bool gradient) {
  TRY(infer_need_real(f, 0));
  TRY(infer_need_rank(f, 0, 1, UNROLL_MAX_RANK));
  const tensor_spec loss = without_last(in(f, 0), in(f, 0)->dtype), ids = without_last(in(f, 0), UNROLL_I32);
  TRY(infer_need_spec(f, 1, &ids, false));
  if (gradient)
    TRY(infer_need_spec(f, 2, &loss, false));
  f->out[0] = gradient ? *in(f, 0) : loss;
  return UNROLL_OK;
}

static unroll_status embedding(inference *f) {
  TRY(infer_need_real(f, 0));
  TRY(infer_need_rank(f, 0, 2, 2));
  TRY(infer_need_dtype(f, 1, UNROLL_I32));
  TRY(infer_need_rank(f, 1, 0, UNROLL_MAX_RANK - 1));
  tensor_spec y = *in(f, 1);
  y.dtype = in(f, 0)->dtype;
  y.rank++;
  f->out[0] = with_last(&y, in(f, 0)->shape[1]);
  return UNROLL_OK;
}

/* The number of rows, which no input tells, stands in out[0] on entry. */
static unroll_status embedding_grad(inference *f) {
  TRY(infer_need_dtype(f, 0, UNROLL_I32));
  const tensor_spec *ids = in(f, 0), *dy = in(f, 1);
  if (!dy || !is_real(dy))
    return fail(f->err, UNROLL_E_DTYPE, "input 1 is %s, expected f32 or f64", describe(f, 1, 0));
  tensor_spec want = without_last(dy, UNROLL_I32);
  TRY(infer_need_spec(f, 0, &want, false));
  const int64_t size[2] = {f->out[0].shape[0], dy->shape[ids->rank]};
  if (size[0] < 1)
    return fail(f->err, UNROLL_E_SHAPE, "a table of %" PRId64 " rows, expected at least 1", size[0]);
  f->out[0] = graph_make_spec(dy->dtype, 2, size);
  return UNROLL_OK;
}

/* x [..,N] and ids i32 [..,M], or ids and dy [..,M]: their last axes are static, those in front the same. */
static unroll_status rows_of_ids(inference *f, uint32_t x, uint32_t ids) {
  TRY(infer_need_real(f, x));
  TRY(infer_need_rank(f, x, 1, UNROLL_MAX_RANK));
  TRY(infer_need_dtype(f, ids, UNROLL_I32));
  const tensor_spec *s = in(f, x), *i = in(f, ids);
  TRY(infer_need_rank(f, ids, s->rank, s->rank));
  TRY(infer_need_static_axis(f, x, s->rank - 1));
  TRY(infer_need_static_axis(f, ids, s->rank - 1));
  for (int k = 0; k + 1 < s->rank; k++)
    if (!same_extent(s, k, i, k))
      return fail(f->err, UNROLL_E_SHAPE, "%s and %s differ on axis %d", describe(f, x, 0), describe(f, ids, 1), k);
  return UNROLL_OK;
}

static unroll_status gather(inference *f) {
  TRY(rows_of_ids(f, 0, 1));
  f->out[0] = with_last(in(f, 0), in(f, 1)->shape[in(f, 1)->rank - 1]);
  return UNROLL_OK;
}

/* The size of a row, which no input tells, stands in out[0] on entry. */
static unroll_status gather_grad(inference *f) {
  TRY(rows_of_ids(f, 1, 0));
  const tensor_spec *dy = in(f, 1);
  const tensor_spec ids = with_dtype(dy, UNROLL_I32);
  TRY(infer_need_spec(f, 0, &ids, false));
  const int64_t n = f->out[0].shape[dy->rank - 1];
  if (n < 1)
    return fail(f->err, UNROLL_E_SHAPE, "rows of %" PRId64 " elements, expected at least 1", n);
  f->out[0] = with_last(dy, n);
  return UNROLL_OK;
}

static unroll_status top_k(inference *f) {
  TRY(infer_need_real(f, 0));
  TRY(infer_need_rank(f, 0, 1, UNROLL_MAX_RANK));
  const tensor_spec *x = in(f, 0);
  TRY(infer_need_static_axis(f, 0, x->rank - 1));
  const int64_t k = f->attr->top_k.k, n = x->shape[x->rank - 1];
  if (k < 1 || k > n)
    return fail(f->err, UNROLL_E_RANGE, "k is %" PRId64 ", expected 1 to %" PRId64 ", the last axis of %s", k, n,
                describe(f, 0, 0));
  f->out[0] = with_last(x, k);
  f->out[1] = with_dtype(&f->out[0], UNROLL_I32);
  return UNROLL_OK;
}

/* The result's shape stands in out[0] on entry. */
static unroll_status random_(inference *f) {
  const unroll_random_attr *r = &f->attr->random;
  if (r->kind < 0 || r->kind >= UNROLL_RANDOM_COUNT)
    return fail(f->err, UNROLL_E_INVALID,
                "%d is no distribution, expected UNROLL_RANDOM_UNIFORM or UNROLL_RANDOM_NORMAL", r->kind);
  if (!is_real(&f->out[0]))
    return fail(f->err, UNROLL_E_DTYPE, "random numbers of %s, expected f32 or f64",
                unroll_dtype_name(f->out[0].dtype));
  if (f->out[0].rank < r->time_axis + 2)
    return fail(f->err, UNROLL_E_SHAPE, "rank %d, expected at least %d: %s", f->out[0].rank, r->time_axis + 2,
                r->time_axis == 0 ? "[T,B,..]" : "one step [B,..]");
  return UNROLL_OK;
}

/* ---- shapes ---- */

static unroll_status slice(inference *f, int64_t size) {
  const unroll_slice_attr *s = &f->attr->slice;
  TRY(infer_need_axis(f, s->axis));
  TRY(infer_need_static_axis(f, 0, s->axis));
  const int64_t extent = in(f, 0)->shape[s->axis];
  if (s->start < 0 || size < 1 || s->start > extent - size)
    return fail(f->err, UNROLL_E_SHAPE, "%" PRId64 " from %" PRId64 " on along axis %d of %s", size, s->start, s->axis,
                describe(f, 0, 0));
  f->out[0] = *in(f, 0);
  f->out[0].shape[s->axis] = size;
  return UNROLL_OK;
}

static unroll_status pad(inference *f) {
  const unroll_pad_attr *p = &f->attr->pad;
  TRY(infer_need_axis(f, p->axis));
  TRY(infer_need_static_axis(f, 0, p->axis));
  f->out[0] = *in(f, 0);
  if (p->before < 0 || p->after < 0 || p->before > INT32_MAX || p->after > INT32_MAX)
    return fail(f->err, UNROLL_E_RANGE, "%" PRId64 " before and %" PRId64 " after, expected 0 to 2^31-1", p->before,
                p->after);
  f->out[0].shape[p->axis] += p->before + p->after;
  return UNROLL_OK;
}

static unroll_status concat(inference *f) {
  const int32_t axis = f->attr->axis.axis;
  TRY(infer_need_axis(f, axis));
  tensor_spec y = *in(f, 0);
  for (uint32_t i = 0; i < f->n_in; i++) {
    const tensor_spec *x = in(f, i);
    if (!x)
      return fail(f->err, UNROLL_E_INVALID, "input %u is missing", i);
    bool fits = x->rank == y.rank && x->dtype == y.dtype;
    for (int k = 0; fits && k < y.rank; k++)
      fits = k == axis || same_extent(x, k, &y, k);
    if (!fits)
      return fail(f->err, UNROLL_E_SHAPE, "%s and %s do not fit along axis %d", describe(f, 0, 0), describe(f, i, 1),
                  axis);
    TRY(infer_need_static_axis(f, i, axis));
    y.shape[axis] += i ? x->shape[axis] : 0;
  }
  f->out[0] = y;
  return UNROLL_OK;
}

static unroll_status transpose(inference *f) {
  const tensor_spec *x = in(f, 0);
  if (!x)
    return fail(f->err, UNROLL_E_INVALID, "input 0 is missing");
  uint32_t seen = 0;
  tensor_spec y = *x;
  for (int i = 0; i < x->rank; i++) {
    const int32_t p = f->attr->transpose.perm[i];
    if (p < 0 || p >= x->rank || seen >> p & 1u)
      return fail(f->err, UNROLL_E_INVALID, "perm[%d] = %d of %s: not a permutation", i, p, describe(f, 0, 0));
    seen |= 1u << p;
    y.shape[i] = x->shape[p];
    y.dim[i] = x->dim[p];
  }
  f->out[0] = y;
  return UNROLL_OK;
}

static int64_t elements(const tensor_spec *s) {
  int64_t n = 1;
  for (int i = 0; i < s->rank; i++)
    n *= s->shape[i];
  return n;
}

/* The target stands in out[0] on entry. */
static unroll_status reshape(inference *f) {
  const tensor_spec *x = in(f, 0), *y = &f->out[0];
  if (!x)
    return fail(f->err, UNROLL_E_INVALID, "input 0 is missing");
  const int32_t from = x->rank ? x->dim[0] : -1, to = y->rank ? y->dim[0] : -1;
  /* What stands on axis 0 beside the run-time size is a whole number of its elements. */
  const bool breaks = to >= 0 && y->shape[0] % graph_root_of(f->graph)->dims[to].max != 0;
  if (elements(x) != elements(y) || x->dtype != y->dtype || from != to || breaks)
    return fail(f->err, UNROLL_E_SHAPE, "%s cannot be seen as %" PRId64 " elements%s", describe(f, 0, 0), elements(y),
                from != to || breaks ? ": a run-time size stays on axis 0" : "");
  return UNROLL_OK;
}

static unroll_status length_mask(inference *f) {
  const tensor_spec *x = in(f, 0);
  const unroll_length_mask_attr *m = &f->attr->length_mask;
  if (!x || (m->time_axis != 0 && m->time_axis != -1))
    return fail(f->err, UNROLL_E_INVALID, "time_axis is %d, expected 0 or -1, and an input", m->time_axis);
  TRY(infer_need_spec(f, 1, x, true));
  TRY(infer_lengths_of(f, 2, x, m->time_axis + 1));
  f->out[0] = *x;
  return UNROLL_OK;
}

static unroll_status optimizer(inference *f) {
  const unroll_optimizer_attr *o = &f->attr->optimizer;
  TRY(infer_need_real(f, 0));
  const tensor_spec *p = in(f, 0);
  const tensor_spec scalar = graph_make_spec(p->dtype, 0, NULL), count = graph_make_spec(UNROLL_I32, 0, NULL);
  if (o->kind < 0 || o->kind >= UNROLL_OPTIMIZER_COUNT)
    return fail(f->err, UNROLL_E_INVALID, "%d is no optimizer", o->kind);
  TRY(infer_need_spec(f, 1, p, false));
  TRY(infer_need_spec(f, 2, &scalar, false));
  TRY(infer_need_spec(f, 3, &count, false));
  TRY(infer_need_spec(f, 4, &scalar, true));
  const bool adam = o->kind == UNROLL_ADAM || o->kind == UNROLL_ADAMW;
  TRY(infer_need_spec(f, 5, p, o->kind == UNROLL_SGD && o->beta1 == 0));
  TRY(infer_need_spec(f, 6, p, !adam));
  for (uint32_t i = 0; i < f->n_out; i++)
    f->out[i] = *p;
  return UNROLL_OK;
}

/* ---- all of them ---- */

unroll_status infer_node(const unroll_graph *graph, uint32_t op, const op_attr *attr, const uint32_t *inputs,
                         uint32_t n_in, tensor_spec *out, uint32_t n_out, unroll_error *err) {
  inference f = {.graph = graph, .attr = attr, .in = inputs, .n_in = n_in, .n_out = n_out, .out = out, .err = err};
  static const uint8_t counts[UNROLL_OP_END][2] = {
      /* of inputs at most, of outputs; 0: many, or checked there */
      [UNROLL_OP_MATMUL] = {3, 1},     [UNROLL_OP_REDUCE] = {2, 1},          [UNROLL_OP_OPTIMIZER] = {7, 3},
      [UNROLL_OP_TOP_K] = {1, 2},      [UNROLL_OP_LINEAR_SCAN] = {4, 2},     [UNROLL_OP_LINEAR_SCAN_GRAD] = {6, 3},
      [UNROLL_OP_LAYER_NORM] = {3, 1}, [UNROLL_OP_LAYER_NORM_GRAD] = {5, 3}, [UNROLL_OP_LAYER] = {11, 7},
      [UNROLL_OP_LAYER_GRAD] = {20, 7}};
  if (op < UNROLL_OP_END && counts[op][0] && (n_in > counts[op][0] || n_out > counts[op][1]))
    return fail(err, UNROLL_E_INVALID, "%u inputs and %u outputs, expected at most %u and %u", n_in, n_out,
                counts[op][0], counts[op][1]);
  switch (op) {
  case UNROLL_OP_MATMUL: TRY(matmul(&f)); break;
  case UNROLL_OP_UNARY: TRY(unary(&f)); break;
  case UNROLL_OP_BINARY: TRY(binary(&f)); break;
  case UNROLL_OP_REDUCE: TRY(reduce(&f)); break;
  case UNROLL_OP_SOFTMAX:
  case UNROLL_OP_LOG_SOFTMAX: TRY(rows(&f)); break;
  case UNROLL_OP_CROSS_ENTROPY: TRY(cross_entropy(&f, false)); break;
  case UNROLL_OP_CROSS_ENTROPY_GRAD: TRY(cross_entropy(&f, true)); break;
  case UNROLL_OP_EMBEDDING: TRY(embedding(&f)); break;
  case UNROLL_OP_EMBEDDING_GRAD: TRY(embedding_grad(&f)); break;
  case UNROLL_OP_SLICE:
    TRY(slice(&f, out[0].shape[attr->slice.axis < 0 ? 0 : attr->slice.axis % UNROLL_MAX_RANK]));
    break;
  case UNROLL_OP_PAD: TRY(pad(&f)); break;
  case UNROLL_OP_CONCAT: TRY(concat(&f)); break;
  case UNROLL_OP_TRANSPOSE: TRY(transpose(&f)); break;
  case UNROLL_OP_RESHAPE: TRY(reshape(&f)); break;
  case UNROLL_OP_REVERSE:
    TRY(infer_need_rank(&f, 0, 2, UNROLL_MAX_RANK));
    TRY(infer_lengths_of(&f, 1, in(&f, 0), 1));
    out[0] = *in(&f, 0);
    break;
  case UNROLL_OP_SELECT: TRY(select_(&f)); break;
  case UNROLL_OP_CAST: {
    const int32_t to = out[0].dtype;
    TRY(infer_need_rank(&f, 0, 0, UNROLL_MAX_RANK));
    out[0] = *in(&f, 0);
    out[0].dtype = to;
    break;
  }
  case UNROLL_OP_CONSTANT: break; /* out[0] is what it shall be */
  case UNROLL_OP_DROPOUT:
    TRY(infer_need_real(&f, 0));
    TRY(infer_need_rank(&f, 0, attr->dropout.time_axis + 2, UNROLL_MAX_RANK));
    if (!(attr->dropout.p >= 0 && attr->dropout.p < 1))
      return fail(err, UNROLL_E_RANGE, "p is %g, expected 0 <= p < 1", attr->dropout.p);
    out[0] = *in(&f, 0);
    break;
  case UNROLL_OP_ARGMAX:
    TRY(infer_need_real(&f, 0));
    TRY(infer_need_rank(&f, 0, 1, UNROLL_MAX_RANK));
    out[0] = without_last(in(&f, 0), UNROLL_I32);
    break;
  case UNROLL_OP_CATEGORICAL:
    TRY(infer_need_real(&f, 0));
    TRY(infer_need_rank(&f, 0, 2, 2));
    if (attr->categorical.top_k < 0)
      return fail(err, UNROLL_E_RANGE, "top_k is %" PRId64 ", expected 0 (all) or more", attr->categorical.top_k);
    if (!(attr->categorical.top_p >= 0 && attr->categorical.top_p <= 1))
      return fail(err, UNROLL_E_RANGE, "top_p is %g, expected 0 (all) to 1", attr->categorical.top_p);
    out[0] = without_last(in(&f, 0), UNROLL_I32);
    break;
  case UNROLL_OP_RANDOM: TRY(random_(&f)); break;
  case UNROLL_OP_GATHER: TRY(gather(&f)); break;
  case UNROLL_OP_GATHER_GRAD: TRY(gather_grad(&f)); break;
  case UNROLL_OP_TOP_K: TRY(top_k(&f)); break;
  case UNROLL_OP_LINEAR_SCAN: TRY(infer_linear_scan(&f, false)); break;
  case UNROLL_OP_LINEAR_SCAN_GRAD: TRY(infer_linear_scan(&f, true)); break;
  case UNROLL_OP_LAYER_NORM: TRY(infer_layer_norm(&f, false)); break;
  case UNROLL_OP_LAYER_NORM_GRAD: TRY(infer_layer_norm(&f, true)); break;
  case UNROLL_OP_LENGTH_MASK: TRY(length_mask(&f)); break;
  case UNROLL_OP_OPTIMIZER: TRY(optimizer(&f)); break;
  case UNROLL_OP_LSTM_GATES:
  case UNROLL_OP_LSTM_GATES_GRAD:
  case UNROLL_OP_GRU_AFTER_GATES:
  case UNROLL_OP_GRU_AFTER_GATES_GRAD:
  case UNROLL_OP_GRU_RESET:
  case UNROLL_OP_GRU_RESET_GRAD:
  case UNROLL_OP_GRU_UPDATE:
  case UNROLL_OP_GRU_UPDATE_GRAD: TRY(infer_gates(&f, op)); break;
  case UNROLL_OP_LAYER: TRY(infer_layer(&f)); break;
  case UNROLL_OP_LAYER_GRAD: TRY(infer_layer_grad(&f)); break;
  case UNROLL_OP_SCAN: break; /* scan.c knows the results */
  default: return fail(err, UNROLL_E_INVALID, "%u is no op", op);
  }
  for (uint32_t i = 0; i < n_out; i++) {
    int64_t bytes = 8;
    for (int k = 0; k < out[i].rank; k++) {
      if (k > 0 && out[i].dim[k] >= 0)
        return fail(err, UNROLL_E_UNSUPPORTED, "axis %d of the result would have a run-time size, only axis 0 can", k);
      if (!extent_mul(bytes, out[i].shape[k], &bytes))
        return fail(err, UNROLL_E_SHAPE, "the size of the result does not fit into 64 bits");
    }
  }
  return UNROLL_OK;
}
