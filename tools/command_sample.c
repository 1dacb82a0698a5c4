/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>
#include <unistd.h>
#include <unroll/train.h>

#include "commands.h"
#include "console.h"

typedef struct sample_values {
  option_marks marks;
  common_values common;
  const char *model, *prompt;
  int64_t length, top_k, seed;
  double temperature;
} sample_values;

static const option_spec options[] = {
    {.type = OPTION_OPERAND,
     .name = "MODEL",
     .offset = offsetof(sample_values, model),
     .required = true,
     .help = "a file that 'unroll train lm' wrote"},
    {.type = OPTION_TEXT,
     .name = "prompt",
     .argument = "TEXT",
     .offset = offsetof(sample_values, prompt),
     .standard = "",
     .help = "what the text begins with; without it, as on a new line"},
    {.type = OPTION_INTEGER,
     .name = "length",
     .argument = "N",
     .offset = offsetof(sample_values, length),
     .standard = "500",
     .min = 1,
     .max = (double)INT64_MAX,
     .help = "characters to make after the prompt"},
    {.type = OPTION_NUMBER,
     .name = "temperature",
     .argument = "X",
     .offset = offsetof(sample_values, temperature),
     .standard = "0.8",
     .min = 0,
     .max = 100,
     .help = "below 1 likelier characters, above 1 rarer ones; 0: always the likeliest"},
    {.type = OPTION_INTEGER,
     .name = "top-k",
     .argument = "K",
     .offset = offsetof(sample_values, top_k),
     .standard = "0",
     .min = 0,
     .max = INT32_MAX,
     .help = "choose among the K likeliest; 0: among all"},
    {.type = OPTION_INTEGER,
     .name = "seed",
     .argument = "N",
     .offset = offsetof(sample_values, seed),
     .standard = "1",
     .min = 0,
     .max = (double)INT64_MAX,
     .help = "of the random numbers: the same seed gives the same text"},
    OPTIONS_DEVICE(sample_values),
    OPTIONS_LOG(sample_values),
};

/* The prompt comes first, and only once the model has taken it. */
static int print_piece(void *ctx, const char *text, size_t bytes) {
  const char **prompt = ctx;
  fputs(*prompt, stdout);
  *prompt = "";
  return fwrite(text, 1, bytes, stdout) != bytes || !console_flush();
}

static int sample(unroll_lm *lm, const sample_values *values) {
  const unroll_lm_sample_options request = {.struct_size = sizeof request,
                                            .prompt = values->prompt,
                                            .length = (uint64_t)values->length,
                                            .temperature = values->temperature,
                                            .top_k = values->top_k,
                                            .seed = (uint64_t)values->seed};
  unroll_error err = UNROLL_ERROR_INIT;
  const char *prompt = values->prompt;
  const unroll_status status = unroll_lm_sample(lm, &request, print_piece, &prompt, &err);
  if (status == UNROLL_OK && isatty(STDOUT_FILENO))
    putchar('\n');
  /* Cancelled is when stdout takes no more: console_finish says why. */
  return status == UNROLL_OK || status == UNROLL_E_CANCELLED ? EXIT_OK : complain_of(&err);
}

static int run(const command_spec *command, const void *p) {
  (void)command;
  const sample_values *values = p;
  unroll_context *ctx = open_context(&values->common);
  unroll_device *device = ctx ? open_device(ctx, &values->common) : NULL;
  unroll_lm *lm = NULL;
  unroll_error err = UNROLL_ERROR_INIT;
  int code = EXIT_FAILED;
  if (device && unroll_lm_load(&device, 1, values->model, NULL, &lm, &err) == UNROLL_OK)
    code = sample(lm, values);
  else if (device)
    complain_of(&err);
  unroll_lm_destroy(lm);
  unroll_device_close(device);
  unroll_context_destroy(ctx);
  return code;
}

const command_spec command_sample = {
    .name = "sample",
    .purpose = "write text with a trained language model",
    .usage = "MODEL [options]",
    .options = options,
    .n_options = COUNT(options),
    .values_size = sizeof(sample_values),
    .notes = "Prompt and text go to stdout as they come, messages to stderr.\n",
    .example = "  unroll sample book.safetensors --prompt \"It was \" --length 300 --temperature 0.7\n",
    .run = run,
};
