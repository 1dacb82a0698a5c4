/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "data/tokens.h"
#include "data/utf8.h"

static bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

size_t token_next(const char *text, size_t bytes, size_t *at, int32_t unit, const char **token) {
  if (unit == UNROLL_UNIT_WORD)
    while (*at < bytes && is_space(text[*at]))
      (*at)++;
  if (*at == bytes)
    return 0;
  *token = text + *at;
  size_t size = 0;
  if (unit == UNROLL_UNIT_WORD) {
    while (*at + size < bytes && !is_space(text[*at + size]))
      size++;
  } else if (unit == UNROLL_UNIT_WHOLE) {
    size = bytes - *at;
  } else {
    uint32_t code;
    size = utf8_decode((const unsigned char *)text + *at, bytes - *at, &code);
  }
  *at += size;
  return size;
}

void token_set_free(struct token_set *s) {
  mem_free(s->allocator, s->text.data);
  mem_free(s->allocator, s->entries);
  mem_free(s->allocator, s->slots);
  *s = (struct token_set){.allocator = s->allocator};
}

/* The slot where the string stands, or the free one where it would. */
static uint32_t slot_of(const struct token_set *s, const char *token, size_t size) {
  uint64_t hash = hash64(token, size, HASH64_SEED);
  uint32_t slot = (uint32_t)(hash ^ hash >> 32) & (s->n_slots - 1);
  while (s->slots[slot] != 0) {
    const struct token_entry *e = &s->entries[s->slots[slot] - 1];
    if (e->size == size && memcmp(s->text.data + e->start, token, size) == 0)
      break;
    slot = (slot + 1) & (s->n_slots - 1);
  }
  return slot;
}

static bool grow_slots(struct token_set *s) {
  const uint32_t n_slots = s->n_slots == 0 ? 64 : 2 * s->n_slots;
  uint32_t *slots = mem_array(s->allocator, n_slots, sizeof *slots);
  if (slots == NULL)
    return false;
  mem_free(s->allocator, s->slots);
  s->slots = slots;
  s->n_slots = n_slots;
  for (uint32_t i = 0; i < s->n; i++)
    s->slots[slot_of(s, token_set_text(s, i), s->entries[i].size)] = i + 1;
  return true;
}

bool token_set_add(struct token_set *s, const char *token, size_t size, uint32_t *entry) {
  if (size > INT32_MAX || s->n >= (1u << 30) || (s->n >= s->n_slots / 2 && !grow_slots(s)))
    return false;
  const uint32_t slot = slot_of(s, token, size);
  if (s->slots[slot] != 0) {
    *entry = s->slots[slot] - 1;
    return true;
  }
  if (!mem_grow(s->allocator, &s->entries, &s->capacity, s->n + 1, sizeof *s->entries) ||
      !bytes_reserve(s->allocator, &s->text, size + 1))
    return false;
  s->entries[s->n] = (struct token_entry){.start = s->text.size, .size = (uint32_t)size};
  if (size > 0)
    memcpy(s->text.data + s->text.size, token, size);
  s->text.data[s->text.size + size] = 0;
  s->text.size += size + 1;
  *entry = s->n++;
  s->slots[slot] = s->n;
  return true;
}

int64_t token_set_find(const struct token_set *s, const char *token, size_t size) {
  return s->n_slots == 0 ? -1 : (int64_t)s->slots[slot_of(s, token, size)] - 1;
}
