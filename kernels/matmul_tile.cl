/* SPDX-License-Identifier: Apache-2.0 */
/*
 * matmul_tile.cl: y = op(a)·op(b) + c for devices with local memory and many work-items. A work-group of SIDE x SIDE
 * items owns a tile of y, SIDE·EACH on a side; slices of DEPTH values of k of both matrices pass through local memory.
 * Groups lie in dimension 0: 65,535 is the limit of the others on some devices. Rows in local memory are padded by one
 * against bank conflicts. Partial sums of CHUNK values of k are added in order; with BLOCKS
 * they are added to c, from the last (1) or from the first (2).
 */
#ifdef cl_khr_fp64
#pragma OPENCL EXTENSION cl_khr_fp64 : enable
#endif
#ifndef real
#define real float
#endif
#ifndef SIDE
#define SIDE 8
#endif
#ifndef EACH
#define EACH 4
#endif
#ifndef DEPTH
#define DEPTH 16
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
#ifndef CHUNK /* a multiple of DEPTH */
#define CHUNK 512
#endif
#ifndef BLOCKS
#define BLOCKS 0
#endif
#define TILE (SIDE * EACH)

__kernel __attribute__((reqd_work_group_size(SIDE * SIDE, 1, 1))) void
product(const __global real *a, long a_at, const __global real *b, long b_at, const __global real *c, long c_at,
        __global real *y, long y_at, long M, long N, long K, long k_block, long a_row, long b_row, long c_row,
        long a_batch, long b_batch, long c_batch) {
  __local real as[DEPTH][TILE + 1], bs[DEPTH][TILE + 1];
  const int item = (int)get_local_id(0), row = item / SIDE, column = item - row * SIDE;
  const long tiles_m = (M + TILE - 1) / TILE, tiles_n = (N + TILE - 1) / TILE, blocks = (K + k_block - 1) / k_block;
  const long group = (long)get_group_id(0), strip = group / tiles_n, slab = strip / tiles_m, batch = slab / blocks;
  const long n0 = (group - strip * tiles_n) * TILE, m0 = (strip - slab * tiles_m) * TILE, block = slab - batch * blocks;
  const long first = block * k_block, last = min(first + k_block, K);
  a += a_at + batch * a_batch;
  b += b_at + batch * b_batch;
  y += y_at + (batch * blocks + block) * M * N;
  real sum[EACH][EACH], total[EACH][EACH]; /* in registers, where every loop over them is unrolled */
#pragma unroll
  for (int i = 0; i < EACH; i++)
#pragma unroll
    for (int j = 0; j < EACH; j++)
      sum[i][j] = total[i][j] = 0;
#if HAVE_C
  c += c_at + batch * c_batch;
#endif
#if BLOCKS
#if HAVE_C
#pragma unroll
  for (int i = 0; i < EACH; i++)
#pragma unroll
    for (int j = 0; j < EACH; j++) {
      const long m = m0 + row + i * SIDE, n = n0 + column + j * SIDE;
      if (m < M && n < N)
        total[i][j] = c[m * c_row + n];
    }
#endif
  const long chunks = (last - first + CHUNK - 1) / CHUNK;
  for (long chunk = 0; chunk < chunks; chunk++) {
    const long from = first + (BLOCKS == 1 ? chunks - 1 - chunk : chunk) * CHUNK, to = min(from + CHUNK, last);
#else
  {
    const long from = first, to = last;
#endif
    for (long k0 = from; k0 < to; k0 += DEPTH) {
      /* Neighbouring items read neighbouring elements: which index runs fastest depends on the layout. */
      for (int i = item; i < DEPTH * TILE; i += SIDE * SIDE) {
#if TRANS_A
        const int k = i / TILE, m = i % TILE;
        as[k][m] = k0 + k < to && m0 + m < M ? a[(k0 + k) * a_row + m0 + m] : 0;
#else
        const int k = i % DEPTH, m = i / DEPTH;
        as[k][m] = k0 + k < to && m0 + m < M ? a[(m0 + m) * a_row + k0 + k] : 0;
#endif
      }
      for (int i = item; i < DEPTH * TILE; i += SIDE * SIDE) {
#if TRANS_B
        const int k = i % DEPTH, n = i / DEPTH;
        bs[k][n] = k0 + k < to && n0 + n < N ? b[(n0 + n) * b_row + k0 + k] : 0;
#else
        const int k = i / TILE, n = i % TILE;
        bs[k][n] = k0 + k < to && n0 + n < N ? b[(k0 + k) * b_row + n0 + n] : 0;
#endif
      }
      barrier(CLK_LOCAL_MEM_FENCE);
      for (int k = 0; k < DEPTH; k++)
#pragma unroll
        for (int i = 0; i < EACH; i++)
#pragma unroll
          for (int j = 0; j < EACH; j++)
            sum[i][j] = fma(as[k][row + i * SIDE], bs[k][column + j * SIDE], sum[i][j]);
      barrier(CLK_LOCAL_MEM_FENCE);
#if BLOCKS
      if (k0 + DEPTH >= to)
#else
      if ((k0 - first + DEPTH) % CHUNK == 0)
#endif
#pragma unroll
        for (int i = 0; i < EACH; i++)
#pragma unroll
          for (int j = 0; j < EACH; j++) {
            total[i][j] += sum[i][j];
            sum[i][j] = 0;
          }
    }
  }
#pragma unroll
  for (int i = 0; i < EACH; i++)
#pragma unroll
    for (int j = 0; j < EACH; j++) {
      const long m = m0 + row + i * SIDE, n = n0 + column + j * SIDE;
      if (m < M && n < N) {
        real value = total[i][j] + sum[i][j];
#if HAVE_C && !BLOCKS
        value += c[m * c_row + n];
#endif
        y[m * N + n] = value;
      }
    }
}
