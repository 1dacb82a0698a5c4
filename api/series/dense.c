/* SPDX-License-Identifier: Apache-2.0 */
#include "series/dense.h"

#include <math.h>

void dense_product(double *c, const double *a, bool trans_a, const double *b, bool trans_b, int64_t n, int64_t k,
                   int64_t m) {
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j < m; j++) {
      double sum = 0;
      for (int64_t l = 0; l < k; l++)
        sum += (trans_a ? a[l * n + i] : a[i * k + l]) * (trans_b ? b[j * k + l] : b[l * m + j]);
      c[i * m + j] = sum;
    }
}

bool dense_cholesky(double *a, int64_t n) {
  for (int64_t j = 0; j < n; j++) {
    double pivot = a[j * n + j];
    for (int64_t l = 0; l < j; l++)
      pivot -= a[j * n + l] * a[j * n + l];
    if (!(pivot > 0 && isfinite(pivot)))
      return false;
    const double root = sqrt(pivot);
    a[j * n + j] = root;
    for (int64_t i = j + 1; i < n; i++) {
      double sum = a[i * n + j];
      for (int64_t l = 0; l < j; l++)
        sum -= a[i * n + l] * a[j * n + l];
      a[i * n + j] = sum / root;
    }
  }
  return true;
}

void dense_cholesky_solve(const double *L, double *b, int64_t n, int64_t m) {
  for (int64_t c = 0; c < m; c++) {
    for (int64_t i = 0; i < n; i++) {
      for (int64_t l = 0; l < i; l++)
        b[i * m + c] -= L[i * n + l] * b[l * m + c];
      b[i * m + c] /= L[i * n + i];
    }
    for (int64_t i = n - 1; i >= 0; i--) {
      for (int64_t l = i + 1; l < n; l++)
        b[i * m + c] -= L[l * n + i] * b[l * m + c];
      b[i * m + c] /= L[i * n + i];
    }
  }
}

void dense_symmetrize(double *a, int64_t n) {
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j < i; j++)
      a[i * n + j] = a[j * n + i] = 0.5 * a[i * n + j] + 0.5 * a[j * n + i];
}

/* Column k is reflected onto its first element, which stands at row k; the columns behind it and b follow. */
static void reflect(double *a, double *b, int64_t rows, int64_t columns, int64_t k) {
  double norm = 0;
  for (int64_t i = k; i < rows; i++)
    norm = hypot(norm, a[i * columns + k]);
  if (norm == 0)
    return;
  const double alpha = a[k * columns + k] > 0 ? -norm : norm;
  a[k * columns + k] -= alpha; /* the column is now v, the reflection I - 2vvᵀ/vᵀv, with vᵀv = -2·alpha·v_k */
  const double half = -alpha * a[k * columns + k];
  for (int64_t j = k + 1; j <= columns; j++) {
    double dot = 0;
    for (int64_t i = k; i < rows; i++)
      dot += a[i * columns + k] * (j < columns ? a[i * columns + j] : b[i]);
    for (int64_t i = k; i < rows; i++)
      *(j < columns ? &a[i * columns + j] : &b[i]) -= dot / half * a[i * columns + k];
  }
  a[k * columns + k] = alpha;
}

/* ‖R‖·‖R⁻¹‖ of the upper triangle; the inverse is found column by column. */
static double condition_of(const double *a, int64_t columns, double *work) {
  double norm = 0, inverse = 0;
  for (int64_t j = 0; j < columns; j++) {
    if (a[j * columns + j] == 0)
      return INFINITY;
    for (int64_t i = j; i >= 0; i--) {
      double sum = i == j;
      for (int64_t l = i + 1; l <= j; l++)
        sum -= a[i * columns + l] * work[l];
      work[i] = sum / a[i * columns + i];
      norm = hypot(norm, a[i * columns + j]);
      inverse = hypot(inverse, work[i]);
    }
  }
  return norm * inverse;
}

void dense_least_squares(double *a, double *b, int64_t rows, int64_t columns, double *scale, double *work, double *x,
                         double *residual, double *condition) {
  *condition = INFINITY;
  for (int64_t j = 0; j < columns; j++) {
    scale[j] = 0;
    for (int64_t i = 0; i < rows; i++)
      scale[j] = hypot(scale[j], a[i * columns + j]);
    if (!(scale[j] > 0 && isfinite(scale[j])))
      return;
    for (int64_t i = 0; i < rows; i++)
      a[i * columns + j] /= scale[j];
  }
  for (int64_t k = 0; k < columns; k++)
    reflect(a, b, rows, columns, k);
  *condition = condition_of(a, columns, work);
  if (!isfinite(*condition))
    return;
  for (int64_t j = columns - 1; j >= 0; j--) {
    x[j] = b[j];
    for (int64_t l = j + 1; l < columns; l++)
      x[j] -= a[j * columns + l] * x[l];
    x[j] /= a[j * columns + j];
  }
  for (int64_t j = 0; j < columns; j++)
    x[j] /= scale[j];
  *residual = 0;
  for (int64_t i = columns; i < rows; i++)
    *residual += b[i] * b[i];
}
