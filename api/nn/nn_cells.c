/* SPDX-License-Identifier: Apache-2.0 */
/* nn_cells.c: one layer, one direction, with options: the products with all inputs first, then a scan of its steps. */
#include "nn/nn_private.h"
#include <inttypes.h>

unroll_tensor nn_first_state(unroll_tensor x, const nn_cell_inputs *in, int64_t N, const char *what) {
  unroll_graph *g = in->x.graph;
  char text[GRAPH_DESCRIBE];
  if (graph_failed(g))
    return unroll_none();
  const tensor_spec *sx = graph_spec(in->x);
  const tensor_spec want = graph_make_spec(sx->dtype, 2, (int64_t[]){sx->shape[1], N});
  if (!x.graph)
    return graph_zeros_like(g, &want, 0.0);
  if (graph_resolve(g, x, "rnn's first state") == GRAPH_NONE)
    return unroll_none();
  if (!graph_same_shape(graph_spec(x), &want) || graph_spec(x)->dtype != want.dtype)
    return graph_fail(g, UNROLL_E_SHAPE, "rnn: first %s of layer %d is %s, expected %s [%" PRId64 ",%" PRId64 "]", what,
                      in->layer, graph_describe(g, x.id, text), unroll_dtype_name(want.dtype), want.shape[0], N);
  return x;
}

bool nn_check_tap(unroll_tensor tap, const nn_cell_inputs *in, int64_t N, const char *what) {
  unroll_graph *g = in->x.graph;
  char text[GRAPH_DESCRIBE];
  if (!tap.graph || graph_failed(g))
    return !graph_failed(g);
  if (graph_resolve(g, tap, "rnn's tap") == GRAPH_NONE)
    return false;
  tensor_spec want = *graph_spec(in->x);
  want.shape[2] = N;
  if (!graph_same_shape(graph_spec(tap), &want) || graph_spec(tap)->dtype != want.dtype)
    graph_fail(g, UNROLL_E_SHAPE,
               "rnn: the tap of %s of layer %d is %s, expected %s [%" PRId64 ",%" PRId64 ",%" PRId64 "]", what,
               in->layer, graph_describe(g, tap.id, text), unroll_dtype_name(want.dtype), want.shape[0], want.shape[1],
               N);
  return !graph_failed(g);
}

static void scan(const nn_cell_at *k, const nn_cell_inputs *in, const unroll_tensor *pre, nn_cell_outputs *out) {
  const nn_rnn *r = k->r;
  const bool lstm = r->family == UNROLL_CELL_LSTM;
  const unroll_tensor none = unroll_none();
  const unroll_tensor h0 = nn_first_state(in->h0, in, r->P, "h");
  const unroll_tensor c0 = lstm ? nn_first_state(in->c0, in, r->H, "c") : none;
  unroll_scan *scan;
  if (!nn_check_tap(in->tap_h, in, r->P, "h") || !nn_check_tap(in->tap_c, in, r->H, "c"))
    return;
  const tensor_spec *sx = graph_spec(in->x);
  /* Unchecked, as every shape is known to fit and what stands past a sequence's end is masked already. */
  if (!(scan = scan_begin_unchecked(k->g, in->direction, sx->shape[0], sx->dim[0])))
    return;
  if (r->o.checkpoint)
    unroll_scan_checkpoint(scan, &r->policy);
  scan->lengths = r->o.lengths.graph ? r->o.lengths.id : GRAPH_NONE;
  const unroll_tensor h = unroll_scan_carry(scan, h0), c = lstm ? unroll_scan_carry(scan, c0) : none;
  const unroll_tensor parts[2] = {unroll_scan_input(scan, pre[0]),
                                  pre[1].graph ? unroll_scan_input(scan, pre[1]) : none};
  const unroll_tensor residual = in->residual.graph ? unroll_scan_input(scan, in->residual) : none;
  unroll_tensor gates = none;
  unroll_cell_state next =
      nn_cell_step(k, scan, parts, (unroll_cell_state){h, c}, residual, r->o.gates ? &gates : NULL);
  if (r->o.gates)
    out->gates = unroll_scan_output(scan, gates);
  next.h = layer_tapped(scan, next.h, in->tap_h);
  unroll_scan_next(scan, h, next.h);
  out->y = unroll_scan_output(scan, next.h);
  out->h_last = unroll_scan_last(scan, h);
  if (lstm) {
    next.c = layer_tapped(scan, next.c, in->tap_c);
    unroll_scan_next(scan, c, next.c);
    out->c_last = unroll_scan_last(scan, c);
    if (r->o.cells)
      out->c_all = unroll_scan_output(scan, next.c);
  }
  unroll_scan_end(scan);
}

nn_cell_outputs nn_cell(const nn_rnn *r, const nn_cell_inputs *in) {
  const unroll_tensor none = unroll_none();
  nn_cell_outputs out = {none, none, none, none, none};
  unroll_graph *g = in->x.graph;
  if (!g || graph_failed(g))
    return out;
  const tensor_spec sx = *graph_spec(in->x);
  nn_cell_at k = nn_cell_open(r, g, in->prefix, in->layer, in->direction, sx.dtype);
  g->layer = in->layer;
  g->direction = in->direction;
  const unroll_tensor x = r->o.lengths.graph ? unroll_length_mask(in->x, r->o.lengths) : in->x;
  unroll_tensor pre[2] = {none, none};
  const bool apart = nn_apart(r); /* the candidate's part goes its own way */
  pre[0] = nn_cell_inputs_of(&k, x, 0, apart ? 2 * r->H : r->G * r->H);
  if (apart)
    pre[1] = nn_cell_inputs_of(&k, x, 2 * r->H, r->H);
  nn_cell_masks(&k, nn_time(in->x), sx.shape[1]);
  if (!graph_failed(g))
    scan(&k, in, pre, &out);
  g->layer = g->direction = -1;
  return out;
}
