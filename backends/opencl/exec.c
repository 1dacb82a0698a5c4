/* SPDX-License-Identifier: Apache-2.0 */
/* exec.c: claims, executables and bindings. */
#include "exec.h"
#include <string.h>
#include <unroll/philox.h>

/* ---- claim ---- */
unroll_status exec_claim(unroll_backend_device *d, const unroll_graph_view *g, unroll_claim *claims,
                         uint32_t claim_stride, unroll_error *err) {
  for (uint32_t i = 0; i < g->n_nodes; i++) {
    const uint32_t op = graph_node(g, i)->op;
    if (op < UNROLL_OP_END && d->masked[op])
      continue;
    plan p = {.device = d, .graph = g, .dry = true, .error = {.struct_size = sizeof p.error}};
    const unroll_status status = plan_node(&p, i);
    plan_free(&p);
    if (status == UNROLL_OK) {
      unroll_claim *c = (unroll_claim *)((char *)claims + (size_t)i * claim_stride);
      c->group = UNROLL_GROUP_HOST;
      if (p.reserve) {
        c->flags = UNROLL_CLAIM_RESERVE;
        c->reserve_bytes = p.reserve;
      }
    } else if (status != UNROLL_E_UNSUPPORTED)
      return opencl_fail(err, status, p.error.native, "%s", p.error.message);
  }
  return UNROLL_OK;
}

/* ---- compile ---- */
/* The names outlive the view: launches point to copies. */
static unroll_status keep_names(unroll_backend_exec *e, const unroll_graph_view *g) {
  size_t bytes = 1;
  for (uint32_t i = 0; i < e->n_launches; i++)
    bytes += strlen(e->launches[i].name) + 1;
  for (uint32_t i = 0; i < g->n_tensors; i++)
    bytes += strlen(graph_tensor(g, i)->name) + 1;
  char *at = e->names = opencl_alloc(e->device->host, bytes, 1);
  if (!at)
    return UNROLL_E_MEMORY;
  for (uint32_t i = 0; i < e->n_launches; i++) {
    const char *name = e->launches[i].name;
    e->launches[i].name = strcpy(at, name);
    at += strlen(name) + 1;
  }
  for (uint32_t i = 0; i < g->n_tensors; i++) {
    const char *name = graph_tensor(g, i)->name;
    e->tensors[i].name = strcpy(at, name);
    at += strlen(name) + 1;
  }
  return UNROLL_OK;
}

static void keep_places(unroll_backend_exec *e, const unroll_graph_view *g) {
  for (uint32_t i = 0; i < g->n_tensors; i++) {
    const unroll_tensor_view *v = graph_tensor(g, i);
    uint64_t bytes = dtype_bytes(v->dtype);
    for (int32_t axis = 0; axis < v->rank; axis++)
      bytes *= (uint64_t)v->shape[axis];
    e->tensors[i] = (place){.dtype = v->dtype,
                            .slot = v->slot,
                            .period = v->period,
                            .offset = v->offset,
                            .bytes = bytes,
                            .dim = v->rank > 0 ? v->dim[0] : -1,
                            .step = v->step,
                            .name = e->tensors[i].name};
  }
  for (uint32_t i = 0; i < g->n_nodes; i++) {
    const unroll_node_view *n = graph_node(g, i);
    for (uint32_t k = 0; k < n->n_in + n->n_out; k++) {
      const uint32_t id = g->edges[k < n->n_in ? n->first_in + k : n->first_out + k - n->n_in];
      if (id == UNROLL_NO_TENSOR || e->tensors[id].used)
        continue;
      e->tensors[id].used = true;
      if (e->tensors[id].dim >= 0 || (e->is_template && e->tensors[id].step != 0))
        e->moving[e->n_moving++] = id;
    }
  }
}

static unroll_status keep(unroll_backend_exec *e, const unroll_graph_view *g, unroll_error *err) {
  const unroll_host *host = e->device->host;
  e->tensors = opencl_alloc(host, g->n_tensors, sizeof *e->tensors);
  e->dim_min = opencl_alloc(host, g->n_dims, sizeof *e->dim_min);
  e->dim_max = opencl_alloc(host, g->n_dims, sizeof *e->dim_max);
  e->moving = opencl_alloc(host, g->n_tensors, sizeof *e->moving);
  if (!e->tensors || !e->dim_min || !e->dim_max || !e->moving || keep_names(e, g) != UNROLL_OK)
    return opencl_fail(err, UNROLL_E_MEMORY, 0, "opencl: no memory for an executable of %u nodes", g->n_nodes);
  for (uint32_t i = 0; i < g->n_dims; i++) {
    e->dim_min[i] = g->dim_min[i];
    e->dim_max[i] = g->dim_max[i];
  }
  keep_places(e, g);
  for (uint32_t i = 0; i < e->n_launches; i++)
    if (e->launches[i].source)
      TRY(program_get(e->device, e->launches[i].source, e->launches[i].options, &e->launches[i].program, err));
  return UNROLL_OK;
}

unroll_status exec_compile(unroll_backend_device *d, const unroll_graph_view *g, const unroll_option *options,
                           uint32_t n_options, unroll_backend_exec **out, unroll_error *err) {
  if (n_options)
    return opencl_fail(err, UNROLL_E_INVALID, 0, "opencl: compile: unknown option \"%s\"", options[0].key);
  return exec_compile_trial(d, g, NULL, out, err);
}

unroll_status exec_compile_trial(unroll_backend_device *d, const unroll_graph_view *g, const trial_choice *trial,
                                 unroll_backend_exec **out, unroll_error *err) {
  unroll_backend_exec *e = opencl_alloc(d->host, 1, sizeof *e);
  if (!e)
    return opencl_fail(err, UNROLL_E_MEMORY, 0, "opencl: no memory for an executable");
  plan p = {.device = d, .graph = g, .trial = trial, .error = {.struct_size = sizeof p.error}};
  unroll_status status = flights_find(&p);
  for (uint32_t i = 0; i < g->n_nodes && status == UNROLL_OK; i++) {
    status = plan_node(&p, i);
    if (p.flights)
      p.flights[i].scratch = p.node_workspace;
  }
  if (status != UNROLL_OK) {
    plan_free(&p);
    opencl_free(d->host, e);
    return opencl_fail(err, status, p.error.native, "%s", p.error.message);
  }
  flights_settle(&p);
  opencl_free(d->host, p.flights);
  e->device = d;
  e->launches = p.launches;
  e->args = p.args;
  e->extents = p.extents;
  e->loops = p.loops;
  e->n_launches = p.n_launches;
  e->n_args = p.n_args;
  e->n_extents = p.n_extents;
  e->n_loops = p.n_loops;
  e->n_tensors = g->n_tensors;
  e->n_dims = g->n_dims;
  e->is_template = g->is_template != 0;
  e->workspace = p.workspace;
  e->packed = p.packed;
  e->temp = p.temp;
  e->claims = p.claims;
  e->flights = p.n_flights != 0;
  status = keep(e, g, err);
  if (status != UNROLL_OK) {
    exec_destroy(e);
    return status;
  }
  *out = e;
  return UNROLL_OK;
}

unroll_status exec_info(unroll_backend_exec *e, unroll_exec_info *info, unroll_error *err) {
  if (!UNROLL_HAS(unroll_exec_info, info, persistent_bytes))
    return opencl_fail(err, UNROLL_E_ABI, 0, "opencl: unroll_exec_info of %u bytes, at least %zu expected",
                       info->struct_size, UNROLL_SIZE_TO(unroll_exec_info, persistent_bytes));
  info->workspace_bytes = e->workspace;
  info->workspace_alignment = OPENCL_ALIGNMENT;
  info->persistent_bytes = e->packed + e->temp;
  return UNROLL_OK;
}

void exec_destroy(unroll_backend_exec *e) {
  if (!e)
    return;
  const unroll_host *host = e->device->host;
  plan p = {.device = e->device,
            .launches = e->launches,
            .args = e->args,
            .extents = e->extents,
            .loops = e->loops,
            .n_launches = e->n_launches,
            .n_args = e->n_args,
            .n_extents = e->n_extents};
  plan_free(&p);
  opencl_free(host, e->tensors);
  opencl_free(host, e->dim_min);
  opencl_free(host, e->dim_max);
  opencl_free(host, e->moving);
  opencl_free(host, e->names);
  opencl_free(host, e);
}

/* ---- the values of arguments ---- */
/* While binding there are no sizes, and only what does not depend on them is asked for. */
static int64_t extents_of(const unroll_backend_exec *e, uint32_t first, uint32_t n, const run_state *s) {
  int64_t value = 1;
  for (uint32_t i = 0; i < n; i++) {
    const extent x = e->extents[first + i];
    value *= x.dim < 0 || !s->args ? x.per : x.per * s->args->dims[x.dim];
  }
  return value;
}

static bool extents_move(const unroll_backend_exec *e, uint32_t first, uint32_t n) {
  for (uint32_t i = 0; i < n; i++)
    if (e->extents[first + i].dim >= 0)
      return true;
  return false;
}

/* The work-items of a launch that have work. */
int64_t exec_items(const unroll_backend_exec *e, const launch *l, const run_state *s) {
  int64_t items = l->times;
  for (uint32_t i = 0; i < l->n_terms; i++) {
    const int64_t value = extents_of(e, l->term[i].first, l->term[i].n, s);
    items *= (value + l->term[i].divisor - 1) / l->term[i].divisor;
  }
  return items;
}

bool exec_items_move(const unroll_backend_exec *e, const launch *l) {
  for (uint32_t i = 0; i < l->n_terms; i++)
    if (extents_move(e, l->term[i].first, l->term[i].n))
      return true;
  return false;
}

uint64_t exec_place(const unroll_backend_binding *b, const place *x, int64_t t) {
  const int64_t step = x->period ? t % (int64_t)x->period : t;
  return b->slots[x->slot].offset + x->offset + (uint64_t)(step * x->step);
}

typedef enum pace { FIXED, EACH_RUN, EACH_STEP } pace;

static pace pace_of(const unroll_backend_exec *e, const launch *l, const launch_arg *a) {
  switch (a->kind) {
  case ARG_AT:
    if (a->tensor != UNROLL_NO_TENSOR && e->is_template && e->tensors[a->tensor].step != 0 && !l->once)
      return EACH_STEP;
    return extents_move(e, a->first_extent, a->n_extents) ? EACH_RUN : FIXED;
  case ARG_EXTENT: return extents_move(e, a->first_extent, a->n_extents) ? EACH_RUN : FIXED;
  case ARG_ITEMS: return exec_items_move(e, l) ? EACH_RUN : FIXED;
  case ARG_TIME: return e->is_template ? EACH_STEP : EACH_RUN;
  case ARG_FIRST:
  case ARG_COUNT: return EACH_STEP;
  case ARG_KEY0:
  case ARG_KEY1:
  case ARG_T0:
  case ARG_ROW0: return EACH_RUN;
  default: return FIXED;
  }
}

/* Bytes of an argument into value; its size. Memory objects and bytes are pointed to. */
static size_t value_of(const unroll_backend_binding *b, const launch *l, const launch_arg *a, const run_state *s,
                       cl_long *number, const void **value) {
  const unroll_backend_exec *e = b->exec;
  *value = number;
  switch (a->kind) {
  case ARG_MEM:
    *value = a->tensor == UNROLL_NO_TENSOR ? NULL : &b->slots[e->tensors[a->tensor].slot].buffer->mem;
    return sizeof(cl_mem);
  case ARG_SCRATCH: *value = &b->workspace; return sizeof(cl_mem);
  case ARG_PACKED: *value = &b->packed; return sizeof(cl_mem);
  case ARG_CLAIMS: *value = &b->claims; return sizeof(cl_mem);
  case ARG_BYTES: *value = a->data; return a->bytes;
  case ARG_SCRATCH_AT: *number = (cl_long)((b->workspace_offset + (uint64_t)a->value) / a->bytes); break;
  case ARG_PACKED_AT: *number = a->value / a->bytes; break;
  case ARG_AT:
    *number = 0;
    if (a->tensor == UNROLL_NO_TENSOR)
      break;
    *number = (cl_long)(exec_place(b, &e->tensors[a->tensor], s->t) / a->bytes) + a->extra;
    for (uint32_t i = 0; i < a->n_extents; i++)
      *number += extents_of(e, a->first_extent + i, 1, s);
    break;
  case ARG_EXTENT: {
    const int64_t divisor = a->value;
    *number = (extents_of(e, a->first_extent, a->n_extents, s) + divisor - 1) / divisor;
    break;
  }
  case ARG_ITEMS: *number = exec_items(e, l, s); break;
  case ARG_KEY0:
  case ARG_KEY1: {
    const unroll_philox_key key = unroll_philox_site_key(s->args->seed, s->args->update, (uint32_t)a->value);
    const cl_uint word = key.k[a->kind == ARG_KEY1];
    memcpy(number, &word, sizeof word);
    return sizeof word;
  }
  case ARG_UINT: {
    const cl_uint word = (cl_uint)a->value;
    memcpy(number, &word, sizeof word);
    return sizeof word;
  }
  case ARG_TIME: *number = (e->is_template ? s->t : 0) + (a->value ? s->args->t0 : 0); break;
  case ARG_FIRST: *number = s->first; break;
  case ARG_COUNT: *number = s->count; break;
  case ARG_T0: *number = s->args->t0 + a->value; break;
  case ARG_ROW0: *number = s->args->row0; break;
  case ARG_LONG: *number = a->value; break;
  }
  return sizeof *number;
}

unroll_status exec_set_arg(unroll_backend_binding *b, uint32_t l, uint32_t index, const run_state *s,
                           unroll_error *err) {
  const launch *at = &b->exec->launches[l];
  cl_long number;
  const void *value;
  const size_t size = value_of(b, at, &b->exec->args[at->first_arg + index], s, &number, &value);
  const cl_int code = clSetKernelArg(b->kernels[l], index, size, value);
  return code == CL_SUCCESS ? UNROLL_OK : opencl_error(b->exec->device, err, code, "clSetKernelArg", at->name);
}

/* ---- bind ---- */
/* Every tensor lies in its slot, and the slot in its buffer, as far as that is the same in every run. */
static unroll_status check_slots(const unroll_backend_binding *b, unroll_error *err) {
  const unroll_backend_exec *e = b->exec;
  for (uint32_t i = 0; i < e->n_tensors; i++) {
    const place *t = &e->tensors[i];
    if (!t->used)
      continue;
    const unroll_slot *s = t->slot < b->n_slots ? &b->slots[t->slot] : NULL;
    if (!s || !s->buffer)
      return opencl_fail(err, UNROLL_E_INVALID, 0, "opencl: tensor %s: slot %u of %u has no buffer", t->name, t->slot,
                         b->n_slots);
    if (s->offset > s->buffer->bytes || s->bytes > s->buffer->bytes - s->offset)
      return opencl_fail(err, UNROLL_E_RANGE, 0, "opencl: slot %u: %llu bytes at %llu of a buffer of %llu", t->slot,
                         (unsigned long long)s->bytes, (unsigned long long)s->offset,
                         (unsigned long long)s->buffer->bytes);
    uint64_t bytes = t->dim < 0 ? t->bytes : t->bytes / (uint64_t)e->dim_max[t->dim] * (uint64_t)e->dim_min[t->dim];
    if (e->is_template && t->step != 0)
      bytes = 0;
    if (t->offset > s->bytes || bytes > s->bytes - t->offset)
      return opencl_fail(err, UNROLL_E_RANGE, 0, "opencl: tensor %s: %llu bytes at %llu of slot %u, which has %llu",
                         t->name, (unsigned long long)bytes, (unsigned long long)t->offset, t->slot,
                         (unsigned long long)s->bytes);
  }
  return UNROLL_OK;
}

static bool slots_apart(const unroll_backend_binding *b) {
  for (uint32_t i = 0; b->exec->flights && i < b->n_slots; i++)
    for (uint32_t k = 0; k < i; k++) {
      const unroll_slot *x = &b->slots[i], *y = &b->slots[k];
      if (x->buffer && x->buffer == y->buffer && x->offset < y->offset + y->bytes && y->offset < x->offset + x->bytes)
        return false;
    }
  return true;
}

/* What the driver says this kernel can take; a tile's size is fixed in its source. */
static unroll_status choose_group(unroll_backend_binding *b, uint32_t i, unroll_error *err) {
  unroll_backend_device *d = b->exec->device;
  const launch *l = &b->exec->launches[i];
  size_t most = 0;
  const cl_int code =
      clGetKernelWorkGroupInfo(b->kernels[i], d->entry->device, CL_KERNEL_WORK_GROUP_SIZE, sizeof most, &most, NULL);
  if (code != CL_SUCCESS)
    return opencl_error(d, err, code, "clGetKernelWorkGroupInfo", l->kernel);
  b->groups[i] = l->group;
  if (l->times > 1 && most < l->group)
    return opencl_fail(err, UNROLL_E_DEVICE, 0, "opencl: %s: kernel %s needs groups of %zu, the device has %zu",
                       l->name, l->kernel, l->group, most);
  while (b->groups[i] > 1 && b->groups[i] > most)
    b->groups[i] /= 2;
  return UNROLL_OK;
}

static unroll_status make_buffer(unroll_backend_device *d, uint64_t bytes, cl_mem *mem, unroll_error *err) {
  cl_int code = CL_SUCCESS;
  if (bytes)
    *mem = clCreateBuffer(d->context, CL_MEM_READ_WRITE, bytes, NULL, &code);
  return code == CL_SUCCESS ? UNROLL_OK : opencl_error(d, err, code, "clCreateBuffer", "packed weights");
}

/* Counters that are 0, without a command to make them so. */
static unroll_status make_claims(unroll_backend_device *d, uint64_t bytes, cl_mem *mem, unroll_error *err) {
  if (!bytes)
    return UNROLL_OK;
  void *zeros = opencl_alloc(d->host, bytes, 1);
  if (!zeros)
    return opencl_fail(err, UNROLL_E_MEMORY, 0, "opencl: no memory for counters");
  cl_int code;
  *mem = clCreateBuffer(d->context, CL_MEM_READ_WRITE | CL_MEM_COPY_HOST_PTR, bytes, zeros, &code);
  opencl_free(d->host, zeros);
  return code == CL_SUCCESS ? UNROLL_OK : opencl_error(d, err, code, "clCreateBuffer", "counters");
}

static unroll_status bind_launch(unroll_backend_binding *b, uint32_t i, unroll_error *err) {
  const unroll_backend_exec *e = b->exec;
  const launch *l = &e->launches[i];
  const run_state nothing = {0};
  cl_int code;
  if (!exec_items_move(e, l))
    b->items[i] = (size_t)exec_items(e, l, &nothing);
  if (!l->source)
    return UNROLL_OK;
  b->kernels[i] = clCreateKernel(l->program, l->kernel, &code);
  if (code != CL_SUCCESS)
    return opencl_error(e->device, err, code, "clCreateKernel", l->kernel);
  TRY(choose_group(b, i, err));
  for (uint32_t k = 0; k < l->n_args; k++) {
    const pace when = pace_of(e, l, &e->args[l->first_arg + k]);
    if (when == FIXED)
      TRY(exec_set_arg(b, i, k, &nothing, err));
    else if (when == EACH_RUN)
      b->run_args[b->n_run_args++] = (moving_arg){i, k};
    else
      b->step_args[b->n_step_args++] = (moving_arg){i, k};
  }
  return UNROLL_OK;
}

static unroll_status bind_all(unroll_backend_binding *b, const unroll_slot *slots, uint32_t slot_stride,
                              unroll_error *err) {
  const unroll_backend_exec *e = b->exec;
  const unroll_host *host = e->device->host;
  b->kernels = opencl_alloc(host, e->n_launches, sizeof(cl_kernel));
  b->slots = opencl_alloc(host, b->n_slots, sizeof *b->slots);
  b->run_args = opencl_alloc(host, e->n_args, sizeof *b->run_args);
  b->step_args = opencl_alloc(host, e->n_args, sizeof *b->step_args);
  b->generations = opencl_alloc(host, e->n_launches, sizeof *b->generations);
  b->items = opencl_alloc(host, e->n_launches, sizeof *b->items);
  b->groups = opencl_alloc(host, e->n_launches, sizeof *b->groups);
  if (!b->kernels || !b->slots || !b->run_args || !b->step_args || !b->generations || !b->items || !b->groups)
    return opencl_fail(err, UNROLL_E_MEMORY, 0, "opencl: no memory to bind %u launches", e->n_launches);
  for (uint32_t i = 0; i < b->n_slots; i++) {
    const unroll_slot *s = (const unroll_slot *)((const char *)slots + (size_t)i * slot_stride);
    b->slots[i] = (unroll_slot){.buffer = s->buffer, .offset = s->offset, .bytes = s->bytes};
  }
  TRY(check_slots(b, err));
  b->apart = slots_apart(b);
  TRY(make_buffer(e->device, e->packed, &b->packed, err));
  TRY(make_buffer(e->device, e->temp, &b->temp, err));
  TRY(make_claims(e->device, e->claims, &b->claims, err));
  for (uint32_t i = 0; i < e->n_launches; i++)
    TRY(bind_launch(b, i, err));
  TRY(commands_bind(b, err));
  return UNROLL_OK;
}

unroll_status exec_bind(unroll_backend_exec *e, const unroll_slot *slots, uint32_t n_slots, uint32_t slot_stride,
                        unroll_backend_buffer *workspace, uint64_t workspace_offset, unroll_backend_binding **out,
                        unroll_error *err) {
  if (e->workspace &&
      (!workspace || workspace_offset > workspace->bytes || e->workspace > workspace->bytes - workspace_offset))
    return opencl_fail(err, UNROLL_E_INVALID, 0, "opencl: bind: no workspace, or too small: %llu bytes are needed",
                       (unsigned long long)e->workspace);
  if (n_slots && (!slots || slot_stride < UNROLL_SIZE_TO(unroll_slot, bytes)))
    return opencl_fail(err, UNROLL_E_INVALID, 0, "opencl: bind: %u slots %u bytes apart", n_slots, slot_stride);
  unroll_backend_binding *b = opencl_alloc(e->device->host, 1, sizeof *b);
  if (!b)
    return opencl_fail(err, UNROLL_E_MEMORY, 0, "opencl: no memory for a binding");
  b->exec = e;
  b->n_slots = n_slots;
  b->workspace = workspace ? workspace->mem : NULL;
  b->workspace_offset = workspace_offset;
  const unroll_status status = bind_all(b, slots, slot_stride, err);
  if (status != UNROLL_OK) {
    binding_destroy(b);
    return status;
  }
  *out = b;
  return UNROLL_OK;
}

void binding_destroy(unroll_backend_binding *b) {
  if (!b)
    return;
  const unroll_host *host = b->exec->device->host;
  commands_unbind(b);
  for (uint32_t i = 0; b->kernels && i < b->exec->n_launches; i++)
    if (b->kernels[i])
      clReleaseKernel(b->kernels[i]);
  if (b->packed)
    clReleaseMemObject(b->packed);
  if (b->temp)
    clReleaseMemObject(b->temp);
  if (b->claims)
    clReleaseMemObject(b->claims);
  opencl_free(host, b->kernels);
  opencl_free(host, b->slots);
  opencl_free(host, b->run_args);
  opencl_free(host, b->step_args);
  opencl_free(host, b->generations);
  opencl_free(host, b->items);
  opencl_free(host, b->groups);
  opencl_free(host, b);
}
