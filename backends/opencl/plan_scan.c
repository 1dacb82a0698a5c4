/* SPDX-License-Identifier: Apache-2.0 */
/* plan_scan.c: linear recurrences over time. */
#include "opencl.h"

enum {
  CHUNK = 64,     /* steps; the same on every device, and nothing that is tuned */
  STRIPS = 1,     /* work-items that a core wants, so that none waits for the last one; the longer their rows */
  GPU_ITEMS = 256 /* work-items that a compute unit of a GPU wants to hide the memory's latency */
};

/* What the launches of a scan have in common. */
typedef struct scan_shape {
  extent steps, rows, lanes; /* lanes of a row; rows is 1 where there are no lengths */
  int32_t dtype;
  int64_t each; /* vectors of a work-item */
  uint32_t width, reverse, lengths;
  bool chunked;
} scan_shape;

static unroll_status shape_of(plan *p, uint32_t lengths, scan_shape *s) {
  const unroll_linear_scan_attr *attr = p->node->attr;
  const uint32_t a = plan_in(p, 0);
  const unroll_tensor_view *v = plan_view(p, a);
  if (!plan_real(p, v->dtype) || v->rank < 2 || attr->direction < UNROLL_FORWARD || attr->direction > UNROLL_REVERSE)
    return plan_decline(p, "dtype %d, rank %d, direction %d", v->dtype, v->rank, attr->direction);
  const bool ragged = lengths != UNROLL_NO_TENSOR, cpu = p->device->cpu;
  *s = (scan_shape){.steps = plan_axis(p, a, 0),
                    .rows = ragged ? plan_axis(p, a, 1) : (extent){1, -1},
                    .lanes = plan_axes(p, a, ragged ? 2 : 1, v->rank),
                    .dtype = v->dtype,
                    .width = plan_width(p, v->dtype),
                    .reverse = attr->direction == UNROLL_REVERSE,
                    .lengths = lengths};
  const int64_t vectors = s->rows.per * ((s->lanes.per + s->width - 1) / s->width), wanted = STRIPS * p->device->cores;
  s->each = cpu ? (vectors + wanted - 1) / wanted : 1;
  s->chunked = vectors < p->device->cores * (cpu ? 1 : GPU_ITEMS) && extent_max(p, s->steps) >= 4 * CHUNK;
  return UNROLL_OK;
}

static void launch_scan(plan *p, const char *kernel, const scan_shape *s) {
  launch *l = plan_launch(p, "linear_scan.cl", kernel, "-Dreal=%s -DWIDTH=%u -DLONG=%d", dtype_c(s->dtype), s->width,
                          p->device->cpu);
  l->group = p->device->cpu ? 1 : p->device->group;
  plan_items(p, s->rows, 1);
  plan_items(p, s->lanes, s->width * s->each);
  if (s->chunked)
    plan_items(p, s->steps, CHUNK);
}

static void finish_scan(plan *p, const scan_shape *s) {
  arg_extent(p, s->steps);
  arg_extent(p, s->rows);
  arg_extent(p, s->lanes);
  arg_long(p, s->each);
  if (s->chunked)
    arg_long(p, CHUNK);
  else
    arg_extent(p, s->steps);
  arg_uint(p, s->reverse);
  arg_kind_of(p, ARG_ITEMS, 0);
}

/* The states that the chunks begin with, in a's order of steps or, for the gradient, the other way; last: after all of them. */
static operand plan_chunks(plan *p, const scan_shape *s, const char *kernel, uint32_t added, uint32_t start,
                           uint32_t last, bool backwards) {
  const int64_t chunks = (extent_max(p, s->steps) + CHUNK - 1) / CHUNK;
  const uint64_t bytes = (uint64_t)(chunks * s->rows.per * s->lanes.per) * dtype_bytes(s->dtype);
  const operand factors = plan_scratch(p, bytes), sum = plan_scratch(p, bytes);
  launch_scan(p, kernel, s);
  arg_tensor(p, plan_in(p, 0));
  arg_tensor(p, added);
  arg_tensor(p, s->lengths);
  arg_operand(p, factors, s->dtype);
  arg_operand(p, sum, s->dtype);
  finish_scan(p, s);
  plan_launch(p, "linear_scan.cl", "carry", "-Dreal=%s -DWIDTH=%u -DLONG=%d", dtype_c(s->dtype), s->width,
              p->device->cpu);
  plan_items(p, s->rows, 1);
  plan_items(p, s->lanes, 1);
  arg_tensor(p, start);
  arg_operand(p, factors, s->dtype);
  arg_operand(p, sum, s->dtype);
  arg_tensor(p, last);
  arg_blocks(p, s->steps, CHUNK);
  arg_uint(p, backwards);
  arg_kind_of(p, ARG_ITEMS, 0);
  return sum;
}

/* What a long strip keeps its state in; where there are chunks that is what they begin with. */
static void arg_state(plan *p, const scan_shape *s, operand starts) {
  if (!p->device->cpu)
    arg_tensor(p, UNROLL_NO_TENSOR);
  else if (s->chunked)
    arg_operand(p, starts, s->dtype);
  else
    arg_operand(p, plan_scratch(p, (uint64_t)(s->rows.per * s->lanes.per) * dtype_bytes(s->dtype)), s->dtype);
}

/* The argument that a scan begins with: the chunks' states, or those of the caller. */
static void arg_start(plan *p, const scan_shape *s, operand starts, uint32_t start) {
  if (s->chunked)
    arg_operand(p, starts, s->dtype);
  else
    arg_tensor(p, start);
}

unroll_status plan_linear_scan(plan *p) {
  const uint32_t h0 = plan_in(p, 2), last = plan_out(p, 1);
  scan_shape s;
  operand starts = {ARG_SCRATCH, UNROLL_NO_TENSOR, 0};
  TRY(shape_of(p, plan_in(p, 3), &s));
  if (s.chunked)
    starts = plan_chunks(p, &s, "linear_scan_reduce", plan_in(p, 1), h0, last, false);
  launch_scan(p, "linear_scan", &s);
  arg_tensor(p, plan_in(p, 0));
  arg_tensor(p, plan_in(p, 1));
  arg_start(p, &s, starts, h0);
  arg_tensor(p, s.lengths);
  arg_tensor(p, plan_out(p, 0));
  arg_tensor(p, s.chunked ? UNROLL_NO_TENSOR : last);
  arg_state(p, &s, starts);
  finish_scan(p, &s);
  return UNROLL_OK;
}

unroll_status plan_linear_scan_grad(plan *p) {
  const uint32_t dlast = plan_in(p, 4), dh0 = plan_out(p, 2);
  scan_shape s;
  operand starts = {ARG_SCRATCH, UNROLL_NO_TENSOR, 0};
  TRY(shape_of(p, plan_in(p, 5), &s));
  if (s.chunked)
    starts = plan_chunks(p, &s, "linear_scan_grad_reduce", plan_in(p, 3), dlast, dh0, true);
  launch_scan(p, "linear_scan_grad", &s);
  for (uint32_t i = 0; i < 4; i++)
    arg_tensor(p, plan_in(p, i));
  arg_start(p, &s, starts, dlast);
  arg_tensor(p, s.lengths);
  arg_tensor(p, plan_out(p, 0));
  arg_tensor(p, plan_out(p, 1));
  arg_tensor(p, s.chunked ? UNROLL_NO_TENSOR : dh0);
  arg_state(p, &s, starts);
  finish_scan(p, &s);
  return UNROLL_OK;
}
