/* SPDX-License-Identifier: Apache-2.0 */
/* A run of the judge from the plugin's name to its report: what conform.c, conform_child.c, conform_report.c, coverage.c share. */
#ifndef CONFORM_JUDGE_H
#define CONFORM_JUDGE_H
#include "conform/conform_private.h"

/* ---- children: conform_child.c ---- */

/* What is learnt of a plugin by opening it once. Crosses from a child in shared memory, so it has no pointers. */
enum { PATTERNS_MAX = 64 * 1024 };
struct conform_prelude {
  int32_t status;
  uint32_t n_patterns;
  int64_t native;
  char message[240]; /* of a status that is not UNROLL_OK: the reason alone */
  char version[64], vendor[64], device[160], driver[160], device_id[64];
  char patterns[PATTERNS_MAX]; /* n_patterns strings, one behind another */
};

struct conform_result {
  int32_t outcome; /* enum conform_outcome, or CHILD_CRASHED */
  uint32_t is_graph;
  uint64_t left; /* as of the session */
  double seconds;
  char message[CONFORM_MESSAGE];
};
enum { CHILD_CRASHED = 100 };

struct conform_job {
  struct conform_session *session; /* id and file are set; nothing is loaded in this process, unless in_process */
  uint32_t timeout_ms;
  bool in_process;
  const struct conform_list *list;
  const uint32_t *order; /* the cases to run, n of them */
  uint32_t n;
  /* Called for 0..n-1, in this process. Nonzero: no further case, and children_run returns it. */
  int (*done)(void *ctx, uint32_t i, const struct conform_result *result);
  void *ctx;
};

/*
 * Opens and closes the plugin in a child. UNROLL_OK even where the plugin failed: then prelude->status says so, UNROLL_E_PLUGIN
 * where it crashed or did not answer. UNROLL_E_IO: no child can be made.
 */
unroll_status children_prelude(const struct conform_job *job, struct conform_prelude *prelude, unroll_error *err);

/*
 * Runs the cases in children, each of which goes on until all are done or it ends.
 *   - A case that takes longer than timeout_ms has failed, and its child is killed.
 *   - A child that ends crashes the case in flight; the next child begins with the case after it. What goes wrong while the
 *     plugin is closed after a child's last case is charged to that case.
 *   - After CRASHES_MAX crashes with the same cause in a row, HANGS_MAX time limits in a row or HANGS_ALL in all, the cases that
 *     are left get that verdict without being tried.
 *   - What is printed during a case, on stdout or stderr, makes it fail (rule R5), be it the plugin's or its driver's: a program
 *     can't tell them apart either. What is printed while session_target or session_device opens the plugin does not count, as
 *     drivers greet and warn at their start.
 * *stopped: what done returned. UNROLL_E_IO, UNROLL_E_MEMORY.
 */
enum { CRASHES_MAX = 20, HANGS_MAX = 3, HANGS_ALL = 10 };
unroll_status children_run(const struct conform_job *job, int *stopped, unroll_error *err);

/* ---- report ---- */
struct conform_record {
  uint32_t index; /* of the case in the list */
  int32_t verdict;
  double seconds;
  char *error;
};

struct coverage_row {
  uint32_t op, cases, passed, unsupported;
  int32_t attribute, code;
  const char *op_name, *attribute_name;
  char value[48];
};

struct unroll_conform_report {
  unroll_allocator allocator;
  struct conform_list list; /* names and marks */
  struct conform_record *records;
  uint32_t n, capacity;
  struct coverage_row *rows;
  uint32_t n_rows, row_capacity;
  struct conform_prelude *prelude;
  char *id, *path;
};

/* coverage.c: the rows of the tables, and the cases of the report counted in them. false: out of memory. */
bool coverage_count(struct unroll_conform_report *report);
/* The rows alone, as coverage_count makes them. */
bool coverage_rows(struct unroll_conform_report *report);
/* NULL: the mark is of no row. */
struct coverage_row *coverage_find(struct unroll_conform_report *report, const struct conform_mark *mark);
#endif
