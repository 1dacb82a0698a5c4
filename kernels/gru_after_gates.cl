/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gru_after_gates.cl: the pointwise half of a step of the GRU that resets after the product, and its gradient. xp, hp,
 * dxp and dhp are [B][3][H], blocks r z n; gates is [B][4][H]: r z n and hp's block n; the rest is [B][H]. One
 * work-item owns WIDTH units.
 *
 *   r = sigmoid(xr + hr), z = sigmoid(xz + hz), n = tanh(xn + r hn), h = (1 - z) n + z h_prev
 */
#include "activations.cl"
#include "added.cl"
#include "vectors.cl"
#ifndef HAVE /* bit i: edge i, inputs before outputs, is there */
#define HAVE 0xFFFFFFFFu
#endif
#define HAS(i) ((HAVE >> (i)) & 1u)

__kernel VECTORISED void gru_after_gates(const __global real *xp, long xp_at, const __global real *hp, long hp_at,
                                         const __global real *h_prev, long h_prev_at, __global real *h, long h_at,
                                         __global real *gates, long gates_at, long H, long items) {
  const long id = (long)get_global_id(0), strips = (H + WIDTH - 1) / WIDTH;
  if (id >= items)
    return;
  const long row = id / strips, j = (id - row * strips) * WIDTH, n = H - j, at = row * H + j;
  xp += xp_at + row * 3 * H + j;
  hp += hp_at + row * 3 * H + j;
  const vec r = sigmoid(load(xp, n) + load(hp, n)), z = sigmoid(load(xp + H, n) + load(hp + H, n));
  const vec inner = load(hp + 2 * H, n), y = hyperbolic_tangent(fma(r, inner, load(xp + 2 * H, n)));
#if HAS(3)
  store(fma((vec)(1) - z, y, z * load(h_prev + h_prev_at + at, n)), h + h_at + at, n);
#endif
#if HAS(4)
  gates += gates_at + row * 4 * H + j;
  store(r, gates, n);
  store(z, gates + H, n);
  store(y, gates + 2 * H, n);
  store(inner, gates + 3 * H, n);
#endif
}

__kernel VECTORISED void gru_after_gates_grad(const __global real *gates, long gates_at, const __global real *h_prev,
                                              long h_prev_at, const __global real *dh, long dh_at, ADDED_ARGUMENT __global real *dxp,
                                              long dxp_at, __global real *dhp, long dhp_at, __global real *dh_prev,
                                              long dh_prev_at, long H, long items) {
  const long id = (long)get_global_id(0), strips = (H + WIDTH - 1) / WIDTH;
  if (id >= items)
    return;
  const long row = id / strips, j = (id - row * strips) * WIDTH, n = H - j, at = row * H + j;
  gates += gates_at + row * 4 * H + j;
  const vec r = load(gates, n), z = load(gates + H, n), y = load(gates + 2 * H, n), inner = load(gates + 3 * H, n);
  const vec d = load(dh + dh_at + at, n) PLUS_ADDED(at, n), before = load(h_prev + h_prev_at + at, n);
  const vec d_n = d * ((vec)(1) - z) * fma(-y, y, (vec)(1));
  const vec d_z = d * (before - y) * z * ((vec)(1) - z);
  const vec d_r = d_n * inner * r * ((vec)(1) - r);
#if HAS(3)
  dxp += dxp_at + row * 3 * H + j;
  store(d_r, dxp, n);
  store(d_z, dxp + H, n);
  store(d_n, dxp + 2 * H, n);
#endif
#if HAS(4)
  dhp += dhp_at + row * 3 * H + j;
  store(d_r, dhp, n);
  store(d_z, dhp + H, n);
  store(d_n * r, dhp + 2 * H, n);
#endif
#if HAS(5)
  store(d * z, dh_prev + dh_prev_at + at, n);
#endif
}
