/* SPDX-License-Identifier: Apache-2.0 */
/*
 * npy: "\x93NUMPY", major, minor, the header's length (u16; u32 from version 2 on), the header (a Python dictionary of
 * descr, fortran_order and shape), the elements. Source: NumPy's documentation, numpy.lib.format.
 */
#include <inttypes.h>
#include <string.h>

#include "data/utf8.h"
#include "io/file.h"

#define MAGIC "\x93NUMPY"
#define MAGIC_SIZE 6
#define ALIGNMENT 64 /* of the elements in a file, as NumPy writes it */

struct unroll_npy {
  unroll_allocator allocator;
  struct mapped_file file;
  unroll_stored_tensor tensor;
};

struct npy_dtype {
  const char *descr; /* behind the byte order */
  int32_t dtype;
};
static const struct npy_dtype dtypes[] = {
    {"f8", UNROLL_F64}, {"f4", UNROLL_F32}, {"f2", UNROLL_F16}, {"i8", UNROLL_I64},
    {"i4", UNROLL_I32}, {"i1", UNROLL_I8},  {"u1", UNROLL_U8},  {"b1", UNROLL_BOOL},
};

/* ---- the header: a Python literal, of which only what NumPy writes is understood ---- */

struct scanner {
  const char *data;
  size_t size, at;
};

enum { HAS_DESCR = 1, HAS_ORDER = 2, HAS_SHAPE = 4 };
static const char *const keys[] = {"descr", "fortran_order", "shape"};

static char peek(struct scanner *s) {
  while (s->at < s->size && (s->data[s->at] == ' ' || s->data[s->at] == '\n' || s->data[s->at] == '\t'))
    s->at++;
  return s->at < s->size ? s->data[s->at] : 0;
}

static unroll_status unexpected(struct scanner *s, const char *expected, unroll_error *err) {
  (void)peek(s);
  return fail(err, UNROLL_E_FORMAT, "byte %zu of the header: %s where %s is expected", s->at,
              SHOWN(s->data + s->at, s->size - s->at < 12 ? s->size - s->at : 12), expected);
}

static bool take(struct scanner *s, char c) {
  if (peek(s) != c || s->at >= s->size)
    return false;
  s->at++;
  return true;
}

static bool take_word(struct scanner *s, const char *word) {
  const size_t n = strlen(word);
  (void)peek(s);
  if (s->size - s->at < n || memcmp(s->data + s->at, word, n) != 0)
    return false;
  s->at += n;
  return true;
}

/* A string without escapes, in either kind of quotes. */
static unroll_status scan_string(struct scanner *s, const char **string, size_t *n, unroll_error *err) {
  const char quote = peek(s);
  if (quote != '\'' && quote != '"')
    return unexpected(s, "a string", err);
  const char *start = s->data + s->at + 1, *end = memchr(start, quote, s->size - s->at - 1);
  if (end == NULL)
    return fail(err, UNROLL_E_FORMAT, "byte %zu of the header: a string without an end", s->at);
  *string = start;
  *n = (size_t)(end - start);
  s->at = (size_t)(end - s->data) + 1;
  return UNROLL_OK;
}

static unroll_status scan_descr(struct scanner *s, int32_t *dtype, unroll_error *err) {
  const char *d = "";
  size_t n = 0;
  if (peek(s) == '[')
    return fail(err, UNROLL_E_UNSUPPORTED, "a structured dtype; only arrays of plain numbers can be read");
  TRY(scan_string(s, &d, &n, err));
  if (n >= 2 && d[1] == 'O')
    return fail(err, UNROLL_E_UNSUPPORTED, "dtype %s: Python objects are never read, they can run code", SHOWN(d, n));
  for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++) {
    if (n != 3 || memcmp(d + 1, dtypes[i].descr, 2) != 0)
      continue;
    const bool one_byte = unroll_dtype_size(dtypes[i].dtype) == 1;
    if (d[0] == '>' && !one_byte)
      return fail(err, UNROLL_E_UNSUPPORTED, "dtype %s is big endian; only little endian can be read", SHOWN(d, n));
    if (d[0] != '<' && !(one_byte && (d[0] == '|' || d[0] == '>' || d[0] == '=')))
      break;
    *dtype = dtypes[i].dtype;
    return UNROLL_OK;
  }
  return fail(err, UNROLL_E_UNSUPPORTED, "dtype %s; possible are <f8 <f4 <f2 <i8 <i4 |i1 |u1 |b1", SHOWN(d, n));
}

static unroll_status scan_order(struct scanner *s, unroll_error *err) {
  if (take_word(s, "False"))
    return UNROLL_OK;
  if (take_word(s, "True"))
    return fail(err, UNROLL_E_UNSUPPORTED, "fortran_order is True; only C order can be read (numpy.ascontiguousarray)");
  return unexpected(s, "True or False", err);
}

static unroll_status scan_extent(struct scanner *s, int64_t *extent, unroll_error *err) {
  const char first = peek(s);
  if (first < '0' || first > '9')
    return unexpected(s, "an extent", err);
  int64_t n = 0;
  for (; s->at < s->size && s->data[s->at] >= '0' && s->data[s->at] <= '9'; s->at++)
    if (!extent_mul(n, 10, &n) || !extent_add(n, s->data[s->at] - '0', &n))
      return fail(err, UNROLL_E_FORMAT, "byte %zu of the header: an extent past 2^63-1", s->at);
  *extent = n;
  return UNROLL_OK;
}

static unroll_status scan_shape(struct scanner *s, unroll_stored_tensor *t, unroll_error *err) {
  if (!take(s, '('))
    return unexpected(s, "a tuple", err);
  while (!take(s, ')')) {
    if (t->rank == UNROLL_MAX_RANK)
      return fail(err, UNROLL_E_UNSUPPORTED, "more than %d axes", UNROLL_MAX_RANK);
    TRY(scan_extent(s, &t->shape[t->rank++], err));
    if (take(s, ','))
      continue;
    if (t->rank == 1 || peek(s) != ')') /* (3) is a number in Python, (3,) is a tuple */
      return unexpected(s, "','", err);
  }
  return UNROLL_OK;
}

static unroll_status scan_header(struct scanner *s, unroll_stored_tensor *t, unroll_error *err) {
  unsigned has = 0;
  if (!take(s, '{'))
    return unexpected(s, "'{'", err);
  while (!take(s, '}')) {
    const char *key;
    size_t n;
    TRY(scan_string(s, &key, &n, err));
    unsigned k = 0;
    while (k < 3 && (strlen(keys[k]) != n || memcmp(keys[k], key, n) != 0))
      k++;
    if (k == 3)
      return fail(err, UNROLL_E_FORMAT, "unknown key %s", SHOWN(key, n));
    if (has & 1u << k)
      return fail(err, UNROLL_E_FORMAT, "duplicate key \"%s\"", keys[k]);
    has |= 1u << k;
    if (!take(s, ':'))
      return unexpected(s, "':'", err);
    TRY(k == 0 ? scan_descr(s, &t->dtype, err) : k == 1 ? scan_order(s, err) : scan_shape(s, t, err));
    if (!take(s, ',') && peek(s) != '}')
      return unexpected(s, "',' or '}'", err);
  }
  if (has != (HAS_DESCR | HAS_ORDER | HAS_SHAPE))
    return fail(err, UNROLL_E_FORMAT, "no %s", keys[!(has & HAS_DESCR) ? 0 : !(has & HAS_ORDER) ? 1 : 2]);
  if (peek(s) != 0 || s->at < s->size)
    return unexpected(s, "the end", err);
  return UNROLL_OK;
}

/* ---- reading ---- */

static unroll_status parse(unroll_npy *f, unroll_error *err) {
  const unsigned char *p = f->file.data;
  const size_t size = f->file.size;
  if (size < MAGIC_SIZE + 2 || memcmp(p, MAGIC, MAGIC_SIZE) != 0)
    return fail(err, UNROLL_E_FORMAT, "%zu bytes that don't begin as an npy file does", size);
  const unsigned major = p[6], minor = p[7];
  if (major < 1 || major > 3 || minor != 0)
    return fail(err, UNROLL_E_UNSUPPORTED, "version %u.%u of the format; 1.0, 2.0 and 3.0 can be read", major, minor);
  const size_t start = major == 1 ? 10 : 12;
  if (size < start)
    return fail(err, UNROLL_E_FORMAT, "%zu bytes, cut short before the header", size);
  size_t n = p[8] | (size_t)p[9] << 8;
  if (major > 1)
    n |= (size_t)p[10] << 16 | (size_t)p[11] << 24;
  if (n > size - start)
    return fail(err, UNROLL_E_FORMAT, "the header claims %zu bytes, the file has %zu for it", n, size - start);
  struct scanner s = {(const char *)p + start, n, 0};
  unroll_stored_tensor *t = &f->tensor;
  TRY(scan_header(&s, t, err));
  unroll_error inner = UNROLL_ERROR_INIT;
  if (tensor_bytes("the array", t->dtype, t->rank, t->shape, &t->bytes, &inner) != UNROLL_OK)
    return fail(err, UNROLL_E_FORMAT, "%s", inner.message);
  if (t->bytes != size - start - n)
    return fail(err, UNROLL_E_FORMAT, "its shape takes %" PRIu64 " bytes, behind the header are %zu", t->bytes,
                size - start - n);
  t->name = "";
  t->data = p + start + n;
  return UNROLL_OK;
}

unroll_status unroll_npy_open(const char *path, const unroll_allocator *allocator, unroll_npy **file,
                              unroll_error *err) {
  if (path == NULL || file == NULL)
    return fail(err, UNROLL_E_INVALID, "unroll_npy_open: %s is NULL", path == NULL ? "path" : "file");
  unroll_npy *f = mem_zalloc(allocator, sizeof *f);
  if (f == NULL)
    return fail(err, UNROLL_E_MEMORY, "%s: no memory to open it", SHOWN_PATH(path));
  if (allocator != NULL)
    f->allocator = *allocator;
  unroll_status status = mapped_file_open(&f->file, path, err);
  if (status == UNROLL_OK) {
    unroll_error inner = UNROLL_ERROR_INIT;
    status = parse(f, &inner);
    if (status != UNROLL_OK)
      fail(err, status, "%s: %s", SHOWN_PATH(path), inner.message);
  }
  if (status != UNROLL_OK)
    unroll_npy_close(f);
  else
    *file = f;
  return status;
}

const unroll_stored_tensor *unroll_npy_tensor(const unroll_npy *f) { return &f->tensor; }

void unroll_npy_close(unroll_npy *f) {
  if (f == NULL)
    return;
  const unroll_allocator a = f->allocator;
  mapped_file_close(&f->file);
  mem_free(&a, f);
}

/* ---- writing ---- */

static unroll_status make_header(struct text *out, const char *path, int32_t dtype, int32_t rank, const int64_t *shape,
                                 unroll_error *err) {
  const char *descr = NULL;
  for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++)
    if (dtypes[i].dtype == dtype)
      descr = dtypes[i].descr;
  if (descr == NULL)
    return fail(err, UNROLL_E_DTYPE, "%s: NumPy has no dtype for %s", SHOWN_PATH(path), unroll_dtype_name(dtype));
  text_add_bytes(out, MAGIC "\x01\x00\x00\x00", MAGIC_SIZE + 4);
  text_add(out, "{'descr': '%c%s', 'fortran_order': False, 'shape': (", unroll_dtype_size(dtype) == 1 ? '|' : '<',
           descr);
  for (int32_t i = 0; i < rank; i++)
    text_add(out, i > 0 ? " %" PRId64 "%s" : "%" PRId64 "%s", shape[i], i + 1 < rank || rank == 1 ? "," : "");
  text_add(out, "), }");
  while (out->size % ALIGNMENT != ALIGNMENT - 1 && !out->failed)
    text_add_bytes(out, " ", 1);
  text_add_bytes(out, "\n", 1);
  if (out->failed)
    return fail(err, UNROLL_E_MEMORY, "%s: no memory for its header", SHOWN_PATH(path));
  const uint64_t n = out->size - MAGIC_SIZE - 4; /* 6 axes at most: it always fits in 16 bits */
  out->data[MAGIC_SIZE + 2] = (char)(n & 0xFF);
  out->data[MAGIC_SIZE + 3] = (char)(n >> 8);
  return UNROLL_OK;
}

unroll_status unroll_npy_write(const char *path, int32_t dtype, int32_t rank, const int64_t *shape, const void *data,
                               const unroll_allocator *allocator, unroll_error *err) {
  if (path == NULL)
    return fail(err, UNROLL_E_INVALID, "unroll_npy_write: path is NULL");
  uint64_t bytes = 0;
  TRY(tensor_bytes(SHOWN_PATH(path), dtype, rank, shape, &bytes, err));
  if (data == NULL && bytes > 0)
    return fail(err, UNROLL_E_INVALID, "%s: data is NULL", SHOWN_PATH(path));
  struct text header;
  text_init(&header, allocator);
  struct atomic_file f = {.folder = -1, .fd = -1};
  unroll_status status = make_header(&header, path, dtype, rank, shape, err);
  if (status == UNROLL_OK)
    status = atomic_file_open(&f, path, allocator, err);
  if (status == UNROLL_OK) {
    status = atomic_file_write(&f, header.data, header.size, err);
    if (status == UNROLL_OK)
      status = atomic_file_write(&f, data, bytes, err);
    if (status == UNROLL_OK)
      status = atomic_file_commit(&f, err);
    else
      atomic_file_abort(&f);
  }
  text_free(&header);
  return status;
}
