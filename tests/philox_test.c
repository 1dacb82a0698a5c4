/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>
#include <unroll/philox.h>

/* Random123, file kat_vectors, philox4x32 of 10 rounds. */
static void known_answers(void **state) {
  (void)state;
  static const struct {
    uint32_t ctr[4], key[2], out[4];
  } vectors[] = {
      {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
      {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
       {0xffffffff, 0xffffffff},
       {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
      {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
       {0xa4093822, 0x299f31d0},
       {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
  };
  for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++) {
    uint32_t out[4] = {0};
    unroll_philox_block(vectors[i].ctr, vectors[i].key, out);
    assert_memory_equal(out, vectors[i].out, sizeof out);
  }
  uint32_t in_place[4] = {0};
  unroll_philox_block(in_place, vectors[0].key, in_place);
  assert_memory_equal(in_place, vectors[0].out, sizeof in_place);
}

/* The layout's vectors in philox.h, from a second implementation in Python's integers. */
static void layout(void **state) {
  (void)state;
  static const struct {
    uint32_t unit, word;
    float uniform;
    double normal;
  } vectors[] = {
      {0, 0x83b3f18e, 0x1.0767e2p-1f, -1.152869335529422},
      {5, 0x30ae3080, 0x1.857180p-3f, 1.9685690584356716},
      {6, 0x9f90aa4d, 0x1.3f2154p-1f, 1.8933377632447006},
      {7, 0x1f6109f7, 0x1.f61090p-4f, -0.04770336910543527},
  };
  const unroll_philox_key key = unroll_philox_site_key(UINT64_C(0x0123456789abcdef), UINT64_C(0x100000002), 7);
  assert_int_equal(key.k[0], 0x040245d5);
  assert_int_equal(key.k[1], 0x3414356d);
  for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++) {
    const uint64_t t = UINT64_C(0x500000003);
    const uint32_t word = unroll_philox_word(key, t, 9, vectors[i].unit);
    assert_int_equal(word, vectors[i].word);
    assert_true(unroll_uniform(word) == vectors[i].uniform);
    /* sqrt, log and cos are good to an ulp or two each; every number here is below 2 in magnitude. */
    assert_true(fabs(unroll_normal(key, t, 9, vectors[i].unit) - vectors[i].normal) < 4 * 2.3e-16);
  }
}

/* Each coordinate, and each half of the wide ones, gives other numbers: no two of these words are equal. */
static void every_coordinate_counts(void **state) {
  (void)state;
  const uint64_t high = UINT64_C(1) << 32;
  const struct {
    uint64_t seed, update;
    uint32_t site;
    uint64_t t;
    uint32_t row, unit;
  } places[] = {
      {0, 0, 0, 0, 0, 0}, {1, 0, 0, 0, 0, 0}, {high, 0, 0, 0, 0, 0}, {0, 1, 0, 0, 0, 0}, {0, high, 0, 0, 0, 0},
      {0, 0, 1, 0, 0, 0}, {0, 0, 0, 1, 0, 0}, {0, 0, 0, high, 0, 0}, {0, 0, 0, 0, 1, 0}, {0, 0, 0, 0, 0, 1},
      {0, 0, 0, 0, 0, 2}, {0, 0, 0, 0, 0, 3}, {0, 0, 0, 0, 0, 4},    {0, 0, 0, 0, 4, 0}, {0, 0, 0, 4, 0, 0},
  };
  enum { COUNT = sizeof places / sizeof *places };
  uint32_t words[COUNT];
  double normals[COUNT];
  for (int i = 0; i < COUNT; i++) {
    const unroll_philox_key key = unroll_philox_site_key(places[i].seed, places[i].update, places[i].site);
    words[i] = unroll_philox_word(key, places[i].t, places[i].row, places[i].unit);
    normals[i] = unroll_normal(key, places[i].t, places[i].row, places[i].unit);
    for (int j = 0; j < i; j++) {
      assert_int_not_equal(words[i], words[j]);
      assert_true(normals[i] != normals[j]);
    }
  }
}

/* Bits of the masks of two sites agree half the time: of N pairs within 5 sqrt(N)/2 of N/2. */
static void sites_are_independent(void **state) {
  (void)state;
  enum { N = 20000 };
  const unroll_philox_key keys[] = {unroll_philox_site_key(42, 0, 0), unroll_philox_site_key(42, 0, 1),
                                    unroll_philox_site_key(42, 1, 0), unroll_philox_site_key(43, 0, 0)};
  for (int other = 1; other < 4; other++) {
    int equal = 0;
    for (uint32_t unit = 0; unit < N; unit++)
      equal += ((unroll_philox_word(keys[0], 0, 0, unit) ^ unroll_philox_word(keys[other], 0, 0, unit)) >> 31) == 0;
    assert_true(abs(equal - N / 2) < 5 * 71);
  }
}

static void uniform_is_exact(void **state) {
  (void)state;
  assert_true(unroll_uniform(0) == 0.0f);
  assert_true(unroll_uniform(0xff) == 0.0f);
  assert_true(unroll_uniform(0x100) == 0x1p-24f);
  assert_true(unroll_uniform(0x80000000) == 0.5f);
  assert_true(unroll_uniform(0xffffffff) == 1.0f - 0x1p-24f);
}

/* Mean 1/2 and variance 1/12, within 5 standard errors; the square's deviation from 1/12 has variance 1/180. */
static void uniform_moments(void **state) {
  (void)state;
  enum { N = 100000 };
  const unroll_philox_key key = unroll_philox_site_key(7, 0, 3);
  double sum = 0, squares = 0;
  for (uint32_t i = 0; i < N; i++) {
    const double d = (double)unroll_uniform(unroll_philox_word(key, i % 10, i / 10 % 100, i / 1000)) - 0.5;
    assert_true(d >= -0.5 && d < 0.5);
    sum += d;
    squares += d * d;
  }
  assert_true(fabs(sum / N) < 5 * sqrt(1.0 / 12 / N));
  assert_true(fabs(squares / N - 1.0 / 12) < 5 * sqrt(1.0 / 180 / N));
}

/* Moments 0, 1, 0, 3, whose estimates have variances 1/N, 2/N, 15/N, 96/N; and the neighbours of a block, uncorrelated. */
static void normal_moments(void **state) {
  (void)state;
  enum { N = 100000 };
  const unroll_philox_key key = unroll_philox_site_key(7, 0, 4);
  double m1 = 0, m2 = 0, m3 = 0, m4 = 0, neighbours = 0;
  for (uint32_t unit = 0; unit < N; unit++) {
    const double z = unroll_normal(key, 0, 0, unit);
    m1 += z;
    m2 += z * z;
    m3 += z * z * z;
    m4 += z * z * z * z;
    if (unit % 2 == 0)
      neighbours += z * unroll_normal(key, 0, 0, unit + 1);
    assert_true(fabs(z) < 6.67);
  }
  assert_true(fabs(m1 / N) < 5 * sqrt(1.0 / N));
  assert_true(fabs(m2 / N - 1) < 5 * sqrt(2.0 / N));
  assert_true(fabs(m3 / N) < 5 * sqrt(15.0 / N));
  assert_true(fabs(m4 / N - 3) < 5 * sqrt(96.0 / N));
  assert_true(fabs(neighbours / (N / 2)) < 5 * sqrt(2.0 / N));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(known_answers),    cmocka_unit_test(layout),
      cmocka_unit_test(uniform_is_exact), cmocka_unit_test(every_coordinate_counts),
      cmocka_unit_test(uniform_moments),  cmocka_unit_test(sites_are_independent),
      cmocka_unit_test(normal_moments),
  };
  return cmocka_run_group_tests_name("philox", tests, NULL, NULL);
}
