/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The largest singular value of an A by Lanczos's iteration of AᵀA (Golub & Van Loan 2013, ch. 10.1). What is iterated is
 * AᵀA/s², s = ‖A·v_1‖: the square of a small σ would be no number, its ratio to s is one.
 */
#ifndef LANCZOS_H
#define LANCZOS_H
#include <stdbool.h>
#include <stdint.h>

/* The vectors [m][N] so far, and AᵀA in them, a tridiagonal matrix. */
typedef struct lanczos {
  double *v, *alpha, *beta; /* [m,N], [m], [m] */
  double scale;             /* s */
  double sigma, error;      /* σ and the bound of its relative error so far; NaN where a product was not finite */
  bool done;
} lanczos;

/* With v_j in its place, norm = ‖A·v_j‖ and w = Aᵀ·(A·v_j/norm), which is used up: v_(j+1) is w/beta[j] afterwards. True:
 * there is no more to do. */
bool lanczos_step(lanczos *l, int j, int64_t N, double norm, double *w, double tolerance);
#endif
