/* SPDX-License-Identifier: Apache-2.0 */
/* The data of cases, the comparison with the reference, and the run over all cases. */
#include "conform/op_cases.h"
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern const unroll_plugin unroll_plugin_v1_cpu;

static void *host_alloc(void *ctx, uint64_t bytes, uint64_t alignment) {
  (void)ctx;
  void *p = NULL;
  if (alignment < sizeof(void *))
    alignment = sizeof(void *);
  return posix_memalign(&p, alignment, bytes ? bytes : 1) ? NULL : p;
}
static void host_free(void *ctx, void *p) {
  (void)ctx;
  free(p);
}
static void host_log(void *ctx, int32_t level, const char *message) { (void)ctx, (void)level, (void)message; }
static const void *host_extension(void *ctx, const char *id) {
  (void)ctx, (void)id;
  return NULL;
}

const unroll_host *op_cases_host(void) {
  static const unroll_host host = {.struct_size = sizeof host,
                                   .abi_major = UNROLL_ABI_MAJOR,
                                   .abi_minor = UNROLL_ABI_MINOR,
                                   .log = host_log,
                                   .alloc = host_alloc,
                                   .free = host_free,
                                   .extension = host_extension};
  return &host;
}

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

static uint64_t seed_of(const char *name, uint32_t storage) {
  uint64_t h = 0xCBF29CE484222325u + storage;
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

static size_t element_size(int32_t dtype) {
  switch (dtype) {
  case UNROLL_F64:
  case UNROLL_I64: return 8;
  case UNROLL_F32:
  case UNROLL_I32: return 4;
  default: return 1;
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

static void data_free(void **data) {
  for (uint32_t s = 0; s < OP_MAX_TENSORS; s++)
    free(data[s]);
  memset(data, 0, OP_MAX_TENSORS * sizeof *data);
}

/* Reals of a run are rounded to f32 first, so that device and reference start from the same numbers. */
static int data_make(const op_case *c, int32_t dtype, void **data) {
  memset(data, 0, OP_MAX_TENSORS * sizeof *data);
  for (uint32_t s = 0; s < c->n_storages; s++) {
    const op_storage *storage = &c->storages[s];
    int32_t type = storage_dtype(c, s, dtype);
    int64_t n = storage_elements(c, s);
    data[s] = malloc((size_t)n * element_size(type));
    if (!data[s])
      return data_free(data), 0;
    uint64_t state = seed_of(c->name, s);
    if (storage->fill.kind == FILL_NAN)
      memset(data[s], 0xFF, (size_t)n * element_size(type));
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

/* 1 where storage s is what the reference says; the tolerance is of the largest finite value of the reference. */
static int storage_matches(const op_case *c, uint32_t s, int32_t dtype, const void *got, const void *want,
                           char *message, size_t size) {
  int32_t type = storage_dtype(c, s, dtype), reference_type = storage_dtype(c, s, UNROLL_F64);
  int64_t n = storage_elements(c, s), worst = -1;
  double largest = 0, worst_error = -1;
  for (int64_t i = 0; i < n; i++) {
    double v = fabs(get(want, i, reference_type));
    if (isfinite(v) && v > largest)
      largest = v;
  }
  int is_exact = !is_written(c, s) || (type != UNROLL_F32 && type != UNROLL_F64);
  double tolerance = is_exact ? 0 : op_case_tolerance(c, type) * largest;
  for (int64_t i = 0; i < n; i++) {
    double a = get(got, i, type), b = get(want, i, reference_type);
    if (a == b || (isnan(a) && isnan(b)))
      continue;
    double error = isfinite(a) && isfinite(b) ? fabs(a - b) : INFINITY;
    if (error > tolerance && error > worst_error) {
      worst_error = error;
      worst = i;
    }
  }
  if (worst < 0)
    return 1;
  snprintf(message, size, "buffer %u [%" PRId64 "] of %" PRId64 ": %.9g, expected %.9g, error %.3g > %.3g", (unsigned)s,
           worst, n, get(got, worst, type), get(want, worst, reference_type), worst_error, tolerance);
  return 0;
}

typedef struct run_context {
  op_target target, reference;
  int32_t dtype;
  int is_deterministic;
} run_context;

static int same_bits(const op_case *c, int32_t dtype, void **a, void **b, uint32_t internal, char *message,
                     size_t size) {
  for (uint32_t s = 0; s < c->n_storages; s++) {
    size_t bytes = (size_t)storage_elements(c, s) * element_size(storage_dtype(c, s, dtype));
    if (!(internal >> s & 1) && memcmp(a[s], b[s], bytes)) {
      snprintf(message, size, "buffer %u has other bits in a second run", (unsigned)s);
      return 0;
    }
  }
  return 1;
}

static int check_case(const run_context *x, const op_case *c, uint32_t layout, unroll_error *err, char *message,
                      size_t size) {
  void *got[OP_MAX_TENSORS], *again[OP_MAX_TENSORS], *want[OP_MAX_TENSORS];
  uint32_t internal = 0;
  int made = data_make(c, x->dtype, got), made_again = data_make(c, x->dtype, again);
  int made_want = data_make(c, UNROLL_F64, want);
  snprintf(message, size, c->n_nodes ? "the test is out of memory" : "derived from a case that is not there");
  int result = OP_BROKEN;
  if (!c->n_nodes || !made || !made_again || !made_want)
    goto end;
  result = op_run(&x->target, c, x->dtype, layout, got, &internal, err);
  if (!result && x->is_deterministic)
    result = op_run(&x->target, c, x->dtype, layout, again, &internal, err);
  if (result) {
    snprintf(message, size, "%s", err->message);
    goto end;
  }
  if (x->is_deterministic && !same_bits(c, x->dtype, got, again, internal, message, size)) {
    result = OP_BROKEN;
    goto end;
  }
  result = op_run_plain(&x->reference, c, UNROLL_F64, want, err);
  if (result) {
    snprintf(message, size, "the reference does not run it: %s", err->message);
    result = OP_BROKEN;
    goto end;
  }
  for (uint32_t s = 0; s < c->n_storages && !result; s++)
    if (!(internal >> s & 1) && !storage_matches(c, s, x->dtype, got[s], want[s], message, size))
      result = OP_BROKEN;
end:
  data_free(got);
  data_free(again);
  data_free(want);
  return result;
}

static void count(op_cases_result *r, const op_case *c, int result, const char *message) {
  switch (result) {
  case OP_RAN: r->passed++; break;
  case OP_UNSUPPORTED: r->unsupported++; break;
  case OP_DECLINED:
    if (r->declined++ < OP_MESSAGES)
      snprintf(r->declined_messages[r->n_declined_messages++], sizeof *r->declined_messages, "%s", c->name);
    break;
  default:
    if (r->failed++ < OP_MESSAGES)
      snprintf(r->messages[r->n_messages++], sizeof *r->messages, "%s: %s", c->name, message);
  }
}

static unroll_status run_list(op_cases_result *result, const run_context *x, const char *filter, unroll_error *err) {
  op_case_list list;
  if (!op_case_list_make(&list)) {
    err->code = UNROLL_E_MEMORY;
    snprintf(err->message, sizeof err->message, "no memory for the cases");
    return UNROLL_E_MEMORY;
  }
  unroll_status status = UNROLL_OK;
  for (uint32_t i = 0; i < list.n && status != UNROLL_E_DEVICE_LOST; i++) {
    const op_case *c = &list.cases[i];
    if (filter && !strstr(c->name, filter))
      continue;
    char message[280];
    unroll_error e;
    memset(&e, 0, sizeof e);
    e.struct_size = sizeof e;
    int r = check_case(x, c, i, &e, message, sizeof message);
    count(result, c, r, message);
    status = e.code;
    if (status == UNROLL_E_DEVICE_LOST)
      *err = e;
  }
  op_case_list_free(&list);
  return status == UNROLL_E_DEVICE_LOST ? status : UNROLL_OK;
}

static unroll_status run_with_reference(op_cases_result *result, run_context *x, const char *filter,
                                        unroll_error *err) {
  const unroll_plugin *plugin = &unroll_plugin_v1_cpu;
  unroll_backend *backend = NULL;
  unroll_device_info info;
  memset(&info, 0, sizeof info);
  info.struct_size = sizeof info;
  op_target *reference = &x->reference;
  unroll_status status = plugin->open(op_cases_host(), NULL, 0, &backend, &reference->ops, err);
  if (status)
    return status;
  status = reference->ops->device_info(backend, 0, &info, err);
  if (!status)
    status = reference->ops->device_open(backend, 0, NULL, 0, &reference->device, err);
  if (!status)
    status = reference->ops->queue_create(reference->device, 0, &reference->queue, err);
  if (!status) {
    reference->alignment = info.alignment;
    reference->dtypes = info.dtypes;
    status = run_list(result, x, filter, err);
  }
  reference->ops->queue_destroy(reference->queue);
  reference->ops->device_close(reference->device);
  unroll_status closed = plugin->close(backend, err);
  return status ? status : closed;
}

unroll_status op_cases_run(op_cases_result *result, const unroll_backend_ops *ops, unroll_backend_device *device,
                           const unroll_device_info *info, int32_t dtype, const char *filter, unroll_error *err) {
  memset(result, 0, sizeof *result);
  run_context x = {.target = {.ops = ops, .device = device, .alignment = info->alignment, .dtypes = info->dtypes},
                   .dtype = dtype,
                   .is_deterministic = (info->caps & UNROLL_CAP_DETERMINISTIC) != 0};
  unroll_status status = ops->queue_create(device, 0, &x.target.queue, err);
  if (status)
    return status;
  status = run_with_reference(result, &x, filter, err);
  ops->queue_destroy(x.target.queue);
  return status;
}
