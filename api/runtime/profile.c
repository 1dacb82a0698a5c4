/* SPDX-License-Identifier: Apache-2.0 */
/* profile.c: the extension "unroll.profile/1" of the backends, in terms of the graph. */
#include "runtime/runtime_private.h"

/* How a device times; NULL where it can't. */
static const unroll_profile *profile_of(const unroll_device *d) {
  const unroll_profile *p = d->ops->extension ? d->ops->extension(d->plugin.backend, UNROLL_PROFILE_ID) : NULL;
  return p && UNROLL_HAS(unroll_profile, p, spans) && p->spans ? p : NULL;
}

static bool runs_a_group(const unroll_executable *e, uint32_t d) {
  for (uint32_t i = 0; i < e->n_groups; i++)
    if (e->groups[i].device == d)
      return true;
  return false;
}

/* At least one of the devices that have something to run can time. */
static unroll_status check_support(const unroll_executable *e, unroll_error *err) {
  const char *without = NULL;
  bool any = false;
  for (uint32_t d = 0; d < e->devices.n; d++) {
    const unroll_device *dev = e->devices.device[d];
    if (!runs_a_group(e, d))
      continue;
    const bool can = profile_of(dev) != NULL;
    any = any || can;
    if (!can) {
      without = dev->id;
      log_message(&e->ctx->logger, UNROLL_LOG_WARN, "profile: %s cannot time what it does", dev->id);
    }
  }
  if (any)
    return UNROLL_OK;
  return without ? fail(err, UNROLL_E_UNSUPPORTED, "profile: %s cannot time what it does", without)
                 : fail(err, UNROLL_E_UNSUPPORTED, "profile: no device has anything to run");
}

unroll_status unroll_binding_profile(unroll_binding *b, int32_t on, unroll_error *err) {
  if (!b)
    return fail(err, UNROLL_E_INVALID, "unroll_binding_profile: the binding is NULL");
  const unroll_executable *e = b->exe;
  if (on)
    TRY(check_support(e, err));
  TRY(unroll_binding_sync(b, err));
  const unroll_allocator *a = &e->ctx->allocator;
  unroll_backend_queue **made = mem_array(a, (uint64_t)e->devices.n + 1, sizeof *made);
  if (!made)
    return fail(err, UNROLL_E_MEMORY, "out of memory for the queues of a profile");
  unroll_status st = UNROLL_OK;
  for (uint32_t d = 0; st == UNROLL_OK && d < e->devices.n; d++) {
    const unroll_device *dev = e->devices.device[d];
    if (queue_root(b->queues[d])->profiled != (on != 0) && (!on || profile_of(dev)))
      st = dev->ops->queue_create(dev->handle, on ? UNROLL_QUEUE_PROFILE : 0, &made[d], err);
  }
  /* All of them or none: what goes is the old queue, or after a failure the new one. */
  for (uint32_t d = 0; d < e->devices.n; d++) {
    shared_queue *q = queue_root(b->queues[d]);
    unroll_backend_queue *gone = made[d];
    if (!gone)
      continue;
    if (st == UNROLL_OK) {
      gone = q->handle;
      q->handle = made[d];
      q->profiled = on != 0;
    }
    e->devices.device[d]->ops->queue_destroy(gone);
  }
  mem_free(a, made);
  return st;
}

/* ---- reading ---- */

typedef struct reader {
  const unroll_binding *binding;
  uint32_t device, group; /* group: whose run the last span was */
  void (*each)(void *ctx, const unroll_profile_entry *entry);
  void *ctx;
} reader;

/* The node that a span is about, or NULL; and the scan that it stands in, likewise. */
static const node *node_of(reader *r, const unroll_profile_span *s, const node **scan) {
  *scan = NULL;
  const unroll_executable *e = r->binding->exe;
  if (!s->binding || s->node == UNROLL_NO_NODE || e->n_groups == 0)
    return NULL;
  for (uint32_t k = 0; k < e->n_groups; k++) {
    const uint32_t i = (r->group + k) % e->n_groups;
    if (e->groups[i].device != r->device || r->binding->groups[i] != s->binding)
      continue;
    r->group = i;
    const group *g = &e->groups[i];
    if (s->node >= g->n_nodes)
      return NULL;
    *scan = g->scan == GRAPH_NONE ? NULL : &e->graph->nodes[g->scan];
    return &g->graph->nodes[g->nodes[s->node]];
  }
  return NULL;
}

static void hand_over(void *ctx, const unroll_profile_span *s) {
  reader *r = ctx;
  const node *scan, *n = node_of(r, s, &scan);
  const unroll_profile_entry entry = {.struct_size = sizeof entry,
                                      .op = n ? n->op : 0,
                                      .device = r->binding->exe->devices.device[r->device]->id,
                                      .node = n ? n->name : NULL,
                                      .scan = scan ? scan->name : NULL,
                                      .op_name = n ? graph_op_name(n->op) : NULL,
                                      .label = s->label ? s->label : "",
                                      .layer = n ? n->layer : -1,
                                      .direction = n ? n->direction : -1,
                                      .t = s->t,
                                      .count = s->count,
                                      .begin_ns = s->begin_ns,
                                      .end_ns = s->end_ns,
                                      .bytes = s->bytes};
  r->each(r->ctx, &entry);
}

unroll_status unroll_binding_profile_read(unroll_binding *b, void (*each)(void *ctx, const unroll_profile_entry *entry),
                                          void *ctx, unroll_error *err) {
  if (!b || !each)
    return fail(err, UNROLL_E_INVALID, "unroll_binding_profile_read: an argument is NULL");
  const unroll_executable *e = b->exe;
  bool any = false;
  for (uint32_t d = 0; d < e->devices.n; d++) {
    const shared_queue *q = queue_root(b->queues[d]);
    const unroll_device *dev = e->devices.device[d];
    if (!q->profiled)
      continue;
    any = true;
    reader r = {.binding = b, .device = d, .each = each, .ctx = ctx};
    TRY(profile_of(dev)->spans(q->handle, hand_over, &r, err));
  }
  return any ? UNROLL_OK : fail(err, UNROLL_E_STATE, "profile: nothing is timed; unroll_binding_profile turns it on");
}
