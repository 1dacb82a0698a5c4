/* SPDX-License-Identifier: Apache-2.0 */
/* The check's rules of handles, lives and threads; the others are in wrap_check_graph.c and wrap_check_bytes.c. */
#include "plugins/wrap_check.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static unroll_status found_list(struct wrap_layer *w, const char *function, unroll_error *err, const char *format,
                                va_list list) {
  char text[200];
  (void)vsnprintf(text, sizeof text, format, list);
  log_message(&w->logger, UNROLL_LOG_ERROR, "check: %s: %s: %s", w->plugin_id, function, text);
  return fail(err, UNROLL_E_STATE, "check: %s: %s", function, text);
}

unroll_status check_found(struct wrap_call *c, unroll_error *err, const char *format, ...) {
  va_list list;
  va_start(list, format);
  const unroll_status status = found_list(c->layer, wrap_function_name(c->function), err, format, list);
  va_end(list);
  return status;
}

static unroll_status found_at_close(struct wrap_layer *w, unroll_error *err, const char *format, ...) PRINTF_LIKE(3, 4);
static unroll_status found_at_close(struct wrap_layer *w, unroll_error *err, const char *format, ...) {
  va_list list;
  va_start(list, format);
  const unroll_status status = found_list(w, "close", err, format, list);
  va_end(list);
  return status;
}

/* ---- what each function takes ---- */
enum { SERIAL = 1 /* [obj] */, DESTROYS = 2, SERIAL_SECOND = 4 /* a queue behind the first handle */ };
struct rule {
  uint32_t types[3], flags;
};
static const struct rule rules[WRAP_FN_COUNT] = {
    [WRAP_FN_device_close] = {{WRAP_DEVICE}, SERIAL | DESTROYS},
    [WRAP_FN_claim] = {{WRAP_DEVICE}, 0},
    [WRAP_FN_buffer_create] = {{WRAP_DEVICE}, 0},
    [WRAP_FN_buffer_destroy] = {{WRAP_BUFFER}, SERIAL | DESTROYS},
    [WRAP_FN_write] = {{WRAP_QUEUE, WRAP_BUFFER}, SERIAL},
    [WRAP_FN_read] = {{WRAP_QUEUE, WRAP_BUFFER}, SERIAL},
    [WRAP_FN_fill] = {{WRAP_QUEUE, WRAP_BUFFER}, SERIAL},
    [WRAP_FN_copy] = {{WRAP_QUEUE, WRAP_BUFFER, WRAP_BUFFER}, SERIAL},
    [WRAP_FN_queue_create] = {{WRAP_DEVICE}, 0},
    [WRAP_FN_queue_destroy] = {{WRAP_QUEUE}, SERIAL | DESTROYS},
    [WRAP_FN_queue_flush] = {{WRAP_QUEUE}, SERIAL},
    [WRAP_FN_queue_sync] = {{WRAP_QUEUE}, SERIAL},
    [WRAP_FN_compile] = {{WRAP_DEVICE}, 0},
    [WRAP_FN_exec_info] = {{WRAP_EXEC}, 0},
    [WRAP_FN_exec_destroy] = {{WRAP_EXEC}, SERIAL | DESTROYS},
    [WRAP_FN_bind] = {{WRAP_EXEC}, 0},
    [WRAP_FN_binding_destroy] = {{WRAP_BINDING}, SERIAL | DESTROYS},
    [WRAP_FN_run] = {{WRAP_BINDING, WRAP_QUEUE}, SERIAL | SERIAL_SECOND},
    [WRAP_FN_buffer_from_host] = {{WRAP_DEVICE}, 0},
    [WRAP_FN_map] = {{WRAP_QUEUE, WRAP_BUFFER}, SERIAL},
    [WRAP_FN_unmap] = {{WRAP_QUEUE, WRAP_BUFFER}, SERIAL},
    [WRAP_FN_queue_wait] = {{WRAP_QUEUE, WRAP_EVENT}, SERIAL},
    [WRAP_FN_event_wait] = {{WRAP_EVENT}, 0},
    [WRAP_FN_event_destroy] = {{WRAP_EVENT}, SERIAL | DESTROYS},
    [WRAP_FN_spans] = {{WRAP_QUEUE}, SERIAL},
};

/* ---- handles and threads. The mutex is held ---- */
static unroll_status check_handle(struct wrap_call *c, const struct wrap_object *o, uint32_t type, unroll_error *err) {
  const struct wrap_name name = wrap_name_of(o);
  if (o->type != type) {
    return check_found(c, err, "%s where a %s is expected", name.text, wrap_type_name(type));
  }
  if (o->layer != c->layer) {
    return check_found(c, err, "%s belongs to another backend", name.text);
  }
  if (o->dead) {
    return check_found(c, err, "%s was destroyed before", name.text);
  }
  if (o->device != c->object[0]->device) {
    return check_found(c, err, "%s is of another device than %s", name.text, wrap_name_of(c->object[0]).text);
  }
  return UNROLL_OK;
}

static unroll_status check_thread(struct wrap_call *c, const struct wrap_object *o, unroll_error *err) {
  return o->busy == 0 ? UNROLL_OK
                      : check_found(c, err, "%s is in %s already, called by another thread", wrap_name_of(o).text,
                                    wrap_function_name(o->busy - 1));
}

static unroll_status check_objects(struct wrap_call *c, unroll_error *err) {
  const struct rule *rule = &rules[c->function];
  for (uint32_t i = 0; i < c->n_objects; i++) {
    TRY(check_handle(c, c->object[i], rule->types[i], err));
  }
  if (rule->flags & SERIAL) {
    TRY(check_thread(c, c->object[0], err));
  }
  return rule->flags & SERIAL_SECOND ? check_thread(c, c->object[1], err) : UNROLL_OK;
}

static void mark(struct wrap_call *c) {
  const struct rule *rule = &rules[c->function];
  for (uint32_t i = 0; i < c->n_objects; i++) {
    c->object[i]->calls++;
    if (rule->flags & (i == 0 ? SERIAL : i == 1 ? SERIAL_SECOND : 0)) {
      c->object[i]->busy = c->function + 1;
    }
  }
}

static void unmark(struct wrap_call *c) {
  const struct rule *rule = &rules[c->function];
  for (uint32_t i = 0; i < c->n_objects; i++) {
    c->object[i]->calls--;
    if (rule->flags & (i == 0 ? SERIAL : i == 1 ? SERIAL_SECOND : 0)) {
      c->object[i]->busy = 0;
    }
  }
}

/* ---- lives ---- */
static bool is_held(const struct wrap_object *o) { return o->children || o->users || o->calls; }

/* Some child of it, for the message. */
static const struct wrap_object *child_of(const struct wrap_object *o) {
  for (uint32_t type = 0; type < WRAP_TYPES; type++) {
    for (const struct wrap_object *x = o->layer->live[type].newest; x; x = x->older) {
      if (x->parent == o && !x->dead) {
        return x;
      }
    }
  }
  return NULL;
}

/* The mutex is held. What is still held dies here for the host, and later for the backend. */
static unroll_status check_destroy(struct wrap_call *c) {
  struct wrap_object *o = c->object[0];
  const struct wrap_name name = wrap_name_of(o);
  unroll_status status = UNROLL_OK;
  if (o->calls) {
    status = check_found(c, NULL, "%s is used by %u calls that have not returned", name.text, o->calls);
  } else if (o->children) {
    const struct wrap_object *child = child_of(o);
    status = check_found(c, NULL, "%s is destroyed before what was made from it: %s and %u more", name.text,
                         child ? wrap_name_of(child).text : "objects destroyed too early", o->children - 1);
  } else if (o->users) {
    status = check_found(c, NULL, "%s is destroyed while %u bindings have it", name.text, o->users);
  }
  if (o->type == WRAP_BUFFER && ((const struct check_buffer *)(const void *)o)->n_mapped) {
    (void)check_found(c, NULL, "%s is destroyed while it is mapped", name.text);
  }
  o->dead = true;
  return status;
}

static void settle(struct wrap_object *o);

/* The backend's object is gone: it holds nothing any more. */
static void let_go(struct wrap_object *o) {
  struct wrap_layer *w = o->layer;
  if (o->type == WRAP_BINDING) {
    struct check_binding *b = (struct check_binding *)(void *)o;
    for (uint32_t i = 0; i <= b->n_slots; i++) {
      struct check_buffer *buffer = i < b->n_slots ? b->slots[i].buffer : b->workspace;
      if (buffer) {
        pthread_mutex_lock(&w->mutex);
        buffer->base.users--;
        pthread_mutex_unlock(&w->mutex);
        settle(&buffer->base);
      }
    }
  }
  if (o->parent) {
    pthread_mutex_lock(&w->mutex);
    o->parent->children--;
    pthread_mutex_unlock(&w->mutex);
    settle(o->parent);
  }
}

/* Destroys in the backend what the host destroyed too early, now that nothing holds it. */
static void settle(struct wrap_object *o) {
  struct wrap_layer *w = o->layer;
  pthread_mutex_lock(&w->mutex);
  const bool now = o->dead && !is_held(o);
  o->calls += now; /* nobody else may come to the same end */
  pthread_mutex_unlock(&w->mutex);
  if (now) {
    wrap_inner_destroy(o);
    let_go(o);
    wrap_bury(o);
  }
}

/* ---- calls ---- */
static unroll_status check_transfer(struct wrap_call *c, unroll_error *err) {
  const bool is_copy = c->function == WRAP_FN_copy;
  if ((c->function == WRAP_FN_write || c->function == WRAP_FN_read) && !c->memory && c->bytes) {
    return check_found(c, err, "%" PRIu64 " bytes of the host's memory at NULL", c->bytes);
  }
  const uint64_t from = is_copy ? c->from_offset : c->offset;
  if (is_copy && c->object[1] == c->object[2] && c->bytes && c->offset < from + c->bytes &&
      from < c->offset + c->bytes) {
    return check_found(c, err, "bytes %" PRIu64 " and %" PRIu64 " of %s: two ranges of %" PRIu64 " that overlap",
                       c->offset, from, wrap_name_of(c->object[1]).text, c->bytes);
  }
  return is_copy || c->function == WRAP_FN_read
             ? check_defined(c, (const struct check_buffer *)(const void *)c->object[is_copy ? 2 : 1], from, c->bytes,
                             err)
             : UNROLL_OK;
}

/* The mutex is held. The buffers are the binding's from now on, or nobody's. */
static unroll_status check_slots(struct wrap_call *c, struct check_binding *b, unroll_error *err) {
  for (uint32_t i = 0; i <= c->n_slots; i++) {
    const unroll_slot slot = i < c->n_slots ? wrap_slot(c, i) : (unroll_slot){0};
    struct wrap_object *o = i < c->n_slots ? (struct wrap_object *)(void *)slot.buffer : c->workspace;
    if (o && o->magic != WRAP_MAGIC) {
      return check_found(c, err, "the buffer of slot %u is none of this backend", i);
    }
    if (o) {
      TRY(check_handle(c, o, WRAP_BUFFER, err));
    }
    struct check_buffer *buffer = (struct check_buffer *)(void *)o;
    if (i < c->n_slots) {
      b->slots[i] = (struct check_slot){.buffer = buffer, .offset = slot.offset, .bytes = slot.bytes};
    } else {
      b->workspace = buffer;
    }
  }
  for (uint32_t i = 0; i < c->n_slots; i++) {
    if (b->slots[i].buffer) {
      b->slots[i].buffer->base.users++;
    }
  }
  if (b->workspace) {
    b->workspace->base.users++;
  }
  b->n_slots = c->n_slots;
  return UNROLL_OK;
}

static void drop_slots(struct check_binding *b) {
  for (uint32_t i = 0; i <= b->n_slots; i++) {
    struct check_buffer *buffer = i < b->n_slots ? b->slots[i].buffer : b->workspace;
    if (buffer) {
      buffer->base.users--;
    }
  }
  b->n_slots = 0;
  b->workspace = NULL;
}

static unroll_status enter_bind(struct wrap_call *c, unroll_error *err) {
  struct check_binding *b = (struct check_binding *)(void *)c->made;
  if (c->n_slots && (!c->slots || c->slot_stride < sizeof(unroll_slot))) {
    return check_found(c, err, "%u slots%s, %u bytes apart, at least %zu expected", c->n_slots,
                       c->slots ? "" : " at NULL", c->slot_stride, sizeof(unroll_slot));
  }
  if (!(b->slots = mem_array(&c->layer->allocator, (uint64_t)c->n_slots + 1, sizeof *b->slots))) {
    return fail(err, UNROLL_E_MEMORY, "out of memory for the check of a binding");
  }
  pthread_mutex_lock(&c->layer->mutex);
  unroll_status status = check_slots(c, b, err);
  if (status != UNROLL_OK) {
    b->workspace = NULL;
  }
  pthread_mutex_unlock(&c->layer->mutex);
  if (status == UNROLL_OK && (status = check_bind(c, b, err)) != UNROLL_OK) {
    pthread_mutex_lock(&c->layer->mutex);
    drop_slots(b);
    pthread_mutex_unlock(&c->layer->mutex);
  }
  return status;
}

static unroll_status enter_unmap(struct wrap_call *c, unroll_error *err) {
  const struct check_buffer *b = (const struct check_buffer *)(const void *)c->object[1];
  for (uint32_t i = 0; i < b->n_mapped; i++) {
    if (b->mapped[i].memory == c->memory) {
      return UNROLL_OK;
    }
  }
  return check_found(c, err, "%s is not mapped at %p", wrap_name_of(c->object[1]).text, c->memory);
}

static unroll_status enter_map(struct wrap_call *c, unroll_error *err) {
  struct check_buffer *b = (struct check_buffer *)(void *)c->object[1];
  return mem_grow(&c->layer->allocator, &b->mapped, &b->mapped_capacity, b->n_mapped + 1, sizeof *b->mapped)
             ? UNROLL_OK
             : fail(err, UNROLL_E_MEMORY, "out of memory for the check of a map");
}

/* What a function has beside its handles. */
static unroll_status enter_rest(struct wrap_call *c, unroll_error *err) {
  const unroll_allocator *a = &c->layer->allocator;
  struct check_buffer *made = (struct check_buffer *)(void *)c->made;
  unroll_status status = UNROLL_OK;
  switch (c->function) {
  case WRAP_FN_write:
  case WRAP_FN_read:
  case WRAP_FN_fill:
  case WRAP_FN_copy:
  case WRAP_FN_map:
  case WRAP_FN_unmap:
    pthread_mutex_lock(&c->layer->mutex);
    status = c->function == WRAP_FN_map     ? enter_map(c, err)
             : c->function == WRAP_FN_unmap ? enter_unmap(c, err)
                                            : check_transfer(c, err);
    pthread_mutex_unlock(&c->layer->mutex);
    return status;
  case WRAP_FN_buffer_create:
  case WRAP_FN_buffer_from_host:
    made->bytes = c->bytes;
    return (made->written = mem_array(a, CHECK_INTERVALS + 1, sizeof *made->written))
               ? UNROLL_OK
               : fail(err, UNROLL_E_MEMORY, "out of memory for the check of a buffer");
  case WRAP_FN_compile:
    return check_exec_read((struct check_exec *)(void *)c->made, c->view, a)
               ? UNROLL_OK
               : fail(err, UNROLL_E_MEMORY, "out of memory for the check of an executable");
  case WRAP_FN_bind: return enter_bind(c, err);
  case WRAP_FN_run:
    TRY(check_run(c, (struct check_binding *)(void *)c->object[0], err));
    return check_generations(c, (struct check_binding *)(void *)c->object[0], err);
  default: return UNROLL_OK;
  }
}

static unroll_status check_enter(struct wrap_call *c, unroll_error *err) {
  struct wrap_layer *w = c->layer;
  pthread_mutex_lock(&w->mutex);
  unroll_status status = check_objects(c, err);
  if (status == UNROLL_OK && rules[c->function].flags & DESTROYS) {
    status = check_destroy(c);
  }
  if (status == UNROLL_OK) {
    mark(c);
  }
  pthread_mutex_unlock(&w->mutex);
  if (status == UNROLL_OK && (status = enter_rest(c, err)) != UNROLL_OK) {
    pthread_mutex_lock(&w->mutex);
    unmark(c);
    pthread_mutex_unlock(&w->mutex);
    for (uint32_t i = 0; i < c->n_objects; i++) {
      settle(c->object[i]);
    }
  }
  return status;
}

/* The mutex is held. */
static void note_success(struct wrap_call *c) {
  struct check_buffer *b = c->n_objects > 1 ? (struct check_buffer *)(void *)c->object[1] : NULL;
  if (c->function == WRAP_FN_buffer_from_host) {
    check_written((struct check_buffer *)(void *)c->made, 0, c->bytes);
    return;
  }
  if (!b) {
    return;
  }
  switch (c->function) {
  case WRAP_FN_write:
  case WRAP_FN_fill:
  case WRAP_FN_copy: check_written(b, c->offset, c->offset + c->bytes); return;
  case WRAP_FN_map:
    check_written(b, c->offset, c->offset + c->bytes);
    b->mapped[b->n_mapped++] = (struct check_mapping){c->memory, c->offset, c->offset + c->bytes};
    return;
  case WRAP_FN_unmap:
    for (uint32_t i = 0; i < b->n_mapped; i++) {
      if (b->mapped[i].memory == c->memory) {
        b->mapped[i] = b->mapped[--b->n_mapped];
        return;
      }
    }
    return;
  case WRAP_FN_run: check_written_by((struct check_binding *)(void *)c->object[0], c->args); return;
  default: return;
  }
}

static void check_leave(struct wrap_call *c, unroll_status status) {
  struct wrap_layer *w = c->layer;
  const bool destroys = (rules[c->function].flags & DESTROYS) != 0;
  pthread_mutex_lock(&w->mutex);
  if (c->made && c->made->parent) {
    c->made->parent->children++;
  }
  if (status == UNROLL_OK) {
    note_success(c);
  }
  if (!destroys) {
    unmark(c);
  }
  pthread_mutex_unlock(&w->mutex);
  if (destroys) {
    let_go(c->object[0]);
  }
  for (uint32_t i = 0; i < c->n_objects && !destroys; i++) {
    settle(c->object[i]);
  }
}

/* A binding that was not made gives its buffers back. */
static void check_dispose(struct wrap_object *o) {
  const unroll_allocator *a = &o->layer->allocator;
  if (o->type == WRAP_BUFFER) {
    struct check_buffer *b = (struct check_buffer *)(void *)o;
    mem_free(a, b->written);
    mem_free(a, b->mapped);
    b->written = NULL;
    b->mapped = NULL;
    b->n_written = b->n_mapped = 0;
  } else if (o->type == WRAP_EXEC) {
    struct check_exec *e = (struct check_exec *)(void *)o;
    mem_free(a, e->tensors);
    mem_free(a, e->dim_min);
    e->tensors = NULL;
    e->dim_min = NULL;
  } else if (o->type == WRAP_BINDING) {
    struct check_binding *b = (struct check_binding *)(void *)o;
    if (!o->inner && b->n_slots + (b->workspace != NULL) > 0) {
      pthread_mutex_lock(&o->layer->mutex);
      drop_slots(b);
      pthread_mutex_unlock(&o->layer->mutex);
    }
    mem_free(a, b->slots);
    b->slots = NULL;
    b->n_slots = 0;
    b->workspace = NULL;
  }
}

/* ---- close ---- */
/* Children before their parents, so that the backend is closed in order whatever the host forgot. */
static const uint32_t last_order[WRAP_TYPES] = {WRAP_EVENT,  WRAP_BINDING, WRAP_EXEC,
                                                WRAP_BUFFER, WRAP_QUEUE,   WRAP_DEVICE};

static unroll_status check_close(struct wrap_layer *w, bool *keep, unroll_error *err) {
  uint32_t left = 0;
  char first[96] = "";
  pthread_mutex_lock(&w->mutex);
  const uint32_t calls = w->calls;
  for (uint32_t i = 0; i < WRAP_TYPES && calls == 0; i++) {
    for (const struct wrap_object *o = w->live[last_order[i]].oldest; o; o = o->newer) {
      if (!o->dead) {
        const struct wrap_name name = wrap_name_of(o);
        log_message(&w->logger, UNROLL_LOG_ERROR, "check: %s: close: %s is still alive", w->plugin_id, name.text);
        if (left++ == 0) {
          memcpy(first, name.text, sizeof first);
        }
      }
    }
  }
  pthread_mutex_unlock(&w->mutex);
  if (calls) {
    *keep = true;
    return found_at_close(w, err, "%u calls have not returned; the backend stays open", calls);
  }
  for (uint32_t i = 0; i < WRAP_TYPES; i++) {
    struct wrap_list *list = &w->live[last_order[i]];
    while (list->newest) {
      struct wrap_object *o = list->newest;
      o->dead = true;
      o->children = o->users = o->calls = 0;
      wrap_inner_destroy(o);
      wrap_bury(o);
    }
  }
  return left ? found_at_close(w, err, "%u objects are still alive: %s%s", left, first, left > 1 ? ", .." : "")
              : UNROLL_OK;
}

const struct wrap_kind wrap_check_kind = {
    .word = "check",
    .size = {sizeof(struct wrap_device), sizeof(struct wrap_object), sizeof(struct check_buffer),
             sizeof(struct check_exec), sizeof(struct check_binding), sizeof(struct wrap_object)},
    .layer_size = sizeof(struct wrap_layer),
    .enter = check_enter,
    .leave = check_leave,
    .dispose = check_dispose,
    .disposes_early = true,
    .close = check_close,
};
