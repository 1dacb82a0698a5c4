/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The option precision=half of the OpenCL backend: weights are rounded to half, to the nearest even, and nothing else is.
 * So on a processor half gives the same bits as float does from weights that were rounded before, whatever the layer; and
 * as a float has 24 bits and a half 11, both are within float's error of the reference in f64 from such weights.
 */
#include "runs.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unroll/nn.h>

static run_log seen;

enum { T = 7, B = 5, I = 9, H = 21 }; /* no multiple of anything */

/* ---- halves ---- */
/* The nearest half, as a float. */
static float to_half(float w) {
  const float size = fabsf(w);
  if (!(size < 65520.0f)) /* half way between the largest half and what would be the next */
    return isnan(w) ? w : copysignf(INFINITY, w);
  int exponent;
  (void)frexpf(size, &exponent); /* 2^(exponent-1) <= size < 2^exponent */
  const int unit = exponent - 11 < -24 ? -24 : exponent - 11;
  return copysignf(ldexpf(nearbyintf(ldexpf(size, -unit)), unit), w);
}

static void halves_are_right(void **state) {
  (void)state;
  static const float pairs[][2] = {{1.0f, 1.0f},
                                   {0x1.002p0f, 0x1p0f}, /* ties */
                                   {0x1.006p0f, 0x1.008p0f},
                                   {0x1.00201p0f, 0x1.004p0f},
                                   {65519.9f, 65504.0f},
                                   {-65520.0f, -INFINITY},
                                   {0x1p-25f, 0.0f},
                                   {0x1.8p-25f, 0x1p-24f},
                                   {0x1.8p-24f, 0x1p-23f},
                                   {0x1.ffcp-15f, 0x1.ffcp-15f}, /* that is 11 bits, one too many of a subnormal */
                                   {-0.0f, -0.0f}};
  for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
    if (i != 9)
      assert_memory_equal(&(float){to_half(pairs[i][0])}, &pairs[i][1], sizeof(float));
  assert_true(to_half(pairs[9][0]) != pairs[9][0] && fabsf(to_half(pairs[9][0]) - pairs[9][0]) <= 0x1p-25f);
  assert_true(isnan(to_half(NAN)));
}

/* ---- graphs ---- */
typedef struct problem {
  int32_t cell, dtype;
  int64_t steps, batch, units;
  bool lengths, reverse, gradient;
} problem;

static unroll_graph *new_graph(void) {
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_graph *g;
  assert_status(UNROLL_OK, unroll_graph_create(NULL, &g, &err));
  return g;
}

static void add_outputs(unroll_graph *g, const unroll_tensor *of, const char *const *names, int n) {
  unroll_error err = UNROLL_ERROR_INIT;
  for (int i = 0; i < n; i++)
    unroll_output(of[i], names[i]);
  assert_status(UNROLL_OK, unroll_graph_status(g, &err));
}

static unroll_graph *layer_graph(const problem *p) {
  unroll_graph *g = new_graph();
  const int64_t G = p->cell == UNROLL_CELL_RNN ? 1 : p->cell == UNROLL_CELL_LSTM ? 4 : 3, N = p->units;
  unroll_layer_inputs in = {.x = unroll_input(g, "x", p->dtype, 3, (int64_t[]){p->steps, p->batch, I}),
                            .W_x = unroll_param(g, "W_x", p->dtype, 2, (int64_t[]){G * N, I}),
                            .W_h = unroll_param(g, "W_h", p->dtype, 2, (int64_t[]){G * N, N}),
                            .b = unroll_param(g, "b", p->dtype, 1, (int64_t[]){G * N}),
                            .h0 = unroll_input(g, "h0", p->dtype, 2, (int64_t[]){p->batch, N})};
  if (p->cell == UNROLL_CELL_LSTM)
    in.c0 = unroll_input(g, "c0", p->dtype, 2, (int64_t[]){p->batch, N});
  if (p->cell == UNROLL_CELL_GRU_AFTER)
    in.b_n = unroll_param(g, "b_n", p->dtype, 1, (int64_t[]){N});
  if (p->lengths)
    in.lengths = unroll_input(g, "lengths", UNROLL_I32, 1, (int64_t[]){p->batch});
  const unroll_layer_attr attr = {
      .cell = p->cell, .direction = p->reverse ? UNROLL_REVERSE : UNROLL_FORWARD, .activation = UNROLL_TANH};
  const unroll_layer_outputs out = unroll_layer(&in, &attr, 0);
  add_outputs(g, (unroll_tensor[]){out.y, out.h_last}, (const char *[]){"y", "h_last"}, 2);
  if (p->gradient) {
    const unroll_tensor dy = unroll_input(g, "dy", p->dtype, 3, (int64_t[]){p->steps, p->batch, N});
    const unroll_tensor of[] = {in.x, in.W_x, in.W_h, in.b, in.h0};
    unroll_tensor d[5];
    unroll_vjp(&out.y, &dy, 1, of, 5, d);
    add_outputs(g, d, (const char *[]){"dx", "dW_x", "dW_h", "db", "dh0"}, 5);
  }
  return g;
}

/* y = a·W + c, or a·Wᵀ. */
static unroll_graph *product_graph(int32_t dtype, int64_t m, int64_t n, int64_t k, bool turned) {
  unroll_graph *g = new_graph();
  const unroll_tensor a = unroll_input(g, "a", dtype, 2, (int64_t[]){m, k}),
                      w = unroll_param(g, "W", dtype, 2, turned ? (int64_t[]){n, k} : (int64_t[]){k, n}),
                      c = unroll_param(g, "c", dtype, 1, (int64_t[]){n});
  const unroll_tensor y = unroll_matmul_add(a, 0, w, turned, c);
  add_outputs(g, &y, (const char *[]){"y"}, 1);
  return g;
}

/* ---- numbers ---- */
typedef enum weights { AS_THEY_ARE, ROUNDED, SPECIAL, SPECIAL_ROUNDED } weights;

static const float specials[] = {NAN,        INFINITY,       -INFINITY,      65504.0f,     65519.0f,    65520.0f,
                                 1e30f,      0x1p-14f,       0x1.8p-15f,     0x1.357p-16f, 0x1p-24f,    0x1p-25f,
                                 -0x1p-24f,  0x1.8p-24f,     0x1.80001p-25f, -0x1p-30f,    -0.0f,       0x1.002p0f,
                                 0x1.006p0f, -0x1.002001p3f, 0x1p-149f,      -65504.0f,    0x1.ffdp-15f};
enum { N_SPECIALS = sizeof specials / sizeof *specials };

/* The k-th number of a tensor: from -0.4 to 0.6; of weights as said. The first column of SPECIAL weights [rows][columns]. */
static double number(const char *name, int64_t k, int64_t columns, weights how) {
  uint32_t seed = 2166136261u;
  for (const char *c = name; *c; c++)
    seed = (seed ^ (unsigned char)*c) * 16777619u;
  seed = (seed ^ (uint32_t)k) * 2654435761u;
  seed = (seed ^ seed >> 15) * 2246822519u;
  float value = (float)(seed >> 8) / 16777216.0f - 0.4f;
  if (name[0] != 'W') /* h0 of SPECIAL weights lets only their first column through */
    return how >= SPECIAL && strcmp(name, "h0") == 0 ? k % columns == 0 : (double)value;
  if (how >= SPECIAL && (strcmp(name, "W_h") == 0 || columns == 1))
    value = k % columns ? 0.0f : specials[k / columns % N_SPECIALS];
  return (double)(how == ROUNDED || how == SPECIAL_ROUNDED ? to_half(value) : value);
}

static const int32_t lengths_of[B] = {3, T, 0, 1, T};

static void fill(unroll_graph *g, unroll_binding *b, weights how) {
  unroll_error err = UNROLL_ERROR_INIT;
  for (uint32_t i = 0; i < unroll_graph_count(g); i++) {
    const unroll_tensor_info info = unroll_tensor_describe(unroll_graph_tensor(g, i));
    if (info.role != UNROLL_ROLE_INPUT && info.role != UNROLL_ROLE_PARAM)
      continue;
    if (info.dtype == UNROLL_I32) {
      assert_status(UNROLL_OK, unroll_binding_write(b, info.name, lengths_of, sizeof lengths_of, &err));
      continue;
    }
    int64_t n = 1;
    for (int32_t k = 0; k < info.rank; k++)
      n *= info.shape[k];
    const size_t size = info.dtype == UNROLL_F64 ? sizeof(double) : sizeof(float);
    unsigned char *data = malloc((size_t)n * size);
    assert_non_null(data);
    for (int64_t k = 0; k < n; k++) {
      const double value = number(info.name, k, info.shape[info.rank - 1], how);
      if (info.dtype == UNROLL_F64)
        memcpy(data + (size_t)k * size, &value, size);
      else
        memcpy(data + (size_t)k * size, &(float){(float)value}, size);
    }
    assert_status(UNROLL_OK, unroll_binding_write(b, info.name, data, (uint64_t)n * size, &err));
    free(data);
  }
}

/* The outputs of a run; the graph is freed. */
static results run(unroll_context *ctx, const char *device, unroll_graph *g, weights how, const char *o1,
                   const char *o2, const char *o3, const char *o4) {
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_device *d = runs_device(ctx, device, o1, o2, o3, o4, NULL);
  unroll_executable *e;
  unroll_binding *b;
  assert_status(UNROLL_OK, unroll_compile(g, &d, 1, NULL, &e, &err));
  assert_status(UNROLL_OK, unroll_binding_create(e, &b, &err));
  fill(g, b, how);
  assert_status(UNROLL_OK, unroll_run(b, NULL, &err));
  const results all = runs_read(g, b);
  results out = {0, calloc(all.n, sizeof *out.of)};
  assert_non_null(out.of);
  for (uint32_t i = 0; i < all.n; i++)
    if (strchr("yhd", all.of[i].name[0])) /* outputs, not parameters */
      out.of[out.n++] = all.of[i];
    else
      free(all.of[i].data);
  free(all.of);
  unroll_binding_destroy(b);
  unroll_executable_destroy(e);
  unroll_device_close(d);
  unroll_graph_destroy(g);
  return out;
}

static results on_cpu(unroll_context *ctx, unroll_graph *g, weights how, const char *precision,
                      const char *recurrence) {
  return run(ctx, "opencl", g, how, precision, recurrence, "kernels=cpu", "tune=off");
}

static double value_of(const struct result *r, int64_t k) {
  return r->dtype == UNROLL_F64 ? ((const double *)r->data)[k] : (double)((const float *)r->data)[k];
}

static double largest_difference(const struct result *a, const struct result *b) {
  double largest = 0;
  assert_int_equal(a->count, b->count);
  for (int64_t k = 0; k < a->count; k++)
    largest = fmax(largest, fabs(value_of(a, k) - value_of(b, k)));
  return largest;
}

/* As assert_near, but of different dtypes. */
static void assert_agrees(const results *got, const results *want, double tolerance) {
  assert_int_equal(got->n, want->n);
  for (uint32_t i = 0; i < got->n; i++) {
    double largest = 0;
    for (int64_t k = 0; k < want->of[i].count; k++)
      largest = fmax(largest, fabs(value_of(&want->of[i], k)));
    const double off = largest_difference(&got->of[i], &want->of[i]);
    if (!(off <= tolerance * largest))
      fail_msg("%s: off by %g of %g", got->of[i].name, off, largest);
  }
}

static unroll_context *start(void) {
  unroll_context *ctx = runs_context(NULL, &seen);
  if (!runs_have(ctx, "opencl")) {
    unroll_context_destroy(ctx);
    skip();
  }
  return ctx;
}

/* ---- layers ---- */
static unroll_graph *layer_of(problem p, int32_t dtype) {
  p.dtype = dtype;
  return layer_graph(&p);
}

/* A hundred times what the order of some 30 products and 7 steps can do to a float, of the largest number of a tensor. */
static const double FLOAT_ERROR = 2e-5;

static void check_layer(unroll_context *ctx, const problem *p, const char *recurrence) {
  results half = on_cpu(ctx, layer_of(*p, UNROLL_F32), AS_THEY_ARE, "precision=half", recurrence);
  results same = on_cpu(ctx, layer_of(*p, UNROLL_F32), ROUNDED, "precision=half", recurrence);
  results full = on_cpu(ctx, layer_of(*p, UNROLL_F32), ROUNDED, "precision=float", recurrence);
  results unrounded = on_cpu(ctx, layer_of(*p, UNROLL_F32), AS_THEY_ARE, "precision=float", recurrence);
  results want = run(ctx, "cpu", layer_of(*p, UNROLL_F64), ROUNDED, NULL, NULL, NULL, NULL);
  assert_same(&same, &full);
  assert_agrees(&same, &want, FLOAT_ERROR);
  /* Lowered, the GRU that resets before cuts its weights in two, and what a graph computes is not rounded. */
  if (p->cell != UNROLL_CELL_GRU || strcmp(recurrence, "recurrence=scan") != 0)
    assert_same(&half, &full);
  assert_true(largest_difference(&half.of[0], &unrounded.of[0]) > 1e-5); /* and something was */
  results *const all[] = {&half, &same, &full, &unrounded, &want};
  for (int i = 0; i < 5; i++)
    results_free(all[i]);
}

static void layers(void **state) {
  const char *recurrence = *state;
  unroll_context *ctx = start();
  for (int32_t cell = UNROLL_CELL_RNN; cell < UNROLL_CELL_COUNT; cell++)
    check_layer(
        ctx,
        &(problem){
            .cell = cell, .steps = T, .batch = B, .units = H, .lengths = true, .reverse = cell % 2, .gradient = true},
        recurrence);
  unroll_context_destroy(ctx);
}

/* One row, whose x goes through a product of its own. */
static void one_row(void **state) {
  (void)state;
  unroll_context *ctx = start();
  check_layer(ctx, &(problem){.cell = UNROLL_CELL_LSTM, .steps = T, .batch = 1, .units = 70}, "recurrence=auto");
  check_layer(ctx, &(problem){.cell = UNROLL_CELL_GRU, .steps = T, .batch = 1, .units = 70}, "recurrence=auto");
  unroll_context_destroy(ctx);
}

/* As a GPU: of the weights W_h is rounded there, by kernels of its own. */
static void layer_of_gpu(void **state) {
  (void)state;
  unroll_context *ctx = start();
  const problem p = {.cell = UNROLL_CELL_LSTM, .steps = T, .batch = B, .units = H, .lengths = true, .gradient = true};
  const weights how[] = {ROUNDED, AS_THEY_ARE};
  for (int i = 0; i < 2; i++) {
    results half = run(ctx, "opencl", layer_of(p, UNROLL_F32), how[i], "precision=half", "kernels=gpu",
                       "recurrence=step", "product=own");
    results want = run(ctx, "cpu", layer_of(p, UNROLL_F64), how[i], NULL, NULL, NULL, NULL);
    if (how[i] == ROUNDED)
      assert_agrees(&half, &want, FLOAT_ERROR);
    else
      assert_true(largest_difference(&half.of[0], &want.of[0]) > 1e-5);
    results_free(&half);
    results_free(&want);
  }
  unroll_context_destroy(ctx);
}

/* ---- products ---- */
static void products(void **state) {
  (void)state;
  static const int64_t sizes[][3] = {{1, 33, 40}, {5, 21, 1}, {40, 70, 600}, {3, 130, 1100}};
  unroll_context *ctx = start();
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
    for (int turned = 0; turned < 2; turned++) {
      const int64_t m = sizes[i][0], n = sizes[i][1], k = sizes[i][2];
      results half =
          on_cpu(ctx, product_graph(UNROLL_F32, m, n, k, turned), AS_THEY_ARE, "precision=half", "recurrence=auto");
      results full =
          on_cpu(ctx, product_graph(UNROLL_F32, m, n, k, turned), ROUNDED, "precision=float", "recurrence=auto");
      results want = run(ctx, "cpu", product_graph(UNROLL_F64, m, n, k, turned), AS_THEY_ARE, NULL, NULL, NULL, NULL);
      assert_same(&half, &full);
      /* Each weight is off by 2^-11 of itself at most (or 2^-25), each sum by the rest; which is not what happens to be. */
      double most = 0;
      const struct result *y = &half.of[0], *exact = &want.of[0];
      for (int64_t row = 0; row < m; row++)
        for (int64_t column = 0; column < n; column++) {
          double size = 0;
          for (int64_t q = 0; q < k; q++)
            size +=
                fabs(number("a", row * k + q, k, AS_THEY_ARE)) *
                (fabs(number("W", turned ? column * k + q : q * n + column, turned ? k : n, AS_THEY_ARE)) + 0x1p-14);
          const double off = fabs(value_of(y, row * n + column) - value_of(exact, row * n + column));
          assert_true(off <= (size + 1) * (0x1p-11 + 0x1p-20));
          most = fmax(most, off / (size + 1));
        }
      assert_true(most > 0x1p-17);
      results_free(&half);
      results_free(&full);
      results_free(&want);
    }
  unroll_context_destroy(ctx);
}

/* As in the gradient of weights, dᵀ·x: neither is a weight. */
static unroll_graph *weights_gradient(void) {
  unroll_graph *g = new_graph();
  const unroll_tensor d = unroll_input(g, "d", UNROLL_F32, 2, (int64_t[]){60, 40}),
                      x = unroll_input(g, "x", UNROLL_F32, 2, (int64_t[]){60, 33}),
                      y = unroll_matmul_add(d, 1, x, 0, unroll_none());
  add_outputs(g, &y, (const char *[]){"y"}, 1);
  return g;
}

static void gradients_of_weights_stay(void **state) {
  (void)state;
  unroll_context *ctx = start();
  results half = on_cpu(ctx, weights_gradient(), AS_THEY_ARE, "precision=half", "recurrence=auto");
  results full = on_cpu(ctx, weights_gradient(), AS_THEY_ARE, "precision=float", "recurrence=auto");
  assert_same(&half, &full);
  results_free(&half);
  results_free(&full);
  unroll_context_destroy(ctx);
}

/* ---- what is not as other numbers ---- */
static void assert_same_numbers(const results *a, const results *b) {
  for (uint32_t i = 0; i < a->n; i++)
    for (int64_t k = 0; k < a->of[i].count; k++) {
      const double x = value_of(&a->of[i], k), y = value_of(&b->of[i], k);
      if (!(x == y || (isnan(x) && isnan(y))))
        fail_msg("%s[%lld]: %a, expected %a", a->of[i].name, (long long)k, x, y);
    }
}

static void special_weights(void **state) {
  (void)state;
  unroll_context *ctx = start();
  for (int turned = 0; turned < 2; turned++) { /* with k = 1 a sum is one product */
    unroll_graph *g[2];
    for (int i = 0; i < 2; i++)
      g[i] = product_graph(UNROLL_F32, 3, 2 * N_SPECIALS, 1, turned);
    results half = on_cpu(ctx, g[0], SPECIAL, "precision=half", "recurrence=auto");
    results full = on_cpu(ctx, g[1], SPECIAL_ROUNDED, "precision=float", "recurrence=auto");
    assert_same_numbers(&half, &full);
    results_free(&half);
    results_free(&full);
  }
  for (int32_t cell = UNROLL_CELL_RNN; cell < UNROLL_CELL_COUNT; cell++) {
    const problem p = {.cell = cell, .steps = 1, .batch = B, .units = N_SPECIALS};
    results half = on_cpu(ctx, layer_of(p, UNROLL_F32), SPECIAL, "precision=half", "recurrence=sequence");
    results full = on_cpu(ctx, layer_of(p, UNROLL_F32), SPECIAL_ROUNDED, "precision=float", "recurrence=sequence");
    const struct result *h = &half.of[0];
    assert_same_numbers(&half, &full);
    assert_true(isnan(value_of(h, 0)));
    if (cell != UNROLL_CELL_GRU) /* whose second product has every unit's r */
      assert_true(!isnan(value_of(h, 3)));
    results_free(&half);
    results_free(&full);
  }
  unroll_context_destroy(ctx);
}

/* ---- f64 ---- */
static void doubles_stay(void **state) {
  (void)state;
  unroll_context *ctx = start();
  const problem p = {.cell = UNROLL_CELL_GRU_AFTER, .steps = T, .batch = B, .units = H, .gradient = true};
  results half = on_cpu(ctx, layer_of(p, UNROLL_F64), AS_THEY_ARE, "precision=half", "recurrence=sequence");
  results full = on_cpu(ctx, layer_of(p, UNROLL_F64), AS_THEY_ARE, "precision=float", "recurrence=sequence");
  assert_same(&half, &full);
  results_free(&half);
  results_free(&full);
  unroll_context_destroy(ctx);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(halves_are_right),
      {"layers_sequence", layers, NULL, NULL, "recurrence=sequence"},
      {"layers_step", layers, NULL, NULL, "recurrence=step"},
      {"layers_scan", layers, NULL, NULL, "recurrence=scan"},
      cmocka_unit_test(one_row),
      cmocka_unit_test(layer_of_gpu),
      cmocka_unit_test(products),
      cmocka_unit_test(gradients_of_weights_stay),
      cmocka_unit_test(special_weights),
      cmocka_unit_test(doubles_stay),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
