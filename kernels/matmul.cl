/* SPDX-License-Identifier: Apache-2.0 */
/*
 * matmul.cl: y = op(a)·op(b) + c for CPU devices. A work-group is one work-item, and no kernel has a barrier.
 *
 *   pack      b [K,N] or [N,K] into panels [N/PANEL][K][PANEL], zeros past N: a step of k then reads whole cache lines
 *             one after another, whatever the layout of b was
 *   product   a tile of ROWS x PANEL of y in registers; b as panels, or row-major as it stands
 *   dot       few rows times b [N,K]: both run along k, so nothing is packed
 *   add       the sum of the blocks of k, in order, and c
 *
 * A sum over more than CHUNK values of k goes through partial sums of CHUNK, so that the rounding error of f32 grows with
 * K/CHUNK + CHUNK and not with K.
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
#ifndef TRANS_B /* of pack */
#define TRANS_B 0
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
#ifndef COLUMNS /* columns of y that an item of dot takes */
#define COLUMNS 4
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

/* One item: PACK_K steps of k of one panel. Batches are b_batch and out_batch elements apart. */
#ifndef PACK_K
#define PACK_K 16
#endif
__kernel void pack(const __global real *b, long b_at, __global real *out, long out_at, long N, long K, long b_batch,
                   long out_batch, long items) {
  const long id = (long)get_global_id(0);
  if (id >= items)
    return;
  const long parts = (K + PACK_K - 1) / PACK_K, panels = (N + PANEL - 1) / PANEL;
  const long k0 = id % parts * PACK_K, k1 = min(k0 + PACK_K, K);
  const long panel = id / parts % panels, batch = id / parts / panels;
  const long columns = min((long)PANEL, N - panel * PANEL);
  b += b_at + batch * b_batch;
  out += out_at + batch * out_batch + panel * K * PANEL;
#if TRANS_B
  for (long j = 0; j < columns; j++)
    for (long k = k0; k < k1; k++)
      out[k * PANEL + j] = b[(panel * PANEL + j) * K + k];
#else
  for (long k = k0; k < k1; k++)
    for (long j = 0; j < columns; j++)
      out[k * PANEL + j] = b[k * N + panel * PANEL + j];
#endif
  for (long k = k0; k < k1; k++)
    for (long j = columns; j < PANEL; j++)
      out[k * PANEL + j] = 0;
}

/* tile[r][v] of rows rows: plus c, into y. */
#define FINISH(tile)                                                                                                   \
  for (int r = 0; r < ROWS; r++)                                                                                       \
    if (m0 + r < M)                                                                                                    \
      for (int v = 0; v < VECS; v++) {                                                                                 \
        const long n = n0 + v * WIDTH;                                                                                 \
        if (n < N)                                                                                                     \
          store(tile[r][v] + ADDEND(m0 + r, n), y + (m0 + r) * N + n, N - n);                                          \
      }
#if HAVE_C
#define ADDEND(m, n) load(c + (m)*c_row + (n), N - (n))
#else
#define ADDEND(m, n) (vec)(0)
#endif

/*
 * One item: ROWS x PANEL of y, over k_block values of k; items count tiles of rows fastest, then panels, blocks of k and
 * batches. y of block s starts s·M·N elements on. Rows past M repeat the last one and are not stored.
 */
__kernel void product(const __global real *a, long a_at, const __global real *b, long b_at, const __global real *c,
                      long c_at, __global real *y, long y_at, long M, long N, long K, long k_block, long c_row,
                      long a_batch, long b_batch, long c_batch) {
  const long tiles = (M + ROWS - 1) / ROWS, panels = (N + PANEL - 1) / PANEL, blocks = (K + k_block - 1) / k_block;
  long id = (long)get_global_id(0);
  const long m0 = id % tiles * ROWS;
  id /= tiles;
  const long n0 = id % panels * PANEL;
  id /= panels;
  const long block = id % blocks, batch = id / blocks;
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

  vec total[ROWS][VECS];
#pragma unroll
  for (int r = 0; r < ROWS; r++)
#pragma unroll
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
      for (long k = 0; k < steps; k++, b += B_ROW)
#pragma unroll
        for (int v = 0; v < VECS; v++) {
          const vec x = load(b + v * WIDTH, max(N - n0 - v * WIDTH, 0L));
#pragma unroll
          for (int r = 0; r < ROWS; r++)
            sum[r][v] = fma((vec)(row[r][k * A_STEP]), x, sum[r][v]);
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
#pragma unroll
  FINISH(total)
}

static real lanes(vec v) {
  real sum = 0;
#pragma unroll
  for (int i = 0; i < WIDTH; i++)
    sum += ((real *)&v)[i];
  return sum;
}

/* One item: ROWS x COLUMNS of y = a [M,K] · b [N,K] transposed + c. Past the end, rows repeat and are not stored. */
__kernel void dot_rows(const __global real *a, long a_at, const __global real *b, long b_at, const __global real *c,
                       long c_at, __global real *y, long y_at, long M, long N, long K, long c_row, long a_batch,
                       long b_batch, long c_batch) {
  const long tiles = (M + ROWS - 1) / ROWS, strips = (N + COLUMNS - 1) / COLUMNS;
  const long id = (long)get_global_id(0), batch = id / tiles / strips;
  const long m0 = id % tiles * ROWS, n0 = id / tiles % strips * COLUMNS;
  a += a_at + batch * a_batch;
  b += b_at + batch * b_batch;
  y += y_at + batch * M * N;
#if HAVE_C
  c += c_at + batch * c_batch;
#endif
  const __global real *p[ROWS], *q[COLUMNS];
#pragma unroll
  for (int r = 0; r < ROWS; r++)
    p[r] = a + min(m0 + r, M - 1) * K;
#pragma unroll
  for (int j = 0; j < COLUMNS; j++)
    q[j] = b + min(n0 + j, N - 1) * K;
  real total[ROWS][COLUMNS];
#pragma unroll
  for (int r = 0; r < ROWS; r++)
#pragma unroll
    for (int j = 0; j < COLUMNS; j++)
      total[r][j] = 0;
  for (long first = 0; first < K; first += CHUNK * WIDTH) {
    const long last = min(first + CHUNK * WIDTH, K), whole = first + (last - first) / WIDTH * WIDTH;
    vec sum[ROWS][COLUMNS];
#pragma unroll
    for (int r = 0; r < ROWS; r++)
#pragma unroll
      for (int j = 0; j < COLUMNS; j++)
        sum[r][j] = (vec)(0);
    for (long k = first; k < whole; k += WIDTH) {
      vec x[ROWS];
#pragma unroll
      for (int r = 0; r < ROWS; r++)
        x[r] = VLOAD(0, p[r] + k);
#pragma unroll
      for (int j = 0; j < COLUMNS; j++) {
        const vec w = VLOAD(0, q[j] + k);
#pragma unroll
        for (int r = 0; r < ROWS; r++)
          sum[r][j] = fma(x[r], w, sum[r][j]);
      }
    }
#pragma unroll
    for (int r = 0; r < ROWS; r++)
#pragma unroll
      for (int j = 0; j < COLUMNS; j++) {
        real s = lanes(sum[r][j]);
        for (long k = whole; k < last; k++)
          s = fma(p[r][k], q[j][k], s);
        total[r][j] += s;
      }
  }
#pragma unroll
  for (int r = 0; r < ROWS; r++)
#pragma unroll
    for (int j = 0; j < COLUMNS; j++)
      if (m0 + r < M && n0 + j < N)
#if HAVE_C
        y[(m0 + r) * N + n0 + j] = total[r][j] + c[(m0 + r) * c_row + n0 + j];
#else
        y[(m0 + r) * N + n0 + j] = total[r][j];
#endif
}

/* One item: WIDTH columns of one row of y = c + parts[0] + parts[1] + .., each [M,N]; batches as in product. */
__kernel void add(const __global real *parts, long parts_at, const __global real *c, long c_at, __global real *y,
                  long y_at, long M, long N, long blocks, long c_row, long c_batch, long items) {
  const long id = (long)get_global_id(0);
  if (id >= items)
    return;
  const long strips = (N + WIDTH - 1) / WIDTH;
  const long n = id % strips * WIDTH, m = id / strips % M, batch = id / strips / M;
  parts += parts_at + batch * blocks * M * N + m * N + n;
  vec sum = (vec)(0);
  for (long s = 0; s < blocks; s++)
    sum += load(parts + s * M * N, N - n);
#if HAVE_C
  c += c_at + batch * c_batch;
#endif
  store(sum + ADDEND(m, n), y + y_at + (batch * M + m) * N + n, N - n);
}
