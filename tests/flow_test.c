/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The flow of gradients through layers against what is exact: of linear networks every product of Jacobians is a power of
 * W_h; and against differences of the network's own states, for cells with options, in both directions, with ragged lengths.
 */
#include "devices.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unroll/diagnose.h>
#include <unroll/flow.h>
#include <unroll/philox.h>

static unroll_error err = UNROLL_ERROR_INIT;
#define assert_ok(expr) assert_status(UNROLL_OK, (expr))
#define assert_error(expr, status, words)                    \
  do {                                                       \
    assert_status((status), (expr));                         \
    if (!strstr(err.message, (words)))                       \
      fail_msg("'%s' is not in '%s'", (words), err.message); \
  } while (0)

/* Relative to the number itself, or to `least` where it is smaller. */
static void assert_near(const char *what, int64_t at, double got, double want, double tolerance, double least) {
  if (!(fabs(got - want) <= tolerance * fmax(fabs(want), least)))
    fail_msg("%s at %lld: %.17g, expected %.17g within %g", what, (long long)at, got, want, tolerance);
}

static double *numbers(uint32_t seed, int64_t n, double scale) {
  double *x = malloc((size_t)n * sizeof *x);
  assert_non_null(x);
  const unroll_philox_key key = unroll_philox_site_key(seed, 0, 0);
  for (int64_t i = 0; i < n; i++)
    x[i] = scale * unroll_normal(key, 0, 0, (uint32_t)i);
  return x;
}

/* c [n,n] = a·b */
static void product(double *c, const double *a, const double *b, int64_t n) {
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j < n; j++) {
      double sum = 0;
      for (int64_t k = 0; k < n; k++)
        sum += a[i * n + k] * b[k * n + j];
      c[i * n + j] = sum;
    }
}

/* ---- linear networks ---- */

enum { T = 13, B = 3, I = 2, N = 6 };

typedef struct linear_net {
  unroll_rnn_options rnn;
  unroll_flow_weight weights[3];
  unroll_flow_network net;
  double *W_x, *b, *x, *dy;
  unroll_flow_batch batch;
} linear_net;

static void linear_open(linear_net *l, const double *W_h) {
  *l = (linear_net){.W_x = numbers(1, N * I, 0.5), .b = numbers(2, N, 0.1), .x = numbers(3, T * B * I, 1)};
  l->rnn = (unroll_rnn_options){.struct_size = sizeof l->rnn, .cell = UNROLL_CELL_RNN, .layers = 1, .hidden = N};
  l->rnn.f.kind = UNROLL_ACTIVATION_IDENTITY;
  l->weights[0] = (unroll_flow_weight){"W_x.0.0", l->W_x, N * I};
  l->weights[1] = (unroll_flow_weight){"W_h.0.0", W_h, N * N};
  l->weights[2] = (unroll_flow_weight){"b.0.0", l->b, N};
  l->net = (unroll_flow_network){
      .struct_size = sizeof l->net, .n_weights = 3, .options = &l->rnn, .input = I, .weights = l->weights};
  /* the gradient enters at the last step alone */
  l->dy = calloc((size_t)(T * B * N), sizeof *l->dy);
  assert_non_null(l->dy);
  for (int i = 0; i < B * N; i++)
    l->dy[(T - 1) * B * N + i] = (i * 7 % 5) - 1.5;
  l->batch = (unroll_flow_batch){.struct_size = sizeof l->batch, .steps = T, .batch = B, .x = l->x, .dy = l->dy};
}

static void linear_close(linear_net *l) {
  free(l->W_x);
  free(l->b);
  free(l->x);
  free(l->dy);
}

static const int64_t all_lags[T - 1] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
static unroll_flow_options exact(void) {
  return (unroll_flow_options){.struct_size = sizeof(unroll_flow_options),
                               .lags = all_lags,
                               .n_lags = T - 1,
                               .iterations = N,
                               .tolerance = 1e-15,
                               .sequences = B,
                               .probes = 3};
}

/* ∂L/∂h_{T-1-k} = (Wᵀ)^k δ, and the singular values of W^k by LAPACK: 1e-12 for sums of 6 numbers, 12 times over. */
static void check_powers(const double *W, double tolerance, double least, const unroll_flow *f, const linear_net *l) {
  const unroll_flow_layer *at = &f->layers[0];
  double delta[B][N], power[N * N], next[N * N], sigma[N];
  memcpy(delta, l->dy + (T - 1) * B * N, sizeof delta);
  memset(power, 0, sizeof power);
  for (int i = 0; i < N; i++)
    power[i * N + i] = 1;
  assert_int_equal(at->n_sigma, T - 1);
  for (int k = 0; k < T; k++) {
    double mean = 0, most = 0;
    for (int b = 0; b < B; b++) {
      double sum = 0, back[N];
      for (int i = 0; i < N; i++)
        sum += delta[b][i] * delta[b][i];
      mean += sqrt(sum) / B;
      most = fmax(most, sqrt(sum));
      for (int j = 0; j < N; j++) {
        back[j] = 0;
        for (int i = 0; i < N; i++)
          back[j] += W[i * N + j] * delta[b][i];
      }
      memcpy(delta[b], back, sizeof back);
    }
    assert_near("norm", k, at->norm[T - 1 - k], mean, tolerance, least);
    assert_near("largest norm", k, at->norm_max[T - 1 - k], most, tolerance, least);
    if (k > 0) {
      assert_ok(unroll_singular_values(power, N, N, sigma, &err));
      assert_int_equal(at->sigma_lag[k - 1], k);
      assert_near("sigma", k, at->sigma[k - 1], sigma[0], tolerance, least);
      assert_near("largest sigma", k, at->sigma_max[k - 1], sigma[0], tolerance, least);
      assert_true(at->sigma_error[k - 1] <= fmax(tolerance, 1e-7));
      assert_true(at->product[k] <= sigma[0] * (1 + tolerance) + least * tolerance);
      assert_true(at->product[k] >= sigma[N - 1] * (1 - tolerance) - least * tolerance);
    }
    product(next, power, W, N);
    memcpy(power, next, sizeof next);
  }
}

static void linear_networks(void **state) {
  FOR_EACH_DEVICE(dev, *state, UNROLL_F64) {
    double *W = numbers(5, N * N, 0.4);
    linear_net l;
    linear_open(&l, W);
    unroll_flow_options o = exact();
    o.device = dev;
    unroll_flow *f;
    assert_ok(unroll_flow_measure(&l.net, &l.batch, &o, &f, &err));
    check_powers(W, 1e-12, 1e-3, f, &l);
    unroll_flow_free(f);
    linear_close(&l);
    free(W);
  }
}

/* In f32 a number has 24 bits: 1e-5 for 12 products of sums. */
static void linear_networks_f32(void **state) {
  FOR_EACH_DEVICE(dev, *state, UNROLL_F32) {
    double *W = numbers(5, N * N, 0.4);
    linear_net l;
    linear_open(&l, W);
    unroll_flow_options o = exact();
    o.device = dev;
    o.dtype = UNROLL_F32;
    unroll_flow *f;
    assert_ok(unroll_flow_measure(&l.net, &l.batch, &o, &f, &err));
    check_powers(W, 1e-5, 1e-1, f, &l);
    unroll_flow_free(f);
    linear_close(&l);
    free(W);
  }
}

/* ---- linear networks whose powers are known ---- */

static unroll_flow *measure(const linear_net *l, const unroll_flow_options *o) {
  unroll_flow *f;
  assert_ok(unroll_flow_measure(&l->net, &l->batch, o, &f, &err));
  return f;
}

static void says(const unroll_flow *f, const char *words) {
  if (!strstr(f->layers[0].why, words))
    fail_msg("'%s' is not in '%s'", words, f->layers[0].why);
}

/* ρ·orthogonal: every vector shrinks by ρ a step, whatever its direction. */
static void orthogonal_gives_powers(void **state) {
  (void)state;
  double W[N * N];
  const double rho = 0.9;
  const unroll_tensor_info info = {
      .struct_size = sizeof info, .dtype = UNROLL_F64, .rank = 2, .shape = {N, N}, .name = "W"};
  assert_ok(unroll_init_orthogonal(&info, 3, 1, rho, W, &err));
  linear_net l;
  linear_open(&l, W);
  const unroll_flow_options o = exact();
  unroll_flow *f = measure(&l, &o);
  const unroll_flow_layer *at = &f->layers[0];
  for (int k = 1; k < T; k++) {
    assert_near("product", k, at->product[k], pow(rho, k), 1e-13, 0);
    assert_near("sigma", k, at->sigma[k - 1], pow(rho, k), 1e-12, 0);
    assert_near("norm", k, at->norm[T - 1 - k], at->norm[T - 1] * pow(rho, k), 1e-13, 0);
  }
  assert_near("rho", 0, at->rho, rho, 1e-12, 0);
  assert_near("norm of W_h", 0, at->norm_W, rho, 1e-12, 0);
  assert_near("condition", 0, at->condition, rho, 1e-12, 0);
  assert_near("rate", 0, at->rate, rho, 1e-12, 0);
  assert_int_equal(at->memory, 10); /* 0.9^10 = 0.349 is the first power below 1/e = 0.368 */
  says(f, "They agree.");
  says(f, "suffices to vanish");
  unroll_flow_free(f);
  linear_close(&l);
}

/* Nothing is left of the nilpotent shift of N units after N steps, and of a unit's gradient before that all or nothing. */
static void a_shift_ends(void **state) {
  (void)state;
  double W[N * N] = {0};
  for (int i = 0; i + 1 < N; i++)
    W[i * N + i + 1] = 1;
  linear_net l;
  linear_open(&l, W);
  const unroll_flow_options o = exact();
  unroll_flow *f = measure(&l, &o);
  const unroll_flow_layer *at = &f->layers[0];
  for (int k = 1; k < T; k++) {
    assert_near("sigma", k, at->sigma[k - 1], k < N ? 1 : 0, 1e-14, 1);
    if (k >= N) {
      assert_true(at->product[k] == 0 && at->norm[T - 1 - k] == 0 && at->sigma[k - 1] == 0);
    } else
      assert_true(at->product[k] > 0 && at->norm[T - 1 - k] > 0);
  }
  assert_true(at->rate == 0);
  unroll_flow_free(f);
  linear_close(&l);
}

/* [[a, b], [0, a]]^k = [[a^k, k·b·a^(k-1)], [0, a^k]]: grows to many times its start while ρ^k falls. */
static void what_is_not_normal_grows_first(void **state) {
  (void)state;
  const double a = 0.6, b = 5;
  double W[N * N] = {0};
  W[0] = W[N + 1] = a;
  W[1] = b;
  linear_net l;
  linear_open(&l, W);
  const unroll_flow_options o = exact();
  unroll_flow *f = measure(&l, &o);
  const unroll_flow_layer *at = &f->layers[0];
  for (int k = 1; k < T; k++) {
    const double p = pow(a, k), q = k * b * pow(a, k - 1); /* σ1 of [[p, q], [0, p]] */
    assert_near("sigma", k, at->sigma[k - 1], (q + sqrt(q * q + 4 * p * p)) / 2, 1e-12, 0);
  }
  assert_true(at->sigma[1] > 5 && at->condition < 1 && at->product[2] > at->product[1] * 0.9);
  assert_near("rho", 0, at->rho, a, 1e-7, 0); /* defective: the root of a rounding */
  says(f, "not normal");
  unroll_flow_free(f);
  linear_close(&l);
}

/* λ_max = 2, and yet gradients vanish, since large inputs saturate tanh. */
static void the_condition_is_not_exact(void **state) {
  (void)state;
  double W[N * N];
  const unroll_tensor_info info = {
      .struct_size = sizeof info, .dtype = UNROLL_F64, .rank = 2, .shape = {N, N}, .name = "W"};
  assert_ok(unroll_init_orthogonal(&info, 3, 1, 2.0, W, &err));
  linear_net l;
  linear_open(&l, W);
  l.rnn.f.kind = UNROLL_ACTIVATION_TANH;
  for (int i = 0; i < T * B * I; i++)
    l.x[i] *= 20;
  unroll_flow_options o = exact();
  unroll_flow *f = measure(&l, &o);
  const unroll_flow_layer *at = &f->layers[0];
  assert_near("condition", 0, at->condition, 2, 1e-12, 0);
  assert_true(at->rate < 1 && at->slope == 1 && at->slope_mean < 0.5 && at->slope_max <= 1);
  says(f, "necessary to explode, not sufficient");
  says(f, "slope at the visited states");
  unroll_flow_free(f);
  o.spectrum = -1;
  o.probes = -1;
  o.lags = NULL;
  o.n_lags = -1;
  f = measure(&l, &o);
  assert_true(isnan(f->layers[0].rho) && isnan(f->layers[0].product[1]) && f->layers[0].n_sigma == 0);
  assert_true(f->layers[0].norm[0] > 0 && f->layers[0].memory == -1);
  unroll_flow_free(f);
  linear_close(&l);
}

/* ---- any cell with any option ---- */

enum { MAX_WEIGHTS = 64 };

typedef struct net {
  unroll_rnn_options rnn;
  int64_t steps, batch, inputs, P;
  int32_t lengths[4];
  char names[MAX_WEIGHTS][40];
  unroll_flow_weight weights[MAX_WEIGHTS];
  unroll_flow_network net;
  unroll_flow_batch all;
  double *x, *dy;
} net;

static int64_t directions(const net *n) { return n->rnn.bidirectional ? 2 : 1; }

/* The stack over an input "x" in a new graph. taps and cells may be NULL. */
static unroll_tensor stack(const net *n, unroll_graph **g, bool ragged, const unroll_rnn_state *taps) {
  assert_ok(unroll_graph_create(NULL, g, &err));
  unroll_rnn_options o = n->rnn;
  o.taps = taps;
  if (ragged)
    o.lengths = unroll_input(*g, "lengths", UNROLL_I32, 1, &n->batch);
  const unroll_tensor x = unroll_input(*g, "x", UNROLL_F64, 3, (int64_t[]){n->steps, n->batch, n->inputs});
  return unroll_rnn(x, "net", &o, NULL, NULL);
}

static void net_open(net *n, const unroll_rnn_options *o, int64_t inputs) {
  *n = (net){.rnn = *o, .steps = 7, .batch = 3, .inputs = inputs, .lengths = {7, 4, 6}};
  n->rnn.struct_size = sizeof n->rnn;
  n->rnn.inference = 1;
  n->P = o->projection ? o->projection : o->hidden;
  unroll_graph *g;
  stack(n, &g, true, NULL);
  assert_ok(unroll_graph_status(g, &err));
  uint32_t k = 0;
  for (uint32_t i = 0; i < unroll_graph_count(g); i++) {
    const unroll_tensor_info info = unroll_tensor_describe(unroll_graph_tensor(g, i));
    if (info.role != UNROLL_ROLE_PARAM)
      continue;
    assert_true(k < MAX_WEIGHTS);
    int64_t count = 1;
    for (int d = 0; d < info.rank; d++)
      count *= info.shape[d];
    snprintf(n->names[k], sizeof n->names[k], "%s", info.name);
    n->weights[k] = (unroll_flow_weight){n->names[k], numbers(10 + k, count, 0.6), (uint64_t)count};
    k++;
  }
  unroll_graph_destroy(g);
  n->net = (unroll_flow_network){.struct_size = sizeof n->net,
                                 .n_weights = k,
                                 .options = &n->rnn,
                                 .prefix = "net",
                                 .input = inputs,
                                 .weights = n->weights};
  n->x = numbers(7, n->steps * n->batch * inputs, 1);
  n->dy = numbers(8, n->steps * n->batch * directions(n) * n->P, 1);
  n->all = (unroll_flow_batch){.struct_size = sizeof n->all,
                               .steps = n->steps,
                               .batch = n->batch,
                               .x = n->x,
                               .lengths = n->lengths,
                               .dy = n->dy};
}

static void net_close(net *n) {
  for (uint32_t i = 0; i < n->net.n_weights; i++)
    free((void *)n->weights[i].data);
  free(n->x);
  free(n->dy);
}

static const unroll_flow_weight *weight(const net *n, const char *name) {
  for (uint32_t i = 0; i < n->net.n_weights; i++)
    if (strcmp(n->weights[i].name, name) == 0)
      return &n->weights[i];
  fail_msg("no weight %s", name);
  return NULL;
}

static bool has_c(const net *n) { return n->rnn.cell == UNROLL_CELL_LSTM || n->rnn.cell == UNROLL_RNN_COUPLED_LSTM; }

/* Steps of the first layer in one direction, on its own: x [steps,rows,I] in the order of the computation, state
 * [rows,N] (h, then c) in and out. */
static void advance(unroll_device *dev, const net *n, int32_t direction, const double *x, int64_t steps, int64_t rows,
                    double *state) {
  const int64_t N_all = n->P + (has_c(n) ? n->rnn.hidden : 0);
  unroll_graph *g;
  assert_ok(unroll_graph_create(NULL, &g, &err));
  unroll_rnn_options o = n->rnn;
  o.layers = 1;
  o.bidirectional = 0;
  const unroll_tensor in = unroll_input(g, "x", UNROLL_F64, 3, (int64_t[]){steps, rows, n->inputs});
  const unroll_tensor whole = unroll_input(g, "state", UNROLL_F64, 2, (int64_t[]){rows, N_all});
  unroll_tensor h = unroll_slice(whole, 1, 0, n->P), h_last,
                c = has_c(n) ? unroll_slice(whole, 1, n->P, n->rnn.hidden) : unroll_none(), c_last;
  const unroll_rnn_state first = {&h, has_c(n) ? &c : NULL};
  unroll_rnn_state last = {&h_last, has_c(n) ? &c_last : NULL};
  unroll_rnn(in, "net", &o, &first, &last);
  unroll_output(has_c(n) ? unroll_concat((unroll_tensor[]){h_last, c_last}, 2, 1) : h_last, "last");
  assert_ok(unroll_graph_status(g, &err));
  model m = model_open(g, dev, false);
  for (uint32_t i = 0; i < unroll_graph_count(g); i++) {
    const unroll_tensor_info info = unroll_tensor_describe(unroll_graph_tensor(g, i));
    if (info.role != UNROLL_ROLE_PARAM)
      continue;
    char name[48];
    snprintf(name, sizeof name, "%s", info.name);
    name[strlen(name) - 1] = (char)('0' + direction);
    const unroll_flow_weight *w = weight(n, name);
    model_put(&m, info.name, w->data, (int64_t)w->count);
  }
  model_put(&m, "x", x, steps * rows * n->inputs);
  model_put(&m, "state", state, rows * N_all);
  model_run(&m);
  double *got = model_get(&m, "last", rows * N_all);
  memcpy(state, got, (size_t)(rows * N_all) * sizeof *got);
  free(got);
  model_close(&m);
  unroll_graph_destroy(g);
}

/* J_k of a sequence by central differences, of fourth order, of the states that the layer comes to, [N,N]. */
static const double places[4] = {-2, -1, 1, 2}, factors[4] = {1, -8, 8, -1};
static double *differences(unroll_device *dev, const net *n, int32_t direction, int64_t sequence, int64_t lag) {
  const int64_t N_all = n->P + (has_c(n) ? n->rnn.hidden : 0), length = n->lengths[sequence], rows = 4 * N_all;
  const double delta = 1e-4;
  double *x = malloc((size_t)(length * rows * n->inputs) * sizeof *x),
         *state = calloc((size_t)(rows * N_all), sizeof *state);
  double *J = calloc((size_t)(N_all * N_all), sizeof *J);
  assert_true(x && state && J);
  for (int64_t t = 0; t < length; t++)
    for (int64_t i = 0; i < rows; i++)
      memcpy(x + (t * rows + i) * n->inputs,
             n->x + ((direction ? length - 1 - t : t) * n->batch + sequence) * n->inputs,
             (size_t)n->inputs * sizeof *x);
  advance(dev, n, direction, x, length - lag, rows, state);
  for (int64_t i = 0; i < N_all; i++)
    for (int side = 0; side < 4; side++)
      state[(4 * i + side) * N_all + i] += places[side] * delta;
  advance(dev, n, direction, x + (length - lag) * rows * n->inputs, lag, rows, state);
  for (int64_t i = 0; i < N_all; i++)
    for (int64_t j = 0; j < N_all; j++)
      for (int side = 0; side < 4; side++)
        J[i * N_all + j] += factors[side] * state[(4 * j + side) * N_all + i] / (12 * delta);
  free(x);
  free(state);
  return J;
}

/*
 * The matrix against differences (1e-10: δ⁴ of the fifth derivative and 1e-16/δ of rounding, of states of about 1), its singular values by LAPACK
 * against those by Lanczos's iteration, for the first and the second sequence.
 */
static void check_cell(unroll_device *dev, const unroll_rnn_options *rnn, int64_t inputs) {
  enum { LAG = 3 };
  net n;
  net_open(&n, rnn, inputs);
  const int64_t N_all = n.P + (has_c(&n) ? n.rnn.hidden : 0);
  const int64_t lags[] = {1, LAG};
  unroll_flow_options o = {.struct_size = sizeof o,
                           .device = dev,
                           .lags = lags,
                           .n_lags = 2,
                           .iterations = 100,
                           .tolerance = 1e-14,
                           .sequences = n.batch};
  unroll_flow *f;
  assert_ok(unroll_flow_measure(&n.net, &n.all, &o, &f, &err));
  assert_int_equal(f->n_layers, directions(&n));
  double *J = malloc((size_t)(N_all * N_all) * sizeof *J), *sigma = malloc((size_t)N_all * sizeof *sigma);
  assert_true(J && sigma);
  for (int32_t d = 0; d < directions(&n); d++) {
    double mean = 0, most = 0;
    for (int64_t b = 0; b < n.batch; b++) {
      double *want = differences(dev, &n, d, b, LAG);
      assert_ok(unroll_flow_jacobian(&n.net, &n.all, &o, 0, d, b, LAG, J, (uint64_t)(N_all * N_all), &err));
      for (int64_t i = 0; i < N_all * N_all; i++)
        assert_near("Jacobian", i, J[i], want[i], 1e-10, 1);
      free(want);
      assert_ok(unroll_singular_values(J, N_all, N_all, sigma, &err));
      mean += sigma[0] / (double)n.batch;
      most = fmax(most, sigma[0]);
    }
    assert_near("sigma", LAG, f->layers[d].sigma[1], mean, 1e-11, 0);
    assert_near("largest sigma", LAG, f->layers[d].sigma_max[1], most, 1e-11, 0);
    assert_near("no step", 0, f->layers[d].product[0], 1, 1e-14, 0);
    assert_true(f->layers[d].product[LAG] <= most);
  }
  unroll_flow_free(f);
  free(J);
  free(sigma);
  net_close(&n);
}

static void any_cell(void **state) {
  const unroll_rnn_options cells[] = {
      {.cell = UNROLL_CELL_RNN, .hidden = 4},
      {.cell = UNROLL_CELL_RNN, .hidden = 4, .activation = UNROLL_SIGMOID, .skip = 0.3, .bidirectional = 1},
      {.cell = UNROLL_CELL_RNN, .hidden = 3, .residual = UNROLL_RESIDUAL_STATES},
      {.cell = UNROLL_CELL_LSTM, .hidden = 3, .bidirectional = 1},
      {.cell = UNROLL_CELL_LSTM, .hidden = 4, .projection = 2, .peepholes = 1, .dropout = 0.5},
      {.cell = UNROLL_CELL_LSTM, .hidden = 4, .layer_norm = 1, .zoneout_c = 0.2, .zoneout_h = 0.1},
      {.cell = UNROLL_RNN_COUPLED_LSTM, .hidden = 3, .f = {.kind = UNROLL_ACTIVATION_SOFTSIGN}},
      {.cell = UNROLL_CELL_GRU, .hidden = 4, .bidirectional = 1, .state_dropout = 0.4},
      {.cell = UNROLL_CELL_GRU, .hidden = 4, .layer_norm = 1},
      {.cell = UNROLL_CELL_GRU_AFTER, .hidden = 4},
      {.cell = UNROLL_RNN_MIN_GRU, .hidden = 4, .bidirectional = 1},
      {.cell = UNROLL_RNN_MIN_LSTM, .hidden = 4},
  };
  FOR_EACH_DEVICE(dev, *state, UNROLL_F64)
    for (size_t i = 0; i < sizeof cells / sizeof *cells; i++) {
      unroll_rnn_options o = cells[i];
      o.layers = 1;
      check_cell(dev, &o, 3);
    }
}

/* ---- the norms of a stack ---- */

static unroll_tensor weighted_sum(void *ctx, unroll_tensor y) {
  const net *n = ctx;
  const unroll_tensor dy = unroll_input(y.graph, "weights of the loss", UNROLL_F64, 3,
                                        (int64_t[]){n->steps, n->batch, directions(n) * n->P});
  return unroll_reduce(unroll_mul(y, dy), UNROLL_SUM, 0, 0);
}
static unroll_status fill_sum(void *ctx, unroll_binding *b, unroll_error *e) {
  const net *n = ctx;
  return unroll_binding_write(b, "weights of the loss", n->dy,
                              (uint64_t)(n->steps * n->batch * directions(n) * n->P) * sizeof(double), e);
}

/* Against the gradients of taps of the stack as one call of unroll_rnn makes it; those are compared with differences by
 * gradcheck_test. */
static void check_stack(unroll_device *dev, const unroll_rnn_options *o, int64_t inputs) {
  enum { MOST = 8 };
  net n;
  net_open(&n, o, inputs);
  const int64_t D = directions(&n), layers = D * o->layers, TB = n.steps * n.batch;
  unroll_tensor h[MOST], c[MOST], all[2 * MOST], d[2 * MOST];
  const unroll_rnn_state taps = {h, has_c(&n) ? c : NULL};
  unroll_graph *g;
  assert_ok(unroll_graph_create(NULL, &g, &err));
  unroll_rnn_options with = n.rnn;
  with.taps = &taps;
  with.lengths = unroll_input(g, "lengths", UNROLL_I32, 1, &n.batch);
  for (int64_t i = 0; i < layers; i++) {
    all[2 * i] = h[i] = unroll_constant(g, UNROLL_F64, 3, (int64_t[]){n.steps, n.batch, n.P}, 0);
    all[2 * i + 1] = c[i] = unroll_constant(g, UNROLL_F64, 3, (int64_t[]){n.steps, n.batch, n.rnn.hidden}, 0);
  }
  const unroll_tensor x = unroll_input(g, "x", UNROLL_F64, 3, (int64_t[]){n.steps, n.batch, inputs});
  const unroll_tensor y = unroll_rnn(x, "net", &with, NULL, NULL);
  const unroll_tensor dy = unroll_input(g, "dy", UNROLL_F64, 3, (int64_t[]){n.steps, n.batch, D * n.P});
  unroll_vjp(&y, &dy, 1, all, (uint32_t)(2 * layers), d);
  char name[16];
  for (int64_t i = 0; i < 2 * layers; i++) {
    snprintf(name, sizeof name, "d%d", (int)i);
    unroll_output(d[i], name);
  }
  assert_ok(unroll_graph_status(g, &err));
  model m = model_open(g, dev, false);
  for (uint32_t i = 0; i < n.net.n_weights; i++)
    model_put(&m, n.weights[i].name, n.weights[i].data, (int64_t)n.weights[i].count);
  model_put_i32(&m, "lengths", n.lengths, n.batch);
  model_put(&m, "x", n.x, TB * inputs);
  model_put(&m, "dy", n.dy, TB * D * n.P);
  model_run(&m);
  const unroll_flow_loss loss = {weighted_sum, fill_sum, &n};
  for (int given = 0; given < 2; given++) {
    const unroll_flow_options fo = {.struct_size = sizeof fo, .device = dev, .n_lags = -1};
    unroll_flow *f;
    n.all.dy = given ? NULL : n.dy;
    n.all.loss = given ? &loss : NULL;
    assert_ok(unroll_flow_measure(&n.net, &n.all, &fo, &f, &err));
    assert_int_equal(f->n_layers, layers);
    for (int64_t i = 0; i < 2 * layers; i++) {
      const unroll_flow_layer *at = &f->layers[i / 2];
      const int64_t width = i % 2 ? n.rnn.hidden : n.P;
      assert_int_equal(at->layer * D + at->direction, i / 2);
      if (i % 2 && !has_c(&n)) {
        assert_null(at->c_norm);
        continue;
      }
      snprintf(name, sizeof name, "d%d", (int)i);
      double *got = model_get(&m, name, TB * width);
      for (int64_t t = 0; t < n.steps; t++) {
        double mean = 0, most = 0, count = 0;
        for (int64_t b = 0; b < n.batch; b++) {
          double sum = 0;
          for (int64_t k = 0; k < width; k++)
            sum += pow(got[(t * n.batch + b) * width + k], 2);
          if (t < n.lengths[b]) {
            mean += sqrt(sum);
            most = fmax(most, sqrt(sum));
            count++;
          }
        }
        assert_near("norm", t, (i % 2 ? at->c_norm : at->norm)[t], mean / count, 1e-12, 1e-3);
        assert_near("largest norm", t, (i % 2 ? at->c_norm_max : at->norm_max)[t], most, 1e-12, 1e-3);
      }
      free(got);
    }
    unroll_flow_free(f);
  }
  model_close(&m);
  unroll_graph_destroy(g);
  net_close(&n);
}

static void norms_of_stacks(void **state) {
  const unroll_rnn_options stacks[] = {
      {.cell = UNROLL_CELL_LSTM, .layers = 2, .hidden = 2, .bidirectional = 1, .residual = UNROLL_RESIDUAL_OUTPUTS},
      {.cell = UNROLL_CELL_GRU, .layers = 3, .hidden = 3},
      {.cell = UNROLL_CELL_RNN, .layers = 2, .hidden = 4, .residual = UNROLL_RESIDUAL_STATES},
      {.cell = UNROLL_RNN_MIN_LSTM, .layers = 2, .hidden = 3, .bidirectional = 1},
  };
  FOR_EACH_DEVICE(dev, *state, UNROLL_F64)
    for (size_t i = 0; i < sizeof stacks / sizeof *stacks; i++)
      check_stack(dev, &stacks[i], 4);
}

/* ---- the LSTM's own path ---- */

/* Without W_h the cell's state is carried on by the forget gates alone: ∂c_e/∂c_{e-k} is the diagonal of their product. */
static void the_cells_own_path(void **state) {
  (void)state;
  enum { H = 4, LAG = 5 };
  const unroll_rnn_options rnn = {.cell = UNROLL_CELL_LSTM, .layers = 1, .hidden = H};
  net n;
  net_open(&n, &rnn, I);
  double zeros[4 * H * H] = {0}, J[H * H], product_of_f[H], most = 0;
  for (uint32_t i = 0; i < n.net.n_weights; i++)
    if (strcmp(n.weights[i].name, "net.W_h.0.0") == 0) {
      free((void *)n.weights[i].data);
      n.weights[i].data = zeros;
    }
  const double *W = weight(&n, "net.W_x.0.0")->data, *b = weight(&n, "net.b.0.0")->data;
  for (int k = 0; k < H; k++) {
    product_of_f[k] = 1;
    for (int64_t t = n.steps - LAG; t < n.steps; t++) {
      double a = b[H + k];
      for (int i = 0; i < I; i++)
        a += W[(H + k) * I + i] * n.x[t * n.batch * I + i];
      product_of_f[k] /= 1 + exp(-a);
    }
    most = fmax(most, product_of_f[k]);
  }
  const int64_t lags[] = {LAG};
  const unroll_flow_options o = {.struct_size = sizeof o,
                                 .part = UNROLL_FLOW_ONLY_C,
                                 .lags = lags,
                                 .n_lags = 1,
                                 .iterations = H,
                                 .tolerance = 1e-15,
                                 .sequences = 1};
  unroll_flow *f;
  assert_ok(unroll_flow_measure(&n.net, &n.all, &o, &f, &err));
  assert_near("sigma", LAG, f->layers[0].sigma[0], most, 1e-12, 0);
  assert_true(isnan(f->layers[0].condition));
  says(f, "only measured products say how far");
  unroll_flow_free(f);
  assert_ok(unroll_flow_jacobian(&n.net, &n.all, &o, 0, 0, 0, LAG, J, H * H, &err));
  for (int i = 0; i < H; i++)
    for (int k = 0; k < H; k++)
      assert_near("path", k, J[i * H + k], i == k ? product_of_f[k] : 0, 1e-13, 0);
  for (uint32_t i = 0; i < n.net.n_weights; i++)
    if (n.weights[i].data == zeros)
      n.weights[i].data = NULL;
  net_close(&n);
}

/* In f32 on any device, against f64 on the reference: 24 bits, 7 steps. */
static void gated_f32(void **state) {
  const unroll_rnn_options rnn = {.cell = UNROLL_CELL_LSTM, .layers = 2, .hidden = 4, .bidirectional = 1};
  FOR_EACH_DEVICE(dev, *state, UNROLL_F32) {
    net n;
    net_open(&n, &rnn, I);
    unroll_flow_options o = {.struct_size = sizeof o, .iterations = 8, .tolerance = 1e-7, .sequences = 2};
    unroll_flow *f, *want;
    assert_ok(unroll_flow_measure(&n.net, &n.all, &o, &want, &err));
    o.device = dev;
    o.dtype = UNROLL_F32;
    assert_ok(unroll_flow_measure(&n.net, &n.all, &o, &f, &err));
    for (uint32_t i = 0; i < f->n_layers; i++) {
      const unroll_flow_layer *a = &f->layers[i], *b = &want->layers[i];
      assert_close("norms", a->norm, b->norm, n.steps, 1e-5);
      assert_close("norms of c", a->c_norm, b->c_norm, n.steps, 1e-5);
      assert_close("products", a->product, b->product, n.steps, 1e-5);
      assert_close("sigma", a->sigma, b->sigma, b->n_sigma, 1e-4);
      assert_int_equal(b->n_sigma, 6); /* there are no more lags in 7 steps */
    }
    unroll_flow_free(f);
    unroll_flow_free(want);
    net_close(&n);
  }
}

/* ---- wrong input ---- */

static void wrong_input(void **state) {
  (void)state;
  double W[N * N] = {0}, J[N * N];
  linear_net l;
  linear_open(&l, W);
  unroll_flow *f = (unroll_flow *)&l;
  unroll_flow_options o = exact();
#define refused(status, words) assert_error(unroll_flow_measure(&l.net, &l.batch, &o, &f, &err), status, words)
  l.batch.steps = 1;
  refused(UNROLL_E_RANGE, "1 steps, expected at least 2");
  assert_null(f);
  l.batch.steps = T;
  l.weights[1].name = "W_k.0.0";
  refused(UNROLL_E_INVALID, "the weight W_h.0.0 is missing, of 36 numbers");
  l.weights[1].name = "W_h.0.0";
  l.weights[1].count = 35;
  refused(UNROLL_E_INVALID, "the weight W_h.0.0 has 35 numbers, expected 36");
  l.weights[1].count = N * N;
  const int64_t far[] = {1, T};
  o.lags = far;
  o.n_lags = 2;
  refused(UNROLL_E_RANGE, "a lag of 13 steps, expected 1 to 12");
  o = exact();
  o.part = UNROLL_FLOW_ONLY_C;
  refused(UNROLL_E_RANGE, "the part c is asked for, which only an LSTM has");
  o = exact();
  o.dtype = UNROLL_I32;
  refused(UNROLL_E_RANGE, "dtype 5");
  o = exact();
  const unroll_flow_loss loss = {weighted_sum, NULL, NULL};
  l.batch.loss = &loss;
  refused(UNROLL_E_INVALID, "both dy and a loss");
  l.batch.loss = NULL;
  const int32_t lengths[B] = {T, 0, 2};
  l.batch.lengths = lengths;
  refused(UNROLL_E_RANGE, "sequence 1 has a length of 0, expected 1 to 13");
  l.batch.lengths = NULL;
  const double was = l.x[5 * B * I + 1 * I];
  l.x[5 * B * I + 1 * I] = (double)NAN;
  refused(UNROLL_E_RANGE, "x of step 5, sequence 1 is");
  const int32_t short_ones[B] = {T, 5, 2}; /* what is past the end is not looked at */
  l.batch.lengths = short_ones;
  assert_ok(unroll_flow_measure(&l.net, &l.batch, &o, &f, &err));
  unroll_flow_free(f);
  l.batch.lengths = NULL;
  l.x[5 * B * I + 1 * I] = was;
  l.rnn.zoneout_c = 0.1;
  refused(UNROLL_E_INVALID, "zoneout_c is no option of cell rnn");
  l.rnn.zoneout_c = 0;
#undef refused
#define refused(layer, sequence, lag, count, words)                                                                 \
  assert_error(unroll_flow_jacobian(&l.net, &l.batch, &o, layer, 0, sequence, lag, J, count, &err), UNROLL_E_RANGE, \
               words)
  refused(1, 0, 1, N * N, "layer 1, direction 0, sequence 0, expected less than 1, 1 and 3");
  refused(0, 3, 1, N * N, "sequence 3");
  refused(0, 0, T, N * N, "a lag of 13 steps, expected 1 to 12");
  refused(0, 0, 1, N, "room for 6 numbers, expected 6 squared");
#undef refused
  linear_close(&l);
}

/* A network that goes to infinity is reported, not refused. */
static void what_explodes_is_reported(void **state) {
  (void)state;
  double W[N * N] = {0};
  for (int i = 0; i < N; i++)
    W[i * N + i] = 1e60;
  linear_net l;
  linear_open(&l, W);
  const unroll_flow_options o = exact();
  unroll_flow *f = measure(&l, &o);
  assert_true(!isfinite(f->layers[0].norm[0]));
  assert_near("norm", T - 2, f->layers[0].norm[T - 2], 1e60 * f->layers[0].norm[T - 1], 1e-12, 0);
  assert_true(!isfinite(f->layers[0].sigma[T - 2]));
  unroll_flow_free(f);
  linear_close(&l);
}

/* A tap has a state's shape, and c is an LSTM's. */
static void wrong_taps(void **state) {
  (void)state;
  for (int which = 0; which < 2; which++) {
    unroll_graph *g;
    assert_ok(unroll_graph_create(NULL, &g, &err));
    const unroll_tensor x = unroll_input(g, "x", UNROLL_F64, 3, (int64_t[]){4, 3, 2});
    unroll_tensor tap = unroll_input(g, "tap", UNROLL_F64, 3, (int64_t[]){4, 3, 2});
    const unroll_rnn_state taps = {which ? NULL : &tap, which ? &tap : NULL};
    const unroll_rnn_options o = {
        .struct_size = sizeof o, .cell = UNROLL_CELL_GRU, .layers = 1, .hidden = 5, .taps = &taps};
    unroll_rnn(x, "", &o, NULL, NULL);
    if (which)
      assert_error(unroll_graph_status(g, &err), UNROLL_E_INVALID, "a tap of c is no option of cell gru");
    else
      assert_error(unroll_graph_status(g, &err), UNROLL_E_SHAPE,
                   "the tap of h of layer 0 is tap f64 [4,3,2], expected f64 [4,3,5]");
    unroll_graph_destroy(g);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {DEVICE_TESTS(linear_networks),
                                     DEVICE_TESTS(linear_networks_f32),
                                     cmocka_unit_test(orthogonal_gives_powers),
                                     cmocka_unit_test(a_shift_ends),
                                     cmocka_unit_test(what_is_not_normal_grows_first),
                                     cmocka_unit_test(the_condition_is_not_exact),
                                     DEVICE_TESTS(any_cell),
                                     DEVICE_TESTS(norms_of_stacks),
                                     cmocka_unit_test(the_cells_own_path),
                                     DEVICE_TESTS(gated_f32),
                                     cmocka_unit_test(wrong_input),
                                     cmocka_unit_test(what_explodes_is_reported),
                                     cmocka_unit_test(wrong_taps)};
  return cmocka_run_group_tests(tests, devices_open, devices_close);
}
