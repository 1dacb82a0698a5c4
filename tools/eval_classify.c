/* SPDX-License-Identifier: Apache-2.0 */
/* `unroll eval` of a classifier. */
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unroll/classify.h>

#include "commands.h"
#include "console.h"
#include "eval_classify.h"

#define MOST_CLASSES 20 /* that a table is shown of */

struct result {
  const unroll_tokens *labels;
  int32_t majority;
  int64_t C, *confusion; /* [C,C] */
  unroll_classifier_score_info score;
};

static int print_json(const struct result *r) {
  const unroll_classifier_score_info *s = &r->score;
  json_t *labels = json_array(), *table = json_array();
  for (int64_t i = 0; i < r->C; i++) {
    json_t *row = json_array();
    for (int64_t k = 0; k < r->C; k++)
      json_array_append_new(row, json_integer((json_int_t)r->confusion[i * r->C + k]));
    json_array_append_new(table, row);
    json_array_append_new(labels, json_string(unroll_tokens_text(r->labels, (int32_t)i)));
  }
  json_t *all = json_pack("{s:I, s:f, s:f, s:f, s:f, s:o, s:o}", "count", (json_int_t)s->count, "loss", s->loss,
                          "accuracy", s->accuracy, "majority_loss", s->majority_loss, "majority_accuracy",
                          s->majority_accuracy, "labels", labels, "confusion", table);
  const bool written = all && json_dumpf(all, stdout, JSON_REAL_PRECISION(9)) == 0;
  json_decref(all);
  putchar('\n');
  return written ? EXIT_OK : EXIT_FAILED;
}

static int print(const struct result *r) {
  const unroll_classifier_score_info *s = &r->score;
  printf("sequences %" PRId64 ", %" PRId64 " classes\n", s->count, r->C);
  printf("model     %.4f nats, accuracy %.4f, %.0f right\n", s->loss, s->accuracy, s->accuracy * (double)s->count);
  printf("majority  %.4f nats, accuracy %.4f, always '%s'\n", s->majority_loss, s->majority_accuracy,
         unroll_tokens_text(r->labels, r->majority));
  if (r->C > MOST_CLASSES)
    return EXIT_OK;
  int width = 3;
  for (int64_t i = 0; i < r->C * r->C; i++)
    width = r->confusion[i] > 999 && width < 7 ? 7 : width;
  printf("\n%-10s", "label");
  for (int64_t k = 0; k < r->C; k++)
    printf(" %*.*s", width, width, unroll_tokens_text(r->labels, (int32_t)k));
  printf("   taken for\n");
  for (int64_t i = 0; i < r->C; i++) {
    printf("%-10.10s", unroll_tokens_text(r->labels, (int32_t)i));
    for (int64_t k = 0; k < r->C; k++)
      printf(" %*" PRId64, width, r->confusion[i * r->C + k]);
    putchar('\n');
  }
  return EXIT_OK;
}

int eval_classifier(unroll_device *device, const char *model, const sequence_values *data, bool json) {
  unroll_classifier *c = NULL;
  unroll_sequences *sequences = NULL;
  unroll_error err = UNROLL_ERROR_INIT;
  struct result r = {.labels = NULL};
  int code = EXIT_FAILED;
  unroll_status status = unroll_classifier_load(&device, 1, model, NULL, &c, &err);
  if (status == UNROLL_OK) {
    const unroll_classifier_info info = unroll_classifier_describe(c);
    r.labels = info.labels;
    r.majority = info.majority;
    r.C = unroll_tokens_count(info.labels);
    status = sequence_load(data, info.features, info.labels, true, &sequences, &err);
  }
  if (status == UNROLL_OK) {
    r.confusion = calloc((size_t)(r.C * r.C), sizeof *r.confusion);
    status = r.confusion ? unroll_classifier_score(c, sequences, r.confusion, &r.score, &err) : UNROLL_E_MEMORY;
  }
  if (status == UNROLL_OK)
    code = json ? print_json(&r) : print(&r);
  else if (status == UNROLL_E_MEMORY && !r.confusion)
    complain("out of memory");
  else
    complain_of(&err);
  free(r.confusion);
  unroll_sequences_destroy(sequences);
  unroll_classifier_destroy(c);
  return code;
}
