/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sample.cl: an index, or several, for each row of x [rows][N]. One work-item owns a row.
 *
 * argmax       the first largest; NaN counts as largest
 * top_k        the k largest in descending order, with their values; NaN counts as largest, ties by lower index
 * categorical  by inversion from softmax(x) over the top_k largest (0: all; ties by lower index), and of those the
 *              likeliest whose probabilities sum to top_p (0: all)
 *
 * The k-th largest value, and the one at which the sum reaches top_p, are found by bisection over the bits of an integer
 * key that orders like the floats: BITS passes over the row, and no memory.
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
  real top = x[0]; /* not x[best]: a compiler of Intel's crashes on what follows it */
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

/* Each the first of those that come after the one before. values and ids may be NULL. */
__kernel void top_k(const __global real *x, long x_at, __global real *values, long values_at, __global int *ids,
                    long ids_at, long N, long k, long items) {
  const long row = (long)get_global_id(0);
  if (row >= items)
    return;
  x += x_at + row * N;
  bits_t last = 0;
  long last_at = -1; /* none yet */
  for (long m = 0; m < k; m++) {
    bits_t best = 0;
    long best_at = -1;
    real found = 0; /* not x[best_at]: as in argmax */
    for (long i = 0; i < N; i++) {
      const bits_t key = key_of(x[i]);
      const bool after = last_at < 0 || key < last || (key == last && i > last_at);
      if (after && (best_at < 0 || key > best)) {
        best = key;
        best_at = i;
        found = x[i];
      }
    }
    if (values)
      values[values_at + row * k + m] = found;
    if (ids)
      ids[ids_at + row * k + m] = (int)best_at;
    last = best;
    last_at = best_at;
  }
}

/* Is an element with this key kept? tied counts those that are equal to limit, in the order of calls. */
static bool is_kept(bits_t key, bits_t limit, long ties, long *tied) {
  return key > limit || (key == limit && (*tied)++ < ties);
}

/* The sum of exp(x - top) over what is kept and has a key of least or more. */
static real kept_weight(const __global real *x, long N, bits_t limit, long ties, bits_t least, real top) {
  real sum = 0;
  long tied = 0;
  for (long i = 0; i < N; i++) {
    const bits_t key = key_of(x[i]);
    if (is_kept(key, limit, ties, &tied) && key >= least)
      sum += exp(x[i] - top);
  }
  return sum;
}

__kernel void categorical(const __global real *x, long x_at, __global int *y, long y_at, long N, long top_k, real top_p,
                          uint key0, uint key1, ulong t, long row_first, long items) {
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
  real sum = kept_weight(x, N, limit, ties, 0, top);
  if (top_p > 0 && sum > 0) { /* which it is not where a row has NaN: that keeps all */
    const real wanted = top_p * sum;
    bits_t value = 0;
    for (int bit = BITS - 1; bit >= 0; bit--) {
      const bits_t trial = value | (bits_t)1 << bit;
      if (kept_weight(x, N, limit, ties, trial, top) >= wanted)
        value = trial;
    }
    const real above = value + 1 > value ? kept_weight(x, N, limit, ties, value + 1, top) : 0;
    real each = 0;
    long same = 0, needed = 1;
    for (long i = 0; i < N; i++)
      if (key_of(x[i]) == value) {
        each = exp(x[i] - top);
        same++;
      }
    if (value == limit)
      same = min(same, ties);
    while (needed < same && above + (real)needed * each < wanted)
      needed++;
    limit = value;
    ties = needed;
    sum = kept_weight(x, N, limit, ties, 0, top);
  }
  unroll_philox_key site = {{key0, key1}};
  const real target = (real)unroll_uniform(unroll_philox_word(site, t, (uint)(row_first + row), 0)) * sum;
  real reached = 0;
  long chosen = 0, tied = 0;
  for (long i = 0; i < N; i++)
    if (is_kept(key_of(x[i]), limit, ties, &tied)) {
      chosen = i;
      reached += exp(x[i] - top);
      if (reached > target)
        break;
    }
  y[y_at + row] = (int)chosen;
}
