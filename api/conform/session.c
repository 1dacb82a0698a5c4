/* SPDX-License-Identifier: Apache-2.0 */
/* The plugin in this process: loaded once, opened and closed as the cases ask for it. */
#include "conform/conform_private.h"
#include "plugins/load.h"
#include "plugins/registry_private.h"
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const unroll_plugin *linked_plugin(const char *id) {
  for (const unroll_plugin *const *p = unroll_static_backends; *p; p++)
    if (strcmp((*p)->id, id) == 0)
      return *p;
  return NULL;
}

unroll_status session_load(struct conform_session *s, unroll_error *err) {
  const unroll_plugin *linked = linked_plugin(s->id), *plugin = linked;
  const char *file = s->file;
  if (file && linked)
    return fail(err, UNROLL_E_PLUGIN, "its id \"%s\" is that of a backend that is linked in: no program would load it",
                s->id);
  if (!file && !linked)
    return fail(err, UNROLL_E_NOT_FOUND, "no backend \"%s\" is linked in", s->id);
  conform_host_init(&s->host);
  conform_host_init(&s->reference_host);
  if (file)
    TRY(plugin_file_load(file, s->id, &s->library, &plugin, err));
  else
    TRY(plugin_check(plugin, s->id, err));
  const int32_t score = plugin->score(&s->host.host);
  if (score <= 0)
    return fail(err, UNROLL_E_UNSUPPORTED, "of no use here: its score is %d", score);
  s->plugin = plugin;
  return UNROLL_OK;
}

void session_unload(struct conform_session *s) {
  /* Drivers leave threads and exit handlers behind, so unloading is the exception that a plugin has to ask for. */
  if (s->library && s->plugin && (s->plugin->flags & UNROLL_PLUGIN_UNLOADABLE))
    dlclose(s->library);
  s->library = NULL;
  s->plugin = NULL;
}

/* What a driver says while it starts is no output of a case. */
static void forget_printed(const struct conform_session *s) {
  if (s->printed >= 0) {
    fflush(stdout);
    fflush(stderr);
    (void)!ftruncate(s->printed, 0);
  }
}

/* ---- a backend by its table ---- */
static unroll_status open_backend(const unroll_plugin *plugin, struct conform_host *host, unroll_backend **backend,
                                  const unroll_backend_ops **ops, unroll_error *err) {
  unroll_error said = UNROLL_ERROR_INIT;
  const unroll_status status = plugin->open(&host->host, NULL, 0, backend, ops, &said);
  if (status != UNROLL_OK)
    return plugin_said("open", status, &said, err);
  const unroll_status fit = plugin_check_backend(*backend, *ops, err);
  if (fit != UNROLL_OK && *backend)
    (void)plugin->close(*backend, NULL);
  return fit;
}

static unroll_status open_queue(unroll_backend *backend, uint32_t i, const unroll_option *options, uint32_t n_options,
                                op_target *target, unroll_device_info *info, unroll_error *err) {
  const unroll_backend_ops *ops = target->ops;
  unroll_error said = UNROLL_ERROR_INIT;
  uint32_t n = 0;
  unroll_status status = ops->device_count(backend, &n, &said);
  if (status != UNROLL_OK)
    return plugin_said("device_count", status, &said, err);
  if (i >= n)
    return fail(err, UNROLL_E_NOT_FOUND, n ? "no device %u: it has %u, counted from 0" : "no device %u: it has %u", i,
                n);
  *info = (unroll_device_info){.struct_size = sizeof *info};
  status = ops->device_info(backend, i, info, &said);
  if (status != UNROLL_OK)
    return plugin_said("device_info", status, &said, err);
  if (!info->id || !info->id[0])
    return fail(err, UNROLL_E_PLUGIN, "its device %u has no id", i);
  status = ops->device_open(backend, i, options, n_options, &target->device, &said);
  if (status != UNROLL_OK)
    return plugin_said("device_open", status, &said, err);
  status = ops->queue_create(target->device, 0, &target->queue, &said);
  if (status != UNROLL_OK) {
    ops->device_close(target->device);
    return plugin_said("queue_create", status, &said, err);
  }
  target->alignment = info->alignment;
  target->dtypes = info->dtypes;
  return UNROLL_OK;
}

static unroll_status close_target(const unroll_plugin *plugin, unroll_backend **backend, op_target *target,
                                  unroll_error *err) {
  if (!*backend)
    return UNROLL_OK;
  target->ops->queue_destroy(target->queue);
  target->ops->device_close(target->device);
  unroll_error said = UNROLL_ERROR_INIT;
  const unroll_status status = plugin->close(*backend, &said);
  *backend = NULL;
  memset(target, 0, sizeof *target);
  return status == UNROLL_OK ? UNROLL_OK : plugin_said("close", status, &said, err);
}

static unroll_status open_target(const struct conform_session *s, const unroll_plugin *plugin,
                                 struct conform_host *host, uint32_t device, const unroll_option *options,
                                 uint32_t n_options, unroll_backend **backend, op_target *target,
                                 unroll_device_info *info, unroll_error *err) {
  unroll_backend *opened = NULL;
  op_target t = {.allocator = s->allocator};
  TRY(open_backend(plugin, host, &opened, &t.ops, err));
  const unroll_status status = open_queue(opened, device, options, n_options, &t, info, err);
  if (status != UNROLL_OK) {
    (void)plugin->close(opened, NULL);
    return status;
  }
  *backend = opened;
  *target = t;
  return UNROLL_OK;
}

/* ---- the plugin by a context ---- */
static void close_context(unroll_context **ctx, unroll_device **device) {
  unroll_device_close(*device);
  unroll_context_destroy(*ctx);
  *ctx = NULL;
  *device = NULL;
}

static unroll_status open_context(const struct conform_session *s, const char *file, const char *id,
                                  const unroll_option *options, uint32_t n_options, unroll_context **ctx,
                                  unroll_device **device, unroll_error *err) {
  const unroll_context_options o = {.struct_size = sizeof o,
                                    .allocator = s->allocator,
                                    .plugin_files = file ? &file : NULL,
                                    .n_plugin_files = file ? 1 : 0};
  TRY(unroll_context_create(&o, ctx, err));
  const unroll_status status = unroll_device_open(*ctx, id, options, n_options, device, err);
  if (status != UNROLL_OK)
    close_context(ctx, device);
  return status;
}

unroll_status session_close_plugin(struct conform_session *s, unroll_error *err) {
  close_context(&s->ctx, &s->device);
  return close_target(s->plugin, &s->backend, &s->target, err);
}

unroll_status session_target(struct conform_session *s, const op_target **target, unroll_error *err) {
  close_context(&s->ctx, &s->device);
  if (!s->backend) {
    TRY(open_target(s, s->plugin, &s->host, s->device_index, s->device_options, s->n_device_options, &s->backend,
                    &s->target, &s->info, err));
    snprintf(s->device_id, sizeof s->device_id, "%s:%.30s", s->id, s->info.id);
    forget_printed(s);
  }
  *target = &s->target;
  return UNROLL_OK;
}

unroll_status session_device(struct conform_session *s, unroll_device **device, unroll_error *err) {
  if (!s->device_id[0]) {
    const op_target *target = NULL;
    TRY(session_target(s, &target, err));
  }
  TRY(close_target(s->plugin, &s->backend, &s->target, err));
  if (!s->device) {
    TRY(open_context(s, s->file, s->device_id, s->device_options, s->n_device_options, &s->ctx, &s->device, err));
    forget_printed(s);
  }
  *device = s->device;
  return UNROLL_OK;
}

unroll_status session_reference(struct conform_session *s, const op_target **reference, unroll_error *err) {
  unroll_device_info info;
  const unroll_plugin *cpu = linked_plugin("cpu");
  if (!cpu)
    return fail(err, UNROLL_E_NOT_FOUND, "the reference, backend \"cpu\", is not linked in");
  if (!s->reference_backend)
    TRY(open_target(s, cpu, &s->reference_host, 0, NULL, 0, &s->reference_backend, &s->reference, &info, err));
  *reference = &s->reference;
  return UNROLL_OK;
}

unroll_status session_cpu(struct conform_session *s, unroll_device **cpu, unroll_error *err) {
  if (!s->cpu)
    TRY(open_context(s, NULL, "cpu", NULL, 0, &s->cpu_ctx, &s->cpu, err));
  *cpu = s->cpu;
  return UNROLL_OK;
}

unroll_status session_close(struct conform_session *s, unroll_error *err) {
  const unroll_status status = session_close_plugin(s, err);
  close_context(&s->cpu_ctx, &s->cpu);
  (void)close_target(linked_plugin("cpu"), &s->reference_backend, &s->reference, NULL);
  return status;
}
