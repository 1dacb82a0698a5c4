/* SPDX-License-Identifier: Apache-2.0 */
#include "data/input.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data/utf8.h"

unroll_status input_open_file(const char *path, int *fd, uint64_t *size, unroll_error *err) {
  /* not blocking, so that a named pipe is refused rather than waited for */
  *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (*fd < 0)
    return fail_native(err, UNROLL_E_IO, errno, "%s: %s", SHOWN_PATH(path), strerror(errno));
  struct stat st;
  unroll_status status = UNROLL_OK;
  if (fstat(*fd, &st) != 0)
    status = fail_native(err, UNROLL_E_IO, errno, "%s: %s", SHOWN_PATH(path), strerror(errno));
  else if (!S_ISREG(st.st_mode))
    status = fail(err, UNROLL_E_IO, "%s: %s, not a regular file", SHOWN_PATH(path),
                  S_ISDIR(st.st_mode) ? "a directory" : "a device, pipe or socket");
  else if (st.st_size == 0)
    status = fail(err, UNROLL_E_FORMAT, "%s: the file is empty", SHOWN_PATH(path));
  if (status != UNROLL_OK)
    close(*fd);
  else
    *size = (uint64_t)st.st_size;
  return status;
}

unroll_status input_open(struct input *in, const char *path, const unroll_allocator *allocator, unroll_error *err) {
  *in = (struct input){.allocator = allocator, .path = path, .hash = HASH64_SEED, .line = 1, .fd = -1};
  in->piece = mem_alloc(allocator, INPUT_PIECE);
  if (in->piece == NULL)
    return fail(err, UNROLL_E_MEMORY, "%s: no memory to read it", SHOWN_PATH(path));
  int fd;
  uint64_t size;
  TRY(input_open_file(path, &fd, &size, err));
  in->fd = fd;
  TRY(input_refill(in, err));
  if (in->end >= 3 && memcmp(in->piece, "\xEF\xBB\xBF", 3) == 0)
    in->at = 3;
  return UNROLL_OK;
}

void input_close(struct input *in) {
  if (in->fd >= 0)
    close(in->fd);
  in->fd = -1;
  mem_free(in->allocator, in->piece);
  in->piece = NULL;
}

unroll_status input_refill(struct input *in, unroll_error *err) {
  ssize_t n;
  do
    n = read(in->fd, in->piece, INPUT_PIECE);
  while (n < 0 && errno == EINTR);
  if (n < 0)
    return fail_native(err, UNROLL_E_IO, errno, "%s: line %" PRId64 ": %s", SHOWN_PATH(in->path), in->line,
                       strerror(errno));
  in->at = 0;
  in->end = (size_t)n;
  in->hash = hash64(in->piece, in->end, in->hash);
  const unsigned char *nul = memchr(in->piece, 0, in->end);
  if (nul != NULL) {
    for (const unsigned char *s = in->piece; s < nul; s++)
      in->line += *s == '\n';
    return fail(err, UNROLL_E_FORMAT, "%s: line %" PRId64 ": a NUL, so this is not a text", SHOWN_PATH(in->path),
                in->line);
  }
  return UNROLL_OK;
}

bool bytes_reserve(const unroll_allocator *a, struct bytes *b, uint64_t more) {
  uint64_t need;
  if (!size_add(b->size, more, &need))
    return false;
  if (need <= b->capacity)
    return true;
  uint64_t capacity = b->capacity < 64 ? 64 : b->capacity;
  while (capacity < need)
    if (!size_mul(capacity, 2, &capacity))
      return false;
  char *data = mem_alloc(a, capacity);
  if (data == NULL)
    return false;
  if (b->size > 0)
    memcpy(data, b->data, (size_t)b->size);
  mem_free(a, b->data);
  b->data = data;
  b->capacity = capacity;
  return true;
}
