/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sample.cl: an index for each row of x [rows][N]. One work-item owns a row.
 *
 * argmax       the first largest; NaN counts as largest
 * categorical  by inversion from softmax(x) over the top_k largest (0: all; ties by lower index)
 *
 * The k-th largest value is found by bisection over the bits of an integer key that orders like the floats: BITS
 * counts of the row, and no memory.
 */
#include "philox.h"
#ifdef cl_khr_fp64
#pragma OPENCL EXTENSION cl_khr_fp64 : enable
#endif
#ifndef real
#define real float
#endif
#ifndef bits_t
#define bits_t uint
#define as_bits as_uint
#define BITS 32
#endif

__kernel void argmax(const __global real *x, long x_at, __global int *y, long y_at, long N, long items) {
  const long row = (long)get_global_id(0);
  if (row >= items)
    return;
  x += x_at + row * N;
  long best = 0;
  real top = x[0]; /* not x[best]: a compiler of Intel's crashes on isnan of that */
  for (long i = 1; i < N; i++)
    if (!(x[i] <= top || isnan(top))) {
      best = i;
      top = x[i];
    }
  y[y_at + row] = (int)best;
}

/* Ascending with x; NaN above infinity, both zeros the same. */
static bits_t key_of(real x) {
  const bits_t top = (bits_t)1 << (BITS - 1);
  if (isnan(x))
    return ~(bits_t)0;
  const bits_t b = as_bits(x == 0 ? (real)0 : x);
  return b & top ? ~b : b | top;
}

__kernel void categorical(const __global real *x, long x_at, __global int *y, long y_at, long N, long top_k, uint key0,
                          uint key1, ulong t, long row_first, long items) {
  const long row = (long)get_global_id(0);
  if (row >= items)
    return;
  x += x_at + row * N;
  bits_t limit = 0;
  long ties = N; /* how many of those equal to limit are kept */
  if (top_k > 0 && top_k < N) {
    for (int bit = BITS - 1; bit >= 0; bit--) {
      const bits_t trial = limit | (bits_t)1 << bit;
      long count = 0;
      for (long i = 0; i < N; i++)
        count += key_of(x[i]) >= trial;
      if (count >= top_k)
        limit = trial;
    }
    long above = 0;
    for (long i = 0; i < N; i++)
      above += key_of(x[i]) > limit;
    ties = top_k - above;
  }
  real top = x[0];
  for (long i = 1; i < N; i++)
    top = fmax(top, x[i]);
  real sum = 0;
  long tied = 0;
  for (long i = 0; i < N; i++) {
    const bits_t key = key_of(x[i]);
    if (key > limit || (key == limit && tied++ < ties))
      sum += exp(x[i] - top);
  }
  unroll_philox_key site = {{key0, key1}};
  const real target = (real)unroll_uniform(unroll_philox_word(site, t, (uint)(row_first + row), 0)) * sum;
  real reached = 0;
  long chosen = 0;
  tied = 0;
  for (long i = 0; i < N; i++) {
    const bits_t key = key_of(x[i]);
    if (key > limit || (key == limit && tied++ < ties)) {
      chosen = i;
      reached += exp(x[i] - top);
      if (reached > target)
        break;
    }
  }
  y[y_at + row] = (int)chosen;
}
