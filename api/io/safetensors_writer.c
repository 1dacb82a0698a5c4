/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/json.h"
#include "data/utf8.h"
#include "io/file.h"
#include "io/safetensors_private.h"

#define PIECE ((uint64_t)1 << 20) /* of a tensor that is fetched */

struct entry {
  char *name;
  uint64_t name_hash;
  int32_t dtype, rank;
  int64_t shape[UNROLL_MAX_RANK];
  uint64_t bytes;
  const void *data; /* or, if fetch is there, what fetch gives */
  unroll_fetch_fn fetch;
  void *ctx;
};

struct pair {
  char *key, *value;
};

struct unroll_safetensors_writer {
  unroll_allocator allocator;
  char *path;
  struct entry *entries;
  struct pair *pairs;
  uint32_t n_entries, entry_capacity, n_pairs, pair_capacity;
};

unroll_status unroll_safetensors_writer_create(const char *path, const unroll_allocator *allocator,
                                               unroll_safetensors_writer **writer, unroll_error *err) {
  if (path == NULL || writer == NULL)
    return fail(err, UNROLL_E_INVALID, "unroll_safetensors_writer_create: %s is NULL",
                path == NULL ? "path" : "writer");
  unroll_safetensors_writer *w = mem_zalloc(allocator, sizeof *w);
  char *copy = mem_strdup(allocator, path);
  if (w == NULL || copy == NULL) {
    mem_free(allocator, w);
    mem_free(allocator, copy);
    return fail(err, UNROLL_E_MEMORY, "%s: no memory to write it", SHOWN_PATH(path));
  }
  if (allocator != NULL)
    w->allocator = *allocator;
  w->path = copy;
  *writer = w;
  return UNROLL_OK;
}

void unroll_safetensors_writer_destroy(unroll_safetensors_writer *w) {
  if (w == NULL)
    return;
  const unroll_allocator a = w->allocator;
  for (uint32_t i = 0; i < w->n_entries; i++)
    mem_free(&a, w->entries[i].name);
  for (uint32_t i = 0; i < w->n_pairs; i++) {
    mem_free(&a, w->pairs[i].key);
    mem_free(&a, w->pairs[i].value);
  }
  mem_free(&a, w->entries);
  mem_free(&a, w->pairs);
  mem_free(&a, w->path);
  mem_free(&a, w);
}

static unroll_status check_name(const unroll_safetensors_writer *w, const char *what, const char *name,
                                unroll_error *err) {
  if (name == NULL)
    return fail(err, UNROLL_E_INVALID, "%s: the %s is NULL", SHOWN_PATH(w->path), what);
  const size_t n = strlen(name);
  if (utf8_check(name, n) != n)
    return fail(err, UNROLL_E_INVALID, "%s: the %s %s is not UTF-8", SHOWN_PATH(w->path), what, SHOWN(name, n));
  return UNROLL_OK;
}

static unroll_status check_unused(const unroll_safetensors_writer *w, const char *name, uint64_t hash,
                                  unroll_error *err) {
  bool used = strcmp(name, SAFETENSORS_METADATA) == 0;
  for (uint32_t i = 0; i < w->n_entries && !used; i++)
    used = w->entries[i].name_hash == hash && strcmp(w->entries[i].name, name) == 0;
  return used ? fail(err, UNROLL_E_INVALID, "%s: the name %s is taken", SHOWN_PATH(w->path), SHOWN(name, strlen(name)))
              : UNROLL_OK;
}

/* e is complete but for its name, size and shape. */
static unroll_status add(unroll_safetensors_writer *w, const char *name, struct entry e, const int64_t *shape,
                         unroll_error *err) {
  TRY(check_name(w, "tensor's name", name, err));
  e.name_hash = hash64_string(name, HASH64_SEED);
  TRY(check_unused(w, name, e.name_hash, err));
  TRY(tensor_bytes(SHOWN(name, strlen(name)), e.dtype, e.rank, shape, &e.bytes, err));
  if (e.rank > 0)
    memcpy(e.shape, shape, (size_t)e.rank * sizeof *shape);
  if (e.fetch == NULL && e.data == NULL && e.bytes > 0)
    return fail(err, UNROLL_E_INVALID, "%s: tensor %s has no data", SHOWN_PATH(w->path), SHOWN(name, strlen(name)));
  e.name = mem_strdup(&w->allocator, name);
  if (e.name == NULL ||
      !mem_grow(&w->allocator, &w->entries, &w->entry_capacity, w->n_entries + 1, sizeof *w->entries)) {
    mem_free(&w->allocator, e.name);
    return fail(err, UNROLL_E_MEMORY, "%s: no memory for tensor %s", SHOWN_PATH(w->path), SHOWN(name, strlen(name)));
  }
  w->entries[w->n_entries++] = e;
  return UNROLL_OK;
}

unroll_status unroll_safetensors_writer_add(unroll_safetensors_writer *w, const char *name, int32_t dtype, int32_t rank,
                                            const int64_t *shape, const void *data, unroll_error *err) {
  if (w == NULL)
    return fail(err, UNROLL_E_INVALID, "unroll_safetensors_writer_add: writer is NULL");
  return add(w, name, (struct entry){.dtype = dtype, .rank = rank, .data = data}, shape, err);
}

unroll_status unroll_safetensors_writer_add_fetch(unroll_safetensors_writer *w, const char *name, int32_t dtype,
                                                  int32_t rank, const int64_t *shape, unroll_fetch_fn fetch, void *ctx,
                                                  unroll_error *err) {
  if (w == NULL || fetch == NULL)
    return fail(err, UNROLL_E_INVALID, "unroll_safetensors_writer_add_fetch: %s is NULL",
                w == NULL ? "writer" : "fetch");
  return add(w, name, (struct entry){.dtype = dtype, .rank = rank, .fetch = fetch, .ctx = ctx}, shape, err);
}

static struct pair *find_pair(const unroll_safetensors_writer *w, const char *key) {
  for (uint32_t i = 0; i < w->n_pairs; i++)
    if (strcmp(w->pairs[i].key, key) == 0)
      return &w->pairs[i];
  return NULL;
}

unroll_status unroll_safetensors_writer_metadata(unroll_safetensors_writer *w, const char *key, const char *value,
                                                 unroll_error *err) {
  if (w == NULL)
    return fail(err, UNROLL_E_INVALID, "unroll_safetensors_writer_metadata: writer is NULL");
  TRY(check_name(w, "metadata key", key, err));
  TRY(check_name(w, "metadata value", value, err));
  if (strcmp(key, UNROLL_CHECKSUM_KEY) == 0)
    return fail(err, UNROLL_E_INVALID, "%s: the metadata key \"" UNROLL_CHECKSUM_KEY "\" is the writer's own",
                SHOWN_PATH(w->path));
  struct pair *old = find_pair(w, key);
  char *new_key = old != NULL ? old->key : mem_strdup(&w->allocator, key);
  char *new_value = mem_strdup(&w->allocator, value);
  if (new_key == NULL || new_value == NULL ||
      (old == NULL && !mem_grow(&w->allocator, &w->pairs, &w->pair_capacity, w->n_pairs + 1, sizeof *w->pairs))) {
    if (old == NULL)
      mem_free(&w->allocator, new_key);
    mem_free(&w->allocator, new_value);
    return fail(err, UNROLL_E_MEMORY, "%s: no memory for the metadata %s", SHOWN_PATH(w->path),
                SHOWN(key, strlen(key)));
  }
  if (old != NULL) {
    mem_free(&w->allocator, old->value);
    old->value = new_value;
  } else {
    w->pairs[w->n_pairs++] = (struct pair){new_key, new_value};
  }
  return UNROLL_OK;
}

/* ---- commit ---- */

/* As HF's own writer has it: with falling sizes no tensor needs padding to be aligned. */
static int by_size_and_name(const void *a, const void *b) {
  const struct entry *x = a, *y = b;
  const uint32_t m = unroll_dtype_size(x->dtype), n = unroll_dtype_size(y->dtype);
  return m != n ? (m < n ? 1 : -1) : strcmp(x->name, y->name);
}

static int by_key(const void *a, const void *b) {
  const struct pair *x = a, *y = b;
  return strcmp(x->key, y->key);
}

static void add_metadata(struct text *out, const unroll_safetensors_writer *w) {
  text_add(out, "{\"" SAFETENSORS_METADATA "\":{");
  /* The checksum comes first, wherever its key belongs: then its place is the same in every file. */
  text_add(out, SAFETENSORS_CHECKSUM_START SAFETENSORS_CHECKSUM_ZERO "\"");
  for (uint32_t i = 0; i < w->n_pairs; i++) {
    text_add_bytes(out, ",", 1);
    json_add_string(out, w->pairs[i].key);
    text_add_bytes(out, ":", 1);
    json_add_string(out, w->pairs[i].value);
  }
  text_add_bytes(out, "}", 1);
}

static unroll_status make_header(unroll_safetensors_writer *w, struct text *out, unroll_error *err) {
  add_metadata(out, w);
  uint64_t at = 0;
  for (uint32_t i = 0; i < w->n_entries; i++) {
    const struct entry *e = &w->entries[i];
    uint64_t end;
    if (!size_add(at, e->bytes, &end) || end > INT64_MAX)
      return fail(err, UNROLL_E_SHAPE, "%s: its tensors are more than 2^63 bytes", SHOWN_PATH(w->path));
    text_add_bytes(out, ",", 1);
    json_add_string(out, e->name);
    text_add(out, ":{\"dtype\":\"%s\",\"shape\":[", safetensors_dtype_name(e->dtype));
    for (int32_t axis = 0; axis < e->rank; axis++)
      text_add(out, axis > 0 ? ",%" PRId64 : "%" PRId64, e->shape[axis]);
    text_add(out, "],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}", at, end);
    at = end;
  }
  text_add_bytes(out, "}", 1);
  while (out->size % 8 != 0 && !out->failed)
    text_add_bytes(out, " ", 1);
  if (out->failed)
    return fail(err, UNROLL_E_MEMORY, "%s: no memory for its header", SHOWN_PATH(w->path));
  if (out->size > SAFETENSORS_HEADER_MAX)
    return fail(err, UNROLL_E_RANGE, "%s: the header would be %" PRIu64 " bytes, more than %u", SHOWN_PATH(w->path),
                out->size, SAFETENSORS_HEADER_MAX);
  return UNROLL_OK;
}

static unroll_status write_hashed(struct atomic_file *f, const void *data, uint64_t bytes, uint64_t *hash,
                                  unroll_error *err) {
  *hash = hash64(data, (size_t)bytes, *hash);
  return atomic_file_write(f, data, bytes, err);
}

static unroll_status write_fetched(const unroll_safetensors_writer *w, struct atomic_file *f, const struct entry *e,
                                   void *piece, uint64_t *hash, unroll_error *err) {
  for (uint64_t at = 0; at < e->bytes; at += PIECE) {
    const uint64_t n = e->bytes - at < PIECE ? e->bytes - at : PIECE;
    unroll_error inner = UNROLL_ERROR_INIT;
    const unroll_status status = e->fetch(e->ctx, at, piece, n, &inner);
    if (status != UNROLL_OK)
      return fail_native(err, status, inner.native, "%s: tensor %s: %s", SHOWN_PATH(w->path),
                         SHOWN(e->name, strlen(e->name)),
                         inner.message[0] != 0 ? inner.message : unroll_status_text(status));
    TRY(write_hashed(f, piece, n, hash, err));
  }
  return UNROLL_OK;
}

static unroll_status write_all(const unroll_safetensors_writer *w, struct atomic_file *f, const struct text *header,
                               void *piece, unroll_error *err) {
  uint64_t hash = HASH64_SEED;
  unsigned char length[8];
  for (int i = 0; i < 8; i++)
    length[i] = (unsigned char)(header->size >> 8 * i);
  TRY(write_hashed(f, length, sizeof length, &hash, err));
  TRY(write_hashed(f, header->data, header->size, &hash, err));
  for (uint32_t i = 0; i < w->n_entries; i++) {
    const struct entry *e = &w->entries[i];
    if (e->fetch != NULL)
      TRY(write_fetched(w, f, e, piece, &hash, err));
    else if (e->bytes > 0)
      TRY(write_hashed(f, e->data, e->bytes, &hash, err));
  }
  char digits[SAFETENSORS_CHECKSUM_DIGITS + 1];
  (void)snprintf(digits, sizeof digits, "%016" PRIx64, hash);
  const char *place = strstr(header->data, SAFETENSORS_CHECKSUM_START) + sizeof SAFETENSORS_CHECKSUM_START - 1;
  return atomic_file_rewrite(f, sizeof length + (uint64_t)(place - header->data), digits, SAFETENSORS_CHECKSUM_DIGITS,
                             err);
}

unroll_status unroll_safetensors_writer_commit(unroll_safetensors_writer *w, unroll_error *err) {
  if (w == NULL)
    return fail(err, UNROLL_E_INVALID, "unroll_safetensors_writer_commit: writer is NULL");
  if (w->n_entries > 0)
    qsort(w->entries, w->n_entries, sizeof *w->entries, by_size_and_name);
  if (w->n_pairs > 0)
    qsort(w->pairs, w->n_pairs, sizeof *w->pairs, by_key);
  struct text header;
  text_init(&header, &w->allocator);
  struct atomic_file f = {.folder = -1, .fd = -1};
  void *piece = mem_alloc(&w->allocator, PIECE);
  unroll_status status =
      piece == NULL ? fail(err, UNROLL_E_MEMORY, "%s: no memory to write it", SHOWN_PATH(w->path)) : UNROLL_OK;
  if (status == UNROLL_OK)
    status = make_header(w, &header, err);
  if (status == UNROLL_OK)
    status = atomic_file_open(&f, w->path, &w->allocator, err);
  if (status == UNROLL_OK) {
    status = write_all(w, &f, &header, piece, err);
    if (status == UNROLL_OK)
      status = atomic_file_commit(&f, err);
    else
      atomic_file_abort(&f);
  }
  mem_free(&w->allocator, piece);
  text_free(&header);
  return status;
}
