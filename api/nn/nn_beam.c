/* SPDX-License-Identifier: Apache-2.0 */
/* nn_beam.c: beam search. Each source has K rows that stand together; a step picks K of their K·V continuations. */
#include "nn/nn_decoder.h"
#include <inttypes.h>
#include <math.h>

typedef struct search {
  nn_decoder d;
  const unroll_beam_options *o;
  int64_t B, K, R, V;
} search;

/* Numbers of each row, real [R] but for the id, i32 [R]. */
typedef struct rows {
  unroll_tensor id, alive, count, log_prob;
} rows;

static bool check_beam(const search *s) {
  const unroll_beam_options *o = s->o;
  const int64_t V = s->V;
  if (o->beam < 1 || o->beam > V)
    graph_fail(s->d.g, UNROLL_E_RANGE, "beam search: beam %d, expected 1 to the vocabulary's %" PRId64, o->beam, V);
  else if (!nn_check_steps(s->d.g, "beam search", o->steps))
    return false;
  else if (o->begin < 0 || o->begin >= V || o->end < 0 || o->end >= V || o->pad < -1)
    graph_fail(s->d.g, UNROLL_E_RANGE,
               "beam search: begin %d, end %d, pad %d, expected 0 to %" PRId64 ", the same, at least -1", o->begin,
               o->end, o->pad, V - 1);
  else if (!(o->alpha >= 0) || !isfinite(o->alpha))
    graph_fail(s->d.g, UNROLL_E_RANGE, "beam search: alpha %g, expected a number of at least 0", o->alpha);
  else if ((int64_t)o->beam * V > 1 << 24) /* ids pass through f32 */
    graph_fail(s->d.g, UNROLL_E_RANGE, "beam search: beam %d times vocabulary %" PRId64 ", expected at most %d",
               o->beam, V, 1 << 24);
  return !graph_failed(s->d.g);
}

/* 1 at that place, else otherwise: [n] of the type of x */
static unroll_tensor only_at(unroll_graph *g, int32_t dtype, int64_t n, int64_t place, double value, double otherwise) {
  const unroll_tensor at = nn_iota(g, n);
  if (graph_failed(g))
    return unroll_none();
  return unroll_select(unroll_binary(at, nn_scalar(at, (double)place), UNROLL_EQ), nn_filled(g, dtype, 0, NULL, value),
                       nn_filled(g, dtype, 0, NULL, otherwise));
}

static unroll_tensor as_beams(const search *s, unroll_tensor x) { return nn_reshape(x, 2, (int64_t[]){s->B, s->K}); }
static unroll_tensor as_rows(const search *s, unroll_tensor x) { return nn_reshape(x, 1, &s->R); }
static unroll_tensor as_column(const search *s, unroll_tensor x) { return nn_reshape(x, 2, (int64_t[]){s->R, 1}); }

/* ((5+n)/6)^alpha of counts that are at least 1 */
static unroll_tensor penalty(const search *s, unroll_tensor n) {
  const unroll_tensor base = unroll_scale(unroll_add(n, nn_scalar(n, 5.0)), 1.0 / 6.0);
  return unroll_unary(unroll_scale(unroll_unary(base, UNROLL_LOG), s->o->alpha), UNROLL_EXP);
}

static nn_decoder_state reorder(const search *s, const nn_decoder_state *x, unroll_tensor from) {
  nn_decoder_state y = *x;
  for (int32_t l = 0; l < s->d.r.o.layers; l++) {
    y.layer[l].h = unroll_embedding(x->layer[l].h, from);
    if (x->layer[l].c.graph)
      y.layer[l].c = unroll_embedding(x->layer[l].c, from);
  }
  if (x->fed.graph)
    y.fed = unroll_embedding(x->fed, from);
  return y;
}

/* Which rows go on, and with which symbols: parent [B,K] among the K, symbol [B,K]. */
static rows choose(const search *s, unroll_tensor logits, const rows *now, unroll_tensor stays, unroll_tensor *parent,
                   unroll_tensor *symbol) {
  const int64_t wide[2] = {s->B, s->K * s->V};
  const unroll_tensor alive = unroll_cast(as_column(s, now->alive), UNROLL_BOOL);
  const unroll_tensor step = unroll_select(alive, unroll_log_softmax(logits), stays);
  const unroll_tensor total = unroll_add(as_column(s, now->log_prob), step), count = unroll_add(now->count, now->alive);
  const unroll_tensor score = s->o->alpha > 0 ? unroll_div(total, penalty(s, as_column(s, count))) : total;
  unroll_tensor best = unroll_none();
  unroll_top_k(nn_reshape(score, 2, wide), s->K, NULL, &best);
  *parent = unroll_div(best, nn_scalar(best, (double)s->V));
  *symbol = unroll_sub(best, unroll_mul(*parent, nn_scalar(best, (double)s->V)));
  const unroll_tensor goes_on = unroll_binary(*symbol, nn_scalar(*symbol, s->o->end), UNROLL_NE);
  const unroll_tensor was_alive = unroll_gather(as_beams(s, now->alive), *parent);
  return (rows){.id = as_rows(s, *symbol),
                .alive = as_rows(s, unroll_mul(was_alive, unroll_cast(goes_on, s->d.dtype))),
                .count = as_rows(s, unroll_gather(as_beams(s, count), *parent)),
                .log_prob = as_rows(s, unroll_gather(nn_reshape(total, 2, wide), best))};
}

/* Follows the parents back from the last step: symbols and parents real [T,B,K] -> ids i32 [T,B,K] */
static unroll_tensor follow(const search *s, unroll_tensor symbols, unroll_tensor parents) {
  const unroll_tensor zeros = nn_filled(s->d.g, UNROLL_I32, 2, (int64_t[]){s->B, s->K}, 0.0);
  unroll_scan *scan = unroll_scan_begin(s->d.g, UNROLL_REVERSE, unroll_none());
  const unroll_tensor symbol = unroll_scan_input(scan, symbols), parent = unroll_scan_input(scan, parents);
  const unroll_tensor at = unroll_scan_carry(scan, unroll_add(nn_iota(s->d.g, s->K), zeros));
  unroll_scan_next(scan, at, unroll_cast(unroll_gather(parent, at), UNROLL_I32));
  const unroll_tensor ids = unroll_scan_output(scan, unroll_cast(unroll_gather(symbol, at), UNROLL_I32));
  unroll_scan_end(scan);
  return ids;
}

static unroll_beam_outputs run(const search *s) {
  unroll_graph *g = s->d.g;
  const int32_t dtype = s->d.dtype;
  const nn_decoder_state first = nn_decoder_first(&s->d, s->K);
  const unroll_tensor zeros = nn_filled(g, dtype, 1, &s->R, 0.0);
  const unroll_tensor one_alive = unroll_add(only_at(g, dtype, s->K, 0, 0.0, NN_LOG_ZERO), as_beams(s, zeros));
  const unroll_tensor stays = nn_reshape(only_at(g, dtype, s->V, s->o->end, 0.0, NN_LOG_ZERO), 2, (int64_t[]){1, s->V});
  const unroll_tensor first_rows = nn_reshape(
      unroll_mul(nn_iota(g, s->B), nn_filled(g, UNROLL_I32, 0, NULL, (double)s->K)), 2, (int64_t[]){s->B, 1});

  unroll_scan *scan = unroll_scan_begin(g, UNROLL_FORWARD, unroll_none());
  unroll_scan_steps(scan, s->o->steps);
  const nn_decoder_state before = nn_decoder_carry(&s->d, scan, &first);
  const rows now = {.id = unroll_scan_carry(scan, nn_filled(g, UNROLL_I32, 1, &s->R, s->o->begin)),
                    .alive = unroll_scan_carry(scan, nn_filled(g, dtype, 1, &s->R, 1.0)),
                    .count = unroll_scan_carry(scan, zeros),
                    .log_prob = unroll_scan_carry(scan, as_rows(s, one_alive))};
  nn_decoder_state after;
  const unroll_tensor hidden = nn_decoder_step(&s->d, scan, nn_decoder_inputs(&s->d, now.id), &before, &after, NULL);
  unroll_tensor parent = unroll_none(), symbol = unroll_none();
  const rows next = choose(s, nn_decoder_logits(&s->d, hidden), &now, stays, &parent, &symbol);
  const unroll_tensor from = as_rows(s, unroll_add(parent, first_rows));
  const nn_decoder_state moved = reorder(s, &after, from);
  nn_decoder_next(&s->d, scan, &before, &moved);
  unroll_scan_next(scan, now.id, next.id);
  unroll_scan_next(scan, now.alive, next.alive);
  unroll_scan_next(scan, now.count, next.count);
  unroll_scan_next(scan, now.log_prob, next.log_prob);
  /* A sequence that had ended before has nothing more to say. */
  const unroll_tensor was_alive = unroll_cast(unroll_gather(as_beams(s, now.alive), parent), UNROLL_BOOL);
  const unroll_tensor said = unroll_select(was_alive, unroll_cast(symbol, dtype), nn_scalar(now.count, s->o->pad));
  const unroll_tensor symbols = unroll_scan_output(scan, said),
                      parents = unroll_scan_output(scan, unroll_cast(parent, dtype));
  const unroll_tensor count = unroll_scan_last(scan, now.count), log_prob = unroll_scan_last(scan, now.log_prob);
  unroll_scan_end(scan);
  const unroll_tensor ids = follow(s, symbols, parents);
  const unroll_tensor scores = s->o->alpha > 0 ? unroll_div(log_prob, penalty(s, count)) : log_prob;
  return (unroll_beam_outputs){.ids = ids,
                               .lengths = unroll_cast(as_beams(s, count), UNROLL_I32),
                               .log_probs = as_beams(s, log_prob),
                               .scores = as_beams(s, scores)};
}

unroll_beam_outputs unroll_decode_beam(const char *prefix, const unroll_decoder_options *options,
                                       const unroll_beam_options *beam) {
  const unroll_tensor none = unroll_none();
  const unroll_beam_outputs nothing = {none, none, none, none};
  search s = {.o = beam};
  if (!nn_decoder_open(&s.d, "beam search", prefix, options, true))
    return nothing;
  if (s.d.r.o.cells || s.d.r.o.gates || s.d.r.o.taps) {
    graph_fail(s.d.g, UNROLL_E_INVALID, "beam search: %s are no option of a search, whose rows change places",
               s.d.r.o.cells   ? "cells"
               : s.d.r.o.gates ? "gates"
                               : "taps");
    return nothing;
  }
  if (!beam || !UNROLL_HAS(unroll_beam_options, beam, alpha)) {
    graph_fail(s.d.g, UNROLL_E_INVALID, "beam search: its options are missing, or their struct_size is too small");
    return nothing;
  }
  s.V = options->vocabulary;
  if (!check_beam(&s))
    return nothing;
  s.B = s.d.B;
  s.K = beam->beam;
  s.R = s.B * s.K;
  const unroll_beam_outputs r = run(&s);
  return graph_failed(s.d.g) ? nothing : r;
}
