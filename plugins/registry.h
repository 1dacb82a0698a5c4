/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The backends of this process: found without running them, opened on demand, each at most once.
 *
 *     struct plugin_registry *plugins;
 *     struct plugin_backend cpu;
 *     TRY(plugin_registry_create(&(struct plugin_registry_options){0}, &plugins, err));
 *     TRY(plugin_registry_open(plugins, "cpu", NULL, 0, &cpu, err));
 *     cpu.ops->device_count(cpu.backend, &n, err);
 *     TRY(plugin_registry_close(plugins, &cpu, err));
 *     plugin_registry_destroy(plugins);
 *
 * Candidates come in this order, and the first with an id wins:
 *   1. backends linked into the library
 *   2. files of the options
 *   3. UNROLL_PLUGIN_FILES, files separated by ':'
 *   4. UNROLL_PLUGIN_PATH, folders separated by ':'
 *   5. the folder unroll/ beside libunroll (beside the program where the library is linked into it)
 *   6. UNROLL_PLUGIN_DIR, a macro of the build
 * Of folders only names unroll-*.so count, in alphabetical order. Relative paths are rejected, so the working directory is
 * never searched; both variables are ignored in a program with raised privileges (secure_getenv).
 *
 * A file is judged by its ELF note first: nothing of a rejected one runs. What is rejected stays listed with its reason.
 * The ABI calls a plugin's open and close [main]: two registries of a process must not open or close the same plugin at
 * once, nor while the other runs it.
 */
#ifndef PLUGINS_REGISTRY_H
#define PLUGINS_REGISTRY_H
#include <unroll/base.h>

struct plugin_registry;

struct plugin_registry_options {
  const unroll_allocator *allocator; /* NULL: the C library's; the struct is copied */
  const unroll_logger *logger;       /* NULL: none; copied. It must not call the registry */
  const char *const *files;          /* n_files absolute paths, read during the call */
  uint32_t n_files;
  uint32_t n_threads; /* what plugins are told to use; 0: unroll_thread_count() */
};

/* Discovers the candidates; a bad file is no error. UNROLL_E_MEMORY. [any] */
unroll_status plugin_registry_create(const struct plugin_registry_options *options, struct plugin_registry **out,
                                     unroll_error *err);
/* Closes what is still open and unloads the plugins that allow it. NULL: nothing. [obj] */
void plugin_registry_destroy(struct plugin_registry *registry);

/* ---- what there is. Strings live as long as the registry ---- */
enum { PLUGIN_FOUND = 0, PLUGIN_OPEN = 1, PLUGIN_REJECTED = 2 };
#define PLUGIN_BUILT_IN "(built in)" /* stands for the path of a backend that is linked in */

struct plugin_candidate {
  const char *id, *path;
  const char *version, *vendor; /* NULL until it was opened or probed: the file's note does not say */
  int32_t score;                /* 0 until then too */
  int32_t state;                /* PLUGIN_FOUND: not open, for all that is known it can be */
  char reason[240];             /* of PLUGIN_REJECTED; else "" */
};
/* One per id, in the order above. The count never changes. [any] */
uint32_t plugin_registry_count(struct plugin_registry *registry);
/* UNROLL_E_RANGE. [any] */
unroll_status plugin_registry_get(struct plugin_registry *registry, uint32_t i, struct plugin_candidate *out,
                                  unroll_error *err);

/* The candidate of that id, without running it. UNROLL_E_NOT_FOUND as plugin_registry_open. [any] */
unroll_status plugin_registry_find(struct plugin_registry *registry, const char *id, uint32_t *i, unroll_error *err);

struct plugin_rejected {
  const char *path; /* a file, or a folder that can't be searched */
  char reason[240];
};
/* Files and folders rejected at the start, shadowed files, then candidates that are PLUGIN_REJECTED by now. [any] */
uint32_t plugin_registry_rejected_count(struct plugin_registry *registry);
/* UNROLL_E_RANGE. [any] */
unroll_status plugin_registry_rejected_get(struct plugin_registry *registry, uint32_t i, struct plugin_rejected *out,
                                           unroll_error *err);

/* ---- opening ---- */
struct plugin_backend {
  unroll_backend *backend;
  const unroll_backend_ops *ops; /* complete as of ABI 0.1, the required functions are there */
  const unroll_plugin *plugin;
  int32_t score;      /* above 0 */
  uint32_t candidate; /* index for plugin_registry_get */
};

/*
 * Opens the backend of that id, or gives the one that is open already; each success needs a plugin_registry_close.
 * A backend that is open is shared where the options are the same or none are given.
 *   UNROLL_E_NOT_FOUND    no such id: the message names those that there are, or why that one was rejected
 *   UNROLL_E_STATE        it is open with other options
 *   UNROLL_E_PLUGIN       it can't be loaded, lacks something required, or crashed when it was probed
 *   UNROLL_E_ABI          it was built for another ABI
 *   UNROLL_E_UNSUPPORTED  it says that it is of no use here
 *   UNROLL_E_MEMORY, UNROLL_E_IO, or what the plugin's own open returned
 * On failure *out is zeros. A failure is kept as the candidate's reason; the next call tries again, except after a crash.
 * [any]
 */
unroll_status plugin_registry_open(struct plugin_registry *registry, const char *id, const unroll_option *options,
                                   uint32_t n_options, struct plugin_backend *out, unroll_error *err);
/* Gives one back and zeroes *backend; the last one closes it, and the plugin's status is returned. [any] */
unroll_status plugin_registry_close(struct plugin_registry *registry, struct plugin_backend *backend,
                                    unroll_error *err);

/* ---- looking at devices, at a distance ---- */
#define PLUGIN_PROBE_MS 10000u

struct plugin_device {
  const char *id; /* "opencl:0.1": the plugin's id before its own */
  const char *name, *vendor, *driver;
  int32_t kind;
  uint64_t mem_total, max_buffer, alignment, caps, dtypes; /* as in unroll_device_info */
};

/*
 * Lists the devices of a backend from a child process, since a driver may abort, hang or call exit. A crash or an exit
 * rejects the candidate for good, no answer within timeout_ms until it is tried again: UNROLL_E_PLUGIN, with the signal and
 * the last line that the driver printed. A backend that is open is asked in this process instead. *devices: n of them,
 * freed by plugin_devices_free; NULL where n is 0 or on failure. Other errors as plugin_registry_open, and UNROLL_E_IO
 * where no child can be made.
 *
 * The child is forked and doesn't exec: a library has no program of its own to run. It calls neither the allocator nor the
 * logger of the options, but malloc, which therefore has to survive fork where other threads run (glibc's does). [any]
 */
unroll_status plugin_registry_probe(struct plugin_registry *registry, const char *id, uint32_t timeout_ms,
                                    struct plugin_device **devices, uint32_t *n, unroll_error *err);
/*
 * As plugin_registry_probe, from what the child of an earlier process answered where that still stands (kept for a day
 * in the user's cache folder, see registry_memory.c), and from a child of its own otherwise: for a first look that a
 * wrong answer can't harm. plugin_registry_probe always asks anew, and drops what was kept. [any]
 */
unroll_status plugin_registry_recall(struct plugin_registry *registry, const char *id, uint32_t timeout_ms,
                                     struct plugin_device **devices, uint32_t *n, unroll_error *err);
/*
 * Before plugin_registry_open: that a child has listed this backend's devices and survived, one of this process or of an
 * earlier one. Takes what is kept of that away until plugin_registry_settle. Errors as plugin_registry_probe. [any]
 */
unroll_status plugin_registry_ensure(struct plugin_registry *registry, const char *id, uint32_t timeout_ms,
                                     unroll_error *err);
/* After it: a device of the backend is open. [any] */
void plugin_registry_settle(struct plugin_registry *registry, const char *id);
/* With the registry that made them; NULL: nothing. [any] */
void plugin_devices_free(struct plugin_registry *registry, struct plugin_device *devices);
#endif
