/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/base_private.h"

uint64_t hash64(const void *data, size_t size, uint64_t seed) {
  const unsigned char *bytes = data;
  uint64_t hash = seed;
  for (size_t i = 0; i < size; i++)
    hash = (hash ^ bytes[i]) * UINT64_C(0x100000001B3);
  return hash;
}

uint64_t hash64_string(const char *s, uint64_t seed) { return hash64(s, strlen(s) + 1, seed); }
