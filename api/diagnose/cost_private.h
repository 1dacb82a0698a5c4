/* SPDX-License-Identifier: Apache-2.0 */
/* cost_private.h: one node's cost, from its shapes. */
#ifndef COST_PRIVATE_H
#define COST_PRIVATE_H
#include <unroll/cost.h>

#include "graph/graph_private.h"

typedef struct cost_walk {
  const unroll_graph *graph; /* whose tensors a node's edges are */
  const int64_t *dims;       /* run-time sizes; NULL: their maxima */
  bool overflow;             /* some number did not fit; what was computed from it is of no use */
  const node *now;
  unroll_cost_count one; /* of that node, once */
} cost_walk;

/* Adds to one what the node takes. A scan takes nothing itself. */
void cost_of_node(cost_walk *w, const node *n);

/* n·m; with w->overflow set, anything */
int64_t cost_times(cost_walk *w, int64_t n, int64_t m);
void cost_add(cost_walk *w, int64_t *sum, int64_t n, int64_t times);
int64_t cost_extent(cost_walk *w, const tensor_spec *s, int32_t axis);
#endif
