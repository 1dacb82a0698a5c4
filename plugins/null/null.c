/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A backend that takes everything and computes nothing: what is left of a run is the dispatch. For bench/dispatch.c and for
 * profilers; results are what the buffers held before. It is not installed, and its score keeps --device auto away from it.
 *
 * Options of its device:
 *     layers=1    layers, their gradients and scans are taken whole; else they come back as their parts
 *     alone=1     every node is a group of its own, so that the host calls run for each, and again at each step of a scan
 */
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unroll/plugin.h>

#define ALIGNMENT 64u
#define MEMORY (UINT64_C(1) << 40) /* what the device says that it has; the host's allocator knows better */

struct unroll_backend_event {
  unroll_backend *backend;
};
struct unroll_backend {
  unroll_host host;
  unroll_backend_event done;
};
struct unroll_backend_device {
  unroll_backend *backend;
  bool takes_layers, alone;
};
struct unroll_backend_queue {
  unroll_backend *backend;
};
struct unroll_backend_buffer {
  unroll_backend *backend;
  uint64_t bytes;
  _Alignas(ALIGNMENT) char data[];
};
struct unroll_backend_exec {
  unroll_backend *backend;
};
struct unroll_backend_binding {
  unroll_backend *backend;
};

#define TRY(expression)                            \
  do {                                             \
    const unroll_status try_status = (expression); \
    if (try_status != UNROLL_OK)                   \
      return try_status;                           \
  } while (0)

__attribute__((format(printf, 3, 4))) static unroll_status fail(unroll_error *err, unroll_status code,
                                                                const char *format, ...) {
  if (err && UNROLL_HAS(unroll_error, err, message)) {
    va_list args;
    va_start(args, format);
    err->code = code;
    err->native = 0;
    (void)vsnprintf(err->message, sizeof err->message, format, args);
    va_end(args);
  }
  return code;
}

static void *take(unroll_backend *b, uint64_t bytes) {
  void *p = bytes <= 2 * MEMORY ? b->host.alloc(b->host.ctx, bytes, ALIGNMENT) : NULL;
  return p ? memset(p, 0, (size_t)bytes) : NULL;
}
static void give_back(unroll_backend *b, void *p) { b->host.free(b->host.ctx, p); }

/* ---- devices ---- */
static unroll_status device_count(unroll_backend *b, uint32_t *n, unroll_error *err) {
  (void)b, (void)err;
  *n = 1;
  return UNROLL_OK;
}

static unroll_status no_such_device(uint32_t i, unroll_error *err) {
  return fail(err, UNROLL_E_NOT_FOUND, "null: device %u, there is only device 0", i);
}

static unroll_status device_info(unroll_backend *b, uint32_t i, unroll_device_info *info, unroll_error *err) {
  (void)b;
  if (i != 0)
    return no_such_device(i, err);
  const unroll_device_info mine = {.struct_size = info->struct_size,
                                   .kind = UNROLL_KIND_CPU,
                                   .name = "computes nothing",
                                   .vendor = "unroll",
                                   .driver = "1.0",
                                   .id = "0",
                                   .mem_total = MEMORY,
                                   .max_buffer = MEMORY,
                                   .alignment = ALIGNMENT,
                                   .caps = UNROLL_CAP_DETERMINISTIC,
                                   .dtypes = (UINT64_C(1) << UNROLL_DTYPE_COUNT) - 1};
  memcpy(info, &mine, info->struct_size < sizeof mine ? info->struct_size : sizeof mine);
  return UNROLL_OK;
}

static unroll_status device_open(unroll_backend *b, uint32_t i, const unroll_option *options, uint32_t n_options,
                                 unroll_backend_device **out, unroll_error *err) {
  bool takes_layers = false, alone = false;
  if (i != 0)
    return no_such_device(i, err);
  for (uint32_t k = 0; k < n_options; k++) {
    const char *key = options[k].key, *value = options[k].value;
    bool *flag = strcmp(key, "layers") == 0 ? &takes_layers : strcmp(key, "alone") == 0 ? &alone : NULL;
    if (!flag)
      return fail(err, UNROLL_E_INVALID, "null: no option \"%s\", there are \"layers\" and \"alone\"", key);
    if (strcmp(value, "0") != 0 && strcmp(value, "1") != 0)
      return fail(err, UNROLL_E_INVALID, "null: option \"%s\" is \"%s\", expected 0 or 1", key, value);
    *flag = value[0] == '1';
  }
  unroll_backend_device *d = take(b, sizeof *d);
  if (!d)
    return fail(err, UNROLL_E_MEMORY, "null: no memory for a device");
  *d = (unroll_backend_device){b, takes_layers, alone};
  *out = d;
  return UNROLL_OK;
}
static void device_close(unroll_backend_device *d) {
  if (d)
    give_back(d->backend, d);
}

static unroll_status claim(unroll_backend_device *d, const unroll_graph_view *view, unroll_claim *claims,
                           uint32_t claim_stride, unroll_error *err) {
  (void)err;
  for (uint32_t i = 0; i < view->n_nodes; i++) {
    const unroll_node_view *n = (const void *)((const char *)view->nodes + (size_t)i * view->node_stride);
    const bool is_whole = n->op == UNROLL_OP_LAYER || n->op == UNROLL_OP_LAYER_GRAD || n->op == UNROLL_OP_SCAN;
    if (d->takes_layers || !is_whole)
      ((unroll_claim *)(void *)((char *)claims + (size_t)i * claim_stride))->group =
          d->alone ? i + 1 : UNROLL_GROUP_HOST;
  }
  return UNROLL_OK;
}

/* ---- buffers: real ones, since a program may look at what it wrote ---- */
static unroll_status buffer_create(unroll_backend_device *d, uint64_t bytes, uint64_t usage,
                                   unroll_backend_buffer **out, unroll_error *err) {
  (void)usage;
  unroll_backend_buffer *buffer = bytes <= MEMORY ? take(d->backend, sizeof *buffer + bytes) : NULL;
  if (!buffer)
    return fail(err, UNROLL_E_DEVICE_MEMORY, "null: no memory for %llu bytes", (unsigned long long)bytes);
  buffer->backend = d->backend;
  buffer->bytes = bytes;
  *out = buffer;
  return UNROLL_OK;
}
static void buffer_destroy(unroll_backend_buffer *buffer) {
  if (buffer)
    give_back(buffer->backend, buffer);
}

static unroll_status finish(unroll_backend_queue *q, unroll_backend_event **event) {
  if (event)
    *event = &q->backend->done;
  return UNROLL_OK;
}
static unroll_status check_range(const unroll_backend_buffer *buffer, uint64_t offset, uint64_t n, unroll_error *err) {
  if (offset <= buffer->bytes && n <= buffer->bytes - offset)
    return UNROLL_OK;
  return fail(err, UNROLL_E_RANGE, "null: %llu bytes from byte %llu on, the buffer has %llu", (unsigned long long)n,
              (unsigned long long)offset, (unsigned long long)buffer->bytes);
}
static unroll_status write_(unroll_backend_queue *q, unroll_backend_buffer *to, uint64_t offset, const void *from,
                            uint64_t n, unroll_backend_event **event, unroll_error *err) {
  TRY(check_range(to, offset, n, err));
  if (n)
    memcpy(to->data + offset, from, n);
  return finish(q, event);
}
static unroll_status read_(unroll_backend_queue *q, unroll_backend_buffer *from, uint64_t offset, void *to, uint64_t n,
                           unroll_backend_event **event, unroll_error *err) {
  TRY(check_range(from, offset, n, err));
  if (n)
    memcpy(to, from->data + offset, n);
  return finish(q, event);
}
static unroll_status fill(unroll_backend_queue *q, unroll_backend_buffer *to, uint64_t offset, uint64_t n,
                          uint8_t value, unroll_backend_event **event, unroll_error *err) {
  TRY(check_range(to, offset, n, err));
  memset(to->data + offset, value, n);
  return finish(q, event);
}
static unroll_status copy(unroll_backend_queue *q, unroll_backend_buffer *to, uint64_t to_offset,
                          unroll_backend_buffer *from, uint64_t from_offset, uint64_t n, unroll_backend_event **event,
                          unroll_error *err) {
  TRY(check_range(to, to_offset, n, err));
  TRY(check_range(from, from_offset, n, err));
  memcpy(to->data + to_offset, from->data + from_offset, n);
  return finish(q, event);
}

/* ---- queues ---- */
static unroll_status queue_create(unroll_backend_device *d, uint64_t flags, unroll_backend_queue **out,
                                  unroll_error *err) {
  (void)flags;
  unroll_backend_queue *q = take(d->backend, sizeof *q);
  if (!q)
    return fail(err, UNROLL_E_MEMORY, "null: no memory for a queue");
  q->backend = d->backend;
  *out = q;
  return UNROLL_OK;
}
static void queue_destroy(unroll_backend_queue *q) {
  if (q)
    give_back(q->backend, q);
}
static unroll_status queue_nothing(unroll_backend_queue *q, unroll_error *err) {
  (void)q, (void)err;
  return UNROLL_OK;
}
static unroll_status queue_wait(unroll_backend_queue *q, unroll_backend_event *event, unroll_error *err) {
  (void)q, (void)event, (void)err;
  return UNROLL_OK;
}
static unroll_status event_wait(unroll_backend_event *event, unroll_error *err) {
  (void)event, (void)err;
  return UNROLL_OK;
}
static void event_destroy(unroll_backend_event *event) { (void)event; }

/* ---- executables and bindings: nothing to know of the nodes ---- */
static unroll_status compile(unroll_backend_device *d, const unroll_graph_view *view, const unroll_option *options,
                             uint32_t n_options, unroll_backend_exec **out, unroll_error *err) {
  (void)view;
  if (n_options)
    return fail(err, UNROLL_E_INVALID, "null: compile has no option \"%s\"", options[0].key);
  unroll_backend_exec *x = take(d->backend, sizeof *x);
  if (!x)
    return fail(err, UNROLL_E_MEMORY, "null: no memory for an executable");
  x->backend = d->backend;
  *out = x;
  return UNROLL_OK;
}
static unroll_status exec_info(unroll_backend_exec *x, unroll_exec_info *info, unroll_error *err) {
  (void)x, (void)err;
  const unroll_exec_info mine = {.struct_size = info->struct_size, .workspace_alignment = ALIGNMENT};
  memcpy(info, &mine, info->struct_size < sizeof mine ? info->struct_size : sizeof mine);
  return UNROLL_OK;
}
static void exec_destroy(unroll_backend_exec *x) {
  if (x)
    give_back(x->backend, x);
}
static unroll_status bind_(unroll_backend_exec *x, const unroll_slot *slots, uint32_t n_slots, uint32_t slot_stride,
                           unroll_backend_buffer *workspace, uint64_t workspace_offset, unroll_backend_binding **out,
                           unroll_error *err) {
  (void)slots, (void)n_slots, (void)slot_stride, (void)workspace, (void)workspace_offset;
  unroll_backend_binding *b = take(x->backend, sizeof *b);
  if (!b)
    return fail(err, UNROLL_E_MEMORY, "null: no memory for a binding");
  b->backend = x->backend;
  *out = b;
  return UNROLL_OK;
}
static void binding_destroy(unroll_backend_binding *b) {
  if (b)
    give_back(b->backend, b);
}
static unroll_status run(unroll_backend_binding *b, unroll_backend_queue *q, const unroll_run_args *args,
                         unroll_backend_event **event, unroll_error *err) {
  (void)b, (void)args, (void)err;
  return finish(q, event);
}

/* ---- the plugin ---- */
static const unroll_backend_ops ops = {
    .struct_size = sizeof ops,
    .device_count = device_count,
    .device_info = device_info,
    .device_open = device_open,
    .device_close = device_close,
    .claim = claim,
    .buffer_create = buffer_create,
    .buffer_destroy = buffer_destroy,
    .write = write_,
    .read = read_,
    .fill = fill,
    .copy = copy,
    .queue_create = queue_create,
    .queue_destroy = queue_destroy,
    .queue_flush = queue_nothing,
    .queue_sync = queue_nothing,
    .compile = compile,
    .exec_info = exec_info,
    .exec_destroy = exec_destroy,
    .bind = bind_,
    .binding_destroy = binding_destroy,
    .run = run,
    .queue_wait = queue_wait,
    .event_wait = event_wait,
    .event_destroy = event_destroy,
};

static int32_t score(const unroll_host *host) {
  (void)host;
  return 1; /* as the reference, which then is preferred; 0 would keep it from being opened at all */
}

static unroll_status open_(const unroll_host *host, const unroll_option *options, uint32_t n_options,
                           unroll_backend **out, const unroll_backend_ops **out_ops, unroll_error *err) {
  if (n_options)
    return fail(err, UNROLL_E_INVALID, "null: no option \"%s\"", options[0].key);
  unroll_backend *b = host->alloc(host->ctx, sizeof *b, ALIGNMENT);
  if (!b)
    return fail(err, UNROLL_E_MEMORY, "null: no memory for the backend");
  *b = (unroll_backend){.done = {b}};
  memcpy(&b->host, host, host->struct_size < sizeof b->host ? host->struct_size : sizeof b->host);
  *out = b;
  *out_ops = &ops;
  return UNROLL_OK;
}

static unroll_status close_(unroll_backend *b, unroll_error *err) {
  (void)err;
  if (b)
    b->host.free(b->host.ctx, b);
  return UNROLL_OK;
}

UNROLL_PLUGIN_EXPORT("null") = {
    UNROLL_PLUGIN_HEADER, UNROLL_PLUGIN_UNLOADABLE, "null", "1.0", "unroll", score, open_, close_};
