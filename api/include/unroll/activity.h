/* SPDX-License-Identifier: Apache-2.0 */
/*
 * unroll/activity.h: what goes on inside a recurrent layer: gates and states of every step, and how far a matrix is from
 * a normal one.
 *
 * On the host, in double, whatever device the network runs on. Statuses beside those named: UNROLL_E_INVALID (something
 * is NULL or out of its range), UNROLL_E_MEMORY, UNROLL_E_RANGE.
 */
#ifndef UNROLL_ACTIVITY_H
#define UNROLL_ACTIVITY_H
#include <unroll/diagnose.h>
#ifdef __cplusplus
extern "C" {
#endif

/* What a layer may have beside its weights; formulas stand at unroll_rnn_options (nn.h). Pointers may be NULL: it has none. */
typedef struct unroll_cell_extras {
  uint32_t struct_size;
  int32_t linear;                /* not 0: of an rnn, no activation: h = a */
  const double *p_i, *p_f, *p_o; /* [H] peepholes of an lstm: all three or none */
  const double *ln_x, *ln_h;     /* [GH] gains of layer norm: both or none; an lstm's want ln_c, ln_s too */
  const double *ln_c, *ln_s;     /* [H] */
  double epsilon;                /* of layer norm; 0: 1e-5 */
  double zoneout_h, zoneout_c;   /* by expectation: p·old + (1-p)·new */
} unroll_cell_extras;

/*
 * Gates and states of one sequence, weights->x of weights->steps steps, none of them passed over. A number that is not
 * finite is no error: it is written as it is, and so is what follows from it.
 *   extras  NULL: none
 *   first   [n] the state before the first step, h [H], of an lstm h and c [2H]; NULL: zeros
 *   gates   [steps,G,H] after their activations, in the order of W_h's row blocks: rnn h; lstm i f g o; gru r z n. May be
 *           NULL
 *   states  [steps,n] after each step. May be NULL
 * [any]
 */
UNROLL_API unroll_status unroll_cell_trace(const unroll_cell_weights *weights, const unroll_cell_extras *extras,
                                           const double *first, double *gates, double *states, unroll_error *err);

/*
 * The map of its state, as unroll_map_of_cell makes it, with extras (NULL: none) and the Jacobian by its formulas. For cells
 * without layer norm and peepholes unroll_map_of_cell is quicker. weights->x, where not NULL, of `steps` steps goes round. All
 * arrays stay the caller's and outlive the map; the structs are copied. [any]
 */
UNROLL_API unroll_status unroll_map_of_layer(const unroll_cell_weights *weights, const unroll_cell_extras *extras,
                                             const unroll_allocator *allocator, unroll_map **map, unroll_error *err);

/*
 * How far a [n,n] is from a normal matrix: sqrt(‖a‖_F² - Σ|λ|²) (Henrici 1962), 0 of a normal one. Where it is large, powers
 * of a grow before they follow the spectral radius. real and imaginary [n] are unroll_eigenvalues'. [any]
 */
UNROLL_API unroll_status unroll_departure_from_normality(const double *a, int64_t n, const double *real,
                                                         const double *imaginary, double *departure, unroll_error *err);

#ifdef __cplusplus
}
#endif
#endif
