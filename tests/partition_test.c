/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One graph on several devices: whatever the partition, the numbers are those of the cpu reference alone. The plugin of
 * tests/plugins/patchwork.c computes as the reference does, so with it they are the same bits.
 */
#include "runs.h"
#include "runtime/runtime_private.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static run_log seen;

static const training lstm = {.T = 7,
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

enum { RUNS = 3 };
static results on_cpu(unroll_context *ctx, unroll_graph *g, const training *w) {
  unroll_device *cpu = runs_device(ctx, "cpu", NULL);
  const results r = runs_all(g, &cpu, 1, NULL, w, RUNS);
  unroll_device_close(cpu);
  return r;
}

static const unroll_compile_options crossing = {.struct_size = sizeof crossing, .allow_step_crossing = 1};
static const unroll_compile_options strict = {.struct_size = sizeof strict, .strict = 1};

/* With some ops kept from the first device, with and without crossing at every step. tolerance 0: the same bits. */
static void try_mask(unroll_context *ctx, const char *device, const char *option, const training *w, double tolerance) {
  unroll_graph *g = runs_training(w);
  results want = on_cpu(ctx, g, w);
  for (int cross = 0; cross < 2; cross++) {
    unroll_device *d = runs_device(ctx, device, option, NULL);
    results got = runs_all(g, &d, 1, cross ? &crossing : NULL, w, RUNS);
    if (tolerance > 0)
      assert_near(&got, &want, tolerance);
    else
      assert_same(&got, &want);
    results_free(&got);
    unroll_device_close(d);
  }
  results_free(&want);
  unroll_graph_destroy(g);
}

static const char *const masked_ops[] = {"mask=lstm_gates",
                                         "mask=lstm_gates_grad",
                                         "mask=matmul",
                                         "mask=cross_entropy",
                                         "mask=cross_entropy_grad",
                                         "mask=optimizer",
                                         "mask=embedding",
                                         "mask=embedding_grad",
                                         "mask=reduce",
                                         "mask=length_mask",
                                         "mask=unary",
                                         "mask=constant,binary",
                                         "take=matmul",
                                         "take=optimizer",
                                         "take=lstm_gates,cross_entropy_grad"};
enum { N_MASKS = sizeof masked_ops / sizeof *masked_ops };

static void any_op_may_run_elsewhere(void **state) {
  (void)state;
  unroll_context *ctx = runs_context(NULL, &seen);
  training w = lstm;
  for (int i = 0; i < N_MASKS; i++) {
    seen = (run_log){.n = 0};
    try_mask(ctx, "patchwork", masked_ops[i], &w, 0);
    assert_int_equal(log_count(&seen, "cannot compile"), 0);
  }
  unroll_context_destroy(ctx);
}

static void every_cell_crosses_devices(void **state) {
  (void)state;
  unroll_context *ctx = runs_context(NULL, &seen);
  const struct {
    int32_t cell, direction;
    const char *mask;
  } cases[] = {{UNROLL_CELL_RNN, UNROLL_FORWARD, "mask=unary"},
               {UNROLL_CELL_RNN, UNROLL_REVERSE, "mask=binary"},
               {UNROLL_CELL_LSTM, UNROLL_REVERSE, "mask=lstm_gates"},
               {UNROLL_CELL_GRU, UNROLL_FORWARD, "mask=gru_reset,gru_update_grad"},
               {UNROLL_CELL_GRU, UNROLL_REVERSE, "mask=gru_update"},
               {UNROLL_CELL_GRU_AFTER, UNROLL_FORWARD, "mask=gru_after_gates"},
               {UNROLL_CELL_GRU_AFTER, UNROLL_REVERSE, "take=gru_after_gates_grad,matmul"}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    training w = lstm;
    w.cell = cases[i].cell;
    w.direction = cases[i].direction;
    w.dtype = UNROLL_F64;
    try_mask(ctx, "patchwork", cases[i].mask, &w, 0);
  }
  unroll_context_destroy(ctx);
}

/*
 * f32 on both sides. A value is made by a chain of about T·(I + H + 16) roundings to f32, each off by 2^-24 of a
 * magnitude that the largest value of the tensor bounds but for cancellation in sums of V or of T·B terms; RUNS updates
 * later the difference of two such chains is within 2·RUNS·7·25·2^-24 = 6e-5. The moments divide by sqrt(s2)+1e-3,
 * which magnifies what is small: 8 times that.
 */
static void opencl_shares_with_the_reference(void **state) {
  (void)state;
  unroll_context *ctx = runs_context(NULL, &seen);
  if (!runs_have(ctx, "opencl")) {
    unroll_context_destroy(ctx);
    skip();
  }
  for (int i = 0; i < N_MASKS; i++)
    if (strncmp(masked_ops[i], "mask=", 5) == 0)
      try_mask(ctx, "opencl", masked_ops[i], &lstm, 8 * 2 * RUNS * 7 * 25 * 5.96e-8);
  unroll_context_destroy(ctx);
}

/* ---- what is said about it ---- */

static void log_names_each_fallback(void **state) {
  (void)state;
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_context *ctx = runs_context(NULL, &seen);
  training w = lstm;
  w.optimize = false;
  w.layers = 1;
  unroll_graph *g = runs_training(&w);
  unroll_device *d = runs_device(ctx, "patchwork", "mask=cross_entropy,cross_entropy_grad", NULL);
  unroll_executable *e;
  assert_status(UNROLL_OK, unroll_compile(g, &d, 1, NULL, &e, &err));
  assert_int_equal(unroll_executable_describe(e).n_fallbacks, 2);
  assert_int_equal(log_count(&seen, "fallback: "), 2);
  assert_int_equal(log_count(&seen, "fallback: cross_entropy"), 2);
  assert_int_equal(log_count(&seen, "not taken by patchwork:0 and runs on cpu:0"), 2);
  assert_true(unroll_executable_describe(e).n_crossings > 0);
  unroll_executable_destroy(e);
  assert_status(UNROLL_E_UNSUPPORTED, unroll_compile(g, &d, 1, &strict, &e, &err));
  assert_null(e);
  assert_non_null(strstr(err.message, "cross_entropy"));
  assert_non_null(strstr(err.message, "patchwork:0"));
  unroll_device_close(d);
  unroll_graph_destroy(g);
  unroll_context_destroy(ctx);
}

static void scan_moves_as_a_whole_or_crosses_when_asked(void **state) {
  (void)state;
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_context *ctx = runs_context(NULL, &seen);
  training w = lstm;
  w.layers = 1;
  w.lengths = w.optimize = false;
  unroll_graph *g = runs_training(&w);
  unroll_device *d = runs_device(ctx, "patchwork", "mask=lstm_gates", NULL);
  unroll_executable *whole, *crossed;
  assert_status(UNROLL_OK, unroll_compile(g, &d, 1, NULL, &whole, &err));
  assert_int_equal(log_count(&seen, "all of its steps run on cpu:0"), 1);
  assert_status(UNROLL_OK, unroll_compile(g, &d, 1, &crossing, &crossed, &err));
  assert_int_equal(log_count(&seen, "all of its steps run on cpu:0"), 1);
  assert_true(unroll_executable_describe(crossed).n_fallbacks < unroll_executable_describe(whole).n_fallbacks);
  unroll_executable_destroy(whole);
  unroll_executable_destroy(crossed);
  assert_status(UNROLL_E_UNSUPPORTED, unroll_compile(g, &d, 1, &strict, &whole, &err));
  assert_non_null(strstr(err.message, "lstm_gates"));

  /* Two devices of which neither takes a whole step, and the reference, which does, is masked nowhere: it gets the
   * scan. */
  unroll_device *two[] = {d, runs_device(ctx, "patchwork:0", "take=lstm_gates", NULL)};
  results want = on_cpu(ctx, g, &w), got = runs_all(g, two, 2, NULL, &w, RUNS);
  assert_same(&got, &want);
  results_free(&got);
  got = runs_all(g, two, 2, &crossing, &w, RUNS);
  assert_same(&got, &want);
  results_free(&got);
  results_free(&want);
  unroll_device_close(two[0]);
  unroll_device_close(two[1]);
  unroll_graph_destroy(g);
  unroll_context_destroy(ctx);
}

/* Three devices, each with a third of the ops, none without its neighbours. */
static void three_devices_make_one_run(void **state) {
  (void)state;
  unroll_context *ctx = runs_context(NULL, &seen);
  unroll_device *d[] = {runs_device(ctx, "patchwork:0", "take=matmul,reduce,transpose", "group=runs", NULL),
                        runs_device(ctx, "patchwork:0", "take=lstm_gates,length_mask,optimizer,cross_entropy", NULL)};
  unroll_graph *g = runs_training(&lstm);
  results want = on_cpu(ctx, g, &lstm), got = runs_all(g, d, 2, &crossing, &lstm, RUNS);
  assert_same(&got, &want);
  results_free(&got);
  results_free(&want);
  unroll_device_close(d[0]);
  unroll_device_close(d[1]);
  unroll_graph_destroy(g);
  unroll_context_destroy(ctx);
}

/* ---- private groups ---- */

static void private_groups_give_the_same(void **state) {
  (void)state;
  unroll_context *ctx = runs_context(NULL, &seen);
  static const char *const more[] = {"mask=argmax",        "mask=lstm_gates",       "mask=lstm_gates_grad",
                                     "mask=matmul",        "mask=length_mask",      "mask=binary",
                                     "mask=cross_entropy", "take=matmul,lstm_gates"};
  for (int cell = UNROLL_CELL_RNN; cell <= UNROLL_CELL_GRU_AFTER; cell++) {
    training w = lstm;
    w.cell = cell;
    w.runtime_T = cell == UNROLL_CELL_GRU;
    w.direction = cell == UNROLL_CELL_LSTM ? UNROLL_REVERSE : UNROLL_FORWARD;
    unroll_graph *g = runs_training(&w);
    results want = on_cpu(ctx, g, &w);
    for (size_t i = 0; i < sizeof more / sizeof *more; i++)
      for (int cross = 0; cross < 2; cross++) {
        unroll_device *d[] = {runs_device(ctx, "patchwork:0", "take=softmax", NULL),
                              runs_device(ctx, "patchwork:0", more[i], "group=runs", NULL)};
        seen = (run_log){.n = 0};
        results got = runs_all(g, d, 2, cross ? &crossing : NULL, &w, RUNS);
        assert_int_equal(log_count(&seen, "cannot compile"), 0);
        assert_same(&got, &want);
        results_free(&got);
        unroll_device_close(d[0]);
        unroll_device_close(d[1]);
      }
    results_free(&want);
    unroll_graph_destroy(g);
  }
  unroll_context_destroy(ctx);
}

/* y = tanh^6 of x, with reshapes between, + softmax(z) + tanh(z) */
static unroll_graph *chain_graph(void) {
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_graph *g;
  assert_status(UNROLL_OK, unroll_graph_create(NULL, &g, &err));
  const unroll_tensor x = unroll_input(g, "x", UNROLL_F32, 2, (int64_t[]){4, 3});
  const unroll_tensor z = unroll_input(g, "z", UNROLL_F32, 1, (int64_t[]){12});
  unroll_tensor b = x;
  for (int i = 0; i < 5; i++)
    b = unroll_reshape(unroll_tanh(b), 1, (int64_t[]){12});
  const unroll_tensor e = unroll_softmax(z);
  const unroll_tensor y = unroll_add(unroll_add(unroll_tanh(b), e), unroll_tanh(z));
  unroll_output(y, "y");
  assert_status(UNROLL_OK, unroll_graph_status(g, &err));
  return g;
}

static void views_and_inputs_do_not_break_a_private_group(void **state) {
  (void)state;
  unroll_error err = UNROLL_ERROR_INIT;
  const training w = {.T = 1, .V = 1};
  unroll_context *ctx = runs_context(NULL, &seen);
  unroll_graph *g = chain_graph();
  /* softmax stands between the group's nodes and its result comes from the other device: it is fetched before the
   * group. */
  unroll_device *d[] = {runs_device(ctx, "patchwork:0", "take=softmax", NULL),
                        runs_device(ctx, "patchwork:0", "take=unary,binary", "group=one", NULL)};
  unroll_executable *e;
  assert_status(UNROLL_OK, unroll_compile(g, d, 2, NULL, &e, &err));
  assert_int_equal(unroll_executable_describe(e).n_groups, 2);
  assert_int_equal(log_count(&seen, "cannot compile"), 0);
  unroll_executable_destroy(e);
  results want = on_cpu(ctx, g, &w), got = runs_all(g, d, 2, NULL, &w, RUNS);
  assert_same(&got, &want);
  results_free(&got);
  results_free(&want);
  unroll_device_close(d[0]);
  unroll_device_close(d[1]);
  unroll_graph_destroy(g);
  unroll_context_destroy(ctx);
}

/* v is written over p, of which the other device holds a copy that was read before: it gets v for what it reads then. */
static void updated_value_is_brought_again(void **state) {
  (void)state;
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_context *ctx = runs_context(NULL, &seen);
  unroll_graph *g;
  assert_status(UNROLL_OK, unroll_graph_create(NULL, &g, &err));
  const unroll_tensor x = unroll_input(g, "x", UNROLL_F32, 2, (int64_t[]){2, 3});
  const unroll_tensor p = unroll_param(g, "p", UNROLL_F32, 2, (int64_t[]){2, 3});
  const unroll_tensor twice = unroll_scale(p, 2); /* p's home is the first device */
  unroll_output(unroll_softmax(p), "before");
  const unroll_tensor v = unroll_tanh(x);
  unroll_update(p, v);
  unroll_output(unroll_softmax(v), "after");
  unroll_output(twice, "twice");
  assert_status(UNROLL_OK, unroll_graph_status(g, &err));
  unroll_device *d = runs_device(ctx, "patchwork", "mask=softmax", NULL), *cpu = runs_device(ctx, "cpu", NULL);
  const training w = {.T = 1, .V = 1};
  results want = runs_all(g, &cpu, 1, NULL, &w, 1), got = runs_all(g, &d, 1, NULL, &w, 1);
  assert_same(&got, &want);
  results_free(&got);
  results_free(&want);
  unroll_device_close(d);
  unroll_device_close(cpu);
  unroll_graph_destroy(g);
  unroll_context_destroy(ctx);
}

static void group_that_is_not_convex_is_an_error(void **state) {
  (void)state;
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_context *ctx = runs_context(NULL, &seen);
  unroll_graph *g;
  assert_status(UNROLL_OK, unroll_graph_create(NULL, &g, &err));
  const unroll_tensor x = unroll_input(g, "x", UNROLL_F32, 2, (int64_t[]){4, 3});
  unroll_output(unroll_tanh(unroll_softmax(unroll_tanh(x))), "y");
  unroll_device *d = runs_device(ctx, "patchwork:0", "mask=softmax", "group=one", NULL);
  unroll_executable *e;
  assert_status(UNROLL_E_PLUGIN, unroll_compile(g, &d, 1, NULL, &e, &err));
  assert_null(e);
  assert_non_null(strstr(err.message, "patchwork:0"));
  assert_non_null(strstr(err.message, "convex"));
  unroll_device_close(d);

  /* Where another device took a part of a group, the group was never promised: the rest goes on to the next, node by
   * node. */
  unroll_device *two[] = {runs_device(ctx, "patchwork:0", "take=softmax", NULL),
                          runs_device(ctx, "patchwork:0", "group=one", NULL)};
  const training w = {.T = 1, .V = 1};
  results want = on_cpu(ctx, g, &w), got = runs_all(g, two, 2, NULL, &w, 1);
  assert_same(&got, &want);
  assert_int_equal(log_count(&seen, "is not taken by patchwork:0 and runs on cpu:0"), 2);
  results_free(&got);
  results_free(&want);
  unroll_device_close(two[0]);
  unroll_device_close(two[1]);
  unroll_graph_destroy(g);
  unroll_context_destroy(ctx);
}

/* ---- plugins that cannot what they claim ---- */

static void failed_compile_goes_to_the_next_device(void **state) {
  (void)state;
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_context *ctx = runs_context(NULL, &seen);
  unroll_graph *g = runs_training(&lstm);
  results want = on_cpu(ctx, g, &lstm);
  for (int n = 1; n < 40; n++) {
    char option[32];
    snprintf(option, sizeof option, "fail_compile=%d", n);
    seen = (run_log){.n = 0};
    unroll_device *d = runs_device(ctx, "patchwork", "mask=reduce,optimizer", option, NULL);
    results got = runs_all(g, &d, 1, NULL, &lstm, RUNS);
    assert_same(&got, &want);
    results_free(&got);
    unroll_device_close(d);
    const uint32_t said = log_count(&seen, "patchwork: told to fail compile");
    if (said == 0) {
      assert_true(n > 3);
      break;
    }
    assert_int_equal(said, 1);
    assert_true(log_count(&seen, "fallback: patchwork:0 cannot compile ") == 1);
    assert_true(n < 39);
  }
  results_free(&want);

  unroll_device *d = runs_device(ctx, "patchwork", "fail_compile=1", NULL);
  unroll_executable *e;
  assert_status(UNROLL_E_DEVICE, unroll_compile(g, &d, 1, &strict, &e, &err));
  assert_non_null(strstr(err.message, "told to fail"));
  unroll_device_close(d);
  unroll_graph_destroy(g);
  unroll_context_destroy(ctx);
}

/* Another device is no answer to these. */
static void some_failures_are_final(void **state) {
  (void)state;
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_context *ctx = runs_context(NULL, &seen);
  unroll_graph *g = runs_training(&lstm);
  const unroll_status codes[] = {UNROLL_E_MEMORY, UNROLL_E_DEVICE_LOST};
  for (int i = 0; i < 2; i++) {
    char code[40];
    snprintf(code, sizeof code, "fail_compile_code=%d", codes[i]);
    unroll_device *d = runs_device(ctx, "patchwork", "fail_compile=1", code, NULL);
    unroll_executable *e;
    assert_status(codes[i], unroll_compile(g, &d, 1, NULL, &e, &err));
    assert_non_null(strstr(err.message, "told to fail"));
    unroll_device_close(d);
  }
  const unroll_option option = {"fail_open", "-10"};
  unroll_device *d;
  assert_int_equal(UNROLL_E_DEVICE_LOST, -10);
  assert_status(UNROLL_E_DEVICE_LOST, unroll_device_open(ctx, "patchwork", &option, 1, &d, &err));
  assert_null(d);
  assert_non_null(strstr(err.message, "told not to open"));
  unroll_graph_destroy(g);
  unroll_context_destroy(ctx);
}

/* How many layers and gradients of layers did a device take whole? */
static int32_t kept_layers(const unroll_executable *e) {
  int32_t n = 0;
  for (uint32_t i = 0; i < e->graph->n_nodes; i++)
    n += is_layer(&e->graph->nodes[i]);
  return n;
}

static void layer_that_cannot_be_compiled_is_lowered(void **state) {
  (void)state;
  unroll_context *ctx = runs_context(NULL, &seen);
  unroll_graph *g = runs_training(&lstm);
  unroll_device *d = runs_device(ctx, "patchwork", "layers=1", NULL);
  results want = on_cpu(ctx, g, &lstm), got = runs_all(g, &d, 1, NULL, &lstm, RUNS);
  assert_same(&got, &want);
  assert_int_equal(log_count(&seen, "fallback: patchwork:0 cannot compile"), 1);
  assert_int_equal(log_count(&seen, "fallback: "), 1);
  results_free(&got);
  results_free(&want);
  unroll_device_close(d);
  unroll_graph_destroy(g);
  unroll_context_destroy(ctx);
}

/*
 * A device that takes rnn layers whole, computes them in double and rounds once: the tolerance is that of
 * opencl_shares_with_the_reference, in f64, with the same chain.
 */
static void reserve_stands_for_saved_values(void **state) {
  (void)state;
  static const struct {
    const char *option;
    int32_t kept; /* layers and gradients that stay whole */
    bool refused; /* in the second offer */
  } cases[] = {{NULL, 4, false},        {"plain=1", 4, false},      {"take=layer", 0, false},
               {"take=grad", 0, false}, {"grad_extra=8", 0, false}, {"again=0", 0, true}};
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_context *ctx = runs_context(NULL, &seen);
  for (size_t i = 0; i < 2 * (sizeof cases / sizeof *cases); i++) {
    const int k = (int)i / 2;
    training w = lstm;
    w.cell = UNROLL_CELL_RNN;
    w.dtype = UNROLL_F64;
    w.lengths = false;
    w.direction = i % 2 ? UNROLL_REVERSE : UNROLL_FORWARD;
    unroll_graph *g = runs_training(&w);
    seen = (run_log){.n = 0};
    unroll_device *d = runs_device(ctx, "reserver", cases[k].option, NULL);
    unroll_executable *e;
    assert_status(UNROLL_OK, unroll_compile(g, &d, 1, &strict, &e, &err));
    assert_int_equal(kept_layers(e), cases[k].kept);
    unroll_executable_destroy(e);
    assert_int_equal(log_count(&seen, "not when it was offered again"), cases[k].refused);
    results want = on_cpu(ctx, g, &w), got = runs_all(g, &d, 1, NULL, &w, RUNS);
    assert_near(&got, &want, 8 * 2 * RUNS * 7 * 25 * 1.12e-16);
    results_free(&got);
    results_free(&want);
    unroll_device_close(d);
    unroll_graph_destroy(g);
  }
  unroll_context_destroy(ctx);
}

static void fixed_sizes_are_wanted(void **state) {
  (void)state;
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_context *ctx = runs_context(NULL, &seen);
  for (int runtime = 0; runtime < 2; runtime++) {
    training w = lstm;
    w.runtime_T = runtime;
    unroll_graph *g = runs_training(&w);
    unroll_device *d = runs_device(ctx, "patchwork", "fixed_dims=1", "group=runs", NULL);
    unroll_executable *e;
    assert_status(UNROLL_OK, unroll_compile(g, &d, 1, NULL, &e, &err));
    assert_int_equal(unroll_executable_describe(e).n_fallbacks == 0, !runtime);
    unroll_executable_destroy(e);
    results want = on_cpu(ctx, g, &w), got = runs_all(g, &d, 1, NULL, &w, RUNS);
    assert_same(&got, &want);
    results_free(&got);
    results_free(&want);
    unroll_device_close(d);
    unroll_graph_destroy(g);
  }
  unroll_context_destroy(ctx);
}

/* Buffers of 2048 bytes, tensors aligned to 256: scratch is spread over many arenas. */
static void small_buffers_make_many_arenas(void **state) {
  (void)state;
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_context *ctx = runs_context(NULL, &seen);
  training w = lstm;
  w.T = 6; /* [T,B,4H] f32 is 1440 bytes */
  unroll_graph *g = runs_training(&w);
  unroll_device *d = runs_device(ctx, "patchwork:small", NULL);
  assert_int_equal(unroll_device_describe(d)->max_buffer, 2048);
  unroll_executable *e;
  assert_status(UNROLL_OK, unroll_compile(g, &d, 1, NULL, &e, &err));
  assert_true(unroll_executable_describe(e).scratch_bytes > 3 * 2048);
  assert_int_equal(unroll_executable_describe(e).n_fallbacks, 0);
  unroll_executable_destroy(e);
  results want = on_cpu(ctx, g, &w), got = runs_all(g, &d, 1, NULL, &w, RUNS);
  assert_same(&got, &want);
  results_free(&got);
  results_free(&want);
  unroll_graph_destroy(g);

  w.T = 60;
  g = runs_training(&w);
  assert_status(UNROLL_E_DEVICE_MEMORY, unroll_compile(g, &d, 1, NULL, &e, &err));
  assert_non_null(strstr(err.message, "patchwork:small"));
  assert_non_null(strstr(err.message, "2048"));
  unroll_device_close(d);
  unroll_graph_destroy(g);
  unroll_context_destroy(ctx);
}

/* A step's views of what the loop reads and carries, on either device: lives as long as the loop, stands where it is
 * read. */
static void views_inside_of_a_scan(void **state) {
  (void)state;
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_context *ctx = runs_context(NULL, &seen);
  const training w = {.T = 5, .V = 1};
  unroll_graph *g;
  assert_status(UNROLL_OK, unroll_graph_create(NULL, &g, &err));
  const int64_t T = 5, B = 4, H = 6;
  const unroll_tensor x = unroll_tanh(unroll_input(g, "x", UNROLL_F32, 3, (int64_t[]){T, B, H}));
  const unroll_tensor h0 = unroll_param(g, "h0", UNROLL_F32, 2, (int64_t[]){B, H});
  const unroll_tensor W = unroll_tanh(unroll_param(g, "W", UNROLL_F32, 2, (int64_t[]){H, H}));
  unroll_scan *s = unroll_scan_begin(g, UNROLL_FORWARD, unroll_none());
  const unroll_tensor x_t = unroll_scan_input(s, x), h = unroll_scan_carry(s, h0);
  const unroll_tensor low = unroll_slice(h, 0, 0, 2), high = unroll_slice(h, 0, 2, 2);
  const unroll_tensor both = unroll_concat((unroll_tensor[]){high, low}, 2, 0);
  const unroll_tensor flat = unroll_reshape(x_t, 1, (int64_t[]){B * H});
  const unroll_tensor sum =
      unroll_reshape(unroll_add(flat, unroll_reshape(both, 1, (int64_t[]){B * H})), 2, (int64_t[]){B, H});
  const unroll_tensor next = unroll_tanh(unroll_matmul(unroll_softmax(sum), unroll_slice(W, 0, 0, H)));
  unroll_scan_next(s, h, next);
  const unroll_tensor y = unroll_scan_output(s, unroll_slice(next, 0, 1, 3)), last = unroll_scan_last(s, h);
  unroll_scan_end(s);
  unroll_output(y, "y");
  unroll_output(last, "last");
  assert_status(UNROLL_OK, unroll_graph_status(g, &err));

  results want = on_cpu(ctx, g, &w);
  const char *const masks[] = {"mask=concat", "mask=binary", "mask=softmax",
                               "mask=matmul", "take=unary",  "mask=constant"};
  for (size_t i = 0; i < sizeof masks / sizeof *masks; i++)
    for (int way = 0; way < 3; way++) {
      unroll_device *d = runs_device(ctx, "patchwork", masks[i], way == 2 ? "group=runs" : "fixed_dims=0", NULL);
      results got = runs_all(g, &d, 1, way ? &crossing : NULL, &w, RUNS);
      assert_same(&got, &want);
      results_free(&got);
      unroll_device_close(d);
    }
  results_free(&want);

  /* The reference against the formulas, so that all of the above is not wrong alike. */
  unroll_device *cpu = runs_device(ctx, "cpu", NULL);
  unroll_executable *e;
  unroll_binding *b;
  assert_status(UNROLL_OK, unroll_compile(g, &cpu, 1, NULL, &e, &err));
  assert_status(UNROLL_OK, unroll_binding_create(e, &b, &err));
  float xs[5 * 4 * 6], Ws[6 * 6] = {0}, got[5 * 3 * 6], hs[4][6] = {{0}};
  for (int i = 0; i < 120; i++)
    xs[i] = (float)(i % 17) / 17 - 0.5F;
  for (int i = 0; i < 6; i++)
    Ws[i * 6 + i] = 1;
  assert_status(UNROLL_OK, unroll_binding_write(b, "x", xs, sizeof xs, &err));
  assert_status(UNROLL_OK, unroll_binding_write(b, "W", Ws, sizeof Ws, &err));
  assert_status(UNROLL_OK, unroll_run(b, NULL, &err));
  assert_status(UNROLL_OK, unroll_binding_read(b, "y", got, sizeof got, &err));
  for (int t = 0; t < 5; t++) {
    double p[4][6];
    for (int r = 0; r < 4; r++) {
      double total = 0;
      for (int k = 0; k < 6; k++)
        total += p[r][k] = exp(tanh((double)xs[(t * 4 + r) * 6 + k]) + (double)hs[(r + 2) % 4][k]);
      for (int k = 0; k < 6; k++)
        p[r][k] = tanh(p[r][k] / total * tanh(1));
    }
    for (int r = 0; r < 4; r++)
      for (int k = 0; k < 6; k++) {
        hs[r][k] = (float)p[r][k];
        if (r >= 1)
          assert_true(fabs((double)got[(t * 3 + r - 1) * 6 + k] - p[r][k]) < 1e-6);
      }
  }
  unroll_binding_destroy(b);
  unroll_executable_destroy(e);
  unroll_device_close(cpu);
  unroll_graph_destroy(g);
  unroll_context_destroy(ctx);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(any_op_may_run_elsewhere),
      cmocka_unit_test(every_cell_crosses_devices),
      cmocka_unit_test(opencl_shares_with_the_reference),
      cmocka_unit_test(log_names_each_fallback),
      cmocka_unit_test(scan_moves_as_a_whole_or_crosses_when_asked),
      cmocka_unit_test(three_devices_make_one_run),
      cmocka_unit_test(private_groups_give_the_same),
      cmocka_unit_test(views_and_inputs_do_not_break_a_private_group),
      cmocka_unit_test(updated_value_is_brought_again),
      cmocka_unit_test(group_that_is_not_convex_is_an_error),
      cmocka_unit_test(failed_compile_goes_to_the_next_device),
      cmocka_unit_test(some_failures_are_final),
      cmocka_unit_test(layer_that_cannot_be_compiled_is_lowered),
      cmocka_unit_test(reserve_stands_for_saved_values),
      cmocka_unit_test(fixed_sizes_are_wanted),
      cmocka_unit_test(small_buffers_make_many_arenas),
      cmocka_unit_test(views_inside_of_a_scan),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
