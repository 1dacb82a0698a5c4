/* SPDX-License-Identifier: Apache-2.0 */
/* scan.c: a recurrence with a body: building it, ending it, and giving more of its steps out afterwards. */
#include "graph/graph_private.h"
#include <inttypes.h>
#include <string.h>

static unroll_scan *begin(unroll_graph *g, int32_t direction, uint32_t lengths, bool unchecked) {
  unroll_scan *s = mem_zalloc(&g->allocator, sizeof *s);
  unroll_graph *body = s ? graph_create_body(g) : NULL;
  if (!body) {
    mem_free(&g->allocator, s);
    graph_fail(g, UNROLL_E_MEMORY, "out of memory for a scan");
    return NULL;
  }
  *s = (unroll_scan){.graph = g, .body = body, .lengths = lengths, .unchecked = unchecked, .next_open = g->open_scans};
  body->direction = direction;
  g->open_scans = s;
  return s;
}

unroll_scan *scan_begin_unchecked(unroll_graph *g, int32_t direction, int64_t steps, int32_t steps_dim) {
  unroll_scan *s = begin(g, direction, GRAPH_NONE, true);
  if (s) {
    s->body->steps = steps;
    s->body->steps_dim = steps_dim;
  }
  return s;
}

unroll_scan *unroll_scan_begin(unroll_graph *g, int32_t direction, unroll_tensor lengths) {
  if (!g || graph_failed(g))
    return NULL;
  if (g->parent) {
    graph_fail(g, UNROLL_E_UNSUPPORTED, "scan: the body of a scan cannot hold another scan");
    return NULL;
  }
  if (direction != UNROLL_FORWARD && direction != UNROLL_REVERSE) {
    graph_fail(g, UNROLL_E_INVALID, "scan: direction %d, expected UNROLL_FORWARD or UNROLL_REVERSE", direction);
    return NULL;
  }
  uint32_t id = GRAPH_NONE;
  if (lengths.graph) {
    char text[GRAPH_DESCRIBE];
    if ((id = graph_resolve(g, lengths, "scan's lengths")) == GRAPH_NONE)
      return NULL;
    if (g->tensors[id].spec.dtype != UNROLL_I32 || g->tensors[id].spec.rank != 1) {
      graph_fail(g, UNROLL_E_SHAPE, "scan: lengths are %s, expected i32 [B]", graph_describe(g, id, text));
      return NULL;
    }
  }
  return begin(g, direction, id, false);
}

unroll_graph *unroll_scan_body(unroll_scan *s) { return s ? s->body : NULL; }

static bool set_steps(unroll_scan *s, int64_t steps, int32_t dim, const char *what) {
  unroll_graph *b = s->body;
  if (b->steps == 0) {
    b->steps = steps;
    b->steps_dim = dim;
  } else if (b->steps != steps || b->steps_dim != dim) {
    graph_fail(s->graph, UNROLL_E_SHAPE, "scan: %s has %s%" PRId64 " steps, the ones before had %s%" PRId64, what,
               dim >= 0 ? "up to " : "", steps, b->steps_dim >= 0 ? "up to " : "", b->steps);
    return false;
  }
  return true;
}

void unroll_scan_steps(unroll_scan *s, int64_t steps) {
  if (!s || graph_failed(s->graph))
    return;
  const unroll_graph *g = s->graph;
  if (steps < 0 && steps >= -(int64_t)g->n_dims)
    set_steps(s, g->dims[-steps - 1].max, (int32_t)(-steps - 1), "the scan");
  else if (steps < 1)
    graph_fail(s->graph, UNROLL_E_SHAPE, "scan: %" PRId64 " steps, expected at least 1", steps);
  else
    set_steps(s, steps, -1, "the scan");
}

/* The batch of a scan is that of its lengths, else of its first carry. */
static bool batch_fits(unroll_scan *s, int64_t batch, uint32_t outer, const char *what) {
  char text[GRAPH_DESCRIBE];
  int64_t want = batch;
  if (s->lengths != GRAPH_NONE)
    want = s->graph->tensors[s->lengths].spec.shape[0];
  else if (s->body->n_carries)
    want = s->body->tensors[s->body->carries[0].in].spec.shape[0];
  if (batch != want)
    graph_fail(s->graph, UNROLL_E_SHAPE, "scan: %s %s has a batch of %" PRId64 ", expected %" PRId64, what,
               graph_describe(s->graph, outer, text), batch, want);
  return batch == want;
}

unroll_tensor unroll_scan_input(unroll_scan *s, unroll_tensor x) {
  char text[GRAPH_DESCRIBE];
  if (!s || graph_failed(s->graph))
    return unroll_none();
  unroll_graph *g = s->graph, *b = s->body;
  uint32_t outer = graph_resolve(g, x, "scan's input");
  if (outer == GRAPH_NONE)
    return unroll_none();
  for (uint32_t i = 0; s->unchecked && i < b->n_inputs; i++)
    if (b->inputs[i].outer == outer)
      return graph_handle(b, b->inputs[i].inner);
  const tensor_spec *sp = &g->tensors[outer].spec;
  if (sp->rank < (s->unchecked ? 1 : 2))
    return graph_fail(g, UNROLL_E_SHAPE, "scan: input %s, expected time on axis 0 and batch on axis 1",
                      graph_describe(g, outer, text));
  if (!set_steps(s, sp->shape[0], sp->dim[0], g->tensors[outer].name) ||
      (!s->unchecked && !batch_fits(s, sp->shape[1], outer, "input")))
    return unroll_none();
  if (s->lengths != GRAPH_NONE && !s->unchecked) { /* what stands past a sequence's end may be anything, NaN too */
    x = graph_length_mask(graph_handle(g, outer), unroll_none(), graph_handle(g, s->lengths), 0, false);
    if (!x.graph)
      return unroll_none();
    outer = x.id;
    sp = &g->tensors[outer].spec;
  }
  tensor_spec step = *sp;
  step.rank--;
  memmove(step.shape, step.shape + 1, (UNROLL_MAX_RANK - 1) * sizeof *step.shape);
  memmove(step.dim, step.dim + 1, (UNROLL_MAX_RANK - 1) * sizeof *step.dim);
  step.shape[UNROLL_MAX_RANK - 1] = 1;
  step.dim[UNROLL_MAX_RANK - 1] = -1;
  if (!mem_grow(&b->allocator, &b->inputs, &b->inputs_capacity, b->n_inputs + 1, sizeof *b->inputs))
    return graph_fail(g, UNROLL_E_MEMORY, "out of memory for an input of a scan");
  const uint32_t inner = graph_add_tensor(b, &step, UNROLL_ROLE_STEP, GRAPH_NONE,
                                          mem_printf(&b->allocator, "%s[t]", g->tensors[outer].name));
  if (inner == GRAPH_NONE)
    return unroll_none();
  b->inputs[b->n_inputs++] = (scan_edge){inner, outer};
  return graph_handle(b, inner);
}

unroll_tensor unroll_scan_carry(unroll_scan *s, unroll_tensor initial) {
  char text[GRAPH_DESCRIBE];
  if (!s || graph_failed(s->graph))
    return unroll_none();
  unroll_graph *g = s->graph, *b = s->body;
  const uint32_t init = graph_resolve(g, initial, "scan's carry");
  if (init == GRAPH_NONE)
    return unroll_none();
  const tensor_spec spec = g->tensors[init].spec;
  if (!s->unchecked && (spec.rank < 1 || spec.dim[0] >= 0))
    return graph_fail(g, UNROLL_E_SHAPE, "scan: carry %s, expected the batch, of a static size, on axis 0",
                      graph_describe(g, init, text));
  if (!s->unchecked && !batch_fits(s, spec.shape[0], init, "carry"))
    return unroll_none();
  if (!mem_grow(&b->allocator, &b->carries, &b->carries_capacity, b->n_carries + 1, sizeof *b->carries))
    return graph_fail(g, UNROLL_E_MEMORY, "out of memory for a carry of a scan");
  const uint32_t last = graph_add_tensor(g, &spec, UNROLL_ROLE_TEMP, GRAPH_NONE,
                                         mem_printf(&g->allocator, "%s.last", g->tensors[init].name));
  const uint32_t in =
      graph_add_tensor(b, &spec, UNROLL_ROLE_CARRY, GRAPH_NONE, mem_printf(&b->allocator, "carry_%u", b->n_carries));
  if (last == GRAPH_NONE || in == GRAPH_NONE)
    return unroll_none();
  g->tensors[last].pending = true;
  b->carries[b->n_carries++] = (scan_carry){in, GRAPH_NONE, init, last};
  return graph_handle(b, in);
}

static scan_carry *find_carry(unroll_scan *s, unroll_tensor carry) {
  for (uint32_t i = 0; i < s->body->n_carries; i++)
    if (carry.graph == s->body && s->body->carries[i].in == carry.id)
      return &s->body->carries[i];
  graph_fail(s->graph, UNROLL_E_INVALID, "scan: what unroll_scan_carry returned is expected");
  return NULL;
}

void unroll_scan_next(unroll_scan *s, unroll_tensor carry, unroll_tensor value) {
  char ta[GRAPH_DESCRIBE], tb[GRAPH_DESCRIBE];
  if (!s || graph_failed(s->graph))
    return;
  scan_carry *c = find_carry(s, carry);
  const uint32_t next = c ? graph_resolve(s->body, value, "scan's next carry") : GRAPH_NONE;
  if (next == GRAPH_NONE)
    return;
  const tensor *t = s->body->tensors;
  if (c->next != GRAPH_NONE)
    graph_fail(s->graph, UNROLL_E_INVALID, "scan: carry %s has its next value already",
               graph_describe(s->body, c->in, ta));
  else if (!graph_same_shape(&t[next].spec, &t[c->in].spec) || t[next].spec.dtype != t[c->in].spec.dtype)
    graph_fail(s->graph, UNROLL_E_SHAPE, "scan: carry %s would become %s", graph_describe(s->body, c->in, ta),
               graph_describe(s->body, next, tb));
  else
    c->next = next;
}

unroll_tensor unroll_scan_last(unroll_scan *s, unroll_tensor carry) {
  if (!s || graph_failed(s->graph))
    return unroll_none();
  const scan_carry *c = find_carry(s, carry);
  return c ? graph_handle(s->graph, c->last) : unroll_none();
}

/* A new outer tensor for the steps of inner, put on the body's list. */
static uint32_t give_out(unroll_graph *g, unroll_graph *b, uint32_t inner) {
  const tensor_spec *step = &b->tensors[inner].spec;
  char text[GRAPH_DESCRIBE];
  if (step->rank >= UNROLL_MAX_RANK) {
    graph_fail(g, UNROLL_E_SHAPE, "scan: output %s, with time it would have more than %d axes",
               graph_describe(b, inner, text), UNROLL_MAX_RANK);
    return GRAPH_NONE;
  }
  tensor_spec spec = graph_make_spec(step->dtype, 0, NULL);
  spec.rank = step->rank + 1;
  spec.shape[0] = b->steps;
  spec.dim[0] = b->steps_dim;
  memcpy(spec.shape + 1, step->shape, (size_t)step->rank * sizeof *step->shape);
  if (!mem_grow(&b->allocator, &b->outputs, &b->outputs_capacity, b->n_outputs + 1, sizeof *b->outputs)) {
    graph_fail(g, UNROLL_E_MEMORY, "out of memory for an output of a scan");
    return GRAPH_NONE;
  }
  const uint32_t outer = graph_add_tensor(g, &spec, UNROLL_ROLE_TEMP, GRAPH_NONE,
                                          mem_printf(&g->allocator, "%s.all", b->tensors[inner].name));
  if (outer != GRAPH_NONE)
    b->outputs[b->n_outputs++] = (scan_edge){inner, outer};
  return outer;
}

unroll_tensor unroll_scan_output(unroll_scan *s, unroll_tensor step) {
  if (!s || graph_failed(s->graph))
    return unroll_none();
  unroll_graph *b = s->body;
  const uint32_t inner = graph_resolve(b, step, "scan's output");
  if (inner == GRAPH_NONE)
    return unroll_none();
  if (b->steps == 0)
    return graph_fail(s->graph, UNROLL_E_STATE, "scan: no input tells the number of steps (unroll_scan_steps)");
  for (uint32_t i = 0; s->unchecked && i < b->n_outputs; i++)
    if (b->outputs[i].inner == inner)
      return graph_handle(s->graph, b->outputs[i].outer);
  const uint32_t outer = give_out(s->graph, b, inner);
  if (outer == GRAPH_NONE)
    return unroll_none();
  s->graph->tensors[outer].pending = true;
  return graph_handle(s->graph, outer);
}

/* Past its length a sequence's state stands still and its outputs are 0. */
static void apply_lengths(unroll_scan *s) {
  unroll_graph *b = s->body;
  const unroll_tensor lengths = graph_handle(s->graph, s->lengths);
  for (uint32_t i = 0; i < b->n_outputs; i++) {
    const unroll_tensor y = graph_length_mask(graph_handle(b, b->outputs[i].inner), unroll_none(), lengths, -1, false);
    b->outputs[i].inner = y.graph ? y.id : b->outputs[i].inner;
  }
  for (uint32_t i = 0; i < b->n_carries; i++) {
    scan_carry *c = &b->carries[i];
    const unroll_tensor next = graph_length_mask(graph_handle(b, c->next), graph_handle(b, c->in), lengths, -1, false);
    c->next = next.graph ? next.id : c->next;
  }
}

/* Is the tensor written by a node, rather than given from outside or a view of another? */
static bool is_written(const unroll_graph *b, uint32_t id) {
  const uint32_t p = b->tensors[id].producer;
  return p != GRAPH_NONE && b->nodes[p].op != UNROLL_OP_RESHAPE && b->nodes[p].op != UNROLL_OP_SLICE;
}

/* A result of the body is written by a node of the body, or is a carry as the step finds it; and no node makes two carries.
 * That is what the runtime needs to let results stand where they are used. */
static void copy_where_needed(unroll_graph *b) {
  for (uint32_t i = 0; i < b->n_carries; i++) {
    bool copy = !is_written(b, b->carries[i].next);
    for (uint32_t k = 0; k < i; k++)
      copy = copy || b->carries[k].next == b->carries[i].next;
    const unroll_tensor c = copy ? unroll_unary(graph_handle(b, b->carries[i].next), UNROLL_COPY) : unroll_none();
    if (c.graph)
      b->carries[i].next = c.id;
  }
  for (uint32_t i = 0; i < b->n_outputs; i++) {
    bool copy = !is_written(b, b->outputs[i].inner) && b->tensors[b->outputs[i].inner].role != UNROLL_ROLE_CARRY;
    for (uint32_t k = 0; k < i; k++)
      copy = copy || b->outputs[k].inner == b->outputs[i].inner;
    const unroll_tensor c = copy ? unroll_unary(graph_handle(b, b->outputs[i].inner), UNROLL_COPY) : unroll_none();
    if (c.graph)
      b->outputs[i].inner = c.id;
  }
}

/* The node's edges, written anew from the body's lists. */
static bool set_edges(unroll_graph *g, node *n) {
  const unroll_graph *b = n->body;
  const uint32_t n_in = b->n_carries + b->n_inputs + b->n_captures, n_out = b->n_carries + b->n_outputs;
  uint32_t *in = mem_array(&g->allocator, n_in ? n_in : 1, sizeof *in);
  uint32_t *out = mem_array(&g->allocator, n_out ? n_out : 1, sizeof *out);
  if (!in || !out) {
    mem_free(&g->allocator, in);
    mem_free(&g->allocator, out);
    graph_fail(g, UNROLL_E_MEMORY, "out of memory for a scan");
    return false;
  }
  uint32_t i = 0, o = 0;
  for (uint32_t k = 0; k < b->n_carries; k++) {
    in[i++] = b->carries[k].init;
    out[o++] = b->carries[k].last;
  }
  for (uint32_t k = 0; k < b->n_inputs; k++)
    in[i++] = b->inputs[k].outer;
  for (uint32_t k = 0; k < b->n_captures; k++)
    in[i++] = b->captures[k].outer;
  for (uint32_t k = 0; k < b->n_outputs; k++)
    out[o++] = b->outputs[k].outer;
  mem_free(&g->allocator, n->in);
  mem_free(&g->allocator, n->out);
  n->in = in;
  n->out = out;
  n->n_in = n_in;
  n->n_out = n_out;
  n->attr.scan = (unroll_scan_attr){.n_carries = b->n_carries,
                                    .n_inputs = b->n_inputs,
                                    .n_captures = b->n_captures,
                                    .n_outputs = b->n_outputs,
                                    .direction = b->direction,
                                    .cell = n->attr.scan.cell,
                                    .t0 = n->attr.scan.t0};
  return true;
}

bool scan_add_node(unroll_graph *g, unroll_graph *b, int32_t cell, int64_t t0) {
  const uint32_t index = g->n_nodes;
  node n = {.op = UNROLL_OP_SCAN,
            .body = b,
            .layer = g->layer,
            .direction = b->direction,
            .region = g->region,
            .backward = g->backward,
            .only = GRAPH_NONE};
  n.attr.scan.cell = cell;
  n.attr.scan.t0 = t0;
  n.name = mem_printf(&g->allocator, "scan_%u", index);
  if (!n.name || !mem_grow(&g->allocator, &g->nodes, &g->nodes_capacity, index + 1, sizeof *g->nodes) ||
      !set_edges(g, &n)) {
    mem_free(&g->allocator, n.name);
    graph_fail(g, UNROLL_E_MEMORY, "out of memory for a scan");
    return false;
  }
  for (uint32_t i = 0; i < n.n_out; i++) {
    g->tensors[n.out[i]].producer = index;
    g->tensors[n.out[i]].pending = false;
  }
  g->nodes[g->n_nodes++] = n;
  b->ended = true;
  return true;
}

void unroll_scan_end(unroll_scan *s) {
  if (!s)
    return;
  unroll_graph *g = s->graph, *b = s->body;
  char text[GRAPH_DESCRIBE];
  if (graph_failed(g))
    return; /* the graph frees it */
  for (uint32_t i = 0; i < b->n_carries; i++)
    if (b->carries[i].next == GRAPH_NONE) {
      graph_fail(g, UNROLL_E_GRAPH, "scan: carry %s has no next value (unroll_scan_next)",
                 graph_describe(b, b->carries[i].in, text));
      return;
    }
  if (b->steps == 0)
    graph_fail(g, UNROLL_E_STATE, "scan: no input tells the number of steps (unroll_scan_steps)");
  if (s->lengths != GRAPH_NONE && !graph_failed(g))
    apply_lengths(s);
  if (!graph_failed(g))
    copy_where_needed(b);
  if (graph_failed(g))
    return;
  for (unroll_scan **p = &g->open_scans; *p; p = &(*p)->next_open)
    if (*p == s) {
      *p = s->next_open;
      break;
    }
  if (s->checkpoint.struct_size ? !scan_build_segments(s) : !scan_add_node(g, b, s->cell, s->t0)) {
    s->next_open = g->open_scans; /* the graph frees it */
    g->open_scans = s;
    return;
  }
  mem_free(&g->allocator, s);
}

unroll_tensor scan_add_output(unroll_graph *g, uint32_t scan_node, uint32_t inner) {
  if (graph_failed(g))
    return unroll_none();
  unroll_graph *b = g->nodes[scan_node].body;
  for (uint32_t i = 0; i < b->n_kept; i++)
    if (b->kept[i].inner == inner)
      return graph_handle(g, b->kept[i].outer);
  for (uint32_t i = 0; i < b->n_outputs; i++)
    if (b->outputs[i].inner == inner)
      return graph_handle(g, b->outputs[i].outer);
  uint32_t from = inner;
  if (!is_written(b, inner) && b->tensors[inner].role != UNROLL_ROLE_CARRY) { /* of a view, a copy is given out */
    for (uint32_t i = 0; i < b->n_outputs; i++) {
      const uint32_t p = b->tensors[b->outputs[i].inner].producer;
      if (p != GRAPH_NONE && b->nodes[p].op == UNROLL_OP_UNARY && b->nodes[p].attr.unary.kind == UNROLL_COPY &&
          b->nodes[p].in[0] == inner)
        return graph_handle(g, b->outputs[i].outer);
    }
    b->ended = false;
    const unroll_tensor copy = unroll_unary(graph_handle(b, inner), UNROLL_COPY);
    b->ended = true;
    if (!copy.graph)
      return unroll_none();
    from = copy.id;
  }
  const uint32_t outer = give_out(g, b, from);
  if (outer == GRAPH_NONE || !set_edges(g, &g->nodes[scan_node]))
    return unroll_none();
  g->tensors[outer].producer = scan_node;
  return graph_handle(g, outer);
}
