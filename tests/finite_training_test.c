/* SPDX-License-Identifier: Apache-2.0 */
/*
 * unroll_train_options.check_finite: a backend plants a number that is not finite in a step of one update
 * (plugins/planter.c); the training has to say where, and to lose nothing by having looked.
 */
#include <unroll/finite.h>

#include <dlfcn.h>

#include "plugins/planter.h"
#include "train_support.h"

static unroll_device *planting;
static planter *plan;

static int begin_planting(void **state) {
  static char path[4200];
  const char *folder_of_plugins = getenv("UNROLL_TEST_PLUGINS");
  if (begin(state) != 0 || !folder_of_plugins)
    return 1;
  snprintf(path, sizeof path, "%.4000s/planter.so", folder_of_plugins);
  void *so = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  plan = so ? dlsym(so, "planter_plan") : NULL;
  if (!plan)
    return 1;
  unroll_device_close(cpu);
  unroll_context_destroy(context);
  const char *files[] = {path};
  const unroll_context_options options = {
      .struct_size = sizeof options, .n_threads = 1, .plugin_files = files, .n_plugin_files = 1};
  assert_ok(unroll_context_create(&options, &context, &err));
  assert_ok(unroll_device_open(context, "planter", NULL, 0, &planting, &err));
  cpu = planting; /* what train_support.h makes models on */
  return 0;
}

/* In the candidate of layer 1 at step 5, unit 7, of the fourth of the streams from row0 on, in this update, counted from 1.
 * Before the model is made. */
static void plant(uint64_t update, int64_t row0) {
  *plan = (planter){.armed = 1,
                    .op = UNROLL_OP_LSTM_GATES,
                    .kind = -1,
                    .output = 2,
                    .layer = 1,
                    .t = 5,
                    .element = 3 * 4 * 12 + 2 * 12 + 7,
                    .value = (float)NAN,
                    .update = update - 1,
                    .row0 = row0};
}
#define PLACE "the candidate of layer 1, forward, step 5, sequence 3, unit 7 became NaN ("
#define PLACE_4 "the candidate of layer 1, forward, step 5, sequence 7, unit 7 became NaN ("

struct heard {
  char where[700];
  uint64_t skipped;
};
static int hear(void *ctx, const unroll_train_progress *p) {
  struct heard *h = ctx;
  h->skipped += p->skipped;
  if (p->nonfinite && !h->where[0])
    snprintf(h->where, sizeof h->where, "%s", p->nonfinite);
  return 0;
}

static void stop_and_go_on(int64_t parts) {
  unroll_lm_options o = small(UNROLL_CELL_LSTM);
  o.training.batch = 8;
  o.training.accumulate = parts;
  const unroll_lm_train_options whole = {.struct_size = sizeof whole, .updates = 40, .report_every = 8};
  *plan = (planter){.armed = 0};
  unroll_lm *straight = create(&o);
  assert_ok(unroll_lm_train(straight, &whole, &err));
  assert_ok(unroll_lm_save(straight, in_folder("straight"), &err));
  unroll_lm_destroy(straight);

  const uint64_t at[] = {1, 13, 16, 17, 31}; /* first and last of a report, of an epoch, in between */
  for (size_t i = 0; i < sizeof at / sizeof at[0]; i++) {
    char words[120];
    plant(at[i], parts == 1 ? 0 : 4);
    unroll_lm *lm = create(&o);
    unroll_lm_train_options checked = whole;
    checked.check_finite = 1;
    unroll_error found = UNROLL_ERROR_INIT;
    assert_int_equal(unroll_lm_train(lm, &checked, &found), UNROLL_E_RANGE);
    snprintf(words, sizeof words, "update %u: %s", (unsigned)at[i], parts == 1 ? PLACE : PLACE_4);
    assert_memory_equal(found.message, words, strlen(words));
    assert_int_equal(unroll_lm_describe(lm).update, at[i] - 1);
    assert_int_equal(plan->hits, 3); /* once in training, in the search for the place, and for the value */
    /* The model goes on from there as if nothing had been, also by way of a file. */
    plan->armed = 0;
    assert_ok(unroll_lm_save(lm, in_folder("before"), &err));
    if (i % 2) {
      unroll_lm_destroy(lm);
      lm = load(in_folder("before"));
      assert_ok(unroll_lm_resume(lm, text, &err));
    }
    assert_ok(unroll_lm_train(lm, &checked, &err));
    assert_ok(unroll_lm_save(lm, in_folder("after"), &err));
    assert_same_files(in_folder("after"), in_folder("straight"));
    unroll_lm_destroy(lm);
  }
}

static void stops(void **state) {
  (void)state;
  stop_and_go_on(1);
}
/* In the second part of the batch: the first one has carried its streams on already. */
static void stops_in_a_part(void **state) {
  (void)state;
  stop_and_go_on(2);
}

/* Looked at or not, the same bits follow; in parts, with streams that are carried on. */
static void skips(void **state) {
  (void)state;
  unroll_lm_options o = small(UNROLL_CELL_LSTM);
  o.training.batch = 8;
  o.training.nonfinite = UNROLL_NONFINITE_SKIP;
  for (int64_t parts = 1; parts <= 2; parts++) {
    o.training.accumulate = parts;
    const char *names[] = {in_folder("plain"), in_folder("checked")};
    for (uint32_t check = 0; check < 2; check++) {
      struct heard h = {.skipped = 0};
      plant(14, 0);
      unroll_lm *lm = create(&o);
      const unroll_lm_train_options run = {.struct_size = sizeof run,
                                           .updates = 30,
                                           .report_every = 10,
                                           .check_finite = check,
                                           .progress = hear,
                                           .ctx = &h};
      assert_ok(unroll_lm_train(lm, &run, &err));
      assert_int_equal(h.skipped, 1);
      if (check)
        assert_memory_equal(h.where, "update 14: " PLACE, strlen("update 14: " PLACE));
      else
        assert_memory_equal(h.where, "the squared gradient of", 23); /* what was saved for it is what was planted */
      plan->armed = 0;
      assert_ok(unroll_lm_save(lm, names[check], &err));
      unroll_lm_destroy(lm);
    }
    assert_same_files(names[0], names[1]);
  }
}

/* A gradient that overflows where the loss is finite: it is named as such, at the layer and step where it does. */
static void gradients(void **state) {
  (void)state;
  unroll_lm_options o = small(UNROLL_CELL_GRU);
  *plan = (planter){.armed = 1,
                    .op = UNROLL_OP_GRU_UPDATE_GRAD,
                    .kind = -1,
                    .output = 0,
                    .layer = 0,
                    .direction = UNROLL_REVERSE, /* the way of the gradient */
                    .t = 6,
                    .element = 2 * 12 + 11,
                    .value = -(float)INFINITY,
                    .update = 4};
  unroll_lm *lm = create(&o);
  const unroll_lm_train_options run = {.struct_size = sizeof run, .updates = 20, .check_finite = 1};
  unroll_error found = UNROLL_ERROR_INIT;
  assert_int_equal(unroll_lm_train(lm, &run, &found), UNROLL_E_RANGE);
  static const char words[] =
      "update 5: the gradient of the pre-activation of the candidate of layer 0, forward, step 6, "
      "sequence 2, unit 11 became -inf";
  assert_memory_equal(found.message, words, strlen(words));
  unroll_lm_destroy(lm);
}

static int hear_each(void *ctx, const unroll_train_progress *p) {
  int *heard = ctx;
  char words[120];
  snprintf(words, sizeof words, "update %u: " PLACE_4, (unsigned)p->update);
  *heard += p->nonfinite && strncmp(p->nonfinite, words, strlen(words)) == 0;
  return 0;
}

/* Every update is skipped: what it has left in the sums of its parts is nothing that the next one begins with. Only a
 * training's first one is searched. */
static void one_after_the_other(void **state) {
  (void)state;
  unroll_lm_options o = small(UNROLL_CELL_LSTM);
  o.training.batch = 8;
  o.training.accumulate = 2;
  o.training.nonfinite = UNROLL_NONFINITE_SKIP;
  plant(1, 4);
  plan->update = UINT64_MAX;
  int heard = 0;
  unroll_lm *lm = create(&o);
  for (uint64_t update = 1; update <= 3; update++) {
    const unroll_lm_train_options run = {
        .struct_size = sizeof run, .updates = update, .check_finite = 1, .progress = hear_each, .ctx = &heard};
    assert_ok(unroll_lm_train(lm, &run, &err));
  }
  assert_int_equal(heard, 3);
  unroll_lm_destroy(lm);
}

/* Finite in each part of a batch, and not in their sum: what the parts before have left is looked at with the last one. */
static void sums_of_parts(void **state) {
  (void)state;
  unroll_lm_options o = small(UNROLL_CELL_LSTM);
  o.training.batch = 8;
  o.training.accumulate = 2;
  *plan = (planter){.armed = 1,
                    .op = UNROLL_OP_LSTM_GATES_GRAD,
                    .kind = -1,
                    .output = 0,
                    .layer = 1,
                    .direction = UNROLL_REVERSE,
                    .t = 6,
                    .element = 2 * 4 * 12 + 3 * 12 + 5, /* sequence 2, output gate, unit 5 */
                    .value = 1e19f,                     /* whose square is a float yet */
                    .update = 6,
                    .row0 = -1};
  unroll_lm *lm = create(&o);
  const unroll_lm_train_options run = {.struct_size = sizeof run, .updates = 20, .check_finite = 1};
  unroll_error found = UNROLL_ERROR_INIT;
  assert_int_equal(unroll_lm_train(lm, &run, &found), UNROLL_E_RANGE);
  /* the sum of the squares of all gradients */
  static const char words[] = "update 7: in the update the value of ";
  if (strncmp(found.message, words, strlen(words)) != 0)
    fail_msg("%s", found.message);
  unroll_lm_destroy(lm);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(stops, begin_planting, end),
      cmocka_unit_test_setup_teardown(stops_in_a_part, begin_planting, end),
      cmocka_unit_test_setup_teardown(skips, begin_planting, end),
      cmocka_unit_test_setup_teardown(gradients, begin_planting, end),
      cmocka_unit_test_setup_teardown(one_after_the_other, begin_planting, end),
      cmocka_unit_test_setup_teardown(sums_of_parts, begin_planting, end),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
