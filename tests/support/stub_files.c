/* SPDX-License-Identifier: Apache-2.0 */
#include "stub_files.h"
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct stub_fixture stubs;

char *stub_path(const char *name) {
  static char paths[8][512];
  static unsigned next;
  char *p = paths[next++ % 8];
  snprintf(p, sizeof paths[0], "%s/%s", stubs.root, name);
  return p;
}

unsigned char *stub_read(const char *path, size_t *n) {
  FILE *file = fopen(path, "rb");
  assert_non_null(file);
  fseek(file, 0, SEEK_END);
  *n = (size_t)ftell(file);
  rewind(file);
  unsigned char *bytes = malloc(*n + 1);
  assert_non_null(bytes);
  assert_int_equal(fread(bytes, 1, *n, file), *n);
  fclose(file);
  return bytes;
}

void stub_write(const char *path, const void *bytes, size_t n) {
  FILE *file = fopen(path, "wb");
  assert_non_null(file);
  assert_int_equal(fwrite(bytes, 1, n, file), n);
  assert_int_equal(fclose(file), 0);
}

unsigned char *stub_bytes(const char *stub, size_t *n) {
  const char *folder = getenv("UNROLL_TEST_PLUGINS");
  assert_non_null(folder);
  char path[1024];
  snprintf(path, sizeof path, "%s/%s.so", folder, stub);
  return stub_read(path, n);
}

/* name may have a folder, which is made. */
char *stub_put(const char *stub, const char *name) {
  char *path = stub_path(name), *slash = strrchr(path, '/');
  *slash = 0;
  mkdir(path, 0755);
  *slash = '/';
  size_t n;
  unsigned char *bytes = stub_bytes(stub, &n);
  stub_write(path, bytes, n);
  free(bytes);
  return path;
}

/* Where the note's description starts. */
size_t stub_note(const unsigned char *bytes, size_t n) {
  const char owner[8] = UNROLL_NOTE_OWNER;
  const uint32_t magic = UNROLL_PLUGIN_MAGIC;
  for (size_t i = 0; i + 12 < n; i++) {
    if (memcmp(bytes + i, owner, 8) == 0 && memcmp(bytes + i + 8, &magic, 4) == 0) {
      return i + 8;
    }
  }
  fail_msg("the stub has no note");
  return 0;
}

/* The exported struct: the only magic that is followed by its own size. */
static size_t stub_symbol(const unsigned char *bytes, size_t n) {
  const uint32_t start[2] = {UNROLL_PLUGIN_MAGIC, sizeof(unroll_plugin)};
  for (size_t i = 0; i + 8 < n; i += 4) {
    if (memcmp(bytes + i, start, 8) == 0) {
      return i;
    }
  }
  fail_msg("the stub has no exported struct");
  return 0;
}

char *stub_put_patched(const char *name, int where, size_t offset, const void *patch, size_t size) {
  char *path = stub_path(name);
  size_t n;
  unsigned char *bytes = stub_bytes("stub", &n);
  const size_t base = where == STUB_NOTE ? stub_note(bytes, n) : where == STUB_SYMBOL ? stub_symbol(bytes, n) : 0;
  memcpy(bytes + base + offset, patch, size);
  stub_write(path, bytes, n);
  free(bytes);
  return path;
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *walk) {
  (void)st, (void)type, (void)walk;
  return remove(path);
}

int stub_setup(void **state) {
  (void)state;
  umask(022); /* what everybody may write to is rejected */
  snprintf(stubs.root, sizeof stubs.root, "/tmp/unroll-loader-XXXXXX");
  assert_non_null(mkdtemp(stubs.root));
  snprintf(stubs.trace, sizeof stubs.trace, "%s/trace", stubs.root);
  setenv("UNROLL_STUB_TRACE", stubs.trace, 1);
  unsetenv("UNROLL_STUB");
  unsetenv("UNROLL_PLUGIN_FILES");
  unsetenv("UNROLL_PLUGIN_PATH");
  return 0;
}

int stub_teardown(void **state) {
  (void)state;
  assert_int_equal(chdir("/"), 0);
  return nftw(stubs.root, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

bool stub_ran(void) { return access(stubs.trace, F_OK) == 0; }

struct plugin_registry *stub_registry(const char *file) {
  struct plugin_registry *reg = NULL;
  unroll_error err = UNROLL_ERROR_INIT;
  const struct plugin_registry_options options = {.files = &file, .n_files = file ? 1 : 0, .n_threads = 5};
  if (plugin_registry_create(&options, &reg, &err) != UNROLL_OK) {
    fail_msg("%s", err.message);
  }
  assert_non_null(reg);
  return reg;
}

uint32_t stub_built_in(void) {
  uint32_t n = 0;
  while (unroll_static_backends[n]) {
    n++;
  }
  return n;
}

/* The reason why path is left out; NULL where it is not. */
const char *stub_reason(struct plugin_registry *reg, const char *path) {
  static struct plugin_rejected r;
  for (uint32_t i = 0; i < plugin_registry_rejected_count(reg); i++) {
    assert_int_equal(plugin_registry_rejected_get(reg, i, &r, NULL), UNROLL_OK);
    if (strcmp(r.path, path) == 0) {
      return r.reason;
    }
  }
  return NULL;
}

struct plugin_candidate stub_candidate(struct plugin_registry *reg, const char *id) {
  struct plugin_candidate c;
  for (uint32_t i = 0; i < plugin_registry_count(reg); i++) {
    assert_int_equal(plugin_registry_get(reg, i, &c, NULL), UNROLL_OK);
    if (strcmp(c.id, id) == 0) {
      return c;
    }
  }
  return (struct plugin_candidate){0};
}
