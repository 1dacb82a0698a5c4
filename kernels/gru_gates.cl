/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gru_gates.cl: the pointwise thirds of a step of the GRU that resets before the product, and their gradients. rz, drz
 * and the pre of gru_reset are [B][2][H], blocks r z; the rest is [B][H]. One work-item owns WIDTH neighbouring units.
 *
 *   r, z = sigmoid(pre), rh = r h_prev;  then n = tanh(pre of the second product), h = (1 - z) n + z h_prev
 */
#include "activations.cl"
#include "added.cl"
#include "vectors.cl"
#ifndef HAVE /* bit i: edge i, inputs before outputs, is there */
#define HAVE 0xFFFFFFFFu
#endif
#define HAS(i) ((HAVE >> (i)) & 1u)

__kernel VECTORISED void gru_reset(const __global real *pre, long pre_at, const __global real *h_prev, long h_prev_at,
                                   __global real *rz, long rz_at, __global real *rh, long rh_at, long H, long items) {
  const long id = (long)get_global_id(0), strips = (H + WIDTH - 1) / WIDTH;
  if (id >= items)
    return;
  const long row = id / strips, j = (id - row * strips) * WIDTH, n = H - j, at = row * H + j;
  pre += pre_at + row * 2 * H + j;
  const vec r = sigmoid(load(pre, n)), z = sigmoid(load(pre + H, n));
#if HAS(2)
  rz += rz_at + row * 2 * H + j;
  store(r, rz, n);
  store(z, rz + H, n);
#endif
#if HAS(3)
  store(r * load(h_prev + h_prev_at + at, n), rh + rh_at + at, n);
#endif
}

__kernel VECTORISED void gru_reset_grad(const __global real *rz, long rz_at, const __global real *h_prev,
                                        long h_prev_at, const __global real *drz, long drz_at, const __global real *drh,
                                        long drh_at, __global real *dpre, long dpre_at, __global real *dh_prev,
                                        long dh_prev_at, long H, long items) {
  const long id = (long)get_global_id(0), strips = (H + WIDTH - 1) / WIDTH;
  if (id >= items)
    return;
  const long row = id / strips, j = (id - row * strips) * WIDTH, n = H - j, at = row * H + j;
  rz += rz_at + row * 2 * H + j;
  const vec r = load(rz, n), z = load(rz + H, n);
  vec d_r = (vec)(0), d_z = (vec)(0), d_rh = (vec)(0);
#if HAS(2)
  drz += drz_at + row * 2 * H + j;
  d_r = load(drz, n);
  d_z = load(drz + H, n);
#endif
#if HAS(3)
  d_rh = load(drh + drh_at + at, n);
  d_r += d_rh * load(h_prev + h_prev_at + at, n);
#endif
#if HAS(4)
  dpre += dpre_at + row * 2 * H + j;
  store(d_r * r * ((vec)(1) - r), dpre, n);
  store(d_z * z * ((vec)(1) - z), dpre + H, n);
#endif
#if HAS(5)
  store(d_rh * r, dh_prev + dh_prev_at + at, n);
#endif
}

__kernel VECTORISED void gru_update(const __global real *pre, long pre_at, const __global real *rz, long rz_at,
                                    const __global real *h_prev, long h_prev_at, __global real *h, long h_at,
                                    __global real *n_out, long n_out_at, long H, long items) {
  const long id = (long)get_global_id(0), strips = (H + WIDTH - 1) / WIDTH;
  if (id >= items)
    return;
  const long row = id / strips, j = (id - row * strips) * WIDTH, n = H - j, at = row * H + j;
  const vec y = hyperbolic_tangent(load(pre + pre_at + at, n)), z = load(rz + rz_at + row * 2 * H + H + j, n);
#if HAS(3)
  store(fma((vec)(1) - z, y, z * load(h_prev + h_prev_at + at, n)), h + h_at + at, n);
#endif
#if HAS(4)
  store(y, n_out + n_out_at + at, n);
#endif
}

__kernel VECTORISED void gru_update_grad(const __global real *rz, long rz_at, const __global real *n_in, long n_in_at,
                                         const __global real *h_prev, long h_prev_at, const __global real *dh,
                                         long dh_at, ADDED_ARGUMENT __global real *dpre, long dpre_at, __global real *drz, long drz_at,
                                         __global real *dh_prev, long dh_prev_at, long H, long items) {
  const long id = (long)get_global_id(0), strips = (H + WIDTH - 1) / WIDTH;
  if (id >= items)
    return;
  const long row = id / strips, j = (id - row * strips) * WIDTH, n = H - j, at = row * H + j;
  const vec z = load(rz + rz_at + row * 2 * H + H + j, n), y = load(n_in + n_in_at + at, n);
  const vec d = load(dh + dh_at + at, n) PLUS_ADDED(at, n);
#if HAS(4)
  store(d * ((vec)(1) - z) * fma(-y, y, (vec)(1)), dpre + dpre_at + at, n);
#endif
#if HAS(5)
  drz += drz_at + row * 2 * H + j;
  store((vec)(0), drz, n);
  store(d * (load(h_prev + h_prev_at + at, n) - y), drz + H, n);
#endif
#if HAS(6)
  store(d * z, dh_prev + dh_prev_at + at, n);
#endif
}
