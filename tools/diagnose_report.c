/* SPDX-License-Identifier: Apache-2.0 */
/* The report: what it is of, the verdict, the file, and the summary for a terminal. */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "console.h"
#include "cost_report.h"
#include "diagnosis.h"
#include "report_draw.h"
#include "sha256.h"

#define DIGITS 9

/* ---- pieces ---- */

json_t *diagnose_number(double value) {
  if (isnan(value))
    return json_string("nan");
  return isinf(value) ? json_string(value > 0 ? "inf" : "-inf") : json_real(value);
}

json_t *diagnose_numbers(const double *values, int64_t n) {
  json_t *all = json_array();
  for (int64_t i = 0; i < n; i++)
    json_array_append_new(all, diagnose_number(values[i]));
  return all;
}

void diagnose_missing(diagnosis *d, const char *section, const char *why, ...) {
  char text[700];
  va_list arguments;
  va_start(arguments, why);
  vsnprintf(text, sizeof text, why, arguments);
  va_end(arguments);
  json_array_append_new(d->missing, json_pack("{s:s, s:s}", "section", section, "why", text));
}

unroll_device *diagnose_device(diagnosis *d) {
  if (!d->ctx)
    d->ctx = open_context(&d->values->common);
  if (d->ctx && !d->device) {
    d->device = open_device(d->ctx, &d->values->common);
    if (d->device)
      json_object_set_new(d->report, "device", json_string(unroll_device_id(d->device)));
  }
  return d->device;
}

unroll_layer_figures *diagnose_figures(diagnosis *d, const layer_view *layer) {
  return &d->figures[layer - d->model.layers];
}

/* ---- what it is of ---- */

static bool sha256(const char *path, char hash[65]) {
  if (sha256_of_file(path, hash))
    return true;
  complain("%s: %s", path, strerror(errno));
  return false;
}

static json_t *model_json(const diagnosis *d, const char *hash) {
  const model_view *m = &d->model;
  const layer_view *l = &m->layers[0];
  int32_t last = 0;
  const char *activation = json_string_value(json_object_get(m->model, "activation"));
  bool both = false;
  for (size_t i = 0; i < m->n && strcmp(m->layers[i].stack, l->stack) == 0; i++) {
    both |= m->layers[i].direction == 1;
    last = m->layers[i].layer;
  }
  json_t *options = json_object();
  json_object_set_new(options, "layer_norm", json_boolean(l->extras.ln_x));
  json_object_set_new(options, "peepholes", json_boolean(l->extras.p_i));
  json_object_set_new(options, "zoneout_h", diagnose_number(l->extras.zoneout_h));
  json_object_set_new(options, "zoneout_c", diagnose_number(l->extras.zoneout_c));
  if (activation)
    json_object_set_new(options, "activation", json_string(activation));
  return json_pack("{s:s, s:s, s:s, s:I, s:I, s:b, s:I, s:s, s:o}", "path", m->path, "task", m->task, "cell",
                   train_cell_name(l->weights.cell), "layers", (json_int_t)(last + 1), "hidden",
                   (json_int_t)l->weights.hidden, "bidirectional", both, "parameters", (json_int_t)m->parameters,
                   "sha256", hash, "options", options);
}

static json_t *data_json(const diagnosis *d, const char *hash) {
  int64_t steps = 0, longest = 0;
  for (int64_t i = 0; i < d->data.n; i++) {
    steps += d->data.lengths[i];
    longest = d->data.lengths[i] > longest ? d->data.lengths[i] : longest;
  }
  return json_pack("{s:s, s:s, s:I, s:I, s:I, s:I}", "path", d->data.path, "sha256", hash, "sequences",
                   (json_int_t)d->data.n, "steps", (json_int_t)longest, "all_steps", (json_int_t)steps, "batch",
                   (json_int_t)d->data.n);
}

static json_t *configuration_json(const diagnosis *d) {
  json_t *all = json_deep_copy(d->model.training);
  const char *key;
  json_t *value;
  json_object_foreach(d->model.model, key, value) if (!json_is_string(value) || strlen(json_string_value(value)) < 100)
      json_object_set(all, key, value);
  return all;
}

bool diagnose_begin_report(diagnosis *d) {
  char model[65], data[65], created[32];
  const time_t now = time(NULL);
  struct tm utc;
  const json_t *seed = json_object_get(d->model.training, "seed");
  if (!sha256(d->model.path, model) || !sha256(d->data.path, data))
    return false;
  gmtime_r(&now, &utc);
  strftime(created, sizeof created, "%Y-%m-%dT%H:%M:%SZ", &utc);
  d->report =
      json_pack("{s:s, s:i, s:s, s:s, s:o, s:o, s:O?, s:s, s:o}", "format", "unroll report", "version", 1, "unroll",
                unroll_version(), "created", created, "model", model_json(d, model), "data", data_json(d, data), "seed",
                seed, "device", d->values->common.device, "configuration", configuration_json(d));
  d->missing = json_array();
  if (d->report && d->missing)
    return true;
  complain("out of memory");
  return false;
}

void diagnose_cost(diagnosis *d) {
  const cost_asked asked = {.steps = 0}; /* the model's own */
  cost_report *r = calloc(1, sizeof *r);
  unroll_error err = UNROLL_ERROR_INIT;
  json_t *cost = NULL;
  if (strcmp(d->model.task, "layers") == 0)
    diagnose_missing(d, "cost", "the file has layers alone: 'unroll train' wrote no task and batch");
  else if (!r)
    diagnose_missing(d, "cost", "out of memory");
  else if (cost_of_file(d->model.path, &asked, r, &err) != UNROLL_OK)
    diagnose_missing(d, "cost", "%s", err.message);
  else if (!(cost = cost_to_json(r)))
    diagnose_missing(d, "cost", "out of memory");
  if (cost)
    json_object_set_new(d->report, "cost", cost);
  free(r);
}

/* ---- the verdict ---- */

void diagnose_verdict(diagnosis *d) {
  json_t *all = json_array();
  char text[720] = "nothing that the rules know of is wrong";
  int32_t level = UNROLL_LEVEL_GOOD;
  bool said = false;
  for (int32_t wanted = UNROLL_LEVEL_BAD; wanted >= UNROLL_LEVEL_GOOD; wanted--)
    for (size_t k = 0; k < d->model.n; k++) {
      unroll_finding found[UNROLL_MOST_FINDINGS];
      const uint32_t n = unroll_layer_verdict(&d->figures[k], found);
      for (uint32_t i = 0; i < n; i++) {
        if (found[i].level != wanted)
          continue;
        const char *name = d->model.layers[k].name;
        json_array_append_new(all,
                              json_pack("{s:s, s:s, s:s, s:o, s:s, s:s}", "level", unroll_level_name(wanted), "what",
                                        found[i].what, "layer", name, "figure", diagnose_number(found[i].figure),
                                        "text", found[i].text, "advice", found[i].advice));
        if (said)
          continue;
        said = true;
        level = wanted;
        snprintf(text, sizeof text, "%s%s%s%s%s", d->model.n > 1 ? "layer " : "", d->model.n > 1 ? name : "",
                 d->model.n > 1 ? ": " : "", found[i].text, "");
        if (wanted > UNROLL_LEVEL_GOOD)
          snprintf(text + strlen(text), sizeof text - strlen(text), "; %s", found[i].advice);
      }
    }
  json_object_set_new(d->report, "verdict",
                      json_pack("{s:s, s:s, s:o}", "text", text, "level", unroll_level_name(level), "findings", all));
}

/* ---- the file ---- */

static bool write_text(const char *path, const char *text) {
  FILE *file = fopen(path, "wb");
  if (!file)
    return false;
  bool written = fputs(text, file) >= 0 && fputc('\n', file) != EOF && fflush(file) == 0 && fsync(fileno(file)) == 0;
  const int error = errno;
  written = fclose(file) == 0 && written;
  if (!written && error)
    errno = error;
  return written;
}

bool diagnose_write_report(const diagnosis *d) {
  char path[4096], part[4096];
  const int n = snprintf(path, sizeof path, "%s/report.json", d->values->out);
  const int m = snprintf(part, sizeof part, "%s/.report.json.%ld", d->values->out, (long)getpid());
  char *text = NULL;
  bool written = false;
  if (n < 0 || m < 0 || (size_t)n >= sizeof path || (size_t)m >= sizeof part) {
    complain("--out: the name is too long");
    return false;
  }
  json_object_set(d->report, "missing", d->missing);
  text = json_dumps(d->report, JSON_REAL_PRECISION(DIGITS) | JSON_INDENT(1));
  if (!text)
    complain("out of memory");
  else if (!(written = write_text(part, text) && rename(part, path) == 0)) {
    complain("cannot write %s: %s", path, strerror(errno));
    unlink(part);
  }
  free(text);
  return written;
}

bool diagnose_draw(const diagnosis *d) {
  char path[4096];
  size_t bytes;
  report_drawn drawn;
  snprintf(path, sizeof path, "%s/report.json", d->values->out);
  json_t *report = report_read(path, &bytes);
  const bool done = report && report_draw(report, bytes, d->values->out, &drawn);
  json_decref(report);
  if (!done)
    return false;
  printf("page      %s/report.html; %zu plots in %s/plots, as SVG%s\n", d->values->out, drawn.plots, d->values->out,
         drawn.has_png ? " and PNG" : "");
  if (!drawn.has_png)
    tell("no PNG: %s", drawn.png_note);
  return drawn.faults == 0;
}

/* ---- the summary ---- */

static const char *text_in(const json_t *object, const char *key) {
  const char *text = json_string_value(json_object_get(object, key));
  return text ? text : "?";
}

/* A number as it was packed: a text where it is not finite. */
static double number_in(const json_t *object, const char *key) {
  const json_t *value = json_object_get(object, key);
  const char *text = json_string_value(value);
  return text ? strtod(text, NULL) : json_is_number(value) ? json_number_value(value) : (double)NAN;
}

static bool is_of(const json_t *entry, const layer_view *l) { return strcmp(text_in(entry, "layer"), l->name) == 0; }

static void print_layer(const diagnosis *d, const layer_view *l) {
  const unroll_layer_figures *f = &d->figures[l - d->model.layers];
  size_t i;
  const json_t *entry;
  printf("layer     %s: %s, %" PRId64 " units\n", l->name, train_cell_name(l->weights.cell), l->weights.hidden);
  json_array_foreach(json_object_get(d->report, "spectra"), i, entry) if (is_of(entry, l)) {
    printf("  %-24s spectral radius %.3g, norm %.3g", text_in(entry, "matrix"), number_in(entry, "radius"),
           number_in(entry, "norm"));
    if (!json_is_true(json_object_get(entry, "leading")))
      printf(", departure from normality %.3g", number_in(entry, "departure"));
    printf("\n");
  }
  if (f->saturated >= 0)
    printf("  %-24s %.0f%% of '%s' at its ends\n", "saturation", 100 * f->saturated, f->saturated_gate);
  if (f->dead >= 0)
    printf("  %-24s %.0f%% never active\n", "ReLU units", 100 * f->dead);
  if (f->time_constant >= 0)
    printf("  %-24s the slowest unit keeps for %.3g steps\n", "time constants", f->time_constant);
  if (!isnan(f->exponent))
    printf("  %-24s λ1 = %.4g ± %.1g nats a step\n", "Lyapunov", f->exponent, f->exponent_error);
  if (f->memory >= 0)
    printf("  %-24s %s%" PRId64 " of %" PRId64 " steps\n", "memory", f->memory >= f->steps ? "all " : "",
           f->memory >= f->steps ? f->steps : f->memory, f->steps);
  json_array_foreach(json_object_get(json_object_get(d->report, "gradient"), "layers"), i, entry) if (is_of(entry, l))
      printf("  %-24s %s\n", "gradient", text_in(entry, "why"));
  json_array_foreach(json_object_get(d->report, "fixed_points"), i, entry) if (is_of(entry, l)) {
    const json_t *kinds = json_object_get(entry, "class");
    printf("  %-24s %.0f stable, %.0f saddles, %.0f sources; %.0f slow\n", "fixed points", number_in(kinds, "stable"),
           number_in(kinds, "saddle"), number_in(kinds, "source"), number_in(entry, "slow"));
  }
}

void diagnose_print_summary(const diagnosis *d) {
  const json_t *verdict = json_object_get(d->report, "verdict"), *model = json_object_get(d->report, "model");
  size_t i;
  const json_t *entry;
  printf("verdict   %s: %s\n", text_in(verdict, "level"), text_in(verdict, "text"));
  json_array_foreach(json_object_get(verdict, "findings"), i, entry) if (i > 0)
      printf("          %s: layer %s: %s; %s\n", text_in(entry, "level"), text_in(entry, "layer"),
             text_in(entry, "text"), text_in(entry, "advice"));
  printf("model     %s: %s, %s, %.0f parameters\n", text_in(model, "path"), text_in(model, "task"),
         text_in(model, "cell"), number_in(model, "parameters"));
  printf("data      %s: %" PRId64 " sequences of up to %.0f steps\n", d->data.path, d->data.n,
         number_in(json_object_get(d->report, "data"), "steps"));
  for (size_t k = 0; k < d->model.n; k++)
    print_layer(d, &d->model.layers[k]);
  json_array_foreach(d->missing, i, entry)
      printf("missing   %s: %s\n", text_in(entry, "section"), text_in(entry, "why"));
  printf("report    %s/report.json%s\n", d->values->out,
         json_object_get(d->report, "partial") ? ", interrupted: a part" : "");
}
