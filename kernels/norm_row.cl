/* SPDX-License-Identifier: Apache-2.0 */
/*
 * norm_row.cl: mean and variance of a row of N elements, for inclusion. LANES work-items of a work-group own a row: 1
 * where a core does one thing after another. Four partial sums a lane, so that no addition waits for the one before.
 */
#ifndef NORM_ROW
#define NORM_ROW
#include "prefetch.cl"
#include "vectors.cl"
#ifndef LANES
#define LANES 1
#endif

#if LANES > 1
/* The sum over the lanes of a group, for all of them. */
static real all_lanes(real value, __local real *shared) {
  const int lane = (int)get_local_id(0);
  shared[lane] = value;
  barrier(CLK_LOCAL_MEM_FENCE);
  for (int n = LANES / 2; n > 0; n /= 2) {
    if (lane < n)
      shared[lane] += shared[lane + n];
    barrier(CLK_LOCAL_MEM_FENCE);
  }
  const real sum = shared[0];
  barrier(CLK_LOCAL_MEM_FENCE);
  return sum;
}
#define LANE (long)get_local_id(0)
#define ROW_WRITTEN barrier(CLK_GLOBAL_MEM_FENCE) /* before other lanes read it */
#else
#define all_lanes(value, shared) (value)
#define LANE 0L
#define ROW_WRITTEN
#endif

/* By halves, so that few additions wait for each other. */
static real lanes_of(vec v) {
#if WIDTH == 1
  return v;
#else
#if WIDTH == 16
  const CAT(real, 8) v8 = v.lo + v.hi;
#elif WIDTH == 8
  const vec v8 = v;
#endif
#if WIDTH >= 8
  const CAT(real, 4) v4 = v8.lo + v8.hi;
#elif WIDTH == 4
  const vec v4 = v;
#endif
#if WIDTH >= 4
  const CAT(real, 2) v2 = v4.lo + v4.hi;
#else
  const vec v2 = v;
#endif
  return v2.lo + v2.hi;
#endif
}

/* Asks for a row that is far away, while another one is worked on. */
static void expect_row(const __global real *x, long N) {
  for (long i = LANE * WIDTH; i < N; i += LANES * WIDTH)
    PREFETCH(x + i);
}

static real mean_of(const __global real *x, long N, __local real *shared) {
  const long whole = N / WIDTH * WIDTH, step = LANES * WIDTH;
  vec a = (vec)(0), b = a, c = a, d = a;
  long i = LANE * WIDTH;
  for (; i + 3 * step < whole; i += 4 * step) {
    a += VLOAD(0, x + i);
    b += VLOAD(0, x + i + step);
    c += VLOAD(0, x + i + 2 * step);
    d += VLOAD(0, x + i + 3 * step);
  }
  for (; i < whole; i += step)
    a += VLOAD(0, x + i);
  real sum = lanes_of((a + b) + (c + d));
  for (long k = whole + LANE; k < N; k += LANES)
    sum += x[k];
  return all_lanes(sum, shared) / N;
}

/* 1/sqrt(variance + epsilon) */
static real rate_of(const __global real *x, long N, real mean, real epsilon, __local real *shared) {
  const long whole = N / WIDTH * WIDTH, step = LANES * WIDTH;
  vec a = (vec)(0), b = a, c = a, d = a;
  long i = LANE * WIDTH;
  for (; i + 3 * step < whole; i += 4 * step) {
    const vec p = VLOAD(0, x + i) - (vec)(mean), q = VLOAD(0, x + i + step) - (vec)(mean);
    const vec r = VLOAD(0, x + i + 2 * step) - (vec)(mean), s = VLOAD(0, x + i + 3 * step) - (vec)(mean);
    a = fma(p, p, a);
    b = fma(q, q, b);
    c = fma(r, r, c);
    d = fma(s, s, d);
  }
  for (; i < whole; i += step) {
    const vec p = VLOAD(0, x + i) - (vec)(mean);
    a = fma(p, p, a);
  }
  real sum = lanes_of((a + b) + (c + d));
  for (long k = whole + LANE; k < N; k += LANES)
    sum += (x[k] - mean) * (x[k] - mean);
  return 1 / sqrt(all_lanes(sum, shared) / N + epsilon);
}

#endif
