/* SPDX-License-Identifier: Apache-2.0 */
#include "layer_view.h"

#include <stdio.h>
#include <string.h>

/* ---- what a layer is ---- */

bool layer_is_lstm(const layer_view *l) {
  return l->options.cell == UNROLL_CELL_LSTM || l->options.cell == UNROLL_RNN_COUPLED_LSTM;
}

bool layer_is_minimal(const layer_view *l) {
  return l->options.cell == UNROLL_RNN_MIN_GRU || l->options.cell == UNROLL_RNN_MIN_LSTM;
}

/* Of a cell, in the order of its row blocks. */
static const char *const *gates_of(int32_t cell) {
  static const char *const rnn[] = {"state", NULL}, *const lstm[] = {"input", "forget", "candidate", "output", NULL};
  static const char *const gru[] = {"reset", "update", "candidate", NULL};
  static const char *const coupled[] = {"input", "candidate", "output", NULL};
  static const char *const min_gru[] = {"update", "candidate", NULL};
  static const char *const min_lstm[] = {"forget", "input", "candidate", NULL};
  switch (cell) {
  case UNROLL_CELL_RNN: return rnn;
  case UNROLL_CELL_LSTM: return lstm;
  case UNROLL_RNN_COUPLED_LSTM: return coupled;
  case UNROLL_RNN_MIN_GRU: return min_gru;
  case UNROLL_RNN_MIN_LSTM: return min_lstm;
  default: return gru;
  }
}

int64_t layer_gates(const layer_view *l) {
  int64_t n = 0;
  while (gates_of(l->options.cell)[n])
    n++;
  return n;
}

int64_t layer_output_size(const layer_view *l) {
  return l->options.projection ? l->options.projection : l->options.hidden;
}

int64_t layer_state_size(const layer_view *l) {
  return layer_output_size(l) + (layer_is_lstm(l) ? l->options.hidden : 0);
}

const char *layer_gate_name(const layer_view *l, int64_t gate) { return gates_of(l->options.cell)[gate]; }

unroll_activation layer_gate_activation(const layer_view *l, int64_t gate) {
  const bool candidate = strcmp(layer_gate_name(l, gate), "candidate") == 0;
  const unroll_activation *said = candidate ? &l->options.g : &l->options.f;
  if (said->kind)
    return *said;
  return unroll_activation_of(l->options.cell == UNROLL_CELL_RNN ? UNROLL_ACTIVATION_TANH
                              : !candidate                       ? UNROLL_ACTIVATION_SIGMOID
                              : layer_is_minimal(l)              ? UNROLL_ACTIVATION_IDENTITY
                                                                 : UNROLL_ACTIVATION_TANH);
}

bool layer_gate_is_sigmoid(const layer_view *l, int64_t gate) {
  return layer_gate_activation(l, gate).kind == UNROLL_ACTIVATION_SIGMOID;
}

/* ---- maps ---- */

static unroll_status step(void *ctx, int64_t t, const double *state, double *next, double *jacobian,
                          unroll_error *err) {
  const layer_map *m = ctx;
  if (!m->stop || !m->stop())
    return unroll_map_step(m->own, t, state, next, jacobian, err);
  err->code = UNROLL_E_CANCELLED;
  snprintf(err->message, sizeof err->message, "interrupted");
  return UNROLL_E_CANCELLED;
}

unroll_status layer_map_open(layer_map *m, const layer_view *layer, const double *x, int64_t steps, bool (*stop)(void),
                             unroll_error *err) {
  const unroll_cell_extras *e = &layer->extras;
  unroll_cell_weights w = layer->weights;
  w.x = x;
  w.steps = x ? steps : 1;
  *m = (layer_map){.stop = stop};
  const bool plain = !e->linear && !e->ln_x && !e->p_i && e->zoneout_h == 0 && e->zoneout_c == 0;
  const unroll_status status =
      plain ? unroll_map_of_cell(&w, NULL, &m->own, err) : unroll_map_of_layer(&w, e, NULL, &m->own, err);
  return status == UNROLL_OK ? unroll_map_create(layer_state_size(layer), step, m, NULL, &m->map, err) : status;
}

void layer_map_close(layer_map *m) {
  unroll_map_destroy(m->map);
  unroll_map_destroy(m->own);
}
