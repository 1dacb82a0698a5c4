/* SPDX-License-Identifier: Apache-2.0 */
/* Fixed points by Levenberg's and Marquardt's method (Marquardt 1963): least squares of r(h) = F(h) - h. */
#include <math.h>
#include <string.h>

#include "diagnose/lapack.h"
#include "diagnose/map.h"

#define STANDARD_ITERATIONS 200
#define STANDARD_SPEED 1e-20
#define STANDARD_DISTANCE 1e-6
/* Where the speed has no room to fall any more: the rounding of residuals of size 1. */
#define LEAST_SPEED 1e-31
#define DAMPING_FIRST 1e-3
#define DAMPING_LEAST 1e-15
#define DAMPING_MOST 1e12

struct search {
  const unroll_map *map;
  int (*cancel)(void *ctx);
  void *ctx;
  struct lapack lapack;
  int64_t n;
  double *h, *next, *r, *tried, *tried_r, *delta, *imaginary; /* [n] each */
  double *A, *normal;                                         /* [n,n] */
};

/* r = F(h) - h and with A not NULL A = J - 1, in rows; q. Infinite where the map goes there. */
static unroll_status residual(struct search *s, const double *h, double *r, double *A, double *q, unroll_error *err) {
  unroll_error inner = UNROLL_ERROR_INIT;
  TRY(map_ask(s->cancel, s->ctx, err));
  const unroll_status status = unroll_map_step(s->map, 0, h, s->next, A, &inner);
  *q = (double)INFINITY;
  if (status == UNROLL_E_RANGE)
    return UNROLL_OK;
  if (status != UNROLL_OK)
    return fail(err, status, "%s", inner.message);
  double sum = 0;
  for (int64_t i = 0; i < s->n; i++) {
    r[i] = s->next[i] - h[i];
    sum += r[i] * r[i];
    if (A)
      A[i * s->n + i] -= 1;
  }
  *q = sum / 2;
  return UNROLL_OK;
}

/* delta = -(AᵀA + damping·scale)⁻¹Aᵀr, scale the mean of AᵀA's diagonal. False: it is singular. */
static bool propose(struct search *s, double damping) {
  const int64_t n = s->n;
  const int n_ = (int)n;
  /* The rows of A are LAPACK's columns: AᵀA is its product of A with its transposed. */
  lapack_product(&s->lapack, s->normal, s->A, false, s->A, true, n, n, n);
  double trace = 0;
  for (int64_t i = 0; i < n; i++)
    trace += s->normal[i * n + i];
  for (int64_t i = 0; i < n; i++)
    s->normal[i * n + i] += damping * trace / (double)n;
  for (int64_t j = 0; j < n; j++)
    s->delta[j] = 0;
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j < n; j++)
      s->delta[j] -= s->A[i * n + j] * s->r[i];
  return s->lapack.dposv(LAPACK_COLUMNS, 'L', n_, 1, s->normal, n_, s->delta, n_) == 0;
}

/* From s->h downwards; what q is there in the end. */
static unroll_status descend(struct search *s, int64_t iterations, double *q, unroll_error *err) {
  double damping = DAMPING_FIRST;
  TRY(residual(s, s->h, s->r, s->A, q, err));
  for (int64_t i = 0; i < iterations && isfinite(*q) && *q > LEAST_SPEED && damping < DAMPING_MOST; i++) {
    double tried = (double)INFINITY;
    if (propose(s, damping)) {
      for (int64_t j = 0; j < s->n; j++)
        s->tried[j] = s->h[j] + s->delta[j];
      TRY(residual(s, s->tried, s->tried_r, NULL, &tried, err));
    }
    if (!(tried < *q)) {
      damping *= 10;
      continue;
    }
    memcpy(s->h, s->tried, (size_t)s->n * sizeof *s->h);
    damping = damping / 10 < DAMPING_LEAST ? DAMPING_LEAST : damping / 10;
    TRY(residual(s, s->h, s->r, s->A, q, err));
  }
  return UNROLL_OK;
}

static bool near(const double *a, const double *b, int64_t n, double distance) {
  for (int64_t i = 0; i < n; i++)
    if (!(fabs(a[i] - b[i]) <= distance))
      return false;
  return true;
}

static unroll_status judge(struct search *s, const double *h, unroll_fixed_point *point, unroll_error *err) {
  TRY(unroll_map_step(s->map, 0, h, s->next, s->A, err));
  TRY(lapack_eigenvalues(&s->lapack, s->A, s->n, s->r, s->imaginary, &s->map->allocator, err));
  point->radius = hypot(s->r[0], s->imaginary[0]);
  point->unstable = 0;
  while (point->unstable < s->n && hypot(s->r[point->unstable], s->imaginary[point->unstable]) > 1)
    point->unstable++;
  return UNROLL_OK;
}

static unroll_status search_all(struct search *s, const double *starts, int64_t n_starts,
                                const unroll_fixed_point_options *o, double *points, unroll_fixed_point *found,
                                int64_t *n_found, unroll_error *err) {
  const int64_t n = s->n, iterations = o->iterations > 0 ? o->iterations : STANDARD_ITERATIONS;
  const double most = o->speed > 0 ? o->speed : STANDARD_SPEED;
  const double distance = o->distance > 0 ? o->distance : STANDARD_DISTANCE;
  for (int64_t i = 0; i < n_starts; i++) {
    double q;
    memcpy(s->h, starts + i * n, (size_t)n * sizeof *s->h);
    TRY(descend(s, iterations, &q, err));
    if (!(q <= most))
      continue;
    int64_t k = 0;
    while (k < *n_found && !near(points + k * n, s->h, n, distance))
      k++;
    if (k == *n_found) {
      memcpy(points + k * n, s->h, (size_t)n * sizeof *s->h);
      found[k] = (unroll_fixed_point){.speed = q};
      TRY(judge(s, points + k * n, &found[k], err));
      ++*n_found;
    }
    found[k].starts++;
  }
  return UNROLL_OK;
}

unroll_status unroll_fixed_points(const unroll_map *map, const double *starts, int64_t n_starts,
                                  const unroll_fixed_point_options *options, double *points, unroll_fixed_point *found,
                                  int64_t *n_found, unroll_error *err) {
  const unroll_fixed_point_options standard = {.struct_size = sizeof standard};
  const unroll_fixed_point_options *o = options ? options : &standard;
  if (!map || !starts || !points || !found || !n_found)
    return fail(err, UNROLL_E_INVALID, "unroll_fixed_points: %s is NULL",
                !map      ? "map"
                : !starts ? "starts"
                : !points ? "points"
                : !found  ? "found"
                          : "n_found");
  if (o->struct_size < sizeof *o || n_starts < 1 || o->iterations < 0 || !(o->speed >= 0) || !(o->distance >= 0))
    return fail(
        err, UNROLL_E_INVALID,
        "fixed points: %lld starts, %lld iterations, speed %g, distance %g, struct_size %u: one is out of its range",
        (long long)n_starts, (long long)o->iterations, o->speed, o->distance, o->struct_size);
  struct search s = {.map = map, .cancel = o->cancel, .ctx = o->ctx, .n = map->n};
  const uint64_t n = (uint64_t)map->n;
  *n_found = 0;
  TRY(lapack_open(&s.lapack, err));
  double *const memory = mem_array(&map->allocator, 2 * n * n + 7 * n, sizeof *memory);
  if (!memory)
    return fail(err, UNROLL_E_MEMORY, "fixed points: no memory for Jacobians of %lld numbers", (long long)map->n);
  double **const vectors[] = {&s.h, &s.next, &s.r, &s.tried, &s.tried_r, &s.delta, &s.imaginary};
  for (size_t i = 0; i < sizeof vectors / sizeof vectors[0]; i++)
    *vectors[i] = memory + i * n;
  s.A = memory + 7 * n;
  s.normal = s.A + n * n;
  const unroll_status status = search_all(&s, starts, n_starts, o, points, found, n_found, err);
  mem_free(&map->allocator, memory);
  return status;
}
