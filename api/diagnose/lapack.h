/* SPDX-License-Identifier: Apache-2.0 */
/* LAPACK and BLAS, as far as they are used: loaded when they are needed, so that a program that does not ask for a diagnosis
 * starts without them. Matrices are LAPACK's, column by column. */
#ifndef LAPACK_H
#define LAPACK_H
#include "base/base_private.h"

#define LAPACK_COLUMNS 102
#define LAPACK_MAX_ROWS 16384

struct lapack {
  int (*dgeev)(int layout, char left, char right, int n, double *a, int lda, double *re, double *im, double *vl,
               int ldvl, double *vr, int ldvr, double *work, int lwork);
  int (*dgesvd)(int layout, char u, char vt, int m, int n, double *a, int lda, double *s, double *u_, int ldu,
                double *vt_, int ldvt, double *work, int lwork);
  int (*dgeqrf)(int layout, int m, int n, double *a, int lda, double *tau, double *work, int lwork);
  int (*dorgqr)(int layout, int m, int n, int k, double *a, int lda, const double *tau, double *work, int lwork);
  int (*dposv)(int layout, char part, int n, int nrhs, double *a, int lda, double *b, int ldb);
  void (*dgemm)(const char *trans_a, const char *trans_b, const int *m, const int *n, const int *k, const double *alpha,
                const double *a, const int *lda, const double *b, const int *ldb, const double *beta, double *c,
                const int *ldc, size_t, size_t);
  void (*dgemv)(const char *trans, const int *m, const int *n, const double *alpha, const double *a, const int *lda,
                const double *x, const int *step_x, const double *beta, double *y, const int *step_y, size_t);
};
/* found [n]: the functions `names` of a shared library, which stays loaded; `what` and its package for messages. */
unroll_status library_symbols(const char *what, const char *file, const char *package, const char *const *names,
                              void **found, size_t n, unroll_error *err);
unroll_status lapack_open(struct lapack *l, unroll_error *err);
/* c [m,n] = op(a)·op(b), columns. */
void lapack_product(const struct lapack *l, double *c, const double *a, bool trans_a, const double *b, bool trans_b,
                    int64_t m, int64_t n, int64_t k);
/* y = a·x, or aᵀ·x, of a [m,n] in rows. */
void lapack_rows_times(const struct lapack *l, double *y, const double *a, bool transposed, const double *x, int64_t m,
                       int64_t n);

/* Of qsort: pairs of a real and an imaginary part, by magnitude, conjugates one after the other. */
int larger_first(const void *x, const void *y);
/* real and imaginary [n] of a [n,n], in rows or columns alike, in unroll_eigenvalues' order; a is overwritten. */
unroll_status lapack_eigenvalues(const struct lapack *l, double *a, int64_t n, double *real, double *imaginary,
                                 const unroll_allocator *allocator, unroll_error *err);
bool lapack_all_finite(const double *a, int64_t n);
#endif
