/* SPDX-License-Identifier: Apache-2.0 */
/* The judge as a library: what it leaves behind, running out of memory, being cancelled; and its cases as such. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "conform/judge.h"

static const char *faulty(void) {
  static char path[4096];
  const char *folder = getenv("UNROLL_TEST_PLUGINS");
  snprintf(path, sizeof path, "%s/faulty.so", folder ? folder : "tests/plugins");
  return path;
}

static unroll_conform_options options_of(const char *plugin, const char *only) {
  return (unroll_conform_options){.struct_size = sizeof(unroll_conform_options), .plugin = plugin, .only = only};
}

static int count_files(const char *folder) {
  int n = 0;
  DIR *d = opendir(folder);
  while (d && readdir(d))
    n++;
  if (d)
    closedir(d);
  return n;
}

/* Mappings that are shared with other processes. */
static int count_shared(void) {
  int n = 0;
  char line[4096];
  FILE *f = fopen("/proc/self/maps", "r");
  assert_non_null(f);
  while (fgets(line, sizeof line, f))
    n += strstr(line, "/dev/zero") != NULL || strstr(line, "memfd:") != NULL;
  fclose(f);
  return n;
}

/* No child, descriptor or mapping stays, however the run ends. */
static void nothing_is_left_behind(void **state) {
  (void)state;
  static const char *const faults[] = {"", "crashes", "hangs", "prints", "close_crashes", "declares_nothing", "exits"};
  const int files = count_files("/proc/self/fd"), shared = count_shared();
  for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
    setenv("UNROLL_FAULT", faults[i], 1);
    unroll_conform_options o = options_of(faulty(), "^unary tanh 17");
    o.timeout_ms = strcmp(faults[i], "hangs") == 0 ? 500 : 0;
    unroll_conform_report *report = NULL;
    unroll_error err = UNROLL_ERROR_INIT;
    const unroll_status status = unroll_conform_run(&o, &report, &err);
    assert_int_equal(status, strcmp(faults[i], "declares_nothing") == 0 ? UNROLL_E_INVALID : UNROLL_OK);
    unroll_conform_report_destroy(report);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
    assert_int_equal(errno, ECHILD);
    assert_int_equal(count_files("/proc/self/fd"), files);
    assert_int_equal(count_shared(), shared);
  }
  unsetenv("UNROLL_FAULT");
}

/* A program that doesn't want to hear of its children. */
static void works_where_sigchld_is_ignored(void **state) {
  (void)state;
  struct sigaction before, ignore = {.sa_handler = SIG_IGN};
  sigaction(SIGCHLD, &ignore, &before);
  setenv("UNROLL_FAULT", "crashes", 1);
  const unroll_conform_options o = options_of(faulty(), "^unary (tanh|sigmoid) 17");
  unroll_conform_report *report = NULL;
  unroll_error err = UNROLL_ERROR_INIT;
  assert_int_equal(unroll_conform_run(&o, &report, &err), UNROLL_OK);
  const unroll_conform_totals t = unroll_conform_totals_of(report);
  assert_int_equal(t.crashed, 2);
  assert_int_equal(t.passed, 2);
  unroll_conform_report_destroy(report);
  unsetenv("UNROLL_FAULT");
  sigaction(SIGCHLD, &before, NULL);
}

struct counted {
  uint32_t told, of, stop_at;
  char last[CONFORM_NAME];
};

static int tell(void *ctx, const unroll_conform_case *one, uint32_t done, uint32_t of) {
  struct counted *c = ctx;
  assert_int_equal(done, ++c->told);
  c->of = of;
  snprintf(c->last, sizeof c->last, "%s", one->name);
  return c->told == c->stop_at;
}

static void tells_of_each_case_and_can_be_cancelled(void **state) {
  (void)state;
  struct counted c = {.stop_at = 0};
  unroll_conform_options o = options_of("cpu", "^argmax");
  o.progress = tell;
  o.progress_ctx = &c;
  unroll_conform_report *report = NULL;
  unroll_error err = UNROLL_ERROR_INIT;
  assert_int_equal(unroll_conform_run(&o, &report, &err), UNROLL_OK);
  const uint32_t n = unroll_conform_totals_of(report).cases;
  assert_int_equal(c.told, n);
  assert_int_equal(c.of, n);
  assert_string_equal(unroll_conform_case_of(report, n - 1).name, c.last);
  assert_string_equal(unroll_conform_case_of(report, n).name, "");
  unroll_conform_report_destroy(report);
  c = (struct counted){.stop_at = 3};
  assert_int_equal(unroll_conform_run(&o, &report, &err), UNROLL_E_CANCELLED);
  assert_null(report);
  assert_int_equal(c.told, 3);
  unroll_conform_report_destroy(NULL);
}

/* ---- memory ---- */
struct memory {
  uint64_t n, fail_at;
  int64_t live;
};

static void *memory_alloc(void *ctx, uint64_t bytes, uint64_t alignment) {
  struct memory *m = ctx;
  if (++m->n == m->fail_at)
    return NULL;
  m->live++;
  return aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
}

static void memory_free(void *ctx, void *p) {
  ((struct memory *)ctx)->live -= p != NULL;
  free(p);
}

/* Each allocation of the parent fails once; one of a child makes a case fail, no more. */
static void every_failure_of_memory_is_an_error(void **state) {
  (void)state;
  unroll_status status = UNROLL_E_MEMORY;
  uint64_t failures = 0;
  for (uint64_t i = 1; status != UNROLL_OK; i++) {
    struct memory m = {.fail_at = i};
    const unroll_allocator a = {.ctx = &m, .alloc = memory_alloc, .free = memory_free};
    unroll_conform_options o = options_of("cpu", "^constant 0 1 of rank 0, f32");
    o.allocator = &a;
    unroll_conform_report *report = NULL;
    unroll_error err = UNROLL_ERROR_INIT;
    status = unroll_conform_run(&o, &report, &err);
    if (status != UNROLL_OK) {
      assert_int_equal(status, UNROLL_E_MEMORY);
      assert_null(report);
      assert_true(err.message[0] != 0);
      failures++;
    }
    unroll_conform_report_destroy(report);
    assert_int_equal(m.live, 0);
    assert_true(i < 1000);
  }
  assert_true(failures > 20);
}

static void wrong_options_are_errors(void **state) {
  (void)state;
  unroll_conform_report *report = NULL;
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_conform_options o = options_of("cpu", "[");
  assert_int_equal(unroll_conform_run(&o, &report, &err), UNROLL_E_INVALID);
  o = options_of("", NULL);
  assert_int_equal(unroll_conform_run(&o, &report, &err), UNROLL_E_INVALID);
  o = options_of("cpu", NULL);
  o.struct_size = 8;
  assert_int_equal(unroll_conform_run(&o, &report, &err), UNROLL_E_INVALID);
  assert_int_equal(unroll_conform_run(NULL, &report, NULL), UNROLL_E_INVALID);
  o = options_of("/dev/null", NULL);
  assert_int_equal(unroll_conform_run(&o, &report, &err), UNROLL_E_PLUGIN);
  assert_null(report);
}

/* ---- the cases ---- */
static int by_name(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

static void names_are_unique_and_whole(void **state) {
  (void)state;
  struct conform_list list;
  unroll_error err = UNROLL_ERROR_INIT;
  assert_int_equal(conform_list_make(&list, NULL, &err), UNROLL_OK);
  const char **names = calloc(list.n, sizeof *names);
  assert_non_null(names);
  for (uint32_t i = 0; i < list.n; i++) {
    names[i] = list.cases[i].name;
    assert_in_range(strlen(names[i]), 3, CONFORM_NAME - 2);
    assert_non_null(list.cases[i].run);
  }
  qsort(names, list.n, sizeof *names, by_name);
  for (uint32_t i = 1; i < list.n; i++)
    if (strcmp(names[i - 1], names[i]) == 0)
      fail_msg("two cases are called \"%s\"", names[i]);
  free(names);
  conform_list_free(&list);
}

static void no_tolerance_is_loose(void **state) {
  (void)state;
  op_case_list list;
  assert_true(op_case_list_make(&list, NULL));
  /* The loosest is that of the sum of 300000 products. */
  for (uint32_t i = 0; i < list.n; i++)
    if (op_case_tolerance(&list.cases[i], UNROLL_F32) > 2e-4)
      fail_msg("%s", list.cases[i].name);
  op_case_list_free(&list);
}

static void every_mark_has_its_row(void **state) {
  (void)state;
  unroll_conform_report r = {.n = 0};
  unroll_error err = UNROLL_ERROR_INIT;
  assert_int_equal(conform_list_make(&r.list, NULL, &err), UNROLL_OK);
  assert_true(coverage_rows(&r));
  for (uint32_t i = 0; i < r.list.n; i++)
    for (uint32_t k = 0; k < r.list.cases[i].n_marks; k++) {
      const struct conform_mark *m = &r.list.marks[r.list.cases[i].first_mark + k];
      if (!coverage_find(&r, m))
        fail_msg("%s: no row of op %u, attribute %d, value %d", r.list.cases[i].name, m->op, m->attribute, m->value);
    }
  mem_free(NULL, r.rows);
  conform_list_free(&r.list);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(names_are_unique_and_whole),
      cmocka_unit_test(no_tolerance_is_loose),
      cmocka_unit_test(every_mark_has_its_row),
      cmocka_unit_test(wrong_options_are_errors),
      cmocka_unit_test(tells_of_each_case_and_can_be_cancelled),
      cmocka_unit_test(nothing_is_left_behind),
      cmocka_unit_test(works_where_sigchld_is_ignored),
      cmocka_unit_test(every_failure_of_memory_is_an_error),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
