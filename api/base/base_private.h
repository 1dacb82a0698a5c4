/* SPDX-License-Identifier: Apache-2.0 */
/* What the library's own folders stand on: failing, memory, text, logging, hashing, sizes that can't wrap. */
#ifndef BASE_PRIVATE_H
#define BASE_PRIVATE_H
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <unroll/base.h>

#define PRINTF_LIKE(format_index, first_argument) __attribute__((format(printf, format_index, first_argument)))

/* ---- errors ---- */
/*
 * Fill err as far as its struct_size goes (NULL: not at all) and return code. The message may quote err->message itself:
 *
 *     return fail(err, status, "layer %s: %s", name, err->message);
 *
 * In parentheses, since CMocka has a macro fail(): a test calls (fail)(...).
 */
unroll_status(fail)(unroll_error *err, unroll_status code, const char *format, ...) PRINTF_LIKE(3, 4);
/* native: errno, cl_int, ... */
unroll_status(fail_native)(unroll_error *err, unroll_status code, int64_t native, const char *format, ...)
    PRINTF_LIKE(4, 5);
#ifdef __clang_analyzer__ /* it looks into one file at a time: the status that comes back is the one given */
#define fail(err, status, ...) ((void)(fail)(err, status, __VA_ARGS__), (status))
#define fail_native(err, status, native, ...) ((void)(fail_native)(err, status, native, __VA_ARGS__), (status))
#endif
unroll_status fail_list(unroll_error *err, unroll_status code, int64_t native, const char *format, va_list list)
    PRINTF_LIKE(4, 0);

#define TRY(expr)                      \
  do {                                 \
    const unroll_status try_ = (expr); \
    if (try_ != UNROLL_OK)             \
      return try_;                     \
  } while (0)
#define TRY_GOTO(status_var, expr, label) \
  do {                                    \
    (status_var) = (expr);                \
    if ((status_var) != UNROLL_OK)        \
      goto label;                         \
  } while (0)

/* ---- memory: all of it aligned to MEM_ALIGNMENT; an allocator of NULL is the C library's ---- */
#define MEM_ALIGNMENT 64u

/* NULL when there is none; 0 bytes give a pointer too. */
void *mem_alloc(const unroll_allocator *a, uint64_t bytes);
void *mem_zalloc(const unroll_allocator *a, uint64_t bytes);
void mem_free(const unroll_allocator *a, void *p); /* of NULL: nothing */
/* n elements of size bytes, zero; NULL also where their product is no number of bytes. */
void *mem_array(const unroll_allocator *a, uint64_t n, uint64_t size);
/*
 * Make an array of *capacity elements hold at least need, growing by doubling; elements stay, new ones are zero.
 * pointer: the address of the array's pointer, NULL at first. On false nothing has changed.
 *
 *     if (!mem_grow(a, &g->nodes, &g->node_capacity, g->n_nodes + 1, sizeof *g->nodes)) return fail(...);
 */
bool mem_grow(const unroll_allocator *a, void *pointer, uint32_t *capacity, uint32_t need, size_t size);
/* Strings, freed by mem_free; NULL when there is no memory. mem_strdup(NULL) is NULL. */
char *mem_strdup(const unroll_allocator *a, const char *s);
char *mem_printf(const unroll_allocator *a, const char *format, ...) PRINTF_LIKE(2, 3);

/* ---- text: a string that grows; only the end has to check ---- */
/*
 *     struct text out;
 *     text_init(&out, a);
 *     text_add(&out, "node %u", n);
 *     char *s = text_take(&out);      NULL if any step found no memory
 */
struct text {
  const unroll_allocator *allocator; /* must outlive the text */
  char *data;                        /* NULL while empty */
  uint64_t size, capacity;           /* size without the zero at the end */
  bool failed;                       /* some text is missing: there was no memory for it */
};
void text_init(struct text *t, const unroll_allocator *a);
void text_add(struct text *t, const char *format, ...) PRINTF_LIKE(2, 3);
void text_add_bytes(struct text *t, const char *bytes, uint64_t n);
/* The text so far, owned by t; "" while empty. */
const char *text_peek(const struct text *t);
/* The text, owned by the caller (mem_free), or NULL if the text failed. t is empty afterwards, and as good as new. */
char *text_take(struct text *t);
void text_free(struct text *t);

/* ---- logging: long messages are cut ---- */
void log_message(const unroll_logger *logger, int32_t level, const char *format, ...) PRINTF_LIKE(3, 4);
/* To spare the work of a message that nobody sees. */
bool log_enabled(const unroll_logger *logger, int32_t level);

/* ---- hash: 64-bit FNV-1a (Fowler, Noll, Vo). Not for keys that an enemy picks ---- */
#define HASH64_SEED UINT64_C(0xCBF29CE484222325)
/* Begin with HASH64_SEED; the result is the seed of the next piece: hash64(b, hash64(a, s)) is the hash of ab. */
uint64_t hash64(const void *data, size_t size, uint64_t seed);
uint64_t hash64_string(const char *s, uint64_t seed); /* with its zero, so that "a","bc" is not "ab","c" */

/* ---- threads ---- */
/*
 * The CPU quota of a process in whole CPUs, rounded up; 0 for none. cgroup_file is its /proc/PID/cgroup, mount where the
 * hierarchies are mounted, /sys/fs/cgroup. The tightest of a group and all those above it counts.
 */
uint32_t threads_quota(const char *cgroup_file, const char *mount);

/* ---- sizes: false where the result does not fit, and *out is then of no use ---- */
static inline bool size_mul(uint64_t x, uint64_t y, uint64_t *out) { return !__builtin_mul_overflow(x, y, out); }
static inline bool size_add(uint64_t x, uint64_t y, uint64_t *out) { return !__builtin_add_overflow(x, y, out); }
static inline bool extent_mul(int64_t x, int64_t y, int64_t *out) { return !__builtin_mul_overflow(x, y, out); }
static inline bool extent_add(int64_t x, int64_t y, int64_t *out) { return !__builtin_add_overflow(x, y, out); }
/* alignment: a power of two */
static inline bool size_align(uint64_t x, uint64_t alignment, uint64_t *out) {
  if (!size_add(x, alignment - 1, out))
    return false;
  *out &= ~(alignment - 1);
  return true;
}

#endif
