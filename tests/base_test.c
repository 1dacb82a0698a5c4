/* SPDX-License-Identifier: Apache-2.0 */
#include <ftw.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/base_private.h"
#include "build_info.h"

/* An allocator that counts, checks the contract and gives out at most `left` blocks. */
struct counter {
  int left, live;
};

static void *counter_alloc(void *ctx, uint64_t bytes, uint64_t alignment) {
  struct counter *counter = ctx;
  assert_true(bytes > 0);
  assert_int_equal(alignment, MEM_ALIGNMENT);
  if (counter->left == 0)
    return NULL;
  counter->left--;
  counter->live++;
  void *p = aligned_alloc(alignment, bytes);
  assert_non_null(p);
  memset(p, 0xA5, bytes);
  return p;
}

static void counter_free(void *ctx, void *p) {
  assert_non_null(p);
  ((struct counter *)ctx)->live--;
  free(p);
}

static unroll_allocator counting(struct counter *counter) {
  return (unroll_allocator){counter, counter_alloc, counter_free};
}

/* ---- version, statuses, dtypes ---- */

static void version_is_that_of_the_build(void **state) {
  (void)state;
  assert_string_equal(unroll_version(), build_info_version);
  char header[32];
  snprintf(header, sizeof header, "%d.%d.%d", UNROLL_VERSION_MAJOR, UNROLL_VERSION_MINOR, UNROLL_VERSION_PATCH);
  assert_string_equal(header, build_info_version);
  assert_int_equal(unroll_version_number(), UNROLL_VERSION_NUMBER);
}

static void version_check(void **state) {
  (void)state;
  assert_int_equal(UNROLL_CHECK_VERSION(), UNROLL_OK);
  assert_int_equal(unroll_version_check(UNROLL_VERSION_MAJOR + 1, UNROLL_VERSION_MINOR), UNROLL_E_ABI);
  assert_int_equal(unroll_version_check(UNROLL_VERSION_MAJOR - 1, UNROLL_VERSION_MINOR), UNROLL_E_ABI);
  assert_int_equal(unroll_version_check(UNROLL_VERSION_MAJOR, UNROLL_VERSION_MINOR + 1), UNROLL_E_ABI);
  assert_int_equal(unroll_version_check(UNROLL_VERSION_MAJOR, -1), UNROLL_E_ABI);
}

static void statuses_are_named(void **state) {
  (void)state;
  static const struct {
    unroll_status value;
    const char *name, *text;
  } statuses[] = {
#define ENTRY(name, value, text) {name, #name, text},
      UNROLL_STATUSES(ENTRY)
#undef ENTRY
  };
  for (size_t i = 0; i < sizeof statuses / sizeof *statuses; i++) {
    assert_string_equal(unroll_status_name(statuses[i].value), statuses[i].name);
    assert_string_equal(unroll_status_text(statuses[i].value), statuses[i].text);
    assert_int_equal(statuses[i].value, -(int)i);
  }
  assert_string_equal(unroll_status_name(UNROLL_E_SHAPE), "UNROLL_E_SHAPE");
  assert_string_equal(unroll_status_text(UNROLL_E_SHAPE), "shapes do not fit");
  assert_string_equal(unroll_status_name(1), "UNROLL_E_UNKNOWN");
  assert_string_equal(unroll_status_name(INT32_MIN), "UNROLL_E_UNKNOWN");
  assert_string_equal(unroll_status_text(-999), "unknown status");
}

static void dtypes_are_named(void **state) {
  (void)state;
  static const struct {
    int32_t dtype;
    const char *name;
    uint32_t bytes;
  } dtypes[UNROLL_DTYPE_COUNT] = {{UNROLL_F64, "f64", 8},   {UNROLL_F32, "f32", 4}, {UNROLL_F16, "f16", 2},
                                  {UNROLL_BF16, "bf16", 2}, {UNROLL_I64, "i64", 8}, {UNROLL_I32, "i32", 4},
                                  {UNROLL_I8, "i8", 1},     {UNROLL_U8, "u8", 1},   {UNROLL_BOOL, "bool", 1}};
  for (int i = 0; i < UNROLL_DTYPE_COUNT; i++) {
    assert_string_equal(unroll_dtype_name(dtypes[i].dtype), dtypes[i].name);
    assert_int_equal(unroll_dtype_size(dtypes[i].dtype), dtypes[i].bytes);
  }
  assert_string_equal(unroll_dtype_name(-1), "unknown");
  assert_string_equal(unroll_dtype_name(UNROLL_DTYPE_COUNT), "unknown");
  assert_int_equal(unroll_dtype_size(UNROLL_DTYPE_COUNT), 0);
}

/* ---- errors ---- */

static void fail_fills_the_error(void **state) {
  (void)state;
  unroll_error err = UNROLL_ERROR_INIT;
  assert_int_equal(err.struct_size, sizeof err);
  assert_int_equal(err.code, UNROLL_OK);
  assert_int_equal((fail)(&err, UNROLL_E_SHAPE, "x is [%d,%d], expected [2,3]", 4, 5), UNROLL_E_SHAPE);
  assert_int_equal(err.code, UNROLL_E_SHAPE);
  assert_int_equal(err.native, 0);
  assert_string_equal(err.message, "x is [4,5], expected [2,3]");
  assert_int_equal(fail_native(&err, UNROLL_E_IO, -36, "%s", "read"), UNROLL_E_IO);
  assert_int_equal(err.code, UNROLL_E_IO);
  assert_int_equal(err.native, -36);
  assert_string_equal(err.message, "read");
  assert_int_equal(err.struct_size, sizeof err);
}

static void fail_takes_null(void **state) {
  (void)state;
  assert_int_equal((fail)(NULL, UNROLL_E_RANGE, "%d", 1), UNROLL_E_RANGE);
  assert_int_equal(fail_native(NULL, UNROLL_E_IO, 5, "%d", 1), UNROLL_E_IO);
}

/* Whatever size the caller says its struct has, no byte after that is touched. */
static void fail_respects_struct_size(void **state) {
  (void)state;
  union {
    unroll_error err;
    unsigned char bytes[sizeof(unroll_error) + 64];
  } u;
  for (uint32_t size = 0; size <= sizeof u.bytes; size++) {
    memset(&u, 0xEE, sizeof u);
    u.err.struct_size = size;
    assert_int_equal(fail_native(&u.err, UNROLL_E_STATE, 77, "%0300d", 8), UNROLL_E_STATE);
    assert_int_equal(u.err.struct_size, size);
    assert_int_equal(u.err.code == UNROLL_E_STATE, size >= 8);
    assert_int_equal(u.err.native == 77, size >= 16);
    if (size > offsetof(unroll_error, message)) {
      const size_t room = size < sizeof(unroll_error) ? size - offsetof(unroll_error, message) : sizeof u.err.message;
      assert_int_equal(strnlen(u.err.message, room), room - 1);
    }
    const size_t end = size < sizeof(unroll_error) ? size : sizeof(unroll_error);
    for (size_t i = end < 4 ? 4 : end; i < sizeof u.bytes; i++)
      assert_int_equal(u.bytes[i], 0xEE);
  }
}

static void fail_may_quote_its_own_message(void **state) {
  (void)state;
  unroll_error err = UNROLL_ERROR_INIT;
  (fail)(&err, UNROLL_E_FORMAT, "no header");
  (fail)(&err, err.code, "a.npy: %s", err.message);
  assert_string_equal(err.message, "a.npy: no header");
}

/* Characters of 1, 2, 3 and 4 bytes around the cut: whole ones stay, a part of one goes. */
static void long_messages_are_cut_between_characters(void **state) {
  (void)state;
  static const char *const characters[] = {"x", "\xC3\xA9", "\xE2\x8A\x99", "\xF0\x9D\x91\x8A"};
  const size_t room = sizeof(((unroll_error *)0)->message) - 1;
  for (size_t length = 1; length <= 4; length++)
    for (size_t before = room - 6; before <= room; before++) {
      char message[512] = "";
      memset(message, '.', before);
      for (size_t at = before; at < before + 12; at += length)
        memcpy(message + at, characters[length - 1], length + 1);
      unroll_error err = UNROLL_ERROR_INIT;
      (fail)(&err, UNROLL_E_FORMAT, "%s", message);
      const size_t expected = before + (room - before) / length * length;
      assert_int_equal(strlen(err.message), expected);
      assert_memory_equal(err.message, message, expected);

      unroll_error small = UNROLL_ERROR_INIT; /* cut a second time, into what is left of the struct */
      small.struct_size = (uint32_t)(offsetof(unroll_error, message) + before + 3);
      if (before + 3 <= room) {
        (fail)(&small, UNROLL_E_FORMAT, "%s", message);
        assert_int_equal(strlen(small.message), before + 2 / length * length);
      }
    }
}

static unroll_status returns(unroll_status status, int *count) {
  (*count)++;
  return status;
}

static unroll_status tries(unroll_status status, int *count) {
  TRY(returns(status, count));
  TRY(returns(UNROLL_OK, count));
  return UNROLL_OK;
}

static unroll_status tries_and_cleans(unroll_status status, int *count) {
  unroll_status result;
  TRY_GOTO(result, returns(status, count), end);
  (*count)++;
end:
  return result;
}

static void try_returns_the_first_failure(void **state) {
  (void)state;
  int count = 0;
  assert_int_equal(tries(UNROLL_OK, &count), UNROLL_OK);
  assert_int_equal(count, 2);
  assert_int_equal(tries(UNROLL_E_DEVICE, &count), UNROLL_E_DEVICE);
  assert_int_equal(count, 3);
  assert_int_equal(tries_and_cleans(UNROLL_E_IO, &count), UNROLL_E_IO);
  assert_int_equal(count, 4);
  assert_int_equal(tries_and_cleans(UNROLL_OK, &count), UNROLL_OK);
  assert_int_equal(count, 6);
}

/* ---- memory ---- */

static void memory_is_aligned_and_zeroed(void **state) {
  (void)state;
  struct counter counter = {1000, 0};
  const unroll_allocator custom = counting(&counter), zeros = {0};
  unroll_allocator half = custom; /* one function is as good as none */
  half.free = NULL;
  const unroll_allocator *allocators[] = {NULL, &zeros, &half, &custom};
  for (size_t i = 0; i < 4; i++) {
    const unroll_allocator *a = allocators[i];
    static const uint64_t sizes[] = {0, 1, 63, 64, 65, 4097};
    for (size_t s = 0; s < 6; s++) {
      void *p = mem_alloc(a, sizes[s]);
      assert_non_null(p);
      assert_int_equal((uintptr_t)p % MEM_ALIGNMENT, 0);
      memset(p, 1, sizes[s]);
      unsigned char *z = mem_zalloc(a, sizes[s]);
      assert_non_null(z);
      for (uint64_t b = 0; b < sizes[s]; b++)
        assert_int_equal(z[b], 0);
      assert_int_equal(counter.live, a == &custom ? 2 : 0);
      mem_free(a, p);
      mem_free(a, z);
    }
    mem_free(a, NULL);
  }
  assert_int_equal(counter.live, 0);
  assert_int_equal(counter.left, 1000 - 12);
}

static void memory_that_can_not_be(void **state) {
  (void)state;
  struct counter counter = {1, 0};
  const unroll_allocator a = counting(&counter);
  assert_null(mem_alloc(&a, UINT64_MAX));
  assert_null(mem_alloc(&a, UINT64_MAX - 62));
  assert_null(mem_alloc(&a, (uint64_t)PTRDIFF_MAX));
  assert_null(mem_zalloc(&a, UINT64_MAX));
  assert_null(mem_array(&a, UINT64_C(1) << 32, UINT64_C(1) << 32));
  assert_null(mem_array(&a, UINT64_MAX / 2 + 2, 2)); /* wraps to 2 */
  assert_int_equal(counter.left, 1);
  uint32_t *array = mem_array(&a, 5, sizeof *array);
  assert_non_null(array);
  for (int i = 0; i < 5; i++)
    assert_int_equal(array[i], 0);
  assert_null(mem_alloc(&a, 1));
  assert_null(mem_zalloc(&a, 1));
  mem_free(&a, array);
}

static void growing_keeps_the_elements(void **state) {
  (void)state;
  struct counter counter = {1000, 0};
  const unroll_allocator a = counting(&counter);
  struct element {
    uint32_t x, y;
  } *elements = NULL;
  uint32_t capacity = 0;
  assert_true(mem_grow(&a, &elements, &capacity, 0, sizeof *elements));
  assert_null(elements);
  for (uint32_t n = 0; n < 1000; n++) {
    assert_true(mem_grow(&a, &elements, &capacity, n + 1, sizeof *elements));
    assert_true(capacity > n);
    assert_int_equal(elements[n].x | elements[n].y, 0);
    elements[n] = (struct element){n, ~n};
  }
  for (uint32_t n = 0; n < 1000; n++)
    assert_true(elements[n].x == n && elements[n].y == ~n);
  assert_int_equal(counter.live, 1);
  assert_true(counter.left >= 1000 - 10); /* geometric: 8 blocks, not 1000 */
  assert_true(mem_grow(&a, &elements, &capacity, 5000, sizeof *elements));
  assert_true(capacity >= 5000);
  mem_free(&a, elements);
  assert_int_equal(counter.live, 0);
}

static void growing_without_memory_changes_nothing(void **state) {
  (void)state;
  struct counter counter = {1, 0};
  const unroll_allocator a = counting(&counter);
  uint32_t *elements = NULL, capacity = 0;
  assert_true(mem_grow(&a, &elements, &capacity, 3, sizeof *elements));
  for (uint32_t i = 0; i < capacity; i++)
    elements[i] = i * i;
  const uint32_t *before = elements;
  const uint32_t had = capacity;
  assert_false(mem_grow(&a, &elements, &capacity, had + 1, sizeof *elements));
  assert_ptr_equal(elements, before);
  assert_int_equal(capacity, had);
  for (uint32_t i = 0; i < capacity; i++)
    assert_int_equal(elements[i], i * i);

  counter.left = 1;
  assert_false(mem_grow(&a, &elements, &capacity, UINT32_MAX, SIZE_MAX / 2)); /* no such number of bytes */
  assert_ptr_equal(elements, before);
  assert_int_equal(counter.left, 1);
  mem_free(&a, elements);
  assert_int_equal(counter.live, 0);
}

static void strings(void **state) {
  (void)state;
  struct counter counter = {3, 0};
  const unroll_allocator a = counting(&counter);
  char *copy = mem_strdup(&a, "carry"), *empty = mem_strdup(&a, ""), *text = mem_printf(&a, "%s[%d]", copy, 12);
  assert_string_equal(copy, "carry");
  assert_string_equal(empty, "");
  assert_string_equal(text, "carry[12]");
  assert_null(mem_strdup(&a, NULL));
  assert_null(mem_strdup(&a, "x"));
  assert_null(mem_printf(&a, "x"));
  mem_free(&a, copy);
  mem_free(&a, empty);
  mem_free(&a, text);
  assert_int_equal(counter.live, 0);
}

static void sizes_do_not_wrap(void **state) {
  (void)state;
  uint64_t u;
  int64_t i;
  assert_true(size_mul(UINT32_MAX, UINT32_MAX, &u) && u == (uint64_t)UINT32_MAX * UINT32_MAX);
  assert_false(size_mul(UINT64_C(1) << 63, 2, &u));
  assert_true(size_add(UINT64_MAX, 0, &u) && u == UINT64_MAX);
  assert_false(size_add(UINT64_MAX, 1, &u));
  assert_true(extent_mul(INT64_MIN, 1, &i) && i == INT64_MIN);
  assert_false(extent_mul(INT64_MIN, -1, &i));
  assert_true(extent_add(INT64_MAX, INT64_MIN, &i) && i == -1);
  assert_false(extent_add(INT64_MAX, 1, &i));
  assert_true(size_align(0, 64, &u) && u == 0);
  assert_true(size_align(65, 64, &u) && u == 128);
  assert_false(size_align(UINT64_MAX - 62, 64, &u));
}

/* ---- text ---- */

static void text_grows(void **state) {
  (void)state;
  struct counter counter = {1000, 0};
  const unroll_allocator a = counting(&counter);
  struct text t;
  text_init(&t, &a);
  assert_string_equal(text_peek(&t), "");
  for (int i = 0; i < 1000; i++)
    text_add(&t, "%03d,", i);
  text_add_bytes(&t, "end and more", 3);
  assert_int_equal(t.size, 4003);
  assert_int_equal(strlen(text_peek(&t)), 4003);
  assert_memory_equal(text_peek(&t), "000,001,", 8);
  assert_string_equal(text_peek(&t) + 3996, "999,end");
  char *s = text_take(&t);
  assert_string_equal(s + 3996, "999,end");
  assert_string_equal(text_peek(&t), "");
  mem_free(&a, s);
  assert_int_equal(counter.live, 0);

  s = text_take(&t);
  assert_string_equal(s, "");
  mem_free(&a, s);
  text_free(&t);
  assert_int_equal(counter.live, 0);
}

static void text_without_memory_fails_at_the_end(void **state) {
  (void)state;
  for (int blocks = 0; blocks < 3; blocks++) {
    struct counter counter = {blocks, 0};
    const unroll_allocator a = counting(&counter);
    struct text t;
    text_init(&t, &a);
    for (int i = 0; i < 1000; i++)
      text_add(&t, "%03d,", i);
    assert_true(t.failed);
    assert_int_equal(strlen(text_peek(&t)), t.size);
    const uint64_t size = t.size;
    counter.left = 1000;
    text_add(&t, "a gap would be worse than an end");
    assert_int_equal(t.size, size);
    assert_null(text_take(&t));
    assert_int_equal(counter.live, 0);
    assert_false(t.failed);
  }
}

/* ---- logging ---- */

struct heard {
  int count;
  int32_t level;
  char message[2048];
};

static void hear(void *ctx, int32_t level, const char *message) {
  struct heard *heard = ctx;
  heard->count++;
  heard->level = level;
  snprintf(heard->message, sizeof heard->message, "%s", message);
}

static void log_levels(void **state) {
  (void)state;
  struct heard heard = {0};
  for (int32_t limit = UNROLL_LOG_ERROR; limit <= UNROLL_LOG_DEBUG; limit++) {
    const unroll_logger logger = {&heard, hear, limit};
    for (int32_t level = UNROLL_LOG_ERROR; level <= UNROLL_LOG_DEBUG; level++) {
      heard.count = 0;
      log_message(&logger, level, "level %d of %d", level, limit);
      assert_int_equal(heard.count, level <= limit);
      assert_int_equal(log_enabled(&logger, level), level <= limit);
      if (level <= limit) {
        char expected[64];
        snprintf(expected, sizeof expected, "level %d of %d", level, limit);
        assert_string_equal(heard.message, expected);
        assert_int_equal(heard.level, level);
      }
    }
  }
  const unroll_logger silent = {&heard, NULL, UNROLL_LOG_DEBUG};
  log_message(&silent, UNROLL_LOG_ERROR, "x");
  log_message(NULL, UNROLL_LOG_ERROR, "x");
  assert_false(log_enabled(NULL, UNROLL_LOG_ERROR));
}

static void long_log_messages_are_cut(void **state) {
  (void)state;
  struct heard heard = {0};
  const unroll_logger logger = {&heard, hear, UNROLL_LOG_INFO};
  log_message(&logger, UNROLL_LOG_INFO, "%05000d", 1);
  assert_int_equal(heard.count, 1);
  assert_int_equal(strlen(heard.message), 1023);
}

/* ---- hash: the vectors of the FNV authors ---- */

static void hash_vectors(void **state) {
  (void)state;
  assert_true(hash64("", 0, HASH64_SEED) == UINT64_C(0xcbf29ce484222325));
  assert_true(hash64("a", 1, HASH64_SEED) == UINT64_C(0xaf63dc4c8601ec8c));
  assert_true(hash64("foobar", 6, HASH64_SEED) == UINT64_C(0x85944171f73967e8));
  assert_true(hash64("bar", 3, hash64("foo", 3, HASH64_SEED)) == UINT64_C(0x85944171f73967e8));
  assert_true(hash64_string("a", HASH64_SEED) == hash64("a\0", 2, HASH64_SEED));
  assert_true(hash64_string("bc", hash64_string("a", HASH64_SEED)) !=
              hash64_string("c", hash64_string("ab", HASH64_SEED)));
}

/* ---- threads ---- */

static void thread_count_from_the_environment(void **state) {
  (void)state;
  unsetenv("UNROLL_NUM_THREADS");
  const uint32_t found = unroll_thread_count();
  assert_true(found >= 1);
  setenv("UNROLL_NUM_THREADS", "37", 1);
  assert_int_equal(unroll_thread_count(), 37);
  static const char *const rejected[] = {"", "0", "-3", "four", "4x", "99999999999999999999", "2147483648"};
  for (size_t i = 0; i < sizeof rejected / sizeof *rejected; i++) {
    setenv("UNROLL_NUM_THREADS", rejected[i], 1);
    assert_int_equal(unroll_thread_count(), found);
  }
  unsetenv("UNROLL_NUM_THREADS");
}

static void thread_count_follows_the_affinity(void **state) {
  (void)state;
  cpu_set_t before, one;
  assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
  size_t cpu = 0;
  while (!CPU_ISSET(cpu, &before))
    cpu++;
  CPU_ZERO(&one);
  CPU_SET(cpu, &one);
  assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
  assert_int_equal(unroll_thread_count(), 1);
  assert_int_equal(sched_setaffinity(0, sizeof before, &before), 0);
}

static char tree[] = "/tmp/unroll-base-test-XXXXXX";

static int remove_entry(const char *path, const struct stat *status, int type, struct FTW *place) {
  (void)status, (void)type, (void)place;
  return remove(path);
}

static int tree_make(void **state) {
  (void)state;
  memcpy(tree + sizeof tree - 7, "XXXXXX", 6);
  return mkdtemp(tree) ? 0 : -1;
}

static int tree_remove(void **state) {
  (void)state;
  return nftw(tree, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

static const char *in_tree(const char *path) {
  static char full[4096];
  snprintf(full, sizeof full, "%s/%s", tree, path);
  return full;
}

static void put_directory(const char *path) { assert_int_equal(mkdir(in_tree(path), 0700), 0); }

static void put(const char *path, const char *content) {
  FILE *file = fopen(in_tree(path), "w");
  assert_non_null(file);
  assert_true(fputs(content, file) >= 0);
  assert_int_equal(fclose(file), 0);
}

static uint32_t quota_of(const char *cgroup) {
  put("cgroup", cgroup);
  return threads_quota(in_tree("cgroup"), tree);
}

static void quota_version_2(void **state) {
  (void)state;
  put_directory("a");
  put_directory("a/b");
  assert_int_equal(quota_of("0::/a/b\n"), 0);
  put("a/b/cpu.max", "max 100000\n");
  assert_int_equal(quota_of("0::/a/b\n"), 0);
  put("a/b/cpu.max", "250000 100000\n");
  assert_int_equal(quota_of("0::/a/b\n"), 3);
  put("a/cpu.max", "200000 100000\n"); /* the group above is tighter */
  assert_int_equal(quota_of("0::/a/b\n"), 2);
  put("a/cpu.max", "900000 100000\n");
  assert_int_equal(quota_of("0::/a/b\n"), 3);
  put("cpu.max", "50000 100000\n"); /* the mount's own directory: a container's group */
  assert_int_equal(quota_of("0::/a/b\n"), 1);
  assert_int_equal(quota_of("0::/\n"), 1);
  assert_int_equal(quota_of("0::/not/there\n"), 1);
}

static void quota_version_1(void **state) {
  (void)state;
  put_directory("cpu");
  put_directory("cpu/job");
  put("cpu/cpu.cfs_quota_us", "-1\n");
  put("cpu/cpu.cfs_period_us", "100000\n");
  put("cpu/job/cpu.cfs_quota_us", "400001\n");
  put("cpu/job/cpu.cfs_period_us", "100000\n");
  assert_int_equal(quota_of("11:cpuset:/job\n4:cpu,cpuacct:/job\n1:name=systemd:/job\n"), 5);
  assert_int_equal(quota_of("4:cpuacct,cpu:/job\n0::/job\n"), 5);
  assert_int_equal(quota_of("4:cpu:/\n"), 0);
  assert_int_equal(quota_of("4:cpuset,cpuacct:/job\n"), 0);
  put("cpu/cpu.cfs_quota_us", "300000\n");
  assert_int_equal(quota_of("4:cpu:/docker/0123\n"), 3);
}

static void quota_of_unreadable_files(void **state) {
  (void)state;
  assert_int_equal(threads_quota(in_tree("none"), tree), 0);
  static const char *const broken[] = {"",           "\n",          "0",          "100000\n",
                                       "x 100000\n", "-5 100000\n", "100000 0\n", "0 100000\n"};
  for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
    put("cpu.max", broken[i]);
    assert_int_equal(quota_of("0::/\n"), 0);
  }
  put("cpu.max", "200000 100000");
  assert_int_equal(quota_of("no colons\n0:one colon\n0::/"), 2);
  put("cpu.max", "9223372036854775807 1\n");
  assert_int_equal(quota_of("0::/\n"), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(version_is_that_of_the_build),
      cmocka_unit_test(version_check),
      cmocka_unit_test(statuses_are_named),
      cmocka_unit_test(dtypes_are_named),
      cmocka_unit_test(fail_fills_the_error),
      cmocka_unit_test(fail_takes_null),
      cmocka_unit_test(fail_respects_struct_size),
      cmocka_unit_test(fail_may_quote_its_own_message),
      cmocka_unit_test(long_messages_are_cut_between_characters),
      cmocka_unit_test(try_returns_the_first_failure),
      cmocka_unit_test(memory_is_aligned_and_zeroed),
      cmocka_unit_test(memory_that_can_not_be),
      cmocka_unit_test(growing_keeps_the_elements),
      cmocka_unit_test(growing_without_memory_changes_nothing),
      cmocka_unit_test(strings),
      cmocka_unit_test(sizes_do_not_wrap),
      cmocka_unit_test(text_grows),
      cmocka_unit_test(text_without_memory_fails_at_the_end),
      cmocka_unit_test(log_levels),
      cmocka_unit_test(long_log_messages_are_cut),
      cmocka_unit_test(hash_vectors),
      cmocka_unit_test(thread_count_from_the_environment),
      cmocka_unit_test(thread_count_follows_the_affinity),
      cmocka_unit_test_setup_teardown(quota_version_2, tree_make, tree_remove),
      cmocka_unit_test_setup_teardown(quota_version_1, tree_make, tree_remove),
      cmocka_unit_test_setup_teardown(quota_of_unreadable_files, tree_make, tree_remove),
  };
  return cmocka_run_group_tests_name("base", tests, NULL, NULL);
}
