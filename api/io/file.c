/* SPDX-License-Identifier: Apache-2.0 */
#include "io/file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "data/utf8.h"

#define NAME_TRIES 100

static unroll_status fail_errno(unroll_error *err, const char *path, const char *doing, int error) {
  return fail_native(err, UNROLL_E_IO, error, "%s: %s: %s", SHOWN_PATH(path), doing, strerror(error));
}

/* ---- mapped ---- */

static unroll_status map(struct mapped_file *f, int fd, const char *path, unroll_error *err) {
  struct stat st;
  if (fstat(fd, &st) != 0)
    return fail_errno(err, path, "stat", errno);
  if (!S_ISREG(st.st_mode))
    return fail(err, UNROLL_E_IO, "%s: %s, not a regular file", SHOWN_PATH(path),
                S_ISDIR(st.st_mode) ? "a directory" : "a device, pipe or socket");
  *f = (struct mapped_file){NULL, 0};
  if (st.st_size == 0)
    return UNROLL_OK;
  void *data = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
  if (data == MAP_FAILED)
    return fail_errno(err, path, "mapping it", errno);
  *f = (struct mapped_file){data, (size_t)st.st_size};
  return UNROLL_OK;
}

unroll_status mapped_file_open(struct mapped_file *f, const char *path, unroll_error *err) {
  /* not blocking, so that a named pipe is refused rather than waited for */
  const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0)
    return fail_native(err, UNROLL_E_IO, errno, "%s: %s", SHOWN_PATH(path), strerror(errno));
  const unroll_status status = map(f, fd, path, err);
  close(fd);
  return status;
}

void mapped_file_close(struct mapped_file *f) {
  if (f->data != NULL)
    munmap((void *)(uintptr_t)f->data, f->size);
  *f = (struct mapped_file){NULL, 0};
}

/* ---- atomic ---- */

static unroll_status open_folder(struct atomic_file *f, unroll_error *err) {
  const size_t length = (size_t)(f->name - f->path);
  char *folder = length == 0 ? mem_strdup(f->allocator, ".") : mem_printf(f->allocator, "%.*s", (int)length, f->path);
  if (folder == NULL)
    return fail(err, UNROLL_E_MEMORY, "%s: no memory to write it", SHOWN_PATH(f->path));
  f->folder = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const int error = errno;
  mem_free(f->allocator, folder);
  return f->folder < 0 ? fail_errno(err, f->path, "opening its folder", error) : UNROLL_OK;
}

/* Different in every process and at every call; O_EXCL is what makes it safe. */
static uint32_t some_number(void) {
  uint32_t n;
  if (getrandom(&n, sizeof n, GRND_NONBLOCK) != (ssize_t)sizeof n) {
    struct timespec now = {0};
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    n = (uint32_t)now.tv_nsec * 2654435761u ^ (uint32_t)getpid();
  }
  return n;
}

static unroll_status open_temporary(struct atomic_file *f, unroll_error *err) {
  const uint64_t size = strlen(f->name) + sizeof ".tmp-01234567";
  f->temporary = mem_alloc(f->allocator, size);
  if (f->temporary == NULL)
    return fail(err, UNROLL_E_MEMORY, "%s: no memory to write it", SHOWN_PATH(f->path));
  for (int i = 0; i < NAME_TRIES; i++) {
    (void)snprintf(f->temporary, size, "%s.tmp-%08" PRIx32, f->name, some_number());
    f->fd = openat(f->folder, f->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (f->fd >= 0)
      return UNROLL_OK;
    if (errno != EEXIST)
      break;
  }
  return fail_errno(err, f->path, "making a temporary file beside it", errno);
}

/* What stands at path must be a plain file, or nothing: a rename would put a file in the place of /dev/null. */
static unroll_status look_at_target(const struct atomic_file *f, mode_t *mode, unroll_error *err) {
  struct stat st;
  *mode = 0;
  if (fstatat(f->folder, f->name, &st, 0) != 0) {
    /* ENOENT also for a link that leads nowhere */
    return errno == ENOENT ? UNROLL_OK : fail_errno(err, f->path, "looking at it", errno);
  }
  if (!S_ISREG(st.st_mode))
    return fail(err, UNROLL_E_IO, "%s: %s stands there, it can only replace a regular file", SHOWN_PATH(f->path),
                S_ISDIR(st.st_mode) ? "a directory" : "a device, pipe or socket");
  *mode = st.st_mode & 0777u;
  return UNROLL_OK;
}

unroll_status atomic_file_open(struct atomic_file *f, const char *path, const unroll_allocator *allocator,
                               unroll_error *err) {
  const char *slash = strrchr(path, '/');
  *f = (struct atomic_file){allocator, path, slash == NULL ? path : slash + 1, NULL, -1, -1};
  if (*f->name == 0)
    return fail(err, UNROLL_E_INVALID, "%s: no file name", SHOWN(path, strlen(path)));
  mode_t mode = 0;
  unroll_status status;
  TRY_GOTO(status, open_folder(f, err), bad);
  TRY_GOTO(status, look_at_target(f, &mode, err), bad);
  TRY_GOTO(status, open_temporary(f, err), bad);
  if (mode != 0 && fchmod(f->fd, mode) != 0) {
    status = fail_errno(err, path, "giving its temporary file its permissions", errno);
    goto bad;
  }
  return UNROLL_OK;
bad:
  atomic_file_abort(f);
  return status;
}

unroll_status atomic_file_write(struct atomic_file *f, const void *data, uint64_t bytes, unroll_error *err) {
  for (const char *at = data; bytes > 0;) {
    const ssize_t n = write(f->fd, at, (size_t)bytes);
    if (n < 0 && errno == EINTR)
      continue;
    if (n <= 0) /* a write of 0 bytes without an error would loop for ever */
      return fail_errno(err, f->path, "writing", n < 0 ? errno : ENOSPC);
    at += n;
    bytes -= (uint64_t)n;
  }
  return UNROLL_OK;
}

unroll_status atomic_file_rewrite(struct atomic_file *f, uint64_t offset, const void *data, uint64_t bytes,
                                  unroll_error *err) {
  for (const char *at = data; bytes > 0;) {
    const ssize_t n = pwrite(f->fd, at, (size_t)bytes, (off_t)offset);
    if (n < 0 && errno == EINTR)
      continue;
    if (n <= 0)
      return fail_errno(err, f->path, "writing", n < 0 ? errno : ENOSPC);
    at += n;
    offset += (uint64_t)n;
    bytes -= (uint64_t)n;
  }
  return UNROLL_OK;
}

static int flush(int fd) {
  int result;
  do
    result = fsync(fd);
  while (result != 0 && errno == EINTR);
  return result;
}

unroll_status atomic_file_commit(struct atomic_file *f, unroll_error *err) {
  unroll_status status = UNROLL_OK;
  if (flush(f->fd) != 0) {
    status = fail_errno(err, f->path, "flushing it to the disk", errno);
    atomic_file_abort(f);
    return status;
  }
  /* close reports what a network file system found out late; the descriptor is gone in any case */
  const int closed = close(f->fd);
  f->fd = -1;
  if (closed != 0 && errno != EINTR) {
    status = fail_errno(err, f->path, "closing", errno);
  } else if (renameat(f->folder, f->temporary, f->folder, f->name) != 0) {
    status = fail_errno(err, f->path, "renaming its temporary file", errno);
  } else {
    mem_free(f->allocator, f->temporary);
    f->temporary = NULL;
    if (flush(f->folder) != 0 && errno != EINVAL) /* EINVAL: a file system that can't flush folders */
      status = fail_errno(err, f->path, "it is replaced, but its folder could not be flushed", errno);
  }
  atomic_file_abort(f);
  return status;
}

void atomic_file_abort(struct atomic_file *f) {
  if (f->fd >= 0)
    close(f->fd);
  if (f->temporary != NULL && f->folder >= 0 && f->name != NULL)
    (void)unlinkat(f->folder, f->temporary, 0);
  if (f->folder >= 0)
    close(f->folder);
  mem_free(f->allocator, f->temporary);
  *f = (struct atomic_file){NULL, NULL, NULL, NULL, -1, -1};
}

/* ---- tensors ---- */

unroll_status tensor_bytes(const char *what, int32_t dtype, int32_t rank, const int64_t *shape, uint64_t *bytes,
                           unroll_error *err) {
  uint64_t n = unroll_dtype_size(dtype);
  if (n == 0)
    return fail(err, UNROLL_E_DTYPE, "%s: %" PRId32 " is no dtype", what, dtype);
  if (rank < 0 || rank > UNROLL_MAX_RANK)
    return fail(err, UNROLL_E_SHAPE, "%s: rank %" PRId32 ", it must be 0 to %d", what, rank, UNROLL_MAX_RANK);
  if (rank > 0 && shape == NULL)
    return fail(err, UNROLL_E_INVALID, "%s: shape is NULL", what);
  bool empty = false;
  for (int32_t i = 0; i < rank; i++) {
    if (shape[i] < 0)
      return fail(err, UNROLL_E_SHAPE, "%s: axis %" PRId32 " is %" PRId64, what, i, shape[i]);
    empty = empty || shape[i] == 0;
    if (shape[i] != 0 && (!size_mul(n, (uint64_t)shape[i], &n) || n > INT64_MAX))
      return fail(err, UNROLL_E_SHAPE, "%s: its shape is more than 2^63 bytes", what);
  }
  *bytes = empty ? 0 : n;
  return UNROLL_OK;
}
