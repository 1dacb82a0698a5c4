/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <string.h>
#include <unroll/datasets.h>

#include "data/input.h"
#include "data/utf8.h"

struct unroll_pairs {
  unroll_allocator allocator;
  struct bytes text; /* source NUL target NUL, pair after pair */
  uint64_t *starts;  /* [2·count] */
  uint32_t n_starts, capacity;
  const char **sources, **targets; /* [count] */
  uint64_t *keys;                  /* [count] */
  int64_t count;
  uint64_t hash;
};

void unroll_pairs_destroy(unroll_pairs *p) {
  if (p == NULL)
    return;
  const unroll_allocator a = p->allocator;
  mem_free(&a, p->text.data);
  mem_free(&a, p->starts);
  mem_free(&a, p->sources);
  mem_free(&a, p->targets);
  mem_free(&a, p->keys);
  mem_free(&a, p);
}

/* A piece of a line. */
struct span {
  const char *s;
  size_t n;
};

static bool is_blank(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

static struct span trim(struct span x) {
  while (x.n > 0 && is_blank(x.s[0])) {
    x.s++;
    x.n--;
  }
  while (x.n > 0 && is_blank(x.s[x.n - 1]))
    x.n--;
  return x;
}

/* The next word of *rest, which moves behind it; empty at the end. */
static struct span word(struct span *rest) {
  *rest = trim(*rest);
  struct span w = {rest->s, 0};
  while (w.n < rest->n && !is_blank(rest->s[w.n]))
    w.n++;
  rest->s += w.n;
  rest->n -= w.n;
  return w;
}

struct reading {
  struct input in;
  struct bytes line;
  int64_t number; /* of the line */
  unroll_pairs *pairs;
  int32_t form;
  uint32_t flags;
};

static unroll_status add_bytes(struct reading *r, const char *s, size_t n, unroll_error *err) {
  struct bytes *text = &r->pairs->text;
  if (!bytes_reserve(&r->pairs->allocator, text, n))
    return fail(err, UNROLL_E_MEMORY, "%s: no memory for its pairs", SHOWN_PATH(r->in.path));
  if (n > 0)
    memcpy(text->data + text->size, s, n);
  text->size += n;
  return UNROLL_OK;
}

static unroll_status start_text(struct reading *r, unroll_error *err) {
  unroll_pairs *p = r->pairs;
  if (p->n_starts == INT32_MAX - 1)
    return fail(err, UNROLL_E_RANGE, "%s: line %" PRId64 ": more than %d pairs", SHOWN_PATH(r->in.path), r->number,
                INT32_MAX / 2);
  if (!mem_grow(&p->allocator, &p->starts, &p->capacity, p->n_starts + 1, sizeof *p->starts))
    return fail(err, UNROLL_E_MEMORY, "%s: no memory for its pairs", SHOWN_PATH(r->in.path));
  p->starts[p->n_starts++] = p->text.size;
  return UNROLL_OK;
}

static unroll_status empty(const struct reading *r, const char *what, unroll_error *err) {
  return fail(err, UNROLL_E_FORMAT, "%s: line %" PRId64 ": the %s is empty", SHOWN_PATH(r->in.path), r->number, what);
}

static unroll_status add_tabbed(struct reading *r, struct span line, unroll_error *err) {
  const char *tab = memchr(line.s, '\t', line.n);
  const size_t before = tab == NULL ? 0 : (size_t)(tab - line.s);
  if (tab == NULL || memchr(tab + 1, '\t', line.n - before - 1) != NULL)
    return fail(err, UNROLL_E_FORMAT, "%s: line %" PRId64 ": %s tab, expected source TAB target",
                SHOWN_PATH(r->in.path), r->number, tab == NULL ? "no" : "more than one");
  const struct span source = trim((struct span){line.s, before}),
                    target = trim((struct span){tab + 1, line.n - before - 1});
  if (source.n == 0 || target.n == 0)
    return empty(r, source.n == 0 ? "source" : "target", err);
  TRY(start_text(r, err));
  TRY(add_bytes(r, source.s, source.n, err));
  TRY(add_bytes(r, "", 1, err));
  TRY(start_text(r, err));
  TRY(add_bytes(r, target.s, target.n, err));
  return add_bytes(r, "", 1, err);
}

/* Takes the (2) off WORD(2). */
static bool alternate(struct span *w) {
  size_t n = w->n;
  if (n < 4 || w->s[n - 1] != ')')
    return false;
  n--;
  while (n > 0 && w->s[n - 1] >= '0' && w->s[n - 1] <= '9')
    n--;
  if (n < 2 || n == w->n - 1 || w->s[n - 1] != '(')
    return false;
  w->n = n - 1;
  return true;
}

/* Does the pair that was added last repeat one before it with the same source? */
static bool repeated(const unroll_pairs *p) {
  const char *text = p->text.data, *source = text + p->starts[p->n_starts - 2],
             *target = text + p->starts[p->n_starts - 1];
  for (uint32_t i = p->n_starts - 2; i >= 2 && strcmp(text + p->starts[i - 2], source) == 0; i -= 2)
    if (strcmp(text + p->starts[i - 1], target) == 0)
      return true;
  return false;
}

static unroll_status add_pronounced(struct reading *r, struct span line, unroll_error *err) {
  unroll_pairs *p = r->pairs;
  for (size_t i = 1; i < line.n; i++) /* " # a comment" */
    if (line.s[i] == '#' && is_blank(line.s[i - 1]))
      line.n = i;
  struct span source = word(&line);
  if (alternate(&source) && (r->flags & UNROLL_PAIRS_FIRST_ONLY))
    return UNROLL_OK;
  TRY(start_text(r, err));
  TRY(add_bytes(r, source.s, source.n, err));
  TRY(add_bytes(r, "", 1, err));
  TRY(start_text(r, err));
  struct span phoneme;
  for (bool first = true; (phoneme = word(&line)).n > 0; first = false) {
    if (r->flags & UNROLL_PAIRS_NO_STRESS && phoneme.n > 1 && phoneme.s[phoneme.n - 1] >= '0' &&
        phoneme.s[phoneme.n - 1] <= '9')
      phoneme.n--;
    TRY(add_bytes(r, " ", first ? 0 : 1, err));
    TRY(add_bytes(r, phoneme.s, phoneme.n, err));
  }
  if (p->text.size == p->starts[p->n_starts - 1])
    return empty(r, "pronunciation", err);
  TRY(add_bytes(r, "", 1, err));
  if (repeated(p)) {
    p->n_starts -= 2;
    p->text.size = p->starts[p->n_starts];
  }
  return UNROLL_OK;
}

static unroll_status read_line(struct reading *r, bool *more, unroll_error *err) {
  r->line.size = 0;
  r->number = r->in.line;
  int byte = -1;
  for (;;) {
    TRY(input_next(&r->in, &byte, err));
    if (byte < 0 || byte == '\n')
      break;
    if (!bytes_push(r->in.allocator, &r->line, (char)byte))
      return fail(err, UNROLL_E_MEMORY, "%s: line %" PRId64 ": no memory for it", SHOWN_PATH(r->in.path), r->number);
  }
  *more = byte >= 0 || r->line.size > 0;
  return UNROLL_OK;
}

static unroll_status add_line(struct reading *r, unroll_error *err) {
  const size_t size = (size_t)r->line.size;
  const struct span line = {r->line.data, size};
  if (size == 0 || trim(line).n == 0)
    return UNROLL_OK;
  const size_t valid = utf8_check(line.s, size);
  if (valid < size)
    return fail(err, UNROLL_E_FORMAT, "%s: line %" PRId64 ", byte %zu: 0x%02X is not UTF-8", SHOWN_PATH(r->in.path),
                r->number, valid, (unsigned char)line.s[valid]);
  if (r->form == UNROLL_PAIRS_TAB)
    return add_tabbed(r, line, err);
  return size >= 3 && memcmp(line.s, ";;;", 3) == 0 ? UNROLL_OK : add_pronounced(r, line, err);
}

/* Texts no longer move: their addresses. */
static unroll_status finish(unroll_pairs *p, unroll_error *err) {
  p->count = p->n_starts / 2;
  p->sources = mem_array(&p->allocator, (uint64_t)p->count, sizeof *p->sources);
  p->targets = mem_array(&p->allocator, (uint64_t)p->count, sizeof *p->targets);
  p->keys = mem_array(&p->allocator, (uint64_t)p->count, sizeof *p->keys);
  if (p->sources == NULL || p->targets == NULL || p->keys == NULL)
    return fail(err, UNROLL_E_MEMORY, "no memory for %" PRId64 " pairs", p->count);
  for (int64_t i = 0; i < p->count; i++) {
    p->sources[i] = p->text.data + p->starts[2 * i];
    p->targets[i] = p->text.data + p->starts[2 * i + 1];
    p->keys[i] = hash64_string(p->sources[i], HASH64_SEED);
  }
  return UNROLL_OK;
}

static unroll_status read_pairs(struct reading *r, const char *path, unroll_error *err) {
  TRY(input_open(&r->in, path, &r->pairs->allocator, err));
  for (;;) {
    bool more = false;
    TRY(read_line(r, &more, err));
    if (!more)
      break;
    TRY(add_line(r, err));
  }
  if (r->pairs->n_starts == 0)
    return fail(err, UNROLL_E_FORMAT, "%s: no pair in it", SHOWN_PATH(path));
  r->pairs->hash = r->in.hash;
  return finish(r->pairs, err);
}

unroll_status unroll_pairs_load(const char *path, const unroll_pairs_options *options,
                                const unroll_allocator *allocator, unroll_pairs **pairs, unroll_error *err) {
  static const unroll_pairs_options defaults = {.struct_size = sizeof defaults};
  const unroll_pairs_options *o = options == NULL ? &defaults : options;
  if (path == NULL || pairs == NULL)
    return fail(err, UNROLL_E_INVALID, "unroll_pairs_load: %s is NULL", path == NULL ? "path" : "pairs");
  if (!UNROLL_HAS(unroll_pairs_options, o, flags))
    return fail(err, UNROLL_E_INVALID, "unroll_pairs_load: the options' struct_size is too small");
  const uint32_t flags = o->form == UNROLL_PAIRS_CMUDICT ? UNROLL_PAIRS_NO_STRESS | UNROLL_PAIRS_FIRST_ONLY : 0;
  if ((o->form != UNROLL_PAIRS_TAB && o->form != UNROLL_PAIRS_CMUDICT) || (o->flags & ~flags) != 0)
    return fail(err, UNROLL_E_INVALID, "unroll_pairs_load: form %" PRId32 " with flags 0x%" PRIX32, o->form, o->flags);
  unroll_pairs *p = mem_zalloc(allocator, sizeof *p);
  if (p == NULL)
    return fail(err, UNROLL_E_MEMORY, "no memory for pairs");
  if (allocator != NULL)
    p->allocator = *allocator;
  struct reading r = {.in = {.fd = -1, .allocator = &p->allocator}, .pairs = p, .form = o->form, .flags = o->flags};
  const unroll_status status = read_pairs(&r, path, err);
  input_close(&r.in);
  mem_free(&p->allocator, r.line.data);
  if (status != UNROLL_OK) {
    unroll_pairs_destroy(p);
    return status;
  }
  *pairs = p;
  return UNROLL_OK;
}

int64_t unroll_pairs_count(const unroll_pairs *p) { return p->count; }

const char *const *unroll_pairs_sources(const unroll_pairs *p) { return p->sources; }

const char *const *unroll_pairs_targets(const unroll_pairs *p) { return p->targets; }

const uint64_t *unroll_pairs_keys(const unroll_pairs *p) { return p->keys; }

uint64_t unroll_pairs_hash(const unroll_pairs *p) { return p->hash; }
