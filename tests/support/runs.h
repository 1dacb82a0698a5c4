/* SPDX-License-Identifier: Apache-2.0 */
/*
 * runs.h: what the tests of the runtime share: a context with the plugin of tests/plugins/patchwork.c, its log, an
 * allocator that counts and fails, a training graph, and runs compared by bytes.
 *
 *     static run_log seen;
 *     unroll_context *ctx = runs_context(NULL, &seen);
 *     unroll_device *d = runs_device(ctx, "patchwork", "mask=matmul", "group=runs", NULL);
 *     unroll_graph *g = runs_training(&(training){.T = 7, ...});
 *     results r = runs_all(g, (unroll_device *[]){d}, 1, NULL, 3);
 *
 * What goes wrong in here fails the test.
 */
#ifndef RUNS_H
#define RUNS_H
#include "devices.h"

/* ---- allocation ---- */
typedef struct run_memory {
  long live, calls, fail_at; /* fail_at 0: never; the n-th call fails, once */
  uint64_t bytes, peak;
} run_memory;
unroll_allocator runs_allocator(run_memory *m);

/* ---- log: every line with a newline after it ---- */
typedef struct run_log {
  char text[1 << 16];
  size_t n;
} run_log;
uint32_t log_count(const run_log *log, const char *words);

/* ---- contexts and devices ---- */
unroll_context *runs_context(const unroll_allocator *allocator, run_log *log);
/* "key=value" .., NULL */
unroll_device *runs_device(unroll_context *ctx, const char *name, ...) __attribute__((sentinel));
bool runs_have(unroll_context *ctx, const char *plugin);

/* ---- a graph to train: embedding, layers, product, cross-entropy, all gradients, perhaps an optimizer ---- */
typedef struct training {
  int64_t T, B, I, H, V;
  int32_t dtype, cell, direction, layers;
  bool runtime_T, lengths, with_state, optimize;
  const unroll_allocator *allocator;
} training;
unroll_graph *runs_training(const training *what);

/* Numbers that depend on the tensor's name and size alone. */
void runs_fill(unroll_graph *graph, unroll_binding *binding, const training *what);

/* Reals of f32 from -0.5 to 0.5 for every input and parameter, by its place in the graph; these lengths for i32. */
void runs_fill_layers(unroll_graph *graph, unroll_binding *binding, const int32_t *lengths, size_t bytes);

/* ---- what a graph's outputs, parameters and states hold after n runs from such numbers ---- */
typedef struct results {
  uint32_t n;
  struct result {
    char name[64];
    int32_t dtype;
    int64_t count;
    uint64_t bytes;
    void *data;
  } * of;
} results;
results runs_read(unroll_graph *graph, unroll_binding *binding);
results runs_all(unroll_graph *graph, unroll_device *const *devices, uint32_t n_devices,
                 const unroll_compile_options *options, const training *what, int n_runs);
void results_free(results *r);
void assert_same_at(const results *got, const results *want, const char *file, int line);
#define assert_same(got, want) assert_same_at((got), (want), __FILE__, __LINE__)
/* |got - want| <= tolerance·max|want|, per tensor */
void assert_near(const results *got, const results *want, double tolerance);
#endif
