/* SPDX-License-Identifier: Apache-2.0 */
/* Ops over the last axis of their input, row by row, and embeddings. */
#include "cpu_ops.h"
#include "realmath.h"
#include <string.h>
#include <unroll/philox.h>

typedef struct rows {
  const cpu_call *call;
  int64_t V; /* size of a row */
} rows;

/* Over the rows of input 0. */
static void rows_run(const cpu_call *c, int64_t cost, cpu_range_fn fn) {
  const cpu_operand *x = cpu_in(c, 0);
  const rows r = {c, x->size[x->rank - 1]};
  cpu_pool_ranges(c->pool, cpu_count(x, 0, x->rank - 1), cost * r.V, fn, &r);
}

/* Doubles by unsigned integers that ascend with them: what lies above infinity or below -infinity is NaN. */
static double value_of_key(uint64_t key) {
  const uint64_t sign = UINT64_C(1) << 63, bits = key & sign ? key ^ sign : ~key;
  double value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

#include "as_f32.inc"
#include "ops_rows.inc"

#include "as_f64.inc"
#include "ops_rows.inc"
