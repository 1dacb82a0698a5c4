/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cell_gru.cl: the pointwise part of a GRU whose reset gate comes before the product (Cho et al. 2014, version 1) in
 * layer_forward.cl and layer_backward.cl. A step has two phases, since r h_prev of every unit must be there for n.
 *
 *   forward    0: r, z = sigmoid, rh = r h_prev      1: n = tanh, h = (1 - z) n + z h_prev
 *   backward   0: from dh: dz, dn                    1: from the gradient of rh: dr
 */
#define GATES 3
#define PHASES 2
#define HAVE_CELL 0
#define KEEP 4 /* r z n rh */

/* Phase 0 returns nothing of use. */
static vec cell_forward(int phase, const vec *sum, vec h_prev, vec c_prev, vec *c, vec *keep) {
  if (phase == 0) {
    keep[0] = sigmoid(sum[0]);
    keep[1] = sigmoid(sum[UNITS]);
    keep[3] = keep[0] * h_prev;
    return h_prev;
  }
  keep[2] = hyperbolic_tangent(sum[0]);
  return fma(keep[1], h_prev - keep[2], keep[2]);
}

/* Phase 1's dh is the gradient of rh. Returns what reaches h_prev besides the products. */
static vec cell_backward(int phase, vec dh, vec *dc, const vec *keep, vec h, vec h_prev, vec c, vec c_prev, vec *d,
                         vec *d_hidden) {
  const vec r = keep[0], z = keep[1], n = keep[2];
  if (phase == 0) {
    d[1] = dh * (h_prev - n) * z * ((vec)(1) - z);
    d[2] = dh * ((vec)(1) - z) * fma(-n, n, (vec)(1));
    return dh * z;
  }
  d[0] = dh * h_prev * r * ((vec)(1) - r);
  return dh * r;
}
