/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VOCABULARY_H
#define VOCABULARY_H
#include <unroll/data.h>

#include "base/base_private.h"

struct vocabulary_entry {
  uint32_t code;
  int32_t id;
};

struct unroll_vocabulary {
  unroll_allocator allocator;
  int32_t count, unit;             /* UNROLL_UNIT_* */
  int32_t ascii[128];              /* the ids of the first 128 code points, -1 where there is none */
  uint32_t *codes;                 /* [count] by id; of characters */
  struct vocabulary_entry *sorted; /* [count] by code point; of characters */
  char *bytes;                     /* every character or word, a NUL behind each */
  uint32_t *at;                    /* [count] where it begins */
  int32_t *order;                  /* [count] ids by their bytes; of words */
  char *json;
};

/* Code points, all different, in the order of their ids; copied. */
unroll_status vocabulary_create(const uint32_t *codes, int32_t count, const unroll_allocator *allocator,
                                unroll_vocabulary **vocabulary, unroll_error *err);
/* Words, all different, in the order of their ids, the first one WORD_UNKNOWN: strings in `bytes`; copied. */
unroll_status vocabulary_create_words(const char *bytes, const uint32_t *at, int32_t count,
                                      const unroll_allocator *allocator, unroll_vocabulary **vocabulary,
                                      unroll_error *err);
unroll_status vocabulary_copy(const unroll_vocabulary *from, const unroll_allocator *allocator,
                              unroll_vocabulary **vocabulary, unroll_error *err);
/* The id of a code point, or -1. */
int32_t vocabulary_id(const unroll_vocabulary *v, uint32_t code);
/* The id of a word of n bytes, or -1. */
int32_t vocabulary_word_id(const unroll_vocabulary *v, const char *word, size_t n);

/* A character for a message: "U+0041 'A'". */
#define CHARACTER_SHOWN 24
#define SHOWN_CHARACTER(code) vocabulary_shown((char[CHARACTER_SHOWN]){0}, (code))
const char *vocabulary_shown(char to[CHARACTER_SHOWN], uint32_t code);

#endif
