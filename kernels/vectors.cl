/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vectors.cl: what kernels with a work-item per WIDTH neighbouring elements have in common, for inclusion: the type vec
 * of WIDTH lanes (1, 2, 4, 8 or 16) of the type real, and its loads from and stores to global memory; and of what packed
 * weights are stored as: PANEL, which is real or, where real is float, half. Half is for memory alone, so that no
 * extension is needed.
 */
#ifndef VECTORS
#define VECTORS

#ifdef cl_khr_fp64
#pragma OPENCL EXTENSION cl_khr_fp64 : enable
#endif
#ifndef real
#define real float
#endif
#ifndef WIDTH
#define WIDTH 4
#endif
#define CAT_(a, b) a##b
#define CAT(a, b) CAT_(a, b)
#if WIDTH == 1
#define vec real
#else
#define vec CAT(real, WIDTH)
#endif

/*
 * Of a kernel whose work-items work on vectors: a compiler that makes vectors of neighbouring work-items, as Intel's
 * does, is told not to do so again. A sum over columns is 25 times faster there for it.
 */
#define VECTORISED __attribute__((vec_type_hint(vec)))

/* As vload and vstore, which PoCL cuts into pieces. */
typedef struct loose_vec {
  vec lanes;
} __attribute__((packed, aligned(sizeof(real)))) loose_vec;
#define VLOAD(i, p) (((const __global loose_vec *)(p))[i].lanes)
#define VSTORE(v, i, p) (((__global loose_vec *)(p))[i].lanes = (v))

/*
 * Panels of packed weights: the type behind pointers to them, the i-th vec of one, and the i-th scalar. Rounded to the
 * nearest even on the way in.
 */
#ifndef PANEL
#define PANEL real
#endif
#define HALVES_half 1
#define HALVES CAT(HALVES_, PANEL) /* 1 where panels are of half; any other name is 0 to #if */
#if HALVES
#define panel half
#define PANEL_AT(p, i) vload_half(i, p)
#if WIDTH == 1
#define PANEL_VLOAD(i, p) vload_half(i, p)
#define PANEL_VSTORE(v, i, p) vstore_half_rte(v, i, p)
#else
#if WIDTH == 16 && defined(__x86_64__) && defined(__AVX512F__)
/* On PoCL, whose vload_half16 is two loads of eight: a layer of one row takes a fifth longer with it. */
typedef half halves __attribute__((ext_vector_type(16)));
typedef struct loose_halves {
  halves lanes;
} __attribute__((packed, aligned(2))) loose_halves;
#define PANEL_VLOAD(i, p) __builtin_convertvector(((const __global loose_halves *)(p))[i].lanes, vec)
#else
#define PANEL_VLOAD(i, p) CAT(vload_half, WIDTH)(i, p)
#endif
#define PANEL_VSTORE(v, i, p) CAT(CAT(vstore_half, WIDTH), _rte)(v, i, p)
#endif
#else
#define panel real
#define PANEL_AT(p, i) ((p)[i])
#define PANEL_VLOAD(i, p) VLOAD(i, p)
#define PANEL_VSTORE(v, i, p) VSTORE(v, i, p)
#endif

/* One vector of two, lane by lane: Oclgrind 21.10 crashes where a vector is widened as a whole. */
#if WIDTH >= 4
static CAT(real, 4) join2(CAT(real, 2) a, CAT(real, 2) b) { return (CAT(real, 4))(a.s0, a.s1, b.s0, b.s1); }
#endif
#if WIDTH >= 8
static CAT(real, 8) join4(CAT(real, 4) a, CAT(real, 4) b) {
  return (CAT(real, 8))(a.s0, a.s1, a.s2, a.s3, b.s0, b.s1, b.s2, b.s3);
}
#endif
#if WIDTH >= 16
static CAT(real, 16) join8(CAT(real, 8) a, CAT(real, 8) b) {
  return (CAT(real, 16))(a.s0, a.s1, a.s2, a.s3, a.s4, a.s5, a.s6, a.s7, b.s0, b.s1, b.s2, b.s3, b.s4, b.s5, b.s6,
                         b.s7);
}
#endif

/* A vector of which n lanes exist: the others are 0. By halves: a loop over lanes would need it in memory. */
static vec load(const __global real *p, long n) {
  if (n >= WIDTH)
    return VLOAD(0, p);
#if WIDTH == 1
  return 0;
#else
  n = max(n, 0L);
  const CAT(real, 2) v2 = (CAT(real, 2))(n & 1 ? p[n & -2] : (real)0, 0);
#if WIDTH == 2
  return v2;
#else
  const CAT(real, 4) v4 = n & 2 ? join2(vload2(0, p + (n & -4)), v2) : join2(v2, (CAT(real, 2))(0));
#if WIDTH == 4
  return v4;
#else
  const CAT(real, 4) none = (CAT(real, 4))(0);
  const CAT(real, 8) v8 = n & 4 ? join4(vload4(0, p + (n & -8)), v4) : join4(v4, none);
#if WIDTH == 8
  return v8;
#else
  return n & 8 ? join8(vload8(0, p), v8) : join8(v8, (CAT(real, 8))(0));
#endif
#endif
#endif
#endif
}

static void store(vec v, __global real *p, long n) {
  if (n >= WIDTH) {
    VSTORE(v, 0, p);
    return;
  }
  n = max(n, 0L);
#if WIDTH >= 16
  CAT(real, 8) v8 = v.lo;
  if (n & 8) {
    vstore8(v8, 0, p);
    v8 = v.hi;
  }
#elif WIDTH == 8
  const vec v8 = v;
#endif
#if WIDTH >= 8
  CAT(real, 4) v4 = v8.lo;
  if (n & 4) {
    vstore4(v4, 0, p + (n & -8));
    v4 = v8.hi;
  }
#elif WIDTH == 4
  const vec v4 = v;
#endif
#if WIDTH >= 4
  CAT(real, 2) v2 = v4.lo;
  if (n & 2) {
    vstore2(v2, 0, p + (n & -4));
    v2 = v4.hi;
  }
#elif WIDTH == 2
  const vec v2 = v;
#endif
#if WIDTH >= 2
  if (n & 1)
    p[n & -2] = v2.lo;
#endif
}

#endif
