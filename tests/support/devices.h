/* SPDX-License-Identifier: Apache-2.0 */
/*
 * devices.h: the devices that a test runs on, and a graph run on one of them by tensor names.
 *
 *     static void sums(void **state) {
 *       FOR_EACH_DEVICE(dev, *state, UNROLL_F32) {
 *         ... graph g with input "x" and output "y" ...
 *         model m = model_open(g, dev, true);
 *         model_put(&m, "x", x, 12);
 *         model_run(&m);
 *         double *y = model_get(&m, "y", 12);
 *         ...
 *         free(y);
 *         model_close(&m);
 *       }
 *     }
 *     const struct CMUnitTest tests[] = {DEVICE_TESTS(sums)};
 *     return cmocka_run_group_tests(tests, devices_open, devices_close);
 *
 * A test runs once for each plugin, which is its state: one whose device is missing is thus seen as skipped, by name. What
 * goes wrong in here fails the test.
 */
#ifndef DEVICES_H
#define DEVICES_H
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdbool.h>
#include <unroll/runtime.h>

/* Group setup and teardown: one context for the program. */
int devices_open(void **state);
int devices_close(void **state);

/*
 * Over the devices of a plugin ("cpu", "opencl", "onednn") that have the dtype. A plugin without a device is a skip() of the test; a
 * device without the dtype is passed over, so a test of f64 has f32 beside it.
 */
#define FOR_EACH_DEVICE(dev, plugin, dtype) \
  for (unroll_device *dev = devices_next((plugin), (dtype), NULL); dev; dev = devices_next((plugin), (dtype), dev))
unroll_device *devices_next(const char *plugin, int32_t dtype, const unroll_device *after);

/* TEST_cpu and TEST_opencl */
#define DEVICE_TESTS(test) \
  {#test "_cpu", test, NULL, NULL, "cpu"}, { #test "_opencl", test, NULL, NULL, "opencl" }

#define assert_status(expected, expr) assert_status_at((expected), (expr), &err, #expr, __FILE__, __LINE__)
void assert_status_at(unroll_status expected, unroll_status got, const unroll_error *err, const char *expr,
                      const char *file, int line);

typedef struct model {
  unroll_graph *graph; /* the caller's; alive until model_close */
  unroll_device *device;
  unroll_executable *exe;
  unroll_binding *binding;
  unroll_run_options options;
  int64_t dims[4];
} model;

/* strict: nothing falls back to another device. */
model model_open(unroll_graph *graph, unroll_device *device, bool strict);
void model_close(model *m);
/* values, converted to the tensor's dtype. n: its number of elements, or, where axis 0 has a run-time size, fewer. */
void model_put(model *m, const char *name, const double *values, int64_t n);
void model_put_i32(model *m, const char *name, const int32_t *values, int64_t n);
/* Normal numbers for the real inputs and parameters of rank 1 or more, of 512 elements at most, the same for each. */
void model_fill(model *m, double std);
/* The run-time size, of a graph with one. */
void model_set_dim(model *m, int64_t size);
void model_run(model *m);
/* To be freed. Filled with NaN before it is read. */
double *model_get(model *m, const char *name, int64_t n);

/* Fails where anything is not finite, or max|a-b| > tolerance·max|b|; b is the reference. */
void assert_close_at(const char *what, const double *got, const double *want, int64_t n, double tolerance,
                     const char *file, int line);
#define assert_close(what, got, want, n, tolerance) \
  assert_close_at((what), (got), (want), (n), (tolerance), __FILE__, __LINE__)
#endif
