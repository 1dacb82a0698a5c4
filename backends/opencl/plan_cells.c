/* SPDX-License-Identifier: Apache-2.0 */
/* plan_cells.c: the gate kernels of the cells. They differ in their edges alone. */
#include "opencl.h"

static const struct {
  uint32_t op;
  const char *source, *kernel;
  uint32_t n_in, n_out;
  uint32_t like; /* the input whose shape is [B,H] */
  uint32_t dh;   /* of a gradient: the input that may be a sum of two */
} cells[] = {
    {UNROLL_OP_LSTM_GATES, "lstm_gates.cl", "lstm_gates", 2, 3, 1, 0},
    {UNROLL_OP_LSTM_GATES_GRAD, "lstm_gates.cl", "lstm_gates_grad", 4, 2, 1, 2},
    {UNROLL_OP_GRU_AFTER_GATES, "gru_after_gates.cl", "gru_after_gates", 3, 2, 2, 0},
    {UNROLL_OP_GRU_AFTER_GATES_GRAD, "gru_after_gates.cl", "gru_after_gates_grad", 3, 3, 1, 2},
    {UNROLL_OP_GRU_RESET, "gru_gates.cl", "gru_reset", 2, 2, 1, 0},
    {UNROLL_OP_GRU_RESET_GRAD, "gru_gates.cl", "gru_reset_grad", 4, 2, 1, 0},
    {UNROLL_OP_GRU_UPDATE, "gru_gates.cl", "gru_update", 3, 2, 2, 0},
    {UNROLL_OP_GRU_UPDATE_GRAD, "gru_gates.cl", "gru_update_grad", 4, 3, 2, 3},
};

unroll_status plan_gates(plan *p) {
  uint32_t c = 0;
  if (p->node->op_version > 1)
    return p->node->op == UNROLL_OP_LSTM_GATES ? plan_norm_gates(p) : plan_norm_gates_grad(p);
  while (cells[c].op != p->node->op)
    c++;
  const unroll_tensor_view *like = plan_view(p, plan_in(p, cells[c].like));
  if (!plan_real(p, like->dtype) || like->rank < 1)
    return plan_decline(p, "dtype %d, rank %d", like->dtype, like->rank);
  uint32_t have = 0;
  for (uint32_t i = 0; i < cells[c].n_in + cells[c].n_out; i++) {
    const bool input = i < cells[c].n_in;
    const uint32_t edge = input ? plan_in(p, i) : plan_out(p, i - cells[c].n_in);
    if (edge != UNROLL_NO_TENSOR)
      have |= 1u << i;
  }
  const uint32_t width = plan_width(p, like->dtype), shape = plan_in(p, cells[c].like);
  uint32_t dh = UNROLL_NO_TENSOR;
  const uint32_t more = plan_added(p, &dh);
  plan_launch(p, cells[c].source, cells[c].kernel, "-Dreal=%s -DWIDTH=%u -DHAVE=%uu%s", dtype_c(like->dtype), width,
              have, more != UNROLL_NO_TENSOR ? " -DADDED=1" : "");
  plan_items(p, plan_axes(p, shape, 0, like->rank - 1), 1);
  plan_items(p, plan_axis(p, shape, like->rank - 1), width);
  for (uint32_t i = 0; i < cells[c].n_in; i++)
    if (more != UNROLL_NO_TENSOR && i == cells[c].dh) {
      arg_tensor(p, dh);
      arg_tensor(p, more);
    } else
      arg_tensor(p, plan_in(p, i));
  for (uint32_t i = 0; i < cells[c].n_out; i++)
    arg_tensor(p, plan_out(p, i));
  arg_extent(p, plan_axis(p, shape, like->rank - 1));
  arg_kind_of(p, ARG_ITEMS, 0);
  return UNROLL_OK;
}
