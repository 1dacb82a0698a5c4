/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Layers in flight at once on OpenCL: the two directions of a bidirectional layer, and layers beside each other, give the
 * same bits as one after the other, run after run, whatever is bound and whatever the lengths.
 */
#include "runs.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unroll/nn.h>

static run_log seen;

enum { T = 12, B = 3, I = 7, H = 21, RUNS = 50 };

typedef struct stack {
  int32_t cell, layers;
  bool lengths, gradients;
} stack;

/* A bidirectional layer, or a stack of them. */
static unroll_graph *bidirectional(const stack *m) {
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_graph *g;
  assert_status(UNROLL_OK, unroll_graph_create(NULL, &g, &err));
  const unroll_tensor x = unroll_input(g, "x", UNROLL_F32, 3, (int64_t[]){T, B, I});
  unroll_rnn_options options = {
      .struct_size = sizeof options, .cell = m->cell, .layers = m->layers, .hidden = H, .bidirectional = 1};
  if (m->lengths)
    options.lengths = unroll_input(g, "lengths", UNROLL_I32, 1, (int64_t[]){B});
  const unroll_tensor y = unroll_rnn(x, NULL, &options, NULL, NULL);
  unroll_output(y, "y");
  if (m->gradients) {
    const unroll_tensor dy = unroll_input(g, "dy", UNROLL_F32, 3, (int64_t[]){T, B, 2 * H});
    unroll_tensor of[64], d[64];
    uint32_t n = 0;
    of[n++] = x;
    for (uint32_t i = 0; i < unroll_graph_count(g); i++)
      if (unroll_tensor_describe(unroll_graph_tensor(g, i)).role == UNROLL_ROLE_PARAM && n < 64)
        of[n++] = unroll_graph_tensor(g, i);
    unroll_vjp(&y, &dy, 1, of, n, d);
    for (uint32_t i = 0; i < n; i++) {
      char name[32];
      snprintf(name, sizeof name, "d%u", i);
      unroll_output(d[i], name);
    }
  }
  assert_status(UNROLL_OK, unroll_graph_status(g, &err));
  return g;
}

static const int32_t lengths_of[B] = {T, 0, 5};

typedef struct bound {
  unroll_device *device;
  unroll_executable *exe;
  unroll_binding *binding;
} bound;

static bound bind_with(unroll_context *ctx, unroll_graph *g, const char *kernels, const char *concurrent,
                       const char *recurrence) {
  unroll_error err = UNROLL_ERROR_INIT;
  bound b = {.device = runs_device(ctx, "opencl", kernels, "tune=off", concurrent, recurrence, NULL)};
  assert_status(UNROLL_OK, unroll_compile(g, &b.device, 1, NULL, &b.exe, &err));
  assert_status(UNROLL_OK, unroll_binding_create(b.exe, &b.binding, &err));
  runs_fill_layers(g, b.binding, lengths_of, sizeof lengths_of);
  return b;
}

static bound bind(unroll_context *ctx, unroll_graph *g, const char *concurrent, const char *recurrence) {
  return bind_with(ctx, g, "kernels=cpu", concurrent, recurrence);
}

static void release(bound *b) {
  unroll_binding_destroy(b->binding);
  unroll_executable_destroy(b->exe);
  unroll_device_close(b->device);
}

static results run(unroll_graph *g, const bound *b) {
  unroll_error err = UNROLL_ERROR_INIT;
  assert_status(UNROLL_OK, unroll_run(b->binding, NULL, &err));
  return runs_read(g, b->binding);
}

static unroll_context *context_with_opencl(void) {
  unroll_context *ctx = runs_context(NULL, &seen);
  if (!runs_have(ctx, "opencl")) {
    unroll_context_destroy(ctx);
    skip();
  }
  return ctx;
}

/* How many flights the executable of the graph has, by what the log says. */
static uint32_t flights(unroll_context *ctx, unroll_graph *g, const char *concurrent) {
  const uint32_t before = log_count(&seen, "in flight at once");
  bound b = bind(ctx, g, concurrent, "recurrence=sequence");
  release(&b);
  return log_count(&seen, "in flight at once") - before;
}

static void same_bits(void **state) {
  (void)state;
  static const int32_t cells[] = {UNROLL_CELL_RNN, UNROLL_CELL_LSTM, UNROLL_CELL_GRU, UNROLL_CELL_GRU_AFTER};
  static const char *const ways[] = {"recurrence=sequence", "recurrence=step"};
  unroll_context *ctx = context_with_opencl();
  for (int way = 0; way < 2; way++)
    for (int i = 0; i < 4; i++) {
      seen.n = 0;
      unroll_graph *g = bidirectional(&(stack){cells[i], 2, i % 2 == way, true});
      bound one = bind(ctx, g, "concurrent=off", ways[way]), two = bind(ctx, g, "concurrent=on", ways[way]);
      results want = run(g, &one);
      for (int k = 0; k < (way ? 5 : RUNS); k++) {
        results got = run(g, &two);
        assert_same(&got, &want);
        results_free(&got);
      }
      results_free(&want);
      release(&one);
      release(&two);
      unroll_graph_destroy(g);
    }
  unroll_context_destroy(ctx);
}

/* Those of a GPU take PoCL long to build: one cell. */
static void same_bits_on_a_gpu(void **state) {
  (void)state;
  unroll_context *ctx = context_with_opencl();
  unroll_graph *g = bidirectional(&(stack){UNROLL_CELL_LSTM, 1, false, true});
  bound one = bind_with(ctx, g, "kernels=gpu", "concurrent=off", "recurrence=sequence"),
        two = bind_with(ctx, g, "kernels=gpu", "concurrent=on", "recurrence=sequence");
  results want = run(g, &one);
  for (int k = 0; k < 5; k++) {
    results got = run(g, &two);
    assert_same(&got, &want);
    results_free(&got);
  }
  results_free(&want);
  release(&one);
  release(&two);
  unroll_graph_destroy(g);
  unroll_context_destroy(ctx);
}

/* Both layers of the stack, forward and back; none where it is off, or where each layer needs the one before. */
static void flights_are_formed(void **state) {
  (void)state;
  unroll_context *ctx = context_with_opencl();
  seen.n = 0;
  unroll_graph *g = bidirectional(&(stack){UNROLL_CELL_LSTM, 2, false, true});
  assert_int_equal(flights(ctx, g, "concurrent=on"), 4);
  assert_int_equal(flights(ctx, g, "concurrent=off"), 0);
  unroll_graph_destroy(g);
  unroll_error err = UNROLL_ERROR_INIT;
  assert_status(UNROLL_OK, unroll_graph_create(NULL, &g, &err));
  const unroll_tensor x = unroll_input(g, "x", UNROLL_F32, 3, (int64_t[]){T, B, I});
  const unroll_rnn_options options = {
      .struct_size = sizeof options, .cell = UNROLL_CELL_LSTM, .layers = 3, .hidden = H};
  unroll_output(unroll_rnn(x, NULL, &options, NULL, NULL), "y");
  assert_int_equal(flights(ctx, g, "concurrent=on"), 0);
  unroll_graph_destroy(g);
  unroll_context_destroy(ctx);
}

/* What is written over between two runs is seen by both branches, with no wait in between but the library's. */
static void follows_its_inputs(void **state) {
  (void)state;
  unroll_context *ctx = context_with_opencl();
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_graph *g = bidirectional(&(stack){UNROLL_CELL_GRU_AFTER, 1, true, false});
  bound one = bind(ctx, g, "concurrent=off", "recurrence=auto"), two = bind(ctx, g, "concurrent=on", "recurrence=auto");
  float x[T * B * I];
  for (int k = 0; k < RUNS; k++) {
    for (int i = 0; i < T * B * I; i++)
      x[i] = (float)((i * 7 + k * 13) % 29) / 29 - 0.5f;
    assert_status(UNROLL_OK, unroll_binding_write(one.binding, "x", x, sizeof x, &err));
    assert_status(UNROLL_OK, unroll_binding_write(two.binding, "x", x, sizeof x, &err));
    results want = run(g, &one), got = run(g, &two);
    assert_same(&got, &want);
    results_free(&got);
    results_free(&want);
  }
  release(&one);
  release(&two);
  unroll_graph_destroy(g);
  unroll_context_destroy(ctx);
}

static void count(void *ctx, const unroll_profile_entry *e) {
  if (e->label && strcmp(e->label, "forward") == 0)
    ++*(int *)ctx;
}

/* A profile has the kernels of both directions, and takes nothing from what a run gives. */
static void is_profiled(void **state) {
  (void)state;
  unroll_context *ctx = context_with_opencl();
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_graph *g = bidirectional(&(stack){UNROLL_CELL_LSTM, 1, false, false});
  bound b = bind(ctx, g, "concurrent=on", "recurrence=sequence");
  results want = run(g, &b);
  unroll_binding *timed;
  assert_status(UNROLL_OK, unroll_binding_create(b.exe, &timed, &err));
  assert_status(UNROLL_OK, unroll_binding_profile(timed, 1, &err));
  runs_fill_layers(g, timed, lengths_of, sizeof lengths_of);
  assert_status(UNROLL_OK, unroll_run(timed, NULL, &err));
  int kernels = 0;
  assert_status(UNROLL_OK, unroll_binding_profile_read(timed, count, &kernels, &err));
  assert_int_equal(kernels, 2);
  results got = runs_read(g, timed);
  assert_same(&got, &want);
  results_free(&got);
  results_free(&want);
  unroll_binding_destroy(timed);
  release(&b);
  unroll_graph_destroy(g);
  unroll_context_destroy(ctx);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(same_bits),          cmocka_unit_test(same_bits_on_a_gpu), cmocka_unit_test(flights_are_formed),
      cmocka_unit_test(follows_its_inputs), cmocka_unit_test(is_profiled),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
