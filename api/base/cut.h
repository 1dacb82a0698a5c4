/* SPDX-License-Identifier: Apache-2.0 */
/* Text into a buffer of fixed size: what does not fit is left out, never half of a UTF-8 character. size is at least 1. */
#ifndef BASE_CUT_H
#define BASE_CUT_H
#include <stdarg.h>
#include <stddef.h>

void copy_cut(char *to, size_t size, const char *from);
void format_cut(char *to, size_t size, const char *format, va_list list) __attribute__((format(printf, 3, 0)));

#endif
