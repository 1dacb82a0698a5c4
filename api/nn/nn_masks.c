/* SPDX-License-Identifier: Apache-2.0 */
/* nn_masks.c: random masks: of every step, of all steps at once, of a matrix. */
#include "nn/nn_private.h"

static unroll_tensor ones(unroll_graph *g, int32_t dtype, int32_t rank, const int64_t *shape) {
  return unroll_constant(g, dtype, rank, shape, 1.0);
}

unroll_tensor nn_dropout(unroll_tensor x, double p, bool same_mask) {
  if (p == 0 || !x.graph || graph_failed(x.graph))
    return x;
  if (!same_mask)
    return unroll_dropout(x, p);
  const tensor_spec s = *graph_spec(x);
  return unroll_mul(x, unroll_dropout(ones(x.graph, s.dtype, 3, (int64_t[]){1, s.shape[1], s.shape[2]}), p));
}

/* Rows of the matrix stand where a sequence's are: at time 0 of a run. */
unroll_tensor nn_dropout_matrix(unroll_tensor W, double p) {
  if (p == 0 || !W.graph || graph_failed(W.graph))
    return W;
  const tensor_spec s = *graph_spec(W);
  const unroll_tensor step = unroll_reshape(W, 3, (int64_t[]){1, s.shape[0], s.shape[1]});
  return unroll_reshape(unroll_dropout(step, p), 2, s.shape);
}

unroll_tensor nn_mask(unroll_graph *g, int32_t dtype, int64_t B, int64_t N, double p) {
  if (graph_failed(g))
    return unroll_none();
  return unroll_reshape(unroll_dropout(ones(g, dtype, 3, (int64_t[]){1, B, N}), p), 2, (int64_t[]){B, N});
}

unroll_tensor nn_step_masks(unroll_graph *g, int32_t dtype, int64_t T, int64_t B, int64_t N, double p) {
  if (graph_failed(g))
    return unroll_none();
  const unroll_tensor u = unroll_random(g, UNROLL_RANDOM_UNIFORM, dtype, 3, (int64_t[]){T, B, N});
  return unroll_binary(u, nn_filled(g, dtype, 0, NULL, p), UNROLL_LT);
}

int64_t nn_time(unroll_tensor x) {
  if (nn_lost(x))
    return 1;
  return graph_spec(x)->dim[0] >= 0 ? -1 - (int64_t)graph_spec(x)->dim[0] : graph_spec(x)->shape[0];
}
