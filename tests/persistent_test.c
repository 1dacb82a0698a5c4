/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Layers whose steps are one launch of work-groups that wait for each other (recurrence=persistent): the numbers are those
 * of the reference, forward and gradient; a launch for all steps; a device on which groups don't meet gets a launch a step
 * instead, whether that shows before or during a run.
 *
 * PoCL gives each of its threads a work-group where there are fewer groups than threads: then all are resident, on
 * however few cores. A device of another driver that has fewer than the units want takes a launch a step, which is right
 * too: then the test is skipped.
 */
#include "opencl_lives.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unroll/nn.h>

enum { T = 5, I = 4 };

typedef struct layer_case {
  const char *name;
  int32_t cell, direction, dtype;
  int64_t B, H;
  bool lengths, gradients, half;
} layer_case;

/* ---- a layer, and numbers for it ---- */
static unroll_graph *graph_of(const layer_case *w) {
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_graph *g;
  assert_status(UNROLL_OK, unroll_graph_create(NULL, &g, &err));
  const int64_t G = w->cell == UNROLL_CELL_RNN ? 1 : w->cell == UNROLL_CELL_LSTM ? 4 : 3, H = w->H;
  unroll_layer_inputs in = {.x = unroll_input(g, "x", w->dtype, 3, (int64_t[]){T, w->B, I}),
                            .W_x = unroll_param(g, "W_x", w->dtype, 2, (int64_t[]){G * H, I}),
                            .W_h = unroll_param(g, "W_h", w->dtype, 2, (int64_t[]){G * H, H}),
                            .b = unroll_param(g, "b", w->dtype, 1, (int64_t[]){G * H}),
                            .h0 = unroll_input(g, "h_0", w->dtype, 2, (int64_t[]){w->B, H})};
  if (w->cell == UNROLL_CELL_GRU_AFTER)
    in.b_n = unroll_param(g, "b_n", w->dtype, 1, (int64_t[]){H});
  if (w->cell == UNROLL_CELL_LSTM)
    in.c0 = unroll_input(g, "c_0", w->dtype, 2, (int64_t[]){w->B, H});
  if (w->lengths)
    in.lengths = unroll_input(g, "lengths", UNROLL_I32, 1, (int64_t[]){w->B});
  const unroll_layer_attr attr = {.cell = w->cell, .direction = w->direction, .activation = UNROLL_TANH};
  const unroll_layer_outputs out = unroll_layer(&in, &attr, 0);
  unroll_output(out.y, "y");
  unroll_output(out.h_last, "h_T");
  if (w->gradients) {
    const unroll_tensor dy = unroll_input(g, "dy", w->dtype, 3, (int64_t[]){T, w->B, H});
    const unroll_tensor of[] = {in.x, in.W_x, in.W_h, in.b, in.h0};
    static const char *const names[] = {"dx", "dW_x", "dW_h", "db", "dh_0"};
    unroll_tensor d[5];
    unroll_vjp(&out.y, &dy, 1, of, 5, d);
    for (int i = 0; i < 5; i++)
      unroll_output(d[i], names[i]);
  }
  assert_status(UNROLL_OK, unroll_graph_status(g, &err));
  return g;
}

static int64_t elements(const unroll_tensor_info *t) {
  int64_t n = 1;
  for (int32_t i = 0; i < t->rank; i++)
    n *= t->shape[i];
  return n;
}

/* Multiples of 1/64, which half holds, so that the reference may multiply the same; few of the weights are not 0. */
static void fill(unroll_graph *g, unroll_binding *b) {
  static const int32_t lengths[] = {3, T};
  unroll_error err = UNROLL_ERROR_INIT;
  for (uint32_t i = 0; i < unroll_graph_count(g); i++) {
    const unroll_tensor_info info = unroll_tensor_describe(unroll_graph_tensor(g, i));
    if (info.role != UNROLL_ROLE_INPUT && info.role != UNROLL_ROLE_PARAM)
      continue;
    const int64_t n = elements(&info);
    if (info.dtype == UNROLL_I32) {
      assert_status(UNROLL_OK, unroll_binding_write(b, info.name, lengths, (size_t)n * sizeof *lengths, &err));
      continue;
    }
    void *data = malloc((size_t)n * sizeof(double));
    assert_non_null(data);
    uint32_t seed = (uint32_t)(i + 1) * 2654435761u;
    for (int64_t k = 0; k < n; k++) {
      seed = seed * 1664525u + 1013904223u;
      const double x = n > 20000 && seed >> 28 != 0 ? 0 : ((double)(seed >> 8 & 63) - 31.5) / 64;
      const double rounded = floor(x * 64) / 64;
      if (info.dtype == UNROLL_F64)
        ((double *)data)[k] = rounded;
      else
        ((float *)data)[k] = (float)rounded;
    }
    assert_status(UNROLL_OK, unroll_binding_write(b, info.name, data, (size_t)n * unroll_dtype_size(info.dtype), &err));
    free(data);
  }
}

/* ---- a run ---- */
typedef struct counts {
  int forward, backward;
} counts;

static void count(void *ctx, const unroll_profile_entry *e) {
  counts *c = ctx;
  c->forward += strcmp(e->label, "forward") == 0;
  c->backward += strcmp(e->label, "backward") == 0;
}

typedef struct numbers {
  double *of;
  size_t n;
} numbers;

static unroll_binding *bind(unroll_executable *e) {
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_binding *b;
  assert_status(UNROLL_OK, unroll_binding_create(e, &b, &err));
  return b;
}

static numbers run(unroll_graph *g, unroll_binding *b, counts *c) {
  unroll_error err = UNROLL_ERROR_INIT;
  assert_status(UNROLL_OK, unroll_binding_profile(b, 0, &err));
  assert_status(UNROLL_OK, unroll_binding_profile(b, 1, &err));
  fill(g, b);
  *c = (counts){0};
  assert_status(UNROLL_OK, unroll_run(b, NULL, &err));
  assert_status(UNROLL_OK, unroll_binding_profile_read(b, count, c, &err));
  numbers out = {0};
  for (uint32_t i = 0; i < unroll_graph_count(g); i++) {
    const unroll_tensor_info info = unroll_tensor_describe(unroll_graph_tensor(g, i));
    if (info.role != UNROLL_ROLE_OUTPUT)
      continue;
    const size_t n = (size_t)elements(&info);
    void *data = malloc(n * sizeof(double));
    out.of = realloc(out.of, (out.n + n) * sizeof *out.of);
    assert_true(data && out.of);
    assert_status(UNROLL_OK, unroll_binding_read(b, info.name, data, n * unroll_dtype_size(info.dtype), &err));
    for (size_t k = 0; k < n; k++)
      out.of[out.n + k] = info.dtype == UNROLL_F64 ? ((double *)data)[k] : (double)((float *)data)[k];
    out.n += n;
    free(data);
  }
  return out;
}

static numbers run_once(unroll_graph *g, unroll_device *d, counts *c) {
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_executable *e;
  const unroll_compile_options strict = {.struct_size = sizeof strict, .strict = 1};
  assert_status(UNROLL_OK, unroll_compile(g, &d, 1, &strict, &e, &err));
  unroll_binding *b = bind(e);
  const numbers out = run(g, b, c);
  unroll_binding_destroy(b);
  unroll_executable_destroy(e);
  return out;
}

/* Sums of some hundred products in another order, through T steps. */
static void assert_agree(const layer_case *w, numbers a, numbers b) {
  const double tolerance = w->dtype == UNROLL_F64 ? 1e-13 : 1e-5;
  double largest = 0;
  assert_int_equal(a.n, b.n);
  for (size_t i = 0; i < b.n; i++)
    largest = fmax(largest, fabs(b.of[i]));
  for (size_t i = 0; i < b.n; i++)
    if (!(fabs(a.of[i] - b.of[i]) <= tolerance * largest))
      fail_msg("%s: number %zu is %.17g, expected %.17g", w->name, i, a.of[i], b.of[i]);
}

static numbers reference(unroll_context *ctx, unroll_graph *g) {
  counts c;
  unroll_device *d = runs_device(ctx, "cpu", NULL);
  const numbers out = run_once(g, d, &c);
  unroll_device_close(d);
  return out;
}

static unroll_device *open_persistent(unroll_context *ctx, const layer_case *w) {
  return runs_device(ctx, "opencl", "kernels=gpu", "recurrence=persistent", "matrix=off",
                     w->half ? "precision=half" : "precision=float", NULL);
}

/* ---- tests ---- */
/* Small: PoCL's compiler takes very long over many values that live across barriers, as the weights here do. */
static const layer_case cases[] = {
    /* Two groups; the reserve is there; a row that ends before the others. */
    {"lstm", UNROLL_CELL_LSTM, UNROLL_FORWARD, UNROLL_F32, 2, 12, true, true, false},
    {"gru", UNROLL_CELL_GRU, UNROLL_REVERSE, UNROLL_F32, 1, 11, false, true, false}, /* two phases */
    {"gru_after", UNROLL_CELL_GRU_AFTER, UNROLL_REVERSE, UNROLL_F32, 1, 10, true, true, true},
    {"rnn", UNROLL_CELL_RNN, UNROLL_FORWARD, UNROLL_F64, 2, 36, false, true, false}, /* sums are split */
};

static void numbers_are_the_references(void **state) {
  (void)state;
  need_device();
  disarm();
  int tried = 0;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    const layer_case *w = &cases[i];
    unroll_context *ctx = runs_context(NULL, &seen);
    unroll_device *d = open_persistent(ctx, w);
    unroll_graph *g = graph_of(w);
    counts c;
    const numbers want = reference(ctx, g), got = run_once(g, d, &c);
    assert_agree(w, got, want);
    if (log_count(&seen, "don't wait for each other") == 0) {
      tried++;
      assert_int_equal(c.forward, 1);
      assert_int_equal(c.backward, w->gradients ? 1 : 0);
    }
    free(want.of);
    free(got.of);
    unroll_graph_destroy(g);
    unroll_device_close(d);
    unroll_context_destroy(ctx);
  }
  if (!tried)
    skip();
}

/* In the rehearsal, which is part of compiling, nobody waits for who comes later. */
static void groups_that_do_not_meet(void **state) {
  (void)state;
  need_device();
  disarm();
  const layer_case *w = &cases[0];
  unroll_context *ctx = runs_context(NULL, &seen);
  unroll_device *d = open_persistent(ctx, w);
  unroll_graph *g = graph_of(w);
  counts c;
  const numbers want = reference(ctx, g);
  f->hurried = "-DPERSISTENT=1";
  const numbers got = run_once(g, d, &c);
  f->hurried = NULL;
  assert_agree(w, got, want);
  assert_true(log_count(&seen, "don't wait for each other") > 0);
  assert_int_equal(log_count(&seen, "as they did before"), 0);
  free(want.of);
  free(got.of);
  unroll_graph_destroy(g);
  unroll_device_close(d);
  unroll_context_destroy(ctx);
}

/* The rehearsal was right, and then somebody comes too late. */
static void groups_that_stop_meeting(void **state) {
  (void)state;
  need_device();
  disarm();
  const layer_case *w = &cases[0];
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_context *ctx = runs_context(NULL, &seen);
  unroll_device *d = open_persistent(ctx, w);
  unroll_graph *g = graph_of(w);
  unroll_executable *e;
  counts whole, cut, after;
  assert_status(UNROLL_OK, unroll_compile(g, &d, 1, NULL, &e, &err));
  unroll_binding *b = bind(e);
  const numbers want = run(g, b, &whole);
  if (log_count(&seen, "don't wait for each other") == 0) {
    f->hurried = "-DPERSISTENT=1";
    unroll_binding *late = bind(e);
    const numbers got = run(g, late, &cut);
    f->hurried = NULL;
    const numbers again = run(g, b, &after);
    unroll_binding_destroy(late);
    assert_int_equal(whole.forward, 1);
    assert_int_equal(cut.forward, 1 + T); /* the launch that was given up, and its steps */
    assert_int_equal(after.forward, T);
    assert_in_range(cut.backward, T, T + 1); /* by then no other is tried */
    assert_int_equal(after.backward, cut.backward);
    assert_int_equal(log_count(&seen, "as they did before"), 1);
    /* A launch a step adds in the same order. */
    assert_int_equal(got.n, want.n);
    assert_memory_equal(got.of, want.of, want.n * sizeof *want.of);
    assert_memory_equal(again.of, want.of, want.n * sizeof *want.of);
    free(got.of);
    free(again.of);
  }
  free(want.of);
  unroll_binding_destroy(b);
  unroll_executable_destroy(e);
  unroll_graph_destroy(g);
  unroll_device_close(d);
  unroll_context_destroy(ctx);
  if (whole.forward != 1)
    skip();
}

int main(void) {
  setenv("POCL_MAX_PTHREAD_COUNT", "8", 1);
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(numbers_are_the_references),
      cmocka_unit_test(groups_that_do_not_meet),
      cmocka_unit_test(groups_that_stop_meeting),
  };
  return cmocka_run_group_tests(tests, lives_open, lives_close);
}
