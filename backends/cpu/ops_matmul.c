/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one hot loop. y is cut into blocks of rows and columns; a block is computed by one thread. Within it, b goes through
 * a panel that lies as the tile reads it, whichever way b is stored. An element is always the same sum: K_BLOCK products
 * at a time in order in the element type, these partial sums in order in double; with blocks of k each block's sum is
 * added so. So neither the number of threads nor how many rows share a call changes a bit, and a sum over very many
 * rows stays accurate.
 */
#include "cpu_ops.h"

/* gcc unrolls these short loops before it vectorises, and then does not. */
#if defined(__GNUC__) && !defined(__clang__)
#define KEEP_ROLLED _Pragma("GCC unroll 1")
#else
#define KEEP_ROLLED
#endif

enum { K_BLOCK = 256, ROW_BLOCK = 64, TILE_ROWS = 4, PANEL_BYTES = 128, TILE_BYTES = 32 };

typedef struct product { /* y[p,m,n] = Σk a[p,m,k]·b[p,k,n] + c; strides in elements */
  int64_t P, M, N, K;
  const char *a, *b, *c;
  char *y;
  int64_t a_row, a_col, b_row, b_col, c_row; /* c_row 0: c is a row */
  int64_t a_batch, b_batch, c_batch;
  int64_t row_blocks, column_blocks;
  int64_t k_block; /* K where there are no blocks; else c comes first */
  bool in_blocks, from_first;
} product;

static void product_read(const cpu_call *call, product *q) {
  const cpu_operand *a = cpu_in(call, 0), *b = cpu_in(call, 1), *c = cpu_in(call, 2), *y = cpu_out(call, 0);
  const bool ta = call->node->attr.matmul.trans_a != 0, tb = call->node->attr.matmul.trans_b != 0;
  const bool batched = call->node->batched;
  const int64_t a_last = a->size[a->rank - 1], b_last = b->size[b->rank - 1];
  const int64_t a_rest = cpu_count(a, batched ? 1 : 0, a->rank - 1),
                b_rest = cpu_count(b, batched ? 1 : 0, b->rank - 1);
  q->P = batched ? a->size[0] : 1;
  q->M = ta ? a_last : a_rest;
  q->K = ta ? a_rest : a_last;
  q->N = tb ? b_rest : b_last;
  q->a = a->data;
  q->b = b->data;
  q->c = c ? c->data : NULL;
  q->y = y->data;
  q->a_row = ta ? 1 : a_last;
  q->a_col = ta ? a_last : 1;
  q->b_row = tb ? 1 : b_last;
  q->b_col = tb ? b_last : 1;
  q->c_row = c && c->rank > 1 ? q->N : 0;
  q->a_batch = a_rest * a_last;
  q->b_batch = b_rest * b_last;
  q->c_batch = q->c_row * q->M;
  q->in_blocks = call->node->attr.matmul.k_block > 0;
  q->k_block = q->in_blocks ? call->node->attr.matmul.k_block : q->K;
  q->from_first = call->node->attr.matmul.block_order == UNROLL_BLOCKS_FROM_FIRST;
}

#include "as_f32.inc"
#include "ops_matmul.inc"

#include "as_f64.inc"
#include "ops_matmul.inc"
