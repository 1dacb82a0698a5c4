/* SPDX-License-Identifier: Apache-2.0 */
/* infer_needs.c: what an input of a node has to be. */
#include "graph/infer_private.h"
#include <inttypes.h>

unroll_status infer_need_real(inference *f, uint32_t i) {
  const tensor_spec *s = in(f, i);
  if (!s)
    return fail(f->err, UNROLL_E_INVALID, "input %u is missing", i);
  if (!is_real(s))
    return fail(f->err, UNROLL_E_DTYPE, "input %u is %s, expected f32 or f64", i, describe(f, i, 0));
  const tensor_spec *first = in(f, 0);
  if (first && is_real(first) && first->dtype != s->dtype)
    return fail(f->err, UNROLL_E_DTYPE, "input 0 is %s and input %u is %s; there is no implicit conversion",
                describe(f, 0, 0), i, describe(f, i, 1));
  return UNROLL_OK;
}
unroll_status infer_need_rank(inference *f, uint32_t i, int32_t at_least, int32_t at_most) {
  const tensor_spec *s = in(f, i);
  if (!s)
    return fail(f->err, UNROLL_E_INVALID, "input %u is missing", i);
  if (s->rank < at_least || s->rank > at_most)
    return fail(f->err, UNROLL_E_SHAPE, "input %u is %s: rank %d, expected %d%s%.0d", i, describe(f, i, 0), s->rank,
                at_least, at_most > at_least ? " to " : "", at_most > at_least ? at_most : 0);
  return UNROLL_OK;
}
unroll_status infer_need_dtype(inference *f, uint32_t i, int32_t dtype) {
  const tensor_spec *s = in(f, i);
  if (!s)
    return fail(f->err, UNROLL_E_INVALID, "input %u is missing", i);
  if (s->dtype != dtype)
    return fail(f->err, UNROLL_E_DTYPE, "input %u is %s, expected %s", i, describe(f, i, 0), unroll_dtype_name(dtype));
  return UNROLL_OK;
}
unroll_status infer_need_spec(inference *f, uint32_t i, const tensor_spec *want, bool optional) {
  const tensor_spec *s = in(f, i);
  if (!s && optional)
    return UNROLL_OK;
  if (!s)
    return fail(f->err, UNROLL_E_INVALID, "input %u is missing", i);
  if (!graph_same_shape(s, want) || s->dtype != want->dtype) {
    struct text t;
    text_init(&t, &f->graph->allocator);
    for (int k = 0; k < want->rank; k++)
      text_add(&t, "%s%s%" PRId64, k ? "," : "", want->dim[k] >= 0 ? "up to " : "", want->shape[k]);
    const unroll_status st =
        fail(f->err, s->dtype != want->dtype ? UNROLL_E_DTYPE : UNROLL_E_SHAPE, "input %u is %s, expected %s [%s]", i,
             describe(f, i, 0), unroll_dtype_name(want->dtype), text_peek(&t));
    text_free(&t);
    return st;
  }
  return UNROLL_OK;
}
unroll_status infer_need_axis(inference *f, int32_t axis) {
  const tensor_spec *s = in(f, 0);
  if (!s)
    return fail(f->err, UNROLL_E_INVALID, "input 0 is missing");
  if (axis < 0 || axis >= s->rank)
    return fail(f->err, UNROLL_E_SHAPE, "axis %d of %s, expected 0 to %d", axis, describe(f, 0, 0), s->rank - 1);
  return UNROLL_OK;
}
unroll_status infer_need_static_axis(inference *f, uint32_t i, int32_t axis) {
  if (in(f, i)->dim[axis] >= 0)
    return fail(f->err, UNROLL_E_UNSUPPORTED, "axis %d of %s has a run-time size, expected a static one", axis,
                describe(f, i, 0));
  return UNROLL_OK;
}

unroll_status infer_lengths_of(inference *f, uint32_t i, const tensor_spec *x, int batch_axis) {
  if (x->rank <= batch_axis)
    return fail(f->err, UNROLL_E_SHAPE, "%s has no batch on axis %d", describe(f, 0, 0), batch_axis);
  const tensor_spec want = spec1(UNROLL_I32, x->shape[batch_axis]);
  return infer_need_spec(f, i, &want, false);
}
