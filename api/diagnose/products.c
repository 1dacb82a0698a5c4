/* SPDX-License-Identifier: Apache-2.0 */
#include "diagnose/products.h"

#include <math.h>
#include <unroll/philox.h>

#define MOST_NUMBERS ((int64_t)1 << 28) /* ARPACK's sizes are ints, of three vectors together */

unroll_status products_open(struct products *p, const char *what, const unroll_operator *a, unroll_error *err) {
  *p = (struct products){.a = a, .what = what};
  if (!a || a->struct_size < sizeof *a)
    return fail(err, UNROLL_E_INVALID, "%s: %s", what, a ? "the operator's struct_size is too small" : "a is NULL");
  if (!a->matrix == !a->product)
    return fail(err, UNROLL_E_INVALID, "%s: an operator has a matrix or a product, this one has %s", what,
                a->matrix ? "both" : "none");
  if (a->rows < 1 || a->columns < 1 || a->rows > MOST_NUMBERS || a->columns > MOST_NUMBERS)
    return fail(err, UNROLL_E_INVALID, "%s: an operator of %lld rows and %lld columns, each must be from 1 to %lld",
                what, (long long)a->rows, (long long)a->columns, (long long)MOST_NUMBERS);
  return a->matrix ? lapack_open(&p->lapack, err) : UNROLL_OK;
}

unroll_status products_make(struct products *p, bool transposed, const double *x, double *y, unroll_error *err) {
  const unroll_operator *a = p->a;
  const int64_t n = transposed ? a->columns : a->rows;
  if (a->matrix)
    lapack_rows_times(&p->lapack, y, a->matrix, transposed, x, a->rows, a->columns);
  else
    TRY(a->product(a->ctx, transposed, x, y, err));
  p->n++;
  for (int64_t i = 0; i < n; i++)
    if (!isfinite(y[i]))
      return fail(err, UNROLL_E_RANGE, "%s: product %lld has %g at place %lld", p->what, (long long)p->n, y[i],
                  (long long)i);
  return UNROLL_OK;
}

double vector_dot(const double *a, const double *b, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; i++)
    sum += a[i] * b[i];
  return sum;
}

double vector_norm(const double *x, int64_t n) {
  double most = 0, sum = 0;
  for (int64_t i = 0; i < n; i++)
    most = fmax(most, fabs(x[i]));
  for (int64_t i = 0; i < n && most > 0; i++)
    sum += x[i] / most * (x[i] / most);
  return most * sqrt(sum);
}

void vector_random(double *x, int64_t n, uint64_t seed, uint32_t site) {
  const unroll_philox_key key = unroll_philox_site_key(seed, 0, site);
  for (int64_t i = 0; i < n; i++)
    x[i] = unroll_normal(key, 0, (unroll_u32)(i >> 20), (unroll_u32)(i & 0xfffff));
  const double norm = vector_norm(x, n);
  for (int64_t i = 0; i < n; i++)
    x[i] /= norm;
}
