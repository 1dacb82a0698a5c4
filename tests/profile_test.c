/* SPDX-License-Identifier: Apache-2.0 */
/*
 * "unroll.profile/1" of the backends and unroll_binding_profile above it: every node and step has its span, in order
 * and within the run; results are those of a run that is not timed; what is read is forgotten; errors leave things as
 * they were.
 */
#include "runs.h"
#include "runtime/runtime_private.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Device clocks are brought to the host's by calls that take a few microseconds, more on a busy machine. */
#define CLOCK_SLACK_NS UINT64_C(1000000)

static run_log seen;

/* ---- what was seen ---- */
typedef struct seen_entry {
  char node[64], scan[64], op[32], label[64], device[32];
  unroll_profile_entry e;
} seen_entry;
typedef struct seen_list {
  seen_entry *of;
  size_t n, room;
} seen_list;

static const char *text_of(const char *text) { return text ? text : ""; }

static void note(void *ctx, const unroll_profile_entry *e) {
  seen_list *l = ctx;
  if (l->n == l->room) {
    l->room = l->room ? 2 * l->room : 256;
    l->of = realloc(l->of, l->room * sizeof *l->of);
    assert_non_null(l->of);
  }
  assert_int_equal(e->struct_size, sizeof *e);
  assert_non_null(e->label);
  assert_non_null(e->device);
  seen_entry *s = &l->of[l->n++];
  *s = (seen_entry){.e = *e};
  snprintf(s->node, sizeof s->node, "%s", text_of(e->node));
  snprintf(s->scan, sizeof s->scan, "%s", text_of(e->scan));
  snprintf(s->op, sizeof s->op, "%s", text_of(e->op_name));
  snprintf(s->label, sizeof s->label, "%s", e->label);
  snprintf(s->device, sizeof s->device, "%s", e->device);
}

static seen_list read_all(unroll_binding *b) {
  unroll_error err = UNROLL_ERROR_INIT;
  seen_list l = {.n = 0};
  assert_status(UNROLL_OK, unroll_binding_profile_read(b, note, &l, &err));
  return l;
}

static void drop(seen_list *l) {
  free(l->of);
  *l = (seen_list){.n = 0};
}

static size_t count_op(const seen_list *l, const char *op) {
  size_t n = 0;
  for (size_t i = 0; i < l->n; i++)
    n += strcmp(l->of[i].op, op) == 0;
  return n;
}

static uint64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * UINT64_C(1000000000) + (uint64_t)t.tv_nsec;
}

/* ---- what is run ---- */
typedef struct bench {
  unroll_context *ctx;
  unroll_device *device;
  unroll_graph *g;
  unroll_executable *e;
  unroll_binding *b;
} bench;

static bench open_on(const char *plugin, const unroll_allocator *allocator) {
  bench x = {.ctx = runs_context(allocator, &seen)};
  if (!runs_have(x.ctx, plugin)) {
    unroll_context_destroy(x.ctx);
    skip();
  }
  /* By steps: what a launch for many steps is told as has a test of its own. */
  x.device = runs_device(x.ctx, plugin, strcmp(plugin, "opencl") == 0 ? "recurrence=scan" : NULL, NULL);
  return x;
}

static void bind_it(bench *x, unroll_graph *g) {
  unroll_error err = UNROLL_ERROR_INIT;
  x->g = g;
  assert_status(UNROLL_OK, unroll_compile(g, &x->device, 1, NULL, &x->e, &err));
  assert_status(UNROLL_OK, unroll_binding_create(x->e, &x->b, &err));
}

static void close_it(bench *x) {
  unroll_binding_destroy(x->b);
  unroll_executable_destroy(x->e);
  unroll_graph_destroy(x->g);
  unroll_device_close(x->device);
  unroll_context_destroy(x->ctx);
}

/* A layer of LSTM, alone; nothing of it is a gradient. */
static unroll_graph *lstm_graph(int64_t T, int32_t direction) {
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_graph *g;
  assert_status(UNROLL_OK, unroll_graph_create(NULL, &g, &err));
  const unroll_layer_inputs in = {.x = unroll_input(g, "x", UNROLL_F32, 3, (int64_t[]){T, 2, 3}),
                                  .W_x = unroll_param(g, "W_x", UNROLL_F32, 2, (int64_t[]){16, 3}),
                                  .W_h = unroll_param(g, "W_h", UNROLL_F32, 2, (int64_t[]){16, 4}),
                                  .b = unroll_param(g, "b", UNROLL_F32, 1, (int64_t[]){16})};
  const unroll_layer_attr attr = {.cell = UNROLL_CELL_LSTM, .direction = direction, .activation = UNROLL_TANH};
  unroll_output(unroll_layer(&in, &attr, 3).y, "y");
  assert_status(UNROLL_OK, unroll_graph_status(g, &err));
  return g;
}

static const training lesson = {.T = 7,
                                .B = 3,
                                .I = 4,
                                .H = 5,
                                .V = 6,
                                .dtype = UNROLL_F32,
                                .cell = UNROLL_CELL_LSTM,
                                .layers = 2,
                                .lengths = true};

/* ---- tests ---- */
static void steps_of_a_layer_are_told(void **state) {
  enum { T = 9 };
  for (int32_t direction = UNROLL_FORWARD; direction <= UNROLL_REVERSE; direction++) {
    unroll_error err = UNROLL_ERROR_INIT;
    bench x = open_on(*state, NULL);
    bind_it(&x, lstm_graph(T, direction));
    assert_status(UNROLL_OK, unroll_binding_profile(x.b, 1, &err));
    assert_status(UNROLL_OK, unroll_run(x.b, NULL, &err)); /* kernels are built */
    seen_list l = read_all(x.b);
    drop(&l);
    const uint64_t before = now();
    assert_status(UNROLL_OK, unroll_run(x.b, NULL, &err));
    assert_status(UNROLL_OK, unroll_binding_sync(x.b, &err));
    const uint64_t after = now();
    l = read_all(x.b);
    const uint64_t slack = strcmp(*state, "cpu") == 0 ? 0 : CLOCK_SLACK_NS;
    uint64_t last = 0, busy = 0;
    int64_t step = 0;
    for (size_t i = 0; i < l.n; i++) {
      const unroll_profile_entry *e = &l.of[i].e;
      assert_true(e->begin_ns + slack >= before && e->end_ns <= after + slack);
      assert_true(e->begin_ns >= last && e->end_ns >= e->begin_ns);
      last = e->begin_ns;
      busy += e->end_ns - e->begin_ns;
      assert_string_equal(l.of[i].device, unroll_device_id(x.device));
      assert_true(l.of[i].label[0] != 0);
      if (e->op == 0) {
        assert_true(e->bytes > 0);
        continue;
      }
      assert_int_equal(e->bytes, 0);
      assert_true(e->t >= 0 && e->t < T);
      if (strcmp(l.of[i].op, "lstm_gates") == 0) {
        assert_int_equal(e->op, UNROLL_OP_LSTM_GATES);
        assert_int_equal(e->t, direction == UNROLL_FORWARD ? step : T - 1 - step);
        assert_int_equal(e->count, 1);
        assert_int_equal(e->layer, 3);
        assert_int_equal(e->direction, direction);
        assert_true(strncmp(l.of[i].scan, "scan_", 5) == 0);
        step++;
      }
    }
    assert_int_equal(step, T);
    assert_true(busy <= after - before);
    assert_int_equal(count_op(&l, "matmul"), T + 1);
    drop(&l);
    l = read_all(x.b); /* what was read is forgotten */
    assert_int_equal(l.n, 0);
    drop(&l);
    close_it(&x);
  }
}

/* One span per node and step: the reference has nothing else to do. */
static void the_reference_has_a_span_per_node(void **state) {
  (void)state;
  enum { T = 5 };
  unroll_error err = UNROLL_ERROR_INIT;
  bench x = open_on("cpu", NULL);
  bind_it(&x, lstm_graph(T, UNROLL_FORWARD));
  assert_status(UNROLL_OK, unroll_binding_profile(x.b, 1, &err));
  assert_status(UNROLL_OK, unroll_run(x.b, NULL, &err));
  seen_list l = read_all(x.b);
  for (size_t i = 0; i < l.n; i++) {
    if (!l.of[i].e.op)
      continue;
    assert_string_equal(l.of[i].label, l.of[i].op);
    size_t same = 0;
    for (size_t k = 0; k < l.n; k++)
      if (l.of[k].e.op && strcmp(l.of[k].node, l.of[i].node) == 0 && strcmp(l.of[k].scan, l.of[i].scan) == 0 &&
          l.of[k].e.t == l.of[i].e.t)
        same++;
    assert_int_equal(same, 1);
  }
  assert_int_equal(count_op(&l, "lstm_gates"), T);
  drop(&l);
  close_it(&x);
}

/* Spans of a whole layer are the node's, however many steps a launch has. */
static void launches_of_a_layer_are_told(void **state) {
  (void)state;
  enum { T = 7 };
  static const char *const ways[] = {"recurrence=sequence", "recurrence=step"};
  for (int way = 0; way < 2; way++) {
    unroll_error err = UNROLL_ERROR_INIT;
    bench x = open_on("opencl", NULL);
    unroll_device_close(x.device);
    x.device = runs_device(x.ctx, "opencl", ways[way], NULL);
    bind_it(&x, lstm_graph(T, UNROLL_REVERSE));
    assert_status(UNROLL_OK, unroll_binding_profile(x.b, 1, &err));
    assert_status(UNROLL_OK, unroll_run(x.b, NULL, &err));
    seen_list l = read_all(x.b);
    size_t steps = 0;
    for (size_t i = 0; i < l.n; i++)
      if (strcmp(l.of[i].label, "forward") == 0) {
        assert_string_equal(l.of[i].op, "layer");
        assert_int_equal(l.of[i].e.t, 0);
        assert_int_equal(l.of[i].e.count, 1);
        steps++;
      }
    assert_int_equal(steps, way == 0 ? 1 : T);
    drop(&l);
    close_it(&x);
  }
}

static void timing_changes_no_bit(void **state) {
  unroll_error err = UNROLL_ERROR_INIT;
  bench x = open_on(*state, NULL);
  bind_it(&x, runs_training(&lesson));
  results want = runs_all(x.g, &x.device, 1, NULL, &lesson, 3);
  runs_fill(x.g, x.b, &lesson);
  for (int i = 0; i < 3; i++) {
    assert_status(UNROLL_OK, unroll_binding_profile(x.b, i != 1, &err)); /* on, off, on */
    assert_status(UNROLL_OK, unroll_run(x.b, NULL, &err));
  }
  seen_list l = read_all(x.b);
  assert_true(count_op(&l, "lstm_gates_grad") == (size_t)(lesson.T * lesson.layers));
  drop(&l);
  results got = runs_read(x.g, x.b);
  assert_same(&got, &want);
  results_free(&got);
  results_free(&want);
  close_it(&x);
}

static void plain_queues_tell_nothing(void **state) {
  unroll_error err = UNROLL_ERROR_INIT;
  bench x = open_on(*state, NULL);
  bind_it(&x, lstm_graph(2, UNROLL_FORWARD));
  assert_status(UNROLL_E_STATE, unroll_binding_profile_read(x.b, note, NULL, &err));
  assert_status(UNROLL_E_INVALID, unroll_binding_profile_read(x.b, NULL, NULL, &err));
  assert_status(UNROLL_OK, unroll_binding_profile(x.b, 0, &err));
  assert_status(UNROLL_OK, unroll_binding_profile(x.b, 1, &err));
  assert_status(UNROLL_OK, unroll_binding_profile(x.b, 1, &err));
  assert_status(UNROLL_OK, unroll_run(x.b, NULL, &err));
  assert_status(UNROLL_OK, unroll_binding_profile(x.b, 0, &err));
  assert_status(UNROLL_OK, unroll_run(x.b, NULL, &err));
  assert_status(UNROLL_E_STATE, unroll_binding_profile_read(x.b, note, NULL, &err));
  const unroll_profile *p = x.device->ops->extension(x.device->plugin.backend, UNROLL_PROFILE_ID);
  assert_non_null(p);
  assert_null(x.device->ops->extension(x.device->plugin.backend, "unroll.profile/0"));
  assert_status(UNROLL_E_STATE, p->spans(binding_queue(x.b, 0), NULL, NULL, &err));
  close_it(&x);
}

/* A product by CLBlast is several launches, of which nothing is known but what stands before and after: one span. */
static void foreign_products_are_told(void **state) {
  (void)state;
  enum { T = 3 };
  unroll_error err = UNROLL_ERROR_INIT;
  bench x = open_on("opencl", NULL);
  unroll_device_close(x.device);
  x.device = runs_device(x.ctx, "opencl", "product=clblast", "recurrence=scan", NULL);
  bind_it(&x, lstm_graph(T, UNROLL_FORWARD));
  assert_status(UNROLL_OK, unroll_binding_profile(x.b, 1, &err));
  assert_status(UNROLL_OK, unroll_run(x.b, NULL, &err));
  seen_list l = read_all(x.b);
  size_t n = 0;
  for (size_t i = 0; i < l.n; i++) {
    if (strcmp(l.of[i].label, "CLBlast") != 0)
      continue;
    n++;
    assert_string_equal(l.of[i].op, "matmul");
    assert_true(l.of[i].e.end_ns > l.of[i].e.begin_ns);
    if (i + 1 < l.n)
      assert_true(l.of[i].e.end_ns <= l.of[i + 1].e.begin_ns);
  }
  assert_int_equal(n, T + 1);
  drop(&l);
  close_it(&x);
}

/* ---- at the backend's own door: transfers ---- */
typedef struct transfers {
  const char *label[8];
  uint64_t bytes[8];
  uint32_t n;
} transfers;

static void note_transfer(void *ctx, const unroll_profile_span *s) {
  transfers *t = ctx;
  assert_true(t->n < 8);
  assert_int_equal(s->node, UNROLL_NO_NODE);
  assert_null(s->binding);
  assert_int_equal(s->count, 1);
  assert_true(s->end_ns >= s->begin_ns);
  t->label[t->n] = s->label;
  t->bytes[t->n++] = s->bytes;
}

static void transfers_are_told(void **state) {
  static const char *const labels[] = {"write", "copy", "fill", "read"};
  static const uint64_t bytes[] = {100, 40, 7, 60};
  unroll_error err = UNROLL_ERROR_INIT;
  bench x = open_on(*state, NULL);
  const unroll_backend_ops *ops = x.device->ops;
  const unroll_profile *p = ops->extension(x.device->plugin.backend, UNROLL_PROFILE_ID);
  unroll_backend_queue *q = NULL;
  unroll_backend_buffer *a = NULL;
  char data[100] = {1};
  assert_status(UNROLL_OK, ops->queue_create(x.device->handle, UNROLL_QUEUE_PROFILE, &q, &err));
  assert_status(UNROLL_OK, ops->buffer_create(x.device->handle, 200, 0, &a, &err));
  for (int round = 0; round < 2; round++) {
    assert_status(UNROLL_OK, ops->write(q, a, 0, data, 100, NULL, &err));
    assert_status(UNROLL_OK, ops->copy(q, a, 100, a, 0, 40, NULL, &err));
    assert_status(UNROLL_OK, ops->fill(q, a, 150, 7, 3, NULL, &err));
    assert_status(UNROLL_OK, ops->read(q, a, 20, data, 60, NULL, &err));
    assert_status(UNROLL_OK, ops->read(q, a, 20, data, 0, NULL, &err)); /* nothing was done */
    transfers t = {.n = 0};
    assert_status(UNROLL_OK, p->spans(q, note_transfer, &t, &err));
    assert_int_equal(t.n, 4);
    for (uint32_t i = 0; i < 4; i++) {
      assert_string_equal(t.label[i], labels[i]);
      assert_int_equal(t.bytes[i], bytes[i]);
    }
  }
  ops->buffer_destroy(a);
  ops->queue_destroy(q);
  close_it(&x);
}

/* The node is counted in the view that was compiled, where the reference leaves out what nobody reads. */
static void note_node(void *ctx, const unroll_profile_span *s) {
  uint32_t *at = ctx;
  assert_int_equal(*at, UNROLL_NO_NODE);
  *at = s->node;
  assert_string_equal(s->label, "unary");
}

static void nodes_are_those_of_the_view(void **state) {
  (void)state;
  unroll_error err = UNROLL_ERROR_INIT;
  bench x = open_on("cpu", NULL);
  const unroll_backend_ops *ops = x.device->ops;
  const unroll_unary_attr relu = {UNROLL_RELU, 0};
  const unroll_tensor_view tensors[2] = {
      {.dtype = UNROLL_F32, .rank = 1, .alias = -1, .shape = {4}, .stride = {1}, .dim = {-1, -1, -1, -1}, .name = "x"},
      {.dtype = UNROLL_F32,
       .rank = 1,
       .alias = -1,
       .shape = {4},
       .stride = {1},
       .dim = {-1, -1, -1, -1},
       .name = "y",
       .slot = 1}};
  const uint32_t edges[] = {0, UNROLL_NO_TENSOR, 0, 1};
  const unroll_node_view nodes[2] = {{.op = UNROLL_OP_UNARY,
                                      .first_in = 0,
                                      .n_in = 1,
                                      .first_out = 1,
                                      .n_out = 1,
                                      .attr = &relu,
                                      .attr_size = sizeof relu,
                                      .name = "unread"},
                                     {.op = UNROLL_OP_UNARY,
                                      .first_in = 2,
                                      .n_in = 1,
                                      .first_out = 3,
                                      .n_out = 1,
                                      .attr = &relu,
                                      .attr_size = sizeof relu,
                                      .name = "read"}};
  const unroll_graph_view view = {.struct_size = sizeof view,
                                  .node_stride = sizeof nodes[0],
                                  .tensor_stride = sizeof tensors[0],
                                  .n_nodes = 2,
                                  .n_tensors = 2,
                                  .n_edges = 4,
                                  .n_slots = 2,
                                  .nodes = nodes,
                                  .tensors = tensors,
                                  .edges = edges};
  unroll_backend_queue *q = NULL;
  unroll_backend_buffer *buffer = NULL;
  unroll_backend_exec *exec = NULL;
  unroll_backend_binding *binding = NULL;
  assert_status(UNROLL_OK, ops->queue_create(x.device->handle, UNROLL_QUEUE_PROFILE, &q, &err));
  assert_status(UNROLL_OK, ops->buffer_create(x.device->handle, 32, 0, &buffer, &err));
  assert_status(UNROLL_OK, ops->compile(x.device->handle, &view, NULL, 0, &exec, &err));
  const unroll_slot slots[2] = {{sizeof slots[0], 0, buffer, 0, 16}, {sizeof slots[0], 0, buffer, 16, 16}};
  assert_status(UNROLL_OK, ops->bind(exec, slots, 2, sizeof slots[0], NULL, 0, &binding, &err));
  const unroll_run_args args = {.struct_size = sizeof args, .count = 1};
  assert_status(UNROLL_OK, ops->run(binding, q, &args, NULL, &err));
  const unroll_profile *p = ops->extension(x.device->plugin.backend, UNROLL_PROFILE_ID);
  uint32_t at = UNROLL_NO_NODE;
  assert_status(UNROLL_OK, p->spans(q, note_node, &at, &err));
  assert_int_equal(at, 1);
  ops->binding_destroy(binding);
  ops->exec_destroy(exec);
  ops->buffer_destroy(buffer);
  ops->queue_destroy(q);
  close_it(&x);
}

/* ---- what can go wrong ---- */
static void a_run_without_memory_can_be_repeated(void **state) {
  unroll_error err = UNROLL_ERROR_INIT;
  run_memory memory = {.live = 0};
  const unroll_allocator allocator = runs_allocator(&memory);
  bench x = open_on(*state, &allocator);
  bind_it(&x, lstm_graph(9, UNROLL_FORWARD));
  assert_status(UNROLL_OK, unroll_run(x.b, NULL, &err));
  assert_status(UNROLL_OK, unroll_binding_sync(x.b, &err));
  for (int failed = 0;; failed++) {
    memory.fail_at = memory.calls + 1 + failed;
    const unroll_status st = unroll_binding_profile(x.b, 1, &err);
    if (st == UNROLL_OK)
      break;
    assert_int_equal(st, UNROLL_E_MEMORY);
    assert_status(UNROLL_E_STATE, unroll_binding_profile_read(x.b, note, NULL, &err));
    assert_status(UNROLL_OK, unroll_run(x.b, NULL, &err));
  }
  memory.fail_at = memory.calls + 1; /* room for the spans of the first run */
  assert_status(UNROLL_E_MEMORY, unroll_run(x.b, NULL, &err));
  seen_list l = read_all(x.b);
  drop(&l);
  assert_status(UNROLL_OK, unroll_run(x.b, NULL, &err));
  l = read_all(x.b);
  assert_int_equal(count_op(&l, "lstm_gates"), 9);
  drop(&l);
  close_it(&x);
  assert_int_equal(memory.live, 0);
}

static void devices_that_cannot_time_are_named(void **state) {
  unroll_error err = UNROLL_ERROR_INIT;
  bench x = open_on(*state, NULL);
  bind_it(&x, lstm_graph(2, UNROLL_FORWARD));
  unroll_backend_ops blind = *x.device->ops;
  const unroll_backend_ops *seeing = x.device->ops;
  blind.extension = NULL;
  x.device->ops = &blind;
  assert_status(UNROLL_E_UNSUPPORTED, unroll_binding_profile(x.b, 1, &err));
  assert_non_null(strstr(err.message, unroll_device_id(x.device)));
  assert_int_equal(log_count(&seen, "cannot time"), 1);
  assert_status(UNROLL_E_STATE, unroll_binding_profile_read(x.b, note, NULL, &err));
  x.device->ops = seeing;
  close_it(&x);
}

/* More than the events that OpenCL's queue keeps at once. */
static void long_runs_are_told_whole(void **state) {
  enum { T = 12000 };
  unroll_error err = UNROLL_ERROR_INIT;
  bench x = open_on(*state, NULL);
  bind_it(&x, lstm_graph(T, UNROLL_FORWARD));
  assert_status(UNROLL_OK, unroll_binding_profile(x.b, 1, &err));
  for (int run = 0; run < 2; run++) {
    assert_status(UNROLL_OK, unroll_run(x.b, NULL, &err));
    seen_list l = read_all(x.b);
    int64_t step = 0;
    uint64_t last = 0;
    for (size_t i = 0; i < l.n; i++) {
      assert_true(l.of[i].e.begin_ns >= last);
      last = l.of[i].e.begin_ns;
      if (strcmp(l.of[i].op, "lstm_gates") == 0)
        assert_int_equal(l.of[i].e.t, step++);
    }
    assert_int_equal(step, T);
    drop(&l);
  }
  assert_status(UNROLL_OK, unroll_run(x.b, NULL, &err)); /* left unread */
  close_it(&x);
}

/* Two devices that both time; and two bindings with one queue, of which one asks. */
static void all_devices_and_sharers_are_timed(void **state) {
  (void)state;
  unroll_error err = UNROLL_ERROR_INIT;
  bench x = {.ctx = runs_context(NULL, &seen)};
  x.device = runs_device(x.ctx, "patchwork", "mask=lstm_gates", NULL);
  x.g = lstm_graph(4, UNROLL_FORWARD);
  const unroll_compile_options crossing = {.struct_size = sizeof crossing, .allow_step_crossing = 1};
  assert_status(UNROLL_OK, unroll_compile(x.g, &x.device, 1, &crossing, &x.e, &err));
  assert_status(UNROLL_OK, unroll_binding_create(x.e, &x.b, &err));
  assert_status(UNROLL_OK, unroll_binding_profile(x.b, 1, &err));
  assert_status(UNROLL_OK, unroll_run(x.b, NULL, &err));
  seen_list l = read_all(x.b);
  size_t copies = 0;
  bool second = false;
  for (size_t i = 0; i < l.n; i++) {
    const bool here = strcmp(l.of[i].device, "cpu:0") == 0;
    assert_true(here || !second); /* device by device */
    second = here;
    copies += l.of[i].e.bytes > 0;
    if (strcmp(l.of[i].op, "lstm_gates") == 0)
      assert_true(here);
    if (strcmp(l.of[i].op, "matmul") == 0)
      assert_false(here);
  }
  assert_int_equal(count_op(&l, "lstm_gates"), 4);
  assert_int_equal(count_op(&l, "matmul"), 5);
  assert_true(copies >= 2 * 4);
  drop(&l);
  unroll_binding *other;
  assert_status(UNROLL_OK, unroll_binding_create(x.e, &other, &err));
  assert_status(UNROLL_OK, unroll_binding_share(other, "W_x", x.b, "W_x", &err));
  assert_status(UNROLL_OK, unroll_run(other, NULL, &err));
  l = read_all(x.b);
  assert_true(l.n > 0);
  for (size_t i = 0; i < l.n; i++)
    assert_string_equal(l.of[i].node, "");
  drop(&l);
  unroll_binding_destroy(other);
  close_it(&x);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      DEVICE_TESTS(steps_of_a_layer_are_told),
      cmocka_unit_test(the_reference_has_a_span_per_node),
      cmocka_unit_test(launches_of_a_layer_are_told),
      DEVICE_TESTS(timing_changes_no_bit),
      DEVICE_TESTS(plain_queues_tell_nothing),
      cmocka_unit_test(foreign_products_are_told),
      DEVICE_TESTS(transfers_are_told),
      cmocka_unit_test(nodes_are_those_of_the_view),
      DEVICE_TESTS(a_run_without_memory_can_be_repeated),
      DEVICE_TESTS(devices_that_cannot_time_are_named),
      DEVICE_TESTS(long_runs_are_told_whole),
      cmocka_unit_test(all_devices_and_sharers_are_timed),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
