/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <unroll/datasets.h>
#include <unroll/philox.h>

#include "base/base_private.h"

/* SplitMix64's step (Steele, Lea & Flood 2014): every bit of the key moves every bit of the result. */
static uint64_t mix(uint64_t z) {
  z += UINT64_C(0x9E3779B97F4A7C15);
  z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
  z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
  return z ^ z >> 31;
}

/* Of its bytes, the lowest first, whatever the machine's order. */
static uint64_t add_word(uint64_t word, uint64_t hash) {
  unsigned char bytes[8];
  for (int i = 0; i < 8; i++)
    bytes[i] = (unsigned char)(word >> 8 * i);
  return hash64(bytes, sizeof bytes, hash);
}

unroll_status unroll_split(const uint64_t *keys, int64_t n, uint64_t seed, double validation, double testing,
                           int64_t *order, int64_t counts[UNROLL_PARTS], uint64_t *hash, unroll_error *err) {
  if (keys == NULL || n < 0 || order == NULL || counts == NULL)
    return fail(err, UNROLL_E_INVALID, "unroll_split: %s", n < 0 ? "n is negative" : "keys, order or counts is NULL");
  if (!(validation >= 0 && testing >= 0 && validation + testing < 1))
    return fail(err, UNROLL_E_RANGE,
                "split: shares of %g for validation and %g for the test; neither below 0, together below 1", validation,
                testing);
  for (int part = 0; part < UNROLL_PARTS; part++)
    counts[part] = 0;
  const uint64_t salt = mix(seed);
  uint64_t h = HASH64_SEED;
  int64_t at = 0;
  for (int part = 0; part < UNROLL_PARTS; part++)
    for (int64_t i = 0; i < n; i++) {
      const double u = (double)(mix(keys[i] ^ salt) >> 11) * 0x1p-53;
      const int of = u < testing ? UNROLL_TESTING : u < testing + validation ? UNROLL_VALIDATION : UNROLL_TRAINING;
      if (of != part)
        continue;
      order[at++] = i;
      counts[part]++;
      h = add_word((uint64_t)part, add_word(keys[i], h));
    }
  if (hash != NULL)
    *hash = h;
  return UNROLL_OK;
}

void unroll_shuffle(int64_t *items, int64_t n, uint64_t seed, uint64_t epoch) {
  const unroll_philox_key key = unroll_philox_site_key(seed, epoch, UNROLL_SHUFFLE_SITE);
  for (int64_t i = n - 1; i > 0; i--) {
    const uint64_t high = unroll_philox_word(key, (uint64_t)i, 0, 0), low = unroll_philox_word(key, (uint64_t)i, 0, 1);
    /* of 2^64 values: the bias of the remainder is below n/2^64 */
    const int64_t j = (int64_t)((high << 32 | low) % ((uint64_t)i + 1)), item = items[i];
    items[i] = items[j];
    items[j] = item;
  }
}
