/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every call of OpenCL fails once, in the life of a small network that is trained: the call of the library that met it
 * says so, with the name of the OpenCL call and its code, or goes on by a documented fallback to the right numbers;
 * nothing leaks, neither the host's memory nor an object of OpenCL; the next run is right. Then devices that are lost,
 * and faults that show later. Skipped where the layer, the plugin, or a device of it is not there.
 */
#include "opencl_lives.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Whatever of OpenCL the plugin links to is seen by the layer. */
static void no_call_goes_past_the_layer(void **state) {
  (void)state;
  need_device();
  char command[4200], line[256], name[128];
  snprintf(command, sizeof command, "nm -D --undefined-only '%s/unroll-opencl.so'", getenv("UNROLL_PLUGIN_PATH"));
  FILE *file = popen(command, "r");
  assert_non_null(file);
  int n = 0;
  while (fgets(line, sizeof line, file)) {
    if (sscanf(line, " U %127[A-Za-z0-9_]", name) != 1 || strncmp(name, "cl", 2) != 0 || name[2] < 'A' || name[2] > 'Z')
      continue;
    uint32_t i = 0;
    while (f->name(i) && strcmp(f->name(i), name) != 0)
      i++;
    if (!f->name(i))
      fail_msg("shims/cl_faults.c doesn't know %s", name);
    n++;
  }
  assert_int_equal(pclose(file), 0);
  assert_true(n > 20);
}

/* ---- every call fails once ---- */
static bool starts(const char *name, const char *word) { return strncmp(name, word, strlen(word)) == 0; }

static unroll_status status_of(int32_t code) {
  switch (code) {
  case -6: return UNROLL_E_MEMORY;        /* CL_OUT_OF_HOST_MEMORY */
  case -4: return UNROLL_E_DEVICE_MEMORY; /* CL_MEM_OBJECT_ALLOCATION_FAILURE */
  case -2:                                /* CL_DEVICE_NOT_AVAILABLE */
  case -36:                               /* CL_INVALID_COMMAND_QUEUE */
  case -9999: return UNROLL_E_DEVICE_LOST;
  default: return UNROLL_E_DEVICE;
  }
}

/* Where the library goes on: what it documents as not needed, or to be had in another way. */
static bool may_go_on(const setting *with) {
  const char *call = f->failed;
  const uint32_t phase = f->failed_phase;
  if (starts(call, "clRelease") || phase == CLOSE)
    return true;
  if (phase == OPEN) /* what a device says of itself has defaults */
    return starts(call, "clGetDeviceInfo") || log_count(&seen, " is left out: clGetDeviceIDs: ") == 1; /* another */
  if (phase == COMPILE || phase == FILL) /* the key and the files of the program cache */
    if (starts(call, "clGet") || starts(call, "clCreateProgramWithBinary") || starts(call, "clBuildProgram"))
      return true;
  if (phase == COMPILE && with->n_options && strcmp(with->options[0].value, "clblast") == 0)
    return log_count(&seen, "CLBlast's float product failed its test") == 1;
  if (phase == READ) /* what a clock says is asked in another way */
    return strcmp(call, "clGetDeviceAndHostTimer") == 0 || strcmp(call, "clGetPlatformInfo") == 0;
  return phase == BIND && strcmp(call, "clFinish") == 0 &&
         status_of(f->code) != UNROLL_E_DEVICE_LOST; /* an idle queue that is replaced */
}

/* Other kernels are chosen, with sums in another order. */
static bool may_choose_others(const setting *with) {
  return f->failed_phase == OPEN || (with->n_options && strcmp(with->options[0].value, "clblast") == 0);
}

static void check_said(unroll_status status, const unroll_error *err, const setting *with) {
  char code[32];
  snprintf(code, sizeof code, "error %d", (int)f->code);
  const bool by_clblast = strstr(err->message, "CLBlast") != NULL;        /* it names no call, */
  const bool own_words = by_clblast && strstr(err->message, "its error"); /* and for some has codes of its own */
  const bool no_times = with->profile && status == UNROLL_E_UNSUPPORTED && strstr(err->message, "gives no times");
  const bool no_device = f->failed_phase == OPEN && status == UNROLL_E_NOT_FOUND;       /* then the log has it */
  const bool noted = status == UNROLL_E_DEVICE_LOST && strstr(err->message, "is lost"); /* while nobody could say so */
  const char *why = no_device ? seen.text : err->message;
  if ((!strstr(why, code) && !own_words) || !(strstr(why, f->failed) || by_clblast || no_times || noted))
    wrong("it is not named: %s", why);
  if (status != status_of(f->code) && !no_times && !no_device && !own_words)
    wrong("%s, expected %s: %s", unroll_status_name(status), unroll_status_name(status_of(f->code)), err->message);
  if (err->code != status)
    wrong("the error has %s, the call gave %s", unroll_status_name(err->code), unroll_status_name(status));
}

typedef struct tally {
  int errors, fallbacks;
} tally;

static void one_fault(const setting *with, const char *only, long n, uint32_t variant, const values *want, tally *t) {
  unroll_error err = UNROLL_ERROR_INIT;
  life x = life_of(with);
  disarm();
  f->only = only;
  f->fail_at = n;
  f->variant = variant;
  const unroll_status status = life_live(&x, &err);
  f->phase = CLOSE; /* what is met later is no longer the caller's to see */
  f->fail_at = f->failed ? 0 : n;
  if (f->failed)
    snprintf(during, sizeof during, "call %ld, %s in %s: %d", n, f->failed, phase_names[f->failed_phase], (int)f->code);
  const bool lost = status == UNROLL_E_DEVICE_LOST;
  if (status == UNROLL_OK) {
    if (f->failed && !may_go_on(with))
      wrong("nobody noticed");
    t->fallbacks++;
    check_values(&x.out, want, f->failed && may_choose_others(with) ? 1e-5F : 0);
  } else if (!f->failed)
    wrong("%s without a fault: %s", unroll_status_name(status), err.message);
  else {
    t->errors++;
    check_said(status, &err, with);
    /* What is there can be used again, as far as it got. */
    unroll_error later = UNROLL_ERROR_INIT;
    if (!lost && x.device) {
      if (!x.e)
        check_status(UNROLL_OK, life_compile(&x, &later), &later);
      if (x.e)
        check_status(UNROLL_OK, life_run(&x, &later), &later);
      check_values(&x.out, want, may_choose_others(with) ? 1e-5F : 0);
    } else if (x.b)
      check_status(UNROLL_E_DEVICE_LOST, life_run(&x, &later), &later);
  }
  life_close(&x);
  if (!f->failed)
    wrong("call %ld was never made", n);
  check_nothing_left(&x);
  if (lost) {
    const values again = clean_life(with);
    check_values(&again, want, 0);
  }
}

/*
 * Of the calls of a function in one phase of life the first few fail, and every so many of the rest; with UNROLL_EVERY_CALL
 * in the environment, as script/check faults has it, all of them.
 */
static void each_call_fails(const setting *with, int first, int stride) {
  static uint8_t trace[CL_FAULTS_TRACE][2];
  int times[256][PHASES] = {{0}};
  tally t = {0};
  start_checks("no fault");
  clean_life(with); /* fills the caches */
  const values want = clean_life(with);
  const long n = f->calls;
  assert_true(n > 500 && n <= CL_FAULTS_TRACE);
  memcpy(trace, f->trace, sizeof trace);
  for (long i = 0; i < n; i++) {
    const int k = times[trace[i][0]][trace[i][1]]++;
    if (k < first || k % stride == 0 || getenv("UNROLL_EVERY_CALL"))
      one_fault(with, NULL, i + 1, (uint32_t)k, &want, &t);
  }
  print_message("%ld calls, made to fail: %d, of which %d were errors, %d did no harm\n", n, t.errors + t.fallbacks,
                t.errors, t.fallbacks);
  assert_int_equal(n_wrong, 0);
}

static void every_call_fails_once(void **state) {
  (void)state;
  need_device();
  each_call_fails(&(setting){.n_options = 0}, 5, 10);
}

static void with_kernels_of_a_gpu(void **state) {
  (void)state;
  need_device();
  each_call_fails(&(setting){.options = {{"product", "tile"}, {"kernels", "gpu"}}, .n_options = 2}, 2, 50);
}

static void with_clblast(void **state) {
  (void)state;
  need_device();
  each_call_fails(&(setting){.options = {{"product", "clblast"}}, .n_options = 1}, 2, 50);
}

static void with_a_profile(void **state) {
  (void)state;
  need_device();
  const setting with = {.profile = true};
  each_call_fails(&with, 2, 50);
  /* The device is lost while a queue that is timed takes the place of another. */
  const values want = clean_life(&with);
  tally t = {0};
  for (long n = 1; n <= 3; n++)
    one_fault(&with, "clFinish", n, 1, &want, &t);
  assert_int_equal(n_wrong, 0);
}

/* ---- many runs, of which none is waited for: markers bound what is queued ---- */
static void in_a_long_run(void **state) {
  (void)state;
  need_device();
  static const struct {
    const char *call;
    int times[3];
  } faults[] = {
      {"clEnqueueMarkerWithWaitList", {1, 2}}, {"clWaitForEvents", {1}}, {"clFlush", {1, 60}}, {"clReleaseEvent", {1}}};
  const setting with = {.updates = 400};
  start_checks("no fault");
  const values want = clean_life(&with);
  /* The flush that goes with a marker, while an older one is there to be waited for. */
  uint32_t flushes = 0, markers = 0;
  for (long n = 0; n < f->calls && n < CL_FAULTS_TRACE && markers < 2; n++) {
    flushes += strcmp(f->name(f->trace[n].function), "clFlush") == 0;
    markers += strcmp(f->name(f->trace[n].function), "clEnqueueMarkerWithWaitList") == 0;
  }
  assert_int_equal(markers, 2);
  tally t = {0};
  for (size_t i = 0; i < sizeof faults / sizeof *faults; i++)
    for (uint32_t k = 0; k < 3 && faults[i].times[k]; k++)
      one_fault(&with, faults[i].call, faults[i].times[k], k, &want, &t);
  one_fault(&with, "clFlush", (long)flushes + 1, 0, &want, &t);
  assert_int_equal(n_wrong, 0);
}

/* ---- a device that is lost: from some call on nothing works ---- */
static void a_lost_device(void **state) {
  (void)state;
  need_device();
  const setting with = {.n_options = 0};
  start_checks("no fault");
  clean_life(&with); /* fills the caches */
  const values want = clean_life(&with);
  long n = 0;
  while (n < f->calls && f->trace[n].phase != CLOSE)
    n++;
  for (int i = 1; i < 40; i++) {
    unroll_error err = UNROLL_ERROR_INIT;
    life x = life_of(&with);
    disarm();
    f->forever = true;
    f->variant = 2; /* CL_DEVICE_NOT_AVAILABLE, for what is queued */
    f->fail_at = n * i / 40;
    const unroll_status status = life_live(&x, &err);
    snprintf(during, sizeof during, "from call %ld on, %s in %s: %d", f->fail_at, f->failed ? f->failed : "none",
             phase_names[f->failed_phase], (int)f->code);
    if (status == UNROLL_OK && (!f->failed || !may_go_on(&with)))
      wrong("nobody noticed");
    if (status != UNROLL_OK && x.b && status_of(f->code) == UNROLL_E_DEVICE_LOST)
      check_status(UNROLL_E_DEVICE_LOST, status, &err);
    unroll_error later = UNROLL_ERROR_INIT;
    if (x.b && life_run(&x, &later) == UNROLL_OK)
      wrong("the second run went well");
    life_close(&x);
    check_nothing_left(&x);
    const values again = clean_life(&with);
    check_values(&again, &want, 0);
  }
  assert_int_equal(n_wrong, 0);
}

/* ---- what was queued fails after the call ---- */
static void faults_that_show_later(void **state) {
  (void)state;
  need_device();
  static uint8_t trace[CL_FAULTS_TRACE][2];
  const setting with = {.n_options = 0};
  start_checks("no fault");
  clean_life(&with); /* fills the caches */
  const values want = clean_life(&with);
  const long n = f->calls;
  memcpy(trace, f->trace, sizeof trace);
  int seen_ones = 0, k = 0;
  for (long i = 0; i < n; i++) {
    const char *name = f->name(trace[i][0]);
    if ((strcmp(name, "clEnqueueNDRangeKernel") != 0 && strcmp(name, "clEnqueueCopyBuffer") != 0) || k++ % 4 != 0)
      continue;
    for (uint32_t variant = 0; variant < 6; variant += 5) {
      unroll_error err = UNROLL_ERROR_INIT, later = UNROLL_ERROR_INIT;
      life x = life_of(&with);
      disarm();
      f->late = true;
      f->variant = variant;
      f->fail_at = i + 1;
      const unroll_status status = life_live(&x, &err);
      snprintf(during, sizeof during, "call %ld, %s in %s, later: %d", i + 1, name, phase_names[trace[i][1]],
               (int)f->code);
      seen_ones++;
      check_status(status_of(f->code), status, &err);
      const unroll_status again = x.b ? life_run(&x, &later) : status;
      check_status(variant == 0 ? UNROLL_OK : UNROLL_E_DEVICE_LOST, again, &later);
      if (variant == 0)
        check_values(&x.out, &want, 0);
      life_close(&x);
      check_nothing_left(&x);
    }
  }
  print_message("%d calls\n", seen_ones);
  assert_true(seen_ones > 20);
  assert_int_equal(n_wrong, 0);
}

/* Weights that are packed once must be packed again, when that may not have happened: nobody writes them anew. */
static void packed_weights_after_a_fault(void **state) {
  (void)state;
  need_device();
  enum { ROWS = 40, K = 24, COLUMNS = 24 };
  const setting with = {.n_options = 0};
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_graph *g;
  assert_status(UNROLL_OK, unroll_graph_create(NULL, &g, &err));
  const unroll_tensor in = unroll_input(g, "in", UNROLL_F32, 2, (int64_t[]){ROWS, K});
  const unroll_tensor W = unroll_param(g, "W", UNROLL_F32, 2, (int64_t[]){K, COLUMNS});
  unroll_output(unroll_matmul(in, W), "out");
  static float a[ROWS * K], w[K * COLUMNS], want[ROWS * COLUMNS], got[ROWS * COLUMNS];
  for (int i = 0; i < ROWS * K; i++)
    a[i] = (float)(i % 7) - 3;
  for (int i = 0; i < K * COLUMNS; i++)
    w[i] = (float)(i % 5) - 2;
  for (int i = 0; i < ROWS; i++)
    for (int j = 0; j < COLUMNS; j++)
      for (int k = 0; k < K; k++)
        want[i * COLUMNS + j] += a[i * K + k] * w[k * COLUMNS + j];
  long launches = 2;
  for (long n = 1; n <= launches; n++) {
    life x = life_of(&with);
    disarm();
    assert_status(UNROLL_OK, life_open(&x, &err));
    assert_status(UNROLL_OK, unroll_compile(g, &x.device, 1, NULL, &x.e, &err));
    assert_status(UNROLL_OK, unroll_binding_create(x.e, &x.b, &err));
    assert_status(UNROLL_OK, unroll_binding_write(x.b, "in", a, sizeof a, &err));
    assert_status(UNROLL_OK, unroll_binding_write(x.b, "W", w, sizeof w, &err));
    assert_status(UNROLL_OK, unroll_binding_clear(x.b, "out", &err));
    f->only = "clEnqueueNDRangeKernel";
    f->late = true;
    f->calls = 0;
    f->fail_at = n;
    assert_status(UNROLL_OK, unroll_run(x.b, NULL, &err));
    assert_status(UNROLL_E_DEVICE, unroll_binding_sync(x.b, &err));
    launches = f->calls;
    disarm();
    assert_status(UNROLL_OK, unroll_run(x.b, NULL, &err));
    assert_status(UNROLL_OK, unroll_binding_read(x.b, "out", got, sizeof got, &err));
    for (int i = 0; i < ROWS * COLUMNS; i++)
      if (got[i] != want[i])
        fail_msg("launch %ld of %ld dropped: out[%d] is %.9g, expected %.9g", n, launches, i, (double)got[i],
                 (double)want[i]);
    life_close(&x);
  }
  assert_true(launches >= 2);
  unroll_graph_destroy(g);
}

int main(int argc, char **argv) {
  if (argc > 1)
    cmocka_set_test_filter(argv[1]);
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(no_call_goes_past_the_layer),
      cmocka_unit_test(every_call_fails_once),
      cmocka_unit_test(with_kernels_of_a_gpu),
      cmocka_unit_test(with_clblast),
      cmocka_unit_test(with_a_profile),
      cmocka_unit_test(in_a_long_run),
      cmocka_unit_test(a_lost_device),
      cmocka_unit_test(faults_that_show_later),
      cmocka_unit_test(packed_weights_after_a_fault),
  };
  return cmocka_run_group_tests_name("opencl faults", tests, lives_open, lives_close);
}
