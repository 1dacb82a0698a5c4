/* SPDX-License-Identifier: Apache-2.0 */
/* probe.c: a graph whose every value is looked at. */
#include <float.h>
#include <stdio.h>
#include <string.h>

#include "finite/finite_private.h"

/* ---- which values ---- */

/* What only moves numbers makes none that is not finite. */
static bool only_moves(const node *n) {
  switch (n->op) {
  case UNROLL_OP_SLICE:
  case UNROLL_OP_PAD:
  case UNROLL_OP_CONCAT:
  case UNROLL_OP_TRANSPOSE:
  case UNROLL_OP_RESHAPE:
  case UNROLL_OP_REVERSE:
  case UNROLL_OP_SELECT:
  case UNROLL_OP_CONSTANT:
  case UNROLL_OP_RANDOM:
  case UNROLL_OP_LENGTH_MASK:
  case UNROLL_OP_TOP_K: return true;
  case UNROLL_OP_UNARY: return n->attr.unary.kind == UNROLL_COPY || n->attr.unary.kind == UNROLL_LOGICAL_NOT;
  default: return false;
  }
}

/* The outputs of a node in the order in which a step makes them. */
static uint32_t output_of(const node *n, uint32_t i) {
  const bool gates_last =
      n->op == UNROLL_OP_LSTM_GATES || n->op == UNROLL_OP_GRU_UPDATE || n->op == UNROLL_OP_GRU_AFTER_GATES;
  return gates_last ? n->n_out - 1 - i : i;
}

/* Of a layer that is kept, what is not saved for its gradient alone, which may be opaque. */
static uint32_t outputs_of(const node *n) { return n->op == UNROLL_OP_LAYER ? 3 : n->n_out; }

/* The results of a cell's steps that nobody asked for, such as gates where there is no gradient. */
static bool revive(unroll_graph *b, node *n) {
  tensor_spec specs[4];
  if (n->op != UNROLL_OP_LSTM_GATES && n->op != UNROLL_OP_GRU_UPDATE && n->op != UNROLL_OP_GRU_AFTER_GATES)
    return true;
  if (infer_node(b, n->op, &n->attr, n->in, n->n_in, specs, n->n_out, NULL) != UNROLL_OK)
    return false;
  for (uint32_t o = 0; o < n->n_out; o++)
    if (n->out[o] == GRAPH_NONE) {
      n->out[o] = graph_add_tensor(b, &specs[o], UNROLL_ROLE_TEMP, (uint32_t)(n - b->nodes),
                                   mem_printf(&b->allocator, "%s.%u", n->name, o));
      if (n->out[o] == GRAPH_NONE)
        return false;
    }
  return true;
}

static struct probe *add_probe(struct probed *p, const struct probe *like) {
  if (!mem_grow(&p->allocator, &p->probes, &p->capacity, p->n + 1, sizeof *p->probes))
    return NULL;
  p->probes[p->n] = *like;
  return &p->probes[p->n++];
}

/* ---- steps ---- */

/* Where in its sequence the first step of a tensor stands: past slices of time. */
static int64_t first_step(const unroll_graph *g, uint32_t id, int depth) {
  int64_t t0 = 0;
  for (uint32_t p; depth > 0 && (p = g->tensors[id].producer) != GRAPH_NONE; depth--) {
    const node *n = &g->nodes[p];
    if (n->op == UNROLL_OP_SCAN) {
      int64_t most = n->attr.scan.t0;
      for (uint32_t i = 0; i < n->body->n_inputs && most == 0; i++)
        most = first_step(g, n->body->inputs[i].outer, depth - 1);
      return t0 + most;
    }
    if (n->op == UNROLL_OP_SLICE && n->attr.slice.axis == 0 && g->tensors[n->in[0]].spec.rank >= 3)
      t0 += n->attr.slice.start;
    const bool goes_on = n->op == UNROLL_OP_SLICE || n->op == UNROLL_OP_MATMUL || n->op == UNROLL_OP_LENGTH_MASK ||
                         n->op == UNROLL_OP_LAYER_NORM || n->op == UNROLL_OP_DROPOUT || n->op == UNROLL_OP_CONCAT ||
                         n->op == UNROLL_OP_LAYER;
    if (!goes_on || n->n_in == 0 || n->in[0] == GRAPH_NONE)
      break;
    id = n->in[0];
  }
  return t0;
}

static int64_t scan_t0(const unroll_graph *g, const node *scan) {
  int64_t t0 = scan->attr.scan.t0;
  for (uint32_t i = 0; i < scan->body->n_inputs && t0 == 0; i++)
    t0 = first_step(g, scan->body->inputs[i].outer, 16);
  return t0;
}

/* The lengths that a scan's steps, or a layer, are held against. */
static uint32_t lengths_of(const node *n) {
  if (n->op == UNROLL_OP_LAYER)
    return n->n_in > 7 ? n->in[7] : GRAPH_NONE;
  if (n->op == UNROLL_OP_LAYER_GRAD || n->op == UNROLL_OP_LINEAR_SCAN_GRAD)
    return n->n_in > 5 ? n->in[5] : GRAPH_NONE;
  if (n->op == UNROLL_OP_LINEAR_SCAN)
    return n->n_in > 3 ? n->in[3] : GRAPH_NONE;
  for (uint32_t i = 0; n->body && i < n->body->n_nodes; i++) {
    const node *m = &n->body->nodes[i];
    if (m->op != UNROLL_OP_LENGTH_MASK)
      continue;
    for (uint32_t k = 0; k < n->body->n_captures; k++)
      if (n->body->captures[k].inner == m->in[m->n_in - 1])
        return n->body->captures[k].outer;
  }
  return GRAPH_NONE;
}

static bool add_lengths(struct probed *p, uint32_t id, uint32_t *index) {
  *index = GRAPH_NONE;
  if (id == GRAPH_NONE)
    return true;
  for (*index = 0; *index < p->n_lengths; ++*index)
    if (p->lengths[*index] == id)
      return true;
  if (!mem_grow(&p->allocator, &p->lengths, &p->lengths_capacity, p->n_lengths + 1, sizeof *p->lengths))
    return false;
  p->lengths[p->n_lengths++] = id;
  return true;
}

/* ---- the graph's nodes, one after the other ---- */

struct survey {
  struct probed *p;
  uint32_t n_nodes;
  bool *after;              /* by node: made of gradients, and none itself */
  struct label *top;        /* by tensor */
  uint32_t *param;          /* by tensor: whose gradient it is; GRAPH_NONE */
  struct body_labels *cell; /* by node, of a scan or linear scan; `of` is NULL */
};

/* A layer's direction, also of a scan that goes back through it. */
static int32_t direction_of(const node *n) {
  return n->op == UNROLL_OP_SCAN && n->backward ? !n->body->direction : n->direction;
}

static bool same_place(const node *a, const node *b) {
  return a->layer >= 0 && a->layer == b->layer && direction_of(a) == direction_of(b) && a->backward == b->backward;
}

static void find_after(const struct survey *s) {
  const unroll_graph *g = s->p->graph;
  for (uint32_t i = 0; i < s->n_nodes; i++)
    for (uint32_t k = 0; k < g->nodes[i].n_in && !g->nodes[i].backward; k++) {
      const uint32_t in = g->nodes[i].in[k], from = in == GRAPH_NONE ? GRAPH_NONE : g->tensors[in].producer;
      s->after[i] = s->after[i] || (from != GRAPH_NONE && (s->after[from] || g->nodes[from].backward));
    }
}

/* Back from what an optimizer takes to what the reverse pass made, and its parts. */
static void name_gradient(const struct survey *s, uint32_t id, uint32_t param, int depth) {
  const unroll_graph *g = s->p->graph;
  const uint32_t p = id == GRAPH_NONE ? GRAPH_NONE : g->tensors[id].producer;
  if (p == GRAPH_NONE || depth == 0 || s->param[id] != GRAPH_NONE)
    return;
  const node *n = &g->nodes[p];
  s->param[id] = param;
  if (n->op == UNROLL_OP_SELECT) {
    name_gradient(s, n->in[1], param, depth - 1);
    name_gradient(s, n->in[2], param, depth - 1);
  } else if (n->op == UNROLL_OP_CONCAT || n->op == UNROLL_OP_SLICE || n->op == UNROLL_OP_RESHAPE ||
             n->op == UNROLL_OP_TRANSPOSE || n->op == UNROLL_OP_PAD || n->op == UNROLL_OP_BINARY ||
             n->op == UNROLL_OP_UNARY)
    for (uint32_t i = 0; i < n->n_in; i++)
      name_gradient(s, n->in[i], param, depth - 1);
}

static void name_gradients(const struct survey *s) {
  const unroll_graph *g = s->p->graph;
  for (uint32_t i = 0; i < g->n_tensors; i++)
    s->param[i] = GRAPH_NONE;
  for (uint32_t i = 0; i < s->n_nodes; i++)
    if (g->nodes[i].op == UNROLL_OP_OPTIMIZER) {
      uint32_t param = g->nodes[i].in[0]; /* or what a decay has made of it */
      while (g->tensors[param].role != UNROLL_ROLE_PARAM && g->tensors[param].producer != GRAPH_NONE &&
             g->nodes[g->tensors[param].producer].n_in > 0)
        param = g->nodes[g->tensors[param].producer].in[0];
      if (g->tensors[param].role != UNROLL_ROLE_PARAM)
        continue;
      name_gradient(s, g->nodes[i].in[1], param, 8);
      for (uint32_t o = 0; o < g->nodes[i].n_out; o++)
        if (g->nodes[i].out[o] != GRAPH_NONE)
          s->param[g->nodes[i].out[o]] = param;
    }
  for (uint32_t i = 0; i < s->n_nodes; i++) /* the squares that a norm is made of */
    if (g->nodes[i].op == UNROLL_OP_REDUCE && s->param[g->nodes[i].in[0]] != GRAPH_NONE)
      s->param[g->nodes[i].out[0]] = s->param[g->nodes[i].in[0]];
}

static bool is_linear(const node *n) { return n->op == UNROLL_OP_LINEAR_SCAN || n->op == UNROLL_OP_LINEAR_SCAN_GRAD; }

/* The first scan from here on in the same layer, direction and pass; GRAPH_NONE. */
static uint32_t scan_ahead(const struct survey *s, uint32_t i) {
  const unroll_graph *g = s->p->graph;
  for (uint32_t k = i; k < s->n_nodes && same_place(&g->nodes[i], &g->nodes[k]); k++)
    if (g->nodes[k].op == UNROLL_OP_SCAN || g->nodes[k].op == UNROLL_OP_LINEAR_SCAN)
      return k;
  return GRAPH_NONE;
}

static bool has_steps(const tensor_spec *s, int64_t T, int64_t B) {
  return s->rank >= 3 && s->shape[0] == T && s->shape[1] == B;
}

bool probed_has_steps(const struct probed *p, const tensor_spec *s, bool flat) {
  bool has = false;
  for (uint32_t i = 0; i < p->n_T && p->B > 0; i++)
    has = has || (flat ? s->rank >= 1 && s->shape[0] == p->T[i] * p->B
                       : s->rank >= 2 && s->shape[0] == p->T[i] && s->shape[1] == p->B);
  return has;
}

/* The way in which a node's steps are gone through: that of the scan, or of what is its own. */
static int32_t order_of(const node *n) {
  if (n->op == UNROLL_OP_SCAN)
    return n->body->direction;
  if (n->op == UNROLL_OP_LINEAR_SCAN)
    return n->attr.linear_scan.direction;
  if (n->op == UNROLL_OP_LINEAR_SCAN_GRAD)
    return n->attr.linear_scan.direction == UNROLL_REVERSE ? UNROLL_FORWARD : UNROLL_REVERSE;
  return n->layer >= 0 && (n->direction == UNROLL_REVERSE) != n->backward ? UNROLL_REVERSE : UNROLL_FORWARD;
}

static bool survey_top(struct survey *s, uint32_t i) {
  struct probed *p = s->p;
  const unroll_graph *g = p->graph;
  const node *n = &g->nodes[i];
  const uint32_t ahead = scan_ahead(s, i);
  const node *scan = ahead == GRAPH_NONE ? NULL : &g->nodes[ahead];
  for (uint32_t k = 0; k < outputs_of(n); k++) {
    const uint32_t id = n->out[output_of(n, k)];
    if (id == GRAPH_NONE || !gradient_is_real(&g->tensors[id].spec))
      continue;
    struct probe x = {.node = i,
                      .inner = GRAPH_NONE,
                      .tensor = id,
                      .major = i,
                      .phase = n->backward   ? UNROLL_PHASE_GRADIENT
                               : s->after[i] ? UNROLL_PHASE_UPDATE
                                             : UNROLL_PHASE_FORWARD,
                      .layer = n->layer,
                      .direction = n->layer >= 0 ? n->direction : -1,
                      .lengths = GRAPH_NONE,
                      .family = FAMILY_NONE,
                      .label = s->top[id].quantity != UNROLL_QUANTITY_VALUE ? s->top[id]
                                                                            : label_of_top(g, n, output_of(n, k)),
                      .spec = g->tensors[id].spec};
    x.reduced = x.spec.rank >= 2;
    x.param = x.phase == UNROLL_PHASE_FORWARD ? GRAPH_NONE : s->param[id];
    if (x.phase == UNROLL_PHASE_UPDATE && x.label.quantity == UNROLL_QUANTITY_LOSS) /* a norm, a factor */
      x.label.quantity = UNROLL_QUANTITY_VALUE;
    if (x.param != GRAPH_NONE)
      x.label = (struct label){UNROLL_QUANTITY_PARAMETER, -1, 0};
    const int64_t steps = !scan ? 0 : is_linear(scan) ? g->tensors[scan->in[0]].spec.shape[0] : scan->body->steps;
    const bool own = n->layer < 0 || n->n_in == 0 || n->in[0] == GRAPH_NONE;
    const bool in_scan = scan && has_steps(&x.spec, steps, p->B);
    x.stepwise = in_scan || (x.spec.rank >= 3 && probed_has_steps(p, &x.spec, false));
    if (in_scan) {
      x.major = ahead;
      x.family = s->cell[ahead].family;
    }
    if (x.stepwise) {
      x.order = order_of(in_scan ? scan : n);
      x.t0 = in_scan && !is_linear(scan) ? scan_t0(g, scan) : first_step(g, own ? id : n->in[0], 16);
      if (!add_lengths(p, lengths_of(scan ? scan : n), &x.lengths))
        return false;
    }
    if (!add_probe(p, &x))
      return false;
  }
  return true;
}

static bool survey_scan(struct survey *s, uint32_t i) {
  struct probed *p = s->p;
  const unroll_graph *g = p->graph;
  const node *n = &g->nodes[i];
  unroll_graph *b = n->body;
  struct body_labels *const labels = &s->cell[i];
  const struct body_labels *forward = NULL;
  bool ok = true;
  for (uint32_t k = 0; k < b->n_nodes && ok; k++)
    ok = revive(b, &b->nodes[k]);
  for (uint32_t k = 0; k < i && n->backward; k++)
    if (g->nodes[k].op == UNROLL_OP_SCAN && !g->nodes[k].backward && n->layer >= 0 && g->nodes[k].layer == n->layer &&
        g->nodes[k].direction == direction_of(n))
      forward = &s->cell[k];
  ok = ok && label_body(g, i, forward, s->top, labels);
  uint32_t lengths = GRAPH_NONE;
  ok = ok && add_lengths(p, lengths_of(n), &lengths);
  for (uint32_t k = 0; k < b->n_nodes && ok; k++) {
    const node *m = &b->nodes[k];
    for (uint32_t o = 0; o < m->n_out && ok && !only_moves(m); o++) {
      const uint32_t id = m->out[output_of(m, o)];
      if (id == GRAPH_NONE || !gradient_is_real(&b->tensors[id].spec))
        continue;
      struct probe x = {.node = i,
                        .inner = k,
                        .tensor = id,
                        .major = i,
                        .stepwise = true,
                        .reduced = b->tensors[id].spec.rank >= 2,
                        .phase = n->backward   ? UNROLL_PHASE_GRADIENT
                                 : s->after[i] ? UNROLL_PHASE_UPDATE
                                               : UNROLL_PHASE_FORWARD,
                        .layer = n->layer,
                        .direction = direction_of(n),
                        .order = b->direction,
                        .t0 = scan_t0(g, n),
                        .lengths = lengths,
                        .family = labels->family,
                        .label = labels->of[id],
                        .param = GRAPH_NONE,
                        .spec = b->tensors[id].spec};
      if (x.spec.rank == UNROLL_MAX_RANK)
        continue;
      memmove(x.spec.shape + 1, x.spec.shape, (UNROLL_MAX_RANK - 1) * sizeof x.spec.shape[0]);
      memmove(x.spec.dim + 1, x.spec.dim, (UNROLL_MAX_RANK - 1) * sizeof x.spec.dim[0]);
      x.spec.shape[0] = b->steps;
      x.spec.dim[0] = b->steps_dim;
      x.spec.rank++;
      ok = add_probe(p, &x);
    }
  }
  mem_free(&g->allocator, labels->of);
  labels->of = NULL;
  return ok;
}

static void add_steps(struct probed *p, int64_t T) {
  bool there = T < 1 || p->n_T == sizeof p->T / sizeof p->T[0];
  for (uint32_t i = 0; i < p->n_T; i++)
    there = there || p->T[i] == T;
  if (!there)
    p->T[p->n_T++] = T;
}

/* The batch, and numbers of steps: of an encoder and a decoder, of segments and of what they are cut from. */
static void find_recurrences(struct survey *s) {
  struct probed *p = s->p;
  const unroll_graph *g = p->graph;
  for (uint32_t i = 0; i < s->n_nodes; i++) {
    const node *n = &g->nodes[i];
    const tensor_spec *of = NULL;
    int64_t T = 0, B = 0;
    if (n->op == UNROLL_OP_SCAN && n->body->n_carries > 0) {
      of = &g->tensors[n->body->carries[0].init].spec;
      T = n->body->steps;
      B = of->rank > 0 ? of->shape[0] : 0;
    } else if (n->op == UNROLL_OP_LAYER || n->op == UNROLL_OP_LINEAR_SCAN) {
      of = &g->tensors[n->in[0]].spec;
      T = of->rank >= 2 ? of->shape[0] : 0;
      B = of->rank >= 2 ? of->shape[1] : 0;
    }
    if (B < 1 || (p->B > 0 && B != p->B))
      continue;
    p->B = B;
    add_steps(p, T);
    for (uint32_t k = 0; k < n->n_in; k++) {
      uint32_t id = n->in[k];
      while (id != GRAPH_NONE && g->tensors[id].producer != GRAPH_NONE && g->nodes[g->tensors[id].producer].n_in > 0 &&
             g->tensors[id].spec.rank >= 3) {
        const node *from = &g->nodes[g->tensors[id].producer];
        id = from->in[0];
        if (from->op == UNROLL_OP_SLICE && from->attr.slice.axis == 0)
          add_steps(p, g->tensors[id].spec.shape[0]);
      }
    }
  }
}

static bool survey(struct survey *s) {
  const unroll_graph *g = s->p->graph;
  for (uint32_t i = 0; i < g->n_tensors; i++)
    s->top[i] = (struct label){UNROLL_QUANTITY_VALUE, -1, 0};
  find_recurrences(s);
  find_after(s);
  name_gradients(s);
  bool ok = true;
  /* Scans first: they label the products before them. */
  for (uint32_t i = 0; i < s->n_nodes && ok; i++)
    if (g->nodes[i].op == UNROLL_OP_SCAN)
      ok = survey_scan(s, i);
    else if (g->nodes[i].op == UNROLL_OP_LINEAR_SCAN && g->nodes[i].layer >= 0)
      s->cell[i].family = label_linear_scan(g, i, s->top);
  for (uint32_t i = 0; i < s->n_nodes && ok; i++)
    ok = g->nodes[i].op == UNROLL_OP_SCAN || only_moves(&g->nodes[i]) || survey_top(s, i);
  return ok;
}

/* In the order in which they are gone through: within a step what stands at the top comes before the body. */
static bool comes_before(const struct probe *a, const struct probe *b) {
  if (a->major != b->major)
    return a->major < b->major;
  if (a->node != b->node)
    return a->node < b->node;
  return a->inner < b->inner;
}

static void sort(struct probed *p) {
  for (uint32_t i = 1; i < p->n; i++) { /* nearly sorted: two sorted runs, outputs of a node in their place */
    const struct probe x = p->probes[i];
    uint32_t k = i;
    for (; k > 0 && comes_before(&x, &p->probes[k - 1]); k--)
      p->probes[k] = p->probes[k - 1];
    p->probes[k] = x;
  }
}

unroll_status probed_make(const unroll_graph *from, bool keep_layers, struct probed *p, unroll_error *err) {
  *p = (struct probed){.allocator = from->allocator};
  const unroll_allocator *a = &p->allocator;
  layer_fate *fates = NULL;
  if (keep_layers) {
    fates = mem_array(a, (uint64_t)from->n_nodes + 1, sizeof *fates);
    if (!fates)
      return fail(err, UNROLL_E_MEMORY, "no memory to look at a graph's values");
    for (uint32_t i = 0; i < from->n_nodes; i++)
      fates[i] = (layer_fate){.keep = true, .only = GRAPH_NONE};
  }
  const unroll_status status = graph_lower(from, fates, &p->graph, err);
  mem_free(a, fates);
  TRY(status);
  unroll_graph *g = p->graph;
  for (uint32_t i = 0; i < g->n_tensors; i++)
    g->tensors[i].update = GRAPH_NONE;
  struct survey s = {.p = p, .n_nodes = g->n_nodes};
  s.after = mem_array(a, (uint64_t)g->n_nodes + 1, sizeof *s.after);
  s.top = mem_array(a, (uint64_t)g->n_tensors + 1, sizeof *s.top);
  s.param = mem_array(a, (uint64_t)g->n_tensors + 1, sizeof *s.param);
  s.cell = mem_array(a, (uint64_t)g->n_nodes + 1, sizeof *s.cell);
  const bool ok = s.after && s.top && s.param && s.cell && survey(&s);
  mem_free(a, s.after);
  mem_free(a, s.top);
  mem_free(a, s.param);
  mem_free(a, s.cell);
  if (!ok)
    return fail(err, UNROLL_E_MEMORY, "no memory to look at a graph's values");
  sort(p);
  return UNROLL_OK;
}

void probed_free(struct probed *p) {
  unroll_graph_destroy(p->graph);
  mem_free(&p->allocator, p->probes);
  mem_free(&p->allocator, p->lengths);
  *p = (struct probed){.graph = NULL};
}

/* ---- marks ---- */

/* 1 where a number is finite; summed over the last axis where there are two. */
static unroll_tensor mark(unroll_tensor x) {
  if (!x.graph || graph_failed(x.graph))
    return unroll_none();
  const tensor_spec s = *graph_spec(x);
  const unroll_tensor most =
      unroll_constant(x.graph, s.dtype, 0, NULL, s.dtype == UNROLL_F64 ? DBL_MAX : (double)FLT_MAX);
  const unroll_tensor is_finite = unroll_binary(unroll_unary(x, UNROLL_ABS), most, UNROLL_LE);
  const unroll_tensor one = unroll_cast(is_finite, UNROLL_F32);
  return s.rank < 2 ? one : unroll_reduce(one, UNROLL_SUM, 1u << (s.rank - 1), 0);
}

unroll_status probed_add_marks(struct probed *p, unroll_error *err) {
  unroll_graph *g = p->graph;
  char name[48];
  for (uint32_t i = 0; i < p->n && !graph_failed(g); i++) {
    const struct probe *x = &p->probes[i];
    unroll_tensor m;
    if (x->inner == GRAPH_NONE)
      m = mark(graph_handle(g, x->tensor));
    else {
      unroll_graph *b = g->nodes[x->node].body;
      b->ended = false;
      const unroll_tensor step = mark(graph_handle(b, x->tensor));
      b->ended = true;
      g->nodes[x->node].attr.scan.cell = UNROLL_CELL_NONE; /* it is no longer what was lowered */
      m = step.graph ? scan_add_output(g, x->node, step.id) : unroll_none();
    }
    snprintf(name, sizeof name, "finite.mark.%u", i);
    unroll_output(m, name);
  }
  for (uint32_t i = 0; i < p->n_lengths && !graph_failed(g); i++) {
    snprintf(name, sizeof name, "finite.lengths.%u", i);
    unroll_output(unroll_unary(graph_handle(g, p->lengths[i]), UNROLL_COPY), name);
  }
  return unroll_graph_status(g, err);
}

unroll_status probed_add_value(struct probed *p, uint32_t scan, uint32_t id, uint32_t index, tensor_spec *spec,
                               unroll_error *err) {
  unroll_graph *g = p->graph;
  char name[48];
  snprintf(name, sizeof name, "finite.value.%u", index);
  unroll_tensor x = graph_handle(g, id);
  if (scan != GRAPH_NONE) {
    x = scan_add_output(g, scan, id);
    g->nodes[scan].attr.scan.cell = UNROLL_CELL_NONE;
  }
  if (x.graph) /* a copy: what stands there may be given out already, or not be alone there */
    x = unroll_output(unroll_unary(x, UNROLL_COPY), name);
  TRY(unroll_graph_status(g, err));
  *spec = *graph_spec(x);
  return UNROLL_OK;
}

int64_t probed_extent(const unroll_graph *g, const tensor_spec *spec, const int64_t *dims, uint32_t n_dims) {
  if (spec->rank == 0)
    return 1;
  const int32_t d = spec->dim[0];
  return d < 0 || (uint32_t)d >= n_dims ? spec->shape[0] : spec->shape[0] / g->dims[d].max * dims[d];
}
