/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A plugin whose devices compute nothing. UNROLL_STUB names the one way in which it misbehaves; STUB does too, and is no
 * variable that the library expects a driver to read.
 */
#include "stub.h"
#include <string.h>
#include <unistd.h>

struct unroll_backend {
  const unroll_host *host;
  uint32_t threads;
  unroll_backend_ops ops;
};

static int is(const char *way) {
  const char *set = getenv("UNROLL_STUB"), *other = getenv("STUB");
  return (set && strcmp(set, way) == 0) || (other && strcmp(other, way) == 0);
}

static unroll_status refuse(unroll_error *err, unroll_status code, const char *message) {
  if (err) {
    err->code = code;
    err->native = 7;
    strncpy(err->message, message, sizeof err->message - 1);
  }
  return code;
}

static unroll_status device_count(unroll_backend *b, uint32_t *n, unroll_error *err) {
  (void)b;
  if (is("count_fails")) {
    return refuse(err, UNROLL_E_DEVICE, "no platform answers");
  }
  while (is("count_hangs")) {
    sleep(1);
  }
  *n = is("no_devices") ? 0 : is("many_devices") ? 4000000000u : is("long_names") ? 300 : 2;
  return UNROLL_OK;
}

static unroll_status device_info(unroll_backend *b, uint32_t i, unroll_device_info *info, unroll_error *err) {
  static const char *const ids[] = {"0", "1.7"};
  static char name[5000];
  (void)err;
  memset(name, 'x', sizeof name - 1);
  info->kind = UNROLL_KIND_ACCELERATOR;
  info->id = is("no_id") ? NULL : ids[i % 2];
  info->name = is("long_names") ? name : i ? "second\tdevice" : "first device";
  info->vendor = i ? NULL : "stubs";
  info->driver = "1.2.3";
  info->mem_total = b->threads;
  info->max_buffer = 1000 + i;
  info->alignment = 64;
  info->caps = UNROLL_CAP_DETERMINISTIC;
  info->dtypes = 1u << UNROLL_F32;
  return UNROLL_OK;
}

/* Never called: they only have to be there. */
static unroll_status device_open(unroll_backend *b, uint32_t i, const unroll_option *o, uint32_t n,
                                 unroll_backend_device **d, unroll_error *err) {
  (void)b, (void)i, (void)o, (void)n, (void)d;
  return refuse(err, UNROLL_E_UNSUPPORTED, "a stub");
}
static void device_close(unroll_backend_device *d) { (void)d; }
static unroll_status claim(unroll_backend_device *d, const unroll_graph_view *g, unroll_claim *c, uint32_t stride,
                           unroll_error *err) {
  (void)d, (void)g, (void)c, (void)stride, (void)err;
  return UNROLL_OK;
}
static unroll_status buffer_create(unroll_backend_device *d, uint64_t bytes, uint64_t usage, unroll_backend_buffer **b,
                                   unroll_error *err) {
  (void)d, (void)bytes, (void)usage, (void)b;
  return refuse(err, UNROLL_E_UNSUPPORTED, "a stub");
}
static void buffer_destroy(unroll_backend_buffer *b) { (void)b; }
static unroll_status write_(unroll_backend_queue *q, unroll_backend_buffer *b, uint64_t at, const void *p, uint64_t n,
                            unroll_backend_event **e, unroll_error *err) {
  (void)q, (void)b, (void)at, (void)p, (void)n, (void)e;
  return refuse(err, UNROLL_E_UNSUPPORTED, "a stub");
}
static unroll_status read_(unroll_backend_queue *q, unroll_backend_buffer *b, uint64_t at, void *p, uint64_t n,
                           unroll_backend_event **e, unroll_error *err) {
  (void)q, (void)b, (void)at, (void)p, (void)n, (void)e;
  return refuse(err, UNROLL_E_UNSUPPORTED, "a stub");
}
static unroll_status fill(unroll_backend_queue *q, unroll_backend_buffer *b, uint64_t at, uint64_t n, uint8_t value,
                          unroll_backend_event **e, unroll_error *err) {
  (void)q, (void)b, (void)at, (void)n, (void)value, (void)e;
  return refuse(err, UNROLL_E_UNSUPPORTED, "a stub");
}
static unroll_status copy(unroll_backend_queue *q, unroll_backend_buffer *to, uint64_t to_at,
                          unroll_backend_buffer *from, uint64_t from_at, uint64_t n, unroll_backend_event **e,
                          unroll_error *err) {
  (void)q, (void)to, (void)to_at, (void)from, (void)from_at, (void)n, (void)e;
  return refuse(err, UNROLL_E_UNSUPPORTED, "a stub");
}
static unroll_status queue_create(unroll_backend_device *d, uint64_t flags, unroll_backend_queue **q,
                                  unroll_error *err) {
  (void)d, (void)flags, (void)q;
  return refuse(err, UNROLL_E_UNSUPPORTED, "a stub");
}
static void queue_destroy(unroll_backend_queue *q) { (void)q; }
static unroll_status queue_wait_all(unroll_backend_queue *q, unroll_error *err) {
  (void)q, (void)err;
  return UNROLL_OK;
}
static unroll_status compile(unroll_backend_device *d, const unroll_graph_view *g, const unroll_option *o, uint32_t n,
                             unroll_backend_exec **x, unroll_error *err) {
  (void)d, (void)g, (void)o, (void)n, (void)x;
  return refuse(err, UNROLL_E_UNSUPPORTED, "a stub");
}
static unroll_status exec_info(unroll_backend_exec *x, unroll_exec_info *i, unroll_error *err) {
  (void)x, (void)i;
  return refuse(err, UNROLL_E_UNSUPPORTED, "a stub");
}
static void exec_destroy(unroll_backend_exec *x) { (void)x; }
static unroll_status bind_(unroll_backend_exec *x, const unroll_slot *s, uint32_t n, uint32_t stride,
                           unroll_backend_buffer *w, uint64_t at, unroll_backend_binding **b, unroll_error *err) {
  (void)x, (void)s, (void)n, (void)stride, (void)w, (void)at, (void)b;
  return refuse(err, UNROLL_E_UNSUPPORTED, "a stub");
}
static void binding_destroy(unroll_backend_binding *b) { (void)b; }
static unroll_status run(unroll_backend_binding *b, unroll_backend_queue *q, const unroll_run_args *a,
                         unroll_backend_event **e, unroll_error *err) {
  (void)b, (void)q, (void)a, (void)e;
  return refuse(err, UNROLL_E_UNSUPPORTED, "a stub");
}

static const unroll_backend_ops all_ops = {.struct_size = sizeof(unroll_backend_ops),
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
                                           .queue_flush = queue_wait_all,
                                           .queue_sync = queue_wait_all,
                                           .compile = compile,
                                           .exec_info = exec_info,
                                           .exec_destroy = exec_destroy,
                                           .bind = bind_,
                                           .binding_destroy = binding_destroy,
                                           .run = run};

static int32_t score(const unroll_host *host) {
  (void)host;
  return is("score_zero") ? 0 : 17;
}

static void misbehave(void) {
  if (is("open_aborts")) {
    printf("stub: starting\n");
    fflush(stdout);
    fprintf(stderr, "stub: no topology in /sys\n\n");
    abort();
  }
  if (is("open_exits")) {
    _exit(3);
  }
  while (is("open_hangs")) {
    sleep(1);
  }
  if (is("leaves_child") && fork() == 0) {
    /* A grandchild that holds the pipes open while its parent is gone. */
    sleep(4);
    _exit(0);
  }
  if (is("leaves_child")) {
    _exit(5);
  }
}

static unroll_status open_(const unroll_host *host, const unroll_option *options, uint32_t n_options,
                           unroll_backend **backend, const unroll_backend_ops **ops, unroll_error *err) {
  (void)options, (void)n_options;
  misbehave();
  if (is("open_fails")) {
    return refuse(err, UNROLL_E_DEVICE, "no driver is installed");
  }
  if (is("open_silent")) {
    return UNROLL_E_DEVICE;
  }
  const uint32_t *threads = host->extension(host->ctx, "unroll.threads/1");
  if (!threads || host->extension(host->ctx, "unroll.unheard/1")) {
    return refuse(err, UNROLL_E_INTERNAL, "the host's extensions are wrong");
  }
  unroll_backend *b = host->alloc(host->ctx, sizeof *b, 4096);
  if (!b) {
    return refuse(err, UNROLL_E_MEMORY, "no memory for the stub");
  }
  if ((uintptr_t)b % 4096 != 0) {
    host->free(host->ctx, b);
    return refuse(err, UNROLL_E_INTERNAL, "the host's memory is not aligned");
  }
  *b = (unroll_backend){host, *threads, all_ops};
  b->ops.run = is("no_run") ? NULL : run;
  b->ops.struct_size = is("short_table") ? 64 : b->ops.struct_size;
  host->log(host->ctx, UNROLL_LOG_INFO, "stub: open");
  *backend = b;
  *ops = is("no_table") ? NULL : &b->ops;
  return UNROLL_OK;
}

static unroll_status close_(unroll_backend *b, unroll_error *err) {
  if (b) {
    const unroll_host *host = b->host;
    host->free(host->ctx, b);
  }
  return is("close_fails") ? refuse(err, UNROLL_E_DEVICE, "work was still queued") : UNROLL_OK;
}

UNROLL_PLUGIN_EXPORT("stub") = {
    UNROLL_PLUGIN_HEADER, UNROLL_PLUGIN_UNLOADABLE, "stub", "1.0", "stubs", score, open_, close_};
