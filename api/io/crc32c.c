/* SPDX-License-Identifier: Apache-2.0 */
#include "io/crc32c.h"

/* Of four bits: what is checked are kilobytes, and sixteen numbers can be looked through. */
static const uint32_t table[16] = {0x00000000, 0x105EC76F, 0x20BD8EDE, 0x30E349B1, 0x417B1DBC, 0x5125DAD3,
                                   0x61C69362, 0x7198540D, 0x82F63B78, 0x92A8FC17, 0xA24BB5A6, 0xB21572C9,
                                   0xC38D26C4, 0xD3D3E1AB, 0xE330A81A, 0xF36E6F75};

uint32_t crc32c(uint32_t start, const void *data, size_t n) {
  const unsigned char *p = data;
  uint32_t c = ~start;
  for (size_t i = 0; i < n; i++) {
    c ^= p[i];
    c = c >> 4 ^ table[c & 15];
    c = c >> 4 ^ table[c & 15];
  }
  return ~c;
}

uint32_t crc32c_masked(const void *data, size_t n) {
  const uint32_t c = crc32c(0, data, n);
  return (c >> 15 | c << 17) + 0xA282EAD8u;
}
