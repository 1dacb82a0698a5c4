/* SPDX-License-Identifier: Apache-2.0 */
/*
 * unroll/philox.h: the random numbers of every backend. Header-only; valid C11, C++17 and OpenCL C 1.2, where the build
 * puts it before the kernels' own text.
 *
 * The generator is Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC 2011), a
 * function from a counter of four words and a key of two to four random words. There is no state: a number is named by where
 * it is used, so every backend, every number of threads and every cut of a sequence into chunks draws the same bits.
 *
 *     unroll_philox_key key = unroll_philox_site_key(seed, update, site);           once for a node and a run
 *     float u = unroll_uniform(unroll_philox_word(key, t0 + t, row0 + b, unit));    for each element
 *
 * Layout, words of 32 bits; lo and hi are the halves of a number of 64
 *
 *   stage 1, a key for each site and update
 *     key      seed lo, seed hi
 *     counter  update lo, update hi, site, 0x6C6F726E
 *     result   words 0 and 1 of the block are the key of stage 2; words 2 and 3 are not used
 *   stage 2, uniform words
 *     key      of stage 1
 *     counter  unit >> 2, row, t lo, t hi
 *     result   word unit & 3 of the block: four neighbouring units share one
 *   stage 2, normal numbers
 *     counter  unit >> 1, row, t lo, t hi
 *     result   words 2 (unit & 1) and 2 (unit & 1) + 1 of the block, w0 and w1 of unroll_normal_of: two neighbouring units
 *              share one
 *
 * t is the absolute position in the sequence, row the row of the whole batch, unit the index in the rest of the tensor,
 * row-major. A site draws either words or normal numbers, never both: they come from the same blocks.
 *
 * Test vectors of a block, as published with Random123 (file kat_vectors)
 *
 *   counter                              key                result
 *   00000000 00000000 00000000 00000000  00000000 00000000  6627e8d5 e169c58d bc57ac4c 9b00dbd8
 *   ffffffff ffffffff ffffffff ffffffff  ffffffff ffffffff  408f276d 41c83b0e a20bc7c6 6d5451fd
 *   243f6a88 85a308d3 13198a2e 03707344  a4093822 299f31d0  d16cfe09 94fdcceb 5001e420 24126ea1
 *
 * Test vectors of the layout: seed 0123456789abcdef, update 0000000100000002, site 7 give the key 040245d5 3414356d; with
 * t 0000000500000003 and row 9 that gives
 *
 *   unit  word      uniform         normal
 *   0     83b3f18e  0x1.0767e2p-1  -1.152869335529422
 *   5     30ae3080  0x1.857180p-3   1.968569058435672
 *   6     9f90aa4d  0x1.3f2154p-1   1.893337763244701
 *   7     1f6109f7  0x1.f61090p-4  -0.047703409105431
 */
#ifndef UNROLL_PHILOX_H
#define UNROLL_PHILOX_H

#if defined(__OPENCL_VERSION__) || defined(__OPENCL_C_VERSION__)
typedef uint unroll_u32;
typedef ulong unroll_u64;
#else
#include <math.h>
#include <stdint.h>
typedef uint32_t unroll_u32;
typedef uint64_t unroll_u64;
#endif

typedef struct unroll_philox_key {
  unroll_u32 k[2];
} unroll_philox_key;

/* out may be ctr or key: they are read before it is written. */
static inline void unroll_philox_block(const unroll_u32 *ctr, const unroll_u32 *key, unroll_u32 *out) {
  unroll_u32 c0 = ctr[0], c1 = ctr[1], c2 = ctr[2], c3 = ctr[3];
  unroll_u32 k0 = key[0], k1 = key[1];
  for (int round = 0; round < 10; round++) {
    const unroll_u64 p0 = (unroll_u64)0xD2511F53u * c0;
    const unroll_u64 p1 = (unroll_u64)0xCD9E8D57u * c2;
    c0 = (unroll_u32)(p1 >> 32) ^ c1 ^ k0;
    c1 = (unroll_u32)p1;
    c2 = (unroll_u32)(p0 >> 32) ^ c3 ^ k1;
    c3 = (unroll_u32)p0;
    k0 += 0x9E3779B9u; /* the golden ratio */
    k1 += 0xBB67AE85u; /* sqrt(3) - 1 */
  }
  out[0] = c0;
  out[1] = c1;
  out[2] = c2;
  out[3] = c3;
}

/* The key of one site in one update: what unroll_philox_word and unroll_normal want. */
static inline unroll_philox_key unroll_philox_site_key(unroll_u64 seed, unroll_u64 update, unroll_u32 site) {
  const unroll_u32 key[2] = {(unroll_u32)seed, (unroll_u32)(seed >> 32)};
  const unroll_u32 ctr[4] = {(unroll_u32)update, (unroll_u32)(update >> 32), site, 0x6C6F726Eu};
  unroll_u32 out[4];
  unroll_philox_key site_key;
  unroll_philox_block(ctr, key, out);
  site_key.k[0] = out[0];
  site_key.k[1] = out[1];
  return site_key;
}

/* The random word of one element. Who walks over neighbouring units may take all four words of a block at once. */
static inline unroll_u32 unroll_philox_word(unroll_philox_key key, unroll_u64 t, unroll_u32 row, unroll_u32 unit) {
  const unroll_u32 ctr[4] = {unit >> 2, row, (unroll_u32)t, (unroll_u32)(t >> 32)};
  unroll_u32 out[4];
  unroll_philox_block(ctr, key.k, out);
  return out[unit & 3u];
}

/* In [0,1): the upper 24 bits, scaled by a power of two. No step rounds, so every device gets the same float. */
static inline float unroll_uniform(unroll_u32 word) { return (float)(word >> 8) * 0x1p-24f; }

#if !defined(__OPENCL_VERSION__) && !defined(__OPENCL_C_VERSION__)
/*
 * A number of the standard normal distribution, in double (Box & Muller 1958):
 *
 *   z = sqrt(-2 ln u) cos(2 pi v)        u = (w0 + 1) 2^-32 in (0,1], v = w1 2^-32 in [0,1)
 *
 * Whole quarters of a turn are taken off v while it is an integer, so that z is as good near the zeros of the cosine as
 * elsewhere. |z| <= sqrt(64 ln 2) = 6.66. Programs that call it link libm.
 */
static inline double unroll_normal_of(unroll_u32 w0, unroll_u32 w1) {
  const unroll_u32 quarters = (w1 + 0x20000000u) >> 30;                            /* to the nearest; 4 is 0 */
  const double rest = (double)(w1 - (quarters << 30) + 0x20000000u) - 536870912.0; /* of 2^-32 turns, -2^29..2^29-1 */
  const double angle = rest * (6.283185307179586 * 0x1p-32);
  const double side = (quarters & 1u) != 0 ? sin(angle) : cos(angle);
  const double length = sqrt(-2.0 * log(((double)w0 + 1.0) * 0x1p-32));
  return quarters == 1u || quarters == 2u ? -length * side : length * side;
}

/* The normal number of one element; the words are those of the layout above. */
static inline double unroll_normal(unroll_philox_key key, unroll_u64 t, unroll_u32 row, unroll_u32 unit) {
  const unroll_u32 ctr[4] = {unit >> 1, row, (unroll_u32)t, (unroll_u32)(t >> 32)};
  const unroll_u32 first = 2u * (unit & 1u);
  unroll_u32 out[4];
  unroll_philox_block(ctr, key.k, out);
  return unroll_normal_of(out[first], out[first + 1u]);
}
#endif

#endif
