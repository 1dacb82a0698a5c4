/* SPDX-License-Identifier: Apache-2.0 */
/* Leading eigenvalues, spectral radii and norms of large matrices against NumPy's, against matrices made of known ones. */
#include "statuses.h"
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <unroll/diagnose.h>
#include <unroll/philox.h>

static unroll_error err = UNROLL_ERROR_INIT;

static void assert_near(const char *what, double got, double want, double tolerance) {
  if (!(fabs(got - want) <= tolerance))
    fail_msg("%s: %.15g, expected %.15g within %g", what, got, want, tolerance);
}

static double *numbers(int64_t n) {
  double *const x = calloc((size_t)n, sizeof *x);
  assert_non_null(x);
  return x;
}

static double normal(int site, int64_t i) {
  return unroll_normal(unroll_philox_site_key(23, 0, (uint32_t)site), (uint64_t)i, 0, 0);
}

/* ---- matrices ---- */

/* One that every language can make, of standard deviation 1/sqrt(n). */
static double *portable(int64_t n) {
  double *const a = numbers(n * n);
  uint64_t s = 20240607;
  for (int64_t i = 0; i < n * n; i += 2) {
    double u[2];
    for (int k = 0; k < 2; k++) {
      uint64_t z = s += UINT64_C(0x9E3779B97F4A7C15);
      z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
      z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
      u[k] = ((double)((z ^ z >> 31) >> 11) + 0.5) * 0x1p-53;
    }
    const double r = sqrt(-2 * log(u[0]) / (double)n);
    a[i] = r * cos(2 * acos(-1) * u[1]);
    if (i + 1 < n * n)
      a[i + 1] = r * sin(2 * acos(-1) * u[1]);
  }
  return a;
}

/* a = P·a·P, P = I - 2vvᵀ of a random unit v: other numbers, the same eigenvalues and singular values. */
static void turn(double *a, int64_t n, int site) {
  double *const v = numbers(2 * n), *const w = v + n;
  double squares = 0;
  for (int64_t i = 0; i < n; i++) {
    v[i] = normal(site, i);
    squares += v[i] * v[i];
  }
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j < n; j++)
      w[j] += 2 * v[i] * a[i * n + j] / squares;
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j < n; j++)
      a[i * n + j] -= v[i] * w[j];
  for (int64_t i = 0; i < n; i++) {
    double sum = 0;
    for (int64_t j = 0; j < n; j++)
      sum += a[i * n + j] * v[j];
    for (int64_t j = 0; j < n; j++)
      a[i * n + j] -= 2 * sum * v[j] / squares;
  }
  free(v);
}

/* The leading pair r·e^(±iφ), then real ones from 0.9·r on to 0, and numbers of `above` right of the diagonal. */
static double *with_a_pair(int64_t n, double r, double angle, double above) {
  double *const a = numbers(n * n);
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = i + 1; j < n; j++)
      a[i * n + j] = above * normal(1, i * n + j) / sqrt((double)n);
  for (int64_t i = 2; i < n; i++)
    a[i * n + i] = 0.9 * r * (i % 2 ? 1 : -1) * (double)(n - i) / (double)n;
  a[0] = a[n + 1] = r * cos(angle);
  a[1] = -(a[n] = r * sin(angle));
  turn(a, n, 2);
  return a;
}

/* x_i becomes ρ·x_(i+1), and where it is a circle x_(n-1) becomes ρ·x_0. */
static double *shift(int64_t n, double rho, bool is_circle) {
  double *const a = numbers(n * n);
  for (int64_t i = 0; i + 1 < n; i++)
    a[i * n + i + 1] = rho;
  if (is_circle)
    a[(n - 1) * n] = rho;
  return a;
}

static unroll_operator of_matrix(const double *a, int64_t m, int64_t n) {
  return (unroll_operator){.struct_size = sizeof(unroll_operator), .rows = m, .columns = n, .matrix = a};
}

static double magnitude(const unroll_leading_eigenvalue *e) { return hypot(e->real, e->imaginary); }

/* ---- eigenvalues ---- */

/* NumPy's of the same matrix, numpy.linalg.eigvals of float64. Tolerance and condition (below 30) allow for 3e-9. */
static void those_of_numpy(void **state) {
  (void)state;
  enum { N = 300, K = 7 };
  static const double re[K] = {-0.920842517164, -0.920842517164, 0.399334109381, 0.399334109381,
                               0.955317548338,  0.955317548338,  -1.00059377962},
                      im[K] = {0.558979752957, -0.558979752957, 0.938134799077, -0.938134799077,
                               0.342768021355, -0.342768021355, 0.107857233479};
  double *const a = portable(N), *const all = numbers(2 * N);
  const unroll_operator op = of_matrix(a, N, N);
  const unroll_iteration_options o = {.struct_size = sizeof o, .conditions = 1};
  unroll_leading_eigenvalue found[K];
  unroll_iteration_info info = {.struct_size = sizeof info};
  assert_ok(unroll_leading_eigenvalues(&op, K, &o, found, &info, &err));
  assert_ok(unroll_eigenvalues(a, N, all, all + N, &err));
  assert_true(info.converged >= K && info.products > 2 * K);
  for (int i = 0; i < K; i++) {
    assert_near("real", found[i].real, re[i], 3e-9);
    assert_near("imaginary", found[i].imaginary, im[i], 3e-9);
    assert_near("LAPACK's real", found[i].real, all[i], 3e-9);
    assert_near("LAPACK's imaginary", found[i].imaginary, all[N + i], 3e-9);
    assert_true(found[i].residual <= 1e-10 * magnitude(&found[i]));
    assert_true(found[i].condition >= 1 && found[i].condition < 30);
  }
  free(a);
  free(all);
}

/*
 * [[1, c], [0, 1/2]]: the vectors of 1 are (1, 0) and (1, 2c)/√(1 + 4c²), those of 1/2 likewise; a pair of complex ones
 * [[p, q²], [-1, p]]/4, λ = (p ± iq)/4: right ones (q, ±i), left ones (1, ±iq), so that (1 + q²)/(2q) is its condition.
 */
static void conditions_are_known(void **state) {
  (void)state;
  enum { N = 40 };
  const double c = 3, p = 1, q = 1.5;
  double *const a = numbers(N * N);
  a[0] = 1;
  a[1] = c;
  a[N + 1] = 0.5;
  a[2 * N + 2] = a[3 * N + 3] = p / 4;
  a[2 * N + 3] = q * q / 4;
  a[3 * N + 2] = -1.0 / 4;
  for (int i = 4; i < N; i++)
    a[i * N + i] = 0.3 * (double)i / N;
  turn(a, N, 3);
  const unroll_operator op = of_matrix(a, N, N);
  const unroll_iteration_options o = {.struct_size = sizeof o, .conditions = 1, .tolerance = 1e-12};
  unroll_leading_eigenvalue found[4];
  assert_ok(unroll_leading_eigenvalues(&op, 4, &o, found, NULL, &err));
  const double values[4][2] = {{1, 0}, {0.5, 0}, {p / 4, q / 4}, {p / 4, -q / 4}};
  const double expected[4] = {sqrt(1 + 4 * c * c), sqrt(1 + 4 * c * c), (1 + q * q) / (2 * q), (1 + q * q) / (2 * q)};
  for (int i = 0; i < 4; i++) {
    assert_near("real", found[i].real, values[i][0], 1e-11);
    assert_near("imaginary", found[i].imaginary, values[i][1], 1e-11);
    assert_near("condition", found[i].condition / expected[i], 1, 1e-9);
  }
  unroll_leading_eigenvalue first[3]; /* the third one alone, without its conjugate */
  assert_ok(unroll_leading_eigenvalues(&op, 3, NULL, first, NULL, &err));
  assert_near("real", first[2].real, p / 4, 1e-9);
  assert_near("imaginary", first[2].imaginary, q / 4, 1e-9);
  assert_true(isnan(first[2].condition));
  free(a);
}

/* Blocks of 0.8^i·e^(±iφ), φ = i + 1: of so many that no matrix could be stored. */
struct blocks {
  int64_t n, products, stop_at; /* at that product a status, NaN or a call of ARPACK's */
  int how;                      /* 3: the transposed has twice its eigenvalues */
};
static unroll_status multiply(void *ctx, int32_t transposed, const double *x, double *y, unroll_error *e) {
  struct blocks *const b = ctx;
  const double sign = transposed ? -1 : 1, more = transposed && b->how == 3 ? 2 : 1;
  for (int64_t i = 0; i < b->n / 2; i++) {
    const double r = more * pow(0.8, (double)i), s = sign * r * sin((double)i + 1), c = r * cos((double)i + 1);
    y[2 * i] = c * x[2 * i] - s * x[2 * i + 1];
    y[2 * i + 1] = s * x[2 * i] + c * x[2 * i + 1];
  }
  if (++b->products != b->stop_at)
    return UNROLL_OK;
  if (b->how == 0)
    return UNROLL_E_IO;
  if (b->how == 1) {
    y[5] = (double)NAN;
    return UNROLL_OK;
  }
  struct blocks again = {.n = 10};
  const unroll_operator op = {.struct_size = sizeof op, .rows = 10, .columns = 10, .product = multiply, .ctx = &again};
  unroll_leading_eigenvalue found[2];
  return unroll_leading_eigenvalues(&op, 2, NULL, found, NULL, e);
}

static unroll_operator of_blocks(struct blocks *b) {
  return (unroll_operator){
      .struct_size = sizeof(unroll_operator), .rows = b->n, .columns = b->n, .product = multiply, .ctx = b};
}

static void assert_blocks(const unroll_leading_eigenvalue *found, int k) {
  for (int i = 0; i < k; i++) {
    const double r = pow(0.8, i / 2), angle = i / 2 + 1;
    assert_near("real", found[i].real, r * cos(angle), 1e-10);
    assert_near("imaginary", found[i].imaginary, (i % 2 ? -1 : 1) * r * fabs(sin(angle)), 1e-10);
  }
}

static void of_a_large_operator(void **state) {
  (void)state;
  struct blocks b = {.n = 20000};
  const unroll_operator op = of_blocks(&b);
  unroll_leading_eigenvalue found[6];
  unroll_iteration_info info = {.struct_size = sizeof info};
  assert_ok(unroll_leading_eigenvalues(&op, 6, NULL, found, &info, &err));
  assert_blocks(found, 6);
  assert_int_equal(info.products, b.products);
  double sigma, error;
  assert_ok(unroll_largest_singular_value(&op, NULL, &sigma, &error, &info, &err));
  assert_near("norm", sigma, 1, 1e-10);
  assert_true(error <= 1e-10 && info.converged == 1);
}

static void *of_a_thread(void *ctx) {
  unroll_leading_eigenvalue *const found = ctx;
  struct blocks b = {.n = (int64_t)found->residual};
  const unroll_operator op = of_blocks(&b);
  found->condition = unroll_leading_eigenvalues(&op, 6, NULL, found, NULL, NULL) == UNROLL_OK;
  return ctx;
}

/* ARPACK's own state is one for all threads. */
static void threads_wait_for_each_other(void **state) {
  (void)state;
  enum { THREADS = 3 };
  pthread_t threads[THREADS];
  unroll_leading_eigenvalue found[THREADS][6] = {{{0}}};
  for (int i = 0; i < THREADS; i++) {
    found[i][0].residual = 1000 + 2000 * i;
    assert_int_equal(pthread_create(&threads[i], NULL, of_a_thread, found[i]), 0);
  }
  for (int i = 0; i < THREADS; i++)
    assert_int_equal(pthread_join(threads[i], NULL), 0);
  for (int i = 0; i < THREADS; i++) {
    assert_true(found[i][0].condition == 1);
    assert_blocks(found[i], 6);
  }
}

static void of_small_and_strange_ones(void **state) {
  (void)state;
  enum { N = 12, SCALED = 120 };
  double *const a = numbers(N * N);
  const unroll_operator op = of_matrix(a, N, N);
  const unroll_iteration_options o = {.struct_size = sizeof o, .conditions = 1};
  unroll_leading_eigenvalue found[N];
  assert_ok(unroll_leading_eigenvalues(&op, 3, &o, found, NULL, &err));
  for (int i = 0; i < 3; i++) /* of zeros */
    assert_true(magnitude(&found[i]) == 0 && found[i].residual == 0 && found[i].condition == 1);
  for (int i = 0; i < N; i++)
    a[i * N + i] = i < 3 ? 2 : 0.1 * i / N;
  turn(a, N, 4);
  assert_ok(unroll_leading_eigenvalues(&op, 4, NULL, found, NULL, &err));
  for (int i = 0; i < 4; i++) /* a threefold one */
    assert_near("threefold", found[i].real, i < 3 ? 2 : 0.1 * 11 / N, 1e-10);
  /* ARPACK alone takes what is below 1e-11 for 0. */
  for (int e = -200; e <= 150; e += 50) {
    double *const scaled = with_a_pair(SCALED, pow(10, e), 1.1, 0.5 * pow(10, e));
    const unroll_operator by = of_matrix(scaled, SCALED, SCALED);
    assert_ok(unroll_leading_eigenvalues(&by, 2, &o, found, NULL, &err));
    assert_near("scaled", found[0].real / pow(10, e), cos(1.1), 1e-10);
    assert_near("scaled", found[1].imaginary / pow(10, e), -sin(1.1), 1e-10);
    free(scaled);
  }
  const double three[] = {2, 7, 5, 0, -4, 1, 0, 0, 1};
  const unroll_operator smallest = of_matrix(three, 3, 3);
  assert_ok(unroll_leading_eigenvalues(&smallest, 1, NULL, found, NULL, &err));
  assert_near("of three", found[0].real, -4, 1e-10);
  free(a);
}

/* ---- spectral radii of large matrices ---- */

enum { LARGE = 600 };

static void assert_radius(const char *what, double *a, double expected, double tolerance) {
  double radius;
  assert_ok(unroll_spectral_radius(a, LARGE, &radius, &err));
  assert_near(what, radius, expected, tolerance);
  free(a);
}

static void radii_of_pairs(void **state) {
  (void)state;
  assert_radius("a complex pair", with_a_pair(LARGE, 1.3, 2, 0.1), 1.3, 1.3e-8);
  assert_radius("far from normal", with_a_pair(LARGE, 0.7, 0.5, 3), 0.7, 0.7e-8);
}

/* NumPy's. */
static void radius_of_a_random_matrix(void **state) {
  (void)state;
  assert_radius("random", portable(LARGE), 1.04519421643, 1e-8);
}

/* All magnitudes are ρ: no iteration of products converges. */
static void radius_of_an_orthogonal_matrix(void **state) {
  (void)state;
  double *const a = shift(LARGE, 0.9, true);
  turn(a, LARGE, 5);
  turn(a, LARGE, 6);
  const unroll_operator op = of_matrix(a, LARGE, LARGE);
  const unroll_iteration_options o = {.struct_size = sizeof o, .restarts = 2};
  unroll_leading_eigenvalue found[4];
  unroll_iteration_info info = {.struct_size = sizeof info};
  assert_error(unroll_leading_eigenvalues(&op, 4, &o, found, &info, &err), UNROLL_E_RANGE,
               "of 4 converged after 2 restarts");
  assert_true(info.converged < 4 && info.products <= 28 + 2 * 24 + 2);
  double norm;
  assert_ok(unroll_spectral_norm(a, LARGE, LARGE, &norm, &err));
  assert_near("norm", norm, 0.9, 1e-12);
  assert_radius("orthogonal", a, 0.9, 1e-11);
}

/*
 * The only eigenvalue is 0, yet vectors (1, z, z², ..) with |z| < 1 leave a residual of |z|^n, which is nothing. The second
 * one has a shift of 8 and small numbers on its diagonal: there an iteration converges to the 8th root of its rounding.
 */
static void radius_of_a_shift(void **state) {
  (void)state;
  double *a = shift(LARGE, 1, false);
  assert_radius("shift", a, 0, 1e-12);
  a = shift(8, 1, false);
  double *const b = numbers(LARGE * LARGE);
  for (int i = 0; i < LARGE; i++)
    if (i < 8)
      memcpy(b + i * LARGE, a + i * 8, 8 * sizeof *b);
    else
      b[i * LARGE + i] = 1e-3 * i / LARGE;
  free(a);
  const unroll_operator op = of_matrix(b, LARGE, LARGE);
  unroll_leading_eigenvalue found[4];
  assert_ok(unroll_leading_eigenvalues(&op, 4, NULL, found, NULL, &err));
  assert_true(magnitude(&found[0]) > 2e-3 && found[0].residual < 1e-12);
  const unroll_iteration_options o = {.struct_size = sizeof o, .conditions = 1};
  assert_true(unroll_leading_eigenvalues(&op, 4, &o, found, NULL, &err) == UNROLL_E_RANGE || found[0].condition > 1e9);
  double *const c = numbers(LARGE * LARGE);
  for (int i = 0; i < LARGE * LARGE; i++)
    c[i] = b[i % LARGE * LARGE + i / LARGE];
  assert_radius("part of a shift", b, 1e-3 * (LARGE - 1) / LARGE, 1e-15);
  assert_radius("its transposed", c, 1e-3 * (LARGE - 1) / LARGE, 1e-15);
}

/* ---- singular values ---- */

static void norms(void **state) {
  (void)state;
  for (int k = 0; k < 3; k++) {
    const int64_t m = k == 0 ? 400 : 300, n = k == 1 ? 500 : 300;
    double *const a = numbers(m * n), *const all = numbers(m);
    for (int64_t i = 0; i < m * n; i++)
      a[i] = normal(10 + k, i);
    double norm, sigma, error;
    const unroll_operator op = of_matrix(a, m, n);
    assert_ok(unroll_singular_values(a, m, n, all, &err));
    assert_ok(unroll_spectral_norm(a, m, n, &norm, &err));
    assert_ok(unroll_largest_singular_value(&op, NULL, &sigma, &error, NULL, &err));
    assert_near("norm", norm / all[0], 1, 1e-10);
    assert_true(sigma == norm && error <= 1e-10);
    const unroll_iteration_options few = {.struct_size = sizeof few, .basis = 5};
    assert_error(unroll_largest_singular_value(&op, &few, &sigma, &error, NULL, &err), UNROLL_E_RANGE,
                 "did not converge with 5 vectors");
    free(a);
    free(all);
  }
  double *const zeros = numbers(300 * 300), norm;
  assert_ok(unroll_spectral_norm(zeros, 300, 300, &norm, &err));
  assert_true(norm == 0);
  free(zeros);
}

/* ---- what is refused ---- */

static void wrong_input(void **state) {
  (void)state;
  double a[64] = {1}, norm;
  unroll_leading_eigenvalue found[8];
  unroll_operator op = of_matrix(a, 8, 8);
  unroll_iteration_options o = {.struct_size = sizeof o};
#define LEADING(k) unroll_leading_eigenvalues(&op, (k), &o, found, NULL, &err)
  assert_error(LEADING(0), UNROLL_E_INVALID, "0 of 8, it must be from 1 to two fewer");
  assert_error(LEADING(7), UNROLL_E_INVALID, "7 of 8");
  assert_error(unroll_leading_eigenvalues(NULL, 2, &o, found, NULL, &err), UNROLL_E_INVALID, "a is NULL");
  assert_error(unroll_leading_eigenvalues(&op, 2, &o, NULL, NULL, &err), UNROLL_E_INVALID, "found is NULL");
  o.basis = 3;
  assert_error(LEADING(2), UNROLL_E_INVALID, "a basis of 3 vectors, it must be from k + 2 = 4 to 8");
  o.basis = 9;
  assert_error(LEADING(2), UNROLL_E_INVALID, "a basis of 9 vectors");
  o.basis = 0;
  o.tolerance = -1;
  assert_error(LEADING(2), UNROLL_E_INVALID, "tolerance -1");
  assert_error(unroll_largest_singular_value(&op, &o, &norm, NULL, NULL, &err), UNROLL_E_INVALID, "tolerance -1");
  o.tolerance = 0;
  o.struct_size = 4;
  assert_error(LEADING(2), UNROLL_E_INVALID, "struct_size of the options");
  o.struct_size = sizeof o;
  op.columns = 4;
  assert_error(LEADING(2), UNROLL_E_INVALID, "8 rows and 4 columns is not square");
  op.columns = 8;
  op.product = multiply;
  assert_error(LEADING(2), UNROLL_E_INVALID, "this one has both");
  op.product = NULL;
  op.matrix = NULL;
  assert_error(LEADING(2), UNROLL_E_INVALID, "this one has none");
  assert_error(unroll_largest_singular_value(&op, NULL, &norm, NULL, NULL, &err), UNROLL_E_INVALID, "has none");
  op.rows = op.columns = (int64_t)1 << 40;
  op.matrix = a;
  assert_error(LEADING(2), UNROLL_E_INVALID, "from 1 to 268435456");

  struct blocks b = {.n = 200, .stop_at = 9};
  op = of_blocks(&b);
  assert_status(UNROLL_E_IO, LEADING(2));
  b = (struct blocks){.n = 200, .stop_at = 9, .how = 1};
  assert_error(LEADING(2), UNROLL_E_RANGE, "product 9 has nan at place 5");
  b = (struct blocks){.n = 200, .stop_at = 9, .how = 2};
  assert_error(LEADING(2), UNROLL_E_INVALID, "asked for by a product");
  b = (struct blocks){.n = 200, .how = 3};
  o.conditions = 1;
  assert_error(LEADING(2), UNROLL_E_RANGE, "the largest magnitude of A is 1, of A transposed ");
  b = (struct blocks){.n = 200}; /* and all is as before */
  assert_ok(LEADING(6));
  assert_blocks(found, 6);
}

/* ---- without ARPACK, without LAPACK ---- */

/* Each as a program of its own: what it does where the library is none. */
static int without_arpack(void) {
  double *const a = shift(LARGE, 0.5, false), radius = 7;
  a[(LARGE - 1) * LARGE + LARGE - 1] = 2;
  const unroll_operator op = of_matrix(a, LARGE, LARGE);
  unroll_leading_eigenvalue found[2];
  const unroll_status status = unroll_leading_eigenvalues(&op, 2, NULL, found, NULL, &err);
  const bool is_named = strstr(err.message, "ARPACK can't be loaded") && strstr(err.message, "package is libarpack2");
  const bool is_known = unroll_spectral_radius(a, LARGE, &radius, NULL) == UNROLL_OK && fabs(radius - 2) < 1e-12;
  free(a);
  return status == UNROLL_E_UNSUPPORTED && is_named && is_known ? 0 : 1;
}

static int without_lapack(void) {
  struct blocks b = {.n = 40};
  double *const a = shift(LARGE, 0.5, false), number;
  unroll_operator op = of_blocks(&b);
  unroll_leading_eigenvalue found[2];
  /* Of an operator it is not needed. */
  int faults = unroll_leading_eigenvalues(&op, 2, NULL, found, NULL, NULL) != UNROLL_OK;
  op = of_matrix(a, LARGE, LARGE);
  const unroll_status statuses[] = {unroll_leading_eigenvalues(&op, 2, NULL, found, NULL, NULL),
                                    unroll_spectral_norm(a, LARGE, LARGE, &number, NULL),
                                    unroll_spectral_radius(a, LARGE, &number, &err)};
  for (int i = 0; i < 3; i++)
    faults += statuses[i] != UNROLL_E_UNSUPPORTED;
  faults += !strstr(err.message, "LAPACK can't be loaded") || !strstr(err.message, "package is liblapacke");
  free(a);
  return faults;
}

static void absence_is_said(void **state) {
  (void)state;
  static const char *const files[] = {"libarpack.so.2", "liblapacke.so.3"};
  for (int i = 0; i < 2; i++) {
    char folder[] = "/tmp/leading-XXXXXX", file[64], path[4096];
    assert_non_null(mkdtemp(folder));
    snprintf(file, sizeof file, "%s/%s", folder, files[i]);
    FILE *const f = fopen(file, "w");
    assert_non_null(f);
    assert_true(fputs("this is no library\n", f) >= 0 && fclose(f) == 0);
    const char *const others = getenv("LD_LIBRARY_PATH");
    snprintf(path, sizeof path, "%s%s%s", folder, others ? ":" : "", others ? others : "");
    const pid_t child = fork();
    if (child == 0) {
      setenv("LD_LIBRARY_PATH", path, 1);
      execl("/proc/self/exe", "leading_test", files[i], (char *)NULL);
      _exit(2);
    }
    int result = -1;
    assert_true(child > 0 && waitpid(child, &result, 0) == child);
    unlink(file);
    rmdir(folder);
    assert_true(WIFEXITED(result));
    assert_int_equal(WEXITSTATUS(result), 0);
  }
}

int main(int argc, char **argv) {
  if (argc == 2)
    return strcmp(argv[1], "libarpack.so.2") == 0 ? without_arpack() : without_lapack();
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(those_of_numpy),
      cmocka_unit_test(conditions_are_known),
      cmocka_unit_test(of_a_large_operator),
      cmocka_unit_test(threads_wait_for_each_other),
      cmocka_unit_test(of_small_and_strange_ones),
      cmocka_unit_test(radii_of_pairs),
      cmocka_unit_test(radius_of_a_random_matrix),
      cmocka_unit_test(radius_of_an_orthogonal_matrix),
      cmocka_unit_test(radius_of_a_shift),
      cmocka_unit_test(norms),
      cmocka_unit_test(wrong_input),
      cmocka_unit_test(absence_is_said),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
