/* SPDX-License-Identifier: Apache-2.0 */
/*
 * counted.h: what was reported of a cost (unroll/cost.h) against what tests/plugins/counting.c counts; cmocka_run_group_tests
 * takes counted_open and counted_close.
 */
#ifndef COUNTED_H
#define COUNTED_H
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unroll/cost.h>

#include "conform/conform_private.h"
#include "counting/counts.h"

static struct conform_session session;
static counting_counts *counts;
static char plugin_file[4200];

static inline int counted_open(void **state) {
  (void)state;
  unroll_error err = UNROLL_ERROR_INIT;
  const char *plugins = getenv("UNROLL_TEST_PLUGINS");
  if (!plugins)
    return -1;
  snprintf(plugin_file, sizeof plugin_file, "%.4000s/counting.so", plugins);
  session = (struct conform_session){.id = "counting", .file = plugin_file, .printed = -1};
  if (session_load(&session, &err) != UNROLL_OK) {
    print_error("%s: %s\n", plugin_file, err.message);
    return -1;
  }
  counts = dlsym(session.library, "counting_of_ops");
  return counts ? 0 : -1;
}
static inline int counted_close(void **state) {
  (void)state;
  return session_close(&session, NULL) == UNROLL_OK ? 0 : -1;
}

static inline void start_counting(void) { memset(counts, 0, sizeof *counts); }

static inline void same_number(const char *what, const char *op, const char *which, int64_t reported, int64_t counted) {
  if (reported != counted)
    fail_msg("%s: %s: %s: %lld reported, %lld counted", what, op, which, (long long)reported, (long long)counted);
}
static inline void same_count(const char *what, uint32_t op, const unroll_cost_count *reported) {
  const counting_count *counted = &counts->of[op];
  const char *name = unroll_cost_op_name(op);
  same_number(what, name, "runs", reported->runs, counted->runs);
  same_number(what, name, "flops", reported->flops, counted->flops);
  same_number(what, name, "transcendental", reported->transcendental, counted->transcendental);
  same_number(what, name, "bytes read", reported->read, counted->read);
  same_number(what, name, "bytes written", reported->written, counted->written);
}
#endif
