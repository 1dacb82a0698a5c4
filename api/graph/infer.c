/* SPDX-License-Identifier: Apache-2.0 */
/* infer.c: what comes out of a node, and whether what goes in fits. plugin.h says the meaning of every op. */
#include "graph/graph_private.h"
#include <inttypes.h>
#include <math.h>
#include <string.h>

typedef struct inference {
  const unroll_graph *graph;
  const op_attr *attr;
  const uint32_t *in;
  uint32_t n_in, n_out;
  tensor_spec *out;
  unroll_error *err;
  char text[3][GRAPH_DESCRIBE];
} inference;

static const tensor_spec *in(const inference *f, uint32_t i) {
  return i < f->n_in && f->in[i] != GRAPH_NONE ? &f->graph->tensors[f->in[i]].spec : NULL;
}
static const char *describe(inference *f, uint32_t i, int buffer) {
  return i < f->n_in ? graph_describe(f->graph, f->in[i], f->text[buffer]) : "(none)";
}
static bool is_real(const tensor_spec *s) { return s->dtype == UNROLL_F32 || s->dtype == UNROLL_F64; }
static bool is_number(const tensor_spec *s) { return is_real(s) || s->dtype == UNROLL_I32 || s->dtype == UNROLL_I64; }
static bool same_extent(const tensor_spec *a, int i, const tensor_spec *b, int j) {
  return a->shape[i] == b->shape[j] && a->dim[i] == b->dim[j];
}
static bool has_extent(const tensor_spec *a, int i, int64_t n) { return a->shape[i] == n && a->dim[i] < 0; }

static tensor_spec spec1(int32_t dtype, int64_t n) { return graph_make_spec(dtype, 1, (int64_t[]){n}); }

/* The shape of s with the last axis replaced. */
static tensor_spec with_last(const tensor_spec *s, int64_t n) {
  tensor_spec r = *s;
  r.shape[r.rank - 1] = n;
  r.dim[r.rank - 1] = -1;
  return r;
}
static tensor_spec with_dtype(const tensor_spec *s, int32_t dtype) {
  tensor_spec r = *s;
  r.dtype = dtype;
  return r;
}
static tensor_spec without_last(const tensor_spec *s, int32_t dtype) {
  tensor_spec r = *s;
  r.rank--;
  r.shape[r.rank] = 1;
  r.dim[r.rank] = -1;
  r.dtype = dtype;
  return r;
}
static tensor_spec prepend_axis_of(const tensor_spec *step, const tensor_spec *sequence) {
  tensor_spec r = graph_make_spec(step->dtype, 0, NULL);
  r.rank = step->rank + 1;
  r.shape[0] = sequence->shape[0];
  r.dim[0] = sequence->dim[0];
  for (int i = 0; i < step->rank; i++)
    r.shape[i + 1] = step->shape[i];
  return r;
}

/* Input i must be there and real; all of them of the dtype of input 0. */
static unroll_status need_real(inference *f, uint32_t i) {
  const tensor_spec *s = in(f, i);
  if (!s)
    return fail(f->err, UNROLL_E_INVALID, "input %u is missing", i);
  if (!is_real(s))
    return fail(f->err, UNROLL_E_DTYPE, "input %u is %s, expected f32 or f64", i, describe(f, i, 0));
  const tensor_spec *first = in(f, 0);
  if (first && is_real(first) && first->dtype != s->dtype)
    return fail(f->err, UNROLL_E_DTYPE, "input 0 is %s and input %u is %s; there is no implicit conversion",
                describe(f, 0, 0), i, describe(f, i, 1));
  return UNROLL_OK;
}
static unroll_status need_rank(inference *f, uint32_t i, int32_t at_least, int32_t at_most) {
  const tensor_spec *s = in(f, i);
  if (!s)
    return fail(f->err, UNROLL_E_INVALID, "input %u is missing", i);
  if (s->rank < at_least || s->rank > at_most)
    return fail(f->err, UNROLL_E_SHAPE, "input %u is %s: rank %d, expected %d%s%.0d", i, describe(f, i, 0), s->rank,
                at_least, at_most > at_least ? " to " : "", at_most > at_least ? at_most : 0);
  return UNROLL_OK;
}
static unroll_status need_dtype(inference *f, uint32_t i, int32_t dtype) {
  const tensor_spec *s = in(f, i);
  if (!s)
    return fail(f->err, UNROLL_E_INVALID, "input %u is missing", i);
  if (s->dtype != dtype)
    return fail(f->err, UNROLL_E_DTYPE, "input %u is %s, expected %s", i, describe(f, i, 0), unroll_dtype_name(dtype));
  return UNROLL_OK;
}
/* Input i has this very shape and dtype; absent is fine when optional. */
static unroll_status need_spec(inference *f, uint32_t i, const tensor_spec *want, bool optional) {
  const tensor_spec *s = in(f, i);
  if (!s && optional)
    return UNROLL_OK;
  if (!s)
    return fail(f->err, UNROLL_E_INVALID, "input %u is missing", i);
  if (!graph_same_shape(s, want) || s->dtype != want->dtype) {
    struct text t;
    text_init(&t, &f->graph->allocator);
    for (int k = 0; k < want->rank; k++)
      text_add(&t, "%s%s%" PRId64, k ? "," : "", want->dim[k] >= 0 ? "up to " : "", want->shape[k]);
    const unroll_status st =
        fail(f->err, s->dtype != want->dtype ? UNROLL_E_DTYPE : UNROLL_E_SHAPE, "input %u is %s, expected %s [%s]", i,
             describe(f, i, 0), unroll_dtype_name(want->dtype), text_peek(&t));
    text_free(&t);
    return st;
  }
  return UNROLL_OK;
}
static unroll_status need_axis(inference *f, int32_t axis) {
  const tensor_spec *s = in(f, 0);
  if (!s)
    return fail(f->err, UNROLL_E_INVALID, "input 0 is missing");
  if (axis < 0 || axis >= s->rank)
    return fail(f->err, UNROLL_E_SHAPE, "axis %d of %s, expected 0 to %d", axis, describe(f, 0, 0), s->rank - 1);
  return UNROLL_OK;
}
static unroll_status need_static_axis(inference *f, uint32_t i, int32_t axis) {
  if (in(f, i)->dim[axis] >= 0)
    return fail(f->err, UNROLL_E_UNSUPPORTED, "axis %d of %s has a run-time size, expected a static one", axis,
                describe(f, i, 0));
  return UNROLL_OK;
}

/* ---- dense ---- */

static unroll_status matmul(inference *f) {
  const unroll_matmul_attr *t = &f->attr->matmul;
  TRY(need_real(f, 0));
  TRY(need_real(f, 1));
  TRY(need_rank(f, 1, 2, 3));
  const tensor_spec *a = in(f, 0), *b = in(f, 1), *c = in(f, 2);
  const bool batched = b->rank == 3;
  TRY(need_rank(f, 0, batched ? 3 : 2, batched ? 3 : t->trans_a ? 2 : UNROLL_MAX_RANK));
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
    TRY(need_real(f, 2));
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
  TRY(need_dtype(f, 0, UNROLL_BOOL));
  if (!a || !b)
    return fail(f->err, UNROLL_E_INVALID, "an operand is missing");
  TRY(need_dtype(f, 2, a->dtype));
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
  TRY(need_spec(f, 1, &y, true));
  f->out[0] = y;
  return UNROLL_OK;
}

static unroll_status rows(inference *f) { /* softmax, log_softmax */
  TRY(need_real(f, 0));
  TRY(need_rank(f, 0, 1, UNROLL_MAX_RANK));
  f->out[0] = *in(f, 0);
  return UNROLL_OK;
}

static unroll_status cross_entropy(inference *f, bool gradient) {
  TRY(need_real(f, 0));
  TRY(need_rank(f, 0, 1, UNROLL_MAX_RANK));
  const tensor_spec loss = without_last(in(f, 0), in(f, 0)->dtype), ids = without_last(in(f, 0), UNROLL_I32);
  TRY(need_spec(f, 1, &ids, false));
  if (gradient)
    TRY(need_spec(f, 2, &loss, false));
  f->out[0] = gradient ? *in(f, 0) : loss;
  return UNROLL_OK;
}

static unroll_status embedding(inference *f) {
  TRY(need_real(f, 0));
  TRY(need_rank(f, 0, 2, 2));
  TRY(need_dtype(f, 1, UNROLL_I32));
  TRY(need_rank(f, 1, 0, UNROLL_MAX_RANK - 1));
  tensor_spec y = *in(f, 1);
  y.dtype = in(f, 0)->dtype;
  y.rank++;
  f->out[0] = with_last(&y, in(f, 0)->shape[1]);
  return UNROLL_OK;
}

/* The number of rows, which no input tells, stands in out[0] on entry. */
static unroll_status embedding_grad(inference *f) {
  TRY(need_dtype(f, 0, UNROLL_I32));
  const tensor_spec *ids = in(f, 0), *dy = in(f, 1);
  if (!dy || !is_real(dy))
    return fail(f->err, UNROLL_E_DTYPE, "input 1 is %s, expected f32 or f64", describe(f, 1, 0));
  tensor_spec want = without_last(dy, UNROLL_I32);
  TRY(need_spec(f, 0, &want, false));
  const int64_t size[2] = {f->out[0].shape[0], dy->shape[ids->rank]};
  if (size[0] < 1)
    return fail(f->err, UNROLL_E_SHAPE, "a table of %" PRId64 " rows, expected at least 1", size[0]);
  f->out[0] = graph_make_spec(dy->dtype, 2, size);
  return UNROLL_OK;
}

/* x [..,N] and ids i32 [..,M], or ids and dy [..,M]: their last axes are static, those in front the same. */
static unroll_status rows_of_ids(inference *f, uint32_t x, uint32_t ids) {
  TRY(need_real(f, x));
  TRY(need_rank(f, x, 1, UNROLL_MAX_RANK));
  TRY(need_dtype(f, ids, UNROLL_I32));
  const tensor_spec *s = in(f, x), *i = in(f, ids);
  TRY(need_rank(f, ids, s->rank, s->rank));
  TRY(need_static_axis(f, x, s->rank - 1));
  TRY(need_static_axis(f, ids, s->rank - 1));
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
  TRY(need_spec(f, 0, &ids, false));
  const int64_t n = f->out[0].shape[dy->rank - 1];
  if (n < 1)
    return fail(f->err, UNROLL_E_SHAPE, "rows of %" PRId64 " elements, expected at least 1", n);
  f->out[0] = with_last(dy, n);
  return UNROLL_OK;
}

static unroll_status top_k(inference *f) {
  TRY(need_real(f, 0));
  TRY(need_rank(f, 0, 1, UNROLL_MAX_RANK));
  const tensor_spec *x = in(f, 0);
  TRY(need_static_axis(f, 0, x->rank - 1));
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
  TRY(need_axis(f, s->axis));
  TRY(need_static_axis(f, 0, s->axis));
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
  TRY(need_axis(f, p->axis));
  TRY(need_static_axis(f, 0, p->axis));
  f->out[0] = *in(f, 0);
  if (p->before < 0 || p->after < 0 || p->before > INT32_MAX || p->after > INT32_MAX)
    return fail(f->err, UNROLL_E_RANGE, "%" PRId64 " before and %" PRId64 " after, expected 0 to 2^31-1", p->before,
                p->after);
  f->out[0].shape[p->axis] += p->before + p->after;
  return UNROLL_OK;
}

static unroll_status concat(inference *f) {
  const int32_t axis = f->attr->axis.axis;
  TRY(need_axis(f, axis));
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
    TRY(need_static_axis(f, i, axis));
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

static unroll_status lengths_of(inference *f, uint32_t i, const tensor_spec *x, int batch_axis) {
  if (x->rank <= batch_axis)
    return fail(f->err, UNROLL_E_SHAPE, "%s has no batch on axis %d", describe(f, 0, 0), batch_axis);
  const tensor_spec want = spec1(UNROLL_I32, x->shape[batch_axis]);
  return need_spec(f, i, &want, false);
}

static unroll_status length_mask(inference *f) {
  const tensor_spec *x = in(f, 0);
  const unroll_length_mask_attr *m = &f->attr->length_mask;
  if (!x || (m->time_axis != 0 && m->time_axis != -1))
    return fail(f->err, UNROLL_E_INVALID, "time_axis is %d, expected 0 or -1, and an input", m->time_axis);
  TRY(need_spec(f, 1, x, true));
  TRY(lengths_of(f, 2, x, m->time_axis + 1));
  f->out[0] = *x;
  return UNROLL_OK;
}

/* One step of a sequence. */
static tensor_spec step_of(const tensor_spec *s) { return graph_make_spec(s->dtype, s->rank - 1, s->shape + 1); }

static unroll_status scan_direction(inference *f, int32_t direction) {
  if (direction != UNROLL_FORWARD && direction != UNROLL_REVERSE)
    return fail(f->err, UNROLL_E_INVALID, "direction %d, expected UNROLL_FORWARD or UNROLL_REVERSE", direction);
  return UNROLL_OK;
}

static unroll_status linear_scan(inference *f, bool gradient) {
  TRY(scan_direction(f, f->attr->linear_scan.direction));
  TRY(need_real(f, 0));
  TRY(need_rank(f, 0, 2, UNROLL_MAX_RANK));
  const tensor_spec *a = in(f, 0), state = step_of(a);
  const uint32_t lengths = gradient ? 5 : 3;
  TRY(need_spec(f, 1, a, false)); /* b or y */
  TRY(need_spec(f, 2, &state, true));
  if (gradient) {
    TRY(need_spec(f, 3, a, true));
    TRY(need_spec(f, 4, &state, true));
  }
  if (in(f, lengths))
    TRY(lengths_of(f, lengths, a, 1));
  f->out[0] = *a;
  f->out[1] = gradient ? *a : state;
  if (gradient)
    f->out[2] = state;
  return UNROLL_OK;
}

static unroll_status norm_attr(inference *f) {
  const unroll_layer_norm_attr *a = &f->attr->layer_norm;
  if (!(a->epsilon >= 0) || !isfinite(a->epsilon))
    return fail(f->err, UNROLL_E_RANGE, "epsilon is %g, expected a finite number from 0 on", a->epsilon);
  return UNROLL_OK;
}

/* first: of the inputs that sums start from, as wide as a row of like. */
static unroll_status norm_sums(inference *f, uint32_t first, const tensor_spec *row) {
  const unroll_layer_norm_attr *a = &f->attr->layer_norm;
  if (a->block < 0 || (a->block == 0 && (in(f, first) || in(f, first + 1))))
    return fail(f->err, UNROLL_E_INVALID, "blocks of %" PRId64 " indices%s", a->block,
                a->block < 0 ? "" : ", and sums that go on");
  TRY(need_spec(f, first, row, true));
  return need_spec(f, first + 1, row, true);
}

static unroll_status layer_norm(inference *f, bool gradient) {
  TRY(norm_attr(f));
  TRY(need_real(f, 0));
  TRY(need_rank(f, 0, 1, UNROLL_MAX_RANK));
  const tensor_spec *x = in(f, 0), row = spec1(x->dtype, x->shape[x->rank - 1]);
  if (x->dim[x->rank - 1] >= 0)
    return fail(f->err, UNROLL_E_UNSUPPORTED, "%s: a row of run-time size", describe(f, 0, 0));
  TRY(need_spec(f, 1, &row, false));
  f->out[0] = *x;
  if (!gradient)
    return need_spec(f, 2, in(f, 2) && in(f, 2)->rank == 1 ? &row : x, true);
  TRY(need_spec(f, 2, x, false));
  TRY(norm_sums(f, 3, &row));
  f->out[1] = f->out[2] = row;
  return UNROLL_OK;
}

static unroll_status optimizer(inference *f) {
  const unroll_optimizer_attr *o = &f->attr->optimizer;
  TRY(need_real(f, 0));
  const tensor_spec *p = in(f, 0);
  const tensor_spec scalar = graph_make_spec(p->dtype, 0, NULL), count = graph_make_spec(UNROLL_I32, 0, NULL);
  if (o->kind < 0 || o->kind >= UNROLL_OPTIMIZER_COUNT)
    return fail(f->err, UNROLL_E_INVALID, "%d is no optimizer", o->kind);
  TRY(need_spec(f, 1, p, false));
  TRY(need_spec(f, 2, &scalar, false));
  TRY(need_spec(f, 3, &count, false));
  TRY(need_spec(f, 4, &scalar, true));
  const bool adam = o->kind == UNROLL_ADAM || o->kind == UNROLL_ADAMW;
  TRY(need_spec(f, 5, p, o->kind == UNROLL_SGD && o->beta1 == 0));
  TRY(need_spec(f, 6, p, !adam));
  for (uint32_t i = 0; i < f->n_out; i++)
    f->out[i] = *p;
  return UNROLL_OK;
}

/* ---- recurrent ---- */

/* Of an lstm's gates with the norm of c: gain and shift behind the other inputs, and their gradients. */
static unroll_status norm_gates(inference *f, uint32_t n_in, uint32_t n_out, int64_t H) {
  const bool gradient = f->n_in > n_in + 2;
  const tensor_spec row = spec1(in(f, 1)->dtype, H);
  if (f->n_out != n_out + (gradient ? 2 : 0))
    return fail(f->err, UNROLL_E_INVALID, "%u outputs, expected %u", f->n_out, n_out + (gradient ? 2 : 0));
  TRY(norm_attr(f));
  TRY(need_spec(f, n_in, &row, false));
  TRY(need_spec(f, n_in + 1, &row, false));
  if (!gradient)
    return UNROLL_OK;
  f->out[n_out] = f->out[n_out + 1] = row;
  return norm_sums(f, n_in + 2, &row);
}

/* H from a tensor [B,H]; its B and dtype are what the other inputs are held against. */
static unroll_status gates(inference *f, uint32_t op) {
  static const struct {
    uint8_t h_input, n_in, in[6], optional, n_out, out[3]; /* blocks of H in each input and output */
  } table[] = {
      [UNROLL_OP_LSTM_GATES] = {1, 2, {4, 1}, 0, 3, {1, 1, 4}},
      [UNROLL_OP_LSTM_GATES_GRAD] = {1, 4, {4, 1, 1, 1}, 0xC, 2, {4, 1}},
      [UNROLL_OP_GRU_AFTER_GATES] = {2, 3, {3, 3, 1}, 0, 2, {1, 4}},
      [UNROLL_OP_GRU_AFTER_GATES_GRAD] = {1, 3, {4, 1, 1}, 0, 3, {3, 3, 1}},
      [UNROLL_OP_GRU_RESET] = {1, 2, {2, 1}, 0, 2, {2, 1}},
      [UNROLL_OP_GRU_RESET_GRAD] = {1, 4, {2, 1, 2, 1}, 0xC, 2, {2, 1}},
      [UNROLL_OP_GRU_UPDATE] = {2, 3, {1, 2, 1}, 0, 2, {1, 1}},
      [UNROLL_OP_GRU_UPDATE_GRAD] = {2, 4, {2, 1, 1, 1}, 0, 3, {1, 2, 1}},
  };
  const uint32_t h_input = table[op].h_input;
  TRY(need_real(f, h_input));
  TRY(need_rank(f, h_input, 2, UNROLL_MAX_RANK));
  const tensor_spec *s = in(f, h_input);
  const int64_t H = s->shape[s->rank - 1];
  const bool normed = (op == UNROLL_OP_LSTM_GATES && f->n_in == 4) || (op == UNROLL_OP_LSTM_GATES_GRAD && f->n_in == 8);
  const uint32_t n_in = table[op].n_in, n_out = table[op].n_out;
  if (normed)
    TRY(norm_gates(f, n_in, n_out, H));
  else if (f->n_in != n_in || f->n_out != n_out)
    return fail(f->err, UNROLL_E_INVALID, "%u inputs and %u outputs, expected %u and %u", f->n_in, f->n_out,
                n_in, n_out);
  for (uint32_t i = 0; i < n_in; i++) {
    const tensor_spec want = with_last(s, H * table[op].in[i]);
    TRY(need_spec(f, i, &want, table[op].optional >> i & 1u));
  }
  for (uint32_t i = 0; i < n_out; i++)
    f->out[i] = with_last(s, H * table[op].out[i]);
  return UNROLL_OK;
}

static const char *cell_name(int32_t cell) {
  switch (cell) {
#define CASE(code, value, text) \
  case code: return text;
    UNROLL_CELLS(CASE)
#undef CASE
  default: return "?";
  }
}

/* What layer and layer_grad have in common: weights against x. wx is the index of W_x, b_n of the inner bias. */
static unroll_status layer_weights(inference *f, int64_t *H, const tensor_spec **x) {
  const unroll_layer_attr *l = &f->attr->layer;
  if (l->cell <= UNROLL_CELL_NONE || l->cell >= UNROLL_CELL_COUNT)
    return fail(f->err, UNROLL_E_INVALID, "%d is no standard cell", l->cell);
  TRY(scan_direction(f, l->direction));
  if (l->cell == UNROLL_CELL_RNN && l->activation != UNROLL_TANH && l->activation != UNROLL_RELU &&
      l->activation != UNROLL_SIGMOID)
    return fail(f->err, UNROLL_E_INVALID,
                "activation %d of an rnn, expected UNROLL_TANH, UNROLL_RELU or UNROLL_SIGMOID", l->activation);
  TRY(need_real(f, 0));
  TRY(need_rank(f, 0, 3, 3));
  TRY(need_real(f, 2));
  TRY(need_rank(f, 2, 2, 2));
  *x = in(f, 0);
  *H = in(f, 2)->shape[1];
  const int64_t G = layer_gates(l->cell), I = (*x)->shape[2];
  if (in(f, 2)->shape[0] != G * *H)
    return fail(f->err, UNROLL_E_SHAPE,
                "W_h is %s, expected %" PRId64 " rows: %" PRId64 " gates of a %s times %" PRId64 " units",
                describe(f, 2, 0), G * *H, G, cell_name(l->cell), *H);
  const tensor_spec wx = graph_make_spec((*x)->dtype, 2, (int64_t[]){G * *H, I}), b = spec1((*x)->dtype, G * *H),
                    bn = spec1((*x)->dtype, *H);
  TRY(need_spec(f, 1, &wx, false));
  TRY(need_spec(f, 3, &b, false));
  if (l->cell != UNROLL_CELL_GRU_AFTER && in(f, 4))
    return fail(f->err, UNROLL_E_INVALID, "input 4, the inner bias, is %s; only a gru_after has one",
                describe(f, 4, 0));
  return need_spec(f, 4, &bn, l->cell != UNROLL_CELL_GRU_AFTER);
}

/* h_mask, keep_h and keep_c, inputs first and on. */
static unroll_status layer_masks(inference *f, uint32_t first, const tensor_spec *state, const tensor_spec *y) {
  static const char *const names[] = {"keep_h", "keep_c"};
  TRY(need_spec(f, first, state, true));
  for (uint32_t i = 0; i < 2; i++) {
    const tensor_spec *k = in(f, first + 1 + i);
    if (!k)
      continue;
    if (i == 1 && f->attr->layer.cell != UNROLL_CELL_LSTM)
      return fail(f->err, UNROLL_E_INVALID, "input %u, keep_c, is %s; only an lstm has one", first + 1 + i,
                  describe(f, first + 1 + i, 0));
    if (k->dtype != UNROLL_BOOL && k->dtype != state->dtype)
      return fail(f->err, UNROLL_E_DTYPE, "input %u, %s, is %s, expected bool or %s", first + 1 + i, names[i],
                  describe(f, first + 1 + i, 0), unroll_dtype_name(state->dtype));
    const tensor_spec of_steps = with_dtype(y, k->dtype), once = with_dtype(state, k->dtype);
    TRY(need_spec(f, first + 1 + i, k->rank == state->rank ? &once : &of_steps, false));
  }
  return UNROLL_OK;
}

static unroll_status layer(inference *f) {
  int64_t H;
  const tensor_spec *x;
  TRY(layer_weights(f, &H, &x));
  const int32_t cell = f->attr->layer.cell;
  const tensor_spec state = graph_make_spec(x->dtype, 2, (int64_t[]){x->shape[1], H});
  TRY(need_spec(f, 5, &state, false));
  if (cell != UNROLL_CELL_LSTM && in(f, 6))
    return fail(f->err, UNROLL_E_INVALID, "input 6, c0, is %s; only an lstm has one", describe(f, 6, 0));
  TRY(need_spec(f, 6, &state, cell != UNROLL_CELL_LSTM));
  if (in(f, 7))
    TRY(lengths_of(f, 7, x, 1));
  f->out[0] = prepend_axis_of(&state, x);
  f->out[1] = f->out[2] = state;
  TRY(layer_masks(f, 8, &state, &f->out[0]));
  for (uint32_t i = 0; i < 4; i++)
    f->out[3 + i] = with_last(&f->out[0], H * (layer_saved_blocks(cell, i) ? layer_saved_blocks(cell, i) : 1));
  return UNROLL_OK;
}

static unroll_status layer_grad(inference *f) {
  int64_t H;
  const tensor_spec *x;
  TRY(layer_weights(f, &H, &x));
  const int32_t cell = f->attr->layer.cell;
  const tensor_spec state = graph_make_spec(x->dtype, 2, (int64_t[]){x->shape[1], H}), y = prepend_axis_of(&state, x);
  if (in(f, 5))
    TRY(lengths_of(f, 5, x, 1));
  const bool reserve = in(f, 6) && in(f, 6)->dtype == UNROLL_U8; /* opaque, in place of all saved values */
  for (uint32_t i = 0; !reserve && i < 4; i++) {
    const int64_t blocks = layer_saved_blocks(cell, i);
    const tensor_spec want = with_last(&y, H * (blocks ? blocks : 1));
    TRY(need_spec(f, 6 + i, &want, blocks == 0));
  }
  for (uint32_t i = 7; reserve && i < 10; i++)
    if (in(f, i))
      return fail(f->err, UNROLL_E_INVALID, "input %u is %s, beside a reserve", i, describe(f, i, 0));
  TRY(need_spec(f, 10, &y, true));
  TRY(need_spec(f, 11, &state, true));
  TRY(need_spec(f, 12, &state, true));
  const tensor_spec inner = spec1(x->dtype, H);
  for (uint32_t i = 0; i < 3; i++)
    TRY(need_spec(f, 13 + i, in(f, 1 + i), true));
  TRY(need_spec(f, 16, &inner, true));
  TRY(layer_masks(f, 17, &state, &y));
  f->out[0] = *x;
  for (uint32_t i = 1; i <= 3; i++)
    f->out[i] = *in(f, i);
  f->out[4] = spec1(x->dtype, H);
  f->out[5] = f->out[6] = state;
  return UNROLL_OK;
}

/* ---- all of them ---- */

unroll_status infer_node(const unroll_graph *graph, uint32_t op, const op_attr *attr, const uint32_t *inputs,
                         uint32_t n_in, tensor_spec *out, uint32_t n_out, unroll_error *err) {
  inference f = {.graph = graph, .attr = attr, .in = inputs, .n_in = n_in, .n_out = n_out, .out = out, .err = err};
  static const uint8_t counts[UNROLL_OP_END][2] = {
      /* of inputs at most, of outputs; 0: many, or checked there */
      [UNROLL_OP_MATMUL] = {3, 1}, [UNROLL_OP_REDUCE] = {2, 1},      [UNROLL_OP_OPTIMIZER] = {7, 3},
      [UNROLL_OP_TOP_K] = {1, 2},  [UNROLL_OP_LINEAR_SCAN] = {4, 2}, [UNROLL_OP_LINEAR_SCAN_GRAD] = {6, 3},
      [UNROLL_OP_LAYER_NORM] = {3, 1}, [UNROLL_OP_LAYER_NORM_GRAD] = {5, 3},
      [UNROLL_OP_LAYER] = {11, 7}, [UNROLL_OP_LAYER_GRAD] = {20, 7}};
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
    TRY(need_rank(&f, 0, 2, UNROLL_MAX_RANK));
    TRY(lengths_of(&f, 1, in(&f, 0), 1));
    out[0] = *in(&f, 0);
    break;
  case UNROLL_OP_SELECT: TRY(select_(&f)); break;
  case UNROLL_OP_CAST: {
    const int32_t to = out[0].dtype;
    TRY(need_rank(&f, 0, 0, UNROLL_MAX_RANK));
    out[0] = *in(&f, 0);
    out[0].dtype = to;
    break;
  }
  case UNROLL_OP_CONSTANT: break; /* out[0] is what it shall be */
  case UNROLL_OP_DROPOUT:
    TRY(need_real(&f, 0));
    TRY(need_rank(&f, 0, attr->dropout.time_axis + 2, UNROLL_MAX_RANK));
    if (!(attr->dropout.p >= 0 && attr->dropout.p < 1))
      return fail(err, UNROLL_E_RANGE, "p is %g, expected 0 <= p < 1", attr->dropout.p);
    out[0] = *in(&f, 0);
    break;
  case UNROLL_OP_ARGMAX:
    TRY(need_real(&f, 0));
    TRY(need_rank(&f, 0, 1, UNROLL_MAX_RANK));
    out[0] = without_last(in(&f, 0), UNROLL_I32);
    break;
  case UNROLL_OP_CATEGORICAL:
    TRY(need_real(&f, 0));
    TRY(need_rank(&f, 0, 2, 2));
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
  case UNROLL_OP_LINEAR_SCAN: TRY(linear_scan(&f, false)); break;
  case UNROLL_OP_LINEAR_SCAN_GRAD: TRY(linear_scan(&f, true)); break;
  case UNROLL_OP_LAYER_NORM: TRY(layer_norm(&f, false)); break;
  case UNROLL_OP_LAYER_NORM_GRAD: TRY(layer_norm(&f, true)); break;
  case UNROLL_OP_LENGTH_MASK: TRY(length_mask(&f)); break;
  case UNROLL_OP_OPTIMIZER: TRY(optimizer(&f)); break;
  case UNROLL_OP_LSTM_GATES:
  case UNROLL_OP_LSTM_GATES_GRAD:
  case UNROLL_OP_GRU_AFTER_GATES:
  case UNROLL_OP_GRU_AFTER_GATES_GRAD:
  case UNROLL_OP_GRU_RESET:
  case UNROLL_OP_GRU_RESET_GRAD:
  case UNROLL_OP_GRU_UPDATE:
  case UNROLL_OP_GRU_UPDATE_GRAD: TRY(gates(&f, op)); break;
  case UNROLL_OP_LAYER: TRY(layer(&f)); break;
  case UNROLL_OP_LAYER_GRAD: TRY(layer_grad(&f)); break;
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
