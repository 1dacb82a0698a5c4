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
#include "interrupt.h"
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

bool diagnose_no_memory(void) {
  complain("out of memory");
  return false;
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
  if (d->device || d->device_failed)
    return d->device;
  d->ctx = open_context(&d->values->common);
  d->device = d->ctx ? open_device(d->ctx, &d->values->common) : NULL;
  d->device_failed = !d->device;
  if (d->device)
    json_object_set_new(d->report, "device", json_string(unroll_device_id(d->device)));
  return d->device;
}

unroll_device *diagnose_double_device(diagnosis *d) {
  unroll_device *const device = diagnose_device(d);
  const bool has = device && (unroll_device_describe(device)->dtypes >> UNROLL_F64 & 1u);
  json_object_set_new(d->report, "double_device", json_string(has ? unroll_device_id(device) : "cpu"));
  return has ? device : NULL;
}

int diagnose_cancel(void *ctx) {
  (void)ctx;
  return interrupt_asked();
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

static const char *activation_of(const unroll_activation *a) {
  return a->kind ? unroll_activation_name(a->kind) : NULL;
}

/* Those that the cell has beyond its plain form, as unroll.model and --help name them. */
static json_t *options_json(const layer_view *l) {
  static const char *const residuals[] = {NULL, "outputs", "states"};
  const unroll_rnn_options *o = &l->options;
  const struct {
    const char *name;
    const char *text;
  } texts[] = {{o->cell == UNROLL_CELL_RNN ? "activation" : "f", activation_of(&o->f)},
               {"g", activation_of(&o->g)},
               {"h", activation_of(&o->h)},
               {"residual", residuals[o->residual]}};
  const struct {
    const char *name;
    double value;
  } numbers[] = {{"gate_clip", o->clip}, {"cell_clip", o->cell_clip}, {"skip", o->skip}};
  json_t *all = json_object();
  json_object_set_new(all, "layer_norm", json_boolean(o->layer_norm));
  json_object_set_new(all, "peepholes", json_boolean(o->peepholes));
  json_object_set_new(all, "zoneout_h", diagnose_number(o->zoneout_h));
  json_object_set_new(all, "zoneout_c", diagnose_number(o->zoneout_c));
  if (o->projection)
    json_object_set_new(all, "projection", json_integer((json_int_t)o->projection));
  for (size_t i = 0; i < COUNT(texts); i++)
    if (texts[i].text)
      json_object_set_new(all, texts[i].name, json_string(texts[i].text));
  for (size_t i = 0; i < COUNT(numbers); i++)
    if (numbers[i].value != 0)
      json_object_set_new(all, numbers[i].name, diagnose_number(numbers[i].value));
  return all;
}

static json_t *model_json(const diagnosis *d, const char *hash) {
  const model_view *m = &d->model;
  const layer_view *l = &m->layers[0];
  int32_t last = 0;
  bool both = false;
  for (size_t i = 0; i < m->n && strcmp(m->layers[i].stack, l->stack) == 0; i++) {
    both |= m->layers[i].direction == 1;
    last = m->layers[i].layer;
  }
  return json_pack("{s:s, s:s, s:s, s:I, s:I, s:b, s:I, s:s, s:o}", "path", m->path, "task", m->task, "cell",
                   unroll_rnn_cell_name(l->options.cell), "layers", (json_int_t)(last + 1), "hidden",
                   (json_int_t)l->options.hidden, "bidirectional", both, "parameters", (json_int_t)m->parameters,
                   "sha256", hash, "options", options_json(l));
}

static json_t *data_json(const diagnosis *d, const char *hash) {
  int64_t steps = 0;
  for (int64_t i = 0; i < d->data.n; i++) {
    steps += d->data.lengths[i];
  }
  return json_pack("{s:s, s:s, s:I, s:I, s:I, s:I}", "path", d->data.path, "sha256", hash, "sequences",
                   (json_int_t)d->data.n, "steps", (json_int_t)d->T, "all_steps", (json_int_t)steps, "batch",
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

struct verdict {
  json_t *findings;
  const char *level; /* of the first finding */
  char text[720];
};

/* Those findings of a layer, or of the whole network, where `layer` is NULL, that have the level. */
static void add_findings(const diagnosis *d, struct verdict *v, const unroll_layer_figures *f, const char *layer,
                         int32_t level) {
  unroll_finding found[UNROLL_MOST_FINDINGS];
  const uint32_t n = unroll_layer_verdict(f, found);
  for (uint32_t i = 0; i < n; i++) {
    if (found[i].level != level || (layer && strcmp(found[i].what, "nonfinite") == 0)) /* said once of all layers */
      continue;
    json_array_append_new(v->findings,
                          json_pack("{s:s, s:s, s:s?, s:o, s:s, s:s}", "level", unroll_level_name(level), "what",
                                    found[i].what, "layer", layer, "figure", diagnose_number(found[i].figure), "text",
                                    found[i].text, "advice", found[i].advice));
    if (v->level)
      continue;
    const bool names_layer = layer && d->model.n > 1, advises = level > UNROLL_LEVEL_GOOD;
    v->level = unroll_level_name(level);
    snprintf(v->text, sizeof v->text, "%s%s%s%s%s%s", names_layer ? "layer " : "", names_layer ? layer : "",
             names_layer ? ": " : "", found[i].text, advises ? "; " : "", advises ? found[i].advice : "");
  }
}

void diagnose_verdict(diagnosis *d) {
  struct verdict v = {.findings = json_array()};
  unroll_layer_figures network = unroll_layer_figures_none();
  network.nonfinite = d->nonfinite;
  network.nonfinite_first = d->nonfinite_first;
  for (int32_t level = UNROLL_LEVEL_BAD; level >= UNROLL_LEVEL_GOOD; level--) {
    add_findings(d, &v, &network, NULL, level);
    for (size_t k = 0; k < d->model.n; k++)
      add_findings(d, &v, &d->figures[k], d->model.layers[k].name, level);
  }
  json_object_set_new(d->report, "verdict",
                      json_pack("{s:s, s:s, s:o}", "text", v.level ? v.text : "nothing that the rules know of is wrong",
                                "level", v.level ? v.level : unroll_level_name(UNROLL_LEVEL_GOOD), "findings",
                                v.findings));
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

/* Where the text's condition says something, with it. */
/* "  NAME      what is said of it", letters counted, not bytes. */
__attribute__((format(printf, 2, 3))) static void row(const char *name, const char *format, ...) {
  enum { WIDTH = 26 };
  int letters = 0;
  va_list arguments;
  for (const char *c = name; *c; c++)
    letters += ((unsigned char)*c & 0xc0) != 0x80;
  printf("  %s%*s ", name, letters < WIDTH ? WIDTH - letters : 0, "");
  va_start(arguments, format);
  vprintf(format, arguments);
  va_end(arguments);
  printf("\n");
}

static void print_gradient(const json_t *entry) {
  const double rate = number_in(entry, "rate");
  if (!json_object_get(entry, "rate"))
    row("gradient", "norms by step alone");
  else if (!isfinite(rate))
    row("gradient", "no product of Jacobians is finite");
  else if (!isfinite(number_in(entry, "condition")))
    row("gradient", "changes by a factor of %.3g a step", rate);
  else
    row("gradient", "%s", text_in(entry, "why"));
}

static void print_numbers(const diagnosis *d) {
  const json_t *nonfinite = json_object_get(d->report, "nonfinite");
  const double values = number_in(nonfinite, "values"), gradients = number_in(nonfinite, "gradients");
  if (d->nonfinite == 0)
    printf("numbers   %s\n", d->nonfinite_first);
  else if (d->nonfinite > 0 && isnan(gradients))
    printf("numbers   %.0f values are not finite\n", values);
  else if (d->nonfinite > 0)
    printf("numbers   %.0f values and %.0f gradients are not finite\n", values, gradients);
}

static void print_layer(const diagnosis *d, const layer_view *l) {
  const unroll_layer_figures *f = &d->figures[l - d->model.layers];
  size_t i;
  const json_t *entry;
  printf("layer     %s: %s, %" PRId64 " units\n", l->name, unroll_rnn_cell_name(l->options.cell), l->options.hidden);
  json_array_foreach(json_object_get(d->report, "spectra"), i, entry) if (is_of(entry, l)) {
    const double radius = number_in(entry, "radius"), norm = number_in(entry, "norm");
    if (json_is_true(json_object_get(entry, "leading")))
      row(text_in(entry, "matrix"), "spectral radius %.3g, norm %.3g", radius, norm);
    else
      row(text_in(entry, "matrix"), "spectral radius %.3g, norm %.3g, departure from normality %.3g", radius, norm,
          number_in(entry, "departure"));
  }
  if (f->saturated >= 0)
    row("saturation", "%.0f%% of '%s' at its ends", 100 * f->saturated, f->saturated_gate);
  if (f->dead >= 0)
    row("ReLU units", "%.0f%% never active", 100 * f->dead);
  if (f->time_constant >= 0)
    row("time constants", "the slowest unit keeps for %.3g steps", f->time_constant);
  if (!isnan(f->exponent))
    row("Lyapunov", "λ1 = %.4g ± %.1g nats a step", f->exponent, f->exponent_error);
  if (f->memory >= 0)
    row("memory", "%s%" PRId64 " of %" PRId64 " steps", f->memory >= f->steps ? "all " : "",
        f->memory >= f->steps ? f->steps : f->memory, f->steps);
  json_array_foreach(json_object_get(json_object_get(d->report, "gradient"), "layers"), i, entry) if (is_of(entry, l))
      print_gradient(entry);
  json_array_foreach(json_object_get(d->report, "fixed_points"), i, entry) if (is_of(entry, l)) {
    const json_t *kinds = json_object_get(entry, "class");
    const double saddles = number_in(kinds, "saddle"), sources = number_in(kinds, "source");
    row("fixed points", "%.0f stable, %.0f saddle%s, %.0f source%s; %.0f slow", number_in(kinds, "stable"), saddles,
        saddles == 1 ? "" : "s", sources, sources == 1 ? "" : "s", number_in(entry, "slow"));
  }
}

void diagnose_print_summary(const diagnosis *d) {
  const json_t *verdict = json_object_get(d->report, "verdict"), *model = json_object_get(d->report, "model");
  size_t i;
  const json_t *entry;
  printf("verdict   %s: %s\n", text_in(verdict, "level"), text_in(verdict, "text"));
  json_array_foreach(json_object_get(verdict, "findings"), i, entry) {
    const bool advises = strcmp(text_in(entry, "level"), unroll_level_name(UNROLL_LEVEL_GOOD)) != 0;
    if (i > 0)
      printf("          %s: layer %s: %s%s%s\n", text_in(entry, "level"), text_in(entry, "layer"),
             text_in(entry, "text"), advises ? "; " : "", advises ? text_in(entry, "advice") : "");
  }
  printf("model     %s: %s, %s, %.0f parameters\n", text_in(model, "path"), text_in(model, "task"),
         text_in(model, "cell"), number_in(model, "parameters"));
  printf("data      %s: %" PRId64 " sequences of up to %.0f steps\n", d->data.path, d->data.n,
         number_in(json_object_get(d->report, "data"), "steps"));
  print_numbers(d);
  for (size_t k = 0; k < d->model.n; k++)
    print_layer(d, &d->model.layers[k]);
  json_array_foreach(d->missing, i, entry)
      printf("missing   %s: %s\n", text_in(entry, "section"), text_in(entry, "why"));
  printf("report    %s/report.json%s\n", d->values->out,
         json_object_get(d->report, "partial") ? ", interrupted: a part" : "");
}
