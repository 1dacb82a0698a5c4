/* SPDX-License-Identifier: Apache-2.0 */
/* nn_layers.c: stacks of recurrent layers, linear and embedding layers. */
#include "nn/nn_private.h"
#include <inttypes.h>

/* What a layer has as keep_h or keep_c: zoneout's mask of every step, or its expectation. */
static unroll_tensor zone(const nn_rnn *r, unroll_tensor x, double p) {
  if (p == 0 || !x.graph || graph_failed(x.graph))
    return unroll_none();
  const tensor_spec s = *graph_spec(x);
  return r->o.inference ? nn_filled(x.graph, s.dtype, 2, (int64_t[]){s.shape[1], r->H}, p)
                        : nn_step_masks(x.graph, s.dtype, nn_time(x), s.shape[1], r->H, p);
}

unroll_layer_inputs nn_layer_inputs(const nn_rnn *r, const nn_cell_inputs *in, int64_t I) {
  unroll_graph *g = in->x.graph;
  const int32_t l = in->layer, d = in->direction, dtype = graph_spec(in->x)->dtype;
  const int64_t H = r->H, GH = r->G * H;
  unroll_layer_inputs at = {.x = in->x, .h0 = in->h0, .lengths = r->o.lengths};
  at.W_x = nn_layer_param(g, in->prefix, "W_x", l, d, dtype, 2, (int64_t[]){GH, I});
  at.W_h = nn_layer_param(g, in->prefix, "W_h", l, d, dtype, 2, (int64_t[]){GH, H});
  at.b = nn_layer_param(g, in->prefix, "b", l, d, dtype, 1, &GH);
  if (r->family == UNROLL_CELL_GRU_AFTER)
    at.b_n = nn_layer_param(g, in->prefix, "b_n", l, d, dtype, 1, &H);
  if (r->family == UNROLL_CELL_LSTM)
    at.c0 = in->c0;
  at.W_h = nn_dropout_matrix(at.W_h, r->o.weight_dropout);
  if (r->o.state_dropout > 0 && !graph_failed(g))
    at.h_mask = nn_mask(g, dtype, graph_spec(in->x)->shape[1], H, r->o.state_dropout);
  at.keep_h = zone(r, in->x, r->o.zoneout_h);
  at.keep_c = zone(r, in->x, r->o.zoneout_c);
  return at;
}

unroll_layer_attr nn_layer_attr(const nn_rnn *r, int32_t direction) {
  static const int32_t unary_of[] = {[UNROLL_ACTIVATION_TANH] = UNROLL_TANH,
                                     [UNROLL_ACTIVATION_SIGMOID] = UNROLL_SIGMOID,
                                     [UNROLL_ACTIVATION_RELU] = UNROLL_RELU};
  return (unroll_layer_attr){.cell = r->family,
                             .direction = direction,
                             .activation = r->family == UNROLL_CELL_RNN ? unary_of[r->f.kind] : UNROLL_TANH};
}

/* One layer, one direction. */
static nn_cell_outputs one_way(const nn_rnn *r, const nn_cell_inputs *in) {
  if (r->family == UNROLL_CELL_NONE)
    return nn_min_cell(r, in);
  if (!r->layer || in->residual.graph)
    return nn_cell(r, in);
  if (r->o.checkpoint)
    return nn_layer_in_segments(r, in);
  const unroll_layer_inputs at = nn_layer_inputs(r, in, graph_spec(in->x)->shape[2]);
  const unroll_layer_attr attr = nn_layer_attr(r, in->direction);
  const unroll_layer_outputs out = unroll_layer(&at, &attr, in->layer);
  return (nn_cell_outputs){out.y, out.h_last, out.c_last, unroll_none(), unroll_none()};
}

static void give(unroll_tensor *array, int32_t i, unroll_tensor x) {
  if (array)
    array[i] = x;
}

/* All directions of layer l; without a residual from layer to layer. */
static unroll_tensor one_layer(const nn_rnn *r, unroll_tensor x, const char *prefix, int32_t l,
                               const unroll_rnn_state *initial, unroll_rnn_state *last) {
  const int32_t D = r->o.bidirectional ? 2 : 1;
  unroll_graph *g = x.graph;
  if (!g || graph_failed(g))
    return unroll_none();
  const int64_t I = graph_spec(x)->shape[2];
  const int32_t residual = I == D * r->P ? r->o.residual : UNROLL_RESIDUAL_NONE;
  /* What stands past a sequence's end may be anything. */
  const unroll_tensor known = residual && r->o.lengths.graph && l == 0 ? unroll_length_mask(x, r->o.lengths) : x;
  unroll_tensor y[2] = {unroll_none(), unroll_none()};
  for (int32_t d = 0; d < D && !graph_failed(g); d++) {
    const int32_t at = l * D + d;
    nn_cell_inputs in = {.prefix = prefix, .layer = l, .direction = d ? UNROLL_REVERSE : UNROLL_FORWARD, .x = x};
    in.h0 = initial && initial->h ? initial->h[at] : unroll_none();
    in.c0 = initial && initial->c ? initial->c[at] : unroll_none();
    in.tap_h = r->o.taps && r->o.taps->h ? r->o.taps->h[at] : unroll_none();
    in.tap_c = r->o.taps && r->o.taps->c ? r->o.taps->c[at] : unroll_none();
    if (residual == UNROLL_RESIDUAL_STATES)
      in.residual = D == 2 ? unroll_slice(known, 2, d * r->P, r->P) : known;
    const nn_cell_outputs out = one_way(r, &in);
    y[d] = out.y;
    give(last ? last->h : NULL, at, out.h_last);
    give(last ? last->c : NULL, at, out.c_last);
    give(r->o.cells, at, out.c_all);
    give(r->o.gates, at, out.gates);
  }
  const unroll_tensor both = D == 2 ? unroll_concat(y, 2, 2) : y[0];
  return residual == UNROLL_RESIDUAL_OUTPUTS ? unroll_add(both, known) : both;
}

unroll_tensor unroll_rnn(unroll_tensor x, const char *prefix, const unroll_rnn_options *o,
                         const unroll_rnn_state *initial, unroll_rnn_state *last) {
  unroll_graph *g = x.graph;
  nn_rnn r;
  char text[GRAPH_DESCRIBE];
  if (!g || graph_failed(g) || !nn_rnn_check(g, "rnn", o, &r))
    return unroll_none();
  if (g->parent)
    return graph_fail(g, UNROLL_E_UNSUPPORTED, "rnn: the body of a scan cannot hold a layer");
  if (graph_spec(x)->rank != 3 || !gradient_is_real(graph_spec(x)))
    return graph_fail(g, UNROLL_E_SHAPE, "rnn: x is %s, expected real numbers [T,B,I]", graph_describe(g, x.id, text));
  x = nn_dropout(x, r.o.input_dropout, r.o.same_mask);
  if (r.stack)
    return nn_dropout(nn_stack_in_segments(&r, x, prefix, initial, last), r.o.output_dropout, r.o.same_mask);
  for (int32_t l = 0; l < r.o.layers; l++) {
    x = one_layer(&r, x, prefix, l, initial, last);
    if (l + 1 < r.o.layers)
      x = nn_dropout(x, r.o.dropout, r.o.same_mask);
  }
  return nn_dropout(x, r.o.output_dropout, r.o.same_mask);
}

unroll_tensor unroll_linear(unroll_tensor x, const char *prefix, int64_t out_features, int bias) {
  unroll_graph *g = x.graph;
  char text[GRAPH_DESCRIBE];
  if (!g || graph_failed(g))
    return unroll_none();
  const tensor_spec s = *graph_spec(x);
  if (s.rank < 1)
    return graph_fail(g, UNROLL_E_SHAPE, "linear: x is %s, expected [..,I]", graph_describe(g, x.id, text));
  if (out_features < 1)
    return graph_fail(g, UNROLL_E_RANGE, "linear: %" PRId64 " outputs, expected at least 1", out_features);
  const int64_t shape[2] = {out_features, s.shape[s.rank - 1]};
  const unroll_tensor W = nn_param(g, prefix, "W", s.dtype, 2, shape);
  const unroll_tensor b = bias ? nn_param(g, prefix, "b", s.dtype, 1, shape) : unroll_none();
  return unroll_matmul_add(x, 0, W, 1, b);
}

unroll_tensor unroll_linear_tied(unroll_tensor x, unroll_tensor weight, const char *prefix, int bias) {
  unroll_graph *g = x.graph;
  char text[GRAPH_DESCRIBE];
  if (!g || graph_failed(g) || !weight.graph)
    return g && !graph_failed(g) ? graph_fail(g, UNROLL_E_INVALID, "linear: its weight is missing") : unroll_none();
  const tensor_spec s = *graph_spec(weight);
  if (s.rank != 2)
    return graph_fail(g, UNROLL_E_SHAPE, "linear: its weight is %s, expected [out_features,I]",
                      graph_describe(weight.graph, weight.id, text));
  return unroll_matmul_add(x, 0, weight, 1, bias ? nn_param(g, prefix, "b", s.dtype, 1, s.shape) : unroll_none());
}

unroll_tensor unroll_embedding_layer(unroll_tensor ids, const char *prefix, int32_t dtype, int64_t V, int64_t E) {
  unroll_graph *g = ids.graph;
  if (!g || graph_failed(g))
    return unroll_none();
  return unroll_embedding(nn_param(g, prefix, "weight", dtype, 2, (int64_t[]){V, E}), ids);
}
