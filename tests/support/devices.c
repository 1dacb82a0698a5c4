/* SPDX-License-Identifier: Apache-2.0 */
#include "devices.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <unroll/nn.h>

#define MAX_DEVICES 8
typedef struct plugin_devices {
  const char *plugin;
  unroll_device *device[MAX_DEVICES];
  uint32_t n;
  bool opened;
} plugin_devices;

static unroll_context *ctx;
static plugin_devices plugins[] = {{.plugin = "cpu"}, {.plugin = "opencl"}, {.plugin = "onednn"}};
#define N_PLUGINS (sizeof plugins / sizeof *plugins)

void assert_status_at(unroll_status expected, unroll_status got, const unroll_error *err, const char *expr,
                      const char *file, int line) {
  if (got == expected)
    return;
  print_error("%s: %s, expected %s: %s\n", expr, unroll_status_name(got), unroll_status_name(expected),
              err ? err->message : "");
  _fail(file, line);
}

/* LeakSanitizer asks for it: OpenCL's drivers keep memory until the process ends. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void) { return "leak:libOpenCL\nleak:libpocl\nleak:libLLVM\nleak:libclang\n"; }

/* Started by hand, without CTest's environment, a program of BUILD/tests finds the plugins of BUILD/lib/unroll. */
static void set_plugin_path(void) {
  char path[4096];
  const ssize_t n = readlink("/proc/self/exe", path, sizeof path - 32);
  if (n <= 0)
    return;
  path[n] = 0;
  char *slash = strrchr(path, '/');
  if (slash) {
    strcpy(slash, "/../lib/unroll");
    setenv("UNROLL_PLUGIN_PATH", path, 0);
  }
}

int devices_open(void **state) {
  (void)state;
  unroll_error err = UNROLL_ERROR_INIT;
  set_plugin_path();
  if (unroll_context_create(NULL, &ctx, &err) == UNROLL_OK)
    return 0;
  print_error("context: %s\n", err.message);
  return 1;
}

int devices_close(void **state) {
  (void)state;
  for (size_t p = 0; p < N_PLUGINS; p++)
    for (uint32_t i = 0; i < plugins[p].n; i++)
      unroll_device_close(plugins[p].device[i]);
  unroll_context_destroy(ctx);
  return 0;
}

static void open_one(plugin_devices *p, const char *id) {
  unroll_error err = UNROLL_ERROR_INIT;
  assert_true(p->n < MAX_DEVICES);
  assert_status(UNROLL_OK, unroll_device_open(ctx, id, NULL, 0, &p->device[p->n], &err));
  p->n++;
}

/* The reference is opened by its name; what else there is has to be asked for. */
static void open_all(plugin_devices *p) {
  unroll_error err = UNROLL_ERROR_INIT;
  p->opened = true;
  if (strcmp(p->plugin, "cpu") == 0) {
    open_one(p, "cpu");
    return;
  }
  unroll_plugin_list *list;
  assert_status(UNROLL_OK, unroll_context_list(ctx, &list, &err));
  for (uint32_t i = 0; i < list->n_rejected; i++)
    print_message("%s: %s\n", list->rejected[i].path, list->rejected[i].reason);
  for (uint32_t i = 0; i < list->n_plugins; i++)
    if (strcmp(list->plugins[i].id, p->plugin) == 0)
      for (uint32_t d = 0; d < list->plugins[i].n_devices; d++)
        open_one(p, list->plugins[i].devices[d].id);
  unroll_plugin_list_free(ctx, list);
}

unroll_device *devices_next(const char *plugin, int32_t dtype, const unroll_device *after) {
  plugin_devices *p = NULL;
  for (size_t i = 0; i < N_PLUGINS; i++)
    if (strcmp(plugins[i].plugin, plugin) == 0)
      p = &plugins[i];
  assert_non_null(p);
  if (!p->opened)
    open_all(p);
  if (p->n == 0) {
    print_message("no device of %s\n", plugin);
    skip();
  }
  bool past = after == NULL;
  for (uint32_t i = 0; i < p->n; i++) {
    if (past && (unroll_device_describe(p->device[i])->dtypes >> dtype & 1u))
      return p->device[i];
    past = past || p->device[i] == after;
  }
  return NULL;
}

/* ---- a graph on a device ---- */

model model_open(unroll_graph *graph, unroll_device *device, bool strict) {
  unroll_error err = UNROLL_ERROR_INIT;
  const unroll_compile_options options = {.struct_size = sizeof options, .strict = strict};
  model m = {.graph = graph, .device = device};
  m.options.struct_size = sizeof m.options;
  assert_status(UNROLL_OK, unroll_graph_status(graph, &err));
  assert_status(UNROLL_OK, unroll_compile(graph, &device, 1, &options, &m.exe, &err));
  assert_status(UNROLL_OK, unroll_binding_create(m.exe, &m.binding, &err));
  return m;
}

void model_close(model *m) {
  unroll_binding_destroy(m->binding);
  unroll_executable_destroy(m->exe);
  memset(m, 0, sizeof *m);
}

static int32_t dtype_of(const model *m, const char *name) {
  const unroll_tensor_info info = unroll_tensor_describe(unroll_graph_find(m->graph, name));
  if (info.rank < 0)
    fail_msg("the graph has no tensor %s", name);
  return info.dtype;
}

void model_put(model *m, const char *name, const double *values, int64_t n) {
  unroll_error err = UNROLL_ERROR_INIT;
  if (dtype_of(m, name) == UNROLL_F64) {
    assert_status(UNROLL_OK, unroll_binding_write(m->binding, name, values, (uint64_t)n * sizeof *values, &err));
    return;
  }
  assert_int_equal(dtype_of(m, name), UNROLL_F32);
  float *f = malloc((size_t)n * sizeof *f);
  assert_non_null(f);
  for (int64_t i = 0; i < n; i++)
    f[i] = (float)values[i];
  const unroll_status st = unroll_binding_write(m->binding, name, f, (uint64_t)n * sizeof *f, &err);
  free(f);
  assert_status(UNROLL_OK, st);
}

void model_put_i32(model *m, const char *name, const int32_t *values, int64_t n) {
  unroll_error err = UNROLL_ERROR_INIT;
  assert_int_equal(dtype_of(m, name), UNROLL_I32);
  assert_status(UNROLL_OK, unroll_binding_write(m->binding, name, values, (uint64_t)n * sizeof *values, &err));
}

void model_fill(model *m, double std) {
  for (uint32_t i = 0; i < unroll_graph_count(m->graph); i++) {
    unroll_tensor_info info = unroll_tensor_describe(unroll_graph_tensor(m->graph, i));
    const bool mine = info.role == UNROLL_ROLE_INPUT || info.role == UNROLL_ROLE_PARAM;
    if (!mine || (info.dtype != UNROLL_F32 && info.dtype != UNROLL_F64) || info.rank == 0)
      continue;
    double values[512];
    int64_t n = 1;
    for (int32_t k = 0; k < info.rank; k++)
      n *= info.shape[k];
    assert_in_range(n, 1, 512);
    info.dtype = UNROLL_F64;
    assert_int_equal(unroll_init_normal(&info, 3, 0, std, values, NULL), UNROLL_OK);
    model_put(m, info.name, values, n);
  }
}

void model_set_dim(model *m, int64_t size) {
  m->dims[0] = size;
  m->options.n_dims = 1;
}

void model_run(model *m) {
  unroll_error err = UNROLL_ERROR_INIT;
  m->options.dims = m->dims;
  assert_status(UNROLL_OK, unroll_run(m->binding, &m->options, &err));
}

double *model_get(model *m, const char *name, int64_t n) {
  unroll_error err = UNROLL_ERROR_INIT;
  double *values = malloc((size_t)n * sizeof *values);
  assert_non_null(values);
  memset(values, 0xFF, (size_t)n * sizeof *values);
  const int32_t dtype = dtype_of(m, name);
  assert_true(dtype == UNROLL_F64 || dtype == UNROLL_F32);
  const uint64_t size = unroll_dtype_size(dtype);
  assert_status(UNROLL_OK, unroll_binding_read(m->binding, name, values, (uint64_t)n * size, &err));
  if (dtype == UNROLL_F32) /* from the last one on: they lie in the first half of the same memory */
    for (int64_t i = n; i-- > 0;) {
      float f;
      memcpy(&f, (const char *)values + (size_t)i * sizeof f, sizeof f);
      values[i] = (double)f;
    }
  return values;
}

void assert_close_at(const char *what, const double *got, const double *want, int64_t n, double tolerance,
                     const char *file, int line) {
  double largest = 0, error = 0;
  int64_t at = 0;
  for (int64_t i = 0; i < n; i++) {
    const double e = fabs(got[i] - want[i]);
    largest = fmax(largest, fabs(want[i]));
    if (!(e <= error)) { /* NaN too */
      error = isfinite(e) ? e : INFINITY;
      at = i;
    }
    if (isinf(error))
      break;
  }
  if (error <= tolerance * largest)
    return;
  print_error("%s: element %lld is %.17g, expected %.17g; error %.3g of the largest, allowed %.3g\n", what,
              (long long)at, got[at], want[at], error / largest, tolerance);
  _fail(file, line);
}
