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
  void (*release)(struct unroll_map *map); /* of ctx; NULL: it is the caller's */
};
#endif
