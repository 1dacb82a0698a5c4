/* SPDX-License-Identifier: Apache-2.0 */
/* Linear and embedding layers, losses, clipping and optimizers against PyTorch in f64: see golden/README.md. */
#include "devices.h"
#include "golden.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unroll/nn.h>

/* These graphs are a few roundings deep: 1e-12 of the largest value in f64, 1e-6 (16 of 2^-24) in f32. */
static double tolerance(int32_t dtype) { return dtype == UNROLL_F64 ? 1e-12 : 1e-6; }
static const int32_t dtypes[] = {UNROLL_F64, UNROLL_F32};

static unroll_graph *new_graph(void) {
  unroll_graph *g;
  unroll_error err = UNROLL_ERROR_INIT;
  assert_status(UNROLL_OK, unroll_graph_create(NULL, &g, &err));
  return g;
}

static unroll_tensor input_like(unroll_graph *g, const golden *f, const char *name, int32_t dtype) {
  const unroll_stored_tensor t = golden_describe(f, name);
  return unroll_input(g, name, t.dtype == UNROLL_I32 ? UNROLL_I32 : dtype, t.rank, t.shape);
}

static void put_golden(model *m, const golden *f, const char *name) {
  int64_t n;
  if (golden_describe(f, name).dtype == UNROLL_I32) {
    int32_t *v = golden_integers(f, name, &n);
    model_put_i32(m, name, v, n);
    free(v);
  } else {
    double *v = golden_values(f, name, &n);
    model_put(m, name, v, n);
    free(v);
  }
}

static void compare(model *m, const golden *f, const char *name, int32_t dtype) {
  int64_t n;
  double *want = golden_values(f, name, &n), *got = model_get(m, name, n);
  assert_close(name, got, want, n, tolerance(dtype));
  free(want);
  free(got);
}

static void dense_on(unroll_device *dev, int32_t dtype) {
  static const char *const params[] = {"embedding.weight", "linear1.W", "linear1.b", "linear2.W", "linear2.b"};
  golden f = golden_open("dense");
  unroll_graph *g = new_graph();
  const unroll_tensor ids = input_like(g, &f, "ids", dtype), targets = input_like(g, &f, "targets", dtype);
  const unroll_tensor embedded =
      unroll_embedding_layer(ids, "embedding", dtype, golden_integer(&f, "V"), golden_integer(&f, "E"));
  const unroll_tensor hidden = unroll_tanh(unroll_linear(embedded, "linear1", golden_integer(&f, "H"), 1));
  const unroll_tensor logits = unroll_linear(hidden, "linear2", golden_integer(&f, "classes"), 1);
  const unroll_tensor loss = unroll_cross_entropy(logits, targets, UNROLL_LOSS_MEAN);
  unroll_tensor x[8] = {embedded, hidden, logits}, d[8];
  for (int i = 0; i < 5; i++)
    x[3 + i] = unroll_graph_find(g, params[i]);
  unroll_gradient(loss, x, 8, d);
  static const char *const grads[] = {"grad.embedded",  "grad.hidden",    "grad.logits",    "grad.embedding.weight",
                                      "grad.linear1.W", "grad.linear1.b", "grad.linear2.W", "grad.linear2.b"};
  for (int i = 0; i < 8; i++)
    unroll_output(d[i], grads[i]);
  unroll_output(embedded, "embedded");
  unroll_output(hidden, "hidden");
  unroll_output(logits, "logits");
  unroll_output(loss, "loss");
  model m = model_open(g, dev, true);
  put_golden(&m, &f, "ids");
  put_golden(&m, &f, "targets");
  for (int i = 0; i < 5; i++)
    put_golden(&m, &f, params[i]);
  model_run(&m);
  for (int i = 0; i < 8; i++)
    compare(&m, &f, grads[i], dtype);
  compare(&m, &f, "embedded", dtype);
  compare(&m, &f, "hidden", dtype);
  compare(&m, &f, "logits", dtype);
  compare(&m, &f, "loss", dtype);
  model_close(&m);
  unroll_graph_destroy(g);
  golden_close(&f);
}
static void dense(void **state) {
  for (int k = 0; k < 2; k++)
    FOR_EACH_DEVICE(dev, *state, dtypes[k])
      dense_on(dev, dtypes[k]);
}

static void layer_norm_on(unroll_device *dev, int32_t dtype) {
  static const char *const given[] = {"x", "gain", "shift"}, *const grads[] = {"grad.x", "grad.gain", "grad.shift"};
  golden f = golden_open("normalisation");
  unroll_graph *g = new_graph();
  unroll_tensor in[3], d[3];
  for (int i = 0; i < 3; i++)
    in[i] = input_like(g, &f, given[i], dtype);
  const unroll_tensor dy = input_like(g, &f, "dy", dtype);
  const unroll_tensor y = unroll_layer_norm(in[0], in[1], in[2], golden_number(&f, "epsilon", NAN));
  unroll_vjp(&y, &dy, 1, in, 3, d);
  for (int i = 0; i < 3; i++)
    unroll_output(d[i], grads[i]);
  unroll_output(y, "y");
  model m = model_open(g, dev, true);
  for (int i = 0; i < 3; i++)
    put_golden(&m, &f, given[i]);
  put_golden(&m, &f, "dy");
  model_run(&m);
  for (int i = 0; i < 3; i++)
    compare(&m, &f, grads[i], dtype);
  compare(&m, &f, "y", dtype);
  model_close(&m);
  unroll_graph_destroy(g);
  golden_close(&f);
}
static void layer_norm(void **state) {
  for (int k = 0; k < 2; k++)
    FOR_EACH_DEVICE(dev, *state, dtypes[k])
      layer_norm_on(dev, dtypes[k]);
}

static void losses_on(unroll_device *dev, int32_t dtype) {
  golden f = golden_open("losses");
  unroll_graph *g = new_graph();
  const unroll_tensor logits = input_like(g, &f, "logits", dtype), targets = input_like(g, &f, "targets", dtype),
                      y = input_like(g, &f, "mse.prediction", dtype), target = input_like(g, &f, "mse.target", dtype);
  const struct {
    const char *name;
    unroll_tensor loss, x;
  } losses[] = {{"cross_entropy.mean", unroll_cross_entropy(logits, targets, UNROLL_LOSS_MEAN), logits},
                {"cross_entropy.sum", unroll_cross_entropy(logits, targets, UNROLL_LOSS_SUM), logits},
                {"cross_entropy.none", unroll_cross_entropy(logits, targets, UNROLL_LOSS_NONE), logits},
                {"mse.mean", unroll_mse(y, target, UNROLL_LOSS_MEAN), y},
                {"mse.sum", unroll_mse(y, target, UNROLL_LOSS_SUM), y},
                {"mse.none", unroll_mse(y, target, UNROLL_LOSS_NONE), y},
                {"mse.half_sum", unroll_mse(y, target, UNROLL_LOSS_HALF_SUM), y}};
  enum { N_LOSSES = sizeof losses / sizeof *losses };
  char name[64];
  for (int i = 0; i < N_LOSSES; i++) {
    unroll_tensor d, upstream;
    const bool is_scalar = unroll_tensor_describe(losses[i].loss).rank == 0;
    snprintf(name, sizeof name, "d.%s", losses[i].name);
    if (!is_scalar)
      upstream = input_like(g, &f, name, dtype);
    unroll_vjp(&losses[i].loss, is_scalar ? NULL : &upstream, 1, &losses[i].x, 1, &d);
    snprintf(name, sizeof name, "grad.%s", losses[i].name);
    unroll_output(d, name);
    unroll_output(losses[i].loss, losses[i].name);
  }
  model m = model_open(g, dev, true);
  put_golden(&m, &f, "logits");
  put_golden(&m, &f, "targets");
  put_golden(&m, &f, "mse.prediction");
  put_golden(&m, &f, "mse.target");
  put_golden(&m, &f, "d.cross_entropy.none");
  put_golden(&m, &f, "d.mse.none");
  model_run(&m);
  for (int i = 0; i < N_LOSSES; i++) {
    snprintf(name, sizeof name, "grad.%s", losses[i].name);
    compare(&m, &f, losses[i].name, dtype);
    compare(&m, &f, name, dtype);
  }

  /* Every target ignored: the loss and its gradient are 0, not 0/0. */
  const int32_t none[6] = {-1, -1, -100, -1, -1, -1};
  const double zeros[30] = {0};
  model_put_i32(&m, "targets", none, 6);
  model_run(&m);
  double *mean = model_get(&m, "cross_entropy.mean", 1), *grad = model_get(&m, "grad.cross_entropy.mean", 30);
  assert_close("mean over no target", mean, zeros, 1, 0);
  assert_close("its gradient", grad, zeros, 30, 0);
  free(mean);
  free(grad);
  model_close(&m);
  unroll_graph_destroy(g);
  golden_close(&f);
}
static void losses(void **state) {
  for (int k = 0; k < 2; k++)
    FOR_EACH_DEVICE(dev, *state, dtypes[k])
      losses_on(dev, dtypes[k]);
}

/* A mean over a run-time number of steps is over those that there are. */
static void mean_over_run_time_steps(void **state) {
  for (int k = 0; k < 2; k++)
    FOR_EACH_DEVICE(dev, *state, dtypes[k]) {
      unroll_graph *g = new_graph();
      const int64_t shape[3] = {unroll_graph_dim(g, "T", 1, 9), 2, 3};
      const unroll_tensor y = unroll_input(g, "y", dtypes[k], 3, shape);
      const unroll_tensor loss = unroll_mse(y, unroll_input(g, "target", dtypes[k], 3, shape), UNROLL_LOSS_MEAN);
      unroll_tensor d;
      unroll_gradient(loss, &y, 1, &d);
      unroll_output(d, "dy");
      unroll_output(loss, "loss");
      model m = model_open(g, dev, true);
      for (int64_t T = 9; T >= 1; T -= 4) {
        double a[54], b[54], want = 0, want_d[54];
        for (int64_t i = 0; i < T * 6; i++) {
          a[i] = 0.25 * (double)(i % 7) + 0.5;
          b[i] = 0.125 * (double)(i % 5);
          want += (a[i] - b[i]) * (a[i] - b[i]) / (double)(T * 6);
          want_d[i] = 2 * (a[i] - b[i]) / (double)(T * 6);
        }
        model_set_dim(&m, T);
        model_put(&m, "y", a, T * 6);
        model_put(&m, "target", b, T * 6);
        model_run(&m);
        double *loss_got = model_get(&m, "loss", 1), *d_got = model_get(&m, "dy", T * 6);
        assert_close("mse of some steps", loss_got, &want, 1, tolerance(dtypes[k]));
        assert_close("its gradient", d_got, want_d, T * 6, tolerance(dtypes[k]));
        free(loss_got);
        free(d_got);
      }
      model_close(&m);
      unroll_graph_destroy(g);
    }
}

static void clip_on(unroll_device *dev, int32_t dtype, const char *side) {
  golden f = golden_open("clip");
  unroll_graph *g = new_graph();
  char name[64];
  unroll_tensor grads[3], norm;
  for (int i = 0; i < 3; i++) {
    snprintf(name, sizeof name, "grad.%d", i);
    grads[i] = input_like(g, &f, name, dtype);
  }
  snprintf(name, sizeof name, "%s.max_norm", side);
  const unroll_tensor scale = unroll_clip_global_norm(grads, 3, golden_scalar(&f, name), &norm);
  for (int i = 0; i < 3; i++) {
    snprintf(name, sizeof name, "%s.clipped.%d", side, i);
    unroll_output(unroll_mul(grads[i], scale), name);
  }
  snprintf(name, sizeof name, "%s.norm", side);
  unroll_output(norm, name);
  unroll_output(scale, "scale");
  model m = model_open(g, dev, true);
  for (int i = 0; i < 3; i++) {
    char grad[64];
    snprintf(grad, sizeof grad, "grad.%d", i);
    put_golden(&m, &f, grad);
  }
  model_run(&m);
  compare(&m, &f, name, dtype);
  for (int i = 0; i < 3; i++) {
    snprintf(name, sizeof name, "%s.clipped.%d", side, i);
    compare(&m, &f, name, dtype);
  }
  /* A gradient that is not finite is not hidden. */
  const double bad[5] = {1, 2, NAN, 4, 5};
  model_put(&m, "grad.1", bad, 5);
  model_run(&m);
  double *factor = model_get(&m, "scale", 1);
  assert_true(isnan(*factor));
  free(factor);
  model_close(&m);
  unroll_graph_destroy(g);
  golden_close(&f);
}
static void clip(void **state) {
  for (int k = 0; k < 2; k++)
    FOR_EACH_DEVICE(dev, *state, dtypes[k]) {
      clip_on(dev, dtypes[k], "above");
      clip_on(dev, dtypes[k], "below");
    }
}

static void optimizer_on(unroll_device *dev, int32_t dtype, const char *name, int32_t kind) {
  golden f = golden_open("optimizers");
  char key[64];
#define OPTION(option, otherwise) (snprintf(key, sizeof key, "%s." option, name), golden_number(&f, key, (otherwise)))
  const unroll_optimizer_attr attr = {.kind = kind,
                                      .beta1 = kind == UNROLL_SGD ? OPTION("momentum", 0) : OPTION("beta1", 0),
                                      .beta2 = kind == UNROLL_RMSPROP ? OPTION("alpha", 0) : OPTION("beta2", 0),
                                      .epsilon = OPTION("eps", 0),
                                      .weight_decay = OPTION("weight_decay", 0)};
  const double lr = OPTION("lr", NAN);
#undef OPTION
  unroll_graph *g = new_graph();
  const int64_t shape[2] = {3, 4};
  const unroll_tensor p = unroll_param(g, "p", dtype, 2, shape);
  unroll_optimize(p, unroll_input(g, "grad", dtype, 2, shape), unroll_input(g, "lr", dtype, 0, NULL),
                  unroll_input(g, "step", UNROLL_I32, 0, NULL), unroll_none(), &attr);
  model m = model_open(g, dev, true);
  snprintf(key, sizeof key, "%s.param0", name);
  double *start = golden_values(&f, key, NULL), *grads = golden_values(&f, "grads", NULL);
  snprintf(key, sizeof key, "%s.params", name);
  double *want = golden_values(&f, key, NULL);
  model_put(&m, "p", start, 12);
  model_put(&m, "lr", &lr, 1);
  for (int32_t step = 1; step <= 5; step++) {
    model_put(&m, "grad", grads + (step - 1) * 12, 12);
    model_put_i32(&m, "step", &step, 1);
    model_run(&m);
    double *got = model_get(&m, "p", 12);
    snprintf(key, sizeof key, "%s after step %d", name, step);
    assert_close(key, got, want + (step - 1) * 12, 12, tolerance(dtype));
    free(got);
  }
  free(start);
  free(grads);
  free(want);
  model_close(&m);
  unroll_graph_destroy(g);
  golden_close(&f);
}
static void optimizers(void **state) {
  for (int k = 0; k < 2; k++)
    FOR_EACH_DEVICE(dev, *state, dtypes[k]) {
      optimizer_on(dev, dtypes[k], "sgd", UNROLL_SGD);
      optimizer_on(dev, dtypes[k], "sgd_momentum", UNROLL_SGD);
      optimizer_on(dev, dtypes[k], "sgd_weight_decay", UNROLL_SGD);
      optimizer_on(dev, dtypes[k], "sgd_momentum_weight_decay", UNROLL_SGD);
      optimizer_on(dev, dtypes[k], "rmsprop", UNROLL_RMSPROP);
      optimizer_on(dev, dtypes[k], "adam", UNROLL_ADAM);
      optimizer_on(dev, dtypes[k], "adamw", UNROLL_ADAMW);
    }
}

/* What building says of misuse. */
static void misuse(void **state) {
  (void)state;
  unroll_error err = UNROLL_ERROR_INIT;
  const int64_t shape[3] = {4, 2, 3}, other[2] = {4, 2};
  const unroll_rnn_options good = {.struct_size = sizeof good, .cell = UNROLL_CELL_GRU, .layers = 1, .hidden = 5};
  for (int i = 0; i < 10; i++) {
    unroll_graph *g = new_graph();
    const unroll_tensor x = unroll_input(g, "x", UNROLL_F32, 3, shape), z = unroll_input(g, "z", UNROLL_F32, 2, other);
    unroll_rnn_options o = good;
    unroll_status want = UNROLL_E_RANGE;
    switch (i) {
    case 0: o.layers = 0; break;
    case 1: o.hidden = 0; break;
    case 2: o.dropout = 1; break;
    case 3: o.cell = 9, want = UNROLL_E_INVALID; break;
    case 4: o.struct_size = 4, want = UNROLL_E_INVALID; break;
    case 5: unroll_mse(x, z, UNROLL_LOSS_MEAN), want = UNROLL_E_SHAPE; break;
    case 6: unroll_mse(x, x, 17), want = UNROLL_E_INVALID; break;
    case 7: unroll_clip_global_norm(&x, 1, 0, NULL); break;
    case 8: unroll_linear(x, "l", 4, 1), unroll_linear(x, "l", 5, 1), want = UNROLL_E_SHAPE; break;
    default: unroll_input(g, "in.W_x.0.0", UNROLL_F32, 3, shape), want = UNROLL_E_INVALID; break;
    }
    unroll_rnn(x, "in", &o, NULL, NULL);
    assert_status(want, unroll_graph_status(g, &err));
    assert_true(strlen(err.message) > 10);
    unroll_graph_destroy(g);
  }
  /* Two layers under one name share their parameters. */
  unroll_graph *g = new_graph();
  const unroll_tensor x = unroll_input(g, "x", UNROLL_F32, 3, shape);
  unroll_rnn(x, "in", &good, NULL, NULL);
  const uint32_t n = unroll_graph_count(g);
  unroll_rnn(x, "in", &good, NULL, NULL);
  assert_int_equal(unroll_graph_count(g), n);
  assert_int_equal(n, 4); /* x, W_x, W_h, b */
  assert_status(UNROLL_OK, unroll_graph_status(g, &err));
  unroll_graph_destroy(g);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      DEVICE_TESTS(dense), DEVICE_TESTS(layer_norm), DEVICE_TESTS(losses),    DEVICE_TESTS(mean_over_run_time_steps),
      DEVICE_TESTS(clip),  DEVICE_TESTS(optimizers), cmocka_unit_test(misuse)};
  return cmocka_run_group_tests(tests, devices_open, devices_close);
}
