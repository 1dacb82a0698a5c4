/* SPDX-License-Identifier: Apache-2.0 */
/* The plugin, its one device, buffers of host memory and a queue that is done when a call returns. */
#include "cpu.h"
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

unroll_status(cpu_fail)(unroll_error *err, unroll_status code, const char *format, ...) {
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

void *cpu_alloc(const unroll_host *host, uint64_t bytes) {
  void *p = bytes <= SIZE_MAX ? host->alloc(host->ctx, bytes, CPU_ALIGNMENT) : NULL;
  if (p)
    memset(p, 0, (size_t)bytes);
  return p;
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

static unroll_status device_count(unroll_backend *backend, uint32_t *n, unroll_error *err) {
  (void)backend;
  (void)err;
  *n = 1;
  return UNROLL_OK;
}

static unroll_status device_info(unroll_backend *backend, uint32_t i, unroll_device_info *info, unroll_error *err) {
  if (i != 0)
    return cpu_fail(err, UNROLL_E_NOT_FOUND, "cpu: device %u, there is only device 0", i);
  if (!UNROLL_HAS(unroll_device_info, info, dtypes))
    return cpu_fail(err, UNROLL_E_ABI, "cpu: unroll_device_info of %u bytes, at least %zu expected", info->struct_size,
                    UNROLL_SIZE_TO(unroll_device_info, dtypes));
  info->kind = UNROLL_KIND_CPU;
  info->name = backend->model;
  info->vendor = "unroll";
  info->driver = "reference";
  info->id = "0";
  info->mem_total = backend->memory;
  info->max_buffer = backend->memory;
  info->alignment = CPU_ALIGNMENT;
  info->caps = UNROLL_CAP_DETERMINISTIC;
  info->dtypes = UINT64_C(1) << UNROLL_F64 | UINT64_C(1) << UNROLL_F32 | UINT64_C(1) << UNROLL_I64 |
                 UINT64_C(1) << UNROLL_I32 | UINT64_C(1) << UNROLL_I8 | UINT64_C(1) << UNROLL_U8 |
                 UINT64_C(1) << UNROLL_BOOL;
  return UNROLL_OK;
}

static unroll_status no_options(const unroll_option *options, uint32_t n_options, unroll_error *err) {
  if (n_options == 0)
    return UNROLL_OK;
  return cpu_fail(err, UNROLL_E_UNSUPPORTED, "cpu: option \"%s\", the backend has none", options[0].key);
}

static unroll_status device_open(unroll_backend *backend, uint32_t i, const unroll_option *options, uint32_t n_options,
                                 unroll_backend_device **out, unroll_error *err) {
  if (i != 0)
    return cpu_fail(err, UNROLL_E_NOT_FOUND, "cpu: device %u, there is only device 0", i);
  TRY(no_options(options, n_options, err));
  *out = &backend->device;
  return UNROLL_OK;
}

static void device_close(unroll_backend_device *device) { (void)device; /* it lives with its backend */ }

/* ---- buffers ---- */
static unroll_status buffer_make(unroll_backend_device *device, void *data, uint64_t bytes, unroll_backend_buffer **out,
                                 unroll_error *err) {
  const unroll_host *host = &device->backend->host;
  unroll_backend_buffer *b = cpu_alloc(host, sizeof *b);
  if (!b)
    return cpu_fail(err, UNROLL_E_MEMORY, "cpu: no memory for a buffer");
  b->device = device;
  b->bytes = bytes;
  b->data = data;
  if (!data) {
    b->owned = true;
    b->data = bytes <= SIZE_MAX ? host->alloc(host->ctx, bytes ? bytes : 1, CPU_ALIGNMENT) : NULL;
  }
  if (!b->data) {
    host->free(host->ctx, b);
    return cpu_fail(err, UNROLL_E_DEVICE_MEMORY, "cpu: no memory for a buffer of %llu bytes",
                    (unsigned long long)bytes);
  }
  *out = b;
  return UNROLL_OK;
}

static unroll_status buffer_create(unroll_backend_device *device, uint64_t bytes, uint64_t usage,
                                   unroll_backend_buffer **out, unroll_error *err) {
  (void)usage;
  /* More would come as addresses without memory behind them. */
  if (bytes > device->backend->memory)
    return cpu_fail(err, UNROLL_E_DEVICE_MEMORY, "cpu: a buffer of %llu bytes, the machine has %llu",
                    (unsigned long long)bytes, (unsigned long long)device->backend->memory);
  return buffer_make(device, NULL, bytes, out, err);
}

static unroll_status buffer_from_host(unroll_backend_device *device, void *data, uint64_t bytes, uint64_t usage,
                                      unroll_backend_buffer **out, unroll_error *err) {
  (void)usage;
  if (!data)
    return cpu_fail(err, UNROLL_E_INVALID, "cpu: a buffer over memory at NULL");
  return buffer_make(device, data, bytes, out, err);
}

static void buffer_destroy(unroll_backend_buffer *b) {
  if (!b)
    return;
  const unroll_host *host = &b->device->backend->host;
  if (b->owned)
    host->free(host->ctx, b->data);
  host->free(host->ctx, b);
}

unroll_status cpu_buffer_range(const unroll_backend_buffer *b, uint64_t offset, uint64_t n, unroll_error *err) {
  if (offset > b->bytes || n > b->bytes - offset)
    return cpu_fail(err, UNROLL_E_RANGE, "cpu: %llu bytes from byte %llu on, the buffer has %llu",
                    (unsigned long long)n, (unsigned long long)offset, (unsigned long long)b->bytes);
  return UNROLL_OK;
}

/* Before a transfer: room for its span and its beginning, where the queue is profiled. */
static unroll_status begin_transfer(unroll_backend_queue *queue, uint64_t n, uint64_t *begin, unroll_error *err) {
  *begin = 0;
  if (!queue->profiled || n == 0)
    return UNROLL_OK;
  TRY(cpu_profile_room(queue, 1, err));
  *begin = cpu_now();
  return UNROLL_OK;
}

static unroll_status end_transfer(unroll_backend_queue *queue, const char *label, uint64_t begin, uint64_t n,
                                  unroll_backend_event **event) {
  if (queue->profiled && n)
    cpu_profile_transfer(queue, label, begin, n);
  if (event)
    *event = &queue->done;
  return UNROLL_OK;
}

static unroll_status write_buffer(unroll_backend_queue *queue, unroll_backend_buffer *b, uint64_t offset,
                                  const void *from, uint64_t n, unroll_backend_event **event, unroll_error *err) {
  TRY(cpu_buffer_range(b, offset, n, err));
  uint64_t begin;
  TRY(begin_transfer(queue, n, &begin, err));
  if (n)
    memcpy(b->data + offset, from, n);
  return end_transfer(queue, "write", begin, n, event);
}

static unroll_status read_buffer(unroll_backend_queue *queue, unroll_backend_buffer *b, uint64_t offset, void *to,
                                 uint64_t n, unroll_backend_event **event, unroll_error *err) {
  TRY(cpu_buffer_range(b, offset, n, err));
  uint64_t begin;
  TRY(begin_transfer(queue, n, &begin, err));
  if (n)
    memcpy(to, b->data + offset, n);
  return end_transfer(queue, "read", begin, n, event);
}

static unroll_status fill_buffer(unroll_backend_queue *queue, unroll_backend_buffer *b, uint64_t offset, uint64_t n,
                                 uint8_t value, unroll_backend_event **event, unroll_error *err) {
  TRY(cpu_buffer_range(b, offset, n, err));
  uint64_t begin;
  TRY(begin_transfer(queue, n, &begin, err));
  memset(b->data + offset, value, n);
  return end_transfer(queue, "fill", begin, n, event);
}

static unroll_status copy_buffer(unroll_backend_queue *queue, unroll_backend_buffer *to, uint64_t to_offset,
                                 unroll_backend_buffer *from, uint64_t from_offset, uint64_t n,
                                 unroll_backend_event **event, unroll_error *err) {
  TRY(cpu_buffer_range(to, to_offset, n, err));
  TRY(cpu_buffer_range(from, from_offset, n, err));
  uint64_t begin;
  TRY(begin_transfer(queue, n, &begin, err));
  memmove(to->data + to_offset, from->data + from_offset, n);
  return end_transfer(queue, "copy", begin, n, event);
}

static unroll_status map_buffer(unroll_backend_queue *queue, unroll_backend_buffer *b, uint64_t offset, uint64_t n,
                                uint64_t usage, void **out, unroll_error *err) {
  (void)queue;
  (void)usage;
  TRY(cpu_buffer_range(b, offset, n, err));
  *out = b->data + offset;
  return UNROLL_OK;
}

static unroll_status unmap_buffer(unroll_backend_queue *queue, unroll_backend_buffer *b, void *p, unroll_error *err) {
  (void)queue;
  const uintptr_t at = (uintptr_t)p, base = (uintptr_t)b->data;
  if (at < base || at - base > b->bytes)
    return cpu_fail(err, UNROLL_E_INVALID, "cpu: unmap of an address that is not in the buffer");
  return UNROLL_OK;
}

/* ---- queues and events: everything is done when its call returns ---- */
static unroll_status queue_create(unroll_backend_device *device, uint64_t flags, unroll_backend_queue **out,
                                  unroll_error *err) {
  unroll_backend_queue *q = cpu_alloc(&device->backend->host, sizeof *q);
  if (!q)
    return cpu_fail(err, UNROLL_E_MEMORY, "cpu: no memory for a queue");
  q->device = device;
  q->profiled = flags & UNROLL_QUEUE_PROFILE;
  *out = q;
  return UNROLL_OK;
}

static void queue_destroy(unroll_backend_queue *q) {
  if (!q)
    return;
  cpu_profile_free(q);
  q->device->backend->host.free(q->device->backend->host.ctx, q);
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

static const void *extension(unroll_backend *backend, const char *id) {
  (void)backend;
  return strcmp(id, UNROLL_PROFILE_ID) == 0 ? &cpu_profile_table : NULL;
}

static const unroll_backend_ops ops = {
    .struct_size = sizeof(unroll_backend_ops),
    .device_count = device_count,
    .device_info = device_info,
    .device_open = device_open,
    .device_close = device_close,
    .claim = cpu_claim,
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
    .compile = cpu_compile,
    .exec_info = cpu_exec_info,
    .exec_destroy = cpu_exec_destroy,
    .bind = cpu_bind,
    .binding_destroy = cpu_binding_destroy,
    .run = cpu_run,
    .buffer_from_host = buffer_from_host,
    .map = map_buffer,
    .unmap = unmap_buffer,
    .queue_wait = queue_wait,
    .event_wait = event_wait,
    .event_destroy = event_destroy,
    .extension = extension,
};

/* ---- plugin ---- */
static int32_t score(const unroll_host *host) {
  (void)host;
  return 1; /* it always works and is never the fastest */
}

static unroll_status close_backend(unroll_backend *backend, unroll_error *err) {
  (void)err;
  if (backend) {
    const unroll_host host = backend->host;
    cpu_pool_destroy(backend->pool);
    host.free(host.ctx, backend);
  }
  return UNROLL_OK;
}

static unroll_status open_backend(const unroll_host *host, const unroll_option *options, uint32_t n_options,
                                  unroll_backend **out, const unroll_backend_ops **out_ops, unroll_error *err) {
  if (!host || !UNROLL_HAS(unroll_host, host, free) || !host->alloc || !host->free)
    return cpu_fail(err, UNROLL_E_ABI, "cpu: the host gives no allocator");
  if (host->abi_major != UNROLL_ABI_MAJOR || host->abi_minor != UNROLL_ABI_MINOR)
    return cpu_fail(err, UNROLL_E_ABI, "cpu: built for ABI %u.%u, the host has %u.%u", UNROLL_ABI_MAJOR,
                    UNROLL_ABI_MINOR, host->abi_major, host->abi_minor);
  TRY(no_options(options, n_options, err));
  unroll_backend *b = cpu_alloc(host, sizeof *b);
  if (!b)
    return cpu_fail(err, UNROLL_E_MEMORY, "cpu: no memory for the backend");
  memcpy(&b->host, host, host->struct_size < sizeof b->host ? host->struct_size : sizeof b->host);
  b->device.backend = b;
  read_model(b->model, sizeof b->model);
  const long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
  b->memory = pages > 0 && page > 0 ? (uint64_t)pages * (uint64_t)page : SIZE_MAX / 2;

  const uint32_t *threads = NULL;
  if (UNROLL_HAS(unroll_host, host, extension) && host->extension)
    threads = host->extension(host->ctx, "unroll.threads/1");
  const unroll_status status = cpu_pool_create(&b->host, threads ? *threads : 1, &b->pool, err);
  if (status < 0) {
    (void)close_backend(b, NULL);
    return status;
  }
  *out = b;
  *out_ops = &ops;
  return UNROLL_OK;
}

extern const unroll_plugin unroll_plugin_v1_cpu;
const unroll_plugin unroll_plugin_v1_cpu = {UNROLL_PLUGIN_HEADER, 0, "cpu", "1.0", "unroll", score, open_backend,
                                            close_backend};
