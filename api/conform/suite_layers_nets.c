/* SPDX-License-Identifier: Apache-2.0 */
/* Networks of more than one layer, layers between other ops, and what stays from run to run. */
#include "conform/suite_layers_private.h"
#include <math.h>
#include <stdio.h>

enum { NET_LAYERS = 4 };

/* Weights of the layers, and the gradients that are asked for. */
struct wanted {
  unroll_tensor x[NET_LAYERS * 4 + 8];
  char names[NET_LAYERS * 4 + 8][NET_TENSOR_NAME];
  uint32_t flags[NET_LAYERS * 4 + 8], n;
};

static void want(struct wanted *w, unroll_tensor x, const char *name, uint32_t flags) {
  w->x[w->n] = x;
  w->flags[w->n] = flags;
  snprintf(w->names[w->n++], NET_TENSOR_NAME, "d%.20s", name);
}
static void want_weights(struct wanted *w, const struct net_weights *from, const char *suffix) {
  unroll_tensor list[4];
  const uint32_t n = net_weight_list(from, list);
  for (uint32_t i = 0; i < n; i++) {
    char name[NET_TENSOR_NAME];
    snprintf(name, sizeof name, "%u%s", i, suffix);
    want(w, list[i], name, 0);
  }
}

static unroll_tensor sequence(struct net *n, int64_t width) {
  return net_in(n, UNROLL_ROLE_INPUT, "x", -0.5, 1.5, NET_TIME, 3, (int64_t[]){n->T, n->spec->B, width});
}

static int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

/* layers: how many a value has gone through. */
static double budget(const struct net_spec *s, double layers, bool is_gradient, bool is_summed) {
  const int64_t GH = (s->cell == UNROLL_CELL_RNN ? 1 : s->cell == UNROLL_CELL_LSTM ? 4 : 3) * s->H;
  const double K = (double)(is_gradient ? most(GH, s->I + s->H) : most(s->I, s->H) + s->H) + 1;
  return net_budget(s->cell, layers * (double)s->T * (is_gradient ? 2 : 1), K, is_summed ? (double)(s->T * s->B) : 0);
}

/* Results and, where they are asked for, gradients. */
static void finish(struct net *n, const struct net_spec *s, double layers, const struct net_result *results,
                   uint32_t n_results, const struct wanted *w) {
  for (uint32_t i = 0; i < n_results; i++)
    net_out(n, results[i].tensor, results[i].name, budget(s, layers, false, false), results[i].flags);
  if (!s->grad)
    return;
  unroll_tensor d[NET_LAYERS * 4 + 8];
  net_gradient(n, results, n_results, w->x, w->n, d);
  for (uint32_t i = 0; i < w->n; i++)
    net_out(n, d[i], w->names[i], budget(s, layers, true, !w->flags[i]), w->flags[i]);
}

/* form: bit 0 both directions, the rest the number of layers */
static void build_stack(struct net *n, const struct net_spec *s) {
  const bool both = s->form & 1;
  const uint32_t layers = s->form >> 1;
  const unroll_tensor x = sequence(n, s->I), lengths = net_lengths(n);
  struct wanted w = {.n = 0};
  struct net_result results[4];
  uint32_t n_results = 1;
  unroll_tensor y = x;
  want(&w, x, "x", NET_TIME);
  for (uint32_t i = 0; i < layers; i++) {
    unroll_tensor halves[2];
    for (uint32_t k = 0; k < 1u + both; k++) {
      char suffix[16];
      snprintf(suffix, sizeof suffix, ".%u%s", i, k ? "r" : "");
      const struct net_weights v = net_make_weights(n, suffix, i == 0 ? s->I : s->H * (1 + both), s->H, 0);
      const unroll_layer_outputs o =
          net_layer(n, y, &v, k ? !s->direction : s->direction, unroll_none(), unroll_none(), lengths, (int32_t)i);
      want_weights(&w, &v, suffix);
      halves[k] = o.y;
      if (i + 1 == layers)
        results[n_results++] = (struct net_result){o.h_last, k ? "h_last.r" : "h_last", NET_ROWS};
    }
    y = both ? unroll_concat(halves, 2, 2) : halves[0];
  }
  results[0] = (struct net_result){y, "y", NET_TIME};
  finish(n, s, layers, results, n_results, &w);
}

/* The same weights in two layers, one upon the other: their gradients are added. */
static void build_shared(struct net *n, const struct net_spec *s) {
  const unroll_tensor x = sequence(n, s->I), lengths = net_lengths(n);
  const struct net_weights v = net_make_weights(n, "", s->I, s->H, 0);
  struct wanted w = {.n = 0};
  want(&w, x, "x", NET_TIME);
  want_weights(&w, &v, "");
  const unroll_layer_outputs a = net_layer(n, x, &v, s->direction, unroll_none(), unroll_none(), lengths, 0);
  const unroll_layer_outputs b = net_layer(n, a.y, &v, !s->direction, a.h_last, a.c_last, lengths, 1);
  const struct net_result results[] = {{a.y, "y.0", NET_TIME}, {b.y, "y.1", NET_TIME}, {b.h_last, "h_last", NET_ROWS}};
  finish(n, s, 2, results, 3, &w);
}

/* Two layers side by side on one input, one scaled into the other's result. */
static void build_beside(struct net *n, const struct net_spec *s) {
  const unroll_tensor x = sequence(n, s->I), lengths = net_lengths(n);
  const struct net_weights u = net_make_weights(n, ".a", s->I, s->H, 0), v = net_make_weights(n, ".b", s->I, s->H, 0);
  struct wanted w = {.n = 0};
  want(&w, x, "x", NET_TIME);
  want_weights(&w, &u, ".a");
  want_weights(&w, &v, ".b");
  const unroll_layer_outputs a = net_layer(n, x, &u, s->direction, unroll_none(), unroll_none(), lengths, 0);
  const unroll_layer_outputs b = net_layer(n, x, &v, s->direction, unroll_none(), unroll_none(), lengths, 0);
  const struct net_result results[] = {{unroll_add(a.y, unroll_mul(a.y, b.y)), "y", NET_TIME},
                                       {unroll_sub(a.h_last, b.h_last), "h", NET_ROWS}};
  finish(n, s, 1, results, 2, &w);
}

/* A layer that begins where another one ended: gradients go back through the states alone. */
static void build_decoder(struct net *n, const struct net_spec *s) {
  const unroll_tensor x = sequence(n, s->I), lengths = net_lengths(n);
  const unroll_tensor z = net_in(n, UNROLL_ROLE_INPUT, "z", -0.5, 1.5, 0, 3, (int64_t[]){3, s->B, s->I});
  const struct net_weights u = net_make_weights(n, ".a", s->I, s->H, 0), v = net_make_weights(n, ".b", s->I, s->H, 0);
  struct wanted w = {.n = 0};
  want(&w, x, "x", NET_TIME);
  want_weights(&w, &u, ".a");
  want_weights(&w, &v, ".b");
  const unroll_layer_outputs a = net_layer(n, x, &u, s->direction, unroll_none(), unroll_none(), lengths, 0);
  const unroll_layer_outputs b = net_layer(n, z, &v, UNROLL_FORWARD, a.h_last, a.c_last, unroll_none(), 1);
  const struct net_result results[] = {{b.h_last, "h_last", 0}};
  finish(n, s, 2, results, 1, &w);
}

/* Reshapes, parts of sequences and of features, and a dense layer over all steps between two layers. */
static void build_views(struct net *n, const struct net_spec *s) {
  const int64_t B = s->B, I = s->I, H = s->H, T = s->T;
  const unroll_tensor x = sequence(n, I);
  struct wanted w = {.n = 0};
  const double scale = 1 / sqrt((double)I);
  const unroll_tensor D = net_in(n, UNROLL_ROLE_PARAM, "D", -0.8 * scale, 1.2 * scale, 0, 2, (int64_t[]){I, H});
  const struct net_weights u = net_make_weights(n, ".a", H, H, 0), v = net_make_weights(n, ".b", H, H, 0);
  want(&w, x, "x", NET_TIME);
  want(&w, D, "D", 0);
  want_weights(&w, &u, ".a");
  want_weights(&w, &v, ".b");
  const unroll_tensor flat = unroll_matmul(unroll_reshape(x, 2, (int64_t[]){T * B, I}), D);
  const unroll_tensor wide = unroll_reshape(flat, 3, (int64_t[]){T, B, H});
  const unroll_layer_outputs a = net_layer(n, wide, &u, s->direction, unroll_none(), unroll_none(), unroll_none(), 0);
  /* The features' halves change places, the last T-1 steps go on. */
  const int64_t half = H / 2;
  const unroll_tensor tail = unroll_slice(a.y, 0, 1, T - 1);
  const unroll_tensor turned =
      unroll_concat((unroll_tensor[]){unroll_slice(tail, 2, half, H - half), unroll_slice(tail, 2, 0, half)}, 2, 2);
  const unroll_layer_outputs b = net_layer(n, turned, &v, s->direction, unroll_none(), unroll_none(), unroll_none(), 1);
  const struct net_result results[] = {
      {unroll_reshape(b.y, 2, (int64_t[]){(T - 1) * B, H}), "flat", 0},
      {unroll_reshape(unroll_slice(b.y, 0, T - 2, 1), 2, (int64_t[]){B, H}), "last", 0}};
  finish(n, s, 2, results, 2, &w);
}

/* A model of language as a user has it: an embedding, a layer, logits, the mean loss and all gradients. */
static void build_language(struct net *n, const struct net_spec *s) {
  const int64_t V = 11, tokens[] = {n->T, s->B};
  const double scale = 1 / sqrt((double)s->H);
  const unroll_tensor ids = net_integers(n, "ids", 0, (double)V - 1, NET_TIME, 2, tokens);
  const unroll_tensor targets = net_integers(n, "targets", -1, (double)V - 1, NET_TIME, 2, tokens);
  const unroll_tensor lengths = net_lengths(n);
  const unroll_tensor table = net_in(n, UNROLL_ROLE_PARAM, "table", -0.8, 1.2, 0, 2, (int64_t[]){V, s->I});
  const struct net_weights v = net_make_weights(n, "", s->I, s->H, 0);
  const unroll_tensor W_y = net_in(n, UNROLL_ROLE_PARAM, "W_y", -2 * scale, 3 * scale, 0, 2, (int64_t[]){V, s->H});
  struct wanted w = {.n = 0};
  want(&w, table, "table", 0);
  want(&w, W_y, "W_y", 0);
  want_weights(&w, &v, "");
  const unroll_layer_outputs a =
      net_layer(n, unroll_embedding(table, ids), &v, s->direction, unroll_none(), unroll_none(), lengths, 0);
  const unroll_tensor logits = unroll_matmul_add(a.y, 0, W_y, 1, unroll_none());
  const unroll_tensor rows = unroll_cross_entropy_rows(logits, targets);
  const unroll_tensor loss = unroll_scale(unroll_reduce(rows, UNROLL_SUM, 0, 0), 1 / (double)(s->T * s->B));
  net_out(n, logits, "logits", budget(s, 1, false, false), NET_TIME);
  net_out(n, loss, "loss", budget(s, 1, false, true), 0);
  if (!s->grad)
    return;
  unroll_tensor d[NET_LAYERS * 4 + 8];
  unroll_gradient(loss, w.x, w.n, d);
  for (uint32_t i = 0; i < w.n; i++)
    net_out(n, d[i], w.names[i], budget(s, 1, true, true), 0);
}

/* Dropout and the input again between two layers. */
static void build_residual(struct net *n, const struct net_spec *s) {
  const unroll_tensor x = sequence(n, s->H), lengths = net_lengths(n);
  const struct net_weights u = net_make_weights(n, ".a", s->H, s->H, 0), v = net_make_weights(n, ".b", s->H, s->H, 0);
  struct wanted w = {.n = 0};
  want(&w, x, "x", NET_TIME);
  want_weights(&w, &u, ".a");
  want_weights(&w, &v, ".b");
  unroll_tensor clean = lengths.graph ? unroll_length_mask(x, lengths) : x;
  const unroll_layer_outputs a = net_layer(n, x, &u, s->direction, unroll_none(), unroll_none(), lengths, 0);
  clean = unroll_add(clean, unroll_dropout(a.y, 0.3));
  const unroll_layer_outputs b = net_layer(n, clean, &v, s->direction, unroll_none(), unroll_none(), lengths, 1);
  const struct net_result results[] = {{unroll_add(clean, b.y), "y", NET_TIME}};
  finish(n, s, 2, results, 1, &w);
}

/* ---- from run to run ---- */

/* The state that a run leaves is where the next one begins. Without grad the reference has the whole sequence in one
 * run. */
static void build_carried(struct net *n, const struct net_spec *s) {
  const int64_t state[] = {s->B, s->H};
  const uint32_t chunk = s->chunked ? NET_CHUNK : NET_TIME;
  const unroll_tensor x = net_in(n, UNROLL_ROLE_INPUT, "x", -0.5, 1.5, chunk, 3, (int64_t[]){n->T, s->B, s->I});
  const struct net_weights v = net_make_weights(n, "", s->I, s->H, 0);
  const unroll_tensor h = net_in(n, UNROLL_ROLE_STATE, "h", -0.8, 0.6, 0, 2, state);
  const unroll_tensor c =
      s->cell == UNROLL_CELL_LSTM ? net_in(n, UNROLL_ROLE_STATE, "c", -0.9, 1.4, 0, 2, state) : unroll_none();
  const unroll_layer_outputs o = net_layer(n, x, &v, s->direction, h, c, unroll_none(), 0);
  const double runs = (double)s->runs;
  unroll_update(h, o.h_last);
  if (c.graph)
    unroll_update(c, o.c_last);
  net_out(n, o.y, "y", budget(s, runs, false, false), chunk);
  net_out_of(n, "h", budget(s, runs, false, false), NET_LAST);
  if (c.graph)
    net_out_of(n, "c", budget(s, runs, false, false), NET_LAST);
  if (!s->grad)
    return;
  unroll_tensor list[4], d[4];
  const uint32_t n_weights = net_weight_list(&v, list);
  unroll_gradient(unroll_reduce(o.y, UNROLL_SUM, 0, 0), list, n_weights, d);
  for (uint32_t i = 0; i < n_weights; i++) {
    char name[NET_TENSOR_NAME];
    snprintf(name, sizeof name, "d%u", i);
    net_out(n, d[i], name, budget(s, runs, true, true), 0);
  }
}

/* Weights that an optimizer changes in every run: what was packed of them for the run before is old. form: the
 * optimizer */
static void build_optimize(struct net *n, const struct net_spec *s) {
  const unroll_tensor x = sequence(n, s->I), lengths = net_lengths(n);
  const unroll_tensor rate = net_in(n, UNROLL_ROLE_INPUT, "rate", 0.05, 0.1, 0, 0, NULL);
  const unroll_tensor step = net_integers(n, "step", 1, 5, 0, 0, NULL);
  const struct net_weights v = net_make_weights(n, "", s->I, s->H, 0);
  const unroll_layer_outputs o = net_layer(n, x, &v, s->direction, unroll_none(), unroll_none(), lengths, 0);
  unroll_tensor list[4], d[4];
  const uint32_t n_weights = net_weight_list(&v, list);
  unroll_gradient(unroll_scale(unroll_reduce(o.y, UNROLL_SUM, 0, 0), 1 / (double)(s->T * s->B)), list, n_weights, d);
  /* An epsilon of the size of a gradient: g/(|g| + epsilon) then does not enlarge its error. */
  const unroll_optimizer_attr attr = {
      .kind = (int32_t)s->form, .beta1 = 0.9, .beta2 = 0.9, .epsilon = 0.5, .weight_decay = 0.01};
  for (uint32_t i = 0; i < n_weights; i++)
    unroll_optimize(list[i], d[i], rate, step, unroll_none(), &attr);
  const double runs = (double)s->runs;
  net_out(n, o.y, "y", budget(s, runs, false, true), NET_TIME);
  for (uint32_t i = 0; i < n_weights; i++)
    net_out_of(n, unroll_tensor_describe(list[i]).name, budget(s, runs, true, true), 0);
}

/* Weights that the caller writes anew before the second run. */
static void build_written(struct net *n, const struct net_spec *s) {
  const unroll_tensor x = sequence(n, s->I), lengths = net_lengths(n);
  const struct net_weights v = net_make_weights(n, "", s->I, s->H, NET_ANEW);
  struct wanted w = {.n = 0};
  want(&w, x, "x", NET_TIME);
  want_weights(&w, &v, "");
  const unroll_layer_outputs o = net_layer(n, x, &v, s->direction, unroll_none(), unroll_none(), lengths, 0);
  const struct net_result results[] = {{o.y, "y", NET_TIME}, {o.h_last, "h_last", NET_ROWS}};
  finish(n, s, 1, results, 2, &w);
}

/* ---- which cases ---- */

static const int32_t cells[] = {UNROLL_CELL_RNN, UNROLL_CELL_LSTM, UNROLL_CELL_GRU, UNROLL_CELL_GRU_AFTER};

static struct net_spec spec_of(void (*build)(struct net *, const struct net_spec *), const char *what, uint32_t cell,
                               uint32_t form) {
  return (struct net_spec){.build = build,
                           .what = what,
                           .cell = cells[cell],
                           .activation = UNROLL_TANH,
                           .direction = form & 1,
                           .lengths = form >> 1 & 1,
                           .grad = true,
                           .T = 4,
                           .B = 3,
                           .I = 7,
                           .H = 17};
}

static void between_layers(struct net_maker *m, uint32_t cell) {
  static const struct {
    const char *what;
    void (*build)(struct net *, const struct net_spec *);
    uint32_t form;
    bool square, reshapes;
  } nets[] = {{"bidirectional", build_stack, 1 | 1 << 1, false, false},
              {"bidirectional stack of 2", build_stack, 1 | 2 << 1, false, false},
              {"stack of 2", build_stack, 2 << 1, false, false},
              {"stack of 3", build_stack, 3 << 1, false, false},
              {"shared weights", build_shared, 0, true, false},
              {"side by side", build_beside, 0, false, false},
              {"decoder", build_decoder, 0, false, false},
              {"views", build_views, 0, false, true},
              {"language", build_language, 0, false, false},
              {"residual", build_residual, 0, true, false}};
  for (uint32_t i = 0; i < sizeof nets / sizeof *nets; i++)
    for (uint32_t k = 0; k < 2; k++) {
      struct net_spec s = spec_of(nets[i].build, nets[i].what, cell, i + cell + 2 * k);
      s.form = nets[i].form;
      s.reshapes = nets[i].reshapes;
      s.I = nets[i].square ? s.H : s.I;
      if (nets[i].reshapes) { /* what is NaN past the end would reach the dense layer */
        s.lengths = LENGTHS_NONE;
        s.grad = k;
      }
      net_add(m, &s, "");
    }
}

static void from_run_to_run(struct net_maker *m, uint32_t cell) {
  struct net_spec s = spec_of(build_carried, "carried state", cell, UNROLL_FORWARD);
  s.runs = 3;
  net_add(m, &s, "");
  s.grad = false;
  s.chunked = true;
  net_add(m, &s, "");
  static const char *const optimizers[] = {
#define NAME(code, value, text) "optimized by " text,
      UNROLL_OPTIMIZERS(NAME)
#undef NAME
  };
  for (uint32_t k = 0; k < UNROLL_OPTIMIZER_COUNT; k++) {
    struct net_spec t = spec_of(build_optimize, optimizers[k], cell, k + cell);
    t.form = k;
    t.runs = 3;
    net_add(m, &t, "");
  }
  for (uint32_t k = 0; k < 4; k++) {
    struct net_spec t = spec_of(build_written, "weights written anew", cell, k);
    t.grad = (k ^ k >> 1 ^ cell) & 1;
    t.runs = 2;
    net_add(m, &t, "");
    if (k & 1)
      continue;
    t.B = 34; /* large enough for a product that packs its weights */
    t.I = 65;
    t.H = 130;
    net_add(m, &t, "");
  }
}

void net_list_nets(struct net_maker *m) {
  for (uint32_t cell = 0; cell < sizeof cells / sizeof *cells; cell++) {
    between_layers(m, cell);
    from_run_to_run(m, cell);
  }
}
