/* SPDX-License-Identifier: Apache-2.0 */
/* rig.h: a graph that is timed: compiled for a device, its tensors filled, run and waited for. */
#ifndef BENCH_RIG_H
#define BENCH_RIG_H
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unroll/nn.h>
#include <unroll/runtime.h>

typedef struct side {
  unroll_graph *graph;
  unroll_executable *exe;
  unroll_binding *binding;
  double best; /* seconds of the fastest run so far */
} side;

static inline double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static inline void side_close(side *s) {
  unroll_binding_destroy(s->binding);
  unroll_executable_destroy(s->exe);
  unroll_graph_destroy(s->graph);
  memset(s, 0, sizeof *s);
}

static inline uint64_t tensor_bytes(const unroll_tensor_info *t) {
  uint64_t bytes = sizeof(float); /* of f32 and i32 alike */
  for (int32_t i = 0; i < t->rank; i++)
    bytes *= (uint64_t)t->shape[i];
  return bytes;
}

/* What a run needs: memory between ops, and all tensors that the caller sees. */
static inline uint64_t side_bytes(const side *s) {
  uint64_t bytes = unroll_executable_describe(s->exe).scratch_bytes;
  for (uint32_t i = 0; i < unroll_graph_count(s->graph); i++) {
    const unroll_tensor_info t = unroll_tensor_describe(unroll_graph_tensor(s->graph, i));
    bytes += tensor_bytes(&t);
  }
  return bytes;
}

/* Parameters get their usual first values, other reals numbers of -1 to 1; states and whole numbers stay 0. */
static inline unroll_status side_fill(side *s, int32_t cell, unroll_error *err) {
  uint32_t word = 1;
  unroll_status status = UNROLL_OK;
  for (uint32_t i = 0; i < unroll_graph_count(s->graph) && status == UNROLL_OK; i++) {
    const unroll_tensor_info t = unroll_tensor_describe(unroll_graph_tensor(s->graph, i));
    if (t.dtype != UNROLL_F32 || (t.role != UNROLL_ROLE_PARAM && t.role != UNROLL_ROLE_INPUT))
      continue;
    const uint64_t bytes = tensor_bytes(&t);
    float *values = malloc(bytes);
    if (!values)
      return UNROLL_E_MEMORY;
    for (uint64_t k = 0; k < bytes / sizeof *values; k++) {
      word = word * 1664525u + 1013904223u; /* Numerical Recipes */
      values[k] = (float)(word >> 8) * 0x1p-23f - 1;
    }
    if (t.role == UNROLL_ROLE_PARAM)
      status = unroll_init_default(&t, cell, 1, values, err);
    if (status == UNROLL_OK)
      status = unroll_binding_write(s->binding, t.name, values, bytes, err);
    free(values);
  }
  return status;
}

static inline unroll_status side_bind(side *s, unroll_device *device, int32_t cell, unroll_error *err) {
  s->best = 1e9;
  unroll_status status = unroll_compile(s->graph, &device, 1, NULL, &s->exe, err);
  if (status == UNROLL_OK)
    status = unroll_binding_create(s->exe, &s->binding, err);
  return status == UNROLL_OK ? side_fill(s, cell, err) : status;
}

static inline unroll_status side_time(side *s, uint64_t update, unroll_error *err) {
  const unroll_run_options options = {.struct_size = sizeof options, .seed = 1, .update = update};
  const double start = now();
  unroll_status status = unroll_run(s->binding, &options, err);
  if (status == UNROLL_OK)
    status = unroll_binding_sync(s->binding, err);
  const double took = now() - start;
  if (update > 0 && took < s->best) /* the first run is for warming up */
    s->best = took;
  return status;
}

/* Outputs of the gradients of sum(y·dy), dy an input, to x and every parameter. */
static inline void side_gradients(side *s, unroll_tensor x, unroll_tensor y) {
  enum { MOST = 64 };
  unroll_tensor wrt[MOST], d[MOST];
  uint32_t n = 0;
  wrt[n++] = x;
  for (uint32_t i = 0; i < unroll_graph_count(s->graph) && n < MOST; i++) {
    const unroll_tensor t = unroll_graph_tensor(s->graph, i);
    if (unroll_tensor_describe(t).role == UNROLL_ROLE_PARAM)
      wrt[n++] = t;
  }
  const unroll_tensor_info info = unroll_tensor_describe(y);
  const unroll_tensor dy = unroll_input(s->graph, "dy", UNROLL_F32, info.rank < 0 ? 0 : info.rank, info.shape);
  unroll_vjp(&y, &dy, 1, wrt, n, d);
  for (uint32_t i = 0; i < n; i++) {
    char name[80];
    (void)snprintf(name, sizeof name, "d.%s", unroll_tensor_describe(wrt[i]).name);
    unroll_output(d[i], name);
  }
}

/* [--text] [SECONDS] DEVICE.. of every program that uses this: where the devices begin, or 0 on misuse. */
static inline int rig_arguments(int argc, char **argv, const char **file, const char *file_option, double *seconds,
                                bool *text) {
  int i = 1;
  for (; i < argc && strncmp(argv[i], "--", 2) == 0; i++)
    if (strcmp(argv[i], "--text") == 0)
      *text = true;
    else if (file_option && strcmp(argv[i], file_option) == 0 && i + 1 < argc)
      *file = argv[++i];
    else
      return 0;
  char *end = NULL;
  const double given = i < argc ? strtod(argv[i], &end) : 0;
  if (end && !*end && given > 0) {
    *seconds = given;
    i++;
  }
  return i < argc ? i : 0;
}
#endif
