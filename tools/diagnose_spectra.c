/* SPDX-License-Identifier: Apache-2.0 */
/* Spectra of the recurrent matrices, a gate at a time. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unroll/diagnose.h>

#include "console.h"
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

/* From so many rows on all eigenvalues take LAPACK the better part of a minute: the leading ones alone then. */
#define LEADING_ROWS 2048
#define LEADING_VALUES 32
#define LEADING_RESTARTS 10
#define LEADING_ERROR 1e-6 /* of the radius, by the condition; what is worse is left to LAPACK */

typedef struct matrix_spectrum {
  double *re, *im; /* [n] */
  int64_t n;
  double radius, norm, departure;
  bool leading; /* only those: there are more */
} matrix_spectrum;

static unroll_status leading_ones(const double *W, int64_t H, matrix_spectrum *s, unroll_error *err) {
  const unroll_operator a = {.struct_size = sizeof a, .rows = H, .columns = H, .matrix = W};
  const unroll_iteration_options o = {
      .struct_size = sizeof o, .conditions = 1, .basis = 8 * LEADING_VALUES, .restarts = LEADING_RESTARTS};
  unroll_leading_eigenvalue found[LEADING_VALUES];
  const unroll_status status = unroll_leading_eigenvalues(&a, LEADING_VALUES, &o, found, NULL, err);
  if (status != UNROLL_OK)
    return status;
  for (int i = 0; i < LEADING_VALUES; i++) {
    s->re[i] = found[i].real;
    s->im[i] = found[i].imaginary;
  }
  s->n = LEADING_VALUES;
  s->leading = found[0].residual * found[0].condition <= LEADING_ERROR * hypot(s->re[0], s->im[0]);
  return s->leading ? UNROLL_OK : UNROLL_E_RANGE;
}

static unroll_status measure(const double *W, int64_t H, matrix_spectrum *s, unroll_error *err) {
  s->leading = false;
  s->departure = NAN;
  unroll_status status = H >= LEADING_ROWS ? leading_ones(W, H, s, err) : UNROLL_E_RANGE;
  if (status == UNROLL_E_UNSUPPORTED)
    tell("all %" PRId64 " eigenvalues of a matrix are computed, which takes its time: %s", H, err->message);
  if (status != UNROLL_OK) {
    s->n = H;
    status = unroll_eigenvalues(W, H, s->re, s->im, err);
    if (status == UNROLL_OK)
      status = unroll_departure_from_normality(W, H, s->re, s->im, &s->departure, err);
  }
  s->radius = hypot(s->re[0], s->im[0]);
  return status == UNROLL_OK ? unroll_spectral_norm(W, H, H, &s->norm, err) : status;
}

static json_t *spectrum(diagnosis *d, const layer_view *l, int64_t gate, const double *W, matrix_spectrum *s,
                        unroll_error *err) {
  const int64_t n = layer_output_size(l);
  char name[48];
  snprintf(name, sizeof name, "%sW_h%s%s", l->options.projection ? "W_r·" : "", layer_gates(l) > 1 ? " of gate " : "",
           layer_gates(l) > 1 ? layer_gate(l, gate).name : "");
  if (measure(W, n, s, err) != UNROLL_OK)
    return NULL;
  json_t *eigenvalues = json_array();
  for (int64_t i = 0; i < s->n; i++)
    json_array_append_new(eigenvalues, diagnose_numbers((double[]){s->re[i], s->im[i]}, 2));
  if (s->leading)
    diagnose_missing(d, "spectra",
                     "%s, %s: the departure from normality needs all %" PRId64
                     " eigenvalues; of that many rows only the %d leading ones are computed",
                     l->name, name, n, LEADING_VALUES);
  return json_pack("{s:s, s:s, s:I, s:b, s:o, s:o, s:o, s:o}", "layer", l->name, "matrix", name, "rows", (json_int_t)n,
                   "leading", (int)s->leading, "radius", diagnose_number(s->radius), "norm", diagnose_number(s->norm),
                   "departure", s->leading ? json_null() : diagnose_number(s->departure), "eigenvalues", eigenvalues);
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
    double *const room = malloc((size_t)(2 * n) * sizeof *room);
    for (int64_t gate = 0; gate < layer_gates(l); gate++) {
      unroll_error err = UNROLL_ERROR_INIT;
      if (interrupt_asked() || !room) {
        diagnose_missing(d, "spectra", "%s: %s", l->name, room ? "interrupted" : "out of memory");
        break;
      }
      matrix_spectrum found = {.re = room, .im = room + n};
      double *const W = recurrent(l, gate);
      json_t *const one = W ? spectrum(d, l, gate, W, &found, &err) : NULL;
      free(W);
      if (!one) {
        diagnose_missing(d, "spectra", "%s, gate %s: %s", l->name, layer_gate(l, gate).name,
                         W ? err.message : "out of memory");
        continue;
      }
      json_array_append_new(all, one);
      if (layer_gate_is_main(l, gate)) {
        diagnose_figures(d, l)->radius = found.radius;
        d->spectra[2 * k] = found.radius;
        d->spectra[2 * k + 1] = found.norm;
      }
    }
    free(room);
  }
  json_object_set_new(d->report, "spectra", all);
}
