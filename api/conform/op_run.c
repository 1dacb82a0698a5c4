/* SPDX-License-Identifier: Apache-2.0 */
/* One case on one device: as a host lays it out (op_run), or as plain static nodes (op_run_plain). */
#include "base/base_private.h"
#include "conform/op_cases.h"
#include <stdio.h>
#include <string.h>

#define GUARD 0xA5

static int32_t real_dtype(int32_t of, int32_t dtype) { return of == OP_REAL ? dtype : of; }

static uint64_t storage_bytes(const op_case *c, uint32_t s, int32_t dtype) {
  const op_storage *storage = &c->storages[s];
  return (uint64_t)(storage->unit * storage->units) * unroll_dtype_size(real_dtype(storage->dtype, dtype));
}

static uint64_t align_up(uint64_t n, uint64_t alignment) { return (n + alignment - 1) / alignment * alignment; }

/* The view of a case, and what it points to. */
typedef struct case_graph {
  unroll_graph_view view;
  unroll_node_view nodes[OP_MAX_NODES];
  unroll_tensor_view tensors[OP_MAX_TENSORS];
  uint32_t edges[OP_MAX_NODES * 2 * OP_MAX_EDGES + 2 * OP_MAX_TENSORS];
  int64_t dim_min, dim_max;
  char names[OP_MAX_TENSORS][16];
} case_graph;

/* As the host has it: of what version 1 did not have. */
static uint32_t version_of(const op_node *n) {
  switch (n->op) {
  case UNROLL_OP_REDUCE: return n->n_in > 1 ? 2 : 1;
  case UNROLL_OP_DROPOUT: return n->attr.dropout.t0 != 0 ? 2 : 1;
  case UNROLL_OP_CATEGORICAL: return n->attr.categorical.top_p > 0 ? 2 : 1;
  case UNROLL_OP_LSTM_GATES: return n->n_in > 2 ? 2 : 1;
  case UNROLL_OP_LSTM_GATES_GRAD: return n->n_in > 4 ? 2 : 1;
  default: return 1;
  }
}

static void add_nodes(case_graph *g, const op_case *c, uint32_t *n_edges) {
  for (uint32_t i = 0; i < c->n_nodes; i++) {
    const op_node *n = &c->nodes[i];
    unroll_node_view *v = &g->nodes[i];
    *v = (unroll_node_view){.op = n->op,
                            .op_version = version_of(n),
                            .layer = c->is_template ? 0 : -1,
                            .direction = c->is_template ? c->direction : -1,
                            .body = UNROLL_NO_BODY,
                            .cell = UNROLL_CELL_NONE,
                            .attr = n->attr_size ? &n->attr : NULL,
                            .attr_size = n->attr_size,
                            .name = c->name};
    v->first_in = *n_edges;
    v->n_in = n->n_in;
    memcpy(g->edges + *n_edges, n->in, n->n_in * sizeof *n->in);
    *n_edges += n->n_in;
    v->first_out = *n_edges;
    v->n_out = n->n_out;
    memcpy(g->edges + *n_edges, n->out, n->n_out * sizeof *n->out);
    *n_edges += n->n_out;
  }
}

static const char *op_name(uint32_t op) {
  switch (op) {
#define NAME(name, value, text) \
  case name: return text;
    UNROLL_OPS(NAME)
#undef NAME
  default: return "an unknown op";
  }
}

/* The tensor that the next step finds as t: of a carry, another one in the same storage. NULL: t is no carry. */
static const op_tensor *next_of(const op_case *c, const op_tensor *t) {
  for (uint32_t i = 0; c->is_template && t->is_input && i < c->n_tensors; i++)
    if (!c->tensors[i].is_input && c->tensors[i].storage == t->storage && c->tensors[i].alias < 0)
      return &c->tensors[i];
  return NULL;
}

static int32_t role_of(const op_case *c, const op_tensor *t, int is_plain) {
  if (!t->is_input)
    return c->storages[t->storage].is_internal ? UNROLL_ROLE_TEMP : UNROLL_ROLE_OUTPUT;
  if (!c->is_template || is_plain)
    return UNROLL_ROLE_INPUT;
  if (next_of(c, t))
    return UNROLL_ROLE_CARRY;
  return t->step ? UNROLL_ROLE_STEP : UNROLL_ROLE_CAPTURE;
}

/* Inputs and outputs in the order that SCAN gives them: carries first, in one order on both sides. */
static uint32_t list_ends(case_graph *g, const op_case *c, uint32_t n_edges) {
  static const int32_t order[] = {UNROLL_ROLE_INPUT, UNROLL_ROLE_CARRY, UNROLL_ROLE_STEP, UNROLL_ROLE_CAPTURE};
  const int is_plain = !g->view.is_template;
  g->view.first_in = n_edges;
  for (size_t k = 0; k < sizeof order / sizeof *order; k++)
    for (uint32_t i = 0; i < c->n_tensors; i++)
      if (c->tensors[i].is_input && role_of(c, &c->tensors[i], is_plain) == order[k])
        g->edges[n_edges++] = i;
  g->view.n_in = n_edges - g->view.first_in;
  g->view.first_out = n_edges;
  uint32_t listed = 0;
  for (uint32_t i = 0; i < c->n_tensors && !is_plain; i++) {
    const op_tensor *next = next_of(c, &c->tensors[i]);
    if (next) {
      g->edges[n_edges++] = (uint32_t)(next - c->tensors);
      listed |= 1u << (next - c->tensors);
    }
  }
  for (uint32_t i = 0; i < c->n_tensors; i++)
    if (!(listed >> i & 1) && role_of(c, &c->tensors[i], is_plain) == UNROLL_ROLE_OUTPUT)
      g->edges[n_edges++] = i;
  g->view.n_out = n_edges - g->view.first_out;
  return n_edges;
}

/* is_plain: no template, no run-time size. Slots and offsets are the caller's. */
static void make_graph(case_graph *g, const op_case *c, int32_t dtype, int is_plain) {
  memset(g, 0, sizeof *g);
  uint32_t n_edges = 0;
  add_nodes(g, c, &n_edges);
  int has_dim = c->dim_max && !is_plain;
  for (uint32_t i = 0; i < c->n_tensors; i++) {
    const op_tensor *t = &c->tensors[i];
    unroll_tensor_view *v = &g->tensors[i];
    v->dtype = real_dtype(t->dtype, dtype);
    v->rank = t->shape.rank;
    v->role = role_of(c, t, is_plain);
    v->slot = UNROLL_NO_SLOT;
    v->alias = is_plain ? -1 : t->alias;
    int64_t stride = 1;
    for (int32_t a = UNROLL_MAX_RANK - 1; a >= 0; a--) {
      v->dim[a] = -1;
      if (a >= v->rank)
        continue;
      v->shape[a] = t->shape.n[a];
      v->stride[a] = stride;
      stride *= v->shape[a];
    }
    if (t->is_dynamic && has_dim)
      v->dim[0] = 0;
    else if (t->is_dynamic)
      v->shape[0] = v->shape[0] / c->dim_max * c->dim;
    snprintf(g->names[i], sizeof g->names[i], "t%u", (unsigned)i);
    v->name = g->names[i];
  }
  unroll_graph_view *v = &g->view;
  *v = (unroll_graph_view){.struct_size = sizeof *v,
                           .node_stride = sizeof *g->nodes,
                           .tensor_stride = sizeof *g->tensors,
                           .n_nodes = c->n_nodes,
                           .n_tensors = c->n_tensors,
                           .is_template = c->is_template && !is_plain,
                           .n_dims = has_dim ? 1 : 0,
                           .dim_min = &g->dim_min,
                           .dim_max = &g->dim_max,
                           .nodes = g->nodes,
                           .tensors = g->tensors,
                           .edges = g->edges};
  g->dim_min = 1;
  g->dim_max = c->dim_max;
  n_edges = list_ends(g, c, n_edges);
  v->n_edges = n_edges;
}

/* The graph of some of the nodes, as a host hands it to compile: other tensors stay in the table, but have no slot. */
static void make_part(case_graph *part, const case_graph *whole, uint32_t nodes) {
  int is_used[OP_MAX_TENSORS] = {0};
  *part = *whole;
  part->view.n_nodes = 0;
  for (uint32_t i = 0; i < whole->view.n_nodes; i++) {
    const unroll_node_view *n = &whole->nodes[i];
    if (!(nodes >> i & 1))
      continue;
    part->nodes[part->view.n_nodes++] = *n;
    for (uint32_t e = n->first_in; e < n->first_out + n->n_out; e++) /* outputs stand behind the inputs */
      if (whole->edges[e] != UNROLL_NO_TENSOR)
        is_used[whole->edges[e]] = 1;
  }
  for (uint32_t i = 0; i < whole->view.n_tensors; i++)
    if (!is_used[i])
      part->tensors[i].slot = UNROLL_NO_SLOT;
  part->view.nodes = part->nodes;
  part->view.tensors = part->tensors;
  part->view.edges = part->edges;
  part->view.dim_min = &part->dim_min;
  part->view.dim_max = &part->dim_max;
}

/* A group of the claim, compiled and bound by itself. */
typedef struct run_part {
  uint32_t nodes; /* a bit per node */
  unroll_backend_exec *exec;
  unroll_backend_binding *binding;
  unroll_backend_buffer *workspace;
} run_part;

/* What a run holds; released in one place whatever went wrong. */
typedef struct run_state {
  const op_target *target;
  run_part parts[OP_MAX_NODES];
  uint32_t n_parts;
  unroll_backend_buffer *buffers[OP_MAX_TENSORS];
  uint8_t *bytes; /* of the largest buffer */
} run_state;

static void run_release(run_state *r) {
  const unroll_backend_ops *ops = r->target->ops;
  for (uint32_t i = 0; i < OP_MAX_NODES; i++) {
    ops->binding_destroy(r->parts[i].binding);
    ops->exec_destroy(r->parts[i].exec);
    ops->buffer_destroy(r->parts[i].workspace);
  }
  for (uint32_t i = 0; i < OP_MAX_TENSORS; i++)
    ops->buffer_destroy(r->buffers[i]);
  mem_free(r->target->allocator, r->bytes);
}

static int broken(unroll_error *err, unroll_status status, const char *what) {
  if (err->code == UNROLL_OK) {
    err->code = status ? status : UNROLL_E_INTERNAL;
    snprintf(err->message, sizeof err->message, "%s gave status %d and no message", what, (int)status);
  } else {
    char said[sizeof err->message];
    memcpy(said, err->message, sizeof said);
    said[sizeof said - 1] = 0;
    snprintf(err->message, sizeof err->message, "%s: %.200s", what, said);
  }
  return OP_BROKEN;
}

static int broken_because(unroll_error *err, const char *what) {
  err->code = UNROLL_E_INTERNAL;
  snprintf(err->message, sizeof err->message, "%s", what);
  return OP_BROKEN;
}

/* The claim, as the groups of r; is_private: one group, whose inner tensors are the backend's; is_fixed: no run-time sizes. */
static int claim_all(run_state *r, const case_graph *g, int *is_private, int *is_fixed, unroll_error *err) {
  const op_target *target = r->target;
  unroll_claim claims[OP_MAX_NODES];
  uint32_t groups[OP_MAX_NODES] = {0};
  uint64_t left = 0;
  memset(claims, 0, sizeof claims);
  unroll_status status = target->ops->claim(target->device, &g->view, claims, sizeof *claims, err);
  if (status)
    return broken(err, status, "claim");
  r->n_parts = 0;
  for (uint32_t i = 0; i < g->view.n_nodes; i++) {
    if (!claims[i].group) {
      snprintf(err->message, sizeof err->message, "node %u, %s, is not claimed", (unsigned)i, op_name(g->nodes[i].op));
      left |= UINT64_C(1) << g->nodes[i].op;
      continue;
    }
    uint32_t part = 0;
    while (part < r->n_parts && groups[part] != claims[i].group)
      part++;
    if (part == r->n_parts)
      groups[r->n_parts++] = claims[i].group;
    r->parts[part].nodes |= 1u << i;
    *is_fixed |= (claims[i].flags & UNROLL_CLAIM_FIXED_DIMS) != 0;
  }
  err->native = (int64_t)left;
  if (left)
    return OP_DECLINED;
  *is_private = r->n_parts == 1 && groups[0] != UNROLL_GROUP_HOST;
  return OP_RAN;
}

static int has_dtypes(const op_target *target, const case_graph *g, unroll_error *err) {
  for (uint32_t i = 0; i < g->view.n_tensors; i++)
    if (!(target->dtypes >> g->tensors[i].dtype & 1)) {
      snprintf(err->message, sizeof err->message, "the device has no %s", unroll_dtype_name(g->tensors[i].dtype));
      return 0;
    }
  return 1;
}

static int make_workspace(run_state *r, run_part *part, unroll_error *err) {
  const unroll_backend_ops *ops = r->target->ops;
  unroll_exec_info info;
  memset(&info, 0, sizeof info);
  info.struct_size = sizeof info;
  unroll_status status = ops->exec_info(part->exec, &info, err);
  if (status)
    return broken(err, status, "exec_info");
  if (!info.workspace_bytes)
    return OP_RAN;
  status = ops->buffer_create(r->target->device, info.workspace_bytes, 0, &part->workspace, err);
  if (status)
    return broken(err, status, "buffer_create");
  /* Scratch is undefined between runs: let it be the worst there is. */
  status = ops->fill(r->target->queue, part->workspace, 0, info.workspace_bytes, 0xFF, NULL, err);
  return status ? broken(err, status, "fill") : OP_RAN;
}

/* Compiles and binds a part. The view has its nodes alone; a slot that none of its tensors has is not given. */
static int prepare(run_state *r, run_part *part, const case_graph *g, const unroll_slot *slots, uint32_t n_slots,
                   unroll_error *err) {
  const unroll_backend_ops *ops = r->target->ops;
  unroll_status status = ops->compile(r->target->device, &g->view, NULL, 0, &part->exec, err);
  if (status)
    return broken(err, status, "compile");
  int result = make_workspace(r, part, err);
  if (result)
    return result;
  unroll_slot own[OP_MAX_TENSORS];
  memset(own, 0, sizeof own);
  for (uint32_t s = 0; s < n_slots; s++) {
    own[s].struct_size = sizeof *own;
    for (uint32_t i = 0; i < g->view.n_tensors; i++)
      if (g->tensors[i].slot == s)
        own[s] = slots[s];
  }
  status = ops->bind(part->exec, own, n_slots, sizeof *own, part->workspace, 0, &part->binding, err);
  return status ? broken(err, status, "bind") : OP_RAN;
}

/* All parts, one after another; of a template one time step after another where there are several. */
static int execute(run_state *r, const unroll_run_args *args, unroll_error *err) {
  const unroll_backend_ops *ops = r->target->ops;
  const int by_steps = r->n_parts > 1 && args->count > 1;
  unroll_run_args one = *args;
  if (by_steps)
    one.count = 1;
  for (int64_t i = 0; i < (by_steps ? args->count : 1); i++) {
    for (uint32_t p = 0; p < r->n_parts; p++) {
      unroll_status status = ops->run(r->parts[p].binding, r->target->queue, &one, NULL, err);
      if (status)
        return broken(err, status, "run");
    }
    one.first += args->direction == UNROLL_REVERSE ? -1 : 1;
  }
  unroll_status status = ops->queue_sync(r->target->queue, err);
  return status ? broken(err, status, "queue_sync") : OP_RAN;
}

static unroll_run_args run_args(const op_case *c) {
  return (unroll_run_args){.struct_size = sizeof(unroll_run_args),
                           .seed = c->seed,
                           .update = c->update,
                           .t0 = c->t0,
                           .row0 = c->row0,
                           .direction = c->direction};
}

/*
 * layout: counts through the ways to place a storage. Its bytes begin at slot offset + view offset into the buffer, each 0 or
 * a multiple of the alignment; all around them are guard bytes.
 */
typedef struct place {
  uint64_t slot_offset, view_offset, bytes, total;
} place;

static place place_of(const op_target *target, const op_case *c, uint32_t s, int32_t dtype, uint32_t layout) {
  uint64_t a = target->alignment > 64 ? target->alignment : 64;
  place p = {0, 0, storage_bytes(c, s, dtype), 0};
  switch ((layout + s) % 4) {
  case 0: break;
  case 1: p.slot_offset = a; break;
  case 2: p.view_offset = 3 * a; break;
  default: p.slot_offset = 2 * a; p.view_offset = a;
  }
  p.total = align_up(p.slot_offset + p.view_offset + p.bytes, a) + a;
  return p;
}

static int write_storage(run_state *r, uint32_t s, const place *p, const void *data, unroll_error *err) {
  const unroll_backend_ops *ops = r->target->ops;
  unroll_status status = ops->buffer_create(r->target->device, p->total, 0, &r->buffers[s], err);
  if (status)
    return broken(err, status, "buffer_create");
  memset(r->bytes, GUARD, p->total);
  memcpy(r->bytes + p->slot_offset + p->view_offset, data, p->bytes);
  status = ops->write(r->target->queue, r->buffers[s], 0, r->bytes, p->total, NULL, err);
  return status ? broken(err, status, "write") : OP_RAN;
}

static int read_storage(run_state *r, uint32_t s, const place *p, void *data, unroll_error *err) {
  memset(r->bytes, 0, p->total);
  unroll_status status = r->target->ops->read(r->target->queue, r->buffers[s], 0, r->bytes, p->total, NULL, err);
  if (status)
    return broken(err, status, "read");
  uint64_t first = p->slot_offset + p->view_offset;
  for (uint64_t i = 0; i < p->total; i++)
    if ((i < first || i >= first + p->bytes) && r->bytes[i] != GUARD) {
      err->code = UNROLL_E_INTERNAL;
      snprintf(err->message, sizeof err->message, "guard byte %lld of storage %u (%llu bytes) was written",
               (long long)(i - first), (unsigned)s, (unsigned long long)p->bytes);
      return OP_BROKEN;
    }
  memcpy(data, r->bytes + first, p->bytes);
  return OP_RAN;
}

/* A carry's own storage is left behind when it moves into that of its input. */
static int is_used(const op_case *c, uint32_t s) {
  for (uint32_t t = 0; t < c->n_tensors; t++)
    if (c->tensors[t].storage == (int32_t)s)
      return 1;
  return 0;
}

static int run_laid_out(run_state *r, const op_case *c, int32_t dtype, uint32_t layout, void **data, uint32_t *internal,
                        unroll_error *err) {
  const op_target *target = r->target;
  case_graph g;
  make_graph(&g, c, dtype, 0);
  if (!has_dtypes(target, &g, err))
    return OP_UNSUPPORTED;
  int is_private = 0, is_fixed = 0;
  int result = claim_all(r, &g, &is_private, &is_fixed, err);
  if (result)
    return result;
  op_case fixed = *c;
  if (is_fixed && c->dim_max) {
    for (uint32_t i = 0; i < c->n_tensors; i++)
      if (c->tensors[i].is_dynamic)
        fixed.tensors[i].shape.n[0] = c->tensors[i].shape.n[0] / c->dim_max * c->dim;
    fixed.dim_max = c->dim;
    make_graph(&g, &fixed, dtype, 0);
    g.dim_min = c->dim;
  }
  place places[OP_MAX_TENSORS] = {{0}};
  uint64_t most = 0;
  *internal = 0;
  for (uint32_t s = 0; s < c->n_storages; s++) {
    places[s] = place_of(target, c, s, dtype, layout);
    most = places[s].total > most ? places[s].total : most;
    if (!is_used(c, s) || (is_private && c->storages[s].is_internal))
      *internal |= 1u << s;
  }
  for (uint32_t i = 0; i < c->n_tensors; i++) {
    const op_tensor *t = &c->tensors[i];
    unroll_tensor_view *v = &g.tensors[i];
    uint32_t s = (uint32_t)t->storage;
    if (*internal >> s & 1)
      continue;
    int64_t unit = c->storages[s].unit * (int64_t)unroll_dtype_size(v->dtype);
    v->slot = s;
    v->offset = places[s].view_offset + (uint64_t)(t->at * unit);
    v->step = t->step * unit;
    v->period = t->period;
  }
  g.view.n_slots = c->n_storages;
  r->bytes = mem_alloc(target->allocator, most);
  if (!r->bytes)
    return broken_because(err, "the judge is out of memory");
  unroll_slot slots[OP_MAX_TENSORS];
  memset(slots, 0, sizeof slots);
  for (uint32_t s = 0; s < c->n_storages; s++) {
    slots[s].struct_size = sizeof *slots;
    if (*internal >> s & 1)
      continue;
    result = write_storage(r, s, &places[s], data[s], err);
    if (result)
      return result;
    slots[s].buffer = r->buffers[s];
    slots[s].offset = places[s].slot_offset;
    slots[s].bytes = places[s].view_offset + places[s].bytes;
  }
  for (uint32_t p = 0; p < r->n_parts; p++) {
    case_graph part;
    make_part(&part, &g, r->parts[p].nodes);
    result = prepare(r, &r->parts[p], &part, slots, c->n_storages, err);
    if (result)
      return result;
  }
  unroll_run_args args = run_args(c);
  args.n_dims = c->dim_max ? 1 : 0;
  args.dims = &c->dim;
  args.first = c->first;
  args.count = c->is_template ? c->count : 1;
  result = execute(r, &args, err);
  for (uint32_t s = 0; s < c->n_storages; s++)
    if (c->is_template && c->storages[s].is_internal) /* nobody looks at what the step's nodes leave to each other */
      *internal |= 1u << s;
  for (uint32_t s = 0; s < c->n_storages && !result; s++)
    if (!(*internal >> s & 1))
      result = read_storage(r, s, &places[s], data[s], err);
  return result;
}

int op_run(const op_target *target, const op_case *c, int32_t dtype, uint32_t layout, void **data, uint32_t *internal,
           unroll_error *err) {
  run_state r = {.target = target};
  int result = run_laid_out(&r, c, dtype, layout, data, internal, err);
  run_release(&r);
  return result;
}

static int64_t unit_at(const op_tensor *t, int64_t step) {
  return t->at + (t->period ? step % (int64_t)t->period : step) * t->step;
}

/* One time step: every tensor from its place in the data to a buffer of its own, and the outputs back. */
static int run_step(run_state *r, const op_case *c, const case_graph *graph, int64_t t, int64_t t0, void **data,
                    unroll_error *err) {
  const unroll_backend_ops *ops = r->target->ops;
  case_graph g = *graph;
  g.view.dim_min = &g.dim_min;
  g.view.dim_max = &g.dim_max;
  g.view.nodes = g.nodes;
  g.view.tensors = g.tensors;
  g.view.edges = g.edges;
  unroll_slot slots[OP_MAX_TENSORS];
  memset(slots, 0, sizeof slots);
  uint8_t *places[OP_MAX_TENSORS];
  uint64_t bytes[OP_MAX_TENSORS];
  for (uint32_t i = 0; i < c->n_tensors; i++) {
    const op_tensor *tensor = &c->tensors[i];
    unroll_tensor_view *v = &g.tensors[i];
    uint64_t size = unroll_dtype_size(v->dtype);
    bytes[i] = size;
    for (int32_t a = 0; a < v->rank; a++)
      bytes[i] *= (uint64_t)v->shape[a];
    int64_t unit = unit_at(tensor, t) * c->storages[tensor->storage].unit;
    places[i] = (uint8_t *)data[tensor->storage] + (uint64_t)unit * size;
    v->slot = i;
    unroll_status status = ops->buffer_create(r->target->device, bytes[i], 0, &r->buffers[i], err);
    if (!status)
      status = ops->write(r->target->queue, r->buffers[i], 0, places[i], bytes[i], NULL, err);
    if (status)
      return broken(err, status, "buffer_create or write");
    slots[i] = (unroll_slot){.struct_size = sizeof *slots, .buffer = r->buffers[i], .bytes = bytes[i]};
  }
  g.view.n_slots = c->n_tensors;
  r->n_parts = 1;
  int result = prepare(r, &r->parts[0], &g, slots, c->n_tensors, err);
  if (result)
    return result;
  unroll_run_args args = run_args(c);
  args.t0 = t0;
  args.direction = UNROLL_FORWARD;
  args.count = 1;
  result = execute(r, &args, err);
  for (uint32_t i = 0; i < c->n_tensors && !result; i++)
    if (!c->tensors[i].is_input) {
      unroll_status status = ops->read(r->target->queue, r->buffers[i], 0, places[i], bytes[i], NULL, err);
      result = status ? broken(err, status, "read") : OP_RAN;
    }
  return result;
}

/* A step op over all of its steps: the stepped tensors get the time as axis 0, and the outputs outside of the range go. */
static void make_whole(op_case *whole, const op_case *c) {
  *whole = *c;
  whole->is_template = 0;
  op_node *node = &whole->nodes[0];
  if (node->op == UNROLL_OP_DROPOUT)
    node->attr.dropout.time_axis = 0;
  if (node->op == UNROLL_OP_RANDOM)
    node->attr.random.time_axis = 0;
  if (node->op == UNROLL_OP_LENGTH_MASK)
    node->attr.length_mask.time_axis = 0;
  for (uint32_t i = 0; i < c->n_tensors; i++) {
    op_tensor *t = &whole->tensors[i];
    if (!t->step)
      continue;
    memmove(t->shape.n + 1, t->shape.n, (UNROLL_MAX_RANK - 1) * sizeof *t->shape.n);
    t->shape.n[0] = c->steps;
    t->shape.rank++;
    t->step = 0;
  }
}

static int run_plain_steps(const op_target *target, const op_case *c, int32_t dtype, void **data, unroll_error *err) {
  case_graph g;
  make_graph(&g, c, dtype, 1);
  if (!has_dtypes(target, &g, err))
    return OP_UNSUPPORTED;
  run_state asked = {.target = target};
  int is_private = 0, is_fixed = 0;
  int result = claim_all(&asked, &g, &is_private, &is_fixed, err);
  if (!result && asked.n_parts > 1)
    result = broken_because(err, "the reference claims private groups");
  int64_t count = c->is_template ? c->count : 1, by = c->direction == UNROLL_REVERSE ? -1 : 1;
  for (int64_t i = 0; i < count && !result; i++) {
    int64_t t = c->is_template ? c->first + i * by : 0;
    run_state r = {.target = target};
    result = run_step(&r, c, &g, t, c->t0 + t, data, err);
    run_release(&r);
  }
  return result;
}

int op_run_plain(const op_target *target, const op_case *c, int32_t dtype, void **data, unroll_error *err) {
  if (!c->whole)
    return run_plain_steps(target, c, dtype, data, err);
  op_case whole;
  make_whole(&whole, c);
  int result = run_plain_steps(target, &whole, dtype, data, err);
  int64_t last = c->direction == UNROLL_REVERSE ? c->first - c->count + 1 : c->first;
  for (uint32_t i = 0; i < c->n_tensors && !result; i++) {
    const op_tensor *t = &c->tensors[i];
    if (t->is_input)
      continue;
    uint64_t unit = (uint64_t)c->storages[t->storage].unit * unroll_dtype_size(real_dtype(t->dtype, dtype));
    for (int64_t u = 0; u < c->steps; u++)
      if (u < last || u >= last + c->count)
        memset((uint8_t *)data[t->storage] + (uint64_t)u * unit, 0xFF, unit);
  }
  return result;
}
