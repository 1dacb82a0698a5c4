/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A backend to copy: one device, memory of the host, products and some elementwise ops of f32. The rest it leaves to
 * others, and says so near the end. Change ID here and the name in CMakeLists.txt, then make it yours one function at a
 * time, with `unroll conform` after each. "R2" and so on are the rules at the top of <unroll/plugin.h>.
 */
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <unroll/plugin.h>
/* The parameters of a function are the ABI's, whether it needs them or not. */
#pragma GCC diagnostic ignored "-Wunused-parameter"

#define ID "template" /* yours begins with a domain of yours: "org.acme.npu", in a file unroll-org.acme.npu.so */
#define ALIGNMENT 64u

/*
 * What the host holds and never looks into. Each begins with the host, whose memory it is. The backend and the queue
 * have no state here: they are the device by other names.
 */
struct unroll_backend_device {
  const unroll_host *host;
};
struct unroll_backend_buffer {
  const unroll_host *host;
  uint64_t bytes;
  _Alignas(ALIGNMENT) char data[];
};
typedef struct operand {
  unroll_tensor_view view; /* rank -1: absent. In a run shape has the sizes of that run, */
  float *data;             /* and this is set */
} operand;
typedef struct node {
  uint32_t op;
#define ATTR_BYTES UNROLL_SIZE_TO(unroll_matmul_attr, trans_b) /* that much each of them has had from the first */
  union {
    unroll_matmul_attr matmul;
    unroll_unary_attr unary;
    unroll_binary_attr binary;
  } attr;
  operand o[4]; /* up to three inputs, then the output */
} node;
struct unroll_backend_exec {
  const unroll_host *host;
  uint32_t is_template, n_nodes, n_slots, n_dims;
  int64_t *dim_min, *dim_max; /* behind the nodes */
  node nodes[];
};
struct unroll_backend_binding {
  const unroll_host *host;
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
  va_list args;
  va_start(args, format);
  if (err && UNROLL_HAS(unroll_error, err, message)) {
    *err = (unroll_error){err->struct_size, code, 0, ""};
    (void)vsnprintf(err->message, sizeof err->message, format, args);
  }
  va_end(args);
  return code;
}

static void *take(const unroll_host *host, uint64_t bytes, unroll_error *err) {
  void *object = host->alloc(host->ctx, bytes, ALIGNMENT);
  if (!object)
    (void)fail(err, UNROLL_E_MEMORY, ID ": no memory for %" PRIu64 " bytes", bytes);
  return object;
}
static void release(void *object) {
  const unroll_host *const *host = object;
  if (host)
    (*host)->free((*host)->ctx, object);
}

/* The host's struct may be shorter or longer than that of our header (R2). Its size comes first, and stays. */
static void hand_over(void *to, const void *from, uint32_t bytes) {
  const uint32_t first = sizeof first, size = *(const uint32_t *)to < bytes ? *(const uint32_t *)to : bytes;
  memcpy((char *)to + first, (const char *)from + first, size - first);
}

/* An option that is not known is the user's typing error: never ignored. */
static unroll_status no_options(const unroll_option *options, uint32_t n, unroll_error *err) {
  return n == 0 ? UNROLL_OK : fail(err, UNROLL_E_INVALID, ID ": no option \"%s\"", options[0].key);
}

/* ---- the device ---- */
static unroll_status device_count(unroll_backend *b, uint32_t *n, unroll_error *err) {
  *n = 1;
  return UNROLL_OK;
}
static unroll_status check_device(uint32_t i, unroll_error *err) {
  return i == 0 ? UNROLL_OK : fail(err, UNROLL_E_NOT_FOUND, ID ": device %u, there is only device 0", i);
}
static uint64_t memory_size(void) { return (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE); }
static unroll_status device_info(unroll_backend *b, uint32_t i, unroll_device_info *info, unroll_error *err) {
  /* clang-format off */
  const unroll_device_info mine = {
      .kind = UNROLL_KIND_CPU, .name = "a template of a backend", .vendor = "unroll", .driver = "1.0", .id = "0",
      .mem_total = memory_size(), .max_buffer = memory_size(), .alignment = ALIGNMENT,
      .caps = UNROLL_CAP_DETERMINISTIC, .dtypes = UINT64_C(1) << UNROLL_F32};
  /* clang-format on */
  TRY(check_device(i, err));
  hand_over(info, &mine, sizeof mine);
  return UNROLL_OK;
}
static unroll_status device_open(unroll_backend *b, uint32_t i, const unroll_option *options, uint32_t n,
                                 unroll_backend_device **out, unroll_error *err) {
  TRY(check_device(i, err));
  TRY(no_options(options, n, err));
  *out = (unroll_backend_device *)b;
  return UNROLL_OK;
}
static void device_close(unroll_backend_device *device) {}

/* ---- buffers and the queue: whatever is asked for is done when the call returns ---- */
static unroll_status buffer_create(unroll_backend_device *device, uint64_t bytes, uint64_t usage,
                                   unroll_backend_buffer **out, unroll_error *err) {
  if (bytes > memory_size())
    return fail(err, UNROLL_E_DEVICE_MEMORY, ID ": a buffer of %" PRIu64 " bytes is too large", bytes);
  unroll_backend_buffer *buffer = take(device->host, sizeof *buffer + bytes, err);
  if (!buffer)
    return UNROLL_E_MEMORY;
  *buffer = (unroll_backend_buffer){device->host, bytes};
  *out = buffer;
  return UNROLL_OK;
}
static void buffer_destroy(unroll_backend_buffer *buffer) { release(buffer); }

static unroll_status check_range(const unroll_backend_buffer *b, uint64_t at, uint64_t n, unroll_error *err) {
  if (at <= b->bytes && n <= b->bytes - at)
    return UNROLL_OK;
  return fail(err, UNROLL_E_RANGE, ID ": %" PRIu64 " + %" PRIu64 " bytes, the buffer has %" PRIu64, at, n, b->bytes);
}
static unroll_status write_(unroll_backend_queue *queue, unroll_backend_buffer *to, uint64_t at, const void *from,
                            uint64_t n, unroll_backend_event **event, unroll_error *err) {
  TRY(check_range(to, at, n, err));
  if (n)
    memcpy(to->data + at, from, n);
  return UNROLL_OK;
}
static unroll_status read_(unroll_backend_queue *queue, unroll_backend_buffer *from, uint64_t at, void *to, uint64_t n,
                           unroll_backend_event **event, unroll_error *err) {
  TRY(check_range(from, at, n, err));
  if (n)
    memcpy(to, from->data + at, n);
  return UNROLL_OK;
}
static unroll_status fill(unroll_backend_queue *queue, unroll_backend_buffer *to, uint64_t at, uint64_t n,
                          uint8_t value, unroll_backend_event **event, unroll_error *err) {
  TRY(check_range(to, at, n, err));
  memset(to->data + at, value, n);
  return UNROLL_OK;
}
static unroll_status copy(unroll_backend_queue *queue, unroll_backend_buffer *to, uint64_t to_at,
                          unroll_backend_buffer *from, uint64_t from_at, uint64_t n, unroll_backend_event **event,
                          unroll_error *err) {
  TRY(check_range(from, from_at, n, err));
  return write_(queue, to, to_at, from->data + from_at, n, event, err);
}

static unroll_status queue_create(unroll_backend_device *device, uint64_t flags, unroll_backend_queue **out,
                                  unroll_error *err) {
  *out = (unroll_backend_queue *)device;
  return UNROLL_OK;
}
static void queue_destroy(unroll_backend_queue *queue) {}
static unroll_status queue_nothing(unroll_backend_queue *queue, unroll_error *err) { return UNROLL_OK; }

/* ---- what is computed ---- */
static int64_t elements(const operand *x) {
  int64_t n = 1;
  for (int32_t i = 0; i < x->view.rank; i++)
    n *= x->view.shape[i];
  return n;
}

/* x at y's element i, broadcast: axes are matched from the last one on. 0 where x is absent. */
static float element(const operand *x, const operand *y, int64_t i) {
  int64_t index = 0, stride = 1;
  for (int32_t ax = x->view.rank - 1, ay = y->view.rank - 1; ax >= 0; ax--, ay--) {
    index += x->view.shape[ax] == 1 ? 0 : i % y->view.shape[ay] * stride;
    stride *= x->view.shape[ax];
    i /= y->view.shape[ay];
  }
  return x->data ? x->data[index] : 0;
}

/* y's element i. Rows count through a whole batch; p is the product of it. */
static float matmul(const node *n, int64_t i) {
  const operand *a = &n->o[0], *b = &n->o[1], *c = &n->o[2], *y = &n->o[3];
  const int32_t rank = b->view.rank, is_a = n->attr.matmul.trans_a, is_b = n->attr.matmul.trans_b;
  const int64_t M = y->view.shape[rank - 2], N = y->view.shape[y->view.rank - 1], row = i / N, column = i % N;
  const int64_t K = b->view.shape[rank - (is_b ? 1 : 2)], p = rank == 3 ? row / M : 0;
  double sum = (double)element(c, y, i);
  for (int64_t k = 0; k < K; k++)
    sum += (double)a->data[is_a ? (p * K + k - p) * M + row : row * K + k] *
           (double)b->data[is_b ? (p * N + column) * K + k : (p * K + k) * N + column];
  return (float)sum;
}

/* One element; false for what is not computed here, which is how claim asks. */
#define KIND(op, kind) ((uint64_t)(op) << 32 | (uint32_t)(kind))
static bool elementwise(const node *n, float a, float b, float *y) {
  switch (KIND(n->op, n->attr.unary.kind)) { /* a binary attribute is alike */
  case KIND(UNROLL_OP_UNARY, UNROLL_COPY): *y = a; break;
  case KIND(UNROLL_OP_UNARY, UNROLL_NEG): *y = -a; break;
  case KIND(UNROLL_OP_UNARY, UNROLL_TANH): *y = tanhf(a); break;
  case KIND(UNROLL_OP_UNARY, UNROLL_SIGMOID): *y = 1 / (1 + expf(-a)); break;
  case KIND(UNROLL_OP_UNARY, UNROLL_RELU): *y = a <= 0 ? 0 : a; break; /* NaN stays NaN */
  case KIND(UNROLL_OP_BINARY, UNROLL_ADD): *y = a + b; break;
  case KIND(UNROLL_OP_BINARY, UNROLL_SUB): *y = a - b; break;
  case KIND(UNROLL_OP_BINARY, UNROLL_MUL): *y = a * b; break;
  case KIND(UNROLL_OP_BINARY, UNROLL_TANH_GRAD): *y = a * (1 - b * b); break;
  case KIND(UNROLL_OP_BINARY, UNROLL_SIGMOID_GRAD): *y = a * b * (1 - b); break;
  case KIND(UNROLL_OP_BINARY, UNROLL_RELU_GRAD): *y = b > 0 ? a : 0; break;
  default: return false;
  }
  return true;
}

/* ---- claims: a promise for every shape and attribute that the view allows, so only what is surely understood ---- */
static const unroll_node_view *node_at(const unroll_graph_view *view, uint32_t i) {
  return (const void *)((const char *)view->nodes + (size_t)i * view->node_stride);
}
static const unroll_tensor_view *tensor_at(const unroll_graph_view *view, uint32_t i) {
  return (const void *)((const char *)view->tensors + (size_t)i * view->tensor_stride);
}

/* A node in our own terms; false where it is not ours. Shapes need no look: the host checked them by the table. */
static bool understand(const unroll_graph_view *view, uint32_t i, node *n) {
  const unroll_node_view *v = node_at(view, i);
  *n = (node){.op = v->op};
  if (v->op_version != 1 || v->n_in > 3 || v->n_out != 1 || v->attr_size < ATTR_BYTES)
    return false;
  memcpy(&n->attr, v->attr, ATTR_BYTES);
  for (uint32_t k = 0; k < 4; k++) {
    const uint32_t edge = k == 3 ? v->first_out : v->first_in + k;
    const uint32_t tensor = k == 3 || k < v->n_in ? view->edges[edge] : UNROLL_NO_TENSOR;
    n->o[k].view = (unroll_tensor_view){.dtype = UNROLL_F32, .rank = -1};
    if (tensor != UNROLL_NO_TENSOR) /* no further than our header knows */
      memcpy(&n->o[k].view, tensor_at(view, tensor), UNROLL_SIZE_TO(unroll_tensor_view, name));
    if (n->o[k].view.dtype != UNROLL_F32)
      return false;
  }
  return n->o[3].view.rank >= 0 && (n->op == UNROLL_OP_MATMUL || elementwise(n, 0, 0, &(float){0}));
}

/*
 * UNROLL_GROUP_HOST: each node by itself; the host plans all memory and joins neighbours. Layers and scans are left:
 * they come back as their parts, scans as templates of one step.
 */
static unroll_status claim(unroll_backend_device *device, const unroll_graph_view *view, unroll_claim *claims,
                           uint32_t claim_stride, unroll_error *err) {
  node unused;
  for (uint32_t i = 0; i < view->n_nodes; i++)
    if (understand(view, i, &unused))
      ((unroll_claim *)(void *)((char *)claims + (size_t)i * claim_stride))->group = UNROLL_GROUP_HOST;
  return UNROLL_OK;
}

/* ---- executables: what is needed later is copied, since the view goes when the call returns ---- */
static unroll_status compile(unroll_backend_device *device, const unroll_graph_view *view, const unroll_option *options,
                             uint32_t n_options, unroll_backend_exec **out, unroll_error *err) {
  TRY(no_options(options, n_options, err));
  const uint64_t nodes = sizeof(node) * view->n_nodes, dims = sizeof(int64_t) * view->n_dims;
  unroll_backend_exec *x = take(device->host, sizeof *x + nodes + 2 * dims, err);
  if (!x)
    return UNROLL_E_MEMORY;
  *x = (unroll_backend_exec){device->host, view->is_template, view->n_nodes, view->n_slots, view->n_dims, NULL, NULL};
  x->dim_min = (int64_t *)(x->nodes + x->n_nodes);
  x->dim_max = x->dim_min + x->n_dims;
  for (uint32_t i = 0; i < x->n_dims; i++) {
    x->dim_min[i] = view->dim_min[i];
    x->dim_max[i] = view->dim_max[i];
  }
  for (uint32_t i = 0; i < x->n_nodes; i++)
    if (!understand(view, i, &x->nodes[i])) {
      release(x);
      return fail(err, UNROLL_E_UNSUPPORTED, ID ": node \"%s\" was not claimed", node_at(view, i)->name);
    }
  *out = x;
  return UNROLL_OK;
}
static unroll_status exec_info(unroll_backend_exec *x, unroll_exec_info *info, unroll_error *err) {
  hand_over(info, &(unroll_exec_info){.workspace_alignment = ALIGNMENT}, sizeof *info);
  return UNROLL_OK;
}
static void exec_destroy(unroll_backend_exec *x) { release(x); }

/* ---- bindings and runs ---- */
/* slot + offset + step·(period ? t mod period : t), with the sizes of this run; none of it may leave the slot. */
static unroll_status place(const unroll_backend_binding *b, operand *o, const int64_t *dims, int64_t t,
                           unroll_error *err) {
  unroll_tensor_view *v = &o->view;
  const unroll_slot *s = v->slot < b->exec->n_slots ? &b->slots[v->slot] : NULL;
  if (!s || !s->buffer)
    return fail(err, UNROLL_E_INVALID, ID ": slot %u has no buffer", v->slot);
  TRY(check_range(s->buffer, s->offset, s->bytes, err));
  if (v->rank > 0 && v->dim[0] >= 0)
    v->shape[0] = v->shape[0] / b->exec->dim_max[v->dim[0]] * dims[v->dim[0]];
  const uint64_t bytes = (uint64_t)elements(o) * sizeof *o->data;
  int64_t at = -1;
  if (t < 0 || __builtin_mul_overflow(v->step, v->period ? t % v->period : t, &at) ||
      __builtin_add_overflow(at, v->offset, &at) || at < 0 || bytes > s->bytes || (uint64_t)at > s->bytes - bytes)
    return fail(err, UNROLL_E_RANGE, ID ": at t = %" PRId64 " a tensor leaves slot %u", t, v->slot);
  o->data = (float *)(void *)(s->buffer->data + s->offset + at);
  return UNROLL_OK;
}

/* All nodes at time t; without is_run only whether every tensor lies in its slot then. */
static unroll_status step(const unroll_backend_binding *b, const int64_t *dims, int64_t t, bool is_run,
                          unroll_error *err) {
  for (uint32_t i = 0; i < b->exec->n_nodes; i++) {
    node n = b->exec->nodes[i];
    for (uint32_t k = 0; k < 4; k++)
      if (n.o[k].view.rank >= 0)
        TRY(place(b, &n.o[k], dims, t, err));
    const operand *y = &n.o[3];
    for (int64_t k = 0; is_run && k < elements(y); k++)
      if (n.op == UNROLL_OP_MATMUL)
        y->data[k] = matmul(&n, k);
      else
        (void)elementwise(&n, element(&n.o[0], y, k), element(&n.o[1], y, k), &y->data[k]);
  }
  return UNROLL_OK;
}

static void binding_destroy(unroll_backend_binding *b) { release(b); }
static unroll_status bind_(unroll_backend_exec *x, const unroll_slot *slots, uint32_t n_slots, uint32_t slot_stride,
                           unroll_backend_buffer *workspace, uint64_t workspace_offset, unroll_backend_binding **out,
                           unroll_error *err) {
  if (n_slots < x->n_slots)
    return fail(err, UNROLL_E_INVALID, ID ": %u slots, expected %u", n_slots, x->n_slots);
  unroll_backend_binding *b = take(x->host, sizeof *b + sizeof *slots * x->n_slots, err);
  if (!b)
    return UNROLL_E_MEMORY;
  *b = (unroll_backend_binding){x->host, x};
  for (uint32_t i = 0; i < x->n_slots; i++) /* the buffers stay, the slots go when the call returns */
    memcpy(&b->slots[i], (const char *)slots + (size_t)i * slot_stride, UNROLL_SIZE_TO(unroll_slot, bytes));
  const unroll_status status = step(b, x->dim_min, 0, false, err);
  if (status == UNROLL_OK)
    *out = b;
  else
    release(b);
  return status;
}

/* Outside of a template there is one step, t = 0. */
static unroll_status run(unroll_backend_binding *b, unroll_backend_queue *queue, const unroll_run_args *args,
                         unroll_backend_event **event, unroll_error *err) {
  const unroll_backend_exec *x = b->exec;
  const int64_t first = x->is_template ? args->first : 0, count = x->is_template ? args->count : 1;
  if (args->n_dims < x->n_dims)
    return fail(err, UNROLL_E_INVALID, ID ": %u run-time sizes, expected %u", args->n_dims, x->n_dims);
  for (uint32_t i = 0; i < x->n_dims; i++)
    if (args->dims[i] < x->dim_min[i] || args->dims[i] > x->dim_max[i])
      return fail(err, UNROLL_E_RANGE, ID ": run-time size %u is %" PRId64 ", expected %" PRId64 " to %" PRId64, i,
                  args->dims[i], x->dim_min[i], x->dim_max[i]);
  if (first < 0 || count < 0 || count > INT64_MAX - first)
    return fail(err, UNROLL_E_RANGE, ID ": %" PRId64 " steps from t = %" PRId64 " on", count, first);
  for (int64_t i = 0; i < count; i++)
    TRY(step(b, args->dims, args->direction == UNROLL_REVERSE ? first - i : first + i, true, err));
  return UNROLL_OK;
}

/*
 * What is left to others: patterns of fnmatch(3) for the names that `unroll conform --list` prints. Element types that
 * device_info lacks need none, nor do layers, scans and nets.
 */
/* clang-format off */
static const char *const unsupported[] = {
    "*unary abs *", "*unary exp *", "*unary log *", "*unary reciprocal *", "*unary sign *", "*unary sqrt *",
    "*unary square *", "*binary div *", "*binary max *", "*binary min *", "*reduce *", "*softmax *", "*slice *",
    "*pad *", "*concat *", "*transpose *", "*constant *", "*dropout *", "*random *", "*top_k *",
    "*linear_scan*", "*layer_norm*",
    "*unary expm1 *", "*unary log1p *", "*lstm_gates*", "*gru_*"};
static const unroll_conform conform = {sizeof conform, sizeof unsupported / sizeof *unsupported, unsupported};
static const void *extension(unroll_backend *b, const char *id) {
  return strcmp(id, UNROLL_CONFORM_ID) == 0 ? &conform : NULL;
}

/* ---- the plugin: what the table does not name is optional. Without event functions no event is ever made ---- */
static const unroll_backend_ops ops = {
    .struct_size = sizeof ops, .device_count = device_count, .device_info = device_info, .device_open = device_open,
    .device_close = device_close, .claim = claim, .buffer_create = buffer_create, .buffer_destroy = buffer_destroy,
    .write = write_, .read = read_, .fill = fill, .copy = copy, .queue_create = queue_create,
    .queue_destroy = queue_destroy, .queue_flush = queue_nothing, .queue_sync = queue_nothing, .compile = compile,
    .exec_info = exec_info, .exec_destroy = exec_destroy, .bind = bind_, .binding_destroy = binding_destroy,
    .run = run, .extension = extension};
/* clang-format on */

/* Above 1, which is the reference's: --device auto may take it. 0 says that there is nothing for it to run on here. */
static int32_t score(const unroll_host *host) { return 2; }
static unroll_status open_(const unroll_host *host, const unroll_option *options, uint32_t n, unroll_backend **out,
                           const unroll_backend_ops **out_ops, unroll_error *err) {
  TRY(no_options(options, n, err));
  unroll_backend_device *device = take(host, sizeof *device, err);
  if (!device)
    return UNROLL_E_MEMORY;
  device->host = host;
  *out = (unroll_backend *)device;
  *out_ops = &ops;
  return UNROLL_OK;
}
static unroll_status close_(unroll_backend *b, unroll_error *err) {
  release(b);
  return UNROLL_OK;
}

/* The one symbol that is seen from outside, and the ELF note that lets a host refuse the file without running it. */
UNROLL_PLUGIN_EXPORT(ID) = {UNROLL_PLUGIN_HEADER, UNROLL_PLUGIN_UNLOADABLE, ID, "1.0", "unroll", score, open_, close_};
