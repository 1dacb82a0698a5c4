/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What goes on inside of layers with every cell and option, against PyTorch in f64: gates and states of every step, and the
 * Jacobians of a step by torch.func: every tests/golden/inside_*.safetensors, on every device.
 */
#include "diagnose/map.h"
#include "golden.h"
#include "statuses.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unroll/activity.h>
#include <unroll/diagnose.h>

static unroll_error err = UNROLL_ERROR_INIT;

enum { MOST = 128 };

typedef struct inside {
  golden file;
  unroll_rnn_options options;
  unroll_network net;
  unroll_network_weight weights[MOST];
  int64_t T, B, I;
  int32_t *lengths; /* NULL: all T */
} inside;

static bool is_weight(const char *name) {
  static const char *const others[] = {"x", "x_all.", "h_all.", "c_all.", "gates.", "map_", "jacobian.", "lengths"};
  for (size_t i = 0; i < sizeof others / sizeof *others; i++)
    if (strncmp(name, others[i], strlen(others[i])) == 0)
      return false;
  return true;
}

static void inside_open(inside *n, const char *name) {
  *n = (inside){.file = golden_open(name)};
  n->options = golden_rnn_options(&n->file);
  n->T = golden_integer(&n->file, "T");
  n->B = golden_integer(&n->file, "B");
  n->I = golden_integer(&n->file, "I");
  n->lengths = golden_has(&n->file, "lengths") ? golden_integers(&n->file, "lengths", NULL) : NULL;
  n->net = (unroll_network){
      .struct_size = sizeof n->net, .options = &n->options, .input = n->I, .weights = n->weights, .prefix = ""};
  for (uint64_t i = 0; i < unroll_safetensors_count(n->file.file); i++) {
    unroll_stored_tensor t;
    int64_t count;
    assert_int_equal(unroll_safetensors_get(n->file.file, i, &t, NULL), UNROLL_OK);
    if (!is_weight(t.name))
      continue;
    assert_in_range(n->net.n_weights, 0, MOST - 1);
    double *const values = golden_values(&n->file, t.name, &count);
    n->weights[n->net.n_weights++] = (unroll_network_weight){t.name, values, (uint64_t)count};
  }
}

static void inside_close(inside *n) {
  for (uint32_t i = 0; i < n->net.n_weights; i++)
    free((void *)n->weights[i].data);
  free(n->lengths);
  golden_close(&n->file);
}

/* f64: a few hundred roundings of 1e-16, some of them enlarged by a layer norm. f32 likewise, from 6e-8. */
static double tolerance(int32_t dtype) { return dtype == UNROLL_F64 ? 1e-12 : 5e-5; }

static void compare(const inside *n, const char *what, int32_t l, int32_t d, int32_t dtype, const double *got,
                    int64_t count) {
  char name[48], title[160];
  int64_t expected;
  snprintf(name, sizeof name, d < 0 ? "%s.%d" : "%s.%d.%d", what, l, d);
  snprintf(title, sizeof title, "%s, %s: %s", n->file.name, unroll_dtype_name(dtype), name);
  double *const want = golden_values(&n->file, name, &expected);
  assert_int_equal(count, expected);
  assert_close(title, got, want, count, tolerance(dtype));
  free(want);
}

static void check_activity(const inside *n, unroll_device *dev, int32_t dtype) {
  double *const x = golden_values(&n->file, "x", NULL);
  const unroll_activity_batch batch = {
      .struct_size = sizeof batch, .steps = n->T, .batch = n->B, .x = x, .lengths = n->lengths};
  const unroll_activity_options o = {.struct_size = sizeof o, .dtype = dtype, .device = dev};
  unroll_activity *a;
  assert_ok(unroll_activity_measure(&n->net, &batch, &o, &a, &err));
  assert_int_equal(a->n_layers, n->options.layers * (n->options.bidirectional ? 2 : 1));
  const int64_t TB = n->T * n->B;
  for (uint32_t i = 0; i < a->n_layers; i++) {
    const unroll_activity_layer *l = &a->layers[i];
    compare(n, "x_all", l->layer, -1, dtype, l->x, TB * l->I);
    compare(n, "gates", l->layer, l->direction, dtype, l->gates, TB * l->G * l->H);
    compare(n, "h_all", l->layer, l->direction, dtype, l->h, TB * l->P);
    if (l->c)
      compare(n, "c_all", l->layer, l->direction, dtype, l->c, TB * l->H);
    else
      assert_false(golden_has(&n->file, "c_all.0.0"));
  }
  unroll_activity_free(a);
  free(x);
}

/* w = J·v by the map's own products, against the golden J. */
static void check_products(const inside *n, const unroll_map *map, int32_t l, int32_t d, const double *state,
                           int64_t count) {
  const int64_t N = unroll_map_count(map);
  char name[48];
  double *const V = calloc((size_t)(3 * count * N + N), sizeof *V);
  assert_non_null(V);
  double *const w = V + count * N, *const want = w + count * N, *const next = want + count * N;
  snprintf(name, sizeof name, "jacobian.%d.%d", l, d);
  double *const J = golden_values(&n->file, name, NULL);
  for (int64_t i = 0; i < count * N; i++)
    V[i] = sin(1 + 2.5 * (double)i);
  for (int64_t k = 0; k < count; k++)
    for (int64_t i = 0; i < N; i++)
      for (int64_t j = 0; j < N; j++)
        want[k * N + i] += J[i * N + j] * V[k * N + j];
  assert_ok(map_product(map, 1, state, next, count, V, w, &err));
  compare(n, "map_next", l, d, UNROLL_F64, next, N);
  assert_close(name, w, want, count * N, 1e-12);
  free(J);
  free(V);
}

static void check_map(const inside *n, unroll_device *dev, int32_t l, int32_t d) {
  char name[48];
  int64_t I, N;
  snprintf(name, sizeof name, "map_x.%d.%d", l, d);
  double *const one = golden_values(&n->file, name, &I), *const x = calloc((size_t)(2 * I), sizeof *x);
  snprintf(name, sizeof name, "map_state.%d.%d", l, d);
  double *const state = golden_values(&n->file, name, &N), *const next = calloc((size_t)(N + N * N), sizeof *next);
  unroll_map *map;
  assert_true(x && next);
  memcpy(x + I, one, (size_t)I * sizeof *x); /* after a step of zeros */
  assert_ok(unroll_map_of_layer(&n->net, l, d, x, 2, dev, NULL, &map, &err));
  assert_int_equal(unroll_map_count(map), N);
  for (int64_t t = 1; t < 4; t += 2) {
    assert_ok(unroll_map_step(map, t, state, next, NULL, &err));
    compare(n, "map_next", l, d, UNROLL_F64, next, N);
    assert_ok(unroll_map_step(map, t, state, next, next + N, &err));
    compare(n, "map_next", l, d, UNROLL_F64, next, N);
    compare(n, "jacobian", l, d, UNROLL_F64, next + N, N * N);
  }
  check_products(n, map, l, d, state, 1);
  check_products(n, map, l, d, state, 3);
  /* A step of zeros is that of no input at all. */
  double *const still = calloc((size_t)(2 * N), sizeof *still);
  unroll_map *alone;
  assert_non_null(still);
  assert_ok(unroll_map_of_layer(&n->net, l, d, NULL, 0, dev, NULL, &alone, &err));
  assert_ok(unroll_map_step(map, 2, state, still, NULL, &err));
  assert_ok(unroll_map_step(alone, 7, state, still + N, NULL, &err));
  assert_close(name, still + N, still, N, 1e-14);
  unroll_map_destroy(alone);
  unroll_map_destroy(map);
  free(still);
  free(one);
  free(x);
  free(state);
  free(next);
}

static void every_file(void **state, void (*check)(const inside *n, unroll_device *dev, int32_t dtype), int n_dtypes) {
  static const int32_t dtypes[] = {UNROLL_F64, UNROLL_F32};
  uint32_t n;
  char **names = golden_list("inside_", &n);
  for (uint32_t i = 0; i < n; i++) {
    inside one;
    inside_open(&one, names[i]);
    for (int k = 0; k < n_dtypes; k++)
      FOR_EACH_DEVICE(dev, *state, dtypes[k]) {
        check(&one, dev, dtypes[k]);
      }
    inside_close(&one);
  }
  golden_list_free(names, n);
}

static void check_maps(const inside *n, unroll_device *dev, int32_t dtype) {
  (void)dtype;
  for (int32_t l = 0; l < n->options.layers; l++)
    for (int32_t d = 0; d < (n->options.bidirectional ? 2 : 1); d++)
      check_map(n, dev, l, d);
}

static void gates_and_states(void **state) { every_file(state, check_activity, 2); }
static void maps_and_jacobians(void **state) { every_file(state, check_maps, 1); }

int main(void) {
  const struct CMUnitTest tests[] = {DEVICE_TESTS(gates_and_states), DEVICE_TESTS(maps_and_jacobians)};
  return cmocka_run_group_tests(tests, devices_open, devices_close);
}
