/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <jansson.h>
#include <regex.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unroll/conform.h>

#include "commands.h"
#include "console.h"
#include "progress.h"

#define FAILURES_SHOWN 20
#define REASONS_SHOWN 20

typedef struct conform_values {
  option_marks marks;
  const char *plugin, *only;
  int64_t device, seed;
  double timeout;
  option_files options;
  bool json, list, coverage, in_process, stop_at_failure;
} conform_values;

#define OFFSET(member) offsetof(conform_values, member)
static const option_spec options[] = {
    {.type = OPTION_OPERAND,
     .name = "PLUGIN",
     .offset = OFFSET(plugin),
     .help = "a file, or an id of 'unroll devices'"},
    {.type = OPTION_INTEGER,
     .name = "device",
     .argument = "N",
     .offset = OFFSET(device),
     .standard = "0",
     .min = 0,
     .max = UINT32_MAX,
     .help = "which of the plugin's devices, counted from 0"},
    {.type = OPTION_LIST,
     .name = "option",
     .argument = "KEY=VALUE",
     .offset = OFFSET(options),
     .help = "an option of the device, as its documentation has it; may be repeated"},
    {.type = OPTION_TEXT,
     .name = "only",
     .argument = "REGEX",
     .offset = OFFSET(only),
     .help = "cases whose name matches somewhere, an extended regular expression"},
    {.type = OPTION_INTEGER,
     .name = "seed",
     .argument = "S",
     .offset = OFFSET(seed),
     .standard = "0",
     .min = 0,
     .max = (double)INT64_MAX,
     .help = "of the data: another seed, other numbers"},
    {.type = OPTION_NUMBER,
     .name = "timeout",
     .argument = "SECONDS",
     .offset = OFFSET(timeout),
     .standard = "120",
     .min = 0.01,
     .max = 1e6,
     .help = "of one case"},
    {.type = OPTION_FLAG,
     .name = "stop-at-failure",
     .offset = OFFSET(stop_at_failure),
     .help = "nothing after the first case that failed or crashed"},
    {.type = OPTION_FLAG,
     .name = "in-process",
     .offset = OFFSET(in_process),
     .help = "no child processes, no time limit: for debuggers and sanitizers"},
    {.type = OPTION_FLAG, .name = "coverage", .offset = OFFSET(coverage), .help = "every value of every attribute"},
    {.type = OPTION_FLAG, .name = "list", .offset = OFFSET(list), .help = "print the names of the cases, run none"},
    {.type = OPTION_FLAG, .name = "json", .offset = OFFSET(json), .help = "as JSON, for programs"},
};

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static const char *verdict_text(int32_t verdict) {
  static const char *const names[] = {
#define NAME(name, value, text) text,
      UNROLL_VERDICTS(NAME)
#undef NAME
  };
  return verdict >= 0 && verdict < UNROLL_VERDICT_COUNT ? names[verdict] : "unknown";
}

static bool is_bad(int32_t verdict) { return verdict == UNROLL_FAILED || verdict == UNROLL_CRASHED; }

/* ---- JSON ---- */

/* What is not UTF-8 in a driver's words becomes '?'. */
static json_t *text_json(const char *text) {
  json_t *value = json_string(text);
  if (value)
    return value;
  char clean[512];
  size_t n = 0;
  for (; text[n] && n + 1 < sizeof clean; n++)
    clean[n] = (unsigned char)text[n] < 0x80 ? text[n] : '?';
  return json_stringn(clean, n);
}

static json_t *cases_json(const unroll_conform_report *report) {
  json_t *list = json_array();
  const uint32_t n = unroll_conform_totals_of(report).cases;
  for (uint32_t i = 0; i < n; i++) {
    const unroll_conform_case c = unroll_conform_case_of(report, i);
    json_array_append_new(list, json_pack("{s:o, s:s, s:o, s:f}", "name", text_json(c.name), "verdict",
                                          verdict_text(c.verdict), "error", text_json(c.error), "seconds", c.seconds));
  }
  return list;
}

static json_t *coverage_json(const unroll_conform_report *report) {
  json_t *list = json_array();
  for (uint32_t i = 0; i < unroll_conform_coverage_count(report); i++) {
    const unroll_conform_coverage c = unroll_conform_coverage_of(report, i);
    json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:I, s:I, s:I}", "op", c.op_name, "attribute", c.attribute,
                                          "value", c.value, "cases", (json_int_t)c.cases, "passed",
                                          (json_int_t)c.passed, "unsupported", (json_int_t)c.unsupported));
  }
  return list;
}

static int print_json(const unroll_conform_report *report, double seconds) {
  const unroll_conform_subject s = unroll_conform_subject_of(report);
  const unroll_conform_totals t = unroll_conform_totals_of(report);
  json_t *root = json_pack(
      "{s:o, s:o, s:o, s:o, s:o, s:o, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:o, s:o}", "plugin", text_json(s.plugin),
      "version", text_json(s.version), "vendor", text_json(s.vendor), "path", text_json(s.path), "device",
      text_json(s.device), "driver", text_json(s.driver), "cases", (json_int_t)t.cases, "passed", (json_int_t)t.passed,
      "failed", (json_int_t)t.failed, "crashed", (json_int_t)t.crashed, "skipped", (json_int_t)t.skipped, "unsupported",
      (json_int_t)t.unsupported, "seconds", seconds, "list", cases_json(report), "coverage", coverage_json(report));
  char *text = root ? json_dumps(root, JSON_INDENT(1) | JSON_REAL_PRECISION(6)) : NULL;
  json_decref(root);
  if (!text) {
    complain("out of memory");
    return EXIT_FAILED;
  }
  puts(text);
  free(text);
  return EXIT_OK;
}

/* ---- for people ---- */

static void print_failures(const unroll_conform_report *report) {
  const unroll_conform_totals t = unroll_conform_totals_of(report);
  uint32_t shown = 0;
  for (uint32_t i = 0; i < t.cases && shown < FAILURES_SHOWN; i++) {
    const unroll_conform_case c = unroll_conform_case_of(report, i);
    if (!is_bad(c.verdict))
      continue;
    printf("%s%s: %s\n  %s\n", shown ? "" : "\n", verdict_text(c.verdict), c.name, c.error);
    shown++;
  }
  if (t.failed + t.crashed > shown)
    printf("... and %" PRIu32 " more; --json has all\n", t.failed + t.crashed - shown);
}

/* Cases of one verdict, counted by their reason: "704  the device has no f64". */
static void print_reasons(const unroll_conform_report *report, int32_t verdict) {
  struct {
    const char *reason;
    uint32_t n;
  } reasons[REASONS_SHOWN];
  size_t n_reasons = 0;
  uint32_t others = 0;
  const uint32_t n = unroll_conform_totals_of(report).cases;
  for (uint32_t i = 0; i < n; i++) {
    const unroll_conform_case c = unroll_conform_case_of(report, i);
    if (c.verdict != verdict)
      continue;
    size_t k = 0;
    while (k < n_reasons && strcmp(reasons[k].reason, c.error) != 0)
      k++;
    if (k < n_reasons)
      reasons[k].n++;
    else if (k < REASONS_SHOWN) {
      reasons[n_reasons].reason = c.error;
      reasons[n_reasons++].n = 1;
    } else
      others++;
  }
  if (n_reasons)
    printf("\n%s\n", verdict_text(verdict));
  for (size_t k = 0; k < n_reasons; k++)
    printf("  %5" PRIu32 "  %s\n", reasons[k].n, reasons[k].reason);
  if (others)
    printf("  %5" PRIu32 "  for other reasons; --json has all\n", others);
}

/* The rows of one attribute from i on: how many values passed somewhere. Returns the row after them. */
static uint32_t print_attribute(const unroll_conform_report *report, uint32_t i, int *column) {
  const unroll_conform_coverage first = unroll_conform_coverage_of(report, i);
  uint32_t values = 0, passed = 0;
  for (; i < unroll_conform_coverage_count(report); i++) {
    const unroll_conform_coverage c = unroll_conform_coverage_of(report, i);
    if (c.op != first.op || strcmp(c.attribute, first.attribute) != 0)
      break;
    values++;
    passed += c.passed > 0;
  }
  *column += printf("  %s %" PRIu32 "/%" PRIu32, first.attribute, passed, values);
  return i;
}

static void print_coverage(const unroll_conform_report *report) {
  const uint32_t n = unroll_conform_coverage_count(report);
  printf("\n%-22s %13s  values of attributes that passed in some case\n", "coverage", "passed/cases");
  for (uint32_t i = 0; i < n;) {
    const unroll_conform_coverage op = unroll_conform_coverage_of(report, i);
    char counts[32];
    snprintf(counts, sizeof counts, "%" PRIu32 "/%" PRIu32, op.passed, op.cases);
    int column = printf("  %-20s %13s", op.op_name, counts);
    for (i++; i < n && unroll_conform_coverage_of(report, i).op == op.op;)
      i = print_attribute(report, i, &column);
    putchar('\n');
  }
}

static void print_coverage_rows(const unroll_conform_report *report) {
  printf("\n%-54s %7s %7s %12s\n", "coverage", "cases", "passed", "unsupported");
  for (uint32_t i = 0; i < unroll_conform_coverage_count(report); i++) {
    const unroll_conform_coverage c = unroll_conform_coverage_of(report, i);
    char name[100];
    if (c.attribute[0])
      snprintf(name, sizeof name, "    %s %s", c.attribute, c.value);
    else
      snprintf(name, sizeof name, "  %s", c.op_name);
    printf("%-54s %7" PRIu32 " %7" PRIu32 " %12" PRIu32 "%s\n", name, c.cases, c.passed, c.unsupported,
           c.cases ? "" : "  hole");
  }
}

static void print_holes(const unroll_conform_report *report) {
  uint32_t holes = 0;
  for (uint32_t i = 0; i < unroll_conform_coverage_count(report); i++) {
    const unroll_conform_coverage c = unroll_conform_coverage_of(report, i);
    if (c.cases)
      continue;
    printf("  hole: no case of %s%s%s%s%s\n", c.op_name, c.attribute[0] ? ", " : "", c.attribute, c.value[0] ? " " : "",
           c.value);
    holes++;
  }
  if (!holes)
    puts("  no hole");
}

static void print_report(const conform_values *values, const unroll_conform_report *report, double seconds) {
  const unroll_conform_subject s = unroll_conform_subject_of(report);
  const unroll_conform_totals t = unroll_conform_totals_of(report);
  printf("plugin  %s %s of %s, %s\n", s.plugin, s.version, s.vendor, s.path);
  printf("device  %" PRId64 ": %s%s%s\n", values->device, s.device[0] ? s.device : "without a name",
         s.driver[0] ? ", driver " : "", s.driver);
  print_failures(report);
  print_reasons(report, UNROLL_NOT_SUPPORTED);
  print_reasons(report, UNROLL_SKIPPED);
  if (values->coverage)
    print_coverage_rows(report);
  else if (!values->only)
    print_coverage(report);
  if (!values->only && !(values->stop_at_failure && t.failed + t.crashed))
    print_holes(report);
  printf("\n%" PRIu32 " cases, seed %" PRId64 ": %" PRIu32 " passed, %" PRIu32 " failed, %" PRIu32 " crashed, %" PRIu32
         " skipped, %" PRIu32 " unsupported, in %.1f s\n",
         t.cases, values->seed, t.passed, t.failed, t.crashed, t.skipped, t.unsupported, seconds);
}

/* ---- the run ---- */

typedef struct watcher {
  progress progress;
  double start, shown;
  uint32_t bad;
} watcher;

static int watch(void *ctx, const unroll_conform_case *one, uint32_t done, uint32_t of) {
  watcher *w = ctx;
  const double t = now();
  w->bad += is_bad(one->verdict);
  if (t - w->shown < 0.1 && done < of)
    return 0;
  w->shown = t;
  char count[48], bad[48], time[32];
  snprintf(count, sizeof count, "%" PRIu32 " of %" PRIu32 " cases", done, of);
  snprintf(bad, sizeof bad, "%" PRIu32 " bad", w->bad);
  duration_text(t - w->start, time, sizeof time);
  const char *const details[] = {count, bad, time, one->name};
  progress_show(&w->progress, t, (double)done / of, details, COUNT(details));
  return 0;
}

static int judge(const conform_values *values, const unroll_option *device_options) {
  watcher w = {.progress = progress_start(), .start = now()};
  w.progress.last = w.start; /* a short run has no line of it */
  const unroll_conform_options o = {.struct_size = sizeof o,
                                    .device = (uint32_t)values->device,
                                    .plugin = values->plugin,
                                    .device_options = device_options,
                                    .n_device_options = (uint32_t)values->options.count,
                                    .in_process = values->in_process,
                                    .stop_at_failure = values->stop_at_failure,
                                    .timeout_ms = (uint32_t)(values->timeout * 1000),
                                    .only = values->only,
                                    .seed = (uint64_t)values->seed,
                                    .progress = watch,
                                    .progress_ctx = &w};
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_conform_report *report;
  const unroll_status status = unroll_conform_run(&o, &report, &err);
  progress_end(&w.progress);
  if (status != UNROLL_OK)
    return complain_of(&err);
  const unroll_conform_totals t = unroll_conform_totals_of(report);
  int code = t.failed || t.crashed || !t.passed ? EXIT_FAILED : EXIT_OK;
  if (values->json && print_json(report, now() - w.start) != EXIT_OK)
    code = EXIT_FAILED;
  if (!values->json)
    print_report(values, report, now() - w.start);
  if (!t.passed && !t.failed && !t.crashed)
    complain("no case could be run: all %" PRIu32 " were skipped or are unsupported", t.cases);
  unroll_conform_report_destroy(report);
  return code;
}

/* ---- names ---- */
typedef struct lister {
  const regex_t *only;
  uint32_t n;
} lister;

static void print_name(void *ctx, const char *name) {
  lister *l = ctx;
  if (l->only && regexec(l->only, name, 0, NULL, 0) != 0)
    return;
  puts(name);
  l->n++;
}

static int print_list(const regex_t *only) {
  unroll_error err = UNROLL_ERROR_INIT;
  lister l = {.only = only};
  if (unroll_conform_list(print_name, &l, &err) != UNROLL_OK)
    return complain_of(&err);
  if (l.n == 0)
    complain("no case matches");
  return l.n > 0 ? EXIT_OK : EXIT_FAILED;
}

static int run_checked(const conform_values *values, const regex_t *only) {
  if (values->list)
    return print_list(only);
  char *text = NULL;
  unroll_option *device_options = split_options(&values->options, "option", &text);
  const int code = device_options ? judge(values, device_options) : EXIT_FAILED;
  free(device_options);
  free(text);
  return code;
}

static int run(const command_spec *command, const void *p) {
  const conform_values *values = p;
  if (!values->plugin && !values->list) {
    complain("'unroll %s' needs PLUGIN", command->name);
    complain("see 'unroll %s --help'", command->name);
    return EXIT_USAGE;
  }
  for (size_t i = 0; i < values->options.count; i++)
    if (!strchr(values->options.paths[i], '=')) {
      complain("--option: '%s' is not KEY=VALUE", values->options.paths[i]);
      return EXIT_USAGE;
    }
  regex_t only;
  if (values->only) {
    const int wrong = regcomp(&only, values->only, REG_EXTENDED | REG_NOSUB);
    if (wrong) {
      char why[120];
      regerror(wrong, &only, why, sizeof why);
      complain("--only: '%s' is no extended regular expression: %s", values->only, why);
      return EXIT_USAGE;
    }
  }
  const int code = run_checked(values, values->only ? &only : NULL);
  if (values->only)
    regfree(&only);
  return code;
}

const command_spec command_conform = {
    .name = "conform",
    .purpose = "judge a plugin: every op, layer and rule of the ABI, against the reference",
    .usage = "PLUGIN [options]",
    .options = options,
    .n_options = COUNT(options),
    .values_size = sizeof(conform_values),
    .notes = "Cases run in child processes: one that crashes or hangs is reported, and the others go on. Results are "
             "compared with\n"
             "the cpu backend in f64. What a plugin leaves to others it declares with the extension "
             "\"unroll.conform/1\", else a case\n"
             "that it does not claim has failed. The exit code is 0 where some case passed and none failed or "
             "crashed.\n",
    .example = "  unroll conform ./unroll-npu.so\n"
               "  unroll conform opencl --device 1 --only '^matmul .*f32' --stop-at-failure\n",
    .run = run,
};
