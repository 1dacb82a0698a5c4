/* SPDX-License-Identifier: Apache-2.0 */
/*
 * LAYER with h_mask, keep_h and keep_c: which versions its nodes are of, what is refused and in which words, and that
 * unroll_rnn's layers with dropout of h and zoneout are what their scans of ops are, with the same random numbers.
 * gradcheck_test and `unroll conform` have the numbers, cells_golden_test those of PyTorch, checkpoint_test the bits.
 */
#include "graph/graph_private.h"
#include "runs.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unroll/nn.h>

enum { T = 6, B = 5, I = 7, H = 19 };

static unroll_graph *new_graph(void) {
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_graph *g;
  assert_status(UNROLL_OK, unroll_graph_create(NULL, &g, &err));
  return g;
}

static unroll_tensor in(unroll_graph *g, const char *name, int32_t dtype, int32_t rank, const int64_t *shape) {
  return unroll_input(g, name, dtype, rank, shape);
}
#define IN(g, name, dtype, ...) \
  in(g, name, dtype, sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t), (int64_t[]){__VA_ARGS__})

static unroll_layer_inputs plain(unroll_graph *g, int32_t cell) {
  const int64_t GH = (int64_t)layer_gates(cell) * H;
  unroll_layer_inputs layer = {.x = IN(g, "x", UNROLL_F32, T, B, I),
                               .W_x = IN(g, "W_x", UNROLL_F32, GH, I),
                               .W_h = IN(g, "W_h", UNROLL_F32, GH, H)};
  if (cell == UNROLL_CELL_GRU_AFTER)
    layer.b_n = IN(g, "b_n", UNROLL_F32, H);
  return layer;
}

/* ---- versions ---- */

static void expect_versions(uint32_t which, uint32_t of_layer, uint32_t of_gradient) {
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_graph *g = new_graph();
  unroll_layer_inputs layer = plain(g, UNROLL_CELL_LSTM);
  if (which & 1)
    layer.h_mask = IN(g, "m", UNROLL_F32, B, H);
  if (which & 2)
    layer.keep_h = IN(g, "k", UNROLL_BOOL, T, B, H);
  if (which & 4)
    layer.keep_c = IN(g, "k_c", UNROLL_F32, B, H);
  const unroll_tensor y = unroll_layer(&layer, &(unroll_layer_attr){.cell = UNROLL_CELL_LSTM}, 0).y;
  unroll_tensor d;
  unroll_vjp(&y, &(unroll_tensor){NULL, 0}, 1, &layer.x, 1, &d);
  assert_status(UNROLL_OK, unroll_graph_status(g, &err));
  uint32_t n = 0;
  for (uint32_t i = 0; i < g->n_nodes; i++) {
    const node *x = &g->nodes[i];
    if (x->op != UNROLL_OP_LAYER && x->op != UNROLL_OP_LAYER_GRAD)
      continue;
    n++;
    assert_int_equal(graph_op_version(x), x->op == UNROLL_OP_LAYER ? of_layer : of_gradient);
  }
  assert_int_equal(n, 2);
  unroll_graph_destroy(g);
}

static void versions(void **state) {
  (void)state;
  expect_versions(0, 1, 1);
  for (uint32_t which = 1; which < 8; which++)
    expect_versions(which, 2, 3);
}

/* ---- what is refused ---- */

enum { MASK, KEEP_H, KEEP_C };
static void expect_refused(int32_t cell, int which, unroll_status code, const char *words, int32_t dtype, int32_t rank,
                           const int64_t *shape) {
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_graph *g = new_graph();
  unroll_layer_inputs layer = plain(g, cell);
  const unroll_tensor x = unroll_input(g, "mine", dtype, rank, shape);
  *(which == MASK ? &layer.h_mask : which == KEEP_H ? &layer.keep_h : &layer.keep_c) = x;
  unroll_layer(&layer, &(unroll_layer_attr){.cell = cell}, 0);
  assert_status(code, unroll_graph_status(g, &err));
  if (!strstr(err.message, words))
    fail_msg("\"%s\" does not say \"%s\"", err.message, words);
  unroll_graph_destroy(g);
}
#define REFUSED(cell, which, code, words, dtype, ...)                                                 \
  expect_refused(cell, which, code, words, dtype, sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t), \
                 (int64_t[]){__VA_ARGS__})

static void bad_masks(void **state) {
  (void)state;
  enum { LSTM = UNROLL_CELL_LSTM, GRU = UNROLL_CELL_GRU };
  REFUSED(LSTM, MASK, UNROLL_E_SHAPE, "input 8 is mine f32 [6,5,19], expected f32 [5,19]", UNROLL_F32, T, B, H);
  REFUSED(LSTM, MASK, UNROLL_E_DTYPE, "input 8 is mine bool [5,19], expected f32 [5,19]", UNROLL_BOOL, B, H);
  REFUSED(LSTM, KEEP_H, UNROLL_E_DTYPE, "input 9, keep_h, is mine i32 [6,5,19], expected bool or f32", UNROLL_I32, T, B,
          H);
  REFUSED(LSTM, KEEP_C, UNROLL_E_DTYPE, "input 10, keep_c, is mine f64 [5,19], expected bool or f32", UNROLL_F64, B, H);
  REFUSED(LSTM, KEEP_H, UNROLL_E_SHAPE, "input 9 is mine bool [5,5,19], expected bool [6,5,19]", UNROLL_BOOL, B, B, H);
  REFUSED(LSTM, KEEP_H, UNROLL_E_SHAPE, "input 9 is mine f32 [5,1], expected f32 [5,19]", UNROLL_F32, B, 1);
  REFUSED(LSTM, KEEP_C, UNROLL_E_SHAPE, "input 10 is mine f32 [19], expected f32 [6,5,19]", UNROLL_F32, H);
  REFUSED(GRU, KEEP_C, UNROLL_E_INVALID, "keep_c, is mine bool [6,5,19]; only an lstm has one", UNROLL_BOOL, T, B, H);

  static const char *const names[] = {"h_mask", "keep_h", "keep_c"};
  for (int which = MASK; which <= KEEP_C; which++) {
    unroll_error err = UNROLL_ERROR_INIT;
    unroll_graph *g = new_graph();
    unroll_layer_inputs layer = plain(g, LSTM);
    const unroll_tensor p = unroll_param(g, "p", UNROLL_F32, 2, (int64_t[]){B, H}), mask = unroll_sigmoid(p);
    *(which == MASK ? &layer.h_mask : which == KEEP_H ? &layer.keep_h : &layer.keep_c) = mask;
    const unroll_tensor y = unroll_layer(&layer, &(unroll_layer_attr){.cell = LSTM}, 0).y;
    unroll_tensor d;
    unroll_vjp(&y, &(unroll_tensor){NULL, 0}, 1, &p, 1, &d);
    assert_status(UNROLL_E_UNSUPPORTED, unroll_graph_status(g, &err));
    char words[64];
    snprintf(words, sizeof words, "no gradient flows into a layer's %s", names[which]);
    assert_non_null(strstr(err.message, words));
    unroll_graph_destroy(g);
  }
}

/* ---- a layer, and a scan of ops ---- */

/* y, the last state, and the gradients of x and of all parameters, two layers both ways. */
static unroll_graph *stack(int32_t cell, bool as_scan, bool inference, bool *layers) {
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_graph *g = new_graph();
  const unroll_tensor x = IN(g, "x", UNROLL_F32, T, B, I);
  unroll_tensor h[4], c[4], y[2], wrt[64], d[64];
  unroll_rnn_options o = {.struct_size = sizeof o,
                          .cell = cell,
                          .layers = 2,
                          .hidden = H,
                          .bidirectional = 1,
                          .dropout = 0.2,
                          .inference = inference,
                          .weight_dropout = 0.3,
                          .state_dropout = 0.4,
                          .zoneout_h = 0.25,
                          .clip = as_scan ? 1e6 : 0, /* which no number reaches */
                          .lengths = unroll_input(g, "lengths", UNROLL_I32, 1, (int64_t[]){B})};
  if (cell == UNROLL_CELL_LSTM)
    o.zoneout_c = 0.35;
  unroll_rnn_state last = {h, c};
  y[0] = unroll_rnn(x, "r", &o, NULL, &last);
  y[1] = h[3];
  assert_status(UNROLL_OK, unroll_graph_status(g, &err));
  *layers = false;
  for (uint32_t i = 0; i < g->n_nodes; i++)
    *layers = *layers || g->nodes[i].op == UNROLL_OP_LAYER;
  uint32_t n = 0;
  wrt[n++] = x;
  for (uint32_t i = 0; i < unroll_graph_count(g); i++)
    if (unroll_tensor_describe(unroll_graph_tensor(g, i)).role == UNROLL_ROLE_PARAM)
      wrt[n++] = unroll_graph_tensor(g, i);
  unroll_vjp(y, (unroll_tensor[2]){{NULL, 0}, {NULL, 0}}, 2, wrt, n, d);
  unroll_output(y[0], "y");
  unroll_output(y[1], "h");
  for (uint32_t i = 0; i < n; i++) {
    char name[64];
    snprintf(name, sizeof name, "d.%s", unroll_tensor_describe(wrt[i]).name);
    unroll_output(d[i], name);
  }
  assert_status(UNROLL_OK, unroll_graph_status(g, &err));
  return g;
}

static int64_t count(const unroll_tensor_info *t) {
  int64_t n = 1;
  for (int32_t i = 0; i < t->rank; i++)
    n *= t->shape[i];
  return n;
}

static model run(unroll_graph *g, unroll_device *dev) {
  static const int32_t lengths[B] = {6, 0, 3, 6, 1};
  model m = model_open(g, dev, true);
  for (uint32_t i = 0; i < unroll_graph_count(g); i++) {
    const unroll_tensor_info t = unroll_tensor_describe(unroll_graph_tensor(g, i));
    if (t.role == UNROLL_ROLE_OUTPUT || t.dtype != UNROLL_F32)
      continue;
    uint32_t seed = 11;
    for (const char *p = t.name; *p; p++)
      seed = seed * 31 + (unsigned char)*p;
    const int64_t n = count(&t);
    double *x = malloc((size_t)n * sizeof *x);
    assert_non_null(x);
    for (int64_t k = 0; k < n; k++) {
      seed = seed * 1664525u + 1013904223u;
      x[k] = (double)(seed >> 8) / 16777216.0 - 0.4;
    }
    model_put(&m, t.name, x, n);
    free(x);
  }
  model_put_i32(&m, "lengths", lengths, B);
  m.options.seed = 9;
  m.options.update = 4;
  m.options.t0 = 3;
  m.options.row0 = 2;
  model_run(&m);
  return m;
}

static void compare(unroll_graph *g[2], unroll_device *dev, const char *what) {
  model m[2] = {run(g[0], dev), run(g[1], dev)};
  for (uint32_t i = 0; i < unroll_graph_count(g[0]); i++) {
    const unroll_tensor_info t = unroll_tensor_describe(unroll_graph_tensor(g[0], i));
    if (t.role != UNROLL_ROLE_OUTPUT)
      continue;
    const int64_t n = count(&t);
    double *a = model_get(&m[0], t.name, n), *b = model_get(&m[1], t.name, n), most = 0;
    for (int64_t k = 0; k < n; k++)
      most = fmax(most, fabs(b[k]));
    assert_true(most > 0);
    /* One element of a mask more or less is a tenth of the largest; rounding, over 6 steps and 30 rows, 1e-6 of it. */
    for (int64_t k = 0; k < n; k++)
      if (!(fabs(a[k] - b[k]) <= 2e-5 * most))
        fail_msg("%s on %s: %s[%lld] is %.9g, as a scan %.9g", what, unroll_device_id(dev), t.name, (long long)k, a[k],
                 b[k]);
    free(a);
    free(b);
  }
  model_close(&m[0]);
  model_close(&m[1]);
}

static void layers_are_what_scans_are(void **state) {
  for (int32_t cell = UNROLL_CELL_NONE + 1; cell < UNROLL_CELL_COUNT; cell++)
    for (int inference = 0; inference < 2; inference++) {
      char what[64];
      bool layers[2];
      snprintf(what, sizeof what, "cell %d%s", cell, inference ? " in inference" : "");
      unroll_graph *g[2] = {stack(cell, false, inference, &layers[0]), stack(cell, true, inference, &layers[1])};
      assert_true(layers[0] && !layers[1]);
      FOR_EACH_DEVICE(dev, *state, UNROLL_F32)
        compare(g, dev, what);
      unroll_graph_destroy(g[0]);
      unroll_graph_destroy(g[1]);
    }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(versions), cmocka_unit_test(bad_masks),
                                     DEVICE_TESTS(layers_are_what_scans_are)};
  return cmocka_run_group_tests(tests, devices_open, devices_close);
}
