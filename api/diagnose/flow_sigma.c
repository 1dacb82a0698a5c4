/* SPDX-License-Identifier: Apache-2.0 */
/* flow_sigma.c: the largest singular value of J by Lanczos's iteration of JᵀJ, of many rows at once. */
#include "diagnose/flow_private.h"

#include <math.h>
#include <string.h>
#include <unroll/philox.h>

#include "diagnose/lanczos.h"
#include "diagnose/products.h"

enum { FIRST_SITE = 1 }; /* of the first vectors */

static void first_vectors(const flow_rows *r, double *v) {
  const unroll_philox_key key = unroll_philox_site_key(r->t->o.seed, 0, FIRST_SITE);
  for (int64_t i = 0; i < r->rows; i++) {
    double *x = v + i * r->N;
    for (int64_t k = 0; k < r->N; k++)
      x[k] = unroll_normal(key, (unroll_u64)(r->layer * 2 + r->direction), (unroll_u32)i, (unroll_u32)k);
    const double norm = sqrt(vector_dot(x, x, r->N));
    for (int64_t k = 0; k < r->N; k++)
      x[k] /= norm;
  }
}

static unroll_status iterate(flow_rows *r, lanczos *all, int m, double *v, double *w, double *norm, unroll_error *err) {
  const int64_t N = r->N;
  const double tolerance = r->t->o.tolerance;
  bool more = true;
  first_vectors(r, v);
  for (int j = 0; j < m && more; j++) {
    for (int64_t i = 0; i < r->rows; i++)
      if (!all[i].done)
        memcpy(all[i].v + j * N, v + i * N, (size_t)N * sizeof *v);
    TRY(flow_rows_product(r, v, norm, w, err));
    more = false;
    for (int64_t i = 0; i < r->rows; i++) {
      lanczos *l = &all[i];
      if (l->done)
        continue;
      l->done = lanczos_step(l, j, N, norm[i], w + i * N, tolerance);
      for (int64_t k = 0; k < N && !l->done; k++)
        v[i * N + k] = w[i * N + k] / l->beta[j];
      more = more || !l->done;
    }
  }
  return UNROLL_OK;
}

unroll_status flow_sigma(flow_rows *r, double *sigma, double *error, unroll_error *err) {
  const int64_t N = r->N, R = r->rows;
  const int m = r->t->o.iterations < N ? r->t->o.iterations : (int)N;
  lanczos *const all = mem_array(NULL, (uint64_t)R, sizeof *all);
  double *const numbers = mem_array(NULL, (uint64_t)R * (uint64_t)((m + 2) * N + 2 * m + 1), sizeof *numbers);
  unroll_status status = UNROLL_OK;
  if (!all || !numbers)
    status = fail(err, UNROLL_E_MEMORY, "no memory for the singular values of %lld products", (long long)R);
  else {
    double *at = numbers + R * (2 * N + 1);
    for (int64_t i = 0; i < R; i++, at += m * N + 2 * m)
      all[i] = (lanczos){.v = at, .alpha = at + m * N, .beta = at + m * N + m};
    status = iterate(r, all, m, numbers, numbers + R * N, numbers + 2 * R * N, err);
  }
  for (int64_t i = 0; i < R && status == UNROLL_OK; i++) {
    sigma[i] = all[i].sigma;
    error[i] = all[i].error;
  }
  mem_free(NULL, all);
  mem_free(NULL, numbers);
  return status;
}
