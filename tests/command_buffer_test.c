/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs that OpenCL's command buffers replay: the same bits as launch by launch, whatever changes from run to run: sizes,
 * weights, random numbers, the queue. Where the driver has no command buffers, both sides are launch by launch.
 */
#include "runs.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static run_log seen;

enum { T = 9, B = 3, I = 6, H = 10, V = 11 };

typedef struct bound {
  unroll_device *device;
  unroll_executable *exe;
  unroll_binding *binding;
} bound;

static bound bind(unroll_context *ctx, unroll_graph *g, const training *w, const char *recorded, const char *way) {
  unroll_error err = UNROLL_ERROR_INIT;
  bound b = {.device = runs_device(ctx, "opencl", "kernels=cpu", "tune=off", "product=own", recorded, way, NULL)};
  assert_status(UNROLL_OK, unroll_compile(g, &b.device, 1, NULL, &b.exe, &err));
  assert_status(UNROLL_OK, unroll_binding_create(b.exe, &b.binding, &err));
  if (w)
    runs_fill(g, b.binding, w);
  return b;
}

static void release(bound *b) {
  unroll_binding_destroy(b->binding);
  unroll_executable_destroy(b->exe);
  unroll_device_close(b->device);
}

static unroll_context *context_with_opencl(void) {
  unroll_context *ctx = runs_context(NULL, &seen);
  if (!runs_have(ctx, "opencl")) {
    unroll_context_destroy(ctx);
    skip();
  }
  seen.n = 0;
  return ctx;
}

static void run_both(unroll_graph *g, const bound *one, const bound *two, const unroll_run_options *o) {
  unroll_error err = UNROLL_ERROR_INIT;
  assert_status(UNROLL_OK, unroll_run(one->binding, o, &err));
  assert_status(UNROLL_OK, unroll_run(two->binding, o, &err));
  results want = runs_read(g, one->binding), got = runs_read(g, two->binding);
  assert_same(&got, &want);
  results_free(&got);
  results_free(&want);
}

static bool recorded(void) {
  return log_count(&seen, "no command buffers that are known") > 0 || log_count(&seen, "opencl: recorded") > 0;
}

/* Sizes come and go, some often enough to be recorded; with an optimizer, all weights are others in each run. */
static void sizes_change(void **state) {
  (void)state;
  static const int64_t sizes[] = {T, T, T, T, 4, 4, 4, T, 4, T, T, T, 1, 1, 1, 4, T};
  static const char *const ways[] = {"recurrence=scan", "recurrence=sequence", "recurrence=step"};
  unroll_context *ctx = context_with_opencl();
  for (int way = 0; way < 3; way++)
    for (int optimize = 0; optimize < 2; optimize++) {
      const training w = {.T = T,
                          .B = B,
                          .I = I,
                          .H = H,
                          .V = V,
                          .dtype = UNROLL_F32,
                          .cell = UNROLL_CELL_LSTM,
                          .direction = UNROLL_FORWARD,
                          .layers = 1,
                          .runtime_T = true,
                          .optimize = optimize != 0};
      seen.n = 0;
      unroll_graph *g = runs_training(&w);
      bound one = bind(ctx, g, &w, "command_buffer=off", ways[way]);
      assert_int_equal(log_count(&seen, "opencl: recorded"), 0);
      bound two = bind(ctx, g, &w, "command_buffer=on", ways[way]);
      for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        run_both(g, &one, &two,
                 &(unroll_run_options){.struct_size = sizeof(unroll_run_options), .n_dims = 1, .dims = &sizes[i]});
      assert_true(recorded() || optimize);
      release(&one);
      release(&two);
      unroll_graph_destroy(g);
    }
  unroll_context_destroy(ctx);
}

/* Weights that are packed once and recorded without that are packed again when they are written. */
static void weights_change(void **state) {
  (void)state;
  unroll_context *ctx = context_with_opencl();
  unroll_error err = UNROLL_ERROR_INIT;
  const training w = {.T = T,
                      .B = B,
                      .I = I,
                      .H = H,
                      .V = V,
                      .dtype = UNROLL_F32,
                      .cell = UNROLL_CELL_GRU,
                      .direction = UNROLL_REVERSE,
                      .layers = 2};
  unroll_graph *g = runs_training(&w);
  bound one = bind(ctx, g, &w, "command_buffer=off", "recurrence=sequence"),
        two = bind(ctx, g, &w, "command_buffer=on", "recurrence=sequence");
  float weights[3 * H * H];
  for (int i = 0; i < 12; i++) {
    if (i % 4 == 3) {
      for (int k = 0; k < 3 * H * H; k++)
        weights[k] = (float)((k * 5 + i * 3) % 17) / 17 - 0.5f;
      assert_status(UNROLL_OK, unroll_binding_write(one.binding, "W_h_1", weights, sizeof weights, &err));
      assert_status(UNROLL_OK, unroll_binding_write(two.binding, "W_h_1", weights, sizeof weights, &err));
    }
    run_both(g, &one, &two, NULL);
  }
  assert_true(recorded());
  release(&one);
  release(&two);
  unroll_graph_destroy(g);
  unroll_context_destroy(ctx);
}

static void fill_x(unroll_binding *b) {
  unroll_error err = UNROLL_ERROR_INIT;
  float x[T * B * H];
  for (int i = 0; i < T * B * H; i++)
    x[i] = (float)(i % 13) - 6;
  assert_status(UNROLL_OK, unroll_binding_write(b, "x", x, sizeof x, &err));
}

/* Random numbers are others with each update, and with each place of the first step and row. */
static void random_numbers_change(void **state) {
  (void)state;
  unroll_context *ctx = context_with_opencl();
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_graph *g;
  assert_status(UNROLL_OK, unroll_graph_create(NULL, &g, &err));
  const unroll_tensor x = unroll_input(g, "x", UNROLL_F32, 3, (int64_t[]){T, B, H});
  unroll_output(unroll_unary(unroll_dropout(unroll_unary(x, UNROLL_TANH), 0.5), UNROLL_EXP), "y");
  bound one = bind(ctx, g, NULL, "command_buffer=off", "recurrence=auto"),
        two = bind(ctx, g, NULL, "command_buffer=on", "recurrence=auto");
  fill_x(one.binding);
  fill_x(two.binding);
  for (uint64_t i = 0; i < 48; i++)
    run_both(g, &one, &two,
             &(unroll_run_options){.struct_size = sizeof(unroll_run_options),
                                   .seed = i / 24,
                                   .update = i / 4,
                                   .t0 = (int64_t)(i / 12 % 2),
                                   .row0 = (int64_t)(i / 18)});
  release(&one);
  release(&two);
  unroll_graph_destroy(g);
  unroll_context_destroy(ctx);
}

/* A recording is of one queue: here the queues of two bindings become one after both have recorded. */
static void queues_change(void **state) {
  (void)state;
  unroll_context *ctx = context_with_opencl();
  unroll_error err = UNROLL_ERROR_INIT;
  const training w = {.T = T,
                      .B = B,
                      .I = I,
                      .H = H,
                      .V = V,
                      .dtype = UNROLL_F32,
                      .cell = UNROLL_CELL_LSTM,
                      .direction = UNROLL_FORWARD,
                      .layers = 1};
  unroll_graph *g = runs_training(&w);
  bound one = bind(ctx, g, &w, "command_buffer=off", "recurrence=scan"),
        two = bind(ctx, g, &w, "command_buffer=on", "recurrence=scan");
  unroll_binding *other;
  assert_status(UNROLL_OK, unroll_binding_create(two.exe, &other, &err));
  runs_fill(g, other, &w);
  for (int i = 0; i < 3; i++) {
    run_both(g, &one, &two, NULL);
    assert_status(UNROLL_OK, unroll_run(other, NULL, &err));
  }
  assert_status(UNROLL_OK, unroll_binding_share(other, "table", two.binding, "table", &err));
  bound three = {.device = two.device, .exe = two.exe, .binding = other};
  for (int i = 0; i < 5; i++) {
    run_both(g, &one, &two, NULL);
    run_both(g, &one, &three, NULL);
  }
  assert_true(recorded());
  unroll_binding_destroy(other);
  release(&one);
  release(&two);
  unroll_graph_destroy(g);
  unroll_context_destroy(ctx);
}

/* Without being waited for: the same recording is queued again before it is done. */
static void many_at_once(void **state) {
  (void)state;
  unroll_context *ctx = context_with_opencl();
  unroll_error err = UNROLL_ERROR_INIT;
  const training w = {.T = T,
                      .B = B,
                      .I = I,
                      .H = H,
                      .V = V,
                      .dtype = UNROLL_F32,
                      .cell = UNROLL_CELL_RNN,
                      .direction = UNROLL_FORWARD,
                      .layers = 1,
                      .with_state = true};
  unroll_graph *g = runs_training(&w);
  bound one = bind(ctx, g, &w, "command_buffer=off", "recurrence=scan"),
        two = bind(ctx, g, &w, "command_buffer=on", "recurrence=scan");
  for (int i = 0; i < 300; i++) { /* the state goes from run to run */
    assert_status(UNROLL_OK, unroll_run(one.binding, NULL, &err));
    assert_status(UNROLL_OK, unroll_run(two.binding, NULL, &err));
  }
  run_both(g, &one, &two, NULL);
  assert_true(recorded());
  release(&one);
  release(&two);
  unroll_graph_destroy(g);
  unroll_context_destroy(ctx);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(sizes_change),  cmocka_unit_test(weights_change), cmocka_unit_test(random_numbers_change),
      cmocka_unit_test(queues_change), cmocka_unit_test(many_at_once),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
