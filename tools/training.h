/* SPDX-License-Identifier: Apache-2.0 */
/* What goes on around the updates of every `train` command: limits, progress, log, saved files, Ctrl-C. */
#ifndef TRAINING_H
#define TRAINING_H
#include <stdbool.h>
#include <stdio.h>

#include "board.h"
#include "commands.h"
#include "progress.h"
#include "radii.h"
#include "train_options.h"
#include "watch.h"

#define TRAINING_SAVE_PERIOD 120.0 /* seconds */
#define TRAINING_PATH_SIZE 4096
#define TRAINING_CURVES_SIZE 16384

/* Of a model: where it stands, and its schedule. */
typedef struct training_state {
  uint64_t update, updates_per_epoch, best_update;
  double best_loss;
  unroll_schedule schedule;
  double clip; /* 0: none */
  int32_t cell;
} training_state;

/* A kind of model, and the kind of data that it is trained on: both are the task's own. */
typedef struct training_task {
  const char *data_option; /* "text" */
  const char *data;        /* "the text" */
  const char *const *of_the_model;
  size_t n_of_the_model; /* options that a model's file holds, beside those of every model */

  /* What stands in the command's values, as a new model reads it, or as `resumed`, if not NULL, did. */
  unroll_status (*open_data)(const void *values, const void *resumed, void **data, unroll_error *err);
  void (*close_data)(void *data);
  unroll_status (*create)(const command_spec *command, const void *values, unroll_device *device, const void *data,
                          void **model, unroll_error *err);
  unroll_status (*resume)(void *model, const void *data, unroll_error *err);
  /* What a loaded model is told before it is resumed; NULL: nothing. */
  unroll_status (*before_resume)(const void *values, void *model, unroll_error *err);
  /* On stderr before a run: data and model, */
  void (*tell_model)(const void *model, const void *data);
  /* and updates. */
  void (*tell_updates)(const void *model);
  /* After a run: how good it is now; NULL: nothing. */
  void (*tell_score)(void *model, const void *data);

  /* See TRAINING_FUNCTIONS. */
  unroll_status (*load)(unroll_device *device, const char *path, void **model, unroll_error *err);
  unroll_status (*train)(void *model, const unroll_train_options *options, unroll_error *err);
  unroll_status (*save)(void *model, const char *path, unroll_error *err);
  unroll_status (*set_schedule)(void *model, const unroll_schedule *schedule, unroll_error *err);
  double (*learning_rate)(const void *model, uint64_t update);
  training_state (*state)(const void *model);
  void (*destroy)(void *model);

  bool is_nats;                                /* losses are nats of text: bits stand beside them */
  const char *pace;                            /* "chars": what is counted by the second */
  const char *metric;                          /* "accuracy", or NULL */
  const char *(*metric_of)(const void *model); /* the same, where not all models have one; NULL: they have */
  const char *try_it;                          /* the command that uses a model */
} training_task;

/* The functions that every kind of model has under the same names, as a training_task wants them, and its fields. */
#define TRAINING_FUNCTIONS(Model)                                                                                  \
  static unroll_status load_model(unroll_device *device, const char *path, void **model, unroll_error *err) {      \
    Model *loaded = NULL;                                                                                          \
    const unroll_status status = Model##_load(&device, 1, path, NULL, &loaded, err);                               \
    *model = loaded;                                                                                               \
    return status;                                                                                                 \
  }                                                                                                                \
  static unroll_status train_model(void *model, const unroll_train_options *o, unroll_error *err) {                \
    return Model##_train(model, o, err);                                                                           \
  }                                                                                                                \
  static unroll_status save_model(void *model, const char *path, unroll_error *err) {                              \
    return Model##_save(model, path, err);                                                                         \
  }                                                                                                                \
  static unroll_status set_schedule(void *model, const unroll_schedule *schedule, unroll_error *err) {             \
    return Model##_set_schedule(model, schedule, err);                                                             \
  }                                                                                                                \
  static double learning_rate(const void *model, uint64_t update) { return Model##_learning_rate(model, update); } \
  static training_state state_of(const void *model) {                                                              \
    const Model##_info info = Model##_describe(model);                                                             \
    return (training_state){info.update,                                                                           \
                            info.updates_per_epoch,                                                                \
                            info.best_update,                                                                      \
                            info.best_validation_loss,                                                             \
                            info.options.training.schedule,                                                        \
                            info.options.training.clip,                                                            \
                            info.options.rnn.cell};                                                                \
  }                                                                                                                \
  static void destroy_model(void *model) { Model##_destroy(model); }
#define TRAINING_FUNCTION_FIELDS                                                              \
  .load = load_model, .train = train_model, .save = save_model, .set_schedule = set_schedule, \
  .learning_rate = learning_rate, .state = state_of, .destroy = destroy_model

/* What a command was asked for. */
typedef struct training_job {
  const command_spec *command;
  const void *values;
  const common_values *common; /* in values, as is */
  const train_values *train;
  const char *const *words; /* what the line that says how to go on has behind the data's option */
  size_t n_words;
  size_t n_files; /* the first of the words: files of data, which must not be overwritten */
} training_job;

typedef struct training {
  const training_task *task;
  const training_job *job;
  void *model;
  const char *metric;            /* the task's, or the model's */
  const char *out;               /* the last model, */
  char best[TRAINING_PATH_SIZE]; /* and the best by validation */
  FILE *log;                     /* or NULL */
  board board;
  radii radii;
  watch watch; /* where it was asked for */
  progress bar;
  char curves[TRAINING_CURVES_SIZE]; /* above the bar */
  double saved_at, told_at;          /* seconds of this run: the last save, the last line about a validation */
  bool saved;                        /* out was written in this run, */
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

/* What a run is asked for, as Markdown: options, and of a resumed model what its file says of it. To be freed; NULL: no
 * memory. */
char *training_configuration(const training_job *job, const char *device);
/* Can a file be put there? Otherwise the reason is named on stderr. Looks, touches nothing. */
bool training_check_target(const char *option, const char *path);
/* A whole `train` command: checks, opens, creates or resumes, trains. The exit code. */
int training_main(const training_task *task, const training_job *job);
/* Trains until a limit, saving, and says what was kept. With --updates 0 the model is saved as it is. device: its name.
 * The exit code. */
int training_run(const training_task *task, const training_job *job, const char *device, void *model);

#endif
