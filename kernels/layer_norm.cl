/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layer_norm.cl: rows of N elements brought to mean 0 and variance 1, then scaled and shifted, and the gradient of that.
 *
 *   xhat = (x - mean)/sqrt(variance + epsilon), y = gain xhat + shift
 *   dx = (d - mean(d) - xhat mean(d xhat))/sqrt(variance + epsilon) with d = dy gain
 *
 * LANES work-items own a row, in the gradient `each` rows, one after the other, whose terms of dgain and dshift they sum
 * up in a row of their own: parts, which further launches add up in order.
 */
#include "norm_row.cl"
#ifndef AFTER /* what y goes through, as unroll/plugin.h numbers the unary functions; 0: nothing */
#define AFTER 0
#endif
#if AFTER
#include "activations.cl"
#endif
#ifndef HAVE /* of layer_norm bit 0: shift; of the gradient bits 0 to 2: dx, dgain, dshift */
#define HAVE 7
#endif
#define HAS(i) ((HAVE >> (i)) & 1)

#if AFTER == 9
#define ACTIVATED(v) hyperbolic_tangent(v)
#elif AFTER == 10
#define ACTIVATED(v) sigmoid(v)
#elif AFTER == 11
static vec rectified(vec x) { return x <= (vec)(0) ? (vec)(0) : x; }
#define ACTIVATED(v) rectified(v)
#else
#define ACTIVATED(v) (v)
#endif

__kernel VECTORISED void layer_norm(const __global real *x, long x_at, const __global real *gain, long gain_at,
                                    const __global real *shift, long shift_at, __global real *y, long y_at, long N,
                                    long shift_row, real epsilon, long items) {
#if LANES > 1
  __local real shared[LANES];
#else
  __local real *shared = 0;
#endif
  const long row = (long)get_global_id(0) / LANES;
  if (row * LANES >= items)
    return;
  x += x_at + row * N;
  y += y_at + row * N;
  gain += gain_at;
#if HAS(0)
  shift += shift_at + row * shift_row;
#endif
  const real mean = mean_of(x, N, shared), rate = rate_of(x, N, mean, epsilon, shared);
  for (long i = LANE * WIDTH; i < N; i += LANES * WIDTH) {
    const long n = N - i;
    const vec xhat = (load(x + i, n) - (vec)(mean)) * (vec)(rate);
#if HAS(0)
    store(ACTIVATED(fma(xhat, load(gain + i, n), load(shift + i, n))), y + i, n);
#else
    store(ACTIVATED(xhat * load(gain + i, n)), y + i, n);
#endif
  }
}

__kernel VECTORISED void layer_norm_grad(const __global real *x, long x_at, const __global real *gain, long gain_at,
                                         const __global real *dy, long dy_at, __global real *dx, long dx_at,
                                         __global real *dgain, long dgain_at, __global real *dshift, long dshift_at,
                                         long N, long rows, long each, real epsilon, long items) {
#if LANES > 1
  __local real shared[LANES];
#else
  __local real *shared = 0;
#endif
  const long part = (long)get_global_id(0) / LANES;
  if (part * LANES >= items)
    return;
  const long first = part * each, last = min(first + each, rows);
  gain += gain_at;
#if HAS(1)
  dgain += dgain_at + part * N;
#endif
#if HAS(2)
  dshift += dshift_at + part * N;
#endif
  for (long row = first; row < last; row++) {
    const __global real *from = x + x_at + row * N, *back = dy + dy_at + row * N;
#if HAS(0) || HAS(1)
    const real mean = mean_of(from, N, shared), rate = rate_of(from, N, mean, epsilon, shared);
#endif
#if HAS(0)
    vec sum = (vec)(0), along = (vec)(0);
    for (long i = LANE * WIDTH; i < N; i += LANES * WIDTH) {
      const vec d = load(back + i, N - i) * load(gain + i, N - i); /* 0 past the row's end */
      sum += d;
      along = fma(d, load(from + i, N - i) - (vec)(mean), along);
    }
    const vec even = (vec)(all_lanes(lanes_of(sum), shared) / N);
    const vec slope = (vec)(all_lanes(lanes_of(along), shared) * rate / N);
#endif
    for (long i = LANE * WIDTH; i < N; i += LANES * WIDTH) {
      const long n = N - i;
      const vec d = load(back + i, n);
#if HAS(0) || HAS(1)
      const vec xhat = (load(from + i, n) - (vec)(mean)) * (vec)(rate);
#endif
#if HAS(0)
      store((vec)(rate)*fma(-xhat, slope, fma(d, load(gain + i, n), -even)), dx + dx_at + row * N + i, n);
#endif
#if HAS(1)
      store(row == first ? d * xhat : fma(d, xhat, load(dgain + i, n)), dgain + i, n);
#endif
#if HAS(2)
      store(row == first ? d : d + load(dshift + i, n), dshift + i, n);
#endif
    }
  }
}
