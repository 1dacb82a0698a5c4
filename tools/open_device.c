/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "console.h"

int complain_of(const unroll_error *err) {
  complain("%s", err->message[0] ? err->message : unroll_status_text(err->code));
  return EXIT_FAILED;
}

int32_t log_level(const common_values *values) {
  static const char *const names[] = {"error", "warning", "info", "debug"};
  int32_t level = UNROLL_LOG_WARN;
  for (int32_t i = 0; values && i < (int32_t)COUNT(names); i++)
    if (strcmp(values->log_level, names[i]) == 0)
      level = i;
  return values && values->verbose && level < UNROLL_LOG_INFO ? UNROLL_LOG_INFO : level;
}

unroll_context *open_context(const common_values *values) {
  const unroll_logger logger = {.log = console_log, .level = log_level(values)};
  const unroll_context_options options = {.struct_size = sizeof options, .logger = &logger};
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_context *ctx = NULL;
  if (unroll_context_create(&options, &ctx, &err) != UNROLL_OK)
    complain_of(&err);
  return ctx;
}

unroll_option *split_options(const option_files *given, const char *name, char **text) {
  size_t bytes = 1;
  for (size_t i = 0; i < given->count; i++)
    bytes += strlen(given->paths[i]) + 1;
  unroll_option *split = calloc(given->count + 1, sizeof *split);
  char *at = *text = malloc(bytes);
  bool right = split && at;
  if (!right)
    complain("out of memory");
  for (size_t i = 0; right && i < given->count; i++) {
    const size_t n = strlen(given->paths[i]) + 1;
    memcpy(at, given->paths[i], n);
    char *equals = strchr(at, '=');
    right = equals != NULL;
    if (right) {
      *equals = '\0';
      split[i] = (unroll_option){at, equals + 1};
      at += n;
    } else
      complain("--%s: '%s' is not KEY=VALUE", name, at);
  }
  if (right)
    return split;
  free(split);
  free(*text);
  *text = NULL;
  return NULL;
}

unroll_device *open_device(unroll_context *ctx, const common_values *values) {
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_device *device = NULL;
  char *text = NULL;
  unroll_option *options = split_options(&values->device_options, "device-option", &text);
  if (options && unroll_device_open(ctx, values->device, options, (uint32_t)values->device_options.count, &device,
                                    &err) != UNROLL_OK)
    complain_of(&err);
  free(options);
  free(text);
  return device;
}

const char *device_kind_text(int32_t kind) {
  switch (kind) {
  case UNROLL_KIND_CPU: return "CPU";
  case UNROLL_KIND_GPU: return "GPU";
  case UNROLL_KIND_INTEGRATED_GPU: return "integrated GPU";
  case UNROLL_KIND_ACCELERATOR: return "accelerator";
  default: return "other";
  }
}

const char *device_kind_name(int32_t kind) {
  switch (kind) {
  case UNROLL_KIND_CPU: return "cpu";
  case UNROLL_KIND_GPU: return "gpu";
  case UNROLL_KIND_INTEGRATED_GPU: return "integrated_gpu";
  case UNROLL_KIND_ACCELERATOR: return "accelerator";
  default: return "other";
  }
}
