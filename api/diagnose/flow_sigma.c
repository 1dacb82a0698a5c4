/* SPDX-License-Identifier: Apache-2.0 */
/*
 * flow_sigma.c: the largest singular values of J by Lanczos's iteration of JᵀJ, of many rows at once: a sequence and a lag
 * each, those of like lags together.
 */
#include "diagnose/flow_private.h"

#include <math.h>
#include <string.h>
#include <unroll/philox.h>

#include "diagnose/lanczos.h"
#include "diagnose/products.h"

enum { FIRST_SITE = 1 }; /* of the first vectors */

static void first_vectors(const flow_rows *r, double *v) {
  const unroll_philox_key key = unroll_philox_site_key(r->t->o.seed, 0, FIRST_SITE);
  for (int64_t i = 0; i < r->rows; i++) {
    double *x = v + i * r->N;
    for (int64_t k = 0; k < r->N; k++)
      x[k] = unroll_normal(key, (unroll_u64)(r->layer * 2 + r->direction), (unroll_u32)i, (unroll_u32)k);
    const double norm = sqrt(vector_dot(x, x, r->N));
    for (int64_t k = 0; k < r->N; k++)
      x[k] /= norm;
  }
}

static unroll_status iterate(flow_rows *r, lanczos *all, int m, double *v, double *w, double *norm, unroll_error *err) {
  const int64_t N = r->N;
  const double tolerance = r->t->o.tolerance;
  bool more = true;
  first_vectors(r, v);
  for (int j = 0; j < m && more; j++) {
    for (int64_t i = 0; i < r->rows; i++)
      if (!all[i].done)
        memcpy(all[i].v + j * N, v + i * N, (size_t)N * sizeof *v);
    TRY(flow_rows_product(r, v, norm, w, err));
    more = false;
    for (int64_t i = 0; i < r->rows; i++) {
      lanczos *l = &all[i];
      if (l->done)
        continue;
      l->done = lanczos_step(l, j, N, norm[i], w + i * N, tolerance);
      for (int64_t k = 0; k < N && !l->done; k++)
        v[i * N + k] = w[i * N + k] / l->beta[j];
      more = more || !l->done;
    }
  }
  return UNROLL_OK;
}

static unroll_status of_rows(flow_rows *r, double *sigma, double *error, unroll_error *err) {
  const int64_t N = r->N, R = r->rows;
  const int m = r->t->o.iterations < N ? r->t->o.iterations : (int)N;
  lanczos *const all = mem_array(NULL, (uint64_t)R, sizeof *all);
  double *const numbers = mem_array(NULL, (uint64_t)R * (uint64_t)((m + 2) * N + 2 * m + 1), sizeof *numbers);
  unroll_status status = UNROLL_OK;
  if (!all || !numbers)
    status = fail(err, UNROLL_E_MEMORY, "no memory for the singular values of %lld products", (long long)R);
  else {
    double *at = numbers + R * (2 * N + 1);
    for (int64_t i = 0; i < R; i++, at += m * N + 2 * m)
      all[i] = (lanczos){.v = at, .alpha = at + m * N, .beta = at + m * N + m};
    status = iterate(r, all, m, numbers, numbers + R * N, numbers + 2 * R * N, err);
  }
  for (int64_t i = 0; i < R && status == UNROLL_OK; i++) {
    sigma[i] = all[i].sigma;
    error[i] = all[i].error;
  }
  mem_free(NULL, all);
  mem_free(NULL, numbers);
  return status;
}

/* ---- groups ---- */

/* The `sequences` longest sequences, in order. */
static void choose_sequences(const flow_task *t, int64_t *chosen) {
  int64_t n = 0;
  for (int64_t length = t->batch.steps; length > 0 && n < t->o.sequences; length--)
    for (int64_t b = 0; b < t->batch.batch && n < t->o.sequences; b++)
      if (flow_length(t, b) == length)
        chosen[n++] = b;
}

/* The same for all layers: a sequence and a lag each, the largest lags first. */
typedef struct row_list {
  int64_t n, *sequence, *lag;
  double *sigma, *error;
} row_list;

static void list_rows(const flow_task *t, const int64_t *lags, int64_t n_lags, const int64_t *chosen, row_list *rows) {
  rows->n = 0;
  for (int64_t k = n_lags; k-- > 0;) /* they rise, as a rule */
    for (int64_t s = 0; s < t->o.sequences; s++) {
      if (flow_length(t, chosen[s]) <= lags[k])
        continue;
      int64_t at = rows->n++;
      for (; at > 0 && rows->lag[at - 1] < lags[k]; at--) {
        rows->lag[at] = rows->lag[at - 1];
        rows->sequence[at] = rows->sequence[at - 1];
      }
      rows->lag[at] = lags[k];
      rows->sequence[at] = chosen[s];
    }
}

/*
 * Rows that go through together are padded to the largest lag among them; so none has less than a quarter of it, but for the
 * few steps that cost less than runs of their own.
 */
enum { PADDED = 4, FEW_STEPS = 4 };

static int64_t end_of_group(const row_list *rows, int64_t first) {
  int64_t end = first + 1;
  while (end < rows->n && rows->lag[end] * PADDED + FEW_STEPS > rows->lag[first])
    end++;
  return end;
}

/* A run of a group costs about rows·steps/(B·T) training updates. */
static void limit_iterations(flow_task *t, const row_list *rows) {
  double updates = 0;
  if (t->o.iterations)
    return;
  for (int64_t first = 0, end; first < rows->n; first = end) {
    end = end_of_group(rows, first);
    updates += (double)(end - first) * (double)rows->lag[first] / ((double)t->batch.batch * (double)t->batch.steps);
  }
  t->o.iterations = (int)fmin(fmax(40 / updates, 6), 30);
}

static unroll_status of_groups(flow_task *t, int32_t i, const row_list *rows, unroll_error *err) {
  for (int64_t first = 0, end; first < rows->n; first = end) {
    flow_rows r;
    end = end_of_group(rows, first);
    TRY(flow_ask(t, err));
    TRY(flow_rows_open(&r, t, i / t->net.D, i % t->net.D, end - first, rows->sequence + first, rows->lag + first, true,
                       err));
    const unroll_status status = of_rows(&r, rows->sigma + first, rows->error + first, err);
    flow_rows_close(&r);
    TRY(status);
  }
  return UNROLL_OK;
}

/* sigma: [3,n_lags] */
static void over_rows(const row_list *rows, const int64_t *lags, int64_t n_lags, double *sigma) {
  double *const most = sigma + n_lags, *const worst = most + n_lags;
  for (int64_t k = 0; k < n_lags; k++) {
    int64_t n = 0;
    sigma[k] = 0;
    most[k] = worst[k] = -1;
    for (int64_t row = 0; row < rows->n; row++)
      if (rows->lag[row] == lags[k]) {
        const double value = rows->sigma[row], error = rows->error[row];
        n++;
        sigma[k] += value;
        most[k] = value > most[k] || isnan(value) ? value : most[k];
        worst[k] = error > worst[k] || isnan(error) ? error : worst[k];
      }
    sigma[k] /= (double)n;
  }
}

unroll_status flow_sigma(flow_task *t, const int64_t *lags, int64_t n_lags, double *sigma, int64_t stride,
                         unroll_error *err) {
  const uint64_t S = (uint64_t)t->o.sequences, n = (uint64_t)n_lags * S;
  int64_t *const chosen = mem_array(NULL, S + 2 * n, sizeof *chosen);
  double *const values = mem_array(NULL, 2 * n, sizeof *values);
  unroll_status status = UNROLL_OK;
  if (!chosen || !values)
    status = fail(err, UNROLL_E_MEMORY, "no memory for the singular values of %lld lags", (long long)n_lags);
  else {
    row_list rows = {0, chosen + S, chosen + S + n, values, values + n};
    choose_sequences(t, chosen);
    list_rows(t, lags, n_lags, chosen, &rows);
    limit_iterations(t, &rows);
    for (int32_t i = 0; i < t->net.n && status == UNROLL_OK; i++) {
      status = of_groups(t, i, &rows, err);
      if (status == UNROLL_OK)
        over_rows(&rows, lags, n_lags, sigma + i * stride);
    }
  }
  mem_free(NULL, chosen);
  mem_free(NULL, values);
  return status;
}
