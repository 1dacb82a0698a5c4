/* SPDX-License-Identifier: Apache-2.0 */
/* A graph of recurrent layers as options describe them: what `bench layer` measures and `graph` prints. */
#ifndef LAYER_GRAPH_H
#define LAYER_GRAPH_H
#include <unroll/nn.h>
#include <unroll/runtime.h>

#include "options.h"

typedef struct layer_values {
  const char *cell, *activation, *residual;
  int64_t time_steps, batch, input, hidden, layers, projection;
  double input_dropout, weight_dropout, state_dropout, zoneout, gate_clip, cell_clip, skip;
  bool bidirectional, same_mask, layer_norm, peepholes, train;
  double checkpoint; /* percent of what is saved without; 0: none */
} layer_values;

#define OPTION_SIZE(values_type, field, name_, argument_, standard_, max_, help_)                               \
  {                                                                                                             \
    .type = OPTION_INTEGER, .name = name_, .argument = argument_, .offset = offsetof(values_type, layer.field), \
    .standard = standard_, .min = 1, .max = max_, .help = help_                                                 \
  }
#define OPTION_CHANCE(values_type, field, name_, help_)                                                    \
  {                                                                                                        \
    .type = OPTION_NUMBER, .name = name_, .argument = "P", .offset = offsetof(values_type, layer.field),   \
    .standard = "0", .min = 0, .max = 1 - 0x1p-53, .expected = "a number from 0 to below 1", .help = help_ \
  }
#define OPTION_REAL(values_type, field, name_, min_, expected_, help_)                                   \
  {                                                                                                      \
    .type = OPTION_NUMBER, .name = name_, .argument = "X", .offset = offsetof(values_type, layer.field), \
    .standard = "0", .min = min_, .max = 1e300, .expected = expected_, .help = help_                     \
  }
#define OPTION_SWITCH(values_type, field, name_, help_) \
  { .type = OPTION_FLAG, .name = name_, .offset = offsetof(values_type, layer.field), .help = help_ }
#define OPTIONS_LAYER_ALONE(values_type, steps_name)                                                                  \
  {.type = OPTION_CHOICE,                                                                                             \
   .name = "cell",                                                                                                    \
   .argument = "C",                                                                                                   \
   .offset = offsetof(values_type, layer.cell),                                                                       \
   .standard = "lstm",                                                                                                \
   .choices = "rnn lstm gru gru_after coupled_lstm min_gru min_lstm",                                                 \
   .help = "what a layer is made of"},                                                                                \
      {.type = OPTION_CHOICE,                                                                                         \
       .name = "activation",                                                                                          \
       .argument = "A",                                                                                               \
       .offset = offsetof(values_type, layer.activation),                                                             \
       .standard = "tanh",                                                                                            \
       .choices =                                                                                                     \
           "tanh sigmoid relu affine leaky_relu thresholded_relu scaled_tanh hard_sigmoid elu softsign softplus "     \
           "identity modrelu",                                                                                        \
       .help = "of the cell rnn; alpha and beta are those of its formula in ONNX"},                                   \
      OPTION_SIZE(values_type, time_steps, steps_name, "T", "64", 1 << 20, "time steps"),                             \
      OPTION_SIZE(values_type, batch, "batch", "B", "32", 1 << 20, "sequences at once"),                              \
      OPTION_SIZE(values_type, input, "input", "I", "128", 1 << 16, "numbers per sequence and step"),                 \
      OPTION_SIZE(values_type, hidden, "hidden", "H", "128", 1 << 16, "units of a layer"),                            \
      OPTION_SIZE(values_type, layers, "layers", "L", "1", 64, "layers, one above the other"),                        \
      {.type = OPTION_FLAG,                                                                                           \
       .name = "bidirectional",                                                                                       \
       .offset = offsetof(values_type, layer.bidirectional),                                                          \
       .help = "every layer runs both ways"},                                                                         \
      OPTION_CHANCE(values_type, input_dropout, "input-dropout", "dropout of the first layer's input"),               \
      OPTION_CHANCE(values_type, weight_dropout, "weight-dropout", "dropout of W_h, one mask a run"),                 \
      OPTION_CHANCE(values_type, state_dropout, "state-dropout", "dropout of h before W_h, one mask for all steps"),  \
      OPTION_CHANCE(values_type, zoneout, "zoneout", "of h, and of the cell state where there is one"),               \
      OPTION_SWITCH(values_type, same_mask, "same-mask", "one mask for all steps of the input too"),                  \
      OPTION_SWITCH(values_type, layer_norm, "layer-norm", "layer normalisation in the cell"),                        \
      OPTION_SWITCH(values_type, peepholes, "peepholes", "gates see the cell state"),                                 \
      {.type = OPTION_INTEGER,                                                                                        \
       .name = "projection",                                                                                          \
       .argument = "P",                                                                                               \
       .offset = offsetof(values_type, layer.projection),                                                             \
       .standard = "0",                                                                                               \
       .min = 0,                                                                                                      \
       .max = 1 << 16,                                                                                                \
       .help = "width of h after a projection; 0: none"},                                                             \
      {.type = OPTION_CHOICE,                                                                                         \
       .name = "residual",                                                                                            \
       .argument = "R",                                                                                               \
       .offset = offsetof(values_type, layer.residual),                                                               \
       .standard = "none",                                                                                            \
       .choices = "none outputs states",                                                                              \
       .help = "connections around the layers that give as many numbers as they read"},                               \
      OPTION_REAL(values_type, skip, "skip", -1e300, "a number", "times the h before it is added to h"),              \
      OPTION_REAL(values_type, gate_clip, "gate-clip", 0, "a number, 0 or more",                                      \
                  "bound of what goes into the activations of gates; 0: none"),                                       \
      OPTION_REAL(values_type, cell_clip, "cell-clip", 0, "a number, 0 or more", "bound of the cell state; 0: none"), \
  {                                                                                                                   \
    .type = OPTION_NUMBER, .name = "checkpoint", .argument = "P", .offset = offsetof(values_type, layer.checkpoint),  \
    .standard = "0", .max = 100,                                                                                      \
    .help = "keep so many percent of what the gradient reads of layers without options, and make the rest again; "    \
            "0 keeps all"                                                                                             \
  }
#define OPTIONS_LAYER(values_type, steps_name)                                          \
  OPTIONS_LAYER_ALONE(values_type, steps_name), {                                       \
    .type = OPTION_FLAG, .name = "train", .offset = offsetof(values_type, layer.train), \
    .help = "the gradients of input and parameters too, from a gradient of the output"  \
  }

/*
 * Input x [T,B,I] -> output y [T,B,D·H]; with train also input dy [T,B,D·H] -> outputs dx and a gradient for each
 * parameter, named d and its name. NULL after an error, which has been named on stderr.
 */
unroll_graph *build_layer_graph(const layer_values *values);
/* Random values for inputs and parameters; the names and shapes are the graph's. */
unroll_status fill_layer_binding(unroll_graph *graph, int32_t cell, unroll_binding *binding, unroll_error *err);
/* What is planned for that share of the standard saved values; of one direction. False: none is asked for. */
bool layer_checkpoints(const layer_values *values, unroll_checkpoint_policy *policy, unroll_checkpoint_plan_info *plan);
unroll_rnn_options layer_rnn_options(const layer_values *values); /* without checkpoints */
int32_t layer_cell(const layer_values *values);                   /* UNROLL_CELL_* */
/* Floating-point operations of the products of one run, the gradients' included. */
double layer_flops(const layer_values *values);

#endif
