/* SPDX-License-Identifier: Apache-2.0 */
/* gradient.c: reverse mode over a graph. The gradient is more nodes of the same graph. */
#include "graph/graph_private.h"

bool gradient_is_real(const tensor_spec *s) { return s->dtype == UNROLL_F32 || s->dtype == UNROLL_F64; }

void gradient_mark(const unroll_graph *g, uint32_t first, uint32_t end, bool *needs) {
  for (uint32_t i = first; i < end; i++) {
    const node *n = &g->nodes[i];
    bool any = false;
    for (uint32_t k = 0; k < n->n_in; k++)
      any = any || (n->in[k] != GRAPH_NONE && needs[n->in[k]]);
    for (uint32_t k = 0; any && k < n->n_out; k++)
      needs[n->out[k]] = needs[n->out[k]] || gradient_is_real(&g->tensors[n->out[k]].spec);
  }
}

typedef struct reverse {
  unroll_graph *graph;
  bool *needs;
  unroll_tensor *adjoint;
} reverse;

static unroll_tensor value(vjp *v, uint32_t t) { return graph_handle(((reverse *)v->user)->graph, t); }
static unroll_tensor adjoint(vjp *v, uint32_t t) { return ((reverse *)v->user)->adjoint[t]; }
static bool wants(vjp *v, const node *n, uint32_t input) { return ((reverse *)v->user)->needs[n->in[input]]; }
static void give(vjp *v, const node *n, uint32_t input, unroll_tensor x) {
  unroll_tensor *a = &((reverse *)v->user)->adjoint[n->in[input]];
  *a = a->graph ? unroll_add(*a, x) : x;
}

void gradient_walk(const unroll_tensor *y, const unroll_tensor *dy, uint32_t n_y, const unroll_tensor *x, uint32_t n_x,
                   unroll_tensor *dx, uint32_t first) {
  unroll_graph *g = n_y ? y[0].graph : NULL;
  for (uint32_t i = 0; i < n_x; i++)
    dx[i] = unroll_none();
  if (!g || graph_failed(g))
    return;
  char a[GRAPH_DESCRIBE], b[GRAPH_DESCRIBE];
  const uint32_t n_tensors = g->n_tensors, n_nodes = g->n_nodes;
  const int32_t layer = g->layer, direction = g->direction;
  reverse r = {g, mem_array(&g->allocator, n_tensors, sizeof *r.needs),
               mem_array(&g->allocator, n_tensors, sizeof *r.adjoint)};
  if (!r.needs || !r.adjoint) {
    graph_fail(g, UNROLL_E_MEMORY, "out of memory for a gradient");
    goto done;
  }
  if (g->parent) {
    graph_fail(g, UNROLL_E_UNSUPPORTED, "gradient: differentiate the scan, not its body");
    goto done;
  }
  for (uint32_t i = 0; i < n_x; i++) {
    const uint32_t id = graph_resolve(g, x[i], "gradient");
    if (id == GRAPH_NONE)
      goto done;
    if (!gradient_is_real(graph_spec(x[i]))) {
      graph_fail(g, UNROLL_E_DTYPE, "gradient with respect to %s: expected f32 or f64", graph_describe(g, id, a));
      goto done;
    }
    r.needs[id] = true;
  }
  gradient_mark(g, first, n_nodes, r.needs);
  for (uint32_t i = 0; i < n_y; i++) {
    const uint32_t id = graph_resolve(g, y[i], "gradient");
    if (id == GRAPH_NONE)
      goto done;
    const tensor_spec spec = g->tensors[id].spec;
    if (!gradient_is_real(&spec)) {
      graph_fail(g, UNROLL_E_DTYPE, "gradient of %s: expected f32 or f64", graph_describe(g, id, a));
      goto done;
    }
    const unroll_tensor seed = dy && dy[i].graph ? dy[i] : graph_zeros_like(g, &spec, 1.0);
    if (seed.graph && graph_resolve(g, seed, "gradient") == GRAPH_NONE)
      goto done;
    if (seed.graph && (!graph_same_shape(graph_spec(seed), &spec) || graph_spec(seed)->dtype != spec.dtype)) {
      graph_fail(g, UNROLL_E_SHAPE, "gradient of %s: what flows into it is %s", graph_describe(g, id, a),
                 graph_describe(g, seed.id, b));
      goto done;
    }
    r.adjoint[id] = r.adjoint[id].graph ? unroll_add(r.adjoint[id], seed) : seed;
  }
  vjp v = {g, &r, value, adjoint, wants, give};
  for (uint32_t i = n_nodes; i-- > first && !graph_failed(g);) {
    const node n = g->nodes[i]; /* a copy: the array moves as nodes are added */
    bool flows = false, needed = false;
    for (uint32_t k = 0; k < n.n_out; k++)
      flows = flows || (n.out[k] < n_tensors && r.adjoint[n.out[k]].graph);
    for (uint32_t k = 0; k < n.n_in; k++)
      needed = needed || (n.in[k] != GRAPH_NONE && r.needs[n.in[k]]);
    if (!flows || !needed)
      continue;
    g->layer = n.layer; /* the gradient of a layer's node is tagged as that layer's */
    g->direction = n.direction;
    if (n.op == UNROLL_OP_SCAN)
      grad_scan(&v, g, i);
    else
      grad_node(&v, g, &n);
  }
  g->layer = layer;
  g->direction = direction;
  for (uint32_t i = 0; i < n_x && !graph_failed(g); i++) {
    const tensor_spec spec = *graph_spec(x[i]);
    dx[i] = r.adjoint[x[i].id].graph ? r.adjoint[x[i].id] : graph_zeros_like(g, &spec, 0.0);
  }
done:
  mem_free(&g->allocator, r.needs);
  mem_free(&g->allocator, r.adjoint);
}

void unroll_vjp(const unroll_tensor *y, const unroll_tensor *dy, uint32_t n_y, const unroll_tensor *x, uint32_t n_x,
                unroll_tensor *dx) {
  gradient_walk(y, dy, n_y, x, n_x, dx, 0);
}

void unroll_gradient(unroll_tensor loss, const unroll_tensor *x, uint32_t n_x, unroll_tensor *dx) {
  char a[GRAPH_DESCRIBE];
  if (loss.graph && !graph_failed(loss.graph) && graph_spec(loss)->rank != 0) {
    graph_fail(loss.graph, UNROLL_E_SHAPE, "gradient of %s: a loss has rank 0", graph_describe(loss.graph, loss.id, a));
    for (uint32_t i = 0; i < n_x; i++)
      dx[i] = unroll_none();
    return;
  }
  unroll_vjp(&loss, NULL, 1, x, n_x, dx);
}
