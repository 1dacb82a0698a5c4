/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dropout.cl: y = x·mask/(1-p) for x [T][B][R], or one step [B][R]. An element is kept where the upper 24 bits of its
 * random word reach threshold = ceil(p·2^24), which is unroll_uniform(word) >= p without a rounding. Four neighbouring
 * units share a block of the generator; one work-item owns LANES blocks of one (t, b).
 */
#include "random_words.cl"
#ifdef cl_khr_fp64
#pragma OPENCL EXTENSION cl_khr_fp64 : enable
#endif
#ifndef real
#define real float
#endif
#define MASK_float int16
#define MASK_double long16
#define mask CAT(MASK_, real)
__kernel void dropout(const __global real *x, long x_at, __global real *y, long y_at, long B, long R, uint key0,
                      uint key1, uint threshold, real scale, long t_first, long row_first, long items) {
  const long id = (long)get_global_id(0), strips = (R + LANES * 4 - 1) / (LANES * 4);
  if (id >= items)
    return;
  const long row = id / strips, first = (id - row * strips) * (LANES * 4), n = min((long)LANES * 4, R - first);
  const long t = row / B, b = row - t * B;
  words word[4];
  random_blocks((uint)(first >> 2), (uint)(row_first + b), (ulong)(t_first + t), key0, key1, word);
  x += x_at + row * R + first;
  y += y_at + row * R + first;
  if (n == LANES * 4) {
    uint16 all[SIXTEENS];
    in_order(word, all);
#pragma unroll
    for (int i = 0; i < SIXTEENS; i++)
      vstore16(select((CAT(real, 16))(0), vload16(i, x) * scale, CAT(convert_, mask)(all[i] >> 8 >= threshold)), i, y);
  } else
#pragma unroll /* an index that is not known would need the words in memory */
    for (int j = 0; j < LANES * 4; j++)
      if (j < n)
        y[j] = ((uint *)&word[j & 3])[j >> 2] >> 8 >= threshold ? x[j] * scale : 0;
}
