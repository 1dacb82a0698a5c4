/* SPDX-License-Identifier: Apache-2.0 */
/*
 * concurrent.c: layers in flight at once. Where one layer can't fill the device, as with a small batch, another one that has
 * nothing to do with it, as the other direction of a bidirectional layer, runs beside it on a second queue.
 *
 * A flight is a row of nodes in two branches. A node of one branch neither reads nor writes memory that a node of the other
 * writes: that is asked of slots and offsets, since the host lets tensors that don't live at one time share their memory.
 * Each branch keeps the order of the graph, and both are done before what follows the flight begins.
 */
#include "layer.h"

enum { MOST_NODES = 32 };          /* of a flight */
static const double LAUNCH = 24e3; /* cycles of a launch, as in tune.c */
static const double WORTH = 0.9;   /* of the time one after the other: the queues have to wait for each other, too */

static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

/* ---- who stands in whose way ---- */
static bool overlap(const plan *p, uint32_t a, uint32_t b) {
  if (a == UNROLL_NO_TENSOR || b == UNROLL_NO_TENSOR)
    return false;
  const unroll_tensor_view *x = plan_view(p, a), *y = plan_view(p, b);
  uint64_t n[2] = {dtype_bytes(x->dtype), dtype_bytes(y->dtype)};
  for (int32_t i = 0; i < x->rank; i++)
    n[0] *= (uint64_t)x->shape[i];
  for (int32_t i = 0; i < y->rank; i++)
    n[1] *= (uint64_t)y->shape[i];
  return x->slot == y->slot && x->offset < y->offset + n[1] && y->offset < x->offset + n[0];
}

/* Does b read or write what a writes? */
static bool writes_for(const plan *p, const unroll_node_view *a, const unroll_node_view *b) {
  const uint32_t *edges = p->graph->edges;
  for (uint32_t i = 0; i < a->n_out; i++) {
    for (uint32_t k = 0; k < b->n_in; k++)
      if (overlap(p, edges[a->first_out + i], edges[b->first_in + k]))
        return true;
    for (uint32_t k = 0; k < b->n_out; k++)
      if (overlap(p, edges[a->first_out + i], edges[b->first_out + k]))
        return true;
  }
  return false;
}

static bool conflict(const plan *p, uint32_t a, uint32_t b) {
  const unroll_node_view *x = graph_node(p->graph, a), *y = graph_node(p->graph, b);
  return writes_for(p, x, y) || writes_for(p, y, x);
}

static bool is_layer(const plan *p, uint32_t node) {
  const uint32_t op = graph_node(p->graph, node)->op;
  return op == UNROLL_OP_LAYER || op == UNROLL_OP_LAYER_GRAD;
}

enum { MAIN, ASIDE, EITHER };

/* What may go into either branch and stands in the way of a node that went into one goes there too. */
static void pull(const plan *p, uint32_t first, uint32_t node, uint8_t *branch) {
  const uint8_t to = branch[node - first];
  bool pulled[MOST_NODES] = {false}, again = true;
  pulled[node - first] = true;
  while (again) {
    again = false;
    for (uint32_t i = first; i < node; i++)
      for (uint32_t k = first; k <= node && branch[i - first] == EITHER; k++)
        if (pulled[k - first] && conflict(p, i, k)) {
          branch[i - first] = to;
          pulled[i - first] = again = true;
        }
  }
}

/*
 * The flight that begins with the layer `first`: a node goes to the branch that it has to do with, a layer that has to do with
 * none goes to the second one. It ends where a node has to do with both, after the last layer before that. The node after its
 * last one; first where there are no two branches. branch: of first, first + 1, ..
 */
static uint32_t find_end(const plan *p, uint32_t first, uint8_t *branch) {
  uint32_t end = first;
  bool both = false;
  branch[0] = MAIN;
  for (uint32_t i = first + 1; i < p->graph->n_nodes && i < first + MOST_NODES; i++) {
    bool meets[3] = {false, false, false};
    if (graph_node(p->graph, i)->op == UNROLL_OP_OPTIMIZER) /* which writes what it reads */
      break;
    for (uint32_t k = first; k < i; k++)
      meets[branch[k - first]] = meets[branch[k - first]] || conflict(p, k, i);
    if (meets[MAIN] && meets[ASIDE])
      break;
    const bool is_one = is_layer(p, i);
    branch[i - first] = meets[MAIN] ? MAIN : meets[ASIDE] || is_one ? ASIDE : EITHER;
    if (branch[i - first] != EITHER)
      pull(p, first, i, branch);
    both = both || (is_one && branch[i - first] == ASIDE);
    if (both && is_one)
      end = i + 1;
  }
  return end;
}

/* ---- whether it is worth it ---- */
/* Cycles of a layer on so many cores, as the model of plan_layer.c has them; on other devices its work-groups. */
static unroll_status cost_of(plan *p, uint32_t node, int64_t cores, double *cost) {
  p->node = graph_node(p->graph, node);
  p->node_index = node;
  layer l = {0};
  const bool backward = p->node->op == UNROLL_OP_LAYER_GRAD;
  TRY(layer_read(p, &l, backward ? 5 : 7));
  if (!p->device->cpu) {
    bool save = backward;
    for (uint32_t i = 3; i < 7; i++)
      save = save || plan_out(p, i) != UNROLL_NO_TENSOR;
    const layer_split s = layer_divide_groups(p, &l, backward, save);
    *cost = (double)(s.row_pieces * ceil_div(ceil_div(l.H, s.units * l.width), s.item_blocks));
    return UNROLL_OK;
  }
  const int64_t gates = backward ? 1 : l.gates, k = backward ? l.gates * l.H : l.H;
  l.cores = cores;
  const layer_split s = layer_divide(p, &l, gates, l.phases, k);
  *cost = layer_cycles(&l, &s, gates, k);
  if (s.step_at_a_time) {
    const int64_t idle = cores / s.row_pieces;
    *cost = *cost / (double)(idle > 1 ? idle : 1) + LAUNCH * l.phases;
  }
  *cost *= (double)l.max_t;
  return UNROLL_OK;
}

/*
 * On a processor, where half of the cores for each branch take less time than all cores for one branch after the other: with
 * batch 1 a layer is one core's work; with a few rows a core that has more of them reads the weights once for all. On other
 * devices, where the work-groups of both together have a compute unit each.
 */
static unroll_status is_worth_it(plan *p, uint32_t first, uint32_t end, const uint8_t *branch, bool *worth) {
  const int64_t cores = p->device->cores, half = cores > 1 ? cores / 2 : 1;
  double one[2] = {0, 0}, alone = 0, cost;
  for (uint32_t i = first; i < end; i++) {
    if (!is_layer(p, i))
      continue;
    TRY(cost_of(p, i, half, &cost));
    double *sum = &one[branch[i - first]];
    *sum = p->device->cpu ? *sum + cost : cost > *sum ? cost : *sum;
    TRY(cost_of(p, i, cores, &cost));
    alone += cost;
  }
  if (p->device->cpu)
    *worth = (one[0] > one[1] ? one[0] : one[1]) < WORTH * alone;
  else
    *worth = one[0] + one[1] <= (double)cores;
  return UNROLL_OK;
}

unroll_status flights_find(plan *p) {
  const unroll_backend_device *d = p->device;
  const uint32_t n = p->graph->n_nodes;
  /* Groups that wait for each other want the device for themselves. */
  if (d->concurrent == SWITCH_OFF || d->recurrence == RECURRENCE_PERSISTENT || p->graph->is_template || p->trial ||
      n < 2)
    return UNROLL_OK;
  p->flights = opencl_alloc(d->host, n, sizeof *p->flights);
  if (!p->flights)
    return opencl_fail(&p->error, UNROLL_E_MEMORY, 0, "opencl: no memory to plan %u nodes", n);
  for (uint32_t i = 0; i < n; i++) {
    uint8_t branch[MOST_NODES];
    bool worth = d->concurrent == SWITCH_ON;
    const uint32_t end = is_layer(p, i) ? find_end(p, i, branch) : i;
    if (end == i)
      continue;
    if (!worth)
      TRY(is_worth_it(p, i, end, branch, &worth));
    if (!worth)
      continue;
    p->n_flights++;
    opencl_log(d->host, UNROLL_LOG_DEBUG, "opencl: in flight at once: two branches of %s to %s",
               graph_node(p->graph, i)->name, graph_node(p->graph, end - 1)->name);
    for (uint32_t k = i; k < end; k++)
      p->flights[k] = (flight){.number = p->n_flights, .aside = branch[k - i] == ASIDE};
    i = end - 1;
  }
  return UNROLL_OK;
}

/* ---- once all is planned ---- */
/* Products by CLBlast share a buffer of the binding. */
static bool share_products(const plan *p, uint32_t number) {
  bool have[2] = {false, false};
  for (uint32_t i = 0; i < p->n_launches; i++) {
    const flight *f = &p->flights[p->launches[i].node];
    if (f->number == number && !p->launches[i].source)
      have[f->aside] = true;
  }
  return have[0] && have[1];
}

static void move_scratch(plan *p, launch *l, uint64_t by) {
  for (uint32_t i = 0; i < l->n_args; i++)
    if (p->args[l->first_arg + i].kind == ARG_SCRATCH_AT)
      p->args[l->first_arg + i].value += (int64_t)by;
  operand *const operands[] = {l->product ? &l->product->a : NULL, l->product ? &l->product->b : NULL,
                               l->product ? &l->product->y : NULL};
  for (int i = 0; i < 3; i++)
    if (operands[i] && operands[i]->mem == ARG_SCRATCH)
      operands[i]->at += by;
}

/* Launches learn where they belong, and the second branch gets scratch of its own. */
static void settle(plan *p, uint32_t number) {
  uint64_t most[2] = {0, 0};
  for (uint32_t i = 0; i < p->graph->n_nodes; i++) {
    const flight *f = &p->flights[i];
    if (f->number == number && most[f->aside] < f->scratch)
      most[f->aside] = f->scratch;
  }
  for (uint32_t i = 0; i < p->n_launches; i++) {
    launch *l = &p->launches[i];
    if (p->flights[l->node].number != number)
      continue;
    l->flight = number;
    l->aside = p->flights[l->node].aside;
    if (l->aside)
      move_scratch(p, l, most[0]);
  }
  if (p->workspace < most[0] + most[1])
    p->workspace = most[0] + most[1];
}

void flights_settle(plan *p) {
  for (uint32_t number = 1; number <= p->n_flights; number++)
    if (!share_products(p, number))
      settle(p, number);
}

bool plan_in_flight(const plan *p) { return p->flights && p->flights[p->node_index].number != 0; }

layer_split layer_share(const plan *p, layer *l, layer_split s, int64_t gates, int64_t k) {
  if (!p->device->cpu || !plan_in_flight(p))
    return s;
  l->cores = l->cores > 1 ? l->cores / 2 : 1;
  return layer_divide(p, l, gates, l->phases, k);
}
