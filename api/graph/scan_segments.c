/* SPDX-License-Identifier: Apache-2.0 */
/* scan_segments.c: a scan in segments over time, each a scan of its own whose body is a copy. */
#include "graph/checkpoint_private.h"
#include <inttypes.h>

void unroll_scan_checkpoint(unroll_scan *s, const unroll_checkpoint_policy *policy) {
  if (!s || graph_failed(s->graph))
    return;
  if (!policy || !UNROLL_HAS(unroll_checkpoint_policy, policy, bytes)) {
    graph_fail(s->graph, UNROLL_E_INVALID, "scan: its policy of checkpoints is NULL, or its struct_size is too small");
    return;
  }
  s->checkpoint = *policy;
  s->checkpoint.struct_size = sizeof s->checkpoint;
}

typedef struct segments {
  unroll_graph *g, *body;
  const checkpoint_schedule *schedule;
  int32_t cell;
  uint32_t *state;      /* carries, as the next segment finds them */
  unroll_tensor *parts; /* of each output, of each segment in time */
} segments;

/* The lengths that the steps are held against are counted from the segment's first step. */
static void shift_lengths(unroll_graph *g, unroll_graph *b, int64_t start, int64_t steps) {
  const uint32_t n_captures = b->n_captures; /* those that follow are shifted already */
  for (uint32_t i = 0; i < b->n_nodes && !graph_failed(g); i++) {
    if (b->nodes[i].op != UNROLL_OP_LENGTH_MASK)
      continue;
    const uint32_t inner = b->nodes[i].in[2];
    for (uint32_t k = 0; k < n_captures; k++)
      if (b->captures[k].inner == inner) {
        const unroll_tensor of = checkpoint_lengths(graph_handle(g, b->captures[k].outer), start, steps);
        const uint32_t other = of.graph ? graph_resolve(b, of, "scan's lengths") : GRAPH_NONE;
        for (uint32_t n = i; n < b->n_nodes && other != GRAPH_NONE; n++)
          if (b->nodes[n].op == UNROLL_OP_LENGTH_MASK && b->nodes[n].in[2] == inner)
            b->nodes[n].in[2] = other;
        break;
      }
  }
}

/* Captures that no node reads any more. */
static void drop_captures(unroll_graph *b) {
  uint32_t left = 0;
  for (uint32_t i = 0; i < b->n_captures; i++) {
    bool read = false;
    for (uint32_t k = 0; k < b->n_nodes; k++)
      read = read || node_reads(&b->nodes[k], b->captures[i].inner);
    if (read)
      b->captures[left++] = b->captures[i];
  }
  b->n_captures = left;
}

static uint32_t result(unroll_graph *g, uint32_t like, int64_t steps) {
  tensor_spec spec = g->tensors[like].spec;
  if (steps)
    spec.shape[0] = steps;
  return graph_add_tensor(g, &spec, UNROLL_ROLE_TEMP, GRAPH_NONE, mem_strdup(&g->allocator, g->tensors[like].name));
}

static void build_segment(void *user, int64_t i) {
  segments *x = user;
  unroll_graph *g = x->g;
  const int64_t start = checkpoint_start(x->schedule, i), steps = checkpoint_steps(x->schedule, i);
  const int64_t in_time = checkpoint_place(x->schedule, i);
  unroll_graph *b = graph_copy_body(g, x->body);
  if (!b) {
    graph_fail(g, UNROLL_E_MEMORY, "out of memory for a segment of a scan");
    return;
  }
  b->steps = steps;
  shift_lengths(g, b, start, steps);
  drop_captures(b);
  for (uint32_t k = 0; k < b->n_inputs && !graph_failed(g); k++)
    b->inputs[k].outer = unroll_slice(graph_handle(g, b->inputs[k].outer), 0, start, steps).id;
  for (uint32_t k = 0; k < b->n_carries && !graph_failed(g); k++) {
    b->carries[k].init = x->state[k];
    x->state[k] = b->carries[k].last = result(g, b->carries[k].last, 0);
  }
  for (uint32_t k = 0; k < b->n_outputs && !graph_failed(g); k++) {
    b->outputs[k].outer = result(g, b->outputs[k].outer, steps);
    x->parts[k * x->schedule->info.segments + in_time] = graph_handle(g, b->outputs[k].outer);
  }
  if (graph_failed(g) || !scan_add_node(g, b, x->cell, start))
    unroll_graph_destroy(b);
}

/* The node that makes x makes id, which was promised, instead of it. */
static void make_instead(unroll_graph *g, unroll_tensor x, uint32_t id) {
  if (!x.graph || graph_failed(g))
    return;
  node *n = &g->nodes[g->tensors[x.id].producer];
  for (uint32_t i = 0; i < n->n_out; i++)
    if (n->out[i] == x.id)
      n->out[i] = id;
  g->tensors[id].producer = g->tensors[x.id].producer;
  g->tensors[x.id].producer = GRAPH_NONE;
  g->tensors[id].pending = false;
}

static uint64_t bytes_of(const tensor_spec *s) {
  uint64_t n = unroll_dtype_size(s->dtype);
  for (int i = 0; i < s->rank; i++)
    n *= (uint64_t)s->shape[i];
  return n;
}

/* The bytes of a state, and of a step: of every real result in the body and of the gradient that flows into it. */
static bool measure(unroll_scan *s, unroll_checkpoint_sizes *z) {
  const unroll_graph *b = s->body;
  int64_t batch = 1;
  for (uint32_t i = 0; i < b->n_carries; i++)
    z->state_bytes += bytes_of(&b->tensors[b->carries[i].in].spec);
  if (b->n_carries && b->tensors[b->carries[0].in].spec.rank)
    batch = b->tensors[b->carries[0].in].spec.shape[0];
  for (uint32_t i = 0; i < b->n_nodes; i++) {
    const node *n = &b->nodes[i];
    for (uint32_t k = 0; k < n->n_out; k++)
      if (gradient_is_real(&b->tensors[n->out[k]].spec))
        z->step_bytes += 2 * bytes_of(&b->tensors[n->out[k]].spec);
    if (n->op == UNROLL_OP_EMBEDDING && b->tensors[n->in[0]].role == UNROLL_ROLE_CAPTURE) {
      graph_fail(s->graph, UNROLL_E_UNSUPPORTED,
                 "scan with checkpoints: %s looks up rows of %s; look them up before the scan", n->name,
                 b->tensors[n->in[0]].name);
      return false;
    }
  }
  z->block = gradient_block(batch);
  return true;
}

bool scan_build_segments(unroll_scan *s) {
  unroll_graph *g = s->graph, *b = s->body;
  unroll_error err = UNROLL_ERROR_INIT;
  checkpoint_schedule schedule = {.allocator = &g->allocator};
  unroll_checkpoint_sizes z = {.struct_size = sizeof z, .direction = b->direction, .steps = b->steps};
  if (b->steps_dim >= 0) {
    graph_fail(g, UNROLL_E_UNSUPPORTED, "scan with checkpoints: its number of steps is the run-time size %s",
               g->dims[b->steps_dim].name);
    return false;
  }
  if (!measure(s, &z))
    return false;
  if (checkpoint_plan(&g->allocator, &s->checkpoint, &z, &schedule, &err) != UNROLL_OK) {
    graph_fail(g, err.code, "scan: %s", err.message);
    checkpoint_free(&schedule);
    return false;
  }
  const uint64_t n = (uint64_t)schedule.info.segments;
  segments x = {.g = g, .body = b, .schedule = &schedule, .cell = s->cell};
  x.state = mem_array(&g->allocator, (uint64_t)b->n_carries + 1, sizeof *x.state);
  x.parts = mem_array(&g->allocator, b->n_outputs * n + 1, sizeof *x.parts);
  if (!x.state || !x.parts)
    graph_fail(g, UNROLL_E_MEMORY, "out of memory for the segments of a scan");
  else {
    for (uint32_t i = 0; i < b->n_carries; i++)
      x.state[i] = b->carries[i].init;
    checkpoint_build(g, &schedule, build_segment, &x);
    for (uint32_t i = 0; i < b->n_carries && !graph_failed(g); i++)
      make_instead(g, unroll_unary(graph_handle(g, x.state[i]), UNROLL_COPY), b->carries[i].last);
    for (uint32_t i = 0; i < b->n_outputs && !graph_failed(g); i++)
      make_instead(g, unroll_concat(x.parts + i * n, (uint32_t)n, 0), b->outputs[i].outer);
  }
  mem_free(&g->allocator, x.state);
  mem_free(&g->allocator, x.parts);
  checkpoint_free(&schedule);
  if (graph_failed(g))
    return false;
  b->ended = true;
  b->next_cut = g->cut;
  g->cut = b;
  return true;
}
