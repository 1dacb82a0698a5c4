/* SPDX-License-Identifier: Apache-2.0 */
#include "data/tokens.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "data/json.h"
#include "data/utf8.h"

const char *const token_names[UNROLL_TOKEN_KINDS] = {"<pad>", "<s>", "</s>", "<unk>"};
static const char *const units[] = {"character", "word", "whole"};

struct unroll_tokens {
  unroll_allocator allocator;
  struct token_set set; /* the entry's number is the id */
  int32_t unit, special[UNROLL_TOKEN_KINDS];
  uint32_t specials;
  char *json;
};

/* ---- making one ---- */

static unroll_status no_memory(unroll_error *err) { return fail(err, UNROLL_E_MEMORY, "no memory for a vocabulary"); }

/* Empty but for the specials. */
static unroll_status create(int32_t unit, uint32_t specials, const unroll_allocator *allocator, unroll_tokens **tokens,
                            unroll_error *err) {
  unroll_tokens *t = mem_zalloc(allocator, sizeof *t);
  if (t == NULL)
    return no_memory(err);
  if (allocator != NULL)
    t->allocator = *allocator;
  t->set.allocator = &t->allocator;
  t->unit = unit;
  t->specials = specials;
  for (int32_t kind = 0; kind < UNROLL_TOKEN_KINDS; kind++) {
    uint32_t entry = 0;
    const bool has = (specials & UNROLL_TOKEN_BIT(kind)) != 0;
    if (has && !token_set_add(&t->set, token_names[kind], strlen(token_names[kind]), &entry)) {
      unroll_tokens_destroy(t);
      return no_memory(err);
    }
    t->special[kind] = has ? (int32_t)entry : -1;
  }
  *tokens = t;
  return UNROLL_OK;
}

static unroll_status finish(unroll_tokens *t, unroll_error *err) {
  struct text out;
  text_init(&out, &t->allocator);
  text_add(&out, "{\"unit\":\"%s\",\"specials\":%" PRIu32 ",\"tokens\":[", units[t->unit], t->specials);
  const uint32_t first = (uint32_t)__builtin_popcount(t->specials);
  for (uint32_t i = first; i < t->set.n; i++) {
    if (i > first)
      text_add_bytes(&out, ",", 1);
    json_add_string(&out, token_set_text(&t->set, i));
  }
  text_add_bytes(&out, "]}", 2);
  t->json = text_take(&out);
  return t->json == NULL ? no_memory(err) : UNROLL_OK;
}

void unroll_tokens_destroy(unroll_tokens *t) {
  if (t == NULL)
    return;
  const unroll_allocator a = t->allocator;
  token_set_free(&t->set);
  mem_free(&a, t->json);
  mem_free(&a, t);
}

unroll_status tokens_of_set(const struct token_set *set, const uint32_t *order, uint32_t n,
                            const unroll_allocator *allocator, unroll_tokens **tokens, unroll_error *err) {
  unroll_tokens *t = NULL;
  TRY(create(UNROLL_UNIT_WHOLE, 0, allocator, &t, err));
  unroll_status status = UNROLL_OK;
  for (uint32_t i = 0; i < n && status == UNROLL_OK; i++) {
    uint32_t entry;
    if (!token_set_add(&t->set, token_set_text(set, order[i]), set->entries[order[i]].size, &entry))
      status = no_memory(err);
  }
  if (status == UNROLL_OK)
    status = finish(t, err);
  if (status != UNROLL_OK)
    unroll_tokens_destroy(t);
  else
    *tokens = t;
  return status;
}

/* ---- from texts ---- */

struct ranked {
  const char *text;
  int64_t count;
};

static int by_bytes(const void *a, const void *b) {
  return strcmp(((const struct ranked *)a)->text, ((const struct ranked *)b)->text);
}

static int by_count(const void *a, const void *b) {
  const struct ranked *x = a, *y = b;
  return x->count != y->count ? (x->count < y->count) - (x->count > y->count) : by_bytes(a, b);
}

/* The specials' names as words: <unk> is that token, where there is one; the others have no place in a text. */
static unroll_status check_word(const unroll_tokens *t, const char *token, size_t size, int64_t text, bool *skip,
                                unroll_error *err) {
  *skip = false;
  for (int32_t kind = 0; kind < UNROLL_TOKEN_KINDS && t->unit != UNROLL_UNIT_CHARACTER; kind++)
    if (t->special[kind] >= 0 && strlen(token_names[kind]) == size && memcmp(token_names[kind], token, size) == 0) {
      if (kind != UNROLL_TOKEN_UNKNOWN)
        return fail(err, UNROLL_E_FORMAT, "text %" PRId64 " has the word %s, which is a special token's name", text,
                    token_names[kind]);
      *skip = true;
    }
  return UNROLL_OK;
}

static unroll_status count_text(const unroll_tokens *t, struct token_set *set, const char *text, int64_t number,
                                unroll_error *err) {
  const size_t bytes = strlen(text), valid = utf8_check(text, bytes);
  if (valid < bytes)
    return fail(err, UNROLL_E_FORMAT, "text %" PRId64 ": byte %zu is not UTF-8", number, valid);
  const char *token;
  size_t at = 0, size;
  while ((size = token_next(text, bytes, &at, t->unit, &token)) > 0) {
    uint32_t entry;
    bool skip;
    TRY(check_word(t, token, size, number, &skip, err));
    if (skip)
      continue;
    if (!token_set_add(set, token, size, &entry))
      return no_memory(err);
    set->entries[entry].count++;
  }
  return UNROLL_OK;
}

static unroll_status keep(unroll_tokens *t, const struct token_set *set, const unroll_tokens_options *o,
                          unroll_error *err) {
  struct ranked *ranked = mem_array(&t->allocator, set->n, sizeof *ranked);
  if (ranked == NULL)
    return no_memory(err);
  uint32_t n = 0;
  for (uint32_t i = 0; i < set->n; i++)
    if (set->entries[i].count >= o->at_least)
      ranked[n++] = (struct ranked){token_set_text(set, i), set->entries[i].count};
  if (o->most > 0 && n > (uint32_t)o->most) {
    qsort(ranked, n, sizeof *ranked, by_count);
    n = (uint32_t)o->most;
  }
  unroll_status status = n > 0 ? UNROLL_OK : fail(err, UNROLL_E_FORMAT, "no token for a vocabulary");
  if (n > 0)
    qsort(ranked, n, sizeof *ranked, by_bytes);
  for (uint32_t i = 0; i < n && status == UNROLL_OK; i++) {
    uint32_t entry;
    if (!token_set_add(&t->set, ranked[i].text, strlen(ranked[i].text), &entry))
      status = no_memory(err);
  }
  mem_free(&t->allocator, ranked);
  return status;
}

static unroll_status build(unroll_tokens *t, const char *const *texts, int64_t n, const unroll_tokens_options *o,
                           unroll_error *err) {
  struct token_set set = {.allocator = &t->allocator};
  unroll_status status = UNROLL_OK;
  for (int64_t i = 0; i < n && status == UNROLL_OK; i++)
    status = texts[i] != NULL ? count_text(t, &set, texts[i], i, err)
                              : fail(err, UNROLL_E_INVALID, "unroll_tokens_build: text %" PRId64 " is NULL", i);
  if (status == UNROLL_OK)
    status = keep(t, &set, o, err);
  token_set_free(&set);
  return status == UNROLL_OK ? finish(t, err) : status;
}

static unroll_status check_options(const unroll_tokens_options *o, unroll_error *err) {
  if (!UNROLL_HAS(unroll_tokens_options, o, at_least))
    return fail(err, UNROLL_E_INVALID, "unroll_tokens_build: the options' struct_size is too small");
  if (o->unit < UNROLL_UNIT_CHARACTER || o->unit > UNROLL_UNIT_WHOLE)
    return fail(err, UNROLL_E_INVALID, "unroll_tokens_build: unit is %" PRId32 ", not one of UNROLL_UNIT_*", o->unit);
  if (o->specials >> UNROLL_TOKEN_KINDS != 0)
    return fail(err, UNROLL_E_RANGE, "unroll_tokens_build: specials 0x%" PRIX32 ", there are %d kinds", o->specials,
                UNROLL_TOKEN_KINDS);
  if (o->most < 0 || o->at_least < 0)
    return fail(err, UNROLL_E_RANGE, "unroll_tokens_build: most %" PRId32 ", at_least %" PRId64 "; neither below 0",
                o->most, o->at_least);
  if ((o->most > 0 || o->at_least > 1) && !(o->specials & UNROLL_TOKEN_BIT(UNROLL_TOKEN_UNKNOWN)))
    return fail(err, UNROLL_E_RANGE, "unroll_tokens_build: where tokens are left out there must be %s",
                token_names[UNROLL_TOKEN_UNKNOWN]);
  return UNROLL_OK;
}

unroll_status unroll_tokens_build(const char *const *texts, int64_t n, const unroll_tokens_options *options,
                                  const unroll_allocator *allocator, unroll_tokens **tokens, unroll_error *err) {
  static const unroll_tokens_options defaults = {.struct_size = sizeof defaults};
  const unroll_tokens_options *o = options == NULL ? &defaults : options;
  if (texts == NULL || tokens == NULL || n < 1)
    return fail(err, UNROLL_E_INVALID, "unroll_tokens_build: %s",
                texts == NULL    ? "texts is NULL"
                : tokens == NULL ? "tokens is NULL"
                                 : "no text");
  TRY(check_options(o, err));
  unroll_tokens *t = NULL;
  TRY(create(o->unit, o->specials, allocator, &t, err));
  const unroll_status status = build(t, texts, n, o, err);
  if (status != UNROLL_OK)
    unroll_tokens_destroy(t);
  else
    *tokens = t;
  return status;
}

/* ---- from JSON ---- */

static unroll_status read_key(struct json_reader *j, const char *key, unroll_error *err) {
  TRY(json_string(j, err));
  if (strcmp(text_peek(&j->string), key) != 0)
    return fail(err, UNROLL_E_FORMAT, "vocabulary: %s where \"%s\" is expected",
                SHOWN(text_peek(&j->string), j->string.size), key);
  return json_expect(j, ':', err);
}

static unroll_status read_head(struct json_reader *j, int32_t *unit, uint32_t *specials, unroll_error *err) {
  TRY(json_expect(j, '{', err));
  TRY(read_key(j, "unit", err));
  TRY(json_string(j, err));
  const char *name = text_peek(&j->string);
  *unit = UNROLL_UNIT_CHARACTER;
  while (*unit <= UNROLL_UNIT_WHOLE && strcmp(name, units[*unit]) != 0)
    ++*unit;
  if (*unit > UNROLL_UNIT_WHOLE)
    return fail(err, UNROLL_E_FORMAT, "vocabulary: unit %s, expected \"character\", \"word\" or \"whole\"",
                SHOWN(name, j->string.size));
  TRY(json_expect(j, ',', err));
  TRY(read_key(j, "specials", err));
  uint64_t mask;
  TRY(json_number(j, &mask, err));
  if (mask >> UNROLL_TOKEN_KINDS != 0)
    return fail(err, UNROLL_E_FORMAT, "vocabulary: specials %" PRIu64 ", there are %d kinds", mask, UNROLL_TOKEN_KINDS);
  *specials = (uint32_t)mask;
  TRY(json_expect(j, ',', err));
  TRY(read_key(j, "tokens", err));
  return json_expect(j, '[', err);
}

static unroll_status read_tokens(struct json_reader *j, unroll_tokens *t, unroll_error *err) {
  bool more = true;
  while (more) {
    TRY(json_string(j, err));
    const char *s = text_peek(&j->string), *token = NULL;
    const size_t size = j->string.size;
    size_t at = 0;
    if (token_next(s, size, &at, t->unit, &token) != size || size == 0)
      return fail(err, UNROLL_E_FORMAT, "vocabulary: token %" PRIu32 ", %s, is not one %s", t->set.n, SHOWN(s, size),
                  t->unit == UNROLL_UNIT_WHOLE ? "text" : units[t->unit]);
    if (token_set_find(&t->set, s, size) >= 0)
      return fail(err, UNROLL_E_FORMAT, "vocabulary: token %s stands there twice", SHOWN(s, size));
    uint32_t entry;
    if (!token_set_add(&t->set, s, size, &entry))
      return no_memory(err);
    TRY(json_next(j, ']', &more, err));
  }
  TRY(json_expect(j, '}', err));
  return json_end(j, err);
}

unroll_status unroll_tokens_from_json(const char *json, size_t bytes, const unroll_allocator *allocator,
                                      unroll_tokens **tokens, unroll_error *err) {
  if (json == NULL || tokens == NULL)
    return fail(err, UNROLL_E_INVALID, "unroll_tokens_from_json: %s is NULL", json == NULL ? "json" : "tokens");
  const size_t valid = utf8_check(json, bytes);
  if (valid < bytes)
    return fail(err, UNROLL_E_FORMAT, "vocabulary: byte %zu is not UTF-8", valid);
  struct json_reader j;
  json_reader_init(&j, json, bytes, allocator);
  int32_t unit = 0;
  uint32_t specials = 0;
  unroll_tokens *t = NULL;
  unroll_status status;
  TRY_GOTO(status, read_head(&j, &unit, &specials, err), end);
  TRY_GOTO(status, create(unit, specials, allocator, &t, err), end);
  TRY_GOTO(status, read_tokens(&j, t, err), end);
  TRY_GOTO(status, finish(t, err), end);
  *tokens = t;
  t = NULL;
end:
  unroll_tokens_destroy(t);
  json_reader_free(&j);
  return status;
}

/* ---- looking ---- */

const char *unroll_tokens_json(const unroll_tokens *t) { return t->json; }

int32_t unroll_tokens_count(const unroll_tokens *t) { return (int32_t)t->set.n; }

int32_t unroll_tokens_unit(const unroll_tokens *t) { return t->unit; }

int32_t unroll_tokens_special(const unroll_tokens *t, int32_t kind) {
  return kind >= 0 && kind < UNROLL_TOKEN_KINDS ? t->special[kind] : -1;
}

int32_t unroll_tokens_find(const unroll_tokens *t, const char *token, size_t bytes) {
  return (int32_t)token_set_find(&t->set, token, bytes);
}

const char *unroll_tokens_text(const unroll_tokens *t, int32_t id) {
  return id >= 0 && (uint32_t)id < t->set.n ? token_set_text(&t->set, (uint32_t)id) : NULL;
}

static unroll_status id_of(const unroll_tokens *t, const char *token, size_t size, size_t at, int32_t *id,
                           unroll_error *err) {
  const int64_t entry = token_set_find(&t->set, token, size);
  *id = entry < 0 ? t->special[UNROLL_TOKEN_UNKNOWN] : (int32_t)entry;
  for (int32_t kind = 0; kind < UNROLL_TOKEN_UNKNOWN; kind++)
    if (entry >= 0 && *id == t->special[kind])
      return fail(err, UNROLL_E_FORMAT, "byte %zu of the text: the word %s is a special token's name", at,
                  token_names[kind]);
  return *id < 0 ? fail(err, UNROLL_E_NOT_FOUND, "byte %zu of the text: %s is not in the vocabulary of %" PRIu32, at,
                        SHOWN(token, size), t->set.n)
                 : UNROLL_OK;
}

unroll_status unroll_tokens_encode(const unroll_tokens *t, const char *text, size_t bytes, uint32_t add, int32_t *ids,
                                   size_t capacity, size_t *n, unroll_error *err) {
  if (t == NULL || n == NULL || (text == NULL && bytes > 0) || (ids == NULL && capacity > 0))
    return fail(err, UNROLL_E_INVALID, "unroll_tokens_encode: tokens, text, ids or n is NULL");
  const uint32_t ends = UNROLL_TOKEN_BIT(UNROLL_TOKEN_BEGIN) | UNROLL_TOKEN_BIT(UNROLL_TOKEN_END);
  if ((add & ~(ends & t->specials)) != 0)
    return fail(err, UNROLL_E_INVALID, "unroll_tokens_encode: add 0x%" PRIX32 ": it can add 0x%" PRIX32, add,
                ends & t->specials);
  const size_t valid = bytes == 0 ? 0 : utf8_check(text, bytes);
  if (valid < bytes)
    return fail(err, UNROLL_E_FORMAT, "byte %zu of the text is not UTF-8", valid);
  size_t count = 0, at = 0, size;
  const char *token = text;
  if (add & UNROLL_TOKEN_BIT(UNROLL_TOKEN_BEGIN) && count++ < capacity)
    ids[0] = t->special[UNROLL_TOKEN_BEGIN];
  while ((size = token_next(text, bytes, &at, t->unit, &token)) > 0) {
    int32_t id;
    TRY(id_of(t, token, size, (size_t)(token - text), &id, err));
    if (count++ < capacity)
      ids[count - 1] = id;
  }
  if (add & UNROLL_TOKEN_BIT(UNROLL_TOKEN_END) && count++ < capacity)
    ids[count - 1] = t->special[UNROLL_TOKEN_END];
  *n = count;
  if (ids != NULL && count > capacity)
    return fail(err, UNROLL_E_RANGE, "the text has %zu tokens, there is room for %zu", count, capacity);
  return UNROLL_OK;
}

unroll_status unroll_tokens_decode(const unroll_tokens *t, const int32_t *ids, size_t n, char *text, size_t capacity,
                                   size_t *bytes, unroll_error *err) {
  if (t == NULL || bytes == NULL || (ids == NULL && n > 0) || (text == NULL && capacity > 0))
    return fail(err, UNROLL_E_INVALID, "unroll_tokens_decode: tokens, ids, text or bytes is NULL");
  size_t used = 0;
  for (size_t i = 0; i < n; i++) {
    if (ids[i] < 0 || (uint32_t)ids[i] >= t->set.n)
      return fail(err, UNROLL_E_RANGE, "id %" PRId32 " at %zu: the vocabulary has 0 to %" PRIu32, ids[i], i,
                  t->set.n - 1);
    if (ids[i] == t->special[UNROLL_TOKEN_END])
      break;
    if (ids[i] == t->special[UNROLL_TOKEN_PAD] || ids[i] == t->special[UNROLL_TOKEN_BEGIN])
      continue;
    const struct token_entry *e = &t->set.entries[ids[i]];
    const bool blank = used > 0 && t->unit != UNROLL_UNIT_CHARACTER;
    if (blank && used < capacity)
      text[used] = ' ';
    used += blank;
    if (used < capacity && capacity - used > e->size)
      memcpy(text + used, token_set_text(&t->set, (uint32_t)ids[i]), e->size);
    used += e->size;
  }
  *bytes = used;
  if (text == NULL)
    return UNROLL_OK;
  if (used >= capacity)
    return fail(err, UNROLL_E_RANGE, "the text has %zu bytes and a NUL, there is room for %zu", used, capacity);
  text[used] = 0;
  return UNROLL_OK;
}
