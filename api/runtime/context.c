/* SPDX-License-Identifier: Apache-2.0 */
/* context.c: contexts, what plugins and devices there are, and opening devices. */
#include "runtime/runtime_private.h"
#include <string.h>

unroll_status unroll_context_create(const unroll_context_options *options, unroll_context **out, unroll_error *err) {
  if (!out)
    return fail(err, UNROLL_E_INVALID, "unroll_context_create: ctx is NULL");
  *out = NULL;
  if (options && !UNROLL_HAS(unroll_context_options, options, n_plugin_files))
    return fail(err, UNROLL_E_INVALID, "unroll_context_options: struct_size is %u, expected at least %zu",
                options->struct_size, sizeof *options);
  const unroll_allocator *a = options ? options->allocator : NULL;
  unroll_context *ctx = mem_zalloc(a, sizeof *ctx);
  if (!ctx)
    return fail(err, UNROLL_E_MEMORY, "out of memory for a context");
  if (a)
    ctx->allocator = *a;
  if (options && options->logger)
    ctx->logger = *options->logger;
  atomic_init(&ctx->generation, 0);
  struct plugin_registry_options registry = {.allocator = &ctx->allocator, .logger = &ctx->logger};
  if (options) {
    registry.files = options->plugin_files;
    registry.n_files = options->n_plugin_files;
    registry.n_threads = options->n_threads;
  }
  const unroll_status st = plugin_registry_create(&registry, &ctx->registry, err);
  if (st != UNROLL_OK) {
    mem_free(a, ctx);
    return st;
  }
  *out = ctx;
  return UNROLL_OK;
}

void unroll_context_destroy(unroll_context *ctx) {
  if (!ctx)
    return;
  plugin_registry_destroy(ctx->registry);
  const unroll_allocator a = ctx->allocator;
  mem_free(&a, ctx);
}

/* ---- the list ---- */

typedef struct device_list_owner {
  unroll_plugin_list list; /* first: the caller's handle */
  unroll_plugin_entry *plugins;
  unroll_plugin_rejection *rejected;
  struct plugin_device **devices; /* per plugin; their strings live there */
  unroll_device_entry **entries;
  struct plugin_candidate *candidates;
  struct plugin_rejected *rejections;
  uint32_t n_probed;
} list_owner;

void unroll_plugin_list_free(unroll_context *ctx, unroll_plugin_list *list) {
  if (!list)
    return;
  list_owner *o = (list_owner *)list;
  const unroll_allocator *a = &ctx->allocator;
  for (uint32_t i = 0; i < o->n_probed; i++) {
    plugin_devices_free(ctx->registry, o->devices[i]);
    mem_free(a, o->entries[i]);
  }
  mem_free(a, o->plugins);
  mem_free(a, o->rejected);
  mem_free(a, o->devices);
  mem_free(a, o->entries);
  mem_free(a, o->candidates);
  mem_free(a, o->rejections);
  mem_free(a, o);
}

typedef unroll_status look(struct plugin_registry *registry, const char *id, uint32_t timeout_ms,
                           struct plugin_device **devices, uint32_t *n, unroll_error *err);

static unroll_status list_devices(unroll_context *ctx, look *look_at, unroll_plugin_list **out, unroll_error *err) {
  *out = NULL;
  const unroll_allocator *a = &ctx->allocator;
  const uint32_t n = plugin_registry_count(ctx->registry);
  list_owner *o = mem_zalloc(a, sizeof *o);
  if (!o)
    return fail(err, UNROLL_E_MEMORY, "out of memory for the list of plugins");
  o->plugins = mem_array(a, n + 1, sizeof *o->plugins);
  o->devices = mem_array(a, n + 1, sizeof *o->devices);
  o->entries = mem_array(a, n + 1, sizeof *o->entries);
  o->candidates = mem_array(a, n + 1, sizeof *o->candidates);
  unroll_status st = UNROLL_OK;
  if (!o->plugins || !o->devices || !o->entries || !o->candidates)
    st = fail(err, UNROLL_E_MEMORY, "out of memory for the list of plugins");
  for (uint32_t i = 0; st == UNROLL_OK && i < n; i++) {
    struct plugin_candidate c;
    uint32_t k = o->n_probed, n_devices = 0;
    st = plugin_registry_get(ctx->registry, i, &c, err);
    if (st != UNROLL_OK || look_at(ctx->registry, c.id, PLUGIN_PROBE_MS, &o->devices[k], &n_devices, NULL) != UNROLL_OK)
      continue; /* the registry keeps it among the rejected, with the reason */
    o->n_probed++;
    if ((st = plugin_registry_get(ctx->registry, i, &o->candidates[k], err)) != UNROLL_OK)
      continue;
    const struct plugin_candidate *p = &o->candidates[k];
    if (!(o->entries[k] = mem_array(a, n_devices + 1, sizeof **o->entries))) {
      st = fail(err, UNROLL_E_MEMORY, "out of memory for the list of devices");
      continue;
    }
    for (uint32_t d = 0; d < n_devices; d++) {
      const struct plugin_device *from = &o->devices[k][d];
      o->entries[k][d] =
          (unroll_device_entry){from->id, from->name, from->vendor, from->driver, from->kind, 0, from->mem_total};
    }
    o->plugins[k] = (unroll_plugin_entry){.id = p->id,
                                          .version = p->version ? p->version : "",
                                          .vendor = p->vendor ? p->vendor : "",
                                          .path = p->path,
                                          .devices = o->entries[k],
                                          .n_devices = n_devices};
  }
  const uint32_t n_rejected = plugin_registry_rejected_count(ctx->registry);
  o->rejections = mem_array(a, n_rejected + 1, sizeof *o->rejections);
  o->rejected = mem_array(a, n_rejected + 1, sizeof *o->rejected);
  if (st == UNROLL_OK && (!o->rejections || !o->rejected))
    st = fail(err, UNROLL_E_MEMORY, "out of memory for the list of plugins");
  for (uint32_t i = 0; st == UNROLL_OK && i < n_rejected; i++) {
    st = plugin_registry_rejected_get(ctx->registry, i, &o->rejections[i], err);
    o->rejected[i] = (unroll_plugin_rejection){o->rejections[i].path, o->rejections[i].reason};
  }
  if (st != UNROLL_OK) {
    unroll_plugin_list_free(ctx, &o->list);
    return st;
  }
  o->list = (unroll_plugin_list){o->n_probed, n_rejected, o->plugins, o->rejected};
  *out = &o->list;
  return UNROLL_OK;
}

unroll_status unroll_context_list(unroll_context *ctx, unroll_plugin_list **out, unroll_error *err) {
  if (!ctx || !out)
    return fail(err, UNROLL_E_INVALID, "unroll_context_list: an argument is NULL");
  return list_devices(ctx, plugin_registry_probe, out, err);
}

/* ---- devices ---- */

enum { REFERENCE_SCORE = 1 }; /* plugin.h says so */

/* Name of the devices that there are, for messages. */
static void name_devices(unroll_context *ctx, struct text *t) {
  unroll_plugin_list *list;
  if (unroll_context_list(ctx, &list, NULL) != UNROLL_OK)
    return;
  bool any = false;
  for (uint32_t i = 0; i < list->n_plugins; i++)
    for (uint32_t d = 0; d < list->plugins[i].n_devices; d++, any = true)
      text_add(t, "%s%s", any ? ", " : "", list->plugins[i].devices[d].id);
  unroll_plugin_list_free(ctx, list);
}

static unroll_status no_such_device(unroll_context *ctx, const char *name, unroll_error *err) {
  struct text t;
  text_init(&t, &ctx->allocator);
  name_devices(ctx, &t);
  const unroll_status st = fail(err, UNROLL_E_NOT_FOUND, "no device %s; there are: %s", name, text_peek(&t));
  text_free(&t);
  return st;
}

/*
 * "auto": the first GPU, else the first device of the plugin with the highest score; of plugins whose score is above the
 * reference's. NULL: the reference. Freed by the caller.
 */
static char *choose(unroll_context *ctx, look *look_at) {
  unroll_plugin_list *list;
  const unroll_device_entry *best = NULL;
  int32_t best_score = REFERENCE_SCORE;
  if (list_devices(ctx, look_at, &list, NULL) != UNROLL_OK)
    return NULL;
  const list_owner *o = (const list_owner *)list;
  for (uint32_t i = 0; i < list->n_plugins; i++)
    for (uint32_t d = 0; d < list->plugins[i].n_devices; d++) {
      const unroll_device_entry *e = &list->plugins[i].devices[d];
      const int32_t score = o->candidates[i].score;
      const bool gpu = e->kind == UNROLL_KIND_GPU, has_gpu = best && best->kind == UNROLL_KIND_GPU;
      if (score > REFERENCE_SCORE && !has_gpu && (gpu || score > best_score)) {
        best = e;
        best_score = score;
      }
    }
  char *name = best ? mem_strdup(&ctx->allocator, best->id) : NULL;
  unroll_plugin_list_free(ctx, list);
  return name;
}

static unroll_status open_one(unroll_context *ctx, const char *name, const unroll_option *options, uint32_t n_options,
                              unroll_device **out, unroll_error *err) {
  const unroll_allocator *a = &ctx->allocator;
  const char *colon = strchr(name, ':');
  unroll_device *d = mem_zalloc(a, sizeof *d);
  char *plugin = mem_strdup(a, name);
  if (!d || !plugin) {
    mem_free(a, d);
    mem_free(a, plugin);
    return fail(err, UNROLL_E_MEMORY, "out of memory for device %s", name);
  }
  if (colon)
    plugin[colon - name] = '\0';
  d->ctx = ctx;
  d->info.struct_size = sizeof d->info;
  unroll_status st = UNROLL_OK;
  uint32_t n = 0, i = 0;
  /* In a child first: a driver that aborts or hangs must not take this process along. */
  const bool foreign = strcmp(plugin, "cpu") != 0;
  if (foreign)
    TRY_GOTO(st, plugin_registry_ensure(ctx->registry, plugin, PLUGIN_PROBE_MS, err), done);
  TRY_GOTO(st, plugin_registry_open(ctx->registry, plugin, NULL, 0, &d->plugin, err), done);
  d->ops = d->plugin.ops;
  TRY_GOTO(st, d->ops->device_count(d->plugin.backend, &n, err), done);
  for (i = 0; i < n; i++) {
    d->info = (unroll_device_info){.struct_size = sizeof d->info};
    TRY_GOTO(st, d->ops->device_info(d->plugin.backend, i, &d->info, err), done);
    if (!colon || strcmp(d->info.id, colon + 1) == 0)
      break;
  }
  if (n == 0 && !colon) {
    st = fail(err, UNROLL_E_NOT_FOUND, "%s finds no device on this machine", plugin);
    goto done;
  }
  if (i == n) {
    st = no_such_device(ctx, name, err);
    goto done;
  }
  if (!(d->id = mem_printf(a, "%s:%s", plugin, d->info.id))) {
    st = fail(err, UNROLL_E_MEMORY, "out of memory for device %s", name);
    goto done;
  }
  TRY_GOTO(st, d->ops->device_open(d->plugin.backend, i, options, n_options, &d->handle, err), done);
  if (foreign)
    plugin_registry_settle(ctx->registry, plugin);
  log_message(&ctx->logger, UNROLL_LOG_INFO, "device %s: %s", d->id, d->info.name);
done:
  mem_free(a, plugin);
  if (st != UNROLL_OK) {
    unroll_device_close(d);
    d = NULL;
  }
  *out = d;
  return st;
}

unroll_status unroll_device_open(unroll_context *ctx, const char *name, const unroll_option *options,
                                 uint32_t n_options, unroll_device **device, unroll_error *err) {
  if (!ctx || !name || !device)
    return fail(err, UNROLL_E_INVALID, "unroll_device_open: an argument is NULL");
  *device = NULL;
  if (strcmp(name, "auto") == 0) {
    unroll_error why = UNROLL_ERROR_INIT;
    char *best = choose(ctx, plugin_registry_recall);
    unroll_status st = best ? open_one(ctx, best, options, n_options, device, &why) : UNROLL_E_NOT_FOUND;
    if (best && st != UNROLL_OK) { /* that device may be gone since it was listed */
      mem_free(&ctx->allocator, best);
      best = choose(ctx, plugin_registry_probe);
      st = best ? open_one(ctx, best, options, n_options, device, &why) : UNROLL_E_NOT_FOUND;
    }
    if (st != UNROLL_OK && best)
      log_message(&ctx->logger, UNROLL_LOG_WARN, "device %s cannot be opened, the reference is used: %s", best,
                  why.message);
    mem_free(&ctx->allocator, best);
    return st == UNROLL_OK ? UNROLL_OK : open_one(ctx, "cpu", NULL, 0, device, err);
  }
  unroll_error why = UNROLL_ERROR_INIT;
  const unroll_status st = open_one(ctx, name, options, n_options, device, &why);
  if (st == UNROLL_E_NOT_FOUND && !strchr(why.message, ';')) { /* no such plugin: say what there is */
    struct text t;
    text_init(&t, &ctx->allocator);
    name_devices(ctx, &t);
    (fail)(err, st, "no device %s (%s); there are: %s", name, why.message, text_peek(&t));
    text_free(&t);
    return st;
  }
  return st == UNROLL_OK ? st : fail_native(err, st, why.native, "%s", why.message);
}

void unroll_device_close(unroll_device *d) {
  if (!d)
    return;
  unroll_context *ctx = d->ctx;
  if (d->handle)
    d->ops->device_close(d->handle);
  if (d->plugin.backend)
    plugin_registry_close(ctx->registry, &d->plugin, NULL);
  mem_free(&ctx->allocator, d->id);
  mem_free(&ctx->allocator, d);
}

const char *unroll_device_id(const unroll_device *d) { return d->id; }
const unroll_device_info *unroll_device_describe(const unroll_device *d) { return &d->info; }
