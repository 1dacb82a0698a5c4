/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The costs of unroll/cost.h against counted ones: tests/plugins/counting.c runs every op on numbers that count and on
 * operands that remember which bytes were touched. Integers, so equal means equal; and what was counted computes what the
 * reference computes, else its counts would be of something else.
 */
#include "counted.h"
#include "diagnose/cost_private.h"
#include "runs.h"
#include <stdlib.h>
#include <string.h>
#include <unroll/ctc.h>
#include <unroll/nn.h>

/* ---- every op, in every shape that the judge of backends has ---- */

static void add_spec(unroll_graph *g, const op_case *c, const op_tensor *t, int32_t dtype) {
  tensor_spec s = graph_make_spec(t->dtype == OP_REAL ? dtype : t->dtype, t->shape.rank, t->shape.n);
  if (t->is_dynamic)
    s.shape[0] = t->shape.n[0] / c->dim_max * c->dim;
  assert_true(graph_add_tensor(g, &s, UNROLL_ROLE_TEMP, GRAPH_NONE, mem_strdup(&g->allocator, "t")) != GRAPH_NONE);
}

/* What a node of a case is said to cost, in all of its runs. */
static void add_reported(const op_case *c, const op_node *n, int32_t dtype, unroll_cost_count *sum) {
  unroll_graph *g;
  assert_int_equal(unroll_graph_create(NULL, &g, NULL), UNROLL_OK);
  for (uint32_t i = 0; i < c->n_tensors; i++)
    add_spec(g, c, &c->tensors[i], dtype);
  uint32_t in[OP_MAX_EDGES], out[OP_MAX_EDGES];
  memcpy(in, n->in, sizeof in);
  memcpy(out, n->out, sizeof out);
  node of = {.op = n->op, .n_in = n->n_in, .n_out = n->n_out, .in = in, .out = out};
  memcpy(&of.attr, &n->attr, sizeof n->attr);
  cost_walk w = {.graph = g};
  cost_of_node(&w, &of);
  assert_false(w.overflow);
  const int64_t times = c->is_template ? c->count : 1;
  cost_add(&w, &sum->runs, w.one.runs, times);
  cost_add(&w, &sum->flops, w.one.flops, times);
  cost_add(&w, &sum->transcendental, w.one.transcendental, times);
  cost_add(&w, &sum->read, w.one.read, times);
  cost_add(&w, &sum->written, w.one.written, times);
  unroll_graph_destroy(g);
}

/* Views of the host's, which no backend is asked to run but by a judge. */
static bool is_view(const op_node *n) {
  return n->op == UNROLL_OP_RESHAPE || (n->op == UNROLL_OP_SLICE && n->attr.slice.axis == 0);
}

static int64_t elements_of(const op_case *c) {
  int64_t n = 0;
  for (uint32_t i = 0; i < c->n_tensors; i++)
    n += op_elements(c->tensors[i].shape);
  return n;
}

static void ops_in_f(int32_t dtype) {
  unroll_error err = UNROLL_ERROR_INIT;
  op_case_list list;
  assert_true(op_case_list_make(&list, NULL));
  op_check_options o = {.dtype = dtype, .seed = 3};
  assert_status(UNROLL_OK, session_target(&session, &o.target, &err));
  assert_status(UNROLL_OK, session_reference(&session, &o.reference, &err));
  bool seen[UNROLL_OP_END] = {false};
  uint32_t ran = 0;
  for (uint32_t i = 0; i < list.n; i++) {
    const op_case *c = &list.cases[i];
    if (elements_of(c) > 4000) /* larger ones differ in nothing but size */
      continue;
    char message[CONFORM_MESSAGE];
    start_counting();
    o.layout = i;
    const int result = op_check(&o, c, message, sizeof message);
    if (result == OP_UNSUPPORTED)
      continue;
    if (result != OP_RAN)
      fail_msg("%s: %s", c->name, message);
    unroll_cost_count reported[UNROLL_OP_END] = {{0}};
    bool views = false;
    for (uint32_t k = 0; k < c->n_nodes; k++) {
      add_reported(c, &c->nodes[k], dtype, &reported[c->nodes[k].op]);
      views = views || is_view(&c->nodes[k]);
    }
    for (uint32_t op = 1; op < UNROLL_OP_END && !views; op++)
      same_count(c->name, op, &reported[op]);
    for (uint32_t k = 0; k < c->n_nodes && !views; k++)
      seen[c->nodes[k].op] = true;
    ran++;
  }
  for (uint32_t op = 1; op < UNROLL_OP_END; op++)
    if (!seen[op] && op != UNROLL_OP_LAYER && op != UNROLL_OP_LAYER_GRAD && op != UNROLL_OP_SCAN &&
        op != UNROLL_OP_RESHAPE)
      fail_msg("no case of %s", unroll_cost_op_name(op));
  assert_true(ran > 800);
  op_case_list_free(&list);
}
static void ops_in_f32(void **state) {
  (void)state;
  ops_in_f(UNROLL_F32);
}
static void ops_in_f64(void **state) {
  (void)state;
  ops_in_f(UNROLL_F64);
}

/* ---- whole graphs, as a program runs them ---- */

typedef struct both {
  unroll_executable *counted_exe, *cpu_exe;
  unroll_binding *counted, *cpu;
} both;

static both bind_both(unroll_graph *g) {
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_device *counting, *cpu;
  both b;
  const unroll_compile_options strict = {.struct_size = sizeof strict, .strict = 1};
  assert_status(UNROLL_OK, session_device(&session, &counting, &err));
  assert_status(UNROLL_OK, session_cpu(&session, &cpu, &err));
  assert_status(UNROLL_OK, unroll_compile(g, &counting, 1, &strict, &b.counted_exe, &err));
  assert_status(UNROLL_OK, unroll_compile(g, &cpu, 1, &strict, &b.cpu_exe, &err));
  assert_status(UNROLL_OK, unroll_binding_create(b.counted_exe, &b.counted, &err));
  assert_status(UNROLL_OK, unroll_binding_create(b.cpu_exe, &b.cpu, &err));
  return b;
}

/* Runs what is bound, and looks at both: counts as reported, and results as the reference's, in f64 to 1e-12 of the largest. */
static void compare(const char *what, unroll_graph *g, both *b, const int64_t *dims, uint32_t n_dims) {
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_cost cost = {.struct_size = sizeof cost};
  assert_status(UNROLL_OK, unroll_cost_of_graph(g, dims, n_dims, &cost, &err));
  const unroll_run_options o = {.struct_size = sizeof o, .dims = dims, .n_dims = n_dims, .seed = 5};
  start_counting();
  assert_status(UNROLL_OK, unroll_run(b->counted, &o, &err));
  assert_status(UNROLL_OK, unroll_run(b->cpu, &o, &err));
  unroll_cost_count sum = {0};
  for (uint32_t op = 1; op < UNROLL_OP_END; op++) {
    same_count(what, op, &cost.of[op]);
    sum.flops += counts->of[op].flops;
    sum.read += counts->of[op].read;
  }
  assert_int_equal(cost.total.flops, sum.flops);
  assert_int_equal(cost.total.read, sum.read);
  assert_true(sum.flops > 0);
  if (!dims) { /* outputs of fewer steps are as long as those of all */
    results got = runs_read(g, b->counted), want = runs_read(g, b->cpu);
    assert_near(&got, &want, 1e-12);
    results_free(&got);
    results_free(&want);
  }
  unroll_binding_destroy(b->counted);
  unroll_binding_destroy(b->cpu);
  unroll_executable_destroy(b->counted_exe);
  unroll_executable_destroy(b->cpu_exe);
}

/* Odd sizes: 7 steps, 3 sequences of which some are shorter, 5 inputs, 6 units, 11 words; loss, gradients, Adam. */
static void training_graphs(void **state) {
  (void)state;
  for (int32_t cell = UNROLL_CELL_RNN; cell < UNROLL_CELL_COUNT; cell++)
    for (int variant = 0; variant < 6; variant++) {
      const training w = {.T = 7,
                          .B = 3,
                          .I = 5,
                          .H = 6,
                          .V = 11,
                          .dtype = UNROLL_F64,
                          .cell = cell,
                          .direction = variant & 1 ? UNROLL_REVERSE : UNROLL_FORWARD,
                          .layers = 1 + variant % 2,
                          .lengths = variant >= 2,
                          .with_state = variant == 3,
                          .runtime_T = variant == 4,
                          .optimize = variant > 0};
      char what[64];
      snprintf(what, sizeof what, "training, cell %d, variant %d", cell, variant);
      unroll_graph *g = runs_training(&w);
      both b = bind_both(g);
      runs_fill(g, b.counted, &w);
      runs_fill(g, b.cpu, &w);
      const int64_t steps = 5;
      compare(what, g, &b, variant == 4 ? &steps : NULL, variant == 4);
      unroll_graph_destroy(g);
    }
}

/* ---- layers of every kind, losses of every kind ---- */

static void fill(unroll_graph *g, both *b) {
  unroll_error err = UNROLL_ERROR_INIT;
  for (uint32_t i = 0; i < unroll_graph_count(g); i++) {
    const unroll_tensor_info t = unroll_tensor_describe(unroll_graph_tensor(g, i));
    if (t.role != UNROLL_ROLE_INPUT && t.role != UNROLL_ROLE_PARAM)
      continue;
    int64_t n = 1;
    for (int32_t k = 0; k < t.rank; k++)
      n *= t.shape[k];
    double *x = calloc((size_t)n, sizeof *x);
    int32_t *whole = (int32_t *)(void *)x;
    assert_non_null(x);
    for (int64_t k = 0; k < n; k++)
      if (t.dtype == UNROLL_I32) /* lengths 7, 0, 4; targets -1 to 5; label 1 to 3 */
        whole[k] = strcmp(t.name, "lengths") == 0         ? (int32_t[]){7, 0, 4}[k % 3]
                   : strcmp(t.name, "labels") == 0        ? (int32_t)(1 + (k * 5 + k / 2) % 3)
                   : strcmp(t.name, "label_lengths") == 0 ? (int32_t[]){2, 0, 1}[k % 3]
                                                          : (int32_t)(k * 4 % 7) - 1;
      else
        x[k] = (double)((k * 7919 + (int64_t)i * 104729 + 13) % 1999) / 1999 - 0.4;
    const uint64_t bytes = (uint64_t)n * unroll_dtype_size(t.dtype);
    assert_status(UNROLL_OK, unroll_binding_write(b->counted, t.name, x, bytes, &err));
    assert_status(UNROLL_OK, unroll_binding_write(b->cpu, t.name, x, bytes, &err));
    free(x);
  }
}

enum { CROSS_ENTROPY, MSE, CTC };
static unroll_tensor loss_of(unroll_tensor y, int kind, int64_t B) {
  unroll_graph *g = y.graph;
  const unroll_tensor logits = unroll_linear(y, "head", 6, 1);
  switch (kind) {
  case CROSS_ENTROPY:
    return unroll_cross_entropy(logits, unroll_input(g, "targets", UNROLL_I32, 2, (int64_t[]){7, B}), UNROLL_LOSS_MEAN);
  case MSE:
    return unroll_mse(logits, unroll_input(g, "wanted", UNROLL_F64, 3, (int64_t[]){7, B, 6}), UNROLL_LOSS_HALF_SUM);
  default: {
    const unroll_ctc_options o = {.struct_size = sizeof o, .lengths = unroll_graph_find(g, "lengths")};
    return unroll_ctc_loss(logits, unroll_input(g, "labels", UNROLL_I32, 2, (int64_t[]){B, 2}),
                           unroll_input(g, "label_lengths", UNROLL_I32, 1, &B), &o);
  }
  }
}

static void try_stack(const char *what, const unroll_rnn_options *options, int loss_kind, bool trains) {
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_graph *g;
  assert_status(UNROLL_OK, unroll_graph_create(NULL, &g, &err));
  unroll_rnn_options o = *options;
  const int64_t B = o.checkpoint ? 256 : 3; /* a segment is whole blocks, of 512 rows */
  o.lengths = unroll_input(g, "lengths", UNROLL_I32, 1, &B);
  const unroll_tensor x = unroll_input(g, "x", UNROLL_F64, 3, (int64_t[]){7, B, 5});
  const unroll_tensor y = unroll_rnn(x, "rnn", &o, NULL, NULL), loss = loss_of(y, loss_kind, B);
  unroll_output(loss, "loss");
  unroll_tensor of[48], d[48], norm;
  uint32_t n = 0;
  for (uint32_t i = 0; i < unroll_graph_count(g); i++)
    if (unroll_tensor_describe(unroll_graph_tensor(g, i)).role == UNROLL_ROLE_PARAM)
      of[n++] = unroll_graph_tensor(g, i);
  assert_true(n > 2 && n < 48);
  if (trains) {
    unroll_gradient(loss, of, n, d);
    const unroll_tensor scale = unroll_clip_global_norm(d, n, 1, &norm);
    unroll_output(norm, "norm");
    const unroll_tensor lr = unroll_input(g, "lr", UNROLL_F64, 0, NULL),
                        step = unroll_constant(g, UNROLL_I32, 0, NULL, 3);
    for (uint32_t i = 0; i < n; i++)
      unroll_optimize(of[i], d[i], lr, step, scale,
                      &(unroll_optimizer_attr){.kind = (int32_t)i % UNROLL_OPTIMIZER_COUNT,
                                               .beta1 = i % 8 == 4 ? 0 : 0.9,
                                               .beta2 = 0.99,
                                               .epsilon = 1e-3,
                                               .weight_decay = i % 3 == 1 ? 0.01 : 0});
  }
  if (unroll_graph_status(g, &err) != UNROLL_OK)
    fail_msg("%s: %s", what, err.message);
  bool again = false;
  for (uint32_t i = 0; i < g->n_nodes; i++)
    again = again || g->nodes[i].again;
  assert_int_equal(again, o.checkpoint && trains);
  both b = bind_both(g);
  fill(g, &b);
  compare(what, g, &b, NULL, 0);
  unroll_graph_destroy(g);
}

static void stacks(void **state) {
  (void)state;
#define STACK(cell_, ...) \
  { .struct_size = sizeof(unroll_rnn_options), .cell = cell_, .layers = 2, .hidden = 6, __VA_ARGS__ }
  static const unroll_checkpoint_policy every = {
      .struct_size = sizeof every, .kind = UNROLL_CHECKPOINT_EVERY, .every = 2};
  const struct {
    const char *what;
    unroll_rnn_options options;
  } all[] = {
      {"rnn, bidirectional", STACK(UNROLL_CELL_RNN, .bidirectional = 1, .activation = UNROLL_RELU)},
      {"lstm, dropouts", STACK(UNROLL_CELL_LSTM, .dropout = 0.3, .input_dropout = 0.2, .output_dropout = 0.1)},
      {"lstm, masks of h", STACK(UNROLL_CELL_LSTM, .state_dropout = 0.3, .zoneout_h = 0.2, .zoneout_c = 0.1)},
      {"lstm, weight dropout", STACK(UNROLL_CELL_LSTM, .weight_dropout = 0.3, .same_mask = 1, .dropout = 0.2)},
      {"lstm, peepholes and projection", STACK(UNROLL_CELL_LSTM, .peepholes = 1, .projection = 4)},
      {"lstm, layer norm", STACK(UNROLL_CELL_LSTM, .layer_norm = 1)},
      {"lstm, clips", STACK(UNROLL_CELL_LSTM, .clip = 1, .cell_clip = 2)},
      {"lstm, checkpoints", STACK(UNROLL_CELL_LSTM, .checkpoint = &every)},
      {"coupled lstm", STACK(UNROLL_RNN_COUPLED_LSTM, .layer_norm = 1)},
      {"gru, layer norm", STACK(UNROLL_CELL_GRU, .layer_norm = 1, .bidirectional = 1)},
      {"gru", STACK(UNROLL_CELL_GRU, .residual = UNROLL_RESIDUAL_OUTPUTS)},
      {"gru_after", STACK(UNROLL_CELL_GRU_AFTER, .residual = UNROLL_RESIDUAL_STATES, .skip = 0.5)},
      {"gru_after, layer norm", STACK(UNROLL_CELL_GRU_AFTER, .layer_norm = 1)},
      {"min_gru", STACK(UNROLL_RNN_MIN_GRU, .reserved = 0)},
      {"min_lstm", STACK(UNROLL_RNN_MIN_LSTM, .bidirectional = 1)},
      {"rnn, sigmoid, checkpoints", STACK(UNROLL_CELL_RNN, .activation = UNROLL_SIGMOID, .checkpoint = &every)},
      {"rnn, modrelu", STACK(UNROLL_CELL_RNN, .f = {.kind = UNROLL_ACTIVATION_MODRELU})},
      {"rnn, elu, states", STACK(UNROLL_CELL_RNN, .f = {.kind = UNROLL_ACTIVATION_ELU, .alpha = 0.7},
                                 .residual = UNROLL_RESIDUAL_STATES, .bidirectional = 1)},
      {"rnn, softplus, layer norm", STACK(UNROLL_CELL_RNN, .f = {.kind = UNROLL_ACTIVATION_SOFTPLUS}, .layer_norm = 1)},
      {"lstm, other activations",
       STACK(UNROLL_CELL_LSTM, .f = {.kind = UNROLL_ACTIVATION_HARD_SIGMOID, .alpha = 0.2, .beta = 0.5},
             .g = {.kind = UNROLL_ACTIVATION_SOFTSIGN}, .h = {.kind = UNROLL_ACTIVATION_LEAKY_RELU, .alpha = 0.1})},
      {"lstm, projection, bidirectional", STACK(UNROLL_CELL_LSTM, .projection = 4, .bidirectional = 1)},
      {"lstm, checkpoints of a scan", STACK(UNROLL_CELL_LSTM, .peepholes = 1, .zoneout_c = 0.2, .checkpoint = &every)},
      {"lstm, checkpoints, bidirectional", STACK(UNROLL_CELL_LSTM, .checkpoint = &every, .bidirectional = 1)},
      {"lstm, inference of zoneout", STACK(UNROLL_CELL_LSTM, .zoneout_h = 0.2, .zoneout_c = 0.1, .inference = 1)},
      {"coupled lstm, peepholes, projection",
       STACK(UNROLL_RNN_COUPLED_LSTM, .peepholes = 1, .projection = 4, .skip = 0.5)},
      {"gru, masks", STACK(UNROLL_CELL_GRU, .state_dropout = 0.2, .zoneout_h = 0.1, .weight_dropout = 0.3)},
      {"gru, checkpoints", STACK(UNROLL_CELL_GRU, .checkpoint = &every)},
      {"gru, bounds", STACK(UNROLL_CELL_GRU, .clip = 2)},
      {"gru_after, masks, checkpoints",
       STACK(UNROLL_CELL_GRU_AFTER, .state_dropout = 0.2, .zoneout_h = 0.1, .checkpoint = &every)},
      {"gru_after, other activations",
       STACK(UNROLL_CELL_GRU_AFTER, .f = {.kind = UNROLL_ACTIVATION_SCALED_TANH, .alpha = 0.9, .beta = 0.5},
             .g = {.kind = UNROLL_ACTIVATION_THRESHOLDED_RELU, .alpha = 0.1})},
      {"min_gru, activation, residual",
       STACK(UNROLL_RNN_MIN_GRU, .g = {.kind = UNROLL_ACTIVATION_TANH}, .residual = UNROLL_RESIDUAL_OUTPUTS)},
  };
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
    try_stack(all[i].what, &all[i].options, (int)(i % 3), true);
    try_stack(all[i].what, &all[i].options, (int)((i + 1) % 3), false);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(ops_in_f32), cmocka_unit_test(ops_in_f64),
                                     cmocka_unit_test(training_graphs), cmocka_unit_test(stacks)};
  return cmocka_run_group_tests(tests, counted_open, counted_close);
}
