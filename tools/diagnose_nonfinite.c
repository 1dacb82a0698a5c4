/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Numbers that are not finite: in the file, and in one run of the layers over the data, with the loss and the gradients of
 * a training, on the device and in the precision of the weights, since that is where numbers overflow.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "diagnose_stack.h"

/* ---- the file ---- */

/* How many numbers of all parameters are not finite, those of layers that are not run here too. */
static int64_t look_at_file(const diagnosis *d, unroll_nonfinite *first) {
  int64_t found = 0;
  for (uint64_t k = 0; k < unroll_safetensors_count(d->model.file); k++) {
    unroll_stored_tensor t;
    if (unroll_safetensors_get(d->model.file, k, &t, NULL) != UNROLL_OK || !model_is_parameter(t.name) ||
        (t.dtype != UNROLL_F32 && t.dtype != UNROLL_F64))
      continue;
    for (uint64_t i = 0; i < t.bytes / unroll_dtype_size(t.dtype); i++) {
      if (isfinite(stored_number(&t, i)))
        continue;
      if (!found++) {
        *first = (unroll_nonfinite){.struct_size = sizeof *first,
                                    .found = 1,
                                    .phase = UNROLL_PHASE_GIVEN,
                                    .quantity = UNROLL_QUANTITY_PARAMETER,
                                    .layer = -1,
                                    .direction = -1,
                                    .step = -1,
                                    .sequence = -1,
                                    .unit = (int64_t)i,
                                    .gate = -1,
                                    .value = stored_number(&t, i)};
        snprintf(first->tensor, sizeof first->tensor, "%s", t.name);
      }
    }
  }
  return found;
}

static int64_t look_at_data(const diagnosis *d) {
  int64_t found = 0;
  for (int64_t i = 0; i < d->data.n; i++)
    for (int64_t k = 0; k < d->data.lengths[i] * d->data.width; k++)
      found += !isfinite(d->data.x[i][k]);
  return found;
}

/* ---- a run ---- */

struct run {
  diagnose_stack stack;
  int32_t dtype;
  unroll_graph *graph;
  unroll_executable *exe;
  unroll_binding *binding;
};

/* The precision in which the first layer is stored. */
static int32_t dtype_of(const diagnosis *d, const diagnose_stack *s) {
  unroll_stored_tensor t;
  return unroll_safetensors_find(d->model.file, s->network->weights[0].name, &t, NULL) == UNROLL_OK &&
                 t.dtype == UNROLL_F64
             ? UNROLL_F64
             : UNROLL_F32;
}

/* The model's, or the sum of the last states of the last layer. */
static unroll_tensor build_forward(struct run *r) {
  const diagnose_stack *s = &r->stack;
  const unroll_flow_batch *b = &s->batch;
  unroll_graph *g = r->graph;
  const int32_t D = s->network->options->bidirectional ? 2 : 1, n = s->network->options->layers * D;
  unroll_rnn_options o = *s->network->options;
  const unroll_tensor x = unroll_input(g, "x", r->dtype, 3, (int64_t[]){b->steps, b->batch, s->network->input});
  o.lengths = unroll_input(g, "lengths", UNROLL_I32, 1, &b->batch);
  unroll_tensor *const last = calloc((size_t)n, sizeof *last), sum = unroll_none();
  if (!last)
    return sum;
  const unroll_tensor y =
      unroll_rnn(x, s->network->prefix, &o, NULL, s->has_loss ? NULL : &(unroll_rnn_state){last, NULL});
  for (int32_t i = n - D; i < n && !s->has_loss; i++) {
    const unroll_tensor part = unroll_reduce(last[i], UNROLL_SUM, 0, 0);
    sum = sum.graph ? unroll_add(sum, part) : part;
  }
  free(last);
  return s->has_loss ? s->loss.build(s->loss.ctx, y) : sum;
}

/* Each gradient goes into an optimizer, whose update is not made: so it is known whose gradient it is. */
static bool build_backward(struct run *r, unroll_tensor loss) {
  unroll_graph *g = r->graph;
  const uint32_t n = unroll_graph_count(g);
  unroll_tensor *const params = calloc(2 * (size_t)n, sizeof *params), *const d = params + n;
  const unroll_tensor none = unroll_none();
  uint32_t found = 0;
  if (!params)
    return false;
  for (uint32_t i = 0; i < n; i++) {
    const unroll_tensor t = unroll_graph_tensor(g, i);
    if (unroll_tensor_describe(t).role == UNROLL_ROLE_PARAM)
      params[found++] = t;
  }
  unroll_output(loss, "loss");
  unroll_gradient(loss, params, found, d);
  const unroll_tensor rate = unroll_constant(g, r->dtype, 0, NULL, 0),
                      step = unroll_constant(g, UNROLL_I32, 0, NULL, 1);
  for (uint32_t i = 0; i < found; i++)
    unroll_optimize(params[i], d[i], rate, step, none, &(unroll_optimizer_attr){.kind = UNROLL_SGD});
  free(params);
  return true;
}

static unroll_status put(const struct run *r, const char *name, const double *values, uint64_t n, unroll_error *err) {
  if (r->dtype == UNROLL_F64)
    return unroll_binding_write(r->binding, name, values, n * sizeof *values, err);
  float *const single = malloc(n * sizeof *single + 1);
  if (!single)
    return UNROLL_E_MEMORY;
  for (uint64_t i = 0; i < n; i++)
    single[i] = (float)values[i];
  const unroll_status status = unroll_binding_write(r->binding, name, single, n * sizeof *single, err);
  free(single);
  return status;
}

static unroll_status fill(const struct run *r, unroll_error *err) {
  const diagnose_stack *s = &r->stack;
  const unroll_flow_batch *b = &s->batch;
  unroll_status status = put(r, "x", b->x, (uint64_t)(b->steps * b->batch * s->network->input), err);
  if (status == UNROLL_OK)
    status = unroll_binding_write(r->binding, "lengths", b->lengths, (uint64_t)b->batch * sizeof *b->lengths, err);
  for (uint32_t i = 0; i < s->network->n_weights && status == UNROLL_OK; i++)
    status = put(r, s->network->weights[i].name, s->network->weights[i].data, s->network->weights[i].count, err);
  if (status == UNROLL_OK && s->has_loss)
    status = s->loss.fill(s->loss.ctx, r->binding, err);
  return status;
}

static unroll_status search(const diagnosis *d, struct run *r, unroll_device *device, unroll_nonfinite *found,
                            unroll_error *err) {
  unroll_status status = unroll_graph_create(NULL, &r->graph, err);
  if (status != UNROLL_OK)
    return status;
  r->dtype = dtype_of(d, &r->stack);
  const unroll_tensor loss = build_forward(r);
  status = unroll_graph_status(r->graph, err);
  if (status == UNROLL_OK && (!loss.graph || !build_backward(r, loss)))
    return UNROLL_E_MEMORY;
  if (status == UNROLL_OK)
    status = unroll_graph_status(r->graph, err);
  if (status == UNROLL_OK)
    status = unroll_compile(r->graph, &device, 1, NULL, &r->exe, err);
  if (status == UNROLL_OK)
    status = unroll_binding_create(r->exe, &r->binding, err);
  if (status == UNROLL_OK)
    status = fill(r, err);
  return status == UNROLL_OK ? unroll_nonfinite_find(r->graph, &device, 1, r->binding, NULL, found, err) : status;
}

static void close_run(struct run *r) {
  unroll_binding_destroy(r->binding);
  unroll_executable_destroy(r->exe);
  unroll_graph_destroy(r->graph);
}

/* false: in "missing" it stands why. */
static bool look_at_run(diagnosis *d, unroll_nonfinite *found) {
  struct run r = {.graph = NULL};
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_device *const device = diagnose_device(d);
  unroll_status status = UNROLL_E_MEMORY;
  diagnose_stack_make(d, &r.stack);
  if (device)
    status = search(d, &r, device, found, &err);
  if (status != UNROLL_OK)
    diagnose_missing(d, "nonfinite", "%s: weights alone were looked at",
                     !device          ? "the device can't be opened"
                     : err.message[0] ? err.message
                                      : "out of memory");
  close_run(&r);
  return status == UNROLL_OK;
}

/* ---- the section ---- */

static json_t *number_or_none(int64_t n) { return n < 0 ? json_null() : json_integer((json_int_t)n); }
static json_t *text_or_none(const char *text) { return text && text[0] ? json_string(text) : json_null(); }

/* Of a parameter that one of the layers has that layer. */
static const layer_view *layer_of(const diagnosis *d, const unroll_nonfinite *f) {
  for (size_t k = 0; k < d->model.n; k++) {
    const layer_view *l = &d->model.layers[k];
    char tail[48];
    const size_t stack = strlen(l->stack), name = strlen(f->tensor);
    const size_t end = (size_t)snprintf(tail, sizeof tail, ".%d.%d", l->layer, l->direction);
    if (f->layer >= 0 && k < d->n_activities && l->layer == f->layer && l->direction == f->direction)
      return l;
    if (f->layer < 0 && f->quantity == UNROLL_QUANTITY_PARAMETER && name > stack + end &&
        strncmp(f->tensor, l->stack, stack) == 0 && (stack == 0 || f->tensor[stack] == '.') &&
        strcmp(f->tensor + name - end, tail) == 0)
      return l;
  }
  return NULL;
}

static json_t *place(const diagnosis *d, const unroll_nonfinite *f) {
  const layer_view *l = layer_of(d, f);
  const bool has_name = f->quantity <= UNROLL_QUANTITY_STATE || f->quantity == UNROLL_QUANTITY_VALUE;
  return json_pack(
      "{s:o, s:o, s:o, s:o, s:o, s:o, s:s, s:s, s:o}", "layer", text_or_none(l ? l->name : NULL), "direction",
      text_or_none(f->direction < 0                 ? NULL
                   : f->direction == UNROLL_REVERSE ? "reverse"
                                                    : "forward"),
      "step", number_or_none(f->step), "gate", text_or_none(f->gate_name), "sequence", number_or_none(f->sequence),
      "unit", number_or_none(f->unit), "what", has_name ? f->tensor : unroll_quantity_name(f->quantity), "phase",
      unroll_phase_name(f->phase), "value", diagnose_number(f->value));
}

void diagnose_nonfinite(diagnosis *d) {
  unroll_nonfinite first = {.struct_size = sizeof first}, found = {.struct_size = sizeof found};
  const int64_t given = look_at_file(d, &first) + look_at_data(d);
  const bool has_run = look_at_run(d, &found);
  if (!first.found)
    first = found;
  d->nonfinite = given + (int64_t)(found.values + found.gradients);
  for (size_t k = 0; k < d->model.n; k++)
    d->figures[k].nonfinite = d->nonfinite;
  const char *text = unroll_nonfinite_text(&first, d->nonfinite_first, sizeof d->nonfinite_first);
  if (!has_run && !first.found)
    snprintf(d->nonfinite_first, sizeof d->nonfinite_first, "the weights are finite; no run was looked at");
  json_object_set_new(d->report, "nonfinite",
                      json_pack("{s:I, s:o, s:o, s:s}", "values", (json_int_t)given + (json_int_t)found.values,
                                "gradients", number_or_none(has_run ? (int64_t)found.gradients : -1), "first",
                                first.found ? place(d, &first) : json_null(), "text", text));
}
