/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Linear recurrences, by every way that a device has (one work-item for all steps, chunks of steps), against a loop in long
 * double; and the law that a sequence in pieces is the whole one.
 */
#include "devices.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SHAPE(...) \
  (int32_t)(sizeof((const int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (const int64_t[]) { __VA_ARGS__ }

typedef struct scan_data {
  int64_t T, B, N;
  int32_t direction;
  double *a, *b, *h0, *dy, *dlast; /* what stands past a sequence's end is NaN */
  int32_t *lengths;
  double *y, *last, *da, *db, *dh0; /* worked out here */
} scan_data;

static double *numbers(int64_t n, double lo, double hi, uint64_t seed) {
  double *x = malloc((size_t)n * sizeof *x);
  assert_non_null(x);
  for (int64_t i = 0; i < n; i++) {
    seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407); /* Knuth, MMIX */
    x[i] = lo + (hi - lo) * (double)(seed >> 40) * 0x1p-24;
  }
  return x;
}

static scan_data make_data(int64_t T, int64_t B, int64_t N, int32_t direction, bool is_ragged) {
  const int64_t n = T * B * N;
  scan_data d = {T,
                 B,
                 N,
                 direction,
                 .a = numbers(n, -0.3, 0.99, 1),
                 .b = numbers(n, -0.5, 1.5, 2),
                 .h0 = numbers(B * N, -1, 2, 3),
                 .dy = numbers(n, -1.5, 0.5, 4),
                 .dlast = numbers(B * N, 0.5, 1, 5),
                 .lengths = calloc((size_t)B, sizeof *d.lengths),
                 .y = numbers(n, 0, 0, 0),
                 .da = numbers(n, 0, 0, 0),
                 .db = numbers(n, 0, 0, 0),
                 .last = numbers(B * N, 0, 0, 0),
                 .dh0 = numbers(B * N, 0, 0, 0)};
  assert_non_null(d.lengths);
  for (int64_t b = 0; b < B; b++) /* T, 0, and between */
    d.lengths[b] = (int32_t)(!is_ragged || b == 0 ? T : b == 1 ? 0 : T * (b + 2) / (2 * B + 3));
  for (int64_t i = 0; i < n; i++)
    if (i / (B * N) >= d.lengths[i / N % B])
      d.a[i] = d.b[i] = d.dy[i] = (double)NAN;
  for (int64_t lane = 0; lane < B * N; lane++) {
    const int64_t steps = d.lengths[lane / N], W = B * N;
    long double h = d.h0[lane], back = d.dlast[lane];
    for (int64_t s = 0; s < steps; s++) {
      const int64_t i = (direction == UNROLL_REVERSE ? steps - 1 - s : s) * W + lane;
      h = d.a[i] * h + d.b[i];
      d.y[i] = (double)h;
    }
    d.last[lane] = (double)h;
    for (int64_t s = steps - 1; s >= 0; s--) {
      const bool reverse = direction == UNROLL_REVERSE;
      const int64_t i = (reverse ? steps - 1 - s : s) * W + lane;
      const long double g = d.dy[i] + back;
      d.db[i] = (double)g;
      d.da[i] = (double)(g * (long double)(s == 0 ? d.h0[lane] : d.y[reverse ? i + W : i - W]));
      back = d.a[i] * g;
    }
    d.dh0[lane] = (double)back;
  }
  return d;
}

static void free_data(scan_data *d) {
  double *all[] = {d->a, d->b, d->h0, d->dy, d->dlast, d->y, d->last, d->da, d->db, d->dh0};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++)
    free(all[i]);
  free(d->lengths);
}

static unroll_graph *make_graph(const scan_data *d, int32_t dtype, bool is_ragged, int64_t steps) {
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_graph *g;
  assert_status(UNROLL_OK, unroll_graph_create(NULL, &g, &err));
  const int64_t T = steps ? steps : d->T;
  const unroll_tensor a = unroll_input(g, "a", dtype, SHAPE(T, d->B, d->N)),
                      b = unroll_input(g, "b", dtype, SHAPE(T, d->B, d->N)),
                      h0 = unroll_input(g, "h0", dtype, SHAPE(d->B, d->N)),
                      lengths = is_ragged ? unroll_input(g, "lengths", UNROLL_I32, SHAPE(d->B)) : unroll_none();
  unroll_tensor out[2], dx[3];
  out[0] = unroll_linear_scan(a, b, h0, lengths, d->direction, &out[1]);
  unroll_output(out[0], "y");
  unroll_output(out[1], "last");
  if (!steps) {
    const unroll_tensor dy[2] = {unroll_input(g, "dy", dtype, SHAPE(T, d->B, d->N)),
                                 unroll_input(g, "dlast", dtype, SHAPE(d->B, d->N))};
    unroll_vjp(out, dy, 2, (unroll_tensor[]){a, b, h0}, 3, dx);
    unroll_output(dx[0], "da");
    unroll_output(dx[1], "db");
    unroll_output(dx[2], "dh0");
  }
  assert_status(UNROLL_OK, unroll_graph_status(g, &err));
  return g;
}

/* Two roundings a step, of which 0.99^k is left after k: 200 of 2^-24, or of 2^-53, in all. */
static void check(model *m, const char *name, const double *want, int64_t n, int32_t dtype, const char *what) {
  char text[96];
  (void)snprintf(text, sizeof text, "%s: %s", what, name);
  double *got = model_get(m, name, n);
  assert_close(text, got, want, n, dtype == UNROLL_F32 ? 1.2e-5 : 2.3e-14);
  free(got);
}

static void check_all(unroll_device *dev, int32_t dtype, int64_t T, int64_t B, int64_t N, int32_t form) {
  const bool is_ragged = form & 1;
  scan_data d = make_data(T, B, N, form >> 1, is_ragged);
  unroll_graph *g = make_graph(&d, dtype, is_ragged, 0);
  model m = model_open(g, dev, true);
  const int64_t n = T * B * N;
  char what[80];
  (void)snprintf(what, sizeof what, "%s, %dx%dx%d form %d", unroll_device_id(dev), (int)T, (int)B, (int)N, (int)form);
  model_put(&m, "a", d.a, n);
  model_put(&m, "b", d.b, n);
  model_put(&m, "h0", d.h0, B * N);
  model_put(&m, "dy", d.dy, n);
  model_put(&m, "dlast", d.dlast, B * N);
  if (is_ragged)
    model_put_i32(&m, "lengths", d.lengths, B);
  model_run(&m);
  check(&m, "y", d.y, n, dtype, what);
  check(&m, "last", d.last, B * N, dtype, what);
  check(&m, "da", d.da, n, dtype, what);
  check(&m, "db", d.db, n, dtype, what);
  check(&m, "dh0", d.dh0, B * N, dtype, what);
  model_close(&m);
  unroll_graph_destroy(g);
  free_data(&d);
}

static void against_a_loop(void **state) {
  static const int64_t sizes[][3] = {{3, 5, 7}, {1, 3, 1}, {700, 3, 1}, {259, 4, 3}, {40, 3, 1700}};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
    for (int32_t form = 0; form < 4; form++) {
      FOR_EACH_DEVICE(dev, *state, UNROLL_F32)
        check_all(dev, UNROLL_F32, sizes[i][0], sizes[i][1], sizes[i][2], form);
      FOR_EACH_DEVICE(dev, *state, UNROLL_F64)
        check_all(dev, UNROLL_F64, sizes[i][0], sizes[i][1], sizes[i][2], form);
    }
}

/* The state goes from piece to piece; the bits are those of the whole, one step at a time too. */
static void pieces(void **state) {
  static const int64_t piece[] = {1, 5, 10};
  scan_data d = make_data(20, 3, 33, UNROLL_FORWARD, false);
  const int64_t W = d.B * d.N;
  FOR_EACH_DEVICE(dev, *state, UNROLL_F32) {
    unroll_graph *g = make_graph(&d, UNROLL_F32, false, d.T);
    model whole = model_open(g, dev, true);
    model_put(&whole, "a", d.a, d.T * W);
    model_put(&whole, "b", d.b, d.T * W);
    model_put(&whole, "h0", d.h0, W);
    model_run(&whole);
    double *want = model_get(&whole, "y", d.T * W);
    for (size_t k = 0; k < sizeof piece / sizeof *piece; k++) {
      unroll_graph *part = make_graph(&d, UNROLL_F32, false, piece[k]);
      model m = model_open(part, dev, true);
      model_put(&m, "h0", d.h0, W);
      for (int64_t t = 0; t < d.T; t += piece[k]) {
        model_put(&m, "a", d.a + t * W, piece[k] * W);
        model_put(&m, "b", d.b + t * W, piece[k] * W);
        model_run(&m);
        double *y = model_get(&m, "y", piece[k] * W), *last = model_get(&m, "last", W);
        assert_memory_equal(want + t * W, y, (size_t)(piece[k] * W) * sizeof *y);
        model_put(&m, "h0", last, W);
        free(y);
        free(last);
      }
      model_close(&m);
      unroll_graph_destroy(part);
    }
    free(want);
    model_close(&whole);
    unroll_graph_destroy(g);
  }
  free_data(&d);
}

int main(void) {
  const struct CMUnitTest tests[] = {DEVICE_TESTS(against_a_loop), DEVICE_TESTS(pieces)};
  return cmocka_run_group_tests(tests, devices_open, devices_close);
}
