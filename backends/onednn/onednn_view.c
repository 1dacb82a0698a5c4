/* SPDX-License-Identifier: Apache-2.0 */
/* A graph view comes from the other side of an ABI: nothing in it is used before it is checked. */
#include "onednn.h"
#include <stdio.h>
#include <string.h>

uint32_t onednn_dtype_size(int32_t dtype) {
  static const uint8_t sizes[UNROLL_DTYPE_COUNT] = {
#define SIZE(code, value, text, bytes) [value] = (bytes),
      UNROLL_DTYPES(SIZE)
#undef SIZE
  };
  return dtype >= 0 && dtype < UNROLL_DTYPE_COUNT ? sizes[dtype] : 0;
}

int64_t onednn_count(const onednn_tensor *t) {
  int64_t n = 1;
  for (int32_t i = 0; i < t->rank; i++)
    n *= t->size[i];
  return n;
}

int64_t onednn_count_at(const onednn_tensor *t, const int64_t *dims) {
  const int64_t most = onednn_count(t);
  return t->dim >= 0 ? most / t->size[0] * t->per_size * dims[t->dim] : most;
}

unroll_status onednn_view_check(const unroll_graph_view *v, unroll_error *err) {
  if (!v || !UNROLL_HAS(unroll_graph_view, v, bodies))
    return onednn_fail(err, UNROLL_E_ABI, "onednn: a graph view of %u bytes, at least %zu expected",
                       v ? v->struct_size : 0, UNROLL_SIZE_TO(unroll_graph_view, bodies));
  if (v->n_nodes && (!v->nodes || v->node_stride < UNROLL_SIZE_TO(unroll_node_view, name)))
    return onednn_fail(err, UNROLL_E_ABI, "onednn: nodes %u bytes apart, at least %zu expected", v->node_stride,
                       UNROLL_SIZE_TO(unroll_node_view, name));
  if (v->n_tensors && (!v->tensors || v->tensor_stride < UNROLL_SIZE_TO(unroll_tensor_view, name)))
    return onednn_fail(err, UNROLL_E_ABI, "onednn: tensors %u bytes apart, at least %zu expected", v->tensor_stride,
                       UNROLL_SIZE_TO(unroll_tensor_view, name));
  if ((v->n_edges && !v->edges) || (v->n_dims && (!v->dim_min || !v->dim_max)))
    return onednn_fail(err, UNROLL_E_GRAPH, "onednn: the graph view lacks its edges or run-time sizes");
  for (uint32_t i = 0; i < v->n_dims; i++)
    if (v->dim_min[i] < 0 || v->dim_max[i] < 1 || v->dim_min[i] > v->dim_max[i])
      return onednn_fail(err, UNROLL_E_GRAPH, "onednn: run-time size %u goes from %lld to %lld", i,
                         (long long)v->dim_min[i], (long long)v->dim_max[i]);
  for (uint32_t i = 0; i < v->n_edges; i++)
    if (v->edges[i] != UNROLL_NO_TENSOR && v->edges[i] >= v->n_tensors)
      return onednn_fail(err, UNROLL_E_GRAPH, "onednn: edge %u names tensor %u, there are %u", i, v->edges[i],
                         v->n_tensors);
  for (uint32_t i = 0; i < v->n_nodes; i++) {
    const unroll_node_view *n = onednn_view_node(v, i);
    if (n->first_in > v->n_edges || n->n_in > v->n_edges - n->first_in || n->first_out > v->n_edges ||
        n->n_out > v->n_edges - n->first_out)
      return onednn_fail(err, UNROLL_E_GRAPH, "onednn: node \"%.60s\": its edges end beyond the %u of the graph",
                         n->name, v->n_edges);
  }
  return UNROLL_OK;
}

const unroll_node_view *onednn_view_node(const unroll_graph_view *v, uint32_t i) {
  return (const unroll_node_view *)(const void *)((const char *)v->nodes + (size_t)i * v->node_stride);
}

unroll_status onednn_view_tensor(const unroll_graph_view *v, uint32_t i, onednn_tensor *out, unroll_error *err) {
  const unroll_tensor_view *t =
      (const unroll_tensor_view *)(const void *)((const char *)v->tensors + (size_t)i * v->tensor_stride);
  if (t->rank < 0 || t->rank > UNROLL_MAX_RANK)
    return onednn_fail(err, UNROLL_E_SHAPE, "onednn: tensor \"%.60s\": rank %d, at most %d expected", t->name, t->rank,
                       UNROLL_MAX_RANK);
  *out = (onednn_tensor){.dtype = t->dtype,
                         .rank = t->rank,
                         .dim = t->rank > 0 ? t->dim[0] : -1,
                         .slot = t->slot,
                         .period = t->period,
                         .offset = t->offset,
                         .step = t->step};
  (void)snprintf(out->name, sizeof out->name, "%s", t->name);

  int64_t dense = 1;
  for (int32_t a = t->rank - 1; a >= 0; a--) {
    const int64_t size = out->size[a] = t->shape[a];
    if (size < 1)
      return onednn_fail(err, UNROLL_E_SHAPE, "onednn: tensor \"%.60s\": size %lld on axis %d", t->name,
                         (long long)size, a);
    if (size > 1 && t->stride[a] != dense)
      return onednn_fail(err, UNROLL_E_GRAPH,
                         "onednn: tensor \"%.60s\": stride %lld on axis %d, %lld expected: it is dense", t->name,
                         (long long)t->stride[a], a, (long long)dense);
    if (size > INT64_MAX / 16 / dense)
      return onednn_fail(err, UNROLL_E_SHAPE, "onednn: tensor \"%.60s\": too many elements", t->name);
    dense *= size;
    if (a > 0 && t->dim[a] >= 0)
      return onednn_fail(err, UNROLL_E_GRAPH,
                         "onednn: tensor \"%.60s\": a run-time size on axis %d, only axis 0 has one", t->name, a);
  }
  const int32_t dim = out->dim;
  if (dim < -1 || (dim >= 0 && (uint32_t)dim >= v->n_dims))
    return onednn_fail(err, UNROLL_E_GRAPH, "onednn: tensor \"%.60s\": run-time size %d, there are %u", t->name, dim,
                       v->n_dims);
  if (dim >= 0 && out->size[0] % v->dim_max[dim] != 0)
    return onednn_fail(err, UNROLL_E_GRAPH, "onednn: tensor \"%.60s\": size %lld is no multiple of %lld, its maximum",
                       t->name, (long long)out->size[0], (long long)v->dim_max[dim]);
  out->per_size = dim >= 0 ? out->size[0] / v->dim_max[dim] : 0;
  return UNROLL_OK;
}
