/* SPDX-License-Identifier: Apache-2.0 */
/* activity.c: a network run once, with everything kept that goes on inside. */
#include <stdio.h>
#include <string.h>
#include <unroll/activity.h>

#include "diagnose/net_layers.h"

typedef struct result {
  unroll_activity activity; /* first: what the caller has */
  unroll_allocator allocator;
  unroll_activity_layer *layers;
  double **arrays; /* [PARTS of each layer] */
} result;

enum { X, GATES, H_ALL, C_ALL, PARTS };

typedef struct task {
  net_layers net;
  const unroll_activity_batch *batch;
  net_device device;
  net_run run;
  unroll_tensor *gates, *c; /* [net.n] each */
} task;

void unroll_activity_free(unroll_activity *activity) {
  result *r = (result *)activity;
  if (!r)
    return;
  const unroll_allocator a = r->allocator;
  for (uint32_t i = 0; r->arrays && i < PARTS * r->activity.n_layers; i++)
    mem_free(&a, r->arrays[i]);
  mem_free(&a, r->arrays);
  mem_free(&a, r->layers);
  mem_free(&a, r);
}

static const char *named(char name[NET_NAME], int part, int32_t i) {
  static const char *const what[PARTS] = {"x", "gates", "h", "c"};
  snprintf(name, NET_NAME, "%s %d", what[part], i);
  return name;
}

static unroll_status check(const task *t, unroll_error *err) {
  const unroll_activity_batch *b = t->batch;
  uint64_t n;
  if (!b->x)
    return fail(err, UNROLL_E_INVALID, "activity: x is NULL");
  if (b->steps < 1 || b->batch < 1 || t->net.net->input < 1)
    return fail(err, UNROLL_E_RANGE, "activity: %lld steps of a batch of %lld with %lld inputs, expected at least 1",
                (long long)b->steps, (long long)b->batch, (long long)t->net.net->input);
  if (!size_mul((uint64_t)b->steps, (uint64_t)b->batch, &n) ||
      !size_mul(n, (uint64_t)(t->net.net->input + 6 * t->net.H + 2 * t->net.P), &n) || n > (uint64_t)1 << 48)
    return fail(err, UNROLL_E_RANGE, "activity: %lld steps of a batch of %lld are too many", (long long)b->steps,
                (long long)b->batch);
  for (int64_t i = 0; b->lengths && i < b->batch; i++)
    if (b->lengths[i] < 0 || b->lengths[i] > b->steps)
      return fail(err, UNROLL_E_RANGE, "activity: sequence %lld has a length of %d, expected 0 to %lld", (long long)i,
                  b->lengths[i], (long long)b->steps);
  return UNROLL_OK;
}

static unroll_status build(task *t, unroll_error *err) {
  const net_layers *net = &t->net;
  unroll_graph *g = t->run.graph;
  const int64_t T = t->batch->steps, B = t->batch->batch, P = net->P;
  char name[NET_NAME];
  unroll_rnn_options o = net->rnn;
  if (t->batch->lengths)
    o.lengths = unroll_input(g, "lengths", UNROLL_I32, 1, &B);
  unroll_tensor x = unroll_input(g, "x", t->run.dtype, 3, (int64_t[]){T, B, net->net->input});
  for (int32_t at = 0; at < net->n; at += net->D) {
    const int32_t l = at / net->D;
    o.gates = t->gates + at;
    o.cells = net->has_c ? t->c + at : NULL;
    const unroll_tensor y = net_layer_of(x, l, &o, NULL, NULL);
    TRY(unroll_graph_status(g, err));
    for (int32_t d = 0; d < net->D; d++) {
      unroll_output(net->D == 2 ? unroll_slice(y, 2, d * P, P) : y, named(name, H_ALL, at + d));
      unroll_output(t->gates[at + d], named(name, GATES, at + d));
      if (net->has_c)
        unroll_output(t->c[at + d], named(name, C_ALL, at + d));
    }
    x = net_layer_output(net, x, y, l, o.lengths);
    if (at + net->D < net->n)
      unroll_output(x, named(name, X, at + net->D));
  }
  return unroll_graph_status(g, err);
}

static unroll_status get(task *t, result *r, int part, int32_t i, int64_t width, const double **to, unroll_error *err) {
  const int64_t n = t->batch->steps * t->batch->batch * width;
  char name[NET_NAME];
  double *const values = mem_array(&r->allocator, (uint64_t)n, sizeof *values);
  r->arrays[i * PARTS + part] = values;
  if (!values)
    return fail(err, UNROLL_E_MEMORY, "activity: no memory for the %lld numbers of layer %d", (long long)n,
                i / t->net.D);
  *to = values;
  if (part != X || i > 0)
    return net_run_get(&t->run, named(name, part, i), values, n, err);
  memcpy(values, t->batch->x, (size_t)n * sizeof *values);
  return UNROLL_OK;
}

static unroll_status fetch(task *t, result *r, unroll_error *err) {
  const net_layers *net = &t->net;
  for (int32_t i = 0; i < net->n; i++) {
    unroll_activity_layer *l = &r->layers[i];
    *l = (unroll_activity_layer){.layer = i / net->D,
                                 .direction = i % net->D,
                                 .I = net_layers_width(net, i / net->D),
                                 .H = net->H,
                                 .P = net->P,
                                 .G = net->G};
    if (l->direction == 0)
      TRY(get(t, r, X, i, l->I, &l->x, err));
    else
      l->x = l[-1].x;
    TRY(get(t, r, GATES, i, l->G * l->H, &l->gates, err));
    TRY(get(t, r, H_ALL, i, l->P, &l->h, err));
    if (net->has_c)
      TRY(get(t, r, C_ALL, i, l->H, &l->c, err));
  }
  return UNROLL_OK;
}

static unroll_status measure(task *t, result *r, unroll_error *err) {
  const uint64_t n = (uint64_t)t->net.n;
  r->layers = mem_array(&r->allocator, n, sizeof *r->layers);
  r->arrays = mem_array(&r->allocator, PARTS * n, sizeof *r->arrays);
  t->gates = mem_array(&r->allocator, 2 * n, sizeof *t->gates);
  if (!r->layers || !r->arrays || !t->gates)
    return fail(err, UNROLL_E_MEMORY, "activity: no memory for %d layers", t->net.n);
  t->c = t->gates + n;
  TRY(build(t, err));
  TRY(net_run_open(&t->run, t->device.device, err));
  TRY(net_layers_put_weights(&t->net, &t->run, false, err));
  TRY(net_run_put(&t->run, "x", t->batch->x, t->batch->steps * t->batch->batch * t->net.net->input, err));
  if (t->batch->lengths)
    TRY(unroll_binding_write(t->run.binding, "lengths", t->batch->lengths, (uint64_t)t->batch->batch * sizeof(int32_t),
                             err));
  TRY(unroll_run(t->run.binding, NULL, err));
  return fetch(t, r, err);
}

unroll_status unroll_activity_measure(const unroll_network *net, const unroll_activity_batch *batch,
                                      const unroll_activity_options *o, unroll_activity **activity, unroll_error *err) {
  task t = {.batch = batch};
  if (!activity || !batch || batch->struct_size < sizeof *batch || (o && o->struct_size < sizeof *o))
    return fail(err, UNROLL_E_INVALID, "unroll_activity_measure: %s",
                !activity ? "activity is NULL"
                : !batch  ? "batch is NULL"
                          : "too small a struct_size");
  *activity = NULL;
  const unroll_allocator *a = o ? o->allocator : NULL;
  const int32_t dtype = o ? o->dtype : UNROLL_F64;
  if (dtype != UNROLL_F64 && dtype != UNROLL_F32)
    return fail(err, UNROLL_E_RANGE, "activity: dtype %d, expected UNROLL_F64 or UNROLL_F32", dtype);
  TRY(net_layers_open(&t.net, "activity", net, err));
  TRY(check(&t, err));
  result *r = mem_zalloc(a, sizeof *r);
  if (!r)
    return fail(err, UNROLL_E_MEMORY, "activity: no memory for %d layers", t.net.n);
  if (a)
    r->allocator = *a;
  r->activity = (unroll_activity){
      .struct_size = sizeof r->activity, .n_layers = (uint32_t)t.net.n, .steps = batch->steps, .batch = batch->batch};
  unroll_status status = net_device_open(&t.device, o ? o->device : NULL, a, err);
  if (status == UNROLL_OK)
    status = net_run_begin(&t.run, a, dtype, err);
  if (status == UNROLL_OK)
    status = measure(&t, r, err);
  net_run_close(&t.run);
  net_device_close(&t.device);
  mem_free(a, t.gates);
  if (status != UNROLL_OK) {
    unroll_activity_free((unroll_activity *)r);
    return status;
  }
  r->activity.layers = r->layers;
  *activity = &r->activity;
  return UNROLL_OK;
}
