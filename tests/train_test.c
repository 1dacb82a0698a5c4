/* SPDX-License-Identifier: Apache-2.0 */
/* Language models on the reference device: training, saving and going on, sampling, and what is refused. */
#include <math.h>
#include <signal.h>
#include <sys/resource.h>
#include <unroll/io.h>
#include <unroll/train.h>

#include "io_support.h"

static unroll_context *context;
static unroll_device *cpu;
static unroll_text *text; /* the fixture's: one sentence, over and over */

static const char sentence[] = "the quick brown fox jumps over the lazy dog;\n";

static unroll_text *load_text(const char *line, int times) {
  const size_t bytes = strlen(line) * (size_t)times;
  char *all = malloc(bytes + 1);
  assert_non_null(all);
  for (int i = 0; i < times; i++)
    strcpy(all + strlen(line) * (size_t)i, line);
  const char *path = in_folder("text.txt");
  put_file(path, all, bytes);
  free(all);
  unroll_text *t;
  assert_ok(unroll_text_load(&path, 1, NULL, NULL, &t, &err));
  return t;
}

static int begin(void **state) {
  if (make_folder(state) != 0)
    return 1;
  assert_ok(unroll_context_create(NULL, &context, &err));
  assert_ok(unroll_device_open(context, "cpu", NULL, 0, &cpu, &err));
  text = load_text(sentence, 20); /* 900 characters */
  return 0;
}

static int end(void **state) {
  unroll_text_destroy(text);
  unroll_device_close(cpu);
  unroll_context_destroy(context);
  return remove_folder(state);
}

/* 2 layers, dropout and a validation part: all that has a state of its own. An epoch has 15 updates: floor(843/7)/8. */
static unroll_lm_options small(int32_t cell) {
  unroll_lm_options o = unroll_lm_options_default();
  o.cell = cell;
  o.layers = 2;
  o.hidden = 12;
  o.embedding = 6;
  o.steps = 8;
  o.batch = 7;
  o.dropout = 0.1;
  o.validation = 0.0625;
  o.seed = 7;
  o.schedule = (unroll_schedule){.kind = UNROLL_SCHEDULE_EXPONENTIAL, .base = 0.01, .decay = 0.5};
  return o;
}
#define EPOCH 15

static unroll_lm *create(const unroll_lm_options *o) {
  unroll_lm *lm = NULL;
  assert_ok(unroll_lm_create(&cpu, 1, text, o, NULL, &lm, &err));
  return lm;
}

static unroll_lm *load(const char *path) {
  unroll_lm *lm = NULL;
  assert_ok(unroll_lm_load(&cpu, 1, path, NULL, &lm, &err));
  return lm;
}

/* ---- a callback that remembers ---- */

#define MOST 512
struct record {
  float losses[MOST], norms[MOST];
  double rates[MOST], validation[MOST]; /* by update, counted from 0 */
  int improved[MOST];
  uint64_t first, updates, stop_at; /* stop_at 0: never */
  int reports, finals;
  unroll_lm *lm;
};

static int remember(void *ctx, const unroll_lm_progress *p) {
  struct record *r = ctx;
  assert_int_equal(p->struct_size, sizeof *p);
  assert_true(p->n_updates >= 1 && p->update <= MOST);
  if (r->reports == 0)
    r->first = p->update - p->n_updates;
  else
    assert_int_equal(p->update - p->n_updates, r->updates);
  for (uint32_t i = 0; i < p->n_updates; i++) {
    r->losses[p->update - p->n_updates + i] = p->losses[i];
    r->norms[p->update - p->n_updates + i] = p->grad_norms[i];
  }
  assert_true(p->grad_norm == (double)p->grad_norms[p->n_updates - 1]);
  assert_true(p->characters_per_second > 0 && p->seconds >= 0 && p->seconds_left >= 0);
  r->rates[p->update - 1] = p->learning_rate;
  r->validation[p->update - 1] = p->validation_loss;
  r->improved[p->update - 1] = p->improved;
  r->updates = p->update;
  r->reports++;
  r->finals += p->final;
  return p->update == r->stop_at;
}

static void train_to(unroll_lm *lm, uint64_t updates, struct record *r) {
  const unroll_lm_train_options run = {
      .struct_size = sizeof run, .report_every = 1, .updates = updates, .progress = remember, .ctx = r};
  r->reports = r->finals = 0;
  assert_ok(unroll_lm_train(lm, &run, &err));
  assert_int_equal(r->finals, 1);
  assert_int_equal(r->updates, updates);
  assert_int_equal(unroll_lm_describe(lm).update, updates);
}

static void assert_same_losses(const struct record *a, const struct record *b, uint64_t first, uint64_t n) {
  for (uint64_t i = first; i < n; i++) {
    if (memcmp(&a->losses[i], &b->losses[i], sizeof a->losses[0]) != 0)
      print_error("update %d: %.9g and %.9g\n", (int)i + 1, (double)a->losses[i], (double)b->losses[i]);
    assert_memory_equal(&a->losses[i], &b->losses[i], sizeof a->losses[0]);
    assert_memory_equal(&a->norms[i], &b->norms[i], sizeof a->norms[0]);
  }
}

static void assert_same_files(const char *a, const char *b) {
  size_t size_a, size_b;
  char *bytes_a = get_file(a, &size_a), *bytes_b = get_file(b, &size_b);
  assert_int_equal(size_a, size_b);
  assert_memory_equal(bytes_a, bytes_b, size_a);
  free(bytes_a);
  free(bytes_b);
}

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
    o.optimizer = optimizers[i];
    o.schedule = (unroll_schedule){.kind = UNROLL_SCHEDULE_CONSTANT, .base = rates[i]};
    o.dropout = 0;
    o.hidden = 24;
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
  const unroll_lm_options o = small(UNROLL_CELL_LSTM);
  struct record r = {0};
  unroll_lm *lm = create(&o);
  train_to(lm, 5, &r);
  assert_ok(unroll_lm_save(lm, in_folder("a"), &err));
  unroll_lm_destroy(lm);
  lm = load(in_folder("a"));
  const unroll_lm_info info = unroll_lm_describe(lm);
  assert_int_equal(info.options.cell, UNROLL_CELL_LSTM);
  assert_true(info.options.dropout == o.dropout && info.options.schedule.base == o.schedule.base);
  assert_true(info.options.optimizer.epsilon == o.optimizer.epsilon);
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
  o.dropout = 0.5;
  struct record a = {0}, b = {0}, other = {0}, none = {0};
  unroll_lm *lm = create(&o);
  train_to(lm, 4, &a);
  unroll_lm_destroy(lm);
  lm = create(&o);
  train_to(lm, 4, &b);
  unroll_lm_destroy(lm);
  assert_same_losses(&a, &b, 0, 4);
  o.seed = 8;
  lm = create(&o);
  train_to(lm, 4, &other);
  unroll_lm_destroy(lm);
  o.seed = 7;
  o.dropout = 0;
  lm = create(&o);
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
  without.validation = 0;
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

  o.schedule = (unroll_schedule){.kind = UNROLL_SCHEDULE_COSINE, .base = 0.02, .minimum = 0.001};
  lm = create(&o);
  const unroll_lm_train_options timed = {.struct_size = sizeof timed, .minutes = 1};
  assert_error(unroll_lm_train(lm, &timed, &err), UNROLL_E_INVALID, "cosine: its total is 0");
  train_to(lm, 12, &r);
  assert_true(r.rates[0] == 0.02 && fabs(r.rates[6] - 0.0105) < 1e-15 && r.rates[11] > 0.001);
  assert_true(unroll_lm_describe(lm).options.schedule.total == 12.0 / EPOCH);
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
  o.clip = 0;
  o.dropout = 0;
  o.optimizer = (unroll_optimizer_attr){.kind = UNROLL_SGD};
  struct record r = {0};
  unroll_lm *lm = create(&o);
  assert_ok(unroll_lm_save(lm, in_folder("kept"), &err));
  assert_ok(unroll_lm_save(lm, in_folder("reference"), &err));
  const unroll_schedule wild = {.kind = UNROLL_SCHEDULE_CONSTANT, .base = 1e38};
  assert_ok(unroll_lm_set_schedule(lm, &wild, &err));
  const unroll_lm_train_options run = {.struct_size = sizeof run, .updates = 50, .progress = remember, .ctx = &r};
  unroll_error found = UNROLL_ERROR_INIT;
  assert_int_equal(unroll_lm_train(lm, &run, &found), UNROLL_E_RANGE);
  unsigned update = 0;
  assert_int_equal(sscanf(found.message, "the training diverged at update %u", &update), 1);
  assert_true(update >= 2 && update <= 6);
  assert_true(r.updates < update);
  assert_error(unroll_lm_save(lm, in_folder("kept"), &err), UNROLL_E_STATE, "diverged at update");
  assert_same_files(in_folder("kept"), in_folder("reference"));
  assert_error(unroll_lm_train(lm, &run, &err), UNROLL_E_STATE, "diverged");
  unroll_lm_destroy(lm);
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
  REFUSED(cell = 0, UNROLL_E_INVALID, "cell 0");
  REFUSED(cell = 5, UNROLL_E_INVALID, "cell 5");
  REFUSED(layers = 0, UNROLL_E_INVALID, "layers 0");
  REFUSED(layers = 17, UNROLL_E_INVALID, "layers 17");
  REFUSED(hidden = -3, UNROLL_E_INVALID, "hidden -3");
  REFUSED(embedding = 0, UNROLL_E_INVALID, "embedding 0");
  REFUSED(steps = 0, UNROLL_E_INVALID, "steps 0");
  REFUSED(batch = 65537, UNROLL_E_INVALID, "batch 65537");
  REFUSED(dropout = 1, UNROLL_E_INVALID, "dropout 1");
  REFUSED(dropout = (double)NAN, UNROLL_E_INVALID, "dropout nan");
  REFUSED(clip = -1, UNROLL_E_INVALID, "clip -1");
  REFUSED(validation = 1, UNROLL_E_INVALID, "validation 1");
  REFUSED(optimizer.kind = 9, UNROLL_E_INVALID, "optimizer 9");
  REFUSED(optimizer.beta1 = 1, UNROLL_E_INVALID, "beta1");
  REFUSED(optimizer.weight_decay = -1, UNROLL_E_INVALID, "weight decay -1");
  REFUSED(schedule.base = 0, UNROLL_E_INVALID, "learning rate 0");
  REFUSED(schedule.kind = 7, UNROLL_E_INVALID, "kind 7");
  REFUSED(steps = 200, UNROLL_E_RANGE, "at least 1401");
  REFUSED(validation = 0.002, UNROLL_E_RANGE, "1 characters for validation");
  unroll_lm_options huge = good;
  huge.steps = huge.batch = 65536;
  assert_error(unroll_lm_create(&cpu, 1, text, &huge, NULL, &lm, &err), UNROLL_E_INVALID, "past 2^31-1");
  assert_error(unroll_lm_create(&cpu, 0, text, &good, NULL, &lm, &err), UNROLL_E_INVALID, "no device");
  assert_error(unroll_lm_create(&cpu, 1, NULL, &good, NULL, &lm, &err), UNROLL_E_INVALID, "text is NULL");
  unroll_lm_destroy(NULL);
}

/* ---- files ---- */

/* A copy of a model's file with one thing changed, its checksum right again. */
struct change {
  const char *key, *value; /* of the metadata; value NULL: left out */
  const char *drop, *grow; /* a tensor that is left out, and one that has one row too few */
  const char *extra;       /* a tensor that is added */
  int32_t dtype;           /* of `grow`, where not 0 */
};

static void write_changed(const char *from, const char *to, const struct change *c) {
  unroll_safetensors *file;
  unroll_safetensors_writer *writer;
  assert_ok(unroll_safetensors_open(from, NULL, &file, &err));
  assert_ok(unroll_safetensors_writer_create(to, NULL, &writer, &err));
  for (uint64_t i = 0; i < unroll_safetensors_metadata_count(file); i++) {
    const char *key, *value;
    assert_ok(unroll_safetensors_metadata_get(file, i, &key, &value, &err));
    if (strcmp(key, UNROLL_CHECKSUM_KEY) != 0 && (!c->key || strcmp(key, c->key) != 0))
      assert_ok(unroll_safetensors_writer_metadata(writer, key, value, &err));
  }
  if (c->key && c->value)
    assert_ok(unroll_safetensors_writer_metadata(writer, c->key, c->value, &err));
  for (uint64_t i = 0; i < unroll_safetensors_count(file); i++) {
    unroll_stored_tensor t;
    assert_ok(unroll_safetensors_get(file, i, &t, &err));
    if (c->drop && strcmp(c->drop, t.name) == 0)
      continue;
    if (c->grow && strcmp(c->grow, t.name) == 0) {
      t.shape[0]--;
      t.dtype = c->dtype ? c->dtype : t.dtype;
    }
    assert_ok(unroll_safetensors_writer_add(writer, t.name, t.dtype, t.rank, t.shape, t.data, &err));
  }
  if (c->extra)
    assert_ok(unroll_safetensors_writer_add(writer, c->extra, UNROLL_F32, 0, NULL, "four", &err));
  assert_ok(unroll_safetensors_writer_commit(writer, &err));
  unroll_safetensors_writer_destroy(writer);
  unroll_safetensors_close(file);
}

#define MODEL "{\"cell\":\"gru_after\",\"layers\":2,\"hidden\":12,\"embedding\":6,\"vocabulary\":29}"

static void what_a_file_may_not_be(void **state) {
  (void)state;
  const unroll_lm_options o = small(UNROLL_CELL_GRU_AFTER);
  unroll_lm *lm = create(&o);
  assert_ok(unroll_lm_save(lm, in_folder("good"), &err));
  unroll_lm_destroy(lm);
  const struct {
    struct change change;
    unroll_status status;
    const char *words;
  } cases[] = {
      {{.key = "unroll.model", .value = MODEL}, UNROLL_OK, ""},
      {{.key = "unroll.version", .value = NULL}, UNROLL_OK, ""},
      {{.key = "unroll.kind", .value = NULL}, UNROLL_E_FORMAT, "no model of unroll"},
      {{.key = "unroll.kind", .value = "soup"}, UNROLL_E_FORMAT, "another kind of file: unroll.kind is 'soup'"},
      {{.key = "unroll.format", .value = "2"}, UNROLL_E_UNSUPPORTED, "format 2, written by unroll"},
      {{.key = "unroll.format", .value = "0"}, UNROLL_E_FORMAT, "unroll.format is '0'"},
      {{.key = "unroll.format", .value = NULL}, UNROLL_E_FORMAT, "unroll.format is ''"},
      {{.key = "unroll.model", .value = NULL}, UNROLL_E_FORMAT, "no metadata unroll.model"},
      {{.key = "unroll.model", .value = "{}"}, UNROLL_E_FORMAT, "unroll.model"},
      {{.key = "unroll.model", .value = "{\"cell\":\"gru\"}"}, UNROLL_E_FORMAT, "layers is missing"},
      {{.key = "unroll.model", .value = "{\"cell\":\"tree\"}"}, UNROLL_E_FORMAT, "cell 'tree' is none"},
      {{.key = "unroll.model", .value = "{\"taste\":1}"}, UNROLL_E_FORMAT, "'taste' is no field"},
      {{.key = "unroll.model", .value = "{\"layers\":1,\"layers\":1}"}, UNROLL_E_FORMAT, "layers stands there twice"},
      {{.key = "unroll.model", .value = MODEL "x"}, UNROLL_E_FORMAT, "unroll.model: JSON"},
      {{.key = "unroll.model",
        .value = "{\"cell\":\"gru_after\",\"layers\":2,\"hidden\":13,\"embedding\":6,\"vocabulary\":29}"},
       UNROLL_E_FORMAT,
       "tensor h.0 is f32 [7,12], the model's options make it f32 [7,13]"},
      {{.key = "unroll.model",
        .value = "{\"cell\":\"gru_after\",\"layers\":99,\"hidden\":12,\"embedding\":6,\"vocabulary\":29}"},
       UNROLL_E_FORMAT,
       "layers 99"},
      {{.key = "unroll.model",
        .value = "{\"cell\":\"gru_after\",\"layers\":2,\"hidden\":12,\"embedding\":6,\"vocabulary\":30}"},
       UNROLL_E_FORMAT,
       "says 30 characters, unroll.vocabulary has 29"},
      {{.key = "unroll.vocabulary", .value = NULL}, UNROLL_E_FORMAT, "no metadata unroll.vocabulary"},
      {{.key = "unroll.vocabulary", .value = "[\"a\"]"}, UNROLL_E_FORMAT, "unroll.vocabulary: "},
      {{.key = "unroll.training", .value = "{\"dropout\":nan}"}, UNROLL_E_FORMAT, "unroll.training: JSON"},
      {{.key = "unroll.training", .value = "{\"dropout\":0x1p-1}"}, UNROLL_E_FORMAT, "unroll.training: JSON"},
      {{.key = "unroll.training", .value = "{\"dropout\":1e999}"}, UNROLL_E_FORMAT, "no finite number"},
      {{.key = "unroll.position", .value = "{\"update\":1,\"best_update\":2,\"best_validation_loss\":1.5}"},
       UNROLL_E_FORMAT,
       "best_update 2 is after update 1"},
      {{.key = "unroll.text", .value = "{\"hash\":\"12\",\"characters\":900}"}, UNROLL_E_FORMAT, "hash '12'"},
      {{.drop = "linear.b"}, UNROLL_E_FORMAT, "tensor linear.b is missing"},
      {{.drop = "rnn.W_h.1.0.s2"}, UNROLL_E_FORMAT, "tensor rnn.W_h.1.0.s2 is missing"},
      {{.drop = "h.1"}, UNROLL_E_FORMAT, "tensor h.1 is missing"},
      {{.grow = "rnn.b_n.1.0"},
       UNROLL_E_FORMAT,
       "tensor rnn.b_n.1.0 is f32 [11], the model's options make it f32 [12]"},
      {{.grow = "rnn.b_n.1.0", .dtype = UNROLL_I32}, UNROLL_E_FORMAT, "tensor rnn.b_n.1.0 is i32 [11]"},
      {{.extra = "attention"}, UNROLL_E_FORMAT, "tensor attention is none of this model's"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    write_changed(in_folder("good"), in_folder("changed"), &cases[i].change);
    lm = NULL;
    if (cases[i].status == UNROLL_OK) {
      assert_ok(unroll_lm_load(&cpu, 1, in_folder("changed"), NULL, &lm, &err));
      unroll_lm_destroy(lm);
      continue;
    }
    assert_error(unroll_lm_load(&cpu, 1, in_folder("changed"), NULL, &lm, &err), cases[i].status, cases[i].words);
    assert_error(unroll_lm_load(&cpu, 1, in_folder("changed"), NULL, &lm, &err), cases[i].status, "/changed: ");
    assert_null(lm);
  }
  put_file(in_folder("changed"), "hello, world", 12);
  assert_error(unroll_lm_load(&cpu, 1, in_folder("changed"), NULL, &lm, &err), UNROLL_E_FORMAT, "/changed: ");
  assert_error(unroll_lm_load(&cpu, 1, in_folder("nowhere"), NULL, &lm, &err), UNROLL_E_IO, "/nowhere: ");
}

static void cut_and_flipped(void **state) {
  (void)state;
  unroll_lm_options o = small(UNROLL_CELL_RNN);
  o.layers = 1;
  o.hidden = 3;
  o.embedding = 2;
  o.batch = 2;
  unroll_lm *lm = create(&o);
  assert_ok(unroll_lm_save(lm, in_folder("good"), &err));
  unroll_lm_destroy(lm);
  size_t size;
  char *bytes = get_file(in_folder("good"), &size);
  for (size_t i = 0; i < size; i += i < 3000 ? 7 : 101) {
    lm = NULL;
    put_file(in_folder("bad"), bytes, i);
    assert_int_not_equal(unroll_lm_load(&cpu, 1, in_folder("bad"), NULL, &lm, NULL), UNROLL_OK);
    bytes[i] ^= (char)(1 << i % 8);
    put_file(in_folder("bad"), bytes, size);
    assert_int_not_equal(unroll_lm_load(&cpu, 1, in_folder("bad"), NULL, &lm, NULL), UNROLL_OK);
    bytes[i] ^= (char)(1 << i % 8);
    assert_null(lm);
  }
  free(bytes);
}

static void another_text_is_refused(void **state) {
  (void)state;
  const unroll_lm_options o = small(UNROLL_CELL_RNN);
  unroll_lm *lm = create(&o);
  assert_error(unroll_lm_resume(lm, text, &err), UNROLL_E_STATE, "a text already");
  assert_ok(unroll_lm_save(lm, in_folder("m"), &err));
  unroll_lm_destroy(lm);
  lm = load(in_folder("m"));
  const unroll_lm_train_options run = {.struct_size = sizeof run, .updates = 1};
  assert_error(unroll_lm_train(lm, &run, &err), UNROLL_E_STATE, "before it is resumed");
  unroll_text *other = load_text(sentence, 21);
  assert_error(unroll_lm_resume(lm, other, &err), UNROLL_E_STATE, "another text");
  assert_error(unroll_lm_resume(lm, other, &err), UNROLL_E_STATE, "of 945 characters");
  unroll_text_destroy(other);
  assert_ok(unroll_lm_resume(lm, text, &err));
  assert_ok(unroll_lm_train(lm, &run, &err));
  unroll_lm_destroy(lm);
}

static void no_room_on_the_disk(void **state) {
  (void)state;
  const unroll_lm_options o = small(UNROLL_CELL_RNN);
  struct record r = {0};
  unroll_lm *lm = create(&o);
  assert_ok(unroll_lm_save(lm, in_folder("m"), &err));
  assert_ok(unroll_lm_save(lm, in_folder("copy"), &err));
  train_to(lm, 2, &r);
  const int files = folder_entries(0);
  struct rlimit old, tight;
  assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
  tight = old;
  tight.rlim_cur = 4096;
  void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
  assert_int_equal(setrlimit(RLIMIT_FSIZE, &tight), 0);
  unroll_error found = UNROLL_ERROR_INIT;
  const unroll_status status = unroll_lm_save(lm, in_folder("m"), &found);
  assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
  signal(SIGXFSZ, handler);
  assert_int_equal(status, UNROLL_E_IO);
  assert_non_null(strstr(found.message, "/m"));
  assert_same_files(in_folder("m"), in_folder("copy"));
  assert_int_equal(folder_entries(0), files);
  assert_ok(unroll_lm_save(lm, in_folder("m"), &err));
  unroll_lm *again = load(in_folder("m"));
  assert_int_equal(unroll_lm_describe(again).update, 2);
  unroll_lm_destroy(again);
  unroll_lm_destroy(lm);
}

static void memory_runs_out(void **state) {
  (void)state;
  unroll_lm_options o = small(UNROLL_CELL_LSTM);
  o.layers = 1;
  struct counting c = {0, 0, 0};
  const unroll_allocator allocator = counting_allocator(&c);
  unroll_lm *lm = create(&o);
  assert_ok(unroll_lm_save(lm, in_folder("m"), &err));
  unroll_lm_destroy(lm);
  unroll_status status = UNROLL_E_MEMORY;
  for (long n = 1; status != UNROLL_OK; n++) {
    c = (struct counting){0, 0, n};
    lm = NULL;
    status = unroll_lm_load(&cpu, 1, in_folder("m"), &allocator, &lm, NULL);
    if (status == UNROLL_OK) {
      assert_true(c.calls < n);
      c.fail_at = c.calls + 1;
      assert_int_equal(unroll_lm_save(lm, in_folder("n"), NULL), UNROLL_E_MEMORY);
      assert_ok(unroll_lm_save(lm, in_folder("n"), &err));
      assert_same_files(in_folder("m"), in_folder("n"));
    } else {
      assert_int_equal(status, UNROLL_E_MEMORY);
      assert_null(lm);
    }
    unroll_lm_destroy(lm);
    assert_int_equal(c.live, 0);
  }
  status = UNROLL_E_MEMORY;
  for (long n = 1; status != UNROLL_OK; n++) {
    c = (struct counting){0, 0, n};
    lm = NULL;
    status = unroll_lm_create(&cpu, 1, text, &o, &allocator, &lm, NULL);
    assert_true(status == UNROLL_OK || status == UNROLL_E_MEMORY);
    unroll_lm_destroy(lm);
    assert_int_equal(c.live, 0);
  }
}

/* ---- sampling ---- */

struct output {
  char bytes[2048];
  size_t size;
  int pieces, stop_after; /* stop_after 0: never */
};

static int collect(void *ctx, const char *piece, size_t bytes) {
  struct output *out = ctx;
  assert_true(out->size + bytes < sizeof out->bytes && strlen(piece) == bytes);
  memcpy(out->bytes + out->size, piece, bytes + 1);
  out->size += bytes;
  return ++out->pieces == out->stop_after;
}

static struct output sample(unroll_lm *lm, const char *prompt, uint64_t length, double temperature, int64_t top_k,
                            uint64_t seed) {
  struct output out = {.size = 0};
  const unroll_lm_sample_options s = {.struct_size = sizeof s,
                                      .prompt = prompt,
                                      .length = length,
                                      .temperature = temperature,
                                      .top_k = top_k,
                                      .seed = seed};
  assert_ok(unroll_lm_sample(lm, &s, collect, &out, &err));
  assert_int_equal(out.size, length); /* the fixture's characters are ASCII */
  return out;
}

static unroll_lm *memorised(void) {
  unroll_lm_options o = small(UNROLL_CELL_GRU);
  o.layers = 1;
  o.hidden = 40;
  o.embedding = 16;
  o.dropout = 0;
  o.schedule = (unroll_schedule){.kind = UNROLL_SCHEDULE_CONSTANT, .base = 0.01};
  struct record r = {0};
  unroll_lm *lm = create(&o);
  train_to(lm, 300, &r);
  return lm;
}

static void greedy_says_what_it_learnt(void **state) {
  (void)state;
  unroll_lm *lm = memorised();
  char expected[4 * sizeof sentence] = "";
  for (int i = 0; i < 3; i++)
    strcat(expected, sentence);
  const struct output out = sample(lm, sentence, 3 * strlen(sentence), 0, 0, 1);
  assert_string_equal(out.bytes, expected);
  /* Halfway in, and out of a file. */
  assert_ok(unroll_lm_save(lm, in_folder("m"), &err));
  unroll_lm *loaded = load(in_folder("m"));
  const struct output half = sample(loaded, "the quick brown fox", 25, 0, 0, 1);
  assert_memory_equal(half.bytes, sentence + 19, 25);
  /* The likeliest one alone, whatever the temperature; no prompt begins as after a newline. */
  assert_string_equal(sample(loaded, "the quick brown fox", 25, 5, 1, 3).bytes, half.bytes);
  assert_string_equal(sample(loaded, NULL, 60, 0, 0, 1).bytes, sample(loaded, "\n", 60, 0, 0, 1).bytes);
  unroll_lm_destroy(loaded);
  unroll_lm_destroy(lm);
}

static void sampled_by_seed(void **state) {
  (void)state;
  const unroll_lm_options o = small(UNROLL_CELL_LSTM);
  struct record a = {0}, b = {0};
  unroll_lm *lm = create(&o);
  train_to(lm, 12, &a);
  assert_ok(unroll_lm_save(lm, in_folder("m"), &err));
  const struct output out = sample(lm, "the ", 300, 1, 0, 5);
  assert_string_equal(sample(lm, "the ", 300, 1, 0, 5).bytes, out.bytes);
  assert_string_not_equal(sample(lm, "the ", 300, 1, 0, 6).bytes, out.bytes);
  assert_string_not_equal(sample(lm, "the ", 300, 0.5, 0, 5).bytes, out.bytes);
  assert_string_not_equal(sample(lm, "the ", 300, 1, 3, 5).bytes, out.bytes);
  /* The longer text begins as the shorter one. */
  assert_memory_equal(sample(lm, "the ", 7, 1, 0, 5).bytes, out.bytes, 7);
  assert_int_equal(sample(lm, "the ", 0, 1, 0, 5).pieces, 0);
  /* Training changes what is sampled. It goes on as if nothing had been sampled, and a loaded model samples the same. */
  train_to(lm, 16, &a);
  const struct output later = sample(lm, "the ", 300, 1, 0, 5);
  assert_string_not_equal(later.bytes, out.bytes);
  unroll_lm_destroy(lm);
  lm = load(in_folder("m"));
  assert_string_equal(sample(lm, "the ", 300, 1, 0, 5).bytes, out.bytes);
  assert_ok(unroll_lm_resume(lm, text, &err));
  assert_string_equal(sample(lm, "the ", 300, 1, 0, 5).bytes, out.bytes);
  train_to(lm, 16, &b);
  assert_same_losses(&a, &b, 12, 16);
  assert_string_equal(sample(lm, "the ", 300, 1, 0, 5).bytes, later.bytes);
  unroll_lm_destroy(lm);
}

static void refused_samples(void **state) {
  (void)state;
  const unroll_lm_options o = small(UNROLL_CELL_RNN);
  unroll_lm *lm = create(&o);
  struct output out = {.size = 0};
  unroll_lm_sample_options s = {.struct_size = sizeof s, .prompt = "fox\xc3\xa9", .length = 5, .temperature = 1};
  assert_error(unroll_lm_sample(lm, &s, collect, &out, &err), UNROLL_E_NOT_FOUND, "prompt: ");
  assert_error(unroll_lm_sample(lm, &s, collect, &out, &err), UNROLL_E_NOT_FOUND, "U+00E9");
  s.prompt = "fox\xff";
  assert_error(unroll_lm_sample(lm, &s, collect, &out, &err), UNROLL_E_FORMAT, "prompt: ");
  s.prompt = "fox";
  s.temperature = -1;
  assert_error(unroll_lm_sample(lm, &s, collect, &out, &err), UNROLL_E_INVALID, "temperature -1");
  s.temperature = (double)NAN;
  assert_error(unroll_lm_sample(lm, &s, collect, &out, &err), UNROLL_E_INVALID, "temperature nan");
  s.temperature = 1;
  s.top_k = 30;
  assert_error(unroll_lm_sample(lm, &s, collect, &out, &err), UNROLL_E_INVALID, "top_k 30");
  assert_int_equal(out.pieces, 0);
  s.top_k = 0;
  s.length = 1000;
  out.stop_after = 2;
  assert_error(unroll_lm_sample(lm, &s, collect, &out, &err), UNROLL_E_CANCELLED, "cancelled");
  assert_int_equal(out.pieces, 2);
  assert_true(out.size < 1000);
  unroll_lm_destroy(lm);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(loss_falls_with_every_cell_and_optimizer),
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
      cmocka_unit_test(what_a_file_may_not_be),
      cmocka_unit_test(cut_and_flipped),
      cmocka_unit_test(another_text_is_refused),
      cmocka_unit_test(no_room_on_the_disk),
      cmocka_unit_test(memory_runs_out),
      cmocka_unit_test(greedy_says_what_it_learnt),
      cmocka_unit_test(sampled_by_seed),
      cmocka_unit_test(refused_samples),
  };
  return cmocka_run_group_tests(tests, begin, end);
}
