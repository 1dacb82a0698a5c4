/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A backend to copy: one device, memory of the host, products and elementwise ops of f32, one node after another.
 *
 * It is slow and complete. All else that a network needs it leaves to others, and says so at the end of this file. Change ID
 * here and the name in CMakeLists.txt, then make it yours one function at a time, with `unroll conform` after each.
 * "R1" and so on are the rules at the top of <unroll/plugin.h>.
 */
#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <unroll/plugin.h>

#define ID "template" /* yours begins with a domain of yours: "org.acme.npu", in a file unroll-org.acme.npu.so */
#define ALIGNMENT 64u

/*
 * What the host holds and never looks into (R6). The device, the queue and the event have no state here: one of each lives in
 * the backend. Whatever is made later is one piece of memory, so that making it fails in one place and destroying it is a call.
 */
struct unroll_backend_device {
  unroll_backend *backend;
};
struct unroll_backend_queue {
  unroll_backend *backend;
};
struct unroll_backend_event {
  unroll_backend *backend;
};
struct unroll_backend {
  unroll_host host;
  unroll_backend_device device;
  unroll_backend_queue queue;
  unroll_backend_event done;
};
struct unroll_backend_buffer {
  unroll_backend *backend;
  uint64_t bytes;
  _Alignas(ALIGNMENT) char data[];
};
typedef struct node {
  uint32_t op, tensor[4]; /* up to three inputs, then the output; UNROLL_NO_TENSOR where there is none */
  int32_t kind, trans_a, trans_b;
} node;
struct unroll_backend_exec {
  unroll_backend *backend;
  uint32_t is_template, n_nodes, n_slots, n_dims;
  unroll_tensor_view *tensors;
  int64_t *dim_min, *dim_max;
  node *nodes;
};
struct unroll_backend_binding {
  const unroll_backend_exec *exec;
  unroll_slot slots[];
};

#define TRY(expression)                            \
  do {                                             \
    const unroll_status try_status = (expression); \
    if (try_status != UNROLL_OK)                   \
      return try_status;                           \
  } while (0)

/* Every failure comes through here: a status, and words for the user, who may not want them (R5). */
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

/* All memory is the host's. Zeroed here; NULL where there is none. */
static void *take(unroll_backend *b, uint64_t bytes) {
  void *p = bytes <= SIZE_MAX / 2 ? b->host.alloc(b->host.ctx, bytes, ALIGNMENT) : NULL;
  return p ? memset(p, 0, (size_t)bytes) : NULL;
}

/* ---- the device ---- */
static unroll_status device_count(unroll_backend *b, uint32_t *n, unroll_error *err) {
  (void)b, (void)err;
  *n = 1;
  return UNROLL_OK;
}

static uint64_t memory_size(void) { return (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE); }

static unroll_status device_info(unroll_backend *b, uint32_t i, unroll_device_info *info, unroll_error *err) {
  (void)b;
  if (i != 0)
    return fail(err, UNROLL_E_NOT_FOUND, ID ": device %u, there is only device 0", i);
  const unroll_device_info mine = {.struct_size = info->struct_size,
                                   .kind = UNROLL_KIND_CPU,
                                   .name = "a template of a backend",
                                   .vendor = "unroll",
                                   .driver = "1.0",
                                   .id = "0",
                                   .mem_total = memory_size(),
                                   .max_buffer = memory_size(),
                                   .alignment = ALIGNMENT,
                                   .caps = UNROLL_CAP_DETERMINISTIC,
                                   .dtypes = UINT64_C(1) << UNROLL_F32};
  /* The host's struct may be shorter or longer than the one of our header (R2). */
  memcpy(info, &mine, info->struct_size < sizeof mine ? info->struct_size : sizeof mine);
  return UNROLL_OK;
}

/* An option that is not known is the user's typing error: never ignored. */
static unroll_status no_options(const unroll_option *options, uint32_t n_options, unroll_error *err) {
  return n_options == 0 ? UNROLL_OK : fail(err, UNROLL_E_INVALID, ID ": no option \"%s\"", options[0].key);
}

static unroll_status device_open(unroll_backend *b, uint32_t i, const unroll_option *options, uint32_t n_options,
                                 unroll_backend_device **out, unroll_error *err) {
  if (i != 0)
    return fail(err, UNROLL_E_NOT_FOUND, ID ": device %u, there is only device 0", i);
  TRY(no_options(options, n_options, err));
  *out = &b->device;
  return UNROLL_OK;
}
static void device_close(unroll_backend_device *device) { (void)device; }

/* ---- buffers ---- */
static unroll_status buffer_create(unroll_backend_device *device, uint64_t bytes, uint64_t usage,
                                   unroll_backend_buffer **out, unroll_error *err) {
  (void)usage;
  unroll_backend *b = device->backend;
  unroll_backend_buffer *buffer =
      bytes <= memory_size() ? b->host.alloc(b->host.ctx, sizeof *buffer + bytes, ALIGNMENT) : NULL;
  if (!buffer)
    return fail(err, UNROLL_E_DEVICE_MEMORY, ID ": no memory for %llu bytes", (unsigned long long)bytes);
  buffer->backend = b;
  buffer->bytes = bytes;
  *out = buffer;
  return UNROLL_OK;
}
static void buffer_destroy(unroll_backend_buffer *buffer) {
  if (buffer)
    buffer->backend->host.free(buffer->backend->host.ctx, buffer);
}

/* The queue is synchronous: whatever is asked for is done when the call returns, so an event stands for nothing. */
static unroll_status finish(unroll_backend_queue *queue, unroll_backend_event **event) {
  if (event)
    *event = &queue->backend->done;
  return UNROLL_OK;
}
static unroll_status check_range(const unroll_backend_buffer *buffer, uint64_t offset, uint64_t n, unroll_error *err) {
  if (offset <= buffer->bytes && n <= buffer->bytes - offset)
    return UNROLL_OK;
  return fail(err, UNROLL_E_RANGE, ID ": %llu bytes from byte %llu on, the buffer has %llu", (unsigned long long)n,
              (unsigned long long)offset, (unsigned long long)buffer->bytes);
}
static unroll_status write_(unroll_backend_queue *queue, unroll_backend_buffer *to, uint64_t offset, const void *from,
                            uint64_t n, unroll_backend_event **event, unroll_error *err) {
  TRY(check_range(to, offset, n, err));
  if (n)
    memcpy(to->data + offset, from, n);
  return finish(queue, event);
}
static unroll_status read_(unroll_backend_queue *queue, unroll_backend_buffer *from, uint64_t offset, void *to,
                           uint64_t n, unroll_backend_event **event, unroll_error *err) {
  TRY(check_range(from, offset, n, err));
  if (n)
    memcpy(to, from->data + offset, n);
  return finish(queue, event);
}
static unroll_status fill(unroll_backend_queue *queue, unroll_backend_buffer *to, uint64_t offset, uint64_t n,
                          uint8_t value, unroll_backend_event **event, unroll_error *err) {
  TRY(check_range(to, offset, n, err));
  memset(to->data + offset, value, n);
  return finish(queue, event);
}
static unroll_status copy(unroll_backend_queue *queue, unroll_backend_buffer *to, uint64_t to_offset,
                          unroll_backend_buffer *from, uint64_t from_offset, uint64_t n, unroll_backend_event **event,
                          unroll_error *err) {
  TRY(check_range(to, to_offset, n, err));
  TRY(check_range(from, from_offset, n, err));
  memcpy(to->data + to_offset, from->data + from_offset, n);
  return finish(queue, event);
}

static unroll_status queue_create(unroll_backend_device *device, uint64_t flags, unroll_backend_queue **out,
                                  unroll_error *err) {
  (void)flags, (void)err;
  *out = &device->backend->queue;
  return UNROLL_OK;
}
static void queue_destroy(unroll_backend_queue *queue) { (void)queue; }
static unroll_status queue_nothing(unroll_backend_queue *queue, unroll_error *err) {
  (void)queue, (void)err;
  return UNROLL_OK;
}
static unroll_status queue_wait(unroll_backend_queue *queue, unroll_backend_event *event, unroll_error *err) {
  (void)event;
  return queue_nothing(queue, err);
}
static unroll_status event_wait(unroll_backend_event *event, unroll_error *err) {
  (void)event, (void)err;
  return UNROLL_OK;
}
static void event_destroy(unroll_backend_event *event) { (void)event; }

/* ---- claims: a promise for every shape and attribute that the view allows, so only what is surely understood ---- */
static const unroll_node_view *node_at(const unroll_graph_view *view, uint32_t i) {
  return (const void *)((const char *)view->nodes + (size_t)i * view->node_stride);
}
static const unroll_tensor_view *tensor_at(const unroll_graph_view *view, uint32_t i) {
  return (const void *)((const char *)view->tensors + (size_t)i * view->tensor_stride);
}

static unroll_status check_view(const unroll_graph_view *view, unroll_error *err) {
  if (UNROLL_HAS(unroll_graph_view, view, bodies) &&
      (!view->n_nodes || view->node_stride >= UNROLL_SIZE_TO(unroll_node_view, name)) &&
      (!view->n_tensors || view->tensor_stride >= UNROLL_SIZE_TO(unroll_tensor_view, name)))
    return UNROLL_OK;
  return fail(err, UNROLL_E_ABI, ID ": a graph view of %u bytes, nodes of %u, tensors of %u; expected %zu, %zu, %zu",
              view->struct_size, view->node_stride, view->tensor_stride, UNROLL_SIZE_TO(unroll_graph_view, bodies),
              UNROLL_SIZE_TO(unroll_node_view, name), UNROLL_SIZE_TO(unroll_tensor_view, name));
}

/*
 * A node in our own terms; false where it is not one of ours. Shapes need no look: the host has checked them by the table of ops,
 * and the loops below take every form that stands there. A kind that is newer than this header is not ours either.
 */
static bool understand(const unroll_graph_view *view, uint32_t i, node *n) {
  const unroll_node_view *v = node_at(view, i);
  *n = (node){.op = v->op};
  if (v->op_version != 1 || v->n_in > 3 || v->n_out != 1)
    return false;
  if (v->op == UNROLL_OP_MATMUL && v->attr_size >= UNROLL_SIZE_TO(unroll_matmul_attr, trans_b)) {
    n->trans_a = ((const unroll_matmul_attr *)v->attr)->trans_a;
    n->trans_b = ((const unroll_matmul_attr *)v->attr)->trans_b;
  } else if (v->op == UNROLL_OP_UNARY && v->attr_size >= UNROLL_SIZE_TO(unroll_unary_attr, kind))
    n->kind = ((const unroll_unary_attr *)v->attr)->kind;
  else if (v->op == UNROLL_OP_BINARY && v->attr_size >= UNROLL_SIZE_TO(unroll_binary_attr, kind))
    n->kind = ((const unroll_binary_attr *)v->attr)->kind;
  else
    return false;
  for (uint32_t k = 0; k < 4; k++) {
    n->tensor[k] = k < v->n_in ? view->edges[v->first_in + k] : k < 3 ? UNROLL_NO_TENSOR : view->edges[v->first_out];
    if (n->tensor[k] != UNROLL_NO_TENSOR && tensor_at(view, n->tensor[k])->dtype != UNROLL_F32)
      return false;
  }
  return n->tensor[3] != UNROLL_NO_TENSOR && n->kind >= 0 &&
         n->kind < (v->op == UNROLL_OP_UNARY ? (int32_t)UNROLL_UNARY_COUNT : (int32_t)UNROLL_BINARY_COUNT);
}

/*
 * UNROLL_GROUP_HOST: each node by itself. The host plans all memory and joins neighbours; nothing more is needed here. Layers
 * and scans are left: they come back as their parts, scans as templates of one step.
 */
static unroll_status claim(unroll_backend_device *device, const unroll_graph_view *view, unroll_claim *claims,
                           uint32_t claim_stride, unroll_error *err) {
  (void)device;
  node unused;
  TRY(check_view(view, err));
  for (uint32_t i = 0; i < view->n_nodes; i++)
    if (understand(view, i, &unused))
      ((unroll_claim *)(void *)((char *)claims + (size_t)i * claim_stride))->group = UNROLL_GROUP_HOST;
  return UNROLL_OK;
}

/* ---- executables: what is needed later is copied, since the view goes when the call returns ---- */
static void exec_destroy(unroll_backend_exec *x) {
  if (x)
    x->backend->host.free(x->backend->host.ctx, x);
}

static unroll_status read_view(unroll_backend_exec *x, const unroll_graph_view *view, unroll_error *err) {
  for (uint32_t i = 0; i < view->n_tensors; i++) /* no further than this header knows and every host writes */
    memcpy(&x->tensors[i], tensor_at(view, i), UNROLL_SIZE_TO(unroll_tensor_view, name));
  for (uint32_t i = 0; i < view->n_dims; i++) {
    x->dim_min[i] = view->dim_min[i];
    x->dim_max[i] = view->dim_max[i];
  }
  for (uint32_t i = 0; i < view->n_nodes; i++) {
    const node *n = &x->nodes[i];
    if (!understand(view, i, &x->nodes[i]))
      return fail(err, UNROLL_E_UNSUPPORTED, ID ": node \"%s\" was not claimed", node_at(view, i)->name);
    for (uint32_t k = 0; k < 4; k++)
      if (n->tensor[k] != UNROLL_NO_TENSOR && x->tensors[n->tensor[k]].slot >= view->n_slots)
        return fail(err, UNROLL_E_GRAPH, ID ": tensor \"%s\" has no slot", tensor_at(view, n->tensor[k])->name);
  }
  return UNROLL_OK;
}

static unroll_status compile(unroll_backend_device *device, const unroll_graph_view *view, const unroll_option *options,
                             uint32_t n_options, unroll_backend_exec **out, unroll_error *err) {
  TRY(check_view(view, err));
  TRY(no_options(options, n_options, err));
  const uint64_t tensors = sizeof(unroll_tensor_view) * view->n_tensors, dims = sizeof(int64_t) * view->n_dims;
  unroll_backend_exec *x = take(device->backend, sizeof *x + tensors + 2 * dims + sizeof *x->nodes * view->n_nodes);
  if (!x)
    return fail(err, UNROLL_E_MEMORY, ID ": no memory for %u nodes", view->n_nodes);
  *x = (unroll_backend_exec){device->backend, view->is_template, view->n_nodes,
                             view->n_slots,   view->n_dims,      .nodes = NULL};
  x->tensors = (unroll_tensor_view *)(x + 1);
  x->dim_min = (int64_t *)(x->tensors + view->n_tensors);
  x->dim_max = x->dim_min + view->n_dims;
  x->nodes = (node *)(x->dim_max + view->n_dims);
  const unroll_status status = read_view(x, view, err);
  if (status == UNROLL_OK)
    *out = x;
  else
    exec_destroy(x);
  return status;
}

static unroll_status exec_info(unroll_backend_exec *x, unroll_exec_info *info, unroll_error *err) {
  (void)x, (void)err;
  const unroll_exec_info mine = {.struct_size = info->struct_size, .workspace_alignment = ALIGNMENT};
  memcpy(info, &mine, info->struct_size < sizeof mine ? info->struct_size : sizeof mine);
  return UNROLL_OK;
}

/* ---- bindings ---- */
typedef struct operand { /* a tensor in one step of one run, dense and row-major */
  float *data;
  int32_t rank;
  int64_t size[UNROLL_MAX_RANK];
} operand;

static int64_t elements(const operand *o, int32_t axes) {
  int64_t n = 1;
  for (int32_t i = 0; i < axes; i++)
    n *= o->size[i];
  return n;
}

/* slot + offset + step·(period ? t mod period : t), with the sizes of this run. False where that leaves the slot. */
static bool place(const unroll_backend_binding *b, uint32_t tensor, const int64_t *dims, int64_t t, operand *o) {
  const unroll_tensor_view *v = &b->exec->tensors[tensor];
  const unroll_slot *s = &b->slots[v->slot];
  *o = (operand){.rank = v->rank};
  for (int32_t a = 0; a < v->rank; a++) {
    const int32_t dim = v->dim[a];
    o->size[a] = dim < 0 ? v->shape[a] : v->shape[a] / b->exec->dim_max[dim] * dims[dim];
  }
  const uint64_t bytes = (uint64_t)elements(o, o->rank) * sizeof *o->data;
  int64_t at = 0;
  if (v->offset > s->bytes || __builtin_mul_overflow(v->step, v->period ? t % (int64_t)v->period : t, &at) ||
      __builtin_add_overflow(at, (int64_t)v->offset, &at) || at < 0 || bytes > s->bytes ||
      (uint64_t)at > s->bytes - bytes)
    return false;
  o->data = (float *)(void *)(s->buffer->data + s->offset + at);
  return true;
}

static void binding_destroy(unroll_backend_binding *b) {
  if (b)
    b->exec->backend->host.free(b->exec->backend->host.ctx, b);
}

/* The slots are copied: their memory is the host's, and goes when the call returns; the buffers stay. */
static unroll_status bind_(unroll_backend_exec *x, const unroll_slot *slots, uint32_t n_slots, uint32_t slot_stride,
                           unroll_backend_buffer *workspace, uint64_t workspace_offset, unroll_backend_binding **out,
                           unroll_error *err) {
  (void)workspace, (void)workspace_offset; /* exec_info asks for none */
  if (n_slots < x->n_slots || (x->n_slots && slot_stride < UNROLL_SIZE_TO(unroll_slot, bytes)))
    return fail(err, UNROLL_E_INVALID, ID ": %u slots of %u bytes, expected %u of %zu", n_slots, slot_stride,
                x->n_slots, UNROLL_SIZE_TO(unroll_slot, bytes));
  unroll_backend_binding *b = take(x->backend, sizeof *b + sizeof *slots * x->n_slots);
  if (!b)
    return fail(err, UNROLL_E_MEMORY, ID ": no memory for %u slots", x->n_slots);
  b->exec = x;
  unroll_status status = UNROLL_OK;
  for (uint32_t i = 0; i < x->n_slots && status == UNROLL_OK; i++) {
    const unroll_slot *s =
        memcpy(&b->slots[i], (const char *)slots + (size_t)i * slot_stride, UNROLL_SIZE_TO(unroll_slot, bytes));
    if (s->buffer)
      status = check_range(s->buffer, s->offset, s->bytes, err);
  }
  for (uint32_t i = 0; i < 4 * x->n_nodes && status == UNROLL_OK; i++) {
    const uint32_t tensor = x->nodes[i / 4].tensor[i % 4];
    const unroll_tensor_view *v = tensor == UNROLL_NO_TENSOR ? NULL : &x->tensors[tensor];
    operand unused;
    if (v && !b->slots[v->slot].buffer)
      status = fail(err, UNROLL_E_INVALID, ID ": slot %u has no buffer", v->slot);
    else if (v && v->step == 0 && !place(b, tensor, x->dim_max, 0, &unused)) /* what moves with t is checked by run */
      status = fail(err, UNROLL_E_RANGE, ID ": slot %u is too small for tensor %u", v->slot, tensor);
  }
  if (status == UNROLL_OK)
    *out = b;
  else
    binding_destroy(b);
  return status;
}

/* ---- a run ---- */
static void matmul(const node *n, const operand *a, const operand *b, const operand *c, const operand *y) {
  const int64_t P = b->rank == 3 ? y->size[0] : 1, M = b->rank == 3 ? y->size[1] : elements(y, y->rank - 1);
  const int64_t N = y->size[y->rank - 1], K = b->size[b->rank - (n->trans_b ? 1 : 2)];
  for (int64_t i = 0; i < P * M * N; i++) {
    const int64_t p = i / N / M, row = i / N % M, column = i % N;
    double sum = 0;
    for (int64_t k = 0; k < K; k++)
      sum += (double)a->data[n->trans_a ? (p * K + k) * M + row : (p * M + row) * K + k] *
             (double)b->data[n->trans_b ? (p * N + column) * K + k : (p * K + k) * N + column];
    y->data[i] = (float)(c->data ? sum + (double)c->data[c->rank == 1 ? column : i] : sum);
  }
}

static float unary(int32_t kind, float x) {
  switch (kind) {
  case UNROLL_NEG: return -x;
  case UNROLL_ABS: return fabsf(x);
  case UNROLL_SIGN: return x > 0 ? 1 : x < 0 ? -1 : x;
  case UNROLL_EXP: return expf(x);
  case UNROLL_LOG: return logf(x);
  case UNROLL_SQRT: return sqrtf(x);
  case UNROLL_RECIPROCAL: return 1 / x;
  case UNROLL_SQUARE: return x * x;
  case UNROLL_TANH: return tanhf(x);
  case UNROLL_SIGMOID: return 1 / (1 + expf(-x));
  case UNROLL_RELU: return x <= 0 ? 0 : x; /* NaN stays NaN */
  default: return x;                       /* UNROLL_COPY; UNROLL_LOGICAL_NOT is of bool alone */
  }
}

static float binary(int32_t kind, float a, float b) {
  switch (kind) {
  case UNROLL_SUB: return a - b;
  case UNROLL_MUL: return a * b;
  case UNROLL_DIV: return a / b;
  case UNROLL_MAX: return a > b || isnan(a) ? a : b;
  case UNROLL_MIN: return a < b || isnan(a) ? a : b;
  case UNROLL_TANH_GRAD: return a * (1 - b * b);
  case UNROLL_SIGMOID_GRAD: return a * b * (1 - b);
  case UNROLL_RELU_GRAD: return b > 0 ? a : 0;
  default: return a + b; /* UNROLL_ADD; comparisons are not claimed */
  }
}

/* x at y's element i, broadcast: axes are matched from the last one, and one of size 1 stands still. */
static float at(const operand *x, const operand *y, int64_t i) {
  int64_t index = 0, stride = 1;
  for (int32_t ax = x->rank - 1, ay = y->rank - 1; ax >= 0; ax--, ay--) {
    index += x->size[ax] == 1 ? 0 : i % y->size[ay] * stride;
    stride *= x->size[ax];
    i /= y->size[ay];
  }
  return x->data[index];
}

static void run_node(const node *n, const operand *o) {
  const int64_t count = elements(&o[3], o[3].rank);
  if (n->op == UNROLL_OP_MATMUL)
    matmul(n, &o[0], &o[1], &o[2], &o[3]);
  else if (n->op == UNROLL_OP_UNARY)
    for (int64_t i = 0; i < count; i++)
      o[3].data[i] = unary(n->kind, o[0].data[i]);
  else
    for (int64_t i = 0; i < count; i++)
      o[3].data[i] = binary(n->kind, at(&o[0], &o[3], i), at(&o[1], &o[3], i));
}

/* All nodes at time t; only_check: nothing but whether every tensor lies in its slot then. */
static unroll_status run_step(const unroll_backend_binding *b, const int64_t *dims, int64_t t, bool only_check,
                              unroll_error *err) {
  for (uint32_t i = 0; i < b->exec->n_nodes; i++) {
    const node *n = &b->exec->nodes[i];
    operand o[4] = {{.data = NULL}};
    for (uint32_t k = 0; k < 4; k++)
      if (n->tensor[k] != UNROLL_NO_TENSOR && !place(b, n->tensor[k], dims, t, &o[k]))
        return fail(err, UNROLL_E_RANGE, ID ": tensor %u leaves its slot at t = %lld", n->tensor[k], (long long)t);
    if (!only_check)
      run_node(n, o);
  }
  return UNROLL_OK;
}

/* All is checked before the first result is written. Outside of a template there is one step, t = 0. */
static unroll_status run(unroll_backend_binding *b, unroll_backend_queue *queue, const unroll_run_args *args,
                         unroll_backend_event **event, unroll_error *err) {
  const unroll_backend_exec *x = b->exec;
  const int64_t first = x->is_template ? args->first : 0, count = x->is_template ? args->count : 1;
  const bool reverse = x->is_template && args->direction == UNROLL_REVERSE;
  if (args->n_dims < x->n_dims)
    return fail(err, UNROLL_E_INVALID, ID ": %u run-time sizes, expected %u", args->n_dims, x->n_dims);
  for (uint32_t i = 0; i < x->n_dims; i++)
    if (args->dims[i] < x->dim_min[i] || args->dims[i] > x->dim_max[i])
      return fail(err, UNROLL_E_RANGE, ID ": run-time size %u is %lld, expected %lld to %lld", i,
                  (long long)args->dims[i], (long long)x->dim_min[i], (long long)x->dim_max[i]);
  if (first < 0 || count < 0 || (reverse ? count > first + 1 : count > INT64_MAX - first))
    return fail(err, UNROLL_E_RANGE, ID ": %lld steps from t = %lld on", (long long)count, (long long)first);
  for (int only_check = 1; only_check >= 0; only_check--)
    for (int64_t i = 0; i < count; i++)
      TRY(run_step(b, args->dims, reverse ? first - i : first + i, only_check, err));
  return finish(queue, event);
}

/*
 * ---- what is left to others: without this list `unroll conform` calls each of these cases a failure ----
 * Patterns of fnmatch(3); `unroll conform --list` prints the names. Cases of element types that device_info lacks need none.
 */
/* clang-format off */
static const char *const unsupported[] = {
    "*reduce *", "*softmax *", "*slice *", "*pad *", "*concat *", "*transpose *", "*constant *", "*dropout *",
    "*lstm*gates*", "*gru*gates*", "*gru_reset*", "*gru_update*"};
/* clang-format on */
static const unroll_conform conform = {sizeof conform, sizeof unsupported / sizeof *unsupported, unsupported};

static const void *extension(unroll_backend *b, const char *id) {
  (void)b;
  return strcmp(id, UNROLL_CONFORM_ID) == 0 ? &conform : NULL;
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
    .extension = extension,
};

/* Above 1, which is the reference's: --device auto may take it. 0 says that there is nothing for it to run on here. */
static int32_t score(const unroll_host *host) {
  (void)host;
  return 2;
}

static unroll_status open_(const unroll_host *host, const unroll_option *options, uint32_t n_options,
                           unroll_backend **out, const unroll_backend_ops **out_ops, unroll_error *err) {
  TRY(no_options(options, n_options, err));
  unroll_backend *b = host->alloc(host->ctx, sizeof *b, ALIGNMENT);
  if (!b)
    return fail(err, UNROLL_E_MEMORY, ID ": no memory for the backend");
  *b = (unroll_backend){.device = {b}, .queue = {b}, .done = {b}};
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

/* The one symbol that is seen from outside, and the ELF note that lets a host refuse the file without running it. */
UNROLL_PLUGIN_EXPORT(ID) = {UNROLL_PLUGIN_HEADER, UNROLL_PLUGIN_UNLOADABLE, ID, "1.0", "unroll", score, open_, close_};
