/* SPDX-License-Identifier: Apache-2.0 */
/* A folder of stub plugins for one test, some of them damaged on purpose, and registries that look into it. */
#ifndef STUB_FILES_H
#define STUB_FILES_H
#include "plugins/registry.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

#include <cmocka.h>

/* Fails the test that uses it. */
#define assert_contains(text, part)                    \
  do {                                                 \
    if (!strstr(text, part)) {                         \
      fail_msg("\"%s\" is not in \"%s\"", part, text); \
    }                                                  \
  } while (0)

extern const unroll_plugin *const unroll_static_backends[];

/* CMocka's state would have to be unpacked in every helper. */
struct stub_fixture {
  char root[64], trace[96]; /* trace: a file that exists once any code of a stub ran */
};
extern struct stub_fixture stubs;

int stub_setup(void **state); /* an empty folder, no variable of the plugins set */
int stub_teardown(void **state);
bool stub_ran(void);

/* root/name. Static: the last eight are valid. */
char *stub_path(const char *name);
/* malloc's. */
unsigned char *stub_read(const char *path, size_t *n);
void stub_write(const char *path, const void *bytes, size_t n);
/* The bytes of a stub as it was built; malloc's. */
unsigned char *stub_bytes(const char *stub, size_t *n);
/* Where the description of its note starts. */
size_t stub_note(const unsigned char *bytes, size_t n);
/* A copy of a stub at root/name; name may have a folder, which is made. */
char *stub_put(const char *stub, const char *name);
/* A copy of stub.so with size bytes overwritten, offset bytes after its note's description, exported struct or start. */
enum { STUB_NOTE, STUB_SYMBOL, STUB_START };
char *stub_put_patched(const char *name, int where, size_t offset, const void *patch, size_t size);

/* A registry with that one file, or none, beside what the variables say. */
struct plugin_registry *stub_registry(const char *file);
/* How many backends are linked in. */
uint32_t stub_built_in(void);
/* Why path is left out; NULL where it is not. Static. */
const char *stub_reason(struct plugin_registry *registry, const char *path);
/* Zeros where there is none. */
struct plugin_candidate stub_candidate(struct plugin_registry *registry, const char *id);
#endif
