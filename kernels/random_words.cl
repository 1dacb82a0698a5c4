/* SPDX-License-Identifier: Apache-2.0 */
/*
 * random_words.cl: LANES neighbouring blocks of the generator at once, side by side in vectors, for inclusion.
 */
#include "philox.h"
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
