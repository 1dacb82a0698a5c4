/* SPDX-License-Identifier: Apache-2.0 */
/* A translator's decoder, fed with the targets of the pairs: its gates, and the gradients of its states. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unroll/translate.h>

#include "diagnosis.h"
#include "interrupt.h"

/* The decoder's layers stand behind those that were run over the data. */
static size_t count_layers(const diagnosis *d) {
  size_t n = 0;
  for (size_t k = d->n_activities; k < d->model.n; k++)
    n += strcmp(d->model.layers[k].stack, "decoder") == 0;
  return n;
}

/* ---- gates ---- */

/* The diagnosis of the decoder alone, with the report and the figures of the whole. */
static void add_gates(const diagnosis *d, const unroll_translator_steps *s, layer_activity *activities,
                      unroll_activity_layer *layers, double *values, int64_t *lengths) {
  const int64_t each = s->steps * s->batch * s->gates * s->hidden;
  diagnosis part = *d;
  for (int64_t i = 0; i < s->layers * each; i++)
    values[i] = (double)s->values[i];
  for (int32_t l = 0; l < s->layers; l++) {
    layers[l] = (unroll_activity_layer){.layer = l, .H = s->hidden, .G = s->gates, .gates = values + l * each};
    activities[l] = (layer_activity){d->activities[d->n_activities - 1].layer + 1 + l, &layers[l]};
    diagnose_figures(&part, activities[l].layer)->steps = s->steps;
  }
  for (int64_t i = 0; i < s->batch; i++)
    lengths[i] = s->lengths[i];
  part.data.lengths = lengths;
  part.T = s->steps;
  part.network.options.hidden = s->hidden;
  part.activities = activities;
  part.n_activities = (size_t)s->layers;
  diagnose_gates(&part);
}

/* ---- gradients ---- */

/* The mean over the targets that have a step t. */
static json_t *mean_norms(const unroll_translator_steps *s, int32_t layer) {
  json_t *all = json_array();
  for (int64_t t = 0; t < s->steps; t++) {
    double sum = 0;
    int64_t n = 0;
    for (int64_t i = 0; i < s->batch; i++)
      if (t < s->lengths[i]) {
        sum += (double)s->norms[(layer * s->steps + t) * s->batch + i];
        n++;
      }
    json_array_append_new(all, diagnose_number(sum / (double)n));
  }
  return all;
}

static void add_gradients(diagnosis *d, const unroll_translator_steps *s) {
  json_t *gradient = json_object_get(d->report, "gradient"), *layers = json_object_get(gradient, "layers");
  if (!gradient) {
    gradient = json_pack("{s:[]}", "layers");
    layers = json_object_get(gradient, "layers");
    json_object_set_new(d->report, "gradient", gradient);
  }
  for (int32_t l = 0; l < s->layers; l++)
    json_array_append_new(
        layers, json_pack("{s:s, s:o, s:s}", "layer", d->model.layers[d->n_activities + (size_t)l].name, "norm",
                          mean_norms(s, l), "why",
                          "Under a teacher, of the model's own loss: norms alone, since a state of a decoder goes on "
                          "by way of its attention too."));
}

/* ---- the section ---- */

static bool add(diagnosis *d, const unroll_translator_steps *s) {
  const size_t n = (size_t)s->layers;
  layer_activity *const activities = calloc(n, sizeof *activities);
  unroll_activity_layer *const layers = calloc(n, sizeof *layers);
  double *const values = calloc(n * (size_t)(s->steps * s->batch * s->gates * s->hidden), sizeof *values);
  int64_t *const lengths = calloc((size_t)s->batch, sizeof *lengths);
  const bool made = activities && layers && values && lengths;
  if (made) {
    add_gates(d, s, activities, layers, values, lengths);
    add_gradients(d, s);
  }
  free(activities);
  free(layers);
  free(values);
  free(lengths);
  return made;
}

void diagnose_decoder(diagnosis *d) {
  if (!d->data.targets_of || count_layers(d) == 0)
    return;
  const char *const first = d->model.layers[d->n_activities].name;
  if (interrupt_asked()) {
    diagnose_missing(d, "gates", "%s: interrupted", first);
    return;
  }
  unroll_device *const device = diagnose_device(d);
  unroll_translator *t = NULL;
  unroll_translator_steps *s = NULL;
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_status status = device ? unroll_translator_load(&device, 1, d->model.path, NULL, &t, &err) : UNROLL_E_STATE;
  if (status == UNROLL_OK)
    status = unroll_translator_follow(t, (const char *const *)d->data.texts, (const char *const *)d->data.targets_of,
                                      d->data.n, &s, &err);
  if (status != UNROLL_OK)
    diagnose_missing(d, "gates", "%s: %s", first, !device ? "the device can't be opened" : err.message);
  else if ((size_t)s->layers != count_layers(d) || !add(d, s))
    diagnose_missing(d, "gates", "%s: out of memory", first);
  unroll_translator_steps_free(s);
  unroll_translator_destroy(t);
}
