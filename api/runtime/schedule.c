/* SPDX-License-Identifier: Apache-2.0 */
/*
 * schedule.c: from nodes with their takers to a schedule: which tensors share memory, what is copied between devices
 * and when, how long everything lives.
 *
 * A tensor is a ref: an object and an offset. Views of axis 0 and reshapes share their source's object. The carries of
 * an unrolled scan stand in two slots by turns, or, where a per-step output is the carry itself, in its whole history
 * of T+1 slots, and the output is a view of that: slot t is the carry as step t finds it (forward; t+1 in reverse).
 */
#include "runtime/runtime_private.h"

uint64_t spec_bytes(const tensor_spec *s) {
  uint64_t n = unroll_dtype_size(s->dtype);
  for (int i = 0; i < s->rank; i++)
    n *= (uint64_t)s->shape[i];
  return n;
}

#define NO_REF ((ref){.object = GRAPH_NONE})

static unroll_status add_object(plan *p, uint64_t bytes, uint32_t outside_id, uint32_t home, uint32_t *id,
                                unroll_error *err) {
  unroll_executable *e = p->exe;
  const unroll_allocator *a = &e->ctx->allocator;
  object_place *at = mem_array(a, e->devices.n, sizeof *at);
  if (!at || !mem_grow(a, &e->objects, &e->objects_capacity, e->n_objects + 1, sizeof *e->objects)) {
    mem_free(a, at);
    return fail(err, UNROLL_E_MEMORY, "out of memory for the plan of a graph");
  }
  e->objects[e->n_objects] = (object){bytes, outside_id, home, at};
  *id = e->n_objects++;
  return UNROLL_OK;
}

/* The object is read or written on device d at the present position. */
static void touch(plan *p, uint32_t object_id, uint32_t d) {
  object_place *at = &p->exe->objects[object_id].at[d];
  if (!at->used) {
    at->used = true;
    at->first = p->position;
  }
  at->last = p->position;
}

static unroll_status add_item(plan *p, item **it, unroll_error *err) {
  unroll_executable *e = p->exe;
  if (!mem_grow(&e->ctx->allocator, &e->items, &e->items_capacity, e->n_items + 1, sizeof *e->items))
    return fail(err, UNROLL_E_MEMORY, "out of memory for the schedule of a graph");
  *it = &e->items[e->n_items++];
  **it = (item){0};
  return UNROLL_OK;
}

/* Counts a copy that crosses devices, and makes room for it on its way. */
static void count_crossing(plan *p, const copy *c) {
  if (c->from.device == c->to.device)
    return;
  p->exe->n_crossings++;
  if (c->bytes > p->exe->largest_copy)
    p->exe->largest_copy = c->bytes;
}

static unroll_status add_copy(plan *p, const copy *c, unroll_error *err) {
  item *it = NULL;
  TRY(add_item(p, &it, err));
  it->kind = ITEM_STAGE;
  it->stage = (stage){STAGE_COPY, 0, *c};
  count_crossing(p, c);
  return UNROLL_OK;
}

/* Makes an object's value be there on device d. */
static unroll_status bring(plan *p, uint32_t object_id, uint32_t d, unroll_error *err) {
  object *o = &p->exe->objects[object_id];
  if (d != o->home && !o->at[d].valid) {
    touch(p, object_id, o->home);
    touch(p, object_id, d);
    const copy c = {{.object = object_id, .device = o->home}, {.object = object_id, .device = d}, o->bytes};
    TRY(add_copy(p, &c, err));
    p->exe->objects[object_id].at[d].valid = true;
    p->position++;
  }
  touch(p, object_id, d);
  return UNROLL_OK;
}

static unroll_status new_group(plan *p, uint32_t device, const unroll_graph *g, uint32_t scan, bool private_group,
                               uint32_t *id, unroll_error *err) {
  unroll_executable *e = p->exe;
  const unroll_allocator *a = &e->ctx->allocator;
  if (!mem_grow(a, &p->groups, &p->groups_capacity, p->n_groups + 1, sizeof *p->groups) ||
      !mem_grow(a, &e->groups, &e->groups_capacity, e->n_groups + 1, sizeof *e->groups))
    return fail(err, UNROLL_E_MEMORY, "out of memory for the groups of a graph");
  e->groups[e->n_groups] = (group){.device = device};
  p->groups[p->n_groups++] =
      (planned_group){.device = device, .group = e->n_groups, .graph = g, .scan = scan, .private_group = private_group};
  *id = e->n_groups++;
  return UNROLL_OK;
}

/* Does a node of that taker go into the group that was begun last? */
static bool joins(const plan *p, uint32_t current, const taker *takers, taker who) {
  if (current == GRAPH_NONE || p->groups[current].device != who.device)
    return false;
  const planned_group *last = &p->groups[current];
  const bool private_group = who.group != UNROLL_GROUP_HOST;
  return last->private_group == private_group && (!private_group || takers[last->nodes[0]].group == who.group);
}

static unroll_status group_add(plan *p, uint32_t group_id, uint32_t node_id, unroll_error *err) {
  planned_group *g = &p->groups[group_id];
  if (!mem_grow(&p->exe->ctx->allocator, &g->nodes, &g->nodes_capacity, g->n_nodes + 1, sizeof *g->nodes))
    return fail(err, UNROLL_E_MEMORY, "out of memory for the groups of a graph");
  g->nodes[g->n_nodes++] = node_id;
  return UNROLL_OK;
}

/* ---- the graph outside of scans ---- */

static const unroll_graph *graph_of(const plan *p) { return p->exe->graph; }

/* The device of the first of the nodes that read t; NO_DEVICE: none does but a view. */
static uint32_t reader_in(const unroll_graph *g, const taker *takers, uint32_t t) {
  for (uint32_t k = 0; k < g->n_nodes; k++)
    if (takers[k].device != NO_DEVICE && node_reads(&g->nodes[k], t))
      return takers[k].device;
  return NO_DEVICE;
}

/* The device that reads an outside tensor first: itself, a view of it, or its steps in a scan that is unrolled. */
static uint32_t first_reader(const plan *p, uint32_t t) {
  const unroll_graph *g = graph_of(p);
  uint32_t device = NO_DEVICE;
  for (uint32_t k = 0; k < g->n_nodes && device == NO_DEVICE; k++) {
    const node *n = &g->nodes[k];
    const unroll_graph *b = n->body;
    if (!node_reads(n, t))
      continue;
    if (p->takers[k].device != NO_DEVICE)
      return p->takers[k].device;
    if (is_host_view(n))
      device = first_reader(p, n->out[0]);
    for (uint32_t i = 0; b && i < b->n_inputs + b->n_captures && device == NO_DEVICE; i++) {
      const scan_edge *edge = i < b->n_inputs ? &b->inputs[i] : &b->captures[i - b->n_inputs];
      if (edge->outer == t)
        device = reader_in(b, p->body_takers[k], edge->inner);
    }
    for (uint32_t i = 0; b && i < b->n_carries && device == NO_DEVICE; i++)
      if (b->carries[i].init == t)
        device = p->body_takers[k][b->tensors[b->carries[i].next].producer].device;
  }
  return device;
}

static unroll_status plan_outsides(plan *p, unroll_error *err) {
  const unroll_graph *g = graph_of(p);
  unroll_executable *e = p->exe;
  for (uint32_t i = 0; i < g->n_tensors; i++) {
    const tensor *t = &g->tensors[i];
    if (t->role == UNROLL_ROLE_TEMP)
      continue;
    uint32_t home = t->role == UNROLL_ROLE_OUTPUT ? p->takers[t->producer].device : first_reader(p, i);
    home = home == NO_DEVICE ? 0 : home;
    outside *o = &e->outsides[e->n_outsides];
    *o = (outside){.tensor = i, .device = home, .bytes = spec_bytes(&t->spec), .updated = t->update != GRAPH_NONE};
    o->row_bytes = t->spec.rank && t->spec.dim[0] >= 0 ? o->bytes / (uint64_t)t->spec.shape[0] : o->bytes;
    uint32_t id;
    TRY(add_object(p, o->bytes, e->n_outsides, home, &id, err));
    p->refs[i] = (ref){.object = id, .device = home};
    e->n_outsides++;
  }
  return UNROLL_OK;
}

/* May the value of an update be written over the old one, with nobody reading that any more? */
static bool in_place(const plan *p, const uint32_t *order, uint32_t target, uint32_t value, const bool *taken) {
  const unroll_graph *g = graph_of(p);
  const tensor *v = &g->tensors[value];
  const uint32_t maker = v->producer;
  if (v->role != UNROLL_ROLE_TEMP || taken[value] || maker == GRAPH_NONE ||
      p->takers[maker].device != p->exe->objects[p->refs[target].object].home ||
      p->takers[maker].group != UNROLL_GROUP_HOST || g->nodes[maker].op == UNROLL_OP_SCAN)
    return false;
  bool after = false;
  for (uint32_t i = 0; i < g->n_nodes; i++) {
    const node *n = &g->nodes[order[i]];
    const bool is_maker = order[i] == maker;
    for (uint32_t k = 0; k < n->n_in; k++)
      if (n->in[k] != GRAPH_NONE && p->refs[n->in[k]].object == p->refs[target].object &&
          (after || (is_maker && n->op != UNROLL_OP_OPTIMIZER)))
        return false;
    after = after || is_maker;
  }
  return true;
}

/* A view stands where its source does. */
static void follow_view(const unroll_graph *g, ref *refs, const node *n) {
  ref r = refs[n->in[0]];
  if (r.object != GRAPH_NONE && n->op == UNROLL_OP_SLICE) {
    const tensor_spec *s = &g->tensors[n->in[0]].spec;
    r.offset += (uint64_t)n->attr.slice.start * (spec_bytes(s) / (uint64_t)s->shape[0]);
  }
  refs[n->out[0]] = r;
}

/* What a view, of a view, .. is a view of; else t itself. */
static uint32_t source_of(const unroll_graph *g, uint32_t t) {
  while (g->tensors[t].producer != GRAPH_NONE && is_host_view(&g->nodes[g->tensors[t].producer]))
    t = g->nodes[g->tensors[t].producer].in[0];
  return t;
}

/* One past the place in the order of the last node of the private group whose node stands at `first`. */
static uint32_t group_end(const unroll_graph *g, const taker *takers, const uint32_t *order, uint32_t first) {
  const taker who = takers[order[first]];
  uint32_t end = first + 1;
  for (uint32_t i = end; i < g->n_nodes; i++)
    if (takers[order[i]].device == who.device && takers[order[i]].group == who.group)
      end = i + 1;
    else if (!is_host_view(&g->nodes[order[i]]))
      break;
  return end;
}

/* Made and read within one private group: the plugin's business. */
static bool is_internal(const unroll_graph *g, const taker *takers, uint32_t t) {
  const taker maker = takers[g->tensors[t].producer];
  if (maker.group == UNROLL_GROUP_HOST || g->tensors[t].role != UNROLL_ROLE_TEMP)
    return false;
  for (uint32_t i = 0; i < g->n_tensors; i++)
    if (g->tensors[i].update == t)
      return false;
  for (uint32_t i = 0; i < g->n_nodes; i++)
    if ((takers[i].device != maker.device || takers[i].group != maker.group) && node_reads(&g->nodes[i], t))
      return false;
  return true;
}

static unroll_status plan_node(plan *p, uint32_t group_id, uint32_t node_id, unroll_error *err) {
  const unroll_graph *g = graph_of(p);
  const node *n = &g->nodes[node_id];
  const uint32_t d = p->takers[node_id].device;
  for (uint32_t k = 0; k < n->n_out; k++) {
    ref *r = &p->refs[n->out[k]];
    if (n->out[k] == GRAPH_NONE || is_internal(g, p->takers, n->out[k]))
      continue;
    if (r->object == GRAPH_NONE) {
      TRY(add_object(p, spec_bytes(&g->tensors[n->out[k]].spec), GRAPH_NONE, d, &r->object, err));
      r->device = d;
    }
    touch(p, r->object, d);
    for (uint32_t x = 0; x < p->exe->devices.n; x++)
      p->exe->objects[r->object].at[x].valid = false;
  }
  for (uint32_t k = 0; k < n->n_in; k++)
    if (n->in[k] != GRAPH_NONE && p->refs[n->in[k]].object != GRAPH_NONE)
      touch(p, p->refs[n->in[k]].object, d);
  return group_add(p, group_id, node_id, err);
}

/* ---- unrolled scans ---- */

typedef struct body_plan {
  plan *p;
  const unroll_graph *b;
  const taker *takers;
  const uint32_t *order;
  ref *refs;
  uint32_t scan, *carry_home;
  bool *carry_history;
} body_plan;

static uint32_t home_of(const body_plan *bp, uint32_t t) {
  const uint32_t maker = bp->b->tensors[t].producer;
  return maker == GRAPH_NONE || bp->takers[maker].device == NO_DEVICE ? 0 : bp->takers[maker].device;
}

static uint32_t carry_of_next(const unroll_graph *b, uint32_t t) {
  for (uint32_t i = 0; i < b->n_carries; i++)
    if (b->carries[i].next == t)
      return i;
  return GRAPH_NONE;
}
static uint32_t carry_of_in(const unroll_graph *b, uint32_t t) {
  for (uint32_t i = 0; i < b->n_carries; i++)
    if (b->carries[i].in == t)
      return i;
  return GRAPH_NONE;
}

/* Memory of the carries, and of the per-step outputs that are carries. */
static unroll_status plan_carries(body_plan *bp, unroll_error *err) {
  plan *p = bp->p;
  const unroll_graph *b = bp->b;
  const bool reverse = b->direction == UNROLL_REVERSE;
  for (uint32_t i = 0; i < b->n_outputs; i++) {
    uint32_t c = carry_of_next(b, b->outputs[i].inner);
    c = c == GRAPH_NONE ? carry_of_in(b, b->outputs[i].inner) : c;
    if (c != GRAPH_NONE)
      bp->carry_history[c] = true;
  }
  for (uint32_t i = 0; i < b->n_carries; i++) {
    const scan_carry *c = &b->carries[i];
    const uint64_t bytes = spec_bytes(&b->tensors[c->in].spec);
    const uint32_t home = bp->carry_home[i] = home_of(bp, c->next);
    uint32_t id;
    TRY(add_object(p, bytes * (bp->carry_history[i] ? (uint64_t)b->steps + 1 : 2), GRAPH_NONE, home, &id, err));
    touch(p, id, home);
    ref in = {.object = id, .device = home, .step = (int64_t)bytes}, next = in;
    if (bp->carry_history[i]) {
      in.offset = reverse ? bytes : 0;
      next.offset = reverse ? 0 : bytes;
    } else {
      in.period = next.period = 2;
      next.offset = bytes;
      next.step = -(int64_t)bytes;
    }
    bp->refs[c->in] = in;
    bp->refs[c->next] = next;
  }
  for (uint32_t i = 0; i < b->n_outputs; i++) {
    const scan_edge *o = &b->outputs[i];
    const bool is_carry = carry_of_next(b, o->inner) != GRAPH_NONE || carry_of_in(b, o->inner) != GRAPH_NONE;
    const uint64_t bytes = spec_bytes(&b->tensors[o->inner].spec);
    if (is_carry) {
      p->refs[o->outer] = bp->refs[o->inner];
      p->refs[o->outer].step = 0;
    } else {
      const uint32_t home = home_of(bp, o->inner);
      uint32_t id;
      TRY(add_object(p, bytes * (uint64_t)b->steps, GRAPH_NONE, home, &id, err));
      touch(p, id, home);
      p->refs[o->outer] = (ref){.object = id, .device = home};
      bp->refs[o->inner] = (ref){.object = id, .device = home, .step = (int64_t)bytes};
    }
  }
  return UNROLL_OK;
}

/* Where a body's tensor can be read on device d: as it is, or in a mirror that a stage of the step fills. */
static unroll_status step_read(body_plan *bp, item *loop, uint32_t t, uint32_t d, ref *mirror, unroll_error *err) {
  plan *p = bp->p;
  const tensor *x = &bp->b->tensors[t];
  const int32_t role = bp->b->tensors[source_of(bp->b, t)].role;
  const ref r = bp->refs[t];
  if (role == UNROLL_ROLE_CAPTURE || role == UNROLL_ROLE_STEP || r.device == d)
    return UNROLL_OK; /* brought whole, before the loop */
  if (r.object == GRAPH_NONE || mirror[t].object != GRAPH_NONE)
    return UNROLL_OK; /* made within a private group, or there */
  const uint64_t bytes = spec_bytes(&x->spec);
  uint32_t id;
  TRY(add_object(p, bytes, GRAPH_NONE, d, &id, err));
  touch(p, id, d);
  mirror[t] = (ref){.object = id, .device = d};
  const copy c = {r, mirror[t], bytes};
  loop->stages[loop->n_stages++] = (stage){STAGE_COPY, 0, c};
  count_crossing(p, &c);
  return UNROLL_OK;
}

static unroll_status plan_body_nodes(body_plan *bp, item *loop, ref *mirrors, unroll_error *err) {
  plan *p = bp->p;
  const unroll_graph *b = bp->b;
  uint32_t current = GRAPH_NONE;
  for (uint32_t i = 0; i < b->n_nodes; i++) {
    const uint32_t id = bp->order[i];
    const node *n = &b->nodes[id];
    if (is_host_view(n)) {
      follow_view(b, bp->refs, n);
      continue;
    }
    const taker who = bp->takers[id];
    const bool private_group = who.group != UNROLL_GROUP_HOST;
    const uint32_t end = private_group ? group_end(b, bp->takers, bp->order, i) : i + 1, n_before = loop->n_stages;
    for (uint32_t j = i; j < end; j++) { /* a private group is not interrupted: all that it reads comes before it */
      const node *x = &b->nodes[bp->order[j]];
      if (is_host_view(x))
        follow_view(b, bp->refs, x);
      for (uint32_t k = 0; !is_host_view(x) && k < x->n_in; k++)
        if (x->in[k] != GRAPH_NONE)
          TRY(step_read(bp, loop, x->in[k], who.device, mirrors + (uint64_t)who.device * b->n_tensors, err));
    }
    if (loop->n_stages != n_before)
      current = GRAPH_NONE;
    if (!joins(p, current, bp->takers, who)) {
      TRY(new_group(p, who.device, b, bp->scan, private_group, &current, err));
      loop->stages[loop->n_stages++] = (stage){.kind = STAGE_GROUP, .group = current};
    }
    for (uint32_t k = 0; k < n->n_out; k++) {
      if (n->out[k] == GRAPH_NONE)
        continue;
      ref *r = &bp->refs[n->out[k]];
      if (is_internal(b, bp->takers, n->out[k]) && r->object == GRAPH_NONE)
        continue;
      if (r->object == GRAPH_NONE) {
        TRY(add_object(p, spec_bytes(&b->tensors[n->out[k]].spec), GRAPH_NONE, who.device, &r->object, err));
        r->device = who.device;
      }
      touch(p, r->object, who.device);
    }
    TRY(group_add(p, current, id, err));
  }
  return UNROLL_OK;
}

static unroll_status bring_outer(body_plan *bp, unroll_error *err) {
  const unroll_graph *b = bp->b;
  for (uint32_t i = 0; i < b->n_nodes; i++)
    for (uint32_t k = 0; k < b->nodes[i].n_in; k++) {
      const uint32_t in = b->nodes[i].in[k], d = bp->takers[i].device;
      const uint32_t t = in == GRAPH_NONE ? GRAPH_NONE : source_of(b, in);
      for (uint32_t c = 0; t != GRAPH_NONE && d != NO_DEVICE && c < b->n_captures + b->n_inputs; c++) {
        const scan_edge *edge = c < b->n_captures ? &b->captures[c] : &b->inputs[c - b->n_captures];
        if (edge->inner == t)
          TRY(bring(bp->p, bp->p->refs[edge->outer].object, d, err));
      }
    }
  return UNROLL_OK;
}

static unroll_status plan_scan(plan *p, uint32_t scan, unroll_error *err) {
  const unroll_graph *g = graph_of(p), *b = g->nodes[scan].body;
  unroll_executable *e = p->exe;
  const unroll_allocator *a = &e->ctx->allocator;
  const uint32_t n_devices = e->devices.n;
  body_plan bp = {.p = p, .b = b, .takers = p->body_takers[scan], .scan = scan};
  unroll_status st = UNROLL_OK;
  item *loop = NULL;
  ref *mirrors = mem_array(a, (uint64_t)b->n_tensors * n_devices + 1, sizeof *mirrors);
  uint32_t *order = mem_array(a, (uint64_t)b->n_nodes + 1, sizeof *order);
  p->body_refs[scan] = mem_array(a, (uint64_t)b->n_tensors * n_devices + 1, sizeof **p->body_refs);
  bp.refs = mem_array(a, (uint64_t)b->n_tensors + 1, sizeof *bp.refs);
  bp.carry_home = mem_array(a, (uint64_t)b->n_carries + 1, sizeof *bp.carry_home);
  bp.carry_history = mem_array(a, (uint64_t)b->n_carries + 1, sizeof *bp.carry_history);
  if (!mirrors || !order || !p->body_refs[scan] || !bp.refs || !bp.carry_home || !bp.carry_history) {
    st = fail(err, UNROLL_E_MEMORY, "out of memory for the plan of %s", g->nodes[scan].name);
    goto done;
  }
  for (uint64_t i = 0; i < (uint64_t)b->n_tensors * n_devices; i++)
    mirrors[i] = NO_REF;
  for (uint32_t i = 0; i < b->n_tensors; i++)
    bp.refs[i] = NO_REF;
  TRY_GOTO(st, order_nodes(b, bp.takers, &e->devices, order, err), done);
  bp.order = order;

  /* What the steps read from outside stands whole on each device that reads it; the second time all is there, and lives
   * on. */
  for (int pass = 0; pass < 2; pass++)
    TRY_GOTO(st, bring_outer(&bp, err), done);
  for (uint32_t i = 0; i < b->n_captures; i++)
    bp.refs[b->captures[i].inner] = p->refs[b->captures[i].outer];
  for (uint32_t i = 0; i < b->n_inputs; i++) {
    ref r = p->refs[b->inputs[i].outer];
    r.step = (int64_t)spec_bytes(&b->tensors[b->inputs[i].inner].spec);
    bp.refs[b->inputs[i].inner] = r;
  }
  TRY_GOTO(st, plan_carries(&bp, err), done);

  TRY_GOTO(st, add_item(p, &loop, err), done);
  loop->kind = ITEM_LOOP;
  loop->direction = b->direction;
  loop->steps = b->steps;
  loop->steps_dim = b->steps_dim;
  loop->t0 = g->nodes[scan].attr.scan.t0;
  loop->starts = mem_array(a, (uint64_t)b->n_carries + 1, sizeof *loop->starts);
  loop->ends = mem_array(a, (uint64_t)b->n_carries + 1, sizeof *loop->ends);
  uint32_t n_edges = b->n_nodes;
  for (uint32_t i = 0; i < b->n_nodes; i++)
    n_edges += b->nodes[i].n_in;
  loop->stages = mem_array(a, (uint64_t)n_edges + 1, sizeof *loop->stages);
  if (!loop->starts || !loop->ends || !loop->stages) {
    st = fail(err, UNROLL_E_MEMORY, "out of memory for the plan of %s", g->nodes[scan].name);
    goto done;
  }
  for (uint32_t i = 0; i < b->n_carries; i++) {
    const ref init = p->refs[b->carries[i].init];
    const copy c = {init, bp.refs[b->carries[i].in], spec_bytes(&b->tensors[b->carries[i].in].spec)};
    touch(p, init.object, init.device);
    count_crossing(p, &c);
    loop->starts[loop->n_starts++] = c;
  }
  TRY_GOTO(st, plan_body_nodes(&bp, loop, mirrors, err), done);
  for (uint32_t i = 0; i < b->n_carries; i++) {
    const uint32_t last = b->carries[i].last;
    bool read = false;
    for (uint32_t k = 0; k < g->n_nodes && !read; k++)
      read = node_reads(&g->nodes[k], last);
    if (!read)
      continue;
    ref r = {.device = bp.carry_home[i]};
    const uint64_t bytes = spec_bytes(&g->tensors[last].spec);
    TRY_GOTO(st, add_object(p, bytes, GRAPH_NONE, r.device, &r.object, err), done);
    touch(p, r.object, r.device);
    p->refs[last] = r;
    loop->ends[loop->n_ends++] = (copy){bp.refs[b->carries[i].next], r, bytes};
  }
  for (uint32_t d = 0; d < n_devices; d++) /* where each device looks */
    for (uint32_t t = 0; t < b->n_tensors; t++) {
      const uint64_t k = (uint64_t)d * b->n_tensors + t;
      p->body_refs[scan][k] = mirrors[k].object == GRAPH_NONE ? bp.refs[t] : mirrors[k];
    }
  p->position++;
done:
  mem_free(a, mirrors);
  mem_free(a, order);
  mem_free(a, bp.refs);
  mem_free(a, bp.carry_home);
  mem_free(a, bp.carry_history);
  return st;
}

/* ---- all of it ---- */

static unroll_status plan_updates(plan *p, const uint32_t *order, unroll_error *err) {
  const unroll_graph *g = graph_of(p);
  bool *taken = mem_array(&p->exe->ctx->allocator, (uint64_t)g->n_tensors + 1, sizeof *taken);
  if (!taken)
    return fail(err, UNROLL_E_MEMORY, "out of memory for the plan of a graph");
  for (uint32_t i = 0; i < g->n_tensors; i++) {
    const uint32_t value = g->tensors[i].update;
    if (value == GRAPH_NONE || !in_place(p, order, i, value, taken))
      continue;
    taken[value] = true;
    p->refs[value] = p->refs[i];
  }
  mem_free(&p->exe->ctx->allocator, taken);
  return UNROLL_OK;
}

static unroll_status copy_updates(plan *p, unroll_error *err) {
  const unroll_graph *g = graph_of(p);
  for (uint32_t i = 0; i < g->n_tensors; i++) {
    const uint32_t value = g->tensors[i].update;
    if (value == GRAPH_NONE || p->refs[value].object == p->refs[i].object)
      continue;
    const ref from = p->refs[value], to = p->refs[i];
    touch(p, from.object, from.device);
    touch(p, to.object, to.device);
    const copy c = {from, to, spec_bytes(&g->tensors[i].spec)};
    TRY(add_copy(p, &c, err));
    p->position++;
  }
  return UNROLL_OK;
}

enum { NEAR = 32 };

/*
 * A layer that has nothing to do with a layer shortly before it, as the other direction of a bidirectional one, may run at the
 * same time, if the device likes: so what that one uses is not given away before this one is done.
 */
static void keep_apart(plan *p, const uint32_t *order, uint32_t at) {
  const unroll_graph *g = graph_of(p);
  const uint32_t d = p->takers[order[at]].device;
  bool reaches[NEAR + 1]; /* this layer, from the node so many places before it */
  reaches[0] = true;
  for (uint32_t back = 1; back <= NEAR && back <= at; back++) {
    const node *x = &g->nodes[order[at - back]];
    reaches[back] = false;
    for (uint32_t k = 0; k < back && !reaches[back]; k++)
      for (uint32_t i = 0; i < x->n_out && !reaches[back]; i++)
        reaches[back] = reaches[k] && x->out[i] != GRAPH_NONE && node_reads(&g->nodes[order[at - k]], x->out[i]);
    if (!is_layer(x) || reaches[back] || p->takers[order[at - back]].device != d)
      continue;
    for (uint32_t i = 0; i < x->n_in + x->n_out; i++) {
      const uint32_t t = i < x->n_in ? x->in[i] : x->out[i - x->n_in];
      if (t != GRAPH_NONE && p->refs[t].object != GRAPH_NONE)
        touch(p, p->refs[t].object, d);
    }
  }
}

static unroll_status plan_nodes(plan *p, const uint32_t *order, unroll_error *err) {
  const unroll_graph *g = graph_of(p);
  uint32_t current = GRAPH_NONE;
  for (uint32_t i = 0; i < g->n_nodes; i++) {
    const uint32_t id = order[i];
    const node *n = &g->nodes[id];
    const taker who = p->takers[id];
    if (is_host_view(n)) {
      follow_view(g, p->refs, n);
      continue;
    }
    if (who.device == NO_DEVICE) {
      TRY(plan_scan(p, id, err));
      current = GRAPH_NONE;
      continue;
    }
    const bool private_group = who.group != UNROLL_GROUP_HOST;
    const uint32_t end = private_group ? group_end(g, p->takers, order, i) : i + 1, n_items = p->exe->n_items;
    for (uint32_t j = i; j < end; j++) { /* a private group is not interrupted: all that it reads comes before it */
      const node *x = &g->nodes[order[j]];
      if (is_host_view(x))
        follow_view(g, p->refs, x);
      for (uint32_t k = 0; !is_host_view(x) && k < x->n_in; k++)
        if (x->in[k] != GRAPH_NONE && p->refs[x->in[k]].object != GRAPH_NONE)
          TRY(bring(p, p->refs[x->in[k]].object, who.device, err));
    }
    if (p->exe->n_items != n_items)
      current = GRAPH_NONE;
    if (!joins(p, current, p->takers, who)) {
      item *it = NULL;
      TRY(new_group(p, who.device, g, GRAPH_NONE, private_group, &current, err));
      TRY(add_item(p, &it, err));
      it->kind = ITEM_STAGE;
      it->stage = (stage){.kind = STAGE_GROUP, .group = current};
    }
    TRY(plan_node(p, current, id, err));
    if (is_layer(n) && !n->again && !n->attr.layer.segment) /* these are there to save memory */
      keep_apart(p, order, i);
    if (i + 1 == end) /* a private group runs as one: all of it lives at one position */
      p->position++;
  }
  return UNROLL_OK;
}

unroll_status plan_make(plan *p, unroll_error *err) {
  const unroll_graph *g = graph_of(p);
  const unroll_allocator *a = &p->exe->ctx->allocator;
  unroll_executable *e = p->exe;
  uint32_t n_outside = 0;
  for (uint32_t i = 0; i < g->n_tensors; i++)
    n_outside += g->tensors[i].role != UNROLL_ROLE_TEMP;
  e->outsides = mem_array(a, (uint64_t)n_outside + 1, sizeof *e->outsides);
  e->arenas = mem_array(a, e->devices.n, sizeof *e->arenas);
  e->n_arenas = mem_array(a, e->devices.n, sizeof *e->n_arenas);
  e->workspace_bytes = mem_array(a, e->devices.n, sizeof *e->workspace_bytes);
  p->refs = mem_array(a, (uint64_t)g->n_tensors + 1, sizeof *p->refs);
  p->body_refs = mem_array(a, (uint64_t)g->n_nodes + 1, sizeof *p->body_refs);
  uint32_t *order = mem_array(a, (uint64_t)g->n_nodes + 1, sizeof *order);
  unroll_status st = UNROLL_OK;
  if (!e->outsides || !e->arenas || !e->n_arenas || !e->workspace_bytes || !p->refs || !p->body_refs || !order) {
    st = fail(err, UNROLL_E_MEMORY, "out of memory for the plan of a graph");
    goto done;
  }
  for (uint32_t i = 0; i < g->n_tensors; i++)
    p->refs[i] = NO_REF;
  TRY_GOTO(st, order_nodes(g, p->takers, &e->devices, order, err), done);
  TRY_GOTO(st, plan_outsides(p, err), done);
  for (uint32_t i = 0; i < g->n_nodes; i++) /* views of outside tensors, before updates are looked at */
    if (is_host_view(&g->nodes[i]))
      follow_view(g, p->refs, &g->nodes[i]);
  TRY_GOTO(st, plan_updates(p, order, err), done);
  TRY_GOTO(st, plan_nodes(p, order, err), done);
  TRY_GOTO(st, copy_updates(p, err), done);
  st = arena_assign(e, err);
done:
  mem_free(a, order);
  return st;
}

void plan_free(plan *p) {
  const unroll_allocator *a = &p->exe->ctx->allocator;
  for (uint32_t i = 0; p->body_refs && i < graph_of(p)->n_nodes; i++)
    mem_free(a, p->body_refs[i]);
  for (uint32_t i = 0; i < p->n_groups; i++)
    mem_free(a, p->groups[i].nodes);
  mem_free(a, p->body_refs);
  mem_free(a, p->refs);
  mem_free(a, p->groups);
}
