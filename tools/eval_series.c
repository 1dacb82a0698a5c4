/* SPDX-License-Identifier: Apache-2.0 */
/* `unroll eval` of forecasters. */
#include "eval_series.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "console.h"
#include "series_plot.h"

#define MOST_BASELINES 6

/* A row of the result. */
struct scored {
  char name[40], key[40];
  unroll_score score;
  unroll_status status; /* UNROLL_OK: it has a score */
  unroll_error err;
};

struct backtest {
  const series_models *models;
  int64_t first, ahead, season;
  double *forecasts; /* [count - first - ahead + 1] of the ensemble */
  struct scored ensemble, *members, baselines[MOST_BASELINES];
  size_t n_baselines;
};

static void run_backtest(const struct backtest *b, unroll_forecast forecast, const void *ctx, double *out,
                         struct scored *row) {
  const series_models *m = b->models;
  row->err = (unroll_error)UNROLL_ERROR_INIT;
  row->status = unroll_backtest(forecast, ctx, m->y, m->count, b->first, b->ahead, out, NULL, &row->score, &row->err);
}

static struct scored *add_row(struct backtest *b, const char *key, const char *name) {
  struct scored *row = &b->baselines[b->n_baselines++];
  snprintf(row->key, sizeof row->key, "%s", key);
  snprintf(row->name, sizeof row->name, "%s", name);
  return row;
}

static void add_baseline(struct backtest *b, const char *key, const char *name, int32_t kind) {
  const unroll_baseline baseline = {kind, b->season};
  run_backtest(b, unroll_baseline_forecast, &baseline, NULL, add_row(b, key, name));
}

/* Fitted to what stands before the part that is foretold. */
static void add_autoregression(struct backtest *b, int64_t p, int32_t differences) {
  char key[40], name[40];
  snprintf(key, sizeof key, "ar%" PRId64 "%s", p, differences ? "_differences" : "");
  snprintf(name, sizeof name, "AR(%" PRId64 ")%s", p, differences ? ", differences" : "");
  struct scored *row = add_row(b, key, name);
  row->err = (unroll_error)UNROLL_ERROR_INIT;
  unroll_ar ar = {.p = p, .differences = differences, .constant = 1, .phi = calloc((size_t)p, sizeof(double))};
  if (!ar.phi) {
    row->status = UNROLL_E_MEMORY;
    snprintf(row->err.message, sizeof row->err.message, "out of memory");
    return;
  }
  row->status = unroll_ar_fit(b->models->y, b->first, &ar, NULL, &row->err);
  if (row->status == UNROLL_OK)
    run_backtest(b, unroll_ar_forecast, &ar, NULL, row);
  free(ar.phi);
}

static void run_all(struct backtest *b) {
  const series_models *m = b->models;
  const unroll_ensemble all = {m->members, m->n};
  run_backtest(b, unroll_ensemble_forecast, &all, b->forecasts, &b->ensemble);
  for (uint32_t i = 0; i < m->n; i++) {
    const unroll_ensemble one = {&m->members[i], 1};
    run_backtest(b, unroll_ensemble_forecast, &one, NULL, &b->members[i]);
  }
  add_baseline(b, "naive", "naive", UNROLL_BASELINE_NAIVE);
  if (b->season > 0) {
    add_baseline(b, "seasonal", "seasonal", UNROLL_BASELINE_SEASONAL);
    add_baseline(b, "seasonal_drift", "seasonal with drift", UNROLL_BASELINE_SEASONAL_DRIFT);
  }
  add_autoregression(b, 2, 0);
  add_autoregression(b, 9, 0);
  if (b->season > 0)
    add_autoregression(b, b->season + 1, 1);
}

/* ---- what is printed ---- */

static json_t *score_json(const struct scored *row) {
  if (row->status != UNROLL_OK)
    return json_null();
  return json_pack("{s:f, s:f}", "rmse", row->score.rmse, "mae", row->score.mae);
}

static int print_json(const struct backtest *b) {
  const series_models *m = b->models;
  json_t *members = json_array(), *baselines = json_object();
  for (uint32_t i = 0; i < m->n; i++)
    json_array_append_new(members, score_json(&b->members[i]));
  for (size_t i = 0; i < b->n_baselines; i++)
    json_object_set_new(baselines, b->baselines[i].key, score_json(&b->baselines[i]));
  json_t *all = json_pack("{s:s, s:I, s:I, s:I, s:o, s:o, s:o}", "series", m->name, "values", (json_int_t)m->count,
                          "scored", (json_int_t)b->ensemble.score.n, "ahead", (json_int_t)b->ahead, "model",
                          score_json(&b->ensemble), "members", members, "baselines", baselines);
  const bool written = all && json_dumpf(all, stdout, JSON_REAL_PRECISION(9)) == 0;
  json_decref(all);
  putchar('\n');
  return written ? EXIT_OK : EXIT_FAILED;
}

static void print_row(const struct scored *row, const char *note) {
  if (row->status == UNROLL_OK)
    printf("%-20s RMSE %-9.5g MAE %.5g%s\n", row->name, row->score.rmse, row->score.mae, note);
  else
    printf("%-20s %s\n", row->name, row->err.message);
}

static int print(const struct backtest *b) {
  const series_models *m = b->models;
  char note[64] = "";
  printf("series               %" PRId64 " values of %s; %" PRId64 " foretold, each %" PRId64 " step%s ahead\n",
         m->count, m->name, b->ensemble.score.n, b->ahead, b->ahead == 1 ? "" : "s");
  for (uint32_t i = 0; i < m->n && m->n > 1; i++)
    print_row(&b->members[i], "");
  if (m->n > 1)
    snprintf(note, sizeof note, ", the mean of %" PRIu32, m->n);
  print_row(&b->ensemble, note);
  for (size_t i = 0; i < b->n_baselines; i++)
    print_row(&b->baselines[i], "");
  return EXIT_OK;
}

static int plot(const struct backtest *b, const char *path) {
  const series_models *m = b->models;
  char title[160];
  snprintf(title, sizeof title, "%s: forecasts %" PRId64 " step%s ahead, RMSE %.4g", m->name, b->ahead,
           b->ahead == 1 ? "" : "s", b->ensemble.score.rmse);
  const series_plot p = {.title = title,
                         .y = m->y,
                         .n = m->count,
                         .forecasts = b->forecasts,
                         .first = b->first + b->ahead - 1,
                         .n_forecasts = b->ensemble.score.n};
  return series_plot_write(&p, path) ? EXIT_OK : EXIT_FAILED;
}

/* ---- the run ---- */

/* From which value on; -1: said on stderr. */
static int64_t first_of(const series_models *m, const series_values *series) {
  const unroll_forecaster_info info = unroll_forecaster_describe(m->members[0]);
  const int64_t test = series->test > 0 ? series->test : info.options.holdout;
  if (test == 0)
    complain("the model was trained without --holdout: say with --test N how many values at the end to foretell");
  else if (test >= m->count)
    complain("--test: %" PRId64 " values are to be foretold, but the series has %" PRId64, test, m->count);
  else {
    const int64_t seen = info.count - info.options.holdout - (m->count - test);
    if (seen > 0 && info.count <= m->count)
      tell("unroll: of the values to foretell the first %" PRId64 " are ones that the model has seen", seen);
    return m->count - test;
  }
  return -1;
}

static int score(struct backtest *b, const series_values *series, bool json) {
  const series_models *m = b->models;
  b->forecasts = calloc((size_t)m->count, sizeof *b->forecasts);
  b->members = calloc(m->n, sizeof *b->members);
  if (!b->forecasts || !b->members) {
    complain("out of memory");
    return EXIT_FAILED;
  }
  snprintf(b->ensemble.name, sizeof b->ensemble.name, "model");
  for (uint32_t i = 0; i < m->n; i++)
    snprintf(b->members[i].name, sizeof b->members[i].name, "model %" PRIu32, i + 1);
  run_all(b);
  if (b->ensemble.status != UNROLL_OK)
    return complain_of(&b->ensemble.err);
  const int code = json ? print_json(b) : print(b);
  return code == EXIT_OK && series->plot ? plot(b, series->plot) : code;
}

int eval_series(unroll_device *device, const char *model, const sequence_values *data, const series_values *series,
                bool json) {
  series_models models;
  int code = EXIT_FAILED;
  if (series_open(device, model, data, series, &models)) {
    const int64_t own = unroll_forecaster_describe(models.members[0]).options.season;
    struct backtest b = {.models = &models,
                         .first = first_of(&models, series),
                         .ahead = series->ahead,
                         .season = series->season > 0 ? series->season : own};
    if (b.first > 0)
      code = score(&b, series, json);
    free(b.forecasts);
    free(b.members);
  }
  series_close(&models);
  return code;
}
