/* SPDX-License-Identifier: Apache-2.0 */
/* Files that nobody vouches for, whole or in pieces of fixed size: a line may be as long as memory holds. */
#ifndef INPUT_H
#define INPUT_H
#include "base/base_private.h"

/* A regular file that is not empty. The caller closes *fd. */
unroll_status input_open_file(const char *path, int *fd, uint64_t *size, unroll_error *err);

#define INPUT_PIECE 65536
struct input {
  const unroll_allocator *allocator;
  const char *path;
  unsigned char *piece;
  size_t at, end; /* what is left of the piece */
  uint64_t hash;  /* of all pieces so far */
  int64_t line;   /* of the next byte, from 1 */
  int fd;         /* -1: closed */
};

/* Opens and passes over a byte order mark. path must stay. Closed by input_close, also where it fails. */
unroll_status input_open(struct input *in, const char *path, const unroll_allocator *allocator, unroll_error *err);
void input_close(struct input *in);
unroll_status input_refill(struct input *in, unroll_error *err);

/* The next byte, counted; -1 at the end. A NUL is refused. */
static inline unroll_status input_next(struct input *in, int *byte, unroll_error *err) {
  if (in->at == in->end)
    TRY(input_refill(in, err));
  *byte = in->at == in->end ? -1 : in->piece[in->at++];
  in->line += *byte == '\n';
  return UNROLL_OK;
}
/* The next byte, not taken; -1 at the end. */
static inline unroll_status input_peek(struct input *in, int *byte, unroll_error *err) {
  if (in->at == in->end)
    TRY(input_refill(in, err));
  *byte = in->at == in->end ? -1 : in->piece[in->at];
  return UNROLL_OK;
}

/* Bytes that grow. */
struct bytes {
  char *data;
  uint64_t size, capacity;
};
bool bytes_reserve(const unroll_allocator *a, struct bytes *b, uint64_t more);
static inline bool bytes_push(const unroll_allocator *a, struct bytes *b, char c) {
  if (b->size == b->capacity && !bytes_reserve(a, b, 1))
    return false;
  b->data[b->size++] = c;
  return true;
}
#endif
