/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tune_product.c: products where CLBlast makes them: parameters for its two kernels of a product, and whether
 * kernels/matmul_tile.cl is quicker for a given product.
 *
 * CLBlast keeps parameters for the whole process, and can't say what they were before: what it brings itself holds again
 * only in a process that changes nothing. So trials are made only where they are asked for (tune=thorough), before the
 * device's first product, and what comes out stands from then on.
 */
#include "tune.h"
#include <clblast_c.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PARAMETERS = 16, SETS = 7, RUNS = 8 };
enum { BIG = 50000000 }; /* floating-point operations of a product that is worth a trial */

typedef struct kernel_kind {
  const char *name, *own; /* CLBlast's, and what stands for the parameters that it brings */
  const char *parameters[PARAMETERS + 1];
  size_t sets[SETS][PARAMETERS]; /* the first parameter is 0 after the last */
  int64_t m, n, k;               /* what it is timed with */
} kernel_kind;

static const kernel_kind kinds[] = {
    {.name = "Xgemm",
     .own = "default",
     .parameters = {"MWG", "NWG", "KWG", "MDIMC", "NDIMC", "MDIMA", "NDIMB", "VWM", "VWN", "KWI", "SA", "SB", "STRM",
                    "STRN", "GEMMK", "KREG"},
     .sets = {{32, 32, 32, 8, 8, 8, 8, 2, 2, 8, 0, 0, 0, 0, 0, 1},
              {64, 64, 32, 16, 8, 16, 8, 2, 4, 2, 1, 1, 0, 0, 0, 1},
              {64, 64, 16, 8, 8, 8, 8, 4, 4, 2, 0, 0, 0, 0, 0, 1},
              {128, 128, 32, 16, 16, 16, 16, 4, 4, 2, 1, 1, 0, 0, 0, 1},
              {128, 64, 16, 16, 8, 16, 8, 4, 2, 2, 1, 1, 0, 0, 0, 1},
              {64, 64, 16, 4, 4, 4, 4, 8, 4, 2, 0, 0, 0, 0, 0, 1}},
     .m = 1024,
     .n = 512,
     .k = 256},
    {.name = "XgemmDirect",
     .own = "default",
     .parameters = {"WGD", "MDIMCD", "NDIMCD", "MDIMAD", "NDIMBD", "VWMD", "VWND", "KWID", "PADA", "PADB"},
     .sets = {{8, 8, 8, 8, 8, 1, 1, 2, 1, 1},
              {32, 8, 8, 8, 8, 2, 2, 2, 1, 1},
              {32, 16, 16, 16, 16, 2, 2, 2, 1, 1},
              {32, 8, 8, 8, 8, 4, 4, 2, 0, 0},
              {64, 16, 8, 16, 8, 4, 2, 2, 1, 1}},
     .m = 32,
     .n = 256,
     .k = 256},
};
enum { KINDS = sizeof kinds / sizeof *kinds };

static size_t count(const kernel_kind *k) {
  size_t n = 0;
  while (k->parameters[n])
    n++;
  return n;
}

/*
 * CLBlast's conditions. Both kernels begin with the tile (of m, and of n or again of m), then work-items and vectors; k's
 * part of the direct one is as large as its tile.
 */
static bool is_valid(const kernel_kind *kind, const size_t *v) {
  const bool direct = kind != kinds;
  const size_t tile_m = v[0], tile_n = direct ? v[0] : v[1], k = direct ? v[0] : v[2];
  const size_t *items = v + (direct ? 1 : 3); /* c's along m and n, a's along m, b's along n, vectors, k's unrolling */
  enum { MOST_TILE = 128, MOST_K = 64 };      /* what product_temp_bytes has room for */
  for (int i = 0; i < 7; i++)
    if (items[i] == 0 || items[i] > 64)
      return false;
  const size_t group = items[0] * items[1];
  if (tile_m == 0 || tile_n == 0 || k == 0 || tile_m > MOST_TILE || tile_n > MOST_TILE || k > MOST_K || group > 1024 ||
      group % items[2] || group % items[3])
    return false;
  if (!direct && (v[14] != 0 || v[15] != 1 || v[10] > 1 || v[11] > 1 || v[12] > 1 || v[13] > 1))
    return false;
  return tile_m % (items[0] * items[4]) == 0 && tile_n % (items[1] * items[5]) == 0 &&
         tile_m % (items[2] * items[4]) == 0 && tile_n % (items[3] * items[5]) == 0 && k % items[6] == 0 &&
         k % (group / items[2]) == 0 && k % (group / items[3]) == 0;
}

static bool override(unroll_backend_device *d, const kernel_kind *kind, int32_t dtype, const size_t *values) {
  const char *names[PARAMETERS + 1];
  memcpy(names, kind->parameters, sizeof names);
  return is_valid(kind, values) &&
         CLBlastOverrideParameters(d->entry->device, kind->name,
                                   dtype == UNROLL_F64 ? CLBlastPrecisionDouble : CLBlastPrecisionSingle, count(kind),
                                   names, values) == CLBlastSuccess;
}

static void write_set(const kernel_kind *kind, const size_t *values, char *text) {
  size_t at = 0;
  for (size_t i = 0; i < count(kind) && at < TUNE_LINE; i++)
    at += (size_t)snprintf(text + at, TUNE_LINE - at, "%s%s=%zu", i ? " " : "", kind->parameters[i], values[i]);
}

static bool read_set(const kernel_kind *kind, const char *text, size_t *values) {
  for (size_t i = 0; i < count(kind); i++) {
    const size_t n = strlen(kind->parameters[i]);
    char *end;
    text += *text == ' ';
    if (strncmp(text, kind->parameters[i], n) != 0 || text[n] != '=')
      return false;
    values[i] = strtoul(text + n + 1, &end, 10);
    text = end;
  }
  return *text == 0;
}

/* ns of the quickest product, 0 where it fails. */
static double time_product(unroll_backend_device *d, const kernel_kind *kind, int32_t dtype) {
  unroll_error err = {.struct_size = sizeof err};
  const product g = {.dtype = dtype, .trans_b = true};
  uint64_t bytes[4] = {(uint64_t)(kind->m * kind->k), (uint64_t)(kind->n * kind->k), (uint64_t)(kind->m * kind->n), 0};
  cl_mem mem[4] = {NULL};
  double least = 0;
  if (product_temp_bytes(d, &g, kind->m, kind->n, kind->k, &bytes[3], &err) != UNROLL_OK)
    return 0;
  bool right = true;
  for (int i = 0; i < 4 && right; i++) {
    cl_int code;
    const cl_uchar zero = 0;
    bytes[i] = i < 3 ? bytes[i] * dtype_bytes(dtype) : bytes[i] ? bytes[i] : 1;
    mem[i] = clCreateBuffer(d->context, CL_MEM_READ_WRITE, bytes[i], NULL, &code);
    right = code == CL_SUCCESS &&
            clEnqueueFillBuffer(d->own_queue, mem[i], &zero, 1, 0, bytes[i], 0, NULL, NULL) == CL_SUCCESS;
  }
  for (int run = 0; run < RUNS && right; run++) {
    right = clFinish(d->own_queue) == CL_SUCCESS;
    const double start = tune_now();
    right = right &&
            product_enqueue(d, d->own_queue, &g, kind->m, kind->n, kind->k, mem[0], 0, mem[1], 0, mem[2], 0, mem[3],
                            "trial", &err) == UNROLL_OK &&
            clFinish(d->own_queue) == CL_SUCCESS;
    const double ns = tune_now() - start;
    least = run == 0 || ns < least ? ns : least;
  }
  for (int i = 0; i < 4; i++)
    if (mem[i])
      clReleaseMemObject(mem[i]);
  return right ? least : 0;
}

static void measure(unroll_backend_device *d, const kernel_kind *kind, int32_t dtype, const char *key) {
  const double own = time_product(d, kind, dtype);
  double ns[SETS] = {0};
  char value[TUNE_LINE];
  unroll_error err = {.struct_size = sizeof err};
  for (size_t i = 0; i < SETS && kind->sets[i][0]; i++) {
    if (!override(d, kind, dtype, kind->sets[i]))
      continue;
    ns[i] = time_product(d, kind, dtype);
    write_set(kind, kind->sets[i], value);
    opencl_log(d->host, UNROLL_LOG_DEBUG, "opencl: tuning (tried): %s -> %s: %.4g us, CLBlast's own %.4g us", key,
               value, ns[i] / 1e3, own / 1e3);
  }
  /* The quickest that is right, too. */
  for (size_t best = 0; best < SETS;) {
    best = SETS;
    for (size_t i = 0; i < SETS; i++)
      if (ns[i] > 0 && (own <= 0 || ns[i] < 0.9 * own) && (best == SETS || ns[i] < ns[best]))
        best = i;
    if (best < SETS)
      write_set(kind, kind->sets[best], value);
    else
      snprintf(value, sizeof value, "%s", kind->own); /* from the next process on */
    (void) override(d, kind, dtype, kind->sets[best < SETS ? best : 0]);
    if (best == SETS || product_test(d, dtype, &err))
      break;
    ns[best] = 0;
  }
  tune_put(d, key, value);
  tune_say(d, UNROLL_LOG_INFO, "measured", key, value);
}

/* What was found before, once more tested: a driver may be another build of the same version. */
static void apply(unroll_backend_device *d, const kernel_kind *kind, int32_t dtype, const char *key,
                  const tune_line *line) {
  size_t values[PARAMETERS] = {0};
  unroll_error err = {.struct_size = sizeof err};
  if (strcmp(line->value, kind->own) == 0 || !read_set(kind, line->value, values) || !override(d, kind, dtype, values))
    return;
  tune_say(d, UNROLL_LOG_DEBUG, "kept", key, line->value);
  if (product_test(d, dtype, &err))
    return;
  tune_put(d, key, kind->own);
  (void) override(d, kind, dtype, kind->sets[0]);
}

void tune_clblast(unroll_backend_device *d, int32_t dtype) {
  struct tuning *t = d->tuning;
  bool *done = &t->clblast[dtype == UNROLL_F64];
  if (d->tune == TUNE_OFF)
    return;
  pthread_mutex_lock(&t->lock);
  tune_load(d);
  for (size_t i = 0; i < KINDS && !*done; i++) {
    char key[TUNE_LINE];
    snprintf(key, sizeof key, "clblast %s %s", kinds[i].name, dtype == UNROLL_F64 ? "f64" : "f32");
    const tune_line *kept = tune_find(&t->kept, key), *shipped = tune_find(&t->shipped, key);
    if (kept && d->tune != TUNE_AGAIN)
      apply(d, &kinds[i], dtype, key, kept);
    else if (d->tune != TUNE_QUICK)
      measure(d, &kinds[i], dtype, key);
    else if (shipped)
      apply(d, &kinds[i], dtype, key, shipped);
  }
  *done = true;
  pthread_mutex_unlock(&t->lock);
}

/* ---- CLBlast or tiles ---- */
static int64_t bucket(int64_t n) {
  int64_t b = 1;
  while (b < n)
    b *= 2;
  return b;
}

bool tune_prefers_tiles(plan *p, const gemm *g) {
  unroll_backend_device *d = p->device;
  struct tuning *t = d->tuning;
  const int64_t m = extent_max(p, g->m), n = extent_max(p, g->n), k = extent_max(p, g->k);
  if (d->tune == TUNE_OFF || p->trial || 2.0 * (double)m * (double)n * (double)k < BIG)
    return false;
  char key[TUNE_LINE], value[TUNE_LINE];
  snprintf(key, sizeof key, "product %s %c%c m=%lld n=%lld k=%lld", g->dtype == UNROLL_F64 ? "f64" : "f32",
           g->trans_a ? 't' : 'n', g->trans_b ? 't' : 'n', (long long)bucket(m), (long long)bucket(n),
           (long long)bucket(k));
  pthread_mutex_lock(&t->lock);
  tune_load(d);
  const tune_line *line = tune_find(&t->kept, key);
  if ((d->tune == TUNE_THOROUGH && !line) || (d->tune == TUNE_AGAIN && !(line && line->fresh))) {
    tune_trial trials[2] = {{.product = PRODUCT_CLBLAST}, {.product = PRODUCT_TILE}};
    const tune_limits limits = {.steps = 1, .timing = 1e9, .building = 60e9, .rounds = TUNE_RUNS};
    tune_time_product(p, g, trials, 2, &limits);
    if (trials[0].best > 0 && trials[1].best > 0) {
      snprintf(value, sizeof value, "%s tile=%.4g clblast=%.4g",
               trials[1].best < 0.95 * trials[0].best ? "tile" : "clblast", trials[1].best / 1e3, trials[0].best / 1e3);
      tune_put(d, key, value);
      tune_say(d, UNROLL_LOG_INFO, "measured", key, value);
    }
    line = tune_find(&t->kept, key);
  }
  if (!line)
    line = tune_find(&t->shipped, key);
  const bool tiles = line && strncmp(line->value, "tile ", 5) == 0;
  pthread_mutex_unlock(&t->lock);
  return tiles;
}
