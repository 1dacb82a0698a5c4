/* SPDX-License-Identifier: Apache-2.0 */
/* Classes of lengths: the fewest steps that so many can have, by trying all. */
#include "train/translate_private.h"
#include "translate_support.h"

enum { SHORTEST = 2, MOST_LENGTH = 12 };

/* Pairs of these numbers of sources by length; targets are two longer, but for the longest sources, which have one token. */
static unroll_pairs *pairs_of(const int *counts) {
  static char all[1 << 16];
  char *at = all;
  for (int n = 1; n <= MOST_LENGTH; n++)
    for (int i = 0; i < counts[n]; i++) {
      for (int k = 0; k < n; k++)
        *at++ = (char)('a' + (i + k) % 5);
      *at++ = '\t';
      for (int k = 0; k < (n == MOST_LENGTH ? 1 : n + 2); k++)
        *at++ = 'a';
      *at++ = '\n';
    }
  *at = '\0';
  return load_pairs(all);
}

/* Steps of all sources, each as long as its class; ends: a bit for each length that is one's. */
static int64_t steps_with(const int *counts, unsigned ends) {
  int64_t steps = 0;
  for (int n = 1, end; n <= MOST_LENGTH; n++) {
    for (end = n; !(ends >> end & 1); end++)
      ;
    steps += (int64_t)counts[n] * end;
  }
  return steps;
}

static void classes_have_the_fewest_steps(void **state) {
  (void)state;
  unsigned number = 17;
  for (int round = 0; round < 12; round++) {
    int counts[MOST_LENGTH + 1] = {0}, longest = 0;
    for (int n = SHORTEST; n <= MOST_LENGTH; n++, number = number * 1103515245u + 12345u)
      counts[n] = round < 10 ? (int)(number >> 16) % 40 : n == round - 6; /* the last two: of one length */
    for (int n = 1; n <= MOST_LENGTH; n++)
      longest = counts[n] ? n : longest;
    unroll_translator_options o = toy(UNROLL_CELL_RNN);
    o.rnn.hidden = o.embedding = 2;
    o.training.validation = o.testing = 0;
    unroll_pairs *pairs = pairs_of(counts);
    unroll_translator *t = new_translator(pairs, &o);
    unsigned ends = 0;
    int64_t best = INT64_MAX, target = 0;
    for (uint32_t v = 0; v < t->n_classes; v++) {
      ends |= 1u << t->classes[v].source;
      assert_true(v == 0 || t->classes[v].source > t->classes[v - 1].source);
    }
    assert_int_equal(t->classes[t->n_classes - 1].source, longest);
    for (unsigned some = 0; some < 1u << longest; some += 2)
      if (__builtin_popcount(some) < TRANSLATOR_CLASSES) {
        const int64_t steps = steps_with(counts, some | 1u << longest);
        best = steps < best ? steps : best;
      }
    assert_int_equal(steps_with(counts, ends), best);
    if (round >= 10)
      assert_int_equal(t->n_classes, 1); /* no graph for nobody */
    for (int n = 1, v = 0; n <= longest; n++) {
      const int64_t length = n == MOST_LENGTH ? 1 : n + 2;
      target = counts[n] && length + 1 > target ? length + 1 : target; /* with </s> */
      if (t->classes[v].source == n)
        assert_int_equal(t->classes[v++].target, target);
      assert_int_equal(translator_class_of(t, n), t->classes[v - (v > 0)].source >= n && v > 0 ? v - 1 : v);
    }
    unroll_translator_destroy(t);
    unroll_pairs_destroy(pairs);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(classes_have_the_fewest_steps)};
  return cmocka_run_group_tests(tests, begin, end);
}
