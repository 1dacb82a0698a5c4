/* SPDX-License-Identifier: Apache-2.0 */
/* The gate ops: every tensor is [..,k·H] over the same rows, for a small k of its own. */
#include "cpu_ops.h"
#include "resolve.h"

/* Blocks of H that each input and output has; state names the input that has one block and so tells H. */
static unroll_status check_blocks(cpu_resolver *r, uint32_t state, const int64_t *in, uint32_t n_in, const int64_t *out,
                                  uint32_t n_out) {
  const cpu_tensor *s = want_in(r, state);
  TRY(cpu_expect_real(r, s));
  TRY(cpu_expect_rank(r, s, 2, UNROLL_MAX_RANK));
  for (uint32_t i = 0; i < n_in; i++) {
    const cpu_shape want = cpu_with_last(s->shape, in[i] * cpu_last(s));
    TRY(cpu_expect(r, want_in(r, i), s->dtype, &want));
  }
  for (uint32_t i = 0; i < n_out; i++) {
    const cpu_shape want = cpu_with_last(s->shape, out[i] * cpu_last(s));
    TRY(cpu_expect(r, want_out(r, i), s->dtype, &want));
  }
  return UNROLL_OK;
}

#define CHECK_GATES(name, state, n_in, n_out, ...) CHECK_AS(cpu_check_##name, name, state, n_in, n_out, __VA_ARGS__)
#define CHECK_AS(check, name, state, n_in, n_out, ...)                                   \
  unroll_status check(cpu_resolver *r) {                                                 \
    static const int64_t blocks[] = {__VA_ARGS__};                                       \
    TRY(check_blocks(r, state, blocks, n_in, blocks + (n_in), n_out));                   \
    cpu_choose(r, want_in(r, state)->dtype, cpu_run_##name##_f32, cpu_run_##name##_f64); \
    return UNROLL_OK;                                                                    \
  }

/* clang-format off */
/*          op                    state in out  blocks of the inputs  of the outputs */
static CHECK_AS(check_lstm_gates, lstm_gates,           1, 2, 3,   4, 1,       1, 1, 4)
static CHECK_AS(check_lstm_gates_grad, lstm_gates_grad, 1, 4, 2,   4, 1, 1, 1, 4, 1)
CHECK_GATES(gru_after_gates,      2,    3, 2,   3, 3, 1,              1, 4)
CHECK_GATES(gru_after_gates_grad, 1,    3, 3,   4, 1, 1,              3, 3, 1)
CHECK_GATES(gru_reset,            1,    2, 2,   2, 1,                 2, 1)
CHECK_GATES(gru_reset_grad,       1,    4, 2,   2, 1, 2, 1,           2, 1)
CHECK_GATES(gru_update,           2,    3, 2,   1, 2, 1,              1, 1)
CHECK_GATES(gru_update_grad,      2,    4, 3,   2, 1, 1, 1,           1, 2, 1)
    /* clang-format on */

    /* With the norm of c: n_in and n_out are those without it; a gradient's sums stand behind gain and shift. */
    static unroll_status check_norm(cpu_resolver *r, uint32_t n_in, uint32_t n_out, bool gradient) {
  const cpu_tensor *s = want_in(r, 1);
  const cpu_shape row = cpu_shape_1(cpu_last(s));
  const bool gain = want_in(r, n_in) != NULL, shift = want_in(r, n_in + 1) != NULL, newer = r->view->op_version > 1;
  if (gain != newer || shift != newer)
    return cpu_fail(r->err, UNROLL_E_GRAPH, "cpu: %s \"%.60s\": gain and shift come together, with op_version 2", r->op,
                    r->view->name);
  if (!newer)
    return UNROLL_OK;
  for (uint32_t i = n_in; i < r->view->n_in; i++)
    TRY(cpu_expect(r, want_in(r, i), s->dtype, &row));
  for (uint32_t i = n_out; i < r->view->n_out; i++)
    TRY(cpu_expect(r, want_out(r, i), s->dtype, &row));
  TRY(cpu_check_norm_attr(r, gradient && (want_in(r, n_in + 2) || want_in(r, n_in + 3))));
  const int64_t rows = cpu_rows(s);
  const uint64_t bytes = (uint64_t)(rows * cpu_last(s)) * cpu_dtype_size(s->dtype);
  if (gradient) {
    r->node->workspace = (uint64_t)rows * 2 * sizeof(double) + 2 * bytes;
    cpu_choose(r, s->dtype, cpu_run_lstm_norm_gates_grad_f32, cpu_run_lstm_norm_gates_grad_f64);
  } else {
    r->node->workspace = want_out(r, 1) ? 0 : bytes;
    cpu_choose(r, s->dtype, cpu_run_lstm_norm_gates_f32, cpu_run_lstm_norm_gates_f64);
  }
  return UNROLL_OK;
}

unroll_status cpu_check_lstm_gates(cpu_resolver *r) {
  TRY(check_lstm_gates(r));
  return check_norm(r, 2, 3, false);
}
unroll_status cpu_check_lstm_gates_grad(cpu_resolver *r) {
  TRY(check_lstm_gates_grad(r));
  return check_norm(r, 4, 2, true);
}
