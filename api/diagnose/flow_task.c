/* SPDX-License-Identifier: Apache-2.0 */
/* flow_task.c: what is asked for, checked. */
#include "diagnose/flow_private.h"

#include <math.h>
#include <string.h>

#define GONE 0.01 /* of a gradient: what is left where the memory ends */

enum { MOST_LAGS = 4096 };

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
  if (b->batch < 1 || t->net.net->input < 1 || t->net.net->input > INT32_MAX)
    return fail(err, UNROLL_E_RANGE, "gradient flow: a batch of %lld with %lld inputs, expected 1 to %d inputs",
                (long long)b->batch, (long long)t->net.net->input, INT32_MAX);
  /* Numbers of all steps of all layers: sizes that are made of them fit into 64 bits with much room. */
  if (b->steps > INT32_MAX || !size_mul((uint64_t)b->steps, (uint64_t)b->batch, &n) ||
      !size_mul(n, (uint64_t)(t->net.net->input + 2 * t->net.H + 2 * t->net.P), &n) ||
      !size_mul(n, (uint64_t)t->net.n, &n) || n > (uint64_t)1 << 48)
    return fail(err, UNROLL_E_RANGE, "gradient flow: %lld steps of a batch of %lld through %d layers are too many",
                (long long)b->steps, (long long)b->batch, t->net.n);
  for (int64_t i = 0; b->lengths && i < b->batch; i++)
    if (b->lengths[i] < 1 || b->lengths[i] > b->steps)
      return fail(err, UNROLL_E_RANGE, "gradient flow: sequence %lld has a length of %d, expected 1 to %lld",
                  (long long)i, b->lengths[i], (long long)b->steps);
  const int64_t I = t->net.net->input;
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
  *to = (unroll_flow_options){.dtype = UNROLL_F64};
  if (o)
    memcpy(to, o, o->struct_size < sizeof *to ? o->struct_size : sizeof *to);
  if (to->dtype != UNROLL_F64 && to->dtype != UNROLL_F32)
    return fail(err, UNROLL_E_RANGE, "gradient flow: dtype %d, expected UNROLL_F64 or UNROLL_F32", to->dtype);
  if (to->part < UNROLL_FLOW_STATE || to->part > UNROLL_FLOW_ONLY_C)
    return fail(err, UNROLL_E_RANGE, "gradient flow: part %d, expected UNROLL_FLOW_*", to->part);
  if (to->part == UNROLL_FLOW_ONLY_C && !t->net.has_c)
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
  to->threshold = to->threshold > 0 ? to->threshold : GONE;
  const int64_t B = t->batch.batch;
  to->sequences = to->sequences ? to->sequences : B < 8 ? 1 : B / 8;
  if (to->sequences > B)
    to->sequences = B;
  return UNROLL_OK;
}

unroll_status flow_task_open(flow_task *t, const unroll_network *net, const unroll_flow_batch *batch,
                             const unroll_flow_options *o, unroll_error *err) {
  *t = (flow_task){.net = {.net = net}};
  if (!batch || !UNROLL_HAS(unroll_flow_batch, batch, loss))
    return fail(err, UNROLL_E_INVALID, "gradient flow: the batch is missing or too small");
  TRY(net_layers_open(&t->net, "gradient flow", net, err));
  t->batch = *batch;
  TRY(check_batch(t, err));
  TRY(set_options(t, o, err));
  return net_device_open(&t->device, t->o.device, NULL, err);
}

void flow_task_close(flow_task *t) {
  for (int32_t i = 0; i < t->net.n; i++) {
    if (t->inputs && i > 0 && i < t->net.n / t->net.D)
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
  net_device_close(&t->device);
}

unroll_status flow_ask(const flow_task *t, unroll_error *err) {
  return t->o.cancel && t->o.cancel(t->o.ctx) ? fail(err, UNROLL_E_CANCELLED, "gradient flow: cancelled") : UNROLL_OK;
}

unroll_status flow_go(const flow_task *t, net_run *run, unroll_error *err) {
  TRY(flow_ask(t, err));
  return unroll_run(run->binding, NULL, err);
}

int64_t flow_length(const flow_task *t, int64_t sequence) {
  return t->batch.lengths ? t->batch.lengths[sequence] : t->batch.steps;
}
int64_t flow_step(const flow_task *t, int64_t sequence, int32_t direction, int64_t k) {
  return direction ? k : flow_length(t, sequence) - 1 - k;
}
int64_t flow_state_size(const flow_task *t) { return (flow_has_h(t) ? t->net.P : 0) + (flow_has_c(t) ? t->net.H : 0); }
