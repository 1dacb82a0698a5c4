/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Layer norm: what is refused and in which words, and the same numbers where its ops are spelled out, since a device does not
 * know them. cells_golden_test and dense_golden_test hold the ops themselves against PyTorch, conform every backend.
 */
#include "runs.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unroll/nn.h>

enum { T = 4, B = 3, I = 5, H = 6 };

static unroll_graph *new_graph(void) {
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_graph *g;
  assert_status(UNROLL_OK, unroll_graph_create(NULL, &g, &err));
  return g;
}

/* ---- what is refused ---- */

static void refused(unroll_graph *g, unroll_status status, const char *words) {
  unroll_error err = UNROLL_ERROR_INIT;
  assert_status(status, unroll_graph_status(g, &err));
  if (!strstr(err.message, words))
    fail_msg("\"%s\" does not say \"%s\"", err.message, words);
  unroll_graph_destroy(g);
}

static void messages(void **state) {
  (void)state;
  const double epsilons[] = {-1e-5, NAN, INFINITY};
  for (int i = 0; i < 3; i++) {
    unroll_graph *g = new_graph();
    const unroll_tensor x = unroll_input(g, "x", UNROLL_F32, 2, (int64_t[]){3, 5});
    unroll_layer_norm(x, unroll_param(g, "gain", UNROLL_F32, 1, (int64_t[]){5}), unroll_none(), epsilons[i]);
    refused(g, UNROLL_E_RANGE, "expected a finite number from 0 on");
  }
  const struct {
    int32_t gain_rank, shift_rank;
    int64_t gain[2], shift[2];
    int32_t dtype;
    const char *words;
  } shapes[] = {{1, 1, {4}, {5}, UNROLL_F32, "gain f32 [4]"},
                {2, 1, {3, 5}, {5}, UNROLL_F32, "gain f32 [3,5]"},
                {1, 1, {5}, {3}, UNROLL_F32, "shift f32 [3]"},
                {1, 2, {5}, {1, 5}, UNROLL_F32, "shift f32 [1,5]"},
                {1, 1, {5}, {5}, UNROLL_F64, "gain f64 [5]"}};
  for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
    unroll_graph *g = new_graph();
    const unroll_tensor x = unroll_input(g, "x", UNROLL_F32, 2, (int64_t[]){3, 5});
    unroll_layer_norm(x, unroll_param(g, "gain", shapes[i].dtype, shapes[i].gain_rank, shapes[i].gain),
                      unroll_param(g, "shift", UNROLL_F32, shapes[i].shift_rank, shapes[i].shift), 1e-5);
    refused(g, shapes[i].dtype == UNROLL_F64 ? UNROLL_E_DTYPE : UNROLL_E_SHAPE, shapes[i].words);
  }
  unroll_graph *g = new_graph();
  const unroll_tensor ids = unroll_input(g, "ids", UNROLL_I32, 2, (int64_t[]){3, 5});
  unroll_layer_norm(ids, unroll_param(g, "gain", UNROLL_F32, 1, (int64_t[]){5}), unroll_none(), 1e-5);
  refused(g, UNROLL_E_DTYPE, "ids i32 [3,5]");
  g = new_graph();
  const unroll_tensor one = unroll_input(g, "one", UNROLL_F32, 0, NULL);
  unroll_layer_norm(one, unroll_param(g, "gain", UNROLL_F32, 1, (int64_t[]){1}), unroll_none(), 1e-5);
  refused(g, UNROLL_E_SHAPE, "one f32");
}

/* ---- spelled out ---- */

/* A layer with its gradients, and the op by itself over a row of rank 1 and rows of rank 3. */
static unroll_graph *cells(int32_t cell, int32_t dtype) {
  unroll_graph *g = new_graph();
  const unroll_tensor x = unroll_input(g, "x", dtype, 3, (int64_t[]){T, B, I});
  const unroll_tensor n = unroll_input(g, "n", UNROLL_I32, 1, (int64_t[]){B});
  const unroll_rnn_options o = {.struct_size = sizeof o,
                                .cell = cell,
                                .layers = 1,
                                .hidden = H,
                                .layer_norm = 1,
                                .layer_norm_epsilon = 0.01,
                                .bidirectional = 1,
                                .lengths = n};
  const unroll_tensor y = unroll_rnn(x, "", &o, NULL, NULL);
  const unroll_tensor gain = unroll_param(g, "gain", dtype, 1, (int64_t[]){2 * H}),
                      shift = unroll_param(g, "shift", dtype, 1, (int64_t[]){2 * H});
  const unroll_tensor out[2] = {unroll_output(unroll_layer_norm(y, gain, shift, 0.1), "y"),
                                unroll_output(unroll_layer_norm(gain, shift, unroll_none(), 0.2), "row")};
  const uint32_t n_given = unroll_graph_count(g);
  unroll_tensor wrt[40], d[40];
  uint32_t n_wrt = 0;
  for (uint32_t i = 0; i < n_given; i++) {
    const unroll_tensor t = unroll_graph_tensor(g, i);
    if (unroll_tensor_describe(t).role == UNROLL_ROLE_PARAM || t.id == x.id)
      wrt[n_wrt++] = t;
  }
  const unroll_tensor dy[2] = {unroll_input(g, "dy", dtype, 3, (int64_t[]){T, B, 2 * H}),
                               unroll_input(g, "drow", dtype, 1, (int64_t[]){2 * H})};
  unroll_vjp(out, dy, 2, wrt, n_wrt, d);
  for (uint32_t i = 0; i < n_wrt; i++) {
    char name[64];
    snprintf(name, sizeof name, "d%s", unroll_tensor_describe(wrt[i]).name);
    unroll_output(d[i], name);
  }
  unroll_error err = UNROLL_ERROR_INIT;
  assert_status(UNROLL_OK, unroll_graph_status(g, &err));
  return g;
}

static void fill(model *m, uint32_t n) {
  const int32_t lengths[B] = {T, 0, T - 1};
  for (uint32_t i = 0; i < n; i++) {
    const unroll_tensor_info t = unroll_tensor_describe(unroll_graph_tensor(m->graph, i));
    double values[8 * H * 2 * H];
    int64_t count = 1;
    for (int32_t k = 0; k < t.rank; k++)
      count *= t.shape[k];
    if (t.role == UNROLL_ROLE_OUTPUT)
      continue;
    assert_in_range(count, 1, sizeof values / sizeof *values);
    for (int64_t k = 0; k < count; k++)
      values[k] =
          0.3 + sin((double)(k * k) + 1.7 * (double)k + (double)strlen(t.name) + (double)(unsigned char)t.name[0]);
    if (t.dtype == UNROLL_I32)
      model_put_i32(m, t.name, lengths, B);
    else
      model_put(m, t.name, values, count);
  }
}

static void compare(unroll_graph *want, unroll_graph *got, unroll_device *dev, unroll_device *other, double tolerance) {
  model a = model_open(want, dev, true), b = model_open(got, other, true);
  const uint32_t n = unroll_graph_count(want);
  fill(&a, n);
  fill(&b, n);
  model_run(&a);
  model_run(&b);
  for (uint32_t i = 0; i < n; i++) {
    const unroll_tensor_info t = unroll_tensor_describe(unroll_graph_tensor(want, i));
    int64_t count = 1;
    for (int32_t k = 0; k < t.rank; k++)
      count *= t.shape[k];
    if (t.role != UNROLL_ROLE_OUTPUT)
      continue;
    double *x = model_get(&a, t.name, count), *y = model_get(&b, t.name, count);
    assert_close(t.name, y, x, count, tolerance);
    free(x);
    free(y);
  }
  model_close(&a);
  model_close(&b);
}

static const int32_t all_cells[] = {UNROLL_CELL_RNN, UNROLL_CELL_LSTM, UNROLL_CELL_GRU, UNROLL_CELL_GRU_AFTER};

/* A device that lacks these ops, or all that came with a second version, runs all of it, strictly: nothing is left to the
 * reference. In f64 nothing but the order of a few operations differs: 1e-12 of the largest is some thousand roundings. */
static void who_lacks_the_ops_runs_their_parts(void **state) {
  (void)state;
  static run_log seen;
  unroll_context *ctx = runs_context(NULL, &seen);
  unroll_device *whole = runs_device(ctx, "patchwork", NULL),
                *lacks = runs_device(ctx, "patchwork", "mask=layer_norm,layer_norm_grad", NULL),
                *old = runs_device(ctx, "patchwork", "mask=layer_norm,layer_norm_grad", "version=1", NULL);
  for (int i = 0; i < 4; i++) {
    unroll_graph *g = cells(all_cells[i], UNROLL_F64);
    compare(g, g, whole, lacks, 1e-12);
    compare(g, g, whole, old, 1e-12);
    unroll_graph_destroy(g);
  }
  unroll_device_close(whole);
  unroll_device_close(lacks);
  unroll_device_close(old);
  unroll_context_destroy(ctx);
}

/* Who lacks the parts, too, has it run by the reference as it is: one node each, not many. */
static void who_lacks_the_parts_leaves_them(void **state) {
  (void)state;
  static run_log seen;
  unroll_context *ctx = runs_context(NULL, &seen);
  unroll_device *dev = runs_device(ctx, "patchwork", "take=matmul", NULL);
  unroll_graph *g = new_graph();
  const unroll_tensor x = unroll_input(g, "x", UNROLL_F32, 2, (int64_t[]){3, 5}),
                      gain = unroll_param(g, "gain", UNROLL_F32, 1, (int64_t[]){5});
  unroll_output(unroll_layer_norm(x, gain, unroll_none(), 0.1), "y");
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_executable *e;
  assert_status(UNROLL_OK, unroll_compile(g, &dev, 1, NULL, &e, &err));
  assert_int_equal(unroll_executable_describe(e).n_fallbacks, 1);
  unroll_executable_destroy(e);
  unroll_graph_destroy(g);
  unroll_device_close(dev);
  unroll_context_destroy(ctx);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(messages), cmocka_unit_test(who_lacks_the_ops_runs_their_parts),
                                     cmocka_unit_test(who_lacks_the_parts_leaves_them)};
  return cmocka_run_group_tests(tests, devices_open, devices_close);
}
