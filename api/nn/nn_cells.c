/* SPDX-License-Identifier: Apache-2.0 */
/*
 * nn_cells.c: one layer, one direction, with options: the products with all inputs first, then a scan. Where only what
 * stands around the gates differs from the standard cell, the gates are one op.
 */
#include "nn/nn_private.h"
#include <inttypes.h>

typedef struct cell {
  const nn_rnn *r;
  const nn_cell_inputs *in;
  unroll_graph *g;
  int32_t dtype;
  int64_t B;
  unroll_scan *scan;
  unroll_tensor W_h, mask; /* mask [B,P], of h before its product, or none */
  unroll_tensor h, c;      /* as the step finds them */
  unroll_tensor h_new, c_new;
} cell;

static unroll_tensor param(const cell *k, const char *what, int64_t rows, int64_t columns) {
  const int64_t shape[2] = {rows, columns};
  return nn_layer_param(k->g, k->in->prefix, what, k->in->layer, k->in->direction, k->dtype, columns ? 2 : 1, shape);
}

/* Rows of a matrix or of a vector; outside of the scan. */
static unroll_tensor rows_of(unroll_tensor x, int64_t first, int64_t rows) {
  if (!x.graph || graph_failed(x.graph) || graph_spec(x)->shape[0] == rows)
    return x;
  return unroll_slice(x, 0, first, rows);
}

/* Of all steps: x·W_xᵀ + b, of the gates that stand in these rows. */
static unroll_tensor from_inputs(const cell *k, unroll_tensor x, int64_t first, int64_t rows) {
  const int64_t GH = k->r->G * k->r->H;
  const unroll_tensor W = rows_of(param(k, "W_x", GH, graph_failed(k->g) ? 1 : graph_spec(x)->shape[2]), first, rows);
  const unroll_tensor b = rows_of(param(k, "b", GH, 0), first, rows);
  if (!k->r->o.layer_norm)
    return unroll_matmul_add(x, 0, W, 1, b);
  const unroll_tensor gain = rows_of(param(k, "ln_x", GH, 0), first, rows);
  return unroll_layer_norm(unroll_matmul_add(x, 0, W, 1, unroll_none()), gain, b, k->r->o.layer_norm_epsilon);
}

/* In the step: (m⊙h)·W_hᵀ + other, of the gates that stand in these rows. */
static unroll_tensor from_state(const cell *k, unroll_tensor h, int64_t first, int64_t rows, unroll_tensor other) {
  const unroll_tensor W = rows_of(k->W_h, first, rows);
  if (k->mask.graph)
    h = unroll_mul(h, k->mask);
  if (!k->r->o.layer_norm)
    return unroll_matmul_add(h, 0, W, 1, other);
  const unroll_tensor gain = rows_of(param(k, "ln_h", k->r->G * k->r->H, 0), first, rows);
  return unroll_layer_norm(unroll_matmul_add(h, 0, W, 1, unroll_none()), gain, other, k->r->o.layer_norm_epsilon);
}

static unroll_tensor activate(const cell *k, unroll_tensor x, const unroll_activation *a) {
  return nn_activate(x, a, k->r->o.clip, unroll_none());
}
static unroll_tensor block(const cell *k, unroll_tensor x, int64_t i) {
  return unroll_slice(x, 1, i * k->r->H, k->r->H);
}
/* a + p⊙c, where the cell has peepholes */
static unroll_tensor peep(const cell *k, unroll_tensor a, const char *what, unroll_tensor c) {
  return k->r->o.peepholes ? unroll_add(a, unroll_mul(c, param(k, what, k->r->H, 0))) : a;
}
static unroll_tensor one_minus(const cell *k, unroll_tensor x) {
  return unroll_sub(unroll_constant(x.graph ? x.graph : k->g, k->dtype, 0, NULL, 1.0), x);
}

/* ---- the cells ---- */

static void rnn_step(cell *k, const unroll_tensor *pre) {
  const nn_rnn *r = k->r;
  const unroll_tensor a = from_state(k, k->h, 0, r->H, unroll_scan_input(k->scan, pre[0]));
  const unroll_tensor bias = r->f.kind == UNROLL_ACTIVATION_MODRELU ? param(k, "b_m", r->H, 0) : unroll_none();
  k->h_new = nn_activate(a, &r->f, r->o.clip, bias);
}

static void lstm_step(cell *k, const unroll_tensor *pre) {
  const nn_rnn *r = k->r;
  const unroll_rnn_options *o = &r->o;
  const unroll_tensor a = from_state(k, k->h, 0, r->G * r->H, unroll_scan_input(k->scan, pre[0]));
  const bool one_op = r->standard && !r->coupled && !o->peepholes, whole = one_op && o->cell_clip == 0;
  unroll_tensor out[3] = {unroll_none(), unroll_none(), unroll_none()};
  if (whole && o->layer_norm) {
    const op_attr attr = {.layer_norm = {.epsilon = o->layer_norm_epsilon}};
    const unroll_tensor in[] = {a, k->c, param(k, "ln_c", r->H, 0), param(k, "ln_s", r->H, 0)};
    graph_add_node(unroll_scan_body(k->scan), UNROLL_OP_LSTM_GATES, &attr, in, 4, NULL, out, 3);
    k->c_new = out[1];
  } else if (one_op) {
    graph_add_node(unroll_scan_body(k->scan), UNROLL_OP_LSTM_GATES, NULL, (unroll_tensor[]){a, k->c}, 2, NULL, out, 3);
    k->c_new = out[1];
  } else {
    const unroll_tensor i = activate(k, peep(k, block(k, a, 0), "p_i", k->c), &r->f);
    const unroll_tensor f = r->coupled ? one_minus(k, i) : activate(k, peep(k, block(k, a, 1), "p_f", k->c), &r->f);
    const unroll_tensor g = activate(k, block(k, a, r->G - 2), &r->g);
    k->c_new = unroll_add(unroll_mul(f, k->c), unroll_mul(i, g));
  }
  k->c_new = nn_bound(k->c_new, o->cell_clip);
  if (whole)
    k->h_new = out[0];
  else {
    const unroll_tensor gate = activate(k, peep(k, block(k, a, r->G - 1), "p_o", k->c_new), &r->f);
    unroll_tensor seen = k->c_new;
    if (o->layer_norm)
      seen = unroll_layer_norm(seen, param(k, "ln_c", r->H, 0), param(k, "ln_s", r->H, 0), o->layer_norm_epsilon);
    k->h_new = unroll_mul(gate, activate(k, seen, &r->h));
  }
  if (o->projection)
    k->h_new = unroll_matmul_add(k->h_new, 0, param(k, "W_r", r->P, r->H), 1, unroll_none());
}

/* n + z⊙(h - n) */
static unroll_tensor between(const cell *k, unroll_tensor z, unroll_tensor n) {
  return unroll_add(n, unroll_mul(z, unroll_sub(k->h, n)));
}

static void gru_step(cell *k, const unroll_tensor *pre) {
  const nn_rnn *r = k->r;
  const unroll_tensor a = from_state(k, k->h, 0, 2 * r->H, unroll_scan_input(k->scan, pre[0]));
  const unroll_tensor x_n = unroll_scan_input(k->scan, pre[1]);
  if (r->standard) {
    unroll_graph *body = unroll_scan_body(k->scan);
    unroll_tensor reset[2], out[2];
    graph_add_node(body, UNROLL_OP_GRU_RESET, NULL, (unroll_tensor[]){a, k->h}, 2, NULL, reset, 2);
    const unroll_tensor a_n = from_state(k, reset[1], 2 * r->H, r->H, x_n);
    graph_add_node(body, UNROLL_OP_GRU_UPDATE, NULL, (unroll_tensor[]){a_n, reset[0], k->h}, 3, NULL, out, 2);
    k->h_new = out[0];
    return;
  }
  const unroll_tensor reset = activate(k, block(k, a, 0), &r->f), z = activate(k, block(k, a, 1), &r->f);
  const unroll_tensor n = activate(k, from_state(k, unroll_mul(reset, k->h), 2 * r->H, r->H, x_n), &r->g);
  k->h_new = between(k, z, n);
}

static void gru_after_step(cell *k, const unroll_tensor *pre) {
  const nn_rnn *r = k->r;
  const unroll_tensor b_n = param(k, "b_n", r->H, 0);
  if (r->standard && !r->o.layer_norm) {
    unroll_tensor out[2];
    const unroll_tensor hp = from_state(k, k->h, 0, 3 * r->H, unroll_pad(b_n, 0, 2 * r->H, 0));
    graph_add_node(unroll_scan_body(k->scan), UNROLL_OP_GRU_AFTER_GATES, NULL,
                   (unroll_tensor[]){unroll_scan_input(k->scan, pre[0]), hp, k->h}, 3, NULL, out, 2);
    k->h_new = out[0];
    return;
  }
  const unroll_tensor a = from_state(k, k->h, 0, 2 * r->H, unroll_scan_input(k->scan, pre[0]));
  const unroll_tensor inner = from_state(k, k->h, 2 * r->H, r->H, b_n);
  const unroll_tensor reset = activate(k, block(k, a, 0), &r->f), z = activate(k, block(k, a, 1), &r->f);
  const unroll_tensor n = activate(k, unroll_add(unroll_scan_input(k->scan, pre[1]), unroll_mul(reset, inner)), &r->g);
  k->h_new = between(k, z, n);
}

/* ---- what stands around them ---- */

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

static unroll_tensor tapped(const cell *k, unroll_tensor x, unroll_tensor tap) {
  return tap.graph ? unroll_add(x, unroll_scan_input(k->scan, tap)) : x;
}

/* p: with that probability a unit keeps its old value. */
static unroll_tensor zoned_out(const cell *k, unroll_tensor was, unroll_tensor is, double p, unroll_tensor masks) {
  if (p == 0)
    return is;
  if (k->r->o.inference)
    return unroll_add(unroll_scale(was, p), unroll_scale(is, 1 - p));
  return unroll_select(unroll_scan_input(k->scan, masks), was, is);
}

static void scan(cell *k, const unroll_tensor *pre, nn_cell_outputs *out) {
  const nn_rnn *r = k->r;
  const nn_cell_inputs *in = k->in;
  const bool lstm = r->family == UNROLL_CELL_LSTM;
  const bool masks = !r->o.inference;
  const unroll_tensor masks_h =
      masks && r->o.zoneout_h > 0 ? nn_step_masks(in->x, r->P, r->o.zoneout_h) : unroll_none();
  const unroll_tensor masks_c =
      masks && r->o.zoneout_c > 0 ? nn_step_masks(in->x, r->H, r->o.zoneout_c) : unroll_none();
  const unroll_tensor h0 = nn_first_state(in->h0, in, r->P, "h");
  const unroll_tensor c0 = lstm ? nn_first_state(in->c0, in, r->H, "c") : unroll_none();
  if (!nn_check_tap(in->tap_h, in, r->P, "h") || !nn_check_tap(in->tap_c, in, r->H, "c"))
    return;
  const tensor_spec *sx = graph_spec(in->x);
  /* Unchecked, as every shape is known to fit and what stands past a sequence's end is masked already. */
  if (!(k->scan = scan_begin_unchecked(k->g, in->direction, sx->shape[0], sx->dim[0])))
    return;
  if (r->o.checkpoint)
    unroll_scan_checkpoint(k->scan, &r->policy);
  k->scan->lengths = r->o.lengths.graph ? r->o.lengths.id : GRAPH_NONE;
  k->h = unroll_scan_carry(k->scan, h0);
  if (lstm)
    k->c = unroll_scan_carry(k->scan, c0);
  switch (r->family) {
  case UNROLL_CELL_RNN: rnn_step(k, pre); break;
  case UNROLL_CELL_LSTM: lstm_step(k, pre); break;
  case UNROLL_CELL_GRU: gru_step(k, pre); break;
  default: gru_after_step(k, pre);
  }
  if (r->o.skip != 0)
    k->h_new = unroll_add(k->h_new, unroll_scale(k->h, r->o.skip));
  if (in->residual.graph)
    k->h_new = unroll_add(k->h_new, unroll_scan_input(k->scan, in->residual));
  k->h_new = tapped(k, zoned_out(k, k->h, k->h_new, r->o.zoneout_h, masks_h), in->tap_h);
  unroll_scan_next(k->scan, k->h, k->h_new);
  out->y = unroll_scan_output(k->scan, k->h_new);
  out->h_last = unroll_scan_last(k->scan, k->h);
  if (lstm) {
    k->c_new = tapped(k, zoned_out(k, k->c, k->c_new, r->o.zoneout_c, masks_c), in->tap_c);
    unroll_scan_next(k->scan, k->c, k->c_new);
    out->c_last = unroll_scan_last(k->scan, k->c);
    if (r->o.cells)
      out->c_all = unroll_scan_output(k->scan, k->c_new);
  }
  unroll_scan_end(k->scan);
}

nn_cell_outputs nn_cell(const nn_rnn *r, const nn_cell_inputs *in) {
  nn_cell_outputs out = {unroll_none(), unroll_none(), unroll_none(), unroll_none()};
  unroll_graph *g = in->x.graph;
  if (!g || graph_failed(g))
    return out;
  const tensor_spec sx = *graph_spec(in->x);
  cell k = {.r = r, .in = in, .g = g, .dtype = sx.dtype, .B = sx.shape[1]};
  const int64_t GH = r->G * r->H;
  g->layer = in->layer;
  g->direction = in->direction;
  const unroll_tensor x = r->o.lengths.graph ? unroll_length_mask(in->x, r->o.lengths) : in->x;
  unroll_tensor pre[2] = {unroll_none(), unroll_none()};
  const bool apart =
      r->family == UNROLL_CELL_GRU || (r->family == UNROLL_CELL_GRU_AFTER && (!r->standard || r->o.layer_norm));
  pre[0] = from_inputs(&k, x, 0, apart ? 2 * r->H : GH);
  if (apart) /* the candidate's part goes its own way */
    pre[1] = from_inputs(&k, x, 2 * r->H, r->H);
  k.W_h = nn_dropout_matrix(param(&k, "W_h", GH, r->P), r->o.weight_dropout);
  if (r->o.state_dropout > 0)
    k.mask = nn_mask(g, k.dtype, k.B, r->P, r->o.state_dropout);
  if (!graph_failed(g))
    scan(&k, pre, &out);
  g->layer = g->direction = -1;
  return out;
}
