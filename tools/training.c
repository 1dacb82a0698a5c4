/* SPDX-License-Identifier: Apache-2.0 */
#include "training.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "commands.h"
#include "console.h"

#define EXTENSION ".safetensors"

/* ---- signals ---- */

static volatile sig_atomic_t interrupted;

static void interrupt(int number) {
  (void)number;
  static const char text[] = "\nunroll: stopping after this update and saving; once more quits at once\n";
  const int error = errno;
  interrupted = 1;
  /* Nothing can be done about a write that fails. */
  if (write(STDERR_FILENO, text, sizeof text - 1) < 0)
    interrupted = 1;
  errno = error;
}

void training_catch_signals(void) {
  struct sigaction action = {.sa_handler = interrupt, .sa_flags = SA_RESTART | (int)SA_RESETHAND};
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, NULL);
  sigaction(SIGTERM, &action, NULL);
  struct sigaction hangup;
  if (sigaction(SIGHUP, NULL, &hangup) == 0 && hangup.sa_handler != SIG_IGN) /* nohup wants it ignored */
    sigaction(SIGHUP, &action, NULL);
}

/* ---- files ---- */

bool training_best_path(const char *out, char *best, size_t size) {
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

bool training_open_log(training *t, const char *path, bool append) {
  t->log_path = path;
  if (!path)
    return true;
  t->log = fopen(path, append ? "ae" : "we");
  if (!t->log)
    complain("--log: cannot write %s: %s", path, strerror(errno));
  return t->log;
}

static void log_failed(training *t) {
  if (!t->log_failed)
    complain("cannot write %s: %s", t->log_path, strerror(errno));
  t->log_failed = true;
}

void training_close_log(training *t) {
  if (t->log && fclose(t->log) != 0)
    log_failed(t);
  t->log = NULL;
}

bool training_save(training *t) {
  unroll_error err = UNROLL_ERROR_INIT;
  if (unroll_lm_save(t->lm, t->out, &err) != UNROLL_OK) {
    complain_of(&err);
    return false;
  }
  t->saved = true;
  t->saved_update = unroll_lm_describe(t->lm).update;
  return true;
}

static void save_best(training *t) {
  unroll_error err = UNROLL_ERROR_INIT;
  if (unroll_lm_save(t->lm, t->best, &err) == UNROLL_OK)
    t->best_saved = true;
  else
    complain_of(&err);
}

/* ---- the log: a JSON object per line and update ---- */

/* JSON has no NaN and no infinity. */
static json_t *number(double value) { return isfinite(value) ? json_real(value) : json_null(); }

static void write_log(training *t, const unroll_lm_progress *p) {
  for (uint32_t i = 0; i < p->n_updates; i++) {
    const uint64_t update = p->update - p->n_updates + 1 + i;
    const bool last = i + 1 == p->n_updates;
    json_t *line =
        json_pack("{s:I, s:o, s:o, s:o, s:o}", "update", (json_int_t)update, "loss", number((double)p->losses[i]), "lr",
                  number(unroll_lm_learning_rate(t->lm, update)), "grad_norm", number((double)p->grad_norms[i]),
                  "chars_per_s", number(round(p->characters_per_second)));
    if (line && last && !isnan(p->validation_loss))
      json_object_set_new(line, "validation_loss", number(p->validation_loss));
    if (line && p->loss_scales)
      json_object_set_new(line, "loss_scale", number((double)p->loss_scales[i]));
    if (!line || json_dumpf(line, t->log, JSON_COMPACT | JSON_REAL_PRECISION(9)) != 0 || fputc('\n', t->log) == EOF)
      log_failed(t);
    json_decref(line);
  }
  if (fflush(t->log) != 0)
    log_failed(t);
}

/* ---- progress ---- */

static double fraction_of(const unroll_lm_progress *p) {
  if (p->final)
    return 1;
  if (p->seconds + p->seconds_left > 0)
    return p->seconds / (p->seconds + p->seconds_left);
  return NAN;
}

static void show(training *t, const unroll_lm_progress *p) {
  char loss[64], validation[32], pace[48], left[32], update[64], skipped[48];
  char count[24], time[24];
  const char *details[6];
  size_t n = 0;
  snprintf(loss, sizeof loss, "loss %.3f nats %.3f bits", p->loss, p->loss / M_LN2);
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
  count_text(p->characters_per_second, count, sizeof count);
  snprintf(pace, sizeof pace, "%s chars/s", count);
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
  progress_show(&t->bar, p->seconds, fraction_of(p), details, n);
}

int training_report(void *ctx, const unroll_lm_progress *p) {
  training *t = ctx;
  t->updates += p->n_updates;
  t->skipped += p->skipped;
  if (p->loss_scales)
    t->loss_scale = (double)p->loss_scales[p->n_updates - 1];
  if (t->log && !t->log_failed)
    write_log(t, p);
  if (!isnan(p->validation_loss)) {
    t->validation = p->validation_loss;
    if (p->improved)
      save_best(t);
    if (p->final || t->told_at == 0 || p->seconds - t->told_at >= PROGRESS_PERIOD) {
      t->told_at = p->seconds;
      tell("epoch %.2f, update %" PRIu64 ": loss %.4f, validation %.4f nats, %.4f bits%s", p->epoch, p->update, p->loss,
           p->validation_loss, p->validation_loss / M_LN2, p->improved ? ", best" : "");
    }
  }
  if (p->final)
    return interrupted;
  show(t, p);
  const double since = p->seconds - t->saved_at;
  if (since >= TRAINING_SAVE_PERIOD || (!isnan(p->validation_loss) && since >= PROGRESS_PERIOD)) {
    training_save(t);
    t->saved_at = p->seconds;
  }
  return interrupted;
}
