/* SPDX-License-Identifier: Apache-2.0 */
/* Spectra, fixed points and Lyapunov exponents against exact values and published ones. */
#include "diagnose/map.h"
#include "statuses.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unroll/diagnose.h>
#include <unroll/philox.h>

static unroll_error err = UNROLL_ERROR_INIT;

static void assert_near(const char *what, double got, double want, double tolerance) {
  if (!(fabs(got - want) <= tolerance))
    fail_msg("%s: %.15g, expected %.15g within %g", what, got, want, tolerance);
}

/* ---- a matrix that every language can make ---- */

#define N 100
static double J[N * N], first_state[N];

static uint64_t splitmix(uint64_t *s) {
  uint64_t z = *s += UINT64_C(0x9E3779B97F4A7C15);
  z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
  z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
  return z ^ z >> 31;
}

static int make_matrix(void **state) {
  (void)state;
  uint64_t s = 20240607;
  for (int i = 0; i < N * N + N; i += 2) {
    const double a = ((double)(splitmix(&s) >> 11) + 0.5) * 0x1p-53, b = ((double)(splitmix(&s) >> 11) + 0.5) * 0x1p-53;
    const double r = sqrt(-2 * log(a)), both[2] = {r * cos(2 * acos(-1) * b), r * sin(2 * acos(-1) * b)};
    for (int k = 0; k < 2; k++)
      if (i + k < N * N)
        J[i + k] = both[k] / 10;
      else
        first_state[i + k - N * N] = both[k] / 2;
  }
  return 0;
}

/* ---- spectra ---- */

static void eigenvalues_are_known(void **state) {
  (void)state;
  double radius, re[N], im[N], sum = 0, product = 0;
  /* NumPy's of the same matrix. Rounding of a normal-ish matrix of 100: 1e-11. */
  assert_near("J[99][99]", J[N * N - 1], 0.18714298701073517, 1e-15);
  assert_ok(unroll_spectral_radius(J, N, &radius, &err));
  assert_near("spectral radius", radius, 1.00493893084, 1e-11);
  assert_ok(unroll_eigenvalues(J, N, re, im, &err));
  for (int i = 0; i < N; i++) {
    sum += re[i];
    product += J[i * N + i];
    assert_true(i == 0 || hypot(re[i], im[i]) <= hypot(re[i - 1], im[i - 1]) * (1 + 1e-12));
    if (im[i] > 0)
      assert_true(i + 1 < N && im[i + 1] == -im[i] && re[i + 1] == re[i]);
  }
  assert_near("trace", sum, product, 1e-11);
  /* Exact: a rotation by 1 rad and 3 times it, a nilpotent shift, a triangle. */
  const double turn[] = {3 * cos(1), -3 * sin(1), 3 * sin(1), 3 * cos(1)}, shift[] = {0, 1, 0, 0, 0, 1, 0, 0, 0};
  const double triangle[] = {2, 7, 5, 0, -4, 1, 0, 0, 1};
  assert_ok(unroll_eigenvalues(turn, 2, re, im, &err));
  assert_near("3·cos 1", re[0], 3 * cos(1), 1e-15);
  assert_near("3·sin 1", im[0], 3 * sin(1), 1e-15);
  assert_ok(unroll_spectral_radius(shift, 3, &radius, &err));
  assert_near("of a shift", radius, 0, 1e-5); /* defective: the cube root of a rounding */
  assert_ok(unroll_eigenvalues(triangle, 3, re, im, &err));
  assert_near("first", re[0], -4, 1e-14);
  assert_near("second", re[1], 2, 1e-14);
  assert_near("third", re[2], 1, 1e-14);
}

static void singular_values_are_known(void **state) {
  (void)state;
  double values[N], squares = 0;
  assert_ok(unroll_singular_values(J, N, N, values, &err));
  assert_near("σ1", values[0], 1.95524867367, 1e-11);
  for (int i = 0; i < N; i++)
    squares += values[i] * values[i];
  assert_near("Frobenius", sqrt(squares), 10.0926012295, 1e-10);
  const double a[] = {3, 0, 0, 0, -5, 0}; /* [2,3] */
  assert_ok(unroll_singular_values(a, 2, 3, values, &err));
  assert_near("of [2,3]", values[0], 5, 1e-14);
  assert_near("of [2,3]", values[1], 3, 1e-14);
}

/* ---- layers as maps; insides_golden_test has their Jacobians ---- */

static double number(int site, int64_t i) {
  return unroll_normal(unroll_philox_site_key(11, 0, (uint32_t)site), (uint64_t)i, 0, 0);
}

typedef struct net {
  unroll_rnn_options rnn;
  unroll_network_weight weights[4];
  unroll_network net;
} net;
/* One layer; b of zeros where it is NULL. */
static void net_make(net *n, int32_t cell, int32_t activation, int64_t hidden, const double *W_h, const double *b) {
  static const double zeros[N] = {0};
  const uint64_t H = (uint64_t)hidden, GH = (uint64_t)unroll_gate_count(cell) * H;
  assert_true(GH <= N);
  *n = (net){.rnn = {.struct_size = sizeof n->rnn,
                     .cell = cell,
                     .activation = activation,
                     .layers = 1,
                     .hidden = hidden,
                     .lengths = unroll_none()},
             .weights = {{"W_h.0.0", W_h, GH * H}, {"b.0.0", b ? b : zeros, GH}, {"b_n.0.0", zeros, H}}};
  n->net = (unroll_network){
      .struct_size = sizeof n->net, .n_weights = 3, .options = &n->rnn, .input = 1, .weights = n->weights};
}

static unroll_map *map_of(const net *n) {
  unroll_map *map;
  assert_ok(unroll_map_of_layer(&n->net, 0, 0, NULL, 0, NULL, NULL, &map, &err));
  return map;
}

/* ---- fixed points ---- */

/* h = tanh(2h) has the solutions 0 and ±0.9575040240772688, so W = 2·I_3 has 27 fixed points. */
static void twenty_seven_points(void **state) {
  (void)state;
  const double W[] = {2, 0, 0, 0, 2, 0, 0, 0, 2}, root = 0.9575040240772688;
  enum { STARTS = 600 };
  static double starts[STARTS * 3], points[STARTS * 3];
  static unroll_fixed_point found[STARTS];
  net three;
  int64_t n, classes[4] = {0}, all = 0;
  net_make(&three, UNROLL_CELL_RNN, 0, 3, W, NULL);
  unroll_map *const map = map_of(&three);
  for (int64_t i = 0; i < STARTS * 3; i++)
    starts[i] = 0.8 * number(20, i);
  assert_ok(unroll_fixed_points(map, starts, STARTS, NULL, points, found, &n, &err));
  assert_int_equal(n, 27);
  for (int64_t k = 0; k < n; k++) {
    int64_t zeros = 0;
    for (int i = 0; i < 3; i++) {
      const double v = fabs(points[k * 3 + i]);
      zeros += v < 0.5;
      assert_near("coordinate", v, v < 0.5 ? 0 : root, 1e-9);
    }
    /* The slope at 0 is 2, at ±root 2·(1 - root²) = 0.16637.. */
    assert_int_equal(found[k].unstable, zeros);
    assert_near("radius", found[k].radius, zeros ? 2 : 2 * (1 - root * root), 1e-8);
    assert_true(found[k].speed <= 1e-20 && found[k].starts > 0);
    classes[zeros]++;
    all += found[k].starts;
  }
  assert_true(classes[0] == 8 && classes[1] == 12 && classes[2] == 6 && classes[3] == 1);
  assert_true(all <= STARTS && all > STARTS * 9 / 10);
  unroll_map_destroy(map);
}

/* Of every cell with a W_h: with small weights and a constant input one stable point, where iterating the cell ends too. */
static void cells_come_to_rest(void **state) {
  (void)state;
  enum { I = 3, H = 5 };
  const int32_t cells[] = {UNROLL_CELL_RNN, UNROLL_CELL_LSTM, UNROLL_CELL_GRU, UNROLL_CELL_GRU_AFTER,
                           UNROLL_RNN_COUPLED_LSTM};
  double W_x[4 * H * I], W_h[4 * H * H], b[4 * H], x[I];
  double *const parts[] = {W_x, W_h, b, x};
  const int64_t sizes[] = {4 * H * I, 4 * H * H, 4 * H, I};
  for (int p = 0; p < 4; p++)
    for (int64_t i = 0; i < sizes[p]; i++)
      parts[p][i] = (p == 1 ? 0.2 : 0.7) * number(p, i);
  for (int k = 0; k < 5; k++) {
    net one;
    unroll_map *map;
    net_make(&one, cells[k], 0, H, W_h, b);
    one.weights[3] = (unroll_network_weight){"W_x.0.0", W_x, (uint64_t)(unroll_gate_count(cells[k]) * H) * I};
    one.net.n_weights = 4;
    one.net.input = I;
    assert_ok(unroll_map_of_layer(&one.net, 0, 0, x, 1, NULL, NULL, &map, &err));
    const int64_t n = unroll_map_count(map);
    double h[2 * H], next[2 * H], starts[4 * 2 * H], points[4 * 2 * H];
    unroll_fixed_point found[4];
    int64_t n_found;
    for (int64_t i = 0; i < n; i++)
      h[i] = 0.7 * number(5, i);
    for (int64_t t = 0; t < 2000; t++) {
      assert_ok(unroll_map_step(map, t, h, next, NULL, &err));
      memcpy(h, next, sizeof h);
    }
    for (int64_t i = 0; i < 4 * n; i++)
      starts[i] = 0.5 * number(30, i);
    assert_ok(unroll_fixed_points(map, starts, 4, NULL, points, found, &n_found, &err));
    assert_int_equal(n_found, 1);
    assert_int_equal(found[0].unstable, 0);
    assert_int_equal(found[0].starts, 4);
    assert_true(found[0].radius < 1);
    for (int64_t i = 0; i < n; i++)
      assert_near("coordinate", points[i], h[i], 1e-9);
    unroll_map_destroy(map);
  }
}

/* ---- Lyapunov exponents ---- */

struct random_network {
  double gain;
  int64_t from;       /* the first step that counts */
  double logs, steps; /* Σ ln(1 - h²) of those that do */
};
static unroll_status random_step(void *ctx, int64_t t, const double *state, double *next, double *jacobian,
                                 unroll_error *e) {
  struct random_network *r = ctx;
  (void)e;
  for (int i = 0; i < N; i++) {
    double sum = 0;
    for (int j = 0; j < N; j++)
      sum += r->gain * J[i * N + j] * state[j];
    next[i] = tanh(sum);
    const double slope = 1 - next[i] * next[i];
    if (t >= r->from)
      r->logs += log(slope);
    for (int j = 0; jacobian && j < N; j++)
      jacobian[i * N + j] = slope * r->gain * J[i * N + j];
  }
  r->steps += t >= r->from;
  return UNROLL_OK;
}

static unroll_lyapunov_info exponents_of(unroll_map_fn step, void *ctx, int64_t n, const double *begin,
                                         const unroll_lyapunov_options *o, double *exponents, double *errors) {
  double state[N];
  unroll_map *map;
  unroll_lyapunov_info info;
  memcpy(state, begin, (size_t)n * sizeof *state);
  assert_ok(unroll_map_create(n, step, ctx, NULL, &map, &err));
  assert_ok(unroll_lyapunov(map, state, o, exponents, errors, &info, &err));
  unroll_map_destroy(map);
  return info;
}

static void exponents_of_random_networks(void **state) {
  (void)state;
  double exponents[N], errors[N], re[N], im[N], determinant = 0;
  assert_ok(unroll_eigenvalues(J, N, re, im, &err));
  for (int i = 0; i < N; i++)
    determinant += log(hypot(re[i], im[i]));
  /* It dies out at 0, where the Jacobian is g·J: the mean over 3000 steps is within a turn of a pair's angle, 1e-3. */
  struct random_network r = {.gain = 0.5, .from = INT64_MAX};
  unroll_lyapunov_options o = {.struct_size = sizeof o, .count = 4, .transient = 1000, .steps = 3000, .every = 5};
  exponents_of(random_step, &r, N, first_state, &o, exponents, errors);
  for (int i = 0; i < 3; i++)
    assert_near("λ at g = 0.5", exponents[i], log(0.5 * hypot(re[i], im[i])), 1e-3);
  /* Chaos, against NumPy's of 180,000 steps: within four standard errors of both. */
  r.gain = 2;
  o = (unroll_lyapunov_options){.struct_size = sizeof o, .count = 30, .transient = 1000, .steps = 6000, .every = 5};
  const unroll_lyapunov_info info = exponents_of(random_step, &r, N, first_state, &o, exponents, errors);
  const double want[] = {0.1463, 0.1360, 0.1252};
  for (int i = 0; i < 3; i++) {
    assert_near("λ at g = 2", exponents[i], want[i], 4 * hypot(errors[i], 3e-4));
    assert_true(errors[i] > 0 && errors[i] < 0.004);
  }
  assert_near("entropy", info.entropy, 1.03, 0.08 * 1.03);
  assert_near("dimension", info.dimension, 25.4, 1);
  assert_true(info.condition > 1 && info.condition < 1e6);
  /* The sum of all is that of the logarithms of the determinants, whatever the trajectory. */
  o = (unroll_lyapunov_options){.struct_size = sizeof o, .transient = 100, .steps = 300, .every = 3, .seed = 5};
  r = (struct random_network){.gain = 1.5, .from = 110};
  const unroll_lyapunov_info all = exponents_of(random_step, &r, N, first_state, &o, exponents, NULL);
  assert_true(r.steps == 300);
  assert_near("sum", all.sum, determinant + N * log(1.5) + r.logs / 300, 1e-9);
}

/* A few directions go through a layer by products, many by its Jacobian: they are the same ones. */
static void few_exponents_are_the_first_of_all(void **state) {
  (void)state;
  enum { FEW = 3, MANY = 30 };
  static double W[N * N];
  double exponents[2][N], re[N], im[N];
  net n;
  assert_ok(unroll_eigenvalues(J, N, re, im, &err));
  for (int i = 0; i < N * N; i++)
    W[i] = 0.5 * J[i];
  net_make(&n, UNROLL_CELL_RNN, 0, N, W, NULL);
  unroll_map *const map = map_of(&n);
  assert_non_null(map->product);
  for (int k = 0; k < 2; k++) {
    double h[N];
    memcpy(h, first_state, sizeof h);
    const unroll_lyapunov_options o = {
        .struct_size = sizeof o, .count = k ? MANY : FEW, .transient = 1000, .steps = 3000, .every = 5};
    assert_ok(unroll_lyapunov(map, h, &o, exponents[k], NULL, NULL, &err));
  }
  for (int i = 0; i < FEW; i++) {
    assert_near("few and many", exponents[0][i], exponents[1][i], 1e-9);
    assert_near("λ at g = 0.5", exponents[0][i], log(0.5 * hypot(re[i], im[i])), 1e-3);
  }
  unroll_map_destroy(map);
}

static void exponents_that_are_known(void **state) {
  (void)state;
  double exponents[N], errors[N];
  unroll_map *map;
  net n;
  unroll_lyapunov_options o = {.struct_size = sizeof o, .transient = 500, .steps = 400};
  /* One unit: a fixed point, or a cycle of two. */
  const double w[] = {2, -2, 3}, want[] = {-1.793528506542, -1.793528506542, -3.489607502144};
  for (int k = 0; k < 3; k++) {
    double h = 0.3;
    net_make(&n, UNROLL_CELL_RNN, 0, 1, &w[k], NULL);
    map = map_of(&n);
    assert_ok(unroll_lyapunov(map, &h, &o, exponents, NULL, NULL, &err));
    assert_near("one unit", exponents[0], want[k], 1e-11);
    assert_near("its state", fabs(h), k == 2 ? h * (h > 0 ? 1 : -1) : 0.9575040240772688, 1e-12);
    unroll_map_destroy(map);
  }
  /* Two units that turn: a circle, on which one direction neither grows nor dies; 20,000 steps leave 1e-4. */
  const double turn[] = {1.5 * cos(1), -1.5 * sin(1), 1.5 * sin(1), 1.5 * cos(1)};
  double h[] = {0.2, 0.1};
  unroll_lyapunov_info info;
  o.steps = 20000;
  net_make(&n, UNROLL_CELL_RNN, 0, 2, turn, NULL);
  map = map_of(&n);
  assert_ok(unroll_lyapunov(map, h, &o, exponents, errors, &info, &err));
  assert_near("along the circle", exponents[0], 0, 1e-4);
  assert_near("across it", exponents[1], -0.96196, 1e-4);
  unroll_map_destroy(map);
  /* The tent map in two rectified units: chaos of ln 1.9, and a direction that is lost at once. */
  const double m = 1.9, tent[] = {m, -2 * m, m, -2 * m}, b[] = {0, -0.5};
  double at[] = {0.3, 0};
  net_make(&n, UNROLL_CELL_RNN, UNROLL_RELU, 2, tent, b);
  map = map_of(&n);
  assert_ok(unroll_lyapunov(map, at, &o, exponents, errors, &info, &err));
  assert_near("tent", exponents[0], log(m), 1e-4);
  assert_true(exponents[1] < -20);
  assert_near("its entropy", info.entropy, log(m), 1e-4);
  unroll_map_destroy(map);
}

static unroll_status fresh_matrix(void *ctx, int64_t t, const double *state, double *next, double *jacobian,
                                  unroll_error *e) {
  const int64_t n = *(const int64_t *)ctx;
  (void)e;
  for (int64_t i = 0; i < n; i++)
    next[i] = state[i];
  for (int64_t i = 0; jacobian && i < n * n; i++)
    jacobian[i] = unroll_normal(unroll_philox_site_key(3, 0, 0), (uint64_t)t, 0, (uint32_t)i) / sqrt((double)n);
  return UNROLL_OK;
}
static unroll_status constant_matrix(void *ctx, int64_t t, const double *state, double *next, double *jacobian,
                                     unroll_error *e) {
  const double *slopes = ctx;
  (void)e;
  (void)t;
  for (int i = 0; i < 3; i++)
    next[i] = 0 * state[i];
  for (int i = 0; jacobian && i < 9; i++)
    jacobian[i] = i % 4 ? 0 : slopes[i / 4];
  return UNROLL_OK;
}

/* λ_i = (ln(2/n) + ψ((n-i+1)/2))/2 of products of matrices with entries N(0, 1/n) (Newman 1986). */
static void exponents_of_random_products(void **state) {
  (void)state;
  int64_t n = 20;
  double exponents[N], errors[N], begin[N] = {0};
  unroll_lyapunov_options o = {.struct_size = sizeof o, .steps = 4000};
  exponents_of(fresh_matrix, &n, n, begin, &o, exponents, errors);
  for (int64_t i = 1; i <= n; i++) {
    const double euler = 0.57721566490153286;
    double x = (double)(n - i + 1) / 2, psi = (n - i + 1) % 2 ? -euler - 2 * log(2) : -euler;
    for (double y = (n - i + 1) % 2 ? 0.5 : 1; y < x; y++)
      psi += 1 / y;
    assert_near("of a product", exponents[i - 1], (log(2 / (double)n) + psi) / 2, 4 * errors[i - 1]);
  }
  double slopes[] = {0.25, 2, -1.5};
  o.steps = 50;
  o.transient = 2000; /* the directions need 100 turns: (1.5/2)^100 */
  const unroll_lyapunov_info info = exponents_of(constant_matrix, slopes, 3, begin, &o, exponents, errors);
  assert_near("first", exponents[0], log(2), 1e-6);
  assert_near("second", exponents[1], log(1.5), 1e-6);
  assert_near("third", exponents[2], log(0.25), 1e-6);
  assert_near("entropy", info.entropy, log(3), 1e-6);
  assert_near("dimension", info.dimension, 2 + log(3) / log(4), 1e-6);
}

/* ---- what is refused ---- */

static unroll_status explodes(void *ctx, int64_t t, const double *state, double *next, double *jacobian,
                              unroll_error *e) {
  (void)ctx;
  (void)t;
  (void)e;
  *next = *state * 1e10 + 1;
  if (jacobian)
    *jacobian = 1e10;
  return UNROLL_OK;
}

static int stops_after(void *ctx) { return (*(int64_t *)ctx)-- == 0; }

static void wrong_input(void **state) {
  (void)state;
  double a[] = {1, 2, (double)NAN, 4}, re[2], im[2], radius;
  assert_error(unroll_eigenvalues(a, 2, re, im, &err), UNROLL_E_RANGE, "nan at row 1, column 0");
  assert_error(unroll_eigenvalues(a, 0, re, im, &err), UNROLL_E_INVALID, "0 rows and 0 columns");
  assert_error(unroll_eigenvalues(NULL, 2, re, im, &err), UNROLL_E_INVALID, "NULL");
  assert_error(unroll_spectral_radius(a, 20000, &radius, &err), UNROLL_E_INVALID, "from 1 to 16384");
  assert_error(unroll_singular_values(a, 2, 2, re, &err), UNROLL_E_RANGE, "nan at row 1");
  unroll_map *map = NULL;
  const double nothing = 0;
  net bad;
  net_make(&bad, UNROLL_CELL_RNN, 0, 2, a, NULL);
  assert_error(unroll_map_of_layer(&bad.net, 0, 0, NULL, 0, NULL, NULL, &map, &err), UNROLL_E_RANGE,
               "W_h.0.0 has nan at place 2");
  assert_error(unroll_map_of_layer(&bad.net, 1, 0, NULL, 0, NULL, NULL, &map, &err), UNROLL_E_RANGE, "layer 1");
  assert_error(unroll_map_of_layer(&bad.net, 0, 1, NULL, 0, NULL, NULL, &map, &err), UNROLL_E_RANGE, "direction 1");
  assert_error(unroll_map_of_layer(&bad.net, 0, 0, a + 2, 1, NULL, NULL, &map, &err), UNROLL_E_RANGE, "x of step 0");
  assert_error(unroll_map_of_layer(&bad.net, 0, 0, a, 0, NULL, NULL, &map, &err), UNROLL_E_RANGE, "0 steps");
  assert_error(unroll_map_of_layer(NULL, 0, 0, NULL, 0, NULL, NULL, &map, &err), UNROLL_E_INVALID, "missing");
  net_make(&bad, UNROLL_CELL_RNN, 0, 1, &nothing, NULL);
  assert_error(unroll_map_of_layer(&bad.net, 0, 0, a, 1, NULL, NULL, &map, &err), UNROLL_E_INVALID,
               "W_x.0.0 is missing, of 1 numbers");
  bad.weights[1].count = 2;
  assert_error(unroll_map_of_layer(&bad.net, 0, 0, NULL, 0, NULL, NULL, &map, &err), UNROLL_E_INVALID,
               "b.0.0 has 2 numbers, expected 1");
  bad.rnn.peepholes = 1;
  assert_error(unroll_map_of_layer(&bad.net, 0, 0, NULL, 0, NULL, NULL, &map, &err), UNROLL_E_INVALID,
               "peepholes is no option of cell rnn");
  bad.rnn.hidden = 20000;
  assert_error(unroll_map_of_layer(&bad.net, 0, 0, NULL, 0, NULL, NULL, &map, &err), UNROLL_E_INVALID,
               "from 1 to 16384");
  assert_null(map);

  double h = 1, points[2], starts[] = {1, 1e300};
  unroll_fixed_point found[2];
  int64_t n;
  assert_ok(unroll_map_create(1, explodes, NULL, NULL, &map, &err));
  unroll_lyapunov_options o = {.struct_size = sizeof o, .steps = 100};
  assert_error(unroll_lyapunov(map, &h, &o, re, NULL, NULL, &err), UNROLL_E_RANGE, "after step 30");
  int64_t steps_left = 20;
  o.cancel = stops_after;
  o.ctx = &steps_left;
  h = 1;
  assert_error(unroll_lyapunov(map, &h, &o, re, NULL, NULL, &err), UNROLL_E_CANCELLED, "cancelled");
  assert_int_equal(steps_left, -1);
  o.steps = 0;
  assert_error(unroll_lyapunov(map, &h, &o, re, NULL, NULL, &err), UNROLL_E_INVALID, "steps 0");
  o.count = 2;
  assert_error(unroll_lyapunov(map, &h, &o, re, NULL, NULL, &err), UNROLL_E_INVALID, "count 2 of 1");
  /* A start that goes to infinity is in no point. */
  assert_ok(unroll_fixed_points(map, starts, 2, NULL, points, found, &n, &err));
  assert_int_equal(n, 1);
  assert_int_equal(found[0].starts, 1);
  assert_near("1 = 1e10·h + 1 - h", points[0], -1e-10, 1e-19);
  assert_error(unroll_fixed_points(map, starts, 0, NULL, points, found, &n, &err), UNROLL_E_INVALID, "0 starts");
  /* Stopped in its second search, it has what the first one found. */
  const double again[] = {1, 2};
  const unroll_fixed_point_options stopped = {.struct_size = sizeof stopped, .cancel = stops_after, .ctx = &steps_left};
  steps_left = 1000000;
  assert_ok(unroll_fixed_points(map, again, 1, &stopped, points, found, &n, &err));
  steps_left = 1000000 - steps_left + 2;
  assert_error(unroll_fixed_points(map, again, 2, &stopped, points, found, &n, &err), UNROLL_E_CANCELLED, "cancelled");
  assert_int_equal(n, 1);
  unroll_map_destroy(map);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(eigenvalues_are_known),
      cmocka_unit_test(singular_values_are_known),
      cmocka_unit_test(twenty_seven_points),
      cmocka_unit_test(cells_come_to_rest),
      cmocka_unit_test(exponents_of_random_networks),
      cmocka_unit_test(few_exponents_are_the_first_of_all),
      cmocka_unit_test(exponents_that_are_known),
      cmocka_unit_test(exponents_of_random_products),
      cmocka_unit_test(wrong_input),
  };
  return cmocka_run_group_tests(tests, make_matrix, NULL);
}
