/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lstm_gates.cl: the pointwise half of an LSTM step and its gradient. pre, gates and dpre are [B][4][H], gates i f g
 * o; the rest is [B][H]. One work-item owns WIDTH neighbouring units, so that each of its streams is one vector load
 * or store.
 *
 *   c = f c_prev + i g, h = o tanh(c)               i, f, o = sigmoid(pre), g = tanh(pre)
 */
#include "activations.cl"
#include "added.cl"
#include "vectors.cl"
#ifndef HAVE /* bit i: edge i, inputs before outputs, is there */
#define HAVE 0xFFFFFFFFu
#endif
#define HAS(i) ((HAVE >> (i)) & 1u)

__kernel VECTORISED void lstm_gates(const __global real *pre, long pre_at, const __global real *c_prev, long c_prev_at,
                                    __global real *h, long h_at, __global real *c, long c_at, __global real *gates,
                                    long gates_at, long H, long items) {
  const long id = (long)get_global_id(0), strips = (H + WIDTH - 1) / WIDTH;
  if (id >= items)
    return;
  const long row = id / strips, j = (id - row * strips) * WIDTH, n = H - j, at = row * H + j;
  pre += pre_at + row * 4 * H + j;
  const vec i = sigmoid(load(pre, n)), f = sigmoid(load(pre + H, n));
  const vec g = hyperbolic_tangent(load(pre + 2 * H, n)), o = sigmoid(load(pre + 3 * H, n));
  const vec c_new = fma(f, load(c_prev + c_prev_at + at, n), i * g);
#if HAS(2)
  store(o * hyperbolic_tangent(c_new), h + h_at + at, n);
#endif
#if HAS(3)
  store(c_new, c + c_at + at, n);
#endif
#if HAS(4)
  gates += gates_at + row * 4 * H + j;
  store(i, gates, n);
  store(f, gates + H, n);
  store(g, gates + 2 * H, n);
  store(o, gates + 3 * H, n);
#endif
}

/* tanh(c) is computed again: that is cheaper than to keep it. */
__kernel VECTORISED void lstm_gates_grad(const __global real *gates, long gates_at, const __global real *c_prev,
                                         long c_prev_at, const __global real *dh, long dh_at, ADDED_ARGUMENT const __global real *dc,
                                         long dc_at, __global real *dpre, long dpre_at, __global real *dc_prev,
                                         long dc_prev_at, long H, long items) {
  const long id = (long)get_global_id(0), strips = (H + WIDTH - 1) / WIDTH;
  if (id >= items)
    return;
  const long row = id / strips, j = (id - row * strips) * WIDTH, n = H - j, at = row * H + j;
  gates += gates_at + row * 4 * H + j;
  const vec i = load(gates, n), f = load(gates + H, n), g = load(gates + 2 * H, n), o = load(gates + 3 * H, n);
  const vec before = load(c_prev + c_prev_at + at, n), y = hyperbolic_tangent(fma(f, before, i * g));
#if HAS(2)
  const vec d_h = load(dh + dh_at + at, n) PLUS_ADDED(at, n);
#else
  const vec d_h = (vec)(0);
#endif
#if HAS(3)
  const vec d_c = fma(d_h * o, fma(-y, y, (vec)(1)), load(dc + dc_at + at, n));
#else
  const vec d_c = d_h * o * fma(-y, y, (vec)(1));
#endif
#if HAS(4)
  dpre += dpre_at + row * 4 * H + j;
  store(d_c * g * i * ((vec)(1) - i), dpre, n);
  store(d_c * before * f * ((vec)(1) - f), dpre + H, n);
  store(d_c * i * fma(-g, g, (vec)(1)), dpre + 2 * H, n);
  store(d_h * y * o * ((vec)(1) - o), dpre + 3 * H, n);
#endif
#if HAS(5)
  store(d_c * f, dc_prev + dc_prev_at + at, n);
#endif
}
