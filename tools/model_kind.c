/* SPDX-License-Identifier: Apache-2.0 */
#include "model_kind.h"

#include <string.h>
#include <unroll/io.h>

bool model_is(const char *path, const char *kind) {
  unroll_safetensors *file;
  if (unroll_safetensors_open(path, NULL, &file, NULL) != UNROLL_OK)
    return false;
  const char *found = unroll_safetensors_metadata(file, "unroll.kind");
  const bool is = found && strcmp(found, kind) == 0;
  unroll_safetensors_close(file);
  return is;
}
