/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LEADING_H
#define LEADING_H
#include <unroll/diagnose.h>

/* The spectral radius of a large matrix without all of its eigenvalues. Not UNROLL_OK: it is not to be known this way. */
unroll_status leading_radius(const double *a, int64_t n, double *radius, unroll_error *err);
#endif
