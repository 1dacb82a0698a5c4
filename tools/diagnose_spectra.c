/* SPDX-License-Identifier: Apache-2.0 */
/* Spectra of the recurrent matrices, a gate at a time. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unroll/activity.h>

#include "diagnosis.h"
#include "interrupt.h"

/* The matrix that the word spectral radius is meant of: an rnn's, or that of the candidate, which makes the new state. */
static bool is_main(const layer_view *l, int64_t gate) {
  return l->weights.cell == UNROLL_CELL_RNN || strcmp(layer_gate_name(l, gate), "candidate") == 0;
}

static json_t *spectrum(const layer_view *l, int64_t gate, double *re, double *im, double *singular, double *found,
                        unroll_error *err) {
  const int64_t H = l->weights.hidden;
  const double *const W = l->weights.W_h + gate * H * H;
  double departure;
  char name[48] = "W_h";
  if (unroll_eigenvalues(W, H, re, im, err) != UNROLL_OK ||
      unroll_singular_values(W, H, H, singular, err) != UNROLL_OK ||
      unroll_departure_from_normality(W, H, re, im, &departure, err) != UNROLL_OK)
    return NULL;
  found[0] = hypot(re[0], im[0]);
  found[1] = singular[0];
  json_t *eigenvalues = json_array();
  for (int64_t i = 0; i < H; i++)
    json_array_append_new(eigenvalues, diagnose_numbers((double[]){re[i], im[i]}, 2));
  if (layer_gates(l) > 1)
    snprintf(name, sizeof name, "W_h of gate %s", layer_gate_name(l, gate));
  return json_pack("{s:s, s:s, s:o, s:o, s:o, s:o}", "layer", l->name, "matrix", name, "radius",
                   diagnose_number(found[0]), "norm", diagnose_number(found[1]), "departure",
                   diagnose_number(departure), "eigenvalues", eigenvalues);
}

void diagnose_spectra(diagnosis *d) {
  json_t *all = json_array();
  for (size_t k = 0; k < d->model.n; k++) {
    const layer_view *l = &d->model.layers[k];
    const int64_t H = l->weights.hidden;
    double *const room = malloc((size_t)(3 * H) * sizeof *room);
    for (int64_t gate = 0; gate < layer_gates(l); gate++) {
      unroll_error err = UNROLL_ERROR_INIT;
      double found[2]; /* radius, norm */
      json_t *one = NULL;
      if (interrupt_asked() || !room) {
        diagnose_missing(d, "spectra", "%s: %s", l->name, room ? "interrupted" : "out of memory");
        break;
      }
      one = spectrum(l, gate, room, room + H, room + 2 * H, found, &err);
      if (!one) {
        diagnose_missing(d, "spectra", "%s, gate %s: %s", l->name, layer_gate_name(l, gate), err.message);
        continue;
      }
      json_array_append_new(all, one);
      if (is_main(l, gate)) {
        diagnose_figures(d, l)->radius = found[0];
        memcpy(d->spectra + 2 * k, found, sizeof found);
      }
    }
    free(room);
  }
  json_object_set_new(d->report, "spectra", all);
}
