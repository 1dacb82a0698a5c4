/* SPDX-License-Identifier: Apache-2.0 */
#include "plugins/load.h"
#include "base/base_private.h"
#include "plugins/note.h"
#include <dlfcn.h>
#include <string.h>

unroll_status plugin_check(const unroll_plugin *p, const char *id, unroll_error *err) {
  if (p->magic != UNROLL_PLUGIN_MAGIC) {
    return fail(err, UNROLL_E_PLUGIN, "its symbol %s has the magic 0x%08x, expected 0x%08x", UNROLL_PLUGIN_SYMBOL,
                p->magic, UNROLL_PLUGIN_MAGIC);
  }
  if (!UNROLL_HAS(unroll_plugin, p, close)) {
    return fail(err, UNROLL_E_PLUGIN, "its symbol %s has %u bytes, expected %zu or more", UNROLL_PLUGIN_SYMBOL,
                p->struct_size, UNROLL_SIZE_TO(unroll_plugin, close));
  }
  TRY(plugin_abi_check(p->abi_major, p->abi_minor, err));
  if (!p->id || strcmp(p->id, id) != 0) {
    return fail(err, UNROLL_E_PLUGIN, "it calls itself \"%.40s\" where its note says \"%s\"", p->id ? p->id : "", id);
  }
  if (!p->version || !p->vendor) {
    return fail(err, UNROLL_E_PLUGIN, "its %s is missing", p->version ? "vendor" : "version");
  }
  if (!p->score || !p->open || !p->close) {
    return fail(err, UNROLL_E_PLUGIN, "its function %s is missing", !p->score ? "score" : !p->open ? "open" : "close");
  }
  return UNROLL_OK;
}

/* The formatter would lay this out anew at every run. */
/* clang-format off */
#define REQUIRED_OPS(X)                                         \
  X(device_count) X(device_info) X(device_open) X(device_close) \
  X(claim) X(buffer_create) X(buffer_destroy) X(write)          \
  X(read) X(fill) X(copy) X(queue_create)                       \
  X(queue_destroy) X(queue_flush) X(queue_sync) X(compile)      \
  X(exec_info) X(exec_destroy) X(bind) X(binding_destroy)       \
  X(run)
/* clang-format on */

unroll_status plugin_check_backend(const unroll_backend *backend, const unroll_backend_ops *ops, unroll_error *err) {
  if (!backend || !ops) {
    return fail(err, UNROLL_E_PLUGIN, "its open said ok, but gave no %s", backend ? "table of functions" : "backend");
  }
  if (!UNROLL_HAS(unroll_backend_ops, ops, extension)) {
    return fail(err, UNROLL_E_PLUGIN, "its table of functions has %u bytes, expected %zu or more", ops->struct_size,
                UNROLL_SIZE_TO(unroll_backend_ops, extension));
  }
#define REQUIRE(name)                                                            \
  if (!ops->name) {                                                              \
    return fail(err, UNROLL_E_PLUGIN, "its table of functions lacks %s", #name); \
  }
  REQUIRED_OPS(REQUIRE)
#undef REQUIRE
  return UNROLL_OK;
}

/* A status that no plugin may return, or a failure without a word, must still tell the user something. */
unroll_status plugin_said(const char *function, unroll_status status, const unroll_error *said, unroll_error *err) {
  const unroll_status code = status < 0 ? status : UNROLL_E_PLUGIN;
  char message[sizeof said->message];
  memcpy(message, said->message, sizeof message);
  message[sizeof message - 1] = 0;
  if (message[0] == 0) {
    return fail(err, code, "its %s failed with status %d (%s) and no message", function, status,
                unroll_status_text(status));
  }
  return fail_native(err, code, said->native, "its %s failed: %s", function, message);
}

unroll_status plugin_file_load(const char *path, const char *id, void **library, const unroll_plugin **out,
                               unroll_error *err) {
  /* Again, since days may have passed in a service, and a package may have been replaced. */
  struct plugin_note note;
  TRY(plugin_note_read(path, &note, err));
  if (strcmp(note.id, id) != 0) {
    return fail(err, UNROLL_E_PLUGIN, "the file was replaced: it now has the id \"%s\"", note.id);
  }
  if (!*library) {
    *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  }
  if (!*library) {
    const char *text = dlerror();
    const size_t n = strlen(path);
    if (text && strncmp(text, path, n) == 0 && strncmp(text + n, ": ", 2) == 0) {
      text += n + 2;
    }
    return fail(err, UNROLL_E_PLUGIN, "can't be loaded: %s", text ? text : "no reason given");
  }
  *out = dlsym(*library, UNROLL_PLUGIN_SYMBOL);
  if (!*out) {
    return fail(err, UNROLL_E_PLUGIN, "it has no symbol %s", UNROLL_PLUGIN_SYMBOL);
  }
  return plugin_check(*out, id, err);
}
