/* SPDX-License-Identifier: Apache-2.0 */
/* A layer: its table, which passes every call on with the handles unwrapped, and its objects from birth to grave. */
#include "plugins/wrap_private.h"
#include <stdio.h>
#include <string.h>
#include <time.h>

const char *wrap_function_name(int32_t function) {
  static const char *const names[] = {
#define FUNCTION_NAME(name) #name,
      WRAP_FUNCTIONS(FUNCTION_NAME)
#undef FUNCTION_NAME
  };
  return names[function];
}

const char *wrap_type_name(uint32_t type) {
  static const char *const names[WRAP_TYPES] = {"device", "queue", "buffer", "executable", "binding", "event"};
  return names[type];
}

uint64_t wrap_now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * UINT64_C(1000000000) + (uint64_t)t.tv_nsec;
}

struct wrap_name wrap_name_of(const struct wrap_object *o) {
  struct wrap_name name;
  const char *id = ((const struct wrap_device *)(const void *)o->device)->id;
  if (o->type == WRAP_DEVICE) {
    (void)snprintf(name.text, sizeof name.text, "device %u (%s)", o->serial, id);
  } else {
    (void)snprintf(name.text, sizeof name.text, "%s %u of %s", wrap_type_name(o->type), o->serial, id);
  }
  return name;
}

/* ---- objects ---- */
static void list_add(struct wrap_list *list, struct wrap_object *o) {
  o->older = list->newest;
  o->newer = NULL;
  *(list->newest ? &list->newest->newer : &list->oldest) = o;
  list->newest = o;
  list->n++;
}

static void list_remove(struct wrap_list *list, struct wrap_object *o) {
  *(o->older ? &o->older->newer : &list->oldest) = o->newer;
  *(o->newer ? &o->newer->older : &list->newest) = o->older;
  o->older = o->newer = NULL;
  list->n--;
}

static void object_free(struct wrap_object *o) {
  struct wrap_layer *w = o->layer;
  w->kind->dispose(o);
  o->magic = 0;
  mem_free(&w->allocator, o);
}

static void *object_make(struct wrap_layer *w, uint32_t type, struct wrap_object *parent) {
  struct wrap_object *o = mem_zalloc(&w->allocator, w->kind->size[type]);
  if (o) {
    o->magic = WRAP_MAGIC;
    o->layer = w;
    o->type = type;
    o->parent = parent;
    o->device = parent ? parent->device : o;
    o->born_ns = wrap_now_ns();
  }
  return o;
}

static void object_live(struct wrap_object *o) {
  struct wrap_layer *w = o->layer;
  pthread_mutex_lock(&w->mutex);
  o->serial = ++w->serial[o->type];
  list_add(&w->live[o->type], o);
  pthread_mutex_unlock(&w->mutex);
}

void wrap_bury(struct wrap_object *o) {
  struct wrap_layer *w = o->layer;
  struct wrap_object *oldest = NULL;
  if (w->kind->disposes_early) {
    w->kind->dispose(o);
  }
  pthread_mutex_lock(&w->mutex);
  o->dead = true;
  list_remove(&w->live[o->type], o);
  list_add(&w->dead, o);
  if (w->dead.n > WRAP_DEAD_MAX) {
    oldest = w->dead.oldest;
    list_remove(&w->dead, oldest);
  }
  pthread_mutex_unlock(&w->mutex);
  if (oldest) {
    object_free(oldest);
  }
}

struct wrap_object *wrap_binding_of(struct wrap_layer *w, const unroll_backend_binding *inner, uint64_t end_ns) {
  struct wrap_object *near = NULL;
  if (!inner) {
    return NULL;
  }
  pthread_mutex_lock(&w->mutex);
  for (int dead = 0; dead < 2; dead++) {
    for (struct wrap_object *o = dead ? w->dead.newest : w->live[WRAP_BINDING].newest; o; o = o->older) {
      if (o->type != WRAP_BINDING || o->inner != inner) {
        continue;
      }
      if (o->born_ns <= end_ns) {
        pthread_mutex_unlock(&w->mutex);
        return o;
      }
      near = near ? near : o; /* the device's clock is only as near as it can be brought */
    }
  }
  pthread_mutex_unlock(&w->mutex);
  return near;
}

unroll_profile_span wrap_span(const unroll_profile_span *span, struct wrap_object *binding) {
  unroll_profile_span s = {0};
  const size_t n = span->struct_size < sizeof s ? span->struct_size : sizeof s;
  memcpy(&s, span, n);
  s.struct_size = (uint32_t)n;
  s.binding = (unroll_backend_binding *)(void *)binding;
  return s;
}

/* ---- a call on its way ---- */
static const unroll_backend_ops *ops_of(const struct wrap_call *c) { return c->layer->inner_ops; }

static struct wrap_object *object_of(const void *handle) { return (struct wrap_object *)(uintptr_t)handle; }

#define INNER(type, call, i) ((unroll_backend_##type *)(call)->object[i]->inner)

unroll_slot wrap_slot(const struct wrap_call *c, uint32_t i) {
  unroll_slot slot = {0};
  if (c->slot_stride >= sizeof slot) {
    memcpy(&slot, (const char *)c->slots + (size_t)i * c->slot_stride, sizeof slot);
  }
  return slot;
}

/* makes: a type, or WRAP_TYPES for none. */
static unroll_status enter(struct wrap_call *c, uint32_t makes, struct wrap_object *parent, unroll_error *err) {
  const char *name = wrap_function_name(c->function);
  for (uint32_t i = 0; i < c->n_objects; i++) {
    const struct wrap_object *o = c->object[i];
    if (o && o->magic == WRAP_MAGIC) {
      c->layer = c->layer ? c->layer : o->layer;
      continue;
    }
    if (c->layer) {
      log_message(&c->layer->logger, UNROLL_LOG_ERROR, "%s: %s: handle %u is %s", c->layer->kind->word, name, i,
                  o ? "none of this backend" : "NULL");
    }
    return fail(err, UNROLL_E_STATE, "%s: handle %u is %s", name, i, o ? "none of this backend" : "NULL");
  }
  struct wrap_layer *w = c->layer;
  if (makes < WRAP_TYPES && !(c->made = object_make(w, makes, parent))) {
    return fail(err, UNROLL_E_MEMORY, "out of memory for a wrapped %s", wrap_type_name(makes));
  }
  const unroll_status status = w->kind->enter(c, err);
  if (status != UNROLL_OK) {
    if (c->made) {
      object_free(c->made);
    }
    return status;
  }
  pthread_mutex_lock(&w->mutex);
  w->calls++;
  pthread_mutex_unlock(&w->mutex);
  return UNROLL_OK;
}

static unroll_status leave(struct wrap_call *c, unroll_status status) {
  struct wrap_layer *w = c->layer;
  w->kind->leave(c, status);
  pthread_mutex_lock(&w->mutex);
  w->calls--;
  pthread_mutex_unlock(&w->mutex);
  return status;
}

/* Of a call that makes something. inner: what the backend made; out: the address of the host's handle, NULL for no event. */
static unroll_status leave_made(struct wrap_call *c, unroll_status status, void *inner, void *out) {
  struct wrap_object *made = c->made;
  const bool is_made = made && status == UNROLL_OK && inner;
  if (is_made) {
    made->inner = inner;
    object_live(made);
  } else {
    c->made = NULL;
  }
  if (out && status == UNROLL_OK) {
    memcpy(out, &c->made, sizeof c->made);
  }
  (void)leave(c, status);
  if (made && !is_made) {
    object_free(made);
  }
  return status;
}

static uint32_t event_type(unroll_backend_event **event) { return event ? WRAP_EVENT : WRAP_TYPES; }

/* ---- devices ---- */
static struct wrap_layer *layer_of(unroll_backend *backend) { return (struct wrap_layer *)(void *)backend; }

static unroll_status device_count(unroll_backend *backend, uint32_t *n, unroll_error *err) {
  struct wrap_call c = {.layer = layer_of(backend), .function = WRAP_FN_device_count};
  TRY(enter(&c, WRAP_TYPES, NULL, err));
  return leave(&c, ops_of(&c)->device_count(c.layer->inner, n, err));
}

static unroll_status device_info(unroll_backend *backend, uint32_t i, unroll_device_info *info, unroll_error *err) {
  struct wrap_call c = {.layer = layer_of(backend), .function = WRAP_FN_device_info, .index = i};
  TRY(enter(&c, WRAP_TYPES, NULL, err));
  return leave(&c, ops_of(&c)->device_info(c.layer->inner, i, info, err));
}

static unroll_status device_open(unroll_backend *backend, uint32_t i, const unroll_option *options, uint32_t n_options,
                                 unroll_backend_device **out, unroll_error *err) {
  struct wrap_layer *w = layer_of(backend);
  struct wrap_call c = {.layer = w, .function = WRAP_FN_device_open, .index = i};
  TRY(enter(&c, WRAP_DEVICE, NULL, err));
  unroll_device_info info = {.struct_size = sizeof info};
  const bool has_id = ops_of(&c)->device_info(w->inner, i, &info, NULL) == UNROLL_OK && info.id;
  struct wrap_device *d = (struct wrap_device *)(void *)c.made;
  (void)snprintf(d->id, sizeof d->id, "%s:%s", w->plugin_id, has_id ? info.id : "?");
  unroll_backend_device *inner = NULL;
  const unroll_status status = ops_of(&c)->device_open(w->inner, i, options, n_options, &inner, err);
  return leave_made(&c, status, inner, out);
}

static unroll_status claim(unroll_backend_device *device, const unroll_graph_view *view, unroll_claim *claims,
                           uint32_t claim_stride, unroll_error *err) {
  struct wrap_call c = {.function = WRAP_FN_claim, .n_objects = 1, .object = {object_of(device)}, .view = view};
  TRY(enter(&c, WRAP_TYPES, NULL, err));
  return leave(&c, ops_of(&c)->claim(INNER(device, &c, 0), view, claims, claim_stride, err));
}

/* ---- the end of objects ---- */
void wrap_inner_destroy(struct wrap_object *o) {
  const unroll_backend_ops *ops = o->layer->inner_ops;
  switch (o->type) {
  case WRAP_DEVICE: ops->device_close(o->inner); break;
  case WRAP_QUEUE: ops->queue_destroy(o->inner); break;
  case WRAP_BUFFER: ops->buffer_destroy(o->inner); break;
  case WRAP_EXEC: ops->exec_destroy(o->inner); break;
  case WRAP_BINDING: ops->binding_destroy(o->inner); break;
  default: ops->event_destroy(o->inner);
  }
}

static void destroy(void *handle, int32_t function) {
  struct wrap_call c = {.function = function, .n_objects = 1, .object = {handle}};
  if (!handle || enter(&c, WRAP_TYPES, NULL, NULL) != UNROLL_OK) {
    return;
  }
  wrap_inner_destroy(c.object[0]);
  (void)leave(&c, UNROLL_OK);
  wrap_bury(c.object[0]);
}

static void device_close(unroll_backend_device *device) { destroy(device, WRAP_FN_device_close); }
static void buffer_destroy(unroll_backend_buffer *buffer) { destroy(buffer, WRAP_FN_buffer_destroy); }
static void queue_destroy(unroll_backend_queue *queue) { destroy(queue, WRAP_FN_queue_destroy); }
static void exec_destroy(unroll_backend_exec *exec) { destroy(exec, WRAP_FN_exec_destroy); }
static void binding_destroy(unroll_backend_binding *binding) { destroy(binding, WRAP_FN_binding_destroy); }
static void event_destroy(unroll_backend_event *event) { destroy(event, WRAP_FN_event_destroy); }

/* ---- buffers ---- */
static unroll_status buffer_create(unroll_backend_device *device, uint64_t bytes, uint64_t usage,
                                   unroll_backend_buffer **out, unroll_error *err) {
  struct wrap_call c = {
      .function = WRAP_FN_buffer_create, .n_objects = 1, .object = {object_of(device)}, .bytes = bytes};
  TRY(enter(&c, WRAP_BUFFER, c.object[0], err));
  unroll_backend_buffer *inner = NULL;
  const unroll_status status = ops_of(&c)->buffer_create(INNER(device, &c, 0), bytes, usage, &inner, err);
  return leave_made(&c, status, inner, out);
}

static unroll_status buffer_from_host(unroll_backend_device *device, void *memory, uint64_t bytes, uint64_t usage,
                                      unroll_backend_buffer **out, unroll_error *err) {
  struct wrap_call c = {.function = WRAP_FN_buffer_from_host,
                        .n_objects = 1,
                        .object = {object_of(device)},
                        .bytes = bytes,
                        .memory = memory};
  TRY(enter(&c, WRAP_BUFFER, c.object[0], err));
  unroll_backend_buffer *inner = NULL;
  const unroll_status status = ops_of(&c)->buffer_from_host(INNER(device, &c, 0), memory, bytes, usage, &inner, err);
  return leave_made(&c, status, inner, out);
}

static struct wrap_call transfer(int32_t function, unroll_backend_queue *queue, unroll_backend_buffer *buffer,
                                 uint64_t offset, const void *memory, uint64_t n, unroll_backend_event **event) {
  return (struct wrap_call){.function = function,
                            .n_objects = 2,
                            .object = {object_of(queue), object_of(buffer)},
                            .offset = offset,
                            .bytes = n,
                            .memory = memory,
                            .waits = !event};
}

static unroll_status write_buffer(unroll_backend_queue *queue, unroll_backend_buffer *buffer, uint64_t offset,
                                  const void *from, uint64_t n, unroll_backend_event **event, unroll_error *err) {
  struct wrap_call c = transfer(WRAP_FN_write, queue, buffer, offset, from, n, event);
  TRY(enter(&c, event_type(event), c.object[0], err));
  unroll_backend_event *inner = NULL;
  const unroll_status status =
      ops_of(&c)->write(INNER(queue, &c, 0), INNER(buffer, &c, 1), offset, from, n, event ? &inner : NULL, err);
  return leave_made(&c, status, inner, event);
}

static unroll_status read_buffer(unroll_backend_queue *queue, unroll_backend_buffer *buffer, uint64_t offset, void *to,
                                 uint64_t n, unroll_backend_event **event, unroll_error *err) {
  struct wrap_call c = transfer(WRAP_FN_read, queue, buffer, offset, to, n, event);
  TRY(enter(&c, event_type(event), c.object[0], err));
  unroll_backend_event *inner = NULL;
  const unroll_status status =
      ops_of(&c)->read(INNER(queue, &c, 0), INNER(buffer, &c, 1), offset, to, n, event ? &inner : NULL, err);
  return leave_made(&c, status, inner, event);
}

static unroll_status fill_buffer(unroll_backend_queue *queue, unroll_backend_buffer *buffer, uint64_t offset,
                                 uint64_t n, uint8_t value, unroll_backend_event **event, unroll_error *err) {
  struct wrap_call c = transfer(WRAP_FN_fill, queue, buffer, offset, NULL, n, event);
  TRY(enter(&c, event_type(event), c.object[0], err));
  unroll_backend_event *inner = NULL;
  const unroll_status status =
      ops_of(&c)->fill(INNER(queue, &c, 0), INNER(buffer, &c, 1), offset, n, value, event ? &inner : NULL, err);
  return leave_made(&c, status, inner, event);
}

static unroll_status copy_buffer(unroll_backend_queue *queue, unroll_backend_buffer *to, uint64_t to_offset,
                                 unroll_backend_buffer *from, uint64_t from_offset, uint64_t n,
                                 unroll_backend_event **event, unroll_error *err) {
  struct wrap_call c = transfer(WRAP_FN_copy, queue, to, to_offset, NULL, n, event);
  c.object[2] = object_of(from);
  c.n_objects = 3;
  c.from_offset = from_offset;
  TRY(enter(&c, event_type(event), c.object[0], err));
  unroll_backend_event *inner = NULL;
  const unroll_status status = ops_of(&c)->copy(INNER(queue, &c, 0), INNER(buffer, &c, 1), to_offset,
                                                INNER(buffer, &c, 2), from_offset, n, event ? &inner : NULL, err);
  return leave_made(&c, status, inner, event);
}

static unroll_status map(unroll_backend_queue *queue, unroll_backend_buffer *buffer, uint64_t offset, uint64_t n,
                         uint64_t usage, void **out, unroll_error *err) {
  struct wrap_call c = transfer(WRAP_FN_map, queue, buffer, offset, NULL, n, NULL);
  TRY(enter(&c, WRAP_TYPES, NULL, err));
  void *memory = NULL;
  const unroll_status status =
      ops_of(&c)->map(INNER(queue, &c, 0), INNER(buffer, &c, 1), offset, n, usage, &memory, err);
  if (status == UNROLL_OK) {
    *out = memory;
  }
  c.memory = memory;
  return leave(&c, status);
}

static unroll_status unmap(unroll_backend_queue *queue, unroll_backend_buffer *buffer, void *memory,
                           unroll_error *err) {
  struct wrap_call c = transfer(WRAP_FN_unmap, queue, buffer, 0, memory, 0, NULL);
  TRY(enter(&c, WRAP_TYPES, NULL, err));
  return leave(&c, ops_of(&c)->unmap(INNER(queue, &c, 0), INNER(buffer, &c, 1), memory, err));
}

/* ---- queues and events ---- */
static unroll_status queue_create(unroll_backend_device *device, uint64_t flags, unroll_backend_queue **out,
                                  unroll_error *err) {
  struct wrap_call c = {
      .function = WRAP_FN_queue_create, .n_objects = 1, .object = {object_of(device)}, .flags = flags};
  TRY(enter(&c, WRAP_QUEUE, c.object[0], err));
  unroll_backend_queue *inner = NULL;
  const unroll_status status = ops_of(&c)->queue_create(INNER(device, &c, 0), c.flags, &inner, err);
  return leave_made(&c, status, inner, out);
}

static unroll_status queue_flush(unroll_backend_queue *queue, unroll_error *err) {
  struct wrap_call c = {.function = WRAP_FN_queue_flush, .n_objects = 1, .object = {object_of(queue)}};
  TRY(enter(&c, WRAP_TYPES, NULL, err));
  return leave(&c, ops_of(&c)->queue_flush(INNER(queue, &c, 0), err));
}

static unroll_status queue_sync(unroll_backend_queue *queue, unroll_error *err) {
  struct wrap_call c = {.function = WRAP_FN_queue_sync, .n_objects = 1, .object = {object_of(queue)}};
  TRY(enter(&c, WRAP_TYPES, NULL, err));
  return leave(&c, ops_of(&c)->queue_sync(INNER(queue, &c, 0), err));
}

static unroll_status queue_wait(unroll_backend_queue *queue, unroll_backend_event *event, unroll_error *err) {
  struct wrap_call c = {.function = WRAP_FN_queue_wait, .n_objects = 2, .object = {object_of(queue), object_of(event)}};
  TRY(enter(&c, WRAP_TYPES, NULL, err));
  return leave(&c, ops_of(&c)->queue_wait(INNER(queue, &c, 0), INNER(event, &c, 1), err));
}

static unroll_status event_wait(unroll_backend_event *event, unroll_error *err) {
  struct wrap_call c = {.function = WRAP_FN_event_wait, .n_objects = 1, .object = {object_of(event)}};
  TRY(enter(&c, WRAP_TYPES, NULL, err));
  return leave(&c, ops_of(&c)->event_wait(INNER(event, &c, 0), err));
}

/* ---- executables and bindings ---- */
static unroll_status compile(unroll_backend_device *device, const unroll_graph_view *view, const unroll_option *options,
                             uint32_t n_options, unroll_backend_exec **out, unroll_error *err) {
  struct wrap_call c = {.function = WRAP_FN_compile, .n_objects = 1, .object = {object_of(device)}, .view = view};
  TRY(enter(&c, WRAP_EXEC, c.object[0], err));
  unroll_backend_exec *inner = NULL;
  const unroll_status status = ops_of(&c)->compile(INNER(device, &c, 0), view, options, n_options, &inner, err);
  return leave_made(&c, status, inner, out);
}

static unroll_status exec_info(unroll_backend_exec *exec, unroll_exec_info *info, unroll_error *err) {
  struct wrap_call c = {.function = WRAP_FN_exec_info, .n_objects = 1, .object = {object_of(exec)}};
  TRY(enter(&c, WRAP_TYPES, NULL, err));
  return leave(&c, ops_of(&c)->exec_info(INNER(exec, &c, 0), info, err));
}

/* The host's slots with the backend's own buffers; NULL where there is no memory. */
static char *unwrap_slots(const struct wrap_call *c) {
  const uint64_t bytes = (uint64_t)c->n_slots * c->slot_stride;
  char *slots = mem_alloc(&c->layer->allocator, bytes);
  if (slots && bytes) {
    memcpy(slots, c->slots, bytes);
  }
  for (uint32_t i = 0; slots && i < c->n_slots; i++) {
    const struct wrap_object *o = object_of(wrap_slot(c, i).buffer);
    void *inner = o ? o->inner : NULL;
    memcpy(slots + (size_t)i * c->slot_stride + offsetof(unroll_slot, buffer), &inner, sizeof inner);
  }
  return slots;
}

static unroll_status bind_(unroll_backend_exec *exec, const unroll_slot *slots, uint32_t n_slots, uint32_t slot_stride,
                           unroll_backend_buffer *workspace, uint64_t workspace_offset, unroll_backend_binding **out,
                           unroll_error *err) {
  struct wrap_call c = {.function = WRAP_FN_bind,
                        .n_objects = 1,
                        .object = {object_of(exec)},
                        .slots = slots,
                        .n_slots = n_slots,
                        .slot_stride = slot_stride,
                        .workspace = object_of(workspace),
                        .workspace_offset = workspace_offset};
  TRY(enter(&c, WRAP_BINDING, c.object[0], err));
  unroll_backend_binding *inner = NULL;
  unroll_backend_buffer *scratch = c.workspace ? c.workspace->inner : NULL;
  unroll_status status = UNROLL_OK;
  char *plain = NULL;
  if (n_slots && (!slots || slot_stride < sizeof *slots)) {
    status = fail(err, UNROLL_E_INVALID, "bind: %u slots at %p, %u bytes apart, at least %zu expected", n_slots,
                  (const void *)slots, slot_stride, sizeof *slots);
  } else if (!(plain = unwrap_slots(&c))) {
    status = fail(err, UNROLL_E_MEMORY, "out of memory for %u slots", n_slots);
  } else {
    status = ops_of(&c)->bind(INNER(exec, &c, 0), (const unroll_slot *)(const void *)plain, n_slots, slot_stride,
                              scratch, workspace_offset, &inner, err);
  }
  mem_free(&c.layer->allocator, plain);
  return leave_made(&c, status, inner, out);
}

static unroll_status run(unroll_backend_binding *binding, unroll_backend_queue *queue, const unroll_run_args *args,
                         unroll_backend_event **event, unroll_error *err) {
  struct wrap_call c = {
      .function = WRAP_FN_run, .n_objects = 2, .object = {object_of(binding), object_of(queue)}, .args = args};
  TRY(enter(&c, event_type(event), c.object[1], err));
  unroll_backend_event *inner = NULL;
  const unroll_status status =
      ops_of(&c)->run(INNER(binding, &c, 0), INNER(queue, &c, 1), args, event ? &inner : NULL, err);
  return leave_made(&c, status, inner, event);
}

/* ---- extensions ---- */
struct span_reader {
  struct wrap_layer *layer;
  void (*each)(void *ctx, const unroll_profile_span *);
  void *ctx;
};

static void pass_span(void *ctx, const unroll_profile_span *span) {
  const struct span_reader *r = ctx;
  const unroll_profile_span outer = wrap_span(span, wrap_binding_of(r->layer, span->binding, span->end_ns));
  r->each(r->ctx, &outer);
}

static unroll_status spans(unroll_backend_queue *queue, void (*each)(void *ctx, const unroll_profile_span *), void *ctx,
                           unroll_error *err) {
  struct wrap_call c = {.function = WRAP_FN_spans, .n_objects = 1, .object = {object_of(queue)}};
  TRY(enter(&c, WRAP_TYPES, NULL, err));
  if (c.layer->kind->spans) {
    return leave(&c, c.layer->kind->spans(c.object[0], each, ctx, err));
  }
  struct span_reader r = {c.layer, each, ctx};
  return leave(&c, c.layer->inner_profile->spans(INNER(queue, &c, 0), pass_span, &r, err));
}

/* What is not known here passes as it is: a table of data is good, one that takes handles would have to be wrapped. */
static const void *extension(unroll_backend *backend, const char *id) {
  struct wrap_layer *w = layer_of(backend);
  if (id && strcmp(id, UNROLL_PROFILE_ID) == 0) {
    return w->inner_profile ? &w->profile : NULL;
  }
  return w->inner_ops->extension(w->inner, id);
}

/* ---- layers ---- */
static const unroll_backend_ops all_ops = {
    .device_count = device_count,
    .device_info = device_info,
    .device_open = device_open,
    .device_close = device_close,
    .claim = claim,
    .buffer_create = buffer_create,
    .buffer_destroy = buffer_destroy,
    .write = write_buffer,
    .read = read_buffer,
    .fill = fill_buffer,
    .copy = copy_buffer,
    .queue_create = queue_create,
    .queue_destroy = queue_destroy,
    .queue_flush = queue_flush,
    .queue_sync = queue_sync,
    .compile = compile,
    .exec_info = exec_info,
    .exec_destroy = exec_destroy,
    .bind = bind_,
    .binding_destroy = binding_destroy,
    .run = run,
    .buffer_from_host = buffer_from_host,
    .map = map,
    .unmap = unmap,
    .queue_wait = queue_wait,
    .event_wait = event_wait,
    .event_destroy = event_destroy,
    .extension = extension,
};

/* clang-format off */
#define OPTIONAL_OPS(X)                                                      \
  X(buffer_from_host) X(map) X(unmap) X(queue_wait) X(event_wait)            \
  X(event_destroy) X(extension)
/* clang-format on */

static void layer_table(struct wrap_layer *w) {
  const unroll_backend_ops *in = w->inner_ops;
  w->ops = all_ops;
  w->ops.struct_size = in->struct_size < sizeof w->ops ? in->struct_size : (uint32_t)sizeof w->ops;
#define LEAVE_OUT(name)                                         \
  if (!UNROLL_HAS(unroll_backend_ops, in, name) || !in->name) { \
    w->ops.name = NULL;                                         \
  }
  OPTIONAL_OPS(LEAVE_OUT)
#undef LEAVE_OUT
  const unroll_profile *profile = w->ops.extension ? in->extension(w->inner, UNROLL_PROFILE_ID) : NULL;
  w->inner_profile = profile && UNROLL_HAS(unroll_profile, profile, spans) && profile->spans ? profile : NULL;
  w->profile = (unroll_profile){.struct_size = sizeof w->profile, .spans = spans};
}

unroll_status wrap_layer_open(const struct wrap_kind *kind, struct wrap_host *host, const char *plugin_id,
                              unroll_backend *inner, const unroll_backend_ops *inner_ops, struct wrap_layer **out,
                              unroll_error *err) {
  struct wrap_layer *w = mem_zalloc(host->allocator, kind->layer_size);
  if (!w || !(w->plugin_id = mem_strdup(host->allocator, plugin_id)) || pthread_mutex_init(&w->mutex, NULL) != 0) {
    if (w) {
      mem_free(host->allocator, w->plugin_id);
    }
    mem_free(host->allocator, w);
    return fail(err, UNROLL_E_MEMORY, "out of memory for the wrapper \"%s\"", kind->word);
  }
  w->kind = kind;
  w->allocator = *host->allocator;
  w->logger = *host->logger;
  w->inner = inner;
  w->inner_ops = inner_ops;
  layer_table(w);
  const unroll_status status = kind->open ? kind->open(w, host, err) : UNROLL_OK;
  if (status != UNROLL_OK) {
    wrap_layer_free(w);
    return status;
  }
  *out = w;
  return UNROLL_OK;
}

static void list_free(struct wrap_list *list) {
  while (list->newest) {
    struct wrap_object *o = list->newest;
    list_remove(list, o);
    object_free(o);
  }
}

void wrap_layer_free(struct wrap_layer *w) {
  if (!w) {
    return;
  }
  for (uint32_t i = WRAP_TYPES; i-- > 0;) {
    list_free(&w->live[i]);
  }
  list_free(&w->dead);
  pthread_mutex_destroy(&w->mutex);
  const unroll_allocator a = w->allocator;
  mem_free(&a, w->plugin_id);
  mem_free(&a, w);
}
