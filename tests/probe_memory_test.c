/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a child process found out about a driver spares the next process a child, and never more than once where the
 * driver then takes the process down. Each stub that is loaded leaves a line in a file: a child's, and this process's.
 */
#include "base/base_private.h"
#include "stub_files.h"
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char *plugin, *folder, memory[512];

static int set_up(void **state) {
  if (stub_setup(state))
    return -1;
  plugin = stub_put("stub", "unroll-stub.so");
  folder = stub_path("cache/unroll");
  unsetenv("STUB");
  return setenv("UNROLL_CACHE_DIR", folder, 1);
}

static int tear_down(void **state) {
  unsetenv("UNROLL_CACHE_DIR");
  unsetenv("STUB");
  return stub_teardown(state);
}

/* How often a stub was loaded since the last call. */
static int loads(void) {
  int n = 0;
  FILE *f = fopen(stubs.trace, "r");
  for (int c; f && (c = getc(f)) != EOF;)
    n += c == '\n';
  if (f)
    fclose(f);
  unlink(stubs.trace);
  return n;
}

/* The file that remembers; NULL: none. */
static const char *find_memory(void) {
  DIR *d = opendir(folder);
  memory[0] = 0;
  for (struct dirent *e; d && (e = readdir(d));)
    if (e->d_type == DT_REG && strncmp(e->d_name, "probe-stub-", 11) == 0)
      snprintf(memory, sizeof memory, "%s/%.80s", folder, e->d_name);
  if (d)
    closedir(d);
  return memory[0] ? memory : NULL;
}

/* As a process does that opens a device: the number of loads, 2 with a child. */
static int open_stub(void) {
  struct plugin_registry *reg = stub_registry(plugin);
  struct plugin_backend backend;
  unroll_error err = UNROLL_ERROR_INIT;
  loads();
  if (plugin_registry_ensure(reg, "stub", PLUGIN_PROBE_MS, &err) ||
      plugin_registry_open(reg, "stub", NULL, 0, &backend, &err))
    fail_msg("%s", err.message);
  assert_null(find_memory()); /* while it can still die of it */
  plugin_registry_settle(reg, "stub");
  assert_int_equal(plugin_registry_close(reg, &backend, &err), UNROLL_OK);
  plugin_registry_destroy(reg);
  return loads();
}

static void the_second_start_needs_no_child(void **state) {
  (void)state;
  assert_int_equal(open_stub(), 2);
  assert_non_null(find_memory());
  assert_int_equal(open_stub(), 1);
  assert_int_equal(open_stub(), 1);
  struct stat s;
  assert_non_null(find_memory());
  assert_int_equal(stat(memory, &s), 0);
  assert_int_equal(s.st_mode & 077, 0);
}

static void the_list_is_remembered_too(void **state) {
  (void)state;
  for (int i = 0; i < 2; i++) {
    struct plugin_registry *reg = stub_registry(plugin);
    struct plugin_device *devices;
    uint32_t n;
    unroll_error err = UNROLL_ERROR_INIT;
    loads();
    assert_int_equal(plugin_registry_recall(reg, "stub", PLUGIN_PROBE_MS, &devices, &n, &err), UNROLL_OK);
    assert_int_equal(loads(), i ? 0 : 1);
    assert_int_equal(n, 2);
    assert_string_equal(devices[0].id, "stub:0");
    assert_string_equal(devices[1].name, "second device");
    assert_string_equal(devices[1].driver, "1.2.3");
    const struct plugin_candidate c = stub_candidate(reg, "stub");
    assert_int_equal(c.score, 17);
    assert_string_equal(c.vendor, "stubs");
    plugin_devices_free(reg, devices);
    assert_non_null(find_memory());
    /* Who asks for the truth gets it. */
    if (i) {
      assert_int_equal(plugin_registry_probe(reg, "stub", PLUGIN_PROBE_MS, &devices, &n, &err), UNROLL_OK);
      assert_int_equal(loads(), 1);
      plugin_devices_free(reg, devices);
      assert_null(find_memory());
      /* The child of just now counts for one opening of this process. */
      assert_int_equal(plugin_registry_ensure(reg, "stub", PLUGIN_PROBE_MS, &err), UNROLL_OK);
      assert_int_equal(loads(), 0);
      assert_int_equal(plugin_registry_ensure(reg, "stub", PLUGIN_PROBE_MS, &err), UNROLL_OK);
      assert_int_equal(loads(), 1);
    }
    plugin_registry_destroy(reg);
  }
}

/* A driver that was well and begins to crash takes one process down, and no other. */
static void a_driver_that_begins_to_crash(void **state) {
  (void)state;
  assert_int_equal(open_stub(), 2);
  assert_int_equal(setenv("STUB", "open_aborts", 1), 0);
  unroll_error err = UNROLL_ERROR_INIT;
  struct plugin_backend backend;
  const pid_t pid = fork();
  if (pid == 0) {
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
    signal(SIGABRT, SIG_DFL);
    if (!freopen("/dev/null", "w", stderr) || !freopen("/dev/null", "w", stdout))
      _exit(1);
    struct plugin_registry *reg = stub_registry(plugin);
    if (plugin_registry_ensure(reg, "stub", PLUGIN_PROBE_MS, &err) == UNROLL_OK)
      (void)plugin_registry_open(reg, "stub", NULL, 0, &backend, &err);
    _exit(1);
  }
  int status = 0;
  assert_int_equal(waitpid(pid, &status, 0), pid);
  assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
  for (int i = 0; i < 2; i++) {
    struct plugin_registry *reg = stub_registry(plugin);
    struct plugin_device *devices;
    uint32_t n;
    assert_null(find_memory());
    assert_int_equal(i ? plugin_registry_recall(reg, "stub", PLUGIN_PROBE_MS, &devices, &n, &err)
                       : plugin_registry_ensure(reg, "stub", PLUGIN_PROBE_MS, &err),
                     UNROLL_E_PLUGIN);
    assert_contains(err.message, "its driver aborted: signal 6");
    plugin_registry_destroy(reg);
  }
  unsetenv("STUB");
  assert_int_equal(open_stub(), 2);
  assert_int_equal(open_stub(), 1);
}

static void what_makes_it_look_again(void **state) {
  (void)state;
  assert_int_equal(open_stub(), 2);
  assert_int_equal(setenv("OCL_ICD_VENDORS", "/nowhere", 1), 0);
  assert_int_equal(open_stub(), 2);
  assert_int_equal(open_stub(), 1);
  unsetenv("OCL_ICD_VENDORS");
  assert_int_equal(open_stub(), 2);
  assert_int_equal(setenv("SOMETHING_ELSE", "1", 1), 0);
  assert_int_equal(open_stub(), 1);
  unsetenv("SOMETHING_ELSE");
  const struct timespec other[2] = {{1, 0}, {1, 0}};
  assert_int_equal(utimensat(AT_FDCWD, plugin, other, 0), 0);
  assert_int_equal(open_stub(), 2);
  assert_int_equal(open_stub(), 1);
}

static unsigned char *read_memory(size_t *n) {
  unsigned char *bytes = find_memory() ? stub_read(memory, n) : NULL;
  assert_non_null(bytes);
  return bytes;
}

/* Files hold when the child answered: a day later it is asked again, and a time to come is no time. */
static void it_is_forgotten_after_a_day(void **state) {
  (void)state;
  static const int64_t moved[] = {-23 * 3600, -25 * 3600, 3600};
  assert_int_equal(open_stub(), 2);
  for (size_t i = 0; i < sizeof moved / sizeof *moved; i++) {
    size_t n;
    uint64_t n_key;
    int64_t when;
    unsigned char *bytes = read_memory(&n);
    memcpy(&n_key, bytes, sizeof n_key);
    memcpy(&when, bytes + 8 + n_key, sizeof when);
    assert_true(llabs(when - time(NULL)) < 100);
    when += moved[i];
    memcpy(bytes + 8 + n_key, &when, sizeof when);
    const uint64_t sum = hash64(bytes, n - 8, HASH64_SEED);
    memcpy(bytes + n - 8, &sum, sizeof sum);
    stub_write(memory, bytes, n);
    free(bytes);
    assert_int_equal(open_stub(), i == 0 ? 1 : 2);
    /* Being used is no reason to be kept for longer. */
    if (i == 0) {
      bytes = read_memory(&n);
      int64_t again;
      memcpy(&again, bytes + 8 + n_key, sizeof again);
      assert_int_equal(again, when);
      free(bytes);
      assert_int_equal(unlink(memory), 0);
      assert_int_equal(open_stub(), 2);
    }
  }
}

static void damaged_files_are_as_good_as_none(void **state) {
  (void)state;
  assert_int_equal(open_stub(), 2);
  size_t n;
  unsigned char *bytes = read_memory(&n);
  char path[sizeof memory];
  memcpy(path, memory, sizeof path);
  for (size_t at = 0; at < n; at += 13) {
    stub_write(path, bytes, at);
    assert_int_equal(open_stub(), 2);
    bytes[at] ^= 4;
    stub_write(path, bytes, n);
    bytes[at] ^= 4;
    assert_int_equal(open_stub(), 2);
  }
  assert_int_equal(truncate(path, (off_t)1 << 40), 0);
  assert_int_equal(open_stub(), 2);
  stub_write(path, bytes, n);
  assert_int_equal(open_stub(), 1);
  free(bytes);
}

/* What can't be taken away could not be missing after a crash: it is not used. */
static void where_nothing_can_be_kept(void **state) {
  (void)state;
  assert_int_equal(open_stub(), 2);
  assert_non_null(find_memory());
  assert_int_equal(unlink(memory), 0);
  assert_int_equal(mkdir(memory, 0700), 0);
  assert_int_equal(open_stub(), 2);
  assert_int_equal(open_stub(), 2);
}

static void other_folders(void **state) {
  (void)state;
  static const char *const folders[] = {"off", "/proc/unroll", "/dev/null/cache", "relative"};
  for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
    assert_int_equal(setenv("UNROLL_CACHE_DIR", folders[i], 1), 0);
    assert_int_equal(open_stub(), 2);
    assert_int_equal(open_stub(), 2);
  }
  assert_int_equal(access("relative", F_OK), -1);
  unsetenv("UNROLL_CACHE_DIR");
  const char *before = getenv("XDG_CACHE_HOME");
  char *copy = before ? strdup(before) : NULL;
  assert_int_equal(setenv("XDG_CACHE_HOME", stub_path("cache"), 1), 0);
  assert_int_equal(open_stub(), 2);
  assert_int_equal(open_stub(), 1);
  assert_non_null(find_memory());
  if (copy)
    setenv("XDG_CACHE_HOME", copy, 1);
  else
    unsetenv("XDG_CACHE_HOME");
  free(copy);
}

/* Several processes that start at once use the file or a child, whatever they find. */
static void processes_at_once(void **state) {
  (void)state;
  pid_t pids[8];
  for (int i = 0; i < 8; i++) {
    pids[i] = fork();
    assert_true(pids[i] >= 0);
    if (pids[i] > 0)
      continue;
    for (int k = 0; k < 20; k++) {
      struct plugin_registry *reg = stub_registry(plugin);
      struct plugin_backend backend;
      unroll_error err = UNROLL_ERROR_INIT;
      if (plugin_registry_ensure(reg, "stub", PLUGIN_PROBE_MS, &err) ||
          plugin_registry_open(reg, "stub", NULL, 0, &backend, &err))
        _exit(1);
      plugin_registry_settle(reg, "stub");
      plugin_registry_close(reg, &backend, NULL);
      plugin_registry_destroy(reg);
    }
    _exit(0);
  }
  for (int i = 0; i < 8; i++) {
    int status = 0;
    assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
    assert_int_equal(status, 0);
  }
  assert_in_range(open_stub(), 1, 2);
  assert_int_equal(open_stub(), 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(the_second_start_needs_no_child),
      TEST(the_list_is_remembered_too),
      TEST(a_driver_that_begins_to_crash),
      TEST(what_makes_it_look_again),
      TEST(it_is_forgotten_after_a_day),
      TEST(damaged_files_are_as_good_as_none),
      TEST(where_nothing_can_be_kept),
      TEST(other_folders),
      TEST(processes_at_once),
  };
  return cmocka_run_group_tests_name("probe memory", tests, NULL, NULL);
}
