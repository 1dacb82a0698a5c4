/* SPDX-License-Identifier: Apache-2.0 */
/* nn_private.h: what the layers share. */
#ifndef NN_PRIVATE_H
#define NN_PRIVATE_H
#include "graph/graph_private.h"
#include <unroll/seq2seq.h>

/*
 * The parameter "PREFIX.what" of the graph, or of the graph around it where that is a body: the one that is there already,
 * which must have this dtype and shape, else a new one.
 */
unroll_tensor nn_param(unroll_graph *graph, const char *prefix, const char *what, int32_t dtype, int32_t rank,
                       const int64_t *shape);
/* The same for "PREFIX.what.layer.direction". */
unroll_tensor nn_layer_param(unroll_graph *graph, const char *prefix, const char *what, int32_t layer,
                             int32_t direction, int32_t dtype, int32_t rank, const int64_t *shape);

/* Is it no tensor, or is its graph in error? Nothing may then be asked of it. */
static inline bool nn_lost(unroll_tensor x) { return !x.graph || graph_failed(x.graph); }

/* nn_pieces.c */
unroll_tensor nn_scalar(unroll_tensor like, double value); /* [], of like's dtype, in its graph */
unroll_tensor nn_filled(unroll_graph *graph, int32_t dtype, int32_t rank, const int64_t *shape, double value);
unroll_tensor nn_iota(unroll_graph *graph, int64_t n); /* i32 [n]: 0, 1, .. */
unroll_tensor nn_reshape(unroll_tensor x, int32_t rank, const int64_t *shape);
/* i32 [B] -> bool [B,n]: position < length */
unroll_tensor nn_valid(unroll_tensor lengths, int64_t n);
/* log Σ exp over one axis, which goes; of numbers that are all below -1e29 about that again */
unroll_tensor nn_log_sum_exp(unroll_tensor x, int32_t axis);
/* What stands for the logarithm of 0 where a gradient flows: -infinity would make NaN. */
#define NN_LOG_ZERO (-1e30)
/* A number of steps, at least 1 or a run-time size; keeps the error. */
bool nn_check_steps(unroll_graph *graph, const char *who, int64_t steps);
/* Is lengths i32 [B]? Keeps the error. */
bool nn_check_lengths(unroll_graph *graph, const char *who, unroll_tensor lengths, int64_t batch);

/* nn_cell.c: one step of a standard cell, its product with the inputs apart, which may be of all steps at once. */
typedef struct nn_cell {
  int32_t cell, activation, layer;
  int64_t hidden;
} nn_cell;
/* cell and hidden of a caller's options; keeps the error. */
bool nn_cell_check(unroll_graph *graph, const char *who, int32_t cell, int32_t activation, int64_t hidden);
/* x [..,I] -> x·Wᵀ + c [..,GH], W = PREFIX.what.layer.0; c: [..,GH], or none: the cell's bias */
unroll_tensor nn_cell_product(unroll_tensor x, const char *prefix, const char *what, const nn_cell *cell,
                              unroll_tensor c);
/* xw [B,GH] -> the state after the step */
unroll_cell_state nn_cell_step(unroll_tensor xw, const char *prefix, const nn_cell *cell, unroll_cell_state state);
#endif
