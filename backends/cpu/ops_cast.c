/* SPDX-License-Identifier: Apache-2.0 */
/* Casts between any two of seven element types, and constants. */
#include "cpu_ops.h"
#include "realmath.h"

/* From a real: to an integer toward zero, kept within its range, NaN to 0; to bool x != 0. */
static int64_t integer_of(double x, int64_t low, int64_t high) {
  if (isnan(x))
    return 0;
  if (x >= (double)high) /* (double)INT64_MAX is 2^63, the first that is too large */
    return high;
  return x <= (double)low ? low : (int64_t)x;
}
static double f64_of_real(double x) { return x; }
static float f32_of_real(double x) { return (float)x; }
static int64_t i64_of_real(double x) { return integer_of(x, INT64_MIN, INT64_MAX); }
static int32_t i32_of_real(double x) { return (int32_t)integer_of(x, INT32_MIN, INT32_MAX); }
static int8_t i8_of_real(double x) { return (int8_t)integer_of(x, INT8_MIN, INT8_MAX); }
static uint8_t u8_of_real(double x) { return (uint8_t)integer_of(x, 0, UINT8_MAX); }
static uint8_t flag_of_real(double x) { return x != 0; }

/* From an integer: to a narrower one the low bits stay. */
static double f64_of_integer(int64_t x) { return (double)x; }
static float f32_of_integer(int64_t x) { return (float)x; }
static int64_t i64_of_integer(int64_t x) { return x; }
static int32_t i32_of_integer(int64_t x) { return (int32_t)x; }
static int8_t i8_of_integer(int64_t x) { return (int8_t)x; }
static uint8_t u8_of_integer(int64_t x) { return (uint8_t)x; }
static uint8_t flag_of_integer(int64_t x) { return x != 0; }

#define CAST(to_type, to, from_type, from, family)                                                  \
  static void cast_##to##_##from(const cpu_node *node, int64_t n, void *out, const void *const *in, \
                                 const int64_t *stride) {                                           \
    to_type *y = out;                                                                               \
    const from_type *x = in[0];                                                                     \
    (void)node;                                                                                     \
    for (int64_t i = 0; i < n; i++)                                                                 \
      y[i] = to##_of_##family(x[i * stride[0]]);                                                    \
  }
#define CASTS_AND_CONSTANT(type, t)                                                                                    \
  CAST(type, t, double, f64, real)                                                                                     \
  CAST(type, t, float, f32, real)                                                                                      \
  CAST(type, t, int64_t, i64, integer)                                                                                 \
  CAST(type, t, int32_t, i32, integer)                                                                                 \
  CAST(type, t, int8_t, i8, integer)                                                                                   \
  CAST(type, t, uint8_t, u8, integer)                                                                                  \
  CAST(type, t, uint8_t, flag, integer)                                                                                \
  static const cpu_map_fn casts_to_##t[UNROLL_DTYPE_COUNT] = {                                                         \
      [UNROLL_F64] = cast_##t##_f64,  [UNROLL_F32] = cast_##t##_f32, [UNROLL_I64] = cast_##t##_i64,                    \
      [UNROLL_I32] = cast_##t##_i32,  [UNROLL_I8] = cast_##t##_i8,   [UNROLL_U8] = cast_##t##_u8,                      \
      [UNROLL_BOOL] = cast_##t##_flag};                                                                                \
  static void constant_##t(const cpu_node *node, int64_t n, void *out, const void *const *in, const int64_t *stride) { \
    type *y = out;                                                                                                     \
    const type value = t##_of_real(node->attr.constant.value);                                                         \
    (void)in;                                                                                                          \
    (void)stride;                                                                                                      \
    for (int64_t i = 0; i < n; i++)                                                                                    \
      y[i] = value;                                                                                                    \
  }
CASTS_AND_CONSTANT(double, f64)
CASTS_AND_CONSTANT(float, f32)
CASTS_AND_CONSTANT(int64_t, i64)
CASTS_AND_CONSTANT(int32_t, i32)
CASTS_AND_CONSTANT(int8_t, i8)
CASTS_AND_CONSTANT(uint8_t, u8)
CASTS_AND_CONSTANT(uint8_t, flag) /* bool itself is a macro */

cpu_map_fn cpu_cast_kernel(int32_t from, int32_t to) {
  switch (to) {
  case UNROLL_F64: return casts_to_f64[from];
  case UNROLL_F32: return casts_to_f32[from];
  case UNROLL_I64: return casts_to_i64[from];
  case UNROLL_I32: return casts_to_i32[from];
  case UNROLL_I8: return casts_to_i8[from];
  case UNROLL_U8: return casts_to_u8[from];
  case UNROLL_BOOL: return casts_to_flag[from];
  default: return NULL;
  }
}

cpu_map_fn cpu_constant_kernel(int32_t dtype) {
  switch (dtype) {
  case UNROLL_F64: return constant_f64;
  case UNROLL_F32: return constant_f32;
  case UNROLL_I64: return constant_i64;
  case UNROLL_I32: return constant_i32;
  case UNROLL_I8: return constant_i8;
  case UNROLL_U8: return constant_u8;
  case UNROLL_BOOL: return constant_flag;
  default: return NULL;
  }
}
