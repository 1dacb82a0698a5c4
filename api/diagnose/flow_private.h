/* SPDX-License-Identifier: Apache-2.0 */
/* flow_private.h: what the parts of the gradient's flow share: the stack in a graph, its states, one layer over rows. */
#ifndef FLOW_PRIVATE_H
#define FLOW_PRIVATE_H
#include <unroll/flow.h>

#include "diagnose/net_layers.h"

/* What every part reads. */
typedef struct flow_task {
  net_layers net;
  unroll_flow_batch batch;
  unroll_flow_options o; /* no zeros that mean something else */
  net_device device;
  double **inputs; /* [layers]: what layer l sees, [T,B,I_l]; of layer 0 the caller's. From here on NULL without */
  double **h, **c; /* [net.n]: [T,B,P], [T,B,H] of every step; c lstm */
  double *norms;   /* [net.n,2,T·B]: of ∂L/∂h_t and ∂L/∂c_t */
  double *flows;   /* [net.n,T·B]: the sum over probes of the squares of J_kᵀu where k leads to step t */
} flow_task;
unroll_status flow_task_open(flow_task *t, const unroll_network *net, const unroll_flow_batch *batch,
                             const unroll_flow_options *o, unroll_error *err);
void flow_task_close(flow_task *t);
unroll_status flow_ask(const flow_task *t, unroll_error *err); /* UNROLL_E_CANCELLED: the caller wants an end */
unroll_status flow_go(const flow_task *t, net_run *run, unroll_error *err);

int64_t flow_length(const flow_task *t, int64_t sequence);
/* The step of which a sequence's state is k steps before its last one, in a direction. */
int64_t flow_step(const flow_task *t, int64_t sequence, int32_t direction, int64_t k);
int64_t flow_state_size(const flow_task *t); /* N, of the part */
/* Does the part have h, c? */
static inline bool flow_has_h(const flow_task *t) { return t->o.part != UNROLL_FLOW_ONLY_C; }
static inline bool flow_has_c(const flow_task *t) { return t->net.has_c && t->o.part != UNROLL_FLOW_ONLY_H; }

/* flow_stack.c: fills inputs, h, c, norms and flows. */
unroll_status flow_stack(flow_task *t, unroll_error *err);

/* flow_rows.c: rows of one layer and direction, each k steps of one sequence up to its last one. */
typedef struct flow_rows {
  flow_task *t;
  net_run run;
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

/*
 * flow_sigma.c: the largest singular values of every layer and direction at these lags: of layer i [3,n_lags] at
 * sigma + i·stride, their mean over sequences, the largest, and the worst error; NaN where one is not finite.
 */
unroll_status flow_sigma(flow_task *t, const int64_t *lags, int64_t n_lags, double *sigma, int64_t stride,
                         unroll_error *err);
#endif
