/* SPDX-License-Identifier: Apache-2.0 */
/*
 * matmul_matrix.cl: y = op(a)·op(b) + c in floats, multiplied by the instruction of matrix.cl: a and b are rounded to half on
 * their way through local memory, sums stay in float.
 *
 * A work-group of SUBGROUPS_M x SUBGROUPS_N subgroups owns a tile of y, a subgroup FRAGMENTS_M x FRAGMENTS_N of the
 * instruction's products in it. Sizes, by arithmetic: for a value of k a tile of T x T reads 8·T bytes of global memory
 * for T·T multiply-adds, 16 a byte at 128, 8 at 64. A subgroup's part of S x R reads 2·(S+R) bytes of local memory for S·R:
 * 10.7 a byte at 64 x 32, 8 at 32 x 32; a multiprocessor of an H100 does 8 a byte that its local memory delivers.
 *
 * DEPTH values of k stand in each of two buffers: one is read while the next one's values are on their way. Rows there
 * are 4 words longer than their values: 8 rows begin in 8 different groups of 4 banks of 32. For the same reason
 * neighbouring items fetch 4 pairs of k of 8 rows, which are whole sectors of 32 bytes of global memory either way.
 * Groups lie in dimension 0, as in matmul_tile.cl. Partial sums of CHUNK values of k are added in order.
 *
 * PACKED: b is of halves already, by `pack`: a row for each of its N columns, of ROW_WORDS(K) words, pairs along k.
 */
#ifndef SUBGROUPS_M
#define SUBGROUPS_M 2
#endif
#ifndef SUBGROUPS_N
#define SUBGROUPS_N 2
#endif
#ifndef FRAGMENTS_M
#define FRAGMENTS_M 2
#endif
#ifndef FRAGMENTS_N
#define FRAGMENTS_N 4
#endif
#ifndef TRANS_A
#define TRANS_A 0
#endif
#ifndef TRANS_B
#define TRANS_B 0
#endif
#ifndef HAVE_C
#define HAVE_C 0
#endif
#ifndef PACKED
#define PACKED 0
#endif
#ifndef CHUNK /* a multiple of DEPTH */
#define CHUNK 512
#endif
#include "matrix.cl"

#define DEPTH (2 * MATRIX_K)
#define PART_M (FRAGMENTS_M * MATRIX_M)
#define PART_N (FRAGMENTS_N * MATRIX_N)
#define TILE_M (SUBGROUPS_M * PART_M)
#define TILE_N (SUBGROUPS_N * PART_N)
#define ITEMS (SUBGROUPS_M * SUBGROUPS_N * MATRIX_LANES)
#define PAIRS (DEPTH / 2)
#define WORDS (PAIRS + 4)               /* of a row in local memory */
#define EACH_A (TILE_M * PAIRS / ITEMS) /* pairs that an item fetches */
#define EACH_B (TILE_N * PAIRS / ITEMS)

#define BLOCKS (PAIRS / 4)             /* of 4 pairs in a row: 32 items have one of them, of 8 rows */
#define STEP (ITEMS / 32 / BLOCKS * 8) /* rows between those that an item fetches */

#define ROW_WORDS(K) (((K) + DEPTH - 1) / DEPTH * PAIRS)

/*
 * A pair of neighbours along k, `along` elements apart, of which the first `n` exist: the others are 0 in both a and b, and
 * get into no sum.
 */
static float2 fetch(const __global float *p, int along, long n) {
  return (float2)(n > 0 ? p[0] : 0, n > 1 ? p[along] : 0);
}

static void put(__local uint *at, float2 v) { vstore_half2_rte(v, 0, (__local half *)at); }

/* The products of MATRIX_K values of k of a subgroup's rows. */
static void multiply(matrix_sum sum[FRAGMENTS_M][FRAGMENTS_N], const __local uint *as, const __local uint *bs, int lane,
                     __local uint *exchange) {
  matrix_a a[FRAGMENTS_M];
#pragma unroll
  for (int i = 0; i < FRAGMENTS_M; i++)
    a[i] = matrix_load_a(as + i * MATRIX_M * WORDS, WORDS, lane);
#pragma unroll
  for (int j = 0; j < FRAGMENTS_N; j++) {
    const matrix_b b = matrix_load_b(bs + j * MATRIX_N * WORDS, WORDS, lane);
#pragma unroll
    for (int i = 0; i < FRAGMENTS_M; i++)
      sum[i][j] = matrix_multiply(sum[i][j], a[i], b, lane, exchange);
  }
}

/* An item makes a word, neighbours read neighbours; past the last value of k are zeros, up to a whole buffer. */
__kernel void pack(const __global float *b, long b_at, __global uint *out, long out_at, long N, long K, long b_row,
                   long b_batch, long out_batch, long items) {
  const long item = (long)get_global_id(0), words = ROW_WORDS(K), batch = item / (N * words);
  const long i = item - batch * N * words;
  if (item >= items)
    return;
#if TRANS_B
  const long n = i / words, word = i - n * words, at = b_at + batch * b_batch + n * b_row + 2 * word;
  const int along = 1;
#else
  const long word = i / N, n = i - word * N, at = b_at + batch * b_batch + 2 * word * b_row + n;
  const int along = (int)b_row;
#endif
  vstore_half2_rte(fetch(b + at, along, K - 2 * word), 0,
                   (__global half *)(out + out_at + batch * out_batch + n * words + word));
}

/* What an item fetches of b: a pair, or a word that needs no more than to be copied. */
#if PACKED
typedef uint stored;
typedef uint stored_pair;
static uint fetch_b(const __global uint *p, int along, long n) { return n > 0 ? p[0] : 0; }
static void put_b(__local uint *at, uint v) { *at = v; }
#else
typedef float stored;
typedef float2 stored_pair;
static float2 fetch_b(const __global float *p, int along, long n) { return fetch(p, along, n); }
static void put_b(__local uint *at, float2 v) { put(at, v); }
#endif

__kernel MATRIX_SUBGROUP __attribute__((reqd_work_group_size(ITEMS, 1, 1))) void
product(const __global float *a, long a_at, const __global stored *b, long b_at, const __global float *c, long c_at,
        __global float *y, long y_at, long M, long N, long K, long k_block, long a_row, long b_row, long c_row,
        long a_batch, long b_batch, long c_batch) {
  __local uint as[2][TILE_M * WORDS] __attribute__((aligned(16))), bs[2][TILE_N * WORDS] __attribute__((aligned(16)));
  __local uint exchange[SUBGROUPS_M * SUBGROUPS_N * MATRIX_EXCHANGE];
  const int item = (int)get_local_id(0), lane = matrix_lane(), subgroup = matrix_subgroup();
  __local uint *own_exchange = exchange + subgroup * MATRIX_EXCHANGE;
  const int part_m = subgroup / SUBGROUPS_N * PART_M, part_n = subgroup % SUBGROUPS_N * PART_N;
  const long tiles_m = (M + TILE_M - 1) / TILE_M, tiles_n = (N + TILE_N - 1) / TILE_N;
  const long blocks = (K + k_block - 1) / k_block;
  const long group = (long)get_group_id(0), strip = group / tiles_n, slab = strip / tiles_m, batch = slab / blocks;
  const long n0 = (group - strip * tiles_n) * TILE_N, m0 = (strip - slab * tiles_m) * TILE_M;
  const long block = slab - batch * blocks, first = block * k_block, last = min(first + k_block, K);
  /* The rows of a tile are within reach of an int: whoever launches this sees to it. */
  const int a_across = TRANS_A ? 1 : (int)a_row, a_along = TRANS_A ? (int)a_row : 1;
#if PACKED
  const int b_across = (int)ROW_WORDS(K), b_along = 1, b_step = 1;
#else
  const int b_across = TRANS_B ? (int)b_row : 1, b_along = TRANS_B ? 1 : (int)b_row, b_step = 2;
#endif
  const int pair = item % 4 + item / 32 % BLOCKS * 4, row = item / 4 % 8 + item / 32 / BLOCKS * 8;
  const int word = row * WORDS + pair;
  a += a_at + batch * a_batch + m0 * a_across + (first + 2 * pair) * a_along;
  b += b_at + batch * b_batch + n0 * b_across + (first / 2 + pair) * b_step * b_along;
  y += y_at + (batch * blocks + block) * M * N;
  /* Rows past the last one are the last one: what becomes of them is not stored. */
  const int last_m = (int)min(M - m0, (long)TILE_M) - 1, last_n = (int)min(N - n0, (long)TILE_N) - 1;
  int at_a[EACH_A], at_b[EACH_B];
  float2 next_a[EACH_A];
  stored_pair next_b[EACH_B];
  matrix_sum sum[FRAGMENTS_M][FRAGMENTS_N], total[FRAGMENTS_M][FRAGMENTS_N];
#pragma unroll
  for (int i = 0; i < EACH_A; i++) {
    at_a[i] = min(row + i * STEP, last_m) * a_across;
    put(as[0] + word + i * STEP * WORDS, fetch(a + at_a[i], a_along, last - first - 2 * pair));
  }
#pragma unroll
  for (int i = 0; i < EACH_B; i++) {
    at_b[i] = min(row + i * STEP, last_n) * b_across;
    put_b(bs[0] + word + i * STEP * WORDS, fetch_b(b + at_b[i], b_along, last - first - 2 * pair));
  }
#pragma unroll
  for (int i = 0; i < FRAGMENTS_M; i++)
#pragma unroll
    for (int j = 0; j < FRAGMENTS_N; j++)
      sum[i][j] = total[i][j] = 0;
  barrier(CLK_LOCAL_MEM_FENCE);
  int buffer = 0;
  for (long k0 = first; k0 < last; k0 += DEPTH) {
    const long k1 = k0 + DEPTH, left = last - k1 - 2 * pair;
    a += (long)DEPTH * a_along;
    b += (long)PAIRS * b_step * b_along;
    /* Half of the products while a comes, half while b does: registers for one of them are enough. */
#pragma unroll
    for (int i = 0; i < EACH_A; i++)
      next_a[i] = fetch(a + at_a[i], a_along, left);
    multiply(sum, as[buffer] + part_m * WORDS, bs[buffer] + part_n * WORDS, lane, own_exchange);
#pragma unroll
    for (int i = 0; i < EACH_A; i++)
      put(as[1 - buffer] + word + i * STEP * WORDS, next_a[i]);
#pragma unroll
    for (int i = 0; i < EACH_B; i++)
      next_b[i] = fetch_b(b + at_b[i], b_along, left);
    multiply(sum, as[buffer] + part_m * WORDS + MATRIX_K / 2, bs[buffer] + part_n * WORDS + MATRIX_K / 2, lane,
             own_exchange);
#pragma unroll
    for (int i = 0; i < EACH_B; i++)
      put_b(bs[1 - buffer] + word + i * STEP * WORDS, next_b[i]);
    if ((k1 - first) % CHUNK == 0)
#pragma unroll
      for (int i = 0; i < FRAGMENTS_M; i++)
#pragma unroll
        for (int j = 0; j < FRAGMENTS_N; j++) {
          total[i][j] += sum[i][j];
          sum[i][j] = 0;
        }
    buffer = 1 - buffer;
    barrier(CLK_LOCAL_MEM_FENCE);
  }
#if HAVE_C
  c += c_at + batch * c_batch;
#endif
#pragma unroll
  for (int i = 0; i < FRAGMENTS_M; i++)
#pragma unroll
    for (int j = 0; j < FRAGMENTS_N; j++) {
      float of[MATRIX_ELEMENTS];
      matrix_elements(total[i][j] + sum[i][j], of);
#pragma unroll
      for (int e = 0; e < MATRIX_ELEMENTS; e++) {
        const long m = m0 + part_m + i * MATRIX_M + matrix_row(lane, e);
        const long n = n0 + part_n + j * MATRIX_N + matrix_column(lane, e);
#if HAVE_C
        if (m < M && n < N)
          of[e] += c[m * c_row + n];
#endif
        if (m < M && n < N)
          y[m * N + n] = of[e];
      }
    }
}
