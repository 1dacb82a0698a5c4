/* SPDX-License-Identifier: Apache-2.0 */
/*
 * OpenCL drivers that can't build a program, or lie about a device: an error that says so, or right numbers; and many
 * updates in memory that doesn't grow. Skipped where the layer, the plugin, or a device of it is not there.
 */
#include "opencl_lives.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- programs that don't build ---- */
static void a_failed_build_shows_its_log(void **state) {
  (void)state;
  need_device();
  static const uint64_t logs[] = {0, 50, 100000, UINT64_C(1) << 40, UINT64_MAX};
  const setting with = {.options = {{"cache", "off"}}, .n_options = 1};
  for (size_t i = 0; i < sizeof logs / sizeof *logs; i++) {
    unroll_error err = UNROLL_ERROR_INIT;
    life x = life_of(&with);
    disarm();
    f->build_fails_with = "-D";
    f->build_log = logs[i];
    assert_status(UNROLL_E_DEVICE, life_live(&x, &err));
    assert_non_null(strstr(err.message, "clBuildProgram"));
    assert_non_null(strstr(err.message, ".cl"));
    assert_non_null(strstr(err.message, "-11"));
    if (logs[i] >= 50 && logs[i] <= 100000)
      assert_non_null(strstr(err.message, "!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!"));
    life_close(&x);
    n_wrong = 0;
    check_nothing_left(&x);
    assert_int_equal(n_wrong, 0);
  }
}

/* The reference takes over, and the log says why. */
static void a_failed_build_falls_back(void **state) {
  (void)state;
  need_device();
  const setting plain = {.n_options = 0}, with = {.fallback = true};
  start_checks("failed builds");
  const values want = clean_life(&plain);
  unroll_error err = UNROLL_ERROR_INIT;
  life x = life_of(&with);
  disarm();
  f->build_fails_with = "-DHAVE_C"; /* products; memory is filled by a kernel without that */
  f->build_log = 50;
  assert_status(UNROLL_OK, life_live(&x, &err));
  assert_true(log_count(&seen, "fallback: ") > 0 && log_count(&seen, "clBuildProgram") > 0);
  check_values(&x.out, &want, 1e-5F);
  life_close(&x);
  check_nothing_left(&x);
  assert_int_equal(n_wrong, 0);
}

/* ---- drivers that lie ---- */
static void doubles_that_do_not_build(void **state) {
  (void)state;
  need_device();
  training doubles = net;
  doubles.dtype = UNROLL_F64;
  unroll_graph *g = runs_training(&doubles);
  const setting with = {.n_options = 0};
  unroll_error err = UNROLL_ERROR_INIT;
  life x = life_of(&with);
  disarm();
  f->more_extensions = "cl_khr_fp64 cl_khr_fp16";
  f->build_fails_with = "double";
  f->build_log = 40;
  assert_status(UNROLL_OK, life_open(&x, &err));
  unroll_executable *e = NULL;
  const unroll_compile_options strict = {.struct_size = sizeof strict, .strict = 1};
  const unroll_status status = unroll_compile(g, &x.device, 1, &strict, &e, &err);
  if (status != UNROLL_OK) { /* else the device does without them */
    assert_status(UNROLL_E_DEVICE, status);
    assert_non_null(strstr(err.message, "!!!!!!!!"));
  }
  unroll_executable_destroy(e);
  /* The same device, in floats. */
  assert_status(UNROLL_OK, life_compile(&x, &err));
  assert_status(UNROLL_OK, life_run(&x, &err));
  life_close(&x);
  n_wrong = 0;
  check_nothing_left(&x);
  assert_int_equal(n_wrong, 0);
  unroll_graph_destroy(g);
}

/* Right numbers, or an error; the texts are part of the cache's key, so those lives build anew. */
static void drivers_that_lie(void **state) {
  (void)state;
  need_device();
  static const struct {
    const char *what, *extensions;
    uint64_t value;
    bool must_work;
  } lies[] = {
      {"CL_DEVICE_MAX_WORK_GROUP_SIZE", NULL, 0, true},
      {"CL_DEVICE_MAX_WORK_GROUP_SIZE", NULL, 1, true},
      {"CL_DEVICE_MAX_WORK_GROUP_SIZE", NULL, UINT64_MAX, true},
      {"CL_DEVICE_LOCAL_MEM_SIZE", NULL, 0, true},
      {"CL_DEVICE_LOCAL_MEM_SIZE", NULL, UINT64_MAX, true},
      {"CL_DEVICE_MAX_MEM_ALLOC_SIZE", NULL, 0, true},
      {"CL_DEVICE_MAX_MEM_ALLOC_SIZE", NULL, 1, false},
      {"CL_DEVICE_MAX_MEM_ALLOC_SIZE", NULL, UINT64_MAX, true},
      {"CL_DEVICE_GLOBAL_MEM_SIZE", NULL, 0, true},
      {"CL_DEVICE_MAX_COMPUTE_UNITS", NULL, 0, true},
      {"CL_DEVICE_MAX_COMPUTE_UNITS", NULL, UINT32_MAX, true},
      {"CL_DEVICE_NATIVE_VECTOR_WIDTH_FLOAT", NULL, 0, true},
      {"CL_DEVICE_NATIVE_VECTOR_WIDTH_FLOAT", NULL, UINT32_MAX, true},
      {"CL_DEVICE_NATIVE_VECTOR_WIDTH_FLOAT", NULL, 3, true},
      {"CL_DEVICE_TYPE", NULL, 0, true},
      {"CL_DEVICE_TYPE", NULL, UINT64_MAX, true},
      {"CL_DEVICE_HOST_UNIFIED_MEMORY", NULL, 0, true},
      {"CL_DEVICE_NAME", NULL, 0, true},
      {"CL_DEVICE_NAME", NULL, 5000, true},
      {"CL_DEVICE_VENDOR", NULL, UINT64_MAX, true},
      {"CL_DRIVER_VERSION", NULL, UINT64_C(1) << 40, true},
      {NULL, "cl_khr_command_buffer cl_khr_fp16 cl_khr_subgroups cl_intel_subgroups cl_amd_fp64", 0, true},
  };
  const setting plain = {.n_options = 0};
  const setting settings[2] = {{.n_options = 0},
                               {.options = {{"kernels", "gpu"}, {"product", "tile"}}, .n_options = 2}};
  start_checks("no lie");
  const values want = clean_life(&plain);
  for (size_t i = 0; i < 2 * sizeof lies / sizeof *lies; i++) {
    unroll_error err = UNROLL_ERROR_INIT;
    life x = life_of(&settings[i % 2]);
    disarm();
    f->lies[0].what = lies[i / 2].what;
    f->lies[0].value = lies[i / 2].value;
    f->more_extensions = lies[i / 2].extensions;
    snprintf(during, sizeof during, "%s %llu%s", lies[i / 2].what ? lies[i / 2].what : lies[i / 2].extensions,
             (unsigned long long)lies[i / 2].value, i % 2 ? ", as a GPU" : "");
    const unroll_status status = life_live(&x, &err);
    if (status == UNROLL_OK)
      check_values(&x.out, &want, 1e-5F);
    else if (lies[i / 2].must_work)
      check_status(UNROLL_OK, status, &err);
    life_close(&x);
    check_nothing_left(&x);
  }
  assert_int_equal(n_wrong, 0);
}

/* ---- many updates: UNROLL_TEST_UPDATES of them, or a few thousand ---- */
static long resident_pages(void) {
  long size = 0, resident = 0;
  FILE *file = fopen("/proc/self/statm", "re");
  if (!file || fscanf(file, "%ld %ld", &size, &resident) != 2)
    resident = -1;
  if (file)
    fclose(file);
  return resident;
}

static void training_in_flat_memory(void **state) {
  (void)state;
  need_device();
  const char *wanted = getenv("UNROLL_TEST_UPDATES");
  const long updates = wanted ? strtol(wanted, NULL, 10) : 3000;
  const setting with = {.n_options = 0};
  unroll_error err = UNROLL_ERROR_INIT;
  life x = life_of(&with);
  disarm();
  float loss = 0;
  long middle = 0, objects[CL_FAULTS_KINDS], before = 0;
  assert_status(UNROLL_OK, life_live(&x, &err));
  for (long i = 0; i < updates; i++) {
    assert_status(UNROLL_OK, unroll_run(x.b, NULL, &err));
    if (i % 10 == 9) /* what a driver has queued at once takes memory of its own */
      assert_status(UNROLL_OK, unroll_binding_read(x.b, "loss", &loss, sizeof loss, &err));
    if (i == updates / 2) {
      assert_status(UNROLL_OK, unroll_binding_sync(x.b, &err));
      memcpy(objects, f->references, sizeof objects);
      middle = resident_pages();
      before = x.memory.live;
    }
  }
  assert_status(UNROLL_OK, unroll_binding_sync(x.b, &err));
  const long end = resident_pages();
  print_message("%ld updates: %ld KB in the middle, %ld KB at the end; %ld events\n", updates, middle * 4, end * 4,
                f->references[CL_FAULTS_EVENT]);
  assert_true(isfinite(loss));
  assert_int_equal(f->references[CL_FAULTS_EVENT], 0);
  assert_memory_equal(f->references, objects, sizeof objects);
  assert_int_equal(x.memory.live, before);
  assert_true(middle > 0 && end - middle <= 64); /* 256 KB: what an allocator may have left over */
  life_close(&x);
  n_wrong = 0;
  check_nothing_left(&x);
  assert_int_equal(n_wrong, 0);
}

int main(int argc, char **argv) {
  if (argc > 1)
    cmocka_set_test_filter(argv[1]);
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_failed_build_shows_its_log), cmocka_unit_test(a_failed_build_falls_back),
      cmocka_unit_test(doubles_that_do_not_build),    cmocka_unit_test(drivers_that_lie),
      cmocka_unit_test(training_in_flat_memory),
  };
  return cmocka_run_group_tests_name("opencl lies", tests, lives_open, lives_close);
}
