/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The flow of gradients through layers against what is exact: of linear networks every product of Jacobians is a power of
 * W_h. What other cells do is in flow_cells_test.c.
 */
#include "flow_support.h"
#include "statuses.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unroll/diagnose.h>
#include <unroll/flow.h>

static unroll_error err = UNROLL_ERROR_INIT;

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
  unroll_network_weight weights[3];
  unroll_network net;
  double *W_x, *b, *x, *dy;
  unroll_flow_batch batch;
} linear_net;

static void linear_open(linear_net *l, const double *W_h) {
  *l = (linear_net){.W_x = numbers(1, N * I, 0.5), .b = numbers(2, N, 0.1), .x = numbers(3, T * B * I, 1)};
  l->rnn = (unroll_rnn_options){.struct_size = sizeof l->rnn, .cell = UNROLL_CELL_RNN, .layers = 1, .hidden = N};
  l->rnn.f.kind = UNROLL_ACTIVATION_IDENTITY;
  l->weights[0] = (unroll_network_weight){"W_x.0.0", l->W_x, N * I};
  l->weights[1] = (unroll_network_weight){"W_h.0.0", W_h, N * N};
  l->weights[2] = (unroll_network_weight){"b.0.0", l->b, N};
  l->net = (unroll_network){
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

static void check_linear(unroll_device *dev, int32_t dtype, double tolerance, double least) {
  double *W = numbers(5, N * N, 0.4);
  linear_net l;
  linear_open(&l, W);
  unroll_flow_options o = exact();
  o.device = dev;
  o.dtype = dtype;
  unroll_flow *f;
  assert_ok(unroll_flow_measure(&l.net, &l.batch, &o, &f, &err));
  check_powers(W, tolerance, least, f, &l);
  unroll_flow_free(f);
  linear_close(&l);
  free(W);
}

static void linear_networks(void **state) {
  FOR_EACH_DEVICE(dev, *state, UNROLL_F64)
    check_linear(dev, UNROLL_F64, 1e-12, 1e-3);
}

/* In f32 a number has 24 bits: 1e-5 for 12 products of sums. */
static void linear_networks_f32(void **state) {
  FOR_EACH_DEVICE(dev, *state, UNROLL_F32)
    check_linear(dev, UNROLL_F32, 1e-5, 1e-1);
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
  assert_int_equal(at->memory, -1); /* 0.9^12 = 0.28 is above a hundredth */
  says(f, "They agree.");
  says(f, "suffices to vanish");
  unroll_flow_free(f);
  linear_close(&l);
}

/* 0.63^9 = 0.0156 and 0.63^10 = 0.00985, beside a hundredth; 0.63^3 = 0.25 is the first power below 1/e = 0.37. */
static void memories_have_a_threshold(void **state) {
  (void)state;
  double W[N * N] = {0};
  for (int i = 0; i < N; i++)
    W[i * N + i] = 0.63;
  linear_net l;
  linear_open(&l, W);
  unroll_flow_options o = exact();
  const struct {
    double threshold;
    int memory;
  } all[] = {{0, 10}, {0.01, 10}, {0.0157, 9}, {exp(-1), 3}, {1e-3, -1}};
  for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
    o.threshold = all[i].threshold;
    unroll_flow *f = measure(&l, &o);
    assert_int_equal(f->layers[0].memory, all[i].memory);
    unroll_flow_free(f);
  }
  linear_close(&l);
}

/* Radius and norm that somebody has computed are taken as they are, and the words with them. */
static void spectra_that_are_known(void **state) {
  (void)state;
  double W[N * N];
  const unroll_tensor_info info = {
      .struct_size = sizeof info, .dtype = UNROLL_F64, .rank = 2, .shape = {N, N}, .name = "W"};
  assert_ok(unroll_init_orthogonal(&info, 3, 1, 0.8, W, &err));
  linear_net l;
  linear_open(&l, W);
  unroll_flow_options o = exact();
  unroll_flow *own = measure(&l, &o), *f;
  const double known[2] = {own->layers[0].rho, own->layers[0].norm_W}, other[2] = {1.25, 1.5},
               none[2] = {(double)NAN, (double)NAN};
  o.spectra = known;
  f = measure(&l, &o);
  assert_string_equal(f->layers[0].why, own->layers[0].why);
  assert_true(f->layers[0].condition == own->layers[0].condition && f->layers[0].slope == own->layers[0].slope);
  unroll_flow_free(f);
  o.spectra = other;
  f = measure(&l, &o);
  assert_true(f->layers[0].rho == 1.25 && f->layers[0].norm_W == 1.5 && f->layers[0].condition == 1.25);
  says(f, "even σ1·max|f'| = 1.5 is only necessary to explode");
  unroll_flow_free(f);
  o.spectra = none;
  f = measure(&l, &o);
  assert_true(isnan(f->layers[0].rho) && isnan(f->layers[0].condition));
  assert_near("product", 1, f->layers[0].product[1], 0.8, 1e-13, 0);
  unroll_flow_free(f);
  o.spectra = known;
  o.spectrum = -1;
  f = measure(&l, &o);
  assert_true(isnan(f->layers[0].rho));
  unroll_flow_free(f);
  unroll_flow_free(own);
  linear_close(&l);
}

static int asked, ends_at;
static int ends(void *ctx) {
  assert_ptr_equal(ctx, &asked);
  return ++asked >= ends_at;
}

/* Wherever it is cancelled, what is there by then is right and the rest says that it is not there. */
static void cancelled(void **state) {
  (void)state;
  double *W = numbers(5, N * N, 0.4);
  linear_net l;
  linear_open(&l, W);
  unroll_flow_options o = exact();
  unroll_flow *whole = measure(&l, &o), *f;
  o.cancel = ends;
  o.ctx = &asked;
  int had = 0;
  for (ends_at = 1; ends_at < 100; ends_at++) {
    asked = 0;
    f = (unroll_flow *)&l;
    const unroll_status status = unroll_flow_measure(&l.net, &l.batch, &o, &f, &err);
    if (status == UNROLL_OK)
      break;
    assert_error(status, UNROLL_E_CANCELLED, "cancelled");
    assert_int_equal(asked, ends_at); /* once it has said so nobody asks again */
    if (!f)
      continue;
    had++;
    assert_true(f->layers[0].product[5] == whole->layers[0].product[5] &&
                f->layers[0].norm[3] == whole->layers[0].norm[3]);
    assert_string_equal(f->layers[0].why, whole->layers[0].why);
    assert_true(isnan(f->layers[0].sigma[0]) && isnan(f->layers[0].sigma_error[T - 2]));
    unroll_flow_free(f);
  }
  assert_int_equal(ends_at, asked + 1); /* it was through before it was to end */
  assert_true(ends_at > 3 + 1 + 1);     /* probes, and at least a product for the singular values */
  assert_int_equal(had, ends_at - 1 - 3);
  assert_true(f->layers[0].sigma[0] == whole->layers[0].sigma[0]);
  unroll_flow_free(f);
  unroll_flow_free(whole);
  double J[N * N];
  asked = 0;
  ends_at = 1;
  assert_error(unroll_flow_jacobian(&l.net, &l.batch, &o, 0, 0, 0, 3, J, N * N, &err), UNROLL_E_CANCELLED, "cancelled");
  linear_close(&l);
  free(W);
}

/*
 * Lags in any order of sequences of unlike lengths, of which those of like sizes go through together: each sequence's own,
 * by LAPACK from its whole Jacobian, 1e-12 for sums of 6 numbers, 12 times over.
 */
static void lags_in_groups(void **state) {
  (void)state;
  enum { LAGS = 5 };
  const int64_t lags[LAGS] = {3, 12, 1, 8, 2};
  const int32_t lengths[B] = {8, T, 11};
  double *W = numbers(5, N * N, 0.6);
  linear_net l;
  linear_open(&l, W);
  l.rnn.f.kind = UNROLL_ACTIVATION_TANH;
  l.batch.lengths = lengths;
  unroll_flow_options o = exact();
  o.lags = lags;
  o.n_lags = LAGS;
  unroll_flow *f = measure(&l, &o);
  for (int k = 0; k < LAGS; k++) {
    double mean = 0, most = 0, J[N * N], sigma[N];
    int n = 0;
    for (int b = 0; b < B; b++) {
      if (lengths[b] <= lags[k])
        continue;
      assert_ok(unroll_flow_jacobian(&l.net, &l.batch, &o, 0, 0, b, lags[k], J, N * N, &err));
      assert_ok(unroll_singular_values(J, N, N, sigma, &err));
      mean += sigma[0];
      most = fmax(most, sigma[0]);
      n++;
    }
    assert_int_equal(f->layers[0].sigma_lag[k], lags[k]);
    assert_near("sigma", k, f->layers[0].sigma[k], mean / n, 1e-12, 0);
    assert_near("largest sigma", k, f->layers[0].sigma_max[k], most, 1e-12, 0);
  }
  unroll_flow_free(f);
  linear_close(&l);
  free(W);
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

/* ---- wrong input ---- */

static unroll_tensor no_loss(void *ctx, unroll_tensor y) {
  (void)ctx;
  return y;
}

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
  const unroll_flow_batch batch = l.batch;
  const unroll_network net = l.net;
  l.net.input = INT64_MAX; /* with the units beside it no number at all */
  refused(UNROLL_E_RANGE, "with 9223372036854775807 inputs");
  l.net.input = net.input;
  l.batch.steps = INT64_C(1) << 31;
  refused(UNROLL_E_RANGE, "2147483648 steps of a batch of 3 through 1 layers are too many");
  l.batch.steps = T;
  l.batch.batch = INT64_C(1) << 60;
  refused(UNROLL_E_RANGE, "are too many");
  l.batch = batch;
  l.rnn.layers = INT32_MAX / 2;
  l.batch.batch = INT64_C(1) << 16;
  refused(UNROLL_E_RANGE, "through 1073741823 layers are too many");
  l.batch = batch;
  l.rnn.layers = 1;
  const int64_t far[] = {1, T};
  o.lags = far;
  o.n_lags = 4097;
  refused(UNROLL_E_RANGE, "lags are given, but 4097 of them, expected 1 to 4096");
  o.n_lags = 2;
  refused(UNROLL_E_RANGE, "a lag of 13 steps, expected 1 to 12");
  o = exact();
  o.part = UNROLL_FLOW_ONLY_C;
  refused(UNROLL_E_RANGE, "the part c is asked for, which only an LSTM has");
  o = exact();
  o.dtype = UNROLL_I32;
  refused(UNROLL_E_RANGE, "dtype 5");
  o = exact();
  const unroll_flow_loss loss = {no_loss, NULL, NULL};
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
  W[1] = (double)NAN; /* nor is a weight that is no number */
  f = measure(&l, &o);
  assert_true(isnan(f->layers[0].rho) && isnan(f->layers[0].product[3]) && f->layers[0].memory == -1);
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
                                     cmocka_unit_test(memories_have_a_threshold),
                                     cmocka_unit_test(spectra_that_are_known),
                                     cmocka_unit_test(cancelled),
                                     cmocka_unit_test(lags_in_groups),
                                     cmocka_unit_test(a_shift_ends),
                                     cmocka_unit_test(what_is_not_normal_grows_first),
                                     cmocka_unit_test(the_condition_is_not_exact),
                                     cmocka_unit_test(wrong_input),
                                     cmocka_unit_test(what_explodes_is_reported),
                                     cmocka_unit_test(wrong_taps)};
  return cmocka_run_group_tests(tests, devices_open, devices_close);
}
