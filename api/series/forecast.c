/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <math.h>
#include <unroll/series.h>

#include "series/dense.h"

#define CONDITION_LIMIT 1e12 /* past it fewer than four digits of a coefficient hold */

/* ---- autoregression ---- */

static unroll_status check_ar(const unroll_ar *ar, const double *y, unroll_error *err) {
  if (ar == NULL || ar->phi == NULL || y == NULL)
    return fail(err, UNROLL_E_INVALID, "autoregression: the model, its phi or y is NULL");
  if (ar->p < 1 || ar->p > INT32_MAX || ar->differences < 0 || ar->differences > 1)
    return fail(err, UNROLL_E_RANGE,
                "autoregression: p is %" PRId64 ", expected 1 to %d; differences %" PRId32 ", expected 0 or 1", ar->p,
                INT32_MAX, ar->differences);
  return UNROLL_OK;
}

/* y_t, or its difference; t from 0, or 1. */
static double value(const unroll_ar *ar, const double *y, int64_t t) {
  return ar->differences ? y[t] - y[t - 1] : y[t];
}

static unroll_status solve(const double *y, unroll_ar *ar, int64_t rows, int64_t columns, double *a,
                           unroll_error *err) {
  double *b = a + rows * columns, *scale = b + rows, *work = scale + columns, *x = work + columns, residual = 0;
  const int64_t first = ar->p + ar->differences, constant = columns - ar->p;
  for (int64_t i = 0; i < rows; i++) {
    b[i] = value(ar, y, first + i);
    if (constant)
      a[i * columns] = 1;
    for (int64_t j = 0; j < ar->p; j++)
      a[i * columns + constant + j] = value(ar, y, first + i - 1 - j);
  }
  dense_least_squares(a, b, rows, columns, scale, work, x, &residual, &ar->condition);
  if (!(ar->condition <= CONDITION_LIMIT))
    return fail(err, UNROLL_E_RANGE,
                "autoregression: the equations for p %" PRId64 " have a condition of %.3g, past %g: the values before "
                "each depend on each other; take a smaller p",
                ar->p, ar->condition, CONDITION_LIMIT);
  ar->c = constant ? x[0] : 0;
  for (int64_t j = 0; j < ar->p; j++)
    ar->phi[j] = x[constant + j];
  ar->variance = rows > columns ? residual / (double)(rows - columns) : NAN;
  return UNROLL_OK;
}

unroll_status unroll_ar_fit(const double *y, int64_t n, unroll_ar *ar, const unroll_allocator *allocator,
                            unroll_error *err) {
  TRY(check_ar(ar, y, err));
  const int64_t columns = ar->p + (ar->constant != 0), need = ar->p + ar->differences + columns;
  if (n < need)
    return fail(err, UNROLL_E_RANGE, "autoregression: %" PRId64 " values, p %" PRId64 " takes at least %" PRId64, n,
                ar->p, need);
  for (int64_t i = 0; i < n; i++)
    if (!isfinite(y[i]))
      return fail(err, UNROLL_E_RANGE, "autoregression: y[%" PRId64 "] is %g", i, y[i]);
  const int64_t rows = n - ar->p - ar->differences;
  int64_t all;
  if (!extent_mul(rows, columns, &all) || !extent_add(all, rows + 3 * columns, &all))
    return fail(err, UNROLL_E_MEMORY, "no memory for %" PRId64 " equations", rows);
  double *a = mem_array(allocator, (uint64_t)all, sizeof *a);
  if (a == NULL)
    return fail(err, UNROLL_E_MEMORY, "no memory for %" PRId64 " equations", rows);
  const unroll_status status = solve(y, ar, rows, columns, a, err);
  mem_free(allocator, a);
  return status;
}

/* y_t of the values that there are, or of the forecasts behind them. */
static double known(const double *y, int64_t n, const double *out, int64_t t) { return t < n ? y[t] : out[t - n]; }

static unroll_status check_history(const char *what, const double *y, const double *out, int64_t n, int64_t h,
                                   int64_t need, unroll_error *err) {
  if (y == NULL || out == NULL)
    return fail(err, UNROLL_E_INVALID, "%s: y or out is NULL", what);
  if (n < need || h < 1 || h > INT64_MAX / 2 - n)
    return fail(err, UNROLL_E_RANGE,
                "%s: %" PRId64 " values, expected at least %" PRId64 "; %" PRId64 " steps ahead, expected at least 1",
                what, n, need, h);
  return UNROLL_OK;
}

unroll_status unroll_ar_forecast(const void *ctx, const double *y, int64_t n, int64_t h, double *out,
                                 unroll_error *err) {
  const unroll_ar *ar = ctx;
  TRY(check_ar(ar, y, err));
  TRY(check_history("autoregression", y, out, n, h, ar->p + ar->differences, err));
  for (int64_t t = n; t < n + h; t++) {
    double sum = ar->c;
    for (int64_t i = 1; i <= ar->p; i++)
      sum += ar->phi[i - 1] * (known(y, n, out, t - i) - (ar->differences ? known(y, n, out, t - i - 1) : 0));
    out[t - n] = ar->differences ? known(y, n, out, t - 1) + sum : sum;
  }
  return UNROLL_OK;
}

/* ---- baselines ---- */

unroll_status unroll_baseline_forecast(const void *ctx, const double *y, int64_t n, int64_t h, double *out,
                                       unroll_error *err) {
  const unroll_baseline *b = ctx;
  if (b == NULL || b->kind < UNROLL_BASELINE_NAIVE || b->kind > UNROLL_BASELINE_SEASONAL_DRIFT)
    return fail(err, UNROLL_E_INVALID, "baseline: %s",
                b == NULL ? "it is NULL" : "its kind is none of UNROLL_BASELINE_*");
  const int64_t s = b->kind == UNROLL_BASELINE_NAIVE ? 1 : b->season;
  const bool drifts = b->kind == UNROLL_BASELINE_SEASONAL_DRIFT;
  if (s < 1 || s > INT32_MAX)
    return fail(err, UNROLL_E_RANGE, "baseline: a season of %" PRId64 ", expected 1 to %d", s, INT32_MAX);
  TRY(check_history("baseline", y, out, n, h, s + drifts, err));
  const double drift = drifts ? y[n - 1] - y[n - 1 - s] : 0;
  for (int64_t t = n; t < n + h; t++)
    out[t - n] = known(y, n, out, t - s) + drift;
  return UNROLL_OK;
}

/* ---- scores ---- */

struct sums {
  double square, absolute;
  int64_t n;
};

static void add_error(struct sums *s, double error) {
  s->square += error * error;
  s->absolute += fabs(error);
  s->n++;
}

static unroll_score score_of(const struct sums *s) {
  const double n = s->n > 0 ? (double)s->n : NAN;
  return (unroll_score){.rmse = sqrt(s->square / n), .mae = s->absolute / n, .n = s->n};
}

unroll_score unroll_score_of(const double *forecast, const double *actual, int64_t n) {
  struct sums s = {0};
  for (int64_t i = 0; i < n; i++)
    add_error(&s, forecast[i] - actual[i]);
  return score_of(&s);
}

unroll_status unroll_backtest(unroll_forecast forecast, const void *ctx, const double *y, int64_t n, int64_t first,
                              int64_t h, double *out, const unroll_allocator *allocator, unroll_score *score,
                              unroll_error *err) {
  if (forecast == NULL || y == NULL || score == NULL)
    return fail(err, UNROLL_E_INVALID, "backtest: forecast, y or score is NULL");
  if (first < 1 || h < 1 || first > n || h > n - first)
    return fail(err, UNROLL_E_RANGE,
                "backtest: from %" PRId64 ", %" PRId64 " steps ahead, both at least 1 and together at most the %" PRId64
                " values",
                first, h, n);
  double *ahead = mem_array(allocator, (uint64_t)h, sizeof *ahead);
  if (ahead == NULL)
    return fail(err, UNROLL_E_MEMORY, "no memory for %" PRId64 " steps ahead", h);
  struct sums s = {0};
  unroll_status status = UNROLL_OK;
  for (int64_t t = first; t + h <= n && status == UNROLL_OK; t++) {
    status = forecast(ctx, y, t, h, ahead, err);
    if (status == UNROLL_OK && !isfinite(ahead[h - 1]))
      status = fail(err, UNROLL_E_RANGE, "backtest: the forecast of y[%" PRId64 "] is %g", t + h - 1, ahead[h - 1]);
    if (status != UNROLL_OK)
      break;
    add_error(&s, ahead[h - 1] - y[t + h - 1]);
    if (out != NULL)
      out[t - first] = ahead[h - 1];
  }
  mem_free(allocator, ahead);
  if (status == UNROLL_OK)
    *score = score_of(&s);
  return status;
}

/* ---- windows ---- */

unroll_status unroll_windows_fill(const double *y, int64_t n, int64_t p, const int64_t *at, int64_t B, int32_t dtype,
                                  void *x, void *target, unroll_error *err) {
  if (y == NULL || at == NULL || x == NULL || target == NULL || p < 1 || B < 1)
    return fail(err, UNROLL_E_INVALID, "windows: y, at, x or target is NULL, or p %" PRId64 " or B %" PRId64 " below 1",
                p, B);
  if (dtype != UNROLL_F32 && dtype != UNROLL_F64)
    return fail(err, UNROLL_E_DTYPE, "windows of %s, expected f32 or f64", unroll_dtype_name(dtype));
  for (int64_t b = 0; b < B; b++)
    if (at[b] < p || at[b] >= n)
      return fail(err, UNROLL_E_RANGE,
                  "windows: place %" PRId64 " of row %" PRId64 ", expected %" PRId64 " to %" PRId64, at[b], b, p,
                  n - 1);
  for (int64_t b = 0; b < B; b++)
    for (int64_t t = 0; t <= p; t++) {
      const double from = y[at[b] - p + t];
      void *to = t < p ? x : target;
      const int64_t i = t < p ? t * B + b : b;
      if (dtype == UNROLL_F64)
        ((double *)to)[i] = from;
      else
        ((float *)to)[i] = (float)from;
    }
  return UNROLL_OK;
}
