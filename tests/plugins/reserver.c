/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A backend for tests of the reserve: the cpu backend, which also takes rnn layers whole and hands its gradient the states in
 * a reserve of its own. Options of a device make it awkward:
 *
 *     plain=1       works from the standard saved values instead
 *     take=layer    claims layers, but not their gradients; take=grad the other way round
 *     grad_extra=N  asks for N bytes more at the gradient than at the layer
 *     again=0       does not claim what it was granted
 */
#include "cpu.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

extern const unroll_plugin unroll_plugin_v1_cpu;
static const unroll_backend_ops *cpu; /* the same for every backend that is open */

enum { X, W_X, W_H, B_, B_N, H0, C0, LENGTHS };                           /* inputs of a layer */
enum { Y, H_LAST, C_LAST, SAVED };                                        /* its outputs */
enum { G_LENGTHS = 5, G_SAVED = 6, DY = 10, DH_LAST = 11, DC_LAST = 12 }; /* other inputs of its gradient */
enum { DX, DW_X, DW_H, DB, DB_N, DH0 };                                   /* its outputs */
enum { EDGES = 20 };

typedef struct layer_device {
  struct unroll_backend_device cpu; /* first: the cpu backend's functions take it for theirs */
  bool plain, no_layer, no_grad, not_again;
  uint64_t grad_extra;
} layer_device;

typedef struct layer_exec {
  unroll_backend_exec *cpu; /* NULL: a layer of our own */
  unroll_backend *backend;
  uint32_t op, n_in, n_edges;
  int64_t T, B, I, H;
  int32_t dtype, direction, activation;
  bool reserve;
  unroll_tensor_view edge[EDGES]; /* slot UNROLL_NO_SLOT where absent */
} layer_exec;

typedef struct layer_binding {
  unroll_backend_binding *cpu;
  layer_exec *exec;
  char *at[EDGES];
  double *scratch; /* states or their gradients: [2,B,H] */
} layer_binding;

static layer_device *own(unroll_backend_device *d) { return (layer_device *)(void *)d; }

/* ---- device ---- */
static unroll_status device_open(unroll_backend *backend, uint32_t i, const unroll_option *options, uint32_t n_options,
                                 unroll_backend_device **out, unroll_error *err) {
  if (i != 0)
    return cpu_fail(err, UNROLL_E_NOT_FOUND, "reserver: device %u, there is only device 0", i);
  layer_device *d = cpu_alloc(&backend->host, sizeof *d);
  if (!d)
    return cpu_fail(err, UNROLL_E_MEMORY, "reserver: no memory for a device");
  d->cpu.backend = backend;
  for (uint32_t k = 0; k < n_options; k++)
    if (strcmp(options[k].key, "plain") == 0)
      d->plain = true;
    else if (strcmp(options[k].key, "take") == 0) {
      d->no_layer = strcmp(options[k].value, "layer") != 0;
      d->no_grad = strcmp(options[k].value, "grad") != 0;
    } else if (strcmp(options[k].key, "grad_extra") == 0)
      d->grad_extra = (uint64_t)atoi(options[k].value);
    else if (strcmp(options[k].key, "again") == 0)
      d->not_again = true;
    else {
      backend->host.free(backend->host.ctx, d);
      return cpu_fail(err, UNROLL_E_INVALID, "reserver: no option \"%s\"", options[k].key);
    }
  *out = &d->cpu;
  return UNROLL_OK;
}

static void device_close(unroll_backend_device *d) {
  if (d)
    d->backend->host.free(d->backend->host.ctx, d);
}

/* ---- claims ---- */
static const unroll_tensor_view *tensor_at(const unroll_graph_view *v, uint32_t edge) {
  const uint32_t id = v->edges[edge];
  return id == UNROLL_NO_TENSOR
             ? NULL
             : (const unroll_tensor_view *)(const void *)((const char *)v->tensors + (size_t)id * v->tensor_stride);
}

static const unroll_tensor_view *input(const unroll_graph_view *v, const unroll_node_view *n, uint32_t i) {
  return i < n->n_in ? tensor_at(v, n->first_in + i) : NULL;
}
static const unroll_tensor_view *output(const unroll_graph_view *v, const unroll_node_view *n, uint32_t i) {
  return i < n->n_out ? tensor_at(v, n->first_out + i) : NULL;
}

static bool is_ours(const unroll_graph_view *v, const unroll_node_view *n) {
  if ((n->op != UNROLL_OP_LAYER && n->op != UNROLL_OP_LAYER_GRAD) ||
      ((const unroll_layer_attr *)n->attr)->cell != UNROLL_CELL_RNN ||
      ((const unroll_layer_attr *)n->attr)->activation == UNROLL_SIGMOID)
    return false;
  return !input(v, n, n->op == UNROLL_OP_LAYER ? LENGTHS : G_LENGTHS) && input(v, n, X)->dim[0] < 0;
}

static uint64_t reserve_of(const unroll_graph_view *v, const unroll_node_view *n) {
  const unroll_tensor_view *x = input(v, n, X), *w = input(v, n, W_H);
  return (uint64_t)((x->shape[0] + 1) * x->shape[1] * w->shape[1]) * sizeof(double);
}

static unroll_status claim(unroll_backend_device *device, const unroll_graph_view *v, unroll_claim *claims,
                           uint32_t stride, unroll_error *err) {
  const layer_device *d = own(device);
  TRY(cpu->claim(device, v, claims, stride, err));
  for (uint32_t i = 0; i < v->n_nodes; i++) {
    const unroll_node_view *n = cpu_view_node(v, i);
    unroll_claim *c = (unroll_claim *)(void *)((char *)claims + (size_t)i * stride);
    if (!is_ours(v, n))
      continue;
    const bool is_grad = n->op == UNROLL_OP_LAYER_GRAD;
    const unroll_tensor_view *saved = is_grad ? input(v, n, G_SAVED) : output(v, n, SAVED);
    const bool granted = saved && saved->dtype == UNROLL_U8;
    if ((is_grad ? d->no_grad : d->no_layer) || (granted && d->not_again))
      continue;
    c->group = i + 1; /* a group of its own */
    if (!d->plain) {
      c->flags = UNROLL_CLAIM_RESERVE;
      c->reserve_bytes = reserve_of(v, n) + (is_grad ? d->grad_extra : 0);
    }
  }
  return UNROLL_OK;
}

/* ---- executables ---- */
static void exec_destroy(unroll_backend_exec *exec) {
  layer_exec *x = (layer_exec *)(void *)exec;
  if (!x)
    return;
  cpu->exec_destroy(x->cpu);
  x->backend->host.free(x->backend->host.ctx, x);
}

static unroll_status compile(unroll_backend_device *device, const unroll_graph_view *v, const unroll_option *options,
                             uint32_t n_options, unroll_backend_exec **out, unroll_error *err) {
  layer_exec *x = cpu_alloc(&device->backend->host, sizeof *x);
  if (!x)
    return cpu_fail(err, UNROLL_E_MEMORY, "reserver: no memory for an executable");
  x->backend = device->backend;
  *out = (unroll_backend_exec *)(void *)x;
  const unroll_node_view *n = cpu_view_node(v, 0);
  unroll_status status = UNROLL_OK;
  if (!is_ours(v, n))
    status = cpu->compile(device, v, options, n_options, &x->cpu, err);
  else {
    const unroll_layer_attr *attr = n->attr;
    const unroll_tensor_view *in = input(v, n, X);
    x->op = n->op;
    x->n_in = n->n_in;
    x->n_edges = n->n_in + n->n_out;
    x->T = in->shape[0];
    x->B = in->shape[1];
    x->I = in->shape[2];
    x->H = input(v, n, W_H)->shape[1];
    x->dtype = in->dtype;
    x->direction = attr->direction;
    x->activation = attr->activation;
    for (uint32_t k = 0; k < x->n_edges; k++) {
      const unroll_tensor_view *t = k < n->n_in ? input(v, n, k) : output(v, n, k - n->n_in);
      x->edge[k] = t ? *t : (unroll_tensor_view){.slot = UNROLL_NO_SLOT};
    }
    const unroll_tensor_view *saved = x->op == UNROLL_OP_LAYER ? output(v, n, SAVED) : input(v, n, G_SAVED);
    x->reserve = saved && saved->dtype == UNROLL_U8;
    if (x->reserve &&
        (uint64_t)saved->shape[0] != reserve_of(v, n) + (x->op == UNROLL_OP_LAYER ? 0 : own(device)->grad_extra))
      status = cpu_fail(err, UNROLL_E_INVALID, "reserver: a reserve of %lld bytes", (long long)saved->shape[0]);
  }
  if (status != UNROLL_OK)
    exec_destroy(*out);
  return status;
}

static unroll_status exec_info(unroll_backend_exec *exec, unroll_exec_info *info, unroll_error *err) {
  const layer_exec *x = (const layer_exec *)(const void *)exec;
  if (x->cpu)
    return cpu->exec_info(x->cpu, info, err);
  info->workspace_bytes = info->persistent_bytes = 0;
  info->workspace_alignment = 1;
  return UNROLL_OK;
}

static void binding_destroy(unroll_backend_binding *binding) {
  layer_binding *b = (layer_binding *)(void *)binding;
  if (!b)
    return;
  const unroll_host *host = &b->exec->backend->host;
  cpu->binding_destroy(b->cpu);
  if (b->scratch)
    host->free(host->ctx, b->scratch);
  host->free(host->ctx, b);
}

static unroll_status bind_(unroll_backend_exec *exec, const unroll_slot *slots, uint32_t n_slots, uint32_t stride,
                           unroll_backend_buffer *workspace, uint64_t offset, unroll_backend_binding **out,
                           unroll_error *err) {
  layer_exec *x = (layer_exec *)(void *)exec;
  layer_binding *b = cpu_alloc(&x->backend->host, sizeof *b);
  if (!b)
    return cpu_fail(err, UNROLL_E_MEMORY, "reserver: no memory for a binding");
  b->exec = x;
  unroll_status status = UNROLL_OK;
  if (x->cpu)
    status = cpu->bind(x->cpu, slots, n_slots, stride, workspace, offset, &b->cpu, err);
  else if (!(b->scratch = cpu_alloc(&x->backend->host, (uint64_t)(2 * x->B * x->H) * sizeof *b->scratch)))
    status = cpu_fail(err, UNROLL_E_MEMORY, "reserver: no memory for a state");
  for (uint32_t k = 0; !x->cpu && k < x->n_edges; k++)
    if (x->edge[k].slot != UNROLL_NO_SLOT) {
      const unroll_slot *s =
          (const unroll_slot *)(const void *)((const char *)slots + (size_t)x->edge[k].slot * stride);
      b->at[k] = s->buffer->data + s->offset + x->edge[k].offset;
    }
  if (status != UNROLL_OK) {
    binding_destroy((unroll_backend_binding *)(void *)b);
    return status;
  }
  *out = (unroll_backend_binding *)(void *)b;
  return UNROLL_OK;
}

/* ---- run: plain loops in double ---- */
static double get(const layer_binding *b, uint32_t edge, int64_t i) {
  const char *p = b->at[edge];
  return b->exec->dtype == UNROLL_F64 ? ((const double *)(const void *)p)[i]
                                      : (double)((const float *)(const void *)p)[i];
}
static void put(const layer_binding *b, uint32_t edge, int64_t i, double v) {
  if (!b->at[edge])
    return;
  if (b->exec->dtype == UNROLL_F64)
    ((double *)(void *)b->at[edge])[i] = v;
  else
    ((float *)(void *)b->at[edge])[i] = (float)v;
}
static void add(const layer_binding *b, uint32_t edge, int64_t i, double v) {
  if (b->at[edge])
    put(b, edge, i, get(b, edge, i) + v);
}

static double *reserve_at(const layer_binding *b, uint32_t edge) {
  return b->exec->reserve ? (double *)(void *)b->at[edge] : NULL;
}

static void forward(const layer_binding *b) {
  const layer_exec *x = b->exec;
  const uint32_t out = x->n_in;
  const int64_t BH = x->B * x->H;
  double *h = b->scratch, *next = h + BH, *reserve = reserve_at(b, out + SAVED);
  for (int64_t i = 0; i < BH; i++)
    h[i] = get(b, H0, i);
  if (reserve)
    memcpy(reserve, h, (size_t)BH * sizeof *h);
  for (int64_t s = 0; s < x->T; s++) {
    const int64_t t = x->direction == UNROLL_REVERSE ? x->T - 1 - s : s;
    for (int64_t r = 0; r < x->B; r++)
      for (int64_t j = 0; j < x->H; j++) {
        double sum = get(b, B_, j);
        for (int64_t i = 0; i < x->I; i++)
          sum += get(b, X, (t * x->B + r) * x->I + i) * get(b, W_X, j * x->I + i);
        for (int64_t i = 0; i < x->H; i++)
          sum += h[r * x->H + i] * get(b, W_H, j * x->H + i);
        next[r * x->H + j] = x->activation == UNROLL_RELU ? fmax(sum, 0) : tanh(sum);
      }
    for (int64_t i = 0; i < BH; i++) {
      put(b, out + Y, t * BH + i, next[i]);
      if (!reserve) {
        put(b, out + SAVED, t * BH + i, h[i]);
        put(b, out + SAVED + 1, t * BH + i, next[i]);
      }
      h[i] = next[i];
    }
    if (reserve)
      memcpy(reserve + (s + 1) * BH, h, (size_t)BH * sizeof *h);
  }
  for (int64_t i = 0; i < BH; i++)
    put(b, out + H_LAST, i, h[i]);
}

static void backward(const layer_binding *b) {
  const layer_exec *x = b->exec;
  const uint32_t out = x->n_in;
  const int64_t BH = x->B * x->H;
  double *dh = b->scratch, *dpre = dh + BH;
  const double *reserve = reserve_at(b, G_SAVED);
  for (int64_t i = 0; i < BH; i++)
    dh[i] = b->at[DH_LAST] ? get(b, DH_LAST, i) : 0;
  for (int64_t i = 0; i < x->T * x->B * x->I; i++)
    put(b, out + DX, i, 0);
  for (int64_t i = 0; i < x->H * x->I; i++)
    put(b, out + DW_X, i, 0);
  for (int64_t i = 0; i < x->H * x->H; i++)
    put(b, out + DW_H, i, 0);
  for (int64_t i = 0; i < x->H; i++)
    put(b, out + DB, i, 0);
  for (int64_t s = x->T; s-- > 0;) {
    const int64_t t = x->direction == UNROLL_REVERSE ? x->T - 1 - s : s;
    for (int64_t i = 0; i < BH; i++) {
      const double h = reserve ? reserve[(s + 1) * BH + i] : get(b, G_SAVED + 1, t * BH + i);
      const double d = dh[i] + (b->at[DY] ? get(b, DY, t * BH + i) : 0);
      dpre[i] = x->activation == UNROLL_RELU ? (h > 0 ? d : 0) : d * (1 - h * h);
      dh[i] = 0;
    }
    for (int64_t r = 0; r < x->B; r++)
      for (int64_t j = 0; j < x->H; j++) {
        const double d = dpre[r * x->H + j];
        for (int64_t i = 0; i < x->I; i++) {
          add(b, out + DX, (t * x->B + r) * x->I + i, d * get(b, W_X, j * x->I + i));
          add(b, out + DW_X, j * x->I + i, d * get(b, X, (t * x->B + r) * x->I + i));
        }
        for (int64_t i = 0; i < x->H; i++) {
          const int64_t k = r * x->H + i;
          add(b, out + DW_H, j * x->H + i, d * (reserve ? reserve[s * BH + k] : get(b, G_SAVED, t * BH + k)));
          dh[k] += d * get(b, W_H, j * x->H + i);
        }
        add(b, out + DB, j, d);
      }
  }
  for (int64_t i = 0; i < BH; i++)
    put(b, out + DH0, i, dh[i]);
}

static unroll_status run(unroll_backend_binding *binding, unroll_backend_queue *queue, const unroll_run_args *args,
                         unroll_backend_event **event, unroll_error *err) {
  layer_binding *b = (layer_binding *)(void *)binding;
  if (b->cpu)
    return cpu->run(b->cpu, queue, args, event, err);
  if (b->exec->op == UNROLL_OP_LAYER)
    forward(b);
  else
    backward(b);
  if (event)
    *event = &queue->done;
  return UNROLL_OK;
}

/* ---- plugin ---- */
static int32_t score(const unroll_host *host) {
  (void)host;
  return 2;
}

static unroll_status close_(unroll_backend *backend, unroll_error *err) {
  return unroll_plugin_v1_cpu.close(backend, err);
}

static unroll_status open_(const unroll_host *host, const unroll_option *options, uint32_t n_options,
                           unroll_backend **backend, const unroll_backend_ops **out, unroll_error *err) {
  static unroll_backend_ops mine;
  TRY(unroll_plugin_v1_cpu.open(host, options, n_options, backend, &cpu, err));
  mine = *cpu;
  mine.device_open = device_open;
  mine.device_close = device_close;
  mine.claim = claim;
  mine.compile = compile;
  mine.exec_info = exec_info;
  mine.exec_destroy = exec_destroy;
  mine.bind = bind_;
  mine.binding_destroy = binding_destroy;
  mine.run = run;
  mine.extension = NULL; /* the table of the cpu backend's profile knows other bindings */
  *out = &mine;
  return UNROLL_OK;
}

UNROLL_PLUGIN_EXPORT("reserver") = {
    UNROLL_PLUGIN_HEADER, UNROLL_PLUGIN_UNLOADABLE, "reserver", "1.0", "tests", score, open_, close_};
