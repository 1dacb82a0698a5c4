/* SPDX-License-Identifier: Apache-2.0 */
/* Claims, executables and bindings. */
#include "cpu.h"
#include "resolve.h"
#include <string.h>

struct unroll_backend_exec {
  unroll_backend *backend;
  bool is_template;
  uint32_t n_tensors, n_nodes, n_dims, n_slots;
  uint64_t workspace_bytes;
  cpu_tensor *tensors;
  cpu_node *nodes;
  uint32_t *edges;
  int64_t *dim_min, *dim_max;
  uint8_t *used; /* a flag per tensor: some node reads or writes it */
};

struct unroll_backend_binding {
  unroll_backend_exec *exec;
  cpu_operand *operands; /* of the step being run */
  char **base;           /* of each tensor: its slot and offset */
  uint64_t *room;        /* bytes of its slot from there on */
  uint64_t *before;      /* and before it */
  char *workspace;
};

static void give_back(unroll_backend *backend, void *p) {
  if (p)
    backend->host.free(backend->host.ctx, p);
}

static unroll_status read_tensors(unroll_backend *backend, const unroll_graph_view *view, cpu_tensor **out,
                                  unroll_error *err) {
  cpu_tensor *tensors = cpu_alloc(&backend->host, (view->n_tensors + UINT64_C(1)) * sizeof *tensors);
  if (!tensors)
    return cpu_fail(err, UNROLL_E_MEMORY, "cpu: no memory for %u tensors", view->n_tensors);
  for (uint32_t i = 0; i < view->n_tensors; i++) {
    const unroll_status status = cpu_view_tensor(view, i, &tensors[i], err);
    if (status < 0) {
      give_back(backend, tensors);
      return status;
    }
  }
  *out = tensors;
  return UNROLL_OK;
}

unroll_status cpu_claim(unroll_backend_device *device, const unroll_graph_view *view, unroll_claim *claims,
                        uint32_t claim_stride, unroll_error *err) {
  cpu_tensor *tensors = NULL;
  unroll_status status = UNROLL_OK;
  TRY(cpu_view_check(view, err));
  if (claim_stride < UNROLL_SIZE_TO(unroll_claim, reserve_bytes))
    return cpu_fail(err, UNROLL_E_ABI, "cpu: claims %u bytes apart, at least %zu expected", claim_stride,
                    UNROLL_SIZE_TO(unroll_claim, reserve_bytes));
  TRY(read_tensors(device->backend, view, &tensors, err));
  for (uint32_t i = 0; i < view->n_nodes && status == UNROLL_OK; i++) {
    unroll_claim *claim = (unroll_claim *)(void *)((char *)claims + (size_t)i * claim_stride);
    cpu_node node = {0};
    status = cpu_resolve(view, i, tensors, &node, err);
    if (status == UNROLL_OK)
      claim->group = UNROLL_GROUP_HOST;
    else if (status == UNROLL_E_UNSUPPORTED || status == UNROLL_E_DTYPE || status == UNROLL_E_SHAPE)
      status = UNROLL_OK; /* not this one */
  }
  give_back(device->backend, tensors);
  return status;
}

/* ---- compile ---- */
static unroll_status add_nodes(unroll_backend_exec *e, const unroll_graph_view *view, unroll_error *err) {
  for (uint32_t i = 0; i < view->n_nodes; i++) {
    const unroll_node_view *v = cpu_view_node(view, i);
    cpu_node *node = &e->nodes[e->n_nodes];
    TRY(cpu_resolve(view, i, e->tensors, node, err));
    if (!node->run) {
      memset(node, 0, sizeof *node);
      continue;
    }
    if (node->workspace > e->workspace_bytes)
      e->workspace_bytes = node->workspace;
    node->index = i;
    node->op = v->op;
    node->n_in = v->n_in;
    node->n_out = v->n_out;
    node->edges = e->edges;
    for (uint32_t k = 0; k < v->n_in + v->n_out; k++) {
      const uint32_t t = view->edges[k < v->n_in ? v->first_in + k : v->first_out + k - v->n_in];
      *e->edges++ = t;
      if (t == UNROLL_NO_TENSOR)
        continue;
      if (e->tensors[t].slot >= view->n_slots)
        return cpu_fail(err, UNROLL_E_GRAPH, "cpu: tensor \"%s\" is in slot %u, there are %u", e->tensors[t].name,
                        e->tensors[t].slot, view->n_slots);
      e->used[t] = 1;
    }
    e->n_nodes++;
  }
  return UNROLL_OK;
}

unroll_status cpu_compile(unroll_backend_device *device, const unroll_graph_view *view, const unroll_option *options,
                          uint32_t n_options, unroll_backend_exec **out, unroll_error *err) {
  unroll_backend *backend = device->backend;
  const unroll_host *host = &backend->host;
  TRY(cpu_view_check(view, err));
  if (n_options)
    return cpu_fail(err, UNROLL_E_UNSUPPORTED, "cpu: option \"%s\", the backend has none", options[0].key);
  unroll_backend_exec *e = cpu_alloc(host, sizeof *e);
  if (!e)
    return cpu_fail(err, UNROLL_E_MEMORY, "cpu: no memory for an executable");
  e->backend = backend;
  e->is_template = view->is_template != 0;
  e->n_tensors = view->n_tensors;
  e->n_dims = view->n_dims;
  e->n_slots = view->n_slots;
  uint64_t n_edges = 0; /* nodes may share edges of the view, here each has its own */
  for (uint32_t i = 0; i < view->n_nodes; i++)
    n_edges += (uint64_t)cpu_view_node(view, i)->n_in + cpu_view_node(view, i)->n_out;
  e->nodes = cpu_alloc(host, (view->n_nodes + UINT64_C(1)) * sizeof *e->nodes);
  e->dim_min = cpu_alloc(host, (view->n_dims + UINT64_C(1)) * 2 * sizeof *e->dim_min);
  e->used = cpu_alloc(host, view->n_tensors + UINT64_C(1));
  uint32_t *const edges = cpu_alloc(host, (n_edges + 1) * sizeof *edges);
  e->edges = edges;
  unroll_status status = UNROLL_OK;
  if (!e->nodes || !e->dim_min || !e->used || !edges)
    status = cpu_fail(err, UNROLL_E_MEMORY, "cpu: no memory for %u nodes", view->n_nodes);
  if (status == UNROLL_OK)
    status = read_tensors(backend, view, &e->tensors, err);
  if (status == UNROLL_OK) {
    e->dim_max = e->dim_min + e->n_dims;
    for (uint32_t i = 0; i < e->n_dims; i++) {
      e->dim_min[i] = view->dim_min[i];
      e->dim_max[i] = view->dim_max[i];
    }
    status = add_nodes(e, view, err);
  }
  e->edges = edges;
  if (status < 0) {
    cpu_exec_destroy(e);
    return status;
  }
  *out = e;
  return UNROLL_OK;
}

unroll_status cpu_exec_info(unroll_backend_exec *e, unroll_exec_info *info, unroll_error *err) {
  if (!UNROLL_HAS(unroll_exec_info, info, persistent_bytes))
    return cpu_fail(err, UNROLL_E_ABI, "cpu: unroll_exec_info of %u bytes, at least %zu expected", info->struct_size,
                    UNROLL_SIZE_TO(unroll_exec_info, persistent_bytes));
  info->workspace_bytes = e->workspace_bytes;
  info->workspace_alignment = CPU_ALIGNMENT;
  info->persistent_bytes = 0;
  return UNROLL_OK;
}

void cpu_exec_destroy(unroll_backend_exec *e) {
  if (!e)
    return;
  give_back(e->backend, e->tensors);
  give_back(e->backend, e->nodes);
  give_back(e->backend, e->edges);
  give_back(e->backend, e->dim_min);
  give_back(e->backend, e->used);
  give_back(e->backend, e);
}

/* ---- bind ---- */
static unroll_status bind_tensor(unroll_backend_binding *b, uint32_t i, const unroll_slot *slot, unroll_error *err) {
  const cpu_tensor *t = &b->exec->tensors[i];
  const uint32_t bytes = cpu_dtype_size(t->dtype);
  if (!UNROLL_HAS(unroll_slot, slot, bytes) || !slot->buffer)
    return cpu_fail(err, UNROLL_E_INVALID, "cpu: slot %u of tensor \"%s\" has no buffer", t->slot, t->name);
  TRY(cpu_buffer_range(slot->buffer, slot->offset, slot->bytes, err));
  if (t->offset > slot->bytes)
    return cpu_fail(err, UNROLL_E_RANGE, "cpu: tensor \"%s\" at byte %llu of slot %u, which has %llu", t->name,
                    (unsigned long long)t->offset, t->slot, (unsigned long long)slot->bytes);
  const cpu_shape *shape = &t->shape;
  const int64_t fewest = shape->dim < 0
                             ? cpu_shape_count(shape)
                             : cpu_shape_count(shape) / b->exec->dim_max[shape->dim] * b->exec->dim_min[shape->dim];
  if (!(b->exec->is_template && t->step != 0) && (uint64_t)fewest * bytes > slot->bytes - t->offset)
    return cpu_fail(err, UNROLL_E_RANGE, "cpu: tensor \"%s\" of %s, %llu bytes at byte %llu of slot %u, which has %llu",
                    t->name, cpu_shape_text(shape).text, (unsigned long long)fewest * bytes,
                    (unsigned long long)t->offset, t->slot, (unsigned long long)slot->bytes);
  b->base[i] = slot->buffer->data + slot->offset + t->offset;
  b->room[i] = slot->bytes - t->offset;
  b->before[i] = t->offset;
  if ((uintptr_t)b->base[i] % bytes != 0 || t->step % (int64_t)bytes != 0)
    return cpu_fail(err, UNROLL_E_INVALID, "cpu: tensor \"%s\" of %s is not aligned to its elements", t->name,
                    cpu_dtype_name(t->dtype));
  b->operands[i].rank = t->shape.rank;
  memcpy(b->operands[i].size, t->shape.size, sizeof t->shape.size);
  return UNROLL_OK;
}

unroll_status cpu_bind(unroll_backend_exec *e, const unroll_slot *slots, uint32_t n_slots, uint32_t slot_stride,
                       unroll_backend_buffer *workspace, uint64_t workspace_offset, unroll_backend_binding **out,
                       unroll_error *err) {
  const unroll_host *host = &e->backend->host;
  if (n_slots < e->n_slots || (e->n_slots && (!slots || slot_stride < UNROLL_SIZE_TO(unroll_slot, bytes))))
    return cpu_fail(err, UNROLL_E_INVALID, "cpu: %u slots %u bytes apart, %u expected", n_slots, slot_stride,
                    e->n_slots);
  if (e->workspace_bytes) {
    if (!workspace)
      return cpu_fail(err, UNROLL_E_INVALID, "cpu: no workspace, %llu bytes expected",
                      (unsigned long long)e->workspace_bytes);
    TRY(cpu_buffer_range(workspace, workspace_offset, e->workspace_bytes, err));
    if ((uintptr_t)(workspace->data + workspace_offset) % CPU_ALIGNMENT != 0)
      return cpu_fail(err, UNROLL_E_INVALID, "cpu: the workspace is not aligned to %u bytes", CPU_ALIGNMENT);
  }
  unroll_backend_binding *b = cpu_alloc(host, sizeof *b);
  if (!b)
    return cpu_fail(err, UNROLL_E_MEMORY, "cpu: no memory for a binding");
  b->exec = e;
  b->workspace = e->workspace_bytes ? workspace->data + workspace_offset : NULL;
  b->operands = cpu_alloc(host, (e->n_tensors + UINT64_C(1)) * sizeof *b->operands);
  b->base = cpu_alloc(host, (e->n_tensors + UINT64_C(1)) * sizeof *b->base);
  b->room = cpu_alloc(host, (e->n_tensors + UINT64_C(1)) * 2 * sizeof *b->room);
  b->before = b->room ? b->room + e->n_tensors : NULL;
  unroll_status status = UNROLL_OK;
  if (!b->operands || !b->base || !b->room)
    status = cpu_fail(err, UNROLL_E_MEMORY, "cpu: no memory for the %u tensors of a binding", e->n_tensors);
  for (uint32_t i = 0; i < e->n_tensors && status == UNROLL_OK; i++)
    if (e->used[i])
      status = bind_tensor(
          b, i, (const unroll_slot *)(const void *)((const char *)slots + (size_t)e->tensors[i].slot * slot_stride),
          err);
  if (status < 0) {
    cpu_binding_destroy(b);
    return status;
  }
  *out = b;
  return UNROLL_OK;
}

void cpu_binding_destroy(unroll_backend_binding *b) {
  if (!b)
    return;
  unroll_backend *backend = b->exec->backend;
  give_back(backend, b->operands);
  give_back(backend, b->base);
  give_back(backend, b->room);
  give_back(backend, b);
}

/* ---- run ---- */
static int64_t step_index(const cpu_tensor *t, int64_t at) { return t->period ? at % (int64_t)t->period : at; }

/* A tensor with the sizes of this run has to lie within its slot at each t of [low,high]. */
static unroll_status place_tensor(unroll_backend_binding *b, uint32_t i, const int64_t *dims, int64_t low, int64_t high,
                                  unroll_error *err) {
  const cpu_tensor *t = &b->exec->tensors[i];
  cpu_operand *o = &b->operands[i];
  if (t->shape.dim >= 0)
    o->size[0] = t->per_size * dims[t->shape.dim];
  const uint64_t bytes = (uint64_t)cpu_count(o, 0, o->rank) * cpu_dtype_size(t->dtype);
  if (t->period) {
    const int64_t period = t->period;
    const bool wraps = low / period != high / period;
    low = wraps ? 0 : low % period;
    high = wraps ? period - 1 : high % period;
  }
  int64_t first = 0, last = 0;
  const bool fits = !__builtin_mul_overflow(t->step, t->step < 0 ? high : low, &first) &&
                    !__builtin_mul_overflow(t->step, t->step < 0 ? low : high, &last);
  if (!fits || (first < 0 && (uint64_t)-first > b->before[i]) || bytes > b->room[i] ||
      (last > 0 && (uint64_t)last > b->room[i] - bytes))
    return cpu_fail(err, UNROLL_E_RANGE, "cpu: tensor \"%s\" of %llu bytes, step %lld, leaves its slot at t %lld..%lld",
                    t->name, (unsigned long long)bytes, (long long)t->step, (long long)low, (long long)high);
  o->data = b->base[i];
  return UNROLL_OK;
}

/* timed: the queue that keeps a span per node, or NULL */
static void run_step(unroll_backend_binding *b, const cpu_position *at, unroll_backend_queue *timed) {
  const unroll_backend_exec *e = b->exec;
  for (uint32_t i = 0; i < e->n_tensors; i++)
    if (e->tensors[i].step != 0 && e->used[i])
      b->operands[i].data = b->base[i] + step_index(&e->tensors[i], at->t) * e->tensors[i].step;
  if (timed) {
    for (uint32_t i = 0; i < e->n_nodes; i++) {
      const cpu_call call = {&e->nodes[i], b->operands, at, b->workspace, e->backend->pool};
      const uint64_t begin = cpu_now();
      call.node->run(&call);
      cpu_profile_node(timed, call.node, b, at->t, begin, cpu_now());
    }
    return;
  }
  for (uint32_t i = 0; i < e->n_nodes; i++) {
    const cpu_call call = {&e->nodes[i], b->operands, at, b->workspace, e->backend->pool};
    call.node->run(&call);
  }
}

unroll_status cpu_run(unroll_backend_binding *b, unroll_backend_queue *queue, const unroll_run_args *args,
                      unroll_backend_event **event, unroll_error *err) {
  const unroll_backend_exec *e = b->exec;
  if (!UNROLL_HAS(unroll_run_args, args, reserved))
    return cpu_fail(err, UNROLL_E_ABI, "cpu: unroll_run_args of %u bytes, at least %zu expected", args->struct_size,
                    UNROLL_SIZE_TO(unroll_run_args, reserved));
  if (args->n_dims < e->n_dims || (e->n_dims && !args->dims))
    return cpu_fail(err, UNROLL_E_INVALID, "cpu: %u run-time sizes, %u expected", args->n_dims, e->n_dims);
  for (uint32_t i = 0; i < e->n_dims; i++)
    if (args->dims[i] < e->dim_min[i] || args->dims[i] > e->dim_max[i])
      return cpu_fail(err, UNROLL_E_RANGE, "cpu: run-time size %u is %lld, %lld to %lld expected", i,
                      (long long)args->dims[i], (long long)e->dim_min[i], (long long)e->dim_max[i]);
  const int64_t count = e->is_template ? args->count : 1, first = e->is_template ? args->first : 0;
  const bool reverse = e->is_template && args->direction == UNROLL_REVERSE;
  if (count < 0 || first < 0 || (reverse ? count > first + 1 : count > INT64_MAX - first))
    return cpu_fail(err, UNROLL_E_RANGE, "cpu: %lld steps from t = %lld on", (long long)args->count,
                    (long long)args->first);
  if (count > 0) {
    const int64_t low = reverse ? first - count + 1 : first;
    for (uint32_t i = 0; i < e->n_tensors; i++)
      if (e->used[i])
        TRY(place_tensor(b, i, args->dims, low, low + count - 1, err));
  }
  unroll_backend_queue *const timed = queue->profiled ? queue : NULL;
  if (timed) {
    uint64_t n_spans = 0;
    if (__builtin_mul_overflow((uint64_t)count, e->n_nodes, &n_spans))
      n_spans = UINT64_MAX;
    TRY(cpu_profile_room(queue, n_spans, err));
  }
  cpu_position at = {args->seed, args->update, args->t0, args->row0, 0};
  for (int64_t i = 0; i < count; i++) {
    at.t = reverse ? first - i : first + i;
    run_step(b, &at, timed);
  }
  if (event)
    *event = &queue->done;
  return UNROLL_OK;
}
