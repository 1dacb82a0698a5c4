/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Forward mode against torch.func in f64: every op that has a tangent, and whole stacks of layers, along one direction
 * through all inputs and weights at once; and the tangent of a gradient, a Hessian's product with the direction, wherever the
 * gradient is made of ops that have one. golden/README.md says what the files hold.
 */
#include "golden.h"
#include "gradcheck.h"
#include "graph/graph_private.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_X = 96, MOST_Y = 16, NAME = 64 };

/* A graph, and the file that has directions and what they lead to, under names that begin with prefix. */
typedef struct job {
  const golden *file;
  char prefix[NAME];
  unroll_graph *g;
  unroll_tensor x[MOST_X], y[MOST_Y];
  char x_names[MOST_X][NAME], y_names[MOST_Y][NAME];
  uint32_t n_x, n_y;
} job;

static const char *in_file(const job *j, char *to, const char *what, const char *name) {
  snprintf(to, 3 * NAME, "%s%s%s", j->prefix, what, name);
  return to;
}
static bool has(const job *j, const char *what, const char *name) {
  char full[3 * NAME];
  return golden_has(j->file, in_file(j, full, what, name));
}

static void add_x(job *j, unroll_tensor x, const char *name) {
  if (!has(j, "t.", name))
    return;
  assert_in_range(j->n_x, 0, MOST_X - 1);
  j->x[j->n_x] = x;
  snprintf(j->x_names[j->n_x++], NAME, "%s", name);
}
static void add_y(job *j, unroll_tensor y, const char *name) {
  if (!has(j, "jvp.", name))
    return;
  assert_in_range(j->n_y, 0, MOST_Y - 1);
  j->y[j->n_y] = y;
  snprintf(j->y_names[j->n_y++], NAME, "%s", name);
}

/* An input of a tensor's shape, named after what it is to it. */
static unroll_tensor beside(const job *j, const char *what, const char *name, unroll_tensor x) {
  char full[2 * NAME];
  snprintf(full, sizeof full, "%s%s", what, name);
  const unroll_tensor_info info = unroll_tensor_describe(x);
  int64_t shape[UNROLL_MAX_RANK] = {0};
  for (int32_t i = 0; i < info.rank; i++)
    shape[i] = graph_spec(x)->dim[i] >= 0 ? -1 - (int64_t)graph_spec(x)->dim[i] : info.shape[i];
  return unroll_input(j->g, full, UNROLL_F64, info.rank, shape);
}

/* The tangents of the results; or with hessian those of the gradient of L = Σ w·y², which no op's linearity makes 0. What
 * the tangent is taken of is seen. */
static void differentiate(job *j, bool hessian, grad_seen *seen) {
  unroll_tensor t[MOST_X], of[MOST_X], d[MOST_X], loss = unroll_none();
  char name[2 * NAME];
  assert_in_range(j->n_x, 1, MOST_X);
  assert_in_range(j->n_y, 1, MOST_Y);
  for (uint32_t i = 0; i < j->n_x; i++)
    t[i] = beside(j, "t.", j->x_names[i], j->x[i]);
  if (!hessian) {
    grad_see(seen, j->g);
    unroll_jvp(j->x, t, j->n_x, j->y, j->n_y, d);
  } else {
    for (uint32_t i = 0; i < j->n_y; i++) {
      const unroll_tensor w = beside(j, "w.", j->y_names[i], j->y[i]);
      const unroll_tensor part = unroll_reduce(unroll_mul(unroll_unary(j->y[i], UNROLL_SQUARE), w), UNROLL_SUM, 0, 0);
      loss = i ? unroll_add(loss, part) : part;
    }
    unroll_gradient(loss, j->x, j->n_x, of);
    grad_see(seen, j->g);
    unroll_jvp(j->x, t, j->n_x, of, j->n_x, d);
  }
  for (uint32_t i = 0; i < (hessian ? j->n_x : j->n_y); i++) {
    snprintf(name, sizeof name, "%s%s", hessian ? "hvp." : "jvp.", hessian ? j->x_names[i] : j->y_names[i]);
    unroll_output(d[i], name);
  }
}

static void put(const job *j, model *m, const char *what, const char *name) {
  char full[3 * NAME], here[2 * NAME];
  int64_t n;
  double *v = golden_values(j->file, in_file(j, full, what, name), &n);
  snprintf(here, sizeof here, "%s%s", what, name);
  model_put(m, here, v, n);
  free(v);
}

static void compare(const job *j, model *m, const char *what, const char *name, double tolerance) {
  char full[3 * NAME], here[2 * NAME], text[5 * NAME];
  int64_t n;
  double *want = golden_values(j->file, in_file(j, full, what, name), &n);
  snprintf(here, sizeof here, "%s%s", what, name);
  snprintf(text, sizeof text, "%s on %s: %s", j->file->name, unroll_device_id(m->device), full);
  double *got = model_get(m, here, n);
  assert_close(text, got, want, n, tolerance);
  free(want);
  free(got);
}

/* With all values put, directions and weights of the loss on top. */
static void check(const job *j, model *m, bool hessian, double tolerance) {
  for (uint32_t i = 0; i < j->n_x; i++)
    put(j, m, "t.", j->x_names[i]);
  for (uint32_t i = 0; hessian && i < j->n_y; i++)
    put(j, m, "w.", j->y_names[i]);
  model_run(m);
  for (uint32_t i = 0; !hessian && i < j->n_y; i++)
    compare(j, m, "jvp.", j->y_names[i], tolerance);
  for (uint32_t i = 0; hessian && i < j->n_x; i++)
    compare(j, m, "hvp.", j->x_names[i], tolerance);
}

/* A file without a product with the Hessian is one of a gradient that says which of its ops has no tangent. */
static bool refused(const job *j) {
  if (has(j, "w.", j->y_names[0]))
    return false;
  unroll_error err = UNROLL_ERROR_INIT;
  assert_status(UNROLL_E_UNSUPPORTED, unroll_graph_status(j->g, &err));
  if (!strstr(err.message, "_grad has no tangent"))
    fail_msg("%s %s: %s", j->file->name, j->prefix, err.message);
  return true;
}

static void assert_built(const job *j) {
  unroll_error err = UNROLL_ERROR_INIT;
  if (unroll_graph_status(j->g, &err) != UNROLL_OK)
    fail_msg("%s %s: %s", j->file->name, j->prefix, err.message);
}

/* ---- ops ---- */

/* The gates of one step by themselves, with those of their results that are there for their gradient alone. */
static void gates(grad_build *b, uint32_t op, const op_attr *attr, const unroll_tensor *in, uint32_t n_in,
                  uint32_t n_out) {
  unroll_tensor out[3];
  graph_add_node(b->g, op, attr, in, n_in, NULL, out, n_out);
  for (uint32_t i = 0; i < n_out; i++)
    grad_result(b, out[i]);
}
static void gates_lstm(grad_build *b) {
  const unroll_tensor pre = grad_real(b, -1, 1, SHAPE(2, 12)), c = grad_real(b, -1, 1, SHAPE(2, 3));
  gates(b, UNROLL_OP_LSTM_GATES, NULL, (unroll_tensor[]){pre, c}, 2, 3);
}
static void gates_lstm_norm(grad_build *b) {
  const unroll_tensor pre = grad_real(b, -1, 1, SHAPE(2, 12)), c = grad_real(b, -1, 1, SHAPE(2, 3)),
                      gain = grad_real(b, -1, 1, SHAPE(3)), shift = grad_real(b, -1, 1, SHAPE(3));
  const op_attr attr = {.layer_norm = {.epsilon = 0.05}};
  gates(b, UNROLL_OP_LSTM_GATES, &attr, (unroll_tensor[]){pre, c, gain, shift}, 4, 3);
}
static void gates_gru_after(grad_build *b) {
  const unroll_tensor xp = grad_real(b, -1, 1, SHAPE(2, 9)), hp = grad_real(b, -1, 1, SHAPE(2, 9)),
                      h = grad_real(b, -1, 1, SHAPE(2, 3));
  gates(b, UNROLL_OP_GRU_AFTER_GATES, NULL, (unroll_tensor[]){xp, hp, h}, 3, 2);
}
static void gates_gru(grad_build *b) {
  const unroll_tensor pre = grad_real(b, -1, 1, SHAPE(2, 6)), x = grad_real(b, -1, 1, SHAPE(2, 3)),
                      h = grad_real(b, -1, 1, SHAPE(2, 3));
  unroll_tensor reset[2], out[2];
  graph_add_node(b->g, UNROLL_OP_GRU_RESET, NULL, (unroll_tensor[]){pre, h}, 2, NULL, reset, 2);
  const unroll_tensor in[3] = {unroll_add(x, reset[1]), reset[0], h};
  graph_add_node(b->g, UNROLL_OP_GRU_UPDATE, NULL, in, 3, NULL, out, 2);
  for (int i = 0; i < 2; i++) {
    grad_result(b, reset[i]);
    grad_result(b, out[i]);
  }
}
static const grad_case gate_cases[] = {{"gates_lstm", gates_lstm},
                                       {"gates_lstm_norm", gates_lstm_norm},
                                       {"gates_gru_after", gates_gru_after},
                                       {"gates_gru", gates_gru},
                                       {NULL, NULL}};

static void put_case(const job *j, const grad_build *b, model *m) {
  char full[3 * NAME];
  if (b->run_time)
    model_set_dim(m, b->run_time);
  for (uint32_t i = 0; i < b->n_inputs; i++) {
    const grad_input *in = &b->inputs[i];
    int64_t n;
    if (!in->integers) {
      put(j, m, "", in->name);
      continue;
    }
    int32_t *same = golden_integers(j->file, in_file(j, full, "", in->name), &n);
    assert_int_equal(n, in->n);
    assert_memory_equal(same, in->integers, (size_t)n * sizeof *same);
    model_put_i32(m, in->name, in->integers, n);
    free(same);
  }
}

static void run_case(const golden *file, const grad_case *c, unroll_device *dev, bool hessian, grad_seen *seen) {
  unroll_error err = UNROLL_ERROR_INIT;
  grad_build b = {.n_inputs = 0};
  job j = {.file = file};
  snprintf(j.prefix, sizeof j.prefix, "%s.", c->name);
  assert_status(UNROLL_OK, unroll_graph_create(NULL, &b.g, &err));
  j.g = b.g;
  c->build(&b);
  for (uint32_t i = 0; i < b.n_inputs; i++)
    add_x(&j, b.inputs[i].tensor, b.inputs[i].name);
  for (uint32_t i = 0; i < b.n_results; i++) {
    char name[16];
    snprintf(name, sizeof name, "%u", i);
    add_y(&j, b.results[i], name);
  }
  assert_int_equal(j.n_y, b.n_results);
  differentiate(&j, hessian, seen);
  if (!hessian || !refused(&j)) {
    assert_built(&j);
    model m = model_open(j.g, dev, false);
    m.options.seed = (uint64_t)golden_integer(file, "seed");
    put_case(&j, &b, &m);
    check(&j, &m, hessian, 1e-13);
    model_close(&m);
  }
  grad_release(&b);
}

static bool exempt(const char *name) { /* layers have files of their own; through samples nothing flows */
  return strcmp(name, "UNROLL_OP_LAYER") == 0 || strcmp(name, "UNROLL_OP_RANDOM") == 0 ||
         strcmp(name, "UNROLL_OP_CATEGORICAL") == 0;
}

/*
 * Values are of about 1, and a few dozen of them are added at most: 1e-13 of the largest result is some hundred roundings.
 * Where an op has a rule, and no case, the test fails.
 */
static void every_op(void **state) {
  golden file = golden_open("tangent_ops");
  const grad_case *const lists[] = {grad_op_cases, gate_cases, grad_scan_cases};
  grad_seen seen = {.op = {false}};
  int n_run = 0;
  FOR_EACH_DEVICE(dev, *state, UNROLL_F64)
    for (size_t l = 0; l < sizeof lists / sizeof *lists; l++)
      for (const grad_case *c = lists[l]; c->name; c++) {
        char first[NAME];
        snprintf(first, sizeof first, "%s.jvp.0", c->name);
        if (!golden_has(&file, first))
          continue;
        for (int hessian = 0; hessian < 2; hessian++)
          run_case(&file, c, dev, hessian, &seen);
        n_run++;
      }
  if (n_run)
    assert_in_range(grad_uncovered("api/graph/tangent_rules.c", &seen, exempt), 40, 1000);
  golden_close(&file);
}

/* ---- stacks ---- */

/* The layers of a file, with everything that it has a tangent of. */
static void build_stack(job *j, const golden *values) {
  unroll_rnn_options o = golden_rnn_options(values);
  o.cell = golden_cell(values);
  o.activation = golden_activation(values);
  const int64_t T = golden_integer(values, "T"), B = golden_integer(values, "B"), I = golden_integer(values, "I"),
                P = o.projection ? o.projection : o.hidden;
  const int32_t D = o.bidirectional ? 2 : 1, n = o.layers * D;
  unroll_tensor h0[6], c0[6], h_last[6], c_last[6], c_all[6];
  char name[NAME];
  assert_in_range(n, 1, 6);
  const unroll_tensor x = unroll_input(j->g, "x", UNROLL_F64, 3, (int64_t[]){T, B, I});
  for (int32_t i = 0; i < n; i++) {
    c_all[i] = c_last[i] = unroll_none();
    snprintf(name, sizeof name, "h0.%d.%d", i / D, i % D);
    h0[i] = unroll_input(j->g, name, UNROLL_F64, 2, (int64_t[]){B, P});
    name[0] = 'c';
    c0[i] =
        golden_has(values, name) ? unroll_input(j->g, name, UNROLL_F64, 2, (int64_t[]){B, o.hidden}) : unroll_none();
  }
  if (golden_has(values, "lengths"))
    o.lengths = unroll_input(j->g, "lengths", UNROLL_I32, 1, &B);
  o.cells = golden_number(values, "cells", 0) != 0 ? c_all : NULL;
  unroll_rnn_state last = {h_last, c_last};
  add_y(j, unroll_rnn(x, "", &o, &(unroll_rnn_state){h0, c0}, &last), "y");
  for (int32_t i = 0; i < n; i++) {
    snprintf(name, sizeof name, "h_last.%d.%d", i / D, i % D);
    add_y(j, h_last[i], name);
    name[0] = 'c';
    add_y(j, c_last[i], name);
    snprintf(name, sizeof name, "c_all.%d.%d", i / D, i % D);
    add_y(j, c_all[i], name);
  }
  for (uint32_t i = 0; i < unroll_graph_count(j->g); i++) {
    const unroll_tensor t = unroll_graph_tensor(j->g, i);
    add_x(j, t, unroll_tensor_describe(t).name);
  }
}

/* Whatever the file of the layers has of the graph's inputs and parameters. */
static void put_stack(const job *j, const golden *values, model *m) {
  for (uint32_t i = 0; i < j->n_x; i++) {
    int64_t n;
    double *v = golden_values(values, j->x_names[i], &n);
    model_put(m, j->x_names[i], v, n);
    free(v);
  }
  if (golden_has(values, "lengths")) {
    int64_t n;
    int32_t *lengths = golden_integers(values, "lengths", &n);
    model_put_i32(m, "lengths", lengths, n);
    free(lengths);
  }
  if (unroll_safetensors_metadata(values->file, "seed")) {
    m->options.seed = (uint64_t)golden_integer(values, "seed");
    m->options.update = (uint64_t)golden_integer(values, "update");
  }
}

/* How many derivatives the file has, as names that begin so. */
static uint32_t count(const golden *file, const char *begin) {
  uint32_t n = 0;
  for (uint64_t i = 0; i < unroll_safetensors_count(file->file); i++) {
    unroll_stored_tensor t;
    assert_int_equal(unroll_safetensors_get(file->file, i, &t, NULL), UNROLL_OK);
    n += strncmp(t.name, begin, strlen(begin)) == 0;
  }
  return n;
}

static void run_stack(const char *name, unroll_device *dev, bool hessian) {
  unroll_error err = UNROLL_ERROR_INIT;
  golden file = golden_open(name), values = golden_open(name + strlen("tangent_"));
  job j = {.file = &file};
  assert_status(UNROLL_OK, unroll_graph_create(NULL, &j.g, &err));
  build_stack(&j, &values);
  assert_int_equal(j.n_x, count(&file, "t."));
  assert_int_equal(j.n_y, count(&file, "jvp."));
  grad_seen seen = {.op = {false}};
  differentiate(&j, hessian, &seen);
  if (!hessian || !refused(&j)) {
    assert_built(&j);
    model m = model_open(j.g, dev, false);
    put_stack(&j, &values, &m);
    check(&j, &m, hessian, 1e-12);
    model_close(&m);
  }
  unroll_graph_destroy(j.g);
  golden_close(&values);
  golden_close(&file);
}

static void run_stacks(void **state, const char *begin, int hessian) {
  uint32_t n, n_run = 0;
  char **names = golden_list(begin, &n);
  FOR_EACH_DEVICE(dev, *state, UNROLL_F64)
    for (uint32_t i = 0; i < n; i++, n_run++)
      run_stack(names[i], dev, hessian);
  golden_list_free(names, n);
  assert_in_range(n_run, 1, 10000);
}

/*
 * At most 7 steps of 2 layers, a few dozen roundings each, and a normalisation's gradient divides by deviations down to 0.2:
 * 1e-12 of the largest result.
 */
static void every_stack(void **state) {
  run_stacks(state, "tangent_layer_", 0);
  run_stacks(state, "tangent_cell_", 0);
}
static void hessians_of_stacks(void **state) {
  (void)state;
  run_stacks((void *[]){"cpu"}, "tangent_layer_", 1);
  run_stacks((void *[]){"cpu"}, "tangent_cell_", 1);
}

int main(void) {
  const struct CMUnitTest tests[] = {DEVICE_TESTS(every_op), DEVICE_TESTS(every_stack),
                                     cmocka_unit_test(hessians_of_stacks)};
  return cmocka_run_group_tests(tests, devices_open, devices_close);
}
