/* SPDX-License-Identifier: Apache-2.0 */
/* From a node of a view to the loop that runs it. A check refuses what the loops do not compute. */
#ifndef CPU_RESOLVE_H
#define CPU_RESOLVE_H
#include "cpu.h"

typedef struct cpu_resolver {
  const unroll_graph_view *graph;
  const unroll_node_view *view;
  const cpu_tensor *tensors; /* all of the graph */
  cpu_node *node;
  const char *op; /* for messages */
  unroll_error *err;
} cpu_resolver;

/*
 * Fills node (run stays NULL where no output is wanted). UNROLL_E_UNSUPPORTED, UNROLL_E_DTYPE and UNROLL_E_SHAPE say
 * that this backend does not compute such a node; UNROLL_E_GRAPH that it is malformed.
 */
unroll_status cpu_resolve(const unroll_graph_view *graph, uint32_t i, const cpu_tensor *tensors, cpu_node *node,
                          unroll_error *err);

static inline const cpu_tensor *resolver_edge(const cpu_resolver *r, uint32_t edge) {
  const uint32_t t = r->graph->edges[edge];
  return t == UNROLL_NO_TENSOR ? NULL : &r->tensors[t];
}
static inline const cpu_tensor *want_in(const cpu_resolver *r, uint32_t i) {
  return i < r->view->n_in ? resolver_edge(r, r->view->first_in + i) : NULL;
}
static inline const cpu_tensor *want_out(const cpu_resolver *r, uint32_t i) {
  return i < r->view->n_out ? resolver_edge(r, r->view->first_out + i) : NULL;
}

/* A tensor that is NULL is absent and fits anything. */
unroll_status cpu_expect(const cpu_resolver *r, const cpu_tensor *t, int32_t dtype, const cpu_shape *shape);
unroll_status cpu_expect_real(const cpu_resolver *r, const cpu_tensor *t);
unroll_status cpu_expect_rank(const cpu_resolver *r, const cpu_tensor *t, int32_t least, int32_t most);
unroll_status cpu_bad_attr(const cpu_resolver *r, const char *what, long long value);
unroll_status cpu_expect_axis(const cpu_resolver *r, int32_t axis, int32_t rank);
void cpu_choose(const cpu_resolver *r, int32_t dtype, cpu_run_fn f32, cpu_run_fn f64);

static inline int64_t cpu_last(const cpu_tensor *t) { return t->shape.size[t->shape.rank - 1]; }
int64_t cpu_rows(const cpu_tensor *t);              /* at most */
cpu_shape cpu_with_last(cpu_shape s, int64_t size); /* the last axis has another size */
cpu_shape cpu_drop_last(cpu_shape s);
cpu_shape cpu_shape_1(int64_t a);
cpu_shape cpu_shape_2(int64_t a, int64_t b);

typedef unroll_status (*cpu_check_fn)(cpu_resolver *r);
/* resolve_map.c */
unroll_status cpu_check_unary(cpu_resolver *r);
unroll_status cpu_check_binary(cpu_resolver *r);
unroll_status cpu_check_select(cpu_resolver *r);
unroll_status cpu_check_cast(cpu_resolver *r);
unroll_status cpu_check_constant(cpu_resolver *r);
unroll_status cpu_check_slice(cpu_resolver *r);
unroll_status cpu_check_transpose(cpu_resolver *r);
unroll_status cpu_check_reshape(cpu_resolver *r);
/* resolve_ops.c */
unroll_status cpu_check_matmul(cpu_resolver *r);
unroll_status cpu_check_reduce(cpu_resolver *r);
unroll_status cpu_check_softmax(cpu_resolver *r);
unroll_status cpu_check_cross_entropy(cpu_resolver *r);
unroll_status cpu_check_cross_entropy_grad(cpu_resolver *r);
unroll_status cpu_check_embedding(cpu_resolver *r);
unroll_status cpu_check_embedding_grad(cpu_resolver *r);
unroll_status cpu_check_pad(cpu_resolver *r);
unroll_status cpu_check_concat(cpu_resolver *r);
unroll_status cpu_check_reverse(cpu_resolver *r);
unroll_status cpu_check_dropout(cpu_resolver *r);
unroll_status cpu_check_argmax(cpu_resolver *r);
unroll_status cpu_check_categorical(cpu_resolver *r);
unroll_status cpu_check_random(cpu_resolver *r);
unroll_status cpu_check_gather(cpu_resolver *r);
unroll_status cpu_check_gather_grad(cpu_resolver *r);
unroll_status cpu_check_top_k(cpu_resolver *r);
unroll_status cpu_check_linear_scan(cpu_resolver *r);
unroll_status cpu_check_linear_scan_grad(cpu_resolver *r);
unroll_status cpu_check_length_mask(cpu_resolver *r);
unroll_status cpu_check_optimizer(cpu_resolver *r);
/* resolve_norm.c */
unroll_status cpu_check_norm_attr(const cpu_resolver *r, bool goes_on); /* goes_on: sums start from what is there */
unroll_status cpu_check_layer_norm(cpu_resolver *r);
unroll_status cpu_check_layer_norm_grad(cpu_resolver *r);
/* resolve_gates.c */
unroll_status cpu_check_lstm_gates(cpu_resolver *r);
unroll_status cpu_check_lstm_gates_grad(cpu_resolver *r);
unroll_status cpu_check_gru_after_gates(cpu_resolver *r);
unroll_status cpu_check_gru_after_gates_grad(cpu_resolver *r);
unroll_status cpu_check_gru_reset(cpu_resolver *r);
unroll_status cpu_check_gru_reset_grad(cpu_resolver *r);
unroll_status cpu_check_gru_update(cpu_resolver *r);
unroll_status cpu_check_gru_update_grad(cpu_resolver *r);
#endif
