/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <math.h>
#include <string.h>
#include <unroll/series.h>

#include "series/dense.h"

#define LOG_2PI 1.8378770664093454836

struct filter {
  const unroll_kalman_model *model;
  const double *y;
  int64_t n, m, observed; /* observed: numbers of this step */
  double *mean, *cov;     /* [n], [n,n], of the state */
  double *H, *R, *v;      /* [m,n], [m,m], [m]: the observed rows of this step */
  double *S, *L;          /* [m,m] all of H P Hᵀ + R; the factor of its observed part */
  double *gain;           /* [m,n]: Kᵀ */
  double *left;           /* [n,n]: I - K·H */
  double *work;           /* [n+m, n+m] */
  double log_likelihood;
};

static const double *at(const unroll_kalman_model *o, uint32_t bit, const double *matrix, int64_t size, int64_t t) {
  return o->varying & bit ? matrix + t * size : matrix;
}

/* ---- what comes in ---- */

static unroll_status check_matrix(const char *name, const double *a, int64_t rows, int64_t columns, int64_t steps,
                                  bool covariance, unroll_error *err) {
  if (a == NULL)
    return fail(err, UNROLL_E_INVALID, "Kalman filter: %s is NULL", name);
  for (int64_t t = 0; t < steps; t++, a += rows * columns) {
    double largest = 0;
    for (int64_t i = 0; i < rows * columns; i++) {
      if (!isfinite(a[i]))
        return fail(err, UNROLL_E_RANGE, "Kalman filter: %s[%" PRId64 ",%" PRId64 "] of step %" PRId64 " is %g", name,
                    i / columns, i % columns, t, a[i]);
      largest = fmax(largest, fabs(a[i]));
    }
    for (int64_t i = 0; covariance && i < rows; i++) {
      if (a[i * rows + i] < 0)
        return fail(err, UNROLL_E_RANGE,
                    "Kalman filter: %s[%" PRId64 ",%" PRId64 "] of step %" PRId64 " is %g: a variance", name, i, i, t,
                    a[i * rows + i]);
      for (int64_t j = 0; j < i; j++)
        if (fabs(a[i * rows + j] - a[j * rows + i]) > 1e-9 * largest)
          return fail(err, UNROLL_E_RANGE,
                      "Kalman filter: %s of step %" PRId64 " is not symmetric: %g at [%" PRId64 ",%" PRId64
                      "], %g across",
                      name, t, a[i * rows + j], i, j, a[j * rows + i]);
    }
  }
  return UNROLL_OK;
}

static unroll_status check(const unroll_kalman_model *o, const double *y, int64_t T, unroll_error *err) {
  if (o == NULL || y == NULL || !UNROLL_HAS(unroll_kalman_model, o, cov0))
    return fail(err, UNROLL_E_INVALID, "Kalman filter: model or y is NULL, or the model's struct_size is too small");
  if (o->varying > (UNROLL_VARYING_F | UNROLL_VARYING_H | UNROLL_VARYING_Q | UNROLL_VARYING_R))
    return fail(err, UNROLL_E_INVALID, "Kalman filter: varying is 0x%" PRIX32 ", bits that are none", o->varying);
  int64_t most;
  if (o->n < 1 || o->m < 1 || T < 1 || !extent_add(o->n, o->m, &most) || !extent_mul(most, most, &most) ||
      !extent_mul(most, 64, &most) || !extent_mul(most, T, &most))
    return fail(err, UNROLL_E_SHAPE, "Kalman filter: n %" PRId64 ", m %" PRId64 ", T %" PRId64, o->n, o->m, T);
  TRY(check_matrix("F", o->F, o->n, o->n, o->varying & UNROLL_VARYING_F ? T : 1, false, err));
  TRY(check_matrix("H", o->H, o->m, o->n, o->varying & UNROLL_VARYING_H ? T : 1, false, err));
  TRY(check_matrix("Q", o->Q, o->n, o->n, o->varying & UNROLL_VARYING_Q ? T : 1, true, err));
  TRY(check_matrix("R", o->R, o->m, o->m, o->varying & UNROLL_VARYING_R ? T : 1, true, err));
  if (o->mean0 != NULL)
    TRY(check_matrix("mean0", o->mean0, o->n, 1, 1, false, err));
  if (o->cov0 != NULL)
    TRY(check_matrix("cov0", o->cov0, o->n, o->n, 1, true, err));
  for (int64_t i = 0; i < T * o->m; i++)
    if (isinf(y[i]))
      return fail(err, UNROLL_E_RANGE, "Kalman filter: y[%" PRId64 ",%" PRId64 "] is %g", i / o->m, i % o->m, y[i]);
  return UNROLL_OK;
}

/* All scratch in one piece, freed by mem_free of f->mean. */
static unroll_status filter_init(struct filter *f, const unroll_kalman_model *o, const double *y,
                                 const unroll_allocator *allocator, unroll_error *err) {
  const int64_t n = o->n, m = o->m;
  *f = (struct filter){.model = o, .y = y, .n = n, .m = m};
  const uint64_t all = (uint64_t)(n + n * n + m * n + m * m + m + 2 * m * m + m * n + n * n + (n + m) * (n + m));
  f->mean = mem_array(allocator, all, sizeof *f->mean);
  if (f->mean == NULL)
    return fail(err, UNROLL_E_MEMORY, "no memory for a Kalman filter of n %" PRId64 ", m %" PRId64, n, m);
  f->cov = f->mean + n;
  f->H = f->cov + n * n;
  f->R = f->H + m * n;
  f->v = f->R + m * m;
  f->S = f->v + m;
  f->L = f->S + m * m;
  f->gain = f->L + m * m;
  f->left = f->gain + m * n;
  f->work = f->left + n * n;
  for (int64_t i = 0; i < n && o->mean0 != NULL; i++)
    f->mean[i] = o->mean0[i];
  for (int64_t i = 0; i < n * n && o->cov0 != NULL; i++)
    f->cov[i] = o->cov0[i];
  return UNROLL_OK;
}

/* ---- a step ---- */

static void predict(struct filter *f, int64_t t) {
  const int64_t n = f->n;
  const double *F = at(f->model, UNROLL_VARYING_F, f->model->F, n * n, t),
               *Q = at(f->model, UNROLL_VARYING_Q, f->model->Q, n * n, t);
  dense_product(f->work, F, false, f->mean, false, n, n, 1);
  memcpy(f->mean, f->work, (size_t)n * sizeof(double));
  dense_product(f->work, F, false, f->cov, false, n, n, n);
  dense_product(f->cov, f->work, false, F, true, n, n, n);
  for (int64_t i = 0; i < n * n; i++)
    f->cov[i] += Q[i];
  dense_symmetrize(f->cov, n);
}

/* S of the whole observation; H, R, v and L of what is observed of it. */
static unroll_status observe(struct filter *f, int64_t t, unroll_error *err) {
  const int64_t n = f->n, m = f->m;
  const double *H = at(f->model, UNROLL_VARYING_H, f->model->H, m * n, t),
               *R = at(f->model, UNROLL_VARYING_R, f->model->R, m * m, t), *y = f->y + t * m;
  dense_product(f->work, H, false, f->cov, false, m, n, n);
  dense_product(f->S, f->work, false, H, true, m, n, m);
  for (int64_t i = 0; i < m * m; i++)
    f->S[i] += R[i];
  dense_symmetrize(f->S, m);
  int64_t k = 0;
  for (int64_t i = 0; i < m; i++)
    k += !isnan(y[i]);
  f->observed = k;
  for (int64_t i = 0, to = 0; i < m; i++) {
    if (isnan(y[i]))
      continue;
    f->v[to] = y[i];
    for (int64_t j = 0; j < n; j++) {
      f->H[to * n + j] = H[i * n + j];
      f->v[to] -= H[i * n + j] * f->mean[j];
    }
    for (int64_t j = 0, column = 0; j < m; j++)
      if (!isnan(y[j])) {
        f->R[to * k + column] = R[i * m + j];
        f->L[to * k + column++] = f->S[i * m + j];
      }
    to++;
  }
  if (k > 0 && !dense_cholesky(f->L, k))
    return fail(err, UNROLL_E_RANGE,
                "Kalman filter: step %" PRId64 ": the innovation's covariance H P Hᵀ + R is not positive definite", t);
  return UNROLL_OK;
}

/* gain = S⁻¹·H·P; left = I - K·H. */
static void find_gain(struct filter *f) {
  const int64_t n = f->n, k = f->observed;
  dense_product(f->gain, f->H, false, f->cov, false, k, n, n);
  dense_cholesky_solve(f->L, f->gain, k, n);
  dense_product(f->left, f->gain, true, f->H, false, n, k, n);
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j < n; j++)
      f->left[i * n + j] = (double)(i == j) - f->left[i * n + j];
}

static void update(struct filter *f) {
  const int64_t n = f->n, k = f->observed;
  find_gain(f);
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j < k; j++)
      f->mean[i] += f->gain[j * n + i] * f->v[j];
  dense_product(f->work, f->left, false, f->cov, false, n, n, n);
  dense_product(f->cov, f->work, false, f->left, true, n, n, n);
  dense_product(f->work, f->R, false, f->gain, false, k, k, n);
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j < n; j++)
      for (int64_t l = 0; l < k; l++)
        f->cov[i * n + j] += f->gain[l * n + i] * f->work[l * n + j];
  dense_symmetrize(f->cov, n);
}

static double log_likelihood(struct filter *f) {
  const int64_t k = f->observed;
  double sum = -0.5 * (double)k * LOG_2PI;
  memcpy(f->work, f->v, (size_t)k * sizeof(double));
  dense_cholesky_solve(f->L, f->work, k, 1);
  for (int64_t i = 0; i < k; i++)
    sum -= log(f->L[i * k + i]) + 0.5 * f->v[i] * f->work[i];
  return sum;
}

/* ---- the filter ---- */

static void copy(double *to, const double *from, int64_t size, int64_t t) {
  if (to != NULL)
    memcpy(to + t * size, from, (size_t)size * sizeof(double));
}

static void write_innovation(const struct filter *f, double *to, int64_t t) {
  const double *y = f->y + t * f->m;
  for (int64_t i = 0, k = 0; to != NULL && i < f->m; i++)
    to[t * f->m + i] = isnan(y[i]) ? NAN : f->v[k++];
}

static unroll_status step(struct filter *f, unroll_kalman_result *r, int64_t t, unroll_error *err) {
  const int64_t n = f->n, m = f->m;
  predict(f, t);
  copy(r->predicted_mean, f->mean, n, t);
  copy(r->predicted_cov, f->cov, n * n, t);
  TRY(observe(f, t, err));
  copy(r->innovation_cov, f->S, m * m, t);
  write_innovation(f, r->innovation, t);
  const double l = f->observed > 0 ? log_likelihood(f) : 0;
  copy(r->step_log_likelihood, &l, 1, t);
  r->log_likelihood += l;
  r->observed += f->observed;
  if (f->observed > 0)
    update(f);
  copy(r->mean, f->mean, n, t);
  copy(r->cov, f->cov, n * n, t);
  return UNROLL_OK;
}

unroll_status unroll_kalman_filter(const unroll_kalman_model *model, const double *y, int64_t T,
                                   const unroll_allocator *allocator, unroll_kalman_result *result, unroll_error *err) {
  if (result == NULL || !UNROLL_HAS(unroll_kalman_result, result, observed))
    return fail(err, UNROLL_E_INVALID, "Kalman filter: result is NULL, or its struct_size too small");
  TRY(check(model, y, T, err));
  struct filter f;
  TRY(filter_init(&f, model, y, allocator, err));
  result->log_likelihood = 0;
  result->observed = 0;
  unroll_status status = UNROLL_OK;
  for (int64_t t = 0; t < T && status == UNROLL_OK; t++)
    status = step(&f, result, t, err);
  mem_free(allocator, f.mean);
  return status;
}

/* ---- the smoother ---- */

struct smoother {
  struct filter f;
  double *means, *covs;      /* [T,n], [T,n,n], predicted */
  double *r, *N, *next, *Fr; /* [n], [n,n], [n,n], [n,n] */
};

/*
 * From r_t and N_t to r_{t-1} and N_{t-1}, with what step t predicted in f: what the steps after t say of x_{t+1} goes
 * back through F_{t+1} and (I - K H), and what is observed at t is added.
 */
static void go_back(struct smoother *s, int64_t t, bool last) {
  struct filter *f = &s->f;
  const int64_t n = f->n, k = f->observed;
  if (!last) {
    const double *F = at(f->model, UNROLL_VARYING_F, f->model->F, n * n, t + 1);
    dense_product(s->Fr, F, true, s->r, false, n, n, 1);
    memcpy(s->r, s->Fr, (size_t)n * sizeof(double));
    dense_product(s->Fr, F, true, s->N, false, n, n, n);
    dense_product(s->N, s->Fr, false, F, false, n, n, n);
  }
  if (k == 0)
    return;
  find_gain(f);
  dense_product(s->Fr, f->left, true, s->r, false, n, n, 1);
  memcpy(s->r, s->Fr, (size_t)n * sizeof(double));
  dense_product(s->Fr, f->left, true, s->N, false, n, n, n);
  dense_product(s->N, s->Fr, false, f->left, false, n, n, n);
  dense_cholesky_solve(f->L, f->v, k, 1);
  memcpy(f->gain, f->H, (size_t)(k * n) * sizeof(double));
  dense_cholesky_solve(f->L, f->gain, k, n);
  for (int64_t i = 0; i < n; i++)
    for (int64_t l = 0; l < k; l++) {
      s->r[i] += f->H[l * n + i] * f->v[l];
      for (int64_t j = 0; j < n; j++)
        s->N[i * n + j] += f->H[l * n + i] * f->gain[l * n + j];
    }
  dense_symmetrize(s->N, n);
}

static unroll_status smooth(struct smoother *s, int64_t T, double *mean, double *cov, unroll_error *err) {
  struct filter *f = &s->f;
  const int64_t n = f->n;
  for (int64_t t = T - 1; t >= 0; t--) {
    memcpy(f->mean, s->means + t * n, (size_t)n * sizeof(double));
    memcpy(f->cov, s->covs + t * n * n, (size_t)(n * n) * sizeof(double));
    TRY(observe(f, t, err));
    go_back(s, t, t == T - 1);
    for (int64_t i = 0; i < n; i++) {
      double sum = f->mean[i];
      for (int64_t j = 0; j < n; j++)
        sum += f->cov[i * n + j] * s->r[j];
      mean[t * n + i] = sum;
    }
    if (cov == NULL)
      continue;
    double *to = cov + t * n * n;
    dense_product(s->next, f->cov, false, s->N, false, n, n, n);
    dense_product(to, s->next, false, f->cov, false, n, n, n);
    for (int64_t i = 0; i < n * n; i++)
      to[i] = f->cov[i] - to[i];
    dense_symmetrize(to, n);
  }
  return UNROLL_OK;
}

unroll_status unroll_kalman_smoother(const unroll_kalman_model *model, const double *y, int64_t T,
                                     const unroll_allocator *allocator, double *mean, double *cov, unroll_error *err) {
  if (mean == NULL)
    return fail(err, UNROLL_E_INVALID, "Kalman smoother: mean is NULL");
  TRY(check(model, y, T, err));
  const int64_t n = model->n;
  struct smoother s;
  TRY(filter_init(&s.f, model, y, allocator, err));
  s.means = mem_array(allocator, (uint64_t)(T * (n + n * n) + n + 3 * n * n), sizeof *s.means);
  unroll_status status;
  if (s.means == NULL) {
    status = fail(err, UNROLL_E_MEMORY, "no memory for %" PRId64 " steps of a Kalman smoother", T);
    goto end;
  }
  s.covs = s.means + T * n;
  s.r = s.covs + T * n * n;
  s.N = s.r + n;
  s.next = s.N + n * n;
  s.Fr = s.next + n * n;
  unroll_kalman_result r = {.struct_size = sizeof r, .predicted_mean = s.means, .predicted_cov = s.covs};
  TRY_GOTO(status, unroll_kalman_filter(model, y, T, allocator, &r, err), end);
  status = smooth(&s, T, mean, cov, err);
end:
  mem_free(allocator, s.means);
  mem_free(allocator, s.f.mean);
  return status;
}
