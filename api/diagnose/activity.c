/* SPDX-License-Identifier: Apache-2.0 */
/* The cells' steps in double with all that a layer may have beside its weights. plugin.h and nn.h have the equations. */
#include <math.h>
#include <string.h>

#include "diagnose/trace.h"

#define STANDARD_EPSILON 1e-5

static double sigmoid(double v) { return v >= 0 ? 1 / (1 + exp(-v)) : exp(v) / (1 + exp(v)); }

/* Zoneout's expectation; without it the old value is not looked at, be it infinite. */
static double kept(double p, double old, double new) { return p > 0 ? p * old + (1 - p) * new : new; }

static double *transposed(const unroll_allocator *allocator, const double *a, int64_t rows, int64_t columns) {
  double *const to = mem_array(allocator, (uint64_t)(rows * columns) + 1, sizeof *to);
  for (int64_t i = 0; to && i < rows; i++)
    for (int64_t j = 0; j < columns; j++)
      to[j * rows + i] = a[i * columns + j];
  return to;
}

void trace_product(const struct trace *s, const double *W, const double *v, int64_t n, int64_t first, int64_t rows,
                   double *to) {
  const int64_t GH = s->G * s->H;
  for (int64_t i = first; i < first + rows; i++)
    to[i] = 0;
  for (int64_t j = 0; j < n; j++) {
    const double *row = W + j * GH;
    for (int64_t i = first; i < first + rows; i++)
      to[i] += row[i] * v[j];
  }
}

/* v[first..first+rows) = gain⊙(v - mean)/sqrt(variance + epsilon) */
static void normalise(const struct trace *s, double *v, const double *gain, int64_t first, int64_t rows) {
  double mean = 0, variance = 0;
  if (!gain)
    return;
  for (int64_t i = first; i < first + rows; i++)
    mean += v[i] / (double)rows;
  for (int64_t i = first; i < first + rows; i++)
    variance += (v[i] - mean) * (v[i] - mean) / (double)rows;
  const double rate = 1 / sqrt(variance + s->e.epsilon);
  for (int64_t i = first; i < first + rows; i++)
    v[i] = gain[i] * (v[i] - mean) * rate;
}

/* The inputs' part of all gates, with their bias. `apart`: rows of the first piece that is normalised by itself. */
static void read_input(const struct trace *s, int64_t t, int64_t apart) {
  const unroll_cell_weights *w = s->w;
  const int64_t GH = s->G * s->H;
  trace_product(s, s->W_x, w->x ? w->x + t * w->input : NULL, w->x ? w->input : 0, 0, GH, s->from_x);
  normalise(s, s->from_x, s->e.ln_x, 0, apart);
  if (apart < GH)
    normalise(s, s->from_x, s->e.ln_x, apart, GH - apart);
  for (int64_t i = 0; w->b && i < GH; i++)
    s->from_x[i] += w->b[i];
}

static void read_state(const struct trace *s, const double *h, int64_t first, int64_t rows) {
  trace_product(s, s->W_h, h, s->H, first, rows, s->from_h);
  normalise(s, s->from_h, s->e.ln_h, first, rows);
}

static void rnn_step(struct trace *s, int64_t t, double *gates) {
  read_input(s, t, s->H);
  read_state(s, s->h, 0, s->H);
  for (int64_t k = 0; k < s->H; k++) {
    const double a = s->from_x[k] + s->from_h[k];
    gates[k] = s->e.linear                          ? a
               : s->w->activation == UNROLL_RELU    ? (a > 0 || isnan(a) ? a : 0)
               : s->w->activation == UNROLL_SIGMOID ? sigmoid(a)
                                                    : tanh(a);
    s->new_h[k] = gates[k];
  }
}

static void lstm_step(struct trace *s, int64_t t, double *gates) {
  const int64_t H = s->H;
  const unroll_cell_extras *e = &s->e;
  double *const i = gates, *const f = gates + H, *const g = gates + 2 * H, *const o = gates + 3 * H;
  read_input(s, t, 4 * H);
  read_state(s, s->h, 0, 4 * H);
  for (int64_t k = 0; k < H; k++) {
    const double was = s->c[k];
    i[k] = sigmoid(s->from_x[k] + s->from_h[k] + (e->p_i ? e->p_i[k] * was : 0));
    f[k] = sigmoid(s->from_x[H + k] + s->from_h[H + k] + (e->p_f ? e->p_f[k] * was : 0));
    g[k] = tanh(s->from_x[2 * H + k] + s->from_h[2 * H + k]);
    const double c = f[k] * was + i[k] * g[k];
    o[k] = sigmoid(s->from_x[3 * H + k] + s->from_h[3 * H + k] + (e->p_o ? e->p_o[k] * c : 0));
    s->u[k] = c;
    s->c[k] = kept(e->zoneout_c, was, c);
  }
  normalise(s, s->u, e->ln_c, 0, H);
  for (int64_t k = 0; k < H; k++)
    s->new_h[k] = o[k] * tanh(s->u[k] + (e->ln_s ? e->ln_s[k] : 0));
}

static void gru_step(struct trace *s, int64_t t, double *gates) {
  const int64_t H = s->H;
  const bool after = s->w->cell == UNROLL_CELL_GRU_AFTER;
  double *const r = gates, *const z = gates + H, *const n = gates + 2 * H;
  read_input(s, t, 2 * H);
  read_state(s, s->h, 0, 2 * H);
  for (int64_t k = 0; k < H; k++) {
    r[k] = sigmoid(s->from_x[k] + s->from_h[k]);
    z[k] = sigmoid(s->from_x[H + k] + s->from_h[H + k]);
    s->u[k] = after ? s->h[k] : r[k] * s->h[k];
  }
  read_state(s, s->u, 2 * H, H);
  for (int64_t k = 0; k < H; k++) {
    const double inner = s->from_h[2 * H + k] + (after && s->w->b_n ? s->w->b_n[k] : 0);
    n[k] = tanh(s->from_x[2 * H + k] + (after ? r[k] * inner : inner));
    s->new_h[k] = (1 - z[k]) * n[k] + z[k] * s->h[k];
  }
}

void trace_step(struct trace *s, int64_t t, double *gates) {
  if (s->w->cell == UNROLL_CELL_RNN)
    rnn_step(s, t, gates);
  else if (s->w->cell == UNROLL_CELL_LSTM)
    lstm_step(s, t, gates);
  else
    gru_step(s, t, gates);
  for (int64_t k = 0; k < s->H; k++)
    s->h[k] = kept(s->e.zoneout_h, s->h[k], s->new_h[k]);
}

static unroll_status check(const unroll_cell_weights *w, const unroll_cell_extras *e, unroll_error *err) {
  const bool lstm = w->cell == UNROLL_CELL_LSTM;
  if (w->cell < UNROLL_CELL_RNN || w->cell >= UNROLL_CELL_COUNT)
    return fail(err, UNROLL_E_INVALID, "trace: cell %d, 1 to %d are known", w->cell, UNROLL_CELL_COUNT - 1);
  if (w->hidden < 1 || w->hidden > INT32_MAX || w->input < 0 || w->input > INT32_MAX || w->steps < 1 ||
      w->steps > INT32_MAX)
    return fail(err, UNROLL_E_INVALID, "trace: %lld units, %lld inputs, %lld steps: one is out of its range",
                (long long)w->hidden, (long long)w->input, (long long)w->steps);
  if (!w->W_h || (w->input > 0 && !w->W_x))
    return fail(err, UNROLL_E_INVALID, "trace: %s is NULL", w->W_h ? "W_x" : "W_h");
  if (w->cell == UNROLL_CELL_RNN && w->activation != 0 && w->activation != UNROLL_TANH &&
      w->activation != UNROLL_RELU && w->activation != UNROLL_SIGMOID)
    return fail(err, UNROLL_E_INVALID, "trace: activation %d of an rnn, it must be tanh, relu or sigmoid",
                w->activation);
  if (!e->p_i != !e->p_f || !e->p_i != !e->p_o || (e->p_i && !lstm))
    return fail(err, UNROLL_E_INVALID, "trace: peepholes are an lstm's, all three or none");
  if (!e->ln_x != !e->ln_h || !e->ln_c != !e->ln_s || !e->ln_c != !(lstm && e->ln_x))
    return fail(err, UNROLL_E_INVALID,
                "trace: layer norm has gains of both products, and of an lstm gain and shift of c");
  if (!(e->zoneout_h >= 0 && e->zoneout_h < 1 && e->zoneout_c >= 0 && e->zoneout_c < 1 && e->epsilon >= 0))
    return fail(err, UNROLL_E_INVALID, "trace: zoneout of h %g, of c %g, epsilon %g: one is out of its range",
                e->zoneout_h, e->zoneout_c, e->epsilon);
  return UNROLL_OK;
}

unroll_status trace_open(struct trace *s, const unroll_cell_weights *w, const unroll_cell_extras *extras,
                         const unroll_allocator *allocator, unroll_error *err) {
  *s = (struct trace){.w = w, .H = w->hidden};
  if (allocator)
    s->allocator = *allocator;
  if (extras)
    s->e = *extras;
  s->e.epsilon = s->e.epsilon > 0 ? s->e.epsilon : STANDARD_EPSILON;
  TRY(check(w, &s->e, err));
  const int64_t H = s->H;
  s->G = w->cell == UNROLL_CELL_RNN ? 1 : w->cell == UNROLL_CELL_LSTM ? 4 : 3;
  s->n = w->cell == UNROLL_CELL_LSTM ? 2 * H : H;
  s->W_x = transposed(&s->allocator, w->W_x, s->G * H, w->input);
  s->W_h = transposed(&s->allocator, w->W_h, s->G * H, H);
  s->h = mem_array(&s->allocator, (uint64_t)((3 * s->G + 4) * H), sizeof *s->h);
  if (!s->W_x || !s->W_h || !s->h) {
    trace_close(s);
    return fail(err, UNROLL_E_MEMORY, "trace: no memory for the weights of %lld units", (long long)H);
  }
  s->c = s->h + H; /* behind h, as in a state */
  s->new_h = s->h + 2 * H;
  s->u = s->h + 3 * H;
  s->from_x = s->h + 4 * H;
  s->from_h = s->from_x + s->G * H;
  s->gates = s->from_h + s->G * H;
  return UNROLL_OK;
}

void trace_close(struct trace *s) {
  mem_free(&s->allocator, s->W_x);
  mem_free(&s->allocator, s->W_h);
  mem_free(&s->allocator, s->h);
}

unroll_status unroll_cell_trace(const unroll_cell_weights *w, const unroll_cell_extras *extras, const double *first,
                                double *gates, double *states, unroll_error *err) {
  struct trace s;
  if (!w || w->struct_size < sizeof *w || (extras && extras->struct_size < sizeof *extras))
    return fail(err, UNROLL_E_INVALID, "unroll_cell_trace: %s", !w ? "weights is NULL" : "too small a struct_size");
  TRY(trace_open(&s, w, extras, NULL, err));
  const size_t bytes = (size_t)s.n * sizeof(double);
  memset(s.h, 0, bytes);
  if (first)
    memcpy(s.h, first, bytes);
  for (int64_t t = 0; t < w->steps; t++) {
    trace_step(&s, t, gates ? gates + t * s.G * s.H : s.gates);
    if (states)
      memcpy(states + t * s.n, s.h, bytes);
  }
  trace_close(&s);
  return UNROLL_OK;
}

unroll_status unroll_departure_from_normality(const double *a, int64_t n, const double *real, const double *imaginary,
                                              double *departure, unroll_error *err) {
  if (!a || !real || !imaginary || !departure || n < 1)
    return fail(err, UNROLL_E_INVALID, "departure from normality: an array is NULL, or of %lld rows", (long long)n);
  double sum = 0;
  for (int64_t i = 0; i < n * n; i++)
    sum += a[i] * a[i];
  for (int64_t i = 0; i < n; i++)
    sum -= real[i] * real[i] + imaginary[i] * imaginary[i];
  *departure = sum > 0 ? sqrt(sum) : 0; /* below 0 by rounding alone */
  return UNROLL_OK;
}
