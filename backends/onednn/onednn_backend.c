/* SPDX-License-Identifier: Apache-2.0 */
/* The plugin, its one device, buffers of host memory and a queue that is done when a call returns. */
#include "onednn.h"
#include <dnnl_debug.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Of whichever OpenMP libdnnl brought with it; NULL where libdnnl is built without. */
extern void omp_set_num_threads(int) __attribute__((weak));
extern int omp_get_max_threads(void) __attribute__((weak));

/* ---- errors ---- */
unroll_status(onednn_fail)(unroll_error *err, unroll_status code, const char *format, ...) {
  if (err && UNROLL_HAS(unroll_error, err, message)) {
    va_list args;
    err->code = code;
    err->native = 0;
    va_start(args, format);
    (void)vsnprintf(err->message, sizeof err->message, format, args);
    va_end(args);
  }
  return code;
}

unroll_status onednn_check(unroll_error *err, dnnl_status_t code, const char *call, const char *what) {
  if (code == dnnl_success)
    return UNROLL_OK;
  const unroll_status status = code == dnnl_out_of_memory   ? UNROLL_E_MEMORY
                               : code == dnnl_unimplemented ? UNROLL_E_UNSUPPORTED
                               : code == dnnl_runtime_error ? UNROLL_E_DEVICE
                               : code == dnnl_not_required  ? UNROLL_E_UNSUPPORTED
                                                            : UNROLL_E_INTERNAL;
  (void)onednn_fail(err, status, "onednn: %s%s%s: %s", call, what ? ": " : "", what ? what : "", dnnl_status2str(code));
  if (err && UNROLL_HAS(unroll_error, err, message))
    err->native = code;
  return status;
}

/* ---- memory ---- */
void *onednn_alloc(const unroll_backend *backend, uint64_t bytes) {
  void *p = bytes <= SIZE_MAX ? backend->host->alloc(backend->host->ctx, bytes ? bytes : 1, ONEDNN_ALIGNMENT) : NULL;
  if (p)
    memset(p, 0, (size_t)bytes);
  return p;
}

void onednn_free(const unroll_backend *backend, void *p) {
  if (p)
    backend->host->free(backend->host->ctx, p);
}

/* ---- threads ---- */
int onednn_enter(const unroll_backend *backend) {
  if (!omp_set_num_threads || !omp_get_max_threads || backend->n_threads == 0)
    return 0;
  const int before = omp_get_max_threads();
  omp_set_num_threads((int)backend->n_threads);
  return before;
}

void onednn_leave(int before) {
  if (before > 0)
    omp_set_num_threads(before);
}

/* ---- device ---- */
static void read_model(char *model, size_t size) {
  static const char key[] = "model name";
  char line[256];
  (void)snprintf(model, size, "CPU");
  FILE *f = fopen("/proc/cpuinfo", "re");
  if (!f)
    return;
  while (fgets(line, sizeof line, f)) {
    const char *colon = strchr(line, ':');
    if (strncmp(line, key, sizeof key - 1) != 0 || !colon)
      continue;
    colon += strspn(colon, ": \t");
    (void)snprintf(model, size, "%.*s", (int)strcspn(colon, "\n"), colon);
    break;
  }
  (void)fclose(f);
}

static uint64_t memory_bytes(void) {
  const long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
  return pages > 0 && page > 0 ? (uint64_t)pages * (uint64_t)page : 0;
}

static unroll_status device_count(unroll_backend *backend, uint32_t *n, unroll_error *err) {
  (void)backend;
  (void)err;
  *n = 1;
  return UNROLL_OK;
}

static unroll_status device_info(unroll_backend *backend, uint32_t i, unroll_device_info *info, unroll_error *err) {
  if (i != 0)
    return onednn_fail(err, UNROLL_E_NOT_FOUND, "onednn: device %u, there is only device 0", i);
  if (!UNROLL_HAS(unroll_device_info, info, dtypes))
    return onednn_fail(err, UNROLL_E_ABI, "onednn: unroll_device_info of %u bytes, at least %zu expected",
                       info->struct_size, UNROLL_SIZE_TO(unroll_device_info, dtypes));
  info->kind = UNROLL_KIND_CPU;
  info->name = backend->model;
  info->vendor = "oneAPI";
  info->driver = backend->driver;
  info->id = "0";
  info->mem_total = info->max_buffer = memory_bytes();
  info->alignment = ONEDNN_ALIGNMENT;
  info->caps = UNROLL_CAP_DETERMINISTIC;
  info->dtypes = UINT64_C(1) << UNROLL_F32 | UINT64_C(1) << UNROLL_U8; /* u8: reserves */
  return UNROLL_OK;
}

static unroll_status no_options(const unroll_option *options, uint32_t n_options, unroll_error *err) {
  if (n_options == 0)
    return UNROLL_OK;
  return onednn_fail(err, UNROLL_E_UNSUPPORTED, "onednn: option \"%s\", the backend has none", options[0].key);
}

static void device_close(unroll_backend_device *d) {
  if (!d)
    return;
  if (d->attr)
    (void)dnnl_primitive_attr_destroy(d->attr);
  if (d->engine)
    (void)dnnl_engine_destroy(d->engine);
  onednn_free(d->backend, d);
}

static unroll_status device_start(unroll_backend_device *d, unroll_error *err) {
  TRY(onednn_check(err, dnnl_engine_create(&d->engine, dnnl_cpu, 0), "dnnl_engine_create", NULL));
  TRY(onednn_check(err, dnnl_primitive_attr_create(&d->attr), "dnnl_primitive_attr_create", NULL));
  return onednn_check(err, dnnl_primitive_attr_set_scratchpad_mode(d->attr, dnnl_scratchpad_mode_user),
                      "dnnl_primitive_attr_set_scratchpad_mode", NULL);
}

static unroll_status device_open(unroll_backend *backend, uint32_t i, const unroll_option *options, uint32_t n_options,
                                 unroll_backend_device **out, unroll_error *err) {
  if (i != 0)
    return onednn_fail(err, UNROLL_E_NOT_FOUND, "onednn: device %u, there is only device 0", i);
  TRY(no_options(options, n_options, err));
  unroll_backend_device *d = onednn_alloc(backend, sizeof *d);
  if (!d)
    return onednn_fail(err, UNROLL_E_MEMORY, "onednn: no memory for a device");
  d->backend = backend;
  const unroll_status status = device_start(d, err);
  if (status < 0) {
    device_close(d);
    return status;
  }
  *out = d;
  return UNROLL_OK;
}

/* ---- buffers ---- */
static unroll_status buffer_make(unroll_backend_device *device, void *data, uint64_t bytes, unroll_backend_buffer **out,
                                 unroll_error *err) {
  const unroll_host *host = device->backend->host;
  unroll_backend_buffer *b = onednn_alloc(device->backend, sizeof *b);
  if (!b)
    return onednn_fail(err, UNROLL_E_MEMORY, "onednn: no memory for a buffer");
  b->device = device;
  b->bytes = bytes;
  b->data = data;
  if (!data) {
    b->owned = true;
    b->data = bytes <= SIZE_MAX ? host->alloc(host->ctx, bytes ? bytes : 1, ONEDNN_ALIGNMENT) : NULL;
  }
  if (!b->data) {
    onednn_free(device->backend, b);
    return onednn_fail(err, UNROLL_E_DEVICE_MEMORY, "onednn: no memory for a buffer of %llu bytes",
                       (unsigned long long)bytes);
  }
  *out = b;
  return UNROLL_OK;
}

static unroll_status buffer_create(unroll_backend_device *device, uint64_t bytes, uint64_t usage,
                                   unroll_backend_buffer **out, unroll_error *err) {
  (void)usage;
  if (bytes > memory_bytes())
    return onednn_fail(err, UNROLL_E_DEVICE_MEMORY, "onednn: a buffer of %llu bytes, there are %llu in all",
                       (unsigned long long)bytes, (unsigned long long)memory_bytes());
  return buffer_make(device, NULL, bytes, out, err);
}

static unroll_status buffer_from_host(unroll_backend_device *device, void *data, uint64_t bytes, uint64_t usage,
                                      unroll_backend_buffer **out, unroll_error *err) {
  (void)usage;
  if (!data || (uintptr_t)data % sizeof(float) != 0)
    return onednn_fail(err, UNROLL_E_INVALID, "onednn: a buffer over memory at %p, a multiple of %zu expected", data,
                       sizeof(float));
  return buffer_make(device, data, bytes, out, err);
}

static void buffer_destroy(unroll_backend_buffer *b) {
  if (!b)
    return;
  if (b->owned)
    onednn_free(b->device->backend, b->data);
  onednn_free(b->device->backend, b);
}

unroll_status onednn_buffer_range(const unroll_backend_buffer *b, uint64_t offset, uint64_t n, unroll_error *err) {
  if (offset > b->bytes || n > b->bytes - offset)
    return onednn_fail(err, UNROLL_E_RANGE, "onednn: %llu bytes from byte %llu on, the buffer has %llu",
                       (unsigned long long)n, (unsigned long long)offset, (unsigned long long)b->bytes);
  return UNROLL_OK;
}

/* Around a transfer: what begin gives goes to end. */
static unroll_status begin(unroll_backend_queue *queue, uint64_t *now, unroll_error *err) {
  *now = queue->profiled ? onednn_now() : 0;
  return onednn_profile_room(queue, 1, err);
}

static unroll_status end(unroll_backend_queue *queue, const char *label, uint64_t began, uint64_t n,
                         unroll_backend_event **event) {
  if (n > 0)
    onednn_profile_add(queue, &(unroll_profile_span){
                                  .node = UNROLL_NO_NODE, .label = label, .count = 1, .begin_ns = began, .bytes = n});
  if (event)
    *event = &queue->done;
  return UNROLL_OK;
}

static unroll_status write_buffer(unroll_backend_queue *queue, unroll_backend_buffer *b, uint64_t offset,
                                  const void *from, uint64_t n, unroll_backend_event **event, unroll_error *err) {
  TRY(onednn_buffer_range(b, offset, n, err));
  uint64_t began;
  TRY(begin(queue, &began, err));
  if (n)
    memcpy(b->data + offset, from, n);
  return end(queue, "write", began, n, event);
}

static unroll_status read_buffer(unroll_backend_queue *queue, unroll_backend_buffer *b, uint64_t offset, void *to,
                                 uint64_t n, unroll_backend_event **event, unroll_error *err) {
  TRY(onednn_buffer_range(b, offset, n, err));
  uint64_t began;
  TRY(begin(queue, &began, err));
  if (n)
    memcpy(to, b->data + offset, n);
  return end(queue, "read", began, n, event);
}

static unroll_status fill_buffer(unroll_backend_queue *queue, unroll_backend_buffer *b, uint64_t offset, uint64_t n,
                                 uint8_t value, unroll_backend_event **event, unroll_error *err) {
  TRY(onednn_buffer_range(b, offset, n, err));
  uint64_t began;
  TRY(begin(queue, &began, err));
  memset(b->data + offset, value, n);
  return end(queue, "fill", began, n, event);
}

static unroll_status copy_buffer(unroll_backend_queue *queue, unroll_backend_buffer *to, uint64_t to_offset,
                                 unroll_backend_buffer *from, uint64_t from_offset, uint64_t n,
                                 unroll_backend_event **event, unroll_error *err) {
  TRY(onednn_buffer_range(to, to_offset, n, err));
  TRY(onednn_buffer_range(from, from_offset, n, err));
  uint64_t began;
  TRY(begin(queue, &began, err));
  memmove(to->data + to_offset, from->data + from_offset, n);
  return end(queue, "copy", began, n, event);
}

static unroll_status map_buffer(unroll_backend_queue *queue, unroll_backend_buffer *b, uint64_t offset, uint64_t n,
                                uint64_t usage, void **out, unroll_error *err) {
  (void)queue;
  (void)usage;
  TRY(onednn_buffer_range(b, offset, n, err));
  *out = b->data + offset;
  return UNROLL_OK;
}

static unroll_status unmap_buffer(unroll_backend_queue *queue, unroll_backend_buffer *b, void *p, unroll_error *err) {
  (void)queue;
  const uintptr_t at = (uintptr_t)p, base = (uintptr_t)b->data;
  if (at < base || at - base > b->bytes)
    return onednn_fail(err, UNROLL_E_INVALID, "onednn: unmap of an address that is not in the buffer");
  return UNROLL_OK;
}

/* ---- queues and events: everything is done when its call returns ---- */
static void queue_destroy(unroll_backend_queue *q) {
  if (!q)
    return;
  if (q->stream)
    (void)dnnl_stream_destroy(q->stream);
  onednn_free(q->device->backend, q->spans);
  onednn_free(q->device->backend, q);
}

static unroll_status queue_create(unroll_backend_device *device, uint64_t flags, unroll_backend_queue **out,
                                  unroll_error *err) {
  unroll_backend_queue *q = onednn_alloc(device->backend, sizeof *q);
  if (!q)
    return onednn_fail(err, UNROLL_E_MEMORY, "onednn: no memory for a queue");
  q->device = device;
  q->profiled = flags & UNROLL_QUEUE_PROFILE;
  const unroll_status status = onednn_check(
      err, dnnl_stream_create(&q->stream, device->engine, dnnl_stream_default_flags), "dnnl_stream_create", NULL);
  if (status < 0) {
    queue_destroy(q);
    return status;
  }
  *out = q;
  return UNROLL_OK;
}

static unroll_status queue_nothing(unroll_backend_queue *queue, unroll_error *err) {
  (void)queue;
  (void)err;
  return UNROLL_OK;
}

static unroll_status queue_wait(unroll_backend_queue *queue, unroll_backend_event *event, unroll_error *err) {
  (void)event;
  return queue_nothing(queue, err);
}

static unroll_status event_wait(unroll_backend_event *event, unroll_error *err) {
  (void)event;
  (void)err;
  return UNROLL_OK;
}

static void event_destroy(unroll_backend_event *event) { (void)event; /* it is a part of its queue */ }

/* ---- extensions ---- */
/* All but products, constants and layers without lengths, and what is made of more than these. */
static const char *const left_to_others[] = {
    "*unary *",
    "*binary *",
    "*reduce *",
    "*softmax *",
    "*dropout *",
    "*pad *",
    "*slice *",
    "*concat *",
    "*transpose *",
    "*cast *",
    "*random *",
    "*top_k *",
    "*linear_scan*",
    "*layer_norm*",
    "*constant * u8",
    "*lstm_gates*",
    "*gru_after_gates*",
    "*gru_reset*",
    "*gru_update*",
    "recurrence *",
    "exact recurrence sign *",
    "scan *",
    "* lengths *",
    "layer * run-time T *",
    "net bidirectional *",
    "net carried state * grad*",
    "net language *",
    "net optimized *",
    "net residual *",
    "net shared weights *",
    "net side by side *",
    "net views *",
};

static const void *extension(unroll_backend *backend, const char *id) {
  static const unroll_conform conform = {sizeof conform, sizeof left_to_others / sizeof *left_to_others,
                                         left_to_others};
  (void)backend;
  if (strcmp(id, UNROLL_PROFILE_ID) == 0)
    return &onednn_profile_table;
  return strcmp(id, UNROLL_CONFORM_ID) == 0 ? &conform : NULL;
}

static const unroll_backend_ops ops = {
    .struct_size = sizeof(unroll_backend_ops),
    .device_count = device_count,
    .device_info = device_info,
    .device_open = device_open,
    .device_close = device_close,
    .claim = onednn_claim,
    .buffer_create = buffer_create,
    .buffer_destroy = buffer_destroy,
    .write = write_buffer,
    .read = read_buffer,
    .fill = fill_buffer,
    .copy = copy_buffer,
    .queue_create = queue_create,
    .queue_destroy = queue_destroy,
    .queue_flush = queue_nothing,
    .queue_sync = queue_nothing,
    .compile = onednn_compile,
    .exec_info = onednn_exec_info,
    .exec_destroy = onednn_exec_destroy,
    .bind = onednn_bind,
    .binding_destroy = onednn_binding_destroy,
    .run = onednn_run,
    .buffer_from_host = buffer_from_host,
    .map = map_buffer,
    .unmap = unmap_buffer,
    .queue_wait = queue_wait,
    .event_wait = event_wait,
    .event_destroy = event_destroy,
    .extension = extension,
};

/* ---- plugin ---- */
/* Above the reference, below a backend that takes every op: what this one leaves runs elsewhere. */
static int32_t score(const unroll_host *host) {
  (void)host;
  return 10;
}

static unroll_status close_backend(unroll_backend *backend, unroll_error *err) {
  (void)err;
  if (backend)
    onednn_free(backend, backend);
  return UNROLL_OK;
}

static unroll_status open_backend(const unroll_host *host, const unroll_option *options, uint32_t n_options,
                                  unroll_backend **out, const unroll_backend_ops **out_ops, unroll_error *err) {
  if (!host || !UNROLL_HAS(unroll_host, host, free) || !host->alloc || !host->free)
    return onednn_fail(err, UNROLL_E_ABI, "onednn: the host gives no allocator");
  if (host->abi_major != UNROLL_ABI_MAJOR || host->abi_minor != UNROLL_ABI_MINOR)
    return onednn_fail(err, UNROLL_E_ABI, "onednn: built for ABI %u.%u, the host has %u.%u", UNROLL_ABI_MAJOR,
                       UNROLL_ABI_MINOR, host->abi_major, host->abi_minor);
  TRY(no_options(options, n_options, err));
  const dnnl_version_t *version = dnnl_version();
  if (version->major != DNNL_VERSION_MAJOR)
    return onednn_fail(err, UNROLL_E_UNSUPPORTED, "onednn: built for oneDNN %d, this is %d.%d.%d", DNNL_VERSION_MAJOR,
                       version->major, version->minor, version->patch);
  const unroll_backend only_host = {.host = host};
  unroll_backend *b = onednn_alloc(&only_host, sizeof *b);
  if (!b)
    return onednn_fail(err, UNROLL_E_MEMORY, "onednn: no memory for the backend");
  b->host = host;
  read_model(b->model, sizeof b->model);
  (void)snprintf(b->driver, sizeof b->driver, "oneDNN %d.%d.%d", version->major, version->minor, version->patch);
  const uint32_t *threads = NULL;
  if (UNROLL_HAS(unroll_host, host, extension) && host->extension)
    threads = host->extension(host->ctx, "unroll.threads/1");
  if (threads && *threads <= INT32_MAX)
    b->n_threads = *threads;
  *out = b;
  *out_ops = &ops;
  return UNROLL_OK;
}

UNROLL_PLUGIN_EXPORT("onednn") = {UNROLL_PLUGIN_HEADER, 0, "onednn", "0.1", "unroll", score, open_backend,
                                  close_backend};
