/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layer_tile.cl: the product inside of a recurrence, for CPU devices: rows of the batch against the columns of a block
 * of units, a tile of ROWS x VECS vectors in registers at a time. The right side is packed as layer_pack.cl does it: for
 * each pass of VECS vectors, for each k, the vectors; so it is read as one stream.
 *
 * A work-group is one work-item, and there is no barrier.
 */
#include "prefetch.cl"
#ifndef CHUNK /* values of k in a partial sum: the error of f32 grows with K/CHUNK + CHUNK, and b's chunk stays in L1 */
#define CHUNK 256
#endif

#ifndef AHEAD /* elements that are asked for before they are needed, where every tile reads new ones */
#define AHEAD 2048
#endif

/*
 * sum[r][v] += a[order[r]]·b over k, r < rows: the tile's other rows repeat the last. A row of sum has sum_row vectors.
 * ahead: how far behind b the chunk stands that will be read next.
 */
static void tile(vec *sum, int sum_row, const __global real *a, long a_row, const int *order, int rows,
                 const __global panel *b, int steps, long ahead) {
  const __global real *row[ROWS];
  vec part[ROWS][VECS];
#pragma unroll
  for (int r = 0; r < ROWS; r++) {
    row[r] = a + order[min(r, rows - 1)] * a_row;
#pragma unroll
    for (int v = 0; v < VECS; v++)
      part[r][v] = (vec)(0);
  }
  for (int k = 0; k < steps; k++, b += VECS * WIDTH) {
    vec x[VECS];
#pragma unroll
    for (int v = 0; v < VECS; v++) {
      x[v] = PANEL_VLOAD(v, b);
      PREFETCH(b + ahead + v * WIDTH);
    }
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
      const vec s = (vec)(row[r][k]);
#pragma unroll
      for (int v = 0; v < VECS; v++)
        part[r][v] = fma(s, x[v], part[r][v]);
    }
  }
#pragma unroll
  for (int r = 0; r < ROWS; r++)
    if (r < rows)
#pragma unroll
      for (int v = 0; v < VECS; v++)
        sum[r * sum_row + v] += part[r][v];
}

/* sum [rows][sum_row] += a [rows][K] · b, whose columns are n_vecs vectors, VECS a pass. */
static void multiply(vec *sum, int sum_row, int n_vecs, const __global real *a, long a_row, const int *order, int rows,
                     const __global panel *b, long K) {
  for (int v = 0; v < n_vecs; v += VECS)
    for (long k = 0; k < K; k += CHUNK) {
      const int steps = (int)min((long)CHUNK, K - k);
      for (int r = 0; r < rows; r += ROWS)
        tile(sum + r * sum_row + v, sum_row, a + k, a_row, order + r, rows - r, b, steps,
             r + ROWS < rows ? 0
             : r             ? CHUNK * VECS * WIDTH
                             : AHEAD);
      b += (long)steps * VECS * WIDTH;
    }
}
