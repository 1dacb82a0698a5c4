/* SPDX-License-Identifier: Apache-2.0 */
/* flow_private.h: what the parts of the gradient's flow share: the stack in a graph, its states, one layer over rows. */
#ifndef FLOW_PRIVATE_H
#define FLOW_PRIVATE_H
#include <unroll/flow.h>

#include "base/base_private.h"

#define FLOW_NAME 64

/* A graph on a device, and numbers that go in and out in double. */
typedef struct flow_run {
  unroll_graph *graph;
  unroll_executable *exe;
  unroll_binding *binding;
  int32_t dtype;
} flow_run;
unroll_status flow_run_open(flow_run *run, unroll_device *device, unroll_error *err); /* of run->graph, run->dtype */
void flow_run_close(flow_run *run);
unroll_status flow_run_put(flow_run *run, const char *name, const double *data, int64_t n, unroll_error *err);
unroll_status flow_run_get(flow_run *run, const char *name, double *data, int64_t n, unroll_error *err);

/* What every part reads. */
typedef struct flow_task {
  const unroll_network *net;
  unroll_flow_batch batch;
  unroll_flow_options o;  /* no zeros that mean something else */
  unroll_rnn_options rnn; /* of one layer, both its directions; without lengths */
  int32_t D, n_layers;    /* n_layers: layers·D */
  int64_t H, P;
  bool lstm;     /* has a c */
  bool residual; /* outputs go on with the layer's input added */
  unroll_device *device;
  unroll_context *own; /* of the device, or NULL */
  double **inputs;     /* [layers]: what layer l sees, [T,B,I_l]; of layer 0 the caller's. From here on NULL without */
  double **h, **c;     /* [n_layers]: [T,B,P], [T,B,H] of every step; c lstm */
  double *norms;       /* [n_layers,2,T·B]: of ∂L/∂h_t and ∂L/∂c_t */
  double *flows;       /* [n_layers,T·B]: the sum over probes of the squares of J_kᵀu where k leads to step t */
} flow_task;
unroll_status flow_task_open(flow_task *t, const unroll_network *net, const unroll_flow_batch *batch,
                             const unroll_flow_options *o, unroll_error *err);
void flow_task_close(flow_task *t);
unroll_status flow_ask(const flow_task *t, unroll_error *err); /* UNROLL_E_CANCELLED: the caller wants an end */
unroll_status flow_go(const flow_task *t, flow_run *run, unroll_error *err);

int64_t flow_length(const flow_task *t, int64_t sequence);
/* The step of which a sequence's state is k steps before its last one, in a direction. */
int64_t flow_step(const flow_task *t, int64_t sequence, int32_t direction, int64_t k);
int64_t flow_width(const flow_task *t, int32_t layer); /* I of a layer */
int64_t flow_state_size(const flow_task *t);           /* N, of the part */
/* Does the part have h, c? */
static inline bool flow_has_h(const flow_task *t) { return t->o.part != UNROLL_FLOW_ONLY_C; }
static inline bool flow_has_c(const flow_task *t) { return t->lstm && t->o.part != UNROLL_FLOW_ONLY_H; }
/* A layer of the stack over x, its weights under the prefix "l"; h and c of every step not wanted are NULL. */
unroll_tensor flow_layer_of(const flow_task *t, unroll_tensor x, int32_t layer, unroll_tensor lengths,
                            const unroll_rnn_state *initial, unroll_rnn_state *last, const unroll_rnn_state *taps,
                            unroll_tensor *cells);
/* Writes the parameters of those layers that the graph has. */
unroll_status flow_put_weights(const flow_task *t, flow_run *run, unroll_error *err);
/* The weight "PREFIX.what.layer.direction" of the caller's, or NULL. */
const unroll_network_weight *flow_weight(const flow_task *t, const char *what, int32_t layer, int32_t direction);

/* flow_stack.c: fills inputs, h, c, norms and flows. */
unroll_status flow_stack(flow_task *t, unroll_error *err);

/* flow_rows.c: rows of one layer and direction, each k steps of one sequence up to its last one. */
typedef struct flow_rows {
  flow_task *t;
  flow_run run;
  int32_t layer, direction;
  int64_t rows, steps; /* steps: the largest lag */
  int64_t N;
  double *part; /* [rows, max(P,H)] */
} flow_rows;
/* tangents: for products with JᵀJ, else with Jᵀ. sequence, lag: [rows] */
unroll_status flow_rows_open(flow_rows *r, flow_task *t, int32_t layer, int32_t direction, int64_t rows,
                             const int64_t *sequence, const int64_t *lag, bool tangents, unroll_error *err);
void flow_rows_close(flow_rows *r);
/* v, w [rows,N]. With tangents: norm [rows] = ‖J·v‖ and w = Jᵀ·(J·v/‖J·v‖); else w = Jᵀ·v, norm NULL. */
unroll_status flow_rows_product(flow_rows *r, const double *v, double *norm, double *w, unroll_error *err);

/* flow_sigma.c: the largest singular value of each row and its error, [rows]; NaN where it is not finite. */
unroll_status flow_sigma(flow_rows *r, double *sigma, double *error, unroll_error *err);
#endif
