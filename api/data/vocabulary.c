/* SPDX-License-Identifier: Apache-2.0 */
#include "data/vocabulary.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/json.h"
#include "data/utf8.h"
#include "data/words.h"

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
    if (i > 0)
      text_add_bytes(&out, ",", 1);
    json_add_string(&out, v->bytes + v->at[i]);
  }
  text_add_bytes(&out, "]", 1);
  return text_take(&out);
}

static unroll_vocabulary *vocabulary_begin(int32_t count, int32_t unit, uint64_t bytes,
                                           const unroll_allocator *allocator) {
  unroll_vocabulary *v = mem_zalloc(allocator, sizeof *v);
  if (v == NULL)
    return NULL;
  if (allocator != NULL)
    v->allocator = *allocator;
  v->count = count;
  v->unit = unit;
  v->bytes = mem_zalloc(allocator, bytes);
  v->at = mem_array(allocator, (uint64_t)count, sizeof *v->at);
  if (v->bytes != NULL && v->at != NULL)
    return v;
  unroll_vocabulary_destroy(v);
  return NULL;
}

/* json, once the rest is there. Takes v over. */
static unroll_status vocabulary_end(unroll_vocabulary *v, unroll_vocabulary **vocabulary, unroll_error *err) {
  v->json = vocabulary_write(v);
  if (v->json == NULL) {
    unroll_vocabulary_destroy(v);
    return fail(err, UNROLL_E_MEMORY, "no memory for a vocabulary's JSON");
  }
  *vocabulary = v;
  return UNROLL_OK;
}

unroll_status vocabulary_create(const uint32_t *codes, int32_t count, const unroll_allocator *allocator,
                                unroll_vocabulary **vocabulary, unroll_error *err) {
  unroll_vocabulary *v =
      vocabulary_begin(count, UNROLL_UNIT_CHARACTER, (uint64_t)count * UNROLL_CHARACTER_BYTES, allocator);
  if (v == NULL)
    return fail(err, UNROLL_E_MEMORY, "no memory for a vocabulary");
  v->codes = mem_array(allocator, (uint64_t)count, sizeof *v->codes);
  v->sorted = mem_array(allocator, (uint64_t)count, sizeof *v->sorted);
  if (v->codes == NULL || v->sorted == NULL) {
    unroll_vocabulary_destroy(v);
    return fail(err, UNROLL_E_MEMORY, "no memory for a vocabulary of %" PRId32 " characters", count);
  }
  memset(v->ascii, -1, sizeof v->ascii);
  for (int32_t i = 0; i < count; i++) {
    v->codes[i] = codes[i];
    v->sorted[i] = (struct vocabulary_entry){codes[i], i};
    v->at[i] = (uint32_t)i * UNROLL_CHARACTER_BYTES;
    utf8_encode(codes[i], v->bytes + v->at[i]);
    if (codes[i] < 128)
      v->ascii[codes[i]] = i;
  }
  qsort(v->sorted, (size_t)count, sizeof *v->sorted, by_code);
  return vocabulary_end(v, vocabulary, err);
}

/* ---- words ---- */

/* qsort passes no context, so a word stands beside its id. */
struct word_place {
  const char *word;
  int32_t id;
};
static int by_word(const void *a, const void *b) {
  const struct word_place *x = a, *y = b;
  return strcmp(x->word, y->word);
}

unroll_status vocabulary_create_words(const char *bytes, const uint32_t *at, int32_t count,
                                      const unroll_allocator *allocator, unroll_vocabulary **vocabulary,
                                      unroll_error *err) {
  uint64_t size = 0;
  for (int32_t i = 0; i < count; i++)
    size += strlen(bytes + at[i]) + 1;
  unroll_vocabulary *v = size > UINT32_MAX ? NULL : vocabulary_begin(count, UNROLL_UNIT_WORD, size, allocator);
  if (v == NULL)
    return fail(err, UNROLL_E_MEMORY, "no memory for a vocabulary of %" PRId32 " words", count);
  struct word_place *places = mem_array(allocator, (uint64_t)count, sizeof *places);
  v->order = mem_array(allocator, (uint64_t)count, sizeof *v->order);
  if (places == NULL || v->order == NULL) {
    mem_free(allocator, places);
    unroll_vocabulary_destroy(v);
    return fail(err, UNROLL_E_MEMORY, "no memory for a vocabulary of %" PRId32 " words", count);
  }
  uint32_t used = 0;
  for (int32_t i = 0; i < count; i++) {
    const size_t n = strlen(bytes + at[i]) + 1;
    memcpy(v->bytes + used, bytes + at[i], n);
    v->at[i] = used;
    places[i] = (struct word_place){v->bytes + used, i};
    used += (uint32_t)n;
  }
  qsort(places, (size_t)count, sizeof *places, by_word);
  for (int32_t i = 0; i < count; i++)
    v->order[i] = places[i].id;
  mem_free(allocator, places);
  return vocabulary_end(v, vocabulary, err);
}

unroll_status vocabulary_copy(const unroll_vocabulary *from, const unroll_allocator *allocator,
                              unroll_vocabulary **vocabulary, unroll_error *err) {
  if (from->unit == UNROLL_UNIT_WORD)
    return vocabulary_create_words(from->bytes, from->at, from->count, allocator, vocabulary, err);
  return vocabulary_create(from->codes, from->count, allocator, vocabulary, err);
}

int32_t vocabulary_word_id(const unroll_vocabulary *v, const char *word, size_t n) {
  int32_t lo = 0, hi = v->count - 1;
  while (lo <= hi) {
    const int32_t middle = lo + (hi - lo) / 2;
    const char *other = v->bytes + v->at[v->order[middle]];
    int order = strncmp(word, other, n);
    if (order == 0)
      order = other[n] ? -1 : 0;
    if (order == 0)
      return v->order[middle];
    if (order < 0)
      hi = middle - 1;
    else
      lo = middle + 1;
  }
  return -1;
}

void unroll_vocabulary_destroy(unroll_vocabulary *v) {
  if (v == NULL)
    return;
  const unroll_allocator a = v->allocator;
  mem_free(&a, v->codes);
  mem_free(&a, v->sorted);
  mem_free(&a, v->bytes);
  mem_free(&a, v->at);
  mem_free(&a, v->order);
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

/* What an array has: characters by their codes, or words in a table. */
struct entry_list {
  uint32_t *codes;
  uint32_t count, capacity;
  bool are_words;
  struct word_table words;
};

/* One element of the array of words. */
static unroll_status read_word(struct json_reader *j, struct entry_list *list, const unroll_allocator *allocator,
                               unroll_error *err) {
  const char *s = text_peek(&j->string);
  const size_t n = (size_t)j->string.size;
  uint32_t entry;
  if (!word_is_one(s, n))
    return fail(err, UNROLL_E_FORMAT, "vocabulary: entry %" PRIu32 " is %s, not one word", list->count, SHOWN(s, n));
  if (!word_table_add(&list->words, s, n, allocator, &entry))
    return fail(err, UNROLL_E_MEMORY, "no memory for a vocabulary of more than %" PRIu32 " words", list->count);
  if (entry != list->count)
    return fail(err, UNROLL_E_FORMAT, "vocabulary: %s stands there twice", SHOWN(s, n));
  list->count++;
  return UNROLL_OK;
}

/* One element of the array: a string that is one character; or words, where the first is that for unknown ones. */
static unroll_status read_entry(struct json_reader *j, struct entry_list *list, const unroll_allocator *allocator,
                                unroll_error *err) {
  TRY(json_string(j, err));
  const char *s = text_peek(&j->string);
  uint32_t code = 0;
  if (list->count == 0)
    list->are_words = strcmp(s, WORD_UNKNOWN) == 0;
  if (list->are_words)
    return read_word(j, list, allocator, err);
  if (j->string.size == 0 || utf8_decode((const unsigned char *)s, j->string.size, &code) != j->string.size)
    return fail(err, UNROLL_E_FORMAT, "vocabulary: entry %" PRIu32 " is %s, not one character", list->count,
                SHOWN(s, j->string.size));
  if (!mem_grow(allocator, &list->codes, &list->capacity, list->count + 1, sizeof *list->codes))
    return fail(err, UNROLL_E_MEMORY, "no memory for a vocabulary of more than %" PRIu32 " characters", list->count);
  list->codes[list->count++] = code;
  return UNROLL_OK;
}

static unroll_status read_array(struct json_reader *j, struct entry_list *list, const unroll_allocator *allocator,
                                unroll_error *err) {
  TRY(json_expect(j, '[', err));
  bool more = json_peek(j) != ']';
  if (!more)
    TRY(json_expect(j, ']', err));
  while (more) {
    TRY(read_entry(j, list, allocator, err));
    TRY(json_next(j, ']', &more, err));
  }
  TRY(json_end(j, err));
  if (list->count < 2)
    return fail(err, UNROLL_E_FORMAT, "vocabulary: %" PRIu32 " %s, it needs at least 2", list->count,
                list->are_words ? "words" : "characters");
  return UNROLL_OK;
}

static unroll_status check_unique(const unroll_vocabulary *v, unroll_error *err) {
  for (int32_t i = 1; i < v->count && v->unit == UNROLL_UNIT_CHARACTER; i++)
    if (v->sorted[i].code == v->sorted[i - 1].code)
      return fail(err, UNROLL_E_FORMAT, "vocabulary: %s stands there twice", SHOWN_CHARACTER(v->sorted[i].code));
  return UNROLL_OK;
}

static unroll_status create_from(const struct entry_list *list, const unroll_allocator *allocator,
                                 unroll_vocabulary **vocabulary, unroll_error *err) {
  if (!list->are_words)
    return vocabulary_create(list->codes, (int32_t)list->count, allocator, vocabulary, err);
  uint32_t *at = mem_array(allocator, list->count, sizeof *at);
  if (at == NULL)
    return fail(err, UNROLL_E_MEMORY, "no memory for a vocabulary of %" PRIu32 " words", list->count);
  for (uint32_t i = 0; i < list->count; i++)
    at[i] = list->words.entries[i].at;
  const unroll_status status =
      vocabulary_create_words(list->words.bytes, at, (int32_t)list->count, allocator, vocabulary, err);
  mem_free(allocator, at);
  return status;
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
  struct entry_list list = {0};
  unroll_vocabulary *v = NULL;
  unroll_status status;
  TRY_GOTO(status, read_array(&j, &list, allocator, err), end);
  TRY_GOTO(status, create_from(&list, allocator, &v, err), end);
  TRY_GOTO(status, check_unique(v, err), end);
  *vocabulary = v;
  v = NULL;
end:
  unroll_vocabulary_destroy(v);
  word_table_free(&list.words, allocator);
  mem_free(allocator, list.codes);
  json_reader_free(&j);
  return status;
}

int32_t unroll_vocabulary_unit(const unroll_vocabulary *v) { return v->unit; }

const char *unroll_vocabulary_text(const unroll_vocabulary *v, int32_t id) {
  return id >= 0 && id < v->count ? v->bytes + v->at[id] : NULL;
}

const char *unroll_vocabulary_json(const unroll_vocabulary *v) { return v->json; }

int32_t unroll_vocabulary_count(const unroll_vocabulary *v) { return v->count; }

static unroll_status encode_words(const unroll_vocabulary *v, const char *text, size_t bytes, int32_t *ids,
                                  size_t capacity, size_t *n, unroll_error *err) {
  const size_t valid = utf8_check(text, bytes);
  if (valid < bytes)
    return fail(err, UNROLL_E_FORMAT, "byte %zu of the text is not UTF-8", valid);
  size_t count = 0, at = 0, length;
  const char *word;
  for (; word_next(text, bytes, &at, &word, &length); count++)
    if (count < capacity) {
      const int32_t id = vocabulary_word_id(v, word, length);
      ids[count] = id < 0 ? 0 : id;
    }
  *n = count;
  if (ids != NULL && count > capacity)
    return fail(err, UNROLL_E_RANGE, "the text has %zu words, there is room for %zu", count, capacity);
  return UNROLL_OK;
}

unroll_status unroll_vocabulary_encode(const unroll_vocabulary *v, const char *text, size_t bytes, int32_t *ids,
                                       size_t capacity, size_t *n, unroll_error *err) {
  if (v == NULL || n == NULL || (text == NULL && bytes > 0) || (ids == NULL && capacity > 0))
    return fail(err, UNROLL_E_INVALID, "unroll_vocabulary_encode: %s is NULL",
                v == NULL                     ? "vocabulary"
                : n == NULL                   ? "n"
                : ids == NULL && capacity > 0 ? "ids"
                                              : "text");
  if (v->unit == UNROLL_UNIT_WORD)
    return encode_words(v, text, bytes, ids, capacity, n, err);
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
  if (v->unit != UNROLL_UNIT_CHARACTER)
    return fail(err, UNROLL_E_INVALID, "unroll_vocabulary_decode: a vocabulary of words; see unroll_vocabulary_text");
  character[utf8_encode(v->codes[id], character)] = 0;
  return UNROLL_OK;
}
