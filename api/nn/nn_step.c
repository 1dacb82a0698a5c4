/* SPDX-License-Identifier: Apache-2.0 */
/* nn_step.c: one step of a standard cell, for the bodies of scans; and the two shapes that need no attention. */
#include "nn/nn_private.h"
#include <inttypes.h>

/* Options of a standard cell; keeps the error. */
static bool check_cell(unroll_graph *g, const char *who, int32_t cell, int32_t activation, int64_t hidden, nn_rnn *r) {
  const unroll_rnn_options o = {
      .struct_size = sizeof o, .cell = cell, .activation = activation, .layers = 1, .hidden = hidden};
  if (cell >= UNROLL_CELL_COUNT)
    graph_fail(g, UNROLL_E_INVALID, "%s: %d is no cell (UNROLL_CELL_*)", who, cell);
  else if (activation && activation != UNROLL_TANH && activation != UNROLL_RELU && activation != UNROLL_SIGMOID)
    graph_fail(g, UNROLL_E_INVALID, "%s: activation %d, expected UNROLL_TANH, UNROLL_RELU or UNROLL_SIGMOID", who,
               activation);
  return !graph_failed(g) && nn_rnn_check(g, who, &o, r);
}

/* A plain cell of layer 0: r is pointed to. */
static nn_cell_at plain(nn_rnn *r, unroll_tensor x, const char *prefix) {
  return nn_cell_open(r, x.graph, prefix, 0, UNROLL_FORWARD, graph_spec(x)->dtype);
}

/* what: the matrix that x goes through. */
static unroll_cell_state step(const nn_cell_at *cell, const char *what, unroll_tensor x, unroll_cell_state state) {
  unroll_tensor in[2];
  nn_cell_split(cell, nn_cell_product(cell, what, x, unroll_none()), in);
  return nn_cell_step(cell, NULL, in, state, unroll_none(), NULL);
}

unroll_cell_state unroll_cell_step(unroll_tensor x, const char *prefix, int32_t cell, int32_t activation,
                                   int64_t hidden, unroll_cell_state state) {
  char text[GRAPH_DESCRIBE];
  nn_rnn r;
  const unroll_cell_state none = {unroll_none(), unroll_none()};
  if (nn_lost(x) || !check_cell(x.graph, "cell step", cell, activation, hidden, &r))
    return none;
  if (graph_spec(x)->rank != 2) {
    graph_fail(x.graph, UNROLL_E_SHAPE, "cell step: x is %s, expected [B,I]", graph_describe(x.graph, x.id, text));
    return none;
  }
  if (!state.h.graph || (cell == UNROLL_CELL_LSTM && !state.c.graph)) {
    graph_fail(x.graph, UNROLL_E_INVALID, "cell step: %s is missing from the state", state.h.graph ? "c" : "h");
    return none;
  }
  const nn_cell_at at = plain(&r, x, prefix);
  return step(&at, "W_x", x, state);
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

static bool check_one_to_many(unroll_graph *g, unroll_tensor x, const unroll_one_to_many_options *o, nn_rnn *r) {
  char text[GRAPH_DESCRIBE];
  if (!o || !UNROLL_HAS(unroll_one_to_many_options, o, lengths)) {
    graph_fail(g, UNROLL_E_INVALID, "one to many: its options are missing, or their struct_size is too small");
    return false;
  }
  if (!check_cell(g, "one to many", o->cell, o->activation, o->hidden, r))
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
  nn_rnn r;
  if (!g || graph_failed(g) || !check_one_to_many(g, x, o, &r))
    return unroll_none();
  const nn_cell_at cell = plain(&r, x, prefix);
  const tensor_spec s = *graph_spec(x);
  const unroll_tensor zeros = nn_filled(g, s.dtype, 2, (int64_t[]){s.shape[0], o->hidden}, 0.0);
  unroll_cell_state state = step(&cell, "W_xh", x, (unroll_cell_state){zeros, zeros});
  unroll_scan *scan = unroll_scan_begin(g, UNROLL_FORWARD, o->lengths);
  unroll_scan_steps(scan, o->steps);
  const unroll_cell_state now = {unroll_scan_carry(scan, state.h),
                                 state.c.graph ? unroll_scan_carry(scan, state.c) : unroll_none()};
  const unroll_tensor y = output_function(output_layer(now.h, prefix, o->outputs), o->output);
  state = step(&cell, "W_x", y, now);
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
