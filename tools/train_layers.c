/* SPDX-License-Identifier: Apache-2.0 */
/* The options of `unroll train ...` that say what the recurrent layers are. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "console.h"
#include "train_options.h"

/* ---- what options say ---- */

/* "every=16", "sqrt", "bytes=100M", "all". */
static bool parse_checkpoint(const char *text, unroll_checkpoint_policy *p) {
  *p = (unroll_checkpoint_policy){.struct_size = sizeof *p};
  const size_t n = strcspn(text, "=");
  while (p->kind < UNROLL_CHECKPOINT_COUNT &&
         (strlen(unroll_checkpoint_name(p->kind)) != n || strncmp(text, unroll_checkpoint_name(p->kind), n) != 0))
    p->kind++;
  if (p->kind == UNROLL_CHECKPOINT_COUNT)
    return false;
  if (p->kind != UNROLL_CHECKPOINT_EVERY && p->kind != UNROLL_CHECKPOINT_BYTES)
    return !text[n];
  if (!text[n] || text[n + 1] < '0' || text[n + 1] > '9')
    return false;
  char *end;
  errno = 0;
  const unsigned long long number = strtoull(text + n + 1, &end, 10);
  const uint64_t unit = *end == 'K' ? 1000 : *end == 'M' ? 1000000 : *end == 'G' ? 1000000000 : 1;
  if (errno || number == 0 || number > INT64_MAX / unit || end[unit > 1] ||
      (p->kind == UNROLL_CHECKPOINT_EVERY && unit > 1))
    return false;
  if (p->kind == UNROLL_CHECKPOINT_EVERY)
    p->every = (int64_t)number;
  else
    p->bytes = number * unit;
  return true;
}

/* How many of alpha and beta a formula has. */
static size_t numbers_of(int32_t activation) {
  switch (activation) {
  case UNROLL_ACTIVATION_AFFINE:
  case UNROLL_ACTIVATION_SCALED_TANH:
  case UNROLL_ACTIVATION_HARD_SIGMOID: return 2;
  case UNROLL_ACTIVATION_LEAKY_RELU:
  case UNROLL_ACTIVATION_THRESHOLDED_RELU:
  case UNROLL_ACTIVATION_ELU: return 1;
  default: return 0;
  }
}

/* "leaky_relu", "leaky_relu=0.2", "hard_sigmoid=0.25,0.5". False: no activation, or numbers that it does not have. */
static bool parse_activation(const char *text, unroll_activation *a) {
  const size_t n = strcspn(text, "=");
  int32_t kind = UNROLL_ACTIVATION_DEFAULT + 1;
  while (kind < UNROLL_ACTIVATION_COUNT &&
         (strlen(unroll_activation_name(kind)) != n || strncmp(text, unroll_activation_name(kind), n) != 0))
    kind++;
  *a = unroll_activation_of(kind);
  const char *at = text + n;
  double *const numbers[] = {&a->alpha, &a->beta};
  for (size_t i = 0; *at; i++) {
    char number[48];
    const size_t length = strcspn(++at, ",");
    if (i == numbers_of(kind) || length >= sizeof number)
      return false;
    memcpy(number, at, length);
    number[length] = '\0';
    if (!option_parse_number(number, numbers[i]))
      return false;
    at += length;
  }
  return kind < UNROLL_ACTIVATION_COUNT;
}

static bool check_activation(const char *option, const char *text) {
  char known[300] = "";
  unroll_activation a;
  if (!text || parse_activation(text, &a))
    return true;
  for (int32_t kind = UNROLL_ACTIVATION_DEFAULT + 1; kind < UNROLL_ACTIVATION_COUNT; kind++) {
    static const char *const numbers[] = {"", "[=ALPHA]", "[=ALPHA,BETA]"};
    const size_t n = strlen(known);
    snprintf(known + n, sizeof known - n, "%s%s%s", n ? ", " : "", unroll_activation_name(kind),
             numbers[numbers_of(kind)]);
  }
  complain("--%s: '%s', expected one of %s", option, text, known);
  return false;
}

static int32_t cell_code(const char *name) {
  for (int32_t cell = 1; cell < UNROLL_RNN_END; cell++)
    if (unroll_rnn_cell_name(cell) && strcmp(unroll_rnn_cell_name(cell), name) == 0)
      return cell;
  return UNROLL_CELL_NONE;
}

/* ---- what fits what ---- */

static bool check_cell(const command_spec *command, const void *values, const train_values *train) {
  const int32_t cell = cell_code(train->cell);
  const bool rnn = cell == UNROLL_CELL_RNN, lstm = cell == UNROLL_CELL_LSTM || cell == UNROLL_RNN_COUPLED_LSTM;
  const bool minimal = cell == UNROLL_RNN_MIN_GRU || cell == UNROLL_RNN_MIN_LSTM;
  static const char lstms[] = "lstm and coupled_lstm", gates[] = "cells with gates",
                    states[] = "cells whose gates see the state before";
  const struct {
    const char *option, *whose;
    bool had;
  } all[] = {{"peepholes", lstms, lstm},
             {"zoneout-c", lstms, lstm},
             {"projection", lstms, lstm},
             {"cell-clip", lstms, lstm},
             {"output-activation", lstms, lstm},
             {"candidate-activation", gates, !rnn},
             {"gate-activation", minimal ? states : gates, !rnn && !minimal},
             {"activation", "rnn", rnn},
             {"gate-clip", states, !minimal},
             {"layer-norm", states, !minimal},
             {"skip", states, !minimal},
             {"weight-dropout", states, !minimal},
             {"state-dropout", states, !minimal},
             {"zoneout-h", states, !minimal},
             {"checkpoint", states, !minimal}};
  for (size_t i = 0; i < COUNT(all); i++)
    if (!all[i].had && option_was_given(command, values, all[i].option)) {
      complain("--%s is of %s, but --cell is %s", all[i].option, all[i].whose, train->cell);
      return false;
    }
  if (minimal && strcmp(train->residual, "states") == 0) {
    complain("--residual states is of %s, but --cell is %s", states, train->cell);
    return false;
  }
  return true;
}

bool train_check_layers(const command_spec *command, const void *values, const train_values *train) {
  unroll_checkpoint_policy policy;
  if (train->checkpoint && !parse_checkpoint(train->checkpoint, &policy)) {
    complain("--checkpoint: '%s', expected all, sqrt, every=K or bytes=N, where N may end in K, M or G",
             train->checkpoint);
    return false;
  }
  if (train->resume)
    return true;
  if (!check_activation("activation", train->activation) ||
      !check_activation("gate-activation", train->gate_activation) ||
      !check_activation("candidate-activation", train->candidate_activation) ||
      !check_activation("output-activation", train->output_activation) || !check_cell(command, values, train))
    return false;
  const char *const modrelu = train->gate_activation && strcmp(train->gate_activation, "modrelu") == 0 ? "gate"
                              : train->candidate_activation && strcmp(train->candidate_activation, "modrelu") == 0
                                  ? "candidate"
                              : train->output_activation && strcmp(train->output_activation, "modrelu") == 0 ? "output"
                                                                                                             : NULL;
  if (modrelu) {
    complain("--%s-activation modrelu: only --activation can be it, of --cell rnn", modrelu);
    return false;
  }
  if (option_was_given(command, values, "layer-norm-epsilon") && !train->layer_norm) {
    complain("--layer-norm-epsilon is of --layer-norm, which is not given");
    return false;
  }
  return true;
}

/* ---- for the library ---- */

static unroll_activation activation_of(const char *text) {
  unroll_activation a = {.kind = UNROLL_ACTIVATION_DEFAULT};
  if (text)
    (void)parse_activation(text, &a);
  return a;
}

unroll_recurrent train_recurrent(const train_values *train) {
  unroll_checkpoint_policy checkpoint = {.struct_size = sizeof checkpoint};
  const char *const f = train->activation ? train->activation : train->gate_activation;
  if (train->checkpoint)
    parse_checkpoint(train->checkpoint, &checkpoint);
  return (unroll_recurrent){.cell = cell_code(train->cell),
                            .same_mask = train->same_mask,
                            .layers = train->layers,
                            .hidden = train->hidden,
                            .dropout = train->dropout,
                            .input_dropout = train->input_dropout,
                            .weight_dropout = train->weight_dropout,
                            .state_dropout = train->state_dropout,
                            .zoneout_h = train->zoneout_h,
                            .zoneout_c = train->zoneout_c,
                            .layer_norm = train->layer_norm,
                            .peepholes = train->peepholes,
                            .checkpoint = checkpoint,
                            .f = activation_of(f),
                            .g = activation_of(train->candidate_activation),
                            .h = activation_of(train->output_activation),
                            .clip = train->gate_clip,
                            .cell_clip = train->cell_clip,
                            .projection = train->projection,
                            .layer_norm_epsilon = train->layer_norm_epsilon,
                            .skip = train->skip,
                            .residual = strcmp(train->residual, "outputs") == 0  ? UNROLL_RESIDUAL_OUTPUTS
                                        : strcmp(train->residual, "states") == 0 ? UNROLL_RESIDUAL_STATES
                                                                                 : UNROLL_RESIDUAL_NONE};
}

/* ---- what stands on stderr before ---- */

void train_tell_model(const unroll_recurrent *rnn, const char *before, const char *more, uint64_t n_parameters) {
  char projection[48] = "";
  if (rnn->projection > 0)
    snprintf(projection, sizeof projection, " projected to %" PRId64, rnn->projection);
  tell("model     %s%s, %" PRId64 " layer%s of %" PRId64 " units%s%s%s%s; %" PRIu64 " parameters", before,
       unroll_rnn_cell_name(rnn->cell), rnn->layers, rnn->layers == 1 ? "" : "s", rnn->hidden, projection, more,
       rnn->layer_norm ? ", layer norm" : "", rnn->peepholes ? ", peepholes" : "", n_parameters);
}

/* ", leaky_relu 0.2" behind what stands there already. */
static void add_activation(char *line, size_t size, const char *of, const unroll_activation *a) {
  const size_t at = strlen(line), numbers = numbers_of(a->kind);
  if (a->kind == UNROLL_ACTIVATION_DEFAULT)
    return;
  int n = snprintf(line + at, size - at, "%s%s %s", at ? ", " : "", of, unroll_activation_name(a->kind));
  if (numbers > 0)
    n += snprintf(line + at + n, size - at - (size_t)n, " %g", a->alpha);
  if (numbers > 1)
    snprintf(line + at + n, size - at - (size_t)n, " %g", a->beta);
}

static void tell_cells(const unroll_recurrent *r) {
  char line[300] = "";
  const bool rnn = r->cell == UNROLL_CELL_RNN;
  const struct {
    const char *name;
    double value;
  } all[] = {{"gates clipped to", r->clip}, {"cell state clipped to", r->cell_clip}, {"skip", r->skip}};
  add_activation(line, sizeof line, rnn ? "activation" : "gates", &r->f);
  add_activation(line, sizeof line, "candidate", &r->g);
  add_activation(line, sizeof line, "output", &r->h);
  for (size_t i = 0; i < COUNT(all); i++) {
    const size_t n = strlen(line);
    if (all[i].value != 0)
      snprintf(line + n, sizeof line - n, "%s%s %g", n ? ", " : "", all[i].name, all[i].value);
  }
  const size_t n = strlen(line);
  if (r->residual)
    snprintf(line + n, sizeof line - n, "%sresidual %s", n ? ", " : "",
             r->residual == UNROLL_RESIDUAL_OUTPUTS ? "outputs" : "states");
  if (line[0])
    tell("cells     %s", line);
}

/* "dropout   input 0.1, state 0.2", of those that are not 0. */
static void tell_dropouts(const unroll_recurrent *r) {
  const struct {
    const char *name;
    double p;
  } all[] = {{"outputs", r->dropout},     {"input", r->input_dropout}, {"weights", r->weight_dropout},
             {"state", r->state_dropout}, {"zoneout h", r->zoneout_h}, {"zoneout c", r->zoneout_c}};
  char line[200] = "";
  for (size_t i = 0; i < COUNT(all); i++) {
    const size_t n = strlen(line);
    if (all[i].p > 0)
      snprintf(line + n, sizeof line - n, "%s%s %g", n ? ", " : "", all[i].name, all[i].p);
  }
  if (line[0])
    tell("dropout   %s%s", line, r->same_mask ? "; one mask for all steps" : "");
}

void train_tell_layers(const unroll_recurrent *rnn) {
  tell_cells(rnn);
  tell_dropouts(rnn);
}
