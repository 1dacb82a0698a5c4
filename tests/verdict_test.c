/* SPDX-License-Identifier: Apache-2.0 */
/* Every rule of a verdict, on both sides of its limits. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>
#include <unroll/verdict.h>

static unroll_finding found[UNROLL_MOST_FINDINGS];

static unroll_layer_figures plain(int32_t cell) {
  unroll_layer_figures f = unroll_layer_figures_none();
  f.cell = cell;
  f.steps = 100;
  return f;
}

static void expect(const unroll_layer_figures *f, int32_t level, const char *what, const char *text,
                   const char *advice) {
  assert_int_equal(unroll_layer_verdict(f, found), 1);
  assert_string_equal(found[0].what, what);
  assert_int_equal(found[0].level, level);
  if (!strstr(found[0].text, text) || !strstr(found[0].advice, advice))
    fail_msg("'%s' or '%s' is not in '%s; %s'", text, advice, found[0].text, found[0].advice);
}

static void expect_nothing(const unroll_layer_figures *f) { assert_int_equal(unroll_layer_verdict(f, found), 0); }

static void nothing_measured_nothing_said(void **state) {
  (void)state;
  const unroll_layer_figures f = plain(UNROLL_CELL_LSTM);
  expect_nothing(&f);
  assert_int_equal(unroll_layer_verdict(NULL, found), 0);
  assert_string_equal(unroll_level_name(UNROLL_LEVEL_WARNING), "warning");
  assert_null(unroll_level_name(3));
}

static void vanishing(void **state) {
  (void)state;
  unroll_layer_figures f = plain(UNROLL_CELL_RNN);
  f.memory = 23;
  f.radius = 0.61;
  expect(&f, UNROLL_LEVEL_BAD, "vanishing", "gradients vanish after 23 of 100 steps: W_hh has spectral radius 0.61",
         "try orthogonal initialisation or an LSTM");
  f.memory = 25;
  f.radius = 1.2;
  f.saturated = 0.44;
  expect(&f, UNROLL_LEVEL_WARNING, "vanishing", "spectral radius 1.20, but 44% of the states stand at their ends",
         "try an LSTM or a GRU");
  f.saturated = 0.04;
  expect(&f, UNROLL_LEVEL_WARNING, "vanishing", "25 of 100 steps, although W_hh has spectral radius 1.20", "");
  f.memory = 99;
  f.saturated = (double)NAN;
  expect(&f, UNROLL_LEVEL_WARNING, "vanishing", "99 of 100", "");
  f.cell = UNROLL_CELL_LSTM;
  expect(&f, UNROLL_LEVEL_WARNING, "vanishing", "after 99 of 100 steps", "biases of the forget gate");
  f.cell = UNROLL_CELL_GRU;
  expect(&f, UNROLL_LEVEL_WARNING, "vanishing", "after 99 of 100 steps", "biases of the update gate");
}

static void remembers(void **state) {
  (void)state;
  unroll_layer_figures f = plain(UNROLL_CELL_LSTM);
  f.memory = 100;
  expect(&f, UNROLL_LEVEL_GOOD, "remembers", "back over all 100 steps", "");
  f.time_constant = 140;
  expect(&f, UNROLL_LEVEL_GOOD, "remembers", "the slowest forget gate keeps for 140", "");
  f.cell = UNROLL_CELL_GRU_AFTER;
  expect(&f, UNROLL_LEVEL_GOOD, "remembers", "the slowest update gate", "");
  f = plain(UNROLL_CELL_RNN);
  f.memory = INT64_MAX;
  f.radius = 1;
  expect(&f, UNROLL_LEVEL_GOOD, "remembers", "spectral radius 1.00", "");
  f.radius = 1e100;
  expect(&f, UNROLL_LEVEL_GOOD, "remembers", "spectral radius 1e+100", "");
  f.growth = 11; /* but not so */
  expect(&f, UNROLL_LEVEL_WARNING, "exploding", "", "");
}

static void exploding(void **state) {
  (void)state;
  unroll_layer_figures f = plain(UNROLL_CELL_RNN);
  f.growth = 10;
  expect_nothing(&f);
  f.growth = 10.5;
  f.radius = 1.4;
  expect(&f, UNROLL_LEVEL_WARNING, "exploding", "spectral radius 1.4", "clip the gradients");
  f.growth = (double)INFINITY;
  expect(&f, UNROLL_LEVEL_BAD, "exploding", "grow by up to inf", "clip");
}

static void forgetful(void **state) {
  (void)state;
  unroll_layer_figures f = plain(UNROLL_CELL_LSTM);
  f.time_constant = 25;
  expect_nothing(&f);
  f.time_constant = 24.9;
  expect(&f, UNROLL_LEVEL_WARNING, "forgetful", "even the slowest forget gate keeps for only 24.9 of 100 steps",
         "ln(100) = 4.6");
  f.cell = UNROLL_CELL_GRU;
  expect(&f, UNROLL_LEVEL_WARNING, "forgetful", "even the slowest update gate", "update gate");
  f.memory = 100; /* something else remembers */
  expect(&f, UNROLL_LEVEL_GOOD, "remembers", "", "");
}

static void dead(void **state) {
  (void)state;
  unroll_layer_figures f = plain(UNROLL_CELL_RNN);
  f.dead = 0.1;
  expect_nothing(&f);
  f.dead = 0.11;
  expect(&f, UNROLL_LEVEL_WARNING, "dead", "11% of the ReLU units", "biases above 0");
  f.dead = 0.51;
  expect(&f, UNROLL_LEVEL_BAD, "dead", "51%", "");
}

static void saturated(void **state) {
  (void)state;
  unroll_layer_figures f = plain(UNROLL_CELL_GRU);
  f.saturated = 0.5;
  f.saturated_gate = "candidate";
  expect_nothing(&f);
  f.saturated = 0.51;
  expect(&f, UNROLL_LEVEL_WARNING, "saturated", "51% of the values of gate 'candidate'", "scale the inputs");
  f.saturated = 0.81;
  expect(&f, UNROLL_LEVEL_BAD, "saturated", "81%", "");
}

static void chaotic_or_marginal(void **state) {
  (void)state;
  unroll_layer_figures f = plain(UNROLL_CELL_RNN);
  f.exponent = 0.053; /* of tanh(1.5·J·h), J 100×100 */
  f.exponent_error = 3e-4;
  expect(&f, UNROLL_LEVEL_WARNING, "chaotic", "by e in 18.9 steps", "shrink W_hh");
  f.exponent_error = 0.02; /* not sure any more */
  expect(&f, UNROLL_LEVEL_GOOD, "marginal", "edge of chaos", "");
  f.exponent = -9e-4;
  f.exponent_error = (double)NAN;
  expect(&f, UNROLL_LEVEL_GOOD, "marginal", "", "");
  f.exponent = -0.0101;
  f.exponent_error = 3e-3;
  expect_nothing(&f);
}

static void not_finite(void **state) {
  (void)state;
  unroll_layer_figures f = plain(UNROLL_CELL_LSTM);
  f.nonfinite = 0;
  expect_nothing(&f);
  f.nonfinite = 3;
  f.nonfinite_first = "the forget gate of layer 0, forward, step 7, sequence 2, unit 4 became NaN";
  expect(&f, UNROLL_LEVEL_BAD, "nonfinite",
         "3 numbers are not finite, the first: the forget gate of layer 0, forward, step 7", "last saved model");
  f.nonfinite_first = "input x, step 5, sequence 1, unit 0 is inf";
  expect(&f, UNROLL_LEVEL_BAD, "nonfinite", "the first: input x, step 5", "look for it in the data");
}

static void the_gravest_first(void **state) {
  (void)state;
  unroll_layer_figures f = plain(UNROLL_CELL_LSTM);
  f.memory = 70;
  f.time_constant = 10;
  f.saturated = 0.9;
  f.exponent = 0;
  f.exponent_error = 1e-4;
  assert_int_equal(unroll_layer_verdict(&f, found), 4);
  const char *const order[] = {"saturated", "vanishing", "forgetful", "marginal"};
  for (int i = 0; i < 4; i++)
    assert_string_equal(found[i].what, order[i]);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(nothing_measured_nothing_said),
      cmocka_unit_test(vanishing),
      cmocka_unit_test(remembers),
      cmocka_unit_test(exploding),
      cmocka_unit_test(forgetful),
      cmocka_unit_test(dead),
      cmocka_unit_test(saturated),
      cmocka_unit_test(chaotic_or_marginal),
      cmocka_unit_test(not_finite),
      cmocka_unit_test(the_gravest_first),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
