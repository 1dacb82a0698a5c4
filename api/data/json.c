/* SPDX-License-Identifier: Apache-2.0 */
#include "data/json.h"

#include <inttypes.h>
#include <string.h>

#include "data/utf8.h"

void json_reader_init(struct json_reader *j, const void *data, size_t size, const unroll_allocator *allocator) {
  j->data = data;
  j->size = size;
  j->at = 0;
  text_init(&j->string, allocator);
}

void json_reader_free(struct json_reader *j) { text_free(&j->string); }

char json_peek(struct json_reader *j) {
  while (j->at < j->size &&
         (j->data[j->at] == ' ' || j->data[j->at] == '\t' || j->data[j->at] == '\n' || j->data[j->at] == '\r'))
    j->at++;
  return j->at < j->size ? (char)j->data[j->at] : 0;
}

static unroll_status unexpected(const struct json_reader *j, const char *expected, unroll_error *err) {
  if (j->at >= j->size)
    return fail(err, UNROLL_E_FORMAT, "JSON, byte %zu: it ends where %s is expected", j->at, expected);
  uint32_t code;
  const size_t length = utf8_decode(j->data + j->at, j->size - j->at, &code);
  return fail(err, UNROLL_E_FORMAT, "JSON, byte %zu: %s where %s is expected", j->at,
              SHOWN((const char *)j->data + j->at, length), expected);
}

unroll_status json_expect(struct json_reader *j, char c, unroll_error *err) {
  if (json_peek(j) != c || j->at >= j->size)
    return unexpected(j, (char[]){'\'', c, '\'', 0}, err);
  j->at++;
  return UNROLL_OK;
}

static bool hex4(const struct json_reader *j, size_t at, uint32_t *value) {
  if (j->size - at < 4)
    return false;
  *value = 0;
  for (size_t i = at; i < at + 4; i++) {
    const unsigned char c = j->data[i];
    const uint32_t digit = c >= '0' && c <= '9'   ? c - (uint32_t)'0'
                           : c >= 'a' && c <= 'f' ? c - (uint32_t)'a' + 10
                           : c >= 'A' && c <= 'F' ? c - (uint32_t)'A' + 10
                                                  : 16;
    if (digit == 16)
      return false;
    *value = *value << 4 | digit;
  }
  return true;
}

/* \uXXXX, or a pair of them; j->at stands behind the u. */
static unroll_status unicode_escape(struct json_reader *j, unroll_error *err) {
  uint32_t code, low;
  if (!hex4(j, j->at, &code))
    return fail(err, UNROLL_E_FORMAT, "JSON, byte %zu: \\u without four hexadecimal digits", j->at);
  j->at += 4;
  if (code >= 0xD800 && code <= 0xDFFF) {
    if (code >= 0xDC00 || j->size - j->at < 2 || j->data[j->at] != '\\' || j->data[j->at + 1] != 'u' ||
        !hex4(j, j->at + 2, &low) || low < 0xDC00 || low > 0xDFFF)
      return fail(err, UNROLL_E_FORMAT, "JSON, byte %zu: half of a surrogate pair", j->at);
    j->at += 6;
    code = 0x10000 + ((code - 0xD800) << 10 | (low - 0xDC00));
  }
  if (code == 0)
    return fail(err, UNROLL_E_FORMAT, "JSON, byte %zu: a NUL in a string", j->at);
  char bytes[UTF8_MAX];
  text_add_bytes(&j->string, bytes, utf8_encode(code, bytes));
  return UNROLL_OK;
}

static unroll_status escape(struct json_reader *j, unroll_error *err) {
  static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
  if (j->at >= j->size)
    return unexpected(j, "an escape", err);
  const unsigned char c = j->data[j->at];
  if (c == 'u') {
    j->at++;
    return unicode_escape(j, err);
  }
  const char *found = memchr(from, c, sizeof from - 1);
  if (found == NULL)
    return unexpected(j, "an escape", err);
  text_add_bytes(&j->string, to + (found - from), 1);
  j->at++;
  return UNROLL_OK;
}

unroll_status json_string(struct json_reader *j, unroll_error *err) {
  if (json_peek(j) != '"')
    return unexpected(j, "a string", err);
  j->at++;
  j->string.size = 0;
  for (;;) {
    const size_t start = j->at;
    while (j->at < j->size && j->data[j->at] != '"' && j->data[j->at] != '\\' && j->data[j->at] >= 0x20)
      j->at++;
    text_add_bytes(&j->string, (const char *)j->data + start, j->at - start);
    if (j->at >= j->size)
      return unexpected(j, "the end of a string", err);
    const unsigned char c = j->data[j->at];
    if (c < 0x20)
      return fail(err, UNROLL_E_FORMAT, "JSON, byte %zu: a control character in a string", j->at);
    j->at++;
    if (c == '"')
      break;
    TRY(escape(j, err));
  }
  return j->string.failed ? fail(err, UNROLL_E_MEMORY, "no memory for a string of JSON") : UNROLL_OK;
}

unroll_status json_number(struct json_reader *j, uint64_t *value, unroll_error *err) {
  const char first = json_peek(j);
  if (first < '0' || first > '9')
    return unexpected(j, "a whole number", err);
  const size_t start = j->at;
  uint64_t n = 0;
  for (; j->at < j->size && j->data[j->at] >= '0' && j->data[j->at] <= '9'; j->at++)
    if (!size_mul(n, 10, &n) || !size_add(n, j->data[j->at] - (uint64_t)'0', &n))
      return fail(err, UNROLL_E_FORMAT, "JSON, byte %zu: a number past 2^64-1", start);
  if (first == '0' && j->at > start + 1)
    return fail(err, UNROLL_E_FORMAT, "JSON, byte %zu: a number with a leading 0", start);
  if (j->at < j->size && (j->data[j->at] == '.' || j->data[j->at] == 'e' || j->data[j->at] == 'E'))
    return unexpected(j, "a whole number's end", err);
  *value = n;
  return UNROLL_OK;
}

unroll_status json_next(struct json_reader *j, char close, bool *more, unroll_error *err) {
  const char c = json_peek(j);
  if (j->at >= j->size || (c != ',' && c != close))
    return unexpected(j, (char[]){'\'', ',', '\'', ' ', 'o', 'r', ' ', '\'', close, '\'', 0}, err);
  j->at++;
  *more = c == ',';
  return UNROLL_OK;
}

unroll_status json_end(struct json_reader *j, unroll_error *err) {
  (void)json_peek(j);
  return j->at < j->size ? unexpected(j, "the end", err) : UNROLL_OK;
}

void json_add_string(struct text *to, const char *s) {
  text_add_bytes(to, "\"", 1);
  for (; *s != 0; s++) {
    const unsigned char c = (unsigned char)*s;
    if (c == '"' || c == '\\')
      text_add(to, "\\%c", c);
    else if (c < 0x20 || c == 0x7F)
      text_add(to, "\\u%04x", c);
    else
      text_add_bytes(to, s, 1);
  }
  text_add_bytes(to, "\"", 1);
}
