/* SPDX-License-Identifier: Apache-2.0 */
/* One layer in one direction, step by step. */
#ifndef TRACE_H
#define TRACE_H
#include <unroll/activity.h>

#include "base/base_private.h"

struct trace {
  unroll_allocator allocator;
  const unroll_cell_weights *w;
  unroll_cell_extras e;
  int64_t H, G, n;   /* n: numbers of a state */
  double *W_x, *W_h; /* transposed, [I,GH] and [H,GH]: a product is then a sum of whole rows */
  double *h, *c, *new_h,
      *u; /* [H]; c stands behind h. u: of a gru what W_n is multiplied with, of an lstm what tanh is of */
  double *from_x, *from_h; /* [GH]: the products of a step */
  double *gates;           /* [GH], for who has no room for them */
};
/* Checks what is given, which stays the caller's. After an error nothing is held. */
unroll_status trace_open(struct trace *s, const unroll_cell_weights *weights, const unroll_cell_extras *extras,
                         const unroll_allocator *allocator, unroll_error *err);
void trace_close(struct trace *s);
/* h and c become those of the next step. gates [GH] */
void trace_step(struct trace *s, int64_t t, double *gates);
/* to[first..first+rows) = the rows' product with v [n], W transposed. */
void trace_product(const struct trace *s, const double *W, const double *v, int64_t n, int64_t first, int64_t rows,
                   double *to);
#endif
