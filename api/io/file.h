/* SPDX-License-Identifier: Apache-2.0 */
/* Files as this folder needs them: mapped for reading, replaced atomically for writing. */
#ifndef FILE_H
#define FILE_H
#include <unroll/io.h>

#include "base/base_private.h"

/* ---- a regular file, mapped read-only ---- */
struct mapped_file {
  const unsigned char *data; /* NULL for an empty file */
  size_t size;
};
/* UNROLL_E_IO, naming the path. */
unroll_status mapped_file_open(struct mapped_file *f, const char *path, unroll_error *err);
void mapped_file_close(struct mapped_file *f);

/*
 * ---- a file that takes the place of another one, or never was ----
 *
 *     struct atomic_file f;
 *     TRY(atomic_file_open(&f, path, allocator, err));
 *     unroll_status status = atomic_file_write(&f, data, n, err);
 *     if (status == UNROLL_OK)
 *       return atomic_file_commit(&f, err);      closes f, whatever it returns
 *     atomic_file_abort(&f);
 *     return status;
 */
struct atomic_file {
  const unroll_allocator *allocator; /* with path, must outlive the file */
  const char *path;
  const char *name; /* the last part of path */
  char *temporary;  /* the temporary file's name in the folder */
  int folder, fd;   /* names are resolved against the folder, so that chdir changes nothing */
};
unroll_status atomic_file_open(struct atomic_file *f, const char *path, const unroll_allocator *allocator,
                               unroll_error *err);
unroll_status atomic_file_write(struct atomic_file *f, const void *data, uint64_t bytes, unroll_error *err);
/* Over bytes that are written already. */
unroll_status atomic_file_rewrite(struct atomic_file *f, uint64_t offset, const void *data, uint64_t bytes,
                                  unroll_error *err);
unroll_status atomic_file_commit(struct atomic_file *f, unroll_error *err);
void atomic_file_abort(struct atomic_file *f);

/* Bytes of a tensor that a caller described: UNROLL_E_DTYPE, UNROLL_E_SHAPE, UNROLL_E_INVALID. what names it, quoted.
 * */
unroll_status tensor_bytes(const char *what, int32_t dtype, int32_t rank, const int64_t *shape, uint64_t *bytes,
                           unroll_error *err);

#endif
