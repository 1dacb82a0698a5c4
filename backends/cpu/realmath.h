/* SPDX-License-Identifier: Apache-2.0 */
/* The functions of libm under one name for both element types: R(exp_)(x). */
#ifndef CPU_REALMATH_H
#define CPU_REALMATH_H
#include <math.h>

#define REALMATH(name, f, d)                               \
  static inline float name##_f32(float x) { return f(x); } \
  static inline double name##_f64(double x) { return d(x); }
REALMATH(exp_, expf, exp)
REALMATH(log_, logf, log)
REALMATH(sqrt_, sqrtf, sqrt)
REALMATH(tanh_, tanhf, tanh)
REALMATH(abs_, fabsf, fabs)
REALMATH(expm1_, expm1f, expm1)
REALMATH(log1p_, log1pf, log1p)
#undef REALMATH

/* σ(x) = 1/(1+e^-x). The exponent is never positive, so nothing overflows on the way. */
static inline float sigmoid_f32(float x) {
  const float e = expf(-fabsf(x));
  return (x < 0 ? e : 1.0f) / (1.0f + e);
}
static inline double sigmoid_f64(double x) {
  const double e = exp(-fabs(x));
  return (x < 0 ? e : 1.0) / (1.0 + e);
}
#endif
