/* SPDX-License-Identifier: Apache-2.0 */
#include <unroll/base.h>

const char *unroll_status_name(unroll_status status) {
  switch (status) {
#define STATUS_NAME(name, value, text) \
  case value: return #name;
    UNROLL_STATUSES(STATUS_NAME)
#undef STATUS_NAME
  default: return "UNROLL_E_UNKNOWN";
  }
}

const char *unroll_status_text(unroll_status status) {
  switch (status) {
#define STATUS_TEXT(name, value, text) \
  case value: return text;
    UNROLL_STATUSES(STATUS_TEXT)
#undef STATUS_TEXT
  default: return "unknown status";
  }
}

const char *unroll_dtype_name(int32_t dtype) {
  switch (dtype) {
#define DTYPE_NAME(name, value, text, bytes) \
  case value: return text;
    UNROLL_DTYPES(DTYPE_NAME)
#undef DTYPE_NAME
  default: return "unknown";
  }
}

uint32_t unroll_dtype_size(int32_t dtype) {
  switch (dtype) {
#define DTYPE_SIZE(name, value, text, bytes) \
  case value: return bytes;
    UNROLL_DTYPES(DTYPE_SIZE)
#undef DTYPE_SIZE
  default: return 0;
  }
}
