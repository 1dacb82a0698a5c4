/* SPDX-License-Identifier: Apache-2.0 */
/*
 * move.cl: what only moves values. copy walks over y, or a window of it, and reads x at any strides: slices,
 * transposes, pads and concatenations. select takes from one of two. The type is told by its size alone.
 */
#ifndef type
#define type uint
#endif
#ifndef X_INNER /* 1: x is dense along the innermost axis; 0: its stride is w.inner[1] */
#define X_INNER 1
#endif
#ifndef EACH /* neighbouring elements of an item */
#define EACH 8
#endif
#ifndef OUTER /* outer axes left after collapsing */
#define OUTER 0
#endif
#define MAX_OUTER 5

/* The axes outside of the innermost, from the inside out; the extent of the last is not needed. Operand 0 is y. */
typedef struct {
  long extent[MAX_OUTER], stride[4][MAX_OUTER];
} walk;

/* Where row number row of an operand starts. */
static long place(const walk *w, int operand, long row) {
  long at = 0;
#if OUTER > 0
  for (int i = 0; i < OUTER - 1; i++) {
    const long next = row / w->extent[i];
    at += (row - next * w->extent[i]) * w->stride[operand][i];
    row = next;
  }
  at += row * w->stride[operand][OUTER - 1];
#endif
  return at;
}

__kernel void copy(const __global type *x, long x_at, __global type *y, long y_at, walk w, long x_inner, long inner,
                   long items) {
  const long id = (long)get_global_id(0), strips = (inner + EACH - 1) / EACH;
  if (id >= items)
    return;
  const long row = OUTER > 0 ? id / strips : 0, first = (id - row * strips) * EACH, last = min(first + EACH, inner);
  x += x_at + place(&w, 1, row);
  y += y_at + place(&w, 0, row);
#if X_INNER
  if (last - first == EACH) {
#pragma unroll
    for (int i = 0; i < EACH; i++)
      y[first + i] = x[first + i];
    return;
  }
#endif
  for (long i = first; i < last; i++)
    y[i] = x[i * x_inner];
}

__kernel void choose(const __global uchar *condition, long condition_at, const __global type *a, long a_at,
                     const __global type *b, long b_at, __global type *y, long y_at, walk w, long condition_inner,
                     long a_inner, long b_inner, long inner, long items) {
  const long id = (long)get_global_id(0), strips = (inner + EACH - 1) / EACH;
  if (id >= items)
    return;
  const long row = OUTER > 0 ? id / strips : 0, first = (id - row * strips) * EACH, last = min(first + EACH, inner);
  condition += condition_at + place(&w, 1, row);
  a += a_at + place(&w, 2, row);
  b += b_at + place(&w, 3, row);
  y += y_at + place(&w, 0, row);
  for (long i = first; i < last; i++)
    y[i] = condition[i * condition_inner] ? a[i * a_inner] : b[i * b_inner];
}
