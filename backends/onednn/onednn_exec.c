/* SPDX-License-Identifier: Apache-2.0 */
/* Claims, executables and bindings. */
#include "onednn.h"
#include <stdio.h>
#include <string.h>

struct unroll_backend_binding {
  unroll_backend_exec *exec;
  onednn_state **states; /* per node */
  char **base;           /* of each tensor: its slot and offset */
  char **data;           /* and its place in the step being run */
  uint64_t *room;        /* bytes of its slot from base on */
  uint64_t *before;      /* and before it */
};

uint64_t onednn_take(uint64_t *bytes, uint64_t n) {
  const uint64_t at = *bytes;
  *bytes += (n + ONEDNN_ALIGNMENT - 1) / ONEDNN_ALIGNMENT * ONEDNN_ALIGNMENT;
  return at;
}

const onednn_tensor *onednn_in(const onednn_resolver *r, const onednn_node *n, uint32_t i) {
  return n->in[i] == UNROLL_NO_TENSOR ? NULL : &r->tensors[n->in[i]];
}

const onednn_tensor *onednn_out(const onednn_resolver *r, const onednn_node *n, uint32_t i) {
  return n->out[i] == UNROLL_NO_TENSOR ? NULL : &r->tensors[n->out[i]];
}

static const onednn_op *op_of(uint32_t code) {
  return code == UNROLL_OP_MATMUL       ? &onednn_matmul_op
         : code == UNROLL_OP_LAYER      ? &onednn_layer_op
         : code == UNROLL_OP_LAYER_GRAD ? &onednn_layer_grad_op
         : code == UNROLL_OP_CONSTANT   ? &onednn_constant_op
                                        : NULL;
}

static unroll_status resolve(onednn_resolver *r, uint32_t i, onednn_node *n) {
  const unroll_graph_view *view = r->view;
  const unroll_node_view *v = r->node_view = onednn_view_node(view, i);
  memset(n, 0, sizeof *n);
  const onednn_op *op = n->op = op_of(v->op);
  if (!op || v->op_version != 1)
    return onednn_fail(r->err, UNROLL_E_UNSUPPORTED, "onednn: \"%.60s\": op %u, version %u", v->name, v->op,
                       v->op_version);
  if (v->n_in > ONEDNN_MAX_IN || v->n_out > ONEDNN_MAX_OUT)
    return onednn_fail(r->err, UNROLL_E_GRAPH, "onednn: \"%.60s\": %u inputs, %u outputs", v->name, v->n_in, v->n_out);
  for (uint32_t k = 0; k < ONEDNN_MAX_IN; k++) /* edges that are absent at the end of the list may be left out */
    n->in[k] = k < v->n_in ? view->edges[v->first_in + k] : UNROLL_NO_TENSOR;
  for (uint32_t k = 0; k < ONEDNN_MAX_OUT; k++)
    n->out[k] = k < v->n_out ? view->edges[v->first_out + k] : UNROLL_NO_TENSOR;
  n->index = i;
  (void)snprintf(n->name, sizeof n->name, "%s", v->name);
  const unroll_status status = op->resolve(r, n);
  if (status < 0 && op->release)
    op->release(n);
  return status;
}

static unroll_status read_tensors(const unroll_backend *backend, const unroll_graph_view *view, onednn_tensor **out,
                                  unroll_error *err) {
  onednn_tensor *tensors = onednn_alloc(backend, (view->n_tensors + UINT64_C(1)) * sizeof *tensors);
  if (!tensors)
    return onednn_fail(err, UNROLL_E_MEMORY, "onednn: no memory for %u tensors", view->n_tensors);
  for (uint32_t i = 0; i < view->n_tensors; i++) {
    const unroll_status status = onednn_view_tensor(view, i, &tensors[i], err);
    if (status < 0) {
      onednn_free(backend, tensors);
      return status;
    }
  }
  *out = tensors;
  return UNROLL_OK;
}

unroll_status onednn_claim(unroll_backend_device *device, const unroll_graph_view *view, unroll_claim *claims,
                           uint32_t claim_stride, unroll_error *err) {
  onednn_tensor *tensors = NULL;
  TRY(onednn_view_check(view, err));
  if (claim_stride < UNROLL_SIZE_TO(unroll_claim, reserve_bytes))
    return onednn_fail(err, UNROLL_E_ABI, "onednn: claims %u bytes apart, at least %zu expected", claim_stride,
                       UNROLL_SIZE_TO(unroll_claim, reserve_bytes));
  TRY(read_tensors(device->backend, view, &tensors, err));
  unroll_status status = UNROLL_OK;
  const int before = onednn_enter(device->backend);
  for (uint32_t i = 0; i < view->n_nodes && status == UNROLL_OK; i++) {
    onednn_resolver r = {.device = device, .view = view, .tensors = tensors, .err = err};
    onednn_node node;
    r.claim = (unroll_claim *)(void *)((char *)claims + (size_t)i * claim_stride);
    status = resolve(&r, i, &node);
    if (status == UNROLL_OK && node.op->release)
      node.op->release(&node);
    if (status == UNROLL_E_UNSUPPORTED || status == UNROLL_E_DTYPE || status == UNROLL_E_SHAPE) {
      *r.claim = (unroll_claim){0};
      status = UNROLL_OK; /* not this one */
    }
  }
  onednn_leave(before);
  onednn_free(device->backend, tensors);
  return status;
}

/* ---- compile ---- */
static unroll_status use(unroll_backend_exec *e, uint32_t tensor, unroll_error *err) {
  if (tensor == UNROLL_NO_TENSOR)
    return UNROLL_OK;
  if (onednn_dtype_size(e->tensors[tensor].dtype) == 0)
    return onednn_fail(err, UNROLL_E_DTYPE, "onednn: tensor \"%s\": element type %d", e->tensors[tensor].name,
                       e->tensors[tensor].dtype);
  if (e->tensors[tensor].slot >= e->n_slots)
    return onednn_fail(err, UNROLL_E_GRAPH, "onednn: tensor \"%s\" is in slot %u, there are %u",
                       e->tensors[tensor].name, e->tensors[tensor].slot, e->n_slots);
  e->used[tensor] = 1;
  return UNROLL_OK;
}

static unroll_status add_nodes(unroll_backend_exec *e, const unroll_graph_view *view, unroll_error *err) {
  for (uint32_t i = 0; i < view->n_nodes; i++) {
    onednn_resolver r = {.device = e->device, .view = view, .tensors = e->tensors, .err = err};
    onednn_node *n = &e->nodes[e->n_nodes];
    TRY(resolve(&r, i, n));
    if (!n->op)
      continue;
    e->n_nodes++;
    for (uint32_t k = 0; k < ONEDNN_MAX_IN; k++)
      TRY(use(e, n->in[k], err));
    for (uint32_t k = 0; k < ONEDNN_MAX_OUT; k++)
      TRY(use(e, n->out[k], err));
    e->persistent_bytes += n->persistent;
    if (n->workspace > e->workspace_bytes)
      e->workspace_bytes = n->workspace;
  }
  return UNROLL_OK;
}

static unroll_status fill_exec(unroll_backend_exec *e, const unroll_graph_view *view, unroll_error *err) {
  const unroll_backend *backend = e->device->backend;
  e->nodes = onednn_alloc(backend, (view->n_nodes + UINT64_C(1)) * sizeof *e->nodes);
  e->dim_min = onednn_alloc(backend, (view->n_dims + UINT64_C(1)) * 2 * sizeof *e->dim_min);
  e->used = onednn_alloc(backend, view->n_tensors + UINT64_C(1));
  if (!e->nodes || !e->dim_min || !e->used)
    return onednn_fail(err, UNROLL_E_MEMORY, "onednn: no memory for %u nodes", view->n_nodes);
  TRY(read_tensors(backend, view, &e->tensors, err));
  e->dim_max = e->dim_min + e->n_dims;
  for (uint32_t i = 0; i < e->n_dims; i++) {
    e->dim_min[i] = view->dim_min[i];
    e->dim_max[i] = view->dim_max[i];
  }
  const int before = onednn_enter(backend);
  const unroll_status status = add_nodes(e, view, err);
  onednn_leave(before);
  return status;
}

unroll_status onednn_compile(unroll_backend_device *device, const unroll_graph_view *view, const unroll_option *options,
                             uint32_t n_options, unroll_backend_exec **out, unroll_error *err) {
  TRY(onednn_view_check(view, err));
  if (n_options)
    return onednn_fail(err, UNROLL_E_UNSUPPORTED, "onednn: option \"%s\", the backend has none", options[0].key);
  unroll_backend_exec *e = onednn_alloc(device->backend, sizeof *e);
  if (!e)
    return onednn_fail(err, UNROLL_E_MEMORY, "onednn: no memory for an executable");
  e->device = device;
  e->is_template = view->is_template != 0;
  e->n_tensors = view->n_tensors;
  e->n_dims = view->n_dims;
  e->n_slots = view->n_slots;
  const unroll_status status = fill_exec(e, view, err);
  if (status < 0) {
    onednn_exec_destroy(e);
    return status;
  }
  *out = e;
  return UNROLL_OK;
}

unroll_status onednn_exec_info(unroll_backend_exec *e, unroll_exec_info *info, unroll_error *err) {
  if (!UNROLL_HAS(unroll_exec_info, info, persistent_bytes))
    return onednn_fail(err, UNROLL_E_ABI, "onednn: unroll_exec_info of %u bytes, at least %zu expected",
                       info->struct_size, UNROLL_SIZE_TO(unroll_exec_info, persistent_bytes));
  info->workspace_bytes = e->workspace_bytes;
  info->workspace_alignment = ONEDNN_ALIGNMENT;
  info->persistent_bytes = e->persistent_bytes;
  return UNROLL_OK;
}

void onednn_exec_destroy(unroll_backend_exec *e) {
  if (!e)
    return;
  const unroll_backend *backend = e->device->backend;
  for (uint32_t i = 0; i < e->n_nodes; i++)
    if (e->nodes[i].op->release)
      e->nodes[i].op->release(&e->nodes[i]);
  onednn_free(backend, e->tensors);
  onednn_free(backend, e->nodes);
  onednn_free(backend, e->dim_min);
  onednn_free(backend, e->used);
  onednn_free(backend, e);
}

/* ---- bind ---- */
static unroll_status bind_tensor(unroll_backend_binding *b, uint32_t i, const unroll_slot *slot, unroll_error *err) {
  const onednn_tensor *t = &b->exec->tensors[i];
  const uint32_t bytes = onednn_dtype_size(t->dtype);
  if (!UNROLL_HAS(unroll_slot, slot, bytes) || !slot->buffer)
    return onednn_fail(err, UNROLL_E_INVALID, "onednn: slot %u of tensor \"%s\" has no buffer", t->slot, t->name);
  TRY(onednn_buffer_range(slot->buffer, slot->offset, slot->bytes, err));
  const uint64_t whole = t->step < 0 ? 0 : (uint64_t)onednn_count(t) * bytes; /* at t = 0, as large as it can be */
  if (t->offset > slot->bytes || whole > slot->bytes - t->offset)
    return onednn_fail(
        err, UNROLL_E_RANGE, "onednn: tensor \"%s\" of %llu bytes at byte %llu of slot %u, which has %llu", t->name,
        (unsigned long long)whole, (unsigned long long)t->offset, t->slot, (unsigned long long)slot->bytes);
  b->base[i] = b->data[i] = slot->buffer->data + slot->offset + t->offset;
  b->room[i] = slot->bytes - t->offset;
  b->before[i] = t->offset;
  if ((uintptr_t)b->base[i] % bytes != 0 || t->step % (int64_t)bytes != 0)
    return onednn_fail(err, UNROLL_E_INVALID, "onednn: tensor \"%s\" is not aligned to its elements", t->name);
  return UNROLL_OK;
}

static unroll_status fill_binding(unroll_backend_binding *b, const unroll_slot *slots, uint32_t slot_stride,
                                  char *workspace, unroll_error *err) {
  unroll_backend_exec *e = b->exec;
  const unroll_backend *backend = e->device->backend;
  b->states = onednn_alloc(backend, (e->n_nodes + UINT64_C(1)) * sizeof(onednn_state *));
  b->base = onednn_alloc(backend, (e->n_tensors + UINT64_C(1)) * 2 * sizeof(char *));
  b->room = onednn_alloc(backend, (e->n_tensors + UINT64_C(1)) * 2 * sizeof *b->room);
  if (!b->states || !b->base || !b->room)
    return onednn_fail(err, UNROLL_E_MEMORY, "onednn: no memory for the %u tensors of a binding", e->n_tensors);
  b->data = b->base + e->n_tensors;
  b->before = b->room + e->n_tensors;
  for (uint32_t i = 0; i < e->n_tensors; i++)
    if (e->used[i])
      TRY(bind_tensor(
          b, i, (const unroll_slot *)(const void *)((const char *)slots + (size_t)e->tensors[i].slot * slot_stride),
          err));
  const int before = onednn_enter(backend);
  unroll_status status = UNROLL_OK;
  for (uint32_t i = 0; i < e->n_nodes && status == UNROLL_OK; i++)
    if (e->nodes[i].op->bind)
      status = e->nodes[i].op->bind(e, &e->nodes[i], b->data, workspace, &b->states[i], err);
  onednn_leave(before);
  return status;
}

unroll_status onednn_bind(unroll_backend_exec *e, const unroll_slot *slots, uint32_t n_slots, uint32_t slot_stride,
                          unroll_backend_buffer *workspace, uint64_t workspace_offset, unroll_backend_binding **out,
                          unroll_error *err) {
  if (n_slots < e->n_slots || (e->n_slots && (!slots || slot_stride < UNROLL_SIZE_TO(unroll_slot, bytes))))
    return onednn_fail(err, UNROLL_E_INVALID, "onednn: %u slots %u bytes apart, %u expected", n_slots, slot_stride,
                       e->n_slots);
  if (e->workspace_bytes) {
    if (!workspace)
      return onednn_fail(err, UNROLL_E_INVALID, "onednn: no workspace, %llu bytes expected",
                         (unsigned long long)e->workspace_bytes);
    TRY(onednn_buffer_range(workspace, workspace_offset, e->workspace_bytes, err));
    if ((uintptr_t)(workspace->data + workspace_offset) % ONEDNN_ALIGNMENT != 0)
      return onednn_fail(err, UNROLL_E_INVALID, "onednn: the workspace is not aligned to %llu bytes",
                         (unsigned long long)ONEDNN_ALIGNMENT);
  }
  unroll_backend_binding *b = onednn_alloc(e->device->backend, sizeof *b);
  if (!b)
    return onednn_fail(err, UNROLL_E_MEMORY, "onednn: no memory for a binding");
  b->exec = e;
  const unroll_status status =
      fill_binding(b, slots, slot_stride, e->workspace_bytes ? workspace->data + workspace_offset : NULL, err);
  if (status < 0) {
    onednn_binding_destroy(b);
    return status;
  }
  *out = b;
  return UNROLL_OK;
}

void onednn_binding_destroy(unroll_backend_binding *b) {
  if (!b)
    return;
  unroll_backend_exec *e = b->exec;
  const unroll_backend *backend = e->device->backend;
  for (uint32_t i = 0; b->states && i < e->n_nodes; i++)
    if (e->nodes[i].op->unbind)
      e->nodes[i].op->unbind(e, b->states[i]);
  onednn_free(backend, b->states);
  onednn_free(backend, b->base);
  onednn_free(backend, b->room);
  onednn_free(backend, b);
}

/* ---- run ---- */
/* A tensor with the sizes of this run has to lie within its slot at each t of [low,high]. */
static unroll_status check_place(const unroll_backend_binding *b, uint32_t i, const int64_t *dims, int64_t low,
                                 int64_t high, unroll_error *err) {
  const onednn_tensor *t = &b->exec->tensors[i];
  const uint64_t bytes = (uint64_t)onednn_count_at(t, dims) * onednn_dtype_size(t->dtype);
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
    return onednn_fail(err, UNROLL_E_RANGE,
                       "onednn: tensor \"%s\" of %llu bytes, step %lld, leaves its slot at t %lld..%lld", t->name,
                       (unsigned long long)bytes, (long long)t->step, (long long)low, (long long)high);
  return UNROLL_OK;
}

static unroll_status run_step(unroll_backend_binding *b, unroll_backend_queue *queue, int64_t t,
                              const onednn_step *step) {
  const unroll_backend_exec *e = b->exec;
  for (uint32_t i = 0; i < e->n_tensors; i++)
    if (e->tensors[i].step != 0 && e->used[i]) {
      const uint32_t period = e->tensors[i].period;
      b->data[i] = b->base[i] + (period ? t % (int64_t)period : t) * e->tensors[i].step;
    }
  for (uint32_t i = 0; i < e->n_nodes; i++) {
    const onednn_node *n = &e->nodes[i];
    const unroll_profile_span span = {.node = n->index,
                                      .binding = b,
                                      .label = n->op->label,
                                      .t = t,
                                      .count = 1,
                                      .begin_ns = queue->profiled ? onednn_now() : 0};
    TRY(n->op->run(e, n, b->states[i], step));
    onednn_profile_add(queue, &span);
  }
  return UNROLL_OK;
}

unroll_status onednn_run(unroll_backend_binding *b, unroll_backend_queue *queue, const unroll_run_args *args,
                         unroll_backend_event **event, unroll_error *err) {
  const unroll_backend_exec *e = b->exec;
  if (!UNROLL_HAS(unroll_run_args, args, reserved))
    return onednn_fail(err, UNROLL_E_ABI, "onednn: unroll_run_args of %u bytes, at least %zu expected",
                       args->struct_size, UNROLL_SIZE_TO(unroll_run_args, reserved));
  if (args->n_dims < e->n_dims || (e->n_dims && !args->dims))
    return onednn_fail(err, UNROLL_E_INVALID, "onednn: %u run-time sizes, %u expected", args->n_dims, e->n_dims);
  for (uint32_t i = 0; i < e->n_dims; i++)
    if (args->dims[i] < e->dim_min[i] || args->dims[i] > e->dim_max[i])
      return onednn_fail(err, UNROLL_E_RANGE, "onednn: run-time size %u is %lld, %lld to %lld expected", i,
                         (long long)args->dims[i], (long long)e->dim_min[i], (long long)e->dim_max[i]);
  const int64_t count = e->is_template ? args->count : 1, first = e->is_template ? args->first : 0;
  const bool reverse = e->is_template && args->direction == UNROLL_REVERSE;
  if (count < 0 || first < 0 || (reverse ? count > first + 1 : count > INT64_MAX - first))
    return onednn_fail(err, UNROLL_E_RANGE, "onednn: %lld steps from t = %lld on", (long long)args->count,
                       (long long)args->first);
  if (count > 0) {
    const int64_t low = reverse ? first - count + 1 : first;
    for (uint32_t i = 0; i < e->n_tensors; i++)
      if (e->used[i])
        TRY(check_place(b, i, args->dims, low, low + count - 1, err));
  }
  uint64_t n_spans;
  if (__builtin_mul_overflow((uint64_t)count, e->n_nodes, &n_spans))
    n_spans = UINT64_MAX;
  TRY(onednn_profile_room(queue, n_spans, err));
  const onednn_step step = {queue->stream, args, b->data, err};
  unroll_status status = UNROLL_OK;
  const int before = onednn_enter(e->device->backend);
  for (int64_t i = 0; i < count && status == UNROLL_OK; i++)
    status = run_step(b, queue, reverse ? first - i : first + i, &step);
  onednn_leave(before);
  if (status == UNROLL_OK && event)
    *event = &queue->done;
  return status;
}
