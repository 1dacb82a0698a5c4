/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Layers with all their options as maps of their state. A row of the Jacobian is a sum of rows of A = ∂(W_h·h)/∂h, which is
 * W_h, or, under layer norm, of LN(v) = g⊙(v - mean)·rate with v̂ = (v - mean)·rate,
 *
 *     ∂LN(v)_i = g_i·rate·(∂v_i - mean(∂v) - v̂_i·mean(v̂⊙∂v))
 */
#include <math.h>
#include <string.h>

#include "diagnose/map.h"
#include "diagnose/trace.h"

struct layer_map {
  struct trace trace;
  unroll_cell_weights w;
  double *A;     /* [GH,H] */
  double *U;     /* [H,H], of a gru */
  double *v;     /* [GH] before layer norm */
  double *m, *q; /* [2H]: means over rows, of each column */
};

/*
 * Rows [0,rows) of D [rows,columns], derivatives of v, become those of LN(v). gain [rows]
 */
static void normalise_rows(const struct layer_map *l, const double *v, const double *gain, int64_t rows,
                           int64_t columns, double *D) {
  double mean = 0, variance = 0;
  for (int64_t i = 0; i < rows; i++)
    mean += v[i] / (double)rows;
  for (int64_t i = 0; i < rows; i++)
    variance += (v[i] - mean) * (v[i] - mean) / (double)rows;
  const double rate = 1 / sqrt(variance + l->trace.e.epsilon);
  memset(l->m, 0, (size_t)columns * sizeof *l->m);
  memset(l->q, 0, (size_t)columns * sizeof *l->q);
  for (int64_t i = 0; i < rows; i++)
    for (int64_t j = 0; j < columns; j++) {
      l->m[j] += D[i * columns + j] / (double)rows;
      l->q[j] += (v[i] - mean) * rate * D[i * columns + j] / (double)rows;
    }
  for (int64_t i = 0; i < rows; i++)
    for (int64_t j = 0; j < columns; j++)
      D[i * columns + j] = gain[i] * rate * (D[i * columns + j] - l->m[j] - (v[i] - mean) * rate * l->q[j]);
}

/* A's rows [first, first + rows), of one layer norm; h is what W_h is multiplied with. */
static void take_product(struct layer_map *l, const double *h, int64_t first, int64_t rows) {
  const int64_t H = l->trace.H;
  memcpy(l->A + first * H, l->w.W_h + first * H, (size_t)(rows * H) * sizeof *l->A);
  if (!l->trace.e.ln_h)
    return;
  trace_product(&l->trace, l->trace.W_h, h, H, first, rows, l->v);
  normalise_rows(l, l->v + first, l->trace.e.ln_h + first, rows, H, l->A + first * H);
}

static void rnn_rows(const struct layer_map *l, const double *y, double *J) {
  const int64_t H = l->trace.H;
  for (int64_t i = 0; i < H; i++) {
    const double slope = l->trace.e.linear                   ? 1
                         : l->w.activation == UNROLL_RELU    ? (y[i] > 0 ? 1 : 0)
                         : l->w.activation == UNROLL_SIGMOID ? y[i] * (1 - y[i])
                                                             : 1 - y[i] * y[i];
    for (int64_t j = 0; j < H; j++)
      J[i * H + j] = slope * l->A[i * H + j];
  }
}

/* u: what tanh is of, c's layer norm or c itself. */
static void lstm_rows(struct layer_map *l, const double *gates, const double *was, double *J) {
  const int64_t H = l->trace.H, n = 2 * H;
  const unroll_cell_extras *e = &l->trace.e;
  const double *const i = gates, *const f = i + H, *const g = f + H, *const o = g + H;
  double *const of_c = J + H * n;
  for (int64_t k = 0; k < H; k++) {
    const double to_i = g[k] * i[k] * (1 - i[k]), to_f = was[H + k] * f[k] * (1 - f[k]),
                 to_g = i[k] * (1 - g[k] * g[k]);
    for (int64_t j = 0; j < H; j++)
      of_c[k * n + j] = to_i * l->A[k * H + j] + to_f * l->A[(H + k) * H + j] + to_g * l->A[(2 * H + k) * H + j];
    of_c[k * n + H + k] = f[k] + (e->p_i ? to_i * e->p_i[k] + to_f * e->p_f[k] : 0);
    l->v[k] = f[k] * was[H + k] + i[k] * g[k];
  }
  memcpy(J, of_c, (size_t)(H * n) * sizeof *J);
  if (e->ln_c)
    normalise_rows(l, l->v, e->ln_c, H, n, J);
  for (int64_t k = 0; k < H; k++) {
    const double y = tanh(l->trace.u[k] + (e->ln_s ? e->ln_s[k] : 0)), slope = y * o[k] * (1 - o[k]);
    for (int64_t j = 0; j < n; j++)
      J[k * n + j] = o[k] * (1 - y * y) * J[k * n + j] + (e->p_o ? slope * e->p_o[k] * of_c[k * n + j] : 0);
    for (int64_t j = 0; j < H; j++)
      J[k * n + j] += slope * l->A[(3 * H + k) * H + j];
  }
}

static void gru_rows(struct layer_map *l, const double *gates, const double *h, double *J) {
  const int64_t H = l->trace.H;
  const bool after = l->w.cell == UNROLL_CELL_GRU_AFTER;
  const double *const r = gates, *const z = r + H, *const n = z + H;
  double *const A_n = l->A + 2 * H * H;
  if (!after) { /* A_n = ∂LN(W_n·(r⊙h))/∂h */
    memset(l->U, 0, (size_t)(H * H) * sizeof *l->U);
    for (int64_t k = 0; k < H; k++) {
      for (int64_t j = 0; j < H; j++)
        l->U[k * H + j] = h[k] * r[k] * (1 - r[k]) * l->A[k * H + j];
      l->U[k * H + k] += r[k];
    }
    memset(A_n, 0, (size_t)(H * H) * sizeof *A_n);
    for (int64_t k = 0; k < H; k++)
      for (int64_t i = 0; i < H; i++)
        for (int64_t j = 0; j < H; j++)
          A_n[k * H + j] += l->w.W_h[(2 * H + k) * H + i] * l->U[i * H + j];
    if (l->trace.e.ln_h) {
      trace_product(&l->trace, l->trace.W_h, l->trace.u, H, 2 * H, H, l->v);
      normalise_rows(l, l->v + 2 * H, l->trace.e.ln_h + 2 * H, H, H, A_n);
    }
  }
  for (int64_t k = 0; k < H; k++) {
    const double inner = l->trace.from_h[2 * H + k] + (l->w.b_n ? l->w.b_n[k] : 0),
                 slope = (1 - z[k]) * (1 - n[k] * n[k]);
    const double to_n = slope * (after ? r[k] : 1), to_r = after ? slope * inner * r[k] * (1 - r[k]) : 0;
    const double to_z = (h[k] - n[k]) * z[k] * (1 - z[k]);
    for (int64_t j = 0; j < H; j++)
      J[k * H + j] = to_n * A_n[k * H + j] + to_r * l->A[k * H + j] + to_z * l->A[(H + k) * H + j];
    J[k * H + k] += z[k];
  }
}

/* Zoneout's expectation of rows [first, first + rows): p of the old value is kept. */
static void zone_rows(double p, int64_t first, int64_t rows, int64_t n, double *J) {
  for (int64_t i = first; p > 0 && i < first + rows; i++) {
    for (int64_t j = 0; j < n; j++)
      J[i * n + j] *= 1 - p;
    J[i * n + i] += p;
  }
}

static unroll_status step(void *ctx, int64_t t, const double *state, double *next, double *J, unroll_error *err) {
  struct layer_map *l = ctx;
  struct trace *s = &l->trace;
  const size_t bytes = (size_t)s->n * sizeof *state;
  if (t < 0)
    return fail(err, UNROLL_E_INVALID, "map: step %lld, it must be 0 or more", (long long)t);
  memcpy(s->h, state, bytes);
  trace_step(s, t % l->w.steps, s->gates);
  memcpy(next, s->h, bytes);
  if (!J)
    return UNROLL_OK;
  const bool gru = l->w.cell != UNROLL_CELL_RNN && l->w.cell != UNROLL_CELL_LSTM;
  memset(J, 0, (size_t)s->n * bytes);
  take_product(l, state, 0, gru ? 2 * s->H : s->G * s->H);
  if (l->w.cell == UNROLL_CELL_GRU_AFTER)
    take_product(l, state, 2 * s->H, s->H);
  if (l->w.cell == UNROLL_CELL_RNN)
    rnn_rows(l, s->gates, J);
  else if (gru)
    gru_rows(l, s->gates, state, J);
  else
    lstm_rows(l, s->gates, state, J);
  zone_rows(s->e.zoneout_h, 0, s->H, s->n, J);
  zone_rows(s->e.zoneout_c, s->H, s->n - s->H, s->n, J);
  return UNROLL_OK;
}

static void release(unroll_map *map) {
  struct layer_map *l = map->ctx;
  const unroll_allocator allocator = l->trace.allocator;
  trace_close(&l->trace);
  mem_free(&allocator, l->A);
  mem_free(&allocator, l);
}

unroll_status unroll_map_of_layer(const unroll_cell_weights *w, const unroll_cell_extras *extras,
                                  const unroll_allocator *allocator, unroll_map **out, unroll_error *err) {
  if (!w || !out || w->struct_size < sizeof *w || (extras && extras->struct_size < sizeof *extras))
    return fail(err, UNROLL_E_INVALID, "unroll_map_of_layer: %s",
                !w     ? "weights is NULL"
                : !out ? "map is NULL"
                       : "too small a struct_size");
  struct layer_map *l = mem_zalloc(allocator, sizeof *l);
  if (!l)
    return fail(err, UNROLL_E_MEMORY, "map: no memory");
  l->w = *w;
  l->w.steps = w->x ? w->steps : 1;
  unroll_map *map = NULL;
  unroll_status status = trace_open(&l->trace, &l->w, extras, allocator, err);
  if (status == UNROLL_OK) {
    status = unroll_map_create(l->trace.n, step, l, allocator, &map, err);
    if (status != UNROLL_OK)
      trace_close(&l->trace);
  }
  if (status != UNROLL_OK) {
    mem_free(allocator, l);
    return status;
  }
  map->release = release;
  const int64_t H = l->trace.H, GH = l->trace.G * H;
  l->A = mem_array(allocator, (uint64_t)(GH * H + H * H + GH + 4 * H), sizeof *l->A);
  if (!l->A) {
    unroll_map_destroy(map);
    return fail(err, UNROLL_E_MEMORY, "map: no memory for the Jacobian of %lld units", (long long)H);
  }
  l->U = l->A + GH * H;
  l->v = l->U + H * H;
  l->m = l->v + GH;
  l->q = l->m + 2 * H;
  *out = map;
  return UNROLL_OK;
}
