/* SPDX-License-Identifier: Apache-2.0 */
/*
 * unroll/finite.h: where a computation stopped being finite: layer, direction, step, gate, sequence and unit.
 *
 *     unroll_binding_write(b, "x", x, sizeof x, &err);                  parameters, states and inputs as before the run
 *     unroll_nonfinite at = {.struct_size = sizeof at};
 *     unroll_nonfinite_find(graph, &device, 1, b, NULL, &at, &err);     instead of unroll_run
 *     char text[UNROLL_NONFINITE_TEXT];
 *     if (at.found)
 *       puts(unroll_nonfinite_text(&at, text, sizeof text));            "the cell state of layer 1, reverse, step 37, .."
 *
 * The graph is run once more on the same devices in the same precision, with layers spelled out as products and scans whose
 * every value is looked at, and without its updates, so that nothing that stays between runs is changed. Inside a layer
 * that a device runs as one node there is nothing to read. What its kernel does and what the spelled-out layer does are
 * the same formulas, but sums in another order and other roundings in between: a value within rounding of the largest
 * number may become infinite a step sooner in one of them. Where only the whole layer is not finite, its result y is what
 * is found, and `fused` says so.
 *
 * "First" is in the order of the computation: what was given comes before all; then node by node of the graph, where a
 * layer's direction counts as one, is gone through step by step in its own order, and a step from its pre-activations over
 * its gates to c and h. Within one value of one step the lowest gate comes first, then the lowest sequence, then the lowest
 * unit. What stands past a sequence's end is not looked at.
 */
#ifndef UNROLL_FINITE_H
#define UNROLL_FINITE_H
#include <unroll/runtime.h>
#ifdef __cplusplus
extern "C" {
#endif

#define UNROLL_PHASES(X)                                                     \
  X(UNROLL_PHASE_GIVEN, 0, "given")       /* an input, parameter or state */ \
  X(UNROLL_PHASE_FORWARD, 1, "forward")   /* the network and its loss */     \
  X(UNROLL_PHASE_GRADIENT, 2, "gradient") /* what unroll_vjp made */         \
  X(UNROLL_PHASE_UPDATE, 3, "update")     /* what is made of gradients after */

#define UNROLL_QUANTITIES(X)                                                                                         \
  X(UNROLL_QUANTITY_INPUT, 0, "input")                                                                               \
  X(UNROLL_QUANTITY_PARAMETER, 1, "parameter")                                                                       \
  X(UNROLL_QUANTITY_STATE, 2, "state")                   /* that is carried from run to run, as it was given */      \
  X(UNROLL_QUANTITY_PRE_ACTIVATION, 3, "pre-activation") /* also inside of an activation that is several ops */      \
  X(UNROLL_QUANTITY_GATE, 4, "gate")                     /* after its activation; also a candidate */                \
  X(UNROLL_QUANTITY_CELL, 5, "cell state")                                                                           \
  X(UNROLL_QUANTITY_HIDDEN, 6, "hidden state")                                                                       \
  X(UNROLL_QUANTITY_LOSS, 7, "loss")   /* one number, or one for each step and sequence, of what gradients are of */ \
  X(UNROLL_QUANTITY_VALUE, 8, "value") /* anything else: `op` says what makes it */

enum {
#define UNROLL_FINITE_CODE(name, value, text) name = (value),
  UNROLL_PHASES(UNROLL_FINITE_CODE) UNROLL_PHASE_COUNT = 4,
  UNROLL_QUANTITIES(UNROLL_FINITE_CODE) UNROLL_QUANTITY_COUNT = 9
#undef UNROLL_FINITE_CODE
};
/* "gradient", "cell state"; NULL for a number that is none. Static. [any] */
UNROLL_API const char *unroll_phase_name(int32_t phase);
UNROLL_API const char *unroll_quantity_name(int32_t quantity);

typedef struct unroll_nonfinite {
  uint32_t struct_size;
  int32_t found;     /* 0: all is finite, and the rest but the counts is of no meaning */
  int32_t phase;     /* UNROLL_PHASE_* */
  int32_t quantity;  /* UNROLL_QUANTITY_*; in the gradient: what it is the gradient of */
  int32_t layer;     /* -1: not in a recurrent layer */
  int32_t direction; /* UNROLL_FORWARD, UNROLL_REVERSE; -1: in no recurrence */
  int64_t step;      /* the time step in its sequence, also of a reverse layer, from the run's t0 on; -1: it has none */
  int64_t sequence;  /* the row of the whole batch, from the run's row0 on; -1: it has none */
  int64_t unit;      /* in its gate, or along the last axis; without step and sequence the element, row-major; -1: one
                        number */
  int32_t gate;      /* in the order of the cell's row blocks (nn.h); -1: of none, or of a cell with one */
  int32_t fused;     /* 1: only where the layer runs as one node */
  double value;      /* NaN, infinity or -infinity */
  /* How many numbers are not finite: of what was given, forward and in the gradient; later ones follow from the first. */
  uint64_t given, values, gradients;
  char gate_name[24]; /* "forget gate"; "" without a gate */
  char tensor[64];   /* a parameter's name, also of its gradient where an optimizer of the graph takes it, an input's or
                         state's; else that of the node, as dumps have it */
  char op[32];       /* "lstm_gates"; "" of what was given */
  char context[256]; /* "input gate 1, forget gate 1, cell state before 3.3e+38"; "" where nothing is known */
} unroll_nonfinite;

/*
 * Finds the first number of a run of `graph` that is not finite.
 *
 *   graph    as it was described, with updates and gradients or without; only read
 *   devices  as of unroll_compile
 *   values   a binding of an executable of that graph, or of one with the same inputs, parameters and states: what they hold
 *            is copied. Its states and parameters are those of before the run. What of an input stands past a sequence's
 *            end, or past a run-time size, is not looked at
 *   run      as of unroll_run; NULL likewise
 *   found    the caller's, struct_size set
 *
 * It takes two compilations and, where something is found, two runs; memory for a number for each row of every value, then
 * for all values of the one scan. UNROLL_E_INVALID: something is NULL or too small. UNROLL_E_NOT_FOUND, UNROLL_E_SHAPE:
 * values lacks a tensor, or has another. UNROLL_E_MEMORY, and what unroll_compile and unroll_run return. [obj]
 */
UNROLL_API unroll_status unroll_nonfinite_find(const unroll_graph *graph, unroll_device *const *devices,
                                               uint32_t n_devices, unroll_binding *values,
                                               const unroll_run_options *run, unroll_nonfinite *found,
                                               unroll_error *err);

#define UNROLL_NONFINITE_TEXT 512
/*
 * "the cell state of layer 1, reverse, step 37, sequence 5, unit 12 became inf (input gate 1, forget gate 1, ..)", cut to
 * size bytes; "all numbers are finite" where none was found. Returns text. [any]
 */
UNROLL_API const char *unroll_nonfinite_text(const unroll_nonfinite *found, char *text, size_t size);

#ifdef __cplusplus
}
#endif
#endif
