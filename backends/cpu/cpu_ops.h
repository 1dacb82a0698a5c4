/* SPDX-License-Identifier: Apache-2.0 */
/* The loops, as resolve*.c names them. */
#ifndef CPU_OPS_H
#define CPU_OPS_H
#include "cpu.h"

/* Elementwise. The kernel of a kind for a dtype, or NULL where there is none. */
void cpu_run_map(const cpu_call *c);
cpu_map_fn cpu_copy_kernel(uint32_t elem_bytes);
cpu_map_fn cpu_select_kernel(uint32_t elem_bytes);
cpu_map_fn cpu_unary_kernel(int32_t kind, int32_t dtype);
cpu_map_fn cpu_binary_kernel(int32_t kind, int32_t dtype);
cpu_map_fn cpu_cast_kernel(int32_t from, int32_t to);
cpu_map_fn cpu_constant_kernel(int32_t dtype);

/* Any dtype, moved by its size. */
void cpu_run_pad(const cpu_call *c);
void cpu_run_concat(const cpu_call *c);
void cpu_run_reverse(const cpu_call *c);
void cpu_run_length_mask(const cpu_call *c);

cpu_run_fn cpu_reduce_run(int32_t dtype);

#define CPU_EMBEDDING_COLUMNS 16 /* columns of a table whose gradient is summed at a time, in double */
#define CPU_REAL_OPS(X)   \
  X(matmul)               \
  X(softmax)              \
  X(log_softmax)          \
  X(cross_entropy)        \
  X(cross_entropy_grad)   \
  X(embedding)            \
  X(embedding_grad)       \
  X(gather)               \
  X(gather_grad)          \
  X(top_k)                \
  X(linear_scan)          \
  X(linear_scan_grad)     \
  X(layer_norm)           \
  X(layer_norm_grad)      \
  X(lstm_norm_gates)      \
  X(lstm_norm_gates_grad) \
  X(dropout)              \
  X(random)               \
  X(argmax)               \
  X(categorical)          \
  X(optimizer)            \
  X(lstm_gates)           \
  X(lstm_gates_grad)      \
  X(gru_after_gates)      \
  X(gru_after_gates_grad) \
  X(gru_reset)            \
  X(gru_reset_grad)       \
  X(gru_update)           \
  X(gru_update_grad)
#define CPU_DECLARE_OP(name)                    \
  void cpu_run_##name##_f32(const cpu_call *c); \
  void cpu_run_##name##_f64(const cpu_call *c);
CPU_REAL_OPS(CPU_DECLARE_OP)
#undef CPU_DECLARE_OP
#endif
