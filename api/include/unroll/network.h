/* SPDX-License-Identifier: Apache-2.0 */
/*
 * unroll/network.h: a stack of recurrent layers with numbers for its weights, as diagnoses take it (diagnose.h, activity.h,
 * flow.h): any cell and any option that unroll_rnn has.
 */
#ifndef UNROLL_NETWORK_H
#define UNROLL_NETWORK_H
#include <unroll/nn.h>
#ifdef __cplusplus
extern "C" {
#endif

typedef struct unroll_network_weight {
  const char *name;   /* as unroll_rnn names it: "rnn.W_h.0.1" */
  const double *data; /* dense, row-major */
  uint64_t count;     /* elements */
} unroll_network_weight;

typedef struct unroll_network {
  uint32_t struct_size, n_weights;
  /* As unroll_rnn has them, for inference: no dropout, zoneout's expectation. lengths, cells, checkpoint and taps are not
   * looked at. */
  const unroll_rnn_options *options;
  const char *prefix; /* of the weights' names; NULL: "" */
  int64_t input;      /* I */
  const unroll_network_weight *weights;
} unroll_network;

#ifdef __cplusplus
}
#endif
#endif
