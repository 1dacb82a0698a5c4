/* SPDX-License-Identifier: Apache-2.0 */
/*
 * unroll/verdict.h: what figures of a recurrent layer say of it, in plain words, with advice. The figures are measured
 * elsewhere (diagnose.h, activity.h); here are the rules alone. The source beside a rule is that of what it looks
 * for; the limits between good, warning and bad are our own choice, which no paper gives.
 *
 * All functions are [any] and touch nothing but their arguments.
 */
#ifndef UNROLL_VERDICT_H
#define UNROLL_VERDICT_H
#include <unroll/graph.h>
#ifdef __cplusplus
extern "C" {
#endif

#define UNROLL_LEVELS(X)                \
  X(UNROLL_LEVEL_GOOD, 0, "good")       \
  X(UNROLL_LEVEL_WARNING, 1, "warning") \
  X(UNROLL_LEVEL_BAD, 2, "bad")
enum {
#define UNROLL_LEVEL_CODE(name, value, text) name = (value),
  UNROLL_LEVELS(UNROLL_LEVEL_CODE)
#undef UNROLL_LEVEL_CODE
      UNROLL_LEVEL_COUNT = 3
};
/* "warning"; NULL for a number that is no level. Static. */
UNROLL_API const char *unroll_level_name(int32_t level);

/* What was measured of a layer in one direction. A NaN, or a count below 0, says that it was not: no rule looks at it. */
typedef struct unroll_layer_figures {
  uint32_t struct_size;
  int32_t cell;      /* UNROLL_CELL_* or UNROLL_RNN_* */
  const char *layer; /* its name, for the texts: "0 forward" */
  int64_t steps;     /* T, over which it is meant to remember */
  double radius;     /* the spectral radius of W_h; of a gated cell that of the candidate's block */
  int64_t memory;    /* steps after which a gradient has shrunk to a hundredth; INT64_MAX: not within those looked at */
  double growth;     /* the largest mean norm of a product of Jacobians over up to T steps, 1 at none */
  double saturated;  /* of a tanh or sigmoid rnn's state, of a gated cell's candidate: the share of values at its
                           ends, where little gradient flows: a sigmoid's below 0.1 or above 0.9 (Karpathy, Johnson,
                           Li 2016, of gates), a tanh's past ±0.9 (ours: its slope is below 0.19 of 1 there) */
  const char *saturated_gate;
  double dead;          /* share of ReLU units that were never active */
  double time_constant; /* the largest of a unit's τ = -1/ln f, f what it keeps of its state in a step: an lstm's forget
                           gate, a gru's z, .. (unroll_gate.keeps) */
  double exponent, exponent_error; /* the largest Lyapunov exponent, nats a step, and its standard error */
  int64_t nonfinite;               /* numbers that were not finite: weights, values, gradients */
  const char *nonfinite_first;     /* the first one as a sentence (unroll_nonfinite_text), or NULL */
} unroll_layer_figures;
/* All of them not measured. */
UNROLL_API unroll_layer_figures unroll_layer_figures_none(void);

typedef struct unroll_finding {
  int32_t level; /* UNROLL_LEVEL_* */
  int32_t reserved;
  const char *what; /* "vanishing", "exploding", "saturated", "dead", "chaotic", "marginal", "nonfinite", "forgetful",
                       "remembers"; static */
  double figure;    /* the one that the rule looked at */
  char text[320], advice[320];
} unroll_finding;
#define UNROLL_MOST_FINDINGS 9 /* of a layer */

/*
 * The findings of a layer into findings [UNROLL_MOST_FINDINGS], the gravest first; how many. T is `steps`.
 *
 *   nonfinite   any: bad
 *   exploding   growth above 100: bad; above 10: warning (Pascanu, Mikolov, Bengio 2013, sec. 2.1: that products of
 *               Jacobians grow and vanish like powers)
 *   vanishing   memory below T/4: bad; below T: warning (Bengio, Simard, Frasconi 1994; Hochreiter 1991)
 *   forgetful   time constant below T/4, unless memory is at least T: warning (Tallec & Ollivier 2018, sec. 1 and 2: a unit
 *               whose gate takes the share g of what is new remembers for about 1/g steps; -1/ln(1-g) is that for small g)
 *   dead        above 0.5: bad; above 0.1: warning (Lu et al. 2020 call a ReLU dead that gives 0 for any input; here, for
 *               any input that it was shown)
 *   saturated   above 0.8: bad; above 0.5: warning
 *   chaotic     exponent above 1e-3 and above 3 standard errors: warning (Engelken, Wolf, Abbott 2023: above 0 is chaos)
 *   marginal    |exponent| at most 3 standard errors or 1e-3: good, at the edge of chaos
 *   remembers   memory of at least T, growth not above 10, all numbers finite: good
 */
UNROLL_API uint32_t unroll_layer_verdict(const unroll_layer_figures *figures, unroll_finding *findings);

#ifdef __cplusplus
}
#endif
#endif
