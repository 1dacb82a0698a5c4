/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layer_masks.cl: h_mask, keep_h and keep_c of a layer (see unroll/plugin.h), for inclusion by layer_forward.cl and
 * layer_backward.cl. H_MASK is 1 where there is an h_mask; ZONE_H and ZONE_C are 1 where keep is of bools, 2 where it
 * is of reals, 0 where there is none. keep is [T][B][H] with a step of B·H elements, or [B][H] with a step of 0.
 */
#define ZONE_TYPE_1 uchar
#define ZONE_TYPE_2 real
#define ZONE_LOAD_1 load_bools
#define ZONE_LOAD_2 load
#if ZONE_H
#define zone_h_t CAT(ZONE_TYPE_, ZONE_H)
#define load_zone_h CAT(ZONE_LOAD_, ZONE_H)
#endif
#if ZONE_C
#define zone_c_t CAT(ZONE_TYPE_, ZONE_C)
#define load_zone_c CAT(ZONE_LOAD_, ZONE_C)
#endif

#if ZONE_H == 1 || ZONE_C == 1
#if WIDTH > 1
typedef struct loose_bools { /* see loose_vec */
  CAT(uchar, WIDTH) lanes;
} __attribute__((packed)) loose_bools;
#endif

/* A vector of 0 and 1, of which n lanes exist: the others are 0. */
static vec load_bools(const __global uchar *p, long n) {
#if WIDTH == 1
  return n > 0 ? (real)p[0] : (real)0;
#else
  if (n >= WIDTH)
    return CAT(convert_, vec)(((const __global loose_bools *)p)->lanes);
  vec v = (vec)(0);
  for (int i = 0; i < WIDTH; i++)
    if (i < n)
      ((real *)&v)[i] = (real)p[i];
  return v;
#endif
}
#endif

/* keep·was + (1 - keep)·is: exactly one of them where keep is 0 or 1. */
static vec zoned(vec keep, vec was, vec is) { return fma(keep, was, ((vec)(1) - keep) * is); }
