/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Gradient checkpointing: plans against published counts and against all plans that there are; results and gradients
 * bit by bit against those without; steps that really ran and bytes that were really planned against what the plan
 * said; errors. tests/layers_golden_test.c compares what is the same without it with PyTorch.
 */
#include "devices.h"
#include "runtime/runtime_private.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unroll/checkpoint.h>
#include <unroll/nn.h>

/* ---- plans ---- */
static unroll_checkpoint_plan_info plan_of(unroll_checkpoint_policy p, int64_t T, int64_t block, uint64_t state,
                                           uint64_t step) {
  unroll_error err = UNROLL_ERROR_INIT;
  p.struct_size = sizeof p;
  unroll_checkpoint_plan_info info = {.struct_size = sizeof info};
  const unroll_checkpoint_sizes z = {
      .struct_size = sizeof z, .steps = T, .block = block, .state_bytes = state, .step_bytes = step};
  assert_status(UNROLL_OK, unroll_checkpoint_plan(&p, &z, &info, &err));
  return info;
}

/* Segments of one step: with state_bytes 1 and step_bytes 1 << 40 a budget of 1 << 40 and 1 + m bytes is m states. */
static int64_t steps_with_states(int64_t T, int64_t m) {
  const uint64_t step = UINT64_C(1) << 40;
  const unroll_checkpoint_plan_info info = plan_of(
      (unroll_checkpoint_policy){.kind = UNROLL_CHECKPOINT_BYTES, .bytes = step + 1 + (uint64_t)m}, T, 1, 1, step);
  assert_int_equal(info.segment, 1);
  return info.forward_steps;
}

static void published_counts(void **state) {
  (void)state;
  static const struct { int64_t states, steps; } table[] = {{2, 29820}, {5, 7284}, {10, 4636}, {20, 3747}, {50, 2948}};
  for (size_t i = 0; i < sizeof table / sizeof *table; i++)
    assert_int_equal(steps_with_states(1000, table[i].states), table[i].steps);
  assert_int_equal(steps_with_states(100, 1), 100 * 101 / 2);
  assert_int_equal(steps_with_states(100, 99), 2 * 100 - 1);
  assert_int_equal(steps_with_states(100, 1000), 2 * 100 - 1);
}

enum { SMALL = 40 };
static void least_of_all_plans(void **state) {
  (void)state;
  int64_t C[SMALL + 1][SMALL + 1]; /* [t][m], by trying every y */
  for (int64_t m = 1; m <= SMALL; m++)
    for (int64_t t = 1; t <= SMALL; t++) {
      C[t][m] = t == 1 ? 1 : m == 1 ? t * (t + 1) / 2 : INT64_MAX;
      for (int64_t y = 1; y < t && m > 1; y++) {
        const int64_t cost = y + C[t - y][m - 1] + C[y][m];
        C[t][m] = cost < C[t][m] ? cost : C[t][m];
      }
      assert_int_equal(steps_with_states(t, m), C[t][m]);
    }
}

static void policies(void **state) {
  (void)state;
  unroll_checkpoint_plan_info p = plan_of((unroll_checkpoint_policy){.kind = UNROLL_CHECKPOINT_ALL}, 1000, 32, 2, 10);
  assert_int_equal(p.forward_steps, 1000);
  assert_int_equal(p.segments, 1);
  assert_int_equal(p.bytes, 1000 * 10 + 2);
  assert_int_equal(p.bytes, p.bytes_all);
  p = plan_of((unroll_checkpoint_policy){.kind = UNROLL_CHECKPOINT_EVERY, .every = 50}, 1000, 32, 2, 10);
  assert_int_equal(p.segment, 64); /* whole blocks */
  assert_int_equal(p.segments, 16);
  assert_int_equal(p.forward_steps,
                   1000 + 1000 - 72); /* 31 blocks and 8 steps; the last segment is 64 steps and these 8 */
  assert_int_equal(p.bytes, 72 * 10 + 2 + 15 * 2);
  p = plan_of((unroll_checkpoint_policy){.kind = UNROLL_CHECKPOINT_SQRT}, 1000, 1, 2, 10);
  assert_int_equal(p.segment, 32);
  assert_int_equal(p.segments, 32);
  /* What is less than a block goes with the segment before. */
  p = plan_of((unroll_checkpoint_policy){.kind = UNROLL_CHECKPOINT_EVERY, .every = 8}, 43, 8, 2, 10);
  assert_int_equal(p.segments, 5);
  assert_int_equal(p.bytes, 11 * 10 + 2 + 4 * 2);
  for (uint64_t bytes = 252; bytes < 12000; bytes += 117) {
    p = plan_of((unroll_checkpoint_policy){.kind = UNROLL_CHECKPOINT_BYTES, .bytes = bytes}, 1000, 16, 6, 10);
    assert_true(p.bytes <= bytes);
    assert_true(p.forward_steps >= 1000 && p.forward_steps <= 63 * 64 / 2 * 16);
  }
}

static void errors_of_plans(void **state) {
  (void)state;
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_checkpoint_policy p = {.struct_size = sizeof p, .kind = UNROLL_CHECKPOINT_BYTES, .bytes = 100};
  unroll_checkpoint_sizes z = {.struct_size = sizeof z, .steps = 1000, .block = 16, .state_bytes = 6, .step_bytes = 10};
  unroll_checkpoint_plan_info info = {.struct_size = sizeof info};
  assert_status(UNROLL_E_RANGE, unroll_checkpoint_plan(&p, &z, &info, &err));
  assert_non_null(strstr(err.message, "within 100 bytes: 1000 steps take at least 252")); /* 24 steps, two states */
  p.bytes = 252;
  assert_status(UNROLL_OK, unroll_checkpoint_plan(&p, &z, &info, &err));
  assert_int_equal(info.bytes, 252);
  p.kind = 9;
  assert_status(UNROLL_E_INVALID, unroll_checkpoint_plan(&p, &z, &info, &err));
  assert_non_null(strstr(err.message, "9 is no policy"));
  p = (unroll_checkpoint_policy){.struct_size = sizeof p, .kind = UNROLL_CHECKPOINT_EVERY};
  assert_status(UNROLL_E_RANGE, unroll_checkpoint_plan(&p, &z, &info, &err));
  assert_non_null(strstr(err.message, "every 0 steps"));
  z.steps = 0;
  assert_status(UNROLL_E_RANGE, unroll_checkpoint_plan(&p, &z, &info, &err));
  assert_status(UNROLL_E_INVALID, unroll_checkpoint_plan(NULL, &z, &info, &err));
  assert_status(UNROLL_E_INVALID, unroll_checkpoint_plan(&p, NULL, &info, &err));
  assert_status(UNROLL_E_INVALID, unroll_checkpoint_plan(&p, &z, NULL, &err));
}

/* ---- the same bits ---- */
typedef struct stack_case {
  int32_t cell, layers, bidirectional;
  bool ragged;
  double dropout;
  int64_t T, B, I, H;
  const unroll_rnn_options *others; /* options besides these, or NULL */
} stack_case;

static double number(uint32_t *seed) {
  *seed = *seed * 1664525u + 1013904223u;
  return ((double)(*seed >> 8) / 16777216.0 - 0.4) * 0.5;
}

static void put_numbers(model *m, const char *name, int64_t n, uint32_t *seed) {
  double *x = malloc((size_t)n * sizeof *x);
  assert_non_null(x);
  for (int64_t i = 0; i < n; i++)
    x[i] = number(seed);
  model_put(m, name, x, n);
  free(x);
}

static int64_t count(const unroll_tensor_info *t) {
  int64_t n = 1;
  for (int32_t i = 0; i < t->rank; i++)
    n *= t->shape[i];
  return n;
}

/* y, the last states, and the gradients of all parameters and inputs from what flows into y and the last state. */
static unroll_graph *stack_graph(const stack_case *c, int32_t dtype, const unroll_checkpoint_policy *policy) {
  unroll_graph *g;
  unroll_error err = UNROLL_ERROR_INIT;
  assert_status(UNROLL_OK, unroll_graph_create(NULL, &g, &err));
  const int32_t D = c->bidirectional ? 2 : 1;
  const bool has_c = c->cell == UNROLL_CELL_LSTM || c->cell == UNROLL_RNN_COUPLED_LSTM;
  const int64_t P = c->others && c->others->projection ? c->others->projection : c->H;
  const unroll_tensor x = unroll_input(g, "x", dtype, 3, (int64_t[]){c->T, c->B, c->I});
  unroll_tensor cells[8] = {{0}};
  unroll_tensor h0[8], c0[8], h[8] = {{0}}, cl[8] = {{0}}, y[2], dy[2], wrt[64], d[64];
  for (int32_t i = 0; i < c->layers * D; i++) {
    char name[32];
    snprintf(name, sizeof name, "h0.%d", i);
    h0[i] = unroll_input(g, name, dtype, 2, (int64_t[]){c->B, P});
    snprintf(name, sizeof name, "c0.%d", i);
    c0[i] = has_c ? unroll_input(g, name, dtype, 2, (int64_t[]){c->B, c->H}) : unroll_none();
  }
  unroll_rnn_options o = {.struct_size = sizeof o};
  if (c->others)
    o = *c->others;
  o.struct_size = sizeof o;
  o.cell = c->cell;
  o.layers = c->layers;
  o.hidden = c->H;
  o.bidirectional = c->bidirectional;
  o.dropout = c->dropout;
  o.lengths = c->ragged ? unroll_input(g, "lengths", UNROLL_I32, 1, &c->B) : unroll_none();
  o.checkpoint = policy;
  o.cells = o.cells ? cells : NULL;
  const unroll_rnn_state initial = {h0, c0};
  unroll_rnn_state last = {h, cl};
  y[0] = unroll_rnn(x, "rnn", &o, &initial, &last);
  y[1] = h[0];
  dy[0] = unroll_input(g, "dy", dtype, 3, (int64_t[]){c->T, c->B, P * D});
  dy[1] = unroll_input(g, "dh", dtype, 2, (int64_t[]){c->B, P});
  assert_status(UNROLL_OK, unroll_graph_status(g, &err));
  uint32_t n = 0;
  for (uint32_t i = 0; i < unroll_graph_count(g); i++) {
    const unroll_tensor t = unroll_graph_tensor(g, i);
    const unroll_tensor_info info = unroll_tensor_describe(t);
    if (info.dtype == dtype && strcmp(info.name, "dy") != 0 && strcmp(info.name, "dh") != 0)
      wrt[n++] = t;
  }
  unroll_vjp(y, dy, 2, wrt, n, d);
  unroll_output(y[0], "y");
  for (int32_t i = 0; i < c->layers * D; i++) {
    char name[32];
    snprintf(name, sizeof name, "h.%d", i);
    unroll_output(h[i], name);
    snprintf(name, sizeof name, "c.%d", i);
    if (o.cells)
      unroll_output(cells[i], name);
  }
  for (uint32_t i = 0; i < n; i++) {
    char name[64];
    snprintf(name, sizeof name, "d.%s", unroll_tensor_describe(wrt[i]).name);
    unroll_output(d[i], name);
  }
  assert_status(UNROLL_OK, unroll_graph_status(g, &err));
  return g;
}

/* Inputs and parameters have the same values by name in both. */
static void fill(model *m) {
  for (uint32_t i = 0; i < unroll_graph_count(m->graph); i++) {
    const unroll_tensor_info t = unroll_tensor_describe(unroll_graph_tensor(m->graph, i));
    uint32_t seed = 7;
    for (const char *p = t.name; *p; p++)
      seed = seed * 31 + (unsigned char)*p;
    if (t.role == UNROLL_ROLE_OUTPUT)
      continue;
    if (t.dtype == UNROLL_I32) {
      int32_t lengths[64];
      for (int32_t b = 0; b < t.shape[0]; b++)
        lengths[b] = b == 3 ? 0 : (int32_t)(1 + b * 7919 % 61);
      model_put_i32(m, t.name, lengths, t.shape[0]);
    } else
      put_numbers(m, t.name, count(&t), &seed);
  }
  m->options.seed = 5;
  m->options.update = 3;
  m->options.t0 = 11;
}

static void compare(unroll_graph *plain, unroll_graph *cut, unroll_device *dev, const char *what) {
  model a = model_open(plain, dev, true), b = model_open(cut, dev, true);
  fill(&a);
  fill(&b);
  model_run(&a);
  model_run(&b);
  for (uint32_t i = 0; i < unroll_graph_count(plain); i++) {
    const unroll_tensor_info t = unroll_tensor_describe(unroll_graph_tensor(plain, i));
    if (t.role != UNROLL_ROLE_OUTPUT)
      continue;
    const int64_t n = count(&t);
    double *x = model_get(&a, t.name, n), *y = model_get(&b, t.name, n), most = 0;
    for (int64_t k = 0; k < n; k++) {
      most = x[k] > most ? x[k] : most;
      if (memcmp(&x[k], &y[k], sizeof x[k]) != 0)
        fail_msg("%s on %s: %s[%lld] is %.9g, with checkpoints %.9g", what, unroll_device_id(dev), t.name, (long long)k,
                 x[k], y[k]);
    }
    assert_true(most > 0); /* it is no comparison of zeros */
    free(x);
    free(y);
  }
  model_close(&a);
  model_close(&b);
}

static void same_bits(const stack_case *c, unroll_device *dev, int32_t dtype, const unroll_checkpoint_policy *policy) {
  char what[128];
  snprintf(what, sizeof what, "cell %d, %d layers, %s%s, dropout %g, %s", c->cell, c->layers,
           c->bidirectional ? "two directions" : "forward", c->ragged ? ", ragged" : "", c->dropout,
           dtype == UNROLL_F64 ? "f64" : "f32");
  if (c->others)
    snprintf(what + strlen(what), sizeof what - strlen(what), ", options %d", (int)c->others->struct_size);
  unroll_graph *plain = stack_graph(c, dtype, NULL), *cut = stack_graph(c, dtype, policy);
  assert_true(cut->n_nodes > plain->n_nodes + 10);
  compare(plain, cut, dev, what);
  unroll_graph_destroy(plain);
  unroll_graph_destroy(cut);
}

static void stacks(void **state) {
  /* Batches of 37 and 64 rows: blocks of 14 and 8 steps, and a last one that is shorter. */
  static const stack_case cases[] = {
      {UNROLL_CELL_LSTM, 1, 0, false, 0, 61, 37, 13, 19, NULL},
      {UNROLL_CELL_LSTM, 2, 0, true, 0.3, 61, 37, 13, 19, NULL},
      {UNROLL_CELL_LSTM, 1, 1, true, 0, 61, 37, 13, 19, NULL},
      {UNROLL_CELL_GRU, 2, 0, true, 0.3, 61, 37, 13, 19, NULL},
      {UNROLL_CELL_GRU, 1, 1, false, 0, 61, 37, 13, 19, NULL},
      {UNROLL_CELL_GRU_AFTER, 2, 0, false, 0, 61, 37, 13, 19, NULL},
      {UNROLL_CELL_GRU_AFTER, 2, 1, true, 0.3, 61, 64, 5, 8, NULL},
      {UNROLL_CELL_RNN, 2, 0, true, 0, 61, 64, 5, 16, NULL},
      {UNROLL_CELL_RNN, 1, 1, false, 0, 61, 37, 13, 19, NULL},
  };
  const unroll_checkpoint_policy every = {.struct_size = sizeof every, .kind = UNROLL_CHECKPOINT_EVERY, .every = 1};
  FOR_EACH_DEVICE(dev, *state, UNROLL_F32)
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
      same_bits(&cases[i], dev, UNROLL_F32, &every);
}

/* Options that leave layers what they are, and options that make scans of them. struct_size is the number of a case. */
static void options(void **state) {
  unroll_tensor any;
  const unroll_rnn_options o[] = {
      {.struct_size = 0, .input_dropout = 0.2, .weight_dropout = 0.3, .same_mask = 1, .output_dropout = 0.1},
      {.struct_size = 1, .residual = UNROLL_RESIDUAL_OUTPUTS, .weight_dropout = 0.3},
      {.struct_size = 2, .residual = UNROLL_RESIDUAL_STATES, .skip = 0.3},
      {.struct_size = 3, .residual = UNROLL_RESIDUAL_STATES},
      {.struct_size = 4, .zoneout_h = 0.2, .zoneout_c = 0.1, .state_dropout = 0.2, .weight_dropout = 0.1},
      {.struct_size = 5, .layer_norm = 1, .peepholes = 1, .projection = 7, .cells = &any},
      {.struct_size = 6,
       .clip = 0.7,
       .cell_clip = 0.4,
       .f = {.kind = UNROLL_ACTIVATION_HARD_SIGMOID, .alpha = 0.2, .beta = 0.5}},
      {.struct_size = 7, .layer_norm = 1, .zoneout_h = 0.2},
      {.struct_size = 8, .f = {.kind = UNROLL_ACTIVATION_MODRELU}},
      {.struct_size = 9, .zoneout_h = 0.2, .state_dropout = 0.2},
      {.struct_size = 10, .zoneout_h = 0.2, .inference = 1},
  };
  const stack_case cases[] = {
      {UNROLL_CELL_LSTM, 2, 0, true, 0.3, 61, 37, 13, 19, &o[0]},
      {UNROLL_CELL_GRU, 2, 1, true, 0.3, 61, 37, 13, 19, &o[0]},
      {UNROLL_CELL_LSTM, 2, 0, true, 0.3, 61, 37, 9, 9, &o[1]},
      {UNROLL_CELL_GRU_AFTER, 2, 0, false, 0, 61, 37, 9, 9, &o[1]},
      {UNROLL_CELL_RNN, 2, 1, true, 0, 61, 37, 12, 6, &o[1]},
      {UNROLL_CELL_LSTM, 2, 0, true, 0, 61, 37, 9, 9, &o[2]},
      {UNROLL_CELL_LSTM, 2, 0, true, 0.3, 61, 37, 13, 9, &o[3]},
      {UNROLL_CELL_LSTM, 2, 0, true, 0.3, 61, 37, 13, 9, &o[4]},
      {UNROLL_CELL_LSTM, 1, 1, true, 0, 61, 37, 13, 9, &o[5]},
      {UNROLL_RNN_COUPLED_LSTM, 1, 0, true, 0, 61, 37, 13, 9, &o[6]},
      {UNROLL_CELL_GRU, 1, 1, true, 0, 61, 37, 13, 9, &o[7]},
      {UNROLL_CELL_GRU_AFTER, 1, 0, false, 0, 61, 37, 13, 9, &o[7]},
      {UNROLL_CELL_RNN, 2, 0, true, 0, 61, 37, 13, 9, &o[8]},
      {UNROLL_CELL_LSTM, 1, 1, true, 0, 61, 37, 13, 9, &o[4]},
      {UNROLL_CELL_RNN, 2, 0, true, 0.3, 61, 37, 13, 9, &o[9]},
      {UNROLL_CELL_GRU, 2, 0, true, 0.3, 61, 37, 13, 9, &o[9]},
      {UNROLL_CELL_GRU_AFTER, 1, 1, true, 0, 61, 37, 13, 9, &o[9]},
      {UNROLL_CELL_LSTM, 2, 0, true, 0, 61, 37, 13, 9, &o[10]},
  };
  const unroll_checkpoint_policy every = {.struct_size = sizeof every, .kind = UNROLL_CHECKPOINT_EVERY, .every = 1};
  FOR_EACH_DEVICE(dev, *state, UNROLL_F32)
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
      same_bits(&cases[i], dev, UNROLL_F32, &every);
}

/* Fewer states than segments: regions in regions. */
static void budgets(void **state) {
  const stack_case c = {UNROLL_CELL_LSTM, 2, 0, true, 0.3, 61, 64, 5, 8, NULL};
  const unroll_rnn_options o = {
      .struct_size = sizeof o, .cell = c.cell, .layers = 2, .hidden = c.H, .dropout = c.dropout};
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_checkpoint_sizes z = {.struct_size = sizeof z};
  assert_status(UNROLL_OK, unroll_rnn_checkpoint_sizes(&o, UNROLL_F32, c.T, c.B, 0, &z, &err));
  assert_int_equal(z.block, 8);
  assert_int_equal(z.state_bytes, 2 * 2 * 64 * 8 * 4);
  assert_int_equal(z.step_bytes, (2 * 6 + 2 + 4) * 64 * 8 * 4);
  FOR_EACH_DEVICE(dev, *state, UNROLL_F32)
    for (uint64_t states = 2; states <= 4; states++) {
      const unroll_checkpoint_policy p = {.struct_size = sizeof p,
                                          .kind = UNROLL_CHECKPOINT_BYTES,
                                          .bytes = 13 * z.step_bytes + states * z.state_bytes};
      same_bits(&c, dev, UNROLL_F32, &p);
    }
}

/* The kernels of GPUs, with each way of making products. */
static void as_a_gpu(void **state) {
  static const unroll_option ways[][3] = {{{"kernels", "gpu"}, {"product", "auto"}, {"recurrence", "layer"}},
                                          {{"kernels", "gpu"}, {"product", "tile"}, {"recurrence", "scan"}},
                                          {{"kernels", "gpu"}, {"precision", "half"}, {"matrix", "emulated"}},
                                          {{"kernels", "cpu"}, {"recurrence", "scan"}, {"concurrent", "on"}}};
  const stack_case cases[] = {{UNROLL_CELL_LSTM, 2, 0, true, 0.3, 40, 64, 13, 19, NULL},
                              {UNROLL_CELL_GRU, 1, 1, false, 0, 61, 37, 13, 19, NULL}};
  const unroll_checkpoint_policy every = {.struct_size = sizeof every, .kind = UNROLL_CHECKPOINT_EVERY, .every = 1};
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_context *ctx;
  if (!devices_next(*state, UNROLL_F32, NULL))
    skip();
  assert_status(UNROLL_OK, unroll_context_create(NULL, &ctx, &err));
  for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
    unroll_device *dev;
    assert_status(UNROLL_OK, unroll_device_open(ctx, "opencl", ways[i], 3, &dev, &err));
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++)
      same_bits(&cases[k], dev, UNROLL_F32, &every);
    unroll_device_close(dev);
  }
  unroll_context_destroy(ctx);
}

/* A device whose sums have no blocks leaves segments to others: what comes out is right, if not to the bit. */
static void left_to_others(void **state) {
  const stack_case c = {UNROLL_CELL_LSTM, 2, 0, true, 0, 61, 37, 13, 19, NULL};
  const unroll_checkpoint_policy every = {.struct_size = sizeof every, .kind = UNROLL_CHECKPOINT_EVERY, .every = 1};
  FOR_EACH_DEVICE(dev, *state, UNROLL_F32) {
    unroll_graph *plain = stack_graph(&c, UNROLL_F32, NULL), *cut = stack_graph(&c, UNROLL_F32, &every);
    model a = model_open(plain, dev, false), b = model_open(cut, dev, false);
    fill(&a);
    fill(&b);
    model_run(&a);
    model_run(&b);
    for (uint32_t i = 0; i < unroll_graph_count(plain); i++) {
      const unroll_tensor_info t = unroll_tensor_describe(unroll_graph_tensor(plain, i));
      if (t.role != UNROLL_ROLE_OUTPUT)
        continue;
      double *x = model_get(&a, t.name, count(&t)), *y = model_get(&b, t.name, count(&t));
      /* Sums of 61·37 products in f32, in two orders: some units of 2^-24 times the root of their number. */
      assert_close(t.name, y, x, count(&t), 1e-5);
      free(x);
      free(y);
    }
    for (uint32_t i = 0; i < b.exe->n_groups; i++)
      for (uint32_t k = 0; k < b.exe->groups[i].n_nodes; k++) {
        const node *n = &b.exe->groups[i].graph->nodes[b.exe->groups[i].nodes[k]];
        if (b.exe->devices.device[b.exe->groups[i].device] == dev)
          assert_false(n->op == UNROLL_OP_LAYER || n->op == UNROLL_OP_LAYER_GRAD);
      }
    model_close(&a);
    model_close(&b);
    unroll_graph_destroy(plain);
    unroll_graph_destroy(cut);
  }
}

static void doubles(void **state) {
  const stack_case c = {UNROLL_CELL_LSTM, 1, 1, true, 0, 61, 37, 13, 19, NULL};
  const unroll_checkpoint_policy every = {.struct_size = sizeof every, .kind = UNROLL_CHECKPOINT_SQRT};
  FOR_EACH_DEVICE(dev, *state, UNROLL_F64)
    same_bits(&c, dev, UNROLL_F64, &every);
}

/* A body of its own: a product, a bias, a diagonal weight, dropout and noise at each step, and a weight that is summed in a
 * carry. */
static unroll_graph *scan_graph(int32_t direction, bool ragged, const unroll_checkpoint_policy *policy) {
  enum { T = 61, B = 37, I = 5, H = 11 };
  unroll_graph *g;
  unroll_error err = UNROLL_ERROR_INIT;
  assert_status(UNROLL_OK, unroll_graph_create(NULL, &g, &err));
  const unroll_tensor x = unroll_input(g, "x", UNROLL_F32, 3, (int64_t[]){T, B, I});
  const unroll_tensor h0 = unroll_input(g, "h0", UNROLL_F32, 2, (int64_t[]){B, H});
  const unroll_tensor W = unroll_param(g, "W", UNROLL_F32, 2, (int64_t[]){H, H});
  const unroll_tensor V = unroll_param(g, "V", UNROLL_F32, 2, (int64_t[]){I, H});
  const unroll_tensor b = unroll_param(g, "b", UNROLL_F32, 1, (int64_t[]){H});
  const unroll_tensor diagonal = unroll_param(g, "diagonal", UNROLL_F32, 1, (int64_t[]){H});
  const unroll_tensor each = unroll_param(g, "each", UNROLL_F32, 2, (int64_t[]){B, H});
  const unroll_tensor dy = unroll_input(g, "dy", UNROLL_F32, 3, (int64_t[]){T, B, H});
  const unroll_tensor dh = unroll_input(g, "dh", UNROLL_F32, 2, (int64_t[]){B, H});
  const int64_t rows = B;
  unroll_scan *s =
      unroll_scan_begin(g, direction, ragged ? unroll_input(g, "lengths", UNROLL_I32, 1, &rows) : unroll_none());
  if (policy)
    unroll_scan_checkpoint(s, policy);
  const unroll_tensor x_t = unroll_scan_input(s, x), h = unroll_scan_carry(s, h0);
  const unroll_tensor product = unroll_matmul_add(unroll_dropout(h, 0.2), 0, W, 1, unroll_matmul_add(x_t, 0, V, 0, b));
  const unroll_tensor noise =
      unroll_random_step(unroll_scan_body(s), UNROLL_RANDOM_UNIFORM, UNROLL_F32, 2, (int64_t[]){B, H});
  const unroll_tensor sum = unroll_add(unroll_add(product, unroll_mul(diagonal, h)), unroll_mul(each, h));
  const unroll_tensor next = unroll_tanh(unroll_mul(sum, noise));
  unroll_scan_next(s, h, next);
  unroll_tensor y[2] = {unroll_scan_output(s, next), unroll_scan_last(s, h)};
  unroll_scan_end(s);
  const unroll_tensor wrt[] = {x, h0, W, V, b, diagonal, each}, flows[2] = {dy, dh};
  unroll_tensor d[7];
  /* V is used once more, so that the sums go on from something. */
  y[0] = unroll_add(y[0], unroll_matmul(x, V));
  unroll_vjp(y, flows, 2, wrt, 7, d);
  unroll_output(y[0], "y");
  unroll_output(y[1], "last");
  for (int i = 0; i < 7; i++) {
    char name[64];
    snprintf(name, sizeof name, "d.%s", unroll_tensor_describe(wrt[i]).name);
    unroll_output(d[i], name);
  }
  assert_status(UNROLL_OK, unroll_graph_status(g, &err));
  return g;
}

static void scans(void **state) {
  /* Blocks of 14 steps: five segments; with bytes, fewer states than that. */
  const unroll_checkpoint_policy p[] = {
      {.struct_size = sizeof *p, .kind = UNROLL_CHECKPOINT_EVERY, .every = 14},
      {.struct_size = sizeof *p, .kind = UNROLL_CHECKPOINT_BYTES, .bytes = 747328},
  };
  FOR_EACH_DEVICE(dev, *state, UNROLL_F32)
    for (int i = 0; i < 8; i++) {
      const int32_t direction = i & 1 ? UNROLL_REVERSE : UNROLL_FORWARD;
      unroll_graph *plain = scan_graph(direction, i >> 1 & 1, NULL),
                   *cut = scan_graph(direction, i >> 1 & 1, &p[i >> 2]);
      assert_true(cut->n_nodes > plain->n_nodes + 10);
      compare(plain, cut, dev, direction ? "a reverse scan" : "a scan");
      unroll_graph_destroy(plain);
      unroll_graph_destroy(cut);
    }
}

/* Regions by hand, one in another, around anything. */
static unroll_graph *region_graph(bool regions) {
  unroll_graph *g;
  unroll_error err = UNROLL_ERROR_INIT;
  assert_status(UNROLL_OK, unroll_graph_create(NULL, &g, &err));
  const unroll_tensor x = unroll_input(g, "x", UNROLL_F32, 3, (int64_t[]){6, 5, 7});
  const unroll_rnn_options o = {.struct_size = sizeof o, .cell = UNROLL_CELL_GRU, .layers = 1, .hidden = 7};
  unroll_tensor y = x, wrt[16], d[16];
  for (int i = 0; i < 3; i++) {
    char name[16];
    snprintf(name, sizeof name, "block%d", i);
    if (regions)
      unroll_checkpoint_begin(g);
    unroll_tensor inner = unroll_tanh(unroll_linear(y, name, 7, 1));
    if (regions)
      unroll_checkpoint_begin(g);
    inner = unroll_dropout(unroll_rnn(inner, name, &o, NULL, NULL), 0.25);
    if (regions)
      unroll_checkpoint_end(g);
    const unroll_tensor noise = unroll_random(g, UNROLL_RANDOM_UNIFORM, UNROLL_F32, 3, (int64_t[]){6, 5, 7});
    const unroll_tensor one = unroll_random_step(g, UNROLL_RANDOM_NORMAL, UNROLL_F32, 2, (int64_t[]){5, 7});
    y = unroll_add(y, unroll_mul(unroll_mul(inner, unroll_add(noise, one)), inner));
    if (regions)
      unroll_checkpoint_end(g);
  }
  const unroll_tensor dy = unroll_input(g, "dy", UNROLL_F32, 3, (int64_t[]){6, 5, 7});
  uint32_t n = 0;
  for (uint32_t i = 0; i < unroll_graph_count(g); i++)
    if (strcmp(unroll_tensor_describe(unroll_graph_tensor(g, i)).name, "dy") != 0)
      wrt[n++] = unroll_graph_tensor(g, i);
  assert_int_equal(n, 16);
  unroll_vjp(&y, &dy, 1, wrt, n, d);
  unroll_output(y, "y");
  for (uint32_t i = 0; i < n; i++) {
    char name[64];
    snprintf(name, sizeof name, "d.%s", unroll_tensor_describe(wrt[i]).name);
    unroll_output(d[i], name);
  }
  assert_status(UNROLL_OK, unroll_graph_status(g, &err));
  return g;
}

static void regions(void **state) {
  FOR_EACH_DEVICE(dev, *state, UNROLL_F32) {
    unroll_graph *plain = region_graph(false), *cut = region_graph(true);
    compare(plain, cut, dev, "regions");
    unroll_graph_destroy(plain);
    unroll_graph_destroy(cut);
  }
}

/* ---- what was predicted ---- */
static void count_steps(void *ctx, const unroll_profile_entry *e) {
  if (e->op == UNROLL_OP_LSTM_GATES)
    *(int64_t *)ctx += e->count;
}

static void predicted_steps_and_bytes(void **state) {
  enum { T = 200, B = 64, I = 16, H = 32 }; /* blocks of 8 steps */
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_rnn_options o = {.struct_size = sizeof o, .cell = UNROLL_CELL_LSTM, .layers = 1, .hidden = H};
  unroll_checkpoint_sizes z = {.struct_size = sizeof z};
  assert_status(UNROLL_OK, unroll_rnn_checkpoint_sizes(&o, UNROLL_F32, T, B, 0, &z, &err));
  const uint64_t saved = (uint64_t)T * 6 * B * H * 4;
  FOR_EACH_DEVICE(dev, *state, UNROLL_F32)
    for (int budget = 0; budget < 4; budget++) {
      static const double parts[] = {1, 0.25, 0.15, 0.10};
      unroll_checkpoint_policy p = {.struct_size = sizeof p, .kind = UNROLL_CHECKPOINT_BYTES};
      p.bytes = (uint64_t)(parts[budget] * (double)saved);
      if (budget == 0)
        p.kind = UNROLL_CHECKPOINT_ALL;
      unroll_checkpoint_plan_info info = {.struct_size = sizeof info};
      assert_status(UNROLL_OK, unroll_checkpoint_plan(&p, &z, &info, &err));
      unroll_graph *g;
      assert_status(UNROLL_OK, unroll_graph_create(NULL, &g, &err));
      o.checkpoint = &p;
      unroll_tensor h[1], c[1], d[3];
      unroll_rnn_state last = {h, c};
      unroll_rnn(unroll_input(g, "x", UNROLL_F32, 3, (int64_t[]){T, B, I}), "rnn", &o, NULL, &last);
      const unroll_tensor dh = unroll_input(g, "dh", UNROLL_F32, 2, (int64_t[]){B, H});
      const unroll_tensor wrt[3] = {unroll_graph_find(g, "rnn.W_x.0.0"), unroll_graph_find(g, "rnn.W_h.0.0"),
                                    unroll_graph_find(g, "rnn.b.0.0")};
      unroll_vjp(h, &dh, 1, wrt, 3, d);
      unroll_output(d[0], "dW_x");
      unroll_output(d[1], "dW_h");
      unroll_output(d[2], "db");
      model m = model_open(g, dev, true);
      fill(&m);
      const bool reference = strncmp(unroll_device_id(dev), "cpu:", 4) == 0;
      if (reference) { /* which makes steps one by one, and says so */
        int64_t steps = 0;
        assert_status(UNROLL_OK, unroll_binding_profile(m.binding, 1, &err));
        model_run(&m);
        assert_status(UNROLL_OK, unroll_binding_profile_read(m.binding, count_steps, &steps, &err));
        assert_int_equal(steps, info.forward_steps);
      } else
        model_run(&m);
      /* Beside what was counted: inputs' products of a segment, packed weights and constants, which do not grow with
       * T. */
      const uint64_t got = unroll_executable_describe(m.exe).scratch_bytes;
      const uint64_t fixed = (uint64_t)(info.segment + 1) * 4 * B * H * 4 + 400000;
      if (got > info.bytes + fixed)
        fail_msg("%s: %llu bytes, planned %llu and %llu", unroll_device_id(dev), (unsigned long long)got,
                 (unsigned long long)info.bytes, (unsigned long long)fixed);
      if (budget == 0)
        assert_true(got >= saved);
      else
        assert_true(info.bytes <= p.bytes && got < saved / 2);
      model_close(&m);
      unroll_graph_destroy(g);
    }
}

/* ---- errors ---- */
static void expect_error(unroll_graph *g, unroll_status status, const char *text) {
  unroll_error err = UNROLL_ERROR_INIT;
  assert_status(status, unroll_graph_status(g, &err));
  if (!strstr(err.message, text))
    fail_msg("\"%s\" says nothing of \"%s\"", err.message, text);
  unroll_graph_destroy(g);
}

static void errors(void **state) {
  (void)state;
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_checkpoint_policy p = {.struct_size = sizeof p, .kind = UNROLL_CHECKPOINT_BYTES, .bytes = 1000};
  const unroll_rnn_options o = {
      .struct_size = sizeof o, .cell = UNROLL_CELL_LSTM, .layers = 1, .hidden = 8, .checkpoint = &p};
  unroll_graph *g;
  assert_status(UNROLL_OK, unroll_graph_create(NULL, &g, &err));
  unroll_rnn(unroll_input(g, "x", UNROLL_F32, 3, (int64_t[]){100, 64, 5}), "rnn", &o, NULL, NULL);
  expect_error(g, UNROLL_E_RANGE, "rnn: checkpoints within 1000 bytes: 100 steps take at least");

  assert_status(UNROLL_OK, unroll_graph_create(NULL, &g, &err));
  const int64_t T = unroll_graph_dim(g, "time", 1, 100);
  unroll_rnn(unroll_input(g, "x", UNROLL_F32, 3, (int64_t[]){T, 64, 5}), "rnn", &o, NULL, NULL);
  expect_error(g, UNROLL_E_UNSUPPORTED, "the run-time size time");

  unroll_rnn_options other = o;
  other.cell = UNROLL_RNN_MIN_GRU;
  assert_status(UNROLL_OK, unroll_graph_create(NULL, &g, &err));
  unroll_rnn(unroll_input(g, "x", UNROLL_F32, 3, (int64_t[]){100, 64, 5}), "rnn", &other, NULL, NULL);
  expect_error(g, UNROLL_E_INVALID, "checkpoint is no option of cell min_gru");
  other = o;
  other.peepholes = 1;
  assert_status(UNROLL_OK, unroll_graph_create(NULL, &g, &err));
  unroll_rnn(unroll_input(g, "x", UNROLL_F32, 3, (int64_t[]){100, 64, 5}), "rnn", &other, NULL, NULL);
  expect_error(g, UNROLL_E_RANGE, "scan: checkpoints within 1000 bytes: 100 steps take at least");
  unroll_checkpoint_sizes z = {.struct_size = sizeof z};
  assert_status(UNROLL_E_UNSUPPORTED, unroll_rnn_checkpoint_sizes(&other, UNROLL_F32, 100, 64, 0, &z, &err));
  assert_non_null(strstr(err.message, "with peepholes a layer is a scan"));
  other = o; /* of a caller who knows no checkpoints */
  other.struct_size = offsetof(unroll_rnn_options, checkpoint);
  assert_status(UNROLL_OK, unroll_graph_create(NULL, &g, &err));
  unroll_rnn(unroll_input(g, "x", UNROLL_F32, 3, (int64_t[]){100, 64, 5}), "rnn", &other, NULL, NULL);
  assert_status(UNROLL_OK, unroll_graph_status(g, &err));
  unroll_graph_destroy(g);

  assert_status(UNROLL_OK, unroll_graph_create(NULL, &g, &err));
  unroll_checkpoint_end(g);
  expect_error(g, UNROLL_E_STATE, "was not begun");

  assert_status(UNROLL_OK, unroll_graph_create(NULL, &g, &err));
  unroll_checkpoint_begin(g);
  expect_error(g, UNROLL_E_GRAPH, "unroll_checkpoint_end");

  for (int kind = 0; kind < 3; kind++) {
    assert_status(UNROLL_OK, unroll_graph_create(NULL, &g, &err));
    const unroll_tensor ids = unroll_input(g, "ids", UNROLL_I32, 2, (int64_t[]){60, 64});
    const unroll_tensor table = unroll_param(g, "table", UNROLL_F32, 2, (int64_t[]){9, 4});
    const unroll_tensor h0 = unroll_input(g, "h0", UNROLL_F32, 2, (int64_t[]){64, 4});
    unroll_scan *s = unroll_scan_begin(g, UNROLL_FORWARD, unroll_none());
    unroll_scan_checkpoint(s, kind == 2 ? NULL : &p);
    const unroll_tensor h = unroll_scan_carry(s, h0), id = unroll_scan_input(s, ids);
    unroll_scan_next(s, h, unroll_tanh(kind == 1 ? h : unroll_add(h, unroll_embedding(table, id))));
    if (kind == 1) /* an end within a scan */
      unroll_checkpoint_begin(unroll_scan_body(s));
    unroll_scan_end(s);
    expect_error(g,
                 kind == 0   ? UNROLL_E_UNSUPPORTED
                 : kind == 1 ? UNROLL_E_STATE
                             : UNROLL_E_INVALID,
                 kind == 0   ? "looks up rows of table"
                 : kind == 1 ? "has no regions"
                             : "policy");
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(published_counts),
                                     cmocka_unit_test(least_of_all_plans),
                                     cmocka_unit_test(policies),
                                     cmocka_unit_test(errors_of_plans),
                                     cmocka_unit_test(errors),
                                     DEVICE_TESTS(stacks),
                                     DEVICE_TESTS(options),
                                     DEVICE_TESTS(budgets),
                                     {"as_a_gpu_opencl", as_a_gpu, NULL, NULL, "opencl"},
                                     {"left_to_others_onednn", left_to_others, NULL, NULL, "onednn"},
                                     DEVICE_TESTS(doubles),
                                     DEVICE_TESTS(scans),
                                     DEVICE_TESTS(regions),
                                     DEVICE_TESTS(predicted_steps_and_bytes)};
  return cmocka_run_group_tests(tests, devices_open, devices_close);
}
