/* SPDX-License-Identifier: Apache-2.0 */
/*
 * plan_layer_grad.c: the gradient of a whole layer on CPU devices: kernels/layer_backward.cl walks back over the steps and leaves
 * the gradient of every sum; what the weights, the biases and x get of it is a product or a sum over all steps at once.
 */
#include "tune.h"

enum { X, W_X, W_H, BIAS, INNER_BIAS, LENGTHS, SAVED }; /* inputs of a gradient; saved values take four */
enum { DY = SAVED + 4, DH_LAST, DC_LAST, SUM_X, SUM_H, SUM_B, SUM_N };
enum { DX, DW_X, DW_H, DB, DB_N, DH0, DC0 }; /* its outputs */

typedef struct backward {
  operand rt, d, d_hidden, carry, dc;
  operand fed; /* with an h_mask: what W_h was multiplied with, of all steps */
} backward;

/* Panels of W_hᵀ: a unit's column is over the gates. With two phases first r and z, then n. */
static operand pack_transposed(plan *p, const layer *l, const layer_split *s) {
  const uint32_t w = plan_in(p, W_H);
  const operand area = layer_panel_area(p, l, s, w, 1, l->gates * l->H);
  const int64_t k = l->phases == 2 ? 2 * l->H : l->gates * l->H;
  layer_panels from = {.weights = w, .gates = 1, .k = k, .unit_step = 1, .k_step = l->H};
  layer_pack(p, l, s, area, &from);
  if (l->phases == 2) {
    from.from = k * l->H;
    from.to = k;
    from.k = l->H;
    layer_pack(p, l, s, area, &from);
  }
  return area;
}

static void launch_backward(plan *p, const layer *l, const layer_split *s, const backward *b, int phases) {
  layer_begin(p, l, s, "layer_backward.cl", "backward", "", phases);
  arg_operand(p, b->rt, l->panels);
  arg_tensor(p, l->lengths);
  arg_tensor(p, plan_in(p, DY));
  arg_tensor(p, plan_in(p, DH_LAST));
  arg_tensor(p, plan_in(p, DC_LAST));
  arg_operand(p, l->states, l->dtype);
  arg_operand(p, l->cells, l->dtype);
  arg_operand(p, l->kept, l->dtype);
  arg_operand(p, b->d, l->dtype);
  arg_operand(p, b->d_hidden, l->dtype);
  arg_operand(p, b->carry, l->dtype);
  arg_operand(p, b->dc, l->dtype);
  arg_tensor(p, plan_out(p, DH0));
  arg_tensor(p, plan_out(p, DC0));
  arg_long(p, l->d_row);
  if (l->h_mask != UNROLL_NO_TENSOR) {
    arg_tensor(p, l->h_mask);
    arg_operand(p, b->fed, l->dtype);
  }
  layer_arg_zones(p, l);
  layer_end(p, l, s, phases);
}

/* y = dᵀ·b, a sum over all rows: gates first..first+n-1 of d, b [T·B][columns]. */
static unroll_status weight_gradient(plan *p, const layer *l, operand d, int64_t first, int64_t n, operand b,
                                     int64_t columns, int64_t b_row, uint32_t y, uint32_t sum) {
  const uint64_t bytes = dtype_bytes(l->dtype), at = (uint64_t)(first * l->H * columns) * bytes;
  const operand c = operand_of(sum);
  const gemm g = {.a = operand_after(d, (uint64_t)(first * l->H) * bytes),
                  .b = b,
                  .c = sum == UNROLL_NO_TENSOR ? c : operand_after(c, at),
                  .y = operand_after(operand_of(y), at),
                  .have_c = sum != UNROLL_NO_TENSOR,
                  .k_block = l->block,
                  .from_first = l->reverse,
                  .dtype = l->dtype,
                  .trans_a = true,
                  .p = {1, -1},
                  .m = {n * l->H, -1},
                  .n = {columns, -1},
                  .k = l->rows_all,
                  .a_row = l->d_row,
                  .b_row = b_row};
  return plan_gemm(p, &g);
}

/* What multiplied W_h at each step: the state before it; of a gru's n that times r. With an h_mask both have its factor. */
static unroll_status recurrent_gradient(plan *p, const layer *l, const backward *b) {
  const uint32_t y = plan_out(p, DW_H), sum = plan_in(p, SUM_H);
  const uint64_t step = (uint64_t)(l->B * l->padded) * dtype_bytes(l->dtype);
  const bool masked = l->h_mask != UNROLL_NO_TENSOR;
  const operand h_prev = masked ? b->fed : operand_after(l->states, l->reverse ? step : 0);
  if (l->phases == 1)
    return weight_gradient(p, l, b->d_hidden, 0, l->gates, h_prev, l->H, l->padded, y, sum);
  TRY(weight_gradient(p, l, b->d, 0, 2, h_prev, l->H, l->padded, y, sum));
  const operand rh = operand_after(l->kept, (uint64_t)(3 * l->padded) * dtype_bytes(l->dtype));
  return weight_gradient(p, l, b->d, 2, 1, rh, l->H, l->planes * l->padded, y, sum);
}

/* x where rows have a step, else 0: what stands past the lengths may be anything, and 0·NaN is no 0. */
static operand masked_inputs(plan *p, const layer *l) {
  const operand x = operand_of(plan_in(p, X));
  if (l->lengths == UNROLL_NO_TENSOR)
    return x;
  const operand y = plan_scratch(p, (uint64_t)(extent_max(p, l->rows_all) * l->I) * dtype_bytes(l->dtype));
  plan_mask(p, dtype_bytes(l->dtype), x, l->lengths, y, l->rows_all, l->B, l->I);
  return y;
}

static unroll_status input_gradient(plan *p, const layer *l, const backward *b) {
  const gemm g = {.a = b->d,
                  .b = operand_of(plan_in(p, W_X)),
                  .c = operand_of(UNROLL_NO_TENSOR),
                  .y = operand_of(plan_out(p, DX)),
                  .dtype = l->dtype,
                  .steady = plan_steady(p, plan_in(p, W_X)),
                  .p = {1, -1},
                  .m = l->rows_all,
                  .m_block = l->block,
                  .n = {l->I, -1},
                  .k = {l->gates * l->H, -1},
                  .a_row = l->d_row};
  return plan_gemm(p, &g);
}

unroll_status plan_layer_grad(plan *p) {
  layer l = {0};
  TRY(layer_read(p, &l, LENGTHS));
  for (uint32_t i = SUM_X; i <= SUM_N; i++)
    if (plan_in(p, i) != UNROLL_NO_TENSOR && l.block == 0)
      return plan_decline(p, "%s", "sums that go on, without blocks");
  if (plan_in(p, SAVED) == UNROLL_NO_TENSOR)
    return plan_decline(p, "%s", "nothing was saved");
  p->reserve = l.reserve_bytes;
  if (p->dry)
    return UNROLL_OK;
  if (plan_view(p, plan_in(p, SAVED))->dtype != UNROLL_U8)
    return plan_decline(p, "%s", "the reserve was not granted");
  layer_lay_out(&l, plan_in(p, SAVED));
  const uint64_t bytes = dtype_bytes(l.dtype), all = (uint64_t)(extent_max(p, l.rows_all) * l.d_row) * bytes;
  const uint64_t state = (uint64_t)(l.B * l.padded) * bytes;
  const int64_t k = l.gates * l.H;
  layer_split s = p->device->cpu ? layer_divide(p, &l, 1, l.phases, k) : layer_divide_groups(p, &l, true, true);
  s = layer_share(p, &l, s, 1, k);
  s = tune_layer(p, &l, s, &(tune_task){.gates = 1, .k = k, .phases = l.phases, .backward = true});
  backward b = {.rt = pack_transposed(p, &l, &s), .d = plan_scratch(p, all), .carry = plan_scratch(p, state)};
  b.d_hidden = l.cell == UNROLL_CELL_GRU_AFTER ? plan_scratch(p, all) : b.d;
  b.dc = l.have_cell ? plan_scratch(p, state) : b.carry;
  b.fed = operand_of(UNROLL_NO_TENSOR);
  if (l.h_mask != UNROLL_NO_TENSOR && plan_out(p, DW_H) != UNROLL_NO_TENSOR)
    b.fed = plan_scratch(p, (uint64_t)l.max_t * state);
  if (s.persistent) {
    plan_persistent_loop(p, l.t, 1, layer_chunk_groups(&l, &s));
    launch_backward(p, &l, &s, &b, (1 << l.phases) - 1);
    s.persistent = false;
  }
  plan_loop(p, l.t, 1, layer_chunk(&l, &s, l.H));
  if (!s.step_at_a_time)
    launch_backward(p, &l, &s, &b, (1 << l.phases) - 1);
  else
    for (int phase = 0; phase < l.phases; phase++)
      launch_backward(p, &l, &s, &b, 1 << phase);

  if (plan_out(p, DX) != UNROLL_NO_TENSOR)
    TRY(input_gradient(p, &l, &b));
  if (plan_out(p, DW_X) != UNROLL_NO_TENSOR)
    TRY(weight_gradient(p, &l, b.d, 0, l.gates, masked_inputs(p, &l), l.I, l.I, plan_out(p, DW_X), plan_in(p, SUM_X)));
  if (plan_out(p, DW_H) != UNROLL_NO_TENSOR)
    TRY(recurrent_gradient(p, &l, &b));
  if (plan_out(p, DB) != UNROLL_NO_TENSOR)
    plan_column_sums(p, l.dtype, b.d, l.d_row, operand_of(plan_out(p, DB)), l.rows_all, l.gates * l.H,
                     &(row_blocks){l.block, l.reverse, operand_of(plan_in(p, SUM_B))});
  if (plan_out(p, DB_N) != UNROLL_NO_TENSOR) { /* of n's part on the side of h */
    const operand inner = operand_after(b.d_hidden, (uint64_t)(2 * l.H) * bytes);
    plan_column_sums(p, l.dtype, inner, l.d_row, operand_of(plan_out(p, DB_N)), l.rows_all, l.H,
                     &(row_blocks){l.block, l.reverse, operand_of(plan_in(p, SUM_N))});
  }
  return UNROLL_OK;
}
