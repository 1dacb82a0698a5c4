/* SPDX-License-Identifier: Apache-2.0 */
/* nn_private.h: what the layers share. */
#ifndef NN_PRIVATE_H
#define NN_PRIVATE_H
#include "graph/graph_private.h"
#include <unroll/seq2seq.h>

/*
 * The parameter "PREFIX.what" of the graph, or of the graph around it where that is a body: the one that is there already,
 * which must have this dtype and shape, else a new one.
 */
unroll_tensor nn_param(unroll_graph *graph, const char *prefix, const char *what, int32_t dtype, int32_t rank,
                       const int64_t *shape);
/* The same for "PREFIX.what.layer.direction". */
unroll_tensor nn_layer_param(unroll_graph *graph, const char *prefix, const char *what, int32_t layer,
                             int32_t direction, int32_t dtype, int32_t rank, const int64_t *shape);
/* The factor of unroll_clip_global_norm for a norm []. */
unroll_tensor nn_clip_factor(unroll_tensor norm, double max_norm);

/* Is it no tensor, or is its graph in error? Nothing may then be asked of it. */
static inline bool nn_lost(unroll_tensor x) { return !x.graph || graph_failed(x.graph); }

/* nn_pieces.c */
unroll_tensor nn_scalar(unroll_tensor like, double value); /* [], of like's dtype, in its graph */
unroll_tensor nn_filled(unroll_graph *graph, int32_t dtype, int32_t rank, const int64_t *shape, double value);
unroll_tensor nn_iota(unroll_graph *graph, int64_t n); /* i32 [n]: 0, 1, .. */
unroll_tensor nn_reshape(unroll_tensor x, int32_t rank, const int64_t *shape);
/* i32 [B] -> bool [B,n]: position < length */
unroll_tensor nn_valid(unroll_tensor lengths, int64_t n);
/* log Σ exp over one axis, which goes; of numbers that are all below -1e29 about that again */
unroll_tensor nn_log_sum_exp(unroll_tensor x, int32_t axis);
/* What stands for the logarithm of 0 where a gradient flows: -infinity would make NaN. */
#define NN_LOG_ZERO (-1e30)
/* A number of steps, at least 1 or a run-time size; keeps the error. */
bool nn_check_steps(unroll_graph *graph, const char *who, int64_t steps);
/* Is lengths i32 [B]? Keeps the error. */
bool nn_check_lengths(unroll_graph *graph, const char *who, unroll_tensor lengths, int64_t batch);

/* nn_options.c: the options of unroll_rnn, checked, with what follows from them */
typedef struct nn_rnn {
  unroll_rnn_options o; /* what the caller's struct is too short for is zero; dropouts are 0 with inference */
  int32_t family;       /* UNROLL_CELL_*; UNROLL_CELL_NONE of min cells */
  bool coupled;
  int64_t G, H, P;
  unroll_activation f, g, h;       /* no DEFAULT among them */
  bool standard;                   /* the gates are those of LSTM_GATES and the like */
  bool layer;                      /* a LAYER node has a notion of all of it */
  unroll_checkpoint_policy policy; /* with checkpoints: of the stack, or of a layer and direction */
  bool stack;                      /* with checkpoints: the segments go through all layers */
} nn_rnn;
/* The option that makes a scan of a layer; NULL: it is a LAYER. */
const char *nn_scan_option(const unroll_rnn_options *options);
/* who begins the message. */
bool nn_rnn_check(unroll_graph *g, const char *who, const unroll_rnn_options *options, nn_rnn *r);

/*
 * nn_reinforce.c: unroll_reinforce_update up to the learner's run. baselines [B]: NULL: the mean reward so far. steps not
 * NULL: the learner's T is a run-time size, and as many steps are written as the longest sequence has.
 */
unroll_status nn_reinforce_prepare(unroll_reinforce *reinforce, const unroll_run_options *options,
                                   const float *baselines, int64_t *steps, double *mean_reward, unroll_error *err);

/* nn_activations.c */
/* bias: modReLU's, else none. x may stand in a body. */
unroll_tensor nn_activate(unroll_tensor x, const unroll_activation *a, double clip, unroll_tensor bias);
unroll_tensor nn_bound(unroll_tensor x, double limit); /* to [-limit, limit]; 0: x itself */
unroll_tensor nn_softplus(unroll_tensor x);

/* nn_masks.c */
/* Dropout of x [T,B,..]; p 0: x itself. same_mask: one for all t. */
unroll_tensor nn_dropout(unroll_tensor x, double p, bool same_mask);
/* Dropout of a matrix, one mask a run. */
unroll_tensor nn_dropout_matrix(unroll_tensor W, double p);
/* [B,N] of 0 and 1/(1-p), one a run */
unroll_tensor nn_mask(unroll_graph *g, int32_t dtype, int64_t B, int64_t N, double p);
/* bool [T,B,N]: true with probability p. T as nn_time has it. */
unroll_tensor nn_step_masks(unroll_graph *g, int32_t dtype, int64_t T, int64_t B, int64_t N, double p);
/* Extent of axis 0, or what stands for a run-time size in a shape. */
int64_t nn_time(unroll_tensor x);

/* nn_gates.c: one step of a cell, of layers and decoders */
typedef struct nn_cell_at {
  const nn_rnn *r;
  unroll_graph *g; /* where the parameters are */
  const char *prefix;
  int32_t layer, direction, dtype;
  /* nn_cell_masks: W_h with its dropout, the mask [B,P] of h before its product, zoneout's [T,B,P] and [T,B,H]; or none */
  unroll_tensor W_h, h_mask, stay_h, stay_c;
} nn_cell_at;
nn_cell_at nn_cell_open(const nn_rnn *r, unroll_graph *g, const char *prefix, int32_t layer, int32_t direction,
                        int32_t dtype);
/* Draws what holds for a whole run, or for each of its steps; outside of the loop. */
void nn_cell_masks(nn_cell_at *k, int64_t T, int64_t B);
/* Does the candidate's part of the inputs go its own way? */
bool nn_apart(const nn_rnn *r);
/* x [..,I] -> what these gates have of it, with b: a part of a step's inputs, for all steps at once */
unroll_tensor nn_cell_inputs_of(const nn_cell_at *k, unroll_tensor x, int64_t first, int64_t rows);
/* The same in pieces, where what a cell reads is a sum. x [..,I] -> x·Wᵀ + c [..,GH], W = PREFIX.what.l.d; c: [..,GH], or
 * none: the cell's bias, with layer norm nothing */
unroll_tensor nn_cell_product(const nn_cell_at *k, const char *what, unroll_tensor x, unroll_tensor c);
/* Of one step: xw [B,GH], all such products together -> a step's inputs */
void nn_cell_split(const nn_cell_at *k, unroll_tensor xw, unroll_tensor in[2]);
/* in: of one step, [B,GH], or where they are apart [B,2H] and [B,H]. scan: where zoneout's masks are its inputs. residual
 * [B,P] or none. gates: NULL, or gets them after their activations, [B,GH]. */
unroll_cell_state nn_cell_step(const nn_cell_at *k, unroll_scan *scan, const unroll_tensor in[2],
                               unroll_cell_state before, unroll_tensor residual, unroll_tensor *gates);

/* nn_cells.c: one layer, one direction, as a scan */
typedef struct nn_cell_inputs {
  const char *prefix;
  int32_t layer, direction;
  unroll_tensor x, h0, c0;    /* states: none for zeros */
  unroll_tensor residual;     /* [T,B,P], added to every state, or none */
  unroll_tensor tap_h, tap_c; /* [T,B,P], [T,B,H], added last of all, or none */
} nn_cell_inputs;
typedef struct nn_cell_outputs {
  unroll_tensor y, h_last, c_last, c_all, gates; /* c_all, gates: where the options ask for them */
} nn_cell_outputs;
nn_cell_outputs nn_cell(const nn_rnn *r, const nn_cell_inputs *in);
/* nn_min.c: likewise of the cells without W_h; and a step: xw [B,GH], h [B,H] -> h. of_step: gates, as nn_cell_step has them. */
nn_cell_outputs nn_min_cell(const nn_rnn *r, const nn_cell_inputs *in);
unroll_tensor nn_min_step(const nn_rnn *r, unroll_tensor xw, unroll_tensor h, unroll_tensor *of_step);
/* Has a tap the shape [T,B,N], T and B of x? None has; keeps the error. */
bool nn_check_tap(unroll_tensor tap, const nn_cell_inputs *in, int64_t N, const char *what);
/* The first state [B,N], zeros where x is none; what: "h" or "c", for the message. */
unroll_tensor nn_first_state(unroll_tensor x, const nn_cell_inputs *in, int64_t N, const char *what);

/* nn_layers.c: one LAYER, one direction. The widths of x are given, since it may not be there yet; its graph and dtype are. */
unroll_layer_inputs nn_layer_inputs(const nn_rnn *r, const nn_cell_inputs *in, int64_t I);
unroll_layer_attr nn_layer_attr(const nn_rnn *r, int32_t direction);

/* nn_checkpoint.c: the same in segments; and all of them, r->stack, from dropout to dropout between them */
nn_cell_outputs nn_layer_in_segments(const nn_rnn *r, const nn_cell_inputs *in);
unroll_tensor nn_stack_in_segments(const nn_rnn *r, unroll_tensor x, const char *prefix,
                                   const unroll_rnn_state *initial, unroll_rnn_state *last);
#endif
