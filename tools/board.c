/* SPDX-License-Identifier: Apache-2.0 */
#include "board.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "commands.h"
#include "console.h"

#define PATH_SIZE 4096
#define TAG_SIZE 320

bool board_check_folder(const char *folder) {
  char path[PATH_SIZE];
  struct stat info;
  if ((size_t)snprintf(path, sizeof path, "%s", folder) >= sizeof path) {
    complain("--tensorboard: the path is longer than %d bytes", PATH_SIZE);
    return false;
  }
  if (!path[0]) {
    complain("--tensorboard: '' names no folder");
    return false;
  }
  /* What is not there is made: it is the nearest folder above that counts. */
  while (stat(path, &info) != 0 && errno == ENOENT) {
    char *slash = strrchr(path, '/');
    if (!slash)
      strcpy(path, ".");
    else
      slash[slash == path] = '\0';
  }
  if (stat(path, &info) != 0)
    complain("--tensorboard: %s: %s", path, strerror(errno));
  else if (!S_ISDIR(info.st_mode))
    complain("--tensorboard: %s is not a folder", path);
  else if (access(path, W_OK | X_OK) != 0)
    complain("--tensorboard: cannot write to the folder %s: %s", path, strerror(errno));
  else
    return true;
  return false;
}

/* A status of the file's: false, and no more events, once one is an error. */
static bool keep(board *b, unroll_status status, const unroll_error *err) {
  if (status == UNROLL_OK)
    return true;
  complain("--tensorboard: %s; the training goes on without", err->message);
  b->failed = true;
  unroll_event_file_close(b->file, NULL);
  b->file = NULL;
  return false;
}

static bool scalar(board *b, const char *tag, uint64_t step, double value) {
  unroll_error err = UNROLL_ERROR_INIT;
  return b->file && keep(b, unroll_event_file_scalar(b->file, tag, (int64_t)step, value, &err), &err);
}

/* "accuracy/validation" */
static void scalar_of(board *b, const char *what, const char *part, uint64_t step, double value) {
  char tag[TAG_SIZE];
  snprintf(tag, sizeof tag, "%s/%s", what, part);
  scalar(b, tag, step, value);
}

/* The names of files may be any bytes. */
static unroll_status add_text(board *b, uint64_t update, char *text, unroll_error *err) {
  const unroll_status status = unroll_event_file_text(b->file, "configuration", (int64_t)update, text, err);
  if (status != UNROLL_E_INVALID)
    return status;
  for (char *p = text; *p; p++)
    if ((unsigned char)*p >= 128)
      *p = '?';
  return unroll_event_file_text(b->file, "configuration", (int64_t)update, text, err);
}

bool board_open(board *b, const char *folder, uint64_t update, char *configuration) {
  unroll_error err = UNROLL_ERROR_INIT;
  /* What a training that was ended has told of updates after its last save is not so any more. */
  const unroll_event_file_options options = {.struct_size = sizeof options,
                                             .restart = update ? (int64_t)update + 1 : 0};
  unroll_status status = unroll_event_file_create(folder, &options, NULL, &b->file, &err);
  if (status == UNROLL_OK)
    status = add_text(b, update, configuration, &err);
  if (status == UNROLL_OK)
    status = unroll_event_file_flush(b->file, &err);
  if (status == UNROLL_OK)
    return true;
  complain("--tensorboard: %s", err.message);
  unroll_event_file_close(b->file, NULL);
  b->file = NULL;
  return false;
}

/* ---- histograms of parameters ---- */

typedef unroll_status (*read_fn)(const unroll_train_parameters *, uint32_t, float *, unroll_error *);

/* Values that the optimizer does not keep are left out. */
static bool histogram(board *b, const unroll_train_progress *p, uint32_t i, const unroll_train_parameter *parameter,
                      const char *what, read_fn read) {
  char tag[TAG_SIZE];
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_status status = read(p->parameters, i, b->values, &err);
  if (status == UNROLL_E_NOT_FOUND)
    return true;
  snprintf(tag, sizeof tag, "%s/%s", what, parameter->name);
  if (status == UNROLL_OK)
    status = unroll_event_file_histogram(b->file, tag, (int64_t)p->update, UNROLL_F32, b->values, parameter->count,
                                         NULL, &err);
  return keep(b, status, &err);
}

static bool has_room(board *b, uint64_t n) {
  if (n <= b->capacity)
    return true;
  free(b->values);
  b->values = malloc(n * sizeof *b->values);
  b->capacity = b->values ? n : 0;
  return b->values;
}

static void histograms(board *b, const unroll_train_progress *p) {
  for (uint32_t i = 0; b->file && i < unroll_train_parameters_count(p->parameters); i++) {
    unroll_error err = UNROLL_ERROR_INIT;
    unroll_train_parameter parameter = {.struct_size = sizeof parameter};
    if (!keep(b, unroll_train_parameters_get(p->parameters, i, &parameter, &err), &err) || parameter.count == 0)
      continue;
    if (!has_room(b, parameter.count)) {
      snprintf(err.message, sizeof err.message, "no memory for the %llu values of %s",
               (unsigned long long)parameter.count, parameter.name);
      keep(b, UNROLL_E_MEMORY, &err);
      return;
    }
    if (histogram(b, p, i, &parameter, "weights", unroll_train_parameters_read))
      histogram(b, p, i, &parameter, "gradients", unroll_train_parameters_read_mean_gradient);
  }
}

/* ---- reports ---- */

static void each_update(board *b, const unroll_train_progress *p, const double *rates) {
  for (uint32_t i = 0; b->file && i < p->n_updates; i++) {
    const uint64_t update = p->update - p->n_updates + 1 + i;
    scalar(b, "loss/training", update, (double)p->losses[i]);
    scalar(b, "gradient/norm", update, (double)p->grad_norms[i]);
    scalar(b, "learning_rate", update, rates[i]);
    if (p->loss_scales)
      scalar(b, "loss_scale", update, (double)p->loss_scales[i]);
  }
}

void board_report(board *b, const board_names *names, const unroll_train_progress *p, const double *rates,
                  const radii *found) {
  char pace[40];
  if (!b->file)
    return;
  each_update(b, p, rates);
  snprintf(pace, sizeof pace, "%s_per_s", names->pace);
  scalar_of(b, "speed", pace, p->update, p->steps_per_second);
  scalar_of(b, "speed", "updates_per_s", p->update, 1 / p->update_seconds);
  scalar(b, "epoch", p->update, p->epoch);
  if (p->skipped > 0)
    scalar_of(b, "gradient", "skipped_updates", p->update, (double)p->skipped);
  if (names->metric && !isnan(p->metric))
    scalar_of(b, names->metric, "training", p->update, p->metric);
  if (p->evaluated)
    scalar_of(b, "loss", "validation", p->update, p->validation_loss);
  if (names->metric && !isnan(p->validation_metric))
    scalar_of(b, names->metric, "validation", p->update, p->validation_metric);
  for (uint32_t i = 0; found && i < found->n; i++) {
    char tag[TAG_SIZE];
    const radius *const r = &found->all[i];
    snprintf(tag, sizeof tag, "spectral_radius/%s%s%s", r->name, r->gate[0] ? "/" : "", r->gate);
    scalar(b, tag, p->update, r->value);
  }
  if (p->evaluated || p->final)
    histograms(b, p);
}

void board_close(board *b) {
  unroll_error err = UNROLL_ERROR_INIT;
  if (b->file && unroll_event_file_close(b->file, &err) != UNROLL_OK) {
    complain("--tensorboard: %s", err.message);
    b->failed = true;
  }
  b->file = NULL;
  free(b->values);
}
