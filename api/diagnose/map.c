/* SPDX-License-Identifier: Apache-2.0 */
#include "diagnose/map.h"

#include <math.h>

#include "diagnose/lapack.h"

unroll_status unroll_map_create(int64_t n, unroll_map_fn step, void *ctx, const unroll_allocator *allocator,
                                unroll_map **out, unroll_error *err) {
  if (!step || !out)
    return fail(err, UNROLL_E_INVALID, "unroll_map_create: %s is NULL", step ? "map" : "step");
  if (n < 1 || n > LAPACK_MAX_ROWS)
    return fail(err, UNROLL_E_INVALID, "map: of %lld numbers, it must be from 1 to %d", (long long)n, LAPACK_MAX_ROWS);
  unroll_map *map = mem_zalloc(allocator, sizeof *map);
  if (!map)
    return fail(err, UNROLL_E_MEMORY, "map: no memory");
  if (allocator)
    map->allocator = *allocator;
  map->n = n;
  map->step = step;
  map->ctx = ctx;
  *out = map;
  return UNROLL_OK;
}

void unroll_map_destroy(unroll_map *map) {
  if (!map)
    return;
  if (map->release)
    map->release(map->ctx);
  const unroll_allocator allocator = map->allocator;
  mem_free(&allocator, map);
}

int64_t unroll_map_count(const unroll_map *map) { return map ? map->n : 0; }

static unroll_status check_next(const unroll_map *map, int64_t t, const double *next, unroll_error *err) {
  for (int64_t i = 0; i < map->n; i++)
    if (!isfinite(next[i]))
      return fail(err, UNROLL_E_RANGE, "map: number %lld is %g after step %lld", (long long)i, next[i], (long long)t);
  return UNROLL_OK;
}

unroll_status map_ask(int (*cancel)(void *ctx), void *ctx, unroll_error *err) {
  return cancel && cancel(ctx) ? fail(err, UNROLL_E_CANCELLED, "cancelled") : UNROLL_OK;
}

unroll_status map_step(const unroll_map *map, int64_t t, const double *state, double *next, double *jacobian,
                       unroll_error *err) {
  TRY(map->step(map->ctx, t, state, next, jacobian, err));
  TRY(check_next(map, t, next, err));
  if (jacobian && !lapack_all_finite(jacobian, map->n * map->n))
    return fail(err, UNROLL_E_RANGE, "map: the Jacobian of step %lld is not finite", (long long)t);
  return UNROLL_OK;
}

unroll_status map_product(const unroll_map *map, int64_t t, const double *state, double *next, int64_t count,
                          const double *V, double *w, unroll_error *err) {
  TRY(map->product(map->ctx, t, state, next, count, V, w, err));
  return check_next(map, t, next, err);
}

unroll_status unroll_map_step(const unroll_map *map, int64_t t, const double *state, double *next, double *jacobian,
                              unroll_error *err) {
  if (!map || !state || !next)
    return fail(err, UNROLL_E_INVALID, "unroll_map_step: %s is NULL", !map ? "map" : !state ? "state" : "next");
  TRY(map_step(map, t, state, next, jacobian, err));
  for (int64_t i = 0; i < map->n && jacobian && map->columns; i++)
    for (int64_t j = 0; j < i; j++) {
      const double kept = jacobian[i * map->n + j];
      jacobian[i * map->n + j] = jacobian[j * map->n + i];
      jacobian[j * map->n + i] = kept;
    }
  return UNROLL_OK;
}
