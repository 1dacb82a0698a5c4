/* SPDX-License-Identifier: Apache-2.0 */
/* snapshot.c: copies of a binding's states in buffers of their own, on the devices of the executable. */
#include "runtime/runtime_private.h"
#include <inttypes.h>
#include <string.h>

typedef struct entry {
  uint32_t outside; /* of the executable */
  int32_t row_axis;
  unroll_backend_buffer *handle;
} entry;

struct unroll_snapshot {
  unroll_executable *exe;
  entry *entries;
  uint32_t n;
  /* Per device: where the last work on the buffers was queued, own[d] or a binding's; and one that no binding has. */
  shared_queue **queues, **own;
  snapshot_place place;
};

static const outside *outside_of(const unroll_snapshot *s, const entry *x) { return &s->exe->outsides[x->outside]; }
static const tensor *tensor_of(const unroll_snapshot *s, const entry *x) {
  return &s->exe->graph->tensors[outside_of(s, x)->tensor];
}
static unroll_device *device_of(const unroll_snapshot *s, const entry *x) {
  return s->exe->devices.device[outside_of(s, x)->device];
}

/* ---- which tensors ---- */

/* One of an optimizer's moments? They are its inputs after the scale. */
static bool is_moment(const unroll_graph *g, uint32_t tensor_id) {
  enum { FIRST_MOMENT = 5 };
  for (uint32_t i = 0; i < g->n_nodes; i++)
    if (g->nodes[i].op == UNROLL_OP_OPTIMIZER)
      for (uint32_t k = FIRST_MOMENT; k < g->nodes[i].n_in; k++)
        if (g->nodes[i].in[k] == tensor_id)
          return true;
  return false;
}

static uint32_t kind_of(const unroll_executable *e, uint32_t outside_id) {
  const uint32_t id = e->outsides[outside_id].tensor;
  const int32_t role = e->graph->tensors[id].role;
  if (role == UNROLL_ROLE_PARAM)
    return UNROLL_SNAPSHOT_PARAMS;
  if (role != UNROLL_ROLE_STATE)
    return 0;
  return is_moment(e->graph, id) ? UNROLL_SNAPSHOT_OPTIMIZER : UNROLL_SNAPSHOT_SEQUENCE;
}

/* The place of an outside tensor in the list of names; n_names where it is not there. */
static uint32_t place_in(const unroll_snapshot_options *o, const char *name) {
  uint32_t i = 0;
  while (i < o->n_names && strcmp(o->names[i], name) != 0)
    i++;
  return i;
}

static unroll_status check_names(const unroll_executable *e, const unroll_snapshot_options *o, unroll_error *err) {
  char text[GRAPH_DESCRIBE];
  for (uint32_t i = 0; i < o->n_names; i++) {
    if (!o->names[i])
      return fail(err, UNROLL_E_INVALID, "unroll_snapshot_options: names[%u] is NULL", i);
    const uint32_t k = executable_find(e, o->names[i]);
    if (k == GRAPH_NONE)
      return fail(err, UNROLL_E_NOT_FOUND, "no state or parameter is called %s", o->names[i]);
    if (kind_of(e, k) == 0)
      return fail(err, UNROLL_E_INVALID, "%s is an input or an output: a snapshot keeps states and parameters",
                  o->names[i]);
    if (place_in(o, o->names[i]) != i)
      return fail(err, UNROLL_E_INVALID, "%s is named twice", o->names[i]);
    const int32_t rank = e->graph->tensors[e->outsides[k].tensor].spec.rank;
    const int32_t axis = o->row_axes ? o->row_axes[i] : 0;
    if (axis < 0 || (axis > 0 && axis >= rank))
      return fail(err, UNROLL_E_RANGE, "%s has no axis %d for rows",
                  graph_describe(e->graph, e->outsides[k].tensor, text), axis);
  }
  return UNROLL_OK;
}

static unroll_status check_options(const unroll_executable *e, const unroll_snapshot_options *o, unroll_error *err) {
  const uint32_t all = UNROLL_SNAPSHOT_SEQUENCE | UNROLL_SNAPSHOT_OPTIMIZER | UNROLL_SNAPSHOT_PARAMS;
  if (!UNROLL_HAS(unroll_snapshot_options, o, row_axes))
    return fail(err, UNROLL_E_INVALID, "unroll_snapshot_options: struct_size is %u, expected at least %zu",
                o->struct_size, sizeof *o);
  if (!o->names && (o->what & ~all))
    return fail(err, UNROLL_E_INVALID, "unroll_snapshot_options: what is %u, expected UNROLL_SNAPSHOT_* or'ed",
                o->what);
  if (!o->names && (o->n_names || o->row_axes))
    return fail(err, UNROLL_E_INVALID, "unroll_snapshot_options: n_names or row_axes, but names is NULL");
  return o->names ? check_names(e, o, err) : UNROLL_OK;
}

static unroll_status choose_entries(unroll_snapshot *s, const unroll_snapshot_options *o, unroll_error *err) {
  const unroll_executable *e = s->exe;
  const uint32_t what = o && o->what ? o->what : UNROLL_SNAPSHOT_SEQUENCE;
  for (uint32_t i = 0; i < e->n_outsides; i++) {
    int32_t axis = 0;
    if (o && o->names) {
      const uint32_t k = place_in(o, e->graph->tensors[e->outsides[i].tensor].name);
      if (k == o->n_names)
        continue;
      axis = o->row_axes ? o->row_axes[k] : 0;
    } else if (!(kind_of(e, i) & what))
      continue;
    s->entries[s->n++] = (entry){i, axis, NULL};
  }
  return s->n ? UNROLL_OK
              : fail(err, UNROLL_E_NOT_FOUND, "the graph has none of the states that the snapshot asks for");
}

/* ---- queues ---- */

/* From now on work on the buffers of device d is queued on q, behind what they were last used for. */
static unroll_status move_to(unroll_snapshot *s, uint32_t d, shared_queue *q, unroll_error *err) {
  unroll_device *dev = s->exe->devices.device[d];
  const shared_queue *now = queue_root(s->queues[d]);
  q = queue_root(q);
  if (now == q)
    return UNROLL_OK;
  TRY(dev->ops->queue_sync(now->handle, err));
  q->references++;
  queue_drop(dev, s->queues[d]);
  s->queues[d] = q;
  return UNROLL_OK;
}

static unroll_backend_queue *queue_of(const unroll_snapshot *s, const entry *x) {
  return queue_root(s->queues[outside_of(s, x)->device])->handle;
}

unroll_status unroll_snapshot_sync(unroll_snapshot *s, unroll_error *err) {
  if (!s)
    return fail(err, UNROLL_E_INVALID, "unroll_snapshot_sync: the snapshot is NULL");
  for (uint32_t d = 0; d < s->exe->devices.n; d++) {
    TRY(s->exe->devices.device[d]->ops->queue_sync(queue_root(s->queues[d])->handle, err));
    TRY(move_to(s, d, s->own[d], err));
  }
  return UNROLL_OK;
}

/* ---- life ---- */

void unroll_snapshot_destroy(unroll_snapshot *s) {
  if (!s)
    return;
  const unroll_allocator *a = &s->exe->ctx->allocator;
  for (uint32_t i = 0; i < s->n; i++)
    if (s->entries[i].handle)
      device_of(s, &s->entries[i])->ops->buffer_destroy(s->entries[i].handle);
  for (uint32_t d = 0; d < s->exe->devices.n; d++) {
    if (s->queues)
      queue_drop(s->exe->devices.device[d], s->queues[d]);
    if (s->own)
      queue_drop(s->exe->devices.device[d], s->own[d]);
  }
  mem_free(a, s->entries);
  mem_free(a, s->queues);
  mem_free(a, s->own);
  mem_free(a, s);
}

static unroll_status fill_all(unroll_snapshot *s, unroll_error *err) {
  for (uint32_t i = 0; i < s->n; i++) {
    const entry *x = &s->entries[i];
    TRY(device_of(s, x)->ops->fill(queue_of(s, x), x->handle, 0, outside_of(s, x)->bytes, 0, NULL, err));
  }
  s->place = (snapshot_place){0};
  return UNROLL_OK;
}

static unroll_status make(unroll_snapshot *s, const unroll_snapshot_options *o, unroll_error *err) {
  const unroll_executable *e = s->exe;
  const unroll_allocator *a = &e->ctx->allocator;
  s->entries = mem_array(a, (uint64_t)e->n_outsides + 1, sizeof *s->entries);
  s->queues = mem_array(a, e->devices.n, sizeof(shared_queue *));
  s->own = mem_array(a, e->devices.n, sizeof(shared_queue *));
  if (!s->entries || !s->queues || !s->own)
    return fail(err, UNROLL_E_MEMORY, "out of memory for a snapshot");
  TRY(choose_entries(s, o, err));
  for (uint32_t d = 0; d < e->devices.n; d++) {
    TRY(queue_make(e->devices.device[d], &s->own[d], err));
    s->queues[d] = s->own[d];
    s->own[d]->references++;
  }
  for (uint32_t i = 0; i < s->n; i++) {
    entry *x = &s->entries[i];
    const uint64_t bytes = outside_of(s, x)->bytes;
    unroll_device *dev = device_of(s, x);
    unroll_error why = UNROLL_ERROR_INIT;
    const unroll_status st = dev->ops->buffer_create(dev->handle, bytes, 0, &x->handle, &why);
    if (st != UNROLL_OK)
      return fail_native(err, st, why.native, "a snapshot of %s, %" PRIu64 " bytes on %s: %s", tensor_of(s, x)->name,
                         bytes, dev->id, why.message);
  }
  return unroll_snapshot_clear(s, err);
}

unroll_status unroll_snapshot_create(unroll_executable *e, const unroll_snapshot_options *options,
                                     unroll_snapshot **out, unroll_error *err) {
  if (!e || !out)
    return fail(err, UNROLL_E_INVALID, "unroll_snapshot_create: an argument is NULL");
  *out = NULL;
  if (options)
    TRY(check_options(e, options, err));
  unroll_snapshot *s = mem_zalloc(&e->ctx->allocator, sizeof *s);
  if (!s)
    return fail(err, UNROLL_E_MEMORY, "out of memory for a snapshot");
  s->exe = e;
  const unroll_status st = make(s, options, err);
  if (st != UNROLL_OK) {
    unroll_snapshot_destroy(s);
    return st;
  }
  *out = s;
  return UNROLL_OK;
}

uint32_t unroll_snapshot_count(const unroll_snapshot *s) { return s ? s->n : 0; }

unroll_tensor_info unroll_snapshot_describe(const unroll_snapshot *s, uint32_t i) {
  if (!s || i >= s->n)
    return unroll_tensor_describe(unroll_none());
  return unroll_tensor_describe((unroll_tensor){s->exe->graph, outside_of(s, &s->entries[i])->tensor});
}

snapshot_place *snapshot_place_of(unroll_snapshot *s) { return &s->place; }
const unroll_allocator *snapshot_allocator(const unroll_snapshot *s) { return &s->exe->ctx->allocator; }

/* ---- where its tensors are in another executable ---- */

static unroll_status check_same(const unroll_snapshot *s, const entry *x, const unroll_executable *e, uint32_t k,
                                unroll_error *err) {
  const outside *o = &e->outsides[k];
  const tensor_spec *a = &tensor_of(s, x)->spec, *b = &e->graph->tensors[o->tensor].spec;
  char ta[GRAPH_DESCRIBE], tb[GRAPH_DESCRIBE];
  if (a->dtype != b->dtype || a->rank != b->rank || memcmp(a->shape, b->shape, sizeof a->shape) != 0)
    return fail(err, UNROLL_E_SHAPE, "the snapshot has %s, the other side %s",
                graph_describe(s->exe->graph, outside_of(s, x)->tensor, ta), graph_describe(e->graph, o->tensor, tb));
  unroll_device *there = e->devices.device[o->device];
  if (there != device_of(s, x))
    return fail(err, UNROLL_E_STATE, "%s stands on %s, the snapshot's on %s: go through a file, or read and write",
                tensor_of(s, x)->name, there->id, device_of(s, x)->id);
  return UNROLL_OK;
}

/* Of an entry whose place was checked. */
static uint32_t place_at(const unroll_snapshot *s, const entry *x, const unroll_executable *e) {
  return e == s->exe ? x->outside : executable_find(e, tensor_of(s, x)->name);
}

static unroll_status check_binding(const unroll_snapshot *s, const unroll_binding *b, const char *call,
                                   unroll_error *err) {
  if (!s || !b)
    return fail(err, UNROLL_E_INVALID, "%s: a snapshot and a binding are expected", call);
  for (uint32_t i = 0; b->exe != s->exe && i < s->n; i++) {
    const char *name = tensor_of(s, &s->entries[i])->name;
    const uint32_t k = executable_find(b->exe, name);
    if (k == GRAPH_NONE || kind_of(b->exe, k) == 0)
      return fail(err, UNROLL_E_NOT_FOUND, "the snapshot has %s: no state or parameter of the binding is called so",
                  name);
    TRY(check_same(s, &s->entries[i], b->exe, k, err));
  }
  return UNROLL_OK;
}

/* ---- between snapshot and binding ---- */

/* Queue and buffers of both sides are ready for copies. */
static unroll_status meet(unroll_snapshot *s, unroll_binding *b, unroll_error *err) {
  for (uint32_t i = 0; i < s->n; i++) {
    const uint32_t k = place_at(s, &s->entries[i], b->exe);
    TRY(binding_buffer(b, k, err));
    TRY(move_to(s, outside_of(s, &s->entries[i])->device, b->queues[b->exe->outsides[k].device], err));
  }
  return UNROLL_OK;
}

typedef struct span {
  uint64_t in_snapshot, in_binding, bytes;
} span;

static unroll_status copy_span(const unroll_snapshot *s, const entry *x, unroll_binding *b, uint32_t k, bool save,
                               span c, unroll_error *err) {
  const unroll_backend_ops *ops = device_of(s, x)->ops;
  unroll_backend_buffer *there = b->buffers[k]->handle;
  return save ? ops->copy(queue_of(s, x), x->handle, c.in_snapshot, there, c.in_binding, c.bytes, NULL, err)
              : ops->copy(queue_of(s, x), there, c.in_binding, x->handle, c.in_snapshot, c.bytes, NULL, err);
}

static unroll_status copy_all(unroll_snapshot *s, unroll_binding *b, bool save, unroll_error *err) {
  TRY(meet(s, b, err));
  for (uint32_t i = 0; i < s->n; i++) {
    const entry *x = &s->entries[i];
    const uint32_t k = place_at(s, x, b->exe);
    if (!save)
      binding_touch(b, k);
    TRY(copy_span(s, x, b, k, save, (span){0, 0, outside_of(s, x)->bytes}, err));
  }
  return UNROLL_OK;
}

static unroll_status check_next(const unroll_run_options *next, unroll_error *err) {
  if (next && !UNROLL_HAS(unroll_run_options, next, row0))
    return fail(err, UNROLL_E_INVALID, "unroll_run_options: struct_size is %u, expected at least %zu",
                next->struct_size, sizeof *next);
  return UNROLL_OK;
}

unroll_status unroll_snapshot_save(unroll_snapshot *s, unroll_binding *b, const unroll_run_options *next,
                                   unroll_error *err) {
  TRY(check_binding(s, b, "unroll_snapshot_save", err));
  TRY(check_next(next, err));
  TRY(copy_all(s, b, true, err));
  s->place = next ? (snapshot_place){next->seed, next->update, next->t0, next->row0} : (snapshot_place){0};
  return UNROLL_OK;
}

unroll_status unroll_snapshot_restore(unroll_snapshot *s, unroll_binding *b, unroll_run_options *next,
                                      unroll_error *err) {
  TRY(check_binding(s, b, "unroll_snapshot_restore", err));
  TRY(check_next(next, err));
  TRY(copy_all(s, b, false, err));
  if (next) {
    next->seed = s->place.seed;
    next->update = s->place.update;
    next->t0 = s->place.t0;
    next->row0 = s->place.row0;
  }
  return UNROLL_OK;
}

/* ---- rows ---- */

static unroll_status check_row(const unroll_snapshot *s, int64_t row, unroll_error *err) {
  char text[GRAPH_DESCRIBE];
  for (uint32_t i = 0; i < s->n; i++) {
    const entry *x = &s->entries[i];
    const tensor_spec *spec = &tensor_of(s, x)->spec;
    const char *what = graph_describe(s->exe->graph, outside_of(s, x)->tensor, text);
    if (x->row_axis >= spec->rank)
      return fail(err, UNROLL_E_SHAPE, "%s has no axis %d, so no rows of a batch", what, x->row_axis);
    if (row < 0 || row >= spec->shape[x->row_axis])
      return fail(err, UNROLL_E_RANGE, "row %" PRId64 " of %s, expected 0 to %" PRId64, row, what,
                  spec->shape[x->row_axis] - 1);
  }
  return UNROLL_OK;
}

static unroll_status copy_row(unroll_snapshot *s, int64_t row, unroll_binding *b, int64_t row_there, bool save,
                              unroll_error *err) {
  TRY(check_row(s, row, err));
  TRY(check_row(s, row_there, err));
  TRY(meet(s, b, err));
  for (uint32_t i = 0; i < s->n; i++) {
    const entry *x = &s->entries[i];
    const uint32_t k = place_at(s, x, b->exe);
    const tensor_spec *spec = &tensor_of(s, x)->spec;
    uint64_t blocks = 1;
    for (int32_t axis = 0; axis < x->row_axis; axis++)
      blocks *= (uint64_t)spec->shape[axis];
    const uint64_t rows = (uint64_t)spec->shape[x->row_axis];
    const uint64_t bytes = blocks ? outside_of(s, x)->bytes / blocks / rows : 0;
    if (!save)
      binding_touch(b, k);
    for (uint64_t block = 0; block < blocks; block++) {
      const span c = {(block * rows + (uint64_t)row) * bytes, (block * rows + (uint64_t)row_there) * bytes, bytes};
      TRY(copy_span(s, x, b, k, save, c, err));
    }
  }
  return UNROLL_OK;
}

unroll_status unroll_snapshot_save_row(unroll_snapshot *s, int64_t to_row, unroll_binding *b, int64_t from_row,
                                       unroll_error *err) {
  TRY(check_binding(s, b, "unroll_snapshot_save_row", err));
  return copy_row(s, to_row, b, from_row, true, err);
}

unroll_status unroll_snapshot_restore_row(unroll_snapshot *s, int64_t from_row, unroll_binding *b, int64_t to_row,
                                          unroll_error *err) {
  TRY(check_binding(s, b, "unroll_snapshot_restore_row", err));
  return copy_row(s, from_row, b, to_row, false, err);
}

/* ---- from snapshot to snapshot, and the host ---- */

static const entry *entry_named(const unroll_snapshot *s, const char *name) {
  for (uint32_t i = 0; i < s->n; i++)
    if (strcmp(tensor_of(s, &s->entries[i])->name, name) == 0)
      return &s->entries[i];
  return NULL;
}

unroll_status unroll_snapshot_copy(unroll_snapshot *s, unroll_snapshot *from, unroll_error *err) {
  if (!s || !from)
    return fail(err, UNROLL_E_INVALID, "unroll_snapshot_copy: an argument is NULL");
  if (s == from)
    return UNROLL_OK;
  for (uint32_t i = 0; i < s->n; i++) {
    const char *name = tensor_of(s, &s->entries[i])->name;
    const entry *y = entry_named(from, name);
    if (!y)
      return fail(err, UNROLL_E_NOT_FOUND, "the snapshot that is copied from does not keep %s", name);
    TRY(check_same(s, &s->entries[i], from->exe, y->outside, err));
  }
  for (uint32_t i = 0; i < s->n; i++) {
    const entry *x = &s->entries[i], *y = entry_named(from, tensor_of(s, x)->name);
    TRY(move_to(s, outside_of(s, x)->device, from->queues[outside_of(from, y)->device], err));
    TRY(device_of(s, x)->ops->copy(queue_of(s, x), x->handle, 0, y->handle, 0, outside_of(s, x)->bytes, NULL, err));
  }
  s->place = from->place;
  return UNROLL_OK;
}

unroll_status unroll_snapshot_clear(unroll_snapshot *s, unroll_error *err) {
  if (!s)
    return fail(err, UNROLL_E_INVALID, "unroll_snapshot_clear: the snapshot is NULL");
  return fill_all(s, err);
}

static unroll_status check_data(const unroll_snapshot *s, const char *name, const void *data, uint64_t bytes,
                                const entry **found, unroll_error *err) {
  if (!s || !name)
    return fail(err, UNROLL_E_INVALID, "a snapshot and the name of a tensor are expected");
  const entry *x = *found = entry_named(s, name);
  if (!x)
    return fail(err, UNROLL_E_NOT_FOUND, "the snapshot keeps nothing called %s", name);
  char text[GRAPH_DESCRIBE];
  if (bytes != outside_of(s, x)->bytes)
    return fail(err, UNROLL_E_SHAPE, "%s: %" PRIu64 " bytes, expected %" PRIu64,
                graph_describe(s->exe->graph, outside_of(s, x)->tensor, text), bytes, outside_of(s, x)->bytes);
  return data ? UNROLL_OK : fail(err, UNROLL_E_INVALID, "%s: data is NULL", name);
}

unroll_status unroll_snapshot_write(unroll_snapshot *s, const char *name, const void *data, uint64_t bytes,
                                    unroll_error *err) {
  const entry *x = NULL;
  TRY(check_data(s, name, data, bytes, &x, err));
  return device_of(s, x)->ops->write(queue_of(s, x), x->handle, 0, data, bytes, NULL, err);
}

unroll_status snapshot_read_bytes(unroll_snapshot *s, uint32_t i, uint64_t offset, void *to, uint64_t bytes,
                                  unroll_error *err) {
  const entry *x = &s->entries[i];
  return device_of(s, x)->ops->read(queue_of(s, x), x->handle, offset, to, bytes, NULL, err);
}

unroll_status unroll_snapshot_read(unroll_snapshot *s, const char *name, void *data, uint64_t bytes,
                                   unroll_error *err) {
  const entry *x = NULL;
  TRY(check_data(s, name, data, bytes, &x, err));
  return snapshot_read_bytes(s, (uint32_t)(x - s->entries), 0, data, bytes, err);
}
