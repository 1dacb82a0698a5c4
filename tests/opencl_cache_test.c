/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The OpenCL backend's files of built programs: cut anywhere, damaged, of something else, replaced by what is no file,
 * on a full disk, by writers that are killed and by several at once. The next run is right each time, and the run after
 * it finds good files. Skipped where the plugin or a device of it is not there.
 *
 *     opencl_cache_test run FOLDER LIMIT    one run, in a process that may write files of so many bytes
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
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

#include "base/base_private.h"
#include "op_judge.h"

#define CASE "cast f32 to i32" /* one small program */
enum { FILES_MAX = 16, WRONG = 3 };

typedef struct file {
  char path[320];
  unsigned char *data;
  size_t size;
} file;

static struct {
  const unroll_plugin *plugin;
  unroll_backend *backend;
  const unroll_backend_ops *ops;
  unroll_error error;
  int dropped, unwritten; /* what the backend logged */
  char top[64], folder[128];
  file files[FILES_MAX]; /* of a run from nothing */
  int n_files;
  rlim_t limit; /* of the file that is written next; 0: none */
} test;

/* The backend has memory for a binary just while it writes one, and the driver, which is not limited, writes none then. */
static void *host_alloc(void *ctx, uint64_t bytes, uint64_t alignment) {
  (void)ctx, (void)alignment;
  if (test.limit && bytes > 8192)
    setrlimit(RLIMIT_FSIZE, &(struct rlimit){test.limit, RLIM_INFINITY});
  return malloc(bytes);
}

static void host_free(void *ctx, void *p) {
  (void)ctx;
  if (test.limit)
    setrlimit(RLIMIT_FSIZE, &(struct rlimit){RLIM_INFINITY, RLIM_INFINITY});
  free(p);
}

static void count_messages(void *ctx, int32_t level, const char *message) {
  (void)ctx, (void)level;
  test.dropped += strstr(message, "is not usable: dropped") != NULL;
  test.unwritten += strstr(message, "not written") != NULL;
}

static unroll_host host = {
    .struct_size = sizeof(unroll_host), .log = count_messages, .alloc = host_alloc, .free = host_free};

/* false: an error; no backend: none is there, or no device. */
static bool open_backend(void) {
  const char *folder = getenv("UNROLL_PLUGIN_PATH");
  char path[1024];
  snprintf(path, sizeof path, "%s/unroll-opencl.so", folder ? folder : ".");
  void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!handle)
    return true;
  test.error.struct_size = sizeof test.error;
  test.plugin = dlsym(handle, UNROLL_PLUGIN_SYMBOL);
  uint32_t n = 0;
  if (!test.plugin || test.plugin->open(&host, NULL, 0, &test.backend, &test.ops, &test.error) ||
      test.ops->device_count(test.backend, &n, &test.error))
    return false;
  if (n == 0) {
    test.plugin->close(test.backend, &test.error);
    test.backend = NULL;
  }
  return true;
}

/* A device with that cache computes what it has to; test.error says why not. */
static bool run_is_right(const char *folder, const char *filter) {
  const unroll_option options[] = {{"cache", folder}};
  unroll_device_info info = {.struct_size = sizeof info};
  unroll_backend_device *device = NULL;
  op_judged r = {0};
  test.dropped = test.unwritten = 0;
  if (test.ops->device_open(test.backend, 0, options, 1, &device, &test.error))
    return false;
  bool right = !test.ops->device_info(test.backend, 0, &info, &test.error) &&
               !op_judge(&r, test.ops, device, &info, filter, &test.error);
  test.ops->device_close(device);
  if (right && r.failed)
    snprintf(test.error.message, sizeof test.error.message, "%u failed: %.200s", r.failed, r.first_failure);
  return right && r.failed == 0 && r.passed > 0;
}

static void run_filter(const char *folder, const char *filter) {
  if (!run_is_right(folder, filter))
    fail_msg("%s", test.error.message);
}

static void run(void) { run_filter(test.folder, CASE); }

/* A run that finds nothing wrong and has nothing to write. */
static void run_from_files(void) {
  run();
  assert_int_equal(test.dropped, 0);
}

/* ---- files ---- */
static void put(const char *path, const void *data, size_t size) {
  FILE *f = fopen(path, "wb");
  if (!f || fwrite(data, 1, size, f) != size || fclose(f))
    fail_msg("%s: %s", path, strerror(errno));
}

static void put_file(int i) { put(test.files[i].path, test.files[i].data, test.files[i].size); }

static int list(const char *folder, bool whole, file *out, int room) {
  int n = 0;
  DIR *d = opendir(folder);
  for (struct dirent *e; d && (e = readdir(d));) {
    const char *end = strstr(e->d_name, ".bin");
    if (!end || (end[4] == 0) != whole)
      continue;
    if (n < room)
      snprintf(out[n].path, sizeof out[n].path, "%s/%.90s", folder, e->d_name);
    n++;
  }
  if (d)
    closedir(d);
  return n;
}

static void read_file(file *f) {
  struct stat s;
  FILE *in = fopen(f->path, "rb");
  assert_non_null(in);
  assert_int_equal(fstat(fileno(in), &s), 0);
  f->size = (size_t)s.st_size;
  f->data = malloc(f->size);
  assert_non_null(f->data);
  assert_int_equal(fread(f->data, 1, f->size, in), f->size);
  fclose(in);
}

static void remove_all(const char *folder) {
  char command[256];
  snprintf(command, sizeof command, "rm -rf '%s'", folder);
  assert_int_equal(system(command), 0);
}

static int set_up(void **state) {
  (void)state;
  if (!open_backend())
    return -1;
  snprintf(test.top, sizeof test.top, "/tmp/unroll-clc-XXXXXX");
  if (!mkdtemp(test.top))
    return -1;
  snprintf(test.folder, sizeof test.folder, "%s/a", test.top);
  if (!test.backend)
    return 0;
  if (!run_is_right(test.folder, CASE) || !run_is_right(test.folder, CASE))
    return -1;
  test.n_files = list(test.folder, true, test.files, FILES_MAX);
  for (int i = 0; i < test.n_files && i < FILES_MAX; i++)
    read_file(&test.files[i]);
  return test.n_files > 0 && test.n_files <= FILES_MAX && test.dropped == 0 ? 0 : -1;
}

static int tear_down(void **state) {
  (void)state;
  if (test.backend)
    test.plugin->close(test.backend, &test.error);
  for (int i = 0; i < test.n_files; i++)
    free(test.files[i].data);
  remove_all(test.top);
  return 0;
}

/* Every file as it was after the first run. */
static int begin(void **state) {
  (void)state;
  if (!test.backend)
    return 0;
  remove_all(test.folder);
  if (mkdir(test.folder, 0700))
    return -1;
  for (int i = 0; i < test.n_files; i++)
    put_file(i);
  return 0;
}

static void need_device(void) {
  if (!test.backend)
    skip();
}

/* ---- what is wrong with a file ---- */
static void files_cut_at_every_hundredth_byte(void **state) {
  (void)state;
  need_device();
  const char *sanitize = getenv("UNROLL_SANITIZE"); /* slow, and the files are the same */
  for (size_t at = 0;; at += sanitize && *sanitize ? 1500 : 100) {
    int cut = 0;
    for (int i = 0; i < test.n_files; i++) {
      put_file(i);
      if (at < test.files[i].size) {
        assert_int_equal(truncate(test.files[i].path, (off_t)at), 0);
        cut++;
      }
    }
    if (!cut)
      break;
    run();
    assert_int_equal(test.dropped, cut);
    assert_int_equal(test.unwritten, 0);
  }
  run_from_files();
}

static void files_with_a_wrong_bit(void **state) {
  (void)state;
  need_device();
  const size_t size = test.files[0].size;
  for (size_t at = 0; at < size; at += at < 40 ? 3 : size / 40 + 1) {
    put_file(0);
    test.files[0].data[at] ^= (unsigned char)(1 << at % 8);
    put_file(0);
    test.files[0].data[at] ^= (unsigned char)(1 << at % 8);
    run();
    assert_int_equal(test.dropped, 1);
  }
  run_from_files();
}

static void longer_files(void **state) {
  (void)state;
  need_device();
  assert_int_equal(truncate(test.files[0].path, (off_t)test.files[0].size + 1), 0);
  run();
  assert_int_equal(test.dropped, 1);
  /* Memory for as much as that is not asked for. */
  assert_int_equal(truncate(test.files[0].path, (off_t)1 << 42), 0);
  run();
  assert_int_equal(test.dropped, 1);
  run_from_files();
}

/* Where the key ends and the size of the binary begins. */
static size_t end_of_key(const file *f) {
  uint64_t n;
  memcpy(&n, f->data + 8, sizeof n);
  return 16 + (size_t)n;
}

/* What another driver, device or set of options left is known by the key, whatever its name. */
static void files_of_something_else(void **state) {
  (void)state;
  need_device();
  char folder[160];
  file other[FILES_MAX];
  snprintf(folder, sizeof folder, "%s/other", test.top);
  run_filter(folder, "gru_reset 7x17");
  assert_in_range(list(folder, true, other, FILES_MAX), 1, FILES_MAX);
  assert_int_equal(rename(other[0].path, test.files[0].path), 0);
  run();
  assert_int_equal(test.dropped, 1);
  run_from_files();
  /* Every line of the key counts: source and vendor, options, names and versions of platform, device and driver. */
  file *f = &test.files[0];
  const size_t end = end_of_key(f);
  int lines = 0;
  for (size_t at = 16; at < end; at++)
    if (f->data[at] == '\n') {
      f->data[at - 1] ^= 1;
      put_file(0);
      f->data[at - 1] ^= 1;
      run();
      assert_int_equal(test.dropped, 1);
      lines++;
    }
  assert_true(lines >= 7);
}

static void what_is_no_file(void **state) {
  (void)state;
  need_device();
  const char *path = test.files[0].path;
  char inner[400];
  snprintf(inner, sizeof inner, "%s/inner", path);
  for (int way = 0; way < 5; way++) {
    assert_int_equal(remove(path), 0);
    if (way == 0)
      assert_int_equal(mkdir(path, 0700), 0);
    if (way == 1)
      assert_int_equal(mkfifo(path, 0600), 0);
    if (way == 2)
      assert_int_equal(symlink("/nowhere/at/all", path), 0);
    if (way == 3)
      assert_int_equal(symlink(path, path), 0);
    if (way == 4) {
      put_file(0);
      assert_int_equal(chmod(path, 0), 0); /* which does not keep root from reading */
    }
    run();
    assert_int_equal(test.unwritten, 0);
    run_from_files();
  }
  /* A folder with something in it stays, and costs a build each time. */
  assert_int_equal(remove(path), 0);
  assert_int_equal(mkdir(path, 0700), 0);
  put(inner, "x", 1);
  for (int i = 0; i < 2; i++) {
    run();
    assert_int_equal(test.unwritten, 1);
  }
  assert_int_equal(access(inner, F_OK), 0);
  assert_int_equal(list(test.folder, false, NULL, 0), 0);
}

static void folders_that_take_no_file(void **state) {
  (void)state;
  need_device();
  static const char *const folders[] = {"/proc/unroll/cache", "/dev/null/cache"};
  for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
    run_filter(folders[i], CASE);
    assert_true(test.unwritten > 0);
  }
  assert_int_equal(chmod(test.folder, 0500), 0);
  run_from_files();
  assert_int_equal(remove(test.files[0].path) == 0 || errno == EACCES, 1);
  run();
  assert_int_equal(chmod(test.folder, 0700), 0);
}

/* ---- other processes ---- */
static pid_t start(const char *limit) {
  const pid_t pid = fork();
  if (pid == 0) {
    execl("/proc/self/exe", "opencl_cache_test", "run", test.folder, limit, (char *)NULL);
    _exit(127);
  }
  assert_true(pid > 0);
  return pid;
}

static int finish(pid_t pid) {
  int status = 0;
  assert_int_equal(waitpid(pid, &status, 0), pid);
  return status;
}

/*
 * Whole by key, size and sum, but nothing that the driver takes: it says so, or dies of it, as some do of half a binary.
 * The next run knows that.
 */
static void binaries_that_the_driver_refuses(void **state) {
  (void)state;
  need_device();
  const file *f = &test.files[0];
  const size_t end = end_of_key(f) + 16, n = f->size - end;
  unsigned char *data = malloc(f->size);
  assert_non_null(data);
  for (int way = 0; way < 3; way++) {
    const size_t size = way == 1 ? n / 2 : n;
    memcpy(data, f->data, f->size);
    if (way == 0)
      memset(data + end, 0x5A, n);
    if (way == 2)
      memset(data + end + n / 4, 0, n / 2);
    const uint64_t head[2] = {size, hash64(data + end, size, HASH64_SEED)};
    memcpy(data + end - 16, head, sizeof head);
    put(f->path, data, end + size);
    const int status = finish(start("0"));
    const bool died = status != 0; /* by a signal, or as a sanitizer ends a process that got one */
    assert_true(WIFSIGNALED(status) || WEXITSTATUS(status) != WRONG);
    run();
    assert_int_equal(test.dropped, died ? 1 : 0);
    run_from_files();
    assert_int_equal(list(test.folder, false, NULL, 0), 0);
  }
  free(data);
}

/* In the middle of writing: the kernel ends a process that writes past its limit. */
static void writers_killed_half_way(void **state) {
  (void)state;
  need_device();
  file left[FILES_MAX];
  size_t smallest = SIZE_MAX;
  for (int i = 0; i < test.n_files; i++)
    smallest = test.files[i].size < smallest ? test.files[i].size : smallest;
  for (int part = 0; part < 4; part++) {
    char limit[32];
    snprintf(limit, sizeof limit, "%zu", part ? smallest * (size_t)part / 4 : 1);
    remove_all(test.folder);
    const int status = finish(start(limit));
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGXFSZ);
    assert_int_equal(list(test.folder, true, NULL, 0), 0);
    assert_int_equal(list(test.folder, false, left, FILES_MAX), 1);
    run();
    run_from_files();
    /* Another's that is still being written stays; an hour later it is one that was left behind. */
    assert_int_equal(list(test.folder, false, NULL, 0), 1);
    const struct timespec before[2] = {{time(NULL) - 7200, 0}, {time(NULL) - 7200, 0}};
    assert_int_equal(utimensat(AT_FDCWD, left[0].path, before, 0), 0);
    assert_int_equal(truncate(test.files[0].path, 5), 0);
    run();
    assert_int_equal(list(test.folder, false, NULL, 0), 0);
  }
}

static void writers_on_a_full_disk(void **state) {
  (void)state;
  need_device();
  remove_all(test.folder);
  assert_int_equal(finish(start("-1000")), 0);
  assert_int_equal(list(test.folder, true, NULL, 0), 0);
  assert_int_equal(list(test.folder, false, NULL, 0), 0);
  run();
  run_from_files();
}

static void processes_killed_at_any_time(void **state) {
  (void)state;
  need_device();
  struct timespec a, b;
  clock_gettime(CLOCK_MONOTONIC, &a);
  remove_all(test.folder);
  assert_int_equal(finish(start("0")), 0);
  clock_gettime(CLOCK_MONOTONIC, &b);
  const long us = (b.tv_sec - a.tv_sec) * 1000000 + (b.tv_nsec - a.tv_nsec) / 1000;
  for (int i = 1; i <= 16; i++) {
    remove_all(test.folder);
    const pid_t pid = start("0");
    usleep((useconds_t)(us * i / 16));
    kill(pid, SIGKILL);
    (void)finish(pid);
    run();
    assert_int_equal(test.dropped, 0); /* a file is whole or not there */
    run_from_files();
  }
}

static void processes_that_race(void **state) {
  (void)state;
  need_device();
  for (int round = 0; round < 3; round++) {
    pid_t pids[4];
    if (round < 2)
      remove_all(test.folder); /* the last round finds files that all have to drop */
    for (int i = 0; round == 2 && i < test.n_files; i++)
      assert_int_equal(truncate(test.files[i].path, 1000), 0);
    for (int i = 0; i < 4; i++)
      pids[i] = start("0");
    for (int i = 0; i < 4; i++)
      assert_int_equal(finish(pids[i]), 0);
    assert_int_equal(list(test.folder, false, NULL, 0), 0);
    assert_int_equal(list(test.folder, true, NULL, 0), test.n_files);
    run_from_files();
  }
}

static void the_folder_has_a_bound(void **state) {
  (void)state;
  need_device();
  char path[256];
  uint64_t bytes = 0;
  struct stat s;
  for (int i = 0; i < 300; i++) { /* a mebibyte each, the first is the oldest */
    snprintf(path, sizeof path, "%s/cl-%032d.bin", test.folder, i);
    put(path, "", 0);
    assert_int_equal(truncate(path, 1 << 20), 0);
    const struct timespec before[2] = {{0, UTIME_OMIT}, {time(NULL) - 86400 + i * 60, 0}};
    assert_int_equal(utimensat(AT_FDCWD, path, before, 0), 0);
  }
  snprintf(path, sizeof path, "%s/notes.bin", test.folder);
  put(path, "mine", 4);
  run();
  assert_int_equal(list(test.folder, true, NULL, 0), test.n_files + 301); /* nothing was written, so nothing goes */
  assert_int_equal(truncate(test.files[0].path, 5), 0);
  run();
  assert_int_equal(access(path, F_OK), 0);
  bool kept = false;
  for (int i = 0; i < 300; i++) {
    snprintf(path, sizeof path, "%s/cl-%032d.bin", test.folder, i);
    const bool there = stat(path, &s) == 0;
    assert_true(there || !kept); /* the older go first */
    kept = there;
    bytes += there ? (uint64_t)s.st_size : 0;
  }
  assert_in_range(bytes, (uint64_t)64 << 20, (uint64_t)192 << 20);
  run_from_files();
}

/* ---- */
static _Noreturn void child(const char *folder, long limit) {
  if (!open_backend() || !test.backend)
    _exit(WRONG);
  setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
  signal(SIGXFSZ, limit < 0 ? SIG_IGN : SIG_DFL); /* below 0: writing fails instead, as on a full disk */
  test.limit = (rlim_t)labs(limit);
  const bool right = run_is_right(folder, CASE);
  if (!right)
    fprintf(stderr, "%s\n", test.error.message);
  _exit(right ? 0 : WRONG); /* what the driver keeps until the end is no leak of this test */
}

#define TEST(name) cmocka_unit_test_setup(name, begin)

int main(int argc, char **argv) {
  if (argc == 4 && strcmp(argv[1], "run") == 0)
    child(argv[2], atol(argv[3]));
  const struct CMUnitTest tests[] = {
      TEST(files_cut_at_every_hundredth_byte), TEST(files_with_a_wrong_bit),  TEST(longer_files),
      TEST(files_of_something_else),           TEST(what_is_no_file),         TEST(folders_that_take_no_file),
      TEST(binaries_that_the_driver_refuses),  TEST(writers_killed_half_way), TEST(writers_on_a_full_disk),
      TEST(processes_killed_at_any_time),      TEST(processes_that_race),     TEST(the_folder_has_a_bound),
  };
  return cmocka_run_group_tests_name("opencl cache", tests, set_up, tear_down);
}
