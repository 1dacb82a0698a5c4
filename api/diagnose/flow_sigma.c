/* SPDX-License-Identifier: Apache-2.0 */
/*
 * flow_sigma.c: the largest singular value of J by Lanczos's iteration of JᵀJ, of many rows at once (Golub & Van Loan 2013,
 * ch. 10.1). What is iterated is JᵀJ/s², s = ‖J·v_1‖: the square of a small σ would be no number, its ratio to s is one.
 */
#include "diagnose/flow_private.h"

#include <math.h>
#include <string.h>
#include <unroll/philox.h>

enum { FIRST_SITE = 1 }; /* of the first vectors */

/* Of one row: its vectors [m][N] so far, and JᵀJ in them, a tridiagonal matrix. */
typedef struct lanczos {
  double *v, *alpha, *beta; /* [m,N], [m], [m] */
  double scale;             /* s */
  double sigma, error;
  bool done;
} lanczos;

static double dot(const double *a, const double *b, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; i++)
    sum += a[i] * b[i];
  return sum;
}

/* How many eigenvalues of the tridiagonal matrix of size m lie above x, by Sturm's sequence. */
static int above(const lanczos *l, int m, double x) {
  int n = 0;
  double q = 1;
  for (int i = 0; i < m; i++) {
    const double b = i ? l->beta[i - 1] : 0;
    q = l->alpha[i] - x - (i ? b * b / q : 0);
    if (q == 0)
      q = -0x1p-1000;
    n += q > 0;
  }
  return n;
}

/* The largest eigenvalue, and the last element of its unit vector. */
static double largest(const lanczos *l, int m, double *last) {
  double lo = 0, hi = 0;
  for (int i = 0; i < m; i++) {
    const double around = (i ? fabs(l->beta[i - 1]) : 0) + (i + 1 < m ? fabs(l->beta[i]) : 0);
    hi = fmax(hi, l->alpha[i] + around);
    lo = fmax(lo, l->alpha[i]); /* no eigenvalue of a leading block is larger than its matrix's */
  }
  lo *= 1 - 0x1p-40;
  for (int i = 0; i < 200 && hi - lo > 0x1p-52 * hi; i++) {
    const double x = lo + (hi - lo) / 2;
    if (x <= lo || x >= hi)
      break;
    if (above(l, m, x))
      lo = x;
    else
      hi = x;
  }
  const double theta = lo + (hi - lo) / 2;
  /* from the last element back, the direction in which the vector of the largest one grows */
  double next = 0, y = 1, sum = 1;
  for (int i = m - 1; i > 0; i--) {
    const double before = ((theta - l->alpha[i]) * y - (i + 1 < m ? l->beta[i] * next : 0)) / l->beta[i - 1];
    next = y;
    y = before;
    sum += y * y;
  }
  *last = isfinite(sum) ? 1 / sqrt(sum) : 0;
  return theta;
}

/* One more vector from w = Jᵀ·(J·v/‖J·v‖), the j-th; w is used up. True: there is no more to do. */
static bool step(lanczos *l, int j, int64_t N, double norm, double *w, double tolerance) {
  if (j == 0)
    l->scale = norm;
  if (!isfinite(norm) || l->scale == 0) {
    l->sigma = norm; /* 0, inf or NaN */
    l->error = norm == 0 ? 0 : (double)NAN;
    return true;
  }
  const double factor = norm / l->scale;
  for (int64_t i = 0; i < N; i++)
    w[i] = w[i] / l->scale * factor;
  l->alpha[j] = dot(w, l->v + j * N, N);
  for (int again = 0; again < 2; again++)
    for (int k = j; k >= 0; k--) {
      const double along = dot(w, l->v + k * N, N);
      for (int64_t i = 0; i < N; i++)
        w[i] -= along * l->v[k * N + i];
    }
  l->beta[j] = sqrt(dot(w, w, N));
  double last;
  const double theta = largest(l, j + 1, &last);
  l->sigma = l->scale * sqrt(theta);
  l->error = l->beta[j] * last / (2 * theta); /* of θ the residual bounds it; σ is its root */
  if (!isfinite(l->sigma) || !isfinite(l->error)) {
    l->sigma = l->error = (double)NAN;
    return true;
  }
  return j + 1 == N || l->beta[j] <= 0x1p-50 * theta || l->error <= tolerance;
}

static void first_vectors(const flow_rows *r, double *v) {
  const unroll_philox_key key = unroll_philox_site_key(r->t->o.seed, 0, FIRST_SITE);
  for (int64_t i = 0; i < r->rows; i++) {
    double *x = v + i * r->N;
    for (int64_t k = 0; k < r->N; k++)
      x[k] = unroll_normal(key, (unroll_u64)(r->layer * 2 + r->direction), (unroll_u32)i, (unroll_u32)k);
    const double norm = sqrt(dot(x, x, r->N));
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
      l->done = step(l, j, N, norm[i], w + i * N, tolerance);
      for (int64_t k = 0; k < N && !l->done; k++)
        v[i * N + k] = w[i * N + k] / l->beta[j];
      more = more || !l->done;
    }
  }
  return UNROLL_OK;
}

unroll_status flow_sigma(flow_rows *r, double *sigma, double *error, unroll_error *err) {
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
