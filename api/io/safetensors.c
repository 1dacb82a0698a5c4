/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/json.h"
#include "data/utf8.h"
#include "io/file.h"
#include "io/safetensors_private.h"

struct entry {
  const char *name; /* set when all names are read: they move until then */
  uint64_t name_at; /* into names */
  const struct safetensors_dtype *dtype;
  uint64_t begin, end;
  int64_t shape[UNROLL_MAX_RANK]; /* the first of rank extents */
  uint32_t rank;
};

struct pair {
  const char *key, *value; /* as entry.name */
  uint64_t key_at, value_at;
};

struct unroll_safetensors {
  unroll_allocator allocator;
  struct mapped_file file;
  char *path;
  const unsigned char *data; /* behind the header */
  uint64_t data_size;
  struct text names;            /* every string of the header, each with its zero */
  struct entry *entries;        /* by begin */
  const struct entry **by_name; /* [n_entries] */
  struct pair *pairs;           /* by key */
  uint32_t n_entries, entry_capacity, n_pairs, pair_capacity;
};

static const struct safetensors_dtype dtypes[] = {
    {"F64", 64, UNROLL_F64},  {"F32", 32, UNROLL_F32}, {"F16", 16, UNROLL_F16}, {"BF16", 16, UNROLL_BF16},
    {"I64", 64, UNROLL_I64},  {"I32", 32, UNROLL_I32}, {"I8", 8, UNROLL_I8},    {"U8", 8, UNROLL_U8},
    {"BOOL", 8, UNROLL_BOOL}, {"U64", 64, -1},         {"U32", 32, -1},         {"U16", 16, -1},
    {"I16", 16, -1},          {"C64", 64, -1},         {"F8_E5M2", 8, -1},      {"F8_E4M3", 8, -1},
    {"F8_E8M0", 8, -1},       {"F6_E2M3", 6, -1},      {"F6_E3M2", 6, -1},      {"F4", 4, -1},
};

const struct safetensors_dtype *safetensors_dtype_named(const char *name) {
  for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++)
    if (strcmp(dtypes[i].name, name) == 0)
      return &dtypes[i];
  return NULL;
}

const char *safetensors_dtype_name(int32_t dtype) {
  for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++)
    if (dtypes[i].dtype == dtype && dtype >= 0)
      return dtypes[i].name;
  return NULL;
}

static const char *shown_name(char to[UTF8_SHOWN], const char *name) { return utf8_shown(to, name, strlen(name)); }
#define SHOWN_NAME(name) shown_name((char[UTF8_SHOWN]){0}, (name))

/* Keeps the reader's last string; *at is where it begins in names. */
static unroll_status keep_string(unroll_safetensors *f, const struct json_reader *j, uint64_t *at, unroll_error *err) {
  *at = f->names.size;
  text_add_bytes(&f->names, text_peek(&j->string), j->string.size + 1);
  return f->names.failed ? fail(err, UNROLL_E_MEMORY, "no memory for the header's strings") : UNROLL_OK;
}

/* ---- one tensor ---- */

enum { HAS_DTYPE = 1, HAS_SHAPE = 2, HAS_OFFSETS = 4 };

/* count: the product of the extents that are not 0; zero: one of them is. */
struct extent_product {
  uint64_t count;
  bool zero;
};

static unroll_status read_shape(struct json_reader *j, struct entry *e, struct extent_product *p, unroll_error *err) {
  *p = (struct extent_product){1, false};
  TRY(json_expect(j, '[', err));
  bool more = json_peek(j) != ']';
  if (!more)
    TRY(json_expect(j, ']', err));
  while (more) {
    uint64_t n = 0;
    TRY(json_number(j, &n, err));
    if (n > INT64_MAX || (n != 0 && (!size_mul(p->count, n, &p->count) || p->count > INT64_MAX)))
      return fail(err, UNROLL_E_FORMAT, "extent %" PRIu64 " of axis %" PRIu32 " makes the shape overflow", n, e->rank);
    p->zero = p->zero || n == 0;
    if (e->rank < UNROLL_MAX_RANK)
      e->shape[e->rank] = (int64_t)n;
    e->rank++;
    TRY(json_next(j, ']', &more, err));
  }
  return UNROLL_OK;
}

static unroll_status read_offsets(struct json_reader *j, struct entry *e, unroll_error *err) {
  TRY(json_expect(j, '[', err));
  TRY(json_number(j, &e->begin, err));
  TRY(json_expect(j, ',', err));
  TRY(json_number(j, &e->end, err));
  TRY(json_expect(j, ']', err));
  if (e->begin > e->end)
    return fail(err, UNROLL_E_FORMAT, "data_offsets [%" PRIu64 ",%" PRIu64 "] run backwards", e->begin, e->end);
  return UNROLL_OK;
}

static unroll_status read_dtype(struct json_reader *j, struct entry *e, unroll_error *err) {
  TRY(json_string(j, err));
  e->dtype = safetensors_dtype_named(text_peek(&j->string));
  return e->dtype == NULL ? fail(err, UNROLL_E_FORMAT, "unknown dtype %s", SHOWN(text_peek(&j->string), j->string.size))
                          : UNROLL_OK;
}

static unroll_status read_field(struct json_reader *j, struct entry *e, struct extent_product *p, unsigned *has,
                                unroll_error *err) {
  TRY(json_string(j, err));
  const char *key = text_peek(&j->string);
  const unsigned field = strcmp(key, "dtype") == 0          ? HAS_DTYPE
                         : strcmp(key, "shape") == 0        ? HAS_SHAPE
                         : strcmp(key, "data_offsets") == 0 ? HAS_OFFSETS
                                                            : 0;
  if (field == 0)
    return fail(err, UNROLL_E_FORMAT, "unknown key %s", SHOWN(key, j->string.size));
  if (*has & field)
    return fail(err, UNROLL_E_FORMAT, "duplicate key \"%s\"", key);
  *has |= field;
  TRY(json_expect(j, ':', err));
  return field == HAS_DTYPE   ? read_dtype(j, e, err)
         : field == HAS_SHAPE ? read_shape(j, e, p, err)
                              : read_offsets(j, e, err);
}

static unroll_status check_size(const unroll_safetensors *f, const struct entry *e, const struct extent_product *p,
                                unroll_error *err) {
  uint64_t bits = 0;
  if (!size_mul(p->count, (uint64_t)e->dtype->bits, &bits))
    return fail(err, UNROLL_E_FORMAT, "%" PRIu64 " elements of %s overflow", p->count, e->dtype->name);
  if (p->zero)
    bits = 0;
  if (bits % 8 != 0 || e->end - e->begin != bits / 8)
    return fail(err, UNROLL_E_FORMAT, "%" PRIu64 " elements of %s, data_offsets are of %" PRIu64 " bytes",
                p->zero ? 0 : p->count, e->dtype->name, e->end - e->begin);
  if (e->end > f->data_size)
    return fail(err, UNROLL_E_FORMAT, "ends at byte %" PRIu64 " of the data, which is cut short at %" PRIu64, e->end,
                f->data_size);
  return UNROLL_OK;
}

static unroll_status read_tensor(const unroll_safetensors *f, struct json_reader *j, struct entry *e,
                                 unroll_error *err) {
  unsigned has = 0;
  struct extent_product p = {0};
  TRY(json_expect(j, '{', err));
  bool more = json_peek(j) != '}';
  if (!more)
    TRY(json_expect(j, '}', err));
  while (more) {
    TRY(read_field(j, e, &p, &has, err));
    TRY(json_next(j, '}', &more, err));
  }
  if (has != (HAS_DTYPE | HAS_SHAPE | HAS_OFFSETS))
    return fail(err, UNROLL_E_FORMAT, "no %s",
                !(has & HAS_DTYPE)   ? "dtype"
                : !(has & HAS_SHAPE) ? "shape"
                                     : "data_offsets");
  return check_size(f, e, &p, err);
}

static unroll_status add_tensor(unroll_safetensors *f, struct json_reader *j, unroll_error *err) {
  struct entry e = {0};
  TRY(keep_string(f, j, &e.name_at, err));
  TRY(json_expect(j, ':', err));
  unroll_error inner = UNROLL_ERROR_INIT;
  const unroll_status status = read_tensor(f, j, &e, &inner);
  if (status != UNROLL_OK)
    return fail(err, status, "tensor %s: %s", SHOWN_NAME(f->names.data + e.name_at), inner.message);
  if (!mem_grow(&f->allocator, &f->entries, &f->entry_capacity, f->n_entries + 1, sizeof *f->entries))
    return fail(err, UNROLL_E_MEMORY, "no memory for more than %" PRIu32 " tensors", f->n_entries);
  f->entries[f->n_entries++] = e;
  return UNROLL_OK;
}

/* ---- the header ---- */

static unroll_status read_metadata(unroll_safetensors *f, struct json_reader *j, unroll_error *err) {
  TRY(json_expect(j, ':', err));
  TRY(json_expect(j, '{', err));
  bool more = json_peek(j) != '}';
  if (!more)
    TRY(json_expect(j, '}', err));
  while (more) {
    struct pair p = {0};
    TRY(json_string(j, err));
    TRY(keep_string(f, j, &p.key_at, err));
    TRY(json_expect(j, ':', err));
    TRY(json_string(j, err));
    TRY(keep_string(f, j, &p.value_at, err));
    if (!mem_grow(&f->allocator, &f->pairs, &f->pair_capacity, f->n_pairs + 1, sizeof *f->pairs))
      return fail(err, UNROLL_E_MEMORY, "no memory for more than %" PRIu32 " pairs of metadata", f->n_pairs);
    f->pairs[f->n_pairs++] = p;
    TRY(json_next(j, '}', &more, err));
  }
  return UNROLL_OK;
}

static unroll_status read_header(unroll_safetensors *f, struct json_reader *j, unroll_error *err) {
  bool metadata = false;
  TRY(json_expect(j, '{', err));
  bool more = json_peek(j) != '}';
  if (!more)
    TRY(json_expect(j, '}', err));
  while (more) {
    TRY(json_string(j, err));
    if (strcmp(text_peek(&j->string), SAFETENSORS_METADATA) != 0) {
      TRY(add_tensor(f, j, err));
    } else if (metadata) {
      return fail(err, UNROLL_E_FORMAT, "duplicate key \"" SAFETENSORS_METADATA "\"");
    } else {
      metadata = true;
      unroll_error inner = UNROLL_ERROR_INIT;
      const unroll_status status = read_metadata(f, j, &inner);
      if (status != UNROLL_OK)
        return fail(err, status, SAFETENSORS_METADATA ": %s", inner.message);
    }
    TRY(json_next(j, '}', &more, err));
  }
  return json_end(j, err);
}

static int by_begin(const void *a, const void *b) {
  const struct entry *x = a, *y = b;
  if (x->begin != y->begin)
    return x->begin < y->begin ? -1 : 1;
  if (x->end != y->end) /* an empty tensor lies before the one that begins where it does */
    return x->end < y->end ? -1 : 1;
  return strcmp(x->name, y->name);
}

static int by_name(const void *a, const void *b) {
  const struct entry *const *x = a, *const *y = b;
  return strcmp((*x)->name, (*y)->name);
}

static int by_key(const void *a, const void *b) {
  const struct pair *x = a, *y = b;
  return strcmp(x->key, y->key);
}

static unroll_status index_names(unroll_safetensors *f, unroll_error *err) {
  for (uint32_t i = 0; i < f->n_entries; i++)
    f->entries[i].name = f->names.data + f->entries[i].name_at;
  for (uint32_t i = 0; i < f->n_pairs; i++) {
    f->pairs[i].key = f->names.data + f->pairs[i].key_at;
    f->pairs[i].value = f->names.data + f->pairs[i].value_at;
  }
  if (f->n_pairs > 0)
    qsort(f->pairs, f->n_pairs, sizeof *f->pairs, by_key);
  for (uint32_t i = 1; i < f->n_pairs; i++)
    if (strcmp(f->pairs[i].key, f->pairs[i - 1].key) == 0)
      return fail(err, UNROLL_E_FORMAT, SAFETENSORS_METADATA ": duplicate key %s", SHOWN_NAME(f->pairs[i].key));

  f->by_name = mem_array(&f->allocator, f->n_entries, sizeof *f->by_name);
  if (f->by_name == NULL)
    return fail(err, UNROLL_E_MEMORY, "no memory for %" PRIu32 " tensors", f->n_entries);
  if (f->n_entries == 0)
    return UNROLL_OK;
  qsort(f->entries, f->n_entries, sizeof *f->entries, by_begin);
  for (uint32_t i = 0; i < f->n_entries; i++)
    f->by_name[i] = &f->entries[i];
  qsort(f->by_name, f->n_entries, sizeof *f->by_name, by_name);
  for (uint32_t i = 1; i < f->n_entries; i++)
    if (strcmp(f->by_name[i]->name, f->by_name[i - 1]->name) == 0)
      return fail(err, UNROLL_E_FORMAT, "duplicate tensor %s", SHOWN_NAME(f->by_name[i]->name));
  return UNROLL_OK;
}

/* The tensors' bytes follow each other from the first byte of the data to the last. */
static unroll_status check_layout(const unroll_safetensors *f, unroll_error *err) {
  uint64_t end = 0;
  for (uint32_t i = 0; i < f->n_entries; i++) {
    const struct entry *e = &f->entries[i];
    if (e->begin < end)
      return fail(err, UNROLL_E_FORMAT, "tensor %s begins at byte %" PRIu64 ", %s before it overlaps up to %" PRIu64,
                  SHOWN_NAME(e->name), e->begin, SHOWN_NAME(e[-1].name), end);
    if (e->begin > end)
      return fail(err, UNROLL_E_FORMAT,
                  "a gap: tensor %s begins at byte %" PRIu64 ", what is before it ends at %" PRIu64,
                  SHOWN_NAME(e->name), e->begin, end);
    end = e->end;
  }
  if (end != f->data_size)
    return fail(err, UNROLL_E_FORMAT, "the tensors end at byte %" PRIu64 " of the data, which has %" PRIu64, end,
                f->data_size);
  return UNROLL_OK;
}

static uint64_t load_u64(const unsigned char *p) {
  uint64_t n = 0;
  for (int i = 8; i-- > 0;)
    n = n << 8 | p[i];
  return n;
}

static unroll_status parse(unroll_safetensors *f, unroll_error *err) {
  const size_t size = f->file.size;
  if (size < 8)
    return fail(err, UNROLL_E_FORMAT, "%zu bytes, a safetensors file has at least 8", size);
  const uint64_t n = load_u64(f->file.data);
  if (n > SAFETENSORS_HEADER_MAX)
    return fail(err, UNROLL_E_FORMAT, "the header claims %" PRIu64 " bytes, more than %u", n, SAFETENSORS_HEADER_MAX);
  if (n > size - 8)
    return fail(err, UNROLL_E_FORMAT, "the header claims %" PRIu64 " bytes, the file has %zu for it", n, size - 8);
  const unsigned char *header = f->file.data + 8;
  f->data = header + n;
  f->data_size = size - 8 - n;
  const size_t valid = utf8_check(header, (size_t)n);
  if (valid < n)
    return fail(err, UNROLL_E_FORMAT, "byte %zu of the header is not UTF-8", valid);
  struct json_reader j;
  json_reader_init(&j, header, (size_t)n, &f->allocator);
  const unroll_status status = read_header(f, &j, err);
  json_reader_free(&j);
  TRY(status);
  TRY(index_names(f, err));
  return check_layout(f, err);
}

unroll_status unroll_safetensors_open(const char *path, const unroll_allocator *allocator, unroll_safetensors **file,
                                      unroll_error *err) {
  if (path == NULL || file == NULL)
    return fail(err, UNROLL_E_INVALID, "unroll_safetensors_open: %s is NULL", path == NULL ? "path" : "file");
  unroll_safetensors *f = mem_zalloc(allocator, sizeof *f);
  if (f == NULL)
    return fail(err, UNROLL_E_MEMORY, "%s: no memory to open it", SHOWN_PATH(path));
  if (allocator != NULL)
    f->allocator = *allocator;
  text_init(&f->names, &f->allocator);
  f->path = mem_strdup(allocator, path);
  unroll_status status = f->path == NULL ? fail(err, UNROLL_E_MEMORY, "%s: no memory to open it", SHOWN_PATH(path))
                                         : mapped_file_open(&f->file, path, err);
  if (status == UNROLL_OK) {
    unroll_error inner = UNROLL_ERROR_INIT;
    status = parse(f, &inner);
    if (status != UNROLL_OK)
      fail(err, status, "%s: %s", SHOWN_PATH(path), inner.message);
  }
  if (status != UNROLL_OK)
    unroll_safetensors_close(f);
  else
    *file = f;
  return status;
}

void unroll_safetensors_close(unroll_safetensors *f) {
  if (f == NULL)
    return;
  const unroll_allocator a = f->allocator;
  mapped_file_close(&f->file);
  text_free(&f->names);
  mem_free(&a, f->entries);
  mem_free(&a, f->by_name);
  mem_free(&a, f->pairs);
  mem_free(&a, f->path);
  mem_free(&a, f);
}

/* ---- what is in an open file ---- */

uint64_t unroll_safetensors_count(const unroll_safetensors *f) { return f->n_entries; }

static unroll_status describe(const unroll_safetensors *f, const struct entry *e, unroll_stored_tensor *tensor,
                              unroll_error *err) {
  if (e->dtype->dtype < 0)
    return fail(err, UNROLL_E_UNSUPPORTED, "%s: tensor %s: dtype %s", SHOWN_PATH(f->path), SHOWN_NAME(e->name),
                e->dtype->name);
  if (e->rank > UNROLL_MAX_RANK)
    return fail(err, UNROLL_E_UNSUPPORTED, "%s: tensor %s: rank %" PRIu32 ", at most %d are possible",
                SHOWN_PATH(f->path), SHOWN_NAME(e->name), e->rank, UNROLL_MAX_RANK);
  *tensor = (unroll_stored_tensor){.name = e->name,
                                   .dtype = e->dtype->dtype,
                                   .rank = (int32_t)e->rank,
                                   .data = f->data + e->begin,
                                   .bytes = e->end - e->begin};
  memcpy(tensor->shape, e->shape, sizeof e->shape);
  return UNROLL_OK;
}

unroll_status unroll_safetensors_get(const unroll_safetensors *f, uint64_t i, unroll_stored_tensor *tensor,
                                     unroll_error *err) {
  if (f == NULL || tensor == NULL)
    return fail(err, UNROLL_E_INVALID, "unroll_safetensors_get: %s is NULL", f == NULL ? "file" : "tensor");
  if (i >= f->n_entries)
    return fail(err, UNROLL_E_RANGE, "%s: tensor %" PRIu64 " of %" PRIu32, SHOWN_PATH(f->path), i, f->n_entries);
  return describe(f, &f->entries[i], tensor, err);
}

unroll_status unroll_safetensors_find(const unroll_safetensors *f, const char *name, unroll_stored_tensor *tensor,
                                      unroll_error *err) {
  if (f == NULL || name == NULL || tensor == NULL)
    return fail(err, UNROLL_E_INVALID, "unroll_safetensors_find: %s is NULL",
                f == NULL      ? "file"
                : name == NULL ? "name"
                               : "tensor");
  const struct entry key = {.name = name}, *key_pointer = &key;
  const struct entry **found = bsearch(&key_pointer, f->by_name, f->n_entries, sizeof *f->by_name, by_name);
  if (found == NULL)
    return fail(err, UNROLL_E_NOT_FOUND, "%s: no tensor %s among %" PRIu32, SHOWN_PATH(f->path), SHOWN_NAME(name),
                f->n_entries);
  return describe(f, *found, tensor, err);
}

const char *unroll_safetensors_metadata(const unroll_safetensors *f, const char *key) {
  if (f == NULL || key == NULL || f->n_pairs == 0)
    return NULL;
  const struct pair wanted = {.key = key};
  const struct pair *found = bsearch(&wanted, f->pairs, f->n_pairs, sizeof *f->pairs, by_key);
  return found == NULL ? NULL : found->value;
}

uint64_t unroll_safetensors_metadata_count(const unroll_safetensors *f) { return f->n_pairs; }

unroll_status unroll_safetensors_metadata_get(const unroll_safetensors *f, uint64_t i, const char **key,
                                              const char **value, unroll_error *err) {
  if (f == NULL || key == NULL || value == NULL)
    return fail(err, UNROLL_E_INVALID, "unroll_safetensors_metadata_get: %s is NULL",
                f == NULL     ? "file"
                : key == NULL ? "key"
                              : "value");
  if (i >= f->n_pairs)
    return fail(err, UNROLL_E_RANGE, "%s: metadata %" PRIu64 " of %" PRIu32, SHOWN_PATH(f->path), i, f->n_pairs);
  *key = f->pairs[i].key;
  *value = f->pairs[i].value;
  return UNROLL_OK;
}

unroll_status unroll_safetensors_verify(const unroll_safetensors *f, unroll_error *err) {
  if (f == NULL)
    return fail(err, UNROLL_E_INVALID, "unroll_safetensors_verify: file is NULL");
  const size_t start = sizeof SAFETENSORS_CHECKSUM_START - 1;
  const char *kept = unroll_safetensors_metadata(f, UNROLL_CHECKSUM_KEY);
  /* a quote inside a string is escaped, so this can only be the key itself */
  const unsigned char *found =
      memmem(f->file.data, (size_t)(f->data - f->file.data), SAFETENSORS_CHECKSUM_START, start);
  if (kept == NULL || found == NULL)
    return fail(err, UNROLL_E_NOT_FOUND, "%s: no checksum; another program wrote it", SHOWN_PATH(f->path));
  if (strlen(kept) != SAFETENSORS_CHECKSUM_DIGITS)
    return fail(err, UNROLL_E_FORMAT, "%s: the checksum %s has not %d digits", SHOWN_PATH(f->path), SHOWN_NAME(kept),
                SAFETENSORS_CHECKSUM_DIGITS);
  const unsigned char *digits = found + start, *rest = digits + SAFETENSORS_CHECKSUM_DIGITS;
  if (rest > f->data)
    return fail(err, UNROLL_E_FORMAT, "%s: the checksum ends behind the header", SHOWN_PATH(f->path));
  uint64_t hash = hash64(f->file.data, (size_t)(digits - f->file.data), HASH64_SEED);
  hash = hash64(SAFETENSORS_CHECKSUM_ZERO, SAFETENSORS_CHECKSUM_DIGITS, hash);
  hash = hash64(rest, (size_t)(f->file.data + f->file.size - rest), hash);
  char expected[SAFETENSORS_CHECKSUM_DIGITS + 1];
  (void)snprintf(expected, sizeof expected, "%016" PRIx64, hash);
  if (memcmp(expected, kept, SAFETENSORS_CHECKSUM_DIGITS) != 0)
    return fail(err, UNROLL_E_FORMAT, "%s: damaged: the checksum is %s, its bytes have %s", SHOWN_PATH(f->path),
                SHOWN_NAME(kept), expected);
  return UNROLL_OK;
}
