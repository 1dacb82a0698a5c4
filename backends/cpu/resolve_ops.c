/* SPDX-License-Identifier: Apache-2.0 */
/* The ops that are neither elementwise nor gates. */
#include "cpu_ops.h"
#include "resolve.h"

#define CHOOSE(r, dtype, name) cpu_choose(r, dtype, cpu_run_##name##_f32, cpu_run_##name##_f64)

static unroll_status shapes_differ(const cpu_resolver *r, const cpu_tensor *a, const cpu_tensor *b) {
  return cpu_fail(r->err, UNROLL_E_SHAPE, "cpu: %s \"%.60s\": \"%s\" %s does not go with \"%s\" %s", r->op,
                  r->view->name, a->name, cpu_shape_text(&a->shape).text, b->name, cpu_shape_text(&b->shape).text);
}

static unroll_status no_runtime_size(const cpu_resolver *r, const cpu_tensor *t) {
  return cpu_fail(r->err, UNROLL_E_UNSUPPORTED, "cpu: %s \"%.60s\": \"%s\" %s, a run-time size there", r->op,
                  r->view->name, t->name, cpu_shape_text(&t->shape).text);
}

unroll_status cpu_check_matmul(cpu_resolver *r) {
  const cpu_tensor *a = want_in(r, 0), *b = want_in(r, 1), *c = want_in(r, 2), *y = want_out(r, 0);
  const bool ta = r->node->attr.matmul.trans_a != 0, tb = r->node->attr.matmul.trans_b != 0;
  const cpu_shape *as = &a->shape, *bs = &b->shape;
  cpu_shape want;
  TRY(cpu_expect_real(r, a));
  TRY(cpu_expect(r, b, a->dtype, bs));
  TRY(cpu_expect_rank(r, a, 2, UNROLL_MAX_RANK));
  TRY(cpu_expect_rank(r, b, 2, 3));
  if (bs->rank == 3) {
    TRY(cpu_expect_rank(r, a, 3, 3));
    want = *as;
    want.size[1] = as->size[ta ? 2 : 1];
    want.size[2] = bs->size[tb ? 1 : 2];
    if (as->size[0] != bs->size[0] || as->dim != bs->dim || as->size[ta ? 1 : 2] != bs->size[tb ? 2 : 1])
      return shapes_differ(r, a, b);
    r->node->batched = true;
  } else if (ta) {
    TRY(cpu_expect_rank(r, a, 2, 2));
    want = cpu_shape_2(as->size[1], bs->size[tb ? 0 : 1]);
    if (as->size[0] != bs->size[tb ? 1 : 0] || as->dim != (tb ? -1 : bs->dim))
      return shapes_differ(r, a, b);
    if (tb && bs->dim >= 0)
      return no_runtime_size(r, b);
  } else {
    want = cpu_with_last(*as, bs->size[tb ? 0 : 1]);
    if (cpu_last(a) != bs->size[tb ? 1 : 0])
      return shapes_differ(r, a, b);
    if (bs->dim >= 0)
      return no_runtime_size(r, b);
  }
  TRY(cpu_expect(r, y, a->dtype, &want));
  const unroll_matmul_attr *attr = &r->node->attr.matmul;
  if (attr->k_block < 0 || (attr->k_block > 0 && attr->block_order != UNROLL_BLOCKS_FROM_LAST &&
                            attr->block_order != UNROLL_BLOCKS_FROM_FIRST))
    return cpu_bad_attr(r, attr->k_block < 0 ? "k_block" : "block_order",
                        attr->k_block < 0 ? attr->k_block : attr->block_order);
  const cpu_shape row = cpu_shape_1(cpu_last(y));
  TRY(cpu_expect(r, c, a->dtype, c && c->shape.rank == 1 ? &row : &want));
  CHOOSE(r, a->dtype, matmul);
  return UNROLL_OK;
}

unroll_status cpu_check_reduce(cpu_resolver *r) {
  const cpu_tensor *x = want_in(r, 0), *y = want_out(r, 0);
  const unroll_reduce_attr *attr = &r->node->attr.reduce;
  cpu_shape want = {.rank = 0, .dim = -1};
  if (attr->kind < 0 || attr->kind >= UNROLL_REDUCTION_COUNT)
    return cpu_fail(r->err, UNROLL_E_UNSUPPORTED, "cpu: reduce \"%.60s\": kind %d", r->view->name, attr->kind);
  if (attr->axes >> x->shape.rank)
    return cpu_bad_attr(r, "mask of axes", attr->axes);
  for (int32_t a = 0; a < x->shape.rank; a++) {
    const bool reduced = attr->axes >> a & 1;
    if (a == 0 && !reduced)
      want.dim = x->shape.dim;
    if (!reduced || attr->keep_dims)
      want.size[want.rank++] = reduced ? 1 : x->shape.size[a];
  }
  TRY(cpu_expect(r, y, x->dtype, &want));
  TRY(cpu_expect(r, want_in(r, 1), x->dtype, &want));
  if (attr->block < 0 || (attr->block > 0 && (attr->kind != UNROLL_SUM || !(attr->axes & 1))) ||
      (attr->block == 0 && want_in(r, 1)))
    return cpu_bad_attr(r, "block", attr->block);
  r->node->run = cpu_reduce_run(x->dtype);
  if (!r->node->run)
    return cpu_fail(r->err, UNROLL_E_DTYPE, "cpu: reduce \"%.60s\": \"%s\" is %s", r->view->name, x->name,
                    cpu_dtype_name(x->dtype));
  return UNROLL_OK;
}

unroll_status cpu_check_softmax(cpu_resolver *r) {
  const cpu_tensor *x = want_in(r, 0), *y = want_out(r, 0);
  TRY(cpu_expect_real(r, x));
  TRY(cpu_expect_rank(r, x, 1, UNROLL_MAX_RANK));
  TRY(cpu_expect(r, y, x->dtype, &x->shape));
  if (r->view->op == UNROLL_OP_SOFTMAX)
    CHOOSE(r, x->dtype, softmax);
  else
    CHOOSE(r, x->dtype, log_softmax);
  return UNROLL_OK;
}

static unroll_status check_logits(cpu_resolver *r, const cpu_tensor *row_value) {
  const cpu_tensor *logits = want_in(r, 0), *targets = want_in(r, 1);
  TRY(cpu_expect_real(r, logits));
  TRY(cpu_expect_rank(r, logits, 1, UNROLL_MAX_RANK));
  const cpu_shape rows = cpu_drop_last(logits->shape);
  TRY(cpu_expect(r, targets, UNROLL_I32, &rows));
  return cpu_expect(r, row_value, logits->dtype, &rows);
}

unroll_status cpu_check_cross_entropy(cpu_resolver *r) {
  TRY(check_logits(r, want_out(r, 0)));
  CHOOSE(r, want_in(r, 0)->dtype, cross_entropy);
  return UNROLL_OK;
}

unroll_status cpu_check_cross_entropy_grad(cpu_resolver *r) {
  const cpu_tensor *logits = want_in(r, 0);
  TRY(check_logits(r, want_in(r, 2)));
  TRY(cpu_expect(r, want_out(r, 0), logits->dtype, &logits->shape));
  CHOOSE(r, logits->dtype, cross_entropy_grad);
  return UNROLL_OK;
}

/* table [V,E], ids [..], rows [..,E] */
static unroll_status check_embedding(cpu_resolver *r, const cpu_tensor *table, const cpu_tensor *ids,
                                     const cpu_tensor *rows) {
  TRY(cpu_expect_real(r, table));
  TRY(cpu_expect_rank(r, table, 2, 2));
  TRY(cpu_expect_rank(r, rows, 1, UNROLL_MAX_RANK));
  if (table->shape.dim >= 0)
    return no_runtime_size(r, table);
  const cpu_shape of_ids = cpu_drop_last(rows->shape);
  const cpu_shape of_rows = cpu_with_last(rows->shape, table->shape.size[1]);
  TRY(cpu_expect(r, ids, UNROLL_I32, &of_ids));
  return cpu_expect(r, rows, table->dtype, &of_rows);
}

unroll_status cpu_check_embedding(cpu_resolver *r) {
  TRY(check_embedding(r, want_in(r, 0), want_in(r, 1), want_out(r, 0)));
  CHOOSE(r, want_in(r, 0)->dtype, embedding);
  return UNROLL_OK;
}

unroll_status cpu_check_embedding_grad(cpu_resolver *r) {
  const cpu_tensor *table = want_out(r, 0);
  TRY(check_embedding(r, table, want_in(r, 0), want_in(r, 1)));
  r->node->workspace = (uint64_t)table->shape.size[0] * CPU_EMBEDDING_COLUMNS * sizeof(double);
  CHOOSE(r, table->dtype, embedding_grad);
  return UNROLL_OK;
}

unroll_status cpu_check_pad(cpu_resolver *r) {
  const cpu_tensor *x = want_in(r, 0), *y = want_out(r, 0);
  const unroll_pad_attr *attr = &r->node->attr.pad;
  TRY(cpu_expect_axis(r, attr->axis, x->shape.rank));
  const int64_t limit = INT64_MAX / 4;
  if (attr->before < 0 || attr->after < 0 || attr->before > limit || attr->after > limit)
    return cpu_bad_attr(r, "before or after", attr->before < 0 ? attr->before : attr->after);
  if (attr->axis == 0 && x->shape.dim >= 0)
    return no_runtime_size(r, x);
  cpu_shape want = x->shape;
  want.size[attr->axis] += attr->before + attr->after;
  TRY(cpu_expect(r, y, x->dtype, &want));
  r->node->elem_bytes = cpu_dtype_size(x->dtype);
  r->node->run = cpu_run_pad;
  return UNROLL_OK;
}

unroll_status cpu_check_concat(cpu_resolver *r) {
  const cpu_tensor *y = want_out(r, 0);
  const int32_t axis = r->node->attr.axis.axis;
  int64_t total = 0;
  TRY(cpu_expect_axis(r, axis, y->shape.rank));
  for (uint32_t i = 0; i < r->view->n_in; i++) {
    const cpu_tensor *x = want_in(r, i);
    cpu_shape want = y->shape;
    if (!x)
      return cpu_fail(r->err, UNROLL_E_GRAPH, "cpu: concat \"%.60s\": input %u is missing", r->view->name, i);
    if (x->shape.rank == y->shape.rank)
      want.size[axis] = x->shape.size[axis];
    TRY(cpu_expect(r, x, y->dtype, &want));
    total += x->shape.size[axis];
  }
  if (total != y->shape.size[axis])
    return cpu_fail(r->err, UNROLL_E_SHAPE, "cpu: concat \"%.60s\": \"%s\" %s, the inputs give %lld on axis %d",
                    r->view->name, y->name, cpu_shape_text(&y->shape).text, (long long)total, axis);
  r->node->elem_bytes = cpu_dtype_size(y->dtype);
  r->node->run = cpu_run_concat;
  return UNROLL_OK;
}

/* lengths [B], where x has B on that axis */
static unroll_status check_lengths(cpu_resolver *r, const cpu_tensor *x, const cpu_tensor *lengths, int32_t axis) {
  cpu_shape want = cpu_shape_1(x->shape.size[axis]);
  if (axis == 0)
    want.dim = x->shape.dim;
  return cpu_expect(r, lengths, UNROLL_I32, &want);
}

static unroll_status check_time_axis(cpu_resolver *r, const cpu_tensor *x, int32_t time_axis) {
  if (time_axis != 0 && time_axis != -1)
    return cpu_bad_attr(r, "time_axis", time_axis);
  return cpu_expect_rank(r, x, time_axis == 0 ? 2 : 1, UNROLL_MAX_RANK);
}

unroll_status cpu_check_reverse(cpu_resolver *r) {
  const cpu_tensor *x = want_in(r, 0);
  TRY(cpu_expect_rank(r, x, 2, UNROLL_MAX_RANK));
  TRY(check_lengths(r, x, want_in(r, 1), 1));
  TRY(cpu_expect(r, want_out(r, 0), x->dtype, &x->shape));
  r->node->elem_bytes = cpu_dtype_size(x->dtype);
  r->node->run = cpu_run_reverse;
  return UNROLL_OK;
}

unroll_status cpu_check_length_mask(cpu_resolver *r) {
  const cpu_tensor *x = want_in(r, 0);
  const int32_t time_axis = r->node->attr.length_mask.time_axis;
  TRY(check_time_axis(r, x, time_axis));
  TRY(check_lengths(r, x, want_in(r, 2), time_axis + 1));
  TRY(cpu_expect(r, want_in(r, 1), x->dtype, &x->shape));
  TRY(cpu_expect(r, want_out(r, 0), x->dtype, &x->shape));
  r->node->elem_bytes = cpu_dtype_size(x->dtype);
  r->node->run = cpu_run_length_mask;
  return UNROLL_OK;
}

/* a and more sequences like it [T,B,..], n states [B,..], lengths [B] */
static unroll_status check_linear_scan(cpu_resolver *r, const cpu_tensor *const *sequences, uint32_t n_sequences,
                                       const cpu_tensor *const *states, uint32_t n_states, const cpu_tensor *lengths) {
  const cpu_tensor *a = want_in(r, 0);
  const int32_t direction = r->node->attr.linear_scan.direction;
  cpu_shape state = {.rank = a->shape.rank - 1, .dim = -1};
  if (direction != UNROLL_FORWARD && direction != UNROLL_REVERSE)
    return cpu_bad_attr(r, "direction", direction);
  TRY(cpu_expect_real(r, a));
  TRY(cpu_expect_rank(r, a, 2, UNROLL_MAX_RANK));
  for (int32_t i = 0; i < state.rank; i++)
    state.size[i] = a->shape.size[i + 1];
  for (uint32_t i = 0; i < n_sequences; i++)
    TRY(cpu_expect(r, sequences[i], a->dtype, &a->shape));
  for (uint32_t i = 0; i < n_states; i++)
    TRY(cpu_expect(r, states[i], a->dtype, &state));
  return check_lengths(r, a, lengths, 1);
}

unroll_status cpu_check_linear_scan(cpu_resolver *r) {
  const cpu_tensor *sequences[] = {want_in(r, 1), want_out(r, 0)}, *states[] = {want_in(r, 2), want_out(r, 1)};
  TRY(check_linear_scan(r, sequences, 2, states, 2, want_in(r, 3)));
  CHOOSE(r, want_in(r, 0)->dtype, linear_scan);
  return UNROLL_OK;
}

unroll_status cpu_check_linear_scan_grad(cpu_resolver *r) {
  const cpu_tensor *sequences[] = {want_in(r, 1), want_in(r, 3), want_out(r, 0), want_out(r, 1)};
  const cpu_tensor *states[] = {want_in(r, 2), want_in(r, 4), want_out(r, 2)};
  TRY(check_linear_scan(r, sequences, 4, states, 3, want_in(r, 5)));
  CHOOSE(r, want_in(r, 0)->dtype, linear_scan_grad);
  return UNROLL_OK;
}

unroll_status cpu_check_dropout(cpu_resolver *r) {
  const cpu_tensor *x = want_in(r, 0);
  const unroll_dropout_attr *attr = &r->node->attr.dropout;
  TRY(cpu_expect_real(r, x));
  TRY(check_time_axis(r, x, attr->time_axis));
  if (!(attr->p >= 0 && attr->p < 1))
    return cpu_fail(r->err, UNROLL_E_GRAPH, "cpu: dropout \"%.60s\": p is %g, 0 <= p < 1 expected", r->view->name,
                    attr->p);
  TRY(cpu_expect(r, want_out(r, 0), x->dtype, &x->shape));
  CHOOSE(r, x->dtype, dropout);
  return UNROLL_OK;
}

unroll_status cpu_check_random(cpu_resolver *r) {
  const cpu_tensor *y = want_out(r, 0);
  const unroll_random_attr *attr = &r->node->attr.random;
  if (attr->kind != UNROLL_RANDOM_UNIFORM && attr->kind != UNROLL_RANDOM_NORMAL)
    return cpu_fail(r->err, UNROLL_E_UNSUPPORTED, "cpu: random \"%.60s\": kind %d", r->view->name, attr->kind);
  TRY(cpu_expect_real(r, y));
  TRY(check_time_axis(r, y, attr->time_axis));
  CHOOSE(r, y->dtype, random);
  return UNROLL_OK;
}

/* row [..,N], ids [..,M], picked [..,M] */
static unroll_status check_gather(cpu_resolver *r, const cpu_tensor *row, const cpu_tensor *ids,
                                  const cpu_tensor *picked) {
  TRY(cpu_expect_real(r, row));
  TRY(cpu_expect_rank(r, row, 1, UNROLL_MAX_RANK));
  TRY(cpu_expect_rank(r, ids, row->shape.rank, row->shape.rank));
  if (row->shape.rank == 1 && row->shape.dim >= 0)
    return no_runtime_size(r, row);
  const cpu_shape want = cpu_with_last(row->shape, cpu_last(ids));
  TRY(cpu_expect(r, ids, UNROLL_I32, &want));
  return cpu_expect(r, picked, row->dtype, &want);
}

unroll_status cpu_check_gather(cpu_resolver *r) {
  TRY(check_gather(r, want_in(r, 0), want_in(r, 1), want_out(r, 0)));
  CHOOSE(r, want_in(r, 0)->dtype, gather);
  return UNROLL_OK;
}

unroll_status cpu_check_gather_grad(cpu_resolver *r) {
  TRY(check_gather(r, want_out(r, 0), want_in(r, 0), want_in(r, 1)));
  CHOOSE(r, want_in(r, 1)->dtype, gather_grad);
  return UNROLL_OK;
}

unroll_status cpu_check_top_k(cpu_resolver *r) {
  const cpu_tensor *x = want_in(r, 0);
  const int64_t k = r->node->attr.top_k.k;
  TRY(cpu_expect_real(r, x));
  TRY(cpu_expect_rank(r, x, 1, UNROLL_MAX_RANK));
  if (x->shape.rank == 1 && x->shape.dim >= 0)
    return no_runtime_size(r, x);
  if (k < 1 || k > cpu_last(x))
    return cpu_bad_attr(r, "k", k);
  const cpu_shape want = cpu_with_last(x->shape, k);
  TRY(cpu_expect(r, want_out(r, 0), x->dtype, &want));
  TRY(cpu_expect(r, want_out(r, 1), UNROLL_I32, &want));
  CHOOSE(r, x->dtype, top_k);
  return UNROLL_OK;
}

static unroll_status check_index_of_last(cpu_resolver *r) {
  const cpu_tensor *x = want_in(r, 0);
  TRY(cpu_expect_real(r, x));
  TRY(cpu_expect_rank(r, x, 1, UNROLL_MAX_RANK));
  const cpu_shape want = cpu_drop_last(x->shape);
  if (x->shape.rank == 1 && x->shape.dim >= 0)
    return no_runtime_size(r, x);
  return cpu_expect(r, want_out(r, 0), UNROLL_I32, &want);
}

unroll_status cpu_check_argmax(cpu_resolver *r) {
  TRY(check_index_of_last(r));
  CHOOSE(r, want_in(r, 0)->dtype, argmax);
  return UNROLL_OK;
}

unroll_status cpu_check_categorical(cpu_resolver *r) {
  TRY(cpu_expect_rank(r, want_in(r, 0), 2, 2));
  TRY(check_index_of_last(r));
  if (r->node->attr.categorical.top_k < 0)
    return cpu_bad_attr(r, "top_k", r->node->attr.categorical.top_k);
  const double top_p = r->node->attr.categorical.top_p;
  if (r->view->op_version < 2)
    r->node->attr.categorical.top_p = 0; /* of no meaning there */
  else if (!(top_p > 0 && top_p < 1))
    return cpu_fail(r->err, UNROLL_E_GRAPH, "cpu: categorical \"%.60s\": top_p is %g, 0 < top_p < 1 expected",
                    r->view->name, top_p);
  CHOOSE(r, want_in(r, 0)->dtype, categorical);
  return UNROLL_OK;
}

unroll_status cpu_check_optimizer(cpu_resolver *r) {
  const cpu_tensor *param = want_in(r, 0);
  const unroll_optimizer_attr *attr = &r->node->attr.optimizer;
  const cpu_shape scalar = {.rank = 0, .dim = -1};
  uint32_t moments = 0;
  TRY(cpu_expect_real(r, param));
  TRY(cpu_expect(r, want_in(r, 1), param->dtype, &param->shape));
  TRY(cpu_expect(r, want_in(r, 2), param->dtype, &scalar));
  TRY(cpu_expect(r, want_in(r, 3), UNROLL_I32, &scalar));
  TRY(cpu_expect(r, want_in(r, 4), param->dtype, &scalar));
  TRY(cpu_expect(r, want_in(r, 5), param->dtype, &param->shape));
  TRY(cpu_expect(r, want_in(r, 6), param->dtype, &param->shape));
  for (uint32_t i = 0; i < 3; i++)
    TRY(cpu_expect(r, want_out(r, i), param->dtype, &param->shape));
  switch (attr->kind) {
  case UNROLL_SGD: moments = attr->beta1 != 0 || want_out(r, 1) ? 1 : 0; break;
  case UNROLL_RMSPROP: moments = 1; break;
  case UNROLL_ADAM:
  case UNROLL_ADAMW: moments = 2; break;
  default:
    return cpu_fail(r->err, UNROLL_E_UNSUPPORTED, "cpu: optimizer \"%.60s\": kind %d", r->view->name, attr->kind);
  }
  for (uint32_t i = 0; i < moments; i++)
    if (!want_in(r, 5 + i))
      return cpu_fail(r->err, UNROLL_E_GRAPH, "cpu: optimizer \"%.60s\": s%u is missing", r->view->name, i + 1);
  if (want_out(r, 2) && moments < 2)
    return cpu_fail(r->err, UNROLL_E_GRAPH, "cpu: optimizer \"%.60s\": it has no s2", r->view->name);
  CHOOSE(r, param->dtype, optimizer);
  return UNROLL_OK;
}
