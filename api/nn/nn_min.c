/* SPDX-License-Identifier: Apache-2.0 */
/* nn_min.c: minGRU and minLSTM (Feng et al. 2024): gates of the input alone, so that h = a⊙h₋ + u with all a and u known. */
#include "nn/nn_private.h"

/* Gates of all steps. f' = f/(f + i) = σ(softplus(-a_i) - softplus(-a_f)): no quotient of two numbers that are both 0. */
static void gates(const nn_rnn *r, const unroll_tensor *a, unroll_tensor *keep, unroll_tensor *take) {
  if (r->o.cell == UNROLL_RNN_MIN_GRU) {
    *take = unroll_sigmoid(a[0]);
    *keep = unroll_sigmoid(unroll_unary(a[0], UNROLL_NEG));
    return;
  }
  const unroll_tensor d =
      unroll_sub(nn_softplus(unroll_unary(a[1], UNROLL_NEG)), nn_softplus(unroll_unary(a[0], UNROLL_NEG)));
  *keep = unroll_sigmoid(d);
  *take = unroll_sigmoid(unroll_unary(d, UNROLL_NEG));
}

/* Side by side along the last axis: minGRU z n, minLSTM f' i' n. */
static unroll_tensor joined(const nn_rnn *r, unroll_tensor keep, unroll_tensor take, unroll_tensor n, int32_t axis) {
  const unroll_tensor all[3] = {keep, take, n};
  const uint32_t first = r->o.cell == UNROLL_RNN_MIN_GRU;
  return unroll_concat(all + first, 3 - first, axis);
}

unroll_tensor nn_min_step(const nn_rnn *r, unroll_tensor xw, unroll_tensor h, unroll_tensor *of_step) {
  unroll_tensor a[3] = {unroll_none(), unroll_none(), unroll_none()}, keep, take;
  for (int64_t k = 0; k < r->G; k++)
    a[k] = unroll_slice(xw, 1, k * r->H, r->H);
  gates(r, a, &keep, &take);
  const unroll_tensor n = nn_activate(a[r->G - 1], &r->g, 0, unroll_none());
  if (of_step)
    *of_step = joined(r, keep, take, n, 1);
  return unroll_add(unroll_mul(keep, h), unroll_mul(take, n));
}

nn_cell_outputs nn_min_cell(const nn_rnn *r, const nn_cell_inputs *in) {
  const unroll_tensor none = unroll_none();
  nn_cell_outputs out = {none, none, none, none, none};
  unroll_graph *g = in->x.graph;
  if (!g || graph_failed(g))
    return out;
  const tensor_spec sx = *graph_spec(in->x);
  const int64_t H = r->H, GH = r->G * H;
  const int32_t l = in->layer, d = in->direction;
  g->layer = l; /* for dumps and messages */
  g->direction = d;
  const unroll_tensor h0 = nn_first_state(in->h0, in, H, "h");
  const unroll_tensor x = r->o.lengths.graph ? unroll_length_mask(in->x, r->o.lengths) : in->x;
  const unroll_tensor W = nn_layer_param(g, in->prefix, "W_x", l, d, sx.dtype, 2, (int64_t[]){GH, sx.shape[2]});
  const unroll_tensor b = nn_layer_param(g, in->prefix, "b", l, d, sx.dtype, 1, &GH);
  unroll_tensor a[3] = {unroll_none(), unroll_none(), unroll_none()}, keep, take;
  for (int64_t k = 0; k < r->G; k++)
    a[k] = unroll_matmul_add(x, 0, unroll_slice(W, 0, k * H, H), 1, unroll_slice(b, 0, k * H, H));
  gates(r, a, &keep, &take);
  const unroll_tensor n = nn_activate(a[r->G - 1], &r->g, 0, none);
  unroll_tensor u = unroll_mul(take, n);
  if (r->o.gates) {
    out.gates = joined(r, keep, take, n, 2);
    if (r->o.lengths.graph)
      out.gates = unroll_length_mask(out.gates, r->o.lengths);
  }
  if (nn_check_tap(in->tap_h, in, H, "h") && in->tap_h.graph)
    u = unroll_add(u, in->tap_h);
  out.y = unroll_linear_scan(keep, u, h0, r->o.lengths, d, &out.h_last);
  g->layer = g->direction = -1;
  return out;
}
