/* SPDX-License-Identifier: Apache-2.0 */
/* What goes on around the updates of `train lm`: progress, log, saved files, Ctrl-C. */
#ifndef TRAINING_H
#define TRAINING_H
#include <stdbool.h>
#include <stdio.h>
#include <unroll/train.h>

#include "progress.h"

#define TRAINING_SAVE_PERIOD 120.0 /* seconds */
#define TRAINING_PATH_SIZE 4096

typedef struct training {
  unroll_lm *lm;
  const char *out;               /* the last model, */
  char best[TRAINING_PATH_SIZE]; /* and the best by validation */
  const char *log_path;
  FILE *log; /* or NULL */
  progress bar;
  double saved_at, told_at; /* seconds of this run: the last save, the last line about a validation */
  bool saved;               /* out was written in this run, */
  uint64_t saved_update;
  bool best_saved; /* likewise best */
  bool log_failed;
  double validation; /* the latest, nats; NaN: none yet */
  uint64_t updates;  /* of this run, */
  uint64_t skipped;  /* those of them that a dynamic loss scale skipped, */
  double loss_scale; /* and the scale of the last one; 0: not dynamic */
} training;

/* M.safetensors -> M.best.safetensors. false: the name is too long. */
bool training_best_path(const char *out, char *best, size_t size);
/* Can a file be put there? Otherwise the reason is named on stderr. Looks, touches nothing. */
bool training_check_target(const char *option, const char *path);
/* Opens the log. false: the reason has been named on stderr. */
bool training_open_log(training *t, const char *path, bool append);
/* Flushes it and closes it. */
void training_close_log(training *t);

/* Writes the last model; complains on failure. */
bool training_save(training *t);
/* For unroll_lm_train: ctx is the training. */
int training_report(void *ctx, const unroll_lm_progress *p);

/* From here on the first Ctrl-C, SIGTERM or SIGHUP asks for an end, the second one ends the process. */
void training_catch_signals(void);

#endif
