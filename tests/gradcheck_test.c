/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every gradient against central differences, in f64 on the cpu reference.
 *
 * A case (support/gradcheck_*.c) builds results from inputs; the loss is the sum of them times random numbers; its
 * gradient is compared with (L(x + δ) - L(x - δ)) / 2δ for every element. With values of about 1, δ = 1e-5 leaves
 * δ² = 1e-10 of the third derivative and 1e-16/δ = 1e-11 of rounding: 1e-6 of the largest element has room for both and for
 * no wrong term. On OpenCL's devices the gradients of scans are compared with those of the reference.
 */
#include "gradcheck.h"
#include "graph/graph_private.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static unroll_tensor loss_of_results(grad_build *b) {
  unroll_tensor loss = unroll_none();
  for (uint32_t i = 0; i < b->n_results; i++) {
    const unroll_tensor_info info = unroll_tensor_describe(b->results[i]);
    if (info.rank < 0)
      return loss; /* the graph says why */
    const unroll_tensor weight = grad_data(b, -1, 1.2, info.rank, info.shape);
    const unroll_tensor part = unroll_reduce(unroll_mul(b->results[i], weight), UNROLL_SUM, 0, 0);
    loss = i ? unroll_add(loss, part) : part;
  }
  return loss;
}

/* ---- what the cases cover ---- */

static grad_seen seen;

/* Before the gradient is made: the graph as described, and lowered to the cells' own ops. */
static void see_all(const unroll_graph *g) {
  unroll_graph *lowered;
  unroll_error err = UNROLL_ERROR_INIT;
  grad_see(&seen, g);
  assert_status(UNROLL_OK, graph_lower(g, NULL, &lowered, &err));
  grad_see(&seen, lowered);
  unroll_graph_destroy(lowered);
}

/* ---- checking ---- */

static double run_loss(model *m) {
  model_run(m);
  double *v = model_get(m, "loss", 1), loss = *v;
  free(v);
  return loss;
}

static void check_input(model *m, const grad_input *in, const char *case_name) {
  const double delta = 1e-5;
  char name[GRAD_NAME + 2], what[128];
  const size_t bytes = (size_t)in->n * sizeof(double);
  double *x = malloc(bytes), *numeric = malloc(bytes);
  assert_non_null(x);
  assert_non_null(numeric);
  snprintf(name, sizeof name, "d.%s", in->name);
  snprintf(what, sizeof what, "%s: %s", case_name, name);
  model_run(m);
  double *got = model_get(m, name, in->n);
  memcpy(x, in->values, bytes);
  for (int64_t i = 0; i < in->n; i++) {
    double loss[2];
    for (int side = 0; side < 2; side++) {
      x[i] = in->values[i] + (side ? delta : -delta);
      model_put(m, in->name, x, in->n);
      loss[side] = run_loss(m);
    }
    numeric[i] = (loss[1] - loss[0]) / (2 * delta);
    x[i] = in->values[i];
  }
  model_put(m, in->name, x, in->n);
  double largest = 0;
  for (int64_t i = 0; i < in->n; i++)
    largest = fmax(largest, fabs(numeric[i]));
  if (!(largest > 1e-3))
    fail_msg("%s: the loss hardly depends on it (%g): the case checks nothing", what, largest);
  assert_close(what, got, numeric, in->n, 1e-6);
  free(x);
  free(numeric);
  free(got);
}

/* Each tensor's tangent, that of a single direction: other numbers for each. */
static double tangent_of(uint32_t input, int64_t i) {
  uint64_t state = 1000 * (uint64_t)input + (uint64_t)i;
  return (double)(grad_random(&state) >> 11) * 0x1p-52 - 1;
}

/* The tangent of the loss by forward mode, "tangent", from the inputs "t.INPUT". */
static void add_tangent(grad_build *b, unroll_tensor loss, const unroll_tensor *x, uint32_t n) {
  unroll_tensor t[GRAD_INPUTS], d;
  char name[GRAD_NAME + 2];
  for (uint32_t i = 0; i < n; i++) {
    const unroll_tensor_info info = unroll_tensor_describe(x[i]);
    int64_t shape[UNROLL_MAX_RANK];
    for (int k = 0; k < info.rank; k++)
      shape[k] = graph_spec(x[i])->dim[k] >= 0 ? -1 - (int64_t)graph_spec(x[i])->dim[k] : info.shape[k];
    snprintf(name, sizeof name, "t.%s", info.name);
    t[i] = unroll_input(b->g, name, UNROLL_F64, info.rank, shape);
  }
  unroll_jvp(x, t, n, &loss, 1, &d);
  unroll_output(d, "tangent");
}

/*
 * Forward mode is the other side of reverse mode: the loss's tangent is the product of its gradient, which is compared with
 * differences, and the direction. Both are sums of a few hundred terms of about 1: 1e-12 of their sizes is their rounding.
 */
static void check_tangent(model *m, const grad_build *b, const char *case_name) {
  double want = 0, size = 1e-3;
  char name[GRAD_NAME + 2], what[128];
  snprintf(what, sizeof what, "%s: the tangent", case_name);
  model_run(m);
  double *got = model_get(m, "tangent", 1);
  for (uint32_t k = 0; k < b->n_inputs; k++) {
    const grad_input *in = &b->inputs[k];
    if (!in->wanted)
      continue;
    snprintf(name, sizeof name, "d.%s", in->name);
    double *d = model_get(m, name, in->n);
    for (int64_t i = 0; i < in->n; i++) {
      want += d[i] * tangent_of(k, i);
      size += fabs(d[i] * tangent_of(k, i));
    }
    free(d);
  }
  if (!(fabs(*got - want) <= 1e-12 * size))
    fail_msg("%s: %.17g, expected %.17g", what, *got, want);
  free(got);
}

/* The graph of a case with its loss and, named "d.INPUT", its gradients. */
static grad_build prepare(const grad_case *c) {
  unroll_error err = UNROLL_ERROR_INIT;
  grad_build b = {.n_inputs = 0};
  assert_status(UNROLL_OK, unroll_graph_create(NULL, &b.g, &err));
  c->build(&b);
  const unroll_tensor loss = loss_of_results(&b);
  if (unroll_graph_status(b.g, &err) != UNROLL_OK)
    fail_msg("%s: %s", c->name, err.message);
  unroll_output(loss, "loss");
  see_all(b.g);
  unroll_tensor x[GRAD_INPUTS], d[GRAD_INPUTS];
  char name[GRAD_NAME + 2];
  uint32_t n = 0;
  for (uint32_t i = 0; i < b.n_inputs; i++)
    if (b.inputs[i].wanted)
      x[n++] = b.inputs[i].tensor;
  assert_in_range(n, 1, GRAD_INPUTS);
  unroll_gradient(loss, x, n, d);
  for (uint32_t i = 0; i < n; i++) {
    snprintf(name, sizeof name, "d.%s", unroll_tensor_describe(x[i]).name);
    unroll_output(d[i], name);
  }
  add_tangent(&b, loss, x, n);
  if (unroll_graph_status(b.g, &err) != UNROLL_OK)
    fail_msg("%s: %s", c->name, err.message);
  return b;
}

static void put_real(model *m, const grad_build *b, uint32_t input) {
  const grad_input *in = &b->inputs[input];
  char name[GRAD_NAME + 2];
  model_put(m, in->name, in->values, in->n);
  if (!in->wanted)
    return;
  double *t = malloc((size_t)in->n * sizeof *t);
  assert_non_null(t);
  for (int64_t i = 0; i < in->n; i++)
    t[i] = tangent_of(input, i);
  snprintf(name, sizeof name, "t.%s", in->name);
  model_put(m, name, t, in->n);
  free(t);
}

static model open_with_inputs(const grad_build *b, unroll_device *dev, bool strict) {
  model m = model_open(b->g, dev, strict);
  m.options.seed = 77;
  if (b->run_time)
    model_set_dim(&m, b->run_time);
  for (uint32_t i = 0; i < b->n_inputs; i++)
    if (b->inputs[i].integers)
      model_put_i32(&m, b->inputs[i].name, b->inputs[i].integers, b->inputs[i].n);
    else
      put_real(&m, b, i);
  return m;
}

static void check_case(const grad_case *c, unroll_device *dev) {
  grad_build b = prepare(c);
  model m = open_with_inputs(&b, dev, true);
  for (uint32_t i = 0; i < b.n_inputs; i++)
    if (b.inputs[i].wanted)
      check_input(&m, &b.inputs[i], c->name);
  check_tangent(&m, &b, c->name);
  model_close(&m);
  grad_release(&b);
}

/* The gradients on another device are those of the reference; what it does not take may run on the reference. */
static void compare_case(const grad_case *c, unroll_device *dev) {
  grad_build b = prepare(c);
  unroll_device *cpu = devices_next("cpu", UNROLL_F64, NULL);
  model want = open_with_inputs(&b, cpu, true), got = open_with_inputs(&b, dev, false);
  model_run(&want);
  model_run(&got);
  for (uint32_t i = 0; i < b.n_inputs; i++) {
    const grad_input *in = &b.inputs[i];
    char name[GRAD_NAME + 2], what[160];
    if (!in->wanted)
      continue;
    snprintf(name, sizeof name, "d.%s", in->name);
    snprintf(what, sizeof what, "%s on %s: %s", c->name, unroll_device_id(dev), name);
    double *x = model_get(&got, name, in->n), *y = model_get(&want, name, in->n);
    assert_close(what, x, y, in->n, 1e-10);
    free(x);
    free(y);
  }
  model_close(&want);
  model_close(&got);
  grad_release(&b);
}

static const char *filter; /* of the command line, for whoever works on a rule */

static void run_cases(const grad_case *c) {
  for (; c->name; c++)
    if (!filter || strstr(c->name, filter))
      FOR_EACH_DEVICE(dev, "cpu", UNROLL_F64)
        check_case(c, dev);
}
static void ops_layers_losses(void **state) {
  (void)state;
  run_cases(grad_op_cases);
}
static void scans(void **state) {
  (void)state;
  run_cases(grad_scan_cases);
}
static void scans_opencl(void **state) {
  (void)state;
  for (const grad_case *c = grad_scan_cases; c->name; c++)
    if (!filter || strstr(c->name, filter))
      FOR_EACH_DEVICE(dev, "opencl", UNROLL_F64)
        compare_case(c, dev);
}

/* Two gradients of one graph: the second one asks the same scan for values of its steps again. */
static void gradient_twice(void **state) {
  (void)state;
  FOR_EACH_DEVICE(dev, "cpu", UNROLL_F64) {
    grad_build once = {.n_inputs = 0};
    unroll_error err = UNROLL_ERROR_INIT;
    assert_status(UNROLL_OK, unroll_graph_create(NULL, &once.g, &err));
    const grad_case *c = grad_scan_cases;
    c->build(&once);
    const unroll_tensor loss = loss_of_results(&once);
    const unroll_tensor x = once.inputs[0].tensor;
    unroll_tensor first, second, scaled;
    unroll_gradient(loss, &x, 1, &first);
    unroll_gradient(loss, &x, 1, &second);
    const unroll_tensor three = unroll_scale(loss, 3.0);
    unroll_gradient(three, &x, 1, &scaled);
    unroll_output(first, "first");
    unroll_output(second, "second");
    unroll_output(scaled, "scaled");
    model m = model_open(once.g, dev, true);
    for (uint32_t i = 0; i < once.n_inputs; i++)
      model_put(&m, once.inputs[i].name, once.inputs[i].values, once.inputs[i].n);
    model_run(&m);
    const int64_t n = once.inputs[0].n;
    double *a = model_get(&m, "first", n), *b = model_get(&m, "second", n), *s = model_get(&m, "scaled", n);
    assert_memory_equal(a, b, (size_t)n * sizeof *a);
    for (int64_t i = 0; i < n; i++)
      s[i] /= 3;
    assert_close("three times the loss", s, a, n, 1e-13);
    free(a);
    free(b);
    free(s);
    model_close(&m);
    unroll_graph_destroy(once.g);
    for (uint32_t i = 0; i < once.n_inputs; i++)
      free(once.inputs[i].values);
  }
}

/* What has no gradient says so. */
static void second_derivative_is_refused(void **state) {
  (void)state;
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_graph *g;
  assert_status(UNROLL_OK, unroll_graph_create(NULL, &g, &err));
  const unroll_tensor x = unroll_input(g, "x", UNROLL_F64, 0, NULL);
  unroll_tensor d, dd;
  unroll_gradient(unroll_tanh(x), &x, 1, &d);
  assert_status(UNROLL_OK, unroll_graph_status(g, &err));
  unroll_gradient(d, &x, 1, &dd);
  assert_status(UNROLL_E_UNSUPPORTED, unroll_graph_status(g, &err));
  unroll_graph_destroy(g);
}

/*
 * Forward over reverse: the tangent of a gradient is the Hessian's product with the direction, against differences of the
 * gradient. tanh, sigmoid and relu here have their gradient ops; the layer's own has none, and says so.
 */
static void tangent_of_a_gradient(void **state) {
  (void)state;
  FOR_EACH_DEVICE(dev, "cpu", UNROLL_F64) {
    enum { R = 3, K = 4 };
    unroll_error err = UNROLL_ERROR_INIT;
    unroll_graph *g;
    assert_status(UNROLL_OK, unroll_graph_create(NULL, &g, &err));
    const unroll_tensor x = unroll_input(g, "x", UNROLL_F64, SHAPE(R, K)),
                        v = unroll_input(g, "v", UNROLL_F64, SHAPE(R, K)),
                        w = unroll_input(g, "w", UNROLL_F64, SHAPE(K, K));
    const unroll_tensor y = unroll_tanh(unroll_matmul(unroll_sigmoid(unroll_relu(x)), w));
    unroll_tensor d, dd;
    unroll_gradient(unroll_reduce(unroll_unary(y, UNROLL_SQUARE), UNROLL_SUM, 0, 0), &x, 1, &d);
    unroll_jvp(&x, &v, 1, &d, 1, &dd);
    unroll_output(d, "d");
    unroll_output(dd, "dd");
    assert_status(UNROLL_OK, unroll_graph_status(g, &err));
    model m = model_open(g, dev, true);
    double at[R * K], along[R * K], weights[K * K], want[R * K], *side[2];
    for (int i = 0; i < R * K; i++) {
      at[i] = 0.9 * tangent_of(0, i) + 0.05;
      along[i] = tangent_of(1, i);
    }
    for (int i = 0; i < K * K; i++)
      weights[i] = tangent_of(2, i);
    model_put(&m, "w", weights, K * K);
    model_put(&m, "v", along, R * K);
    for (int s = 0; s < 2; s++) {
      double moved[R * K];
      for (int i = 0; i < R * K; i++)
        moved[i] = at[i] + (s ? 1e-5 : -1e-5) * along[i];
      model_put(&m, "x", moved, R * K);
      model_run(&m);
      side[s] = model_get(&m, "d", R * K);
    }
    for (int i = 0; i < R * K; i++)
      want[i] = (side[1][i] - side[0][i]) / 2e-5;
    model_put(&m, "x", at, R * K);
    model_run(&m);
    double *got = model_get(&m, "dd", R * K);
    assert_close("the tangent of a gradient", got, want, R * K, 1e-8);
    free(side[0]);
    free(side[1]);
    free(got);
    model_close(&m);
    unroll_graph_destroy(g);
  }
}

#define assert_says(graph, status, words)                        \
  do {                                                           \
    assert_status((status), unroll_graph_status((graph), &err)); \
    if (!strstr(err.message, (words)))                           \
      fail_msg("'%s' is not in '%s'", (words), err.message);     \
    unroll_graph_destroy(graph);                                 \
  } while (0)

static void tangents_that_are_refused(void **state) {
  (void)state;
  unroll_error err = UNROLL_ERROR_INIT;
  for (int which = 0; which < 4; which++) {
    unroll_graph *g;
    assert_status(UNROLL_OK, unroll_graph_create(NULL, &g, &err));
    const unroll_tensor x = unroll_input(g, "x", UNROLL_F64, SHAPE(4, 3, 2)),
                        v = unroll_input(g, "v", UNROLL_F64, SHAPE(4, 3, 2)),
                        ids = unroll_input(g, "ids", UNROLL_I32, SHAPE(3)),
                        small = unroll_input(g, "s", UNROLL_F64, SHAPE(3, 2));
    unroll_tensor d, dd;
    if (which == 0) {
      const unroll_rnn_options o = {.struct_size = sizeof o, .cell = UNROLL_CELL_LSTM, .layers = 1, .hidden = 2};
      unroll_gradient(unroll_reduce(unroll_rnn(x, "", &o, NULL, NULL), UNROLL_SUM, 0, 0), &x, 1, &d);
      unroll_jvp(&x, &v, 1, &d, 1, &dd);
      assert_says(g, UNROLL_E_UNSUPPORTED, "layer_grad has no tangent");
    } else if (which == 1) {
      unroll_jvp(&x, &small, 1, &x, 1, &dd);
      assert_says(g, UNROLL_E_SHAPE, "tangent of x f64 [4,3,2]: it is s f64 [3,2]");
    } else if (which == 2) {
      unroll_jvp(&ids, &ids, 1, &x, 1, &dd);
      assert_says(g, UNROLL_E_DTYPE, "tangent of ids i32 [3]: expected f32 or f64");
    } else {
      unroll_jvp(&x, &v, 1, &ids, 1, &dd);
      assert_says(g, UNROLL_E_DTYPE, "tangent of ids i32 [3]: expected f32 or f64");
    }
    assert_null(dd.graph);
  }
}

/* Tangents at tensors in between add to what comes to them; none are zeros, and what hangs on nothing is zeros. */
static void tangents_in_between(void **state) {
  (void)state;
  FOR_EACH_DEVICE(dev, "cpu", UNROLL_F64) {
    unroll_error err = UNROLL_ERROR_INIT;
    unroll_graph *g;
    assert_status(UNROLL_OK, unroll_graph_create(NULL, &g, &err));
    const unroll_tensor x = unroll_input(g, "x", UNROLL_F64, SHAPE(2)), z = unroll_input(g, "z", UNROLL_F64, SHAPE(2));
    const unroll_tensor y = unroll_scale(x, 3), w = unroll_unary(y, UNROLL_SQUARE);
    const unroll_tensor one = unroll_constant(g, UNROLL_F64, SHAPE(2), 1),
                        ten = unroll_constant(g, UNROLL_F64, SHAPE(2), 10);
    const unroll_tensor at[] = {x, y, z, x}, along[] = {one, ten, unroll_none(), one}, of[] = {w, z};
    unroll_tensor d[2];
    unroll_jvp(at, along, 4, of, 2, d);
    unroll_output(d[0], "dw");
    unroll_output(d[1], "dz");
    assert_status(UNROLL_OK, unroll_graph_status(g, &err));
    model m = model_open(g, dev, true);
    model_put(&m, "x", (double[]){2, -1}, 2);
    model_run(&m);
    double *dw = model_get(&m, "dw", 2), *dz = model_get(&m, "dz", 2);
    for (int i = 0; i < 2; i++) {
      assert_true(dw[i] == 2 * (i ? -3 : 6) * (3 + 3 + 10));
      assert_true(dz[i] == 0);
    }
    free(dw);
    free(dz);
    model_close(&m);
    unroll_graph_destroy(g);
  }
}

/* ---- coverage: every name after "case" in grad_rules.c is one of a case, or has a reason not to be ---- */

static bool exempt(const char *name) { /* the rules of a gradient are refused, see second_derivative_is_refused */
  return strcmp(name, "UNROLL_TANH_GRAD") == 0 || strcmp(name, "UNROLL_SIGMOID_GRAD") == 0 ||
         strcmp(name, "UNROLL_RELU_GRAD") == 0;
}

static void every_rule_is_covered(void **state) {
  (void)state;
  if (filter)
    return;
  assert_in_range(grad_uncovered("api/graph/grad_rules.c", &seen, exempt), 40, 1000);
  for (int i = 0; i < UNROLL_REDUCTION_COUNT; i++)
    assert_true(seen.reduction[i]);
  for (int i = 0; i < UNROLL_UNARY_COUNT; i++)
    assert_true(seen.unary[i]);
  for (int i = UNROLL_ADD; i <= UNROLL_GE; i++)
    assert_true(seen.binary[i]);
  assert_true(seen.op[UNROLL_OP_SCAN]);
}

int main(int argc, char **argv) {
  filter = argc > 1 ? argv[1] : NULL;
  const struct CMUnitTest tests[] = {cmocka_unit_test(ops_layers_losses),
                                     cmocka_unit_test(scans),
                                     cmocka_unit_test(scans_opencl),
                                     cmocka_unit_test(gradient_twice),
                                     cmocka_unit_test(second_derivative_is_refused),
                                     cmocka_unit_test(tangent_of_a_gradient),
                                     cmocka_unit_test(tangents_that_are_refused),
                                     cmocka_unit_test(tangents_in_between),
                                     cmocka_unit_test(every_rule_is_covered)};
  return cmocka_run_group_tests(tests, devices_open, devices_close);
}
