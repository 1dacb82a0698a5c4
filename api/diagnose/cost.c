/* SPDX-License-Identifier: Apache-2.0 */
/* cost.c: the cost of a graph: of its nodes, those of scans as often as they have steps. */
#include "diagnose/cost_private.h"

#include <inttypes.h>
#include <string.h>

_Static_assert(UNROLL_OP_END <= UNROLL_COST_OPS, "unroll_cost.of has no room for the last op");

const char *unroll_cost_op_name(uint32_t op) { return op > 0 && op < UNROLL_OP_END ? graph_op_name(op) : NULL; }

static void add_count(cost_walk *w, unroll_cost_count *sum, const unroll_cost_count *one, int64_t times) {
  cost_add(w, &sum->runs, one->runs, times);
  cost_add(w, &sum->flops, one->flops, times);
  cost_add(w, &sum->transcendental, one->transcendental, times);
  cost_add(w, &sum->read, one->read, times);
  cost_add(w, &sum->written, one->written, times);
}

static int64_t steps_of(cost_walk *w, const unroll_graph *body) {
  if (body->steps_dim < 0 || !w->dims)
    return body->steps;
  return cost_times(w, body->steps / graph_root_of(body)->dims[body->steps_dim].max, w->dims[body->steps_dim]);
}

static unroll_status walk(cost_walk *w, const unroll_graph *g, int64_t times, unroll_cost *cost, unroll_error *err) {
  for (uint32_t i = 0; i < g->n_nodes; i++) {
    const node *n = &g->nodes[i];
    w->graph = g;
    if (n->op == UNROLL_OP_SCAN) {
      const int64_t steps = cost_times(w, times, steps_of(w, n->body));
      TRY(walk(w, n->body, steps, cost, err));
      continue;
    }
    cost_of_node(w, n);
    add_count(w, &cost->of[n->op], &w->one, times);
    add_count(w, &cost->total, &w->one, times);
    if (w->overflow)
      return fail(err, UNROLL_E_RANGE, "cost: with node %s the sums don't fit into 64 bits", n->name);
  }
  return UNROLL_OK;
}

static unroll_status check_dims(const unroll_graph *g, const int64_t *dims, uint32_t n_dims, unroll_error *err) {
  if (!dims)
    return UNROLL_OK;
  if (n_dims != g->n_dims)
    return fail(err, UNROLL_E_INVALID, "cost: %u run-time sizes, the graph has %u", n_dims, g->n_dims);
  for (uint32_t i = 0; i < n_dims; i++)
    if (dims[i] < g->dims[i].min || dims[i] > g->dims[i].max)
      return fail(err, UNROLL_E_RANGE, "cost: %s = %" PRId64 ", it must be from %" PRId64 " to %" PRId64,
                  g->dims[i].name, dims[i], g->dims[i].min, g->dims[i].max);
  return UNROLL_OK;
}

static unroll_status count_parameters(const unroll_graph *g, unroll_cost *cost, unroll_error *err) {
  cost_walk w = {.graph = g};
  for (uint32_t i = 0; i < g->n_tensors; i++) {
    const tensor *t = &g->tensors[i];
    if (t->role != UNROLL_ROLE_PARAM)
      continue;
    int64_t n = 1;
    for (int32_t a = 0; a < t->spec.rank; a++)
      n = cost_times(&w, n, t->spec.shape[a]);
    cost_add(&w, &cost->parameters, n, 1);
    cost_add(&w, &cost->parameter_bytes, n, unroll_dtype_size(t->spec.dtype));
    if (w.overflow)
      return fail(err, UNROLL_E_RANGE, "cost: with parameter %s the sums don't fit into 64 bits", t->name);
  }
  return UNROLL_OK;
}

unroll_status unroll_cost_of_graph(const unroll_graph *graph, const int64_t *dims, uint32_t n_dims, unroll_cost *out,
                                   unroll_error *err) {
  if (!graph || !out || !UNROLL_HAS(unroll_cost, out, parameter_bytes))
    return fail(err, UNROLL_E_INVALID, "unroll_cost_of_graph: %s",
                !graph ? "graph is NULL"
                : !out ? "cost is NULL"
                       : "cost.struct_size is too small");
  TRY(unroll_graph_status(graph, err));
  TRY(check_dims(graph, dims, n_dims, err));
  unroll_cost *cost = mem_zalloc(&graph->allocator, sizeof *cost);
  unroll_graph *lowered = NULL;
  unroll_status st = cost ? UNROLL_OK : fail(err, UNROLL_E_MEMORY, "cost: no memory");
  cost_walk w = {.dims = dims};
  if (st != UNROLL_OK)
    return st;
  TRY_GOTO(st, count_parameters(graph, cost, err), done);
  TRY_GOTO(st, graph_lower(graph, NULL, &lowered, err), done);
  TRY_GOTO(st, walk(&w, lowered, 1, cost, err), done);
  cost->struct_size = out->struct_size;
  memcpy(out, cost, out->struct_size < sizeof *cost ? out->struct_size : sizeof *cost);
done:
  unroll_graph_destroy(lowered);
  if (cost)
    mem_free(&graph->allocator, cost);
  return st;
}
