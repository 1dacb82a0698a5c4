/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layer_group_forward.cl: steps of a recurrence for GPUs: many in a launch, or one phase of one (see layer_group.cl). Arguments
 * are those of layer_forward.cl, HOISTED, with the panels of W_h in blocks of LANES units; PERSISTENT, those of meet.
 *
 * What an item stores for a row and a unit nobody else reads in the same launch, except from local memory. So it reads its
 * own h and c of the step before, like x, before the product, which hides the wait for them.
 */
#define COLUMNS (PHASES == 2 ? 2 : GATES)
#define COLUMNS_OF(phase) PHASE_GATES(phase)
#include "layer_group.cl"
#ifndef SAVE
#define SAVE 0
#endif

typedef struct job {
  const __global real *x, *inner_bias, *h0, *c0;
  const __global panel *r;
  const __global int *lengths;
  __global real *y, *h_last, *c_last, *states, *cells, *kept;
  long T, B, H, S, reverse, b0, blocks;
  int rows, longest;
} job;

/* Where the panels of a block and phase start, for this item's unit. */
INLINE const __global panel *panels_of(const job *w, const item *me, const int phase, long block) {
  const long columns = (GATES_BEFORE(phase) * w->blocks + min(block, w->blocks - 1) * PHASE_GATES(phase)) * LANES;
  return w->r + columns * w->H + me->lane;
}

/*
 * A phase of step i for one block. next: where the following product finds its rows, of units; NULL unless WHOLE. own: see
 * product.
 */
INLINE void walk(const job *w, const item *me, const int phase, long i, long block, __local real4 *a,
                 __local real *next, const held *own, __local real *shared) {
  const long H = w->H, S = w->S, t = w->reverse ? w->T - 1 - i : i, unit = block * LANES + me->lane;
  const long before = ((SAVE ? (w->reverse ? t + 1 : t) : i & 1) * w->B + w->b0) * S;
  const long after = ((SAVE ? (w->reverse ? t : t + 1) : (i + 1) & 1) * w->B + w->b0) * S;
  const long prev_row = i ? S : H;
  const __global real *h_before = i ? w->states + before : w->h0 + w->b0 * H;
  const __global real *x = w->x + (t * w->B + w->b0) * GATES * H + unit;
  __global real *keep_at = w->kept + (SAVE ? t * w->B + w->b0 : w->b0) * KEEP * S;
  real sum[OWN * SUMS], h_prev[OWN], c_prev[OWN], keep[OWN * KEPT];
  bool active[OWN];
#if HAVE_CELL
  const __global real *c_before = i ? w->cells + (SAVE ? before : w->b0 * S) : w->c0 + w->b0 * H;
#endif

#pragma unroll
  for (int o = 0; o < OWN; o++) {
    const int row = own_row(me, o);
    active[o] = row < w->rows && unit < H;
#pragma unroll
    for (int s = 0; s < SUMS; s++)
      sum[o * SUMS + s] = 0;
    h_prev[o] = c_prev[o] = 0;
#pragma unroll
    for (int k = 0; k < KEPT; k++)
      keep[o * KEPT + k] = 0;
    if (active[o]) {
#pragma unroll
      for (int g = 0; g < PHASE_GATES(phase); g++)
        sum[o * SUMS + X_SUM + g] = x[row * GATES * H + (GATES_BEFORE(phase) + X_GATE(g)) * H];
#if CELL == 4
      sum[o * SUMS + 3] = w->inner_bias[unit];
#endif
      h_prev[o] = h_before[row * prev_row + unit];
#if HAVE_CELL
      c_prev[o] = c_before[row * prev_row + unit];
#endif
#if PHASES == 2
      if (phase == 1)
        keep[o * KEPT + 1] = keep_at[row * KEEP * S + S + unit];
#endif
#if HAVE_LENGTHS
      active[o] = t < w->lengths[row];
#endif
    }
  }

  const int K = HAVE_LENGTHS && t >= w->longest ? 0 : (int)H;
  product(me, PHASE_GATES(phase), sum + H_SUM, SUMS, a, phase ? keep_at + 3 * S : h_before, phase ? KEEP * S : prev_row,
          w->rows, panels_of(w, me, phase, block), K, HELD(phase), own, shared);

#pragma unroll
  for (int o = 0; o < OWN; o++) {
    const int row = own_row(me, o);
    const long at = row * S + unit;
    if (row >= w->rows || unit >= H)
      continue;
    __global real *kept = keep_at + row * KEEP * S + unit;
    real h = h_prev[o], c = c_prev[o], *k = keep + o * KEPT;
    if (active[o])
      h = cell_forward(phase, sum + o * SUMS, h_prev[o], c_prev[o], &c, k);
    else
#pragma unroll
      for (int n = 0; n < KEPT; n++)
        k[n] = 0;
#if PHASES == 2
    if (phase == 0) {
      kept[S] = k[1];
#if SAVE || !WHOLE
      kept[0] = k[0];
      kept[3 * S] = k[3];
#endif
      if (next)
        next[row * A_ROW * 4 + unit] = k[3];
      continue;
    }
    if (SAVE)
      kept[2 * S] = k[2];
#elif SAVE
#pragma unroll
    for (int n = 0; n < KEEP; n++)
      kept[n * S] = k[n];
#endif
    w->states[after + at] = h;
    if (next)
      next[row * A_ROW * 4 + unit] = h;
    if (SAVE && i == 0)
      w->states[before + at] = h_prev[o];
    if (w->y)
      w->y[((t * w->B + w->b0) + row) * H + unit] = active[o] ? h : (real)0;
    if (w->h_last && i == w->T - 1)
      w->h_last[(w->b0 + row) * H + unit] = h;
#if HAVE_CELL
    w->cells[(SAVE ? after : w->b0 * S) + at] = c;
    if (SAVE && i == 0)
      w->cells[before + at] = c_prev[o];
    if (w->c_last && i == w->T - 1)
      w->c_last[(w->b0 + row) * H + unit] = c;
#endif
  }
}

__kernel __attribute__((reqd_work_group_size(ITEMS, 1, 1))) void
forward(const __global real *x, long x_at, const __global panel *w, long w_at, const __global panel *restrict r,
        long r_at, const __global real *bias, long bias_at, const __global real *inner_bias, long inner_bias_at,
        const __global real *h0, long h0_at, const __global real *c0, long c0_at, const __global int *lengths,
        long lengths_at, __global real *y, long y_at, __global real *h_last, long h_last_at, __global real *c_last,
        long c_last_at, __global real *states, long states_at, __global real *cells, long cells_at, __global real *kept,
        long kept_at, long T, long B, long I, long H, long S, long reverse, long item_blocks, long first,
        long count MEETING_ARGS) {
  __local real4 a[WHOLE ? 2 : 1][ROWS * A_ROW];
  __local real shared[SHARED];
#if PERSISTENT
  __local int told;
  if (count == 0) {
    rehearse(meeting + meeting_at, spins, &told);
    return;
  }
#endif
  const item me = this_item();
  const long blocks = (H + LANES - 1) / LANES, parts = (blocks + item_blocks - 1) / item_blocks;
  const long group = (long)get_group_id(0), piece = group / parts, block0 = (group - piece * parts) * item_blocks;
  job j = {.x = x + x_at,
           .r = r + r_at,
           .inner_bias = inner_bias + inner_bias_at,
           .h0 = h0 + h0_at,
           .c0 = c0 + c0_at,
           .y = y ? y + y_at : 0,
           .h_last = h_last ? h_last + h_last_at : 0,
           .c_last = c_last ? c_last + c_last_at : 0,
           .states = states + states_at,
           .cells = cells + cells_at,
           .kept = kept + kept_at,
           .T = T,
           .B = B,
           .H = H,
           .S = S,
           .reverse = reverse,
           .b0 = piece * ROWS,
           .blocks = blocks};
  j.rows = (int)min((long)ROWS, B - j.b0);
#if HAVE_LENGTHS
  j.lengths = lengths + lengths_at + j.b0;
  j.longest = longest(j.lengths, j.rows);
#endif

#if WHOLE
  /* One phase: the halves of a take turns. Two: the first is h, the second r h. */
  __local real *h = (__local real *)a[PHASES == 2 ? 0 : first & 1];
  if (first == 0)
    stage(h, j.h0 + j.b0 * H, H, j.rows, (int)H);
  else {
    const long t = reverse ? T - 1 - first : first;
    stage(h, j.states + ((SAVE ? (reverse ? t + 1 : t) : first & 1) * B + j.b0) * S, S, j.rows, (int)H);
  }
  __local real *other = (__local real *)a[PHASES == 2 ? 1 : (first + 1) & 1];
  stage(other, 0, 0, 0, A_ROW * 4);
  barrier(CLK_LOCAL_MEM_FENCE);
  for (long i = first; i < first + count; i++) {
    const int from = PHASES == 2 ? 0 : (int)(i & 1);
    for (long block = 0; block < blocks; block += BLOCK_TEAMS)
      walk(&j, &me, 0, i, block + me.block, a[from], (__local real *)a[1 - from], 0, shared);
    barrier(CLK_LOCAL_MEM_FENCE);
#if PHASES == 2
    for (long block = 0; block < blocks; block += BLOCK_TEAMS)
      walk(&j, &me, 1, i, block + me.block, a[1], (__local real *)a[0], 0, shared);
    barrier(CLK_LOCAL_MEM_FENCE);
#endif
  }
#elif PERSISTENT
  held own[HELD_VALUES(0)];
  hold(COLUMNS_OF(0), HELD(0), own, panels_of(&j, &me, 0, block0), me.split, (int)H);
#if PHASES == 2
  held own_next[HELD_VALUES(1)];
  hold(COLUMNS_OF(1), HELD(1), own_next, panels_of(&j, &me, 1, block0), me.split, (int)H);
#endif
  bool on = true;
  for (long i = first; i < first + count && on; i++) {
    walk(&j, &me, 0, i, block0, a[0], 0, own, shared);
#if PHASES == 2
    meet(meeting + meeting_at, spins, &told);
    walk(&j, &me, 1, i, block0, a[0], 0, own_next, shared);
#endif
    on = meet(meeting + meeting_at, spins, &told);
  }
#else
  walk(&j, &me, PHASE, first, block0 + me.block, a[0], 0, 0, shared);
#endif
}
