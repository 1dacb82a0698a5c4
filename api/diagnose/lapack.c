/* SPDX-License-Identifier: Apache-2.0 */
#include "diagnose/lapack.h"

#include <dlfcn.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* It stays loaded, RTLD_NODELETE: threads that it may have started do not end well. Later opens find it there. */
unroll_status library_symbols(const char *what, const char *file, const char *package, const char *const *names,
                              void **found, size_t n, unroll_error *err) {
  void *const handle = dlopen(file, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (!handle) {
    const char *const why = dlerror();
    return fail(err, UNROLL_E_UNSUPPORTED, "%s can't be loaded: %s (Debian's package is %s)", what, why ? why : file,
                package);
  }
  unroll_status status = UNROLL_OK;
  for (size_t i = 0; i < n && status == UNROLL_OK; i++) {
    found[i] = dlsym(handle, names[i]); /* also of the libraries that it needs */
    if (!found[i])
      status = fail(err, UNROLL_E_UNSUPPORTED, "%s: %s has no %s", what, file, names[i]);
  }
  dlclose(handle);
  return status;
}

unroll_status lapack_open(struct lapack *l, unroll_error *err) {
  static const char *const names[] = {"LAPACKE_dgeev_work",
                                      "LAPACKE_dgesvd_work",
                                      "LAPACKE_dgeqrf_work",
                                      "LAPACKE_dorgqr_work",
                                      "LAPACKE_dposv_work",
                                      "dgemm_",
                                      "dgemv_"};
  void *found[sizeof names / sizeof names[0]];
  TRY(library_symbols("LAPACK", "liblapacke.so.3", "liblapacke", names, found, sizeof names / sizeof names[0], err));
  /* POSIX has dlsym's pointers mean functions too, ISO C lets no cast say so. */
  memcpy(&l->dgeev, &found[0], sizeof found[0]);
  memcpy(&l->dgesvd, &found[1], sizeof found[1]);
  memcpy(&l->dgeqrf, &found[2], sizeof found[2]);
  memcpy(&l->dorgqr, &found[3], sizeof found[3]);
  memcpy(&l->dposv, &found[4], sizeof found[4]);
  memcpy(&l->dgemm, &found[5], sizeof found[5]);
  memcpy(&l->dgemv, &found[6], sizeof found[6]);
  return UNROLL_OK;
}

void lapack_product(const struct lapack *l, double *c, const double *a, bool trans_a, const double *b, bool trans_b,
                    int64_t m, int64_t n, int64_t k) {
  const int m_ = (int)m, n_ = (int)n, k_ = (int)k, lda = trans_a ? k_ : m_, ldb = trans_b ? n_ : k_;
  const double one = 1, zero = 0;
  l->dgemm(trans_a ? "T" : "N", trans_b ? "T" : "N", &m_, &n_, &k_, &one, a, &lda, b, &ldb, &zero, c, &m_, 1, 1);
}

void lapack_rows_times(const struct lapack *l, double *y, const double *a, bool transposed, const double *x, int64_t m,
                       int64_t n) {
  const int m_ = (int)m, n_ = (int)n, step = 1;
  const double one = 1, zero = 0;
  l->dgemv(transposed ? "N" : "T", &n_, &m_, &one, a, &n_, x, &step, &zero, y, &step, 1);
}

bool lapack_all_finite(const double *a, int64_t n) {
  for (int64_t i = 0; i < n; i++)
    if (!isfinite(a[i]))
      return false;
  return true;
}

int larger_first(const void *x, const void *y) {
  const double *a = x, *b = y;
  const double p = hypot(a[0], a[1]), q = hypot(b[0], b[1]);
  if (p != q)
    return p > q ? -1 : 1;
  if (a[0] != b[0])
    return a[0] > b[0] ? -1 : 1;
  return a[1] > b[1] ? -1 : a[1] < b[1];
}

unroll_status lapack_eigenvalues(const struct lapack *l, double *a, int64_t n, double *real, double *imaginary,
                                 const unroll_allocator *allocator, unroll_error *err) {
  const int n_ = (int)n;
  double best = 0;
  l->dgeev(LAPACK_COLUMNS, 'N', 'N', n_, a, n_, real, imaginary, NULL, 1, NULL, 1, &best, -1);
  const int lwork = best < 4.0 * (double)n ? 4 * n_ : (int)best;
  double *const work = mem_array(allocator, (uint64_t)lwork + 2 * (uint64_t)n, sizeof *work);
  if (!work)
    return fail(err, UNROLL_E_MEMORY, "no memory for the eigenvalues of a matrix of %lld rows", (long long)n);
  const int info = l->dgeev(LAPACK_COLUMNS, 'N', 'N', n_, a, n_, real, imaginary, NULL, 1, NULL, 1, work, lwork);
  if (info == 0) {
    double(*const pairs)[2] = (void *)(work + lwork);
    for (int64_t i = 0; i < n; i++) {
      pairs[i][0] = real[i];
      pairs[i][1] = imaginary[i];
    }
    qsort(pairs, (size_t)n, sizeof *pairs, larger_first);
    for (int64_t i = 0; i < n; i++) {
      real[i] = pairs[i][0];
      imaginary[i] = pairs[i][1];
    }
  }
  mem_free(allocator, work);
  if (info != 0)
    return fail(err, UNROLL_E_RANGE, "eigenvalues: LAPACK's dgeev did not converge (%d)", info);
  return UNROLL_OK;
}
