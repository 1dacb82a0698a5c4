/* SPDX-License-Identifier: Apache-2.0 */
/*
 * matrix.cl: a product of small matrices by all lanes of a subgroup together, for inclusion: c [M,N] += a [M,K] · b [K,N],
 * a and b of halves, c of floats. MATRIX says by which instruction; EMULATED is plain OpenCL C with NVIDIA's division of the
 * matrices among lanes, so that everything but an instruction itself runs anywhere.
 *
 * a and b stand in local memory as rows of K values of k and, of the whole tile, more: a row for each row of a and for
 * each column of b. A word is a pair of halves, the first in its low bits. Rows begin at a multiple of 4 words.
 *
 *   matrix_subgroup, matrix_lane         which part of the work-group's product this item has
 *   matrix_a, matrix_b, matrix_sum       what a lane holds of a, b and c
 *   matrix_load_a, matrix_load_b         from local memory: the first row, words of a row, the lane
 *   matrix_multiply                      c += a · b
 *   matrix_elements                      a lane's part of c, one by one,
 *   matrix_row, matrix_column            and where the i-th of them stands
 *
 * All items of the work-group have to come to matrix_multiply: EMULATED has barriers in it.
 */
#ifndef MATRIX
#define MATRIX EMULATED
#endif
#define EMULATED 0
#define NVIDIA_K8 1  /* mma.sync m16n8k8, from compute capability 7.5 on */
#define NVIDIA_K16 2 /* mma.sync m16n8k16, from 8.0 on */
#define AMD_WMMA 3   /* gfx11, wavefronts of 32 */
#define AMD_MFMA 4   /* gfx908 and its successors, wavefronts of 64 */
#define INTEL_8 5    /* the least subgroup has 8 lanes, */
#define INTEL_16 6   /* or 16 */

#define MATRIX_K 16
#if MATRIX <= NVIDIA_K16
#define MATRIX_M 16
#define MATRIX_N 8
#define MATRIX_LANES 32
#elif MATRIX == AMD_WMMA
#define MATRIX_M 16
#define MATRIX_N 16
#define MATRIX_LANES 32
#elif MATRIX == AMD_MFMA
#define MATRIX_M 16
#define MATRIX_N 16
#define MATRIX_LANES 64
#elif MATRIX == INTEL_8
#define MATRIX_M 8
#define MATRIX_N 8
#define MATRIX_LANES 8
#else
#define MATRIX_M 8
#define MATRIX_N 16
#define MATRIX_LANES 16
#endif
#define MATRIX_ELEMENTS (MATRIX_M * MATRIX_N / MATRIX_LANES)

#if MATRIX_ELEMENTS == 4
typedef float4 matrix_sum;
static void matrix_elements(matrix_sum sum, float *of) { vstore4(sum, 0, of); }
#else
typedef float8 matrix_sum;
static void matrix_elements(matrix_sum sum, float *of) { vstore8(sum, 0, of); }
#endif

/* ---- which item is which lane ---- */
#if MATRIX >= INTEL_8
#pragma OPENCL EXTENSION cl_intel_subgroups : enable
#define MATRIX_SUBGROUP __attribute__((intel_reqd_sub_group_size(MATRIX_LANES)))
static int matrix_subgroup(void) { return (int)get_sub_group_id(); }
static int matrix_lane(void) { return (int)get_sub_group_local_id(); }
#else
/* Vendors put work-items of a group of one dimension into subgroups in their order. */
#define MATRIX_SUBGROUP
static int matrix_subgroup(void) { return (int)get_local_id(0) / MATRIX_LANES; }
static int matrix_lane(void) { return (int)get_local_id(0) % MATRIX_LANES; }
#endif

/* Words of local memory that matrix_multiply needs for each subgroup. */
#if MATRIX == EMULATED
#define MATRIX_EXCHANGE ((MATRIX_M + MATRIX_N) * MATRIX_K / 2)
#else
#define MATRIX_EXCHANGE 1
#endif

/* ---- NVIDIA's division: lane 4·g + t has words t and t + 4 of rows g and g + 8 of a, of column g of b ---- */
#if MATRIX <= NVIDIA_K16
typedef struct matrix_a {
  uint of[4]; /* row g, row g + 8; then the second 8 values of k */
} matrix_a;
typedef struct matrix_b {
  uint of[2];
} matrix_b;

static matrix_a matrix_load_a(const __local uint *rows, int words, int lane) {
  const __local uint *row = rows + lane / 4 * words + lane % 4, *below = row + 8 * words;
  const matrix_a a = {{row[0], below[0], row[4], below[4]}};
  return a;
}

static matrix_b matrix_load_b(const __local uint *rows, int words, int lane) {
  const __local uint *row = rows + lane / 4 * words + lane % 4;
  const matrix_b b = {{row[0], row[4]}};
  return b;
}

static int matrix_row(int lane, int i) { return lane / 4 + i / 2 * 8; }
static int matrix_column(int lane, int i) { return lane % 4 * 2 + i % 2; }
#endif

#if MATRIX == EMULATED
/* Lanes put what they have of a and b where all of the subgroup find it; each adds in the order of k. */
static matrix_sum matrix_multiply(matrix_sum sum, matrix_a a, matrix_b b, int lane, __local uint *exchange) {
  __local uint *as = exchange, *bs = exchange + MATRIX_M * MATRIX_K / 2;
  for (int i = 0; i < 4; i++)
    as[(lane / 4 + i % 2 * 8) * 8 + lane % 4 + i / 2 * 4] = a.of[i];
  for (int i = 0; i < 2; i++)
    bs[lane / 4 * 8 + lane % 4 + i * 4] = b.of[i];
  barrier(CLK_LOCAL_MEM_FENCE);
  float of[MATRIX_ELEMENTS];
  matrix_elements(sum, of);
  for (int i = 0; i < MATRIX_ELEMENTS; i++) {
    const __local half *row = (const __local half *)(as + matrix_row(lane, i) * 8);
    const __local half *column = (const __local half *)(bs + matrix_column(lane, i) * 8);
    for (int k = 0; k < MATRIX_K; k++)
      of[i] = fma(vload_half(k, row), vload_half(k, column), of[i]);
  }
  barrier(CLK_LOCAL_MEM_FENCE);
  return vload4(0, of);
}
#endif

#if MATRIX == NVIDIA_K8 || MATRIX == NVIDIA_K16
static matrix_sum matrix_multiply(matrix_sum sum, matrix_a a, matrix_b b, int lane, __local uint *exchange) {
  float x, y, z, w;
#if MATRIX == NVIDIA_K8
#define MMA_K8(a0, a1, b0)                                                                                          \
  __asm__ volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%7,%8,%9,%10};" \
                   : "=f"(x), "=f"(y), "=f"(z), "=f"(w)                                                             \
                   : "r"(a0), "r"(a1), "r"(b0), "f"(sum.x), "f"(sum.y), "f"(sum.z), "f"(sum.w))
  MMA_K8(a.of[0], a.of[1], b.of[0]);
  sum = (float4)(x, y, z, w);
  MMA_K8(a.of[2], a.of[3], b.of[1]);
#else
  __asm__ volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
                   "{%10,%11,%12,%13};"
                   : "=f"(x), "=f"(y), "=f"(z), "=f"(w)
                   : "r"(a.of[0]), "r"(a.of[1]), "r"(a.of[2]), "r"(a.of[3]), "r"(b.of[0]), "r"(b.of[1]), "f"(sum.x),
                     "f"(sum.y), "f"(sum.z), "f"(sum.w));
#endif
  return (float4)(x, y, z, w);
}
#endif

/* ---- AMD: the same for a and b. gfx11: each lane has all k of a row, and lanes 16 apart have the same ---- */
#if MATRIX == AMD_WMMA || MATRIX == AMD_MFMA
#pragma OPENCL EXTENSION cl_khr_fp16 : enable
#if MATRIX == AMD_WMMA
typedef uint8 matrix_a;
static matrix_a matrix_load_a(const __local uint *rows, int words, int lane) {
  const __local uint4 *row = (const __local uint4 *)(rows + lane % 16 * words);
  return (uint8)(row[0], row[1]);
}
static int matrix_row(int lane, int i) { return i * 2 + lane / 16; }
#else
typedef uint2 matrix_a; /* 4 values of k */
static matrix_a matrix_load_a(const __local uint *rows, int words, int lane) {
  return *(const __local uint2 *)(rows + lane % 16 * words + lane / 16 * 2);
}
static int matrix_row(int lane, int i) { return lane / 16 * 4 + i; }
#endif
typedef matrix_a matrix_b;
static matrix_b matrix_load_b(const __local uint *rows, int words, int lane) {
  return matrix_load_a(rows, words, lane);
}
static int matrix_column(int lane, int i) { return lane % 16; }

static matrix_sum matrix_multiply(matrix_sum sum, matrix_a a, matrix_b b, int lane, __local uint *exchange) {
#if MATRIX == AMD_WMMA
  return __builtin_amdgcn_wmma_f32_16x16x16_f16_w32(as_half16(a), as_half16(b), sum);
#else
  return __builtin_amdgcn_mfma_f32_16x16x16f16(as_half4(a), as_half4(b), sum, 0, 0, 0);
#endif
}
#endif

/* ---- Intel: lanes divide the k of each row of a; each has all k of its own column of b, and that column of c ---- */
#if MATRIX >= INTEL_8
#if MATRIX == INTEL_8
typedef int8 matrix_a; /* lane l: word l of each row */
static matrix_a matrix_load_a(const __local uint *rows, int words, int lane) {
  const __local uint *at = rows + lane;
  return as_int8((uint8)(at[0], at[words], at[2 * words], at[3 * words], at[4 * words], at[5 * words], at[6 * words],
                         at[7 * words]));
}
#else
typedef short8 matrix_a; /* lane l: half l of each row */
static matrix_a matrix_load_a(const __local uint *rows, int words, int lane) {
  const __local ushort *at = (const __local ushort *)rows + lane;
  words *= 2;
  return as_short8((ushort8)(at[0], at[words], at[2 * words], at[3 * words], at[4 * words], at[5 * words],
                             at[6 * words], at[7 * words]));
}
#endif
typedef int8 matrix_b;
static matrix_b matrix_load_b(const __local uint *rows, int words, int lane) {
  const __local uint4 *row = (const __local uint4 *)(rows + lane * words);
  return as_int8((uint8)(row[0], row[1]));
}
static int matrix_row(int lane, int i) { return i; }
static int matrix_column(int lane, int i) { return lane; }

static matrix_sum matrix_multiply(matrix_sum sum, matrix_a a, matrix_b b, int lane, __local uint *exchange) {
  return intel_sub_group_f16_f16_matrix_mad_k16(a, b, sum);
}
#endif
