/* SPDX-License-Identifier: Apache-2.0 */
/*
 * unroll/ctc.h: connectionist temporal classification (Graves, Fernández, Gomez, Schmidhuber 2006): a loss for labels
 * without alignment, and how labels are read off.
 *
 * V symbols, one of them the blank. A path of T symbols stands for the labels that are left when repeats are merged
 * and blanks dropped; P(labels) is the sum over all paths that stand for them.
 */
#ifndef UNROLL_CTC_H
#define UNROLL_CTC_H
#include <unroll/nn.h>
#ifdef __cplusplus
extern "C" {
#endif

typedef struct unroll_ctc_options {
  uint32_t struct_size;
  int32_t blank;         /* 0..V-1 */
  int32_t reduction;     /* UNROLL_LOSS_* */
  int32_t zero_infinity; /* not 0: labels that do not fit into their input count 0, with no gradient */
  unroll_tensor lengths; /* i32 [B], 0 to T, of the inputs; or none: all T */
} unroll_ctc_options;
/*
 * -log P(targets | softmax(logits)) in nats, by the forward variables in log space (eq. 6 and 7).
 *   logits          [T,B,V], finite, T may have a run-time size; what stands past an input's length is never looked at
 *   targets         i32 [B,L], symbols other than the blank; what stands past a target's length is never looked at. A
 *                   symbol out of 0..V-1 makes that sequence's loss NaN.
 *   target_lengths  i32 [B], 0 to L; labels of another length do not fit
 *   MEAN            each loss over its target's length (at least 1), then the mean over the batch: PyTorch's. []
 *   SUM, NONE       [], [B]
 * Labels need one step each and one more between equal neighbours. Where the input is shorter, P is 0: the loss is
 * infinity, or 0 with zero_infinity, and no gradient flows from it either way. An input of length 0 has P = 1 for no
 * labels.
 */
UNROLL_API unroll_tensor unroll_ctc_loss(unroll_tensor logits, unroll_tensor targets, unroll_tensor target_lengths,
                                         const unroll_ctc_options *options);

/* What the decoders read: log-probabilities of one sequence as a run has left them. */
typedef struct unroll_ctc_input {
  uint32_t struct_size;
  int32_t blank;          /* 0..V-1 */
  const float *log_probs; /* symbol v of step t at [t·stride + v]; natural logarithms, -infinity allowed */
  int64_t T, V;           /* T at least 0, V at least 1 */
  int64_t stride;         /* at least V: B·V for a row of [T,B,V] */
} unroll_ctc_input;
/*
 * The labels of the most probable path (best path decoding). labels has room for T. *log_prob, where not NULL, gets
 * the path's log-probability. UNROLL_E_INVALID: something is NULL; UNROLL_E_RANGE: a size, the blank, or a NaN. [any]
 */
UNROLL_API unroll_status unroll_ctc_greedy(const unroll_ctc_input *input, int32_t *labels, int64_t *n, double *log_prob,
                                           unroll_error *err);
/*
 * Prefix beam search (Hannun, Maas, Jurafsky, Ng 2014, without a language model): paths of equal labels are summed;
 * each step keeps the `beam` most probable prefixes.
 *   labels     [n_best,T], the most probable first
 *   lengths    [n_best], of the labels
 *   log_probs  [n_best], the sum of the paths that were kept
 *   n_best     1 to beam; *n_found is how many there are: none where every path has probability 0
 * Time T·beam·V·log(beam), memory for T·beam prefixes. UNROLL_E_MEMORY, and as unroll_ctc_greedy. [any]
 */
UNROLL_API unroll_status unroll_ctc_beam(const unroll_ctc_input *input, int64_t beam, int64_t n_best, int32_t *labels,
                                         int64_t *lengths, double *log_probs, int64_t *n_found, unroll_error *err);

#ifdef __cplusplus
}
#endif
#endif
