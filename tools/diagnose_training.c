/* SPDX-License-Identifier: Apache-2.0 */
/* Norms over training, out of the log that the training wrote. */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "diagnosis.h"

enum { MAX_ROWS = 8192, MAX_LINE = 1 << 20 };

/* Of one matrix; between two measurements the former stands. */
typedef struct radius_curve {
  char *name;
  double values[MAX_ROWS], latest;
} radius_curve;

typedef struct training_log {
  double updates[MAX_ROWS], losses[MAX_ROWS], norms[MAX_ROWS];
  radius_curve **radii;
  size_t n, n_radii;
  uint64_t lines, every; /* one line of so many is kept */
} training_log;

/* null stands in the log for what is not finite. */
static double value_of(const json_t *line, const char *key) {
  const json_t *x = json_object_get(line, key);
  return json_is_number(x) ? json_number_value(x) : (double)NAN;
}

static void halve(double *values, size_t n) {
  for (size_t i = 0; 2 * i < n; i++)
    values[i] = values[2 * i];
}

/* Every second row goes, when there is no room for more. */
static void thin(training_log *l) {
  halve(l->updates, l->n);
  halve(l->losses, l->n);
  halve(l->norms, l->n);
  for (size_t k = 0; k < l->n_radii; k++)
    halve(l->radii[k]->values, l->n);
  l->n = (l->n + 1) / 2;
  l->every *= 2;
}

/* NULL: out of memory. */
static radius_curve *curve_of(training_log *l, const char *name, double first) {
  for (size_t k = 0; k < l->n_radii; k++)
    if (strcmp(l->radii[k]->name, name) == 0)
      return l->radii[k];
  radius_curve **const more = realloc(l->radii, (l->n_radii + 1) * sizeof *more);
  if (!more)
    return NULL;
  l->radii = more;
  radius_curve *const c = malloc(sizeof *c);
  char *const copy = c ? strdup(name) : NULL;
  if (!copy) {
    free(c);
    return NULL;
  }
  c->name = copy;
  for (size_t i = 0; i < l->n; i++) /* before the first one: that */
    c->values[i] = first;
  return l->radii[l->n_radii++] = c;
}

/* false: not a line of a log, or no memory. */
static bool add_line(training_log *l, const json_t *line) {
  const json_t *update = json_object_get(line, "update"), *x;
  const char *name;
  if (!json_is_integer(update) || !json_object_get(line, "loss"))
    return false;
  json_object_foreach(json_object_get(line, "radius"), name, x) {
    const double value = json_is_number(x) ? json_number_value(x) : (double)NAN;
    radius_curve *const c = curve_of(l, name, value);
    if (!c)
      return false;
    c->latest = value;
  }
  if (l->lines++ % l->every)
    return true;
  if (l->n == MAX_ROWS) {
    thin(l);
    if ((l->lines - 1) % l->every)
      return true;
  }
  l->updates[l->n] = (double)json_integer_value(update);
  l->losses[l->n] = value_of(line, "loss");
  l->norms[l->n] = value_of(line, "grad_norm");
  for (size_t k = 0; k < l->n_radii; k++)
    l->radii[k]->values[l->n] = l->radii[k]->latest;
  l->n++;
  return true;
}

/* Returns NULL, or what is wrong; *number: in which line, 0: in none. A last line that was cut off does not count. */
static const char *read_lines(training_log *l, FILE *file, uint64_t *number) {
  char *text = NULL;
  size_t room = 0;
  const char *wrong = NULL;
  ssize_t size;
  while (!wrong && (size = getline(&text, &room, file)) >= 0) {
    const bool is_whole = text[size - 1] == '\n';
    json_t *line = size <= MAX_LINE ? json_loadb(text, (size_t)size, 0, NULL) : NULL;
    ++*number;
    if (is_whole && !add_line(l, line))
      wrong = "not a line of a training's --log";
    json_decref(line);
  }
  free(text);
  if (!wrong && ferror(file)) {
    *number = 0;
    wrong = strerror(errno);
  }
  return wrong ? wrong : l->n ? NULL : "no updates";
}

static json_t *to_json(const training_log *l) {
  const int64_t n = (int64_t)l->n;
  json_t *weights = json_array();
  for (size_t k = 0; k < l->n_radii; k++)
    json_array_append_new(weights, json_pack("{s:s, s:o}", "name", l->radii[k]->name, "radius",
                                             diagnose_numbers(l->radii[k]->values, n)));
  json_t *training = json_pack("{s:o, s:o, s:o}", "updates", diagnose_numbers(l->updates, n), "loss",
                               diagnose_numbers(l->losses, n), "gradient_norm", diagnose_numbers(l->norms, n));
  if (l->n_radii)
    json_object_set_new(training, "weights", weights);
  else
    json_decref(weights);
  return training;
}

void diagnose_training(diagnosis *d) {
  const char *const path = d->values->training;
  if (!path)
    return;
  uint64_t number = 0;
  training_log *const l = calloc(1, sizeof *l);
  FILE *const file = l ? fopen(path, "r") : NULL;
  const char *wrong = l ? strerror(errno) : "out of memory";
  if (file) {
    l->every = 1;
    wrong = read_lines(l, file, &number);
    fclose(file);
  }
  if (!wrong)
    json_object_set_new(d->report, "training", to_json(l));
  else if (number)
    diagnose_missing(d, "training", "%s, line %" PRIu64 ": %s", path, number, wrong);
  else
    diagnose_missing(d, "training", "%s: %s", path, wrong);
  for (size_t k = 0; l && k < l->n_radii; k++) {
    free(l->radii[k]->name);
    free(l->radii[k]);
  }
  free(l ? l->radii : NULL);
  free(l);
}
