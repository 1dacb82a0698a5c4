/* SPDX-License-Identifier: Apache-2.0 */
/* ARPACK's implicitly restarted Arnoldi iteration (Lehoucq, Sorensen & Yang 1998), loaded when it is needed. */
#ifndef ARPACK_H
#define ARPACK_H
#include "diagnose/products.h"

struct arnoldi {
  bool transposed;  /* of Aᵀ */
  int k, basis;     /* eigenvalues that are sought, vectors that are kept */
  int restarts;     /* at most */
  double tolerance; /* of a residual, relative to its eigenvalue */
  uint64_t seed;    /* of the first vector */
  double *v; /* [basis][n]: becomes the eigenvectors, one a column; those of a pair are two columns, the real and the
                        imaginary part of that of the eigenvalue whose imaginary part is positive */
  double *re, *im; /* [k+2]: the eigenvalues that converged, conjugates one after the other, in no order */
  int n_found;     /* of them: k or, where the last one is one of a pair, k + 1; fewer did not converge */
};
/* UNROLL_E_UNSUPPORTED: there is no ARPACK; UNROLL_E_RANGE: not all converged, n_found says how many did. */
unroll_status arnoldi_run(struct arnoldi *a, struct products *p, unroll_error *err);
#endif
