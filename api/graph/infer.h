/* SPDX-License-Identifier: Apache-2.0 */
/* infer.h: what the files that infer nodes share. */
#ifndef INFER_H
#define INFER_H
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

/* Input i is there, of f32 or f64, and has an axis. */
unroll_status infer_real(inference *f, uint32_t i);
/* Input i is what is wanted; or, where it is optional, absent. */
unroll_status infer_spec(inference *f, uint32_t i, const tensor_spec *want, bool optional);

/* infer_norm.c */
unroll_status infer_layer_norm(inference *f, bool gradient);
/* Of an lstm's gates with the norm of c: what stands behind the n_in inputs and n_out outputs of those without. */
unroll_status infer_norm_gates(inference *f, uint32_t n_in, uint32_t n_out, int64_t H);
#endif
