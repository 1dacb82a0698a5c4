/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unroll/train.h>

#include "commands.h"
#include "console.h"
#include "eval_classify.h"
#include "eval_series.h"
#include "eval_translate.h"
#include "model_kind.h"

typedef struct eval_values {
  option_marks marks;
  common_values common;
  sequence_values data;
  series_values series;
  pair_values pairs;
  way_values way;
  const char *model, *part, *errors;
  option_files text;
  bool json;
} eval_values;

static const option_spec options[] = {
    {.type = OPTION_OPERAND,
     .name = "MODEL",
     .offset = offsetof(eval_values, model),
     .required = true,
     .help = "a file that 'unroll train' wrote"},
    {.type = OPTION_FILES,
     .name = "text",
     .argument = "FILE...",
     .offset = offsetof(eval_values, text),
     .help = "of a language model: UTF-8, one or more files, read as one text; characters that the model lacks are "
             "left out and counted"},
    OPTION_CSV(eval_values,
               "of a classifier: labelled sequences, as those that it was trained on; of a forecaster: its "
               "series, which may have grown"),
    OPTIONS_SEQUENCES(eval_values, "of CSV: the column of labels, by name or by number from 1 (default: the first)"),
    OPTIONS_FORECASTERS(eval_values, "of a series: the values and their forecasts as a picture"),
    INTEGER("test", "N", offsetof(eval_values, series.test), "0", 0, INT32_MAX,
            "of a series: how many values at the end are foretold, each from those before; 0: the model's --holdout"),
    INTEGER("ahead", "H", offsetof(eval_values, series.ahead), "1", 1, 65536, "of a series: how many steps ahead"),
    INTEGER("season", "S", offsetof(eval_values, series.season), "0", 0, 65536,
            "of a series: steps of a season, for baselines; 0: as the model has it"),
    OPTION_PAIRS(eval_values, "of a translator: sources and their targets, as those that it was trained on"),
    OPTIONS_PAIRS(eval_values),
    CHOICE("part", "P", offsetof(eval_values, part), "all", "all training validation test",
           "of pairs: those alone that fall into that part of the model's split"),
    TEXT("errors", "F.tsv", offsetof(eval_values, errors),
         "of pairs: source, translation, nearest target, edit distance and length of the target, a line each"),
    OPTIONS_WAY(eval_values),
    {.type = OPTION_FLAG,
     .name = "json",
     .offset = offsetof(eval_values, json),
     .help = "for programs: one JSON object"},
    OPTIONS_DEVICE(eval_values),
    OPTIONS_LOG(eval_values),
};

static void print_row(const char *what, double nats, const char *unit) {
  printf("%-10s%.4f nats, %.4f bits a %s, perplexity %.4g\n", what, nats, nats / M_LN2, unit, exp(nats));
}

static int print(const eval_values *values, const unroll_lm *lm, const unroll_text *text,
                 const unroll_lm_score_info *score) {
  const bool words = unroll_vocabulary_unit(unroll_lm_describe(lm).vocabulary) == UNROLL_UNIT_WORD;
  if (values->json) {
    json_t *all = json_pack("{s:s, s:I, s:I, s:I, s:f, s:f, s:f, s:f}", "unit", words ? "word" : "character", "count",
                            (json_int_t)unroll_text_count(text), "scored", (json_int_t)score->count, "unknown",
                            (json_int_t)unroll_text_unknown(text), "loss", score->loss, "bits", score->loss / M_LN2,
                            "perplexity", exp(score->loss), "unigram_loss", score->unigram);
    const bool written = all && json_dumpf(all, stdout, JSON_REAL_PRECISION(9)) == 0;
    json_decref(all);
    putchar('\n');
    return written ? EXIT_OK : EXIT_FAILED;
  }
  printf("text      %" PRId64 " %ss, %" PRId64 " of them foretold; %" PRId64 " %s\n", unroll_text_count(text),
         words ? "word" : "character", score->count, unroll_text_unknown(text),
         words ? "are <unk>" : "that the model lacks are left out");
  print_row("model", score->loss, words ? "word" : "character");
  print_row("unigram", score->unigram, words ? "word" : "character");
  return EXIT_OK;
}

static unroll_status score(const eval_values *values, unroll_device *device, unroll_lm **lm, unroll_text **text,
                           unroll_lm_score_info *info, unroll_error *err) {
  unroll_status status = unroll_lm_load(&device, 1, values->model, NULL, lm, err);
  if (status != UNROLL_OK)
    return status;
  const unroll_text_options o = {.vocabulary = unroll_lm_describe(*lm).vocabulary, .unknown = UNROLL_UNKNOWN_SKIP};
  status = unroll_text_load(values->text.paths, values->text.count, &o, NULL, text, err);
  return status == UNROLL_OK ? unroll_lm_score(*lm, *text, info, err) : status;
}

static int eval_lm(const eval_values *values, unroll_device *device) {
  unroll_lm *lm = NULL;
  unroll_text *text = NULL;
  unroll_lm_score_info info;
  unroll_error err = UNROLL_ERROR_INIT;
  int code = EXIT_FAILED;
  if (score(values, device, &lm, &text, &info, &err) == UNROLL_OK)
    code = print(values, lm, text, &info);
  else
    complain_of(&err);
  unroll_lm_destroy(lm);
  unroll_text_destroy(text);
  return code;
}

static const char *const of_classifiers[] = {"label", "sequence"};
static const char *const of_forecasters[] = {"column", "holes", "with", "plot", "test", "ahead", "season"};

static bool check_usage(const command_spec *command, const eval_values *values, bool is_series) {
  const bool has_text = values->text.count > 0, has_pairs = values->pairs.path;
  const int given = has_text + has_pairs + (values->data.csv != NULL);
  bool right = false;
  if (given > 1)
    complain("--text is for language models, --csv for classifiers and forecasters, --pairs for translators: give one "
             "of them");
  else if (given == 0)
    complain("'unroll %s' needs --text FILE..., --csv FILE, or --pairs FILE", command->name);
  else if (is_series)
    right = !series_excludes(command, values, of_classifiers, COUNT(of_classifiers), "a forecaster");
  else
    right = !series_excludes(command, values, of_forecasters, COUNT(of_forecasters),
                             has_text    ? "a language model"
                             : has_pairs ? "a translator"
                                         : "a classifier");
  if (right && has_pairs)
    return pairs_check_usage(&values->pairs) && way_check_usage(command, values, &values->way);
  if (right)
    return sequence_check_usage(&values->data);
  complain("see 'unroll %s --help'", command->name);
  return false;
}

static int run(const command_spec *command, const void *p) {
  const eval_values *values = p;
  const bool is_series = values->data.csv && model_is(values->model, MODEL_FORECASTER);
  if (!check_usage(command, values, is_series))
    return EXIT_USAGE;
  unroll_context *ctx = open_context(&values->common);
  unroll_device *device = ctx ? open_device(ctx, &values->common) : NULL;
  int code = EXIT_FAILED;
  if (device && is_series)
    code = eval_series(device, values->model, &values->data, &values->series, values->json);
  else if (device && values->data.csv)
    code = eval_classifier(device, values->model, &values->data, values->json);
  else if (device && values->pairs.path)
    code = eval_translator(device, values->model, &values->pairs, &values->way, values->part, values->errors,
                           values->json);
  else if (device)
    code = eval_lm(values, device);
  unroll_device_close(device);
  unroll_context_destroy(ctx);
  return code;
}

const command_spec command_eval = {
    .name = "eval",
    .purpose = "how good a model is, beside a trivial baseline",
    .usage = "MODEL --text FILE...|--csv FILE|--pairs FILE [options]",
    .options = options,
    .n_options = COUNT(options),
    .values_size = sizeof(eval_values),
    .notes =
        "Beside a language model stands what the text's own frequencies of characters, or words, would give, each for "
        "itself: a\n"
        "model that is no better has learnt nothing of their order. Streams begin from a zero state; up to one batch "
        "at the end\n"
        "is left out. Beside a classifier stands the most frequent class of its training, and below which classes "
        "were taken for\n"
        "which. Beside a forecaster stand the last value again, the same season's last value, alone and with the "
        "last\nseason's change, and autoregressions that are fitted to what comes before the values to foretell. "
        "Beside "
        "a\ntranslator stands what says the most frequent token at each place of the source; a source with several "
        "targets, which\nfollow each other, counts once, with the nearest.\n",
    .example = "  unroll eval book.safetensors --text other.txt\n"
               "  unroll eval digits.safetensors --csv others.csv --label digit\n"
               "  unroll eval sun1.safetensors --with sun2.safetensors --csv sunspots.csv --plot sunspots.svg\n"
               "  unroll eval phonemes.safetensors --pairs cmudict.dict --format cmudict --no-stress --part test\n",
    .run = run,
};
