/* SPDX-License-Identifier: Apache-2.0 */
/* Cases of layer normalisation: rows short and long, far from 0, sums over rows whole and in blocks; and inside gates. */
#include "conform/op_cases.h"

/*
 * Roundings: mean and variance are sums, which `terms` counts, a quotient each 5, the root and its reciprocal 5.5, then a
 * difference, two products and a sum 2; in a gradient the same again for what comes back, and the terms of the sums. Rows far
 * from 0: an error of the mean of half a unit of 10 is 35 times that of values of their deviation, 0.29.
 */
enum { NORM_ROUNDINGS = 14, NORM_GRAD_ROUNDINGS = 28, FAR_ROUNDINGS = 100 };
enum { NO_SHIFT, ROW_SHIFT, FULL_SHIFT };
enum { HAS_DX = 1, HAS_DGAIN = 2, HAS_DSHIFT = 4, GOES_ON = 8, FROM_FIRST = 16 };

#define SPREAD FILL(FILL_UNIFORM, -3, 4)
#define GAIN FILL(FILL_UNIFORM, 0.3, 1.2)

static void layer_norm(op_case_list *list, op_shape x, int shift, int is_far) {
  static const char *const shifts[] = {"no shift", "row", "full"};
  const unroll_layer_norm_attr attr = {.epsilon = is_far ? 0.1 : 1e-5};
  const op_shape row = SHAPE(x.n[x.rank - 1]);
  op_case *c = op_case_add(list, UNROLL_OP_LAYER_NORM, &attr, sizeof attr, "layer_norm %d of rank %d %s%s",
                           (int)op_elements(x), (int)x.rank, shifts[shift], is_far ? " far" : "");
  op_in(c, OP_REAL, x, is_far ? FILL(FILL_UNIFORM, 9, 10) : SPREAD);
  op_in(c, OP_REAL, row, GAIN);
  if (shift == NO_SHIFT)
    op_no_in(c);
  else
    op_in(c, OP_REAL, shift == ROW_SHIFT ? row : x, FILL_DEFAULT);
  op_out(c, OP_REAL, x);
  op_round(c, is_far ? FAR_ROUNDINGS : NORM_ROUNDINGS, (double)row.n[0]);
}

static void in_blocks(op_case *c, uint32_t has, op_shape row) {
  for (uint32_t i = 0; i < 2; i++)
    if (has & GOES_ON && has & ((uint32_t)HAS_DGAIN << i))
      op_in(c, OP_REAL, row, FILL_DEFAULT);
    else
      op_no_in(c);
}

static void results(op_case *c, uint32_t has, op_shape row) {
  for (uint32_t i = 0; i < 2; i++)
    if (has & ((uint32_t)HAS_DGAIN << i))
      op_out(c, OP_REAL, row);
    else
      op_no_out(c);
}

static const char *text_of(uint32_t has) {
  static const char *const texts[] = {"none", "dx", "dgain", "dx dgain", "dshift", "dx dshift", "dgain dshift", "all"};
  return texts[has & 7];
}

static void layer_norm_grad(op_case_list *list, op_shape x, uint32_t has, int64_t block) {
  const unroll_layer_norm_attr attr = {.epsilon = 1e-3,
                                       .block = block,
                                       .block_order =
                                           has & FROM_FIRST ? UNROLL_BLOCKS_FROM_FIRST : UNROLL_BLOCKS_FROM_LAST};
  const int64_t N = x.n[x.rank - 1], rows = op_elements(x) / N;
  op_case *c =
      op_case_add(list, UNROLL_OP_LAYER_NORM_GRAD, &attr, sizeof attr, "layer_norm_grad %d of rank %d %s%s%.0d%s%s",
                  (int)op_elements(x), (int)x.rank, text_of(has), block ? " blocks of " : "", (int)block,
                  has & FROM_FIRST ? " from first" : "", has & GOES_ON ? " + sums" : "");
  op_in(c, OP_REAL, x, SPREAD);
  op_in(c, OP_REAL, SHAPE(N), GAIN);
  op_in(c, OP_REAL, x, FILL_DEFAULT);
  in_blocks(c, has, SHAPE(N));
  if (has & HAS_DX)
    op_out(c, OP_REAL, x);
  else
    op_no_out(c);
  results(c, has, SHAPE(N));
  op_round(c, NORM_GRAD_ROUNDINGS, (double)(N > rows ? N : rows));
}

/* An LSTM's gates with the norm of c. absent: of the outputs h, c and gates. */
static void gates(op_case_list *list, int64_t b, int64_t h, uint32_t absent) {
  const unroll_layer_norm_attr attr = {.epsilon = 1e-2};
  const int32_t blocks[] = {1, 1, 4};
  op_case *c = op_case_add(list, UNROLL_OP_LSTM_GATES, &attr, sizeof attr, "lstm_gates %dx%d normalised absent %x",
                           (int)b, (int)h, (unsigned)absent);
  op_in(c, OP_REAL, SHAPE(b, 4 * h), SPREAD);
  op_in(c, OP_REAL, SHAPE(b, h), FILL(FILL_UNIFORM, -1, 1));
  op_in(c, OP_REAL, SHAPE(h), GAIN);
  op_in(c, OP_REAL, SHAPE(h), FILL_DEFAULT);
  for (uint32_t i = 0; i < 3; i++)
    if (absent >> i & 1u)
      op_no_out(c);
    else
      op_out(c, OP_REAL, SHAPE(b, blocks[i] * h));
  op_round(c, 28 + 2 * NORM_ROUNDINGS, (double)h);
}

/* absent: of dh and dc, then of dpre and dc_prev. */
static void gates_grad(op_case_list *list, op_shape state, uint32_t has, uint32_t absent, int64_t block) {
  const unroll_layer_norm_attr attr = {.epsilon = 1e-2,
                                       .block = block,
                                       .block_order =
                                           has & FROM_FIRST ? UNROLL_BLOCKS_FROM_FIRST : UNROLL_BLOCKS_FROM_LAST};
  const int64_t H = state.n[state.rank - 1], rows = op_elements(state) / H;
  op_shape four = state;
  four.n[four.rank - 1] *= 4;
  op_case *c = op_case_add(list, UNROLL_OP_LSTM_GATES_GRAD, &attr, sizeof attr,
                           "lstm_gates_grad %dx%d normalised %s absent %x%s%.0d%s%s", (int)rows, (int)H,
                           text_of(has & 6), (unsigned)absent, block ? " blocks of " : "", (int)block,
                           has & FROM_FIRST ? " from first" : "", has & GOES_ON ? " + sums" : "");
  op_in(c, OP_REAL, four, FILL(FILL_UNIFORM, 0, 1));
  op_in(c, OP_REAL, state, FILL(FILL_UNIFORM, -1, 1));
  for (uint32_t i = 0; i < 2; i++)
    if (absent >> i & 1u)
      op_no_in(c);
    else
      op_in(c, OP_REAL, state, FILL(FILL_UNIFORM, -1, 1));
  op_in(c, OP_REAL, SHAPE(H), GAIN);
  op_in(c, OP_REAL, SHAPE(H), FILL_DEFAULT);
  in_blocks(c, has, SHAPE(H));
  for (uint32_t i = 0; i < 2; i++)
    if (absent >> (2 + i) & 1u)
      op_no_out(c);
    else
      op_out(c, OP_REAL, i ? state : four);
  results(c, has, SHAPE(H));
  op_round(c, 28 + 2 * NORM_GRAD_ROUNDINGS, (double)(H > rows ? H : rows));
}

void op_cases_norm(op_case_list *list) {
  const op_shape shapes[] = {SHAPE(3, 7),    SHAPE(7, 33),    SHAPE(3, 64), SHAPE(7, 65),    SHAPE(65, 9),
                             SHAPE(3, 1000), SHAPE(3, 7, 17), SHAPE(17),    SHAPE(2, 5, 130)};
  for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
    for (int shift = NO_SHIFT; shift <= FULL_SHIFT; shift++)
      if (shapes[i].rank > 1 || shift != FULL_SHIFT)
        layer_norm(list, shapes[i], shift, 0);
    layer_norm(list, shapes[i], ROW_SHIFT, 1);
    for (uint32_t has = 1; has < 8; has++)
      layer_norm_grad(list, shapes[i], has, 0);
  }
  layer_norm(list, SHAPE(5, 1), ROW_SHIFT, 0); /* what is left is the shift */
  layer_norm_grad(list, SHAPE(3000, 9), HAS_DGAIN | HAS_DSHIFT, 0);
  static const int64_t blocks[][4] = {{65, 4, 17, 8}, {17, 3, 33, 4}, {70, 1, 9, 14}, {3, 61, 130, 2}, {40, 64, 7, 8}};
  for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
    for (uint32_t form = 0; form < 4; form++) {
      const uint32_t has =
          (form & 1 ? HAS_DX : 0) | (form & 2 ? FROM_FIRST : GOES_ON) | HAS_DGAIN | (i % 2 ? 0 : HAS_DSHIFT);
      layer_norm_grad(list, SHAPE(blocks[i][0], blocks[i][1], blocks[i][2]), has, blocks[i][3]);
      gates_grad(list, SHAPE(blocks[i][0], blocks[i][1], blocks[i][2]), has, form & 1 ? 0 : 0xC, blocks[i][3]);
    }
  static const int64_t sizes[][2] = {{3, 7}, {1, 33}, {7, 17}, {3, 64}, {7, 65}, {33, 130}};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    gates(list, sizes[i][0], sizes[i][1], 0);
    gates_grad(list, SHAPE(sizes[i][0], sizes[i][1]), 0, 0, 0);
    gates_grad(list, SHAPE(sizes[i][0], sizes[i][1]), HAS_DGAIN | HAS_DSHIFT, 0, 0);
  }
  for (uint32_t absent = 1; absent < 7; absent++)
    gates(list, 7, 17, absent);
  for (uint32_t i = 0; i < 4; i++)
    gates_grad(list, SHAPE(7, 17), 0, 1u << i, 0);
  gates_grad(list, SHAPE(7, 17), HAS_DGAIN, 2, 0);
  gates_grad(list, SHAPE(7, 17), HAS_DSHIFT, 0xC, 0);
}
