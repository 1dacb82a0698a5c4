/* SPDX-License-Identifier: Apache-2.0 */
/*
 * planting.h: what the tests of unroll/finite.h share: a context with the backend that plants a number (plugins/planter.c),
 * and networks small and ragged.
 */
#ifndef PLANTING_H
#define PLANTING_H
#include "devices.h"

#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unroll/finite.h>
#include <unroll/nn.h>

#include "plugins/planter.h"

enum { T = 9, B = 4, I = 3, H = 5, LAYERS = 2 };
static const int32_t lengths[B] = {9, 4, 7, 1};

/* ---- a context with the planter, over the cpu backend or another's file ---- */

struct rig {
  unroll_context *ctx;
  unroll_device *device, *cpu;
  planter *plan;
};

static inline bool rig_open(struct rig *r, const char *inner) {
  static char path[4200], file[4200];
  const char *folder = getenv("UNROLL_TEST_PLUGINS"), *plugins = getenv("UNROLL_PLUGIN_PATH");
  if (!folder || (inner && !plugins))
    return false;
  snprintf(path, sizeof path, "%.4000s/planter.so", folder);
  void *so = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  assert_non_null(so);
  r->plan = dlsym(so, "planter_plan");
  assert_non_null(r->plan);
  *r->plan = (planter){.update = UINT64_MAX};
  if (inner) {
    snprintf(file, sizeof file, "%.4000s/unroll-%s.so", plugins, inner);
    FILE *there = fopen(file, "r");
    if (!there)
      return false;
    fclose(there);
    r->plan->inner = file;
  }
  unroll_error err = UNROLL_ERROR_INIT;
  const char *files[] = {path};
  const unroll_context_options options = {
      .struct_size = sizeof options, .n_threads = 1, .plugin_files = files, .n_plugin_files = 1};
  assert_status(UNROLL_OK, unroll_context_create(&options, &r->ctx, &err));
  if (unroll_device_open(r->ctx, "planter", NULL, 0, &r->device, &err) != UNROLL_OK) {
    unroll_context_destroy(r->ctx);
    return false;
  }
  assert_status(UNROLL_OK, unroll_device_open(r->ctx, "cpu", NULL, 0, &r->cpu, &err));
  return true;
}

static inline void rig_close(struct rig *r) {
  unroll_device_close(r->cpu);
  unroll_device_close(r->device);
  unroll_context_destroy(r->ctx);
}

/* ---- a network ---- */

static uint64_t noise = 1;
static inline uint32_t draw(uint32_t n) { /* Knuth's MMIX generator */
  noise = noise * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
  return (uint32_t)(noise >> 33) % n;
}

/* Two layers, both ways, ragged, the gradient of a sum of squares. */
static inline unroll_graph *network_of(unroll_rnn_options o, const unroll_allocator *allocator) {
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_graph *g;
  assert_status(UNROLL_OK, unroll_graph_create(allocator, &g, &err));
  const unroll_tensor x = unroll_input(g, "x", UNROLL_F32, 3, (int64_t[]){T, B, I});
  o.struct_size = sizeof o;
  o.layers = LAYERS;
  o.hidden = H;
  o.bidirectional = 1;
  o.lengths = unroll_input(g, "lengths", UNROLL_I32, 1, (int64_t[]){B});
  const unroll_tensor y = unroll_rnn(x, "rnn", &o, NULL, NULL);
  const unroll_tensor loss = unroll_reduce(y, UNROLL_SUM_SQUARES, 0, 0);
  unroll_output(loss, "loss");
  unroll_tensor p[64], d[64];
  uint32_t n = 0;
  for (uint32_t i = 0; i < unroll_graph_count(g); i++) {
    const unroll_tensor t = unroll_graph_tensor(g, i);
    if (unroll_tensor_describe(t).role == UNROLL_ROLE_PARAM)
      p[n++] = t;
  }
  unroll_gradient(loss, p, n, d);
  for (uint32_t i = 0; i < n; i++)
    unroll_update(p[i], unroll_sub(p[i], unroll_scale(d[i], 0.01)));
  assert_status(UNROLL_OK, unroll_graph_status(g, &err));
  return g;
}

static inline unroll_graph *network(unroll_rnn_options o) { return network_of(o, NULL); }

/* Numbers from -0.5 to 0.5; past a sequence's end NaN, which nobody may look at. */
static inline model filled(unroll_graph *g, unroll_device *cpu) {
  model m = model_open(g, cpu, false);
  for (uint32_t i = 0; i < unroll_graph_count(g); i++) {
    const unroll_tensor_info t = unroll_tensor_describe(unroll_graph_tensor(g, i));
    if (t.role != UNROLL_ROLE_PARAM && t.role != UNROLL_ROLE_INPUT)
      continue;
    if (t.dtype == UNROLL_I32) {
      model_put_i32(&m, t.name, lengths, B);
      continue;
    }
    double v[1024];
    int64_t n = 1;
    for (int32_t k = 0; k < t.rank; k++)
      n *= t.shape[k];
    assert_true(n <= 1024);
    for (int64_t k = 0; k < n; k++)
      v[k] = (double)draw(1001) / 1000 - 0.5;
    for (int64_t k = 0; k < n && t.role == UNROLL_ROLE_INPUT; k++)
      if (k / I / B >= lengths[k / I % B])
        v[k] = (double)NAN;
    model_put(&m, t.name, v, n);
  }
  return m;
}

static inline unroll_nonfinite find(unroll_graph *g, unroll_device *device, const model *m) {
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_nonfinite at = {.struct_size = sizeof at};
  assert_status(UNROLL_OK, unroll_nonfinite_find(g, &device, 1, m->binding, NULL, &at, &err));
  return at;
}
#endif
