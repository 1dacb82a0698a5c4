/* SPDX-License-Identifier: Apache-2.0 */
/* nn_pieces.c: small graphs that attention, decoders and CTC are made of. */
#include "nn/nn_private.h"
#include <inttypes.h>

unroll_tensor nn_filled(unroll_graph *g, int32_t dtype, int32_t rank, const int64_t *shape, double value) {
  return g && !graph_failed(g) ? unroll_constant(g, dtype, rank, shape, value) : unroll_none();
}

unroll_tensor nn_scalar(unroll_tensor like, double value) {
  return !nn_lost(like) ? nn_filled(like.graph, graph_spec(like)->dtype, 0, NULL, value) : unroll_none();
}

unroll_tensor nn_reshape(unroll_tensor x, int32_t rank, const int64_t *shape) {
  return !nn_lost(x) ? unroll_reshape(x, rank, shape) : unroll_none();
}

/* Twice as long each time: there is no op that counts. */
unroll_tensor nn_iota(unroll_graph *g, int64_t n) {
  const int64_t one = 1;
  unroll_tensor x = nn_filled(g, UNROLL_I32, 1, &one, 0.0);
  for (int64_t size = 1; size < n && !graph_failed(g); size *= 2)
    x = unroll_concat((unroll_tensor[]){x, unroll_add(x, nn_scalar(x, (double)size))}, 2, 0);
  return graph_failed(g) || graph_spec(x)->shape[0] == n ? x : unroll_slice(x, 0, 0, n);
}

unroll_tensor nn_valid(unroll_tensor lengths, int64_t n) {
  unroll_graph *g = lengths.graph;
  if (!g || graph_failed(g))
    return unroll_none();
  const int64_t ones[2] = {n, graph_spec(lengths)->shape[0]};
  const unroll_tensor mask = unroll_length_mask(nn_filled(g, UNROLL_I32, 2, ones, 1.0), lengths);
  return unroll_cast(unroll_transpose(mask, (int32_t[]){1, 0}), UNROLL_BOOL);
}

unroll_tensor nn_log_sum_exp(unroll_tensor x, int32_t axis) {
  if (nn_lost(x))
    return unroll_none();
  const tensor_spec s = *graph_spec(x);
  int64_t shape[UNROLL_MAX_RANK];
  int32_t rank = 0;
  for (int32_t i = 0; i < s.rank; i++)
    if (i != axis)
      shape[rank++] = s.shape[i];
  const uint32_t axes = 1u << axis;
  const unroll_tensor most = unroll_reduce(x, UNROLL_REDUCE_MAX, axes, 1);
  const unroll_tensor sum = unroll_reduce(unroll_unary(unroll_sub(x, most), UNROLL_EXP), UNROLL_SUM, axes, 0);
  return unroll_add(nn_reshape(most, rank, shape), unroll_unary(sum, UNROLL_LOG));
}

bool nn_check_steps(unroll_graph *g, const char *who, int64_t steps) {
  if (steps < 1 && !(steps < 0 && steps >= -(int64_t)graph_root(g)->n_dims))
    graph_fail(g, UNROLL_E_RANGE, "%s: %" PRId64 " steps, expected at least 1", who, steps);
  return !graph_failed(g);
}

bool nn_check_lengths(unroll_graph *g, const char *who, unroll_tensor lengths, int64_t batch) {
  char text[GRAPH_DESCRIBE];
  if (graph_failed(g))
    return false;
  if (!lengths.graph)
    return true;
  const tensor_spec *s = graph_spec(lengths);
  if (s->dtype != UNROLL_I32 || s->rank != 1 || s->shape[0] != batch)
    graph_fail(g, UNROLL_E_SHAPE, "%s: lengths are %s, expected i32 [%" PRId64 "]", who,
               graph_describe(lengths.graph, lengths.id, text), batch);
  return !graph_failed(g);
}
