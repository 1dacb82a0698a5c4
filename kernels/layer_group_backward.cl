/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layer_group_backward.cl: steps of the gradient of a recurrence for GPUs, last step first: many in a launch, or one phase of
 * one (see layer_group.cl). Arguments are those of layer_backward.cl, with the panels of W_hᵀ in blocks of LANES units;
 * PERSISTENT, those of meet.
 *
 * WHOLE: a row in local memory is the gates of a step on W_h's side, as d_hidden has them; but with two phases those of n
 * start at a multiple of four. There are BUFFERS of them: with two, steps take turns; with one, a barrier more keeps the
 * gates of the later step until all have multiplied them, so it takes a group that has all its blocks in one round.
 */
#define COLUMNS 1
#define COLUMNS_OF(phase) 1
#include "layer_group.cl"
#ifndef BUFFERS
#define BUFFERS 2
#endif
#define HAVE_CARRY (CELL >= 3 || HAVE_LENGTHS)
#define LOADS_LATE (FEW_REGISTERS && OWN >= 4) /* after the product, which hides no wait for them then */

typedef struct job {
  const __global panel *rt;
  const __global real *dy, *dh_last, *dc_last, *states, *cells, *kept;
  const __global int *lengths;
  __global real *d, *d_hidden, *carry, *dc, *dh0, *dc0;
  long T, B, H, S, D, reverse, b0, blocks;
  int rows, longest;
} job;

/* What a row's unit needs of its step, besides the product. */
typedef struct values {
  real keep[KEPT], h, h_prev, c, c_prev, dc, dh, dy;
  bool active;
} values;

/* The gradient that reaches the h and c of step j besides the product. */
INLINE void load_gradient(values *v, const job *w, const int phase, long j, long t, long row, long unit) {
  const long at = row * w->S + unit;
  *v = (values){.active = row < w->rows && unit < w->H};
  if (!v->active)
    return;
#if HAVE_CELL
  if (j > 0)
    v->dc = w->dc[w->b0 * w->S + at];
  else if (w->dc_last)
    v->dc = w->dc_last[(w->b0 + row) * w->H + unit];
#endif
  if (phase == 0 && j == 0 && w->dh_last)
    v->dh = w->dh_last[(w->b0 + row) * w->H + unit];
#if HAVE_CARRY
  if (phase == 0 && j > 0)
    v->dh = w->carry[w->b0 * w->S + at];
#endif
#if HAVE_LENGTHS
  v->active = j < w->T && t < w->lengths[row];
#else
  v->active = j < w->T;
#endif
}

/* What was kept of the step, and the gradient of its output: finish adds that after the product. */
INLINE void load_kept(values *v, const job *w, const int phase, long t, long row, long unit) {
  if (!v->active)
    return;
  if (phase == 0 && w->dy)
    v->dy = w->dy[(t * w->B + w->b0 + row) * w->H + unit];
  const long at = row * w->S + unit;
  const long before = ((w->reverse ? t + 1 : t) * w->B + w->b0) * w->S + at;
  const long after = ((w->reverse ? t : t + 1) * w->B + w->b0) * w->S + at;
  const __global real *kept = w->kept + (t * w->B + w->b0 + row) * KEEP * w->S + unit;
#pragma unroll
  for (int i = 0; i < KEEP; i++)
    v->keep[i] = kept[i * w->S];
  v->h = w->states[after];
  v->h_prev = w->states[before];
#if HAVE_CELL
  v->c = w->cells[after];
  v->c_prev = w->cells[before];
#endif
}

/* From dh, the gradient of the step's state, to those of its gates. to: this row in local memory, NULL unless WHOLE. */
INLINE void finish(const job *w, const int phase, long j, long t, long row, long unit, values *v, real dh,
                   __local real *to) {
  const long H = w->H, at = (w->b0 + row) * w->S + unit, last = (w->b0 + row) * H + unit;
  if (row >= w->rows || unit >= H)
    return;
  if (j == w->T) {
    if (phase == 1)
      return;
    if (w->dh0)
      w->dh0[last] = dh;
#if HAVE_CELL
    if (w->dc0)
      w->dc0[last] = v->dc;
#endif
    return;
  }
  __global real *d_at = w->d + (t * w->B + w->b0 + row) * w->D + unit;
  real d[GATES], inner = 0, carry = dh;
#pragma unroll
  for (int g = 0; g < GATES; g++)
    d[g] = 0;
  if (v->active && phase == 0) /* after the product: then a sequence may be cut before any step */
    carry = dh += v->dy;
  if (v->active)
    carry = cell_backward(phase, dh, &v->dc, v->keep, v->h, v->h_prev, v->c, v->c_prev, d, &inner);
#if HAVE_CELL
  w->dc[at] = v->dc;
#endif
#if PHASES == 2
  if (phase == 1) {
    d_at[0] = d[0];
    if (to)
      to[unit] = d[0];
    if (v->active)
      w->carry[at] += carry;
    return;
  }
  d_at[H] = d[1];
  d_at[2 * H] = d[2];
  if (to) {
    to[H + unit] = d[1];
    to[(2 * H + 3) / 4 * 4 + unit] = d[2];
  }
#else
#pragma unroll
  for (int g = 0; g < GATES; g++)
    d_at[g * H] = d[g];
#if CELL == 4
  __global real *inner_at = w->d_hidden + (t * w->B + w->b0 + row) * w->D + unit;
  d[2] = inner;
#pragma unroll
  for (int g = 0; g < GATES; g++)
    inner_at[g * H] = d[g];
#endif
  if (to)
#pragma unroll
    for (int g = 0; g < GATES; g++)
      to[g * H + unit] = d[g];
#endif
#if HAVE_CARRY
  w->carry[at] = carry;
#endif
}

/* Values of k that a phase's product has, and where its panels of a block start, for this item's unit. */
INLINE long depth_of(const job *w, const int phase) {
  return PHASES == 1 ? GATES * w->H : phase == 0 ? 2 * w->H : w->H;
}

INLINE const __global panel *panels_of(const job *w, const item *me, const int phase, long block) {
  const __global panel *panels = w->rt + (phase ? 2 * w->H * w->blocks : 0) * LANES;
  return panels + min(block, w->blocks - 1) * depth_of(w, phase) * LANES + me->lane;
}

/*
 * A phase of step j for one block. a: the gates that the product multiplies, or where they are staged; next as finish has
 * it, own as product.
 */
INLINE void walk(const job *w, const item *me, const int phase, long j, long block, __local real4 *a,
                 __local real *next, const held *own, __local real *shared) {
  const long H = w->H, t = w->reverse ? j : w->T - 1 - j, later = w->reverse ? t - 1 : t + 1;
  const long unit = block * LANES + me->lane;
  values v[OWN];
  real sum[OWN];
#pragma unroll
  for (int o = 0; o < OWN; o++) {
    load_gradient(&v[o], w, phase, j, t, own_row(me, o), unit);
#if !LOADS_LATE
    load_kept(&v[o], w, phase, t, own_row(me, o), unit);
#endif
    sum[o] = v[o].dh;
  }

  /* In phase 1 n of this step, else the gates of the step after it. */
  const long step = ((phase == 1 ? t : later) * w->B + w->b0) * w->D;
  bool fed = phase == 1 ? j < w->T : j > 0;
#if HAVE_LENGTHS
  fed = fed && (phase == 1 ? t : later) < w->longest;
#endif
  product(me, 1, sum, 1, a, w->d_hidden + step + (phase == 1 ? 2 * H : 0), w->D, w->rows,
          panels_of(w, me, phase, block), fed ? (int)depth_of(w, phase) : 0, HELD(phase), own, shared);
#if WHOLE && BUFFERS == 1 && SPLITS == 1 /* else the splits met after their last value of k */
  barrier(CLK_LOCAL_MEM_FENCE);
#endif

#pragma unroll
  for (int o = 0; o < OWN; o++) {
    const int row = own_row(me, o);
#if LOADS_LATE
    load_kept(&v[o], w, phase, t, row, unit);
#endif
    finish(w, phase, j, t, row, unit, &v[o], sum[o], next ? next + row * A_ROW * 4 : 0);
  }
}

__kernel __attribute__((reqd_work_group_size(ITEMS, 1, 1))) void
backward(const __global panel *restrict rt, long rt_at, const __global int *lengths, long lengths_at,
         const __global real *dy, long dy_at, const __global real *dh_last, long dh_last_at,
         const __global real *dc_last, long dc_last_at, const __global real *states, long states_at,
         const __global real *cells, long cells_at, const __global real *kept, long kept_at, __global real *d,
         long d_at, __global real *d_hidden, long d_hidden_at, __global real *carry, long carry_at, __global real *dc,
         long dc_at, __global real *dh0, long dh0_at, __global real *dc0, long dc0_at, long D, long T, long B, long I,
         long H, long S, long reverse, long item_blocks, long first, long count MEETING_ARGS) {
  __local real4 a[WHOLE ? BUFFERS : 1][ROWS * A_ROW];
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
  job w = {.rt = rt + rt_at,
           .dy = dy ? dy + dy_at : 0,
           .dh_last = dh_last ? dh_last + dh_last_at : 0,
           .dc_last = dc_last ? dc_last + dc_last_at : 0,
           .states = states + states_at,
           .cells = cells + cells_at,
           .kept = kept + kept_at,
           .d = d + d_at,
           .d_hidden = d_hidden + d_hidden_at,
           .carry = carry + carry_at,
           .dc = dc + dc_at,
           .dh0 = dh0 ? dh0 + dh0_at : 0,
           .dc0 = dc0 ? dc0 + dc0_at : 0,
           .T = T,
           .B = B,
           .H = H,
           .S = S,
           .D = D,
           .reverse = reverse,
           .b0 = piece * ROWS,
           .blocks = blocks};
  w.rows = (int)min((long)ROWS, B - w.b0);
#if HAVE_LENGTHS
  w.lengths = lengths + lengths_at + w.b0;
  w.longest = longest(w.lengths, w.rows);
#endif

#if WHOLE
  for (int n = 0; n < BUFFERS; n++)
    stage((__local real *)a[n], 0, 0, 0, A_ROW * 4);
  if (first > 0) {
    const long later = reverse ? first - 1 : T - first;
    barrier(CLK_LOCAL_MEM_FENCE);
    stage((__local real *)a[(first + 1) % BUFFERS], w.d_hidden + (later * B + w.b0) * D, D, w.rows,
          (int)(PHASES == 2 ? 2 * H : GATES * H));
  }
  barrier(CLK_LOCAL_MEM_FENCE);
  for (long j = first; j < first + count; j++) {
    __local real4 *now = a[j % BUFFERS];
    for (long block = 0; block < blocks; block += BLOCK_TEAMS)
      walk(&w, &me, 0, j, block + me.block, a[(j + 1) % BUFFERS], (__local real *)now, 0, shared);
    barrier(CLK_LOCAL_MEM_FENCE);
#if PHASES == 2
    if (j < T) {
      for (long block = 0; block < blocks; block += BLOCK_TEAMS)
        walk(&w, &me, 1, j, block + me.block, now + (2 * H + 3) / 4, (__local real *)now, 0, shared);
      barrier(CLK_LOCAL_MEM_FENCE);
    }
#endif
  }
#elif PERSISTENT
  held own[HELD_VALUES(0)];
  hold(1, HELD(0), own, panels_of(&w, &me, 0, block0), me.split, (int)depth_of(&w, 0));
#if PHASES == 2
  held own_next[HELD_VALUES(1)];
  hold(1, HELD(1), own_next, panels_of(&w, &me, 1, block0), me.split, (int)depth_of(&w, 1));
#endif
  bool on = true;
  for (long j = first; j < first + count && on; j++) {
    walk(&w, &me, 0, j, block0, a[0], 0, own, shared);
#if PHASES == 2
    meet(meeting + meeting_at, spins, &told);
    walk(&w, &me, 1, j, block0, a[0], 0, own_next, shared);
#endif
    on = meet(meeting + meeting_at, spins, &told);
  }
#else
  walk(&w, &me, PHASE, first, block0 + me.block, a[0], 0, 0, shared);
#endif
}
