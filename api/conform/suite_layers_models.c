/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Recurrent networks as nn.h builds them: a case for every option of unroll_rnn_options, forward and gradient. The
 * sequences are ragged wherever nothing else is said, and every state and parameter has a gradient.
 *
 * Masks are the same numbers on both sides, so nothing here is left out of the comparison. Kinks (clips, relu) have
 * measure 0: an element within rounding of one is as likely as a comparison of floats that goes the other way.
 */
#include "conform/suite_layers_private.h"
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unroll/nn.h>

/* ---- shared with suite_layers_sequences.c ---- */

static bool is_input(const struct net *n, const char *name) {
  for (uint32_t i = 0; i < n->n_in; i++)
    if (strcmp(n->in[i].name, name) == 0)
      return true;
  return false;
}

/* The range of a parameter of that name: a step does not enlarge what the one before has left. */
static void range_of(const unroll_tensor_info *info, double *lo, double *hi) {
  /* An alignment that hardly differs from step to step has a gradient that is nearly all cancellation. */
  const double size = strstr(info->name, "attention") ? 3 : 1;
  const double scale = info->rank == 2 ? size / sqrt((double)info->shape[1]) : 1;
  *lo = -0.5 * scale;
  *hi = 0.7 * scale;
  if (strstr(info->name, "ln_x") || strstr(info->name, "ln_h") || strstr(info->name, "ln_c")) {
    *lo = 0.4;
    *hi = 1.1;
  }
}

static void add_parameters(struct net *n, struct net_model *m) {
  for (uint32_t i = 0; i < unroll_graph_count(n->g); i++) {
    const unroll_tensor x = unroll_graph_tensor(n->g, i);
    const unroll_tensor_info info = unroll_tensor_describe(x);
    if (info.role != UNROLL_ROLE_PARAM || is_input(n, info.name))
      continue;
    double lo, hi;
    range_of(&info, &lo, &hi);
    net_given(n, x, lo, hi);
    net_want(n, m, x, info.name, 0);
  }
}

void net_want(struct net *n, struct net_model *m, unroll_tensor x, const char *name, uint32_t flags) {
  if (m->n_x == NET_WANTED) {
    n->failed = true;
    return;
  }
  m->x[m->n_x] = x;
  m->x_flags[m->n_x] = flags;
  snprintf(m->x_names[m->n_x++], NET_TENSOR_NAME, "d%.30s", name);
}

void net_read(struct net_model *m, unroll_tensor y, const char *name, uint32_t flags) {
  if (y.graph)
    m->y[m->n_y++] = (struct net_result){y, name, flags};
}

void net_finish_model(struct net *n, struct net_model *m) {
  const struct net_spec *s = n->spec;
  add_parameters(n, m);
  for (uint32_t i = 0; i < m->n_y; i++)
    net_out(n, m->y[i].tensor, m->y[i].name, net_budget(UNROLL_CELL_LSTM, m->chain, m->K, 0), m->y[i].flags);
  if (!s->grad)
    return;
  unroll_tensor d[NET_WANTED];
  net_gradient(n, m->y, m->n_y, m->x, m->n_x, d);
  for (uint32_t i = 0; i < m->n_x; i++)
    net_out(n, d[i], m->x_names[i],
            net_budget(UNROLL_CELL_LSTM, 2 * m->chain, m->K, m->x_flags[i] ? 0 : (double)(s->T * s->B)), m->x_flags[i]);
}

/* ---- the options ---- */

#define ACTIVATION(KIND, ALPHA, BETA) \
  { UNROLL_ACTIVATION_##KIND, 0, ALPHA, BETA }

/* With blocks of 512 rows, 64 sequences of 33 steps have segments of 8 steps and a rest. */
static const unroll_rnn_state tapped = {NULL, NULL}; /* stands for inputs of every layer and direction */
static const unroll_checkpoint_policy
    all_steps = {.struct_size = sizeof(unroll_checkpoint_policy), .kind = UNROLL_CHECKPOINT_ALL},
    every_8 = {.struct_size = sizeof(unroll_checkpoint_policy), .kind = UNROLL_CHECKPOINT_EVERY, .every = 8},
    root = {.struct_size = sizeof(unroll_checkpoint_policy), .kind = UNROLL_CHECKPOINT_SQRT},
    bytes = {/* times the size of an element */ .struct_size = sizeof(unroll_checkpoint_policy),
             .kind = UNROLL_CHECKPOINT_BYTES,
             .bytes = 170000};

enum { CELLS = 1, GATES = 2 };

/* layers 0: one. I is 7, of residuals that of y. */
static const struct rnn_case {
  const char *what;
  unroll_rnn_options o;
  unsigned reads; /* of every step, beside y: c, or the gates */
} rnns[] = {
    {"input dropout lstm", {.cell = UNROLL_CELL_LSTM, .input_dropout = 0.3}, 0},
    {"output dropout gru", {.cell = UNROLL_CELL_GRU, .output_dropout = 0.4}, 0},
    {"dropout rnn", {.cell = UNROLL_CELL_RNN, .activation = UNROLL_SIGMOID, .layers = 3, .dropout = 0.3}, 0},
    {"same mask lstm",
     {.cell = UNROLL_CELL_LSTM,
      .layers = 2,
      .same_mask = 1,
      .dropout = 0.2,
      .input_dropout = 0.3,
      .output_dropout = 0.4},
     0},
    {"weight dropout gru_after", {.cell = UNROLL_CELL_GRU_AFTER, .weight_dropout = 0.4}, 0},
    {"state dropout rnn", {.cell = UNROLL_CELL_RNN, .activation = UNROLL_RELU, .state_dropout = 0.3}, 0},
    {"state dropout lstm", {.cell = UNROLL_CELL_LSTM, .bidirectional = 1, .state_dropout = 0.3}, 0},
    {"state dropout gru", {.cell = UNROLL_CELL_GRU, .state_dropout = 0.3}, 0},
    {"state dropout gru_after", {.cell = UNROLL_CELL_GRU_AFTER, .state_dropout = 0.3}, 0},
    {"zoneout rnn", {.cell = UNROLL_CELL_RNN, .bidirectional = 1, .zoneout_h = 0.3}, 0},
    {"zoneout lstm", {.cell = UNROLL_CELL_LSTM, .zoneout_h = 0.2, .zoneout_c = 0.4}, CELLS},
    {"zoneout gru", {.cell = UNROLL_CELL_GRU, .zoneout_h = 0.3}, 0},
    {"zoneout gru_after", {.cell = UNROLL_CELL_GRU_AFTER, .zoneout_h = 0.3}, 0},
    {"zoneout inference lstm", {.cell = UNROLL_CELL_LSTM, .inference = 1, .zoneout_h = 0.2, .zoneout_c = 0.4}, 0},
    {"layer norm rnn", {.cell = UNROLL_CELL_RNN, .layer_norm = 1, .layer_norm_epsilon = 0.01}, 0},
    {"layer norm lstm", {.cell = UNROLL_CELL_LSTM, .layer_norm = 1, .bidirectional = 1}, CELLS},
    {"layer norm gru", {.cell = UNROLL_CELL_GRU, .layer_norm = 1}, 0},
    {"layer norm gru_after", {.cell = UNROLL_CELL_GRU_AFTER, .layer_norm = 1}, 0},
    {"layer norm coupled_lstm", {.cell = UNROLL_RNN_COUPLED_LSTM, .layer_norm = 1}, 0},
    {"peepholes lstm", {.cell = UNROLL_CELL_LSTM, .peepholes = 1}, 0},
    {"peepholes coupled_lstm", {.cell = UNROLL_RNN_COUPLED_LSTM, .peepholes = 1}, 0},
    {"coupled_lstm", {.cell = UNROLL_RNN_COUPLED_LSTM}, CELLS},
    {"projection lstm", {.cell = UNROLL_CELL_LSTM, .layers = 2, .bidirectional = 1, .projection = 5}, 0},
    {"cell clip lstm", {.cell = UNROLL_CELL_LSTM, .cell_clip = 0.3}, CELLS},
    {"clip rnn", {.cell = UNROLL_CELL_RNN, .clip = 0.4}, 0},
    {"clip lstm", {.cell = UNROLL_CELL_LSTM, .clip = 0.4}, 0},
    {"clip gru", {.cell = UNROLL_CELL_GRU, .clip = 0.4}, 0},
    {"clip gru_after", {.cell = UNROLL_CELL_GRU_AFTER, .clip = 0.4}, 0},
    {"min_gru", {.cell = UNROLL_RNN_MIN_GRU, .layers = 2, .bidirectional = 1}, 0},
    {"min_lstm", {.cell = UNROLL_RNN_MIN_LSTM, .g = ACTIVATION(TANH, 0, 0)}, 0},
    {"affine rnn", {.cell = UNROLL_CELL_RNN, .f = ACTIVATION(AFFINE, 0.7, -0.1)}, 0},
    {"leaky relu rnn", {.cell = UNROLL_CELL_RNN, .f = ACTIVATION(LEAKY_RELU, 0.1, 0)}, 0},
    {"thresholded relu rnn", {.cell = UNROLL_CELL_RNN, .f = ACTIVATION(THRESHOLDED_RELU, 0.3, 0)}, 0},
    {"scaled tanh rnn", {.cell = UNROLL_CELL_RNN, .f = ACTIVATION(SCALED_TANH, 1.2, 0.6)}, 0},
    {"hard sigmoid rnn", {.cell = UNROLL_CELL_RNN, .f = ACTIVATION(HARD_SIGMOID, 0.6, 0.4)}, 0},
    {"elu rnn", {.cell = UNROLL_CELL_RNN, .f = ACTIVATION(ELU, 0.8, 0)}, 0},
    {"softsign rnn", {.cell = UNROLL_CELL_RNN, .f = ACTIVATION(SOFTSIGN, 0, 0)}, 0},
    {"softplus rnn", {.cell = UNROLL_CELL_RNN, .f = ACTIVATION(SOFTPLUS, 0, 0)}, 0},
    {"identity rnn", {.cell = UNROLL_CELL_RNN, .f = ACTIVATION(IDENTITY, 0, 0)}, 0},
    {"modrelu rnn", {.cell = UNROLL_CELL_RNN, .f = ACTIVATION(MODRELU, 0, 0)}, 0},
    {"activations lstm",
     {.cell = UNROLL_CELL_LSTM,
      .f = ACTIVATION(HARD_SIGMOID, 0.25, 0.5),
      .g = ACTIVATION(ELU, 0.7, 0),
      .h = ACTIVATION(SOFTSIGN, 0, 0)},
     0},
    {"activations gru",
     {.cell = UNROLL_CELL_GRU, .f = ACTIVATION(HARD_SIGMOID, 0.3, 0.4), .g = ACTIVATION(RELU, 0, 0)},
     0},
    {"activations gru_after",
     {.cell = UNROLL_CELL_GRU_AFTER, .f = ACTIVATION(SIGMOID, 0, 0), .g = ACTIVATION(SCALED_TANH, 0.9, 1.3)},
     0},
    {"skip rnn", {.cell = UNROLL_CELL_RNN, .skip = 0.3}, 0},
    {"skip gru", {.cell = UNROLL_CELL_GRU, .skip = -0.3}, 0},
    {"residual outputs gru",
     {.cell = UNROLL_CELL_GRU, .layers = 2, .bidirectional = 1, .residual = UNROLL_RESIDUAL_OUTPUTS},
     0},
    {"residual states lstm", {.cell = UNROLL_CELL_LSTM, .layers = 2, .residual = UNROLL_RESIDUAL_STATES}, 0},
    {"no residual rnn", {.cell = UNROLL_CELL_RNN, .residual = UNROLL_RESIDUAL_NONE}, 0},
    {"everything lstm",
     {.cell = UNROLL_CELL_LSTM,
      .input_dropout = 0.1,
      .output_dropout = 0.1,
      .weight_dropout = 0.2,
      .state_dropout = 0.2,
      .zoneout_h = 0.1,
      .zoneout_c = 0.1,
      .clip = 2,
      .cell_clip = 1,
      .projection = 7,
      .peepholes = 1,
      .layer_norm = 1,
      .skip = 0.2,
      .residual = UNROLL_RESIDUAL_STATES},
     CELLS},
    {"checkpoint all lstm", {.cell = UNROLL_CELL_LSTM, .layers = 2, .checkpoint = &all_steps}, 0},
    {"checkpoint every 8 lstm", {.cell = UNROLL_CELL_LSTM, .layers = 2, .dropout = 0.2, .checkpoint = &every_8}, 0},
    {"checkpoint root gru", {.cell = UNROLL_CELL_GRU, .bidirectional = 1, .checkpoint = &root}, 0},
    {"checkpoint bytes peepholes lstm", {.cell = UNROLL_CELL_LSTM, .peepholes = 1, .checkpoint = &bytes}, 0},
    {"taps gru", {.cell = UNROLL_CELL_GRU, .bidirectional = 1, .taps = &tapped}, 0},
    {"gates rnn", {.cell = UNROLL_CELL_RNN}, GATES},
    {"gates lstm", {.cell = UNROLL_CELL_LSTM, .bidirectional = 1}, GATES},
    {"gates bounded lstm", {.cell = UNROLL_CELL_LSTM, .cell_clip = 1}, GATES},
    {"gates gru", {.cell = UNROLL_CELL_GRU}, GATES},
    {"gates gru_after", {.cell = UNROLL_CELL_GRU_AFTER}, GATES},
    {"gates min_gru", {.cell = UNROLL_RNN_MIN_GRU}, GATES},
};

enum { RNN_STATES = 6 };

static void build_rnn(struct net *n, const struct net_spec *s) {
  const struct rnn_case *c = &rnns[s->form];
  struct net_model m = {.n_y = 0};
  unroll_rnn_options o = c->o;
  o.struct_size = sizeof o;
  o.layers = o.layers ? o.layers : 1;
  o.hidden = s->H;
  unroll_checkpoint_policy policy;
  if (o.checkpoint) {
    policy = *o.checkpoint;
    policy.bytes *= unroll_dtype_size(n->dtype);
    o.checkpoint = &policy;
  }
  const uint32_t D = o.bidirectional ? 2 : 1, states = (uint32_t)o.layers * D;
  const bool lstm = o.cell == UNROLL_CELL_LSTM || o.cell == UNROLL_RNN_COUPLED_LSTM;
  const int64_t P = o.projection ? o.projection : s->H;
  unroll_tensor h0[RNN_STATES], c0[RNN_STATES], h[RNN_STATES], cell[RNN_STATES], all[RNN_STATES], taps[RNN_STATES],
      gates[RNN_STATES];
  const unroll_tensor x = net_in(n, UNROLL_ROLE_INPUT, "x", -0.5, 1.5, NET_TIME, 3, (int64_t[]){n->T, s->B, s->I});
  net_want(n, &m, x, "x", NET_TIME);
  o.lengths = net_lengths(n);
  o.cells = c->reads & CELLS ? all : NULL;
  o.gates = c->reads & GATES ? gates : NULL;
  for (uint32_t i = 0; i < RNN_STATES; i++)
    h[i] = cell[i] = all[i] = gates[i] = unroll_none(); /* they stay so where the graph has an error */
  for (uint32_t i = 0; i < states; i++) {
    char name[NET_TENSOR_NAME];
    snprintf(name, sizeof name, "h0.%u", i);
    h0[i] = net_in(n, UNROLL_ROLE_INPUT, name, -0.8, 0.6, 0, 2, (int64_t[]){s->B, P});
    net_want(n, &m, h0[i], name, NET_ROWS);
    snprintf(name, sizeof name, "c0.%u", i);
    c0[i] = lstm ? net_in(n, UNROLL_ROLE_INPUT, name, -0.9, 1.4, 0, 2, (int64_t[]){s->B, s->H}) : unroll_none();
    if (lstm)
      net_want(n, &m, c0[i], name, NET_ROWS);
    if (!c->o.taps)
      continue;
    snprintf(name, sizeof name, "tap.%u", i);
    taps[i] = net_in(n, UNROLL_ROLE_INPUT, name, -0.5, 0.4, NET_TIME, 3, (int64_t[]){n->T, s->B, P});
    net_want(n, &m, taps[i], name, NET_TIME);
  }
  const unroll_rnn_state of_h = {taps, NULL};
  o.taps = o.taps ? &of_h : NULL;
  unroll_rnn_state last = {h, lstm ? cell : NULL};
  const unroll_tensor y = unroll_rnn(x, "", &o, &(unroll_rnn_state){h0, lstm ? c0 : NULL}, &last);
  net_read(&m, y, "y", NET_TIME);
  net_read(&m, h[states - 1], "h_last", NET_ROWS);
  if (lstm)
    net_read(&m, cell[states - 1], "c_last", NET_ROWS);
  if (c->reads & CELLS)
    net_read(&m, all[states - 1], "cells", NET_TIME);
  if (c->reads & GATES)
    net_read(&m, gates[states - 1], "gates", NET_TIME);
  m.chain = (double)(s->T * o.layers);
  m.K = (double)((lstm ? 4 : 3) * s->H);
  net_finish_model(n, &m);
}

void net_list_models(struct net_maker *m) {
  for (uint32_t i = 0; i < sizeof rnns / sizeof *rnns; i++) {
    struct net_spec s = {.build = build_rnn,
                         .what = rnns[i].what,
                         .is_model = true,
                         .grad = !rnns[i].o.inference,
                         .form = i,
                         .lengths = LENGTHS_RAGGED,
                         .T = 5,
                         .B = 3,
                         .I = 7,
                         .H = 17};
    if (rnns[i].o.residual)
      s.I = rnns[i].o.projection ? rnns[i].o.projection : s.H * (rnns[i].o.bidirectional ? 2 : 1);
    if (rnns[i].o.checkpoint) {
      s.T = 33;
      s.B = 64;
      s.H = 5;
    }
    net_add(m, &s, "");
  }
}
