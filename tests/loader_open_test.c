/* SPDX-License-Identifier: Apache-2.0 */
/* Opening plugins and looking at their devices from a child process, with stubs that misbehave in every way. */
#include "stub_files.h"
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* The file is a candidate, but can't be opened, and the registry remembers why. */
static void expect_open_fails(const char *path, const char *id, unroll_status code, const char *reason) {
  struct plugin_registry *reg = stub_registry(path);
  assert_int_equal(stub_candidate(reg, id).state, PLUGIN_FOUND);
  assert_null(stub_reason(reg, path));
  struct plugin_backend backend;
  for (int again = 0; again < 2; again++) {
    memset(&backend, 0xFF, sizeof backend);
    unroll_error err = UNROLL_ERROR_INIT;
    assert_int_equal(plugin_registry_open(reg, id, NULL, 0, &backend, &err), code);
    assert_int_equal(err.code, code);
    assert_contains(err.message, reason);
    assert_contains(err.message, id);
    assert_null(backend.backend);
    assert_null(backend.plugin);
    const struct plugin_candidate c = stub_candidate(reg, id);
    assert_int_equal(c.state, PLUGIN_REJECTED);
    assert_contains(c.reason, reason);
    assert_non_null(stub_reason(reg, path));
  }
  plugin_registry_destroy(reg);
}

static void opens_shares_and_closes(void **state) {
  (void)state;
  char *path = stub_put("stub", "unroll-stub.so");
  struct plugin_registry *reg = stub_registry(path);
  assert_false(stub_ran());
  assert_null(stub_candidate(reg, "stub").version);
  const unroll_option fast[] = {{"mode", "fast"}}, slow[] = {{"mode", "slow"}};
  struct plugin_backend a, b;
  unroll_error err = UNROLL_ERROR_INIT;
  assert_int_equal(plugin_registry_open(reg, "stub", fast, 1, &a, &err), UNROLL_OK);
  assert_true(stub_ran());
  assert_int_equal(a.score, 17);
  assert_string_equal(a.plugin->id, "stub");
  const struct plugin_candidate c = stub_candidate(reg, "stub");
  assert_int_equal(c.state, PLUGIN_OPEN);
  assert_string_equal(c.version, "1.0");
  assert_string_equal(c.vendor, "stubs");
  assert_string_equal(c.reason, "");

  assert_int_equal(plugin_registry_open(reg, "stub", fast, 1, &b, &err), UNROLL_OK);
  assert_ptr_equal(a.backend, b.backend);
  assert_int_equal(plugin_registry_close(reg, &b, &err), UNROLL_OK);
  assert_int_equal(plugin_registry_open(reg, "stub", NULL, 0, &b, &err), UNROLL_OK);
  assert_ptr_equal(a.backend, b.backend);
  assert_int_equal(plugin_registry_close(reg, &b, &err), UNROLL_OK);
  assert_null(b.backend);
  assert_int_equal(plugin_registry_close(reg, &b, &err), UNROLL_OK); /* of nothing */
  assert_int_equal(plugin_registry_open(reg, "stub", slow, 1, &b, &err), UNROLL_E_STATE);
  assert_contains(err.message, "with other options");
  assert_int_equal(stub_candidate(reg, "stub").state, PLUGIN_OPEN);

  /* An open backend is asked here, not in a child. */
  struct plugin_device *devices;
  uint32_t n;
  assert_int_equal(plugin_registry_probe(reg, "stub", 0, &devices, &n, &err), UNROLL_OK);
  assert_int_equal(n, 2);
  plugin_devices_free(reg, devices);

  assert_int_equal(plugin_registry_close(reg, &a, &err), UNROLL_OK);
  assert_int_equal(stub_candidate(reg, "stub").state, PLUGIN_FOUND);
  assert_int_equal(plugin_registry_open(reg, "stub", slow, 1, &b, &err), UNROLL_OK);
  setenv("UNROLL_STUB", "close_fails", 1);
  assert_int_equal(plugin_registry_close(reg, &b, &err), UNROLL_E_DEVICE);
  assert_contains(err.message, "its close failed: work was still queued");
  unsetenv("UNROLL_STUB");
  assert_int_equal(plugin_registry_open(reg, "stub", slow, 1, &b, &err), UNROLL_OK);
  assert_non_null(dlopen(path, RTLD_NOLOAD | RTLD_NOW));
  dlclose(dlopen(path, RTLD_NOLOAD | RTLD_NOW));
  dlclose(dlopen(path, RTLD_NOLOAD | RTLD_NOW)); /* and the reference of the assertion */
  plugin_registry_destroy(reg);                  /* with one still open */
  plugin_registry_destroy(NULL);
}

static void unloads_where_allowed(void **state) {
  (void)state;
  char *path = stub_put("stub", "unroll-stub.so");
  struct plugin_backend b;
  struct plugin_registry *reg = stub_registry(path);
  assert_int_equal(plugin_registry_open(reg, "stub", NULL, 0, &b, NULL), UNROLL_OK);
  plugin_registry_destroy(reg);
  assert_null(dlopen(path, RTLD_NOLOAD | RTLD_NOW));
  path = stub_put_patched("unroll-sticky.so", STUB_SYMBOL, offsetof(unroll_plugin, flags), &(uint32_t){0}, 4);
  reg = stub_registry(path);
  assert_int_equal(plugin_registry_open(reg, "stub", NULL, 0, &b, NULL), UNROLL_OK);
  plugin_registry_destroy(reg);
  void *library = dlopen(path, RTLD_NOLOAD | RTLD_NOW);
  assert_non_null(library);
  dlclose(library);
}

static void says_what_there_is(void **state) {
  (void)state;
  stub_put("stub", "folder/unroll-stub.so");
  stub_put("stub_no_symbol", "folder/unroll-other.so");
  char *bad = stub_put("stub_no_note", "folder/unroll-bad.so");
  setenv("UNROLL_PLUGIN_PATH", stub_path("folder"), 1);
  struct plugin_registry *reg = stub_registry(NULL);
  struct plugin_backend b;
  unroll_error err = UNROLL_ERROR_INIT;
  assert_int_equal(plugin_registry_open(reg, "cuda", NULL, 0, &b, &err), UNROLL_E_NOT_FOUND);
  assert_contains(err.message, "no plugin \"cuda\": there are ");
  assert_contains(err.message, "no-symbol, stub");
  assert_int_equal(plugin_registry_open(reg, "bad", NULL, 0, &b, &err), UNROLL_E_NOT_FOUND);
  assert_contains(err.message, bad);
  assert_contains(err.message, "no ELF note");
  plugin_registry_destroy(reg);
}

static void rejects_at_open(void **state) {
  (void)state;
  expect_open_fails(stub_put("stub_missing", "unroll-missing.so"), "missing", UNROLL_E_PLUGIN,
                    "undefined symbol: unroll_stub_missing_function");
  expect_open_fails(stub_put("stub_no_symbol", "unroll-no-symbol.so"), "no-symbol", UNROLL_E_PLUGIN,
                    "it has no symbol unroll_plugin_v1");
  const size_t id = offsetof(unroll_plugin_note, id) - offsetof(unroll_plugin_note, magic);
  expect_open_fails(stub_put_patched("unroll-twin.so", STUB_NOTE, id, "twin", 5), "twin", UNROLL_E_PLUGIN,
                    "it calls itself \"stub\" where its note says \"twin\"");
  expect_open_fails(stub_put_patched("unroll-a.so", STUB_SYMBOL, 0, "XXXX", 4), "stub", UNROLL_E_PLUGIN,
                    "has the magic 0x58585858");
  expect_open_fails(stub_put_patched("unroll-b.so", STUB_SYMBOL, 4, &(uint32_t){24}, 4), "stub", UNROLL_E_PLUGIN,
                    "has 24 bytes, expected");
  expect_open_fails(stub_put_patched("unroll-c.so", STUB_SYMBOL, offsetof(unroll_plugin, abi_minor), &(uint16_t){3}, 2),
                    "stub", UNROLL_E_ABI, "built for plugin ABI 0.3, this library has 0.2");
}

static void rejects_bad_behaviour(void **state) {
  (void)state;
  static const struct {
    const char *way;
    unroll_status code;
    const char *reason;
  } cases[] = {{"score_zero", UNROLL_E_UNSUPPORTED, "of no use here: its score is 0"},
               {"open_fails", UNROLL_E_DEVICE, "its open failed: no driver is installed"},
               {"open_silent", UNROLL_E_DEVICE, "its open failed with status -9"},
               {"no_table", UNROLL_E_PLUGIN, "gave no table of functions"},
               {"short_table", UNROLL_E_PLUGIN, "its table of functions has 64 bytes, expected"},
               {"no_run", UNROLL_E_PLUGIN, "its table of functions lacks run"}};
  char *path = stub_put("stub", "unroll-stub.so");
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    setenv("UNROLL_STUB", cases[i].way, 1);
    expect_open_fails(path, "stub", cases[i].code, cases[i].reason);
  }
  /* A failure is not for ever. */
  struct plugin_registry *reg = stub_registry(path);
  struct plugin_backend b;
  assert_int_equal(plugin_registry_open(reg, "stub", NULL, 0, &b, NULL), UNROLL_E_PLUGIN);
  unsetenv("UNROLL_STUB");
  assert_int_equal(plugin_registry_open(reg, "stub", NULL, 0, &b, NULL), UNROLL_OK);
  assert_null(stub_reason(reg, path));
  assert_int_equal(plugin_registry_close(reg, &b, NULL), UNROLL_OK);
  plugin_registry_destroy(reg);
}

static void file_replaced_after_discovery(void **state) {
  (void)state;
  char *path = stub_put("stub", "unroll-stub.so");
  struct plugin_registry *reg = stub_registry(path);
  struct plugin_backend b;
  unroll_error err = UNROLL_ERROR_INIT;
  stub_put("stub_no_symbol", "unroll-stub.so");
  assert_int_equal(plugin_registry_open(reg, "stub", NULL, 0, &b, &err), UNROLL_E_PLUGIN);
  assert_contains(err.message, "the file was replaced: it now has the id \"no-symbol\"");
  stub_put("stub_no_note", "unroll-stub.so");
  assert_int_equal(plugin_registry_open(reg, "stub", NULL, 0, &b, &err), UNROLL_E_PLUGIN);
  assert_contains(err.message, "no ELF note");
  plugin_registry_destroy(reg);
  assert_false(stub_ran());
}

/* ---- probing ---- */
static void probes_devices(void **state) {
  (void)state;
  char *path = stub_put("stub", "unroll-stub.so");
  struct plugin_registry *reg = stub_registry(path);
  struct plugin_device *devices;
  uint32_t n;
  unroll_error err = UNROLL_ERROR_INIT;
  assert_int_equal(plugin_registry_probe(reg, "stub", PLUGIN_PROBE_MS, &devices, &n, &err), UNROLL_OK);
  assert_int_equal(n, 2);
  assert_string_equal(devices[0].id, "stub:0");
  assert_string_equal(devices[0].name, "first device");
  assert_string_equal(devices[0].vendor, "stubs");
  assert_string_equal(devices[1].id, "stub:1.7");
  assert_string_equal(devices[1].name, "second device"); /* the stub says a tab */
  assert_string_equal(devices[1].vendor, "");
  assert_string_equal(devices[1].driver, "1.2.3");
  assert_int_equal(devices[1].kind, UNROLL_KIND_ACCELERATOR);
  assert_int_equal(devices[1].mem_total, 5); /* the threads that the host said */
  assert_int_equal(devices[1].max_buffer, 1001);
  assert_int_equal(devices[1].alignment, 64);
  assert_int_equal(devices[1].caps, UNROLL_CAP_DETERMINISTIC);
  assert_int_equal(devices[1].dtypes, 1u << UNROLL_F32);
  plugin_devices_free(reg, devices);
  assert_true(stub_ran()); /* but not here: */
  assert_null(dlopen(path, RTLD_NOLOAD | RTLD_NOW));
  assert_int_equal(stub_candidate(reg, "stub").state, PLUGIN_FOUND);
  setenv("UNROLL_STUB", "no_devices", 1);
  assert_int_equal(plugin_registry_probe(reg, "stub", PLUGIN_PROBE_MS, &devices, &n, &err), UNROLL_OK);
  assert_int_equal(n, 0);
  assert_null(devices);
  plugin_devices_free(reg, NULL);
  setenv("UNROLL_STUB", "long_names", 1); /* 300 KB, far more than a pipe holds */
  assert_int_equal(plugin_registry_probe(reg, "stub", PLUGIN_PROBE_MS, &devices, &n, &err), UNROLL_OK);
  assert_int_equal(n, 300);
  assert_int_equal(strlen(devices[299].name), 1024);
  plugin_devices_free(reg, devices);
  assert_int_equal(plugin_registry_probe(reg, "cuda", PLUGIN_PROBE_MS, &devices, &n, &err), UNROLL_E_NOT_FOUND);
  plugin_registry_destroy(reg);
}

static int64_t now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void expect_probe_fails(const char *way, uint32_t timeout_ms, unroll_status code, const char *reason,
                               bool final) {
  char *path = stub_put("stub", "unroll-stub.so");
  struct plugin_registry *reg = stub_registry(path);
  struct plugin_device *devices;
  uint32_t n;
  unroll_error err = UNROLL_ERROR_INIT;
  setenv("UNROLL_STUB", way, 1);
  const int64_t start = now_ms();
  assert_int_equal(plugin_registry_probe(reg, "stub", timeout_ms, &devices, &n, &err), code);
  assert_true(now_ms() - start < 3000);
  assert_contains(err.message, reason);
  assert_null(devices);
  assert_int_equal(n, 0);
  assert_int_equal(stub_candidate(reg, "stub").state, PLUGIN_REJECTED);
  assert_contains(stub_reason(reg, path), reason);
  assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* no zombie */
  unsetenv("UNROLL_STUB");
  struct plugin_backend b;
  const unroll_status status = plugin_registry_open(reg, "stub", NULL, 0, &b, &err);
  assert_int_equal(status, final ? code : UNROLL_OK);
  if (final) {
    assert_contains(err.message, reason);
    assert_null(dlopen(path, RTLD_NOLOAD | RTLD_NOW));
  }
  plugin_registry_destroy(reg);
}

static void probe_survives_drivers(void **state) {
  (void)state;
  expect_probe_fails("open_aborts", 5000, UNROLL_E_PLUGIN,
                     "its driver aborted: signal 6 (Aborted): stub: no topology in /sys", true);
  expect_probe_fails("open_exits", 5000, UNROLL_E_PLUGIN, "its driver ended the process with exit code 3", true);
  expect_probe_fails("open_hangs", 200, UNROLL_E_PLUGIN, "its driver did not answer within 200 ms", false);
  expect_probe_fails("count_hangs", 200, UNROLL_E_PLUGIN, "its driver did not answer within 200 ms", false);
  expect_probe_fails("leaves_child", 5000, UNROLL_E_PLUGIN, "its driver ended the process with exit code 5", true);
  expect_probe_fails("open_fails", 5000, UNROLL_E_DEVICE, "its open failed: no driver is installed", false);
  expect_probe_fails("score_zero", 5000, UNROLL_E_UNSUPPORTED, "of no use here", false);
  expect_probe_fails("count_fails", 5000, UNROLL_E_DEVICE, "no platform answers", false);
  expect_probe_fails("many_devices", 5000, UNROLL_E_PLUGIN, "it claims 4000000000 devices", false);
  expect_probe_fails("no_id", 5000, UNROLL_E_PLUGIN, "its device 0 of 2 has no id", false);
}

/* A program that lets the kernel reap its children. */
static void probe_where_children_are_ignored(void **state) {
  (void)state;
  void (*before)(int) = signal(SIGCHLD, SIG_IGN);
  struct plugin_registry *reg = stub_registry(stub_put("stub", "unroll-stub.so"));
  struct plugin_device *devices;
  uint32_t n;
  unroll_error err = UNROLL_ERROR_INIT;
  assert_int_equal(plugin_registry_probe(reg, "stub", PLUGIN_PROBE_MS, &devices, &n, &err), UNROLL_OK);
  assert_int_equal(n, 2);
  plugin_devices_free(reg, devices);
  setenv("UNROLL_STUB", "open_aborts", 1);
  assert_int_equal(plugin_registry_probe(reg, "stub", PLUGIN_PROBE_MS, &devices, &n, &err), UNROLL_E_PLUGIN);
  assert_contains(err.message, "its driver ended the process: stub: no topology in /sys");
  plugin_registry_destroy(reg);
  signal(SIGCHLD, before);
}

/* ---- threads and memory ---- */
/*
 * The C library's malloc is locked across fork, that of AddressSanitizer (as of gcc 12, clang 14) is not: a child that was
 * forked while another thread allocated may wait for ever.
 */
#if defined(__SANITIZE_ADDRESS__)
#define FORK_SAFE_MALLOC 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define FORK_SAFE_MALLOC 0
#endif
#endif
#ifndef FORK_SAFE_MALLOC
#define FORK_SAFE_MALLOC 1
#endif

static void *use(void *arg) {
  struct plugin_registry *reg = arg;
  for (int i = 0; i < 20; i++) {
    struct plugin_backend b;
    struct plugin_candidate c;
    struct plugin_rejected r;
    struct plugin_device *devices;
    uint32_t n;
    if (plugin_registry_open(reg, "stub", NULL, 0, &b, NULL) != UNROLL_OK || !b.backend ||
        plugin_registry_get(reg, stub_built_in(), &c, NULL) != UNROLL_OK || c.state != PLUGIN_OPEN ||
        plugin_registry_rejected_get(reg, 0, &r, NULL) != UNROLL_OK ||
        plugin_registry_close(reg, &b, NULL) != UNROLL_OK) {
      return arg;
    }
    if (FORK_SAFE_MALLOC && i % 5 == 0) {
      if (plugin_registry_probe(reg, "stub", PLUGIN_PROBE_MS, &devices, &n, NULL) != UNROLL_OK || n != 2) {
        return arg;
      }
      plugin_devices_free(reg, devices);
    }
  }
  return NULL;
}

static void threads_share_a_registry(void **state) {
  (void)state;
  stub_put("stub", "folder/unroll-stub.so");
  stub_put("stub_no_note", "folder/unroll-bad.so");
  setenv("UNROLL_PLUGIN_PATH", stub_path("folder"), 1);
  struct plugin_registry *reg = stub_registry(NULL);
  pthread_t threads[4];
  for (int i = 0; i < 4; i++) {
    assert_int_equal(pthread_create(&threads[i], NULL, use, reg), 0);
  }
  for (int i = 0; i < 4; i++) {
    void *failed;
    pthread_join(threads[i], &failed);
    assert_null(failed);
  }
  assert_int_equal(stub_candidate(reg, "stub").state, PLUGIN_FOUND);
  plugin_registry_destroy(reg);
}

struct counting {
  long made, live, fail_at;
};
static void *count_alloc(void *ctx, uint64_t bytes, uint64_t alignment) {
  struct counting *c = ctx;
  void *p = NULL;
  if (++c->made == c->fail_at || posix_memalign(&p, (size_t)alignment, (size_t)bytes) != 0) {
    return NULL;
  }
  c->live++;
  return p;
}
static void count_free(void *ctx, void *p) {
  ((struct counting *)ctx)->live--;
  free(p);
}
static void count_log(void *ctx, int32_t level, const char *message) {
  *(int *)ctx += level <= UNROLL_LOG_INFO && strcmp(message, "stub: open") == 0;
}

/* The n-th allocation fails, for every n: the right status, nothing lost, and the registry works on. */
static void every_allocation_may_fail(void **state) {
  (void)state;
  stub_put("stub", "folder/unroll-stub.so");
  stub_put("stub", "folder/unroll-twice.so");
  stub_put("stub_no_note", "folder/unroll-bad.so");
  setenv("UNROLL_PLUGIN_PATH", stub_path("folder"), 1);
  int opened = 0, sweeps = 0;
  bool whole = false;
  for (long at = 1; !whole; at++, sweeps++) {
    struct counting counting = {.fail_at = at};
    const unroll_allocator allocator = {&counting, count_alloc, count_free};
    const unroll_logger logger = {&opened, count_log, UNROLL_LOG_DEBUG};
    struct plugin_registry *reg = NULL;
    unroll_error err = UNROLL_ERROR_INIT;
    const struct plugin_registry_options options = {.allocator = &allocator, .logger = &logger};
    unroll_status status = plugin_registry_create(&options, &reg, &err);
    const unroll_option option = {"mode", "fast"};
    struct plugin_backend b = {0};
    struct plugin_device *devices = NULL;
    uint32_t n = 0;
    if (status == UNROLL_OK) {
      status = plugin_registry_probe(reg, "stub", PLUGIN_PROBE_MS, &devices, &n, &err);
      plugin_devices_free(reg, devices);
    } else {
      assert_null(reg);
    }
    if (status == UNROLL_OK) {
      status = plugin_registry_open(reg, "stub", &option, 1, &b, &err);
    }
    if (status == UNROLL_OK) {
      status = plugin_registry_probe(reg, "stub", PLUGIN_PROBE_MS, &devices, &n, &err);
      plugin_devices_free(reg, devices);
    }
    whole = counting.made < at;
    assert_int_equal(status, whole ? UNROLL_OK : UNROLL_E_MEMORY);
    assert_true(whole || err.code == UNROLL_E_MEMORY);
    if (reg && !whole) {
      struct plugin_backend again;
      assert_int_equal(plugin_registry_open(reg, "stub", NULL, 0, &again, &err), UNROLL_OK);
      assert_int_equal(plugin_registry_close(reg, &again, &err), UNROLL_OK);
    }
    if (reg) {
      assert_int_equal(plugin_registry_close(reg, &b, &err), UNROLL_OK);
    }
    plugin_registry_destroy(reg);
    assert_int_equal(counting.live, 0);
  }
  assert_true(sweeps > 10);
  assert_true(opened > 0);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, stub_setup, stub_teardown)
  const struct CMUnitTest tests[] = {
      TEST(opens_shares_and_closes),  TEST(unloads_where_allowed),    TEST(says_what_there_is),
      TEST(rejects_at_open),          TEST(rejects_bad_behaviour),    TEST(file_replaced_after_discovery),
      TEST(probes_devices),           TEST(probe_survives_drivers),   TEST(probe_where_children_are_ignored),
      TEST(threads_share_a_registry), TEST(every_allocation_may_fail)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
