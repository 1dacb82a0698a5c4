/* SPDX-License-Identifier: Apache-2.0 */
/*
 * grad_scan.c: the gradient of a scan is a scan that runs the other way.
 *
 * Its carries are what flows into the carries of the forward scan; its per-step inputs are what flows into the outputs, and
 * the values of the forward steps that the rules ask for: outer inputs stand there already, the rest become outputs of the
 * forward scan. A captured weight gets its gradient after the loop, from the steps of all times at once (one product
 * dW = Xᵀ·dY with time and batch flattened, not T small ones), wherever the op allows it; else it is summed in a carry.
 */
#include "graph/graph_private.h"

typedef struct late {
  uint32_t node, inputs; /* a bit for each */
} late;

typedef struct pass {
  unroll_graph *g;          /* the graph around both scans */
  const unroll_graph *body; /* of the forward scan */
  uint32_t scan_node;
  unroll_scan *scan; /* the backward one; NULL once it has ended */
  bool *needs;
  unroll_tensor *adjoint;     /* of the body's tensors, in the backward body */
  unroll_tensor *adjoint_all; /* of those that the late rules read: all steps, outside */
  unroll_tensor *capture;     /* what has flowed into the captured tensors, outside */
  late *lates;
  uint32_t n_lates, lates_capacity;
  late now; /* the rule that runs after the loop */
} pass;

static uint32_t capture_index(const unroll_graph *body, uint32_t inner) {
  for (uint32_t i = 0; i < body->n_captures; i++)
    if (body->captures[i].inner == inner)
      return i;
  return GRAPH_NONE;
}

/* The value of a forward step's tensor at all times, in the graph g outside; a constant in the body of s, if there is one. */
static unroll_tensor all_steps(unroll_graph *g, uint32_t scan_node, const unroll_scan *s, uint32_t t) {
  const unroll_graph *b = g->nodes[scan_node].body;
  const tensor *x = &b->tensors[t];
  if (x->role == UNROLL_ROLE_CAPTURE)
    return graph_handle(g, b->captures[capture_index(b, t)].outer);
  if (x->producer != GRAPH_NONE && b->nodes[x->producer].op == UNROLL_OP_CONSTANT)
    return graph_zeros_like(s ? s->body : g, &x->spec, b->nodes[x->producer].attr.constant.value);
  for (uint32_t i = 0; i < b->n_inputs; i++)
    if (b->inputs[i].inner == t)
      return graph_handle(g, b->inputs[i].outer);
  return scan_add_output(g, scan_node, t);
}

unroll_tensor scan_step_value(unroll_graph *g, uint32_t scan_node, unroll_scan *s, uint32_t t) {
  const unroll_tensor all = all_steps(g, scan_node, s, t);
  if (g->nodes[scan_node].body->tensors[t].role == UNROLL_ROLE_CAPTURE || all.graph == s->body)
    return all;
  return unroll_scan_input(s, all);
}

/*
 * Can the gradient of this captured input be taken from all steps at once, by the same rule? Where time, put before the axes
 * of the other operands, is just one more axis that they are summed over.
 */
static bool is_late(const pass *p, const node *n, uint32_t input) {
  const tensor *t = p->body->tensors, *w = &t[n->in[input]];
  if (w->role != UNROLL_ROLE_CAPTURE)
    return false;
  const tensor_spec *y = &t[n->out[0]].spec;
  switch (n->op) {
  case UNROLL_OP_MATMUL:
    return y->rank < UNROLL_MAX_RANK &&
           ((input == 1 && w->spec.rank == 2 && !n->attr.matmul.trans_a && t[n->in[0]].role != UNROLL_ROLE_CAPTURE) ||
            (input == 2 && w->spec.rank == 1));
  case UNROLL_OP_BINARY:
    return y->rank < UNROLL_MAX_RANK && w->spec.rank < y->rank && n->in[0] != n->in[1] &&
           graph_same_shape(&t[n->in[1 - input]].spec, y);
  case UNROLL_OP_LAYER_NORM:
    return y->rank < UNROLL_MAX_RANK && t[n->in[0]].role != UNROLL_ROLE_CAPTURE &&
           (input == 1 || (input == 2 && w->spec.rank == 1 && y->rank > 1));
  case UNROLL_OP_LSTM_GATES: return input >= 2 && y->rank < UNROLL_MAX_RANK;
  case UNROLL_OP_EMBEDDING: return input == 0 && y->rank < UNROLL_MAX_RANK && t[n->in[1]].role != UNROLL_ROLE_CAPTURE;
  default: return false;
  }
}

/* Do the late rules of this node read what flows into output o? */
static bool reads_late(const node *n, uint32_t o) { return n->op != UNROLL_OP_LSTM_GATES || o == 0; }

/* ---- the rules inside the loop ---- */

static unroll_tensor step_value(vjp *v, uint32_t t) {
  pass *p = v->user;
  return scan_step_value(p->g, p->scan_node, p->scan, t);
}
static unroll_tensor step_adjoint(vjp *v, uint32_t t) { return ((pass *)v->user)->adjoint[t]; }
static bool step_wants(vjp *v, const node *n, uint32_t input) {
  const pass *p = v->user;
  return p->needs[n->in[input]] && !is_late(p, n, input);
}
static void flow(pass *p, uint32_t t, unroll_tensor x) {
  p->adjoint[t] = p->adjoint[t].graph ? unroll_add(p->adjoint[t], x) : x;
}
static void step_give(vjp *v, const node *n, uint32_t input, unroll_tensor x) { flow(v->user, n->in[input], x); }
static unroll_tensor step_so_far(vjp *v, const node *n, uint32_t input) {
  return ((pass *)v->user)->adjoint[n->in[input]];
}
static void step_put(vjp *v, const node *n, uint32_t input, unroll_tensor x) {
  ((pass *)v->user)->adjoint[n->in[input]] = x;
}

/* ---- the rules after it, on all steps at once ---- */

static unroll_tensor late_value(vjp *v, uint32_t t) {
  const pass *p = v->user;
  return all_steps(p->g, p->scan_node, NULL, t);
}
static unroll_tensor late_adjoint(vjp *v, uint32_t t) { return ((pass *)v->user)->adjoint_all[t]; }
static bool late_wants(vjp *v, const node *n, uint32_t input) {
  const pass *p = v->user;
  return p->now.inputs >> input & 1u && p->needs[n->in[input]];
}
static unroll_tensor late_so_far(vjp *v, const node *n, uint32_t input) {
  const pass *p = v->user;
  return p->capture[capture_index(p->body, n->in[input])];
}
static void late_put(vjp *v, const node *n, uint32_t input, unroll_tensor x) {
  const pass *p = v->user;
  p->capture[capture_index(p->body, n->in[input])] = x;
}
static void late_give(vjp *v, const node *n, uint32_t input, unroll_tensor x) {
  const unroll_tensor before = late_so_far(v, n, input);
  late_put(v, n, input, before.graph ? unroll_add(before, x) : x);
}

/* Rows of the batch. */
static int64_t batch_of(const unroll_graph *b) {
  const uint32_t t = b->n_carries ? b->carries[0].in : b->n_inputs ? b->inputs[0].inner : GRAPH_NONE;
  return t == GRAPH_NONE || b->tensors[t].spec.rank == 0 ? 1 : b->tensors[t].spec.shape[0];
}

/* What of the body depends on the inputs that are asked for; a carry passes it from step to step. */
static void mark(pass *p) {
  const unroll_graph *b = p->body;
  for (bool changed = true; changed;) {
    changed = false;
    gradient_mark(b, 0, b->n_nodes, p->needs);
    for (uint32_t i = 0; i < b->n_carries; i++)
      if (p->needs[b->carries[i].next] && !p->needs[b->carries[i].in])
        changed = p->needs[b->carries[i].in] = true;
  }
}

static void walk_body(pass *p) {
  const unroll_graph *b = p->body;
  vjp v = {.graph = b,
           .user = p,
           .value = step_value,
           .adjoint = step_adjoint,
           .wants = step_wants,
           .give = step_give,
           .so_far = step_so_far,
           .put = step_put,
           .joins = true};
  for (uint32_t i = b->n_nodes; i-- > 0 && !graph_failed(p->g);) {
    const node copy = b->nodes[i], *n = &copy; /* what a rule reads may become an output by a node more */
    bool flows = false, needed = false;
    uint32_t later = 0;
    for (uint32_t k = 0; k < n->n_out; k++)
      flows = flows || p->adjoint[n->out[k]].graph;
    for (uint32_t k = 0; flows && k < n->n_in; k++) {
      if (n->in[k] == GRAPH_NONE || !p->needs[n->in[k]])
        continue;
      if (is_late(p, n, k))
        later |= 1u << k;
      else
        needed = true;
    }
    if (later) {
      if (!mem_grow(&p->g->allocator, &p->lates, &p->lates_capacity, p->n_lates + 1, sizeof *p->lates)) {
        graph_fail(p->g, UNROLL_E_MEMORY, "out of memory for the gradient of a scan");
        return;
      }
      p->lates[p->n_lates++] = (late){i, later};
      for (uint32_t o = 0; o < n->n_out; o++)
        if (p->adjoint[n->out[o]].graph && reads_late(n, o))
          p->adjoint_all[n->out[o]] = unroll_scan_output(p->scan, p->adjoint[n->out[o]]);
    }
    if (flows && needed)
      grad_node(&v, p->scan->body, n);
  }
}

static void differentiate(pass *p, vjp *outer, const node *n, unroll_tensor *results) {
  unroll_graph *g = p->g;
  const unroll_graph *b = p->body;
  const uint32_t first_input = b->n_carries, first_capture = first_input + b->n_inputs;
  const uint32_t n_captures = b->n_captures;
  for (uint32_t i = 0; i < b->n_carries; i++)
    p->needs[b->carries[i].in] = outer->wants(outer, n, i) && gradient_is_real(&b->tensors[b->carries[i].in].spec);
  for (uint32_t i = 0; i < b->n_inputs; i++)
    p->needs[b->inputs[i].inner] = outer->wants(outer, n, first_input + i);
  for (uint32_t i = 0; i < n_captures; i++) {
    p->needs[b->captures[i].inner] = outer->wants(outer, n, first_capture + i);
    /* Sums go on from what is there: then a sequence in segments has the sums of the whole one. */
    if (p->needs[b->captures[i].inner])
      p->capture[i] = outer->so_far(outer, n, first_capture + i);
  }
  mark(p);

  p->scan =
      scan_begin_unchecked(g, b->direction == UNROLL_FORWARD ? UNROLL_REVERSE : UNROLL_FORWARD, b->steps, b->steps_dim);
  unroll_tensor *carry = mem_array(&g->allocator, b->n_carries + 1, sizeof *carry);
  if (!p->scan || !carry) {
    graph_fail(g, UNROLL_E_MEMORY, "out of memory for the gradient of a scan");
    mem_free(&g->allocator, carry);
    return;
  }
  p->scan->cell = n->attr.scan.cell;
  p->scan->t0 = n->attr.scan.t0;
  for (uint32_t i = 0; i < b->n_carries; i++) {
    const scan_carry *c = &b->carries[i];
    if (!p->needs[c->in])
      continue;
    unroll_tensor initial = outer->adjoint(outer, n->out[i]);
    if (!initial.graph)
      initial = graph_zeros_like(g, &b->tensors[c->in].spec, 0.0);
    carry[i] = unroll_scan_carry(p->scan, initial);
    flow(p, c->next, carry[i]);
  }
  for (uint32_t i = 0; i + b->n_carries < n->n_out; i++) {
    const unroll_tensor dy = outer->adjoint(outer, n->out[b->n_carries + i]);
    if (dy.graph)
      flow(p, b->outputs[i].inner, unroll_scan_input(p->scan, dy));
  }
  walk_body(p);

  for (uint32_t i = 0; i < b->n_carries && !graph_failed(g); i++) {
    const scan_carry *c = &b->carries[i];
    if (!carry[i].graph)
      continue;
    unroll_tensor next = p->adjoint[c->in];
    if (!next.graph)
      next = graph_zeros_like(p->scan->body, &b->tensors[c->in].spec, 0.0);
    unroll_scan_next(p->scan, carry[i], next);
    results[i] = unroll_scan_last(p->scan, carry[i]);
  }
  for (uint32_t i = 0; i < b->n_inputs && !graph_failed(g); i++)
    if (p->needs[b->inputs[i].inner] && p->adjoint[b->inputs[i].inner].graph)
      results[first_input + i] = unroll_scan_output(p->scan, p->adjoint[b->inputs[i].inner]);
  for (uint32_t i = 0; i < n_captures && !graph_failed(g); i++) {
    const unroll_tensor step = p->adjoint[b->captures[i].inner];
    if (!step.graph)
      continue;
    if (!p->capture[i].graph)
      p->capture[i] = graph_zeros_like(g, &b->tensors[b->captures[i].inner].spec, 0.0);
    const unroll_tensor sum = unroll_scan_carry(p->scan, p->capture[i]);
    unroll_scan_next(p->scan, sum, unroll_add(sum, step));
    p->capture[i] = unroll_scan_last(p->scan, sum);
  }
  mem_free(&g->allocator, carry);
  if (graph_failed(g))
    return;
  unroll_scan_end(p->scan);
  p->scan = NULL;

  vjp v = {.graph = b,
           .user = p,
           .value = late_value,
           .adjoint = late_adjoint,
           .wants = late_wants,
           .give = late_give,
           .so_far = late_so_far,
           .put = late_put,
           .block = outer->block ? outer->block : gradient_block(batch_of(b)),
           .block_order = b->direction == UNROLL_FORWARD ? UNROLL_BLOCKS_FROM_LAST : UNROLL_BLOCKS_FROM_FIRST};
  for (uint32_t i = 0; i < p->n_lates && !graph_failed(g); i++) {
    p->now = p->lates[i];
    const node n_late = b->nodes[p->now.node];
    grad_node(&v, g, &n_late);
  }
  for (uint32_t i = 0; i < n_captures; i++)
    results[first_capture + i] = p->capture[i];
}

void grad_scan(vjp *outer, unroll_graph *g, uint32_t scan_node) {
  const unroll_graph *b = g->nodes[scan_node].body;
  const unroll_allocator *a = &g->allocator;
  /* The node's edges as they are now: asking for values of its steps gives it more outputs and writes them anew. */
  node n = g->nodes[scan_node];
  uint32_t *edges = mem_array(a, (uint64_t)n.n_in + n.n_out + 1, sizeof *edges);
  unroll_tensor *results = mem_array(a, n.n_in + 1, sizeof *results);
  pass p = {.g = g, .body = b, .scan_node = scan_node};
  p.needs = mem_array(a, b->n_tensors, sizeof *p.needs);
  p.adjoint = mem_array(a, b->n_tensors, sizeof *p.adjoint);
  p.adjoint_all = mem_array(a, b->n_tensors, sizeof *p.adjoint_all);
  p.capture = mem_array(a, b->n_captures + 1, sizeof *p.capture);
  if (!edges || !results || !p.needs || !p.adjoint || !p.adjoint_all || !p.capture)
    graph_fail(g, UNROLL_E_MEMORY, "out of memory for the gradient of a scan");
  else {
    node_keep_edges(&n, edges);
    differentiate(&p, outer, &n, results);
    const uint32_t first_capture = b->n_carries + b->n_inputs;
    for (uint32_t i = first_capture; i < n.n_in && !graph_failed(g); i++)
      if (results[i].graph && outer->wants(outer, &n, i))
        outer->put(outer, &n, i, results[i]);
    for (uint32_t i = 0; i < first_capture && !graph_failed(g); i++) /* which may be captured, too */
      if (results[i].graph && outer->wants(outer, &n, i))
        outer->give(outer, &n, i, results[i]);
  }
  mem_free(a, edges);
  mem_free(a, results);
  mem_free(a, p.needs);
  mem_free(a, p.adjoint);
  mem_free(a, p.adjoint_all);
  mem_free(a, p.capture);
  mem_free(a, p.lates);
}
