/* SPDX-License-Identifier: Apache-2.0 */
#include "cost_report.h"

#include <string.h>

#include "commands.h"
#include "model_kind.h"

/* ---- what follows from the layers ---- */

unroll_status cost_of_layers(const cost_asked *asked, cost_report *r, unroll_error *err) {
  const unroll_rnn_options *rnn = &r->layers.rnn;
  unroll_rnn_options first = *rnn;
  first.layers = 1;
  first.bidirectional = 0;
  unroll_status st =
      unroll_cost_of_rnn_parameters(&first, r->layers.input, &r->first_parameters, r->formula, sizeof r->formula, err);
  if (st == UNROLL_OK)
    st = unroll_cost_of_rnn_parameters(rnn, r->layers.input, &r->layer_parameters, NULL, 0, err);
  if (st != UNROLL_OK)
    return st;
  int64_t steps[COST_MOST_STEPS];
  r->n_memory = asked->n_at ? asked->n_at : 4;
  for (uint32_t i = 0; i < r->n_memory; i++)
    steps[i] = asked->n_at ? asked->at[i] : r->layers.steps * (int64_t[]){1, 4, 16, 64}[i];
  const int64_t width = rnn->hidden * (rnn->bidirectional ? 2 : 1);
  r->k2 = asked->k2 ? asked->k2 : r->k2 ? r->k2 : r->layers.steps;
  r->k1 = asked->k1 ? asked->k1 : asked->k2 || !r->k1 ? r->k2 : r->k1;
  r->heads = asked->heads ? asked->heads : width % 64 ? 1 : width / 64;
  const unroll_cost_memory_options o = {.struct_size = sizeof o,
                                        .dtype = UNROLL_F32,
                                        .rnn = rnn,
                                        .batch = r->layers.batch,
                                        .k1 = r->k1,
                                        .k2 = r->k2,
                                        .heads = r->heads};
  r->memory[0].struct_size = sizeof *r->memory;
  r->no_memory = (unroll_error)UNROLL_ERROR_INIT;
  st = unroll_cost_of_memory(&o, steps, r->n_memory, r->memory, &r->no_memory);
  if (st == UNROLL_E_UNSUPPORTED) { /* the rest stands */
    r->n_memory = 0;
    return UNROLL_OK;
  }
  if (st != UNROLL_OK && err)
    *err = r->no_memory;
  return st;
}

/* ---- of a file ---- */

#define COST_OF(type, load, cost, destroy)                                                                   \
  do {                                                                                                       \
    type *model = NULL;                                                                                      \
    st = load(&device, 1, path, NULL, &model, err);                                                          \
    if (st == UNROLL_OK)                                                                                     \
      st = cost(model, asked->steps, asked->batch, &report->forward, &report->update, &report->layers, err); \
    destroy(model);                                                                                          \
  } while (0)

static unroll_status cost_on(unroll_device *device, const char *path, const cost_asked *asked, cost_report *report,
                             unroll_error *err) {
  unroll_status st = UNROLL_OK;
  if (model_is(path, "sequence classifier")) {
    report->task = "classifier";
    COST_OF(unroll_classifier, unroll_classifier_load, unroll_cost_of_classifier, unroll_classifier_destroy);
  } else if (model_is(path, MODEL_FORECASTER)) {
    report->task = "forecaster";
    COST_OF(unroll_forecaster, unroll_forecaster_load, unroll_cost_of_forecaster, unroll_forecaster_destroy);
  } else if (model_is(path, "translator")) {
    report->task = "translator";
    COST_OF(unroll_translator, unroll_translator_load, unroll_cost_of_translator, unroll_translator_destroy);
  } else {
    report->task = "language model";
    unroll_lm *lm = NULL;
    st = unroll_lm_load(&device, 1, path, NULL, &lm, err);
    if (st == UNROLL_OK) {
      const unroll_lm_info info = unroll_lm_describe(lm);
      report->k2 = info.options.steps;
      report->k1 = info.options.update_steps ? info.options.update_steps : info.options.steps;
      st = unroll_cost_of_lm(lm, asked->steps, asked->batch, &report->forward, &report->update, &report->layers, err);
    }
    unroll_lm_destroy(lm);
  }
  return st;
}

unroll_status cost_of_file(const char *path, const cost_asked *asked, cost_report *report, unroll_error *err) {
  *report = (cost_report){.has_optimizer = true};
  report->forward.struct_size = report->update.struct_size = sizeof report->forward;
  report->layers.struct_size = sizeof report->layers;
  unroll_context *ctx = NULL;
  unroll_device *device = NULL;
  unroll_status st = unroll_context_create(NULL, &ctx, err);
  if (st == UNROLL_OK)
    st = unroll_device_open(ctx, "cpu", NULL, 0, &device, err);
  if (st == UNROLL_OK)
    st = cost_on(device, path, asked, report, err);
  unroll_device_close(device);
  unroll_context_destroy(ctx);
  return st == UNROLL_OK ? cost_of_layers(asked, report, err) : st;
}

/* ---- for programs ---- */

static json_t *counts_to_json(const cost_report *r, size_t offset) {
  const char *forward = (const char *)&r->forward.total + offset, *update = (const char *)&r->update.total + offset;
  const json_int_t of_forward = *(const int64_t *)(const void *)forward,
                   of_update = *(const int64_t *)(const void *)update;
  return json_pack("{s:I, s:I}", "forward", of_forward, "backward", of_update - of_forward);
}

static json_t *ops_to_json(const unroll_cost *cost) {
  json_t *ops = json_array();
  for (uint32_t op = 1; op < UNROLL_COST_OPS; op++) {
    const unroll_cost_count *c = &cost->of[op];
    if (c->runs == 0 || !unroll_cost_op_name(op))
      continue;
    json_array_append_new(ops, json_pack("{s:s, s:I, s:I, s:I, s:I, s:I}", "op", unroll_cost_op_name(op), "runs",
                                         (json_int_t)c->runs, "flops", (json_int_t)c->flops, "transcendental",
                                         (json_int_t)c->transcendental, "read", (json_int_t)c->read, "written",
                                         (json_int_t)c->written));
  }
  return ops;
}

static json_t *memory_to_json(const cost_report *r) {
  json_t *T = json_array(), *bptt = json_array(), *truncated = json_array(), *checkpointed = json_array();
  json_t *transformer = json_array(), *forward_steps = json_array();
  for (uint32_t i = 0; i < r->n_memory; i++) {
    const unroll_cost_memory *m = &r->memory[i];
    json_array_append_new(T, json_integer(m->steps));
    json_array_append_new(bptt, json_integer(m->bptt));
    json_array_append_new(truncated, json_integer(m->truncated));
    json_array_append_new(checkpointed, json_integer(m->checkpointed));
    json_array_append_new(transformer, json_integer(m->transformer));
    json_array_append_new(forward_steps, json_integer(m->checkpointed_steps));
  }
  return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:I, s:I, s:I}", "T", T, "bptt", bptt, "truncated", truncated,
                   "checkpointed", checkpointed, "transformer", transformer, "checkpointed_steps", forward_steps, "k1",
                   (json_int_t)r->k1, "k2", (json_int_t)r->k2, "heads", (json_int_t)r->heads);
}

json_t *cost_to_json(const cost_report *r) {
  json_t *cost = json_pack(
      "{s:I, s:s, s:I, s:I, s:I, s:I, s:o, s:o, s:{s:I, s:I}, s:o}", "parameters", (json_int_t)r->update.parameters,
      "formula", r->formula, "layer_parameters", (json_int_t)r->layer_parameters, "first_layer_parameters",
      (json_int_t)r->first_parameters, "steps", (json_int_t)r->layers.steps, "batch", (json_int_t)r->layers.batch,
      "flops", counts_to_json(r, offsetof(unroll_cost_count, flops)), "transcendental",
      counts_to_json(r, offsetof(unroll_cost_count, transcendental)), "bytes", "read", (json_int_t)r->update.total.read,
      "written", (json_int_t)r->update.total.written, "ops", ops_to_json(&r->update));
  if (cost && r->n_memory)
    json_object_set_new(cost, "memory", memory_to_json(r));
  return cost;
}
