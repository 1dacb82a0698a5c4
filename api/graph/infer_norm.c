/* SPDX-License-Identifier: Apache-2.0 */
/* infer_norm.c: layer normalisation, alone and of the cell state inside an LSTM's gates. */
#include "graph/infer.h"
#include <inttypes.h>
#include <math.h>

static const tensor_spec *in(const inference *f, uint32_t i) {
  return i < f->n_in && f->in[i] != GRAPH_NONE ? &f->graph->tensors[f->in[i]].spec : NULL;
}
static tensor_spec row_of(int32_t dtype, int64_t n) { return graph_make_spec(dtype, 1, (int64_t[]){n}); }

static unroll_status norm_attr(inference *f) {
  const unroll_layer_norm_attr *a = &f->attr->layer_norm;
  if (!(a->epsilon >= 0) || !isfinite(a->epsilon))
    return fail(f->err, UNROLL_E_RANGE, "epsilon is %g, expected a finite number from 0 on", a->epsilon);
  return UNROLL_OK;
}

/* first: of the inputs that sums start from, as wide as a row of like. */
static unroll_status norm_sums(inference *f, uint32_t first, const tensor_spec *row) {
  const unroll_layer_norm_attr *a = &f->attr->layer_norm;
  if (a->block < 0 || (a->block == 0 && (in(f, first) || in(f, first + 1))))
    return fail(f->err, UNROLL_E_INVALID, "blocks of %" PRId64 " indices%s", a->block,
                a->block < 0 ? "" : ", and sums that go on");
  TRY(infer_spec(f, first, row, true));
  return infer_spec(f, first + 1, row, true);
}

unroll_status infer_layer_norm(inference *f, bool gradient) {
  TRY(norm_attr(f));
  TRY(infer_real(f, 0));
  const tensor_spec *x = in(f, 0), row = row_of(x->dtype, x->shape[x->rank - 1]);
  if (x->dim[x->rank - 1] >= 0)
    return fail(f->err, UNROLL_E_UNSUPPORTED, "%s: a row of run-time size",
                graph_describe(f->graph, f->in[0], f->text[0]));
  TRY(infer_spec(f, 1, &row, false));
  f->out[0] = *x;
  if (!gradient)
    return infer_spec(f, 2, in(f, 2) && in(f, 2)->rank == 1 ? &row : x, true);
  TRY(infer_spec(f, 2, x, false));
  TRY(norm_sums(f, 3, &row));
  f->out[1] = f->out[2] = row;
  return UNROLL_OK;
}

unroll_status infer_norm_gates(inference *f, uint32_t n_in, uint32_t n_out, int64_t H) {
  const bool gradient = f->n_in > n_in + 2;
  const tensor_spec row = row_of(in(f, 1)->dtype, H);
  if (f->n_out != n_out + (gradient ? 2 : 0))
    return fail(f->err, UNROLL_E_INVALID, "%u outputs, expected %u", f->n_out, n_out + (gradient ? 2 : 0));
  TRY(norm_attr(f));
  TRY(infer_spec(f, n_in, &row, false));
  TRY(infer_spec(f, n_in + 1, &row, false));
  if (!gradient)
    return UNROLL_OK;
  f->out[n_out] = f->out[n_out + 1] = row;
  return norm_sums(f, n_in + 2, &row);
}
