/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unroll/datasets.h>

#include "base/base_private.h"

struct row {
  int32_t length[2];
  int64_t place; /* among the shuffled items, so that the order is one alone */
  int64_t item;  /* its number in items and lengths */
};

struct unroll_batches {
  unroll_allocator allocator;
  int64_t n, count, B, pool;
  uint64_t seed;
  bool in_order, sides; /* sides: there are targets too */
  int64_t *items;       /* [n] the caller's numbers */
  int32_t (*lengths)[2];
  int64_t *shuffled; /* [n] */
  struct row *rows;  /* [n] shuffled, then sorted within pools */
  int64_t *turns;    /* [count] the batches' order */
  int64_t *filled;   /* [count·B] */
  int64_t (*T)[2];   /* [count] */
  unroll_padding padding;
};

void unroll_batches_destroy(unroll_batches *b) {
  if (b == NULL)
    return;
  const unroll_allocator a = b->allocator;
  mem_free(&a, b->items);
  mem_free(&a, b->lengths);
  mem_free(&a, b->shuffled);
  mem_free(&a, b->rows);
  mem_free(&a, b->turns);
  mem_free(&a, b->filled);
  mem_free(&a, b->T);
  mem_free(&a, b);
}

/* The longest first: the batch that is not full then has short ones. */
static int by_length(const void *a, const void *b) {
  const struct row *x = a, *y = b;
  for (int side = 0; side < 2; side++)
    if (x->length[side] != y->length[side])
      return x->length[side] > y->length[side] ? -1 : 1;
  return (x->place > y->place) - (x->place < y->place);
}

/* The rows of batch i and its T of both sides. */
static int64_t batch_of(const unroll_batches *b, int64_t i, int64_t T[2]) {
  const int64_t first = i * b->B, n = b->n - first < b->B ? b->n - first : b->B;
  T[0] = T[1] = 1;
  for (int64_t k = first; k < first + n; k++)
    for (int side = 0; side < 2; side++)
      if (b->rows[k].length[side] > T[side])
        T[side] = b->rows[k].length[side];
  return n;
}

static int64_t positions(const unroll_batches *b) {
  int64_t all = 0, T[2];
  for (int64_t i = 0; i < b->count; i++) {
    batch_of(b, i, T);
    all += b->B * (T[0] + (b->sides ? T[1] : 0));
  }
  return all;
}

void unroll_batches_start(unroll_batches *b, uint64_t epoch) {
  for (int64_t i = 0; i < b->n; i++)
    b->shuffled[i] = i;
  for (int64_t i = 0; i < b->count; i++)
    b->turns[i] = i;
  if (!b->in_order)
    unroll_shuffle(b->shuffled, b->n, b->seed, 2 * epoch);
  for (int64_t i = 0; i < b->n; i++) {
    const int64_t item = b->shuffled[i];
    b->rows[i] = (struct row){{b->lengths[item][0], b->lengths[item][1]}, i, item};
  }
  b->padding.plain = positions(b);
  const int64_t pool = b->pool == 0 || b->pool > b->count ? b->count : b->pool, step = pool * b->B;
  if (!b->in_order && pool > 1) {
    for (int64_t i = 0; i < b->n; i += step)
      qsort(b->rows + i, (size_t)(b->n - i < step ? b->n - i : step), sizeof *b->rows, by_length);
  }
  if (!b->in_order)
    unroll_shuffle(b->turns, b->count, b->seed, 2 * epoch + 1);
  b->padding.padded = positions(b);
  for (int64_t i = 0; i < b->count; i++) {
    int64_t *to = b->filled + i * b->B;
    const int64_t n = batch_of(b, b->turns[i], b->T[i]);
    for (int64_t k = 0; k < b->B; k++)
      to[k] = k < n ? b->items[b->rows[b->turns[i] * b->B + k].item] : -1;
  }
}

int64_t unroll_batches_count(const unroll_batches *b) { return b->count; }

unroll_batch unroll_batches_get(const unroll_batches *b, int64_t i) {
  if (i < 0 || i >= b->count)
    return (unroll_batch){0};
  const int64_t left = b->n - b->turns[i] * b->B;
  return (unroll_batch){.items = b->filled + i * b->B, .n = left < b->B ? left : b->B, .T = {b->T[i][0], b->T[i][1]}};
}

unroll_padding unroll_batches_padding(const unroll_batches *b) { return b->padding; }

static unroll_status copy_items(unroll_batches *b, const int32_t *lengths, const int32_t *targets, const int64_t *items,
                                unroll_error *err) {
  for (int64_t i = 0; i < b->n; i++) {
    const int64_t item = items == NULL ? i : items[i];
    if (item < 0)
      return fail(err, UNROLL_E_RANGE, "batches: item %" PRId64 " is %" PRId64, i, item);
    b->items[i] = item;
    b->lengths[i][0] = lengths[item];
    b->lengths[i][1] = targets == NULL ? 1 : targets[item];
    if (b->lengths[i][0] < 0 || b->lengths[i][1] < 0)
      return fail(err, UNROLL_E_RANGE, "batches: item %" PRId64 " has a length of %" PRId32, item,
                  b->lengths[i][0] < 0 ? b->lengths[i][0] : b->lengths[i][1]);
    b->padding.real += lengths[item] + (targets == NULL ? 0 : (int64_t)targets[item]);
  }
  return UNROLL_OK;
}

unroll_status unroll_batches_create(const int32_t *lengths, const int32_t *targets, const int64_t *items, int64_t n,
                                    const unroll_batches_options *o, const unroll_allocator *allocator,
                                    unroll_batches **batches, unroll_error *err) {
  if (lengths == NULL || o == NULL || batches == NULL || !UNROLL_HAS(unroll_batches_options, o, seed))
    return fail(err, UNROLL_E_INVALID,
                "unroll_batches_create: lengths, options or batches is NULL, or struct_size too small");
  int64_t padded;
  if (n < 1 || n > INT32_MAX || o->B < 1 || o->pool < 0 || !extent_mul(n + o->B, 64, &padded))
    return fail(err, UNROLL_E_RANGE,
                "batches: n %" PRId64 " of 1 to %d, B %" PRId64 " of at least 1, pool %" PRId64 " of at least 0", n,
                INT32_MAX, o->B, o->pool);
  unroll_batches *b = mem_zalloc(allocator, sizeof *b);
  if (b == NULL)
    return fail(err, UNROLL_E_MEMORY, "no memory for batches");
  if (allocator != NULL)
    b->allocator = *allocator;
  b->n = n;
  b->B = o->B;
  b->pool = o->pool;
  b->seed = o->seed;
  b->in_order = o->in_order != 0;
  b->sides = targets != NULL;
  b->count = (n - 1) / b->B + 1;
  b->items = mem_array(allocator, (uint64_t)n, sizeof *b->items);
  b->lengths = mem_array(allocator, (uint64_t)n, sizeof *b->lengths);
  b->shuffled = mem_array(allocator, (uint64_t)n, sizeof *b->shuffled);
  b->rows = mem_array(allocator, (uint64_t)n, sizeof *b->rows);
  b->turns = mem_array(allocator, (uint64_t)b->count, sizeof *b->turns);
  b->filled = mem_array(allocator, (uint64_t)b->count * (uint64_t)b->B, sizeof *b->filled);
  b->T = mem_array(allocator, (uint64_t)b->count, sizeof *b->T);
  unroll_status status;
  if (b->items == NULL || b->lengths == NULL || b->shuffled == NULL || b->rows == NULL || b->turns == NULL ||
      b->filled == NULL || b->T == NULL)
    status = fail(err, UNROLL_E_MEMORY, "no memory for batches of %" PRId64 " items", n);
  else
    status = copy_items(b, lengths, targets, items, err);
  if (status != UNROLL_OK) {
    unroll_batches_destroy(b);
    return status;
  }
  unroll_batches_start(b, 0);
  *batches = b;
  return UNROLL_OK;
}
