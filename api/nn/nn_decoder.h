/* SPDX-License-Identifier: Apache-2.0 */
/* nn_decoder.h: one step of a decoder, which every way of feeding it shares. */
#ifndef NN_DECODER_H
#define NN_DECODER_H
#include "nn/nn_private.h"

/* Dropout at one place: none, or one mask [B,N] for all steps, or another one at every step, of this site. */
typedef struct nn_decoder_drop {
  double p;
  uint32_t site;
  unroll_tensor mask;
} nn_decoder_drop;

typedef struct nn_decoder {
  unroll_graph *g;
  const char *prefix;
  const unroll_decoder_options *o;
  nn_rnn r; /* the cells; layers, sizes */
  unroll_attention attention;
  int64_t B;
  int32_t dtype;
  nn_cell_at layer[UNROLL_DECODER_LAYERS];
  nn_decoder_drop input, between[UNROLL_DECODER_LAYERS], output; /* between: of what layer l reads */
} nn_decoder;
typedef struct nn_decoder_state {
  unroll_cell_state layer[UNROLL_DECODER_LAYERS];
  unroll_tensor fed;                          /* h̃ of the step before, under UNROLL_CONTEXT_FEEDING */
  unroll_tensor gates[UNROLL_DECODER_LAYERS]; /* after a step, where they are asked for */
} nn_decoder_state;

/* Checks the options and makes what stands outside of the loop; false where the graph, if there is one, keeps the
 * error. The decoder stays where it is. inference: whatever the options say. */
bool nn_decoder_open(nn_decoder *d, const char *who, const char *prefix, const unroll_decoder_options *o,
                     bool inference);
/* Draws the masks of T steps, so that each is the same one however the decoder is fed. */
void nn_decoder_masks(nn_decoder *d, int64_t T);
/* The states before the first step, each row of the batch `times` times in a row. */
nn_decoder_state nn_decoder_first(const nn_decoder *d, int64_t times);
/* As carries of a scan, and back. */
nn_decoder_state nn_decoder_carry(const nn_decoder *d, unroll_scan *scan, const nn_decoder_state *first);
void nn_decoder_next(const nn_decoder *d, unroll_scan *scan, const nn_decoder_state *carry,
                     const nn_decoder_state *next);
/* ids i32 [..] -> W_x·x [..,GH] of the lowest layer, + b without layer norm */
unroll_tensor nn_decoder_inputs(const nn_decoder *d, unroll_tensor ids);
/* xw [R,GH] -> what the last product works on, [R,P]. weights, where not NULL, gets the attention's [R,S], or none. */
unroll_tensor nn_decoder_step(const nn_decoder *d, unroll_scan *scan, unroll_tensor xw, const nn_decoder_state *before,
                              nn_decoder_state *after, unroll_tensor *weights);
/* [..,P] -> [..,V] */
unroll_tensor nn_decoder_logits(const nn_decoder *d, unroll_tensor hidden);
#endif
