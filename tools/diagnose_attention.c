/* SPDX-License-Identifier: Apache-2.0 */
/* Where a translator looks: the weights of its attention for some sources, on the device. */
#include <string.h>
#include <unroll/translate.h>

#include "diagnosis.h"
#include "interrupt.h"

#define MOST_SOURCES 4

struct work {
  unroll_translator_info info;
  json_t *all;
};

static json_t *strings(const unroll_tokens *tokens, const int32_t *ids, int64_t n) {
  json_t *all = json_array();
  for (int64_t i = 0; i < n; i++)
    json_array_append_new(all, json_string(unroll_tokens_text(tokens, ids[i])));
  return all;
}

static int add(void *ctx, int64_t i, const unroll_translation *x) {
  struct work *w = ctx;
  (void)i;
  json_t *target = strings(w->info.targets, x->ids, x->n), *weights = json_array();
  if (x->ended)
    json_array_append_new(target, json_string("</s>"));
  for (int64_t row = 0; row < x->n + x->ended; row++) {
    json_t *one = json_array();
    for (int64_t k = 0; k < x->n_source; k++)
      json_array_append_new(one, diagnose_number((double)x->weights[row * x->n_source + k]));
    json_array_append_new(weights, one);
  }
  json_array_append_new(w->all, json_pack("{s:o, s:o, s:o}", "source", strings(w->info.sources, x->source, x->n_source),
                                          "target", target, "weights", weights));
  return interrupt_asked();
}

void diagnose_attention(diagnosis *d) {
  const char *const task = d->model.task;
  const char *kind = json_string_value(json_object_get(d->model.model, "attention"));
  if (strcmp(task, "seq2seq") != 0 || (kind && strcmp(kind, "none") == 0)) /* there is none to look at */
    return;
  unroll_device *device = diagnose_device(d);
  unroll_translator *t = NULL;
  unroll_error err = UNROLL_ERROR_INIT;
  struct work w = {.all = json_array()};
  const unroll_translate_options o = {.struct_size = sizeof o, .attention = 1};
  const int64_t n = d->data.n < MOST_SOURCES ? d->data.n : MOST_SOURCES;
  unroll_status status = device ? unroll_translator_load(&device, 1, d->model.path, NULL, &t, &err) : UNROLL_E_STATE;
  if (status == UNROLL_OK) {
    w.info = unroll_translator_describe(t);
    status = unroll_translator_translate(t, (const char *const *)d->data.texts, n, &o, add, &w, &err);
  }
  if (status != UNROLL_OK)
    diagnose_missing(d, "attention", "%s", !device ? "the device can't be opened" : err.message);
  json_object_set_new(d->report, "attention", w.all);
  unroll_translator_destroy(t);
}
