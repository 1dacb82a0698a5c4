/* SPDX-License-Identifier: Apache-2.0 */
/*
 * unroll/conform.h: the judge of backends. Is this plugin right?
 *
 *     unroll_conform_options o = {.struct_size = sizeof o, .plugin = "/opt/acme/unroll-npu.so"};
 *     unroll_conform_report *report;
 *     if (unroll_conform_run(&o, &report, &err) == UNROLL_OK)
 *       printf("%u failed\n", unroll_conform_totals_of(report).failed);
 *     unroll_conform_report_destroy(report);
 *
 * Cases are generated from the tables of ops, attributes and shapes in <unroll/plugin.h>; their results are compared with the
 * reference in f64. They run in child processes, so that a crash ends one case and not the run. `unroll conform` is this
 * function as a command.
 */
#ifndef UNROLL_CONFORM_H
#define UNROLL_CONFORM_H
#include <unroll/base.h>
#include <unroll/plugin.h>
#ifdef __cplusplus
extern "C" {
#endif

#define UNROLL_VERDICTS(X)                                                                                      \
  X(UNROLL_PASSED, 0, "passed")                                                                                 \
  X(UNROLL_FAILED, 1, "failed")   /* a wrong result, an error, a time limit; or neither claimed nor declared */ \
  X(UNROLL_CRASHED, 2, "crashed") /* the process ended in this case */                                          \
  X(UNROLL_SKIPPED, 3, "skipped") /* could not be tried here, for the reason given */                           \
  X(UNROLL_NOT_SUPPORTED, 4, "unsupported") /* declared, or of an element type that the device does not have */
enum {
#define UNROLL_VERDICT_CODE(name, value, text) name = (value),
  UNROLL_VERDICTS(UNROLL_VERDICT_CODE)
#undef UNROLL_VERDICT_CODE
      UNROLL_VERDICT_COUNT = 5
};

/* One case and what came of it. Strings live as long as the report, or the call that they were handed over in. */
typedef struct unroll_conform_case {
  uint32_t struct_size;
  int32_t verdict;          /* UNROLL_PASSED.. */
  const char *name, *error; /* error: why, "" where there is nothing to say */
  double seconds;
} unroll_conform_case;

typedef struct unroll_conform_options {
  uint32_t struct_size;
  uint32_t device;    /* index of the plugin's device */
  const char *plugin; /* a file, or the id of a backend that is linked in or found as a context would */
  const unroll_option *device_options;
  uint32_t n_device_options;
  uint32_t in_process;      /* no child processes: for debuggers and sanitizers. A crash is a crash. */
  uint32_t stop_at_failure; /* nothing after the first case that failed or crashed */
  uint32_t timeout_ms;      /* of one case; 0: UNROLL_CONFORM_TIMEOUT_MS */
  const char *only;         /* an extended regular expression that a case's name must match somewhere; NULL: all */
  uint64_t seed;            /* of the data; 0 is a seed like any other */
  /* Told of each case when it is done, in order. Nonzero ends the run with UNROLL_E_CANCELLED. NULL: nobody */
  int (*progress)(void *ctx, const unroll_conform_case *one, uint32_t done, uint32_t of);
  void *progress_ctx;
  const unroll_allocator *allocator; /* NULL: the C library's */
} unroll_conform_options;
#define UNROLL_CONFORM_TIMEOUT_MS 120000u /* a driver's compiler may need most of it for a kernel's first use */

typedef struct unroll_conform_report unroll_conform_report;
/*
 * Judges one device of one plugin. That cases failed is no failure of this call.
 *   UNROLL_E_INVALID    only is no regular expression; a declaration ("unroll.conform/1") matches no case
 *   UNROLL_E_NOT_FOUND  no such plugin or device; only matches no case
 *   UNROLL_E_PLUGIN, UNROLL_E_ABI, UNROLL_E_UNSUPPORTED, ..  the plugin can't be loaded or opened: the message says why
 *   UNROLL_E_IO         no child process can be made;  UNROLL_E_CANCELLED;  UNROLL_E_MEMORY
 * What stdout or stderr gets during a case makes it fail (rule R5 of plugin.h), be it from the plugin or its driver; what is
 * printed while the judge opens the plugin does not count, since drivers greet and warn at their start. After 20 crashes with
 * the same cause in a row, 3 time limits in a row or 10 in all, the cases that are left get that verdict without being
 * tried. What goes wrong while a process closes the plugin is charged to the last case before it.
 * Without in_process the caller's process runs none of the plugin's code; it should have one thread, since it forks. [main]
 */
UNROLL_API unroll_status unroll_conform_run(const unroll_conform_options *options, unroll_conform_report **report,
                                            unroll_error *err);
UNROLL_API void unroll_conform_report_destroy(unroll_conform_report *report);

typedef struct unroll_conform_totals {
  uint32_t struct_size;
  uint32_t cases, passed, failed, crashed, skipped, unsupported;
} unroll_conform_totals;
UNROLL_API unroll_conform_totals unroll_conform_totals_of(const unroll_conform_report *report);
/* i below totals.cases, else a case with name "". In the order in which they ran. [any] */
UNROLL_API unroll_conform_case unroll_conform_case_of(const unroll_conform_report *report, uint32_t i);

/* Whom it was about. Strings live as long as the report. [any] */
typedef struct unroll_conform_subject {
  uint32_t struct_size, reserved;
  const char *plugin, *version, *vendor, *path, *device, *driver;
} unroll_conform_subject;
UNROLL_API unroll_conform_subject unroll_conform_subject_of(const unroll_conform_report *report);

/* One row of the tables of <unroll/plugin.h>: an op, or one value of an attribute of it, and how many cases had it. */
typedef struct unroll_conform_coverage {
  uint32_t struct_size, op;                /* UNROLL_OP_* */
  const char *op_name, *attribute, *value; /* attribute and value are "" in the row of the op itself */
  uint32_t cases, passed, unsupported;
} unroll_conform_coverage;
/* Rows in the tables' order; those of one op stand together, the op's own first. A row with 0 cases is a hole. [any] */
UNROLL_API uint32_t unroll_conform_coverage_count(const unroll_conform_report *report);
UNROLL_API unroll_conform_coverage unroll_conform_coverage_of(const unroll_conform_report *report, uint32_t i);

/*
 * The names of all cases, one after another, without running any: what the patterns of "unroll.conform/1" are matched with.
 * UNROLL_E_MEMORY. [any]
 */
UNROLL_API unroll_status unroll_conform_list(void (*each)(void *ctx, const char *name), void *ctx, unroll_error *err);

#ifdef __cplusplus
}
#endif
#endif
