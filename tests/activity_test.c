/* SPDX-License-Identifier: Apache-2.0 */
/* Gates and states of layers against the graph's, maps against differences and other maps, and the departure from normality against NumPy's. */
#include "devices.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unroll/activity.h>
#include <unroll/nn.h>
#include <unroll/philox.h>

static unroll_error err = UNROLL_ERROR_INIT;
#define assert_ok(expr) assert_status(UNROLL_OK, (expr))
#define assert_error(expr, status, words)                    \
  do {                                                       \
    assert_status((status), (expr));                         \
    if (!strstr(err.message, (words)))                       \
      fail_msg("'%s' is not in '%s'", (words), err.message); \
  } while (0)

enum { T = 6, B = 3, I = 3, H = 4, MOST = 4 * H * H };

struct trial {
  const char *name;
  int32_t cell, activation, peepholes, layer_norm;
  double zoneout_h, zoneout_c;
};
static const struct trial trials[] = {
    {.name = "rnn", .cell = UNROLL_CELL_RNN},
    {.name = "relu", .cell = UNROLL_CELL_RNN, .activation = UNROLL_RELU},
    {.name = "sigmoid", .cell = UNROLL_CELL_RNN, .activation = UNROLL_SIGMOID},
    {.name = "identity", .cell = UNROLL_CELL_RNN, .activation = -1},
    {.name = "rnn, layer norm", .cell = UNROLL_CELL_RNN, .layer_norm = 1},
    {.name = "rnn, zoneout", .cell = UNROLL_CELL_RNN, .zoneout_h = 0.3},
    {.name = "lstm", .cell = UNROLL_CELL_LSTM},
    {.name = "lstm, peepholes", .cell = UNROLL_CELL_LSTM, .peepholes = 1},
    {.name = "lstm, all",
     .cell = UNROLL_CELL_LSTM,
     .peepholes = 1,
     .layer_norm = 1,
     .zoneout_h = 0.2,
     .zoneout_c = 0.4},
    {.name = "gru", .cell = UNROLL_CELL_GRU},
    {.name = "gru, all", .cell = UNROLL_CELL_GRU, .layer_norm = 1, .zoneout_h = 0.1},
    {.name = "gru after", .cell = UNROLL_CELL_GRU_AFTER},
    {.name = "gru after, all", .cell = UNROLL_CELL_GRU_AFTER, .layer_norm = 1, .zoneout_h = 0.1},
};

/* The parameters by their names' first parts, in the order of unroll_cell_weights and _extras. */
static const char *const names[] = {"W_x", "W_h", "b", "b_n", "p_i", "p_f", "p_o", "ln_x", "ln_h", "ln_c", "ln_s"};
enum { NAMES = sizeof names / sizeof names[0] };

/* Random numbers; what a trial has no use for stays away. */
static void draw(double *to, int64_t n, uint64_t seed) {
  const unroll_philox_key key = unroll_philox_site_key(seed, 0, 0);
  for (int64_t i = 0; i < n; i++)
    to[i] = 0.8 * unroll_normal(key, (unroll_u64)i, 0, 0);
}

static int64_t gates_of(int32_t cell) { return cell == UNROLL_CELL_RNN ? 1 : cell == UNROLL_CELL_LSTM ? 4 : 3; }

/* The graph's states [T,B,H] and, of an lstm, c. */
static void run_graph(unroll_device *dev, const struct trial *k, double params[NAMES][MOST], const double *x, double *h,
                      double *c) {
  unroll_graph *g;
  unroll_tensor cells = unroll_none();
  const bool lstm = k->cell == UNROLL_CELL_LSTM;
  assert_ok(unroll_graph_create(NULL, &g, &err));
  const unroll_rnn_options o = {.struct_size = sizeof o,
                                .cell = k->cell,
                                .activation = k->activation > 0 ? k->activation : 0,
                                .f = unroll_activation_of(k->activation < 0 ? UNROLL_ACTIVATION_IDENTITY : 0),
                                .layers = 1,
                                .hidden = H,
                                .inference = 1,
                                .lengths = unroll_none(),
                                .zoneout_h = k->zoneout_h,
                                .zoneout_c = k->zoneout_c,
                                .peepholes = k->peepholes,
                                .layer_norm = k->layer_norm,
                                .cells = lstm ? &cells : NULL};
  unroll_output(unroll_rnn(unroll_input(g, "x", UNROLL_F64, 3, (int64_t[]){T, B, I}), "r", &o, NULL, NULL), "y");
  if (lstm)
    unroll_output(cells, "c");
  model m = model_open(g, dev, false);
  for (int i = 0; i < NAMES; i++) {
    char name[32];
    snprintf(name, sizeof name, "r.%s.0.0", names[i]);
    const unroll_tensor_info info = unroll_tensor_describe(unroll_graph_find(g, name));
    if (info.rank >= 0)
      model_put(&m, name, params[i], info.shape[0] * (info.rank > 1 ? info.shape[1] : 1));
  }
  model_put(&m, "x", x, T * B * I);
  model_run(&m);
  double *const got = model_get(&m, "y", T * B * H);
  memcpy(h, got, T * B * H * sizeof *h);
  free(got);
  if (lstm) {
    double *const got_c = model_get(&m, "c", T * B * H);
    memcpy(c, got_c, T * B * H * sizeof *c);
    free(got_c);
  }
  model_close(&m);
  unroll_graph_destroy(g);
}

/* x [steps,I] */
static void describe(const struct trial *k, double params[NAMES][MOST], const double *x, int64_t steps,
                     unroll_cell_weights *w, unroll_cell_extras *e) {
  *w = (unroll_cell_weights){.struct_size = sizeof *w,
                             .cell = k->cell,
                             .activation = k->activation > 0 ? k->activation : 0,
                             .input = I,
                             .hidden = H,
                             .W_x = params[0],
                             .W_h = params[1],
                             .b = params[2],
                             .b_n = params[3],
                             .x = x,
                             .steps = steps};
  const bool lstm = k->cell == UNROLL_CELL_LSTM;
  *e = (unroll_cell_extras){.struct_size = sizeof *e,
                            .linear = k->activation < 0,
                            .p_i = k->peepholes ? params[4] : NULL,
                            .p_f = k->peepholes ? params[5] : NULL,
                            .p_o = k->peepholes ? params[6] : NULL,
                            .ln_x = k->layer_norm ? params[7] : NULL,
                            .ln_h = k->layer_norm ? params[8] : NULL,
                            .ln_c = k->layer_norm && lstm ? params[9] : NULL,
                            .ln_s = k->layer_norm && lstm ? params[10] : NULL,
                            .zoneout_h = k->zoneout_h,
                            .zoneout_c = k->zoneout_c};
}

static void trace(const struct trial *k, double params[NAMES][MOST], const double *x, int64_t row, double *gates,
                  double *states) {
  double own[T * I];
  unroll_cell_weights w;
  unroll_cell_extras e;
  for (int64_t t = 0; t < T; t++)
    memcpy(own + t * I, x + (t * B + row) * I, I * sizeof *own);
  describe(k, params, own, T, &w, &e);
  assert_ok(unroll_cell_trace(&w, &e, NULL, gates, states, &err));
}

/* Are these the gates that made the states? Without options, by the cells' own equations. */
static void check_gates(const struct trial *k, const double *gates, const double *states) {
  const int64_t n = k->cell == UNROLL_CELL_LSTM ? 2 * H : H, G = gates_of(k->cell);
  for (int64_t t = 1; t < T; t++)
    for (int64_t u = 0; u < H; u++) {
      const double *const g = gates + t * G * H + u, *const was = states + (t - 1) * n + u,
                          *const is = states + t * n + u;
      if (k->cell == UNROLL_CELL_LSTM) {
        assert_true(fabs(is[H] - (g[H] * was[H] + g[0] * g[2 * H])) < 1e-15);
        assert_true(fabs(is[0] - g[3 * H] * tanh(is[H])) < 1e-15);
      } else if (k->cell == UNROLL_CELL_RNN)
        assert_true(is[0] == g[0]);
      else
        assert_true(fabs(is[0] - ((1 - g[H]) * g[2 * H] + g[H] * was[0])) < 1e-15);
    }
}

/* Sums of a dozen products in double in another order, over six steps: 1e-13. */
static void states_are_the_graphs(void **state) {
  double params[NAMES][MOST], x[T * B * I], h[T * B * H], c[T * B * H];
  for (int i = 0; i < NAMES; i++)
    draw(params[i], MOST, 10 + (uint64_t)i);
  draw(x, T * B * I, 1);
  FOR_EACH_DEVICE(dev, *state, UNROLL_F64) {
    for (size_t i = 0; i < sizeof trials / sizeof trials[0]; i++) {
      const struct trial *k = &trials[i];
      const int64_t n = k->cell == UNROLL_CELL_LSTM ? 2 * H : H;
      run_graph(dev, k, params, x, h, c);
      for (int64_t row = 0; row < B; row++) {
        double gates[T * 4 * H], states[T * 2 * H], want[T * 2 * H];
        trace(k, params, x, row, gates, states);
        for (int64_t t = 0; t < T; t++) {
          memcpy(want + t * n, h + (t * B + row) * H, H * sizeof *want);
          if (n > H)
            memcpy(want + t * n + H, c + (t * B + row) * H, H * sizeof *want);
        }
        assert_close(k->name, states, want, T * n, 1e-13);
        if (!k->layer_norm && k->zoneout_h == 0)
          check_gates(k, gates, states);
      }
    }
  }
}

/*
 * Of every trial the map's step is the trace's, and its Jacobian that of central differences: with steps of 1e-6 their error
 * is about 1e-12 of the third derivative and 1e-10 of rounding.
 */
static void maps_are_the_traces(void **state) {
  (void)state;
  double params[NAMES][MOST], x[T * B * I], at[2 * H];
  for (int i = 0; i < NAMES; i++)
    draw(params[i], MOST, 50 + (uint64_t)i);
  draw(x, T * B * I, 3);
  draw(at, 2 * H, 4);
  for (size_t i = 0; i < sizeof trials / sizeof trials[0]; i++) {
    const struct trial *k = &trials[i];
    const int64_t n = k->cell == UNROLL_CELL_LSTM ? 2 * H : H;
    unroll_cell_weights w;
    unroll_cell_extras e;
    double next[2 * H], want[2 * H], J[4 * H * H], both[2][2 * H], moved[2 * H];
    unroll_map *map;
    describe(k, params, x + 2 * I, 2, &w, &e);
    assert_ok(unroll_map_of_layer(&w, &e, NULL, &map, &err));
    assert_int_equal(unroll_map_count(map), n);
    for (int64_t t = 0; t < 3; t++) { /* the third input is the first again */
      unroll_cell_weights one = w;
      one.x = w.x + t % 2 * I;
      one.steps = 1;
      assert_ok(unroll_cell_trace(&one, &e, at, NULL, want, &err));
      assert_ok(unroll_map_step(map, t, at, next, J, &err));
      assert_memory_equal(next, want, (size_t)n * sizeof *next);
      for (int64_t j = 0; j < n; j++) {
        for (int side = 0; side < 2; side++) {
          memcpy(moved, at, sizeof moved);
          moved[j] += side ? 1e-6 : -1e-6;
          assert_ok(unroll_map_step(map, t, moved, both[side], NULL, &err));
        }
        for (int64_t u = 0; u < n; u++)
          if (fabs((both[1][u] - both[0][u]) / 2e-6 - J[u * n + j]) > 1e-8)
            fail_msg("%s: [%d,%d] is %.12g, by differences %.12g", k->name, (int)u, (int)j, J[u * n + j],
                     (both[1][u] - both[0][u]) / 2e-6);
      }
    }
    unroll_map_destroy(map);
  }
}

/* Without options it is unroll_map_of_cell's. */
static void maps_of_plain_cells(void **state) {
  (void)state;
  double params[NAMES][MOST], x[T * B * I], at[2 * H];
  for (int i = 0; i < NAMES; i++)
    draw(params[i], MOST, 70 + (uint64_t)i);
  draw(x, T * B * I, 5);
  draw(at, 2 * H, 6);
  for (size_t i = 0; i < sizeof trials / sizeof trials[0]; i++) {
    const struct trial *k = &trials[i];
    const int64_t n = k->cell == UNROLL_CELL_LSTM ? 2 * H : H;
    if (k->layer_norm || k->peepholes || k->zoneout_h > 0 || k->activation < 0)
      continue;
    unroll_cell_weights w;
    unroll_cell_extras e;
    double next[2][2 * H], J[2][4 * H * H];
    unroll_map *maps[2];
    describe(k, params, x, T, &w, &e);
    assert_ok(unroll_map_of_layer(&w, &e, NULL, &maps[0], &err));
    assert_ok(unroll_map_of_cell(&w, NULL, &maps[1], &err));
    for (int m = 0; m < 2; m++)
      assert_ok(unroll_map_step(maps[m], 3, at, next[m], J[m], &err));
    assert_close(k->name, next[0], next[1], n, 1e-14);
    assert_close(k->name, J[0], J[1], n * n, 1e-14);
    unroll_map_destroy(maps[0]);
    unroll_map_destroy(maps[1]);
  }
}

static void goes_on_from_a_state(void **state) {
  (void)state;
  double params[NAMES][MOST], x[T * B * I], gates[T * 4 * H], states[T * 2 * H], rest[T * 2 * H];
  for (int i = 0; i < NAMES; i++)
    draw(params[i], MOST, 30 + (uint64_t)i);
  draw(x, T * B * I, 2);
  unroll_cell_weights w = {.struct_size = sizeof w,
                           .cell = UNROLL_CELL_LSTM,
                           .input = I,
                           .hidden = H,
                           .W_x = params[0],
                           .W_h = params[1],
                           .x = x,
                           .steps = T};
  assert_ok(unroll_cell_trace(&w, NULL, NULL, gates, states, &err));
  w.x = x + 2 * I;
  w.steps = T - 2;
  assert_ok(unroll_cell_trace(&w, NULL, states + 2 * H, NULL, rest, &err));
  assert_memory_equal(rest, states + 4 * H, (T - 2) * 2 * H * sizeof *rest);
}

/* What is not finite is written as it is, from the step on where it comes up. */
static void keeps_what_is_not_finite(void **state) {
  (void)state;
  const double W_x[] = {1}, W_h[] = {1e200}, x[] = {1, 1, 1, 1};
  double states[4];
  const unroll_cell_extras e = {.struct_size = sizeof e, .linear = 1};
  const unroll_cell_weights w = {.struct_size = sizeof w,
                                 .cell = UNROLL_CELL_RNN,
                                 .input = 1,
                                 .hidden = 1,
                                 .W_x = W_x,
                                 .W_h = W_h,
                                 .x = x,
                                 .steps = 4};
  assert_ok(unroll_cell_trace(&w, &e, NULL, NULL, states, &err));
  assert_true(isfinite(states[1]));
  assert_true(isinf(states[2]) && isinf(states[3]));
}

static uint64_t splitmix(uint64_t *s) {
  uint64_t z = *s += UINT64_C(0x9E3779B97F4A7C15);
  z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
  z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
  return z ^ z >> 31;
}

static void departures_are_known(void **state) {
  (void)state;
  enum { N = 100 };
  static double J[N * N], re[N], im[N];
  const double shift[] = {0, 3, 0, 0}, turn[] = {0.6, -0.8, 0.8, 0.6};
  double departure;
  assert_ok(unroll_eigenvalues(shift, 2, re, im, &err));
  assert_ok(unroll_departure_from_normality(shift, 2, re, im, &departure, &err));
  assert_true(fabs(departure - 3) < 1e-15); /* nilpotent: all of its norm */
  assert_ok(unroll_eigenvalues(turn, 2, re, im, &err));
  assert_ok(unroll_departure_from_normality(turn, 2, re, im, &departure, &err));
  assert_true(departure < 1e-7); /* a rotation is normal; the root of a rounding of 1e-16 */
  uint64_t s = 20240607;
  for (int i = 0; i < N * N; i += 2) {
    const double a = ((double)(splitmix(&s) >> 11) + 0.5) * 0x1p-53, b = ((double)(splitmix(&s) >> 11) + 0.5) * 0x1p-53;
    J[i] = sqrt(-2 * log(a)) * cos(2 * acos(-1) * b) / 10;
    J[i + 1] = sqrt(-2 * log(a)) * sin(2 * acos(-1) * b) / 10;
  }
  assert_ok(unroll_eigenvalues(J, N, re, im, &err));
  assert_ok(unroll_departure_from_normality(J, N, re, im, &departure, &err));
  if (fabs(departure - 7.100187014414392) > 1e-11) /* NumPy's; rounding of eigenvalues as in diagnose_test */
    fail_msg("%.15g", departure);
}

static void wrong_input(void **state) {
  (void)state;
  const double one[4] = {1, 1, 1, 1};
  double states[8];
  unroll_cell_weights w = {.struct_size = sizeof w, .cell = UNROLL_CELL_RNN, .hidden = 1, .W_h = one, .steps = 1};
  unroll_cell_extras e = {.struct_size = sizeof e};
  assert_ok(unroll_cell_trace(&w, &e, NULL, NULL, states, &err));
  assert_error(unroll_cell_trace(NULL, &e, NULL, NULL, states, &err), UNROLL_E_INVALID, "weights is NULL");
  e.ln_x = one;
  assert_error(unroll_cell_trace(&w, &e, NULL, NULL, states, &err), UNROLL_E_INVALID, "gains of both products");
  e.ln_x = NULL;
  e.p_i = e.p_f = e.p_o = one;
  assert_error(unroll_cell_trace(&w, &e, NULL, NULL, states, &err), UNROLL_E_INVALID, "peepholes are an lstm's");
  e = (unroll_cell_extras){.struct_size = sizeof e, .zoneout_h = 1};
  assert_error(unroll_cell_trace(&w, &e, NULL, NULL, states, &err), UNROLL_E_INVALID, "zoneout of h 1");
  w.steps = 0;
  assert_error(unroll_cell_trace(&w, NULL, NULL, NULL, states, &err), UNROLL_E_INVALID, "0 steps");
  w.steps = 1;
  w.input = 2;
  assert_error(unroll_cell_trace(&w, NULL, NULL, NULL, states, &err), UNROLL_E_INVALID, "W_x is NULL");
  w.input = 0;
  w.cell = 9;
  assert_error(unroll_cell_trace(&w, NULL, NULL, NULL, states, &err), UNROLL_E_INVALID, "cell 9");
  w.cell = UNROLL_CELL_RNN;
  w.W_h = NULL;
  assert_error(unroll_cell_trace(&w, NULL, NULL, NULL, states, &err), UNROLL_E_INVALID, "W_h is NULL");
  assert_error(unroll_departure_from_normality(NULL, 1, one, one, states, &err), UNROLL_E_INVALID, "an array is NULL");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      {"states_are_the_graphs_cpu", states_are_the_graphs, NULL, NULL, "cpu"},
      cmocka_unit_test(maps_are_the_traces),
      cmocka_unit_test(maps_of_plain_cells),
      cmocka_unit_test(goes_on_from_a_state),
      cmocka_unit_test(keeps_what_is_not_finite),
      cmocka_unit_test(departures_are_known),
      cmocka_unit_test(wrong_input),
  };
  return cmocka_run_group_tests(tests, devices_open, devices_close);
}
