/* SPDX-License-Identifier: Apache-2.0 */
/*
 * unroll/io.h: tensors in files: safetensors (many, with names and metadata) and npy (one).
 *
 *     unroll_safetensors *file;
 *     unroll_stored_tensor w;
 *     if (unroll_safetensors_open("model.safetensors", NULL, &file, &err) == UNROLL_OK) {
 *       if (unroll_safetensors_find(file, "W_x.0", &w, &err) == UNROLL_OK)
 *         use(w.data, w.bytes);
 *       unroll_safetensors_close(file);
 *     }
 *
 * Both formats are little endian, as are the machines this runs on. What a file says is never believed before it is
 * checked against the file's size; a file that breaks a rule of its format is refused whole, with a message that names
 * the rule.
 *
 * Writing is atomic: the bytes go to PATH.tmp-XXXXXXXX in the same folder, are flushed to the disk, and take PATH's
 * place by one rename. Whatever fails, and whenever the process is killed, PATH is the old file or the new one, whole.
 * A failed write removes its temporary file; a killed one leaves it, and nobody ever reads it. A PATH that is there
 * must be a regular file and keeps its permission bits; a symbolic link is replaced by a file.
 *
 * Statuses: UNROLL_E_IO (native is errno), UNROLL_E_FORMAT, UNROLL_E_UNSUPPORTED (a well formed file with what unroll
 * has no use for), UNROLL_E_MEMORY, UNROLL_E_INVALID (arguments), and those named below. An allocator of NULL is
 * malloc's. On failure the output pointers are left as they were.
 */
#ifndef UNROLL_IO_H
#define UNROLL_IO_H
#include <unroll/base.h>
#ifdef __cplusplus
extern "C" {
#endif

/* A tensor as it lies in a file: dense, row-major. name and data live as long as the file is open. data has no
 * alignment of its own beyond what the file gives it: copy it, or check before casting. */
typedef struct unroll_stored_tensor {
  const char *name; /* UTF-8; "" in an npy file */
  int32_t dtype, rank;
  int64_t shape[UNROLL_MAX_RANK]; /* 0 past the rank */
  const void *data;
  uint64_t bytes;
} unroll_stored_tensor;

/* ---- safetensors, reading ---- */
typedef struct unroll_safetensors unroll_safetensors;

/*
 * Maps the file and checks its header: at most 100,000,000 bytes of JSON in UTF-8, no key twice, for every tensor a
 * dtype, a shape and offsets that agree, the tensors' bytes side by side from the first to the last of the file.
 * Tensors of a dtype or rank that unroll lacks may be in the file: only getting them is an error. While the file is
 * open nobody may cut it short in place (a write through this library never does). [any]
 */
UNROLL_API unroll_status unroll_safetensors_open(const char *path, const unroll_allocator *allocator,
                                                 unroll_safetensors **file, unroll_error *err);
UNROLL_API void unroll_safetensors_close(unroll_safetensors *file); /* [obj]; NULL does nothing */

/* Tensors in the order of their bytes in the file. An open file is read-only: these are [any]. */
UNROLL_API uint64_t unroll_safetensors_count(const unroll_safetensors *file);
/* UNROLL_E_RANGE: no i-th tensor. UNROLL_E_UNSUPPORTED: its dtype, or more than UNROLL_MAX_RANK axes. */
UNROLL_API unroll_status unroll_safetensors_get(const unroll_safetensors *file, uint64_t i,
                                                unroll_stored_tensor *tensor, unroll_error *err);
/* UNROLL_E_NOT_FOUND: no tensor of that name; else as get. */
UNROLL_API unroll_status unroll_safetensors_find(const unroll_safetensors *file, const char *name,
                                                 unroll_stored_tensor *tensor, unroll_error *err);

/* The value of a metadata key, or NULL; lives as long as the file is open. [any] */
UNROLL_API const char *unroll_safetensors_metadata(const unroll_safetensors *file, const char *key);
UNROLL_API uint64_t unroll_safetensors_metadata_count(const unroll_safetensors *file);
/* In the order of keys. UNROLL_E_RANGE: no i-th one. [any] */
UNROLL_API unroll_status unroll_safetensors_metadata_get(const unroll_safetensors *file, uint64_t i, const char **key,
                                                         const char **value, unroll_error *err);

/*
 * Reads the whole file against the checksum that the writer below leaves in the metadata under UNROLL_CHECKSUM_KEY: a
 * hash (64-bit FNV-1a) of every byte, header and data, that finds any change of one byte; no protection against intent.
 * UNROLL_E_FORMAT: damaged. UNROLL_E_NOT_FOUND: no checksum, as in a file by another program. [any]
 */
#define UNROLL_CHECKSUM_KEY "unroll.checksum"
UNROLL_API unroll_status unroll_safetensors_verify(const unroll_safetensors *file, unroll_error *err);

/* ---- safetensors, writing ---- */
typedef struct unroll_safetensors_writer unroll_safetensors_writer;

/* Copies bytes [offset, offset + bytes) of a tensor to `to`. An error ends the commit with that status. */
typedef unroll_status (*unroll_fetch_fn)(void *ctx, uint64_t offset, void *to, uint64_t bytes, unroll_error *err);

/* Collects tensors and metadata; touches no file before commit. All [obj]. Strings are copied. */
UNROLL_API unroll_status unroll_safetensors_writer_create(const char *path, const unroll_allocator *allocator,
                                                          unroll_safetensors_writer **writer, unroll_error *err);
/* data [shape] is not copied: it stays the caller's and must be there at commit. A name that is there already, or is
 * not UTF-8: UNROLL_E_INVALID. UNROLL_E_SHAPE: rank not in 0..UNROLL_MAX_RANK, a negative extent, too many bytes. */
UNROLL_API unroll_status unroll_safetensors_writer_add(unroll_safetensors_writer *writer, const char *name,
                                                       int32_t dtype, int32_t rank, const int64_t *shape,
                                                       const void *data, unroll_error *err);
/* The same, its bytes asked for during commit, in rising order and in pieces of at most 1 MiB. */
UNROLL_API unroll_status unroll_safetensors_writer_add_fetch(unroll_safetensors_writer *writer, const char *name,
                                                             int32_t dtype, int32_t rank, const int64_t *shape,
                                                             unroll_fetch_fn fetch, void *ctx, unroll_error *err);
/* Replaces the value of a key that is there already. UNROLL_CHECKSUM_KEY is the writer's own: UNROLL_E_INVALID. */
UNROLL_API unroll_status unroll_safetensors_writer_metadata(unroll_safetensors_writer *writer, const char *key,
                                                            const char *value, unroll_error *err);
/*
 * Writes the file. The same tensors and metadata give the same bytes, in whatever order they were added: the checksum,
 * metadata by key, tensors by falling size of an element, then by name; the header is padded with spaces to 8 bytes,
 * so that every tensor is aligned to its element. May be called again, after an error or with more tensors.
 * UNROLL_E_RANGE: the header would be longer than a reader takes. An error after the rename (the folder could not be
 * flushed) says so.
 */
UNROLL_API unroll_status unroll_safetensors_writer_commit(unroll_safetensors_writer *writer, unroll_error *err);
UNROLL_API void unroll_safetensors_writer_destroy(unroll_safetensors_writer *writer); /* NULL does nothing */

/* ---- npy: one array, NumPy's own format ---- */
typedef struct unroll_npy unroll_npy;

/* Versions 1, 2 and 3 of the format, in C order, of f64, f32, f16, i64, i32, i8, u8 and bool. Fortran order, other byte
 * orders and other types, objects above all, are UNROLL_E_UNSUPPORTED. Maps the file as safetensors_open does. [any] */
UNROLL_API unroll_status unroll_npy_open(const char *path, const unroll_allocator *allocator, unroll_npy **file,
                                         unroll_error *err);
UNROLL_API const unroll_stored_tensor *unroll_npy_tensor(const unroll_npy *file); /* [any] */
UNROLL_API void unroll_npy_close(unroll_npy *file);                               /* [obj]; NULL does nothing */

/* Writes version 1.0. data [shape]. UNROLL_E_DTYPE: bf16, which NumPy lacks. UNROLL_E_SHAPE as writer_add. [any] */
UNROLL_API unroll_status unroll_npy_write(const char *path, int32_t dtype, int32_t rank, const int64_t *shape,
                                          const void *data, const unroll_allocator *allocator, unroll_error *err);

#ifdef __cplusplus
}
#endif
#endif
