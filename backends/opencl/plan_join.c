/* SPDX-License-Identifier: Apache-2.0 */
/*
 * plan_join.c: neighbours in a step that become one launch, as a step of a recurrence has little work for each: a sum that
 * the next node alone reads, and an activation of what the node before normalised.
 */
#include "opencl.h"

static uint32_t in_of(const unroll_graph_view *g, const unroll_node_view *n, uint32_t i) {
  return i < n->n_in ? g->edges[n->first_in + i] : UNROLL_NO_TENSOR;
}
static uint32_t out_of(const unroll_graph_view *g, const unroll_node_view *n, uint32_t i) {
  return i < n->n_out ? g->edges[n->first_out + i] : UNROLL_NO_TENSOR;
}

static bool is_made(const unroll_graph_view *g, uint32_t tensor) {
  for (uint32_t i = 0; i < g->n_nodes; i++)
    for (uint32_t k = 0; k < graph_node(g, i)->n_out; k++)
      if (out_of(g, graph_node(g, i), k) == tensor)
        return true;
  return false;
}

/* Edges of nodes that read it, and the body's outputs that it is. */
static uint32_t readers(const unroll_graph_view *g, uint32_t tensor) {
  uint32_t count = 0;
  for (uint32_t i = 0; i < g->n_nodes; i++)
    for (uint32_t k = 0; k < graph_node(g, i)->n_in; k++)
      count += in_of(g, graph_node(g, i), k) == tensor;
  for (uint32_t i = 0; i < g->n_out; i++)
    count += g->edges[g->first_out + i] == tensor;
  return count;
}

/* Whether all nodes of the step are here. Else somebody might read what is not written, unseen: what he makes would come back
 * in here, or be an output. */
static bool is_whole(const unroll_graph_view *g) {
  for (uint32_t i = 0; i < g->n_nodes; i++)
    for (uint32_t k = 0; k < graph_node(g, i)->n_in; k++) {
      const uint32_t t = in_of(g, graph_node(g, i), k);
      if (t != UNROLL_NO_TENSOR && graph_tensor(g, t)->role == UNROLL_ROLE_TEMP && !is_made(g, t))
        return false;
    }
  for (uint32_t i = 0; i < g->n_out; i++) {
    const uint32_t t = g->edges[g->first_out + i];
    if (graph_tensor(g, t)->role == UNROLL_ROLE_TEMP && !is_made(g, t))
      return false;
  }
  return true;
}

/* What lies in the same place at some step; places that move unlike each other are of things that live through all steps. */
static bool lie_together(const unroll_tensor_view *a, const unroll_tensor_view *b) {
  if (a->slot != b->slot || a->period != b->period || (a->period == 0 && a->step != b->step))
    return false;
  int64_t a_bytes = (int64_t)dtype_bytes(a->dtype), b_bytes = (int64_t)dtype_bytes(b->dtype);
  for (int32_t i = 0; i < a->rank; i++)
    a_bytes *= a->shape[i];
  for (int32_t i = 0; i < b->rank; i++)
    b_bytes *= b->shape[i];
  for (int64_t t = 0; t < (a->period ? (int64_t)a->period : 1); t++) {
    const int64_t x = (int64_t)a->offset + t * a->step, y = (int64_t)b->offset + t * b->step;
    if (x < y + b_bytes && y < x + a_bytes)
      return true;
  }
  return false;
}

/* What the node reads is still there when the next one has written. */
static bool outlives(const unroll_graph_view *g, const unroll_node_view *n, const unroll_node_view *next) {
  for (uint32_t i = 0; i < n->n_in; i++)
    for (uint32_t k = 0; k < next->n_out; k++) {
      const uint32_t a = in_of(g, n, i), b = out_of(g, next, k);
      if (a != UNROLL_NO_TENSOR && b != UNROLL_NO_TENSOR && lie_together(graph_tensor(g, a), graph_tensor(g, b)))
        return false;
    }
  return true;
}

static bool alike(const plan *p, uint32_t a, uint32_t b) {
  const unroll_tensor_view *v = plan_view(p, a), *w = plan_view(p, b);
  bool same = v->dtype == w->dtype && v->rank == w->rank;
  for (int32_t i = 0; same && i < v->rank; i++)
    same = v->shape[i] == w->shape[i] && v->dim[i] == w->dim[i];
  return same;
}

/* The node's one result is read by the next one alone. */
static bool feeds_next(const plan *p, uint32_t node) {
  const unroll_graph_view *g = p->graph;
  if (!g->is_template || p->dry || node + 1 >= g->n_nodes)
    return false;
  const unroll_node_view *n = graph_node(g, node), *next = graph_node(g, node + 1);
  const uint32_t y = out_of(g, n, 0);
  return n->op_version == 1 && next->op_version == 1 && n->n_out == 1 && y != UNROLL_NO_TENSOR &&
         plan_view(p, y)->role == UNROLL_ROLE_TEMP && readers(g, y) == 1 && is_whole(g) && outlives(g, n, next);
}

/* The input of a node that may be a sum of two; the kernels add them up as they read. */
static uint32_t addable(const plan *p, const unroll_node_view *n) {
  switch (n->op) {
  case UNROLL_OP_LSTM_GATES_GRAD:
  case UNROLL_OP_GRU_AFTER_GATES_GRAD: return in_of(p->graph, n, 2);
  case UNROLL_OP_GRU_UPDATE_GRAD: return in_of(p->graph, n, 3);
  case UNROLL_OP_BINARY: {
    const unroll_binary_attr *attr = n->attr;
    const uint32_t a = in_of(p->graph, n, 0), b = in_of(p->graph, n, 1);
    return attr->kind >= UNROLL_TANH_GRAD && a != b && alike(p, a, b) ? a : UNROLL_NO_TENSOR;
  }
  default: return UNROLL_NO_TENSOR;
  }
}

bool plan_adds_into_next(const plan *p, uint32_t node) {
  const unroll_graph_view *g = p->graph;
  const unroll_node_view *n = graph_node(g, node);
  if (n->op != UNROLL_OP_BINARY || ((const unroll_binary_attr *)n->attr)->kind != UNROLL_ADD || !feeds_next(p, node))
    return false;
  const uint32_t a = in_of(g, n, 0), b = in_of(g, n, 1), y = out_of(g, n, 0);
  return plan_real(p, plan_view(p, y)->dtype) && alike(p, a, y) && alike(p, b, y) &&
         addable(p, graph_node(g, node + 1)) == y;
}

uint32_t plan_added(const plan *p, uint32_t *first) {
  if (p->node_index == 0 || !plan_adds_into_next(p, p->node_index - 1))
    return UNROLL_NO_TENSOR;
  const unroll_node_view *n = graph_node(p->graph, p->node_index - 1);
  *first = in_of(p->graph, n, 0);
  return in_of(p->graph, n, 1);
}

int32_t plan_activates(const plan *p, uint32_t node) {
  const unroll_graph_view *g = p->graph;
  if (graph_node(g, node)->op != UNROLL_OP_LAYER_NORM || !feeds_next(p, node) ||
      graph_node(g, node + 1)->op != UNROLL_OP_UNARY)
    return UNROLL_COPY;
  const int32_t kind = ((const unroll_unary_attr *)graph_node(g, node + 1)->attr)->kind;
  return kind == UNROLL_TANH || kind == UNROLL_SIGMOID || kind == UNROLL_RELU ? kind : UNROLL_COPY;
}

bool plan_is_joined(const plan *p, uint32_t node) {
  return plan_adds_into_next(p, node) || (node > 0 && plan_activates(p, node - 1) != UNROLL_COPY);
}
