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
  l->batch = (unroll_flow_batch){
      .struct_size = sizeof l->batch, .steps = T, .batch = B, .x = l->x, .dy = l->dy};
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

int main(void) {
  const struct CMUnitTest tests[] = {DEVICE_TESTS(linear_networks), DEVICE_TESTS(linear_networks_f32)};
  return cmocka_run_group_tests(tests, devices_open, devices_close);
}
