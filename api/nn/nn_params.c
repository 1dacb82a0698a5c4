/* SPDX-License-Identifier: Apache-2.0 */
/* nn_params.c: parameters by name; a name that is there already is shared. */
#include "nn/nn_private.h"
#include <string.h>

/* Takes over name. */
static unroll_tensor by_name(unroll_graph *g, char *name, int32_t dtype, int32_t rank, const int64_t *shape) {
  unroll_graph *root = graph_root(g);
  if (!name)
    return graph_fail(root, UNROLL_E_MEMORY, "out of memory for the name of a parameter");
  unroll_tensor p = unroll_graph_find(root, name);
  if (!p.graph || root->tensors[p.id].role != UNROLL_ROLE_PARAM)
    p = unroll_param(root, name, dtype, rank, shape); /* which also says that another kind of tensor has the name */
  else {
    const tensor_spec want = graph_make_spec(dtype, rank, shape);
    char text[GRAPH_DESCRIBE];
    if (graph_spec(p)->dtype != dtype || !graph_same_shape(graph_spec(p), &want))
      p = graph_fail(root, UNROLL_E_SHAPE,
                     "parameter %s is there already and cannot be shared: other shape or type here",
                     graph_describe(root, p.id, text));
  }
  mem_free(&root->allocator, name);
  return p;
}

static const char *dot(const char *prefix) { return prefix && *prefix ? "." : ""; }

unroll_tensor nn_param(unroll_graph *g, const char *prefix, const char *what, int32_t dtype, int32_t rank,
                       const int64_t *shape) {
  if (graph_failed(g))
    return unroll_none();
  return by_name(g, mem_printf(&g->allocator, "%s%s%s", prefix ? prefix : "", dot(prefix), what), dtype, rank, shape);
}

unroll_tensor nn_layer_param(unroll_graph *g, const char *prefix, const char *what, int32_t layer, int32_t direction,
                             int32_t dtype, int32_t rank, const int64_t *shape) {
  if (graph_failed(g))
    return unroll_none();
  return by_name(g,
                 mem_printf(&g->allocator, "%s%s%s.%d.%d", prefix ? prefix : "", dot(prefix), what, layer, direction),
                 dtype, rank, shape);
}
