/* SPDX-License-Identifier: Apache-2.0 */
/* nn_step.c: one step of a standard cell as ops, for the bodies of scans; and the two shapes that need no attention. */
#include "nn/nn_private.h"
#include <inttypes.h>

bool nn_cell_check(unroll_graph *g, const char *who, int32_t cell, int32_t activation, int64_t hidden) {
  if (cell <= UNROLL_CELL_NONE || cell >= UNROLL_CELL_COUNT)
    graph_fail(g, UNROLL_E_INVALID, "%s: %d is no cell (UNROLL_CELL_*)", who, cell);
  else if (activation && activation != UNROLL_TANH && activation != UNROLL_RELU && activation != UNROLL_SIGMOID)
    graph_fail(g, UNROLL_E_INVALID, "%s: activation %d, expected UNROLL_TANH, UNROLL_RELU or UNROLL_SIGMOID", who,
               activation);
  else if (hidden < 1 || hidden > INT64_MAX / 8)
    graph_fail(g, UNROLL_E_RANGE, "%s: hidden size %" PRId64 ", expected at least 1", who, hidden);
  return !graph_failed(g);
}

unroll_tensor nn_cell_product(unroll_tensor x, const char *prefix, const char *what, const nn_step_cell *cell,
                              unroll_tensor c) {
  unroll_graph *g = x.graph;
  if (!g || graph_failed(g))
    return unroll_none();
  const tensor_spec s = *graph_spec(x);
  const int64_t shape[2] = {(int64_t)layer_gates(cell->cell) * cell->hidden, s.shape[s.rank - 1]};
  const unroll_tensor W = nn_layer_param(g, prefix, what, cell->layer, 0, s.dtype, 2, shape);
  if (!c.graph)
    c = nn_layer_param(g, prefix, "b", cell->layer, 0, s.dtype, 1, shape);
  return unroll_matmul_add(x, 0, W, 1, c);
}

unroll_cell_state nn_cell_step(unroll_tensor xw, const char *prefix, const nn_step_cell *cell,
                               unroll_cell_state state) {
  unroll_graph *g = xw.graph;
  const unroll_tensor none = unroll_none(), h = state.h;
  unroll_tensor out[3] = {none, none, none};
  if (!g || graph_failed(g))
    return (unroll_cell_state){none, none};
  const int32_t dtype = graph_spec(xw)->dtype;
  const int64_t H = cell->hidden, shape[2] = {(int64_t)layer_gates(cell->cell) * H, H};
  const unroll_tensor W = nn_layer_param(g, prefix, "W_h", cell->layer, 0, dtype, 2, shape);
  switch (cell->cell) {
  case UNROLL_CELL_RNN:
    out[0] = unroll_unary(unroll_matmul_add(h, 0, W, 1, xw), cell->activation ? cell->activation : UNROLL_TANH);
    break;
  case UNROLL_CELL_LSTM:
    graph_add_node(g, UNROLL_OP_LSTM_GATES, NULL, (unroll_tensor[]){unroll_matmul_add(h, 0, W, 1, xw), state.c}, 2,
                   NULL, out, 3);
    break;
  case UNROLL_CELL_GRU: { /* the product of n waits for r⊙h */
    unroll_tensor reset[2];
    const unroll_tensor rz = unroll_matmul_add(h, 0, unroll_slice(W, 0, 0, 2 * H), 1, unroll_slice(xw, 1, 0, 2 * H));
    graph_add_node(g, UNROLL_OP_GRU_RESET, NULL, (unroll_tensor[]){rz, h}, 2, NULL, reset, 2);
    const unroll_tensor n =
        unroll_matmul_add(reset[1], 0, unroll_slice(W, 0, 2 * H, H), 1, unroll_slice(xw, 1, 2 * H, H));
    graph_add_node(g, UNROLL_OP_GRU_UPDATE, NULL, (unroll_tensor[]){n, reset[0], h}, 3, NULL, out, 2);
    break;
  }
  default: {
    const unroll_tensor b_n = nn_layer_param(g, prefix, "b_n", cell->layer, 0, dtype, 1, &H);
    const unroll_tensor hp = unroll_matmul_add(h, 0, W, 1, unroll_pad(b_n, 0, 2 * H, 0));
    graph_add_node(g, UNROLL_OP_GRU_AFTER_GATES, NULL, (unroll_tensor[]){xw, hp, h}, 3, NULL, out, 2);
  }
  }
  return (unroll_cell_state){out[0], cell->cell == UNROLL_CELL_LSTM ? out[1] : none};
}

unroll_cell_state unroll_cell_step(unroll_tensor x, const char *prefix, int32_t cell, int32_t activation,
                                   int64_t hidden, unroll_cell_state state) {
  char text[GRAPH_DESCRIBE];
  const nn_step_cell c = {.cell = cell, .activation = activation, .hidden = hidden};
  const unroll_cell_state none = {unroll_none(), unroll_none()};
  if (nn_lost(x) || !nn_cell_check(x.graph, "cell step", cell, activation, hidden))
    return none;
  if (graph_spec(x)->rank != 2) {
    graph_fail(x.graph, UNROLL_E_SHAPE, "cell step: x is %s, expected [B,I]", graph_describe(x.graph, x.id, text));
    return none;
  }
  if (!state.h.graph || (cell == UNROLL_CELL_LSTM && !state.c.graph)) {
    graph_fail(x.graph, UNROLL_E_INVALID, "cell step: %s is missing from the state", state.h.graph ? "c" : "h");
    return none;
  }
  return nn_cell_step(nn_cell_product(x, prefix, "W_x", &c, unroll_none()), prefix, &c, state);
}

static unroll_tensor output_layer(unroll_tensor h, const char *prefix, int64_t outputs) {
  if (nn_lost(h))
    return unroll_none();
  const tensor_spec s = *graph_spec(h);
  const int64_t shape[2] = {outputs, s.shape[s.rank - 1]};
  const unroll_tensor W = nn_param(h.graph, prefix, "out.W", s.dtype, 2, shape);
  return unroll_matmul_add(h, 0, W, 1, nn_param(h.graph, prefix, "out.b", s.dtype, 1, shape));
}

unroll_tensor unroll_many_to_one(unroll_tensor x, const char *prefix, const unroll_rnn_options *o, int64_t outputs) {
  unroll_graph *g = x.graph;
  if (!g || graph_failed(g))
    return unroll_none();
  if (!o || !UNROLL_HAS(unroll_rnn_options, o, lengths))
    return graph_fail(g, UNROLL_E_INVALID, "many to one: its options are missing, or their struct_size is too small");
  if (outputs < 1)
    return graph_fail(g, UNROLL_E_RANGE, "many to one: %" PRId64 " outputs, expected at least 1", outputs);
  unroll_tensor *h = mem_array(&g->allocator, o->layers > 0 ? (uint64_t)o->layers * 2 : 1, sizeof *h);
  if (!h)
    return graph_fail(g, UNROLL_E_MEMORY, "out of memory for the states of %d layers", o->layers);
  unroll_rnn_state last = {h, NULL};
  unroll_rnn(x, prefix, o, NULL, &last);
  unroll_tensor top = unroll_none();
  if (!graph_failed(g)) {
    const int32_t D = o->bidirectional ? 2 : 1, at = (o->layers - 1) * D;
    top = D == 2 ? unroll_concat(h + at, 2, 1) : h[at];
  }
  mem_free(&g->allocator, h);
  return output_layer(top, prefix, outputs);
}

static unroll_tensor output_function(unroll_tensor y, int32_t kind) {
  if (kind == UNROLL_COPY)
    return y;
  return kind == UNROLL_OUTPUT_SOFTMAX ? unroll_softmax(y) : unroll_unary(y, kind);
}

static bool check_one_to_many(unroll_graph *g, unroll_tensor x, const unroll_one_to_many_options *o) {
  char text[GRAPH_DESCRIBE];
  if (!o || !UNROLL_HAS(unroll_one_to_many_options, o, lengths)) {
    graph_fail(g, UNROLL_E_INVALID, "one to many: its options are missing, or their struct_size is too small");
    return false;
  }
  if (!nn_cell_check(g, "one to many", o->cell, o->activation, o->hidden))
    return false;
  if (graph_spec(x)->rank != 2)
    graph_fail(g, UNROLL_E_SHAPE, "one to many: x is %s, expected [B,I]", graph_describe(g, x.id, text));
  else if (o->outputs < 1)
    graph_fail(g, UNROLL_E_RANGE, "one to many: %" PRId64 " outputs, expected at least 1", o->outputs);
  else if (o->output != UNROLL_COPY && o->output != UNROLL_TANH && o->output != UNROLL_SIGMOID &&
           o->output != UNROLL_RELU && o->output != UNROLL_OUTPUT_SOFTMAX)
    graph_fail(g, UNROLL_E_INVALID,
               "one to many: output %d, expected UNROLL_COPY, _TANH, _SIGMOID, _RELU or UNROLL_OUTPUT_SOFTMAX",
               o->output);
  return nn_check_steps(g, "one to many", o->steps) &&
         nn_check_lengths(g, "one to many", o->lengths, graph_spec(x)->shape[0]);
}

unroll_tensor unroll_one_to_many(unroll_tensor x, const char *prefix, const unroll_one_to_many_options *o,
                                 unroll_cell_state *last) {
  unroll_graph *g = x.graph;
  if (last)
    *last = (unroll_cell_state){unroll_none(), unroll_none()};
  if (!g || graph_failed(g) || !check_one_to_many(g, x, o))
    return unroll_none();
  const nn_step_cell cell = {.cell = o->cell, .activation = o->activation, .hidden = o->hidden};
  const tensor_spec s = *graph_spec(x);
  const unroll_tensor zeros = nn_filled(g, s.dtype, 2, (int64_t[]){s.shape[0], o->hidden}, 0.0);
  unroll_cell_state state = nn_cell_step(nn_cell_product(x, prefix, "W_xh", &cell, unroll_none()), prefix, &cell,
                                         (unroll_cell_state){zeros, zeros});
  unroll_scan *scan = unroll_scan_begin(g, UNROLL_FORWARD, o->lengths);
  unroll_scan_steps(scan, o->steps);
  const unroll_cell_state now = {unroll_scan_carry(scan, state.h),
                                 state.c.graph ? unroll_scan_carry(scan, state.c) : unroll_none()};
  const unroll_tensor y = output_function(output_layer(now.h, prefix, o->outputs), o->output);
  state = nn_cell_step(nn_cell_product(y, prefix, "W_x", &cell, unroll_none()), prefix, &cell, now);
  unroll_scan_next(scan, now.h, state.h);
  if (now.c.graph)
    unroll_scan_next(scan, now.c, state.c);
  const unroll_tensor all = unroll_scan_output(scan, y);
  const unroll_cell_state end = {unroll_scan_last(scan, now.h),
                                 now.c.graph ? unroll_scan_last(scan, now.c) : unroll_none()};
  unroll_scan_end(scan);
  if (last)
    *last = end;
  return all;
}
