/* SPDX-License-Identifier: Apache-2.0 */
/* Whom "auto" takes: of the plugins that come with the project the template may run, the null backend never. */
#include "base/base_private.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unroll/runtime.h>

#include <cmocka.h>

static char *template_file, *null_file;

static unroll_context *context_with(const char *const *files, uint32_t n) {
  const unroll_context_options options = {.struct_size = sizeof options, .plugin_files = files, .n_plugin_files = n};
  unroll_context *ctx = NULL;
  unroll_error err = UNROLL_ERROR_INIT;
  if (unroll_context_create(&options, &ctx, &err) != UNROLL_OK)
    fail_msg("%s", err.message);
  return ctx;
}

static void expect_open(const char *const *files, uint32_t n, const char *name, const char *id) {
  unroll_context *ctx = context_with(files, n);
  unroll_device *device = NULL;
  unroll_error err = UNROLL_ERROR_INIT;
  if (unroll_device_open(ctx, name, NULL, 0, &device, &err) != UNROLL_OK)
    fail_msg("%s", err.message);
  assert_string_equal(unroll_device_id(device), id);
  unroll_device_close(device);
  unroll_context_destroy(ctx);
}

static void auto_never_takes_null(void **state) {
  (void)state;
  const char *const null_first[] = {null_file, template_file}, *const template_first[] = {template_file, null_file};
  expect_open(null_first, 1, "auto", "cpu:0");
  expect_open(null_first, 2, "auto", "template:0");
  expect_open(template_first, 2, "auto", "template:0");
  expect_open(null_first, 2, "null", "null:0");
  expect_open(NULL, 0, "auto", "cpu:0");
}

static void null_takes_its_options(void **state) {
  (void)state;
  const char *const files[] = {null_file};
  unroll_context *ctx = context_with(files, 1);
  unroll_device *device = NULL;
  unroll_error err = UNROLL_ERROR_INIT;
  const unroll_option good[] = {{"layers", "1"}, {"alone", "0"}}, unknown[] = {{"layer", "1"}},
                      wrong[] = {{"alone", "x"}};
  assert_int_equal(unroll_device_open(ctx, "null", good, 2, &device, &err), UNROLL_OK);
  unroll_device_close(device);
  assert_int_equal(unroll_device_open(ctx, "null", unknown, 1, &device, &err), UNROLL_E_INVALID);
  assert_non_null(strstr(err.message, "\"layer\""));
  assert_int_equal(unroll_device_open(ctx, "null", wrong, 1, &device, &err), UNROLL_E_INVALID);
  assert_non_null(strstr(err.message, "\"x\", expected 0 or 1"));
  unroll_context_destroy(ctx);
}

int main(void) {
  unsetenv("UNROLL_PLUGIN_PATH");
  unsetenv("UNROLL_PLUGIN_FILES");
  const char *build = getenv("UNROLL_BUILD_DIR");
  template_file = mem_printf(NULL, "%s/plugins/unroll-template.so", build ? build : ".");
  null_file = mem_printf(NULL, "%s/plugins/unroll-null.so", build ? build : ".");
  if (!template_file || !null_file)
    return 1;
  const struct CMUnitTest tests[] = {cmocka_unit_test(auto_never_takes_null), cmocka_unit_test(null_takes_its_options)};
  const int failures = cmocka_run_group_tests(tests, NULL, NULL);
  mem_free(NULL, template_file);
  mem_free(NULL, null_file);
  return failures;
}
