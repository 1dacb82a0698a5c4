/* SPDX-License-Identifier: Apache-2.0 */
/*
 * linear_scan: h_t = a_t·h_{t-1} + b_t over T 4096 steps of B 8 rows of N 1536 lanes in f32, and the gradient, on devices;
 * beside a plain loop in C on one thread, and what memory gives to a loop of all threads that has nothing to wait for. All
 * take turns in the same run. Prints one JSON object per device.
 *
 *     linear_scan [--text] [SECONDS] DEVICE...     of each device, 3 unless said
 *
 * Bytes are those that have to be moved: 3 arrays forward (a, b, h), 5 back (a, h, dh, da, db).
 */
#include <math.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <unroll/runtime.h>

enum { T = 4096, B = 8, N = 1536, LANES = B * N, MAX_THREADS = 256, MIN_TURNS = 3, SAMPLES = 997 };
#define ELEMENTS ((int64_t)T * LANES)
#define BYTES (sizeof(float) * (uint64_t)ELEMENTS)
#define TOLERANCE 1e-4 /* of values of about 1: 0.9 and less of a rounding is carried on */

typedef struct arrays {
  float *a, *b, *dh, *h, *da, *db;
} arrays;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* ---- the plain loop ---- */
static void plain_forward(const arrays *x) {
  for (int64_t t = 0; t < T; t++) {
    const float *a = x->a + t * LANES, *b = x->b + t * LANES, *before = x->h + (t - 1) * LANES;
    float *h = x->h + t * LANES;
    for (int64_t i = 0; i < LANES; i++)
      h[i] = t ? a[i] * before[i] + b[i] : b[i];
  }
}

static void plain_gradient(const arrays *x) {
  for (int64_t t = T - 1; t >= 0; t--) {
    const float *dh = x->dh + t * LANES, *after = x->db + (t + 1) * LANES, *a_after = x->a + (t + 1) * LANES;
    const float *before = x->h + (t - 1) * LANES;
    float *da = x->da + t * LANES, *db = x->db + t * LANES;
    for (int64_t i = 0; i < LANES; i++) {
      const float g = t < T - 1 ? dh[i] + a_after[i] * after[i] : dh[i];
      db[i] = g;
      da[i] = t ? g * before[i] : 0;
    }
  }
}

/* ---- what memory gives: h = a + b ---- */
typedef struct part {
  const arrays *x;
  int64_t begin, end;
} part;

static void *add_part(void *arg) {
  const part *p = arg;
  for (int64_t i = p->begin; i < p->end; i++)
    p->x->h[i] = p->x->a[i] + p->x->b[i];
  return NULL;
}

static bool add_all(const arrays *x, int threads) {
  pthread_t started[MAX_THREADS];
  part parts[MAX_THREADS];
  int n = 0;
  for (; n < threads; n++) {
    parts[n] = (part){x, ELEMENTS * n / threads, ELEMENTS * (n + 1) / threads};
    if (pthread_create(&started[n], NULL, add_part, &parts[n]) != 0)
      break;
  }
  const bool all = n == threads;
  while (n-- > 0)
    pthread_join(started[n], NULL);
  return all;
}

/* ---- ours ---- */
typedef struct side {
  unroll_graph *graph;
  unroll_executable *exe;
  unroll_binding *binding;
} side;

static void side_close(side *s) {
  unroll_binding_destroy(s->binding);
  unroll_executable_destroy(s->exe);
  unroll_graph_destroy(s->graph);
}

static unroll_tensor sequence(unroll_graph *g, const char *name) {
  return unroll_input(g, name, UNROLL_F32, 3, (int64_t[]){T, B, N});
}

/* The gradient needs h, so that both are timed together, and the forward pass is taken off. */
static unroll_status side_open(side *s, unroll_device *device, bool gradient, const arrays *x, unroll_error *err) {
  unroll_status status = unroll_graph_create(NULL, &s->graph, err);
  if (status != UNROLL_OK)
    return status;
  const unroll_tensor a = sequence(s->graph, "a"), b = sequence(s->graph, "b");
  const unroll_tensor h = unroll_linear_scan(a, b, unroll_none(), unroll_none(), UNROLL_FORWARD, NULL);
  if (gradient) {
    const unroll_tensor dh = sequence(s->graph, "dh");
    unroll_tensor d[2];
    unroll_vjp(&h, &dh, 1, (unroll_tensor[]){a, b}, 2, d);
    unroll_output(d[0], "da");
    unroll_output(d[1], "db");
  } else
    unroll_output(h, "h");
  status = unroll_compile(s->graph, &device, 1, NULL, &s->exe, err);
  if (status == UNROLL_OK)
    status = unroll_binding_create(s->exe, &s->binding, err);
  if (status == UNROLL_OK)
    status = unroll_binding_write(s->binding, "a", x->a, BYTES, err);
  if (status == UNROLL_OK)
    status = unroll_binding_write(s->binding, "b", x->b, BYTES, err);
  if (status == UNROLL_OK && gradient)
    status = unroll_binding_write(s->binding, "dh", x->dh, BYTES, err);
  return status;
}

static unroll_status side_run(side *s, unroll_error *err) {
  const unroll_status status = unroll_run(s->binding, NULL, err);
  return status == UNROLL_OK ? unroll_binding_sync(s->binding, err) : status;
}

static unroll_status side_agrees(side *s, const char *name, const float *want, float *room, unroll_error *err) {
  const unroll_status status = unroll_binding_read(s->binding, name, room, BYTES, err);
  if (status != UNROLL_OK)
    return status;
  for (int64_t i = 0; i < ELEMENTS; i += SAMPLES)
    if (!(fabsf(room[i] - want[i]) <= (float)TOLERANCE)) {
      err->code = UNROLL_E_INTERNAL;
      (void)snprintf(err->message, sizeof err->message, "%s[%lld] is %g, of the plain loop %g", name, (long long)i,
                     (double)room[i], (double)want[i]);
      return err->code;
    }
  return UNROLL_OK;
}

enum { ADD, PLAIN, OURS, PLAIN_GRADIENT, OURS_BOTH, N_TIMES };

static void keep_best(double *best, double start) {
  const double took = now() - start;
  *best = took < *best ? took : *best;
}

/* Each in turn, so that what else the machine does comes over all of them. */
static unroll_status measure(side *forward, side *both, const arrays *x, int threads, double seconds, double *best,
                             unroll_error *err) {
  for (int i = 0; i < N_TIMES; i++)
    best[i] = 1e9;
  const double begin = now();
  for (int turn = 0; turn < MIN_TURNS || now() - begin < seconds; turn++) {
    double start = now();
    if (add_all(x, threads))
      keep_best(&best[ADD], start);
    start = now();
    plain_forward(x);
    keep_best(&best[PLAIN], start);
    start = now();
    plain_gradient(x);
    keep_best(&best[PLAIN_GRADIENT], start);
    for (int k = 0; k < 2; k++) {
      start = now();
      const unroll_status status = side_run(k ? both : forward, err);
      if (status != UNROLL_OK)
        return status;
      if (turn)
        keep_best(&best[k ? OURS_BOTH : OURS], start);
    }
  }
  return UNROLL_OK;
}

static void print(bool text, const char *id, int threads, const double *best) {
  const double gbs = 3 * (double)BYTES / best[ADD] / 1e9, gradient = best[OURS_BOTH] - best[OURS];
  const double forward_gbs = 3 * (double)BYTES / best[OURS] / 1e9, gradient_gbs = 5 * (double)BYTES / gradient / 1e9;
  const char *form =
      text
          ? "%s: memory %.1f GB/s with %d threads; forward %.1f ms, %.2f of the plain loop's speed, %.2f of memory's; "
            "gradient %.1f ms, %.2f, %.2f\n"
          : "{\"device\":\"%s\",\"memory_gbs\":%.2f,\"threads\":%d,\"forward_ms\":%.2f,\"forward_to_plain\":%.3f,"
            "\"forward_to_memory\":%.3f,\"gradient_ms\":%.2f,\"gradient_to_plain\":%.3f,\"gradient_to_memory\":%.3f}\n";
  printf(form, id, gbs, threads, best[OURS] * 1e3, best[PLAIN] / best[OURS], forward_gbs / gbs, gradient * 1e3,
         best[PLAIN_GRADIENT] / gradient, gradient_gbs / gbs);
}

static unroll_status measure_device(unroll_context *ctx, const char *name, const arrays *x, double seconds, bool text,
                                    unroll_error *err) {
  const long cores = sysconf(_SC_NPROCESSORS_ONLN);
  const int threads = cores < 1 ? 1 : cores > MAX_THREADS ? MAX_THREADS : (int)cores;
  unroll_device *device = NULL;
  side forward = {NULL, NULL, NULL}, both = {NULL, NULL, NULL};
  double best[N_TIMES];
  unroll_status status = unroll_device_open(ctx, name, NULL, 0, &device, err);
  if (status == UNROLL_OK)
    status = side_open(&forward, device, false, x, err);
  if (status == UNROLL_OK)
    status = side_open(&both, device, true, x, err);
  if (status == UNROLL_OK)
    status = measure(&forward, &both, x, threads, seconds, best, err);
  if (status == UNROLL_OK) {
    float *room = malloc(BYTES);
    plain_forward(x);
    plain_gradient(x);
    status = room ? UNROLL_OK : UNROLL_E_MEMORY;
    if (status == UNROLL_OK)
      status = side_agrees(&forward, "h", x->h, room, err);
    if (status == UNROLL_OK)
      status = side_agrees(&both, "da", x->da, room, err);
    if (status == UNROLL_OK)
      status = side_agrees(&both, "db", x->db, room, err);
    free(room);
  }
  if (status == UNROLL_OK)
    print(text, unroll_device_id(device), threads, best);
  side_close(&both);
  side_close(&forward);
  unroll_device_close(device);
  return status;
}

static bool arrays_make(arrays *x) {
  float **each[] = {&x->a, &x->b, &x->dh, &x->h, &x->da, &x->db};
  for (size_t i = 0; i < sizeof each / sizeof *each; i++)
    if (!(*each[i] = malloc(BYTES)))
      return false;
  uint32_t word = 1;
  for (int64_t i = 0; i < ELEMENTS; i++) {
    word = word * 1664525u + 1013904223u; /* Numerical Recipes */
    const float u = (float)(word >> 8) * 0x1p-24f;
    x->a[i] = 0.9f * u;
    x->b[i] = u - 0.4f;
    x->dh[i] = 0.6f - u;
    x->h[i] = x->da[i] = x->db[i] = 0;
  }
  return true;
}

int main(int argc, char **argv) {
  bool text = false;
  double seconds = 3;
  int first = 1;
  if (first < argc && strcmp(argv[first], "--text") == 0) {
    text = true;
    first++;
  }
  char *end = NULL;
  const double given = first < argc ? strtod(argv[first], &end) : 0;
  if (end && !*end && given > 0) {
    seconds = given;
    first++;
  }
  if (first >= argc) {
    fprintf(stderr, "usage: linear_scan [--text] [SECONDS] DEVICE...\n");
    return 2;
  }
  arrays x = {NULL, NULL, NULL, NULL, NULL, NULL};
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_context *ctx = NULL;
  unroll_status status = UNROLL_E_MEMORY;
  if (arrays_make(&x))
    status = unroll_context_create(NULL, &ctx, &err);
  for (int i = first; i < argc && status == UNROLL_OK; i++)
    status = measure_device(ctx, argv[i], &x, seconds, text, &err);
  unroll_context_destroy(ctx);
  float *all[] = {x.a, x.b, x.dh, x.h, x.da, x.db};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++)
    free(all[i]);
  if (status != UNROLL_OK)
    fprintf(stderr, "linear_scan: %s\n", err.message[0] ? err.message : "out of memory");
  return status == UNROLL_OK ? 0 : 1;
}
