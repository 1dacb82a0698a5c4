/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layer_common.cl: what layer_forward.cl and layer_backward.cl share: the cell, which rows are active at a step, and how
 * work-items take their work.
 *
 * Work is taken from a counter, because a launch has few and long pieces: drivers hand out work-groups in blocks, and the
 * first thread would get most of them. claims[0] counts pieces that were taken, claims[1] work-items that found no more;
 * the last one sets both to 0 for the next launch.
 */
#include "layer_cell.cl"
#include "layer_masks.cl"
#ifndef ROWS
#define ROWS 6
#endif
#ifndef VECS
#define VECS 2
#endif
#ifndef ITEM_ROWS /* rows of the batch that an item owns at most */
#define ITEM_ROWS ROWS
#endif
#define PADDED_ROWS ((ITEM_ROWS + ROWS - 1) / ROWS * ROWS)
#include "layer_tile.cl"

static long take_piece(volatile __global int *claims, long claims_at) { return atomic_inc(claims + claims_at); }

static void leave(volatile __global int *claims, long claims_at) {
  if (atomic_inc(claims + claims_at + 1) == (int)get_global_size(0) - 1) {
    claims[claims_at] = 0;
    claims[claims_at + 1] = 0;
  }
}

/* Rows of an item, longest first, so that the active ones of any step come first. Without lengths: as they stand. */
static void order_rows(int *order, const __global int *lengths, int rows) {
  for (int r = 0; r < ITEM_ROWS; r++)
    order[r] = min(r, rows - 1);
#if HAVE_LENGTHS
  for (int r = 1; r < rows; r++)
    for (int k = r; k > 0 && lengths[order[k - 1]] < lengths[order[k]]; k--) {
      const int row = order[k];
      order[k] = order[k - 1];
      order[k - 1] = row;
    }
#endif
}

/* How many of the ordered rows have a step t. */
static int active_rows(const int *order, const __global int *lengths, int rows, long t) {
#if HAVE_LENGTHS
  while (rows > 0 && lengths[order[rows - 1]] <= t)
    rows--;
#endif
  return rows;
}
