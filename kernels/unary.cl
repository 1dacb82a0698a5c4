/* SPDX-License-Identifier: Apache-2.0 */
/*
 * unary.cl: y = f(x), element by element, and casts. KIND numbers the functions as unroll/plugin.h does; KIND -1 is a
 * cast. One work-item owns WIDTH neighbouring elements.
 */
#ifdef cl_khr_fp64
#pragma OPENCL EXTENSION cl_khr_fp64 : enable
#endif
#ifndef in_t
#define in_t float
#endif
#ifndef out_t
#define out_t float
#endif
#ifndef WIDTH
#define WIDTH 4
#endif
#define CAT_(a, b) a##b
#define CAT(a, b) CAT_(a, b)
#define in_v CAT(in_t, WIDTH)
#define out_v CAT(out_t, WIDTH)
#define VLOAD CAT(vload, WIDTH)
#define VSTORE CAT(vstore, WIDTH)
#ifndef KIND
#define KIND 0
#endif
#ifndef INTEGER
#define INTEGER 0
#endif
#if KIND == 4 || KIND == 9 || KIND == 10
#define real in_t
#define vec in_v
#include "activations.cl"
#endif
#ifndef TO_BOOL /* a cast to bool: x != 0 */
#define TO_BOOL 0
#endif

/* A vector of which n lanes exist. */
static in_v load(const __global in_t *p, long n) {
  if (n >= WIDTH)
    return VLOAD(0, p);
  in_v v = (in_v)(1);
  for (long i = 0; i < n; i++)
    ((in_t *)&v)[i] = p[i];
  return v;
}

static void store(out_v v, __global out_t *p, long n) {
  if (n >= WIDTH)
    VSTORE(v, 0, p);
  else
    for (long i = 0; i < n; i++)
      p[i] = ((out_t *)&v)[i];
}

/* Comparisons of vectors give 0 or -1 in each lane, and false for NaN: what is not chosen by one stays. */
static out_v apply(in_v x) {
#if KIND == -1 && TO_BOOL
  return CAT(convert_, out_v)(x != (in_v)(0)) & (out_v)(1);
#elif KIND == -1
  return CAT(convert_, out_v)(x);
#elif KIND == 0
  return x;
#elif KIND == 1
  return -x;
#elif KIND == 2 && INTEGER
  return x < (in_v)(0) ? -x : x;
#elif KIND == 2
  return fabs(x);
#elif KIND == 3
  return x > (in_v)(0) ? (in_v)(1) : (x < (in_v)(0) ? (in_v)(-1) : x);
#elif KIND == 4
  return exponential(x);
#elif KIND == 5
  return log(x);
#elif KIND == 6
  return sqrt(x);
#elif KIND == 7
  return (in_v)(1) / x;
#elif KIND == 8
  return x * x;
#elif KIND == 9
  return hyperbolic_tangent(x);
#elif KIND == 10
  return sigmoid(x);
#elif KIND == 11
  return x <= (in_v)(0) ? (in_v)(0) : x;
#elif KIND == 12
  return CAT(convert_, out_v)(x == (in_v)(0)) & (out_v)(1);
#elif KIND == 13
  return expm1(x);
#elif KIND == 14
  return log1p(x);
#endif
}

__kernel void unary(const __global in_t *x, long x_at, __global out_t *y, long y_at, long n) {
  const long i = (long)get_global_id(0) * WIDTH;
  if (i < n)
    store(apply(load(x + x_at + i, n - i)), y + y_at + i, n - i);
}
