/* SPDX-License-Identifier: Apache-2.0 */
/* How gradients flow back through the layers, measured on the device. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unroll/flow.h>

#include "console.h"
#include "diagnosis.h"

#define GONE 0.01 /* of a gradient: what is left where the memory ends */
#define PARTS 12

/* ---- the loss of a language model: its own ---- */

struct loss {
  const diagnosis *d;
  unroll_stored_tensor W, b; /* f32 */
  int64_t T;
};

static const char loss_W[] = "diagnose.W", loss_b[] = "diagnose.b", loss_targets[] = "diagnose.targets";

static unroll_tensor build_loss(void *ctx, unroll_tensor y) {
  const struct loss *l = ctx;
  unroll_graph *g = y.graph;
  const int32_t dtype = unroll_tensor_describe(y).dtype;
  const unroll_tensor W = unroll_param(g, loss_W, dtype, 2, l->W.shape),
                      b = unroll_param(g, loss_b, dtype, 1, l->b.shape);
  const unroll_tensor targets = unroll_input(g, loss_targets, UNROLL_I32, 2, (int64_t[]){l->T, l->d->data.n});
  return unroll_cross_entropy(unroll_matmul_add(y, 0, W, 1, b), targets, UNROLL_LOSS_MEAN);
}

static unroll_status write_real(unroll_binding *binding, const char *name, const unroll_stored_tensor *t,
                                unroll_error *err) {
  const uint64_t n = t->bytes / sizeof(float);
  double *const values = malloc(n * sizeof *values);
  if (!values)
    return UNROLL_E_MEMORY;
  for (uint64_t i = 0; i < n; i++) {
    float value;
    memcpy(&value, (const char *)t->data + i * sizeof value, sizeof value);
    values[i] = (double)value;
  }
  const unroll_status status = unroll_binding_write(binding, name, values, n * sizeof *values, err);
  free(values);
  return status;
}

static unroll_status fill_loss(void *ctx, unroll_binding *binding, unroll_error *err) {
  const struct loss *l = ctx;
  unroll_status status = write_real(binding, loss_W, &l->W, err);
  if (status == UNROLL_OK)
    status = write_real(binding, loss_b, &l->b, err);
  if (status == UNROLL_OK)
    status = unroll_binding_write(binding, loss_targets, l->d->data.targets,
                                  (uint64_t)(l->T * l->d->data.n) * sizeof(int32_t), err);
  return status;
}

/* Has the model one that can be written down here? */
static bool find_loss(const diagnosis *d, int64_t T, struct loss *l) {
  *l = (struct loss){.d = d, .T = T};
  const unroll_safetensors *f = d->model.file;
  return d->data.targets &&
         (unroll_safetensors_find(f, "linear.W", &l->W, NULL) == UNROLL_OK ||
          unroll_safetensors_find(f, "embedding.weight", &l->W, NULL) == UNROLL_OK) && /* tied */
         unroll_safetensors_find(f, "linear.b", &l->b, NULL) == UNROLL_OK &&
         l->W.dtype == UNROLL_F32 && l->b.dtype == UNROLL_F32;
}

/* ---- the network ---- */

struct weights {
  unroll_network_weight *list;
  char (*names)[160];
  uint32_t n;
};

static void add_weight(struct weights *w, const layer_view *l, const char *what, const double *data, int64_t count) {
  if (!data)
    return;
  snprintf(w->names[w->n], sizeof w->names[w->n], "%s%s%s.%d.%d", l->stack, *l->stack ? "." : "", what, l->layer,
           l->direction);
  w->list[w->n] = (unroll_network_weight){w->names[w->n], data, (uint64_t)count};
  w->n++;
}

static bool list_weights(const diagnosis *d, struct weights *w) {
  *w = (struct weights){.list = calloc(PARTS * d->n_activities, sizeof *w->list),
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
  for (int64_t k = 0; k < f->n_lags; k++)
    growth = isnan(f->product[k]) || f->product[k] < growth ? growth : f->product[k];
  for (int64_t k = 0; k < f->n_sigma; k++)
    growth = isinf(f->sigma[k]) ? f->sigma[k] : growth;
  to->memory = f->memory < 0 ? INT64_MAX : f->memory;
  to->growth = growth;
  /* Of data that end before the model's own T nothing is known of what comes after. */
  if (f->memory < 0 && flow->steps < to->steps)
    to->steps = flow->steps;
  return json_pack("{s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:s}", "layer", l->name, "norm",
                   diagnose_numbers(f->norm, flow->steps), "lags", integers(NULL, f->n_lags), "product",
                   diagnose_numbers(f->product, f->n_lags), "sigma", diagnose_numbers(f->sigma, f->n_sigma),
                   "sigma_lags", integers(f->sigma_lag, f->n_sigma), "sigma_error",
                   diagnose_numbers(f->sigma_error, f->n_sigma), "rho", diagnose_number(f->rho), "rate",
                   diagnose_number(f->rate), "memory",
                   f->memory < 0 ? json_null() : json_integer((json_int_t)f->memory), "condition",
                   diagnose_number(f->condition), "why", f->why ? f->why : "");
}

void diagnose_gradient(diagnosis *d) {
  int64_t T = 0;
  struct weights w;
  struct loss loss;
  unroll_flow *flow = NULL;
  unroll_error err = UNROLL_ERROR_INIT;
  for (int64_t i = 0; i < d->data.n; i++)
    T = d->data.lengths[i] > T ? d->data.lengths[i] : T;
  double *const x = calloc((size_t)(T * d->data.n * d->data.width) + 1, sizeof *x);
  int32_t *const lengths = calloc((size_t)d->data.n, sizeof *lengths);
  const bool has_loss = find_loss(d, T, &loss);
  const unroll_flow_loss own = {build_loss, fill_loss, &loss};
  unroll_device *const device = diagnose_device(d);
  bool made = list_weights(d, &w) && fill_batch(d, x, lengths);
  if (!device)
    diagnose_missing(d, "gradient", "the device can't be opened");
  else if (!made)
    diagnose_missing(d, "gradient", "out of memory");
  else {
    const unroll_rnn_options rnn = options_of(d);
    const unroll_network net = {.struct_size = sizeof net,
                                .options = &rnn,
                                .prefix = d->model.layers[0].stack,
                                .input = d->data.width,
                                .weights = w.list,
                                .n_weights = w.n};
    const unroll_flow_batch batch = {.struct_size = sizeof batch,
                                     .steps = T,
                                     .batch = d->data.n,
                                     .x = x,
                                     .lengths = lengths,
                                     .loss = has_loss ? &own : NULL};
    const unroll_flow_options o = {
        .struct_size = sizeof o, .device = device, .threshold = GONE, .probes = 4, .seed = (uint64_t)d->values->seed};
    if (unroll_flow_measure(&net, &batch, &o, &flow, &err) != UNROLL_OK)
      diagnose_missing(d, "gradient", "%s", err.message);
  }
  if (flow) {
    json_t *all = json_array();
    for (uint32_t k = 0; k < flow->n_layers && k < d->n_activities; k++)
      json_array_append_new(all, layer_json(d, flow, &flow->layers[k], d->activities[k].layer));
    json_object_set_new(
        d->report, "gradient",
        json_pack("{s:o, s:s}", "layers", all, "loss", has_loss ? "the model's" : "the sum of the last states"));
  }
  unroll_flow_free(flow);
  free(w.list);
  free(w.names);
  free(x);
  free(lengths);
}
