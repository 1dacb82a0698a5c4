/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <math.h>
#include <string.h>
#include <unroll/classify.h>

#include "commands.h"
#include "console.h"
#include "sequence_options.h"
#include "training.h"

typedef struct classify_values {
  option_marks marks;
  common_values common;
  train_values train;
  sequence_values data;
  const char *scaling;
  bool bidirectional;
} classify_values;

#define AT(field) offsetof(classify_values, field)

static const option_spec options[] = {
    HEADING("files"),
    {.type = OPTION_TEXT,
     .name = "csv",
     .argument = "FILE",
     .offset = AT(data.csv),
     .required = true,
     .help = "labelled sequences: a record is one, its label and the numbers of all its steps; see --sequence"},
    INTEGER("features", "F", AT(data.features), "0", 0, INT32_MAX,
            "numbers of a step, where a record is a whole sequence; 0: 1"),
    OPTIONS_SEQUENCES(classify_values, "the column of labels, by name or by number from 1 (default: the first)"),
    OPTIONS_TRAIN_FILES(classify_values, "the same sequences", "steps_per_s"),
    OPTIONS_TRAIN_LIMITS(classify_values, "the sequences"),
    HEADING("model"),
    CHOICE(
        "scaling", "S", AT(scaling), "each", "each together none",
        "numbers are standardised by the training part: each feature by itself, or all together, where they are of one "
        "kind, as pixels are"),
    OPTIONS_TRAIN_LAYERS(classify_values, "gru", "64", "1"),
    FLAG("bidirectional", AT(bidirectional), "every layer reads both ways; the last states of both are looked at"),
    INTEGER("seed", "N", AT(train.seed), "1", 0, (double)INT64_MAX, "of the split, initial values, orders, dropout"),
    OPTIONS_TRAIN_DROPOUTS(classify_values, ", also of the last state"),
    HEADING("training"),
    OPTION_TRAIN_CHECKPOINT(classify_values),
    OPTIONS_TRAIN_UPDATES(classify_values, "sequences of an update, of like length where lengths differ", "32"),
    OPTIONS_TRAIN_VALIDATION(classify_values, "about this share of the sequences is kept for validation; 0: none",
                             "0.1"),
    HEADING("where and how"),
    OPTIONS_DEVICE(classify_values),
    OPTIONS_LOG(classify_values),
};

/* What a model's file holds, beside what every model's does. */
static const char *const of_the_model[] = {"features", "scaling", "bidirectional"};

static unroll_classifier_options model_options(const command_spec *command, const classify_values *values) {
  unroll_classifier_options o = unroll_classifier_options_default();
  while (strcmp(unroll_scaling_name(o.scaling), values->scaling) != 0)
    o.scaling++;
  o.bidirectional = values->bidirectional;
  o.rnn = train_recurrent(&values->train);
  o.training = train_training(command, values, &values->train);
  return o;
}

/* ---- what stands on stderr before ---- */

static void introduce(const classify_values *values, const unroll_classifier *c, unroll_device *device) {
  const unroll_classifier_info info = unroll_classifier_describe(c);
  const unroll_classifier_options *o = &info.options;
  const unroll_device_info *d = unroll_device_describe(device);
  char lengths[48];
  if (info.shortest == info.longest)
    snprintf(lengths, sizeof lengths, "%" PRId64, info.longest);
  else
    snprintf(lengths, sizeof lengths, "%" PRId64 " to %" PRId64, info.shortest, info.longest);
  tell("sequences %" PRId64 " of %s steps x %" PRId64 " numbers, %" PRId32 " classes",
       info.train_count + info.validation_count, lengths, info.features, unroll_tokens_count(info.labels));
  tell("split     %" PRId64 " to train, %" PRId64 " to validate, hash %016" PRIx64, info.train_count,
       info.validation_count, info.split_hash);
  if (isnan(info.majority_accuracy))
    tell("baseline  always '%s', the most frequent class", unroll_tokens_text(info.labels, info.majority));
  else
    tell("baseline  always '%s', the most frequent class: accuracy %.4f on the validation part",
         unroll_tokens_text(info.labels, info.majority), info.majority_accuracy);
  train_tell_model(&o->rnn, o->bidirectional ? "bidirectional " : "", "", info.n_parameters);
  tell("device    %s, %s", unroll_device_id(device), d && d->name ? d->name : "");
  tell("updates   %" PRIu64 " an epoch, each of %" PRId64 " sequences", info.updates_per_epoch, o->training.batch);
  train_tell_more(&o->rnn, &o->training, "sequences");
  if (values->train.resume)
    tell("resumed   at update %" PRIu64 " of %s", info.update, values->train.resume);
}

/* ---- the run ---- */

static unroll_status train_model(void *model, const unroll_train_options *o, unroll_error *err) {
  return unroll_classifier_train(model, o, err);
}
static unroll_status save_model(void *model, const char *path, unroll_error *err) {
  return unroll_classifier_save(model, path, err);
}
static double learning_rate(const void *model, uint64_t update) {
  return unroll_classifier_learning_rate(model, update);
}
static training_position position(const void *model) {
  const unroll_classifier_info info = unroll_classifier_describe(model);
  return (training_position){info.update, info.updates_per_epoch, info.best_update, info.best_validation_loss};
}

static const training_task task = {.train = train_model,
                                   .save = save_model,
                                   .learning_rate = learning_rate,
                                   .position = position,
                                   .pace = "steps",
                                   .metric = "accuracy",
                                   .try_it = "unroll predict --csv FILE"};

static int train_it(const command_spec *command, const classify_values *values, unroll_classifier *c,
                    unroll_device *device) {
  const sequence_values *data = &values->data;
  const char *words[9] = {data->csv};
  size_t n = 1;
  if (data->label) {
    words[n++] = "--label";
    words[n++] = data->label;
  }
  if (data->sequence) {
    words[n++] = "--sequence";
    words[n++] = data->sequence;
  }
  if (strcmp(data->header, "auto") != 0) {
    words[n++] = "--header";
    words[n++] = data->header;
  }
  if (data->separator) {
    words[n++] = "--separator";
    words[n++] = data->separator;
  }
  introduce(values, c, device);
  return training_run(&task, c, command, values, &values->train, values->common.device, "csv", words, n);
}

static unroll_status open_model(const command_spec *command, const classify_values *values, unroll_device *device,
                                unroll_sequences **sequences, unroll_classifier **c, unroll_error *err) {
  unroll_status status = UNROLL_OK;
  unroll_classifier_info info = {.features = 0, .labels = NULL};
  if (values->train.resume) {
    status = unroll_classifier_load(&device, 1, values->train.resume, NULL, c, err);
    info = unroll_classifier_describe(*c);
  }
  if (status == UNROLL_OK)
    status = sequence_load(&values->data, info.features, info.labels, true, sequences, err);
  if (status != UNROLL_OK)
    return status;
  if (!values->train.resume) {
    const unroll_classifier_options o = model_options(command, values);
    return unroll_classifier_create(&device, 1, *sequences, &o, NULL, c, err);
  }
  status = unroll_classifier_resume(*c, *sequences, err);
  if (status == UNROLL_OK && train_changes_schedule(command, values)) {
    unroll_schedule schedule = info.options.training.schedule;
    train_set_schedule(command, values, &values->train, &schedule);
    status = unroll_classifier_set_schedule(*c, &schedule, err);
  }
  return status;
}

static int run(const command_spec *command, const void *p) {
  const classify_values *values = p;
  const train_values *train = &values->train;
  if (!train_check_usage(command, values, train, of_the_model, COUNT(of_the_model)) ||
      !train_check_files(train, &values->data.csv, 1, "the data") || !sequence_check_usage(&values->data))
    return EXIT_USAGE;
  if (train->out && !training_check_target("out", train->out))
    return EXIT_FAILED;
  unroll_context *ctx = open_context(&values->common);
  unroll_device *device = ctx ? open_device(ctx, &values->common) : NULL;
  unroll_classifier *c = NULL;
  unroll_sequences *sequences = NULL;
  unroll_error err = UNROLL_ERROR_INIT;
  int code = EXIT_FAILED;
  if (device && open_model(command, values, device, &sequences, &c, &err) == UNROLL_OK)
    code = train_it(command, values, c, device);
  else if (device)
    complain_of(&err);
  unroll_classifier_destroy(c);
  unroll_sequences_destroy(sequences);
  unroll_device_close(device);
  unroll_context_destroy(ctx);
  return code;
}

const command_spec command_train_classify = {
    .name = "train classify",
    .purpose = "train a classifier of sequences on CSV",
    .usage = "--csv FILE --out M.safetensors [options]",
    .options = options,
    .n_options = COUNT(options),
    .values_size = sizeof(classify_values),
    .notes =
        "Equal sequences are never in both parts, "
        "and equal\nhashes of a split mean equal sequences in equal parts. Ctrl-C and files: as 'unroll train lm' has "
        "it.\n",
    .example =
        "  unroll train classify --csv digits.csv --label digit --features 8 --scaling together --dropout 0.3 \\\n"
        "    --epochs 40 --out digits.safetensors\n"
        "  unroll eval digits.safetensors --csv others.csv --label digit\n",
    .run = run,
};
