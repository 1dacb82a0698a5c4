/* SPDX-License-Identifier: Apache-2.0 */
/* nn_decode.c: a decoder's loop: fed with the truth, with its own choices, or with either by chance. */
#include "nn/nn_decoder.h"
#include <inttypes.h>
#include <math.h>

static unroll_tensor pick(const unroll_decoder_feed *f, unroll_tensor logits) {
  if (f->pick == UNROLL_PICK_GREEDY)
    return unroll_argmax(logits);
  if (f->temperature > 0 && f->temperature != 1)
    logits = unroll_scale(logits, 1.0 / f->temperature);
  return unroll_categorical_top_p(logits, f->top_k, f->top_p > 0 ? f->top_p : 1.0);
}

static bool check_pick(const nn_decoder *d, const unroll_decoder_feed *f) {
  if (f->pick != UNROLL_PICK_GREEDY && f->pick != UNROLL_PICK_SAMPLE)
    graph_fail(d->g, UNROLL_E_INVALID, "decode: pick %d, expected UNROLL_PICK_GREEDY or UNROLL_PICK_SAMPLE", f->pick);
  else if (!(f->temperature >= 0) || !isfinite(f->temperature))
    graph_fail(d->g, UNROLL_E_RANGE, "decode: temperature %g, expected a number above 0", f->temperature);
  else if (f->top_k < 0 || f->top_k > d->o->vocabulary)
    graph_fail(d->g, UNROLL_E_RANGE, "decode: top_k %" PRId64 ", expected 0 to the vocabulary's %" PRId64, f->top_k,
               d->o->vocabulary);
  else if (!(f->top_p >= 0 && f->top_p <= 1))
    graph_fail(d->g, UNROLL_E_RANGE, "decode: top_p %g, expected 0 < p <= 1", f->top_p);
  return !graph_failed(d->g);
}

static bool check_feed(const nn_decoder *d, const unroll_decoder_feed *f) {
  unroll_graph *g = d->g;
  const int64_t V = d->o->vocabulary;
  char text[GRAPH_DESCRIBE];
  if (f->kind == UNROLL_FEED_FREE) {
    if (!nn_check_steps(g, "decode", f->steps))
      return false;
    if (f->begin < 0 || f->begin >= V || f->end < -1 || f->end >= V || f->pad < -1)
      graph_fail(g, UNROLL_E_RANGE,
                 "decode: begin %d, end %d, pad %d, expected 0 to %" PRId64 ", -1 to %" PRId64 ", at least -1",
                 f->begin, f->end, f->pad, V - 1, V - 1);
    return !graph_failed(g) && check_pick(d, f);
  }
  if (f->kind != UNROLL_FEED_TEACHER && f->kind != UNROLL_FEED_SCHEDULED)
    graph_fail(g, UNROLL_E_INVALID, "decode: feed %d, expected UNROLL_FEED_*", f->kind);
  else if (!f->inputs.graph)
    graph_fail(g, UNROLL_E_INVALID, "decode: there are no inputs to feed");
  else if (graph_spec(f->inputs)->dtype != UNROLL_I32 || graph_spec(f->inputs)->rank != 2 ||
           graph_spec(f->inputs)->shape[1] != d->B)
    graph_fail(g, UNROLL_E_SHAPE, "decode: inputs are %s, expected i32 [T,%" PRId64 "]",
               graph_describe(g, f->inputs.id, text), d->B);
  else if (nn_check_lengths(g, "decode", f->lengths, d->B) && f->kind == UNROLL_FEED_SCHEDULED) {
    const tensor_spec *s = f->epsilon.graph ? graph_spec(f->epsilon) : NULL;
    if (!s || s->rank != 0 || (s->dtype != UNROLL_F32 && s->dtype != UNROLL_F64))
      graph_fail(g, UNROLL_E_SHAPE, "decode: epsilon is %s, expected a real number []",
                 s ? graph_describe(g, f->epsilon.id, text) : "missing");
    return !graph_failed(g) && check_pick(d, f);
  }
  return !graph_failed(g);
}

/* Carries of the loop that are no state of the cells. */
typedef struct choice {
  unroll_tensor id;           /* i32 [B], picked in the step before */
  unroll_tensor alive, count; /* FREE: bool [B], i32 [B] */
} choice;

/* The symbol that goes into this step. */
static unroll_tensor next_input(const nn_decoder *d, const unroll_decoder_feed *f, unroll_tensor truth,
                                const choice *c) {
  if (f->kind == UNROLL_FEED_FREE)
    return unroll_select(c->alive, c->id, nn_scalar(c->id, f->begin)); /* what is fed after the end does not matter */
  if (nn_lost(truth))
    return unroll_none();
  const unroll_tensor u = unroll_random(truth.graph, UNROLL_RANDOM_UNIFORM, graph_spec(f->epsilon)->dtype, 1, &d->B);
  return unroll_select(unroll_binary(u, f->epsilon, UNROLL_LT), truth, c->id);
}

unroll_decoder_outputs unroll_decode(const char *prefix, const unroll_decoder_options *o,
                                     const unroll_decoder_feed *f) {
  unroll_decoder_outputs r = {.logits = unroll_none()};
  nn_decoder d;
  if (!nn_decoder_open(&d, "decode", prefix, o))
    return r;
  if (!f || !UNROLL_HAS(unroll_decoder_feed, f, top_p)) {
    graph_fail(d.g, UNROLL_E_INVALID, "decode: the feed is missing, or its struct_size is too small");
    return r;
  }
  if (!check_feed(&d, f))
    return r;
  const bool teacher = f->kind == UNROLL_FEED_TEACHER, free_running = f->kind == UNROLL_FEED_FREE;
  const nn_decoder_state first = nn_decoder_first(&d, 1);
  const unroll_tensor lengths = free_running ? unroll_none() : f->lengths;
  unroll_tensor inputs = f->inputs, all_inputs = unroll_none();
  if (teacher) { /* of all steps at once */
    inputs = lengths.graph ? unroll_length_mask(inputs, lengths) : inputs;
    all_inputs = nn_decoder_inputs(&d, inputs);
  }
  choice start = {unroll_none(), unroll_none(), unroll_none()};
  if (free_running) {
    start.id = nn_filled(d.g, UNROLL_I32, 1, &d.B, f->begin);
    start.alive = nn_filled(d.g, UNROLL_BOOL, 1, &d.B, 1.0);
    start.count = nn_filled(d.g, UNROLL_I32, 1, &d.B, 0.0);
  } else if (!teacher)
    start.id = nn_reshape(unroll_slice(inputs, 0, 0, 1), 1, &d.B);

  unroll_scan *scan = unroll_scan_begin(d.g, UNROLL_FORWARD, lengths);
  if (free_running)
    unroll_scan_steps(scan, f->steps);
  const nn_decoder_state before = nn_decoder_carry(&d, scan, &first);
  choice now = {unroll_none(), unroll_none(), unroll_none()};
  if (!teacher)
    now.id = unroll_scan_carry(scan, start.id);
  if (free_running) {
    now.alive = unroll_scan_carry(scan, start.alive);
    now.count = unroll_scan_carry(scan, start.count);
  }
  const unroll_tensor truth = free_running ? unroll_none() : unroll_scan_input(scan, teacher ? all_inputs : inputs);
  const unroll_tensor xw = teacher ? truth : nn_decoder_inputs(&d, next_input(&d, f, truth, &now));
  nn_decoder_state after;
  unroll_tensor weights;
  const unroll_tensor hidden = nn_decoder_step(&d, xw, &before, &after, &weights);
  nn_decoder_next(&d, scan, &before, &after);
  r.hidden = unroll_scan_output(scan, hidden);
  if (weights.graph)
    r.weights = unroll_scan_output(scan, weights);
  if (!teacher) {
    const unroll_tensor logits = nn_decoder_logits(&d, hidden), id = pick(f, logits);
    r.logits = unroll_scan_output(scan, logits);
    unroll_scan_next(scan, now.id, id);
    if (free_running) {
      const unroll_tensor goes_on = unroll_binary(id, nn_scalar(id, f->end), UNROLL_NE);
      unroll_scan_next(scan, now.alive, unroll_select(now.alive, goes_on, now.alive));
      unroll_scan_next(scan, now.count, unroll_add(now.count, unroll_cast(now.alive, UNROLL_I32)));
      r.ids = unroll_scan_output(scan, unroll_select(now.alive, id, nn_scalar(id, f->pad)));
    } else
      r.ids = unroll_scan_output(scan, id);
  }
  r.lengths = free_running ? unroll_scan_last(scan, now.count) : lengths;
  for (int32_t l = 0; l < o->layers; l++) {
    r.h_last[l] = unroll_scan_last(scan, before.layer[l].h);
    if (before.layer[l].c.graph)
      r.c_last[l] = unroll_scan_last(scan, before.layer[l].c);
  }
  unroll_scan_end(scan);
  if (teacher) {
    r.logits = nn_decoder_logits(&d, r.hidden);
    if (lengths.graph)
      r.logits = unroll_length_mask(r.logits, lengths);
  }
  return r;
}
