/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Layer normalisation, alone and of the cell state inside an LSTM's gates. Means and variances are summed in double, in
 * the order of the row; sums over rows likewise, COLUMNS neighbouring columns at a time.
 */
#include "cpu_ops.h"
#include "realmath.h"

enum { COLUMNS = 64 };

typedef struct norm_row { /* x̂ = (x - mean)·rate */
  double mean, rate;
} norm_row;

typedef struct norm {
  const cpu_call *call;
  int64_t rows, N;
  double epsilon;
  int64_t block; /* rows of a block of the sums */
  bool from_first;
  norm_row *found; /* of the rows: the call's workspace */
} norm;

/* Over the rows of input i. */
static norm norm_read(const cpu_call *c, uint32_t i) {
  const cpu_operand *x = cpu_in(c, i);
  const unroll_layer_norm_attr *attr = &c->node->attr.layer_norm;
  const int64_t rows = cpu_count(x, 0, x->rank - 1);
  const bool blocks = attr->block > 0 && x->size[0] > 0;
  return (norm){.call = c,
                .rows = rows,
                .N = x->size[x->rank - 1],
                .epsilon = attr->epsilon,
                .block = blocks ? attr->block * (x->rank > 1 ? rows / x->size[0] : 1) : rows,
                .from_first = attr->block_order == UNROLL_BLOCKS_FROM_FIRST,
                .found = c->workspace};
}

/* Both sums over rows: of each column, block after block. */
typedef void (*norm_terms_fn)(const norm *n, int64_t row, int64_t first, int64_t width, double *gain, double *shift);

#include "as_f32.inc"
#include "ops_norm.inc"

#include "as_f64.inc"
#include "ops_norm.inc"
