/* SPDX-License-Identifier: Apache-2.0 */
/* nn_layers.c: stacks of recurrent layers, linear and embedding layers. */
#include "nn/nn_private.h"
#include <inttypes.h>

static bool check_options(unroll_graph *g, const unroll_rnn_options *o) {
  if (!o || !UNROLL_HAS(unroll_rnn_options, o, lengths))
    graph_fail(g, UNROLL_E_INVALID, "rnn: its options are missing, or their struct_size is too small");
  else if (o->cell <= UNROLL_CELL_NONE || o->cell >= UNROLL_CELL_COUNT)
    graph_fail(g, UNROLL_E_INVALID, "rnn: %d is no cell (UNROLL_CELL_*)", o->cell);
  else if (o->layers < 1)
    graph_fail(g, UNROLL_E_RANGE, "rnn: %d layers, expected at least 1", o->layers);
  else if (o->hidden < 1 || o->hidden > INT64_MAX / 8)
    graph_fail(g, UNROLL_E_RANGE, "rnn: hidden size %" PRId64 ", expected at least 1", o->hidden);
  else if (!(o->dropout >= 0 && o->dropout < 1))
    graph_fail(g, UNROLL_E_RANGE, "rnn: dropout %g, expected 0 <= p < 1", o->dropout);
  return !graph_failed(g);
}

unroll_tensor unroll_rnn(unroll_tensor x, const char *prefix, const unroll_rnn_options *o,
                         const unroll_rnn_state *initial, unroll_rnn_state *last) {
  unroll_graph *g = x.graph;
  char text[GRAPH_DESCRIBE];
  if (!g || graph_failed(g) || !check_options(g, o))
    return unroll_none();
  if (g->parent)
    return graph_fail(g, UNROLL_E_UNSUPPORTED, "rnn: the body of a scan cannot hold a layer");
  if (graph_spec(x)->rank != 3)
    return graph_fail(g, UNROLL_E_SHAPE, "rnn: x is %s, expected [T,B,I]", graph_describe(g, x.id, text));
  if (UNROLL_HAS(unroll_rnn_options, o, checkpoint) && o->checkpoint)
    return nn_rnn_in_segments(x, prefix, o, initial, last);
  const int32_t D = o->bidirectional ? 2 : 1, dtype = graph_spec(x)->dtype;
  const int64_t H = o->hidden, GH = (int64_t)layer_gates(o->cell) * H;
  for (int32_t l = 0; l < o->layers; l++) {
    const int64_t I = graph_failed(g) ? 1 : graph_spec(x)->shape[2];
    unroll_tensor y[2] = {unroll_none(), unroll_none()};
    for (int32_t d = 0; d < D; d++) {
      const int32_t at = l * D + d;
      const unroll_layer_inputs in = {
          .x = x,
          .W_x = nn_layer_param(g, prefix, "W_x", l, d, dtype, 2, (int64_t[]){GH, I}),
          .W_h = nn_layer_param(g, prefix, "W_h", l, d, dtype, 2, (int64_t[]){GH, H}),
          .b = nn_layer_param(g, prefix, "b", l, d, dtype, 1, &GH),
          .b_n =
              o->cell == UNROLL_CELL_GRU_AFTER ? nn_layer_param(g, prefix, "b_n", l, d, dtype, 1, &H) : unroll_none(),
          .h0 = initial && initial->h ? initial->h[at] : unroll_none(),
          .c0 = o->cell == UNROLL_CELL_LSTM && initial && initial->c ? initial->c[at] : unroll_none(),
          .lengths = o->lengths};
      const unroll_layer_attr attr = {.cell = o->cell,
                                      .direction = d ? UNROLL_REVERSE : UNROLL_FORWARD,
                                      .activation = o->activation ? o->activation : UNROLL_TANH};
      const unroll_layer_outputs out = unroll_layer(&in, &attr, l);
      y[d] = out.y;
      if (last && last->h)
        last->h[at] = out.h_last;
      if (last && last->c)
        last->c[at] = out.c_last;
    }
    x = D == 2 ? unroll_concat(y, 2, 2) : y[0];
    if (o->dropout > 0 && l + 1 < o->layers)
      x = unroll_dropout(x, o->dropout);
  }
  return x;
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

unroll_tensor unroll_embedding_layer(unroll_tensor ids, const char *prefix, int32_t dtype, int64_t V, int64_t E) {
  unroll_graph *g = ids.graph;
  if (!g || graph_failed(g))
    return unroll_none();
  return unroll_embedding(nn_param(g, prefix, "weight", dtype, 2, (int64_t[]){V, E}), ids);
}
