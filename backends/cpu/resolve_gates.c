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

#define CHECK_GATES(name, state, n_in, n_out, ...)                                       \
  unroll_status cpu_check_##name(cpu_resolver *r) {                                      \
    static const int64_t blocks[] = {__VA_ARGS__};                                       \
    TRY(check_blocks(r, state, blocks, n_in, blocks + (n_in), n_out));                   \
    cpu_choose(r, want_in(r, state)->dtype, cpu_run_##name##_f32, cpu_run_##name##_f64); \
    return UNROLL_OK;                                                                    \
  }

/* clang-format off */
/*          op                    state in out  blocks of the inputs  of the outputs */
CHECK_GATES(lstm_gates,           1,    2, 3,   4, 1,                 1, 1, 4)
CHECK_GATES(lstm_gates_grad,      1,    4, 2,   4, 1, 1, 1,           4, 1)
CHECK_GATES(gru_after_gates,      2,    3, 2,   3, 3, 1,              1, 4)
CHECK_GATES(gru_after_gates_grad, 1,    3, 3,   4, 1, 1,              3, 3, 1)
CHECK_GATES(gru_reset,            1,    2, 2,   2, 1,                 2, 1)
CHECK_GATES(gru_reset_grad,       1,    4, 2,   2, 1, 2, 1,           2, 1)
CHECK_GATES(gru_update,           2,    3, 2,   1, 2, 1,              1, 1)
CHECK_GATES(gru_update_grad,      2,    4, 3,   2, 1, 1, 1,           1, 2, 1)
/* clang-format on */
