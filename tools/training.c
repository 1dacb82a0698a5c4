/* SPDX-License-Identifier: Apache-2.0 */
#include "training.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "console.h"
#include "interrupt.h"

#define EXTENSION ".safetensors"
#define STANDARD_EPOCHS 10

/* ---- files ---- */

/* M.safetensors -> M.best.safetensors. false: the name is too long. */
static bool best_path(const char *out, char *best, size_t size) {
  const size_t length = strlen(out), extension = strlen(EXTENSION);
  const bool has = length > extension && strcmp(out + length - extension, EXTENSION) == 0;
  const int n = snprintf(best, size, "%.*s.best%s", (int)(has ? length - extension : length), out, EXTENSION);
  return n > 0 && (size_t)n < size;
}

bool training_check_target(const char *option, const char *path) {
  struct stat info;
  const char *slash = strrchr(path, '/');
  char folder[TRAINING_PATH_SIZE];
  const int n = slash ? snprintf(folder, sizeof folder, "%.*s", slash == path ? 1 : (int)(slash - path), path)
                      : snprintf(folder, sizeof folder, ".");
  if (n < 0 || (size_t)n >= sizeof folder)
    complain("--%s: the path is longer than %d bytes", option, TRAINING_PATH_SIZE);
  else if (!path[0] || path[strlen(path) - 1] == '/')
    complain("--%s: '%s' names no file", option, path);
  else if (access(folder, W_OK | X_OK) != 0)
    complain("--%s: cannot write to the folder %s: %s", option, folder, strerror(errno));
  else if (stat(path, &info) == 0 && S_ISDIR(info.st_mode))
    complain("--%s: %s is a folder", option, path);
  else
    return true;
  return false;
}

static bool open_log(training *t) {
  if (!t->job->train->log)
    return true;
  t->log = fopen(t->job->train->log, t->job->train->resume ? "ae" : "we");
  if (!t->log)
    complain("--log: cannot write %s: %s", t->job->train->log, strerror(errno));
  return t->log;
}

static void log_failed(training *t) {
  if (!t->log_failed)
    complain("cannot write %s: %s", t->job->train->log, strerror(errno));
  t->log_failed = true;
}

static void close_log(training *t) {
  if (t->log && fclose(t->log) != 0)
    log_failed(t);
  t->log = NULL;
}

/* Writes the last model; complains on failure. */
static bool save_last(training *t) {
  unroll_error err = UNROLL_ERROR_INIT;
  if (t->task->save(t->model, t->out, &err) != UNROLL_OK) {
    complain_of(&err);
    return false;
  }
  t->saved = true;
  t->saved_update = t->task->state(t->model).update;
  return true;
}

static void save_best(training *t) {
  unroll_error err = UNROLL_ERROR_INIT;
  if (t->task->save(t->model, t->best, &err) == UNROLL_OK)
    t->best_saved = true;
  else
    complain_of(&err);
}

/* ---- the log: a JSON object per line and update ---- */

/* JSON has no NaN and no infinity. */
static json_t *number(double value) { return isfinite(value) ? json_real(value) : json_null(); }

/* {"rnn.W_h.0.0 f": 0.97} */
static json_t *radii_to_json(const radii *r) {
  json_t *all = json_object();
  for (uint32_t i = 0; i < r->n; i++) {
    char name[192];
    snprintf(name, sizeof name, "%s%s%s", r->all[i].name, r->all[i].gate[0] ? " " : "", r->all[i].gate);
    json_object_set_new(all, name, number(r->all[i].value));
  }
  return all;
}

/* found: radii that are new, or NULL. */
static void write_log(training *t, const unroll_train_progress *p, const radii *found) {
  char pace[24];
  snprintf(pace, sizeof pace, "%s_per_s", t->task->pace);
  for (uint32_t i = 0; i < p->n_updates; i++) {
    const uint64_t update = p->update - p->n_updates + 1 + i;
    const bool last = i + 1 == p->n_updates;
    json_t *line = json_pack("{s:I, s:o, s:o, s:o, s:o}", "update", (json_int_t)update, "loss",
                             number((double)p->losses[i]), "lr", number(t->task->learning_rate(t->model, update)),
                             "grad_norm", number((double)p->grad_norms[i]), pace, number(round(p->steps_per_second)));
    if (line && last && !isnan(p->validation_loss))
      json_object_set_new(line, "validation_loss", number(p->validation_loss));
    if (line && last && t->metric && !isnan(p->metric))
      json_object_set_new(line, t->metric, number(p->metric));
    if (line && last && t->metric && !isnan(p->validation_metric)) {
      char name[48];
      snprintf(name, sizeof name, "validation_%s", t->metric);
      json_object_set_new(line, name, number(p->validation_metric));
    }
    if (line && p->loss_scales)
      json_object_set_new(line, "loss_scale", number((double)p->loss_scales[i]));
    if (line && last && found)
      json_object_set_new(line, "radius", radii_to_json(found));
    if (!line || json_dumpf(line, t->log, JSON_COMPACT | JSON_REAL_PRECISION(9)) != 0 || fputc('\n', t->log) == EOF)
      log_failed(t);
    json_decref(line);
  }
  if (fflush(t->log) != 0)
    log_failed(t);
}

/* ---- TensorBoard ---- */

static bool open_board(training *t, const char *device) {
  const char *const folder = t->job->train->tensorboard;
  if (!folder)
    return true;
  char *text = training_configuration(t->job, device);
  const bool opened = text && board_open(&t->board, folder, t->task->state(t->model).update, text);
  if (!text)
    complain("--tensorboard: no memory for the configuration");
  free(text);
  return opened;
}

/* Radii, log, events and curves. At a validation for TensorBoard, for curves as often as they come cheap. */
static void look(training *t, const unroll_train_progress *p) {
  const bool at_validation = p->evaluated || p->final;
  const bool wanted = t->job->train->watch || (t->board.file && at_validation);
  const radii *const found = wanted && radii_look(&t->radii, p) ? &t->radii : NULL;
  double rates[64];
  if (t->log && !t->log_failed)
    write_log(t, p, found);
  if (t->job->train->watch)
    watch_add(&t->watch, p, found);
  if (!t->board.file)
    return;
  for (uint32_t i = 0; i < p->n_updates; i++)
    rates[i] = t->task->learning_rate(t->model, p->update - p->n_updates + 1 + i);
  const board_names names = {t->metric, t->task->pace};
  board_report(&t->board, &names, p, rates, found);
}

/* ---- progress ---- */

static double fraction_of(const unroll_train_progress *p) {
  if (p->final)
    return 1;
  if (p->seconds + p->seconds_left > 0)
    return p->seconds / (p->seconds + p->seconds_left);
  return NAN;
}

static void show(training *t, const unroll_train_progress *p) {
  char loss[64], validation[32], pace[48], left[32], update[64], skipped[48], norm[48], largest[48];
  char count[24], time[24];
  const char *details[8];
  size_t n = 0;
  if (t->task->is_nats)
    snprintf(loss, sizeof loss, "loss %.3f nats %.3f bits", p->loss, p->loss / M_LN2);
  else if (t->metric && !isnan(p->metric))
    snprintf(loss, sizeof loss, "loss %.4f %s %.3f", p->loss, t->metric, p->metric);
  else
    snprintf(loss, sizeof loss, "loss %.4f", p->loss);
  details[n++] = loss;
  if (!isnan(p->seconds_left)) {
    duration_text(p->seconds_left, time, sizeof time);
    snprintf(left, sizeof left, "%s left", time);
    details[n++] = left;
  }
  if (!isnan(t->validation)) {
    snprintf(validation, sizeof validation, "val %.3f", t->validation);
    details[n++] = validation;
  }
  count_text(p->steps_per_second, count, sizeof count);
  snprintf(pace, sizeof pace, "%s %s/s", count, t->task->pace);
  details[n++] = pace;
  if (p->last_update != UINT64_MAX)
    snprintf(update, sizeof update, "update %" PRIu64 "/%" PRIu64, p->update, p->last_update);
  else
    snprintf(update, sizeof update, "update %" PRIu64, p->update);
  details[n++] = update;
  if (t->skipped > 0) {
    snprintf(skipped, sizeof skipped, "%" PRIu64 " skipped", t->skipped);
    details[n++] = skipped;
  }
  if (t->bar.above)
    watch_draw(&t->watch, t->curves, sizeof t->curves);
  else if (t->job->train->watch) {
    snprintf(norm, sizeof norm, "gradient %.3g", p->grad_norm);
    details[n++] = norm;
    if (!isnan(t->watch.latest[WATCH_RADIUS])) {
      snprintf(largest, sizeof largest, "radius %.3f", t->watch.latest[WATCH_RADIUS]);
      details[n++] = largest;
    }
  }
  progress_show(&t->bar, p->seconds, fraction_of(p), details, n);
}

static void tell_validation(const training *t, const unroll_train_progress *p) {
  const char *const best = p->improved ? ", best" : "";
  if (t->task->is_nats)
    tell("epoch %.2f, update %" PRIu64 ": loss %.4f, validation %.4f nats, %.4f bits%s", p->epoch, p->update, p->loss,
         p->validation_loss, p->validation_loss / M_LN2, best);
  else if (t->metric)
    tell("epoch %.2f, update %" PRIu64 ": loss %.4f, validation %.4f, %s %.4f%s", p->epoch, p->update, p->loss,
         p->validation_loss, t->metric, p->validation_metric, best);
  else
    tell("epoch %.2f, update %" PRIu64 ": loss %.4f, validation %.4f%s", p->epoch, p->update, p->loss,
         p->validation_loss, best);
}

static void take_report(training *t, const unroll_train_progress *p) {
  t->updates += p->n_updates;
  t->skipped += p->skipped;
  t->ran_out = p->patience_ended;
  if (p->loss_scales)
    t->loss_scale = (double)p->loss_scales[p->n_updates - 1];
  look(t, p);
  if (p->skipped > 0 && (t->tells_skips || !p->loss_scales)) /* a scale's skips are usual */
    tell("%" PRIu64 " of the updates up to %" PRIu64 " skipped; not finite in the first: %s", p->skipped, p->update,
         p->nonfinite);
  if (!isnan(p->validation_loss)) {
    t->validation = p->validation_loss;
    if (p->improved)
      save_best(t);
    if (p->final || t->told_at == 0 || p->seconds - t->told_at >= PROGRESS_PERIOD) {
      t->told_at = p->seconds;
      tell_validation(t, p);
    }
  }
  if (p->final && t->bar.above)
    watch_draw(&t->watch, t->curves, sizeof t->curves);
  if (p->final)
    return;
  show(t, p);
  const double since = p->seconds - t->saved_at;
  if (since >= TRAINING_SAVE_PERIOD || (!isnan(p->validation_loss) && since >= PROGRESS_PERIOD)) {
    save_last(t);
    t->saved_at = p->seconds;
  }
}

/* For the library: ctx is the training. */
static int report(void *ctx, const unroll_train_progress *p) {
  take_report(ctx, p);
  return interrupt_asked();
}

/* ---- a run ---- */

static void print_resume(FILE *out, const training *t) {
  const training_job *job = t->job;
  const train_values *o = job->train;
  fprintf(out, "go on with: unroll %s --%s", job->command->name, t->task->data_option);
  for (size_t i = 0; i < job->n_words; i++)
    train_print_word(out, job->words[i]);
  fputs(" --resume", out);
  train_print_word(out, t->out);
  if (o->epochs > 0)
    fprintf(out, " --epochs %g", o->epochs);
  if (o->updates > 0)
    fprintf(out, " --updates %" PRId64, o->updates);
  if (o->minutes > 0)
    fprintf(out, " --minutes %g", o->minutes);
  if (o->patience > 0)
    fprintf(out, " --patience %" PRId64, o->patience);
  if (o->log) {
    fputs(" --log", out);
    train_print_word(out, o->log);
  }
  if (o->check_finite)
    fputs(" --check-finite", out);
  if (o->tensorboard) {
    fputs(" --tensorboard", out);
    train_print_word(out, o->tensorboard);
  }
  if (o->watch)
    fputs(" --watch", out);
  fputs(" --device", out);
  train_print_word(out, job->common->device);
  fputc('\n', out);
}

static void say_what_was_kept(const training *t) {
  const training_state at = t->task->state(t->model);
  const char *const resumed_from = t->job->train->resume;
  const bool resumed_here = resumed_from && strcmp(resumed_from, t->out) == 0;
  const bool has_best = t->best_saved || (resumed_here && access(t->best, R_OK) == 0);
  const char *const best = has_best ? t->best : "not here";
  tell("last      %s, update %" PRIu64, t->out, at.update);
  if (t->updates > 0 && t->loss_scale > 0)
    tell("scale     loss x %g at the last update; %" PRIu64 " of %" PRIu64
         " updates skipped for gradients that overflowed",
         t->loss_scale, t->skipped, t->updates);
  else if (t->skipped > 0)
    tell("skipped   %" PRIu64 " of %" PRIu64 " updates", t->skipped, t->updates);
  if (!isnan(at.best_loss) && t->task->is_nats)
    tell("best      %s, update %" PRIu64 ", validation %.4f nats, %.4f bits", best, at.best_update, at.best_loss,
         at.best_loss / M_LN2);
  else if (!isnan(at.best_loss))
    tell("best      %s, update %" PRIu64 ", validation %.4f", best, at.best_update, at.best_loss);
  fprintf(stderr, "try it: %s", t->task->try_it);
  train_print_word(stderr, has_best ? t->best : t->out);
  fputc('\n', stderr);
}

static int finish(training *t, unroll_status status, const unroll_error *err) {
  if (status != UNROLL_OK && status != UNROLL_E_CANCELLED) {
    complain_of(err);
    if (status == UNROLL_E_RANGE && t->job->train->check_finite)
      save_last(t);
    if (t->saved)
      tell("%s has the model of update %" PRIu64, t->out, t->saved_update);
    return EXIT_FAILED;
  }
  if (!save_last(t))
    return EXIT_FAILED;
  if (status == UNROLL_E_CANCELLED)
    tell("stopped at update %" PRIu64 "; the model is saved", t->saved_update);
  if (t->ran_out)
    tell("stopped at update %" PRIu64 ": %" PRId64 " validations in a row were no better than the best",
         t->saved_update, t->job->train->patience);
  say_what_was_kept(t);
  if (status == UNROLL_E_CANCELLED)
    print_resume(stderr, t);
  return t->log_failed || t->board.failed ? EXIT_FAILED : EXIT_OK;
}

static bool has_work(const training *t, const unroll_train_options *limits) {
  const training_state at = t->task->state(t->model);
  const double epochs = (double)at.update / (double)at.updates_per_epoch;
  if (limits->updates && at.update >= limits->updates)
    complain("the model has %" PRIu64 " updates already: give more --updates than that", at.update);
  else if (limits->epochs > 0 && epochs >= limits->epochs)
    complain("the model has %.2f epochs already: give more --epochs than that", epochs);
  else
    return true;
  return false;
}

int training_run(const training_task *task, const training_job *job, const char *device, void *model) {
  const train_values *options = job->train;
  const bool as_it_is = option_was_given(job->command, job->values, "updates") && options->updates == 0;
  training t = {.task = task,
                .job = job,
                .model = model,
                .metric = task->metric_of ? task->metric_of(model) : task->metric,
                .out = options->out ? options->out : options->resume,
                .bar = progress_start(),
                .radii = {.cell = task->state(model).cell},
                .watch = watch_start(task->state(model).clip, task->pace),
                .validation = NAN,
                .tells_skips = strcmp(options->nonfinite, "skip") == 0};
  if (options->watch && t.bar.terminal)
    t.bar.above = t.curves;
  const bool limited = options->epochs > 0 || options->updates > 0 || options->minutes > 0 || options->patience > 0;
  const unroll_train_options limits = {.struct_size = sizeof limits,
                                       .epochs = limited ? options->epochs : STANDARD_EPOCHS,
                                       .updates = (uint64_t)options->updates,
                                       .minutes = options->minutes,
                                       .evaluate_every = (uint64_t)options->evaluate_every,
                                       .patience = (uint32_t)options->patience,
                                       .check_finite = options->check_finite,
                                       .progress = report,
                                       .ctx = &t};
  if (!best_path(t.out, t.best, sizeof t.best)) {
    complain("--out: the path is longer than %d bytes", TRAINING_PATH_SIZE);
    return EXIT_FAILED;
  }
  if (!has_work(&t, &limits) || !open_log(&t))
    return EXIT_FAILED;
  if (options->out && access(options->out, F_OK) == 0 &&
      !(options->resume && strcmp(options->resume, options->out) == 0))
    tell("unroll: %s is there already and will be replaced", options->out);
  unroll_error err = UNROLL_ERROR_INIT;
  if (as_it_is) {
    close_log(&t);
    return finish(&t, UNROLL_OK, &err);
  }
  if (!open_board(&t, device)) {
    close_log(&t);
    return EXIT_FAILED;
  }
  interrupt_catch("\nunroll: stopping after this update and saving; once more quits at once\n");
  const unroll_status status = task->train(model, &limits, &err);
  progress_end(&t.bar);
  close_log(&t);
  board_close(&t.board);
  radii_free(&t.radii);
  return finish(&t, status, &err);
}
