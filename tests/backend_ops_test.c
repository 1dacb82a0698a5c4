/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every op on every backend at hand, against the cpu backend in f64: support/op_cases.h. The OpenCL backend is opened from
 * its file, as a plugin; where it or a device of it is not there its tests are skipped.
 *
 *     backend_ops_test [PART OF A CASE'S NAME]        to look at some cases only
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conform/op_cases.h"

extern const unroll_plugin unroll_plugin_v1_cpu;
static const char *filter; /* of the command line, for whoever works on a kernel */

static unroll_error no_error(void) {
  unroll_error e;
  memset(&e, 0, sizeof e);
  e.struct_size = sizeof e;
  return e;
}

static void report(const char *device, const char *dtype, const op_cases_result *r) {
  print_message("%s %s: %u passed, %u failed, %u declined, %u without the dtype\n", device, dtype, r->passed, r->failed,
                r->declined, r->unsupported);
  for (uint32_t i = 0; i < r->n_messages; i++)
    print_message("  failed: %s\n", r->messages[i]);
  for (uint32_t i = 0; i < r->n_declined_messages; i++)
    print_message("  declined: %s\n", r->declined_messages[i]);
}

typedef struct plugin_run {
  uint32_t devices, ran, failed, declined;
} plugin_run;

static plugin_run run_plugin(const unroll_plugin *plugin, int32_t dtype, const char *dtype_name) {
  plugin_run sum = {0, 0, 0, 0};
  unroll_error e = no_error();
  unroll_backend *backend = NULL;
  const unroll_backend_ops *ops = NULL;
  if (plugin->open(op_cases_host(), NULL, 0, &backend, &ops, &e))
    fail_msg("%s: open: %s", plugin->id, e.message);
  if (ops->device_count(backend, &sum.devices, &e))
    fail_msg("%s: device_count: %s", plugin->id, e.message);
  for (uint32_t i = 0; i < sum.devices; i++) {
    unroll_device_info info;
    memset(&info, 0, sizeof info);
    info.struct_size = sizeof info;
    unroll_backend_device *device = NULL;
    if (ops->device_info(backend, i, &info, &e))
      fail_msg("%s: device_info: %s", plugin->id, e.message);
    if (!(info.dtypes >> dtype & 1)) {
      print_message("%s:%s has no %s\n", plugin->id, info.id, dtype_name);
      continue;
    }
    if (ops->device_open(backend, i, NULL, 0, &device, &e))
      fail_msg("%s:%s: device_open: %s", plugin->id, info.id, e.message);
    op_cases_result r;
    if (op_cases_run(&r, ops, device, &info, dtype, filter, &e))
      fail_msg("%s:%s: %s", plugin->id, info.id, e.message);
    report(info.name, dtype_name, &r);
    ops->device_close(device);
    sum.ran += r.passed + r.failed;
    sum.failed += r.failed;
    sum.declined += r.declined;
  }
  if (plugin->close(backend, &e))
    fail_msg("%s: close: %s", plugin->id, e.message);
  return sum;
}

/* The reference itself: templates, run-time sizes and offsets against plain nodes, f32 against f64, the same bits again. */
static void check_cpu(int32_t dtype, const char *name) {
  plugin_run r = run_plugin(&unroll_plugin_v1_cpu, dtype, name);
  assert_int_equal(r.devices, 1);
  assert_true(r.ran > 0);
  assert_int_equal(r.failed, 0);
  assert_int_equal(r.declined, 0);
}

static void cpu_f32(void **state) {
  (void)state;
  check_cpu(UNROLL_F32, "f32");
}

static void cpu_f64(void **state) {
  (void)state;
  check_cpu(UNROLL_F64, "f64");
}

static void check_opencl(int32_t dtype, const char *name) {
  const char *build = getenv("UNROLL_BUILD_DIR");
  char path[4096];
  snprintf(path, sizeof path, "%s/lib/unroll/unroll-opencl.so", build ? build : ".");
  void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    print_message("%s\n", dlerror());
    skip();
  }
  const unroll_plugin *plugin = dlsym(library, UNROLL_PLUGIN_SYMBOL);
  assert_non_null(plugin);
  plugin_run r = run_plugin(plugin, dtype, name);
  /* The library stays: drivers keep threads, and what they leak should have its names. */
  if (!r.ran && !r.declined) {
    print_message("no OpenCL device with %s\n", name);
    skip();
  }
  assert_true(r.ran > 0);
  assert_int_equal(r.failed, 0);
}

static void opencl_f32(void **state) {
  (void)state;
  check_opencl(UNROLL_F32, "f32");
}

static void opencl_f64(void **state) {
  (void)state;
  check_opencl(UNROLL_F64, "f64");
}

/* The kind of an op that has kinds, else -1. */
static int32_t kind_of(const op_node *node) {
  switch (node->op) {
  case UNROLL_OP_UNARY: return node->attr.unary.kind;
  case UNROLL_OP_BINARY: return node->attr.binary.kind;
  case UNROLL_OP_REDUCE: return node->attr.reduce.kind;
  case UNROLL_OP_OPTIMIZER: return node->attr.optimizer.kind;
  default: return -1;
  }
}

/* No op, and no kind of one, without a case: an op that is added to the header has to be added to the cases. */
static void every_op_has_cases(void **state) {
  (void)state;
  static const struct {
    uint32_t op;
    const char *name;
  } ops[] = {
#define OP(code, value, text) {code, text},
      UNROLL_OPS(OP)
#undef OP
  };
  static const int32_t kinds[UNROLL_OP_END] = {[UNROLL_OP_UNARY] = UNROLL_UNARY_COUNT,
                                               [UNROLL_OP_BINARY] = UNROLL_BINARY_COUNT,
                                               [UNROLL_OP_REDUCE] = UNROLL_REDUCTION_COUNT,
                                               [UNROLL_OP_OPTIMIZER] = UNROLL_OPTIMIZER_COUNT};
  static uint32_t cases[UNROLL_OP_END], templates[UNROLL_OP_END], of_kind[UNROLL_OP_END][UNROLL_BINARY_COUNT];
  op_case_list list;
  assert_true(op_case_list_make(&list));
  for (uint32_t i = 0; i < list.n; i++) {
    /* The loosest is that of the sum of 300000 products. */
    assert_true(op_case_tolerance(&list.cases[i], UNROLL_F32) < 2e-4);
    for (uint32_t n = 0; n < list.cases[i].n_nodes; n++) {
      const op_node *node = &list.cases[i].nodes[n];
      assert_in_range(node->op, 1, UNROLL_OP_END - 1);
      cases[node->op]++;
      templates[node->op] += list.cases[i].is_template != 0;
      if (kind_of(node) >= 0)
        of_kind[node->op][kind_of(node)]++;
    }
  }
  print_message("%u cases\n", list.n);
  op_case_list_free(&list);
  assert_int_equal(sizeof ops / sizeof *ops, UNROLL_OP_END - 1);
  for (size_t i = 0; i < sizeof ops / sizeof *ops; i++) {
    uint32_t op = ops[i].op;
    if (op == UNROLL_OP_LAYER || op == UNROLL_OP_LAYER_GRAD || op == UNROLL_OP_SCAN || op == UNROLL_OP_RESHAPE)
      continue;
    if (!cases[op])
      fail_msg("%s has no case", ops[i].name);
    if (!templates[op] && op != UNROLL_OP_OPTIMIZER)
      fail_msg("%s has no case as a step template", ops[i].name);
    for (int32_t k = 0; k < kinds[op]; k++)
      if (!of_kind[op][k])
        fail_msg("%s has no case of kind %d", ops[i].name, (int)k);
  }
}

/* ---- the judge itself: the cpu backend with one fault, against itself ---- */
static const unroll_backend_ops *sound;
static uint64_t runs;

static unroll_status does_nothing(unroll_backend_binding *binding, unroll_backend_queue *queue,
                                  const unroll_run_args *args, unroll_backend_event **event, unroll_error *err) {
  (void)binding, (void)queue, (void)args, (void)event, (void)err;
  return UNROLL_OK;
}

static unroll_status stops_early(unroll_backend_binding *binding, unroll_backend_queue *queue,
                                 const unroll_run_args *args, unroll_backend_event **event, unroll_error *err) {
  unroll_run_args less = *args;
  less.count--;
  return less.count ? sound->run(binding, queue, &less, event, err) : UNROLL_OK;
}

static unroll_status goes_on(unroll_backend_binding *binding, unroll_backend_queue *queue, const unroll_run_args *args,
                             unroll_backend_event **event, unroll_error *err) {
  static const int64_t all[] = {7};
  unroll_run_args more = *args;
  more.dims = all;
  return sound->run(binding, queue, &more, event, err);
}

static unroll_status has_other_seeds(unroll_backend_binding *binding, unroll_backend_queue *queue,
                                     const unroll_run_args *args, unroll_backend_event **event, unroll_error *err) {
  unroll_run_args other = *args;
  other.seed += runs++ & 1;
  return sound->run(binding, queue, &other, event, err);
}

static unroll_status spills(unroll_backend_queue *queue, unroll_backend_buffer *buffer, uint64_t offset, void *to,
                            uint64_t n, unroll_backend_event **event, unroll_error *err) {
  unroll_status status = sound->read(queue, buffer, offset, to, n, event, err);
  ((uint8_t *)to)[n - 1] ^= 1;
  return status;
}

/* What comes out of a device with one function replaced, in cases that have `part` in their names. */
static op_cases_result judge(const unroll_backend_ops *fault, const char *part) {
  unroll_error e = no_error();
  unroll_backend *backend = NULL;
  unroll_backend_device *device = NULL;
  unroll_device_info info;
  memset(&info, 0, sizeof info);
  info.struct_size = sizeof info;
  assert_int_equal(unroll_plugin_v1_cpu.open(op_cases_host(), NULL, 0, &backend, &sound, &e), UNROLL_OK);
  assert_int_equal(sound->device_info(backend, 0, &info, &e), UNROLL_OK);
  assert_int_equal(sound->device_open(backend, 0, NULL, 0, &device, &e), UNROLL_OK);
  unroll_backend_ops ops = *sound;
  if (fault->run)
    ops.run = fault->run;
  if (fault->read)
    ops.read = fault->read;
  op_cases_result r;
  assert_int_equal(op_cases_run(&r, &ops, device, &info, UNROLL_F32, part, &e), UNROLL_OK);
  sound->device_close(device);
  assert_int_equal(unroll_plugin_v1_cpu.close(backend, &e), UNROLL_OK);
  return r;
}

static void faults_are_found(void **state) {
  (void)state;
  static const struct {
    const char *part, *message;
    unroll_backend_ops fault;
  } faults[] = {
      {"unary tanh 17 of", "expected", {.run = does_nothing}},
      {"recurrence lstm step", "expected", {.run = stops_early}},
      {"run-time size 5 unary", "expected", {.run = goes_on}},
      {"template dropout whole", "other bits", {.run = has_other_seeds}},
      {"binary sub row", "guard byte", {.read = spills}},
  };
  for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
    op_cases_result r = judge(&faults[i].fault, faults[i].part);
    assert_true(r.failed > 0);
    assert_int_equal(r.passed, 0);
    if (!strstr(r.messages[0], faults[i].message))
      fail_msg("\"%s\" does not say \"%s\"", r.messages[0], faults[i].message);
  }
}

int main(int argc, char **argv) {
  filter = argc > 1 ? argv[1] : NULL;
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(every_op_has_cases),
      cmocka_unit_test(faults_are_found),
      cmocka_unit_test(cpu_f32),
      cmocka_unit_test(cpu_f64),
      cmocka_unit_test(opencl_f32),
      cmocka_unit_test(opencl_f64),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
