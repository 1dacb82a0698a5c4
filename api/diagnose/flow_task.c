/* SPDX-License-Identifier: Apache-2.0 */
/* flow_task.c: a stack's options and weights, its layers in a graph, and graphs run with numbers in double. */
#include "diagnose/flow_private.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const char layer_prefix[] =
    "flow of layer "; /* then the layer's number: the names of its parameters in a graph */

enum { MOST_LAGS = 4096 };

/* ---- runs ---- */

unroll_status flow_run_open(flow_run *run, unroll_device *device, unroll_error *err) {
  TRY(unroll_graph_status(run->graph, err));
  TRY(unroll_compile(run->graph, &device, 1, NULL, &run->exe, err));
  return unroll_binding_create(run->exe, &run->binding, err);
}

void flow_run_close(flow_run *run) {
  unroll_binding_destroy(run->binding);
  unroll_executable_destroy(run->exe);
  unroll_graph_destroy(run->graph);
  *run = (flow_run){.graph = NULL};
}

unroll_status flow_run_put(flow_run *run, const char *name, const double *data, int64_t n, unroll_error *err) {
  if (run->dtype == UNROLL_F64)
    return unroll_binding_write(run->binding, name, data, (uint64_t)n * sizeof *data, err);
  float *const x = mem_array(NULL, (uint64_t)n, sizeof *x);
  if (!x)
    return fail(err, UNROLL_E_MEMORY, "no memory for %s", name);
  for (int64_t i = 0; i < n; i++)
    x[i] = (float)data[i];
  const unroll_status status = unroll_binding_write(run->binding, name, x, (uint64_t)n * sizeof *x, err);
  mem_free(NULL, x);
  return status;
}

unroll_status flow_run_get(flow_run *run, const char *name, double *data, int64_t n, unroll_error *err) {
  if (run->dtype == UNROLL_F64)
    return unroll_binding_read(run->binding, name, data, (uint64_t)n * sizeof *data, err);
  float *const x = mem_array(NULL, (uint64_t)n, sizeof *x);
  if (!x)
    return fail(err, UNROLL_E_MEMORY, "no memory for %s", name);
  const unroll_status status = unroll_binding_read(run->binding, name, x, (uint64_t)n * sizeof *x, err);
  for (int64_t i = 0; i < n && status == UNROLL_OK; i++)
    data[i] = (double)x[i];
  mem_free(NULL, x);
  return status;
}

/* ---- what is asked for ---- */

static unroll_status check_batch(const flow_task *t, unroll_error *err) {
  const unroll_flow_batch *b = &t->batch;
  uint64_t n;
  if (!b->x)
    return fail(err, UNROLL_E_INVALID, "gradient flow: x is NULL");
  if (b->dy && b->loss)
    return fail(err, UNROLL_E_INVALID, "gradient flow: both dy and a loss are given, expected one of them");
  if (b->loss && !b->loss->build)
    return fail(err, UNROLL_E_INVALID, "gradient flow: the loss has no function that builds it");
  if (b->steps < 2)
    return fail(err, UNROLL_E_RANGE, "gradient flow: %lld steps, expected at least 2: nothing flows",
                (long long)b->steps);
  if (b->batch < 1 || t->net->input < 1 || t->net->input > INT32_MAX)
    return fail(err, UNROLL_E_RANGE, "gradient flow: a batch of %lld with %lld inputs, expected 1 to %d inputs",
                (long long)b->batch, (long long)t->net->input, INT32_MAX);
  /* Numbers of all steps of all layers: sizes that are made of them fit into 64 bits with much room. */
  if (b->steps > INT32_MAX || !size_mul((uint64_t)b->steps, (uint64_t)b->batch, &n) ||
      !size_mul(n, (uint64_t)(t->net->input + 2 * t->H + 2 * t->P), &n) || !size_mul(n, (uint64_t)t->n_layers, &n) ||
      n > (uint64_t)1 << 48)
    return fail(err, UNROLL_E_RANGE, "gradient flow: %lld steps of a batch of %lld through %d layers are too many",
                (long long)b->steps, (long long)b->batch, t->n_layers);
  for (int64_t i = 0; b->lengths && i < b->batch; i++)
    if (b->lengths[i] < 1 || b->lengths[i] > b->steps)
      return fail(err, UNROLL_E_RANGE, "gradient flow: sequence %lld has a length of %d, expected 1 to %lld",
                  (long long)i, b->lengths[i], (long long)b->steps);
  const int64_t I = t->net->input;
  for (int64_t s = 0; s < b->steps; s++)
    for (int64_t i = 0; i < b->batch; i++)
      for (int64_t k = 0; s < flow_length(t, i) && k < I; k++)
        if (!isfinite(b->x[(s * b->batch + i) * I + k]))
          return fail(err, UNROLL_E_RANGE,
                      "gradient flow: x of step %lld, sequence %lld is %g, expected finite numbers", (long long)s,
                      (long long)i, b->x[(s * b->batch + i) * I + k]);
  return UNROLL_OK;
}

static unroll_status set_options(flow_task *t, const unroll_flow_options *o, unroll_error *err) {
  unroll_flow_options *to = &t->o;
  if (o && !UNROLL_HAS(unroll_flow_options, o, seed))
    return fail(err, UNROLL_E_INVALID, "gradient flow: its options have too small a struct_size");
  *to = o ? *o : (unroll_flow_options){.dtype = UNROLL_F64};
  if (to->dtype != UNROLL_F64 && to->dtype != UNROLL_F32)
    return fail(err, UNROLL_E_RANGE, "gradient flow: dtype %d, expected UNROLL_F64 or UNROLL_F32", to->dtype);
  if (to->part < UNROLL_FLOW_STATE || to->part > UNROLL_FLOW_ONLY_C)
    return fail(err, UNROLL_E_RANGE, "gradient flow: part %d, expected UNROLL_FLOW_*", to->part);
  if (to->part == UNROLL_FLOW_ONLY_C && !t->lstm)
    return fail(err, UNROLL_E_RANGE, "gradient flow: the part c is asked for, which only an LSTM has");
  if (!(to->tolerance >= 0 && to->tolerance < 1) || !(to->threshold >= 0) || !isfinite(to->threshold) ||
      to->sequences < 0 || to->iterations < 0)
    return fail(err, UNROLL_E_RANGE,
                "gradient flow: tolerance %g, threshold %g, %lld sequences, %d iterations, expected numbers from 0 on, "
                "the tolerance below 1",
                to->tolerance, to->threshold, (long long)to->sequences, to->iterations);
  if (to->lags && (to->n_lags < 1 || to->n_lags > MOST_LAGS))
    return fail(err, UNROLL_E_RANGE, "gradient flow: lags are given, but %d of them, expected 1 to %d", to->n_lags,
                MOST_LAGS);
  if (to->n_lags > MOST_LAGS)
    to->n_lags = MOST_LAGS;
  to->probes = to->probes ? to->probes : 1;
  to->n_lags = to->n_lags ? to->n_lags : 12;
  to->tolerance = to->tolerance > 0 ? to->tolerance : 1e-4;
  to->threshold = to->threshold > 0 ? to->threshold : exp(-1);
  const int64_t B = t->batch.batch;
  to->sequences = to->sequences ? to->sequences : B < 8 ? 1 : B / 8;
  if (to->sequences > B)
    to->sequences = B;
  return UNROLL_OK;
}

static unroll_status open_device(flow_task *t, unroll_error *err) {
  t->device = t->o.device;
  if (t->device)
    return UNROLL_OK;
  TRY(unroll_context_create(NULL, &t->own, err));
  return unroll_device_open(t->own, "cpu", NULL, 0, &t->device, err);
}

unroll_status flow_task_open(flow_task *t, const unroll_network *net, const unroll_flow_batch *batch,
                             const unroll_flow_options *o, unroll_error *err) {
  *t = (flow_task){.net = net};
  if (!net || !UNROLL_HAS(unroll_network, net, weights) || !net->options ||
      !UNROLL_HAS(unroll_rnn_options, net->options, lengths) || !batch || !UNROLL_HAS(unroll_flow_batch, batch, loss) ||
      (net->n_weights && !net->weights))
    return fail(err, UNROLL_E_INVALID,
                "gradient flow: the network, its options or weights, or the batch are missing or too small");
  unroll_rnn_options *rnn = &t->rnn;
  memcpy(rnn, net->options, net->options->struct_size < sizeof *rnn ? net->options->struct_size : sizeof *rnn);
  rnn->struct_size = sizeof *rnn;
  t->batch = *batch;
  t->D = rnn->bidirectional ? 2 : 1;
  if (rnn->layers < 1 || rnn->layers > INT32_MAX / 2 || rnn->hidden < 1 || rnn->hidden > INT32_MAX ||
      rnn->projection < 0 || rnn->projection > INT32_MAX)
    return fail(err, UNROLL_E_RANGE, "gradient flow: %d layers of %lld units, projected to %lld, expected at least 1",
                rnn->layers, (long long)rnn->hidden, (long long)rnn->projection);
  t->n_layers = rnn->layers * t->D;
  t->H = rnn->hidden;
  t->P = rnn->projection ? rnn->projection : t->H;
  t->lstm = rnn->cell == UNROLL_CELL_LSTM || rnn->cell == UNROLL_RNN_COUPLED_LSTM;
  rnn->layers = 1;
  rnn->inference = 1;
  rnn->dropout = 0;
  rnn->lengths = unroll_none();
  rnn->cells = NULL;
  rnn->checkpoint = NULL;
  rnn->taps = NULL;
  t->residual = rnn->residual == UNROLL_RESIDUAL_OUTPUTS; /* flow_stack adds it, since y is then the states alone */
  if (t->residual)
    rnn->residual = UNROLL_RESIDUAL_NONE;
  TRY(check_batch(t, err));
  TRY(set_options(t, o, err));
  return open_device(t, err);
}

void flow_task_close(flow_task *t) {
  for (int32_t i = 0; i < t->n_layers; i++) {
    if (t->inputs && i > 0 && i < t->n_layers / t->D)
      mem_free(NULL, t->inputs[i]);
    if (t->h)
      mem_free(NULL, t->h[i]);
    if (t->c)
      mem_free(NULL, t->c[i]);
  }
  mem_free(NULL, t->inputs);
  mem_free(NULL, t->h);
  mem_free(NULL, t->c);
  mem_free(NULL, t->norms);
  mem_free(NULL, t->flows);
  if (t->own)
    unroll_device_close(t->device);
  unroll_context_destroy(t->own);
}

int64_t flow_length(const flow_task *t, int64_t sequence) {
  return t->batch.lengths ? t->batch.lengths[sequence] : t->batch.steps;
}
int64_t flow_step(const flow_task *t, int64_t sequence, int32_t direction, int64_t k) {
  return direction ? k : flow_length(t, sequence) - 1 - k;
}
int64_t flow_width(const flow_task *t, int32_t layer) { return layer ? t->D * t->P : t->net->input; }
int64_t flow_state_size(const flow_task *t) { return (flow_has_h(t) ? t->P : 0) + (flow_has_c(t) ? t->H : 0); }

/* ---- layers and their weights ---- */

unroll_tensor flow_layer_of(const flow_task *t, unroll_tensor x, int32_t layer, unroll_tensor lengths,
                            const unroll_rnn_state *initial, unroll_rnn_state *last, const unroll_rnn_state *taps,
                            unroll_tensor *cells) {
  char prefix[FLOW_NAME];
  snprintf(prefix, sizeof prefix, "%s%d", layer_prefix, layer);
  unroll_rnn_options o = t->rnn;
  o.lengths = lengths;
  o.taps = taps;
  o.cells = cells;
  return unroll_rnn(x, prefix, &o, initial, last);
}

const unroll_network_weight *flow_weight(const flow_task *t, const char *what, int32_t layer, int32_t direction) {
  char tail[FLOW_NAME];
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

unroll_status flow_put_weights(const flow_task *t, flow_run *run, unroll_error *err) {
  const char *prefix = t->net->prefix ? t->net->prefix : "";
  for (uint32_t i = 0; i < unroll_graph_count(run->graph); i++) {
    const unroll_tensor_info info = unroll_tensor_describe(unroll_graph_tensor(run->graph, i));
    char what[FLOW_NAME];
    int32_t layer, direction;
    if (info.role != UNROLL_ROLE_PARAM || strncmp(info.name, layer_prefix, sizeof layer_prefix - 1) != 0 ||
        sscanf(info.name + sizeof layer_prefix - 1, "%d.%63[^.].0.%d", &layer, what, &direction) != 3)
      continue;
    uint64_t count = 1;
    for (int32_t k = 0; k < info.rank; k++)
      count *= (uint64_t)info.shape[k];
    const unroll_network_weight *w = flow_weight(t, what, layer, direction);
    if (!w || !w->data)
      return fail(err, UNROLL_E_INVALID, "gradient flow: the weight %s%s%s.%d.%d is missing, of %llu numbers", prefix,
                  *prefix ? "." : "", what, layer, direction, (unsigned long long)count);
    if (w->count != count)
      return fail(err, UNROLL_E_INVALID, "gradient flow: the weight %s has %llu numbers, expected %llu", w->name,
                  (unsigned long long)w->count, (unsigned long long)count);
    TRY(flow_run_put(run, info.name, w->data, (int64_t)count, err));
  }
  return UNROLL_OK;
}
