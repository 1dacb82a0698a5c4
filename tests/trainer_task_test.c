/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The trainer under a task of another kind than a language model: sequences of different lengths, one class for each,
 * some without a label, so that parts of a batch do not count alike; the accuracy beside the loss; an order of its own
 * in every epoch.
 */
#include "train/trainer.h"
#include "train_support.h"

enum { SEQUENCES = 24, STEPS = 5, FEATURES = 3, CLASSES = 3 };

struct toy {
  struct trainer trainer;
  int64_t batch, evaluated; /* sequences of an update, and of a batch that is evaluated */
};

static float feature(int64_t sequence, int64_t t, int64_t i) {
  return (float)(((sequence * 7 + t * 5 + i * 3) * 37 % 19) - 9) / 9;
}
static int32_t length_of(int64_t sequence) { return (int32_t)(1 + sequence * 11 % STEPS); }
static int32_t label_of(int64_t sequence) {
  float sum = 0;
  for (int32_t t = 0; t < length_of(sequence); t++)
    sum += feature(sequence, t, 0);
  return sequence % 5 == 0 || sequence % 7 == 3 ? -1 : sum > 0.5f ? 2 : sum > -0.5f; /* -1: not known */
}
/* Every epoch has each sequence once: 7·k is prime to 24. */
static int64_t sequence_at(uint64_t epoch, int64_t place) {
  return (place * (epoch % 2 ? 7 : 11) + (int64_t)epoch * 5) % SEQUENCES;
}

static struct trainer_loss build(const void *owner, struct trainer_build *b) {
  const struct toy *toy = owner;
  const int64_t rows = b->training ? toy->batch / b->parts : toy->evaluated;
  unroll_graph *g = b->graph;
  const unroll_tensor x = unroll_input(g, "x", UNROLL_F32, 3, (int64_t[]){STEPS, rows, FEATURES});
  const unroll_tensor labels = unroll_input(g, "labels", UNROLL_I32, 1, &rows);
  const unroll_rnn_options rnn = {.struct_size = sizeof rnn,
                                  .cell = UNROLL_CELL_GRU,
                                  .layers = 1,
                                  .hidden = 6,
                                  .lengths = unroll_input(g, "lengths", UNROLL_I32, 1, &rows)};
  unroll_tensor h = unroll_none();
  unroll_rnn_state last = {&h, NULL};
  unroll_rnn(x, "rnn", &rnn, NULL, &last);
  const unroll_tensor logits = unroll_linear(h, "head", CLASSES, 1);
  const unroll_tensor zero = unroll_constant(g, UNROLL_I32, 0, NULL, 0);
  const unroll_tensor known = unroll_cast(unroll_binary(labels, zero, UNROLL_GE), UNROLL_F32);
  const unroll_tensor right = unroll_cast(unroll_binary(unroll_argmax(logits), labels, UNROLL_EQ), UNROLL_F32);
  const unroll_tensor count = unroll_reduce(known, UNROLL_SUM, 0, 0);
  const unroll_tensor one = unroll_constant(g, UNROLL_F32, 0, NULL, 1);
  const unroll_tensor hits = unroll_reduce(unroll_mul(right, known), UNROLL_SUM, 0, 0);
  return (struct trainer_loss){.loss = unroll_cross_entropy(logits, labels, UNROLL_LOSS_MEAN),
                               .weight = count,
                               .metric = unroll_div(hits, unroll_binary(count, one, UNROLL_MAX))};
}

static unroll_status initialise(const void *owner, const unroll_tensor_info *info, void *data, unroll_error *error) {
  (void)owner;
  return unroll_init_default(info, UNROLL_CELL_GRU, 5, data, error);
}

static unroll_status write_rows(unroll_binding *b, const int64_t *sequences, int64_t rows, unroll_error *error) {
  float x[STEPS * SEQUENCES * FEATURES];
  int32_t lengths[SEQUENCES], labels[SEQUENCES];
  for (int64_t r = 0; r < rows; r++) {
    lengths[r] = length_of(sequences[r]);
    labels[r] = label_of(sequences[r]);
    for (int64_t t = 0; t < STEPS; t++)
      for (int64_t i = 0; i < FEATURES; i++)
        x[(t * rows + r) * FEATURES + i] = feature(sequences[r], t, i);
  }
  TRY(unroll_binding_write(b, "x", x, (uint64_t)(STEPS * rows * FEATURES) * sizeof x[0], error));
  TRY(unroll_binding_write(b, "lengths", lengths, (uint64_t)rows * sizeof lengths[0], error));
  return unroll_binding_write(b, "labels", labels, (uint64_t)rows * sizeof labels[0], error);
}

static unroll_status feed(void *owner, const struct trainer_place *place, unroll_binding *b, struct trainer_feed *f,
                          unroll_error *error) {
  const struct toy *toy = owner;
  const int64_t rows = toy->batch / place->parts;
  int64_t sequences[SEQUENCES];
  f->row0 = place->part * rows;
  f->items = rows * STEPS;
  for (int64_t r = 0; r < rows; r++)
    sequences[r] = sequence_at(place->epoch, (int64_t)place->index * toy->batch + f->row0 + r);
  return write_rows(b, sequences, rows, error);
}

static unroll_status feed_evaluation(void *owner, uint64_t batch, unroll_binding *b, struct trainer_feed *f,
                                     unroll_error *error) {
  const struct toy *toy = owner;
  int64_t sequences[SEQUENCES];
  f->items = toy->evaluated * STEPS;
  for (int64_t r = 0; r < toy->evaluated; r++)
    sequences[r] = (int64_t)batch * toy->evaluated + r;
  return write_rows(b, sequences, toy->evaluated, error);
}

static uint64_t epoch_updates(const void *owner, uint64_t epoch) {
  (void)epoch;
  return (uint64_t)(SEQUENCES / ((const struct toy *)owner)->batch);
}

static unroll_status metadata(const void *owner, unroll_safetensors_writer *writer, unroll_error *error) {
  const struct toy *toy = owner;
  return trainer_position_write(&toy->trainer, writer, error);
}

static const struct trainer_task task = {.build = build,
                                         .initialise = initialise,
                                         .feed = feed,
                                         .feed_evaluation = feed_evaluation,
                                         .epoch_updates = epoch_updates,
                                         .metadata = metadata,
                                         .data = "sequences"};

static void make(struct toy *toy, int64_t batch, int64_t parts, int64_t evaluated) {
  const unroll_training o = {.batch = batch,
                             .seed = 1,
                             .clip = 0.5,
                             .optimizer = {.kind = UNROLL_SGD, .beta1 = 0.9},
                             .schedule = {.kind = UNROLL_SCHEDULE_CONSTANT, .base = 0.1},
                             .loss_scale = 1,
                             .accumulate = parts};
  *toy = (struct toy){.batch = batch, .evaluated = evaluated};
  assert_ok(trainer_begin(&toy->trainer, &task, toy, &cpu, 1, NULL, &err));
  assert_ok(trainer_options_check(&o, &err));
  assert_ok(trainer_options_copy(&o, NULL, &toy->trainer.options, &err));
  assert_error(trainer_ready(&toy->trainer, "trained", &err), UNROLL_E_STATE, "resumed with its sequences");
  assert_ok(trainer_attach(&toy->trainer, 0, (uint64_t)(SEQUENCES / evaluated), &err));
  assert_ok(trainer_create(&toy->trainer, &err));
}

static void run(struct toy *toy, uint64_t updates, struct seen *s) {
  const unroll_train_options o = {
      .struct_size = sizeof o, .report_every = 1, .evaluate_every = 5, .updates = updates, .progress = see, .ctx = s};
  assert_ok(trainer_train(&toy->trainer, &o, &err));
}

static void parts_count_as_much_as_they_have_labels(void **state) {
  (void)state;
  enum { UPDATES = 60 };
  struct seen whole = {{0}, {0}, {0}, {0}, {0}}, cut = whole;
  struct toy toy;
  make(&toy, 12, 1, SEQUENCES);
  run(&toy, UPDATES, &whole);
  assert_ok(trainer_save(&toy.trainer, in_folder("whole"), &err));
  trainer_end(&toy.trainer);
  make(&toy, 12, 4, 6); /* and the evaluation in batches that count unlike too */
  run(&toy, UPDATES, &cut);
  assert_ok(trainer_save(&toy.trainer, in_folder("cut"), &err));
  trainer_end(&toy.trainer);
  /* Float32 sums of 12 in another order, over 60 updates. */
  for (int i = 0; i < UPDATES; i++) {
    assert_true(fabs((double)whole.losses[i] - (double)cut.losses[i]) < 1e-5);
    assert_true(fabs((double)whole.norms[i] - (double)cut.norms[i]) < 1e-4 * (double)whole.norms[i]);
    assert_true(fabs(whole.metrics[i] - cut.metrics[i]) < 1e-6);
    assert_int_equal(isnan(whole.validation[i]) != 0, (i + 1) % 5 != 0);
    if (!isnan(whole.validation[i])) {
      assert_true(fabs(whole.validation[i] - cut.validation[i]) < 1e-5);
      assert_true(fabs(whole.validation_metrics[i] - cut.validation_metrics[i]) < 1e-6);
    }
  }
  assert_true(fabs((double)whole.losses[0] - log(CLASSES)) < 0.5);
  assert_true(whole.validation_metrics[UPDATES - 1] > 0.75 && whole.validation[UPDATES - 1] < 0.7);
  int known = 0;
  for (int i = 0; i < SEQUENCES; i++)
    known += label_of(i) >= 0;
  const double hits = whole.validation_metrics[UPDATES - 1] * known; /* a whole number of sequences */
  assert_true(fabs(hits - round(hits)) < 1e-5);
}

static void a_step_against_what_it_should_be(void **state) {
  (void)state;
  /* Of the first update's batch alone: the accuracy by hand, of the parameters as they are at first. */
  struct toy toy;
  struct seen s = {{0}, {0}, {0}, {0}, {0}};
  make(&toy, SEQUENCES, 3, SEQUENCES);
  double loss, accuracy;
  assert_ok(trainer_evaluate(&toy.trainer, &loss, &accuracy, &err)); /* the same sequences, in another order */
  run(&toy, 1, &s);
  assert_true(fabs((double)s.losses[0] - loss) < 1e-6);
  assert_true(fabs(s.metrics[0] - accuracy) < 1e-6);
  const struct trainer_place p = trainer_place_of(&toy.trainer, 3);
  assert_int_equal(p.epoch, 3);
  assert_int_equal(p.index, 0);
  trainer_end(&toy.trainer);
}

/* ---- graphs of several shapes ---- */

static uint32_t third(void *owner, const struct trainer_place *place, bool training) {
  (void)owner;
  return (uint32_t)(place->index % (training ? 3 : 2));
}

/* Batches that take turns between graphs which are alike: the parameters, the optimizer's states, and what is
 * remembered of losses are one, so every bit is the same as with one graph. */
static void variants_share_all_that_is_kept(void **state) {
  (void)state;
  static struct seen one, several;
  struct trainer_task turns = task;
  turns.variant = third;
  struct toy toy;
  make(&toy, 4, 2, 6);
  run(&toy, 40, &one);
  trainer_end(&toy.trainer);
  make(&toy, 4, 2, 6);
  toy.trainer.task = &turns;
  run(&toy, 40, &several);
  assert_non_null(toy.trainer.more_train[2].binding);
  assert_non_null(toy.trainer.more_evaluate[1].binding);
  assert_null(toy.trainer.more_train[3].binding);
  trainer_end(&toy.trainer);
  assert_memory_equal(one.losses, several.losses, 40 * sizeof one.losses[0]);
  assert_memory_equal(one.norms, several.norms, 40 * sizeof one.norms[0]);
  for (int i = 4; i < 40; i += 5)
    assert_true(one.validation[i] == several.validation[i] &&
                one.validation_metrics[i] == several.validation_metrics[i]);
}

static unroll_status measured(void *owner, double *loss, double *metric, unroll_error *error) {
  (void)error;
  *loss = 7 - (double)((struct toy *)owner)->trainer.update;
  *metric = 0.25;
  return UNROLL_OK;
}

/* A task that evaluates by itself is asked when it is time to. */
static void own_evaluation(void **state) {
  (void)state;
  static struct seen seen;
  struct trainer_task own = task;
  own.evaluate = measured;
  struct toy toy;
  make(&toy, 4, 1, 6);
  toy.trainer.task = &own;
  run(&toy, 10, &seen);
  assert_null(toy.trainer.evaluate.binding);
  assert_true(seen.validation[4] == 2 && seen.validation[9] == -3 && seen.validation_metrics[9] == 0.25);
  assert_true(toy.trainer.best_loss == -3 && toy.trainer.best_update == 10);
  trainer_end(&toy.trainer);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(parts_count_as_much_as_they_have_labels),
      cmocka_unit_test(a_step_against_what_it_should_be),
      cmocka_unit_test(variants_share_all_that_is_kept),
      cmocka_unit_test(own_evaluation),
  };
  return cmocka_run_group_tests(tests, begin, end);
}
