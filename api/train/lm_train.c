/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The training loop. Updates are queued one behind the other; the device keeps the latest losses and norms in a state,
 * which the host reads only for a report, so that it does not wait for every update.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "train/train_private.h"

/* A report should come about this often, where the caller does not say. */
#define REPORT_SECONDS 0.25

double lm_seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- evaluation ---- */

static unroll_status make_evaluation(unroll_lm *lm, unroll_error *err) {
  unroll_graph *graph;
  TRY(lm_graph_evaluate(lm, &graph, err));
  TRY(lm_program_make(lm, graph, &lm->evaluate, err));
  const unroll_status status = lm_program_parameters(lm, &lm->evaluate, err);
  if (status != UNROLL_OK)
    lm_program_free(&lm->evaluate);
  return status;
}

static unroll_status evaluate(unroll_lm *lm, double *loss, unroll_error *err) {
  if (!lm->evaluate.binding)
    TRY(make_evaluation(lm, err));
  unroll_binding *b = lm->evaluate.binding;
  const unroll_text_stream *v = &lm->validation;
  const uint64_t bytes = (uint64_t)(v->T * v->B) * sizeof(int32_t);
  double sum = 0;
  TRY(lm_program_reset(lm, &lm->evaluate, err));
  int64_t pending = 0;
  for (int64_t i = 0; i < v->updates; i++) {
    unroll_text_stream_fill(v, (uint64_t)i, lm->x, lm->targets);
    TRY(unroll_binding_write(b, "x", lm->x, bytes, err));
    TRY(unroll_binding_write(b, "targets", lm->targets, bytes, err));
    TRY(unroll_run(b, NULL, err));
    if (++pending < LM_HISTORY && i + 1 < v->updates)
      continue;
    float losses[LM_HISTORY];
    TRY(unroll_binding_read(b, "losses", losses, sizeof losses, err));
    for (; pending > 0; pending--)
      sum += (double)losses[LM_HISTORY - pending];
  }
  *loss = sum / (double)v->updates;
  return UNROLL_OK;
}

unroll_status unroll_lm_evaluate(unroll_lm *lm, double *loss, unroll_error *err) {
  if (!lm || !loss)
    return fail(err, UNROLL_E_INVALID, "unroll_lm_evaluate: %s is NULL", lm ? "loss" : "the model");
  TRY(lm_ready(lm, "evaluated", err));
  if (!lm->validation.ids)
    return fail(err, UNROLL_E_STATE, "no part of the text is kept for validation: the option validation is 0");
  return evaluate(lm, loss, err);
}

/* ---- updates ---- */

static double epochs_done(const unroll_lm *lm, uint64_t update) { return (double)update / (double)lm->stream.updates; }

double unroll_lm_learning_rate(const unroll_lm *lm, uint64_t update) {
  if (lm->stream.updates == 0 || update == 0)
    return NAN;
  const double e = epochs_done(lm, update - 1);
  return unroll_schedule_rate(&lm->options.schedule,
                              lm->options.schedule.kind == UNROLL_SCHEDULE_COSINE ? e : floor(e));
}

/* Queues update number lm->update, counted from 0. */
static unroll_status queue_update(unroll_lm *lm, unroll_error *err) {
  unroll_binding *b = lm->train.binding;
  const uint64_t bytes = (uint64_t)(lm->stream.T * lm->stream.B) * sizeof(int32_t);
  if (lm->update >= INT32_MAX)
    return fail(err, UNROLL_E_RANGE, "update %llu: 2^31-1 updates are the most", (unsigned long long)lm->update + 1);
  if (unroll_text_stream_fill(&lm->stream, lm->update, lm->x, lm->targets))
    TRY(lm_program_reset(lm, &lm->train, err));
  const float lr = (float)unroll_lm_learning_rate(lm, lm->update + 1);
  const int32_t step = (int32_t)(lm->update + 1);
  TRY(unroll_binding_write(b, "x", lm->x, bytes, err));
  TRY(unroll_binding_write(b, "targets", lm->targets, bytes, err));
  TRY(unroll_binding_write(b, "lr", &lr, sizeof lr, err));
  if (!lm_scale_is_dynamic(&lm->options)) /* which counts the steps itself */
    TRY(unroll_binding_write(b, "step", &step, sizeof step, err));
  const unroll_run_options run = {.struct_size = sizeof run, .seed = lm->options.seed, .update = lm->update};
  TRY(unroll_run(b, &run, err));
  lm->update++;
  return UNROLL_OK;
}

/* ---- a run ---- */

struct run {
  unroll_lm *lm;
  const unroll_lm_train_options *options;
  uint64_t first, last;    /* updates at its start and end */
  double start, deadline;  /* seconds of the clock; deadline INFINITY: none */
  double report_start;     /* when the updates since the last report began */
  uint32_t every, pending; /* updates from report to report, and since the last one */
};

static bool evaluation_due(const struct run *r) {
  const uint64_t every = r->options->evaluate_every ? r->options->evaluate_every : (uint64_t)r->lm->stream.updates;
  return r->lm->validation.ids && r->lm->update % every == 0;
}

static unroll_status diverged(unroll_lm *lm, uint64_t update, float loss, float norm, const float *scale,
                              unroll_error *err) {
  const double fixed = lm->options.loss_scale;
  char scaled[64] = "";
  if (scale)
    snprintf(scaled, sizeof scaled, ", dynamic loss scale at %g", (double)*scale);
  else if (fixed != 1)
    snprintf(scaled, sizeof scaled, ", loss scale %g", fixed);
  lm->diverged = update;
  return fail(err, UNROLL_E_RANGE,
              "the training diverged at update %llu: loss %g, norm of the gradient %g, learning rate %g%s; a lower "
              "learning rate%s or clip may help",
              (unsigned long long)update, (double)loss, (double)norm, unroll_lm_learning_rate(lm, update), scaled,
              !scale && fixed != 1 ? ", loss scale" : "");
}

/* Gradients that are not finite end the training only where there is no scale that halving could help. scales NULL: it
 * is not dynamic. Counts what was skipped. */
static unroll_status check_finite(const struct run *r, const float *losses, const float *norms, const float *scales,
                                  uint64_t *skipped, unroll_error *err) {
  for (uint32_t i = 0; i < r->pending; i++) {
    const bool skips = scales && !isfinite(norms[i]) && (double)scales[i] > LM_LOSS_SCALE_LEAST;
    if (!isfinite(losses[i]) || !(isfinite(norms[i]) || skips))
      return diverged(r->lm, r->lm->update - r->pending + i + 1, losses[i], norms[i], scales ? &scales[i] : NULL, err);
    *skipped += skips;
  }
  return UNROLL_OK;
}

static double seconds_left(const struct run *r, double now) {
  const double pace = (now - r->start) / (double)(r->lm->update - r->first);
  const double to_last = r->last == UINT64_MAX ? (double)INFINITY : (double)(r->last - r->lm->update) * pace;
  const double to_deadline = r->deadline - now;
  return fmax(0, fmin(to_last, to_deadline));
}

/* Evaluates if it is time to, keeping the best. */
static unroll_status evaluate_report(struct run *r, unroll_lm_progress *p, unroll_error *err) {
  unroll_lm *lm = r->lm;
  p->validation_loss = (double)NAN;
  if (!evaluation_due(r) && !(p->final && lm->validation.ids))
    return UNROLL_OK;
  TRY(evaluate(lm, &p->validation_loss, err));
  /* A best loss that is NaN is none: anything is lower. */
  if (p->validation_loss < lm->best_loss || (isnan(lm->best_loss) && !isnan(p->validation_loss))) {
    lm->best_loss = p->validation_loss;
    lm->best_update = lm->update;
    p->improved = 1;
  }
  return UNROLL_OK;
}

/* Between two reports about REPORT_SECONDS. A factor of four lies between the bounds, so that the number settles. */
static void adapt(struct run *r, double seconds) {
  if (r->options->report_every)
    return;
  if (seconds < REPORT_SECONDS / 2 && r->every < LM_HISTORY && r->pending == r->every)
    r->every *= 2;
  else if (seconds > REPORT_SECONDS * 2 && r->every > 1)
    r->every /= 2;
}

static unroll_status report(struct run *r, bool *final, unroll_error *err) {
  unroll_lm *lm = r->lm;
  const bool dynamic = lm_scale_is_dynamic(&lm->options);
  float losses[LM_HISTORY], norms[LM_HISTORY], scales[LM_HISTORY];
  TRY(unroll_binding_read(lm->train.binding, "losses", losses, sizeof losses, err));
  TRY(unroll_binding_read(lm->train.binding, "grad_norms", norms, sizeof norms, err));
  if (dynamic)
    TRY(unroll_binding_read(lm->train.binding, LM_LOSS_SCALES, scales, sizeof scales, err));
  const uint32_t n = r->pending;
  const float *my_losses = losses + LM_HISTORY - n, *my_norms = norms + LM_HISTORY - n;
  const float *my_scales = dynamic ? scales + LM_HISTORY - n : NULL;
  uint64_t skipped = 0;
  TRY(check_finite(r, my_losses, my_norms, my_scales, &skipped, err));
  double now = lm_seconds();
  const double took = now - r->report_start;
  unroll_lm_progress p = {.struct_size = sizeof p,
                          .n_updates = n,
                          .losses = my_losses,
                          .grad_norms = my_norms,
                          .loss_scales = my_scales,
                          .skipped = skipped};
  p.final = lm->update >= r->last || now >= r->deadline;
  TRY(evaluate_report(r, &p, err));
  for (uint32_t i = 0; i < n; i++)
    p.loss += (double)my_losses[i] / n;
  p.grad_norm = (double)my_norms[n - 1];
  p.update = lm->update;
  p.last_update = r->last;
  p.epoch = epochs_done(lm, lm->update);
  p.learning_rate = unroll_lm_learning_rate(lm, lm->update);
  p.characters_per_second = (double)(lm->stream.T * lm->stream.B) * n / fmax(took, 1e-9);
  now = lm_seconds();
  p.seconds = now - r->start;
  p.seconds_left = p.final ? 0 : seconds_left(r, now);
  adapt(r, took);
  r->pending = 0;
  *final = p.final != 0;
  if (r->options->progress) {
    lm->busy = true;
    const int cancelled = r->options->progress(r->options->ctx, &p);
    lm->busy = false;
    if (cancelled)
      return fail(err, UNROLL_E_CANCELLED, "the training was cancelled after update %llu",
                  (unsigned long long)lm->update);
  }
  r->report_start = lm_seconds();
  return UNROLL_OK;
}

static unroll_status check_limits(const unroll_lm_train_options *o, unroll_error *err) {
  if (o->struct_size < sizeof *o)
    return fail(err, UNROLL_E_INVALID, "unroll_lm_train_options: struct_size %u, it must be at least %zu",
                o->struct_size, sizeof *o);
  if (!(o->epochs >= 0 && o->epochs <= 1e9))
    return fail(err, UNROLL_E_INVALID, "epochs %g, it must be from 0 to 1e9", o->epochs);
  if (!(o->minutes >= 0 && o->minutes <= 1e9))
    return fail(err, UNROLL_E_INVALID, "minutes %g, it must be from 0 to 1e9", o->minutes);
  if (o->report_every > LM_HISTORY)
    return fail(err, UNROLL_E_INVALID, "report_every %u, it must be at most %d", o->report_every, LM_HISTORY);
  if (o->epochs == 0 && o->updates == 0 && o->minutes == 0)
    return fail(err, UNROLL_E_INVALID, "no limit: one of epochs, updates and minutes must be given");
  return UNROLL_OK;
}

/* A cosine that was left open ends where the training does. */
static unroll_status close_schedule(unroll_lm *lm, uint64_t last, unroll_error *err) {
  unroll_schedule *s = &lm->options.schedule;
  if (s->kind != UNROLL_SCHEDULE_COSINE || s->total > 0)
    return UNROLL_OK;
  if (last == UINT64_MAX)
    return fail(err, UNROLL_E_INVALID,
                "schedule cosine: its total is 0, and neither epochs nor updates limit the training");
  s->total = epochs_done(lm, last);
  return UNROLL_OK;
}

unroll_status unroll_lm_train(unroll_lm *lm, const unroll_lm_train_options *options, unroll_error *err) {
  if (!lm || !options)
    return fail(err, UNROLL_E_INVALID, "unroll_lm_train: %s is NULL", lm ? "options" : "the model");
  TRY(lm_ready(lm, "trained", err));
  TRY(check_limits(options, err));
  struct run r = {.lm = lm, .options = options, .first = lm->update, .last = UINT64_MAX, .deadline = (double)INFINITY};
  if (options->epochs > 0)
    r.last = (uint64_t)ceil(options->epochs * (double)lm->stream.updates);
  if (options->updates > 0 && options->updates < r.last)
    r.last = options->updates;
  TRY(close_schedule(lm, r.last, err));
  r.every = options->report_every ? options->report_every : 1;
  r.start = r.report_start = lm_seconds();
  if (options->minutes > 0)
    r.deadline = r.start + 60 * options->minutes;
  bool final = lm->update >= r.last;
  while (!final) {
    TRY(queue_update(lm, err));
    r.pending++;
    if (r.pending == r.every || lm->update >= r.last || evaluation_due(&r))
      TRY(report(&r, &final, err));
  }
  return UNROLL_OK;
}

unroll_status unroll_lm_set_schedule(unroll_lm *lm, const unroll_schedule *schedule, unroll_error *err) {
  if (!lm || !schedule)
    return fail(err, UNROLL_E_INVALID, "unroll_lm_set_schedule: %s is NULL", lm ? "schedule" : "the model");
  TRY(lm_not_busy(lm, "given a schedule", err));
  unroll_lm_options options = lm->options;
  options.schedule = *schedule;
  TRY(lm_options_check(&options, unroll_vocabulary_count(lm->vocabulary), err));
  lm->options = options;
  return UNROLL_OK;
}
