/* SPDX-License-Identifier: Apache-2.0 */
/*
 * matmul_pack.cl: what surrounds the product of matmul.cl.
 *
 *   pack   b [K,N] or [N,K] into panels [N/PANEL_ROW][K][PANEL_ROW], zeros past N: a step of k then reads whole cache
 *          lines one after another, whatever the layout of b was. PANEL is what values are kept as (see vectors.cl)
 *   sides  a [K,M], which stands on its side, into panels [M/ROWS][K][ROWS], zeros past M: a's rows at one place of k
 *          lie in one line, and lines that follow each other do not share a few sets of the caches
 *   add    the sum of the blocks of k, in order, and c; with BLOCKS c comes first, then (1) the last block or (2) the
 *   first
 */
#ifndef WIDTH /* lanes of a vector: 8 floats fill a register of AVX2, 16 one of AVX-512 */
#define WIDTH 8
#endif
#include "vectors.cl"
#ifndef VECS /* vectors in a row of a panel */
#define VECS 2
#endif
#ifndef TRANS_B
#define TRANS_B 0
#endif
#ifndef HAVE_C
#define HAVE_C 0
#endif
#define PANEL_ROW (WIDTH * VECS)

/* One item: PACK_K steps of k of one panel. Batches are b_batch and out_batch elements apart. */
#ifndef PACK_K
#define PACK_K 16
#endif
__kernel VECTORISED void pack(const __global real *b, long b_at, __global panel *out, long out_at, long N, long K,
                              long b_row, long b_batch, long out_batch, long items) {
  const long id = (long)get_global_id(0);
  if (id >= items)
    return;
  const long parts = (K + PACK_K - 1) / PACK_K, panels = (N + PANEL_ROW - 1) / PANEL_ROW;
  const long column = id / parts, batch = column / panels, n0 = (column - batch * panels) * PANEL_ROW;
  const long k0 = (id - column * parts) * PACK_K, k1 = min(k0 + PACK_K, K);
  const long columns = min((long)PANEL_ROW, N - n0);
  b += b_at + batch * b_batch;
  out += out_at + batch * out_batch + n0 * K;
  real line[PANEL_ROW];
  for (long k = k0; k < k1; k++) {
    for (int j = 0; j < PANEL_ROW; j++)
#if TRANS_B
      line[j] = j < columns ? b[(n0 + j) * b_row + k] : 0;
#else
      line[j] = j < columns ? b[k * b_row + n0 + j] : 0;
#endif
    for (int v = 0; v < VECS; v++)
      PANEL_VSTORE(CAT(vload, WIDTH)(v, line), v, out + k * PANEL_ROW);
  }
}

#ifndef ROWS /* of a tile of y; as the product's */
#define ROWS 8
#endif

/* One item: SIDE_K steps of k of EACH_SIDES panels, whole lines of a where ROWS divides them. */
#define SIDE_K 16
#define EACH_SIDES 4
__kernel VECTORISED void sides(const __global real *a, long a_at, __global real *out, long out_at, long M, long K,
                               long a_row, long items) {
  const long id = (long)get_global_id(0);
  if (id >= items)
    return;
  const long tiles = (M + ROWS - 1) / ROWS, strips = (tiles + EACH_SIDES - 1) / EACH_SIDES;
  const long part = id / strips, first = (id - part * strips) * EACH_SIDES, last = min(first + EACH_SIDES, tiles);
  const long k0 = part * SIDE_K, k1 = min(k0 + SIDE_K, K);
  a += a_at;
  out += out_at;
  for (long k = k0; k < k1; k++)
    for (long tile = first; tile < last; tile++) {
      const __global real *from = a + k * a_row + tile * ROWS;
      __global real *to = out + (tile * K + k) * ROWS;
      const long rows = min((long)ROWS, M - tile * ROWS);
      if (rows == ROWS)
        for (int r = 0; r < ROWS; r++)
          to[r] = from[r];
      else
        for (int r = 0; r < ROWS; r++)
          to[r] = r < rows ? from[r] : 0;
    }
}

#ifndef BLOCKS
#define BLOCKS 0
#endif
#if HAVE_C
#define ADDEND(m, n) load(c + (m)*c_row + (n), N - (n))
#else
#define ADDEND(m, n) (vec)(0)
#endif

/* One item: WIDTH columns of one row of y = c + parts[0] + parts[1] + .., each [M,N]; batches as in product. */
__kernel VECTORISED void add(const __global real *parts, long parts_at, const __global real *c, long c_at,
                             __global real *y, long y_at, long M, long N, long blocks, long c_row, long c_batch,
                             long items) {
  const long id = (long)get_global_id(0);
  if (id >= items)
    return;
  const long strips = (N + WIDTH - 1) / WIDTH;
  const long row = id / strips, batch = row / M, m = row - batch * M, n = (id - row * strips) * WIDTH;
  parts += parts_at + batch * blocks * M * N + m * N + n;
#if HAVE_C
  c += c_at + batch * c_batch;
#endif
#if BLOCKS
  vec sum = ADDEND(m, n);
  for (long s = 0; s < blocks; s++)
    sum += load(parts + (BLOCKS == 1 ? blocks - 1 - s : s) * M * N, N - n);
#else
  vec sum = (vec)(0);
  for (long s = 0; s < blocks; s++)
    sum += load(parts + s * M * N, N - n);
  sum += ADDEND(m, n);
#endif
  store(sum, y + y_at + (batch * M + m) * N + n, N - n);
}
