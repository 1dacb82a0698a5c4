/* SPDX-License-Identifier: Apache-2.0 */
/* The data of a case, and the comparison with the reference. */
#include "base/base_private.h"
#include "conform/op_cases.h"
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* SplitMix64 (Steele, Lea, Flood 2014). */
static uint64_t next_random(uint64_t *state) {
  uint64_t z = *state += 0x9E3779B97F4A7C15u;
  z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
  z = (z ^ z >> 27) * 0x94D049BB133111EBu;
  return z ^ z >> 31;
}

static double next_uniform(uint64_t *state, double lo, double hi) {
  return lo + (hi - lo) * (double)(next_random(state) >> 11) * 0x1p-53;
}

static uint64_t seed_of(uint64_t seed, const char *name, uint32_t storage) {
  uint64_t h = (HASH64_SEED + storage) ^ (seed * 0x9E3779B97F4A7C15u);
  for (; *name; name++)
    h = (h ^ (uint8_t)*name) * 0x100000001B3u;
  return h;
}

static double fill_value(const op_fill *fill, int64_t i, uint64_t *state) {
  double u = next_uniform(state, fill->lo, fill->hi);
  uint64_t r = next_random(state);
  switch (fill->kind) {
  case FILL_INTEGER: return floor(next_uniform(state, fill->lo, fill->hi + 1));
  case FILL_NONZERO: return r & 1 ? u : -u;
  case FILL_SPECIAL: {
    const double specials[] = {NAN, INFINITY, -INFINITY, 0.0, -0.0, u, -u, fill->hi, -fill->hi, u};
    return specials[r % 10];
  }
  case FILL_MASKED: return r % 5 ? u : -INFINITY;
  case FILL_LENGTHS: return i == 0 ? fill->hi : i == 1 ? 0 : floor(next_uniform(state, 0, fill->hi + 1));
  default: return u;
  }
}

static void put(void *data, int64_t i, int32_t dtype, double v) {
  switch (dtype) {
  case UNROLL_F64: ((double *)data)[i] = v; return;
  case UNROLL_F32: ((float *)data)[i] = (float)v; return;
  case UNROLL_I64: ((int64_t *)data)[i] = (int64_t)v; return;
  case UNROLL_I32: ((int32_t *)data)[i] = (int32_t)v; return;
  case UNROLL_I8: ((int8_t *)data)[i] = (int8_t)v; return;
  default: ((uint8_t *)data)[i] = (uint8_t)v;
  }
}

/* Of an i64 the lower 53 bits count: cases stay below that. */
static double get(const void *data, int64_t i, int32_t dtype) {
  switch (dtype) {
  case UNROLL_F64: return ((const double *)data)[i];
  case UNROLL_F32: return (double)((const float *)data)[i];
  case UNROLL_I64: return (double)((const int64_t *)data)[i];
  case UNROLL_I32: return (double)((const int32_t *)data)[i];
  case UNROLL_I8: return (double)((const int8_t *)data)[i];
  default: return (double)((const uint8_t *)data)[i];
  }
}

static int32_t storage_dtype(const op_case *c, uint32_t s, int32_t dtype) {
  return c->storages[s].dtype == OP_REAL ? dtype : c->storages[s].dtype;
}

static int64_t storage_elements(const op_case *c, uint32_t s) { return c->storages[s].unit * c->storages[s].units; }

static void data_free(const op_check_options *x, void **data) {
  for (uint32_t s = 0; s < OP_MAX_TENSORS; s++)
    mem_free(x->target->allocator, data[s]);
}

/* Reals of a run are rounded to f32 first, so that device and reference start from the same numbers. */
static int data_make(const op_check_options *x, const op_case *c, int32_t dtype, void **data) {
  for (uint32_t s = 0; s < c->n_storages; s++) {
    const op_storage *storage = &c->storages[s];
    int32_t type = storage_dtype(c, s, dtype);
    int64_t n = storage_elements(c, s);
    data[s] = mem_alloc(x->target->allocator, (uint64_t)n * unroll_dtype_size(type));
    if (!data[s])
      return 0;
    uint64_t state = seed_of(x->seed, c->name, s);
    if (storage->fill.kind == FILL_NAN)
      memset(data[s], 0xFF, (size_t)n * unroll_dtype_size(type));
    else
      for (int64_t i = 0; i < n; i++) {
        double v = fill_value(&storage->fill, i, &state);
        put(data[s], i, type, storage->dtype == OP_REAL ? (double)(float)v : v);
      }
  }
  return 1;
}

static int is_written(const op_case *c, uint32_t s) {
  for (uint32_t t = 0; t < c->n_tensors; t++)
    if (c->tensors[t].storage == (int32_t)s && !c->tensors[t].is_input)
      return 1;
  return 0;
}

/* How far a storage is from the reference; elements that are NaN in both, or the same infinity, are no difference. */
typedef struct difference {
  int64_t worst; /* the element that is furthest beyond the tolerance, -1 for none */
  double worst_error, largest, tolerance;
  double errors, squares; /* sums of squares: of the differences, of the reference */
} difference;

static difference compare(const op_case *c, uint32_t s, int32_t dtype, const void *got, const void *want) {
  int32_t type = storage_dtype(c, s, dtype), reference_type = storage_dtype(c, s, UNROLL_F64);
  int64_t n = storage_elements(c, s);
  difference d = {.worst = -1, .worst_error = -1};
  for (int64_t i = 0; i < n; i++) {
    double v = fabs(get(want, i, reference_type));
    if (isfinite(v) && v > d.largest)
      d.largest = v;
  }
  int is_exact = !is_written(c, s) || (type != UNROLL_F32 && type != UNROLL_F64);
  d.tolerance = is_exact ? 0 : op_case_tolerance(c, type);
  for (int64_t i = 0; i < n; i++) {
    double a = get(got, i, type), b = get(want, i, reference_type);
    if (isfinite(a) && isfinite(b)) {
      d.errors += (a - b) * (a - b);
      d.squares += b * b;
    }
    if (a == b || (isnan(a) && isnan(b)))
      continue;
    double error = isfinite(a) && isfinite(b) ? fabs(a - b) : INFINITY;
    if (error > d.tolerance * d.largest && error > d.worst_error) {
      d.worst_error = error;
      d.worst = i;
    }
  }
  return d;
}

/* Without the sign of a NaN, which would be printed. */
static double plain(double v) { return isnan(v) ? NAN : v; }

/*
 * Two bounds, with the tolerance t of op_case_tolerance. No element is off by more than t times the largest of the reference.
 * And the normalised mean squared error, sum of (device - reference)^2 over sum of reference^2, is at most t^2: t bounds the
 * relative error that a chain of steps or a sum brings, so sum of e_i^2 <= t^2 · sum of r_i^2. The first alone would let all
 * elements be off by as much as the largest may be; the second alone would let one of many be far off.
 */
static int storage_matches(const op_case *c, uint32_t s, int32_t dtype, const void *got, const void *want,
                           char *message, size_t size) {
  difference d = compare(c, s, dtype, got, want);
  double nmse = d.squares > 0 ? d.errors / d.squares : d.errors > 0 ? INFINITY : 0;
  double nmse_limit = d.tolerance * d.tolerance;
  if (d.worst < 0 && nmse <= nmse_limit)
    return 1;
  int32_t type = storage_dtype(c, s, dtype), reference_type = storage_dtype(c, s, UNROLL_F64);
  int64_t n = storage_elements(c, s);
  if (d.worst >= 0)
    snprintf(message, size,
             "buffer %u [%" PRId64 "] of %" PRId64
             ": %.9g, expected %.9g, difference %.3g > %.3g; NMSE %.3g, limit %.3g",
             (unsigned)s, d.worst, n, plain(get(got, d.worst, type)), plain(get(want, d.worst, reference_type)),
             d.worst_error, d.tolerance * d.largest, nmse, nmse_limit);
  else
    snprintf(message, size, "buffer %u, %" PRId64 " elements: NMSE %.3g, limit %.3g; no difference above %.3g",
             (unsigned)s, n, nmse, nmse_limit, d.tolerance * d.largest);
  return 0;
}

static int same_bits(const op_case *c, int32_t dtype, void **a, void **b, uint32_t internal, char *message,
                     size_t size) {
  for (uint32_t s = 0; s < c->n_storages; s++) {
    size_t bytes = (size_t)storage_elements(c, s) * unroll_dtype_size(storage_dtype(c, s, dtype));
    if (!(internal >> s & 1) && memcmp(a[s], b[s], bytes) != 0) {
      snprintf(message, size, "buffer %u has other bits in a second run, where the device says DETERMINISTIC",
               (unsigned)s);
      return 0;
    }
  }
  return 1;
}

/* The data of one check: for the device, for its second run, for the reference. */
typedef struct check_data {
  void *got[OP_MAX_TENSORS], *again[OP_MAX_TENSORS], *want[OP_MAX_TENSORS];
} check_data;

static int check_with(const op_check_options *x, const op_case *c, check_data *data, char *message, size_t size) {
  uint32_t internal = 0;
  unroll_error err = UNROLL_ERROR_INIT;
  int result = op_run(x->target, c, x->dtype, x->layout, data->got, &internal, &err);
  if (!result && x->is_deterministic)
    result = op_run(x->target, c, x->dtype, x->layout, data->again, &internal, &err);
  if (result) {
    snprintf(message, size, "%s", err.message);
    if (x->left && result == OP_DECLINED)
      *x->left = (uint64_t)err.native;
    return result;
  }
  if (x->is_deterministic && !same_bits(c, x->dtype, data->got, data->again, internal, message, size))
    return OP_BROKEN;
  result = op_run_plain(x->reference, c, UNROLL_F64, data->want, &err);
  if (result) {
    snprintf(message, size, "the reference does not run it: %s", err.message);
    return OP_BROKEN;
  }
  for (uint32_t s = 0; s < c->n_storages; s++)
    if (!(internal >> s & 1) && !storage_matches(c, s, x->dtype, data->got[s], data->want[s], message, size))
      return OP_BROKEN;
  return OP_RAN;
}

int op_check(const op_check_options *x, const op_case *c, char *message, size_t size) {
  check_data data;
  memset(&data, 0, sizeof data);
  message[0] = 0;
  int result = OP_BROKEN;
  if (!c->n_nodes)
    snprintf(message, size, "derived from a case that is not there");
  else if (!data_make(x, c, x->dtype, data.got) || !data_make(x, c, x->dtype, data.again) ||
           !data_make(x, c, UNROLL_F64, data.want))
    snprintf(message, size, "the judge is out of memory");
  else
    result = check_with(x, c, &data, message, size);
  data_free(x, data.got);
  data_free(x, data.again);
  data_free(x, data.want);
  return result;
}
