/* SPDX-License-Identifier: Apache-2.0 */
/*
 * unroll/cost.h: what a network costs: arithmetic, bytes, parameters, and memory as a function of the number of time steps.
 *
 *     unroll_cost cost = {.struct_size = sizeof cost};
 *     unroll_cost_of_graph(graph, NULL, 0, &cost, &err);
 *     ... cost.total.flops, cost.of[UNROLL_OP_MATMUL].read, cost.parameters ...
 *
 * One convention, for every number here. It follows from shapes alone, never from values, and counts what the formulas of
 * plugin.h say, whatever a device does instead.
 *
 *   flops           of real numbers: an addition, subtraction, multiplication, division, comparison, maximum, minimum,
 *                   negation, magnitude, sign: 1 each, so that a product of M×K by K×N is 2·M·N·K. A sum of n
 *                   numbers is n, as is the largest of n. Numbers that an attribute alone gives, such as 1-beta2, are free.
 *   transcendental  exp, log, tanh, the logistic function, square roots and powers: 1 each, and no part of flops.
 *   neither         integers and bools; random bits, and what samples are chosen by; copies, casts, selections.
 *   read            bytes of a node's inputs, each input whole and once, whatever a cache holds: the least that a device moves
 *                   which runs one node after the other. Of a slice, what is sliced out; of a table or a row that ids look up in,
 *                   what each id names; LINEAR_SCAN_GRAD's y but one step.
 *   written         bytes of a node's outputs, but those that nobody reads.
 *   views           reshapes and slices of axis 0 move nothing.
 *   scans           a node of the body counts once a step, and so do its operands: weights too.
 *   layers          count as the products, scans and gates that they are lowered to.
 *   ragged batches  every sequence counts T steps: steps past a sequence's end are run, and masked. So do targets that are
 *                   ignored.
 *   the host        feeding inputs, first states copied into a scan, copies between devices: not counted.
 *
 * Statuses beside those named: UNROLL_E_INVALID (something is NULL or too small), UNROLL_E_MEMORY.
 */
#ifndef UNROLL_COST_H
#define UNROLL_COST_H
#include <unroll/classify.h>
#include <unroll/forecast.h>
#include <unroll/translate.h>
#ifdef __cplusplus
extern "C" {
#endif

typedef struct unroll_cost_count {
  int64_t runs; /* of nodes */
  int64_t flops, transcendental;
  int64_t read, written; /* bytes */
} unroll_cost_count;

#define UNROLL_COST_OPS 64 /* room for ops to come */
typedef struct unroll_cost {
  uint32_t struct_size, reserved;
  unroll_cost_count total;
  unroll_cost_count of[UNROLL_COST_OPS]; /* by UNROLL_OP_* */
  int64_t parameters, parameter_bytes;   /* of all tensors of the role UNROLL_ROLE_PARAM */
} unroll_cost;

/*
 * One run of a graph. What no output and no update needs is not run, and costs nothing. dims: a value for each run-time size,
 * in order of their creation; NULL: their maxima.
 *   UNROLL_E_RANGE  a run-time size outside of its bounds; a number that does not fit into 64 bits, with the node's name
 *   the graph's own first error
 * [obj] in the graph
 */
UNROLL_API unroll_status unroll_cost_of_graph(const unroll_graph *graph, const int64_t *dims, uint32_t n_dims,
                                              unroll_cost *cost, unroll_error *err);
/* "matmul"; NULL for a number that is no op. Static. [any] */
UNROLL_API const char *unroll_cost_op_name(uint32_t op);

/*
 * The parameters of a stack of recurrent layers over inputs of that width, all layers and directions, and how they come about,
 * such as "4·(n_h + n_x + 1)·n_h". The textbook's counts are n_h·(n_h + n_x + 1) for each gate: 1 of them for an rnn, 4 for an
 * lstm, 3 for a gru. What differs is written out: gru_after has n_h more, a second bias inside of its reset gate's product;
 * PyTorch's layers have two biases everywhere, so gates·n_h more than these. formula may be NULL; it is cut to `room` bytes
 * with its zero, and is that of layer 0 in one direction where there are several.
 *   UNROLL_E_RANGE  a size below 1, or a count that does not fit into 64 bits
 *   what unroll_rnn says of such options
 * [any]
 */
UNROLL_API unroll_status unroll_cost_of_rnn_parameters(const unroll_rnn_options *rnn, int64_t input,
                                                       int64_t *parameters, char *formula, uint32_t room,
                                                       unroll_error *err);

/* ---- memory, as a function of T ---- */

typedef struct unroll_cost_memory_options {
  uint32_t struct_size;
  int32_t dtype;                 /* UNROLL_F32 or UNROLL_F64 */
  const unroll_rnn_options *rnn; /* a stack of LAYER nodes, as unroll_rnn_checkpoint_sizes wants it */
  int64_t batch;
  int64_t k1, k2; /* truncated BPTT: after each k1 steps back through k2 (Williams & Peng 1990). k2 0: T; k1 0: k2 */
  const unroll_checkpoint_policy *checkpoint; /* NULL: UNROLL_CHECKPOINT_SQRT */
  int64_t heads;                              /* of the Transformer's attention; 0: one for each 64 units, at least 1 */
} unroll_cost_memory_options;

/*
 * Bytes that are kept for the gradient, without parameters and their optimizer, inputs, y and its gradient:
 *   bptt          standard saved values of all T steps (plugin.h, LAYER), the gradients of one layer's gates, and a state
 *   truncated     the same of min(k2, T) steps: it does not grow with T any more
 *   checkpointed  the plan of checkpoint.h; forward_steps of it are made in all, of a whole T
 *   transformer   as many layers of the same width n = n_h·directions, without any of it made again: T·B·n·(16e + 2) +
 *                 a·T²·B·(2e + 1) bytes a layer, with e bytes a number and masks of one byte: attention (5e + 1 and what grows
 *                 with T²), a perceptron of 4n units and GELU (9e + 1), two layer norms (2e), as Korthikanti et al. 2022,
 *                 §4.1, count them for e = 2: T·B·n·(34 + 5·a·T/n), their eq. 1
 *   attention     of these, what grows with T²: scores of a heads, twice, and a mask of dropout
 */
typedef struct unroll_cost_memory {
  uint32_t struct_size, reserved;
  int64_t steps; /* T */
  int64_t bptt, truncated, checkpointed, transformer, attention;
  int64_t truncated_steps;     /* that truncated BPTT walks forward in all: k2 of each window, at most T */
  int64_t checkpointed_steps;  /* likewise; T without checkpoints */
  int64_t checkpoint_interval; /* steps of a segment */
} unroll_cost_memory;

/*
 * For each of n numbers of time steps, in memory[0..n-1] whose struct_size is set by the caller in memory[0].
 *   UNROLL_E_RANGE        T, batch, k1 or k2 below 1, k1 above k2, heads that do not divide the width; bytes that do not fit
 *                         into 64 bits; a policy's budget below the least that a plan takes
 *   UNROLL_E_UNSUPPORTED  options that make a scan of a layer, whose saved values are those of its body
 * [any]
 */
UNROLL_API unroll_status unroll_cost_of_memory(const unroll_cost_memory_options *options, const int64_t *steps,
                                               uint32_t n, unroll_cost_memory *memory, unroll_error *err);

/* ---- models ---- */

/* The recurrent layers that a model's steps go through first, and for how many of them costs were asked. */
typedef struct unroll_cost_layers {
  uint32_t struct_size, reserved;
  int64_t steps, batch;
  int64_t input;          /* numbers that the first layer reads a step */
  unroll_rnn_options rnn; /* of a translator its encoder; what decodes is a scan beside it */
} unroll_cost_layers;

/*
 * Of one batch of that many sequences of that many steps, a whole text's stream being one sequence; of a translator sources
 * and targets. steps, batch 0: as the model is trained, which for a classifier and a translator means its longest sequences.
 *
 *   forward  the loss as an evaluation computes it, without dropout
 *   update   a whole update: loss, gradients, clipping, optimizer. What it takes beyond forward is the way back
 *
 * Those of the two that are NULL are not asked for, nor is layers. Truncation inside of a batch is not looked at: each of its
 * steps goes forward and back once. Nor is REINFORCE.
 *   UNROLL_E_RANGE  steps or batch below 0 or above 2^31 - 1, and what unroll_cost_of_graph says
 * [obj] in the model
 */
UNROLL_API unroll_status unroll_cost_of_lm(const unroll_lm *lm, int64_t steps, int64_t batch, unroll_cost *forward,
                                           unroll_cost *update, unroll_cost_layers *layers, unroll_error *err);
UNROLL_API unroll_status unroll_cost_of_classifier(const unroll_classifier *classifier, int64_t steps, int64_t batch,
                                                   unroll_cost *forward, unroll_cost *update,
                                                   unroll_cost_layers *layers, unroll_error *err);
UNROLL_API unroll_status unroll_cost_of_forecaster(const unroll_forecaster *forecaster, int64_t steps, int64_t batch,
                                                   unroll_cost *forward, unroll_cost *update,
                                                   unroll_cost_layers *layers, unroll_error *err);
UNROLL_API unroll_status unroll_cost_of_translator(const unroll_translator *translator, int64_t steps, int64_t batch,
                                                   unroll_cost *forward, unroll_cost *update,
                                                   unroll_cost_layers *layers, unroll_error *err);

#ifdef __cplusplus
}
#endif
#endif
