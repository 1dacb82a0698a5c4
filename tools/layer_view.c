/* SPDX-License-Identifier: Apache-2.0 */
#include "layer_view.h"

#include <string.h>

bool layer_is_lstm(const layer_view *l) {
  return l->options.cell == UNROLL_CELL_LSTM || l->options.cell == UNROLL_RNN_COUPLED_LSTM;
}

bool layer_is_minimal(const layer_view *l) {
  return l->options.cell == UNROLL_RNN_MIN_GRU || l->options.cell == UNROLL_RNN_MIN_LSTM;
}

int64_t layer_gates(const layer_view *l) { return unroll_gate_count(l->options.cell); }

int64_t layer_output_size(const layer_view *l) {
  return l->options.projection ? l->options.projection : l->options.hidden;
}

int64_t layer_state_size(const layer_view *l) {
  return layer_output_size(l) + (layer_is_lstm(l) ? l->options.hidden : 0);
}

unroll_gate layer_gate(const layer_view *l, int64_t gate) {
  unroll_gate what = {.struct_size = sizeof what, .name = ""};
  unroll_gate_of(&l->options, gate, &what, NULL); /* a view's options are checked as they are read */
  return what;
}

bool layer_gate_is_main(const layer_view *l, int64_t gate) {
  return l->options.cell == UNROLL_CELL_RNN || strcmp(layer_gate(l, gate).name, "candidate") == 0;
}

const double *layer_data(const layer_view *l, const char *what) {
  for (size_t i = 0; i < l->n_tensors; i++)
    if (strcmp(l->tensors[i].what, what) == 0)
      return l->tensors[i].data;
  return NULL;
}
