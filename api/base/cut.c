/* SPDX-License-Identifier: Apache-2.0 */
#include "base/cut.h"

#include <stdio.h>
#include <string.h>

/* s was cut after n bytes: drop the last character if its lead byte says that it is longer than what is left of it. */
static void drop_partial(char *s, size_t n) {
  s[n] = '\0';
  for (size_t left = 1; left <= 4 && left <= n; left++) {
    const unsigned char byte = (unsigned char)s[n - left];
    if ((byte & 0xC0u) == 0x80u)
      continue;
    const size_t length = byte < 0x80u ? 1 : byte < 0xE0u ? 2 : byte < 0xF0u ? 3 : 4;
    if (length > left)
      s[n - left] = '\0';
    return;
  }
}

void copy_cut(char *to, size_t size, const char *from) {
  const size_t n = strlen(from);
  if (n < size) {
    memcpy(to, from, n + 1);
    return;
  }
  memcpy(to, from, size - 1);
  drop_partial(to, size - 1);
}

void format_cut(char *to, size_t size, const char *format, va_list list) {
  const int wanted = vsnprintf(to, size, format, list);
  if (wanted < 0)
    to[0] = '\0';
  else if ((size_t)wanted >= size)
    drop_partial(to, size - 1);
}
