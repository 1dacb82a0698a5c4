/* SPDX-License-Identifier: Apache-2.0 */
/* nn_private.h: what the layers share. */
#ifndef NN_PRIVATE_H
#define NN_PRIVATE_H
#include "graph/graph_private.h"
#include <unroll/nn.h>

/*
 * The parameter "PREFIX.what" of the graph, or of the graph around it where that is a body: the one that is there already,
 * which must have this dtype and shape, else a new one.
 */
unroll_tensor nn_param(unroll_graph *graph, const char *prefix, const char *what, int32_t dtype, int32_t rank,
                       const int64_t *shape);
/* The same for "PREFIX.what.layer.direction". */
unroll_tensor nn_layer_param(unroll_graph *graph, const char *prefix, const char *what, int32_t layer,
                             int32_t direction, int32_t dtype, int32_t rank, const int64_t *shape);
/* unroll_rnn with checkpoints; options and x have been looked at. (nn_checkpoint.c) */
unroll_tensor nn_rnn_in_segments(unroll_tensor x, const char *prefix, const unroll_rnn_options *options,
                                 const unroll_rnn_state *initial, unroll_rnn_state *last);
#endif
