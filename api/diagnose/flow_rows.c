/* SPDX-License-Identifier: Apache-2.0 */
/*
 * flow_rows.c: one layer in one direction over rows, each k steps of a sequence up to its last one, from the state that it
 * had there. Then J_k is the derivative of the row's last state by its first one, whatever the cell: a tangent pass
 * multiplies with it, a gradient pass with its transpose, and rows of different lags go through together as sequences of
 * different lengths do.
 */
#include "diagnose/flow_private.h"

#include <math.h>
#include <string.h>

static unroll_tensor joined(unroll_tensor a, unroll_tensor b, int32_t kind) {
  return !a.graph ? b : !b.graph ? a : unroll_binary(a, b, kind);
}
static unroll_tensor of_rows(unroll_tensor x, int32_t unary, int32_t reduction) {
  if (!x.graph)
    return x;
  return unroll_reduce(unary == UNROLL_COPY ? x : unroll_unary(x, unary), reduction, 1u << 1, 1);
}
static unroll_tensor divided(unroll_tensor x, unroll_tensor by) { return x.graph ? unroll_div(x, by) : x; }

typedef struct parts { /* h, c: of the part, else none */
  unroll_tensor h, c;
} parts;

static uint32_t listed(const flow_task *t, unroll_tensor h, unroll_tensor c, unroll_tensor *x) {
  uint32_t n = 0;
  if (flow_has_h(t))
    x[n++] = h;
  if (flow_has_c(t))
    x[n++] = c;
  return n;
}
static parts unlisted(const flow_task *t, const unroll_tensor *x) {
  return (parts){flow_has_h(t) ? x[0] : unroll_none(), flow_has_c(t) ? x[flow_has_h(t) ? 1 : 0] : unroll_none()};
}

/* u/‖u‖, rows of 0 left as they are, and the output "norm". The largest element is divided by first: squares of what has
 * vanished are no numbers. */
static parts normalised(parts u, int32_t dtype) {
  unroll_graph *g = u.h.graph ? u.h.graph : u.c.graph;
  const unroll_tensor tiny = unroll_constant(g, dtype, 0, NULL, dtype == UNROLL_F64 ? 0x1p-1000 : 0x1p-120);
  const unroll_tensor one = unroll_constant(g, dtype, 0, NULL, 1);
  const unroll_tensor most = joined(
      joined(of_rows(u.h, UNROLL_ABS, UNROLL_REDUCE_MAX), of_rows(u.c, UNROLL_ABS, UNROLL_REDUCE_MAX), UNROLL_MAX),
      tiny, UNROLL_MAX);
  u = (parts){divided(u.h, most), divided(u.c, most)};
  const unroll_tensor norm = unroll_unary(
      joined(of_rows(u.h, UNROLL_COPY, UNROLL_SUM_SQUARES), of_rows(u.c, UNROLL_COPY, UNROLL_SUM_SQUARES), UNROLL_ADD),
      UNROLL_SQRT);
  unroll_output(unroll_mul(norm, most), "norm");
  const unroll_tensor by = unroll_binary(norm, one, UNROLL_MAX);
  return (parts){divided(u.h, by), divided(u.c, by)};
}

static unroll_status build(flow_rows *r, bool tangents, unroll_error *err) {
  const flow_task *t = r->t;
  unroll_graph *g = r->run.graph;
  const int32_t dtype = r->run.dtype, d = r->direction;
  const int64_t K = r->steps, R = r->rows, I = net_layers_width(&t->net, r->layer);
  const unroll_tensor x = unroll_input(g, "x", dtype, 3, (int64_t[]){K, R, I});
  const unroll_tensor lengths = unroll_input(g, "lengths", UNROLL_I32, 1, &R);
  const unroll_tensor h0 = unroll_input(g, "h", dtype, 2, (int64_t[]){R, t->net.P});
  const unroll_tensor c0 = t->net.has_c ? unroll_input(g, "c", dtype, 2, (int64_t[]){R, t->net.H}) : unroll_none();
  const unroll_tensor vh =
      flow_has_h(t) ? unroll_input(g, "v of h", dtype, 2, (int64_t[]){R, t->net.P}) : unroll_none();
  const unroll_tensor vc =
      flow_has_c(t) ? unroll_input(g, "v of c", dtype, 2, (int64_t[]){R, t->net.H}) : unroll_none();
  unroll_tensor firsts[4] = {unroll_none(), unroll_none(), unroll_none(), unroll_none()}, lasts[4];
  firsts[d] = h0;
  firsts[2 + d] = c0;
  const unroll_rnn_state initial = {firsts, t->net.has_c ? firsts + 2 : NULL};
  unroll_rnn_state last = {lasts, t->net.has_c ? lasts + 2 : NULL};
  unroll_rnn_options o = t->net.rnn;
  o.lengths = lengths;
  net_layer_of(x, r->layer, &o, &initial, &last);
  TRY(unroll_graph_status(g, err));
  unroll_tensor from[2], to[2], v[2], u[2], w[2];
  const uint32_t n = listed(t, h0, c0, from);
  listed(t, lasts[d], lasts[2 + d], to);
  listed(t, vh, vc, v);
  if (tangents) {
    unroll_jvp(from, v, n, to, n, u);
    TRY(unroll_graph_status(g, err));
    const parts unit = normalised(unlisted(t, u), dtype);
    listed(t, unit.h, unit.c, v);
  }
  unroll_vjp(to, v, n, from, n, w);
  TRY(unroll_graph_status(g, err));
  const parts back = unlisted(t, w);
  if (back.h.graph)
    unroll_output(back.h, "w of h");
  if (back.c.graph)
    unroll_output(back.c, "w of c");
  return unroll_graph_status(g, err);
}

static unroll_status put_rows(flow_rows *r, const int64_t *sequence, const int64_t *lag, double *x, int32_t *lengths,
                              unroll_error *err) {
  const flow_task *t = r->t;
  const int64_t B = t->batch.batch, I = net_layers_width(&t->net, r->layer), R = r->rows;
  const double *all = r->layer ? t->inputs[r->layer] : t->batch.x;
  const int32_t at = r->layer * t->net.D + r->direction;
  for (int64_t i = 0; i < R; i++) {
    const int64_t b = sequence[i], start = r->direction ? 0 : flow_length(t, b) - lag[i];
    lengths[i] = (int32_t)lag[i];
    for (int64_t k = 0; k < lag[i]; k++)
      memcpy(x + (k * R + i) * I, all + ((start + k) * B + b) * I, (size_t)I * sizeof *x);
  }
  TRY(net_run_put(&r->run, "x", x, r->steps * R * I, err));
  TRY(unroll_binding_write(r->run.binding, "lengths", lengths, (uint64_t)R * sizeof *lengths, err));
  for (int c = 0; c < (t->net.has_c ? 2 : 1); c++) {
    const int64_t W = c ? t->net.H : t->net.P;
    const double *states = c ? t->c[at] : t->h[at];
    for (int64_t i = 0; i < R; i++)
      memcpy(r->part + i * W, states + (flow_step(t, sequence[i], r->direction, lag[i]) * B + sequence[i]) * W,
             (size_t)W * sizeof *r->part);
    TRY(net_run_put(&r->run, c ? "c" : "h", r->part, R * W, err));
  }
  return UNROLL_OK;
}

unroll_status flow_rows_open(flow_rows *r, flow_task *t, int32_t layer, int32_t direction, int64_t rows,
                             const int64_t *sequence, const int64_t *lag, bool tangents, unroll_error *err) {
  *r = (flow_rows){.t = t, .layer = layer, .direction = direction, .rows = rows, .N = flow_state_size(t)};
  for (int64_t i = 0; i < rows; i++)
    r->steps = lag[i] > r->steps ? lag[i] : r->steps;
  r->part = mem_array(NULL, (uint64_t)(rows * (t->net.P > t->net.H ? t->net.P : t->net.H)), sizeof *r->part);
  double *const x = mem_array(NULL, (uint64_t)(r->steps * rows * net_layers_width(&t->net, layer)), sizeof *x);
  int32_t *const lengths = mem_array(NULL, (uint64_t)rows, sizeof *lengths);
  unroll_status status =
      r->part && x && lengths
          ? UNROLL_OK
          : fail(err, UNROLL_E_MEMORY, "no memory for the products of Jacobians of %lld rows", (long long)rows);
  if (status == UNROLL_OK)
    status = net_run_begin(&r->run, NULL, t->o.dtype, err);
  if (status == UNROLL_OK)
    status = build(r, tangents, err);
  if (status == UNROLL_OK)
    status = net_run_open(&r->run, t->device.device, err);
  if (status == UNROLL_OK)
    status = net_layers_put_weights(&t->net, &r->run, false, err);
  if (status == UNROLL_OK)
    status = put_rows(r, sequence, lag, x, lengths, err);
  mem_free(NULL, x);
  mem_free(NULL, lengths);
  if (status != UNROLL_OK)
    flow_rows_close(r);
  return status;
}

void flow_rows_close(flow_rows *r) {
  net_run_close(&r->run);
  mem_free(NULL, r->part);
  r->part = NULL;
}

unroll_status flow_rows_product(flow_rows *r, const double *v, double *norm, double *w, unroll_error *err) {
  const flow_task *t = r->t;
  const int64_t R = r->rows, N = r->N, P = flow_has_h(t) ? t->net.P : 0, H = N - P;
  for (int c = 0; c < 2; c++) {
    const int64_t W = c ? H : P, at = c ? P : 0;
    for (int64_t i = 0; i < R && W; i++)
      memcpy(r->part + i * W, v + i * N + at, (size_t)W * sizeof *v);
    if (W)
      TRY(net_run_put(&r->run, c ? "v of c" : "v of h", r->part, R * W, err));
  }
  TRY(flow_go(t, &r->run, err));
  for (int c = 0; c < 2; c++) {
    const int64_t W = c ? H : P, at = c ? P : 0;
    if (W)
      TRY(net_run_get(&r->run, c ? "w of c" : "w of h", r->part, R * W, err));
    for (int64_t i = 0; i < R && W; i++)
      memcpy(w + i * N + at, r->part + i * W, (size_t)W * sizeof *w);
  }
  return norm ? net_run_get(&r->run, "norm", norm, R, err) : UNROLL_OK;
}
