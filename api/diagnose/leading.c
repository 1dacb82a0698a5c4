/* SPDX-License-Identifier: Apache-2.0 */
/* The eigenvalues of the largest magnitude, by products. */
#include "diagnose/leading.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "diagnose/arpack.h"

#define STANDARD_TOLERANCE 1e-10
#define STANDARD_RESTARTS 300
#define ROUNDING 0x1p-44 /* of ‖A‖: what rounding leaves of a residual */
#define SAME 1e-6        /* by which A and its transposed may differ */
#define REACH 0.01       /* within which an eigenvalue must be known, to be the same as another one */
#define MOST_VECTORS 16384

/* An eigenvalue, and where its vector stands. */
struct pair {
  double re, im; /* first, as larger_first reads them */
  double residual;
  const double *x; /* its real part [n], and behind it, where im is not 0, the imaginary one of im > 0 */
};

struct leading {
  struct products products;
  struct arnoldi arnoldi;
  struct pair *pairs; /* [k+1] of A; the next k+1 of Aᵀ */
  double *y;          /* [2·n] */
};

static const char WHAT[] = "leading eigenvalues";

/* ‖A·x - λ·x‖ of a unit x. */
static unroll_status residual_of(struct leading *l, struct pair *pair, unroll_error *err) {
  const int64_t n = l->products.a->columns;
  const double *const re = pair->x, *const im = pair->x + n;
  double *const y = l->y, *const z = l->y + n;
  const double length = pair->im == 0 ? vector_norm(re, n) : hypot(vector_norm(re, n), vector_norm(im, n));
  TRY(products_make(&l->products, l->arnoldi.transposed, re, y, err));
  if (pair->im == 0) {
    for (int64_t i = 0; i < n; i++)
      y[i] -= pair->re * re[i];
    pair->residual = vector_norm(y, n) / length;
    return UNROLL_OK;
  }
  TRY(products_make(&l->products, l->arnoldi.transposed, im, z, err));
  for (int64_t i = 0; i < n; i++) {
    y[i] -= pair->re * re[i] - pair->im * im[i];
    z[i] -= pair->re * im[i] + pair->im * re[i];
  }
  pair->residual = hypot(vector_norm(y, n), vector_norm(z, n)) / length;
  return UNROLL_OK;
}

/* Of A or Aᵀ: pairs [k+1], the leading ones first; all of the first k have converged. */
static unroll_status run(struct leading *l, struct pair *pairs, int *n_pairs, unroll_error *err) {
  struct arnoldi *a = &l->arnoldi;
  const int64_t n = l->products.a->columns;
  TRY(arnoldi_run(a, &l->products, err));
  int found = 0;
  for (int i = 0; i < a->n_found; i++) {
    struct pair *pair = &pairs[found];
    *pair = (struct pair){.re = a->re[i], .im = a->im[i], .x = a->v + (int64_t)i * n};
    if (pair->im != 0 && i + 1 == a->n_found)
      break; /* without its conjugate, and so without the half of its vector */
    TRY(residual_of(l, pair, err));
    found++;
    if (pair->im != 0) {
      pairs[found] = *pair;
      pairs[found++].im = -pair->im;
      i++;
    }
  }
  qsort(pairs, (size_t)found, sizeof *pairs, larger_first);
  int good = 0;
  while (good < found && pairs[good].residual <= fmax(2 * a->tolerance * hypot(pairs[good].re, pairs[good].im),
                                                      ROUNDING * l->products.largest))
    good++;
  a->n_found = *n_pairs = good;
  if (good < a->k)
    return fail(err, UNROLL_E_RANGE, "%s: %d of %d converged, the next one has a residual of %g", WHAT, good, a->k,
                good < found ? pairs[good].residual : (double)NAN);
  return UNROLL_OK;
}

/* 1/|yᴴx| of unit vectors, y the left one: the conjugate of Aᵀ's. */
static double condition_of(const struct pair *right, const struct pair *left, int64_t n) {
  const bool is_complex = right->im != 0;
  const double *const a = right->x, *const b = left->x;
  double re = vector_dot(a, b, n), im = 0, lengths = vector_norm(a, n) * vector_norm(b, n);
  if (is_complex) {
    const double *const c = right->x + n, *const d = left->x + n;
    const double sign = (right->im < 0) == (left->im < 0) ? 1 : -1;
    re -= sign * vector_dot(c, d, n);
    im = vector_dot(c, b, n) + sign * vector_dot(a, d, n);
    lengths = hypot(vector_norm(a, n), vector_norm(c, n)) * hypot(vector_norm(b, n), vector_norm(d, n));
  }
  return lengths / hypot(re, im); /* of vectors that are orthogonal infinite */
}

/* The condition of each, by an eigenvalue of Aᵀ that may be the same; INFINITY where there is none. */
static void conditions(const struct leading *l, const struct pair *right, int k, const struct pair *left, int n_left,
                       unroll_leading_eigenvalue *found) {
  for (int i = 0; i < k; i++) {
    found[i].condition = (double)INFINITY;
    for (int j = 0; j < n_left; j++) {
      if ((right[i].im == 0) != (left[j].im == 0))
        continue;
      const double c = condition_of(&right[i], &left[j], l->products.a->columns);
      const double distance = hypot(right[i].re - left[j].re, right[i].im - left[j].im);
      const double reach = 2 * c * (right[i].residual + left[j].residual + ROUNDING * l->products.largest);
      if (distance <= reach && reach <= REACH * hypot(right[i].re, right[i].im))
        found[i].condition = fmin(found[i].condition, c);
    }
  }
}

static unroll_status search(struct leading *l, bool both, unroll_leading_eigenvalue *found, unroll_error *err) {
  struct arnoldi *a = &l->arnoldi;
  struct pair *const right = l->pairs, *const left = l->pairs + a->k + 1;
  int n_right, n_left;
  TRY(run(l, right, &n_right, err));
  for (int i = 0; i < a->k; i++)
    found[i] = (unroll_leading_eigenvalue){right[i].re, right[i].im, right[i].residual, (double)NAN};
  if (!both)
    return UNROLL_OK;
  /* Vectors of Aᵀ are there for angles, to which their residuals matter as much as the root of one matters to λ. */
  const struct arnoldi of_a = *a;
  a->transposed = true;
  a->tolerance = sqrt(a->tolerance);
  a->v += (int64_t)a->basis * l->products.a->columns;
  TRY(run(l, left, &n_left, err));
  *a = of_a;
  conditions(l, right, a->k, left, n_left, found);
  const double here = hypot(right->re, right->im), there = hypot(left->re, left->im);
  const double apart = isfinite(found->condition) ? 2 * found->condition * left->residual : 0;
  if (there > here * (1 + SAME) + apart + ROUNDING * l->products.largest)
    return fail(err, UNROLL_E_RANGE, "%s: the largest magnitude of A is %.10g, of A transposed %.10g", WHAT, here,
                there);
  return UNROLL_OK;
}

static unroll_status check(const unroll_operator *a, int64_t k, const unroll_iteration_options *o,
                           const unroll_leading_eigenvalue *found, const unroll_iteration_info *info,
                           unroll_error *err) {
  const int64_t n = a->columns;
  if (!found)
    return fail(err, UNROLL_E_INVALID, "%s: found is NULL", WHAT);
  if (a->rows != n)
    return fail(err, UNROLL_E_INVALID, "%s: an operator of %lld rows and %lld columns is not square", WHAT,
                (long long)a->rows, (long long)n);
  if (k < 1 || k > n - 2)
    return fail(err, UNROLL_E_INVALID,
                "%s: %lld of %lld, it must be from 1 to two fewer than there are (unroll_eigenvalues has all)", WHAT,
                (long long)k, (long long)n);
  if (o->struct_size < sizeof *o || (info && info->struct_size < sizeof *info))
    return fail(err, UNROLL_E_INVALID, "%s: the struct_size of the %s is too small", WHAT,
                o->struct_size < sizeof *o ? "options" : "info");
  if (o->basis != 0 && (o->basis < k + 2 || o->basis > n || o->basis > MOST_VECTORS))
    return fail(err, UNROLL_E_INVALID, "%s: a basis of %lld vectors, it must be from k + 2 = %lld to %lld", WHAT,
                (long long)o->basis, (long long)(k + 2), (long long)(n < MOST_VECTORS ? n : MOST_VECTORS));
  if (k + 2 > MOST_VECTORS)
    return fail(err, UNROLL_E_INVALID, "%s: %lld of them, at most %d can be sought", WHAT, (long long)k,
                MOST_VECTORS - 2);
  if (o->restarts < 0 || o->restarts > INT32_MAX || !(o->tolerance >= 0) || !(o->tolerance < 1))
    return fail(err, UNROLL_E_INVALID, "%s: %lld restarts, tolerance %g: one is out of its range", WHAT,
                (long long)o->restarts, o->tolerance);
  return UNROLL_OK;
}

unroll_status unroll_leading_eigenvalues(const unroll_operator *a, int64_t k, const unroll_iteration_options *options,
                                         unroll_leading_eigenvalue *found, unroll_iteration_info *info,
                                         unroll_error *err) {
  const unroll_iteration_options standard = {.struct_size = sizeof standard};
  const unroll_iteration_options *o = options ? options : &standard;
  struct leading l = {.pairs = NULL};
  TRY(products_open(&l.products, WHAT, a, err));
  TRY(check(a, k, o, found, info, err));
  const int64_t n = a->columns, most = n < MOST_VECTORS ? n : MOST_VECTORS;
  const int64_t basis = o->basis ? o->basis : 2 * k + 20 < most ? 2 * k + 20 : most;
  const bool both = o->conditions != 0;
  const uint64_t runs = both ? 2 : 1, size = (uint64_t)k + 2;
  /* Half the tolerance for ARPACK's estimate of a residual, which is not quite the residual. */
  l.arnoldi = (struct arnoldi){.k = (int)k,
                               .basis = (int)basis,
                               .restarts = o->restarts ? (int)o->restarts : STANDARD_RESTARTS,
                               .tolerance = (o->tolerance > 0 ? o->tolerance : STANDARD_TOLERANCE) / 2,
                               .seed = o->seed};
  double *const memory = mem_array(NULL, (runs * (uint64_t)basis + 2) * (uint64_t)n + 2 * size, sizeof *memory);
  l.pairs = mem_array(NULL, runs * size, sizeof *l.pairs);
  unroll_status status;
  if (!memory || !l.pairs)
    status = fail(err, UNROLL_E_MEMORY, "%s: no memory for %llu vectors of %lld numbers", WHAT,
                  (unsigned long long)runs * (unsigned long long)basis, (long long)n);
  else {
    l.y = memory;
    l.arnoldi.re = l.y + 2 * n;
    l.arnoldi.im = l.arnoldi.re + size;
    l.arnoldi.v = l.arnoldi.im + size;
    status = search(&l, both, found, err);
  }
  if (info) {
    info->products = l.products.n;
    info->converged = l.arnoldi.n_found;
  }
  mem_free(NULL, memory);
  mem_free(NULL, l.pairs);
  return status;
}

#define RADIUS_VALUES 2
#define RADIUS_VECTORS 128
#define RADIUS_ERROR 1e-8

unroll_status leading_radius(const double *a, int64_t n, double *radius, unroll_error *err) {
  const unroll_operator by_products = {.struct_size = sizeof by_products, .rows = n, .columns = n, .matrix = a};
  /* Random matrices need n/512 restarts. What takes many more is faster by LAPACK. */
  const unroll_iteration_options o = {.struct_size = sizeof o,
                                      .conditions = 1,
                                      .basis = n < RADIUS_VECTORS ? n : RADIUS_VECTORS,
                                      .restarts = 2 + n / 384};
  unroll_leading_eigenvalue found[RADIUS_VALUES];
  TRY(unroll_leading_eigenvalues(&by_products, RADIUS_VALUES, &o, found, NULL, err));
  *radius = hypot(found[0].real, found[0].imaginary);
  if (!(found[0].residual * found[0].condition <= RADIUS_ERROR * *radius))
    return fail(err, UNROLL_E_RANGE, "spectral radius: %g within %g by Arnoldi's iteration", *radius,
                found[0].residual * found[0].condition);
  return UNROLL_OK;
}
