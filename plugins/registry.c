/* SPDX-License-Identifier: Apache-2.0 */
/* The registry's life, and the calls that anybody may make: each takes the mutex and leaves the work to the other files. */
#include "base/base_private.h"
#include "plugins/registry_private.h"
#include <string.h>

unroll_status plugin_registry_create(const struct plugin_registry_options *options, struct plugin_registry **out,
                                     unroll_error *err) {
  *out = NULL;
  struct plugin_registry *reg = mem_zalloc(options->allocator, sizeof *reg);
  if (!reg) {
    return fail(err, UNROLL_E_MEMORY, "out of memory for the registry of plugins");
  }
  if (options->allocator) {
    reg->allocator = *options->allocator;
  }
  if (options->logger) {
    reg->logger = *options->logger;
  }
  if (pthread_mutex_init(&reg->mutex, NULL) != 0) {
    mem_free(options->allocator, reg);
    return fail(err, UNROLL_E_MEMORY, "no mutex for the registry of plugins");
  }
  reg->wrap = (struct wrap_host){.allocator = &reg->allocator, .logger = &reg->logger};
  reg->n_threads = options->n_threads ? options->n_threads : unroll_thread_count();
  host_init(reg);
  const unroll_status status = search_all(reg, options, err);
  if (status != UNROLL_OK) {
    plugin_registry_destroy(reg);
    return status;
  }
  *out = reg;
  return UNROLL_OK;
}

void plugin_registry_destroy(struct plugin_registry *reg) {
  if (!reg) {
    return;
  }
  const unroll_allocator a = reg->allocator;
  for (uint32_t i = reg->n_candidates; i-- > 0;) {
    candidate_free(reg, &reg->candidates[i]);
  }
  wrap_host_finish(&reg->wrap);
  for (uint32_t i = 0; i < reg->n_rejects; i++) {
    mem_free(&a, reg->rejects[i].path);
  }
  mem_free(&a, reg->candidates);
  mem_free(&a, reg->rejects);
  pthread_mutex_destroy(&reg->mutex);
  mem_free(&a, reg);
}

uint32_t plugin_registry_count(struct plugin_registry *reg) { return reg->n_candidates; }

unroll_status plugin_registry_get(struct plugin_registry *reg, uint32_t i, struct plugin_candidate *out,
                                  unroll_error *err) {
  *out = (struct plugin_candidate){0};
  if (i >= reg->n_candidates) {
    return fail(err, UNROLL_E_RANGE, "plugin %u of %u", i, reg->n_candidates);
  }
  pthread_mutex_lock(&reg->mutex);
  const struct candidate *c = &reg->candidates[i];
  out->id = c->id;
  out->path = c->path;
  out->version = c->version;
  out->vendor = c->vendor;
  out->score = c->score;
  out->state = c->state;
  memcpy(out->reason, c->reason, sizeof out->reason);
  pthread_mutex_unlock(&reg->mutex);
  return UNROLL_OK;
}

unroll_status plugin_registry_find(struct plugin_registry *reg, const char *id, uint32_t *i, unroll_error *err) {
  struct candidate *c = NULL;
  pthread_mutex_lock(&reg->mutex);
  const unroll_status status = candidate_find(reg, id, &c, err);
  *i = status == UNROLL_OK ? (uint32_t)(c - reg->candidates) : 0;
  pthread_mutex_unlock(&reg->mutex);
  return status;
}

static uint32_t count_rejected(const struct plugin_registry *reg) {
  uint32_t n = reg->n_rejects;
  for (uint32_t i = 0; i < reg->n_candidates; i++) {
    n += reg->candidates[i].state == PLUGIN_REJECTED;
  }
  return n;
}

uint32_t plugin_registry_rejected_count(struct plugin_registry *reg) {
  pthread_mutex_lock(&reg->mutex);
  const uint32_t n = count_rejected(reg);
  pthread_mutex_unlock(&reg->mutex);
  return n;
}

unroll_status plugin_registry_rejected_get(struct plugin_registry *reg, uint32_t i, struct plugin_rejected *out,
                                           unroll_error *err) {
  *out = (struct plugin_rejected){0};
  if (i < reg->n_rejects) {
    out->path = reg->rejects[i].path;
    memcpy(out->reason, reg->rejects[i].reason, sizeof out->reason);
    return UNROLL_OK;
  }
  pthread_mutex_lock(&reg->mutex);
  const uint32_t n = count_rejected(reg);
  uint32_t at = reg->n_rejects;
  for (uint32_t k = 0; k < reg->n_candidates && !out->path; k++) {
    const struct candidate *c = &reg->candidates[k];
    if (c->state == PLUGIN_REJECTED && at++ == i) {
      out->path = c->path;
      memcpy(out->reason, c->reason, sizeof out->reason);
    }
  }
  pthread_mutex_unlock(&reg->mutex);
  return out->path ? UNROLL_OK : fail(err, UNROLL_E_RANGE, "rejected plugin %u of %u", i, n);
}

unroll_status plugin_registry_open(struct plugin_registry *reg, const char *id, const unroll_option *options,
                                   uint32_t n_options, struct plugin_backend *out, unroll_error *err) {
  *out = (struct plugin_backend){0};
  pthread_mutex_lock(&reg->mutex);
  struct candidate *c = NULL;
  unroll_status status = candidate_find(reg, id, &c, err);
  if (status == UNROLL_OK) {
    status = candidate_open(reg, c, options, n_options, err);
  }
  if (status == UNROLL_OK) {
    *out = (struct plugin_backend){c->backend, c->ops, c->plugin, c->score, (uint32_t)(c - reg->candidates)};
  }
  pthread_mutex_unlock(&reg->mutex);
  return status;
}

unroll_status plugin_registry_close(struct plugin_registry *reg, struct plugin_backend *backend, unroll_error *err) {
  if (!backend->plugin) {
    return UNROLL_OK;
  }
  pthread_mutex_lock(&reg->mutex);
  const unroll_status status = candidate_close(reg, &reg->candidates[backend->candidate], err);
  pthread_mutex_unlock(&reg->mutex);
  *backend = (struct plugin_backend){0};
  return status;
}
