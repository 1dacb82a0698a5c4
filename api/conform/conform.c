/* SPDX-License-Identifier: Apache-2.0 */
#include "conform/judge.h"
#include "plugins/note.h"
#include "plugins/registry.h"
#include <errno.h>
#include <fnmatch.h>
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

unroll_status unroll_conform_list(void (*each)(void *ctx, const char *name), void *ctx, unroll_error *err) {
  struct conform_list list;
  TRY(conform_list_make(&list, NULL, err));
  for (uint32_t i = 0; i < list.n; i++)
    each(ctx, list.cases[i].name);
  conform_list_free(&list);
  return UNROLL_OK;
}

/* A run on its way to a report. */
struct run {
  const unroll_conform_options *options;
  unroll_conform_report *report;
  struct conform_session session;
  struct conform_job job;
  uint32_t *order;
  const char **declared; /* per case of the list: the pattern that it matches, or NULL */
  uint64_t declared_ops; /* a bit per op of whose own cases some match a pattern */
};

/* ---- whom ---- */
static bool ends_with(const char *s, const char *end) {
  const size_t n = strlen(s), m = strlen(end);
  return n >= m && strcmp(s + n - m, end) == 0;
}

static bool is_file(const char *name) {
  struct stat st;
  return strchr(name, '/') != NULL || (ends_with(name, ".so") && stat(name, &st) == 0);
}

static unroll_status find_file(struct run *run, const char *name, unroll_error *err) {
  unroll_conform_report *r = run->report;
  char *path = realpath(name, NULL);
  if (!path)
    return fail_native(err, errno == ENOENT ? UNROLL_E_NOT_FOUND : UNROLL_E_IO, errno, "%s: %s", name, strerror(errno));
  r->path = mem_strdup(&r->allocator, path);
  free(path);
  if (!r->path)
    return fail(err, UNROLL_E_MEMORY, "out of memory for the path of the plugin");
  struct plugin_note note;
  unroll_error reason = UNROLL_ERROR_INIT;
  const unroll_status status = plugin_note_read(r->path, &note, &reason);
  if (status != UNROLL_OK)
    return fail_native(err, status, reason.native, "plugin %s: %s", name, reason.message);
  r->id = mem_strdup(&r->allocator, note.id);
  run->session.file = r->path;
  return r->id ? UNROLL_OK : fail(err, UNROLL_E_MEMORY, "out of memory for the id of the plugin");
}

static unroll_status find_id(struct run *run, const char *id, unroll_error *err) {
  unroll_conform_report *r = run->report;
  struct plugin_registry *registry;
  struct plugin_candidate c;
  uint32_t i = 0;
  TRY(plugin_registry_create(&(struct plugin_registry_options){.allocator = &r->allocator}, &registry, err));
  unroll_status status = plugin_registry_find(registry, id, &i, err);
  if (status == UNROLL_OK)
    status = plugin_registry_get(registry, i, &c, err);
  if (status == UNROLL_OK) {
    r->id = mem_strdup(&r->allocator, c.id);
    r->path = mem_strdup(&r->allocator, c.path);
    if (!r->id || !r->path)
      status = fail(err, UNROLL_E_MEMORY, "out of memory for the path of the plugin");
    else if (strcmp(r->path, PLUGIN_BUILT_IN) != 0)
      run->session.file = r->path;
  }
  plugin_registry_destroy(registry);
  return status;
}

/* ---- which cases ---- */
static unroll_status choose(struct run *run, unroll_error *err) {
  const struct conform_list *list = &run->report->list;
  const char *only = run->options->only;
  regex_t expression;
  run->order = mem_array(&run->report->allocator, list->n, sizeof *run->order);
  if (!run->order)
    return fail(err, UNROLL_E_MEMORY, "out of memory for the order of %u cases", list->n);
  if (only) {
    const int code = regcomp(&expression, only, REG_EXTENDED | REG_NOSUB);
    if (code != 0) {
      char text[120];
      regerror(code, &expression, text, sizeof text);
      return fail(err, UNROLL_E_INVALID, "\"%.60s\" is no extended regular expression: %s", only, text);
    }
  }
  for (uint32_t i = 0; i < list->n; i++)
    if (!only || regexec(&expression, list->cases[i].name, 0, NULL, 0) == 0)
      run->order[run->job.n++] = i;
  if (only)
    regfree(&expression);
  return run->job.n > 0
             ? UNROLL_OK
             : fail(err, UNROLL_E_NOT_FOUND, "none of the %u cases matches \"%.60s\"", list->n, only ? only : "");
}

/* The op whose own case this is, "matmul rank 2 ..", as a bit; 0 for all other cases. */
static uint64_t op_of_case(const char *name) {
  static const struct {
    uint32_t op;
    const char *name;
  } ops[] = {
#define OP(code, value, text) {code, text " "},
      UNROLL_OPS(OP)
#undef OP
  };
  _Static_assert(UNROLL_OP_END <= 64, "a bit per op");
  for (size_t i = 0; i < sizeof ops / sizeof *ops; i++)
    if (strncmp(name, ops[i].name, strlen(ops[i].name)) == 0)
      return UINT64_C(1) << ops[i].op;
  return 0;
}

/* The plugin's declarations, over all cases, whichever are run. */
static unroll_status match_declarations(struct run *run, unroll_error *err) {
  const struct conform_list *list = &run->report->list;
  const struct conform_prelude *p = run->report->prelude;
  const char *pattern = p->patterns;
  run->declared = mem_array(&run->report->allocator, list->n, sizeof *run->declared);
  if (!run->declared)
    return fail(err, UNROLL_E_MEMORY, "out of memory for the declarations of %u cases", list->n);
  for (uint32_t k = 0; k < p->n_patterns; k++, pattern += strlen(pattern) + 1) {
    bool matches = false;
    for (uint32_t i = 0; i < list->n; i++)
      if (fnmatch(pattern, list->cases[i].name, 0) == 0) {
        matches = true;
        run->declared[i] = pattern;
        run->declared_ops |= op_of_case(list->cases[i].name);
      }
    if (!matches)
      return fail(err, UNROLL_E_INVALID, "plugin \"%s\" declares \"%.80s\" unsupported, which no case matches",
                  run->report->id, pattern);
  }
  return UNROLL_OK;
}

/* ---- verdicts ---- */
struct verdict {
  int32_t verdict;
  char text[CONFORM_MESSAGE + 80];
};

/* "needs reduce and 2 other ops, which are declared" */
static void name_ops(uint64_t ops, char *text, size_t size) {
  static const char *const names[UNROLL_OP_END] = {
#define OP(code, value, name) [value] = (name),
      UNROLL_OPS(OP)
#undef OP
  };
  uint32_t first = 0;
  while (first < UNROLL_OP_END && !(ops >> first & 1))
    first++;
  const int others = __builtin_popcountll(ops) - 1;
  if (first == UNROLL_OP_END)
    snprintf(text, size, "the device lacks an element type");
  else if (others > 0)
    snprintf(text, size, "needs %s and %d more, which are declared", names[first], others);
  else
    snprintf(text, size, "needs %s, which is declared", names[first]);
}

static void judge(const struct run *run, const char *pattern, const struct conform_result *result, struct verdict *v) {
  const char *said = result->message;
  v->text[0] = 0;
  switch (result->outcome) {
  case CHILD_CRASHED: v->verdict = UNROLL_CRASHED; break;
  case CONFORM_SKIPPED: v->verdict = UNROLL_SKIPPED; break;
  case CONFORM_NO_DTYPE:
    v->verdict = UNROLL_NOT_SUPPORTED;
    said = said[0] ? said : "the device lacks an element type";
    break;
  case CONFORM_DECLINED:
    v->verdict = UNROLL_NOT_SUPPORTED;
    if (pattern)
      snprintf(v->text, sizeof v->text, "declared: %s", pattern);
    else if (result->is_graph && !(result->left & ~run->declared_ops))
      name_ops(result->left, v->text, sizeof v->text);
    else
      v->verdict = UNROLL_FAILED;
    if (v->verdict == UNROLL_FAILED)
      snprintf(v->text, sizeof v->text, "neither claimed nor declared: %s", said);
    return;
  case CONFORM_PASSED:
  case CONFORM_FAILED:
    v->verdict = result->outcome == CONFORM_PASSED && !pattern ? UNROLL_PASSED : UNROLL_FAILED;
    if (pattern)
      snprintf(v->text, sizeof v->text, "declared unsupported by \"%s\", but claimed%s%s", pattern, said[0] ? ": " : "",
               said);
    else if (v->verdict == UNROLL_FAILED)
      snprintf(v->text, sizeof v->text, "%s", said[0] ? said : "failed without a word");
    return;
  default: v->verdict = UNROLL_FAILED;
  }
  snprintf(v->text, sizeof v->text, "%s", said);
}

static int record(void *ctx, uint32_t i, const struct conform_result *result) {
  struct run *run = ctx;
  unroll_conform_report *r = run->report;
  const uint32_t index = run->order[i];
  struct verdict v;
  judge(run, run->declared[index], result, &v);
  char *error = v.text[0] ? mem_strdup(&r->allocator, v.text) : NULL;
  if (!mem_grow(&r->allocator, &r->records, &r->capacity, r->n + 1, sizeof *r->records) || (v.text[0] && !error)) {
    mem_free(&r->allocator, error);
    return UNROLL_E_MEMORY;
  }
  r->records[r->n++] = (struct conform_record){index, v.verdict, result->seconds, error};
  const unroll_conform_case one = unroll_conform_case_of(r, r->n - 1);
  const unroll_conform_options *o = run->options;
  if (o->progress && o->progress(o->progress_ctx, &one, r->n, run->job.n) != 0)
    return UNROLL_E_CANCELLED;
  const bool is_bad = v.verdict == UNROLL_FAILED || v.verdict == UNROLL_CRASHED;
  return is_bad && o->stop_at_failure ? 1 : 0;
}

static unroll_status run_all(struct run *run, unroll_error *err) {
  unroll_conform_report *r = run->report;
  const unroll_conform_options *o = run->options;
  struct conform_prelude *prelude = r->prelude;
  TRY(conform_list_make(&r->list, &r->allocator, err));
  TRY(choose(run, err));
  TRY(is_file(o->plugin) ? find_file(run, o->plugin, err) : find_id(run, o->plugin, err));
  run->session.id = r->id;
  run->job.list = &r->list;
  run->job.order = run->order;
  TRY(children_prelude(&run->job, prelude, err));
  if (prelude->status != UNROLL_OK)
    return fail_native(err, prelude->status, prelude->native, "plugin \"%s\": %s", r->id, prelude->message);
  TRY(match_declarations(run, err));
  snprintf(run->session.device_id, sizeof run->session.device_id, "%s", prelude->device_id);
  int stopped = 0;
  TRY(children_run(&run->job, &stopped, err));
  if (stopped == UNROLL_E_MEMORY)
    return fail(err, stopped, "out of memory for the report");
  if (stopped == UNROLL_E_CANCELLED)
    return fail(err, stopped, "cancelled after %u of %u cases", r->n, run->job.n);
  return coverage_count(r) ? UNROLL_OK : fail(err, UNROLL_E_MEMORY, "out of memory for the coverage");
}

unroll_status unroll_conform_run(const unroll_conform_options *options, unroll_conform_report **report,
                                 unroll_error *err) {
  *report = NULL;
  if (!options || !UNROLL_HAS(unroll_conform_options, options, allocator) || !options->plugin || !options->plugin[0])
    return fail(err, UNROLL_E_INVALID, "no plugin is named in the options");
  unroll_conform_report *r = mem_zalloc(options->allocator, sizeof *r);
  if (!r)
    return fail(err, UNROLL_E_MEMORY, "out of memory for a report");
  if (options->allocator)
    r->allocator = *options->allocator;
  r->prelude = mem_zalloc(&r->allocator, sizeof *r->prelude);
  struct run run = {.options = options,
                    .report = r,
                    .session = {.allocator = &r->allocator,
                                .device_index = options->device,
                                .device_options = options->device_options,
                                .n_device_options = options->n_device_options,
                                .seed = options->seed,
                                .printed = -1}};
  run.job = (struct conform_job){.session = &run.session,
                                 .timeout_ms = options->timeout_ms ? options->timeout_ms : UNROLL_CONFORM_TIMEOUT_MS,
                                 .in_process = options->in_process != 0,
                                 .done = record,
                                 .ctx = &run};
  const unroll_status status =
      r->prelude ? run_all(&run, err) : fail(err, UNROLL_E_MEMORY, "out of memory for a report");
  session_unload(&run.session);
  mem_free(&r->allocator, run.order);
  mem_free(&r->allocator, run.declared);
  if (status != UNROLL_OK) {
    unroll_conform_report_destroy(r);
    return status;
  }
  *report = r;
  return UNROLL_OK;
}
