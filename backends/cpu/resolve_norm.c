/* SPDX-License-Identifier: Apache-2.0 */
/* Layer normalisation: rows, and sums over them. */
#include "cpu_ops.h"
#include "resolve.h"
#include <math.h>

int64_t cpu_rows(const cpu_tensor *t) {
  int64_t rows = 1;
  for (int32_t i = 0; i + 1 < t->shape.rank; i++)
    rows *= t->shape.size[i];
  return rows;
}

unroll_status cpu_check_norm_attr(const cpu_resolver *r, bool goes_on) {
  const unroll_layer_norm_attr *attr = &r->node->attr.layer_norm;
  if (!(attr->epsilon >= 0) || !isfinite(attr->epsilon))
    return cpu_fail(r->err, UNROLL_E_GRAPH, "cpu: %s \"%.60s\": epsilon is %g", r->op, r->view->name, attr->epsilon);
  return attr->block < 0 || (attr->block == 0 && goes_on) ? cpu_bad_attr(r, "block", attr->block) : UNROLL_OK;
}

/* x and gain, of which the other tensors have their shapes. */
static unroll_status check_row(cpu_resolver *r, cpu_shape *row) {
  const cpu_tensor *x = want_in(r, 0);
  TRY(cpu_expect_real(r, x));
  TRY(cpu_expect_rank(r, x, 1, UNROLL_MAX_RANK));
  *row = cpu_shape_1(cpu_last(x));
  return cpu_expect(r, want_in(r, 1), x->dtype, row);
}

unroll_status cpu_check_layer_norm(cpu_resolver *r) {
  const cpu_tensor *x = want_in(r, 0), *shift = want_in(r, 2);
  cpu_shape row;
  TRY(check_row(r, &row));
  TRY(cpu_check_norm_attr(r, false));
  TRY(cpu_expect(r, shift, x->dtype, shift && shift->shape.rank == 1 ? &row : &x->shape));
  TRY(cpu_expect(r, want_out(r, 0), x->dtype, &x->shape));
  cpu_choose(r, x->dtype, cpu_run_layer_norm_f32, cpu_run_layer_norm_f64);
  return UNROLL_OK;
}

unroll_status cpu_check_layer_norm_grad(cpu_resolver *r) {
  const cpu_tensor *x = want_in(r, 0);
  cpu_shape row;
  TRY(check_row(r, &row));
  TRY(cpu_check_norm_attr(r, want_in(r, 3) || want_in(r, 4)));
  TRY(cpu_expect(r, want_in(r, 2), x->dtype, &x->shape));
  TRY(cpu_expect(r, want_out(r, 0), x->dtype, &x->shape));
  for (uint32_t i = 0; i < 2; i++) {
    TRY(cpu_expect(r, want_in(r, 3 + i), x->dtype, &row));
    TRY(cpu_expect(r, want_out(r, 1 + i), x->dtype, &row));
  }
  r->node->workspace = (uint64_t)cpu_rows(x) * 2 * sizeof(double);
  cpu_choose(r, x->dtype, cpu_run_layer_norm_grad_f32, cpu_run_layer_norm_grad_f64);
  return UNROLL_OK;
}
