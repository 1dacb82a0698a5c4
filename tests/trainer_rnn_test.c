/* SPDX-License-Identifier: Apache-2.0 */
/* The options of a model's recurrent layers, through training, file and resuming; what they may not be. */
#include "support/train_support.h"

/* A model with all of the options at once that an lstm has; a gru's with those that it has. */
static unroll_lm_options with_everything(int32_t cell) {
  unroll_lm_options o = small(cell);
  o.rnn.dropout = 0.2;
  o.rnn.input_dropout = 0.1;
  o.rnn.weight_dropout = 0.3;
  o.rnn.state_dropout = 0.15;
  o.rnn.same_mask = 1;
  o.rnn.zoneout_h = 0.05;
  o.rnn.layer_norm = 1;
  if (cell == UNROLL_CELL_LSTM) {
    o.rnn.peepholes = 1;
    o.rnn.zoneout_c = 0.25;
  }
  o.tied = 1;
  o.embedding = o.rnn.hidden;
  return o;
}

static void options_stand_in_the_file(void **state) {
  (void)state;
  const int32_t cells[] = {UNROLL_CELL_LSTM, UNROLL_CELL_GRU};
  for (int k = 0; k < 2; k++) {
    unroll_lm_options o = with_everything(cells[k]);
    o.rnn.checkpoint = (unroll_checkpoint_policy){
        .struct_size = sizeof o.rnn.checkpoint, .kind = UNROLL_CHECKPOINT_EVERY, .every = k ? 3 : 1};
    struct record straight = {0}, parted = {0};
    unroll_lm *lm = create(&o);
    train_to(lm, 12, &straight);
    assert_ok(unroll_lm_save(lm, in_folder("straight"), &err));
    unroll_lm_destroy(lm);

    lm = create(&o);
    train_to(lm, 5, &parted);
    assert_ok(unroll_lm_save(lm, in_folder("parted"), &err));
    unroll_lm_destroy(lm);
    lm = load(in_folder("parted"));
    const unroll_lm_options back = unroll_lm_describe(lm).options;
    assert_memory_equal(&back.rnn, &o.rnn, sizeof o.rnn);
    assert_int_equal(back.tied, 1);
    assert_ok(unroll_lm_resume(lm, text, &err));
    train_to(lm, 12, &parted);
    assert_same_losses(&straight, &parted, 0, 12);
    assert_ok(unroll_lm_save(lm, in_folder("parted"), &err));
    assert_same_files(in_folder("straight"), in_folder("parted"));
    unroll_lm_destroy(lm);
  }
}

/* What each option changes is seen: losses are others with it than without. */
static void every_option_counts(void **state) {
  (void)state;
  for (int k = 0; k < 10; k++) {
    unroll_lm_options o = small(UNROLL_CELL_LSTM);
    o.rnn.dropout = k == 9 ? 0.1 : 0;
    o.embedding = o.rnn.hidden;
    double *const numbers[] = {&o.rnn.dropout,       &o.rnn.input_dropout, &o.rnn.weight_dropout,
                               &o.rnn.state_dropout, &o.rnn.zoneout_h,     &o.rnn.zoneout_c};
    int32_t *const switches[] = {&o.rnn.layer_norm, &o.rnn.peepholes, &o.tied, &o.rnn.same_mask};
    struct record without = {0}, with = {0};
    unroll_lm *lm = create(&o);
    train_to(lm, 3, &without);
    unroll_lm_destroy(lm);
    if (k < 6)
      *numbers[k] = 0.3;
    else
      *switches[k - 6] = 1;
    lm = create(&o);
    train_to(lm, 3, &with);
    assert_true(with.losses[2] != without.losses[2]);
    /* Dropout and zoneout end with the training: two validations are the same. */
    double once, again;
    assert_ok(unroll_lm_evaluate(lm, &once, &err));
    assert_ok(unroll_lm_evaluate(lm, &again, &err));
    assert_true(once == again);
    unroll_lm_destroy(lm);
  }
}

/* On the reference device, which is deterministic. */
static void checkpoints_change_no_bit(void **state) {
  (void)state;
  const unroll_checkpoint_policy policies[] = {{.kind = UNROLL_CHECKPOINT_SQRT},
                                               {.kind = UNROLL_CHECKPOINT_EVERY, .every = 5},
                                               {.kind = UNROLL_CHECKPOINT_BYTES, .bytes = 500000}};
  unroll_lm_options o = small(UNROLL_CELL_LSTM);
  o.steps = 256; /* 8 blocks of 512 rows: segments end between blocks */
  o.training.batch = 16;
  o.training.validation = 0;
  unroll_text *const own = text;
  text = load_text(sentence, 100);
  struct record all = {0};
  unroll_lm *lm = create(&o);
  train_to(lm, 4, &all);
  unroll_lm_destroy(lm);
  for (int k = 0; k < 3; k++) {
    struct record some = {0};
    o.rnn.checkpoint = policies[k];
    o.rnn.checkpoint.struct_size = sizeof o.rnn.checkpoint;
    lm = create(&o);
    train_to(lm, 4, &some);
    assert_same_losses(&all, &some, 0, 4);
    unroll_lm_destroy(lm);
  }
  unroll_text_destroy(text);
  text = own;
}

static void wrong_options(void **state) {
  (void)state;
  const unroll_lm_options good = small(UNROLL_CELL_GRU);
  unroll_lm *lm = NULL;
#define REFUSED(field, value, words)                                                             \
  do {                                                                                           \
    unroll_lm_options o = good;                                                                  \
    o.field = value;                                                                             \
    assert_error(unroll_lm_create(&cpu, 1, text, &o, NULL, &lm, &err), UNROLL_E_INVALID, words); \
    assert_null(lm);                                                                             \
  } while (0)
  REFUSED(rnn.input_dropout, 1, "input dropout 1, it must be at least 0 and below 1");
  REFUSED(rnn.weight_dropout, -0.5, "weight dropout -0.5");
  REFUSED(rnn.state_dropout, (double)NAN, "state dropout nan");
  REFUSED(rnn.zoneout_h, 2, "zoneout of h 2");
  REFUSED(rnn.zoneout_c, 0.5, "zoneout of c: an lstm's, but the cell is gru");
  REFUSED(rnn.peepholes, 1, "peepholes: an lstm's, but the cell is gru");
  REFUSED(rnn.layer_norm, 2, "layer norm 2");
  REFUSED(rnn.same_mask, -1, "same mask -1");
  REFUSED(tied, 1, "tied: the embedding has 6 numbers and a layer 12 units");
  REFUSED(tied, 2, "tied 2");
  REFUSED(rnn.checkpoint.kind, 4, "checkpoint 4, 0 to 3 are known");
  unroll_lm_options o = good;
  o.rnn.checkpoint =
      (unroll_checkpoint_policy){.struct_size = sizeof o.rnn.checkpoint, .kind = UNROLL_CHECKPOINT_BYTES, .bytes = 7};
  assert_error(unroll_lm_create(&cpu, 1, text, &o, NULL, &lm, &err), UNROLL_E_RANGE, "within 7 bytes");
  o.rnn.checkpoint.kind = UNROLL_CHECKPOINT_SQRT;
  o.steps_start = o.steps_increment = 2;
  assert_error(unroll_lm_create(&cpu, 1, text, &o, NULL, &lm, &err), UNROLL_E_UNSUPPORTED, "run-time size T");
#undef REFUSED
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(options_stand_in_the_file),
      cmocka_unit_test(every_option_counts),
      cmocka_unit_test(checkpoints_change_no_bit),
      cmocka_unit_test(wrong_options),
  };
  return cmocka_run_group_tests(tests, begin, end);
}
