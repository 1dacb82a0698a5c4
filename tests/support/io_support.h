/* SPDX-License-Identifier: Apache-2.0 */
/* For the tests of files: a folder of their own, whole files in and out, and an allocator that fails when told. */
#ifndef IO_SUPPORT_H
#define IO_SUPPORT_H
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <unroll/base.h>

/* ---- a folder that each test has for itself ---- */

static char folder[64];

static inline const char *in_folder(const char *name) {
  static char paths[4][512];
  static int next;
  char *path = paths[next++ % 4];
  snprintf(path, sizeof paths[0], "%s/%s", folder, name);
  return path;
}

static inline int make_folder(void **state) {
  (void)state;
  snprintf(folder, sizeof folder, "/tmp/unroll-test-XXXXXX");
  return mkdtemp(folder) == NULL;
}

/* The names in the folder that are not "." or ".."; removes them if asked to. */
static inline int folder_entries(int remove_them) {
  int n = 0;
  DIR *d = opendir(folder);
  assert_non_null(d);
  for (struct dirent *e; (e = readdir(d)) != NULL;)
    if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0) {
      n++;
      if (remove_them)
        remove(in_folder(e->d_name));
    }
  closedir(d);
  return n;
}

static inline int remove_folder(void **state) {
  (void)state;
  chmod(folder, 0700);
  folder_entries(1);
  return rmdir(folder);
}

static inline void put_file(const char *path, const void *data, size_t size) {
  FILE *f = fopen(path, "wb");
  assert_non_null(f);
  assert_int_equal(fwrite(data, 1, size, f), size);
  assert_int_equal(fclose(f), 0);
}

/* To be freed; ends with a zero that is not counted. */
static inline char *get_file(const char *path, size_t *size) {
  FILE *f = fopen(path, "rb");
  assert_non_null(f);
  fseek(f, 0, SEEK_END);
  const long n = ftell(f);
  assert_true(n >= 0);
  rewind(f);
  char *data = malloc((size_t)n + 1);
  assert_non_null(data);
  assert_int_equal(fread(data, 1, (size_t)n, f), n);
  data[n] = 0;
  fclose(f);
  *size = (size_t)n;
  return data;
}

/* ---- an allocator that counts, and fails at the n-th call ---- */

struct counting {
  long live, calls, fail_at; /* fail_at 0: never */
};

static inline void *counting_alloc(void *ctx, uint64_t bytes, uint64_t alignment) {
  struct counting *c = ctx;
  if (++c->calls == c->fail_at)
    return NULL;
  void *p = NULL;
  if (posix_memalign(&p, (size_t)alignment, (size_t)bytes) != 0)
    return NULL;
  memset(p, 0xA5, (size_t)bytes);
  c->live++;
  return p;
}

static inline void counting_free(void *ctx, void *p) {
  ((struct counting *)ctx)->live--;
  free(p);
}

static inline unroll_allocator counting_allocator(struct counting *c) {
  return (unroll_allocator){c, counting_alloc, counting_free};
}

/* ---- statuses ---- */

#define assert_ok(expr)                                                  \
  do {                                                                   \
    unroll_error err = UNROLL_ERROR_INIT;                                \
    const unroll_status status_ = (expr);                                \
    if (status_ != UNROLL_OK)                                            \
      print_error("%s: %s\n", unroll_status_name(status_), err.message); \
    assert_int_equal(status_, UNROLL_OK);                                \
  } while (0)

/* Fails with that status, and a message that has the words in it. The expression passes &err. */
#define assert_error(expr, expected, words)                                                                           \
  do {                                                                                                                \
    unroll_error err = UNROLL_ERROR_INIT;                                                                             \
    const unroll_status status_ = (expr);                                                                             \
    if (status_ != (expected) || err.code != (expected) || strstr(err.message, (words)) == NULL)                      \
      print_error("%s: '%s', not %s: '%s'\n", unroll_status_name(status_), err.message, unroll_status_name(expected), \
                  words);                                                                                             \
    assert_int_equal(status_, (expected));                                                                            \
    assert_int_equal(err.code, (expected));                                                                           \
    assert_non_null(strstr(err.message, (words)));                                                                    \
  } while (0)

#endif
