/* SPDX-License-Identifier: Apache-2.0 */
/* Every command of `unroll`, and the options that several of them share. */
#ifndef COMMANDS_H
#define COMMANDS_H
#include <unroll/runtime.h>

#include "options.h"

extern const command_spec command_devices, command_train_lm, command_train_classify, command_train_series,
    command_train_seq2seq, command_predict, command_translate, command_sample, command_bench, command_graph,
    command_conform, command_tune, command_eval, command_diagnose, command_report, command_cost;

/* ---- a context and a device ---- */

/* What every command that runs the library takes; a member `common` of its values. */
typedef struct common_values {
  const char *device;
  option_files device_options;
  const char *log_level;
  bool verbose;
} common_values;

#define OPTIONS_DEVICE(values_type)                                                                \
  {.type = OPTION_TEXT,                                                                            \
   .name = "device",                                                                               \
   .argument = "D",                                                                                \
   .offset = offsetof(values_type, common.device),                                                 \
   .standard = "auto",                                                                             \
   .help = "where to run: auto, cpu, opencl, or a device of 'unroll devices' such as opencl:0.0"}, \
  {                                                                                                \
    .type = OPTION_LIST, .name = "device-option", .argument = "KEY=VALUE",                         \
    .offset = offsetof(values_type, common.device_options),                                        \
    .help = "an option of the device, as its documentation has it; may be repeated"                \
  }
#define OPTIONS_LOG(values_type)                                                                                     \
  {.type = OPTION_FLAG,                                                                                              \
   .name = "verbose",                                                                                                \
   .offset = offsetof(values_type, common.verbose),                                                                  \
   .help = "what the library does, on stderr; the same as --log-level info"},                                        \
  {                                                                                                                  \
    .type = OPTION_CHOICE, .name = "log-level", .argument = "LEVEL",                                                 \
    .offset = offsetof(values_type, common.log_level), .standard = "warning", .choices = "error warning info debug", \
    .help = "library messages of that level and graver, on stderr"                                                   \
  }

/* NULL after an error, which has been named on stderr. values may be NULL: warnings only. */
unroll_context *open_context(const common_values *values);
/* Which messages of the library are shown: UNROLL_LOG_*. */
int32_t log_level(const common_values *values);
unroll_device *open_device(unroll_context *ctx, const common_values *values);
/* Options of a device from their KEY=VALUE; keys and values point into *text. The caller frees both. NULL: said on stderr. */
unroll_option *split_options(const option_files *given, const char *name, char **text);
/* "CPU", "GPU", ...; and for programs "cpu", "gpu", "integrated_gpu", "accelerator". */
const char *device_kind_text(int32_t kind);
const char *device_kind_name(int32_t kind);

/* An error of the library on stderr. Returns EXIT_FAILED. */
int complain_of(const unroll_error *err);

/* The list of `unroll --version`: plugins with their versions and places, on stdout. The exit code. */
int print_plugins(void);

#endif
