/* SPDX-License-Identifier: Apache-2.0 */
/*
 * matmul_dot.cl: y = a [M,K] · b [N,K] transposed + c for few rows on CPU devices: both run along k, so nothing is
 * packed. A work-group is one work-item. Partial sums of CHUNK steps keep the rounding error of a long sum small.
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
#ifndef ROWS /* ROWS·COLUMNS accumulators must fit in the registers */
#define ROWS 4
#endif
#ifndef COLUMNS
#define COLUMNS 4
#endif
#ifndef HAVE_C
#define HAVE_C 0
#endif
#ifndef CHUNK
#define CHUNK 512
#endif
#define CAT_(a, b) a##b
#define CAT(a, b) CAT_(a, b)
#define vec CAT(real, WIDTH)
#define VLOAD CAT(vload, WIDTH)

/* One item: ROWS x COLUMNS of y = a [M,K] · b [N,K] transposed + c. Past the end, rows repeat and are not stored. */
__kernel __attribute__((vec_type_hint(vec))) void dot_rows(const __global real *a, long a_at, const __global real *b,
                                                           long b_at, const __global real *c, long c_at,
                                                           __global real *y, long y_at, long M, long N, long K,
                                                           long a_row, long b_row, long c_row, long a_batch,
                                                           long b_batch, long c_batch) {
  const long tiles = (M + ROWS - 1) / ROWS, strips = (N + COLUMNS - 1) / COLUMNS;
  const long id = (long)get_global_id(0), strip = id / tiles, batch = strip / strips;
  const long m0 = (id - strip * tiles) * ROWS, n0 = (strip - batch * strips) * COLUMNS;
  a += a_at + batch * a_batch;
  b += b_at + batch * b_batch;
  y += y_at + batch * M * N;
#if HAVE_C
  c += c_at + batch * c_batch;
#endif
  const __global real *p[ROWS], *q[COLUMNS];
#pragma unroll
  for (int r = 0; r < ROWS; r++)
    p[r] = a + min(m0 + r, M - 1) * a_row;
#pragma unroll
  for (int j = 0; j < COLUMNS; j++)
    q[j] = b + min(n0 + j, N - 1) * b_row;
  real total[ROWS][COLUMNS];
  vec kept[ROWS][COLUMNS]; /* sum again, indexed by loops that are not unrolled: sum itself has to stay in registers */
  for (int r = 0; r < ROWS; r++)
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
      for (int j = 0; j < COLUMNS; j++)
        kept[r][j] = sum[r][j];
    for (int r = 0; r < ROWS; r++)
      for (int j = 0; j < COLUMNS; j++) {
        real s = 0;
        for (int i = 0; i < WIDTH; i++)
          s += ((real *)&kept[r][j])[i];
        for (long k = whole; k < last; k++)
          s = fma(a[min(m0 + r, M - 1) * a_row + k], b[min(n0 + j, N - 1) * b_row + k], s);
        total[r][j] += s;
      }
  }
  for (int r = 0; r < ROWS; r++)
    for (int j = 0; j < COLUMNS; j++)
      if (m0 + r < M && n0 + j < N)
#if HAVE_C
        y[(m0 + r) * N + n0 + j] = total[r][j] + c[(m0 + r) * c_row + n0 + j];
#else
        y[(m0 + r) * N + n0 + j] = total[r][j];
#endif
}
