/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A backend for tests of dispatch: the cpu backend's own code, made awkward by options of a device.
 *
 *     mask=OP,OP          does not claim those ops
 *     take=OP,OP          claims no others
 *     version=1           claims no node of a higher version
 *     group=runs          claims private groups: claimed nodes that stand side by side, views between them aside
 *     group=one           one private group of all claimed nodes, convex or not
 *     fixed_dims=1        wants every run-time size fixed
 *     layers=1            claims layers, which it cannot compile
 *     fail_compile=N      the N-th compile of the device fails
 *     fail_compile_code=C with that status (UNROLL_E_DEVICE if not given)
 *     fail_open=C         opening the device fails with that status
 *
 * Device "0" is otherwise plain; device "small" has buffers of up to 2048 bytes and wants tensors aligned to 256.
 */
#include "cpu.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SMALL_BUFFER = 2048, SMALL_ALIGNMENT = 256 };
enum { GROUP_HOST, GROUP_RUNS, GROUP_ONE };

extern const unroll_plugin unroll_plugin_v1_cpu;
static const unroll_backend_ops *cpu; /* the same for every backend that is open */

typedef struct patch_device {
  struct unroll_backend_device cpu; /* first: the cpu backend's functions take it for theirs */
  bool masked[UNROLL_OP_END], taken[UNROLL_OP_END];
  bool some_taken, fixed_dims, layers, small, old;
  int grouping, compiles, fail_compile;
  unroll_status fail_code;
} patch_device;

typedef struct patch_exec {
  unroll_backend_exec *cpu;
  unroll_backend *backend;
  uint64_t internal; /* bytes of workspace for what has no slot, before the cpu backend's own */
  uint32_t n_slots;
} patch_exec;

static patch_device *patch(unroll_backend_device *d) { return (patch_device *)(void *)d; }

/* ---- devices ---- */
static unroll_status device_count(unroll_backend *backend, uint32_t *n, unroll_error *err) {
  (void)backend, (void)err;
  *n = 2;
  return UNROLL_OK;
}

static unroll_status device_info(unroll_backend *backend, uint32_t i, unroll_device_info *info, unroll_error *err) {
  TRY(cpu->device_info(backend, 0, info, err));
  info->kind = UNROLL_KIND_ACCELERATOR;
  if (i == 1) {
    info->id = "small";
    info->max_buffer = SMALL_BUFFER;
    info->alignment = SMALL_ALIGNMENT;
  }
  return UNROLL_OK;
}

static unroll_status mark_ops(bool *ops, const char *list, unroll_error *err) {
  static const char *const names[UNROLL_OP_END] = {
#define OP_NAME(name, value, text) [value] = (text),
      UNROLL_OPS(OP_NAME)
#undef OP_NAME
  };
  while (*list) {
    const size_t n = strcspn(list, ",");
    uint32_t op = 1;
    while (op < UNROLL_OP_END && (strlen(names[op]) != n || strncmp(names[op], list, n) != 0))
      op++;
    if (op == UNROLL_OP_END)
      return cpu_fail(err, UNROLL_E_INVALID, "patchwork: \"%.*s\" is no op", (int)n, list);
    ops[op] = true;
    list += n + (list[n] == ',');
  }
  return UNROLL_OK;
}

static unroll_status set_option(patch_device *d, const unroll_option *o, unroll_error *err) {
  const int number = atoi(o->value);
  if (strcmp(o->key, "mask") == 0)
    return mark_ops(d->masked, o->value, err);
  if (strcmp(o->key, "take") == 0) {
    d->some_taken = true;
    return mark_ops(d->taken, o->value, err);
  }
  if (strcmp(o->key, "group") == 0)
    d->grouping = strcmp(o->value, "one") == 0 ? GROUP_ONE : GROUP_RUNS;
  else if (strcmp(o->key, "version") == 0)
    d->old = number == 1;
  else if (strcmp(o->key, "fixed_dims") == 0)
    d->fixed_dims = number != 0;
  else if (strcmp(o->key, "layers") == 0)
    d->layers = number != 0;
  else if (strcmp(o->key, "fail_compile") == 0)
    d->fail_compile = number;
  else if (strcmp(o->key, "fail_compile_code") == 0)
    d->fail_code = number;
  else if (strcmp(o->key, "fail_open") == 0)
    return cpu_fail(err, number, "patchwork: told not to open");
  else
    return cpu_fail(err, UNROLL_E_INVALID, "patchwork: no option \"%s\"", o->key);
  return UNROLL_OK;
}

static unroll_status device_open(unroll_backend *backend, uint32_t i, const unroll_option *options, uint32_t n_options,
                                 unroll_backend_device **out, unroll_error *err) {
  patch_device *d = cpu_alloc(&backend->host, sizeof *d);
  if (!d)
    return cpu_fail(err, UNROLL_E_MEMORY, "patchwork: no memory for a device");
  d->cpu.backend = backend;
  d->small = i == 1;
  d->fail_code = UNROLL_E_DEVICE;
  for (uint32_t k = 0; k < n_options; k++) {
    const unroll_status status = set_option(d, &options[k], err);
    if (status != UNROLL_OK) {
      backend->host.free(backend->host.ctx, d);
      return status;
    }
  }
  *out = &d->cpu;
  return UNROLL_OK;
}

static void device_close(unroll_backend_device *d) {
  const unroll_host *host = &d->backend->host;
  host->free(host->ctx, d);
}

static unroll_status buffer_create(unroll_backend_device *d, uint64_t bytes, uint64_t usage,
                                   unroll_backend_buffer **out, unroll_error *err) {
  if (patch(d)->small && bytes > SMALL_BUFFER)
    return cpu_fail(err, UNROLL_E_DEVICE_MEMORY, "patchwork: a buffer of %llu bytes, there is room for %d",
                    (unsigned long long)bytes, SMALL_BUFFER);
  return cpu->buffer_create(d, bytes, usage, out, err);
}

/* ---- claims ---- */
static unroll_claim *claim_at(unroll_claim *claims, uint32_t stride, uint32_t i) {
  return (unroll_claim *)(void *)((char *)claims + (size_t)i * stride);
}

static unroll_status claim(unroll_backend_device *device, const unroll_graph_view *view, unroll_claim *claims,
                           uint32_t stride, unroll_error *err) {
  const patch_device *d = patch(device);
  TRY(cpu->claim(device, view, claims, stride, err));
  uint32_t group = 1;
  for (uint32_t i = 0; i < view->n_nodes; i++) {
    unroll_claim *c = claim_at(claims, stride, i);
    const uint32_t op = cpu_view_node(view, i)->op;
    if (op == UNROLL_OP_LAYER && d->layers)
      *c = (unroll_claim){.group = UNROLL_GROUP_HOST};
    if (op == UNROLL_OP_RESHAPE)
      continue;
    if (op >= UNROLL_OP_END || d->masked[op] || (d->some_taken && !d->taken[op]) ||
        (d->old && cpu_view_node(view, i)->op_version > 1))
      c->group = 0;
    if (c->group == 0)
      group += d->grouping == GROUP_RUNS;
    else if (d->grouping != GROUP_HOST)
      c->group = group;
    c->flags = c->group && d->fixed_dims ? UNROLL_CLAIM_FIXED_DIMS : 0;
  }
  return UNROLL_OK;
}

/* ---- executables ---- */
static void exec_destroy(unroll_backend_exec *exec) {
  patch_exec *x = (patch_exec *)(void *)exec;
  if (!x)
    return;
  cpu->exec_destroy(x->cpu);
  x->backend->host.free(x->backend->host.ctx, x);
}

static unroll_tensor_view *tensor_at(void *tensors, const unroll_graph_view *view, uint32_t i) {
  return (unroll_tensor_view *)(void *)((char *)tensors + (size_t)i * view->tensor_stride);
}

/* What the nodes use and has no slot is given one more slot, which bind puts into the workspace. */
static uint64_t give_slots(const unroll_graph_view *view, void *tensors) {
  uint64_t bytes = 0;
  for (uint32_t n = 0; n < view->n_nodes; n++) {
    const unroll_node_view *node = cpu_view_node(view, n);
    for (uint32_t k = 0; k < node->n_in + node->n_out; k++) {
      const uint32_t id = view->edges[k < node->n_in ? node->first_in + k : node->first_out + k - node->n_in];
      unroll_tensor_view *t = id == UNROLL_NO_TENSOR ? NULL : tensor_at(tensors, view, id);
      if (!t || t->slot != UNROLL_NO_SLOT)
        continue;
      uint64_t size = cpu_dtype_size(t->dtype);
      for (int32_t a = 0; a < t->rank; a++)
        size *= (uint64_t)t->shape[a];
      t->slot = view->n_slots;
      t->offset = bytes;
      bytes += (size + CPU_ALIGNMENT - 1) / CPU_ALIGNMENT * CPU_ALIGNMENT;
    }
  }
  return bytes;
}

/* What a node outside of a template makes begins a piece of memory. */
static unroll_status check_alignment(const unroll_graph_view *view, unroll_error *err) {
  for (uint32_t n = 0; n < view->n_nodes && !view->is_template; n++) {
    const unroll_node_view *node = cpu_view_node(view, n);
    for (uint32_t k = 0; k < node->n_out; k++) {
      const uint32_t id = view->edges[node->first_out + k];
      const unroll_tensor_view *t =
          id == UNROLL_NO_TENSOR ? NULL : tensor_at((void *)(uintptr_t)view->tensors, view, id);
      if (t && t->offset % SMALL_ALIGNMENT != 0)
        return cpu_fail(err, UNROLL_E_INVALID, "patchwork: %s at byte %llu, a multiple of %d expected", t->name,
                        (unsigned long long)t->offset, SMALL_ALIGNMENT);
    }
  }
  return UNROLL_OK;
}

/* A private group runs as one: nothing that its nodes make may stand where another node's result does. */
static unroll_status check_overlap(const unroll_graph_view *view, void *tensors, unroll_error *err) {
  for (uint32_t i = 0; i < view->n_edges && !view->is_template; i++)
    for (uint32_t k = 0; k < i; k++) {
      const unroll_tensor_view *t[2];
      uint64_t end[2];
      uint32_t made = 0;
      for (uint32_t n = 0; n < view->n_nodes; n++) {
        const unroll_node_view *node = cpu_view_node(view, n);
        made += i - node->first_out < node->n_out; /* unsigned: also false where i is the smaller */
        made += k - node->first_out < node->n_out;
      }
      if (made != 2 || view->edges[i] == UNROLL_NO_TENSOR || view->edges[k] == UNROLL_NO_TENSOR)
        continue;
      t[0] = tensor_at(tensors, view, view->edges[i]);
      t[1] = tensor_at(tensors, view, view->edges[k]);
      for (int j = 0; j < 2; j++) {
        end[j] = cpu_dtype_size(t[j]->dtype);
        for (int32_t x = 0; x < t[j]->rank; x++)
          end[j] *= (uint64_t)t[j]->shape[x];
        end[j] += t[j]->offset;
      }
      if (t[0]->slot == t[1]->slot && t[0]->slot != UNROLL_NO_SLOT && t[0]->offset < end[1] && t[1]->offset < end[0])
        return cpu_fail(err, UNROLL_E_INVALID, "patchwork: %s and %s of one group stand in the same place", t[0]->name,
                        t[1]->name);
    }
  return UNROLL_OK;
}

static unroll_status compile(unroll_backend_device *device, const unroll_graph_view *view, const unroll_option *options,
                             uint32_t n_options, unroll_backend_exec **out, unroll_error *err) {
  patch_device *d = patch(device);
  const unroll_host *host = &device->backend->host;
  if (++d->compiles == d->fail_compile)
    return cpu_fail(err, d->fail_code, "patchwork: told to fail compile %d", d->fail_compile);
  const size_t tensor_bytes = (size_t)view->n_tensors * view->tensor_stride;
  patch_exec *x = cpu_alloc(host, sizeof *x);
  void *tensors = cpu_alloc(host, tensor_bytes + 1);
  unroll_status status = UNROLL_OK;
  if (!x || !tensors)
    status = cpu_fail(err, UNROLL_E_MEMORY, "patchwork: no memory for an executable");
  else {
    memcpy(tensors, view->tensors, tensor_bytes);
    *x = (patch_exec){.backend = device->backend, .n_slots = view->n_slots};
    x->internal = give_slots(view, tensors);
    unroll_graph_view mine = *view;
    mine.tensors = tensors;
    mine.n_slots += x->internal != 0;
    status = d->small ? check_alignment(&mine, err) : UNROLL_OK;
    if (status == UNROLL_OK && d->grouping != GROUP_HOST)
      status = check_overlap(&mine, tensors, err);
    if (status == UNROLL_OK)
      status = cpu->compile(device, &mine, options, n_options, &x->cpu, err);
  }
  if (tensors)
    host->free(host->ctx, tensors);
  if (status != UNROLL_OK) {
    if (x)
      host->free(host->ctx, x);
    return status;
  }
  *out = (unroll_backend_exec *)(void *)x;
  return UNROLL_OK;
}

static unroll_status exec_info(unroll_backend_exec *exec, unroll_exec_info *info, unroll_error *err) {
  const patch_exec *x = (const patch_exec *)(const void *)exec;
  TRY(cpu->exec_info(x->cpu, info, err));
  info->workspace_bytes += x->internal;
  return UNROLL_OK;
}

static unroll_status bind_(unroll_backend_exec *exec, const unroll_slot *slots, uint32_t n_slots, uint32_t stride,
                           unroll_backend_buffer *workspace, uint64_t offset, unroll_backend_binding **out,
                           unroll_error *err) {
  const patch_exec *x = (const patch_exec *)(const void *)exec;
  const unroll_host *host = &x->backend->host;
  unroll_slot *all = cpu_alloc(host, (x->n_slots + UINT64_C(1)) * sizeof *all);
  if (!all)
    return cpu_fail(err, UNROLL_E_MEMORY, "patchwork: no memory for %u slots", x->n_slots);
  unroll_status status = UNROLL_OK;
  for (uint32_t i = 0; i < x->n_slots && i < n_slots; i++)
    all[i] = *(const unroll_slot *)(const void *)((const char *)slots + (size_t)i * stride);
  if (x->internal && !workspace)
    status = cpu_fail(err, UNROLL_E_INVALID, "patchwork: no workspace");
  all[x->n_slots] = (unroll_slot){sizeof *all, 0, workspace, offset, x->internal};
  if (status == UNROLL_OK)
    status =
        cpu->bind(x->cpu, all, x->n_slots + (x->internal != 0), sizeof *all, workspace, offset + x->internal, out, err);
  host->free(host->ctx, all);
  return status;
}

/* ---- plugin ---- */
static int32_t score(const unroll_host *host) {
  (void)host;
  return 2;
}

static unroll_status close_(unroll_backend *backend, unroll_error *err) {
  return unroll_plugin_v1_cpu.close(backend, err);
}

static unroll_status open_(const unroll_host *host, const unroll_option *options, uint32_t n_options,
                           unroll_backend **backend, const unroll_backend_ops **out, unroll_error *err) {
  static unroll_backend_ops mine;
  TRY(unroll_plugin_v1_cpu.open(host, options, n_options, backend, &cpu, err));
  mine = *cpu;
  mine.device_count = device_count;
  mine.device_info = device_info;
  mine.device_open = device_open;
  mine.device_close = device_close;
  mine.buffer_create = buffer_create;
  mine.claim = claim;
  mine.compile = compile;
  mine.exec_info = exec_info;
  mine.exec_destroy = exec_destroy;
  mine.bind = bind_;
  *out = &mine;
  return UNROLL_OK;
}

UNROLL_PLUGIN_EXPORT("patchwork") = {
    UNROLL_PLUGIN_HEADER, UNROLL_PLUGIN_UNLOADABLE, "patchwork", "1.0", "tests", score, open_, close_};
