/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A backend that takes whatever it is shown, whole layers and scans too, keeps every rule about sizes, ranges, orders and
 * errors, and computes nothing: each output is zeros. For tests of the judge, which has to find it out by results alone.
 *
 *     byte=N    a device's option: outputs are bytes N instead
 */
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unroll/plugin.h>

enum { ALIGNMENT = 64 };
static const uint64_t memory = UINT64_C(1) << 32;

struct unroll_backend {
  unroll_host host;
};
struct unroll_backend_device {
  unroll_backend *backend;
  uint8_t lie;
};
struct unroll_backend_queue {
  unroll_backend *backend;
};
struct unroll_backend_buffer {
  unroll_backend *backend;
  uint64_t bytes;
  uint8_t *data;
};

/* What a node reads or writes. */
typedef struct tensor {
  uint32_t slot, period;
  int32_t dim;
  bool is_written;
  uint64_t offset, bytes; /* at the maximum of its run-time size */
  int64_t step;
} tensor;
struct unroll_backend_exec {
  unroll_backend *backend;
  uint32_t n_tensors, n_dims, is_template;
  uint8_t lie;
  tensor *tensors; /* of the nodes alone */
  int64_t *dim_min, *dim_max;
};
struct unroll_backend_binding {
  unroll_backend_exec *exec;
  unroll_slot slots[]; /* of each tensor */
};

static unroll_status refuse(unroll_error *err, unroll_status code, const char *format, ...) {
  if (err && UNROLL_HAS(unroll_error, err, message)) {
    va_list list;
    err->code = code;
    err->native = 0;
    va_start(list, format);
    (void)vsnprintf(err->message, sizeof err->message, format, list);
    va_end(list);
  }
  return code;
}

static void *make(unroll_backend *b, uint64_t bytes) {
  void *p = b->host.alloc(b->host.ctx, bytes ? bytes : 1, ALIGNMENT);
  return p ? memset(p, 0, bytes) : NULL;
}
static void release(unroll_backend *b, void *p) {
  if (p)
    b->host.free(b->host.ctx, p);
}

/* ---- devices ---- */
static unroll_status device_count(unroll_backend *b, uint32_t *n, unroll_error *err) {
  (void)b, (void)err;
  *n = 1;
  return UNROLL_OK;
}

static unroll_status device_info(unroll_backend *b, uint32_t i, unroll_device_info *info, unroll_error *err) {
  (void)b;
  if (i != 0)
    return refuse(err, UNROLL_E_NOT_FOUND, "liar: there is no device %u", i);
  unroll_device_info all = {.struct_size = info->struct_size,
                            .kind = UNROLL_KIND_ACCELERATOR,
                            .name = "The fastest there is",
                            .vendor = "tests",
                            .driver = "1.0",
                            .id = "0",
                            .mem_total = memory,
                            .max_buffer = memory,
                            .alignment = ALIGNMENT,
                            .caps = UNROLL_CAP_DETERMINISTIC,
                            .dtypes = (1u << UNROLL_DTYPE_COUNT) - 1};
  memcpy(info, &all, info->struct_size < sizeof all ? info->struct_size : sizeof all);
  return UNROLL_OK;
}

static unroll_status device_open(unroll_backend *b, uint32_t i, const unroll_option *options, uint32_t n_options,
                                 unroll_backend_device **out, unroll_error *err) {
  if (i != 0)
    return refuse(err, UNROLL_E_NOT_FOUND, "liar: there is no device %u", i);
  for (uint32_t k = 0; k < n_options; k++)
    if (strcmp(options[k].key, "byte") != 0)
      return refuse(err, UNROLL_E_INVALID, "liar: no option \"%s\"", options[k].key);
  unroll_backend_device *d = make(b, sizeof *d);
  if (!d)
    return refuse(err, UNROLL_E_MEMORY, "liar: no memory for a device");
  d->backend = b;
  d->lie = (uint8_t)(n_options ? atoi(options[0].value) : 0);
  *out = d;
  return UNROLL_OK;
}
static void device_close(unroll_backend_device *d) {
  if (d)
    release(d->backend, d);
}

static unroll_status claim(unroll_backend_device *d, const unroll_graph_view *g, unroll_claim *claims, uint32_t stride,
                           unroll_error *err) {
  (void)d, (void)err;
  for (uint32_t i = 0; i < g->n_nodes; i++)
    ((unroll_claim *)(void *)((char *)claims + (size_t)i * stride))->group = UNROLL_GROUP_HOST;
  return UNROLL_OK;
}

/* ---- buffers ---- */
static unroll_status buffer_create(unroll_backend_device *d, uint64_t bytes, uint64_t usage,
                                   unroll_backend_buffer **out, unroll_error *err) {
  (void)usage;
  if (bytes > memory)
    return refuse(err, UNROLL_E_DEVICE_MEMORY, "liar: %llu bytes are too many", (unsigned long long)bytes);
  unroll_backend_buffer *b = make(d->backend, sizeof *b);
  uint8_t *data = b ? make(d->backend, bytes) : NULL;
  if (!data) {
    release(d->backend, b);
    return refuse(err, UNROLL_E_MEMORY, "liar: no memory for a buffer");
  }
  *b = (unroll_backend_buffer){d->backend, bytes, data};
  *out = b;
  return UNROLL_OK;
}
static void buffer_destroy(unroll_backend_buffer *b) {
  if (!b)
    return;
  unroll_backend *backend = b->backend;
  release(backend, b->data);
  release(backend, b);
}

static bool is_outside(const unroll_backend_buffer *b, uint64_t at, uint64_t n) {
  return at > b->bytes || n > b->bytes - at;
}
static unroll_status outside(unroll_error *err) { return refuse(err, UNROLL_E_RANGE, "liar: outside of the buffer"); }

static unroll_status write_(unroll_backend_queue *q, unroll_backend_buffer *b, uint64_t at, const void *p, uint64_t n,
                            unroll_backend_event **event, unroll_error *err) {
  (void)q, (void)event;
  if (is_outside(b, at, n))
    return outside(err);
  memcpy(b->data + at, p, n);
  return UNROLL_OK;
}
static unroll_status read_(unroll_backend_queue *q, unroll_backend_buffer *b, uint64_t at, void *p, uint64_t n,
                           unroll_backend_event **event, unroll_error *err) {
  (void)q, (void)event;
  if (is_outside(b, at, n))
    return outside(err);
  memcpy(p, b->data + at, n);
  return UNROLL_OK;
}
static unroll_status fill(unroll_backend_queue *q, unroll_backend_buffer *b, uint64_t at, uint64_t n, uint8_t value,
                          unroll_backend_event **event, unroll_error *err) {
  (void)q, (void)event;
  if (is_outside(b, at, n))
    return outside(err);
  memset(b->data + at, value, n);
  return UNROLL_OK;
}
static unroll_status copy(unroll_backend_queue *q, unroll_backend_buffer *to, uint64_t to_at,
                          unroll_backend_buffer *from, uint64_t from_at, uint64_t n, unroll_backend_event **event,
                          unroll_error *err) {
  (void)q, (void)event;
  if (is_outside(to, to_at, n) || is_outside(from, from_at, n))
    return outside(err);
  memcpy(to->data + to_at, from->data + from_at, n);
  return UNROLL_OK;
}

/* ---- queues: all is done when a call returns ---- */
static unroll_status queue_create(unroll_backend_device *d, uint64_t flags, unroll_backend_queue **out,
                                  unroll_error *err) {
  (void)flags;
  unroll_backend_queue *q = make(d->backend, sizeof *q);
  if (!q)
    return refuse(err, UNROLL_E_MEMORY, "liar: no memory for a queue");
  q->backend = d->backend;
  *out = q;
  return UNROLL_OK;
}
static void queue_destroy(unroll_backend_queue *q) {
  if (q)
    release(q->backend, q);
}
static unroll_status queue_nothing(unroll_backend_queue *q, unroll_error *err) {
  (void)q, (void)err;
  return UNROLL_OK;
}

/* ---- executables ---- */
static void exec_destroy(unroll_backend_exec *x) {
  if (!x)
    return;
  unroll_backend *b = x->backend;
  release(b, x->tensors);
  release(b, x->dim_min);
  release(b, x);
}

static const unroll_node_view *node_at(const unroll_graph_view *g, uint32_t i) {
  return (const unroll_node_view *)(const void *)((const char *)g->nodes + (size_t)i * g->node_stride);
}

static tensor tensor_of(const unroll_graph_view *g, uint32_t id, bool is_written) {
  static const uint8_t sizes[UNROLL_DTYPE_COUNT] = {
#define SIZE(name, value, text, bytes) [value] = (bytes),
      UNROLL_DTYPES(SIZE)
#undef SIZE
  };
  const unroll_tensor_view *v =
      (const unroll_tensor_view *)(const void *)((const char *)g->tensors + (size_t)id * g->tensor_stride);
  tensor t = {v->slot, v->period, v->rank > 0 ? v->dim[0] : -1, is_written, v->offset, 0, v->step};
  t.bytes = v->dtype >= 0 && v->dtype < UNROLL_DTYPE_COUNT ? sizes[v->dtype] : 1;
  for (int32_t a = 0; a < v->rank; a++)
    t.bytes *= (uint64_t)v->shape[a];
  return t;
}

static unroll_status compile(unroll_backend_device *d, const unroll_graph_view *g, const unroll_option *options,
                             uint32_t n_options, unroll_backend_exec **out, unroll_error *err) {
  if (n_options)
    return refuse(err, UNROLL_E_INVALID, "liar: no option \"%s\"", options[0].key);
  unroll_backend *b = d->backend;
  uint64_t n = 0;
  for (uint32_t i = 0; i < g->n_nodes; i++)
    n += node_at(g, i)->n_in + node_at(g, i)->n_out;
  unroll_backend_exec *x = make(b, sizeof *x);
  if (!x)
    return refuse(err, UNROLL_E_MEMORY, "liar: no memory for an executable");
  *x = (unroll_backend_exec){.backend = b, .n_dims = g->n_dims, .is_template = g->is_template, .lie = d->lie};
  x->tensors = make(b, n * sizeof *x->tensors);
  x->dim_min = make(b, g->n_dims * 2 * sizeof *x->dim_min);
  if (!x->tensors || !x->dim_min) {
    exec_destroy(x);
    return refuse(err, UNROLL_E_MEMORY, "liar: no memory for an executable");
  }
  x->dim_max = x->dim_min + g->n_dims;
  for (uint32_t i = 0; i < g->n_dims; i++) {
    x->dim_min[i] = g->dim_min[i];
    x->dim_max[i] = g->dim_max[i];
  }
  for (uint32_t i = 0; i < g->n_nodes; i++) {
    const unroll_node_view *node = node_at(g, i);
    for (uint32_t k = 0; k < node->n_in + node->n_out; k++) {
      const uint32_t id = g->edges[k < node->n_in ? node->first_in + k : node->first_out + k - node->n_in];
      if (id != UNROLL_NO_TENSOR)
        x->tensors[x->n_tensors++] = tensor_of(g, id, k >= node->n_in);
    }
  }
  *out = x;
  return UNROLL_OK;
}

static unroll_status exec_info(unroll_backend_exec *x, unroll_exec_info *info, unroll_error *err) {
  (void)x, (void)err;
  const unroll_exec_info all = {.struct_size = info->struct_size, .workspace_alignment = ALIGNMENT};
  memcpy(info, &all, info->struct_size < sizeof all ? info->struct_size : sizeof all);
  return UNROLL_OK;
}

static uint64_t bytes_of(const unroll_backend_exec *x, const tensor *t, const int64_t *dims) {
  return t->dim < 0 ? t->bytes : t->bytes / (uint64_t)x->dim_max[t->dim] * (uint64_t)dims[t->dim];
}

static unroll_status bind_(unroll_backend_exec *x, const unroll_slot *slots, uint32_t n_slots, uint32_t stride,
                           unroll_backend_buffer *workspace, uint64_t at, unroll_backend_binding **out,
                           unroll_error *err) {
  (void)workspace, (void)at;
  unroll_backend_binding *b = make(x->backend, sizeof *b + x->n_tensors * sizeof *b->slots);
  if (!b)
    return refuse(err, UNROLL_E_MEMORY, "liar: no memory for a binding");
  b->exec = x;
  for (uint32_t i = 0; i < x->n_tensors; i++) {
    const tensor *t = &x->tensors[i];
    const bool is_there = slots && t->slot < n_slots;
    const unroll_slot *s =
        is_there ? (const unroll_slot *)(const void *)((const char *)slots + (size_t)t->slot * stride) : NULL;
    if (!s || !s->buffer || is_outside(s->buffer, s->offset, s->bytes) || t->offset > s->bytes ||
        (!t->step && bytes_of(x, t, x->dim_min) > s->bytes - t->offset)) {
      release(x->backend, b);
      return refuse(err, UNROLL_E_RANGE, "liar: slot %u is missing or too small", t->slot);
    }
    b->slots[i] = *s;
  }
  *out = b;
  return UNROLL_OK;
}
static void binding_destroy(unroll_backend_binding *b) {
  if (b)
    release(b->exec->backend, b);
}

/* Where a tensor of a step begins in its slot; beyond any slot where that is not a place. */
static uint64_t place_of(const tensor *t, int64_t at) {
  int64_t step = 0;
  if (__builtin_mul_overflow(t->period ? at % (int64_t)t->period : at, t->step, &step) ||
      (step < 0 && (uint64_t)-step > t->offset))
    return UINT64_MAX;
  return t->offset + (uint64_t)step;
}

static bool fits(const unroll_backend_binding *b, const int64_t *dims, int64_t at) {
  const unroll_backend_exec *x = b->exec;
  for (uint32_t i = 0; i < x->n_tensors; i++) {
    const uint64_t place = place_of(&x->tensors[i], at), n = bytes_of(x, &x->tensors[i], dims);
    if (place > b->slots[i].bytes || n > b->slots[i].bytes - place)
      return false;
  }
  return true;
}

static unroll_status run(unroll_backend_binding *b, unroll_backend_queue *q, const unroll_run_args *a,
                         unroll_backend_event **event, unroll_error *err) {
  (void)q, (void)event;
  const unroll_backend_exec *x = b->exec;
  if (a->n_dims < x->n_dims)
    return refuse(err, UNROLL_E_INVALID, "liar: %u run-time sizes of %u", a->n_dims, x->n_dims);
  for (uint32_t i = 0; i < x->n_dims; i++)
    if (a->dims[i] < x->dim_min[i] || a->dims[i] > x->dim_max[i])
      return refuse(err, UNROLL_E_RANGE, "liar: run-time size %u is %lld", i, (long long)a->dims[i]);
  const int64_t count = x->is_template ? a->count : 1, first = x->is_template ? a->first : 0;
  const int64_t by = x->is_template && a->direction == UNROLL_REVERSE ? -1 : 1;
  if (count < 0 || first < 0 || (by < 0 ? count > first + 1 : count > INT64_MAX - first) ||
      (count && (!fits(b, a->dims, first) || !fits(b, a->dims, first + by * (count - 1)))))
    return refuse(err, UNROLL_E_RANGE, "liar: %lld steps from %lld on", (long long)count, (long long)first);
  for (int64_t t = 0; t < count; t++)
    for (uint32_t i = 0; i < x->n_tensors; i++)
      if (x->tensors[i].is_written)
        memset(b->slots[i].buffer->data + b->slots[i].offset + place_of(&x->tensors[i], first + by * t), x->lie,
               bytes_of(x, &x->tensors[i], a->dims));
  return UNROLL_OK;
}

/* ---- plugin ---- */
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
                                           .queue_flush = queue_nothing,
                                           .queue_sync = queue_nothing,
                                           .compile = compile,
                                           .exec_info = exec_info,
                                           .exec_destroy = exec_destroy,
                                           .bind = bind_,
                                           .binding_destroy = binding_destroy,
                                           .run = run};

static int32_t score(const unroll_host *host) {
  (void)host;
  return 100;
}

static unroll_status open_(const unroll_host *host, const unroll_option *options, uint32_t n_options,
                           unroll_backend **out, const unroll_backend_ops **ops, unroll_error *err) {
  if (n_options)
    return refuse(err, UNROLL_E_INVALID, "liar: no option \"%s\"", options[0].key);
  unroll_backend *b = host->alloc(host->ctx, sizeof *b, ALIGNMENT);
  if (!b)
    return refuse(err, UNROLL_E_MEMORY, "liar: no memory for the backend");
  memcpy(&b->host, host, sizeof b->host);
  *out = b;
  *ops = &all_ops;
  return UNROLL_OK;
}

static unroll_status close_(unroll_backend *b, unroll_error *err) {
  (void)err;
  if (b) {
    const unroll_host host = b->host;
    host.free(host.ctx, b);
  }
  return UNROLL_OK;
}

UNROLL_PLUGIN_EXPORT("liar") = {
    UNROLL_PLUGIN_HEADER, UNROLL_PLUGIN_UNLOADABLE, "liar", "1.0", "tests", score, open_, close_};
