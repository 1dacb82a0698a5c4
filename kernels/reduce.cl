/* SPDX-License-Identifier: Apache-2.0 */
/*
 * reduce.cl: one axis of x [O][R][I] is reduced, in blocks of it: y [O][ceil(R/block)][I]. A second launch over y
 * reduces the blocks, in order, so that the same bits come out run after run and the rounding error of a long sum
 * stays small. KIND numbers the reductions as unroll/plugin.h does; sums of squares continue as sums. max and min hand
 * NaN on.
 */
#include "vectors.cl"
#ifndef KIND
#define KIND 0
#endif
#ifndef INTEGER
#define INTEGER 0
#endif

#if KIND == 0
#define FOLD(a, x) ((a) + (x))
#elif KIND == 1
#define FOLD(a, x) ((a) + (x) * (x))
#elif KIND == 2
#define BETTER >
#else
#define BETTER <
#endif
#if KIND >= 2 && INTEGER
#define FOLD(a, x) ((a)BETTER(x) ? (a) : (x))
#elif KIND >= 2
#define FOLD(a, x) (((a)BETTER(x)) | isnan(a) ? (a) : (x))
#endif

/* I > 1: an item owns WIDTH neighbours of I and walks down R, whose rows are row elements apart. */
__kernel VECTORISED void columns(const __global real *x, long x_at, __global real *y, long y_at, long R, long I,
                                 long row, long block, long items) {
  const long id = (long)get_global_id(0);
  if (id >= items)
    return;
  const long strips = (I + WIDTH - 1) / WIDTH, blocks = (R + block - 1) / block;
  const long part = id / strips, i = (id - part * strips) * WIDTH, n = I - i;
  const long outer = part / blocks, first = (part - outer * blocks) * block, last = min(first + block, R);
  x += x_at + outer * R * row + i;
  vec sum = (vec)(0);
#if KIND >= 2
  sum = load(x + first * row, n);
#endif
  for (long r = first; r < last; r++) {
    const vec value = load(x + r * row, n);
    sum = FOLD(sum, value);
  }
  store(sum, y + y_at + part * I + i, n);
}

/* I = 1: an item owns a block, in WIDTH interleaved partial results. */
__kernel VECTORISED void rows(const __global real *x, long x_at, __global real *y, long y_at, long R, long block,
                              long items) {
  const long id = (long)get_global_id(0);
  if (id >= items)
    return;
  const long blocks = (R + block - 1) / block;
  const long outer = id / blocks, first = (id - outer * blocks) * block, last = min(first + block, R);
  const long whole = first + (last - first) / WIDTH * WIDTH;
  x += x_at + outer * R;
#if KIND >= 2
  vec lanes = (vec)(x[first]);
  real sum = x[first];
#else
  vec lanes = (vec)(0);
  real sum = 0;
#endif
  for (long r = first; r < whole; r += WIDTH) {
    const vec value = VLOAD(0, x + r);
    lanes = FOLD(lanes, value);
  }
  for (long r = whole; r < last; r++)
    sum = FOLD(sum, x[r]);
#if KIND < 2
#undef FOLD
#define FOLD(a, x) ((a) + (x))
#endif
  for (int i = 0; i < WIDTH; i++) {
    const real value = ((real *)&lanes)[i];
    sum = FOLD(sum, value);
  }
  y[y_at + id] = sum;
}
