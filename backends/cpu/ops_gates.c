/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pointwise half of one step of a cell. B rows of H units; blocks of a row in the order that stands beside each op.
 * An absent input counts as 0, an absent output is not written. Each element is read before it is written, so that an
 * output may lie over the input of its shape.
 */
#include "cpu_ops.h"
#include "realmath.h"

typedef struct gates {
  const cpu_call *call;
  int64_t B, H;
} gates;

/* Rows in ranges; state names the input [..,H]. */
static void gates_run(const cpu_call *c, uint32_t state, cpu_range_fn rows) {
  const cpu_operand *s = cpu_in(c, state);
  const gates g = {c, cpu_count(s, 0, s->rank - 1), s->size[s->rank - 1]};
  cpu_pool_ranges(c->pool, g.B, 32 * g.H, rows, &g);
}

#include "as_f32.inc"
#include "ops_gates.inc"

#include "as_f64.inc"
#include "ops_gates.inc"
