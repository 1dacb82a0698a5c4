/* SPDX-License-Identifier: Apache-2.0 */
#include "base/base_private.h"
#include "base/cut.h"

bool log_enabled(const unroll_logger *logger, int32_t level) { return logger && logger->log && level <= logger->level; }

void log_message(const unroll_logger *logger, int32_t level, const char *format, ...) {
  if (!log_enabled(logger, level))
    return;
  char message[1024];
  va_list list;
  va_start(list, format);
  format_cut(message, sizeof message, format, list);
  va_end(list);
  logger->log(logger->ctx, level, message);
}
