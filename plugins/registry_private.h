/* SPDX-License-Identifier: Apache-2.0 */
/* What the registry's own files share. Everything here is called with the mutex held, or before anybody else knows the registry. */
#ifndef PLUGINS_REGISTRY_PRIVATE_H
#define PLUGINS_REGISTRY_PRIVATE_H
#include "plugins/registry.h"
#include "plugins/wrap.h"
#include <pthread.h>
#include <stdbool.h>
#include <sys/types.h>

struct candidate {
  char *id, *path;
  dev_t device;
  ino_t inode;
  const unroll_plugin *linked; /* of a backend that is linked in; else NULL */
  void *library;               /* dlopen's; kept when a check fails later, since unloading is the plugin's to allow */
  const unroll_plugin *plugin; /* NULL until it passed all checks */
  char *version, *vendor;
  unroll_backend *backend;
  const unroll_backend_ops *ops;
  struct wrap_stack *wrap; /* NULL: backend and ops are the plugin's own */
  char *options;           /* those that it was opened with, in one string */
  uint32_t references;
  int32_t score, state;
  bool crashed; /* it took a child process down: never to be run in this one */
  bool vouched; /* a child of this process listed its devices, and it was not opened since */
  char *answer; /* the last of a child, of this process or remembered; else NULL */
  size_t answer_size;
  int64_t answered; /* when, in seconds since 1970 */
  unroll_status status;
  char reason[240];
};

struct rejected {
  char *path;
  dev_t device;
  ino_t inode;
  char reason[240];
};

struct plugin_registry {
  unroll_allocator allocator;
  unroll_logger logger;
  unroll_host host; /* ctx is the registry */
  pthread_mutex_t mutex;
  struct candidate *candidates;
  struct rejected *rejects;
  uint32_t n_candidates, candidate_capacity, n_rejects, reject_capacity;
  uint32_t n_threads;
  struct wrap_host wrap;
  bool is_child; /* a probe's: nothing is wrapped */
};

/* The table that the build writes, NULL at its end. */
extern const unroll_plugin *const unroll_static_backends[];

/* registry_search.c: fills candidates and rejects. UNROLL_E_MEMORY. */
unroll_status search_all(struct plugin_registry *registry, const struct plugin_registry_options *options,
                         unroll_error *err);

/* registry_load.c */
void host_init(struct plugin_registry *registry);
/* UNROLL_E_NOT_FOUND, as plugin_registry_open says. */
unroll_status candidate_find(struct plugin_registry *registry, const char *id, struct candidate **out,
                             unroll_error *err);
/* Keeps the reason, and fails with it behind the candidate's name. */
unroll_status candidate_reject(struct plugin_registry *registry, struct candidate *c, const unroll_error *reason,
                               unroll_error *err);
/* What a crash left behind; UNROLL_OK where there was none. */
unroll_status candidate_usable(const struct candidate *c, unroll_error *err);
unroll_status candidate_open(struct plugin_registry *registry, struct candidate *c, const unroll_option *options,
                             uint32_t n_options, unroll_error *err);
unroll_status candidate_close(struct plugin_registry *registry, struct candidate *c, unroll_error *err);
/* Keeps a copy of what a child answered. false: no memory. */
bool candidate_keep_answer(struct plugin_registry *registry, struct candidate *c, const char *bytes, size_t size,
                           int64_t when);
/* Closes, unloads where allowed, frees. */
void candidate_free(struct plugin_registry *registry, struct candidate *c);

/* registry_memory.c: answers of children, in the user's cache folder. Built-in plugins have none there. */
/* Fills the candidate's answer; false where there is nothing of use. */
bool memory_recall(struct plugin_registry *registry, struct candidate *c);
/* As memory_recall, and nobody else finds it until memory_store. */
bool memory_take(struct plugin_registry *registry, struct candidate *c);
/* Writes the candidate's answer, if it has one; a folder that can't be written costs time later, no more. */
void memory_store(struct plugin_registry *registry, struct candidate *c);
bool memory_forget(const struct candidate *c); /* false: there was none, or it stays */

/* registry_devices.c: a list of devices as bytes, to cross a pipe. text: struct text of api/base. */
struct text;
enum { DEVICES_MAX = 4096, DEVICES_BYTES_MAX = 1 << 20 };
unroll_status devices_write(unroll_backend *backend, const unroll_backend_ops *ops, struct text *out, uint32_t *n,
                            unroll_error *err);
/* bytes may be anything: they come from a process that ran a stranger's code. */
unroll_status devices_read(const unroll_allocator *a, const char *plugin_id, const char *bytes, size_t size, uint32_t n,
                           struct plugin_device **out, unroll_error *err);
/* Control characters to blanks: what drivers say ends up in terminals and logs. */
void text_clean(char *s);
#endif
