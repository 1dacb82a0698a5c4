/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The flow of gradients against differences of the network's own states, for cells with options, in both directions, with
 * ragged lengths; and an LSTM's own path, which is known.
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

enum { MAX_WEIGHTS = 64, I = 2 };

typedef struct net {
  unroll_rnn_options rnn;
  int64_t steps, batch, inputs, P;
  int32_t lengths[4];
  char names[MAX_WEIGHTS][40];
  unroll_network_weight weights[MAX_WEIGHTS];
  unroll_network net;
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
    n->weights[k] = (unroll_network_weight){n->names[k], numbers(10 + k, count, 0.6), (uint64_t)count};
    k++;
  }
  unroll_graph_destroy(g);
  n->net = (unroll_network){.struct_size = sizeof n->net,
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

static const unroll_network_weight *weight(const net *n, const char *name) {
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
    const unroll_network_weight *w = weight(n, name);
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
  assert_non_null(strstr(f->layers[0].why, "only measured products say how far"));
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

int main(void) {
  const struct CMUnitTest tests[] = {DEVICE_TESTS(any_cell), DEVICE_TESTS(norms_of_stacks),
                                     cmocka_unit_test(the_cells_own_path), DEVICE_TESTS(gated_f32)};
  return cmocka_run_group_tests(tests, devices_open, devices_close);
}
