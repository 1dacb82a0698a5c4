/* SPDX-License-Identifier: Apache-2.0 */
#include "data/words.h"

#include <string.h>

static bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

bool word_next(const char *text, size_t size, size_t *at, const char **word, size_t *n) {
  size_t i = *at;
  while (i < size && is_space(text[i]) && text[i] != '\n')
    i++;
  if (i == size)
    return false;
  const size_t begin = i++;
  if (text[begin] != '\n')
    while (i < size && !is_space(text[i]))
      i++;
  *word = text + begin;
  *n = i - begin;
  *at = i;
  return true;
}

bool word_is_one(const char *s, size_t n) {
  size_t at = 0, length;
  const char *word;
  return word_next(s, n, &at, &word, &length) && length == n;
}

static bool grow_slots(struct word_table *t, const unroll_allocator *a) {
  const uint32_t n = t->n_slots ? 2 * t->n_slots : 1024;
  uint32_t *slots = mem_array(a, n, sizeof *slots);
  if (!slots)
    return false;
  for (uint32_t i = 0; i < t->n; i++) {
    uint32_t at = (uint32_t)t->entries[i].hash & (n - 1);
    while (slots[at])
      at = (at + 1) & (n - 1);
    slots[at] = i + 1;
  }
  mem_free(a, t->slots);
  t->slots = slots;
  t->n_slots = n;
  return true;
}

bool word_table_add(struct word_table *t, const char *word, size_t n, const unroll_allocator *a, uint32_t *entry) {
  if (2 * t->n >= t->n_slots && !grow_slots(t, a))
    return false;
  const uint64_t hash = hash64(word, n, HASH64_SEED);
  uint32_t at = (uint32_t)hash & (t->n_slots - 1);
  for (; t->slots[at]; at = (at + 1) & (t->n_slots - 1)) {
    struct word_entry *e = &t->entries[t->slots[at] - 1];
    if (e->hash == hash && e->length == n && memcmp(t->bytes + e->at, word, n) == 0) {
      e->count++;
      *entry = t->slots[at] - 1;
      return true;
    }
  }
  /* A text has fewer than 2^31 bytes, and so have its words with a NUL each. */
  if (!mem_grow(a, &t->entries, &t->entry_capacity, t->n + 1, sizeof *t->entries) ||
      !mem_grow(a, &t->bytes, &t->capacity, t->used + (uint32_t)n + 1, 1))
    return false;
  t->entries[t->n] = (struct word_entry){t->used, (uint32_t)n, hash, 1};
  memcpy(t->bytes + t->used, word, n);
  t->bytes[t->used + n] = '\0';
  t->used += (uint32_t)n + 1;
  t->slots[at] = t->n + 1;
  *entry = t->n++;
  return true;
}

void word_table_free(struct word_table *t, const unroll_allocator *a) {
  mem_free(a, t->bytes);
  mem_free(a, t->entries);
  mem_free(a, t->slots);
  *t = (struct word_table){0};
}
