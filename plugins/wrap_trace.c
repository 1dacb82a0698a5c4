/* SPDX-License-Identifier: Apache-2.0 */
/* The trace: calls as they return, and the spans of queues that are profiled for it. */
#include "plugins/wrap_trace.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* How many spans a queue may hold back before it is waited for, and how many tracks one queue may need. */
enum { PENDING_MAX = 8192, LANES = 4 };

struct trace_layer {
  struct wrap_layer base;
  struct trace_file *file;
};
struct trace_device {
  struct wrap_device base;
  uint32_t process;
};
struct trace_queue {
  struct wrap_object base;
  bool is_profiled, by_host;   /* by_host: the host asked for it too, and gets its spans */
  uint64_t pending;            /* spans that the backend holds, about */
  uint64_t lane_end_ns[LANES]; /* spans that overlap stand on tracks of their own */
  uint32_t lanes_named;        /* a bit each */
  unroll_profile_span *kept;   /* the host's */
  uint32_t n_kept, kept_capacity;
  bool lost; /* there was no memory for one of them */
};
struct trace_node {
  uint32_t op;
  int32_t layer, direction;
  uint32_t name; /* in names */
};
struct trace_exec {
  struct wrap_object base;
  struct trace_shared { /* its bindings have it too, and live on for late spans */
    uint32_t references, n_nodes;
    bool is_template;
    struct trace_node *nodes;
    char *names; /* each with its zero */
  } * shared;
};
struct trace_binding {
  struct wrap_object base;
  struct trace_shared *shared;
};

static struct trace_file *file_of(const struct wrap_layer *w) {
  return ((const struct trace_layer *)(const void *)w)->file;
}

/* ---- executables ---- */
static void shared_free(const unroll_allocator *a, struct trace_shared *s) {
  if (s) {
    mem_free(a, s->nodes);
    mem_free(a, s->names);
    mem_free(a, s);
  }
}

/* NULL: no memory. A view that can't be read has no nodes. */
static struct trace_shared *shared_make(const unroll_allocator *a, const unroll_graph_view *v) {
  const bool readable =
      v && UNROLL_HAS(unroll_graph_view, v, bodies) && v->node_stride >= sizeof(unroll_node_view) && v->nodes;
  const uint32_t n = readable ? v->n_nodes : 0;
  struct trace_shared *s = mem_zalloc(a, sizeof *s);
  struct text names;
  if (!s) {
    return NULL;
  }
  text_init(&names, a);
  s->references = 1;
  s->n_nodes = n;
  s->is_template = readable && v->is_template;
  s->nodes = mem_array(a, (uint64_t)n + 1, sizeof *s->nodes);
  for (uint32_t i = 0; s->nodes && i < n; i++) {
    const unroll_node_view *node =
        (const unroll_node_view *)(const void *)((const char *)v->nodes + (size_t)i * v->node_stride);
    s->nodes[i] = (struct trace_node){node->op, node->layer, node->direction, (uint32_t)names.size};
    text_add_bytes(&names, node->name ? node->name : "?", strlen(node->name ? node->name : "?") + 1);
  }
  if (n > 0) {
    s->names = text_take(&names);
  }
  text_free(&names);
  if (!s->nodes || (n > 0 && !s->names)) {
    shared_free(a, s);
    return NULL;
  }
  return s;
}

static void shared_drop(struct wrap_layer *w, struct trace_shared **at) {
  struct trace_shared *s = *at;
  *at = NULL;
  pthread_mutex_lock(&w->mutex);
  const bool last = s && --s->references == 0;
  pthread_mutex_unlock(&w->mutex);
  if (last) {
    shared_free(&w->allocator, s);
  }
}

static const char *op_name(uint32_t op) {
  static const char *const names[UNROLL_OP_END] = {
#define OP_NAME(name, value, text) [value] = (text),
      UNROLL_OPS(OP_NAME)
#undef OP_NAME
  };
  return op < UNROLL_OP_END && names[op] ? names[op] : "?";
}

/* ---- spans ---- */
/* The first track of the queue that is free by then. */
static uint32_t lane_of(struct trace_queue *q, const unroll_profile_span *span) {
  uint32_t lane = 0;
  while (lane + 1 < LANES && q->lane_end_ns[lane] > span->begin_ns) {
    lane++;
  }
  q->lane_end_ns[lane] = span->end_ns;
  const struct trace_device *d = (const struct trace_device *)(const void *)q->base.device;
  const uint32_t thread = q->base.serial * LANES + lane;
  if (!(q->lanes_named & 1u << lane)) {
    char name[48];
    (void)snprintf(name, sizeof name, lane ? "queue %u, at once (%u)" : "queue %u", q->base.serial, lane + 1);
    trace_file_name(file_of(q->base.layer), "thread_name", d->process, thread, name);
    q->lanes_named |= 1u << lane;
  }
  return thread;
}

static void write_span(struct trace_queue *q, const unroll_profile_span *span, const struct wrap_object *binding) {
  const struct trace_device *d = (const struct trace_device *)(const void *)q->base.device;
  const struct trace_shared *s = binding ? ((const struct trace_binding *)(const void *)binding)->shared : NULL;
  const struct trace_node *node = s && span->node < s->n_nodes ? &s->nodes[span->node] : NULL;
  const char *label = span->label ? span->label : "?";
  struct trace_event e;
  trace_event_begin(&e, 'X', node ? s->names + node->name : label, d->process, lane_of(q, span), span->begin_ns,
                    span->end_ns);
  trace_event_text(&e, "label", label);
  if (node) {
    trace_event_text(&e, "op", op_name(node->op));
    if (node->layer >= 0) {
      trace_event_number(&e, "layer", node->layer);
      trace_event_text(&e, "direction", node->direction == UNROLL_REVERSE ? "reverse" : "forward");
    }
    if (s->is_template) {
      trace_event_number(&e, "t", span->t);
      trace_event_number(&e, "count", span->count);
    }
  }
  if (span->bytes) {
    trace_event_number(&e, "bytes", (int64_t)span->bytes);
  }
  trace_event_write(&e, file_of(q->base.layer));
}

static void take_span(void *ctx, const unroll_profile_span *from) {
  struct trace_queue *q = ctx;
  struct wrap_layer *w = q->base.layer;
  struct wrap_object *binding = wrap_binding_of(w, from->binding, from->end_ns);
  const unroll_profile_span span = wrap_span(from, binding);
  write_span(q, &span, binding);
  if (!q->by_host) {
    return;
  }
  if (mem_grow(&w->allocator, &q->kept, &q->kept_capacity, q->n_kept + 1, sizeof *q->kept)) {
    q->kept[q->n_kept++] = span;
  } else {
    q->lost = true;
  }
}

/* Waits for the queue. The host sees no error of this: the queue's own next call will have it again. */
static unroll_status drain(struct trace_queue *q, unroll_error *err) {
  struct wrap_layer *w = q->base.layer;
  if (!q->is_profiled || q->pending == 0) {
    return UNROLL_OK;
  }
  const uint64_t begin = wrap_now_ns();
  const unroll_status status = w->inner_profile->spans(q->base.inner, take_span, q, err);
  q->pending = 0;
  struct trace_event e;
  trace_event_begin(&e, 'X', "spans for the trace", 1, trace_file_thread(file_of(w)), begin, wrap_now_ns());
  trace_event_write(&e, file_of(w));
  return status;
}

static unroll_status trace_spans(struct wrap_object *queue, void (*each)(void *ctx, const unroll_profile_span *),
                                 void *ctx, unroll_error *err) {
  struct trace_queue *q = (struct trace_queue *)(void *)queue;
  if (!q->by_host) {
    return fail(err, UNROLL_E_STATE, "spans of a queue that was made without UNROLL_QUEUE_PROFILE");
  }
  q->pending++; /* also where nothing is known to be there */
  TRY(drain(q, err));
  for (uint32_t i = 0; i < q->n_kept; i++) {
    each(ctx, &q->kept[i]);
  }
  q->n_kept = 0;
  const bool lost = q->lost;
  q->lost = false;
  return lost ? fail(err, UNROLL_E_MEMORY, "out of memory for the spans that the trace has read") : UNROLL_OK;
}

/* ---- calls ---- */
static unroll_status trace_enter(struct wrap_call *c, unroll_error *err) {
  struct wrap_layer *w = c->layer;
  if (c->function == WRAP_FN_compile) {
    struct trace_exec *e = (struct trace_exec *)(void *)c->made;
    if (!(e->shared = shared_make(&w->allocator, c->view))) {
      return fail(err, UNROLL_E_MEMORY, "out of memory for the names of nodes");
    }
  } else if (c->function == WRAP_FN_bind) {
    struct trace_binding *b = (struct trace_binding *)(void *)c->made;
    pthread_mutex_lock(&w->mutex);
    b->shared = ((struct trace_exec *)(void *)c->object[0])->shared;
    b->shared->references++;
    pthread_mutex_unlock(&w->mutex);
  } else if (c->function == WRAP_FN_queue_create) {
    struct trace_queue *q = (struct trace_queue *)(void *)c->made;
    q->is_profiled = w->inner_profile != NULL;
    q->by_host = q->is_profiled && (c->flags & UNROLL_QUEUE_PROFILE);
    c->flags |= q->is_profiled ? UNROLL_QUEUE_PROFILE : 0;
  } else if (c->function == WRAP_FN_device_open) {
    ((struct trace_device *)(void *)c->made)->process = trace_file_process(file_of(w));
  } else if (c->function == WRAP_FN_queue_destroy) {
    (void)drain((struct trace_queue *)(void *)c->object[0], NULL);
  }
  c->begin_ns = wrap_now_ns();
  return UNROLL_OK;
}

/* "matmul_2 and 5 more" */
static void add_nodes(struct trace_event *e, const struct trace_shared *s) {
  char text[200];
  if (s->n_nodes > 1) {
    (void)snprintf(text, sizeof text, "%.150s and %u more", s->names, s->n_nodes - 1);
    trace_event_text(e, "nodes", text);
  } else if (s->n_nodes == 1) {
    trace_event_text(e, "nodes", s->names);
  }
}

static bool is_transfer(int32_t function) {
  return function == WRAP_FN_write || function == WRAP_FN_read || function == WRAP_FN_fill || function == WRAP_FN_copy;
}

static void write_call(const struct wrap_call *c, unroll_status status) {
  struct trace_file *f = file_of(c->layer);
  const struct wrap_object *o = c->n_objects ? c->object[0] : c->made;
  struct trace_event e;
  trace_event_begin(&e, 'X', wrap_function_name(c->function), 1, trace_file_thread(f), c->begin_ns, wrap_now_ns());
  trace_event_text(&e, "device", o ? ((const struct wrap_device *)(const void *)o->device)->id : c->layer->plugin_id);
  if (is_transfer(c->function) || c->function == WRAP_FN_map || c->function == WRAP_FN_buffer_create ||
      c->function == WRAP_FN_buffer_from_host) {
    trace_event_number(&e, "bytes", (int64_t)c->bytes);
  }
  if (c->function == WRAP_FN_compile && c->made) {
    add_nodes(&e, ((const struct trace_exec *)(const void *)c->made)->shared);
  }
  if (o && (c->function == WRAP_FN_bind || c->function == WRAP_FN_run)) {
    const struct trace_shared *s = c->function == WRAP_FN_run ? ((const struct trace_binding *)(const void *)o)->shared
                                                              : ((const struct trace_exec *)(const void *)o)->shared;
    add_nodes(&e, s);
    if (c->function == WRAP_FN_run && s->is_template) {
      char steps[64];
      const int64_t last = c->args->first + (c->args->count - 1) * (c->args->direction == UNROLL_REVERSE ? -1 : 1);
      (void)snprintf(steps, sizeof steps, "%" PRId64 "..%" PRId64, c->args->first, last);
      trace_event_text(&e, "t", steps);
    }
  }
  if (status != UNROLL_OK) {
    trace_event_text(&e, "status", unroll_status_name(status));
  }
  trace_event_write(&e, f);
}

static struct trace_queue *queue_of(const struct wrap_call *c) {
  const uint32_t at = c->function == WRAP_FN_run ? 1 : 0;
  return at < c->n_objects && c->object[at]->type == WRAP_QUEUE ? (struct trace_queue *)(void *)c->object[at] : NULL;
}

static void trace_leave(struct wrap_call *c, unroll_status status) {
  struct trace_queue *q = queue_of(c);
  write_call(c, status);
  if (c->function == WRAP_FN_device_open && c->made) {
    const struct trace_device *d = (const struct trace_device *)(const void *)c->made;
    trace_file_name(file_of(c->layer), "process_name", d->process, 0, d->base.id);
  }
  if (c->function == WRAP_FN_run) {
    const struct trace_shared *s = ((const struct trace_binding *)(const void *)c->object[0])->shared;
    q->pending += (uint64_t)s->n_nodes * (s->is_template && c->args->count > 0 ? (uint64_t)c->args->count : 1);
  } else if (is_transfer(c->function)) {
    q->pending++;
  }
  const bool waited = c->function == WRAP_FN_queue_sync || (c->function == WRAP_FN_read && c->waits);
  if (q && c->function != WRAP_FN_queue_destroy && (waited || q->pending > PENDING_MAX)) {
    (void)drain(q, NULL);
  }
}

static void trace_dispose(struct wrap_object *o) {
  if (o->type == WRAP_QUEUE) {
    struct trace_queue *q = (struct trace_queue *)(void *)o;
    mem_free(&o->layer->allocator, q->kept);
    q->kept = NULL;
  } else if (o->type == WRAP_EXEC) {
    shared_drop(o->layer, &((struct trace_exec *)(void *)o)->shared);
  } else if (o->type == WRAP_BINDING) {
    shared_drop(o->layer, &((struct trace_binding *)(void *)o)->shared);
  }
}

static unroll_status trace_open(struct wrap_layer *w, struct wrap_host *host, unroll_error *err) {
  if (!host->trace) {
    const char *path = secure_getenv("UNROLL_TRACE");
    TRY(trace_file_open(host->allocator, host->logger, path && *path ? path : "unroll-trace.json", &host->trace, err));
  }
  ((struct trace_layer *)(void *)w)->file = host->trace;
  return UNROLL_OK;
}

const struct wrap_kind wrap_trace_kind = {
    .word = "trace",
    .size = {sizeof(struct trace_device), sizeof(struct trace_queue), sizeof(struct wrap_object),
             sizeof(struct trace_exec), sizeof(struct trace_binding), sizeof(struct wrap_object)},
    .layer_size = sizeof(struct trace_layer),
    .open = trace_open,
    .enter = trace_enter,
    .leave = trace_leave,
    .dispose = trace_dispose,
    .spans = trace_spans,
};
