/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cell_gru_after.cl: the pointwise part of a GRU whose reset gate comes after the product (cuDNN's and PyTorch's form of Cho
 * et al. 2014) in layer_forward.cl and layer_backward.cl. Sums: n's part of x, r, z, n's part of h; so the panels of
 * W_x hold n r z, those of W_h r z n.
 *
 *   n = tanh(xn + r hn), h = (1 - z) n + z h_prev   r, z = sigmoid
 */
#define GATES 3
#define PHASES 1
#define HAVE_CELL 0
#define KEEP 4 /* r z n hn */
#define SUMS 4
#define X_SUM 0
#define H_SUM 1
#define X_GATE(i) (((i) + 2) % 3)

static vec cell_forward(int phase, const vec *sum, vec h_prev, vec c_prev, vec *c, vec *keep) {
  keep[0] = sigmoid(sum[UNITS]);
  keep[1] = sigmoid(sum[2 * UNITS]);
  keep[3] = sum[3 * UNITS];
  keep[2] = hyperbolic_tangent(fma(keep[0], keep[3], sum[0]));
  return fma(keep[1], h_prev - keep[2], keep[2]);
}

/* d: r z n of the x side; d_hidden: n of the h side, whose r and z are the same. Returns what reaches h_prev directly. */
static vec cell_backward(int phase, vec dh, vec *dc, const vec *keep, vec h, vec h_prev, vec c, vec c_prev, vec *d,
                         vec *d_hidden) {
  const vec r = keep[0], z = keep[1], n = keep[2], hn = keep[3];
  const vec d_n = dh * ((vec)(1) - z) * fma(-n, n, (vec)(1));
  d[0] = d_n * hn * r * ((vec)(1) - r);
  d[1] = dh * (h_prev - n) * z * ((vec)(1) - z);
  d[2] = d_n;
  *d_hidden = d_n * r;
  return dh * z;
}
