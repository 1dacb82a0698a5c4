/* SPDX-License-Identifier: Apache-2.0 */
/* What an update is said to cost a model, against what one takes that is made on a backend that counts. */
#include "translate_support.h"

#include "counted.h"
#include <unroll/classify.h>
#include <unroll/forecast.h>

/* ---- models, as they are trained ---- */

static void same_costs(const char *what, const unroll_cost *cost) {
  for (uint32_t op = 1; op < UNROLL_OP_END; op++)
    same_count(what, op, &cost->of[op]);
  assert_true(cost->total.flops > 0);
}

/* One update of a language model: 8 steps of 7 streams, of every cell, and of a projected lstm in the place of no cell. */
static void a_language_model(void **state) {
  (void)state;
  unroll_device *counting;
  assert_ok(session_device(&session, &counting, &err));
  text = load_text(sentence, 20);
  for (int32_t cell = UNROLL_CELL_RNN; cell < UNROLL_RNN_END; cell++) {
    const bool projected = cell == UNROLL_CELL_COUNT;
    if (!projected && !unroll_rnn_cell_name(cell))
      continue;
    unroll_lm_options o = small(projected ? UNROLL_CELL_LSTM : cell);
    o.rnn.projection = projected ? 5 : 0;
    o.rnn.residual = projected ? UNROLL_RESIDUAL_STATES : UNROLL_RESIDUAL_OUTPUTS;
    o.training.validation = 0; /* else it is evaluated at the run's end */
    unroll_lm *lm;
    assert_ok(unroll_lm_create(&counting, 1, text, &o, NULL, &lm, &err));
    unroll_cost forward = {.struct_size = sizeof forward}, update = forward, other = forward;
    unroll_cost_layers layers = {.struct_size = sizeof layers};
    assert_ok(unroll_cost_of_lm(lm, 0, 0, &forward, &update, &layers, &err));
    assert_int_equal(layers.steps, 8);
    assert_int_equal(layers.batch, 7);
    assert_int_equal(layers.input, 6);
    assert_int_equal(layers.rnn.hidden, 12);
    assert_int_equal(update.parameters, unroll_lm_describe(lm).n_parameters);
    start_counting();
    const unroll_lm_train_options once = {.struct_size = sizeof once, .updates = 1};
    assert_ok(unroll_lm_train(lm, &once, &err));
    same_costs("an update of a language model", &update);
    assert_true(forward.total.flops < update.total.flops);
    /* Other sizes: what grows with the steps alone grows as they do. */
    assert_ok(unroll_cost_of_lm(lm, 16, 7, &other, NULL, NULL, &err));
    assert_int_equal(other.of[UNROLL_OP_CROSS_ENTROPY].flops, 2 * forward.of[UNROLL_OP_CROSS_ENTROPY].flops);
    assert_error(unroll_cost_of_lm(lm, -1, 0, &other, NULL, NULL, &err), UNROLL_E_RANGE, "steps = -1, expected 1 to");
    assert_error(unroll_cost_of_lm(lm, 0, INT64_C(1) << 31, &other, NULL, NULL, &err), UNROLL_E_RANGE,
                 "batch = 2147483648");
    unroll_lm_destroy(lm);
  }
  unroll_text_destroy(text);
}

static void a_forecaster(void **state) {
  (void)state;
  unroll_device *counting;
  assert_ok(session_device(&session, &counting, &err));
  double y[90];
  for (int i = 0; i < 90; i++)
    y[i] = (double)(i * 7 % 13) + 0.1 * i;
  unroll_forecaster_options o = unroll_forecaster_options_default();
  o.rnn.hidden = 5;
  o.lags = 6;
  o.training.batch = 9;
  o.training.validation = 0;
  unroll_forecaster *f;
  assert_ok(unroll_forecaster_create(&counting, 1, y, 90, &o, NULL, &f, &err));
  unroll_cost update = {.struct_size = sizeof update};
  assert_ok(unroll_cost_of_forecaster(f, 0, 0, NULL, &update, NULL, &err));
  start_counting();
  const unroll_train_options once = {.struct_size = sizeof once, .updates = 1};
  assert_ok(unroll_forecaster_train(f, &once, &err));
  same_costs("an update of a forecaster", &update);
  unroll_forecaster_destroy(f);
}

/* 24 sequences of 5 steps of 2 features, in 3 classes, read both ways. */
static void a_classifier(void **state) {
  (void)state;
  unroll_device *counting;
  assert_ok(session_device(&session, &counting, &err));
  char all[24 * 64], *at = all;
  for (int i = 0; i < 24; i++) {
    at += sprintf(at, "%c", 'a' + i % 3);
    for (int k = 0; k < 10; k++)
      at += sprintf(at, ",%d", (i * 7 + k * 5) % 11);
    at += sprintf(at, "\n");
  }
  put_file(in_folder("s.csv"), all, (size_t)(at - all));
  unroll_sequences *sequences;
  assert_ok(unroll_sequences_load(
      in_folder("s.csv"),
      &(unroll_labelled_options){.struct_size = sizeof(unroll_labelled_options), .label = "1", .features = 2}, NULL,
      &sequences, &err));
  for (int around = 0; around < 2; around++) {
    unroll_classifier_options o = unroll_classifier_options_default();
    o.rnn.hidden = 7;
    o.bidirectional = 1;
    o.rnn.dropout = 0.2;
    o.rnn.layers = 1 + around;
    o.rnn.residual = around ? UNROLL_RESIDUAL_OUTPUTS : UNROLL_RESIDUAL_NONE;
    o.training.batch = 6;
    o.training.validation = 0;
    unroll_classifier *c;
    assert_ok(unroll_classifier_create(&counting, 1, sequences, &o, NULL, &c, &err));
    unroll_cost update = {.struct_size = sizeof update};
    unroll_cost_layers layers = {.struct_size = sizeof layers};
    assert_ok(unroll_cost_of_classifier(c, 0, 0, NULL, &update, &layers, &err));
    assert_int_equal(layers.steps, 5);
    assert_int_equal(layers.rnn.bidirectional, 1);
    start_counting();
    const unroll_train_options once = {.struct_size = sizeof once, .updates = 1};
    assert_ok(unroll_classifier_train(c, &once, &err));
    same_costs("an update of a classifier", &update);
    unroll_classifier_destroy(c);
  }
  unroll_sequences_destroy(sequences);
}

/* Words of 5 letters to words of 4 and an end: both sides have 5 steps. */
static void a_translator(void **state) {
  (void)state;
  unroll_device *counting;
  assert_ok(session_device(&session, &counting, &err));
  char all[64 * 12], *at = all;
  for (int i = 0; i < 64; i++) {
    for (int k = 0; k < 5; k++)
      *at++ = (char)('a' + (i >> k & 1) + k % 2 * 2);
    *at++ = '\t';
    for (int k = 0; k < 4; k++)
      *at++ = (char)('a' + (i * 5 >> k & 3));
    *at++ = '\n';
  }
  *at = '\0';
  unroll_pairs *pairs = load_pairs(all);
  for (int32_t cell = UNROLL_CELL_LSTM; cell <= UNROLL_CELL_GRU_AFTER; cell++) {
    const bool projected = cell == UNROLL_CELL_GRU_AFTER;
    unroll_translator_options o = toy(projected ? UNROLL_RNN_COUPLED_LSTM : cell);
    o.rnn.hidden = 8;
    o.rnn.projection = projected ? 4 : 0;
    o.attention = projected ? UNROLL_ATTENTION_DOT : UNROLL_ATTENTION_ADDITIVE;
    o.training.validation = 0;
    unroll_translator *t = new_on(counting, pairs, &o);
    unroll_cost update = {.struct_size = sizeof update}, forward = update;
    unroll_cost_layers layers = {.struct_size = sizeof layers};
    assert_ok(unroll_cost_of_translator(t, 0, 0, &forward, &update, &layers, &err));
    assert_int_equal(layers.steps, 5);
    assert_int_equal(layers.rnn.projection, projected ? 2 : 0); /* of one direction of the encoder */
    start_counting();
    const unroll_train_options once = {.struct_size = sizeof once, .updates = 1};
    assert_ok(unroll_translator_train(t, &once, &err));
    same_costs("an update of a translator", &update);
    unroll_translator_destroy(t);
  }
  unroll_pairs_destroy(pairs);
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, make_folder, remove_folder)

int main(void) {
  const struct CMUnitTest tests[] = {IN_FOLDER(a_language_model), cmocka_unit_test(a_forecaster),
                                     IN_FOLDER(a_classifier), IN_FOLDER(a_translator)};
  return cmocka_run_group_tests(tests, counted_open, counted_close);
}
