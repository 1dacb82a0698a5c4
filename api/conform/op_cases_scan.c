/* SPDX-License-Identifier: Apache-2.0 */
/* Cases of linear recurrences: short and long, few lanes and many, ragged, with and without what is optional. */
#include "conform/op_cases.h"

enum { HAS_LENGTHS = 1, HAS_H0 = 2, HAS_DY = 4, HAS_DLAST = 8, EXACT = 16 };

static op_shape step_of(op_shape x) {
  op_shape s = {x.rank - 1, {0}};
  for (int32_t i = 0; i < s.rank; i++)
    s.n[i] = x.n[i + 1];
  return s;
}

static void optional(op_case *c, uint32_t has, op_shape shape, op_fill fill) {
  if (has)
    op_in(c, OP_REAL, shape, fill);
  else
    op_no_in(c);
}

/*
 * |a| <= 0.75, so that what is carried over from k steps before is at most 0.75^k of the state: an error of 2 roundings a step
 * sums to 2/(1 - 0.75) = 8 of the largest state, and that many again where chunks of steps are put together. Exact: a of 0 and
 * 1, whole numbers. Without dy the gradient is a product of all steps, of numbers near 1 and -1: a rounding for each.
 */
static void linear_scan(op_case_list *list, int grad, op_shape x, int32_t direction, uint32_t has) {
  const unroll_linear_scan_attr attr = {direction, 0};
  const int product = grad && !(has & HAS_DY);
  const op_fill values = has & EXACT ? FILL(FILL_INTEGER, -4, 4) : FILL_DEFAULT,
                factors = has & EXACT ? FILL(FILL_INTEGER, 0, 1)
                          : product   ? FILL(FILL_NONZERO, 0.95, 1.05)
                                      : FILL(FILL_UNIFORM, -0.45, 0.75);
  op_case *c =
      op_case_add(list, grad ? UNROLL_OP_LINEAR_SCAN_GRAD : UNROLL_OP_LINEAR_SCAN, &attr, sizeof attr,
                  "%slinear_scan%s %dx%d of rank %d%s%s%s%s%s", has & EXACT ? "exact " : "", grad ? "_grad" : "",
                  (int)x.n[0], (int)(op_elements(x) / x.n[0]), (int)x.rank, direction ? " reverse" : "",
                  has & HAS_LENGTHS ? " lengths" : "", has & HAS_H0 ? "" : " h0 absent",
                  !grad || has & HAS_DY ? "" : " dy absent", !grad || has & HAS_DLAST ? "" : " dh_last absent");
  op_in(c, OP_REAL, x, factors);
  op_in(c, OP_REAL, x, values); /* b, or y: any numbers will do */
  optional(c, has & HAS_H0, step_of(x), values);
  if (grad) {
    optional(c, has & HAS_DY, x, values);
    optional(c, has & HAS_DLAST, step_of(x), values);
  }
  if (has & HAS_LENGTHS)
    op_in(c, UNROLL_I32, SHAPE(x.n[1]), FILL(FILL_LENGTHS, 0, (double)x.n[0]));
  else
    op_no_in(c);
  op_out(c, OP_REAL, x);
  op_out(c, OP_REAL, grad ? x : step_of(x));
  if (grad)
    op_out(c, OP_REAL, step_of(x));
  op_round(c, has & EXACT ? 0 : product ? 17 + (double)x.n[0] : 17, 0);
}

/* Only some of the results. */
static void alone(op_case_list *list, int grad, uint32_t which, int64_t steps) {
  const op_shape x = SHAPE(steps, 3, 7);
  linear_scan(list, grad, x, UNROLL_FORWARD, HAS_LENGTHS | HAS_H0 | HAS_DY | HAS_DLAST);
  op_case *c = &list->cases[list->n - 1];
  op_node *node = &c->nodes[0];
  if (list->failed)
    return;
  for (uint32_t i = 0; i < node->n_out; i++)
    if (i != which)
      node->out[i] = UNROLL_NO_TENSOR;
  size_t n = 0;
  while (c->name[n])
    n++;
  static const char *const notes[2][3] = {{" y alone", " h_last alone", ""}, {" da alone", " db alone", " dh0 alone"}};
  for (const char *note = notes[grad][which]; *note && n + 1 < sizeof c->name; note++)
    c->name[n++] = *note;
}

void op_cases_scan(op_case_list *list) {
  const op_shape shapes[] = {SHAPE(5, 7, 17),  SHAPE(1, 1),      SHAPE(9, 3),       SHAPE(3, 2, 5, 3), SHAPE(300, 1),
                             SHAPE(257, 3, 2), SHAPE(65, 2, 33), SHAPE(1000, 1, 1), SHAPE(7, 5, 1030)};
  for (int grad = 0; grad < 2; grad++) {
    for (uint32_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
      for (int32_t direction = UNROLL_FORWARD; direction <= UNROLL_REVERSE; direction++)
        for (uint32_t lengths = 0; lengths < 2; lengths++)
          for (uint32_t exact = 0; exact < 2; exact++)
            linear_scan(list, grad, shapes[i], direction, lengths | HAS_H0 | HAS_DY | HAS_DLAST | (exact ? EXACT : 0));
    for (uint32_t lengths = 0; lengths < 2; lengths++) {
      linear_scan(list, grad, SHAPE(5, 3, 7), UNROLL_FORWARD, lengths | HAS_DY);
      linear_scan(list, grad, SHAPE(300, 2, 1), UNROLL_REVERSE, lengths | HAS_DY);
    }
  }
  linear_scan(list, 1, SHAPE(5, 3, 7), UNROLL_REVERSE, HAS_H0 | HAS_DLAST);
  linear_scan(list, 1, SHAPE(300, 1, 3), UNROLL_FORWARD, HAS_H0 | HAS_DLAST | HAS_LENGTHS);
  for (uint32_t which = 0; which < 3; which++) {
    alone(list, 1, which, 5);
    alone(list, 1, which, 301);
    if (which < 2) {
      alone(list, 0, which, 5);
      alone(list, 0, which, 301);
    }
  }
}
