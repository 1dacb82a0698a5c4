/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "console.h"
#include "training.h"

typedef struct lm_values {
  option_marks marks;
  common_values common;
  train_values train;
  option_files text;
  const char *unit;
  int64_t min_count, embedding, steps, update_steps, steps_start, steps_increment;
  bool tied;
} lm_values;

#define AT(field) offsetof(lm_values, field)

static const option_spec options[] = {
    HEADING("files"),
    {.type = OPTION_FILES,
     .name = "text",
     .argument = "FILE...",
     .offset = AT(text),
     .required = true,
     .help = "UTF-8, one or more files, read as one text"},
    CHOICE("unit", "U", AT(unit), "characters", "characters words",
           "what the text is made of; words stand between white space, and each line's end is one"),
    INTEGER("min-count", "N", AT(min_count), "1", 1, INT32_MAX, "words that the text has fewer times become <unk>"),
    OPTIONS_TRAIN_FILES(lm_values, "the same text", "chars_per_s"),
    OPTIONS_TRAIN_LIMITS(lm_values, "the text"),
    HEADING("model"),
    INTEGER("embedding", "N", AT(embedding), "64", 1, 16384, "numbers per character"),
    OPTIONS_TRAIN_LAYERS(lm_values, "lstm", "128", "2"),
    FLAG("tied", AT(tied),
         "the softmax's weights are the embedding's; --embedding must be as --hidden or, where it is given, "
         "--projection"),
    INTEGER("seed", "N", AT(train.seed), "1", 0, (double)INT64_MAX, "of initial values and dropout"),
    OPTIONS_TRAIN_DROPOUTS(lm_values, ""),
    HEADING("training"),
    INTEGER("steps-per-update", "T", AT(steps), "64", 1, 65536, "characters that gradients flow back through"),
    INTEGER("update-every", "K", AT(update_steps), "0", 0, 65536,
            "characters from one update to the next, where windows of T are to overlap; 0: T"),
    INTEGER("steps-start", "T", AT(steps_start), "0", 0, 65536,
            "curriculum: the T of the first epoch, which grows up to --steps-per-update; 0: none"),
    INTEGER("steps-increment", "N", AT(steps_increment), "0", 0, 65536, "by how much it grows from epoch to epoch"),
    OPTION_TRAIN_CHECKPOINT(lm_values),
    OPTIONS_TRAIN_UPDATES(lm_values, "places of the text that are read side by side", "32"),
    OPTIONS_TRAIN_VALIDATION(lm_values, "the last part of the text, kept for validation; 0: none", "0.05"),
    HEADING("where and how"),
    OPTIONS_DEVICE(lm_values),
    OPTIONS_LOG(lm_values),
};

/* What a model's file holds, beside what every model's does. */
static const char *const of_the_model[] = {"unit",         "min-count",   "embedding",      "tied", "steps-per-update",
                                           "update-every", "steps-start", "steps-increment"};

static unroll_lm_options lm_options(const command_spec *command, const lm_values *values) {
  unroll_lm_options o = unroll_lm_options_default();
  o.embedding = values->embedding;
  o.tied = values->tied;
  o.steps = values->steps;
  o.update_steps = values->update_steps;
  o.steps_start = values->steps_start;
  o.steps_increment = values->steps_increment;
  o.rnn = train_recurrent(&values->train);
  o.training = train_training(command, values, &values->train);
  return o;
}

/* ---- what stands on stderr before ---- */

static void tell_windows(const unroll_lm_options *o) {
  if (o->update_steps > 0)
    tell("windows   an update every %" PRId64 " characters, gradients back through %" PRId64, o->update_steps,
         o->steps);
  if (o->steps_start > 0)
    tell("windows   %" PRId64 " characters in the first epoch, %" PRId64 " more in each, up to %" PRId64,
         o->steps_start, o->steps_increment, o->steps);
}

static const char *unit_of(const unroll_vocabulary *vocabulary) {
  return unroll_vocabulary_unit(vocabulary) == UNROLL_UNIT_WORD ? "words" : "characters";
}

static void tell_model(const void *model, const void *data) {
  const unroll_text *text = data;
  const unroll_lm_info info = unroll_lm_describe(model);
  const unroll_lm_options *o = &info.options;
  tell("text      %" PRId64 " %s, %" PRId32 " different; %" PRId64 " to train, %" PRId64 " to validate",
       unroll_text_count(text), unit_of(info.vocabulary), unroll_vocabulary_count(info.vocabulary),
       info.train_characters, info.validation_characters);
  if (unroll_text_unknown(text) > 0)
    tell("unknown   %" PRId64 " of them are <unk>", unroll_text_unknown(text));
  char embedding[64];
  snprintf(embedding, sizeof embedding, ", %sembedding %" PRId64, o->tied ? "tied " : "", o->embedding);
  train_tell_model(&o->rnn, "", embedding, info.n_parameters);
}

static void tell_updates(const void *model) {
  const unroll_lm_info info = unroll_lm_describe(model);
  const unroll_lm_options *o = &info.options;
  tell("updates   %" PRIu64 " an epoch, each of %" PRId64 " places x %" PRId64 " %s", info.updates_per_epoch,
       o->training.batch, o->steps, unit_of(info.vocabulary));
  tell_windows(o);
  train_tell_more(&o->rnn, &o->training, "places");
}

/* ---- the run ---- */

static unroll_status open_text(const void *p, const void *resumed, void **data, unroll_error *err) {
  const lm_values *values = p;
  unroll_text_options o = {.unit = strcmp(values->unit, "words") == 0 ? UNROLL_UNIT_WORD : UNROLL_UNIT_CHARACTER,
                           .min_count = values->min_count};
  if (resumed) {
    o.vocabulary = unroll_lm_describe(resumed).vocabulary;
    o.unknown = UNROLL_UNKNOWN_SKIP; /* another text is told by its hash */
  }
  unroll_text *text = NULL;
  const unroll_status status = unroll_text_load(values->text.paths, values->text.count, &o, NULL, &text, err);
  *data = text;
  return status;
}
static void close_text(void *data) { unroll_text_destroy(data); }

static unroll_status create_model(const command_spec *command, const void *values, unroll_device *device,
                                  const void *data, void **model, unroll_error *err) {
  const unroll_lm_options o = lm_options(command, values);
  unroll_lm *lm = NULL;
  const unroll_status status = unroll_lm_create(&device, 1, data, &o, NULL, &lm, err);
  *model = lm;
  return status;
}

static unroll_status resume_model(void *model, const void *data, unroll_error *err) {
  return unroll_lm_resume(model, data, err);
}

TRAINING_FUNCTIONS(unroll_lm)

static const training_task task = {.data_option = "text",
                                   .data = "the text",
                                   .of_the_model = of_the_model,
                                   .n_of_the_model = COUNT(of_the_model),
                                   .open_data = open_text,
                                   .close_data = close_text,
                                   .create = create_model,
                                   .resume = resume_model,
                                   .tell_model = tell_model,
                                   .tell_updates = tell_updates,
                                   TRAINING_FUNCTION_FIELDS,
                                   .is_nats = true,
                                   .pace = "chars",
                                   .try_it = "unroll sample"};

static int run(const command_spec *command, const void *p) {
  const lm_values *values = p;
  const training_job job = {.command = command,
                            .values = values,
                            .common = &values->common,
                            .train = &values->train,
                            .words = values->text.paths,
                            .n_words = values->text.count,
                            .n_files = values->text.count};
  return training_main(&task, &job);
}

const command_spec command_train_lm = {
    .name = "train lm",
    .purpose = "train a language model of characters or words on a text",
    .usage = "--text FILE... --out M.safetensors [options]",
    .options = options,
    .n_options = COUNT(options),
    .values_size = sizeof(lm_values),
    .notes = "Ctrl-C stops after the update, saves and says how to go on; a second Ctrl-C quits at once. The model is "
             "also saved at\n"
             "every validation and every two minutes, and a file is replaced as a whole or not at all.\n",
    .example = "  unroll train lm --text book.txt --out book.safetensors --minutes 5\n"
               "  unroll train lm --text book.txt --resume book.safetensors --epochs 20\n",
    .run = run,
};
