/* SPDX-License-Identifier: Apache-2.0 */
/* plan_norm.c: layer normalisation, alone and of the cell state inside an LSTM's gates. */
#include "opencl.h"
#include <math.h>

enum {
  GPU_LANES = 64, /* work-items that share a row */
  PART = 16,      /* rows of a part at least, where there are no blocks, */
  MOST_PARTS = 128
};

/* Rows, and the parts of them whose sums are added up; each is 1 where nothing is summed. */
typedef struct norm_rows {
  extent rows;
  int64_t N, each;
  row_blocks blocks[2]; /* of dgain and dshift; rows 0: no blocks */
  operand parts[2];
  int32_t dtype;
  double epsilon;
} norm_rows;

static unroll_status check_norm(plan *p, uint32_t x, norm_rows *n) {
  const unroll_layer_norm_attr *attr = p->node->attr;
  const unroll_tensor_view *v = plan_view(p, x);
  if (!plan_real(p, v->dtype) || v->rank < 1 || !(attr->epsilon >= 0) || !isfinite(attr->epsilon))
    return plan_decline(p, "dtype %d, rank %d, epsilon %g", v->dtype, v->rank, attr->epsilon);
  const extent row = plan_axis(p, x, v->rank - 1);
  if (row.dim >= 0)
    return plan_decline(p, "%s", "rows of a run-time size");
  *n = (norm_rows){
      .rows = plan_axes(p, x, 0, v->rank - 1), .N = row.per, .each = 1, .dtype = v->dtype, .epsilon = attr->epsilon};
  return UNROLL_OK;
}

/* first_in: of the inputs that the sums start from; first_out: of the sums. */
static unroll_status check_sums(plan *p, uint32_t x, uint32_t first_in, uint32_t first_out, norm_rows *n) {
  const unroll_layer_norm_attr *attr = p->node->attr;
  const int64_t rows = extent_max(p, n->rows);
  bool goes_on = false, sums = false;
  for (uint32_t i = 0; i < 2; i++) {
    goes_on = goes_on || plan_in(p, first_in + i) != UNROLL_NO_TENSOR;
    sums = sums || plan_out(p, first_out + i) != UNROLL_NO_TENSOR;
  }
  if (attr->block < 0 || (attr->block == 0 && goes_on) || n->N > INT32_MAX)
    return plan_decline(p, "blocks of %lld", (long long)attr->block);
  if (!sums)
    return UNROLL_OK;
  if (attr->block == 0)
    n->each = rows > PART * MOST_PARTS ? (rows + MOST_PARTS - 1) / MOST_PARTS : PART;
  for (uint32_t i = 0; attr->block && i < 2; i++) {
    const int64_t time = extent_max(p, plan_view(p, x)->rank > 1 ? plan_axis(p, x, 0) : (extent){1, -1});
    n->blocks[i] = (row_blocks){.rows = time ? attr->block * (rows / time) : attr->block,
                                .c = operand_of(plan_in(p, first_in + i)),
                                .from_first = attr->block_order == UNROLL_BLOCKS_FROM_FIRST};
    n->each = plan_part_rows(n->blocks[i].rows);
  }
  return UNROLL_OK;
}

static void launch_norm(plan *p, const char *source, const char *kernel, uint32_t have, int32_t after,
                        const norm_rows *n) {
  const int lanes = p->device->cpu ? 1 : GPU_LANES;
  launch *l = plan_launch(p, source, kernel, "-Dreal=%s -DWIDTH=%u -DLANES=%d -DHAVE=%u%s%.0d", dtype_c(n->dtype),
                          plan_width(p, n->dtype), lanes, have, after ? " -DAFTER=" : "", after);
  l->group = (size_t)lanes;
  l->times = lanes;
  plan_items(p, n->rows, n->each);
}

static uint32_t outputs(const plan *p, uint32_t n) {
  uint32_t have = 0;
  for (uint32_t i = 0; i < n; i++)
    if (plan_out(p, i) != UNROLL_NO_TENSOR)
      have |= 1u << i;
  return have;
}

static int64_t most_parts(const plan *p, const norm_rows *n) {
  return (extent_max(p, n->rows) + n->each - 1) / n->each;
}

/* Where the parts of the sums go, a row of N each. */
static void arg_parts(plan *p, norm_rows *n, uint32_t first_out) {
  for (uint32_t i = 0; i < 2; i++) {
    n->parts[i] = operand_of(UNROLL_NO_TENSOR);
    if (plan_out(p, first_out + i) != UNROLL_NO_TENSOR)
      n->parts[i] = plan_scratch(p, (uint64_t)(most_parts(p, n) * n->N) * dtype_bytes(n->dtype));
    arg_operand(p, n->parts[i], n->dtype);
  }
}

static void add_parts(plan *p, const norm_rows *n, uint32_t first_out) {
  for (uint32_t i = 0; i < 2; i++)
    if (plan_out(p, first_out + i) != UNROLL_NO_TENSOR)
      plan_sum_parts(p, n->dtype, n->parts[i], n->each, operand_of(plan_out(p, first_out + i)), n->rows, n->N,
                     &n->blocks[i]);
}

unroll_status plan_layer_norm(plan *p) {
  const uint32_t x = plan_in(p, 0), shift = plan_in(p, 2);
  norm_rows n;
  TRY(check_norm(p, x, &n));
  const bool has_shift = shift != UNROLL_NO_TENSOR;
  const int32_t after = plan_activates(p, p->node_index);
  uint32_t y = plan_out(p, 0);
  if (after != UNROLL_COPY)
    y = p->graph->edges[graph_node(p->graph, p->node_index + 1)->first_out];
  launch_norm(p, "layer_norm.cl", "layer_norm", has_shift, after, &n);
  for (uint32_t i = 0; i < 3; i++)
    arg_tensor(p, plan_in(p, i));
  arg_tensor(p, y);
  arg_long(p, n.N);
  arg_long(p, has_shift && plan_view(p, shift)->rank > 1 ? n.N : 0);
  arg_real(p, n.dtype, n.epsilon);
  arg_kind_of(p, ARG_ITEMS, 0);
  return UNROLL_OK;
}

unroll_status plan_layer_norm_grad(plan *p) {
  enum { DX, DGAIN };
  const uint32_t x = plan_in(p, 0);
  norm_rows n;
  TRY(check_norm(p, x, &n));
  TRY(check_sums(p, x, 3, DGAIN, &n));
  launch_norm(p, "layer_norm.cl", "layer_norm_grad", outputs(p, 3), 0, &n);
  for (uint32_t i = 0; i < 3; i++)
    arg_tensor(p, plan_in(p, i));
  arg_tensor(p, plan_out(p, DX));
  arg_parts(p, &n, DGAIN);
  arg_long(p, n.N);
  arg_extent(p, n.rows);
  arg_long(p, n.each);
  arg_real(p, n.dtype, n.epsilon);
  arg_kind_of(p, ARG_ITEMS, 0);
  add_parts(p, &n, DGAIN);
  return UNROLL_OK;
}

unroll_status plan_norm_gates(plan *p) {
  const uint32_t c_prev = plan_in(p, 1), c = plan_out(p, 1);
  norm_rows n;
  if (plan_in(p, 2) == UNROLL_NO_TENSOR || plan_in(p, 3) == UNROLL_NO_TENSOR)
    return plan_decline(p, "%s", "version 2 without gain and shift");
  TRY(check_norm(p, c_prev, &n));
  launch_norm(p, "lstm_norm_gates.cl", "lstm_norm_gates", outputs(p, 3), 0, &n);
  for (uint32_t i = 0; i < 4; i++)
    arg_tensor(p, plan_in(p, i));
  arg_tensor(p, plan_out(p, 0));
  if (c != UNROLL_NO_TENSOR)
    arg_tensor(p, c);
  else
    arg_operand(p, plan_scratch(p, (uint64_t)(extent_max(p, n.rows) * n.N) * dtype_bytes(n.dtype)), n.dtype);
  arg_tensor(p, plan_out(p, 2));
  arg_long(p, n.N);
  arg_real(p, n.dtype, n.epsilon);
  arg_kind_of(p, ARG_ITEMS, 0);
  return UNROLL_OK;
}

unroll_status plan_norm_gates_grad(plan *p) {
  enum { DPRE, DC_PREV, DGAIN, DH = 2, DC = 3, GAIN = 4, SHIFT = 5, SUMS = 6 };
  const uint32_t c_prev = plan_in(p, 1);
  norm_rows n;
  if (plan_in(p, GAIN) == UNROLL_NO_TENSOR || plan_in(p, SHIFT) == UNROLL_NO_TENSOR)
    return plan_decline(p, "%s", "version 2 without gain and shift");
  TRY(check_norm(p, c_prev, &n));
  TRY(check_sums(p, c_prev, SUMS, DGAIN, &n));
  uint32_t have = outputs(p, 4);
  have |= plan_in(p, DH) != UNROLL_NO_TENSOR ? 1u << 4 : 0;
  have |= plan_in(p, DC) != UNROLL_NO_TENSOR ? 1u << 5 : 0;
  launch_norm(p, "lstm_norm_gates.cl", "lstm_norm_gates_grad", have, 0, &n);
  for (uint32_t i = 0; i < SUMS; i++)
    arg_tensor(p, plan_in(p, i));
  arg_tensor(p, plan_out(p, DPRE));
  arg_tensor(p, plan_out(p, DC_PREV));
  arg_parts(p, &n, DGAIN);
  arg_operand(p, plan_scratch(p, (uint64_t)(2 * most_parts(p, &n) * n.N) * dtype_bytes(n.dtype)), n.dtype);
  arg_long(p, n.N);
  arg_extent(p, n.rows);
  arg_long(p, n.each);
  arg_real(p, n.dtype, n.epsilon);
  arg_kind_of(p, ARG_ITEMS, 0);
  add_parts(p, &n, DGAIN);
  return UNROLL_OK;
}
