/* SPDX-License-Identifier: Apache-2.0 */
/* The options of a model's recurrent layers, through training, file and resuming; what they may not be. */
#include <stdbool.h>

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

/* All that the standard cells lack: other cells, activations, projections, bounds, paths around. */
enum { PLAIN, PROJECTED, COUPLED, MINIMAL_GRU, MINIMAL_LSTM, LEAKY, MODRELU, GATED, VARIETIES };
static unroll_lm_options variety(int which) {
  unroll_lm_options o = small(UNROLL_CELL_LSTM);
  unroll_recurrent *r = &o.rnn;
  r->dropout = 0;
  switch (which) {
  case PROJECTED:
    r->projection = 5;
    r->cell_clip = 0.125;
    r->clip = 0.75;
    r->residual = UNROLL_RESIDUAL_STATES;
    break;
  case COUPLED:
    r->cell = UNROLL_RNN_COUPLED_LSTM;
    r->peepholes = r->layer_norm = 1;
    r->layer_norm_epsilon = 0.01;
    r->h = unroll_activation_of(UNROLL_ACTIVATION_SOFTSIGN);
    break;
  case MINIMAL_GRU:
    r->cell = UNROLL_RNN_MIN_GRU;
    r->residual = UNROLL_RESIDUAL_OUTPUTS;
    break;
  case MINIMAL_LSTM:
    r->cell = UNROLL_RNN_MIN_LSTM;
    r->g = unroll_activation_of(UNROLL_ACTIVATION_TANH);
    break;
  case LEAKY:
    r->cell = UNROLL_CELL_RNN;
    r->f = (unroll_activation){.kind = UNROLL_ACTIVATION_LEAKY_RELU, .alpha = 0.25};
    r->skip = 0.25;
    break;
  case MODRELU:
    r->cell = UNROLL_CELL_RNN;
    r->f = unroll_activation_of(UNROLL_ACTIVATION_MODRELU);
    r->layer_norm = 1;
    r->residual = UNROLL_RESIDUAL_OUTPUTS;
    break;
  case GATED:
    r->cell = UNROLL_CELL_GRU_AFTER;
    r->f = (unroll_activation){.kind = UNROLL_ACTIVATION_HARD_SIGMOID, .alpha = 0.25, .beta = 0.5};
    r->g = unroll_activation_of(UNROLL_ACTIVATION_ELU);
    r->clip = 1.5;
    r->skip = -0.25;
    break;
  default: break;
  }
  return o;
}

static bool is_minimal(int32_t cell) { return cell == UNROLL_RNN_MIN_GRU || cell == UNROLL_RNN_MIN_LSTM; }

static void options_stand_in_the_file(void **state) {
  (void)state;
  const int32_t cells[] = {UNROLL_CELL_LSTM, UNROLL_CELL_GRU};
  for (int k = 0; k < 2 + VARIETIES; k++) {
    unroll_lm_options o = k < 2 ? with_everything(cells[k]) : variety(k - 2);
    if (k >= 2) {
      o.rnn.dropout = 0.2;
      if (!is_minimal(o.rnn.cell))
        o.rnn.zoneout_h = 0.25;
    }
    o.rnn.checkpoint = (unroll_checkpoint_policy){.struct_size = sizeof o.rnn.checkpoint};
    if (!is_minimal(o.rnn.cell)) {
      o.rnn.checkpoint.kind = UNROLL_CHECKPOINT_EVERY;
      o.rnn.checkpoint.every = k ? 3 : 1;
    }
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
    assert_int_equal(back.tied, o.tied);
    assert_ok(unroll_lm_resume(lm, text, &err));
    train_to(lm, 12, &parted);
    assert_same_losses(&straight, &parted, 0, 12);
    assert_ok(unroll_lm_save(lm, in_folder("parted"), &err));
    assert_same_files(in_folder("straight"), in_folder("parted"));
    unroll_lm_destroy(lm);
  }
}

/*
 * Losses and norms of float64 PyTorch: golden/train_reference.py --dtype float64 --updates 4, over the fixture's text, from each
 * model's file as it is before its first update. Windows carry the states on, of a projection h [B,P].
 */
static void losses_as_pytorch_has_them(void **state) {
  (void)state;
  static const struct {
    double losses[4], norms[4];
  } expected[VARIETIES] = {
      {{3.377377422, 3.328687746, 3.356955999, 3.300572665}, {0.2646981141, 0.3219661516, 0.3099894834, 0.3482577824}},
      {{3.384554879, 3.366697885, 3.3776406, 3.364932252}, {0.2140825769, 0.2655222613, 0.2653389494, 0.2535091227}},
      {{3.405443941, 3.372922409, 3.388408557, 3.319841346}, {0.5669891544, 0.335823999, 0.5998313924, 0.4558676804}},
      {{3.506465478, 3.517880272, 3.432143813, 3.456667748}, {0.6120764038, 0.6943640243, 0.5983207201, 0.7612110491}},
      {{3.424193723, 3.417078786, 3.393493454, 3.387482666}, {0.3530530582, 0.3815665863, 0.354265096, 0.4021720035}},
      {{3.770348402, 4.547143311, 3.319680629, 3.307783077}, {4.109433129, 9.710534477, 1.594892441, 1.682300154}},
      {{4.353722837, 4.459672432, 4.038767472, 4.111087094}, {2.763815087, 2.529428703, 2.619784453, 2.492047813}},
      {{3.420218149, 3.3927576, 3.391843613, 3.399001699}, {0.334030922, 0.3776409475, 0.3502342337, 0.3897517059}},
  };
  for (int k = 0; k < VARIETIES; k++) {
    unroll_lm_options o = variety(k);
    o.training.clip = 0;
    o.training.optimizer = (unroll_optimizer_attr){.kind = UNROLL_SGD};
    o.training.schedule = (unroll_schedule){.kind = UNROLL_SCHEDULE_CONSTANT, .base = 0.05};
    struct record r = {0};
    unroll_lm *lm = create(&o);
    train_to(lm, 4, &r);
    unroll_lm_destroy(lm);
    /* float32 against float64, as train_reference.py says of the losses; a norm is a longer sum */
    for (int i = 0; i < 4; i++) {
      const double loss = (double)r.losses[i], norm = (double)r.norms[i];
      if (fabs(loss - expected[k].losses[i]) > 1e-6 * loss || fabs(norm - expected[k].norms[i]) > 1e-5 * norm)
        fail_msg("variety %d, update %d: loss %.9g for %.9g, norm %.9g for %.9g", k, i + 1, loss, expected[k].losses[i],
                 norm, expected[k].norms[i]);
    }
  }
}

static int collect(void *ctx, const char *piece, size_t bytes) {
  char *all = ctx;
  strncat(all, piece, bytes);
  return 0;
}

/*
 * Sampling carries the states on from character to character. What it says with temperature 0 is what the score of the same
 * characters at once says is likeliest: no other last character has a lower loss.
 */
static void steps_are_the_sequence(void **state) {
  (void)state;
  for (int k = 0; k < VARIETIES; k++) {
    unroll_lm_options o = variety(k);
    o.training.batch = 1; /* a score in one stream, of one window */
    o.steps = 20;
    struct record r = {0};
    unroll_lm *lm = create(&o);
    train_to(lm, 40, &r);
    char said[64] = "the quick";
    const unroll_lm_sample_options s = {.struct_size = sizeof s, .prompt = "the quick", .length = 12};
    assert_ok(unroll_lm_sample(lm, &s, collect, said, &err));
    assert_int_equal(strlen(said), 21);
    double best = 0, own = 0;
    for (int i = 0; i < 27; i++) { /* the letters; the last of them stands for what was said */
      char tried[64];
      strcpy(tried, said);
      tried[20] = i < 26 ? (char)('a' + i) : said[20];
      put_file(in_folder("tried"), tried, 21);
      const char *path = in_folder("tried");
      const unroll_text_options like = {.vocabulary = unroll_lm_describe(lm).vocabulary};
      unroll_text *t;
      unroll_lm_score_info info = {.struct_size = sizeof info};
      assert_ok(unroll_text_load(&path, 1, &like, NULL, &t, &err));
      assert_ok(unroll_lm_score(lm, t, &info, &err));
      unroll_text_destroy(t);
      own = info.loss * (double)info.count;
      best = i == 0 || own < best ? own : best;
    }
    /* the same sums in float32, in another order */
    if (own > best + 1e-4)
      fail_msg("variety %d: '%s' costs %g, another end %g", k, said, own, best);
    unroll_lm_destroy(lm);
  }
}

/* What each option changes is seen: losses are others with it than without. */
static void every_option_counts(void **state) {
  (void)state;
  for (int k = 0; k < 18; k++) {
    unroll_lm_options o = small(UNROLL_CELL_LSTM);
    o.rnn.dropout = k == 9 ? 0.1 : 0;
    o.embedding = o.rnn.hidden;
    o.rnn.layer_norm = k == 17;
    double *const numbers[] = {&o.rnn.dropout,       &o.rnn.input_dropout, &o.rnn.weight_dropout,
                               &o.rnn.state_dropout, &o.rnn.zoneout_h,     &o.rnn.zoneout_c,
                               &o.rnn.clip,          &o.rnn.cell_clip,     &o.rnn.skip};
    int32_t *const switches[] = {&o.rnn.layer_norm, &o.rnn.peepholes, &o.tied, &o.rnn.same_mask};
    struct record without = {0}, with = {0};
    unroll_lm *lm = create(&o);
    train_to(lm, 3, &without);
    unroll_lm_destroy(lm);
    if (k < 6)
      *numbers[k] = 0.3;
    else if (k < 10)
      *switches[k - 6] = 1;
    else if (k < 13)
      *numbers[k - 4] = 0.03125;
    else if (k == 13)
      o.rnn.residual = UNROLL_RESIDUAL_OUTPUTS;
    else if (k == 14)
      o.rnn.projection = 6;
    else if (k == 15)
      o.rnn.f = unroll_activation_of(UNROLL_ACTIVATION_HARD_SIGMOID);
    else if (k == 16)
      o.rnn.h = unroll_activation_of(UNROLL_ACTIVATION_IDENTITY);
    else
      o.rnn.layer_norm_epsilon = 0.5;
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
  REFUSED(rnn.projection, 4, "projection: an lstm's, but the cell is gru");
  REFUSED(rnn.projection, -1, "projection -1, it must be from 1 to 16384");
  REFUSED(rnn.cell_clip, 2, "cell clip: an lstm's, but the cell is gru");
  REFUSED(rnn.h.kind, UNROLL_ACTIVATION_TANH, "activation h: an lstm's, but the cell is gru");
  REFUSED(rnn.f.kind, UNROLL_ACTIVATION_MODRELU, "activation modrelu: an rnn's, but the cell is gru");
  REFUSED(rnn.g.kind, UNROLL_ACTIVATION_MODRELU,
          "activation g is modrelu, which only the activation f of an rnn can be");
  REFUSED(rnn.g.kind, 14, "activation g 14, 0 to 13 are known");
  REFUSED(rnn.f.beta, (double)INFINITY, "activation f has alpha 0 and beta inf, they must be finite");
  REFUSED(rnn.clip, -1, "gate clip -1");
  REFUSED(rnn.cell_clip, (double)INFINITY, "cell clip inf");
  REFUSED(rnn.skip, (double)NAN, "skip nan");
  REFUSED(rnn.residual, 3, "residual 3, 0 to 2 are known");
  REFUSED(rnn.layer_norm_epsilon, 0.1, "layer norm's epsilon 0.1 without layer norm");
  REFUSED(rnn.cell, 63, "cell 63, expected UNROLL_CELL_* or UNROLL_RNN_*");
  REFUSED(rnn.layer_norm, 2, "layer norm 2");
  REFUSED(rnn.same_mask, -1, "same mask -1");
  REFUSED(tied, 1, "tied: the embedding has 6 numbers and a layer 12 units");
  REFUSED(tied, 2, "tied 2");
  REFUSED(rnn.checkpoint.kind, 4, "checkpoint 4, 0 to 3 are known");
  unroll_lm_options o = good;
  o.rnn.cell = UNROLL_CELL_RNN;
  o.rnn.g = unroll_activation_of(UNROLL_ACTIVATION_RELU);
  assert_error(unroll_lm_create(&cpu, 1, text, &o, NULL, &lm, &err), UNROLL_E_INVALID,
               "activation g: of cells with gates, but the cell is rnn");
  o = good;
  o.rnn.layers = 1;
  o.rnn.residual = UNROLL_RESIDUAL_OUTPUTS;
  assert_error(unroll_lm_create(&cpu, 1, text, &o, NULL, &lm, &err), UNROLL_E_INVALID,
               "residual outputs: the only layer reads 6 numbers and gives 12");
  o = good;
  o.rnn.cell = UNROLL_CELL_LSTM;
  o.rnn.projection = 5;
  o.tied = 1;
  assert_error(unroll_lm_create(&cpu, 1, text, &o, NULL, &lm, &err), UNROLL_E_INVALID,
               "tied: the embedding has 6 numbers and a layer 5 after its projection");
  static const struct {
    const char *words;
    int32_t layer_norm, residual, checkpoint;
    double clip, skip, weight, state, zoneout;
    int32_t f;
  } of_states[] = {{.words = "layer norm", .layer_norm = 1},
                   {.words = "residual connections of states", .residual = UNROLL_RESIDUAL_STATES},
                   {.words = "checkpoint", .checkpoint = UNROLL_CHECKPOINT_SQRT},
                   {.words = "gate clip", .clip = 1},
                   {.words = "skip", .skip = 1},
                   {.words = "weight dropout", .weight = 0.5},
                   {.words = "state dropout", .state = 0.5},
                   {.words = "zoneout of h", .zoneout = 0.5},
                   {.words = "activation f", .f = UNROLL_ACTIVATION_TANH}};
  for (size_t k = 0; k < sizeof of_states / sizeof of_states[0]; k++) {
    char expected[96];
    o = good;
    o.rnn = (unroll_recurrent){.cell = UNROLL_RNN_MIN_GRU, .layers = 2, .hidden = 4};
    o.rnn.layer_norm = of_states[k].layer_norm;
    o.rnn.residual = of_states[k].residual;
    o.rnn.checkpoint.kind = of_states[k].checkpoint;
    o.rnn.clip = of_states[k].clip;
    o.rnn.skip = of_states[k].skip;
    o.rnn.weight_dropout = of_states[k].weight;
    o.rnn.state_dropout = of_states[k].state;
    o.rnn.zoneout_h = of_states[k].zoneout;
    o.rnn.f.kind = of_states[k].f;
    snprintf(expected, sizeof expected, "%s: of cells with W_h, but the cell is min_gru", of_states[k].words);
    assert_error(unroll_lm_create(&cpu, 1, text, &o, NULL, &lm, &err), UNROLL_E_INVALID, expected);
  }
  o = good;
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
      cmocka_unit_test(options_stand_in_the_file), cmocka_unit_test(losses_as_pytorch_has_them),
      cmocka_unit_test(steps_are_the_sequence),    cmocka_unit_test(every_option_counts),
      cmocka_unit_test(checkpoints_change_no_bit), cmocka_unit_test(wrong_options),
  };
  return cmocka_run_group_tests(tests, begin, end);
}
