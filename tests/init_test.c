/* SPDX-License-Identifier: Apache-2.0 */
/* The first values of parameters. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unroll/nn.h>
#include <unroll/philox.h>

static unroll_tensor_info describe(const char *name, int32_t dtype, int64_t rows, int64_t columns) {
  unroll_tensor_info info = {.struct_size = sizeof info, .dtype = dtype, .name = name};
  info.rank = columns ? 2 : 1;
  info.shape[0] = rows;
  info.shape[1] = columns;
  return info;
}

typedef struct moments {
  double mean, std, min, max;
} moments;
static moments moments_of(const double *x, int64_t n) {
  moments m = {0, 0, INFINITY, -INFINITY};
  for (int64_t i = 0; i < n; i++) {
    m.mean += x[i] / (double)n;
    m.min = fmin(m.min, x[i]);
    m.max = fmax(m.max, x[i]);
  }
  for (int64_t i = 0; i < n; i++)
    m.std += (x[i] - m.mean) * (x[i] - m.mean) / (double)n;
  m.std = sqrt(m.std);
  return m;
}

enum { ROWS = 120, COLUMNS = 50, N = ROWS * COLUMNS };

/* Of n numbers the mean is off by about σ/sqrt(n), the deviation by less: five times that is not reached by chance. */
static void distributions(void **state) {
  (void)state;
  static double x[N];
  const unroll_tensor_info info = describe("w", UNROLL_F64, ROWS, COLUMNS);
  const double five = 5 / sqrt((double)N);

  assert_int_equal(unroll_init_uniform(&info, 7, -1, 3, x, NULL), UNROLL_OK);
  moments m = moments_of(x, N);
  assert_true(m.min >= -1 && m.max < 3 && m.min < -0.99 && m.max > 2.99);
  assert_true(fabs(m.mean - 1) < five * 4 / sqrt(12) && fabs(m.std - 4 / sqrt(12)) < five * 4 / sqrt(12));

  assert_int_equal(unroll_init_normal(&info, 7, 0.5, 1 / sqrt(50), x, NULL), UNROLL_OK);
  m = moments_of(x, N);
  assert_true(fabs(m.mean - 0.5) < five / sqrt(50) && fabs(m.std - 1 / sqrt(50)) < five / sqrt(50));
  assert_true(m.max > 0.5 + 3 / sqrt(50) && m.min < 0.5 - 3 / sqrt(50));

  /* Three gates of 40 rows: a = sqrt(6 / (40 + 50)). */
  assert_int_equal(unroll_init_glorot(&info, 7, 3, x, NULL), UNROLL_OK);
  m = moments_of(x, N);
  const double a = sqrt(6.0 / 90.0);
  assert_true(m.min >= -a && m.max < a && m.min < -0.99 * a && m.max > 0.99 * a);

  assert_int_equal(unroll_init_constant(&info, 0.25, x, NULL), UNROLL_OK);
  m = moments_of(x, N);
  assert_true(m.min == 0.25 && m.max == 0.25);
}

/* The numbers are those of philox.h at the places that the header names. */
static void numbers_are_named_by_seed_name_and_index(void **state) {
  (void)state;
  static double x[N], y[N];
  static float f[N];
  unroll_tensor_info info = describe("w", UNROLL_F64, ROWS, COLUMNS);
  assert_int_equal(unroll_init_normal(&info, 7, 0, 1, x, NULL), UNROLL_OK);
  assert_int_equal(unroll_init_normal(&info, 7, 0, 1, y, NULL), UNROLL_OK);
  assert_memory_equal(x, y, sizeof x);
  assert_int_equal(unroll_init_normal(&info, 8, 0, 1, y, NULL), UNROLL_OK);
  assert_true(x[0] != y[0] && x[N - 1] != y[N - 1]);
  info.name = "v";
  assert_int_equal(unroll_init_normal(&info, 7, 0, 1, y, NULL), UNROLL_OK);
  assert_true(x[0] != y[0] && x[N - 1] != y[N - 1]);
  info = describe("w", UNROLL_F32, COLUMNS, ROWS); /* the shape does not matter, the index does; f32 is rounded */
  assert_int_equal(unroll_init_normal(&info, 7, 0, 1, f, NULL), UNROLL_OK);
  for (int i = 0; i < N; i++)
    assert_true(f[i] == (float)x[i]);
  /* FNV-1a, 64 bits, of 'w' and 0 */
  uint64_t hash = UINT64_C(0xCBF29CE484222325);
  hash = (hash ^ 'w') * UINT64_C(0x100000001B3);
  hash = hash * UINT64_C(0x100000001B3);
  const unroll_philox_key key = unroll_philox_site_key(7, hash, UNROLL_INIT_SITE);
  assert_true(x[1234] == unroll_normal(key, 0, 0, 1234));
}

/* Every block's QᵀQ (rows >= columns) or QQᵀ is λ²·1. */
static void check_orthogonal(int64_t blocks, int64_t rows, int64_t columns, double lambda) {
  const unroll_tensor_info info = describe("rnn.W_h.0.0", UNROLL_F64, blocks * rows, columns);
  double *x = malloc((size_t)(blocks * rows * columns) * sizeof *x);
  assert_non_null(x);
  assert_int_equal(unroll_init_orthogonal(&info, 3, blocks, lambda, x, NULL), UNROLL_OK);
  const bool tall = rows >= columns;
  const int64_t k = tall ? columns : rows, n = tall ? rows : columns;
  for (int64_t b = 0; b < blocks; b++)
    for (int64_t i = 0; i < k; i++)
      for (int64_t j = 0; j < k; j++) {
        const double *q = x + b * rows * columns;
        double sum = 0;
        for (int64_t l = 0; l < n; l++)
          sum += tall ? q[l * columns + i] * q[l * columns + j] : q[i * columns + l] * q[j * columns + l];
        assert_true(fabs(sum - (i == j ? lambda * lambda : 0)) < 1e-12 * lambda * lambda);
      }
  if (blocks > 1)
    assert_true(fabs(x[0] - x[rows * columns]) > 1e-6); /* not the same matrix again */
  free(x);
}

static void orthogonal(void **state) {
  (void)state;
  check_orthogonal(1, 1, 1, 1);
  check_orthogonal(4, 33, 33, 1);
  check_orthogonal(3, 20, 20, 0.9);
  check_orthogonal(2, 17, 5, 1.5);
  check_orthogonal(2, 5, 17, 1.5);
  /* Uniform over all orthogonal matrices: an entry of Q is as often positive as negative, also on the diagonal, and has
   * mean square 1/H. Without the sign of R's diagonal all of the first column's reflections would go one way. */
  enum { TRIES = 400, H = 4 };
  static double x[TRIES * H * H];
  const unroll_tensor_info info = describe("q", UNROLL_F64, TRIES * H, H);
  assert_int_equal(unroll_init_orthogonal(&info, 11, TRIES, 1, x, NULL), UNROLL_OK);
  for (int e = 0; e < H * H; e++) {
    double mean = 0, square = 0;
    for (int t = 0; t < TRIES; t++) {
      mean += x[t * H * H + e] / TRIES;
      square += x[t * H * H + e] * x[t * H * H + e] / TRIES;
    }
    assert_true(fabs(mean) < 5 * 0.5 / sqrt(TRIES));
    assert_true(fabs(square - 0.25) < 5 * 0.25 / sqrt(TRIES));
  }
}

static void defaults(void **state) {
  (void)state;
  enum { H = 6, I = 5 };
  double x[4 * H * H], y[4 * H * H];
  unroll_tensor_info info = describe("net.enc.b.1.0", UNROLL_F64, 4 * H, 0);
  assert_int_equal(unroll_init_default(&info, UNROLL_CELL_LSTM, 5, x, NULL), UNROLL_OK);
  for (int i = 0; i < 4 * H; i++)
    assert_true(x[i] == (i / H == 1 ? 1.0 : 0.0));
  static const struct {
    const char *name;
    int32_t cell;
  } zeros[] = {{"b.0.0", UNROLL_CELL_GRU},
               {"b_n.0.1", UNROLL_CELL_GRU_AFTER},
               {"head.b", UNROLL_CELL_LSTM},
               {"own", UNROLL_CELL_NONE},
               {"rnn.b.0.0", UNROLL_CELL_NONE}};
  for (size_t k = 0; k < sizeof zeros / sizeof *zeros; k++) {
    info = describe(zeros[k].name, UNROLL_F64, 4 * H, 0);
    memset(x, 0xFF, sizeof x);
    assert_int_equal(unroll_init_default(&info, zeros[k].cell, 5, x, NULL), UNROLL_OK);
    for (int i = 0; i < 4 * H; i++)
      assert_true(x[i] == 0.0);
  }
  info = describe("W_h.0.1", UNROLL_F64, 4 * H, H);
  assert_int_equal(unroll_init_default(&info, UNROLL_CELL_LSTM, 5, x, NULL), UNROLL_OK);
  assert_int_equal(unroll_init_orthogonal(&info, 5, 4, 1, y, NULL), UNROLL_OK);
  assert_memory_equal(x, y, sizeof(double) * 4 * H * H);
  info = describe("rnn.W_x.12.0", UNROLL_F64, 3 * H, I);
  assert_int_equal(unroll_init_default(&info, UNROLL_CELL_GRU, 5, x, NULL), UNROLL_OK);
  assert_int_equal(unroll_init_glorot(&info, 5, 3, y, NULL), UNROLL_OK);
  assert_memory_equal(x, y, sizeof(double) * 3 * H * I);
  info = describe("head.W", UNROLL_F64, H, I);
  assert_int_equal(unroll_init_default(&info, UNROLL_CELL_GRU, 5, x, NULL), UNROLL_OK);
  assert_int_equal(unroll_init_glorot(&info, 5, 1, y, NULL), UNROLL_OK);
  assert_memory_equal(x, y, sizeof(double) * H * I);
  info = describe("embed.weight", UNROLL_F64, H, I);
  assert_int_equal(unroll_init_default(&info, UNROLL_CELL_NONE, 5, x, NULL), UNROLL_OK);
  assert_int_equal(unroll_init_normal(&info, 5, 0, 1, y, NULL), UNROLL_OK);
  assert_memory_equal(x, y, sizeof(double) * H * I);
}

/* b_f = log u with u ~ U(1, t_max - 1), b_i = -b_f (Tallec & Ollivier 2018). */
static void chrono(void **state) {
  (void)state;
  enum { H = 2000 };
  static double x[4 * H];
  unroll_tensor_info info = describe("rnn.b.0.0", UNROLL_F64, 4 * H, 0);
  assert_int_equal(unroll_init_chrono(&info, 7, 401, 4, 1, 0, x, NULL), UNROLL_OK);
  double mean = 0, least = INFINITY, most = 0;
  for (int i = 0; i < H; i++) {
    const double u = exp(x[H + i]);
    assert_true(x[i] == -x[H + i] && x[2 * H + i] == 0 && x[3 * H + i] == 0);
    mean += u / H;
    least = fmin(least, u);
    most = fmax(most, u);
  }
  assert_true(least >= 1 && least < 3 && most <= 400 && most > 398);
  assert_true(fabs(mean - 200.5) < 5 * 399 / sqrt(12.0 * H)); /* of a uniform distribution, as in distributions() */

  static double y[3 * H];
  info.shape[0] = 3 * H;
  assert_int_equal(unroll_init_chrono(&info, 7, 401, 3, 1, -1, y, NULL), UNROLL_OK); /* gru: z */
  assert_memory_equal(y + H, x + H, sizeof(double) * H);
  assert_true(y[0] == 0 && y[H - 1] == 0 && y[2 * H] == 0);
  assert_int_equal(unroll_init_chrono(&info, 7, 401, 3, -1, 0, y, NULL), UNROLL_OK); /* coupled lstm: i */
  assert_memory_equal(y, x, sizeof(double) * H);
  assert_true(y[H] == 0 && y[3 * H - 1] == 0);
}

static void identity(void **state) {
  (void)state;
  static const double want[] = {0.5, 0, 0, 0, 0.5, 0, 0.5, 0, 0, 0, 0.5, 0};
  double x[12];
  const unroll_tensor_info info = describe("rnn.W_h.0.0", UNROLL_F64, 4, 3);
  assert_int_equal(unroll_init_identity(&info, 2, 0.5, x, NULL), UNROLL_OK);
  assert_memory_equal(x, want, sizeof want);
}

/* Parameters of cells with options. */
static void defaults_of_options(void **state) {
  (void)state;
  enum { H = 3 };
  double x[3 * H * H], y[3 * H * H];
  static const struct {
    const char *name;
    int32_t cell;
    double first, others; /* thirds of the values */
  } vectors[] = {{"rnn.b.0.0", UNROLL_RNN_COUPLED_LSTM, -1, 0}, {"rnn.b.1.0", UNROLL_RNN_MIN_LSTM, 0, 0},
                 {"ln_x.0.0", UNROLL_CELL_GRU, 1, 1},           {"ln_h.0.1", UNROLL_CELL_GRU_AFTER, 1, 1},
                 {"ln_c.0.0", UNROLL_CELL_LSTM, 1, 1},          {"ln_s.0.0", UNROLL_CELL_LSTM, 0, 0},
                 {"p_i.0.0", UNROLL_CELL_LSTM, 0, 0},           {"b_m.0.0", UNROLL_CELL_RNN, 0, 0}};
  for (size_t k = 0; k < sizeof vectors / sizeof *vectors; k++) {
    const unroll_tensor_info info = describe(vectors[k].name, UNROLL_F64, 3 * H, 0);
    assert_int_equal(unroll_init_default(&info, vectors[k].cell, 5, x, NULL), UNROLL_OK);
    for (int i = 0; i < 3 * H; i++)
      assert_true(x[i] == (i < H ? vectors[k].first : vectors[k].others));
  }
  unroll_tensor_info info = describe("W_h.0.0", UNROLL_F64, 3 * H, H);
  assert_int_equal(unroll_init_default(&info, UNROLL_RNN_COUPLED_LSTM, 5, x, NULL), UNROLL_OK);
  assert_int_equal(unroll_init_orthogonal(&info, 5, 3, 1, y, NULL), UNROLL_OK);
  assert_memory_equal(x, y, sizeof x);
  info = describe("W_x.0.0", UNROLL_F64, 2 * H, H);
  assert_int_equal(unroll_init_default(&info, UNROLL_RNN_MIN_GRU, 5, x, NULL), UNROLL_OK);
  assert_int_equal(unroll_init_glorot(&info, 5, 2, y, NULL), UNROLL_OK);
  assert_memory_equal(x, y, sizeof(double) * 2 * H * H);
  info = describe("W_r.0.0", UNROLL_F64, H, 3 * H);
  assert_int_equal(unroll_init_default(&info, UNROLL_CELL_LSTM, 5, x, NULL), UNROLL_OK);
  assert_int_equal(unroll_init_glorot(&info, 5, 1, y, NULL), UNROLL_OK);
  assert_memory_equal(x, y, sizeof x);
}

static void misuse(void **state) {
  (void)state;
  double x[64];
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_tensor_info info = describe("w", UNROLL_F64, 8, 3);
  assert_int_equal(unroll_init_constant(NULL, 0, x, &err), UNROLL_E_INVALID);
  assert_int_equal(unroll_init_constant(&info, 0, NULL, &err), UNROLL_E_INVALID);
  assert_int_equal(unroll_init_constant(&info, NAN, x, &err), UNROLL_E_RANGE);
  assert_int_equal(unroll_init_uniform(&info, 1, 2, 1, x, &err), UNROLL_E_RANGE);
  assert_int_equal(unroll_init_normal(&info, 1, 0, -1, x, &err), UNROLL_E_RANGE);
  assert_int_equal(unroll_init_orthogonal(&info, 1, 3, 1, x, &err), UNROLL_E_SHAPE);
  assert_non_null(strstr(err.message, "w: 8 rows, expected a multiple of 3 blocks"));
  assert_int_equal(unroll_init_orthogonal(&info, 1, 0, 1, x, &err), UNROLL_E_SHAPE);
  assert_int_equal(unroll_init_lstm_bias(&info, x, &err), UNROLL_E_SHAPE);
  assert_int_equal(unroll_init_default(&info, 77, 1, x, &err), UNROLL_E_RANGE);
  info.dtype = UNROLL_I32;
  assert_int_equal(unroll_init_normal(&info, 1, 0, 1, x, &err), UNROLL_E_DTYPE);
  info = describe("w", UNROLL_F32, 8, 0);
  assert_int_equal(unroll_init_glorot(&info, 1, 1, x, &err), UNROLL_E_SHAPE);
  assert_int_equal(unroll_init_identity(&info, 1, 1, x, &err), UNROLL_E_SHAPE);
  assert_int_equal(unroll_init_chrono(&info, 1, 100, 3, 1, 0, x, &err), UNROLL_E_SHAPE);
  assert_non_null(strstr(err.message, "w: expected a bias of 3 blocks"));
  assert_int_equal(unroll_init_chrono(&info, 1, 100, 4, 4, 0, x, &err), UNROLL_E_RANGE);
  assert_int_equal(unroll_init_chrono(&info, 1, 100, 4, 1, 1, x, &err), UNROLL_E_RANGE);
  assert_int_equal(unroll_init_chrono(&info, 1, 100, 4, -1, -1, x, &err), UNROLL_E_RANGE);
  assert_int_equal(unroll_init_chrono(&info, 1, 1.5, 4, 1, 0, x, &err), UNROLL_E_RANGE);
  assert_non_null(strstr(err.message, "dependencies of 1.5 steps"));
  assert_int_equal(unroll_init_chrono(&info, 1, INFINITY, 4, 1, 0, x, &err), UNROLL_E_RANGE);
  info.shape[0] = 0;
  assert_int_equal(unroll_init_constant(&info, 0, x, &err), UNROLL_E_SHAPE);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(distributions),
                                     cmocka_unit_test(numbers_are_named_by_seed_name_and_index),
                                     cmocka_unit_test(orthogonal),
                                     cmocka_unit_test(defaults),
                                     cmocka_unit_test(chrono),
                                     cmocka_unit_test(identity),
                                     cmocka_unit_test(defaults_of_options),
                                     cmocka_unit_test(misuse)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
