/* SPDX-License-Identifier: Apache-2.0 */
/* Spectra of the recurrent matrices, a gate at a time. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unroll/diagnose.h>

#include "diagnosis.h"
#include "interrupt.h"

/* A gate's block of W_h, from h to itself: with a projection W_r times it. [P,P] to be freed; NULL: no memory. */
static double *recurrent(const layer_view *l, int64_t gate) {
  const int64_t H = l->options.hidden, P = layer_output_size(l);
  const double *const W = layer_data(l, "W_h") + gate * H * P, *const W_r = layer_data(l, "W_r");
  double *const all = calloc((size_t)(P * P), sizeof *all);
  for (int64_t i = 0; all && W_r && i < P; i++)
    for (int64_t k = 0; k < H; k++)
      for (int64_t j = 0; j < P; j++)
        all[i * P + j] += W_r[i * H + k] * W[k * P + j];
  if (all && !W_r)
    memcpy(all, W, (size_t)(P * P) * sizeof *all);
  return all;
}

static json_t *spectrum(const layer_view *l, int64_t gate, const double *W, double *re, double *im, double *singular,
                        double *found, unroll_error *err) {
  const int64_t n = layer_output_size(l);
  double departure;
  char name[48];
  if (unroll_eigenvalues(W, n, re, im, err) != UNROLL_OK ||
      unroll_singular_values(W, n, n, singular, err) != UNROLL_OK ||
      unroll_departure_from_normality(W, n, re, im, &departure, err) != UNROLL_OK)
    return NULL;
  found[0] = hypot(re[0], im[0]);
  found[1] = singular[0];
  json_t *eigenvalues = json_array();
  for (int64_t i = 0; i < n; i++)
    json_array_append_new(eigenvalues, diagnose_numbers((double[]){re[i], im[i]}, 2));
  snprintf(name, sizeof name, "%sW_h%s%s", l->options.projection ? "W_r·" : "", layer_gates(l) > 1 ? " of gate " : "",
           layer_gates(l) > 1 ? layer_gate(l, gate).name : "");
  return json_pack("{s:s, s:s, s:o, s:o, s:o, s:o}", "layer", l->name, "matrix", name, "radius",
                   diagnose_number(found[0]), "norm", diagnose_number(found[1]), "departure",
                   diagnose_number(departure), "eigenvalues", eigenvalues);
}

void diagnose_spectra(diagnosis *d) {
  json_t *all = json_array();
  for (size_t k = 0; k < d->model.n; k++) {
    const layer_view *l = &d->model.layers[k];
    const int64_t n = layer_output_size(l);
    if (layer_is_minimal(l)) {
      diagnose_missing(d, "spectra", "%s: the cell %s has no W_h", l->name, unroll_rnn_cell_name(l->options.cell));
      continue;
    }
    double *const room = malloc((size_t)(3 * n) * sizeof *room);
    for (int64_t gate = 0; gate < layer_gates(l); gate++) {
      unroll_error err = UNROLL_ERROR_INIT;
      double found[2]; /* radius, norm */
      json_t *one = NULL;
      if (interrupt_asked() || !room) {
        diagnose_missing(d, "spectra", "%s: %s", l->name, room ? "interrupted" : "out of memory");
        break;
      }
      double *const W = recurrent(l, gate);
      one = W ? spectrum(l, gate, W, room, room + n, room + 2 * n, found, &err) : NULL;
      free(W);
      if (!one) {
        diagnose_missing(d, "spectra", "%s, gate %s: %s", l->name, layer_gate(l, gate).name,
                         W ? err.message : "out of memory");
        continue;
      }
      json_array_append_new(all, one);
      if (layer_gate_is_main(l, gate)) {
        diagnose_figures(d, l)->radius = found[0];
        memcpy(d->spectra + 2 * k, found, sizeof found);
      }
    }
    free(room);
  }
  json_object_set_new(d->report, "spectra", all);
}
