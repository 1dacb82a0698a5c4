/* SPDX-License-Identifier: Apache-2.0 */
/* infer_private.h: what the rules of infer.c and infer_recurrent.c are written with. */
#ifndef INFER_PRIVATE_H
#define INFER_PRIVATE_H
#include "graph/graph_private.h"

typedef struct inference {
  const unroll_graph *graph;
  const op_attr *attr;
  const uint32_t *in;
  uint32_t n_in, n_out;
  tensor_spec *out;
  unroll_error *err;
  char text[3][GRAPH_DESCRIBE];
} inference;

static inline const tensor_spec *in(const inference *f, uint32_t i) {
  return i < f->n_in && f->in[i] != GRAPH_NONE ? &f->graph->tensors[f->in[i]].spec : NULL;
}
static inline const char *describe(inference *f, uint32_t i, int buffer) {
  return i < f->n_in ? graph_describe(f->graph, f->in[i], f->text[buffer]) : "(none)";
}
static inline bool is_real(const tensor_spec *s) { return s->dtype == UNROLL_F32 || s->dtype == UNROLL_F64; }
static inline bool is_number(const tensor_spec *s) {
  return is_real(s) || s->dtype == UNROLL_I32 || s->dtype == UNROLL_I64;
}
static inline bool same_extent(const tensor_spec *a, int i, const tensor_spec *b, int j) {
  return a->shape[i] == b->shape[j] && a->dim[i] == b->dim[j];
}
static inline bool has_extent(const tensor_spec *a, int i, int64_t n) { return a->shape[i] == n && a->dim[i] < 0; }

static inline tensor_spec spec1(int32_t dtype, int64_t n) { return graph_make_spec(dtype, 1, (int64_t[]){n}); }

/* The shape of s with the last axis replaced. */
static inline tensor_spec with_last(const tensor_spec *s, int64_t n) {
  tensor_spec r = *s;
  r.shape[r.rank - 1] = n;
  r.dim[r.rank - 1] = -1;
  return r;
}
static inline tensor_spec with_dtype(const tensor_spec *s, int32_t dtype) {
  tensor_spec r = *s;
  r.dtype = dtype;
  return r;
}
static inline tensor_spec without_last(const tensor_spec *s, int32_t dtype) {
  tensor_spec r = *s;
  r.rank--;
  r.shape[r.rank] = 1;
  r.dim[r.rank] = -1;
  r.dtype = dtype;
  return r;
}
static inline tensor_spec prepend_axis_of(const tensor_spec *step, const tensor_spec *sequence) {
  tensor_spec r = graph_make_spec(step->dtype, 0, NULL);
  r.rank = step->rank + 1;
  r.shape[0] = sequence->shape[0];
  r.dim[0] = sequence->dim[0];
  for (int i = 0; i < step->rank; i++)
    r.shape[i + 1] = step->shape[i];
  return r;
}

/* One step of a sequence. */
static inline tensor_spec step_of(const tensor_spec *s) { return graph_make_spec(s->dtype, s->rank - 1, s->shape + 1); }

/* What an input has to be, or an error that says what it is: input i is there and real, all of them of the dtype of input
 * 0; its rank; its dtype; its very shape and dtype, or absent where that is allowed; an axis of input 0, or one without a
 * run-time size; i32 lengths, one for each element of the batch of x. */
unroll_status infer_need_real(inference *f, uint32_t i);
unroll_status infer_need_rank(inference *f, uint32_t i, int32_t at_least, int32_t at_most);
unroll_status infer_need_dtype(inference *f, uint32_t i, int32_t dtype);
unroll_status infer_need_spec(inference *f, uint32_t i, const tensor_spec *want, bool optional);
unroll_status infer_need_axis(inference *f, int32_t axis);
unroll_status infer_need_static_axis(inference *f, uint32_t i, int32_t axis);
unroll_status infer_lengths_of(inference *f, uint32_t i, const tensor_spec *x, int batch_axis);

/* The rules of recurrences. */
unroll_status infer_linear_scan(inference *f, bool gradient);
unroll_status infer_layer_norm(inference *f, bool gradient);
unroll_status infer_gates(inference *f, uint32_t op);
unroll_status infer_layer(inference *f);
unroll_status infer_layer_grad(inference *f);

#endif
