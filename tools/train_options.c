/* SPDX-License-Identifier: Apache-2.0 */
#include "train_options.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "console.h"

/* A dynamic loss scale as PyTorch's GradScaler has it. */
#define DYNAMIC_SCALE 65536
#define DYNAMIC_INTERVAL 2000

static const char *const of_every_model[] = {"cell",
                                             "hidden",
                                             "layers",
                                             "layer-norm",
                                             "peepholes",
                                             "projection",
                                             "residual",
                                             "skip",
                                             "layer-norm-epsilon",
                                             "activation",
                                             "gate-activation",
                                             "candidate-activation",
                                             "output-activation",
                                             "gate-clip",
                                             "cell-clip",
                                             "dropout",
                                             "input-dropout",
                                             "same-mask",
                                             "weight-dropout",
                                             "state-dropout",
                                             "zoneout-h",
                                             "zoneout-c",
                                             "seed",
                                             "batch",
                                             "accumulate",
                                             "optimizer",
                                             "momentum",
                                             "weight-decay",
                                             "warmup",
                                             "clip",
                                             "loss-scale",
                                             "nonfinite",
                                             "freeze",
                                             "l2",
                                             "recurrent-decay",
                                             "validation-fraction"};

static bool check_resumed(const command_spec *command, const void *values, const char *const *names, size_t n) {
  for (size_t i = 0; i < n; i++)
    if (option_was_given(command, values, names[i])) {
      complain("--%s stands in the model that is resumed: leave it out, or train a new model without --resume",
               names[i]);
      return false;
    }
  return true;
}

bool train_check_usage(const command_spec *command, const void *values, const train_values *train,
                       const char *const *of_the_model, size_t n) {
  if (!train->out && !train->resume) {
    complain("'unroll %s' needs --out M.safetensors", command->name);
    complain("see 'unroll %s --help'", command->name);
    return false;
  }
  if (train->resume && (!check_resumed(command, values, of_the_model, n) ||
                        !check_resumed(command, values, of_every_model, COUNT(of_every_model))))
    return false;
  if (!train_check_layers(command, values, train))
    return false;
  if (!train->resume && train->batch % train->accumulate != 0) {
    complain("--accumulate: %lld does not divide --batch %lld", (long long)train->accumulate, (long long)train->batch);
    return false;
  }
  if (!train->resume && strcmp(train->schedule, "cosine") == 0 && (train->minutes > 0 || train->patience > 0) &&
      train->epochs == 0 && train->updates == 0 && train->schedule_epochs == 0) {
    complain("--schedule cosine with no other limit than --%s needs --schedule-epochs",
             train->minutes > 0 ? "minutes" : "patience");
    return false;
  }
  return true;
}

void train_set_schedule(const command_spec *command, const void *values, const train_values *train,
                        unroll_schedule *schedule) {
  const bool fresh = !train->resume;
  if (fresh || option_was_given(command, values, "lr"))
    schedule->base = train->lr;
  if (fresh || option_was_given(command, values, "schedule")) {
    int32_t kind = 0;
    while (strcmp(unroll_schedule_name(kind), train->schedule) != 0)
      kind++;
    schedule->kind = kind;
    schedule->decay = kind == UNROLL_SCHEDULE_TIME ? 0.1 : 0.9;
    schedule->minimum = train->lr_min;
  }
  if (option_was_given(command, values, "decay"))
    schedule->decay = train->decay;
  if (option_was_given(command, values, "lr-min"))
    schedule->minimum = train->lr_min;
  if (option_was_given(command, values, "schedule-epochs"))
    schedule->total = train->schedule_epochs;
}

bool train_changes_schedule(const command_spec *command, const void *values) {
  static const char *const names[] = {"lr", "schedule", "decay", "lr-min", "schedule-epochs"};
  for (size_t i = 0; i < COUNT(names); i++)
    if (option_was_given(command, values, names[i]))
      return true;
  return false;
}

static void set_optimizer(const train_values *train, unroll_optimizer_attr *optimizer) {
  static const char *const names[] = {"sgd", "rmsprop", "adam", "adamw"};
  int32_t kind = 0;
  while (strcmp(train->optimizer, names[kind]) != 0)
    kind++;
  optimizer->kind = kind;
  optimizer->weight_decay = train->weight_decay;
  if (kind == UNROLL_SGD)
    optimizer->beta1 = train->momentum;
  if (kind == UNROLL_RMSPROP)
    optimizer->beta2 = 0.99; /* as PyTorch; Hinton's lecture has 0.9 */
}

unroll_training train_training(const command_spec *command, const void *values, const train_values *train) {
  unroll_training t = unroll_training_default();
  t.batch = train->batch;
  t.seed = (uint64_t)train->seed;
  t.clip = train->clip;
  t.validation = train->validation;
  t.loss_scale = train->loss_scale > 0 ? train->loss_scale : DYNAMIC_SCALE;
  t.loss_scale_interval = train->loss_scale > 0 ? 0 : DYNAMIC_INTERVAL;
  t.accumulate = train->accumulate;
  t.warmup = train->warmup;
  t.nonfinite = strcmp(train->nonfinite, "skip") == 0 ? UNROLL_NONFINITE_SKIP : UNROLL_NONFINITE_STOP;
  t.freeze = train->freeze;
  t.l2 = train->l2;
  t.recurrent_decay = train->recurrent_decay;
  set_optimizer(train, &t.optimizer);
  train_set_schedule(command, values, train, &t.schedule);
  return t;
}

void train_tell_more(const unroll_recurrent *rnn, const unroll_training *t, const char *unit) {
  train_tell_layers(rnn);
  if (t->loss_scale_interval > 0)
    tell("scale     loss x %g at first: halved when gradients overflow, doubled after %" PRId64 " updates without",
         t->loss_scale, t->loss_scale_interval);
  else if (t->loss_scale != 1)
    tell("scale     loss x %g", t->loss_scale);
  if (t->accumulate > 1)
    tell("parts     an update's %" PRId64 " %s in %" PRId64 " parts", t->batch, unit, t->accumulate);
  if (t->freeze)
    tell("frozen    %s", t->freeze);
  if (t->l2 || t->recurrent_decay > 0)
    tell("penalty   l2 %s, recurrent decay %g; not in the losses", t->l2 ? t->l2 : "none", t->recurrent_decay);
}

/* ---- files ---- */

bool train_is_same_file(const char *a, const char *b) {
  struct stat x, y;
  if (!a || !b)
    return false;
  return strcmp(a, b) == 0 || (stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino);
}

bool train_check_files(const train_values *train, const char *const *data, size_t n, const char *what) {
  const char *const model = train->out ? train->out : train->resume;
  for (size_t i = 0; i < n; i++)
    if (train_is_same_file(data[i], model) || train_is_same_file(data[i], train->log)) {
      complain("%s is %s and would be overwritten", data[i], what);
      return false;
    }
  if (train_is_same_file(train->log, model) || train_is_same_file(train->log, train->resume)) {
    complain("--log: %s is the model", train->log);
    return false;
  }
  return true;
}

void train_add_words(train_words *words, const char *option, const char *value, const char *standard) {
  if (!value || (standard && strcmp(value, standard) == 0))
    return;
  words->at[words->n++] = option;
  words->at[words->n++] = value;
}

void train_print_word(FILE *out, const char *word) {
  if (word[0] && !word[strspn(word, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./+-:,@%")]) {
    fprintf(out, " %s", word);
    return;
  }
  fputs(" '", out);
  for (; *word; word++)
    fputs(*word == '\'' ? "'\\''" : (char[]){*word, '\0'}, out);
  fputc('\'', out);
}
