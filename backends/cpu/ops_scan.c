/* SPDX-License-Identifier: Apache-2.0 */
/* Linear recurrences over time: a strip of neighbouring lanes of [B,..] at a time, one step after another. */
#include "cpu_ops.h"

#define STRIP 2048 /* lanes: pieces of rows that are long enough to be read at the memory's speed */

typedef struct linear_scan {
  const cpu_call *call;
  int64_t T, lanes, per_row; /* lanes of a row b of the batch */
  bool reverse;
  const int32_t *lengths; /* or NULL */
} linear_scan;

static void strips_run(const cpu_call *c, uint32_t lengths, cpu_range_fn fn) {
  const cpu_operand *a = cpu_in(c, 0);
  const linear_scan s = {.call = c,
                         .T = a->size[0],
                         .lanes = cpu_count(a, 1, a->rank),
                         .per_row = cpu_count(a, 2, a->rank),
                         .reverse = c->node->attr.linear_scan.direction == UNROLL_REVERSE,
                         .lengths = cpu_in_data(c, lengths)};
  cpu_pool_ranges(c->pool, (s.lanes + STRIP - 1) / STRIP, 4 * STRIP * (s.T > 0 ? s.T : 1), fn, &s);
}

/* Steps that lane i takes part in: 0..T. */
static int64_t steps_of(const linear_scan *s, int64_t i) {
  const int64_t n = s->lengths ? s->lengths[i / s->per_row] : s->T;
  return n < 0 ? 0 : n > s->T ? s->T : n;
}

#include "as_f32.inc"
#include "ops_scan.inc"

#include "as_f64.inc"
#include "ops_scan.inc"
