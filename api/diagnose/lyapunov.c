/* SPDX-License-Identifier: Apache-2.0 */
/* Lyapunov exponents: directions that are carried along by the Jacobians and made orthogonal again (Benettin et al. 1980). */
#include <math.h>
#include <string.h>
#include <unroll/philox.h>

#include "diagnose/lapack.h"
#include "diagnose/map.h"

#define BATCHES 20
#define LEAST_TURNING 10
#define FEW 4 /* a Jacobian of n numbers costs less than n products: its are sparse, and the rest is BLAS's */

struct walk {
  const unroll_map *map;
  int (*cancel)(void *ctx);
  void *ctx;
  struct lapack lapack;
  int64_t n, k, t;
  bool by_products;         /* a few directions go through the map without its Jacobian */
  double *state, *next, *J; /* of the caller; [n]; [n,n], or NULL */
  double *Q, *turned;       /* [k] columns of n */
  double *logs, *tau, *work;
  double *sums; /* [BATCHES,k] */
  int lwork;
  double condition;
};

/* t steps, with the directions or without. */
static unroll_status walk(struct walk *w, int64_t steps, bool turning, unroll_error *err) {
  for (int64_t i = 0; i < steps; i++, w->t++) {
    TRY(map_ask(w->cancel, w->ctx, err));
    if (turning && w->by_products)
      TRY(map_product(w->map, w->t, w->state, w->next, w->k, w->Q, w->turned, err));
    else
      TRY(map_step(w->map, w->t, w->state, w->next, turning ? w->J : NULL, err));
    memcpy(w->state, w->next, (size_t)w->n * sizeof *w->state);
    if (!turning)
      continue;
    if (!w->by_products)
      lapack_product(&w->lapack, w->turned, w->J, !w->map->columns, w->Q, false, w->n, w->k, w->n);
    double *const swap = w->Q;
    w->Q = w->turned;
    w->turned = swap;
  }
  return UNROLL_OK;
}

/* Q becomes orthonormal; logs [k]: ln|R_ii|. */
static unroll_status decompose(struct walk *w, unroll_error *err) {
  const int n = (int)w->n, k = (int)w->k;
  if (!lapack_all_finite(w->Q, w->n * w->k))
    return fail(err, UNROLL_E_RANGE, "lyapunov: a direction is past all numbers at step %lld: choose a smaller `every`",
                (long long)w->t);
  int info = w->lapack.dgeqrf(LAPACK_COLUMNS, n, k, w->Q, n, w->tau, w->work, w->lwork);
  double largest = 0, least = (double)INFINITY;
  for (int64_t i = 0; i < w->k; i++) {
    const double r = fabs(w->Q[i * w->n + i]);
    w->logs[i] = log(r);
    largest = fmax(largest, r);
    least = fmin(least, r);
  }
  w->condition = fmax(w->condition, largest / least);
  if (info == 0)
    info = w->lapack.dorgqr(LAPACK_COLUMNS, n, k, k, w->Q, n, w->tau, w->work, w->lwork);
  return info == 0 ? UNROLL_OK : fail(err, UNROLL_E_RANGE, "lyapunov: LAPACK's QR failed (%d)", info);
}

static unroll_status count(struct walk *w, const unroll_lyapunov_options *o, double *exponents, double *errors,
                           unroll_error *err) {
  const int64_t every = o->every > 0 ? o->every : 1, turning = o->transient / 10;
  TRY(walk(w, o->transient, false, err));
  const int64_t first = turning < LEAST_TURNING ? LEAST_TURNING : turning;
  for (int64_t done = 0; done < first;) {
    const int64_t now = first - done < every ? first - done : every;
    TRY(walk(w, now, true, err));
    TRY(decompose(w, err));
    done += now;
  }
  w->condition = 0;
  const int64_t decompositions = (o->steps + every - 1) / every;
  int64_t steps_of[BATCHES] = {0};
  for (int64_t d = 0; d < decompositions; d++) {
    const int64_t now = d + 1 < decompositions ? every : o->steps - d * every, batch = d * BATCHES / decompositions;
    TRY(walk(w, now, true, err));
    TRY(decompose(w, err));
    steps_of[batch] += now;
    for (int64_t i = 0; i < w->k; i++)
      w->sums[batch * w->k + i] += w->logs[i];
  }
  for (int64_t i = 0; i < w->k; i++) {
    double sum = 0, squares = 0;
    for (int b = 0; b < BATCHES; b++)
      sum += w->sums[b * w->k + i];
    exponents[i] = sum / (double)o->steps;
    for (int b = 0; b < BATCHES && errors && decompositions >= BATCHES; b++) {
      const double apart = w->sums[b * w->k + i] / (double)steps_of[b] - exponents[i];
      squares += apart * apart;
    }
    if (errors)
      errors[i] = decompositions >= BATCHES ? sqrt(squares / (BATCHES - 1) / BATCHES) : (double)NAN;
  }
  return UNROLL_OK;
}

static unroll_lyapunov_info describe(const struct walk *w, const double *exponents) {
  unroll_lyapunov_info info = {.struct_size = sizeof info, .dimension = (double)NAN, .condition = w->condition};
  bool found = false;
  for (int64_t i = 0; i < w->k; i++) {
    if (exponents[i] > 0)
      info.entropy += exponents[i];
    if (!found && info.sum + exponents[i] < 0) {
      info.dimension = (double)i + (i > 0 ? info.sum / -exponents[i] : 0);
      found = true;
    }
    info.sum += exponents[i];
  }
  if (!found && w->k == w->n)
    info.dimension = (double)w->n;
  return info;
}

static bool reserve(struct walk *w, const unroll_allocator *a, double **memory) {
  const uint64_t n = (uint64_t)w->n, k = (uint64_t)w->k;
  w->lwork = (int)(64 * w->k); /* LAPACK's usual block */
  const uint64_t parts[] = {n, w->by_products ? 0 : n * n, n * k, n * k, k, k, (uint64_t)w->lwork, BATCHES * k};
  double **const places[] = {&w->next, &w->J, &w->Q, &w->turned, &w->logs, &w->tau, &w->work, &w->sums};
  uint64_t all = 0;
  for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
    all += parts[i];
  *memory = mem_array(a, all, sizeof **memory);
  all = 0;
  for (size_t i = 0; i < sizeof parts / sizeof parts[0] && *memory; i++) {
    *places[i] = *memory + all;
    all += parts[i];
  }
  return *memory != NULL;
}

unroll_status unroll_lyapunov(const unroll_map *map, double *state, const unroll_lyapunov_options *o, double *exponents,
                              double *errors, unroll_lyapunov_info *info, unroll_error *err) {
  if (!map || !state || !o || !exponents)
    return fail(err, UNROLL_E_INVALID, "unroll_lyapunov: %s is NULL",
                !map     ? "map"
                : !state ? "state"
                : !o     ? "options"
                         : "exponents");
  if (o->struct_size < sizeof *o)
    return fail(err, UNROLL_E_INVALID, "unroll_lyapunov_options: struct_size %u, it must be at least %zu",
                o->struct_size, sizeof *o);
  if (o->count < 0 || o->count > map->n || o->transient < 0 || o->transient > INT64_MAX / 4 || o->steps < 1 ||
      o->steps > INT64_MAX / 4 / BATCHES || o->every < 0)
    return fail(err, UNROLL_E_INVALID,
                "lyapunov: count %lld of %lld, transient %lld, steps %lld, every %lld: one is out of its range",
                (long long)o->count, (long long)map->n, (long long)o->transient, (long long)o->steps,
                (long long)o->every);
  struct walk w = {.map = map, .cancel = o->cancel, .ctx = o->ctx, .n = map->n, .k = o->count > 0 ? o->count : map->n};
  w.state = state;
  w.by_products = map->product && w.k * FEW <= w.n;
  double *memory;
  TRY(lapack_open(&w.lapack, err));
  if (!reserve(&w, &map->allocator, &memory))
    return fail(err, UNROLL_E_MEMORY, "lyapunov: no memory for %lld directions of %lld numbers", (long long)w.k,
                (long long)w.n);
  const unroll_philox_key key = unroll_philox_site_key(o->seed, 0, 0);
  for (int64_t i = 0; i < w.n * w.k; i++)
    w.Q[i] = unroll_normal(key, (unroll_u64)(i / w.n), 0, (unroll_u32)(i % w.n));
  unroll_status status = decompose(&w, err);
  if (status == UNROLL_OK)
    status = count(&w, o, exponents, errors, err);
  if (status == UNROLL_OK && info)
    *info = describe(&w, exponents);
  mem_free(&map->allocator, memory);
  return status;
}
