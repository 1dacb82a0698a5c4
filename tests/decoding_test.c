/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Decoders that choose their own symbols, on every device, against a teacher-forced decoder of the same weights that
 * the host drives step by step, and beam search against a search over all sequences.
 */
#include "devices.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unroll/philox.h>
#include <unroll/seq2seq.h>

enum { T = 5, S = 4, B = 3, V = 5, X = 3, E = 4, H = 4, BEGIN = 0, END = 2, PAD = -1, K = 3, MOST_K = V };
static const int32_t source_lengths[B] = {4, 2, 0}, target_lengths[B] = {5, 0, 3};
static const uint64_t seed = 11, update = 3;

typedef struct design {
  int32_t cell, attention, context, layers, dtype;
  bool ragged; /* targets, where they are given */
  /* In place of cell and layers, which it has too: cells with options, and how many sites their masks are. */
  const unroll_rnn_options *rnn;
  uint32_t sites;
  bool inference; /* of rnn */
} design;
static const unroll_rnn_options all_of_lstm = {.struct_size = sizeof all_of_lstm,
                                               .cell = UNROLL_CELL_LSTM,
                                               .layers = 2,
                                               .hidden = H,
                                               .projection = H - 1,
                                               .peepholes = 1,
                                               .layer_norm = 1,
                                               .cell_clip = 1.5,
                                               .zoneout_h = 0.25,
                                               .zoneout_c = 0.5,
                                               .input_dropout = 0.25,
                                               .dropout = 0.25,
                                               .output_dropout = 0.125,
                                               .weight_dropout = 0.25,
                                               .state_dropout = 0.375},
                                all_of_gru = {.struct_size = sizeof all_of_gru,
                                              .cell = UNROLL_CELL_GRU,
                                              .layers = 2,
                                              .hidden = H,
                                              .layer_norm = 1,
                                              .residual = UNROLL_RESIDUAL_OUTPUTS,
                                              .zoneout_h = 0.25,
                                              .same_mask = 1,
                                              .input_dropout = 0.25,
                                              .dropout = 0.25,
                                              .state_dropout = 0.375};
static const design designs[] = {
    {UNROLL_CELL_LSTM, UNROLL_ATTENTION_ADDITIVE, UNROLL_CONTEXT_BEFORE, 1, 0, false, NULL, 0, false},
    {UNROLL_CELL_GRU, UNROLL_ATTENTION_DOT, UNROLL_CONTEXT_FEEDING, 2, 0, false, NULL, 0, false},
    {UNROLL_CELL_RNN, UNROLL_ATTENTION_NONE, UNROLL_CONTEXT_BEFORE, 1, 0, false, NULL, 0, false},
    {UNROLL_CELL_LSTM, UNROLL_ATTENTION_ADDITIVE, UNROLL_CONTEXT_BEFORE, 2, 0, false, &all_of_lstm, 11, false},
    {UNROLL_CELL_GRU, UNROLL_ATTENTION_DOT, UNROLL_CONTEXT_FEEDING, 2, 0, false, &all_of_gru, 6, false}};
enum { DESIGNS = sizeof designs / sizeof *designs };

typedef struct parts {
  unroll_tensor h[2];
  unroll_rnn_options cells;
  unroll_decoder_options o;
} parts;

static void describe(unroll_graph *g, const design *d, parts *p) {
  char name[8];
  for (int32_t l = 0; l < d->layers; l++) {
    snprintf(name, sizeof name, "h0.%d", l);
    p->h[l] = unroll_input(g, name, d->dtype, 2, (int64_t[]){B, d->rnn && d->rnn->projection ? d->rnn->projection : H});
  }
  const bool attends = d->attention != UNROLL_ATTENTION_NONE;
  p->o = (unroll_decoder_options){
      .struct_size = sizeof p->o,
      .cell = d->cell,
      .layers = d->layers,
      .hidden = H,
      .vocabulary = V,
      .embedding = X,
      .attention = d->attention,
      .context = d->context,
      .source = attends ? unroll_input(g, "source", d->dtype, 3, (int64_t[]){S, B, E}) : unroll_none(),
      .source_lengths = attends ? unroll_input(g, "source_lengths", UNROLL_I32, 1, (int64_t[]){B}) : unroll_none(),
      .initial = {.h = p->h}};
  if (!d->rnn)
    return;
  p->cells = *d->rnn;
  p->cells.inference = d->inference;
  p->o.cell = p->o.layers = 0;
  p->o.hidden = 0;
  p->o.rnn = &p->cells;
}

/* Every real input and parameter: normal numbers that its name decides, large enough for choices that differ. */
static void fill(model *m) {
  for (uint32_t i = 0; i < unroll_graph_count(m->graph); i++) {
    const unroll_tensor_info info = unroll_tensor_describe(unroll_graph_tensor(m->graph, i));
    if ((info.role != UNROLL_ROLE_INPUT && info.role != UNROLL_ROLE_PARAM) || info.dtype == UNROLL_I32 ||
        info.rank == 0)
      continue;
    unroll_tensor_info as = info;
    as.dtype = UNROLL_F64;
    double values[512];
    int64_t n = 1;
    for (int32_t k = 0; k < info.rank; k++)
      n *= info.shape[k];
    assert_in_range(n, 1, 512);
    assert_int_equal(unroll_init_normal(&as, 5, 0, 1.0, values, NULL), UNROLL_OK);
    model_put(m, info.name, values, n);
  }
  if (unroll_graph_find(m->graph, "source_lengths").graph)
    model_put_i32(m, "source_lengths", source_lengths, B);
  if (unroll_graph_find(m->graph, "target_lengths").graph)
    model_put_i32(m, "target_lengths", target_lengths, B);
  m->options.seed = seed;
  m->options.update = update;
}

static const char *const learned[] = {"dec.embed.weight", "dec.W_x.0.0", "dec.W_h.0.0", "dec.out.W"};
enum { LEARNED = sizeof learned / sizeof *learned };

/* A model of a decoder: FREE, SCHEDULED or TEACHER, filled; of the latter two with gradients of Σ logits². */
static model open_feed(const design *d, const unroll_decoder_feed *feed, unroll_device *dev) {
  unroll_graph *g;
  parts p;
  assert_int_equal(unroll_graph_create(NULL, &g, NULL), UNROLL_OK);
  describe(g, d, &p);
  unroll_decoder_feed f = *feed;
  f.struct_size = sizeof f;
  if (f.kind != UNROLL_FEED_FREE)
    f.inputs = unroll_input(g, "inputs", UNROLL_I32, 2, (int64_t[]){T, B});
  if (d->ragged)
    f.lengths = unroll_input(g, "target_lengths", UNROLL_I32, 1, (int64_t[]){B});
  if (f.kind == UNROLL_FEED_SCHEDULED)
    f.epsilon = unroll_input(g, "epsilon", d->dtype, 0, NULL);
  const unroll_decoder_outputs out = unroll_decode("dec", &p.o, &f);
  unroll_output(out.logits, "logits");
  if (out.ids.graph)
    unroll_output(out.ids, "ids");
  if (out.weights.graph)
    unroll_output(out.weights, "weights");
  if (f.kind == UNROLL_FEED_FREE)
    unroll_output(out.lengths, "lengths");
  else {
    unroll_tensor x[LEARNED], dx[LEARNED];
    char name[64];
    for (int i = 0; i < LEARNED; i++)
      x[i] = unroll_graph_find(g, learned[i]);
    unroll_gradient(unroll_reduce(out.logits, UNROLL_SUM_SQUARES, 0, 0), x, LEARNED, dx);
    for (int i = 0; i < LEARNED; i++) {
      snprintf(name, sizeof name, "grad.%s", learned[i]);
      unroll_output(dx[i], name);
    }
  }
  model m = model_open(g, dev, true);
  fill(&m);
  return m;
}
static void close_feed(model *m) {
  unroll_graph *g = m->graph;
  model_close(m);
  unroll_graph_destroy(g);
}

static void get_i32(model *m, const char *name, int32_t *v, size_t n) {
  assert_int_equal(unroll_binding_read(m->binding, name, v, n * sizeof *v, NULL), UNROLL_OK);
}

/* Logits of all steps after these inputs; only the first t are right where only t inputs are known. */
static void teach(model *m, const int32_t *inputs, double *logits) {
  model_put_i32(m, "inputs", inputs, T * B);
  model_run(m);
  double *v = model_get(m, "logits", T * B * V);
  memcpy(logits, v, sizeof *v * T * B * V);
  free(v);
}

/* The symbol that a row picks: greedy, or by inversion of the uniform number at (t, row) from what temperature, top_k
 * and top_p leave. */
static int32_t host_pick(const unroll_decoder_feed *f, const double *logits, uint32_t site, int t, int row) {
  int order[V];
  double w[V], sum = 0, kept = 0;
  const double temperature = f->temperature > 0 ? f->temperature : 1, top_p = f->top_p > 0 ? f->top_p : 1;
  for (int v = 0; v < V; v++) {
    int i = v;
    for (; i > 0 && logits[v] > logits[order[i - 1]]; i--)
      order[i] = order[i - 1];
    order[i] = v;
  }
  if (f->pick == UNROLL_PICK_GREEDY)
    return order[0];
  const int top_k = f->top_k ? (int)f->top_k : V;
  for (int i = 0; i < V; i++) {
    w[order[i]] = i < top_k ? exp((logits[order[i]] - logits[order[0]]) / temperature) : 0;
    sum += w[order[i]];
  }
  for (int i = 0; i < V; i++) {
    if (kept >= top_p * sum)
      w[order[i]] = 0;
    kept += w[order[i]];
  }
  const float u =
      unroll_uniform(unroll_philox_word(unroll_philox_site_key(seed, update, site), (uint64_t)t, (uint32_t)row, 0));
  double up_to = 0;
  int32_t last = 0;
  for (int v = 0; v < V; v++) {
    up_to += w[v];
    if (w[v] > 0)
      last = v;
    if (w[v] > 0 && up_to > (double)u * kept)
      return v;
  }
  return last;
}

static bool is_cpu(unroll_device *dev) { return strncmp(unroll_device_id(dev), "cpu", 3) == 0; }
static double tolerance(int32_t dtype) { return dtype == UNROLL_F64 ? 1e-10 : 2e-5; }

static void free_running_is(void **state, const unroll_decoder_feed *how, int least_ended) {
  static const int32_t dtypes[] = {UNROLL_F64, UNROLL_F32};
  int ended = 0, symbols[V] = {0};
  for (int i = 0; i < DESIGNS * 2; i++)
    FOR_EACH_DEVICE(dev, *state, dtypes[i % 2]) {
      design d = designs[i / 2];
      d.dtype = dtypes[i % 2];
      model run = open_feed(&d, how, dev), teacher = open_feed(&d, &(unroll_decoder_feed){0}, dev);
      int32_t inputs[T * B] = {0}, ids[T * B], lengths[B], want_lengths[B] = {0};
      double logits[T * B * V];
      bool over[B] = {false};
      model_run(&run);
      get_i32(&run, "ids", ids, T * B);
      get_i32(&run, "lengths", lengths, B);
      double *got = model_get(&run, "logits", T * B * V);
      for (int b = 0; b < B; b++)
        inputs[b] = how->begin;
      for (int t = 0; t < T; t++) {
        teach(&teacher, inputs, logits);
        for (int b = 0; b < B; b++) {
          const double *row = logits + (t * B + b) * V;
          const int32_t id = over[b] ? how->pad : host_pick(how, row, d.sites, t, b);
          if (ids[t * B + b] != id)
            fail_msg("%s design %d step %d row %d: id %d, expected %d", unroll_device_id(dev), i / 2, t, b,
                     ids[t * B + b], id);
          if (!over[b]) {
            assert_close("logits", got + (t * B + b) * V, row, V, tolerance(d.dtype));
            if (is_cpu(dev)) /* whichever way symbols come, they are worked on alike */
              assert_memory_equal(got + (t * B + b) * V, row, V * sizeof *row);
            symbols[id]++;
          }
          want_lengths[b] += !over[b];
          over[b] = over[b] || id == how->end;
          if (t + 1 < T)
            inputs[(t + 1) * B + b] = over[b] ? how->begin : id;
        }
      }
      for (int b = 0; b < B; b++)
        ended += over[b];
      assert_memory_equal(lengths, want_lengths, sizeof lengths);
      free(got);
      close_feed(&run);
      close_feed(&teacher);
    }
  assert_in_range(ended, least_ended, 1000); /* else the end was not tried */
  for (int v = 0; v < V && how->pick == UNROLL_PICK_SAMPLE && how->top_k == 0; v++)
    assert_in_range(symbols[v], 1, 1000);
}

#define FREE .kind = UNROLL_FEED_FREE, .steps = T, .begin = BEGIN, .end = END, .pad = PAD
static void greedy(void **state) { free_running_is(state, &(unroll_decoder_feed){FREE}, 1); }
static void sampled(void **state) {
  free_running_is(state, &(unroll_decoder_feed){FREE, .pick = UNROLL_PICK_SAMPLE}, 1);
}
static void sampled_hot(void **state) {
  free_running_is(state, &(unroll_decoder_feed){FREE, .pick = UNROLL_PICK_SAMPLE, .temperature = 2.5}, 1);
}
static void sampled_of_top_k(void **state) {
  free_running_is(state, &(unroll_decoder_feed){FREE, .pick = UNROLL_PICK_SAMPLE, .temperature = 2.5, .top_k = 3}, 1);
}
static void sampled_of_top_p(void **state) {
  free_running_is(state, &(unroll_decoder_feed){FREE, .pick = UNROLL_PICK_SAMPLE, .temperature = 2.5, .top_p = 0.8}, 1);
}

/* With probability epsilon the truth, else what was picked before: by the uniform number at (t, row), each row for
 * itself. Past the end of a target there is no symbol. */
static void scheduled_sampling(void **state) {
  static const double epsilons[] = {0, 0.4, 1};
  const unroll_decoder_feed how = {.kind = UNROLL_FEED_SCHEDULED, .pick = UNROLL_PICK_SAMPLE};
  static const int32_t dtypes[] = {UNROLL_F64, UNROLL_F32};
  int32_t truth[T * B];
  int taken = 0, of = 0;
  for (int i = 0; i < DESIGNS * 2; i++)
    FOR_EACH_DEVICE(dev, *state, dtypes[i % 2]) {
      design d = designs[i / 2];
      d.dtype = dtypes[i % 2];
      d.ragged = i % DESIGNS > 0;
      for (int k = 0; k < T * B; k++)
        truth[k] = d.ragged && k / B >= target_lengths[k % B] ? 12345 : (k * 7 + 3) % V;
      model run = open_feed(&d, &how, dev), teacher = open_feed(&d, &(unroll_decoder_feed){0}, dev);
      for (int e = 0; e < 3; e++) {
        int32_t inputs[T * B] = {0}, ids[T * B];
        double logits[T * B * V];
        memcpy(inputs, truth, sizeof *inputs * B);
        model_put(&run, "epsilon", &epsilons[e], 1);
        model_put_i32(&run, "inputs", truth, T * B);
        model_run(&run);
        get_i32(&run, "ids", ids, T * B);
        const unroll_philox_key key = unroll_philox_site_key(seed, update, d.sites);
        for (int t = 0; t < T; t++) {
          teach(&teacher, inputs, logits);
          for (int b = 0; b < B; b++) {
            const bool over = d.ragged && t >= target_lengths[b];
            assert_int_equal(ids[t * B + b], over ? 0 : host_pick(&how, logits + (t * B + b) * V, d.sites + 1, t, b));
            const float u = unroll_uniform(unroll_philox_word(key, (uint64_t)(t + 1), (uint32_t)b, 0));
            const bool true_one = (double)u < epsilons[e];
            if (t + 1 < T)
              inputs[(t + 1) * B + b] = true_one ? truth[(t + 1) * B + b] : ids[t * B + b];
            taken += e == 1 && true_one;
            of += e == 1;
          }
        }
        double *got = model_get(&run, "logits", T * B * V);
        assert_close("logits", got, logits, T * B * V, tolerance(d.dtype));
        if (is_cpu(dev))
          assert_memory_equal(got, logits, sizeof logits);
        free(got);
        for (int k = 0; k < LEARNED; k++) { /* those of a teacher who says the same */
          char name[64];
          snprintf(name, sizeof name, "grad.%s", learned[k]);
          const unroll_tensor_info info = unroll_tensor_describe(unroll_graph_find(run.graph, name));
          const int64_t n = info.shape[0] * info.shape[1];
          double *a = model_get(&run, name, n), *b = model_get(&teacher, name, n);
          assert_close(name, a, b, n, 5 * tolerance(d.dtype)); /* sums over T·B = 15 rows of what is that far off */
          free(a);
          free(b);
        }
      }
      close_feed(&run);
      close_feed(&teacher);
    }
  assert_in_range(taken, 1, of - 1);
}

/* ---- beam search ---- */

typedef struct hypothesis {
  int32_t ids[T];
  int n;
  bool over;
  double log_prob, score;
} hypothesis;

static double length_penalty(int n, double alpha) { return pow((5.0 + n) / 6.0, alpha); }

/* log P of each symbol after those ids, of one row. */
static void next_log_probs(model *teacher, const hypothesis *h, int row, double *out) {
  int32_t inputs[T * B] = {0};
  double logits[T * B * V], sum = 0, most = -INFINITY;
  for (int t = 0; t <= h->n && t < T; t++)
    inputs[t * B + row] = t ? h->ids[t - 1] : BEGIN;
  teach(teacher, inputs, logits);
  const double *row_logits = logits + (h->n * B + row) * V;
  for (int v = 0; v < V; v++)
    most = fmax(most, row_logits[v]);
  for (int v = 0; v < V; v++)
    sum += exp(row_logits[v] - most);
  for (int v = 0; v < V; v++)
    out[v] = row_logits[v] - most - log(sum);
}

static void insert(hypothesis *list, int *n, int most, const hypothesis *h) {
  int i = *n < most ? (*n)++ : most;
  for (; i > 0 && h->score > list[i - 1].score; i--)
    if (i < most)
      list[i] = list[i - 1];
  if (i < most)
    list[i] = *h;
}

/* The same search on the host, of a width: with one of V^T it is the search over all sequences. */
static int host_search(model *teacher, int row, int width, int steps, double alpha, hypothesis *best) {
  hypothesis *next = calloc((size_t)width, sizeof *next);
  assert_non_null(next);
  best[0] = (hypothesis){.n = 0};
  int n = 1;
  for (int t = 0; t < steps; t++) {
    int n_next = 0;
    for (int i = 0; i < n; i++) {
      if (best[i].over) {
        insert(next, &n_next, width, &best[i]);
        continue;
      }
      double p[V];
      next_log_probs(teacher, &best[i], row, p);
      for (int v = 0; v < V; v++) {
        hypothesis h = best[i];
        h.ids[h.n++] = v;
        h.over = v == END;
        h.log_prob += p[v];
        h.score = h.log_prob / length_penalty(h.n, alpha);
        insert(next, &n_next, width, &h);
      }
    }
    memcpy(best, next, sizeof *next * (size_t)n_next);
    n = n_next;
  }
  free(next);
  return n;
}

/* planned_for: a run-time size's maximum, or 0. */
static model open_beam(const design *d, int32_t beam, int64_t steps, double alpha, int64_t planned_for,
                       unroll_device *dev) {
  unroll_graph *g;
  parts p;
  assert_int_equal(unroll_graph_create(NULL, &g, NULL), UNROLL_OK);
  const int64_t set = steps;
  if (planned_for)
    steps = unroll_graph_dim(g, "T", 1, planned_for);
  describe(g, d, &p);
  p.o.dropout = d->rnn ? 0 : 0.5; /* left out, and zoneout is its expectation */
  const unroll_beam_options o = {
      .struct_size = sizeof o, .beam = beam, .steps = steps, .begin = BEGIN, .end = END, .pad = PAD, .alpha = alpha};
  const unroll_beam_outputs out = unroll_decode_beam("dec", &p.o, &o);
  unroll_output(out.ids, "ids");
  unroll_output(out.lengths, "lengths");
  unroll_output(out.log_probs, "log_probs");
  unroll_output(out.scores, "scores");
  model m = model_open(g, dev, true);
  if (planned_for)
    model_set_dim(&m, set);
  fill(&m);
  return m;
}

static void check_beam(model *m, int32_t beam, int steps, const hypothesis *want, int row, double limit) {
  int32_t ids[T * B * MOST_K], lengths[B * MOST_K];
  get_i32(m, "ids", ids, (size_t)(steps * B * beam));
  get_i32(m, "lengths", lengths, (size_t)(B * beam));
  double *p = model_get(m, "log_probs", B * beam), *scores = model_get(m, "scores", B * beam);
  for (int k = 0; k < beam; k++) {
    const int at = row * beam + k;
    assert_close("log_probs", p + at, &want[k].log_prob, 1, limit);
    assert_close("scores", scores + at, &want[k].score, 1, limit);
    assert_int_equal(lengths[at], want[k].n);
    for (int t = 0; t < steps; t++)
      assert_int_equal(ids[(t * B + row) * beam + k], t < want[k].n ? want[k].ids[t] : PAD);
  }
  free(p);
  free(scores);
}

static void beam_is(void **state, int32_t beam, int steps, double alpha, int width) {
  static const int32_t dtypes[] = {UNROLL_F64, UNROLL_F32};
  hypothesis *want = calloc((size_t)width, sizeof *want);
  assert_non_null(want);
  for (int i = 0; i < DESIGNS * 2; i++)
    FOR_EACH_DEVICE(dev, *state, dtypes[i % 2]) {
      design d = designs[i / 2];
      d.dtype = dtypes[i % 2];
      model m = open_beam(&d, beam, steps, alpha, 0, dev);
      d.inference = true;
      model teacher = open_feed(&d, &(unroll_decoder_feed){0}, dev);
      model_run(&m);
      for (int row = 0; row < B; row++) {
        assert_in_range(host_search(&teacher, row, width, steps, alpha, want), beam, width);
        check_beam(&m, beam, steps, want, row, tolerance(d.dtype));
      }
      close_feed(&m);
      close_feed(&teacher);
    }
  free(want);
}
/* A beam as wide as the vocabulary forgets nothing in the first step, so after two steps it has the best of all
 * sequences. */
static void beam_of_all(void **state) { beam_is(state, V, 2, 0.7, V * V); }
static void beam_of_three(void **state) { beam_is(state, K, T, 0, K); }
static void beam_with_penalty(void **state) { beam_is(state, K, T, 1.3, K); }

static void beam_of_one_is_greedy(void **state) {
  for (int i = 0; i < DESIGNS; i++)
    FOR_EACH_DEVICE(dev, *state, UNROLL_F32) {
      design d = designs[i];
      d.dtype = UNROLL_F32;
      model m = open_beam(&d, 1, T, 0.5, i == 1 ? 9 : 0, dev);
      d.inference = true;
      model run = open_feed(&d, &(unroll_decoder_feed){FREE}, dev);
      int32_t a[T * B], b[T * B];
      model_run(&m);
      model_run(&run);
      get_i32(&m, "ids", a, T * B);
      get_i32(&run, "ids", b, T * B);
      assert_memory_equal(a, b, sizeof a);
      close_feed(&m);
      close_feed(&run);
    }
}

int main(void) {
  const struct CMUnitTest tests[] = {DEVICE_TESTS(greedy),
                                     DEVICE_TESTS(sampled),
                                     DEVICE_TESTS(sampled_hot),
                                     DEVICE_TESTS(sampled_of_top_k),
                                     DEVICE_TESTS(sampled_of_top_p),
                                     DEVICE_TESTS(scheduled_sampling),
                                     DEVICE_TESTS(beam_of_all),
                                     DEVICE_TESTS(beam_of_three),
                                     DEVICE_TESTS(beam_with_penalty),
                                     DEVICE_TESTS(beam_of_one_is_greedy)};
  return cmocka_run_group_tests(tests, devices_open, devices_close);
}
