/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layer.c: a standard cell over a whole sequence as one node, and what that node means: one product for the inputs of all
 * steps, then a scan of a small product and the cell's gates.
 */
#include "graph/graph_private.h"

/* Inputs of a layer; where its masks stand among those of its gradient. */
enum { H_MASK = 8, KEEP_H, KEEP_C, LAYER_INPUTS, GRAD_MASKS = 17 };

uint32_t layer_gates(int32_t cell) { return cell == UNROLL_CELL_RNN ? 1 : cell == UNROLL_CELL_LSTM ? 4 : 3; }

int64_t layer_saved_blocks(int32_t cell, uint32_t i) {
  static const uint8_t blocks[][4] = {[UNROLL_CELL_RNN] = {1, 1},
                                      [UNROLL_CELL_LSTM] = {1, 4, 1},
                                      [UNROLL_CELL_GRU] = {1, 2, 1, 1},
                                      [UNROLL_CELL_GRU_AFTER] = {1, 4}};
  return i < 4 ? blocks[cell][i] : 0;
}

unroll_layer_outputs unroll_layer(const unroll_layer_inputs *in, const unroll_layer_attr *attr, int32_t index) {
  unroll_layer_outputs r = {unroll_none(), unroll_none(), unroll_none()};
  unroll_graph *g = in->x.graph;
  if (!g || graph_failed(g))
    return r;
  if (g->parent) {
    graph_fail(g, UNROLL_E_UNSUPPORTED, "layer: the body of a scan cannot hold a layer");
    return r;
  }
  unroll_tensor x[LAYER_INPUTS] = {in->x,  in->W_x,     in->W_h,    in->b,      in->b_n,   in->h0,
                                   in->c0, in->lengths, in->h_mask, in->keep_h, in->keep_c},
                out[7];
  const tensor_spec sx = *graph_spec(in->x); /* a copy: the array moves as constants are added */
  if (in->W_h.graph == g && graph_spec(in->W_h)->rank == 2 && sx.rank == 3) { /* else the node's own check tells */
    const tensor_spec *w = graph_spec(in->W_h);
    const tensor_spec state = graph_make_spec(sx.dtype, 2, (int64_t[]){sx.shape[1], w->shape[1]}),
                      bias = graph_make_spec(sx.dtype, 1, w->shape);
    x[3] = x[3].graph ? x[3] : graph_zeros_like(g, &bias, 0.0);
    x[5] = x[5].graph ? x[5] : graph_zeros_like(g, &state, 0.0);
    if (attr->cell == UNROLL_CELL_LSTM && !x[6].graph)
      x[6] = graph_zeros_like(g, &state, 0.0);
  }
  g->layer = index;
  g->direction = attr->direction;
  op_attr a = {.layer = *attr};
  if (a.layer.block == 0 && sx.rank == 3)
    a.layer.block = (int32_t)gradient_block(sx.shape[1]);
  const bool has_masks = in->h_mask.graph || in->keep_h.graph || in->keep_c.graph;
  graph_add_node(g, UNROLL_OP_LAYER, &a, x, has_masks ? LAYER_INPUTS : H_MASK, NULL, out, 7);
  g->layer = g->direction = -1;
  r.y = out[0];
  r.h_last = out[1];
  if (attr->cell == UNROLL_CELL_LSTM)
    r.c_last = out[2];
  return r;
}

typedef struct parts {
  unroll_tensor y, h_last, c_last;
  uint32_t scan_node;
  uint32_t saved[4];   /* tensors of the body */
  scan_edge masked[2]; /* inner: m⊙ a saved value, in the body; outer: that value there */
  uint32_t n_masked;
  unroll_tensor tap_h, tap_c; /* given: zeros that are added to h and c of every step, or none */
  unroll_tensor weights[7];   /* W_x, W_h, b and b_n as the sums over time read them: a gru's in two parts each */
} parts;

static unroll_tensor inputs_product(const unroll_layer_attr *attr, unroll_tensor x, unroll_tensor W_x,
                                    unroll_tensor b) {
  if (!x.graph || graph_failed(x.graph))
    return unroll_none();
  const op_attr a = {.matmul = {.trans_b = 1, .m_block = attr->block * graph_spec(x)->shape[1]}};
  return graph_op(UNROLL_OP_MATMUL, &a, (unroll_tensor[]){x, W_x, b}, 3, NULL);
}

/* m⊙v, which a product in the body multiplies. */
static unroll_tensor masked(parts *p, unroll_tensor v, unroll_tensor m) {
  if (!m.graph)
    return v;
  const unroll_tensor y = unroll_mul(v, m);
  p->masked[p->n_masked++] = (scan_edge){y.id, v.id};
  return y;
}

/* How much of an old value is kept, and of the new one taken, outside of the body; take: none where keep is bool. */
typedef struct zone {
  unroll_tensor keep, take;
} zone;

static zone zone_of(unroll_tensor keep, unroll_tensor lengths) {
  zone z = {keep, unroll_none()};
  if (!keep.graph || graph_failed(keep.graph) || !gradient_is_real(graph_spec(keep)))
    return z;
  if (lengths.graph && graph_spec(keep)->rank == 3) /* past a sequence's end it may be anything */
    z.keep = unroll_length_mask(keep, lengths);
  z.take = unroll_sub(unroll_constant(keep.graph, graph_spec(keep)->dtype, 0, NULL, 1.0), z.keep);
  return z;
}

static unroll_tensor of_step(unroll_scan *s, unroll_tensor x) {
  return x.graph && !graph_failed(x.graph) && graph_spec(x)->rank == 3 ? unroll_scan_input(s, x) : x;
}

unroll_tensor layer_tapped(unroll_scan *scan, unroll_tensor x, unroll_tensor tap) {
  return tap.graph ? unroll_add(x, unroll_scan_input(scan, tap)) : x;
}

static unroll_tensor zoned(unroll_scan *s, const zone *z, unroll_tensor was, unroll_tensor is) {
  if (!z->keep.graph)
    return is;
  const unroll_tensor keep = of_step(s, z->keep);
  if (!z->take.graph)
    return unroll_select(keep, was, is);
  return unroll_add(unroll_mul(keep, was), unroll_mul(of_step(s, z->take), is));
}

/* x, W_x, W_h, b, b_n, h0, c0, lengths, h_mask, keep_h, keep_c */
static void build(unroll_graph *g, const unroll_layer_attr *attr, const unroll_tensor *in, bool want_y, parts *p) {
  if (graph_failed(g))
    return;
  const unroll_tensor W_x = in[1], W_h = in[2], b = in[3], lengths = in[7], m = in[H_MASK];
  const zone zone_h = zone_of(in[KEEP_H], lengths), zone_c = zone_of(in[KEEP_C], lengths);
  const tensor_spec sx = *graph_spec(in[0]);
  const int64_t H = graph_spec(W_h)->shape[1];
  /* What stands past a sequence's end may be anything, NaN too. */
  const unroll_tensor x = lengths.graph ? unroll_length_mask(in[0], lengths) : in[0];

  unroll_tensor xw[2] = {unroll_none(), unroll_none()}, w[2] = {W_h, W_h}, bias_n = unroll_none();
  if (attr->cell == UNROLL_CELL_GRU) { /* r and z first; the product of n waits for r⊙h */
    for (int k = 0; k < 2; k++) {
      const int64_t first = k ? 2 * H : 0, rows = k ? H : 2 * H;
      p->weights[k] = unroll_slice(W_x, 0, first, rows);
      p->weights[2 + k] = w[k] = unroll_slice(W_h, 0, first, rows);
      p->weights[4 + k] = unroll_slice(b, 0, first, rows);
      xw[k] = inputs_product(attr, x, p->weights[k], p->weights[4 + k]);
    }
  } else {
    xw[0] = inputs_product(attr, x, W_x, b);
    p->weights[0] = W_x;
    p->weights[2] = W_h;
    p->weights[4] = b;
  }
  if (attr->cell == UNROLL_CELL_GRU_AFTER)
    p->weights[6] = bias_n = unroll_pad(in[4], 0, 2 * H, 0);

  unroll_scan *s = scan_begin_unchecked(g, attr->direction, sx.shape[0], sx.dim[0]);
  if (!s)
    return;
  if (!m.graph && !zone_h.keep.graph && !zone_c.keep.graph && !p->tap_h.graph) /* else it is no standard cell's */
    s->cell = attr->cell;
  s->lengths = lengths.graph ? lengths.id : GRAPH_NONE;
  const unroll_tensor x_t = unroll_scan_input(s, xw[0]);
  const unroll_tensor h = unroll_scan_carry(s, in[5]);
  unroll_tensor c = unroll_none(), out[3];
  switch (attr->cell) {
  case UNROLL_CELL_RNN:
    out[0] = unroll_unary(unroll_matmul_add(masked(p, h, m), 0, W_h, 1, x_t), attr->activation);
    p->saved[0] = h.id;
    p->saved[1] = out[0].id;
    break;
  case UNROLL_CELL_LSTM:
    c = unroll_scan_carry(s, in[6]);
    graph_add_node(s->body, UNROLL_OP_LSTM_GATES, NULL,
                   (unroll_tensor[]){unroll_matmul_add(masked(p, h, m), 0, W_h, 1, x_t), c}, 2, NULL, out, 3);
    p->saved[0] = h.id;
    p->saved[1] = out[2].id;
    p->saved[2] = c.id;
    unroll_scan_next(s, c, layer_tapped(s, zoned(s, &zone_c, c, out[1]), p->tap_c));
    break;
  case UNROLL_CELL_GRU: {
    unroll_tensor reset[2];
    graph_add_node(s->body, UNROLL_OP_GRU_RESET, NULL,
                   (unroll_tensor[]){unroll_matmul_add(masked(p, h, m), 0, w[0], 1, x_t), h}, 2, NULL, reset, 2);
    const unroll_tensor pre = unroll_matmul_add(masked(p, reset[1], m), 0, w[1], 1, unroll_scan_input(s, xw[1]));
    graph_add_node(s->body, UNROLL_OP_GRU_UPDATE, NULL, (unroll_tensor[]){pre, reset[0], h}, 3, NULL, out, 2);
    p->saved[0] = h.id;
    p->saved[1] = reset[0].id;
    p->saved[2] = reset[1].id;
    p->saved[3] = out[1].id;
    break;
  }
  default:
    graph_add_node(s->body, UNROLL_OP_GRU_AFTER_GATES, NULL,
                   (unroll_tensor[]){x_t, unroll_matmul_add(masked(p, h, m), 0, W_h, 1, bias_n), h}, 3, NULL, out, 2);
    p->saved[0] = h.id;
    p->saved[1] = out[1].id;
  }
  const unroll_tensor h_new = layer_tapped(s, zoned(s, &zone_h, h, out[0]), p->tap_h);
  unroll_scan_next(s, h, h_new);
  if (want_y)
    p->y = unroll_scan_output(s, h_new);
  p->h_last = unroll_scan_last(s, h);
  if (c.graph)
    p->c_last = unroll_scan_last(s, c);
  unroll_scan_end(s);
  p->scan_node = g->n_nodes - 1;
}

void layer_lower(unroll_graph *g, const node *layer, const unroll_tensor *in, const bool *used, unroll_tensor *out) {
  parts p = {.scan_node = 0};
  unroll_tensor x[LAYER_INPUTS] = {unroll_none()};
  for (uint32_t i = 0; i < layer->n_in; i++)
    x[i] = in[i];
  build(g, &layer->attr.layer, x, used[0], &p);
  out[0] = p.y;
  out[1] = p.h_last;
  out[2] = p.c_last;
  for (uint32_t i = 0; i < 4; i++)
    out[3 + i] = used[3 + i] ? scan_add_output(g, p.scan_node, p.saved[i]) : unroll_none();
}

/* What a pass asks for of the steps of a layer that was built once more stands in what the layer has saved. */
static void keep_saved(unroll_graph *g, const parts *p, int32_t cell, const unroll_tensor *saved, unroll_tensor mask) {
  unroll_graph *body = g->nodes[p->scan_node].body;
  for (uint32_t i = 0; i < 4 && layer_saved_blocks(cell, i); i++)
    body->kept[body->n_kept++] = (scan_edge){p->saved[i], saved[i].id};
  for (uint32_t i = 0, n_saved = body->n_kept; i < p->n_masked; i++)
    for (uint32_t k = 0; k < n_saved; k++)
      if (body->kept[k].inner == p->masked[i].outer)
        body->kept[body->n_kept++] =
            (scan_edge){p->masked[i].inner, unroll_mul(graph_handle(g, body->kept[k].outer), mask).id};
}

void layer_tangent(unroll_graph *g, const node *n, const unroll_tensor *in, const unroll_tensor *saved,
                   const unroll_tensor *d_in, const bool *wanted, unroll_tensor *d_out) {
  static const char *const names[] = {"h_mask", "keep_h", "keep_c"};
  const unroll_layer_attr *attr = &n->attr.layer;
  unroll_tensor x[LAYER_INPUTS] = {unroll_none()}, from[8], d_from[8], y[3], dy[3];
  uint32_t n_from = 0, n_y = 0;
  if (tangent_of_layer(g, n, in, saved, d_in, wanted, d_out))
    return;
  const uint32_t first = g->n_nodes;
  for (uint32_t i = 0; i < n->n_in; i++) {
    x[i] = in[i];
    bool again = !d_in[i].graph;
    for (uint32_t k = 0; k < i; k++)
      again = again || (in[k].graph && in[k].id == in[i].id); /* one tensor is two inputs */
    if (d_in[i].graph && i >= H_MASK) {
      graph_fail(g, UNROLL_E_UNSUPPORTED, "%s: a layer's %s has no tangent", n->name, names[i - H_MASK]);
      return;
    }
    if (!again) {
      from[n_from] = in[i];
      d_from[n_from++] = d_in[i];
    }
  }
  parts p = {.scan_node = 0};
  build(g, attr, x, wanted[0], &p);
  if (graph_failed(g))
    return;
  keep_saved(g, &p, attr->cell, saved, x[H_MASK]);
  const unroll_tensor results[3] = {p.y, p.h_last, p.c_last};
  for (uint32_t i = 0; i < 3; i++)
    if (wanted[i] && results[i].graph)
      y[n_y++] = results[i];
  tangent_walk(from, d_from, n_from, y, n_y, dy, first);
  n_y = 0;
  for (uint32_t i = 0; i < 3; i++)
    if (wanted[i] && results[i].graph)
      d_out[i] = dy[n_y++];
}

/* The op that has it from y; -1: there is none. */
static int32_t derivative_of(int32_t activation) {
  switch (activation) {
  case UNROLL_TANH: return UNROLL_TANH_GRAD;
  case UNROLL_SIGMOID: return UNROLL_SIGMOID_GRAD;
  case UNROLL_RELU: return UNROLL_RELU_GRAD;
  default: return -1;
  }
}

/*
 * Of a vanilla RNN by hand: y is all that is needed, so that nobody reads what the layer saves, and a device runs it whole; and
 * what comes from later steps is added to dy after the loop, so that a step is two nodes.
 */
static void rnn_states_gradient(unroll_graph *g, const node *n, int32_t derivative, const unroll_tensor *d_out,
                                bool want_x, unroll_tensor *dx, unroll_tensor *dh) {
  const tensor_spec y = g->tensors[n->out[0]].spec;
  const tensor_spec state = graph_make_spec(y.dtype, 2, y.shape + 1);
  const unroll_tensor first = d_out[1].graph ? d_out[1] : graph_zeros_like(g, &state, 0.0);
  unroll_scan *s = scan_begin_unchecked(g, !n->attr.layer.direction, y.shape[0], y.dim[0]);
  if (!s)
    return;
  s->lengths = n->in[7];
  const unroll_tensor later = unroll_scan_carry(s, first);
  const unroll_tensor sum = d_out[0].graph ? unroll_add(later, unroll_scan_input(s, d_out[0])) : later;
  const unroll_tensor da = unroll_binary(sum, unroll_scan_input(s, graph_handle(g, n->out[0])), derivative);
  unroll_scan_next(s, later, unroll_matmul(da, graph_handle(g, n->in[2])));
  const unroll_tensor from_later = unroll_scan_output(s, later),
                      all = want_x ? unroll_scan_output(s, da) : unroll_none();
  unroll_scan_end(s);
  *dh = d_out[0].graph ? unroll_add(from_later, d_out[0]) : from_later;
  if (want_x)
    *dx = unroll_matmul(all, graph_handle(g, n->in[1]));
}

void layer_states_gradient(unroll_graph *g, uint32_t node_index, const unroll_tensor *d_out, bool want_x,
                           unroll_tensor *dx, unroll_tensor *dh, unroll_tensor *dc) {
  *dx = *dh = *dc = unroll_none();
  if (graph_failed(g))
    return;
  const node n = g->nodes[node_index]; /* the array moves as nodes are added */
  const unroll_layer_attr *attr = &n.attr.layer;
  const tensor_spec state = g->tensors[n.out[0]].spec;
  const int32_t derivative = derivative_of(attr->activation);
  if (attr->cell == UNROLL_CELL_RNN && n.n_in == H_MASK && derivative >= 0) {
    rnn_states_gradient(g, &n, derivative, d_out, want_x, dx, dh);
    return;
  }
  unroll_tensor x[LAYER_INPUTS] = {unroll_none()}, saved[4], y[3], dy[3], wrt[3], d[3];
  unroll_tensor *const to[3] = {dh, dc, dx};
  uint32_t n_y = 0, n_wrt = 0;
  for (uint32_t i = 0; i < n.n_in; i++)
    x[i] = n.in[i] != GRAPH_NONE ? graph_handle(g, n.in[i]) : unroll_none();
  for (uint32_t i = 0; i < 4; i++)
    saved[i] = layer_saved_blocks(attr->cell, i) ? graph_handle(g, n.out[3 + i]) : unroll_none();
  parts p = {.tap_h = graph_zeros_like(g, &state, 0.0)};
  if (attr->cell == UNROLL_CELL_LSTM)
    p.tap_c = graph_zeros_like(g, &state, 0.0);
  const uint32_t first = g->n_nodes;
  build(g, attr, x, d_out[0].graph != NULL, &p);
  if (graph_failed(g))
    return;
  keep_saved(g, &p, attr->cell, saved, x[H_MASK]);
  const unroll_tensor results[3] = {p.y, p.h_last, p.c_last};
  for (uint32_t i = 0; i < 3; i++)
    if (d_out[i].graph && results[i].graph) {
      y[n_y] = results[i];
      dy[n_y++] = d_out[i];
    }
  wrt[n_wrt++] = p.tap_h;
  if (p.tap_c.graph)
    wrt[n_wrt++] = p.tap_c;
  if (want_x)
    wrt[n_wrt++] = x[0];
  gradient_walk(y, dy, n_y, wrt, n_wrt, d, first, NULL, 0, UNROLL_BLOCKS_FROM_LAST);
  for (uint32_t i = 0, k = 0; i < 3; i++)
    if (i == 0 || (i == 1 && p.tap_c.graph) || (i == 2 && want_x))
      *to[i] = d[k++];
}

/*
 * The layer is built once more and differentiated; what the rules ask for of its steps are the saved values. What nobody
 * reads of it (all of its own steps) is dropped afterwards.
 */
void layer_grad_lower(unroll_graph *g, const node *n, const unroll_tensor *in, unroll_tensor *out) {
  if (graph_failed(g))
    return;
  const unroll_layer_attr *attr = &n->attr.layer;
  const tensor_spec *sx = graph_spec(in[0]);
  const tensor_spec state = graph_make_spec(sx->dtype, 2, (int64_t[]){sx->shape[1], graph_spec(in[2])->shape[1]});
  const uint32_t first = g->n_nodes;
  unroll_tensor x[LAYER_INPUTS] = {in[0], in[1], in[2], in[3], in[4], unroll_none(), unroll_none(), in[5]};
  for (uint32_t i = 0; GRAD_MASKS + i < n->n_in; i++)
    x[H_MASK + i] = in[GRAD_MASKS + i];
  x[5] = graph_zeros_like(g, &state, 0.0); /* stands for h0, whose value is in the saved h_prev */
  if (attr->cell == UNROLL_CELL_LSTM)
    x[6] = graph_zeros_like(g, &state, 0.0);
  parts p = {.scan_node = 0};
  build(g, attr, x, in[10].graph != NULL, &p);
  if (graph_failed(g))
    return;
  keep_saved(g, &p, attr->cell, in + 6, x[H_MASK]);
  unroll_tensor y[3], dy[3];
  uint32_t n_y = 0;
  const unroll_tensor results[3] = {p.y, p.h_last, p.c_last};
  for (uint32_t i = 0; i < 3; i++)
    if (in[10 + i].graph && results[i].graph) {
      y[n_y] = results[i];
      dy[n_y++] = in[10 + i];
    }
  /* x, h0, c0, then the weights, whose sums go on from in[13..16] */
  unroll_tensor wrt[10] = {x[0], x[5], x[6]}, start[10] = {unroll_none()}, d[10];
  const int64_t H = state.shape[1];
  for (uint32_t i = 0; i < 7; i++) {
    const unroll_tensor before = n->n_in > 13 + i / 2 ? in[13 + i / 2] : unroll_none();
    wrt[3 + i] = p.weights[i];
    if (!before.graph || !p.weights[i].graph)
      continue;
    start[3 + i] = i == 6                          ? unroll_pad(before, 0, 2 * H, 0)
                   : attr->cell != UNROLL_CELL_GRU ? before
                                                   : unroll_slice(before, 0, i % 2 ? 2 * H : 0, i % 2 ? H : 2 * H);
  }
  uint32_t n_wrt = 0, at[10];
  for (uint32_t i = 0; i < 10; i++)
    if (wrt[i].graph) {
      at[n_wrt] = i;
      wrt[n_wrt] = wrt[i];
      start[n_wrt++] = start[i];
    }
  unroll_tensor got[10] = {unroll_none()};
  gradient_walk(y, dy, n_y, wrt, n_wrt, d, first, start, attr->block,
                attr->direction == UNROLL_FORWARD ? UNROLL_BLOCKS_FROM_LAST : UNROLL_BLOCKS_FROM_FIRST);
  for (uint32_t i = 0; i < n_wrt; i++)
    got[at[i]] = d[i];
  out[0] = got[0];
  out[5] = got[1];
  out[6] = got[2];
  for (uint32_t i = 0; i < 3; i++)
    out[1 + i] = attr->cell == UNROLL_CELL_GRU ? unroll_concat(got + 3 + 2 * i, 2, 0) : got[3 + 2 * i];
  if (got[9].graph)
    out[4] = unroll_slice(got[9], 0, 2 * H, H);
}
