/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The OpenCL backend as a plugin: options, the program cache, every way to multiply, errors, and that all memory comes
 * back. What its ops compute is checked by conform_opencl_test. Skipped where the plugin or a device of it is not there.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "op_judge.h"

static struct {
  const unroll_plugin *plugin;
  unroll_backend *backend;
  const unroll_backend_ops *ops;
  unroll_error error;
  long allocated; /* blocks of the host's memory in use */
  char warning[256];
  char folder[64];
} test;

static void *count_alloc(void *ctx, uint64_t bytes, uint64_t alignment) {
  (void)ctx;
  (void)alignment;
  void *p = malloc(bytes);
  __atomic_add_fetch(&test.allocated, p != NULL, __ATOMIC_SEQ_CST);
  return p;
}

static void count_free(void *ctx, void *p) {
  (void)ctx;
  __atomic_sub_fetch(&test.allocated, p != NULL, __ATOMIC_SEQ_CST);
  free(p);
}

static void keep_warning(void *ctx, int32_t level, const char *message) {
  (void)ctx;
  if (level <= UNROLL_LOG_WARN)
    snprintf(test.warning, sizeof test.warning, "%s", message);
}

static unroll_host host = {
    .struct_size = sizeof(unroll_host), .log = keep_warning, .alloc = count_alloc, .free = count_free};

static int open_plugin(void **state) {
  (void)state;
  const char *folder = getenv("UNROLL_PLUGIN_PATH");
  char path[1024];
  snprintf(path, sizeof path, "%s/unroll-opencl.so", folder ? folder : ".");
  void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!handle)
    return 0;
  test.error.struct_size = sizeof test.error;
  test.plugin = dlsym(handle, UNROLL_PLUGIN_SYMBOL);
  uint32_t n = 0;
  if (!test.plugin || test.plugin->open(&host, NULL, 0, &test.backend, &test.ops, &test.error) ||
      test.ops->device_count(test.backend, &n, &test.error))
    return -1;
  if (n == 0) {
    test.plugin->close(test.backend, &test.error);
    test.backend = NULL;
  }
  snprintf(test.folder, sizeof test.folder, "/tmp/unroll-cl-XXXXXX");
  return mkdtemp(test.folder) ? 0 : -1;
}

/* What is left after everything was closed is a leak. */
static int close_plugin(void **state) {
  (void)state;
  char command[128];
  if (test.backend && test.plugin->close(test.backend, &test.error))
    return -1;
  snprintf(command, sizeof command, "rm -rf %s", test.folder);
  if (test.folder[0] && system(command) != 0)
    return -1;
  if (test.allocated)
    print_error("%ld blocks of host memory were not given back\n", test.allocated);
  return test.allocated ? -1 : 0;
}

static void need_device(void) {
  if (!test.backend)
    skip();
}

static unroll_backend_device *open_cached(const char *folder, const char *key, const char *value) {
  const unroll_option options[] = {{"cache", folder}, {key, value}};
  unroll_backend_device *device = NULL;
  if (test.ops->device_open(test.backend, 0, options, key ? 2 : 1, &device, &test.error))
    fail_msg("device_open: %s", test.error.message);
  return device;
}

static unroll_backend_device *open_device(const char *key, const char *value) {
  return open_cached(test.folder, key, value);
}

static void refuse_option(const char *key, const char *value, const char *named) {
  const unroll_option option = {key, value};
  unroll_backend_device *device = NULL;
  assert_int_equal(test.ops->device_open(test.backend, 0, &option, 1, &device, &test.error), UNROLL_E_INVALID);
  assert_null(device);
  if (!strstr(test.error.message, named))
    fail_msg("the message does not name %s: %s", named, test.error.message);
}

static void unknown_options_are_errors(void **state) {
  (void)state;
  need_device();
  refuse_option("speed", "high", "speed");
  refuse_option("mask", "matmul,matmull", "matmull");
  refuse_option("product", "magic", "magic");
}

static void devices_beyond_the_last_are_errors(void **state) {
  (void)state;
  need_device();
  uint32_t n = 0;
  unroll_backend_device *device = NULL;
  assert_int_equal(test.ops->device_count(test.backend, &n, &test.error), UNROLL_OK);
  assert_int_equal(test.ops->device_open(test.backend, n, NULL, 0, &device, &test.error), UNROLL_E_NOT_FOUND);
}

static op_judged run_cases(unroll_backend_device *device, const char *filter) {
  unroll_device_info info = {.struct_size = sizeof info};
  op_judged r;
  assert_int_equal(test.ops->device_info(test.backend, 0, &info, &test.error), UNROLL_OK);
  if (op_judge(&r, test.ops, device, &info, filter, &test.error))
    fail_msg("%s: %s", filter, test.error.message);
  if (r.failed)
    fail_msg("%u failed: %s", r.failed, r.first_failure);
  return r;
}

static void masked_ops_are_not_claimed(void **state) {
  (void)state;
  need_device();
  unroll_backend_device *device = open_device("mask", "reverse,lstm_gates");
  op_judged r = run_cases(device, "lstm_gates 7x17");
  assert_int_equal(r.passed, 0);
  assert_true(r.declined > 0);
  r = run_cases(device, "softmax 1 of rank 1");
  assert_int_equal(r.declined, 0);
  test.ops->device_close(device);
}

/* CLBlast must have passed its own test too: it warns when it did not. */
static void every_product_is_right(void **state) {
  (void)state;
  need_device();
  static const char *const products[] = {"clblast", "own", "tile"};
  for (size_t i = 0; i < sizeof products / sizeof *products; i++) {
    test.warning[0] = 0;
    unroll_backend_device *device = open_device("product", products[i]);
    assert_true(run_cases(device, "matmul rank 2 y 66x130").passed > 0);
    assert_true(run_cases(device, "matmul rank 3 y 3x1 k 7").passed > 0);
    assert_true(run_cases(device, "matmul rank 2 y 8x8 k 300000").passed > 0);
    test.ops->device_close(device);
    assert_string_equal(test.warning, "");
  }
}

/* Files of the cache, and the name of one of them. */
static int cache_files(const char *name, char *path, size_t size) {
  int n = 0;
  DIR *folder = opendir(name);
  for (struct dirent *e; folder && (e = readdir(folder));)
    if (strncmp(e->d_name, "cl-", 3) == 0) {
      snprintf(path, size, "%s/%.80s", name, e->d_name);
      n++;
    }
  if (folder)
    closedir(folder);
  return n;
}

/* The size is no sign: PoCL's binaries hold what was built so far for local sizes, which is not the same every time. */
static void programs_are_cached_and_bad_files_dropped(void **state) {
  (void)state;
  need_device();
  char folder[128], path[256], again[256];
  struct stat file[3];
  snprintf(folder, sizeof folder, "%s/of/this", test.folder);
  for (int run = 0; run < 3; run++) {
    unroll_backend_device *device = open_cached(folder, NULL, NULL);
    assert_true(run_cases(device, "gru_reset 7x17").passed > 0);
    test.ops->device_close(device);
    assert_true(cache_files(folder, run ? again : path, sizeof path) > 0);
    assert_int_equal(stat(path, &file[run]), 0);
    if (run == 0)
      assert_int_equal(truncate(path, file[0].st_size / 2), 0);
  }
  assert_true(file[1].st_size > file[0].st_size * 3 / 4);                          /* written anew, */
  assert_memory_equal(&file[2].st_mtim, &file[1].st_mtim, sizeof file[1].st_mtim); /* and good from then on */
}

static void an_unusable_cache_is_no_error(void **state) {
  (void)state;
  need_device();
  const unroll_option options[] = {{"cache", "/dev/null/there"}, {"mask", ""}};
  unroll_backend_device *device = NULL;
  test.warning[0] = 0;
  assert_int_equal(test.ops->device_open(test.backend, 0, options, 2, &device, &test.error), UNROLL_OK);
  run_cases(device, "gru_reset 7x17");
  test.ops->device_close(device);
  assert_string_equal(test.warning, "");
}

static void ranges_of_buffers_are_checked(void **state) {
  (void)state;
  need_device();
  unroll_backend_device *device = open_device(NULL, NULL);
  unroll_backend_queue *queue = NULL;
  unroll_backend_buffer *buffer = NULL;
  unsigned char bytes[100], want[100];
  assert_int_equal(test.ops->queue_create(device, 0, &queue, &test.error), UNROLL_OK);
  assert_int_equal(test.ops->buffer_create(device, 100, 0, &buffer, &test.error), UNROLL_OK);
  assert_int_equal(test.ops->fill(queue, buffer, 0, 100, 7, NULL, &test.error), UNROLL_OK);
  assert_int_equal(test.ops->fill(queue, buffer, 3, 71, 9, NULL, &test.error), UNROLL_OK);
  assert_int_equal(test.ops->read(queue, buffer, 0, bytes, 100, NULL, &test.error), UNROLL_OK);
  memset(want, 7, sizeof want);
  memset(want + 3, 9, 71);
  assert_memory_equal(bytes, want, sizeof want);
  assert_int_equal(test.ops->read(queue, buffer, 1, bytes, 100, NULL, &test.error), UNROLL_E_RANGE);
  assert_int_equal(test.ops->write(queue, buffer, UINT64_MAX, bytes, 2, NULL, &test.error), UNROLL_E_RANGE);
  assert_int_equal(test.ops->copy(queue, buffer, 50, buffer, 0, 51, NULL, &test.error), UNROLL_E_RANGE);
  assert_int_equal(test.ops->buffer_create(device, UINT64_MAX / 2, 0, &buffer, &test.error), UNROLL_E_DEVICE_MEMORY);
  test.ops->buffer_destroy(buffer);
  test.ops->queue_destroy(queue);
  test.ops->device_close(device);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(unknown_options_are_errors),
      cmocka_unit_test(devices_beyond_the_last_are_errors),
      cmocka_unit_test(masked_ops_are_not_claimed),
      cmocka_unit_test(every_product_is_right),
      cmocka_unit_test(programs_are_cached_and_bad_files_dropped),
      cmocka_unit_test(an_unusable_cache_is_no_error),
      cmocka_unit_test(ranges_of_buffers_are_checked),
  };
  return cmocka_run_group_tests_name("opencl backend", tests, open_plugin, close_plugin);
}
