/* SPDX-License-Identifier: Apache-2.0 */
/* view.c: a graph, or a part of it, as the flat read-only arrays that cross the ABI. */
#include "runtime/runtime_private.h"
#include <string.h>

void view_destroy(const unroll_allocator *a, graph_view *v) {
  if (!v)
    return;
  for (uint32_t i = 0; v->bodies && i < v->n_bodies; i++)
    view_destroy(a, v->bodies[i]);
  mem_free(a, v->bodies);
  mem_free(a, v->body_views);
  mem_free(a, v->nodes);
  mem_free(a, v->tensors);
  mem_free(a, v->edges);
  mem_free(a, v->dim_min);
  mem_free(a, v->dim_max);
  mem_free(a, v);
}

static void view_tensor(const unroll_graph *g, uint32_t id, const place *p, unroll_tensor_view *t) {
  const tensor *from = &g->tensors[id];
  *t = (unroll_tensor_view){.dtype = from->spec.dtype,
                            .rank = from->spec.rank,
                            .role = from->role,
                            .slot = p ? p->slot : UNROLL_NO_SLOT,
                            .alias = -1,
                            .period = p ? p->period : 0,
                            .offset = p ? p->offset : 0,
                            .step = p ? p->step : 0,
                            .name = from->name};
  int64_t stride = 1;
  for (int i = UNROLL_MAX_RANK; i-- > 0;) {
    const bool inside = i < from->spec.rank;
    t->shape[i] = inside ? from->spec.shape[i] : 1;
    t->dim[i] = inside ? from->spec.dim[i] : -1;
    t->stride[i] = inside ? stride : 0;
    stride *= t->shape[i];
  }
}

unroll_status view_create(const unroll_graph *g, const uint32_t *picked, uint32_t n_picked, const place *places,
                          uint32_t n_slots, graph_view **out, unroll_error *err) {
  const unroll_graph *root = graph_root_of(g);
  const unroll_allocator *a = &root->allocator;
  const uint32_t n = picked ? n_picked : g->n_nodes;
  uint32_t n_edges = 0, n_bodies = 0, n_in = 0, n_out = 0;
  *out = NULL;
  for (uint32_t i = 0; i < n; i++) {
    const node *x = &g->nodes[picked ? picked[i] : i];
    n_edges += x->n_in + x->n_out;
    n_bodies += x->body != NULL;
  }
  if (g->parent) {
    n_in = g->n_carries + g->n_inputs + g->n_captures;
    n_out = g->n_carries + g->n_outputs;
  } else
    for (uint32_t i = 0; i < g->n_tensors; i++) {
      n_in += g->tensors[i].role >= UNROLL_ROLE_INPUT && g->tensors[i].role <= UNROLL_ROLE_STATE;
      n_out += g->tensors[i].role == UNROLL_ROLE_OUTPUT;
    }
  graph_view *v = mem_zalloc(a, sizeof *v);
  if (!v)
    return fail(err, UNROLL_E_MEMORY, "out of memory for the view of a graph");
  v->nodes = mem_array(a, (uint64_t)n + 1, sizeof *v->nodes);
  v->tensors = mem_array(a, (uint64_t)g->n_tensors + 1, sizeof *v->tensors);
  v->edges = mem_array(a, (uint64_t)n_edges + n_in + n_out + 1, sizeof *v->edges);
  v->dim_min = mem_array(a, (uint64_t)root->n_dims + 1, sizeof *v->dim_min);
  v->dim_max = mem_array(a, (uint64_t)root->n_dims + 1, sizeof *v->dim_max);
  v->bodies = mem_array(a, (uint64_t)n_bodies + 1, sizeof *v->bodies);
  v->body_views = mem_array(a, (uint64_t)n_bodies + 1, sizeof *v->body_views);
  if (!v->nodes || !v->tensors || !v->edges || !v->dim_min || !v->dim_max || !v->bodies || !v->body_views) {
    view_destroy(a, v);
    return fail(err, UNROLL_E_MEMORY, "out of memory for the view of a graph");
  }
  uint32_t e = 0;
  for (uint32_t i = 0; i < n; i++) {
    const node *x = &g->nodes[picked ? picked[i] : i];
    unroll_node_view *y = &v->nodes[i];
    *y = (unroll_node_view){.op = x->op,
                            .op_version = graph_op_version(x),
                            .n_in = x->n_in,
                            .n_out = x->n_out,
                            .layer = x->layer,
                            .direction = x->direction,
                            .body = UNROLL_NO_BODY,
                            .cell = UNROLL_CELL_NONE,
                            .attr = &x->attr,
                            .attr_size = graph_attr_size(x->op),
                            .name = x->name};
    y->first_in = e;
    memcpy(v->edges + e, x->in, x->n_in * sizeof *x->in);
    y->first_out = e += x->n_in;
    memcpy(v->edges + e, x->out, x->n_out * sizeof *x->out);
    e += x->n_out;
    if (x->body) {
      const unroll_status st = view_create(x->body, NULL, 0, NULL, 0, &v->bodies[v->n_bodies], err);
      if (st != UNROLL_OK) {
        view_destroy(a, v);
        return st;
      }
      y->cell = (uint32_t)x->attr.scan.cell;
      y->body = v->n_bodies;
      v->body_views[v->n_bodies] = &v->bodies[v->n_bodies]->view;
      v->n_bodies++;
    }
  }
  const uint32_t first_in = e, first_out = e + n_in;
  uint32_t o = first_out;
  for (uint32_t i = 0; g->parent && i < g->n_carries; i++) {
    v->edges[e++] = g->carries[i].in;
    v->edges[o++] = g->carries[i].next;
  }
  for (uint32_t i = 0; g->parent && i < g->n_inputs; i++)
    v->edges[e++] = g->inputs[i].inner;
  for (uint32_t i = 0; g->parent && i < g->n_captures; i++)
    v->edges[e++] = g->captures[i].inner;
  for (uint32_t i = 0; g->parent && i < g->n_outputs; i++)
    v->edges[o++] = g->outputs[i].inner;
  for (uint32_t i = 0; i < g->n_tensors; i++) {
    view_tensor(g, i, places ? &places[i] : NULL, &v->tensors[i]);
    const int32_t role = g->tensors[i].role;
    if (!g->parent && role >= UNROLL_ROLE_INPUT && role <= UNROLL_ROLE_STATE)
      v->edges[e++] = i;
    if (!g->parent && role == UNROLL_ROLE_OUTPUT)
      v->edges[o++] = i;
  }
  for (uint32_t i = 0; i < root->n_dims; i++) {
    v->dim_min[i] = root->dims[i].min;
    v->dim_max[i] = root->dims[i].max;
  }
  v->view = (unroll_graph_view){.struct_size = sizeof v->view,
                                .node_stride = sizeof *v->nodes,
                                .tensor_stride = sizeof *v->tensors,
                                .n_nodes = n,
                                .n_tensors = g->n_tensors,
                                .n_edges = first_out + n_out,
                                .is_template = g->parent != NULL,
                                .n_bodies = v->n_bodies,
                                .n_dims = root->n_dims,
                                .n_slots = n_slots,
                                .first_in = first_in,
                                .n_in = n_in,
                                .first_out = first_out,
                                .n_out = n_out,
                                .dim_min = v->dim_min,
                                .dim_max = v->dim_max,
                                .nodes = v->nodes,
                                .tensors = v->tensors,
                                .edges = v->edges,
                                .bodies = v->body_views};
  *out = v;
  return UNROLL_OK;
}
