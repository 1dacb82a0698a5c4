/* SPDX-License-Identifier: Apache-2.0 */
/* spell_out.c: what normalises rows, as sums, products and the like, for devices that don't know it as one op. */
#include "graph/graph_private.h"
#include <string.h>

bool graph_can_spell_out(const node *n) {
  switch (n->op) {
  case UNROLL_OP_LAYER_NORM:
  case UNROLL_OP_LAYER_NORM_GRAD: return true;
  case UNROLL_OP_LSTM_GATES:
  case UNROLL_OP_LSTM_GATES_GRAD: return graph_op_version(n) > 1;
  default: return false;
  }
}

static unroll_tensor number(unroll_tensor like, double value) {
  return unroll_constant(like.graph, graph_spec(like)->dtype, 0, NULL, value);
}
static uint32_t last_axis(unroll_tensor x) { return 1u << (graph_spec(x)->rank - 1); }
static double width(unroll_tensor x) { return (double)graph_spec(x)->shape[graph_spec(x)->rank - 1]; }
static unroll_tensor mean(unroll_tensor x) {
  return graph_failed(x.graph) ? unroll_none()
                               : unroll_scale(unroll_reduce(x, UNROLL_SUM, last_axis(x), 1), 1 / width(x));
}

graph_normed graph_normalise(unroll_tensor x, double epsilon) {
  const unroll_tensor d = unroll_sub(x, mean(x));
  if (graph_failed(x.graph))
    return (graph_normed){unroll_none(), unroll_none()};
  const unroll_tensor variance = unroll_scale(unroll_reduce(d, UNROLL_SUM_SQUARES, last_axis(x), 1), 1 / width(x));
  const unroll_tensor root = unroll_unary(unroll_add(variance, number(x, epsilon)), UNROLL_SQRT);
  const unroll_tensor rate = unroll_unary(root, UNROLL_RECIPROCAL);
  return (graph_normed){unroll_mul(d, rate), rate};
}

static unroll_tensor layer_norm(unroll_tensor x, unroll_tensor gain, unroll_tensor shift, double epsilon) {
  const unroll_tensor y = unroll_mul(graph_normalise(x, epsilon).xhat, gain);
  return shift.graph ? unroll_add(y, shift) : y;
}

/* Over all rows, as the attribute says, from what is there on. */
static unroll_tensor row_sum(unroll_tensor x, const unroll_layer_norm_attr *a, unroll_tensor before) {
  if (graph_failed(x.graph))
    return unroll_none();
  tensor_spec s = *graph_spec(x);
  if (s.rank == 1) { /* one row */
    s.rank = 2;
    s.shape[1] = s.shape[0];
    s.dim[1] = -1;
    s.shape[0] = 1;
    x = graph_reshape(x, &s);
  }
  const op_attr attr = {
      .reduce = {
          .kind = UNROLL_SUM, .axes = (1u << (s.rank - 1)) - 1, .block = a->block, .block_order = a->block_order}};
  return graph_op(UNROLL_OP_REDUCE, &attr, (unroll_tensor[]){x, before}, before.graph ? 2 : 1, NULL);
}

/* dx, dgain, dshift */
static void layer_norm_grad(const unroll_layer_norm_attr *a, unroll_tensor x, unroll_tensor gain, unroll_tensor dy,
                            unroll_tensor sum_gain, unroll_tensor sum_shift, unroll_tensor *out) {
  const graph_normed n = graph_normalise(x, a->epsilon);
  const unroll_tensor d = unroll_mul(dy, gain);
  if (graph_failed(x.graph))
    return;
  const unroll_tensor along = unroll_mul(n.xhat, mean(unroll_mul(d, n.xhat)));
  out[0] = unroll_mul(unroll_sub(unroll_sub(d, mean(d)), along), n.rate);
  out[1] = row_sum(unroll_mul(dy, n.xhat), a, sum_gain);
  out[2] = row_sum(dy, a, sum_shift);
}

static unroll_tensor output_gate(unroll_tensor gates) {
  if (!gates.graph || graph_failed(gates.graph))
    return unroll_none();
  const tensor_spec *s = graph_spec(gates);
  const int64_t H = s->shape[s->rank - 1] / 4;
  return unroll_slice(gates, s->rank - 1, 3 * H, H);
}

/* h, c, gates */
static void lstm_gates(const node *n, const unroll_tensor *in, unroll_tensor *out) {
  graph_add_node(in[0].graph, UNROLL_OP_LSTM_GATES, NULL, in, 2, NULL, out, 3);
  const unroll_tensor seen = layer_norm(out[1], in[2], in[3], n->attr.layer_norm.epsilon);
  out[0] = unroll_mul(output_gate(out[2]), unroll_tanh(seen));
}

/* gates, c_prev, dh, dc, gain, shift, sums -> dpre, dc_prev, dgain, dshift */
static void lstm_gates_grad(const node *n, const unroll_tensor *in, unroll_tensor *out) {
  unroll_graph *g = in[0].graph;
  const tensor_spec state = *graph_spec(in[1]);
  const int32_t last = state.rank - 1;
  const int64_t H = state.shape[last];
  const unroll_tensor dh = in[2].graph ? in[2] : graph_zeros_like(g, &state, 0.0), o = output_gate(in[0]);
  const unroll_tensor i = unroll_slice(in[0], last, 0, H), f = unroll_slice(in[0], last, H, H),
                      cell = unroll_slice(in[0], last, 2 * H, H);
  const unroll_tensor c = unroll_add(unroll_mul(f, in[1]), unroll_mul(i, cell));
  if (graph_failed(g))
    return;
  const unroll_tensor y = unroll_tanh(layer_norm(c, in[4], in[5], n->attr.layer_norm.epsilon));
  const unroll_tensor d = unroll_binary(unroll_mul(dh, o), y, UNROLL_TANH_GRAD);
  unroll_tensor back[3] = {unroll_none(), unroll_none(), unroll_none()}, plain[2];
  if (graph_failed(g))
    return;
  layer_norm_grad(&n->attr.layer_norm, c, in[4], d, in[6], in[7], back);
  const unroll_tensor dc = in[3].graph ? unroll_add(in[3], back[0]) : back[0];
  graph_add_node(g, UNROLL_OP_LSTM_GATES_GRAD, NULL, (unroll_tensor[]){in[0], in[1], unroll_none(), dc}, 4, NULL, plain,
                 2);
  const unroll_tensor d_o = unroll_binary(unroll_mul(dh, y), o, UNROLL_SIGMOID_GRAD);
  out[0] = unroll_add(plain[0], unroll_pad(d_o, last, 3 * H, 0));
  out[1] = plain[1];
  out[2] = back[1];
  out[3] = back[2];
}

void graph_spell_out(const node *n, const unroll_tensor *in, unroll_tensor *out) {
  const unroll_layer_norm_attr *a = &n->attr.layer_norm;
  unroll_tensor x[8] = {unroll_none()};
  for (uint32_t i = 0; i < 8; i++)
    x[i] = i < n->n_in ? in[i] : unroll_none();
  if (graph_failed(x[0].graph))
    return;
  switch (n->op) {
  case UNROLL_OP_LAYER_NORM: out[0] = layer_norm(x[0], x[1], x[2], a->epsilon); break;
  case UNROLL_OP_LAYER_NORM_GRAD: layer_norm_grad(a, x[0], x[1], x[2], x[3], x[4], out); break;
  case UNROLL_OP_LSTM_GATES: lstm_gates(n, x, out); break;
  default: lstm_gates_grad(n, x, out);
  }
}

static bool copy_nodes(unroll_graph *b, const unroll_graph *old, uint32_t *map) {
  for (uint32_t i = 0; i < old->n_nodes; i++) {
    const node *n = &old->nodes[i];
    unroll_tensor *in = mem_array(&b->allocator, (uint64_t)n->n_in + n->n_out + 1, sizeof *in), *out = in + n->n_in;
    if (!in)
      return false;
    for (uint32_t k = 0; k < n->n_in; k++)
      in[k] = n->in[k] == GRAPH_NONE ? unroll_none() : graph_handle(b, map[n->in[k]]);
    for (uint32_t k = 0; k < n->n_out; k++)
      out[k] = unroll_none();
    b->layer = n->layer;
    b->direction = n->direction;
    if (graph_can_spell_out(n))
      graph_spell_out(n, in, out);
    else {
      const tensor_spec *want = n->out[0] == GRAPH_NONE ? NULL : &old->tensors[n->out[0]].spec;
      const uint32_t index = graph_add_node(b, n->op, &n->attr, in, n->n_in, want, out, n->n_out);
      char *name = index == GRAPH_NONE ? NULL : mem_strdup(&b->allocator, n->name);
      if (name) {
        mem_free(&b->allocator, b->nodes[index].name);
        b->nodes[index].name = name;
        b->nodes[index].again = n->again;
      }
    }
    for (uint32_t k = 0; k < n->n_out; k++)
      if (n->out[k] != GRAPH_NONE)
        map[n->out[k]] = out[k].graph ? out[k].id : GRAPH_NONE;
    mem_free(&b->allocator, in);
    if (graph_failed(b))
      return false;
  }
  return true;
}

static bool copy_edges(unroll_graph *b, const unroll_graph *old, const uint32_t *map) {
  if (!mem_grow(&b->allocator, &b->carries, &b->carries_capacity, old->n_carries, sizeof *b->carries) ||
      !mem_grow(&b->allocator, &b->inputs, &b->inputs_capacity, old->n_inputs, sizeof *b->inputs) ||
      !mem_grow(&b->allocator, &b->captures, &b->captures_capacity, old->n_captures, sizeof *b->captures) ||
      !mem_grow(&b->allocator, &b->outputs, &b->outputs_capacity, old->n_outputs, sizeof *b->outputs))
    return false;
  for (; b->n_carries < old->n_carries; b->n_carries++) {
    const scan_carry *c = &old->carries[b->n_carries];
    b->carries[b->n_carries] = (scan_carry){map[c->in], map[c->next], c->init, c->last};
  }
  for (; b->n_inputs < old->n_inputs; b->n_inputs++)
    b->inputs[b->n_inputs] = (scan_edge){map[old->inputs[b->n_inputs].inner], old->inputs[b->n_inputs].outer};
  for (; b->n_captures < old->n_captures; b->n_captures++)
    b->captures[b->n_captures] =
        (scan_edge){map[old->captures[b->n_captures].inner], old->captures[b->n_captures].outer};
  for (; b->n_outputs < old->n_outputs; b->n_outputs++)
    b->outputs[b->n_outputs] = (scan_edge){map[old->outputs[b->n_outputs].inner], old->outputs[b->n_outputs].outer};
  return true;
}

unroll_graph *graph_spell_out_body(unroll_graph *to, const unroll_graph *old) {
  unroll_graph *b = graph_create_body(to);
  uint32_t *map = mem_array(&to->allocator, (uint64_t)old->n_tensors + 1, sizeof *map);
  bool ok = b && map;
  if (ok) {
    b->steps = old->steps;
    b->steps_dim = old->steps_dim;
  }
  for (uint32_t i = 0; ok && i < old->n_tensors; i++) {
    const tensor *t = &old->tensors[i];
    map[i] = GRAPH_NONE;
    if (t->producer == GRAPH_NONE) {
      map[i] = graph_add_tensor(b, &t->spec, t->role, GRAPH_NONE, mem_strdup(&b->allocator, t->name));
      ok = map[i] != GRAPH_NONE;
    }
  }
  ok = ok && copy_nodes(b, old, map) && copy_edges(b, old, map);
  mem_free(&to->allocator, map);
  if (!ok) {
    unroll_graph_destroy(b);
    return NULL;
  }
  b->layer = old->layer;
  b->direction = old->direction;
  b->ended = true;
  return b;
}
