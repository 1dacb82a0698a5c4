/* SPDX-License-Identifier: Apache-2.0 */
/*
 * unroll/runtime.h: run a graph on devices.
 *
 *     unroll_context *ctx;      unroll_context_create(NULL, &ctx, &err);
 *     unroll_device *dev;       unroll_device_open(ctx, "opencl", NULL, 0, &dev, &err);
 *     unroll_executable *exe;   unroll_compile(graph, &dev, 1, NULL, &exe, &err);
 *     unroll_binding *b;        unroll_binding_create(exe, &b, &err);
 *     unroll_binding_write(b, "x", x, sizeof x, &err);
 *     unroll_run(b, NULL, &err);
 *     unroll_binding_read(b, "y", y, sizeof y, &err);
 *
 * A context holds the plugins; a device belongs to it. An executable is immutable and can be bound any number of times. A
 * binding holds the buffers of the graph's inputs, parameters, states and outputs, by name, and scratch memory: runs at once
 * need a binding each. A run allocates nothing and returns when its work is queued; reading a tensor waits for it.
 * Parents outlive their children: context, device, executable, binding.
 */
#ifndef UNROLL_RUNTIME_H
#define UNROLL_RUNTIME_H
#include <unroll/graph.h>
#ifdef __cplusplus
extern "C" {
#endif

typedef struct unroll_context unroll_context;
typedef struct unroll_device unroll_device;
typedef struct unroll_executable unroll_executable;
typedef struct unroll_binding unroll_binding;

/* ---- context ---- */
typedef struct unroll_context_options {
  uint32_t struct_size;
  uint32_t n_threads;                /* of backends that run on the host; 0: unroll_thread_count() */
  const unroll_allocator *allocator; /* copied; NULL: malloc */
  const unroll_logger *logger;       /* copied; NULL: silence */
  const char *const *plugin_files;   /* searched first; absolute paths */
  uint32_t n_plugin_files, reserved;
} unroll_context_options;
/* Finds plugins without running them (the search order stands in docs/plugins.md). options may be NULL. UNROLL_E_MEMORY.
 * [any] */
UNROLL_API unroll_status unroll_context_create(const unroll_context_options *options, unroll_context **ctx,
                                               unroll_error *err);
/* After everything made from it. [obj] */
UNROLL_API void unroll_context_destroy(unroll_context *ctx);

/* ---- what there is ---- */
typedef struct unroll_device_entry {
  const char *id; /* "cpu:0", "opencl:0.1": what unroll_device_open takes */
  const char *name, *vendor, *driver;
  int32_t kind; /* UNROLL_KIND_* */
  uint32_t reserved;
  uint64_t mem_total;
} unroll_device_entry;
typedef struct unroll_plugin_entry {
  const char *id, *version, *vendor, *path; /* version and vendor are "" where the plugin was rejected */
  const unroll_device_entry *devices;
  uint32_t n_devices, reserved;
} unroll_plugin_entry;
typedef struct unroll_plugin_rejection {
  const char *path, *reason;
} unroll_plugin_rejection;
typedef struct unroll_plugin_list {
  uint32_t n_plugins, n_rejected;
  const unroll_plugin_entry *plugins;
  const unroll_plugin_rejection *rejected;
} unroll_plugin_list;
/* Looks at every plugin's devices, in a child process, since a driver may abort or hang. Freed with
 * unroll_plugin_list_free. [any] */
UNROLL_API unroll_status unroll_context_list(unroll_context *ctx, unroll_plugin_list **list, unroll_error *err);
UNROLL_API void unroll_plugin_list_free(unroll_context *ctx, unroll_plugin_list *list);

/* ---- devices ---- */
/*
 * name: a plugin's id ("cpu", "opencl": its first device), an id of unroll_device_entry ("opencl:0.1"), or "auto": the first
 * GPU, else the first device of the plugin with the highest score, both only above the score of the "cpu" reference, else
 * "cpu". "cpu" loads no other plugin. Options go to the plugin's device_open. UNROLL_E_NOT_FOUND names the devices that there
 * are; what the plugin says of its own failures. [any]
 */
UNROLL_API unroll_status unroll_device_open(unroll_context *ctx, const char *name, const unroll_option *options,
                                            uint32_t n_options, unroll_device **device, unroll_error *err);
UNROLL_API void unroll_device_close(unroll_device *device);
/* "opencl:0.0", and the device's own description; both live as long as the device. [any] */
UNROLL_API const char *unroll_device_id(const unroll_device *device);
UNROLL_API const unroll_device_info *unroll_device_describe(const unroll_device *device);

/* ---- compile ---- */
typedef struct unroll_compile_options {
  uint32_t struct_size;
  uint32_t strict;              /* a node that the first device does not take is an error, not a fallback */
  uint32_t allow_step_crossing; /* a scan may move data between devices at every time step */
  uint32_t reserved;
} unroll_compile_options;
/*
 * Offers the graph to the devices in their order; what one does not take goes to the next, and what none takes to the cpu
 * reference, which is opened for it. Each fallback is logged: node, devices, reason. The graph is not needed afterwards.
 *   UNROLL_E_UNSUPPORTED  strict, and a device does not take a node; or a scan would cross devices at every step
 *   UNROLL_E_PLUGIN       a plugin's private group is not convex
 *   what the graph's own first error is; what the last device's compile returned; UNROLL_E_MEMORY and
 *   UNROLL_E_DEVICE_LOST at once, from any device
 * Takes the same time and memory for every number of time steps. [any] for different devices, else [obj]
 */
UNROLL_API unroll_status unroll_compile(const unroll_graph *graph, unroll_device *const *devices, uint32_t n_devices,
                                        const unroll_compile_options *options, unroll_executable **exe,
                                        unroll_error *err);
UNROLL_API void unroll_executable_destroy(unroll_executable *exe);

typedef struct unroll_executable_info {
  uint32_t struct_size;
  uint32_t n_groups;      /* parts that run on one device each */
  uint32_t n_fallbacks;   /* nodes that did not go to the first device */
  uint32_t n_crossings;   /* copies between devices in a run, a scan's counted once */
  uint64_t scratch_bytes; /* of a binding, over all devices, workspaces included */
} unroll_executable_info;
UNROLL_API unroll_executable_info unroll_executable_describe(const unroll_executable *exe);

/* ---- bind and run ---- */
/* Parameters and states start as zeros. UNROLL_E_MEMORY, UNROLL_E_DEVICE_MEMORY. [any] */
UNROLL_API unroll_status unroll_binding_create(unroll_executable *exe, unroll_binding **binding, unroll_error *err);
UNROLL_API void unroll_binding_destroy(unroll_binding *binding);
/*
 * From now on `name` of this binding is the same memory as `other_name` of other: parameters that a training and an evaluation
 * graph share, the state that goes in where it came out. Same dtype and shape, on the same device, else UNROLL_E_SHAPE or
 * UNROLL_E_STATE; UNROLL_E_NOT_FOUND. The memory lives until the last binding that has it is destroyed. Both bindings then
 * belong to one thread. [obj]
 */
UNROLL_API unroll_status unroll_binding_share(unroll_binding *binding, const char *name, unroll_binding *other,
                                              const char *other_name, unroll_error *err);
/*
 * Copies bytes to or from a tensor. bytes is its whole size, or, of a tensor with a run-time size, a whole number of steps
 * of axis 0 no larger than that; else UNROLL_E_SHAPE. Lengths and ids are checked by their ops, not here. [obj]
 */
UNROLL_API unroll_status unroll_binding_write(unroll_binding *binding, const char *name, const void *data,
                                              uint64_t bytes, unroll_error *err);
UNROLL_API unroll_status unroll_binding_read(unroll_binding *binding, const char *name, void *data, uint64_t bytes,
                                             unroll_error *err);
/* Fills a tensor with zeros: the state at the start of a sequence. [obj] */
UNROLL_API unroll_status unroll_binding_clear(unroll_binding *binding, const char *name, unroll_error *err);

typedef struct unroll_run_options {
  uint32_t struct_size, n_dims;
  const int64_t *dims;   /* run-time sizes in the order of unroll_graph_dim; n_dims 0: all at their maximum */
  uint64_t seed, update; /* of the random ops */
  int64_t t0, row0;      /* the first time step's place in its sequence, and the first row's in the whole batch */
} unroll_run_options;
/*
 * Queues one run. options may be NULL. UNROLL_E_RANGE names a run-time size out of its bounds; UNROLL_E_DEVICE... as the
 * plugins report; a deferred error comes with the next read or sync. [obj]
 */
UNROLL_API unroll_status unroll_run(unroll_binding *binding, const unroll_run_options *options, unroll_error *err);
/* Waits until everything queued is done. [obj] */
UNROLL_API unroll_status unroll_binding_sync(unroll_binding *binding, unroll_error *err);

/* ---- where the time goes ---- */
typedef struct unroll_profile_entry { /* one thing that a device did */
  uint32_t struct_size;
  uint32_t op;               /* UNROLL_OP_*; 0 where there is no node */
  const char *device;        /* "opencl:0.0" */
  const char *node;          /* of the graph as it is run, where a layer may be a scan; or NULL, see below */
  const char *scan;          /* whose step the node stands in, or NULL */
  const char *op_name;       /* "matmul"; NULL where there is no node */
  const char *label;         /* the kernel's or transfer's name; never NULL */
  int32_t layer, direction;  /* where in the network, -1 where it is in no recurrence or there is no node */
  int64_t t, count;          /* time steps of a scan that it covers, from t on in the scan's direction; else 0, 1 */
  uint64_t begin_ns, end_ns; /* of CLOCK_MONOTONIC, as near as the device's clock can be brought to it */
  uint64_t bytes;            /* of a transfer; else 0 */
} unroll_profile_entry;
/*
 * From now on what the binding's devices do for it is timed (on: not 0), or no more. Waits for what is queued. Timed
 * runs are slower, and each entry takes about 100 bytes until it is read. Bindings that share memory are timed
 * together; unroll_binding_share leaves it as it is with `other`. What was not read is lost when it is turned off, and
 * may be when memory is shared. A device that cannot time is warned about in the log. UNROLL_E_UNSUPPORTED: none can,
 * one is named. UNROLL_E_MEMORY; as the plugins report. After an error nothing has changed. [obj]
 */
UNROLL_API unroll_status unroll_binding_profile(unroll_binding *binding, int32_t on, unroll_error *err);
/*
 * Waits for what is queued and calls `each`, in this thread, for everything that was timed since the last call: device
 * by device, of a device in the order of their beginnings. The node is NULL for a transfer, for work that is for no one
 * node, and for what another binding ran that shares memory with this one. The entry and its strings are valid during
 * the call of each, which must not use the binding. UNROLL_E_STATE: nothing is timed. UNROLL_E_UNSUPPORTED: a driver
 * has no times to give. [obj]
 */
UNROLL_API unroll_status unroll_binding_profile_read(unroll_binding *binding,
                                                     void (*each)(void *ctx, const unroll_profile_entry *entry),
                                                     void *ctx, unroll_error *err);

#ifdef __cplusplus
}
#endif
#endif
