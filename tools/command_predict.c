/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unroll/classify.h>

#include "commands.h"
#include "console.h"
#include "model_kind.h"
#include "predict_series.h"

typedef struct predict_values {
  option_marks marks;
  common_values common;
  sequence_values data;
  series_values series;
  const char *model;
  bool probabilities;
} predict_values;

static const option_spec options[] = {
    {.type = OPTION_OPERAND,
     .name = "MODEL",
     .offset = offsetof(predict_values, model),
     .required = true,
     .help = "a file that 'unroll train classify' or 'unroll train series' wrote"},
    {.type = OPTION_TEXT,
     .name = "csv",
     .argument = "FILE",
     .offset = offsetof(predict_values, data.csv),
     .required = true,
     .help = "of a classifier: sequences, as those that it was trained on, but for the labels; of a forecaster: the "
             "series that it is to go on with"},
    OPTIONS_SEQUENCES(predict_values, "a column of labels that there is all the same, which is left out"),
    {.type = OPTION_FLAG,
     .name = "probabilities",
     .offset = offsetof(predict_values, probabilities),
     .help = "of a classifier: those of all classes, a column each"},
    OPTIONS_FORECASTERS(predict_values, "of a series: the values and their forecast as a picture"),
    INTEGER("steps", "N", offsetof(predict_values, series.steps), "12", 1, 1e6,
            "of a series: how many values after its last one"),
    OPTIONS_DEVICE(predict_values),
    OPTIONS_LOG(predict_values),
};

/* A field of CSV. */
static void print_field(const char *text) {
  if (!text[strcspn(text, ",\"\r\n")]) {
    fputs(text, stdout);
    return;
  }
  putchar('"');
  for (; *text; text++) {
    if (*text == '"')
      putchar('"');
    putchar(*text);
  }
  putchar('"');
}

static int print(const predict_values *values, const unroll_tokens *labels, const float *probabilities, int64_t n) {
  const int32_t C = unroll_tokens_count(labels);
  fputs("label,probability", stdout);
  for (int32_t k = 0; k < C && values->probabilities; k++) {
    putchar(',');
    print_field(unroll_tokens_text(labels, k));
  }
  putchar('\n');
  for (int64_t i = 0; i < n; i++) {
    const float *row = probabilities + i * C;
    int32_t best = 0;
    for (int32_t k = 1; k < C; k++)
      if (row[k] > row[best])
        best = k;
    print_field(unroll_tokens_text(labels, best));
    printf(",%.6g", (double)row[best]);
    for (int32_t k = 0; k < C && values->probabilities; k++)
      printf(",%.6g", (double)row[k]);
    putchar('\n');
  }
  return EXIT_OK;
}

static int predict(const predict_values *values, unroll_classifier *c) {
  const unroll_classifier_info info = unroll_classifier_describe(c);
  unroll_sequences *sequences = NULL;
  unroll_error err = UNROLL_ERROR_INIT;
  if (sequence_load(&values->data, info.features, info.labels, values->data.label, &sequences, &err) != UNROLL_OK)
    return complain_of(&err);
  const int64_t n = unroll_sequences_count(sequences);
  float *probabilities = calloc((size_t)n, (size_t)unroll_tokens_count(info.labels) * sizeof *probabilities);
  int code = EXIT_FAILED;
  if (!probabilities)
    complain("out of memory");
  else if (unroll_classifier_predict(c, sequences, probabilities, &err) != UNROLL_OK)
    complain_of(&err);
  else
    code = print(values, info.labels, probabilities, n);
  free(probabilities);
  unroll_sequences_destroy(sequences);
  return code;
}

static const char *const of_classifiers[] = {"label", "sequence", "probabilities"};
static const char *const of_forecasters[] = {"column", "holes", "with", "plot", "steps"};

static int predict_classes(unroll_device *device, const predict_values *values) {
  unroll_classifier *c = NULL;
  unroll_error err = UNROLL_ERROR_INIT;
  if (unroll_classifier_load(&device, 1, values->model, NULL, &c, &err) != UNROLL_OK)
    return complain_of(&err);
  const int code = predict(values, c);
  unroll_classifier_destroy(c);
  return code;
}

static int run(const command_spec *command, const void *p) {
  const predict_values *values = p;
  const bool is_series = model_is(values->model, MODEL_FORECASTER);
  if (is_series ? series_excludes(command, values, of_classifiers, COUNT(of_classifiers), "a forecaster")
                : series_excludes(command, values, of_forecasters, COUNT(of_forecasters), "a classifier"))
    return EXIT_USAGE;
  if (!sequence_check_usage(&values->data))
    return EXIT_USAGE;
  unroll_context *ctx = open_context(&values->common);
  unroll_device *device = ctx ? open_device(ctx, &values->common) : NULL;
  int code = EXIT_FAILED;
  if (device)
    code = is_series ? predict_series(device, values->model, &values->data, &values->series)
                     : predict_classes(device, values);
  unroll_device_close(device);
  unroll_context_destroy(ctx);
  return code;
}

const command_spec command_predict = {
    .name = "predict",
    .purpose = "name the classes of sequences, or go on with a time series",
    .usage = "MODEL --csv FILE [options]",
    .options = options,
    .n_options = COUNT(options),
    .values_size = sizeof(predict_values),
    .notes =
        "CSV on stdout. Of a classifier: a record for each sequence in the file's order, the likeliest class and its "
        "probability.\nOf a forecaster: a record for each step after the series' last one.\n",
    .example = "  unroll predict digits.safetensors --csv new.csv > labels.csv\n"
               "  unroll predict co2.safetensors --csv co2.csv --steps 24 --plot next.svg > next.csv\n",
    .run = run,
};
