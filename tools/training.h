/* SPDX-License-Identifier: Apache-2.0 */
/* What goes on around the updates of every `train` command: limits, progress, log, saved files, Ctrl-C. */
#ifndef TRAINING_H
#define TRAINING_H
#include <stdbool.h>
#include <stdio.h>

#include "progress.h"
#include "train_options.h"

#define TRAINING_SAVE_PERIOD 120.0 /* seconds */
#define TRAINING_PATH_SIZE 4096

typedef struct training_position {
  uint64_t update, updates_per_epoch, best_update;
  double best_loss;
} training_position;

/* What a kind of model is trained with. */
typedef struct training_task {
  unroll_status (*train)(void *model, const unroll_train_options *options, unroll_error *err);
  unroll_status (*save)(void *model, const char *path, unroll_error *err);
  double (*learning_rate)(const void *model, uint64_t update);
  training_position (*position)(const void *model);
  bool is_nats;       /* losses are nats of text: bits stand beside them */
  const char *pace;   /* "chars": what is counted by the second */
  const char *metric; /* "accuracy", or NULL */
  const char *try_it; /* the command that uses a model */
} training_task;

typedef struct training {
  const training_task *task;
  void *model;
  const command_spec *command;
  const train_values *options;
  const char *out;               /* the last model, */
  char best[TRAINING_PATH_SIZE]; /* and the best by validation */
  FILE *log;                     /* or NULL */
  progress bar;
  double saved_at, told_at; /* seconds of this run: the last save, the last line about a validation */
  bool saved;               /* out was written in this run, */
  uint64_t saved_update;
  bool best_saved; /* likewise best */
  bool log_failed;
  double validation; /* the latest; NaN: none yet */
  uint64_t updates;  /* of this run, */
  uint64_t skipped;  /* those of them that were skipped, */
  double loss_scale; /* and the scale of the last one; 0: not dynamic */
  bool tells_skips;  /* each report with one */
  bool ran_out;      /* of patience */
} training;

/* Can a file be put there? Otherwise the reason is named on stderr. Looks, touches nothing. */
bool training_check_target(const char *option, const char *path);
/*
 * Trains until a limit, saving, and says what was kept. device, data_option and data are for the
 * line that says how to go on: `--text a.txt`. With --updates 0 the model is saved as it is. The exit code.
 */
int training_run(const training_task *task, void *model, const command_spec *command, const void *values,
                 const train_values *options, const char *device, const char *data_option, const char *const *data,
                 size_t n_data);

#endif
