/* SPDX-License-Identifier: Apache-2.0 */
/*
 * random_words.cl: LANES neighbouring blocks of the generator at once, 4 or 8, side by side in vectors, for inclusion.
 */
#include "philox.h"
#ifndef LANES
#define LANES 4
#endif
#define CAT_(a, b) a##b
#define CAT(a, b) CAT_(a, b)
#define words CAT(uint, LANES)
#define wides CAT(ulong, LANES)

/* unroll_philox_block of unroll/philox.h for LANES counters: block + 0, 1, .., row, t. word[i] holds word i of each. */
static void random_blocks(uint block, uint row, ulong t, uint key0, uint key1, words *word) {
  words c0 = (words)(block), c1 = (words)(row), c2 = (words)((uint)t), c3 = (words)((uint)(t >> 32));
  for (int i = 0; i < LANES; i++)
    ((uint *)&c0)[i] += (uint)i;
  for (int round = 0; round < 10; round++) { /* whole products: a processor has no upper half of one alone */
    const wides p0 = CAT(convert_, wides)(c0) * 0xD2511F53ul, p1 = CAT(convert_, wides)(c2) * 0xCD9E8D57ul;
    c0 = CAT(convert_, words)(p1 >> 32) ^ c1 ^ key0;
    c1 = CAT(convert_, words)(p1);
    c2 = CAT(convert_, words)(p0 >> 32) ^ c3 ^ key1;
    c3 = CAT(convert_, words)(p0);
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  word[0] = c0;
  word[1] = c1;
  word[2] = c2;
  word[3] = c3;
}

/* The words in the order of units, block by block: SIXTEENS vectors of them. Put together as vectors.cl does it. */
#define SIXTEENS (LANES / 4)
static void in_order(const words *word, uint16 *all) {
  const wides a = CAT(convert_, wides)(word[1]) << 32 | CAT(convert_, wides)(word[0]);
  const wides b = CAT(convert_, wides)(word[3]) << 32 | CAT(convert_, wides)(word[2]);
  all[0] = as_uint16((ulong8)(a.s0, b.s0, a.s1, b.s1, a.s2, b.s2, a.s3, b.s3));
#if LANES == 8
  all[1] = as_uint16((ulong8)(a.s4, b.s4, a.s5, b.s5, a.s6, b.s6, a.s7, b.s7));
#endif
}
