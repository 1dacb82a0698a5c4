/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dropout.cl: y = x·mask/(1-p) for x [T][B][R], or one step [B][R]. An element is kept where the upper 24 bits of its
 * random word reach threshold = ceil(p·2^24), which is unroll_uniform(word) >= p without a rounding. Four neighbouring
 * units share a block of the generator; one work-item owns LANES blocks of one (t, b), and computes them side by side
 * in vectors.
 */
#include "philox.h"
#ifdef cl_khr_fp64
#pragma OPENCL EXTENSION cl_khr_fp64 : enable
#endif
#ifndef real
#define real float
#endif
#ifndef LANES
#define LANES 4
#endif
#define CAT_(a, b) a##b
#define CAT(a, b) CAT_(a, b)
#define words CAT(uint, LANES)

/* unroll_philox_block of unroll/philox.h for LANES counters: block + 0, 1, .., row, t. word[i] holds word i of each. */
static void random_blocks(uint block, uint row, ulong t, uint key0, uint key1, words *word) {
  words c0 = (words)(block), c1 = (words)(row), c2 = (words)((uint)t), c3 = (words)((uint)(t >> 32));
  for (int i = 0; i < LANES; i++)
    ((uint *)&c0)[i] += (uint)i;
  for (int round = 0; round < 10; round++) {
    const words low0 = c0 * 0xD2511F53u, high0 = mul_hi(c0, (words)(0xD2511F53u));
    const words low1 = c2 * 0xCD9E8D57u, high1 = mul_hi(c2, (words)(0xCD9E8D57u));
    c0 = high1 ^ c1 ^ key0;
    c1 = low1;
    c2 = high0 ^ c3 ^ key1;
    c3 = low0;
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  word[0] = c0;
  word[1] = c1;
  word[2] = c2;
  word[3] = c3;
}

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
  if (n == LANES * 4)
#pragma unroll
    for (int j = 0; j < LANES * 4; j++)
      y[j] = ((uint *)&word[j & 3])[j >> 2] >> 8 >= threshold ? x[j] * scale : 0;
  else
    for (long j = 0; j < n; j++)
      y[j] = ((uint *)&word[j & 3])[j >> 2] >> 8 >= threshold ? x[j] * scale : 0;
}
