/* SPDX-License-Identifier: Apache-2.0 */
/* nn_ctc_decode.c: labels read off the log-probabilities of one sequence: the best path, and prefix beam search. */
#include "base/base_private.h"
#include <inttypes.h>
#include <math.h>
#include <string.h>
#include <unroll/ctc.h>

static unroll_status check(const unroll_ctc_input *in, unroll_error *err) {
  if (!in || !UNROLL_HAS(unroll_ctc_input, in, stride) || (!in->log_probs && in->T > 0))
    return fail(err, UNROLL_E_INVALID,
                "ctc: the input or its log-probabilities are missing, or struct_size is too small");
  if (in->T < 0 || in->V < 1 || in->V > INT32_MAX || in->stride < in->V)
    return fail(err, UNROLL_E_RANGE,
                "ctc: T %" PRId64 ", V %" PRId64 ", stride %" PRId64 ", expected at least 0, at least 1, at least V",
                in->T, in->V, in->stride);
  if (in->blank < 0 || in->blank >= in->V)
    return fail(err, UNROLL_E_RANGE, "ctc: blank %d, expected 0 to %" PRId64, in->blank, in->V - 1);
  for (int64_t t = 0; t < in->T; t++)
    for (int64_t v = 0; v < in->V; v++)
      if (isnan(in->log_probs[t * in->stride + v]))
        return fail(err, UNROLL_E_RANGE,
                    "ctc: the log-probability of symbol %" PRId64 " at step %" PRId64 " is not a number", v, t);
  return UNROLL_OK;
}

unroll_status unroll_ctc_greedy(const unroll_ctc_input *in, int32_t *labels, int64_t *n, double *log_prob,
                                unroll_error *err) {
  TRY(check(in, err));
  if (!n || (!labels && in->T > 0))
    return fail(err, UNROLL_E_INVALID, "ctc: there is no room for the labels or their number");
  int64_t count = 0, before = in->blank;
  double sum = 0;
  for (int64_t t = 0; t < in->T; t++) {
    const float *p = in->log_probs + t * in->stride;
    int64_t best = 0;
    for (int64_t v = 1; v < in->V; v++)
      best = p[v] > p[best] ? v : best;
    sum += (double)p[best];
    if (best != in->blank && best != before)
      labels[count++] = (int32_t)best;
    before = best;
  }
  *n = count;
  if (log_prob)
    *log_prob = sum;
  return UNROLL_OK;
}

/* ---- prefix beam search ---- */

/* A prefix: its last label after another prefix. Prefix 0 is the empty one. One prefix is one element, also when it
 * comes back. */
typedef struct prefix {
  int32_t parent, label, child, sibling; /* -1: none */
  int32_t place;                         /* in the beam of this step, or -1 */
} prefix;
/* Log-probability of the paths of a prefix: those that end in a blank, the others. */
typedef struct entry {
  int32_t prefix; /* -1: not made yet: `label` after the prefix at place `from` */
  int32_t from, label;
  double blank, label_end, total;
} entry;
typedef struct beams {
  const unroll_ctc_input *in;
  prefix *prefixes;
  int32_t n_prefixes;
  entry *now, *next; /* next is a heap with the least total at its root */
  int64_t n_now, n_next, width;
} beams;

static double log_add(double a, double b) {
  const double most = a > b ? a : b, least = a > b ? b : a;
  return least == -INFINITY ? most : most + log1p(exp(least - most));
}

static bool less(const entry *a, const entry *b) { return a->total < b->total; }

static void sift_down(entry *heap, int64_t n, int64_t i) {
  for (;;) {
    int64_t least = i;
    for (int64_t k = 2 * i + 1; k <= 2 * i + 2 && k < n; k++)
      least = less(&heap[k], &heap[least]) ? k : least;
    if (least == i)
      return;
    const entry e = heap[i];
    heap[i] = heap[least];
    heap[least] = e;
    i = least;
  }
}

/* Keeps it if it is among the best `width` so far. */
static void offer(beams *b, entry e) {
  e.total = log_add(e.blank, e.label_end);
  if (e.total == -INFINITY)
    return;
  if (b->n_next == b->width) {
    if (less(&b->next[0], &e)) {
      b->next[0] = e;
      sift_down(b->next, b->n_next, 0);
    }
    return;
  }
  int64_t i = b->n_next++;
  b->next[i] = e;
  for (; i > 0 && less(&b->next[i], &b->next[(i - 1) / 2]); i = (i - 1) / 2) {
    const entry up = b->next[(i - 1) / 2];
    b->next[(i - 1) / 2] = b->next[i];
    b->next[i] = up;
  }
}

static int32_t find_child(const beams *b, int32_t parent, int32_t label) {
  int32_t c = b->prefixes[parent].child;
  while (c >= 0 && b->prefixes[c].label != label)
    c = b->prefixes[c].sibling;
  return c;
}

static int32_t make_child(beams *b, int32_t parent, int32_t label) {
  int32_t c = find_child(b, parent, label);
  if (c < 0) {
    c = b->n_prefixes++;
    b->prefixes[c] = (prefix){parent, label, -1, b->prefixes[parent].child, -1};
    b->prefixes[parent].child = c;
  }
  return c;
}

/* What label adds to a prefix: paths that end in that very label need a blank between. */
static double extended(const beams *b, const entry *e, int32_t label, double p) {
  const bool repeats = e->prefix != 0 && b->prefixes[e->prefix].label == label;
  return p + (repeats ? e->blank : e->total);
}

static void advance(beams *b, const float *p) {
  b->n_next = 0;
  for (int64_t i = 0; i < b->n_now; i++)
    b->prefixes[b->now[i].prefix].place = (int32_t)i;
  for (int64_t i = 0; i < b->n_now; i++) {
    const entry *e = &b->now[i];
    const prefix *own = &b->prefixes[e->prefix];
    entry stays = {.prefix = e->prefix, .blank = e->total + (double)p[b->in->blank], .label_end = -INFINITY};
    if (e->prefix != 0) {
      const double again = (double)p[own->label];
      stays.label_end = e->label_end + again;
      const int32_t from = b->prefixes[own->parent].place;
      if (from >= 0)
        stays.label_end = log_add(stays.label_end, extended(b, &b->now[from], own->label, again));
    }
    offer(b, stays);
    for (int32_t v = 0; v < b->in->V; v++) {
      if (v == b->in->blank)
        continue;
      const double grown = extended(b, e, v, (double)p[v]);
      if (b->n_next == b->width && grown <= b->next[0].total)
        continue;
      const int32_t child = find_child(b, e->prefix, v);
      if (child < 0 || b->prefixes[child].place < 0) /* else it went to that prefix above */
        offer(b, (entry){.prefix = -1, .from = e->prefix, .label = v, .blank = -INFINITY, .label_end = grown});
    }
  }
  for (int64_t i = 0; i < b->n_now; i++)
    b->prefixes[b->now[i].prefix].place = -1;
  for (int64_t i = 0; i < b->n_next; i++)
    if (b->next[i].prefix < 0)
      b->next[i].prefix = make_child(b, b->next[i].from, b->next[i].label);
  entry *const old = b->now;
  b->now = b->next;
  b->n_now = b->n_next;
  b->next = old;
}

static int64_t write_labels(const beams *b, int32_t at, int32_t *labels) {
  int64_t n = 0;
  for (int32_t p = at; p != 0; p = b->prefixes[p].parent)
    n++;
  int64_t i = n;
  for (int32_t p = at; p != 0; p = b->prefixes[p].parent)
    labels[--i] = b->prefixes[p].label;
  return n;
}

unroll_status unroll_ctc_beam(const unroll_ctc_input *in, int64_t beam, int64_t n_best, int32_t *labels,
                              int64_t *lengths, double *log_probs, int64_t *n_found, unroll_error *err) {
  TRY(check(in, err));
  if (beam < 1 || n_best < 1 || n_best > beam)
    return fail(err, UNROLL_E_RANGE,
                "ctc: beam %" PRId64 ", the best %" PRId64 ", expected at least 1 and 1 to the beam", beam, n_best);
  if (!lengths || !log_probs || !n_found || (!labels && in->T > 0))
    return fail(err, UNROLL_E_INVALID, "ctc: there is no room for labels, lengths, log-probabilities or their number");
  int64_t most;
  if (!extent_mul(in->T, beam, &most) || most >= INT32_MAX)
    return fail(err, UNROLL_E_RANGE, "ctc: beam %" PRId64 " over %" PRId64 " steps, expected less than 2^31 prefixes",
                beam, in->T);
  beams b = {.in = in, .n_prefixes = 1, .n_now = 1, .width = beam};
  b.prefixes = mem_array(NULL, (uint64_t)most + 1, sizeof *b.prefixes);
  b.now = mem_array(NULL, (uint64_t)beam, sizeof *b.now);
  b.next = mem_array(NULL, (uint64_t)beam, sizeof *b.next);
  unroll_status st = UNROLL_OK;
  if (!b.prefixes || !b.now || !b.next)
    st = fail(err, UNROLL_E_MEMORY, "out of memory for a beam of %" PRId64 " prefixes", beam);
  else {
    b.prefixes[0] = (prefix){-1, -1, -1, -1, -1};
    b.now[0] = (entry){.blank = 0, .label_end = -INFINITY, .total = 0};
    for (int64_t t = 0; t < in->T; t++)
      advance(&b, in->log_probs + t * in->stride);
    for (int64_t i = b.n_now; i-- > 1;) { /* a heap of the least: what is taken off goes to the end */
      const entry e = b.now[0];
      b.now[0] = b.now[i];
      b.now[i] = e;
      sift_down(b.now, i, 0);
    }
    *n_found = b.n_now < n_best ? b.n_now : n_best;
    for (int64_t i = 0; i < *n_found; i++) {
      lengths[i] = write_labels(&b, b.now[i].prefix, labels ? labels + i * in->T : NULL);
      log_probs[i] = b.now[i].total;
    }
  }
  mem_free(NULL, b.prefixes);
  mem_free(NULL, b.now);
  mem_free(NULL, b.next);
  return st;
}
