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
  int32_t count;
  int32_t ascii[128];              /* the ids of the first 128 code points, -1 where there is none */
  uint32_t *codes;                 /* [count] by id */
  struct vocabulary_entry *sorted; /* [count] by code point */
  char *json;
};

/* Code points, all different, in the order of their ids; copied. */
unroll_status vocabulary_create(const uint32_t *codes, int32_t count, const unroll_allocator *allocator,
                                unroll_vocabulary **vocabulary, unroll_error *err);
/* The id of a code point, or -1. */
int32_t vocabulary_id(const unroll_vocabulary *v, uint32_t code);

/* A character for a message: "U+0041 'A'". */
#define CHARACTER_SHOWN 24
#define SHOWN_CHARACTER(code) vocabulary_shown((char[CHARACTER_SHOWN]){0}, (code))
const char *vocabulary_shown(char to[CHARACTER_SHOWN], uint32_t code);

#endif
