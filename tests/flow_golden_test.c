/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The flow of gradients through two bidirectional layers of an RNN, an LSTM and both kinds of GRU, on sequences of three lengths,
 * against PyTorch in f64: every product of Jacobians by torch.func.jacrev, singular values by NumPy, gradients of states.
 */
#include "flow_support.h"
#include "golden.h"
#include "statuses.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unroll/diagnose.h>
#include <unroll/flow.h>

static unroll_error err = UNROLL_ERROR_INIT;

enum { MAX_WEIGHTS = 16, MAX_SEQUENCES = 8 };

typedef struct net {
  golden file;
  unroll_rnn_options rnn;
  int64_t steps, batch, N; /* N: of a state */
  int32_t *lengths;
  double *x, *dy;
  char names[MAX_WEIGHTS][24];
  unroll_network_weight weights[MAX_WEIGHTS];
  unroll_network net;
  unroll_flow_batch all;
} net;

static void net_open(net *n, const char *name) {
  *n = (net){.file = golden_open(name)};
  n->rnn = (unroll_rnn_options){.struct_size = sizeof n->rnn,
                                .cell = golden_cell(&n->file),
                                .activation = golden_activation(&n->file),
                                .layers = (int32_t)golden_integer(&n->file, "layers"),
                                .hidden = golden_integer(&n->file, "H"),
                                .bidirectional = 1};
  assert_int_not_equal(n->rnn.activation, 0);
  n->steps = golden_integer(&n->file, "T");
  n->batch = golden_integer(&n->file, "B");
  n->N = n->rnn.hidden * (n->rnn.cell == UNROLL_CELL_LSTM ? 2 : 1);
  assert_in_range(n->batch, 1, MAX_SEQUENCES);
  uint32_t k = 0;
  for (uint64_t i = 0; i < unroll_safetensors_count(n->file.file); i++) {
    unroll_stored_tensor t;
    assert_ok(unroll_safetensors_get(n->file.file, i, &t, &err));
    if (strncmp(t.name, "W_", 2) != 0 && strncmp(t.name, "b", 1) != 0)
      continue;
    assert_in_range(k, 0, MAX_WEIGHTS - 1);
    snprintf(n->names[k], sizeof n->names[k], "%s", t.name);
    n->weights[k] = (unroll_network_weight){n->names[k], golden_values(&n->file, t.name, NULL), 0};
    n->weights[k++].count = (uint64_t)golden_count(&t);
  }
  n->x = golden_values(&n->file, "x", NULL);
  n->dy = golden_values(&n->file, "dy", NULL);
  n->lengths = golden_integers(&n->file, "lengths", NULL);
  n->net = (unroll_network){.struct_size = sizeof n->net,
                            .n_weights = k,
                            .options = &n->rnn,
                            .input = golden_integer(&n->file, "I"),
                            .weights = n->weights};
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
  free(n->lengths);
  golden_close(&n->file);
}

/* J and its singular values at [layer, direction, sequence, lag - 1]. */
static int64_t place(const net *n, int64_t i, int64_t sequence, int64_t lag) {
  return (i * n->batch + sequence) * (n->steps - 1) + lag - 1;
}

/*
 * Every matrix, of every layer, direction, sequence and lag; and all singular values of it. Each is a product of up to 6
 * matrices of 6 rows: 1e-13 of the largest element is room for their roundings, and so of the singular values, which move
 * by no more than the matrix does (Weyl).
 */
static void check_jacobians(const net *n, unroll_device *dev) {
  double *J = golden_values(&n->file, "J", NULL), *sigma = golden_values(&n->file, "sigma", NULL);
  const int64_t size = n->N * n->N;
  double *got = malloc((size_t)(size + n->N) * sizeof *got), *values = got + size;
  const unroll_flow_options o = {.struct_size = sizeof o, .device = dev};
  assert_non_null(got);
  for (int32_t i = 0; i < 2 * n->rnn.layers; i++)
    for (int64_t b = 0; b < n->batch; b++)
      for (int64_t lag = 1; lag < n->lengths[b]; lag++) {
        const int64_t at = place(n, i, b, lag);
        assert_ok(unroll_flow_jacobian(&n->net, &n->all, &o, i / 2, i % 2, b, lag, got, (uint64_t)size, &err));
        assert_close("Jacobian", got, J + at * size, size, 1e-13);
        assert_ok(unroll_singular_values(got, n->N, n->N, values, &err));
        for (int64_t k = 0; k < n->N; k++)
          assert_near("singular value", k, values[k], sigma[at * n->N + k], 1e-13, sigma[at * n->N]);
      }
  free(got);
  free(J);
  free(sigma);
}

/* The norms of every step, of what stands in the file as WHAT.h and WHAT.c: sums of a few dozen products, 1e-13 of each. */
static void check_norms(const net *n, const unroll_flow *f, const char *what) {
  for (int part = 0; part < 2; part++) {
    char name[16];
    snprintf(name, sizeof name, "%s.%c", what, "hc"[part]);
    double *norms = golden_has(&n->file, name) ? golden_values(&n->file, name, NULL) : NULL;
    for (uint32_t i = 0; i < f->n_layers; i++) {
      const unroll_flow_layer *at = &f->layers[i];
      const double *got = part ? at->c_norm : at->norm, *got_most = part ? at->c_norm_max : at->norm_max;
      assert_true(!got == !norms);
      for (int64_t t = 0; norms && t < n->steps; t++) {
        double mean = 0, most = 0, count = 0;
        for (int64_t b = 0; b < n->batch; b++)
          if (t < n->lengths[b]) {
            const double norm = norms[(i * n->steps + t) * n->batch + b];
            count++;
            mean += norm;
            most = fmax(most, norm);
          }
        assert_near("norm", t, got[t], mean / count, 1e-13, 0);
        assert_near("largest norm", t, got_most[t], most, 1e-13, 0);
      }
    }
    free(norms);
  }
}

/* By themselves, when layers stay whole, and from the loss that is taken where none is given. */
static void check_norms_alone(const net *n, unroll_device *dev) {
  unroll_flow_options o = {.struct_size = sizeof o, .device = dev, .probes = -1, .n_lags = -1};
  unroll_flow *f;
  assert_ok(unroll_flow_measure(&n->net, &n->all, &o, &f, &err));
  check_norms(n, f, "norm");
  unroll_flow_free(f);
  unroll_flow_batch batch = n->all;
  batch.dy = NULL;
  for (int32_t lags = -1; lags <= 1; lags += 2) {
    o.n_lags = lags;
    assert_ok(unroll_flow_measure(&n->net, &batch, &o, &f, &err));
    check_norms(n, f, "last");
    unroll_flow_free(f);
  }
}

/* The same random vectors give the same products, whether layers stay whole or not. */
static void check_products_alone(const net *n, unroll_device *dev) {
  for (int32_t part = UNROLL_FLOW_STATE; part <= (n->N > n->rnn.hidden ? UNROLL_FLOW_ONLY_C : UNROLL_FLOW_STATE);
       part++) {
    unroll_flow_options o = {.struct_size = sizeof o, .device = dev, .part = part, .probes = 2, .n_lags = 1};
    unroll_flow *with, *without;
    assert_ok(unroll_flow_measure(&n->net, &n->all, &o, &with, &err));
    o.n_lags = -1;
    assert_ok(unroll_flow_measure(&n->net, &n->all, &o, &without, &err));
    for (uint32_t i = 0; i < with->n_layers; i++)
      assert_close("products", without->layers[i].product, with->layers[i].product, n->steps, 1e-13);
    unroll_flow_free(with);
    unroll_flow_free(without);
  }
}

/*
 * The largest singular value of every lag without a matrix: 1e-11, as the iteration ends where its own bound of the error is
 * 1e-14 or all of the N dimensions are used up, and the root of a sum of squares halves the digits that cancel. And the norms
 * of products by random vectors: the mean of PROBES·sequences squares, whose deviation is half of the largest at most (Popoviciu):
 * four standard errors.
 */
static void check_measured(const net *n, unroll_device *dev) {
  enum { PROBES = 300 };
  double *J = golden_values(&n->file, "J", NULL), *sigma = golden_values(&n->file, "sigma", NULL);
  const int64_t lags[] = {1, 2, 3, 4, 5, 6}, B = n->batch;
  const unroll_flow_options o = {.struct_size = sizeof o,
                                 .device = dev,
                                 .lags = lags,
                                 .n_lags = 6,
                                 .iterations = 100,
                                 .tolerance = 1e-14,
                                 .probes = PROBES,
                                 .sequences = B};
  unroll_flow *f;
  assert_ok(unroll_flow_measure(&n->net, &n->all, &o, &f, &err));
  assert_int_equal(f->n_layers, 2 * n->rnn.layers);
  for (uint32_t i = 0; i < f->n_layers; i++) {
    const unroll_flow_layer *at = &f->layers[i];
    for (int64_t lag = 1; lag < n->steps; lag++) {
      double mean = 0, most = 0, squares = 0, spread = 0, count = 0;
      for (int64_t b = 0; b < B; b++)
        if (n->lengths[b] > lag) {
          const int64_t where = place(n, i, b, lag);
          double sum = 0;
          for (int64_t k = 0; k < n->N * n->N; k++)
            sum += pow(J[where * n->N * n->N + k], 2) / (double)n->N;
          count++;
          mean += sigma[where * n->N];
          most = fmax(most, sigma[where * n->N]);
          squares += sum;
          spread = fmax(spread, pow(sigma[where * n->N], 2));
        }
      assert_int_equal(at->sigma_lag[lag - 1], lag);
      assert_near("sigma", lag, at->sigma[lag - 1], mean / count, 1e-11, 0);
      assert_near("largest sigma", lag, at->sigma_max[lag - 1], most, 1e-11, 0);
      assert_true(at->sigma_error[lag - 1] <= 1e-7);
      const double error = fabs(pow(at->product[lag], 2) - squares / count);
      if (!(error <= 2 * spread / sqrt(PROBES * count)))
        fail_msg("product at %d: %g, expected the root of %g", (int)lag, at->product[lag], squares / count);
    }
  }
  check_norms(n, f, "norm");
  unroll_flow_free(f);
  free(J);
  free(sigma);
}

static void run(const char *plugin, void (*check)(const net *n, unroll_device *dev)) {
  uint32_t n;
  char **names = golden_list("flow_", &n);
  FOR_EACH_DEVICE(dev, plugin, UNROLL_F64)
    for (uint32_t i = 0; i < n; i++) {
      net m;
      net_open(&m, names[i]);
      check(&m, dev);
      net_close(&m);
    }
  golden_list_free(names, n);
}
static void jacobians(void **state) { run(*state, check_jacobians); }
static void norms_products_singular_values(void **state) { run(*state, check_measured); }
static void norms_alone(void **state) { run(*state, check_norms_alone); }
static void products_alone(void **state) { run(*state, check_products_alone); }

int main(void) {
  const struct CMUnitTest tests[] = {DEVICE_TESTS(jacobians), DEVICE_TESTS(norms_products_singular_values),
                                     DEVICE_TESTS(norms_alone), DEVICE_TESTS(products_alone)};
  return cmocka_run_group_tests(tests, devices_open, devices_close);
}
