/* SPDX-License-Identifier: Apache-2.0 */
#include "diagnose/arpack.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <string.h>

/* Integers and logicals are ints, and the lengths of texts follow the arguments, as gfortran has them. */
struct arpack {
  void (*dnaupd)(int *ido, const char *bmat, const int *n, const char *which, const int *nev, double *tol,
                 double *resid, const int *ncv, double *v, const int *ldv, int *iparam, int *ipntr, double *workd,
                 double *workl, const int *lworkl, int *info, size_t, size_t);
  void (*dneupd)(const int *rvec, const char *howmny, int *select, double *re, double *im, double *z, const int *ldz,
                 const double *sigma_re, const double *sigma_im, double *workev, const char *bmat, const int *n,
                 const char *which, const int *nev, double *tol, double *resid, const int *ncv, double *v,
                 const int *ldv, int *iparam, int *ipntr, double *workd, double *workl, const int *lworkl, int *info,
                 size_t, size_t, size_t);
};

/*
 * ARPACK keeps what one iteration knows between two products in variables of its own, of which a process has one: the lock
 * stands for them. A product that comes here again finds it taken by its own thread, which is an error.
 */
static pthread_mutex_t lock = PTHREAD_ERRORCHECK_MUTEX_INITIALIZER_NP;

static unroll_status arpack_open(struct arpack *l, unroll_error *err) {
  static const char *const names[] = {"dnaupd_", "dneupd_"};
  void *found[2];
  TRY(library_symbols("ARPACK", "libarpack.so.2", "libarpack2", names, found, 2, err));
  memcpy(&l->dnaupd, &found[0], sizeof found[0]);
  memcpy(&l->dneupd, &found[1], sizeof found[1]);
  return UNROLL_OK;
}

/* Its memory, beside that of the vectors. */
struct room {
  double *resid, *workd, *workl, *workev; /* [n], [3·n], [lworkl], [3·basis] */
  int *select;                            /* [basis] */
  int lworkl;
};

static unroll_status iterate(const struct arpack *l, struct arnoldi *a, const struct room *r, double scale,
                             struct products *p, unroll_error *err) {
  const int n = (int)p->a->columns, vectors = 1;
  int k = a->k, basis = a->basis; /* k becomes one more where a pair would be cut */
  const double no_shift = 0;
  double tolerance = a->tolerance;
  int ido = 0, info = 1 /* resid is the first vector */, ipntr[14];
  int iparam[11] = {1 /* exact shifts */, 0, a->restarts, 1, 0, 0, 1 /* of A itself */};
  for (;;) {
    l->dnaupd(&ido, "I", &n, "LM", &k, &tolerance, r->resid, &basis, a->v, &n, iparam, ipntr, r->workd, r->workl,
              &r->lworkl, &info, 1, 2);
    if (ido != 1 && ido != -1)
      break;
    double *const x = r->workd + ipntr[0] - 1, *const y = r->workd + ipntr[1] - 1;
    TRY(products_make(p, a->transposed, x, y, err));
    p->largest = fmax(p->largest, vector_norm(y, n) / vector_norm(x, n));
    for (int i = 0; i < n; i++)
      y[i] /= scale;
  }
  a->n_found = info == 0 || info == 1 ? iparam[4] : 0;
  if (info == 0)
    l->dneupd(&vectors, "A", r->select, a->re, a->im, a->v, &n, &no_shift, &no_shift, r->workev, "I", &n, "LM", &k,
              &tolerance, r->resid, &basis, a->v, &n, iparam, ipntr, r->workd, r->workl, &r->lworkl, &info, 1, 1, 2);
  if (info == 1)
    return fail(err, UNROLL_E_RANGE, "%s: %d of %d converged after %d restarts of Arnoldi's iteration with %d vectors",
                p->what, a->n_found, a->k, a->restarts, a->basis);
  if (info != 0 || iparam[4] < a->k) {
    a->n_found = 0;
    return fail(err, UNROLL_E_RANGE, "%s: ARPACK did not converge (%d)", p->what, info);
  }
  a->n_found = iparam[4] <= a->k ? iparam[4] : a->k + 1;
  for (int i = 0; i < a->n_found; i++) {
    a->re[i] *= scale;
    a->im[i] *= scale;
  }
  return UNROLL_OK;
}

/* A/‖A·v‖ of a random v is what is iterated: ARPACK takes eigenvalues near its rounding for 0. */
static unroll_status begin(const struct arpack *l, struct arnoldi *a, const struct room *r, struct products *p,
                           unroll_error *err) {
  const int64_t n = p->a->columns;
  vector_random(r->resid, n, a->seed, a->transposed);
  TRY(products_make(p, a->transposed, r->resid, r->workd, err));
  const double scale = vector_norm(r->workd, n);
  p->largest = fmax(p->largest, scale);
  if (scale == 0) { /* A is 0 */
    a->n_found = a->k;
    for (int i = 0; i < a->k; i++)
      a->re[i] = a->im[i] = 0;
    memset(a->v, 0, (size_t)a->k * (size_t)n * sizeof *a->v);
    for (int i = 0; i < a->k; i++)
      a->v[i * n + i] = 1;
    return UNROLL_OK;
  }
  const int taken = pthread_mutex_lock(&lock);
  if (taken != 0)
    return fail_native(err, UNROLL_E_INVALID, taken, "%s: %s", p->what,
                       taken == EDEADLK ? "asked for by a product of eigenvalues' own"
                                        : "ARPACK's lock can't be taken");
  const unroll_status status = iterate(l, a, r, scale, p, err);
  pthread_mutex_unlock(&lock);
  return status;
}

unroll_status arnoldi_run(struct arnoldi *a, struct products *p, unroll_error *err) {
  struct arpack l;
  a->n_found = 0;
  TRY(arpack_open(&l, err));
  const uint64_t n = (uint64_t)p->a->columns, basis = (uint64_t)a->basis;
  struct room r = {.lworkl = 3 * a->basis * a->basis + 6 * a->basis};
  double *const memory = mem_array(NULL, 4 * n + (uint64_t)r.lworkl + 3 * basis, sizeof *memory);
  r.select = mem_array(NULL, basis, sizeof *r.select);
  unroll_status status;
  if (!memory || !r.select)
    status = fail(err, UNROLL_E_MEMORY, "%s: no memory for vectors of %lld numbers", p->what, (long long)n);
  else {
    r.resid = memory;
    r.workd = r.resid + n;
    r.workl = r.workd + 3 * n;
    r.workev = r.workl + r.lworkl;
    status = begin(&l, a, &r, p, err);
  }
  mem_free(NULL, memory);
  mem_free(NULL, r.select);
  return status;
}
