/* SPDX-License-Identifier: Apache-2.0 */
/* net_layers.h: a network's layers in graphs of their own, with its weights; graphs that are run with numbers in double. */
#ifndef NET_LAYERS_H
#define NET_LAYERS_H
#include <unroll/network.h>
#include <unroll/runtime.h>

#include "base/base_private.h"

#define NET_NAME 64

/* A graph on a device, and numbers that go in and out in double. The allocator is the host's, or NULL. */
typedef struct net_run {
  const unroll_allocator *allocator;
  unroll_graph *graph;
  unroll_executable *exe;
  unroll_binding *binding;
  int32_t dtype;
} net_run;
unroll_status net_run_begin(net_run *run, const unroll_allocator *allocator, int32_t dtype, unroll_error *err);
unroll_status net_run_open(net_run *run, unroll_device *device, unroll_error *err); /* of run->graph as it is built */
void net_run_close(net_run *run);
unroll_status net_run_put(net_run *run, const char *name, const double *data, int64_t n, unroll_error *err);
unroll_status net_run_get(net_run *run, const char *name, double *data, int64_t n, unroll_error *err);

/* The caller's device, or the cpu reference in a context of its own. */
typedef struct net_device {
  unroll_device *device;
  unroll_context *own; /* of the device, or NULL */
} net_device;
unroll_status net_device_open(net_device *d, unroll_device *given, const unroll_allocator *allocator,
                              unroll_error *err);
void net_device_close(net_device *d);

/* What is known of a network's layers; nothing to close. */
typedef struct net_layers {
  const char *who; /* begins messages */
  const unroll_network *net;
  unroll_rnn_options rnn; /* of one layer, both its directions, for inference; nothing of the caller's graphs */
  int32_t D, n;           /* n: layers·D */
  int64_t H, P, G;
  bool has_c;
  bool residual; /* outputs go on with the layer's input added, which unroll_rnn is not told: y is then the states */
} net_layers;
unroll_status net_layers_open(net_layers *t, const char *who, const unroll_network *net, unroll_error *err);
int64_t net_layers_width(const net_layers *t, int32_t layer); /* I of a layer */
/* A layer over x [T,B,I]: y [T,B,D·P], the states alone. o: t->rnn with what is asked for. */
unroll_tensor net_layer_of(unroll_tensor x, int32_t layer, const unroll_rnn_options *o, const unroll_rnn_state *initial,
                           unroll_rnn_state *last);
/* What the next layer reads of a layer that read x and said y. */
unroll_tensor net_layer_output(const net_layers *t, unroll_tensor x, unroll_tensor y, int32_t layer,
                               unroll_tensor lengths);
/* "PREFIX" of the names that a layer's parameters have in these graphs: PREFIX.W_h.0.direction. */
void net_layer_prefix(char prefix[NET_NAME], int32_t layer);
/* Writes the parameters of those layers that the graph has. finite: UNROLL_E_RANGE where a number of theirs is not. */
unroll_status net_layers_put_weights(const net_layers *t, net_run *run, bool finite, unroll_error *err);
/* The caller's weight "PREFIX.what.layer.direction", or NULL. */
const unroll_network_weight *net_layers_weight(const net_layers *t, const char *what, int32_t layer, int32_t direction);
#endif
