/* SPDX-License-Identifier: Apache-2.0 */
/*
 * REINFORCE against the gradient of an expectation that is summed over all sequences, an update of it, the schedules
 * of scheduled sampling, the smaller pieces of seq2seq.h and ctc.h, and what all of them refuse.
 */
#include "runs.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unroll/ctc.h>
#include <unroll/seq2seq.h>

static unroll_graph *graph(void) {
  unroll_graph *g;
  assert_int_equal(unroll_graph_create(NULL, &g, NULL), UNROLL_OK);
  return g;
}

/* ---- REINFORCE ---- */

enum { V = 3, END = 1, T = 3, H = 3, ALL = 15 };
/* Every sequence over {0, 2} that END closes within T symbols, or that has T symbols: 1 + 2 + 4 + 8 of them. */
static int enumerate(int32_t sequences[ALL][T], int32_t *lengths) {
  int n = 0;
  for (int length = 1; length <= T; length++)
    for (int code = 0; code < 1 << (length - 1); code++)
      for (int last = 0; last < (length == T ? V : 1); last++) {
        for (int t = 0; t < length; t++)
          sequences[n][t] = t + 1 < length ? (code >> t & 1) * 2 : length < T ? END : last;
        lengths[n++] = length;
      }
  return n;
}

static unroll_decoder_options policy(unroll_tensor *h) {
  return (unroll_decoder_options){.struct_size = sizeof(unroll_decoder_options),
                                  .cell = UNROLL_CELL_GRU_AFTER,
                                  .layers = 1,
                                  .hidden = H,
                                  .vocabulary = V,
                                  .embedding = 2,
                                  .initial = {.h = h}};
}

/*
 * The estimator's mean is the gradient: weighed with each sequence's probability, which is put into its reward,
 * REINFORCE's gradient is that of E[R] = Σ_y π(y)·R(y), whatever the baseline; and that is what central differences
 * of E[R] say.
 */
static void estimator_is_the_enumerated_gradient(void **state) {
  static const char *const names[] = {"pi.W_x.0.0",      "pi.W_h.0.0", "pi.b.0.0",
                                      "pi.embed.weight", "pi.out.W",   "pi.out.b"};
  enum { N = sizeof names / sizeof *names };
  int32_t sequences[ALL][T], lengths[ALL], inputs[T * ALL], targets[T * ALL];
  double rewards[ALL], weighed[ALL], baselines[ALL];
  assert_int_equal(enumerate(sequences, lengths), ALL);
  for (int k = 0; k < ALL; k++) {
    rewards[k] = sin(3.0 * k) + 0.3 * lengths[k];
    for (int t = 0; t < T; t++) {
      targets[t * ALL + k] = t < lengths[k] ? sequences[k][t] : -1;
      inputs[t * ALL + k] = t > 0 && t < lengths[k] ? sequences[k][t - 1] : 0;
    }
  }
  FOR_EACH_DEVICE(dev, *state, UNROLL_F64) {
    unroll_graph *g = graph();
    const int64_t shape[2] = {T, ALL}, batch = ALL;
    const unroll_tensor zeros = unroll_constant(g, UNROLL_F64, 2, (int64_t[]){ALL, H}, 0.0);
    unroll_tensor h[1] = {zeros}, wrt[N], d[N], exact[N];
    const unroll_decoder_options o = policy(h);
    const unroll_decoder_feed f = {.struct_size = sizeof f, .inputs = unroll_input(g, "inputs", UNROLL_I32, 2, shape)};
    const unroll_tensor reward = unroll_input(g, "reward", UNROLL_F64, 1, &batch),
                        weighed_reward = unroll_input(g, "weighed", UNROLL_F64, 1, &batch),
                        baseline = unroll_input(g, "baseline", UNROLL_F64, 1, &batch);
    const unroll_tensor log_prob =
        unroll_sequence_log_prob(unroll_decode("pi", &o, &f).logits, unroll_input(g, "targets", UNROLL_I32, 2, shape));
    const unroll_tensor p = unroll_unary(log_prob, UNROLL_EXP);
    const unroll_tensor expected = unroll_reduce(unroll_mul(p, reward), UNROLL_SUM, 0, 0);
    for (int i = 0; i < N; i++)
      wrt[i] = unroll_graph_find(g, names[i]);
    unroll_gradient(unroll_reinforce_loss(log_prob, weighed_reward, baseline, UNROLL_LOSS_SUM), wrt, N, d);
    unroll_gradient(expected, wrt, N, exact);
    char name[64];
    for (int i = 0; i < N; i++) {
      snprintf(name, sizeof name, "d.%s", names[i]);
      unroll_output(d[i], name);
      snprintf(name, sizeof name, "e.%s", names[i]);
      unroll_output(exact[i], name);
    }
    unroll_output(p, "p");
    unroll_output(expected, "expected");
    model m = model_open(g, dev, true);
    model_fill(&m, 0.8);
    model_put_i32(&m, "inputs", inputs, T * ALL);
    model_put_i32(&m, "targets", targets, T * ALL);
    model_put(&m, "reward", rewards, ALL);
    model_run(&m);
    double *probability = model_get(&m, "p", ALL), sum = 0;
    for (int k = 0; k < ALL; k++) {
      sum += probability[k];
      weighed[k] = probability[k] * rewards[k];
      baselines[k] = probability[k] * 0.7;
    }
    assert_true(fabs(sum - 1) < 1e-12);
    model_put(&m, "weighed", weighed, ALL);
    model_put(&m, "baseline", baselines, ALL);
    model_run(&m);
    for (int i = 0; i < N; i++) {
      unroll_tensor_info info = unroll_tensor_describe(wrt[i]);
      const int64_t n = info.shape[0] * (info.rank > 1 ? info.shape[1] : 1);
      snprintf(name, sizeof name, "d.%s", names[i]);
      double *got = model_get(&m, name, n);
      snprintf(name, sizeof name, "e.%s", names[i]);
      double *want = model_get(&m, name, n), at[64], differences[64];
      for (int64_t k = 0; k < n; k++)
        got[k] = -got[k];
      assert_close(name, got, want, n, 1e-11); /* sums of 15 terms */
      assert_int_equal(unroll_binding_read(m.binding, names[i], at, (uint64_t)n * sizeof *at, NULL), UNROLL_OK);
      for (int64_t k = 0; k < n; k++) {
        const double was = at[k];
        double side[2];
        for (int s = 0; s < 2; s++) {
          at[k] = was + (s ? -1e-5 : 1e-5);
          model_put(&m, names[i], at, n);
          model_run(&m);
          double *e = model_get(&m, "expected", 1);
          side[s] = *e;
          free(e);
        }
        at[k] = was;
        differences[k] = (side[0] - side[1]) / 2e-5;
      }
      model_put(&m, names[i], at, n);
      model_run(&m);
      assert_close(name, got, differences, n, 1e-8); /* h² and 1e-16/h */
      free(got);
      free(want);
    }
    free(probability);
    model_close(&m);
    unroll_graph_destroy(g);
  }
}

enum { BATCH = 16 };
typedef struct told {
  int calls;
  int32_t targets[T * BATCH], inputs[T * BATCH]; /* what the learner should get of the sequences seen last */
  double rewards[BATCH];
} told;
/* Reward is how many zeros there are. */
static double zeros_said(void *ctx, int64_t row, const int32_t *ids, int64_t length) {
  told *x = ctx;
  double n = 0;
  for (int64_t t = 0; t < T; t++) {
    n += t < length && ids[t] == 0;
    x->targets[t * BATCH + row] = t < length ? ids[t] : -1;
    x->inputs[t * BATCH + row] = t > 0 && t < length ? ids[t - 1] : 2;
  }
  x->calls++;
  return x->rewards[row] = n;
}

/* -1/B·Σ (R - b)·log π, by hand. */
static void reinforce_loss(void **state) {
  static const double log_prob[] = {-1, -2, -4}, reward[] = {3, 0.5, 1}, baseline[] = {1, 1.5, -2};
  static const double want[] = {(2 * 1 - 1 * 2 + 3 * 4) / 3.0, 2 * 1 - 1 * 2 + 3 * 4, 3 * 1 + 0.5 * 2 + 1 * 4};
  FOR_EACH_DEVICE(dev, *state, UNROLL_F32) {
    unroll_graph *g = graph();
    const int64_t n = 3;
    const unroll_tensor p = unroll_input(g, "p", UNROLL_F32, 1, &n), r = unroll_input(g, "r", UNROLL_F32, 1, &n),
                        b = unroll_input(g, "b", UNROLL_F32, 1, &n);
    unroll_output(unroll_reinforce_loss(p, r, b, UNROLL_LOSS_MEAN), "0");
    unroll_output(unroll_reinforce_loss(p, r, b, UNROLL_LOSS_SUM), "1");
    unroll_output(unroll_reinforce_loss(p, r, unroll_none(), UNROLL_LOSS_SUM), "2");
    model m = model_open(g, dev, true);
    model_put(&m, "p", log_prob, n);
    model_put(&m, "r", reward, n);
    model_put(&m, "b", baseline, n);
    model_run(&m);
    for (int i = 0; i < 3; i++) {
      double *got = model_get(&m, (const char *[]){"0", "1", "2"}[i], 1);
      assert_close("loss", got, &want[i], 1, 1e-6);
      free(got);
    }
    model_close(&m);
    unroll_graph_destroy(g);
  }
}

static unroll_graph *sampler_graph(void) {
  unroll_graph *g = graph();
  unroll_tensor h[1] = {unroll_constant(g, UNROLL_F32, 2, (int64_t[]){BATCH, H}, 0.0)};
  const unroll_decoder_options o = policy(h);
  const unroll_decoder_feed f = {
      .struct_size = sizeof f, .kind = UNROLL_FEED_FREE, .steps = T, .end = END, .pad = -1, .pick = UNROLL_PICK_SAMPLE};
  const unroll_decoder_outputs out = unroll_decode("pi", &o, &f);
  unroll_output(out.ids, "ids");
  unroll_output(out.lengths, "lengths");
  return g;
}
static unroll_graph *learner_graph(void) {
  unroll_graph *g = graph();
  const int64_t shape[2] = {T, BATCH}, batch = BATCH;
  unroll_tensor h[1] = {unroll_constant(g, UNROLL_F32, 2, (int64_t[]){BATCH, H}, 0.0)}, params[16], grads[16];
  const unroll_decoder_options o = policy(h);
  const unroll_decoder_feed f = {.struct_size = sizeof f, .inputs = unroll_input(g, "inputs", UNROLL_I32, 2, shape)};
  const unroll_tensor log_prob =
      unroll_sequence_log_prob(unroll_decode("pi", &o, &f).logits, unroll_input(g, "targets", UNROLL_I32, 2, shape));
  const unroll_tensor loss =
      unroll_reinforce_loss(log_prob, unroll_input(g, "reward", UNROLL_F32, 1, &batch),
                            unroll_input(g, "baseline", UNROLL_F32, 1, &batch), UNROLL_LOSS_MEAN);
  uint32_t n = 0;
  for (uint32_t i = 0; i < unroll_graph_count(g); i++)
    if (unroll_tensor_describe(unroll_graph_tensor(g, i)).role == UNROLL_ROLE_PARAM)
      params[n++] = unroll_graph_tensor(g, i);
  unroll_gradient(loss, params, n, grads);
  const unroll_optimizer_attr sgd = {.kind = UNROLL_SGD};
  for (uint32_t i = 0; i < n; i++)
    unroll_optimize(params[i], grads[i], unroll_constant(g, UNROLL_F32, 0, NULL, 0.2),
                    unroll_constant(g, UNROLL_I32, 0, NULL, 1), unroll_none(), &sgd);
  return g;
}

/* From chance, two zeros of three at most, to nearly all zeros in 60 updates. */
static void updates_raise_the_reward(void **state) {
  FOR_EACH_DEVICE(dev, *state, UNROLL_F32) {
    unroll_graph *sg = sampler_graph(), *lg = learner_graph();
    model s = model_open(sg, dev, true), l = model_open(lg, dev, true);
    model_fill(&l, 0.3);
    for (uint32_t i = 0; i < unroll_graph_count(lg); i++) {
      const unroll_tensor_info info = unroll_tensor_describe(unroll_graph_tensor(lg, i));
      if (info.role == UNROLL_ROLE_PARAM)
        assert_int_equal(unroll_binding_share(s.binding, info.name, l.binding, info.name, NULL), UNROLL_OK);
    }
    static told seen;
    seen.calls = 0;
    unroll_reinforce r = {.struct_size = sizeof r,
                          .sampler = s.binding,
                          .ids = "ids",
                          .lengths = "lengths",
                          .learner = l.binding,
                          .inputs = "inputs",
                          .targets = "targets",
                          .reward = "reward",
                          .baseline = "baseline",
                          .steps = T,
                          .batch = BATCH,
                          .reward_of = zeros_said,
                          .ctx = &seen,
                          .begin = 2,
                          .decay = 0.9};
    double first = 0, last = 0, before = 0;
    for (uint64_t k = 0; k < 60; k++) {
      const unroll_run_options options = {.struct_size = sizeof options, .seed = 4, .update = k};
      unroll_error err = UNROLL_ERROR_INIT;
      double mean;
      assert_status(UNROLL_OK, unroll_reinforce_update(&r, &options, &mean, &err));
      assert_true(fabs(r.value - (k ? 0.9 * before + 0.1 * mean : mean)) < 1e-12);
      before = r.value;
      first = k ? first : mean;
      last += k >= 55 ? mean / 5 : 0;
    }
    assert_int_equal(seen.calls, 60 * BATCH);
    assert_int_equal(r.seen, 60);
    int32_t inputs[T * BATCH], targets[T * BATCH];
    assert_int_equal(unroll_binding_read(l.binding, "inputs", inputs, sizeof inputs, NULL), UNROLL_OK);
    assert_int_equal(unroll_binding_read(l.binding, "targets", targets, sizeof targets, NULL), UNROLL_OK);
    assert_memory_equal(inputs, seen.inputs, sizeof inputs);
    assert_memory_equal(targets, seen.targets, sizeof targets);
    double *rewards = model_get(&l, "reward", BATCH);
    for (int k = 0; k < BATCH; k++)
      assert_true(rewards[k] == seen.rewards[k]);
    free(rewards);
    print_message("%s: mean reward %.2f -> %.2f\n", unroll_device_id(dev), first, last);
    assert_true(first < 1.5 && last > 2.5);

    unroll_error err = UNROLL_ERROR_INIT;
    r.decay = 1;
    assert_status(UNROLL_E_RANGE, unroll_reinforce_update(&r, NULL, NULL, &err));
    assert_non_null(strstr(err.message, "decay is 1"));
    r.decay = 0;
    r.reward_of = NULL;
    assert_status(UNROLL_E_INVALID, unroll_reinforce_update(&r, NULL, NULL, &err));
    model_close(&s);
    model_close(&l);
    unroll_graph_destroy(sg);
    unroll_graph_destroy(lg);
  }
}

/* ---- scheduled sampling ---- */

static void schedules(void **state) {
  static const struct {
    unroll_sampling_schedule s;
    double at[4]; /* of updates 0, 1, 10, 400, computed elsewhere */
  } cases[] = {
      {{.kind = UNROLL_SAMPLING_EXPONENTIAL, .start = 0.9, .rate = 0.99}, {0.9, 0.891, 0.813943867508, 0.016155497948}},
      {{.kind = UNROLL_SAMPLING_LINEAR, .start = 1, .rate = 0.005, .least = 0.25}, {1, 0.995, 0.95, 0.25}},
      {{.kind = UNROLL_SAMPLING_INVERSE_SIGMOID, .start = 1, .rate = 50},
       {0.980392156863, 0.980003972677, 0.976154445361, 0.016496434531}}};
  static const int32_t updates[4] = {0, 1, 10, 400}, dtypes[] = {UNROLL_F64, UNROLL_F32};
  for (int c = 0; c < 3; c++) {
    unroll_sampling_schedule s = cases[c].s;
    s.struct_size = sizeof s;
    for (int k = 0; k < 4; k++) {
      double rate;
      assert_int_equal(unroll_sampling_rate_at(updates[k], &s, &rate, NULL), UNROLL_OK);
      assert_true(fabs(rate - cases[c].at[k]) < 1e-11);
    }
    for (int t = 0; t < 2; t++)
      FOR_EACH_DEVICE(dev, *state, dtypes[t]) {
        unroll_graph *g = graph();
        unroll_output(unroll_sampling_rate(unroll_input(g, "update", UNROLL_I32, 0, NULL), &s, dtypes[t]), "rate");
        model m = model_open(g, dev, true);
        for (int k = 0; k < 4; k++) {
          model_put_i32(&m, "update", &updates[k], 1);
          model_run(&m);
          double *rate = model_get(&m, "rate", 1);
          /* f32: exp of up to 8, whose argument is rounded */
          assert_close("rate", rate, &cases[c].at[k], 1, t ? 2e-6 : 1e-10);
          free(rate);
        }
        model_close(&m);
        unroll_graph_destroy(g);
      }
  }
}

/* ---- small pieces ---- */

/* The last states of every sequence's own end, both ways, times the matrix. */
static void many_to_one(void **state) {
  enum { STEPS = 4, B = 3, I = 2, Y = 2 };
  static const int32_t lengths[B] = {4, 1, 2};
  FOR_EACH_DEVICE(dev, *state, UNROLL_F32)
    for (int both = 0; both < 2; both++) {
      unroll_graph *g = graph();
      const int64_t batch = B, D = both + 1;
      const unroll_tensor x = unroll_input(g, "x", UNROLL_F32, 3, (int64_t[]){STEPS, B, I});
      const unroll_rnn_options o = {.struct_size = sizeof o,
                                    .cell = UNROLL_CELL_LSTM,
                                    .layers = 2,
                                    .hidden = H,
                                    .bidirectional = both,
                                    .lengths = unroll_input(g, "lengths", UNROLL_I32, 1, &batch)};
      unroll_output(unroll_many_to_one(x, "", &o, Y), "y");
      unroll_tensor h[4];
      unroll_rnn_state last = {h, NULL};
      unroll_rnn(x, "", &o, NULL, &last);
      unroll_output(h[D], "forward");
      unroll_output(h[D + D - 1], "reverse");
      model m = model_open(g, dev, true);
      model_fill(&m, 0.7);
      model_put_i32(&m, "lengths", lengths, B);
      model_run(&m);
      double *y = model_get(&m, "y", B * Y),
             *ways[2] = {model_get(&m, "forward", B * H), model_get(&m, "reverse", B * H)};
      float W[Y * 2 * H], b[Y];
      assert_int_equal(unroll_binding_read(m.binding, "out.W", W, sizeof *W * (size_t)(Y * D * H), NULL), UNROLL_OK);
      assert_int_equal(unroll_binding_read(m.binding, "out.b", b, sizeof b, NULL), UNROLL_OK);
      double want[B * Y];
      for (int64_t r = 0; r < B; r++)
        for (int64_t k = 0; k < Y; k++) {
          want[r * Y + k] = (double)b[k];
          for (int64_t i = 0; i < D * H; i++)
            want[r * Y + k] += (double)W[k * D * H + i] * ways[i / H][r * H + i % H];
        }
      assert_close("y", y, want, B * Y, 1e-6);
      free(y);
      free(ways[0]);
      free(ways[1]);
      model_close(&m);
      unroll_graph_destroy(g);
    }
}

/* A scan of unroll_cell_step is an unroll_rnn of one layer, with the same parameters. */
static void cell_step_is_the_layer(void **state) {
  enum { STEPS = 4, B = 3, I = 2 };
  for (int32_t cell = UNROLL_CELL_RNN; cell < UNROLL_CELL_COUNT; cell++)
    FOR_EACH_DEVICE(dev, *state, UNROLL_F32) {
      unroll_graph *g = graph();
      const unroll_tensor x = unroll_input(g, "x", UNROLL_F32, 3, (int64_t[]){STEPS, B, I}),
                          zeros = unroll_constant(g, UNROLL_F32, 2, (int64_t[]){B, H}, 0.0);
      const unroll_rnn_options o = {.struct_size = sizeof o, .cell = cell, .layers = 1, .hidden = H};
      unroll_output(unroll_rnn(x, "r", &o, NULL, NULL), "layer");
      unroll_scan *s = unroll_scan_begin(g, UNROLL_FORWARD, unroll_none());
      const unroll_tensor x_t = unroll_scan_input(s, x);
      const bool lstm = cell == UNROLL_CELL_LSTM;
      const unroll_cell_state now = {unroll_scan_carry(s, zeros), lstm ? unroll_scan_carry(s, zeros) : unroll_none()};
      const unroll_cell_state next = unroll_cell_step(x_t, "r", cell, 0, H, now);
      unroll_scan_next(s, now.h, next.h);
      if (lstm)
        unroll_scan_next(s, now.c, next.c);
      const unroll_tensor y = unroll_scan_output(s, next.h);
      unroll_scan_end(s);
      unroll_output(y, "steps");
      model m = model_open(g, dev, true);
      model_fill(&m, 0.7);
      model_run(&m);
      double *a = model_get(&m, "layer", STEPS * B * H), *b = model_get(&m, "steps", STEPS * B * H);
      assert_close("steps", b, a, STEPS * B * H, 2e-6); /* 4 steps of products over 5 terms */
      free(a);
      free(b);
      model_close(&m);
      unroll_graph_destroy(g);
    }
}

static void bridge(void **state) {
  enum { B = 2 };
  FOR_EACH_DEVICE(dev, *state, UNROLL_F32) {
    unroll_graph *g = graph();
    unroll_tensor h[2], c[2], to_h[1], to_c[1];
    for (int k = 0; k < 2; k++) {
      h[k] = unroll_input(g, k ? "h1" : "h0", UNROLL_F32, 2, (int64_t[]){B, 2});
      c[k] = unroll_input(g, k ? "c1" : "c0", UNROLL_F32, 2, (int64_t[]){B, 2});
    }
    unroll_rnn_state from = {h, c}, to = {to_h, to_c};
    unroll_bridge(&from, 1, 2, "br", 4, &to); /* 2 + 2 are 4 already */
    unroll_output(to_h[0], "same");
    unroll_bridge(&from, 1, 2, "br", 3, &to);
    unroll_output(to_h[0], "h");
    unroll_output(to_c[0], "c");
    model m = model_open(g, dev, true);
    model_fill(&m, 1);
    model_run(&m);
    double *got[3] = {model_get(&m, "same", B * 4), model_get(&m, "h", B * 3), model_get(&m, "c", B * 3)};
    float in[4][B * 2], W[2][3 * 4], b[2][3];
    static const char *const names[] = {"h0", "h1", "c0", "c1"}, *const weights[] = {"br.h.0.W", "br.c.0.W"},
                             *const biases[] = {"br.h.0.b", "br.c.0.b"};
    for (int k = 0; k < 4; k++)
      assert_int_equal(unroll_binding_read(m.binding, names[k], in[k], sizeof in[k], NULL), UNROLL_OK);
    for (int k = 0; k < 2; k++) {
      assert_int_equal(unroll_binding_read(m.binding, weights[k], W[k], sizeof W[k], NULL), UNROLL_OK);
      assert_int_equal(unroll_binding_read(m.binding, biases[k], b[k], sizeof b[k], NULL), UNROLL_OK);
    }
    for (int r = 0; r < B; r++) {
      for (int i = 0; i < 4; i++)
        assert_true(got[0][r * 4 + i] == (double)in[i / 2][r * 2 + i % 2]);
      for (int k = 0; k < 2; k++)
        for (int u = 0; u < 3; u++) {
          double want = (double)b[k][u];
          for (int i = 0; i < 4; i++)
            want += (double)W[k][u * 4 + i] * (double)in[2 * k + i / 2][r * 2 + i % 2];
          want = k ? want : tanh(want);
          assert_close("bridge", &got[1 + k][r * 3 + u], &want, 1, 1e-5);
        }
    }
    for (int k = 0; k < 3; k++)
      free(got[k]);
    model_close(&m);
    unroll_graph_destroy(g);
  }
}

/* ---- what is refused ---- */

typedef struct pieces {
  unroll_graph *g;
  unroll_tensor source, lengths, inputs, h[1], logits, targets, n;
  unroll_decoder_options o;
  unroll_decoder_feed f;
  unroll_beam_options beam;
  unroll_ctc_options ctc;
  unroll_one_to_many_options many;
  unroll_sampling_schedule schedule;
} pieces;

static pieces make_in(unroll_graph *g) {
  pieces p = {.g = g};
  const int64_t B = 2;
  p.source = unroll_input(p.g, "source", UNROLL_F32, 3, (int64_t[]){4, B, 3});
  p.lengths = unroll_input(p.g, "lengths", UNROLL_I32, 1, &B);
  p.inputs = unroll_input(p.g, "inputs", UNROLL_I32, 2, (int64_t[]){3, B});
  p.h[0] = unroll_input(p.g, "h", UNROLL_F32, 2, (int64_t[]){B, 3});
  p.logits = unroll_input(p.g, "logits", UNROLL_F32, 3, (int64_t[]){4, B, 5});
  p.targets = unroll_input(p.g, "targets", UNROLL_I32, 2, (int64_t[]){B, 2});
  p.n = unroll_input(p.g, "n", UNROLL_I32, 1, &B);
  p.o = policy(NULL);
  p.o.vocabulary = 5;
  p.o.attention = UNROLL_ATTENTION_ADDITIVE;
  p.o.source = p.source;
  p.o.source_lengths = p.lengths;
  p.f = (unroll_decoder_feed){.struct_size = sizeof p.f, .inputs = p.inputs, .steps = 3, .end = 1};
  p.beam = (unroll_beam_options){.struct_size = sizeof p.beam, .beam = 2, .steps = 3, .end = 1};
  p.ctc = (unroll_ctc_options){.struct_size = sizeof p.ctc};
  p.many = (unroll_one_to_many_options){
      .struct_size = sizeof p.many, .cell = UNROLL_CELL_GRU, .hidden = 3, .outputs = 2, .steps = 3};
  p.schedule = (unroll_sampling_schedule){.struct_size = sizeof p.schedule, .start = 1, .rate = 0.9};
  return p;
}

static pieces make(void) { return make_in(graph()); }

/* Changes one thing of what is right, builds with it, and reads the graph's error. */
#define REFUSED(status, words, change, build)                                       \
  do {                                                                              \
    pieces p = make();                                                              \
    unroll_error err = UNROLL_ERROR_INIT;                                           \
    change;                                                                         \
    (void)(build);                                                                  \
    assert_int_equal(unroll_graph_status(p.g, &err), (status));                     \
    if (!strstr(err.message, words))                                                \
      fail_msg("%s; %s: \"%s\" lacks \"%s\"", #change, #build, err.message, words); \
    unroll_graph_destroy(p.g);                                                      \
  } while (0)
#define DECODE unroll_decode("d", &p.o, &p.f)
#define BEAM unroll_decode_beam("d", &p.o, &p.beam)
#define CTC unroll_ctc_loss(p.logits, p.targets, p.n, &p.ctc)
#define MANY unroll_one_to_many(p.h[0], "m", &p.many, NULL)

/* Whatever allocation fails, the graph says so, and nothing is lost or touched that is not there. */
static void no_memory(void **state) {
  (void)state;
  for (int what = 0; what < 7; what++)
    for (long n = 1, failed = 1; failed; n++) {
      run_memory memory = {.fail_at = n};
      const unroll_allocator allocator = runs_allocator(&memory);
      unroll_graph *g = NULL;
      unroll_status st = unroll_graph_create(&allocator, &g, NULL);
      if (st == UNROLL_OK) {
        pieces p = make_in(g);
        unroll_tensor loss = unroll_none(), dx;
        p.f.lengths = p.n;
        p.f.kind = what == 1 ? UNROLL_FEED_SCHEDULED : what == 2 ? UNROLL_FEED_FREE : UNROLL_FEED_TEACHER;
        p.f.epsilon = what == 1 ? unroll_input(g, "epsilon", UNROLL_F32, 0, NULL) : unroll_none();
        p.o.context = what == 0 ? UNROLL_CONTEXT_FEEDING : UNROLL_CONTEXT_BEFORE;
        p.beam.alpha = 0.5;
        const unroll_rnn_options cells = {.struct_size = sizeof cells,
                                          .cell = UNROLL_CELL_LSTM,
                                          .layers = 2,
                                          .hidden = 3,
                                          .projection = 2,
                                          .peepholes = 1,
                                          .layer_norm = 1,
                                          .zoneout_h = 0.5,
                                          .zoneout_c = 0.5,
                                          .input_dropout = 0.5,
                                          .dropout = 0.5,
                                          .weight_dropout = 0.5,
                                          .state_dropout = 0.5};
        if (what == 6) {
          p.o.cell = p.o.layers = 0;
          p.o.hidden = 0;
          p.o.rnn = &cells;
        }
        p.ctc.lengths = p.lengths;
        if (what < 3 || what == 6)
          loss = unroll_reduce(DECODE.logits, UNROLL_SUM, 0, 0);
        else if (what == 3)
          BEAM;
        else if (what == 4)
          loss = CTC;
        else
          loss = unroll_reduce(MANY, UNROLL_SUM, 0, 0);
        if (loss.graph)
          unroll_gradient(loss, &p.source, 1, &dx);
        st = unroll_graph_status(g, NULL);
      }
      failed = st != UNROLL_OK;
      assert_int_equal(st, failed ? UNROLL_E_MEMORY : UNROLL_OK);
      unroll_graph_destroy(g);
      assert_int_equal(memory.live, 0);
      assert_in_range(n, 1, 20000);
    }
}

static void wrong_decoders(void **state) {
  (void)state;
  REFUSED(UNROLL_OK, "", , DECODE);
  REFUSED(UNROLL_OK, "", , BEAM);
  REFUSED(UNROLL_E_INVALID, "struct_size", p.o.struct_size -= (uint32_t)sizeof p.o.initial, DECODE);
  REFUSED(UNROLL_E_INVALID, "decode: 9 is no cell", p.o.cell = 9, DECODE);
  REFUSED(UNROLL_E_RANGE, "17 layers, expected 1 to 16", p.o.layers = 17, DECODE);
  REFUSED(UNROLL_E_RANGE, "vocabulary 0", p.o.vocabulary = 0, BEAM);
  REFUSED(UNROLL_E_RANGE, "dropout 1", p.o.dropout = 1, DECODE);
  REFUSED(UNROLL_E_INVALID, "context 3", p.o.context = 3, DECODE);
  REFUSED(UNROLL_E_INVALID, "attention: kind 5", p.o.attention = 5, DECODE);
  REFUSED(UNROLL_E_SHAPE, "lengths are targets", p.o.source_lengths = p.targets, DECODE);
  REFUSED(UNROLL_E_SHAPE, "initial h of layer 0 is h",
          (p.h[0] = unroll_input(p.g, "h2", UNROLL_F32, 2, (int64_t[]){2, 4}), p.o.initial.h = p.h), DECODE);
  REFUSED(UNROLL_E_SHAPE, "dot product of a query of 4", (p.o.hidden = 4, p.o.attention = UNROLL_ATTENTION_DOT),
          DECODE);
  REFUSED(UNROLL_E_INVALID, "no source to attend", (p.o.initial.h = p.h, p.o.source = unroll_none()), DECODE);
  REFUSED(UNROLL_E_INVALID, "feed 7", p.f.kind = 7, DECODE);
  REFUSED(UNROLL_E_INVALID, "no inputs", p.f.inputs = unroll_none(), DECODE);
  REFUSED(UNROLL_E_SHAPE, "inputs are source", p.f.inputs = p.source, DECODE);
  REFUSED(UNROLL_E_SHAPE, "lengths are targets", p.f.lengths = p.targets, DECODE);
  REFUSED(UNROLL_E_SHAPE, "epsilon is missing", p.f.kind = UNROLL_FEED_SCHEDULED, DECODE);
#define FREE p.f.kind = UNROLL_FEED_FREE, p.f.pick = UNROLL_PICK_SAMPLE
  REFUSED(UNROLL_OK, "", (FREE), DECODE);
  REFUSED(UNROLL_E_RANGE, "0 steps", (FREE, p.f.steps = 0), DECODE);
  REFUSED(UNROLL_E_RANGE, "begin 5", (FREE, p.f.begin = 5), DECODE);
  REFUSED(UNROLL_E_RANGE, "end -2", (FREE, p.f.end = -2), DECODE);
  REFUSED(UNROLL_E_RANGE, "pad -2", (FREE, p.f.pad = -2), DECODE);
  REFUSED(UNROLL_E_INVALID, "pick 4", (FREE, p.f.pick = 4), DECODE);
  REFUSED(UNROLL_E_RANGE, "temperature -0.5", (FREE, p.f.temperature = -0.5), DECODE);
  REFUSED(UNROLL_E_RANGE, "temperature nan", (FREE, p.f.temperature = (double)NAN), DECODE);
  REFUSED(UNROLL_E_RANGE, "top_k 6", (FREE, p.f.top_k = 6), DECODE);
  REFUSED(UNROLL_E_RANGE, "top_p 1.5", (FREE, p.f.top_p = 1.5), DECODE);
  REFUSED(UNROLL_E_RANGE, "beam 0, expected 1 to the vocabulary's 5", p.beam.beam = 0, BEAM);
  REFUSED(UNROLL_E_RANGE, "beam 6", p.beam.beam = 6, BEAM);
  REFUSED(UNROLL_E_RANGE, "-1 steps", p.beam.steps = -1, BEAM);
  REFUSED(UNROLL_E_RANGE, "end -1", p.beam.end = -1, BEAM);
  REFUSED(UNROLL_E_RANGE, "alpha -0.1", p.beam.alpha = -0.1, BEAM);
}

/* Options of cells that a decoder can't have, or has elsewhere; those that a cell lacks; one that a feed lacks. */
static void wrong_cells(void **state) {
  (void)state;
  static const unroll_checkpoint_policy policy = {.struct_size = sizeof policy, .kind = UNROLL_CHECKPOINT_SQRT};
  unroll_tensor all[1];
  const unroll_rnn_options lstm = {.struct_size = sizeof lstm, .cell = UNROLL_CELL_LSTM, .layers = 1, .hidden = 3};
  unroll_rnn_options r;
#define CELLS r = lstm, p.o.cell = 0, p.o.layers = 0, p.o.hidden = 0, p.o.rnn = &r
  REFUSED(UNROLL_OK, "", (CELLS), DECODE);
  REFUSED(UNROLL_OK, "", (CELLS), BEAM);
  REFUSED(UNROLL_E_INVALID, "decode: cell beside rnn, expected 0", (CELLS, p.o.cell = UNROLL_CELL_GRU), DECODE);
  REFUSED(UNROLL_E_INVALID, "beam search: dropout beside rnn", (CELLS, p.o.dropout = 0.5), BEAM);
  REFUSED(UNROLL_E_INVALID, "decode: its options are missing, or their struct_size", (CELLS, r.struct_size = 8),
          DECODE);
  REFUSED(UNROLL_E_INVALID, "decode: bidirectional is no option of a decoder", (CELLS, r.bidirectional = 1), DECODE);
  REFUSED(UNROLL_E_INVALID, "lengths are no option of a decoder's cells", (CELLS, r.lengths = p.lengths), DECODE);
  REFUSED(UNROLL_E_RANGE, "decode: 17 layers", (CELLS, r.layers = 17), DECODE);
  REFUSED(UNROLL_E_RANGE, "decode: zoneout_h 1, expected 0 <= p < 1", (CELLS, r.zoneout_h = 1), DECODE);
  REFUSED(UNROLL_E_INVALID, "decode: peepholes is no option of cell gru",
          (CELLS, r.cell = UNROLL_CELL_GRU, r.peepholes = 1), DECODE);
  REFUSED(UNROLL_E_INVALID, "beam search: layer_norm is no option of cell min_gru",
          (CELLS, r.cell = UNROLL_RNN_MIN_GRU, r.layer_norm = 1), BEAM);
  REFUSED(UNROLL_E_INVALID, "beam search: cells are no option of a search", (CELLS, r.cells = all), BEAM);
  REFUSED(UNROLL_OK, "", (CELLS, r.checkpoint = &policy), BEAM);
  REFUSED(UNROLL_OK, "", (CELLS, r.checkpoint = &policy), DECODE);
  REFUSED(UNROLL_E_UNSUPPORTED, "checkpoint is an option of UNROLL_FEED_TEACHER alone, the feed is 2",
          (CELLS, r.checkpoint = &policy, FREE), DECODE);
  REFUSED(UNROLL_E_SHAPE, "initial h of layer 0 is h f32 [2,3], expected f32 [2,2]",
          (CELLS, r.projection = 2, p.o.initial.h = p.h), DECODE);
  REFUSED(UNROLL_E_SHAPE, "dot product of a query of 2",
          (CELLS, r.projection = 2, p.o.attention = UNROLL_ATTENTION_DOT), DECODE);
}

static void wrong_others(void **state) {
  (void)state;
  REFUSED(UNROLL_OK, "", , CTC.graph);
  REFUSED(UNROLL_E_RANGE, "ctc: blank 5, expected 0 to 4", p.ctc.blank = 5, CTC.graph);
  REFUSED(UNROLL_E_RANGE, "blank -1", p.ctc.blank = -1, CTC.graph);
  REFUSED(UNROLL_E_INVALID, "reduction 3", p.ctc.reduction = UNROLL_LOSS_HALF_SUM, CTC.graph);
  REFUSED(UNROLL_E_SHAPE, "targets inputs i32 [3,2]", p.targets = p.inputs, CTC.graph);
  REFUSED(UNROLL_E_SHAPE, "lengths are targets", p.ctc.lengths = p.targets, CTC.graph);
  REFUSED(UNROLL_E_INVALID, "missing", p.n = unroll_none(), CTC.graph);
  REFUSED(UNROLL_OK, "", , MANY.graph);
  REFUSED(UNROLL_E_RANGE, "0 steps", p.many.steps = 0, MANY.graph);
  REFUSED(UNROLL_E_INVALID, "output 77", p.many.output = 77, MANY.graph);
  REFUSED(UNROLL_E_SHAPE, "lengths are targets", p.many.lengths = p.targets, MANY.graph);
  REFUSED(UNROLL_E_INVALID, "many to one: its options", , unroll_many_to_one(p.source, "", NULL, 2).graph);
  REFUSED(UNROLL_E_RANGE, "many to one: 0 outputs", ,
          unroll_many_to_one(p.source, "", &(unroll_rnn_options){.struct_size = sizeof(unroll_rnn_options)}, 0).graph);
#define RATE unroll_sampling_rate(unroll_input(p.g, "update", UNROLL_I32, 0, NULL), &p.schedule, UNROLL_F32).graph
  REFUSED(UNROLL_OK, "", , RATE);
  REFUSED(UNROLL_E_RANGE, "epsilon starts at 1.5", p.schedule.start = 1.5, RATE);
  REFUSED(UNROLL_E_RANGE, "epsilon starts at -0.1", p.schedule.start = -0.1, RATE);
  REFUSED(UNROLL_E_RANGE, "least epsilon is 2", p.schedule.least = 2, RATE);
  REFUSED(UNROLL_E_RANGE, "decay by 0", p.schedule.rate = 0, RATE);
  REFUSED(UNROLL_E_RANGE, "k = 0.5", (p.schedule.kind = 2, p.schedule.rate = 0.5), RATE);
  REFUSED(UNROLL_E_INVALID, "kind 3", p.schedule.kind = 3, RATE);
  REFUSED(
      UNROLL_E_SHAPE, "query h f32 [2,3]", ,
      unroll_attend(&(unroll_attention){.struct_size = sizeof(unroll_attention), .query_size = 4, .values = p.source},
                    p.h[0], NULL)
          .graph);
  REFUSED(UNROLL_E_SHAPE, "reward missing", , unroll_reinforce_loss(p.h[0], unroll_none(), unroll_none(), 0).graph);
  REFUSED(UNROLL_E_SHAPE, "expected [T,B,V]", , unroll_sequence_log_prob(p.h[0], p.inputs).graph);
  REFUSED(UNROLL_E_INVALID, "c is missing", ,
          unroll_cell_step(p.h[0], "", UNROLL_CELL_LSTM, 0, 3, (unroll_cell_state){.h = p.h[0]}).h.graph);
}

int main(void) {
  const struct CMUnitTest tests[] = {DEVICE_TESTS(estimator_is_the_enumerated_gradient),
                                     DEVICE_TESTS(reinforce_loss),
                                     DEVICE_TESTS(updates_raise_the_reward),
                                     DEVICE_TESTS(schedules),
                                     DEVICE_TESTS(many_to_one),
                                     DEVICE_TESTS(cell_step_is_the_layer),
                                     DEVICE_TESTS(bridge),
                                     cmocka_unit_test(no_memory),
                                     cmocka_unit_test(wrong_decoders),
                                     cmocka_unit_test(wrong_cells),
                                     cmocka_unit_test(wrong_others)};
  return cmocka_run_group_tests(tests, devices_open, devices_close);
}
