/* SPDX-License-Identifier: Apache-2.0 */
/* CRC-32C (Castagnoli), reflected, as RFC 3720, appendix B.4, has it. */
#ifndef CRC32C_H
#define CRC32C_H
#include <stddef.h>
#include <stdint.h>

/* Begin with 0; the result is the start of the next piece. */
uint32_t crc32c(uint32_t start, const void *data, size_t n);
/* As TFRecord stores it, so that a checksum of bytes that hold checksums is as good as any. */
uint32_t crc32c_masked(const void *data, size_t n);

#endif
