/* SPDX-License-Identifier: Apache-2.0 */
/* nn_init.c: the first values of parameters. */
#include "nn/nn_private.h"
#include <inttypes.h>
#include <math.h>
#include <string.h>
#include <unroll/philox.h>

typedef struct matrix {
  int64_t blocks, rows, columns; /* rows of one block */
} matrix;

static unroll_status count_elements(const unroll_tensor_info *info, const void *data, int64_t *n, unroll_error *err) {
  if (!info || !info->name || !data)
    return fail(err, UNROLL_E_INVALID, "first values: the tensor's description, its name or its data is NULL");
  if (info->dtype != UNROLL_F32 && info->dtype != UNROLL_F64)
    return fail(err, UNROLL_E_DTYPE, "first values of %s: it is %s, expected f32 or f64", info->name,
                unroll_dtype_name(info->dtype));
  if (info->rank < 0 || info->rank > UNROLL_MAX_RANK)
    return fail(err, UNROLL_E_SHAPE, "first values of %s: rank %d, expected 0 to %d", info->name, info->rank,
                UNROLL_MAX_RANK);
  *n = 1;
  for (int32_t i = 0; i < info->rank; i++)
    if (info->shape[i] < 1 || !extent_mul(*n, info->shape[i], n) || *n > INT64_MAX / 16)
      return fail(err, UNROLL_E_SHAPE, "first values of %s: axis %d has extent %" PRId64, info->name, i,
                  info->shape[i]);
  return UNROLL_OK;
}

static unroll_status as_matrix(const unroll_tensor_info *info, const void *data, int64_t blocks, matrix *m,
                               unroll_error *err) {
  int64_t n = 0;
  TRY(count_elements(info, data, &n, err));
  if (info->rank != 2)
    return fail(err, UNROLL_E_SHAPE, "first values of %s: rank %d, expected a matrix", info->name, info->rank);
  if (blocks < 1 || info->shape[0] % blocks != 0)
    return fail(err, UNROLL_E_SHAPE, "first values of %s: %" PRId64 " rows, expected a multiple of %" PRId64 " blocks",
                info->name, info->shape[0], blocks);
  *m = (matrix){blocks, info->shape[0] / blocks, info->shape[1]};
  return UNROLL_OK;
}

static unroll_status check_finite(const unroll_tensor_info *info, double value, unroll_error *err) {
  if (isfinite(value))
    return UNROLL_OK;
  return fail(err, UNROLL_E_RANGE, "first values of %s: %g is not finite", info->name, value);
}

static void put(const unroll_tensor_info *info, void *data, int64_t i, double value) {
  if (info->dtype == UNROLL_F64)
    ((double *)data)[i] = value;
  else
    ((float *)data)[i] = (float)value;
}

static unroll_philox_key key_of(const unroll_tensor_info *info, uint64_t seed) {
  return unroll_philox_site_key(seed, hash64_string(info->name, HASH64_SEED), UNROLL_INIT_SITE);
}
static double uniform_at(unroll_philox_key key, int64_t i) {
  return (double)unroll_uniform(unroll_philox_word(key, (uint64_t)i >> 32, 0, (uint32_t)i));
}
static double normal_at(unroll_philox_key key, int64_t i) {
  return unroll_normal(key, (uint64_t)i >> 32, 0, (uint32_t)i);
}

unroll_status unroll_init_constant(const unroll_tensor_info *info, double value, void *data, unroll_error *err) {
  int64_t n = 0;
  TRY(count_elements(info, data, &n, err));
  TRY(check_finite(info, value, err));
  for (int64_t i = 0; i < n; i++)
    put(info, data, i, value);
  return UNROLL_OK;
}

unroll_status unroll_init_uniform(const unroll_tensor_info *info, uint64_t seed, double lo, double hi, void *data,
                                  unroll_error *err) {
  int64_t n = 0;
  TRY(count_elements(info, data, &n, err));
  TRY(check_finite(info, lo, err));
  TRY(check_finite(info, hi, err));
  if (lo > hi)
    return fail(err, UNROLL_E_RANGE, "first values of %s: from %g to %g", info->name, lo, hi);
  const unroll_philox_key key = key_of(info, seed);
  for (int64_t i = 0; i < n; i++)
    put(info, data, i, lo + (hi - lo) * uniform_at(key, i));
  return UNROLL_OK;
}

unroll_status unroll_init_normal(const unroll_tensor_info *info, uint64_t seed, double mean, double std, void *data,
                                 unroll_error *err) {
  int64_t n = 0;
  TRY(count_elements(info, data, &n, err));
  TRY(check_finite(info, mean, err));
  TRY(check_finite(info, std, err));
  if (std < 0)
    return fail(err, UNROLL_E_RANGE, "first values of %s: standard deviation %g, expected at least 0", info->name, std);
  const unroll_philox_key key = key_of(info, seed);
  for (int64_t i = 0; i < n; i++)
    put(info, data, i, mean + std * normal_at(key, i));
  return UNROLL_OK;
}

unroll_status unroll_init_glorot(const unroll_tensor_info *info, uint64_t seed, int64_t blocks, void *data,
                                 unroll_error *err) {
  matrix m = {1, 1, 1};
  TRY(as_matrix(info, data, blocks, &m, err));
  const double a = sqrt(6.0 / ((double)m.rows + (double)m.columns));
  return unroll_init_uniform(info, seed, -a, a, data, err);
}

/* a [n,k] -= v·(vᵀa), in rows and columns from `first` on; |v|² = 2 makes that a reflection. w: room for k. */
static void reflect(double *a, const double *v, int64_t n, int64_t k, int64_t first, double *w) {
  memset(w, 0, (size_t)k * sizeof *w);
  for (int64_t i = first; i < n; i++)
    for (int64_t j = first; j < k; j++)
      w[j] += v[i] * a[i * k + j];
  for (int64_t i = first; i < n; i++)
    for (int64_t j = first; j < k; j++)
      a[i * k + j] -= v[i] * w[j];
}

/*
 * The Q [n,k], n >= k, of a = Q·R with a positive diagonal of R. a is overwritten; v has room for the k reflections of n,
 * w and sign for k.
 */
static void orthonormal_columns(double *a, double *q, int64_t n, int64_t k, double *v, double *w, double *sign) {
  memset(v, 0, (size_t)(n * k) * sizeof *v);
  for (int64_t j = 0; j < k; j++) {
    double *vj = v + j * n, square = 0;
    for (int64_t i = j; i < n; i++) {
      vj[i] = a[i * k + j];
      square += vj[i] * vj[i];
    }
    const double norm = sqrt(square), before = vj[j];
    sign[j] = before > 0 ? -1.0 : 1.0; /* of R's entry here: the sign without cancellation */
    vj[j] += before > 0 ? norm : -norm;
    square += vj[j] * vj[j] - before * before;
    if (square > 0)
      for (int64_t i = j; i < n; i++)
        vj[i] *= sqrt(2.0 / square);
    reflect(a, vj, n, k, j, w);
  }
  memset(q, 0, (size_t)(n * k) * sizeof *q);
  for (int64_t j = 0; j < k; j++)
    q[j * k + j] = sign[j];
  for (int64_t j = k; j-- > 0;)
    reflect(q, v + j * n, n, k, j, w);
}

unroll_status unroll_init_orthogonal(const unroll_tensor_info *info, uint64_t seed, int64_t blocks, double lambda,
                                     void *data, unroll_error *err) {
  matrix m = {1, 1, 1};
  TRY(as_matrix(info, data, blocks, &m, err));
  TRY(check_finite(info, lambda, err));
  const bool wide = m.rows < m.columns;
  const int64_t n = wide ? m.columns : m.rows, k = wide ? m.rows : m.columns, size = n * k;
  uint64_t room;
  double *a = NULL;
  if (size_mul(3, (uint64_t)size, &room) && size_add(room, 2 * (uint64_t)k, &room))
    a = mem_array(NULL, room, sizeof *a);
  if (!a)
    return fail(err, UNROLL_E_MEMORY, "out of memory for first values of %s: an orthogonal matrix", info->name);
  double *q = a + size, *v = q + size, *w = v + size, *sign = w + k;
  const unroll_philox_key key = key_of(info, seed);
  for (int64_t b = 0; b < m.blocks; b++) {
    for (int64_t i = 0; i < size; i++)
      a[i] = normal_at(key, b * size + i);
    orthonormal_columns(a, q, n, k, v, w, sign);
    for (int64_t i = 0; i < m.rows; i++)
      for (int64_t j = 0; j < m.columns; j++)
        put(info, data, b * size + i * m.columns + j, lambda * (wide ? q[j * k + i] : q[i * k + j]));
  }
  mem_free(NULL, a);
  return UNROLL_OK;
}

unroll_status unroll_init_lstm_bias(const unroll_tensor_info *info, void *data, unroll_error *err) {
  TRY(unroll_init_constant(info, 0.0, data, err));
  if (info->rank != 1 || info->shape[0] % 4 != 0)
    return fail(err, UNROLL_E_SHAPE, "first values of %s: expected the bias [4H] of an LSTM", info->name);
  const int64_t H = info->shape[0] / 4;
  for (int64_t i = H; i < 2 * H; i++)
    put(info, data, i, 1.0);
  return UNROLL_OK;
}

unroll_status unroll_init_chrono(const unroll_tensor_info *info, uint64_t seed, double t_max, int64_t blocks,
                                 int64_t forget, int64_t input, void *data, unroll_error *err) {
  TRY(unroll_init_constant(info, 0.0, data, err));
  TRY(check_finite(info, t_max, err));
  if (info->rank != 1 || blocks < 1 || info->shape[0] % blocks != 0)
    return fail(err, UNROLL_E_SHAPE, "first values of %s: expected a bias of %" PRId64 " blocks", info->name, blocks);
  if (forget < -1 || forget >= blocks || input < -1 || input >= blocks || forget == input)
    return fail(err, UNROLL_E_RANGE,
                "first values of %s: blocks %" PRId64 " and %" PRId64 " of %" PRId64
                ", expected two that differ, or -1",
                info->name, forget, input, blocks);
  if (t_max < 2)
    return fail(err, UNROLL_E_RANGE, "first values of %s: dependencies of %g steps, expected at least 2", info->name,
                t_max);
  const int64_t H = info->shape[0] / blocks;
  const unroll_philox_key key = key_of(info, seed);
  for (int64_t i = 0; i < H; i++) {
    const double b = log(1 + (t_max - 2) * uniform_at(key, i));
    if (forget >= 0)
      put(info, data, forget * H + i, b);
    if (input >= 0)
      put(info, data, input * H + i, -b);
  }
  return UNROLL_OK;
}

unroll_status unroll_init_identity(const unroll_tensor_info *info, int64_t blocks, double scale, void *data,
                                   unroll_error *err) {
  matrix m = {1, 1, 1};
  TRY(as_matrix(info, data, blocks, &m, err));
  TRY(check_finite(info, scale, err));
  TRY(unroll_init_constant(info, 0.0, data, err));
  for (int64_t b = 0; b < m.blocks; b++)
    for (int64_t i = 0; i < m.rows && i < m.columns; i++)
      put(info, data, (b * m.rows + i) * m.columns + i, scale);
  return UNROLL_OK;
}

/* The bias [3H] of a coupled LSTM (i g o), whose f = 1 - i begins as that of an LSTM. */
static unroll_status init_coupled_bias(const unroll_tensor_info *info, void *data, unroll_error *err) {
  TRY(unroll_init_constant(info, 0.0, data, err));
  if (info->rank != 1 || info->shape[0] % 3 != 0)
    return fail(err, UNROLL_E_SHAPE, "first values of %s: expected the bias [3H] of a coupled LSTM", info->name);
  for (int64_t i = 0; i < info->shape[0] / 3; i++)
    put(info, data, i, -1.0);
  return UNROLL_OK;
}

/* "W_x" of "rnn.W_x.0.1", "weight" of "embed.weight": the last part that is no number, and how many numbers follow it. */
static int last_part(const char *name, const char **part, size_t *size) {
  const char *end = name + strlen(name);
  for (int numbers = 0;; numbers++) {
    const char *start = end;
    while (start > name && start[-1] != '.')
      start--;
    *part = start;
    *size = (size_t)(end - start);
    if (start == name || *size == 0 || strspn(start, "0123456789") < *size)
      return numbers;
    end = start - 1;
  }
}

unroll_status unroll_init_default(const unroll_tensor_info *info, int32_t cell, uint64_t seed, void *data,
                                  unroll_error *err) {
  int64_t n = 0;
  const char *part;
  size_t size;
  TRY(count_elements(info, data, &n, err));
  if (cell != UNROLL_CELL_NONE && unroll_gate_count(cell) == 0)
    return fail(err, UNROLL_E_RANGE, "first values of %s: %d is no cell (UNROLL_CELL_*, UNROLL_RNN_*)", info->name,
                cell);
  const int numbers = last_part(info->name, &part, &size);
#define PART_IS(text) (size == sizeof(text) - 1 && strncmp(part, text, size) == 0)
  if (numbers == 2 && cell != UNROLL_CELL_NONE) {
    if (PART_IS("W_x") || PART_IS("W_xh") || PART_IS("W_c") || PART_IS("W_f")) /* whatever goes into all gates */
      return unroll_init_glorot(info, seed, unroll_gate_count(cell), data, err);
    if (PART_IS("W_h"))
      return unroll_init_orthogonal(info, seed, unroll_gate_count(cell), 1.0, data, err);
    if (PART_IS("b") && cell == UNROLL_CELL_LSTM)
      return unroll_init_lstm_bias(info, data, err);
    if (PART_IS("b") && cell == UNROLL_RNN_COUPLED_LSTM)
      return init_coupled_bias(info, data, err);
    if (PART_IS("ln_x") || PART_IS("ln_h") || PART_IS("ln_c"))
      return unroll_init_constant(info, 1.0, data, err);
  }
  if (numbers == 0 && PART_IS("weight"))
    return unroll_init_normal(info, seed, 0.0, 1.0, data, err);
#undef PART_IS
  return info->rank == 2 ? unroll_init_glorot(info, seed, 1, data, err) : unroll_init_constant(info, 0.0, data, err);
}
