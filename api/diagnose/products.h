/* SPDX-License-Identifier: Apache-2.0 */
/* Products with a matrix or an operator, checked and counted; vectors. */
#ifndef PRODUCTS_H
#define PRODUCTS_H
#include <unroll/diagnose.h>

#include "diagnose/lapack.h"

struct products {
  const unroll_operator *a;
  const char *what; /* that needs them, for messages */
  struct lapack lapack;
  int64_t n;      /* made so far */
  double largest; /* ‖A·x‖ of the unit vectors so far */
};
/* UNROLL_E_INVALID: the operator is none. */
unroll_status products_open(struct products *p, const char *what, const unroll_operator *a, unroll_error *err);
/* y = A·x, or Aᵀ·x. UNROLL_E_RANGE: y is not finite. */
unroll_status products_make(struct products *p, bool transposed, const double *x, double *y, unroll_error *err);

double vector_dot(const double *a, const double *b, int64_t n);
double vector_norm(const double *x, int64_t n); /* also where squares would overflow */
/* A direction that is as likely as any other. */
void vector_random(double *x, int64_t n, uint64_t seed, uint32_t site);
#endif
