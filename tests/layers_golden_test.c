/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Recurrent layers and all their gradients against PyTorch in f64: every tests/golden/layer_*.safetensors, on every device.
 * See golden/README.md for what the files hold.
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
  RUNTIME_TIME = 1,  /* planned for 11 steps, run for 7 */
  NAN_PAST_END = 2,  /* x and dy are NaN past each sequence's end */
  WITHOUT_EMPTY = 4, /* rows of length 0 are left out of the batch: the others' results stay as they were */
};

typedef struct layer_case {
  golden file;
  int32_t variant, cell, activation, layers, D;
  int64_t T, B, I, H;
  int32_t *lengths; /* NULL: all T */
  int64_t rows[8], n_rows;
} layer_case;

static layer_case case_open(const char *name, int32_t variant) {
  layer_case c = {.file = golden_open(name), .variant = variant};
  c.cell = golden_cell(&c.file);
  c.activation = golden_activation(&c.file);
  assert_int_not_equal(c.activation, 0);
  c.layers = (int32_t)golden_integer(&c.file, "layers");
  c.D = golden_integer(&c.file, "bidirectional") ? 2 : 1;
  c.T = golden_integer(&c.file, "T");
  c.B = golden_integer(&c.file, "B");
  c.I = golden_integer(&c.file, "I");
  c.H = golden_integer(&c.file, "H");
  assert_in_range(c.B, 1, 8);
  c.lengths = golden_has(&c.file, "lengths") ? golden_integers(&c.file, "lengths", NULL) : NULL;
  for (int64_t b = 0; b < c.B; b++)
    if (!(variant & WITHOUT_EMPTY) || c.lengths[b] > 0)
      c.rows[c.n_rows++] = b;
  return c;
}

static void case_close(layer_case *c) {
  golden_close(&c->file);
  free(c->lengths);
}

static bool begins(const char *s, const char *with) { return strncmp(s, with, strlen(with)) == 0; }
static const char *without_grad(const char *name) { return begins(name, "grad.") ? name + 5 : name; }
static bool is_result(const char *name) {
  return begins(name, "grad.") || strcmp(name, "y") == 0 || begins(name, "h_last.") || begins(name, "c_last.");
}
/* Which axis of a tensor is the batch; -1 for weights. */
static int batch_axis(const char *name) {
  name = without_grad(name);
  if (strcmp(name, "x") == 0 || strcmp(name, "y") == 0 || strcmp(name, "dy") == 0)
    return 1;
  return begins(name, "W_") || begins(name, "b") ? -1 : 0;
}

/* The values of the case's rows alone; n becomes their number. */
static double *values_of(const layer_case *c, const char *name, int64_t *n) {
  const int axis = batch_axis(name);
  double *all = golden_values(&c->file, name, n);
  if (axis < 0 || c->n_rows == c->B)
    return all;
  const int64_t outer = axis ? c->T : 1, inner = *n / (outer * c->B);
  double *some = malloc((size_t)(outer * c->n_rows * inner) * sizeof *some);
  assert_non_null(some);
  for (int64_t o = 0; o < outer; o++)
    for (int64_t r = 0; r < c->n_rows; r++)
      memcpy(some + (o * c->n_rows + r) * inner, all + (o * c->B + c->rows[r]) * inner, (size_t)inner * sizeof *some);
  *n = outer * c->n_rows * inner;
  free(all);
  return some;
}

static void build(const layer_case *c, unroll_graph *g, int32_t dtype) {
  const int64_t T = c->variant & RUNTIME_TIME ? unroll_graph_dim(g, "T", 1, 11) : c->T, B = c->n_rows, D = c->D;
  const unroll_tensor x = unroll_input(g, "x", dtype, 3, (int64_t[]){T, B, c->I});
  const unroll_rnn_options options = {.struct_size = sizeof options,
                                      .cell = c->cell,
                                      .activation = c->activation,
                                      .layers = c->layers,
                                      .hidden = c->H,
                                      .bidirectional = c->D == 2,
                                      .lengths =
                                          c->lengths ? unroll_input(g, "lengths", UNROLL_I32, 1, &B) : unroll_none()};
  unroll_tensor h0[4], c0[4], h_last[4], c_last[4], y[16], dy[16], wrt[64], d[64];
  char name[64];
  const int32_t n = c->layers * c->D;
  assert_in_range(n, 1, 4);
  for (int32_t i = 0; i < n; i++) {
    snprintf(name, sizeof name, "h0.%d.%d", i / c->D, i % c->D);
    h0[i] = unroll_input(g, name, dtype, 2, (int64_t[]){B, c->H});
    name[0] = 'c';
    c0[i] = c->cell == UNROLL_CELL_LSTM ? unroll_input(g, name, dtype, 2, (int64_t[]){B, c->H}) : unroll_none();
  }
  unroll_rnn_state last = {h_last, c_last};
  y[0] = unroll_rnn(x, "", &options, &(unroll_rnn_state){h0, c0}, &last);
  dy[0] = unroll_input(g, "dy", dtype, 3, (int64_t[]){T, B, D * c->H});
  uint32_t n_y = 1, n_wrt = 0;
  for (int32_t i = 0; i < n; i++) {
    const unroll_tensor state[2] = {h_last[i], c_last[i]};
    for (int k = 0; k < 2; k++)
      if (state[k].graph) {
        snprintf(name, sizeof name, "d%c_last.%d.%d", k ? 'c' : 'h', i / c->D, i % c->D);
        y[n_y] = state[k];
        dy[n_y++] = unroll_input(g, name, dtype, 2, (int64_t[]){B, c->H});
      }
  }
  const char *names[64];
  for (uint64_t i = 0; i < unroll_safetensors_count(c->file.file); i++) {
    unroll_stored_tensor t;
    assert_int_equal(unroll_safetensors_get(c->file.file, i, &t, NULL), UNROLL_OK);
    if (!begins(t.name, "grad."))
      continue;
    assert_in_range(n_wrt, 0, 63);
    names[n_wrt] = t.name;
    wrt[n_wrt] = unroll_graph_find(g, t.name + 5);
    if (!wrt[n_wrt++].graph)
      fail_msg("%s: the layers have no %s", c->file.name, t.name + 5);
  }
  unroll_vjp(y, dy, n_y, wrt, n_wrt, d);
  for (uint32_t i = 0; i < n_wrt; i++)
    unroll_output(d[i], names[i]);
  unroll_output(y[0], "y");
  for (int32_t i = 0; i < n; i++) {
    snprintf(name, sizeof name, "h_last.%d.%d", i / c->D, i % c->D);
    unroll_output(h_last[i], name);
    name[0] = 'c';
    if (c_last[i].graph)
      unroll_output(c_last[i], name);
  }
}

static void put_inputs(const layer_case *c, model *m) {
  for (uint64_t i = 0; i < unroll_safetensors_count(c->file.file); i++) {
    unroll_stored_tensor t;
    int64_t n;
    assert_int_equal(unroll_safetensors_get(c->file.file, i, &t, NULL), UNROLL_OK);
    if (is_result(t.name) || strcmp(t.name, "lengths") == 0)
      continue;
    double *v = values_of(c, t.name, &n);
    if (c->variant & NAN_PAST_END && batch_axis(t.name) == 1) {
      const int64_t inner = n / (c->T * c->n_rows);
      for (int64_t at = 0; at < n; at++)
        if (at / (inner * c->n_rows) >= c->lengths[c->rows[at / inner % c->n_rows]])
          v[at] = NAN;
    }
    model_put(m, t.name, v, n);
    free(v);
  }
  if (c->lengths) {
    int32_t lengths[8];
    for (int64_t r = 0; r < c->n_rows; r++)
      lengths[r] = c->lengths[c->rows[r]];
    model_put_i32(m, "lengths", lengths, c->n_rows);
  }
}

/*
 * f64: both sides round a few hundred times at 1e-16; 1e-10 leaves room for any order of summing and fails for any wrong
 * term. f32: a value of the last step has gone through T = 7 steps (two layers: 14) of a product over at most 15 terms and a
 * gate; a weight's gradient sums T·B = 28 of them. Each rounding is 2^-24 = 6e-8, and most of them cancel: 1e-5 of the
 * largest value is 170 roundings that do not.
 */
static double tolerance(int32_t dtype) { return dtype == UNROLL_F64 ? 1e-10 : 1e-5; }

/* oneDNN takes one layer with its gradient as a whole, and leaves lengths, and what joins two layers, to the reference. */
static bool takes_all(const layer_case *c, const unroll_device *dev) {
  const bool alone = c->layers == 1 && c->D == 1 && !c->lengths && !(c->variant & RUNTIME_TIME);
  return alone || strncmp(unroll_device_id(dev), "onednn:", 7) != 0;
}

static void run_case(const char *name, int32_t variant, unroll_device *dev, int32_t dtype) {
  layer_case c = case_open(name, variant);
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_graph *g;
  assert_status(UNROLL_OK, unroll_graph_create(NULL, &g, &err));
  build(&c, g, dtype);
  model m = model_open(g, dev, takes_all(&c, dev));
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
    double *want = values_of(&c, t.name, &n), *got = model_get(&m, t.name, n);
    assert_close(what, got, want, n, tolerance(dtype));
    free(want);
    free(got);
    compared++;
  }
  assert_in_range(compared, 7, 64); /* y, h_last, and the gradients of x, W_x, W_h, b, h0 at least */
  model_close(&m);
  unroll_graph_destroy(g);
  case_close(&c);
}

/* The files whose names contain `part`, f64 and f32. */
static void run_files(void **state, const char *part, int32_t variant) {
  uint32_t n, n_run = 0;
  char **names = golden_list("layer_", &n);
  for (uint32_t i = 0; i < n; i++) {
    if (!strstr(names[i], part))
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

static void every_file(void **state) { run_files(state, "", AS_IT_IS); }
static void time_known_at_run_time(void **state) {
  run_files(state, "_full", RUNTIME_TIME);
  run_files(state, "_ragged", RUNTIME_TIME | NAN_PAST_END);
}
static void nan_past_the_end_changes_nothing(void **state) {
  run_files(state, "_ragged", NAN_PAST_END);
  run_files(state, "_empty", NAN_PAST_END);
}
static void empty_rows_may_be_left_out(void **state) { run_files(state, "_empty", WITHOUT_EMPTY); }

int main(void) {
  const struct CMUnitTest tests[] = {DEVICE_TESTS(every_file),
                                     DEVICE_TESTS(time_known_at_run_time),
                                     DEVICE_TESTS(nan_past_the_end_changes_nothing),
                                     DEVICE_TESTS(empty_rows_may_be_left_out),
                                     {"every_file_onednn", every_file, NULL, NULL, "onednn"},
                                     {"time_known_at_run_time_onednn", time_known_at_run_time, NULL, NULL, "onednn"}};
  return cmocka_run_group_tests(tests, devices_open, devices_close);
}
