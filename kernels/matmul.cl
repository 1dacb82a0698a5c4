/* SPDX-License-Identifier: Apache-2.0 */
/*
 * matmul.cl: y = op(a)·op(b) + c for CPU devices: a tile of ROWS x PANEL_ROW of y in registers; b in panels as
 * matmul_pack.cl makes them, of PANEL, or row-major as it stands. A work-group is one work-item, and there is no barrier.
 *
 * A sum over more than CHUNK values of k goes through partial sums of CHUNK, so that the rounding error of f32 grows
 * with K/CHUNK + CHUNK and not with K. With BLOCKS the sum starts from c, and the partial sums follow from the last
 * (1) or from the first (2).
 */
#include "prefetch.cl"
#include "vectors.cl"
#ifndef VECS /* vectors in a row of the tile */
#define VECS 2
#endif
#ifndef ROWS /* rows of the tile: ROWS·VECS accumulators, VECS of b and one of a must fit in the registers */
#define ROWS 6
#endif
#ifndef TRANS_A
#define TRANS_A 0
#endif
#ifndef SIDES /* a, which stands on its side, is in panels of ROWS */
#define SIDES 0
#endif
#ifndef PACKED /* b is in panels */
#define PACKED 1
#endif
#ifndef HAVE_C
#define HAVE_C 0
#endif
#ifndef CHUNK
#define CHUNK 512
#endif
#ifndef AHEAD /* values of k that are asked for before they are needed, where a stands on its side */
#define AHEAD 64
#endif
#define PANEL_ROW (WIDTH * VECS)
#ifndef BLOCKS
#define BLOCKS 0
#endif
#if HAVE_C
#define ADDEND(m, n) load(c + (m)*c_row + (n), N - (n))
#else
#define ADDEND(m, n) (vec)(0)
#endif

/*
 * One item: ROWS x PANEL_ROW of y, over k_block values of k; items count tiles of rows fastest, then panels, blocks of k
 * and batches. y of block s starts s·M·N elements on. Rows of a and b, as they lie in memory, are a_row and b_row elements
 * apart. Rows past M repeat the last one and are not stored.
 */
__kernel VECTORISED void product(const __global real *a, long a_at, const __global panel *b, long b_at,
                                 const __global real *c, long c_at, __global real *y, long y_at, long M, long N, long K,
                                 long k_block, long a_row, long b_row, long c_row, long a_batch, long b_batch,
                                 long c_batch) {
  const long tiles = (M + ROWS - 1) / ROWS, panels = (N + PANEL_ROW - 1) / PANEL_ROW,
             blocks = (K + k_block - 1) / k_block;
  const long id = (long)get_global_id(0), column = id / tiles, slab = column / panels, batch = slab / blocks;
  const long m0 = (id - column * tiles) * ROWS, n0 = (column - slab * panels) * PANEL_ROW,
             block = slab - batch * blocks;
  const long k0 = block * k_block, k1 = min(k0 + k_block, K);
  a += a_at + batch * a_batch;
  y += y_at + (batch * blocks + block) * M * N;
#if HAVE_C
  c += c_at + batch * c_batch;
  for (int r = 0; r < ROWS && m0 + r < M; r++) /* far away, and needed only after the loop */
    for (int v = 0; v < VECS && n0 + v * WIDTH < N; v++)
      PREFETCH(c + (m0 + r) * c_row + n0 + v * WIDTH);
#endif
#if PACKED
  b += b_at + batch * b_batch + n0 * K + k0 * PANEL_ROW;
#define B_ROW PANEL_ROW
#else
  b += b_at + batch * b_batch + n0 + k0 * b_row;
#define B_ROW b_row
#endif
  const __global real *row[ROWS];
#if SIDES
#define A_STEP ROWS
#define ROW_AT(r, k) (a + m0 * K + (k)*ROWS + (r))
#elif TRANS_A
#define A_STEP a_row
#define ROW_AT(r, k) (a + min(m0 + (r), M - 1) + (k)*a_row)
#else
#define A_STEP 1
#define ROW_AT(r, k) (a + min(m0 + (r), M - 1) * a_row + (k))
#endif
#pragma unroll
  for (int r = 0; r < ROWS; r++)
    row[r] = ROW_AT(r, k0);

  vec total[ROWS][VECS]; /* indexed by loops that are not unrolled, so in memory; sum stays in registers */
  for (int r = 0; r < ROWS; r++)
    for (int v = 0; v < VECS; v++)
#if BLOCKS && HAVE_C
      total[r][v] = n0 + v * WIDTH < N ? ADDEND(min(m0 + r, M - 1), n0 + v * WIDTH) : (vec)(0);
#else
      total[r][v] = (vec)(0);
#endif
#if BLOCKS
  const __global panel *b_first = b;
  const long chunks = (k1 - k0 + CHUNK - 1) / CHUNK;
  for (long chunk = 0; chunk < chunks; chunk++) {
    const long first = k0 + (BLOCKS == 1 ? chunks - 1 - chunk : chunk) * CHUNK;
#pragma unroll
    for (int r = 0; r < ROWS; r++)
      row[r] = ROW_AT(r, first);
    b = b_first + (first - k0) * B_ROW;
#else
  for (long first = k0; first < k1; first += CHUNK) {
#endif
    const long steps = min((long)CHUNK, k1 - first);
    vec sum[ROWS][VECS];
#pragma unroll
    for (int r = 0; r < ROWS; r++)
#pragma unroll
      for (int v = 0; v < VECS; v++)
        sum[r][v] = (vec)(0);
#if !PACKED
    if (n0 + PANEL_ROW > N)
      for (long k = 0; k < steps; k++, b += B_ROW) {
#pragma unroll
        for (int v = 0; v < VECS; v++) {
          const vec x = load(b + v * WIDTH, N - n0 - v * WIDTH);
#pragma unroll
          for (int r = 0; r < ROWS; r++)
            sum[r][v] = fma((vec)(row[r][k * A_STEP]), x, sum[r][v]);
        }
      }
    else
#endif
      for (long k = 0; k < steps; k++, b += B_ROW) {
        vec x[VECS];
#if TRANS_A && !SIDES /* a line of every row of a, which is further than the processor looks ahead */
        PREFETCH(row[0] + (k + AHEAD) * a_row);
#endif
#pragma unroll
        for (int v = 0; v < VECS; v++)
          x[v] = PANEL_VLOAD(v, b);
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
          const vec s = (vec)(row[r][k * A_STEP]);
#pragma unroll
          for (int v = 0; v < VECS; v++)
            sum[r][v] = fma(s, x[v], sum[r][v]);
        }
      }
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
#if !BLOCKS
      row[r] += CHUNK * A_STEP;
#endif
#pragma unroll
      for (int v = 0; v < VECS; v++)
        total[r][v] += sum[r][v];
    }
  }
  for (int r = 0; r < ROWS && m0 + r < M; r++)
    for (int v = 0; v < VECS && n0 + v * WIDTH < N; v++) {
      const long n = n0 + v * WIDTH;
#if BLOCKS
      store(total[r][v], y + (m0 + r) * N + n, N - n);
#else
      store(total[r][v] + ADDEND(m0 + r, n), y + (m0 + r) * N + n, N - n);
#endif
    }
}
