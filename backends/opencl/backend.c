/* SPDX-License-Identifier: Apache-2.0 */
/* backend.c: the plugin's entry points, errors, and the devices of all platforms. */
#include "opencl.h"
#include <clblast_c.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

unroll_status(opencl_fail)(unroll_error *err, unroll_status code, int64_t native, const char *format, ...) {
  if (err && UNROLL_HAS(unroll_error, err, message)) {
    va_list list;
    err->code = code;
    err->native = native;
    va_start(list, format);
    vsnprintf(err->message, sizeof err->message, format, list);
    va_end(list);
  }
  return code;
}

static const struct {
  cl_int code;
  const char *name;
} error_names[] = {
    {CL_DEVICE_NOT_FOUND, "CL_DEVICE_NOT_FOUND"},
    {CL_DEVICE_NOT_AVAILABLE, "CL_DEVICE_NOT_AVAILABLE"},
    {CL_COMPILER_NOT_AVAILABLE, "CL_COMPILER_NOT_AVAILABLE"},
    {CL_MEM_OBJECT_ALLOCATION_FAILURE, "CL_MEM_OBJECT_ALLOCATION_FAILURE"},
    {CL_OUT_OF_RESOURCES, "CL_OUT_OF_RESOURCES"},
    {CL_OUT_OF_HOST_MEMORY, "CL_OUT_OF_HOST_MEMORY"},
    {CL_BUILD_PROGRAM_FAILURE, "CL_BUILD_PROGRAM_FAILURE"},
    {CL_EXEC_STATUS_ERROR_FOR_EVENTS_IN_WAIT_LIST, "CL_EXEC_STATUS_ERROR_FOR_EVENTS_IN_WAIT_LIST"},
    {CL_INVALID_VALUE, "CL_INVALID_VALUE"},
    {CL_INVALID_DEVICE, "CL_INVALID_DEVICE"},
    {CL_INVALID_CONTEXT, "CL_INVALID_CONTEXT"},
    {CL_INVALID_COMMAND_QUEUE, "CL_INVALID_COMMAND_QUEUE"},
    {CL_INVALID_MEM_OBJECT, "CL_INVALID_MEM_OBJECT"},
    {CL_INVALID_BINARY, "CL_INVALID_BINARY"},
    {CL_INVALID_BUILD_OPTIONS, "CL_INVALID_BUILD_OPTIONS"},
    {CL_INVALID_KERNEL_NAME, "CL_INVALID_KERNEL_NAME"},
    {CL_INVALID_KERNEL_ARGS, "CL_INVALID_KERNEL_ARGS"},
    {CL_INVALID_ARG_INDEX, "CL_INVALID_ARG_INDEX"},
    {CL_INVALID_ARG_VALUE, "CL_INVALID_ARG_VALUE"},
    {CL_INVALID_ARG_SIZE, "CL_INVALID_ARG_SIZE"},
    {CL_INVALID_WORK_GROUP_SIZE, "CL_INVALID_WORK_GROUP_SIZE"},
    {CL_INVALID_GLOBAL_WORK_SIZE, "CL_INVALID_GLOBAL_WORK_SIZE"},
    {CL_INVALID_BUFFER_SIZE, "CL_INVALID_BUFFER_SIZE"},
};

unroll_status opencl_error(unroll_backend_device *d, unroll_error *err, cl_int code, const char *call,
                           const char *what) {
  unroll_status status = UNROLL_E_DEVICE;
  const char *name = "";
  if (d)
    atomic_fetch_add(&d->faults, 1);
  for (size_t i = 0; i < sizeof error_names / sizeof *error_names; i++)
    if (error_names[i].code == code)
      name = error_names[i].name;
  if (code == CL_OUT_OF_HOST_MEMORY)
    status = UNROLL_E_MEMORY;
  else if (code == CL_MEM_OBJECT_ALLOCATION_FAILURE || code == CL_INVALID_BUFFER_SIZE)
    status = UNROLL_E_DEVICE_MEMORY;
  else if (code == CL_DEVICE_NOT_AVAILABLE || code == CL_INVALID_COMMAND_QUEUE || code == -9999) {
    /* Drivers report a fault of a kernel as a queue that is invalid from then on, or as -9999. */
    status = UNROLL_E_DEVICE_LOST;
    if (d)
      atomic_store(&d->lost, code);
  }
  return opencl_fail(err, status, code, "%s%s%s: OpenCL error %d %s", call, what ? ": " : "", what ? what : "", code,
                     name);
}

unroll_status opencl_alive(unroll_backend_device *d, unroll_error *err) {
  const int code = atomic_load(&d->lost);
  return code == 0 ? UNROLL_OK
                   : opencl_fail(err, UNROLL_E_DEVICE_LOST, code, "opencl: device %s (%s) is lost: OpenCL error %d",
                                 d->entry->id, d->entry->name, code);
}

void opencl_log(const unroll_host *host, int32_t level, const char *format, ...) {
  char text[1024];
  va_list list;
  if (!host || !UNROLL_HAS(unroll_host, host, log) || !host->log)
    return;
  va_start(list, format);
  vsnprintf(text, sizeof text, format, list);
  va_end(list);
  host->log(host->ctx, level, text);
}

void *opencl_alloc(const unroll_host *host, size_t count, size_t size) {
  if (size && count > SIZE_MAX / size)
    return NULL;
  const size_t bytes = count > 0 && size > 0 ? count * size : 1;
  void *p = host->alloc(host->ctx, bytes, _Alignof(max_align_t));
  return p ? memset(p, 0, bytes) : NULL;
}

void opencl_free(const unroll_host *host, void *p) {
  if (p)
    host->free(host->ctx, p);
}

char *opencl_copy_text(const unroll_host *host, const char *text) {
  char *copy = opencl_alloc(host, strlen(text) + 1, 1);
  return copy ? strcpy(copy, text) : NULL;
}

/* ---- finding devices ---- */
static char *device_text(const unroll_host *host, cl_device_id device, cl_device_info what) {
  enum { MOST = 1 << 20 }; /* no driver says so much: what claims to be longer is no text */
  size_t size = 0;
  if (clGetDeviceInfo(device, what, 0, NULL, &size) != CL_SUCCESS || size > MOST)
    size = 0;
  char *text = opencl_alloc(host, size + 1, 1);
  if (text && size && clGetDeviceInfo(device, what, size, text, NULL) != CL_SUCCESS)
    text[0] = 0;
  return text;
}

static uint64_t device_number(cl_device_id device, cl_device_info what) {
  cl_ulong value = 0;
  return clGetDeviceInfo(device, what, sizeof value, &value, NULL) == CL_SUCCESS ? value : 0;
}

static uint32_t device_uint(cl_device_id device, cl_device_info what) {
  cl_uint value = 0;
  return clGetDeviceInfo(device, what, sizeof value, &value, NULL) == CL_SUCCESS ? value : 0;
}

static const uint64_t LEAST_BUFFER = UINT64_C(128) << 20;

/* What a driver does not say, or says absurdly, is taken as the least that the standard has; only memory is needed. */
static bool describe(const unroll_host *host, device_entry *e) {
  e->name = device_text(host, e->device, CL_DEVICE_NAME);
  e->vendor = device_text(host, e->device, CL_DEVICE_VENDOR);
  e->driver = device_text(host, e->device, CL_DRIVER_VERSION);
  char *extensions = device_text(host, e->device, CL_DEVICE_EXTENSIONS);
  const bool complete = e->name && e->vendor && e->driver && extensions;
  if (clGetDeviceInfo(e->device, CL_DEVICE_TYPE, sizeof e->type, &e->type, NULL) != CL_SUCCESS)
    e->type = CL_DEVICE_TYPE_DEFAULT;
  e->mem_total = device_number(e->device, CL_DEVICE_GLOBAL_MEM_SIZE);
  e->max_buffer = device_number(e->device, CL_DEVICE_MAX_MEM_ALLOC_SIZE);
  if (e->max_buffer == 0) /* the least that the standard allows */
    e->max_buffer = e->mem_total / 4 > LEAST_BUFFER ? e->mem_total / 4 : LEAST_BUFFER;
  e->fp64 = extensions && strstr(extensions, "cl_khr_fp64");
  e->integrated = device_uint(e->device, CL_DEVICE_HOST_UNIFIED_MEMORY) != 0;
  opencl_free(host, extensions);
  return complete;
}

static void backend_free(unroll_backend *b) {
  const unroll_host *host = b->host;
  for (uint32_t i = 0; i < b->n_devices; i++) {
    opencl_free(host, b->devices[i].name);
    opencl_free(host, b->devices[i].vendor);
    opencl_free(host, b->devices[i].driver);
  }
  opencl_free(host, b->devices);
  opencl_free(host, b);
}

static unroll_status add_platform(unroll_backend *b, cl_platform_id platform, uint32_t number, unroll_error *err) {
  cl_uint n = 0;
  cl_int code = clGetDeviceIDs(platform, CL_DEVICE_TYPE_ALL, 0, NULL, &n);
  if (code == CL_DEVICE_NOT_FOUND || (code == CL_SUCCESS && n == 0)) {
    opencl_log(b->host, UNROLL_LOG_DEBUG, "opencl: platform %u has no device", number);
    return UNROLL_OK;
  }
  cl_device_id *ids = NULL;
  device_entry *more = NULL;
  if (code == CL_SUCCESS) {
    ids = opencl_alloc(b->host, n, sizeof *ids);
    more = opencl_alloc(b->host, (size_t)b->n_devices + n, sizeof *more);
    if (ids && more)
      code = clGetDeviceIDs(platform, CL_DEVICE_TYPE_ALL, n, ids, NULL);
  }
  if (code != CL_SUCCESS || !ids || !more) {
    opencl_free(b->host, ids);
    opencl_free(b->host, more);
    if (code == CL_SUCCESS)
      return opencl_fail(err, UNROLL_E_MEMORY, 0, "opencl: no memory for %u devices", n);
    opencl_log(b->host, UNROLL_LOG_WARN, "opencl: platform %u is left out: clGetDeviceIDs: OpenCL error %d", number,
               code);
    return UNROLL_OK;
  }
  if (b->n_devices)
    memcpy(more, b->devices, b->n_devices * sizeof *more);
  opencl_free(b->host, b->devices);
  b->devices = more;
  bool complete = true;
  for (uint32_t i = 0; i < n; i++) {
    device_entry *e = &b->devices[b->n_devices++];
    e->platform = platform;
    e->device = ids[i];
    snprintf(e->id, sizeof e->id, "%u.%u", number, i);
    complete = describe(b->host, e) && complete;
  }
  opencl_free(b->host, ids);
  return complete ? UNROLL_OK : opencl_fail(err, UNROLL_E_MEMORY, 0, "opencl: no memory to describe %u devices", n);
}

static const unroll_backend_ops opencl_ops;

/* [main] */
static unroll_status backend_open(const unroll_host *host, const unroll_option *options, uint32_t n_options,
                                  unroll_backend **out, const unroll_backend_ops **ops, unroll_error *err) {
  if (n_options)
    return opencl_fail(err, UNROLL_E_INVALID, 0, "opencl: option \"%s\": the backend itself has none, a device has",
                       options[0].key);
  unroll_backend *b = opencl_alloc(host, 1, sizeof *b);
  if (!b)
    return opencl_fail(err, UNROLL_E_MEMORY, 0, "opencl: no memory for the backend");
  b->host = host;
  enum { NO_PLATFORM = -1001 }; /* CL_PLATFORM_NOT_FOUND_KHR: the loader's word where no driver is installed */
  cl_uint n = 0;
  unroll_status status = UNROLL_OK;
  cl_int code = clGetPlatformIDs(0, NULL, &n);
  if (code == CL_SUCCESS && n > 0) {
    cl_platform_id *platforms = opencl_alloc(host, n, sizeof *platforms);
    if (!platforms)
      status = opencl_fail(err, UNROLL_E_MEMORY, 0, "opencl: no memory for %u platforms", n);
    else if ((code = clGetPlatformIDs(n, platforms, NULL)) == CL_SUCCESS)
      for (uint32_t i = 0; i < n && status == UNROLL_OK; i++)
        status = add_platform(b, platforms[i], i, err);
    opencl_free(host, platforms);
  }
  if (code != CL_SUCCESS && code != NO_PLATFORM)
    opencl_log(host, UNROLL_LOG_WARN, "opencl: there are no devices: clGetPlatformIDs: OpenCL error %d", code);
  if (status != UNROLL_OK) {
    backend_free(b);
    return status;
  }
  *out = b;
  *ops = &opencl_ops;
  return UNROLL_OK;
}

/* [main] */
static unroll_status backend_close(unroll_backend *b, unroll_error *err) {
  if (!b)
    return UNROLL_OK;
  backend_free(b);
  const CLBlastStatusCode code = CLBlastClearCache();
  return code == CLBlastSuccess
             ? UNROLL_OK
             : opencl_fail(err, UNROLL_E_DEVICE, (int64_t)code, "CLBlastClearCache: error %d", (int)code);
}

/* [any] Below a native backend, above nothing: the host orders by it where the caller does not. */
static int32_t backend_score(const unroll_host *host) {
  (void)host;
  return 50;
}

static unroll_status device_count(unroll_backend *b, uint32_t *n, unroll_error *err) {
  (void)err;
  *n = b->n_devices;
  return UNROLL_OK;
}

static unroll_status device_info(unroll_backend *b, uint32_t i, unroll_device_info *info, unroll_error *err) {
  if (i >= b->n_devices)
    return opencl_fail(err, UNROLL_E_NOT_FOUND, 0, "opencl: device %u of %u", i, b->n_devices);
  if (!UNROLL_HAS(unroll_device_info, info, dtypes))
    return opencl_fail(err, UNROLL_E_ABI, 0, "opencl: unroll_device_info of %u bytes, at least %zu expected",
                       info->struct_size, UNROLL_SIZE_TO(unroll_device_info, dtypes));
  const device_entry *e = &b->devices[i];
  info->kind = e->type & CL_DEVICE_TYPE_CPU           ? UNROLL_KIND_CPU
               : e->type & CL_DEVICE_TYPE_ACCELERATOR ? UNROLL_KIND_ACCELERATOR
               : e->integrated                        ? UNROLL_KIND_INTEGRATED_GPU
                                                      : UNROLL_KIND_GPU;
  info->name = e->name;
  info->vendor = e->vendor;
  info->driver = e->driver;
  info->id = e->id;
  info->mem_total = e->mem_total;
  info->max_buffer = e->max_buffer;
  info->alignment = OPENCL_ALIGNMENT;
  info->caps = UNROLL_CAP_ASYNC | UNROLL_CAP_DETERMINISTIC;
  info->dtypes = 1u << UNROLL_F32 | 1u << UNROLL_I64 | 1u << UNROLL_I32 | 1u << UNROLL_BOOL;
  if (e->fp64)
    info->dtypes |= 1u << UNROLL_F64;
  return UNROLL_OK;
}

/* ---- opening ---- */
static const char *const op_names[UNROLL_OP_END] = {
#define OP_NAME(name, value, text) [value] = (text),
    UNROLL_OPS(OP_NAME)
#undef OP_NAME
};

static unroll_status set_mask(unroll_backend_device *d, const char *list, unroll_error *err) {
  while (*list) {
    const size_t n = strcspn(list, ",");
    uint32_t op = 1;
    while (op < UNROLL_OP_END && (strlen(op_names[op]) != n || strncmp(op_names[op], list, n) != 0))
      op++;
    if (n && op == UNROLL_OP_END)
      return opencl_fail(err, UNROLL_E_INVALID, 0, "opencl: option mask: \"%.*s\" is no op", (int)(n < 80 ? n : 80),
                         list);
    if (n)
      d->masked[op] = true;
    list += n + (list[n] == ',');
  }
  return UNROLL_OK;
}

/* The options that are one word of a list, and where in a device the word's number goes. */
static const struct {
  const char *key, *values[7];
  size_t at;
} choices[] = {
    {"product", {"auto", "clblast", "own", "tile"}, offsetof(unroll_backend_device, product)},
    {"recurrence",
     {"auto", "scan", "step", "sequence", "persistent", "layer"},
     offsetof(unroll_backend_device, recurrence)},
    {"tune", {"quick", "off", "thorough", "again"}, offsetof(unroll_backend_device, tune)},
    {"precision", {"float", "half"}, offsetof(unroll_backend_device, precision)},
    {"matrix", {"auto", "off", "emulated"}, offsetof(unroll_backend_device, matrix)},
    {"command_buffer", {"auto", "off", "on"}, offsetof(unroll_backend_device, command_buffer)},
    {"concurrent", {"auto", "off", "on"}, offsetof(unroll_backend_device, concurrent)},
    {"kernels", {"auto", "cpu", "gpu"}, offsetof(unroll_backend_device, kernels)},
};
enum { N_CHOICES = sizeof choices / sizeof *choices };

static unroll_status set_choice(unroll_backend_device *d, uint32_t i, const char *value, unroll_error *err) {
  char list[128];
  size_t n = 0;
  for (int32_t k = 0; choices[i].values[k]; k++) {
    if (strcmp(value, choices[i].values[k]) == 0) {
      *(int32_t *)((char *)d + choices[i].at) = k;
      return UNROLL_OK;
    }
    n += (size_t)snprintf(list + n, sizeof list - n, "%s%s", k ? ", " : "", choices[i].values[k]);
  }
  return opencl_fail(err, UNROLL_E_INVALID, 0, "opencl: option %s: \"%.60s\" is none of %s", choices[i].key, value,
                     list);
}

static unroll_status set_option(unroll_backend_device *d, const unroll_option *o, const char **cache,
                                unroll_error *err) {
  char list[128];
  size_t n = 0;
  if (strcmp(o->key, "mask") == 0)
    return set_mask(d, o->value, err);
  if (strcmp(o->key, "cache") == 0) {
    *cache = o->value;
    return UNROLL_OK;
  }
  for (uint32_t i = 0; i < N_CHOICES; i++) {
    if (strcmp(o->key, choices[i].key) == 0)
      return set_choice(d, i, o->value, err);
    n += (size_t)snprintf(list + n, sizeof list - n, "%s, ", choices[i].key);
  }
  return opencl_fail(err, UNROLL_E_INVALID, 0, "opencl: unknown option \"%.60s\"; there are %smask and cache", o->key,
                     list);
}

/* Lanes: what fills a register of the device, within the widths that OpenCL C has; GPUs coalesce best with four. */
static uint32_t lanes(const unroll_backend_device *d, cl_device_info what, uint32_t bytes) {
  if (!d->cpu)
    return 16 / bytes;
  uint32_t native = device_uint(d->entry->device, what), width = 32 / bytes;
  while (width < native && width < 16)
    width *= 2;
  return width;
}

static void device_close(unroll_backend_device *d) {
  if (!d)
    return;
  tune_close(d);
  program_free_all(d);
  if (d->own_queue)
    clReleaseCommandQueue(d->own_queue);
  if (d->context)
    clReleaseContext(d->context);
  pthread_mutex_destroy(&d->alone);
  pthread_mutex_destroy(&d->lock);
  opencl_free(d->host, d->cache);
  opencl_free(d->host, d->commands);
  opencl_free(d->host, d);
}

static void choose_group(unroll_backend_device *d) {
  size_t largest = 1;
  if (clGetDeviceInfo(d->entry->device, CL_DEVICE_MAX_WORK_GROUP_SIZE, sizeof largest, &largest, NULL) != CL_SUCCESS ||
      largest == 0)
    largest = 1;
  d->group = d->cpu ? 16 : 64;
  while (d->group > largest)
    d->group /= 2;
}

static unroll_status device_start(unroll_backend_device *d, const unroll_option *options, uint32_t n_options,
                                  unroll_error *err) {
  const char *cache = NULL;
  TRY(tune_open(d, err));
  for (uint32_t i = 0; i < n_options; i++)
    TRY(set_option(d, &options[i], &cache, err));
  if (d->kernels != KERNELS_AUTO)
    d->cpu = d->kernels == KERNELS_CPU;
  d->width32 = lanes(d, CL_DEVICE_NATIVE_VECTOR_WIDTH_FLOAT, 4);
  d->width64 = lanes(d, CL_DEVICE_NATIVE_VECTOR_WIDTH_DOUBLE, 8);
  choose_group(d);
  d->cache = program_cache_folder(d->host, cache);
  cl_int code;
  const cl_context_properties properties[] = {CL_CONTEXT_PLATFORM, (cl_context_properties)d->entry->platform, 0};
  d->context = clCreateContext(properties, 1, &d->entry->device, NULL, NULL, &code);
  if (code != CL_SUCCESS)
    return opencl_error(d, err, code, "clCreateContext", d->entry->name);
  TRY(commands_open(d, err));
  d->own_queue = clCreateCommandQueue(d->context, d->entry->device, 0, &code);
  if (code != CL_SUCCESS)
    return opencl_error(d, err, code, "clCreateCommandQueue", d->entry->name);
  return UNROLL_OK;
}

static unroll_status device_open(unroll_backend *b, uint32_t i, const unroll_option *options, uint32_t n_options,
                                 unroll_backend_device **out, unroll_error *err) {
  if (i >= b->n_devices)
    return opencl_fail(err, UNROLL_E_NOT_FOUND, 0, "opencl: device %u of %u", i, b->n_devices);
  unroll_backend_device *d = opencl_alloc(b->host, 1, sizeof *d);
  if (!d || pthread_mutex_init(&d->lock, NULL) != 0) {
    opencl_free(b->host, d);
    return opencl_fail(err, UNROLL_E_MEMORY, 0, "opencl: no memory for device %s", b->devices[i].id);
  }
  if (pthread_mutex_init(&d->alone, NULL) != 0) {
    pthread_mutex_destroy(&d->lock);
    opencl_free(b->host, d);
    return opencl_fail(err, UNROLL_E_MEMORY, 0, "opencl: no memory for device %s", b->devices[i].id);
  }
  d->backend = b;
  d->host = b->host;
  d->entry = &b->devices[i];
  /* llvmpipe is a processor that makes lanes of work-items, as a GPU does; vectors are cut into pieces there. */
  d->cpu = (d->entry->type & CL_DEVICE_TYPE_CPU) != 0 && strncmp(d->entry->name, "llvmpipe", 8) != 0;
  d->cores = (int64_t)device_uint(d->entry->device, CL_DEVICE_MAX_COMPUTE_UNITS);
  if (d->cores < 1)
    d->cores = 1;
  d->local_bytes = device_number(d->entry->device, CL_DEVICE_LOCAL_MEM_SIZE);
  const unroll_status status = device_start(d, options, n_options, err);
  if (status != UNROLL_OK) {
    device_close(d);
    return status;
  }
  *out = d;
  return UNROLL_OK;
}

static const void *backend_extension(unroll_backend *b, const char *id) {
  (void)b;
  return strcmp(id, UNROLL_PROFILE_ID) == 0 ? &opencl_profile : NULL;
}

static const unroll_backend_ops opencl_ops = {
    .struct_size = sizeof(unroll_backend_ops),
    .device_count = device_count,
    .device_info = device_info,
    .device_open = device_open,
    .device_close = device_close,
    .claim = exec_claim,
    .buffer_create = buffer_create,
    .buffer_destroy = buffer_destroy,
    .write = queue_write,
    .read = queue_read,
    .fill = queue_fill,
    .copy = queue_copy,
    .queue_create = queue_create,
    .queue_destroy = queue_destroy,
    .queue_flush = queue_flush,
    .queue_sync = queue_sync,
    .compile = exec_compile,
    .exec_info = exec_info,
    .exec_destroy = exec_destroy,
    .bind = exec_bind,
    .binding_destroy = binding_destroy,
    .run = binding_run,
    .buffer_from_host = buffer_from_host,
    .map = queue_map,
    .unmap = queue_unmap,
    .queue_wait = queue_wait,
    .event_wait = event_wait,
    .event_destroy = event_destroy,
    .extension = backend_extension,
};

UNROLL_PLUGIN_EXPORT("opencl") = {UNROLL_PLUGIN_HEADER, 0, "opencl", "0.1", "unroll", backend_score, backend_open,
                                  backend_close};
