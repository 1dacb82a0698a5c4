/* SPDX-License-Identifier: Apache-2.0 */
/* Kalman filter and smoother, autoregression, baselines and backtests against statsmodels and published numbers. */
#include "golden.h"
#include "io_support.h"
#include <math.h>
#include <unroll/datasets.h>
#include <unroll/series.h>

static void close_to(const char *what, const double *got, const double *want, int64_t n, double tolerance) {
  double largest = 0;
  for (int64_t i = 0; i < n; i++)
    largest = fmax(largest, fabs(want[i]));
  for (int64_t i = 0; i < n; i++)
    if (!(fabs(got[i] - want[i]) <= tolerance * largest))
      fail_msg("%s[%lld]: %.17g, expected %.17g", what, (long long)i, got[i], want[i]);
}

static void matches(const golden *f, const char *name, const double *got, double tolerance) {
  int64_t n;
  double *want = golden_values(f, name, &n);
  close_to(name, got, want, n, tolerance);
  free(want);
}

/* Sums of tens of products in double, inverses of matrices of condition up to 1e3: a thousand roundings. */
#define KALMAN 1e-12

struct kalman {
  golden f;
  unroll_kalman_model model;
  double *y;
  int64_t T;
};

static struct kalman kalman_open(const char *name) {
  struct kalman k = {.f = golden_open(name)};
  const unroll_stored_tensor H = golden_describe(&k.f, "H");
  k.T = H.shape[0];
  k.model = (unroll_kalman_model){.struct_size = sizeof k.model,
                                  .varying = UNROLL_VARYING_F | UNROLL_VARYING_H | UNROLL_VARYING_Q | UNROLL_VARYING_R,
                                  .n = H.shape[2],
                                  .m = H.shape[1],
                                  .F = golden_values(&k.f, "F", NULL),
                                  .H = golden_values(&k.f, "H", NULL),
                                  .Q = golden_values(&k.f, "Q", NULL),
                                  .R = golden_values(&k.f, "R", NULL),
                                  .mean0 = golden_values(&k.f, "mean0", NULL),
                                  .cov0 = golden_values(&k.f, "cov0", NULL)};
  k.y = golden_values(&k.f, "y", NULL);
  int64_t n;
  int32_t *missing = golden_integers(&k.f, "missing", &n);
  for (int64_t i = 0; i < n; i++)
    if (missing[i])
      k.y[i] = NAN;
  free(missing);
  return k;
}

static void kalman_close(struct kalman *k) {
  const unroll_kalman_model *o = &k->model;
  const double *all[] = {o->F, o->H, o->Q, o->R, o->mean0, o->cov0, k->y};
  for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
    free((double *)(uintptr_t)all[i]);
  golden_close(&k->f);
}

static void filter_and_smoother(const char *name) {
  struct kalman k = kalman_open(name);
  const size_t T = (size_t)k.T, n = (size_t)k.model.n, m = (size_t)k.model.m;
  unroll_kalman_result r = {.struct_size = sizeof r,
                            .predicted_mean = calloc(T * n, sizeof(double)),
                            .predicted_cov = calloc(T * n * n, sizeof(double)),
                            .mean = calloc(T * n, sizeof(double)),
                            .cov = calloc(T * n * n, sizeof(double)),
                            .innovation = calloc(T * m, sizeof(double)),
                            .innovation_cov = calloc(T * m * m, sizeof(double)),
                            .step_log_likelihood = calloc(T, sizeof(double))};
  assert_ok(unroll_kalman_filter(&k.model, k.y, k.T, NULL, &r, &err));
  int64_t observed = 0;
  for (size_t i = 0; i < T * m; i++) {
    observed += !isnan(k.y[i]);
    assert_int_equal(isnan(k.y[i]), isnan(r.innovation[i]));
    r.innovation[i] = isnan(k.y[i]) ? 0 : r.innovation[i];
  }
  assert_int_equal(r.observed, observed);
  matches(&k.f, "predicted_mean", r.predicted_mean, KALMAN);
  matches(&k.f, "predicted_cov", r.predicted_cov, KALMAN);
  matches(&k.f, "mean", r.mean, KALMAN);
  matches(&k.f, "cov", r.cov, KALMAN);
  matches(&k.f, "innovation", r.innovation, KALMAN);
  matches(&k.f, "innovation_cov", r.innovation_cov, KALMAN);
  matches(&k.f, "step_log_likelihood", r.step_log_likelihood, KALMAN);
  matches(&k.f, "log_likelihood", &r.log_likelihood, KALMAN);
  for (size_t t = 0; t < T; t++) /* exactly symmetric */
    for (size_t i = 0; i < n * n; i++)
      assert_true(r.cov[t * n * n + i] == r.cov[t * n * n + i % n * n + i / n]);

  double *mean = calloc(T * n, sizeof(double)), *cov = calloc(T * n * n, sizeof(double));
  assert_ok(unroll_kalman_smoother(&k.model, k.y, k.T, NULL, mean, cov, &err));
  matches(&k.f, "smoothed_mean", mean, KALMAN);
  matches(&k.f, "smoothed_cov", cov, KALMAN);
  memset(r.mean, 0, T * n * sizeof(double));
  assert_ok(unroll_kalman_smoother(&k.model, k.y, k.T, NULL, r.mean, NULL, &err));
  assert_memory_equal(r.mean, mean, T * n * sizeof(double));

  unroll_kalman_result sum = {.struct_size = sizeof sum};
  assert_ok(unroll_kalman_filter(&k.model, k.y, k.T, NULL, &sum, &err));
  assert_true(sum.log_likelihood == r.log_likelihood);
  double *all[] = {r.predicted_mean, r.predicted_cov,       r.mean, r.cov, r.innovation,
                   r.innovation_cov, r.step_log_likelihood, mean,   cov};
  for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
    free(all[i]);
  kalman_close(&k);
}

static void kalman_against_statsmodels(void **state) {
  (void)state;
  filter_and_smoother("kalman_varying");
  filter_and_smoother("kalman_trend");
}

/* One matrix for all steps means the same as T copies of it; no mean0, cov0 mean zeros. */
static void kalman_of_constants(void **state) {
  (void)state;
  struct kalman k = kalman_open("kalman_trend");
  unroll_kalman_model one = k.model;
  one.varying = 0;
  double a[24], b[24];
  unroll_kalman_result r = {.struct_size = sizeof r, .mean = a}, s = r;
  s.mean = b;
  assert_ok(unroll_kalman_filter(&k.model, k.y, k.T, NULL, &r, &err));
  assert_ok(unroll_kalman_filter(&one, k.y, k.T, NULL, &s, &err));
  assert_memory_equal(a, b, sizeof a);
  one.mean0 = one.cov0 = NULL;
  assert_ok(unroll_kalman_filter(&one, k.y, k.T, NULL, &r, &err));
  one.mean0 = (double[]){0, 0};
  one.cov0 = (double[]){0, 0, 0, 0};
  assert_ok(unroll_kalman_filter(&one, k.y, k.T, NULL, &s, &err));
  assert_memory_equal(a, b, sizeof a);
  kalman_close(&k);
}

static void kalman_misuse(void **state) {
  (void)state;
  const double F[4] = {1, 1, 0, 1}, H[2] = {1, 0}, Q[4] = {1, 0.5, 0.5, 1}, R[1] = {1};
  double y[3] = {1, NAN, 2}, mean[6];
  const unroll_kalman_model good = {.struct_size = sizeof good, .n = 2, .m = 1, .F = F, .H = H, .Q = Q, .R = R};
  unroll_kalman_result r = {.struct_size = sizeof r};
  unroll_kalman_model o = good;
  assert_ok(unroll_kalman_filter(&o, y, 3, NULL, &r, &err));
#define WRONG(change, status, words)                                           \
  o = good;                                                                    \
  change;                                                                      \
  assert_error(unroll_kalman_filter(&o, y, 3, NULL, &r, &err), status, words); \
  assert_error(unroll_kalman_smoother(&o, y, 3, NULL, mean, NULL, &err), status, words)
  WRONG(o.n = 0, UNROLL_E_SHAPE, "n 0, m 1, T 3");
  WRONG(o.F = NULL, UNROLL_E_INVALID, "F is NULL");
  WRONG(o.varying = 16, UNROLL_E_INVALID, "varying is 0x10");
  WRONG(o.H = ((double[]){1, NAN}), UNROLL_E_RANGE, "H[0,1] of step 0 is nan");
  WRONG(o.Q = ((double[]){1, 0.5, 0.25, 1}), UNROLL_E_RANGE, "Q of step 0 is not symmetric: 0.25 at [1,0], 0.5 across");
  WRONG(o.R = ((double[]){-1}), UNROLL_E_RANGE, "R[0,0] of step 0 is -1: a variance");
  WRONG((o.varying = UNROLL_VARYING_R, o.R = (double[]){1, 1, -2}), UNROLL_E_RANGE, "R[0,0] of step 2 is -2");
  WRONG((o.R = (double[]){0}, o.Q = (double[]){0, 0, 0, 0}), UNROLL_E_RANGE, "step 0: the innovation's covariance");
  y[2] = INFINITY;
  WRONG((void)0, UNROLL_E_RANGE, "y[2,0] is inf");
  y[2] = 2;
  assert_error(unroll_kalman_filter(&good, y, 0, NULL, &r, &err), UNROLL_E_SHAPE, "T 0");
  assert_error(unroll_kalman_filter(&good, NULL, 3, NULL, &r, &err), UNROLL_E_INVALID, "y is NULL");
}

/* ---- autoregression ---- */

static unroll_table *load(const char *name, const char *column, int32_t holes, int64_t rows) {
  char path[512];
  const char *source = getenv("UNROLL_SOURCE_DIR");
  snprintf(path, sizeof path, "%s/tests/data/%s", source == NULL ? "../.." : source, name);
  const unroll_csv_options o = {
      .struct_size = sizeof o, .holes = holes, .columns = (const char *const[]){column}, .n_columns = 1};
  unroll_table *t = NULL;
  assert_ok(unroll_table_load(path, &o, NULL, &t, &err));
  assert_int_equal(unroll_table_rows(t), rows);
  return t;
}

/* Published figures are given to 0.01 and were found on the way by other sums: 0.01. */
static void published(double got, double want, double within) {
  if (!(fabs(got - want) <= within))
    fail_msg("%.4f, published %.4f", got, want);
}

static void sunspots(void **state) {
  (void)state;
  enum { N = 309, FIT = 221 }; /* 1700 to 2008; to 1920 */
  static const struct { int first, last; } spans[] = {{1921, 1955}, {1956, 1979}, {1921, 2008}};
  static const struct {
    int p;
    double rmse[3];
  } published_ar[] = {{2, {16.83, 25.96, 20.46}}, {9, {13.76, 22.90, 17.44}}};
  golden f = golden_open("autoregression");
  unroll_table *table = load("sunspots.csv", "SUNACTIVITY", UNROLL_HOLES_ERROR, N);
  const double *y = unroll_table_values(table, 0), naive[3] = {25.27, 37.98, 30.44};
  double out[N - FIT], phi[9], ahead[12];
  char name[32];
  for (int model = 0; model < 2; model++) {
    unroll_ar ar = {.p = published_ar[model].p, .constant = 1, .phi = phi};
    unroll_score score;
    assert_ok(unroll_ar_fit(y, FIT, &ar, NULL, &err));
    /* equations of condition 10 to 60: within 1e-11 of another method */
    assert_true(ar.condition > 1 && ar.condition < 1000);
    snprintf(name, sizeof name, "ar%d.phi", (int)ar.p);
    matches(&f, name, phi, 1e-11);
    snprintf(name, sizeof name, "ar%d.c", (int)ar.p);
    matches(&f, name, &ar.c, 1e-11);
    snprintf(name, sizeof name, "ar%d.variance", (int)ar.p);
    matches(&f, name, &ar.variance, 1e-11);
    snprintf(name, sizeof name, "ar%d.ahead", (int)ar.p);
    assert_ok(unroll_ar_forecast(&ar, y, FIT, 12, ahead, &err));
    matches(&f, name, ahead, 1e-11);
    assert_ok(unroll_backtest(unroll_ar_forecast, &ar, y, N, FIT, 1, out, NULL, &score, &err));
    double scores[6];
    for (int i = 0; i < 3; i++) {
      const int from = spans[i].first - 1700, n = spans[i].last - spans[i].first + 1;
      const unroll_score s = unroll_score_of(out + from - FIT, y + from, n);
      assert_int_equal(s.n, n);
      scores[2 * i] = s.rmse;
      scores[2 * i + 1] = s.mae;
      published(s.rmse, published_ar[model].rmse[i], 0.01);
    }
    assert_true(score.rmse == scores[4] && score.mae == scores[5] && score.n == N - FIT);
    snprintf(name, sizeof name, "ar%d.scores", (int)ar.p);
    matches(&f, name, scores, 1e-11);
  }
  const unroll_baseline last = {.kind = UNROLL_BASELINE_NAIVE};
  unroll_score score;
  assert_ok(unroll_backtest(unroll_baseline_forecast, &last, y, N, FIT, 1, out, NULL, &score, &err));
  for (int i = 0; i < 3; i++) {
    const int from = spans[i].first - 1700;
    published(unroll_score_of(out + from - FIT, y + from, spans[i].last - spans[i].first + 1).rmse, naive[i], 0.01);
  }
  unroll_table_destroy(table);
  golden_close(&f);
}

static void co2(void **state) {
  (void)state;
  enum { N = 526, FIT = N - 120 };
  golden f = golden_open("autoregression");
  unroll_table *table = load("co2.csv", "co2", UNROLL_HOLES_INTERPOLATE, N);
  assert_int_equal(unroll_table_holes(table), 5);
  const double *y = unroll_table_values(table, 0);
  matches(&f, "co2", y, 1e-15);
  double phi[13], ahead[24];
  unroll_ar ar = {.p = 13, .differences = 1, .constant = 1, .phi = phi};
  unroll_score score;
  assert_ok(unroll_ar_fit(y, FIT, &ar, NULL, &err));
  matches(&f, "co2.ar13.phi", phi, 1e-11);
  matches(&f, "co2.ar13.c", &ar.c, 1e-11);
  assert_ok(unroll_ar_forecast(&ar, y, FIT, 24, ahead, &err));
  matches(&f, "co2.ar13.ahead", ahead, 1e-11);
  assert_ok(unroll_backtest(unroll_ar_forecast, &ar, y, N, FIT, 1, NULL, NULL, &score, &err));
  matches(&f, "co2.ar13.scores", (double[]){score.rmse, score.mae}, 1e-10);
  published(score.rmse, 0.331, 0.001);
  unroll_baseline b = {.kind = UNROLL_BASELINE_NAIVE};
  assert_ok(unroll_backtest(unroll_baseline_forecast, &b, y, N, FIT, 1, NULL, NULL, &score, &err));
  published(score.rmse, 1.264, 0.001);
  b = (unroll_baseline){UNROLL_BASELINE_SEASONAL_DRIFT, 12};
  assert_ok(unroll_backtest(unroll_baseline_forecast, &b, y, N, FIT, 1, NULL, NULL, &score, &err));
  published(score.rmse, 0.385, 0.001);
  unroll_table_destroy(table);
  golden_close(&f);
}

/* By hand, several steps ahead. */
static void baselines(void **state) {
  (void)state;
  const double y[5] = {1, 2, 4, 3, 7};
  double out[5];
  unroll_baseline b = {.kind = UNROLL_BASELINE_NAIVE};
  assert_ok(unroll_baseline_forecast(&b, y, 5, 3, out, &err));
  close_to("naive", out, (double[]){7, 7, 7}, 3, 0);
  b = (unroll_baseline){UNROLL_BASELINE_SEASONAL, 2};
  assert_ok(unroll_baseline_forecast(&b, y, 5, 5, out, &err));
  close_to("seasonal", out, (double[]){3, 7, 3, 7, 3}, 5, 0);
  b.kind = UNROLL_BASELINE_SEASONAL_DRIFT; /* 7 - 4 in a season */
  assert_ok(unroll_baseline_forecast(&b, y, 5, 5, out, &err));
  close_to("seasonal with drift", out, (double[]){6, 10, 9, 13, 12}, 5, 0);
  unroll_score score;
  b.kind = UNROLL_BASELINE_SEASONAL; /* two ahead, from y[0..2) and y[0..3): 2 for 3, 4 for 7 */
  assert_ok(unroll_backtest(unroll_baseline_forecast, &b, y, 5, 2, 2, out, NULL, &score, &err));
  close_to("two ahead", out, (double[]){2, 4}, 2, 0);
  assert_int_equal(score.n, 2);
  close_to("mae", &score.mae, (double[]){2}, 1, 0);
  close_to("rmse", &score.rmse, (double[]){sqrt(5)}, 1, 1e-15);
  assert_true(isnan(unroll_score_of(y, y, 0).rmse));
}

static unroll_status not_a_number(const void *ctx, const double *y, int64_t n, int64_t h, double *out,
                                  unroll_error *err) {
  (void)ctx, (void)y, (void)err;
  for (int64_t i = 0; i < h; i++)
    out[i] = n > 3 ? NAN : 0;
  return UNROLL_OK;
}

static void forecast_misuse(void **state) {
  (void)state;
  double y[8] = {1, 2, 4, 3, 7, 5, 6, 9}, phi[4], out[4];
  const double same[8] = {5, 5, 5, 5, 5, 5, 5, 5};
  unroll_ar ar = {.p = 2, .constant = 1, .phi = phi};
  unroll_score s;
  assert_ok(unroll_ar_fit(y, 8, &ar, NULL, &err));
  assert_ok(unroll_ar_fit(y, 5, &ar, NULL, &err)); /* as many equations as coefficients */
  assert_true(isnan(ar.variance));
  close_to("an exact fit", (double[]){ar.c + phi[0] * 2 + phi[1] * 1}, (double[]){4}, 1, 1e-12);
  assert_error(unroll_ar_fit(y, 4, &ar, NULL, &err), UNROLL_E_RANGE, "4 values, p 2 takes at least 5");
  assert_error(unroll_ar_fit(same, 8, &ar, NULL, &err), UNROLL_E_RANGE, "condition");
  assert_error(unroll_ar_forecast(&ar, y, 1, 1, out, &err), UNROLL_E_RANGE, "1 values, expected at least 2");
  assert_error(unroll_ar_forecast(&ar, y, 8, 0, out, &err), UNROLL_E_RANGE, "0 steps ahead");
  ar.p = 0;
  assert_error(unroll_ar_fit(y, 8, &ar, NULL, &err), UNROLL_E_RANGE, "p is 0");
  ar = (unroll_ar){.p = 2, .differences = 2, .phi = phi};
  assert_error(unroll_ar_fit(y, 8, &ar, NULL, &err), UNROLL_E_RANGE, "differences 2");
  ar.differences = 0;
  y[6] = NAN;
  assert_error(unroll_ar_fit(y, 8, &ar, NULL, &err), UNROLL_E_RANGE, "y[6] is nan");
  unroll_baseline b = {UNROLL_BASELINE_SEASONAL, 0};
  assert_error(unroll_baseline_forecast(&b, y, 8, 1, out, &err), UNROLL_E_RANGE, "season of 0");
  b = (unroll_baseline){UNROLL_BASELINE_SEASONAL_DRIFT, 4};
  assert_error(unroll_baseline_forecast(&b, y, 4, 1, out, &err), UNROLL_E_RANGE, "4 values, expected at least 5");
  b.kind = 9;
  assert_error(unroll_baseline_forecast(&b, y, 4, 1, out, &err), UNROLL_E_INVALID, "UNROLL_BASELINE_");
  b = (unroll_baseline){UNROLL_BASELINE_NAIVE, 0};
  assert_error(unroll_backtest(unroll_baseline_forecast, &b, y, 8, 0, 1, NULL, NULL, &s, &err), UNROLL_E_RANGE,
               "from 0, 1 steps");
  assert_error(unroll_backtest(unroll_baseline_forecast, &b, y, 8, 5, 4, NULL, NULL, &s, &err), UNROLL_E_RANGE,
               "the 8 values");
  assert_error(unroll_backtest(not_a_number, NULL, y, 6, 2, 2, NULL, NULL, &s, &err), UNROLL_E_RANGE,
               "the forecast of y[5] is nan");
}

static void windows(void **state) {
  (void)state;
  const double y[6] = {0, 10, 20, 30, 40, 50};
  const int64_t at[2] = {5, 3};
  double x[6], target[2];
  assert_ok(unroll_windows_fill(y, 6, 3, at, 2, UNROLL_F64, x, target, &err));
  close_to("x", x, (double[]){20, 0, 30, 10, 40, 20}, 6, 0);
  close_to("target", target, (double[]){50, 30}, 2, 0);
  float xf[6], tf[2];
  assert_ok(unroll_windows_fill(y, 6, 3, at, 2, UNROLL_F32, xf, tf, &err));
  assert_true(xf[4] == 40.0f && xf[1] == 0.0f && tf[1] == 30.0f);
  assert_error(unroll_windows_fill(y, 6, 3, (int64_t[]){2}, 1, UNROLL_F64, x, target, &err), UNROLL_E_RANGE,
               "place 2 of row 0, expected 3 to 5");
  assert_error(unroll_windows_fill(y, 6, 3, (int64_t[]){6}, 1, UNROLL_F64, x, target, &err), UNROLL_E_RANGE, "place 6");
  assert_error(unroll_windows_fill(y, 6, 3, at, 2, UNROLL_I32, x, target, &err), UNROLL_E_DTYPE, "i32");
  assert_error(unroll_windows_fill(y, 6, 0, at, 2, UNROLL_F64, x, target, &err), UNROLL_E_INVALID, "p 0");
}

/* Every allocation fails once. */
static void no_memory(void **state) {
  (void)state;
  struct kalman k = kalman_open("kalman_varying");
  double mean[36], phi[2];
  for (long at = 1;; at++) {
    struct counting c = {.fail_at = at};
    const unroll_allocator a = counting_allocator(&c);
    unroll_ar ar = {.p = 2, .constant = 1, .phi = phi};
    unroll_kalman_result r = {.struct_size = sizeof r};
    unroll_score s;
    unroll_error err = UNROLL_ERROR_INIT;
    const unroll_baseline b = {.kind = UNROLL_BASELINE_NAIVE};
    unroll_status status = unroll_kalman_filter(&k.model, k.y, k.T, &a, &r, &err);
    if (status == UNROLL_OK)
      status = unroll_kalman_smoother(&k.model, k.y, k.T, &a, mean, NULL, &err);
    if (status == UNROLL_OK)
      status = unroll_ar_fit((double[]){1, 2, 4, 3, 7, 5}, 6, &ar, &a, &err);
    if (status == UNROLL_OK)
      status = unroll_backtest(unroll_baseline_forecast, &b, mean, 36, 3, 1, NULL, &a, &s, &err);
    assert_int_equal(c.live, 0);
    if (status == UNROLL_OK) {
      assert_true(c.calls == at - 1 && c.calls >= 6);
      break;
    }
    assert_int_equal(status, UNROLL_E_MEMORY);
    assert_int_equal(c.calls, at);
  }
  kalman_close(&k);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(kalman_against_statsmodels),
                                     cmocka_unit_test(kalman_of_constants),
                                     cmocka_unit_test(kalman_misuse),
                                     cmocka_unit_test(sunspots),
                                     cmocka_unit_test(co2),
                                     cmocka_unit_test(baselines),
                                     cmocka_unit_test(forecast_misuse),
                                     cmocka_unit_test(windows),
                                     cmocka_unit_test(no_memory)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
