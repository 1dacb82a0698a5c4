/* SPDX-License-Identifier: Apache-2.0 */
/* Layers run over the data on the host, in double: gates and units. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "console.h"
#include "diagnosis.h"

#define LOW 0.1 /* of a sigmoid; a tanh's ends are past -0.9 and 0.9 */
#define HIGH 0.9
#define BINS 20
#define QUANTILES 21
#define MOST_TOKENS 500
#define MOST_NUMBERS 1e9

static bool out_of_memory(void) {
  complain("out of memory");
  return false;
}

static double *room(int64_t n) { return calloc((size_t)n + 1, sizeof(double)); }

/* ---- running ---- */

/* rows [n,width] in the other order */
static void turn(double *rows, int64_t n, int64_t width) {
  for (int64_t t = 0; t < n / 2; t++)
    for (int64_t j = 0; j < width; j++) {
      const double kept = rows[t * width + j];
      rows[t * width + j] = rows[(n - 1 - t) * width + j];
      rows[(n - 1 - t) * width + j] = kept;
    }
}

/* What the layers before say of a sequence: h of one direction, or of both side by side, as layer `l` reads it. */
static void read_below(const diagnosis *d, const layer_activity *to, size_t below, size_t n_below, int64_t i) {
  const int64_t T = d->data.lengths[i], I = to->layer->weights.input;
  int64_t at = 0;
  for (size_t k = below; k < below + n_below; k++) {
    const layer_activity *from = &d->activities[k];
    const int64_t H = from->layer->weights.hidden, n = layer_state_size(from->layer);
    for (int64_t t = 0; t < T; t++) {
      const int64_t row = from->layer->direction ? T - 1 - t : t;
      memcpy(to->x[i] + t * I + at, from->states[i] + row * n, (size_t)H * sizeof(double));
    }
    at += H;
  }
}

static bool trace_sequence(const diagnosis *d, layer_activity *a, size_t below, size_t n_below, int64_t i) {
  const layer_view *l = a->layer;
  const int64_t T = d->data.lengths[i], H = l->weights.hidden, I = l->weights.input;
  unroll_error err = UNROLL_ERROR_INIT;
  a->x[i] = room(T * I);
  a->gates[i] = room(T * layer_gates(l) * H);
  a->states[i] = room(T * layer_state_size(l));
  if (!a->x[i] || !a->gates[i] || !a->states[i])
    return out_of_memory();
  if (n_below)
    read_below(d, a, below, n_below, i);
  else
    memcpy(a->x[i], d->data.x[i], (size_t)(T * I) * sizeof(double));
  if (l->direction)
    turn(a->x[i], T, I);
  unroll_cell_weights w = l->weights;
  w.x = a->x[i];
  w.steps = T;
  if (unroll_cell_trace(&w, &l->extras, NULL, a->gates[i], a->states[i], &err) == UNROLL_OK)
    return true;
  complain_of(&err);
  return false;
}

/* Does the layer read what those below say? Else said on stderr. */
static bool fits(const diagnosis *d, const layer_view *l, size_t below, size_t n_below) {
  int64_t width = n_below ? 0 : d->data.width;
  for (size_t k = below; k < below + n_below; k++)
    width += d->activities[k].layer->weights.hidden;
  if (width == l->weights.input)
    return true;
  complain("%s: layer %s reads %" PRId64 " numbers a step, those below say %" PRId64, d->model.path, l->name,
           l->weights.input, width);
  return false;
}

/* What is kept of all steps has to fit; else said on stderr. */
static bool has_room(const diagnosis *d) {
  double steps = 0, numbers = 0;
  for (int64_t i = 0; i < d->data.n; i++)
    steps += (double)d->data.lengths[i];
  for (size_t k = 0; k < d->model.n; k++) {
    const layer_view *l = &d->model.layers[k];
    numbers += (double)(l->weights.input + layer_gates(l) * l->weights.hidden + layer_state_size(l));
  }
  if (steps * numbers <= MOST_NUMBERS)
    return true;
  complain("%.0f steps of %.0f numbers are more than a diagnosis keeps (%.0f): give fewer --sequences or --steps",
           steps, numbers, MOST_NUMBERS);
  return false;
}

bool diagnose_trace(diagnosis *d) {
  const model_view *m = &d->model;
  size_t below = 0, n_below = 0, first = 0;
  if (!has_room(d))
    return false;
  d->activities = calloc(m->n, sizeof *d->activities);
  if (!d->activities)
    return out_of_memory();
  for (size_t k = 0; k < m->n && strcmp(m->layers[k].stack, m->layers[0].stack) == 0; k++) {
    const layer_view *l = &m->layers[k];
    layer_activity *a = &d->activities[k];
    if (k > 0 && l->layer != m->layers[k - 1].layer) { /* a new floor */
      below = first;
      n_below = k - first;
      first = k;
    }
    if (!fits(d, l, below, n_below))
      return false;
    a->layer = l;
    a->x = calloc((size_t)d->data.n, sizeof *a->x);
    a->gates = calloc((size_t)d->data.n, sizeof *a->gates);
    a->states = calloc((size_t)d->data.n, sizeof *a->states);
    d->n_activities++;
    if (!a->x || !a->gates || !a->states)
      return out_of_memory();
    for (int64_t i = 0; i < d->data.n; i++)
      if (!trace_sequence(d, a, below, n_below, i))
        return false;
    diagnose_figures(d, l)->steps = d->data.steps;
  }
  for (size_t k = d->n_activities; k < m->n; k++)
    diagnose_missing(d, "gates",
                     "%s: what it reads is made step by step (attention, tokens said before); its weights alone "
                     "are looked at",
                     m->layers[k].name);
  return true;
}

void diagnose_free_activities(diagnosis *d) {
  for (size_t k = 0; k < d->n_activities; k++) {
    layer_activity *a = &d->activities[k];
    for (int64_t i = 0; a->x && a->gates && a->states && i < d->data.n; i++) {
      free(a->x[i]);
      free(a->gates[i]);
      free(a->states[i]);
    }
    free(a->x);
    free(a->gates);
    free(a->states);
  }
  free(d->activities);
}

/* ---- gates ---- */

struct gate {
  const layer_activity *a;
  int64_t gate, T;
  bool sigmoid, relu, linear, keeps;
  double *low, *high, *mean, *taken; /* [T] */
  double *log_keep;                  /* [H] */
  bool *active;                      /* [H] */
  double edges[BINS + 1], counts[BINS];
  double count, at_low, at_high;
  double all; /* those that are not finite too */
};

/* Every value of the gate that is finite. */
static void each_value(const diagnosis *d, struct gate *g,
                       void (*use)(struct gate *g, int64_t t, int64_t k, double value)) {
  const int64_t H = g->a->layer->weights.hidden, GH = layer_gates(g->a->layer) * H;
  for (int64_t i = 0; i < d->data.n; i++)
    for (int64_t t = 0; t < d->data.lengths[i]; t++)
      for (int64_t k = 0; k < H; k++) {
        const double value = g->a->gates[i][t * GH + g->gate * H + k];
        if (isfinite(value))
          use(g, t, k, value);
      }
}

static void add_value(struct gate *g, int64_t t, int64_t k, double v) {
  const bool low = g->sigmoid ? v < LOW
                   : g->relu  ? v <= 0
                              : !g->linear && v < -HIGH,
             high = !g->relu && !g->linear && v > HIGH;
  g->taken[t]++;
  g->mean[t] += v;
  g->low[t] += low;
  g->high[t] += high;
  g->at_low += low;
  g->at_high += high;
  g->count++;
  g->active[k] |= v > 0;
  g->log_keep[k] += v > 0 ? log(v) : -745; /* the logarithm of the least number above 0 */
  if (g->relu || g->linear) {              /* their range is what is met */
    g->edges[0] = v < g->edges[0] ? v : g->edges[0];
    g->edges[BINS] = v > g->edges[BINS] ? v : g->edges[BINS];
  }
}

static void count_value(struct gate *g, int64_t t, int64_t k, double v) {
  (void)t;
  (void)k;
  const double width = g->edges[BINS] - g->edges[0];
  const int64_t bin = width > 0 ? (int64_t)((v - g->edges[0]) / width * BINS) : 0;
  g->counts[bin < 0 ? 0 : bin < BINS ? bin : BINS - 1]++;
}

static int by_value(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

/* τ = -1/ln f, f the geometric mean of a unit's gate: what is left after n steps is f^n. Quantiles over units, the least
 * and the largest with them. */
static json_t *time_constants(const struct gate *g, unroll_layer_figures *f) {
  const int64_t H = g->a->layer->weights.hidden;
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
  const bool is_candidate = strcmp(layer_gate_name(g->a->layer, g->gate), "candidate") == 0;
  const double share = (g->at_low + g->at_high) / g->count;
  if (g->relu)
    f->dead = dead;
  if ((is_candidate || g->a->layer->weights.cell == UNROLL_CELL_RNN) && !g->relu && !g->linear) {
    f->saturated = share;
    f->saturated_gate = layer_gate_name(g->a->layer, g->gate);
  }
}

static json_t *gate_json(diagnosis *d, struct gate *g) {
  const layer_view *l = g->a->layer;
  const int64_t H = l->weights.hidden;
  unroll_layer_figures *f = diagnose_figures(d, l);
  double dead = 0;
  g->edges[0] = g->sigmoid || g->relu || g->linear ? 0 : -1;
  g->edges[BINS] = g->relu || g->linear ? 0 : 1;
  each_value(d, g, add_value);
  if (g->count == 0)
    return NULL;
  if (g->count < g->all)
    diagnose_missing(d, "gates", "%s, gate %s: %.0f of %.0f values are not finite, and left out", l->name,
                     layer_gate_name(l, g->gate), g->all - g->count, g->all);
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
  take_figures(g, f, dead);
  return json_pack(
      "{s:s, s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "layer", l->name, "gate", layer_gate_name(l, g->gate), "low",
      diagnose_numbers(g->low, g->T), "high", diagnose_numbers(g->high, g->T), "mean", diagnose_numbers(g->mean, g->T),
      "edges", diagnose_numbers(g->edges, BINS + 1), "counts", diagnose_numbers(g->counts, BINS), "dead",
      g->relu ? diagnose_number(dead) : json_null(), "time_constants", g->keeps ? time_constants(g, f) : json_null());
}

static bool is_keeping(const layer_view *l, int64_t gate) {
  return l->weights.cell != UNROLL_CELL_RNN && gate == 1; /* lstm f, gru z */
}

void diagnose_gates(diagnosis *d) {
  json_t *all = json_array();
  int64_t T = 0, H = 0;
  double steps = 0;
  for (int64_t i = 0; i < d->data.n; i++) {
    T = d->data.lengths[i] > T ? d->data.lengths[i] : T;
    steps += (double)d->data.lengths[i];
  }
  for (size_t k = 0; k < d->n_activities; k++)
    H = d->activities[k].layer->weights.hidden > H ? d->activities[k].layer->weights.hidden : H;
  double *const memory = room(4 * T + H);
  bool *const active = calloc((size_t)H + 1, sizeof *active);
  for (size_t k = 0; memory && active && k < d->n_activities; k++) {
    const layer_view *l = d->activities[k].layer;
    for (int64_t gate = 0; gate < layer_gates(l); gate++) {
      struct gate g = {.a = &d->activities[k],
                       .gate = gate,
                       .T = T,
                       .sigmoid = layer_gate_is_sigmoid(l, gate),
                       .linear = l->extras.linear,
                       .keeps = is_keeping(l, gate),
                       .low = memory,
                       .high = memory + T,
                       .mean = memory + 2 * T,
                       .taken = memory + 3 * T,
                       .log_keep = memory + 4 * T,
                       .active = active,
                       .all = steps * (double)l->weights.hidden};
      g.relu = l->weights.cell == UNROLL_CELL_RNN && l->weights.activation == UNROLL_RELU && !g.linear;
      memset(memory, 0, (size_t)(4 * T + H) * sizeof *memory);
      memset(active, 0, (size_t)H * sizeof *active);
      json_t *one = gate_json(d, &g);
      if (one)
        json_array_append_new(all, one);
      else
        diagnose_missing(d, "gates", "%s, gate %s: no value is finite", l->name, layer_gate_name(l, gate));
    }
  }
  if (!memory || !active)
    diagnose_missing(d, "gates", "out of memory");
  free(memory);
  free(active);
  json_object_set_new(d->report, "gates", all);
}

/* ---- units over the first sequence ---- */

/* What a unit shows: tanh(c) of an lstm (Karpathy, Johnson, Li 2016), else h. */
static double shown(const layer_activity *a, int64_t t, int64_t k) {
  const int64_t H = a->layer->weights.hidden, n = layer_state_size(a->layer);
  return n > H ? tanh(a->states[0][t * n + H + k]) : a->states[0][t * n + k];
}

/* place[0..n) = the units that vary most, the first most of all. */
static void choose_units(const layer_activity *a, int64_t T, int64_t *place, double *variance, int64_t n) {
  const int64_t H = a->layer->weights.hidden;
  for (int64_t k = 0; k < H; k++) {
    double sum = 0, squares = 0;
    for (int64_t t = 0; t < T; t++) {
      const double v = shown(a, t, k);
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
  const int64_t H = a->layer->weights.hidden, T = d->data.lengths[0] < MOST_TOKENS ? d->data.lengths[0] : MOST_TOKENS;
  const int64_t n = d->values->units < H ? d->values->units : H;
  int64_t *const place = calloc((size_t)H, sizeof *place);
  double *const variance = room(H), *const row = room(T);
  json_t *tokens = json_array(), *activity = json_array(), *units = json_array();
  const bool made = place && variance && row;
  if (made)
    choose_units(a, T, place, variance, n);
  else
    diagnose_missing(d, "units", "out of memory");
  for (int64_t t = 0; t < T && made; t++) {
    char number[24];
    snprintf(number, sizeof number, "%" PRId64, t);
    json_array_append_new(tokens, json_string(d->data.tokens ? d->data.tokens[t] : number));
  }
  for (int64_t i = 0; i < n && made; i++) {
    for (int64_t t = 0; t < T; t++)
      row[t] = round(1e4 * shown(a, t, place[i])) / 1e4;
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
