/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Products by matrix instructions (device options precision=half, matrix=emulated, kernels=gpu): numbers that are halves give
 * the sums of f64 to what floats round; the same bits each time; what is not a number stays in its row and column; and an
 * instruction that fails its test is not used. Skipped where there is no OpenCL device; the last part also where the
 * OpenCL loader knows no layers.
 */
#include "opencl_lives.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PRODUCTS = 16, FORMS = 6 };

typedef struct shape {
  int64_t p, m, n, k; /* p 0: of rank 2 */
} shape;

/* Every edge of a tile of 32 and of 64 x 128 and of the instruction's 16 and 8, below, at and above; one value of k, parts of
   a buffer of 32, a chunk of 512 and more. */
static const shape shapes[PRODUCTS] = {
    {0, 1, 1, 1},      {0, 1, 17, 3},    {0, 15, 16, 17},   {0, 16, 15, 16},     {0, 17, 1, 512},  {0, 7, 9, 33},
    {0, 16, 16, 1000}, {0, 63, 65, 513}, {0, 64, 64, 64},   {0, 65, 63, 1000},   {0, 130, 63, 17}, {0, 33, 130, 512},
    {0, 130, 130, 3},  {3, 17, 33, 20},  {2, 64, 128, 513}, {0, 130, 257, 1000},
};

/*
 * c: none, of the product's shape, or a row. b that no node writes is rounded once, before the product; else a node has
 * written it just before: the input's negative. Each form is two programs more to build.
 */
static const struct form {
  int trans_a, trans_b;
  enum { NO_C, FULL_C, ROW_C } c;
  bool written;
} forms[FORMS] = {{0, 1, NO_C, true},   {0, 0, FULL_C, true}, {1, 0, NO_C, true},
                  {1, 1, ROW_C, false}, {0, 1, ROW_C, false}, {0, 0, NO_C, false}};

typedef struct operands {
  float *of[4]; /* a, b, c, y */
  size_t n[4];
} operands;

static run_log told;

static int64_t batches(const shape *s) { return s->p ? s->p : 1; }

static operands make_operands(const shape *s, const struct form *how, uint32_t seed) {
  const int64_t sizes[4] = {s->m * s->k, s->k * s->n,
                            how->c == NO_C    ? 0
                            : how->c == ROW_C ? s->n
                                              : s->m * s->n,
                            s->m * s->n};
  operands o;
  for (int i = 0; i < 4; i++) {
    o.n[i] = (size_t)((i == 2 && how->c == ROW_C ? 1 : batches(s)) * sizes[i]);
    o.of[i] = calloc(o.n[i] ? o.n[i] : 1, sizeof(float));
    assert_non_null(o.of[i]);
    for (size_t k = 0; k < o.n[i] && i < 3; k++) { /* halves without rounding, from -2 to 2 */
      seed = seed * 1664525u + 1013904223u;
      o.of[i][k] = (float)((int32_t)(seed >> 20) - 2048) / 1024.0f;
    }
  }
  return o;
}

static void free_operands(operands *o) {
  for (int i = 0; i < 4; i++)
    free(o->of[i]);
}

static double term(const shape *s, const struct form *how, const operands *o, int64_t p, int64_t i, int64_t j,
                   int64_t k) {
  const int64_t a = p * s->m * s->k + (how->trans_a ? k * s->m + i : i * s->k + k),
                b = p * s->k * s->n + (how->trans_b ? j * s->k + k : k * s->n + j);
  return (double)o->of[0][a] * (double)o->of[1][b];
}

/* Whether y is the sum in f64 to a part in a million of what was added: a half's sum is a thousandth off. */
static void check_sums(const shape *s, const struct form *how, const operands *o, double part) {
  for (int64_t p = 0; p < batches(s); p++)
    for (int64_t i = 0; i < s->m; i++)
      for (int64_t j = 0; j < s->n; j++) {
        const int64_t at = (p * s->m + i) * s->n + j;
        double sum = how->c == NO_C ? 0 : (double)o->of[2][how->c == ROW_C ? j : at], all = fabs(sum);
        for (int64_t k = 0; k < s->k; k++) {
          const double x = term(s, how, o, p, i, j, k);
          sum += x;
          all += fabs(x);
        }
        if (!(fabs((double)o->of[3][at] - sum) <= part * all))
          fail_msg("%ldx%ldx%ldx%ld, trans_a %d, trans_b %d: y[%ld][%ld][%ld] is %.9g, expected %.9g", (long)s->p,
                   (long)s->m, (long)s->n, (long)s->k, how->trans_a, how->trans_b, (long)p, (long)i, (long)j,
                   (double)o->of[3][at], sum);
      }
}

/* ---- graphs of such products: inputs a0, b0, c0 .., outputs y0 .. ---- */
static unroll_tensor input(unroll_graph *g, char letter, int i, int64_t p, int64_t rows, int64_t columns) {
  char name[16];
  snprintf(name, sizeof name, "%c%d", letter, i);
  return p      ? unroll_input(g, name, UNROLL_F32, 3, (int64_t[]){p, rows, columns})
         : rows ? unroll_input(g, name, UNROLL_F32, 2, (int64_t[]){rows, columns})
                : unroll_input(g, name, UNROLL_F32, 1, (int64_t[]){columns});
}

static unroll_graph *graph_of(const shape *of, int n, const struct form *how) {
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_graph *g;
  assert_status(UNROLL_OK, unroll_graph_create(NULL, &g, &err));
  for (int i = 0; i < n; i++) {
    const shape *s = &of[i];
    char name[16];
    const unroll_tensor a = input(g, 'a', i, s->p, how->trans_a ? s->k : s->m, how->trans_a ? s->m : s->k),
                        in = input(g, 'b', i, s->p, how->trans_b ? s->n : s->k, how->trans_b ? s->k : s->n),
                        b = how->written ? unroll_unary(in, UNROLL_NEG) : in,
                        c = how->c == NO_C    ? unroll_none()
                            : how->c == ROW_C ? input(g, 'c', i, 0, 0, s->n)
                                              : input(g, 'c', i, s->p, s->m, s->n);
    snprintf(name, sizeof name, "y%d", i);
    unroll_output(unroll_matmul_add(a, how->trans_a, b, how->trans_b, c), name);
  }
  assert_status(UNROLL_OK, unroll_graph_status(g, &err));
  return g;
}

static void write_operands(unroll_binding *b, int n, const struct form *how, const operands *o) {
  unroll_error err = UNROLL_ERROR_INIT;
  for (int i = 0; i < n; i++)
    for (int k = 0; k < 3; k++) {
      char name[16];
      snprintf(name, sizeof name, "%c%d", "abc"[k], i);
      const bool negative = k == 1 && how->written;
      for (size_t x = 0; x < o[i].n[k] && negative; x++)
        o[i].of[k][x] = -o[i].of[k][x];
      if (o[i].n[k])
        assert_status(UNROLL_OK, unroll_binding_write(b, name, o[i].of[k], o[i].n[k] * sizeof(float), &err));
      for (size_t x = 0; x < o[i].n[k] && negative; x++)
        o[i].of[k][x] = -o[i].of[k][x];
    }
}

static void read_products(unroll_binding *b, int n, const operands *o) {
  unroll_error err = UNROLL_ERROR_INIT;
  for (int i = 0; i < n; i++) {
    char name[16];
    snprintf(name, sizeof name, "y%d", i);
    assert_status(UNROLL_OK, unroll_binding_read(b, name, o[i].of[3], o[i].n[3] * sizeof(float), &err));
  }
}

/* Three times: with other numbers before, which leave nothing; and once more, which gives the same bits. */
static void run_products(unroll_device *d, const shape *of, int n, const struct form *how, operands *o) {
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_graph *g = graph_of(of, n, how);
  unroll_executable *e;
  unroll_binding *b;
  assert_status(UNROLL_OK, unroll_compile(g, &d, 1, NULL, &e, &err));
  assert_status(UNROLL_OK, unroll_binding_create(e, &b, &err));
  operands other[PRODUCTS];
  assert_true(n <= PRODUCTS);
  for (int i = 0; i < n; i++)
    other[i] = make_operands(&of[i], how, 99);
  write_operands(b, n, how, other);
  assert_status(UNROLL_OK, unroll_run(b, NULL, &err));
  write_operands(b, n, how, o);
  assert_status(UNROLL_OK, unroll_run(b, NULL, &err));
  read_products(b, n, o);
  assert_status(UNROLL_OK, unroll_run(b, NULL, &err));
  read_products(b, n, other);
  for (int i = 0; i < n; i++) {
    assert_memory_equal(o[i].of[3], other[i].of[3], o[i].n[3] * sizeof(float));
    free_operands(&other[i]);
  }
  unroll_binding_destroy(b);
  unroll_executable_destroy(e);
  unroll_graph_destroy(g);
}

static unroll_context *context_or_skip(void) {
  unroll_context *ctx = runs_context(NULL, &told);
  if (!runs_have(ctx, "opencl")) {
    unroll_context_destroy(ctx);
    skip();
  }
  return ctx;
}

static unroll_device *emulating(unroll_context *ctx) {
  return runs_device(ctx, "opencl", "kernels=gpu", "precision=half", "matrix=emulated", "tune=off", NULL);
}

static void sums_are_those_of_f64(void **state) {
  (void)state;
  unroll_context *ctx = context_or_skip();
  unroll_device *d = emulating(ctx);
  for (int i = 0; i < FORMS; i++) {
    operands o[PRODUCTS];
    for (int k = 0; k < PRODUCTS; k++)
      o[k] = make_operands(&shapes[k], &forms[i], (uint32_t)(k + 1) * 2654435761u);
    run_products(d, shapes, PRODUCTS, &forms[i], o);
    for (int k = 0; k < PRODUCTS; k++) {
      check_sums(&shapes[k], &forms[i], &o[k], 1e-6);
      free_operands(&o[k]);
    }
  }
  assert_int_equal(log_count(&told, "products of halves by matrix instructions: none (emulated)"), 1);
  unroll_device_close(d);
  unroll_context_destroy(ctx);
}

/* Ints up to 2048 are halves, one more is between two: it goes to the even one, 2048, as 2051 goes to 2052. */
static void numbers_are_rounded_to_half(void **state) {
  (void)state;
  unroll_context *ctx = context_or_skip();
  unroll_device *d = emulating(ctx);
  const shape s = {0, 2, 3, 40};
  const struct form how = {0, 1, NO_C, false};
  operands o = make_operands(&s, &how, 1);
  for (int i = 0; i < 2; i++)
    memset(o.of[i], 0, o.n[i] * sizeof(float));
  static const float in[3] = {2049.0f, 2051.0f, 1e-8f}, out[3] = {2048.0f, 2052.0f, 0.0f};
  for (int j = 0; j < 3; j++)
    o.of[1][j * s.k + 37] = in[j];
  o.of[0][37] = 1.0f;
  o.of[0][s.k + 37] = 65536.0f; /* more than the largest half */
  run_products(d, &s, 1, &how, &o);
  for (int j = 0; j < 3; j++)
    assert_true(o.of[3][j] == out[j]);
  assert_true(isinf(o.of[3][3]) && isinf(o.of[3][4]) && isnan(o.of[3][5]));
  free_operands(&o);
  unroll_device_close(d);
  unroll_context_destroy(ctx);
}

/* 2^24 and then ones: a float that has the first takes up no more of the others, one by one. */
static void sums_are_in_parts(void **state) {
  (void)state;
  unroll_context *ctx = context_or_skip();
  unroll_device *d = emulating(ctx);
  const shape s = {0, 130, 257, 1024};
  operands o = make_operands(&s, &forms[0], 1);
  for (int i = 0; i < 2; i++)
    for (size_t k = 0; k < o.n[i]; k++)
      o.of[i][k] = k % 1024 == 0 ? 4096.0f : k % 1024 < 512 ? 0.0f : 1.0f;
  run_products(d, &s, 1, &forms[0], &o);
  for (size_t i = 0; i < o.n[3]; i++)
    assert_true(o.of[3][i] == 16777216.0f + 512.0f);
  free_operands(&o);
  unroll_device_close(d);
  unroll_context_destroy(ctx);
}

static void nan_stays_in_its_row_and_column(void **state) {
  (void)state;
  unroll_context *ctx = context_or_skip();
  unroll_device *d = emulating(ctx);
  static const shape of[] = {{0, 33, 35, 41}, {0, 66, 140, 41}, {2, 5, 6, 7}};
  enum { N = sizeof of / sizeof *of };
  operands o[N];
  for (int i = 0; i < N; i++) {
    o[i] = make_operands(&of[i], &forms[0], 77u + (uint32_t)i);
    /* The last row of a and the last column of b, which stand beside what is outside of the matrices. */
    o[i].of[0][of[i].m * of[i].k - 1] = NAN;
    o[i].of[1][of[i].n * of[i].k - 1] = INFINITY;
  }
  run_products(d, of, N, &forms[0], o);
  for (int i = 0; i < N; i++) {
    for (int64_t m = 0; m < batches(&of[i]) * of[i].m; m++)
      for (int64_t n = 0; n < of[i].n; n++) {
        const bool touched = m < of[i].m && (m == of[i].m - 1 || n == of[i].n - 1);
        assert_int_equal(isfinite(o[i].of[3][m * of[i].n + n]) != 0, !touched);
      }
    free_operands(&o[i]);
  }
  unroll_device_close(d);
  unroll_context_destroy(ctx);
}

/* ---- an instruction that is not to be trusted: plain products take over, and the log says so ---- */
static const shape fallen = {2, 40, 70, 35}; /* of a batch: CLBlast, which takes long to build, has no part in it */

static void lie(const char *what, unsigned passed, unsigned failed, const char *matrix) {
  unroll_context *ctx = runs_context(NULL, &told);
  unroll_device *d = runs_device(ctx, "opencl", "kernels=gpu", "precision=half", matrix, "tune=off", "cache=off", NULL);
  operands o = make_operands(&fallen, &forms[0], 5);
  run_products(d, &fallen, 1, &forms[0], &o);
  disarm();
  check_sums(&fallen, &forms[0], &o, 1e-6);
  if (log_count(&told, "products of halves by matrix instructions") != passed ||
      log_count(&told, "failed its test") != failed)
    fail_msg("%s: %s", what, told.text);
  free_operands(&o);
  unroll_device_close(d);
  unroll_context_destroy(ctx);
}

static void a_wrong_instruction_is_not_used(void **state) {
  (void)state;
  need_device();
  disarm();
  lie("no lie", 1, 0, "matrix=emulated");
  f->miscompiled = "of[i] = fma(vload_half(k, row), vload_half(k, column), of[i]);";
  f->as = "of[i] = fma(vload_half(k, row), vload_half(k, row), of[i]);";
  lie("a product of a with itself", 0, 1, "matrix=emulated");
  assert_non_null(strstr(told.text, "a wrong sum"));
  f->miscompiled = "{{row[0], row[4]}}";
  f->as = "{{row[4], row[0]}}";
  lie("the second values of k with the first", 0, 1, "matrix=emulated");
}

static void an_instruction_that_does_not_run_is_not_used(void **state) {
  (void)state;
  need_device();
  disarm();
  f->build_fails_with = "-DMATRIX";
  lie("it doesn't build", 0, 1, "matrix=emulated");
  f->only = "clEnqueueNDRangeKernel";
  f->calls = 0;
  f->fail_at = 1;
  lie("it doesn't start", 0, 1, "matrix=emulated");
}

/* What a driver says of its device is not enough: the instructions of a vendor are tried with that vendor's driver. */
static void foreign_instructions_are_not_tried(void **state) {
  (void)state;
  need_device();
  disarm();
  f->more_extensions = "cl_nv_device_attribute_query cl_intel_subgroup_matrix_multiply_accumulate "
                       "cl_intel_required_subgroup_size cl_khr_fp16";
  f->lies[0].what = "CL_DEVICE_TYPE";
  f->lies[0].value = 4; /* CL_DEVICE_TYPE_GPU */
  lie("a GPU of everybody", 0, 0, "matrix=auto");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(sums_are_those_of_f64),
      cmocka_unit_test(numbers_are_rounded_to_half),
      cmocka_unit_test(sums_are_in_parts),
      cmocka_unit_test(nan_stays_in_its_row_and_column),
      cmocka_unit_test(a_wrong_instruction_is_not_used),
      cmocka_unit_test(an_instruction_that_does_not_run_is_not_used),
      cmocka_unit_test(foreign_instructions_are_not_tried),
  };
  return cmocka_run_group_tests_name("matrix", tests, lives_open, lives_close);
}
