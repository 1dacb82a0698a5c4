/* SPDX-License-Identifier: Apache-2.0 */
#include "data/sequences.h"

#include <inttypes.h>
#include <string.h>

#include "data/utf8.h"

static unroll_status no_memory(const unroll_sequences *s, unroll_error *err) {
  return fail(err, UNROLL_E_MEMORY, "no memory for sequence %" PRId64, s->count);
}

unroll_status sequences_create(int64_t features, const unroll_allocator *allocator, unroll_sequences **sequences,
                               unroll_error *err) {
  unroll_sequences *s = mem_zalloc(allocator, sizeof *s);
  if (s == NULL)
    return fail(err, UNROLL_E_MEMORY, "no memory for sequences");
  if (allocator != NULL)
    s->allocator = *allocator;
  s->features = features;
  *sequences = s;
  return UNROLL_OK;
}

void unroll_sequences_destroy(unroll_sequences *s) {
  if (s == NULL)
    return;
  const unroll_allocator a = s->allocator;
  mem_free(&a, s->lengths);
  mem_free(&a, s->labels);
  mem_free(&a, s->starts);
  mem_free(&a, s->data.data);
  mem_free(&a, s->keys);
  unroll_tokens_destroy(s->names);
  mem_free(&a, s);
}

static uint64_t step_bytes(const unroll_sequences *s) {
  return s->features == 0 ? sizeof(int32_t) : (uint64_t)s->features * sizeof(double);
}

unroll_status sequences_begin(unroll_sequences *s, unroll_error *err) {
  if (s->count == INT32_MAX)
    return fail(err, UNROLL_E_RANGE, "more than %d sequences", INT32_MAX);
  const uint32_t need = (uint32_t)s->count + 1;
  if (!mem_grow(&s->allocator, &s->lengths, &s->capacity, need, sizeof *s->lengths) ||
      !mem_grow(&s->allocator, &s->starts, &s->start_capacity, need, sizeof *s->starts))
    return no_memory(s, err);
  s->lengths[s->count] = 0;
  s->starts[s->count++] = (int64_t)(s->data.size / step_bytes(s));
  return UNROLL_OK;
}

unroll_status sequences_step(unroll_sequences *s, const void *step, unroll_error *err) {
  int32_t *length = &s->lengths[s->count - 1];
  if (*length == INT32_MAX)
    return fail(err, UNROLL_E_RANGE, "sequence %" PRId64 " has more than %d steps", s->count - 1, INT32_MAX);
  if (!bytes_reserve(&s->allocator, &s->data, step_bytes(s)))
    return no_memory(s, err);
  memcpy(s->data.data + s->data.size, step, (size_t)step_bytes(s));
  s->data.size += step_bytes(s);
  ++*length;
  return UNROLL_OK;
}

static const void *steps(const unroll_sequences *s, int64_t item) {
  return s->data.data + (uint64_t)s->starts[item] * step_bytes(s);
}

unroll_status sequences_finish(unroll_sequences *s, unroll_error *err) {
  s->keys = mem_array(&s->allocator, (uint64_t)s->count, sizeof *s->keys);
  if (s->keys == NULL)
    return no_memory(s, err);
  for (int64_t i = 0; i < s->count; i++)
    s->keys[i] = hash64(steps(s, i), (size_t)((uint64_t)s->lengths[i] * step_bytes(s)), HASH64_SEED);
  return UNROLL_OK;
}

/* ---- of texts ---- */

static unroll_status encode_text(unroll_sequences *s, const char *text, const unroll_tokens *tokens, uint32_t add,
                                 struct bytes *ids, unroll_error *err) {
  const size_t bytes = strlen(text);
  size_t n = 0;
  ids->size = 0;
  if (!bytes_reserve(&s->allocator, ids, (bytes + 2) * sizeof(int32_t)))
    return no_memory(s, err);
  int32_t *to = (int32_t *)(void *)ids->data;
  unroll_error why = UNROLL_ERROR_INIT;
  const unroll_status status = unroll_tokens_encode(tokens, text, bytes, add, to, bytes + 2, &n, &why);
  if (status != UNROLL_OK)
    return fail(err, status, "text %" PRId64 " %s: %s", s->count, SHOWN(text, bytes), why.message);
  if (n == (size_t)__builtin_popcount(add))
    return fail(err, UNROLL_E_FORMAT, "text %" PRId64 " is empty", s->count);
  TRY(sequences_begin(s, err));
  for (size_t i = 0; i < n; i++)
    TRY(sequences_step(s, &to[i], err));
  return UNROLL_OK;
}

unroll_status unroll_sequences_encode(const char *const *texts, int64_t n, const unroll_tokens *tokens, uint32_t add,
                                      const unroll_allocator *allocator, unroll_sequences **sequences,
                                      unroll_error *err) {
  if (texts == NULL || n < 1 || tokens == NULL || sequences == NULL)
    return fail(err, UNROLL_E_INVALID, "unroll_sequences_encode: %s",
                n < 1 ? "no text" : "texts, tokens or sequences is NULL");
  unroll_sequences *s = NULL;
  TRY(sequences_create(0, allocator, &s, err));
  struct bytes ids = {0};
  unroll_status status = UNROLL_OK;
  for (int64_t i = 0; i < n && status == UNROLL_OK; i++)
    status = texts[i] != NULL ? encode_text(s, texts[i], tokens, add, &ids, err)
                              : fail(err, UNROLL_E_INVALID, "unroll_sequences_encode: text %" PRId64 " is NULL", i);
  mem_free(&s->allocator, ids.data);
  if (status == UNROLL_OK)
    status = sequences_finish(s, err);
  if (status != UNROLL_OK)
    unroll_sequences_destroy(s);
  else
    *sequences = s;
  return status;
}

/* ---- looking ---- */

int64_t unroll_sequences_count(const unroll_sequences *s) { return s->count; }

int64_t unroll_sequences_features(const unroll_sequences *s) { return s->features; }

const int32_t *unroll_sequences_lengths(const unroll_sequences *s) { return s->lengths; }

const int32_t *unroll_sequences_labels(const unroll_sequences *s) { return s->labels; }

const unroll_tokens *unroll_sequences_label_names(const unroll_sequences *s) { return s->names; }

const uint64_t *unroll_sequences_keys(const unroll_sequences *s) { return s->keys; }

const int32_t *unroll_sequences_ids(const unroll_sequences *s, int64_t item) {
  return s->features == 0 && item >= 0 && item < s->count ? steps(s, item) : NULL;
}

const double *unroll_sequences_values(const unroll_sequences *s, int64_t item) {
  return s->features > 0 && item >= 0 && item < s->count ? steps(s, item) : NULL;
}

/* ---- batches ---- */

static unroll_status check_fill(const unroll_sequences *s, const int64_t *items, int64_t B, int64_t T, int32_t dtype,
                                unroll_error *err) {
  if (s->features == 0 ? dtype != UNROLL_I32 : dtype != UNROLL_F32 && dtype != UNROLL_F64)
    return fail(err, UNROLL_E_DTYPE, "sequences of %s as %s, expected %s", s->features == 0 ? "ids" : "numbers",
                unroll_dtype_name(dtype), s->features == 0 ? "i32" : "f32 or f64");
  if (T < 1 || B < 1)
    return fail(err, UNROLL_E_RANGE, "sequences into a batch of T %" PRId64 " and B %" PRId64 ", both at least 1", T,
                B);
  for (int64_t b = 0; b < B; b++) {
    if (items[b] < -1 || items[b] >= s->count)
      return fail(err, UNROLL_E_RANGE, "item %" PRId64 " in row %" PRId64 ": there are %" PRId64 " sequences", items[b],
                  b, s->count);
    if (items[b] >= 0 && s->lengths[items[b]] > T)
      return fail(err, UNROLL_E_RANGE, "sequence %" PRId64 " has %" PRId32 " steps, the batch %" PRId64, items[b],
                  s->lengths[items[b]], T);
  }
  return UNROLL_OK;
}

unroll_status unroll_sequences_fill(const unroll_sequences *s, const int64_t *items, int64_t B, int64_t T,
                                    int32_t dtype, int32_t fill, void *x, int32_t *lengths, unroll_error *err) {
  if (s == NULL || items == NULL || x == NULL || lengths == NULL)
    return fail(err, UNROLL_E_INVALID, "unroll_sequences_fill: sequences, items, x or lengths is NULL");
  TRY(check_fill(s, items, B, T, dtype, err));
  const int64_t F = s->features == 0 ? 1 : s->features;
  for (int64_t b = 0; b < B; b++) {
    lengths[b] = items[b] < 0 ? 0 : s->lengths[items[b]];
    const void *from = items[b] < 0 ? NULL : steps(s, items[b]);
    for (int64_t t = 0; t < T; t++)
      for (int64_t f = 0; f < F; f++) {
        const int64_t to = (t * B + b) * F + f, at = t * F + f;
        const bool there = t < lengths[b];
        if (dtype == UNROLL_I32)
          ((int32_t *)x)[to] = there ? ((const int32_t *)from)[at] : fill;
        else if (dtype == UNROLL_F64)
          ((double *)x)[to] = there ? ((const double *)from)[at] : 0;
        else
          ((float *)x)[to] = there ? (float)((const double *)from)[at] : 0;
      }
  }
  return UNROLL_OK;
}
