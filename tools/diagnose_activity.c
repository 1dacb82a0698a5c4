/* SPDX-License-Identifier: Apache-2.0 */
/* Layers run over the data on the host, in double: gates, units, what is not finite. */
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
  double edges[BINS + 1], counts[BINS], by_step[MOST_COLUMNS][BINS];
  double count, at_low, at_high;
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
  json_t *one = json_pack(
      "{s:s, s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "layer", l->name, "gate", layer_gate_name(l, g->gate), "low",
      diagnose_numbers(g->low, g->T), "high", diagnose_numbers(g->high, g->T), "mean", diagnose_numbers(g->mean, g->T),
      "edges", diagnose_numbers(g->edges, BINS + 1), "counts", diagnose_numbers(g->counts, BINS), "dead",
      g->relu ? diagnose_number(dead) : json_null(), "time_constants", g->keeps ? time_constants(g, f) : json_null());
  add_histogram_by_step(g, one);
  return one;
}

static bool is_keeping(const layer_view *l, int64_t gate) {
  return l->weights.cell != UNROLL_CELL_RNN && gate == 1; /* lstm f, gru z */
}

void diagnose_gates(diagnosis *d) {
  json_t *all = json_array();
  int64_t T = 0, H = 0;
  for (int64_t i = 0; i < d->data.n; i++)
    T = d->data.lengths[i] > T ? d->data.lengths[i] : T;
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
                       .active = active};
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

/* ---- what is not finite ---- */

/* direction, step, sequence below 0, gate NULL: of a weight. */
static void note(diagnosis *d, json_t **first, const layer_view *l, int64_t t, const char *gate, int64_t sequence,
                 const char *what) {
  if (*first)
    return;
  if (t < 0) {
    *first = json_pack("{s:s, s:s, s:n, s:n, s:n, s:s}", "layer", l->name, "direction",
                       l->direction ? "reverse" : "forward", "step", "gate", "sequence", "what", what);
    snprintf(d->first_nonfinite, sizeof d->first_nonfinite, "%s of layer %s", what, l->name);
    return;
  }
  *first =
      json_pack("{s:s, s:s, s:I, s:s?, s:I, s:s}", "layer", l->name, "direction", l->direction ? "reverse" : "forward",
                "step", (json_int_t)t, "gate", gate, "sequence", (json_int_t)sequence, "what", what);
  snprintf(d->first_nonfinite, sizeof d->first_nonfinite, "step %" PRId64 " of sequence %" PRId64 ", layer %s%s%s", t,
           sequence, l->name, gate ? ", gate " : "", gate ? gate : "");
}

static int64_t count_weights(diagnosis *d, json_t **first, const layer_view *l) {
  const unroll_cell_weights *w = &l->weights;
  const int64_t GH = layer_gates(l) * w->hidden;
  const struct {
    const char *what;
    const double *values;
    int64_t n;
  } all[] = {
      {"W_x", w->W_x, GH * w->input}, {"W_h", w->W_h, GH * w->hidden}, {"b", w->b, GH}, {"b_n", w->b_n, w->hidden}};
  int64_t found = 0;
  for (size_t i = 0; i < COUNT(all); i++)
    for (int64_t k = 0; all[i].values && k < all[i].n; k++)
      if (!isfinite(all[i].values[k])) {
        note(d, first, l, -1, NULL, -1, all[i].what);
        found++;
      }
  return found;
}

static int64_t count_step(diagnosis *d, json_t **first, const layer_activity *a, int64_t i, int64_t t) {
  const layer_view *l = a->layer;
  const int64_t H = l->weights.hidden, G = layer_gates(l), n = layer_state_size(l);
  int64_t found = 0;
  for (int64_t k = 0; k < G * H; k++)
    if (!isfinite(a->gates[i][t * G * H + k])) {
      note(d, first, l, t, layer_gate_name(l, k / H), i, "value");
      found++;
    }
  for (int64_t k = 0; k < n; k++)
    if (!isfinite(a->states[i][t * n + k])) {
      note(d, first, l, t, k < H ? "h" : "c", i, "value");
      found++;
    }
  return found;
}

void diagnose_nonfinite(diagnosis *d) {
  json_t *first = NULL;
  int64_t longest = 0, all = 0;
  for (size_t k = 0; k < d->model.n; k++)
    diagnose_figures(d, &d->model.layers[k])->nonfinite = count_weights(d, &first, &d->model.layers[k]);
  for (int64_t i = 0; i < d->data.n; i++)
    longest = d->data.lengths[i] > longest ? d->data.lengths[i] : longest;
  for (int64_t t = 0; t < longest; t++) /* the first in time, then in the stack */
    for (size_t k = 0; k < d->n_activities; k++)
      for (int64_t i = 0; i < d->data.n; i++)
        if (t < d->data.lengths[i])
          diagnose_figures(d, d->activities[k].layer)->nonfinite += count_step(d, &first, &d->activities[k], i, t);
  for (size_t k = 0; k < d->model.n; k++) {
    unroll_layer_figures *f = &d->figures[k];
    all += f->nonfinite;
    f->nonfinite_first = d->first_nonfinite[0] ? d->first_nonfinite : NULL;
  }
  json_object_set_new(
      d->report, "nonfinite",
      json_pack("{s:I, s:n, s:o}", "values", (json_int_t)all, "gradients", "first", first ? first : json_null()));
}
