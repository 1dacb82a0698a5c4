/* SPDX-License-Identifier: Apache-2.0 */
/* nn_gate_names.c: what the gates of a cell are called, between which numbers they lie, and which of them keeps the state. */
#include "nn/nn_private.h"
#include <math.h>
#include <string.h>

typedef struct named {
  const char *name;
  char activation; /* 'f' or 'g'; 's': a sigmoid, whatever the options say */
  int8_t keeps;
} named;

static const named *gates_of(int32_t cell, int64_t *n) {
  static const named rnn[] = {{"state", 'f', 0}};
  static const named lstm[] = {
      {"input", 'f', 0}, {"forget", 'f', UNROLL_KEEPS}, {"candidate", 'g', 0}, {"output", 'f', 0}};
  static const named gru[] = {{"reset", 'f', 0}, {"update", 'f', UNROLL_KEEPS}, {"candidate", 'g', 0}};
  static const named coupled[] = {{"input", 'f', UNROLL_KEEPS_REST}, {"candidate", 'g', 0}, {"output", 'f', 0}};
  static const named min_gru[] = {{"update", 's', UNROLL_KEEPS_REST}, {"candidate", 'g', 0}};
  static const named min_lstm[] = {{"forget", 's', UNROLL_KEEPS}, {"input", 's', 0}, {"candidate", 'g', 0}};
  static const struct {
    int32_t cell;
    const named *gates;
    int64_t n;
  } all[] = {{UNROLL_CELL_RNN, rnn, 1},         {UNROLL_CELL_LSTM, lstm, 4},           {UNROLL_CELL_GRU, gru, 3},
             {UNROLL_CELL_GRU_AFTER, gru, 3},   {UNROLL_RNN_COUPLED_LSTM, coupled, 3}, {UNROLL_RNN_MIN_GRU, min_gru, 2},
             {UNROLL_RNN_MIN_LSTM, min_lstm, 3}};
  *n = 0;
  for (size_t i = 0; i < sizeof all / sizeof *all; i++)
    if (all[i].cell == cell) {
      *n = all[i].n;
      return all[i].gates;
    }
  return NULL;
}

int64_t unroll_gate_count(int32_t cell) {
  int64_t n;
  gates_of(cell, &n);
  return n;
}

/* Of a function that rises; alpha below 0 turns some of them round. */
static void range_of(const unroll_activation *a, double *low, double *high) {
  const double none = (double)INFINITY, size = fabs(a->alpha);
  *low = -none;
  *high = none;
  switch (a->kind) {
  case UNROLL_ACTIVATION_TANH:
  case UNROLL_ACTIVATION_SOFTSIGN:
    *low = -1;
    *high = 1;
    break;
  case UNROLL_ACTIVATION_SIGMOID:
  case UNROLL_ACTIVATION_HARD_SIGMOID:
    *low = 0;
    *high = 1;
    break;
  case UNROLL_ACTIVATION_SCALED_TANH:
    *low = -size;
    *high = size;
    break;
  case UNROLL_ACTIVATION_RELU:
  case UNROLL_ACTIVATION_SOFTPLUS: *low = 0; break;
  case UNROLL_ACTIVATION_THRESHOLDED_RELU: *low = a->alpha < 0 ? a->alpha : 0; break;
  case UNROLL_ACTIVATION_ELU: *low = a->alpha > 0 ? -a->alpha : 0; break;
  case UNROLL_ACTIVATION_LEAKY_RELU: *low = a->alpha > 0 ? -none : 0; break;
  default: break;
  }
}

/* What stands there where the options name none. */
static int32_t own_activation(const unroll_rnn_options *o, char which) {
  if (o->cell == UNROLL_CELL_RNN)
    return o->activation == UNROLL_RELU      ? UNROLL_ACTIVATION_RELU
           : o->activation == UNROLL_SIGMOID ? UNROLL_ACTIVATION_SIGMOID
                                             : UNROLL_ACTIVATION_TANH;
  const bool minimal = o->cell == UNROLL_RNN_MIN_GRU || o->cell == UNROLL_RNN_MIN_LSTM;
  return which != 'g' ? UNROLL_ACTIVATION_SIGMOID : minimal ? UNROLL_ACTIVATION_IDENTITY : UNROLL_ACTIVATION_TANH;
}

static unroll_activation activation_of(const unroll_rnn_options *o, char which) {
  const unroll_activation given = which == 'f' ? o->f : which == 'g' ? o->g : unroll_activation_of(0);
  return given.kind == UNROLL_ACTIVATION_DEFAULT ? unroll_activation_of(own_activation(o, which)) : given;
}

unroll_status unroll_gate_of(const unroll_rnn_options *options, int64_t gate, unroll_gate *what, unroll_error *err) {
  if (!options || !UNROLL_HAS(unroll_rnn_options, options, lengths) || !what || what->struct_size < sizeof *what)
    return fail(err, UNROLL_E_INVALID, "unroll_gate_of: %s, or too small a struct_size",
                options ? "the gate is NULL" : "the options are NULL");
  int64_t n;
  const named *all = gates_of(options->cell, &n);
  if (gate < 0 || gate >= n)
    return fail(err, UNROLL_E_RANGE, "gate %lld of cell %d, which has %lld", (long long)gate, options->cell,
                (long long)n);
  unroll_rnn_options o = {.struct_size = sizeof o};
  memcpy(&o, options, options->struct_size < sizeof o ? options->struct_size : sizeof o);
  const unroll_activation of = activation_of(&o, all[gate].activation);
  if (of.kind < 0 || of.kind >= UNROLL_ACTIVATION_COUNT)
    return fail(err, UNROLL_E_RANGE, "gate %s: its activation is %d, expected UNROLL_ACTIVATION_*", all[gate].name,
                of.kind);
  what->name = all[gate].name;
  what->keeps = all[gate].keeps;
  range_of(&of, &what->low, &what->high);
  return UNROLL_OK;
}
