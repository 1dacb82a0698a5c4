/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The training loop. Updates are queued one behind the other; the device keeps the latest losses and norms in a state,
 * which the host reads only for a report, so that it does not wait for every update.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "train/trainer.h"

/* A report should come about this often, where the caller does not say. */
#define REPORT_SECONDS 0.25

double trainer_seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static unroll_run_options run_options(const struct trainer *t, const struct trainer_feed *f) {
  return (unroll_run_options){.struct_size = sizeof(unroll_run_options),
                              .n_dims = f->n_dims,
                              .dims = f->n_dims ? f->dims : NULL,
                              .seed = t->options.seed,
                              .update = t->update,
                              .row0 = f->row0};
}

/* ---- evaluation ---- */

static unroll_status make_evaluation(struct trainer *t, unroll_error *err) {
  unroll_graph *graph;
  TRY(trainer_graph_evaluate(t, 0, &graph, err));
  TRY(trainer_program_make(t, graph, &t->evaluate, err));
  const unroll_status status = trainer_program_parameters(t, &t->evaluate, err);
  if (status != UNROLL_OK)
    trainer_program_free(&t->evaluate);
  return status;
}

/* The program of a variant, made where it is not there yet; that of variant 0 is there. */
static unroll_status find_variant(struct trainer *t, bool training, uint32_t v, struct trainer_program **program,
                                  unroll_error *err) {
  struct trainer_program *const first = training ? &t->train : &t->evaluate;
  *program = v == 0 ? first : training ? &t->more_train[v] : &t->more_evaluate[v];
  if ((*program)->binding)
    return UNROLL_OK;
  struct trainer_build b;
  if (training)
    TRY(trainer_graph_train(t, v, &b, err));
  else
    TRY(trainer_graph_evaluate(t, v, &b.graph, err));
  return trainer_program_variant(t, b.graph, first, *program, err);
}

unroll_status trainer_program_of(struct trainer *t, bool training, const struct trainer_place *place,
                                 struct trainer_program **program, unroll_error *err) {
  const uint32_t v = t->task->variant ? t->task->variant(t->owner, place, training) : 0;
  return find_variant(t, training, v, program, err);
}

/* A history of a program, where it has one. */
static unroll_status read_history(unroll_binding *b, const char *name, float values[TRAINER_HISTORY], bool *has,
                                  unroll_error *err) {
  unroll_error inner = UNROLL_ERROR_INIT;
  const unroll_status status = unroll_binding_read(b, name, values, TRAINER_HISTORY * sizeof values[0], &inner);
  *has = status == UNROLL_OK;
  return status == UNROLL_OK || status == UNROLL_E_NOT_FOUND ? UNROLL_OK : fail(err, status, "%s", inner.message);
}

unroll_status trainer_evaluate_with(struct trainer *t, struct trainer_program *program, uint64_t batches, double *loss,
                                    double *metric, unroll_error *err) {
  unroll_binding *b = program->binding;
  double sum = 0, metrics = 0, total = 0;
  bool weighs, measures = false;
  int pending = 0;
  for (uint64_t i = 0; i < batches; i++) {
    struct trainer_feed feed = {.n_dims = 0};
    if (program == &t->evaluate) {
      struct trainer_program *variant;
      TRY(trainer_program_of(t, false, &(struct trainer_place){.index = i, .parts = 1}, &variant, err));
      b = variant->binding;
    }
    TRY(t->task->feed_evaluation(t->owner, i, b, &feed, err));
    const unroll_run_options run = run_options(t, &feed);
    TRY(unroll_run(b, &run, err));
    if (++pending < TRAINER_HISTORY && i + 1 < batches)
      continue;
    float losses[TRAINER_HISTORY], weights[TRAINER_HISTORY], values[TRAINER_HISTORY];
    TRY(unroll_binding_read(b, TRAINER_LOSSES, losses, sizeof losses, err));
    TRY(read_history(b, TRAINER_WEIGHTS, weights, &weighs, err));
    TRY(read_history(b, TRAINER_METRICS, values, &measures, err));
    for (; pending > 0; pending--) {
      const int k = TRAINER_HISTORY - pending;
      const double weight = weighs ? (double)weights[k] : 1;
      sum += weight * (double)losses[k];
      metrics += measures ? weight * (double)values[k] : 0;
      total += weight;
    }
  }
  *loss = sum / total;
  *metric = measures ? metrics / total : (double)NAN;
  return UNROLL_OK;
}

unroll_status trainer_evaluate(struct trainer *t, double *loss, double *metric, unroll_error *err) {
  if (t->task->evaluate)
    return t->task->evaluate(t->owner, loss, metric, err);
  if (!t->evaluate.binding)
    TRY(make_evaluation(t, err));
  return trainer_evaluate_with(t, &t->evaluate, t->evaluation_batches, loss, metric, err);
}

/* ---- epochs and rates ---- */

/* The update that an epoch begins with. */
static uint64_t epoch_begin(const struct trainer *t, uint64_t epoch) {
  if (epoch <= t->steady)
    return t->steady ? t->begin_at[epoch] : 0;
  const uint64_t before = t->steady ? t->begin_at[t->steady] : 0;
  return before + (epoch - t->steady) * t->task->epoch_updates(t->owner, t->steady);
}

struct trainer_place trainer_place_of(const struct trainer *t, uint64_t update) {
  const uint64_t changing = epoch_begin(t, t->steady);
  if (update >= changing) {
    const uint64_t n = t->task->epoch_updates(t->owner, t->steady), after = update - changing;
    return (struct trainer_place){.update = update, .epoch = t->steady + after / n, .index = after % n, .parts = 1};
  }
  uint64_t lo = 0, hi = t->steady; /* begin_at[lo] <= update < begin_at[hi] */
  while (hi - lo > 1) {
    const uint64_t middle = lo + (hi - lo) / 2;
    if (t->begin_at[middle] <= update)
      lo = middle;
    else
      hi = middle;
  }
  return (struct trainer_place){.update = update, .epoch = lo, .index = update - t->begin_at[lo], .parts = 1};
}

static double epochs_done(const struct trainer *t, uint64_t update) {
  if (t->steady == 0)
    return (double)update / (double)t->task->epoch_updates(t->owner, 0);
  const struct trainer_place p = trainer_place_of(t, update);
  return (double)p.epoch + (double)p.index / (double)t->task->epoch_updates(t->owner, p.epoch);
}

/* The update that so many epochs end with. */
static uint64_t epochs_end(const struct trainer *t, double epochs) {
  const uint64_t whole = t->steady ? (uint64_t)epochs : 0;
  const double rest = epochs - (double)whole;
  return epoch_begin(t, whole) + (uint64_t)ceil(rest * (double)t->task->epoch_updates(t->owner, whole));
}

double trainer_learning_rate(const struct trainer *t, uint64_t update) {
  const unroll_schedule *s = &t->options.schedule;
  const uint64_t warmup = (uint64_t)t->options.warmup;
  if (!t->ready || update == 0)
    return (double)NAN;
  if (update <= warmup)
    return unroll_schedule_rate(s, 0) * ((double)update / (double)warmup);
  const double e = epochs_done(t, update - 1) - (warmup ? epochs_done(t, warmup) : 0);
  return unroll_schedule_rate(s, s->kind == UNROLL_SCHEDULE_COSINE ? e : floor(e));
}

/* ---- updates ---- */

unroll_status trainer_begin_update(struct trainer *t, struct trainer_place *place, struct trainer_program **program,
                                   unroll_error *err) {
  if (t->update >= INT32_MAX)
    return fail(err, UNROLL_E_RANGE, "update %llu: 2^31-1 updates are the most", (unsigned long long)t->update + 1);
  const float lr = (float)trainer_learning_rate(t, t->update + 1);
  const int32_t step = (int32_t)(t->update + 1);
  *place = trainer_place_of(t, t->update);
  TRY(trainer_program_of(t, true, place, program, err));
  unroll_binding *b = (*program)->binding;
  TRY(unroll_binding_write(b, "lr", &lr, sizeof lr, err));
  if (!trainer_counts_on_device(&t->options))
    TRY(unroll_binding_write(b, "step", &step, sizeof step, err));
  place->parts = t->options.accumulate;
  return UNROLL_OK;
}

unroll_status trainer_feed_part(struct trainer *t, const struct trainer_place *place, unroll_binding *b,
                                struct trainer_feed *feed, unroll_run_options *run, unroll_error *err) {
  const int32_t part = (int32_t)place->part;
  *feed = (struct trainer_feed){.n_dims = 0};
  if (place->parts > 1)
    TRY(unroll_binding_write(b, "part", &part, sizeof part, err));
  TRY(t->task->feed(t->owner, place, b, feed, err));
  *run = run_options(t, feed);
  return UNROLL_OK;
}

unroll_status trainer_queue_update(struct trainer *t, int64_t *items, unroll_error *err) {
  struct trainer_place place;
  struct trainer_program *program;
  TRY(trainer_begin_update(t, &place, &program, err));
  for (place.part = 0; place.part < place.parts; place.part++) {
    struct trainer_feed feed;
    unroll_run_options run;
    TRY(trainer_feed_part(t, &place, program->binding, &feed, &run, err));
    TRY(unroll_run(program->binding, &run, err));
    *items += feed.items;
  }
  t->update++;
  return UNROLL_OK;
}

/* ---- a run ---- */

struct run {
  struct trainer *t;
  const unroll_train_options *options;
  uint64_t first, last;    /* updates at its start and end */
  double start, deadline;  /* seconds of the clock; deadline INFINITY: none */
  double report_start;     /* when the updates since the last report began */
  uint32_t every, pending; /* updates from report to report, and since the last one, */
  int64_t items;           /* with so many time steps */
};

static bool evaluation_due(const struct run *r) {
  if (!r->t->evaluation_batches)
    return false;
  if (r->options->evaluate_every)
    return r->t->update % r->options->evaluate_every == 0;
  return trainer_place_of(r->t, r->t->update).index == 0;
}

/* ---- numbers that are not finite ---- */

/* t->nonfinite: the loss, and whose gradients. The device's note of it is cleared, for the next time. */
static unroll_status find_nonfinite(struct trainer *t, float loss, unroll_error *err) {
  float squares[TRAINER_MAX_PARAMS];
  uint32_t n = 0, at = 0, bad = 0, more = 0;
  for (uint32_t i = 0; i < t->n_tensors; i++)
    n += t->tensors[i].role == UNROLL_ROLE_PARAM && !trainer_is_frozen(&t->options, t->tensors[i].name);
  TRY(unroll_binding_read(t->train.binding, TRAINER_NONFINITE, squares, n * sizeof squares[0], err));
  TRY(unroll_binding_clear(t->train.binding, TRAINER_NONFINITE, err));
  size_t used = 0;
  t->nonfinite[0] = '\0';
  if (!isfinite(loss))
    used = (size_t)snprintf(t->nonfinite, sizeof t->nonfinite, "the loss");
  for (uint32_t i = 0; i < t->n_tensors; i++) {
    const struct trainer_tensor *p = &t->tensors[i];
    if (p->role != UNROLL_ROLE_PARAM || trainer_is_frozen(&t->options, p->name))
      continue;
    if (isfinite(squares[at++]))
      continue;
    if (++bad > 2 || used >= sizeof t->nonfinite - 80) {
      more++;
      continue;
    }
    const char *const joint = bad > 1 ? ", " : used ? " and the squared gradient of " : "the squared gradient of ";
    const int k = snprintf(t->nonfinite + used, sizeof t->nonfinite - used, "%s%.48s", joint, p->name);
    used += k > 0 ? (size_t)k : 0;
  }
  if (more)
    snprintf(t->nonfinite + used, sizeof t->nonfinite - used, " and %u more", more);
  else if (used == 0) /* each is finite, but their sum of squares is not */
    snprintf(t->nonfinite, sizeof t->nonfinite, "the gradient's norm");
  return UNROLL_OK;
}

/* t->nonfinite: the place in the network, from the same update made once more. */
static unroll_status say_where(struct trainer *t, uint64_t update, bool stay, unroll_error *err) {
  unroll_nonfinite found = {.struct_size = sizeof found};
  char text[UNROLL_NONFINITE_TEXT];
  TRY(trainer_search(t, update, stay, &found, err));
  snprintf(t->nonfinite, sizeof t->nonfinite, "update %llu: %s", (unsigned long long)update,
           found.found ? unroll_nonfinite_text(&found, text, sizeof text)
                       : "not finite, but when it was made again all numbers were");
  return UNROLL_OK;
}

static unroll_status diverged(struct trainer *t, uint64_t update, float loss, float norm, const float *scale,
                              unroll_error *err) {
  loss = isnan(loss) ? NAN : loss; /* without a sign, which says nothing */
  norm = isnan(norm) ? NAN : norm;
  const double fixed = t->options.loss_scale;
  char scaled[64] = "";
  if (scale)
    snprintf(scaled, sizeof scaled, ", dynamic loss scale at %g", (double)*scale);
  else if (fixed != 1)
    snprintf(scaled, sizeof scaled, ", loss scale %g", fixed);
  if (t->before) {
    const double rate = trainer_learning_rate(t, update);
    TRY(say_where(t, update, true, err));
    return fail(err, UNROLL_E_RANGE, "%s; loss %g, gradient %g, learning rate %g%s; the model is that of update %llu",
                t->nonfinite, (double)loss, (double)norm, rate, scaled, (unsigned long long)t->update);
  }
  TRY(find_nonfinite(t, loss, err));
  t->diverged = update;
  return fail(err, UNROLL_E_RANGE,
              "the training diverged at update %llu: loss %g, norm of the gradient %g, learning rate %g%s; a lower "
              "learning rate%s or clip may help; not finite: %s",
              (unsigned long long)update, (double)loss, (double)norm, trainer_learning_rate(t, update), scaled,
              !scale && fixed != 1 ? ", loss scale" : "", t->nonfinite);
}

/*
 * What is not finite ends the training, unless the update was skipped: by a scale that halving could help, or since
 * updates may be. scales NULL: it is not dynamic. Counts what was skipped, and says where the first one was.
 */
static unroll_status check_finite(const struct run *r, const float *losses, const float *norms, const float *scales,
                                  uint64_t *skipped, unroll_error *err) {
  struct trainer *t = r->t;
  const bool may_skip = t->options.nonfinite == UNROLL_NONFINITE_SKIP;
  for (uint32_t i = 0; i < r->pending; i++) {
    const bool bad = !isfinite(losses[i]) || !isfinite(norms[i]);
    const bool overflowed = scales && isfinite(losses[i]) && (double)scales[i] > TRAINER_LOSS_SCALE_LEAST;
    const uint64_t update = t->update - r->pending + i + 1;
    if (!bad) {
      t->skipped_a_row = 0;
      continue;
    }
    if (!may_skip && !overflowed)
      return diverged(t, update, losses[i], norms[i], scales ? &scales[i] : NULL, err);
    if ((*skipped)++ == 0)
      TRY(find_nonfinite(t, losses[i], err));
    if (t->before && may_skip && !overflowed && !t->searched) {
      TRY(say_where(t, update, false, err));
      t->searched = true;
    }
    if (may_skip && !overflowed && ++t->skipped_a_row >= TRAINER_MOST_SKIPPED) {
      t->skipped_a_row = 0;
      return fail(err, UNROLL_E_RANGE,
                  "%d updates in a row were skipped, the last one update %llu; a lower learning rate or clip may help; "
                  "not finite: %s",
                  TRAINER_MOST_SKIPPED, (unsigned long long)update, t->nonfinite);
    }
  }
  return UNROLL_OK;
}

/* ---- reports ---- */

static double seconds_left(const struct run *r, double now) {
  const double pace = (now - r->start) / (double)(r->t->update - r->first);
  const double to_last = r->last == UINT64_MAX ? (double)INFINITY : (double)(r->last - r->t->update) * pace;
  const double to_deadline = r->deadline - now;
  return fmax(0, fmin(to_last, to_deadline));
}

/* Evaluates if it is time to, keeping the best. */
static unroll_status evaluate_report(struct run *r, unroll_train_progress *p, unroll_error *err) {
  struct trainer *t = r->t;
  const bool due = evaluation_due(r);
  p->validation_loss = p->validation_metric = (double)NAN;
  if (!due && !(p->final && t->evaluation_batches))
    return UNROLL_OK;
  TRY(trainer_evaluate(t, &p->validation_loss, &p->validation_metric, err));
  p->evaluated = 1;
  /* A best loss that is NaN is none: anything is lower. */
  if (p->validation_loss < t->best_loss || (isnan(t->best_loss) && !isnan(p->validation_loss))) {
    t->best_loss = p->validation_loss;
    t->best_update = t->update;
    t->stale = 0;
    p->improved = 1;
  } else if (due && r->options->patience > 0 && ++t->stale >= (int64_t)r->options->patience)
    p->final = p->patience_ended = 1;
  return UNROLL_OK;
}

/* Between two reports about REPORT_SECONDS. A factor of four lies between the bounds, so that the number settles. */
static void adapt(struct run *r, double seconds) {
  if (r->options->report_every)
    return;
  if (seconds < REPORT_SECONDS / 2 && r->every < TRAINER_HISTORY && r->pending == r->every)
    r->every *= 2;
  else if (seconds > REPORT_SECONDS * 2 && r->every > 1)
    r->every /= 2;
}

/* The mean of those that are finite; NaN: of none. */
static double mean_of(const float *values, uint32_t n) {
  uint32_t finite = 0;
  double mean = 0;
  for (uint32_t i = 0; i < n; i++)
    finite += isfinite(values[i]) != 0;
  for (uint32_t i = 0; i < n; i++)
    if (isfinite(values[i]))
      mean += (double)values[i] / finite;
  return finite ? mean : (double)NAN;
}

/* The latest values of the training program's histories. */
struct histories {
  float losses[TRAINER_HISTORY], norms[TRAINER_HISTORY], scales[TRAINER_HISTORY], metrics[TRAINER_HISTORY];
  bool has_scales, has_metrics;
};

static unroll_status read_histories(const struct trainer *t, struct histories *h, unroll_error *err) {
  unroll_binding *b = t->train.binding;
  TRY(unroll_binding_read(b, TRAINER_LOSSES, h->losses, sizeof h->losses, err));
  TRY(unroll_binding_read(b, TRAINER_NORMS, h->norms, sizeof h->norms, err));
  TRY(read_history(b, TRAINER_SCALES, h->scales, &h->has_scales, err));
  return read_history(b, TRAINER_METRICS, h->metrics, &h->has_metrics, err);
}

static unroll_status report(struct run *r, bool *final, unroll_error *err) {
  struct trainer *t = r->t;
  struct histories h;
  TRY(read_histories(t, &h, err));
  const uint32_t n = r->pending, from = TRAINER_HISTORY - n;
  unroll_train_progress p = {.struct_size = sizeof p,
                             .n_updates = n,
                             .losses = h.losses + from,
                             .grad_norms = h.norms + from,
                             .loss_scales = h.has_scales ? h.scales + from : NULL};
  TRY(check_finite(r, p.losses, p.grad_norms, p.loss_scales, &p.skipped, err));
  double now = trainer_seconds();
  const double took = now - r->report_start;
  p.final = t->update >= r->last || now >= r->deadline;
  TRY(evaluate_report(r, &p, err));
  p.nonfinite = p.skipped ? t->nonfinite : NULL;
  p.loss = mean_of(p.losses, n);
  p.metric = h.has_metrics ? mean_of(h.metrics + from, n) : (double)NAN;
  p.grad_norm = (double)p.grad_norms[n - 1];
  p.update = t->update;
  p.last_update = r->last;
  p.epoch = epochs_done(t, t->update);
  p.learning_rate = trainer_learning_rate(t, t->update);
  p.steps_per_second = (double)r->items / fmax(took, 1e-9);
  p.update_seconds = took / n;
  const unroll_train_parameters parameters = {t};
  p.parameters = &parameters;
  now = trainer_seconds();
  p.seconds = now - r->start;
  p.seconds_left = p.final ? 0 : seconds_left(r, now);
  adapt(r, took);
  r->pending = 0;
  r->items = 0;
  *final = p.final != 0;
  if (r->options->progress) {
    t->busy = true;
    const int cancelled = r->options->progress(r->options->ctx, &p);
    t->busy = false;
    if (cancelled)
      return fail(err, UNROLL_E_CANCELLED, "the training was cancelled after update %llu",
                  (unsigned long long)t->update);
  }
  r->report_start = trainer_seconds();
  return UNROLL_OK;
}

/* ---- from start to end ---- */

static unroll_status check_limits(const struct trainer *t, const unroll_train_options *o, unroll_error *err) {
  if (o->struct_size < sizeof *o)
    return fail(err, UNROLL_E_INVALID, "unroll_train_options: struct_size %u, it must be at least %zu", o->struct_size,
                sizeof *o);
  if (!(o->epochs >= 0 && o->epochs <= 1e9))
    return fail(err, UNROLL_E_INVALID, "epochs %g, it must be from 0 to 1e9", o->epochs);
  if (!(o->minutes >= 0 && o->minutes <= 1e9))
    return fail(err, UNROLL_E_INVALID, "minutes %g, it must be from 0 to 1e9", o->minutes);
  if (o->report_every > TRAINER_HISTORY)
    return fail(err, UNROLL_E_INVALID, "report_every %u, it must be at most %d", o->report_every, TRAINER_HISTORY);
  if (o->patience > 0 && !t->evaluation_batches)
    return fail(err, UNROLL_E_INVALID, "patience %u, but nothing is kept for validation", o->patience);
  if (o->epochs == 0 && o->updates == 0 && o->minutes == 0 && o->patience == 0)
    return fail(err, UNROLL_E_INVALID, "no limit: one of epochs, updates, minutes and patience must be given");
  return UNROLL_OK;
}

/* A cosine that was left open ends where the training does. */
static unroll_status close_schedule(struct trainer *t, uint64_t last, unroll_error *err) {
  unroll_schedule *s = &t->options.schedule;
  const uint64_t warmup = (uint64_t)t->options.warmup;
  if (s->kind != UNROLL_SCHEDULE_COSINE || s->total > 0)
    return UNROLL_OK;
  if (last == UINT64_MAX)
    return fail(err, UNROLL_E_INVALID,
                "schedule cosine: its total is 0, and neither epochs nor updates limit the training");
  if (last <= warmup)
    return fail(err, UNROLL_E_INVALID,
                "schedule cosine: the training ends at update %llu, within its warm-up of %llu updates",
                (unsigned long long)last, (unsigned long long)warmup);
  s->total = epochs_done(t, last) - (warmup ? epochs_done(t, warmup) : 0);
  return UNROLL_OK;
}

static unroll_status train(struct trainer *t, const unroll_train_options *options, unroll_error *err) {
  TRY(trainer_ready(t, "trained", err));
  TRY(check_limits(t, options, err));
  struct run r = {.t = t, .options = options, .first = t->update, .last = UINT64_MAX, .deadline = (double)INFINITY};
  if (options->epochs > 0)
    r.last = epochs_end(t, options->epochs);
  if (options->updates > 0 && options->updates < r.last)
    r.last = options->updates;
  TRY(close_schedule(t, r.last, err));
  if (options->patience == 0)
    t->stale = 0;
  r.every = options->report_every ? options->report_every : 1;
  r.start = r.report_start = trainer_seconds();
  if (options->minutes > 0)
    r.deadline = r.start + 60 * options->minutes;
  bool final = t->update >= r.last;
  while (!final) {
    if (options->check_finite && r.pending == 0)
      TRY(trainer_watch(t, err));
    TRY(trainer_queue_update(t, &r.items, err));
    r.pending++;
    if (r.pending == r.every || t->update >= r.last || evaluation_due(&r))
      TRY(report(&r, &final, err));
  }
  return UNROLL_OK;
}

unroll_status trainer_train(struct trainer *t, const unroll_train_options *options, unroll_error *err) {
  const unroll_status status = train(t, options, err);
  trainer_unwatch(t);
  return status;
}

unroll_status trainer_set_schedule(struct trainer *t, const unroll_schedule *schedule, unroll_error *err) {
  TRY(trainer_not_busy(t, "given a schedule", err));
  unroll_training options = t->options;
  options.schedule = *schedule;
  TRY(trainer_options_check(&options, err));
  t->options.schedule = *schedule;
  return UNROLL_OK;
}
