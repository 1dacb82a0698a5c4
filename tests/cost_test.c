/* SPDX-License-Identifier: Apache-2.0 */
/* Parameters, FLOPs and memory against numbers made by hand and published ones; wrong input against its messages. That every
 * op's cost is what it takes is cost_counted_test's. */
#include "runs.h"
#include "statuses.h"
#include <stdlib.h>
#include <string.h>
#include <unroll/cost.h>

static unroll_error err = UNROLL_ERROR_INIT;

#define RNN(cell_, hidden_, ...) \
  { .struct_size = sizeof(unroll_rnn_options), .cell = cell_, .layers = 1, .hidden = hidden_, __VA_ARGS__ }

/* ---- parameters ---- */

/*
 * n_x = 10, n_h = 20. torch.nn.LSTM(10, 20) has 2560 numbers, nn.GRU(10, 20) 1920, nn.RNN(10, 20) 640: 20 more a gate, since
 * there each gate has two biases, but for the one of gru_after that is here too. nn.LSTM(10, 20, proj_size=5) has 1460.
 * keras.layers.LSTM(20) on 10 inputs has 2480, keras.layers.GRU(20, reset_after=False) 1860.
 */
static void parameters_are_the_textbooks(void **state) {
  (void)state;
  const struct {
    unroll_rnn_options rnn;
    int64_t want;
    const char *formula;
  } all[] = {
      {RNN(UNROLL_CELL_LSTM, 20, .reserved = 0), 2560 - 4 * 20, "4·(n_h + n_x + 1)·n_h"},
      {RNN(UNROLL_CELL_GRU, 20, .reserved = 0), 1860, "3·(n_h + n_x + 1)·n_h"},
      {RNN(UNROLL_CELL_GRU_AFTER, 20, .reserved = 0), 1920 - 2 * 20, "3·(n_h + n_x + 1)·n_h + n_h"},
      {RNN(UNROLL_CELL_RNN, 20, .reserved = 0), 640 - 20, "(n_h + n_x + 1)·n_h"},
      {RNN(UNROLL_CELL_LSTM, 20, .projection = 5), 1460 - 4 * 20, "4·(n_p + n_x + 1)·n_h + n_p·n_h"},
      {RNN(UNROLL_CELL_LSTM, 20, .peepholes = 1), 2480 + 3 * 20, "4·(n_h + n_x + 1)·n_h + 3·n_h"},
      {RNN(UNROLL_RNN_COUPLED_LSTM, 20, .peepholes = 1), 1860 + 2 * 20, "3·(n_h + n_x + 1)·n_h + 2·n_h"},
      {RNN(UNROLL_CELL_LSTM, 20, .layer_norm = 1), 2480 + 10 * 20, "4·(n_h + n_x + 1)·n_h + 10·n_h"},
      {RNN(UNROLL_CELL_GRU, 20, .layer_norm = 1), 1860 + 6 * 20, "3·(n_h + n_x + 1)·n_h + 6·n_h"},
      {RNN(UNROLL_CELL_RNN, 20, .f = {.kind = UNROLL_ACTIVATION_MODRELU}), 640, "(n_h + n_x + 1)·n_h + n_h"},
      {RNN(UNROLL_RNN_MIN_GRU, 20, .reserved = 0), 440, "2·(n_x + 1)·n_h"},
      {RNN(UNROLL_RNN_MIN_LSTM, 20, .reserved = 0), 660, "3·(n_x + 1)·n_h"},
      /* torch.nn.LSTM(10, 20, 2, bidirectional=True): 15040 */
      {{.struct_size = sizeof(unroll_rnn_options),
        .cell = UNROLL_CELL_LSTM,
        .layers = 2,
        .hidden = 20,
        .bidirectional = 1},
       15040 - 4 * 4 * 20,
       "4·(n_h + n_x + 1)·n_h"},
  };
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
    int64_t n = 0;
    char formula[64];
    assert_ok(unroll_cost_of_rnn_parameters(&all[i].rnn, 10, &n, formula, sizeof formula, &err));
    if (n != all[i].want || strcmp(formula, all[i].formula) != 0)
      fail_msg("%zu: %lld = %s, expected %lld = %s", i, (long long)n, formula, (long long)all[i].want, all[i].formula);
  }
  int64_t n = 0;
  char cut[] = "xxxx";
  assert_ok(unroll_cost_of_rnn_parameters(&all[0].rnn, 10, &n, cut, 3, &err)); /* no half of the dot */
  assert_string_equal(cut, "4");
}

static void wrong_parameters(void **state) {
  (void)state;
  int64_t n = 7;
  const unroll_rnn_options good = RNN(UNROLL_CELL_LSTM, 20, .reserved = 0),
                           none = RNN(UNROLL_CELL_NONE, 20, .reserved = 0),
                           huge = RNN(UNROLL_CELL_LSTM, INT64_C(1) << 40, .reserved = 0);
  assert_error(unroll_cost_of_rnn_parameters(NULL, 10, &n, NULL, 0, &err), UNROLL_E_INVALID, "rnn is NULL");
  assert_error(unroll_cost_of_rnn_parameters(&good, 10, NULL, NULL, 0, &err), UNROLL_E_INVALID, "parameters is NULL");
  assert_error(unroll_cost_of_rnn_parameters(&good, 0, &n, NULL, 0, &err), UNROLL_E_RANGE, "inputs of 0 numbers");
  assert_error(unroll_cost_of_rnn_parameters(&none, 10, &n, NULL, 0, &err), UNROLL_E_INVALID, "cell");
  assert_true(unroll_cost_of_rnn_parameters(&huge, 10, &n, NULL, 0, &err) < 0);
  assert_int_equal(n, 7);
}

/* ---- graphs ---- */

static unroll_graph *new_graph(void) {
  unroll_graph *g;
  assert_ok(unroll_graph_create(NULL, &g, &err));
  return g;
}

/* What is said of a network without recurrence: x [3,5]·W [5,7] + b, the row that is sliced off free, tanh not a FLOP. */
static void a_graph_by_hand(void **state) {
  (void)state;
  unroll_graph *g = new_graph();
  const unroll_tensor x = unroll_input(g, "x", UNROLL_F32, 2, (int64_t[]){4, 5}), unused = unroll_unary(x, UNROLL_EXP);
  const unroll_tensor W = unroll_param(g, "W", UNROLL_F32, 2, (int64_t[]){5, 7});
  const unroll_tensor b = unroll_param(g, "b", UNROLL_F32, 1, (int64_t[]){7});
  unroll_output(unroll_tanh(unroll_matmul_add(unroll_slice(x, 0, 1, 3), 0, W, 0, b)), "y");
  (void)unused;
  unroll_cost c = {.struct_size = sizeof c};
  assert_ok(unroll_cost_of_graph(g, NULL, 0, &c, &err));
  assert_int_equal(c.of[UNROLL_OP_MATMUL].flops, 2 * 3 * 5 * 7 + 3 * 7);
  assert_int_equal(c.of[UNROLL_OP_MATMUL].read, 4 * (3 * 5 + 5 * 7 + 7));
  assert_int_equal(c.of[UNROLL_OP_MATMUL].written, 4 * 3 * 7);
  assert_int_equal(c.of[UNROLL_OP_SLICE].runs, 0);
  assert_int_equal(c.total.flops, 2 * 3 * 5 * 7 + 3 * 7);
  assert_int_equal(c.total.transcendental, 3 * 7);
  assert_int_equal(c.total.runs, 2); /* and no exp, which nobody reads */
  assert_int_equal(c.parameters, 5 * 7 + 7);
  assert_int_equal(c.parameter_bytes, 4 * (5 * 7 + 7));
  assert_string_equal(unroll_cost_op_name(UNROLL_OP_MATMUL), "matmul");
  assert_null(unroll_cost_op_name(0));
  assert_null(unroll_cost_op_name(UNROLL_OP_END));
  unroll_graph_destroy(g);
}

/* The products of an LSTM are 2·T·B·4n_h·(n_x + n_h), and of its gradients twice as many but one step's dh, whose state is
 * zeros that nobody asks the gradient of. */
static void an_lstm_by_hand(void **state) {
  (void)state;
  enum { T = 9, B = 3, I = 5, H = 6 };
  const unroll_rnn_options o = RNN(UNROLL_CELL_LSTM, H, .reserved = 0);
  unroll_graph *g = new_graph();
  const int64_t steps = unroll_graph_dim(g, "T", 2, 4 * T);
  const unroll_tensor x = unroll_input(g, "x", UNROLL_F32, 3, (int64_t[]){steps, B, I});
  unroll_output(unroll_rnn(x, "rnn", &o, NULL, NULL), "y");
  unroll_cost c = {.struct_size = sizeof c}, four = c;
  const int64_t now = T;
  assert_ok(unroll_cost_of_graph(g, &now, 1, &c, &err));
  assert_int_equal(c.of[UNROLL_OP_LSTM_GATES].runs, T);
  assert_int_equal(c.of[UNROLL_OP_LSTM_GATES].flops, 4 * T * B * H);
  assert_int_equal(c.total.transcendental, 5 * T * B * H);
  const int64_t products = INT64_C(2) * T * B * 4 * H * (I + H), added = 2 * T * B * 4 * H; /* the bias, both halves */
  assert_int_equal(c.of[UNROLL_OP_MATMUL].flops, products + added);
  assert_ok(unroll_cost_of_graph(g, NULL, 0, &four, &err)); /* at its largest: four times as many steps */
  assert_int_equal(four.total.flops, 4 * c.total.flops);

  const int64_t one = 1, two[] = {T, T};
  assert_error(unroll_cost_of_graph(g, &one, 1, &c, &err), UNROLL_E_RANGE, "T = 1, it must be from 2 to 36");
  assert_error(unroll_cost_of_graph(g, two, 2, &c, &err), UNROLL_E_INVALID, "2 run-time sizes, the graph has 1");
  unroll_graph_destroy(g);
}

static void wrong_graphs(void **state) {
  (void)state;
  unroll_graph *g = new_graph();
  unroll_cost c = {.struct_size = sizeof c}, small = {.struct_size = 8};
  assert_error(unroll_cost_of_graph(NULL, NULL, 0, &c, &err), UNROLL_E_INVALID, "graph is NULL");
  assert_error(unroll_cost_of_graph(g, NULL, 0, NULL, &err), UNROLL_E_INVALID, "cost is NULL");
  assert_error(unroll_cost_of_graph(g, NULL, 0, &small, &err), UNROLL_E_INVALID, "struct_size");
  /* 2^21 cubed, twice, is 2^64: too many FLOPs of tensors that are not too large. */
  const int64_t n = INT64_C(1) << 21;
  const unroll_tensor x = unroll_input(g, "x", UNROLL_F32, 2, (int64_t[]){n, n});
  unroll_output(unroll_matmul(x, x), "y");
  assert_error(unroll_cost_of_graph(g, NULL, 0, &c, &err), UNROLL_E_RANGE, "matmul_0 the sums don't fit into 64 bits");
  unroll_graph_destroy(g);

  g = new_graph();
  unroll_output(unroll_matmul(unroll_input(g, "a", UNROLL_F32, 2, (int64_t[]){2, 3}),
                              unroll_input(g, "b", UNROLL_F32, 2, (int64_t[]){2, 3})),
                "y");
  assert_error(unroll_cost_of_graph(g, NULL, 0, &c, &err), UNROLL_E_SHAPE, "matmul");
  unroll_graph_destroy(g);
}

/* Each allocation fails once: said, and nothing is kept. */
static void without_memory(void **state) {
  (void)state;
  run_memory memory = {0};
  const unroll_allocator allocator = runs_allocator(&memory);
  unroll_graph *g = runs_training(&(training){.T = 3,
                                              .B = 2,
                                              .I = 3,
                                              .H = 4,
                                              .V = 5,
                                              .dtype = UNROLL_F32,
                                              .cell = UNROLL_CELL_GRU,
                                              .layers = 1,
                                              .allocator = &allocator});
  unroll_cost c = {.struct_size = sizeof c};
  const long live = memory.live;
  unroll_status st = UNROLL_E_MEMORY;
  long failures = 0;
  for (; st == UNROLL_E_MEMORY && failures < 10000; failures++) {
    memory.calls = 0;
    memory.fail_at = failures + 1;
    st = unroll_cost_of_graph(g, NULL, 0, &c, &err);
    assert_int_equal(memory.live, live);
    assert_true(st == UNROLL_OK || c.total.flops == 0);
  }
  assert_ok(st);
  assert_true(failures > 50 && c.total.flops > 0);
  unroll_graph_destroy(g);
  assert_int_equal(memory.live, 0);
}

/* ---- memory ---- */

/* H 10, B 2, f32: rows of 80 bytes. An LSTM saves h₋, four gates and c₋, 6 rows a step, and its gates have gradients of 4; a
 * state is h and c. */
static void memory_by_hand(void **state) {
  (void)state;
  const unroll_rnn_options rnn = RNN(UNROLL_CELL_LSTM, 10, .reserved = 0);
  unroll_cost_memory_options o = {
      .struct_size = sizeof o, .dtype = UNROLL_F32, .rnn = &rnn, .batch = 2, .k1 = 3, .k2 = 5, .heads = 2};
  const int64_t T[] = {1, 5, 6, 1000, 100000};
  unroll_cost_memory m[5] = {{.struct_size = sizeof *m}};
  assert_ok(unroll_cost_of_memory(&o, T, 5, m, &err));
  for (int i = 0; i < 5; i++) {
    assert_int_equal(m[i].steps, T[i]);
    assert_int_equal(m[i].bptt, T[i] * 800 + 160);
    assert_int_equal(m[i].truncated, (T[i] < 5 ? T[i] : 5) * 800 + 160);
    assert_int_equal(m[i].attention, 2 * T[i] * T[i] * 2 * 9);
    assert_int_equal(m[i].transformer, T[i] * 2 * 10 * 66 + m[i].attention);
    assert_true(m[i].checkpointed <= m[i].bptt && m[i].checkpointed_steps >= T[i] &&
                m[i].checkpointed_steps <= 2 * T[i]);
  }
  assert_int_equal(m[0].truncated_steps, 1);
  assert_int_equal(m[1].truncated_steps, 5);
  assert_int_equal(m[2].truncated_steps, 10);              /* one step more: one window more */
  assert_int_equal(m[3].truncated_steps, 5 + 5 * 332);     /* (1000 - 5)/3 = 331.7 */
  assert_true(m[4].checkpointed < 20 * m[3].checkpointed); /* as the root of T, in whole blocks of 256 steps */
  assert_true(m[4].checkpointed * 20 < m[4].bptt);

  /* As the planner has it, for its own policies. */
  const unroll_checkpoint_policy every = {.struct_size = sizeof every, .kind = UNROLL_CHECKPOINT_EVERY, .every = 256};
  unroll_checkpoint_sizes z = {.struct_size = sizeof z};
  unroll_checkpoint_plan_info plan = {.struct_size = sizeof plan};
  assert_ok(unroll_rnn_checkpoint_sizes(&rnn, UNROLL_F32, 1000, 2, 0, &z, &err));
  assert_ok(unroll_checkpoint_plan(&every, &z, &plan, &err));
  o.checkpoint = &every;
  assert_ok(unroll_cost_of_memory(&o, T + 3, 1, m, &err));
  assert_int_equal(m[0].checkpointed, plan.bytes);
  assert_int_equal(m[0].checkpointed_steps, plan.forward_steps);
  assert_int_equal(m[0].checkpoint_interval, 256);

  /* Both ways: two states and two sequences of saved values, a Transformer of twice the width. */
  unroll_rnn_options both = rnn;
  both.bidirectional = 1;
  both.layers = 3;
  o = (unroll_cost_memory_options){.struct_size = sizeof o, .dtype = UNROLL_F64, .rnn = &both, .batch = 2};
  assert_ok(unroll_cost_of_memory(&o, T + 1, 1, m, &err));
  assert_int_equal(m[0].bptt, 3 * 2 * 2 * (5 * 800 + 160));
  assert_int_equal(m[0].truncated, m[0].bptt); /* k1 and k2 are T where nobody says */
  assert_int_equal(m[0].transformer, 3 * (5 * 2 * 20 * 130 + 5 * 5 * 2 * 17));
}

static void wrong_memory(void **state) {
  (void)state;
  const unroll_rnn_options rnn = RNN(UNROLL_CELL_LSTM, 10, .reserved = 0),
                           normed = RNN(UNROLL_CELL_LSTM, 10, .layer_norm = 1),
                           empty = RNN(UNROLL_CELL_LSTM, 0, .reserved = 0),
                           none = RNN(UNROLL_CELL_NONE, 10, .reserved = 0);
  const unroll_cost_memory_options good = {.struct_size = sizeof good, .dtype = UNROLL_F32, .rnn = &rnn, .batch = 2};
  unroll_cost_memory_options o = good;
  unroll_cost_memory m = {.struct_size = sizeof m}, small = {.struct_size = 12};
  const int64_t zero = 0, less = -4, five = 5, huge = INT64_C(1) << 40;
#define REFUSED(T, status, words) assert_error(unroll_cost_of_memory(&o, (T), 1, &m, &err), status, words)
  assert_ok(unroll_cost_of_memory(&o, NULL, 0, NULL, &err));
  assert_error(unroll_cost_of_memory(NULL, &five, 1, &m, &err), UNROLL_E_INVALID, "options is NULL");
  assert_error(unroll_cost_of_memory(&o, NULL, 1, &m, &err), UNROLL_E_INVALID, "steps or memory is NULL");
  assert_error(unroll_cost_of_memory(&o, &five, 1, &small, &err), UNROLL_E_INVALID, "memory[0].struct_size is 12");
  REFUSED(&zero, UNROLL_E_RANGE, "T = 0, expected at least 1");
  REFUSED(&less, UNROLL_E_RANGE, "T = -4, expected at least 1");
  REFUSED(&huge, UNROLL_E_RANGE, "don't fit into 64 bits");
  o.batch = 0;
  REFUSED(&five, UNROLL_E_RANGE, "batch 0");
  o = good;
  o.k1 = 6;
  o.k2 = 4;
  REFUSED(&five, UNROLL_E_RANGE, "k1 = 6 and k2 = 4");
  o = good;
  o.k1 = -1;
  REFUSED(&five, UNROLL_E_RANGE, "k1 = -1");
  o = good;
  o.heads = 3;
  REFUSED(&five, UNROLL_E_RANGE, "3 heads do not divide a width of 10");
  o = good;
  o.dtype = UNROLL_I32;
  REFUSED(&five, UNROLL_E_INVALID, "numbers of i32");
  o = good;
  o.rnn = &normed;
  REFUSED(&five, UNROLL_E_UNSUPPORTED, "layer_norm");
  o.rnn = &empty;
  REFUSED(&five, UNROLL_E_RANGE, "1 layers of 0 units");
  o.rnn = &none;
  REFUSED(&five, UNROLL_E_INVALID, "cell");
  o.rnn = NULL;
  REFUSED(&five, UNROLL_E_INVALID, "rnn is NULL");
  o = good;
  const unroll_checkpoint_policy tight = {.struct_size = sizeof tight, .kind = UNROLL_CHECKPOINT_BYTES, .bytes = 10};
  o.checkpoint = &tight;
  REFUSED(&five, UNROLL_E_RANGE, "within 10 bytes");
  assert_error(unroll_cost_of_lm(NULL, 0, 0, NULL, NULL, NULL, &err), UNROLL_E_INVALID, "the model is NULL");
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(parameters_are_the_textbooks),
                                     cmocka_unit_test(wrong_parameters),
                                     cmocka_unit_test(a_graph_by_hand),
                                     cmocka_unit_test(an_lstm_by_hand),
                                     cmocka_unit_test(wrong_graphs),
                                     cmocka_unit_test(without_memory),
                                     cmocka_unit_test(memory_by_hand),
                                     cmocka_unit_test(wrong_memory)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
