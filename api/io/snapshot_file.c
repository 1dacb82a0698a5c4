/* SPDX-License-Identifier: Apache-2.0 */
/* snapshot_file.c: a snapshot in a safetensors file. */
#include "runtime/runtime_private.h"
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unroll/io.h>

#define KEY "unroll.snapshot"
#define REVISION "1"

/* ---- storing ---- */

struct fetch {
  unroll_snapshot *snapshot;
  uint32_t i;
};

static unroll_status fetch_piece(void *ctx, uint64_t offset, void *to, uint64_t bytes, unroll_error *err) {
  const struct fetch *f = ctx;
  return snapshot_read_bytes(f->snapshot, f->i, offset, to, bytes, err);
}

static unroll_status add_number(unroll_safetensors_writer *w, const char *key, bool negative, uint64_t magnitude,
                                unroll_error *err) {
  char text[32];
  snprintf(text, sizeof text, "%s%" PRIu64, negative ? "-" : "", magnitude);
  return unroll_safetensors_writer_metadata(w, key, text, err);
}

static unroll_status add_signed(unroll_safetensors_writer *w, const char *key, int64_t value, unroll_error *err) {
  return add_number(w, key, value < 0, value < 0 ? 0 - (uint64_t)value : (uint64_t)value, err);
}

static unroll_status write_all(unroll_snapshot *s, unroll_safetensors_writer *w, struct fetch *fetches,
                               unroll_error *err) {
  const snapshot_place *p = snapshot_place_of(s);
  TRY(unroll_safetensors_writer_metadata(w, KEY, REVISION, err));
  TRY(add_number(w, KEY ".seed", false, p->seed, err));
  TRY(add_number(w, KEY ".update", false, p->update, err));
  TRY(add_signed(w, KEY ".t0", p->t0, err));
  TRY(add_signed(w, KEY ".row0", p->row0, err));
  for (uint32_t i = 0; i < unroll_snapshot_count(s); i++) {
    const unroll_tensor_info x = unroll_snapshot_describe(s, i);
    fetches[i] = (struct fetch){s, i};
    TRY(unroll_safetensors_writer_add_fetch(w, x.name, x.dtype, x.rank, x.shape, fetch_piece, &fetches[i], err));
  }
  return unroll_safetensors_writer_commit(w, err);
}

unroll_status unroll_snapshot_store(unroll_snapshot *s, const char *path, unroll_error *err) {
  if (!s || !path)
    return fail(err, UNROLL_E_INVALID, "unroll_snapshot_store: an argument is NULL");
  const unroll_allocator *a = snapshot_allocator(s);
  unroll_safetensors_writer *w;
  struct fetch *fetches = mem_array(a, unroll_snapshot_count(s), sizeof *fetches);
  if (!fetches)
    return fail(err, UNROLL_E_MEMORY, "%s: out of memory to store a snapshot", path);
  unroll_status st = unroll_safetensors_writer_create(path, a, &w, err);
  if (st == UNROLL_OK) {
    st = write_all(s, w, fetches, err);
    unroll_safetensors_writer_destroy(w);
  }
  mem_free(a, fetches);
  return st;
}

/* ---- loading ---- */

/* Decimal digits and nothing else, after a minus where that is allowed. */
static bool read_magnitude(const char *text, uint64_t *value) {
  char *end;
  if (*text < '0' || *text > '9')
    return false;
  errno = 0;
  const unsigned long long x = strtoull(text, &end, 10);
  *value = x;
  return *end == '\0' && errno == 0;
}

static unroll_status no_number(const char *key, const char *text, unroll_error *err) {
  return fail(err, UNROLL_E_FORMAT, "metadata %s is %.40s, expected a whole number", key, text ? text : "missing");
}

static unroll_status get_unsigned(const unroll_safetensors *f, const char *key, uint64_t *value, unroll_error *err) {
  const char *text = unroll_safetensors_metadata(f, key);
  return text && read_magnitude(text, value) ? UNROLL_OK : no_number(key, text, err);
}

static unroll_status get_signed(const unroll_safetensors *f, const char *key, int64_t *value, unroll_error *err) {
  const char *text = unroll_safetensors_metadata(f, key);
  const bool negative = text && *text == '-';
  uint64_t x;
  if (!text || !read_magnitude(text + negative, &x) || x > (uint64_t)INT64_MAX + negative)
    return no_number(key, text, err);
  *value = negative && x ? -(int64_t)(x - 1) - 1 : (int64_t)x;
  return UNROLL_OK;
}

static unroll_status read_place(const unroll_safetensors *f, snapshot_place *p, unroll_error *err) {
  const char *mark = unroll_safetensors_metadata(f, KEY);
  if (!mark)
    return fail(err, UNROLL_E_FORMAT, "no snapshot: metadata " KEY " is missing");
  if (strcmp(mark, REVISION) != 0)
    return fail(err, UNROLL_E_FORMAT, "a snapshot of revision %.40s, expected " REVISION, mark);
  unroll_error why = UNROLL_ERROR_INIT;
  const unroll_status st = unroll_safetensors_verify(f, &why);
  if (st != UNROLL_OK)
    return fail_native(err, st == UNROLL_E_NOT_FOUND ? UNROLL_E_FORMAT : st, why.native, "%s", why.message);
  TRY(get_unsigned(f, KEY ".seed", &p->seed, err));
  TRY(get_unsigned(f, KEY ".update", &p->update, err));
  TRY(get_signed(f, KEY ".t0", &p->t0, err));
  return get_signed(f, KEY ".row0", &p->row0, err);
}

static void add_tensor(struct text *text, int32_t dtype, int32_t rank, const int64_t *shape) {
  text_add(text, "%s [", unroll_dtype_name(dtype));
  for (int32_t i = 0; i < rank; i++)
    text_add(text, "%s%" PRId64, i ? "," : "", shape[i]);
  text_add(text, "]");
}

static unroll_status check_tensor(const unroll_snapshot *s, const unroll_tensor_info *x, const unroll_safetensors *f,
                                  unroll_stored_tensor *stored, unroll_error *err) {
  const unroll_status found = unroll_safetensors_find(f, x->name, stored, err);
  if (found == UNROLL_E_NOT_FOUND)
    return fail(err, UNROLL_E_FORMAT, "tensor %s is missing", x->name);
  TRY(found);
  if (stored->dtype == x->dtype && stored->rank == x->rank &&
      memcmp(stored->shape, x->shape, (size_t)x->rank * sizeof x->shape[0]) == 0)
    return UNROLL_OK;
  struct text text;
  text_init(&text, snapshot_allocator(s));
  text_add(&text, "tensor %s is ", x->name);
  add_tensor(&text, stored->dtype, stored->rank, stored->shape);
  text_add(&text, ", the snapshot keeps ");
  add_tensor(&text, x->dtype, x->rank, x->shape);
  const unroll_status st = fail(err, UNROLL_E_FORMAT, "%s", text_peek(&text));
  text_free(&text);
  return st;
}

static unroll_status check_tensors(const unroll_snapshot *s, const unroll_safetensors *f, unroll_error *err) {
  const uint32_t n = unroll_snapshot_count(s);
  unroll_stored_tensor stored;
  for (uint32_t i = 0; i < n; i++) {
    const unroll_tensor_info x = unroll_snapshot_describe(s, i);
    TRY(check_tensor(s, &x, f, &stored, err));
  }
  for (uint64_t k = 0; unroll_safetensors_count(f) != n && k < unroll_safetensors_count(f); k++) {
    TRY(unroll_safetensors_get(f, k, &stored, err));
    uint32_t i = 0;
    while (i < n && strcmp(unroll_snapshot_describe(s, i).name, stored.name) != 0)
      i++;
    if (i == n)
      return fail(err, UNROLL_E_FORMAT, "tensor %s is none that the snapshot keeps", stored.name);
  }
  return UNROLL_OK;
}

static unroll_status read_all(unroll_snapshot *s, const unroll_safetensors *f, unroll_error *err) {
  snapshot_place next = {0};
  TRY(read_place(f, &next, err));
  TRY(check_tensors(s, f, err));
  for (uint32_t i = 0; i < unroll_snapshot_count(s); i++) {
    unroll_stored_tensor stored;
    const char *name = unroll_snapshot_describe(s, i).name;
    TRY(unroll_safetensors_find(f, name, &stored, err));
    TRY(unroll_snapshot_write(s, name, stored.data, stored.bytes, err));
  }
  *snapshot_place_of(s) = next;
  return UNROLL_OK;
}

unroll_status unroll_snapshot_load(unroll_snapshot *s, const char *path, unroll_error *err) {
  if (!s || !path)
    return fail(err, UNROLL_E_INVALID, "unroll_snapshot_load: an argument is NULL");
  unroll_safetensors *f;
  TRY(unroll_safetensors_open(path, snapshot_allocator(s), &f, err));
  unroll_error why = UNROLL_ERROR_INIT;
  const unroll_status st = read_all(s, f, &why);
  unroll_safetensors_close(f);
  return st == UNROLL_OK ? st : fail_native(err, st, why.native, "%s: %s", path, why.message);
}
