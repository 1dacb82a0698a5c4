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
  if (d->r.o.checkpoint && f->kind != UNROLL_FEED_TEACHER) {
    graph_fail(g, UNROLL_E_UNSUPPORTED, "decode: checkpoint is an option of UNROLL_FEED_TEACHER alone, the feed is %d",
               f->kind);
    return false;
  }
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

/* What the loop knows of the symbols that it has picked. */
typedef struct choice {
  unroll_tensor id;           /* i32 [B], of the step before; none under a teacher */
  unroll_tensor begun;        /* SCHEDULED: bool [B]: is there one? */
  unroll_tensor alive, count; /* FREE: bool [B], i32 [B] */
} choice;

static choice first_choice(const nn_decoder *d, const unroll_decoder_feed *f) {
  const unroll_tensor none = unroll_none();
  const unroll_tensor zeros = nn_filled(d->g, UNROLL_I32, 1, &d->B, 0.0);
  switch (f->kind) {
  case UNROLL_FEED_TEACHER: return (choice){none, none, none, none};
  case UNROLL_FEED_SCHEDULED: return (choice){zeros, nn_filled(d->g, UNROLL_BOOL, 1, &d->B, 0.0), none, none};
  default:
    return (choice){nn_filled(d->g, UNROLL_I32, 1, &d->B, f->begin), none, nn_filled(d->g, UNROLL_BOOL, 1, &d->B, 1.0),
                    zeros};
  }
}

static choice carry_choice(unroll_scan *scan, const choice *c) {
  return (choice){c->id.graph ? unroll_scan_carry(scan, c->id) : c->id,
                  c->begun.graph ? unroll_scan_carry(scan, c->begun) : c->begun,
                  c->alive.graph ? unroll_scan_carry(scan, c->alive) : c->alive,
                  c->count.graph ? unroll_scan_carry(scan, c->count) : c->count};
}

/* The symbol that goes into this step. */
static unroll_tensor next_input(const nn_decoder *d, const unroll_decoder_feed *f, unroll_tensor truth,
                                const choice *c) {
  if (f->kind == UNROLL_FEED_FREE)
    return unroll_select(c->alive, c->id, nn_scalar(c->id, f->begin)); /* what is fed after the end does not matter */
  if (nn_lost(truth))
    return unroll_none();
  const unroll_tensor u = unroll_random(truth.graph, UNROLL_RANDOM_UNIFORM, graph_spec(f->epsilon)->dtype, 1, &d->B);
  const unroll_tensor mixed = unroll_select(unroll_binary(u, f->epsilon, UNROLL_LT), truth, c->id);
  return unroll_select(c->begun, mixed, truth); /* the first of the inputs, whose axis may be a run-time one */
}

/* Picks from the logits and hands on what was picked. Returns what is said: ids of all steps. */
static unroll_tensor choose(const unroll_decoder_feed *f, unroll_scan *scan, const choice *now, unroll_tensor logits) {
  const unroll_tensor id = pick(f, logits);
  unroll_scan_next(scan, now->id, id);
  if (f->kind != UNROLL_FEED_FREE) {
    unroll_scan_next(scan, now->begun, unroll_select(now->begun, now->begun, nn_scalar(now->begun, 1.0)));
    return unroll_scan_output(scan, id);
  }
  const unroll_tensor goes_on = unroll_binary(id, nn_scalar(id, f->end), UNROLL_NE);
  unroll_scan_next(scan, now->alive, unroll_select(now->alive, goes_on, now->alive));
  unroll_scan_next(scan, now->count, unroll_add(now->count, unroll_cast(now->alive, UNROLL_I32)));
  return unroll_scan_output(scan, unroll_select(now->alive, id, nn_scalar(id, f->pad)));
}

static unroll_decoder_outputs run(nn_decoder *d, const unroll_decoder_feed *f) {
  const bool teacher = f->kind == UNROLL_FEED_TEACHER, free_running = f->kind == UNROLL_FEED_FREE;
  const nn_decoder_state first = nn_decoder_first(d, 1);
  const unroll_tensor lengths = free_running ? unroll_none() : f->lengths;
  unroll_decoder_outputs r = {.lengths = lengths};
  /* An id past the end may be none at all, whose vector would be NaN. */
  unroll_tensor inputs = lengths.graph ? unroll_length_mask(f->inputs, lengths) : f->inputs;
  nn_decoder_masks(d, free_running ? f->steps : nn_time(f->inputs));
  const choice start = first_choice(d, f);
  if (teacher)
    inputs = nn_decoder_inputs(d, inputs); /* of all steps at once */

  unroll_scan *scan = unroll_scan_begin(d->g, UNROLL_FORWARD, lengths);
  if (free_running)
    unroll_scan_steps(scan, f->steps);
  if (d->r.o.checkpoint)
    unroll_scan_checkpoint(scan, d->r.o.checkpoint);
  const nn_decoder_state before = nn_decoder_carry(d, scan, &first);
  const choice now = carry_choice(scan, &start);
  const unroll_tensor input = free_running ? unroll_none() : unroll_scan_input(scan, inputs);
  const unroll_tensor xw = teacher ? input : nn_decoder_inputs(d, next_input(d, f, input, &now));
  nn_decoder_state after;
  unroll_tensor weights;
  const unroll_tensor hidden = nn_decoder_step(d, scan, xw, &before, &after, &weights);
  nn_decoder_next(d, scan, &before, &after);
  r.hidden = unroll_scan_output(scan, hidden);
  if (weights.graph)
    r.weights = unroll_scan_output(scan, weights);
  if (!teacher) {
    const unroll_tensor logits = nn_decoder_logits(d, hidden);
    r.logits = unroll_scan_output(scan, logits);
    r.ids = choose(f, scan, &now, logits);
  }
  if (free_running)
    r.lengths = unroll_scan_last(scan, now.count);
  for (int32_t l = 0; l < d->r.o.layers; l++) {
    if (d->r.o.cells)
      d->r.o.cells[l] = unroll_scan_output(scan, after.layer[l].c);
    if (d->r.o.gates)
      d->r.o.gates[l] = unroll_scan_output(scan, after.gates[l]);
    r.h_last[l] = unroll_scan_last(scan, before.layer[l].h);
    if (before.layer[l].c.graph)
      r.c_last[l] = unroll_scan_last(scan, before.layer[l].c);
  }
  unroll_scan_end(scan);
  if (teacher) {
    r.logits = nn_decoder_logits(d, r.hidden);
    if (lengths.graph)
      r.logits = unroll_length_mask(r.logits, lengths);
  }
  return r;
}

unroll_decoder_outputs unroll_decode(const char *prefix, const unroll_decoder_options *options,
                                     const unroll_decoder_feed *feed) {
  const unroll_decoder_outputs nothing = {.logits = unroll_none()};
  nn_decoder d;
  if (!nn_decoder_open(&d, "decode", prefix, options, false))
    return nothing;
  if (!feed || !UNROLL_HAS(unroll_decoder_feed, feed, top_p)) {
    graph_fail(d.g, UNROLL_E_INVALID, "decode: the feed is missing, or its struct_size is too small");
    return nothing;
  }
  return check_feed(&d, feed) ? run(&d, feed) : nothing;
}
