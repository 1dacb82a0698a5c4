/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How the OpenCL backend launches the steps of whole layers: so many launches as each way promises, counted by the
 * profile; every way gives what the others give; and on a processor the same bits, whatever the way.
 */
#include "runs.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unroll/nn.h>

static run_log seen;

enum { T = 9, B = 6, I = 5, H = 35 };

typedef struct counts {
  int forward, backward, other;
} counts;

static void count(void *ctx, const unroll_profile_entry *e) {
  counts *c = ctx;
  if (!e->op_name || (strcmp(e->op_name, "layer") != 0 && strcmp(e->op_name, "layer_grad") != 0))
    return;
  if (strcmp(e->label, "forward") == 0)
    c->forward++;
  else if (strcmp(e->label, "backward") == 0)
    c->backward++;
  else
    c->other++;
}

static unroll_graph *layer_and_gradients(int32_t cell, int64_t steps, bool lengths) {
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_graph *g;
  assert_status(UNROLL_OK, unroll_graph_create(NULL, &g, &err));
  const int64_t G = cell == UNROLL_CELL_RNN ? 1 : cell == UNROLL_CELL_LSTM ? 4 : 3;
  unroll_layer_inputs in = {.x = unroll_input(g, "x", UNROLL_F32, 3, (int64_t[]){steps, B, I}),
                            .W_x = unroll_param(g, "W_x", UNROLL_F32, 2, (int64_t[]){G * H, I}),
                            .W_h = unroll_param(g, "W_h", UNROLL_F32, 2, (int64_t[]){G * H, H}),
                            .b = unroll_param(g, "b", UNROLL_F32, 1, (int64_t[]){G * H})};
  if (cell == UNROLL_CELL_GRU_AFTER)
    in.b_n = unroll_param(g, "b_n", UNROLL_F32, 1, (int64_t[]){H});
  if (lengths)
    in.lengths = unroll_input(g, "lengths", UNROLL_I32, 1, (int64_t[]){B});
  const unroll_layer_attr attr = {.cell = cell, .direction = UNROLL_FORWARD, .activation = UNROLL_TANH};
  const unroll_tensor y = unroll_layer(&in, &attr, 0).y,
                      dy = unroll_input(g, "dy", UNROLL_F32, 3, (int64_t[]){steps, B, H});
  const unroll_tensor of[] = {in.x, in.W_x, in.W_h, in.b};
  unroll_tensor d[4];
  unroll_vjp(&y, &dy, 1, of, 4, d);
  unroll_output(y, "y");
  static const char *const names[] = {"dx", "dW_x", "dW_h", "db"};
  for (int i = 0; i < 4; i++)
    unroll_output(d[i], names[i]);
  assert_status(UNROLL_OK, unroll_graph_status(g, &err));
  return g;
}

static const int32_t lengths_of[B] = {T, 3, 0, T, 1, 7};

typedef struct outputs {
  float *data;
  size_t n;
} outputs;

static outputs run_once(unroll_context *ctx, unroll_graph *g, const char *kernels, const char *recurrence, counts *c) {
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_device *d = runs_device(ctx, "opencl", kernels, recurrence, "tune=off", NULL);
  unroll_executable *e;
  unroll_binding *b;
  assert_status(UNROLL_OK, unroll_compile(g, &d, 1, NULL, &e, &err));
  assert_status(UNROLL_OK, unroll_binding_create(e, &b, &err));
  assert_status(UNROLL_OK, unroll_binding_profile(b, 1, &err));
  runs_fill_layers(g, b, lengths_of, sizeof lengths_of);
  *c = (counts){0};
  assert_status(UNROLL_OK, unroll_run(b, NULL, &err));
  assert_status(UNROLL_OK, unroll_binding_profile_read(b, count, c, &err));
  outputs o = {NULL, 0};
  for (uint32_t i = 0; i < unroll_graph_count(g); i++) {
    const unroll_tensor_info info = unroll_tensor_describe(unroll_graph_tensor(g, i));
    if (info.role != UNROLL_ROLE_OUTPUT)
      continue;
    size_t n = 1;
    for (int32_t k = 0; k < info.rank; k++)
      n *= (size_t)info.shape[k];
    o.data = realloc(o.data, (o.n + n) * sizeof *o.data);
    assert_non_null(o.data);
    assert_status(UNROLL_OK, unroll_binding_read(b, info.name, o.data + o.n, n * sizeof *o.data, &err));
    o.n += n;
  }
  unroll_binding_destroy(b);
  unroll_executable_destroy(e);
  unroll_device_close(d);
  return o;
}

/* A sum of at most 50 products and as many steps in another order: 1e-4 of the largest number is a hundred times that. */
static void assert_agree(outputs a, outputs b) {
  float largest = 0;
  assert_int_equal(a.n, b.n);
  for (size_t i = 0; i < a.n; i++)
    largest = fmaxf(largest, fabsf(b.data[i]));
  for (size_t i = 0; i < a.n; i++)
    assert_true(fabsf(a.data[i] - b.data[i]) <= 1e-4f * largest);
}

static void launches_are_as_promised(void **state) {
  const char *kernels = *state;
  static const int32_t cells[] = {UNROLL_CELL_RNN, UNROLL_CELL_LSTM, UNROLL_CELL_GRU, UNROLL_CELL_GRU_AFTER};
  unroll_context *ctx = runs_context(NULL, &seen);
  if (!runs_have(ctx, "opencl")) {
    unroll_context_destroy(ctx);
    skip();
  }
  for (int i = 0; i < 4; i++)
    for (int lengths = 0; lengths < 2; lengths++) {
      /* Those of a GPU take PoCL long to build: one cell of one phase with lengths, the cell of two without. */
      const bool lstm = cells[i] == UNROLL_CELL_LSTM, gru = cells[i] == UNROLL_CELL_GRU;
      if (strcmp(kernels, "kernels=cpu") != 0 && !(lengths ? lstm : gru))
        continue;
      counts scan, step, sequence;
      unroll_graph *g = layer_and_gradients(cells[i], T, lengths != 0);
      outputs a = run_once(ctx, g, kernels, "recurrence=scan", &scan);
      outputs b = run_once(ctx, g, kernels, "recurrence=step", &step);
      outputs c = run_once(ctx, g, kernels, "recurrence=sequence", &sequence);
      const int phases = cells[i] == UNROLL_CELL_GRU ? 2 : 1;
      assert_int_equal(scan.forward + scan.backward + scan.other, 0);
      assert_int_equal(step.forward, T * phases);
      assert_in_range(step.backward, T * phases, (T + 1) * phases); /* perhaps one more for the first state */
      assert_int_equal(sequence.forward, 1);
      assert_int_equal(sequence.backward, 1);
      assert_agree(b, a);
      assert_agree(c, a);
      if (strcmp(kernels, "kernels=cpu") == 0)
        assert_memory_equal(b.data, c.data, c.n * sizeof *c.data);
      free(a.data);
      free(b.data);
      free(c.data);
      unroll_graph_destroy(g);
    }
  unroll_context_destroy(ctx);
}

/* Rows of all steps together are more than 65,535, which some drivers' second and third dimensions can't count. */
static void many_rows(void **state) {
  unroll_context *ctx = runs_context(NULL, &seen);
  if (!runs_have(ctx, "opencl")) {
    unroll_context_destroy(ctx);
    skip();
  }
  counts a, b;
  unroll_graph *g = layer_and_gradients(UNROLL_CELL_GRU_AFTER, 11000, false);
  outputs x = run_once(ctx, g, *state, "recurrence=scan", &a), y = run_once(ctx, g, *state, "recurrence=sequence", &b);
  assert_agree(y, x);
  free(x.data);
  free(y.data);
  unroll_graph_destroy(g);
  unroll_context_destroy(ctx);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      {"launches_are_as_promised_cpu", launches_are_as_promised, NULL, NULL, "kernels=cpu"},
      {"launches_are_as_promised_gpu", launches_are_as_promised, NULL, NULL, "kernels=gpu"},
      {"many_rows_cpu", many_rows, NULL, NULL, "kernels=cpu"},
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
