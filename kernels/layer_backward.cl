/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layer_backward.cl: steps of the gradient of a recurrence in one launch, for CPU devices, last step first. Work is
 * divided as in layer_forward.cl, whose states, cells and kept (with SAVE) it reads.
 *
 *   rt         panels of layer_pack.cl of W_hᵀ: columns are units, k the gates. Of a cell with two phases first those of
 *              r and z, then those of n
 *   dy         [T][B][H] or NULL; dh_last, dc_last [B][H] or NULL
 *   d          [T][B][D], of which GATES·H: the gradient of the sums on x's side, by which W_x, x and b get theirs
 *   d_hidden   likewise on W_h's side, of a cell where the two differ
 *   carry      [B][S], what reaches h beside the product: kept from step to step
 *   dc         [B][S]
 *   dh0, dc0   [B][H] or NULL
 *   fed        with H_MASK: [T][B][S] or NULL, gets m⊙h as W_h was multiplied with it at each step
 *   zone_h, zone_c  with ZONE_H, ZONE_C: see layer_masks.cl
 *
 * Step j handles the j-th from the end; step T is only the product of the first step's gradients, for dh0.
 */
#include "layer_common.cl"
#define HAVE_CARRY (CELL >= 3 || HAVE_LENGTHS || ZONE_H)

typedef struct places {
  const __global real *keep, *h, *h_prev, *c, *c_prev; /* rows are S apart, of keep KEEP·S */
  const __global real *dy;                             /* H apart, or NULL */
  __global real *d, *d_hidden;                         /* D apart */
  __global real *carry, *dc;                           /* S apart */
#if H_MASK
  const __global real *mask; /* H apart */
  __global real *fed;        /* S apart, or NULL */
#endif
#if ZONE_H
  const __global zone_h_t *zone_h; /* H apart */
#endif
#if ZONE_C
  const __global zone_c_t *zone_c;
#endif
  long H, S, D;
} places;

/* WIDTH units from unit on of one row, n of them real: from the gradient of its state to those of its gates. */
static void finish(vec dh, const places *p, int phase, long row, long unit, bool active) {
  const long n = p->H - unit, at = row * p->S + unit;
  __global real *d_at = p->d + row * p->D + unit;
  vec keep[KEPT], d[GATES], inner = (vec)(0), carry = dh;
  for (int g = 0; g < GATES; g++)
    d[g] = (vec)(0);
  if (active) {
    const vec h_prev = VLOAD(0, p->h_prev + at), h = VLOAD(0, p->h + at);
    for (int i = 0; i < KEEP; i++)
      keep[i] = VLOAD(0, p->keep + (row * KEEP + i) * p->S + unit);
    if (p->dy && phase == 0)
      dh += load(p->dy + row * p->H + unit, n);
#if ZONE_H
    vec stays = (vec)(0);
    if (phase == 0) {
      const vec zone = load_zone_h(p->zone_h + row * p->H + unit, n);
      stays = zone * dh;
      dh *= (vec)(1) - zone;
    }
#endif
#if HAVE_CELL
    vec dc = VLOAD(0, p->dc + at);
#if ZONE_C
    const vec zone = load_zone_c(p->zone_c + row * p->H + unit, n), dc_stays = zone * dc;
    dc *= (vec)(1) - zone;
#endif
    carry = cell_backward(phase, dh, &dc, keep, h, h_prev, VLOAD(0, p->c + at), VLOAD(0, p->c_prev + at), d, &inner);
#if ZONE_C
    dc += dc_stays;
#endif
    VSTORE(dc, 0, p->dc + at);
#else
    vec none = (vec)(0);
    carry = cell_backward(phase, dh, &none, keep, h, h_prev, none, none, d, &inner);
#endif
#if ZONE_H
    carry += stays;
#endif
  }
#if H_MASK
  if (p->fed && phase == 0)
    VSTORE(active ? load(p->mask + row * p->H + unit, n) * VLOAD(0, p->h_prev + at) : (vec)(0), 0, p->fed + at);
#endif
#if PHASES == 2
  if (phase == 1) {
    store(d[0], d_at, n);
    if (active)
      VSTORE(VLOAD(0, p->carry + at) + carry, 0, p->carry + at);
    return;
  }
  store(d[1], d_at + p->H, n);
  store(d[2], d_at + 2 * p->H, n);
#else
  for (int g = 0; g < GATES; g++)
    store(d[g], d_at + g * p->H, n);
#if CELL == 4
  __global real *inner_at = p->d_hidden + row * p->D + unit;
  store(d[0], inner_at, n);
  store(d[1], inner_at + p->H, n);
  store(inner, inner_at + 2 * p->H, n);
#endif
#endif
#if HAVE_CARRY
  VSTORE(carry, 0, p->carry + at);
#endif
}

/* What reaches h beside the product: from after the last step, or what the step that came after it has kept. */
static vec beside(const __global real *dh_last, const __global real *carry, long j, long n) {
  if (j == 0)
    return dh_last ? load(dh_last, n) : (vec)(0);
#if HAVE_CARRY
  return VLOAD(0, carry);
#else
  return (vec)(0);
#endif
}

__kernel VECTORISED void backward(const __global panel *rt, long rt_at, const __global int *lengths, long lengths_at,
                                  const __global real *dy, long dy_at, const __global real *dh_last, long dh_last_at,
                                  const __global real *dc_last, long dc_last_at, const __global real *states,
                                  long states_at, const __global real *cells, long cells_at, const __global real *kept,
                                  long kept_at, __global real *d, long d_at, __global real *d_hidden, long d_hidden_at,
                                  __global real *carry, long carry_at, __global real *dc, long dc_at,
                                  __global real *dh0, long dh0_at, __global real *dc0, long dc0_at, long D,
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
  vec sum[PADDED_ROWS * UNITS];
  int order[ITEM_ROWS];

  for (long piece = take_piece(claims, claims_at); piece < pieces; piece = take_piece(claims, claims_at)) {
    const long b0 = piece / parts * item_rows, block0 = piece % parts * item_blocks;
    const long block1 = min(block0 + item_blocks, blocks);
    const int rows = (int)min(item_rows, B - b0);
    order_rows(order, lengths + lengths_at + b0, rows);

    for (long step = first * PHASES; step < (first + count) * PHASES; step++) {
      const int phase = (int)(step % PHASES);
      const long j = step / PHASES, t = reverse ? j : T - 1 - j, later = reverse ? t - 1 : t + 1;
      if (!(phases >> phase & 1) || (j == T && phase == 1))
        continue;
      const long before = ((reverse ? t + 1 : t) * B + b0) * S, after = ((reverse ? t : t + 1) * B + b0) * S;
      const places p = {
        .keep = kept + kept_at + (t * B + b0) * KEEP * S,
        .h_prev = states + states_at + before,
        .h = states + states_at + after,
#if HAVE_CELL
        .c_prev = cells + cells_at + before,
        .c = cells + cells_at + after,
        .dc = dc + dc_at + b0 * S,
#endif
#if CELL == 4
        .d_hidden = d_hidden + d_hidden_at + (t * B + b0) * D,
#endif
        .dy = dy ? dy + dy_at + (t * B + b0) * H : 0,
        .d = d + d_at + (t * B + b0) * D,
        .carry = carry + carry_at + b0 * S,
#if H_MASK
        .mask = h_mask + h_mask_at + b0 * H,
        .fed = fed ? fed + fed_at + (t * B + b0) * S : 0,
#endif
#if ZONE_H
        .zone_h = zone_h + zone_h_at + t * zone_h_step + b0 * H,
#endif
#if ZONE_C
        .zone_c = zone_c + zone_c_at + t * zone_c_step + b0 * H,
#endif
        .H = H,
        .S = S,
        .D = D,
      };
      /* What the product multiplies: the gates of the step that came after this one; in phase 1 n of this one. */
      const __global int *ends = lengths + lengths_at + b0;
      const int active = j == T ? 0 : active_rows(order, ends, rows, t);
      const int fed = phase == 1 ? active : j == 0 ? 0 : active_rows(order, ends, rows, later);
#if CELL == 4
      const __global real *a = d_hidden + d_hidden_at + (later * B + b0) * D;
#else
      const __global real *a = phase == 1 ? p.d + 2 * H : d + d_at + (later * B + b0) * D;
#endif
      const long K = PHASES == 1 ? GATES * H : phase == 0 ? 2 * H : H;

      for (long block = block0; block < block1; block++) {
        const long unit0 = block * UNITS * WIDTH;
        for (int k = 0; k < rows; k++)
          for (int u = 0; u < UNITS; u++) {
            const long unit = unit0 + u * WIDTH, row = order[k];
            vec dh = (vec)(0);
#if !H_MASK
            if (unit < H && phase == 0)
              dh = beside(dh_last ? dh_last + dh_last_at + (b0 + row) * H + unit : 0, p.carry + row * S + unit, j,
                          H - unit);
#endif
            sum[k * UNITS + u] = dh;
          }
        multiply(sum, UNITS, UNITS, a, D, order, fed,
                 rt + rt_at + (phase ? 2 * H * blocks + block * H : block * K) * UNITS * WIDTH, K);
        for (int k = 0; k < rows; k++)
          for (int u = 0; u < UNITS; u++) {
            const long unit = unit0 + u * WIDTH, row = order[k], n = H - unit;
            if (n <= 0)
              continue;
#if H_MASK
            const vec more = phase ? (vec)(0)
                                   : beside(dh_last ? dh_last + dh_last_at + (b0 + row) * H + unit : 0,
                                            p.carry + row * S + unit, j, n);
            sum[k * UNITS + u] = fma(load(p.mask + row * H + unit, n), sum[k * UNITS + u], more);
#endif
#if HAVE_CELL
            if (j == 0)
              VSTORE(dc_last ? load(dc_last + dc_last_at + (b0 + row) * H + unit, n) : (vec)(0), 0,
                     p.dc + row * S + unit);
#endif
            if (j < T)
              finish(sum[k * UNITS + u], &p, phase, row, unit, k < active);
            else {
              if (dh0)
                store(sum[k * UNITS + u], dh0 + dh0_at + (b0 + row) * H + unit, n);
#if HAVE_CELL
              if (dc0)
                store(VLOAD(0, p.dc + row * S + unit), dc0 + dc0_at + (b0 + row) * H + unit, n);
#endif
            }
          }
      }
    }
  }
  leave(claims, claims_at);
}
