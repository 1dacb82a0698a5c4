/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base_private.h"

static bool is_custom(const unroll_allocator *a) { return a && a->alloc && a->free; }

void *mem_alloc(const unroll_allocator *a, uint64_t bytes) {
  /* Whole units of the alignment, as aligned_alloc asks; no object may be larger than PTRDIFF_MAX. */
  uint64_t rounded;
  if (!size_align(bytes ? bytes : 1, MEM_ALIGNMENT, &rounded) || rounded > PTRDIFF_MAX)
    return NULL;
  return is_custom(a) ? a->alloc(a->ctx, rounded, MEM_ALIGNMENT) : aligned_alloc(MEM_ALIGNMENT, rounded);
}

void *mem_zalloc(const unroll_allocator *a, uint64_t bytes) {
  void *p = mem_alloc(a, bytes);
  if (p)
    memset(p, 0, bytes);
  return p;
}

void mem_free(const unroll_allocator *a, void *p) {
  if (!p)
    return;
  if (is_custom(a))
    a->free(a->ctx, p);
  else
    free(p);
}

void *mem_array(const unroll_allocator *a, uint64_t n, uint64_t size) {
  uint64_t bytes;
  return size_mul(n, size, &bytes) ? mem_zalloc(a, bytes) : NULL;
}

bool mem_grow(const unroll_allocator *a, void *pointer, uint32_t *capacity, uint32_t need, size_t size) {
  if (need <= *capacity)
    return true;
  const uint32_t smallest = 8;
  uint32_t larger = *capacity > UINT32_MAX / 2 ? UINT32_MAX : *capacity * 2;
  if (larger < smallest)
    larger = smallest;
  if (larger < need)
    larger = need;
  void *grown = mem_array(a, larger, size);
  if (!grown)
    return false;
  /* memcpy, because the pointer's own type is unknown here. */
  void *old;
  memcpy(&old, pointer, sizeof old);
  if (old)
    memcpy(grown, old, (size_t)*capacity * size);
  memcpy(pointer, &grown, sizeof grown);
  mem_free(a, old);
  *capacity = larger;
  return true;
}

char *mem_strdup(const unroll_allocator *a, const char *s) {
  if (!s)
    return NULL;
  const size_t bytes = strlen(s) + 1;
  char *copy = mem_alloc(a, bytes);
  if (copy)
    memcpy(copy, s, bytes);
  return copy;
}

char *mem_printf(const unroll_allocator *a, const char *format, ...) {
  va_list list;
  va_start(list, format);
  const int n = vsnprintf(NULL, 0, format, list);
  va_end(list);
  if (n < 0)
    return NULL;
  const size_t bytes = (size_t)n + 1;
  char *s = mem_alloc(a, bytes);
  if (!s)
    return NULL;
  va_start(list, format);
  vsnprintf(s, bytes, format, list);
  va_end(list);
  return s;
}
