/* SPDX-License-Identifier: Apache-2.0 */
/* Translators: what they refuse, options and files, and that memory may run out anywhere. */
#include "translate_support.h"

static void wrong_options(void **state) {
  (void)state;
  unroll_pairs *pairs = word_pairs(0);
  unroll_translator *t = NULL;
#define REFUSED(field, value, words)                                                                     \
  do {                                                                                                   \
    unroll_translator_options o = toy(UNROLL_CELL_GRU);                                                  \
    o.field = value;                                                                                     \
    assert_error(unroll_translator_create(&cpu, 1, pairs, &o, NULL, &t, &err), UNROLL_E_INVALID, words); \
  } while (0)
  REFUSED(rnn.cell, 9, "cell 9");
  REFUSED(rnn.dropout, 1.5, "dropout 1.5");
  REFUSED(encoder_hidden, -1, "encoder hidden -1");
  REFUSED(embedding, 0, "embedding 0");
  REFUSED(attention, 5, "attention 5");
  REFUSED(context, 3, "context 3");
  REFUSED(attention_units, -2, "attention units -2");
  REFUSED(source_unit, UNROLL_UNIT_WHOLE, "source unit 2");
  REFUSED(target_unit, -1, "target unit -1");
  REFUSED(testing, -0.25, "testing -0.25");
  REFUSED(testing, 0.9, "sum less than 1");
  REFUSED(sampling_pick, 2, "sampling pick 2");
  REFUSED(steps_start, -1, "steps_start -1");
  REFUSED(steps_start, 2, "steps_increment 0");
  REFUSED(training.batch, 0, "batch 0");
  REFUSED(training.validation, 1.0, "validation 1");
  REFUSED(struct_size, 8, "struct_size 8");
#undef REFUSED
  unroll_translator_options o = toy(UNROLL_CELL_GRU);
  o.sampling.start = 1.25;
  assert_error(unroll_translator_create(&cpu, 1, pairs, &o, NULL, &t, &err), UNROLL_E_RANGE,
               "epsilon starts at 1.25, expected a probability from 0 to 1");
  o = toy(UNROLL_CELL_GRU);
  o.attention = UNROLL_ATTENTION_DOT;
  o.encoder_hidden = 24;
  assert_error(unroll_translator_create(&cpu, 1, pairs, &o, NULL, &t, &err), UNROLL_E_INVALID,
               "the source's vectors have 48 numbers, the decoder's state 24");
  o = toy(UNROLL_CELL_GRU);
  o.training.validation = 1e-9;
  assert_error(unroll_translator_create(&cpu, 1, pairs, &o, NULL, &t, &err), UNROLL_E_RANGE, "0 to validate");
  unroll_pairs *long_ones = load_pairs("aaaa\tbbbb\naaab\tbbbc\naabb\tbbcc\nabbb\tbccc\n");
  o = toy(UNROLL_CELL_GRU);
  o.training.validation = o.testing = 0;
  o.steps_start = 3;
  o.steps_increment = 1;
  assert_error(unroll_translator_create(&cpu, 1, long_ones, &o, NULL, &t, &err), UNROLL_E_RANGE,
               "steps_start 3: no pair of the training part is as short");
  assert_error(unroll_translator_create(&cpu, 1, NULL, &o, NULL, &t, &err), UNROLL_E_INVALID, "pairs is NULL");
  unroll_pairs *spelled = load_pairs("a\tb\nc\tone </s> two\n");
  o.steps_start = 0;
  o.target_unit = UNROLL_UNIT_WORD;
  assert_error(unroll_translator_create(&cpu, 1, spelled, &o, NULL, &t, &err), UNROLL_E_FORMAT, "</s>");
  unroll_pairs_destroy(spelled);
  unroll_pairs_destroy(long_ones);

  o = toy(UNROLL_CELL_GRU);
  o.attention = UNROLL_ATTENTION_NONE;
  t = new_translator(pairs, &o);
  static struct said said;
  static const char *const words[] = {"abc", "", "c"}, *const broken[] = {"a\xff"};
#define REFUSED(status, field, value, words_)                                                        \
  do {                                                                                               \
    unroll_translate_options way = {.struct_size = sizeof way};                                      \
    way.field = value;                                                                               \
    assert_error(unroll_translator_translate(t, words, 1, &way, keep, &said, &err), status, words_); \
  } while (0)
  REFUSED(UNROLL_E_INVALID, beam, -1, "beam -1, it must be from 1 to 7");
  REFUSED(UNROLL_E_INVALID, beam, 8, "beam 8");
  REFUSED(UNROLL_E_INVALID, alpha, -0.5, "length penalty -0.5");
  REFUSED(UNROLL_E_INVALID, temperature, -1.0, "temperature -1");
  REFUSED(UNROLL_E_INVALID, top_k, 8, "top_k 8");
  REFUSED(UNROLL_E_INVALID, top_p, 1.5, "top_p 1.5, it must be from 0 to 1");
  REFUSED(UNROLL_E_INVALID, most, 1 << 20, "most 1048576");
  REFUSED(UNROLL_E_INVALID, struct_size, 4, "struct_size 4");
  REFUSED(UNROLL_E_STATE, attention, 1, "the model has no attention");
  const unroll_translate_options both = {.struct_size = sizeof both, .beam = 2, .temperature = 1};
  assert_error(unroll_translator_translate(t, words, 1, &both, keep, &said, &err), UNROLL_E_INVALID, "draws nothing");
  assert_error(unroll_translator_translate(t, words, 3, NULL, keep, &said, &err), UNROLL_E_FORMAT, "text 1 is empty");
  assert_error(unroll_translator_translate(t, broken, 1, NULL, keep, &said, &err), UNROLL_E_FORMAT, "text 0");
  assert_error(unroll_translator_translate(t, words, 1, NULL, NULL, &said, &err), UNROLL_E_INVALID, "each is NULL");
  unroll_translator_reinforce_options r = {.struct_size = sizeof r, .baseline = 1, .decay = 0.9};
  assert_error(unroll_translator_reinforce(t, &r, &err), UNROLL_E_STATE, "before it is resumed");
  assert_ok(unroll_translator_save(t, in_folder("m"), &err));
  unroll_translator_destroy(t);
  t = load_translator(in_folder("m"));
  r.baseline = 3;
  assert_error(unroll_translator_reinforce(t, &r, &err), UNROLL_E_INVALID, "baseline 3");
  r.baseline = 1;
  r.decay = 1;
  assert_error(unroll_translator_reinforce(t, &r, &err), UNROLL_E_INVALID, "the baseline's decay 1");
  unroll_translator_destroy(t);
  assert_null(unroll_attention_name(5));
  assert_null(unroll_context_name(-1));
  assert_null(unroll_sampling_name(3));
  unroll_pairs_destroy(pairs);
}

static void wrong_files(void **state) {
  (void)state;
  unroll_pairs *pairs = load_pairs("ab\tba\nabc\tcba\nb\tb\nac\tca\n");
  unroll_translator_options o = toy(UNROLL_CELL_GRU);
  o.training.validation = o.testing = 0;
  unroll_translator *t = new_translator(pairs, &o);
  assert_ok(unroll_translator_save(t, in_folder("m"), &err));
  unroll_translator_destroy(t);
  t = NULL;
  unroll_lm *lm = NULL;
  assert_error(unroll_lm_load(&cpu, 1, in_folder("m"), NULL, &lm, &err), UNROLL_E_FORMAT,
               "'translator', not 'character language model'");
  static const char *const keys[] = {"unroll.kind",     "unroll.format",   "unroll.version",
                                     "unroll.sources",  "unroll.targets",  "unroll.model",
                                     "unroll.training", "unroll.position", "unroll.data"};
  static const struct {
    const char *key, *from, *to, *words;
  } cases[] = {
      {"unroll.model", "\"bidirectional\":1", "\"bidirectional\":1,\"decoder\":\"other\"",
       "decoder 'other' is none that is known"},
      {"unroll.model", "\"1 2 3\"", "\"1 2 2\"", "source_lengths: '1 2 2' is no list"},
      {"unroll.model", "\"1 2 3\"", "\"\"", "source_lengths: ''"},
      {"unroll.model", "\"2 3 4\"", "\"2 3\"", "target_lengths: '2 3'"},
      {"unroll.model", "\"2 3 4\"", "\"2 3 4 5\"", "target_lengths: '2 3 4 5'"},
      {"unroll.model", "\"2 3 4\"", "\"2  4\"", "target_lengths: '2  4'"},
      {"unroll.model", "\"bidirectional\":1", "\"bidirectional\":2", "bidirectional 2"},
      {"unroll.model", "\"attention\":\"additive\"", "\"attention\":\"some\"",
       "attention 'some' is none that is known"},
      {"unroll.model", "\"embedding\":12", "\"embedding\":13", "tensor embed.weight is f32 [4,12]"},
      {"unroll.model", "\"hidden\":24", "\"hidden\":0", "metadata: hidden 0"},
      {"unroll.training", "\"testing\":0", "\"testing\":2", "testing 2"},
      {"unroll.data", "\"by_place\":\"", "\"by_place\":\"9 ", "by_place: '9 "},
      {"unroll.sources", "{", "[", "metadata unroll.sources: "},
      {"unroll.targets", "\"specials\":12", "\"specials\":8", "other special tokens"},
      {"unroll.format", "1", "9", "newer than format 1"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    change_metadata(keys, sizeof keys / sizeof keys[0], cases[i].key, cases[i].from, cases[i].to);
    assert_error(unroll_translator_load(&cpu, 1, in_folder("changed"), NULL, &t, &err),
                 strcmp(cases[i].key, "unroll.format") == 0 ? UNROLL_E_UNSUPPORTED : UNROLL_E_FORMAT, cases[i].words);
  }
  unroll_pairs_destroy(pairs);
}

struct data {
  const unroll_pairs *pairs;
  unroll_translator_options options;
};
static unroll_status make_one(void *ctx, const unroll_allocator *allocator) {
  const struct data *d = ctx;
  unroll_translator *t = NULL;
  const unroll_status status = unroll_translator_create(&cpu, 1, d->pairs, &d->options, allocator, &t, NULL);
  unroll_translator_destroy(t);
  return status;
}
static unroll_status use_one(void *ctx, const unroll_allocator *allocator) {
  const struct data *d = ctx;
  static struct said said;
  unroll_translator_score_info info;
  unroll_translator *t = NULL;
  const unroll_translate_options way = {.struct_size = sizeof way, .attention = 0};
  said.n = 0;
  unroll_status status = unroll_translator_load(&cpu, 1, in_folder("m"), allocator, &t, NULL);
  if (status == UNROLL_OK)
    status = unroll_translator_translate(t, unroll_pairs_sources(d->pairs), 4, &way, keep, &said, NULL);
  if (status == UNROLL_OK)
    status = unroll_translator_score(t, d->pairs, -1, NULL, NULL, NULL, &info, NULL);
  if (status == UNROLL_OK)
    status = unroll_translator_resume(t, d->pairs, NULL);
  if (status == UNROLL_OK)
    status = unroll_translator_save(t, in_folder("again"), NULL);
  unroll_translator_destroy(t);
  return status;
}
static void memory_runs_out(void **state) {
  (void)state;
  unroll_pairs *pairs = load_pairs("ab\tba\nabc\tcba\nb\tb\nac\tca\n");
  struct data d = {pairs, toy(UNROLL_CELL_RNN)};
  d.options.rnn.hidden = d.options.embedding = 2;
  d.options.training.validation = d.options.testing = 0;
  unroll_translator *t = new_translator(pairs, &d.options);
  assert_ok(unroll_translator_save(t, in_folder("m"), &err));
  unroll_translator_destroy(t);
  memory_runs_out_of(make_one, &d, 120, 61);
  memory_runs_out_of(use_one, &d, 120, 61);
  unroll_pairs_destroy(pairs);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(wrong_options), cmocka_unit_test(wrong_files),
                                     cmocka_unit_test(memory_runs_out)};
  return cmocka_run_group_tests(tests, begin, end);
}
