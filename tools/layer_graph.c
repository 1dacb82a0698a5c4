/* SPDX-License-Identifier: Apache-2.0 */
#include "layer_graph.h"

#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "console.h"

int32_t layer_cell(const layer_values *values) {
  for (int32_t cell = UNROLL_CELL_NONE + 1; cell < UNROLL_RNN_END; cell++) {
    const char *name = unroll_rnn_cell_name(cell);
    if (name && strcmp(name, values->cell) == 0)
      return cell;
  }
  return UNROLL_CELL_NONE;
}

/* Of the names that the options take; NULL, as in values of another origin: nothing is said. */
static unroll_activation activation_of(const char *name) {
  int32_t kind = UNROLL_ACTIVATION_DEFAULT + 1;
  while (name && strcmp(unroll_activation_name(kind), name) != 0)
    kind++;
  return unroll_activation_of(name ? kind : UNROLL_ACTIVATION_DEFAULT);
}

static int32_t residual_of(const char *name) {
  return !name || strcmp(name, "none") == 0 ? UNROLL_RESIDUAL_NONE
         : strcmp(name, "outputs") == 0     ? UNROLL_RESIDUAL_OUTPUTS
                                            : UNROLL_RESIDUAL_STATES;
}

static double gates_of(int32_t cell) {
  switch (cell) {
  case UNROLL_CELL_RNN: return 1;
  case UNROLL_CELL_LSTM: return 4;
  case UNROLL_RNN_MIN_GRU: return 2;
  default: return 3;
  }
}

double layer_flops(const layer_values *values) {
  const int32_t cell = layer_cell(values);
  const bool minimal = cell == UNROLL_RNN_MIN_GRU || cell == UNROLL_RNN_MIN_LSTM;
  const double directions = values->bidirectional ? 2 : 1, H = (double)values->hidden;
  const double P = (double)values->projection, width = P > 0 ? P : H;
  double inputs = (double)values->input, sum = 0;
  for (int64_t l = 0; l < values->layers; l++) {
    const double products = gates_of(cell) * H * (inputs + (minimal ? 0 : width)) + H * P;
    sum += 2 * directions * (double)values->time_steps * (double)values->batch * products;
    inputs = directions * width;
  }
  return values->train ? 3 * sum : sum;
}

static bool is_lstm(int32_t cell) { return cell == UNROLL_CELL_LSTM || cell == UNROLL_RNN_COUPLED_LSTM; }

unroll_rnn_options layer_rnn_options(const layer_values *values) {
  const int32_t cell = layer_cell(values);
  return (unroll_rnn_options){.struct_size = sizeof(unroll_rnn_options),
                              .cell = cell,
                              .layers = (int32_t)values->layers,
                              .hidden = values->hidden,
                              .bidirectional = values->bidirectional,
                              .same_mask = values->same_mask,
                              .input_dropout = values->input_dropout,
                              .weight_dropout = values->weight_dropout,
                              .state_dropout = values->state_dropout,
                              .zoneout_h = values->zoneout,
                              .zoneout_c = is_lstm(cell) ? values->zoneout : 0,
                              .f = activation_of(cell == UNROLL_CELL_RNN ? values->activation : NULL),
                              .clip = values->gate_clip,
                              .cell_clip = values->cell_clip,
                              .projection = values->projection,
                              .peepholes = values->peepholes,
                              .layer_norm = values->layer_norm,
                              .skip = values->skip,
                              .residual = residual_of(values->residual)};
}

bool layer_checkpoints(const layer_values *values, unroll_checkpoint_policy *policy,
                       unroll_checkpoint_plan_info *plan) {
  static const double blocks[UNROLL_CELL_COUNT] = {
      [UNROLL_CELL_RNN] = 2, [UNROLL_CELL_LSTM] = 6, [UNROLL_CELL_GRU] = 5, [UNROLL_CELL_GRU_AFTER] = 5};
  const int32_t cell = is_lstm(layer_cell(values)) ? UNROLL_CELL_LSTM : layer_cell(values);
  if (!(values->checkpoint > 0))
    return false;
  const double row = 4 * (double)values->batch * (double)values->hidden * (double)values->time_steps;
  const double saved =
      (cell < UNROLL_CELL_COUNT ? blocks[cell] : 1) * row * (double)values->layers * (values->bidirectional ? 2 : 1);
  *policy = (unroll_checkpoint_policy){.struct_size = sizeof *policy,
                                       .kind = UNROLL_CHECKPOINT_BYTES,
                                       .bytes = (uint64_t)(saved * values->checkpoint / 100)};
  *plan = (unroll_checkpoint_plan_info){.struct_size = sizeof *plan};
  unroll_checkpoint_policy own = *policy;
  own.bytes /= values->bidirectional ? 2 * (uint64_t)values->layers : 1;
  unroll_checkpoint_sizes sizes = {.struct_size = sizeof sizes};
  const unroll_rnn_options rnn = layer_rnn_options(values);
  if (unroll_rnn_checkpoint_sizes(&rnn, UNROLL_F32, values->time_steps, values->batch, 0, &sizes, NULL) == UNROLL_OK)
    (void)unroll_checkpoint_plan(&own, &sizes, plan, NULL); /* what is wrong the graph says */
  return true;
}

/* The gradients of x and of every parameter, as outputs. */
static unroll_status add_gradients(unroll_graph *graph, unroll_tensor x, unroll_tensor y) {
  const unroll_tensor_info info = unroll_tensor_describe(y);
  const unroll_tensor dy = unroll_input(graph, "dy", UNROLL_F32, info.rank, info.shape);
  const uint32_t count = unroll_graph_count(graph);
  unroll_tensor *of = calloc(2 * ((size_t)count + 1), sizeof *of);
  if (!of)
    return UNROLL_E_MEMORY;
  unroll_tensor *gradients = of + count + 1;
  uint32_t n = 0;
  of[n++] = x;
  for (uint32_t i = 0; i < count; i++)
    if (unroll_tensor_describe(unroll_graph_tensor(graph, i)).role == UNROLL_ROLE_PARAM)
      of[n++] = unroll_graph_tensor(graph, i);
  unroll_vjp(&y, &dy, 1, of, n, gradients);
  for (uint32_t i = 0; i < n; i++) {
    char name[128];
    const unroll_tensor_info parameter = unroll_tensor_describe(of[i]);
    snprintf(name, sizeof name, "d%s", parameter.name ? parameter.name : "");
    unroll_output(gradients[i], name);
  }
  free(of);
  return UNROLL_OK;
}

unroll_graph *build_layer_graph(const layer_values *values) {
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_graph *graph;
  if (unroll_graph_create(NULL, &graph, &err) != UNROLL_OK) {
    complain_of(&err);
    return NULL;
  }
  const int64_t shape[] = {values->time_steps, values->batch, values->input};
  const unroll_tensor x = unroll_input(graph, "x", UNROLL_F32, 3, shape);
  unroll_rnn_options rnn = layer_rnn_options(values);
  unroll_checkpoint_policy policy;
  unroll_checkpoint_plan_info plan;
  if (layer_checkpoints(values, &policy, &plan))
    rnn.checkpoint = &policy;
  const unroll_tensor y = unroll_rnn(x, NULL, &rnn, NULL, NULL);
  unroll_output(y, "y");
  if (values->train && unroll_graph_status(graph, NULL) == UNROLL_OK && add_gradients(graph, x, y) != UNROLL_OK) {
    complain("out of memory");
    unroll_graph_destroy(graph);
    return NULL;
  }
  if (unroll_graph_status(graph, &err) != UNROLL_OK) {
    complain_of(&err);
    unroll_graph_destroy(graph);
    return NULL;
  }
  return graph;
}

unroll_status fill_layer_binding(unroll_graph *graph, int32_t cell, unroll_binding *binding, unroll_error *err) {
  for (uint32_t i = 0; i < unroll_graph_count(graph); i++) {
    const unroll_tensor_info info = unroll_tensor_describe(unroll_graph_tensor(graph, i));
    if (info.role != UNROLL_ROLE_INPUT && info.role != UNROLL_ROLE_PARAM)
      continue;
    size_t n = 1;
    for (int32_t k = 0; k < info.rank; k++)
      n *= (size_t)info.shape[k];
    float *data = malloc(n * sizeof *data);
    if (!data) {
      *err = (unroll_error){.struct_size = sizeof *err, .code = UNROLL_E_MEMORY};
      return UNROLL_E_MEMORY;
    }
    unroll_status status = info.role == UNROLL_ROLE_INPUT ? unroll_init_normal(&info, 1, 0, 1, data, err)
                                                          : unroll_init_default(&info, cell, 1, data, err);
    if (status == UNROLL_OK)
      status = unroll_binding_write(binding, info.name, data, n * sizeof *data, err);
    free(data);
    if (status != UNROLL_OK)
      return status;
  }
  return UNROLL_OK;
}
