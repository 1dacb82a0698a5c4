/* SPDX-License-Identifier: Apache-2.0 */
/* tokens.h: texts cut into tokens, and sets of tokens by their bytes. */
#ifndef TOKENS_H
#define TOKENS_H
#include <unroll/datasets.h>

#include "data/input.h"

extern const char *const token_names[UNROLL_TOKEN_KINDS];

/* The bytes of the token at *at, which is moved behind it; 0 at the end of the text. Valid UTF-8 is expected. */
size_t token_next(const char *text, size_t bytes, size_t *at, int32_t unit, const char **token);

/* Different strings, each with a count; a slot of 0 is free, else it is an entry's number + 1. */
struct token_entry {
  uint64_t start;
  uint32_t size;
  int32_t id; /* by the owner */
  int64_t count;
};
struct token_set {
  const unroll_allocator *allocator; /* must outlive the set */
  struct bytes text;                 /* the strings, each with a final NUL */
  struct token_entry *entries;       /* [n] */
  uint32_t *slots;                   /* [n_slots], a power of two */
  uint32_t n, capacity, n_slots;
};
void token_set_free(struct token_set *s);
/* The entry of a string, which is added with a count of 0 where it is new; false: no memory. */
bool token_set_add(struct token_set *s, const char *token, size_t size, uint32_t *entry);
/* The entry, or -1. */
int64_t token_set_find(const struct token_set *s, const char *token, size_t size);
static inline const char *token_set_text(const struct token_set *s, uint32_t entry) {
  return s->text.data + s->entries[entry].start;
}

/*
 * A vocabulary of whole texts without specials, in this order: order [n] has entries of the set. What
 * unroll_sequences_load makes of labels.
 */
unroll_status tokens_of_set(const struct token_set *set, const uint32_t *order, uint32_t n,
                            const unroll_allocator *allocator, unroll_tokens **tokens, unroll_error *err);
#endif
