/* SPDX-License-Identifier: Apache-2.0 */
#include "eval_translate.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <string.h>

#include "commands.h"
#include "console.h"

static int print_json(const unroll_translator_score_info *s, uint64_t split) {
  char hash[17];
  snprintf(hash, sizeof hash, "%016" PRIx64, split);
  json_t *all =
      json_pack("{s:I, s:I, s:f, s:f, s:f, s:f, s:s}", "count", (json_int_t)s->count, "tokens", (json_int_t)s->tokens,
                "error_rate", s->error_rate, "accuracy", s->accuracy, "baseline_error_rate", s->baseline_error_rate,
                "baseline_accuracy", s->baseline_accuracy, "split", hash);
  const bool written = all && json_dumpf(all, stdout, JSON_REAL_PRECISION(9)) == 0;
  json_decref(all);
  putchar('\n');
  return written ? EXIT_OK : EXIT_FAILED;
}

static int print(const unroll_translator_score_info *s, const char *part, uint64_t split) {
  printf("sources   %" PRId64 " with %" PRId64 " tokens in their nearest targets; part %s, split %016" PRIx64 "\n",
         s->count, s->tokens, part, split);
  printf("model     token error rate %.4f, %.4f right\n", s->error_rate, s->accuracy);
  printf("baseline  token error rate %.4f, %.4f right: the most frequent token at each place\n", s->baseline_error_rate,
         s->baseline_accuracy);
  return EXIT_OK;
}

static int write_one(void *ctx, const unroll_translator_scored *x) {
  return fprintf(ctx, "%s\t%s\t%s\t%" PRId64 "\t%" PRId64 "\n", x->source, x->translation, x->target, x->errors,
                 x->length) < 0;
}

static int32_t part_of(const char *name) {
  static const char *const names[] = {"training", "validation", "test"};
  for (int32_t i = 0; i < UNROLL_PARTS; i++)
    if (strcmp(name, names[i]) == 0)
      return i;
  return -1;
}

int eval_translator(unroll_device *device, const char *model, const pair_values *values, const way_values *way,
                    const char *part, const char *errors, bool json) {
  const unroll_translate_options o = way_options(way);
  unroll_translator *t = NULL;
  unroll_pairs *pairs = NULL;
  unroll_translator_score_info score;
  unroll_error err = UNROLL_ERROR_INIT;
  FILE *const list = errors ? fopen(errors, "we") : NULL;
  int code = EXIT_FAILED;
  if (errors && !list) {
    complain("--errors: cannot write %s: %s", errors, strerror(errno));
    return EXIT_FAILED;
  }
  unroll_status status = unroll_translator_load(&device, 1, model, NULL, &t, &err);
  if (status == UNROLL_OK)
    status = pairs_load(values, &pairs, &err);
  if (status == UNROLL_OK)
    status = unroll_translator_score(t, pairs, part_of(part), &o, list ? write_one : NULL, list, &score, &err);
  const bool written = !list || fclose(list) == 0;
  if (status == UNROLL_OK && written) {
    const uint64_t split = unroll_translator_describe(t).split_hash;
    code = json ? print_json(&score, split) : print(&score, part, split);
  } else if (status == UNROLL_OK || status == UNROLL_E_CANCELLED)
    complain("cannot write %s: %s", errors, strerror(errno));
  else
    complain_of(&err);
  unroll_pairs_destroy(pairs);
  unroll_translator_destroy(t);
  return code;
}
