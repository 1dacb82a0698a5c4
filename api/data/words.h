/* SPDX-License-Identifier: Apache-2.0 */
/* Words of a text: what stands between white space, and each line's end. */
#ifndef WORDS_H
#define WORDS_H
#include "base/base_private.h"

#define WORD_UNKNOWN "<unk>"

/* The next word of text from *at on, which moves behind it; false where there is none. */
bool word_next(const char *text, size_t size, size_t *at, const char **word, size_t *n);
/* Could it be a word of a text? */
bool word_is_one(const char *s, size_t n);

/* Different words in the order they were met, and how often. All zeros: empty. */
struct word_entry {
  uint32_t at, length; /* in bytes */
  uint64_t hash;
  int64_t count;
};
struct word_table {
  char *bytes; /* each with a NUL behind it */
  uint32_t used, capacity;
  struct word_entry *entries;
  uint32_t n, entry_capacity;
  uint32_t *slots, n_slots; /* entry + 1; 0: free */
};
/* The word's entry, counted once more. false: no memory. */
bool word_table_add(struct word_table *t, const char *word, size_t n, const unroll_allocator *a, uint32_t *entry);
void word_table_free(struct word_table *t, const unroll_allocator *a);

#endif
