/* SPDX-License-Identifier: Apache-2.0 */
/* Eigenvalues and singular values of a matrix. */
#include <math.h>
#include <string.h>
#include <unroll/diagnose.h>

#include "diagnose/lapack.h"
#include "diagnose/leading.h"

/* From where on products with vectors were measured to be the faster way. */
#define RADIUS_ROWS 512
#define NORM_ROWS 256

static unroll_status check_matrix(const char *what, const double *a, int64_t m, int64_t n, unroll_error *err) {
  if (!a)
    return fail(err, UNROLL_E_INVALID, "%s: the matrix is NULL", what);
  if (m < 1 || n < 1 || m > LAPACK_MAX_ROWS || n > LAPACK_MAX_ROWS)
    return fail(err, UNROLL_E_INVALID, "%s: a matrix of %lld rows and %lld columns, each must be from 1 to %d", what,
                (long long)m, (long long)n, LAPACK_MAX_ROWS);
  for (int64_t i = 0; i < m * n; i++)
    if (!isfinite(a[i]))
      return fail(err, UNROLL_E_RANGE, "%s: the matrix has %g at row %lld, column %lld", what, a[i], (long long)(i / n),
                  (long long)(i % n));
  return UNROLL_OK;
}

/* LAPACK's copy of a matrix, which it overwrites; rows are its columns, which changes neither eigenvalues nor singular
 * values. */
static unroll_status copy_matrix(const double *a, int64_t m, int64_t n, double **copy, unroll_error *err) {
  *copy = mem_array(NULL, (uint64_t)(m * n), sizeof **copy);
  if (!*copy)
    return fail(err, UNROLL_E_MEMORY, "no memory for a matrix of %lld rows and %lld columns", (long long)m,
                (long long)n);
  memcpy(*copy, a, (size_t)(m * n) * sizeof *a);
  return UNROLL_OK;
}

unroll_status unroll_eigenvalues(const double *a, int64_t n, double *real, double *imaginary, unroll_error *err) {
  struct lapack l;
  double *copy;
  TRY(check_matrix("eigenvalues", a, n, n, err));
  if (!real || !imaginary)
    return fail(err, UNROLL_E_INVALID, "eigenvalues: %s is NULL", real ? "imaginary" : "real");
  TRY(lapack_open(&l, err));
  TRY(copy_matrix(a, n, n, &copy, err));
  const unroll_status status = lapack_eigenvalues(&l, copy, n, real, imaginary, NULL, err);
  mem_free(NULL, copy);
  return status;
}

unroll_status unroll_spectral_radius(const double *a, int64_t n, double *radius, unroll_error *err) {
  TRY(check_matrix("spectral radius", a, n, n, err));
  if (!radius)
    return fail(err, UNROLL_E_INVALID, "spectral radius: radius is NULL");
  if (n >= RADIUS_ROWS && leading_radius(a, n, radius, NULL) == UNROLL_OK)
    return UNROLL_OK;
  double *const values = mem_array(NULL, 2 * (uint64_t)n, sizeof *values);
  if (!values)
    return fail(err, UNROLL_E_MEMORY, "no memory for %lld eigenvalues", (long long)n);
  const unroll_status status = unroll_eigenvalues(a, n, values, values + n, err);
  if (status == UNROLL_OK)
    *radius = hypot(values[0], values[n]);
  mem_free(NULL, values);
  return status;
}

unroll_status unroll_spectral_norm(const double *a, int64_t m, int64_t n, double *norm, unroll_error *err) {
  TRY(check_matrix("spectral norm", a, m, n, err));
  if (!norm)
    return fail(err, UNROLL_E_INVALID, "spectral norm: norm is NULL");
  const int64_t rank = m < n ? m : n;
  const unroll_operator by_products = {.struct_size = sizeof by_products, .rows = m, .columns = n, .matrix = a};
  if (rank >= NORM_ROWS && unroll_largest_singular_value(&by_products, NULL, norm, NULL, NULL, NULL) == UNROLL_OK)
    return UNROLL_OK;
  double *const values = mem_array(NULL, (uint64_t)rank, sizeof *values);
  if (!values)
    return fail(err, UNROLL_E_MEMORY, "no memory for %lld singular values", (long long)rank);
  const unroll_status status = unroll_singular_values(a, m, n, values, err);
  if (status == UNROLL_OK)
    *norm = values[0];
  mem_free(NULL, values);
  return status;
}

unroll_status unroll_singular_values(const double *a, int64_t m, int64_t n, double *values, unroll_error *err) {
  struct lapack l;
  double *copy, best = 0;
  TRY(check_matrix("singular values", a, m, n, err));
  if (!values)
    return fail(err, UNROLL_E_INVALID, "singular values: values is NULL");
  TRY(lapack_open(&l, err));
  TRY(copy_matrix(a, m, n, &copy, err));
  const int rows = (int)n, columns = (int)m;
  l.dgesvd(LAPACK_COLUMNS, 'N', 'N', rows, columns, copy, rows, values, NULL, 1, NULL, 1, &best, -1);
  const int64_t least = 5 * (m > n ? m : n) + 3 * (m < n ? m : n);
  const int lwork = best < (double)least ? (int)least : (int)best;
  double *const work = mem_array(NULL, (uint64_t)lwork, sizeof *work);
  int info = 0;
  if (work)
    info = l.dgesvd(LAPACK_COLUMNS, 'N', 'N', rows, columns, copy, rows, values, NULL, 1, NULL, 1, work, lwork);
  mem_free(NULL, copy);
  mem_free(NULL, work);
  if (!work)
    return fail(err, UNROLL_E_MEMORY, "no memory for the singular values of %lld rows and %lld columns", (long long)m,
                (long long)n);
  if (info != 0)
    return fail(err, UNROLL_E_RANGE, "singular values: LAPACK's dgesvd did not converge (%d)", info);
  return UNROLL_OK;
}

unroll_status unroll_departure_from_normality(const double *a, int64_t n, const double *real, const double *imaginary,
                                              double *departure, unroll_error *err) {
  if (!a || !real || !imaginary || !departure || n < 1)
    return fail(err, UNROLL_E_INVALID, "departure from normality: an array is NULL, or of %lld rows", (long long)n);
  double sum = 0;
  for (int64_t i = 0; i < n * n; i++)
    sum += a[i] * a[i];
  for (int64_t i = 0; i < n; i++)
    sum -= real[i] * real[i] + imaginary[i] * imaginary[i];
  *departure = sum > 0 ? sqrt(sum) : 0; /* below 0 by rounding alone */
  return UNROLL_OK;
}
