/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dispatch: what a run, a time step and an op cost on a device before any arithmetic does. Every tensor has one
 * element, so what is measured is the way there; on the null backend, which computes nothing, it is this library's part
 * of the way alone. Prints one JSON object per device.
 *
 *     dispatch [--text] [SECONDS] DEVICE[,KEY=VALUE]...     per measurement, 0.5 unless said
 *     UNROLL_PLUGIN_FILES=$PWD/build/release/plugins/unroll-null.so dispatch null null,alone=1 null,layers=1
 *
 *   run     one op, run and waited for
 *   step    a step of a scan of 1000 steps with one op, in one run
 *   op      each further op of such a step
 *   lstm    a step of an LSTM over 1000 steps
 *   stream  an LSTM that is given one step at a time: x is written, one run from the state that the last one left, y is read
 *   call    for comparison, a call of a function that does nothing, through a pointer
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unroll/nn.h>
#include <unroll/runtime.h>

#define STEPS 1000
#define FEW_OPS 1
#define MANY_OPS 9
#define WARM_UP_RUNS 3
#define SHORT_RUNS 16 /* timed together, so that reading the clock does not count */
#define CALLS 1000000
#define MAX_OPTIONS 4

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

static const unroll_rnn_options lstm = {.struct_size = sizeof lstm, .cell = UNROLL_CELL_LSTM, .layers = 1, .hidden = 1};

static void build_lstm(unroll_graph *g) { unroll_output(unroll_rnn(input(g), "rnn", &lstm, NULL, NULL), "y"); }

/* The state that comes out is what the next run begins with; it stays on the device. */
static void build_stream(unroll_graph *g) {
  const unroll_tensor x = unroll_input(g, "x", UNROLL_F32, 3, (int64_t[]){1, 1, 1});
  unroll_tensor h = unroll_state(g, "h", UNROLL_F32, 2, (int64_t[]){1, 1}), h_last;
  unroll_tensor c = unroll_state(g, "c", UNROLL_F32, 2, (int64_t[]){1, 1}), c_last;
  const unroll_rnn_state before = {&h, &c};
  unroll_rnn_state after = {&h_last, &c_last};
  unroll_output(unroll_rnn(x, "rnn", &lstm, &before, &after), "y");
  unroll_update(h, h_last);
  unroll_update(c, c_last);
}

static unroll_status run_once(unroll_binding *binding, unroll_error *err) {
  const unroll_status status = unroll_run(binding, NULL, err);
  return status == UNROLL_OK ? unroll_binding_sync(binding, err) : status;
}

static unroll_status stream_once(unroll_binding *binding, unroll_error *err) {
  float value = 0.5f;
  unroll_status status = unroll_binding_write(binding, "x", &value, sizeof value, err);
  if (status == UNROLL_OK)
    status = unroll_run(binding, NULL, err);
  return status == UNROLL_OK ? unroll_binding_read(binding, "y", &value, sizeof value, err) : status;
}

typedef struct measurement {
  void (*build)(unroll_graph *);
  unroll_status (*once)(unroll_binding *, unroll_error *);
  int runs; /* timed together */
} measurement;

/* The best time of one run, in seconds. */
static unroll_status measure_runs(const measurement *m, unroll_binding *binding, double seconds, double *best,
                                  unroll_error *err) {
  double spent = 0;
  *best = 1e9;
  for (int i = 0; i < WARM_UP_RUNS || spent < seconds; i++) {
    const double start = now();
    for (int k = 0; k < m->runs; k++) {
      const unroll_status status = m->once(binding, err);
      if (status != UNROLL_OK)
        return status;
    }
    const double took = now() - start;
    if (i >= WARM_UP_RUNS && took / m->runs < *best)
      *best = took / m->runs;
    spent += i >= WARM_UP_RUNS ? took : 0;
  }
  return UNROLL_OK;
}

static unroll_status measure(const measurement *m, unroll_device *device, double seconds, double *best,
                             unroll_error *err) {
  unroll_graph *g = NULL;
  unroll_executable *exe = NULL;
  unroll_binding *binding = NULL;
  unroll_status status = unroll_graph_create(NULL, &g, err);
  if (status != UNROLL_OK)
    return status;
  m->build(g);
  status = unroll_compile(g, &device, 1, NULL, &exe, err);
  if (status == UNROLL_OK)
    status = unroll_binding_create(exe, &binding, err);
  if (status == UNROLL_OK)
    status = measure_runs(m, binding, seconds, best, err);
  unroll_binding_destroy(binding);
  unroll_executable_destroy(exe);
  unroll_graph_destroy(g);
  return status;
}

static void nothing(void) {}

/* Nanoseconds of a call that the compiler can't see through, the loop around it included. */
static double measure_call(void) {
  void (*volatile function)(void) = nothing;
  double best = 1e9;
  for (int i = 0; i < WARM_UP_RUNS * 3; i++) {
    const double start = now();
    for (int k = 0; k < CALLS; k++)
      function();
    const double took = (now() - start) / CALLS * 1e9;
    best = took < best ? took : best;
  }
  return best;
}

enum { RUN, FEW, MANY, LSTM, STREAM, N_MEASUREMENTS };

static void print(bool text, const char *id, const char *options, const double *best, double call_ns) {
  const double more =
      best[MANY] > best[FEW] ? best[MANY] - best[FEW] : 0; /* where an op costs nothing, that is noise */
  const double op = more / STEPS / (MANY_OPS - FEW_OPS);
  const char *form = text ? "%s [%s]: run %.3f us, step %.4f us, op %.4f us, LSTM step %.4f us, streaming step %.3f "
                            "us; a call %.2f ns\n"
                          : "{\"device\":\"%s\",\"options\":\"%s\",\"run_us\":%.3f,\"step_us\":%.4f,\"op_us\":%.4f,"
                            "\"lstm_step_us\":%.4f,\"stream_us\":%.3f,\"call_ns\":%.2f}\n";
  printf(form, id, options, best[RUN] * 1e6, best[FEW] * 1e6 / STEPS, op * 1e6, best[LSTM] * 1e6 / STEPS,
         best[STREAM] * 1e6, call_ns);
}

/* name,KEY=VALUE,.. is cut up in place. */
static uint32_t cut_options(char *name, unroll_option *options) {
  uint32_t n = 0;
  for (char *at = strchr(name, ','); at && n < MAX_OPTIONS; at = strchr(at, ',')) {
    *at++ = 0;
    char *value = strchr(at, '=');
    if (value)
      *value++ = 0;
    options[n++] = (unroll_option){at, value ? value : ""};
    at = value ? value : at;
  }
  return n;
}
static unroll_status measure_device(unroll_context *ctx, char *name, double seconds, bool text, double call_ns,
                                    unroll_error *err) {
  static const measurement measurements[N_MEASUREMENTS] = {[RUN] = {build_run, run_once, SHORT_RUNS},
                                                           [FEW] = {build_few, run_once, 1},
                                                           [MANY] = {build_many, run_once, 1},
                                                           [LSTM] = {build_lstm, run_once, 1},
                                                           [STREAM] = {build_stream, stream_once, SHORT_RUNS}};
  double best[N_MEASUREMENTS];
  unroll_option options[MAX_OPTIONS];
  char *comma = strchr(name, ',');
  char given[128] = "";
  if (comma)
    snprintf(given, sizeof given, "%s", comma + 1);
  const uint32_t n_options = cut_options(name, options);
  unroll_device *device = NULL;
  unroll_status status = unroll_device_open(ctx, name, options, n_options, &device, err);
  for (int i = 0; i < N_MEASUREMENTS && status == UNROLL_OK; i++)
    status = measure(&measurements[i], device, seconds, &best[i], err);
  if (status == UNROLL_OK)
    print(text, unroll_device_id(device), given, best, call_ns);
  unroll_device_close(device);
  return status;
}

int main(int argc, char **argv) {
  bool text = false;
  double seconds = 0.5;
  int first = 1;
  if (first < argc && strcmp(argv[first], "--text") == 0) {
    text = true;
    first++;
  }
  char *end = NULL;
  const double given = first < argc ? strtod(argv[first], &end) : 0;
  if (end && !*end && given > 0) {
    seconds = given;
    first++;
  }
  if (first >= argc) {
    fprintf(stderr, "usage: dispatch [--text] [SECONDS] DEVICE[,KEY=VALUE]...\n");
    return 2;
  }
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_context *ctx = NULL;
  const double call_ns = measure_call();
  unroll_status status = unroll_context_create(NULL, &ctx, &err);
  for (int i = first; i < argc && status == UNROLL_OK; i++)
    status = measure_device(ctx, argv[i], seconds, text, call_ns, &err);
  unroll_context_destroy(ctx);
  if (status != UNROLL_OK)
    fprintf(stderr, "dispatch: %s\n", err.message);
  return status == UNROLL_OK ? 0 : 1;
}
