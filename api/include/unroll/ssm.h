/* SPDX-License-Identifier: Apache-2.0 */
/*
 * unroll/ssm.h: state-space models and neural autoregression as graphs, with gradients. Filters on the host stand in
 * series.h.
 *
 *     const unroll_ssm in = {.struct_size = sizeof in, .u = u, .A = A, .B = B, .C = C, .D = D, .lengths = lengths};
 *     const unroll_ssm_outputs out = unroll_ssm_dense(&in, UNROLL_FORWARD);
 *
 * The calls add nodes to the graph of their operands, and on misuse that graph keeps the first error, as in graph.h. T may
 * be a run-time size. All tensors are of one dtype, f32 or f64. [obj]
 */
#ifndef UNROLL_SSM_H
#define UNROLL_SSM_H
#include <unroll/graph.h>
#ifdef __cplusplus
extern "C" {
#endif

/*
 * The linear state-space model, of T steps, a batch of S sequences, N states, M inputs and P outputs:
 *
 *     x_t = A_t x_{t-1} + B u_t + w_t
 *     y_t = C_t x_t + D u_t + v_t
 *
 * A and C may be the F_t and H_t of a model that varies with time, w and v its noise, of unroll_noise say.
 */
typedef struct unroll_ssm {
  uint32_t struct_size, reserved;
  unroll_tensor A;       /* [N,N]; [T,N,N]: one a step; [T,S,N,N]: one a step and sequence */
  unroll_tensor C;       /* [P,N]; [T,P,N]; [T,S,P,N] */
  unroll_tensor u, B, D; /* [T,S,M], [N,M], [P,M]; u and B none: without input; D none: 0 */
  unroll_tensor w, v;    /* [T,S,N], [T,S,P]; none: 0 */
  unroll_tensor x0;      /* [S,N], the state before the first step; none: 0 */
  unroll_tensor lengths; /* i32 [S], or none */
} unroll_ssm;
typedef struct unroll_ssm_outputs {
  unroll_tensor y;      /* [T,S,P], 0 past a sequence's end */
  unroll_tensor x;      /* [T,S,N], likewise */
  unroll_tensor x_last; /* [S,N] after each sequence's last step */
} unroll_ssm_outputs;
/*
 * direction UNROLL_REVERSE runs from each sequence's last step to its first: x_t = A_t x_{t+1} + ..., x_last after t = 1. At
 * least one of u and w is there. The products with B, C and D are taken of all steps at once; those with A step by step.
 * UNROLL_E_INVALID: A, C, or both of u and w missing, u without B; UNROLL_E_SHAPE.
 */
UNROLL_API unroll_ssm_outputs unroll_ssm_dense(const unroll_ssm *in, int32_t direction);

/*
 * Normal noise [T,S,N] with mean 0 and covariance L·Lᵀ at every step and sequence, independent otherwise. L [N,N] is a
 * Cholesky factor, say; its gradient flows, the random numbers' site is that of one unroll_random. T may be what
 * unroll_graph_dim gave.
 */
UNROLL_API unroll_tensor unroll_noise(unroll_tensor L, int64_t T, int64_t S);

/*
 * M independent channels of N states each, with a diagonal transition (S4D; Gu, Goel, Gupta & Ré 2022), real:
 *
 *     x_t[m,n] = a[m,n] x_{t-1}[m,n] + b[m,n] u_t[m]
 *     y_t[m]   = Σ_n c[m,n] x_t[m,n] + d[m] u_t[m]
 *
 * by unroll_linear_scan, in parallel over time. a, b and c may be given for each step and sequence (selective models; Gu &
 * Dao 2023).
 */
typedef struct unroll_diagonal_ssm {
  uint32_t struct_size, reserved;
  unroll_tensor u;       /* [T,S,M] */
  unroll_tensor a, b, c; /* each [M,N] or [T,S,M,N] */
  unroll_tensor d;       /* [M]; none: 0 */
  unroll_tensor x0;      /* [S,M,N]; none: 0 */
  unroll_tensor lengths; /* i32 [S], or none */
} unroll_diagonal_ssm;
/* y [T,S,M], x [T,S,M,N], x_last [S,M,N]; otherwise as unroll_ssm_dense. */
UNROLL_API unroll_ssm_outputs unroll_ssm_diagonal(const unroll_diagonal_ssm *in, int32_t direction);

enum {
  UNROLL_ZERO_ORDER_HOLD = 0, /* a = exp(ΔA), b = (exp(ΔA) - 1)/A · B: u is constant between samples */
  UNROLL_BILINEAR = 1         /* a = (1 + ΔA/2)/(1 - ΔA/2), b = Δ/(1 - ΔA/2) · B (Tustin 1947) */
};
/*
 * The steps a, b [M,N] of the continuous diagonal system x' = A x + B u, sampled every Δ (S4D, section 3.2). A, B [M,N],
 * dt [M]. A below 0 is stable: -exp(θ) of a parameter θ; S4D-Real starts with A[m,n] = -(n+1), n from 0. The first wants
 * A other than 0, the second ΔA other than 2.
 */
UNROLL_API void unroll_discretize(unroll_tensor A, unroll_tensor B, unroll_tensor dt, int32_t method, unroll_tensor *a,
                                  unroll_tensor *b);

/*
 * Neural autoregression: x [p,S,1], the p values before, the oldest first (unroll_windows_fill in series.h), gives
 * f(x_{t-1}, ..., x_{t-p}) [S,1]. cell UNROLL_CELL_NONE: PREFIX.hidden, a linear layer of all p with `hidden` units, tanh,
 * and PREFIX.out, linear; another UNROLL_CELL_*: PREFIX.rnn, one recurrent layer over the window, and PREFIX.out of its last
 * state. UNROLL_E_SHAPE: x is no [p,S,1], or p a run-time size. Parameters are made as in nn.h.
 */
UNROLL_API unroll_tensor unroll_neural_ar(unroll_tensor x, const char *prefix, int32_t cell, int64_t hidden);

#ifdef __cplusplus
}
#endif
#endif
