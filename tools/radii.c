/* SPDX-License-Identifier: Apache-2.0 */
#include "radii.h"

#include <math.h>
#include <stdlib.h>
#include <time.h>
#include <unroll/diagnose.h>

#include "console.h"

static double seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* The gates of a cell, by their number; their order is the library's. */
static const char *gate_name(int64_t gates, int64_t i) {
  static const char *const gru[] = {"r", "z", "n"}, *const lstm[] = {"i", "f", "g", "o"};
  return gates == 3 ? gru[i] : gates == 4 ? lstm[i] : "";
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

/* values [gates·H,H] */
static unroll_status look_at_gates(radii *r, piece *now, const unroll_train_parameter *p, const float *values,
                                   double *square, unroll_error *err) {
  const int64_t H = p->shape[1], gates = p->shape[0] / H;
  for (int64_t g = 0; g < gates; g++, now->i++) {
    if (now->i < r->at)
      continue;
    now->is_over = now->i > r->at && seconds() >= now->end;
    if (now->is_over)
      return UNROLL_OK;
    radius found = {.name = p->name, .gate = gate_name(gates, g), .value = NAN};
    for (int64_t i = 0; i < H * H; i++)
      square[i] = (double)values[g * H * H + i];
    const unroll_status status = unroll_spectral_radius(square, H, &found.value, err);
    if (status != UNROLL_OK && status != UNROLL_E_RANGE)
      return status;
    if (status != UNROLL_OK)
      found.value = NAN;
    if (!keep(r, now->i, found))
      return UNROLL_E_MEMORY;
  }
  return UNROLL_OK;
}

static unroll_status look(radii *r, const unroll_train_parameters *all, unroll_error *err) {
  piece now = {.end = seconds() + RADII_PIECE};
  for (uint32_t i = 0; i < unroll_train_parameters_count(all) && !now.is_over; i++) {
    unroll_train_parameter p = {.struct_size = sizeof p};
    unroll_status status = unroll_train_parameters_get(all, i, &p, err);
    if (status != UNROLL_OK)
      return status;
    if (!p.recurrent || p.rank != 2 || p.shape[1] == 0 || p.shape[0] % p.shape[1] != 0)
      continue;
    const uint32_t gates = (uint32_t)(p.shape[0] / p.shape[1]);
    if (now.i + gates <= r->at) { /* known of this round */
      now.i += gates;
      continue;
    }
    float *values = malloc(p.count * sizeof *values);
    double *square = malloc((size_t)(p.shape[1] * p.shape[1]) * sizeof *square);
    status = values && square ? unroll_train_parameters_read(all, i, values, err) : UNROLL_E_MEMORY;
    if (status == UNROLL_OK)
      status = look_at_gates(r, &now, &p, values, square, err);
    free(values);
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
