/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unroll/nn.h>

#include "bench_profile.h"
#include "commands.h"
#include "console.h"
#include "layer_graph.h"

#define MIN_RUNS 5
#define MAX_RUNS 100000
#define WARM_UP_RUNS 2

typedef struct bench_values {
  option_marks marks;
  common_values common;
  layer_values layer;
  double seconds;
  bool profile, json;
} bench_values;

static const option_spec options[] = {
    OPTIONS_LAYER(bench_values, "steps"),
    OPTIONS_DEVICE(bench_values),
    {.type = OPTION_NUMBER,
     .name = "seconds",
     .argument = "X",
     .offset = offsetof(bench_values, seconds),
     .standard = "1.5",
     .min = 1e-300,
     .max = 1e300,
     .expected = "a number above 0",
     .help = "how long to measure, but at least 5 runs"},
    {.type = OPTION_FLAG,
     .name = "profile",
     .offset = offsetof(bench_values, profile),
     .help = "where the time goes, by node and kernel, from a few more runs that are timed inside"},
    {.type = OPTION_FLAG, .name = "json", .offset = offsetof(bench_values, json), .help = "as JSON, for programs"},
    OPTIONS_LOG(bench_values),
};

typedef struct measurement {
  double min_ms, median_ms;
  int runs;
  unroll_executable_info info;
  profile_table profile;
} measurement;

static int by_value(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static unroll_status measure_runs(unroll_binding *binding, double seconds, double *ms, measurement *result,
                                  unroll_error *err) {
  unroll_status status = UNROLL_OK;
  for (int i = 0; i < WARM_UP_RUNS && status == UNROLL_OK; i++)
    status = run_timed(binding, ms, err);
  double sum = 0;
  int n = 0;
  while (status == UNROLL_OK && n < MAX_RUNS && (n < MIN_RUNS || sum < seconds * 1e3)) {
    status = run_timed(binding, &ms[n], err);
    sum += ms[n++];
  }
  if (status != UNROLL_OK)
    return status;
  qsort(ms, (size_t)n, sizeof *ms, by_value);
  result->min_ms = ms[0];
  result->median_ms = n % 2 ? ms[n / 2] : (ms[n / 2 - 1] + ms[n / 2]) / 2;
  result->runs = n;
  return UNROLL_OK;
}

/* In a binding of its own: the one that was measured stays as it is. */
static unroll_status profile(unroll_executable *exe, unroll_graph *graph, int32_t cell, profile_table *table,
                             unroll_error *err) {
  unroll_binding *binding = NULL;
  unroll_status status = unroll_binding_create(exe, &binding, err);
  if (status == UNROLL_OK)
    status = fill_layer_binding(graph, cell, binding, err);
  if (status == UNROLL_OK)
    status = profile_runs(binding, table, err);
  unroll_binding_destroy(binding);
  return status;
}

static unroll_status measure(const bench_values *values, unroll_device *device, unroll_graph *graph,
                             measurement *result, unroll_error *err) {
  const int32_t cell = layer_cell(&values->layer);
  unroll_executable *exe = NULL;
  unroll_binding *binding = NULL;
  double *ms = malloc(MAX_RUNS * sizeof *ms);
  unroll_status status = ms ? UNROLL_OK : UNROLL_E_MEMORY;
  err->code = status;
  if (status == UNROLL_OK)
    status = unroll_compile(graph, &device, 1, NULL, &exe, err);
  if (status == UNROLL_OK) {
    result->info = unroll_executable_describe(exe);
    status = unroll_binding_create(exe, &binding, err);
  }
  if (status == UNROLL_OK)
    status = fill_layer_binding(graph, cell, binding, err);
  if (status == UNROLL_OK)
    status = measure_runs(binding, values->seconds, ms, result, err);
  unroll_binding_destroy(binding);
  if (status == UNROLL_OK && values->profile)
    status = profile(exe, graph, cell, &result->profile, err);
  unroll_executable_destroy(exe);
  free(ms);
  return status;
}

static int print_json(const bench_values *values, unroll_device *device, const measurement *m, double gflops) {
  const layer_values *layer = &values->layer;
  json_t *root =
      json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:b, s:b, s:i, s:f, s:f, s:f, s:i, s:I}", "device",
                unroll_device_id(device), "cell", layer->cell, "steps", (json_int_t)layer->time_steps, "batch",
                (json_int_t)layer->batch, "input", (json_int_t)layer->input, "hidden", (json_int_t)layer->hidden,
                "layers", (json_int_t)layer->layers, "bidirectional", (int)layer->bidirectional, "train",
                (int)layer->train, "runs", m->runs, "min_ms", m->min_ms, "median_ms", m->median_ms, "gflops", gflops,
                "fallbacks", (int)m->info.n_fallbacks, "scratch_bytes", (json_int_t)m->info.scratch_bytes);
  if (root &&
      json_object_update_new(
          root, json_pack("{s:f, s:f, s:f, s:f, s:b, s:b, s:b, s:I, s:s, s:s, s:f, s:f, s:f}", "input_dropout",
                          layer->input_dropout, "weight_dropout", layer->weight_dropout, "state_dropout",
                          layer->state_dropout, "zoneout", layer->zoneout, "same_mask", (int)layer->same_mask,
                          "layer_norm", (int)layer->layer_norm, "peepholes", (int)layer->peepholes, "projection",
                          (json_int_t)layer->projection, "activation", layer->activation, "residual", layer->residual,
                          "skip", layer->skip, "gate_clip", layer->gate_clip, "cell_clip", layer->cell_clip)) != 0) {
    json_decref(root);
    root = NULL;
  }
  const profile_table *profile = &m->profile;
  if (root && values->profile &&
      json_object_update_new(root, json_pack("{s:o, s:i, s:f, s:f}", "profile", profile_json(profile), "profile_runs",
                                             profile->runs, "profile_device_ms", profile_device_ms(profile),
                                             "profile_wall_ms", profile->wall_ms / profile->runs)) != 0) {
    json_decref(root);
    root = NULL;
  }
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

/* What of the cell is not the default. */
static void print_cell_options(const layer_values *layer) {
  const struct {
    const char *name;
    double value;
  } numbers[] = {{"input dropout", layer->input_dropout},   {"weight dropout", layer->weight_dropout},
                 {"state dropout", layer->state_dropout},   {"zoneout", layer->zoneout},
                 {"projection", (double)layer->projection}, {"skip", layer->skip},
                 {"gate clip", layer->gate_clip},           {"cell clip", layer->cell_clip}};
  const struct {
    const char *name;
    bool on;
  } flags[] = {{"same mask", layer->same_mask}, {"layer norm", layer->layer_norm}, {"peepholes", layer->peepholes}};
  const char *before = "options   ";
  for (size_t i = 0; i < COUNT(numbers); i++)
    if (numbers[i].value != 0) {
      printf("%s%s %g", before, numbers[i].name, numbers[i].value);
      before = ", ";
    }
  for (size_t i = 0; i < COUNT(flags); i++)
    if (flags[i].on) {
      printf("%s%s", before, flags[i].name);
      before = ", ";
    }
  if (strcmp(layer->cell, "rnn") == 0 && strcmp(layer->activation, "tanh") != 0) {
    printf("%sactivation %s", before, layer->activation);
    before = ", ";
  }
  if (strcmp(layer->residual, "none") != 0) {
    printf("%sresidual %s", before, layer->residual);
    before = ", ";
  }
  if (before[0] == ',')
    printf("\n");
}

static void print_text(const bench_values *values, unroll_device *device, measurement *m, double gflops) {
  const layer_values *layer = &values->layer;
  const unroll_device_info *info = unroll_device_describe(device);
  printf("device    %s, %s\n", unroll_device_id(device), info && info->name ? info->name : "");
  printf("layer     %s%s, T %" PRId64 ", B %" PRId64 ", I %" PRId64 ", H %" PRId64 ", %" PRId64 " layer%s, %s\n",
         layer->cell, layer->bidirectional ? " bidirectional" : "", layer->time_steps, layer->batch, layer->input,
         layer->hidden, layer->layers, layer->layers == 1 ? "" : "s",
         layer->train ? "forward and gradient" : "forward");
  print_cell_options(layer);
  unroll_checkpoint_policy policy;
  unroll_checkpoint_plan_info plan;
  if (layer_checkpoints(layer, &policy, &plan))
    printf("plan      %" PRId64 " segments of %" PRId64 " steps, %" PRId64 " states kept: %" PRId64
           " forward steps, %.2f of %.2f MB\n",
           plan.segments, plan.segment, plan.states, plan.forward_steps, (double)plan.bytes / 1e6,
           (double)policy.bytes / 1e6);
  printf("memory    %.2f MB beside inputs, parameters and results\n", (double)m->info.scratch_bytes / 1e6);
  printf("time      %.3f ms minimum, %.3f ms median of %d runs\n", m->min_ms, m->median_ms, m->runs);
  printf("rate      %.*f GFLOP/s by the median\n", gflops < 10 ? 2 : 1, gflops);
  if (m->info.n_fallbacks)
    printf("fallbacks %" PRIu32 " nodes did not run on %s; --verbose says which and why\n", m->info.n_fallbacks,
           unroll_device_id(device));
  if (values->profile)
    profile_print(&m->profile);
}

static int run_on(const bench_values *values, unroll_device *device) {
  unroll_graph *graph = build_layer_graph(&values->layer);
  if (!graph)
    return EXIT_FAILED;
  unroll_error err = UNROLL_ERROR_INIT;
  measurement m = {.runs = 0};
  int code = EXIT_OK;
  if (measure(values, device, graph, &m, &err) == UNROLL_OK) {
    const double gflops = layer_flops(&values->layer) / (m.median_ms * 1e6);
    if (values->json)
      code = print_json(values, device, &m, gflops);
    else
      print_text(values, device, &m, gflops);
  } else {
    code = complain_of(&err);
  }
  profile_free(&m.profile);
  unroll_graph_destroy(graph);
  return code;
}

static int run(const command_spec *command, const void *p) {
  (void)command;
  const bench_values *values = p;
  unroll_context *ctx = open_context(&values->common);
  unroll_device *device = ctx ? open_device(ctx, &values->common) : NULL;
  const int code = device ? run_on(values, device) : EXIT_FAILED;
  unroll_device_close(device);
  unroll_context_destroy(ctx);
  return code;
}

const command_spec command_bench = {
    .name = "bench layer",
    .purpose = "measure recurrent layers on a device",
    .usage = "[options]",
    .options = options,
    .n_options = COUNT(options),
    .values_size = sizeof(bench_values),
    .notes = "Inputs are random, values f32. Each run is waited for; at least 5 are timed, after 2 that "
             "are not.\n"
             "GFLOP/s count the products alone: 2·T·B·G·H·(I+H) for a layer and direction with G gates (rnn 1, lstm 4; "
             "gru,\n"
             "coupled_lstm and min_lstm 3; min_gru 2), where I of a further layer is the width of the one below; three "
             "times "
             "that\n"
             "with --train. A projection to P: G·H·(I+P) + H·P; min_gru, min_lstm: G·H·I.\n"
             "--profile tells calls of a run, the mean time of one, the sum over a run, and its share of all sums.\n",
    .example = "  unroll bench layer --cell lstm --steps 64 --batch 32 --input 128 --hidden 128 --train --device cpu\n",
    .run = run,
};
