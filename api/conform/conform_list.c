/* SPDX-License-Identifier: Apache-2.0 */
/* The list of cases as the suites write it. */
#include "conform/conform_private.h"
#include <stdio.h>
#include <string.h>

struct conform_case *conform_list_add(struct conform_list *list, const char *format, ...) {
  if (!mem_grow(list->allocator, &list->cases, &list->capacity, list->n + 1, sizeof *list->cases)) {
    list->failed = true;
    return NULL;
  }
  struct conform_case *c = &list->cases[list->n++];
  memset(c, 0, sizeof *c);
  c->dtype = -1;
  c->first_mark = list->n_marks;
  va_list args;
  va_start(args, format);
  vsnprintf(c->name, sizeof c->name, format, args);
  va_end(args);
  return c;
}

void conform_cover(struct conform_list *list, uint32_t op, int32_t attribute, int32_t value) {
  if (!list->n ||
      !mem_grow(list->allocator, &list->marks, &list->mark_capacity, list->n_marks + 1, sizeof *list->marks)) {
    list->failed = true;
    return;
  }
  list->marks[list->n_marks++] = (struct conform_mark){op, attribute, value};
  list->cases[list->n - 1].n_marks++;
}

unroll_status conform_list_make(struct conform_list *list, const unroll_allocator *allocator, unroll_error *err) {
  *list = (struct conform_list){.allocator = allocator};
  suite_abi_list(list);
  suite_ops_list(list);
  suite_layers_list(list);
  suite_threads_list(list);
  if (!list->failed)
    return UNROLL_OK;
  conform_list_free(list);
  return fail(err, UNROLL_E_MEMORY, "out of memory for the list of cases");
}

void conform_list_free(struct conform_list *list) {
  op_case_list_free(&list->ops);
  mem_free(list->allocator, list->layers);
  mem_free(list->allocator, list->cases);
  mem_free(list->allocator, list->marks);
  *list = (struct conform_list){.allocator = list->allocator};
}
