/* SPDX-License-Identifier: Apache-2.0 */
/* ops.c: the building calls, one node each. */
#include "graph/graph_private.h"
#include <inttypes.h>
#include <string.h>

unroll_tensor unroll_matmul_add(unroll_tensor a, int trans_a, unroll_tensor b, int trans_b, unroll_tensor c) {
  const op_attr attr = {.matmul = {.trans_a = trans_a != 0, .trans_b = trans_b != 0}};
  return graph_op(UNROLL_OP_MATMUL, &attr, (unroll_tensor[]){a, b, c}, 3, NULL);
}
unroll_tensor unroll_matmul(unroll_tensor a, unroll_tensor b) { return unroll_matmul_add(a, 0, b, 0, unroll_none()); }

unroll_tensor unroll_unary(unroll_tensor x, int32_t kind) {
  const op_attr attr = {.unary = {kind, 0}};
  return graph_op(UNROLL_OP_UNARY, &attr, &x, 1, NULL);
}

unroll_tensor unroll_binary(unroll_tensor a, unroll_tensor b, int32_t kind) {
  const op_attr attr = {.binary = {kind, 0}};
  return graph_op(UNROLL_OP_BINARY, &attr, (unroll_tensor[]){a, b}, 2, NULL);
}

unroll_tensor unroll_scale(unroll_tensor x, double factor) {
  if (!x.graph || graph_failed(x.graph))
    return unroll_none();
  const tensor_spec scalar = graph_make_spec(graph_spec(x)->dtype, 0, NULL);
  return unroll_mul(x, graph_zeros_like(x.graph, &scalar, factor));
}

unroll_tensor unroll_reduce(unroll_tensor x, int32_t kind, uint32_t axes, int keep_dims) {
  if (!x.graph || graph_failed(x.graph))
    return unroll_none();
  if (axes == 0)
    axes = (1u << graph_spec(x)->rank) - 1u;
  const op_attr attr = {.reduce = {.kind = kind, .axes = axes, .keep_dims = keep_dims != 0}};
  return graph_op(UNROLL_OP_REDUCE, &attr, &x, 1, NULL);
}

unroll_tensor unroll_softmax(unroll_tensor x) { return graph_op(UNROLL_OP_SOFTMAX, NULL, &x, 1, NULL); }
unroll_tensor unroll_log_softmax(unroll_tensor x) { return graph_op(UNROLL_OP_LOG_SOFTMAX, NULL, &x, 1, NULL); }
unroll_tensor unroll_argmax(unroll_tensor x) { return graph_op(UNROLL_OP_ARGMAX, NULL, &x, 1, NULL); }

unroll_tensor unroll_cross_entropy_rows(unroll_tensor logits, unroll_tensor targets) {
  return graph_op(UNROLL_OP_CROSS_ENTROPY, NULL, (unroll_tensor[]){logits, targets}, 2, NULL);
}

unroll_tensor unroll_embedding(unroll_tensor table, unroll_tensor ids) {
  return graph_op(UNROLL_OP_EMBEDDING, NULL, (unroll_tensor[]){table, ids}, 2, NULL);
}

unroll_tensor unroll_slice(unroll_tensor x, int32_t axis, int64_t start, int64_t size) {
  const op_attr attr = {.slice = {axis, 0, start}};
  tensor_spec want = graph_make_spec(UNROLL_F32, 0, NULL);
  if (axis >= 0 && axis < UNROLL_MAX_RANK)
    want.shape[axis] = size;
  return graph_op(UNROLL_OP_SLICE, &attr, &x, 1, &want);
}

unroll_tensor unroll_pad(unroll_tensor x, int32_t axis, int64_t before, int64_t after) {
  const op_attr attr = {.pad = {axis, 0, before, after}};
  return graph_op(UNROLL_OP_PAD, &attr, &x, 1, NULL);
}

unroll_tensor unroll_concat(const unroll_tensor *x, uint32_t n, int32_t axis) {
  const op_attr attr = {.axis = {axis, 0}};
  return graph_op(UNROLL_OP_CONCAT, &attr, x, n, NULL);
}

unroll_tensor unroll_transpose(unroll_tensor x, const int32_t *perm) {
  if (!x.graph || graph_failed(x.graph))
    return unroll_none();
  op_attr attr = {.transpose = {{0}}};
  memcpy(attr.transpose.perm, perm, (size_t)graph_spec(x)->rank * sizeof *perm);
  return graph_op(UNROLL_OP_TRANSPOSE, &attr, &x, 1, NULL);
}

unroll_tensor unroll_reverse(unroll_tensor x, unroll_tensor lengths) {
  return graph_op(UNROLL_OP_REVERSE, NULL, (unroll_tensor[]){x, lengths}, 2, NULL);
}

unroll_tensor unroll_select(unroll_tensor condition, unroll_tensor a, unroll_tensor b) {
  return graph_op(UNROLL_OP_SELECT, NULL, (unroll_tensor[]){condition, a, b}, 3, NULL);
}

unroll_tensor unroll_cast(unroll_tensor x, int32_t dtype) {
  if (x.graph && unroll_dtype_size(dtype) == 0)
    return graph_fail(x.graph, UNROLL_E_DTYPE, "cast: %d is no element type", dtype);
  const tensor_spec want = graph_make_spec(dtype, 0, NULL);
  return graph_op(UNROLL_OP_CAST, NULL, &x, 1, &want);
}

unroll_tensor graph_zeros_like(unroll_graph *g, const tensor_spec *spec, double value) {
  const op_attr attr = {.constant = {value}};
  unroll_tensor out;
  graph_add_node(g, UNROLL_OP_CONSTANT, &attr, NULL, 0, spec, &out, 1);
  return out;
}

unroll_tensor graph_reshape(unroll_tensor x, const tensor_spec *spec) {
  if (x.graph && !graph_failed(x.graph) && graph_same_shape(graph_spec(x), spec))
    return x;
  return graph_op(UNROLL_OP_RESHAPE, NULL, &x, 1, spec);
}

unroll_tensor graph_flatten_rows(unroll_tensor x) {
  if (!x.graph || graph_failed(x.graph))
    return unroll_none();
  const tensor_spec *s = graph_spec(x);
  tensor_spec flat = graph_make_spec(s->dtype, 2, (int64_t[]){1, s->shape[s->rank - 1]});
  for (int i = 0; i + 1 < s->rank; i++)
    flat.shape[0] *= s->shape[i];
  flat.dim[0] = s->rank > 1 ? s->dim[0] : -1;
  return graph_reshape(x, &flat);
}

unroll_tensor graph_block(unroll_tensor x, int64_t i, int64_t n) {
  if (!x.graph || graph_failed(x.graph))
    return unroll_none();
  const tensor_spec *s = graph_spec(x);
  const int64_t size = s->shape[s->rank - 1] / n;
  return unroll_slice(x, s->rank - 1, i * size, size);
}

/* Every random op has a site of its own, counted over the graph and its bodies. */
uint32_t graph_next_site(unroll_graph *g) { return graph_root(g)->n_sites++; }

unroll_tensor unroll_dropout(unroll_tensor x, double p) {
  if (!x.graph || graph_failed(x.graph))
    return unroll_none();
  return graph_dropout(x, p, graph_next_site(x.graph), 0);
}

unroll_tensor graph_dropout(unroll_tensor x, double p, uint32_t site, int64_t t0) {
  if (!x.graph || graph_failed(x.graph))
    return unroll_none();
  const op_attr attr = {.dropout = {.p = p, .site = site, .time_axis = x.graph->parent ? -1 : 0, .t0 = t0}};
  return graph_op(UNROLL_OP_DROPOUT, &attr, &x, 1, NULL);
}

static unroll_tensor random_numbers(unroll_graph *g, int32_t kind, int32_t dtype, int32_t rank, const int64_t *shape,
                                    int32_t time_axis) {
  tensor_spec spec;
  if (!g || graph_failed(g) || graph_spec_of_shape(g, "random", dtype, rank, shape, &spec) != UNROLL_OK)
    return unroll_none();
  const op_attr attr = {.random = {kind, time_axis, graph_next_site(g), 0}};
  unroll_tensor out;
  graph_add_node(g, UNROLL_OP_RANDOM, &attr, NULL, 0, &spec, &out, 1);
  return out;
}
unroll_tensor unroll_random(unroll_graph *g, int32_t kind, int32_t dtype, int32_t rank, const int64_t *shape) {
  return random_numbers(g, kind, dtype, rank, shape, g && g->parent ? -1 : 0);
}
unroll_tensor unroll_random_step(unroll_graph *g, int32_t kind, int32_t dtype, int32_t rank, const int64_t *shape) {
  return random_numbers(g, kind, dtype, rank, shape, -1);
}

unroll_tensor unroll_gather(unroll_tensor x, unroll_tensor ids) {
  return graph_op(UNROLL_OP_GATHER, NULL, (unroll_tensor[]){x, ids}, 2, NULL);
}

void unroll_top_k(unroll_tensor x, int64_t k, unroll_tensor *values, unroll_tensor *ids) {
  const op_attr attr = {.top_k = {k}};
  unroll_tensor out[2];
  graph_add_node(x.graph, UNROLL_OP_TOP_K, &attr, &x, 1, NULL, out, 2);
  if (values)
    *values = out[0];
  if (ids)
    *ids = out[1];
}

unroll_tensor unroll_linear_scan(unroll_tensor a, unroll_tensor b, unroll_tensor h0, unroll_tensor lengths,
                                 int32_t direction, unroll_tensor *h_last) {
  const op_attr attr = {.linear_scan = {direction, 0}};
  const unroll_tensor in[] = {a, b, h0, lengths};
  unroll_tensor out[2];
  graph_add_node(graph_common(in, 4), UNROLL_OP_LINEAR_SCAN, &attr, in, 4, NULL, out, 2);
  if (h_last)
    *h_last = out[1];
  return out[0];
}

unroll_tensor unroll_layer_norm(unroll_tensor x, unroll_tensor gain, unroll_tensor shift, double epsilon) {
  const op_attr attr = {.layer_norm = {.epsilon = epsilon}};
  return graph_op(UNROLL_OP_LAYER_NORM, &attr, (unroll_tensor[]){x, gain, shift}, 3, NULL);
}

unroll_tensor unroll_categorical(unroll_tensor logits, int64_t top_k) {
  return unroll_categorical_top_p(logits, top_k, 0);
}
unroll_tensor unroll_categorical_top_p(unroll_tensor logits, int64_t top_k, double top_p) {
  if (!logits.graph || graph_failed(logits.graph))
    return unroll_none();
  const op_attr attr = {.categorical = {graph_next_site(logits.graph), 0, top_k, top_p}};
  return graph_op(UNROLL_OP_CATEGORICAL, &attr, &logits, 1, NULL);
}

unroll_tensor graph_length_mask(unroll_tensor x, unroll_tensor other, unroll_tensor lengths, int32_t time_axis,
                                bool invert) {
  const op_attr attr = {.length_mask = {time_axis, invert}};
  return graph_op(UNROLL_OP_LENGTH_MASK, &attr, (unroll_tensor[]){x, other, lengths}, 3, NULL);
}
unroll_tensor unroll_length_mask(unroll_tensor x, unroll_tensor lengths) {
  return graph_length_mask(x, unroll_none(), lengths, x.graph && x.graph->parent ? -1 : 0, false);
}

void unroll_optimize(unroll_tensor param, unroll_tensor grad, unroll_tensor lr, unroll_tensor step,
                     unroll_tensor grad_scale, const unroll_optimizer_attr *attr) {
  unroll_optimize_if(unroll_none(), param, grad, lr, step, grad_scale, attr);
}

void unroll_optimize_if(unroll_tensor condition, unroll_tensor param, unroll_tensor grad, unroll_tensor lr,
                        unroll_tensor step, unroll_tensor grad_scale, const unroll_optimizer_attr *attr) {
  graph_optimize(condition, param, param, grad, lr, step, grad_scale, attr);
}

void graph_optimize(unroll_tensor condition, unroll_tensor param, unroll_tensor from, unroll_tensor grad,
                    unroll_tensor lr, unroll_tensor step, unroll_tensor grad_scale, const unroll_optimizer_attr *attr) {
  unroll_graph *g = param.graph;
  if (!g || graph_failed(g))
    return;
  const tensor *p = &g->tensors[param.id];
  const tensor_spec spec = p->spec;
  const bool adam = attr->kind == UNROLL_ADAM || attr->kind == UNROLL_ADAMW;
  const int n_states = adam ? 2 : attr->kind == UNROLL_SGD && attr->beta1 == 0 ? 0 : 1;
  unroll_tensor state[2] = {unroll_none(), unroll_none()}, out[3];
  for (int i = 0; i < n_states; i++) {
    char *name = mem_printf(&g->allocator, "%s.s%d", p->name, i + 1);
    if (name && unroll_graph_find(g, name).graph) {
      graph_fail(g, UNROLL_E_INVALID, "optimizer state %s: the name is taken", name);
      mem_free(&g->allocator, name);
      return;
    }
    const uint32_t id = graph_add_tensor(g, &spec, UNROLL_ROLE_STATE, GRAPH_NONE, name);
    if (id == GRAPH_NONE)
      return;
    p = &g->tensors[param.id]; /* the array may have moved */
    state[i] = graph_handle(g, id);
  }
  const op_attr a = {.optimizer = *attr};
  graph_add_node(g, UNROLL_OP_OPTIMIZER, &a, (unroll_tensor[]){from, grad, lr, step, grad_scale, state[0], state[1]}, 7,
                 NULL, out, 1 + (uint32_t)n_states);
  unroll_update(param, condition.graph ? unroll_select(condition, out[0], param) : out[0]);
  for (int i = 0; i < n_states; i++)
    unroll_update(state[i], condition.graph ? unroll_select(condition, out[1 + i], state[i]) : out[1 + i]);
}
