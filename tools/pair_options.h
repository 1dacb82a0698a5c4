/* SPDX-License-Identifier: Apache-2.0 */
/* The options by which commands read pairs of texts, and those by which they translate. */
#ifndef PAIR_OPTIONS_H
#define PAIR_OPTIONS_H
#include <unroll/translate.h>

#include "train_options.h"

/* A member `pairs` of a command's values. */
typedef struct pair_values {
  const char *path, *format;
  bool no_stress, first_only;
} pair_values;

#define OPTION_PAIRS(T, help_) TEXT("pairs", "FILE", offsetof(T, pairs.path), help_)
#define OPTIONS_PAIRS(T)                                                                                     \
  CHOICE("format", "F", offsetof(T, pairs.format), "tsv", "tsv cmudict",                                     \
         "of pairs: tsv: source TAB target; cmudict: the CMU pronouncing dictionary"),                       \
      FLAG("no-stress", offsetof(T, pairs.no_stress), "of cmudict: the digit at a vowel's end is left out"), \
      FLAG("first-only", offsetof(T, pairs.first_only), "of cmudict: a word's first pronunciation alone")

/* Are the options of cmudict given with it? Otherwise said on stderr. */
bool pairs_check_usage(const pair_values *values);
unroll_status pairs_load(const pair_values *values, unroll_pairs **pairs, unroll_error *err);

/* A member `way` of a command's values. */
typedef struct way_values {
  int64_t beam, top_k, seed, most;
  double alpha, temperature, top_p;
} way_values;

#define OPTIONS_WAY(T)                                                                                         \
  INTEGER("beam", "K", offsetof(T, way.beam), NULL, 1, INT32_MAX,                                              \
          "search with so many translations side by side (default: the likeliest token, one at a time)"),      \
      NUMBER("length-penalty", offsetof(T, way.alpha), "0", FROM_0,                                            \
             "of the search: log P is divided by ((5 + length)/6)^X"),                                         \
      NUMBER("temperature", offsetof(T, way.temperature), NULL, ABOVE_0,                                       \
             "tokens are drawn, with logits divided by this"),                                                 \
      INTEGER("top-k", "N", offsetof(T, way.top_k), "0", 0, INT32_MAX, "drawn of the N likeliest; 0: of all"), \
      {.type = OPTION_NUMBER,                                                                                  \
       .name = "top-p",                                                                                        \
       .argument = "X",                                                                                        \
       .offset = offsetof(T, way.top_p),                                                                       \
       .standard = "1",                                                                                        \
       .min = 1e-9,                                                                                            \
       .max = 1,                                                                                               \
       .expected = "a number above 0, at most 1",                                                              \
       .help = "drawn of the smallest set of tokens that is as probable as this"},                             \
      INTEGER("draw-seed", "N", offsetof(T, way.seed), "1", 0, (double)INT64_MAX, "of what is drawn"),         \
      INTEGER(                                                                                                 \
          "most", "N", offsetof(T, way.most), "0", 0, (1 << 20) - 1,                                           \
          "tokens of a translation at most, its end counted; 0: a quarter more than the pairs have for such a source")

/* Are there options of another way of translating? Said on stderr. */
bool way_check_usage(const command_spec *command, const void *values, const way_values *way);
unroll_translate_options way_options(const way_values *way);

#endif
