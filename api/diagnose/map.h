/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MAP_H
#define MAP_H
#include <unroll/diagnose.h>

#include "base/base_private.h"

struct unroll_map {
  unroll_allocator allocator;
  int64_t n;
  unroll_map_fn step;
  void *ctx;
  bool columns; /* step writes the Jacobian column by column */
  /* Like step, with V, w [count,n]: w = J·v of each row v of V. NULL: there is none but by the whole Jacobian. */
  unroll_status (*product)(void *ctx, int64_t t, const double *state, double *next, int64_t count, const double *V,
                           double *w, unroll_error *err);
  void (*release)(void *ctx); /* NULL: it is the caller's */
};
/* unroll_map_step, with the Jacobian as map->columns says. */
unroll_status map_step(const unroll_map *map, int64_t t, const double *state, double *next, double *jacobian,
                       unroll_error *err);
unroll_status map_ask(int (*cancel)(void *ctx), void *ctx, unroll_error *err);
/* Of a map with products: their step. */
unroll_status map_product(const unroll_map *map, int64_t t, const double *state, double *next, int64_t count,
                          const double *V, double *w, unroll_error *err);
#endif
