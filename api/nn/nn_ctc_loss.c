/* SPDX-License-Identifier: Apache-2.0 */
/* nn_ctc_loss.c: the forward variables of connectionist temporal classification as a scan over time. */
#include "nn/nn_private.h"
#include <inttypes.h>
#include <math.h>
#include <unroll/ctc.h>

/* The targets with a blank between any two, before and after: S = 2L + 1 places. */
typedef struct places {
  int64_t B, L, S;
  unroll_tensor symbols; /* i32 [B,S] */
  unroll_tensor skip;    /* bool [B,S]: may the place be reached from two before, over a blank? */
} places;

static unroll_tensor filled(const places *p, unroll_tensor like, int64_t width, double value) {
  return graph_failed(like.graph)
             ? unroll_none()
             : nn_filled(graph_root(like.graph), graph_spec(like)->dtype, 2, (int64_t[]){p->B, width}, value);
}

/* x [B,L] at the odd places, value at the even ones */
static unroll_tensor interleave(const places *p, unroll_tensor x, double value) {
  if (nn_lost(x))
    return unroll_none();
  const int64_t column[3] = {p->B, p->L, 1};
  const unroll_tensor even = nn_filled(x.graph, UNROLL_I32, 3, column, value);
  const unroll_tensor pairs = unroll_concat((unroll_tensor[]){even, nn_reshape(x, 3, column)}, 2, 2);
  return unroll_concat((unroll_tensor[]){nn_reshape(pairs, 2, (int64_t[]){p->B, 2 * p->L}), filled(p, x, 1, value)}, 2,
                       1);
}

static places lay_out(unroll_tensor targets, unroll_tensor target_lengths, int32_t blank) {
  const tensor_spec s = *graph_spec(targets);
  places p = {.B = s.shape[0], .L = s.shape[1], .S = 2 * s.shape[1] + 1};
  const unroll_tensor own = unroll_select(nn_valid(target_lengths, p.L), targets, nn_scalar(targets, blank));
  const unroll_tensor before = unroll_pad(unroll_slice(own, 1, 0, p.L - 1 ? p.L - 1 : 1), 1, p.L - 1 ? 1 : 0, 0);
  p.symbols = interleave(&p, own, blank);
  p.skip = unroll_cast(interleave(&p, unroll_cast(unroll_binary(own, before, UNROLL_NE), UNROLL_I32), 0), UNROLL_BOOL);
  return p;
}

/* α_t(s) = P_t(symbol of s)·(α_{t-1}(s) + α_{t-1}(s-1) + [α_{t-1}(s-2), where it may be skipped to]), as logarithms */
static unroll_tensor step(const places *p, unroll_tensor alpha, unroll_tensor emitted) {
  const unroll_tensor by_one =
      unroll_concat((unroll_tensor[]){filled(p, alpha, 1, NN_LOG_ZERO), unroll_slice(alpha, 1, 0, p->S - 1)}, 2, 1);
  const unroll_tensor by_two =
      unroll_concat((unroll_tensor[]){filled(p, alpha, 2, NN_LOG_ZERO), unroll_slice(alpha, 1, 0, p->S - 2)}, 2, 1);
  const unroll_tensor ways = unroll_concat(
      (unroll_tensor[]){alpha, by_one, unroll_select(p->skip, by_two, nn_scalar(by_two, NN_LOG_ZERO))}, 3, 1);
  return unroll_add(nn_log_sum_exp(nn_reshape(ways, 3, (int64_t[]){p->B, 3, p->S}), 1), emitted);
}

static bool check(unroll_graph *g, unroll_tensor logits, unroll_tensor targets, unroll_tensor target_lengths,
                  const unroll_ctc_options *o) {
  char a[GRAPH_DESCRIBE], b[GRAPH_DESCRIBE];
  if (!o || !UNROLL_HAS(unroll_ctc_options, o, lengths)) {
    graph_fail(g, UNROLL_E_INVALID, "ctc: its options are missing, or their struct_size is too small");
    return false;
  }
  if (!targets.graph || !target_lengths.graph) {
    graph_fail(g, UNROLL_E_INVALID, "ctc: the targets or their lengths are missing");
    return false;
  }
  const tensor_spec *x = graph_spec(logits), *y = graph_spec(targets);
  if (x->rank != 3 || y->rank != 2 || y->dtype != UNROLL_I32 || x->shape[1] != y->shape[0])
    graph_fail(g, UNROLL_E_SHAPE, "ctc: logits %s, targets %s, expected real [T,B,V] and i32 [B,L]",
               graph_describe(g, logits.id, a), graph_describe(g, targets.id, b));
  else if (o->blank < 0 || o->blank >= x->shape[2])
    graph_fail(g, UNROLL_E_RANGE, "ctc: blank %d, expected 0 to %" PRId64, o->blank, x->shape[2] - 1);
  else if (o->reduction != UNROLL_LOSS_MEAN && o->reduction != UNROLL_LOSS_SUM && o->reduction != UNROLL_LOSS_NONE)
    graph_fail(g, UNROLL_E_INVALID, "ctc: reduction %d, expected UNROLL_LOSS_MEAN, SUM or NONE", o->reduction);
  return nn_check_lengths(g, "ctc: targets'", target_lengths, graph_failed(g) ? 0 : y->shape[0]) &&
         nn_check_lengths(g, "ctc", o->lengths, y->shape[0]);
}

/* log P of the paths that stand at the last label or the blank after it: α [B,S] -> [B] */
static unroll_tensor at_the_end(const places *p, unroll_tensor alpha, unroll_tensor target_lengths) {
  if (nn_lost(alpha))
    return unroll_none();
  const unroll_tensor at = nn_iota(alpha.graph, p->S);
  const unroll_tensor n = nn_reshape(target_lengths, 2, (int64_t[]){p->B, 1}), last = unroll_add(n, n);
  const unroll_tensor up_to = unroll_binary(at, last, UNROLL_LE);
  const unroll_tensor from = unroll_binary(at, unroll_sub(last, nn_scalar(last, 1.0)), UNROLL_GE);
  const unroll_tensor ends = unroll_select(up_to, from, up_to);
  return nn_log_sum_exp(unroll_select(ends, alpha, nn_scalar(alpha, NN_LOG_ZERO)), 1);
}

unroll_tensor unroll_ctc_loss(unroll_tensor logits, unroll_tensor targets, unroll_tensor target_lengths,
                              const unroll_ctc_options *o) {
  unroll_graph *g = logits.graph;
  if (!g || graph_failed(g) || !check(g, logits, targets, target_lengths, o))
    return unroll_none();
  const places p = lay_out(targets, target_lengths, o->blank);
  const unroll_tensor at = nn_iota(g, p.S), nowhere = filled(&p, logits, p.S, NN_LOG_ZERO);
  if (graph_failed(g))
    return unroll_none();
  /* Before the first step all is at a place that only the first two can be reached from: the first blank. */
  const unroll_tensor start =
      unroll_select(unroll_binary(at, nn_scalar(at, 0.0), UNROLL_EQ), nn_scalar(logits, 0.0), nowhere);
  unroll_scan *scan = unroll_scan_begin(g, UNROLL_FORWARD, o->lengths);
  const unroll_tensor log_probs = unroll_log_softmax(unroll_scan_input(scan, logits));
  const unroll_tensor alpha = unroll_scan_carry(scan, start);
  if (graph_failed(g))
    return unroll_none();
  unroll_scan_next(scan, alpha, step(&p, alpha, unroll_gather(log_probs, p.symbols)));
  const unroll_tensor last = unroll_scan_last(scan, alpha);
  unroll_scan_end(scan);
  if (graph_failed(g))
    return unroll_none();
  const unroll_tensor nll = unroll_unary(at_the_end(&p, last, target_lengths), UNROLL_NEG);
  const unroll_tensor never = unroll_binary(nll, nn_scalar(nll, -0.1 * NN_LOG_ZERO), UNROLL_GT);
  const unroll_tensor loss = unroll_select(never, nn_scalar(nll, o->zero_infinity ? 0.0 : INFINITY), nll);
  if (o->reduction == UNROLL_LOSS_NONE)
    return loss;
  if (o->reduction == UNROLL_LOSS_SUM)
    return unroll_reduce(loss, UNROLL_SUM, 0, 0);
  const unroll_tensor n =
      unroll_cast(unroll_binary(target_lengths, nn_scalar(target_lengths, 1.0), UNROLL_MAX), graph_spec(logits)->dtype);
  return unroll_scale(unroll_reduce(unroll_div(loss, n), UNROLL_SUM, 0, 0), 1.0 / (double)p.B);
}
