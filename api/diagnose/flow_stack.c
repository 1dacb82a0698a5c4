/* SPDX-License-Identifier: Apache-2.0 */
/*
 * flow_stack.c: the whole stack once forwards and backwards. A tap, zeros added to the state of every step, has the gradient
 * of the state as its own, which the backward scan carries anyway: so the norms cost what a gradient without those of the
 * weights does. A second gradient, from a random vector at each sequence's last state, gives Jᵀu for all lags at once.
 * Standard layers whose states nobody reads stay whole on their way forward, and have taps on their way back alone.
 */
#include "diagnose/flow_private.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unroll/philox.h>

#include "graph/graph_private.h"

enum { U_SITE = 0 }; /* of the random vectors */

typedef struct stack {
  flow_task *t;
  net_run run;
  unroll_tensor lengths;
  unroll_tensor *tap_h, *tap_c, *h, *c, *last_h, *last_c; /* [net.n] each */
  unroll_tensor *x;                                       /* [layers] */
  uint32_t *node;                                         /* [net.n]: of layers that are whole */
  bool states, probes, whole;
} stack;

static const char *named(char *name, const char *what, int32_t i) {
  snprintf(name, NET_NAME, "%s %d", what, i);
  return name;
}

static unroll_tensor squares(unroll_tensor x) { return x.graph ? unroll_reduce(x, UNROLL_SUM_SQUARES, 1u << 2, 0) : x; }

static bool has_residual(const flow_task *t, int32_t layer) {
  return t->net.residual && net_layers_width(&t->net, layer) == t->net.D * t->net.P;
}

/* The stack with its taps. Returns y. */
static unroll_tensor build_layers(stack *s) {
  flow_task *t = s->t;
  unroll_graph *g = s->run.graph;
  const int64_t T = t->batch.steps, B = t->batch.batch;
  unroll_tensor x = unroll_input(g, "x", s->run.dtype, 3, (int64_t[]){T, B, t->net.net->input});
  for (int32_t l = 0; l < t->net.n / t->net.D; l++) {
    const int32_t at = l * t->net.D;
    for (int32_t d = 0; d < t->net.D; d++) {
      s->tap_h[at + d] = unroll_constant(g, s->run.dtype, 3, (int64_t[]){T, B, t->net.P}, 0.0);
      s->tap_c[at + d] =
          t->net.has_c ? unroll_constant(g, s->run.dtype, 3, (int64_t[]){T, B, t->net.H}, 0.0) : unroll_none();
    }
    const unroll_rnn_state taps = {s->tap_h + at, t->net.has_c ? s->tap_c + at : NULL};
    unroll_rnn_state last = {s->last_h + at, t->net.has_c ? s->last_c + at : NULL};
    s->x[l] = x;
    unroll_rnn_options o = t->net.rnn;
    o.lengths = s->lengths;
    o.taps = &taps;
    o.cells = t->net.has_c ? s->c + at : NULL;
    const unroll_tensor y = net_layer_of(x, l, &o, NULL, &last);
    for (int32_t d = 0; d < t->net.D; d++)
      s->h[at + d] = t->net.D == 2 ? unroll_slice(y, 2, d * t->net.P, t->net.P) : y;
    x = net_layer_output(&t->net, x, y, l, s->lengths);
  }
  return x;
}

static unroll_tensor default_loss(const stack *s) {
  const flow_task *t = s->t;
  unroll_tensor loss = unroll_none();
  for (int32_t d = 0; d < t->net.D; d++) {
    const unroll_tensor part = unroll_reduce(s->last_h[t->net.n - t->net.D + d], UNROLL_SUM, 0, 0);
    loss = loss.graph ? unroll_add(loss, part) : part;
  }
  return loss;
}

static void build_norms(stack *s, unroll_tensor y, unroll_tensor *taps, unroll_tensor *d) {
  flow_task *t = s->t;
  unroll_graph *g = s->run.graph;
  char name[NET_NAME];
  const int64_t shape[3] = {t->batch.steps, t->batch.batch, t->net.D * t->net.P};
  uint32_t n = 0;
  for (int32_t i = 0; i < t->net.n; i++) {
    taps[n++] = s->tap_h[i];
    if (t->net.has_c)
      taps[n++] = s->tap_c[i];
  }
  unroll_tensor seed = unroll_none();
  if (t->batch.dy)
    seed = unroll_input(g, "dy", s->run.dtype, 3, shape);
  else
    y = t->batch.loss ? t->batch.loss->build(t->batch.loss->ctx, y) : default_loss(s);
  if (t->batch.dy)
    unroll_vjp(&y, &seed, 1, taps, n, d);
  else
    unroll_gradient(y, taps, n, d);
  n = 0;
  for (int32_t i = 0; i < t->net.n; i++) {
    unroll_output(unroll_unary(squares(d[n++]), UNROLL_SQRT), named(name, "norm of h", i));
    if (t->net.has_c)
      unroll_output(unroll_unary(squares(d[n++]), UNROLL_SQRT), named(name, "norm of c", i));
  }
}

/* Jᵀu of one layer and direction, from the last state to that of every step. */
static void build_probe(stack *s, int32_t i) {
  flow_task *t = s->t;
  unroll_graph *g = s->run.graph;
  char name[NET_NAME];
  unroll_tensor y[2], u[2], tap[2], d[2], sum = unroll_none();
  uint32_t n = 0;
  if (flow_has_h(t)) {
    y[n] = s->last_h[i];
    tap[n] = s->tap_h[i];
    u[n++] = unroll_input(g, named(name, "u of h", i), s->run.dtype, 2, (int64_t[]){t->batch.batch, t->net.P});
  }
  if (flow_has_c(t)) {
    y[n] = s->last_c[i];
    tap[n] = s->tap_c[i];
    u[n++] = unroll_input(g, named(name, "u of c", i), s->run.dtype, 2, (int64_t[]){t->batch.batch, t->net.H});
  }
  if (s->whole) {
    const unroll_tensor d_out[3] = {unroll_none(), flow_has_h(t) ? u[0] : unroll_none(),
                                    flow_has_c(t) ? u[n - 1] : unroll_none()};
    unroll_tensor dx, dh, dc;
    layer_states_gradient(s->run.graph, s->node[i], d_out, false, &dx, &dh, &dc);
    d[0] = flow_has_h(t) ? dh : dc;
    d[n - 1] = flow_has_c(t) ? dc : dh;
  } else
    unroll_vjp(y, u, n, tap, n, d);
  for (uint32_t k = 0; k < n; k++)
    sum = sum.graph ? unroll_add(sum, squares(d[k])) : squares(d[k]);
  unroll_output(sum, named(name, "flow", i));
}

/* ---- layers that are whole ---- */

/* The nodes of the layers since node `first`, a direction each; false where they are something else. */
static bool find_layers(const unroll_graph *g, uint32_t first, uint32_t *nodes, int32_t n) {
  int32_t found = 0;
  for (uint32_t i = first; i < g->n_nodes; i++)
    if (g->nodes[i].op == UNROLL_OP_LAYER && found++ < n)
      nodes[found - 1] = i;
  return found == n;
}

static unroll_tensor build_whole(stack *s) {
  flow_task *t = s->t;
  unroll_graph *g = s->run.graph;
  unroll_tensor x =
      unroll_input(g, "x", s->run.dtype, 3, (int64_t[]){t->batch.steps, t->batch.batch, t->net.net->input});
  for (int32_t l = 0; l < t->net.n / t->net.D && s->whole; l++) {
    const int32_t at = l * t->net.D;
    const uint32_t first = g->n_nodes;
    unroll_rnn_state last = {s->last_h + at, t->net.has_c ? s->last_c + at : NULL};
    unroll_rnn_options o = t->net.rnn;
    o.lengths = s->lengths;
    const unroll_tensor y = net_layer_of(x, l, &o, NULL, &last);
    s->whole = !graph_failed(g) && find_layers(g, first, s->node + at, t->net.D);
    x = net_layer_output(&t->net, x, y, l, s->lengths);
  }
  return x;
}

static void back_through_layers(stack *s, unroll_tensor y) {
  flow_task *t = s->t;
  unroll_graph *g = s->run.graph;
  char name[NET_NAME];
  const int32_t top = t->net.n / t->net.D - 1;
  unroll_tensor dy = unroll_none(), last = unroll_none();
  if (t->batch.dy)
    dy = unroll_input(g, "dy", s->run.dtype, 3, (int64_t[]){t->batch.steps, t->batch.batch, t->net.D * t->net.P});
  else if (t->batch.loss)
    unroll_gradient(t->batch.loss->build(t->batch.loss->ctx, y), &y, 1, &dy);
  else
    last = unroll_constant(g, s->run.dtype, 2, (int64_t[]){t->batch.batch, t->net.P}, 1.0);
  for (int32_t l = top; l >= 0; l--) {
    unroll_tensor below = l > 0 && has_residual(t, l) ? dy : unroll_none();
    for (int32_t d = 0; d < t->net.D; d++) {
      const int32_t i = l * t->net.D + d;
      const unroll_tensor mine = dy.graph && t->net.D == 2 ? unroll_slice(dy, 2, d * t->net.P, t->net.P) : dy;
      const unroll_tensor d_out[3] = {mine, l == top ? last : unroll_none(), unroll_none()};
      unroll_tensor dx, dh, dc;
      layer_states_gradient(g, s->node[i], d_out, l > 0, &dx, &dh, &dc);
      unroll_output(unroll_unary(squares(dh), UNROLL_SQRT), named(name, "norm of h", i));
      if (t->net.has_c)
        unroll_output(unroll_unary(squares(dc), UNROLL_SQRT), named(name, "norm of c", i));
      below = below.graph && dx.graph ? unroll_add(below, dx) : dx;
    }
    dy = below;
  }
}

/* y of the whole stack and what flows back; where layers are asked for whole and are not, s->whole becomes false instead. */
static unroll_status build_stack(stack *s, unroll_error *err) {
  flow_task *t = s->t;
  TRY(net_run_begin(&s->run, NULL, t->o.dtype, err));
  if (t->batch.lengths)
    s->lengths = unroll_input(s->run.graph, "lengths", UNROLL_I32, 1, &t->batch.batch);
  const bool whole = s->whole;
  const unroll_tensor y = whole ? build_whole(s) : build_layers(s);
  TRY(unroll_graph_status(s->run.graph, err));
  if (s->whole)
    back_through_layers(s, y);
  if (whole)
    return UNROLL_OK;
  unroll_tensor *const taps = mem_array(NULL, 4 * (uint64_t)t->net.n, sizeof *taps);
  if (!taps)
    return fail(err, UNROLL_E_MEMORY, "no memory for the taps of %d layers", t->net.n);
  build_norms(s, y, taps, taps + 2 * t->net.n);
  mem_free(NULL, taps);
  return UNROLL_OK;
}

static unroll_status build(stack *s, unroll_error *err) {
  flow_task *t = s->t;
  char name[NET_NAME];
  s->whole = !s->states;
  TRY(build_stack(s, err));
  if (!s->whole && !s->states) {
    net_run_close(&s->run);
    TRY(build_stack(s, err));
  }
  for (int32_t i = 0; i < t->net.n; i++) {
    if (s->probes)
      build_probe(s, i);
    if (s->states)
      unroll_output(s->h[i], named(name, "h", i));
    if (s->states && t->net.has_c)
      unroll_output(s->c[i], named(name, "c", i));
  }
  for (int32_t l = 1; s->states && l < t->net.n / t->net.D; l++)
    unroll_output(s->x[l], named(name, "x", l));
  return unroll_graph_status(s->run.graph, err);
}

/* A random unit vector for each sequence: h and c of the part. */
static unroll_status put_probes(stack *s, int32_t probe, double *u, unroll_error *err) {
  flow_task *t = s->t;
  char name[NET_NAME];
  const int64_t B = t->batch.batch, N = flow_state_size(t), P = flow_has_h(t) ? t->net.P : 0, H = N - P;
  double *const part = u + B * N;
  for (int32_t i = 0; i < t->net.n; i++) {
    const unroll_philox_key key = unroll_philox_site_key(t->o.seed, (unroll_u64)probe, U_SITE);
    for (int64_t b = 0; b < B; b++) {
      double sum = 0;
      for (int64_t k = 0; k < N; k++) {
        u[b * N + k] = unroll_normal(key, (unroll_u64)i, (unroll_u32)b, (unroll_u32)k);
        sum += u[b * N + k] * u[b * N + k];
      }
      for (int64_t k = 0; k < N; k++)
        u[b * N + k] /= sqrt(sum);
    }
    for (int64_t b = 0; b < B && P; b++)
      memcpy(part + b * P, u + b * N, (size_t)P * sizeof *u);
    if (P)
      TRY(net_run_put(&s->run, named(name, "u of h", i), part, B * P, err));
    for (int64_t b = 0; b < B && H; b++)
      memcpy(part + b * H, u + b * N + P, (size_t)H * sizeof *u);
    if (H)
      TRY(net_run_put(&s->run, named(name, "u of c", i), part, B * H, err));
  }
  return UNROLL_OK;
}

static unroll_status run(stack *s, double *work, unroll_error *err) {
  flow_task *t = s->t;
  char name[NET_NAME];
  const int64_t TB = t->batch.steps * t->batch.batch;
  for (int32_t probe = 0; probe < (s->probes ? t->o.probes : 1); probe++) {
    if (s->probes)
      TRY(put_probes(s, probe, work, err));
    TRY(flow_go(t, &s->run, err));
    for (int32_t i = 0; s->probes && i < t->net.n; i++) {
      TRY(net_run_get(&s->run, named(name, "flow", i), work, TB, err));
      for (int64_t k = 0; k < TB; k++)
        t->flows[i * TB + k] += work[k];
    }
  }
  return UNROLL_OK;
}

static unroll_status get_state(stack *s, double **to, const char *what, int32_t i, int64_t width, unroll_error *err) {
  char name[NET_NAME];
  const int64_t n = s->t->batch.steps * s->t->batch.batch * width;
  if (!(to[i] = mem_array(NULL, (uint64_t)n, sizeof **to)))
    return fail(err, UNROLL_E_MEMORY, "no memory for the states of a layer");
  return net_run_get(&s->run, named(name, what, i), to[i], n, err);
}

static unroll_status fetch(stack *s, unroll_error *err) {
  flow_task *t = s->t;
  char name[NET_NAME];
  const int64_t TB = t->batch.steps * t->batch.batch;
  for (int32_t i = 0; i < t->net.n; i++) {
    TRY(net_run_get(&s->run, named(name, "norm of h", i), t->norms + 2 * i * TB, TB, err));
    if (t->net.has_c)
      TRY(net_run_get(&s->run, named(name, "norm of c", i), t->norms + (2 * i + 1) * TB, TB, err));
    if (s->states)
      TRY(get_state(s, t->h, "h", i, t->net.P, err));
    if (s->states && t->net.has_c)
      TRY(get_state(s, t->c, "c", i, t->net.H, err));
  }
  for (int32_t l = 1; s->states && l < t->net.n / t->net.D; l++)
    TRY(get_state(s, t->inputs, "x", l, net_layers_width(&t->net, l), err));
  return UNROLL_OK;
}

static unroll_status build_and_run(stack *s, unroll_error *err) {
  flow_task *t = s->t;
  const int64_t T = t->batch.steps, B = t->batch.batch;
  TRY(build(s, err));
  TRY(net_run_open(&s->run, t->device.device, err));
  TRY(net_layers_put_weights(&t->net, &s->run, false, err));
  TRY(net_run_put(&s->run, "x", t->batch.x, T * B * t->net.net->input, err));
  if (t->batch.lengths)
    TRY(unroll_binding_write(s->run.binding, "lengths", t->batch.lengths, (uint64_t)B * sizeof(int32_t), err));
  if (t->batch.dy)
    TRY(net_run_put(&s->run, "dy", t->batch.dy, T * B * t->net.D * t->net.P, err));
  if (t->batch.loss && t->batch.loss->fill)
    TRY(t->batch.loss->fill(t->batch.loss->ctx, s->run.binding, err));
  const int64_t n = 2 * B * (t->net.P + t->net.H) > T * B ? 2 * B * (t->net.P + t->net.H) : T * B;
  double *const work = mem_array(NULL, (uint64_t)n, sizeof *work);
  if (!work)
    return fail(err, UNROLL_E_MEMORY, "no memory for the gradient's flow");
  const unroll_status status = run(s, work, err);
  mem_free(NULL, work);
  return status == UNROLL_OK ? fetch(s, err) : status;
}

unroll_status flow_stack(flow_task *t, unroll_error *err) {
  const uint64_t n = (uint64_t)t->net.n, TB = (uint64_t)(t->batch.steps * t->batch.batch);
  stack s = {.t = t, .states = t->o.n_lags > 0, .probes = t->o.probes > 0};
  unroll_tensor *const all = mem_array(NULL, 7 * n, sizeof *all);
  s.node = mem_array(NULL, n, sizeof *s.node);
  t->inputs = mem_array(NULL, n, sizeof *t->inputs); /* that of layer 0 is the caller's */
  t->h = mem_array(NULL, n, sizeof *t->h);
  t->c = mem_array(NULL, n, sizeof *t->c);
  t->norms = mem_array(NULL, 2 * n * TB, sizeof *t->norms);
  t->flows = mem_array(NULL, n * TB, sizeof *t->flows);
  if (!all || !s.node || !t->inputs || !t->h || !t->c || !t->norms || !t->flows) {
    mem_free(NULL, all);
    mem_free(NULL, s.node);
    return fail(err, UNROLL_E_MEMORY, "no memory for the gradient's flow through %d layers", t->net.n);
  }
  unroll_tensor **const arrays[7] = {&s.tap_h, &s.tap_c, &s.h, &s.c, &s.last_h, &s.last_c, &s.x};
  for (int i = 0; i < 7; i++)
    *arrays[i] = all + (uint64_t)i * n;
  const unroll_status status = build_and_run(&s, err);
  net_run_close(&s.run);
  mem_free(NULL, all);
  mem_free(NULL, s.node);
  return status;
}
