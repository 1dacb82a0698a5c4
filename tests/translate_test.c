/* SPDX-License-Identifier: Apache-2.0 */
/* Translators: what they learn, say, and score; words to be said backwards are the task. */
#include "translate_support.h"

/* ---- distances ---- */

static int64_t distance(const char *a, const char *b) {
  int32_t x[600], y[600];
  const int64_t n = (int64_t)strlen(a), m = (int64_t)strlen(b);
  for (int64_t i = 0; i < n; i++)
    x[i] = a[i];
  for (int64_t i = 0; i < m; i++)
    y[i] = b[i];
  return unroll_edit_distance(x, n, y, m);
}

/* Examples that stand in textbooks, such as Jurafsky & Martin's (with substitutions that cost 1), and others. */
static void known_distances(void **state) {
  (void)state;
  static const struct {
    const char *a, *b;
    int64_t distance;
  } known[] = {{"kitten", "sitting", 3},
               {"saturday", "sunday", 3},
               {"intention", "execution", 5},
               {"flaw", "lawn", 2},
               {"gumbo", "gambol", 2},
               {"", "abc", 3},
               {"abc", "", 3},
               {"", "", 0},
               {"abcdef", "abcdef", 0},
               {"ab", "ba", 2},
               {"rosettacode", "raisethysword", 8}};
  for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
    assert_int_equal(distance(known[i].a, known[i].b), known[i].distance);
    assert_int_equal(distance(known[i].b, known[i].a), known[i].distance);
  }
  char a[520], b[520]; /* past what stands on the stack: every second letter is gone */
  for (int i = 0; i < 512; i++)
    a[i] = (char)('a' + i % 26);
  for (int i = 0; i < 256; i++)
    b[i] = a[2 * i];
  a[512] = b[256] = '\0';
  assert_int_equal(distance(a, b), 256);
  assert_int_equal(distance(b, a), 256);
}

/* ---- what is computed ---- */

static const float *parameter(const unroll_safetensors *file, const char *name) {
  unroll_stored_tensor t;
  assert_ok(unroll_safetensors_find(file, name, &t, &err));
  return t.data;
}

/* y = W·x + y, W [n,m] */
static void add_product(const float *W, const double *x, int n, int m, double *y) {
  for (int i = 0; i < n; i++)
    for (int k = 0; k < m; k++)
      y[i] += (double)W[i * m + k] * x[k];
}

enum { WIDTH = 10, EMBEDDED = 7, MOST_TOKENS = 12 };

/* h = tanh(W_x·embed[id] + b + W_h·h (+ W_c·c)), of the encoder, or of the decoder, which has a context. */
static void step_by_hand(const unroll_safetensors *file, const char *who, const float *embed, int32_t id,
                         const double *read, double *h) {
  char name[40];
  double x[EMBEDDED], next[WIDTH];
  for (int k = 0; k < EMBEDDED; k++)
    x[k] = (double)embed[id * EMBEDDED + k];
  snprintf(name, sizeof name, "%s.b.0.0", who);
  for (int i = 0; i < WIDTH; i++)
    next[i] = (double)parameter(file, name)[i];
  snprintf(name, sizeof name, "%s.W_x.0.0", who);
  add_product(parameter(file, name), x, WIDTH, EMBEDDED, next);
  snprintf(name, sizeof name, "%s.W_h.0.0", who);
  add_product(parameter(file, name), h, WIDTH, WIDTH, next);
  if (read)
    add_product(parameter(file, "decoder.W_c.0.0"), read, WIDTH, WIDTH, next);
  for (int i = 0; i < WIDTH; i++)
    h[i] = tanh(next[i]);
}

struct by_hand {
  int n; /* tokens, </s> counted */
  int32_t ids[MOST_TOKENS];
  double log_prob, weights[MOST_TOKENS][LONGEST];
};

/* Greedy: encoder, dot-product attention of h_{t-1}, decoder, in double. */
static struct by_hand translate_by_hand(const unroll_safetensors *file, const unroll_translator_info *info,
                                        const int32_t *source, int n) {
  struct by_hand r = {.n = 0};
  const int V = unroll_tokens_count(info->targets);
  const int32_t end = unroll_tokens_special(info->targets, UNROLL_TOKEN_END);
  double states[LONGEST][WIDTH], h[WIDTH] = {0};
  for (int s = 0; s < n; s++) {
    step_by_hand(file, "encoder", parameter(file, "embed.weight"), source[s], NULL, h);
    memcpy(states[s], h, sizeof h);
  }
  for (int32_t id = end; r.n < MOST_TOKENS && (r.n == 0 || id != end); r.n++) {
    double *a = r.weights[r.n], sum = 0, read[WIDTH] = {0}, logits[16], all = 0;
    for (int s = 0; s < n; s++) {
      a[s] = 0;
      for (int i = 0; i < WIDTH; i++)
        a[s] += h[i] * states[s][i];
      sum += a[s] = exp(a[s]);
    }
    for (int s = 0; s < n; s++) {
      a[s] /= sum;
      for (int i = 0; i < WIDTH; i++)
        read[i] += a[s] * states[s][i];
    }
    step_by_hand(file, "decoder", parameter(file, "decoder.embed.weight"), id, read, h);
    for (int v = 0; v < V; v++)
      logits[v] = (double)parameter(file, "decoder.out.b")[v];
    add_product(parameter(file, "decoder.out.W"), h, V, WIDTH, logits);
    id = 0;
    for (int32_t v = 0; v < V; v++) {
      id = logits[v] > logits[id] ? v : id;
      all += exp(logits[v]);
    }
    r.log_prob += logits[id] - log(all);
    r.ids[r.n] = id;
  }
  return r;
}

struct against {
  const unroll_safetensors *file;
  unroll_translator_info info;
  int n;
};
static int compare(void *ctx, int64_t i, const unroll_translation *x) {
  struct against *a = ctx;
  const struct by_hand r = translate_by_hand(a->file, &a->info, x->source, (int)x->n_source);
  (void)i;
  if (r.n > MOST_TOKENS - 2) /* by hand it was cut elsewhere */
    return 0;
  assert_int_equal(x->n + x->ended, r.n);
  for (int t = 0; t < r.n; t++) {
    assert_true(t == x->n || x->ids[t] == r.ids[t]);
    for (int s = 0; s < x->n_source; s++) /* float32 states over 9 + 11 steps */
      assert_true(fabs((double)x->weights[t * x->n_source + s] - r.weights[t][s]) < 2e-5);
  }
  assert_true(fabs(x->log_prob - r.log_prob) < 1e-4);
  a->n++;
  return 0;
}

static void translations_by_hand(void **state) {
  (void)state;
  static struct seen seen;
  unroll_pairs *pairs = word_pairs(0), *other = word_pairs(2);
  unroll_translator_options o = toy(UNROLL_CELL_RNN);
  o.rnn.hidden = WIDTH;
  o.embedding = EMBEDDED;
  o.bidirectional = 0;
  o.attention = UNROLL_ATTENTION_DOT;
  unroll_translator *t = new_translator(pairs, &o);
  run_to(t, 150, &seen);
  assert_ok(unroll_translator_save(t, in_folder("m"), &err));
  unroll_safetensors *file;
  assert_ok(unroll_safetensors_open(in_folder("m"), NULL, &file, &err));
  struct against against = {file, unroll_translator_describe(t), 0};
  const unroll_translate_options way = {.struct_size = sizeof way, .attention = 1};
  assert_ok(unroll_translator_translate(t, unroll_pairs_sources(other), PAIRS, &way, compare, &against, &err));
  assert_true(against.n > PAIRS / 2);
  unroll_safetensors_close(file);
  unroll_translator_destroy(t);
  unroll_pairs_destroy(other);
  unroll_pairs_destroy(pairs);
}

/* ---- learning ---- */

/* Ninety words can be known by heart, whatever the attention, the context and the cell. */
static void every_attention_learns(void **state) {
  (void)state;
  static const struct {
    int32_t cell, attention, context, both, layers;
  } kinds[] = {{UNROLL_CELL_GRU, UNROLL_ATTENTION_ADDITIVE, UNROLL_CONTEXT_BEFORE, 1, 1},
               {UNROLL_CELL_LSTM, UNROLL_ATTENTION_MULTIPLICATIVE, UNROLL_CONTEXT_FEEDING, 1, 1},
               {UNROLL_CELL_GRU_AFTER, UNROLL_ATTENTION_DOT, UNROLL_CONTEXT_AFTER, 1, 1},
               {UNROLL_CELL_LSTM, UNROLL_ATTENTION_SCALED_DOT, UNROLL_CONTEXT_BEFORE, 0, 1},
               {UNROLL_CELL_RNN, UNROLL_ATTENTION_ADDITIVE, UNROLL_CONTEXT_AFTER, 1, 1},
               {UNROLL_CELL_GRU, UNROLL_ATTENTION_NONE, UNROLL_CONTEXT_BEFORE, 1, 2}};
  static struct seen seen;
  unroll_pairs *pairs = word_pairs(0);
  for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
    unroll_translator_options o = toy(kinds[i].cell);
    o.attention = kinds[i].attention;
    o.context = kinds[i].context;
    o.bidirectional = kinds[i].both;
    o.rnn.layers = kinds[i].layers;
    unroll_translator *t = new_translator(pairs, &o);
    run_to(t, 400, &seen);
    float early = 0, late = 0;
    for (int k = 0; k < 10; k++) {
      early += seen.losses[k] / 10;
      late += seen.losses[390 + k] / 10;
    }
    if (!(late < 0.5f * early))
      print_error("case %d: %g to %g\n", (int)i, (double)early, (double)late);
    assert_true(early > 1 && late < 0.5f * early && seen.metrics[399] > 0.8);
    assert_true(isnan(seen.validation[0]) && !isnan(seen.validation[399]));
    unroll_translator_destroy(t);
  }
  unroll_pairs_destroy(pairs);
}

/* Scheduled sampling, a curriculum, accumulation and dropout at once; then REINFORCE, with either baseline. */
static void resumed_is_the_same_as_straight(void **state) {
  (void)state;
  static struct seen straight, halves;
  static struct said said[2];
  unroll_pairs *pairs = word_pairs(0), *other = word_pairs(1);
  unroll_translator_options o = toy(UNROLL_CELL_GRU);
  o.rnn.dropout = 0.2;
  o.sampling = (unroll_sampling_schedule){sizeof o.sampling, UNROLL_SAMPLING_LINEAR, 0.9, 0.01, 0.3};
  o.sampling_pick = UNROLL_PICK_SAMPLE;
  o.steps_start = 3;
  o.steps_increment = 2;
  o.training.accumulate = 2;
  unroll_translator *t = new_translator(pairs, &o);
  run_to(t, 50, &straight);
  assert_ok(unroll_translator_save(t, in_folder("straight"), &err));
  unroll_translator_destroy(t);
  t = new_translator(pairs, &o);
  run_to(t, 11, &halves); /* within the curriculum's third epoch */
  assert_ok(unroll_translator_save(t, in_folder("half"), &err));
  unroll_translator_destroy(t);
  t = load_translator(in_folder("half"));
  const unroll_train_options run = {.struct_size = sizeof run, .updates = 20};
  assert_error(unroll_translator_train(t, &run, &err), UNROLL_E_STATE, "resumed with its pairs");
  assert_error(unroll_translator_resume(t, other, &err), UNROLL_E_STATE, "other pairs than the model was trained on");
  assert_ok(unroll_translator_resume(t, pairs, &err));
  assert_error(unroll_translator_resume(t, pairs, &err), UNROLL_E_STATE, "has its pairs already");
  run_to(t, 50, &halves);
  assert_ok(unroll_translator_save(t, in_folder("halves"), &err));
  assert_memory_equal(straight.losses, halves.losses, 50 * sizeof(float));
  assert_memory_equal(straight.norms, halves.norms, 50 * sizeof(float));
  assert_same_files(in_folder("straight"), in_folder("halves"));
  unroll_translator_destroy(t);

  for (int32_t baseline = UNROLL_BASELINE_MEAN; baseline <= UNROLL_BASELINE_GREEDY; baseline++) {
    const unroll_translator_reinforce_options reinforce = {
        .struct_size = sizeof reinforce, .baseline = baseline, .decay = 0.75, .seed = 4};
    for (int cut = 0; cut < 2; cut++) {
      t = load_translator(in_folder("halves"));
      assert_ok(unroll_translator_reinforce(t, &reinforce, &err));
      assert_true(isnan(unroll_translator_describe(t).best_validation_loss));
      assert_ok(unroll_translator_resume(t, pairs, &err));
      if (cut) {
        run_to(t, 57, &halves);
        assert_ok(unroll_translator_save(t, in_folder("half"), &err));
        unroll_translator_destroy(t);
        t = load_translator(in_folder("half"));
        assert_int_equal(unroll_translator_describe(t).baseline, baseline);
        assert_error(unroll_translator_reinforce(t, &reinforce, &err), UNROLL_E_STATE, "by REINFORCE already");
        assert_ok(unroll_translator_resume(t, pairs, &err));
        assert_error(unroll_translator_reinforce(t, &reinforce, &err), UNROLL_E_STATE, "before it is resumed");
      }
      run_to(t, 66, cut ? &halves : &straight);
      translate_all(t, pairs, NULL, &said[cut]); /* files differ by when they were evaluated */
      unroll_translator_destroy(t);
    }
    assert_memory_equal(straight.losses + 50, halves.losses + 50, 16 * sizeof(float));
    assert_memory_equal(&said[0], &said[1], sizeof said[0]);
  }
  unroll_pairs_destroy(other);
  unroll_pairs_destroy(pairs);
}

/* Both devices draw the same numbers. Losses are sums of float32 in another order, over 40 updates of Adam. */
static void losses_are_those_of_opencl(void **state) {
  (void)state;
  unroll_device *opencl = NULL;
  if (unroll_device_open(context, "opencl", NULL, 0, &opencl, NULL) != UNROLL_OK)
    skip();
  static struct seen here, there;
  unroll_pairs *pairs = word_pairs(0);
  for (int kind = 0; kind < 2; kind++) {
    unroll_translator_options o = toy(kind ? UNROLL_CELL_LSTM : UNROLL_CELL_GRU);
    o.rnn.dropout = 0.2;
    o.steps_start = 4;
    o.steps_increment = 2;
    if (kind == 0) {
      o.sampling = (unroll_sampling_schedule){sizeof o.sampling, UNROLL_SAMPLING_EXPONENTIAL, 1, 0.98, 0.1};
      o.sampling_pick = UNROLL_PICK_SAMPLE;
    } else {
      o.attention = UNROLL_ATTENTION_MULTIPLICATIVE;
      o.context = UNROLL_CONTEXT_FEEDING;
    }
    o.training.schedule.base = 0.003;
    unroll_translator *a = new_translator(pairs, &o), *b = new_on(opencl, pairs, &o);
    run_to(a, 40, &here);
    run_to(b, 40, &there);
    for (int i = 0; i < 40; i++)
      assert_true(fabs((double)here.losses[i] - (double)there.losses[i]) < 1e-3);
    unroll_translator_destroy(a);
    unroll_translator_destroy(b);
  }
  unroll_pairs_destroy(pairs);
  unroll_device_close(opencl);
}

/* A batch in parts, the last one of which has fewer pairs than rows, is the same update. */
static void parts_make_the_same_update(void **state) {
  (void)state;
  static struct seen whole, cut;
  unroll_pairs *pairs = word_pairs(0);
  for (int parts = 1; parts <= 4; parts += 3) {
    unroll_translator_options o = toy(UNROLL_CELL_LSTM);
    o.rnn.dropout = 0.2; /* masks belong to a pair */
    o.training.accumulate = parts;
    unroll_translator *t = new_translator(pairs, &o);
    run_to(t, 30, parts == 1 ? &whole : &cut);
    unroll_translator_destroy(t);
  }
  for (int i = 0; i < 30; i++) { /* float32 sums in another order, over 30 updates of Adam */
    assert_true(fabs((double)whole.losses[i] - (double)cut.losses[i]) < 1e-4);
    assert_true(fabs(whole.metrics[i] - cut.metrics[i]) < 0.02); /* near ties may fall either way */
  }
  unroll_pairs_destroy(pairs);
}

static int see_epochs(void *ctx, const unroll_train_progress *p) {
  double *epochs = ctx;
  assert_int_equal(p->n_updates, 1);
  epochs[p->update] = p->epoch;
  return 0;
}

/* An epoch ends when the pairs that are short enough for it have been there once. */
static void lengths_grow(void **state) {
  (void)state;
  enum { START = 2, INCREMENT = 3, EPOCHS = 5 };
  unroll_pairs *pairs = word_pairs(0);
  unroll_translator_options o = toy(UNROLL_CELL_GRU);
  o.steps_start = START;
  o.steps_increment = INCREMENT;
  int64_t order[PAIRS], counts[UNROLL_PARTS], expected = 0;
  assert_ok(unroll_split(unroll_pairs_keys(pairs), PAIRS, o.training.seed, o.training.validation, o.testing, order,
                         counts, NULL, &err));
  static double epochs[MOST];
  unroll_translator *t = new_translator(pairs, &o);
  const unroll_train_options run = {
      .struct_size = sizeof run, .report_every = 1, .epochs = EPOCHS, .progress = see_epochs, .ctx = epochs};
  assert_ok(unroll_translator_train(t, &run, &err));
  for (int e = 0; e < EPOCHS; e++) {
    int64_t n = 0;
    for (int64_t i = 0; i < counts[UNROLL_TRAINING]; i++)
      n += (int64_t)strlen(unroll_pairs_sources(pairs)[order[i]]) <= START + e * INCREMENT;
    expected += (n + o.training.batch - 1) / o.training.batch;
    assert_true(epochs[expected] == e + 1);
  }
  assert_int_equal(unroll_translator_describe(t).update, expected);
  unroll_translator_destroy(t);
  unroll_pairs_destroy(pairs);
}

/* The truth at update 0 alone is that of a teacher there, and of none from then on, over the ends of epochs. */
static void sampling_goes_by_the_update(void **state) {
  (void)state;
  static struct seen taught, at_first, never, drawn;
  unroll_pairs *pairs = word_pairs(0);
  unroll_translator_options o = toy(UNROLL_CELL_GRU);
  o.training.optimizer = (unroll_optimizer_attr){.kind = UNROLL_SGD};
  o.training.schedule.base = 1e-30;
  o.training.batch = 32;
  struct seen *const all[] = {&taught, &at_first, &never, &drawn};
  for (int k = 0; k < 4; k++) {
    o.sampling_pick = k == 3 ? UNROLL_PICK_SAMPLE : UNROLL_PICK_GREEDY;
    o.sampling.start = k < 2;
    o.sampling.rate = k == 1;
    unroll_translator *t = new_translator(pairs, &o);
    run_to(t, 8, all[k]);
    unroll_translator_destroy(t);
  }
  assert_true(fabs((double)taught.losses[0] - (double)at_first.losses[0]) < 1e-5); /* the sums' order differs */
  assert_true(fabs((double)taught.losses[0] - (double)never.losses[0]) > 1e-4);
  assert_memory_equal(at_first.losses + 1, never.losses + 1, 7 * sizeof(float));
  int other = 0; /* a short batch may draw what is likeliest */
  for (int i = 0; i < 8; i++)
    other += never.losses[i] != drawn.losses[i];
  assert_true(other >= 6);
  unroll_pairs_destroy(pairs);
}

/* What a model loses by dropout it loses in training alone; without attention only the decoder has what to drop. */
static void dropout_is_of_the_training(void **state) {
  (void)state;
  static struct seen seen[2];
  unroll_pairs *pairs = word_pairs(0);
  for (int32_t attention = UNROLL_ATTENTION_NONE; attention <= UNROLL_ATTENTION_ADDITIVE; attention++) {
    double loss[2], metric[2];
    for (int k = 0; k < 2; k++) {
      unroll_translator_options o = toy(UNROLL_CELL_GRU);
      o.attention = attention;
      o.rnn.dropout = k ? 0.5 : 0;
      unroll_translator *t = new_translator(pairs, &o);
      assert_ok(unroll_translator_evaluate(t, &loss[k], &metric[k], &err));
      run_to(t, 1, &seen[k]);
      unroll_translator_destroy(t);
    }
    assert_true(loss[0] == loss[1] && metric[0] == metric[1]);
    assert_true(fabs((double)seen[0].losses[0] - (double)seen[1].losses[0]) > 0.01);
  }
  unroll_pairs_destroy(pairs);
}

/* With a rate that moves nothing the mean of an epoch's losses, by tokens, is the same in every epoch and for every
 * size of batches, whichever graphs those take. */
static void an_epoch_has_each_pair_once(void **state) {
  (void)state;
  static struct seen seen;
  unroll_pairs *pairs = word_pairs(0);
  unroll_translator_options o = toy(UNROLL_CELL_GRU);
  o.training.optimizer = (unroll_optimizer_attr){.kind = UNROLL_SGD};
  o.training.schedule.base = 1e-30;
  o.training.validation = o.testing = 0;
  double means[2], loss, metric;
  o.training.batch = 1;
  unroll_translator *t = new_translator(pairs, &o);
  run_to(t, 2 * PAIRS, &seen);
  assert_int_equal(unroll_translator_describe(t).updates_per_epoch, PAIRS);
  int same = 0;
  for (int e = 0; e < 2; e++) {
    means[e] = 0;
    for (int i = 0; i < PAIRS; i++) /* of single pairs no length is known here: any order has the same sum */
      means[e] += (double)seen.losses[e * PAIRS + i] / PAIRS;
  }
  for (int i = 0; i < PAIRS; i++)
    same += seen.losses[i] == seen.losses[PAIRS + i];
  assert_true(fabs(means[0] - means[1]) < 1e-6 && same < PAIRS / 4);
  assert_error(unroll_translator_evaluate(t, &loss, &metric, &err), UNROLL_E_STATE, "validation is 0");
  const unroll_padding p = unroll_translator_describe(t).padding;
  assert_true(p.real == p.padded); /* batches of one */
  unroll_translator_destroy(t);
  /* The validation's mean is by tokens: that of single pairs, weighed with their lengths, of the same model. */
  double by_size[2];
  for (int k = 0; k < 2; k++) {
    o = toy(UNROLL_CELL_GRU);
    o.training.batch = k ? 16 : 1;
    t = new_translator(pairs, &o);
    assert_ok(unroll_translator_evaluate(t, &by_size[k], &metric, &err));
    unroll_translator_destroy(t);
  }
  assert_true(fabs(by_size[0] - by_size[1]) < 1e-5);
  unroll_pairs_destroy(pairs);
}

/* ---- translating ---- */

static unroll_translator *half_learnt(const unroll_pairs *pairs, uint64_t updates) {
  static struct seen seen;
  const unroll_translator_options o = toy(UNROLL_CELL_GRU);
  unroll_translator *t = new_translator(pairs, &o);
  run_to(t, updates, &seen);
  return t;
}

static void ways_of_translating(void **state) {
  (void)state;
  unroll_pairs *pairs = word_pairs(0);
  unroll_translator *t = half_learnt(pairs, 120);
  static struct said greedy, one, four, drawn, again, loaded;
  unroll_translate_options o = {.struct_size = sizeof o};
  translate_all(t, pairs, NULL, &greedy);
  o.beam = 1;
  translate_all(t, pairs, &o, &one);
  o.beam = 4;
  translate_all(t, pairs, &o, &four);
  double gain = 0;
  int right = 0, ended = 0;
  for (int i = 0; i < PAIRS; i++) {
    assert_string_equal(greedy.texts[i], one.texts[i]); /* a beam of 1 is greedy, */
    assert_true(fabs(greedy.log_probs[i] - one.log_probs[i]) < 1e-4);
    if (greedy.ended[i] && four.ended[i])
      gain += four.log_probs[i] - greedy.log_probs[i]; /* a wider one finds what is likelier on the whole */
    right += strcmp(greedy.texts[i], unroll_pairs_targets(pairs)[i]) == 0;
    ended += greedy.ended[i];
  }
  assert_true(gain > 0 && right > PAIRS / 8 && ended > PAIRS / 2);
  o = (unroll_translate_options){.struct_size = sizeof o, .temperature = 1, .seed = 9};
  translate_all(t, pairs, &o, &drawn);
  translate_all(t, pairs, &o, &again);
  assert_memory_equal(&drawn, &again, sizeof drawn);
  o.seed = 10;
  translate_all(t, pairs, &o, &again);
  int same = 0, as_greedy = 0;
  for (int i = 0; i < PAIRS; i++) {
    same += strcmp(drawn.texts[i], again.texts[i]) == 0;
    as_greedy += strcmp(drawn.texts[i], greedy.texts[i]) == 0;
  }
  assert_true(same < PAIRS * 3 / 4 && as_greedy < PAIRS * 3 / 4);
  o.top_k = 1; /* of one alone there is nothing to draw */
  translate_all(t, pairs, &o, &again);
  for (int i = 0; i < PAIRS; i++)
    assert_string_equal(again.texts[i], greedy.texts[i]);
  /* What is long is cut. */
  o = (unroll_translate_options){.struct_size = sizeof o, .most = 2};
  translate_all(t, pairs, &o, &again);
  for (int i = 0; i < PAIRS; i++) {
    assert_true(strlen(again.texts[i]) <= 2 && strncmp(again.texts[i], greedy.texts[i], strlen(again.texts[i])) == 0);
    assert_int_equal(again.ended[i], greedy.ended[i] && strlen(greedy.texts[i]) <= 1);
  }
  /* A file says the same, before and after it is resumed. */
  assert_ok(unroll_translator_save(t, in_folder("m"), &err));
  unroll_translator_destroy(t);
  t = load_translator(in_folder("m"));
  translate_all(t, pairs, NULL, &loaded);
  assert_memory_equal(&loaded, &greedy, sizeof loaded);
  assert_ok(unroll_translator_resume(t, pairs, &err));
  translate_all(t, pairs, NULL, &loaded);
  assert_memory_equal(&loaded, &greedy, sizeof loaded);
  static struct seen seen;
  run_to(t, 140, &seen); /* and what was compiled before sees the parameters of now */
  translate_all(t, pairs, NULL, &loaded);
  double moved = 0;
  for (int i = 0; i < PAIRS; i++)
    moved += fabs(loaded.log_probs[i] - greedy.log_probs[i]);
  assert_true(moved > 0.1);
  unroll_translator_destroy(t);
  unroll_pairs_destroy(pairs);
}

struct looked {
  int n;
  float weights[3][16 * 16];
  int64_t rows[3], columns[3];
};
static int look(void *ctx, int64_t i, const unroll_translation *x) {
  struct looked *l = ctx;
  assert_int_equal(i, l->n);
  l->rows[i] = x->n + x->ended;
  l->columns[i] = x->n_source;
  assert_true(l->rows[i] * l->columns[i] <= 256 && x->weights);
  memcpy(l->weights[i], x->weights, (size_t)(l->rows[i] * l->columns[i]) * sizeof(float));
  for (int64_t r = 0; r < l->rows[i]; r++) {
    double sum = 0;
    for (int64_t c = 0; c < l->columns[i]; c++)
      sum += (double)x->weights[r * l->columns[i] + c];
    assert_true(fabs(sum - 1) < 1e-5);
  }
  l->n++;
  return 0;
}

/* Weights of a batch are those of each alone, over the source's own tokens. */
static void weights_can_be_read(void **state) {
  (void)state;
  unroll_pairs *pairs = word_pairs(0);
  unroll_translator *t = half_learnt(pairs, 60);
  static struct looked all, one;
  static const char *const words[] = {"abcdeab", "e", "acbd"};
  unroll_translate_options o = {.struct_size = sizeof o, .attention = 1, .beam = 2, .most = 12};
  all.n = 0;
  assert_ok(unroll_translator_translate(t, words, 3, &o, look, &all, &err));
  for (int i = 0; i < 3; i++) {
    assert_int_equal(all.columns[i], strlen(words[i]));
    one.n = 0;
    assert_ok(unroll_translator_translate(t, words + i, 1, &o, look, &one, &err));
    assert_true(all.rows[i] == one.rows[0] && all.columns[i] == one.columns[0]);
    for (int64_t k = 0; k < one.rows[0] * one.columns[0]; k++)
      assert_true(fabsf(one.weights[0][k] - all.weights[i][k]) < 1e-5f); /* sums over more columns of zeros */
  }
  assert_true(all.columns[1] == 1 && all.weights[1][0] == 1);
  unroll_translator_destroy(t);
  unroll_pairs_destroy(pairs);
}

/* ---- scoring ---- */

struct judged {
  int n;
  char source[PAIRS][16], translation[PAIRS][64], target[PAIRS][16];
  int64_t errors, length;
};
static int judge(void *ctx, const unroll_translator_scored *x) {
  struct judged *j = ctx;
  snprintf(j->source[j->n], 16, "%s", x->source);
  snprintf(j->translation[j->n], 64, "%s", x->translation);
  snprintf(j->target[j->n], 16, "%s", x->target);
  assert_int_equal(x->errors, distance(x->translation, x->target));
  assert_int_equal(x->length, strlen(x->target));
  j->errors += x->errors;
  j->length += x->length;
  j->n++;
  return 0;
}

static void scores(void **state) {
  (void)state;
  unroll_pairs *pairs = word_pairs(0), *several, *strange;
  unroll_translator *t = half_learnt(pairs, 120);
  static struct said said;
  static struct judged all, part;
  unroll_translator_score_info info, of_part;
  translate_all(t, pairs, NULL, &said);
  assert_ok(unroll_translator_score(t, pairs, -1, NULL, judge, &all, &info, &err));
  int64_t errors = 0, tokens = 0, right = 0;
  for (int i = 0; i < PAIRS; i++) {
    const char *target = unroll_pairs_targets(pairs)[i];
    assert_string_equal(all.translation[i], said.texts[i]);
    errors += distance(said.texts[i], target);
    tokens += (int64_t)strlen(target);
    right += strcmp(said.texts[i], target) == 0;
  }
  assert_true(info.count == PAIRS && info.tokens == tokens && all.errors == errors && all.length == tokens);
  assert_true(fabs(info.error_rate - (double)errors / (double)tokens) < 1e-12);
  assert_true(fabs(info.accuracy - (double)right / PAIRS) < 1e-12);
  /* The parts are those of the split; together they are all. */
  int64_t order[PAIRS], counts[UNROLL_PARTS], first = 0;
  uint64_t hash;
  assert_ok(unroll_split(unroll_pairs_keys(pairs), PAIRS, 3, 0.2, 0.1, order, counts, &hash, &err));
  assert_true(unroll_translator_describe(t).split_hash == hash);
  for (int32_t k = 0; k < UNROLL_PARTS; k++) {
    part.n = 0;
    assert_ok(unroll_translator_score(t, pairs, k, NULL, judge, &part, &of_part, &err));
    assert_int_equal(of_part.count, counts[k]);
    for (int i = 0; i < part.n; i++)
      assert_string_equal(part.source[i], unroll_pairs_sources(pairs)[order[first + i]]);
    first += counts[k];
  }
  /* The baseline, by hand. */
  int64_t table[5][5] = {{0}}, base_errors = 0, base_right = 0;
  for (int64_t i = 0; i < counts[UNROLL_TRAINING]; i++)
    for (const char *x = unroll_pairs_sources(pairs)[order[i]], *y = unroll_pairs_targets(pairs)[order[i]]; *x;
         x++, y++)
      table[*x - 'a'][*y - 'a']++;
  for (int i = 0; i < PAIRS; i++) {
    char guess[16] = "";
    const char *x = unroll_pairs_sources(pairs)[i];
    for (int k = 0; x[k]; k++) {
      int best = 0;
      for (int y = 1; y < 5; y++)
        best = table[x[k] - 'a'][y] > table[x[k] - 'a'][best] ? y : best;
      guess[k] = (char)('a' + best);
    }
    base_errors += distance(guess, unroll_pairs_targets(pairs)[i]);
    base_right += strcmp(guess, unroll_pairs_targets(pairs)[i]) == 0;
  }
  assert_true(fabs(info.baseline_error_rate - (double)base_errors / (double)tokens) < 1e-12);
  assert_true(fabs(info.baseline_accuracy - (double)base_right / PAIRS) < 1e-12);
  /* Of several targets the nearest counts, whichever comes first; a token that the model lacks is an error. */
  static char text_[16384];
  snprintf(text_, sizeof text_, "%s\tzz%s\n%s\t%s\n%s\t%sab\n", all.source[4], said.texts[4], all.source[4],
           said.texts[4], all.source[7], said.texts[7]);
  several = load_pairs(text_);
  assert_ok(unroll_translator_score(t, several, -1, NULL, NULL, NULL, &of_part, &err));
  assert_int_equal(of_part.count, 2);
  assert_true(fabs(of_part.accuracy - 0.5) < 1e-12);
  assert_true(fabs(of_part.error_rate - 2.0 / (double)(strlen(said.texts[4]) + strlen(said.texts[7]) + 2)) < 1e-12);
  strange = load_pairs("abc\tzzz\n");
  assert_ok(unroll_translator_score(t, strange, -1, NULL, NULL, NULL, &of_part, &err));
  assert_true(of_part.error_rate >= 1 && of_part.baseline_error_rate == 1);
  assert_error(unroll_translator_score(t, strange, 3, NULL, NULL, NULL, &of_part, &err), UNROLL_E_RANGE, "part 3");
  int empty = 0;
  for (int32_t k = 0; k < UNROLL_PARTS; k++)
    empty += unroll_translator_score(t, strange, k, NULL, NULL, NULL, &of_part, NULL) == UNROLL_E_RANGE;
  assert_int_equal(empty, 2);
  unroll_pairs_destroy(several);
  snprintf(text_, sizeof text_, "%s\t%sab\n%s\t%sa\n%s\ta%s\n", all.source[4], said.texts[4], all.source[4],
           said.texts[4], all.source[4], said.texts[4] + 1); /* 2, 1 and, with one token less, 1 or 0 */
  several = load_pairs(text_);
  assert_ok(unroll_translator_score(t, several, -1, NULL, NULL, NULL, &of_part, &err));
  const bool begins = said.texts[4][0] == 'a';
  assert_int_equal(of_part.tokens, strlen(said.texts[4]) + !begins); /* of two that are as near, the first */
  unroll_pairs_destroy(strange);
  unroll_pairs_destroy(several);
  unroll_translator_destroy(t);
  unroll_pairs_destroy(pairs);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(known_distances),
                                     cmocka_unit_test(translations_by_hand),
                                     cmocka_unit_test(every_attention_learns),
                                     cmocka_unit_test(resumed_is_the_same_as_straight),
                                     cmocka_unit_test(losses_are_those_of_opencl),
                                     cmocka_unit_test(parts_make_the_same_update),
                                     cmocka_unit_test(lengths_grow),
                                     cmocka_unit_test(sampling_goes_by_the_update),
                                     cmocka_unit_test(dropout_is_of_the_training),
                                     cmocka_unit_test(an_epoch_has_each_pair_once),
                                     cmocka_unit_test(ways_of_translating),
                                     cmocka_unit_test(weights_can_be_read),
                                     cmocka_unit_test(scores)};
  return cmocka_run_group_tests(tests, begin, end);
}
