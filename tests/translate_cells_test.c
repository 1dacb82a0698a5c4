/* SPDX-License-Identifier: Apache-2.0 */
/* Translators whose cells have options, those of the decoder as those of the encoder: training, files, ways of translating. */
#include "train/translate_private.h"
#include "translate_support.h"

/* All at once that an lstm has, or a gru. */
static unroll_translator_options with_everything(int32_t cell) {
  unroll_translator_options o = toy(cell);
  o.rnn.layers = 2;
  o.rnn.dropout = 0.1;
  o.rnn.input_dropout = 0.05;
  o.rnn.weight_dropout = 0.1;
  o.rnn.state_dropout = 0.1;
  o.rnn.same_mask = cell == UNROLL_CELL_GRU;
  o.rnn.zoneout_h = 0.05;
  o.rnn.layer_norm = 1;
  if (cell == UNROLL_CELL_LSTM) {
    o.rnn.peepholes = 1;
    o.rnn.zoneout_c = 0.25;
  }
  o.sampling = (unroll_sampling_schedule){sizeof o.sampling, UNROLL_SAMPLING_LINEAR, 0.9, 0.01, 0.3};
  o.sampling_pick = UNROLL_PICK_SAMPLE;
  return o;
}

static void find(const unroll_safetensors *file, const char *name, bool there) {
  unroll_stored_tensor t;
  const unroll_status status = unroll_safetensors_find(file, name, &t, NULL);
  if ((status == UNROLL_OK) != there)
    fail_msg("%s: %s", name, there ? "missing" : "should not be there");
}

/* What stands in a model's file of its decoder. */
static void check_file(const char *path, bool lstm, bool plain) {
  unroll_safetensors *file;
  assert_ok(unroll_safetensors_open(path, NULL, &file, &err));
  find(file, "encoder.ln_x.1.0", true);
  find(file, "decoder.W_h.1.0", true);
  find(file, "decoder.ln_x.1.0", !plain);
  find(file, "decoder.ln_h.0.0", !plain);
  find(file, "decoder.ln_c.0.0", !plain && lstm);
  find(file, "decoder.p_o.1.0", !plain && lstm);
  const char *model = unroll_safetensors_metadata(file, "unroll.model");
  assert_true((strstr(model, "\"decoder\":\"as_encoder\"") != NULL) == !plain);
  assert_true((strstr(model, "decoder\"") == NULL) == plain); /* as before decoders had options */
  unroll_safetensors_close(file);
}

static struct said said[3];

/* What the model in "straight" says is said[0], greedily as by a search of one, which runs the same cells. */
static void says_the_same_from_its_file(const unroll_pairs *pairs) {
  unroll_translator *t = load_translator(in_folder("straight"));
  translate_all(t, pairs, NULL, &said[1]);
  assert_memory_equal(&said[0], &said[1], sizeof said[0]);
  translate_all(t, pairs, &(unroll_translate_options){.struct_size = sizeof(unroll_translate_options), .beam = 1},
                &said[2]);
  for (int i = 0; i < PAIRS; i++) {
    assert_string_equal(said[0].texts[i], said[2].texts[i]);
    assert_true(fabs(said[0].log_probs[i] - said[2].log_probs[i]) < 1e-4);
  }
  unroll_translator_destroy(t);
}

/* Half a run, saved, and the other half are the run; also of a model whose decoder is plain, as older files have it. */
static void resumed_is_the_same_as_straight(void **state) {
  (void)state;
  static struct seen straight, halves;
  unroll_pairs *pairs = word_pairs(0);
  for (int k = 0; k < 3; k++) {
    unroll_translator_options o = with_everything(k == 1 ? UNROLL_CELL_GRU : UNROLL_CELL_LSTM);
    o.plain_decoder = k == 2;
    unroll_translator *t = new_translator(pairs, &o);
    run_to(t, 30, &straight);
    assert_ok(unroll_translator_save(t, in_folder("straight"), &err));
    translate_all(t, pairs, NULL, &said[0]);
    unroll_translator_destroy(t);
    check_file(in_folder("straight"), o.rnn.cell == UNROLL_CELL_LSTM, k == 2);
    t = new_translator(pairs, &o);
    run_to(t, 11, &halves);
    assert_ok(unroll_translator_save(t, in_folder("half"), &err));
    unroll_translator_destroy(t);
    t = load_translator(in_folder("half"));
    const unroll_translator_options back = unroll_translator_describe(t).options;
    assert_int_equal(back.plain_decoder, k == 2);
    assert_memory_equal(&back.rnn, &o.rnn, offsetof(unroll_recurrent, checkpoint));
    assert_ok(unroll_translator_resume(t, pairs, &err));
    run_to(t, 30, &halves);
    assert_ok(unroll_translator_save(t, in_folder("half"), &err));
    assert_memory_equal(straight.losses, halves.losses, 30 * sizeof(float));
    assert_same_files(in_folder("straight"), in_folder("half"));
    unroll_translator_destroy(t);

    says_the_same_from_its_file(pairs);
  }
  unroll_pairs_destroy(pairs);
}

/* Cells and options that the standard ones lack. Of a projection h is narrower than c: each has a bridge of its own width. */
static unroll_translator_options other_cells(int which) {
  unroll_translator_options o = toy(UNROLL_CELL_LSTM);
  o.rnn.layers = 2;
  switch (which) {
  case 0:
    o.rnn.projection = 10;
    o.rnn.cell_clip = 0.5;
    o.attention = UNROLL_ATTENTION_SCALED_DOT; /* of 5 numbers a direction */
    o.context = UNROLL_CONTEXT_FEEDING;
    break;
  case 1:
    o.rnn.cell = UNROLL_RNN_COUPLED_LSTM;
    o.rnn.projection = 7;
    o.rnn.peepholes = 1;
    o.encoder_hidden = 9;
    o.bidirectional = 0;
    break;
  case 2:
    o.rnn.cell = UNROLL_RNN_MIN_LSTM;
    o.rnn.residual = UNROLL_RESIDUAL_OUTPUTS;
    break;
  case 3:
    o.rnn.cell = UNROLL_CELL_RNN;
    o.rnn.f = unroll_activation_of(UNROLL_ACTIVATION_MODRELU);
    o.rnn.layer_norm = 1;
    o.rnn.layer_norm_epsilon = 0.01;
    o.rnn.residual = UNROLL_RESIDUAL_STATES;
    break;
  default:
    o.rnn.cell = UNROLL_CELL_GRU_AFTER;
    o.rnn.f = unroll_activation_of(UNROLL_ACTIVATION_HARD_SIGMOID);
    o.rnn.clip = 1.5;
    o.rnn.skip = 0.25;
  }
  return o;
}

static void shape_is(const unroll_safetensors *file, const char *name, int64_t rows, int64_t columns) {
  unroll_stored_tensor t;
  assert_ok(unroll_safetensors_find(file, name, &t, &err));
  if (t.rank != 2 || t.shape[0] != rows || t.shape[1] != columns)
    fail_msg("%s is [%d,%d], not [%d,%d]", name, (int)t.shape[0], (int)t.shape[1], (int)rows, (int)columns);
}

static void other_cells_translate_and_resume(void **state) {
  (void)state;
  static struct seen straight, halves;
  unroll_pairs *pairs = word_pairs(0);
  for (int k = 0; k < 5; k++) {
    const unroll_translator_options o = other_cells(k);
    unroll_translator *t = new_translator(pairs, &o);
    run_to(t, 24, &straight);
    assert_ok(unroll_translator_save(t, in_folder("straight"), &err));
    translate_all(t, pairs, NULL, &said[0]);
    unroll_translator_destroy(t);
    if (straight.losses[23] >= straight.losses[0])
      fail_msg("cells %d: loss %g at first, %g after 24 updates", k, (double)straight.losses[0],
               (double)straight.losses[23]);
    if (k < 2) {
      unroll_safetensors *file;
      assert_ok(unroll_safetensors_open(in_folder("straight"), NULL, &file, &err));
      shape_is(file, "encoder.W_r.1.0", k ? 7 : 5, k ? 9 : 24);
      shape_is(file, "decoder.W_r.1.0", k ? 7 : 10, 24);
      shape_is(file, "decoder.W_h.0.0", (k ? 3 : 4) * 24, k ? 7 : 10);
      shape_is(file, "bridge.c.1.W", 24, k ? 9 : 48);
      find(file, "bridge.h.1.W", false); /* as wide already */
      unroll_safetensors_close(file);
    }
    t = new_translator(pairs, &o);
    run_to(t, 9, &halves);
    assert_ok(unroll_translator_save(t, in_folder("half"), &err));
    unroll_translator_destroy(t);
    t = load_translator(in_folder("half"));
    const unroll_recurrent back = unroll_translator_describe(t).options.rnn;
    assert_int_equal(unroll_translator_describe(t).options.plain_decoder, 0);
    assert_memory_equal(&back.f, &o.rnn.f, sizeof back - offsetof(unroll_recurrent, f));
    assert_ok(unroll_translator_resume(t, pairs, &err));
    run_to(t, 24, &halves);
    assert_ok(unroll_translator_save(t, in_folder("half"), &err));
    assert_memory_equal(straight.losses, halves.losses, 24 * sizeof(float));
    assert_same_files(in_folder("straight"), in_folder("half"));
    unroll_translator_destroy(t);

    says_the_same_from_its_file(pairs);
  }
  unroll_pairs_destroy(pairs);
}

/* Each option alone makes another decoder: the first update has another loss than with a plain one beside the same encoder.
 * What is of the training alone leaves the validation as it is, which has no chance in it. */
static void every_option_reaches_the_decoder(void **state) {
  (void)state;
  static struct seen seen;
  unroll_pairs *pairs = word_pairs(0);
  for (int k = 0; k < 7; k++) {
    float losses[2];
    double validations[2], again, metric;
    for (int plain = 0; plain < 2; plain++) {
      unroll_translator_options o = toy(UNROLL_CELL_LSTM);
      o.plain_decoder = plain;
      o.rnn.dropout = k == 6 ? 0.3 : 0;
      double *const numbers[] = {&o.rnn.input_dropout, &o.rnn.weight_dropout, &o.rnn.state_dropout, &o.rnn.zoneout_h,
                                 &o.rnn.zoneout_c};
      int32_t *const switches[] = {&o.rnn.layer_norm, &o.rnn.same_mask};
      if (k < 5)
        *numbers[k] = 0.3;
      else
        *switches[k - 5] = 1;
      unroll_translator *t = new_translator(pairs, &o);
      assert_ok(unroll_translator_evaluate(t, &validations[plain], &metric, &err));
      assert_ok(unroll_translator_evaluate(t, &again, &metric, &err));
      assert_true(validations[plain] == again);
      run_to(t, 1, &seen);
      losses[plain] = seen.losses[0];
      unroll_translator_destroy(t);
    }
    if (fabs((double)losses[0] - (double)losses[1]) < 1e-4)
      fail_msg("option %d: loss %g with and without it in the decoder", k, (double)losses[0]);
    const bool of_training_alone = k < 3 || k == 6;
    assert_true((validations[0] == validations[1]) == of_training_alone);
  }
  unroll_pairs_destroy(pairs);
}

/* Masks belong to a pair: a batch in parts is the batch. Not those of W_h, of which each part has its own. */
static void parts_make_the_same_update(void **state) {
  (void)state;
  static struct seen seen[2];
  unroll_pairs *pairs = word_pairs(0);
  for (int k = 0; k < 2; k++) {
    unroll_translator_options o = with_everything(UNROLL_CELL_LSTM);
    o.rnn.weight_dropout = 0;
    o.sampling = unroll_translator_options_default().sampling;
    o.training.accumulate = k ? 4 : 1;
    unroll_translator *t = new_translator(pairs, &o);
    run_to(t, 20, &seen[k]);
    unroll_translator_destroy(t);
  }
  for (int i = 0; i < 20; i++) /* float32 sums in another order, over 20 updates of Adam through layer norm */
    assert_true(fabs((double)seen[0].losses[i] - (double)seen[1].losses[i]) < 5e-4);
  unroll_pairs_destroy(pairs);
}

/* Both devices draw the same numbers, of which the encoder's and the decoder's masks are made. */
static void losses_are_those_of_opencl(void **state) {
  (void)state;
  unroll_device *opencl = NULL;
  if (unroll_device_open(context, "opencl", NULL, 0, &opencl, NULL) != UNROLL_OK)
    skip();
  static struct seen here, there;
  unroll_pairs *pairs = word_pairs(0);
  for (int k = 0; k < 2; k++) {
    unroll_translator_options o = with_everything(k ? UNROLL_CELL_GRU : UNROLL_CELL_LSTM);
    o.context = k ? UNROLL_CONTEXT_FEEDING : UNROLL_CONTEXT_BEFORE;
    o.training.schedule.base = 0.003;
    unroll_translator *a = new_translator(pairs, &o), *b = new_on(opencl, pairs, &o);
    run_to(a, 25, &here);
    run_to(b, 25, &there);
    for (int i = 0; i < 25; i++) /* float32 sums in another order, over 25 updates of Adam */
      assert_true(fabs((double)here.losses[i] - (double)there.losses[i]) < 1e-3);
    unroll_translator_destroy(a);
    unroll_translator_destroy(b);
  }
  unroll_pairs_destroy(pairs);
  unroll_device_close(opencl);
}

enum { ROWS = 6 };

/*
 * What REINFORCE draws from and what it learns are one distribution, zoneout's expectation in both: the loss of an update is
 * that of the log probabilities that the sampler gave.
 */
static void the_learner_has_the_sampler_s_probabilities(void **state) {
  (void)state;
  static struct seen seen;
  unroll_pairs *pairs = load_pairs("abcd\tdcba\nbade\tedab\ncabb\tbbac\ndeed\tdeed\nbbce\tecbb\nacdc\tcdca\n");
  unroll_translator_options o = with_everything(UNROLL_CELL_LSTM);
  o.rnn.zoneout_h = o.rnn.zoneout_c = 0.4;
  o.training.batch = ROWS;
  o.training.validation = o.testing = 0;
  unroll_translator *t = new_translator(pairs, &o);
  run_to(t, 15, &seen);
  assert_ok(unroll_translator_save(t, in_folder("m"), &err));
  unroll_translator_destroy(t);
  t = load_translator(in_folder("m"));
  const unroll_translator_reinforce_options r = {
      .struct_size = sizeof r, .baseline = UNROLL_BASELINE_GREEDY, .decay = 0.75, .seed = 6};
  assert_ok(unroll_translator_reinforce(t, &r, &err));
  assert_ok(unroll_translator_resume(t, pairs, &err));
  double moved = 0;
  for (uint64_t u = 15; u < 21; u++) {
    run_to(t, u + 1, &seen);
    float log_prob[ROWS], rewards[ROWS], baselines[ROWS];
    unroll_binding *drawn = NULL, *learner = t->trainer.train.binding;
    for (int i = 0; i < TRANSLATOR_PROGRAMS; i++)
      if (t->programs[i].program.binding && t->programs[i].way.sampled)
        drawn = t->programs[i].program.binding;
    assert_non_null(drawn);
    assert_ok(unroll_binding_read(drawn, "log_prob", log_prob, sizeof log_prob, &err));
    assert_ok(unroll_binding_read(learner, "reward", rewards, sizeof rewards, &err));
    assert_ok(unroll_binding_read(learner, "baseline", baselines, sizeof baselines, &err));
    double want = 0;
    for (int b = 0; b < ROWS; b++)
      want -= ((double)rewards[b] - (double)baselines[b]) * (double)log_prob[b] / ROWS;
    /* float32, log probabilities of up to 40 nats over 15 steps */
    assert_true(fabs((double)seen.losses[u] - want) < 1e-4 * (1 + fabs(want)));
    moved += fabs(want);
  }
  assert_true(moved > 0.1);
  unroll_translator_destroy(t);
  unroll_pairs_destroy(pairs);
}

static void refused(void **state) {
  (void)state;
  unroll_pairs *pairs = word_pairs(0);
  unroll_translator *t = NULL;
  unroll_translator_options o = toy(UNROLL_CELL_GRU);
  o.plain_decoder = 2;
  assert_error(unroll_translator_create(&cpu, 1, pairs, &o, NULL, &t, &err), UNROLL_E_INVALID, "plain decoder 2");
  o = toy(UNROLL_CELL_GRU);
  o.rnn.peepholes = 1;
  assert_error(unroll_translator_create(&cpu, 1, pairs, &o, NULL, &t, &err), UNROLL_E_INVALID,
               "peepholes: an lstm's, but the cell is gru");
  o = toy(UNROLL_CELL_LSTM);
  o.rnn.projection = 7;
  o.attention = UNROLL_ATTENTION_DOT;
  assert_error(unroll_translator_create(&cpu, 1, pairs, &o, NULL, &t, &err), UNROLL_E_INVALID,
               "attention dot: the source's vectors have 6 numbers, the decoder's state 7; they must be as wide");
  o = toy(UNROLL_RNN_MIN_GRU);
  o.rnn.residual = UNROLL_RESIDUAL_OUTPUTS;
  assert_error(unroll_translator_create(&cpu, 1, pairs, &o, NULL, &t, &err), UNROLL_E_INVALID,
               "residual outputs: the only layer reads 12 numbers and gives 48");
  unroll_pairs_destroy(pairs);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(resumed_is_the_same_as_straight),
                                     cmocka_unit_test(other_cells_translate_and_resume),
                                     cmocka_unit_test(every_option_reaches_the_decoder),
                                     cmocka_unit_test(parts_make_the_same_update),
                                     cmocka_unit_test(losses_are_those_of_opencl),
                                     cmocka_unit_test(the_learner_has_the_sampler_s_probabilities),
                                     cmocka_unit_test(refused)};
  return cmocka_run_group_tests(tests, begin, end);
}
