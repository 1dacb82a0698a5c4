/* SPDX-License-Identifier: Apache-2.0 */
#include "data/vocabulary.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/json.h"
#include "data/utf8.h"

const char *vocabulary_shown(char to[CHARACTER_SHOWN], uint32_t code) {
  char bytes[UTF8_MAX + 1] = {0};
  utf8_encode(code, bytes);
  const bool visible = code > 0x20 && (code < 0x7F || code > 0xA0);
  (void)snprintf(to, CHARACTER_SHOWN, visible ? "U+%04" PRIX32 " '%s'" : "U+%04" PRIX32, code, bytes);
  return to;
}

static int by_code(const void *a, const void *b) {
  const struct vocabulary_entry *x = a, *y = b;
  return (x->code > y->code) - (x->code < y->code);
}

static char *vocabulary_write(const unroll_vocabulary *v) {
  struct text out;
  text_init(&out, &v->allocator);
  text_add_bytes(&out, "[", 1);
  for (int32_t i = 0; i < v->count; i++) {
    char character[UNROLL_CHARACTER_BYTES] = {0};
    utf8_encode(v->codes[i], character);
    if (i > 0)
      text_add_bytes(&out, ",", 1);
    json_add_string(&out, character);
  }
  text_add_bytes(&out, "]", 1);
  return text_take(&out);
}

unroll_status vocabulary_create(const uint32_t *codes, int32_t count, const unroll_allocator *allocator,
                                unroll_vocabulary **vocabulary, unroll_error *err) {
  unroll_vocabulary *v = mem_zalloc(allocator, sizeof *v);
  if (v == NULL)
    return fail(err, UNROLL_E_MEMORY, "no memory for a vocabulary");
  if (allocator != NULL)
    v->allocator = *allocator;
  v->count = count;
  v->codes = mem_array(allocator, (uint64_t)count, sizeof *v->codes);
  v->sorted = mem_array(allocator, (uint64_t)count, sizeof *v->sorted);
  if (v->codes == NULL || v->sorted == NULL)
    goto no_memory;
  memset(v->ascii, -1, sizeof v->ascii);
  for (int32_t i = 0; i < count; i++) {
    v->codes[i] = codes[i];
    v->sorted[i] = (struct vocabulary_entry){codes[i], i};
    if (codes[i] < 128)
      v->ascii[codes[i]] = i;
  }
  qsort(v->sorted, (size_t)count, sizeof *v->sorted, by_code);
  v->json = vocabulary_write(v);
  if (v->json == NULL)
    goto no_memory;
  *vocabulary = v;
  return UNROLL_OK;

no_memory:
  unroll_vocabulary_destroy(v);
  return fail(err, UNROLL_E_MEMORY, "no memory for a vocabulary of %" PRId32 " characters", count);
}

void unroll_vocabulary_destroy(unroll_vocabulary *v) {
  if (v == NULL)
    return;
  const unroll_allocator a = v->allocator;
  mem_free(&a, v->codes);
  mem_free(&a, v->sorted);
  mem_free(&a, v->json);
  mem_free(&a, v);
}

int32_t vocabulary_id(const unroll_vocabulary *v, uint32_t code) {
  if (code < 128)
    return v->ascii[code];
  const struct vocabulary_entry key = {code, 0};
  const struct vocabulary_entry *found = bsearch(&key, v->sorted, (size_t)v->count, sizeof *v->sorted, by_code);
  return found == NULL ? -1 : found->id;
}

struct code_list {
  uint32_t *codes;
  uint32_t count, capacity;
};

/* One element of the array: a string that is one character. */
static unroll_status read_character(struct json_reader *j, struct code_list *list, const unroll_allocator *allocator,
                                    unroll_error *err) {
  TRY(json_string(j, err));
  const char *s = text_peek(&j->string);
  uint32_t code = 0;
  if (j->string.size == 0 || utf8_decode((const unsigned char *)s, j->string.size, &code) != j->string.size)
    return fail(err, UNROLL_E_FORMAT, "vocabulary: entry %" PRIu32 " is %s, not one character", list->count,
                SHOWN(s, j->string.size));
  if (!mem_grow(allocator, &list->codes, &list->capacity, list->count + 1, sizeof *list->codes))
    return fail(err, UNROLL_E_MEMORY, "no memory for a vocabulary of more than %" PRIu32 " characters", list->count);
  list->codes[list->count++] = code;
  return UNROLL_OK;
}

static unroll_status read_array(struct json_reader *j, struct code_list *list, const unroll_allocator *allocator,
                                unroll_error *err) {
  TRY(json_expect(j, '[', err));
  bool more = json_peek(j) != ']';
  if (!more)
    TRY(json_expect(j, ']', err));
  while (more) {
    TRY(read_character(j, list, allocator, err));
    TRY(json_next(j, ']', &more, err));
  }
  TRY(json_end(j, err));
  if (list->count < 2)
    return fail(err, UNROLL_E_FORMAT, "vocabulary: %" PRIu32 " characters, it needs at least 2", list->count);
  return UNROLL_OK;
}

static unroll_status check_unique(const unroll_vocabulary *v, unroll_error *err) {
  for (int32_t i = 1; i < v->count; i++)
    if (v->sorted[i].code == v->sorted[i - 1].code)
      return fail(err, UNROLL_E_FORMAT, "vocabulary: %s stands there twice", SHOWN_CHARACTER(v->sorted[i].code));
  return UNROLL_OK;
}

unroll_status unroll_vocabulary_from_json(const char *json, size_t bytes, const unroll_allocator *allocator,
                                          unroll_vocabulary **vocabulary, unroll_error *err) {
  if (json == NULL || vocabulary == NULL)
    return fail(err, UNROLL_E_INVALID, "unroll_vocabulary_from_json: %s is NULL", json == NULL ? "json" : "vocabulary");
  const size_t valid = utf8_check(json, bytes);
  if (valid < bytes)
    return fail(err, UNROLL_E_FORMAT, "vocabulary: byte %zu is not UTF-8", valid);
  if (bytes > INT32_MAX) /* then the characters can be counted in 32 bits */
    return fail(err, UNROLL_E_FORMAT, "vocabulary: %zu bytes of JSON, a vocabulary has at most %d", bytes, INT32_MAX);
  struct json_reader j;
  json_reader_init(&j, json, bytes, allocator);
  struct code_list list = {0};
  unroll_vocabulary *v = NULL;
  unroll_status status;
  TRY_GOTO(status, read_array(&j, &list, allocator, err), end);
  TRY_GOTO(status, vocabulary_create(list.codes, (int32_t)list.count, allocator, &v, err), end);
  TRY_GOTO(status, check_unique(v, err), end);
  *vocabulary = v;
  v = NULL;
end:
  unroll_vocabulary_destroy(v);
  mem_free(allocator, list.codes);
  json_reader_free(&j);
  return status;
}

const char *unroll_vocabulary_json(const unroll_vocabulary *v) { return v->json; }

int32_t unroll_vocabulary_count(const unroll_vocabulary *v) { return v->count; }

unroll_status unroll_vocabulary_encode(const unroll_vocabulary *v, const char *text, size_t bytes, int32_t *ids,
                                       size_t capacity, size_t *n, unroll_error *err) {
  if (v == NULL || n == NULL || (text == NULL && bytes > 0) || (ids == NULL && capacity > 0))
    return fail(err, UNROLL_E_INVALID, "unroll_vocabulary_encode: %s is NULL",
                v == NULL                     ? "vocabulary"
                : n == NULL                   ? "n"
                : ids == NULL && capacity > 0 ? "ids"
                                              : "text");
  size_t count = 0;
  for (size_t at = 0; at < bytes; count++) {
    uint32_t code;
    const size_t length = utf8_decode((const unsigned char *)text + at, bytes - at, &code);
    if (length == 0)
      return fail(err, UNROLL_E_FORMAT, "byte %zu of the text is not UTF-8", at);
    const int32_t id = vocabulary_id(v, code);
    if (id < 0)
      return fail(err, UNROLL_E_NOT_FOUND,
                  "byte %zu of the text: %s is not in the vocabulary of %" PRId32 " characters", at,
                  SHOWN_CHARACTER(code), v->count);
    if (count < capacity)
      ids[count] = id;
    at += length;
  }
  *n = count;
  if (ids != NULL && count > capacity)
    return fail(err, UNROLL_E_RANGE, "the text has %zu characters, there is room for %zu", count, capacity);
  return UNROLL_OK;
}

unroll_status unroll_vocabulary_decode(const unroll_vocabulary *v, int32_t id, char character[UNROLL_CHARACTER_BYTES],
                                       unroll_error *err) {
  if (v == NULL || character == NULL)
    return fail(err, UNROLL_E_INVALID, "unroll_vocabulary_decode: %s is NULL", v == NULL ? "vocabulary" : "character");
  if (id < 0 || id >= v->count)
    return fail(err, UNROLL_E_RANGE, "id %" PRId32 ": the vocabulary has 0 to %" PRId32, id, v->count - 1);
  character[utf8_encode(v->codes[id], character)] = 0;
  return UNROLL_OK;
}
