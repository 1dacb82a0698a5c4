/* SPDX-License-Identifier: Apache-2.0 */
#include "radii.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unroll/diagnose.h>

#include "console.h"

static double seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Letters of the gates that have a W_h, in the library's order; "" where there is one matrix. */
static const char *const *gate_names(int32_t cell) {
  static const char *const one[] = {"", NULL}, *const lstm[] = {"i", "f", "g", "o", NULL};
  static const char *const coupled[] = {"i", "g", "o", NULL}, *const gru[] = {"r", "z", "n", NULL};
  return cell == UNROLL_CELL_RNN           ? one
         : cell == UNROLL_CELL_LSTM        ? lstm
         : cell == UNROLL_RNN_COUPLED_LSTM ? coupled
                                           : gru;
}

/* As the i-th of a round. */
static bool keep(radii *r, uint32_t i, radius found) {
  if (i == r->capacity) {
    const uint32_t capacity = r->capacity ? 2 * r->capacity : 16;
    radius *const grown = realloc(r->all, capacity * sizeof *grown);
    if (!grown)
      return false;
    r->all = grown;
    r->capacity = capacity;
  }
  r->all[i] = found;
  return true;
}

/* One piece of a round: where it is, and until when it takes up matrices. */
typedef struct piece {
  uint32_t i;
  double end;
  bool is_over;
} piece;

static uint32_t count_gates(const radii *r) {
  uint32_t G = 0;
  for (const char *const *names = gate_names(r->cell); names[G];)
    G++;
  return G;
}

/* W_h [G·H,P], of W_r [P,H] or NULL, whose P is H; square [P,P] is written over. */
static unroll_status look_at_gates(radii *r, piece *now, const unroll_train_parameter *p, const float *W_h,
                                   const float *W_r, double *square, unroll_error *err) {
  const uint32_t G = count_gates(r);
  const int64_t P = p->shape[1], H = p->shape[0] / G;
  for (uint32_t g = 0; g < G; g++, now->i++) {
    if (now->i < r->at)
      continue;
    now->is_over = now->i > r->at && seconds() >= now->end;
    if (now->is_over)
      return UNROLL_OK;
    radius found = {.name = p->name, .gate = gate_names(r->cell)[g], .value = NAN};
    const float *W = W_h + g * H * P;
    memset(square, 0, (size_t)(P * P) * sizeof *square);
    for (int64_t i = 0; i < P; i++)
      for (int64_t k = W_r ? 0 : i; k < (W_r ? H : i + 1); k++) {
        const double factor = W_r ? (double)W_r[i * H + k] : 1;
        for (int64_t j = 0; j < P; j++)
          square[i * P + j] += factor * (double)W[k * P + j];
      }
    const unroll_status status = unroll_spectral_radius(square, P, &found.value, err);
    if (status != UNROLL_OK && status != UNROLL_E_RANGE)
      return status;
    if (status != UNROLL_OK)
      found.value = NAN;
    if (!keep(r, now->i, found))
      return UNROLL_E_MEMORY;
  }
  return UNROLL_OK;
}

/* To be freed; NULL: no memory, or it can't be read. */
static float *read_parameter(const unroll_train_parameters *all, uint32_t i, uint64_t count, unroll_error *err) {
  float *values = malloc(count * sizeof *values);
  if (values && unroll_train_parameters_read(all, i, values, err) == UNROLL_OK)
    return values;
  free(values);
  return NULL;
}

/* The W_r of the same layer and direction as this W_h. false: there is none. */
static bool find_projection(const unroll_train_parameters *all, const char *W_h, uint32_t *at,
                            unroll_train_parameter *p) {
  const char *mark = strstr(W_h, "W_h.");
  const size_t before = mark ? (size_t)(mark - W_h) : 0;
  for (uint32_t i = 0; mark && i < unroll_train_parameters_count(all); i++) {
    *p = (unroll_train_parameter){.struct_size = sizeof *p};
    *at = i;
    if (unroll_train_parameters_get(all, i, p, NULL) == UNROLL_OK && strncmp(p->name, W_h, before) == 0 &&
        strncmp(p->name + before, "W_r.", 4) == 0 && strcmp(p->name + before + 4, mark + 4) == 0)
      return true;
  }
  return false;
}

static unroll_status look(radii *r, const unroll_train_parameters *all, unroll_error *err) {
  piece now = {.end = seconds() + RADII_PIECE};
  const uint32_t gates = count_gates(r);
  for (uint32_t i = 0; i < unroll_train_parameters_count(all) && !now.is_over; i++) {
    unroll_train_parameter p = {.struct_size = sizeof p}, back;
    unroll_status status = unroll_train_parameters_get(all, i, &p, err);
    uint32_t at;
    if (status != UNROLL_OK)
      return status;
    if (!p.recurrent || p.rank != 2)
      continue;
    if (now.i + gates <= r->at) { /* known of this round */
      now.i += gates;
      continue;
    }
    const bool projected = find_projection(all, p.name, &at, &back);
    float *W_h = read_parameter(all, i, p.count, err),
          *W_r = projected ? read_parameter(all, at, back.count, err) : NULL;
    double *square = malloc((size_t)(p.shape[1] * p.shape[1]) * sizeof *square);
    status = W_h && square && (W_r || !projected) ? look_at_gates(r, &now, &p, W_h, W_r, square, err)
             : err->code != UNROLL_OK             ? err->code
                                                  : UNROLL_E_MEMORY;
    free(W_h);
    free(W_r);
    free(square);
    if (status != UNROLL_OK)
      return status;
  }
  r->at = now.is_over ? now.i : 0;
  r->n = now.is_over ? r->n : now.i;
  return UNROLL_OK;
}

static bool is_due(const radii *r, const unroll_train_progress *p) {
  const bool at_validation = p->evaluated || p->final;
  return p->seconds >= r->next || (at_validation && r->cost <= RADII_SECONDS);
}

/* LAPACK is loaded at its first use, which must not count as the price of a radius. */
static unroll_status start(radii *r, unroll_error *err) {
  double one = 1;
  r->started = true;
  return unroll_spectral_radius(&one, 1, &one, err);
}

bool radii_look(radii *r, const unroll_train_progress *p) {
  if (r->failed || !is_due(r, p))
    return false;
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_status status = r->started ? UNROLL_OK : start(r, &err);
  const double before = seconds();
  if (status == UNROLL_OK)
    status = look(r, p->parameters, &err);
  r->cost = seconds() - before;
  r->next = p->seconds + r->cost / RADII_SHARE;
  if (status == UNROLL_OK)
    return r->at == 0 && r->n > 0;
  r->failed = true;
  r->n = 0;
  complain("no spectral radii: %s", err.code != UNROLL_OK ? err.message : "no memory");
  return false;
}

const radius *radii_largest(const radii *r) {
  const radius *largest = NULL;
  for (uint32_t i = 0; i < r->n; i++)
    if (!largest || isnan(r->all[i].value) || r->all[i].value > largest->value)
      largest = &r->all[i];
  return largest;
}

void radii_free(radii *r) { free(r->all); }
