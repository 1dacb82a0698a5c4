/* SPDX-License-Identifier: Apache-2.0 */
#include "resolve.h"
#include <string.h>

#define ANY_NUMBER 0xFFFFu

/* required: a bit for each input that may not be absent. */
static const struct rule {
  const char *name;
  cpu_check_fn check;
  uint32_t max_in, max_out, required, attr_size; /* attr_size: of version 1.0 */
  uint32_t newer_size, version;                  /* of what was appended since; version 0: 1 */
} rules[UNROLL_OP_END] = {
    [UNROLL_OP_MATMUL] = {"matmul", cpu_check_matmul, 3, 1, 3, UNROLL_SIZE_TO(unroll_matmul_attr, trans_b),
                          UNROLL_SIZE_TO(unroll_matmul_attr, block_order), 1},
    [UNROLL_OP_UNARY] = {"unary", cpu_check_unary, 1, 1, 1, UNROLL_SIZE_TO(unroll_unary_attr, reserved), 0, 0},
    [UNROLL_OP_BINARY] = {"binary", cpu_check_binary, 2, 1, 3, UNROLL_SIZE_TO(unroll_binary_attr, reserved), 0, 0},
    [UNROLL_OP_REDUCE] = {"reduce", cpu_check_reduce, 2, 1, 1, UNROLL_SIZE_TO(unroll_reduce_attr, reserved),
                          UNROLL_SIZE_TO(unroll_reduce_attr, block_order), 2},
    [UNROLL_OP_SOFTMAX] = {"softmax", cpu_check_softmax, 1, 1, 1, 0, 0, 0},
    [UNROLL_OP_LOG_SOFTMAX] = {"log_softmax", cpu_check_softmax, 1, 1, 1, 0, 0, 0},
    [UNROLL_OP_CROSS_ENTROPY] = {"cross_entropy", cpu_check_cross_entropy, 2, 1, 3, 0, 0, 0},
    [UNROLL_OP_CROSS_ENTROPY_GRAD] = {"cross_entropy_grad", cpu_check_cross_entropy_grad, 3, 1, 7, 0, 0, 0},
    [UNROLL_OP_EMBEDDING] = {"embedding", cpu_check_embedding, 2, 1, 3, 0, 0, 0},
    [UNROLL_OP_EMBEDDING_GRAD] = {"embedding_grad", cpu_check_embedding_grad, 2, 1, 3, 0, 0, 0},
    [UNROLL_OP_SLICE] = {"slice", cpu_check_slice, 1, 1, 1, UNROLL_SIZE_TO(unroll_slice_attr, start), 0, 0},
    [UNROLL_OP_PAD] = {"pad", cpu_check_pad, 1, 1, 1, UNROLL_SIZE_TO(unroll_pad_attr, after), 0, 0},
    [UNROLL_OP_CONCAT] = {"concat", cpu_check_concat, ANY_NUMBER, 1, 1, UNROLL_SIZE_TO(unroll_axis_attr, reserved), 0,
                          0},
    [UNROLL_OP_TRANSPOSE] = {"transpose", cpu_check_transpose, 1, 1, 1, UNROLL_SIZE_TO(unroll_transpose_attr, perm), 0,
                             0},
    [UNROLL_OP_RESHAPE] = {"reshape", cpu_check_reshape, 1, 1, 1, 0, 0, 0},
    [UNROLL_OP_REVERSE] = {"reverse", cpu_check_reverse, 2, 1, 3, 0, 0, 0},
    [UNROLL_OP_SELECT] = {"select", cpu_check_select, 3, 1, 7, 0, 0, 0},
    [UNROLL_OP_CAST] = {"cast", cpu_check_cast, 1, 1, 1, 0, 0, 0},
    [UNROLL_OP_CONSTANT] = {"constant", cpu_check_constant, 0, 1, 0, UNROLL_SIZE_TO(unroll_constant_attr, value), 0, 0},
    [UNROLL_OP_DROPOUT] = {"dropout", cpu_check_dropout, 1, 1, 1, UNROLL_SIZE_TO(unroll_dropout_attr, time_axis),
                           UNROLL_SIZE_TO(unroll_dropout_attr, t0), 2},
    [UNROLL_OP_ARGMAX] = {"argmax", cpu_check_argmax, 1, 1, 1, 0, 0, 0},
    [UNROLL_OP_CATEGORICAL] = {"categorical", cpu_check_categorical, 1, 1, 1,
                               UNROLL_SIZE_TO(unroll_categorical_attr, top_k),
                               UNROLL_SIZE_TO(unroll_categorical_attr, top_p), 2},
    [UNROLL_OP_RANDOM] = {"random", cpu_check_random, 0, 1, 0, UNROLL_SIZE_TO(unroll_random_attr, site), 0, 0},
    [UNROLL_OP_GATHER] = {"gather", cpu_check_gather, 2, 1, 3, 0, 0, 0},
    [UNROLL_OP_GATHER_GRAD] = {"gather_grad", cpu_check_gather_grad, 2, 1, 3, 0, 0, 0},
    [UNROLL_OP_TOP_K] = {"top_k", cpu_check_top_k, 1, 2, 1, UNROLL_SIZE_TO(unroll_top_k_attr, k), 0, 0},
    [UNROLL_OP_LINEAR_SCAN] = {"linear_scan", cpu_check_linear_scan, 4, 2, 3,
                               UNROLL_SIZE_TO(unroll_linear_scan_attr, direction), 0, 0},
    [UNROLL_OP_LINEAR_SCAN_GRAD] = {"linear_scan_grad", cpu_check_linear_scan_grad, 6, 3, 3,
                                    UNROLL_SIZE_TO(unroll_linear_scan_attr, direction), 0, 0},
    [UNROLL_OP_LAYER_NORM] = {"layer_norm", cpu_check_layer_norm, 3, 1, 3,
                              UNROLL_SIZE_TO(unroll_layer_norm_attr, epsilon), 0, 0},
    [UNROLL_OP_LAYER_NORM_GRAD] = {"layer_norm_grad", cpu_check_layer_norm_grad, 5, 3, 7,
                                   UNROLL_SIZE_TO(unroll_layer_norm_attr, block_order), 0, 0},
    [UNROLL_OP_LENGTH_MASK] = {"length_mask", cpu_check_length_mask, 3, 1, 5,
                               UNROLL_SIZE_TO(unroll_length_mask_attr, invert), 0, 0},
    [UNROLL_OP_OPTIMIZER] = {"optimizer", cpu_check_optimizer, 7, 3, 15,
                             UNROLL_SIZE_TO(unroll_optimizer_attr, weight_decay), 0, 0},
    [UNROLL_OP_LSTM_GATES] = {"lstm_gates", cpu_check_lstm_gates, 4, 3, 3, 0,
                              UNROLL_SIZE_TO(unroll_layer_norm_attr, epsilon), 2},
    [UNROLL_OP_LSTM_GATES_GRAD] = {"lstm_gates_grad", cpu_check_lstm_gates_grad, 8, 4, 3, 0,
                                   UNROLL_SIZE_TO(unroll_layer_norm_attr, block_order), 2},
    [UNROLL_OP_GRU_AFTER_GATES] = {"gru_after_gates", cpu_check_gru_after_gates, 3, 2, 7, 0, 0, 0},
    [UNROLL_OP_GRU_AFTER_GATES_GRAD] = {"gru_after_gates_grad", cpu_check_gru_after_gates_grad, 3, 3, 7, 0, 0, 0},
    [UNROLL_OP_GRU_RESET] = {"gru_reset", cpu_check_gru_reset, 2, 2, 3, 0, 0, 0},
    [UNROLL_OP_GRU_RESET_GRAD] = {"gru_reset_grad", cpu_check_gru_reset_grad, 4, 2, 3, 0, 0, 0},
    [UNROLL_OP_GRU_UPDATE] = {"gru_update", cpu_check_gru_update, 3, 2, 7, 0, 0, 0},
    [UNROLL_OP_GRU_UPDATE_GRAD] = {"gru_update_grad", cpu_check_gru_update_grad, 4, 3, 15, 0, 0, 0},
};

unroll_status cpu_resolve(const unroll_graph_view *graph, uint32_t i, const cpu_tensor *tensors, cpu_node *node,
                          unroll_error *err) {
  const unroll_node_view *v = cpu_view_node(graph, i);
  const struct rule *rule = v->op < UNROLL_OP_END ? &rules[v->op] : NULL;
  const uint32_t version = rule && rule->version ? rule->version : 1;
  if (!rule || !rule->check || v->op_version > version)
    return cpu_fail(err, UNROLL_E_UNSUPPORTED, "cpu: node \"%.60s\": op %u of version %u", v->name, v->op,
                    v->op_version);
  cpu_resolver r = {graph, v, tensors, node, rule->name, err};
  if (v->n_in > rule->max_in || v->n_out > rule->max_out)
    return cpu_fail(err, UNROLL_E_GRAPH, "cpu: %s \"%.60s\": %u inputs and %u outputs, at most %u and %u expected",
                    r.op, v->name, v->n_in, v->n_out, rule->max_in, rule->max_out);
  for (uint32_t e = 0; rule->required >> e; e++)
    if ((rule->required >> e & 1) && !want_in(&r, e))
      return cpu_fail(err, UNROLL_E_GRAPH, "cpu: %s \"%.60s\": input %u is missing", r.op, v->name, e);
  const uint32_t attr_size = v->op_version > 1 && rule->newer_size ? rule->newer_size : rule->attr_size;
  if (attr_size && (!v->attr || v->attr_size < attr_size))
    return cpu_fail(err, UNROLL_E_GRAPH, "cpu: %s \"%.60s\": attributes of %u bytes, at least %u expected", r.op,
                    v->name, v->attr ? v->attr_size : 0, attr_size);
  if (attr_size) {
    const uint32_t known = rule->newer_size ? rule->newer_size : attr_size;
    memcpy(&node->attr, v->attr, v->attr_size < known ? v->attr_size : known);
  }
  for (uint32_t e = 0; e < v->n_in + v->n_out; e++) {
    const uint32_t t = graph->edges[e < v->n_in ? v->first_in + e : v->first_out + e - v->n_in];
    if (t != UNROLL_NO_TENSOR && cpu_dtype_size(tensors[t].dtype) == 0)
      return cpu_fail(err, UNROLL_E_DTYPE, "cpu: %s \"%.60s\": \"%s\" has element type %d", r.op, v->name,
                      tensors[t].name, tensors[t].dtype);
  }

  bool wanted = false;
  for (uint32_t o = 0; o < v->n_out; o++)
    wanted = wanted || want_out(&r, o);
  return wanted ? rule->check(&r) : UNROLL_OK;
}

unroll_status cpu_expect(const cpu_resolver *r, const cpu_tensor *t, int32_t dtype, const cpu_shape *shape) {
  if (t && t->dtype != dtype)
    return cpu_fail(r->err, UNROLL_E_DTYPE, "cpu: %s \"%.60s\": \"%s\" is %s, %s expected", r->op, r->view->name,
                    t->name, cpu_dtype_name(t->dtype), cpu_dtype_name(dtype));
  if (t && !cpu_shape_same(&t->shape, shape))
    return cpu_fail(r->err, UNROLL_E_SHAPE, "cpu: %s \"%.60s\": \"%s\" is %s, %s expected", r->op, r->view->name,
                    t->name, cpu_shape_text(&t->shape).text, cpu_shape_text(shape).text);
  return UNROLL_OK;
}

unroll_status cpu_expect_real(const cpu_resolver *r, const cpu_tensor *t) {
  if (t->dtype == UNROLL_F32 || t->dtype == UNROLL_F64)
    return UNROLL_OK;
  return cpu_fail(r->err, UNROLL_E_DTYPE, "cpu: %s \"%.60s\": \"%s\" is %s, f32 or f64 expected", r->op, r->view->name,
                  t->name, cpu_dtype_name(t->dtype));
}

unroll_status cpu_expect_rank(const cpu_resolver *r, const cpu_tensor *t, int32_t least, int32_t most) {
  if (t->shape.rank >= least && t->shape.rank <= most)
    return UNROLL_OK;
  return cpu_fail(r->err, UNROLL_E_SHAPE, "cpu: %s \"%.60s\": \"%s\" is %s, of %d to %d axes expected", r->op,
                  r->view->name, t->name, cpu_shape_text(&t->shape).text, least, most);
}

unroll_status cpu_bad_attr(const cpu_resolver *r, const char *what, long long value) {
  return cpu_fail(r->err, UNROLL_E_GRAPH, "cpu: %s \"%.60s\": %s is %lld", r->op, r->view->name, what, value);
}

unroll_status cpu_expect_axis(const cpu_resolver *r, int32_t axis, int32_t rank) {
  return axis >= 0 && axis < rank ? UNROLL_OK : cpu_bad_attr(r, "axis", axis);
}

void cpu_choose(const cpu_resolver *r, int32_t dtype, cpu_run_fn f32, cpu_run_fn f64) {
  r->node->run = dtype == UNROLL_F32 ? f32 : f64;
}

cpu_shape cpu_drop_last(cpu_shape s) {
  s.rank--;
  s.size[s.rank] = 0;
  if (s.rank == 0)
    s.dim = -1;
  return s;
}

cpu_shape cpu_with_last(cpu_shape s, int64_t size) {
  if (s.rank == 1)
    s.dim = -1;
  s.size[s.rank - 1] = size;
  return s;
}

cpu_shape cpu_shape_1(int64_t a) { return (cpu_shape){.rank = 1, .dim = -1, .size = {a}}; }
cpu_shape cpu_shape_2(int64_t a, int64_t b) { return (cpu_shape){.rank = 2, .dim = -1, .size = {a, b}}; }
