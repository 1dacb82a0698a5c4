/* SPDX-License-Identifier: Apache-2.0 */
/* Finding plugins: the search order, and files that are rejected before any of their code runs. */
#include "plugins/note.h"
#include "stub_files.h"
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The file is rejected at discovery, and nothing of it ran. */
static void expect_reject(const char *path, const char *reason) {
  struct plugin_registry *reg = stub_registry(path);
  assert_int_equal(plugin_registry_count(reg), stub_built_in());
  const char *why = stub_reason(reg, path);
  assert_non_null(why);
  assert_contains(why, reason);
  plugin_registry_destroy(reg);
  assert_false(stub_ran());
}

/* ---- files that are rejected unopened ---- */
static void rejects_what_is_no_plugin(void **state) {
  (void)state;
  char *path = stub_path("unroll-text.so");
  stub_write(path, "not a library\n", 14);
  expect_reject(path, "not an ELF file");
  stub_write(path, "", 0);
  expect_reject(path, "not an ELF file");
  path = stub_path("unroll-folder.so");
  assert_int_equal(mkdir(path, 0755), 0);
  expect_reject(path, "a directory, not a regular file");
  path = stub_path("unroll-pipe.so");
  assert_int_equal(mkfifo(path, 0600), 0);
  expect_reject(path, "a pipe, not a regular file");
  expect_reject(stub_path("unroll-absent.so"), "can't be opened: No such file");
  expect_reject(stub_put("stub_no_note", "unroll-no-note.so"), "no ELF note");
}

static void rejects_unsafe_files(void **state) {
  (void)state;
  char *path = stub_put("stub", "unroll-stub.so");
  assert_int_equal(chmod(path, 0646), 0);
  expect_reject(path, "everybody may write to it (mode 646)");
  assert_int_equal(chmod(path, 0644), 0);
  char *folder = stub_path("open");
  stub_put("stub", "open/unroll-stub.so");
  assert_int_equal(chmod(folder, 0777), 0);
  setenv("UNROLL_PLUGIN_PATH", folder, 1);
  struct plugin_registry *reg = stub_registry(NULL);
  assert_int_equal(plugin_registry_count(reg), stub_built_in());
  assert_contains(stub_reason(reg, folder), "everybody may write to the folder");
  plugin_registry_destroy(reg);
  assert_int_equal(chmod(folder, 0755), 0);
  reg = stub_registry(NULL);
  assert_int_equal(plugin_registry_count(reg), stub_built_in() + 1);
  plugin_registry_destroy(reg);
  assert_false(stub_ran());
}

static void rejects_by_note(void **state) {
  (void)state;
  const size_t major = offsetof(unroll_plugin_note, abi_major) - offsetof(unroll_plugin_note, magic);
  const size_t minor = offsetof(unroll_plugin_note, abi_minor) - offsetof(unroll_plugin_note, magic);
  const size_t id = offsetof(unroll_plugin_note, id) - offsetof(unroll_plugin_note, magic);
  expect_reject(stub_put_patched("unroll-magic.so", STUB_NOTE, 0, "XXXX", 4),
                "its note has the magic 0x58585858, expected 0x4c4e5255");
  expect_reject(stub_put_patched("unroll-minor.so", STUB_NOTE, minor, &(uint16_t){7}, 2),
                "built for plugin ABI 0.7, this library has 0.2");
  expect_reject(stub_put_patched("unroll-zero.so", STUB_NOTE, minor, &(uint16_t){0}, 2),
                "built for plugin ABI 0.0, this library has 0.2");
  expect_reject(stub_put_patched("unroll-major.so", STUB_NOTE, major, &(uint16_t){1}, 2),
                "built for plugin ABI 1.2, this library has 0.2: it needs a newer");
  char bytes[32];
  static const char *const bad_ids[] = {"", "A", "9x", "a b", "a:0", "a/b", "\xC3\xA9", "a\n"};
  for (size_t i = 0; i < sizeof bad_ids / sizeof *bad_ids; i++) {
    memset(bytes, 0, sizeof bytes);
    memcpy(bytes, bad_ids[i], strlen(bad_ids[i]));
    expect_reject(stub_put_patched("unroll-id.so", STUB_NOTE, id, bytes, sizeof bytes),
                  "the id in its note is malformed");
  }
  memset(bytes, 'a', sizeof bytes);
  expect_reject(stub_put_patched("unroll-id.so", STUB_NOTE, id, bytes, sizeof bytes),
                "the id in its note is malformed");
}

static void rejects_other_machines(void **state) {
  (void)state;
  expect_reject(stub_put_patched("unroll-class.so", STUB_START, 4, "\1", 1),
                "ELF class 1 with byte order 1, expected 64-bit");
  expect_reject(stub_put_patched("unroll-order.so", STUB_START, 5, "\2", 1),
                "ELF class 2 with byte order 2, expected 64-bit");
#if defined(__x86_64__)
  expect_reject(stub_put_patched("unroll-machine.so", STUB_START, 18, &(uint16_t){183}, 2),
                "built for aarch64 (ELF machine 183), this is x86-64");
#endif
  expect_reject(stub_put_patched("unroll-type.so", STUB_START, 16, &(uint16_t){1}, 2),
                "not a shared object: ELF type 1");
  expect_reject(stub_put_patched("unroll-offset.so", STUB_START, 32, &(uint64_t){UINT64_MAX - 8}, 8),
                "cut short: its program headers");
  expect_reject(stub_put_patched("unroll-phsize.so", STUB_START, 54, &(uint16_t){3}, 2), "malformed ELF header");
}

/* Cut at every length: never a crash, and never taken where dlopen would map pages that the file doesn't have. */
static void survives_truncation(void **state) {
  (void)state;
  char *path = stub_put("stub", "unroll-cut.so");
  struct stat st;
  assert_int_equal(stat(path, &st), 0);
  struct plugin_note note;
  assert_int_equal(plugin_note_read(path, &note, NULL), UNROLL_OK);
  assert_string_equal(note.id, "stub");
  off_t shortest = st.st_size;
  for (off_t n = st.st_size - 1; n >= 0; n -= n > 8192 ? 13 : 1) {
    assert_int_equal(truncate(path, n), 0);
    unroll_error err = UNROLL_ERROR_INIT;
    const unroll_status status = plugin_note_read(path, &note, &err);
    if (status == UNROLL_OK) {
      assert_int_equal(n < shortest ? shortest - n <= 13 : 1, 1);
      shortest = n;
    } else {
      assert_int_equal(status, UNROLL_E_PLUGIN);
      assert_true(strlen(err.message) > 0);
    }
  }
  /* Whatever was accepted can really be loaded. */
  stub_put("stub", "unroll-cut.so");
  assert_int_equal(truncate(path, shortest), 0);
  struct plugin_registry *reg = stub_registry(path);
  struct plugin_backend backend;
  assert_int_equal(plugin_registry_open(reg, "stub", NULL, 0, &backend, NULL), UNROLL_OK);
  assert_int_equal(plugin_registry_close(reg, &backend, NULL), UNROLL_OK);
  plugin_registry_destroy(reg);
  assert_true(shortest > 4096);
}

/* Every byte of the headers and notes overwritten: any verdict, but one of ours, and soon. */
static void survives_damage(void **state) {
  (void)state;
  char *path = stub_put("stub", "unroll-damaged.so");
  size_t n;
  unsigned char *bytes = stub_bytes("stub", &n);
  const int fd = open(path, O_WRONLY | O_CLOEXEC);
  assert_true(fd >= 0);
  static const unsigned char values[] = {0x00, 0x01, 0x7F, 0x80, 0xFF};
  for (size_t i = 0; i < stub_note(bytes, n) + 48; i++) {
    for (size_t k = 0; k < sizeof values; k++) {
      assert_int_equal(pwrite(fd, &values[k], 1, (off_t)i), 1);
      struct plugin_note note;
      unroll_error err = UNROLL_ERROR_INIT;
      const unroll_status status = plugin_note_read(path, &note, &err);
      assert_true(status == UNROLL_OK || status == UNROLL_E_PLUGIN || status == UNROLL_E_ABI);
      assert_true(status != UNROLL_OK || plugin_id_valid(note.id));
    }
    assert_int_equal(pwrite(fd, bytes + i, 1, (off_t)i), 1);
  }
  close(fd);
  free(bytes);
  assert_false(stub_ran());
}

/* ---- search ---- */
static void searches_in_order(void **state) {
  (void)state;
  char *given = stub_put("stub", "given.bin"), *in_files = stub_put("stub", "files/any-name");
  char *in_path = stub_put("stub", "first/unroll-stub.so"), *in_second = stub_put("stub", "second/unroll-stub.so");
  stub_put("stub_no_symbol", "second/unroll-other.so");
  stub_put("stub_missing", "second/libunroll-missing.so"); /* not a plugin's name */
  char variable[1024];
  snprintf(variable, sizeof variable, ":%s::", in_files);
  setenv("UNROLL_PLUGIN_FILES", variable, 1);
  snprintf(variable, sizeof variable, ":%s/first::%s/second:%s/absent:%s/first", stubs.root, stubs.root, stubs.root,
           stubs.root);
  setenv("UNROLL_PLUGIN_PATH", variable, 1);

  char *const order[] = {given, in_files, in_path, in_second};
  for (int first = 0; first < 4; first++) {
    struct plugin_registry *reg = stub_registry(first == 0 ? given : NULL);
    for (uint32_t i = 0; i < stub_built_in(); i++) {
      struct plugin_candidate c;
      assert_int_equal(plugin_registry_get(reg, i, &c, NULL), UNROLL_OK);
      assert_string_equal(c.path, PLUGIN_BUILT_IN);
      assert_string_equal(c.id, unroll_static_backends[i]->id);
    }
    assert_int_equal(plugin_registry_count(reg), stub_built_in() + 2);
    assert_string_equal(stub_candidate(reg, "stub").path, order[first]);
    assert_string_equal(stub_candidate(reg, "no-symbol").id, "no-symbol");
    for (int later = first + 1; later < 4; later++) {
      const char *why = stub_reason(reg, order[later]);
      assert_non_null(why);
      assert_contains(why, "shadowed");
      assert_contains(why, order[first]);
    }
    assert_contains(stub_reason(reg, stub_path("absent")), "the folder can't be read: No such file");
    /* Each once: the second visit of the first folder is silent. */
    assert_int_equal(plugin_registry_rejected_count(reg), 3 - first + 1);
    assert_int_equal(plugin_registry_get(reg, stub_built_in() + 2, &(struct plugin_candidate){0}, NULL),
                     UNROLL_E_RANGE);
    assert_int_equal(plugin_registry_rejected_get(reg, 9, &(struct plugin_rejected){0}, NULL), UNROLL_E_RANGE);
    plugin_registry_destroy(reg);
    if (first == 1) {
      unsetenv("UNROLL_PLUGIN_FILES");
    } else if (first == 2) {
      assert_int_equal(remove(in_path), 0);
    }
  }
  assert_false(stub_ran());
}

/* Whatever order the file system has. */
static void folders_are_in_alphabetical_order(void **state) {
  (void)state;
  static const char scrambled[] = "hcagbfjdie";
  const size_t id = offsetof(unroll_plugin_note, id) - offsetof(unroll_plugin_note, magic);
  char name[] = "unroll-?.so", text[] = "?";
  for (size_t i = 0; scrambled[i]; i++) {
    name[7] = text[0] = scrambled[i];
    stub_put_patched(name, STUB_NOTE, id, text, sizeof text);
  }
  setenv("UNROLL_PLUGIN_PATH", stubs.root, 1);
  struct plugin_registry *reg = stub_registry(NULL);
  assert_int_equal(plugin_registry_count(reg), stub_built_in() + 10);
  for (uint32_t i = 0; i < 10; i++) {
    struct plugin_candidate c;
    assert_int_equal(plugin_registry_get(reg, stub_built_in() + i, &c, NULL), UNROLL_OK);
    assert_int_equal(c.id[0], 'a' + (int)i);
  }
  plugin_registry_destroy(reg);
}

static void working_directory_is_never_searched(void **state) {
  (void)state;
  stub_put("stub", "unroll-stub.so");
  stub_put("stub", "unroll/unroll-stub.so");
  assert_int_equal(chdir(stubs.root), 0);
  setenv("UNROLL_PLUGIN_PATH", ":.:unroll:", 1);
  setenv("UNROLL_PLUGIN_FILES", "unroll-stub.so::", 1);
  struct plugin_registry *reg = stub_registry("./unroll-stub.so");
  assert_int_equal(plugin_registry_count(reg), stub_built_in());
  static const char *const relative[] = {"./unroll-stub.so", "unroll-stub.so", ".", "unroll"};
  for (size_t i = 0; i < 4; i++) {
    assert_non_null(stub_reason(reg, relative[i]));
    assert_contains(stub_reason(reg, relative[i]), "a relative path");
  }
  assert_int_equal(plugin_registry_rejected_count(reg), 4);
  plugin_registry_destroy(reg);
  assert_false(stub_ran());
}

/* A copy of this program finds unroll/ beside itself, even when it is called by a relative path from elsewhere. */
static void own_folder_is_searched(void **state) {
  (void)state;
  stub_put("stub", "unroll/unroll-stub.so");
  size_t n;
  unsigned char *bytes = stub_read("/proc/self/exe", &n);
  stub_write(stub_path("program"), bytes, n);
  free(bytes);
  assert_int_equal(chmod(stub_path("program"), 0755), 0);
  assert_int_equal(mkdir(stub_path("elsewhere"), 0755), 0);
  assert_int_equal(chdir(stub_path("elsewhere")), 0);
  FILE *out = popen("../program --list", "r");
  assert_non_null(out);
  char text[4096] = "";
  assert_true(fread(text, 1, sizeof text - 1, out) > 0);
  assert_int_equal(pclose(out), 0);
  char expected[256];
  snprintf(expected, sizeof expected, "stub %s/unroll/unroll-stub.so\n", stubs.root);
  assert_contains(text, expected);
}

static int list(void) {
  struct plugin_registry *reg = NULL;
  if (plugin_registry_create(&(struct plugin_registry_options){0}, &reg, NULL) != UNROLL_OK) {
    return 1;
  }
  struct plugin_candidate c;
  for (uint32_t i = 0; plugin_registry_get(reg, i, &c, NULL) == UNROLL_OK; i++) {
    printf("%s %s\n", c.id, c.path);
  }
  plugin_registry_destroy(reg);
  return 0;
}

int main(int argc, char **argv) {
  if (argc > 1 && strcmp(argv[1], "--list") == 0) {
    return list();
  }
#define TEST(name) cmocka_unit_test_setup_teardown(name, stub_setup, stub_teardown)
  const struct CMUnitTest tests[] = {TEST(rejects_what_is_no_plugin),
                                     TEST(rejects_unsafe_files),
                                     TEST(rejects_by_note),
                                     TEST(rejects_other_machines),
                                     TEST(survives_truncation),
                                     TEST(survives_damage),
                                     TEST(searches_in_order),
                                     TEST(folders_are_in_alphabetical_order),
                                     TEST(working_directory_is_never_searched),
                                     TEST(own_folder_is_searched)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
