/* SPDX-License-Identifier: Apache-2.0 */
/* How gradients flow back through the layers, measured on the device. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "console.h"
#include "diagnose_stack.h"

#define MOST_WHOLE 8 /* sequences whose singular values are all looked at; of more, those of the longest eighth */

/* ---- the loss of a language model: its own ---- */

static const char targets_name[] = "targets";

static unroll_tensor build_loss(void *ctx, unroll_tensor y) {
  diagnose_loss *l = ctx;
  unroll_graph *g = y.graph;
  l->dtype = unroll_tensor_describe(y).dtype;
  const unroll_tensor W = unroll_param(g, l->W.name, l->dtype, 2, l->W.shape),
                      b = unroll_param(g, l->b.name, l->dtype, 1, l->b.shape);
  const unroll_tensor targets = unroll_input(g, targets_name, UNROLL_I32, 2, (int64_t[]){l->T, l->n});
  return unroll_cross_entropy(unroll_matmul_add(y, 0, W, 1, b), targets, UNROLL_LOSS_MEAN);
}

/* Stored as f32, written as `dtype`. */
static unroll_status write_real(unroll_binding *binding, const unroll_stored_tensor *t, int32_t dtype,
                                unroll_error *err) {
  if (dtype == UNROLL_F32)
    return unroll_binding_write(binding, t->name, t->data, t->bytes, err);
  const uint64_t n = t->bytes / sizeof(float);
  double *const values = malloc(n * sizeof *values);
  if (!values)
    return UNROLL_E_MEMORY;
  for (uint64_t i = 0; i < n; i++)
    values[i] = stored_number(t, i);
  const unroll_status status = unroll_binding_write(binding, t->name, values, n * sizeof *values, err);
  free(values);
  return status;
}

static unroll_status fill_loss(void *ctx, unroll_binding *binding, unroll_error *err) {
  const diagnose_loss *l = ctx;
  unroll_status status = write_real(binding, &l->W, l->dtype, err);
  if (status == UNROLL_OK)
    status = write_real(binding, &l->b, l->dtype, err);
  if (status == UNROLL_OK)
    status = unroll_binding_write(binding, targets_name, l->targets, (uint64_t)(l->T * l->n) * sizeof *l->targets, err);
  return status;
}

/* Has the model one that can be written down here? */
static bool find_loss(const diagnosis *d, int64_t T, diagnose_loss *l) {
  *l = (diagnose_loss){.targets = d->data.targets, .T = T, .n = d->data.n};
  const unroll_safetensors *f = d->model.file;
  return d->data.targets &&
         (unroll_safetensors_find(f, "linear.W", &l->W, NULL) == UNROLL_OK ||
          unroll_safetensors_find(f, "embedding.weight", &l->W, NULL) == UNROLL_OK) && /* tied */
         unroll_safetensors_find(f, "linear.b", &l->b, NULL) == UNROLL_OK &&
         l->W.dtype == UNROLL_F32 && l->b.dtype == UNROLL_F32;
}

/* ---- layers, data and loss together ---- */

void diagnose_stack_make(const diagnosis *d, diagnose_stack *s) {
  *s = (diagnose_stack){.network = &d->network.network};
  s->has_loss = find_loss(d, d->T, &s->own);
  s->loss = (unroll_flow_loss){build_loss, fill_loss, &s->own};
  s->batch = (unroll_flow_batch){.struct_size = sizeof s->batch,
                                 .steps = d->T,
                                 .batch = d->data.n,
                                 .x = d->x,
                                 .lengths = d->lengths,
                                 .loss = s->has_loss ? &s->loss : NULL};
}

/* ---- the section ---- */

static json_t *integers(const int64_t *values, int64_t n) {
  json_t *all = json_array();
  for (int64_t i = 0; i < n; i++)
    json_array_append_new(all, json_integer((json_int_t)(values ? values[i] : i)));
  return all;
}

static json_t *layer_json(diagnosis *d, const unroll_flow *flow, const unroll_flow_layer *f, const layer_view *l) {
  unroll_layer_figures *to = diagnose_figures(d, l);
  double growth = 0;
  bool is_number = true;
  for (int64_t k = 0; k < f->n_lags; k++) {
    growth = isnan(f->product[k]) || f->product[k] < growth ? growth : f->product[k];
    is_number = is_number && !isnan(f->product[k]);
  }
  for (int64_t k = 0; k < f->n_sigma; k++)
    growth = isinf(f->sigma[k]) ? f->sigma[k] : growth;
  to->growth = growth;
  if (f->memory >= 0)
    to->memory = f->memory;
  else if (is_number)
    to->memory = INT64_MAX;
  else
    diagnose_missing(d, "gradient", "%s: products of Jacobians are not numbers: how far it remembers is not known",
                     l->name);
  /* Of data that end before the model's own T nothing is known of what comes after. */
  if (f->memory < 0 && flow->steps < to->steps)
    to->steps = flow->steps;
  json_t *one =
      json_pack("{s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:s}", "layer", l->name, "norm",
                diagnose_numbers(f->norm, flow->steps), "lags", integers(NULL, f->n_lags), "product",
                diagnose_numbers(f->product, f->n_lags), "sigma", diagnose_numbers(f->sigma, f->n_sigma), "sigma_lags",
                integers(f->sigma_lag, f->n_sigma), "sigma_error", diagnose_numbers(f->sigma_error, f->n_sigma), "rho",
                diagnose_number(f->rho), "rate", diagnose_number(f->rate), "condition", diagnose_number(f->condition),
                "why", f->why ? f->why : "");
  if (f->memory >= 0 || is_number)
    json_object_set_new(one, "memory", f->memory < 0 ? json_null() : json_integer((json_int_t)f->memory));
  return one;
}

static void add_flow(diagnosis *d, const unroll_flow *flow, bool has_loss, bool is_part) {
  json_t *all = json_array();
  for (uint32_t k = 0; k < flow->n_layers && k < d->n_activities; k++)
    json_array_append_new(all, layer_json(d, flow, &flow->layers[k], d->activities[k].layer));
  json_t *gradient =
      json_pack("{s:o, s:s}", "layers", all, "loss", has_loss ? "the model's" : "the sum of the last states");
  if (is_part)
    json_object_set_new(gradient, "partial", json_true());
  json_object_set_new(d->report, "gradient", gradient);
}

/* J_k of a layer into OUT/jacobian-LAYER-DIRECTION-K.npy, whose name stands in the report. */
static unroll_status write_jacobian(const diagnosis *d, const diagnose_stack *s, const unroll_flow_options *o,
                                    const layer_view *l, json_t *entry, unroll_error *err) {
  const int64_t n = layer_state_size(l), lag = d->values->jacobian;
  char name[96], path[4096];
  snprintf(name, sizeof name, "jacobian-%d-%s-%" PRId64 ".npy", l->layer, l->direction ? "reverse" : "forward", lag);
  snprintf(path, sizeof path, "%s/%s", d->values->out, name);
  double *const J = malloc((size_t)(n * n) * sizeof *J);
  unroll_status status = UNROLL_E_MEMORY;
  if (J)
    status = unroll_flow_jacobian(s->network, &s->batch, o, l->layer, l->direction, 0, lag, J, (uint64_t)(n * n), err);
  if (status == UNROLL_OK)
    status = unroll_npy_write(path, UNROLL_F64, 2, (int64_t[]){n, n}, J, NULL, err);
  if (status == UNROLL_OK)
    json_object_set_new(entry, "jacobian", json_string(name));
  free(J);
  return status;
}

static void write_jacobians(diagnosis *d, const diagnose_stack *s, const unroll_flow_options *o) {
  json_t *const layers = json_object_get(json_object_get(d->report, "gradient"), "layers");
  for (size_t k = 0; k < d->n_activities && k < json_array_size(layers); k++) {
    const layer_view *l = d->activities[k].layer;
    unroll_error err = UNROLL_ERROR_INIT;
    if (write_jacobian(d, s, o, l, json_array_get(layers, k), &err) != UNROLL_OK)
      diagnose_missing(d, "gradient", "%s, --jacobian %" PRId64 ": %s", l->name, d->values->jacobian,
                       err.message[0] ? err.message : "out of memory");
  }
}

void diagnose_gradient(diagnosis *d) {
  diagnose_stack s;
  unroll_flow *flow = NULL;
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_device *const device = diagnose_device(d);
  diagnose_stack_make(d, &s);
  if (!device)
    diagnose_missing(d, "gradient", "the device can't be opened");
  else {
    const unroll_flow_options o = {.struct_size = sizeof o,
                                   .device = diagnose_double_device(d),
                                   .probes = 4,
                                   .sequences = d->data.n <= MOST_WHOLE ? d->data.n : 0,
                                   .seed = (uint64_t)d->values->seed,
                                   .spectra = d->spectra,
                                   .cancel = diagnose_cancel};
    const unroll_status status = unroll_flow_measure(s.network, &s.batch, &o, &flow, &err);
    if (status == UNROLL_E_CANCELLED)
      diagnose_missing(d, "gradient", "interrupted");
    else if (status != UNROLL_OK)
      diagnose_missing(d, "gradient", "%s", err.message);
    if (flow)
      add_flow(d, flow, s.has_loss, status != UNROLL_OK);
    if (status == UNROLL_OK && d->values->jacobian > 0)
      write_jacobians(d, &s, &o);
  }
  unroll_flow_free(flow);
  diagnose_decoder(d);
}
