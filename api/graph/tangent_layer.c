/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tangent_layer.c: the tangent of a layer whose gates act on each unit alone, an LSTM or a GRU with its reset after the product.
 * What a unit's new state moves by for each of its gates' sums and for its old state are then numbers, and the gates' own
 * gradient has them from ones, for all steps at once: so a step of the tangent is a product, and a few sums of products of
 * numbers, where the gates' tangent op by op would be some thirty small ops.
 */
#include "graph/graph_private.h"

enum { X, W_X, W_H, B, B_N, H0, C0, LENGTHS }; /* inputs of a layer */

/* a·wᵀ + c, where there is an a. */
static unroll_tensor plus_product(unroll_tensor a, unroll_tensor w, unroll_tensor c) {
  return a.graph && w.graph ? unroll_matmul_add(a, 0, w, 1, c) : c;
}
static unroll_tensor plus(unroll_tensor a, unroll_tensor b) { return !a.graph ? b : !b.graph ? a : unroll_add(a, b); }
static unroll_tensor times(unroll_tensor a, unroll_tensor b) { return a.graph && b.graph ? unroll_mul(a, b) : a; }

/* The sum of blocks of n numbers on the last axis. */
static unroll_tensor sum_of_blocks(unroll_tensor x, int64_t n) {
  if (!x.graph || graph_failed(x.graph))
    return unroll_none();
  tensor_spec s = *graph_spec(x);
  s.shape[s.rank] = s.shape[s.rank - 1] / n;
  s.dim[s.rank] = -1;
  s.shape[s.rank - 1] = n;
  s.rank++;
  return unroll_reduce(graph_reshape(x, &s), UNROLL_SUM, 1u << (s.rank - 2), 0);
}

/* By all steps: of h (then of c) by the sums of the gates (of a GRU, of those of x and those of h) and by the old c or h. */
typedef struct slopes {
  unroll_tensor of_x, by_gates[2], by_state[2];
} slopes;

static unroll_tensor by_steps(unroll_tensor rows, const tensor_spec *like) {
  if (!rows.graph || graph_failed(rows.graph))
    return unroll_none();
  tensor_spec s = *like;
  s.shape[2] = graph_spec(rows)->shape[1];
  return graph_reshape(rows, &s);
}

static slopes slopes_of(unroll_graph *g, int32_t cell, const unroll_tensor *saved) {
  const unroll_tensor gates = graph_flatten_rows(saved[1]), none = unroll_none();
  const unroll_tensor state = graph_flatten_rows(saved[cell == UNROLL_CELL_LSTM ? 2 : 0]);
  slopes s = {none, {none, none}, {none, none}};
  if (graph_failed(g))
    return s;
  const tensor_spec like = *graph_spec(saved[0]), rows = *graph_spec(state);
  const unroll_tensor ones = graph_zeros_like(g, &rows, 1.0);
  unroll_tensor d[3];
  if (cell == UNROLL_CELL_GRU_AFTER) {
    graph_add_node(g, UNROLL_OP_GRU_AFTER_GATES_GRAD, NULL, (unroll_tensor[]){gates, state, ones}, 3, NULL, d, 3);
    s.of_x = by_steps(d[0], &like);
    s.by_gates[0] = by_steps(d[1], &like);
    s.by_state[0] = by_steps(d[2], &like);
    return s;
  }
  for (int k = 0; k < 2; k++) {
    const unroll_tensor in[4] = {gates, state, k ? none : ones, k ? ones : none};
    graph_add_node(g, UNROLL_OP_LSTM_GATES_GRAD, NULL, in, 4, NULL, d, 2);
    s.by_gates[k] = by_steps(d[0], &like);
    s.by_state[k] = by_steps(d[1], &like);
  }
  return s;
}

static unroll_tensor step_of(unroll_scan *s, unroll_tensor x) { return x.graph ? unroll_scan_input(s, x) : x; }

bool tangent_of_layer(unroll_graph *g, const node *n, const unroll_tensor *in, const unroll_tensor *saved,
                      const unroll_tensor *d_in, const bool *wanted, unroll_tensor *d_out) {
  const unroll_layer_attr *attr = &n->attr.layer;
  const bool lstm = attr->cell == UNROLL_CELL_LSTM;
  if ((!lstm && attr->cell != UNROLL_CELL_GRU_AFTER) || n->n_in > LENGTHS + 1)
    return false;
  const tensor_spec y = *graph_spec(saved[0]);
  const tensor_spec state = graph_make_spec(y.dtype, 2, y.shape + 1);
  const int64_t H = y.shape[2], blocks = lstm ? 4 : 3;
  /* what moves the gates' sums whatever the state does; of a GRU that of h's own part comes apart */
  unroll_tensor of_x = plus_product(in[X], d_in[W_X], plus_product(d_in[X], in[W_X], unroll_none()));
  unroll_tensor of_h = plus_product(saved[0], d_in[W_H], unroll_none());
  if (d_in[B].graph) {
    tensor_spec sums = y;
    sums.shape[2] = blocks * H;
    of_x = unroll_add(of_x.graph ? of_x : graph_zeros_like(g, &sums, 0.0), d_in[B]);
  }
  const slopes s = slopes_of(g, attr->cell, saved);
  if (lstm) {
    of_h = plus(of_h, of_x);
    of_x = unroll_none();
  } else {
    if (d_in[B_N].graph) {
      tensor_spec sums = y;
      sums.shape[2] = blocks * H;
      of_h = unroll_add(of_h.graph ? of_h : graph_zeros_like(g, &sums, 0.0), unroll_pad(d_in[B_N], 0, 2 * H, 0));
    }
    of_x = of_x.graph ? sum_of_blocks(unroll_mul(of_x, s.of_x), blocks) : of_x;
  }
  const unroll_tensor h0 = d_in[H0].graph ? d_in[H0] : graph_zeros_like(g, &state, 0.0);
  const unroll_tensor c0 = lstm && !d_in[C0].graph ? graph_zeros_like(g, &state, 0.0) : d_in[C0];
  unroll_scan *scan = graph_failed(g) ? NULL : scan_begin_unchecked(g, attr->direction, y.shape[0], y.dim[0]);
  if (!scan)
    return true;
  scan->lengths = in[LENGTHS].graph ? in[LENGTHS].id : GRAPH_NONE;
  const unroll_tensor dh = unroll_scan_carry(scan, h0), dc = lstm ? unroll_scan_carry(scan, c0) : unroll_none();
  const unroll_tensor sums = unroll_matmul_add(dh, 0, in[W_H], 1, step_of(scan, of_h));
  unroll_tensor next[2] = {unroll_none(), unroll_none()};
  for (int k = 0; k < (lstm ? 2 : 1); k++)
    next[k] = plus(sum_of_blocks(times(sums, step_of(scan, s.by_gates[k])), blocks),
                   times(lstm ? dc : dh, step_of(scan, s.by_state[k])));
  next[0] = plus(next[0], step_of(scan, of_x));
  unroll_scan_next(scan, dh, next[0]);
  if (lstm)
    unroll_scan_next(scan, dc, next[1]);
  if (wanted[0])
    d_out[0] = unroll_scan_output(scan, next[0]);
  d_out[1] = unroll_scan_last(scan, dh);
  if (lstm)
    d_out[2] = unroll_scan_last(scan, dc);
  unroll_scan_end(scan);
  return true;
}
