/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The wrappers around a whole training: the same bits and no finding with the check, and with the trace a timeline whose
 * events are well formed, nest, and name nodes.
 */
#include "io_support.h"
#include "plugins/registry.h"
#include "runs.h"
#include <jansson.h>
#include <signal.h>
#include <sys/resource.h>

static run_log seen;

static const training lstm = {.T = 5,
                              .B = 3,
                              .I = 4,
                              .H = 5,
                              .V = 6,
                              .dtype = UNROLL_F32,
                              .cell = UNROLL_CELL_LSTM,
                              .layers = 2,
                              .lengths = true,
                              .with_state = true,
                              .optimize = true};

static results train(const char *wrap, const char *device, const char *option, const training *w) {
  if (wrap)
    setenv("UNROLL_WRAP", wrap, 1);
  else
    unsetenv("UNROLL_WRAP");
  unroll_context *ctx = runs_context(NULL, &seen);
  unroll_graph *g = runs_training(w);
  unroll_device *d = option ? runs_device(ctx, device, option, NULL) : runs_device(ctx, device, NULL);
  const unroll_compile_options crossing = {.struct_size = sizeof crossing, .allow_step_crossing = 1};
  const results r = runs_all(g, &d, 1, &crossing, w, 3);
  unroll_device_close(d);
  unroll_graph_destroy(g);
  unroll_context_destroy(ctx);
  return r;
}

static int setup(void **state) {
  if (make_folder(state) != 0)
    return 1;
  return setenv("UNROLL_TRACE", in_folder("trace.json"), 1);
}

static int teardown(void **state) {
  unsetenv("UNROLL_WRAP");
  unsetenv("UNROLL_TRACE");
  return remove_folder(state);
}

/* ---- the same bits ---- */
static void training_is_the_same(void **state) {
  (void)state;
  const struct {
    const char *device, *option;
  } ways[] = {{"cpu", NULL},
              {"patchwork", "mask=lstm_gates"},
              {"patchwork", "group=runs"},
              {"patchwork", "take=matmul,optimizer"}};
  for (int cell = UNROLL_CELL_RNN; cell <= UNROLL_CELL_GRU_AFTER; cell++)
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
      training w = lstm;
      w.cell = cell;
      w.runtime_T = i % 2 == 1;
      w.direction = cell % 2;
      results want = train(NULL, ways[i].device, ways[i].option, &w);
      results got = train("check,trace", ways[i].device, ways[i].option, &w);
      assert_same(&got, &want);
      if (log_count(&seen, "check: ") > 0)
        print_error("%s\n", seen.text);
      assert_int_equal(log_count(&seen, "check: "), 0);
      results_free(&got);
      results_free(&want);
    }
  folder_entries(1);
}

/* ---- the timeline ---- */
static json_t *read_trace(void) {
  json_error_t why;
  json_t *events = json_load_file(in_folder("trace.json"), JSON_REJECT_DUPLICATES, &why);
  if (!events)
    fail_msg("line %d: %s", why.line, why.text);
  assert_true(json_is_array(events));
  assert_int_equal(folder_entries(1), 1); /* the other name is gone */
  return events;
}

static double number(const json_t *event, const char *key) {
  const json_t *x = json_object_get(event, key);
  assert_true(json_is_number(x));
  return json_number_value(x);
}
static const char *text(const json_t *event, const char *key) {
  const char *s = json_string_value(json_object_get(event, key));
  return s ? s : "";
}
static const json_t *args(const json_t *event) { return json_object_get(event, "args"); }
static bool is(const json_t *event, const char *name) { return strcmp(text(event, "name"), name) == 0; }

/* The process that has this name, in the order in which they came; 0: none. */
static int process_called(const json_t *events, const char *name) {
  for (size_t i = 0; i < json_array_size(events); i++) {
    const json_t *e = json_array_get(events, i);
    if (is(e, "process_name") && strcmp(text(args(e), "name"), name) == 0)
      return (int)number(e, "pid");
  }
  return 0;
}

static bool has_name(const json_t *events, double process, double thread) {
  for (size_t i = 0; i < json_array_size(events); i++) {
    const json_t *e = json_array_get(events, i);
    if (is(e, "thread_name") && number(e, "pid") == process && number(e, "tid") == thread)
      return text(args(e), "name")[0] != 0;
  }
  return false;
}

typedef struct track_event {
  double process, thread, begin, end;
} track_event;
static int by_track_and_time(const void *x, const void *y) {
  const track_event *a = x, *b = y;
  const double d[] = {a->process - b->process, a->thread - b->thread, a->begin - b->begin, b->end - a->end};
  for (int i = 0; i < 4; i++)
    if (d[i] != 0)
      return d[i] < 0 ? -1 : 1;
  return 0;
}

/* On each track an event lies within another or apart from it. Returns how many there are. */
static size_t assert_nested(const json_t *events) {
  size_t n = 0;
  track_event *all = calloc(json_array_size(events) + 1, sizeof *all);
  assert_non_null(all);
  for (size_t i = 0; i < json_array_size(events); i++) {
    const json_t *e = json_array_get(events, i);
    assert_true(json_is_object(args(e)));
    if (strcmp(text(e, "ph"), "M") == 0)
      continue;
    assert_string_equal(text(e, "ph"), "X");
    assert_true(number(e, "dur") >= 0);
    assert_true(has_name(events, number(e, "pid"), number(e, "tid")));
    const double begin = number(e, "ts");
    all[n++] = (track_event){number(e, "pid"), number(e, "tid"), begin, begin + number(e, "dur")};
  }
  qsort(all, n, sizeof *all, by_track_and_time);
  const double ns = 1e-3 / 2; /* of a microsecond: half of what the file can tell */
  for (size_t i = 0; i < n; i++)
    for (size_t k = i + 1;
         k < n && all[k].process == all[i].process && all[k].thread == all[i].thread && all[k].begin < all[i].end - ns;
         k++)
      assert_true(all[k].end <= all[i].end + ns);
  free(all);
  return n;
}

static const json_t *find(const json_t *events, int process, const char *name) {
  for (size_t i = 0; i < json_array_size(events); i++) {
    const json_t *e = json_array_get(events, i);
    if (number(e, "pid") == process && is(e, name))
      return e;
  }
  return NULL;
}

static void timeline_has_host_and_devices(void **state) {
  (void)state;
  results r = train("trace", "patchwork", "mask=cross_entropy,cross_entropy_grad", &lstm);
  results_free(&r);
  json_t *events = read_trace();
  assert_true(assert_nested(events) > 100);
  assert_int_equal(process_called(events, "host"), 1);
  const int patchwork = process_called(events, "patchwork:0"), cpu = process_called(events, "cpu:0");
  assert_true(patchwork > 1 && cpu > 1 && patchwork != cpu);

  const char *const calls[] = {"device_open",   "claim",       "compile",    "bind",        "queue_create",
                               "buffer_create", "write",       "read",       "run",         "fill",
                               "copy",          "queue_flush", "queue_sync", "device_close"};
  for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
    if (!find(events, 1, calls[i]))
      fail_msg("no %s", calls[i]);
  assert_true(number(args(find(events, 1, "write")), "bytes") > 0);

  bool nodes = false, steps = false, template_span = false, crossed = false, transfer = false, later = false;
  for (size_t i = 0; i < json_array_size(events); i++) {
    const json_t *e = json_array_get(events, i), *a = args(e);
    if (is(e, "run")) {
      nodes = nodes || strstr(text(a, "nodes"), " more");
      steps = steps || strcmp(text(a, "t"), "0..4") == 0;
      later = later || strcmp(text(a, "t"), "4..0") == 0; /* the gradient runs back */
      assert_true(strcmp(text(a, "device"), "cpu:0") == 0 || strcmp(text(a, "device"), "patchwork:0") == 0);
    }
    const double process = strcmp(text(e, "ph"), "X") == 0 ? number(e, "pid") : 1;
    if (process == patchwork && strcmp(text(a, "op"), "lstm_gates") == 0) {
      assert_non_null(strstr(text(e, "name"), "lstm_gates"));
      assert_true(number(a, "layer") == 0 || number(a, "layer") == 1);
      assert_string_equal(text(a, "direction"), "forward");
      assert_true(number(a, "t") >= 0 && number(a, "t") + number(a, "count") <= 5);
      template_span = true;
    }
    crossed = crossed || (process == cpu && strcmp(text(a, "op"), "cross_entropy") == 0);
    transfer = transfer || (process == patchwork && is(e, "write") && number(a, "bytes") > 0);
  }
  assert_true(nodes && steps && later);
  assert_true(template_span);
  assert_true(crossed);
  assert_true(transfer);
  json_decref(events);
}

/* What is in a name must not end the file's strings; and a host that profiles itself loses nothing to the trace. */
static uint32_t spans_seen;
static unroll_backend_binding *span_binding;
static void count_span(void *ctx, const unroll_profile_span *span) {
  (void)ctx;
  spans_seen++;
  if (span->node != UNROLL_NO_NODE) {
    assert_int_equal(span->node, 0);
    span_binding = span->binding;
  }
}

/* y = tanh(x) of four elements. */
typedef struct small_group {
  unroll_tensor_view tensors[2];
  unroll_node_view node;
  unroll_unary_attr attr;
  uint32_t edges[4];
  unroll_graph_view view;
} small_group;
static void make_small(small_group *g, const char *name) {
  *g = (small_group){.attr = {UNROLL_TANH, 0}, .edges = {0, 1, 0, 1}};
  for (uint32_t i = 0; i < 2; i++) {
    g->tensors[i] = (unroll_tensor_view){.dtype = UNROLL_F32,
                                         .rank = 1,
                                         .role = i ? UNROLL_ROLE_OUTPUT : UNROLL_ROLE_INPUT,
                                         .slot = i,
                                         .alias = -1,
                                         .shape = {4, 1, 1, 1, 1, 1},
                                         .stride = {1},
                                         .dim = {-1, -1, -1, -1, -1, -1},
                                         .name = "t"};
  }
  g->node = (unroll_node_view){.op = UNROLL_OP_UNARY,
                               .op_version = 1,
                               .n_in = 1,
                               .first_out = 1,
                               .n_out = 1,
                               .layer = -1,
                               .direction = -1,
                               .body = UNROLL_NO_BODY,
                               .attr = &g->attr,
                               .attr_size = sizeof g->attr,
                               .name = name};
  g->view = (unroll_graph_view){.struct_size = sizeof g->view,
                                .node_stride = sizeof g->node,
                                .tensor_stride = sizeof *g->tensors,
                                .n_nodes = 1,
                                .n_tensors = 2,
                                .n_edges = 4,
                                .n_slots = 2,
                                .first_in = 2,
                                .n_in = 1,
                                .first_out = 3,
                                .n_out = 1,
                                .nodes = &g->node,
                                .tensors = g->tensors,
                                .edges = g->edges};
}

static void names_are_escaped_and_spans_shared(void **state) {
  (void)state;
  setenv("UNROLL_WRAP", "trace,check", 1);
  small_group g;
  make_small(&g, "a \"quoted\\\" name,\n\x01 \xC3\xA9 and \xFF no UTF-8");
  struct plugin_registry *plugins;
  struct plugin_backend cpu;
  unroll_backend_device *d;
  unroll_backend_queue *q, *plain;
  unroll_backend_buffer *b;
  unroll_backend_exec *e;
  unroll_backend_binding *binding;
  assert_ok(plugin_registry_create(&(struct plugin_registry_options){0}, &plugins, &err));
  assert_ok(plugin_registry_open(plugins, "cpu", NULL, 0, &cpu, &err));
  const unroll_backend_ops *ops = cpu.ops;
  assert_ok(ops->device_open(cpu.backend, 0, NULL, 0, &d, &err));
  assert_ok(ops->queue_create(d, UNROLL_QUEUE_PROFILE, &q, &err));
  assert_ok(ops->queue_create(d, 0, &plain, &err));
  assert_ok(ops->buffer_create(d, 32, 0, &b, &err));
  assert_ok(ops->fill(plain, b, 0, 32, 0, NULL, &err));
  assert_ok(ops->compile(d, &g.view, NULL, 0, &e, &err));
  const unroll_slot slots[] = {{sizeof *slots, 0, b, 0, 16}, {sizeof *slots, 0, b, 16, 16}};
  assert_ok(ops->bind(e, slots, 2, sizeof *slots, NULL, 0, &binding, &err));
  const unroll_run_args once = {.struct_size = sizeof once, .count = 1};
  assert_ok(ops->run(binding, q, &once, NULL, &err));
  assert_ok(ops->queue_sync(q, &err)); /* the trace reads the spans here */
  assert_ok(ops->run(binding, q, &once, NULL, &err));
  const unroll_profile *profile = ops->extension(cpu.backend, UNROLL_PROFILE_ID);
  assert_non_null(profile);
  spans_seen = 0;
  assert_ok(profile->spans(q, count_span, NULL, &err));
  assert_int_equal(spans_seen, 2);
  assert_ptr_equal(span_binding, binding);
  assert_ok(profile->spans(q, count_span, NULL, &err));
  assert_int_equal(spans_seen, 2);
  assert_error(profile->spans(plain, count_span, NULL, &err), UNROLL_E_STATE, "UNROLL_QUEUE_PROFILE");
  assert_ok(ops->run(binding, q, &once, NULL, &err)); /* nobody waits for this one */
  ops->binding_destroy(binding);
  ops->exec_destroy(e);
  ops->buffer_destroy(b);
  ops->queue_destroy(plain);
  ops->queue_destroy(q);
  ops->device_close(d);
  assert_ok(plugin_registry_close(plugins, &cpu, &err));
  assert_true(access(in_folder("trace.json"), F_OK) != 0); /* it is still being written, under another name */
  plugin_registry_destroy(plugins);
  json_t *events = read_trace();
  (void)assert_nested(events);
  const json_t *span =
      find(events, process_called(events, "cpu:0"), "a \"quoted\\\" name,\n\x01 \xC3\xA9 and \xEF\xBF\xBD no UTF-8");
  assert_non_null(span);
  assert_string_equal(text(args(span), "op"), "unary");
  uint32_t runs = 0;
  for (size_t i = 0; i < json_array_size(events); i++)
    runs += is(json_array_get(events, i), text(span, "name"));
  assert_int_equal(runs, 3);
  json_decref(events);
}

/* ---- files that can't be written ---- */
static void file_that_cannot_be_made(void **state) {
  (void)state;
  setenv("UNROLL_WRAP", "trace", 1);
  setenv("UNROLL_TRACE", in_folder("missing/trace.json"), 1);
  struct plugin_registry *plugins;
  struct plugin_backend cpu;
  assert_ok(plugin_registry_create(&(struct plugin_registry_options){0}, &plugins, &err));
  assert_error(plugin_registry_open(plugins, "cpu", NULL, 0, &cpu, &err), UNROLL_E_IO, "missing/trace.json");
  assert_error(plugin_registry_open(plugins, "cpu", NULL, 0, &cpu, &err), UNROLL_E_IO, "No such file");
  plugin_registry_destroy(plugins);
}

/* The disk is full halfway: the run goes on, it is logged, and no half of a file has the name. */
static void file_that_cannot_be_finished(void **state) {
  (void)state;
  struct rlimit old, small;
  assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
  small = old;
  small.rlim_cur = 1 << 16;
  signal(SIGXFSZ, SIG_IGN);
  assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
  results r = train("trace", "cpu", NULL, &lstm);
  assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
  signal(SIGXFSZ, SIG_DFL);
  results_free(&r);
  assert_int_equal(log_count(&seen, "nothing more is written"), 1);
  assert_int_equal(folder_entries(0), 0);
}

/* Children that look at devices leave no files and no second copy of what was buffered. */
static void probes_are_not_traced(void **state) {
  (void)state;
  setenv("UNROLL_WRAP", "check,trace", 1);
  unroll_context *ctx = runs_context(NULL, &seen);
  unroll_device *cpu = runs_device(ctx, "cpu", NULL);
  unroll_plugin_list *list;
  assert_ok(unroll_context_list(ctx, &list, &err));
  unroll_plugin_list_free(ctx, list);
  assert_int_equal(folder_entries(0), 1);
  unroll_device_close(cpu);
  unroll_context_destroy(ctx);
  json_t *events = read_trace();
  (void)assert_nested(events);
  json_decref(events);
}

int main(void) {
#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
  const struct CMUnitTest tests[] = {
      IN_FOLDER(training_is_the_same),
      IN_FOLDER(timeline_has_host_and_devices),
      IN_FOLDER(names_are_escaped_and_spans_shared),
      IN_FOLDER(file_that_cannot_be_made),
      IN_FOLDER(file_that_cannot_be_finished),
      IN_FOLDER(probes_are_not_traced),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
