/* SPDX-License-Identifier: Apache-2.0 */
/* Where plugins are looked for, and in which order; registry.h has the list. */
#include "base/base_private.h"
#include "plugins/note.h"
#include "plugins/registry_private.h"
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static unroll_status no_memory(unroll_error *err) {
  return fail(err, UNROLL_E_MEMORY, "out of memory while looking for plugins");
}

static unroll_status add_reject(struct plugin_registry *reg, const char *path, const struct plugin_note *note,
                                int32_t level, const char *reason, unroll_error *err) {
  if (!mem_grow(&reg->allocator, &reg->rejects, &reg->reject_capacity, reg->n_rejects + 1, sizeof *reg->rejects)) {
    return no_memory(err);
  }
  char *copy = mem_strdup(&reg->allocator, path);
  if (!copy) {
    return no_memory(err);
  }
  struct rejected *r = &reg->rejects[reg->n_rejects++];
  r->path = copy;
  if (note) {
    r->device = note->device;
    r->inode = note->inode;
  }
  memcpy(r->reason, reason, strnlen(reason, sizeof r->reason - 1));
  log_message(&reg->logger, level, "plugin %s left out: %s", path, reason);
  return UNROLL_OK;
}

static unroll_status add_candidate(struct plugin_registry *reg, const char *id, const char *path,
                                   const struct plugin_note *note, const unroll_plugin *linked, unroll_error *err) {
  for (uint32_t i = 0; i < reg->n_candidates; i++) {
    if (strcmp(reg->candidates[i].id, id) == 0) {
      unroll_error shadow = UNROLL_ERROR_INIT;
      (void)fail(&shadow, UNROLL_OK, "shadowed: \"%s\" was found first at %s", id, reg->candidates[i].path);
      return add_reject(reg, path, note, UNROLL_LOG_INFO, shadow.message, err);
    }
  }
  if (!mem_grow(&reg->allocator, &reg->candidates, &reg->candidate_capacity, reg->n_candidates + 1,
                sizeof *reg->candidates)) {
    return no_memory(err);
  }
  struct candidate *c = &reg->candidates[reg->n_candidates++];
  c->id = mem_strdup(&reg->allocator, id);
  c->path = mem_strdup(&reg->allocator, path);
  if (!c->id || !c->path) {
    return no_memory(err);
  }
  c->linked = linked;
  if (note) {
    c->device = note->device;
    c->inode = note->inode;
  }
  log_message(&reg->logger, UNROLL_LOG_DEBUG, "plugin \"%s\" found at %s", id, path);
  return UNROLL_OK;
}

static bool seen(const struct plugin_registry *reg, const struct plugin_note *note) {
  if (note->inode == 0) {
    return false;
  }
  for (uint32_t i = 0; i < reg->n_candidates; i++) {
    if (reg->candidates[i].inode == note->inode && reg->candidates[i].device == note->device) {
      return true;
    }
  }
  for (uint32_t i = 0; i < reg->n_rejects; i++) {
    if (reg->rejects[i].inode == note->inode && reg->rejects[i].device == note->device) {
      return true;
    }
  }
  return false;
}

static unroll_status reject_relative(struct plugin_registry *reg, const char *path, unroll_error *err) {
  return add_reject(reg, path, NULL, UNROLL_LOG_WARN, "a relative path: only absolute ones are searched", err);
}

static unroll_status search_file(struct plugin_registry *reg, const char *path, unroll_error *err) {
  if (path[0] != '/') {
    return reject_relative(reg, path, err);
  }
  struct plugin_note note;
  unroll_error reason = UNROLL_ERROR_INIT;
  const unroll_status status = plugin_note_read(path, &note, &reason);
  /* The same file reached by two ways, as when the search path names the library's own folder: not worth a word. */
  if (seen(reg, &note)) {
    return UNROLL_OK;
  }
  if (status != UNROLL_OK) {
    return add_reject(reg, path, &note, UNROLL_LOG_WARN, reason.message, err);
  }
  return add_candidate(reg, note.id, path, &note, NULL, err);
}

static bool is_plugin_name(const char *name) {
  static const char prefix[] = "unroll-", suffix[] = ".so";
  const size_t n = strlen(name), p = sizeof prefix - 1, s = sizeof suffix - 1;
  return n > p + s && memcmp(name, prefix, p) == 0 && memcmp(name + n - s, suffix, s) == 0;
}

static int compare_names(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

struct names {
  char **name;
  uint32_t n, capacity;
};

/* errno is 0 where memory ran out. */
static bool list_names(const unroll_allocator *a, DIR *folder, struct names *names) {
  for (;;) {
    errno = 0;
    const struct dirent *entry = readdir(folder);
    if (!entry) {
      return errno == 0;
    }
    if (!is_plugin_name(entry->d_name)) {
      continue;
    }
    errno = 0;
    char *name = mem_strdup(a, entry->d_name);
    if (!name || !mem_grow(a, &names->name, &names->capacity, names->n + 1, sizeof *names->name)) {
      mem_free(a, name);
      errno = 0;
      return false;
    }
    names->name[names->n++] = name;
  }
}

static unroll_status reject_folder(struct plugin_registry *reg, const char *path, int code, unroll_error *err) {
  unroll_error reason = UNROLL_ERROR_INIT;
  (void)fail(&reason, UNROLL_E_IO, "the folder can't be read: %s", strerror(code));
  return add_reject(reg, path, NULL, UNROLL_LOG_WARN, reason.message, err);
}

/* asked: the user named it, so its absence is worth a word. */
static unroll_status search_folder(struct plugin_registry *reg, const char *path, bool asked, unroll_error *err) {
  if (path[0] != '/') {
    return reject_relative(reg, path, err);
  }
  const unroll_allocator *a = &reg->allocator;
  DIR *folder = opendir(path);
  if (!folder) {
    const int code = errno;
    log_message(&reg->logger, UNROLL_LOG_DEBUG, "no plugins in %s: %s", path, strerror(code));
    return code == ENOENT && !asked ? UNROLL_OK : reject_folder(reg, path, code, err);
  }
  struct stat st;
  struct names names = {0};
  unroll_status status = UNROLL_OK;
  if (fstat(dirfd(folder), &st) == 0 && (st.st_mode & S_IWOTH)) {
    status = add_reject(reg, path, NULL, UNROLL_LOG_WARN,
                        "everybody may write to the folder: remove that right (chmod o-w)", err);
  } else if (!list_names(a, folder, &names)) {
    const int code = errno;
    status = code != 0 ? reject_folder(reg, path, code, err) : no_memory(err);
  }
  closedir(folder);
  if (names.n > 0) {
    qsort(names.name, names.n, sizeof *names.name, compare_names);
  }
  log_message(&reg->logger, UNROLL_LOG_DEBUG, "%s: %u files named unroll-*.so", path, names.n);
  for (uint32_t i = 0; i < names.n; i++) {
    if (status == UNROLL_OK) {
      char *file = mem_printf(a, "%s/%s", path, names.name[i]);
      status = file ? search_file(reg, file, err) : no_memory(err);
      mem_free(a, file);
    }
    mem_free(a, names.name[i]);
  }
  mem_free(a, names.name);
  return status;
}

static unroll_status search_variable(struct plugin_registry *reg, const char *variable, bool folders,
                                     unroll_error *err) {
  const char *at = secure_getenv(variable);
  while (at && *at) {
    const size_t n = strcspn(at, ":");
    if (n > 0) {
      char *element = mem_printf(&reg->allocator, "%.*s", (int)n, at);
      if (!element) {
        return no_memory(err);
      }
      const unroll_status status = folders ? search_folder(reg, element, true, err) : search_file(reg, element, err);
      mem_free(&reg->allocator, element);
      TRY(status);
    }
    at += n + (at[n] == ':');
  }
  return UNROLL_OK;
}

/* The folder unroll/ beside the file that holds this very code. */
static unroll_status search_own_folder(struct plugin_registry *reg, unroll_error *err) {
  /* Any object of this file will do; a function's address would have to pass through a cast that ISO C lacks. */
  static const char here = 0;
  Dl_info info;
  struct link_map *map = NULL;
  char program[4096];
  if (!dladdr1(&here, &info, (void **)&map, RTLD_DL_LINKMAP) || !map) {
    return UNROLL_OK;
  }
  const char *file = map->l_name;
  if (!file || file[0] == 0) {
    /* Linked into the program; the loader has only argv[0] for it, which may be relative or made up. */
    const ssize_t n = readlink("/proc/self/exe", program, sizeof program);
    if (n <= 0 || (size_t)n >= sizeof program) {
      return UNROLL_OK;
    }
    program[n] = 0;
    file = program;
  }
  const char *slash = strrchr(file, '/');
  if (file[0] != '/' || !slash) {
    log_message(&reg->logger, UNROLL_LOG_INFO, "plugins beside the library aren't searched: it was loaded from %s",
                file);
    return UNROLL_OK;
  }
  char *folder = mem_printf(&reg->allocator, "%.*s/unroll", (int)(slash - file), file);
  if (!folder) {
    return no_memory(err);
  }
  const unroll_status status = search_folder(reg, folder, false, err);
  mem_free(&reg->allocator, folder);
  return status;
}

unroll_status search_all(struct plugin_registry *reg, const struct plugin_registry_options *options,
                         unroll_error *err) {
  for (const unroll_plugin *const *p = unroll_static_backends; *p; p++) {
    TRY(add_candidate(reg, (*p)->id, PLUGIN_BUILT_IN, NULL, *p, err));
  }
  for (uint32_t i = 0; i < options->n_files; i++) {
    TRY(search_file(reg, options->files[i], err));
  }
  TRY(search_variable(reg, "UNROLL_PLUGIN_FILES", false, err));
  TRY(search_variable(reg, "UNROLL_PLUGIN_PATH", true, err));
  TRY(search_own_folder(reg, err));
#ifdef UNROLL_PLUGIN_DIR
  TRY(search_folder(reg, UNROLL_PLUGIN_DIR, false, err));
#endif
  return UNROLL_OK;
}
