/* SPDX-License-Identifier: Apache-2.0 */
/* Language models on the reference device: training, going on, and what is refused. */
#include "train_support.h"

static const int32_t cells[] = {UNROLL_CELL_RNN, UNROLL_CELL_LSTM, UNROLL_CELL_GRU, UNROLL_CELL_GRU_AFTER};
#define N_CELLS (sizeof cells / sizeof cells[0])

/* ---- training ---- */

static void loss_falls_with_every_cell_and_optimizer(void **state) {
  (void)state;
  const unroll_optimizer_attr optimizers[N_CELLS] = {
      {.kind = UNROLL_SGD, .beta1 = 0.9},
      {.kind = UNROLL_ADAM, .beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8},
      {.kind = UNROLL_ADAMW, .beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8, .weight_decay = 0.01},
      {.kind = UNROLL_RMSPROP, .beta2 = 0.99, .epsilon = 1e-8},
  };
  const double rates[N_CELLS] = {0.1, 0.01, 0.01, 0.005};
  for (size_t i = 0; i < N_CELLS; i++) {
    unroll_lm_options o = small(cells[i]);
    o.training.optimizer = optimizers[i];
    o.training.schedule = (unroll_schedule){.kind = UNROLL_SCHEDULE_CONSTANT, .base = rates[i]};
    o.rnn.dropout = 0;
    o.rnn.hidden = 24;
    unroll_lm *lm = create(&o);
    struct record r = {0};
    train_to(lm, 150, &r);
    /* 29 different characters; a sentence that is always the same can be known by heart. */
    assert_true(fabs((double)r.losses[0] - log(29)) < 0.7);
    if (!(r.losses[149] < 0.5f * r.losses[0]))
      print_error("cell %d: loss %g after %g\n", cells[i], (double)r.losses[149], (double)r.losses[0]);
    assert_true(r.losses[149] < 0.5f * r.losses[0]);
    unroll_lm_destroy(lm);
  }
}

/* With a learning rate that moves nothing, an epoch is like the one before: streams begin again from a zero state. */
static void states_begin_again_with_an_epoch(void **state) {
  (void)state;
  unroll_lm_options o = small(UNROLL_CELL_LSTM);
  o.rnn.dropout = 0;
  o.training.optimizer = (unroll_optimizer_attr){.kind = UNROLL_SGD};
  o.training.schedule = (unroll_schedule){.kind = UNROLL_SCHEDULE_CONSTANT, .base = 1e-30};
  struct record r = {0};
  unroll_lm *lm = create(&o);
  train_to(lm, 2 * EPOCH, &r);
  for (int i = 0; i < EPOCH; i++)
    assert_memory_equal(&r.losses[i], &r.losses[EPOCH + i], sizeof r.losses[0]);
  unroll_lm_destroy(lm);
  /* Masks do not: each update has its own. */
  o.rnn.dropout = 0.25;
  struct record masked = {0};
  lm = create(&o);
  train_to(lm, EPOCH + 2, &masked);
  unroll_lm_destroy(lm);
  assert_true(masked.losses[0] != masked.losses[EPOCH] && masked.losses[1] != masked.losses[EPOCH + 1]);
  o.rnn.dropout = 0;
  /* Within an epoch the states go on: two updates of 8 characters are one of 16, but for rounding. */
  o.steps = 16;
  struct record twice = {0};
  lm = create(&o);
  train_to(lm, 5, &twice);
  unroll_lm_destroy(lm);
  for (int i = 0; i < 5; i++)
    assert_true(fabs((double)r.losses[2 * i] / 2 + (double)r.losses[2 * i + 1] / 2 - (double)twice.losses[i]) < 1e-6);
}

/* The distance between the parameters of two models' files. */
static double distance(const char *a, const char *b) {
  unroll_safetensors *file_a, *file_b;
  assert_ok(unroll_safetensors_open(a, NULL, &file_a, &err));
  assert_ok(unroll_safetensors_open(b, NULL, &file_b, &err));
  double squares = 0;
  for (uint64_t i = 0; i < unroll_safetensors_count(file_a); i++) {
    unroll_stored_tensor x, y;
    assert_ok(unroll_safetensors_get(file_a, i, &x, &err));
    assert_ok(unroll_safetensors_find(file_b, x.name, &y, &err));
    if (strncmp(x.name, "h.", 2) == 0 || strncmp(x.name, "c.", 2) == 0)
      continue;
    for (uint64_t k = 0; k < x.bytes; k += sizeof(float)) {
      float p, q;
      memcpy(&p, (const char *)x.data + k, sizeof p);
      memcpy(&q, (const char *)y.data + k, sizeof q);
      squares += ((double)p - (double)q) * ((double)p - (double)q);
    }
  }
  unroll_safetensors_close(file_a);
  unroll_safetensors_close(file_b);
  return sqrt(squares);
}

/* Plain gradient descent goes as far as the learning rate times the norm of the clipped gradient. */
static void one_step_is_as_long_as_the_clip_allows(void **state) {
  (void)state;
  unroll_lm_options o = small(UNROLL_CELL_GRU);
  o.steps = o.training.batch = 1; /* a gradient that is no mean is long */
  o.training.optimizer = (unroll_optimizer_attr){.kind = UNROLL_SGD};
  o.training.schedule = (unroll_schedule){.kind = UNROLL_SCHEDULE_CONSTANT, .base = 0.5};
  const double clips[] = {0.125, 100, 0};
  for (size_t i = 0; i < sizeof clips / sizeof clips[0]; i++) {
    o.training.clip = clips[i];
    struct record r = {0};
    unroll_lm *lm = create(&o);
    assert_ok(unroll_lm_save(lm, in_folder("before"), &err));
    train_to(lm, 1, &r);
    assert_ok(unroll_lm_save(lm, in_folder("after"), &err));
    unroll_lm_destroy(lm);
    assert_true(r.norms[0] > 1.25f && r.norms[0] < 100); /* so that the first clip bites, and 1 would */
    const double expected = 0.5 * (clips[i] > 0 ? fmin(clips[i], (double)r.norms[0]) : (double)r.norms[0]);
    const double went = distance(in_folder("before"), in_folder("after"));
    if (!(fabs(went - expected) < 1e-4 * expected))
      print_error("clip %g: a step of %g, not %g\n", clips[i], went, expected);
    assert_true(fabs(went - expected) < 1e-4 * expected);
  }
}

static void what_it_says_of_itself(void **state) {
  (void)state;
  const unroll_lm_options o = small(UNROLL_CELL_GRU_AFTER);
  unroll_lm *lm = create(&o);
  const unroll_lm_info info = unroll_lm_describe(lm);
  assert_int_equal(info.struct_size, sizeof info);
  assert_int_equal(info.updates_per_epoch, EPOCH);
  assert_int_equal(info.train_characters, 844);
  assert_int_equal(info.validation_characters, 56);
  assert_int_equal(unroll_vocabulary_count(info.vocabulary), 29);
  /* embedding 29·6; layers 36·6 + 36·12 + 36 + 12 and 36·12 + 36·12 + 36 + 12; linear 29·12 + 29 */
  assert_int_equal(info.n_parameters, 174 + 696 + 912 + 377);
  assert_int_equal(info.update, 0);
  assert_true(isnan(info.best_validation_loss));
  unroll_lm_destroy(lm);
}

static void resumed_is_bit_equal(void **state) {
  (void)state;
  const uint64_t cuts[] = {0, 1, 9, EPOCH, 21}, all = 34; /* over two ends of an epoch */
  for (size_t i = 0; i < N_CELLS; i++) {
    const unroll_lm_options o = small(cells[i]);
    struct record whole = {0};
    unroll_lm *lm = create(&o);
    train_to(lm, all, &whole);
    assert_ok(unroll_lm_save(lm, in_folder("whole"), &err));
    unroll_lm_destroy(lm);
    for (size_t k = 0; k < sizeof cuts / sizeof cuts[0]; k++) {
      struct record parts = {0};
      lm = create(&o);
      if (cuts[k] > 0)
        train_to(lm, cuts[k], &parts);
      assert_ok(unroll_lm_save(lm, in_folder("part"), &err));
      unroll_lm_destroy(lm);
      lm = load(in_folder("part"));
      assert_int_equal(unroll_lm_describe(lm).update, cuts[k]);
      assert_ok(unroll_lm_resume(lm, text, &err));
      train_to(lm, all, &parts);
      assert_same_losses(&whole, &parts, 0, all);
      assert_true(whole.validation[all - 1] == parts.validation[all - 1]);
      assert_ok(unroll_lm_save(lm, in_folder("parts"), &err));
      unroll_lm_destroy(lm);
      /* The first part's end was one more evaluation, which may have been the best. */
      if (cuts[k] % EPOCH == 0)
        assert_same_files(in_folder("whole"), in_folder("parts"));
    }
  }
}

static void loaded_and_saved_is_the_same_file(void **state) {
  (void)state;
  unroll_lm_options o = small(UNROLL_CELL_LSTM);
  o.training.schedule.base = 0.1 / 3; /* 17 digits */
  o.training.seed = UINT64_MAX;
  struct record r = {0};
  unroll_lm *lm = create(&o);
  train_to(lm, 5, &r);
  assert_ok(unroll_lm_save(lm, in_folder("a"), &err));
  unroll_lm_destroy(lm);
  lm = load(in_folder("a"));
  const unroll_lm_info info = unroll_lm_describe(lm);
  assert_int_equal(info.options.rnn.cell, UNROLL_CELL_LSTM);
  assert_true(info.options.rnn.dropout == o.rnn.dropout &&
              info.options.training.schedule.base == o.training.schedule.base);
  assert_true(info.options.training.optimizer.epsilon == o.training.optimizer.epsilon &&
              info.options.training.seed == UINT64_MAX);
  assert_int_equal(info.best_update, 5);
  assert_int_equal(info.updates_per_epoch, 0);
  assert_ok(unroll_lm_save(lm, in_folder("b"), &err));
  assert_same_files(in_folder("a"), in_folder("b"));
  unroll_lm_destroy(lm);
}

static void cancelled_then_saved_then_resumed(void **state) {
  (void)state;
  const unroll_lm_options o = small(UNROLL_CELL_GRU);
  struct record whole = {0}, parts = {.stop_at = 6};
  unroll_lm *lm = create(&o);
  train_to(lm, 20, &whole);
  unroll_lm_destroy(lm);
  lm = create(&o);
  const unroll_lm_train_options run = {
      .struct_size = sizeof run, .report_every = 3, .updates = 20, .progress = remember, .ctx = &parts};
  assert_error(unroll_lm_train(lm, &run, &err), UNROLL_E_CANCELLED, "after update 6");
  assert_int_equal(parts.finals, 0);
  assert_int_equal(unroll_lm_describe(lm).update, 6);
  assert_ok(unroll_lm_save(lm, in_folder("cancelled"), &err));
  unroll_lm_destroy(lm);
  lm = load(in_folder("cancelled"));
  assert_ok(unroll_lm_resume(lm, text, &err));
  parts.stop_at = 0;
  train_to(lm, 20, &parts);
  assert_same_losses(&whole, &parts, 0, 20);
  unroll_lm_destroy(lm);
}

static void reports_change_nothing(void **state) {
  (void)state;
  const unroll_lm_options o = small(UNROLL_CELL_LSTM);
  struct record one = {0}, many = {0}, automatic = {0};
  unroll_lm *lm = create(&o);
  train_to(lm, 70, &one);
  unroll_lm_destroy(lm);
  unroll_lm_train_options run = {.struct_size = sizeof run,
                                 .report_every = 64,
                                 .evaluate_every = 1000,
                                 .updates = 70,
                                 .progress = remember,
                                 .ctx = &many};
  lm = create(&o);
  assert_ok(unroll_lm_train(lm, &run, &err));
  assert_int_equal(many.reports, 2);
  assert_same_losses(&one, &many, 0, 70);
  unroll_lm_destroy(lm);
  lm = create(&o);
  run.report_every = 0;
  run.evaluate_every = 1;
  run.ctx = &automatic;
  assert_ok(unroll_lm_train(lm, &run, &err));
  assert_int_equal(automatic.reports, 70);
  assert_same_losses(&one, &automatic, 0, 70);
  unroll_lm_destroy(lm);
}

static void dropout_by_seed(void **state) {
  (void)state;
  unroll_lm_options o = small(UNROLL_CELL_LSTM);
  o.rnn.layers = 1; /* what is dropped is the linear layer's input */
  o.rnn.dropout = 0.5;
  struct record a = {0}, b = {0}, other = {0}, none = {0};
  unroll_lm *lm = create(&o);
  train_to(lm, 4, &a);
  unroll_lm_destroy(lm);
  lm = create(&o);
  train_to(lm, 4, &b);
  unroll_lm_destroy(lm);
  assert_same_losses(&a, &b, 0, 4);
  o.training.seed = 8;
  lm = create(&o);
  train_to(lm, 4, &other);
  unroll_lm_destroy(lm);
  o.training.seed = 7;
  double with, without;
  lm = create(&o);
  assert_ok(unroll_lm_evaluate(lm, &with, &err));
  unroll_lm_destroy(lm);
  o.rnn.dropout = 0;
  lm = create(&o);
  assert_ok(unroll_lm_evaluate(lm, &without, &err));
  assert_true(with == without);
  train_to(lm, 4, &none);
  unroll_lm_destroy(lm);
  for (int i = 0; i < 4; i++) {
    assert_true(a.losses[i] != other.losses[i]);
    assert_true(a.losses[i] != none.losses[i]);
  }
}

static void evaluation_and_the_best(void **state) {
  (void)state;
  const unroll_lm_options o = small(UNROLL_CELL_RNN);
  struct record r = {0};
  unroll_lm *lm = create(&o);
  double before, again, after;
  assert_ok(unroll_lm_evaluate(lm, &before, &err));
  assert_ok(unroll_lm_evaluate(lm, &again, &err));
  assert_true(before == again && fabs(before - log(29)) < 0.7);
  train_to(lm, 2 * EPOCH + 4, &r);
  for (uint64_t u = 1; u <= 2 * EPOCH + 4; u++)
    assert_int_equal(!isnan(r.validation[u - 1]), u % EPOCH == 0 || u == 2 * EPOCH + 4);
  assert_true(r.validation[EPOCH - 1] < before);
  assert_true(r.improved[EPOCH - 1]);
  assert_ok(unroll_lm_evaluate(lm, &after, &err));
  assert_true(after == r.validation[2 * EPOCH + 3]);
  const unroll_lm_info info = unroll_lm_describe(lm);
  assert_true(info.best_validation_loss == r.validation[info.best_update - 1]);
  assert_true(info.best_validation_loss <= after && r.improved[info.best_update - 1]);
  unroll_lm_destroy(lm);

  unroll_lm_options without = o;
  without.training.validation = 0;
  lm = create(&without);
  assert_error(unroll_lm_evaluate(lm, &after, &err), UNROLL_E_STATE, "validation is 0");
  memset(&r, 0, sizeof r);
  train_to(lm, 3, &r);
  assert_true(isnan(r.validation[2]));
  unroll_lm_destroy(lm);
}

static void learning_rates_follow_the_schedule(void **state) {
  (void)state;
  unroll_lm_options o = small(UNROLL_CELL_RNN);
  struct record r = {0};
  unroll_lm *lm = create(&o);
  train_to(lm, 2 * EPOCH + 1, &r);
  assert_true(r.rates[0] == 0.01 && r.rates[EPOCH - 1] == 0.01);
  assert_true(r.rates[EPOCH] == 0.005 && r.rates[2 * EPOCH] == 0.0025);
  const unroll_schedule slower = {.kind = UNROLL_SCHEDULE_TIME, .base = 0.03, .decay = 1};
  assert_ok(unroll_lm_set_schedule(lm, &slower, &err));
  train_to(lm, 3 * EPOCH + 1, &r);
  assert_true(fabs(r.rates[2 * EPOCH + 1] - 0.01) < 1e-15 && r.rates[3 * EPOCH] == 0.0075);
  const unroll_schedule wrong = {.kind = UNROLL_SCHEDULE_TIME, .base = -1};
  assert_error(unroll_lm_set_schedule(lm, &wrong, &err), UNROLL_E_INVALID, "learning rate -1");
  unroll_lm_destroy(lm);

  o.training.schedule = (unroll_schedule){.kind = UNROLL_SCHEDULE_COSINE, .base = 0.02, .minimum = 0.001};
  lm = create(&o);
  const unroll_lm_train_options timed = {.struct_size = sizeof timed, .minutes = 1};
  assert_error(unroll_lm_train(lm, &timed, &err), UNROLL_E_INVALID, "cosine: its total is 0");
  train_to(lm, 12, &r);
  assert_true(r.rates[0] == 0.02 && fabs(r.rates[6] - 0.0105) < 1e-15 && r.rates[11] > 0.001);
  assert_true(unroll_lm_describe(lm).options.training.schedule.total == 12.0 / EPOCH);
  train_to(lm, 14, &r);
  assert_true(r.rates[13] == 0.001);
  unroll_lm_destroy(lm);
}

static void limits(void **state) {
  (void)state;
  const unroll_lm_options o = small(UNROLL_CELL_RNN);
  struct record r = {0};
  unroll_lm *lm = create(&o);
  unroll_lm_train_options run = {.struct_size = sizeof run, .progress = remember, .ctx = &r};
  assert_error(unroll_lm_train(lm, &run, &err), UNROLL_E_INVALID, "no limit");
  run.epochs = 1.5;
  run.updates = 1000;
  assert_ok(unroll_lm_train(lm, &run, &err));
  assert_int_equal(r.updates, 23); /* 22.5, rounded up */
  run.updates = 23;
  r.reports = 0;
  assert_ok(unroll_lm_train(lm, &run, &err));
  assert_int_equal(r.reports, 0);
  run = (unroll_lm_train_options){.struct_size = sizeof run, .minutes = 1e-6, .progress = remember, .ctx = &r};
  assert_ok(unroll_lm_train(lm, &run, &err));
  assert_int_equal(r.updates, 24);
  run.minutes = -1;
  assert_error(unroll_lm_train(lm, &run, &err), UNROLL_E_INVALID, "minutes -1");
  run.minutes = 1;
  run.epochs = (double)NAN;
  assert_error(unroll_lm_train(lm, &run, &err), UNROLL_E_INVALID, "epochs nan");
  run.epochs = 0;
  run.report_every = 65;
  assert_error(unroll_lm_train(lm, &run, &err), UNROLL_E_INVALID, "report_every 65");
  run.struct_size = 8;
  assert_error(unroll_lm_train(lm, &run, &err), UNROLL_E_INVALID, "struct_size 8");
  unroll_lm_destroy(lm);
}

static void diverged(void **state) {
  (void)state;
  unroll_lm_options o = small(UNROLL_CELL_RNN);
  o.training.clip = 0;
  o.rnn.dropout = 0;
  o.training.optimizer = (unroll_optimizer_attr){.kind = UNROLL_SGD};
  const unroll_schedule wild = {.kind = UNROLL_SCHEDULE_CONSTANT, .base = 1e38};
  const uint32_t every[] = {1, 40};
  unsigned update[] = {0, 0};
  for (int i = 0; i < 2; i++) {
    struct record r = {0};
    unroll_lm *lm = create(&o);
    assert_ok(unroll_lm_save(lm, in_folder("kept"), &err));
    assert_ok(unroll_lm_save(lm, in_folder("reference"), &err));
    assert_ok(unroll_lm_set_schedule(lm, &wild, &err));
    const unroll_lm_train_options run = {
        .struct_size = sizeof run, .updates = 50, .report_every = every[i], .progress = remember, .ctx = &r};
    unroll_error found = UNROLL_ERROR_INIT;
    assert_int_equal(unroll_lm_train(lm, &run, &found), UNROLL_E_RANGE);
    assert_int_equal(sscanf(found.message, "the training diverged at update %u", &update[i]), 1);
    assert_true(r.updates < update[i]);
    assert_error(unroll_lm_save(lm, in_folder("kept"), &err), UNROLL_E_STATE, "diverged at update");
    assert_same_files(in_folder("kept"), in_folder("reference"));
    assert_error(unroll_lm_train(lm, &run, &err), UNROLL_E_STATE, "diverged");
    unroll_lm_destroy(lm);
  }
  /* Whichever report it is found in. */
  assert_true(update[0] >= 2 && update[0] <= 6);
  assert_int_equal(update[0], update[1]);
}

static int use_the_model(void *ctx, const unroll_lm_progress *p) {
  unroll_lm *lm = *(unroll_lm **)ctx;
  double loss;
  const unroll_lm_train_options run = {.struct_size = sizeof run, .updates = 9};
  assert_error(unroll_lm_train(lm, &run, &err), UNROLL_E_STATE, "in a callback");
  assert_error(unroll_lm_evaluate(lm, &loss, &err), UNROLL_E_STATE, "in a callback");
  assert_ok(unroll_lm_save(lm, in_folder("inside"), &err));
  assert_int_equal(unroll_lm_describe(lm).update, p->update);
  return 0;
}

static void the_callback_may_save(void **state) {
  (void)state;
  const unroll_lm_options o = small(UNROLL_CELL_LSTM);
  unroll_lm *lm = create(&o);
  const unroll_lm_train_options run = {
      .struct_size = sizeof run, .updates = 3, .report_every = 1, .progress = use_the_model, .ctx = &lm};
  assert_ok(unroll_lm_train(lm, &run, &err));
  assert_ok(unroll_lm_save(lm, in_folder("outside"), &err));
  assert_same_files(in_folder("inside"), in_folder("outside"));
  unroll_lm_destroy(lm);
}

static void options_out_of_range(void **state) {
  (void)state;
  const unroll_lm_options good = small(UNROLL_CELL_LSTM);
  unroll_lm *lm = NULL;
#define REFUSED(change, status, words)                                                     \
  do {                                                                                     \
    unroll_lm_options o = good;                                                            \
    o.change;                                                                              \
    assert_error(unroll_lm_create(&cpu, 1, text, &o, NULL, &lm, &err), (status), (words)); \
    assert_null(lm);                                                                       \
  } while (0)
  REFUSED(struct_size = 4, UNROLL_E_INVALID, "struct_size 4");
  REFUSED(rnn.cell = 0, UNROLL_E_INVALID, "cell 0");
  REFUSED(rnn.cell = 5, UNROLL_E_INVALID, "cell 5");
  REFUSED(rnn.layers = 0, UNROLL_E_INVALID, "layers 0");
  REFUSED(rnn.layers = 17, UNROLL_E_INVALID, "layers 17");
  REFUSED(rnn.hidden = -3, UNROLL_E_INVALID, "hidden -3");
  REFUSED(embedding = 0, UNROLL_E_INVALID, "embedding 0");
  REFUSED(steps = 0, UNROLL_E_INVALID, "steps 0");
  REFUSED(training.batch = 65537, UNROLL_E_INVALID, "batch 65537");
  REFUSED(rnn.dropout = 1, UNROLL_E_INVALID, "dropout 1");
  REFUSED(rnn.dropout = (double)NAN, UNROLL_E_INVALID, "dropout nan");
  REFUSED(training.clip = -1, UNROLL_E_INVALID, "clip -1");
  REFUSED(training.validation = 1, UNROLL_E_INVALID, "validation 1");
  REFUSED(training.optimizer.kind = 9, UNROLL_E_INVALID, "optimizer 9");
  REFUSED(training.optimizer.beta1 = 1, UNROLL_E_INVALID, "beta1");
  REFUSED(training.optimizer.weight_decay = -1, UNROLL_E_INVALID, "weight decay -1");
  REFUSED(training.schedule.base = 0, UNROLL_E_INVALID, "learning rate 0");
  REFUSED(training.schedule.kind = 7, UNROLL_E_INVALID, "kind 7");
  REFUSED(steps = 200, UNROLL_E_RANGE, "at least 1401");
  REFUSED(training.validation = 0.002, UNROLL_E_RANGE, "1 characters for validation");
  unroll_lm_options huge = good;
  huge.steps = huge.training.batch = 65536;
  assert_error(unroll_lm_create(&cpu, 1, text, &huge, NULL, &lm, &err), UNROLL_E_INVALID, "past 2^31-1");
  assert_error(unroll_lm_create(&cpu, 0, text, &good, NULL, &lm, &err), UNROLL_E_INVALID, "no device");
  assert_error(unroll_lm_create(&cpu, 1, NULL, &good, NULL, &lm, &err), UNROLL_E_INVALID, "text is NULL");
  unroll_lm_destroy(NULL);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(loss_falls_with_every_cell_and_optimizer),
      cmocka_unit_test(states_begin_again_with_an_epoch),
      cmocka_unit_test(one_step_is_as_long_as_the_clip_allows),
      cmocka_unit_test(what_it_says_of_itself),
      cmocka_unit_test(resumed_is_bit_equal),
      cmocka_unit_test(loaded_and_saved_is_the_same_file),
      cmocka_unit_test(cancelled_then_saved_then_resumed),
      cmocka_unit_test(reports_change_nothing),
      cmocka_unit_test(dropout_by_seed),
      cmocka_unit_test(evaluation_and_the_best),
      cmocka_unit_test(learning_rates_follow_the_schedule),
      cmocka_unit_test(limits),
      cmocka_unit_test(diverged),
      cmocka_unit_test(the_callback_may_save),
      cmocka_unit_test(options_out_of_range),
  };
  return cmocka_run_group_tests(tests, begin, end);
}
