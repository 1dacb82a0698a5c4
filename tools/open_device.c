/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "commands.h"
#include "console.h"

int complain_of(const unroll_error *err) {
  complain("%s", err->message[0] ? err->message : unroll_status_text(err->code));
  return EXIT_FAILED;
}

static int32_t level_of(const common_values *values) {
  static const char *const names[] = {"error", "warning", "info", "debug"};
  int32_t level = UNROLL_LOG_WARN;
  for (int32_t i = 0; values && i < (int32_t)COUNT(names); i++)
    if (strcmp(values->log_level, names[i]) == 0)
      level = i;
  return values && values->verbose && level < UNROLL_LOG_INFO ? UNROLL_LOG_INFO : level;
}

unroll_context *open_context(const common_values *values) {
  const unroll_logger logger = {.log = console_log, .level = level_of(values)};
  const unroll_context_options options = {.struct_size = sizeof options, .logger = &logger};
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_context *ctx = NULL;
  if (unroll_context_create(&options, &ctx, &err) != UNROLL_OK)
    complain_of(&err);
  return ctx;
}

unroll_device *open_device(unroll_context *ctx, const common_values *values) {
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_device *device = NULL;
  if (unroll_device_open(ctx, values->device, NULL, 0, &device, &err) != UNROLL_OK)
    complain_of(&err);
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
