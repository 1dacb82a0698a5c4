/* SPDX-License-Identifier: Apache-2.0 */
/* A graph view comes from the other side of an ABI: nothing in it is used before it is checked. */
#include "cpu.h"
#include <stdio.h>
#include <string.h>

static const struct {
  const char *name;
  uint32_t size;
} dtypes[UNROLL_DTYPE_COUNT] = {
#define DTYPE(code, value, text, bytes) [value] = {text, bytes},
    UNROLL_DTYPES(DTYPE)
#undef DTYPE
};

uint32_t cpu_dtype_size(int32_t dtype) { return dtype >= 0 && dtype < UNROLL_DTYPE_COUNT ? dtypes[dtype].size : 0; }
const char *cpu_dtype_name(int32_t dtype) {
  return dtype >= 0 && dtype < UNROLL_DTYPE_COUNT ? dtypes[dtype].name : "none";
}

int64_t cpu_shape_count(const cpu_shape *s) {
  int64_t n = 1;
  for (int32_t i = 0; i < s->rank; i++)
    n *= s->size[i];
  return n;
}

bool cpu_shape_same(const cpu_shape *a, const cpu_shape *b) {
  return a->rank == b->rank && a->dim == b->dim && memcmp(a->size, b->size, (size_t)a->rank * sizeof a->size[0]) == 0;
}

/* [12*,3]: the star says that axis 0 follows a run-time size. */
cpu_text cpu_shape_text(const cpu_shape *s) {
  cpu_text t = {"["};
  size_t at = 1;
  for (int32_t i = 0; i < s->rank && at < sizeof t.text; i++)
    at += (size_t)snprintf(t.text + at, sizeof t.text - at, "%s%lld%s", i ? "," : "", (long long)s->size[i],
                           i == 0 && s->dim >= 0 ? "*" : "");
  if (at < sizeof t.text)
    (void)snprintf(t.text + at, sizeof t.text - at, "]");
  return t;
}

unroll_status cpu_view_check(const unroll_graph_view *v, unroll_error *err) {
  if (!v || !UNROLL_HAS(unroll_graph_view, v, bodies))
    return cpu_fail(err, UNROLL_E_ABI, "cpu: a graph view of %u bytes, at least %zu expected", v ? v->struct_size : 0,
                    UNROLL_SIZE_TO(unroll_graph_view, bodies));
  if (v->n_nodes && (!v->nodes || v->node_stride < UNROLL_SIZE_TO(unroll_node_view, name)))
    return cpu_fail(err, UNROLL_E_ABI, "cpu: nodes %u bytes apart, at least %zu expected", v->node_stride,
                    UNROLL_SIZE_TO(unroll_node_view, name));
  if (v->n_tensors && (!v->tensors || v->tensor_stride < UNROLL_SIZE_TO(unroll_tensor_view, name)))
    return cpu_fail(err, UNROLL_E_ABI, "cpu: tensors %u bytes apart, at least %zu expected", v->tensor_stride,
                    UNROLL_SIZE_TO(unroll_tensor_view, name));
  if ((v->n_edges && !v->edges) || (v->n_dims && (!v->dim_min || !v->dim_max)))
    return cpu_fail(err, UNROLL_E_GRAPH, "cpu: the graph view lacks its edges or run-time sizes");
  for (uint32_t i = 0; i < v->n_dims; i++)
    if (v->dim_min[i] < 0 || v->dim_max[i] < 1 || v->dim_min[i] > v->dim_max[i])
      return cpu_fail(err, UNROLL_E_GRAPH, "cpu: run-time size %u goes from %lld to %lld", i, (long long)v->dim_min[i],
                      (long long)v->dim_max[i]);
  for (uint32_t i = 0; i < v->n_edges; i++)
    if (v->edges[i] != UNROLL_NO_TENSOR && v->edges[i] >= v->n_tensors)
      return cpu_fail(err, UNROLL_E_GRAPH, "cpu: edge %u names tensor %u, there are %u", i, v->edges[i], v->n_tensors);
  for (uint32_t i = 0; i < v->n_nodes; i++) {
    const unroll_node_view *n = cpu_view_node(v, i);
    if (n->first_in > v->n_edges || n->n_in > v->n_edges - n->first_in || n->first_out > v->n_edges ||
        n->n_out > v->n_edges - n->first_out)
      return cpu_fail(err, UNROLL_E_GRAPH, "cpu: node \"%.60s\": its edges end beyond the %u of the graph", n->name,
                      v->n_edges);
  }
  return UNROLL_OK;
}

const unroll_node_view *cpu_view_node(const unroll_graph_view *v, uint32_t i) {
  return (const unroll_node_view *)(const void *)((const char *)v->nodes + (size_t)i * v->node_stride);
}

unroll_status cpu_view_tensor(const unroll_graph_view *v, uint32_t i, cpu_tensor *out, unroll_error *err) {
  const unroll_tensor_view *t =
      (const unroll_tensor_view *)(const void *)((const char *)v->tensors + (size_t)i * v->tensor_stride);
  if (t->rank < 0 || t->rank > UNROLL_MAX_RANK)
    return cpu_fail(err, UNROLL_E_SHAPE, "cpu: tensor \"%.60s\": rank %d, at most %d expected", t->name, t->rank,
                    UNROLL_MAX_RANK);
  memset(out, 0, sizeof *out);
  out->dtype = t->dtype;
  out->slot = t->slot;
  out->period = t->period;
  out->offset = t->offset;
  out->step = t->step;
  out->shape.rank = t->rank;
  out->shape.dim = t->rank > 0 ? t->dim[0] : -1;
  (void)snprintf(out->name, sizeof out->name, "%s", t->name);
  if (cpu_dtype_size(t->dtype) == 0)
    return UNROLL_OK; /* a type of later: only nodes that use it are not understood */

  int64_t dense = 1;
  for (int32_t a = t->rank - 1; a >= 0; a--) {
    const int64_t size = out->shape.size[a] = t->shape[a];
    if (size < 1)
      return cpu_fail(err, UNROLL_E_SHAPE, "cpu: tensor \"%.60s\": size %lld on axis %d", t->name, (long long)size, a);
    if (size > 1 && t->stride[a] != dense)
      return cpu_fail(err, UNROLL_E_GRAPH, "cpu: tensor \"%.60s\": stride %lld on axis %d, %lld expected: it is dense",
                      t->name, (long long)t->stride[a], a, (long long)dense);
    if (size > INT64_MAX / 16 / dense)
      return cpu_fail(err, UNROLL_E_SHAPE, "cpu: tensor \"%.60s\": too many elements", t->name);
    dense *= size;
    if (a > 0 && t->dim[a] >= 0)
      return cpu_fail(err, UNROLL_E_GRAPH, "cpu: tensor \"%.60s\": a run-time size on axis %d, only axis 0 has one",
                      t->name, a);
  }
  const int32_t dim = out->shape.dim;
  if (dim < -1 || (dim >= 0 && (uint32_t)dim >= v->n_dims))
    return cpu_fail(err, UNROLL_E_GRAPH, "cpu: tensor \"%.60s\": run-time size %d, there are %u", t->name, dim,
                    v->n_dims);
  if (dim >= 0 && out->shape.size[0] % v->dim_max[dim] != 0)
    return cpu_fail(err, UNROLL_E_GRAPH, "cpu: tensor \"%.60s\": size %lld is no multiple of %lld, its maximum",
                    t->name, (long long)out->shape.size[0], (long long)v->dim_max[dim]);
  out->per_size = dim >= 0 ? out->shape.size[0] / v->dim_max[dim] : 0;
  return UNROLL_OK;
}
