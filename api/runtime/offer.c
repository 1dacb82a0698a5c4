/* SPDX-License-Identifier: Apache-2.0 */
/* offer.c: the graph is shown to the devices in turn; each says what it takes. */
#include "runtime/runtime_private.h"

bool is_host_view(const node *n) {
  return n->op == UNROLL_OP_RESHAPE || (n->op == UNROLL_OP_SLICE && n->attr.slice.axis == 0);
}

bool is_layer(const node *n) { return n->op == UNROLL_OP_LAYER || n->op == UNROLL_OP_LAYER_GRAD; }

/* Turns down the claim on node i. A private group was promised as a whole: it is taken whole or not at all. */
static void turn_down(const unroll_graph *g, unroll_claim *claims, uint32_t i) {
  const uint32_t number = claims[i].group;
  claims[i].group = 0;
  for (uint32_t k = 0; number != 0 && number != UNROLL_GROUP_HOST && k < g->n_nodes; k++)
    if (claims[k].group == number)
      claims[k].group = 0;
}

/* One device's claims on all nodes of g but the views, which are the host's. */
static unroll_status ask(const unroll_graph *g, unroll_device *d, unroll_claim *claims, unroll_error *err) {
  const unroll_graph *root = graph_root_of(g);
  graph_view *v;
  TRY(view_create(g, NULL, 0, NULL, 0, &v, err));
  for (uint32_t i = 0; i < g->n_nodes; i++)
    claims[i] = (unroll_claim){0};
  unroll_error why = UNROLL_ERROR_INIT;
  const unroll_status st = d->ops->claim(d->handle, &v->view, claims, sizeof *claims, &why);
  view_destroy(&root->allocator, v);
  if (st != UNROLL_OK)
    return fail_native(err, st, why.native, "%s cannot say what it takes of a graph: %s", d->id, why.message);
  bool fixed = true;
  for (uint32_t i = 0; i < root->n_dims; i++)
    fixed = fixed && root->dims[i].min == root->dims[i].max;
  for (uint32_t i = 0; i < g->n_nodes; i++)
    if (is_host_view(&g->nodes[i]))
      claims[i].group = 0;
    else if (!fixed && (claims[i].flags & UNROLL_CLAIM_FIXED_DIMS))
      turn_down(g, claims, i);
  return UNROLL_OK;
}

static unroll_status claims_alloc(const unroll_graph *g, unroll_claim **claims, unroll_error *err) {
  *claims = mem_array(&g->allocator, (uint64_t)g->n_nodes + 1, sizeof **claims);
  return *claims ? UNROLL_OK : fail(err, UNROLL_E_MEMORY, "out of memory for the claims on a graph");
}

enum { LAYER_SAVED = 3, GRAD_SAVED = 6, MAX_SAVED = 4 }; /* the first saved value among outputs, and among inputs */

/* Does gradient read what layer saves, all of it and of nobody else? Then one reserve can stand for it. */
static bool reads_all_saved(const node *gradient, const node *layer) {
  for (uint32_t k = 0; k < MAX_SAVED; k++) {
    const uint32_t in = GRAD_SAVED + k < gradient->n_in ? gradient->in[GRAD_SAVED + k] : GRAPH_NONE;
    if (in != GRAPH_NONE && in != layer->out[LAYER_SAVED + k])
      return false;
  }
  return gradient->in[GRAD_SAVED] == layer->out[LAYER_SAVED];
}

static bool reads_saved(const node *n, const node *layer) {
  for (uint32_t k = 0; k < MAX_SAVED; k++)
    if (layer->out[LAYER_SAVED + k] != GRAPH_NONE && node_reads(n, layer->out[LAYER_SAVED + k]))
      return true;
  return false;
}

static bool same_reserve(const layer_fate *a, const layer_fate *b) {
  return a->keep && b->keep && a->only == b->only && a->reserve_bytes == b->reserve_bytes;
}

/* A reserve needs both ends: a layer and its gradients keep it together, or none of them is kept. */
static void settle_reserves(const unroll_graph *g, layer_fate *fates) {
  for (uint32_t i = 0; i < g->n_nodes; i++) {
    if (g->nodes[i].op != UNROLL_OP_LAYER)
      continue;
    const node *layer = &g->nodes[i];
    bool read = false, agreed = true;
    for (uint32_t k = 0; k < g->n_nodes; k++) {
      if (!reads_saved(&g->nodes[k], layer))
        continue;
      read = true;
      agreed = agreed && g->nodes[k].op == UNROLL_OP_LAYER_GRAD && reads_all_saved(&g->nodes[k], layer) &&
               same_reserve(&fates[i], &fates[k]);
    }
    if (!read) {
      fates[i].reserve_bytes = 0; /* nobody reads what it saves: it saves nothing */
      continue;
    }
    for (uint32_t k = 0; !agreed && k < g->n_nodes; k++)
      if (reads_saved(&g->nodes[k], layer) && fates[k].reserve_bytes)
        fates[k].keep = false;
    if (!agreed && fates[i].reserve_bytes)
      fates[i].keep = false;
  }
}

unroll_status offer_layers(const unroll_graph *g, const device_list *devices, uint32_t barred, layer_fate *fates,
                           unroll_error *err) {
  unroll_claim *claims;
  TRY(claims_alloc(g, &claims, err));
  unroll_status st = UNROLL_OK;
  bool any = false;
  for (uint32_t i = 0; i < g->n_nodes; i++) {
    any = any || is_layer(&g->nodes[i]);
    fates[i] = (layer_fate){.only = GRAPH_NONE};
  }
  for (uint32_t d = 0; any && st == UNROLL_OK && d < devices->n; d++) {
    if (barred >> d & 1u)
      continue;
    st = ask(g, devices->device[d], claims, err);
    for (uint32_t i = 0; st == UNROLL_OK && i < g->n_nodes; i++) {
      if (!is_layer(&g->nodes[i]) || claims[i].group == 0 || fates[i].keep)
        continue;
      const uint64_t reserve = claims[i].flags & UNROLL_CLAIM_RESERVE ? claims[i].reserve_bytes : 0;
      if (reserve > (uint64_t)INT64_MAX)
        st = fail(err, UNROLL_E_PLUGIN, "%s asks for a reserve of %llu bytes for %s", devices->device[d]->id,
                  (unsigned long long)reserve, g->nodes[i].name);
      fates[i] = (layer_fate){.keep = true, .only = d, .reserve_bytes = reserve};
    }
  }
  if (st == UNROLL_OK)
    settle_reserves(g, fates);
  mem_free(&g->allocator, claims);
  return st;
}

/* ---- what is spelled out for those who don't know it ---- */

/* A graph of this node alone, spelled out. */
static unroll_status probe_of(const unroll_graph *g, const node *n, unroll_graph **out, unroll_error *err) {
  const unroll_graph *root = graph_root_of(g);
  unroll_graph *probe;
  TRY(unroll_graph_create(&root->allocator, &probe, err));
  unroll_tensor in[8], made[4] = {unroll_none(), unroll_none(), unroll_none(), unroll_none()};
  for (uint32_t i = 0; i < root->n_dims; i++)
    unroll_graph_dim(probe, root->dims[i].name, root->dims[i].min, root->dims[i].max);
  for (uint32_t i = 0; i < n->n_in; i++) {
    const uint32_t id = n->in[i] == GRAPH_NONE ? GRAPH_NONE
                                               : graph_add_tensor(probe, &g->tensors[n->in[i]].spec, UNROLL_ROLE_INPUT,
                                                                  GRAPH_NONE, mem_printf(&root->allocator, "x%u", i));
    in[i] = graph_handle(probe, id);
  }
  if (!graph_failed(probe))
    graph_spell_out(n, in, made);
  const unroll_status st = unroll_graph_status(probe, err);
  if (st != UNROLL_OK)
    unroll_graph_destroy(probe);
  else
    *out = probe;
  return st;
}

/* Does the device take all of a node that is spelled out? */
static unroll_status takes_spelled_out(const unroll_graph *g, const node *n, unroll_device *d, bool *takes,
                                       unroll_error *err) {
  unroll_graph *probe;
  unroll_claim *claims;
  TRY(probe_of(g, n, &probe, err));
  unroll_status st = claims_alloc(probe, &claims, err);
  if (st == UNROLL_OK) {
    st = ask(probe, d, claims, err);
    *takes = st == UNROLL_OK;
    for (uint32_t i = 0; *takes && i < probe->n_nodes; i++)
      *takes = is_host_view(&probe->nodes[i]) || claims[i].group != 0;
    mem_free(&probe->allocator, claims);
  }
  unroll_graph_destroy(probe);
  return st;
}

/* The first device that takes it one way or the other decides. The reference takes every node as it is. */
static unroll_status offer_spelled_out(const unroll_graph *g, const device_list *devices, bool *spell_out,
                                       unroll_error *err) {
  bool any = false;
  for (uint32_t i = 0; i < g->n_nodes; i++) {
    spell_out[i] = false;
    any = any || graph_can_spell_out(&g->nodes[i]);
  }
  if (!any)
    return UNROLL_OK;
  unroll_claim *claims;
  bool *settled = mem_array(&g->allocator, g->n_nodes, sizeof *settled);
  if (!settled)
    return fail(err, UNROLL_E_MEMORY, "out of memory for the claims on a graph");
  unroll_status st = claims_alloc(g, &claims, err);
  if (st != UNROLL_OK) {
    mem_free(&g->allocator, settled);
    return st;
  }
  for (uint32_t d = 0; st == UNROLL_OK && d < devices->n; d++) {
    st = ask(g, devices->device[d], claims, err);
    for (uint32_t i = 0; st == UNROLL_OK && i < g->n_nodes; i++) {
      if (settled[i] || !graph_can_spell_out(&g->nodes[i]))
        continue;
      if (claims[i].group == 0)
        st = takes_spelled_out(g, &g->nodes[i], devices->device[d], &spell_out[i], err);
      settled[i] = claims[i].group != 0 || spell_out[i];
    }
  }
  mem_free(&g->allocator, claims);
  mem_free(&g->allocator, settled);
  return st;
}

unroll_status offer_norms(const unroll_graph *g, const device_list *devices, layer_fate *fates, unroll_error *err) {
  uint32_t most = g->n_nodes;
  for (uint32_t i = 0; i < g->n_nodes; i++)
    if (g->nodes[i].body && g->nodes[i].body->n_nodes > most)
      most = g->nodes[i].body->n_nodes;
  bool *spell_out = mem_array(&g->allocator, (uint64_t)most + 1, sizeof *spell_out);
  if (!spell_out)
    return fail(err, UNROLL_E_MEMORY, "out of memory for the claims on a graph");
  unroll_status st = offer_spelled_out(g, devices, spell_out, err);
  for (uint32_t i = 0; st == UNROLL_OK && i < g->n_nodes; i++)
    fates[i].spell_out = spell_out[i];
  for (uint32_t i = 0; st == UNROLL_OK && i < g->n_nodes; i++) {
    const unroll_graph *body = g->nodes[i].body;
    if (!body)
      continue;
    st = offer_spelled_out(body, devices, spell_out, err);
    for (uint32_t k = 0; st == UNROLL_OK && k < body->n_nodes; k++)
      fates[i].spell_out = fates[i].spell_out || spell_out[k];
  }
  mem_free(&g->allocator, spell_out);
  return st;
}

unroll_status offer(const unroll_graph *g, const device_list *devices, const uint32_t *barred, taker *taken,
                    unroll_error *err) {
  unroll_claim *claims;
  TRY(claims_alloc(g, &claims, err));
  for (uint32_t i = 0; i < g->n_nodes; i++)
    taken[i] = (taker){NO_DEVICE, 0};
  unroll_status st = UNROLL_OK;
  for (uint32_t d = 0; st == UNROLL_OK && d < devices->n; d++) {
    st = ask(g, devices->device[d], claims, err);
    for (uint32_t i = 0; st == UNROLL_OK && i < g->n_nodes; i++)
      if (taken[i].device != NO_DEVICE || (barred[i] >> d & 1u) ||
          (g->nodes[i].only != GRAPH_NONE && g->nodes[i].only != d))
        turn_down(g, claims, i);
    for (uint32_t i = 0; st == UNROLL_OK && i < g->n_nodes; i++)
      if (claims[i].group != 0)
        taken[i] = (taker){d, claims[i].group};
  }
  for (uint32_t i = 0; st == UNROLL_OK && i < g->n_nodes; i++)
    if (taken[i].device == NO_DEVICE && !is_host_view(&g->nodes[i]) && g->nodes[i].op != UNROLL_OP_SCAN &&
        !is_layer(&g->nodes[i])) {
      char text[GRAPH_DESCRIBE];
      st = fail(err, UNROLL_E_UNSUPPORTED, "%s, which gives %s: no device takes it, the reference neither",
                g->nodes[i].name, graph_describe(g, g->nodes[i].out[0], text));
    }
  mem_free(&g->allocator, claims);
  return st;
}

unroll_status offer_template(unroll_context *ctx, const unroll_graph *body, const node *scan,
                             const device_list *devices, const uint32_t *barred, bool allow_crossing, taker *taken,
                             unroll_error *err) {
  TRY(offer(body, devices, barred, taken, err));
  uint32_t first = NO_DEVICE;
  uint32_t other = GRAPH_NONE;
  for (uint32_t i = 0; i < body->n_nodes; i++) {
    if (taken[i].device == NO_DEVICE)
      continue;
    if (first == NO_DEVICE)
      first = taken[i].device;
    if (taken[i].device != first && other == GRAPH_NONE)
      other = i;
  }
  if (other == GRAPH_NONE || allow_crossing)
    return UNROLL_OK;
  /* Data would change devices at every step: one device that takes all of it is better. */
  unroll_claim *claims;
  TRY(claims_alloc(body, &claims, err));
  unroll_status st = UNROLL_OK;
  for (uint32_t d = 0; st == UNROLL_OK && d < devices->n; d++) {
    bool all = true;
    st = ask(body, devices->device[d], claims, err);
    for (uint32_t i = 0; st == UNROLL_OK && i < body->n_nodes; i++)
      all = all && (is_host_view(&body->nodes[i]) || (claims[i].group != 0 && !(barred[i] >> d & 1u)));
    if (st != UNROLL_OK || !all)
      continue;
    log_message(&ctx->logger, UNROLL_LOG_WARN,
                "%s: %s does not take %s; all of its steps run on %s, so that they need not cross devices", scan->name,
                devices->device[first]->id, body->nodes[other].name, devices->device[d]->id);
    for (uint32_t i = 0; i < body->n_nodes; i++)
      if (!is_host_view(&body->nodes[i]))
        taken[i] = (taker){d, claims[i].group};
    mem_free(&body->allocator, claims);
    return UNROLL_OK;
  }
  mem_free(&body->allocator, claims);
  return st != UNROLL_OK
             ? st
             : fail(err, UNROLL_E_UNSUPPORTED,
                    "%s would cross devices at each of %lld steps: %s runs on %s, the rest on %s; allow_step_crossing "
                    "permits it",
                    scan->name, (long long)body->steps, body->nodes[other].name,
                    devices->device[taken[other].device]->id, devices->device[first]->id);
}
