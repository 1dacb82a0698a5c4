/* SPDX-License-Identifier: Apache-2.0 */
/* The network run over the data, in double: gates and units. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "console.h"
#include "diagnosis.h"

#define LOW 0.1 /* of a sigmoid; a tanh's ends are past -0.9 and 0.9 */
#define HIGH 0.9
#define BINS 20
#define MOST_COLUMNS 40 /* of a histogram by step */
#define QUANTILES 21
#define MOST_TOKENS 500
#define MOST_NUMBERS 1e9

static double *room(int64_t n) { return calloc((size_t)n + 1, sizeof(double)); }

/* ---- running ---- */

/* Where sequence i's step t, in the direction in which the layer reads, stands in [T,n,..]. */
static int64_t row_of(const diagnosis *d, const layer_activity *a, int64_t i, int64_t t) {
  return (a->layer->direction ? d->data.lengths[i] - 1 - t : t) * d->data.n + i;
}
const double *activity_x(const diagnosis *d, const layer_activity *a, int64_t i, int64_t t) {
  return a->of->x + row_of(d, a, i, t) * a->of->I;
}
const double *activity_gates(const diagnosis *d, const layer_activity *a, int64_t i, int64_t t) {
  return a->of->gates + row_of(d, a, i, t) * a->of->G * a->of->H;
}
void activity_state(const diagnosis *d, const layer_activity *a, int64_t i, int64_t t, double *state) {
  const int64_t row = row_of(d, a, i, t), P = a->of->P, H = a->of->H;
  memcpy(state, a->of->h + row * P, (size_t)P * sizeof *state);
  if (a->of->c)
    memcpy(state + P, a->of->c + row * H, (size_t)H * sizeof *state);
}

/* What is kept of all steps has to fit; else said on stderr. */
static bool has_room(const diagnosis *d) {
  const double steps = (double)d->T * (double)d->data.n;
  double numbers = 0;
  for (size_t k = 0; k < d->n_activities; k++) {
    const layer_view *l = &d->model.layers[k];
    numbers += (double)(l->input + layer_gates(l) * l->options.hidden + layer_state_size(l));
  }
  if (steps * numbers <= MOST_NUMBERS)
    return true;
  complain("%.0f steps of %.0f numbers are more than a diagnosis keeps (%.0f): give fewer --sequences or --steps",
           steps, numbers, MOST_NUMBERS);
  return false;
}

static bool fill_batch(diagnosis *d) {
  const int64_t n = d->data.n, width = d->data.width;
  d->x = calloc((size_t)(d->T * n * width) + 1, sizeof *d->x);
  d->lengths = calloc((size_t)n, sizeof *d->lengths);
  if (!d->x || !d->lengths)
    return diagnose_no_memory();
  for (int64_t i = 0; i < n; i++) {
    d->lengths[i] = (int32_t)d->data.lengths[i];
    for (int64_t t = 0; t < d->data.lengths[i]; t++)
      memcpy(d->x + (t * n + i) * width, d->data.x[i] + t * width, (size_t)width * sizeof *d->x);
  }
  return true;
}

static bool measure(diagnosis *d) {
  const unroll_activity_batch batch = {
      .struct_size = sizeof batch, .steps = d->T, .batch = d->data.n, .x = d->x, .lengths = d->lengths};
  const unroll_activity_options o = {.struct_size = sizeof o, .device = diagnose_double_device(d)};
  unroll_error err = UNROLL_ERROR_INIT;
  if (unroll_activity_measure(&d->network.network, &batch, &o, &d->activity, &err) == UNROLL_OK)
    return true;
  complain_of(&err);
  return false;
}

bool diagnose_trace(diagnosis *d) {
  const model_view *m = &d->model;
  while (d->n_activities < m->n && strcmp(m->layers[d->n_activities].stack, m->layers[0].stack) == 0)
    d->n_activities++;
  if (!has_room(d) || !model_view_network(m, m->layers[0].stack, &d->network))
    return false;
  if (d->data.width != d->network.network.input) {
    complain("%s: layer %s reads %" PRId64 " numbers a step, the data have %" PRId64, m->path, m->layers[0].name,
             d->network.network.input, d->data.width);
    return false;
  }
  d->activities = calloc(m->n, sizeof *d->activities);
  if (!d->activities)
    return diagnose_no_memory();
  if (!fill_batch(d) || !measure(d))
    return false;
  for (size_t k = 0; k < d->n_activities; k++) {
    d->activities[k] = (layer_activity){&m->layers[k], &d->activity->layers[k]};
    diagnose_figures(d, &m->layers[k])->steps = d->data.steps;
  }
  for (size_t k = d->n_activities; k < m->n && !d->data.target_texts; k++)
    diagnose_missing(d, "gates", "%s: what it reads is not known; its weights alone are looked at", m->layers[k].name);
  return true;
}

void diagnose_free_activities(diagnosis *d) {
  unroll_activity_free(d->activity);
  network_view_close(&d->network);
  free(d->activities);
  free(d->lengths);
  free(d->x);
}

/* ---- gates ---- */

struct gate {
  const layer_activity *a;
  int64_t gate, T;
  unroll_gate is;
  bool bounded, relu;                /* relu: 0 is its end, below which it is dead */
  double *low, *high, *mean, *taken; /* [T] */
  double *log_keep;                  /* [H] */
  bool *active;                      /* [H] */
  double edges[BINS + 1], counts[BINS], by_step[MOST_COLUMNS][BINS];
  double count, at_low, at_high;
  double all; /* those that are not finite too */
};

/* Every value of the gate that is finite. */
static void each_value(const diagnosis *d, struct gate *g,
                       void (*use)(struct gate *g, int64_t t, int64_t k, double value)) {
  const int64_t H = g->a->of->H;
  for (int64_t i = 0; i < d->data.n; i++)
    for (int64_t t = 0; t < d->data.lengths[i]; t++) {
      const double *const values = activity_gates(d, g->a, i, t) + g->gate * H;
      for (int64_t k = 0; k < H; k++)
        if (isfinite(values[k]))
          use(g, t, k, values[k]);
    }
}

static bool is_low(const struct gate *g, double v) {
  if (isinf(g->is.low))
    return false;
  return g->is.low < 0 ? v < HIGH * g->is.low : g->relu ? v <= 0 : v < LOW * g->is.high;
}

static void add_value(struct gate *g, int64_t t, int64_t k, double v) {
  const bool low = is_low(g, v), high = v > HIGH * g->is.high;
  const double kept = g->is.keeps == UNROLL_KEEPS_REST ? 1 - v : v;
  g->taken[t]++;
  g->mean[t] += v;
  g->low[t] += low;
  g->high[t] += high;
  g->at_low += low;
  g->at_high += high;
  g->count++;
  g->active[k] |= v > 0;
  g->log_keep[k] += kept > 0 ? log(kept) : -745; /* the logarithm of the least number above 0 */
  if (!g->bounded) {                             /* their range is what is met */
    g->edges[0] = v < g->edges[0] ? v : g->edges[0];
    g->edges[BINS] = v > g->edges[BINS] ? v : g->edges[BINS];
  }
}

/* So many steps make a column of the histogram by step. */
static int64_t column_steps(const struct gate *g) { return (g->T + MOST_COLUMNS - 1) / MOST_COLUMNS; }

static void count_value(struct gate *g, int64_t t, int64_t k, double v) {
  (void)k;
  const double width = g->edges[BINS] - g->edges[0];
  const int64_t place = width > 0 ? (int64_t)((v - g->edges[0]) / width * BINS) : 0;
  const int64_t bin = place < 0 ? 0 : place < BINS ? place : BINS - 1;
  g->counts[bin]++;
  g->by_step[t / column_steps(g)][bin]++;
}

static void add_histogram_by_step(const struct gate *g, json_t *to) {
  json_t *firsts = json_array(), *columns = json_array();
  for (int64_t i = 0; i * column_steps(g) < g->T; i++) {
    json_array_append_new(firsts, json_integer((json_int_t)(i * column_steps(g))));
    json_array_append_new(columns, diagnose_numbers(g->by_step[i], BINS));
  }
  json_object_set_new(to, "histogram_steps", firsts);
  json_object_set_new(to, "histogram", columns);
}

static int by_value(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

/* τ = -1/ln f, f the geometric mean of a unit's gate: what is left after n steps is f^n. Quantiles over units, the least
 * and the largest with them. */
static json_t *time_constants(const struct gate *g, unroll_layer_figures *f) {
  const int64_t H = g->a->of->H;
  const double each = g->count / (double)H;
  double quantiles[QUANTILES];
  for (int64_t k = 0; k < H; k++) {
    const double log_mean = g->log_keep[k] / each;
    g->log_keep[k] = log_mean < 0 ? -1 / log_mean : (double)INFINITY;
  }
  qsort(g->log_keep, (size_t)H, sizeof *g->log_keep, by_value);
  for (int64_t i = 0; i < QUANTILES; i++)
    quantiles[i] = g->log_keep[(i * (H - 1) + (QUANTILES - 1) / 2) / (QUANTILES - 1)];
  f->time_constant = quantiles[QUANTILES - 1];
  return diagnose_numbers(quantiles, QUANTILES);
}

static void take_figures(const struct gate *g, unroll_layer_figures *f, double dead) {
  if (g->relu)
    f->dead = dead;
  if (layer_gate_is_main(g->a->layer, g->gate) && g->bounded) {
    f->saturated = (g->at_low + g->at_high) / g->count;
    f->saturated_gate = g->is.name;
  }
}

static json_t *gate_json(diagnosis *d, struct gate *g) {
  const layer_view *l = g->a->layer;
  const int64_t H = g->a->of->H;
  unroll_layer_figures *f = diagnose_figures(d, l);
  double dead = 0;
  g->edges[0] = g->bounded ? g->is.low : 0;
  g->edges[BINS] = g->bounded ? g->is.high : 0;
  each_value(d, g, add_value);
  if (g->count == 0)
    return NULL;
  const bool is_whole = g->count == g->all;
  if (!is_whole)
    diagnose_missing(d, "gates", "%s, gate %s: %.0f of %.0f values are not finite, and left out", l->name, g->is.name,
                     g->all - g->count, g->all);
  if (g->edges[BINS] <= g->edges[0]) /* one value alone */
    g->edges[BINS] = g->edges[0] + 1;
  const double lo = g->edges[0], hi = g->edges[BINS];
  for (int b = 1; b < BINS; b++)
    g->edges[b] = lo + (hi - lo) * b / BINS;
  each_value(d, g, count_value);
  for (int64_t t = 0; t < g->T; t++) {
    const double n = g->taken[t] > 0 ? g->taken[t] : 1;
    g->low[t] /= n;
    g->high[t] /= n;
    g->mean[t] /= n;
  }
  for (int64_t k = 0; k < H; k++)
    dead += g->active[k] ? 0 : 1 / (double)H;
  if (is_whole) /* what is left is no picture of the layer */
    take_figures(g, f, dead);
  json_t *one = json_pack("{s:s, s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "layer", l->name, "gate", g->is.name, "low",
                          diagnose_numbers(g->low, g->T), "high", diagnose_numbers(g->high, g->T), "mean",
                          diagnose_numbers(g->mean, g->T), "edges", diagnose_numbers(g->edges, BINS + 1), "counts",
                          diagnose_numbers(g->counts, BINS), "dead", g->relu ? diagnose_number(dead) : json_null(),
                          "time_constants", g->is.keeps && is_whole ? time_constants(g, f) : json_null());
  add_histogram_by_step(g, one);
  return one;
}

void diagnose_gates(diagnosis *d) {
  json_t *all = json_object_get(d->report, "gates");
  const int64_t T = d->T, H = d->network.options.hidden;
  double steps = 0;
  for (int64_t i = 0; i < d->data.n; i++)
    steps += (double)d->data.lengths[i];
  if (!all) {
    all = json_array();
    json_object_set_new(d->report, "gates", all);
  }
  double *const memory = room(4 * T + H);
  bool *const active = calloc((size_t)H + 1, sizeof *active);
  for (size_t k = 0; memory && active && k < d->n_activities; k++) {
    const layer_view *l = d->activities[k].layer;
    for (int64_t gate = 0; gate < layer_gates(l); gate++) {
      struct gate g = {.a = &d->activities[k],
                       .gate = gate,
                       .T = T,
                       .is = layer_gate(l, gate),
                       .low = memory,
                       .high = memory + T,
                       .mean = memory + 2 * T,
                       .taken = memory + 3 * T,
                       .log_keep = memory + 4 * T,
                       .active = active,
                       .all = steps * (double)H};
      g.bounded = isfinite(g.is.low) && isfinite(g.is.high);
      g.relu = g.is.low == 0 && isinf(g.is.high);
      memset(memory, 0, (size_t)(4 * T + H) * sizeof *memory);
      memset(active, 0, (size_t)H * sizeof *active);
      json_t *one = gate_json(d, &g);
      if (one)
        json_array_append_new(all, one);
      else
        diagnose_missing(d, "gates", "%s, gate %s: no value is finite", l->name, g.is.name);
    }
  }
  if (!memory || !active)
    diagnose_missing(d, "gates", "out of memory");
  free(memory);
  free(active);
}

/* ---- units over the first sequence ---- */

/* What a unit shows: tanh(c) of an lstm (Karpathy, Johnson, Li 2016), else h. */
static double shown(const diagnosis *d, const layer_activity *a, int64_t t, int64_t k) {
  const int64_t row = row_of(d, a, 0, t);
  return a->of->c ? tanh(a->of->c[row * a->of->H + k]) : a->of->h[row * a->of->P + k];
}

/* place[0..n) = the units that vary most, the first most of all. */
static void choose_units(const diagnosis *d, const layer_activity *a, int64_t T, int64_t *place, double *variance,
                         int64_t n) {
  const int64_t H = a->of->H;
  for (int64_t k = 0; k < H; k++) {
    double sum = 0, squares = 0;
    for (int64_t t = 0; t < T; t++) {
      const double v = shown(d, a, t, k);
      sum += v / (double)T;
      squares += v * v / (double)T;
    }
    variance[k] = isfinite(squares) ? squares - sum * sum : -1;
  }
  for (int64_t i = 0; i < n; i++) {
    int64_t best = 0;
    for (int64_t k = 1; k < H; k++)
      best = variance[k] > variance[best] ? k : best;
    place[i] = best;
    variance[best] = -2;
  }
}

void diagnose_units(diagnosis *d) {
  const layer_activity *a = &d->activities[d->n_activities - 1];
  while (a > d->activities && a->layer->direction)
    a--; /* the forward one of the last layer, whose steps are the text's */
  const int64_t H = a->of->H, T = d->data.lengths[0] < MOST_TOKENS ? d->data.lengths[0] : MOST_TOKENS;
  const int64_t n = d->values->units < H ? d->values->units : H;
  int64_t *const place = calloc((size_t)H, sizeof *place);
  double *const variance = room(H), *const row = room(T);
  json_t *tokens = json_array(), *activity = json_array(), *units = json_array();
  const bool made = place && variance && row;
  if (made)
    choose_units(d, a, T, place, variance, n);
  else
    diagnose_missing(d, "units", "out of memory");
  for (int64_t t = 0; t < T && made; t++) {
    char number[24];
    snprintf(number, sizeof number, "%" PRId64, t);
    json_array_append_new(tokens, json_string(d->data.tokens ? d->data.tokens[t] : number));
  }
  for (int64_t i = 0; i < n && made; i++) {
    for (int64_t t = 0; t < T; t++)
      row[t] = round(1e4 * shown(d, a, t, place[i])) / 1e4;
    json_array_append_new(activity, diagnose_numbers(row, T));
    json_array_append_new(units, json_integer((json_int_t)place[i]));
  }
  if (made)
    json_object_set_new(d->report, "units",
                        json_pack("{s:o, s:s, s:o, s:o}", "tokens", tokens, "layer", a->layer->name, "activity",
                                  activity, "unit", units));
  free(place);
  free(variance);
  free(row);
}
