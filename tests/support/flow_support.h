/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of the flow of gradients share. */
#ifndef FLOW_SUPPORT_H
#define FLOW_SUPPORT_H
#include "devices.h"
#include <math.h>
#include <stdlib.h>
#include <unroll/philox.h>

/* Relative to the number itself, or to `least` where it is smaller. */
static inline void assert_near(const char *what, int64_t at, double got, double want, double tolerance, double least) {
  if (!(fabs(got - want) <= tolerance * fmax(fabs(want), least)))
    fail_msg("%s at %lld: %.17g, expected %.17g within %g", what, (long long)at, got, want, tolerance);
}

/* To be freed. */
static inline double *numbers(uint32_t seed, int64_t n, double scale) {
  double *x = malloc((size_t)n * sizeof *x);
  assert_non_null(x);
  const unroll_philox_key key = unroll_philox_site_key(seed, 0, 0);
  for (int64_t i = 0; i < n; i++)
    x[i] = scale * unroll_normal(key, 0, 0, (uint32_t)i);
  return x;
}
#endif
