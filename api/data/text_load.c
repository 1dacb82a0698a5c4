/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data/input.h"
#include "data/utf8.h"
#include "data/vocabulary.h"
#include "data/words.h"

#define CODE_POINTS 0x110000u

struct unroll_text {
  unroll_allocator allocator;
  int32_t *ids; /* code points, or entries of the table of words, while files are read */
  int64_t count, capacity, unknown;
  uint64_t hash;
  unroll_vocabulary *vocabulary;
};

/* Where the text stands while it is read. */
struct load {
  const char *const *paths;
  size_t n_paths;
  const unroll_vocabulary *given;
  bool skip_unknown, words;
  int64_t min_count; /* of words */
  const unroll_allocator *allocator;
  unsigned char *seen; /* [CODE_POINTS / 8] a bit per code point */
  struct word_table *table;
  unroll_text *text;
};

/* All files before the first byte is read: a text that is too large is refused at once. */
static unroll_status check_sizes(const struct load *l, unroll_error *err) {
  uint64_t total = 0;
  for (size_t i = 0; i < l->n_paths; i++) {
    int fd;
    uint64_t size = 0;
    if (l->paths[i] == NULL)
      return fail(err, UNROLL_E_INVALID, "unroll_text_load: path %zu is NULL", i);
    TRY(input_open_file(l->paths[i], &fd, &size, err));
    close(fd);
    if (!size_add(total, size, &total) || total > INT32_MAX)
      return fail(err, UNROLL_E_RANGE,
                  "%s: %" PRIu64 " bytes, %" PRIu64 " with the files before it; a text has at most %d",
                  SHOWN_PATH(l->paths[i]), size, total, INT32_MAX);
  }
  return UNROLL_OK;
}

static unroll_status read_all(int fd, const char *path, unsigned char *to, size_t size, unroll_error *err) {
  for (size_t at = 0; at < size;) {
    const ssize_t n = read(fd, to + at, size - at);
    if (n < 0 && errno == EINTR)
      continue;
    if (n < 0)
      return fail_native(err, UNROLL_E_IO, errno, "%s: reading byte %zu: %s", SHOWN_PATH(path), at, strerror(errno));
    if (n == 0)
      return fail(err, UNROLL_E_IO, "%s: it ended at byte %zu of %zu: it was cut short while it was read",
                  SHOWN_PATH(path), at, size);
    at += (size_t)n;
  }
  return UNROLL_OK;
}

/* A file's bytes, to be freed by the caller. */
static unroll_status read_file(const struct load *l, const char *path, unsigned char **bytes, size_t *size,
                               unroll_error *err) {
  int fd;
  uint64_t n = 0;
  TRY(input_open_file(path, &fd, &n, err));
  unroll_status status = UNROLL_OK;
  unsigned char *data = NULL;
  if (n > INT32_MAX)
    status = fail(err, UNROLL_E_RANGE, "%s: %" PRIu64 " bytes, a text has at most %d", SHOWN_PATH(path), n, INT32_MAX);
  else if ((data = mem_alloc(l->allocator, n)) == NULL)
    status = fail(err, UNROLL_E_MEMORY, "%s: no memory for its %" PRIu64 " bytes", SHOWN_PATH(path), n);
  else
    status = read_all(fd, path, data, (size_t)n, err);
  close(fd);
  if (status != UNROLL_OK) {
    mem_free(l->allocator, data);
    return status;
  }
  *bytes = data;
  *size = (size_t)n;
  return UNROLL_OK;
}

static size_t line_of(const unsigned char *bytes, size_t at) {
  size_t line = 1;
  for (size_t i = 0; i < at; i++)
    line += bytes[i] == '\n';
  return line;
}

/* Counts the characters, marks them as seen; the place of the first byte that can't be. */
static unroll_status scan(const struct load *l, const char *path, const unsigned char *bytes, size_t size,
                          int64_t *count, unroll_error *err) {
  int64_t n = 0;
  for (size_t at = 0; at < size; n++) {
    uint32_t code;
    const size_t length = utf8_decode(bytes + at, size - at, &code);
    if (length == 0)
      return fail(err, UNROLL_E_FORMAT, "%s: byte %zu, line %zu: 0x%02X is not UTF-8", SHOWN_PATH(path), at,
                  line_of(bytes, at), bytes[at]);
    if (code == 0)
      return fail(err, UNROLL_E_FORMAT, "%s: byte %zu, line %zu: a NUL, so this is not a text", SHOWN_PATH(path), at,
                  line_of(bytes, at));
    if (l->given != NULL && !l->words && !l->skip_unknown && vocabulary_id(l->given, code) < 0)
      return fail(err, UNROLL_E_NOT_FOUND,
                  "%s: byte %zu, line %zu: %s is not in the vocabulary of %" PRId32 " characters", SHOWN_PATH(path), at,
                  line_of(bytes, at), SHOWN_CHARACTER(code), l->given->count);
    l->seen[code / 8] |= (unsigned char)(1u << code % 8);
    at += length;
  }
  *count = n;
  return UNROLL_OK;
}

/* Makes room for n more ids. */
static unroll_status reserve(const struct load *l, int64_t n, unroll_error *err) {
  unroll_text *t = l->text;
  const int64_t total = t->count + n;
  const char *const what = l->words ? "words" : "characters";
  if (total > INT32_MAX)
    return fail(err, UNROLL_E_RANGE, "the text has %" PRId64 " %s, at most %d are possible", total, what, INT32_MAX);
  if (total > t->capacity) {
    /* doubling, so that many small files don't copy the text once each */
    const int64_t capacity = t->count == 0 || total > 2 * t->capacity ? total : 2 * t->capacity;
    int32_t *ids = mem_alloc(l->allocator, (uint64_t)capacity * sizeof *ids);
    if (ids == NULL)
      return fail(err, UNROLL_E_MEMORY, "no memory for a text of %" PRId64 " %s", total, what);
    if (t->count > 0)
      memcpy(ids, t->ids, (size_t)t->count * sizeof *ids);
    mem_free(l->allocator, t->ids);
    t->ids = ids;
    t->capacity = capacity;
  }
  return UNROLL_OK;
}

/* Appends n code points to the text. */
static unroll_status append(const struct load *l, const unsigned char *bytes, size_t size, int64_t n,
                            unroll_error *err) {
  unroll_text *t = l->text;
  TRY(reserve(l, n, err));
  for (size_t at = 0; at < size;) {
    uint32_t code = 0;
    at += utf8_decode(bytes + at, size - at, &code);
    t->ids[t->count++] = (int32_t)code;
  }
  return UNROLL_OK;
}

static unroll_status append_words(const struct load *l, const char *bytes, size_t size, unroll_error *err) {
  unroll_text *t = l->text;
  size_t at = 0, length;
  const char *word;
  int64_t n = 0;
  while (word_next(bytes, size, &at, &word, &length))
    n++;
  TRY(reserve(l, n, err));
  for (at = 0; word_next(bytes, size, &at, &word, &length);) {
    uint32_t entry;
    if (!word_table_add(l->table, word, length, l->allocator, &entry))
      return fail(err, UNROLL_E_MEMORY, "no memory for a table of more than %" PRIu32 " words", l->table->n);
    t->ids[t->count++] = (int32_t)entry;
  }
  return UNROLL_OK;
}

static unroll_status load_files(const struct load *l, unroll_error *err) {
  for (size_t i = 0; i < l->n_paths; i++) {
    unsigned char *bytes = NULL;
    size_t size = 0;
    int64_t n = 0;
    TRY(read_file(l, l->paths[i], &bytes, &size, err));
    unroll_status status = scan(l, l->paths[i], bytes, size, &n, err);
    if (status == UNROLL_OK)
      status = l->words ? append_words(l, (const char *)bytes, size, err) : append(l, bytes, size, n, err);
    l->text->hash = hash64(bytes, size, l->text->hash);
    mem_free(l->allocator, bytes);
    TRY(status);
  }
  return UNROLL_OK;
}

/* Those that are met more often come first; then in the order of their bytes. */
struct ranked {
  int64_t count;
  const char *word;
  uint32_t at;
};
static int by_rank(const void *a, const void *b) {
  const struct ranked *x = a, *y = b;
  return x->count != y->count ? (x->count < y->count) - (x->count > y->count) : strcmp(x->word, y->word);
}

/* The unknown word, then all that are met often enough. */
static unroll_status make_words(const struct load *l, unroll_error *err) {
  struct word_table *t = l->table;
  uint32_t unknown, n = 0;
  struct ranked *ranked = NULL;
  uint32_t *at = NULL;
  unroll_status status = UNROLL_OK;
  if (!word_table_add(t, WORD_UNKNOWN, strlen(WORD_UNKNOWN), l->allocator, &unknown) ||
      !(ranked = mem_array(l->allocator, t->n, sizeof *ranked)) || !(at = mem_array(l->allocator, t->n, sizeof *at))) {
    mem_free(l->allocator, ranked);
    return fail(err, UNROLL_E_MEMORY, "no memory for a vocabulary of %" PRIu32 " words", t->n);
  }
  int64_t most = 0;
  for (uint32_t i = 0; i < t->n; i++) {
    const struct word_entry *e = &t->entries[i];
    if (i == unknown)
      continue;
    most = e->count > most ? e->count : most;
    if (e->count >= l->min_count)
      ranked[n++] = (struct ranked){e->count, t->bytes + e->at, e->at};
  }
  qsort(ranked, n, sizeof *ranked, by_rank);
  at[0] = t->entries[unknown].at;
  for (uint32_t i = 0; i < n; i++)
    at[i + 1] = ranked[i].at;
  if (n == 0)
    status =
        fail(err, UNROLL_E_FORMAT,
             "%s: no word is met %" PRId64 " times, the least count; the one met most often is met %" PRId64 " times",
             SHOWN_PATH(l->paths[0]), l->min_count, most);
  else
    status = vocabulary_create_words(t->bytes, at, (int32_t)n + 1, l->allocator, &l->text->vocabulary, err);
  mem_free(l->allocator, ranked);
  mem_free(l->allocator, at);
  return status;
}

/* The characters that were seen, by code point. */
static unroll_status make_vocabulary(const struct load *l, unroll_error *err) {
  if (l->given != NULL)
    return vocabulary_copy(l->given, l->allocator, &l->text->vocabulary, err);
  if (l->words)
    return make_words(l, err);
  int32_t count = 0;
  uint32_t last = 0;
  for (uint32_t code = 0; code < CODE_POINTS; code++)
    if (l->seen[code / 8] >> code % 8 & 1) {
      count++;
      last = code;
    }
  if (count < 2)
    return fail(err, UNROLL_E_FORMAT, "%s: nothing but the character %s; a text needs at least 2 different characters",
                SHOWN_PATH(l->paths[0]), SHOWN_CHARACTER(last));
  uint32_t *codes = mem_array(l->allocator, (uint64_t)count, sizeof *codes);
  if (codes == NULL)
    return fail(err, UNROLL_E_MEMORY, "no memory for a vocabulary of %" PRId32 " characters", count);
  int32_t n = 0;
  for (uint32_t code = 0; code <= last; code++)
    if (l->seen[code / 8] >> code % 8 & 1)
      codes[n++] = code;
  const unroll_status status = vocabulary_create(codes, count, l->allocator, &l->text->vocabulary, err);
  mem_free(l->allocator, codes);
  return status;
}

/* Entries of the table become ids, in place; those that the vocabulary lacks the unknown word. */
static unroll_status map_words(const struct load *l, unroll_error *err) {
  unroll_text *t = l->text;
  int32_t *ids = mem_array(l->allocator, l->table->n, sizeof *ids);
  if (ids == NULL)
    return fail(err, UNROLL_E_MEMORY, "no memory for the ids of %" PRIu32 " words", l->table->n);
  for (uint32_t i = 0; i < l->table->n; i++) {
    const struct word_entry *e = &l->table->entries[i];
    ids[i] = vocabulary_word_id(t->vocabulary, l->table->bytes + e->at, e->length);
  }
  for (int64_t i = 0; i < t->count; i++) {
    const int32_t id = ids[t->ids[i]];
    t->unknown += id < 0;
    t->ids[i] = id < 0 ? 0 : id;
  }
  mem_free(l->allocator, ids);
  return UNROLL_OK;
}

/* Code points become ids, in place. */
static unroll_status map_ids(const struct load *l, unroll_error *err) {
  unroll_text *t = l->text;
  int64_t kept = 0;
  for (int64_t i = 0; i < t->count; i++) {
    const int32_t id = vocabulary_id(t->vocabulary, (uint32_t)t->ids[i]);
    if (id >= 0)
      t->ids[kept++] = id;
  }
  t->unknown = t->count - kept;
  t->count = kept;
  if (kept == 0)
    return fail(err, UNROLL_E_NOT_FOUND, "%s: none of its %" PRId64 " characters is in the vocabulary",
                SHOWN_PATH(l->paths[0]), t->unknown);
  return UNROLL_OK;
}

static unroll_status load(const struct load *l, unroll_error *err) {
  TRY(check_sizes(l, err));
  TRY(load_files(l, err));
  if (l->words && l->text->count == 0)
    return fail(err, UNROLL_E_FORMAT, "%s: nothing but white space", SHOWN_PATH(l->paths[0]));
  TRY(make_vocabulary(l, err));
  return l->words ? map_words(l, err) : map_ids(l, err);
}

unroll_status unroll_text_load(const char *const *paths, size_t n_paths, const unroll_text_options *options,
                               const unroll_allocator *allocator, unroll_text **text, unroll_error *err) {
  if (paths == NULL || n_paths == 0 || text == NULL)
    return fail(err, UNROLL_E_INVALID, "unroll_text_load: %s", text == NULL ? "text is NULL" : "no path");
  const int32_t unknown = options == NULL ? UNROLL_UNKNOWN_ERROR : options->unknown;
  if (unknown != UNROLL_UNKNOWN_ERROR && unknown != UNROLL_UNKNOWN_SKIP)
    return fail(err, UNROLL_E_INVALID, "unroll_text_load: unknown is %" PRId32 ", not UNROLL_UNKNOWN_ERROR or _SKIP",
                unknown);
  const unroll_text_options none = {NULL, UNROLL_UNKNOWN_ERROR, UNROLL_UNIT_CHARACTER, 0};
  const unroll_text_options *o = options == NULL ? &none : options;
  if (o->unit != UNROLL_UNIT_CHARACTER && o->unit != UNROLL_UNIT_WORD)
    return fail(err, UNROLL_E_INVALID, "unroll_text_load: unit is %" PRId32 ", not UNROLL_UNIT_CHARACTER or _WORD",
                o->unit);
  if (o->min_count < 0)
    return fail(err, UNROLL_E_INVALID, "unroll_text_load: min_count is %" PRId64 ", it must be at least 0",
                o->min_count);
  struct word_table table = {0};
  struct load l = {.paths = paths,
                   .n_paths = n_paths,
                   .given = o->vocabulary,
                   .skip_unknown = unknown == UNROLL_UNKNOWN_SKIP,
                   .words = (o->vocabulary != NULL ? o->vocabulary->unit : o->unit) == UNROLL_UNIT_WORD,
                   .min_count = o->min_count,
                   .allocator = allocator,
                   .table = &table};
  l.seen = mem_zalloc(allocator, CODE_POINTS / 8);
  l.text = mem_zalloc(allocator, sizeof *l.text);
  unroll_status status;
  if (l.seen == NULL || l.text == NULL) {
    status = fail(err, UNROLL_E_MEMORY, "no memory for a text");
    mem_free(allocator, l.text);
    l.text = NULL;
  } else {
    if (allocator != NULL)
      l.text->allocator = *allocator;
    l.text->hash = HASH64_SEED;
    status = load(&l, err);
  }
  mem_free(allocator, l.seen);
  word_table_free(&table, allocator);
  if (status != UNROLL_OK)
    unroll_text_destroy(l.text);
  else
    *text = l.text;
  return status;
}

void unroll_text_destroy(unroll_text *t) {
  if (t == NULL)
    return;
  const unroll_allocator a = t->allocator;
  unroll_vocabulary_destroy(t->vocabulary);
  mem_free(&a, t->ids);
  mem_free(&a, t);
}

const int32_t *unroll_text_ids(const unroll_text *t) { return t->ids; }
int64_t unroll_text_count(const unroll_text *t) { return t->count; }
int64_t unroll_text_unknown(const unroll_text *t) { return t->unknown; }
uint64_t unroll_text_hash(const unroll_text *t) { return t->hash; }
const unroll_vocabulary *unroll_text_vocabulary(const unroll_text *t) { return t->vocabulary; }

int64_t unroll_text_train_count(const unroll_text *t, double validation) {
  if (!(validation >= 0 && validation < 1))
    return -1;
  return t->count - (int64_t)((double)t->count * validation);
}
