/* SPDX-License-Identifier: Apache-2.0 */
/* UTF-8 (Unicode 15, section 3.9, table 3-7), and text from files made fit for a message. */
#ifndef UTF8_H
#define UTF8_H
#include <stddef.h>
#include <stdint.h>

#define UTF8_MAX 4 /* bytes of the longest character */

/* The length of the character at s, of which n > 0 bytes are there, and its code point; 0 if it is none. */
static inline size_t utf8_decode(const unsigned char *s, size_t n, uint32_t *code) {
  if (s[0] < 0x80) {
    *code = s[0];
    return 1;
  }
  if (s[0] < 0xC2 || s[0] > 0xF4)
    return 0;
  const size_t length = s[0] < 0xE0 ? 2 : s[0] < 0xF0 ? 3 : 4;
  if (n < length)
    return 0;
  uint32_t c = s[0] & (0x7Fu >> length);
  for (size_t i = 1; i < length; i++) {
    if ((s[i] & 0xC0u) != 0x80)
      return 0;
    c = c << 6 | (s[i] & 0x3Fu);
  }
  /* forms that are longer than needed, surrogates, past the last code point */
  if ((length == 3 && c < 0x800) || (length == 4 && (c < 0x10000 || c > 0x10FFFF)) || (c >= 0xD800 && c <= 0xDFFF))
    return 0;
  *code = c;
  return length;
}

/* Writes up to UTF8_MAX bytes and returns their number. code is a Unicode scalar value. */
size_t utf8_encode(uint32_t code, char *to);

/* The offset of the first byte that starts no valid character; n if all is valid. */
size_t utf8_check(const void *text, size_t n);

/*
 * A name out of a file for a message, in quotes: control characters and invalid bytes become '?', what is too long is
 * cut at its end and "..." put there. Lives as long as the compound literal: the enclosing block.
 */
#define UTF8_SHOWN 72
#define SHOWN(s, n) utf8_shown((char[UTF8_SHOWN]){0}, (s), (n))
const char *utf8_shown(char to[UTF8_SHOWN], const char *s, size_t n);

/* A path for a message: the last bytes of a long one, which name the file. */
#define UTF8_PATH 112
#define SHOWN_PATH(path) utf8_shown_path((char[UTF8_PATH]){0}, (path))
const char *utf8_shown_path(char to[UTF8_PATH], const char *path);

#endif
