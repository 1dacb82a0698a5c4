/* SPDX-License-Identifier: Apache-2.0 */
/*
 * activations.cl: sigmoid, hyperbolic_tangent and exponential of a vector, for inclusion. vec is that of vectors.cl,
 * unless it is defined before, with real, WIDTH and CAT.
 *
 * In float there is no branch, no table and no call, so that they stay vectors with every compiler, and at most one
 * division. With n the integer nearest to x log2(e), exp(x) = 2^n (1 + p(x - n log(2))), p a minimax polynomial for
 * exp(r) - 1 with |r| <= log(2) / 2. A sum with MAGIC rounds to an integer and leaves it in the low bits, from where a
 * shift makes a power of two. Limits are written as selections because those let NaN pass, unlike fmin and fmax.
 *
 * The largest errors over all floats, where quotients are correctly rounded: exponential 1.02, sigmoid 2.00,
 * hyperbolic_tangent 1.98 ulp; where the result is subnormal 2^-149, or 2^-126 if the device flushes those.
 * Exact at 0, with its sign, and at infinity. script/check ulp tries all 2^32.
 */
#ifndef ACTIVATIONS
#define ACTIVATIONS
#ifndef vec
#include "vectors.cl"
#endif

#define IS_DOUBLE_double 1
#define IS_DOUBLE_float 0
#if CAT(IS_DOUBLE_, real)

static vec exponential(vec x) { return exp(x); }
static vec sigmoid(vec x) { return (vec)(1) / ((vec)(1) + exp(-x)); }
static vec hyperbolic_tangent(vec x) { return tanh(x); }

#else

#if WIDTH == 1
#define BITS_OF as_int
#define OF_BITS as_float
#else
#define BITS_OF CAT(as_int, WIDTH)
#define OF_BITS CAT(as_float, WIDTH)
#endif
#define MAGIC 12582912.0f /* 1.5 2^23: the unit in the last place is 1 */
#define LN2_HIGH 0x1.62e43p-1f
#define LN2_LOW -0x1.05c61p-29f

/* exp(r) - 1 for |r| <= log(2) / 2. */
static vec exponential_part(vec r) {
  vec q = fma((vec)(0x1.6ac6b2p-10f), r, (vec)(0x1.123dep-7f));
  q = fma(q, r, (vec)(0x1.555858p-5f));
  q = fma(q, r, (vec)(0x1.55548cp-3f));
  q = fma(q, r, (vec)(0x1.fffffcp-2f));
  return fma(q, r * r, r);
}

/* Two factors, since 2^n alone leaves the range of float where the result is still in it. */
static vec exponential(vec x) {
  x = x > (vec)(89.0f) ? (vec)(89.0f) : x;
  x = x < (vec)(-104.0f) ? (vec)(-104.0f) : x;
  const vec t = fma(x, (vec)(0x1.715476p0f), (vec)(MAGIC + 254.0f)), n = t - (vec)(MAGIC + 254.0f);
  const vec p = exponential_part(fma(n, (vec)(-LN2_LOW), fma(n, (vec)(-LN2_HIGH), x)));
  const vec a = OF_BITS((BITS_OF(t) >> 1) << 23), b = OF_BITS((BITS_OF(t) - (BITS_OF(t) >> 1)) << 23);
  return fma(p, a, a) * b;
}

/*
 * 1 / (1 + exp(-x)), top and bottom times 3/2 2^-24: the bottom is finite as long as the quotient is not 0, and where it
 * is little more than a power of two, so that its rounding counts most, the quotient is not little less than one.
 */
static vec sigmoid(vec x) {
  const vec y = x > (vec)(70.0f) ? (vec)(70.0f) : x;
  const vec t = fma(y, (vec)(-0x1.715476p0f), (vec)(MAGIC + 103.0f)), n = t - (vec)(MAGIC + 103.0f);
  const vec r = fma(n, (vec)(-LN2_LOW), fma(n, (vec)(-LN2_HIGH), -y)), power = OF_BITS(BITS_OF(t) << 23);
  vec q = fma((vec)(0x1.0ef0acp-9f), r, (vec)(0x1.9b5b06p-7f));
  q = fma(q, r, (vec)(0x1.000378p-4f));
  q = fma(q, r, (vec)(0x1.fffed4p-3f));
  q = fma(q, r, (vec)(0x1.7ffffcp-1f));
  q = fma(q, r, (vec)(0x1.8p0f));
  const vec result = (vec)(0x1.8p-24f) / fma(q * r, power, fma(power, (vec)(0x1.8p0f), (vec)(0x1.8p-24f)));
  return x < (vec)(-104.0f) ? (vec)(0) : result;
}

/* (1 - e) / (1 + e) with e = exp(-2 |x|), which does not cancel near 0; then the sign of x. */
static vec hyperbolic_tangent(vec x) {
  vec y = OF_BITS(BITS_OF(x) | (int)0x80000000);
  y = y < (vec)(-10.0f) ? (vec)(-10.0f) : y;
  const vec t = fma(y, (vec)(0x1.715476p1f), (vec)(MAGIC + 127.0f)), n = t - (vec)(MAGIC + 127.0f);
  const vec r = fma(n, (vec)(-0x1.62e43p-2f), y), power = OF_BITS(BITS_OF(t) << 23);
  vec q = fma((vec)(0x1.6de156p-5f), r, (vec)(0x1.123b6cp-3f));
  q = fma(q, r, (vec)(0x1.555344p-2f));
  q = fma(q, r, (vec)(0x1.55549p-1f));
  q = fma(q, r, (vec)(0x1.000002p0f));
  const vec p = fma(q, r * r, r);
  const vec top = fma(-p, power, fma(power, (vec)(-0.5f), (vec)(0.5f)));
  const vec bottom = fma(p, power, fma(power, (vec)(0.5f), (vec)(0.5f)));
  return OF_BITS(BITS_OF(top / bottom) | (BITS_OF(x) & (int)0x80000000));
}

#endif
#endif
