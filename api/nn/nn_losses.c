/* SPDX-License-Identifier: Apache-2.0 */
/* nn_losses.c: losses, and the factor that clips gradients. */
#include "nn/nn_private.h"
#include <math.h>

static unroll_tensor scalar(unroll_tensor like, double value) {
  return like.graph && !graph_failed(like.graph) ? unroll_constant(like.graph, graph_spec(like)->dtype, 0, NULL, value)
                                                 : unroll_none();
}

static unroll_tensor sum(unroll_tensor x) { return unroll_reduce(x, UNROLL_SUM, 0, 0); }

unroll_tensor unroll_cross_entropy(unroll_tensor logits, unroll_tensor targets, int32_t reduction) {
  if (!logits.graph || graph_failed(logits.graph))
    return unroll_none();
  const unroll_tensor rows = unroll_cross_entropy_rows(logits, targets);
  switch (reduction) {
  case UNROLL_LOSS_NONE: return rows;
  case UNROLL_LOSS_SUM: return sum(rows);
  case UNROLL_LOSS_MEAN: {
    const unroll_tensor valid = unroll_binary(targets, scalar(targets, 0.0), UNROLL_GE);
    const unroll_tensor count = sum(unroll_cast(valid, graph_spec(logits)->dtype));
    return unroll_div(sum(rows), unroll_binary(count, scalar(rows, 1.0), UNROLL_MAX)); /* 0/1 where all are ignored */
  }
  default:
    return graph_fail(logits.graph, UNROLL_E_INVALID,
                      "cross entropy: reduction %d, expected UNROLL_LOSS_MEAN, SUM or NONE", reduction);
  }
}

/* How many elements a run has: known beforehand, or counted where the size of axis 0 is the run's. */
static unroll_tensor element_count(unroll_tensor x) {
  if (!x.graph || graph_failed(x.graph))
    return unroll_none();
  tensor_spec s = *graph_spec(x);
  double inner = 1;
  for (int i = 1; i < s.rank; i++)
    inner *= (double)s.shape[i];
  if (s.rank == 0 || s.dim[0] < 0)
    return scalar(x, s.rank ? inner * (double)s.shape[0] : 1.0);
  s.rank = 1;
  return sum(graph_zeros_like(x.graph, &s, inner));
}

unroll_tensor unroll_mse(unroll_tensor y, unroll_tensor target, int32_t reduction) {
  char a[GRAPH_DESCRIBE], b[GRAPH_DESCRIBE];
  if (!y.graph || !target.graph || graph_failed(y.graph))
    return unroll_none();
  if (!graph_same_shape(graph_spec(y), graph_spec(target)))
    return graph_fail(y.graph, UNROLL_E_SHAPE, "mse: %s and %s, expected one shape", graph_describe(y.graph, y.id, a),
                      graph_describe(target.graph, target.id, b));
  const unroll_tensor square = unroll_unary(unroll_sub(y, target), UNROLL_SQUARE);
  switch (reduction) {
  case UNROLL_LOSS_NONE: return square;
  case UNROLL_LOSS_SUM: return sum(square);
  case UNROLL_LOSS_HALF_SUM: return unroll_scale(sum(square), 0.5);
  case UNROLL_LOSS_MEAN: return unroll_div(sum(square), element_count(square));
  default:
    return graph_fail(y.graph, UNROLL_E_INVALID, "mse: reduction %d, expected UNROLL_LOSS_MEAN, SUM, NONE or HALF_SUM",
                      reduction);
  }
}

unroll_tensor nn_clip_factor(unroll_tensor norm, double max_norm) {
  const unroll_tensor factor = unroll_div(scalar(norm, max_norm), unroll_add(norm, scalar(norm, 1e-6)));
  return unroll_binary(factor, scalar(norm, 1.0), UNROLL_MIN);
}

unroll_tensor unroll_clip_global_norm(const unroll_tensor *grads, uint32_t n, double max_norm, unroll_tensor *norm) {
  unroll_tensor squares = unroll_none();
  if (norm)
    *norm = unroll_none();
  unroll_graph *g = grads && n ? grads[0].graph : NULL;
  if (!g || graph_failed(g))
    return unroll_none();
  if (!(max_norm > 0) || !isfinite(max_norm))
    return graph_fail(g, UNROLL_E_RANGE, "clip: largest norm %g, expected a number above 0", max_norm);
  for (uint32_t i = 0; i < n; i++) {
    const unroll_tensor s = unroll_reduce(grads[i], UNROLL_SUM_SQUARES, 0, 0);
    squares = i ? unroll_add(squares, s) : s;
  }
  const unroll_tensor all = unroll_unary(squares, UNROLL_SQRT);
  if (norm)
    *norm = all;
  return nn_clip_factor(all, max_norm);
}
