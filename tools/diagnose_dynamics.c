/* SPDX-License-Identifier: Apache-2.0 */
/* A layer as a dynamical system: fixed and slow points under its mean input, Lyapunov exponents along the real one. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unroll/diagnose.h>
#include <unroll/philox.h>

#include "console.h"
#include "diagnosis.h"

#define NOISE 0.1   /* of a start, in units of the state's own deviation */
#define FIXED 1e-20 /* q of what counts as a fixed point; */
#define SLOW 1e-8   /* of a slow one. States of size 1 move by 1e-4 there in a step. */
#define NEAR 1e-4   /* slow points of one valley */
#define AXES 3
#define PASSES 100 /* of the subspace iteration */
#define MOST_PATH 4000
#define MOST_STATE 1024 /* numbers: a search is cubic in them */
#define WORK 4e10       /* products of numbers that the searches of a layer may take, by default */
#define STARTS 256
#define EVERY 10 /* steps between two QR */
#define EXPONENTS 16

static const char *why_of(const unroll_error *err) {
  return err->code == UNROLL_E_CANCELLED ? "interrupted" : err->message;
}

static unroll_status map_of(diagnosis *d, const layer_activity *a, const double *x, int64_t steps, unroll_map **map,
                            unroll_error *err) {
  return unroll_map_of_layer(&d->network.network, a->layer->layer, a->layer->direction, x, steps,
                             diagnose_double_device(d), NULL, map, err);
}

/* ---- principal components of the visited states (Jolliffe 2002), by subspace iteration ---- */

struct portrait {
  int64_t n;
  double *mean, *axes; /* [n], [AXES,n] */
  double share[AXES], deviation;
};

static double dot(const double *a, const double *b, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; i++)
    sum += a[i] * b[i];
  return sum;
}

/* Gram and Schmidt, once more for what rounding leaves. */
static void orthonormalise(double *axes, int64_t k, int64_t n) {
  for (int64_t a = 0; a < k; a++)
    for (int pass = 0; pass < 2; pass++) {
      double *const v = axes + a * n;
      for (int64_t b = 0; b < a; b++) {
        const double along = dot(v, axes + b * n, n);
        for (int64_t i = 0; i < n; i++)
          v[i] -= along * axes[b * n + i];
      }
      const double length = sqrt(dot(v, v, n));
      for (int64_t i = 0; i < n; i++)
        v[i] = length > 1e-300 ? v[i] / length : 0;
    }
}

/* states [T,n] of all sequences, one after the other. false: out of memory. */
static bool make_portrait(const double *states, int64_t T, int64_t n, uint64_t seed, struct portrait *p) {
  const int64_t k = n < AXES ? n : AXES;
  double *const next = calloc((size_t)(AXES * n), sizeof *next);
  double total = 0;
  *p = (struct portrait){
      .n = n, .mean = calloc((size_t)n, sizeof(double)), .axes = calloc((size_t)(AXES * n), sizeof(double))};
  if (!p->mean || !p->axes || !next) {
    free(next);
    return false;
  }
  for (int64_t t = 0; t < T; t++)
    for (int64_t i = 0; i < n; i++)
      p->mean[i] += states[t * n + i] / (double)T;
  for (int64_t t = 0; t < T; t++)
    for (int64_t i = 0; i < n; i++)
      total += (states[t * n + i] - p->mean[i]) * (states[t * n + i] - p->mean[i]) / (double)T;
  p->deviation = sqrt(total / (double)n);
  const unroll_philox_key key = unroll_philox_site_key(seed, 0, 1);
  for (int64_t i = 0; i < k * n; i++)
    p->axes[i] = unroll_normal(key, (unroll_u64)(i / n), 0, (unroll_u32)(i % n));
  orthonormalise(p->axes, k, n);
  for (int pass = 0; pass < PASSES && total > 0; pass++) {
    memset(next, 0, (size_t)(AXES * n) * sizeof *next);
    memset(p->share, 0, sizeof p->share);
    for (int64_t t = 0; t < T; t++)
      for (int64_t a = 0; a < k; a++) {
        const double *const s = states + t * n;
        const double along = dot(p->axes + a * n, s, n) - dot(p->axes + a * n, p->mean, n);
        for (int64_t i = 0; i < n; i++)
          next[a * n + i] += along * (s[i] - p->mean[i]);
        p->share[a] += along * along / (double)T / total;
      }
    memcpy(p->axes, next, (size_t)(k * n) * sizeof *next);
    orthonormalise(p->axes, k, n);
  }
  free(next);
  return true;
}

static json_t *place_of(const struct portrait *p, const double *state) {
  double place[AXES];
  for (int a = 0; a < AXES; a++)
    place[a] = dot(p->axes + a * p->n, state, p->n) - dot(p->axes + a * p->n, p->mean, p->n);
  return diagnose_numbers(place, AXES);
}

/* ---- fixed points ---- */

/* All visited states that are finite, [*T,n], to be freed; and the mean input [I]. NULL: none, or no memory. */
static double *gather(const diagnosis *d, const layer_activity *a, double *input, int64_t *T) {
  const int64_t n = layer_state_size(a->layer), I = a->of->I;
  int64_t all = 0;
  for (int64_t i = 0; i < d->data.n; i++)
    all += d->data.lengths[i];
  double *const states = malloc((size_t)(all * n) * sizeof *states);
  *T = 0;
  for (int64_t i = 0; states && i < d->data.n; i++)
    for (int64_t t = 0; t < d->data.lengths[i]; t++) {
      double *const s = states + *T * n;
      bool finite = true;
      activity_state(d, a, i, t, s);
      for (int64_t k = 0; k < n; k++)
        finite = finite && isfinite(s[k]);
      *T += finite; /* else the next one takes its place */
      for (int64_t k = 0; k < I; k++)
        input[k] += activity_x(d, a, i, t)[k] / (double)all;
    }
  return states;
}

/* By default as many starts as take about WORK products. */
static int64_t count_starts(const diagnosis *d, int64_t n) {
  if (d->values->starts > 0)
    return d->values->starts;
  const double each = 30 * pow((double)n, 3); /* about 15 steps of two such products */
  const double most = WORK / each;
  return most < 4 ? 4 : most > STARTS ? STARTS : (int64_t)most;
}

static void make_starts(const diagnosis *d, const struct portrait *p, const double *states, int64_t T, int64_t n_starts,
                        double *starts) {
  const unroll_philox_key key = unroll_philox_site_key((uint64_t)d->values->seed, 0, 0);
  for (int64_t i = 0; i < n_starts; i++)
    for (int64_t k = 0; k < p->n; k++)
      starts[i * p->n + k] = states[(i * T / n_starts) * p->n + k] +
                             NOISE * p->deviation * unroll_normal(key, (unroll_u64)i, 0, (unroll_u32)k);
}

/* Is h between -1 and 1, whatever came before? What comes out of a tanh or sigmoid is, and what lies between such values. */
static bool is_bounded(const layer_view *l) {
  const unroll_rnn_options *o = &l->options;
  bool within = o->skip == 0 && o->residual != UNROLL_RESIDUAL_STATES && o->projection == 0;
  for (int64_t gate = 0; gate < layer_gates(l); gate++) {
    const unroll_gate is = layer_gate(l, gate);
    const bool main = layer_gate_is_main(l, gate);
    within = within && is.high <= 1 && ((main && layer_is_lstm(l)) || is.low >= (main ? -1 : 0));
  }
  const int32_t h = o->h.kind;
  return within &&
         (!layer_is_lstm(l) || h == UNROLL_ACTIVATION_DEFAULT || h == UNROLL_ACTIVATION_TANH ||
          h == UNROLL_ACTIVATION_SIGMOID || h == UNROLL_ACTIVATION_HARD_SIGMOID || h == UNROLL_ACTIVATION_SOFTSIGN);
}

/* Are these n numbers of h within -1 and 1? Outside of such bounds a gru's z may stand at 1, and anything is "fixed". */
static bool is_within(const double *h, int64_t n) {
  for (int64_t k = 0; k < n; k++)
    if (fabs(h[k]) > 1 + 1e-9)
      return false;
  return true;
}

/* Takes the points that can't be reached out; how many are left. */
static int64_t keep_reachable(const layer_view *l, double *points, unroll_fixed_point *found, int64_t n_found,
                              int64_t n) {
  int64_t kept = 0;
  if (!is_bounded(l))
    return n_found;
  for (int64_t i = 0; i < n_found; i++)
    if (is_within(points + i * n, layer_output_size(l))) {
      memmove(points + kept * n, points + i * n, (size_t)n * sizeof *points);
      found[kept++] = found[i];
    }
  return kept;
}

static json_t *points_json(const struct portrait *p, const double *points, const unroll_fixed_point *found, int64_t n,
                           int64_t kinds[3], int64_t *slow) {
  json_t *all = json_array();
  for (int64_t i = 0; i < n; i++) {
    const unroll_fixed_point *f = &found[i];
    if (f->speed <= FIXED)
      kinds[f->unstable == 0 ? 0 : f->unstable == p->n ? 2 : 1]++;
    else
      ++*slow;
    json_array_append_new(all, json_pack("{s:o, s:o, s:I, s:I, s:o}", "speed", diagnose_number(f->speed), "radius",
                                         diagnose_number(f->radius), "unstable", (json_int_t)f->unstable, "starts",
                                         (json_int_t)f->starts, "place", place_of(p, points + i * p->n)));
  }
  return all;
}

static json_t *trajectory(const diagnosis *d, const layer_activity *a, const struct portrait *p) {
  json_t *all = json_array();
  double *const state = calloc((size_t)p->n, sizeof *state);
  for (int64_t t = 0; state && t < d->data.lengths[0] && t < MOST_PATH; t++) {
    activity_state(d, a, 0, t, state);
    json_array_append_new(all, place_of(p, state));
  }
  free(state);
  return all;
}

/* NULL and *err: none. */
static json_t *search(diagnosis *d, const layer_activity *a, const struct portrait *p, const double *states, int64_t T,
                      const double *input, unroll_error *err) {
  const int64_t n = p->n, n_starts = count_starts(d, n);
  double *const starts = malloc((size_t)(n_starts * n) * sizeof *starts);
  double *const points = malloc((size_t)(n_starts * n) * sizeof *points);
  unroll_fixed_point *const found = calloc((size_t)n_starts, sizeof *found);
  const unroll_fixed_point_options o = {
      .struct_size = sizeof o, .speed = SLOW, .distance = NEAR, .cancel = diagnose_cancel};
  int64_t n_found = 0, kinds[3] = {0}, slow = 0;
  unroll_map *map = NULL;
  json_t *one = NULL;
  unroll_status status = UNROLL_E_MEMORY;
  snprintf(err->message, sizeof err->message, "out of memory");
  if (starts && points && found) {
    make_starts(d, p, states, T, n_starts, starts);
    status = map_of(d, a, input, 1, &map, err);
    if (status == UNROLL_OK)
      status = unroll_fixed_points(map, starts, n_starts, &o, points, found, &n_found, err);
  }
  const bool cut = status == UNROLL_E_CANCELLED && n_found > 0; /* what was found stands */
  if (status == UNROLL_OK || cut) {
    const int64_t kept = keep_reachable(a->layer, points, found, n_found, n);
    json_t *list = points_json(p, points, found, kept, kinds, &slow);
    one = json_pack("{s:s, s:s, s:I, s:o, s:o, s:o, s:{s:I, s:I, s:I}, s:I, s:I}", "layer", a->layer->name, "input",
                    "the mean of the data's", "tried", (json_int_t)n_starts, "points", list, "axes",
                    diagnose_numbers(p->share, AXES), "trajectory", trajectory(d, a, p), "class", "stable",
                    (json_int_t)kinds[0], "saddle", (json_int_t)kinds[1], "source", (json_int_t)kinds[2], "slow",
                    (json_int_t)slow, "unreachable", (json_int_t)(n_found - kept));
    if (cut)
      json_object_set_new(one, "partial", json_true());
  }
  unroll_map_destroy(map);
  free(starts);
  free(points);
  free(found);
  return one;
}

static json_t *fixed_points(diagnosis *d, const layer_activity *a) {
  const int64_t n = layer_state_size(a->layer), I = a->of->I;
  double *const input = calloc((size_t)I + 1, sizeof *input);
  int64_t T = 0;
  double *const states = input ? gather(d, a, input, &T) : NULL;
  struct portrait p = {.n = n};
  unroll_error err = UNROLL_ERROR_INIT;
  json_t *one = NULL;
  if (n > MOST_STATE && d->values->starts == 0)
    diagnose_missing(d, "fixed_points", "%s: a state of %" PRId64 " numbers; --starts N searches all the same",
                     a->layer->name, n);
  else if (states && T == 0)
    diagnose_missing(d, "fixed_points", "%s: no state is finite", a->layer->name);
  else if (!states || !make_portrait(states, T, n, (uint64_t)d->values->seed, &p))
    diagnose_missing(d, "fixed_points", "%s: out of memory", a->layer->name);
  else if (!(one = search(d, a, &p, states, T, input, &err)))
    diagnose_missing(d, "fixed_points", "%s: %s", a->layer->name, why_of(&err));
  free(p.mean);
  free(p.axes);
  free(states);
  free(input);
  return one;
}

void diagnose_fixed_points(diagnosis *d) {
  json_t *all = json_array();
  for (size_t k = 0; k < d->n_activities; k++) {
    json_t *one = fixed_points(d, &d->activities[k]);
    if (one)
      json_array_append_new(all, one);
  }
  json_object_set_new(d->report, "fixed_points", all);
}

/* ---- Lyapunov exponents ---- */

/* The inputs of all sequences, one after the other: the state goes on from one to the next. */
static double *join(const diagnosis *d, const layer_activity *a, int64_t *T) {
  const int64_t I = a->of->I;
  *T = 0;
  for (int64_t i = 0; i < d->data.n; i++)
    *T += d->data.lengths[i];
  double *const x = malloc((size_t)(*T * I + 1) * sizeof *x);
  double *at = x;
  for (int64_t i = 0; x && i < d->data.n; i++)
    for (int64_t t = 0; t < d->data.lengths[i]; t++, at += I)
      memcpy(at, activity_x(d, a, i, t), (size_t)I * sizeof *x);
  return x;
}

static json_t *exponents(diagnosis *d, const layer_activity *a, const double *x, int64_t T, double *room,
                         unroll_layer_figures *f, unroll_error *err) {
  const int64_t n = layer_state_size(a->layer), most = d->values->exponents ? d->values->exponents : EXPONENTS;
  unroll_lyapunov_options o = {.struct_size = sizeof o,
                               .count = most < n ? most : n,
                               .steps = d->values->exponent_steps,
                               .every = EVERY,
                               .transient = d->values->exponent_steps / 5,
                               .seed = (uint64_t)d->values->seed,
                               .cancel = diagnose_cancel};
  unroll_lyapunov_info info = {.struct_size = sizeof info};
  unroll_map *map = NULL;
  json_t *one = NULL;
  double *const values = room + n, *const errors = room + 2 * n;
  unroll_status status = map_of(d, a, x, T, &map, err);
  do { /* directions that are hardly apart any more: decompose more often */
    memset(room, 0, (size_t)n * sizeof *room);
    if (status == UNROLL_OK)
      status = unroll_lyapunov(map, room, &o, values, errors, &info, err);
  } while (status == UNROLL_OK && info.condition > 1e12 && o.every > 1 && (o.every = 1));
  if (status == UNROLL_OK) {
    f->exponent = values[0];
    f->exponent_error = errors[0];
    one = json_pack("{s:s, s:o, s:o, s:o, s:o, s:I, s:I, s:I, s:o}", "layer", a->layer->name, "exponents",
                    diagnose_numbers(values, o.count), "errors", diagnose_numbers(errors, o.count), "entropy",
                    diagnose_number(info.entropy), "dimension", diagnose_number(info.dimension), "steps",
                    (json_int_t)o.steps, "transient", (json_int_t)o.transient, "every", (json_int_t)o.every,
                    "condition", diagnose_number(info.condition));
  }
  unroll_map_destroy(map);
  return one;
}

void diagnose_lyapunov(diagnosis *d) {
  json_t *all = json_array();
  for (size_t k = 0; k < d->n_activities; k++) {
    const layer_activity *a = &d->activities[k];
    const int64_t n = layer_state_size(a->layer);
    int64_t T;
    double *const x = join(d, a, &T), *const room = calloc((size_t)(3 * n), sizeof *room);
    unroll_error err = UNROLL_ERROR_INIT;
    json_t *one = NULL;
    snprintf(err.message, sizeof err.message, "out of memory");
    if (x && room)
      one = exponents(d, a, x, T, room, diagnose_figures(d, a->layer), &err);
    if (one)
      json_array_append_new(all, one);
    else
      diagnose_missing(d, "lyapunov", "%s: %s", a->layer->name, why_of(&err));
    free(x);
    free(room);
  }
  json_object_set_new(d->report, "lyapunov", all);
}
