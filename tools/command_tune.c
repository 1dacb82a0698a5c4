/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A device measures by itself when it is asked to, by its option `tune`, and says what it found in its log: "opencl: tuning
 * (HOW): KEY -> VALUE". This command asks for common shapes, and times each before and after.
 */
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bench_profile.h"
#include "commands.h"
#include "console.h"
#include "layer_graph.h"
#include "progress.h"

enum { STEPS = 64, ENTRY = 512, ENTRIES = 512 };
enum { FORWARD, TRAIN, WAYS };
static const double WORK = 4e9; /* floating-point operations of a run that a quick calibration takes for worth it */

typedef struct tune_values {
  option_marks marks;
  common_values common;
  const char *cell;
  int64_t hidden, batch, input;
  double seconds;
  bool quick, again, json;
} tune_values;

#define OFFSET(member) offsetof(tune_values, member)
static const option_spec options[] = {
    {.type = OPTION_TEXT,
     .name = "device",
     .argument = "D",
     .offset = OFFSET(common.device),
     .standard = "opencl",
     .help = "what to tune: opencl, or a device of 'unroll devices' such as opencl:0.0"},
    {.type = OPTION_LIST,
     .name = "device-option",
     .argument = "KEY=VALUE",
     .offset = OFFSET(common.device_options),
     .help = "an option of the device, as its documentation has it; may be repeated"},
    {.type = OPTION_FLAG, .name = "quick", .offset = OFFSET(quick), .help = "fewer trials of each shape"},
    {.type = OPTION_FLAG, .name = "again", .offset = OFFSET(again), .help = "measure what was measured before, too"},
    {.type = OPTION_CHOICE,
     .name = "cell",
     .argument = "C",
     .offset = OFFSET(cell),
     .standard = "lstm",
     .choices = "rnn lstm gru gru_after",
     .help = "what a layer is made of; with this, --hidden or --batch one shape is tuned instead of the common ones"},
    {.type = OPTION_INTEGER,
     .name = "hidden",
     .argument = "H",
     .offset = OFFSET(hidden),
     .standard = "256",
     .min = 1,
     .max = 1 << 16,
     .help = "units of a layer"},
    {.type = OPTION_INTEGER,
     .name = "batch",
     .argument = "B",
     .offset = OFFSET(batch),
     .standard = "32",
     .min = 1,
     .max = 1 << 20,
     .help = "sequences at once"},
    {.type = OPTION_INTEGER,
     .name = "input",
     .argument = "I",
     .offset = OFFSET(input),
     .min = 1,
     .max = 1 << 16,
     .help = "numbers per sequence and step; H where it is not given"},
    {.type = OPTION_NUMBER,
     .name = "seconds",
     .argument = "X",
     .offset = OFFSET(seconds),
     .standard = "0.5",
     .min = 1e-300,
     .max = 1e300,
     .expected = "a number above 0",
     .help = "how long each time in the table is measured"},
    {.type = OPTION_FLAG, .name = "json", .offset = OFFSET(json), .help = "as JSON, for programs"},
    OPTIONS_LOG(tune_values),
};

static const struct {
  const char *cell;
  int64_t hidden, batch;
} common_shapes[] = {
    {"lstm", 128, 50},     {"lstm", 256, 1},       {"lstm", 256, 64},  {"lstm", 512, 1},
    {"lstm", 512, 64},     {"lstm", 1024, 1},      {"lstm", 1024, 32}, {"gru_after", 256, 64},
    {"gru_after", 512, 1}, {"gru_after", 512, 32}, {"rnn", 256, 64},   {"rnn", 1024, 1},
};

typedef struct shape {
  layer_values layer[WAYS];
  double before[WAYS], after[WAYS]; /* ms of the quickest run */
  char entry[WAYS][ENTRY];          /* of the forward recurrence and of its gradient: "HOW): KEY -> VALUE", or "" */
} shape;

/* ---- what the device says ---- */
typedef struct listener {
  int32_t level; /* up to which messages are shown */
  shape *shape;
  char device[ENTRY];
  char *entries[ENTRIES];
  size_t n;
} listener;

static void keep_entry(listener *l, const char *entry) {
  const char *line = strstr(entry, "): ");
  if (!line)
    return;
  line += 3;
  const size_t key = (size_t)(strstr(line, " -> ") - line);
  for (size_t i = 0; i < l->n; i++)
    if (strncmp(l->entries[i], line, key + 1) == 0) {
      free(l->entries[i]);
      l->entries[i] = l->entries[--l->n];
      break;
    }
  if (l->n < ENTRIES && (l->entries[l->n] = strdup(line)))
    l->n++;
}

static void listen(void *ctx, int32_t level, const char *message) {
  static const char word[] = "opencl: tuning (", device[] = "device): ", tried[] = "tried)";
  listener *l = ctx;
  if (level <= l->level)
    console_log(NULL, level, message);
  if (strncmp(message, word, sizeof word - 1) != 0)
    return;
  const char *said = message + sizeof word - 1;
  if (strncmp(said, device, sizeof device - 1) == 0)
    snprintf(l->device, sizeof l->device, "%s", said + sizeof device - 1);
  else if (strstr(said, " -> ") && strncmp(said, tried, sizeof tried - 1) != 0) {
    keep_entry(l, said);
    const int way = strstr(said, ": layer backward ") ? TRAIN : strstr(said, ": layer forward ") ? FORWARD : WAYS;
    if (l->shape && way < WAYS)
      snprintf(l->shape->entry[way], ENTRY, "%s", said);
  }
}

/* ---- measuring ---- */
typedef struct subject { /* a layer, compiled for a device and bound */
  unroll_executable *exe;
  unroll_binding *binding;
} subject;

static void subject_free(subject *s) {
  unroll_binding_destroy(s->binding);
  unroll_executable_destroy(s->exe);
}

static unroll_status subject_make(subject *s, unroll_graph *graph, int32_t cell, unroll_device *device,
                                  unroll_error *err) {
  unroll_status status = unroll_compile(graph, &device, 1, NULL, &s->exe, err);
  if (status == UNROLL_OK)
    status = unroll_binding_create(s->exe, &s->binding, err);
  return status == UNROLL_OK ? fill_layer_binding(graph, cell, s->binding, err) : status;
}

/* The quickest run of each, in turns, so that what else the machine does meets both. A NULL binding is left out. */
static unroll_status race(unroll_binding *const *bindings, double *const *best, double seconds, unroll_error *err) {
  unroll_status status = UNROLL_OK;
  double spent = 0, ms;
  for (int i = 0; i < 2 && status == UNROLL_OK; i++)
    if (bindings[i] && (status = run_timed(bindings[i], &ms, err)) == UNROLL_OK) /* the first run builds the kernels */
      status = run_timed(bindings[i], &ms, err);
  for (int runs = 0; status == UNROLL_OK && (runs < 5 || spent < seconds * 1e3); runs++)
    for (int i = 0; i < 2 && status == UNROLL_OK; i++) {
      if (!bindings[i] || (status = run_timed(bindings[i], &ms, err)) != UNROLL_OK)
        continue;
      *best[i] = *best[i] > 0 && *best[i] < ms ? *best[i] : ms;
      spent += ms;
    }
  return status;
}

/* Either device may be NULL. */
static int time_shape(const tune_values *values, shape *s, int way, unroll_device *before, unroll_device *after) {
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_graph *graph = build_layer_graph(&s->layer[way]);
  if (!graph)
    return EXIT_FAILED;
  const int32_t cell = layer_cell(&s->layer[way]);
  subject subjects[2] = {{0}};
  unroll_device *const devices[2] = {before, after};
  unroll_status status = UNROLL_OK;
  for (int i = 0; i < 2 && status == UNROLL_OK; i++)
    if (devices[i])
      status = subject_make(&subjects[i], graph, cell, devices[i], &err);
  if (status == UNROLL_OK)
    status = race((unroll_binding *[2]){subjects[0].binding, subjects[1].binding},
                  (double *[2]){&s->before[way], &s->after[way]}, 2 * values->seconds, &err);
  subject_free(&subjects[0]);
  subject_free(&subjects[1]);
  unroll_graph_destroy(graph);
  return status == UNROLL_OK ? EXIT_OK : complain_of(&err);
}

/* Compiling alone makes the device measure, where the run is long enough for that to be worth it. */
static int calibrate(const shape *s, unroll_device *device) {
  unroll_error err = UNROLL_ERROR_INIT;
  layer_values layer = s->layer[TRAIN];
  const double steps = WORK * (double)layer.time_steps / layer_flops(&layer);
  if (steps > (double)layer.time_steps)
    layer.time_steps = steps < 65536 ? (int64_t)steps : 65536;
  unroll_graph *graph = build_layer_graph(&layer);
  if (!graph)
    return EXIT_FAILED;
  unroll_executable *exe = NULL;
  const unroll_status status = unroll_compile(graph, &device, 1, NULL, &exe, &err);
  unroll_executable_destroy(exe);
  unroll_graph_destroy(graph);
  return status == UNROLL_OK ? EXIT_OK : complain_of(&err);
}

/* ---- the table ---- */
/* Takes NAME and a number off the text; false: it does not begin like that. */
static bool take_number(const char **text, const char *name, long long *number) {
  const size_t n_name = strlen(name);
  if (strncmp(*text, name, n_name) != 0)
    return false;
  const char *first = *text + n_name;
  const size_t n = strspn(first, "0123456789");
  if (n == 0 || n > 18)
    return false;
  *number = strtoll(first, NULL, 10);
  *text = first + n;
  return true;
}

/* "sequence, 4 x 16 rows, tile 8x2" of an entry. */
static void describe(const shape *s, int way, char *text, size_t size) {
  char kind[16];
  long long pieces, rows, vecs, parts, lanes, teams;
  const char *value = strstr(s->entry[way], " -> ");
  if (!value) {
    snprintf(text, size, "by the model");
    return;
  }
  const char *at = sscanf(value, " -> %15s", kind) == 1 ? value + strlen(" -> ") + strlen(kind) : "";
  if (take_number(&at, " lanes=", &lanes) && take_number(&at, " rows=", &rows) && take_number(&at, " teams=", &teams)) {
    snprintf(text, size, "%s, groups of %lld rows, %lld x %lld units", kind, rows, teams, lanes);
    return;
  }
  if (!take_number(&at, " pieces=", &pieces) || !take_number(&at, " rows=", &rows) ||
      !take_number(&at, " vecs=", &vecs) || !take_number(&at, " parts=", &parts) || pieces < 1) {
    snprintf(text, size, "%s", value + 4);
    return;
  }
  const long long each = ((long long)s->layer[way].batch + pieces - 1) / pieces;
  if (strcmp(kind, "step") == 0)
    snprintf(text, size, "step, %lld rows/item, units in %lld, tile %lldx%lld", each, parts, rows, vecs);
  else
    snprintf(text, size, "%s, %lld rows/item, tile %lldx%lld", kind, each, rows, vecs);
}

static void print_row(const shape *s) {
  const layer_values *l = &s->layer[FORWARD];
  char name[64], times[WAYS][48], choices[WAYS][160];
  snprintf(name, sizeof name, "%s H %" PRId64 " B %" PRId64, l->cell, l->hidden, l->batch);
  for (int way = 0; way < WAYS; way++) {
    snprintf(times[way], sizeof times[way], "%.4g -> %.4g", s->before[way], s->after[way]);
    describe(s, way, choices[way], sizeof choices[way]);
  }
  printf("%-24s %-18s %-18s %-48s %s\n", name, times[FORWARD], times[TRAIN], choices[FORWARD], choices[TRAIN]);
}

static double mean_gain(const shape *shapes, size_t n, int way) {
  double sum = 0;
  for (size_t i = 0; i < n; i++)
    sum += log(shapes[i].before[way] / shapes[i].after[way]);
  return exp(sum / (double)n);
}

static void print_text(unroll_device *device, const shape *shapes, size_t n, const listener *l) {
  const unroll_device_info *info = unroll_device_describe(device);
  printf("device  %s, %s\n", unroll_device_id(device), info && info->name ? info->name : "");
  printf("times   ms of the quickest run of %d steps, before -> after\n\n", STEPS);
  printf("%-24s %-18s %-18s %-48s %s\n", "layer", "forward", "with gradient", "forward: what was chosen", "gradient");
  for (size_t i = 0; i < n; i++)
    print_row(&shapes[i]);
  printf("\ngeometric mean: forward %.2f times as fast, with gradient %.2f times\n", mean_gain(shapes, n, FORWARD),
         mean_gain(shapes, n, TRAIN));
  if (!l->n)
    return;
  printf("\nentries, for others with such a device:\n%s%s", l->device, l->device[0] ? "\n" : "");
  for (size_t i = 0; i < l->n; i++)
    puts(l->entries[i]);
}

static json_t *shape_json(const shape *s) {
  const layer_values *l = &s->layer[FORWARD];
  char choices[WAYS][160], how[WAYS][16] = {"", ""};
  for (int way = 0; way < WAYS; way++) {
    describe(s, way, choices[way], sizeof choices[way]);
    snprintf(how[way], sizeof how[way], "%.*s", (int)strcspn(s->entry[way], ")"), s->entry[way]);
  }
  return json_pack("{s:s, s:I, s:I, s:I, s:I, s:f, s:f, s:f, s:f, s:s, s:s, s:s, s:s}", "cell", l->cell, "hidden",
                   (json_int_t)l->hidden, "batch", (json_int_t)l->batch, "input", (json_int_t)l->input, "steps",
                   (json_int_t)l->time_steps, "forward_before_ms", s->before[FORWARD], "forward_after_ms",
                   s->after[FORWARD], "train_before_ms", s->before[TRAIN], "train_after_ms", s->after[TRAIN],
                   "forward_choice", choices[FORWARD], "forward_from", how[FORWARD], "gradient_choice", choices[TRAIN],
                   "gradient_from", how[TRAIN]);
}

static int print_json(unroll_device *device, const shape *shapes, size_t n, const listener *l) {
  json_t *rows = json_array(), *entries = json_array();
  for (size_t i = 0; i < n; i++)
    json_array_append_new(rows, shape_json(&shapes[i]));
  for (size_t i = 0; i < l->n; i++)
    json_array_append_new(entries, json_string(l->entries[i]));
  json_t *root = json_pack("{s:s, s:o, s:o}", "device", unroll_device_id(device), "shapes", rows, "entries", entries);
  char *text = root ? json_dumps(root, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
  json_decref(root);
  if (!text) {
    complain("out of memory");
    return EXIT_FAILED;
  }
  puts(text);
  free(text);
  return EXIT_OK;
}

/* ---- the run ---- */
static shape make_shape(const char *cell, int64_t hidden, int64_t batch, int64_t input) {
  shape s = {.before = {0}};
  for (int way = 0; way < WAYS; way++)
    s.layer[way] = (layer_values){.cell = cell,
                                  .activation = "tanh",
                                  .time_steps = STEPS,
                                  .batch = batch,
                                  .input = input ? input : hidden,
                                  .hidden = hidden,
                                  .layers = 1,
                                  .train = way == TRAIN};
  return s;
}

static size_t list_shapes(const command_spec *command, const tune_values *v, shape *shapes) {
  if (option_was_given(command, v, "cell") || option_was_given(command, v, "hidden") ||
      option_was_given(command, v, "batch")) {
    shapes[0] = make_shape(v->cell, v->hidden, v->batch, v->input);
    return 1;
  }
  for (size_t i = 0; i < COUNT(common_shapes); i++)
    shapes[i] = make_shape(common_shapes[i].cell, common_shapes[i].hidden, common_shapes[i].batch, v->input);
  return COUNT(common_shapes);
}

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void show(progress *p, double start, size_t done, size_t of, const char *what, const shape *s) {
  char text[96], time[32];
  const double t = now();
  snprintf(text, sizeof text, "%s %s H %" PRId64 " B %" PRId64, what, s->layer[0].cell, s->layer[0].hidden,
           s->layer[0].batch);
  duration_text(t - start, time, sizeof time);
  const char *const details[] = {text, time};
  progress_show(p, t, (double)done / (double)of, details, COUNT(details));
}

/* Whether products may be CLBlast's, whose parameters are for the whole process. */
static bool tunes_products(const tune_values *values, unroll_device *device) {
  const unroll_device_info *info = unroll_device_describe(device);
  bool clblast = !info || info->kind != UNROLL_KIND_CPU, own = false;
  for (size_t i = 0; i < values->common.device_options.count; i++) {
    const char *option = values->common.device_options.paths[i];
    clblast = clblast || strcmp(option, "kernels=gpu") == 0 || strcmp(option, "product=clblast") == 0;
    own = own || strcmp(option, "product=own") == 0 || strcmp(option, "product=tile") == 0;
  }
  return clblast && !own;
}

/* Before and after take turns; but all that is measured before comes first where products are tuned too. */
static int tune_shapes(const tune_values *values, shape *shapes, size_t n, unroll_device *before, unroll_device *after,
                       listener *l) {
  const bool together = !tunes_products(values, before);
  progress p = progress_start();
  const double start = now();
  int code = EXIT_OK;
  for (size_t i = 0; i < n && code == EXIT_OK && !together; i++)
    for (int way = 0; way < WAYS && code == EXIT_OK; way++) {
      show(&p, start, i, 3 * n, "before", &shapes[i]);
      code = time_shape(values, &shapes[i], way, before, NULL);
    }
  for (size_t i = 0; i < n && code == EXIT_OK; i++) {
    l->shape = &shapes[i];
    show(&p, start, n + 2 * i, 3 * n, "tuning", &shapes[i]);
    code = calibrate(&shapes[i], after);
    show(&p, start, n + 2 * i + 1, 3 * n, "after", &shapes[i]);
    for (int way = 0; way < WAYS && code == EXIT_OK; way++)
      code = time_shape(values, &shapes[i], way, together ? before : NULL, after);
    l->shape = NULL;
  }
  progress_end(&p);
  return code;
}

/* The device with its option tune. */
static unroll_device *open_tuned(unroll_context *ctx, const tune_values *values, const char *tune) {
  char option[32];
  const option_files *given = &values->common.device_options;
  const char **paths = malloc((given->count + 1) * sizeof *paths);
  if (!paths) {
    complain("out of memory");
    return NULL;
  }
  for (size_t i = 0; i < given->count; i++)
    paths[i] = given->paths[i];
  snprintf(option, sizeof option, "tune=%s", tune);
  paths[given->count] = option;
  common_values common = values->common;
  common.device_options = (option_files){paths, given->count + 1};
  unroll_device *device = open_device(ctx, &common);
  free(paths);
  return device;
}

static int run_in(unroll_context *ctx, const command_spec *command, const tune_values *values, listener *l) {
  shape shapes[COUNT(common_shapes)];
  const size_t n = list_shapes(command, values, shapes);
  unroll_device *before = open_tuned(ctx, values, "off"), *after = NULL;
  if (before)
    after = open_tuned(ctx, values, values->again ? "again" : values->quick ? "quick" : "thorough");
  int code = after ? tune_shapes(values, shapes, n, before, after, l) : EXIT_FAILED;
  if (code == EXIT_OK && values->json)
    code = print_json(after, shapes, n, l);
  else if (code == EXIT_OK)
    print_text(after, shapes, n, l);
  unroll_device_close(after);
  unroll_device_close(before);
  return code;
}

static int run(const command_spec *command, const void *p) {
  const tune_values *values = p;
  listener l = {.level = log_level(&values->common)};
  const unroll_logger logger = {.log = listen, .ctx = &l, .level = UNROLL_LOG_DEBUG};
  const unroll_context_options given = {.struct_size = sizeof given, .logger = &logger};
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_context *ctx = NULL;
  const int code =
      unroll_context_create(&given, &ctx, &err) == UNROLL_OK ? run_in(ctx, command, values, &l) : complain_of(&err);
  unroll_context_destroy(ctx);
  for (size_t i = 0; i < l.n; i++)
    free(l.entries[i]);
  return code;
}

const command_spec command_tune = {
    .name = "tune",
    .purpose = "measure on a device how layers run fastest there, and keep it",
    .usage = "[options]",
    .options = options,
    .n_options = COUNT(options),
    .values_size = sizeof(tune_values),
    .notes =
        "What is found stands in the folder of built programs ($UNROLL_CACHE_DIR, $XDG_CACHE_HOME/unroll or "
        "~/.cache/unroll)\n"
        "and is used by every later run on the device, unless its option is tune=off. 'Before' is that: the tables "
        "and the model\n"
        "that the backend comes with. A layer's results do not depend on it, to the last bit. A shape that was "
        "measured before is\n"
        "not measured again without --again.\n",
    .example = "  unroll tune --device opencl:0.0\n"
               "  unroll tune --cell gru_after --hidden 512 --batch 16\n",
    .run = run,
};
