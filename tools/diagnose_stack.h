/* SPDX-License-Identifier: Apache-2.0 */
/* The model's recurrent layers, the data that they read, and its loss, as graphs take them. */
#ifndef DIAGNOSE_STACK_H
#define DIAGNOSE_STACK_H
#include <unroll/flow.h>

#include "diagnosis.h"

typedef struct diagnose_weights {
  unroll_network_weight *list; /* named as the model's file names them */
  char (*names)[160];
  uint32_t n;
} diagnose_weights;

typedef struct diagnose_loss {
  unroll_stored_tensor W, b; /* of the last layer, f32 */
  const int32_t *targets;    /* [T,n] */
  int64_t T, n;
  int32_t dtype; /* of the graph that it was last built in */
} diagnose_loss;

typedef struct diagnose_stack { /* has pointers into itself */
  unroll_network network;
  unroll_flow_batch batch;
  unroll_flow_loss loss;
  bool has_loss; /* else that of gradients is the sum of the last states */
  unroll_rnn_options rnn;
  diagnose_weights weights;
  diagnose_loss own;
  double *x; /* [T,n,width] */
  int32_t *lengths;
} diagnose_stack;

/* false: out of memory. diagnose_stack_close is due in any case. */
bool diagnose_stack_open(const diagnosis *d, diagnose_stack *s);
void diagnose_stack_close(diagnose_stack *s);

#endif
