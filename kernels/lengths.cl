/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lengths.cl: what depends on the lengths of sequences. x and y are [T][B][R], or one step [B][R]. One work-item owns
 * EACH neighbouring elements of one (t, b). The type is told by its size alone. A length is clamped to 0..T.
 */
#ifndef type
#define type uint
#endif
#ifndef EACH
#define EACH 8
#endif
#ifndef HAVE_OTHER
#define HAVE_OTHER 0
#endif
#ifndef INVERT
#define INVERT 0
#endif

/* y = t < lengths[b] ? x : other or 0; t counts from t_first. */
__kernel void length_mask(const __global type *x, long x_at, const __global type *other, long other_at,
                          const __global int *lengths, long lengths_at, __global type *y, long y_at, long B, long R,
                          long t_first, long items) {
  const long id = (long)get_global_id(0), strips = (R + EACH - 1) / EACH;
  if (id >= items)
    return;
  const long row = id / strips, first = (id - row * strips) * EACH, last = min(first + EACH, R);
  const long t = row / B;
  const bool inside = t_first + t < lengths[lengths_at + row - t * B];
  x += x_at + row * R;
  y += y_at + row * R;
#if HAVE_OTHER
  other += other_at + row * R;
  for (long i = first; i < last; i++)
    y[i] = inside != INVERT ? x[i] : other[i];
#else
  for (long i = first; i < last; i++)
    y[i] = inside != INVERT ? x[i] : 0;
#endif
}

/* y[t,b] = x[len-1-t,b] for t < len, x[t,b] after. */
__kernel void reverse(const __global type *x, long x_at, const __global int *lengths, long lengths_at, __global type *y,
                      long y_at, long T, long B, long R, long items) {
  const long id = (long)get_global_id(0), strips = (R + EACH - 1) / EACH;
  if (id >= items)
    return;
  const long row = id / strips, first = (id - row * strips) * EACH, last = min(first + EACH, R);
  const long t = row / B, b = row - t * B, length = min((long)lengths[lengths_at + b], T);
  x += x_at + ((t < length ? length - 1 - t : t) * B + b) * R;
  y += y_at + row * R;
  for (long i = first; i < last; i++)
    y[i] = x[i];
}
