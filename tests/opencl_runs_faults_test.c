/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Faults in runs that are more than launch after launch on one queue: layers in flight on two queues, and runs that a command
 * buffer replays. Every call of OpenCL that such runs make fails once: an error that names the call, or a fallback to the
 * right numbers; the next run is right, and nothing is left of anything.
 */
#include "opencl_lives.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unroll/nn.h>

enum { T = 6, B = 2, I = 5, H = 8, RUNS = 4, NUMBERS = T * B * 2 * H };

typedef struct task {
  setting with;
  bool bidirectional;
  const char *proof; /* a call that the runs must have made */
} task;

static const task tasks[] = {
    {{.options = {{"concurrent", "on"}, {"tune", "off"}, {"kernels", "cpu"}, {"recurrence", "sequence"}},
      .n_options = 4},
     true,
     "clEnqueueBarrierWithWaitList"},
    {{.options = {{"command_buffer", "on"}, {"product", "own"}, {"kernels", "cpu"}, {"recurrence", "scan"}},
      .n_options = 4},
     false,
     "clEnqueueCommandBufferKHR"},
};

static unroll_graph *layer(bool bidirectional) {
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_graph *g;
  assert_status(UNROLL_OK, unroll_graph_create(NULL, &g, &err));
  const unroll_tensor x = unroll_input(g, "x", UNROLL_F32, 3, (int64_t[]){T, B, I});
  const unroll_rnn_options options = {.struct_size = sizeof options,
                                      .cell = UNROLL_CELL_LSTM,
                                      .layers = 1,
                                      .hidden = H,
                                      .bidirectional = bidirectional};
  unroll_output(unroll_rnn(x, NULL, &options, NULL, NULL), "y");
  assert_status(UNROLL_OK, unroll_graph_status(g, &err));
  return g;
}

static unroll_status fill(unroll_graph *g, unroll_binding *b, unroll_error *err) {
  for (uint32_t i = 0; i < unroll_graph_count(g); i++) {
    const unroll_tensor_info info = unroll_tensor_describe(unroll_graph_tensor(g, i));
    if (info.role != UNROLL_ROLE_INPUT && info.role != UNROLL_ROLE_PARAM)
      continue;
    float data[1024];
    size_t n = 1;
    for (int32_t k = 0; k < info.rank; k++)
      n *= (size_t)info.shape[k];
    assert_true(n <= 1024);
    for (size_t k = 0; k < n; k++)
      data[k] = (float)((k * 7 + i * 3) % 19) / 19 - 0.5f;
    const unroll_status status = unroll_binding_write(b, info.name, data, n * sizeof *data, err);
    if (status != UNROLL_OK)
      return status;
  }
  return UNROLL_OK;
}

static unroll_status prepare(life *x, unroll_graph *g, unroll_error *err) {
  disarm();
  unroll_status status = life_open(x, err);
  if (status == UNROLL_OK)
    status = unroll_compile(g, &x->device, 1, NULL, &x->e, err);
  if (status == UNROLL_OK)
    status = unroll_binding_create(x->e, &x->b, err);
  return status == UNROLL_OK ? fill(g, x->b, err) : status;
}

static unroll_status run_some(life *x, float *y, size_t n, unroll_error *err) {
  for (int i = 0; i < RUNS; i++) {
    const unroll_status status = unroll_run(x->b, NULL, err);
    if (status != UNROLL_OK)
      return status;
  }
  return unroll_binding_read(x->b, "y", y, n * sizeof *y, err);
}

static void compare(const float *got, const float *want, size_t n) {
  if (memcmp(got, want, n * sizeof *got) != 0)
    wrong("other numbers");
}

static void every_call_of_runs_fails(void **state) {
  need_device();
  const task *t = *state;
  const size_t n = t->bidirectional ? NUMBERS : NUMBERS / 2;
  static float want[NUMBERS], got[NUMBERS];
  static uint8_t trace[CL_FAULTS_TRACE];
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_graph *g = layer(t->bidirectional);
  start_checks("no fault");
  life clean = life_of(&t->with);
  check_status(UNROLL_OK, prepare(&clean, g, &err), &err);
  if (log_count(&seen, "no command buffers that are known")) {
    life_close(&clean);
    unroll_graph_destroy(g);
    skip();
  }
  f->calls = 0;
  check_status(UNROLL_OK, run_some(&clean, want, n, &err), &err);
  const long calls = f->calls;
  assert_in_range(calls, 4, CL_FAULTS_TRACE - 1);
  bool proven = false;
  for (long i = 0; i < calls; i++) {
    trace[i] = f->trace[i].function;
    proven = proven || strcmp(f->name(trace[i]), t->proof) == 0;
  }
  life_close(&clean);
  check_nothing_left(&clean);
  if (!proven)
    wrong("%s was never called", t->proof);
  int seldom[256] = {0}, faults = 0;
  for (long i = 0; i < calls; i++) {
    const int k = seldom[trace[i]]++;
    if (k >= 6 && k % 16)
      continue;
    const bool queues = strncmp(f->name(trace[i]), "clEnqueue", 9) == 0;
    for (uint32_t late = 0; late <= queues; late++) {
      err = (unroll_error)UNROLL_ERROR_INIT;
      life x = life_of(&t->with);
      check_status(UNROLL_OK, prepare(&x, g, &err), &err);
      f->calls = 0;
      f->fail_at = i + 1;
      f->late = late;
      f->variant = late ? 0 : (uint32_t)k;
      snprintf(during, sizeof during, "call %ld, %s%s", i + 1, f->name(trace[i]), late ? ", later" : "");
      const unroll_status status = run_some(&x, got, n, &err);
      const int32_t code = f->code;
      const bool met = f->failed != NULL;
      faults++;
      disarm();
      if (!met)
        wrong("it was never made");
      if (status == UNROLL_OK)
        compare(got, want, n);
      else if (err.native != code && !strstr(err.message, "is lost"))
        wrong("%s, error %d expected", err.message, (int)code);
      if (status != UNROLL_E_DEVICE_LOST) {
        unroll_error later = UNROLL_ERROR_INIT;
        check_status(UNROLL_OK, run_some(&x, got, n, &later), &later);
        compare(got, want, n);
      }
      life_close(&x);
      check_nothing_left(&x);
    }
  }
  print_message("%ld calls, %d faults\n", calls, faults);
  unroll_graph_destroy(g);
  assert_int_equal(n_wrong, 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      {"layers_in_flight", every_call_of_runs_fails, NULL, NULL, (void *)&tasks[0]},
      {"command_buffers", every_call_of_runs_fails, NULL, NULL, (void *)&tasks[1]},
  };
  return cmocka_run_group_tests_name("opencl faults in runs", tests, lives_open, lives_close);
}
