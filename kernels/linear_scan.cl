/* SPDX-License-Identifier: Apache-2.0 */
/*
 * linear_scan.cl: h = a·h + b over the steps of a, b, y [T][B][R], and the gradient. One work-item owns a strip of `each`
 * vectors of WIDTH neighbouring lanes of a row b, over all steps or, where these are too few work-items, over a chunk of
 * them:
 *
 *   *_reduce   what each chunk makes of a state: h -> product·h + sum
 *   carry      the state that each chunk begins with, one after another
 *   linear_scan, linear_scan_grad from there
 *
 * Without lengths the batch is one row of B·R lanes. A reverse scan goes from t = T-1 to 0; past its length a sequence's
 * state stands still. The gradient goes through the steps the other way.
 *
 * The state of a strip of one vector (LONG 0, for GPUs) is in registers. That of a long one (LONG 1, for CPUs, where
 * memory wants to be read in long pieces) is in state [chunks][B][R], which stays in a cache.
 */
#include "vectors.cl"
#ifndef LONG
#define LONG 0
#endif

/* Where a work-item is: its strip's first lane and vectors, the steps from begin to end - 1, those that its row has. */
typedef struct place {
  long chunk, row, lane, vectors, begin, end, steps;
} place;

static place find_place(long item, const __global int *lengths, long T, long B, long R, long each, long chunk) {
  const long strips = (R + WIDTH * each - 1) / (WIDTH * each), rows = item / strips;
  place p;
  p.lane = (item - rows * strips) * (WIDTH * each);
  p.vectors = min(each, (R - p.lane + WIDTH - 1) / WIDTH);
  p.chunk = rows / B;
  p.row = rows - p.chunk * B;
  p.begin = p.chunk * chunk;
  p.end = min(p.begin + chunk, T);
  p.steps = lengths ? clamp((long)lengths[p.row], 0L, T) : T;
  return p;
}

/* Before and after the steps, and around what is done for each vector e of a step; n: lanes of it that there are. */
#if LONG
#define EACH_VECTOR for (long e = 0, n = R - p.lane; e < p.vectors; e++, n -= WIDTH)
#define STATE_BEGIN                                       \
  state += state_at + (p.chunk * B + p.row) * R + p.lane; \
  EACH_VECTOR {                                           \
    vec h = (vec)(0);                                     \
    if (start)                                            \
      h = load(start + p.lane + e * WIDTH, n);            \
    store(h, state + e * WIDTH, n);                       \
  }
#define STATE_LOAD vec h = load(state + e * WIDTH, n);
#define STATE_STORE store(h, state + e * WIDTH, n);
#else
#define EACH_VECTOR for (long e = 0, n = R - p.lane; e < 1; e++)
#define STATE_BEGIN \
  vec h = (vec)(0); \
  if (start)        \
    h = load(start + p.lane, R - p.lane);
#define STATE_LOAD
#define STATE_STORE
#endif
#define STATE_END                                                   \
  if (last)                                                         \
    EACH_VECTOR {                                                   \
      STATE_LOAD                                                    \
      store(h, last + last_at + p.row * R + p.lane + e * WIDTH, n); \
    }

__kernel VECTORISED void linear_scan(const __global real *a, long a_at, const __global real *b, long b_at,
                                     const __global real *start, long start_at, const __global int *lengths,
                                     long lengths_at, __global real *y, long y_at, __global real *last, long last_at,
                                     __global real *state, long state_at, long T, long B, long R, long each, long chunk,
                                     uint reverse, long items) {
  const long item = (long)get_global_id(0);
  if (item >= items)
    return;
  const place p = find_place(item, lengths ? lengths + lengths_at : lengths, T, B, R, each, chunk);
  if (start)
    start += start_at + (p.chunk * B + p.row) * R;
  STATE_BEGIN
  for (long step = p.begin; step < p.end; step++) {
    const long t = reverse ? T - 1 - step : step, at = (t * B + p.row) * R + p.lane;
    EACH_VECTOR {
      const long i = at + e * WIDTH;
      STATE_LOAD
      if (t < p.steps)
        h = load(a + a_at + i, n) * h + load(b + b_at + i, n);
      STATE_STORE
      if (y)
        store(t < p.steps ? h : (vec)(0), y + y_at + i, n);
    }
  }
  STATE_END
}

/* product and sum are [chunks][B][R]. */
__kernel VECTORISED void linear_scan_reduce(const __global real *a, long a_at, const __global real *b, long b_at,
                                            const __global int *lengths, long lengths_at, __global real *product,
                                            long product_at, __global real *sum, long sum_at, long T, long B, long R,
                                            long each, long chunk, uint reverse, long items) {
  const long item = (long)get_global_id(0);
  if (item >= items)
    return;
  const place p = find_place(item, lengths ? lengths + lengths_at : lengths, T, B, R, each, chunk);
  const long to = (p.chunk * B + p.row) * R + p.lane;
  for (long e = 0, n = R - p.lane; e < p.vectors; e++, n -= WIDTH) {
    vec all = (vec)(1), h = (vec)(0);
    for (long step = p.begin; step < p.end; step++) {
      const long t = reverse ? T - 1 - step : step, i = (t * B + p.row) * R + p.lane + e * WIDTH;
      if (t < p.steps) {
        const vec by = load(a + a_at + i, n);
        h = by * h + load(b + b_at + i, n);
        all *= by;
      }
    }
    store(all, product + product_at + to + e * WIDTH, n);
    store(h, sum + sum_at + to + e * WIDTH, n);
  }
}

/*
 * One work-item owns a lane: sum becomes the state before each chunk, last the one after all. The chunks are gone through
 * from the last to the first where backwards is set. A product may have become infinite: times a state of 0 it is 0.
 */
__kernel void carry(const __global real *start, long start_at, const __global real *product, long product_at,
                    __global real *sum, long sum_at, __global real *last, long last_at, long chunks, uint backwards,
                    long items) {
  const long lane = (long)get_global_id(0);
  if (lane >= items)
    return;
  real h = 0;
  if (start)
    h = start[start_at + lane];
  for (long k = 0; k < chunks; k++) {
    const long i = (backwards ? chunks - 1 - k : k) * items + lane;
    const real add = sum[sum_at + i];
    sum[sum_at + i] = h;
    h = h == 0 ? add : product[product_at + i] * h + add;
  }
  if (last)
    last[last_at + lane] = h;
}

/* h is what flows back from the step after. */
__kernel VECTORISED void linear_scan_grad(const __global real *a, long a_at, const __global real *y, long y_at,
                                          const __global real *h0, long h0_at, const __global real *dy, long dy_at,
                                          const __global real *start, long start_at, const __global int *lengths,
                                          long lengths_at, __global real *da, long da_at, __global real *db, long db_at,
                                          __global real *last, long last_at, __global real *state, long state_at,
                                          long T, long B, long R, long each, long chunk, uint reverse, long items) {
  const long item = (long)get_global_id(0);
  if (item >= items)
    return;
  const place p = find_place(item, lengths ? lengths + lengths_at : lengths, T, B, R, each, chunk);
  const long before = reverse ? B * R : -B * R;
  if (start)
    start += start_at + (p.chunk * B + p.row) * R;
  STATE_BEGIN
  for (long step = p.end - 1; step >= p.begin; step--) {
    const long t = reverse ? T - 1 - step : step, at = (t * B + p.row) * R + p.lane;
    const bool first = reverse ? t == p.steps - 1 : t == 0;
    EACH_VECTOR {
      const long i = at + e * WIDTH;
      vec g = (vec)(0), found = (vec)(0);
      if (t < p.steps) {
        STATE_LOAD
        g = h;
        if (dy)
          g += load(dy + dy_at + i, n);
        h = load(a + a_at + i, n) * g;
        STATE_STORE
        if (da && !first)
          found = load(y + y_at + i + before, n);
        else if (da && h0)
          found = load(h0 + h0_at + p.row * R + p.lane + e * WIDTH, n);
      }
      if (da)
        store(g * found, da + da_at + i, n);
      if (db)
        store(g, db + db_at + i, n);
    }
  }
  STATE_END
}

__kernel VECTORISED void linear_scan_grad_reduce(const __global real *a, long a_at, const __global real *dy, long dy_at,
                                                 const __global int *lengths, long lengths_at, __global real *product,
                                                 long product_at, __global real *sum, long sum_at, long T, long B,
                                                 long R, long each, long chunk, uint reverse, long items) {
  const long item = (long)get_global_id(0);
  if (item >= items)
    return;
  const place p = find_place(item, lengths ? lengths + lengths_at : lengths, T, B, R, each, chunk);
  const long to = (p.chunk * B + p.row) * R + p.lane;
  for (long e = 0, n = R - p.lane; e < p.vectors; e++, n -= WIDTH) {
    vec all = (vec)(1), back = (vec)(0);
    for (long step = p.end - 1; step >= p.begin; step--) {
      const long t = reverse ? T - 1 - step : step, i = (t * B + p.row) * R + p.lane + e * WIDTH;
      if (t < p.steps) {
        const vec by = load(a + a_at + i, n);
        if (dy)
          back += load(dy + dy_at + i, n);
        back *= by;
        all *= by;
      }
    }
    store(all, product + product_at + to + e * WIDTH, n);
    store(back, sum + sum_at + to + e * WIDTH, n);
  }
}
