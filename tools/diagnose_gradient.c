/* SPDX-License-Identifier: Apache-2.0 */
/* How gradients flow back through the layers, measured on the device. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "console.h"
#include "diagnose_stack.h"
#include "interrupt.h"

#define PARTS 12

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
  for (uint64_t i = 0; i < n; i++) {
    float value;
    memcpy(&value, (const char *)t->data + i * sizeof value, sizeof value);
    values[i] = (double)value;
  }
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

/* ---- the network ---- */

static void add_weight(diagnose_weights *w, const layer_view *l, const char *what, const double *data, int64_t count) {
  if (!data)
    return;
  snprintf(w->names[w->n], sizeof w->names[w->n], "%s%s%s.%d.%d", l->stack, *l->stack ? "." : "", what, l->layer,
           l->direction);
  w->list[w->n] = (unroll_network_weight){w->names[w->n], data, (uint64_t)count};
  w->n++;
}

static bool list_weights(const diagnosis *d, diagnose_weights *w) {
  *w = (diagnose_weights){.list = calloc(PARTS * d->n_activities, sizeof *w->list),
                          .names = calloc(PARTS * d->n_activities, sizeof *w->names)};
  for (size_t k = 0; w->list && w->names && k < d->n_activities; k++) {
    const layer_view *l = d->activities[k].layer;
    const unroll_cell_weights *c = &l->weights;
    const unroll_cell_extras *e = &l->extras;
    const int64_t H = c->hidden, GH = layer_gates(l) * H;
    add_weight(w, l, "W_x", c->W_x, GH * c->input);
    add_weight(w, l, "W_h", c->W_h, GH * H);
    add_weight(w, l, "b", c->b, GH);
    add_weight(w, l, "b_n", c->b_n, H);
    add_weight(w, l, "p_i", e->p_i, H);
    add_weight(w, l, "p_f", e->p_f, H);
    add_weight(w, l, "p_o", e->p_o, H);
    add_weight(w, l, "ln_x", e->ln_x, GH);
    add_weight(w, l, "ln_h", e->ln_h, GH);
    add_weight(w, l, "ln_c", e->ln_c, H);
    add_weight(w, l, "ln_s", e->ln_s, H);
  }
  return w->list && w->names;
}

static unroll_rnn_options options_of(const diagnosis *d) {
  const layer_view *first = d->activities[0].layer, *last = d->activities[d->n_activities - 1].layer;
  const unroll_cell_weights *w = &first->weights;
  return (unroll_rnn_options){
      .struct_size = sizeof(unroll_rnn_options),
      .cell = w->cell,
      .activation = w->cell == UNROLL_CELL_RNN && !first->extras.linear ? w->activation : 0,
      .f = unroll_activation_of(first->extras.linear ? UNROLL_ACTIVATION_IDENTITY : UNROLL_ACTIVATION_DEFAULT),
      .layers = last->layer + 1,
      .hidden = w->hidden,
      .bidirectional = last->direction,
      .lengths = unroll_none(),
      .inference = 1,
      .zoneout_h = first->extras.zoneout_h,
      .zoneout_c = first->extras.zoneout_c,
      .peepholes = first->extras.p_i != NULL,
      .layer_norm = first->extras.ln_x != NULL};
}

/* [T,n,width] and lengths [n]. */
static bool fill_batch(const diagnosis *d, double *x, int32_t *lengths) {
  if (!x || !lengths)
    return false;
  for (int64_t i = 0; i < d->data.n; i++) {
    lengths[i] = (int32_t)d->data.lengths[i];
    for (int64_t t = 0; t < d->data.lengths[i]; t++)
      memcpy(x + (t * d->data.n + i) * d->data.width, d->data.x[i] + t * d->data.width,
             (size_t)d->data.width * sizeof *x);
  }
  return true;
}

/* ---- layers, data and loss together ---- */

bool diagnose_stack_open(const diagnosis *d, diagnose_stack *s) {
  int64_t T = 0;
  *s = (diagnose_stack){.x = NULL};
  for (int64_t i = 0; i < d->data.n; i++)
    T = d->data.lengths[i] > T ? d->data.lengths[i] : T;
  s->x = calloc((size_t)(T * d->data.n * d->data.width) + 1, sizeof *s->x);
  s->lengths = calloc((size_t)d->data.n, sizeof *s->lengths);
  if (!list_weights(d, &s->weights) || !fill_batch(d, s->x, s->lengths))
    return false;
  s->rnn = options_of(d);
  s->network = (unroll_network){.struct_size = sizeof s->network,
                                .options = &s->rnn,
                                .prefix = d->model.layers[0].stack,
                                .input = d->data.width,
                                .weights = s->weights.list,
                                .n_weights = s->weights.n};
  s->has_loss = find_loss(d, T, &s->own);
  s->loss = (unroll_flow_loss){build_loss, fill_loss, &s->own};
  s->batch = (unroll_flow_batch){.struct_size = sizeof s->batch,
                                 .steps = T,
                                 .batch = d->data.n,
                                 .x = s->x,
                                 .lengths = s->lengths,
                                 .loss = s->has_loss ? &s->loss : NULL};
  return true;
}

void diagnose_stack_close(diagnose_stack *s) {
  free(s->weights.list);
  free(s->weights.names);
  free(s->x);
  free(s->lengths);
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

static int stop(void *ctx) {
  (void)ctx;
  return interrupt_asked();
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

void diagnose_gradient(diagnosis *d) {
  diagnose_stack s;
  unroll_flow *flow = NULL;
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_device *const device = diagnose_device(d);
  const bool made = diagnose_stack_open(d, &s);
  if (!device)
    diagnose_missing(d, "gradient", "the device can't be opened");
  else if (!made)
    diagnose_missing(d, "gradient", "out of memory");
  else {
    const unroll_flow_options o = {.struct_size = sizeof o,
                                   .device = device,
                                   .probes = 4,
                                   .seed = (uint64_t)d->values->seed,
                                   .spectra = d->spectra,
                                   .cancel = stop};
    const unroll_status status = unroll_flow_measure(&s.network, &s.batch, &o, &flow, &err);
    if (status == UNROLL_E_CANCELLED)
      diagnose_missing(d, "gradient", "interrupted");
    else if (status != UNROLL_OK)
      diagnose_missing(d, "gradient", "%s", err.message);
    if (flow)
      add_flow(d, flow, s.has_loss, status != UNROLL_OK);
  }
  unroll_flow_free(flow);
  diagnose_stack_close(&s);
}
