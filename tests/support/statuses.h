/* SPDX-License-Identifier: Apache-2.0 */
/* Statuses of calls that are given &err, where `err` is the test's own. */
#ifndef STATUSES_H
#define STATUSES_H
#include <string.h>

#include "devices.h"

#define assert_ok(expr) assert_status(UNROLL_OK, (expr))
/* A failure whose message has these words. */
#define assert_error(expr, status, words)                    \
  do {                                                       \
    assert_status((status), (expr));                         \
    if (!strstr(err.message, (words)))                       \
      fail_msg("'%s' is not in '%s'", (words), err.message); \
  } while (0)

#endif
