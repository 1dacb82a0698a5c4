/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The options of unroll_rnn: which are LAYER nodes still, what is refused and in which words, what a graph that is not trained
 * leaves out, activations at their extremes, and building with memory that runs out. cells_golden_test has the values.
 */
#include "nn/nn_private.h"
#include "runs.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { T = 4, B = 3, I = 5, H = 5 };

static unroll_graph *new_graph(const unroll_allocator *a) {
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_graph *g;
  assert_status(UNROLL_OK, unroll_graph_create(a, &g, &err));
  return g;
}
static unroll_tensor input_x(unroll_graph *g) { return unroll_input(g, "x", UNROLL_F32, 3, (int64_t[]){T, B, I}); }

/* ---- what is a LAYER node ---- */

static void expect_nodes(const char *what, unroll_rnn_options o, uint32_t layers, uint32_t scans) {
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_graph *g = new_graph(NULL);
  o.struct_size = o.struct_size ? o.struct_size : (uint32_t)sizeof o;
  o.layers = o.layers ? o.layers : 2;
  o.hidden = H;
  unroll_rnn(input_x(g), "", &o, NULL, NULL);
  assert_status(UNROLL_OK, unroll_graph_status(g, &err));
  uint32_t n_layers = 0, n_scans = 0;
  for (uint32_t i = 0; i < g->n_nodes; i++) {
    n_layers += g->nodes[i].op == UNROLL_OP_LAYER;
    n_scans += g->nodes[i].op == UNROLL_OP_SCAN;
  }
  if (n_layers != layers || n_scans != scans)
    fail_msg("%s: %u layers and %u scans, expected %u and %u", what, n_layers, n_scans, layers, scans);
  unroll_graph_destroy(g);
}
#define EXPECT(layers, scans, ...) expect_nodes(#__VA_ARGS__, (unroll_rnn_options){__VA_ARGS__}, layers, scans)

static void layers_where_they_can_be(void **state) {
  (void)state;
  const unroll_activation tanh_ = {.kind = UNROLL_ACTIVATION_TANH}, sigmoid_ = {.kind = UNROLL_ACTIVATION_SIGMOID},
                          relu_ = {.kind = UNROLL_ACTIVATION_RELU};
  unroll_tensor cells[2];
  for (int32_t cell = UNROLL_CELL_NONE + 1; cell < UNROLL_CELL_COUNT; cell++) {
    EXPECT(2, 0, .cell = cell);
    EXPECT(4, 0, .cell = cell, .bidirectional = 1);
    EXPECT(2, 0, .cell = cell, .input_dropout = 0.5, .dropout = 0.5, .output_dropout = 0.5, .weight_dropout = 0.5);
    EXPECT(2, 0, .cell = cell, .input_dropout = 0.5, .same_mask = 1, .residual = UNROLL_RESIDUAL_OUTPUTS);
    EXPECT(2, 0, .cell = cell, .state_dropout = 0.5, .inference = 1);
    EXPECT(2, 0, .cell = cell, .state_dropout = 0.5);
    EXPECT(2, 0, .cell = cell, .zoneout_h = 0.5);
    EXPECT(2, 0, .cell = cell, .zoneout_h = 0.5, .inference = 1);
    EXPECT(4, 0, .cell = cell, .zoneout_h = 0.5, .state_dropout = 0.5, .weight_dropout = 0.5, .bidirectional = 1);
    EXPECT(0, 2, .cell = cell, .zoneout_h = 0.5, .layer_norm = 1);
    EXPECT(0, 2, .cell = cell, .layer_norm = 1);
    EXPECT(0, 2, .cell = cell, .clip = 1);
    EXPECT(0, 2, .cell = cell, .skip = 1);
    EXPECT(0, 2, .cell = cell, .residual = UNROLL_RESIDUAL_STATES);
  }
  EXPECT(2, 0, .cell = UNROLL_CELL_RNN, .f = relu_);
  EXPECT(2, 0, .cell = UNROLL_CELL_LSTM, .zoneout_h = 0.5, .zoneout_c = 0.25, .state_dropout = 0.5);
  EXPECT(0, 2, .cell = UNROLL_CELL_LSTM, .zoneout_c = 0.25, .residual = UNROLL_RESIDUAL_STATES);
  EXPECT(2, 0, .cell = UNROLL_CELL_LSTM, .f = sigmoid_, .g = tanh_, .h = tanh_);
  EXPECT(0, 2, .cell = UNROLL_CELL_LSTM, .f = sigmoid_, .g = relu_);
  EXPECT(0, 2, .cell = UNROLL_CELL_LSTM, .cells = cells);
  EXPECT(0, 2, .cell = UNROLL_CELL_LSTM, .peepholes = 1);
  EXPECT(0, 2, .cell = UNROLL_CELL_LSTM, .projection = 2);
  EXPECT(0, 2, .cell = UNROLL_RNN_COUPLED_LSTM);
  /* A caller's struct that ends with lengths: what stands behind it is not looked at. */
  EXPECT(2, 0, .struct_size = UNROLL_SIZE_TO(unroll_rnn_options, lengths), .cell = UNROLL_CELL_RNN, .layer_norm = 1,
         .zoneout_c = 7);
}

/* With inference the graph is that of no dropout at all. */
static void inference_has_no_masks(void **state) {
  (void)state;
  char *text[2];
  for (int k = 0; k < 2; k++) {
    unroll_error err = UNROLL_ERROR_INIT;
    unroll_graph *g = new_graph(NULL);
    unroll_rnn_options o = {
        .struct_size = sizeof o, .cell = UNROLL_CELL_LSTM, .layers = 2, .hidden = H, .zoneout_h = 0.5};
    o.inference = 1;
    if (k)
      o.input_dropout = o.dropout = o.output_dropout = o.weight_dropout = o.state_dropout = 0.5;
    unroll_rnn(input_x(g), "", &o, NULL, NULL);
    assert_status(UNROLL_OK, unroll_graph_dump(g, UNROLL_DUMP_TEXT, 0, &text[k], &err));
    unroll_graph_destroy(g);
  }
  assert_string_equal(text[0], text[1]);
  assert_null(strstr(text[0], "dropout"));
  unroll_string_free(text[0]);
  unroll_string_free(text[1]);
}

/* ---- what is refused ---- */

static void expect_refused(unroll_rnn_options o, unroll_status code, const char *words) {
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_graph *g = new_graph(NULL);
  o.struct_size = sizeof o;
  o.layers = o.layers ? o.layers : 1;
  o.hidden = H;
  assert_null(unroll_rnn(input_x(g), "", &o, NULL, NULL).graph);
  assert_status(code, unroll_graph_status(g, &err));
  if (!strstr(err.message, words))
    fail_msg("\"%s\" does not say \"%s\"", err.message, words);
  unroll_graph_destroy(g);
}
#define REFUSED(code, words, ...) expect_refused((unroll_rnn_options){__VA_ARGS__}, code, words)

static void bad_options(void **state) {
  (void)state;
  enum { RNN = UNROLL_CELL_RNN, LSTM = UNROLL_CELL_LSTM, GRU = UNROLL_CELL_GRU, MIN = UNROLL_RNN_MIN_GRU };
  unroll_tensor cells[1];
  REFUSED(UNROLL_E_INVALID, "5 is no cell", .cell = 5);
  REFUSED(UNROLL_E_INVALID, "67 is no cell", .cell = 67);
  REFUSED(UNROLL_E_RANGE, "input_dropout 1, expected 0 <= p < 1", .cell = RNN, .input_dropout = 1);
  REFUSED(UNROLL_E_RANGE, "output_dropout -0.1", .cell = RNN, .output_dropout = -0.1);
  REFUSED(UNROLL_E_RANGE, "weight_dropout 2", .cell = RNN, .weight_dropout = 2);
  REFUSED(UNROLL_E_RANGE, "state_dropout nan", .cell = RNN, .state_dropout = (double)NAN);
  REFUSED(UNROLL_E_RANGE, "zoneout_h 1", .cell = RNN, .zoneout_h = 1, .inference = 1);
  REFUSED(UNROLL_E_RANGE, "zoneout_c -1", .cell = LSTM, .zoneout_c = -1);
  REFUSED(UNROLL_E_RANGE, "clip -3", .cell = RNN, .clip = -3);
  REFUSED(UNROLL_E_RANGE, "cell_clip inf", .cell = LSTM, .cell_clip = (double)INFINITY);
  REFUSED(UNROLL_E_RANGE, "layer_norm_epsilon -1", .cell = LSTM, .layer_norm_epsilon = -1);
  REFUSED(UNROLL_E_RANGE, "skip nan", .cell = RNN, .skip = (double)NAN);
  REFUSED(UNROLL_E_RANGE, "projection to -1", .cell = LSTM, .projection = -1);
  REFUSED(UNROLL_E_RANGE, "residual 3", .cell = RNN, .residual = 3);
  REFUSED(UNROLL_E_INVALID, "peepholes is no option of cell gru", .cell = GRU, .peepholes = 1);
  REFUSED(UNROLL_E_INVALID, "projection is no option of cell rnn", .cell = RNN, .projection = 2);
  REFUSED(UNROLL_E_INVALID, "cell_clip is no option of cell gru", .cell = GRU, .cell_clip = 2);
  REFUSED(UNROLL_E_INVALID, "zoneout_c is no option of cell gru", .cell = GRU, .zoneout_c = 0.5);
  REFUSED(UNROLL_E_INVALID, "cells is no option of cell rnn", .cell = RNN, .cells = cells);
  REFUSED(UNROLL_E_INVALID, "g is no option of cell rnn", .cell = RNN, .g = {.kind = 1});
  REFUSED(UNROLL_E_INVALID, "h is no option of cell gru", .cell = GRU, .h = {.kind = 1});
  REFUSED(UNROLL_E_INVALID, "f is no option of cell min_gru", .cell = MIN, .f = {.kind = 1});
  REFUSED(UNROLL_E_INVALID, "weight_dropout is no option of cell min_gru", .cell = MIN, .weight_dropout = 0.5);
  REFUSED(UNROLL_E_INVALID, "UNROLL_RESIDUAL_STATES is no option of cell min_gru", .cell = MIN, .residual = 2);
  REFUSED(UNROLL_E_INVALID, "activation is no option of cell coupled_lstm", .cell = UNROLL_RNN_COUPLED_LSTM,
          .activation = UNROLL_RELU);
  REFUSED(UNROLL_E_INVALID, "both activation and f", .cell = RNN, .activation = UNROLL_RELU, .f = {.kind = 1});
  REFUSED(UNROLL_E_INVALID, "activation 4, expected UNROLL_TANH", .cell = RNN, .activation = UNROLL_EXP);
  REFUSED(UNROLL_E_RANGE, "activation f is 14", .cell = RNN, .f = {.kind = 14});
  REFUSED(UNROLL_E_RANGE, "activation g is -1", .cell = GRU, .g = {.kind = -1});
  REFUSED(UNROLL_E_RANGE, "activation f has alpha inf", .cell = RNN, .f = {.kind = 4, .alpha = (double)INFINITY});
  REFUSED(UNROLL_E_INVALID, "activation f is modReLU", .cell = GRU, .f = {.kind = UNROLL_ACTIVATION_MODRELU});

  /* First states: those of a scan are looked at by unroll_rnn, those of a LAYER by the node. */
  for (int k = 0; k < 2; k++) {
    unroll_error err = UNROLL_ERROR_INIT;
    unroll_graph *g = new_graph(NULL);
    const unroll_rnn_options o = {
        .struct_size = sizeof o, .cell = LSTM, .layers = 1, .hidden = H, .projection = 2, .peepholes = 1};
    unroll_tensor first = unroll_input(g, "first", UNROLL_F32, 2, (int64_t[]){B, k ? 2 : H});
    unroll_rnn(input_x(g), "", &o, k ? &(unroll_rnn_state){.c = &first} : &(unroll_rnn_state){.h = &first}, NULL);
    assert_status(UNROLL_E_SHAPE, unroll_graph_status(g, &err));
    assert_non_null(strstr(err.message, k ? "first c of layer 0 is first f32 [3,2], expected f32 [3,5]"
                                          : "first h of layer 0 is first f32 [3,5], expected f32 [3,2]"));
    unroll_graph_destroy(g);
  }
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_graph *g = new_graph(NULL);
  unroll_linear_tied(input_x(g), unroll_none(), "head", 1);
  assert_status(UNROLL_E_INVALID, unroll_graph_status(g, &err));
  assert_non_null(strstr(err.message, "weight is missing"));
  unroll_graph_destroy(g);
}

/* ---- activations ---- */

static double softplus(double x) { return fmax(x, 0) + log1p(exp(-fabs(x))); }
static double logistic(double x) { return x < 0 ? exp(x) / (1 + exp(x)) : 1 / (1 + exp(-x)); }

/* Value and slope by libm; alpha, beta as below. Where two slopes meet, ONNX's formula says which branch has the point. */
static void expected(int32_t kind, double x, double alpha, double beta, double *y, double *slope) {
  const double line = alpha * x + beta, th = tanh(beta * x);
  switch (kind) {
  case UNROLL_ACTIVATION_TANH: *y = tanh(x), *slope = 1 / (cosh(x) * cosh(x)); break;
  case UNROLL_ACTIVATION_SIGMOID: *y = logistic(x), *slope = logistic(x) * logistic(-x); break;
  case UNROLL_ACTIVATION_RELU: *y = fmax(x, 0), *slope = x > 0; break;
  case UNROLL_ACTIVATION_AFFINE: *y = line, *slope = alpha; break;
  case UNROLL_ACTIVATION_LEAKY_RELU: *y = x < 0 ? alpha * x : x, *slope = x < 0 ? alpha : 1; break;
  case UNROLL_ACTIVATION_THRESHOLDED_RELU: *y = x > alpha ? x : 0, *slope = x > alpha; break;
  case UNROLL_ACTIVATION_SCALED_TANH: *y = alpha * th, *slope = alpha * beta * (1 - th * th); break;
  case UNROLL_ACTIVATION_HARD_SIGMOID: *y = fmin(fmax(line, 0), 1), *slope = line >= 0 && line <= 1 ? alpha : 0; break;
  case UNROLL_ACTIVATION_ELU: *y = x < 0 ? alpha * expm1(x) : x, *slope = x < 0 ? alpha * exp(x) : 1; break;
  case UNROLL_ACTIVATION_SOFTSIGN: *y = x / (1 + fabs(x)), *slope = 1 / ((1 + fabs(x)) * (1 + fabs(x))); break;
  case UNROLL_ACTIVATION_SOFTPLUS: *y = softplus(x), *slope = logistic(x); break;
  default: *y = x, *slope = 1;
  }
}

/*
 * Each value to a few roundings of its own size, however small: 16 of them for values. A slope may come of 1 - y² and the like,
 * which is exact to roundings of 1. What is below the dtype's smallest normal number may be flushed to 0.
 */
static void activations_at_their_extremes(void **state) {
  static const double at[] = {-1e30, -1e4, -110, -90, -40, -20, -5, -0.7, -1e-3, -1e-7, -1e-20, 0,
                              1e-20, 1e-7, 1e-3, 0.3, 0.7, 5,   20, 40,   90,    110,   1e4,    1e30};
  enum { N = sizeof at / sizeof *at };
  static const int32_t dtypes[] = {UNROLL_F64, UNROLL_F32};
  for (int32_t kind = 1; kind <= UNROLL_ACTIVATION_IDENTITY; kind++)
    for (int k = 0; k < 2; k++)
      FOR_EACH_DEVICE(dev, *state, dtypes[k]) {
        unroll_activation a = unroll_activation_of(kind);
        if (kind == UNROLL_ACTIVATION_ELU || kind == UNROLL_ACTIVATION_SCALED_TANH)
          a.alpha = 0.75;
        unroll_graph *g = new_graph(NULL);
        const unroll_tensor x = unroll_input(g, "x", dtypes[k], 1, (int64_t[]){N});
        const unroll_tensor y = nn_activate(x, &a, 0, unroll_none());
        unroll_tensor d;
        unroll_vjp(&y, &(unroll_tensor){NULL, 0}, 1, &x, 1, &d);
        unroll_output(d, "slope");
        unroll_output(y, "y");
        model m = model_open(g, dev, true);
        model_put(&m, "x", at, N);
        model_run(&m);
        double *value = model_get(&m, "y", N), *slope = model_get(&m, "slope", N);
        const double eps = dtypes[k] == UNROLL_F64 ? 0x1p-52 : 0x1p-23,
                     tiny = dtypes[k] == UNROLL_F64 ? 1e-307 : 1.2e-38;
        for (int i = 0; i < N; i++) {
          double want, slant;
          const double seen = dtypes[k] == UNROLL_F64 ? at[i] : (double)(float)at[i];
          expected(kind, seen, a.alpha, a.beta, &want, &slant);
          if (!(fabs(value[i] - want) <= 16 * eps * fabs(want) + tiny))
            fail_msg("activation %d of %g, %s: %.17g, expected %.17g", kind, seen, unroll_dtype_name(dtypes[k]),
                     value[i], want);
          if (!(fabs(slope[i] - slant) <= 16 * eps * fmax(1, fabs(slant))))
            fail_msg("slope of activation %d at %g, %s: %.17g, expected %.17g", kind, seen,
                     unroll_dtype_name(dtypes[k]), slope[i], slant);
        }
        free(value);
        free(slope);
        model_close(&m);
        unroll_graph_destroy(g);
      }
}

/* ---- memory ---- */

/* A stack with everything in it, built with the n-th allocation failing, for every n. */
static void memory_that_runs_out(void **state) {
  (void)state;
  static const int32_t cells[] = {UNROLL_CELL_RNN,       UNROLL_CELL_LSTM,        UNROLL_CELL_GRU,
                                  UNROLL_CELL_GRU_AFTER, UNROLL_RNN_COUPLED_LSTM, UNROLL_RNN_MIN_LSTM};
  for (size_t k = 0; k < sizeof cells / sizeof *cells; k++) {
    const int64_t gates = unroll_gate_count(cells[k]);
    const bool lstm = cells[k] == UNROLL_CELL_LSTM || cells[k] == UNROLL_RNN_COUPLED_LSTM;
    const bool minimal = cells[k] == UNROLL_RNN_MIN_LSTM;
    assert_in_range(gates, 1, 4);
    for (long n = 1, done = 0; !done; n++) {
      run_memory memory = {.fail_at = n};
      const unroll_allocator allocator = runs_allocator(&memory);
      unroll_error err = UNROLL_ERROR_INIT;
      unroll_graph *g = NULL;
      if (unroll_graph_create(&allocator, &g, &err) == UNROLL_OK) {
        unroll_tensor all[2];
        unroll_rnn_options o = {
            .struct_size = sizeof o, .cell = cells[k], .layers = 1, .hidden = H, .bidirectional = 1};
        o.input_dropout = 0.25;
        o.same_mask = 1;
        if (!minimal) {
          o.layer_norm = 1;
          o.weight_dropout = o.state_dropout = o.zoneout_h = 0.25;
          o.skip = 0.5;
          o.clip = 2;
        }
        if (lstm) {
          o.projection = 2;
          o.peepholes = 1;
          o.cell_clip = 1;
          o.zoneout_c = 0.5;
          o.cells = all;
        }
        o.lengths = unroll_input(g, "lengths", UNROLL_I32, 1, (int64_t[]){B});
        unroll_rnn(input_x(g), "", &o, NULL, NULL);
        const unroll_status s = unroll_graph_status(g, &err);
        done = memory.calls < n;
        if (done)
          assert_status(UNROLL_OK, s);
        else
          assert_status(UNROLL_E_MEMORY, s);
      }
      unroll_graph_destroy(g);
      assert_int_equal(memory.live, 0);
    }
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(layers_where_they_can_be),
                                     cmocka_unit_test(inference_has_no_masks), cmocka_unit_test(bad_options),
                                     DEVICE_TESTS(activations_at_their_extremes),
                                     cmocka_unit_test(memory_that_runs_out)};
  return cmocka_run_group_tests(tests, devices_open, devices_close);
}
