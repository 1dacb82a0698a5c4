/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What seq2seq.h, ctc.h and ssm.h build, and the losses: attention, decoders with each way of being fed, beam search,
 * CTC, REINFORCE, state-space models.
 *
 * What is picked (symbols, the paths of a beam) is compared exactly. Where two probabilities are within rounding of
 * each other f32 and f64 may pick differently; with a few dozen choices a case that is some 1e-5 likely, as a kink is.
 */
#include "conform/suite_layers_private.h"
#include <math.h>
#include <unroll/ctc.h>
#include <unroll/seq2seq.h>
#include <unroll/ssm.h>

/* Sizes of decoders: the symbols are as many as the source's features, I. */
enum { TARGET_STEPS = 4, EMBEDDING = 5, BEAM = 3 };

static unroll_tensor real(struct net *n, const char *name, double lo, double hi, int32_t rank, const int64_t *shape) {
  return net_in(n, UNROLL_ROLE_INPUT, name, lo, hi, NET_ANEW, rank, shape);
}
/* Of each step and sequence where it has rank 4: then with anything past a sequence's end. */
static unroll_tensor coefficient(struct net *n, const char *name, double lo, double hi, int32_t rank,
                                 const int64_t *shape) {
  return net_in(n, UNROLL_ROLE_INPUT, name, lo, hi, rank == 4 ? NET_TIME : NET_ANEW, rank, shape);
}

static unroll_tensor sequence(struct net *n, struct net_model *m) {
  const unroll_tensor x =
      net_in(n, UNROLL_ROLE_INPUT, "x", -0.5, 1.5, NET_TIME, 3, (int64_t[]){n->T, n->spec->B, n->spec->I});
  net_want(n, m, x, "x", NET_TIME);
  m->chain = (double)n->spec->T;
  m->K = (double)(4 * n->spec->H);
  return x;
}

/* ---- encoder and decoder ---- */

static const struct decoder_case {
  const char *what;
  int32_t cell, layers, attention, context, units;
  double dropout;
  unroll_decoder_feed feed;        /* kind, and how symbols are picked */
  const unroll_rnn_options *cells; /* not NULL: in place of the decoder's plain ones; hidden is filled in */
} decoders[] = {
    {"additive before, taught, lstm",
     UNROLL_CELL_LSTM,
     2,
     UNROLL_ATTENTION_ADDITIVE,
     UNROLL_CONTEXT_BEFORE,
     3,
     0.2,
     {.kind = UNROLL_FEED_TEACHER},
     NULL},
    {"multiplicative after, taught, gru_after",
     UNROLL_CELL_GRU_AFTER,
     1,
     UNROLL_ATTENTION_MULTIPLICATIVE,
     UNROLL_CONTEXT_AFTER,
     0,
     0,
     {.kind = UNROLL_FEED_TEACHER},
     NULL},
    {"dot feeding, taught, gru",
     UNROLL_CELL_GRU,
     1,
     UNROLL_ATTENTION_DOT,
     UNROLL_CONTEXT_FEEDING,
     0,
     0,
     {.kind = UNROLL_FEED_TEACHER},
     NULL},
    {"scaled dot feeding, taught, rnn",
     UNROLL_CELL_RNN,
     1,
     UNROLL_ATTENTION_SCALED_DOT,
     UNROLL_CONTEXT_FEEDING,
     0,
     0,
     {.kind = UNROLL_FEED_TEACHER},
     NULL},
    {"no attention, taught, lstm",
     UNROLL_CELL_LSTM,
     1,
     UNROLL_ATTENTION_NONE,
     UNROLL_CONTEXT_BEFORE,
     0,
     0,
     {.kind = UNROLL_FEED_TEACHER},
     NULL},
    {"additive before, scheduled greedy, gru",
     UNROLL_CELL_GRU,
     1,
     UNROLL_ATTENTION_ADDITIVE,
     UNROLL_CONTEXT_BEFORE,
     0,
     0,
     {.kind = UNROLL_FEED_SCHEDULED, .pick = UNROLL_PICK_GREEDY},
     NULL},
    {"dot after, scheduled sample top k, lstm",
     UNROLL_CELL_LSTM,
     1,
     UNROLL_ATTENTION_DOT,
     UNROLL_CONTEXT_AFTER,
     0,
     0,
     {.kind = UNROLL_FEED_SCHEDULED, .pick = UNROLL_PICK_SAMPLE, .temperature = 0.8, .top_k = 3},
     NULL},
    {"additive after, free greedy, lstm",
     UNROLL_CELL_LSTM,
     1,
     UNROLL_ATTENTION_ADDITIVE,
     UNROLL_CONTEXT_AFTER,
     0,
     0,
     {.kind = UNROLL_FEED_FREE, .pick = UNROLL_PICK_GREEDY, .steps = TARGET_STEPS, .begin = 1, .end = -1, .pad = -1},
     NULL},
    {"multiplicative feeding, free sample top p, gru_after",
     UNROLL_CELL_GRU_AFTER,
     1,
     UNROLL_ATTENTION_MULTIPLICATIVE,
     UNROLL_CONTEXT_FEEDING,
     0,
     0,
     {.kind = UNROLL_FEED_FREE,
      .pick = UNROLL_PICK_SAMPLE,
      .temperature = 1.3,
      .top_p = 0.8,
      .steps = TARGET_STEPS,
      .begin = 1,
      .end = 2,
      .pad = 0},
     NULL},
    {"additive before, taught, lstm of every option",
     UNROLL_CELL_LSTM,
     2,
     UNROLL_ATTENTION_ADDITIVE,
     UNROLL_CONTEXT_BEFORE,
     3,
     0,
     {.kind = UNROLL_FEED_TEACHER},
     &(const unroll_rnn_options){.cell = UNROLL_CELL_LSTM,
                                 .layers = 2,
                                 .projection = 4,
                                 .peepholes = 1,
                                 .layer_norm = 1,
                                 .layer_norm_epsilon = 0.01, /* a state near 0 would make an error larger */
                                 .clip = 2.5,
                                 .cell_clip = 1.5,
                                 .skip = 0.25,
                                 .residual = UNROLL_RESIDUAL_STATES,
                                 .zoneout_h = 0.25,
                                 .zoneout_c = 0.5,
                                 .input_dropout = 0.2,
                                 .dropout = 0.2,
                                 .output_dropout = 0.1,
                                 .weight_dropout = 0.2,
                                 .state_dropout = 0.3}},
    {"dot feeding, scheduled greedy, gru with layer norm and masks",
     UNROLL_CELL_GRU,
     2,
     UNROLL_ATTENTION_DOT,
     UNROLL_CONTEXT_FEEDING,
     0,
     0,
     {.kind = UNROLL_FEED_SCHEDULED, .pick = UNROLL_PICK_GREEDY},
     &(const unroll_rnn_options){.cell = UNROLL_CELL_GRU,
                                 .layers = 2,
                                 .layer_norm = 1,
                                 .layer_norm_epsilon = 0.01, /* a state near 0 would make an error larger */
                                 .residual = UNROLL_RESIDUAL_OUTPUTS,
                                 .zoneout_h = 0.25,
                                 .same_mask = 1,
                                 .input_dropout = 0.2,
                                 .dropout = 0.2,
                                 .state_dropout = 0.3}},
    {"multiplicative after, free sample, coupled lstm with peepholes",
     UNROLL_CELL_LSTM,
     1,
     UNROLL_ATTENTION_MULTIPLICATIVE,
     UNROLL_CONTEXT_AFTER,
     0,
     0,
     {.kind = UNROLL_FEED_FREE, .pick = UNROLL_PICK_SAMPLE, .steps = TARGET_STEPS, .begin = 1, .end = 2, .pad = 0},
     &(const unroll_rnn_options){.cell = UNROLL_RNN_COUPLED_LSTM,
                                 .layers = 1,
                                 .peepholes = 1,
                                 .zoneout_h = 0.25,
                                 .zoneout_c = 0.5,
                                 .inference = 1,
                                 .g = {.kind = UNROLL_ACTIVATION_ELU, .alpha = 0.7},
                                 .h = {.kind = UNROLL_ACTIVATION_SOFTSIGN}}},
    {"additive before, taught, min_lstm",
     UNROLL_CELL_GRU,
     2,
     UNROLL_ATTENTION_ADDITIVE,
     UNROLL_CONTEXT_BEFORE,
     0,
     0,
     {.kind = UNROLL_FEED_TEACHER},
     &(const unroll_rnn_options){.cell = UNROLL_RNN_MIN_LSTM, .layers = 2, .dropout = 0.2}},
};
enum { DECODER_OF_EVERY_OPTION = 9 }; /* in that list */

struct coder {
  unroll_decoder_options options;
  unroll_rnn_options cells;
  unroll_tensor h[2], c[2];
};

/* A bidirectional encoder and a bridge; for dot products, whose vectors have the decoder's size, one that goes forward. */
static void encode(struct net *n, struct net_model *m, const struct decoder_case *d, struct coder *k) {
  const struct net_spec *s = n->spec;
  const bool both = d->attention != UNROLL_ATTENTION_DOT && d->attention != UNROLL_ATTENTION_SCALED_DOT;
  const unroll_tensor x = sequence(n, m), lengths = net_lengths(n);
  const unroll_rnn_options rnn = {.struct_size = sizeof rnn,
                                  .cell = d->cell,
                                  .layers = d->layers,
                                  .hidden = s->H,
                                  .bidirectional = both,
                                  .lengths = lengths};
  unroll_tensor h[4], c[4];
  const bool lstm = d->cell == UNROLL_CELL_LSTM;
  unroll_rnn_state last = {h, lstm ? c : NULL};
  k->cells = (unroll_rnn_options){.struct_size = 0};
  k->options = (unroll_decoder_options){.struct_size = sizeof k->options,
                                        .cell = d->cell,
                                        .layers = d->layers,
                                        .hidden = s->H,
                                        .vocabulary = s->I,
                                        .embedding = EMBEDDING,
                                        .attention = d->attention,
                                        .context = d->context,
                                        .attention_units = d->units,
                                        .dropout = d->dropout,
                                        .source = unroll_rnn(x, "encoder", &rnn, NULL, &last),
                                        .source_lengths = lengths,
                                        .initial = {k->h, lstm ? k->c : NULL}};
  if (d->cells) {
    k->cells = *d->cells;
    k->cells.struct_size = sizeof k->cells;
    k->cells.hidden = s->H;
    k->options.cell = k->options.layers = 0;
    k->options.hidden = 0;
    k->options.rnn = &k->cells;
  }
  const int64_t P = k->cells.projection ? k->cells.projection : s->H;
  unroll_bridge(&(unroll_rnn_state){.h = h}, d->layers, 1 + both, "bridge", P, &(unroll_rnn_state){.h = k->h});
  if (lstm)
    unroll_bridge(&(unroll_rnn_state){.c = c}, d->layers, 1 + both, "bridge", s->H, &(unroll_rnn_state){.c = k->c});
  /* Normalised, a step is two in a row: the products, and the sums, root and quotient over each row of them. */
  m->chain = (double)((s->T + TARGET_STEPS) * (d->layers + 1) * (k->cells.layer_norm ? 2 : 1));
}

static void build_decoder(struct net *n, const struct net_spec *s) {
  const struct decoder_case *d = &decoders[s->form];
  struct net_model m = {.n_y = 0};
  struct coder k;
  encode(n, &m, d, &k);
  unroll_decoder_feed feed = d->feed;
  feed.struct_size = sizeof feed;
  if (feed.kind != UNROLL_FEED_FREE) {
    feed.inputs = net_integers(n, "ids", 0, (double)s->I - 1, NET_ANEW, 2, (int64_t[]){TARGET_STEPS, s->B});
    feed.lengths = net_integers(n, "target_lengths", 0, TARGET_STEPS, NET_ANEW, 1, &s->B);
  }
  if (feed.kind == UNROLL_FEED_SCHEDULED)
    feed.epsilon = real(n, "epsilon", 0.3, 0.7, 0, NULL);
  const unroll_decoder_outputs out = unroll_decode("decoder", &k.options, &feed);
  net_read(&m, out.logits, "logits", 0);
  net_read(&m, out.weights, "weights", 0);
  net_read(&m, out.hidden, "hidden", 0);
  net_read(&m, out.h_last[d->layers - 1], "h_last", 0);
  net_read(&m, out.c_last[d->layers - 1], "c_last", 0);
  if (feed.kind != UNROLL_FEED_TEACHER)
    net_out(n, out.ids, "picked", 0, 0);
  if (feed.kind == UNROLL_FEED_FREE)
    net_out(n, out.lengths, "ended", 0, 0);
  net_finish_model(n, &m);
}

static void build_beam(struct net *n, const struct net_spec *s) {
  struct net_model m = {.n_y = 0};
  struct coder k;
  encode(n, &m, &decoders[s->form], &k);
  const unroll_beam_options beam = {
      .struct_size = sizeof beam, .beam = BEAM, .steps = TARGET_STEPS, .begin = 1, .end = 2, .pad = -1, .alpha = 0.6};
  const unroll_beam_outputs out = unroll_decode_beam("decoder", &k.options, &beam);
  net_read(&m, out.log_probs, "log_probs", 0);
  net_read(&m, out.scores, "scores", 0);
  net_out(n, out.ids, "found", 0, 0);
  net_out(n, out.lengths, "ended", 0, 0);
  net_finish_model(n, &m);
}

static void build_many_to_one(struct net *n, const struct net_spec *s) {
  struct net_model m = {.n_y = 0};
  const unroll_tensor x = sequence(n, &m);
  const unroll_rnn_options o = {.struct_size = sizeof o,
                                .cell = UNROLL_CELL_GRU,
                                .layers = 2,
                                .hidden = s->H,
                                .bidirectional = 1,
                                .lengths = net_lengths(n)};
  m.chain *= 2;
  net_read(&m, unroll_many_to_one(x, "", &o, 3), "y", NET_ROWS);
  net_finish_model(n, &m);
}

static void build_one_to_many(struct net *n, const struct net_spec *s) {
  struct net_model m = {.n_y = 0};
  const unroll_tensor x = real(n, "x", -0.5, 1.5, 2, (int64_t[]){s->B, s->I});
  net_want(n, &m, x, "x", 0);
  const unroll_one_to_many_options o = {.struct_size = sizeof o,
                                        .cell = s->form ? UNROLL_CELL_LSTM : UNROLL_CELL_RNN,
                                        .output = s->form ? UNROLL_OUTPUT_SOFTMAX : UNROLL_TANH,
                                        .hidden = s->H,
                                        .outputs = 4,
                                        .steps = s->T,
                                        .lengths = net_lengths(n)};
  unroll_cell_state last;
  net_read(&m, unroll_one_to_many(x, "", &o, &last), "y", NET_TIME);
  net_read(&m, last.h, "h_last", 0);
  net_read(&m, last.c, "c_last", 0);
  m.chain = (double)(2 * s->T);
  m.K = (double)(4 * s->H);
  net_finish_model(n, &m);
}

/* A step of a cell in a scan of one's own. form: 1 with checkpoints of the scan, and what reads it in regions */
static void build_own_step(struct net *n, const struct net_spec *s) {
  static const unroll_checkpoint_policy every_8 = {
      .struct_size = sizeof every_8, .kind = UNROLL_CHECKPOINT_EVERY, .every = 8};
  struct net_model m = {.n_y = 0};
  const unroll_tensor x = sequence(n, &m), h0 = real(n, "h0", -0.8, 0.6, 2, (int64_t[]){s->B, s->H});
  net_want(n, &m, h0, "h0", s->form ? 0 : NET_ROWS); /* what the regions make of h0 is rounded */
  unroll_scan *scan = unroll_scan_begin(n->g, UNROLL_FORWARD, net_lengths(n));
  const unroll_tensor x_t = unroll_scan_input(scan, x), h = unroll_scan_carry(scan, h0);
  const unroll_cell_state next =
      unroll_cell_step(x_t, "cell", UNROLL_CELL_GRU_AFTER, 0, s->H, (unroll_cell_state){h, unroll_none()});
  unroll_scan_next(scan, h, next.h);
  const unroll_tensor y = unroll_scan_output(scan, next.h), last = unroll_scan_last(scan, h);
  if (s->form)
    unroll_scan_checkpoint(scan, &every_8);
  unroll_scan_end(scan);
  if (s->form) {
    unroll_checkpoint_begin(n->g);
    const unroll_tensor a = unroll_tanh(unroll_linear(last, "a", s->H, 1));
    unroll_checkpoint_begin(n->g);
    const unroll_tensor b = unroll_sigmoid(unroll_linear(a, "b", s->H, 1));
    unroll_checkpoint_end(n->g);
    unroll_checkpoint_end(n->g);
    net_read(&m, b, "regions", 0);
  }
  net_read(&m, y, "y", NET_TIME);
  net_read(&m, last, "h_last", NET_ROWS);
  net_finish_model(n, &m);
}

/* ---- losses ---- */

static void build_ctc(struct net *n, const struct net_spec *s) {
  struct net_model m = {.n_y = 0};
  const int64_t L = s->form ? 2 : 3, labels[] = {s->B, L};
  const unroll_tensor x = sequence(n, &m), lengths = net_lengths(n);
  const unroll_rnn_options o = {
      .struct_size = sizeof o, .cell = UNROLL_CELL_LSTM, .layers = 1, .hidden = s->H, .lengths = lengths};
  const unroll_tensor logits = unroll_linear(unroll_rnn(x, "rnn", &o, NULL, NULL), "head", 5, 1);
  const unroll_tensor targets = net_integers(n, "targets", 1, 4, NET_ANEW, 2, labels),
                      target_lengths = net_integers(n, "target_lengths", 0, (double)L, NET_ANEW, 1, &s->B);
  /* With lengths some labels do not fit; 2 labels fit into all steps, whatever they are. */
  const unroll_ctc_options ctc = {.struct_size = sizeof ctc,
                                  .blank = 0,
                                  .reduction = s->form == 0   ? UNROLL_LOSS_NONE
                                               : s->form == 1 ? UNROLL_LOSS_SUM
                                                              : UNROLL_LOSS_MEAN,
                                  .zero_infinity = s->form == 0,
                                  .lengths = lengths};
  net_read(&m, unroll_ctc_loss(logits, targets, target_lengths, &ctc), "loss", 0);
  m.chain *= 2;
  net_finish_model(n, &m);
}

/* Weights that are tied, cross entropy, squared errors, the norm of two gradients. form: the reduction */
static void build_losses(struct net *n, const struct net_spec *s) {
  struct net_model m = {.chain = 2, .K = (double)(s->I + s->H)};
  const int64_t tokens[] = {s->T, s->B}, table[] = {s->I, s->H};
  const unroll_tensor ids = net_integers(n, "ids", 0, (double)s->I - 1, NET_ANEW, 2, tokens),
                      targets = net_integers(n, "targets", -1, (double)s->I - 1, NET_ANEW, 2, tokens);
  const unroll_tensor e = unroll_embedding_layer(ids, "embed", n->dtype, table[0], table[1]);
  const unroll_tensor W = unroll_graph_find(n->g, "embed.weight");
  const unroll_tensor logits = unroll_linear_tied(unroll_tanh(unroll_linear(e, "inner", s->H, 0)), W, "head", 1);
  const unroll_tensor wanted = real(n, "wanted", -0.5, 1.5, 3, (int64_t[]){s->T, s->B, s->I});
  if (s->form != UNROLL_LOSS_HALF_SUM)
    net_read(&m, unroll_cross_entropy(logits, targets, (int32_t)s->form), "cross_entropy", 0);
  net_read(&m, unroll_mse(logits, wanted, (int32_t)s->form), "mse", 0);
  unroll_tensor norm;
  const unroll_tensor factor = unroll_clip_global_norm((unroll_tensor[]){logits, W}, 2, 0.7, &norm);
  net_out(n, factor, "factor", net_budget(UNROLL_CELL_LSTM, 2, m.K, (double)(s->T * s->B)), 0);
  net_out(n, norm, "norm", net_budget(UNROLL_CELL_LSTM, 2, m.K, (double)(s->T * s->B)), 0);
  net_finish_model(n, &m);
}

/* form: 0 the mean, with a baseline; 1 the sum, without */
static void build_reinforce(struct net *n, const struct net_spec *s) {
  struct net_model m = {.n_y = 0};
  const unroll_tensor x = sequence(n, &m), lengths = net_lengths(n);
  const unroll_rnn_options o = {
      .struct_size = sizeof o, .cell = UNROLL_CELL_GRU, .layers = 1, .hidden = s->H, .lengths = lengths};
  const unroll_tensor logits = unroll_linear(unroll_rnn(x, "rnn", &o, NULL, NULL), "head", s->I, 1);
  const unroll_tensor ids = net_integers(n, "ids", -1, (double)s->I - 1, NET_TIME, 2, (int64_t[]){n->T, s->B});
  const unroll_tensor log_prob = unroll_sequence_log_prob(logits, ids);
  const unroll_tensor reward = real(n, "reward", -1, 2, 1, &s->B),
                      baseline = s->form ? unroll_none() : real(n, "baseline", 0, 1, 1, &s->B);
  net_read(&m, log_prob, "log_prob", 0);
  net_read(&m, unroll_reinforce_loss(log_prob, reward, baseline, s->form ? UNROLL_LOSS_SUM : UNROLL_LOSS_MEAN), "loss",
           0);
  m.chain *= 2;
  net_finish_model(n, &m);
}

static void build_sampling_rate(struct net *n, const struct net_spec *s) {
  static const unroll_sampling_schedule schedules[] = {
      {sizeof(unroll_sampling_schedule), UNROLL_SAMPLING_EXPONENTIAL, 0.9, 0.97, 0.05},
      {sizeof(unroll_sampling_schedule), UNROLL_SAMPLING_LINEAR, 0.9, 0.013, 0.05},
      {sizeof(unroll_sampling_schedule), UNROLL_SAMPLING_INVERSE_SIGMOID, 0.9, 13, 0.05}};
  static const char *const names[] = {"exponential", "linear", "inverse_sigmoid"};
  (void)s;
  const unroll_tensor update = net_integers(n, "update", 0, 60, NET_ANEW, 0, NULL);
  for (uint32_t i = 0; i < 3; i++) /* an exponent of up to 5 has an error of so many roundings */
    net_out(n, unroll_sampling_rate(update, &schedules[i], n->dtype), names[i], 32, 0);
}

/* ---- state-space models ---- */

/* form / 2: 0 A and C for all steps, 1 for each step, 2 for each step and sequence; form & 1: the direction */
static void build_dense(struct net *n, const struct net_spec *s) {
  struct net_model m = {.n_y = 0};
  const int64_t N = s->H, M = s->I, P = 3, S = s->B, T = s->T;
  const uint32_t kind = s->form / 2;
  const unroll_tensor u = sequence(n, &m);
  const double scale = 1 / sqrt((double)N);
  unroll_ssm in = {.struct_size = sizeof in, .u = u, .lengths = net_lengths(n)};
  in.A = coefficient(n, "A", -0.4 * scale, 0.7 * scale, 2 + (int32_t)kind,
                     kind == 0   ? (int64_t[]){N, N}
                     : kind == 1 ? (int64_t[]){T, N, N}
                                 : (int64_t[]){T, S, N, N});
  in.C = coefficient(n, "C", -0.4 * scale, 0.7 * scale, 2 + (int32_t)kind,
                     kind == 0   ? (int64_t[]){P, N}
                     : kind == 1 ? (int64_t[]){T, P, N}
                                 : (int64_t[]){T, S, P, N});
  in.B = real(n, "B", -0.4, 0.7, 2, (int64_t[]){N, M});
  in.D = real(n, "D", -0.4, 0.7, 2, (int64_t[]){P, M});
  in.x0 = real(n, "x0", -0.8, 0.6, 2, (int64_t[]){S, N});
  const unroll_tensor L = real(n, "L", -0.2, 0.3, 2, (int64_t[]){N, N});
  in.w = unroll_noise(L, T, S);
  in.v = kind == 2 ? unroll_noise(real(n, "R", -0.2, 0.3, 2, (int64_t[]){P, P}), T, S) : unroll_none();
  const unroll_ssm_outputs out = unroll_ssm_dense(&in, s->form & 1);
  net_want(n, &m, in.A, "A", kind == 2 ? NET_TIME : 0);
  net_want(n, &m, in.C, "C", kind == 2 ? NET_TIME : 0);
  net_want(n, &m, in.B, "B", 0);
  net_want(n, &m, in.D, "D", 0);
  net_want(n, &m, in.x0, "x0", NET_ROWS);
  net_want(n, &m, L, "L", 0);
  net_read(&m, out.y, "y", NET_TIME);
  net_read(&m, out.x, "states", NET_TIME);
  net_read(&m, out.x_last, "x_last", NET_ROWS);
  net_finish_model(n, &m);
}

/* form & 1: the direction; form / 2: 0 zero-order hold, 1 bilinear, 2 a, b and c of every step */
static void build_diagonal(struct net *n, const struct net_spec *s) {
  struct net_model m = {.n_y = 0};
  const int64_t N = s->H, M = s->I, each[] = {s->T, s->B, M, N}, all[] = {M, N};
  unroll_diagonal_ssm in = {.struct_size = sizeof in, .u = sequence(n, &m), .lengths = net_lengths(n)};
  const uint32_t method = s->form / 2;
  if (method < 2) {
    const unroll_tensor A = real(n, "A", -2, -0.3, 2, all), B = real(n, "B", 0.3, 1.2, 2, all),
                        dt = real(n, "dt", 0.1, 0.6, 1, &M);
    unroll_discretize(A, B, dt, method ? UNROLL_BILINEAR : UNROLL_ZERO_ORDER_HOLD, &in.a, &in.b);
    net_want(n, &m, A, "A", 0);
    net_want(n, &m, B, "B", 0);
    net_want(n, &m, dt, "dt", 0);
  } else {
    in.a = coefficient(n, "a", 0.2, 0.95, 4, each);
    in.b = coefficient(n, "b", -0.5, 1.5, 4, each);
    net_want(n, &m, in.a, "a", NET_TIME);
    net_want(n, &m, in.b, "b", NET_TIME);
  }
  in.c = coefficient(n, "c", -0.4, 0.7, method < 2 ? 2 : 4, method < 2 ? all : each);
  in.d = real(n, "d", -0.4, 0.7, 1, &M);
  in.x0 = real(n, "x0", -0.8, 0.6, 3, (int64_t[]){s->B, M, N});
  const unroll_ssm_outputs out = unroll_ssm_diagonal(&in, s->form & 1);
  net_want(n, &m, in.c, "c", method < 2 ? 0 : NET_TIME);
  net_want(n, &m, in.d, "d_u", 0);
  net_want(n, &m, in.x0, "x0", NET_ROWS);
  net_read(&m, out.y, "y", NET_TIME);
  net_read(&m, out.x, "states", NET_TIME);
  net_read(&m, out.x_last, "x_last", NET_ROWS);
  net_finish_model(n, &m);
}

static void build_neural_ar(struct net *n, const struct net_spec *s) {
  struct net_model m = {.chain = (double)s->T, .K = (double)(4 * s->H)};
  const unroll_tensor x = real(n, "x", -0.5, 1.5, 3, (int64_t[]){s->T, s->B, 1});
  net_want(n, &m, x, "x", 0);
  net_read(&m, unroll_neural_ar(x, "ar", s->form ? UNROLL_CELL_LSTM : UNROLL_CELL_NONE, s->H), "y", 0);
  net_finish_model(n, &m);
}

/* ---- which cases ---- */

void net_list_sequences(struct net_maker *m) {
  static const struct {
    const char *what;
    void (*build)(struct net *, const struct net_spec *);
    uint32_t form, lengths;
    bool grad;
  } models[] = {{"beam, lstm", build_beam, 0, LENGTHS_RAGGED, false},
                {"beam, gru", build_beam, 2, LENGTHS_RAGGED, false},
                {"beam, lstm of every option", build_beam, DECODER_OF_EVERY_OPTION, LENGTHS_RAGGED, false},
                {"many to one", build_many_to_one, 0, LENGTHS_RAGGED, true},
                {"one to many rnn", build_one_to_many, 0, LENGTHS_RAGGED, true},
                {"one to many lstm", build_one_to_many, 1, LENGTHS_RAGGED, true},
                {"own step gru_after", build_own_step, 0, LENGTHS_RAGGED, true},
                {"own step gru_after, regions", build_own_step, 1, LENGTHS_RAGGED, true},
                {"ctc", build_ctc, 0, LENGTHS_RAGGED, true},
                {"ctc sum", build_ctc, 1, LENGTHS_NONE, true},
                {"ctc mean", build_ctc, 2, LENGTHS_NONE, true},
                {"losses mean", build_losses, UNROLL_LOSS_MEAN, LENGTHS_NONE, true},
                {"losses sum", build_losses, UNROLL_LOSS_SUM, LENGTHS_NONE, true},
                {"losses none", build_losses, UNROLL_LOSS_NONE, LENGTHS_NONE, true},
                {"losses half sum", build_losses, UNROLL_LOSS_HALF_SUM, LENGTHS_NONE, true},
                {"reinforce mean", build_reinforce, 0, LENGTHS_RAGGED, true},
                {"reinforce sum", build_reinforce, 1, LENGTHS_RAGGED, true},
                {"sampling rate", build_sampling_rate, 0, LENGTHS_NONE, false},
                {"state space", build_dense, 0, LENGTHS_RAGGED, true},
                {"state space reverse, of each step", build_dense, 3, LENGTHS_RAGGED, true},
                {"state space of each step and sequence", build_dense, 4, LENGTHS_RAGGED, true},
                {"diagonal, hold", build_diagonal, 0, LENGTHS_RAGGED, true},
                {"diagonal reverse, bilinear", build_diagonal, 3, LENGTHS_RAGGED, true},
                {"diagonal of each step and sequence", build_diagonal, 4, LENGTHS_RAGGED, true},
                {"neural ar", build_neural_ar, 0, LENGTHS_NONE, true},
                {"neural ar lstm", build_neural_ar, 1, LENGTHS_NONE, true}};
  struct net_spec s = {.build = build_decoder,
                       .is_model = true,
                       .grad = true,
                       .lengths = LENGTHS_RAGGED,
                       .T = 5,
                       .B = 3,
                       .I = 7,
                       .H = 6};
  for (s.form = 0; s.form < sizeof decoders / sizeof *decoders; s.form++) {
    s.what = decoders[s.form].what;
    net_add(m, &s, "");
  }
  for (uint32_t i = 0; i < sizeof models / sizeof *models; i++) {
    s.build = models[i].build;
    s.what = models[i].what;
    s.form = models[i].form;
    s.lengths = models[i].lengths;
    s.grad = models[i].grad;
    const bool segments = s.build == build_own_step && s.form; /* that end between blocks of 512 rows */
    s.T = segments ? 33 : 5;
    s.B = segments ? 64 : 3;
    net_add(m, &s, "");
  }
}
