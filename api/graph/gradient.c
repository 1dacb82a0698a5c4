/* SPDX-License-Identifier: Apache-2.0 */
/* gradient.c: reverse mode over a graph. The gradient is more nodes of the same graph. */
#include "graph/graph_private.h"
#include <string.h>

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

int64_t gradient_block(int64_t batch) {
  enum { ROWS = 512 };
  const int64_t least = batch % 2 ? 2 : 1; /* steps of an even number of rows */
  const int64_t steps = (ROWS + batch * least / 2) / (batch * least) * least;
  return steps < least ? least : steps;
}

/* Rows from start on of what flows into a tensor, that have not been put together yet. */
typedef struct piece {
  uint32_t tensor;
  int64_t start, size;
  unroll_tensor x;
} piece;

typedef struct reverse {
  unroll_graph *graph;
  bool *needs;            /* of n tensors, */
  unroll_tensor *adjoint; /* likewise */
  uint32_t n;
  piece *pieces;
  uint32_t n_pieces, pieces_capacity;
} reverse;

static bool grow(reverse *r, uint32_t n) {
  const unroll_allocator *a = &r->graph->allocator;
  bool *needs = mem_array(a, (uint64_t)n + 1, sizeof *needs);
  unroll_tensor *adjoint = mem_array(a, (uint64_t)n + 1, sizeof *adjoint);
  if (!needs || !adjoint) {
    mem_free(a, needs);
    mem_free(a, adjoint);
    graph_fail(r->graph, UNROLL_E_MEMORY, "out of memory for a gradient");
    return false;
  }
  if (r->n) {
    memcpy(needs, r->needs, r->n * sizeof *needs);
    memcpy(adjoint, r->adjoint, r->n * sizeof *adjoint);
  }
  mem_free(a, r->needs);
  mem_free(a, r->adjoint);
  r->needs = needs;
  r->adjoint = adjoint;
  r->n = n;
  return true;
}

static void add(reverse *r, uint32_t t, unroll_tensor x) {
  r->adjoint[t] = r->adjoint[t].graph ? unroll_add(r->adjoint[t], x) : x;
}

static int64_t rows_of(const reverse *r, uint32_t t) { return r->graph->tensors[t].spec.shape[0]; }

/* Puts the pieces of a tensor together: side by side, with zeros between them. */
static void flush(reverse *r, uint32_t t) {
  unroll_graph *g = r->graph;
  uint32_t first = GRAPH_NONE, n = 0;
  for (uint32_t i = 0; i < r->n_pieces; i++)
    if (r->pieces[i].tensor == t) {
      first = i;
      n++;
    }
  if (n == 0)
    return;
  unroll_tensor *parts = mem_array(&g->allocator, 2 * (uint64_t)n + 1, sizeof *parts);
  if (!parts) {
    graph_fail(g, UNROLL_E_MEMORY, "out of memory for a gradient");
    return;
  }
  const int64_t rows = rows_of(r, t);
  if (n == 1) {
    const piece *p = &r->pieces[first];
    parts[0] = unroll_pad(p->x, 0, p->start, rows - p->start - p->size);
  } else {
    uint32_t n_parts = 0;
    for (int64_t at = 0; at < rows && !graph_failed(g);) {
      const piece *next = NULL;
      for (uint32_t i = 0; i < r->n_pieces; i++)
        if (r->pieces[i].tensor == t && r->pieces[i].start >= at && (!next || r->pieces[i].start < next->start))
          next = &r->pieces[i];
      tensor_spec gap = g->tensors[t].spec;
      gap.shape[0] = (next ? next->start : rows) - at;
      if (gap.shape[0] > 0)
        parts[n_parts++] = graph_zeros_like(g, &gap, 0.0);
      if (next)
        parts[n_parts++] = next->x;
      at = next ? next->start + next->size : rows;
    }
    parts[0] = unroll_concat(parts, n_parts, 0);
  }
  const unroll_tensor whole = parts[0];
  mem_free(&g->allocator, parts);
  uint32_t left = 0;
  for (uint32_t i = 0; i < r->n_pieces; i++)
    if (r->pieces[i].tensor != t)
      r->pieces[left++] = r->pieces[i];
  r->n_pieces = left;
  if (!graph_failed(g))
    add(r, t, whole);
}

static unroll_tensor value(vjp *v, uint32_t t) { return graph_handle(((reverse *)v->user)->graph, t); }
static unroll_tensor adjoint(vjp *v, uint32_t t) {
  reverse *r = v->user;
  if (t >= r->n)
    return unroll_none();
  flush(r, t);
  return r->adjoint[t];
}
static bool wants(vjp *v, const node *n, uint32_t input) { return ((reverse *)v->user)->needs[n->in[input]]; }
static void give(vjp *v, const node *n, uint32_t input, unroll_tensor x) {
  reverse *r = v->user;
  flush(r, n->in[input]);
  add(r, n->in[input], x);
}
static void give_rows(vjp *v, const node *n, uint32_t input, int64_t start, unroll_tensor x) {
  reverse *r = v->user;
  const uint32_t t = n->in[input];
  if (!x.graph || graph_failed(r->graph))
    return;
  const int64_t size = graph_spec(x)->shape[0];
  bool overlap = false;
  for (uint32_t i = 0; i < r->n_pieces; i++) {
    const piece *p = &r->pieces[i];
    overlap = overlap || (p->tensor == t && start < p->start + p->size && p->start < start + size);
  }
  if (overlap)
    flush(r, t);
  if (!mem_grow(&r->graph->allocator, &r->pieces, &r->pieces_capacity, r->n_pieces + 1, sizeof *r->pieces))
    graph_fail(r->graph, UNROLL_E_MEMORY, "out of memory for a gradient");
  else
    r->pieces[r->n_pieces++] = (piece){t, start, size, x};
}
static unroll_tensor so_far(vjp *v, const node *n, uint32_t input) { return adjoint(v, n->in[input]); }
static void put(vjp *v, const node *n, uint32_t input, unroll_tensor x) {
  ((reverse *)v->user)->adjoint[n->in[input]] = x;
}

static bool flows_into(vjp *v, const node *n) {
  bool flows = false;
  for (uint32_t k = 0; k < n->n_out; k++)
    flows = flows || (n->out[k] != GRAPH_NONE && adjoint(v, n->out[k]).graph);
  return flows;
}

static void walk_node(vjp *v, uint32_t i) {
  const reverse *r = v->user;
  unroll_graph *g = r->graph;
  const node n = g->nodes[i]; /* a copy: the array moves as nodes are added */
  bool needed = false;
  for (uint32_t k = 0; k < n.n_in; k++)
    needed = needed || (n.in[k] != GRAPH_NONE && r->needs[n.in[k]]);
  if (!needed || !flows_into(v, &n))
    return;
  g->layer = n.layer; /* the gradient of a layer's node is tagged as that layer's */
  g->direction = n.direction;
  if (n.op == UNROLL_OP_SCAN)
    grad_scan(v, g, i);
  else
    grad_node(v, g, &n);
}

/* The outermost ended region that a node stands in; 0: none. */
static uint32_t outermost(const unroll_graph *g, uint32_t region) {
  uint32_t found = 0;
  for (; region; region = g->regions[region - 1].parent)
    if (g->regions[region - 1].end)
      found = region;
  return found;
}

static void walk(vjp *v, uint32_t first, uint32_t end);

/* The nodes first to end-1 again, at the end of the graph, with the regions in them. */
static bool clone(unroll_graph *g, uint32_t region, uint32_t first, uint32_t end, uint32_t *map) {
  const uint32_t n_regions = g->n_regions, by = g->n_nodes - first;
  uint32_t *regions = mem_array(&g->allocator, (uint64_t)n_regions + 1, sizeof *regions);
  if (!regions)
    return false;
  regions[region] = g->region;
  bool ok = true;
  for (uint32_t k = region + 1; k <= n_regions && ok; k++) { /* what lies within was begun later */
    const graph_region x = g->regions[k - 1];
    if (x.first < first || x.end > end || !x.end || !x.parent)
      continue;
    ok = mem_grow(&g->allocator, &g->regions, &g->regions_capacity, g->n_regions + 1, sizeof *g->regions);
    if (ok) {
      g->regions[g->n_regions++] = (graph_region){regions[x.parent], x.first + by, x.end + by};
      regions[k] = g->n_regions;
    }
  }
  for (uint32_t i = first; i < end && ok; i++) {
    const uint32_t of = g->nodes[i].region;
    g->layer = g->nodes[i].layer;
    ok = graph_clone_node(g, i, map);
    if (ok) {
      g->nodes[g->n_nodes - 1].region = regions[of];
      g->nodes[g->n_nodes - 1].again = true;
    }
  }
  mem_free(&g->allocator, regions);
  return ok;
}

/* What was made in a region is made once more, and that is differentiated. */
static void walk_region(vjp *v, uint32_t region, uint32_t first, uint32_t end) {
  reverse *r = v->user;
  unroll_graph *g = r->graph;
  bool flows = false;
  for (uint32_t i = first; i < end; i++)
    flows = flows_into(v, &g->nodes[i]) || flows;
  if (!flows || graph_failed(g))
    return;
  const uint32_t n = g->n_tensors, n_nodes = g->n_nodes;
  uint32_t *map = mem_array(&g->allocator, (uint64_t)n + 1, sizeof *map);
  for (uint32_t i = 0; map && i < n; i++)
    map[i] = i;
  if (!map || !clone(g, region, first, end, map) || !grow(r, g->n_tensors)) {
    mem_free(&g->allocator, map);
    graph_fail(g, UNROLL_E_MEMORY, "out of memory for a gradient");
    return;
  }
  for (uint32_t i = first; i < end; i++)
    for (uint32_t k = 0; k < g->nodes[i].n_out; k++) {
      const uint32_t t = g->nodes[i].out[k];
      if (t == GRAPH_NONE || map[t] == t)
        continue;
      r->adjoint[map[t]] = r->adjoint[t];
      r->needs[map[t]] = r->needs[t];
    }
  mem_free(&g->allocator, map);
  walk(v, n_nodes, g->n_nodes);
}

static void walk(vjp *v, uint32_t first, uint32_t end) {
  unroll_graph *g = ((reverse *)v->user)->graph;
  for (uint32_t i = end; i-- > first && !graph_failed(g);) {
    const uint32_t region = outermost(g, g->nodes[i].region);
    if (!region) {
      walk_node(v, i);
      continue;
    }
    const uint32_t begin = g->regions[region - 1].first;
    walk_region(v, region, begin, i + 1);
    i = begin;
  }
}

void gradient_walk(const unroll_tensor *y, const unroll_tensor *dy, uint32_t n_y, const unroll_tensor *x, uint32_t n_x,
                   unroll_tensor *dx, uint32_t first, const unroll_tensor *start, int64_t block, int32_t block_order) {
  unroll_graph *g = n_y ? y[0].graph : NULL;
  for (uint32_t i = 0; i < n_x; i++)
    dx[i] = unroll_none();
  if (!g || graph_failed(g))
    return;
  char a[GRAPH_DESCRIBE], b[GRAPH_DESCRIBE];
  const uint32_t n_nodes = g->n_nodes;
  const int32_t layer = g->layer, direction = g->direction;
  const bool backward = g->backward;
  g->backward = true;
  reverse r = {.graph = g};
  if (!grow(&r, g->n_tensors))
    goto done;
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
    if (start && start[i].graph)
      r.adjoint[id] = start[i];
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
  vjp v = {.graph = g,
           .user = &r,
           .value = value,
           .adjoint = adjoint,
           .wants = wants,
           .give = give,
           .give_rows = give_rows,
           .so_far = so_far,
           .put = put,
           .block = block,
           .block_order = block_order};
  walk(&v, first, n_nodes);
  g->layer = layer;
  g->direction = direction;
  for (uint32_t i = 0; i < n_x && !graph_failed(g); i++) {
    const tensor_spec spec = *graph_spec(x[i]);
    const unroll_tensor d = adjoint(&v, x[i].id);
    dx[i] = d.graph ? d : graph_zeros_like(g, &spec, 0.0);
  }
done:
  g->backward = backward;
  mem_free(&g->allocator, r.needs);
  mem_free(&g->allocator, r.adjoint);
  mem_free(&g->allocator, r.pieces);
}

void unroll_vjp(const unroll_tensor *y, const unroll_tensor *dy, uint32_t n_y, const unroll_tensor *x, uint32_t n_x,
                unroll_tensor *dx) {
  gradient_walk(y, dy, n_y, x, n_x, dx, 0, NULL, 0, UNROLL_BLOCKS_FROM_LAST);
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
