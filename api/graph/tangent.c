/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tangent.c: forward mode over a graph. The tangent is more nodes of the same graph; that of a scan is a scan in the same
 * direction, whose carries are the tangents of the carries, and which reads the values of the forward steps that its rules
 * ask for, as a gradient's scan does.
 */
#include "graph/graph_private.h"

/* Marks what `wanted` hangs on, through nodes first to end-1. */
static void mark_back(const unroll_graph *g, uint32_t first, uint32_t end, bool *wanted) {
  for (uint32_t i = end; i-- > first;) {
    const node *n = &g->nodes[i];
    bool any = false;
    for (uint32_t k = 0; k < n->n_out; k++)
      any = any || (n->out[k] != GRAPH_NONE && wanted[n->out[k]]);
    for (uint32_t k = 0; any && k < n->n_in; k++)
      if (n->in[k] != GRAPH_NONE)
        wanted[n->in[k]] = true;
  }
}

void tangent_flow(jvp *t, uint32_t id, unroll_tensor x) {
  if (id != GRAPH_NONE && x.graph)
    t->tangent[id] = t->tangent[id].graph ? unroll_add(t->tangent[id], x) : x;
}

static bool has_tangent(const jvp *t, const node *n) {
  bool flows = false, asked = false;
  for (uint32_t k = 0; k < n->n_in; k++)
    flows = flows || (n->in[k] != GRAPH_NONE && t->tangent[n->in[k]].graph);
  for (uint32_t k = 0; k < n->n_out; k++)
    asked = asked || (n->out[k] != GRAPH_NONE && t->wanted[n->out[k]]);
  return flows && asked;
}

/* ---- a scan ---- */

typedef struct steps {
  unroll_graph *g; /* around both scans */
  uint32_t scan_node;
  unroll_scan *scan; /* that of the tangents */
} steps;

static unroll_tensor step_value(vjp *v, uint32_t t) {
  const steps *s = v->user;
  return scan_step_value(s->g, s->scan_node, s->scan, t);
}

/* What of the body depends on what has a tangent, and on what something wanted hangs; carries pass both from step to step. */
static void mark_body(const unroll_graph *b, bool *needs, bool *wanted) {
  for (bool changed = true; changed;) {
    changed = false;
    gradient_mark(b, 0, b->n_nodes, needs);
    mark_back(b, 0, b->n_nodes, wanted);
    for (uint32_t i = 0; i < b->n_carries; i++) {
      const scan_carry *c = &b->carries[i];
      if (needs[c->next] && !needs[c->in])
        changed = needs[c->in] = true;
      if (wanted[c->in] && !wanted[c->next])
        changed = wanted[c->next] = true;
    }
  }
}

static unroll_tensor or_zeros(unroll_graph *g, unroll_tensor x, tensor_spec spec) {
  return x.graph ? x : graph_zeros_like(g, &spec, 0.0);
}

/* needs, wanted, inner, carry: of the body's tensors, and carries */
static void walk_scan(jvp *t, const node *n, steps *s, bool *needs, bool *wanted, unroll_tensor *inner,
                      unroll_tensor *carry) {
  unroll_graph *g = s->g;
  const unroll_graph *b = n->body;
  const uint32_t n_carries = b->n_carries, first_capture = n_carries + b->n_inputs, n_outputs = n->n_out - n_carries;
  for (uint32_t i = 0; i < n_carries; i++) {
    needs[b->carries[i].in] = t->tangent[n->in[i]].graph != NULL;
    wanted[b->carries[i].next] = wanted[b->carries[i].next] || t->wanted[n->out[i]];
  }
  for (uint32_t i = 0; i < b->n_inputs; i++)
    needs[b->inputs[i].inner] = t->tangent[n->in[n_carries + i]].graph != NULL;
  for (uint32_t i = 0; i < b->n_captures; i++)
    needs[b->captures[i].inner] = t->tangent[n->in[first_capture + i]].graph != NULL;
  for (uint32_t i = 0; i < n_outputs; i++)
    wanted[b->outputs[i].inner] = wanted[b->outputs[i].inner] || t->wanted[n->out[n_carries + i]];
  mark_body(b, needs, wanted);

  if (!(s->scan = scan_begin_unchecked(g, b->direction, b->steps, b->steps_dim)))
    return;
  s->scan->t0 = n->attr.scan.t0;
  for (uint32_t i = 0; i < n_carries; i++) {
    const scan_carry *c = &b->carries[i];
    if (needs[c->in] && wanted[c->in] && gradient_is_real(&b->tensors[c->in].spec))
      carry[i] = inner[c->in] = unroll_scan_carry(s->scan, or_zeros(g, t->tangent[n->in[i]], b->tensors[c->in].spec));
  }
  for (uint32_t i = 0; i < b->n_inputs; i++)
    if (needs[b->inputs[i].inner] && wanted[b->inputs[i].inner])
      inner[b->inputs[i].inner] = unroll_scan_input(s->scan, t->tangent[n->in[n_carries + i]]);
  for (uint32_t i = 0; i < b->n_captures; i++)
    inner[b->captures[i].inner] = t->tangent[n->in[first_capture + i]];
  jvp step = {
      .v = {.graph = b, .user = s, .value = step_value}, .to = s->scan->body, .tangent = inner, .wanted = wanted};
  const uint32_t n_nodes = b->n_nodes; /* what a rule reads may become an output by a node more */
  for (uint32_t i = 0; i < n_nodes && !graph_failed(g); i++) {
    const node copy = b->nodes[i];
    if (has_tangent(&step, &copy))
      tangent_node(&step, &copy);
  }
  for (uint32_t i = 0; i < n_carries && !graph_failed(g); i++) {
    const scan_carry *c = &b->carries[i];
    if (carry[i].graph) {
      unroll_scan_next(s->scan, carry[i], or_zeros(s->scan->body, inner[c->next], b->tensors[c->in].spec));
      tangent_flow(t, n->out[i], unroll_scan_last(s->scan, carry[i]));
    } else if (t->wanted[n->out[i]] && inner[c->next].graph) {
      /* nothing reads it as a carry: its last value is all that there is */
      carry[i] = unroll_scan_carry(s->scan, or_zeros(g, t->tangent[n->in[i]], b->tensors[c->in].spec));
      unroll_scan_next(s->scan, carry[i], inner[c->next]);
      tangent_flow(t, n->out[i], unroll_scan_last(s->scan, carry[i]));
    }
  }
  for (uint32_t i = 0; i < n_outputs && !graph_failed(g); i++)
    if (t->wanted[n->out[n_carries + i]] && inner[b->outputs[i].inner].graph)
      tangent_flow(t, n->out[n_carries + i], unroll_scan_output(s->scan, inner[b->outputs[i].inner]));
  if (!graph_failed(g))
    unroll_scan_end(s->scan);
}

static void tangent_scan(jvp *t, uint32_t scan_node) {
  unroll_graph *g = t->to;
  const unroll_allocator *a = &g->allocator;
  /* The node's edges as they are now: asking for values of its steps gives it more outputs and writes them anew. */
  node n = g->nodes[scan_node];
  const uint32_t n_tensors = n.body->n_tensors;
  uint32_t *edges = mem_array(a, (uint64_t)n.n_in + n.n_out + 1, sizeof *edges);
  bool *marks = mem_array(a, 2 * (uint64_t)n_tensors + 1, sizeof *marks);
  unroll_tensor *inner = mem_array(a, (uint64_t)n_tensors + n.body->n_carries + 1, sizeof *inner);
  if (!edges || !marks || !inner)
    graph_fail(g, UNROLL_E_MEMORY, "out of memory for the tangent of a scan");
  else {
    node_keep_edges(&n, edges);
    steps s = {.g = g, .scan_node = scan_node};
    walk_scan(t, &n, &s, marks, marks + n_tensors, inner, inner + n_tensors);
  }
  mem_free(a, edges);
  mem_free(a, marks);
  mem_free(a, inner);
}

/* ---- a graph ---- */

static unroll_tensor value(vjp *v, uint32_t t) { return graph_handle(v->user, t); }

/* The shape of tangents of what has this one. */
static tensor_spec of_rows(tensor_spec s, int64_t rows) {
  if (rows)
    s.shape[0] = rows;
  return s;
}

static bool take_tangents(unroll_graph *g, const unroll_tensor *x, const unroll_tensor *dx, uint32_t n_x, int64_t rows,
                          unroll_tensor *tangent) {
  char a[GRAPH_DESCRIBE], b[GRAPH_DESCRIBE];
  for (uint32_t i = 0; i < n_x; i++) {
    const uint32_t id = graph_resolve(g, x[i], "tangent");
    if (id == GRAPH_NONE)
      return false;
    const tensor_spec s = of_rows(g->tensors[id].spec, rows);
    if (!gradient_is_real(&s)) {
      graph_fail(g, UNROLL_E_DTYPE, "tangent of %s: expected f32 or f64", graph_describe(g, id, a));
      return false;
    }
    if (!dx[i].graph)
      continue;
    const uint32_t d = graph_resolve(g, dx[i], "tangent");
    if (d == GRAPH_NONE)
      return false;
    if (!graph_same_shape(&g->tensors[d].spec, &s) || g->tensors[d].spec.dtype != s.dtype) {
      graph_fail(g, UNROLL_E_SHAPE, "tangent of %s: it is %s", graph_describe(g, id, a), graph_describe(g, d, b));
      return false;
    }
    tangent[id] = tangent[id].graph ? unroll_add(tangent[id], dx[i]) : dx[i];
  }
  return true;
}

static void walk(const unroll_tensor *x, const unroll_tensor *dx, uint32_t n_x, const unroll_tensor *y, uint32_t n_y,
                 unroll_tensor *dy, uint32_t first, int64_t rows, unroll_tensor identity) {
  unroll_graph *g = n_y ? y[0].graph : NULL;
  for (uint32_t i = 0; i < n_y; i++)
    dy[i] = unroll_none();
  if (!g || graph_failed(g))
    return;
  if (g->parent) {
    graph_fail(g, UNROLL_E_UNSUPPORTED, "tangent: differentiate the scan, not its body");
    return;
  }
  const unroll_allocator *a = &g->allocator;
  const uint32_t n = g->n_tensors, n_nodes = g->n_nodes;
  const int32_t layer = g->layer, direction = g->direction;
  unroll_tensor *tangent = mem_array(a, (uint64_t)n + 1, sizeof *tangent);
  bool *wanted = mem_array(a, (uint64_t)n + 1, sizeof *wanted);
  bool ok = tangent && wanted;
  if (!ok)
    graph_fail(g, UNROLL_E_MEMORY, "out of memory for a tangent");
  ok = ok && take_tangents(g, x, dx, n_x, rows, tangent);
  for (uint32_t i = 0; ok && i < n_y; i++) {
    char text[GRAPH_DESCRIBE];
    const uint32_t id = graph_resolve(g, y[i], "tangent");
    if (id != GRAPH_NONE && !gradient_is_real(&g->tensors[id].spec))
      graph_fail(g, UNROLL_E_DTYPE, "tangent of %s: expected f32 or f64", graph_describe(g, id, text));
    ok = !graph_failed(g);
    if (ok)
      wanted[id] = true;
  }
  if (ok)
    mark_back(g, first, n_nodes, wanted);
  jvp t = {.v = {.graph = g, .user = g, .value = value},
           .to = g,
           .tangent = tangent,
           .wanted = wanted,
           .rows = rows,
           .identity = identity};
  for (uint32_t i = first; ok && i < n_nodes && !graph_failed(g); i++) {
    const node copy = g->nodes[i]; /* the array moves as nodes are added */
    if (!has_tangent(&t, &copy))
      continue;
    g->layer = copy.layer;
    g->direction = copy.direction;
    if (rows && (copy.op == UNROLL_OP_SCAN || copy.op == UNROLL_OP_LAYER))
      graph_fail(g, UNROLL_E_UNSUPPORTED, "%s has no tangents along many directions at once", copy.name);
    else if (copy.op == UNROLL_OP_SCAN)
      tangent_scan(&t, i);
    else
      tangent_node(&t, &copy);
  }
  g->layer = layer;
  g->direction = direction;
  for (uint32_t i = 0; ok && i < n_y && !graph_failed(g); i++)
    dy[i] = or_zeros(g, tangent[y[i].id], of_rows(*graph_spec(y[i]), rows));
  mem_free(a, tangent);
  mem_free(a, wanted);
}

void tangent_walk(const unroll_tensor *x, const unroll_tensor *dx, uint32_t n_x, const unroll_tensor *y, uint32_t n_y,
                  unroll_tensor *dy, uint32_t first) {
  walk(x, dx, n_x, y, n_y, dy, first, 0, unroll_none());
}

void tangent_rows(const unroll_tensor *x, const unroll_tensor *dx, uint32_t n_x, const unroll_tensor *y, uint32_t n_y,
                  unroll_tensor *dy, int64_t rows, unroll_tensor identity) {
  walk(x, dx, n_x, y, n_y, dy, 0, rows, identity);
}

void unroll_jvp(const unroll_tensor *x, const unroll_tensor *dx, uint32_t n_x, const unroll_tensor *y, uint32_t n_y,
                unroll_tensor *dy) {
  tangent_walk(x, dx, n_x, y, n_y, dy, 0);
}
