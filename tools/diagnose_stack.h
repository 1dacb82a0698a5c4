/* SPDX-License-Identifier: Apache-2.0 */
/* The model's recurrent layers, the data that they read, and its loss, as graphs take them. */
#ifndef DIAGNOSE_STACK_H
#define DIAGNOSE_STACK_H
#include <unroll/flow.h>

#include "diagnosis.h"

typedef struct diagnose_loss {
  unroll_stored_tensor W, b; /* of the last layer, f32 */
  const int32_t *targets;    /* [T,n] */
  int64_t T, n;
  int32_t dtype; /* of the graph that it was last built in */
} diagnose_loss;

typedef struct diagnose_stack { /* has pointers into itself and into the diagnosis */
  const unroll_network *network;
  unroll_flow_batch batch;
  unroll_flow_loss loss;
  bool has_loss; /* else that of gradients is the sum of the last states */
  diagnose_loss own;
} diagnose_stack;

void diagnose_stack_make(const diagnosis *d, diagnose_stack *s);

#endif
