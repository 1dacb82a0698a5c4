/* SPDX-License-Identifier: Apache-2.0 */
/* What a language model reads and when it is updated: windows that overlap or grow, words, texts that are scored. */
#include "train_support.h"

/* ---- windows ---- */

/* Without dropout, and with a learning rate that moves nothing, losses are those of the first parameters. */
static unroll_lm_options still(int32_t cell) {
  unroll_lm_options o = small(cell);
  o.rnn.dropout = 0;
  o.training.optimizer = (unroll_optimizer_attr){.kind = UNROLL_SGD};
  o.training.schedule = (unroll_schedule){.kind = UNROLL_SCHEDULE_CONSTANT, .base = 1e-30};
  return o;
}

static void windows_overlap(void **state) {
  (void)state;
  unroll_lm_options o = small(UNROLL_CELL_LSTM);
  struct record plain = {0}, same = {0};
  unroll_lm *lm = create(&o);
  train_to(lm, 20, &plain);
  unroll_lm_destroy(lm);
  o.update_steps = o.steps; /* k1 = k2 */
  lm = create(&o);
  train_to(lm, 20, &same);
  unroll_lm_destroy(lm);
  assert_same_losses(&plain, &same, 0, 20);

  /* Every character counts once, and as it does in windows side by side. */
  o = still(UNROLL_CELL_GRU);
  o.steps = 2;
  struct record twos = {0}, overlapping = {0};
  lm = create(&o);
  train_to(lm, 60, &twos);
  unroll_lm_destroy(lm);
  o.steps = 8;
  o.update_steps = 2;
  lm = create(&o);
  assert_int_equal(unroll_lm_describe(lm).updates_per_epoch, 1 + (120 - 8) / 2);
  train_to(lm, 2 * 57, &overlapping);
  unroll_lm_destroy(lm);
  double first = 0;
  for (int i = 0; i < 4; i++)
    first += (double)twos.losses[i] / 4;
  assert_true(fabs((double)overlapping.losses[0] - first) < 1e-6);
  for (int i = 1; i < 57; i++) {
    assert_true(fabs((double)overlapping.losses[i] - (double)twos.losses[3 + i]) < 1e-6);
    assert_true(overlapping.losses[57 + i] == overlapping.losses[i]); /* from a zero state again */
  }
}

/* Losses and norms of float64 PyTorch: golden/train_reference.py --dtype float64 --updates 6, over the fixture's text,
 * from each model's file as it is before its first update. */
static void two_ks_as_pytorch_has_them(void **state) {
  (void)state;
  static const struct {
    int32_t cell;
    int64_t k1;
    double losses[6], norms[6];
  } expected[] = {
      {UNROLL_CELL_LSTM,
       3,
       {3.377377422, 3.286656891, 3.419561179, 3.191524274, 3.270895964, 3.528303951},
       {0.2646981141, 0.6055850101, 0.4691130114, 0.5936838181, 0.6018270732, 0.5459502607}},
      {UNROLL_CELL_GRU_AFTER,
       1,
       {3.424327071, 3.292221497, 3.145639346, 3.453084082, 3.14239459, 3.817501837},
       {0.4184927886, 1.310031665, 1.008977394, 1.659650603, 1.212884853, 1.646110779}},
      {UNROLL_CELL_RNN,
       5,
       {3.366004666, 3.495337941, 3.355977929, 3.082639832, 3.039378972, 2.932425968},
       {0.8500104031, 1.210515567, 1.177775147, 1.276020073, 0.9442376997, 0.9943536332}},
  };
  for (size_t k = 0; k < sizeof expected / sizeof expected[0]; k++) {
    unroll_lm_options o = small(expected[k].cell);
    o.rnn.dropout = 0;
    o.training.clip = 0;
    o.update_steps = expected[k].k1;
    o.training.optimizer = (unroll_optimizer_attr){.kind = UNROLL_SGD};
    o.training.schedule = (unroll_schedule){.kind = UNROLL_SCHEDULE_CONSTANT, .base = 0.5};
    struct record r = {0};
    unroll_lm *lm = create(&o);
    train_to(lm, 6, &r);
    unroll_lm_destroy(lm);
    /* float32 against float64, as train_reference.py says of the losses; a norm is a longer sum */
    for (int i = 0; i < 6; i++) {
      assert_true(fabs((double)r.losses[i] - expected[k].losses[i]) < 1e-6 * expected[k].losses[i]);
      assert_true(fabs((double)r.norms[i] - expected[k].norms[i]) < 1e-5 * expected[k].norms[i]);
    }
  }
}

struct epochs {
  double of[MOST];
};
static int note_epochs(void *ctx, const unroll_lm_progress *p) {
  ((struct epochs *)ctx)->of[p->update] = p->epoch;
  return 0;
}

static void lengths_grow(void **state) {
  (void)state;
  unroll_lm_options o = still(UNROLL_CELL_LSTM);
  struct record plain = {0}, grown = {0};
  unroll_lm *lm = create(&o);
  train_to(lm, EPOCH, &plain);
  unroll_lm_destroy(lm);
  o.steps_start = 2; /* 2, 5, 8 of a stream of 120: 60, 24, 15 updates */
  o.steps_increment = 3;
  lm = create(&o);
  assert_int_equal(unroll_lm_describe(lm).updates_per_epoch, 60);
  train_to(lm, 60 + 24 + EPOCH + 1, &grown);
  assert_int_equal(unroll_lm_describe(lm).updates_per_epoch, 15);
  unroll_lm_destroy(lm);
  for (int i = 0; i < EPOCH; i++) {
    double four = 0;
    for (int k = 0; k < 4; k++)
      four += (double)grown.losses[4 * i + k] / 4;
    assert_true(fabs(four - (double)plain.losses[i]) < 1e-6);
    assert_true(fabs((double)grown.losses[84 + i] - (double)plain.losses[i]) < 1e-6);
  }
  struct epochs e = {{0}};
  const unroll_lm_train_options run = {
      .struct_size = sizeof run, .report_every = 1, .epochs = 3.4, .progress = note_epochs, .ctx = &e};
  lm = create(&o);
  assert_ok(unroll_lm_train(lm, &run, &err));
  assert_int_equal(unroll_lm_describe(lm).update, 60 + 24 + 15 + 6);
  assert_true(e.of[30] == 0.5 && e.of[60] == 1 && e.of[66] == 1.25 && e.of[84] == 2 && e.of[99] == 3);
  unroll_lm_destroy(lm);
}

/* The same losses on another backend, with windows and parts of every kind. */
static void opencl_reads_the_same(void **state) {
  (void)state;
  unroll_error error = UNROLL_ERROR_INIT;
  unroll_device *opencl = NULL;
  const unroll_status status = unroll_device_open(context, "opencl", NULL, 0, &opencl, &error);
  if (status == UNROLL_E_NOT_FOUND)
    skip();
  assert_int_equal(status, UNROLL_OK);
  for (int k = 0; k < 3; k++) {
    unroll_lm_options o = small(UNROLL_CELL_LSTM);
    o.training.batch = 6;
    o.training.accumulate = 3;
    o.training.warmup = 4;
    o.training.nonfinite = UNROLL_NONFINITE_SKIP;
    o.training.freeze = "linear.b";
    o.training.l2 = "rnn.*=1e-3";
    o.training.recurrent_decay = 1e-3;
    o.update_steps = k == 1 ? 3 : 0;
    o.steps_start = o.steps_increment = k == 2 ? 3 : 0;
    struct record here = {0}, there = {0};
    unroll_lm *lm = create(&o);
    train_to(lm, 70, &here);
    unroll_lm_destroy(lm);
    assert_ok(unroll_lm_create(&opencl, 1, text, &o, NULL, &lm, &err));
    train_to(lm, 70, &there);
    unroll_lm_destroy(lm);
    for (int i = 0; i < 70; i++) /* as for any two backends */
      assert_true(fabs((double)here.losses[i] - (double)there.losses[i]) < 1e-3 * (double)here.losses[i]);
  }
  unroll_device_close(opencl);
}

/* ---- words, and scores ---- */

static int append(void *ctx, const char *piece, size_t bytes) {
  char *all = ctx;
  assert_true(strlen(all) + bytes < 1024 && strlen(piece) == bytes);
  strcat(all, piece);
  return 0;
}

static void words_are_learnt_and_written(void **state) {
  (void)state;
  const char *path = in_folder("text.txt"); /* the fixture's */
  const unroll_text_options unit = {.unit = UNROLL_UNIT_WORD};
  unroll_text *words;
  assert_ok(unroll_text_load(&path, 1, &unit, NULL, &words, &err));
  unroll_lm_options o = small(UNROLL_CELL_GRU);
  o.rnn.dropout = 0;
  o.steps = 5;
  o.training.batch = 4;
  o.training.schedule = (unroll_schedule){.kind = UNROLL_SCHEDULE_CONSTANT, .base = 0.02};
  unroll_lm *lm;
  assert_ok(unroll_lm_create(&cpu, 1, words, &o, NULL, &lm, &err));
  struct record r = {0};
  train_to(lm, 200, &r);
  assert_true(r.losses[199] < 0.1f);
  assert_ok(unroll_lm_save(lm, in_folder("words"), &err));
  unroll_lm_destroy(lm);
  lm = load(in_folder("words"));
  assert_ok(unroll_lm_resume(lm, words, &err));
  const char *const prompts[] = {"the quick", "the quick ", "lazy dog;\n"};
  const char *const expected[] = {" brown fox jumps over the lazy dog;\nthe quick", "brown fox jumps",
                                  "the quick brown"};
  const uint64_t lengths[] = {10, 3, 3};
  for (int i = 0; i < 3; i++) {
    char all[1024] = "";
    const unroll_lm_sample_options s = {.struct_size = sizeof s, .prompt = prompts[i], .length = lengths[i]};
    assert_ok(unroll_lm_sample(lm, &s, append, all, &err));
    assert_string_equal(all, expected[i]);
  }
  const unroll_lm_sample_options blank = {.struct_size = sizeof blank, .prompt = " \t", .length = 1};
  char all[1024] = "";
  assert_error(unroll_lm_sample(lm, &blank, append, all, &err), UNROLL_E_FORMAT, "prompt: nothing but white space");
  unroll_lm_destroy(lm);
  unroll_text_destroy(words);
}

static void a_text_is_scored(void **state) {
  (void)state;
  const unroll_lm_options o = small(UNROLL_CELL_LSTM);
  struct record r = {0};
  unroll_lm *lm = create(&o);
  unroll_lm_score_info before, after, again;
  assert_ok(unroll_lm_score(lm, text, &before, &err));
  assert_int_equal(before.count, 16 * 8 * 7); /* floor(899/7) = 128, in steps of 8 */
  /* Of 45 characters: o four times, e three; r, h, t, u and the space come 2, 2, 2, 2 and 8 times; 22 once. */
  const int many[] = {4, 3, 2, 2, 2, 2, 8};
  double entropy = 22 * log(45) / 45;
  for (int i = 0; i < 7; i++)
    entropy += many[i] / 45.0 * log(45.0 / many[i]);
  assert_true(fabs(before.unigram - entropy) < 1e-12);
  train_to(lm, 30, &r);
  assert_ok(unroll_lm_score(lm, text, &after, &err));
  assert_true(after.loss < before.loss && fabs(before.loss - log(29)) < 0.7);
  /* Training goes on as if nothing had been, and a model out of its file gives the same. */
  struct record whole = {0};
  train_to(lm, 40, &r);
  assert_ok(unroll_lm_save(lm, in_folder("m"), &err));
  assert_ok(unroll_lm_score(lm, text, &after, &err));
  unroll_lm_destroy(lm);
  lm = create(&o);
  train_to(lm, 40, &whole);
  assert_same_losses(&whole, &r, 0, 40);
  unroll_lm_destroy(lm);
  lm = load(in_folder("m"));
  assert_ok(unroll_lm_score(lm, text, &again, &err));
  assert_true(again.loss == after.loss && again.count == after.count);
  unroll_text *other = load_text("another one ", 9);
  assert_error(unroll_lm_score(lm, other, &again, &err), UNROLL_E_INVALID, "another vocabulary");
  unroll_text_destroy(other);
  unroll_lm_destroy(lm);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(windows_overlap),
      cmocka_unit_test(two_ks_as_pytorch_has_them),
      cmocka_unit_test(lengths_grow),
      cmocka_unit_test(opencl_reads_the_same),
      cmocka_unit_test(words_are_learnt_and_written),
      cmocka_unit_test(a_text_is_scored),
  };
  return cmocka_run_group_tests(tests, begin, end);
}
