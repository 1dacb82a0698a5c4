/* SPDX-License-Identifier: Apache-2.0 */
/* order.c: an order to run in, that of the graph except that the nodes of a plugin's private group stand together. */
#include "runtime/runtime_private.h"

static bool is_private(taker t) { return t.device != NO_DEVICE && t.group != UNROLL_GROUP_HOST; }

/* The unit of a node: itself, or the first node of its private group. A view of what a private group makes goes with
 * it, since no backend may claim that. */
static void find_units(const unroll_graph *g, const taker *takers, uint32_t *unit) {
  for (uint32_t i = 0; i < g->n_nodes; i++) {
    const node *n = &g->nodes[i];
    const uint32_t source = is_host_view(n) ? g->tensors[n->in[0]].producer : GRAPH_NONE;
    unit[i] = source != GRAPH_NONE && is_private(takers[unit[source]]) ? unit[source] : i;
    if (!is_private(takers[i]))
      continue;
    for (uint32_t k = 0; k < i; k++)
      if (takers[k].device == takers[i].device && takers[k].group == takers[i].group) {
        unit[i] = unit[k];
        break;
      }
  }
}

/* May the nodes of a unit run, given what is done? */
static bool ready(const unroll_graph *g, const uint32_t *unit, uint32_t u, const bool *done) {
  for (uint32_t i = u; i < g->n_nodes; i++) {
    const node *n = &g->nodes[i];
    for (uint32_t k = 0; unit[i] == u && k < n->n_in; k++) {
      const uint32_t p = n->in[k] == GRAPH_NONE ? GRAPH_NONE : g->tensors[n->in[k]].producer;
      if (p != GRAPH_NONE && unit[p] != u && !done[unit[p]])
        return false;
    }
  }
  return true;
}

unroll_status order_nodes(const unroll_graph *g, const taker *takers, const device_list *devices, uint32_t *order,
                          unroll_error *err) {
  bool private_groups = false;
  for (uint32_t i = 0; i < g->n_nodes; i++)
    private_groups = private_groups || is_private(takers[i]);
  if (!private_groups) {
    for (uint32_t i = 0; i < g->n_nodes; i++)
      order[i] = i;
    return UNROLL_OK;
  }
  const unroll_allocator *a = &g->allocator;
  uint32_t *unit = mem_array(a, g->n_nodes, sizeof *unit), n = 0;
  bool *done = mem_array(a, g->n_nodes, sizeof *done);
  unroll_status st = unit && done ? UNROLL_OK : fail(err, UNROLL_E_MEMORY, "out of memory for the order of a graph");
  if (st == UNROLL_OK)
    find_units(g, takers, unit);
  while (st == UNROLL_OK && n < g->n_nodes) {
    const uint32_t before = n;
    uint32_t stuck = GRAPH_NONE;
    for (uint32_t u = 0; u < g->n_nodes; u++) {
      if (unit[u] != u || done[u])
        continue;
      if (!ready(g, unit, u, done)) {
        if (stuck == GRAPH_NONE && is_private(takers[u]))
          stuck = u;
        continue;
      }
      for (uint32_t i = u; i < g->n_nodes; i++)
        if (unit[i] == u)
          order[n++] = i;
      done[u] = true;
    }
    if (n == before)
      st = fail(err, UNROLL_E_PLUGIN,
                "%s claims group %u, which is not convex: a path leads out of it and back into it, at %s",
                devices->device[takers[stuck == GRAPH_NONE ? 0 : stuck].device]->id,
                takers[stuck == GRAPH_NONE ? 0 : stuck].group, g->nodes[stuck == GRAPH_NONE ? 0 : stuck].name);
  }
  mem_free(a, unit);
  mem_free(a, done);
  return st;
}
