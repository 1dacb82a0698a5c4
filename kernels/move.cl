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
#include "walk.cl"

__kernel void copy(const __global type *x, long x_at, __global type *y, long y_at, long8 extent, long8 y_stride,
                   long8 x_stride, long x_inner, long inner, long items) {
  const long id = (long)get_global_id(0), strips = (inner + EACH - 1) / EACH;
  if (id >= items)
    return;
  const long row = OUTER > 0 ? id / strips : 0, first = (id - row * strips) * EACH, last = min(first + EACH, inner);
  x += x_at + place(extent, x_stride, row);
  y += y_at + place(extent, y_stride, row);
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
                     const __global type *b, long b_at, __global type *y, long y_at, long8 extent, long8 y_stride,
                     long8 condition_stride, long8 a_stride, long8 b_stride, long condition_inner, long a_inner,
                     long b_inner, long inner, long items) {
  const long id = (long)get_global_id(0), strips = (inner + EACH - 1) / EACH;
  if (id >= items)
    return;
  const long row = OUTER > 0 ? id / strips : 0, first = (id - row * strips) * EACH, last = min(first + EACH, inner);
  condition += condition_at + place(extent, condition_stride, row);
  a += a_at + place(extent, a_stride, row);
  b += b_at + place(extent, b_stride, row);
  y += y_at + place(extent, y_stride, row);
  for (long i = first; i < last; i++)
    y[i] = condition[i * condition_inner] ? a[i * a_inner] : b[i * b_inner];
}
