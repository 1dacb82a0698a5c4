/* SPDX-License-Identifier: Apache-2.0 */
/*
 * unroll/activity.h: what goes on inside a network: gates and states of every layer, direction and step.
 *
 *     const unroll_network net = {.struct_size = sizeof net, .options = &rnn, .input = I, .weights = w, .n_weights = n};
 *     const unroll_activity_batch batch = {.struct_size = sizeof batch, .steps = T, .batch = B, .x = x};
 *     unroll_activity *activity;
 *     unroll_activity_measure(&net, &batch, NULL, &activity, &err);
 *     ... activity->layers[0].gates[((t * B + b) * G + gate) * H + unit] ...
 *     unroll_activity_free(activity);
 *
 * By a graph, so of whatever cell and options the layers have, on any device, in f64 unless asked otherwise. What the gates
 * of a cell are says unroll_gate_of (nn.h). Every function is [any], but for devices of the caller's.
 */
#ifndef UNROLL_ACTIVITY_H
#define UNROLL_ACTIVITY_H
#include <unroll/network.h>
#include <unroll/runtime.h>
#ifdef __cplusplus
extern "C" {
#endif

typedef struct unroll_activity_batch {
  uint32_t struct_size, reserved;
  int64_t steps, batch;   /* T and B */
  const double *x;        /* [T,B,I] */
  const int32_t *lengths; /* [B], from 0 to T; NULL: all T */
} unroll_activity_batch;

typedef struct unroll_activity_options { /* zero: as said */
  uint32_t struct_size;
  int32_t dtype;                     /* UNROLL_F64 (0) or UNROLL_F32 */
  unroll_device *device;             /* NULL: the cpu reference, in a context of its own */
  const unroll_allocator *allocator; /* copied; NULL: malloc */
} unroll_activity_options;

/* A layer in one direction; 0 past a sequence's end, but for the caller's own x. Steps are those of the sequence: a reverse direction ran from its last
 * one to its first. */
typedef struct unroll_activity_layer {
  int32_t layer, direction; /* direction 1: reverse */
  int64_t I, H, P, G;       /* what it reads; units; numbers of h, H without a projection; gates */
  const double *x;          /* [T,B,I] what it reads: y of the layer before, with its residual */
  const double *gates;      /* [T,B,G,H] as unroll_rnn_options.gates has them */
  const double *h;          /* [T,B,P] */
  const double *c;          /* [T,B,H], of an lstm of either kind; else NULL */
} unroll_activity_layer;

typedef struct unroll_activity {
  uint32_t struct_size;
  uint32_t n_layers; /* layers·D, layer l and direction d at [l·D + d] */
  int64_t steps, batch;
  const unroll_activity_layer *layers;
} unroll_activity;

/*
 * All of it, by one run. A number that is not finite is no error: it is written as it is, and so is what follows from it.
 *   UNROLL_E_INVALID    something is NULL or too small; a weight is missing or of another size (it is named)
 *   UNROLL_E_RANGE      a number of the options or a length out of its range
 *   UNROLL_E_UNSUPPORTED, .. as building, compiling and running the graph have it; UNROLL_E_MEMORY
 * Freed with unroll_activity_free.
 */
UNROLL_API unroll_status unroll_activity_measure(const unroll_network *network, const unroll_activity_batch *batch,
                                                 const unroll_activity_options *options, unroll_activity **activity,
                                                 unroll_error *err);
UNROLL_API void unroll_activity_free(unroll_activity *activity); /* NULL does nothing */

#ifdef __cplusplus
}
#endif
#endif
