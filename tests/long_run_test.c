/* SPDX-License-Identifier: Apache-2.0 */
/* Long sequences: a compile costs the same for every number of time steps, and a run over 100,000 of them is right. */
#include "runs.h"
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { LONG = 100000 };

static double seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static training lstm_of(int64_t T, int32_t layers) {
  return (training){.T = T,
                    .B = 2,
                    .I = 16,
                    .H = 32,
                    .V = 8,
                    .dtype = UNROLL_F32,
                    .cell = UNROLL_CELL_LSTM,
                    .layers = layers,
                    .with_state = true};
}

typedef struct cost {
  double seconds;
  uint64_t peak;
  long calls;
} cost;

static cost cost_of_compile(int64_t T, bool runtime) {
  unroll_error err = UNROLL_ERROR_INIT;
  run_memory memory = {0};
  const unroll_allocator a = runs_allocator(&memory);
  training w = lstm_of(T, 2);
  w.allocator = &a;
  w.runtime_T = runtime;
  w.optimize = w.lengths = true;
  unroll_context *ctx = runs_context(&a, NULL);
  unroll_device *cpu = runs_device(ctx, "cpu", NULL);
  unroll_graph *g = runs_training(&w);
  unroll_executable *e;
  memory.peak = memory.bytes;
  memory.calls = 0;
  cost c = {.seconds = seconds()};
  assert_status(UNROLL_OK, unroll_compile(g, &cpu, 1, NULL, &e, &err));
  c.seconds = seconds() - c.seconds;
  c.peak = memory.peak;
  c.calls = memory.calls;
  unroll_executable_destroy(e);
  unroll_device_close(cpu);
  unroll_graph_destroy(g);
  unroll_context_destroy(ctx);
  return c;
}

static void compile_is_independent_of_the_number_of_steps(void **state) {
  (void)state;
  for (int runtime = 0; runtime < 2; runtime++) {
    const cost few = cost_of_compile(100, runtime), many = cost_of_compile(LONG, runtime);
    print_message("compile for 100 steps: %.1f ms, %llu bytes; for %d: %.1f ms, %llu bytes\n", few.seconds * 1e3,
                  (unsigned long long)few.peak, LONG, many.seconds * 1e3, (unsigned long long)many.peak);
    assert_true(fabs((double)many.peak - (double)few.peak) <= 0.01 * (double)few.peak);
    assert_int_equal(many.calls, few.calls);
  }
}

/*
 * How far two runs in f32, each with sums in an order of its own, may be apart, in units of the tensor's largest value.
 * u = 2^-24.
 * - y, h, c: a step rounds about I + H + 16 times, and the state forgets: what stood k steps before counts by at most
 *   about 0.9^k with these weights, so an error of (I+H+16)·u grows to 10 times that, on either side: 20·64·u.
 * - The loss and the gradients: sums of n = T·B terms, whose roundings of either sign add up to √n·u·Σ|x| (Higham &
 *   Mary 2019, SIAM J. Sci. Comput. 41(5)). The weights are untrained, so the loss has a slope, and at a gradient's
 *   largest element Σ|x| is no more than some times |Σx|: 4 times is granted, and both sides count: 8·√n·u.
 */
static double tolerance_for(const char *name, const training *w) {
  const double u = 5.9604644775390625e-8, n = (double)w->T * (double)w->B;
  const bool is_sum = strcmp(name, "loss") == 0 || strncmp(name, "d.", 2) == 0;
  return is_sum ? 8 * sqrt(n) * u : 20 * (double)(w->I + w->H + 16) * u;
}

static void a_hundred_thousand_steps(void **state) {
  (void)state;
  unroll_context *ctx = runs_context(NULL, NULL);
  const training w = lstm_of(LONG, 1);
  unroll_graph *g = runs_training(&w);
  unroll_device *cpu = runs_device(ctx, "cpu", NULL);
  double start = seconds();
  results want = runs_all(g, &cpu, 1, NULL, &w, 1);
  print_message("cpu: %.1f s\n", seconds() - start);
  for (uint32_t i = 0; i < want.n; i++) {
    const struct result *r = &want.of[i];
    double largest = 0;
    for (int64_t k = 0; k < r->count; k++) {
      const float x = ((const float *)r->data)[k];
      assert_true(isfinite(x));
      largest = fmax(largest, fabs((double)x));
    }
    assert_true(largest > 0);
  }
  const bool opencl = runs_have(ctx, "opencl");
  if (opencl) {
    unroll_device *device = runs_device(ctx, "opencl", NULL);
    start = seconds();
    results got = runs_all(g, &device, 1, NULL, &w, 1);
    print_message("%s: %.1f s\n", unroll_device_describe(device)->name, seconds() - start);
    assert_int_equal(got.n, want.n);
    for (uint32_t i = 0; i < want.n; i++) {
      results one_got = {1, &got.of[i]}, one_want = {1, &want.of[i]};
      assert_near(&one_got, &one_want, tolerance_for(want.of[i].name, &w));
    }
    results_free(&got);
    unroll_device_close(device);
  }
  results_free(&want);
  unroll_device_close(cpu);
  unroll_graph_destroy(g);
  unroll_context_destroy(ctx);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(compile_is_independent_of_the_number_of_steps),
      cmocka_unit_test(a_hundred_thousand_steps),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
