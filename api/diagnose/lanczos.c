/* SPDX-License-Identifier: Apache-2.0 */
#include "diagnose/lanczos.h"

#include <math.h>

#include "diagnose/products.h"

#define STANDARD_TOLERANCE 1e-10
#define STANDARD_VECTORS 400

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

bool lanczos_step(lanczos *l, int j, int64_t N, double norm, double *w, double tolerance) {
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
  l->alpha[j] = vector_dot(w, l->v + j * N, N);
  for (int again = 0; again < 2; again++)
    for (int k = j; k >= 0; k--) {
      const double along = vector_dot(w, l->v + k * N, N);
      for (int64_t i = 0; i < N; i++)
        w[i] -= along * l->v[k * N + i];
    }
  l->beta[j] = sqrt(vector_dot(w, w, N));
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

/* ---- of an operator ---- */

static const char WHAT[] = "the largest singular value";

static unroll_status iterate(struct products *p, lanczos *l, int m, double tolerance, uint64_t seed, double *room,
                             unroll_error *err) {
  const int64_t M = p->a->rows, N = p->a->columns;
  double *const w = room, *const y = room + N;
  vector_random(l->v, N, seed, 0);
  for (int j = 0; j < m && !l->done; j++) {
    if (j > 0)
      for (int64_t i = 0; i < N; i++)
        l->v[j * N + i] = w[i] / l->beta[j - 1];
    TRY(products_make(p, false, l->v + j * N, y, err));
    const double norm = vector_norm(y, M);
    for (int64_t i = 0; i < M && norm > 0; i++)
      y[i] /= norm;
    TRY(products_make(p, true, y, w, err));
    l->done = lanczos_step(l, j, N, norm, w, tolerance);
  }
  if (!l->done || !isfinite(l->sigma))
    return fail(err, UNROLL_E_RANGE, "%s did not converge with %d vectors: %g, relative error %g", WHAT, m, l->sigma,
                l->error);
  return UNROLL_OK;
}

unroll_status unroll_largest_singular_value(const unroll_operator *a, const unroll_iteration_options *options,
                                            double *value, double *error, unroll_iteration_info *info,
                                            unroll_error *err) {
  const unroll_iteration_options standard = {.struct_size = sizeof standard};
  const unroll_iteration_options *o = options ? options : &standard;
  struct products p;
  TRY(products_open(&p, WHAT, a, err));
  if (!value)
    return fail(err, UNROLL_E_INVALID, "%s: value is NULL", WHAT);
  if (o->struct_size < sizeof *o || (info && info->struct_size < sizeof *info))
    return fail(err, UNROLL_E_INVALID, "%s: the struct_size of the %s is too small", WHAT,
                o->struct_size < sizeof *o ? "options" : "info");
  if (o->basis < 0 || o->basis > INT32_MAX || !(o->tolerance >= 0) || !(o->tolerance < 1))
    return fail(err, UNROLL_E_INVALID, "%s: a basis of %lld vectors, tolerance %g: one is out of its range", WHAT,
                (long long)o->basis, o->tolerance);
  const int64_t N = a->columns, wanted = o->basis ? o->basis : STANDARD_VECTORS, m = wanted < N ? wanted : N;
  double *const memory =
      mem_array(NULL, (uint64_t)(m + 1) * (uint64_t)N + (uint64_t)a->rows + 2 * (uint64_t)m, sizeof *memory);
  if (!memory)
    return fail(err, UNROLL_E_MEMORY, "%s: no memory for %lld vectors of %lld numbers", WHAT, (long long)m,
                (long long)N);
  lanczos l = {.v = memory, .alpha = memory + m * N, .beta = memory + m * N + m};
  const unroll_status status =
      iterate(&p, &l, (int)m, o->tolerance > 0 ? o->tolerance : STANDARD_TOLERANCE, o->seed, l.beta + m, err);
  if (status == UNROLL_OK)
    *value = l.sigma;
  if (status == UNROLL_OK && error)
    *error = l.error;
  if (info) {
    info->products = p.n;
    info->converged = status == UNROLL_OK;
  }
  mem_free(NULL, memory);
  return status;
}
