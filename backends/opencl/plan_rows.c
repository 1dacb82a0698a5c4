/* SPDX-License-Identifier: Apache-2.0 */
/* plan_rows.c: ops over the rows of a tensor: reductions, softmax and its losses, embeddings, choices. */
#include "opencl.h"
#include <string.h>

static bool is_integer(int32_t dtype) { return dtype == UNROLL_I32 || dtype == UNROLL_I64; }

/* ---- reductions ---- */
static extent times(extent a, extent b) { return (extent){a.per * b.per, a.dim >= 0 ? a.dim : b.dim}; }

/*
 * x [O][R][I], where R is cut into parts: to [O][ceil(parts/block)][I]. parts is R divided by `of`, rounded up. row: elements
 * from row to row of x, 0: as many as it has.
 */
static void plan_fold(plan *p, int32_t kind, int32_t dtype, operand x, operand y, extent outer, extent r, int64_t of,
                      extent inner, int64_t row, int64_t block) {
  const bool columns = row || inner.per != 1 || inner.dim >= 0;
  const uint32_t width = plan_width(p, dtype);
  plan_launch(p, "reduce.cl", columns ? "columns" : "rows", "-Dreal=%s -DWIDTH=%u -DKIND=%d -DINTEGER=%d",
              dtype_c(dtype), width, kind, is_integer(dtype));
  plan_items(p, outer, 1);
  plan_items(p, r, of * block);
  if (columns)
    plan_items(p, inner, width);
  arg_operand(p, x, dtype);
  arg_operand(p, y, dtype);
  arg_blocks(p, r, of);
  if (columns) {
    arg_extent(p, inner);
    if (row)
      arg_long(p, row);
    else
      arg_extent(p, inner);
  }
  arg_long(p, block);
  arg_kind_of(p, ARG_ITEMS, 0);
}

/* Blocks of about the square root keep both the longest chain of additions and the second pass short. */
static int64_t block_of(int64_t r) {
  int64_t block = 64;
  if (r <= 256)
    return r;
  while (block < r / block)
    block *= 2;
  return block;
}

/* One reduced axis, in one or two launches. */
static void plan_axis_fold(plan *p, int32_t kind, int32_t dtype, operand x, operand y, extent outer, extent r,
                           extent inner, int64_t row) {
  const int64_t longest = extent_max(p, r), block = block_of(longest);
  if (block >= longest) {
    plan_fold(p, kind, dtype, x, y, outer, r, 1, inner, row, block);
    return;
  }
  const int64_t blocks = (longest + block - 1) / block;
  const uint64_t bytes = (uint64_t)(extent_max(p, outer) * blocks * extent_max(p, inner)) * dtype_bytes(dtype);
  const operand parts = plan_scratch(p, bytes);
  plan_fold(p, kind, dtype, x, parts, outer, r, 1, inner, row, block);
  plan_fold(p, kind == UNROLL_SUM_SQUARES ? UNROLL_SUM : kind, dtype, parts, y, outer, r, block, inner, 0, blocks);
}

/* y = c and parts [blocks][columns] of rows, in their order. */
static void plan_add_blocks(plan *p, int32_t dtype, operand parts, operand y, extent rows, int64_t columns,
                            const row_blocks *b) {
  const bool have_c = b->c.mem != ARG_MEM || b->c.tensor != UNROLL_NO_TENSOR;
  const uint32_t width = plan_width(p, dtype);
  plan_launch(p, "matmul_pack.cl", "add", "-Dreal=%s -DWIDTH=%u -DHAVE_C=%d -DBLOCKS=%d", dtype_c(dtype), width, have_c,
              b->from_first ? 2 : 1);
  plan_items(p, (extent){columns, -1}, width);
  arg_operand(p, parts, dtype);
  arg_operand(p, b->c, dtype);
  arg_operand(p, y, dtype);
  arg_long(p, 1);
  arg_long(p, columns);
  arg_blocks(p, rows, b->rows);
  arg_long(p, 0);
  arg_long(p, 0);
  arg_kind_of(p, ARG_ITEMS, 0);
}

/* A block's rows are summed in equal parts, so that there is work for many. */
static int64_t part_of(int64_t rows) {
  for (int64_t part = 64; part >= 16; part--)
    if (rows % part == 0)
      return part;
  return rows;
}

int64_t plan_part_rows(int64_t rows) { return part_of(rows); }

void plan_sum_parts(plan *p, int32_t dtype, operand parts, int64_t part, operand y, extent rows, int64_t columns,
                    const row_blocks *b) {
  const int64_t longest = extent_max(p, rows);
  const extent one = {1, -1}, inner = {columns, -1};
  if (!b->rows) {
    plan_fold(p, UNROLL_SUM, dtype, parts, y, one, rows, part, inner, columns, (longest + part - 1) / part);
    return;
  }
  operand sums = parts;
  if (part < b->rows) {
    sums = plan_scratch(p, (uint64_t)((longest + b->rows - 1) / b->rows * columns) * dtype_bytes(dtype));
    plan_fold(p, UNROLL_SUM, dtype, parts, sums, one, rows, part, inner, columns, b->rows / part);
  }
  plan_add_blocks(p, dtype, sums, y, rows, columns, b);
}

static void plan_block_sums(plan *p, int32_t dtype, operand x, int64_t row, operand y, extent rows, int64_t columns,
                            const row_blocks *b) {
  const int64_t part = part_of(b->rows);
  const uint64_t bytes = (uint64_t)((extent_max(p, rows) + part - 1) / part * columns) * dtype_bytes(dtype);
  const operand parts = plan_scratch(p, bytes);
  plan_fold(p, UNROLL_SUM, dtype, x, parts, (extent){1, -1}, rows, 1, (extent){columns, -1}, row ? row : columns, part);
  plan_sum_parts(p, dtype, parts, part, y, rows, columns, b);
}

void plan_column_sums(plan *p, int32_t dtype, operand x, int64_t row, operand y, extent rows, int64_t columns,
                      const row_blocks *blocks) {
  if (blocks->rows)
    plan_block_sums(p, dtype, x, row, y, rows, columns, blocks);
  else
    plan_axis_fold(p, UNROLL_SUM, dtype, x, y, (extent){1, -1}, rows, (extent){columns, -1}, row);
}

unroll_status plan_reduce(plan *p) {
  const unroll_reduce_attr *attr = p->node->attr;
  const uint32_t x = plan_in(p, 0), y = plan_out(p, 0);
  const unroll_tensor_view *v = plan_view(p, x);
  extent group[UNROLL_MAX_RANK + 1]; /* neighbouring axes of one kind, outermost first */
  bool reduced[UNROLL_MAX_RANK + 1];
  int32_t kind = attr->kind, n = 0;
  if (!plan_number(p, v->dtype) || kind < 0 || kind >= UNROLL_REDUCTION_COUNT)
    return plan_decline(p, "dtype %d, kind %d", v->dtype, kind);
  for (int32_t i = 0; i < v->rank; i++) {
    const extent axis = plan_axis(p, x, i);
    const bool is = attr->axes >> i & 1u;
    if (axis.per == 1 && axis.dim < 0)
      continue;
    if (n > 0 && reduced[n - 1] == is)
      group[n - 1] = times(group[n - 1], axis);
    else {
      group[n] = axis;
      reduced[n++] = is;
    }
  }
  row_blocks blocks = {.c = operand_of(plan_in(p, 1))};
  if (p->node->attr_size >= UNROLL_SIZE_TO(unroll_reduce_attr, block_order) && attr->block != 0) {
    const extent time = plan_axis(p, x, 0);
    if (attr->block < 0 || kind != UNROLL_SUM || !(attr->axes & 1u) || !plan_real(p, v->dtype) ||
        extent_max(p, plan_axes(p, y, 0, plan_view(p, y)->rank)) > INT32_MAX)
      return plan_decline(p, "blocks of %lld of axis 0", (long long)attr->block);
    blocks.from_first = attr->block_order == UNROLL_BLOCKS_FROM_FIRST;
    if (n == 0 || !reduced[0]) { /* axis 0 has one index, which is one block */
      memmove(group + 1, group, (size_t)n * sizeof *group);
      memmove(reduced + 1, reduced, (size_t)n * sizeof *reduced);
      group[0] = (extent){1, -1};
      reduced[0] = true;
      n++;
    }
    blocks.rows = attr->block * (extent_max(p, group[0]) / extent_max(p, time)); /* axis 0 is the first of the group */
  } else if (plan_in(p, 1) != UNROLL_NO_TENSOR)
    return plan_decline(p, "%s", "a sum that goes on, without blocks");
  int32_t left = 0;
  for (int32_t i = 0; i < n; i++)
    left += reduced[i];
  if (left == 0) { /* only axes of extent 1 go: one element a sum */
    group[n] = (extent){1, -1};
    reduced[n++] = true;
    left = 1;
  }
  operand from = operand_of(x);
  extent inner = {1, -1};
  for (int32_t i = n - 1; i >= 0; i--) {
    if (!reduced[i]) {
      inner = times(group[i], inner);
      continue;
    }
    extent outer = {1, -1};
    for (int32_t k = 0; k < i; k++)
      outer = times(outer, group[k]);
    operand to = operand_of(y);
    if (--left > 0) {
      const uint64_t elements = (uint64_t)(extent_max(p, outer) * extent_max(p, inner));
      to = plan_scratch(p, elements * dtype_bytes(v->dtype));
    }
    if (i == 0 && blocks.rows)
      plan_block_sums(p, v->dtype, from, 0, to, group[0], extent_max(p, inner), &blocks);
    else
      plan_axis_fold(p, kind, v->dtype, from, to, outer, group[i], inner, 0);
    kind = kind == UNROLL_SUM_SQUARES ? UNROLL_SUM : kind;
    from = to;
  }
  return UNROLL_OK;
}

/* ---- a work-item a row ---- */
static void plan_a_row(plan *p, const char *source, const char *kernel, uint32_t x) {
  const unroll_tensor_view *v = plan_view(p, x);
  launch *l = plan_launch(p, source, kernel, "-Dreal=%s -DWIDTH=%u", dtype_c(v->dtype), plan_width(p, v->dtype));
  l->group = p->device->cpu ? 1 : p->device->group;
  plan_items(p, plan_axes(p, x, 0, v->rank - 1), 1);
}

static void finish_row(plan *p, uint32_t x) {
  arg_extent(p, plan_axis(p, x, plan_view(p, x)->rank - 1));
  arg_kind_of(p, ARG_ITEMS, 0);
}

static unroll_status check_rows(plan *p, uint32_t x) {
  const unroll_tensor_view *v = plan_view(p, x);
  return plan_real(p, v->dtype) && v->rank >= 1 ? UNROLL_OK : plan_decline(p, "dtype %d, rank %d", v->dtype, v->rank);
}

unroll_status plan_softmax(plan *p) {
  const uint32_t x = plan_in(p, 0);
  TRY(check_rows(p, x));
  plan_a_row(p, "softmax.cl", p->node->op == UNROLL_OP_SOFTMAX ? "softmax" : "log_softmax", x);
  arg_tensor(p, x);
  arg_tensor(p, plan_out(p, 0));
  finish_row(p, x);
  return UNROLL_OK;
}

unroll_status plan_cross_entropy(plan *p) {
  const uint32_t x = plan_in(p, 0);
  TRY(check_rows(p, x));
  plan_a_row(p, "softmax.cl", "cross_entropy", x);
  arg_tensor(p, x);
  arg_tensor(p, plan_in(p, 1));
  arg_tensor(p, plan_out(p, 0));
  finish_row(p, x);
  return UNROLL_OK;
}

unroll_status plan_cross_entropy_grad(plan *p) {
  const uint32_t x = plan_in(p, 0);
  TRY(check_rows(p, x));
  plan_a_row(p, "softmax.cl", "cross_entropy_grad", x);
  for (uint32_t i = 0; i < 3; i++)
    arg_tensor(p, plan_in(p, i));
  arg_tensor(p, plan_out(p, 0));
  finish_row(p, x);
  return UNROLL_OK;
}

/* The kernels of sample.cl lie in one program, so all of them name the integer type of the keys. */
static void launch_choice(plan *p, const char *kernel, uint32_t x) {
  const unroll_tensor_view *v = plan_view(p, x);
  launch *l = plan_launch(p, "sample.cl", kernel, "-Dreal=%s%s", dtype_c(v->dtype),
                          v->dtype == UNROLL_F64 ? " -Dbits_t=ulong -Das_bits=as_ulong -DBITS=64" : "");
  l->group = p->device->cpu ? 1 : p->device->group;
  plan_items(p, plan_axes(p, x, 0, v->rank - 1), 1);
  arg_tensor(p, x);
}

static void plan_choice(plan *p, const char *kernel, uint32_t x) {
  launch_choice(p, kernel, x);
  arg_tensor(p, plan_out(p, 0));
  arg_extent(p, plan_axis(p, x, plan_view(p, x)->rank - 1));
}

unroll_status plan_argmax(plan *p) {
  const uint32_t x = plan_in(p, 0);
  TRY(check_rows(p, x));
  plan_choice(p, "argmax", x);
  arg_kind_of(p, ARG_ITEMS, 0);
  return UNROLL_OK;
}

unroll_status plan_categorical(plan *p) {
  const unroll_categorical_attr *attr = p->node->attr;
  const uint32_t x = plan_in(p, 0);
  TRY(check_rows(p, x));
  plan_choice(p, "categorical", x);
  arg_long(p, attr->top_k);
  arg_real(p, plan_view(p, x)->dtype, p->node->op_version > 1 ? attr->top_p : 0);
  arg_kind_of(p, ARG_KEY0, attr->site);
  arg_kind_of(p, ARG_KEY1, attr->site);
  arg_kind_of(p, ARG_TIME, 1);
  arg_kind_of(p, ARG_ROW0, 0);
  arg_kind_of(p, ARG_ITEMS, 0);
  return UNROLL_OK;
}

unroll_status plan_top_k(plan *p) {
  const unroll_top_k_attr *attr = p->node->attr;
  const uint32_t x = plan_in(p, 0);
  TRY(check_rows(p, x));
  const extent row = plan_axis(p, x, plan_view(p, x)->rank - 1);
  if (row.dim >= 0 || attr->k < 1 || attr->k > row.per)
    return plan_decline(p, "%lld of a row of %lld", (long long)attr->k, (long long)row.per);
  launch_choice(p, "top_k", x);
  arg_tensor(p, plan_out(p, 0));
  arg_tensor(p, plan_out(p, 1));
  arg_extent(p, row);
  arg_long(p, attr->k);
  arg_kind_of(p, ARG_ITEMS, 0);
  return UNROLL_OK;
}

/* ---- elements by id ---- */
static unroll_status check_gather(plan *p, uint32_t row, uint32_t ids) {
  TRY(check_rows(p, row));
  const int32_t rank = plan_view(p, row)->rank;
  if (plan_view(p, ids)->rank != rank || plan_axis(p, row, rank - 1).dim >= 0 || plan_axis(p, ids, rank - 1).dim >= 0)
    return plan_decline(p, "ids of rank %d, rows of rank %d", plan_view(p, ids)->rank, rank);
  return UNROLL_OK;
}

static void finish_gather(plan *p, uint32_t row, uint32_t ids) {
  arg_extent(p, plan_axis(p, row, plan_view(p, row)->rank - 1));
  arg_extent(p, plan_axis(p, ids, plan_view(p, ids)->rank - 1));
  arg_kind_of(p, ARG_ITEMS, 0);
}

unroll_status plan_gather(plan *p) {
  const uint32_t x = plan_in(p, 0), ids = plan_in(p, 1);
  TRY(check_gather(p, x, ids));
  plan_launch(p, "gather.cl", "gather", "-Dreal=%s", dtype_c(plan_view(p, x)->dtype));
  plan_elements(p, ids, 1);
  arg_tensor(p, x);
  arg_tensor(p, ids);
  arg_tensor(p, plan_out(p, 0));
  finish_gather(p, x, ids);
  return UNROLL_OK;
}

unroll_status plan_gather_grad(plan *p) {
  const uint32_t ids = plan_in(p, 0), dy = plan_in(p, 1), dx = plan_out(p, 0);
  TRY(check_gather(p, dx, ids));
  plan_fill(p, dx, 0);
  launch *l = plan_launch(p, "gather.cl", "gather_grad", "-Dreal=%s", dtype_c(plan_view(p, dx)->dtype));
  l->group = p->device->cpu ? 1 : p->device->group;
  plan_items(p, plan_axes(p, ids, 0, plan_view(p, ids)->rank - 1), 1);
  arg_tensor(p, ids);
  arg_tensor(p, dy);
  arg_tensor(p, dx);
  finish_gather(p, dx, ids);
  return UNROLL_OK;
}

/* ---- embeddings ---- */
unroll_status plan_embedding(plan *p) {
  const uint32_t table = plan_in(p, 0), ids = plan_in(p, 1);
  const unroll_tensor_view *v = plan_view(p, table);
  if (!plan_real(p, v->dtype) || v->rank != 2)
    return plan_decline(p, "dtype %d, rank %d", v->dtype, v->rank);
  const uint32_t width = plan_width(p, v->dtype);
  plan_launch(p, "embedding.cl", "embedding", "-Dreal=%s -DWIDTH=%u -DSERIAL=%d", dtype_c(v->dtype), width,
              p->device->cpu); /* as the gradient's, so that they are one program */
  plan_elements(p, ids, 1);
  plan_items(p, plan_axis(p, table, 1), width);
  arg_tensor(p, table);
  arg_tensor(p, ids);
  arg_tensor(p, plan_out(p, 0));
  arg_extent(p, plan_axis(p, table, 0));
  arg_extent(p, plan_axis(p, table, 1));
  arg_kind_of(p, ARG_ITEMS, 0);
  return UNROLL_OK;
}

unroll_status plan_embedding_grad(plan *p) {
  const uint32_t ids = plan_in(p, 0), dy = plan_in(p, 1), table = plan_out(p, 0);
  const unroll_tensor_view *v = plan_view(p, table);
  const extent n = plan_axes(p, ids, 0, plan_view(p, ids)->rank), one = {1, -1};
  if (!plan_real(p, v->dtype) || v->rank != 2 || extent_max(p, n) > INT32_MAX)
    return plan_decline(p, "dtype %d, rank %d, %lld ids", v->dtype, v->rank, (long long)extent_max(p, n));
  const uint32_t width = plan_width(p, v->dtype);
  const operand head = plan_scratch(p, (uint64_t)extent_max(p, plan_axis(p, table, 0)) * sizeof(int32_t));
  const operand next = plan_scratch(p, (uint64_t)extent_max(p, n) * sizeof(int32_t));
  launch *l = plan_launch(p, "embedding.cl", "lists", "-Dreal=%s -DWIDTH=%u -DSERIAL=%d", dtype_c(v->dtype), width,
                          p->device->cpu);
  l->group = p->device->cpu ? 1 : p->device->group;
  plan_items(p, p->device->cpu ? one : plan_axis(p, table, 0), 1);
  arg_tensor(p, ids);
  arg_operand(p, head, UNROLL_I32);
  arg_operand(p, next, UNROLL_I32);
  arg_extent(p, plan_axis(p, table, 0));
  arg_extent(p, n);
  arg_kind_of(p, ARG_ITEMS, 0);
  plan_launch(p, "embedding.cl", "embedding_grad", "-Dreal=%s -DWIDTH=%u -DSERIAL=%d", dtype_c(v->dtype), width,
              p->device->cpu);
  plan_items(p, plan_axis(p, table, 0), 1);
  plan_items(p, plan_axis(p, table, 1), width);
  arg_operand(p, head, UNROLL_I32);
  arg_operand(p, next, UNROLL_I32);
  arg_tensor(p, dy);
  arg_tensor(p, table);
  arg_extent(p, plan_axis(p, table, 1));
  arg_kind_of(p, ARG_ITEMS, 0);
  return UNROLL_OK;
}
