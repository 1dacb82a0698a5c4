/* SPDX-License-Identifier: Apache-2.0 */
#include "base/base_private.h"
#include "base/cut.h"

_Static_assert(offsetof(unroll_error, code) == 4, "unroll_error is part of the ABI");
_Static_assert(offsetof(unroll_error, native) == 8, "unroll_error is part of the ABI");
_Static_assert(offsetof(unroll_error, message) == 16, "unroll_error is part of the ABI");
_Static_assert(UNROLL_SIZE_TO(unroll_error, message) == 256, "unroll_error is part of the ABI");

unroll_status fail_list(unroll_error *err, unroll_status code, int64_t native, const char *format, va_list list) {
  if (!err)
    return code;
  /* Formatted apart, because the arguments may quote the message that is about to be overwritten. */
  char message[sizeof err->message];
  format_cut(message, sizeof message, format, list);
  if (UNROLL_HAS(unroll_error, err, code))
    err->code = code;
  if (UNROLL_HAS(unroll_error, err, native))
    err->native = native;
  if (err->struct_size > offsetof(unroll_error, message))
    copy_cut(err->message, err->struct_size - offsetof(unroll_error, message), message);
  return code;
}

unroll_status(fail)(unroll_error *err, unroll_status code, const char *format, ...) {
  va_list list;
  va_start(list, format);
  fail_list(err, code, 0, format, list);
  va_end(list);
  return code;
}

unroll_status(fail_native)(unroll_error *err, unroll_status code, int64_t native, const char *format, ...) {
  va_list list;
  va_start(list, format);
  fail_list(err, code, native, format, list);
  va_end(list);
  return code;
}
