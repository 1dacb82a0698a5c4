/* SPDX-License-Identifier: Apache-2.0 */
/* Writing safetensors: whatever fails, and wherever the process dies, the old file or the new one is there, whole. */
#include "support/io_support.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unroll/io.h>

/* ---- the system calls of a write, each of which can be made to fail or to be the process's last ---- */

static struct {
  int calls, fail_at, error; /* the fail_at-th call fails with that errno; 0: none */
  int dies, meek;            /* the process ends there instead; writes are short and interrupted */
} fault;

static int faulty(void) {
  if (++fault.calls != fault.fail_at)
    return 0;
  if (fault.dies)
    _exit(0);
  errno = fault.error;
  return 1;
}

static size_t meek(size_t n) { return fault.meek && n > 5 ? 5 : n; }

ssize_t write(int fd, const void *data, size_t n) {
  if (fd > 2 && faulty())
    return -1;
  if (fd > 2 && fault.meek && fault.calls % 3 == 0) {
    errno = EINTR;
    return -1;
  }
  return syscall(SYS_write, fd, data, fd > 2 ? meek(n) : n);
}

ssize_t pwrite(int fd, const void *data, size_t n, off_t offset) {
  return faulty() ? -1 : syscall(SYS_pwrite64, fd, data, meek(n), offset);
}

int fsync(int fd) { return faulty() ? -1 : (int)syscall(SYS_fsync, fd); }

int openat(int at, const char *path, int flags, ...) {
  va_list list;
  va_start(list, flags);
  const unsigned mode = flags & O_CREAT ? va_arg(list, unsigned) : 0;
  va_end(list);
  return faulty() ? -1 : (int)syscall(SYS_openat, at, path, flags, mode);
}

int fchmod(int fd, mode_t mode) { return faulty() ? -1 : (int)syscall(SYS_fchmod, fd, mode); }

int renameat(int from, const char *old, int to, const char *new) {
  return faulty() ? -1 : (int)syscall(SYS_renameat2, from, old, to, new, 0);
}

/* openat, fchmod, write of the length, of the header, of the data, pwrite, fsync, renameat; the ninth is the folder's
 * fsync */
#define CALLS_BEFORE_NEW 8

/* ---- a file with one tensor, whose values tell the versions apart ---- */

static const int64_t shape[] = {64};

static unroll_status save(const char *path, int32_t version, const unroll_allocator *a, unroll_error *err) {
  int32_t values[64];
  for (int32_t i = 0; i < 64; i++)
    values[i] = version * 1000 + i;
  unroll_safetensors_writer *w = NULL;
  unroll_status status = unroll_safetensors_writer_create(path, a, &w, err);
  if (status == UNROLL_OK)
    status = unroll_safetensors_writer_add(w, "w", UNROLL_I32, 1, shape, values, err);
  if (status == UNROLL_OK)
    status = unroll_safetensors_writer_metadata(w, "key", "value", err);
  if (status == UNROLL_OK)
    status = unroll_safetensors_writer_metadata(w, "key", "another value", err);
  if (status == UNROLL_OK)
    status = unroll_safetensors_writer_commit(w, err);
  unroll_safetensors_writer_destroy(w);
  return status;
}

/* The version of a file that must be whole. */
static int32_t version_of(const char *path) {
  unroll_safetensors *f = NULL;
  unroll_stored_tensor t;
  assert_ok(unroll_safetensors_open(path, NULL, &f, &err));
  assert_ok(unroll_safetensors_verify(f, &err));
  assert_ok(unroll_safetensors_find(f, "w", &t, &err));
  assert_int_equal(t.bytes, 256);
  assert_string_equal(unroll_safetensors_metadata(f, "key"), "another value");
  int32_t values[64];
  memcpy(values, t.data, sizeof values);
  for (int32_t i = 1; i < 64; i++)
    assert_int_equal(values[i], values[0] + i);
  unroll_safetensors_close(f);
  return values[0] / 1000;
}

/* The number that the next descriptor gets: it rises where one is left open. */
static int next_descriptor(void) {
  const int fd = open("/dev/null", O_RDONLY);
  assert_true(fd >= 0);
  close(fd);
  return fd;
}

static void every_call_fails_once(void **state) {
  (void)state;
  const int descriptor = next_descriptor();
  static const int errors[] = {ENOSPC, EACCES, EIO};
  const char *path = in_folder("f");
  for (size_t k = 0; k < sizeof errors / sizeof *errors; k++) {
    int n = 0;
    for (unroll_status status = UNROLL_E_IO; status != UNROLL_OK;) {
      fault.fail_at = 0;
      assert_ok(save(path, 1, NULL, &err));
      memset(&fault, 0, sizeof fault);
      fault.fail_at = ++n;
      fault.error = errors[k];
      struct counting c = {0};
      const unroll_allocator a = counting_allocator(&c);
      unroll_error err = UNROLL_ERROR_INIT;
      status = save(path, 2, &a, &err);
      const int renamed = fault.calls > CALLS_BEFORE_NEW;
      memset(&fault, 0, sizeof fault);
      assert_int_equal(c.live, 0);
      assert_int_equal(next_descriptor(), descriptor);
      assert_int_equal(folder_entries(0), 1); /* no temporary file */
      assert_int_equal(version_of(path), renamed ? 2 : 1);
      if (status != UNROLL_OK) {
        assert_int_equal(status, UNROLL_E_IO);
        assert_int_equal(err.native, errors[k]);
        assert_non_null(strstr(err.message, path));
        assert_non_null(strstr(err.message, strerror(errors[k])));
      }
    }
    assert_int_equal(n, CALLS_BEFORE_NEW + 2);
  }
}

static void a_file_system_that_can_not_flush_folders(void **state) {
  (void)state;
  memset(&fault, 0, sizeof fault);
  fault.fail_at = CALLS_BEFORE_NEW; /* there is no old file, so no fchmod: this is the folder's fsync */
  fault.error = EINVAL;
  const unroll_status status = save(in_folder("f"), 1, NULL, NULL);
  assert_int_equal(fault.calls, CALLS_BEFORE_NEW);
  memset(&fault, 0, sizeof fault);
  assert_int_equal(status, UNROLL_OK);
  assert_int_equal(version_of(in_folder("f")), 1);
}

static void tensors_are_aligned(void **state) {
  (void)state;
  static const double x[3] = {1, 2, 3};
  static const int64_t three[] = {3};
  for (size_t n = 0; n < 9; n++) {
    unroll_safetensors_writer *w = NULL;
    assert_ok(unroll_safetensors_writer_create(in_folder("f"), NULL, &w, &err));
    assert_ok(unroll_safetensors_writer_metadata(w, "k", &"12345678"[n], &err));
    assert_ok(unroll_safetensors_writer_add(w, "a", UNROLL_U8, 1, three, x, &err));
    assert_ok(unroll_safetensors_writer_add(w, "z", UNROLL_F64, 1, three, x, &err));
    assert_ok(unroll_safetensors_writer_commit(w, &err));
    unroll_safetensors_writer_destroy(w);
    unroll_safetensors *f = NULL;
    unroll_stored_tensor t;
    assert_ok(unroll_safetensors_open(in_folder("f"), NULL, &f, &err));
    assert_ok(unroll_safetensors_find(f, "z", &t, &err));
    assert_int_equal((uintptr_t)t.data % 8, 0);
    unroll_safetensors_close(f);
  }
}

static void killed_at_every_call(void **state) {
  (void)state;
  const char *path = in_folder("f");
  for (int n = 1; n <= CALLS_BEFORE_NEW + 1; n++) {
    assert_ok(save(path, 1, NULL, &err));
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
      memset(&fault, 0, sizeof fault);
      fault.fail_at = n;
      fault.dies = 1;
      (void)save(path, 2, NULL, NULL);
      _exit(1);
    }
    int result;
    assert_int_equal(waitpid(child, &result, 0), child);
    assert_true(WIFEXITED(result) && WEXITSTATUS(result) == 0);
    assert_int_equal(version_of(path), n > CALLS_BEFORE_NEW ? 2 : 1);
    assert_ok(save(path, 3, NULL, &err)); /* what the dead one left is in nobody's way */
    assert_int_equal(version_of(path), 3);
    folder_entries(1);
  }
}

static void short_and_interrupted_writes(void **state) {
  (void)state;
  fault.meek = 1;
  const unroll_status status = save(in_folder("f"), 4, NULL, NULL);
  memset(&fault, 0, sizeof fault);
  assert_int_equal(status, UNROLL_OK);
  assert_int_equal(version_of(in_folder("f")), 4);
}

static void no_room_for_the_file(void **state) {
  (void)state;
  const char *path = in_folder("f");
  assert_ok(save(path, 1, NULL, &err));
  struct rlimit old, small;
  assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
  small = old;
  small.rlim_cur = 200;
  void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
  assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
  unroll_error err = UNROLL_ERROR_INIT;
  const unroll_status status = save(path, 2, NULL, &err);
  assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
  signal(SIGXFSZ, handler);
  assert_int_equal(status, UNROLL_E_IO);
  assert_int_equal(err.native, EFBIG);
  assert_int_equal(version_of(path), 1);
  assert_int_equal(folder_entries(0), 1);
}

static void a_folder_that_may_not_be_written(void **state) {
  (void)state;
  assert_ok(save(in_folder("f"), 1, NULL, &err));
  assert_int_equal(chmod(folder, 0555), 0);
  const int root = geteuid() == 0;
  if (root && seteuid(65534) != 0)
    skip();
  unroll_error err = UNROLL_ERROR_INIT;
  const unroll_status status = save(in_folder("f"), 2, NULL, &err);
  if (root)
    assert_int_equal(seteuid(0), 0);
  assert_int_equal(status, UNROLL_E_IO);
  assert_int_equal(err.native, EACCES);
  assert_int_equal(version_of(in_folder("f")), 1);
}

static void what_may_stand_at_the_path(void **state) {
  (void)state;
  assert_int_equal(mkdir(in_folder("d"), 0700), 0);
  assert_error(save(in_folder("d"), 1, NULL, &err), UNROLL_E_IO, "a directory stands there");
  assert_error(save("/dev/null", 1, NULL, &err), UNROLL_E_IO, "only replace a regular file");
  assert_error(save(in_folder("none/f"), 1, NULL, &err), UNROLL_E_IO, "opening its folder: No such file");
  assert_error(save(in_folder("d/"), 1, NULL, &err), UNROLL_E_INVALID, "no file name");
  assert_error(save("", 1, NULL, &err), UNROLL_E_INVALID, "no file name");
  struct stat st;
  assert_int_equal(stat("/dev/null", &st), 0);
  assert_true(S_ISCHR(st.st_mode));

  assert_ok(save(in_folder("f"), 1, NULL, &err));
  assert_int_equal(chmod(in_folder("f"), 0640), 0);
  assert_ok(save(in_folder("f"), 2, NULL, &err));
  assert_int_equal(stat(in_folder("f"), &st), 0);
  assert_int_equal(st.st_mode & 0777, 0640);

  assert_int_equal(symlink("f", in_folder("link")), 0);
  assert_ok(save(in_folder("link"), 3, NULL, &err));
  assert_int_equal(version_of(in_folder("link")), 3);
  assert_int_equal(version_of(in_folder("f")), 2);
}

static void a_name_without_a_folder(void **state) {
  (void)state;
  char old[4096];
  assert_non_null(getcwd(old, sizeof old));
  assert_int_equal(chdir(folder), 0);
  const unroll_status status = save("plain", 5, NULL, NULL);
  assert_int_equal(chdir(old), 0);
  assert_int_equal(status, UNROLL_OK);
  assert_int_equal(version_of(in_folder("plain")), 5);
}

/* ---- fetched tensors ---- */

struct source {
  uint64_t next, fail_from;
};

static unroll_status give(void *ctx, uint64_t offset, void *to, uint64_t bytes, unroll_error *err) {
  struct source *s = ctx;
  assert_int_equal(offset, s->next);
  assert_in_range(bytes, 1, 1 << 20);
  s->next = offset + bytes;
  if (s->next > s->fail_from) {
    if (err != NULL)
      memcpy(err->message, "the device went away", 21);
    return UNROLL_E_DEVICE_LOST;
  }
  for (uint64_t i = 0; i < bytes; i++)
    ((uint8_t *)to)[i] = (uint8_t)((offset + i) % 251);
  return UNROLL_OK;
}

static void fetched_tensors(void **state) {
  (void)state;
  const int64_t large[] = {3, 1000000}, none[] = {0};
  struct source s = {0, UINT64_MAX}, untouched = {0, 0};
  unroll_safetensors_writer *w = NULL;
  assert_ok(unroll_safetensors_writer_create(in_folder("f"), NULL, &w, &err));
  assert_ok(unroll_safetensors_writer_add_fetch(w, "l", UNROLL_U8, 2, large, give, &s, &err));
  assert_ok(unroll_safetensors_writer_add_fetch(w, "n", UNROLL_U8, 1, none, give, &untouched, &err));
  assert_ok(unroll_safetensors_writer_commit(w, &err));
  s = (struct source){0, 2000000};
  assert_error(unroll_safetensors_writer_commit(w, &err), UNROLL_E_DEVICE_LOST, "tensor \"l\": the device went away");
  assert_int_equal(folder_entries(0), 1);
  unroll_safetensors *f = NULL;
  unroll_stored_tensor t;
  assert_ok(unroll_safetensors_open(in_folder("f"), NULL, &f, &err));
  assert_ok(unroll_safetensors_verify(f, &err));
  assert_ok(unroll_safetensors_find(f, "l", &t, &err));
  assert_int_equal(t.bytes, 3000000);
  for (uint64_t i = 0; i < t.bytes; i++)
    if (((const uint8_t *)t.data)[i] != i % 251)
      fail_msg("byte %d", (int)i);
  unroll_safetensors_close(f);

  s = (struct source){0, UINT64_MAX}; /* after an error the same writer goes on */
  assert_ok(unroll_safetensors_writer_commit(w, &err));
  unroll_safetensors_writer_destroy(w);
}

/* ---- misuse ---- */

static void wrong_arguments(void **state) {
  (void)state;
  const int64_t negative[] = {2, -1}, huge[] = {INT64_MAX / 4, 5}, half[] = {INT64_MAX};
  const float x[64] = {0};
  unroll_safetensors_writer *w = NULL;
  assert_error(unroll_safetensors_writer_create(NULL, NULL, &w, &err), UNROLL_E_INVALID, "path is NULL");
  assert_ok(unroll_safetensors_writer_create(in_folder("f"), NULL, &w, &err));
#define ADD(name, dtype, rank, shape, data) unroll_safetensors_writer_add(w, name, dtype, rank, shape, data, &err)
  assert_ok(ADD("x", UNROLL_F32, 1, shape, x));
  assert_error(ADD("x", UNROLL_F64, 1, shape, x), UNROLL_E_INVALID, "the name \"x\" is taken");
  assert_error(ADD("__metadata__", UNROLL_F32, 1, shape, x), UNROLL_E_INVALID, "is taken");
  assert_error(ADD(NULL, UNROLL_F32, 1, shape, x), UNROLL_E_INVALID, "name is NULL");
  assert_error(ADD("\xC0\xAF", UNROLL_F32, 1, shape, x), UNROLL_E_INVALID, "not UTF-8");
  assert_error(ADD("y", 9, 1, shape, x), UNROLL_E_DTYPE, "9 is no dtype");
  assert_error(ADD("y", -1, 1, shape, x), UNROLL_E_DTYPE, "-1 is no dtype");
  assert_error(ADD("y", UNROLL_F32, 7, shape, x), UNROLL_E_SHAPE, "rank 7");
  assert_error(ADD("y", UNROLL_F32, -1, shape, x), UNROLL_E_SHAPE, "rank -1");
  assert_error(ADD("y", UNROLL_F32, 1, NULL, x), UNROLL_E_INVALID, "shape is NULL");
  assert_error(ADD("y", UNROLL_F32, 2, negative, x), UNROLL_E_SHAPE, "axis 1 is -1");
  assert_error(ADD("y", UNROLL_U8, 2, huge, x), UNROLL_E_SHAPE, "more than 2^63");
  assert_error(ADD("y", UNROLL_F32, 1, shape, NULL), UNROLL_E_INVALID, "\"y\" has no data");
  assert_error(unroll_safetensors_writer_add_fetch(w, "y", UNROLL_F32, 1, shape, NULL, NULL, &err), UNROLL_E_INVALID,
               "fetch is NULL");
  assert_error(unroll_safetensors_writer_metadata(w, UNROLL_CHECKSUM_KEY, "", &err), UNROLL_E_INVALID, "own");
  assert_error(unroll_safetensors_writer_metadata(w, NULL, "", &err), UNROLL_E_INVALID, "key is NULL");
  assert_error(unroll_safetensors_writer_metadata(w, "k", NULL, &err), UNROLL_E_INVALID, "value is NULL");
  assert_error(unroll_safetensors_writer_metadata(w, "k", "\xFF", &err), UNROLL_E_INVALID, "not UTF-8");
  assert_error(unroll_safetensors_writer_commit(NULL, &err), UNROLL_E_INVALID, "writer is NULL");
  assert_ok(unroll_safetensors_writer_commit(w, &err)); /* nothing of the above is in it */
  unroll_safetensors *f = NULL;
  assert_ok(unroll_safetensors_open(in_folder("f"), NULL, &f, &err));
  assert_int_equal(unroll_safetensors_count(f), 1);
  assert_int_equal(unroll_safetensors_metadata_count(f), 1);
  unroll_safetensors_close(f);

  /* each fits, together they don't */
  assert_ok(ADD("half1", UNROLL_U8, 1, half, x));
  assert_ok(ADD("half2", UNROLL_U8, 1, half, x));
  assert_error(unroll_safetensors_writer_commit(w, &err), UNROLL_E_SHAPE, "more than 2^63");
  assert_int_equal(folder_entries(0), 1);
  unroll_safetensors_writer_destroy(w);
  unroll_safetensors_writer_destroy(NULL);
}

static void a_header_that_no_reader_takes(void **state) {
  (void)state;
  const size_t n = 100000000;
  char *value = malloc(n + 1);
  assert_non_null(value);
  memset(value, 'v', n);
  value[n] = 0;
  unroll_safetensors_writer *w = NULL;
  assert_ok(unroll_safetensors_writer_create(in_folder("f"), NULL, &w, &err));
  assert_ok(unroll_safetensors_writer_metadata(w, "k", value, &err));
  free(value);
  assert_error(unroll_safetensors_writer_commit(w, &err), UNROLL_E_RANGE, "more than 100000000");
  assert_int_equal(folder_entries(0), 0);
  unroll_safetensors_writer_destroy(w);
}

static void every_allocation_fails_once(void **state) {
  (void)state;
  const char *path = in_folder("f");
  assert_ok(save(path, 1, NULL, &err));
  for (long n = 1;; n++) {
    assert_in_range(n, 1, 1000);
    struct counting c = {.fail_at = n};
    const unroll_allocator a = counting_allocator(&c);
    unroll_error err = UNROLL_ERROR_INIT;
    const unroll_status status = save(path, 2, &a, &err);
    assert_int_equal(c.live, 0);
    assert_int_equal(folder_entries(0), 1);
    assert_int_equal(version_of(path), status == UNROLL_OK ? 2 : 1);
    if (status == UNROLL_OK) {
      assert_true(n > 10);
      return;
    }
    assert_int_equal(status, UNROLL_E_MEMORY);
    assert_non_null(strstr(err.message, "no memory"));
  }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make_folder, remove_folder)

int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(every_call_fails_once),
      TEST(a_file_system_that_can_not_flush_folders),
      TEST(tensors_are_aligned),
      TEST(killed_at_every_call),
      TEST(short_and_interrupted_writes),
      TEST(no_room_for_the_file),
      TEST(a_folder_that_may_not_be_written),
      TEST(what_may_stand_at_the_path),
      TEST(a_name_without_a_folder),
      TEST(fetched_tensors),
      TEST(wrong_arguments),
      TEST(a_header_that_no_reader_takes),
      TEST(every_allocation_fails_once),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
