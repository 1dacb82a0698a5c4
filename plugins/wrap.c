/* SPDX-License-Identifier: Apache-2.0 */
/* UNROLL_WRAP read, and the wrappers that it names put around a backend, the last one first. */
#include "plugins/wrap_private.h"
#include "plugins/wrap_trace.h"
#include <stdlib.h>
#include <string.h>

static const struct wrap_kind *const kinds[] = {&wrap_check_kind, &wrap_trace_kind};
enum { KINDS = sizeof kinds / sizeof *kinds };

struct wrap_stack {
  struct wrap_host *host;
  const unroll_allocator *allocator;
  unroll_backend *inner;
  struct wrap_layer *layers[KINDS]; /* the outermost first */
  uint32_t n;
};

static unroll_status unknown_word(const char *word, size_t n, unroll_error *err) {
  char known[64] = "";
  for (size_t i = 0; i < KINDS; i++) {
    strncat(known, i ? ", " : "", sizeof known - strlen(known) - 1);
    strncat(known, kinds[i]->word, sizeof known - strlen(known) - 1);
  }
  return fail(err, UNROLL_E_INVALID, "UNROLL_WRAP: \"%.*s\" is no wrapper; there are: %s", (int)(n < 40 ? n : 40), word,
              known);
}

/* The kinds that a list names, in its order. */
static unroll_status read_words(const char *at, const struct wrap_kind **named, uint32_t *n, unroll_error *err) {
  *n = 0;
  while (at && *at) {
    const size_t length = strcspn(at, ",");
    const struct wrap_kind *kind = NULL;
    for (size_t i = 0; i < KINDS; i++) {
      if (strlen(kinds[i]->word) == length && strncmp(kinds[i]->word, at, length) == 0) {
        kind = kinds[i];
      }
    }
    if (length > 0 && !kind) {
      return unknown_word(at, length, err);
    }
    for (uint32_t i = 0; kind && i < *n; i++) {
      if (named[i] == kind) {
        return fail(err, UNROLL_E_INVALID, "UNROLL_WRAP: \"%s\" is there twice", kind->word);
      }
    }
    if (kind) {
      named[(*n)++] = kind;
    }
    at += length + (at[length] == ',');
  }
  return UNROLL_OK;
}

static void stack_free(struct wrap_stack *stack) {
  for (uint32_t i = 0; i < KINDS; i++) {
    wrap_layer_free(stack->layers[i]);
  }
  mem_free(stack->allocator, stack);
}

unroll_status wrap_open(struct wrap_host *host, const char *plugin_id, unroll_backend **backend,
                        const unroll_backend_ops **ops, struct wrap_stack **out, unroll_error *err) {
  const struct wrap_kind *named[KINDS];
  uint32_t n = 0;
  TRY(read_words(secure_getenv("UNROLL_WRAP"), named, &n, err));
  if (n == 0) {
    *out = NULL;
    return UNROLL_OK;
  }
  struct wrap_stack *stack = mem_zalloc(host->allocator, sizeof *stack);
  if (!stack) {
    return fail(err, UNROLL_E_MEMORY, "out of memory for the wrappers of UNROLL_WRAP");
  }
  stack->host = host;
  stack->allocator = host->allocator;
  stack->inner = *backend;
  stack->n = n;
  unroll_backend *inner = *backend;
  const unroll_backend_ops *inner_ops = *ops;
  for (uint32_t i = n; i-- > 0;) {
    const unroll_status status = wrap_layer_open(named[i], host, plugin_id, inner, inner_ops, &stack->layers[i], err);
    if (status != UNROLL_OK) {
      stack_free(stack);
      return status;
    }
    inner = (unroll_backend *)(void *)stack->layers[i];
    inner_ops = &stack->layers[i]->ops;
  }
  *backend = inner;
  *ops = inner_ops;
  *out = stack;
  return UNROLL_OK;
}

unroll_status wrap_close(struct wrap_stack *stack, unroll_backend **backend, unroll_error *err) {
  if (!stack) {
    return UNROLL_OK;
  }
  unroll_status first = UNROLL_OK;
  for (uint32_t i = 0; i < stack->n; i++) {
    struct wrap_layer *layer = stack->layers[i];
    bool keep = false;
    if (layer->kind->close) {
      const unroll_status status = layer->kind->close(layer, &keep, first == UNROLL_OK ? err : NULL);
      first = first == UNROLL_OK ? status : first;
    }
    if (keep) {
      stack->host->stays = true;
      *backend = NULL;
      return first;
    }
  }
  *backend = stack->inner;
  stack_free(stack);
  return first;
}

void wrap_host_finish(struct wrap_host *host) {
  if (!host->stays) {
    trace_file_close(host->trace);
  }
  host->trace = NULL;
}
