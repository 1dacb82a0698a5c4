/* SPDX-License-Identifier: Apache-2.0 */
/* What the plugin of tests/plugins/counting.c has counted. */
#ifndef COUNTS_H
#define COUNTS_H
#include <unroll/plugin.h>

typedef struct counting_count {
  int64_t runs, flops, transcendental, read, written;
} counting_count;
typedef struct counting_counts {
  counting_count of[UNROLL_OP_END];
} counting_counts;
/* By op, of all runs since they were set to 0. One thread runs at a time. */
__attribute__((visibility("default"))) extern counting_counts counting_of_ops;
#endif
