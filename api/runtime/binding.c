/* SPDX-License-Identifier: Apache-2.0 */
/* binding.c: an executable tied to memory; getting data in and out. */
#include "runtime/runtime_private.h"
#include <inttypes.h>
#include <string.h>

/* ---- what bindings share ---- */

unroll_status queue_make(unroll_device *d, shared_queue **out, unroll_error *err) {
  const unroll_allocator *a = &d->ctx->allocator;
  shared_queue *q = mem_zalloc(a, sizeof *q);
  if (!q)
    return fail(err, UNROLL_E_MEMORY, "out of memory for a queue of %s", d->id);
  const unroll_status st = d->ops->queue_create(d->handle, 0, &q->handle, err);
  if (st != UNROLL_OK) {
    mem_free(a, q);
    return st;
  }
  q->references = 1;
  *out = q;
  return UNROLL_OK;
}

shared_queue *queue_root(shared_queue *q) {
  while (q->merged)
    q = q->merged;
  return q;
}

unroll_backend_queue *binding_queue(const unroll_binding *b, uint32_t d) { return queue_root(b->queues[d])->handle; }

void queue_drop(unroll_device *d, shared_queue *q) {
  while (q && --q->references == 0) {
    shared_queue *into = q->merged;
    if (q->handle)
      d->ops->queue_destroy(q->handle);
    mem_free(&d->ctx->allocator, q);
    q = into;
  }
}

/* Nothing is queued on `from` any more. */
static void queue_merge(unroll_device *d, shared_queue *from, shared_queue *into) {
  from = queue_root(from);
  into = queue_root(into);
  if (from == into)
    return;
  d->ops->queue_destroy(from->handle);
  from->handle = NULL;
  from->merged = into;
  into->references++;
}

static void buffer_drop(shared_buffer *s) {
  if (!s || --s->references > 0)
    return;
  unroll_device *d = s->device;
  d->ops->buffer_destroy(s->handle);
  mem_free(&d->ctx->allocator, s);
}

static uint64_t next_generation(unroll_context *ctx) { return atomic_fetch_add(&ctx->generation, 1) + 1; }

void binding_touch(unroll_binding *b, uint32_t outside_id) {
  b->buffers[outside_id]->generation = next_generation(b->exe->ctx);
}

unroll_status binding_buffer(unroll_binding *b, uint32_t i, unroll_error *err) {
  if (b->buffers[i])
    return UNROLL_OK;
  unroll_executable *e = b->exe;
  const outside *o = &e->outsides[i];
  unroll_device *d = e->devices.device[o->device];
  const unroll_allocator *a = &e->ctx->allocator;
  shared_buffer *s = mem_zalloc(a, sizeof *s);
  if (!s)
    return fail(err, UNROLL_E_MEMORY, "out of memory for %s", e->graph->tensors[o->tensor].name);
  unroll_error why = UNROLL_ERROR_INIT;
  unroll_status st = d->ops->buffer_create(d->handle, o->bytes, 0, &s->handle, &why);
  if (st == UNROLL_OK)
    st = d->ops->fill(binding_queue(b, o->device), s->handle, 0, o->bytes, 0, NULL, &why);
  if (st != UNROLL_OK) {
    if (s->handle)
      d->ops->buffer_destroy(s->handle);
    mem_free(a, s);
    return fail_native(err, st, why.native, "%s, %" PRIu64 " bytes on %s: %s", e->graph->tensors[o->tensor].name,
                       o->bytes, d->id, why.message);
  }
  *s = (shared_buffer){d, s->handle, next_generation(e->ctx), 1};
  b->buffers[i] = s;
  return UNROLL_OK;
}

/* ---- life ---- */

static void unprepare(unroll_binding *b) {
  unroll_executable *e = b->exe;
  for (uint32_t i = 0; i < e->n_groups; i++) {
    if (b->groups[i])
      e->devices.device[e->groups[i].device]->ops->binding_destroy(b->groups[i]);
    b->groups[i] = NULL;
  }
  b->prepared = false;
}

void unroll_binding_destroy(unroll_binding *b) {
  if (!b)
    return;
  unroll_executable *e = b->exe;
  const unroll_allocator *a = &e->ctx->allocator;
  unroll_binding_sync(b, NULL); /* nothing queued may outlive what it works on */
  if (b->groups)
    unprepare(b);
  for (uint32_t d = 0; d < e->devices.n; d++) {
    unroll_device *dev = e->devices.device[d];
    for (uint32_t i = 0; b->arenas && b->arenas[d] && i < e->n_arenas[d]; i++)
      if (b->arenas[d][i])
        dev->ops->buffer_destroy(b->arenas[d][i]);
    if (b->arenas)
      mem_free(a, b->arenas[d]);
    if (b->workspace && b->workspace[d])
      dev->ops->buffer_destroy(b->workspace[d]);
  }
  for (uint32_t i = 0; b->buffers && i < e->n_outsides; i++)
    buffer_drop(b->buffers[i]);
  for (uint32_t d = 0; b->queues && d < e->devices.n; d++)
    queue_drop(e->devices.device[d], b->queues[d]);
  mem_free(a, b->queues);
  mem_free(a, b->arenas);
  mem_free(a, b->workspace);
  mem_free(a, b->buffers);
  mem_free(a, b->groups);
  mem_free(a, b->slots);
  mem_free(a, b->generations);
  mem_free(a, b->staging);
  mem_free(a, b->dims);
  mem_free(a, b);
}

unroll_status unroll_binding_create(unroll_executable *e, unroll_binding **out, unroll_error *err) {
  if (!e || !out)
    return fail(err, UNROLL_E_INVALID, "unroll_binding_create: an argument is NULL");
  *out = NULL;
  const unroll_allocator *a = &e->ctx->allocator;
  unroll_binding *b = mem_zalloc(a, sizeof *b);
  if (!b)
    return fail(err, UNROLL_E_MEMORY, "out of memory for a binding");
  b->exe = e;
  unroll_status st = UNROLL_OK;
  b->queues = mem_array(a, e->devices.n, sizeof *b->queues);
  b->arenas = mem_array(a, e->devices.n, sizeof *b->arenas);
  b->workspace = mem_array(a, e->devices.n, sizeof *b->workspace);
  b->buffers = mem_array(a, (uint64_t)e->n_outsides + 1, sizeof *b->buffers);
  b->groups = mem_array(a, (uint64_t)e->n_groups + 1, sizeof *b->groups);
  b->slots = mem_array(a, (uint64_t)e->n_slots + 1, sizeof *b->slots);
  b->generations = mem_array(a, (uint64_t)e->n_slots + 1, sizeof *b->generations);
  b->dims = mem_array(a, (uint64_t)e->graph->n_dims + 1, sizeof *b->dims);
  b->staging = e->largest_copy ? mem_alloc(a, e->largest_copy) : NULL;
  if (!b->queues || !b->arenas || !b->workspace || !b->buffers || !b->groups || !b->slots || !b->generations ||
      !b->dims || (e->largest_copy && !b->staging))
    st = fail(err, UNROLL_E_MEMORY, "out of memory for a binding");
  for (uint32_t d = 0; st == UNROLL_OK && d < e->devices.n; d++)
    st = queue_make(e->devices.device[d], &b->queues[d], err);
  if (st != UNROLL_OK) {
    unroll_binding_destroy(b);
    return st;
  }
  *out = b;
  return UNROLL_OK;
}

/* ---- scratch and the backends' own bindings, before the first run ---- */

static unroll_status scratch_get(unroll_binding *b, uint32_t d, unroll_error *err) {
  unroll_executable *e = b->exe;
  unroll_device *dev = e->devices.device[d];
  unroll_error why = UNROLL_ERROR_INIT;
  unroll_status st = UNROLL_OK;
  uint64_t bytes = e->workspace_bytes[d];
  if (!b->arenas[d] &&
      !(b->arenas[d] = mem_array(&e->ctx->allocator, (uint64_t)e->n_arenas[d] + 1, sizeof **b->arenas)))
    return fail(err, UNROLL_E_MEMORY, "out of memory for a binding");
  if (bytes && !b->workspace[d])
    st = dev->ops->buffer_create(dev->handle, bytes, 0, &b->workspace[d], &why);
  for (uint32_t i = 0; st == UNROLL_OK && i < e->n_arenas[d]; i++) {
    bytes = e->arenas[d][i];
    if (!b->arenas[d][i])
      st = dev->ops->buffer_create(dev->handle, bytes, 0, &b->arenas[d][i], &why);
  }
  return st == UNROLL_OK ? st
                         : fail_native(err, st, why.native, "scratch memory, %" PRIu64 " bytes on %s: %s", bytes,
                                       dev->id, why.message);
}

unroll_backend_buffer *binding_slot(const unroll_binding *b, uint32_t d, uint32_t slot) {
  const unroll_executable *e = b->exe;
  if (slot < e->n_outsides)
    return e->outsides[slot].device == d && b->buffers[slot] ? b->buffers[slot]->handle : NULL;
  return slot - e->n_outsides < e->n_arenas[d] ? b->arenas[d][slot - e->n_outsides] : NULL;
}

unroll_status binding_prepare(unroll_binding *b, unroll_error *err) {
  unroll_executable *e = b->exe;
  if (b->prepared)
    return UNROLL_OK;
  for (uint32_t i = 0; i < e->n_outsides; i++)
    TRY(binding_buffer(b, i, err));
  for (uint32_t d = 0; d < e->devices.n; d++) {
    unroll_device *dev = e->devices.device[d];
    TRY(scratch_get(b, d, err));
    for (uint32_t s = 0; s < e->n_slots; s++) {
      unroll_backend_buffer *handle = binding_slot(b, d, s);
      const uint64_t bytes = !handle ? 0 : s < e->n_outsides ? e->outsides[s].bytes : e->arenas[d][s - e->n_outsides];
      b->slots[s] = (unroll_slot){sizeof b->slots[s], 0, handle, 0, bytes};
    }
    for (uint32_t i = 0; i < e->n_groups; i++) {
      if (e->groups[i].device != d || b->groups[i])
        continue;
      unroll_error why = UNROLL_ERROR_INIT;
      const unroll_status st = dev->ops->bind(e->groups[i].exec, b->slots, e->n_slots, sizeof *b->slots,
                                              b->workspace[d], 0, &b->groups[i], &why);
      if (st != UNROLL_OK)
        return fail_native(err, st, why.native, "%s cannot bind its part of the graph: %s", dev->id, why.message);
    }
  }
  b->prepared = true;
  return UNROLL_OK;
}

/* ---- data ---- */

uint32_t executable_find(const unroll_executable *e, const char *name) {
  uint32_t i = 0;
  while (i < e->n_outsides && strcmp(e->graph->tensors[e->outsides[i].tensor].name, name) != 0)
    i++;
  return i < e->n_outsides ? i : GRAPH_NONE;
}

static unroll_status find(const unroll_binding *b, const char *name, uint32_t *index, unroll_error *err) {
  if (!b || !name)
    return fail(err, UNROLL_E_INVALID, "a binding and the name of a tensor are expected");
  *index = executable_find(b->exe, name);
  return *index != GRAPH_NONE
             ? UNROLL_OK
             : fail(err, UNROLL_E_NOT_FOUND, "no input, parameter, state or output is called %s", name);
}

static unroll_status check_bytes(const unroll_binding *b, uint32_t i, uint64_t bytes, unroll_error *err) {
  const outside *o = &b->exe->outsides[i];
  char text[GRAPH_DESCRIBE];
  if (bytes == o->bytes || (o->row_bytes < o->bytes && bytes > 0 && bytes < o->bytes && bytes % o->row_bytes == 0))
    return UNROLL_OK;
  return fail(err, UNROLL_E_SHAPE, "%s: %" PRIu64 " bytes, expected %" PRIu64 "%s",
              graph_describe(b->exe->graph, o->tensor, text), bytes, o->bytes,
              o->row_bytes < o->bytes ? " or fewer whole steps" : "");
}

unroll_status unroll_binding_write(unroll_binding *b, const char *name, const void *data, uint64_t bytes,
                                   unroll_error *err) {
  uint32_t i;
  TRY(find(b, name, &i, err));
  TRY(check_bytes(b, i, bytes, err));
  if (!data)
    return fail(err, UNROLL_E_INVALID, "%s: data is NULL", name);
  TRY(binding_buffer(b, i, err));
  const uint32_t d = b->exe->outsides[i].device;
  binding_touch(b, i);
  return b->exe->devices.device[d]->ops->write(binding_queue(b, d), b->buffers[i]->handle, 0, data, bytes, NULL, err);
}

unroll_status unroll_binding_read(unroll_binding *b, const char *name, void *data, uint64_t bytes, unroll_error *err) {
  uint32_t i;
  TRY(find(b, name, &i, err));
  TRY(check_bytes(b, i, bytes, err));
  if (!data)
    return fail(err, UNROLL_E_INVALID, "%s: data is NULL", name);
  TRY(binding_buffer(b, i, err));
  const uint32_t d = b->exe->outsides[i].device;
  return b->exe->devices.device[d]->ops->read(binding_queue(b, d), b->buffers[i]->handle, 0, data, bytes, NULL, err);
}

unroll_status unroll_binding_clear(unroll_binding *b, const char *name, unroll_error *err) {
  uint32_t i;
  TRY(find(b, name, &i, err));
  TRY(binding_buffer(b, i, err));
  const uint32_t d = b->exe->outsides[i].device;
  binding_touch(b, i);
  return b->exe->devices.device[d]->ops->fill(binding_queue(b, d), b->buffers[i]->handle, 0, b->exe->outsides[i].bytes,
                                              0, NULL, err);
}

/* b, and what shares memory with it, works in the order of other's queue from now on, on every device that both have. */
static void adopt_queues(unroll_binding *b, unroll_binding *other) {
  for (uint32_t d = 0; d < b->exe->devices.n; d++)
    for (uint32_t k = 0; k < other->exe->devices.n; k++)
      if (b->exe->devices.device[d] == other->exe->devices.device[k])
        queue_merge(b->exe->devices.device[d], b->queues[d], other->queues[k]);
}

unroll_status unroll_binding_share(unroll_binding *b, const char *name, unroll_binding *other, const char *other_name,
                                   unroll_error *err) {
  uint32_t i, k;
  TRY(find(b, name, &i, err));
  TRY(find(other, other_name, &k, err));
  char ta[GRAPH_DESCRIBE], tb[GRAPH_DESCRIBE];
  const outside *x = &b->exe->outsides[i], *y = &other->exe->outsides[k];
  const tensor *tx = &b->exe->graph->tensors[x->tensor], *ty = &other->exe->graph->tensors[y->tensor];
  if (tx->spec.dtype != ty->spec.dtype || x->bytes != y->bytes || tx->spec.rank != ty->spec.rank ||
      memcmp(tx->spec.shape, ty->spec.shape, sizeof tx->spec.shape) != 0)
    return fail(err, UNROLL_E_SHAPE, "%s cannot share the memory of %s", graph_describe(b->exe->graph, x->tensor, ta),
                graph_describe(other->exe->graph, y->tensor, tb));
  unroll_device *dx = b->exe->devices.device[x->device], *dy = other->exe->devices.device[y->device];
  if (dx != dy)
    return fail(err, UNROLL_E_STATE, "%s stands on %s, %s on %s: they cannot share memory", name, dx->id, other_name,
                dy->id);
  TRY(binding_buffer(other, k, err));
  TRY(unroll_binding_sync(b, err));
  adopt_queues(b, other);
  if (b->buffers[i] == other->buffers[k])
    return UNROLL_OK;
  unprepare(b);
  buffer_drop(b->buffers[i]);
  b->buffers[i] = other->buffers[k];
  b->buffers[i]->references++;
  return UNROLL_OK;
}
