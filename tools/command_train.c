/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "commands.h"
#include "console.h"
#include "training.h"

#define STANDARD_EPOCHS 10
/* A dynamic loss scale as PyTorch's GradScaler has it. */
#define DYNAMIC_SCALE 65536
#define DYNAMIC_INTERVAL 2000

typedef struct train_values {
  option_marks marks;
  common_values common;
  option_files text;
  const char *out, *resume, *log;
  const char *cell, *optimizer, *schedule;
  int64_t hidden, layers, embedding, steps, batch, updates, seed, evaluate_every;
  double epochs, minutes, lr, momentum, weight_decay, decay, lr_min, schedule_epochs, clip, dropout, validation;
  double loss_scale; /* 0: dynamic */
} train_values;

#define AT(field) .offset = offsetof(train_values, field)
#define INTEGER(name_, argument_, field, standard_, min_, max_, help_)                                           \
  {                                                                                                              \
    .type = OPTION_INTEGER, .name = name_, .argument = argument_, AT(field), .standard = standard_, .min = min_, \
    .max = max_, .help = help_                                                                                   \
  }
#define NUMBER(name_, field, standard_, range_, help_) \
  { .type = OPTION_NUMBER, .name = name_, .argument = "X", AT(field), .standard = standard_, range_, .help = help_ }
#define ABOVE_0 .min = 1e-300, .max = 1e300, .expected = "a number above 0"
#define FROM_0 .min = 0, .max = 1e300, .expected = "a number, 0 or more"
#define BELOW_1 .min = 0, .max = 1 - 1e-9, .expected = "a number from 0 to less than 1"
#define HEADING(help_) \
  { .type = OPTION_HEADING, .help = help_ }
#define TEXT(name_, argument_, field, help_) \
  { .type = OPTION_TEXT, .name = name_, .argument = argument_, AT(field), .help = help_ }
#define CHOICE(name_, argument_, field, standard_, choices_, help_)                                \
  {                                                                                                \
    .type = OPTION_CHOICE, .name = name_, .argument = argument_, AT(field), .standard = standard_, \
    .choices = choices_, .help = help_                                                             \
  }

static const option_spec options[] = {
    HEADING("files"),
    {.type = OPTION_FILES,
     .name = "text",
     .argument = "FILE...",
     AT(text),
     .required = true,
     .help = "UTF-8, one or more files, read as one text"},
    TEXT("out", "M.safetensors", out, "the model; M.best.safetensors is the best one by validation"),
    TEXT("resume", "M.safetensors", resume,
         "go on where that model was saved, with the same text; saved there without --out"),
    TEXT("log", "F.jsonl", log,
         "a JSON object per update: update, loss in nats, lr, grad_norm, chars_per_s; loss_scale, where it is dynamic"),
    HEADING("how long, until the first limit is reached (default --epochs 10)"),
    NUMBER("epochs", epochs, NULL, ABOVE_0, "passes over the text, counted from the first run on"),
    INTEGER("updates", "N", updates, NULL, 0, (double)INT64_MAX,
            "updates, counted from the first run on; 0: saves the new model as it is"),
    NUMBER("minutes", minutes, NULL, ABOVE_0, "minutes of this run"),
    HEADING("model"),
    CHOICE("cell", "C", cell, "lstm", "rnn lstm gru gru_after", "what a layer is made of"),
    INTEGER("hidden", "N", hidden, "128", 1, 16384, "units of a layer"),
    INTEGER("layers", "N", layers, "2", 1, 16, "layers, one above the other"),
    INTEGER("embedding", "N", embedding, "64", 1, 16384, "numbers per character"),
    NUMBER("dropout", dropout, "0", BELOW_1, "part of the values between layers that is dropped"),
    INTEGER("seed", "N", seed, "1", 0, (double)INT64_MAX, "of initial values and dropout"),
    HEADING("training"),
    INTEGER("steps-per-update", "T", steps, "64", 1, 65536, "characters that gradients flow back through"),
    INTEGER("batch", "B", batch, "32", 1, 65536, "places of the text that are read side by side"),
    CHOICE("optimizer", "O", optimizer, "adam", "sgd rmsprop adam adamw", "how gradients become updates"),
    NUMBER("lr", lr, "0.002", ABOVE_0, "learning rate, at first"),
    NUMBER("momentum", momentum, "0.9", BELOW_1, "of sgd"),
    NUMBER("weight-decay", weight_decay, "0", FROM_0, "pull of the parameters to 0"),
    CHOICE("schedule", "S", schedule, "constant", "constant time exponential cosine",
           "how the learning rate changes over epochs"),
    NUMBER("decay", decay, NULL, FROM_0,
           "of the schedules time: lr/(1 + X·epoch) (default 0.1), and exponential: lr·X^epoch (default 0.9)"),
    NUMBER("lr-min", lr_min, "0", FROM_0, "where the schedule cosine ends"),
    NUMBER("schedule-epochs", schedule_epochs, NULL, ABOVE_0,
           "how long the schedule cosine takes (default: until the first run's limit)"),
    NUMBER("clip", clip, "1", FROM_0, "greatest norm of all gradients together; 0: as it comes"),
    {.type = OPTION_NUMBER,
     .name = "loss-scale",
     .argument = "X|dynamic",
     AT(loss_scale),
     .standard = "1",
     .word = "dynamic",
     .min = 1,
     .max = 0x1p126,
     .expected = "a number from 1 to 2^126, or dynamic",
     .help = "factor of the loss while gradients are made, for devices that compute with half precision; dynamic: from "
             "65536 on, halved and the update skipped where gradients overflow, doubled after 2000 updates without"},
    NUMBER("validation-fraction", validation, "0.05", BELOW_1,
           "the last part of the text, kept for validation; 0: none"),
    INTEGER("evaluate-every", "N", evaluate_every, "0", 0, (double)INT64_MAX,
            "updates from one validation to the next; 0: at the end of each epoch"),
    HEADING("where and how"),
    OPTIONS_DEVICE(train_values),
    OPTIONS_LOG(train_values),
};

/* What a model's file holds, so that it can't be chosen again with --resume. */
static const char *const of_the_model[] = {
    "cell", "hidden",     "layers",           "embedding",          "dropout",
    "seed", "batch",      "optimizer",        "momentum",           "weight-decay",
    "clip", "loss-scale", "steps-per-update", "validation-fraction"};

static int32_t index_of(const char *word, const char *const *words) {
  int32_t i = 0;
  while (strcmp(word, words[i]) != 0)
    i++;
  return i;
}

static int32_t cell_code(const char *name) {
  static const char *const names[] = {"", "rnn", "lstm", "gru", "gru_after"};
  return index_of(name, names);
}
static const char *const optimizer_names[] = {"sgd", "rmsprop", "adam", "adamw"};

static void set_schedule(const command_spec *command, const train_values *values, unroll_schedule *schedule) {
  const bool fresh = !values->resume;
  if (fresh || option_was_given(command, values, "lr"))
    schedule->base = values->lr;
  if (fresh || option_was_given(command, values, "schedule")) {
    int32_t kind = 0;
    while (strcmp(unroll_schedule_name(kind), values->schedule) != 0)
      kind++;
    schedule->kind = kind;
    schedule->decay = kind == UNROLL_SCHEDULE_TIME ? 0.1 : 0.9;
    schedule->minimum = values->lr_min;
  }
  if (option_was_given(command, values, "decay"))
    schedule->decay = values->decay;
  if (option_was_given(command, values, "lr-min"))
    schedule->minimum = values->lr_min;
  if (option_was_given(command, values, "schedule-epochs"))
    schedule->total = values->schedule_epochs;
}

static bool changes_schedule(const command_spec *command, const train_values *values) {
  static const char *const names[] = {"lr", "schedule", "decay", "lr-min", "schedule-epochs"};
  for (size_t i = 0; i < COUNT(names); i++)
    if (option_was_given(command, values, names[i]))
      return true;
  return false;
}

static void set_optimizer(const train_values *values, unroll_optimizer_attr *optimizer) {
  optimizer->kind = index_of(values->optimizer, optimizer_names);
  optimizer->weight_decay = values->weight_decay;
  if (optimizer->kind == UNROLL_SGD)
    optimizer->beta1 = values->momentum;
  if (optimizer->kind == UNROLL_RMSPROP)
    optimizer->beta2 = 0.99; /* as PyTorch; Hinton's lecture has 0.9 */
}

static unroll_lm_options lm_options(const command_spec *command, const train_values *values) {
  unroll_lm_options o = unroll_lm_options_default();
  o.cell = cell_code(values->cell);
  o.layers = values->layers;
  o.hidden = values->hidden;
  o.embedding = values->embedding;
  o.steps = values->steps;
  o.batch = values->batch;
  o.dropout = values->dropout;
  o.clip = values->clip;
  o.loss_scale = values->loss_scale > 0 ? values->loss_scale : DYNAMIC_SCALE;
  o.loss_scale_interval = values->loss_scale > 0 ? 0 : DYNAMIC_INTERVAL;
  o.validation = values->validation;
  o.seed = (uint64_t)values->seed;
  set_optimizer(values, &o.optimizer);
  set_schedule(command, values, &o.schedule);
  return o;
}

/* ---- what stands on stderr before and after ---- */

static const char *cell_name(int32_t cell) {
#define CELL_NAME(code, number, text) \
  if (cell == code)                   \
    return text;
  UNROLL_CELLS(CELL_NAME)
#undef CELL_NAME
  return "?";
}

static void introduce(const train_values *values, const unroll_lm *lm, const unroll_text *text, unroll_device *device) {
  const unroll_lm_info info = unroll_lm_describe(lm);
  const unroll_lm_options *o = &info.options;
  const unroll_device_info *d = unroll_device_describe(device);
  tell("text      %" PRId64 " characters, %" PRId32 " different; %" PRId64 " to train, %" PRId64 " to validate",
       unroll_text_count(text), unroll_vocabulary_count(info.vocabulary), info.train_characters,
       info.validation_characters);
  tell("model     %s, %" PRId64 " layer%s of %" PRId64 " units, embedding %" PRId64 "; %" PRIu64 " parameters",
       cell_name(o->cell), o->layers, o->layers == 1 ? "" : "s", o->hidden, o->embedding, info.n_parameters);
  tell("device    %s, %s", unroll_device_id(device), d && d->name ? d->name : "");
  tell("updates   %" PRIu64 " an epoch, each of %" PRId64 " places x %" PRId64 " characters", info.updates_per_epoch,
       o->batch, o->steps);
  if (o->loss_scale_interval > 0)
    tell("scale     loss x %g at first: halved when gradients overflow, doubled after %" PRId64 " updates without",
         o->loss_scale, o->loss_scale_interval);
  else if (o->loss_scale != 1)
    tell("scale     loss x %g", o->loss_scale);
  if (values->resume)
    tell("resumed   at update %" PRIu64 " of %s", info.update, values->resume);
}

/* A word as the shell takes it. */
static void print_word(FILE *out, const char *word) {
  if (word[0] && !word[strspn(word, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./+-:,@%")]) {
    fprintf(out, " %s", word);
    return;
  }
  fputs(" '", out);
  for (; *word; word++)
    fputs(*word == '\'' ? "'\\''" : (char[]){*word, '\0'}, out);
  fputc('\'', out);
}

static void print_resume(FILE *out, const train_values *values, const char *model) {
  fputs("go on with: unroll train lm --text", out);
  for (size_t i = 0; i < values->text.count; i++)
    print_word(out, values->text.paths[i]);
  fputs(" --resume", out);
  print_word(out, model);
  if (values->epochs > 0)
    fprintf(out, " --epochs %g", values->epochs);
  if (values->updates > 0)
    fprintf(out, " --updates %" PRId64, values->updates);
  if (values->minutes > 0)
    fprintf(out, " --minutes %g", values->minutes);
  if (values->log) {
    fputs(" --log", out);
    print_word(out, values->log);
  }
  fputs(" --device", out);
  print_word(out, values->common.device);
  fputc('\n', out);
}

static void say_what_was_kept(const training *t, const char *resumed_from) {
  const unroll_lm_info info = unroll_lm_describe(t->lm);
  const bool resumed_here = resumed_from && strcmp(resumed_from, t->out) == 0;
  const bool has_best = t->best_saved || (resumed_here && access(t->best, R_OK) == 0);
  const double nats = info.best_validation_loss;
  tell("last      %s, update %" PRIu64, t->out, info.update);
  if (t->updates > 0 && info.options.loss_scale_interval > 0)
    tell("scale     loss x %g at the last update; %" PRIu64 " of %" PRIu64
         " updates skipped for gradients that overflowed",
         t->loss_scale, t->skipped, t->updates);
  if (!isnan(nats))
    tell("best      %s, update %" PRIu64 ", validation %.4f nats, %.4f bits", has_best ? t->best : "not here",
         info.best_update, nats, nats / M_LN2);
  fputs("try it: unroll sample", stderr);
  print_word(stderr, has_best ? t->best : t->out);
  fputc('\n', stderr);
}

/* ---- the run ---- */

static int finish(training *t, const train_values *values, unroll_status status, const unroll_error *err) {
  if (status != UNROLL_OK && status != UNROLL_E_CANCELLED) {
    complain_of(err);
    if (t->saved)
      tell("%s has the model of update %" PRIu64, t->out, t->saved_update);
    return EXIT_FAILED;
  }
  if (!training_save(t))
    return EXIT_FAILED;
  if (status == UNROLL_E_CANCELLED)
    tell("stopped at update %" PRIu64 "; the model is saved", t->saved_update);
  say_what_was_kept(t, values->resume);
  if (status == UNROLL_E_CANCELLED)
    print_resume(stderr, values, t->out);
  return t->log_failed ? EXIT_FAILED : EXIT_OK;
}

static bool has_work(const unroll_lm *lm, const unroll_lm_train_options *limits) {
  const unroll_lm_info info = unroll_lm_describe(lm);
  const double epochs = (double)info.update / (double)info.updates_per_epoch;
  if (limits->updates && info.update >= limits->updates)
    complain("the model has %" PRIu64 " updates already: give more --updates than that", info.update);
  else if (limits->epochs > 0 && epochs >= limits->epochs)
    complain("the model has %.2f epochs already: give more --epochs than that", epochs);
  else
    return true;
  return false;
}

static int train(const command_spec *command, const train_values *values, unroll_lm *lm, const unroll_text *text,
                 unroll_device *device) {
  const bool as_it_is = option_was_given(command, values, "updates") && values->updates == 0;
  training t = {
      .lm = lm, .out = values->out ? values->out : values->resume, .bar = progress_start(), .validation = NAN};
  const bool limited = values->epochs > 0 || values->updates > 0 || values->minutes > 0;
  const unroll_lm_train_options limits = {.struct_size = sizeof limits,
                                          .epochs = limited ? values->epochs : STANDARD_EPOCHS,
                                          .updates = (uint64_t)values->updates,
                                          .minutes = values->minutes,
                                          .evaluate_every = (uint64_t)values->evaluate_every,
                                          .progress = training_report,
                                          .ctx = &t};
  if (!training_best_path(t.out, t.best, sizeof t.best)) {
    complain("--out: the path is longer than %d bytes", TRAINING_PATH_SIZE);
    return EXIT_FAILED;
  }
  introduce(values, lm, text, device);
  if (!has_work(lm, &limits) || !training_open_log(&t, values->log, values->resume))
    return EXIT_FAILED;
  if (values->out && access(values->out, F_OK) == 0 && !(values->resume && strcmp(values->resume, values->out) == 0))
    tell("unroll: %s is there already and will be replaced", values->out);
  unroll_error err = UNROLL_ERROR_INIT;
  if (as_it_is) {
    training_close_log(&t);
    return finish(&t, values, UNROLL_OK, &err);
  }
  training_catch_signals();
  const unroll_status status = unroll_lm_train(lm, &limits, &err);
  progress_end(&t.bar);
  training_close_log(&t);
  return finish(&t, values, status, &err);
}

static unroll_status open_model(const command_spec *command, const train_values *values, unroll_device *device,
                                const unroll_text *text, unroll_lm **lm, unroll_error *err) {
  if (!values->resume) {
    const unroll_lm_options o = lm_options(command, values);
    return unroll_lm_create(&device, 1, text, &o, NULL, lm, err);
  }
  unroll_status status = unroll_lm_load(&device, 1, values->resume, NULL, lm, err);
  if (status == UNROLL_OK)
    status = unroll_lm_resume(*lm, text, err);
  if (status == UNROLL_OK && changes_schedule(command, values)) {
    unroll_schedule schedule = unroll_lm_describe(*lm).options.schedule;
    set_schedule(command, values, &schedule);
    status = unroll_lm_set_schedule(*lm, &schedule, err);
  }
  return status;
}

static int train_on(const command_spec *command, const train_values *values, const unroll_text *text) {
  unroll_context *ctx = open_context(&values->common);
  unroll_device *device = ctx ? open_device(ctx, &values->common) : NULL;
  unroll_lm *lm = NULL;
  unroll_error err = UNROLL_ERROR_INIT;
  int code = EXIT_FAILED;
  if (device && open_model(command, values, device, text, &lm, &err) == UNROLL_OK)
    code = train(command, values, lm, text, device);
  else if (device)
    complain_of(&err);
  unroll_lm_destroy(lm);
  unroll_device_close(device);
  unroll_context_destroy(ctx);
  return code;
}

static bool check_usage(const command_spec *command, const train_values *values) {
  if (!values->out && !values->resume) {
    complain("'unroll train lm' needs --out M.safetensors");
    complain("see 'unroll train lm --help'");
    return false;
  }
  for (size_t i = 0; values->resume && i < COUNT(of_the_model); i++)
    if (option_was_given(command, values, of_the_model[i])) {
      complain("--%s stands in the model that is resumed: leave it out, or train a new model without --resume",
               of_the_model[i]);
      return false;
    }
  if (!values->resume && strcmp(values->schedule, "cosine") == 0 && values->minutes > 0 && values->epochs == 0 &&
      values->updates == 0 && values->schedule_epochs == 0) {
    complain("--schedule cosine with no other limit than --minutes needs --schedule-epochs");
    return false;
  }
  return true;
}

/* One file under two names would be lost: a text that is also the log, say. */
static bool is_same_file(const char *a, const char *b) {
  struct stat x, y;
  if (!a || !b)
    return false;
  return strcmp(a, b) == 0 || (stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino);
}

static bool check_files(const train_values *values) {
  const char *const model = values->out ? values->out : values->resume;
  for (size_t i = 0; i < values->text.count; i++)
    if (is_same_file(values->text.paths[i], model) || is_same_file(values->text.paths[i], values->log)) {
      complain("%s is the text and would be overwritten", values->text.paths[i]);
      return false;
    }
  if (is_same_file(values->log, model) || is_same_file(values->log, values->resume)) {
    complain("--log: %s is the model", values->log);
    return false;
  }
  return true;
}

static int run(const command_spec *command, const void *p) {
  const train_values *values = p;
  if (!check_usage(command, values) || !check_files(values))
    return EXIT_USAGE;
  if (values->out && !training_check_target("out", values->out))
    return EXIT_FAILED;
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_text *text;
  if (unroll_text_load(values->text.paths, values->text.count, NULL, NULL, &text, &err) != UNROLL_OK)
    return complain_of(&err);
  const int code = train_on(command, values, text);
  unroll_text_destroy(text);
  return code;
}

const command_spec command_train = {
    .name = "train lm",
    .purpose = "train a language model of characters on a text",
    .usage = "--text FILE... --out M.safetensors [options]",
    .options = options,
    .n_options = COUNT(options),
    .values_size = sizeof(train_values),
    .notes = "Ctrl-C stops after the update, saves and says how to go on; a second Ctrl-C quits at once. The model is "
             "also saved at\n"
             "every validation and every two minutes, and a file is replaced as a whole or not at all.\n",
    .example = "  unroll train lm --text book.txt --out book.safetensors --minutes 5\n"
               "  unroll train lm --text book.txt --resume book.safetensors --epochs 20\n",
    .run = run,
};
