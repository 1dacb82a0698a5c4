/* SPDX-License-Identifier: Apache-2.0 */
/*
 * unroll/flow.h: how gradients flow through a stack of recurrent layers: their norms by step, the products of Jacobians by
 * lag, and the singular values of these.
 *
 *     const unroll_network net = {.struct_size = sizeof net, .options = &rnn, .input = I, .weights = w, .n_weights = n};
 *     const unroll_flow_batch batch = {.struct_size = sizeof batch, .steps = T, .batch = B, .x = x, .dy = dy};
 *     unroll_flow *flow;
 *     unroll_flow_measure(&net, &batch, NULL, &flow, &err);
 *     ... flow->layers[0].norm[t], flow->layers[0].product[k], flow->layers[0].sigma[i] ...
 *     unroll_flow_free(flow);
 *
 * What a step of a layer and direction hands on is its state s_t: h_t, of an LSTM (h_t, c_t). With the layer's inputs as
 * they are, J_k = ∂s_e/∂s_{e-k} is the product of k Jacobians that a gradient from step e passes on its way back k steps, e
 * being a sequence's last step: of a reverse direction its first one, as "before" is there what was computed before. All
 * of it is measured in graphs, through whatever cell and options the layers have, on any device, in f64 unless asked
 * otherwise. J_k is never formed, but where unroll_flow_jacobian is asked to.
 *
 * Every function is [any], but for devices and callbacks of the caller's.
 */
#ifndef UNROLL_FLOW_H
#define UNROLL_FLOW_H
#include <unroll/network.h>
#include <unroll/runtime.h>
#ifdef __cplusplus
extern "C" {
#endif

/* A loss on the last layer's outputs y [T,B,D·P]: build returns a scalar of y's graph, which keeps errors; fill, which may be
 * NULL, writes what build has added of inputs and parameters. */
typedef struct unroll_flow_loss {
  unroll_tensor (*build)(void *ctx, unroll_tensor y);
  unroll_status (*fill)(void *ctx, unroll_binding *binding, unroll_error *err);
  void *ctx;
} unroll_flow_loss;

typedef struct unroll_flow_batch {
  uint32_t struct_size, reserved;
  int64_t steps, batch;         /* T, at least 2, and B */
  const double *x;              /* [T,B,I] */
  const int32_t *lengths;       /* [B], from 1 to T; NULL: all T */
  const double *dy;             /* [T,B,D·P], ∂L/∂y; or */
  const unroll_flow_loss *loss; /* L itself. Neither: L is the sum of each sequence's last states h of the last layer */
} unroll_flow_batch;

/* Which part of an LSTM's state J_k is of: the rest of it starts undisturbed and is not read. */
enum { UNROLL_FLOW_STATE = 0, UNROLL_FLOW_ONLY_H = 1, UNROLL_FLOW_ONLY_C = 2 };

typedef struct unroll_flow_options { /* zero: as said */
  uint32_t struct_size;
  int32_t dtype;         /* UNROLL_F64 (0), or UNROLL_F32, where squares below 1e-38 are lost */
  unroll_device *device; /* NULL: the cpu reference, in a context of its own */
  int32_t part;          /* UNROLL_FLOW_* */
  int32_t probes;        /* random vectors a sequence, for the products; 0: 1; below 0: no products */
  const int64_t *lags;   /* of the singular values, each from 1 to the longest sequence's steps - 1; NULL: a dozen */
  int32_t n_lags;        /* of them; with lags NULL at most so many, 0: 12, below 0: no singular values. At most 4096 */
  int32_t spectrum;      /* below 0: no rho, norm_W and condition, which take LAPACK a few H³ */
  int32_t iterations;    /* of Lanczos, at most; 0: as many as keep the cost near 40 updates, from 6 to 30 */
  int64_t sequences;     /* the longest so many are looked at for singular values; 0: max(1, B/8) */
  double tolerance;      /* iterations end where σ's error is below this, relative; 0: 1e-4 */
  double threshold;      /* of the memory; 0: 0.01 */
  uint64_t seed;         /* of the random vectors */
  /* NULL, or rho and norm_W of every layer and direction, [layers·D,2], where they are known: none is computed. NaN: not
   * known. */
  const double *spectra;
  int (*cancel)(void *ctx); /* asked before every run of a graph; not 0: UNROLL_E_CANCELLED. NULL: nobody is asked */
  void *ctx;
} unroll_flow_options;

/*
 * A layer in one direction. Lag k is the number of steps gone back. Numbers may be inf or NaN where the network's are; NaN
 * stands for what was not measured.
 */
typedef struct unroll_flow_layer {
  int32_t layer, direction; /* direction 1: reverse */
  int64_t n_lags;           /* of product: T */
  int64_t n_sigma;
  /* ‖∂L/∂h_t‖₂ over the units, [T]: the mean and the largest of the sequences that have a step t; of an LSTM with c_t as it
   * is. And of c_t with h_t as it is, NULL without c. */
  const double *norm, *norm_max, *c_norm, *c_norm_max;
  /*
   * [T]: the root of the mean of ‖J_kᵀu‖² over sequences and random unit vectors u: that of a sequence estimates
   * ‖J_k‖_F/√N without bias in its square, N the size of s (Hutchinson 1990). product[0] is 1.
   */
  const double *product;
  /* [n_sigma]: the lags, and the largest singular value of J_k, its mean and the largest of the sequences, and a bound of
   * its relative error, the worst of the sequences: by Lanczos's iteration of JᵀJ (Golub & Van Loan 2013, ch. 10), products
   * with vectors by one tangent and one gradient pass, of all sequences and of lags of like sizes at once, orthogonalised
   * in full. */
  const int64_t *sigma_lag;
  const double *sigma, *sigma_max, *sigma_error;
  /*
   * The text's condition, λ_max·max|f'| = rho·slope: of vanilla RNNs, whose W_h these are of; slope 1 for tanh, relu and the
   * identity, 1/4 for sigmoid. Of gated cells rho and norm_W are of the block of the candidate (lstm g, gru n), condition
   * is NaN. NaN also without W_h, or without a W_h that is square and finite, or without LAPACK (diagnose.h), or where
   * `spectrum` says no.
   */
  double rho, norm_W, slope, condition;
  double slope_mean, slope_max; /* of f at the visited states, where f is tanh, sigmoid or relu; else NaN */
  double rate;                  /* product[k]^(1/k) at the largest lag at which product is above 0 */
  /*
   * The effective memory: the first lag at which product is below the threshold, -1: there is none in T, or product is NaN
   * before. 0.01 is what verdicts (verdict.h) are about: the 1% settling time of a system, 4.6 time constants where it
   * decays evenly (Franklin, Powell, Emami-Naeini, Feedback Control of Dynamic Systems, on time-domain specifications).
   * 1/e gives one time constant, over which a third of a gradient is left, and that is no sign of one that has vanished:
   * of a leaky unit h = (1-a)·h₋ + .. about 1/a, what Tallec & Ollivier 2018, sec. 1, call its characteristic forgetting
   * time.
   */
  int64_t memory;
  const char *why; /* in a sentence or two: condition and measurement, and where they differ, why */
} unroll_flow_layer;

typedef struct unroll_flow {
  uint32_t struct_size;
  uint32_t n_layers; /* layers·D, layer l and direction d at [l·D + d] */
  int64_t steps;     /* T */
  const unroll_flow_layer *layers;
} unroll_flow;

/*
 * All of it. One run gives the norms; for products and singular values each layer and direction is looked at alone.
 *   UNROLL_E_CANCELLED  `cancel` said so: *flow is what there is by then, singular values that are not NaN; or NULL, where the
 *                       norms and products were not through
 *   UNROLL_E_INVALID    something is NULL or too small; a weight is missing or of another size (it is named)
 *   UNROLL_E_RANGE      a number of the options, a length or a lag out of its range; T < 2; x is not finite
 *   UNROLL_E_UNSUPPORTED, .. as building, compiling and running the graph have it; UNROLL_E_MEMORY
 * Freed with unroll_flow_free.
 */
UNROLL_API unroll_status unroll_flow_measure(const unroll_network *network, const unroll_flow_batch *batch,
                                             const unroll_flow_options *options, unroll_flow **flow, unroll_error *err);
UNROLL_API void unroll_flow_free(unroll_flow *flow); /* NULL does nothing */

/*
 * The whole matrix J_k = ∂s_e/∂s_{e-k} [N,N] of one sequence in jacobian, N = P, of an LSTM P + H (h first), or what part
 * says: by N gradient passes at once, so for small N. Statuses as above; UNROLL_E_RANGE also where layer, direction,
 * sequence, or lag is not there, or `count` is not N². Of a cancelled call nothing is left.
 */
UNROLL_API unroll_status unroll_flow_jacobian(const unroll_network *network, const unroll_flow_batch *batch,
                                              const unroll_flow_options *options, int32_t layer, int32_t direction,
                                              int64_t sequence, int64_t lag, double *jacobian, uint64_t count,
                                              unroll_error *err);

#ifdef __cplusplus
}
#endif
#endif
