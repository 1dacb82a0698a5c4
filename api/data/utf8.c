/* SPDX-License-Identifier: Apache-2.0 */
#include "data/utf8.h"

#include <string.h>

size_t utf8_encode(uint32_t code, char *to) {
  if (code < 0x80) {
    to[0] = (char)code;
    return 1;
  }
  const size_t length = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
  for (size_t i = length; i-- > 1; code >>= 6)
    to[i] = (char)(0x80u | (code & 0x3Fu));
  to[0] = (char)((0xF00u >> length & 0xF0u) | code);
  return length;
}

size_t utf8_check(const void *text, size_t n) {
  const unsigned char *s = text;
  size_t at = 0;
  while (at < n) {
    uint32_t code;
    const size_t length = utf8_decode(s + at, n - at, &code);
    if (length == 0)
      return at;
    at += length;
  }
  return n;
}

/* Copies the character at s or a '?' for what would harm a terminal; returns the bytes read. */
static size_t show_character(char *to, size_t *used, const unsigned char *s, size_t n) {
  uint32_t code;
  const size_t length = utf8_decode(s, n, &code);
  if (length == 0 || code < 0x20 || (code >= 0x7F && code < 0xA0)) {
    to[(*used)++] = '?';
    return length == 0 ? 1 : length;
  }
  memcpy(to + *used, s, length);
  *used += length;
  return length;
}

const char *utf8_shown(char to[UTF8_SHOWN], const char *s, size_t n) {
  size_t used = 0, at = 0;
  to[used++] = '"';
  while (at < n && used + UTF8_MAX + sizeof "...\"" <= UTF8_SHOWN)
    at += show_character(to, &used, (const unsigned char *)s + at, n - at);
  if (at < n) {
    memcpy(to + used, "...", 3);
    used += 3;
  }
  to[used++] = '"';
  to[used] = 0;
  return to;
}

const char *utf8_shown_path(char to[UTF8_PATH], const char *path) {
  const unsigned char *s = (const unsigned char *)path;
  const size_t n = strlen(path), most = UTF8_PATH - 1;
  size_t used = 0, at = 0;
  if (n > most) {
    memcpy(to, "...", 3);
    used = 3;
    at = n - (most - 3);
    while (at < n && (s[at] & 0xC0u) == 0x80) /* not from the middle of a character */
      at++;
  }
  while (at < n)
    at += show_character(to, &used, s + at, n - at);
  to[used] = 0;
  return to;
}
