/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The safetensors format: u64 length of the header, the header (a JSON object of tensors and of metadata, strings to
 * strings), then the tensors' bytes. Source: the description in the format's own repository, huggingface/safetensors.
 */
#ifndef SAFETENSORS_PRIVATE_H
#define SAFETENSORS_PRIVATE_H
#include <unroll/io.h>

#define SAFETENSORS_HEADER_MAX 100000000u /* the reference implementation's limit too */
#define SAFETENSORS_METADATA "__metadata__"
#define SAFETENSORS_CHECKSUM_DIGITS 16
/* How the checksum stands in a header that the writer here made; its digits are hashed as zeros. */
#define SAFETENSORS_CHECKSUM_START "\"" UNROLL_CHECKSUM_KEY "\":\""
#define SAFETENSORS_CHECKSUM_ZERO "0000000000000000"

struct safetensors_dtype {
  const char *name;
  int32_t bits;
  int32_t dtype; /* -1: of the format, but not ours */
};
/* NULL where there is none. */
const struct safetensors_dtype *safetensors_dtype_named(const char *name);
const char *safetensors_dtype_name(int32_t dtype);

#endif
