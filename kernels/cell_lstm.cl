/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cell_lstm.cl: the pointwise part of an LSTM in layer_forward.cl and layer_backward.cl (Hochreiter & Schmidhuber 1997;
 * Gers et al. 2000). Gates i f g o, in the order of the weights.
 *
 *   c = f c_prev + i g, h = o tanh(c)               i, f, o = sigmoid, g = tanh of the sums
 */
#define GATES 4
#define PHASES 1
#define HAVE_CELL 1
#define KEEP 4 /* i f g o */

static vec cell_forward(int phase, const vec *sum, vec h_prev, vec c_prev, vec *c, vec *keep) {
  keep[0] = sigmoid(sum[0]);
  keep[1] = sigmoid(sum[UNITS]);
  keep[2] = hyperbolic_tangent(sum[2 * UNITS]);
  keep[3] = sigmoid(sum[3 * UNITS]);
  *c = fma(keep[1], c_prev, keep[0] * keep[2]);
  return keep[3] * hyperbolic_tangent(*c);
}

/* From dh and *dc of this step: d [GATES], and *dc of the step before. tanh(c) is computed again: cheaper than kept. With
 * ZONE_C so is c, since h came from the one before its zoneout. */
static vec cell_backward(int phase, vec dh, vec *dc, const vec *keep, vec h, vec h_prev, vec c, vec c_prev, vec *d,
                         vec *d_hidden) {
#if ZONE_C
  c = fma(keep[1], c_prev, keep[0] * keep[2]);
#endif
  const vec i = keep[0], f = keep[1], g = keep[2], o = keep[3], y = hyperbolic_tangent(c);
  const vec d_c = fma(dh * o, fma(-y, y, (vec)(1)), *dc);
  d[0] = d_c * g * i * ((vec)(1) - i);
  d[1] = d_c * c_prev * f * ((vec)(1) - f);
  d[2] = d_c * i * fma(-g, g, (vec)(1));
  d[3] = dh * y * o * ((vec)(1) - o);
  *dc = d_c * f;
  return (vec)(0);
}
