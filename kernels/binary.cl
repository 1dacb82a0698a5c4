/* SPDX-License-Identifier: Apache-2.0 */
/*
 * binary.cl: y = f(a, b) with NumPy's broadcasting, after the host collapsed the axes: a stride of 0 repeats. KIND
 * numbers the functions as unroll/plugin.h does. One work-item owns WIDTH neighbouring elements of the innermost axis,
 * along which an operand is either dense (A_INNER, B_INNER 1) or one value (0).
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
#ifndef A_INNER
#define A_INNER 1
#endif
#ifndef B_INNER
#define B_INNER 1
#endif
#ifndef ADDED /* a is a sum of two: of a and of more, which lies as a does */
#define ADDED 0
#endif
#if ADDED
#define ADDED_ARGUMENT const __global in_t *more, long more_at,
#else
#define ADDED_ARGUMENT
#endif
#include "walk.cl"

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

#if KIND >= 6 && KIND <= 11
#define RESULT(x) CAT(convert_, out_v)(x) & (out_v)(1)
#endif
/* max and min hand NaN on, whichever side it comes from. */
static out_v apply(in_v a, in_v b) {
#if KIND == 0
  return a + b;
#elif KIND == 1
  return a - b;
#elif KIND == 2
  return a * b;
#elif KIND == 3 && INTEGER
  return b == (in_v)(0) ? (in_v)(0) : a / (b == (in_v)(0) ? (in_v)(1) : b);
#elif KIND == 3
  return a / b;
#elif KIND == 4 && INTEGER
  return a > b ? a : b;
#elif KIND == 4
  return (a > b) | isnan(a) ? a : b;
#elif KIND == 5 && INTEGER
  return a < b ? a : b;
#elif KIND == 5
  return (a < b) | isnan(a) ? a : b;
#elif KIND == 6
  return RESULT(a == b);
#elif KIND == 7
  return RESULT(a != b);
#elif KIND == 8
  return RESULT(a < b);
#elif KIND == 9
  return RESULT(a <= b);
#elif KIND == 10
  return RESULT(a > b);
#elif KIND == 11
  return RESULT(a >= b);
#elif KIND == 12
  return a * fma(-b, b, (in_v)(1));
#elif KIND == 13
  return a * b * ((in_v)(1) - b);
#elif KIND == 14
  return b > (in_v)(0) ? a : (in_v)(0);
#endif
}

__kernel void binary(const __global in_t *a, long a_at, ADDED_ARGUMENT const __global in_t *b, long b_at, __global out_t *y, long y_at,
                     long8 extent, long8 y_stride, long8 a_stride, long8 b_stride, long inner, long items) {
  const long id = (long)get_global_id(0), strips = (inner + WIDTH - 1) / WIDTH;
  if (id >= items)
    return;
  const long row = OUTER > 0 ? id / strips : 0, i = (id - row * strips) * WIDTH, n = inner - i;
#if ADDED
  more += more_at + place(extent, a_stride, row) + i;
#endif
  a += a_at + place(extent, a_stride, row);
  b += b_at + place(extent, b_stride, row);
  y += y_at + place(extent, y_stride, row) + i;
#if ADDED
  const in_v p = load(a + i, n) + load(more, n);
#elif A_INNER
  const in_v p = load(a + i, n);
#else
  const in_v p = (in_v)(*a);
#endif
#if B_INNER
  const in_v q = load(b + i, n);
#else
  const in_v q = (in_v)(*b);
#endif
  store(apply(p, q), y, n);
}
