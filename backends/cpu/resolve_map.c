/* SPDX-License-Identifier: Apache-2.0 */
/* Elementwise ops, and those that only read their input in another order. */
#include "cpu_ops.h"
#include "resolve.h"

static void dense_strides(const cpu_shape *s, int64_t *stride) {
  int64_t n = 1;
  for (int32_t a = s->rank - 1; a >= 0; a--) {
    stride[a] = n;
    n *= s->size[a];
  }
}

/* Strides of x over y's axes, 0 where it is broadcast. */
static bool broadcast_strides(const cpu_shape *x, const cpu_shape *y, int64_t *stride) {
  int64_t dense[UNROLL_MAX_RANK];
  const int32_t lead = y->rank - x->rank;
  if (lead < 0 || (x->dim >= 0 && (lead > 0 || x->dim != y->dim)))
    return false;
  dense_strides(x, dense);
  for (int32_t a = 0; a < y->rank; a++) {
    const int64_t size = a < lead ? 1 : x->size[a - lead];
    const bool follows = a > 0 || x->dim == y->dim;
    stride[a] = 0;
    if (size == y->size[a] && follows && a >= lead)
      stride[a] = dense[a - lead];
    else if (size != 1)
      return false;
  }
  return true;
}

/* Joins the axes that every tensor walks as one, so that the innermost stretch is as long as it can be. */
static void map_axes(cpu_map *m, const cpu_shape *y, int64_t stride[][UNROLL_MAX_RANK]) {
  int32_t top = UNROLL_MAX_RANK; /* axes are laid down from the last one */
  for (int32_t a = y->rank - 1; a >= 0; a--) {
    bool joins = top < UNROLL_MAX_RANK;
    if (y->size[a] == 1 && !(a == 0 && y->dim >= 0))
      continue;
    for (int32_t i = 0; i < m->n_in && joins; i++)
      joins = stride[i][a] == m->stride[i][top] * m->size[top];
    if (joins) {
      m->size[top] *= y->size[a];
      continue;
    }
    m->size[--top] = y->size[a];
    for (int32_t i = 0; i < m->n_in; i++)
      m->stride[i][top] = stride[i][a];
  }
  m->rank = UNROLL_MAX_RANK - top;
  for (int32_t a = 0; a < m->rank; a++) {
    m->size[a] = m->size[top + a];
    for (int32_t i = 0; i < m->n_in; i++)
      m->stride[i][a] = m->stride[i][top + a];
  }
  if (m->rank == 0) { /* one element */
    m->rank = 1;
    m->size[0] = 1;
    for (int32_t i = 0; i < m->n_in; i++)
      m->stride[i][0] = 0;
  }
}

static unroll_status map_make(cpu_resolver *r, cpu_map_fn kernel, int32_t n_in, int64_t stride[][UNROLL_MAX_RANK]) {
  const cpu_tensor *y = want_out(r, 0);
  cpu_map *m = &r->node->map;
  if (!kernel)
    return cpu_fail(r->err, UNROLL_E_DTYPE, "cpu: %s \"%.60s\": not for \"%s\" of %s", r->op, r->view->name, y->name,
                    cpu_dtype_name(y->dtype));
  m->n_in = n_in;
  m->out_bytes = cpu_dtype_size(y->dtype);
  for (int32_t i = 0; i < n_in; i++)
    m->in_bytes[i] = cpu_dtype_size(want_in(r, (uint32_t)i)->dtype);
  map_axes(m, &y->shape, stride);
  r->node->kernel = kernel;
  r->node->run = cpu_run_map;
  return UNROLL_OK;
}

/* y has the inputs' shape after broadcasting. */
static unroll_status map_broadcast(cpu_resolver *r, cpu_map_fn kernel, int32_t n_in) {
  const cpu_tensor *y = want_out(r, 0);
  int64_t stride[CPU_MAX_MAPPED][UNROLL_MAX_RANK];
  int32_t rank = 0;
  for (int32_t i = 0; i < n_in; i++) {
    const cpu_tensor *x = want_in(r, (uint32_t)i);
    if (!broadcast_strides(&x->shape, &y->shape, stride[i]))
      return cpu_fail(r->err, UNROLL_E_SHAPE, "cpu: %s \"%.60s\": \"%s\" %s does not broadcast to %s", r->op,
                      r->view->name, x->name, cpu_shape_text(&x->shape).text, cpu_shape_text(&y->shape).text);
    if (x->shape.rank > rank)
      rank = x->shape.rank;
  }
  bool covered = rank == y->shape.rank;
  for (int32_t a = 0; a < y->shape.rank && covered; a++) {
    covered = y->shape.size[a] == 1;
    for (int32_t i = 0; i < n_in; i++)
      covered = covered || stride[i][a] != 0;
  }
  if (!covered)
    return cpu_fail(r->err, UNROLL_E_SHAPE, "cpu: %s \"%.60s\": \"%s\" %s is larger than what its inputs give", r->op,
                    r->view->name, y->name, cpu_shape_text(&y->shape).text);
  return map_make(r, kernel, n_in, stride);
}

unroll_status cpu_check_unary(cpu_resolver *r) {
  const cpu_tensor *x = want_in(r, 0), *y = want_out(r, 0);
  const int32_t kind = r->node->attr.unary.kind;
  if (kind < 0 || kind >= UNROLL_UNARY_COUNT)
    return cpu_fail(r->err, UNROLL_E_UNSUPPORTED, "cpu: unary \"%.60s\": kind %d", r->view->name, kind);
  TRY(cpu_expect(r, y, x->dtype, &x->shape));
  return map_broadcast(r, cpu_unary_kernel(kind, x->dtype), 1);
}

unroll_status cpu_check_binary(cpu_resolver *r) {
  const cpu_tensor *a = want_in(r, 0), *b = want_in(r, 1), *y = want_out(r, 0);
  const int32_t kind = r->node->attr.binary.kind;
  if (kind < 0 || kind >= UNROLL_BINARY_COUNT)
    return cpu_fail(r->err, UNROLL_E_UNSUPPORTED, "cpu: binary \"%.60s\": kind %d", r->view->name, kind);
  TRY(cpu_expect(r, b, a->dtype, &b->shape));
  TRY(cpu_expect(r, y, kind >= UNROLL_EQ && kind <= UNROLL_GE ? UNROLL_BOOL : a->dtype, &y->shape));
  return map_broadcast(r, cpu_binary_kernel(kind, a->dtype), 2);
}

unroll_status cpu_check_select(cpu_resolver *r) {
  const cpu_tensor *condition = want_in(r, 0), *a = want_in(r, 1), *b = want_in(r, 2), *y = want_out(r, 0);
  TRY(cpu_expect(r, condition, UNROLL_BOOL, &condition->shape));
  TRY(cpu_expect(r, b, a->dtype, &b->shape));
  TRY(cpu_expect(r, y, a->dtype, &y->shape));
  return map_broadcast(r, cpu_select_kernel(cpu_dtype_size(a->dtype)), 3);
}

unroll_status cpu_check_cast(cpu_resolver *r) {
  const cpu_tensor *x = want_in(r, 0), *y = want_out(r, 0);
  TRY(cpu_expect(r, y, y->dtype, &x->shape));
  return map_broadcast(r, cpu_cast_kernel(x->dtype, y->dtype), 1);
}

unroll_status cpu_check_constant(cpu_resolver *r) {
  int64_t stride[1][UNROLL_MAX_RANK];
  return map_make(r, cpu_constant_kernel(want_out(r, 0)->dtype), 0, stride);
}

/* Slice, transpose and reshape copy, with x's strides in y's order. */
static cpu_map_fn copy_of(const cpu_tensor *x) { return cpu_copy_kernel(cpu_dtype_size(x->dtype)); }

unroll_status cpu_check_slice(cpu_resolver *r) {
  const cpu_tensor *x = want_in(r, 0), *y = want_out(r, 0);
  const unroll_slice_attr *attr = &r->node->attr.slice;
  int64_t stride[1][UNROLL_MAX_RANK];
  TRY(cpu_expect_axis(r, attr->axis, x->shape.rank));
  cpu_shape want = x->shape;
  if (y->shape.rank == x->shape.rank)
    want.size[attr->axis] = y->shape.size[attr->axis];
  if (attr->axis == 0)
    want.dim = y->shape.dim;
  TRY(cpu_expect(r, y, x->dtype, &want));
  if (attr->start < 0 || attr->start > x->shape.size[attr->axis] - want.size[attr->axis])
    return cpu_bad_attr(r, "start", attr->start);
  dense_strides(&x->shape, stride[0]);
  r->node->map.start[0] = attr->start * stride[0][attr->axis];
  return map_make(r, copy_of(x), 1, stride);
}

unroll_status cpu_check_transpose(cpu_resolver *r) {
  const cpu_tensor *x = want_in(r, 0), *y = want_out(r, 0);
  int64_t dense[UNROLL_MAX_RANK], stride[1][UNROLL_MAX_RANK];
  cpu_shape want = {.rank = x->shape.rank, .dim = -1};
  uint32_t seen = 0;
  dense_strides(&x->shape, dense);
  for (int32_t a = 0; a < x->shape.rank; a++) {
    const int32_t from = r->node->attr.transpose.perm[a];
    TRY(cpu_expect_axis(r, from, x->shape.rank));
    if (seen >> from & 1)
      return cpu_bad_attr(r, "an axis taken twice", from);
    seen |= 1u << from;
    want.size[a] = x->shape.size[from];
    stride[0][a] = dense[from];
    if (from == 0 && x->shape.dim >= 0 && a != 0)
      return cpu_fail(r->err, UNROLL_E_UNSUPPORTED, "cpu: transpose \"%.60s\": axis %d would have a run-time size",
                      r->view->name, a);
    if (from == 0 && a == 0)
      want.dim = x->shape.dim;
  }
  TRY(cpu_expect(r, y, x->dtype, &want));
  return map_make(r, copy_of(x), 1, stride);
}

unroll_status cpu_check_reshape(cpu_resolver *r) {
  const cpu_tensor *x = want_in(r, 0), *y = want_out(r, 0);
  int64_t stride[1][UNROLL_MAX_RANK];
  TRY(cpu_expect(r, y, x->dtype, &y->shape));
  if (cpu_shape_count(&x->shape) != cpu_shape_count(&y->shape) || x->shape.dim != y->shape.dim)
    return cpu_fail(r->err, UNROLL_E_SHAPE, "cpu: reshape \"%.60s\": %s to %s", r->view->name,
                    cpu_shape_text(&x->shape).text, cpu_shape_text(&y->shape).text);
  dense_strides(&y->shape, stride[0]);
  return map_make(r, copy_of(x), 1, stride);
}
