/* SPDX-License-Identifier: Apache-2.0 */
/* plan_elements.c: ops that treat every element alike or only move it. */
#include "opencl.h"
#include <math.h>
#include <string.h>

/*
 * How several operands are walked over together: the axes of a shape, neighbours merged where every operand's strides
 * allow it. Operand 0 is y.
 */
enum { WALK_OPERANDS = 4 };
typedef struct walk {
  extent inner, outer; /* of the innermost merged axis, and the product of the others */
  int64_t step[WALK_OPERANDS];
  uint32_t operands, n_outer;
  int64_t extent[OPENCL_WALK_AXES], stride[WALK_OPERANDS][OPENCL_WALK_AXES]; /* of the others: kernels/walk.cl */
} walk;

/* Strides of a dense tensor; those of axes of extent 1 too. */
static void dense_strides(const unroll_tensor_view *t, int64_t *stride) {
  int64_t step = 1;
  for (int32_t i = t->rank - 1; i >= 0; i--) {
    stride[i] = step;
    step *= t->shape[i];
  }
}

/* Strides of an operand that is broadcast to y's shape: 0 where it repeats. */
static void broadcast_strides(const unroll_tensor_view *y, const unroll_tensor_view *x, int64_t *stride) {
  int64_t own[UNROLL_MAX_RANK];
  dense_strides(x, own);
  for (int32_t i = 0; i < y->rank; i++) {
    const int32_t j = i - (y->rank - x->rank);
    stride[i] = j < 0 || (x->shape[j] == 1 && y->shape[i] != 1) ? 0 : own[j];
  }
}

/* Over the axes of tensor `over`; strides in elements. */
static walk make_walk(const plan *p, uint32_t over, uint32_t operands, int64_t stride[][UNROLL_MAX_RANK]) {
  const unroll_tensor_view *t = plan_view(p, over);
  walk w = {.inner = {1, -1}, .outer = {1, -1}, .operands = operands};
  extent group[UNROLL_MAX_RANK];
  int64_t step[WALK_OPERANDS][UNROLL_MAX_RANK] = {{0}};
  uint32_t n = 0;
  for (int32_t i = t->rank - 1; i >= 0; i--) {
    const extent axis = plan_axis(p, over, i);
    if (axis.dim < 0 && axis.per == 1)
      continue;
    bool merges = n > 0;
    for (uint32_t k = 0; k < operands && merges; k++)
      merges = stride[k][i] == step[k][n - 1] * group[n - 1].per;
    if (merges) {
      group[n - 1].per *= axis.per;
      group[n - 1].dim = axis.dim;
      continue;
    }
    for (uint32_t k = 0; k < operands; k++)
      step[k][n] = stride[k][i];
    group[n++] = axis;
  }
  if (n && step[0][0] != 1) { /* a narrow x in a wide y: the kernels write rows, here of one element */
    memmove(group + 1, group, n * sizeof *group);
    group[0] = (extent){1, -1};
    for (uint32_t k = 0; k < operands; k++) {
      memmove(step[k] + 1, step[k], n * sizeof *step[k]);
      step[k][0] = 1;
    }
    n++;
  }
  if (n)
    w.inner = group[0];
  for (uint32_t k = 0; k < operands; k++)
    w.step[k] = n ? step[k][0] : 1;
  for (uint32_t g = 1; g < n; g++) {
    w.outer.per *= group[g].per;
    if (group[g].dim >= 0)
      w.outer.dim = group[g].dim;
    w.extent[g - 1] = group[g].per;
    for (uint32_t k = 0; k < operands; k++)
      w.stride[k][g - 1] = step[k][g];
  }
  w.n_outer = n ? n - 1 : 0;
  return w;
}

/* The kernel's arguments extent and, of each operand, stride. */
static void arg_walk(plan *p, const walk *w) {
  arg_bytes(p, w->extent, sizeof w->extent);
  for (uint32_t i = 0; i < w->operands; i++)
    arg_bytes(p, w->stride[i], sizeof w->stride[i]);
}

static const char *type_of_size(size_t bytes) {
  return bytes == 8 ? "ulong" : bytes == 4 ? "uint" : bytes == 2 ? "ushort" : "uchar";
}

/* x, from element x_from on, to y, from y_from and more on: over the axes of `over`. */
static void plan_copy(plan *p, uint32_t over, uint32_t x, int64_t x_from, const int64_t *x_stride, uint32_t y,
                      int64_t y_from, const extent *more, uint32_t n_more, const int64_t *y_stride) {
  enum { EACH = 16 };
  int64_t stride[2][UNROLL_MAX_RANK];
  memcpy(stride[0], y_stride, sizeof stride[0]);
  memcpy(stride[1], x_stride, sizeof stride[1]);
  const walk w = make_walk(p, over, 2, stride);
  plan_launch(p, "move.cl", "copy", "-Dtype=%s -DOUTER=%u -DX_INNER=%d -DEACH=%d",
              type_of_size(dtype_bytes(plan_view(p, y)->dtype)), w.n_outer, w.step[1] == 1, EACH);
  plan_items(p, w.inner, EACH);
  plan_items(p, w.outer, 1);
  arg_window(p, x, x_from, NULL, 0);
  arg_window(p, y, y_from, more, n_more);
  arg_walk(p, &w);
  arg_long(p, w.step[1]);
  arg_extent(p, w.inner);
  arg_kind_of(p, ARG_ITEMS, 0);
}

/* As a cast: towards zero, NaN to 0, what lies beyond the ends to the ends. INT64_MAX becomes 2^63 as a double. */
static int64_t to_integer(double value, int64_t lowest, int64_t highest) {
  if (value != value)
    return 0;
  if (value <= (double)lowest)
    return lowest;
  return value >= (double)highest ? highest : (int64_t)value;
}

void plan_fill(plan *p, uint32_t id, double value) {
  enum { EACH = 16 };
  const int32_t dtype = plan_view(p, id)->dtype;
  const int64_t wide = to_integer(value, INT64_MIN, INT64_MAX);
  const int32_t narrow = (int32_t)to_integer(value, INT32_MIN, INT32_MAX);
  const uint8_t byte = value != 0;
  plan_launch(p, "fill.cl", "fill", "-Dtype=%s -DEACH=%d", dtype_c(dtype), EACH);
  plan_elements(p, id, EACH);
  arg_tensor(p, id);
  arg_extent(p, plan_axes(p, id, 0, plan_view(p, id)->rank));
  if (dtype == UNROLL_I64)
    arg_bytes(p, &wide, sizeof wide);
  else if (dtype == UNROLL_I32)
    arg_bytes(p, &narrow, sizeof narrow);
  else if (dtype == UNROLL_BOOL)
    arg_bytes(p, &byte, sizeof byte);
  else
    arg_real(p, dtype, value);
}

unroll_status plan_constant(plan *p) {
  const unroll_constant_attr *attr = p->node->attr;
  const int32_t dtype = plan_view(p, plan_out(p, 0))->dtype;
  if (!plan_number(p, dtype) && dtype != UNROLL_BOOL)
    return plan_decline(p, "dtype %d", dtype);
  plan_fill(p, plan_out(p, 0), attr->value);
  return UNROLL_OK;
}

static void plan_apply(plan *p, int32_t kind) {
  const uint32_t x = plan_in(p, 0), y = plan_out(p, 0);
  const int32_t from = plan_view(p, x)->dtype, to = plan_view(p, y)->dtype;
  const uint32_t width = plan_width(p, dtype_bytes(from) > dtype_bytes(to) ? from : to);
  const bool integer = from != UNROLL_F32 && from != UNROLL_F64;
  plan_launch(p, "unary.cl", "unary", "-Din_t=%s -Dout_t=%s -DWIDTH=%u -DKIND=%d -DINTEGER=%d -DTO_BOOL=%d",
              dtype_c(from), dtype_c(to), width, kind, integer, to == UNROLL_BOOL);
  plan_elements(p, y, width);
  arg_tensor(p, x);
  arg_tensor(p, y);
  arg_extent(p, plan_axes(p, y, 0, plan_view(p, y)->rank));
}

unroll_status plan_unary(plan *p) {
  const unroll_unary_attr *attr = p->node->attr;
  const int32_t dtype = plan_view(p, plan_in(p, 0))->dtype, kind = attr->kind;
  const bool any_number =
      kind == UNROLL_COPY || kind == UNROLL_NEG || kind == UNROLL_ABS || kind == UNROLL_SIGN || kind == UNROLL_SQUARE;
  if (kind < 0 || kind >= UNROLL_UNARY_COUNT)
    return plan_decline(p, "unary kind %d", kind);
  if (kind == UNROLL_LOGICAL_NOT || (kind == UNROLL_COPY && dtype == UNROLL_BOOL)) {
    if (dtype != UNROLL_BOOL)
      return plan_decline(p, "dtype %d", dtype);
  } else if (any_number ? !plan_number(p, dtype) : !plan_real(p, dtype))
    return plan_decline(p, "dtype %d", dtype);
  plan_apply(p, kind);
  return UNROLL_OK;
}

unroll_status plan_cast(plan *p) {
  const int32_t from = plan_view(p, plan_in(p, 0))->dtype, to = plan_view(p, plan_out(p, 0))->dtype;
  if ((!plan_number(p, from) && from != UNROLL_BOOL) || (!plan_number(p, to) && to != UNROLL_BOOL))
    return plan_decline(p, "dtypes %d, %d", from, to);
  plan_apply(p, -1);
  return UNROLL_OK;
}

/* added: the first operand is a sum of two. */
static void launch_binary(plan *p, int32_t in, int32_t out, int32_t kind, const walk *w, bool added) {
  const uint32_t width = plan_width(p, in);
  plan_launch(p, "binary.cl", "binary",
              "-Din_t=%s -Dout_t=%s -DWIDTH=%u -DKIND=%d -DINTEGER=%d -DA_INNER=%d -DB_INNER=%d -DOUTER=%u%s",
              dtype_c(in), dtype_c(out), width, kind, in != UNROLL_F32 && in != UNROLL_F64, w->step[1] != 0,
              w->step[2] != 0, w->n_outer, added ? " -DADDED=1" : "");
  plan_items(p, w->inner, width);
  plan_items(p, w->outer, 1);
}

unroll_status plan_binary(plan *p) {
  const unroll_binary_attr *attr = p->node->attr;
  const uint32_t a = plan_in(p, 0), b = plan_in(p, 1), y = plan_out(p, 0);
  const unroll_tensor_view *v = plan_view(p, y);
  const int32_t dtype = plan_view(p, a)->dtype, kind = attr->kind;
  const bool compares = kind >= UNROLL_EQ && kind <= UNROLL_GE;
  if (kind < 0 || kind >= UNROLL_BINARY_COUNT)
    return plan_decline(p, "binary kind %d", kind);
  if (!(kind >= UNROLL_TANH_GRAD ? plan_real(p, dtype) : plan_number(p, dtype) || (compares && dtype == UNROLL_BOOL)))
    return plan_decline(p, "dtype %d", dtype);
  int64_t stride[3][UNROLL_MAX_RANK] = {{0}};
  dense_strides(v, stride[0]);
  broadcast_strides(v, plan_view(p, a), stride[1]);
  broadcast_strides(v, plan_view(p, b), stride[2]);
  const walk w = make_walk(p, y, 3, stride);
  uint32_t first = a;
  const uint32_t more = plan_added(p, &first);
  launch_binary(p, dtype, v->dtype, kind, &w, more != UNROLL_NO_TENSOR);
  arg_tensor(p, first);
  if (more != UNROLL_NO_TENSOR)
    arg_tensor(p, more);
  arg_tensor(p, b);
  arg_tensor(p, y);
  arg_walk(p, &w);
  arg_extent(p, w.inner);
  arg_kind_of(p, ARG_ITEMS, 0);
  return UNROLL_OK;
}

void plan_multiply(plan *p, int32_t dtype, uint32_t a, uint32_t b, operand y, int64_t n) {
  const walk w = {.inner = {n, -1}, .outer = {1, -1}, .step = {1, 1, 1}, .operands = 3};
  launch_binary(p, dtype, dtype, UNROLL_MUL, &w, false);
  arg_tensor(p, a);
  arg_tensor(p, b);
  arg_operand(p, y, dtype);
  arg_walk(p, &w);
  arg_extent(p, w.inner);
  arg_kind_of(p, ARG_ITEMS, 0);
}

unroll_status plan_select(plan *p) {
  enum { EACH = 8 };
  const uint32_t y = plan_out(p, 0);
  const unroll_tensor_view *v = plan_view(p, y);
  int64_t stride[4][UNROLL_MAX_RANK] = {{0}};
  dense_strides(v, stride[0]);
  for (uint32_t i = 0; i < 3; i++)
    broadcast_strides(v, plan_view(p, plan_in(p, i)), stride[i + 1]);
  const walk w = make_walk(p, y, 4, stride);
  plan_launch(p, "move.cl", "choose", "-Dtype=%s -DOUTER=%u -DEACH=%d", type_of_size(dtype_bytes(v->dtype)), w.n_outer,
              EACH);
  plan_items(p, w.inner, EACH);
  plan_items(p, w.outer, 1);
  for (uint32_t i = 0; i < 3; i++)
    arg_tensor(p, plan_in(p, i));
  arg_tensor(p, y);
  arg_walk(p, &w);
  for (uint32_t i = 0; i < 3; i++)
    arg_long(p, w.step[i + 1]);
  arg_extent(p, w.inner);
  arg_kind_of(p, ARG_ITEMS, 0);
  return UNROLL_OK;
}

/* ---- moves ---- */
unroll_status plan_reshape(plan *p) {
  const uint32_t x = plan_in(p, 0), y = plan_out(p, 0);
  int64_t stride[UNROLL_MAX_RANK] = {0};
  dense_strides(plan_view(p, x), stride);
  plan_copy(p, x, x, 0, stride, y, 0, NULL, 0, stride);
  return UNROLL_OK;
}

unroll_status plan_slice(plan *p) {
  const unroll_slice_attr *attr = p->node->attr;
  const uint32_t x = plan_in(p, 0), y = plan_out(p, 0);
  int64_t from[UNROLL_MAX_RANK] = {0}, to[UNROLL_MAX_RANK] = {0};
  dense_strides(plan_view(p, x), from);
  dense_strides(plan_view(p, y), to);
  plan_copy(p, y, x, attr->start * from[attr->axis], from, y, 0, NULL, 0, to);
  return UNROLL_OK;
}

unroll_status plan_pad(plan *p) {
  const unroll_pad_attr *attr = p->node->attr;
  const uint32_t x = plan_in(p, 0), y = plan_out(p, 0);
  const int32_t dtype = plan_view(p, y)->dtype;
  int64_t from[UNROLL_MAX_RANK] = {0}, to[UNROLL_MAX_RANK] = {0};
  if (!plan_number(p, dtype) && dtype != UNROLL_BOOL)
    return plan_decline(p, "dtype %d", dtype);
  dense_strides(plan_view(p, x), from);
  dense_strides(plan_view(p, y), to);
  plan_fill(p, y, 0);
  plan_copy(p, x, x, 0, from, y, attr->before * to[attr->axis], NULL, 0, to);
  return UNROLL_OK;
}

unroll_status plan_concat(plan *p) {
  const unroll_axis_attr *attr = p->node->attr;
  const uint32_t y = plan_out(p, 0);
  const int32_t axis = attr->axis;
  enum { MAX_INPUTS = 64 };
  extent before[MAX_INPUTS];
  int64_t from[UNROLL_MAX_RANK] = {0}, to[UNROLL_MAX_RANK] = {0};
  if (p->node->n_in > MAX_INPUTS)
    return plan_decline(p, "%u inputs, at most %d", p->node->n_in, MAX_INPUTS);
  dense_strides(plan_view(p, y), to);
  for (uint32_t i = 0; i < p->node->n_in; i++) {
    const uint32_t x = plan_in(p, i);
    dense_strides(plan_view(p, x), from);
    plan_copy(p, x, x, 0, from, y, 0, before, i, to);
    before[i] = plan_axis(p, x, axis);
    before[i].per *= to[axis];
  }
  return UNROLL_OK;
}

unroll_status plan_transpose(plan *p) {
  const unroll_transpose_attr *attr = p->node->attr;
  const uint32_t x = plan_in(p, 0), y = plan_out(p, 0);
  const unroll_tensor_view *v = plan_view(p, x);
  int64_t own[UNROLL_MAX_RANK] = {0}, from[UNROLL_MAX_RANK] = {0}, to[UNROLL_MAX_RANK] = {0};
  if (v->rank > 0 && v->dim[0] >= 0 && attr->perm[0] != 0)
    return plan_decline(p, "it moves an axis of run-time size");
  dense_strides(v, own);
  dense_strides(plan_view(p, y), to);
  for (int32_t i = 0; i < v->rank; i++)
    from[i] = own[attr->perm[i]];
  plan_copy(p, y, x, 0, from, y, 0, NULL, 0, to);
  return UNROLL_OK;
}

/* x [T,B,..], or one step [B,..]: which axis is the batch. */
static int32_t batch_axis(int32_t time_axis) { return time_axis == 0 ? 1 : 0; }

unroll_status plan_reverse(plan *p) {
  enum { EACH = 16 };
  const uint32_t x = plan_in(p, 0), y = plan_out(p, 0);
  const unroll_tensor_view *v = plan_view(p, x);
  if (v->rank < 2)
    return plan_decline(p, "rank %d", v->rank);
  plan_launch(p, "lengths.cl", "reverse", "-Dtype=%s -DEACH=%d", type_of_size(dtype_bytes(v->dtype)), EACH);
  plan_items(p, plan_axes(p, x, 0, 2), 1);
  plan_items(p, plan_axes(p, x, 2, v->rank), EACH);
  arg_tensor(p, x);
  arg_tensor(p, plan_in(p, 1));
  arg_tensor(p, y);
  arg_extent(p, plan_axis(p, x, 0));
  arg_extent(p, plan_axis(p, x, 1));
  arg_extent(p, plan_axes(p, x, 2, v->rank));
  arg_kind_of(p, ARG_ITEMS, 0);
  return UNROLL_OK;
}

enum { MASK_EACH = 16 };

static void launch_mask(plan *p, size_t bytes, bool have_other, bool invert, extent rows, extent columns) {
  plan_launch(p, "lengths.cl", "length_mask", "-Dtype=%s -DEACH=%d -DHAVE_OTHER=%d -DINVERT=%d", type_of_size(bytes),
              MASK_EACH, have_other, invert);
  plan_items(p, rows, 1);
  plan_items(p, columns, MASK_EACH);
}

unroll_status plan_length_mask(plan *p) {
  const unroll_length_mask_attr *attr = p->node->attr;
  const uint32_t x = plan_in(p, 0), y = plan_out(p, 0);
  const unroll_tensor_view *v = plan_view(p, x);
  const int32_t batch = batch_axis(attr->time_axis);
  if (v->rank <= batch)
    return plan_decline(p, "rank %d", v->rank);
  const extent columns = plan_axes(p, x, batch + 1, v->rank);
  launch_mask(p, dtype_bytes(v->dtype), plan_in(p, 1) != UNROLL_NO_TENSOR, attr->invert != 0,
              plan_axes(p, x, 0, batch + 1), columns);
  for (uint32_t i = 0; i < 3; i++)
    arg_tensor(p, plan_in(p, i));
  arg_tensor(p, y);
  arg_extent(p, plan_axis(p, x, batch));
  arg_extent(p, columns);
  if (attr->time_axis == 0)
    arg_long(p, 0);
  else
    arg_kind_of(p, ARG_TIME, 0);
  arg_kind_of(p, ARG_ITEMS, 0);
  return UNROLL_OK;
}

void plan_mask(plan *p, size_t bytes, operand x, uint32_t lengths, operand y, extent rows, int64_t B, int64_t columns) {
  const int32_t dtype = bytes == 8 ? UNROLL_F64 : UNROLL_F32;
  launch_mask(p, bytes, false, false, rows, (extent){columns, -1});
  arg_operand(p, x, dtype);
  arg_tensor(p, UNROLL_NO_TENSOR);
  arg_tensor(p, lengths);
  arg_operand(p, y, dtype);
  arg_long(p, B);
  arg_long(p, columns);
  arg_long(p, 0);
  arg_kind_of(p, ARG_ITEMS, 0);
}

unroll_status plan_dropout(plan *p) {
  const int lanes = p->device->cpu ? 8 : 4;
  const unroll_dropout_attr *attr = p->node->attr;
  const uint32_t x = plan_in(p, 0), y = plan_out(p, 0);
  const unroll_tensor_view *v = plan_view(p, x);
  const int32_t batch = batch_axis(attr->time_axis);
  if (!plan_real(p, v->dtype) || v->rank <= batch)
    return plan_decline(p, "dtype %d, rank %d", v->dtype, v->rank);
  plan_launch(p, "dropout.cl", "dropout", "-Dreal=%s -DLANES=%d", dtype_c(v->dtype), lanes);
  plan_items(p, plan_axes(p, x, 0, batch + 1), 1);
  plan_items(p, plan_axes(p, x, batch + 1, v->rank), 4 * lanes);
  arg_tensor(p, x);
  arg_tensor(p, y);
  arg_extent(p, plan_axis(p, x, batch));
  arg_extent(p, plan_axes(p, x, batch + 1, v->rank));
  arg_kind_of(p, ARG_KEY0, attr->site);
  arg_kind_of(p, ARG_KEY1, attr->site);
  arg_uint(p, (uint32_t)ceil(attr->p * 16777216.0));
  arg_real(p, v->dtype, 1 / (1 - attr->p));
  const bool has_t0 = p->node->attr_size >= UNROLL_SIZE_TO(unroll_dropout_attr, t0);
  if (attr->time_axis == 0)
    arg_kind_of(p, ARG_T0, has_t0 ? attr->t0 : 0);
  else if (has_t0 && attr->t0 != 0)
    return plan_decline(p, "%s", "a step counted from elsewhere");
  else
    arg_kind_of(p, ARG_TIME, 1);
  arg_kind_of(p, ARG_ROW0, 0);
  arg_kind_of(p, ARG_ITEMS, 0);
  return UNROLL_OK;
}

unroll_status plan_random(plan *p) {
  const int lanes = p->device->cpu ? 8 : 4;
  const unroll_random_attr *attr = p->node->attr;
  const uint32_t y = plan_out(p, 0);
  const unroll_tensor_view *v = plan_view(p, y);
  const int32_t batch = batch_axis(attr->time_axis);
  const bool normal = attr->kind == UNROLL_RANDOM_NORMAL;
  if (!plan_real(p, v->dtype) || v->rank <= batch || (!normal && attr->kind != UNROLL_RANDOM_UNIFORM))
    return plan_decline(p, "dtype %d, rank %d, kind %d", v->dtype, v->rank, attr->kind);
  plan_launch(p, "random.cl", normal ? "normal_numbers" : "uniform_numbers", "-Dreal=%s -DDOUBLES=%d -DLANES=%d",
              dtype_c(v->dtype), v->dtype == UNROLL_F64, lanes);
  plan_items(p, plan_axes(p, y, 0, batch + 1), 1);
  plan_items(p, plan_axes(p, y, batch + 1, v->rank), (normal ? 2 : 4) * lanes);
  arg_tensor(p, y);
  arg_extent(p, plan_axis(p, y, batch));
  arg_extent(p, plan_axes(p, y, batch + 1, v->rank));
  arg_kind_of(p, ARG_KEY0, attr->site);
  arg_kind_of(p, ARG_KEY1, attr->site);
  if (attr->time_axis == 0)
    arg_kind_of(p, ARG_T0, 0);
  else
    arg_kind_of(p, ARG_TIME, 1);
  arg_kind_of(p, ARG_ROW0, 0);
  arg_kind_of(p, ARG_ITEMS, 0);
  return UNROLL_OK;
}

unroll_status plan_optimizer(plan *p) {
  enum { BLOCKS = 4, INPUTS = 7, OUTPUTS = 3 };
  const unroll_optimizer_attr *attr = p->node->attr;
  const uint32_t param = plan_in(p, 0);
  const unroll_tensor_view *v = plan_view(p, param);
  uint32_t have = 0;
  if (!plan_real(p, v->dtype) || attr->kind < 0 || attr->kind >= UNROLL_OPTIMIZER_COUNT)
    return plan_decline(p, "dtype %d, kind %d", v->dtype, attr->kind);
  for (uint32_t i = 0; i < INPUTS; i++)
    have |= plan_in(p, i) != UNROLL_NO_TENSOR ? 1u << i : 0u;
  for (uint32_t i = 0; i < OUTPUTS; i++)
    have |= plan_out(p, i) != UNROLL_NO_TENSOR ? 1u << (8 + i) : 0u;
  const uint32_t needed = 0xFu | (attr->kind == UNROLL_SGD ? 0u : 1u << 5) | (attr->kind >= UNROLL_ADAM ? 1u << 6 : 0u);
  if ((have & needed) != needed || (attr->kind == UNROLL_SGD && !(have >> 5 & 1u) && (have >> 9 & 1u)))
    return plan_decline(p, "optimizer kind %d lacks an input: %#x of %#x", attr->kind, have, needed);
  const uint32_t width = plan_width(p, v->dtype);
  plan_launch(p, "optimizer.cl", "optimizer", "-Dreal=%s -DWIDTH=%u -DBLOCKS=%d -DKIND=%d -DHAVE=%uu",
              dtype_c(v->dtype), width, BLOCKS, attr->kind, have);
  plan_elements(p, param, (int64_t)width * BLOCKS);
  for (uint32_t i = 0; i < INPUTS; i++)
    arg_tensor(p, plan_in(p, i));
  for (uint32_t i = 0; i < OUTPUTS; i++)
    arg_tensor(p, plan_out(p, i));
  arg_extent(p, plan_axes(p, param, 0, v->rank));
  const double values[] = {attr->beta1,     1 - attr->beta1,  log(attr->beta1), attr->beta2,
                           1 - attr->beta2, log(attr->beta2), attr->epsilon,    attr->weight_decay};
  for (size_t i = 0; i < sizeof values / sizeof *values; i++)
    arg_real(p, v->dtype, values[i]);
  return UNROLL_OK;
}
