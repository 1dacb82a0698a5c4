/* SPDX-License-Identifier: Apache-2.0 */
/* Elementwise ops, moves, sums over axes. Integers count nothing but their bytes. */
#include "count.h"
#include <math.h>
#include <string.h>

/* ---- which element types a map has: what its kernel sets when it is called ---- */
static int32_t from_type, to_type;
#define KERNEL(from, to)                                                                            \
  static void kernel_##from##_##to(const cpu_node *node, int64_t n, void *y, const void *const *in, \
                                   const int64_t *stride) {                                         \
    (void)node, (void)n, (void)y, (void)in, (void)stride;                                           \
    from_type = from;                                                                               \
    to_type = to;                                                                                   \
  }
/* clang-format off */
#define KERNELS(from)                                                                                      \
  KERNEL(from, 0) KERNEL(from, 1) KERNEL(from, 4) KERNEL(from, 5)                                          \
  KERNEL(from, 6) KERNEL(from, 7) KERNEL(from, 8)                                                          \
  static const cpu_map_fn kernels_##from[UNROLL_DTYPE_COUNT] = {                                           \
      [0] = kernel_##from##_0, [1] = kernel_##from##_1, [4] = kernel_##from##_4, [5] = kernel_##from##_5,  \
      [6] = kernel_##from##_6, [7] = kernel_##from##_7, [8] = kernel_##from##_8};
KERNELS(0) KERNELS(1) KERNELS(4) KERNELS(5) KERNELS(6) KERNELS(7) KERNELS(8)
static const cpu_map_fn *const all_kernels[UNROLL_DTYPE_COUNT] = {
    [0] = kernels_0, [1] = kernels_1, [4] = kernels_4, [5] = kernels_5,
    [6] = kernels_6, [7] = kernels_7, [8] = kernels_8};
/* clang-format on */

cpu_map_fn cpu_cast_kernel(int32_t from, int32_t to) { return all_kernels[from] ? all_kernels[from][to] : NULL; }
static cpu_map_fn same(int32_t dtype) { return cpu_cast_kernel(dtype, dtype); }
static cpu_map_fn of_bytes(uint32_t bytes) { /* any type of that size: only moved */
  return same(bytes == 1 ? UNROLL_U8 : bytes == 8 ? UNROLL_I64 : UNROLL_I32);
}
cpu_map_fn cpu_copy_kernel(uint32_t bytes) { return of_bytes(bytes); }
cpu_map_fn cpu_select_kernel(uint32_t bytes) { return of_bytes(bytes); }
cpu_map_fn cpu_constant_kernel(int32_t dtype) { return same(dtype); }

static bool is_real(int32_t dtype) { return dtype == UNROLL_F32 || dtype == UNROLL_F64; }

cpu_map_fn cpu_unary_kernel(int32_t kind, int32_t dtype) {
  const bool whole = kind == UNROLL_NEG || kind == UNROLL_ABS || kind == UNROLL_SIGN || kind == UNROLL_SQUARE;
  if (kind == UNROLL_COPY)
    return of_bytes(cpu_dtype_size(dtype));
  if ((kind == UNROLL_LOGICAL_NOT) != (dtype == UNROLL_BOOL))
    return NULL;
  return kind == UNROLL_LOGICAL_NOT || whole || is_real(dtype) ? same(dtype) : NULL;
}

cpu_map_fn cpu_binary_kernel(int32_t kind, int32_t dtype) {
  if (kind >= UNROLL_TANH_GRAD || dtype == UNROLL_BOOL || !(dtype == UNROLL_I64 || dtype == UNROLL_I32))
    return is_real(dtype) || (dtype == UNROLL_BOOL && (kind == UNROLL_EQ || kind == UNROLL_NE)) ? same(dtype) : NULL;
  return same(dtype);
}

/* ---- values of any type ---- */

static int64_t whole_at(const void *p, int32_t dtype) {
  switch (dtype) {
  case UNROLL_I64: return *(const int64_t *)p;
  case UNROLL_I32: return *(const int32_t *)p;
  case UNROLL_I8: return *(const int8_t *)p;
  default: return *(const uint8_t *)p; /* u8, bool */
  }
}

static int64_t get_whole(uint32_t in, int64_t at, int32_t dtype) {
  return whole_at(raw_in(in, at, cpu_dtype_size(dtype)), dtype);
}

static void put_whole(int64_t at, int32_t dtype, int64_t x) {
  void *p = raw_out(0, at, cpu_dtype_size(dtype));
  if (dtype == UNROLL_BOOL)
    x = x != 0;
  memcpy(p, &x, cpu_dtype_size(dtype)); /* the low bytes: little endian */
}

static int64_t clamp(double x, double low, double high) {
  const double limit = 0x1p63;
  x = isnan(x) ? 0 : x < low ? low : x > high ? high : x;
  return x >= limit ? INT64_MAX : (int64_t)x;
}

static void put_real_as(int64_t at, int32_t dtype, double x) {
  switch (dtype) {
  case UNROLL_F64: *(double *)raw_out(0, at, 8) = x; break;
  case UNROLL_F32: *(float *)raw_out(0, at, 4) = (float)x; break;
  case UNROLL_I64: put_whole(at, dtype, clamp(x, (double)INT64_MIN, 0x1p63)); break;
  case UNROLL_I32: put_whole(at, dtype, clamp(x, INT32_MIN, INT32_MAX)); break;
  case UNROLL_I8: put_whole(at, dtype, clamp(x, INT8_MIN, INT8_MAX)); break;
  case UNROLL_U8: put_whole(at, dtype, clamp(x, 0, UINT8_MAX)); break;
  default: put_whole(at, dtype, x != 0); break; /* bool */
  }
}

static void cast(int64_t at, int64_t from) {
  const void *p = raw_in(0, from, cpu_dtype_size(from_type));
  if (from_type == UNROLL_F64)
    put_real_as(at, to_type, *(const double *)p);
  else if (from_type == UNROLL_F32)
    put_real_as(at, to_type, (double)*(const float *)p);
  else if (to_type == UNROLL_F64)
    *(double *)raw_out(0, at, 8) = (double)whole_at(p, from_type);
  else if (to_type == UNROLL_F32)
    *(float *)raw_out(0, at, 4) = (float)whole_at(p, from_type);
  else
    put_whole(at, to_type, whole_at(p, from_type));
}

/* ---- unary and binary ---- */

static num unary(int32_t kind, num x) {
  switch (kind) {
  case UNROLL_NEG: return one_step(-x.v);
  case UNROLL_ABS: return one_step(fabs(x.v));
  case UNROLL_SIGN: return one_step(x.v > 0 ? 1 : x.v < 0 ? -1 : x.v);
  case UNROLL_EXP: return function(exp, x);
  case UNROLL_LOG: return function(log, x);
  case UNROLL_SQRT: return function(sqrt, x);
  case UNROLL_EXPM1: return function(expm1, x);
  case UNROLL_LOG1P: return function(log1p, x);
  case UNROLL_TANH: return function(tanh, x);
  case UNROLL_SIGMOID: return function(logistic, x);
  case UNROLL_RECIPROCAL: return over(number(1), x);
  case UNROLL_SQUARE: return times(x, x);
  default: return more(x, number(0)) || isnan(x.v) ? x : number(0); /* relu */
  }
}

static int64_t unary_whole(int32_t kind, int64_t x) {
  const uint64_t u = (uint64_t)x;
  switch (kind) {
  case UNROLL_NEG: return (int64_t)(0 - u);
  case UNROLL_ABS: return x < 0 ? (int64_t)(0 - u) : x;
  case UNROLL_SIGN: return (x > 0) - (x < 0);
  case UNROLL_SQUARE: return (int64_t)(u * u);
  default: return !x; /* logical_not */
  }
}

static num binary(int32_t kind, num a, num b) {
  switch (kind) {
  case UNROLL_ADD: return plus(a, b);
  case UNROLL_SUB: return minus(a, b);
  case UNROLL_MUL: return times(a, b);
  case UNROLL_DIV: return over(a, b);
  case UNROLL_MAX: return larger(a, b);
  case UNROLL_MIN: return smaller(a, b);
  case UNROLL_EQ: return one_step(a.v == b.v);
  case UNROLL_NE: return one_step(a.v != b.v);
  case UNROLL_LT: return one_step(a.v < b.v);
  case UNROLL_LE: return one_step(a.v <= b.v);
  case UNROLL_GT: return one_step(a.v > b.v);
  case UNROLL_GE: return one_step(a.v >= b.v);
  case UNROLL_TANH_GRAD: return times(a, minus(number(1), times(b, b)));
  case UNROLL_SIGMOID_GRAD: return times(times(a, b), minus(number(1), b));
  default: return more(b, number(0)) ? a : number(0); /* relu_grad */
  }
}

static int64_t binary_whole(int32_t kind, int64_t a, int64_t b) {
  const uint64_t x = (uint64_t)a, y = (uint64_t)b;
  switch (kind) {
  case UNROLL_ADD: return (int64_t)(x + y);
  case UNROLL_SUB: return (int64_t)(x - y);
  case UNROLL_MUL: return (int64_t)(x * y);
  case UNROLL_DIV: return b == 0 ? 0 : b == -1 ? (int64_t)(0 - x) : a / b;
  case UNROLL_MAX: return a > b ? a : b;
  case UNROLL_MIN: return a < b ? a : b;
  case UNROLL_EQ: return a == b;
  case UNROLL_NE: return a != b;
  case UNROLL_LT: return a < b;
  case UNROLL_LE: return a <= b;
  case UNROLL_GT: return a > b;
  default: return a >= b;
  }
}

static void element(const cpu_call *c, int64_t at, const int64_t *from) {
  const cpu_node *node = c->node;
  const int32_t kind = node->attr.unary.kind; /* binary's too */
  switch (node->op) {
  case UNROLL_OP_CONSTANT: put_real_as(at, to_type, node->attr.constant.value); return;
  case UNROLL_OP_CAST: cast(at, from[0]); return;
  case UNROLL_OP_SELECT:
    look_at(1, from[1], node->map.out_bytes);
    look_at(2, from[2], node->map.out_bytes);
    if (*(const uint8_t *)raw_in(0, from[0], 1))
      move(0, at, 1, from[1], node->map.out_bytes);
    else
      move(0, at, 2, from[2], node->map.out_bytes);
    return;
  case UNROLL_OP_UNARY:
    if (kind == UNROLL_COPY)
      break;
    if (is_real(from_type))
      put(0, at, unary(kind, get(0, from[0])));
    else
      put_whole(at, from_type, unary_whole(kind, get_whole(0, from[0], from_type)));
    return;
  case UNROLL_OP_BINARY: {
    const bool compares = kind >= UNROLL_EQ && kind <= UNROLL_GE;
    if (!is_real(from_type))
      put_whole(at, compares ? UNROLL_BOOL : from_type,
                binary_whole(kind, get_whole(0, from[0], from_type), get_whole(1, from[1], from_type)));
    else if (compares)
      put_whole(at, UNROLL_BOOL, binary(kind, get(0, from[0]), get(1, from[1])).v != 0);
    else
      put(0, at, binary(kind, get(0, from[0]), get(1, from[1])));
    return;
  }
  default: break;
  }
  move(0, at, 0, from[0], node->map.out_bytes);
}

void cpu_run_map(const cpu_call *c) {
  const cpu_map *m = &c->node->map;
  c->node->kernel(c->node, 0, NULL, NULL, NULL);
  counting_begin(c, cpu_dtype_size(from_type));
  for (int64_t at = 0; at < count_of(cpu_out(c, 0)); at++) {
    int64_t from[CPU_MAX_MAPPED] = {m->start[0], m->start[1], m->start[2]}, left = at;
    for (int32_t a = m->rank - 1; a >= 0; a--) {
      const int64_t index = a > 0 ? left % m->size[a] : left;
      left = a > 0 ? left / m->size[a] : 0;
      for (int32_t i = 0; i < m->n_in; i++)
        from[i] += index * m->stride[i][a];
    }
    element(c, at, from);
  }
  counting_end();
}

/* ---- moves ---- */

void cpu_run_pad(const cpu_call *c) {
  const cpu_operand *x = cpu_in(c, 0);
  const unroll_pad_attr *attr = &c->node->attr.pad;
  const int64_t outer = cpu_count(x, 0, attr->axis), n = x->size[attr->axis],
                inner = cpu_count(x, attr->axis + 1, x->rank);
  const int64_t rows = attr->before + n + attr->after;
  counting_begin(c, 4);
  for (int64_t at = 0; at < outer * rows * inner; at++) {
    const int64_t row = at / inner % rows - attr->before;
    const bool inside = row >= 0 && row < n;
    move(0, at, inside ? 0 : UINT32_MAX, inside ? (at / inner / rows * n + row) * inner + at % inner : 0,
         c->node->elem_bytes);
  }
  counting_end();
}

void cpu_run_concat(const cpu_call *c) {
  const cpu_operand *y = cpu_out(c, 0);
  const int32_t axis = c->node->attr.axis.axis;
  const int64_t outer = cpu_count(y, 0, axis), y_row = cpu_count(y, axis, y->rank);
  int64_t begin = 0;
  counting_begin(c, 4);
  for (uint32_t i = 0; i < c->node->n_in; i++) {
    const int64_t row = cpu_count(cpu_in(c, i), axis, y->rank);
    for (int64_t o = 0; o < outer; o++)
      for (int64_t j = 0; j < row; j++)
        move(0, o * y_row + begin + j, i, o * row + j, c->node->elem_bytes);
    begin += row;
  }
  counting_end();
}

void cpu_run_reverse(const cpu_call *c) {
  const cpu_operand *x = cpu_in(c, 0);
  const int64_t T = x->size[0], B = x->size[1], row = cpu_count(x, 2, x->rank);
  counting_begin(c, 4);
  for (int64_t at = 0; at < T * B * row; at++) {
    const int64_t t = at / row / B, length = get_i32(1, at / row % B), n = length < T ? length : T;
    move(0, at, 0, at + ((t < n ? n - 1 - t : t) - t) * B * row, c->node->elem_bytes);
  }
  counting_end();
}

void cpu_run_length_mask(const cpu_call *c) {
  const cpu_operand *x = cpu_in(c, 0);
  const unroll_length_mask_attr *attr = &c->node->attr.length_mask;
  const bool whole = attr->time_axis == 0;
  const int64_t B = x->size[whole ? 1 : 0], row = cpu_count(x, whole ? 2 : 1, x->rank);
  const uint32_t bytes = c->node->elem_bytes;
  counting_begin(c, 4);
  for (int64_t at = 0; at < count_of(x); at++) {
    const int64_t t = whole ? at / row / B : c->at->t;
    const bool takes_x = (t < get_i32(2, at / row % B)) != (attr->invert != 0);
    look_at(0, at, bytes);
    if (has_in(1))
      look_at(1, at, bytes);
    move(0, at, takes_x ? 0 : has_in(1) ? 1 : UINT32_MAX, at, bytes);
  }
  counting_end();
}

/* ---- sums ---- */

static void reduce_block(const cpu_call *c, int32_t dtype, int64_t begin, int64_t end, num *sum, int64_t *whole) {
  const cpu_operand *x = cpu_in(c, 0);
  const unroll_reduce_attr *attr = &c->node->attr.reduce;
  const int64_t after = x->rank > 0 ? cpu_count(x, 1, x->rank) : 1;
  for (int64_t at = begin * after; at < end * after; at++) {
    int64_t to = 0, left = at, stride = 1;
    for (int32_t a = x->rank - 1; a >= 0; a--) {
      if (!(attr->axes >> a & 1)) {
        to += left % x->size[a] * stride;
        stride *= x->size[a];
      }
      left /= x->size[a];
    }
    if (is_real(dtype)) {
      const num v = get(0, at);
      sum[to] = attr->kind == UNROLL_SUM           ? plus(sum[to], v)
                : attr->kind == UNROLL_SUM_SQUARES ? plus(sum[to], times(v, v))
                : attr->kind == UNROLL_REDUCE_MAX  ? larger(sum[to], v)
                                                   : smaller(sum[to], v);
    } else {
      const int64_t v = get_whole(0, at, dtype);
      whole[to] = attr->kind == UNROLL_SUM ? binary_whole(UNROLL_ADD, whole[to], v)
                  : attr->kind == UNROLL_SUM_SQUARES
                      ? binary_whole(UNROLL_ADD, whole[to], binary_whole(UNROLL_MUL, v, v))
                  : attr->kind == UNROLL_REDUCE_MAX ? binary_whole(UNROLL_MAX, whole[to], v)
                                                    : binary_whole(UNROLL_MIN, whole[to], v);
    }
  }
}

static void reduce(const cpu_call *c, int32_t dtype) {
  const cpu_operand *x = cpu_in(c, 0);
  const unroll_reduce_attr *attr = &c->node->attr.reduce;
  const bool lowest = attr->kind == UNROLL_REDUCE_MAX, highest = attr->kind == UNROLL_REDUCE_MIN;
  counting_begin(c, cpu_dtype_size(dtype));
  const int64_t n = count_of(cpu_out(c, 0)), extent = x->rank > 0 ? x->size[0] : 1;
  num *sum = zeros(n), *whole_room = zeros(n);
  int64_t *whole = (int64_t *)(void *)whole_room;
  const num first = number(lowest ? -INFINITY : highest ? INFINITY : 0);
  for (int64_t i = 0; i < n; i++) {
    sum[i] = first;
    whole[i] = lowest ? INT64_MIN : highest ? INT64_MAX : 0;
  }
  if (attr->block > 0 && is_real(dtype)) { /* y = c or 0; y += each block's own sum */
    num *y = load(1, 0, n);
    const int64_t blocks = (extent + attr->block - 1) / attr->block;
    for (int64_t i = 0; i < blocks; i++) {
      const int64_t begin = (attr->block_order == UNROLL_BLOCKS_FROM_FIRST ? i : blocks - 1 - i) * attr->block;
      for (int64_t k = 0; k < n; k++)
        sum[k] = first;
      reduce_block(c, dtype, begin, extent - begin < attr->block ? extent : begin + attr->block, sum, whole);
      for (int64_t k = 0; k < n; k++)
        y[k] = plus(y[k], sum[k]);
    }
    sum = y;
  } else {
    reduce_block(c, dtype, 0, extent, sum, whole);
    for (int64_t i = 0; !is_real(dtype) && has_in(1) && i < n; i++)
      whole[i] = binary_whole(UNROLL_ADD, whole[i], get_whole(1, i, dtype));
  }
  for (int64_t i = 0; i < n; i++)
    if (is_real(dtype))
      put(0, i, sum[i]);
    else
      put_whole(i, dtype, whole[i]);
  counting_end();
}

static void reduce_f32(const cpu_call *c) { reduce(c, UNROLL_F32); }
static void reduce_f64(const cpu_call *c) { reduce(c, UNROLL_F64); }
static void reduce_i64(const cpu_call *c) { reduce(c, UNROLL_I64); }
static void reduce_i32(const cpu_call *c) { reduce(c, UNROLL_I32); }
cpu_run_fn cpu_reduce_run(int32_t dtype) {
  switch (dtype) {
  case UNROLL_F32: return reduce_f32;
  case UNROLL_F64: return reduce_f64;
  case UNROLL_I64: return reduce_i64;
  case UNROLL_I32: return reduce_i32;
  default: return NULL;
  }
}
