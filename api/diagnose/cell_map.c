/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The standard cells as maps of their state, with their Jacobians. plugin.h has the equations; here a product with W_h is
 * one with its rows, gate by gate, and a Jacobian is a sum of rows of W_h, each scaled by what stands before it.
 */
#include <math.h>
#include <string.h>

#include "diagnose/lapack.h"
#include "diagnose/map.h"

struct cell_map {
  int32_t cell, activation;
  int64_t I, H, G, steps;
  double *W_h, *b_n, *x; /* x [steps,GH]: W_x·x_t + b of every step */
  double *a, *u;         /* [GH] and [H]: what a step works in, */
  double *M;             /* and, of a gru, [H,H] twice */
  unroll_allocator allocator;
  struct lapack lapack; /* of a gru, whose Jacobian has a product */
};

static double sigmoid(double v) { return v >= 0 ? 1 / (1 + exp(-v)) : exp(v) / (1 + exp(v)); }

/* a = x + W_h·h in rows [first, first + n). */
static void gates(const struct cell_map *m, const double *x, const double *h, int64_t first, int64_t n, double *a) {
  for (int64_t i = first; i < first + n; i++) {
    const double *row = m->W_h + i * m->H;
    double sum = 0;
    for (int64_t j = 0; j < m->H; j++)
      sum += row[j] * h[j];
    a[i] = x[i] + sum;
  }
}

/* J[0..H) += scale·row `i` of gate `gate`. */
static void add_row(const struct cell_map *m, double *J, double scale, int64_t gate, int64_t i) {
  const double *row = m->W_h + (gate * m->H + i) * m->H;
  for (int64_t j = 0; j < m->H; j++)
    J[j] += scale * row[j];
}

static void rnn_step(const struct cell_map *m, const double *x, const double *h, double *next, double *J) {
  gates(m, x, h, 0, m->H, m->a);
  for (int64_t i = 0; i < m->H; i++) {
    const double a = m->a[i];
    const double y = m->activation == UNROLL_RELU      ? (a > 0 ? a : 0)
                     : m->activation == UNROLL_SIGMOID ? sigmoid(a)
                                                       : tanh(a);
    next[i] = y;
    if (J)
      add_row(m, J + i * m->H,
              m->activation == UNROLL_RELU      ? (a > 0 ? 1 : 0)
              : m->activation == UNROLL_SIGMOID ? y * (1 - y)
                                                : 1 - y * y,
              0, i);
  }
}

static void lstm_step(const struct cell_map *m, const double *x, const double *h, double *next, double *J) {
  const int64_t H = m->H;
  gates(m, x, h, 0, 4 * H, m->a);
  for (int64_t k = 0; k < H; k++) {
    const double i = sigmoid(m->a[k]), f = sigmoid(m->a[H + k]), g = tanh(m->a[2 * H + k]),
                 o = sigmoid(m->a[3 * H + k]);
    const double c = f * h[H + k] + i * g, y = tanh(c);
    next[k] = o * y;
    next[H + k] = c;
    if (!J)
      continue;
    double *const of_c = J + (H + k) * 2 * H, *const of_h = J + k * 2 * H;
    add_row(m, of_c, g * i * (1 - i), 0, k);
    add_row(m, of_c, h[H + k] * f * (1 - f), 1, k);
    add_row(m, of_c, i * (1 - g * g), 2, k);
    of_c[H + k] = f;
    const double through_c = o * (1 - y * y);
    for (int64_t j = 0; j < 2 * H; j++)
      of_h[j] = through_c * of_c[j];
    add_row(m, of_h, y * o * (1 - o), 3, k);
  }
}

/* gates r z n. Where the reset comes before the product, ∂(r⊙h)/∂h is a matrix U and ∂n/∂h has W_n·U. */
static void gru_step(const struct cell_map *m, const double *x, const double *h, double *next, double *J) {
  const int64_t H = m->H;
  const bool after = m->cell == UNROLL_CELL_GRU_AFTER;
  double *const U = m->M, *const product = m->M + H * H;
  gates(m, x, h, 0, 2 * H, m->a);
  for (int64_t k = 0; k < H; k++) {
    m->a[k] = sigmoid(m->a[k]);
    m->u[k] = after ? h[k] : m->a[k] * h[k];
  }
  if (J && !after) {
    memset(U, 0, (size_t)(H * H) * sizeof *U);
    for (int64_t k = 0; k < H; k++) {
      add_row(m, U + k * H, h[k] * m->a[k] * (1 - m->a[k]), 0, k);
      U[k * H + k] += m->a[k];
    }
    /* In rows: product = W_n·U; LAPACK's columns are our rows, so its product is of the transposed, in the other order. */
    lapack_product(&m->lapack, product, U, false, m->W_h + 2 * H * H, false, H, H, H);
  }
  for (int64_t k = 0; k < H; k++) {
    const double r = m->a[k], z = sigmoid(m->a[H + k]);
    const double *row = m->W_h + (2 * H + k) * H;
    double s = after ? m->b_n[k] : 0;
    for (int64_t j = 0; j < H; j++)
      s += row[j] * m->u[j];
    const double n = tanh(x[2 * H + k] + (after ? r * s : s)), slope = (1 - z) * (1 - n * n);
    next[k] = (1 - z) * n + z * h[k];
    if (!J)
      continue;
    double *const of_h = J + k * H;
    if (after) {
      add_row(m, of_h, slope * r, 2, k);
      add_row(m, of_h, slope * s * r * (1 - r), 0, k);
    } else
      for (int64_t j = 0; j < H; j++)
        of_h[j] += slope * product[k * H + j];
    add_row(m, of_h, (h[k] - n) * z * (1 - z), 1, k);
    of_h[k] += z;
  }
}

static unroll_status step(void *ctx, int64_t t, const double *state, double *next, double *jacobian,
                          unroll_error *err) {
  const struct cell_map *m = ctx;
  const int64_t n = m->cell == UNROLL_CELL_LSTM ? 2 * m->H : m->H;
  if (t < 0)
    return fail(err, UNROLL_E_INVALID, "map: step %lld, it must be 0 or more", (long long)t);
  const double *const x = m->x + t % m->steps * m->G * m->H;
  if (jacobian)
    memset(jacobian, 0, (size_t)(n * n) * sizeof *jacobian);
  if (m->cell == UNROLL_CELL_RNN)
    rnn_step(m, x, state, next, jacobian);
  else if (m->cell == UNROLL_CELL_LSTM)
    lstm_step(m, x, state, next, jacobian);
  else
    gru_step(m, x, state, next, jacobian);
  return UNROLL_OK;
}

static void release(unroll_map *map) {
  struct cell_map *m = map->ctx;
  const unroll_allocator allocator = m->allocator;
  mem_free(&allocator, m->W_h);
  mem_free(&allocator, m->b_n);
  mem_free(&allocator, m->x);
  mem_free(&allocator, m->a);
  mem_free(&allocator, m->u);
  mem_free(&allocator, m->M);
  mem_free(&allocator, m);
}

static unroll_status check_values(const char *name, const double *values, int64_t n, unroll_error *err) {
  for (int64_t i = 0; values && i < n; i++)
    if (!isfinite(values[i]))
      return fail(err, UNROLL_E_RANGE, "map: %s has %g at place %lld", name, values[i], (long long)i);
  return UNROLL_OK;
}

static unroll_status check(const unroll_cell_weights *w, int64_t G, unroll_error *err) {
  if (G == 0)
    return fail(err, UNROLL_E_INVALID, "map: cell %d, 1 to %d are known", w->cell, UNROLL_CELL_COUNT - 1);
  if (w->cell == UNROLL_CELL_RNN && w->activation != 0 && w->activation != UNROLL_TANH &&
      w->activation != UNROLL_RELU && w->activation != UNROLL_SIGMOID)
    return fail(err, UNROLL_E_INVALID, "map: activation %d of an rnn, it must be tanh, relu or sigmoid", w->activation);
  if (w->hidden < 1 || w->hidden > LAPACK_MAX_ROWS / 2 || w->input < 0 || w->input > LAPACK_MAX_ROWS)
    return fail(err, UNROLL_E_INVALID, "map: %lld units and %lld inputs, 1 to %d and 0 to %d were expected",
                (long long)w->hidden, (long long)w->input, LAPACK_MAX_ROWS / 2, LAPACK_MAX_ROWS);
  if (!w->W_h || (w->input > 0 && !w->W_x))
    return fail(err, UNROLL_E_INVALID, "map: %s is NULL", w->W_h ? "W_x" : "W_h");
  if (w->x && (w->steps < 1 || w->steps > INT32_MAX))
    return fail(err, UNROLL_E_INVALID, "map: inputs of %lld steps, at least 1 was expected", (long long)w->steps);
  const int64_t rows = G * w->hidden;
  TRY(check_values("W_x", w->input > 0 ? w->W_x : NULL, rows * w->input, err));
  TRY(check_values("W_h", w->W_h, rows * w->hidden, err));
  TRY(check_values("b", w->b, rows, err));
  TRY(check_values("b_n", w->cell == UNROLL_CELL_GRU_AFTER ? w->b_n : NULL, w->hidden, err));
  return check_values("x", w->x, w->x ? w->steps * w->input : 0, err);
}

static bool fill(struct cell_map *m, const unroll_cell_weights *w) {
  const int64_t H = m->H, rows = m->G * H;
  const unroll_allocator *a = &m->allocator;
  uint64_t inputs;
  if (!size_mul((uint64_t)m->steps, (uint64_t)rows, &inputs))
    return false;
  m->W_h = mem_array(a, (uint64_t)(rows * H), sizeof *m->W_h);
  m->b_n = mem_array(a, (uint64_t)H, sizeof *m->b_n);
  m->x = mem_array(a, inputs, sizeof *m->x);
  m->a = mem_array(a, (uint64_t)rows, sizeof *m->a);
  m->u = mem_array(a, (uint64_t)H, sizeof *m->u);
  m->M = mem_array(a, m->cell == UNROLL_CELL_GRU ? 2 * (uint64_t)(H * H) : 1, sizeof *m->M);
  if (!m->W_h || !m->b_n || !m->x || !m->a || !m->u || !m->M)
    return false;
  memcpy(m->W_h, w->W_h, (size_t)(rows * H) * sizeof *m->W_h);
  if (w->b_n)
    memcpy(m->b_n, w->b_n, (size_t)H * sizeof *m->b_n);
  for (int64_t t = 0; t < m->steps; t++)
    for (int64_t i = 0; i < rows; i++) {
      double sum = w->b ? w->b[i] : 0;
      for (int64_t j = 0; w->x && j < m->I; j++)
        sum += w->W_x[i * m->I + j] * w->x[t * m->I + j];
      m->x[t * rows + i] = sum;
    }
  return true;
}

unroll_status unroll_map_of_cell(const unroll_cell_weights *w, const unroll_allocator *allocator, unroll_map **out,
                                 unroll_error *err) {
  if (!w || !out || w->struct_size < sizeof *w)
    return fail(err, UNROLL_E_INVALID, "unroll_map_of_cell: %s",
                !w     ? "weights is NULL"
                : !out ? "map is NULL"
                       : "too small a struct_size");
  const int64_t G = w->cell == UNROLL_CELL_RNN                                       ? 1
                    : w->cell == UNROLL_CELL_LSTM                                    ? 4
                    : w->cell == UNROLL_CELL_GRU || w->cell == UNROLL_CELL_GRU_AFTER ? 3
                                                                                     : 0;
  TRY(check(w, G, err));
  struct cell_map *m = mem_zalloc(allocator, sizeof *m);
  if (!m)
    return fail(err, UNROLL_E_MEMORY, "map: no memory");
  if (allocator)
    m->allocator = *allocator;
  m->cell = w->cell;
  m->activation = w->activation;
  m->I = w->input;
  m->H = w->hidden;
  m->G = G;
  m->steps = w->x ? w->steps : 1;
  unroll_map *map = NULL;
  unroll_status status =
      unroll_map_create(w->cell == UNROLL_CELL_LSTM ? 2 * m->H : m->H, step, m, allocator, &map, err);
  if (status != UNROLL_OK) {
    mem_free(allocator, m);
    return status;
  }
  map->release = release;
  if (!fill(m, w))
    status = fail(err, UNROLL_E_MEMORY, "map: no memory for the weights of %lld units", (long long)m->H);
  else if (m->cell == UNROLL_CELL_GRU)
    status = lapack_open(&m->lapack, err);
  if (status == UNROLL_OK)
    *out = map;
  else
    unroll_map_destroy(map);
  return status;
}
