/* SPDX-License-Identifier: Apache-2.0 */
/* compile.c: lower, offer, plan, and have each group compiled by its backend. */
#include "runtime/runtime_private.h"
#include <inttypes.h>
#include <string.h>

/* Everything that planning made; what it grew stays allocated, empty. */
static void forget_plan(unroll_executable *e) {
  const unroll_allocator *a = &e->ctx->allocator;
  for (uint32_t i = 0; i < e->n_groups; i++) {
    if (e->groups[i].exec)
      e->devices.device[e->groups[i].device]->ops->exec_destroy(e->groups[i].exec);
    mem_free(a, e->groups[i].nodes);
  }
  for (uint32_t i = 0; i < e->n_items; i++) {
    mem_free(a, e->items[i].starts);
    mem_free(a, e->items[i].ends);
    mem_free(a, e->items[i].stages);
  }
  for (uint32_t i = 0; i < e->n_objects; i++)
    mem_free(a, e->objects[i].at);
  for (uint32_t d = 0; e->arenas && d < e->devices.n; d++)
    mem_free(a, e->arenas[d]);
  mem_free(a, e->arenas);
  mem_free(a, e->n_arenas);
  mem_free(a, e->workspace_bytes);
  mem_free(a, e->outsides);
  e->arenas = NULL;
  e->n_arenas = NULL;
  e->workspace_bytes = NULL;
  e->outsides = NULL;
  e->n_groups = e->n_items = e->n_objects = e->n_outsides = e->n_slots = e->n_crossings = 0;
  e->largest_copy = 0;
}

void unroll_executable_destroy(unroll_executable *e) {
  if (!e)
    return;
  const unroll_allocator *a = &e->ctx->allocator;
  forget_plan(e);
  if (e->devices.owns_last)
    unroll_device_close(e->devices.device[e->devices.n - 1]);
  mem_free(a, e->devices.device);
  mem_free(a, e->objects);
  mem_free(a, e->items);
  mem_free(a, e->groups);
  unroll_graph_destroy(e->graph);
  mem_free(a, e);
}

/* ---- groups ---- */

static place place_of(const unroll_executable *e, const ref *r, uint32_t d) {
  place none = {.slot = UNROLL_NO_SLOT};
  if (r->object == GRAPH_NONE || !e->objects[r->object].at[d].used)
    return none;
  const object_place *at = &e->objects[r->object].at[d];
  return (place){at->slot, r->period, at->offset + r->offset, r->step};
}

static unroll_status compile_group(plan *p, uint32_t index, unroll_error *err) {
  unroll_executable *e = p->exe;
  planned_group *pg = &p->groups[index];
  const unroll_graph *g = pg->graph;
  const unroll_device *dev = e->devices.device[pg->device];
  const unroll_allocator *a = &e->ctx->allocator;
  const ref *refs = pg->scan == GRAPH_NONE ? p->refs : p->body_refs[pg->scan] + (uint64_t)pg->device * g->n_tensors;
  place *places = mem_array(a, (uint64_t)g->n_tensors + 1, sizeof *places);
  if (!places)
    return fail(err, UNROLL_E_MEMORY, "out of memory for the groups of a graph");
  for (uint32_t i = 0; i < g->n_tensors; i++)
    places[i] = place_of(e, &refs[i], pg->device);
  graph_view *v;
  unroll_status st = view_create(g, pg->nodes, pg->n_nodes, places, e->n_slots, &v, err);
  mem_free(a, places);
  if (st != UNROLL_OK)
    return st;
  group *out = &e->groups[pg->group];
  unroll_error why = UNROLL_ERROR_INIT;
  st = dev->ops->compile(dev->handle, &v->view, NULL, 0, &out->exec, &why);
  view_destroy(&graph_root_of(g)->allocator, v);
  out->info.struct_size = sizeof out->info;
  if (st == UNROLL_OK)
    st = dev->ops->exec_info(out->exec, &out->info, &why);
  if (st != UNROLL_OK)
    return fail_native(err, st, why.native, "%s cannot compile %s and what is with it: %s", dev->id,
                       g->nodes[pg->nodes[0]].name, why.message);
  if (out->info.workspace_bytes > e->workspace_bytes[pg->device])
    e->workspace_bytes[pg->device] = out->info.workspace_bytes;
  out->graph = g;
  out->scan = pg->scan;
  out->nodes = pg->nodes;
  out->n_nodes = pg->n_nodes;
  pg->nodes = NULL; /* they are the executable's from now on */
  return UNROLL_OK;
}

/* ---- fallbacks ---- */

/* strict: the first fallback is an error. Else each is counted and logged. */
static unroll_status report(unroll_executable *e, const unroll_graph *g, const taker *takers, const char *where,
                            bool strict, unroll_error *err) {
  for (uint32_t i = 0; i < g->n_nodes; i++) {
    if (takers[i].device == NO_DEVICE || takers[i].device == 0)
      continue;
    const char *first = e->devices.device[0]->id, *taker_id = e->devices.device[takers[i].device]->id;
    if (strict)
      return fail(err, UNROLL_E_UNSUPPORTED, "strict: %s%s%s is not taken by %s (%s would run it)", g->nodes[i].name,
                  *where ? " in " : "", where, first, taker_id);
    e->n_fallbacks++;
    log_message(&e->ctx->logger, UNROLL_LOG_WARN, "fallback: %s%s%s is not taken by %s and runs on %s",
                g->nodes[i].name, *where ? " in " : "", where, first, taker_id);
  }
  return UNROLL_OK;
}

/* ---- one attempt, given what is barred ---- */

typedef struct attempt {
  unroll_executable *exe;
  taker *takers, **body_takers;
  uint32_t *barred, **body_barred;
  bool strict, crossing;
  bool again;             /* after a failure: without what is barred now it may work */
  uint32_t failed_layers; /* a mask of devices that could not compile a layer which they claim */
} attempt;

static unroll_status place_nodes(attempt *t, unroll_error *err) {
  unroll_executable *e = t->exe;
  const unroll_graph *g = e->graph;
  TRY(offer(g, &e->devices, t->barred, t->takers, err));
  for (uint32_t i = 0; i < g->n_nodes; i++)
    if (is_layer(&g->nodes[i]) && t->takers[i].device == NO_DEVICE) {
      t->failed_layers = UINT32_MAX; /* nobody knows whose word it was */
      t->again = true;
      return fail(err, UNROLL_E_PLUGIN, "%s was claimed when it was offered first, and not when it was offered again",
                  g->nodes[i].name);
    }
  if (t->strict)
    TRY(report(e, g, t->takers, "", true, err));
  for (uint32_t i = 0; i < g->n_nodes; i++) {
    const node *n = &g->nodes[i];
    if (n->op != UNROLL_OP_SCAN || t->takers[i].device != NO_DEVICE)
      continue;
    /* strict: the node to name is the one that is not taken, not those that would move with it */
    TRY(offer_template(e->ctx, n->body, n, &e->devices, t->body_barred[i], t->crossing || t->strict, t->body_takers[i],
                       err));
    if (t->strict)
      TRY(report(e, n->body, t->body_takers[i], n->name, true, err));
  }
  return UNROLL_OK;
}

static void report_all(attempt *t) {
  unroll_executable *e = t->exe;
  const unroll_graph *g = e->graph;
  e->n_fallbacks = 0;
  (void)report(e, g, t->takers, "", false, NULL);
  for (uint32_t i = 0; i < g->n_nodes; i++)
    if (g->nodes[i].op == UNROLL_OP_SCAN && t->takers[i].device == NO_DEVICE)
      (void)report(e, g->nodes[i].body, t->body_takers[i], g->nodes[i].name, false, NULL);
}

/* The next device may do better: bars the nodes of the group from the one that failed. */
static void bar(attempt *t, const planned_group *pg) {
  uint32_t *barred = pg->scan == GRAPH_NONE ? t->barred : t->body_barred[pg->scan];
  for (uint32_t k = 0; k < pg->n_nodes; k++) {
    barred[pg->nodes[k]] |= 1u << pg->device;
    if (is_layer(&pg->graph->nodes[pg->nodes[k]]))
      t->failed_layers |= 1u << pg->device;
  }
  t->again = true;
}

static unroll_status try_once(attempt *t, unroll_error *err) {
  unroll_executable *e = t->exe;
  t->again = false;
  TRY(place_nodes(t, err));
  plan p = {.exe = e, .takers = t->takers, .body_takers = t->body_takers};
  unroll_status st = plan_make(&p, err);
  for (uint32_t i = 0; st == UNROLL_OK && i < p.n_groups; i++) {
    st = compile_group(&p, i, err);
    /* Without host memory, or with the device gone, another device is no answer. */
    if (st != UNROLL_OK && st != UNROLL_E_MEMORY && st != UNROLL_E_DEVICE_LOST && !t->strict &&
        p.groups[i].device + 1 < e->devices.n)
      bar(t, &p.groups[i]);
  }
  plan_free(&p);
  return st;
}

/* Until one works. Ends early where a layer has to be lowered after all. */
static unroll_status attempts(attempt *t, unroll_error *err) {
  const unroll_graph *g = t->exe->graph;
  const unroll_allocator *a = &t->exe->ctx->allocator;
  unroll_status st = UNROLL_OK;
  t->takers = mem_array(a, (uint64_t)g->n_nodes + 1, sizeof *t->takers);
  t->barred = mem_array(a, (uint64_t)g->n_nodes + 1, sizeof *t->barred);
  t->body_takers = mem_array(a, (uint64_t)g->n_nodes + 1, sizeof *t->body_takers);
  t->body_barred = mem_array(a, (uint64_t)g->n_nodes + 1, sizeof *t->body_barred);
  bool ok = t->takers && t->barred && t->body_takers && t->body_barred;
  for (uint32_t i = 0; ok && i < g->n_nodes; i++)
    if (g->nodes[i].body) {
      t->body_takers[i] = mem_array(a, (uint64_t)g->nodes[i].body->n_nodes + 1, sizeof **t->body_takers);
      t->body_barred[i] = mem_array(a, (uint64_t)g->nodes[i].body->n_nodes + 1, sizeof **t->body_barred);
      ok = t->body_takers[i] && t->body_barred[i];
    }
  if (!ok)
    st = fail(err, UNROLL_E_MEMORY, "out of memory for compiling a graph");
  while (st == UNROLL_OK && !t->failed_layers) {
    unroll_error why = UNROLL_ERROR_INIT;
    const unroll_status once = try_once(t, &why);
    if (once == UNROLL_OK) {
      report_all(t);
      break;
    }
    if (!t->again)
      st = fail_native(err, once, why.native, "%s", why.message);
    else {
      log_message(&t->exe->ctx->logger, UNROLL_LOG_WARN, "fallback: %s", why.message);
      forget_plan(t->exe);
    }
  }
  for (uint32_t i = 0; i < g->n_nodes; i++) {
    if (t->body_takers)
      mem_free(a, t->body_takers[i]);
    if (t->body_barred)
      mem_free(a, t->body_barred[i]);
  }
  mem_free(a, t->takers);
  mem_free(a, t->barred);
  mem_free(a, t->body_takers);
  mem_free(a, t->body_barred);
  return st;
}

/* The caller's devices, and the reference behind them. */
static unroll_status list_devices(unroll_executable *e, unroll_device *const *devices, uint32_t n, unroll_error *err) {
  const unroll_allocator *a = &e->ctx->allocator;
  device_list *l = &e->devices;
  if (!(l->device = mem_array(a, (uint64_t)n + 1, sizeof *l->device)))
    return fail(err, UNROLL_E_MEMORY, "out of memory for compiling a graph");
  bool reference = false;
  for (uint32_t i = 0; i < n; i++) {
    if (!devices[i])
      return fail(err, UNROLL_E_INVALID, "unroll_compile: device %u of %u is NULL", i, n);
    if (devices[i]->ctx != e->ctx)
      return fail(err, UNROLL_E_INVALID, "device %s belongs to another context", devices[i]->id);
    l->device[l->n++] = devices[i];
    reference = reference || strncmp(devices[i]->id, "cpu:", 4) == 0;
  }
  if (!reference) {
    TRY(unroll_device_open(e->ctx, "cpu", NULL, 0, &l->device[l->n], err));
    l->n++;
    l->owns_last = true;
  }
  return UNROLL_OK;
}

unroll_status unroll_compile(const unroll_graph *graph, unroll_device *const *devices, uint32_t n_devices,
                             const unroll_compile_options *options, unroll_executable **out, unroll_error *err) {
  if (!graph || !devices || !out || n_devices < 1 || n_devices > 31 || !devices[0])
    return fail(err, UNROLL_E_INVALID, "unroll_compile: a graph and 1 to 31 devices are expected, got %u", n_devices);
  *out = NULL;
  if (options && !UNROLL_HAS(unroll_compile_options, options, allow_step_crossing))
    return fail(err, UNROLL_E_INVALID, "unroll_compile_options: struct_size is %u, expected at least %zu",
                options->struct_size, sizeof *options);
  TRY(unroll_graph_status(graph, err));
  unroll_context *ctx = devices[0]->ctx;
  unroll_executable *e = mem_zalloc(&ctx->allocator, sizeof *e);
  layer_fate *fates = mem_array(&ctx->allocator, (uint64_t)graph->n_nodes + 1, sizeof *fates);
  unroll_status st = UNROLL_OK;
  if (!e || !fates) {
    mem_free(&ctx->allocator, e);
    mem_free(&ctx->allocator, fates);
    return fail(err, UNROLL_E_MEMORY, "out of memory for compiling a graph");
  }
  e->ctx = ctx;
  TRY_GOTO(st, list_devices(e, devices, n_devices, err), done);
  uint32_t no_layers = 0;
  for (bool settled = false; st == UNROLL_OK && !settled;) {
    attempt t = {.exe = e, .strict = options && options->strict, .crossing = options && options->allow_step_crossing};
    TRY_GOTO(st, offer_layers(graph, &e->devices, no_layers, fates, err), done);
    TRY_GOTO(st, offer_norms(graph, &e->devices, fates, err), done);
    TRY_GOTO(st, graph_lower(graph, fates, &e->graph, err), done);
    st = attempts(&t, err);
    settled = !t.failed_layers;
    no_layers |= t.failed_layers;
    if (!settled) {
      unroll_graph_destroy(e->graph);
      e->graph = NULL;
    }
  }
  if (st == UNROLL_OK)
    log_message(&ctx->logger, UNROLL_LOG_DEBUG, "compiled: %u nodes in %u groups, %u scratch objects",
                e->graph->n_nodes, e->n_groups, e->n_objects);
done:
  mem_free(&ctx->allocator, fates);
  if (st != UNROLL_OK) {
    unroll_executable_destroy(e);
    return st;
  }
  *out = e;
  return UNROLL_OK;
}

unroll_executable_info unroll_executable_describe(const unroll_executable *e) {
  unroll_executable_info info = {.struct_size = sizeof info,
                                 .n_groups = e->n_groups,
                                 .n_fallbacks = e->n_fallbacks,
                                 .n_crossings = e->n_crossings};
  for (uint32_t d = 0; d < e->devices.n; d++) {
    info.scratch_bytes += e->workspace_bytes[d];
    for (uint32_t i = 0; i < e->n_arenas[d]; i++)
      info.scratch_bytes += e->arenas[d][i];
  }
  return info;
}
