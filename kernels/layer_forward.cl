/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layer_forward.cl: steps of a recurrence in one launch, for CPU devices. An item owns item_rows rows (ITEM_ROWS at most) of the batch and
 * some blocks of units, and walks over the steps. With all blocks it needs nobody else, and a launch may be a whole
 * sequence; with some, a launch is one step (of one phase), since the next one needs every h of this one.
 *
 *   x        [T][B][I], or, HOISTED, x·W_xᵀ + b for all steps: [T][B][GATES·H]
 *   w, r     panels of layer_pack.cl of W_x (not HOISTED) and W_h; those of a second phase follow those of the first
 *   states   [2 or T+1][B][S], h by step; S is H rounded up to whole blocks. With SAVE it is the history for the gradient,
 *            whose slot t (reverse: t+1) is the state before step t; else the two halves take turns
 *   cells    likewise c, but one slot without SAVE
 *   kept     [T or 1][B][KEEP][S]: what the gradient, or the second phase, needs of each step
 *   y        [T][B][H] or NULL; h_last, c_last [B][H] or NULL
 *   fed      with H_MASK, what W_h is multiplied with, m⊙h: [2][B][S], whose halves take turns, then [B][H], m⊙h0; kept's
 *            rh is m⊙rh then
 *   zone_h, zone_c  with ZONE_H, ZONE_C: see layer_masks.cl
 *
 * Step i of the sequence is t = i, or T-1-i in reverse. Past its length a row's y is 0 and its state stands still.
 */
#include "layer_common.cl"
#ifndef SAVE
#define SAVE 0
#endif
#ifndef HOISTED
#define HOISTED 0
#endif

/* The sums of a row's units from unit on before any product: the biases, or the row of x·W_xᵀ + b. */
static void start_sums(vec *sum, int phase, const __global real *row, const __global real *inner_bias, long unit,
                       long H) {
  for (int s = 0; s < SUMS; s++)
    for (int u = 0; u < UNITS; u++)
      sum[s * UNITS + u] = (vec)(0);
  for (int u = 0; u < UNITS; u++) {
    const long at = unit + u * WIDTH, n = H - at;
    for (int g = 0; g < PHASE_GATES(phase); g++)
      sum[(X_SUM + g) * UNITS + u] = load(row + (GATES_BEFORE(phase) + X_GATE(g)) * H + at, n);
#if CELL == 4
    sum[3 * UNITS + u] = load(inner_bias + at, n);
#endif
  }
}

/* Where a step finds and leaves the values of an item's first row. */
typedef struct places {
  const __global real *h_prev, *c_prev;                              /* rows are prev_row apart; */
  __global real *h_prev_copy, *h_next, *c_prev_copy, *c_next, *keep; /* S apart, of keep KEEP·S; */
  __global real *y, *h_last, *c_last;                                /* H apart. NULL: not wanted */
#if H_MASK
  const __global real *mask; /* H apart */
  __global real *fed_next;   /* S apart */
#endif
#if ZONE_H
  const __global zone_h_t *zone_h; /* H apart */
#endif
#if ZONE_C
  const __global zone_c_t *zone_c;
#endif
  long prev_row, H, S;
} places;

/* WIDTH units from unit on of one row, n of them real: from the sums to the new state. */
static void finish(const vec *sum, const places *p, int phase, long row, long unit, bool active) {
  const long n = p->H - unit, at = row * p->S + unit;
  const vec h_prev = load(p->h_prev + row * p->prev_row + unit, n);
  __global real *kept = p->keep + row * KEEP * p->S + unit;
  vec keep[KEPT], h = h_prev, c = (vec)(0);
#if HAVE_CELL
  const vec c_prev = load(p->c_prev + row * p->prev_row + unit, n);
  c = c_prev;
#else
  const vec c_prev = (vec)(0);
#endif
#if PHASES == 2
  if (phase == 1)
    keep[1] = VLOAD(0, kept + p->S);
#endif
#if H_MASK
  const vec mask = load(p->mask + row * p->H + unit, n);
#endif
  if (active) {
    h = cell_forward(phase, sum, h_prev, c_prev, &c, keep);
#if ZONE_H
    h = zoned(load_zone_h(p->zone_h + row * p->H + unit, n), h_prev, h);
#endif
#if ZONE_C
    c = zoned(load_zone_c(p->zone_c + row * p->H + unit, n), c_prev, c);
#endif
  } else
    for (int i = 0; i < KEPT; i++)
      keep[i] = (vec)(0);
#if PHASES == 2
  if (phase == 0) {
    VSTORE(keep[0], 0, kept);
    VSTORE(keep[1], 0, kept + p->S);
#if H_MASK
    keep[3] *= mask;
#endif
    VSTORE(keep[3], 0, kept + 3 * p->S);
    return;
  }
  VSTORE(keep[2], 0, kept + 2 * p->S);
#elif SAVE
  for (int i = 0; i < KEEP; i++)
    VSTORE(keep[i], 0, kept + i * p->S);
#endif
  VSTORE(h, 0, p->h_next + at);
#if H_MASK
  VSTORE(mask * h, 0, p->fed_next + at);
#endif
  if (p->h_prev_copy)
    VSTORE(h_prev, 0, p->h_prev_copy + at);
  if (p->y)
    store(active ? h : (vec)(0), p->y + row * p->H + unit, n);
  if (p->h_last)
    store(h, p->h_last + row * p->H + unit, n);
#if HAVE_CELL
  VSTORE(c, 0, p->c_next + at);
  if (p->c_prev_copy)
    VSTORE(c_prev, 0, p->c_prev_copy + at);
  if (p->c_last)
    store(c, p->c_last + row * p->H + unit, n);
#endif
}

__kernel VECTORISED void forward(const __global real *x, long x_at, const __global panel *w, long w_at,
                                 const __global panel *r, long r_at, const __global real *bias, long bias_at,
                                 const __global real *inner_bias, long inner_bias_at, const __global real *h0,
                                 long h0_at, const __global real *c0, long c0_at, const __global int *lengths,
                                 long lengths_at, __global real *y, long y_at, __global real *h_last, long h_last_at,
                                 __global real *c_last, long c_last_at, __global real *states, long states_at,
                                 __global real *cells, long cells_at, __global real *kept, long kept_at,
#if H_MASK
                                 const __global real *h_mask, long h_mask_at, __global real *fed, long fed_at,
#endif
#if ZONE_H
                                 const __global zone_h_t *zone_h, long zone_h_at, long zone_h_step,
#endif
#if ZONE_C
                                 const __global zone_c_t *zone_c, long zone_c_at, long zone_c_step,
#endif
                                 volatile __global int *claims, long claims_at, long T, long B, long I, long H, long S,
                                 long reverse, long item_rows, long item_blocks, long pieces, long phases, long first,
                                 long count) {
  const long blocks = (H + UNITS * WIDTH - 1) / (UNITS * WIDTH), parts = (blocks + item_blocks - 1) / item_blocks;
  vec sum[PADDED_ROWS * SUMS * UNITS];
  int order[ITEM_ROWS];

  for (long piece = take_piece(claims, claims_at); piece < pieces; piece = take_piece(claims, claims_at)) {
    const long b0 = piece / parts * item_rows, block0 = piece % parts * item_blocks;
    const long block1 = min(block0 + item_blocks, blocks);
    const int rows = (int)min(item_rows, B - b0);
    order_rows(order, lengths + lengths_at + b0, rows);

    for (long step = first * PHASES; step < (first + count) * PHASES; step++) {
      const int phase = (int)(step % PHASES);
      if (!(phases >> phase & 1))
        continue;
      const long i = step / PHASES, t = reverse ? T - 1 - i : i, tb = t * B + b0;
      const long before = ((SAVE ? (reverse ? t + 1 : t) : i & 1) * B + b0) * S;
      const long after = ((SAVE ? (reverse ? t : t + 1) : (i + 1) & 1) * B + b0) * S;
      const places p = {
        .h_prev = i ? states + states_at + before : h0 + h0_at + b0 * H,
        .h_next = states + states_at + after,
        .h_prev_copy = SAVE && i == 0 ? states + states_at + before : 0,
#if HAVE_CELL
        .c_prev = i ? cells + cells_at + (SAVE ? before : b0 * S) : c0 + c0_at + b0 * H,
        .c_next = cells + cells_at + (SAVE ? after : b0 * S),
        .c_prev_copy = SAVE && i == 0 ? cells + cells_at + before : 0,
        .c_last = c_last && i == T - 1 ? c_last + c_last_at + b0 * H : 0,
#endif
        .keep = kept + kept_at + (SAVE ? tb : b0) * KEEP * S,
        .y = y ? y + y_at + tb * H : 0,
        .h_last = h_last && i == T - 1 ? h_last + h_last_at + b0 * H : 0,
#if H_MASK
        .mask = h_mask + h_mask_at + b0 * H,
        .fed_next = fed + fed_at + (((i + 1) & 1) * B + b0) * S,
#endif
#if ZONE_H
        .zone_h = zone_h + zone_h_at + t * zone_h_step + b0 * H,
#endif
#if ZONE_C
        .zone_c = zone_c + zone_c_at + t * zone_c_step + b0 * H,
#endif
        .prev_row = i ? S : H,
        .H = H,
        .S = S,
      };
#if H_MASK
      const __global real *a = fed + fed_at + (i ? ((i & 1) * B + b0) * S : 2 * B * S + b0 * H);
#else
      const __global real *a = p.h_prev;
#endif
      const int active = active_rows(order, lengths + lengths_at + b0, rows, t), n_vecs = PHASE_GATES(phase) * UNITS;

      for (long block = block0; block < block1; block++) {
        const long unit0 = block * UNITS * WIDTH;
        const long columns = (GATES_BEFORE(phase) * blocks + block * PHASE_GATES(phase)) * UNITS * WIDTH;
#if HOISTED
        for (int k = 0; k < active; k++)
          start_sums(sum + k * SUMS * UNITS, phase, x + x_at + (tb + order[k]) * GATES * H, inner_bias + inner_bias_at,
                     unit0, H);
#else
        for (int k = 0; k < active; k++)
          start_sums(sum + k * SUMS * UNITS, phase, bias + bias_at, inner_bias + inner_bias_at, unit0, H);
        multiply(sum + X_SUM * UNITS, SUMS * UNITS, n_vecs, x + x_at + tb * I, I, order, active, w + w_at + columns * I,
                 I);
#endif
        multiply(sum + H_SUM * UNITS, SUMS * UNITS, n_vecs, phase ? p.keep + 3 * S : a, phase ? KEEP * S : p.prev_row,
                 order, active, r + r_at + columns * H, H);
        for (int k = 0; k < rows; k++)
          for (int u = 0; u < UNITS; u++)
            if (unit0 + u * WIDTH < H)
              finish(sum + k * SUMS * UNITS + u, &p, phase, order[k], unit0 + u * WIDTH, k < active);
      }
    }
  }
  leave(claims, claims_at);
}
