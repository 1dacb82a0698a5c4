/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unroll/classify.h>

#include "commands.h"
#include "console.h"
#include "sequence_options.h"

typedef struct predict_values {
  option_marks marks;
  common_values common;
  sequence_values data;
  const char *model;
  bool probabilities;
} predict_values;

static const option_spec options[] = {
    {.type = OPTION_OPERAND,
     .name = "MODEL",
     .offset = offsetof(predict_values, model),
     .required = true,
     .help = "a file that 'unroll train classify' wrote"},
    {.type = OPTION_TEXT,
     .name = "csv",
     .argument = "FILE",
     .offset = offsetof(predict_values, data.csv),
     .required = true,
     .help = "sequences, as those that the model was trained on, but for the labels"},
    OPTIONS_SEQUENCES(predict_values, "a column of labels that there is all the same, which is left out"),
    {.type = OPTION_FLAG,
     .name = "probabilities",
     .offset = offsetof(predict_values, probabilities),
     .help = "those of all classes, a column each"},
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

static int run(const command_spec *command, const void *p) {
  (void)command;
  const predict_values *values = p;
  if (!sequence_check_usage(&values->data))
    return EXIT_USAGE;
  unroll_context *ctx = open_context(&values->common);
  unroll_device *device = ctx ? open_device(ctx, &values->common) : NULL;
  unroll_classifier *c = NULL;
  unroll_error err = UNROLL_ERROR_INIT;
  int code = EXIT_FAILED;
  if (device && unroll_classifier_load(&device, 1, values->model, NULL, &c, &err) == UNROLL_OK)
    code = predict(values, c);
  else if (device)
    complain_of(&err);
  unroll_classifier_destroy(c);
  unroll_device_close(device);
  unroll_context_destroy(ctx);
  return code;
}

const command_spec command_predict = {
    .name = "predict",
    .purpose = "name the classes of sequences with a trained classifier",
    .usage = "MODEL --csv FILE [options]",
    .options = options,
    .n_options = COUNT(options),
    .values_size = sizeof(predict_values),
    .notes =
        "CSV on stdout, a record for each sequence in the file's order: the likeliest class and its probability.\n",
    .example = "  unroll predict digits.safetensors --csv new.csv > labels.csv\n",
    .run = run,
};
