/* SPDX-License-Identifier: Apache-2.0 */
/* Classifiers of sequences on the reference device: what they compute, learn, save, and refuse. */
#include <stdbool.h>
#include <unroll/classify.h>

#include "train_support.h"

enum { SEQUENCES = 60, FEATURES = 3, CLASSES = 3, LONGEST = 6 };
static const char *const names[CLASSES] = {"falls", "rises, or so", "stays"};

static float number_of(int sequence, int t, int f) {
  return (float)(((sequence * 7 + t * 5 + f * 3 + sequence * t) * 37 % 23) - 11) / 4 + (float)(f * 100);
}

/* Records are steps; the label is that of the sum of the first feature. shift: another file. */
static unroll_sequences *load_sequences(int shift, int shortest, const unroll_tokens *labels, bool labelled) {
  char *all = malloc(1 << 16), *at = all;
  assert_non_null(all);
  at += sprintf(at, "who,%sa,b,c\n", labelled ? "what," : "");
  for (int i = 0; i < SEQUENCES; i++) {
    const int length = shortest + (i * 11 + shift) % (LONGEST - shortest + 1);
    float sum = 0;
    for (int t = 0; t < length; t++)
      sum += number_of(i + shift, t, 0);
    const int label = sum > 1 ? 1 : sum < -1 ? 0 : 2;
    for (int t = 0; t < length; t++) {
      at += sprintf(at, "s%d,", i);
      if (labelled)
        at += sprintf(at, "\"%s\",", names[label]);
      at += sprintf(at, "%.9g,%.9g,%.9g\n", (double)number_of(i + shift, t, 0), (double)number_of(i + shift, t, 1),
                    (double)number_of(i + shift, t, 2));
    }
  }
  put_file(in_folder("s.csv"), all, (size_t)(at - all));
  free(all);
  unroll_sequences *s = NULL;
  assert_ok(unroll_sequences_load(in_folder("s.csv"),
                                  &(unroll_labelled_options){.struct_size = sizeof(unroll_labelled_options),
                                                             .sequence = "who",
                                                             .label = labelled ? "what" : NULL,
                                                             .unlabelled = !labelled,
                                                             .labels = labels},
                                  NULL, &s, &err));
  return s;
}

static unroll_classifier_options toy(int32_t cell) {
  unroll_classifier_options o = unroll_classifier_options_default();
  o.rnn.cell = cell;
  o.rnn.hidden = 10;
  o.training.batch = 8;
  o.training.validation = 0.2;
  o.training.seed = 5;
  o.training.schedule.base = 0.02;
  return o;
}

static unroll_classifier *new_classifier(const unroll_sequences *s, const unroll_classifier_options *o) {
  unroll_classifier *c = NULL;
  assert_ok(unroll_classifier_create(&cpu, 1, s, o, NULL, &c, &err));
  return c;
}

RUN_TO(unroll_classifier)

/* ---- what is computed ---- */

/* The parameter's values, out of a saved file. */
static const float *parameter(const unroll_safetensors *file, const char *name) {
  unroll_stored_tensor t;
  assert_ok(unroll_safetensors_find(file, name, &t, &err));
  return t.data;
}

/* h = tanh(W_x·x + W_h·h + b) from either end, the last states of both, linear, softmax: in double, by hand. */
static void by_hand(const unroll_safetensors *file, const double *x, int T, const double *mean, const double *deviation,
                    int H, double *p) {
  double h[2][32], total = 0;
  for (int d = 0; d < 2; d++) {
    const float *Wx = parameter(file, d ? "rnn.W_x.0.1" : "rnn.W_x.0.0");
    const float *Wh = parameter(file, d ? "rnn.W_h.0.1" : "rnn.W_h.0.0");
    const float *b = parameter(file, d ? "rnn.b.0.1" : "rnn.b.0.0");
    memset(h[d], 0, sizeof h[d]);
    for (int k = 0; k < T; k++) {
      const int t = d ? T - 1 - k : k;
      double next[32];
      for (int i = 0; i < H; i++) {
        double a = (double)b[i];
        for (int f = 0; f < FEATURES; f++)
          a += (double)Wx[i * FEATURES + f] * (x[t * FEATURES + f] - mean[f]) / deviation[f];
        for (int j = 0; j < H; j++)
          a += (double)Wh[i * H + j] * h[d][j];
        next[i] = tanh(a);
      }
      memcpy(h[d], next, sizeof next);
    }
  }
  const float *W = parameter(file, "linear.W"), *b = parameter(file, "linear.b");
  for (int k = 0; k < CLASSES; k++) {
    double a = (double)b[k];
    for (int j = 0; j < 2 * H; j++)
      a += (double)W[k * 2 * H + j] * h[j / H][j % H];
    total += p[k] = exp(a);
  }
  for (int k = 0; k < CLASSES; k++)
    p[k] /= total;
}

/* Mean and deviation of the training part, which is told by the split; groups of `width` features together. */
static void statistics(const unroll_sequences *s, const unroll_classifier_options *o, int width, double *mean,
                       double *deviation) {
  int64_t order[SEQUENCES], counts[UNROLL_PARTS];
  assert_ok(unroll_split(unroll_sequences_keys(s), SEQUENCES, o->training.seed, o->training.validation, 0, order,
                         counts, NULL, &err));
  for (int f = 0; f < FEATURES; f++) {
    double n = 0, sum = 0, squares = 0;
    for (int64_t i = 0; i < counts[0]; i++)
      for (int t = 0; t < unroll_sequences_lengths(s)[order[i]]; t++)
        for (int g = f / width * width; g < f / width * width + width; g++) {
          const double v = unroll_sequences_values(s, order[i])[t * FEATURES + g];
          n++;
          sum += v;
          squares += v * v;
        }
    mean[f] = sum / n;
    deviation[f] = sqrt(squares / n - mean[f] * mean[f]);
  }
}

static void predictions_by_hand(void **state) {
  (void)state;
  const int32_t scalings[] = {UNROLL_SCALING_EACH, UNROLL_SCALING_TOGETHER, UNROLL_SCALING_NONE};
  unroll_sequences *s = load_sequences(0, 1, NULL, true), *other;
  for (int k = 0; k < 3; k++) {
    unroll_classifier_options o = toy(UNROLL_CELL_RNN);
    o.bidirectional = 1;
    o.scaling = scalings[k];
    double mean[FEATURES] = {0}, deviation[FEATURES] = {1, 1, 1};
    if (o.scaling != UNROLL_SCALING_NONE)
      statistics(s, &o, o.scaling == UNROLL_SCALING_EACH ? 1 : FEATURES, mean, deviation);
    struct seen seen;
    unroll_classifier *c = new_classifier(s, &o);
    run_to(c, 30, &seen);
    assert_ok(unroll_classifier_save(c, in_folder("m"), &err));
    unroll_safetensors *file;
    assert_ok(unroll_safetensors_open(in_folder("m"), NULL, &file, &err));
    other = load_sequences(4, 2, NULL, false); /* other lengths than those of the training, no labels, ragged batches */
    float p[SEQUENCES][CLASSES];
    assert_ok(unroll_classifier_predict(c, other, &p[0][0], &err));
    for (int i = 0; i < SEQUENCES; i++) {
      double expected[CLASSES];
      by_hand(file, unroll_sequences_values(other, i), unroll_sequences_lengths(other)[i], mean, deviation, 10,
              expected);
      for (int j = 0; j < CLASSES; j++)
        assert_true(fabs((double)p[i][j] - expected[j]) < 2e-5); /* float32 states over 6 steps, inputs up to 200 */
    }
    unroll_safetensors_close(file);
    unroll_sequences_destroy(other);
    unroll_classifier_destroy(c);
  }
  unroll_sequences_destroy(s);
}

static void scores_are_what_predictions_say(void **state) {
  (void)state;
  unroll_sequences *s = load_sequences(0, 1, NULL, true);
  unroll_classifier_options o = toy(UNROLL_CELL_GRU);
  unroll_classifier *c = new_classifier(s, &o);
  struct seen seen;
  run_to(c, 25, &seen);
  unroll_sequences *other = load_sequences(9, LONGEST, unroll_classifier_describe(c).labels, true); /* not ragged */
  float p[SEQUENCES][CLASSES];
  int64_t confusion[CLASSES][CLASSES], expected[CLASSES][CLASSES] = {{0}}, parts[UNROLL_PARTS], order[SEQUENCES];
  unroll_classifier_score_info score;
  assert_ok(unroll_classifier_predict(c, other, &p[0][0], &err));
  assert_ok(unroll_classifier_score(c, other, &confusion[0][0], &score, &err));
  double loss = 0, hits = 0, base = 0, base_hits = 0, counts[CLASSES] = {0};
  assert_ok(unroll_split(unroll_sequences_keys(s), SEQUENCES, o.training.seed, o.training.validation, 0, order, parts,
                         NULL, &err));
  for (int64_t i = 0; i < parts[0]; i++)
    counts[unroll_sequences_labels(s)[order[i]]]++;
  const int most = counts[0] >= counts[1] && counts[0] >= counts[2] ? 0 : counts[1] >= counts[2] ? 1 : 2;
  for (int i = 0; i < SEQUENCES; i++) {
    const int32_t label = unroll_sequences_labels(other)[i];
    int best = 0;
    for (int k = 1; k < CLASSES; k++)
      best = p[i][k] > p[i][best] ? k : best;
    expected[label][best]++;
    hits += best == label;
    loss -= log((double)p[i][label]) / SEQUENCES;
    base -= log((counts[label] + 1) / ((double)parts[0] + CLASSES)) / SEQUENCES;
    base_hits += label == most;
  }
  assert_memory_equal(confusion, expected, sizeof expected);
  assert_int_equal(score.count, SEQUENCES);
  assert_true(fabs(score.loss - loss) < 1e-6 && fabs(score.accuracy - hits / SEQUENCES) < 1e-12);
  assert_true(fabs(score.majority_loss - base) < 1e-12 &&
              fabs(score.majority_accuracy - base_hits / SEQUENCES) < 1e-12);
  const unroll_classifier_info info = unroll_classifier_describe(c);
  assert_int_equal(info.majority, most);
  assert_int_equal(info.train_count, parts[0]);
  assert_int_equal(info.validation_count, parts[1]);
  /* and the validation is the score of its part */
  double validation, accuracy, sum = 0, right = 0;
  assert_ok(unroll_classifier_evaluate(c, &validation, &accuracy, &err));
  assert_ok(unroll_classifier_predict(c, s, &p[0][0], &err));
  for (int64_t i = parts[0]; i < SEQUENCES; i++) {
    const float *row = p[order[i]];
    const int32_t label = unroll_sequences_labels(s)[order[i]];
    sum -= log((double)row[label]);
    right += row[label] >= row[0] && row[label] >= row[1] && row[label] >= row[2];
  }
  assert_true(fabs(validation - sum / (double)parts[1]) < 1e-5 && fabs(accuracy - right / (double)parts[1]) < 1e-6);
  unroll_sequences_destroy(other);
  unroll_sequences_destroy(s);
  unroll_classifier_destroy(c);
}

/* ---- training ---- */

/* Sixty sequences can be known by heart, with every cell; at first classes are guessed. */
static void every_cell_learns(void **state) {
  (void)state;
  unroll_sequences *s = load_sequences(0, 1, NULL, true);
  for (int32_t cell = 1; cell < UNROLL_CELL_COUNT; cell++) {
    unroll_classifier_options o = toy(cell);
    o.rnn.layers = cell % 2 + 1;
    static struct seen seen;
    unroll_classifier *c = new_classifier(s, &o);
    run_to(c, 300, &seen);
    unroll_classifier_score_info score;
    assert_ok(unroll_classifier_score(c, s, NULL, &score, &err));
    assert_true(fabs((double)seen.losses[0] - log(CLASSES)) < 0.5);
    assert_true(seen.losses[299] < 0.1f && seen.metrics[299] == 1);
    assert_true(score.accuracy > 0.8 && score.majority_accuracy < 0.6);
    assert_true(isnan(seen.validation[0]) && !isnan(seen.validation[299]));
    unroll_classifier_destroy(c);
  }
  unroll_sequences_destroy(s);
}

static void resumed_is_the_same_as_straight(void **state) {
  (void)state;
  const int32_t cells[] = {UNROLL_CELL_GRU, UNROLL_CELL_LSTM};
  for (int k = 0; k < 2; k++) {
    unroll_sequences *s = load_sequences(0, k ? LONGEST : 1, NULL, true);
    unroll_classifier_options o = toy(cells[k]);
    o.rnn.layers = 2;
    o.rnn.dropout = 0.25;
    o.bidirectional = k == 0;
    o.training.accumulate = k ? 1 : 2;
    o.scaling = k;
    static struct seen straight, halves;
    unroll_classifier *c = new_classifier(s, &o);
    run_to(c, 60, &straight);
    assert_ok(unroll_classifier_save(c, in_folder("straight"), &err));
    unroll_classifier_destroy(c);
    c = new_classifier(s, &o);
    run_to(c, 17, &halves); /* within an epoch */
    assert_ok(unroll_classifier_save(c, in_folder("half"), &err));
    unroll_classifier_destroy(c);
    assert_ok(unroll_classifier_load(&cpu, 1, in_folder("half"), NULL, &c, &err));
    assert_error(unroll_classifier_train(
                     c, &(unroll_train_options){.struct_size = sizeof(unroll_train_options), .updates = 20}, &err),
                 UNROLL_E_STATE, "resumed with its sequences");
    unroll_sequences *other = load_sequences(1, 1, NULL, true);
    assert_error(unroll_classifier_resume(c, other, &err), UNROLL_E_STATE,
                 "other sequences than the model was trained");
    unroll_sequences_destroy(other);
    assert_ok(unroll_classifier_resume(c, s, &err));
    assert_error(unroll_classifier_resume(c, s, &err), UNROLL_E_STATE, "sequences already");
    run_to(c, 60, &halves);
    assert_ok(unroll_classifier_save(c, in_folder("halves"), &err));
    assert_memory_equal(straight.losses, halves.losses, 60 * sizeof(float));
    assert_memory_equal(straight.norms, halves.norms, 60 * sizeof(float));
    assert_same_files(in_folder("straight"), in_folder("halves"));
    /* What was loaded predicts what the model did, and says the same of itself. */
    unroll_classifier *loaded;
    assert_ok(unroll_classifier_load(&cpu, 1, in_folder("halves"), NULL, &loaded, &err));
    float p[SEQUENCES * CLASSES], q[SEQUENCES * CLASSES];
    assert_ok(unroll_classifier_predict(c, s, p, &err));
    assert_ok(unroll_classifier_predict(loaded, s, q, &err));
    assert_memory_equal(p, q, sizeof p);
    const unroll_classifier_info a = unroll_classifier_describe(c), b = unroll_classifier_describe(loaded);
    assert_true(a.split_hash == b.split_hash && a.majority == b.majority && a.n_parameters == b.n_parameters);
    assert_true(a.update == b.update && a.best_update == b.best_update && a.longest == b.longest);
    assert_string_equal(unroll_tokens_text(b.labels, 1), names[1]);
    assert_true(isnan(b.majority_accuracy) && !isnan(a.majority_accuracy));
    unroll_classifier_destroy(loaded);
    unroll_classifier_destroy(c);
    unroll_sequences_destroy(s);
  }
}

/* A batch in parts, the last one of which has fewer sequences than rows, is the same update. */
static void parts_make_the_same_update(void **state) {
  (void)state;
  unroll_sequences *s = load_sequences(0, 1, NULL, true);
  static struct seen whole, cut;
  for (int parts = 1; parts <= 4; parts += 3) {
    unroll_classifier_options o = toy(UNROLL_CELL_LSTM);
    o.rnn.dropout = 0.2; /* masks belong to a sequence */
    o.training.accumulate = parts;
    unroll_classifier *c = new_classifier(s, &o);
    run_to(c, 30, parts == 1 ? &whole : &cut);
    unroll_classifier_destroy(c);
  }
  for (int i = 0; i < 30; i++) { /* float32 sums in another order, over 30 updates of Adam */
    assert_true(fabs((double)whole.losses[i] - (double)cut.losses[i]) < 1e-4);
    assert_true(fabs(whole.metrics[i] - cut.metrics[i]) < 1e-6);
  }
  unroll_sequences_destroy(s);
}

/* Every epoch has another order, and each sequence once: with a rate that moves nothing the mean loss is the same. */
static void an_epoch_has_each_sequence_once(void **state) {
  (void)state;
  unroll_sequences *s = load_sequences(0, 1, NULL, true);
  unroll_classifier_options o = toy(UNROLL_CELL_GRU);
  o.training.optimizer = (unroll_optimizer_attr){.kind = UNROLL_SGD};
  o.training.schedule.base = 1e-30;
  o.training.validation = 0;
  o.training.batch = 7; /* the last batch has 4 of 60 */
  static struct seen seen;
  unroll_classifier *c = new_classifier(s, &o);
  const int epoch = (int)unroll_classifier_describe(c).updates_per_epoch;
  assert_int_equal(epoch, 9);
  assert_true(isnan(unroll_classifier_describe(c).majority_accuracy));
  double loss, accuracy;
  assert_error(unroll_classifier_evaluate(c, &loss, &accuracy, &err), UNROLL_E_STATE, "validation is 0");
  run_to(c, 18, &seen);
  unroll_classifier_score_info score;
  assert_ok(unroll_classifier_score(c, s, NULL, &score, &err));
  int same = 0;
  double sum[2] = {0, 0}, least = 1e9;
  for (int e = 0; e < 2; e++) {
    int short_one = -1;
    for (int i = 0; i < epoch; i++)
      sum[e] += (double)seen.losses[e * epoch + i] * 7;
    for (int i = 0; i < epoch; i++) { /* one of them is of 4: with it counted so, the mean is the score */
      const double mean = (sum[e] - 3 * (double)seen.losses[e * epoch + i]) / SEQUENCES;
      if (fabs(mean - score.loss) < least) {
        least = fabs(mean - score.loss);
        short_one = i;
      }
    }
    assert_true(short_one >= 0 && least < 1e-6);
    least = 1e9;
  }
  for (int i = 0; i < epoch; i++)
    same += seen.losses[i] == seen.losses[epoch + i];
  assert_true(same < epoch / 2);
  unroll_classifier_destroy(c);
  unroll_sequences_destroy(s);
}

/* ---- what is refused ---- */

static void wrong_options(void **state) {
  (void)state;
  unroll_sequences *s = load_sequences(0, 1, NULL, true), *bare = load_sequences(0, 1, NULL, false);
  unroll_classifier *c = NULL;
#define REFUSED(field, value, words)                                                                 \
  do {                                                                                               \
    unroll_classifier_options o = toy(UNROLL_CELL_GRU);                                              \
    o.field = value;                                                                                 \
    assert_error(unroll_classifier_create(&cpu, 1, s, &o, NULL, &c, &err), UNROLL_E_INVALID, words); \
  } while (0)
  REFUSED(rnn.cell, 9, "cell 9");
  REFUSED(rnn.layers, 17, "layers 17, it must be from 1 to 16");
  REFUSED(rnn.hidden, 0, "hidden 0");
  REFUSED(training.batch, 0, "batch 0");
  REFUSED(scaling, 3, "scaling 3");
  REFUSED(rnn.dropout, 1.0, "dropout 1");
  REFUSED(training.validation, -0.5, "validation -0.5");
  REFUSED(training.clip, (double)NAN, "clip nan");
  REFUSED(training.accumulate, 3, "accumulate 3");
  REFUSED(training.freeze, "none", "no parameter's name fits 'none'");
  REFUSED(struct_size, 8, "struct_size 8");
  unroll_classifier_options o = toy(UNROLL_CELL_GRU);
  o.rnn.hidden = 16384;
  o.training.batch = 65536;
  assert_error(unroll_classifier_create(&cpu, 1, s, &o, NULL, &c, &err), UNROLL_E_INVALID, "past 2^31-1");
  o = toy(UNROLL_CELL_GRU);
  o.training.validation = 1e-9;
  assert_error(unroll_classifier_create(&cpu, 1, s, &o, NULL, &c, &err), UNROLL_E_RANGE,
               "60 to train and 0 to validate");
  assert_error(unroll_classifier_create(&cpu, 1, bare, &o, NULL, &c, &err), UNROLL_E_INVALID, "have no labels");
  assert_error(unroll_classifier_create(&cpu, 1, NULL, &o, NULL, &c, &err), UNROLL_E_INVALID, "sequences is NULL");
  assert_error(unroll_classifier_create(NULL, 1, s, &o, NULL, &c, &err), UNROLL_E_INVALID, "no device");
  assert_null(unroll_scaling_name(3));
  unroll_sequences_destroy(s);
  unroll_sequences_destroy(bare);
}

static void wrong_files_and_sequences(void **state) {
  (void)state;
  unroll_sequences *s = load_sequences(0, 1, NULL, true), *narrow = NULL, *renamed = NULL;
  const unroll_classifier_options o = toy(UNROLL_CELL_GRU);
  unroll_classifier *c = new_classifier(s, &o), *loaded = NULL;
  assert_ok(unroll_classifier_save(c, in_folder("m"), &err));
  unroll_lm *lm = NULL;
  assert_error(unroll_lm_load(&cpu, 1, in_folder("m"), NULL, &lm, &err), UNROLL_E_FORMAT,
               "another kind of file: unroll.kind is 'sequence classifier', not 'character language model'");
  const unroll_lm_options language = small(UNROLL_CELL_GRU);
  lm = create(&language);
  assert_ok(unroll_lm_save(lm, in_folder("lm"), &err));
  unroll_lm_destroy(lm);
  assert_error(unroll_classifier_load(&cpu, 1, in_folder("lm"), NULL, &loaded, &err), UNROLL_E_FORMAT,
               "'character language model', not 'sequence classifier'");
  assert_error(unroll_classifier_load(&cpu, 1, in_folder("none"), NULL, &loaded, &err), UNROLL_E_IO, "/none");

  put_file(in_folder("n.csv"), "a,1,2\nb,3,4\n", 12);
  assert_ok(unroll_sequences_load(in_folder("n.csv"), NULL, NULL, &narrow, &err));
  float p[SEQUENCES * CLASSES];
  unroll_classifier_score_info score;
  assert_error(unroll_classifier_predict(c, narrow, p, &err), UNROLL_E_SHAPE, "1 numbers a step, the model takes 3");
  put_file(in_folder("r.csv"), "a,1,2,3\nb,3,4,5\n", 16);
  assert_ok(unroll_sequences_load(
      in_folder("r.csv"), &(unroll_labelled_options){.struct_size = sizeof(unroll_labelled_options), .features = 3},
      NULL, &renamed, &err));
  assert_error(unroll_classifier_score(c, renamed, NULL, &score, &err), UNROLL_E_INVALID,
               "other labels than the model");
  assert_error(unroll_classifier_predict(c, NULL, p, &err), UNROLL_E_INVALID, "sequences is NULL");

  /* Cut, and changed where only the checksum can tell. */
  size_t size;
  char *bytes = get_file(in_folder("m"), &size);
  put_file(in_folder("cut"), bytes, size - 5);
  assert_error(unroll_classifier_load(&cpu, 1, in_folder("cut"), NULL, &loaded, &err), UNROLL_E_FORMAT, "/cut");
  bytes[size - 5] ^= 1;
  put_file(in_folder("bit"), bytes, size);
  assert_error(unroll_classifier_load(&cpu, 1, in_folder("bit"), NULL, &loaded, &err), UNROLL_E_FORMAT, "/bit");
  free(bytes);
  unroll_sequences_destroy(narrow);
  unroll_sequences_destroy(renamed);
  unroll_sequences_destroy(s);
  unroll_classifier_destroy(c);
}

static void wrong_metadata(void **state) {
  (void)state;
  unroll_sequences *s = load_sequences(0, 1, NULL, true);
  unroll_classifier_options o = toy(UNROLL_CELL_GRU);
  o.scaling = UNROLL_SCALING_NONE; /* mean "0 0 0", deviation "1 1 1" */
  unroll_classifier *c = new_classifier(s, &o), *loaded = NULL;
  assert_ok(unroll_classifier_save(c, in_folder("m"), &err));
  unroll_classifier_destroy(c);
  static const char *const keys[] = {"unroll.kind",  "unroll.format",   "unroll.version",  "unroll.labels",
                                     "unroll.model", "unroll.training", "unroll.position", "unroll.data"};
  static const struct {
    const char *key, *from, *to, *words;
  } cases[] = {
      {"unroll.model", "\"0 0 0\"", "\"0 0\"", "mean has 2 numbers, expected 3"},
      {"unroll.model", "\"0 0 0\"", "\"0 0 0 0\"", "mean has more than 3 numbers"},
      {"unroll.model", "\"0 0 0\"", "\"0 x 0\"", "mean: 'x' is no number"},
      {"unroll.model", "\"1 1 1\"", "\"1 0 1\"", "deviation: '0' is no number, or out of its range"},
      {"unroll.model", "\"features\":3", "\"features\":0", "features 0, lengths 1 to 6"},
      {"unroll.model", "\"features\":3", "\"features\":4", "mean has 3 numbers, expected 4"},
      {"unroll.model", "\"classes\":3", "\"classes\":4", "says 4 classes, unroll.labels has 3"},
      {"unroll.model", "\"hidden\":10", "\"hidden\":11", "tensor rnn.W_x.0.0 is f32 [30,3]"},
      {"unroll.model", "\"hidden\":10", "\"hidden\":0", "metadata: hidden 0"},
      {"unroll.model", "\"bidirectional\":0", "\"bidirectional\":2", "bidirectional 2"},
      {"unroll.model", "\"scaling\":\"none\"", "\"scaling\":\"some\"", "scaling 'some' is none that is known"},
      {"unroll.data", "\"shortest\":1", "\"shortest\":7", "lengths 7 to 6"},
      {"unroll.data", "\"longest\":6", "\"longest\":4294967296", "lengths 1 to 4294967296"},
      {"unroll.labels", "{", "[", "metadata unroll.labels: "},
      {"unroll.training", "\"batch\":8", "\"batch\":0", "metadata: batch 0"},
      {"unroll.format", "1", "9", "newer than format 1"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    change_metadata(keys, sizeof keys / sizeof keys[0], cases[i].key, cases[i].from, cases[i].to);
    assert_error(unroll_classifier_load(&cpu, 1, in_folder("changed"), NULL, &loaded, &err),
                 strcmp(cases[i].key, "unroll.format") == 0 ? UNROLL_E_UNSUPPORTED : UNROLL_E_FORMAT, cases[i].words);
  }
  unroll_sequences_destroy(s);
}

struct data {
  const unroll_sequences *sequences;
  unroll_classifier_options options;
};
static unroll_status make_one(void *ctx, const unroll_allocator *allocator) {
  const struct data *d = ctx;
  unroll_classifier *c = NULL;
  const unroll_status status = unroll_classifier_create(&cpu, 1, d->sequences, &d->options, allocator, &c, NULL);
  unroll_classifier_destroy(c);
  return status;
}
static unroll_status use_one(void *ctx, const unroll_allocator *allocator) {
  const struct data *d = ctx;
  float p[SEQUENCES * CLASSES];
  unroll_classifier *c = NULL;
  unroll_status status = unroll_classifier_load(&cpu, 1, in_folder("m"), allocator, &c, NULL);
  if (status == UNROLL_OK)
    status = unroll_classifier_predict(c, d->sequences, p, NULL);
  if (status == UNROLL_OK)
    status = unroll_classifier_resume(c, d->sequences, NULL);
  if (status == UNROLL_OK)
    status = unroll_classifier_save(c, in_folder("again"), NULL);
  unroll_classifier_destroy(c);
  return status;
}
static void memory_runs_out(void **state) {
  (void)state;
  unroll_sequences *s = load_sequences(0, 1, NULL, true);
  struct data d = {s, toy(UNROLL_CELL_RNN)};
  d.options.rnn.hidden = 3;
  unroll_classifier *c = new_classifier(s, &d.options);
  assert_ok(unroll_classifier_save(c, in_folder("m"), &err));
  unroll_classifier_destroy(c);
  memory_runs_out_of(make_one, &d, 60, 37);
  memory_runs_out_of(use_one, &d, 60, 37);
  unroll_sequences_destroy(s);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(predictions_by_hand),
      cmocka_unit_test(scores_are_what_predictions_say),
      cmocka_unit_test(every_cell_learns),
      cmocka_unit_test(parts_make_the_same_update),
      cmocka_unit_test(resumed_is_the_same_as_straight),
      cmocka_unit_test(an_epoch_has_each_sequence_once),
      cmocka_unit_test(wrong_options),
      cmocka_unit_test(wrong_files_and_sequences),
      cmocka_unit_test(wrong_metadata),
      cmocka_unit_test(memory_runs_out),
  };
  return cmocka_run_group_tests(tests, begin, end);
}
