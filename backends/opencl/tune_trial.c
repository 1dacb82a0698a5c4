/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tune_trial.c: times splits of a layer, or ways to a product, on the device. A trial is the one node alone, in buffers of its own that hold
 * zeros, over few steps: what a step costs does not depend on values, nor on how many there are.
 */
#include "tune.h"
#include <string.h>
#include <time.h>

enum { LENGTHS_FORWARD = 7, LENGTHS_BACKWARD = 5, FIRST_STATE_GRADIENT = 5 }; /* edges of the two ops */

typedef struct bench { /* what the trials share */
  unroll_backend_device *device;
  unroll_backend_queue *queue;
  unroll_graph_view view;
  unroll_node_view node;
  unroll_matmul_attr attr;
  unroll_tensor_view *tensors;
  uint32_t *edges;
  unroll_slot *slots;
  uint64_t *generations;
  unroll_backend_buffer *workspace;
  unroll_error error;
} bench;

double tune_now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

/* The sums over all steps at once, which follow the recurrence, are no part of the choice. */
static bool left_out(const unroll_node_view *node, uint32_t edge) {
  return node->op == UNROLL_OP_LAYER_GRAD && edge >= node->n_in && edge - node->n_in < FIRST_STATE_GRADIENT;
}

static uint64_t bytes_of(const unroll_tensor_view *t) {
  uint64_t bytes = dtype_bytes(t->dtype);
  for (int32_t i = 0; i < t->rank; i++)
    bytes *= (uint64_t)t->shape[i];
  return bytes;
}

static unroll_status make_room(bench *b, uint32_t n) {
  const unroll_host *host = b->device->host;
  b->tensors = opencl_alloc(host, n, sizeof *b->tensors);
  b->edges = opencl_alloc(host, n, sizeof *b->edges);
  b->slots = opencl_alloc(host, n, sizeof *b->slots);
  b->generations = opencl_alloc(host, n, sizeof *b->generations);
  if (!b->tensors || !b->edges || !b->slots || !b->generations)
    return opencl_fail(&b->error, UNROLL_E_MEMORY, 0, "no memory for a trial");
  for (uint32_t i = 0; i < n; i++)
    b->generations[i] = 1;
  return UNROLL_OK;
}

/* Of the node, each of whose edges has a tensor and a slot of its own: the inputs, then the outputs. */
static void make_view(bench *b) {
  const uint32_t n = b->node.n_in + b->node.n_out;
  b->node.first_in = 0;
  b->node.first_out = b->node.n_in;
  b->view = (unroll_graph_view){.struct_size = sizeof b->view,
                                .node_stride = sizeof b->node,
                                .tensor_stride = sizeof *b->tensors,
                                .n_nodes = 1,
                                .n_tensors = n,
                                .n_edges = n,
                                .n_slots = n,
                                .n_in = b->node.n_in,
                                .first_out = b->node.n_in,
                                .n_out = b->node.n_out,
                                .nodes = &b->node,
                                .tensors = b->tensors,
                                .edges = b->edges};
}

static void place_tensor(unroll_tensor_view *t, uint32_t slot) {
  t->slot = slot;
  t->alias = -1;
  t->offset = 0;
  t->step = 0;
  t->period = 0;
  for (int32_t axis = 0; axis < UNROLL_MAX_RANK; axis++)
    t->dim[axis] = -1;
}

static unroll_status copy_node(bench *b, const plan *p, const layer *l, int64_t steps) {
  const uint32_t n = p->node->n_in + p->node->n_out;
  TRY(make_room(b, n));
  for (uint32_t i = 0; i < n; i++) {
    const uint32_t id = i < p->node->n_in ? plan_in(p, i) : plan_out(p, i - p->node->n_in);
    unroll_tensor_view *t = &b->tensors[i];
    b->edges[i] = id == UNROLL_NO_TENSOR || left_out(p->node, i) ? UNROLL_NO_TENSOR : i;
    *t = *plan_view(p, id == UNROLL_NO_TENSOR ? plan_in(p, 0) : id);
    place_tensor(t, i);
    if (t->rank == 3) /* x, y, dy and dx: time is their first axis */
      t->shape[0] = steps;
    else if (t->dtype == UNROLL_U8) /* of what is saved each step has its part, and one is left over */
      t->shape[0] = t->shape[0] / (l->max_t + 1) * (steps + 1) + l->max_t + 1;
  }
  b->node = *p->node;
  make_view(b);
  return UNROLL_OK;
}

static void make_matrix(bench *b, uint32_t i, int32_t dtype, int64_t rows, int64_t columns, bool turned) {
  b->edges[i] = i;
  b->tensors[i] = (unroll_tensor_view){.dtype = dtype,
                                       .rank = 2,
                                       .role = UNROLL_ROLE_INPUT,
                                       .shape = {turned ? columns : rows, turned ? rows : columns},
                                       .name = "trial"};
  b->tensors[i].stride[0] = b->tensors[i].shape[1];
  b->tensors[i].stride[1] = 1;
  place_tensor(&b->tensors[i], i);
}

static unroll_status make_product(bench *b, const plan *p, const gemm *g) {
  const int64_t m = extent_max(p, g->m), n = extent_max(p, g->n), k = extent_max(p, g->k);
  TRY(make_room(b, 3));
  make_matrix(b, 0, g->dtype, m, k, g->trans_a);
  make_matrix(b, 1, g->dtype, k, n, g->trans_b);
  make_matrix(b, 2, g->dtype, m, n, false);
  b->attr = (unroll_matmul_attr){.trans_a = g->trans_a, .trans_b = g->trans_b};
  b->node = (unroll_node_view){.op = UNROLL_OP_MATMUL,
                               .op_version = 1,
                               .n_in = 2,
                               .n_out = 1,
                               .layer = -1,
                               .direction = -1,
                               .attr = &b->attr,
                               .attr_size = sizeof b->attr,
                               .name = "trial"};
  make_view(b);
  return UNROLL_OK;
}

static unroll_status zeroed(bench *b, uint64_t bytes, unroll_backend_buffer **out) {
  TRY(buffer_create(b->device, bytes, 0, out, &b->error));
  return queue_fill(b->queue, *out, 0, bytes, 0, NULL, &b->error);
}

/* Every row has all steps. */
static unroll_status fill_lengths(bench *b, unroll_backend_buffer *lengths, int64_t B, int64_t steps) {
  int32_t *values = opencl_alloc(b->device->host, (size_t)B, sizeof *values);
  if (!values)
    return opencl_fail(&b->error, UNROLL_E_MEMORY, 0, "no memory for %lld lengths", (long long)B);
  for (int64_t row = 0; row < B; row++)
    values[row] = (int32_t)steps;
  unroll_status status = queue_write(b->queue, lengths, 0, values, (uint64_t)B * sizeof *values, NULL, &b->error);
  if (status == UNROLL_OK)
    status = queue_sync(b->queue, &b->error);
  opencl_free(b->device->host, values);
  return status;
}

static unroll_status fill_slots(bench *b, int64_t B, int64_t steps) {
  const uint32_t lengths = b->node.op == UNROLL_OP_LAYER        ? LENGTHS_FORWARD
                           : b->node.op == UNROLL_OP_LAYER_GRAD ? LENGTHS_BACKWARD
                                                                : UNROLL_NO_TENSOR;
  for (uint32_t i = 0; i < b->view.n_slots; i++) {
    if (b->edges[i] == UNROLL_NO_TENSOR)
      continue;
    const uint64_t bytes = bytes_of(&b->tensors[i]);
    b->slots[i] = (unroll_slot){.struct_size = sizeof *b->slots, .bytes = bytes};
    TRY(zeroed(b, bytes, &b->slots[i].buffer));
    if (i == lengths && i < b->node.n_in)
      TRY(fill_lengths(b, b->slots[i].buffer, B, steps));
  }
  return UNROLL_OK;
}

/* ns of a run, or less than 0. */
static double time_run(bench *b, unroll_backend_binding *binding) {
  const unroll_run_args run = {.struct_size = sizeof run, .generations = b->generations};
  const double start = tune_now();
  if (binding_run(binding, b->queue, &run, NULL, &b->error) != UNROLL_OK ||
      queue_sync(b->queue, &b->error) != UNROLL_OK)
    return -1;
  return tune_now() - start;
}

/* Compiles, binds and runs once what time allows: kernels are built by the first run. */
static void build(bench *b, tune_trial *trials, uint32_t n, const tune_limits *limits) {
  const double start = tune_now();
  uint64_t workspace = 0;
  for (uint32_t i = 0; i < n; i++)
    trials[i].failed = true;
  for (uint32_t i = 0; i < n && (i == 0 || tune_now() - start < limits->building); i++) {
    const trial_choice choice = {.split = b->node.op == UNROLL_OP_MATMUL ? NULL : &trials[i].split,
                                 .product = trials[i].product};
    unroll_exec_info info = {.struct_size = sizeof info};
    if (exec_compile_trial(b->device, &b->view, &choice, &trials[i].exec, &b->error) == UNROLL_OK &&
        exec_info(trials[i].exec, &info, &b->error) == UNROLL_OK && info.workspace_bytes > workspace)
      workspace = info.workspace_bytes;
  }
  if (workspace && zeroed(b, workspace, &b->workspace) != UNROLL_OK)
    return;
  for (uint32_t i = 0; i < n; i++) {
    if (!trials[i].exec || (i > 0 && tune_now() - start > limits->building))
      continue;
    if (exec_bind(trials[i].exec, b->slots, b->view.n_slots, sizeof *b->slots, b->workspace, 0, &trials[i].binding,
                  &b->error) == UNROLL_OK)
      trials[i].failed = time_run(b, trials[i].binding) < 0;
  }
}

/* The mean of the quickest quarter: the quickest one alone may be luck, and the others met what else the machine did. */
static double typical(const tune_trial *t) {
  double runs[TUNE_RUNS], sum = 0;
  uint32_t n = 0;
  for (uint32_t i = 0; i < t->n_runs; i++) {
    uint32_t at = n++;
    for (; at > 0 && runs[at - 1] > t->runs[i]; at--)
      runs[at] = runs[at - 1];
    runs[at] = t->runs[i];
  }
  const uint32_t quarter = (n + 3) / 4;
  for (uint32_t i = 0; i < quarter; i++)
    sum += runs[i];
  return quarter ? sum / quarter : 0;
}

/* In turns, so that what else the machine does meets all of them; those far behind are given up. */
static void race(bench *b, tune_trial *trials, uint32_t n, const tune_limits *limits) {
  const double start = tune_now();
  for (int round = 0; round < limits->rounds && tune_now() - start < limits->timing; round++) {
    double least = 0;
    for (uint32_t i = 0; i < n; i++) {
      trials[i].best = trials[i].failed ? 0 : typical(&trials[i]);
      least = trials[i].best > 0 && (least <= 0 || trials[i].best < least) ? trials[i].best : least;
    }
    for (uint32_t i = 0; i < n; i++) {
      tune_trial *t = &trials[i];
      if (t->failed || (i > 0 && round > 3 && t->best > 1.4 * least))
        continue;
      const double ns = time_run(b, t->binding);
      t->failed = ns < 0;
      if (!t->failed && t->n_runs < TUNE_RUNS)
        t->runs[t->n_runs++] = ns;
    }
  }
  for (uint32_t i = 0; i < n; i++)
    trials[i].best = trials[i].failed ? 0 : typical(&trials[i]) / (double)limits->steps;
}

static void clean(bench *b, tune_trial *trials, uint32_t n) {
  const unroll_host *host = b->device->host;
  for (uint32_t i = 0; i < n; i++) {
    binding_destroy(trials[i].binding);
    exec_destroy(trials[i].exec);
    trials[i].binding = NULL;
    trials[i].exec = NULL;
  }
  for (uint32_t i = 0; b->slots && i < b->view.n_slots; i++)
    buffer_destroy(b->slots[i].buffer);
  buffer_destroy(b->workspace);
  queue_destroy(b->queue);
  opencl_free(host, b->tensors);
  opencl_free(host, b->edges);
  opencl_free(host, b->slots);
  opencl_free(host, b->generations);
}

static unroll_status open_bench(bench *b, const plan *p) {
  *b = (bench){.device = p->device, .error = {.struct_size = sizeof b->error}};
  return queue_create(p->device, 0, &b->queue, &b->error);
}

/* status: whether the bench has its node. */
static void run_trials(bench *b, const plan *p, unroll_status status, int64_t B, tune_trial *trials, uint32_t n,
                       const tune_limits *limits) {
  if (status == UNROLL_OK)
    status = fill_slots(b, B, limits->steps);
  if (status == UNROLL_OK) {
    build(b, trials, n, limits);
    race(b, trials, n, limits);
  }
  if (b->error.code != UNROLL_OK)
    opencl_log(p->device->host, UNROLL_LOG_DEBUG, "opencl: tuning: %s: a trial failed: %s", p->node->name,
               b->error.message);
  clean(b, trials, n);
}

void tune_time(plan *p, const layer *l, tune_trial *trials, uint32_t n, const tune_limits *limits) {
  bench b;
  unroll_status status = open_bench(&b, p);
  if (status == UNROLL_OK)
    status = copy_node(&b, p, l, limits->steps);
  run_trials(&b, p, status, l->B, trials, n, limits);
}

void tune_time_product(plan *p, const gemm *g, tune_trial *trials, uint32_t n, const tune_limits *limits) {
  bench b;
  unroll_status status = open_bench(&b, p);
  if (status == UNROLL_OK)
    status = make_product(&b, p, g);
  run_trials(&b, p, status, 0, trials, n, limits);
}
