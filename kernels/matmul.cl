/* SPDX-License-Identifier: Apache-2.0 */
/*
 * matmul.cl: y = op(a)·op(b) + c for CPU devices: a tile of ROWS x PANEL of y in registers; b in panels as
 * matmul_pack.cl makes them, or row-major as it stands. A work-group is one work-item, and there is no barrier.
 *
 * A sum over more than CHUNK values of k goes through partial sums of CHUNK, so that the rounding error of f32 grows
 * with K/CHUNK + CHUNK and not with K.
 */
#ifdef cl_khr_fp64
#pragma OPENCL EXTENSION cl_khr_fp64 : enable
#endif
#ifndef real
#define real float
#endif
#ifndef WIDTH /* lanes of a vector: 8 floats fill a register of AVX2, 16 one of AVX-512 */
#define WIDTH 8
#endif
#ifndef VECS /* vectors in a row of the tile */
#define VECS 2
#endif
#ifndef ROWS /* rows of the tile: ROWS·VECS accumulators, VECS of b and one of a must fit in the registers */
#define ROWS 6
#endif
#ifndef TRANS_A
#define TRANS_A 0
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
#define PANEL (WIDTH * VECS)
#define CAT_(a, b) a##b
#define CAT(a, b) CAT_(a, b)
#define vec CAT(real, WIDTH)
#define VLOAD CAT(vload, WIDTH)
#define VSTORE CAT(vstore, WIDTH)

static vec load(const __global real *p, long n) {
  if (n >= WIDTH)
    return VLOAD(0, p);
  vec v = (vec)(0);
  for (long i = 0; i < n; i++)
    ((real *)&v)[i] = p[i];
  return v;
}

static void store(vec v, __global real *p, long n) {
  if (n >= WIDTH)
    VSTORE(v, 0, p);
  else
    for (long i = 0; i < n; i++)
      p[i] = ((real *)&v)[i];
}

#if HAVE_C
#define ADDEND(m, n) load(c + (m)*c_row + (n), N - (n))
#else
#define ADDEND(m, n) (vec)(0)
#endif

/*
 * One item: ROWS x PANEL of y, over k_block values of k; items count tiles of rows fastest, then panels, blocks of k
 * and batches. y of block s starts s·M·N elements on. Rows past M repeat the last one and are not stored.
 */
__kernel void product(const __global real *a, long a_at, const __global real *b, long b_at, const __global real *c,
                      long c_at, __global real *y, long y_at, long M, long N, long K, long k_block, long c_row,
                      long a_batch, long b_batch, long c_batch) {
  const long tiles = (M + ROWS - 1) / ROWS, panels = (N + PANEL - 1) / PANEL, blocks = (K + k_block - 1) / k_block;
  const long id = (long)get_global_id(0), column = id / tiles, slab = column / panels, batch = slab / blocks;
  const long m0 = (id - column * tiles) * ROWS, n0 = (column - slab * panels) * PANEL, block = slab - batch * blocks;
  const long k0 = block * k_block, k1 = min(k0 + k_block, K);
  a += a_at + batch * a_batch;
  y += y_at + (batch * blocks + block) * M * N;
#if HAVE_C
  c += c_at + batch * c_batch;
#endif
#if PACKED
  b += b_at + batch * b_batch + n0 * K + k0 * PANEL;
#define B_ROW PANEL
#else
  b += b_at + batch * b_batch + n0 + k0 * N;
#define B_ROW N
#endif
  const __global real *row[ROWS];
#pragma unroll
  for (int r = 0; r < ROWS; r++)
#if TRANS_A
    row[r] = a + min(m0 + r, M - 1) + k0 * M;
#define A_STEP M
#else
    row[r] = a + min(m0 + r, M - 1) * K + k0;
#define A_STEP 1
#endif

  vec total[ROWS][VECS]; /* indexed by loops that are not unrolled, so in memory; sum stays in registers */
  for (int r = 0; r < ROWS; r++)
    for (int v = 0; v < VECS; v++)
      total[r][v] = (vec)(0);
  for (long first = k0; first < k1; first += CHUNK) {
    const long steps = min((long)CHUNK, k1 - first);
    vec sum[ROWS][VECS];
#pragma unroll
    for (int r = 0; r < ROWS; r++)
#pragma unroll
      for (int v = 0; v < VECS; v++)
        sum[r][v] = (vec)(0);
#if !PACKED
    if (n0 + PANEL > N)
      for (long k = 0; k < steps; k++, b += B_ROW) {
        real edge[PANEL];
        for (int j = 0; j < PANEL; j++)
          edge[j] = j < N - n0 ? b[j] : 0;
#pragma unroll
        for (int r = 0; r < ROWS; r++)
#pragma unroll
          for (int v = 0; v < VECS; v++)
            sum[r][v] = fma((vec)(row[r][k * A_STEP]), VLOAD(v, edge), sum[r][v]);
      }
    else
#endif
      for (long k = 0; k < steps; k++, b += B_ROW) {
        vec x[VECS];
#pragma unroll
        for (int v = 0; v < VECS; v++)
          x[v] = VLOAD(v, b);
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
      row[r] += CHUNK * A_STEP;
#pragma unroll
      for (int v = 0; v < VECS; v++)
        total[r][v] += sum[r][v];
    }
  }
  for (int r = 0; r < ROWS && m0 + r < M; r++)
    for (int v = 0; v < VECS && n0 + v * WIDTH < N; v++) {
      const long n = n0 + v * WIDTH;
      store(total[r][v] + ADDEND(m0 + r, n), y + (m0 + r) * N + n, N - n);
    }
}
