/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Recurrent layers with options, and all their gradients, against plain step loops in PyTorch, f64, masks drawn by a second
 * implementation of the generator: every tests/golden/cell_*.safetensors, on every device. golden/README.md has what was
 * held against ONNX Runtime and torch.nn on the way.
 */
#include "devices.h"
#include "golden.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unroll/nn.h>

enum {
  AS_IT_IS = 0,
  RUNTIME_TIME = 1, /* planned for 9 steps, run for 5 */
  NAN_PAST_END = 2, /* x and dy are NaN past each sequence's end */
  WITH_GATES = 4,   /* which are asked for, and change nothing */
};

typedef struct cell_case {
  golden file;
  int32_t variant;
  int64_t T, B, I, H, P, D;
  int32_t *lengths; /* NULL: all T */
  unroll_rnn_options options;
} cell_case;

static cell_case case_open(const char *name, int32_t variant) {
  cell_case c = {.file = golden_open(name), .variant = variant};
  const golden *g = &c.file;
  c.options = golden_rnn_options(g);
  c.T = golden_integer(g, "T");
  c.B = golden_integer(g, "B");
  c.I = golden_integer(g, "I");
  c.H = c.options.hidden;
  c.P = c.options.projection ? c.options.projection : c.H;
  c.D = c.options.bidirectional ? 2 : 1;
  c.lengths = golden_has(g, "lengths") ? golden_integers(g, "lengths", NULL) : NULL;
  return c;
}

static void case_close(cell_case *c) {
  golden_close(&c->file);
  free(c->lengths);
}

static bool begins(const char *s, const char *with) { return strncmp(s, with, strlen(with)) == 0; }
static bool is_result(const char *name) {
  return begins(name, "grad.") || strcmp(name, "y") == 0 || begins(name, "h_last.") || begins(name, "c_last.") ||
         begins(name, "c_all.");
}

enum { ROOM = 16, NAMES = 96 };

/* Results and their upstream gradients, by the names of the file. */
typedef struct results {
  unroll_tensor y[ROOM], dy[ROOM];
  char names[ROOM][32];
  uint32_t n;
} results;

static void add_result(results *r, const cell_case *c, unroll_graph *g, int32_t dtype, unroll_tensor y,
                       const char *name) {
  char upstream[40];
  snprintf(upstream, sizeof upstream, "d%s", name);
  if (!y.graph || !golden_has(&c->file, name))
    return;
  assert_in_range(r->n, 0, ROOM - 1);
  const unroll_stored_tensor t = golden_describe(&c->file, name);
  int64_t shape[UNROLL_MAX_RANK];
  memcpy(shape, t.shape, sizeof shape);
  if (t.rank == 3 && c->variant & RUNTIME_TIME)
    shape[0] = -1; /* the graph's first run-time size */
  r->y[r->n] = y;
  r->dy[r->n] = unroll_input(g, upstream, dtype, t.rank, shape);
  snprintf(r->names[r->n++], sizeof *r->names, "%s", name);
}

static void build(cell_case *c, unroll_graph *g, int32_t dtype) {
  const int64_t T = c->variant & RUNTIME_TIME ? unroll_graph_dim(g, "T", 1, 9) : c->T;
  const unroll_tensor x = unroll_input(g, "x", dtype, 3, (int64_t[]){T, c->B, c->I});
  const int32_t n = c->options.layers * (int32_t)c->D;
  unroll_tensor h0[4], c0[4], h_last[4], c_last[4], c_all[4], gates[4], wrt[NAMES], d[NAMES];
  results r = {.n = 0};
  char name[32];
  assert_in_range(n, 1, 4);
  for (int32_t i = 0; i < n; i++) {
    c_all[i] = unroll_none();
    snprintf(name, sizeof name, "h0.%d.%d", i / (int32_t)c->D, i % (int32_t)c->D);
    h0[i] = unroll_input(g, name, dtype, 2, (int64_t[]){c->B, c->P});
    name[0] = 'c';
    c0[i] = golden_has(&c->file, name) ? unroll_input(g, name, dtype, 2, (int64_t[]){c->B, c->H}) : unroll_none();
  }
  if (c->lengths)
    c->options.lengths = unroll_input(g, "lengths", UNROLL_I32, 1, &c->B);
  c->options.cells = golden_number(&c->file, "cells", 0) != 0 ? c_all : NULL;
  c->options.gates = c->variant & WITH_GATES ? gates : NULL;
  unroll_rnn_state last = {h_last, c_last};
  add_result(&r, c, g, dtype, unroll_rnn(x, "", &c->options, &(unroll_rnn_state){h0, c0}, &last), "y");
  for (int32_t i = 0; i < n; i++) {
    const struct {
      const char *name;
      unroll_tensor tensor;
    } of[] = {{"h_last", h_last[i]}, {"c_last", c_last[i]}, {"c_all", c_all[i]}};
    for (int k = 0; k < 3; k++) {
      snprintf(name, sizeof name, "%s.%d.%d", of[k].name, i / (int32_t)c->D, i % (int32_t)c->D);
      add_result(&r, c, g, dtype, of[k].tensor, name);
    }
  }
  const char *names[NAMES];
  uint32_t n_wrt = 0;
  for (uint64_t i = 0; i < unroll_safetensors_count(c->file.file); i++) {
    unroll_stored_tensor t;
    assert_int_equal(unroll_safetensors_get(c->file.file, i, &t, NULL), UNROLL_OK);
    if (!begins(t.name, "grad."))
      continue;
    assert_in_range(n_wrt, 0, NAMES - 1);
    names[n_wrt] = t.name;
    wrt[n_wrt] = unroll_graph_find(g, t.name + 5);
    if (!wrt[n_wrt++].graph)
      fail_msg("%s: the layers have no %s", c->file.name, t.name + 5);
  }
  unroll_vjp(r.y, r.dy, r.n, wrt, n_wrt, d);
  for (uint32_t i = 0; i < n_wrt; i++)
    unroll_output(d[i], names[i]);
  for (uint32_t i = 0; i < r.n; i++)
    unroll_output(r.y[i], r.names[i]);
  for (int32_t i = 0; i < n && c->options.gates; i++) {
    snprintf(name, sizeof name, "gates.%d", i);
    unroll_output(gates[i], name);
  }
}

static void put_inputs(const cell_case *c, model *m) {
  for (uint64_t i = 0; i < unroll_safetensors_count(c->file.file); i++) {
    unroll_stored_tensor t;
    int64_t n;
    assert_int_equal(unroll_safetensors_get(c->file.file, i, &t, NULL), UNROLL_OK);
    if (is_result(t.name) || strcmp(t.name, "lengths") == 0)
      continue;
    double *v = golden_values(&c->file, t.name, &n);
    if (c->variant & NAN_PAST_END && t.rank == 3) {
      const int64_t inner = n / (c->T * c->B);
      for (int64_t at = 0; at < n; at++)
        if (at / (inner * c->B) >= c->lengths[at / inner % c->B])
          v[at] = NAN;
    }
    model_put(m, t.name, v, n);
    free(v);
  }
  if (c->lengths)
    model_put_i32(m, "lengths", c->lengths, c->B);
}

/*
 * f64: both sides round a few hundred times at 1e-16; 1e-10 leaves room for any order of summing and fails for any wrong term.
 * f32: 2^-24 = 6e-8 a rounding. A value has gone through at most T·layers = 10 steps of at most four normalisations, products and
 * gates, whose gradient divides by deviations down to 0.2 and so enlarges what was rounded before: 5e-5 of the largest
 * value is 800 roundings that do not cancel.
 */
static double tolerance(int32_t dtype) { return dtype == UNROLL_F64 ? 1e-10 : 5e-5; }

static void run_case(const char *name, int32_t variant, unroll_device *dev, int32_t dtype) {
  cell_case c = case_open(name, variant);
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_graph *g;
  assert_status(UNROLL_OK, unroll_graph_create(NULL, &g, &err));
  build(&c, g, dtype);
  model m = model_open(g, dev, true);
  m.options.seed = (uint64_t)golden_integer(&c.file, "seed");
  m.options.update = (uint64_t)golden_integer(&c.file, "update");
  if (variant & RUNTIME_TIME)
    model_set_dim(&m, c.T);
  put_inputs(&c, &m);
  model_run(&m);
  int compared = 0;
  for (uint64_t i = 0; i < unroll_safetensors_count(c.file.file); i++) {
    unroll_stored_tensor t;
    int64_t n;
    assert_int_equal(unroll_safetensors_get(c.file.file, i, &t, NULL), UNROLL_OK);
    if (!is_result(t.name))
      continue;
    char what[160];
    snprintf(what, sizeof what, "%s, variant %d, %s: %s", name, variant, unroll_dtype_name(dtype), t.name);
    double *want = golden_values(&c.file, t.name, &n), *got = model_get(&m, t.name, n);
    assert_close(what, got, want, n, tolerance(dtype));
    free(want);
    free(got);
    compared++;
  }
  assert_in_range(compared, 6, NAMES); /* y, h_last, and the gradients of x, W_x, b, h0 at least */
  model_close(&m);
  unroll_graph_destroy(g);
  case_close(&c);
}

/* The files whose names begin so, f64 and f32; ragged: those with lengths alone. */
static void run_files(void **state, const char *begin, int32_t variant) {
  uint32_t n, n_run = 0;
  char **names = golden_list(begin, &n);
  for (uint32_t i = 0; i < n; i++) {
    golden file = golden_open(names[i]);
    const bool ragged = golden_has(&file, "lengths");
    golden_close(&file);
    if (variant & NAN_PAST_END && !ragged)
      continue;
    static const int32_t dtypes[] = {UNROLL_F64, UNROLL_F32};
    for (int k = 0; k < 2; k++)
      FOR_EACH_DEVICE(dev, *state, dtypes[k]) {
        run_case(names[i], variant, dev, dtypes[k]);
        n_run++;
      }
  }
  golden_list_free(names, n);
  assert_in_range(n_run, 1, 100000);
}

static void every_file(void **state) { run_files(state, "cell_", AS_IT_IS); }
static void nan_past_the_end_changes_nothing(void **state) { run_files(state, "cell_", NAN_PAST_END); }
static void gates_change_nothing(void **state) { run_files(state, "cell_", WITH_GATES); }
static void time_known_at_run_time(void **state) {
  run_files(state, "cell_lstm_everything", RUNTIME_TIME | NAN_PAST_END);
  run_files(state, "cell_gru_everything", RUNTIME_TIME);
  run_files(state, "cell_min_", RUNTIME_TIME);
  run_files(state, "cell_dropouts", RUNTIME_TIME);
}

int main(void) {
  const struct CMUnitTest tests[] = {DEVICE_TESTS(every_file), DEVICE_TESTS(nan_past_the_end_changes_nothing),
                                     DEVICE_TESTS(gates_change_nothing), DEVICE_TESTS(time_known_at_run_time)};
  return cmocka_run_group_tests(tests, devices_open, devices_close);
}
