/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON (RFC 8259) as a stream of tokens, for files that nobody vouches for: no tree is built, so that memory is
 * bounded by what the caller keeps, nothing recurses, and all memory comes from the caller's allocator.
 *
 *     struct json_reader j;
 *     json_reader_init(&j, bytes, n, allocator);
 *     TRY_GOTO(status, json_expect(&j, '[', err), end);
 *     ...
 * end:
 *     json_reader_free(&j);
 *
 * Every failure is UNROLL_E_FORMAT, or UNROLL_E_MEMORY, and names the byte.
 */
#ifndef JSON_H
#define JSON_H
#include "base/base_private.h"

struct json_reader {
  const unsigned char *data;
  size_t size, at;
  struct text string; /* the last string, unescaped, without a NUL inside */
};

/* data must be valid UTF-8 already, and stay. */
void json_reader_init(struct json_reader *j, const void *data, size_t size, const unroll_allocator *allocator);
void json_reader_free(struct json_reader *j);

/* The next byte that is no white space, not taken; 0 at the end. */
char json_peek(struct json_reader *j);
unroll_status json_expect(struct json_reader *j, char c, unroll_error *err);
/* A string, left in j->string. */
unroll_status json_string(struct json_reader *j, unroll_error *err);
/* A whole number, 0 to 2^64-1, in digits alone. */
unroll_status json_number(struct json_reader *j, uint64_t *value, unroll_error *err);
/* After an element: true in *more if a comma was taken, false if the closing bracket was. */
unroll_status json_next(struct json_reader *j, char close, bool *more, unroll_error *err);
/* Nothing but white space is left. */
unroll_status json_end(struct json_reader *j, unroll_error *err);

/* A string with its quotes, escaped as far as it must be. s is valid UTF-8. */
void json_add_string(struct text *to, const char *s);

#endif
