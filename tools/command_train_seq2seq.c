/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <string.h>
#include <unroll/translate.h>

#include "console.h"
#include "pair_options.h"
#include "training.h"

typedef struct seq2seq_values {
  option_marks marks;
  common_values common;
  train_values train;
  pair_values pairs;
  const char *source_unit, *target_unit, *attention, *context, *sampling, *sampling_pick, *reinforce;
  int64_t embedding, encoder_hidden, attention_units, steps_start, steps_increment, reinforce_seed;
  double testing, sampling_start, sampling_rate, sampling_least, reinforce_decay;
  bool one_way, plain_decoder;
} seq2seq_values;

#define AT(field) offsetof(seq2seq_values, field)
#define PROBABILITY .min = 0, .max = 1, .expected = "a number from 0 to 1"

static const option_spec options[] = {
    HEADING("files"),
    {.type = OPTION_TEXT,
     .name = "pairs",
     .argument = "FILE",
     .offset = AT(pairs.path),
     .required = true,
     .help = "sources and their targets, a line each"},
    OPTIONS_PAIRS(seq2seq_values),
    CHOICE("source-unit", "U", AT(source_unit), "character", "character word", "what the encoder reads one by one"),
    CHOICE("target-unit", "U", AT(target_unit), NULL, "character word",
           "what the decoder says one by one (default: character; of cmudict word, which are its phonemes)"),
    OPTIONS_TRAIN_FILES(seq2seq_values, "the same pairs", "tokens_per_s"),
    OPTIONS_TRAIN_LIMITS(seq2seq_values, "the pairs"),
    HEADING("model"),
    OPTIONS_TRAIN_LAYERS(seq2seq_values, "gru", "256", "1"),
    INTEGER("encoder-hidden", "N", AT(encoder_hidden), "0", 0, 16384,
            "units of the encoder's layers and directions; 0: as --hidden, or its half where dot products of both ways "
            "want it and there is no --projection, which they halve"),
    FLAG("one-way", AT(one_way), "the encoder reads from the left alone"),
    FLAG("plain-decoder", AT(plain_decoder),
         "all options of cells and all dropouts but --dropout are of the encoder alone"),
    INTEGER("embedding", "N", AT(embedding), "64", 1, 16384, "numbers per token"),
    CHOICE("attention", "A", AT(attention), "additive", "none additive multiplicative dot scaled_dot",
           "how a place of the source is weighed"),
    CHOICE(
        "context", "C", AT(context), "before", "before after feeding",
        "the context goes into the cell, or joins its state after it, or goes in one step later too (input feeding)"),
    INTEGER("attention-units", "N", AT(attention_units), "0", 0, 16384, "of additive; 0: as many as a state has"),
    INTEGER("seed", "N", AT(train.seed), "1", 0, (double)INT64_MAX, "of the split, initial values, orders, dropout"),
    OPTIONS_TRAIN_DROPOUTS(seq2seq_values, " and, without --input-dropout, of what the decoder reads"),
    HEADING("training"),
    OPTIONS_TRAIN_UPDATES(seq2seq_values, "pairs of an update, of like length", "128"),
    OPTION_TRAIN_CHECKPOINT(seq2seq_values),
    OPTIONS_TRAIN_VALIDATION(seq2seq_values, "about this share of the sources is kept for validation; 0: none", "0.05"),
    NUMBER("test-fraction", AT(testing), "0.05", BELOW_1,
           "about this share is never looked at: 'unroll eval --part test'"),
    INTEGER("steps-start", "N", AT(steps_start), "0", 0, 1 << 20,
            "curriculum: the first epoch has pairs of up to so many tokens; 0: all from the start"),
    INTEGER("steps-increment", "N", AT(steps_increment), "1", 1, 1 << 20, "and each epoch after it so many more"),
    CHOICE("sampling", "S", AT(sampling), "none", "none linear exponential inverse_sigmoid",
           "scheduled sampling: the decoder is fed the truth with a probability e(u) of update u, else its own choice"),
    NUMBER("sampling-start", AT(sampling_start), "1", PROBABILITY, "e(0)"),
    NUMBER("sampling-rate", AT(sampling_rate), NULL, FROM_0,
           "linear: e(0) - X·u (default 1e-5); exponential: e(0)·X^u (0.9999); inverse_sigmoid: e(0)·X/(X + exp(u/X)) "
           "(2000)"),
    NUMBER("sampling-least", AT(sampling_least), "0", PROBABILITY, "e is never below"),
    CHOICE("sampling-pick", "P", AT(sampling_pick), "greedy", "greedy sample",
           "its own choice is the likeliest token, or drawn"),
    HEADING("from tokens to whole translations, with --resume of a trained model"),
    CHOICE(
        "reinforce", "B", AT(reinforce), NULL, "mean greedy",
        "REINFORCE: the error rate of translations that are drawn, against a baseline: the mean of all so far, or the "
        "greedy translation's; for good"),
    NUMBER("reinforce-decay", AT(reinforce_decay), "0.99", BELOW_1, "of the mean"),
    INTEGER("reinforce-seed", "N", AT(reinforce_seed), "1", 0, (double)INT64_MAX, "of what is drawn"),
    HEADING("where and how"),
    OPTIONS_DEVICE(seq2seq_values),
    OPTIONS_LOG(seq2seq_values),
};

/* What a model's file holds, beside what every model's does. */
static const char *const of_the_model[] = {
    "source-unit",    "target-unit",     "encoder-hidden", "one-way",       "embedding",       "attention",
    "context",        "attention-units", "test-fraction",  "steps-start",   "steps-increment", "sampling",
    "sampling-start", "sampling-rate",   "sampling-least", "sampling-pick", "plain-decoder"};

static int32_t code_of(const char *(*name)(int32_t), const char *word) {
  int32_t i = 0;
  while (strcmp(name(i), word) != 0)
    i++;
  return i;
}

static double usual_rate(int32_t sampling) {
  switch (sampling) {
  case UNROLL_SAMPLING_EXPONENTIAL: return 0.9999;
  case UNROLL_SAMPLING_LINEAR: return 1e-5;
  default: return 2000;
  }
}

static unroll_sampling_schedule sampling_of(const command_spec *command, const seq2seq_values *values) {
  unroll_sampling_schedule s = unroll_translator_options_default().sampling;
  if (strcmp(values->sampling, "none") == 0)
    return s;
  s.kind = code_of(unroll_sampling_name, values->sampling);
  s.start = values->sampling_start;
  s.rate = option_was_given(command, values, "sampling-rate") ? values->sampling_rate : usual_rate(s.kind);
  s.least = values->sampling_least;
  return s;
}

static int32_t unit_of(const char *word) {
  return strcmp(word, "word") == 0 ? UNROLL_UNIT_WORD : UNROLL_UNIT_CHARACTER;
}

static unroll_translator_options model_options(const command_spec *command, const seq2seq_values *values) {
  unroll_translator_options o = unroll_translator_options_default();
  const bool phonemes = strcmp(values->pairs.format, "cmudict") == 0;
  o.bidirectional = !values->one_way;
  o.rnn = train_recurrent(&values->train);
  o.plain_decoder = values->plain_decoder;
  o.encoder_hidden = values->encoder_hidden;
  o.embedding = values->embedding;
  o.attention = code_of(unroll_attention_name, values->attention);
  o.context = code_of(unroll_context_name, values->context);
  o.attention_units = values->attention_units;
  o.source_unit = unit_of(values->source_unit);
  o.target_unit = values->target_unit ? unit_of(values->target_unit)
                  : phonemes          ? UNROLL_UNIT_WORD
                                      : UNROLL_UNIT_CHARACTER;
  o.testing = values->testing;
  o.sampling = sampling_of(command, values);
  o.sampling_pick = strcmp(values->sampling_pick, "sample") == 0 ? UNROLL_PICK_SAMPLE : UNROLL_PICK_GREEDY;
  o.steps_start = values->steps_start;
  o.steps_increment = values->steps_start > 0 ? values->steps_increment : 0;
  o.training = train_training(command, values, &values->train);
  return o;
}

/* ---- what stands on stderr ---- */

static void tell_model(const void *model, const void *data) {
  const unroll_translator_info info = unroll_translator_describe(model);
  const unroll_translator_options *o = &info.options;
  const int64_t *n = info.counts;
  tell("pairs     %" PRId64 "; sources of up to %" PRId64 " of %" PRId32 " %ss, targets of up to %" PRId64
       " of %" PRId32 " %ss",
       unroll_pairs_count(data), info.longest_source,
       unroll_tokens_count(info.sources) - 1, /* without <unk> and </s> */
       o->source_unit == UNROLL_UNIT_WORD ? "word" : "character", info.longest_target,
       unroll_tokens_count(info.targets) - 2, o->target_unit == UNROLL_UNIT_WORD ? "word" : "character");
  tell("split     %" PRId64 " to train, %" PRId64 " to validate, %" PRId64 " to test, hash %016" PRIx64,
       n[UNROLL_TRAINING], n[UNROLL_VALIDATION], n[UNROLL_TESTING], info.split_hash);
  train_tell_model(&o->rnn, o->bidirectional ? "bidirectional encoder and decoder, " : "encoder and decoder, ", "",
                   info.n_parameters);
  if (o->plain_decoder)
    tell("decoder   plain: it has cell, layers, units and dropout alone");
  if (o->attention == UNROLL_ATTENTION_NONE)
    tell("attention none");
  else
    tell("attention %s, context %s%s", unroll_attention_name(o->attention), unroll_context_name(o->context),
         o->context == UNROLL_CONTEXT_FEEDING ? " and after the cell" : " the cell");
}

static void tell_updates(const void *model) {
  const unroll_translator_info info = unroll_translator_describe(model);
  const unroll_translator_options *o = &info.options;
  const unroll_padding *p = &info.padding;
  tell("updates   %" PRIu64 " an epoch, each of %" PRId64 " pairs", info.updates_per_epoch, o->training.batch);
  tell("padding   %.1f%% of the places in batches, %.1f%% if they were not sorted by length",
       100 * (1 - (double)p->real / (double)p->padded), 100 * (1 - (double)p->real / (double)p->plain));
  if (o->steps_start > 0)
    tell("lengths   pairs of up to %" PRId64 " tokens, %" PRId64 " more with each epoch", o->steps_start,
         o->steps_increment);
  if (o->sampling.start < 1 || o->sampling.rate > 0)
    tell("sampling  %s: the truth with %g at first, rate %g, at least %g; else the %s token",
         unroll_sampling_name(o->sampling.kind), o->sampling.start, o->sampling.rate, o->sampling.least,
         o->sampling_pick == UNROLL_PICK_SAMPLE ? "drawn" : "likeliest");
  if (info.baseline)
    tell("reinforce against %s; validation is minus the mean reward",
         info.baseline == UNROLL_BASELINE_GREEDY ? "the greedy translation" : "the mean reward");
  train_tell_more(&o->rnn, &o->training, "pairs");
}

static void tell_score(void *model, const void *data) {
  unroll_translator_score_info s;
  unroll_error err = UNROLL_ERROR_INIT;
  if (unroll_translator_describe(model).counts[UNROLL_VALIDATION] == 0)
    return;
  if (unroll_translator_score(model, data, UNROLL_VALIDATION, NULL, NULL, NULL, &s, &err) != UNROLL_OK) {
    complain_of(&err);
    return;
  }
  tell("score     %" PRId64 " sources of the validation part, greedy: token error rate %.4f, %.4f right", s.count,
       s.error_rate, s.accuracy);
  tell("baseline  the most frequent token at each place: token error rate %.4f, %.4f right", s.baseline_error_rate,
       s.baseline_accuracy);
}

static const char *metric_of(const void *model) {
  return unroll_translator_describe(model).baseline ? "reward" : "accuracy";
}

/* ---- the run ---- */

static unroll_status open_pairs(const void *p, const void *resumed, void **data, unroll_error *err) {
  (void)resumed;
  const seq2seq_values *values = p;
  unroll_pairs *pairs = NULL;
  const unroll_status status = pairs_load(&values->pairs, &pairs, err);
  *data = pairs;
  return status;
}
static void close_pairs(void *data) { unroll_pairs_destroy(data); }

static unroll_status create_model(const command_spec *command, const void *values, unroll_device *device,
                                  const void *data, void **model, unroll_error *err) {
  const unroll_translator_options o = model_options(command, values);
  unroll_translator *t = NULL;
  const unroll_status status = unroll_translator_create(&device, 1, data, &o, NULL, &t, err);
  *model = t;
  return status;
}

static unroll_status before_resume(const void *p, void *model, unroll_error *err) {
  const seq2seq_values *values = p;
  if (!values->reinforce)
    return UNROLL_OK;
  const unroll_translator_reinforce_options o = {
      .struct_size = sizeof o,
      .baseline = strcmp(values->reinforce, "greedy") == 0 ? UNROLL_BASELINE_GREEDY : UNROLL_BASELINE_MEAN,
      .decay = values->reinforce_decay,
      .seed = (uint64_t)values->reinforce_seed};
  return unroll_translator_reinforce(model, &o, err);
}

static unroll_status resume_model(void *model, const void *data, unroll_error *err) {
  return unroll_translator_resume(model, data, err);
}

TRAINING_FUNCTIONS(unroll_translator)

static const training_task task = {.data_option = "pairs",
                                   .data = "the pairs",
                                   .of_the_model = of_the_model,
                                   .n_of_the_model = COUNT(of_the_model),
                                   .open_data = open_pairs,
                                   .close_data = close_pairs,
                                   .create = create_model,
                                   .before_resume = before_resume,
                                   .resume = resume_model,
                                   .tell_model = tell_model,
                                   .tell_updates = tell_updates,
                                   .tell_score = tell_score,
                                   TRAINING_FUNCTION_FIELDS,
                                   .pace = "tokens",
                                   .metric_of = metric_of,
                                   .try_it = "unroll translate"};

static bool check_usage(const command_spec *command, const seq2seq_values *values) {
  static const char *const sampling[] = {"sampling-start", "sampling-rate", "sampling-least", "sampling-pick"};
  static const char *const reinforce[] = {"reinforce-decay", "reinforce-seed"};
  if (!pairs_check_usage(&values->pairs))
    return false;
  for (size_t i = 0; i < COUNT(sampling) && strcmp(values->sampling, "none") == 0; i++)
    if (!values->train.resume && option_was_given(command, values, sampling[i])) {
      complain("--%s is of --sampling linear, exponential or inverse_sigmoid", sampling[i]);
      return false;
    }
  for (size_t i = 0; i < COUNT(reinforce) && !values->reinforce; i++)
    if (option_was_given(command, values, reinforce[i])) {
      complain("--%s is of --reinforce", reinforce[i]);
      return false;
    }
  if (values->reinforce && !values->train.resume) {
    complain("--reinforce goes on from a trained model: give --resume M.safetensors");
    return false;
  }
  return true;
}

static int run(const command_spec *command, const void *p) {
  const seq2seq_values *values = p;
  const pair_values *pairs = &values->pairs;
  train_words words = {.at = {pairs->path}, .n = 1};
  train_add_words(&words, "--format", pairs->format, NULL);
  if (pairs->no_stress)
    words.at[words.n++] = "--no-stress";
  if (pairs->first_only)
    words.at[words.n++] = "--first-only";
  const training_job job = {.command = command,
                            .values = values,
                            .common = &values->common,
                            .train = &values->train,
                            .words = words.at,
                            .n_words = words.n,
                            .n_files = 1};
  return check_usage(command, values) ? training_main(&task, &job) : EXIT_USAGE;
}

const command_spec command_train_seq2seq = {
    .name = "train seq2seq",
    .purpose = "train encoder and decoder on pairs of texts",
    .usage = "--pairs FILE --out M.safetensors [options]",
    .options = options,
    .n_options = COUNT(options),
    .values_size = sizeof(seq2seq_values),
    .notes = "A source's pairs are all in one part, and equal hashes of a split mean equal sources in equal parts. The "
             "decoder\nhas the encoder's cell, layers and options of cells, with masks of its own, unless it is plain; "
             "checkpoints are the\nencoder's alone. Ctrl-C and files: as 'unroll train lm' has it.\n",
    .example =
        "  unroll train seq2seq --pairs cmudict.dict --format cmudict --no-stress --dropout 0.2 --minutes 60 \\\n"
        "    --out phonemes.safetensors\n"
        "  echo unrolled | unroll translate phonemes.safetensors\n",
    .run = run,
};
