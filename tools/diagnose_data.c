/* SPDX-License-Identifier: Apache-2.0 */
/* Data of every task as what a model's first recurrent layer reads. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unroll/data.h>

#include "console.h"
#include "diagnosis.h"

#define LEAST_STEPS 2
#define TEXT_STEPS 200 /* of a text, where the model's own windows are shorter */

/* ---- rooms ---- */

static bool make_room(diagnose_data *to, int64_t n, int64_t width) {
  to->n = n;
  to->width = width;
  to->lengths = calloc((size_t)n, sizeof *to->lengths);
  to->x = calloc((size_t)n, sizeof *to->x);
  return (to->lengths && to->x) || diagnose_no_memory();
}

static bool make_sequence(diagnose_data *to, int64_t i, int64_t length) {
  to->lengths[i] = length;
  to->x[i] = calloc((size_t)(length * to->width), sizeof *to->x[i]);
  return to->x[i] || diagnose_no_memory();
}

void diagnose_free_data(diagnose_data *data) {
  for (int64_t i = 0; data->tokens && i < data->lengths[0]; i++)
    free(data->tokens[i]);
  for (int64_t i = 0; i < data->n; i++) {
    if (data->x)
      free(data->x[i]);
    if (data->texts)
      free(data->texts[i]);
    if (data->target_texts)
      free(data->target_texts[i]);
  }
  free(data->targets);
  free(data->tokens);
  free(data->texts);
  free(data->target_texts);
  free(data->x);
  free(data->lengths);
}

/* The i-th of n items that stand evenly among `count`. */
static int64_t spread(int64_t i, int64_t n, int64_t count) { return n > 1 ? i * (count - 1) / (n - 1) : 0; }

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* ---- what a model's file says ---- */

static int64_t integer_of(const json_t *object, const char *key) {
  return (int64_t)json_integer_value(json_object_get(object, key));
}

static bool open_tokens(const diagnosis *d, const char *key, unroll_tokens **tokens) {
  const char *json = unroll_safetensors_metadata(d->model.file, key);
  unroll_error err = UNROLL_ERROR_INIT;
  if (json && unroll_tokens_from_json(json, strlen(json), NULL, tokens, &err) == UNROLL_OK)
    return true;
  complain("%s: metadata %s: %s", d->model.path, key, json ? err.message : "there is none");
  return false;
}

/* Rows of a table [V,E] by ids into a sequence. */
static bool embed(const diagnosis *d, const char *name, const int32_t *ids, int64_t n, double *x, int64_t width) {
  unroll_stored_tensor t;
  unroll_error err = UNROLL_ERROR_INIT;
  if (unroll_safetensors_find(d->model.file, name, &t, &err) != UNROLL_OK) {
    complain("%s: %s", d->model.path, err.message);
    return false;
  }
  if (t.dtype != UNROLL_F32 || t.rank != 2 || t.shape[1] != width) {
    complain("%s: %s is no f32 matrix of %" PRId64 " columns, which the first layer reads", d->model.path, name, width);
    return false;
  }
  for (int64_t i = 0; i < n; i++) {
    if (ids[i] < 0 || ids[i] >= t.shape[0]) {
      complain("%s: token %d, %s has %" PRId64 " rows", d->values->text ? d->values->text : d->values->pairs.path,
               ids[i], name, t.shape[0]);
      return false;
    }
    for (int64_t j = 0; j < width; j++)
      x[i * width + j] = stored_number(&t, (uint64_t)(ids[i] * width + j));
  }
  return true;
}

static bool take_tokens(diagnose_data *to, const char *(*text)(const void *vocabulary, int32_t id),
                        const void *vocabulary, const int32_t *ids) {
  to->tokens = calloc((size_t)to->lengths[0], sizeof *to->tokens);
  for (int64_t i = 0; to->tokens && i < to->lengths[0]; i++) {
    const char *one = text(vocabulary, ids[i]);
    to->tokens[i] = strdup(one ? one : "?");
    if (!to->tokens[i])
      return diagnose_no_memory();
  }
  return to->tokens || diagnose_no_memory();
}

/* ---- language models ---- */

static const char *text_of_vocabulary(const void *vocabulary, int32_t id) {
  return unroll_vocabulary_text(vocabulary, id);
}

static bool cut_text(diagnosis *d, const unroll_text *text) {
  diagnose_data *to = &d->data;
  const int64_t count = unroll_text_count(text), window = integer_of(d->model.training, "steps");
  int64_t steps = d->values->steps ? d->values->steps : window > TEXT_STEPS ? window : TEXT_STEPS;
  if (count < LEAST_STEPS) {
    complain("%s has %" PRId64 " characters that the model knows: a diagnosis takes at least %d", d->values->text,
             count, LEAST_STEPS);
    return false;
  }
  steps = least(steps, count);
  to->steps = window > 0 ? window : steps;
  const int64_t n = least(d->values->sequences, count / steps);
  if (!make_room(to, n, d->model.layers[0].input))
    return false;
  const int32_t *const ids = unroll_text_ids(text);
  to->targets = calloc((size_t)(steps * n), sizeof *to->targets);
  if (!to->targets)
    return diagnose_no_memory();
  for (int64_t i = 0; i < n; i++) {
    const int64_t start = spread(i, n, count - steps + 1);
    if (!make_sequence(to, i, steps) || !embed(d, "embedding.weight", ids + start, steps, to->x[i], to->width))
      return false;
    for (int64_t t = 0; t < steps; t++)
      to->targets[t * n + i] = start + t + 1 < count ? ids[start + t + 1] : -1;
  }
  return take_tokens(to, text_of_vocabulary, unroll_text_vocabulary(text), ids);
}

static bool read_text(diagnosis *d) {
  const char *json = unroll_safetensors_metadata(d->model.file, "unroll.vocabulary");
  unroll_vocabulary *vocabulary = NULL;
  unroll_text *text = NULL;
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_status status =
      unroll_vocabulary_from_json(json ? json : "", json ? strlen(json) : 0, NULL, &vocabulary, &err);
  if (status == UNROLL_OK) {
    const unroll_text_options o = {.vocabulary = vocabulary, .unknown = UNROLL_UNKNOWN_SKIP};
    status = unroll_text_load(&d->values->text, 1, &o, NULL, &text, &err);
  }
  if (status != UNROLL_OK)
    complain_of(&err);
  const bool done = status == UNROLL_OK && cut_text(d, text);
  unroll_text_destroy(text);
  unroll_vocabulary_destroy(vocabulary);
  return done;
}

/* ---- translators: their sources ---- */

static const char *text_of_tokens(const void *tokens, int32_t id) { return unroll_tokens_text(tokens, id); }

static bool take_sources(diagnosis *d, const unroll_pairs *pairs, const unroll_tokens *tokens) {
  diagnose_data *to = &d->data;
  const int64_t count = unroll_pairs_count(pairs), n = least(d->values->sequences, count);
  unroll_sequences *all = NULL;
  unroll_error err = UNROLL_ERROR_INIT;
  if (unroll_sequences_encode(unroll_pairs_sources(pairs), count, tokens, 0, NULL, &all, &err) != UNROLL_OK) {
    complain_of(&err);
    return false;
  }
  bool right = make_room(to, n, d->model.layers[0].input);
  to->texts = calloc((size_t)n, sizeof *to->texts);
  to->target_texts = calloc((size_t)n, sizeof *to->target_texts);
  right = right && ((to->texts && to->target_texts) || diagnose_no_memory());
  for (int64_t i = 0; right && i < n; i++) {
    const int64_t item = spread(i, n, count), length = unroll_sequences_lengths(all)[item];
    const int32_t *const ids = unroll_sequences_ids(all, item);
    to->steps = length > to->steps ? length : to->steps;
    to->texts[i] = strdup(unroll_pairs_sources(pairs)[item]);
    to->target_texts[i] = strdup(unroll_pairs_targets(pairs)[item]);
    right = ((to->texts[i] && to->target_texts[i]) || diagnose_no_memory()) && make_sequence(to, i, length) &&
            embed(d, "embed.weight", ids, length, to->x[i], to->width);
    if (right && i == 0)
      right = take_tokens(to, text_of_tokens, tokens, ids);
  }
  unroll_sequences_destroy(all);
  return right;
}

static bool read_pairs(diagnosis *d) {
  unroll_tokens *tokens = NULL;
  unroll_pairs *pairs = NULL;
  unroll_error err = UNROLL_ERROR_INIT;
  bool done = open_tokens(d, "unroll.sources", &tokens);
  if (done && pairs_load(&d->values->pairs, &pairs, &err) != UNROLL_OK) {
    complain_of(&err);
    done = false;
  }
  done = done && take_sources(d, pairs, tokens);
  unroll_pairs_destroy(pairs);
  unroll_tokens_destroy(tokens);
  return done;
}

/* ---- classifiers ---- */

/* n numbers with blanks between them. */
static bool read_list(const diagnosis *d, const char *key, double *values, int64_t n) {
  const char *list = json_string_value(json_object_get(d->model.model, key));
  char *end = NULL;
  for (int64_t i = 0; i < n; i++, list = end) {
    values[i] = list ? strtod(list, &end) : 0;
    if (!list || end == list) {
      complain("%s: metadata unroll.model: %s has not %" PRId64 " numbers", d->model.path, key, n);
      return false;
    }
  }
  return true;
}

static bool take_rows(diagnosis *d, const unroll_sequences *all, double *mean, double *deviation) {
  diagnose_data *to = &d->data;
  const int64_t F = unroll_sequences_features(all), count = unroll_sequences_count(all);
  const int64_t n = least(d->values->sequences, count), most = d->values->steps;
  if (F != d->model.layers[0].input) {
    complain("%s has %" PRId64 " numbers a step, the model reads %" PRId64, d->values->data.csv, F,
             d->model.layers[0].input);
    return false;
  }
  if (!read_list(d, "mean", mean, F) || !read_list(d, "deviation", deviation, F) || !make_room(to, n, F))
    return false;
  for (int64_t i = 0; i < n; i++) {
    const int64_t item = spread(i, n, count), whole = unroll_sequences_lengths(all)[item];
    const int64_t length = most ? least(most, whole) : whole;
    const double *const values = unroll_sequences_values(all, item);
    to->steps = length > to->steps ? length : to->steps;
    if (!make_sequence(to, i, length))
      return false;
    for (int64_t k = 0; k < length * F; k++)
      to->x[i][k] = (values[k] - mean[k % F]) / deviation[k % F];
  }
  return true;
}

static bool read_labelled(diagnosis *d) {
  const int64_t F = integer_of(d->model.model, "features");
  unroll_tokens *labels = NULL;
  unroll_sequences *all = NULL;
  unroll_error err = UNROLL_ERROR_INIT;
  bool done = open_tokens(d, "unroll.labels", &labels);
  if (done && sequence_load(&d->values->data, F, labels, true, &all, &err) != UNROLL_OK) {
    complain_of(&err);
    done = false;
  }
  double *const scale = calloc((size_t)(2 * F + 1), sizeof *scale);
  done = done && (scale || diagnose_no_memory()) && take_rows(d, all, scale, scale + F);
  free(scale);
  unroll_sequences_destroy(all);
  unroll_tokens_destroy(labels);
  return done;
}

/* ---- forecasters: windows of the series ---- */

/* y [n] becomes its differences over `lag`, which are n - lag. */
static int64_t difference(double *y, int64_t n, int64_t lag) {
  for (int64_t i = 0; i + lag < n; i++)
    y[i] = y[i + lag] - y[i];
  return n - lag;
}

static bool take_windows(diagnosis *d, double *x, int64_t n) {
  diagnose_data *to = &d->data;
  const json_t *m = d->model.model;
  const int64_t lags = integer_of(m, "lags"), season = integer_of(m, "season");
  const double mean = json_number_value(json_object_get(m, "mean"));
  const double deviation = json_number_value(json_object_get(m, "deviation"));
  for (int64_t i = 0; i < integer_of(m, "differences") && n > 0; i++)
    n = difference(x, n, 1);
  if (season > 0)
    n = difference(x, n, season);
  if (n < lags || lags < 1) {
    complain("%s: a window of the model takes %" PRId64 " values after differences, there are %" PRId64,
             d->values->data.csv, lags, n > 0 ? n : 0);
    return false;
  }
  const int64_t windows = n - lags + 1, count = least(d->values->sequences, windows);
  to->steps = lags;
  if (!make_room(to, count, 1))
    return false;
  for (int64_t i = 0; i < count; i++) {
    if (!make_sequence(to, i, lags))
      return false;
    for (int64_t t = 0; t < lags; t++)
      to->x[i][t] = (x[spread(i, count, windows) + t] - mean) / deviation;
  }
  return true;
}

static bool read_series(diagnosis *d) {
  const char *text = unroll_safetensors_metadata(d->model.file, "unroll.data");
  json_t *data = json_loads(text ? text : "{}", 0, NULL);
  const char *name = json_string_value(json_object_get(data, "name"));
  unroll_table *table = NULL;
  unroll_error err = UNROLL_ERROR_INIT;
  bool done = true;
  if (!name && !d->values->series.column) {
    complain("%s does not say which column it was trained on: give --column C", d->model.path);
    done = false;
  } else if (series_load(&d->values->data, &d->values->series, name, &table, &err) != UNROLL_OK) {
    complain_of(&err);
    done = false;
  }
  if (done) {
    const int64_t n = unroll_table_rows(table);
    double *const x = malloc((size_t)(n + 1) * sizeof *x);
    done = x || diagnose_no_memory();
    if (done)
      memcpy(x, unroll_table_values(table, 0), (size_t)n * sizeof *x);
    done = done && take_windows(d, x, n);
    free(x);
  }
  unroll_table_destroy(table);
  json_decref(data);
  return done;
}

/* ---- layers alone: an array ---- */

static bool take_array(diagnosis *d, const unroll_stored_tensor *t) {
  diagnose_data *to = &d->data;
  const int64_t I = d->model.layers[0].input;
  const bool real = t->dtype == UNROLL_F32 || t->dtype == UNROLL_F64;
  if (!real || t->rank != 3 || t->shape[2] != I || t->shape[1] < 1 || t->shape[0] < LEAST_STEPS) {
    complain("%s: expected f32 or f64 of [steps,sequences,%" PRId64
             "], at least %d steps; it is %s of %d axes, [%" PRId64 ",%" PRId64 ",%" PRId64 "]",
             d->values->data.csv, I, LEAST_STEPS, unroll_dtype_name(t->dtype), t->rank, t->shape[0], t->shape[1],
             t->shape[2]);
    return false;
  }
  const int64_t B = t->shape[1], n = least(d->values->sequences, B);
  const int64_t T = d->values->steps ? least(d->values->steps, t->shape[0]) : t->shape[0];
  to->steps = T;
  if (!make_room(to, n, I))
    return false;
  for (int64_t i = 0; i < n; i++) {
    if (!make_sequence(to, i, T))
      return false;
    for (int64_t k = 0; k < T * I; k++)
      to->x[i][k] = stored_number(t, (uint64_t)((k / I * B + spread(i, n, B)) * I + k % I));
  }
  return true;
}

static bool read_array(diagnosis *d) {
  unroll_npy *file = NULL;
  unroll_error err = UNROLL_ERROR_INIT;
  if (unroll_npy_open(d->values->data.csv, NULL, &file, &err) != UNROLL_OK) {
    complain_of(&err);
    return false;
  }
  const bool done = take_array(d, unroll_npy_tensor(file));
  unroll_npy_close(file);
  return done;
}

/* ---- all of them ---- */

bool diagnose_read_data(diagnosis *d) {
  static const struct {
    const char *task, *option, *what;
    bool (*read)(diagnosis *d);
  } tasks[] = {{"lm", "--text FILE", "a language model", read_text},
               {"seq2seq", "--pairs FILE", "a translator", read_pairs},
               {"classify", "--data FILE.csv", "a classifier", read_labelled},
               {"series", "--data FILE.csv", "a forecaster", read_series},
               {"layers", "--data FILE.npy", "a file of recurrent layers alone", read_array}};
  const diagnose_values *v = d->values;
  for (size_t i = 0; i < COUNT(tasks); i++) {
    if (strcmp(d->model.task, tasks[i].task) != 0)
      continue;
    const char *const given = tasks[i].option[2] == 't'   ? v->text
                              : tasks[i].option[2] == 'p' ? v->pairs.path
                                                          : v->data.csv;
    if (!given) {
      complain("%s is %s, which is diagnosed with %s", v->model, tasks[i].what, tasks[i].option);
      return false;
    }
    d->data.path = given;
    if (!tasks[i].read(d))
      return false;
  }
  for (int64_t i = 0; i < d->data.n; i++)
    d->T = d->data.lengths[i] > d->T ? d->data.lengths[i] : d->T;
  if (d->T >= LEAST_STEPS)
    return true;
  complain("%s: the longest sequence has %" PRId64 " steps: a diagnosis takes at least %d", d->data.path, d->T,
           LEAST_STEPS);
  return false;
}
