/* SPDX-License-Identifier: Apache-2.0 */
/* nn_attention.c: alignments of a query with a source, their softmax, and the context that they weigh. */
#include "nn/nn_private.h"
#include <inttypes.h>
#include <math.h>

static bool check_prepare(unroll_graph *g, unroll_tensor source, int32_t kind, int64_t D, int64_t units) {
  char text[GRAPH_DESCRIBE];
  const tensor_spec *s = graph_spec(source);
  if (kind <= UNROLL_ATTENTION_NONE || kind >= UNROLL_ATTENTION_COUNT)
    graph_fail(g, UNROLL_E_INVALID, "attention: kind %d, expected UNROLL_ATTENTION_ADDITIVE to _SCALED_DOT", kind);
  else if (s->rank != 3 || (s->dtype != UNROLL_F32 && s->dtype != UNROLL_F64))
    graph_fail(g, UNROLL_E_SHAPE, "attention: source %s, expected real [S,B,E]", graph_describe(g, source.id, text));
  else if (s->dim[0] >= 0)
    graph_fail(g, UNROLL_E_UNSUPPORTED, "attention: source %s has a run-time size, expected a static one",
               graph_describe(g, source.id, text));
  else if (D < 1 || units < 0)
    graph_fail(g, UNROLL_E_RANGE,
               "attention: query size %" PRId64 ", %" PRId64 " units, expected at least 1 and at least 0", D, units);
  else if ((kind == UNROLL_ATTENTION_DOT || kind == UNROLL_ATTENTION_SCALED_DOT) && s->shape[2] != D)
    graph_fail(g, UNROLL_E_SHAPE,
               "attention: the dot product of a query of %" PRId64 " and source %s, expected one size", D,
               graph_describe(g, source.id, text));
  return !graph_failed(g);
}

unroll_attention unroll_attention_prepare(unroll_tensor source, unroll_tensor lengths, const char *prefix, int32_t kind,
                                          int64_t D, int64_t units) {
  unroll_graph *g = source.graph;
  unroll_attention a = {.struct_size = sizeof a, .kind = kind, .query_size = D};
  if (!g || graph_failed(g) || !check_prepare(g, source, kind, D, units))
    return a;
  const tensor_spec s = *graph_spec(source);
  const int64_t S = s.shape[0], B = s.shape[1], E = s.shape[2], A = units ? units : D;
  if (!nn_check_lengths(g, "attention", lengths, B))
    return a;
  if (lengths.graph) {
    source = unroll_length_mask(source, lengths);
    a.valid = nn_reshape(nn_valid(lengths, S), 3, (int64_t[]){B, 1, S});
  }
  a.keys = a.values = unroll_transpose(source, (int32_t[]){1, 0, 2});
  if (kind == UNROLL_ATTENTION_ADDITIVE) {
    a.W_a = nn_param(g, prefix, "W_a", s.dtype, 2, (int64_t[]){A, D});
    a.v_a = nn_param(g, prefix, "v_a", s.dtype, 2, (int64_t[]){1, A});
    const unroll_tensor U_a = nn_param(g, prefix, "U_a", s.dtype, 2, (int64_t[]){A, E});
    a.keys = unroll_matmul_add(a.values, 0, U_a, 1, unroll_none());
  } else if (kind == UNROLL_ATTENTION_MULTIPLICATIVE) {
    const unroll_tensor W_a = nn_param(g, prefix, "W_a", s.dtype, 2, (int64_t[]){D, E});
    a.keys = unroll_matmul_add(a.values, 0, W_a, 1, unroll_none());
  }
  return a;
}

/* [B,K,S]: K queries of each source */
static unroll_tensor alignments(const unroll_attention *a, unroll_tensor query, int64_t B, int64_t K, int64_t S) {
  if (a->kind != UNROLL_ATTENTION_ADDITIVE) {
    if (a->kind == UNROLL_ATTENTION_SCALED_DOT)
      query = unroll_scale(query, 1.0 / sqrt((double)a->query_size));
    return unroll_matmul_add(nn_reshape(query, 3, (int64_t[]){B, K, a->query_size}), 0, a->keys, 1, unroll_none());
  }
  if (graph_failed(query.graph))
    return unroll_none();
  const int64_t A = graph_spec(a->v_a)->shape[1];
  const unroll_tensor q = nn_reshape(unroll_matmul_add(query, 0, a->W_a, 1, unroll_none()), 4, (int64_t[]){B, K, 1, A});
  const unroll_tensor k = nn_reshape(a->keys, 4, (int64_t[]){B, 1, S, A});
  const unroll_tensor e = unroll_matmul_add(unroll_tanh(unroll_add(q, k)), 0, a->v_a, 1, unroll_none());
  return nn_reshape(e, 3, (int64_t[]){B, K, S});
}

unroll_tensor unroll_attend(const unroll_attention *a, unroll_tensor query, unroll_tensor *weights) {
  unroll_graph *g = query.graph;
  char text[GRAPH_DESCRIBE];
  if (weights)
    *weights = unroll_none();
  if (!g || graph_failed(g))
    return unroll_none();
  if (!a || !UNROLL_HAS(unroll_attention, a, v_a) || !a->values.graph)
    return graph_fail(g, UNROLL_E_INVALID, "attend: what unroll_attention_prepare returned is expected");
  const tensor_spec v = *graph_spec(a->values), *q = graph_spec(query);
  const int64_t B = v.shape[0], S = v.shape[1], E = v.shape[2], R = q->rank == 2 ? q->shape[0] : 0, K = R / B;
  if (R < B || R % B != 0 || q->shape[1] != a->query_size)
    return graph_fail(g, UNROLL_E_SHAPE,
                      "attend: query %s, expected [R,%" PRId64 "] with R a multiple of the source's batch %" PRId64,
                      graph_describe(g, query.id, text), a->query_size, B);
  unroll_tensor e = alignments(a, query, B, K, S);
  if (a->valid.graph) /* a finite number, so that a source of length 0 makes no NaN */
    e = unroll_select(a->valid, e, nn_scalar(e, NN_LOG_ZERO));
  unroll_tensor alpha = unroll_softmax(e);
  if (a->valid.graph)
    alpha = unroll_select(a->valid, alpha, nn_scalar(alpha, 0.0));
  if (weights)
    *weights = nn_reshape(alpha, 2, (int64_t[]){R, S});
  return nn_reshape(unroll_matmul(alpha, a->values), 2, (int64_t[]){R, E});
}
