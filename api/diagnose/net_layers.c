/* SPDX-License-Identifier: Apache-2.0 */
#include "diagnose/net_layers.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const char begin_of_prefix[] = "layer "; /* then the layer's number */

/* ---- runs ---- */

unroll_status net_run_begin(net_run *run, const unroll_allocator *allocator, int32_t dtype, unroll_error *err) {
  *run = (net_run){.allocator = allocator, .dtype = dtype};
  return unroll_graph_create(allocator, &run->graph, err);
}

unroll_status net_run_open(net_run *run, unroll_device *device, unroll_error *err) {
  TRY(unroll_graph_status(run->graph, err));
  TRY(unroll_compile(run->graph, &device, 1, NULL, &run->exe, err));
  return unroll_binding_create(run->exe, &run->binding, err);
}

void net_run_close(net_run *run) {
  unroll_binding_destroy(run->binding);
  unroll_executable_destroy(run->exe);
  unroll_graph_destroy(run->graph);
  *run = (net_run){.graph = NULL};
}

unroll_status net_run_put(net_run *run, const char *name, const double *data, int64_t n, unroll_error *err) {
  if (run->dtype == UNROLL_F64)
    return unroll_binding_write(run->binding, name, data, (uint64_t)n * sizeof *data, err);
  float *const x = mem_array(run->allocator, (uint64_t)n, sizeof *x);
  if (!x)
    return fail(err, UNROLL_E_MEMORY, "no memory for %s", name);
  for (int64_t i = 0; i < n; i++)
    x[i] = (float)data[i];
  const unroll_status status = unroll_binding_write(run->binding, name, x, (uint64_t)n * sizeof *x, err);
  mem_free(run->allocator, x);
  return status;
}

unroll_status net_run_get(net_run *run, const char *name, double *data, int64_t n, unroll_error *err) {
  if (run->dtype == UNROLL_F64)
    return unroll_binding_read(run->binding, name, data, (uint64_t)n * sizeof *data, err);
  float *const x = mem_array(run->allocator, (uint64_t)n, sizeof *x);
  if (!x)
    return fail(err, UNROLL_E_MEMORY, "no memory for %s", name);
  const unroll_status status = unroll_binding_read(run->binding, name, x, (uint64_t)n * sizeof *x, err);
  for (int64_t i = 0; i < n && status == UNROLL_OK; i++)
    data[i] = (double)x[i];
  mem_free(run->allocator, x);
  return status;
}

unroll_status net_device_open(net_device *d, unroll_device *given, const unroll_allocator *allocator,
                              unroll_error *err) {
  *d = (net_device){.device = given};
  if (given)
    return UNROLL_OK;
  const unroll_context_options o = {.struct_size = sizeof o, .allocator = allocator};
  TRY(unroll_context_create(&o, &d->own, err));
  return unroll_device_open(d->own, "cpu", NULL, 0, &d->device, err);
}

void net_device_close(net_device *d) {
  if (d->own)
    unroll_device_close(d->device);
  unroll_context_destroy(d->own);
  *d = (net_device){.device = NULL};
}

/* ---- layers ---- */

unroll_status net_layers_open(net_layers *t, const char *who, const unroll_network *net, unroll_error *err) {
  *t = (net_layers){.who = who, .net = net};
  if (!net || !UNROLL_HAS(unroll_network, net, weights) || !net->options ||
      !UNROLL_HAS(unroll_rnn_options, net->options, lengths) || (net->n_weights && !net->weights))
    return fail(err, UNROLL_E_INVALID, "%s: the network, its options or weights are missing or too small", who);
  unroll_rnn_options *rnn = &t->rnn;
  memcpy(rnn, net->options, net->options->struct_size < sizeof *rnn ? net->options->struct_size : sizeof *rnn);
  rnn->struct_size = sizeof *rnn;
  t->D = rnn->bidirectional ? 2 : 1;
  t->G = unroll_gate_count(rnn->cell);
  if (rnn->layers < 1 || rnn->layers > INT32_MAX / 2 || rnn->hidden < 1 || rnn->hidden > INT32_MAX ||
      rnn->projection < 0 || rnn->projection > INT32_MAX)
    return fail(err, UNROLL_E_RANGE, "%s: %d layers of %lld units, projected to %lld, expected at least 1", who,
                rnn->layers, (long long)rnn->hidden, (long long)rnn->projection);
  t->n = rnn->layers * t->D;
  t->H = rnn->hidden;
  t->P = rnn->projection ? rnn->projection : t->H;
  t->has_c = rnn->cell == UNROLL_CELL_LSTM || rnn->cell == UNROLL_RNN_COUPLED_LSTM;
  rnn->layers = 1;
  rnn->inference = 1;
  rnn->dropout = 0;
  rnn->lengths = unroll_none();
  rnn->cells = NULL;
  rnn->gates = NULL;
  rnn->checkpoint = NULL;
  rnn->taps = NULL;
  t->residual = rnn->residual == UNROLL_RESIDUAL_OUTPUTS;
  if (t->residual)
    rnn->residual = UNROLL_RESIDUAL_NONE;
  return UNROLL_OK;
}

int64_t net_layers_width(const net_layers *t, int32_t layer) { return layer ? t->D * t->P : t->net->input; }

void net_layer_prefix(char prefix[NET_NAME], int32_t layer) {
  snprintf(prefix, NET_NAME, "%s%d", begin_of_prefix, layer);
}

unroll_tensor net_layer_of(unroll_tensor x, int32_t layer, const unroll_rnn_options *o, const unroll_rnn_state *initial,
                           unroll_rnn_state *last) {
  char prefix[NET_NAME];
  net_layer_prefix(prefix, layer);
  return unroll_rnn(x, prefix, o, initial, last);
}

unroll_tensor net_layer_output(const net_layers *t, unroll_tensor x, unroll_tensor y, int32_t layer,
                               unroll_tensor lengths) {
  if (!t->residual || net_layers_width(t, layer) != t->D * t->P)
    return y;
  return unroll_add(y, layer == 0 && lengths.graph ? unroll_length_mask(x, lengths) : x);
}

const unroll_network_weight *net_layers_weight(const net_layers *t, const char *what, int32_t layer,
                                               int32_t direction) {
  char tail[NET_NAME];
  const char *prefix = t->net->prefix ? t->net->prefix : "";
  const size_t n = strlen(prefix);
  snprintf(tail, sizeof tail, "%s%s.%d.%d", n ? "." : "", what, layer, direction);
  for (uint32_t i = 0; i < t->net->n_weights; i++) {
    const unroll_network_weight *w = &t->net->weights[i];
    if (w->name && strncmp(w->name, prefix, n) == 0 && strcmp(w->name + n, tail) == 0)
      return w;
  }
  return NULL;
}

unroll_status net_layers_put_weights(const net_layers *t, net_run *run, bool finite, unroll_error *err) {
  const char *prefix = t->net->prefix ? t->net->prefix : "";
  for (uint32_t i = 0; i < unroll_graph_count(run->graph); i++) {
    const unroll_tensor_info info = unroll_tensor_describe(unroll_graph_tensor(run->graph, i));
    char what[NET_NAME];
    int32_t layer, direction;
    if (info.role != UNROLL_ROLE_PARAM || strncmp(info.name, begin_of_prefix, sizeof begin_of_prefix - 1) != 0 ||
        sscanf(info.name + sizeof begin_of_prefix - 1, "%d.%63[^.].0.%d", &layer, what, &direction) != 3)
      continue;
    uint64_t count = 1;
    for (int32_t k = 0; k < info.rank; k++)
      count *= (uint64_t)info.shape[k];
    const unroll_network_weight *w = net_layers_weight(t, what, layer, direction);
    if (!w || !w->data)
      return fail(err, UNROLL_E_INVALID, "%s: the weight %s%s%s.%d.%d is missing, of %llu numbers", t->who, prefix,
                  *prefix ? "." : "", what, layer, direction, (unsigned long long)count);
    if (w->count != count)
      return fail(err, UNROLL_E_INVALID, "%s: the weight %s has %llu numbers, expected %llu", t->who, w->name,
                  (unsigned long long)w->count, (unsigned long long)count);
    for (uint64_t k = 0; k < count && finite; k++)
      if (!isfinite(w->data[k]))
        return fail(err, UNROLL_E_RANGE, "%s: the weight %s has %g at place %llu, expected finite numbers", t->who,
                    w->name, w->data[k], (unsigned long long)k);
    TRY(net_run_put(run, info.name, w->data, (int64_t)count, err));
  }
  return UNROLL_OK;
}
