/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SEQUENCES_H
#define SEQUENCES_H
#include <unroll/datasets.h>

#include "data/input.h"

struct unroll_sequences {
  unroll_allocator allocator;
  int64_t count, features; /* 0 features: ids */
  uint32_t capacity, label_capacity, start_capacity;
  int32_t *lengths, *labels;
  int64_t *starts;   /* [count] in steps */
  struct bytes data; /* int32_t ids, or double values */
  uint64_t *keys;
  unroll_tokens *names;
};

unroll_status sequences_create(int64_t features, const unroll_allocator *allocator, unroll_sequences **sequences,
                               unroll_error *err);
/* A new sequence of length 0 at the end. */
unroll_status sequences_begin(unroll_sequences *s, unroll_error *err);
/* One more step of the last sequence: `features` numbers, or one id. */
unroll_status sequences_step(unroll_sequences *s, const void *step, unroll_error *err);
/* All are there. */
unroll_status sequences_finish(unroll_sequences *s, unroll_error *err);
#endif
