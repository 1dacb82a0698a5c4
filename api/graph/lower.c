/* SPDX-License-Identifier: Apache-2.0 */
/* lower.c: the graph again, with layers spelled out and without what nobody reads. */
#include "graph/graph_private.h"
#include <string.h>

static char *name_copy(unroll_graph *g, const char *name) { return mem_strdup(&g->allocator, name); }

/* What an output or an update needs: marks live[tensor], and used_node[node]. */
static void mark_live(const unroll_graph *g, bool *live, bool *used_node) {
  for (uint32_t i = 0; i < g->n_tensors; i++) {
    const tensor *t = &g->tensors[i];
    if (t->role == UNROLL_ROLE_OUTPUT)
      live[i] = true;
    if (t->update != GRAPH_NONE)
      live[t->update] = true;
  }
  for (uint32_t i = 0; i < g->n_carries; i++)
    live[g->carries[i].next] = true;
  for (uint32_t i = 0; i < g->n_outputs; i++)
    live[g->outputs[i].inner] = true;
  for (uint32_t i = g->n_nodes; i-- > 0;) {
    const node *n = &g->nodes[i];
    for (uint32_t k = 0; k < n->n_out; k++)
      used_node[i] = used_node[i] || (n->out[k] != GRAPH_NONE && live[n->out[k]]);
    for (uint32_t k = 0; used_node[i] && k < n->n_in; k++)
      if (n->in[k] != GRAPH_NONE)
        live[n->in[k]] = true;
  }
}

/* Drops the nodes that nobody needs; tensors stay where they are. */
static unroll_status prune(unroll_graph *g, unroll_error *err) {
  bool *live = mem_array(&g->allocator, (uint64_t)g->n_tensors + 1, sizeof *live);
  bool *used = mem_array(&g->allocator, (uint64_t)g->n_nodes + 1, sizeof *used);
  unroll_status st = UNROLL_OK;
  if (!live || !used)
    st = fail(err, UNROLL_E_MEMORY, "out of memory for lowering a graph");
  else {
    uint32_t kept = 0;
    mark_live(g, live, used);
    for (uint32_t i = 0; i < g->n_nodes; i++) {
      node *n = &g->nodes[i];
      for (uint32_t k = 0; k < n->n_out; k++) {
        if (n->out[k] == GRAPH_NONE) /* of a graph that was lowered before */
          continue;
        g->tensors[n->out[k]].producer = used[i] ? kept : GRAPH_NONE;
        if (used[i] && n->op != UNROLL_OP_SCAN && !live[n->out[k]])
          n->out[k] = GRAPH_NONE; /* nobody reads it: no backend needs to make it */
      }
      if (!used[i])
        graph_node_free(g, n);
      else
        g->nodes[kept++] = *n;
    }
    g->n_nodes = kept;
  }
  mem_free(&g->allocator, live);
  mem_free(&g->allocator, used);
  for (uint32_t i = 0; st == UNROLL_OK && i < g->n_nodes; i++)
    if (g->nodes[i].body)
      st = prune(g->nodes[i].body, err);
  return st;
}

static bool copy_edges(const unroll_graph *to, void *edges, uint32_t *capacity, const void *from, uint32_t n,
                       size_t size) {
  if (n == 0)
    return true;
  if (!mem_grow(&to->allocator, edges, capacity, n, size))
    return false;
  memcpy(*(void **)edges, from, n * size);
  return true;
}

/* A body once more, with the same numbers in it and the same tensors around it, in to. NULL: no memory. */
unroll_graph *graph_copy_body(unroll_graph *to, const unroll_graph *old) {
  unroll_graph *b = graph_create_body(to);
  if (!b)
    return NULL;
  b->layer = old->layer;
  b->direction = old->direction;
  b->steps = old->steps;
  b->steps_dim = old->steps_dim;
  for (uint32_t i = 0; i < old->n_tensors; i++) {
    const tensor *t = &old->tensors[i];
    if (graph_add_tensor(b, &t->spec, t->role, t->producer, name_copy(b, t->name)) == GRAPH_NONE)
      goto failed;
  }
  for (uint32_t i = 0; i < old->n_nodes; i++) {
    const node *o = &old->nodes[i];
    node c = *o;
    c.in = mem_array(&b->allocator, (uint64_t)o->n_in + 1, sizeof *c.in);
    c.out = mem_array(&b->allocator, (uint64_t)o->n_out + 1, sizeof *c.out);
    c.name = name_copy(b, o->name);
    c.body = NULL;
    if (!c.in || !c.out || !c.name ||
        !mem_grow(&b->allocator, &b->nodes, &b->nodes_capacity, i + 1, sizeof *b->nodes)) {
      graph_node_free(b, &c);
      goto failed;
    }
    memcpy(c.in, o->in, o->n_in * sizeof *c.in);
    memcpy(c.out, o->out, o->n_out * sizeof *c.out);
    b->nodes[b->n_nodes++] = c;
  }
  if (!copy_edges(b, &b->carries, &b->carries_capacity, old->carries, old->n_carries, sizeof *old->carries) ||
      !copy_edges(b, &b->inputs, &b->inputs_capacity, old->inputs, old->n_inputs, sizeof *old->inputs) ||
      !copy_edges(b, &b->captures, &b->captures_capacity, old->captures, old->n_captures, sizeof *old->captures) ||
      !copy_edges(b, &b->outputs, &b->outputs_capacity, old->outputs, old->n_outputs, sizeof *old->outputs))
    goto failed;
  b->n_carries = old->n_carries;
  b->n_inputs = old->n_inputs;
  b->n_captures = old->n_captures;
  b->n_outputs = old->n_outputs;
  b->ended = true;
  return b;
failed:
  unroll_graph_destroy(b);
  return NULL;
}

/* A scan, body and all. map: from the old graph's tensors to the new one's. */
static bool copy_scan(unroll_graph *to, const unroll_graph *from, const node *n, uint32_t *map, bool spell_out) {
  unroll_graph *b = spell_out ? graph_spell_out_body(to, n->body) : graph_copy_body(to, n->body);
  if (!b)
    return false;
  const uint32_t index = to->n_nodes;
  node c = *n;
  c.body = b;
  c.region = to->region;
  c.in = mem_array(&to->allocator, (uint64_t)n->n_in + 1, sizeof *c.in);
  c.out = mem_array(&to->allocator, (uint64_t)n->n_out + 1, sizeof *c.out);
  c.name = name_copy(to, n->name);
  if (!c.in || !c.out || !c.name ||
      !mem_grow(&to->allocator, &to->nodes, &to->nodes_capacity, index + 1, sizeof *to->nodes)) {
    graph_node_free(to, &c); /* and b */
    return false;
  }
  to->nodes[to->n_nodes++] = c;
  for (uint32_t i = 0; i < n->n_in; i++)
    c.in[i] = map[n->in[i]];
  for (uint32_t i = 0; i < n->n_out; i++) {
    const tensor_spec spec = from->tensors[n->out[i]].spec; /* a copy: from may be to, whose array moves */
    const uint32_t id =
        graph_add_tensor(to, &spec, UNROLL_ROLE_TEMP, index, name_copy(to, from->tensors[n->out[i]].name));
    c.out[i] = map[n->out[i]] = id;
    if (id == GRAPH_NONE)
      return false;
  }
  for (uint32_t i = 0; i < b->n_carries; i++) {
    b->carries[i].init = map[b->carries[i].init];
    b->carries[i].last = map[b->carries[i].last];
  }
  for (uint32_t i = 0; i < b->n_inputs; i++)
    b->inputs[i].outer = map[b->inputs[i].outer];
  for (uint32_t i = 0; i < b->n_captures; i++)
    b->captures[i].outer = map[b->captures[i].outer];
  for (uint32_t i = 0; i < b->n_outputs; i++)
    b->outputs[i].outer = map[b->outputs[i].outer];
  return true;
}

bool graph_clone_node(unroll_graph *g, uint32_t i, uint32_t *map) {
  const node n = g->nodes[i]; /* a copy: the array moves */
  if (n.body)
    return copy_scan(g, g, &n, map, false);
  node c = n;
  const uint32_t index = g->n_nodes;
  c.region = g->region;
  c.in = mem_array(&g->allocator, (uint64_t)n.n_in + 1, sizeof *c.in);
  c.out = mem_array(&g->allocator, (uint64_t)n.n_out + 1, sizeof *c.out);
  c.name = mem_printf(&g->allocator, "%s_%u", graph_op_name(n.op), index);
  if (!c.in || !c.out || !c.name ||
      !mem_grow(&g->allocator, &g->nodes, &g->nodes_capacity, index + 1, sizeof *g->nodes)) {
    graph_node_free(g, &c);
    return false;
  }
  for (uint32_t k = 0; k < n.n_in; k++)
    c.in[k] = n.in[k] == GRAPH_NONE ? GRAPH_NONE : map[n.in[k]];
  g->nodes[g->n_nodes++] = c;
  for (uint32_t k = 0; k < n.n_out; k++) {
    const tensor_spec spec = g->tensors[n.out[k]].spec;
    char *name = n.n_out == 1 ? name_copy(g, c.name) : mem_printf(&g->allocator, "%s.%u", c.name, k);
    c.out[k] = map[n.out[k]] = graph_add_tensor(g, &spec, UNROLL_ROLE_TEMP, index, name);
    if (c.out[k] == GRAPH_NONE)
      return false;
  }
  return true;
}

/* One opaque tensor in place of the saved values, for the one device that asked for it. */
static void give_reserve(unroll_graph *g, uint32_t index, const layer_fate *fate, unroll_tensor *out) {
  g->nodes[index].only = fate->only;
  if (g->nodes[index].op != UNROLL_OP_LAYER)
    return;
  g->tensors[out[3].id].spec = graph_make_spec(UNROLL_U8, 1, (int64_t[]){(int64_t)fate->reserve_bytes});
  for (uint32_t i = 4; i < 7; i++)
    out[i] = unroll_none();
}

static bool copy_node(unroll_graph *to, const unroll_graph *from, const node *n, uint32_t *map, const bool *live,
                      const layer_fate *fate) {
  const bool keep = fate && fate->keep;
  unroll_tensor in[20], out[8], *many = NULL, *x = in;
  if (n->n_in > 20 && !(x = many = mem_array(&to->allocator, n->n_in, sizeof *many)))
    return false;
  for (uint32_t i = 0; i < n->n_in; i++)
    x[i] = n->in[i] == GRAPH_NONE ? unroll_none() : graph_handle(to, map[n->in[i]]);
  for (uint32_t i = 0; i < n->n_out; i++)
    out[i] = unroll_none();
  to->layer = n->layer;
  to->direction = n->direction;
  to->backward = n->backward;
  if (n->op == UNROLL_OP_LAYER && !keep) {
    bool used[7];
    for (uint32_t i = 0; i < 7; i++)
      used[i] = n->out[i] != GRAPH_NONE && live[n->out[i]];
    layer_lower(to, n, x, used, out);
  } else if (n->op == UNROLL_OP_LAYER_GRAD && !keep)
    layer_grad_lower(to, n, x, out);
  else if (fate && fate->spell_out)
    graph_spell_out(n, x, out);
  else {
    const tensor_spec *want = n->out[0] == GRAPH_NONE ? NULL : &from->tensors[n->out[0]].spec;
    const uint32_t index = graph_add_node(to, n->op, &n->attr, x, n->n_in, want, out, n->n_out);
    char *name = index == GRAPH_NONE ? NULL : name_copy(to, n->name);
    if (name) {
      mem_free(&to->allocator, to->nodes[index].name);
      to->nodes[index].name = name;
      to->nodes[index].again = n->again;
      if (keep && fate->reserve_bytes)
        give_reserve(to, index, fate, out);
    } else if (index != GRAPH_NONE)
      graph_fail(to, UNROLL_E_MEMORY, "out of memory for node %s of a graph", n->name);
  }
  mem_free(&to->allocator, many);
  to->layer = to->direction = -1;
  to->backward = false;
  for (uint32_t i = 0; i < n->n_out; i++)
    if (n->out[i] != GRAPH_NONE)
      map[n->out[i]] = out[i].graph ? out[i].id : GRAPH_NONE;
  return !graph_failed(to);
}

/* What a run gives out, or keeps, stands in memory of its own: a view, a scan's result, something given from outside or
 * something that is given out already is copied. */
static unroll_tensor own_copy(unroll_graph *g, uint32_t id) {
  const tensor *t = &g->tensors[id];
  const uint32_t op = t->producer == GRAPH_NONE ? UNROLL_OP_RESHAPE : g->nodes[t->producer].op;
  const bool shared =
      op == UNROLL_OP_RESHAPE || op == UNROLL_OP_SLICE || op == UNROLL_OP_SCAN || t->role != UNROLL_ROLE_TEMP;
  return shared ? unroll_unary(graph_handle(g, id), UNROLL_COPY) : graph_handle(g, id);
}

static bool copy_roles(unroll_graph *to, const unroll_graph *from, const uint32_t *map) {
  for (uint32_t i = 0; i < from->n_tensors; i++) {
    const tensor *t = &from->tensors[i];
    if (t->role == UNROLL_ROLE_OUTPUT) {
      const unroll_tensor x = own_copy(to, map[i]);
      if (!unroll_output(x, t->name).graph)
        return false;
    }
  }
  for (uint32_t i = 0; i < from->n_tensors; i++)
    if (from->tensors[i].update != GRAPH_NONE)
      unroll_update(graph_handle(to, map[i]), own_copy(to, map[from->tensors[i].update]));
  return !graph_failed(to);
}

unroll_status graph_lower(const unroll_graph *from, const layer_fate *fates, unroll_graph **lowered,
                          unroll_error *err) {
  *lowered = NULL;
  unroll_graph *to;
  const unroll_allocator *a = &from->allocator;
  TRY(unroll_graph_create(a, &to, err));
  uint32_t *map = mem_array(a, (uint64_t)from->n_tensors + 1, sizeof *map);
  bool *live = mem_array(a, (uint64_t)from->n_tensors + 1, sizeof *live);
  bool *used = mem_array(a, (uint64_t)from->n_nodes + 1, sizeof *used);
  bool ok = map && live && used;
  to->n_sites = from->n_sites;
  for (uint32_t i = 0; ok && i < from->n_dims; i++)
    unroll_graph_dim(to, from->dims[i].name, from->dims[i].min, from->dims[i].max);
  if (ok)
    mark_live(from, live, used);
  for (uint32_t i = 0; ok && i < from->n_tensors; i++) {
    const tensor *t = &from->tensors[i];
    map[i] = GRAPH_NONE;
    if (t->role == UNROLL_ROLE_INPUT || t->role == UNROLL_ROLE_PARAM || t->role == UNROLL_ROLE_STATE)
      ok = (map[i] = graph_add_tensor(to, &t->spec, t->role, GRAPH_NONE, name_copy(to, t->name))) != GRAPH_NONE;
  }
  for (uint32_t i = 0; ok && i < from->n_nodes; i++) {
    const node *n = &from->nodes[i];
    if (used[i])
      ok = n->op == UNROLL_OP_SCAN ? copy_scan(to, from, n, map, fates && fates[i].spell_out)
                                   : copy_node(to, from, n, map, live, fates ? &fates[i] : NULL);
  }
  ok = ok && copy_roles(to, from, map);
  unroll_status st = UNROLL_OK;
  if (!ok)
    st = graph_failed(to) ? unroll_graph_status(to, err)
                          : fail(err, UNROLL_E_MEMORY, "out of memory for lowering a graph");
  mem_free(a, map);
  mem_free(a, live);
  mem_free(a, used);
  if (st == UNROLL_OK)
    st = prune(to, err);
  if (st != UNROLL_OK) {
    unroll_graph_destroy(to);
    return st;
  }
  *lowered = to;
  return UNROLL_OK;
}
