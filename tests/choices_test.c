/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random numbers, elements by id, the largest, samples: what comes out against philox.h and numbers worked out by hand. The
 * judge compares backends with the reference; here the reference too has to be right.
 */
#include "devices.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unroll/philox.h>

#define SHAPE(...) \
  (int32_t)(sizeof((const int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (const int64_t[]) { __VA_ARGS__ }
enum { T = 5, B = 3, R = 20001 };

static unroll_graph *make_graph(void) {
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_graph *g;
  assert_status(UNROLL_OK, unroll_graph_create(NULL, &g, &err));
  return g;
}

static model open_at(unroll_graph *g, unroll_device *dev, int64_t t0, int64_t row0) {
  unroll_error err = UNROLL_ERROR_INIT;
  assert_status(UNROLL_OK, unroll_graph_status(g, &err));
  model m = model_open(g, dev, true);
  m.options.seed = 77;
  m.options.update = 4;
  m.options.t0 = t0;
  m.options.row0 = row0;
  return m;
}

/* Sites count in the order of calls: 0 uniform, 1 normal; of the scan's steps 2 and 3; of the one step 4. */
static void check_numbers(unroll_device *dev, int32_t dtype) {
  const int64_t t0 = INT64_C(0x100000007), row0 = 11;
  unroll_graph *g = make_graph();
  unroll_output(unroll_random(g, UNROLL_RANDOM_UNIFORM, dtype, SHAPE(T, B, R)), "u");
  unroll_output(unroll_random(g, UNROLL_RANDOM_NORMAL, dtype, SHAPE(T, B, R)), "z");
  unroll_scan *s = unroll_scan_begin(g, UNROLL_REVERSE, unroll_none());
  unroll_scan_steps(s, T);
  unroll_graph *body = unroll_scan_body(s);
  const unroll_tensor u = unroll_scan_output(s, unroll_random(body, UNROLL_RANDOM_UNIFORM, dtype, SHAPE(B, 3, 7)));
  const unroll_tensor z = unroll_scan_output(s, unroll_random(body, UNROLL_RANDOM_NORMAL, dtype, SHAPE(B, 3, 7)));
  unroll_scan_end(s);
  unroll_output(u, "u steps");
  unroll_output(z, "z steps");
  unroll_output(unroll_random_step(g, UNROLL_RANDOM_NORMAL, dtype, SHAPE(B, 9)), "z once");
  model m = open_at(g, dev, t0, row0);
  model_run(&m);
  const struct {
    const char *name;
    uint32_t site;
    bool is_normal;
    int64_t steps, units;
  } made[] = {{"u", 0, false, T, R},
              {"z", 1, true, T, R},
              {"u steps", 2, false, T, 21},
              {"z steps", 3, true, T, 21},
              {"z once", 4, true, 1, 9}};
  for (size_t k = 0; k < sizeof made / sizeof *made; k++) {
    const unroll_philox_key key = unroll_philox_site_key(77, 4, made[k].site);
    double *got = model_get(&m, made[k].name, made[k].steps * B * made[k].units), worst = 0;
    for (int64_t i = 0; i < made[k].steps * B * made[k].units; i++) {
      const int64_t row = i / made[k].units;
      const uint64_t t = (uint64_t)(t0 + row / B);
      const uint32_t b = (uint32_t)(row0 + row % B), j = (uint32_t)(i % made[k].units);
      if (!made[k].is_normal) {
        assert_true(got[i] == (double)unroll_uniform(unroll_philox_word(key, t, b, j)));
        continue;
      }
      const double want = unroll_normal(key, t, b, j);
      const double ulp = dtype == UNROLL_F32 ? (double)(nextafterf((float)fabs(want), INFINITY) - (float)fabs(want))
                                             : nextafter(fabs(want), (double)INFINITY) - fabs(want);
      worst = fmax(worst, fabs(got[i] - want) / ulp);
    }
    if (!(worst <= (dtype == UNROLL_F32 ? 4 : 8))) /* plugin.h, RANDOM */
      fail_msg("%s on %s: off by %g ulp", made[k].name, unroll_device_id(dev), worst);
    free(got);
  }
  model_close(&m);
  unroll_graph_destroy(g);
}

static void numbers(void **state) {
  FOR_EACH_DEVICE(dev, *state, UNROLL_F32)
    check_numbers(dev, UNROLL_F32);
  FOR_EACH_DEVICE(dev, *state, UNROLL_F64)
    check_numbers(dev, UNROLL_F64);
}

static void by_id_and_largest(void **state) {
  const double x[8] = {2, (double)NAN, 5, 5, -1, 0, -0.0, 7}, dy[6] = {1, 2, 4, 8, 16, 32};
  const int32_t ids[6] = {3, -1, 0, 1, 4, 3};
  FOR_EACH_DEVICE(dev, *state, UNROLL_F32) {
    unroll_graph *g = make_graph();
    const unroll_tensor t = unroll_input(g, "x", UNROLL_F32, SHAPE(2, 4)),
                        d = unroll_input(g, "dy", UNROLL_F32, SHAPE(2, 3)),
                        i = unroll_input(g, "ids", UNROLL_I32, SHAPE(2, 3));
    const unroll_tensor y = unroll_gather(t, i);
    unroll_tensor dx, values, best;
    unroll_vjp(&y, &d, 1, &t, 1, &dx);
    unroll_top_k(t, 3, &values, &best);
    unroll_output(y, "y");
    unroll_output(dx, "dx");
    unroll_output(values, "values");
    unroll_output(unroll_cast(best, UNROLL_F32), "best");
    model m = open_at(g, dev, 0, 0);
    model_put(&m, "x", x, 8);
    model_put(&m, "dy", dy, 6);
    model_put_i32(&m, "ids", ids, 6);
    model_run(&m);
    double *got = model_get(&m, "y", 6);
    assert_true(got[0] == 5 && isnan(got[1]) && got[2] == 2 && got[3] == 0 && isnan(got[4]) && got[5] == 7);
    free(got);
    got = model_get(&m, "dx", 8);
    assert_memory_equal(((double[]){4, 0, 0, 1, 0, 8, 0, 32}), got, 8 * sizeof *got);
    free(got);
    got = model_get(&m, "best", 6);
    assert_memory_equal(((double[]){1, 2, 3, 3, 1, 2}), got, 6 * sizeof *got);
    free(got);
    got = model_get(&m, "values", 6);
    assert_true(isnan(got[0]) && got[1] == 5 && got[2] == 5 && got[3] == 7 && got[4] == 0 && got[5] == 0);
    free(got);
    model_close(&m);
    unroll_graph_destroy(g);
  }
}

/*
 * Logits of the weights 1, 3, e^-1, 3, 3. The two largest, ties by index, are 1 and 3, at even odds; and they are the smallest
 * set that has 0.55 of all, which is 5.7 of 10.37, or 0.6 of the three largest, which is 5.4 of 9. 0.3 of all has 1 alone.
 */
static void nucleus(void **state) {
  enum { ROWS = 500 };
  static double logits[ROWS][5];
  const struct {
    int64_t top_k;
    double top_p;
    bool alone;
  } forms[] = {{2, 0, false}, {0, 0.55, false}, {2, 0.99, false}, {3, 0.6, false}, {0, 0.28, true}, {2, 0.5, true}};
  enum { FORMS = sizeof forms / sizeof *forms };
  for (int i = 0; i < ROWS; i++)
    memcpy(logits[i], (const double[]){0, log(3), -1, log(3), log(3)}, sizeof logits[i]);
  FOR_EACH_DEVICE(dev, *state, UNROLL_F32) {
    unroll_graph *g = make_graph();
    const unroll_tensor x = unroll_input(g, "x", UNROLL_F32, SHAPE(ROWS, 5));
    char name[FORMS][8];
    for (int f = 0; f < FORMS; f++) {
      (void)snprintf(name[f], sizeof name[f], "y%d", f);
      unroll_output(unroll_cast(unroll_categorical_top_p(x, forms[f].top_k, forms[f].top_p), UNROLL_F32), name[f]);
    }
    model m = open_at(g, dev, 3, 11);
    model_put(&m, "x", logits[0], (int64_t)ROWS * 5);
    model_run(&m);
    for (int f = 0; f < FORMS; f++) {
      const unroll_philox_key key = unroll_philox_site_key(77, 4, (uint32_t)f);
      double *y = model_get(&m, name[f], ROWS);
      for (int i = 0; i < ROWS; i++) {
        const float u = unroll_uniform(unroll_philox_word(key, 3, 11 + (uint32_t)i, 0));
        assert_int_equal(forms[f].alone || u < 0.5f ? 1 : 3, (int)y[i]);
      }
      free(y);
    }
    model_close(&m);
    unroll_graph_destroy(g);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {DEVICE_TESTS(numbers), DEVICE_TESTS(by_id_and_largest), DEVICE_TESTS(nucleus)};
  return cmocka_run_group_tests(tests, devices_open, devices_close);
}
