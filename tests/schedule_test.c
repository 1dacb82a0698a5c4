/* SPDX-License-Identifier: Apache-2.0 */
/* Learning-rate schedules against PyTorch's (golden/make.py: schedules), and against values worked out by hand. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <unroll/io.h>
#include <unroll/train.h>

#define EPOCHS 11

static unroll_safetensors *golden;

static int open_golden(void **state) {
  (void)state;
  char path[512];
  const char *source = getenv("UNROLL_SOURCE_DIR");
  unroll_error err = UNROLL_ERROR_INIT;
  snprintf(path, sizeof path, "%s/tests/golden/schedules.safetensors", source ? source : ".");
  if (unroll_safetensors_open(path, NULL, &golden, &err) == UNROLL_OK)
    return 0;
  print_error("%s\n", err.message);
  return 1;
}

static int close_golden(void **state) {
  (void)state;
  unroll_safetensors_close(golden);
  return 0;
}

static double option(const char *key) {
  const char *value = unroll_safetensors_metadata(golden, key);
  assert_non_null(value);
  return strtod(value, NULL);
}

/* Both sides take a dozen operations in double, each off by 2^-53 of at most 0.1. */
static void assert_rates(const unroll_schedule *s, const char *name) {
  unroll_stored_tensor expected;
  assert_int_equal(unroll_safetensors_find(golden, name, &expected, NULL), UNROLL_OK);
  assert_int_equal(expected.dtype, UNROLL_F64);
  assert_int_equal(expected.shape[0], EPOCHS);
  double rates[EPOCHS];
  memcpy(rates, expected.data, sizeof rates);
  for (int e = 0; e < EPOCHS; e++) {
    const double rate = unroll_schedule_rate(s, e);
    if (!(fabs(rate - rates[e]) <= 1e-15))
      print_error("%s, epoch %d: %.17g, PyTorch has %.17g\n", name, e, rate, rates[e]);
    assert_true(fabs(rate - rates[e]) <= 1e-15);
  }
}

static void exponential_is_pytorchs(void **state) {
  (void)state;
  const unroll_schedule s = {
      .kind = UNROLL_SCHEDULE_EXPONENTIAL, .base = option("lr"), .decay = option("gamma"), .minimum = -7, .total = -7};
  assert_rates(&s, "exponential");
}

static void cosine_is_pytorchs(void **state) {
  (void)state;
  const unroll_schedule s = {.kind = UNROLL_SCHEDULE_COSINE,
                             .base = option("lr"),
                             .decay = -7,
                             .minimum = option("eta_min"),
                             .total = option("T_max")};
  assert_rates(&s, "cosine");
  assert_true(unroll_schedule_rate(&s, s.total) == s.minimum);
  /* Beyond its end the cosine would rise again. */
  assert_true(unroll_schedule_rate(&s, s.total + 3.5) == s.minimum);
  /* A quarter of the way: (1 + sqrt(1/2))/2 of the distance. */
  const double quarter = s.minimum + (s.base - s.minimum) * 0.85355339059327373;
  assert_true(fabs(unroll_schedule_rate(&s, s.total / 4) - quarter) <= 1e-15);
}

static void time_based_is_the_formula(void **state) {
  (void)state;
  const unroll_schedule s = {.kind = UNROLL_SCHEDULE_TIME, .base = 0.5, .decay = 0.25};
  assert_true(unroll_schedule_rate(&s, 0) == 0.5);
  assert_true(unroll_schedule_rate(&s, 4) == 0.25);   /* 0.5 / (1 + 1) */
  assert_true(unroll_schedule_rate(&s, 12) == 0.125); /* 0.5 / (1 + 3) */
}

static void constant_stays(void **state) {
  (void)state;
  const unroll_schedule s = {.kind = UNROLL_SCHEDULE_CONSTANT, .base = 0.3, .decay = -1, .minimum = 9, .total = -1};
  assert_true(unroll_schedule_rate(&s, 0) == 0.3);
  assert_true(unroll_schedule_rate(&s, 1e6) == 0.3);
}

static void names_are_those_of_the_command(void **state) {
  (void)state;
  assert_string_equal(unroll_schedule_name(UNROLL_SCHEDULE_CONSTANT), "constant");
  assert_string_equal(unroll_schedule_name(UNROLL_SCHEDULE_TIME), "time");
  assert_string_equal(unroll_schedule_name(UNROLL_SCHEDULE_EXPONENTIAL), "exponential");
  assert_string_equal(unroll_schedule_name(UNROLL_SCHEDULE_COSINE), "cosine");
  assert_null(unroll_schedule_name(-1));
  assert_null(unroll_schedule_name(UNROLL_SCHEDULE_COUNT));
}

static void what_is_out_of_range_is_named(void **state) {
  (void)state;
  const struct {
    unroll_schedule schedule;
    const char *words;
  } cases[] = {
      {{.kind = 4, .base = 1}, "kind 4"},
      {{.kind = -1, .base = 1}, "kind -1"},
      {{.kind = UNROLL_SCHEDULE_CONSTANT, .base = 0}, "learning rate 0"},
      {{.kind = UNROLL_SCHEDULE_CONSTANT, .base = -0.5}, "learning rate -0.5"},
      {{.kind = UNROLL_SCHEDULE_CONSTANT, .base = (double)NAN}, "learning rate"},
      {{.kind = UNROLL_SCHEDULE_CONSTANT, .base = (double)INFINITY}, "learning rate inf"},
      {{.kind = UNROLL_SCHEDULE_TIME, .base = 1, .decay = -0.25}, "decay -0.25"},
      {{.kind = UNROLL_SCHEDULE_EXPONENTIAL, .base = 1, .decay = 0}, "decay 0"},
      {{.kind = UNROLL_SCHEDULE_EXPONENTIAL, .base = 1, .decay = 1.5}, "decay 1.5"},
      {{.kind = UNROLL_SCHEDULE_COSINE, .base = 1, .minimum = 2, .total = 1}, "minimum 2"},
      {{.kind = UNROLL_SCHEDULE_COSINE, .base = 1, .minimum = -2, .total = 1}, "minimum -2"},
      {{.kind = UNROLL_SCHEDULE_COSINE, .base = 1, .total = 0}, "total of 0 epochs"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    unroll_error err = UNROLL_ERROR_INIT;
    assert_int_equal(unroll_schedule_check(&cases[i].schedule, &err), UNROLL_E_INVALID);
    if (!strstr(err.message, cases[i].words))
      print_error("'%s' lacks '%s'\n", err.message, cases[i].words);
    assert_non_null(strstr(err.message, cases[i].words));
    assert_true(isnan(unroll_schedule_rate(&cases[i].schedule, 1)));
  }
  const unroll_schedule good = {.kind = UNROLL_SCHEDULE_CONSTANT, .base = 1};
  assert_true(isnan(unroll_schedule_rate(&good, -1)));
  assert_true(isnan(unroll_schedule_rate(&good, (double)NAN)));
  assert_int_equal(unroll_schedule_check(NULL, NULL), UNROLL_E_INVALID);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(exponential_is_pytorchs),        cmocka_unit_test(cosine_is_pytorchs),
      cmocka_unit_test(time_based_is_the_formula),      cmocka_unit_test(constant_stays),
      cmocka_unit_test(names_are_those_of_the_command), cmocka_unit_test(what_is_out_of_range_is_named),
  };
  return cmocka_run_group_tests(tests, open_golden, close_golden);
}
