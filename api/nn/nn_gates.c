/* SPDX-License-Identifier: Apache-2.0 */
/*
 * nn_gates.c: one step of a cell with its options; layers and decoders share it. Where only what stands around the gates
 * differs from the standard cell, the gates are one op.
 */
#include "nn/nn_private.h"

typedef struct step {
  const nn_cell_at *k;
  unroll_graph *g;    /* the body of a scan, mostly */
  unroll_tensor h, c; /* as the step finds them */
  unroll_tensor h_new, c_new;
  unroll_tensor *gates; /* NULL: not asked for */
} step;

static unroll_tensor param(const nn_cell_at *k, const char *what, int64_t rows, int64_t columns) {
  const int64_t shape[2] = {rows, columns};
  return nn_layer_param(k->g, k->prefix, what, k->layer, k->direction, k->dtype, columns ? 2 : 1, shape);
}

/* Rows of a matrix or of a vector. */
static unroll_tensor rows_of(unroll_tensor x, int64_t first, int64_t rows) {
  if (nn_lost(x) || graph_spec(x)->shape[0] == rows)
    return x;
  return unroll_slice(x, 0, first, rows);
}

/* ---- what does not wait for the state ---- */

bool nn_apart(const nn_rnn *r) {
  return r->family == UNROLL_CELL_GRU || (r->family == UNROLL_CELL_GRU_AFTER && (!r->standard || r->o.layer_norm));
}

nn_cell_at nn_cell_open(const nn_rnn *r, unroll_graph *g, const char *prefix, int32_t layer, int32_t direction,
                        int32_t dtype) {
  const unroll_tensor none = unroll_none();
  return (nn_cell_at){r, g, prefix, layer, direction, dtype, none, none, none, none};
}

static unroll_tensor recurrent(const nn_cell_at *k) {
  return k->W_h.graph ? k->W_h : param(k, "W_h", k->r->G * k->r->H, k->r->P);
}

void nn_cell_masks(nn_cell_at *k, int64_t T, int64_t B) {
  const unroll_rnn_options *o = &k->r->o;
  if (o->weight_dropout > 0)
    k->W_h = nn_dropout_matrix(recurrent(k), o->weight_dropout);
  if (o->state_dropout > 0)
    k->h_mask = nn_mask(k->g, k->dtype, B, k->r->P, o->state_dropout);
  if (o->inference)
    return;
  if (o->zoneout_h > 0)
    k->stay_h = nn_step_masks(k->g, k->dtype, T, B, k->r->P, o->zoneout_h);
  if (o->zoneout_c > 0)
    k->stay_c = nn_step_masks(k->g, k->dtype, T, B, k->r->H, o->zoneout_c);
}

/* v + b, under layer norm gain⊙norm(v) + b, of the gates that stand in these rows; without layer norm v has b already. */
static unroll_tensor normalised(const nn_cell_at *k, unroll_tensor v, int64_t first, int64_t rows) {
  const int64_t GH = k->r->G * k->r->H;
  const unroll_tensor b = rows_of(param(k, "b", GH, 0), first, rows);
  return unroll_layer_norm(v, rows_of(param(k, "ln_x", GH, 0), first, rows), b, k->r->o.layer_norm_epsilon);
}

unroll_tensor nn_cell_inputs_of(const nn_cell_at *k, unroll_tensor x, int64_t first, int64_t rows) {
  const int64_t GH = k->r->G * k->r->H;
  if (nn_lost(x))
    return unroll_none();
  const unroll_tensor W = rows_of(param(k, "W_x", GH, graph_spec(x)->shape[graph_spec(x)->rank - 1]), first, rows);
  if (k->r->o.layer_norm)
    return normalised(k, unroll_matmul_add(x, 0, W, 1, unroll_none()), first, rows);
  return unroll_matmul_add(x, 0, W, 1, rows_of(param(k, "b", GH, 0), first, rows));
}

unroll_tensor nn_cell_product(const nn_cell_at *k, const char *what, unroll_tensor x, unroll_tensor c) {
  if (nn_lost(x))
    return unroll_none();
  const int64_t GH = k->r->G * k->r->H;
  const unroll_tensor W = param(k, what, GH, graph_spec(x)->shape[graph_spec(x)->rank - 1]);
  if (!c.graph && !k->r->o.layer_norm)
    c = param(k, "b", GH, 0);
  return unroll_matmul_add(x, 0, W, 1, c);
}

void nn_cell_split(const nn_cell_at *k, unroll_tensor xw, unroll_tensor in[2]) {
  const int64_t H = k->r->H;
  in[0] = xw;
  in[1] = unroll_none();
  if (nn_lost(xw))
    return;
  if (nn_apart(k->r)) {
    in[0] = unroll_slice(xw, 1, 0, 2 * H);
    in[1] = unroll_slice(xw, 1, 2 * H, H);
  }
  if (!k->r->o.layer_norm)
    return;
  in[0] = normalised(k, in[0], 0, in[1].graph ? 2 * H : k->r->G * H);
  if (in[1].graph)
    in[1] = normalised(k, in[1], 2 * H, H);
}

/* ---- the cells ---- */

/* (m⊙h)·W_hᵀ + other, of the gates that stand in these rows. */
static unroll_tensor from_state(const nn_cell_at *k, unroll_tensor h, int64_t first, int64_t rows,
                                unroll_tensor other) {
  const unroll_tensor W = rows_of(recurrent(k), first, rows);
  if (k->h_mask.graph)
    h = unroll_mul(h, k->h_mask);
  if (!k->r->o.layer_norm)
    return unroll_matmul_add(h, 0, W, 1, other);
  const unroll_tensor gain = rows_of(param(k, "ln_h", k->r->G * k->r->H, 0), first, rows);
  return unroll_layer_norm(unroll_matmul_add(h, 0, W, 1, unroll_none()), gain, other, k->r->o.layer_norm_epsilon);
}

static unroll_tensor activate(const nn_cell_at *k, unroll_tensor x, const unroll_activation *a) {
  return nn_activate(x, a, k->r->o.clip, unroll_none());
}
static unroll_tensor block(const nn_cell_at *k, unroll_tensor x, int64_t i) {
  return unroll_slice(x, 1, i * k->r->H, k->r->H);
}
/* a + p⊙c, where the cell has peepholes */
static unroll_tensor peep(const nn_cell_at *k, unroll_tensor a, const char *what, unroll_tensor c) {
  return k->r->o.peepholes ? unroll_add(a, unroll_mul(c, param(k, what, k->r->H, 0))) : a;
}
static unroll_tensor one_minus(const step *s, unroll_tensor x) {
  return unroll_sub(nn_filled(s->g, s->k->dtype, 0, NULL, 1.0), x);
}

/* x: side by side what every gate came to. */
static void give_gates(step *s, const unroll_tensor *x, uint32_t n) {
  if (s->gates)
    *s->gates = n > 1 ? unroll_concat(x, n, 1) : x[0];
}

static void rnn_step(step *s, const unroll_tensor *in) {
  const nn_cell_at *k = s->k;
  const nn_rnn *r = k->r;
  const unroll_tensor a = from_state(k, s->h, 0, r->H, in[0]);
  const unroll_tensor bias = r->f.kind == UNROLL_ACTIVATION_MODRELU ? param(k, "b_m", r->H, 0) : unroll_none();
  s->h_new = nn_activate(a, &r->f, r->o.clip, bias);
  give_gates(s, &s->h_new, 1);
}

static void lstm_step(step *s, const unroll_tensor *in) {
  const nn_cell_at *k = s->k;
  const nn_rnn *r = k->r;
  const unroll_rnn_options *o = &r->o;
  const unroll_tensor a = from_state(k, s->h, 0, r->G * r->H, in[0]);
  const bool one_op = r->standard && !r->coupled && !o->peepholes, whole = one_op && o->cell_clip == 0;
  unroll_tensor out[3] = {unroll_none(), unroll_none(), unroll_none()}, of_step[4];
  if (whole && o->layer_norm) {
    const op_attr attr = {.layer_norm = {.epsilon = o->layer_norm_epsilon}};
    const unroll_tensor of[] = {a, s->c, param(k, "ln_c", r->H, 0), param(k, "ln_s", r->H, 0)};
    graph_add_node(s->g, UNROLL_OP_LSTM_GATES, &attr, of, 4, NULL, out, 3);
    s->c_new = out[1];
  } else if (one_op) {
    graph_add_node(s->g, UNROLL_OP_LSTM_GATES, NULL, (unroll_tensor[]){a, s->c}, 2, NULL, out, 3);
    s->c_new = out[1];
  } else {
    const unroll_tensor i = activate(k, peep(k, block(k, a, 0), "p_i", s->c), &r->f);
    const unroll_tensor f = r->coupled ? one_minus(s, i) : activate(k, peep(k, block(k, a, 1), "p_f", s->c), &r->f);
    const unroll_tensor g = activate(k, block(k, a, r->G - 2), &r->g);
    s->c_new = unroll_add(unroll_mul(f, s->c), unroll_mul(i, g));
    of_step[0] = i;
    of_step[1] = f;
    of_step[r->G - 2] = g;
  }
  s->c_new = nn_bound(s->c_new, o->cell_clip);
  if (whole)
    s->h_new = out[0];
  else {
    const unroll_tensor gate = activate(k, peep(k, block(k, a, r->G - 1), "p_o", s->c_new), &r->f);
    unroll_tensor seen = s->c_new;
    if (o->layer_norm)
      seen = unroll_layer_norm(seen, param(k, "ln_c", r->H, 0), param(k, "ln_s", r->H, 0), o->layer_norm_epsilon);
    s->h_new = unroll_mul(gate, activate(k, seen, &r->h));
    of_step[r->G - 1] = gate;
  }
  if (one_op)
    give_gates(s, &out[2], 1);
  else
    give_gates(s, of_step, (uint32_t)r->G);
  if (o->projection)
    s->h_new = unroll_matmul_add(s->h_new, 0, param(k, "W_r", r->P, r->H), 1, unroll_none());
}

/* n + z⊙(h - n) */
static unroll_tensor between(const step *s, unroll_tensor z, unroll_tensor n) {
  return unroll_add(n, unroll_mul(z, unroll_sub(s->h, n)));
}

/* Of pre [B,2H] and x [B,H]: rz = σ(pre), and r⊙x. */
typedef struct reset_gate {
  unroll_tensor rz, reset;
} reset_gate;
static reset_gate reset_and_update(const step *s, unroll_tensor pre, unroll_tensor x) {
  unroll_tensor out[2];
  graph_add_node(s->g, UNROLL_OP_GRU_RESET, NULL, (unroll_tensor[]){pre, x}, 2, NULL, out, 2);
  return (reset_gate){out[0], out[1]};
}
static void update(step *s, unroll_tensor pre, reset_gate gate) {
  unroll_tensor out[2];
  graph_add_node(s->g, UNROLL_OP_GRU_UPDATE, NULL, (unroll_tensor[]){pre, gate.rz, s->h}, 3, NULL, out, 2);
  s->h_new = out[0];
  give_gates(s, (unroll_tensor[]){gate.rz, out[1]}, 2);
}

static void gru_step(step *s, const unroll_tensor *in) {
  const nn_cell_at *k = s->k;
  const nn_rnn *r = k->r;
  const unroll_tensor a = from_state(k, s->h, 0, 2 * r->H, in[0]);
  if (r->standard) {
    const reset_gate gate = reset_and_update(s, a, s->h);
    update(s, from_state(k, gate.reset, 2 * r->H, r->H, in[1]), gate);
    return;
  }
  const unroll_tensor reset = activate(k, block(k, a, 0), &r->f), z = activate(k, block(k, a, 1), &r->f);
  const unroll_tensor n = activate(k, from_state(k, unroll_mul(reset, s->h), 2 * r->H, r->H, in[1]), &r->g);
  s->h_new = between(s, z, n);
  give_gates(s, (unroll_tensor[]){reset, z, n}, 3);
}

static void gru_after_step(step *s, const unroll_tensor *in) {
  const nn_cell_at *k = s->k;
  const nn_rnn *r = k->r;
  const unroll_tensor b_n = param(k, "b_n", r->H, 0);
  if (!nn_apart(r)) {
    unroll_tensor out[2];
    const unroll_tensor hp = from_state(k, s->h, 0, 3 * r->H, unroll_pad(b_n, 0, 2 * r->H, 0));
    graph_add_node(s->g, UNROLL_OP_GRU_AFTER_GATES, NULL, (unroll_tensor[]){in[0], hp, s->h}, 3, NULL, out, 2);
    s->h_new = out[0];
    if (s->gates)
      *s->gates = unroll_slice(out[1], 1, 0, 3 * r->H); /* behind them is the candidate's product with h */
    return;
  }
  const unroll_tensor a = from_state(k, s->h, 0, 2 * r->H, in[0]);
  const unroll_tensor inner = from_state(k, s->h, 2 * r->H, r->H, b_n);
  if (r->standard) { /* what is reset is not h but its product: the ops of the other form do as well */
    const reset_gate gate = reset_and_update(s, a, inner);
    update(s, unroll_add(in[1], gate.reset), gate);
    return;
  }
  const unroll_tensor reset = activate(k, block(k, a, 0), &r->f), z = activate(k, block(k, a, 1), &r->f);
  const unroll_tensor n = activate(k, unroll_add(in[1], unroll_mul(reset, inner)), &r->g);
  s->h_new = between(s, z, n);
  give_gates(s, (unroll_tensor[]){reset, z, n}, 3);
}

/* p: with that probability a unit keeps its old value. */
static unroll_tensor zoned_out(const step *s, unroll_scan *scan, unroll_tensor was, unroll_tensor is, double p,
                               unroll_tensor stay) {
  if (p == 0)
    return is;
  if (s->k->r->o.inference)
    return unroll_add(unroll_scale(was, p), unroll_scale(is, 1 - p));
  return unroll_select(unroll_scan_input(scan, stay), was, is);
}

unroll_cell_state nn_cell_step(const nn_cell_at *k, unroll_scan *scan, const unroll_tensor in[2],
                               unroll_cell_state before, unroll_tensor residual, unroll_tensor *gates) {
  const unroll_tensor none = unroll_none();
  const nn_rnn *r = k->r;
  if (gates)
    *gates = none;
  if (nn_lost(in[0]))
    return (unroll_cell_state){none, none};
  step s = {.k = k, .g = in[0].graph, .h = before.h, .c = before.c, .h_new = none, .c_new = none, .gates = gates};
  switch (r->family) {
  case UNROLL_CELL_RNN: rnn_step(&s, in); break;
  case UNROLL_CELL_LSTM: lstm_step(&s, in); break;
  case UNROLL_CELL_GRU: gru_step(&s, in); break;
  case UNROLL_CELL_GRU_AFTER: gru_after_step(&s, in); break;
  default: s.h_new = nn_min_step(r, in[0], s.h, gates);
  }
  if (r->o.skip != 0)
    s.h_new = unroll_add(s.h_new, unroll_scale(s.h, r->o.skip));
  if (residual.graph)
    s.h_new = unroll_add(s.h_new, residual);
  s.h_new = zoned_out(&s, scan, s.h, s.h_new, r->o.zoneout_h, k->stay_h);
  if (r->family != UNROLL_CELL_LSTM)
    return (unroll_cell_state){s.h_new, none};
  return (unroll_cell_state){s.h_new, zoned_out(&s, scan, s.c, s.c_new, r->o.zoneout_c, k->stay_c)};
}
