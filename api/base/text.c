/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "base/base_private.h"

void text_init(struct text *t, const unroll_allocator *a) { *t = (struct text){.allocator = a}; }

/* Room for n more bytes and the zero at the end. */
static bool reserve(struct text *t, uint64_t n) {
  uint64_t need;
  if (t->failed || !size_add(t->size, n, &need) || !size_add(need, 1, &need)) {
    t->failed = true;
    return false;
  }
  if (need <= t->capacity)
    return true;
  uint64_t larger;
  if (!size_mul(t->capacity, 2, &larger) || larger < need)
    larger = need < 128 ? 128 : need;
  char *grown = mem_alloc(t->allocator, larger);
  if (!grown) {
    t->failed = true;
    return false;
  }
  if (t->data)
    memcpy(grown, t->data, t->size + 1);
  else
    grown[0] = '\0';
  mem_free(t->allocator, t->data);
  t->data = grown;
  t->capacity = larger;
  return true;
}

void text_add(struct text *t, const char *format, ...) {
  va_list list;
  va_start(list, format);
  const int n = vsnprintf(NULL, 0, format, list);
  va_end(list);
  if (n < 0) {
    t->failed = true;
    return;
  }
  if (!reserve(t, (uint64_t)n))
    return;
  va_start(list, format);
  vsnprintf(t->data + t->size, (size_t)n + 1, format, list);
  va_end(list);
  t->size += (uint64_t)n;
}

void text_add_bytes(struct text *t, const char *bytes, uint64_t n) {
  if (!reserve(t, n))
    return;
  if (n)
    memcpy(t->data + t->size, bytes, n);
  t->size += n;
  t->data[t->size] = '\0';
}

const char *text_peek(const struct text *t) { return t->data ? t->data : ""; }

char *text_take(struct text *t) {
  /* An empty text is a string too. */
  char *s = reserve(t, 0) ? t->data : NULL;
  if (s)
    t->data = NULL;
  text_free(t);
  return s;
}

void text_free(struct text *t) {
  mem_free(t->allocator, t->data);
  text_init(t, t->allocator);
}
