/* SPDX-License-Identifier: Apache-2.0 */
/* The options that every `unroll train ...` has, with their meaning for the library. */
#ifndef TRAIN_OPTIONS_H
#define TRAIN_OPTIONS_H
#include <unroll/train.h>

#include "options.h"

/* A member `train` of a command's values. */
typedef struct train_values {
  const char *out, *resume, *log, *tensorboard;
  bool watch;
  const char *optimizer, *schedule, *nonfinite, *freeze, *l2;
  int64_t updates, seed, evaluate_every, batch, accumulate, warmup, patience;
  double epochs, minutes, lr, momentum, weight_decay, decay, lr_min, schedule_epochs, clip, validation;
  double loss_scale; /* 0: dynamic */
  double recurrent_decay;
  /* of the recurrent layers */
  const char *cell;
  int64_t hidden, layers;
  double dropout, input_dropout, weight_dropout, state_dropout, zoneout_h, zoneout_c;
  bool same_mask, layer_norm, peepholes;
  const char *activation, *gate_activation, *candidate_activation, *output_activation, *residual;
  int64_t projection;
  double gate_clip, cell_clip, skip, layer_norm_epsilon;
  bool check_finite;
  const char *checkpoint;
} train_values;

#define INTEGER(name_, argument_, offset_, standard_, min_, max_, help_)                                    \
  {                                                                                                         \
    .type = OPTION_INTEGER, .name = name_, .argument = argument_, .offset = offset_, .standard = standard_, \
    .min = min_, .max = max_, .help = help_                                                                 \
  }
#define NUMBER(name_, offset_, standard_, range_, help_)                                                     \
  {                                                                                                          \
    .type = OPTION_NUMBER, .name = name_, .argument = "X", .offset = offset_, .standard = standard_, range_, \
    .help = help_                                                                                            \
  }
#define ABOVE_0 .min = 1e-300, .max = 1e300, .expected = "a number above 0"
#define FROM_0 .min = 0, .max = 1e300, .expected = "a number, 0 or more"
#define BELOW_1 .min = 0, .max = 1 - 1e-9, .expected = "a number from 0 to less than 1"
#define ANY .min = -1e300, .max = 1e300, .expected = "a number"
#define HEADING(help_) \
  { .type = OPTION_HEADING, .help = help_ }
#define TEXT(name_, argument_, offset_, help_) \
  { .type = OPTION_TEXT, .name = name_, .argument = argument_, .offset = offset_, .help = help_ }
#define CHOICE(name_, argument_, offset_, standard_, choices_, help_)                                      \
  {                                                                                                        \
    .type = OPTION_CHOICE, .name = name_, .argument = argument_, .offset = offset_, .standard = standard_, \
    .choices = choices_, .help = help_                                                                     \
  }

/* data: "the same text"; pace: the key of the log. */
#define OPTIONS_TRAIN_FILES(T, data, pace)                                                                             \
  TEXT("out", "M.safetensors", offsetof(T, train.out), "the model; M.best.safetensors is the best one by validation"), \
      TEXT("resume", "M.safetensors", offsetof(T, train.resume),                                                       \
           "go on where that model was saved, with " data "; saved there without --out"),                              \
      TEXT("log", "F.jsonl", offsetof(T, train.log),                                                                   \
           "a JSON object per update: update, loss, lr, grad_norm, " pace "; loss_scale, where it is dynamic; "        \
           "spectral radii, where --watch or --tensorboard have them"),                                                \
      TEXT(                                                                                                            \
          "tensorboard", "DIR", offsetof(T, train.tensorboard),                                                        \
          "a new event file in that folder: scalars of each update; at each validation spectral radii and histograms " \
          "of weights and gradients; this configuration"),                                                             \
      FLAG("watch", offsetof(T, train.watch),                                                                          \
           "loss, gradient norm, spectral radius and time as curves, in a terminal")

#define OPTIONS_TRAIN_LIMITS(T, data)                                                                                 \
  HEADING("how long, until the first limit is reached (default --epochs 10)"),                                        \
      NUMBER("epochs", offsetof(T, train.epochs), NULL, ABOVE_0,                                                      \
             "passes over " data ", counted from the first run on"),                                                  \
      INTEGER("updates", "N", offsetof(T, train.updates), NULL, 0, (double)INT64_MAX,                                 \
              "updates, counted from the first run on; 0: saves the new model as it is"),                             \
      NUMBER("minutes", offsetof(T, train.minutes), NULL, ABOVE_0, "minutes of this run"),                            \
      INTEGER("patience", "N", offsetof(T, train.patience), NULL, 1, 1e9,                                             \
              "validations in a row that are no better than the best one; counted on with --resume where it is given" \
              " again")

#define FLAG(name_, offset_, help_) \
  { .type = OPTION_FLAG, .name = name_, .offset = offset_, .help = help_ }

/* The recurrent layers, cell, hidden and layers the standards. */
#define OPTIONS_TRAIN_LAYERS(T, cell_, hidden_, layers_)                                                             \
  CHOICE("cell", "C", offsetof(T, train.cell), cell_, "rnn lstm gru gru_after coupled_lstm min_gru min_lstm",        \
         "what a layer is made of"),                                                                                 \
      INTEGER("hidden", "N", offsetof(T, train.hidden), hidden_, 1, 16384, "units of a layer and direction"),        \
      INTEGER("layers", "N", offsetof(T, train.layers), layers_, 1, 16, "layers, one above the other"),              \
      INTEGER("projection", "N", offsetof(T, train.projection), "0", 0, 16384,                                       \
              "lstm, coupled_lstm: width of h after a projection W_r; 0: none"),                                     \
      CHOICE("residual", "R", offsetof(T, train.residual), "none", "none outputs states",                            \
             "connections around the layers that give as many numbers as they read, to their outputs or to their "   \
             "states"),                                                                                              \
      NUMBER("skip", offsetof(T, train.skip), "0", ANY,                                                              \
             "connection from state to state: X times the h before it is added to h"),                               \
      FLAG("layer-norm", offsetof(T, train.layer_norm), "layer normalisation within the cells"),                     \
      NUMBER("layer-norm-epsilon", offsetof(T, train.layer_norm_epsilon), NULL, ABOVE_0,                             \
             "added to the variance (default 1e-5)"),                                                                \
      FLAG("peepholes", offsetof(T, train.peepholes), "lstm, coupled_lstm: gates see the cell state"),               \
      TEXT("activation", "A", offsetof(T, train.activation),                                                         \
           "rnn: tanh (default), relu, leaky_relu, elu, modrelu, softsign, softplus, sigmoid, identity and others; " \
           "A=ALPHA,BETA where its formula has them"),                                                               \
      TEXT("gate-activation", "A", offsetof(T, train.gate_activation),                                               \
           "cells with gates: what makes a gate (default sigmoid)"),                                                 \
      TEXT("candidate-activation", "A", offsetof(T, train.candidate_activation),                                     \
           "cells with gates: of what they let in (default tanh; of min_gru and min_lstm identity)"),                \
      TEXT("output-activation", "A", offsetof(T, train.output_activation),                                           \
           "lstm, coupled_lstm: of the cell state that the output gate lets out (default tanh)"),                    \
      NUMBER("gate-clip", offsetof(T, train.gate_clip), "0", FROM_0,                                                 \
             "bound of what goes into the activations of gates; 0: none"),                                           \
      NUMBER("cell-clip", offsetof(T, train.cell_clip), "0", FROM_0,                                                 \
             "lstm, coupled_lstm: bound of the cell state; 0: none")

/* of_last: what else --dropout is of. */
#define OPTIONS_TRAIN_DROPOUTS(T, of_last)                                                                      \
  HEADING("dropout, each the part of values that is dropped"),                                                  \
      NUMBER("dropout", offsetof(T, train.dropout), "0", BELOW_1, "of each layer's output" of_last),            \
      NUMBER("input-dropout", offsetof(T, train.input_dropout), "0", BELOW_1, "of what the first layer reads"), \
      FLAG("same-mask", offsetof(T, train.same_mask), "these two have one mask for all steps of an update"),    \
      NUMBER("weight-dropout", offsetof(T, train.weight_dropout), "0", BELOW_1,                                 \
             "of the recurrent matrices, one mask an update"),                                                  \
      NUMBER("state-dropout", offsetof(T, train.state_dropout), "0", BELOW_1,                                   \
             "of the state where the recurrent matrix reads it, one mask for all steps of an update"),          \
      NUMBER("zoneout-h", offsetof(T, train.zoneout_h), "0", BELOW_1,                                           \
             "of the state: units that keep their value of the step before"),                                   \
      NUMBER("zoneout-c", offsetof(T, train.zoneout_c), "0", BELOW_1,                                           \
             "lstm, coupled_lstm: likewise of the cell state")

#define OPTION_TRAIN_CHECKPOINT(T)                                                                                 \
  TEXT("checkpoint", "P", offsetof(T, train.checkpoint),                                                           \
       "less memory for more time, the same numbers: of the states within a sequence keep every=K (every K-th), "  \
       "sqrt (every square root of their number), or what is best within bytes=N (K, M, G for 10^3, 10^6, 10^9); " \
       "the rest is made again (default: all)")

/* An update, from the batch on; batch: what it is a number of. */
#define OPTIONS_TRAIN_UPDATES(T, batch_, standard_batch)                                                               \
  INTEGER("batch", "B", offsetof(T, train.batch), standard_batch, 1, 65536, batch_),                                   \
      INTEGER("accumulate", "N", offsetof(T, train.accumulate), "1", 1, 65536,                                         \
              "parts that a batch is worked through in, in less memory; the same update but for rounding; must "       \
              "divide the batch"),                                                                                     \
      CHOICE("optimizer", "O", offsetof(T, train.optimizer), "adam", "sgd rmsprop adam adamw",                         \
             "how gradients become updates"),                                                                          \
      NUMBER("lr", offsetof(T, train.lr), "0.002", ABOVE_0, "learning rate, at first"),                                \
      NUMBER("momentum", offsetof(T, train.momentum), "0.9", BELOW_1, "of sgd"),                                       \
      NUMBER("weight-decay", offsetof(T, train.weight_decay), "0", FROM_0, "pull of the parameters to 0"),             \
      INTEGER("warmup", "N", offsetof(T, train.warmup), "0", 0, INT32_MAX,                                             \
              "updates in which the learning rate rises from 0 to --lr in a line, before the schedule begins"),        \
      CHOICE("schedule", "S", offsetof(T, train.schedule), "constant", "constant time exponential cosine",             \
             "how the learning rate changes over epochs"),                                                             \
      NUMBER("decay", offsetof(T, train.decay), NULL, FROM_0,                                                          \
             "of the schedules time: lr/(1 + X·epoch) (default 0.1), and exponential: lr·X^epoch (default 0.9)"),      \
      NUMBER("lr-min", offsetof(T, train.lr_min), "0", FROM_0, "where the schedule cosine ends"),                      \
      NUMBER("schedule-epochs", offsetof(T, train.schedule_epochs), NULL, ABOVE_0,                                     \
             "how long the schedule cosine takes (default: until the first run's limit)"),                             \
      NUMBER("clip", offsetof(T, train.clip), "1", FROM_0, "greatest norm of all gradients together; 0: as it comes"), \
      {.type = OPTION_NUMBER,                                                                                          \
       .name = "loss-scale",                                                                                           \
       .argument = "X|dynamic",                                                                                        \
       .offset = offsetof(T, train.loss_scale),                                                                        \
       .standard = "1",                                                                                                \
       .word = "dynamic",                                                                                              \
       .min = 1,                                                                                                       \
       .max = 0x1p126,                                                                                                 \
       .expected = "a number from 1 to 2^126, or dynamic",                                                             \
       .help = "factor of the loss while gradients are made, for devices that compute with half precision; dynamic: "  \
               "from 65536 on, halved and the update skipped where gradients overflow, doubled after 2000 updates "    \
               "without"},                                                                                             \
      CHOICE("nonfinite", "P", offsetof(T, train.nonfinite), "stop", "stop skip",                                      \
             "what an update does whose loss or gradient is no finite number; both say where it was"),                 \
      TEXT("freeze", "PATTERNS", offsetof(T, train.freeze),                                                            \
           "parameters that are not trained, by name, as the shell matches files: 'embedding.*,rnn.*.0.0'"),           \
      TEXT("l2", "PATTERN=X,...", offsetof(T, train.l2),                                                               \
           "adds X times the sum of squares of these parameters to what is minimised, not to what is reported: "       \
           "'rnn.W_h.*=1e-4,linear.W=1e-4'"),                                                                          \
      NUMBER("recurrent-decay", offsetof(T, train.recurrent_decay), "0", BELOW_1,                                      \
             "part of the recurrent matrices W_h that each update takes away, whatever the learning rate")

#define OPTIONS_TRAIN_VALIDATION(T, part, standard_part)                                                           \
  NUMBER("validation-fraction", offsetof(T, train.validation), standard_part, BELOW_1, part),                      \
      INTEGER("evaluate-every", "N", offsetof(T, train.evaluate_every), "0", 0, (double)INT64_MAX,                 \
              "updates from one validation to the next; 0: at the end of each epoch"),                             \
      FLAG("check-finite", offsetof(T, train.check_finite),                                                        \
           "where a loss or a gradient is not finite, make that update once more and say which layer, direction, " \
           "step, "                                                                                                \
           "gate, sequence and unit was the first; the model of before it is saved")

/* The checks beyond the table; of_the_model: further options that a model's file holds, so that --resume excludes them. */
bool train_check_usage(const command_spec *command, const void *values, const train_values *train,
                       const char *const *of_the_model, size_t n);
/* Of a new model, or of a resumed one, where only what was given changes. */
void train_set_schedule(const command_spec *command, const void *values, const train_values *train,
                        unroll_schedule *schedule);
bool train_changes_schedule(const command_spec *command, const void *values);
/* How a new model is trained; texts stay where they are. */
unroll_training train_training(const command_spec *command, const void *values, const train_values *train);
/* train_layers.c: the options of recurrent layers. Do they fit each other and the cell? Said on stderr; part of
 * train_check_usage. */
bool train_check_layers(const command_spec *command, const void *values, const train_values *train);
/* All of it was checked. */
unroll_recurrent train_recurrent(const train_values *train);
/* Cell, layers and units, and after `more` the options of cells: "lstm, 2 layers of 128 units, layer norm". */
void train_tell_model(const unroll_recurrent *rnn, const char *before, const char *more, uint64_t n_parameters);
/* Lines of activations, bounds and paths, and of dropouts: of what is not as it is without being asked for. */
void train_tell_layers(const unroll_recurrent *rnn);
/* These, and the same of the training, on stderr. unit: what a batch is a number of. */
void train_tell_more(const unroll_recurrent *rnn, const unroll_training *training, const char *unit);
/* One file under two names would be lost: a text that is also the log, say. */
bool train_is_same_file(const char *a, const char *b);
/* Would `data` be overwritten, or one output by another? Said on stderr. what: "the text". */
bool train_check_files(const train_values *train, const char *const *data, size_t n, const char *what);
/* How data were asked for, to be asked for again: a file, then options. */
#define TRAIN_WORDS 9 /* at most */
typedef struct train_words {
  const char *at[TRAIN_WORDS];
  size_t n;
} train_words;
/* Option and value, unless it is NULL or the standard, if there is one. */
void train_add_words(train_words *words, const char *option, const char *value, const char *standard);
/* A word as the shell takes it, after a space. */
void train_print_word(FILE *out, const char *word);

#endif
