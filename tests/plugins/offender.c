/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cpu backend, breaking one rule of the ABI: that which the variable UNROLL_OFFENCE names. For tests of the judge, of
 * which every rule must have a case that finds the offence; tests/offender_test.py has the list.
 */
#include "cpu.h"
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

extern const unroll_plugin unroll_plugin_v1_cpu;
static const unroll_backend_ops *cpu; /* the same for every backend that is open */

static bool is(const char *offence) {
  const char *set = getenv("UNROLL_OFFENCE");
  return set && strcmp(set, offence) == 0;
}

struct offender_binding {
  unroll_backend_binding *cpu;
  unroll_backend *backend;
  unroll_backend_buffer *first, *last; /* of the first slot and the last */
  char *kept;                          /* the first slot's bytes as the first run found them */
  uint64_t kept_generation;
};
typedef struct offender_binding binding;
static binding *of(unroll_backend_binding *b) { return (binding *)(void *)b; }
static binding *latest; /* of all */

static void rest(void) { (void)nanosleep(&(struct timespec){0, 1000000}, NULL); }

/* Whether another thread is in the same place; leave() after it. */
static atomic_int inside;
static bool enter(const char *offence) {
  if (!is(offence))
    return false;
  const bool is_shared = atomic_fetch_add(&inside, 1) > 0;
  rest();
  return is_shared;
}
static void leave(const char *offence) {
  if (is(offence))
    atomic_fetch_sub(&inside, 1);
}

/* ---- devices ---- */
static unroll_status device_count(unroll_backend *b, uint32_t *n, unroll_error *err) {
  static uint32_t calls;
  TRY(cpu->device_count(b, n, err));
  *n += is("count moves") ? ++calls % 2 : 0;
  return UNROLL_OK;
}

static unroll_status device_info(unroll_backend *b, uint32_t i, unroll_device_info *info, unroll_error *err) {
  const uint32_t size = info->struct_size;
  if (is("absent device described") && i > 0)
    i = 0;
  if (is("info beyond its size"))
    info->struct_size = sizeof *info;
  const unroll_status status = cpu->device_info(b, i, info, is("silent failure") ? NULL : err);
  info->struct_size = size;
  if (status != UNROLL_OK)
    return status;
  if (is("no vendor"))
    info->vendor = NULL;
  if (is("odd alignment"))
    info->alignment = 96;
  if (is("dtypes of nobody"))
    info->dtypes |= UINT64_C(1) << 40;
  return UNROLL_OK;
}

static unroll_status device_open(unroll_backend *b, uint32_t i, const unroll_option *options, uint32_t n_options,
                                 unroll_backend_device **out, unroll_error *err) {
  static uint32_t opened;
  if (is("one device at a time") && opened++ > 0)
    return cpu_fail(err, UNROLL_E_STATE, "offender: the device is open");
  return cpu->device_open(b, i, options, is("options ignored") ? 0 : n_options, out, err);
}

static void device_close(unroll_backend_device *d) {
  if (is("destroy of NULL crashes") && !d)
    abort();
  cpu->device_close(d);
}

/* A binding of this file stands for the cpu backend's; there is one while somebody profiles. */
typedef struct relay {
  void (*each)(void *ctx, const unroll_profile_span *);
  void *ctx;
} relay;
static void relay_span(void *ctx, const unroll_profile_span *span) {
  const relay *r = ctx;
  unroll_profile_span copy = *span;
  if (copy.binding)
    copy.binding = (unroll_backend_binding *)(void *)latest;
  r->each(r->ctx, &copy);
}
static unroll_status spans(unroll_backend_queue *q, void (*each)(void *, const unroll_profile_span *), void *ctx,
                           unroll_error *err) {
  const unroll_profile *profile = cpu->extension(q->device->backend, UNROLL_PROFILE_ID);
  relay r = {each, ctx};
  return profile->spans(q, relay_span, &r, err);
}

static const void *extension(unroll_backend *b, const char *id) {
  static const unroll_profile profile = {.struct_size = sizeof profile, .spans = spans};
  (void)b;
  return is("unknown extensions") || strcmp(id, UNROLL_PROFILE_ID) == 0 ? &profile : NULL;
}

/* ---- claims ---- */
static unroll_status claim(unroll_backend_device *d, const unroll_graph_view *view, unroll_claim *claims,
                           uint32_t stride, unroll_error *err) {
  static uint32_t calls;
  if (is("view of one size") && view->struct_size != sizeof *view)
    return cpu_fail(err, UNROLL_E_ABI, "offender: a view of %u bytes", view->struct_size);
  const unroll_status status = cpu->claim(d, view, claims, is("claims side by side") ? sizeof *claims : stride, err);
  if (is("unclaimed without memory") && status == UNROLL_E_MEMORY)
    return UNROLL_OK;
  TRY(status);
  for (uint32_t i = 0; i < view->n_nodes; i++) {
    unroll_claim *c = (unroll_claim *)(void *)((char *)claims + (size_t)i * stride);
    const unroll_node_view *n = cpu_view_node(view, i);
    if ((is("unknown ops claimed") && n->op >= UNROLL_OP_END) || (is("newer ops claimed") && n->op_version > 1) ||
        (is("unknown kinds claimed") && n->op == UNROLL_OP_UNARY) ||
        (is("missing attributes claimed") && n->attr_size == 0) ||
        (is("unknown types claimed") && ((const unroll_tensor_view *)view->tensors)->dtype >= UNROLL_DTYPE_COUNT))
      c->group = UNROLL_GROUP_HOST;
    if (is("claims that move") && calls++ % 2 && n->op == UNROLL_OP_BINARY)
      c->group = 0;
  }
  return UNROLL_OK;
}

/* ---- buffers ---- */
static unroll_status buffer_create(unroll_backend_device *d, uint64_t bytes, uint64_t usage,
                                   unroll_backend_buffer **out, unroll_error *err) {
  const bool is_shared = enter("buffers of one thread");
  unroll_backend_buffer *b = NULL;
  unroll_status status = cpu->buffer_create(d, is("any size") && bytes > 1u << 30 ? 1 : bytes, usage, &b, err);
  if (is_shared && status == UNROLL_OK) {
    cpu->buffer_destroy(b);
    status = cpu_fail(err, UNROLL_E_DEVICE, "offender: two threads at once");
  }
  if (status == UNROLL_OK || is("out-parameter of a failure"))
    *out = b;
  leave("buffers of one thread");
  return status;
}

static unroll_status write_(unroll_backend_queue *q, unroll_backend_buffer *b, uint64_t at, const void *p, uint64_t n,
                            unroll_backend_event **event, unroll_error *err) {
  if (is("writes cut to size") && at < b->bytes && n > b->bytes - at)
    n = b->bytes - at;
  return cpu->write(q, b, at, p, n, event, err);
}

static unroll_status read_(unroll_backend_queue *q, unroll_backend_buffer *b, uint64_t at, void *p, uint64_t n,
                           unroll_backend_event **event, unroll_error *err) {
  if (is("read with an event forgotten") && event)
    n = 0;
  if (is("offset of a read ignored"))
    at = 0;
  const unroll_status status = cpu->read(q, b, at, p, n, event, err);
  if (is("error beyond its size") && status != UNROLL_OK && err)
    strcpy(err->message, "offender: a message, whether there is room for it or not");
  return status;
}

static unroll_status fill(unroll_backend_queue *q, unroll_backend_buffer *b, uint64_t at, uint64_t n, uint8_t value,
                          unroll_backend_event **event, unroll_error *err) {
  TRY(cpu->fill(q, b, at, n, value, event, err));
  if (is("a byte too many") && at + n < b->bytes)
    b->data[at + n] = (char)value;
  return UNROLL_OK;
}

static unroll_status copy(unroll_backend_queue *q, unroll_backend_buffer *to, uint64_t to_at,
                          unroll_backend_buffer *from, uint64_t from_at, uint64_t n, unroll_backend_event **event,
                          unroll_error *err) {
  if (is("copies of nothing refused") && n == 0)
    return cpu_fail(err, UNROLL_E_INVALID, "offender: nothing to copy");
  if (is("copy within refused") && to == from)
    return cpu_fail(err, UNROLL_E_INVALID, "offender: one and the same buffer");
  return cpu->copy(q, to, to_at, from, from_at, n, event, err);
}

static unroll_status map(unroll_backend_queue *q, unroll_backend_buffer *b, uint64_t at, uint64_t n, uint64_t usage,
                         void **out, unroll_error *err) {
  return cpu->map(q, b, is("map at 0") ? 0 : at, n, usage, out, err);
}

static unroll_status buffer_from_host(unroll_backend_device *d, void *p, uint64_t bytes, uint64_t usage,
                                      unroll_backend_buffer **out, unroll_error *err) {
  if (is("memory at NULL") && !p)
    return cpu->buffer_create(d, bytes, usage, out, err);
  return cpu->buffer_from_host(d, p, bytes, usage, out, err);
}

static unroll_status queue_create(unroll_backend_device *d, uint64_t flags, unroll_backend_queue **out,
                                  unroll_error *err) {
  if (is("unknown flags refused") && flags > UNROLL_QUEUE_PROFILE)
    return cpu_fail(err, UNROLL_E_INVALID, "offender: flags");
  return cpu->queue_create(d, is("profiles unasked") ? UNROLL_QUEUE_PROFILE : flags, out, err);
}

/* ---- executables and bindings ---- */
static unroll_status compile(unroll_backend_device *d, const unroll_graph_view *view, const unroll_option *options,
                             uint32_t n_options, unroll_backend_exec **out, unroll_error *err) {
  const bool is_shared = enter("compiles in one thread");
  void *scratch = is("leak of a failure") ? cpu_alloc(&d->backend->host, 64) : NULL;
  unroll_backend_exec *x = NULL;
  unroll_status status = cpu->compile(d, view, options, n_options, &x, err);
  if (is("aborts without memory") && status == UNROLL_E_MEMORY)
    abort();
  if (scratch && status == UNROLL_OK)
    d->backend->host.free(d->backend->host.ctx, scratch);
  if (is_shared && status == UNROLL_OK) {
    cpu->exec_destroy(x);
    status = cpu_fail(err, UNROLL_E_INTERNAL, "offender: two threads at once");
  }
  if (status == UNROLL_OK)
    *out = x;
  leave("compiles in one thread");
  return status;
}

static unroll_status exec_info(unroll_backend_exec *x, unroll_exec_info *info, unroll_error *err) {
  const uint32_t size = info->struct_size;
  if (is("exec info beyond its size"))
    info->struct_size = sizeof *info;
  const unroll_status status = cpu->exec_info(x, info, err);
  info->struct_size = size;
  return status;
}

static unroll_status bind_(unroll_backend_exec *x, const unroll_slot *slots, uint32_t n_slots, uint32_t stride,
                           unroll_backend_buffer *workspace, uint64_t at, unroll_backend_binding **out,
                           unroll_error *err) {
  if (is("slots side by side"))
    stride = sizeof *slots;
  unroll_slot generous[16];
  for (uint32_t i = 0; is("short slots taken") && i < n_slots && i < 16; i++) {
    generous[i] = *(const unroll_slot *)(const void *)((const char *)slots + (size_t)i * stride);
    generous[i].bytes += generous[i].buffer && !generous[i].offset ? generous[i].buffer->bytes - generous[i].bytes : 0;
  }
  if (is("short slots taken") && n_slots <= 16) {
    slots = generous;
    stride = sizeof *slots;
  }
  unroll_backend_binding *inner = NULL;
  TRY(cpu->bind(x, slots, n_slots, stride, workspace, at, &inner, err));
  const unroll_slot *last = (const unroll_slot *)(const void *)((const char *)slots + (n_slots - 1) * (size_t)stride);
  unroll_backend *backend = last->buffer->device->backend;
  binding *b = cpu_alloc(&backend->host, sizeof *b);
  if (!b) {
    cpu->binding_destroy(inner);
    return cpu_fail(err, UNROLL_E_MEMORY, "offender: no memory for a binding");
  }
  *b = (binding){.cpu = inner, .backend = backend, .first = slots->buffer, .last = last->buffer};
  latest = b;
  *out = (unroll_backend_binding *)(void *)b;
  return UNROLL_OK;
}

static void binding_destroy(unroll_backend_binding *p) {
  binding *b = of(p);
  if (!b)
    return;
  cpu->binding_destroy(b->cpu);
  if (b->kept)
    b->backend->host.free(b->backend->host.ctx, b->kept);
  b->backend->host.free(b->backend->host.ctx, b);
}

/* What the first run found in the first slot is what every later one gets. */
static void keep_first(binding *b) {
  if (b->kept) {
    memcpy(b->first->data, b->kept, b->first->bytes);
    return;
  }
  b->kept = cpu_alloc(&b->backend->host, b->first->bytes);
  if (b->kept)
    memcpy(b->kept, b->first->data, b->first->bytes);
}

static unroll_status run(unroll_backend_binding *p, unroll_backend_queue *q, const unroll_run_args *given,
                         unroll_backend_event **event, unroll_error *err) {
  static char shared[1 << 20];
  static uint32_t calls;
  binding *b = is("the latest binding") && latest ? latest : of(p);
  unroll_run_args args = *given;
  if (is("arguments of one size") && args.struct_size != sizeof args)
    return cpu_fail(err, UNROLL_E_ABI, "offender: arguments of %u bytes", args.struct_size);
  int64_t cut = 16;
  if (is("sizes cut") && args.n_dims && args.dims[0] > cut)
    args.dims = &cut;
  if (is("steps cut") && args.first == 0 && args.count > 5)
    args.count = 5;
  if (is("inputs kept") || (is("generations ignored") && args.generations && args.generations[0]))
    keep_first(b);
  const bool is_racy = is("memory of all threads") && b->first->bytes <= sizeof shared;
  if (is_racy) {
    memcpy(shared, b->first->data, b->first->bytes);
    rest();
    memcpy(b->first->data, shared, b->first->bytes);
  }
  TRY(cpu->run(b->cpu, q, &args, is("no event of a run") ? NULL : event, err));
  if (is("other bits now and then") && __atomic_add_fetch(&calls, 1, __ATOMIC_RELAXED) % 11 == 0)
    b->last->data[0] ^= 1;
  return UNROLL_OK;
}

/* ---- plugin ---- */
static int32_t score(const unroll_host *host) {
  static int32_t calls;
  (void)host;
  return 2 + (is("score moves") ? ++calls % 2 : 0);
}

static unroll_status close_(unroll_backend *backend, unroll_error *err) {
  return is("leak") ? UNROLL_OK : unroll_plugin_v1_cpu.close(backend, err);
}

static unroll_status open_(const unroll_host *host, const unroll_option *options, uint32_t n_options,
                           unroll_backend **backend, const unroll_backend_ops **out, unroll_error *err) {
  static unroll_backend_ops mine;
  if (is("host of one size") && host->struct_size != sizeof *host)
    return cpu_fail(err, UNROLL_E_ABI, "offender: a host of %u bytes", host->struct_size);
  TRY(unroll_plugin_v1_cpu.open(host, options, n_options, backend, &cpu, err));
  mine = *cpu;
  mine.device_count = device_count;
  mine.device_info = device_info;
  mine.device_open = device_open;
  mine.device_close = device_close;
  mine.extension = extension;
  mine.claim = claim;
  mine.buffer_create = buffer_create;
  mine.write = write_;
  mine.read = read_;
  mine.fill = fill;
  mine.copy = copy;
  mine.map = map;
  mine.buffer_from_host = buffer_from_host;
  mine.queue_create = queue_create;
  mine.compile = compile;
  mine.exec_info = exec_info;
  mine.bind = bind_;
  mine.binding_destroy = binding_destroy;
  mine.run = run;
  *out = &mine;
  return UNROLL_OK;
}

UNROLL_PLUGIN_EXPORT("offender") = {
    UNROLL_PLUGIN_HEADER, UNROLL_PLUGIN_UNLOADABLE, "offender", "1.0", "tests", score, open_, close_};
