/* SPDX-License-Identifier: Apache-2.0 */
#include <stdbool.h>
#include <unroll/base.h>

#define STRING_OF(x) #x
#define VERSION_STRING(major, minor, patch) STRING_OF(major) "." STRING_OF(minor) "." STRING_OF(patch)

const char *unroll_version(void) {
  return VERSION_STRING(UNROLL_VERSION_MAJOR, UNROLL_VERSION_MINOR, UNROLL_VERSION_PATCH);
}

int32_t unroll_version_number(void) { return UNROLL_VERSION_NUMBER; }

unroll_status unroll_version_check(int32_t header_major, int32_t header_minor) {
  if (header_major != UNROLL_VERSION_MAJOR)
    return UNROLL_E_ABI;
  const int32_t minor = UNROLL_VERSION_MINOR;
  const bool compatible = header_major == 0 ? header_minor == minor : header_minor >= 0 && header_minor <= minor;
  return compatible ? UNROLL_OK : UNROLL_E_ABI;
}
