/* SPDX-License-Identifier: Apache-2.0 */
/* Elementwise ops: one walk over y, one kernel per meaning and element type. */
#include "cpu_ops.h"
#include "realmath.h"

/* ---- the walk ---- */
static void map_range(const void *work, int64_t begin, int64_t end) {
  const cpu_call *c = work;
  const cpu_map *m = &c->node->map;
  const int32_t inner = m->rank - 1;
  char *y = cpu_out_data(c, 0);
  int64_t stride[CPU_MAX_MAPPED] = {0};
  for (int32_t i = 0; i < m->n_in; i++)
    stride[i] = m->stride[i][inner];
  for (int64_t at = begin; at < end;) {
    int64_t start[CPU_MAX_MAPPED] = {m->start[0], m->start[1], m->start[2]}, left = at, n = end - at;
    if (inner > 0 && n > m->size[inner] - at % m->size[inner])
      n = m->size[inner] - at % m->size[inner];
    for (int32_t a = inner; a >= 0; a--) {
      const int64_t index = a > 0 ? left % m->size[a] : left;
      left = a > 0 ? left / m->size[a] : 0;
      for (int32_t i = 0; i < m->n_in; i++)
        start[i] += index * m->stride[i][a];
    }
    const void *in[CPU_MAX_MAPPED] = {NULL};
    for (int32_t i = 0; i < m->n_in; i++)
      in[i] = (char *)cpu_in_data(c, (uint32_t)i) + start[i] * (int64_t)m->in_bytes[i];
    c->node->kernel(c->node, n, y + at * (int64_t)m->out_bytes, in, stride);
    at += n;
  }
}

void cpu_run_map(const cpu_call *c) {
  const cpu_operand *y = cpu_out(c, 0);
  cpu_pool_ranges(c->pool, cpu_count(y, 0, y->rank), 8, map_range, c);
}

/* ---- kernels ---- */
#define KERNEL(name) \
  static void name(const cpu_node *node, int64_t n, void *out, const void *const *in, const int64_t *stride)

/* y = f(x), y = f(a, b) */
#define UNARY_KERNEL(name, out_type, type, expression) \
  KERNEL(name) {                                       \
    out_type *y = out;                                 \
    const type *xs = in[0];                            \
    const int64_t sx = stride[0];                      \
    (void)node;                                        \
    for (int64_t i = 0; i < n; i++) {                  \
      const type x = xs[i * sx];                       \
      y[i] = (out_type)(expression);                   \
    }                                                  \
  }
#define BINARY_KERNEL(name, out_type, type, expression) \
  KERNEL(name) {                                        \
    out_type *y = out;                                  \
    const type *as = in[0], *bs = in[1];                \
    const int64_t sa = stride[0], sb = stride[1];       \
    (void)node;                                         \
    for (int64_t i = 0; i < n; i++) {                   \
      const type a = as[i * sa], b = bs[i * sb];        \
      y[i] = (out_type)(expression);                    \
    }                                                   \
  }

/* Of any dtype, by the size of an element. */
#define MOVE_KERNELS(type, bytes)                                              \
  UNARY_KERNEL(copy_##bytes, type, type, x)                                    \
  KERNEL(select_##bytes) {                                                     \
    type *y = out;                                                             \
    const uint8_t *condition = in[0];                                          \
    const type *as = in[1], *bs = in[2];                                       \
    (void)node;                                                                \
    for (int64_t i = 0; i < n; i++)                                            \
      y[i] = condition[i * stride[0]] ? as[i * stride[1]] : bs[i * stride[2]]; \
  }
MOVE_KERNELS(uint8_t, 1)
MOVE_KERNELS(uint16_t, 2)
MOVE_KERNELS(uint32_t, 4)
MOVE_KERNELS(uint64_t, 8)

cpu_map_fn cpu_copy_kernel(uint32_t elem_bytes) {
  return elem_bytes == 1 ? copy_1 : elem_bytes == 2 ? copy_2 : elem_bytes == 4 ? copy_4 : copy_8;
}
cpu_map_fn cpu_select_kernel(uint32_t elem_bytes) {
  return elem_bytes == 1 ? select_1 : elem_bytes == 2 ? select_2 : elem_bytes == 4 ? select_4 : select_8;
}

UNARY_KERNEL(logical_not, uint8_t, uint8_t, !x)
BINARY_KERNEL(eq_bool, uint8_t, uint8_t, !a == !b)
BINARY_KERNEL(ne_bool, uint8_t, uint8_t, !a != !b)

/* A NaN compares as false: where b is one, b is taken; where a is one, it has to be asked for. */
#define LARGER(a, b) ((a) > (b) || isnan(a) ? (a) : (b))
#define SMALLER(a, b) ((a) < (b) || isnan(a) ? (a) : (b))
#include "as_f32.inc"
#include "ops_map.inc"

#include "as_f64.inc"
#include "ops_map.inc"

/* Integers wrap around; the unsigned type says so without undefined behaviour. x/0 is 0. */
#define WRAP(a, op, b) ((uint64_t)(a)op(uint64_t)(b))
#define INTEGER_UNARIES(type, t)                                         \
  UNARY_KERNEL(neg_##t, type, type, WRAP(0, -, x))                       \
  UNARY_KERNEL(abs_##t, type, type, x > 0 ? (uint64_t)x : WRAP(0, -, x)) \
  UNARY_KERNEL(sign_##t, type, type, x > 0 ? 1 : x == 0 ? 0 : -1)        \
  UNARY_KERNEL(square_##t, type, type, WRAP(x, *, x))                    \
  static const cpu_map_fn unary_##t[UNROLL_UNARY_COUNT] = {              \
      [UNROLL_NEG] = neg_##t, [UNROLL_ABS] = abs_##t, [UNROLL_SIGN] = sign_##t, [UNROLL_SQUARE] = square_##t};
#define INTEGER_BINARIES(type, t)                                                                     \
  BINARY_KERNEL(add_##t, type, type, WRAP(a, +, b))                                                   \
  BINARY_KERNEL(sub_##t, type, type, WRAP(a, -, b))                                                   \
  BINARY_KERNEL(mul_##t, type, type, WRAP(a, *, b))                                                   \
  BINARY_KERNEL(div_##t, type, type, b == 0 ? 0 : b == -1 ? (type)WRAP(0, -, a) : (type)(a / b))      \
  BINARY_KERNEL(max_##t, type, type, a > b ? a : b)                                                   \
  BINARY_KERNEL(min_##t, type, type, a < b ? a : b)                                                   \
  BINARY_KERNEL(eq_##t, uint8_t, type, a == b)                                                        \
  BINARY_KERNEL(ne_##t, uint8_t, type, a != b)                                                        \
  BINARY_KERNEL(lt_##t, uint8_t, type, a < b)                                                         \
  BINARY_KERNEL(le_##t, uint8_t, type, a <= b)                                                        \
  BINARY_KERNEL(gt_##t, uint8_t, type, a > b)                                                         \
  BINARY_KERNEL(ge_##t, uint8_t, type, a >= b)                                                        \
  static const cpu_map_fn binary_##t[UNROLL_BINARY_COUNT] = {                                         \
      [UNROLL_ADD] = add_##t, [UNROLL_SUB] = sub_##t, [UNROLL_MUL] = mul_##t, [UNROLL_DIV] = div_##t, \
      [UNROLL_MAX] = max_##t, [UNROLL_MIN] = min_##t, [UNROLL_EQ] = eq_##t,   [UNROLL_NE] = ne_##t,   \
      [UNROLL_LT] = lt_##t,   [UNROLL_LE] = le_##t,   [UNROLL_GT] = gt_##t,   [UNROLL_GE] = ge_##t};
INTEGER_UNARIES(int64_t, i64)
INTEGER_UNARIES(int32_t, i32)
INTEGER_UNARIES(int8_t, i8)
INTEGER_UNARIES(uint8_t, u8)
INTEGER_BINARIES(int64_t, i64)
INTEGER_BINARIES(int32_t, i32)

cpu_map_fn cpu_unary_kernel(int32_t kind, int32_t dtype) {
  if (kind == UNROLL_COPY)
    return cpu_copy_kernel(cpu_dtype_size(dtype));
  switch (dtype) {
  case UNROLL_F32: return unary_f32[kind];
  case UNROLL_F64: return unary_f64[kind];
  case UNROLL_I64: return unary_i64[kind];
  case UNROLL_I32: return unary_i32[kind];
  case UNROLL_I8: return unary_i8[kind];
  case UNROLL_U8: return unary_u8[kind];
  case UNROLL_BOOL: return kind == UNROLL_LOGICAL_NOT ? logical_not : NULL;
  default: return NULL;
  }
}

cpu_map_fn cpu_binary_kernel(int32_t kind, int32_t dtype) {
  switch (dtype) {
  case UNROLL_F32: return binary_f32[kind];
  case UNROLL_F64: return binary_f64[kind];
  case UNROLL_I64: return binary_i64[kind];
  case UNROLL_I32: return binary_i32[kind];
  case UNROLL_BOOL: return kind == UNROLL_EQ ? eq_bool : kind == UNROLL_NE ? ne_bool : NULL;
  default: return NULL;
  }
}
