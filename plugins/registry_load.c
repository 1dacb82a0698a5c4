/* SPDX-License-Identifier: Apache-2.0 */
/* From a candidate to an open backend and back. Whatever a plugin hands over is checked before it is used. */
#include "base/base_private.h"
#include "plugins/load.h"
#include "plugins/registry_private.h"
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

/* ---- what the host gives ---- */
static void host_log(void *ctx, int32_t level, const char *message) {
  const struct plugin_registry *reg = ctx;
  if (message) {
    log_message(&reg->logger, level, "%s", message);
  }
}

/* Not mem_alloc, whose alignment is fixed: a plugin may need pages. */
static void *host_alloc(void *ctx, uint64_t bytes, uint64_t alignment) {
  const unroll_allocator *a = &((const struct plugin_registry *)ctx)->allocator;
  alignment = alignment < MEM_ALIGNMENT ? MEM_ALIGNMENT : alignment;
  if ((alignment & (alignment - 1)) != 0 || bytes > SIZE_MAX / 2 || alignment > SIZE_MAX / 2) {
    return NULL;
  }
  bytes = bytes ? bytes : 1;
  if (a->alloc && a->free) {
    return a->alloc(a->ctx, bytes, alignment);
  }
  void *p = NULL;
  return posix_memalign(&p, (size_t)alignment, (size_t)bytes) == 0 ? p : NULL;
}

static void host_free(void *ctx, void *p) {
  const unroll_allocator *a = &((const struct plugin_registry *)ctx)->allocator;
  if (p && a->alloc && a->free) {
    a->free(a->ctx, p);
  } else {
    free(p);
  }
}

static const void *host_extension(void *ctx, const char *id) {
  const struct plugin_registry *reg = ctx;
  return id && strcmp(id, "unroll.threads/1") == 0 ? &reg->n_threads : NULL;
}

void host_init(struct plugin_registry *reg) {
  reg->host = (unroll_host){.struct_size = sizeof reg->host,
                            .abi_major = UNROLL_ABI_MAJOR,
                            .abi_minor = UNROLL_ABI_MINOR,
                            .ctx = reg,
                            .log = host_log,
                            .alloc = host_alloc,
                            .free = host_free,
                            .extension = host_extension};
}

/* ---- candidates ---- */
static void list_ids(const struct plugin_registry *reg, char *out, size_t size) {
  size_t n = 0;
  out[0] = 0;
  for (uint32_t i = 0; i < reg->n_candidates && n + 1 < size; i++) {
    const char *parts[] = {i ? ", " : "", reg->candidates[i].id};
    for (size_t k = 0; k < 2 && n + 1 < size; k++) {
      const size_t want = strlen(parts[k]), fits = want < size - 1 - n ? want : size - 1 - n;
      memcpy(out + n, parts[k], fits);
      n += fits;
    }
    out[n] = 0;
  }
}

/* Is that the file name that a plugin of this id has? */
static bool named_after(const char *path, const char *id) {
  static const char prefix[] = "unroll-";
  const char *name = strrchr(path, '/');
  const size_t n = strlen(id), p = sizeof prefix - 1;
  return name && strncmp(name + 1, prefix, p) == 0 && strncmp(name + 1 + p, id, n) == 0 &&
         strcmp(name + 1 + p + n, ".so") == 0;
}

unroll_status candidate_find(struct plugin_registry *reg, const char *id, struct candidate **out, unroll_error *err) {
  for (uint32_t i = 0; i < reg->n_candidates; i++) {
    if (strcmp(reg->candidates[i].id, id) == 0) {
      *out = &reg->candidates[i];
      return UNROLL_OK;
    }
  }
  for (uint32_t i = 0; i < reg->n_rejects; i++) {
    if (named_after(reg->rejects[i].path, id)) {
      return fail(err, UNROLL_E_NOT_FOUND, "no plugin \"%.40s\": %s was left out: %s", id, reg->rejects[i].path,
                  reg->rejects[i].reason);
    }
  }
  char ids[160];
  list_ids(reg, ids, sizeof ids);
  return fail(err, UNROLL_E_NOT_FOUND, "no plugin \"%.40s\": there %s %s", id, reg->n_candidates == 1 ? "is" : "are",
              reg->n_candidates ? ids : "none");
}

unroll_status candidate_reject(struct plugin_registry *reg, struct candidate *c, const unroll_error *reason,
                               unroll_error *err) {
  c->state = PLUGIN_REJECTED;
  c->status = reason->code;
  memcpy(c->reason, reason->message, sizeof c->reason);
  c->reason[sizeof c->reason - 1] = 0;
  text_clean(c->reason);
  log_message(&reg->logger, UNROLL_LOG_WARN, "plugin \"%s\" (%s) left out: %s", c->id, c->path, c->reason);
  return fail_native(err, reason->code, reason->native, "plugin \"%s\": %s", c->id, c->reason);
}

unroll_status candidate_usable(const struct candidate *c, unroll_error *err) {
  return c->crashed ? fail(err, c->status, "plugin \"%s\": %s", c->id, c->reason) : UNROLL_OK;
}

bool candidate_keep_answer(struct plugin_registry *reg, struct candidate *c, const char *bytes, size_t size,
                           int64_t when) {
  char *copy = mem_alloc(&reg->allocator, size);
  if (!copy) {
    return false;
  }
  memcpy(copy, bytes, size);
  mem_free(&reg->allocator, c->answer);
  c->answer = copy;
  c->answer_size = size;
  c->answered = when;
  return true;
}

static unroll_status load_library(struct candidate *c, const unroll_plugin **out, unroll_error *err) {
  if (c->linked) {
    *out = c->linked;
    return plugin_check(c->linked, c->id, err);
  }
  return plugin_file_load(c->path, c->id, &c->library, out, err);
}

static unroll_status load(struct plugin_registry *reg, struct candidate *c, unroll_error *err) {
  const unroll_plugin *plugin = NULL;
  TRY(load_library(c, &plugin, err));
  if (!c->version) {
    c->version = mem_strdup(&reg->allocator, plugin->version);
  }
  if (!c->vendor) {
    c->vendor = mem_strdup(&reg->allocator, plugin->vendor);
  }
  if (!c->version || !c->vendor) {
    return fail(err, UNROLL_E_MEMORY, "out of memory for its version and vendor");
  }
  c->score = plugin->score(&reg->host);
  if (c->score <= 0) {
    return fail(err, UNROLL_E_UNSUPPORTED, "of no use here: its score is %d", c->score);
  }
  c->plugin = plugin;
  return UNROLL_OK;
}

static unroll_status open_backend(struct plugin_registry *reg, struct candidate *c, const unroll_option *options,
                                  uint32_t n_options, unroll_error *err) {
  unroll_error said = UNROLL_ERROR_INIT;
  unroll_backend *backend = NULL;
  const unroll_backend_ops *ops = NULL;
  const unroll_status status = c->plugin->open(&reg->host, options, n_options, &backend, &ops, &said);
  if (status != UNROLL_OK) {
    return plugin_said("open", status, &said, err);
  }
  const unroll_status fit = plugin_check_backend(backend, ops, err);
  if (fit != UNROLL_OK) {
    if (backend) {
      (void)c->plugin->close(backend, NULL);
    }
    return fit;
  }
  const unroll_status wrapped = reg->is_child ? UNROLL_OK : wrap_open(&reg->wrap, c->id, &backend, &ops, &c->wrap, err);
  if (wrapped != UNROLL_OK) {
    (void)c->plugin->close(backend, NULL);
    return wrapped;
  }
  c->backend = backend;
  c->ops = ops;
  return UNROLL_OK;
}

/* Keys and values with their lengths, so that no two lists look alike. */
static char *options_text(const unroll_allocator *a, const unroll_option *options, uint32_t n) {
  struct text t;
  text_init(&t, a);
  text_add(&t, "%u;", n);
  for (uint32_t i = 0; i < n; i++) {
    const char *key = options[i].key ? options[i].key : "", *value = options[i].value ? options[i].value : "";
    text_add(&t, "%zu:%s=%zu:%s;", strlen(key), key, strlen(value), value);
  }
  return text_take(&t);
}

unroll_status candidate_open(struct plugin_registry *reg, struct candidate *c, const unroll_option *options,
                             uint32_t n_options, unroll_error *err) {
  TRY(candidate_usable(c, err));
  char *text = options_text(&reg->allocator, options, n_options);
  if (!text) {
    return fail(err, UNROLL_E_MEMORY, "out of memory for the options of plugin \"%s\"", c->id);
  }
  if (c->references > 0) {
    const bool same = n_options == 0 || strcmp(text, c->options) == 0;
    mem_free(&reg->allocator, text);
    if (!same || c->references == UINT32_MAX) {
      return fail(err, UNROLL_E_STATE, "plugin \"%s\" is open already, %s", c->id,
                  same ? "too many times" : "with other options");
    }
    c->references++;
    return UNROLL_OK;
  }
  unroll_error reason = UNROLL_ERROR_INIT;
  unroll_status status = c->plugin ? UNROLL_OK : load(reg, c, &reason);
  if (status == UNROLL_OK) {
    status = open_backend(reg, c, options, n_options, &reason);
  }
  if (status != UNROLL_OK) {
    mem_free(&reg->allocator, text);
    return candidate_reject(reg, c, &reason, err);
  }
  c->options = text;
  c->references = 1;
  c->state = PLUGIN_OPEN;
  c->reason[0] = 0;
  log_message(&reg->logger, UNROLL_LOG_DEBUG, "plugin \"%s\" %s of %s is open", c->id, c->version, c->vendor);
  return UNROLL_OK;
}

unroll_status candidate_close(struct plugin_registry *reg, struct candidate *c, unroll_error *err) {
  if (c->references == 0 || --c->references > 0) {
    return UNROLL_OK;
  }
  unroll_error said = UNROLL_ERROR_INIT, reason = UNROLL_ERROR_INIT;
  unroll_backend *backend = c->backend;
  const unroll_status found = wrap_close(c->wrap, &backend, &reason);
  const unroll_status status = backend ? c->plugin->close(backend, &said) : UNROLL_OK;
  c->wrap = NULL;
  c->backend = NULL;
  c->ops = NULL;
  mem_free(&reg->allocator, c->options);
  c->options = NULL;
  c->state = PLUGIN_FOUND;
  if (status == UNROLL_OK && found == UNROLL_OK) {
    return UNROLL_OK;
  }
  const unroll_status code = status == UNROLL_OK ? found : plugin_said("close", status, &said, &reason);
  log_message(&reg->logger, UNROLL_LOG_WARN, "plugin \"%s\": %s", c->id, reason.message);
  return fail_native(err, code, reason.native, "plugin \"%s\": %s", c->id, reason.message);
}

void candidate_free(struct plugin_registry *reg, struct candidate *c) {
  const unroll_allocator *a = &reg->allocator;
  if (c->references > 0) {
    log_message(&reg->logger, UNROLL_LOG_WARN, "plugin \"%s\" was still open %u times", c->id, c->references);
    c->references = 1;
    (void)candidate_close(reg, c, NULL);
  }
  /* Drivers leave threads and exit handlers behind, so unloading is the exception that a plugin has to ask for. */
  if (c->library && c->plugin && (c->plugin->flags & UNROLL_PLUGIN_UNLOADABLE)) {
    dlclose(c->library);
  }
  mem_free(a, c->id);
  mem_free(a, c->path);
  mem_free(a, c->answer);
  mem_free(a, c->version);
  mem_free(a, c->vendor);
}
