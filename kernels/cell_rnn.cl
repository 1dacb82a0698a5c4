/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cell_rnn.cl: the pointwise part of a vanilla RNN (Elman 1990) in layer_forward.cl and layer_backward.cl: h = f(sum), f
 * the ACTIVATION, numbered as unroll/plugin.h numbers unary ops: 9 tanh, 10 sigmoid, 11 relu. Where reals say how much
 * of the state before stays, f(sum) is kept for the gradient; where bools do, it is the state, or gets none.
 */
#define GATES 1
#define PHASES 1
#define HAVE_CELL 0
#if ZONE_H == 2
#define KEEP 1 /* f(sum) */
#else
#define KEEP 0
#endif

static vec activated(const vec *sum) {
#if ACTIVATION == 9
  return hyperbolic_tangent(sum[0]);
#elif ACTIVATION == 10
  return sigmoid(sum[0]);
#else
  return sum[0] < (vec)(0) ? (vec)(0) : sum[0];
#endif
}

static vec cell_forward(int phase, const vec *sum, vec h_prev, vec c_prev, vec *c, vec *keep) {
#if KEEP
  return keep[0] = activated(sum);
#else
  return activated(sum);
#endif
}

static vec cell_backward(int phase, vec dh, vec *dc, const vec *keep, vec h, vec h_prev, vec c, vec c_prev, vec *d,
                         vec *d_hidden) {
#if KEEP
  h = keep[0];
#endif
#if ACTIVATION == 9
  d[0] = dh * fma(-h, h, (vec)(1));
#elif ACTIVATION == 10
  d[0] = dh * h * ((vec)(1) - h);
#else
  d[0] = h > (vec)(0) ? dh : (vec)(0);
#endif
  return (vec)(0);
}
