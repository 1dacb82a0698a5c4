/* SPDX-License-Identifier: Apache-2.0 */
/* State-space models as graphs against PyTorch in f64, results and gradients; neural autoregression against its formula. */
#include "devices.h"
#include "golden.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unroll/nn.h>
#include <unroll/series.h>
#include <unroll/ssm.h>

/* Six steps of sums of four products: 1e-12 of the largest value in f64, 3e-6 (50 of 2^-24) in f32. */
static double tolerance(int32_t dtype) { return dtype == UNROLL_F64 ? 1e-12 : 3e-6; }
static const int32_t dtypes[] = {UNROLL_F64, UNROLL_F32};
static const char *const directions[] = {"forward", "reverse"};

static unroll_graph *new_graph(void) {
  unroll_graph *g;
  unroll_error err = UNROLL_ERROR_INIT;
  assert_status(UNROLL_OK, unroll_graph_create(NULL, &g, &err));
  return g;
}

enum { MOST = 8 };
struct values { /* what a golden case has, as inputs of a graph */
  unroll_graph *g;
  golden file;
  int32_t dtype;
  uint32_t n;
  const char *names[MOST];
  unroll_tensor tensors[MOST];
  unroll_tensor lengths;
  int64_t run_time; /* T, where it is a run-time size; else 0 */
};

static unroll_tensor value(struct values *v, const char *name) {
  unroll_stored_tensor t = golden_describe(&v->file, name);
  const bool steps = strchr("uwv", name[0]) || (strchr("AC", name[0]) && t.rank > 2);
  if (v->run_time && steps)
    t.shape[0] = v->run_time;
  v->names[v->n] = name;
  v->tensors[v->n] = unroll_input(v->g, name, v->dtype, t.rank, t.shape);
  return v->tensors[v->n++];
}

/* The gradient of the sum of the results, each weighed by what the file has for it, to every value. */
static void add_gradients(struct values *v, const char *const *names, const unroll_tensor *results, uint32_t n) {
  unroll_tensor dy[MOST], dx[MOST];
  char name[64];
  for (uint32_t i = 0; i < n; i++) {
    snprintf(name, sizeof name, "d%s", names[i]);
    const unroll_tensor_info info = unroll_tensor_describe(results[i]);
    int64_t shape[UNROLL_MAX_RANK];
    memcpy(shape, info.shape, sizeof shape);
    if (v->run_time && (!strcmp(names[i], "y") || !strcmp(names[i], "x")))
      shape[0] = v->run_time;
    dy[i] = unroll_input(v->g, name, v->dtype, info.rank, shape);
    unroll_output(results[i], names[i]);
  }
  unroll_vjp(results, dy, n, v->tensors, v->n, dx);
  for (uint32_t i = 0; i < v->n; i++) {
    snprintf(name, sizeof name, "grad.%s", v->names[i]);
    unroll_output(dx[i], name);
  }
}

static void put(model *m, struct values *v, const char *name, const int32_t *lengths, bool spoil) {
  int64_t n;
  double *numbers = golden_values(&v->file, name, &n);
  const unroll_stored_tensor t = golden_describe(&v->file, name);
  if (spoil) /* what stands past a sequence's end is never looked at */
    for (int64_t i = 0, rest = n / (t.shape[0] * t.shape[1]); i < n; i++)
      if (i / (rest * t.shape[1]) >= lengths[i / rest % t.shape[1]])
        numbers[i] = NAN;
  model_put(m, name, numbers, n);
  free(numbers);
}

static void check(struct values *v, model *m, const char *const *names, uint32_t n_results) {
  int64_t n;
  int32_t *lengths = golden_integers(&v->file, "lengths", &n);
  model_put_i32(m, "lengths", lengths, n);
  char name[64];
  for (uint32_t i = 0; i < v->n; i++)
    put(m, v, v->names[i], lengths, strchr("uwv", v->names[i][0]) != NULL);
  for (uint32_t i = 0; i < n_results; i++) {
    snprintf(name, sizeof name, "d%s", names[i]);
    put(m, v, name, lengths, false);
  }
  model_run(m);
  for (uint32_t i = 0; i < n_results + v->n; i++) {
    snprintf(name, sizeof name, "%s%s", i < n_results ? "" : "grad.",
             i < n_results ? names[i] : v->names[i - n_results]);
    double *want = golden_values(&v->file, name, &n), *got = model_get(m, name, n);
    assert_close(name, got, want, n, tolerance(v->dtype));
    free(want);
    free(got);
  }
  free(lengths);
}

static struct values open_case(const char *form, int direction, int32_t dtype, bool run_time) {
  char name[64];
  snprintf(name, sizeof name, "ssm_%s_%s", form, directions[direction]);
  struct values v = {.g = new_graph(), .file = golden_open(name), .dtype = dtype};
  if (run_time)
    v.run_time = unroll_graph_dim(v.g, "T", 1, 9);
  const unroll_stored_tensor t = golden_describe(&v.file, "lengths");
  v.lengths = unroll_input(v.g, "lengths", UNROLL_I32, 1, t.shape);
  return v;
}

static void finish(struct values *v, unroll_device *dev, const char *const *names, const unroll_tensor *results,
                   uint32_t n) {
  add_gradients(v, names, results, n);
  model m = model_open(v->g, dev, true);
  if (v->run_time)
    model_set_dim(&m, 6);
  check(v, &m, names, n);
  model_close(&m);
  unroll_graph_destroy(v->g);
  golden_close(&v->file);
}

static void dense_on(unroll_device *dev, const char *form, int direction, int32_t dtype, bool run_time) {
  static const char *const names[] = {"y", "x", "x_last"};
  struct values v = open_case(form, direction, dtype, run_time);
  const unroll_ssm in = {.struct_size = sizeof in,
                         .A = value(&v, "A"),
                         .C = value(&v, "C"),
                         .u = value(&v, "u"),
                         .B = value(&v, "B"),
                         .D = value(&v, "D"),
                         .w = value(&v, "w"),
                         .v = value(&v, "v"),
                         .x0 = value(&v, "x0"),
                         .lengths = v.lengths};
  const unroll_ssm_outputs out = unroll_ssm_dense(&in, direction ? UNROLL_REVERSE : UNROLL_FORWARD);
  finish(&v, dev, names, (unroll_tensor[]){out.y, out.x, out.x_last}, 3);
}
static void dense(void **state) {
  static const char *const forms[] = {"fixed", "step", "sequence"};
  for (int k = 0; k < 2; k++)
    FOR_EACH_DEVICE(dev, *state, dtypes[k]) {
      for (int form = 0; form < 3; form++)
        for (int direction = 0; direction < 2; direction++)
          dense_on(dev, forms[form], direction, dtypes[k], false);
      for (int form = 0; form < 3; form++)
        dense_on(dev, forms[form], 0, dtypes[k], true);
    }
}

static void diagonal_on(unroll_device *dev, int method, int direction, int32_t dtype, bool run_time) {
  static const char *const names[] = {"y", "x", "x_last", "a", "b"};
  struct values v = open_case(method == UNROLL_BILINEAR ? "bilinear" : "hold", direction, dtype, run_time);
  unroll_diagonal_ssm in = {.struct_size = sizeof in,
                            .u = value(&v, "u"),
                            .c = value(&v, "c"),
                            .d = value(&v, "d"),
                            .x0 = value(&v, "x0"),
                            .lengths = v.lengths};
  const unroll_tensor A = value(&v, "A"), B = value(&v, "B"), dt = value(&v, "dt");
  unroll_discretize(A, B, dt, method, &in.a, &in.b);
  const unroll_ssm_outputs out = unroll_ssm_diagonal(&in, direction ? UNROLL_REVERSE : UNROLL_FORWARD);
  finish(&v, dev, names, (unroll_tensor[]){out.y, out.x, out.x_last, in.a, in.b}, 5);
}
static void diagonal(void **state) {
  for (int k = 0; k < 2; k++)
    FOR_EACH_DEVICE(dev, *state, dtypes[k])
      for (int method = 0; method < 2; method++) {
        for (int direction = 0; direction < 2; direction++)
          diagonal_on(dev, method, direction, dtypes[k], false);
        diagonal_on(dev, method, 0, dtypes[k], true);
      }
}

/* Coefficients of every step, all the same but NaN past the ends, give the bits of one for all, and so do the gradients. */
static void selective(void **state) {
  static const char *const names[] = {"y", "x", "x_last", "da", "db", "dc", "du"};
  enum { T = 6, S = 3, M = 2, N = 4, MN = M * N, RESULTS = sizeof names / sizeof names[0] };
  static const int64_t sizes[RESULTS] = {T * S * M, T * S * MN, S * MN, MN, MN, MN, T * S * M};
  for (int k = 0; k < 2; k++)
    FOR_EACH_DEVICE(dev, *state, dtypes[k]) {
      golden f = golden_open("ssm_hold_forward");
      int64_t n;
      double *numbers[4] = {golden_values(&f, "a", NULL), golden_values(&f, "b", NULL), golden_values(&f, "c", NULL),
                            golden_values(&f, "u", NULL)},
             *got[2][RESULTS];
      int32_t *lengths = golden_integers(&f, "lengths", &n);
      for (int each = 0; each < 2; each++) {
        unroll_graph *g = new_graph();
        const int64_t shape[4] = {T, S, M, N};
        unroll_tensor x[4], d[4];
        for (int i = 0; i < 3; i++)
          x[i] = unroll_input(g, (const char *[]){"a", "b", "c"}[i], dtypes[k], each ? 4 : 2, each ? shape : shape + 2);
        x[3] = unroll_input(g, "u", dtypes[k], 3, shape);
        const unroll_diagonal_ssm in = {.struct_size = sizeof in,
                                        .u = x[3],
                                        .a = x[0],
                                        .b = x[1],
                                        .c = x[2],
                                        .lengths = unroll_input(g, "lengths", UNROLL_I32, 1, shape + 1)};
        const unroll_ssm_outputs out = unroll_ssm_diagonal(&in, UNROLL_FORWARD);
        unroll_vjp((unroll_tensor[]){out.y, out.x_last}, (unroll_tensor[]){unroll_none(), unroll_none()}, 2, x, 4, d);
        unroll_output(out.y, "y");
        unroll_output(out.x, "x");
        unroll_output(out.x_last, "x_last");
        for (int i = 0; i < 4; i++)
          unroll_output(d[i], names[3 + i]);
        model m = model_open(g, dev, true);
        model_put_i32(&m, "lengths", lengths, S);
        for (int i = 0; i < 3; i++) {
          double values[T * S * MN];
          for (int j = 0; j < T * S * MN; j++)
            values[j] = j / (S * MN) < lengths[j / MN % S] ? numbers[i][j % MN] : NAN;
          model_put(&m, (const char *[]){"a", "b", "c"}[i], each ? values : numbers[i], each ? T * S * MN : MN);
        }
        model_put(&m, "u", numbers[3], T * S * M);
        model_run(&m);
        for (int i = 0; i < RESULTS; i++) {
          const bool coefficient = each && i >= 3 && i < 6;
          got[each][i] = model_get(&m, names[i], coefficient ? T * S * MN : sizes[i]);
          for (int j = MN; coefficient && j < T * S * MN; j++)
            got[each][i][j % MN] += got[each][i][j];
        }
        model_close(&m);
        unroll_graph_destroy(g);
      }
      for (int i = 0; i < RESULTS; i++) {
        /* sums over steps and sequences are made here in another order */
        assert_close(names[i], got[1][i], got[0][i], sizes[i], i >= 3 && i < 6 ? tolerance(dtypes[k]) : 0);
        free(got[0][i]);
        free(got[1][i]);
      }
      for (int i = 0; i < 4; i++)
        free(numbers[i]);
      free(lengths);
      golden_close(&f);
    }
}

/* Without input, noise of the observation, D, x0 and lengths: x is the running sum of A^k w. */
static void only_what_must_be(void **state) {
  FOR_EACH_DEVICE(dev, *state, UNROLL_F32) {
    unroll_graph *g = new_graph();
    const unroll_ssm in = {.struct_size = sizeof in,
                           .A = unroll_input(g, "A", UNROLL_F32, 2, (int64_t[]){2, 2}),
                           .C = unroll_input(g, "C", UNROLL_F32, 2, (int64_t[]){1, 2}),
                           .w = unroll_input(g, "w", UNROLL_F32, 3, (int64_t[]){3, 1, 2})};
    unroll_output(unroll_ssm_dense(&in, UNROLL_FORWARD).y, "y");
    model m = model_open(g, dev, true);
    model_put(&m, "A", (double[]){1, 1, 0, 0.5}, 4);
    model_put(&m, "C", (double[]){2, -1}, 2);
    model_put(&m, "w", (double[]){1, 2, 0, 0, 0, 4}, 6);
    model_run(&m);
    double *y = model_get(&m, "y", 3);
    assert_close("y", y, ((double[]){0, 5, 3.5}), 3, 0); /* x: (1,2), (3,1), (4,4.5) */
    free(y);
    model_close(&m);
    unroll_graph_destroy(g);
  }
}

/*
 * A model that is simulated on a device, with noise, is what the Kalman filter takes it for: its innovations, divided by
 * their standard deviations, are standard normal and independent, and the filter with other covariances finds less likely.
 */
static void simulated(void **state) {
  enum { T = 4000, S = 2, N = 2 };
  const double F[4] = {0.9, 0.3, -0.2, 0.7}, H[2] = {1, 0.5}, L[4] = {0.8, 0, -0.5, 0.4}, r[1] = {0.7};
  double Q[4] = {0.64, -0.4, -0.4, 0.41}, R[1] = {0.49}; /* L·Lᵀ, r² */
  FOR_EACH_DEVICE(dev, *state, UNROLL_F32) {
    unroll_graph *g = new_graph();
    const unroll_ssm in = {.struct_size = sizeof in,
                           .A = unroll_input(g, "F", UNROLL_F32, 2, (int64_t[]){N, N}),
                           .C = unroll_input(g, "H", UNROLL_F32, 2, (int64_t[]){1, N}),
                           .w = unroll_noise(unroll_input(g, "L", UNROLL_F32, 2, (int64_t[]){N, N}), T, S),
                           .v = unroll_noise(unroll_input(g, "r", UNROLL_F32, 2, (int64_t[]){1, 1}), T, S)};
    unroll_output(unroll_ssm_dense(&in, UNROLL_FORWARD).y, "y");
    model m = model_open(g, dev, true);
    model_put(&m, "F", F, 4);
    model_put(&m, "H", H, 2);
    model_put(&m, "L", L, 4);
    model_put(&m, "r", r, 1);
    model_run(&m);
    double *both = model_get(&m, "y", T * S), y[T], v[T], cov[T];
    for (int s = 0; s < S; s++) {
      for (int t = 0; t < T; t++)
        y[t] = both[t * S + s];
      unroll_kalman_model truth = {.struct_size = sizeof truth, .n = N, .m = 1, .F = F, .H = H, .Q = Q, .R = R};
      unroll_kalman_result k = {.struct_size = sizeof k, .innovation = v, .innovation_cov = cov}, other = k;
      unroll_error err = UNROLL_ERROR_INIT;
      assert_status(UNROLL_OK, unroll_kalman_filter(&truth, y, T, NULL, &k, &err));
      double mean = 0, square = 0, lagged = 0;
      for (int t = 0; t < T; t++)
        v[t] /= sqrt(cov[t]);
      for (int t = 0; t < T; t++) {
        mean += v[t] / T;
        square += v[t] * v[t] / T;
        lagged += t ? v[t] * v[t - 1] / T : 0;
      }
      /* five standard deviations of each, over 4,000 steps */
      assert_true(fabs(mean) < 5 / sqrt(T) && fabs(lagged) < 5 / sqrt(T) && fabs(square - 1) < 5 * sqrt(2.0 / T));
      truth.Q = (double[]){0.64, 0.4, 0.4, 0.41};
      assert_status(UNROLL_OK, unroll_kalman_filter(&truth, y, T, NULL, &other, &err));
      assert_true(other.log_likelihood < k.log_likelihood - 10);
    }
    free(both);
    model_close(&m);
    unroll_graph_destroy(g);
  }
}

/* The window's values by hand: the oldest first, both forms, and the parameters' names. */
static void neural_ar(void **state) {
  for (int k = 0; k < 2; k++)
    FOR_EACH_DEVICE(dev, *state, dtypes[k]) {
      const double x[6] = {0.5, -1, 0.25, 2, -0.75, 1}; /* [3,2,1] */
      const double W[6] = {0.3, -0.2, 0.7, -0.5, 0.1, 0.4}, b[2] = {0.1, -0.3}, out[2] = {1.5, -0.8}, c = 0.2;
      double want[2], elman[2];
      for (int s = 0; s < 2; s++) {
        want[s] = elman[s] = c;
        double h[2] = {0, 0};
        for (int i = 0; i < 2; i++) {
          double sum = b[i];
          for (int t = 0; t < 3; t++)
            sum += W[3 * i + t] * x[2 * t + s];
          want[s] += out[i] * tanh(sum);
        }
        for (int t = 0; t < 3; t++) { /* W_x is W's first column of two, W_h its last four numbers */
          const double h0 = tanh(W[0] * x[2 * t + s] + b[0] + W[2] * h[0] + W[3] * h[1]),
                       h1 = tanh(W[1] * x[2 * t + s] + b[1] + W[4] * h[0] + W[5] * h[1]);
          h[0] = h0;
          h[1] = h1;
        }
        elman[s] += out[0] * h[0] + out[1] * h[1];
      }
      unroll_graph *g = new_graph();
      const unroll_tensor window = unroll_input(g, "x", dtypes[k], 3, (int64_t[]){3, 2, 1});
      unroll_output(unroll_neural_ar(window, "mlp", UNROLL_CELL_NONE, 2), "y");
      unroll_output(unroll_neural_ar(window, "", UNROLL_CELL_RNN, 2), "z");
      model m = model_open(g, dev, true);
      model_put(&m, "x", x, 6);
      model_put(&m, "mlp.hidden.W", W, 6);
      model_put(&m, "mlp.hidden.b", b, 2);
      model_put(&m, "mlp.out.W", out, 2);
      model_put(&m, "mlp.out.b", &c, 1);
      model_put(&m, "rnn.W_x.0.0", W, 2);
      model_put(&m, "rnn.W_h.0.0", W + 2, 4);
      model_put(&m, "rnn.b.0.0", b, 2);
      model_put(&m, "out.W", out, 2);
      model_put(&m, "out.b", &c, 1);
      model_run(&m);
      double *y = model_get(&m, "y", 2), *z = model_get(&m, "z", 2);
      assert_close("of all values at once", y, want, 2, tolerance(dtypes[k]));
      assert_close("recurrent", z, elman, 2, tolerance(dtypes[k]));
      free(y);
      free(z);
      model_close(&m);
      unroll_graph_destroy(g);
    }
}

/* What building says of misuse. */
static void misuse(void **state) {
  (void)state;
  static const struct {
    const char *words;
    unroll_status status;
  } cases[] = {{"A is missing", UNROLL_E_INVALID},
               {"C is missing", UNROLL_E_INVALID},
               {"both u and w are missing", UNROLL_E_INVALID},
               {"B is missing", UNROLL_E_INVALID},
               {"A is", UNROLL_E_SHAPE},
               {"C is", UNROLL_E_SHAPE},
               {"B is", UNROLL_E_SHAPE},
               {"D is", UNROLL_E_SHAPE},
               {"v is", UNROLL_E_SHAPE},
               {"x0 is", UNROLL_E_SHAPE},
               {"or [T,S,N,N]", UNROLL_E_SHAPE},
               {"struct_size", UNROLL_E_INVALID},
               {"a, b or c", UNROLL_E_INVALID},
               {"c is", UNROLL_E_SHAPE},
               {"method 7", UNROLL_E_INVALID},
               {"dt is", UNROLL_E_SHAPE},
               {"expected [p,S,1]", UNROLL_E_SHAPE},
               {"noise: its factor is", UNROLL_E_SHAPE}};
  for (int i = 0; i < (int)(sizeof cases / sizeof cases[0]); i++) {
    unroll_graph *g = new_graph();
    unroll_error err = UNROLL_ERROR_INIT;
#define IN(name, ...)                                                                              \
  unroll_input(g, name, UNROLL_F32, (int32_t)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), \
               (int64_t[]){__VA_ARGS__})
    unroll_ssm in = {.struct_size = sizeof in,
                     .A = IN("A", 4, 4),
                     .C = IN("C", 3, 4),
                     .u = IN("u", 5, 2, 6),
                     .B = IN("B", 4, 6),
                     .D = IN("D", 3, 6),
                     .v = IN("v", 5, 2, 3),
                     .x0 = IN("x0", 2, 4)};
    unroll_diagonal_ssm diag = {
        .struct_size = sizeof diag, .u = in.u, .a = IN("a", 6, 4), .b = IN("b", 6, 4), .c = IN("c", 6, 4)};
    unroll_tensor a, b;
    switch (i) {
    case 0: in.A = unroll_none(); break;
    case 1: in.C = unroll_none(); break;
    case 2: in.u = unroll_none(); break;
    case 3: in.B = unroll_none(); break;
    case 4: in.A = IN("bad", 4, 5); break;
    case 5: in.C = IN("bad", 3, 5); break;
    case 6: in.B = IN("bad", 4, 5); break;
    case 7: in.D = IN("bad", 3, 4); break;
    case 8: in.v = IN("bad", 5, 3, 3); break;
    case 9: in.x0 = IN("bad", 3, 4); break;
    case 10: in.A = IN("bad", 5, 3, 4, 4); break;
    case 11: in.struct_size = 8; break;
    case 12: diag.b = unroll_none(); break;
    case 13: diag.c = IN("bad", 6, 5); break;
    case 14: unroll_discretize(diag.a, diag.b, IN("dt", 6), 7, &a, &b); break;
    case 15: unroll_discretize(diag.a, diag.b, IN("dt", 5), UNROLL_BILINEAR, &a, &b); break;
    case 16: unroll_neural_ar(in.u, "p", UNROLL_CELL_NONE, 3); break;
    default: unroll_noise(in.B, 5, 2); break;
    }
    if (i < 12)
      unroll_ssm_dense(&in, UNROLL_FORWARD);
    else
      unroll_ssm_diagonal(&diag, UNROLL_FORWARD);
    assert_status(cases[i].status, unroll_graph_status(g, &err));
    if (!strstr(err.message, cases[i].words))
      fail_msg("case %d: '%s' lacks '%s'", i, err.message, cases[i].words);
    unroll_graph_destroy(g);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      DEVICE_TESTS(dense),     DEVICE_TESTS(diagonal),  DEVICE_TESTS(selective), DEVICE_TESTS(only_what_must_be),
      DEVICE_TESTS(simulated), DEVICE_TESTS(neural_ar), cmocka_unit_test(misuse)};
  return cmocka_run_group_tests(tests, devices_open, devices_close);
}
