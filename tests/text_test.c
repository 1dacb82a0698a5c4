/* SPDX-License-Identifier: Apache-2.0 */
#include "support/io_support.h"

#include <errno.h>
#include <math.h>
#include <sys/syscall.h>
#include <unroll/data.h>

#define KEEP(text) text, sizeof text - 1
#define SMILE "\xF0\x9F\x98\x80" /* U+1F600 */

/* The n-th read fails, or reads are short and interrupted. */
static struct { int calls, fail_at, meek, ends; } fault;

ssize_t read(int fd, void *to, size_t n) {
  if (fd > 2 && ++fault.calls == fault.fail_at) {
    errno = EIO;
    return fault.ends ? 0 : -1;
  }
  if (fd > 2 && fault.meek && fault.calls % 3 == 0) {
    errno = EINTR;
    return -1;
  }
  return syscall(SYS_read, fd, to, fault.meek && n > 3 ? 3 : n);
}

static unroll_status load(const char *name, const unroll_text_options *options, unroll_text **text, unroll_error *err) {
  const char *path = in_folder(name);
  return unroll_text_load(&path, 1, options, NULL, text, err);
}

static unroll_text *text_of(const void *bytes, size_t n) {
  unroll_text *t = NULL;
  put_file(in_folder("t"), bytes, n);
  assert_ok(load("t", NULL, &t, &err));
  return t;
}

static void ids_by_code_point(void **state) {
  (void)state;
  unroll_text *t = text_of(KEEP("b\xC3\xA9" SMILE "a\r\nb"));
  static const int32_t ids[] = {3, 4, 5, 2, 1, 0, 3}; /* \n \r a b e-acute smile */
  assert_int_equal(unroll_text_count(t), 7);
  assert_memory_equal(unroll_text_ids(t), ids, sizeof ids);
  assert_int_equal(unroll_text_unknown(t), 0);
  const unroll_vocabulary *v = unroll_text_vocabulary(t);
  assert_int_equal(unroll_vocabulary_count(v), 6);
  assert_string_equal(unroll_vocabulary_json(v), "[\"\\u000a\",\"\\u000d\",\"a\",\"b\",\"\xC3\xA9\",\"" SMILE "\"]");
  char all[64] = "";
  for (int64_t i = 0; i < 7; i++) {
    char c[UNROLL_CHARACTER_BYTES];
    assert_ok(unroll_vocabulary_decode(v, unroll_text_ids(t)[i], c, &err));
    strcat(all, c);
  }
  assert_string_equal(all, "b\xC3\xA9" SMILE "a\r\nb");
  unroll_text_destroy(t);
  unroll_text_destroy(NULL);
}

static void every_length_of_utf8(void **state) {
  (void)state;
  static const char text[] =
      "\x01\x7F\xC2\x80\xDF\xBF\xE0\xA0\x80\xED\x9F\xBF\xEE\x80\x80\xEF\xBF\xBF\xF0\x90\x80\x80\xF4\x8F\xBF\xBF";
  unroll_text *t = text_of(text, sizeof text - 1);
  assert_int_equal(unroll_text_count(t), 10);
  size_t at = 0;
  for (int32_t i = 0; i < 10; i++) {
    char c[UNROLL_CHARACTER_BYTES];
    assert_int_equal(unroll_text_ids(t)[i], i);
    assert_ok(unroll_vocabulary_decode(unroll_text_vocabulary(t), i, c, &err));
    assert_memory_equal(c, text + at, strlen(c));
    at += strlen(c);
  }
  assert_int_equal(at, sizeof text - 1);
  unroll_text_destroy(t);
}

static const struct hostile {
  const char *bytes;
  size_t size;
  const char *words;
} hostiles[] = {
    {KEEP(""), "the file is empty"},
    {KEEP("a"), "U+0061 'a'"},
    {KEEP("\n\n\n\n"), "at least 2 different"},
    {KEEP("ab\ncd\0e"), "byte 5, line 2: a NUL"},
    {KEEP("ab\n\nc\xFF"), "byte 5, line 3: 0xFF is not UTF-8"},
    {KEEP("ab\x80"), "byte 2, line 1: 0x80 is not UTF-8"},
    {KEEP("ab\xC0\xAF"), "byte 2, line 1: 0xC0"}, /* longer than needed */
    {KEEP("ab\xC1\xBF"), "byte 2, line 1: 0xC1"},
    {KEEP("ab\xE0\x80\xAF"), "byte 2, line 1: 0xE0"},
    {KEEP("ab\xF0\x80\x80\xAF"), "byte 2, line 1: 0xF0"},
    {KEEP("ab\xED\xA0\x80"), "byte 2, line 1: 0xED"},     /* a surrogate */
    {KEEP("ab\xF4\x90\x80\x80"), "byte 2, line 1: 0xF4"}, /* past U+10FFFF */
    {KEEP("ab\xF5\x80\x80\x80"), "byte 2, line 1: 0xF5"},
    {KEEP("ab\xE2\x82"), "byte 2, line 1: 0xE2"}, /* cut short */
    {KEEP("ab\xE2\x82z"), "byte 2, line 1: 0xE2"},
    {KEEP("ab\xF0\x9F\x98"), "byte 2, line 1: 0xF0"},
};

static void texts_that_are_none(void **state) {
  (void)state;
  unroll_text *t = NULL;
  for (size_t i = 0; i < sizeof hostiles / sizeof *hostiles; i++) {
    put_file(in_folder("t"), hostiles[i].bytes, hostiles[i].size);
    assert_error(load("t", NULL, &t, &err), UNROLL_E_FORMAT, hostiles[i].words);
    assert_error(load("t", NULL, &t, &err), UNROLL_E_FORMAT, folder);
    assert_null(t);
  }
  assert_error(load("none", NULL, &t, &err), UNROLL_E_IO, "No such file");
  assert_error(load("", NULL, &t, &err), UNROLL_E_IO, "a directory");
  const char *device = "/dev/zero", *nothing = NULL;
  assert_error(unroll_text_load(&device, 1, NULL, NULL, &t, &err), UNROLL_E_IO, "not a regular file");
  assert_error(unroll_text_load(&nothing, 1, NULL, NULL, &t, &err), UNROLL_E_INVALID, "path 0 is NULL");
  assert_error(unroll_text_load(NULL, 1, NULL, NULL, &t, &err), UNROLL_E_INVALID, "no path");
  assert_error(unroll_text_load(&device, 0, NULL, NULL, &t, &err), UNROLL_E_INVALID, "no path");
  assert_error(unroll_text_load(&device, 1, NULL, NULL, NULL, &err), UNROLL_E_INVALID, "text is NULL");
  const unroll_text_options wrong = {.vocabulary = NULL, .unknown = 2};
  assert_error(unroll_text_load(&device, 1, &wrong, NULL, &t, &err), UNROLL_E_INVALID, "unknown is 2");
}

static void texts_that_are_too_large(void **state) {
  (void)state;
  unroll_text *t = NULL;
  put_file(in_folder("a"), "ab", 2);
  put_file(in_folder("b"), "ab", 2);
  assert_int_equal(truncate(in_folder("a"), (off_t)INT32_MAX + 1), 0);
  assert_error(load("a", NULL, &t, &err), UNROLL_E_RANGE, "2147483648 bytes");
  assert_int_equal(truncate(in_folder("a"), 1500000000), 0);
  assert_int_equal(truncate(in_folder("b"), 1500000000), 0);
  const char *paths[] = {in_folder("a"), in_folder("b")};
  assert_error(unroll_text_load(paths, 2, NULL, NULL, &t, &err), UNROLL_E_RANGE, "3000000000 with the files before it");
}

/* One line, no newline at its end. The fault at its end is found at its place. */
static void a_line_of_100_megabytes(void **state) {
  (void)state;
  const size_t n = 100000000;
  char *line = malloc(n);
  assert_non_null(line);
  for (size_t i = 0; i < n; i++)
    line[i] = (char)('a' + i % 3);
  unroll_text *t = text_of(line, n);
  assert_int_equal(unroll_text_count(t), n);
  assert_int_equal(unroll_text_ids(t)[n - 1], (n - 1) % 3);
  unroll_text_destroy(t);
  t = NULL;
  line[n - 1] = (char)0xFE;
  put_file(in_folder("t"), line, n);
  assert_error(load("t", NULL, &t, &err), UNROLL_E_FORMAT, "byte 99999999, line 1: 0xFE");
  free(line);
}

static void several_files(void **state) {
  (void)state;
  unroll_text *one = text_of(KEEP("abcabd")), *t = NULL;
  put_file(in_folder("p"), "ab", 2);
  put_file(in_folder("q"), "c", 1);
  put_file(in_folder("r"), "abd", 3);
  const char *paths[] = {in_folder("p"), in_folder("q"), in_folder("r")};
  assert_ok(unroll_text_load(paths, 3, NULL, NULL, &t, &err));
  assert_int_equal(unroll_text_count(t), 6);
  assert_memory_equal(unroll_text_ids(t), unroll_text_ids(one), 6 * sizeof(int32_t));
  assert_int_equal(unroll_text_hash(t), unroll_text_hash(one));
  unroll_text_destroy(t);
  unroll_text *other = text_of(KEEP("abcabe"));
  assert_true(unroll_text_hash(one) != unroll_text_hash(other));
  unroll_text_destroy(other);
  unroll_text_destroy(one);

  put_file(in_folder("q"), "\xC3", 1); /* a character across two files is none */
  put_file(in_folder("r"), "\xA9", 1);
  t = NULL;
  assert_error(unroll_text_load(paths, 3, NULL, NULL, &t, &err), UNROLL_E_FORMAT, "/q: byte 0, line 1: 0xC3");
}

static void a_given_vocabulary(void **state) {
  (void)state;
  static const char json[] = " [ \"z\" , \"a\",\"\\ud83d\\ude00\",\"\\n\"]";
  unroll_vocabulary *v = NULL;
  assert_ok(unroll_vocabulary_from_json(json, sizeof json - 1, NULL, &v, &err));
  assert_int_equal(unroll_vocabulary_count(v), 4);
  put_file(in_folder("t"), KEEP("az" SMILE "a"));
  unroll_text *t = NULL;
  unroll_text_options options = {.vocabulary = v, .unknown = UNROLL_UNKNOWN_ERROR};
  assert_ok(load("t", &options, &t, &err));
  static const int32_t ids[] = {1, 0, 2, 1};
  assert_int_equal(unroll_text_count(t), 4);
  assert_memory_equal(unroll_text_ids(t), ids, sizeof ids);
  unroll_text_destroy(t);
  t = NULL;

  put_file(in_folder("t"), KEEP("a\nz\xC3\xA9"
                                "a?"));
  assert_error(load("t", &options, &t, &err), UNROLL_E_NOT_FOUND,
               "byte 3, line 2: U+00E9 '\xC3\xA9' is not in the vocabulary of 4");
  options.unknown = UNROLL_UNKNOWN_SKIP;
  assert_ok(load("t", &options, &t, &err));
  static const int32_t kept[] = {1, 3, 0, 1};
  assert_int_equal(unroll_text_count(t), 4);
  assert_int_equal(unroll_text_unknown(t), 2);
  assert_memory_equal(unroll_text_ids(t), kept, sizeof kept);
  unroll_vocabulary_destroy(v); /* the text has its own copy */
  assert_string_equal(unroll_vocabulary_json(unroll_text_vocabulary(t)), "[\"z\",\"a\",\"" SMILE "\",\"\\u000a\"]");
  options.vocabulary = unroll_text_vocabulary(t);
  unroll_text *u = NULL;
  put_file(in_folder("t"), KEEP("??"));
  assert_error(load("t", &options, &u, &err), UNROLL_E_NOT_FOUND, "none of its 2 characters");
  put_file(in_folder("t"), KEEP("a")); /* one symbol is enough for a text to be judged by */
  assert_ok(load("t", &options, &u, &err));
  unroll_text_destroy(u);
  unroll_text_destroy(t);
}

static void json_there_and_back(void **state) {
  (void)state;
  unroll_text *t = text_of(KEEP("\"\\\x01\x7F/\t,]' \xC2\x80" SMILE));
  const char *json = unroll_vocabulary_json(unroll_text_vocabulary(t));
  unroll_vocabulary *v = NULL;
  assert_ok(unroll_vocabulary_from_json(json, strlen(json), NULL, &v, &err));
  assert_int_equal(unroll_vocabulary_count(v), 12);
  assert_string_equal(unroll_vocabulary_json(v), json);
  unroll_vocabulary_destroy(v);
  unroll_vocabulary_destroy(NULL);
  unroll_text_destroy(t);
}

static const struct hostile vocabularies[] = {
    {KEEP(""), "'[' is expected"},
    {KEEP("{}"), "'[' is expected"},
    {KEEP("[]"), "0 characters"},
    {KEEP("[\"a\"]"), "1 characters, it needs at least 2"},
    {KEEP("[\"a\",\"b\"] x"), "the end is expected"},
    {KEEP("[\"a\",\"b\""), "',' or ']' is expected"},
    {KEEP("[\"a\",\"b\",]"), "a string is expected"},
    {KEEP("[\"a\",1]"), "a string is expected"},
    {KEEP("[\"a\",[\"b\"]]"), "a string is expected"},
    {KEEP("[\"a\",\"\"]"), "entry 1 is \"\", not one character"},
    {KEEP("[\"a\",\"bc\"]"), "entry 1 is \"bc\""},
    {KEEP("[\"b\",\"a\",\"b\"]"), "U+0062 'b' stands there twice"},
    {KEEP("[\"a\",\"\\u0000\"]"), "a NUL"},
    {KEEP("[\"a\",\"\\ud800\"]"), "surrogate"},
    {KEEP("[\"a\",\"\xFF\"]"), "byte 6 is not UTF-8"},
};

static void vocabularies_that_are_none(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof vocabularies / sizeof *vocabularies; i++) {
    const struct hostile *h = &vocabularies[i];
    struct counting c = {0};
    const unroll_allocator a = counting_allocator(&c);
    unroll_vocabulary *v = NULL;
    char *exact = malloc(h->size + 1); /* no zero follows: a read past the end is seen by a sanitizer */
    assert_non_null(exact);
    memcpy(exact + 1, h->bytes, h->size);
    assert_error(unroll_vocabulary_from_json(exact + 1, h->size, &a, &v, &err), UNROLL_E_FORMAT, h->words);
    free(exact);
    assert_null(v);
    assert_int_equal(c.live, 0);
  }
  unroll_vocabulary *v = NULL;
  assert_error(unroll_vocabulary_from_json(NULL, 0, NULL, &v, &err), UNROLL_E_INVALID, "json is NULL");
  assert_error(unroll_vocabulary_from_json("", 0, NULL, NULL, &err), UNROLL_E_INVALID, "vocabulary is NULL");
}

static void prompts(void **state) {
  (void)state;
  unroll_text *t = text_of(KEEP("abc" SMILE));
  const unroll_vocabulary *v = unroll_text_vocabulary(t);
  int32_t ids[8];
  size_t n = 99;
  assert_ok(unroll_vocabulary_encode(v, KEEP("c" SMILE "a"), ids, 8, &n, &err));
  assert_int_equal(n, 3);
  assert_int_equal(ids[0], 2);
  assert_int_equal(ids[1], 3);
  assert_int_equal(ids[2], 0);
  assert_ok(unroll_vocabulary_encode(v, NULL, 0, ids, 8, &n, &err));
  assert_int_equal(n, 0);
  assert_ok(unroll_vocabulary_encode(v, KEEP("aaaa"), NULL, 0, &n, &err));
  assert_int_equal(n, 4);
  ids[2] = -5;
  assert_error(unroll_vocabulary_encode(v, KEEP("abca"), ids, 2, &n, &err), UNROLL_E_RANGE,
               "4 characters, there is room for 2");
  assert_int_equal(n, 4);
  assert_int_equal(ids[2], -5);
  assert_error(unroll_vocabulary_encode(v, KEEP("abx"), ids, 8, &n, &err), UNROLL_E_NOT_FOUND,
               "byte 2 of the text: U+0078 'x'");
  assert_error(unroll_vocabulary_encode(v, KEEP("ab\n"), ids, 8, &n, &err), UNROLL_E_NOT_FOUND, "U+000A is not");
  assert_error(unroll_vocabulary_encode(v, KEEP("ab\xF0\x9F"), ids, 8, &n, &err), UNROLL_E_FORMAT,
               "byte 2 of the text is not UTF-8");
  assert_error(unroll_vocabulary_encode(v, KEEP("a"), NULL, 1, &n, &err), UNROLL_E_INVALID, "ids is NULL");
  assert_error(unroll_vocabulary_encode(v, KEEP("a"), ids, 1, NULL, &err), UNROLL_E_INVALID, "n is NULL");
  assert_error(unroll_vocabulary_encode(v, NULL, 1, ids, 1, &n, &err), UNROLL_E_INVALID, "text is NULL");
  char c[UNROLL_CHARACTER_BYTES];
  assert_error(unroll_vocabulary_decode(v, 4, c, &err), UNROLL_E_RANGE, "id 4: the vocabulary has 0 to 3");
  assert_error(unroll_vocabulary_decode(v, -1, c, &err), UNROLL_E_RANGE, "id -1");
  assert_error(unroll_vocabulary_decode(v, 0, NULL, &err), UNROLL_E_INVALID, "character is NULL");
  unroll_text_destroy(t);
}

static void reads_that_fail(void **state) {
  (void)state;
  unroll_text *t = NULL;
  put_file(in_folder("t"), KEEP("abcdefghijk"));
  memset(&fault, 0, sizeof fault);
  fault.meek = 1;
  assert_ok(load("t", NULL, &t, &err));
  fault.meek = 0;
  assert_int_equal(unroll_text_count(t), 11);
  unroll_text_destroy(t);
  t = NULL;
  fault.calls = 0;
  fault.fail_at = 1;
  assert_error(load("t", NULL, &t, &err), UNROLL_E_IO, "reading byte 0: Input/output error");
  fault.calls = 0;
  fault.ends = 1;
  assert_error(load("t", NULL, &t, &err), UNROLL_E_IO, "ended at byte 0 of 11");
  memset(&fault, 0, sizeof fault);
  assert_null(t);
}

static void every_allocation_fails_once(void **state) {
  (void)state;
  put_file(in_folder("p"), KEEP("ab" SMILE));
  put_file(in_folder("q"), KEEP("xyz"));
  const char *paths[] = {in_folder("p"), in_folder("q")};
  for (long n = 1;; n++) {
    assert_in_range(n, 1, 1000);
    struct counting c = {.fail_at = n};
    const unroll_allocator a = counting_allocator(&c);
    unroll_text *t = NULL;
    unroll_vocabulary *v = NULL;
    unroll_error err = UNROLL_ERROR_INIT;
    unroll_status status = unroll_text_load(paths, 2, NULL, &a, &t, &err);
    if (status == UNROLL_OK) {
      const char *json = unroll_vocabulary_json(unroll_text_vocabulary(t));
      status = unroll_vocabulary_from_json(json, strlen(json), &a, &v, &err);
    }
    if (status == UNROLL_OK) {
      const unroll_text_options options = {.vocabulary = v, .unknown = UNROLL_UNKNOWN_ERROR};
      unroll_text *u = NULL;
      status = unroll_text_load(paths, 2, &options, &a, &u, &err);
      unroll_text_destroy(u);
    }
    unroll_vocabulary_destroy(v);
    unroll_text_destroy(t);
    assert_int_equal(c.live, 0);
    if (status == UNROLL_OK) {
      assert_true(n > 15);
      return;
    }
    assert_int_equal(status, UNROLL_E_MEMORY);
    assert_non_null(strstr(err.message, "no memory"));
  }
}

/* ---- streams ---- */

static void streams(void **state) {
  (void)state;
  int32_t ids[24], x[6], target[6];
  for (int32_t i = 0; i < 24; i++)
    ids[i] = i;
  unroll_text_stream s;
  /* 24 characters, 2 streams of 11: 0..10 and 11..21; 3 updates of 3 each, then 9 and 10 (20 and 21) are dropped */
  assert_ok(unroll_text_stream_init(&s, ids, 24, 3, 2, &err));
  assert_int_equal(s.length, 11);
  assert_int_equal(s.updates, 3);
  for (uint64_t update = 0; update < 9; update++) {
    const int32_t start = (int32_t)(update % 3) * 3;
    memset(x, 0xEE, sizeof x);
    memset(target, 0xEE, sizeof target);
    assert_int_equal(unroll_text_stream_fill(&s, update, x, target), update % 3 == 0);
    for (int32_t t = 0; t < 3; t++)
      for (int32_t b = 0; b < 2; b++) {
        assert_int_equal(x[t * 2 + b], b * 11 + start + t);
        assert_int_equal(target[t * 2 + b], b * 11 + start + t + 1);
      }
  }
  /* the last update of the largest position: its epoch is found again, nothing overflows */
  assert_int_equal(unroll_text_stream_fill(&s, UINT64_MAX, x, target), UINT64_MAX % 3 == 0);

  assert_ok(unroll_text_stream_init(&s, ids, 7, 3, 2, &err)); /* exactly enough */
  assert_int_equal(s.updates, 1);
  assert_int_equal(unroll_text_stream_fill(&s, 5, x, target), 1);
  assert_int_equal(target[5], 6);
}

static void streams_that_can_not_be(void **state) {
  (void)state;
  int32_t ids[8] = {0};
  unroll_text_stream s;
  assert_error(unroll_text_stream_init(&s, ids, 6, 3, 2, &err), UNROLL_E_RANGE,
               "6 characters; batches of T 3 by B 2 need at least 7");
  assert_error(unroll_text_stream_init(&s, ids, 0, 1, 1, &err), UNROLL_E_RANGE, "need at least 2");
  assert_error(unroll_text_stream_init(&s, ids, 8, 0, 1, &err), UNROLL_E_INVALID, "T is 0");
  assert_error(unroll_text_stream_init(&s, ids, 8, 1, -1, &err), UNROLL_E_INVALID, "B is -1");
  assert_error(unroll_text_stream_init(&s, ids, 8, INT64_MAX, 2, &err), UNROLL_E_RANGE, "past 2^63");
  assert_error(unroll_text_stream_init(&s, NULL, 8, 1, 1, &err), UNROLL_E_INVALID, "ids is NULL");
  assert_error(unroll_text_stream_init(NULL, ids, 8, 1, 1, &err), UNROLL_E_INVALID, "stream is NULL");
}

static void train_and_validation(void **state) {
  (void)state;
  unroll_text *t = text_of(KEEP("abcdefghij"));
  assert_int_equal(unroll_text_train_count(t, 0), 10);
  assert_int_equal(unroll_text_train_count(t, 0.25), 8); /* floor(2.5) for validation */
  assert_int_equal(unroll_text_train_count(t, 0.999), 1);
  assert_int_equal(unroll_text_train_count(t, 1), -1);
  assert_int_equal(unroll_text_train_count(t, -0.1), -1);
  assert_int_equal(unroll_text_train_count(t, (double)NAN), -1);
  unroll_text_destroy(t);
}

/* ---- words ---- */

static void words(void **state) {
  (void)state;
  static const char bytes[] = "the cat,  sat\non\tthe m\xc3\xa4t\r\n\nthe cat <unk> sat";
  put_file(in_folder("w"), bytes, sizeof bytes - 1);
  unroll_text_options o = {.unit = UNROLL_UNIT_WORD};
  unroll_text *t, *again;
  assert_ok(load("w", &o, &t, &err));
  const unroll_vocabulary *v = unroll_text_vocabulary(t);
  assert_int_equal(unroll_vocabulary_unit(v), UNROLL_UNIT_WORD);
  /* 3 times: the end of a line, the; twice: sat; once: the others, by their bytes */
  assert_string_equal(unroll_vocabulary_json(v),
                      "[\"<unk>\",\"\\u000a\",\"the\",\"sat\",\"cat\",\"cat,\",\"m\xc3\xa4t\",\"on\"]");
  const int32_t ids[] = {2, 5, 3, 1, 7, 2, 6, 1, 1, 2, 4, 0, 3};
  assert_int_equal(unroll_text_count(t), 13);
  assert_memory_equal(unroll_text_ids(t), ids, sizeof ids);
  assert_int_equal(unroll_text_unknown(t), 0);
  assert_string_equal(unroll_vocabulary_text(v, 6), "m\xc3\xa4t");
  assert_null(unroll_vocabulary_text(v, 8));
  assert_null(unroll_vocabulary_text(v, -1));
  char character[UNROLL_CHARACTER_BYTES];
  assert_error(unroll_vocabulary_decode(v, 1, character, &err), UNROLL_E_INVALID, "a vocabulary of words");

  o.min_count = 2;
  assert_ok(load("w", &o, &again, &err));
  assert_string_equal(unroll_vocabulary_json(unroll_text_vocabulary(again)), "[\"<unk>\",\"\\u000a\",\"the\",\"sat\"]");
  assert_int_equal(unroll_text_unknown(again), 4);
  assert_int_equal(unroll_text_count(again), 13);
  unroll_text_destroy(again);
  o.min_count = 4;
  assert_error(load("w", &o, &again, &err), UNROLL_E_FORMAT, "no word is met 4 times");
  assert_error(load("w", &o, &again, &err), UNROLL_E_FORMAT, "is met 3 times");
  o.min_count = -1;
  assert_error(load("w", &o, &again, &err), UNROLL_E_INVALID, "min_count is -1");
  o = (unroll_text_options){.unit = 2};
  assert_error(load("w", &o, &again, &err), UNROLL_E_INVALID, "unit is 2");

  /* A vocabulary out of its JSON reads the same, and other texts. */
  unroll_vocabulary *copy;
  const char *json = unroll_vocabulary_json(v);
  assert_ok(unroll_vocabulary_from_json(json, strlen(json), NULL, &copy, &err));
  assert_string_equal(unroll_vocabulary_json(copy), json);
  int32_t found[8];
  size_t n;
  assert_ok(unroll_vocabulary_encode(copy, " the dog\nsa sat", 15, found, 8, &n, &err));
  const int32_t expected[] = {2, 0, 1, 0, 3};
  assert_int_equal(n, 5);
  assert_memory_equal(found, expected, sizeof expected);
  assert_error(unroll_vocabulary_encode(copy, "a b c", 5, found, 2, &n, &err), UNROLL_E_RANGE, "3 words");
  assert_error(unroll_vocabulary_encode(copy, "a \xff", 3, found, 2, &n, &err), UNROLL_E_FORMAT, "byte 2");
  put_file(in_folder("x"), "the dog", 7);
  o = (unroll_text_options){.vocabulary = copy}; /* whose unit counts */
  assert_ok(load("x", &o, &again, &err));
  assert_int_equal(unroll_text_count(again), 2);
  assert_int_equal(unroll_text_unknown(again), 1);
  unroll_text_destroy(again);
  unroll_vocabulary_destroy(copy);
  unroll_text_destroy(t);

  put_file(in_folder("s"), " \t ", 3);
  o = (unroll_text_options){.unit = UNROLL_UNIT_WORD};
  assert_error(load("s", &o, &t, &err), UNROLL_E_FORMAT, "nothing but white space");
  const char *const wrong[] = {"[\"<unk>\"]", "[\"<unk>\",\"a b\"]", "[\"<unk>\",\"\"]", "[\"<unk>\",\"a\",\"a\"]"};
  const char *const why[] = {"1 words, it needs at least 2", "entry 1 is \"a b\", not one word", "entry 1 is \"\"",
                             "\"a\" stands there twice"};
  for (int i = 0; i < 4; i++)
    assert_error(unroll_vocabulary_from_json(wrong[i], strlen(wrong[i]), NULL, &copy, &err), UNROLL_E_FORMAT, why[i]);
}

static void words_without_memory(void **state) {
  (void)state;
  put_file(in_folder("w"), "a b c a b\n", 10);
  struct counting c = {0, 0, 0};
  const unroll_allocator allocator = counting_allocator(&c);
  const unroll_text_options o = {.unit = UNROLL_UNIT_WORD};
  const char *path = in_folder("w");
  unroll_status status = UNROLL_E_MEMORY;
  for (long n = 1; status != UNROLL_OK; n++) {
    c = (struct counting){0, 0, n};
    unroll_text *t = NULL;
    status = unroll_text_load(&path, 1, &o, &allocator, &t, NULL);
    assert_true(status == UNROLL_OK || status == UNROLL_E_MEMORY);
    if (status == UNROLL_OK) {
      const char *json = unroll_vocabulary_json(unroll_text_vocabulary(t));
      unroll_status parsed = UNROLL_E_MEMORY;
      for (long k = 1; parsed != UNROLL_OK; k++) {
        unroll_vocabulary *v = NULL;
        const long live = c.live;
        c.fail_at = c.calls + k;
        parsed = unroll_vocabulary_from_json(json, strlen(json), &allocator, &v, NULL);
        assert_true(parsed == UNROLL_OK || parsed == UNROLL_E_MEMORY);
        unroll_vocabulary_destroy(v);
        assert_int_equal(c.live, live);
      }
    }
    unroll_text_destroy(t);
    assert_int_equal(c.live, 0);
  }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make_folder, remove_folder)

int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(ids_by_code_point),
      TEST(every_length_of_utf8),
      TEST(texts_that_are_none),
      TEST(texts_that_are_too_large),
      TEST(a_line_of_100_megabytes),
      TEST(several_files),
      TEST(a_given_vocabulary),
      TEST(json_there_and_back),
      TEST(vocabularies_that_are_none),
      TEST(prompts),
      TEST(reads_that_fail),
      TEST(every_allocation_fails_once),
      TEST(streams),
      TEST(streams_that_can_not_be),
      TEST(train_and_validation),
      TEST(words),
      TEST(words_without_memory),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
