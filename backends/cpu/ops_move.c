/* SPDX-License-Identifier: Apache-2.0 */
/* Ops that move rows of bytes, whatever their element type. */
#include "cpu_ops.h"
#include <string.h>

/* y [O,before+A+after,I] around x [O,A,I] */
void cpu_run_pad(const cpu_call *c) {
  const cpu_operand *x = cpu_in(c, 0), *y = cpu_out(c, 0);
  const unroll_pad_attr *attr = &c->node->attr.pad;
  const int64_t outer = cpu_count(x, 0, attr->axis);
  const int64_t inner = cpu_count(x, attr->axis + 1, x->rank) * c->node->elem_bytes;
  const int64_t before = attr->before * inner, row = x->size[attr->axis] * inner, after = attr->after * inner;
  for (int64_t o = 0; o < outer; o++) {
    char *to = y->data + o * (before + row + after);
    memset(to, 0, (size_t)before);
    memcpy(to + before, x->data + o * row, (size_t)row);
    memset(to + before + row, 0, (size_t)after);
  }
}

void cpu_run_concat(const cpu_call *c) {
  const cpu_operand *y = cpu_out(c, 0);
  const int32_t axis = c->node->attr.axis.axis;
  const int64_t outer = cpu_count(y, 0, axis), y_row = cpu_count(y, axis, y->rank) * c->node->elem_bytes;
  char *to = y->data;
  for (uint32_t i = 0; i < c->node->n_in; i++) {
    const cpu_operand *x = cpu_in(c, i);
    const int64_t row = cpu_count(x, axis, x->rank) * c->node->elem_bytes;
    for (int64_t o = 0; o < outer; o++)
      memcpy(to + o * y_row, x->data + o * row, (size_t)row);
    to += row;
  }
}

/* y[t,b] = x[len-1-t,b] for t < len, x[t,b] after; a length outside of 0..T counts as the nearer of the two */
void cpu_run_reverse(const cpu_call *c) {
  const cpu_operand *x = cpu_in(c, 0), *y = cpu_out(c, 0);
  const int32_t *lengths = cpu_in_data(c, 1);
  const int64_t T = x->size[0], B = x->size[1], row = cpu_count(x, 2, x->rank) * c->node->elem_bytes;
  for (int64_t t = 0; t < T; t++)
    for (int64_t b = 0; b < B; b++) {
      const int64_t len = lengths[b] < T ? lengths[b] : T;
      const int64_t from = t < len ? len - 1 - t : t;
      memcpy(y->data + (t * B + b) * row, x->data + (from * B + b) * row, (size_t)row);
    }
}

/* y[t,b] = t < lengths[b] ? x[t,b] : other[t,b], or 0 where there is no other; inverted: the other way round */
void cpu_run_length_mask(const cpu_call *c) {
  const cpu_operand *x = cpu_in(c, 0), *y = cpu_out(c, 0);
  const unroll_length_mask_attr *attr = &c->node->attr.length_mask;
  const char *other = cpu_in_data(c, 1);
  const int32_t *lengths = cpu_in_data(c, 2);
  const bool whole = attr->time_axis == 0;
  const int64_t T = whole ? x->size[0] : 1, B = x->size[whole ? 1 : 0];
  const int64_t row = cpu_count(x, whole ? 2 : 1, x->rank) * c->node->elem_bytes;
  for (int64_t t = 0; t < T; t++)
    for (int64_t b = 0; b < B; b++) {
      const int64_t at = (t * B + b) * row;
      const bool inside = (whole ? t : c->at->t) < lengths[b];
      if (inside != (attr->invert != 0))
        memmove(y->data + at, x->data + at, (size_t)row); /* y may be x or other */
      else if (other)
        memmove(y->data + at, other + at, (size_t)row);
      else
        memset(y->data + at, 0, (size_t)row);
    }
}
