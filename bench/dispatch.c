/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dispatch: what a run, a time step and an op cost on a device before any arithmetic does. Every tensor has one
 * element, so what is measured is the way there. Prints one JSON object per device.
 *
 *     dispatch [SECONDS] DEVICE...     per measurement, 0.5 unless said
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unroll/nn.h>
#include <unroll/runtime.h>

#define STEPS 1000
#define FEW_OPS 1
#define MANY_OPS 9
#define WARM_UP_RUNS 3

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static unroll_tensor input(unroll_graph *g) { return unroll_input(g, "x", UNROLL_F32, 3, (int64_t[]){STEPS, 1, 1}); }

/* One op, once. */
static void build_run(unroll_graph *g) {
  unroll_output(unroll_tanh(unroll_input(g, "x", UNROLL_F32, 1, (int64_t[]){1})), "y");
}

/* h_t = tanh(..tanh(h_{t-1} + x_t)) with so many ops a step */
static void build_scan(unroll_graph *g, int ops) {
  const unroll_tensor x = input(g), h0 = unroll_input(g, "h0", UNROLL_F32, 2, (int64_t[]){1, 1});
  unroll_scan *s = unroll_scan_begin(g, UNROLL_FORWARD, unroll_none());
  const unroll_tensor x_t = unroll_scan_input(s, x), h = unroll_scan_carry(s, h0);
  unroll_tensor next = unroll_add(h, x_t);
  for (int i = 1; i < ops; i++)
    next = unroll_tanh(next);
  unroll_scan_next(s, h, next);
  const unroll_tensor last = unroll_scan_last(s, h);
  unroll_scan_end(s);
  unroll_output(last, "y");
}

static void build_few(unroll_graph *g) { build_scan(g, FEW_OPS); }
static void build_many(unroll_graph *g) { build_scan(g, MANY_OPS); }

static void build_lstm(unroll_graph *g) {
  const unroll_rnn_options lstm = {.struct_size = sizeof lstm, .cell = UNROLL_CELL_LSTM, .layers = 1, .hidden = 1};
  unroll_output(unroll_rnn(input(g), "rnn", &lstm, NULL, NULL), "y");
}

/* The best time of a run, waited for, in seconds. */
static unroll_status measure_runs(unroll_binding *binding, double seconds, double *best, unroll_error *err) {
  double spent = 0;
  *best = 1e9;
  for (int i = 0; i < WARM_UP_RUNS || spent < seconds; i++) {
    const double start = now();
    unroll_status status = unroll_run(binding, NULL, err);
    if (status == UNROLL_OK)
      status = unroll_binding_sync(binding, err);
    if (status != UNROLL_OK)
      return status;
    const double took = now() - start;
    if (i >= WARM_UP_RUNS && took < *best)
      *best = took;
    spent += i >= WARM_UP_RUNS ? took : 0;
  }
  return UNROLL_OK;
}

static unroll_status measure(unroll_device *device, void (*build)(unroll_graph *), double seconds, double *best,
                             unroll_error *err) {
  unroll_graph *g = NULL;
  unroll_executable *exe = NULL;
  unroll_binding *binding = NULL;
  unroll_status status = unroll_graph_create(NULL, &g, err);
  if (status != UNROLL_OK)
    return status;
  build(g);
  status = unroll_compile(g, &device, 1, NULL, &exe, err);
  if (status == UNROLL_OK)
    status = unroll_binding_create(exe, &binding, err);
  if (status == UNROLL_OK)
    status = measure_runs(binding, seconds, best, err);
  unroll_binding_destroy(binding);
  unroll_executable_destroy(exe);
  unroll_graph_destroy(g);
  return status;
}

static unroll_status measure_device(unroll_context *ctx, const char *name, double seconds, unroll_error *err) {
  static void (*const builds[])(unroll_graph *) = {build_run, build_few, build_many, build_lstm};
  double best[4];
  unroll_device *device = NULL;
  unroll_status status = unroll_device_open(ctx, name, NULL, 0, &device, err);
  for (int i = 0; i < 4 && status == UNROLL_OK; i++)
    status = measure(device, builds[i], seconds, &best[i], err);
  if (status == UNROLL_OK)
    printf("{\"device\":\"%s\",\"run_us\":%.3f,\"step_us\":%.4f,\"op_us\":%.4f,\"lstm_step_us\":%.4f}\n",
           unroll_device_id(device), best[0] * 1e6, best[1] * 1e6 / STEPS,
           (best[2] - best[1]) * 1e6 / STEPS / (MANY_OPS - FEW_OPS), best[3] * 1e6 / STEPS);
  unroll_device_close(device);
  return status;
}

int main(int argc, char **argv) {
  char *end = NULL;
  const double given = argc > 1 ? strtod(argv[1], &end) : 0;
  const bool has_seconds = end && !*end && given > 0;
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_context *ctx = NULL;
  if (argc < (has_seconds ? 3 : 2)) {
    fprintf(stderr, "usage: dispatch [SECONDS] DEVICE...\n");
    return 2;
  }
  unroll_status status = unroll_context_create(NULL, &ctx, &err);
  for (int i = has_seconds ? 2 : 1; i < argc && status == UNROLL_OK; i++)
    status = measure_device(ctx, argv[i], has_seconds ? given : 0.5, &err);
  unroll_context_destroy(ctx);
  if (status != UNROLL_OK)
    fprintf(stderr, "dispatch: %s\n", err.message);
  return status == UNROLL_OK ? 0 : 1;
}
