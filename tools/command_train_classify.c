/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <math.h>
#include <string.h>
#include <unroll/classify.h>

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

static void tell_model(const void *model, const void *data) {
  (void)data;
  const unroll_classifier_info info = unroll_classifier_describe(model);
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
  train_tell_model(&info.options.rnn, info.options.bidirectional ? "bidirectional " : "", "", info.n_parameters);
}

static void tell_updates(const void *model) {
  const unroll_classifier_info info = unroll_classifier_describe(model);
  const unroll_classifier_options *o = &info.options;
  tell("updates   %" PRIu64 " an epoch, each of %" PRId64 " sequences", info.updates_per_epoch, o->training.batch);
  train_tell_more(&o->rnn, &o->training, "sequences");
}

/* ---- the run ---- */

static unroll_status open_sequences(const void *p, const void *resumed, void **data, unroll_error *err) {
  const classify_values *values = p;
  const unroll_classifier_info info = unroll_classifier_describe(resumed);
  unroll_sequences *sequences = NULL;
  const unroll_status status = sequence_load(&values->data, info.features, info.labels, true, &sequences, err);
  *data = sequences;
  return status;
}
static void close_sequences(void *data) { unroll_sequences_destroy(data); }

static unroll_status create_model(const command_spec *command, const void *values, unroll_device *device,
                                  const void *data, void **model, unroll_error *err) {
  const unroll_classifier_options o = model_options(command, values);
  unroll_classifier *c = NULL;
  const unroll_status status = unroll_classifier_create(&device, 1, data, &o, NULL, &c, err);
  *model = c;
  return status;
}

static unroll_status resume_model(void *model, const void *data, unroll_error *err) {
  return unroll_classifier_resume(model, data, err);
}

TRAINING_FUNCTIONS(unroll_classifier)

static const training_task task = {.data_option = "csv",
                                   .data = "the data",
                                   .of_the_model = of_the_model,
                                   .n_of_the_model = COUNT(of_the_model),
                                   .open_data = open_sequences,
                                   .close_data = close_sequences,
                                   .create = create_model,
                                   .resume = resume_model,
                                   .tell_model = tell_model,
                                   .tell_updates = tell_updates,
                                   TRAINING_FUNCTION_FIELDS,
                                   .pace = "steps",
                                   .metric = "accuracy",
                                   .try_it = "unroll predict --csv FILE"};

static int run(const command_spec *command, const void *p) {
  const classify_values *values = p;
  const sequence_values *data = &values->data;
  train_words words = {.at = {data->csv}, .n = 1};
  train_add_words(&words, "--label", data->label, NULL);
  train_add_words(&words, "--sequence", data->sequence, NULL);
  sequence_add_form(&words, data);
  const training_job job = {.command = command,
                            .values = values,
                            .common = &values->common,
                            .train = &values->train,
                            .words = words.at,
                            .n_words = words.n,
                            .n_files = 1};
  return sequence_check_usage(data) ? training_main(&task, &job) : EXIT_USAGE;
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
