/* SPDX-License-Identifier: Apache-2.0 */
/* Small dense matrices, row-major, in double. */
#ifndef DENSE_H
#define DENSE_H
#include "base/base_private.h"

/* c [n,m] = op(a)·op(b) with op(a) [n,k], op(b) [k,m]; c is neither a nor b. */
void dense_product(double *c, const double *a, bool trans_a, const double *b, bool trans_b, int64_t n, int64_t k,
                   int64_t m);
/* a [n,n] symmetric becomes its lower factor L in place, a = L·Lᵀ; false where it is not positive definite. */
bool dense_cholesky(double *a, int64_t n);
/* b [n,m] becomes a⁻¹·b, with the factor of a. */
void dense_cholesky_solve(const double *L, double *b, int64_t n, int64_t m);
/* a [n,n] becomes (a + aᵀ)/2. */
void dense_symmetrize(double *a, int64_t n);
/*
 * Least squares by Householder's QR: a [rows,columns] and b [rows] are overwritten; x [columns] minimises |a·x - b|.
 * rows >= columns >= 1. *residual: its square sum. *condition: as unroll_ar has it, infinite where a column is dependent;
 * x is written where it is finite. scale [columns] and work [columns] are scratch.
 */
void dense_least_squares(double *a, double *b, int64_t rows, int64_t columns, double *scale, double *work, double *x,
                         double *residual, double *condition);
#endif
