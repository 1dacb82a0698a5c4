/* SPDX-License-Identifier: Apache-2.0 */
/*
 * walk.cl: how several operands are walked over together, for inclusion: y's axes outside of the innermost, from the inside
 * out, OUTER of them, with their extents and with every operand's strides. The extent of the last is not needed.
 */
#ifndef WALK
#define WALK

#ifndef OUTER
#define OUTER 0
#endif

/* Where row number row of an operand starts. Vectors and no arrays: an argument is read once then, before any branch. */
static long place(long8 extent, long8 stride, long row) {
  long at = 0;
#define AXIS(i)                               \
  {                                           \
    const long next = row / extent.i;         \
    at += (row - next * extent.i) * stride.i; \
    row = next;                               \
  }
#if OUTER > 1
  AXIS(s0)
#endif
#if OUTER > 2
  AXIS(s1)
#endif
#if OUTER > 3
  AXIS(s2)
#endif
#if OUTER > 4
  AXIS(s3)
#endif
#undef AXIS
#if OUTER == 1
  at += row * stride.s0;
#elif OUTER == 2
  at += row * stride.s1;
#elif OUTER == 3
  at += row * stride.s2;
#elif OUTER == 4
  at += row * stride.s3;
#elif OUTER == 5
  at += row * stride.s4;
#endif
  return at;
}

#endif
