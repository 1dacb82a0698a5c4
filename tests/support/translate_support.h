/* SPDX-License-Identifier: Apache-2.0 */
/* For the tests of translators: words to be said backwards, small models, callbacks that remember. */
#ifndef TRANSLATE_SUPPORT_H
#define TRANSLATE_SUPPORT_H
#include <stdbool.h>
#include <unroll/translate.h>

#include "train_support.h"

enum { PAIRS = 90, LONGEST = 9 };

/* Words of 1 to LONGEST letters out of five, each once, and the same backwards. shift: other words. */
static inline void make_words(int shift, char words[PAIRS][LONGEST + 1]) {
  for (int i = 0; i < PAIRS; i++) {
    const int n = 1 + (i * 5 + shift) % LONGEST;
    unsigned number = (unsigned)(i * 7919 + shift * 104729 + 13);
    for (int k = 0; k < n; k++, number = number * 1103515245u + 12345u)
      words[i][k] = (char)('a' + (number >> 16) % 5);
    words[i][n] = '\0';
  }
}
static inline void backwards(const char *word, char *to) {
  const size_t n = strlen(word);
  for (size_t i = 0; i < n; i++)
    to[i] = word[n - 1 - i];
  to[n] = '\0';
}

static inline unroll_pairs *load_pairs(const char *text_) {
  unroll_pairs *pairs = NULL;
  put_file(in_folder("p.tsv"), text_, strlen(text_));
  assert_ok(unroll_pairs_load(in_folder("p.tsv"), NULL, NULL, &pairs, &err));
  return pairs;
}
static inline unroll_pairs *word_pairs(int shift) {
  char words[PAIRS][LONGEST + 1], all[PAIRS * 2 * (LONGEST + 1) + 1], *at = all, other[LONGEST + 1];
  make_words(shift, words);
  for (int i = 0; i < PAIRS; i++) {
    backwards(words[i], other);
    at += sprintf(at, "%s\t%s\n", words[i], other);
  }
  return load_pairs(all);
}

static inline unroll_translator_options toy(int32_t cell) {
  unroll_translator_options o = unroll_translator_options_default();
  o.rnn.cell = cell;
  o.rnn.hidden = 24;
  o.embedding = 12;
  o.target_unit = UNROLL_UNIT_CHARACTER;
  o.testing = 0.1;
  o.training.batch = 8;
  o.training.validation = 0.2;
  o.training.seed = 3;
  o.training.schedule.base = 0.015;
  return o;
}

static inline unroll_translator *new_on(unroll_device *device, const unroll_pairs *pairs,
                                        const unroll_translator_options *o) {
  unroll_translator *t = NULL;
  assert_ok(unroll_translator_create(&device, 1, pairs, o, NULL, &t, &err));
  return t;
}
static inline unroll_translator *new_translator(const unroll_pairs *pairs, const unroll_translator_options *o) {
  return new_on(cpu, pairs, o);
}
static inline unroll_translator *load_translator(const char *path) {
  unroll_translator *t = NULL;
  assert_ok(unroll_translator_load(&cpu, 1, path, NULL, &t, &err));
  return t;
}

RUN_TO(unroll_translator)

/* What was said, one after the other. */
struct said {
  char texts[PAIRS][64];
  double log_probs[PAIRS];
  int ended[PAIRS], n;
};
static inline int keep(void *ctx, int64_t i, const unroll_translation *x) {
  struct said *s = ctx;
  assert_int_equal(i, s->n);
  snprintf(s->texts[s->n], sizeof s->texts[0], "%s", x->text);
  s->log_probs[s->n] = x->log_prob;
  s->ended[s->n++] = x->ended;
  assert_null(x->weights);
  return 0;
}
static inline void translate_all(unroll_translator *t, const unroll_pairs *pairs, const unroll_translate_options *o,
                                 struct said *s) {
  s->n = 0;
  assert_ok(unroll_translator_translate(t, unroll_pairs_sources(pairs), unroll_pairs_count(pairs), o, keep, s, &err));
  assert_int_equal(s->n, unroll_pairs_count(pairs));
}

#endif
