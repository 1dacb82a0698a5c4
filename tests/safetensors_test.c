/* SPDX-License-Identifier: Apache-2.0 */
/* Reading safetensors: what is right, and every way to be wrong that the format allows. */
#include "support/io_support.h"

#include <inttypes.h>
#include <unroll/io.h>

#define KEEP(text) text, sizeof text - 1

static const int64_t shape_23[] = {2, 3}, shape_4[] = {4}, shape_0[] = {3, 0, 2}, shape_6[] = {1, 2, 1, 2, 1, 2};
static const double f64s[6] = {1, -2, 3.5, 1e300, 0, 5};
static const float f32s[8] = {1, 2, 3, 4, 5, 6, 7, -8};
static const uint16_t halves[4] = {0x3C00, 0xBC00, 0, 0x7BFF};
static const int64_t i64s[4] = {INT64_MIN, -1, 0, INT64_MAX};
static const int32_t i32s[1] = {-7};
static const int8_t i8s[4] = {-128, -1, 0, 127};
static const uint8_t u8s[4] = {0, 1, 128, 255}, bools[4] = {0, 1, 1, 0};

struct sample {
  const char *name;
  int32_t dtype, rank;
  const int64_t *shape;
  const void *data;
  uint64_t bytes;
};
/* In the order that the writer gives them: by falling size of an element, then by name. */
static const struct sample samples[] = {
    {"big", UNROLL_I64, 1, shape_4, i64s, 32},
    {"double", UNROLL_F64, 2, shape_23, f64s, 48},
    {"empty", UNROLL_F32, 3, shape_0, NULL, 0},
    {"scalar", UNROLL_I32, 0, NULL, i32s, 4},
    {"six \xC3\xA9 \"quoted\"\n", UNROLL_F32, 6, shape_6, f32s, 32},
    {"bf", UNROLL_BF16, 1, shape_4, halves, 8},
    {"half", UNROLL_F16, 1, shape_4, halves, 8},
    {"", UNROLL_U8, 1, shape_4, u8s, 4},
    {"flags", UNROLL_BOOL, 1, shape_4, bools, 4},
    {"tiny", UNROLL_I8, 1, shape_4, i8s, 4},
};
#define N_SAMPLES (sizeof samples / sizeof *samples)
static const char *const metadata[][2] = {{"a", ""},
                                          {"vocabulary", "[\"\\n\",\"\xF0\x9F\x98\x80\"]"},
                                          {"z", "\"" UNROLL_CHECKSUM_KEY "\":\"0123456789abcdef\""}};
#define N_METADATA (sizeof metadata / sizeof *metadata)

/* reverse: the other way round, metadata first; the bytes must not depend on it. */
static unroll_status write_samples(const char *path, int reverse, const unroll_allocator *a, unroll_error *err) {
  unroll_safetensors_writer *w = NULL;
  unroll_status status = unroll_safetensors_writer_create(path, a, &w, err);
  for (int part = 0; part < 2 && status == UNROLL_OK; part++) {
    if (part == reverse)
      for (size_t i = 0; i < N_SAMPLES && status == UNROLL_OK; i++) {
        const struct sample *s = &samples[reverse ? N_SAMPLES - 1 - i : (i * 3) % N_SAMPLES];
        status = unroll_safetensors_writer_add(w, s->name, s->dtype, s->rank, s->shape, s->data, err);
      }
    else
      for (size_t i = 0; i < N_METADATA && status == UNROLL_OK; i++) {
        const size_t k = reverse ? N_METADATA - 1 - i : i;
        status = unroll_safetensors_writer_metadata(w, metadata[k][0], metadata[k][1], err);
      }
  }
  if (status == UNROLL_OK)
    status = unroll_safetensors_writer_commit(w, err);
  unroll_safetensors_writer_destroy(w);
  return status;
}

static void assert_sample(const struct sample *s, const unroll_stored_tensor *t) {
  assert_string_equal(t->name, s->name);
  assert_int_equal(t->dtype, s->dtype);
  assert_int_equal(t->rank, s->rank);
  for (int32_t i = 0; i < UNROLL_MAX_RANK; i++)
    assert_int_equal(t->shape[i], i < s->rank ? s->shape[i] : 0);
  assert_int_equal(t->bytes, s->bytes);
  if (s->bytes > 0)
    assert_memory_equal(t->data, s->data, s->bytes);
}

static void round_trip(void **state) {
  (void)state;
  const char *path = in_folder("f");
  assert_ok(write_samples(path, 0, NULL, &err));
  unroll_safetensors *f = NULL;
  assert_ok(unroll_safetensors_open(path, NULL, &f, &err));
  assert_int_equal(unroll_safetensors_count(f), N_SAMPLES);
  for (size_t i = 0; i < N_SAMPLES; i++) {
    unroll_stored_tensor t;
    memset(&t, 0xEE, sizeof t);
    assert_ok(unroll_safetensors_get(f, i, &t, &err));
    assert_sample(&samples[i], &t);
    assert_int_equal((uintptr_t)t.data % unroll_dtype_size(t.dtype), 0);
    memset(&t, 0xEE, sizeof t);
    assert_ok(unroll_safetensors_find(f, samples[i].name, &t, &err));
    assert_sample(&samples[i], &t);
  }
  for (size_t i = 0; i < N_METADATA; i++)
    assert_string_equal(unroll_safetensors_metadata(f, metadata[i][0]), metadata[i][1]);
  assert_int_equal(unroll_safetensors_metadata_count(f), N_METADATA + 1);
  const char *key, *value;
  assert_ok(unroll_safetensors_metadata_get(f, 0, &key, &value, &err));
  assert_string_equal(key, "a");
  assert_string_equal(value, "");
  assert_ok(unroll_safetensors_metadata_get(f, N_METADATA, &key, &value, &err));
  assert_string_equal(key, "z");
  assert_null(unroll_safetensors_metadata(f, "none"));
  assert_ok(unroll_safetensors_verify(f, &err));

  unroll_stored_tensor t;
  assert_error(unroll_safetensors_metadata_get(f, 4, &key, &value, &err), UNROLL_E_RANGE, "metadata 4 of 4");
  assert_error(unroll_safetensors_get(f, N_SAMPLES, &t, &err), UNROLL_E_RANGE, "tensor 10 of 10");
  assert_error(unroll_safetensors_find(f, "nobody", &t, &err), UNROLL_E_NOT_FOUND, "\"nobody\"");
  unroll_safetensors_close(f);
  unroll_safetensors_close(NULL);
}

static void same_content_same_bytes(void **state) {
  (void)state;
  size_t n, m;
  assert_ok(write_samples(in_folder("f"), 0, NULL, &err));
  assert_ok(write_samples(in_folder("g"), 1, NULL, &err));
  char *f = get_file(in_folder("f"), &n), *g = get_file(in_folder("g"), &m);
  assert_int_equal(n, m);
  assert_memory_equal(f, g, n);
  assert_int_equal(((const unsigned char *)f)[0] % 8, 0); /* the header's length */
  free(f);
  free(g);
}

/* golden/clip.safetensors, written by another program in another order, with no checksum. */
static void another_programs_file(void **state) {
  (void)state;
  const char *root = getenv("UNROLL_SOURCE_DIR");
  char path[512];
  snprintf(path, sizeof path, "%s/tests/golden/clip.safetensors", root == NULL ? "." : root);
  unroll_safetensors *f = NULL;
  unroll_stored_tensor t;
  assert_ok(unroll_safetensors_open(path, NULL, &f, &err));
  assert_ok(unroll_safetensors_find(f, "above.clipped.2", &t, &err));
  assert_int_equal(t.dtype, UNROLL_F64);
  assert_int_equal(t.rank, 3);
  assert_int_equal(t.shape[2], 3);
  assert_int_equal(t.bytes, 96);
  assert_string_equal(unroll_safetensors_metadata(f, "eps"), "1e-06");
  assert_error(unroll_safetensors_verify(f, &err), UNROLL_E_NOT_FOUND, "no checksum");
  unroll_safetensors_close(f);
}

/* ---- hostile files ---- */

static void put_safetensors(const char *path, const char *header, size_t n, size_t data) {
  FILE *f = fopen(path, "wb");
  assert_non_null(f);
  for (int i = 0; i < 8; i++)
    fputc((int)(n >> 8 * i & 0xFF), f);
  fwrite(header, 1, n, f);
  for (size_t i = 0; i < data; i++)
    fputc((int)i, f);
  fclose(f);
}

#define T(name, dtype, shape, offsets) \
  "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":[" shape "],\"data_offsets\":[" offsets "]}"

static const struct hostile {
  const char *header;
  size_t size, data;
  unroll_status status;
  const char *words;
} hostiles[] = {
    {KEEP(""), 0, UNROLL_E_FORMAT, "byte 0: it ends where '{'"},
    {KEEP("[]"), 0, UNROLL_E_FORMAT, "'{' is expected"},
    {KEEP("not JSON"), 0, UNROLL_E_FORMAT, "'{' is expected"},
    {KEEP("{"), 0, UNROLL_E_FORMAT, "a string is expected"},
    {KEEP("{}x"), 0, UNROLL_E_FORMAT, "the end is expected"},
    {KEEP("{} \0"), 0, UNROLL_E_FORMAT, "the end is expected"},
    {KEEP("{\"\xFF\":0}"), 0, UNROLL_E_FORMAT, "byte 2 of the header is not UTF-8"},
    {KEEP("{\"\xED\xA0\x80\":0}"), 0, UNROLL_E_FORMAT, "not UTF-8"},
    {KEEP("{\"a\xC3"), 0, UNROLL_E_FORMAT, "not UTF-8"},
    {KEEP("{\"a"), 0, UNROLL_E_FORMAT, "the end of a string"},
    {KEEP("{\"a\\"), 0, UNROLL_E_FORMAT, "an escape"},
    {KEEP("{\"a\\x\":0}"), 0, UNROLL_E_FORMAT, "an escape"},
    {KEEP("{\"a\\u12"), 0, UNROLL_E_FORMAT, "four hexadecimal"},
    {KEEP("{\"a\\u00g0\":0}"), 0, UNROLL_E_FORMAT, "four hexadecimal"},
    {KEEP("{\"\\ud800\":0}"), 0, UNROLL_E_FORMAT, "surrogate"},
    {KEEP("{\"\\ud800\\u0041\":0}"), 0, UNROLL_E_FORMAT, "surrogate"},
    {KEEP("{\"\\udc00\\ud800\":0}"), 0, UNROLL_E_FORMAT, "surrogate"},
    {KEEP("{\"a\\u0000b\":0}"), 0, UNROLL_E_FORMAT, "a NUL"},
    {KEEP("{\"a\nb\":0}"), 0, UNROLL_E_FORMAT, "control character"},
    {KEEP("{\"a\" 0}"), 0, UNROLL_E_FORMAT, "':' is expected"},
    {KEEP("{\"a\":0}"), 0, UNROLL_E_FORMAT, "tensor \"a\": JSON, byte 5: \"0\" where '{'"},
    {KEEP("{\"a\":{}}"), 0, UNROLL_E_FORMAT, "no dtype"},
    {KEEP("{\"a\":{\"dtype\":\"U8\"}}"), 0, UNROLL_E_FORMAT, "no shape"},
    {KEEP("{\"a\":{\"dtype\":\"U8\",\"shape\":[]}}"), 0, UNROLL_E_FORMAT, "no data_offsets"},
    {KEEP("{\"a\":{\"dtype\":\"U8\",\"dtype\":\"U8\"}}"), 0, UNROLL_E_FORMAT, "duplicate key \"dtype\""},
    {KEEP("{\"a\":{\"type\":\"U8\"}}"), 0, UNROLL_E_FORMAT, "unknown key \"type\""},
    {KEEP("{" T("a", "Q8", "1", "0,1") "}"), 1, UNROLL_E_FORMAT, "unknown dtype \"Q8\""},
    {KEEP("{" T("a", "f32", "1", "0,4") "}"), 4, UNROLL_E_FORMAT, "unknown dtype \"f32\""},
    {KEEP("{" T("a", "U8", "-1", "0,1") "}"), 1, UNROLL_E_FORMAT, "a whole number is expected"},
    {KEEP("{" T("a", "U8", "1.0", "0,1") "}"), 1, UNROLL_E_FORMAT, "a whole number's end"},
    {KEEP("{" T("a", "U8", "1e0", "0,1") "}"), 1, UNROLL_E_FORMAT, "a whole number's end"},
    {KEEP("{" T("a", "U8", "01", "0,1") "}"), 1, UNROLL_E_FORMAT, "leading 0"},
    {KEEP("{" T("a", "U8", "[1]", "0,1") "}"), 1, UNROLL_E_FORMAT, "a whole number is expected"},
    {KEEP("{" T("a", "U8", "1,", "0,1") "}"), 1, UNROLL_E_FORMAT, "a whole number is expected"},
    {KEEP("{" T("a", "U8", "18446744073709551616", "0,1") "}"), 1, UNROLL_E_FORMAT, "past 2^64-1"},
    {KEEP("{" T("a", "U8", "2,18446744073709551614", "0,1") "}"), 1, UNROLL_E_FORMAT, "18446744073709551614 of axis 1"},
    {KEEP("{" T("a", "U8", "0,9223372036854775807,9", "0,0") "}"), 0, UNROLL_E_FORMAT, "overflow"},
    {KEEP("{" T("a", "F64", "2305843009213693952", "0,0") "}"), 0, UNROLL_E_FORMAT, "elements of F64 overflow"},
    {KEEP("{" T("a", "F64", "4294967296,1073741825", "0,8") "}"), 8, UNROLL_E_FORMAT, "overflow"},
    {KEEP("{" T("a", "F32", "2", "0,4") "}"), 4, UNROLL_E_FORMAT, "2 elements of F32, data_offsets are of 4 bytes"},
    {KEEP("{" T("a", "F32", "0", "0,4") "}"), 4, UNROLL_E_FORMAT, "0 elements of F32"},
    {KEEP("{" T("a", "F4", "3", "0,1") "}"), 1, UNROLL_E_FORMAT, "3 elements of F4"},
    {KEEP("{" T("a", "U8", "1", "1,0") "}"), 1, UNROLL_E_FORMAT, "run backwards"},
    {KEEP("{" T("a", "U8", "1", "0") "}"), 1, UNROLL_E_FORMAT, "',' is expected"},
    {KEEP("{" T("a", "U8", "1", "0,1,2") "}"), 1, UNROLL_E_FORMAT, "']' is expected"},
    {KEEP("{" T("a", "U8", "4", "0,4") "}"), 3, UNROLL_E_FORMAT, "cut short at 3"},
    {KEEP("{" T("a", "U8", "4", "0,4") "}"), 5, UNROLL_E_FORMAT, "end at byte 4 of the data, which has 5"},
    {KEEP("{}"), 1, UNROLL_E_FORMAT, "end at byte 0 of the data, which has 1"},
    {KEEP("{" T("a", "U8", "4", "1,5") "}"), 5, UNROLL_E_FORMAT, "a gap: tensor \"a\" begins at byte 1"},
    {KEEP("{" T("a", "U8", "2", "0,2") "," T("b", "U8", "2", "3,5") "}"), 5, UNROLL_E_FORMAT, "a gap: tensor \"b\""},
    {KEEP("{" T("a", "U8", "3", "0,3") "," T("b", "U8", "2", "2,4") "}"), 4, UNROLL_E_FORMAT,
     "\"a\" before it overlaps"},
    {KEEP("{" T("a", "U8", "2", "0,2") "," T("b", "U8", "2", "0,2") "}"), 2, UNROLL_E_FORMAT, "overlaps"},
    {KEEP("{" T("a", "U8", "1", "0,1") "," T("a", "U8", "1", "1,2") "}"), 2, UNROLL_E_FORMAT, "duplicate tensor \"a\""},
    {KEEP("{" T("a", "U8", "1", "0,1") "," T("\\u0061", "U8", "1", "1,2") "}"), 2, UNROLL_E_FORMAT, "duplicate tensor"},
    {KEEP("{" T("a", "U8", "1", "0,1") ",}"), 1, UNROLL_E_FORMAT, "a string is expected"},
    {KEEP("{" T("a", "U8", "1", "0,1") T("b", "U8", "1", "1,2") "}"), 2, UNROLL_E_FORMAT, "',' or '}' is expected"},
    {KEEP("{\"__metadata__\":[]}"), 0, UNROLL_E_FORMAT, "'{' is expected"},
    {KEEP("{\"__metadata__\":{\"a\":1}}"), 0, UNROLL_E_FORMAT, "__metadata__: JSON"},
    {KEEP("{\"__metadata__\":{\"a\":\"\",\"a\":\"\"}}"), 0, UNROLL_E_FORMAT, "duplicate key \"a\""},
    {KEEP("{\"__metadata__\":{},\"__metadata__\":{}}"), 0, UNROLL_E_FORMAT, "duplicate key \"__metadata__\""},
    {KEEP("{\"__metadata__\":{\"a\":{\"b\":\"c\"}}}"), 0, UNROLL_E_FORMAT, "a string is expected"},
    {KEEP("{\"\\u001b[31m\":0}"), 0, UNROLL_E_FORMAT, "tensor \"?[31m\""},
};

static void hostile_headers(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof hostiles / sizeof *hostiles; i++) {
    const struct hostile *h = &hostiles[i];
    unroll_safetensors *f = NULL;
    put_safetensors(in_folder("h"), h->header, h->size, h->data);
    assert_error(unroll_safetensors_open(in_folder("h"), NULL, &f, &err), h->status, h->words);
    assert_null(f);
    unroll_error err = UNROLL_ERROR_INIT;
    assert_int_equal(unroll_safetensors_open(in_folder("h"), NULL, &f, &err), h->status);
    assert_non_null(strstr(err.message, folder)); /* which file */
    assert_int_equal(unroll_safetensors_open(in_folder("h"), NULL, &f, NULL), h->status);
  }
}

static void unusual_but_right(void **state) {
  (void)state;
  static const char header[] =
      " {\"\\ud83d\\ude00\" :{\"shape\" : [ ],\"data_offsets\":[0,2],\t\"dtype\":\"U16\"},\n" T(
          "r7", "U8", "1,1,1,1,1,1,1",
          "2,3") "," T("f4", "F4", "2,3", "4,7") "," T("z", "F32", "0,4",
                                                       "3,3") "," T("i", "I32", "1",
                                                                    "7,11") "," T("u", "U8", "1",
                                                                                  "3,4") ",\"__metadata__\":{}}\r\n ";
  put_safetensors(in_folder("h"), header, sizeof header - 1, 11);
  unroll_safetensors *f = NULL;
  unroll_stored_tensor t;
  assert_ok(unroll_safetensors_open(in_folder("h"), NULL, &f, &err));
  assert_int_equal(unroll_safetensors_count(f), 6);
  assert_error(unroll_safetensors_get(f, 0, &t, &err), UNROLL_E_UNSUPPORTED, "dtype U16");
  assert_error(unroll_safetensors_find(f, "\xF0\x9F\x98\x80", &t, &err), UNROLL_E_UNSUPPORTED, "dtype U16");
  assert_error(unroll_safetensors_find(f, "r7", &t, &err), UNROLL_E_UNSUPPORTED, "rank 7");
  assert_error(unroll_safetensors_find(f, "f4", &t, &err), UNROLL_E_UNSUPPORTED, "dtype F4");
  assert_ok(unroll_safetensors_get(f, 2, &t, &err));
  assert_string_equal(t.name, "z");
  assert_int_equal(t.bytes, 0);
  assert_ok(unroll_safetensors_find(f, "i", &t, &err));
  assert_memory_equal(t.data, "\x07\x08\x09\x0A", 4); /* wherever it lies */
  unroll_safetensors_close(f);

  put_safetensors(in_folder("h"), "{}", 2, 0);
  assert_ok(unroll_safetensors_open(in_folder("h"), NULL, &f, &err));
  assert_int_equal(unroll_safetensors_count(f), 0);
  assert_error(unroll_safetensors_find(f, "", &t, &err), UNROLL_E_NOT_FOUND, "among 0");
  unroll_safetensors_close(f);
}

static void lengths_that_lie(void **state) {
  (void)state;
  unroll_safetensors *f = NULL;
  for (size_t n = 0; n < 8; n++) {
    put_file(in_folder("h"), "\x02\0\0\0\0\0\0", n);
    assert_error(unroll_safetensors_open(in_folder("h"), NULL, &f, &err), UNROLL_E_FORMAT, "at least 8");
  }
  put_file(in_folder("h"), KEEP("\x03\0\0\0\0\0\0\0{}"));
  assert_error(unroll_safetensors_open(in_folder("h"), NULL, &f, &err), UNROLL_E_FORMAT,
               "claims 3 bytes, the file has 2");
  put_file(in_folder("h"), KEEP("\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF{}"));
  assert_error(unroll_safetensors_open(in_folder("h"), NULL, &f, &err), UNROLL_E_FORMAT,
               "claims 18446744073709551615 bytes");
  put_file(in_folder("h"), KEEP("\x01\xE1\xF5\x05\0\0\0\0{}")); /* 100,000,001, and a file as long as that */
  assert_int_equal(truncate(in_folder("h"), 100000009), 0);
  assert_error(unroll_safetensors_open(in_folder("h"), NULL, &f, &err), UNROLL_E_FORMAT, "more than 100000000");
}

/* Ten million take more than a header may have; what fits is refused at its first fault, or read in time. */
static void very_many_entries(void **state) {
  (void)state;
  enum { MANY = 100000, LENGTH = 64 };
  static const char start[] = "{\"t0\":0,";
  unroll_safetensors *f = NULL;
  put_file(in_folder("h"), KEEP("\0\xCA\x9A\x3B\0\0\0\0"));
  assert_int_equal(truncate(in_folder("h"), 1000000008), 0); /* 10^7 entries of 100 bytes */
  assert_error(unroll_safetensors_open(in_folder("h"), NULL, &f, &err), UNROLL_E_FORMAT, "claims 1000000000 bytes");

  char *header = malloc((size_t)MANY * LENGTH + 2);
  assert_non_null(header);
  size_t n = 0;
  for (int i = 0; i < MANY; i++)
    n += (size_t)sprintf(header + n,
                         "%c"
                         "\"t%d\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}",
                         i ? ',' : '{', (i * 7919) % MANY);
  header[n++] = '}';
  put_safetensors(in_folder("h"), header, n, 0);
  assert_ok(unroll_safetensors_open(in_folder("h"), NULL, &f, &err));
  assert_int_equal(unroll_safetensors_count(f), MANY);
  unroll_stored_tensor t;
  assert_ok(unroll_safetensors_find(f, "t99999", &t, &err));
  unroll_safetensors_close(f);

  memset(header, ' ', n);
  memcpy(header, start, sizeof start - 1);
  put_safetensors(in_folder("h"), header, n, 0);
  struct counting c = {0};
  const unroll_allocator a = counting_allocator(&c);
  assert_error(unroll_safetensors_open(in_folder("h"), &a, &f, &err), UNROLL_E_FORMAT, "tensor \"t0\"");
  assert_int_equal(c.live, 0);
  assert_true(c.calls < 10);
  free(header);
}

static void cut_at_every_byte(void **state) {
  (void)state;
  assert_ok(write_samples(in_folder("f"), 0, NULL, &err));
  size_t n;
  char *bytes = get_file(in_folder("f"), &n);
  for (size_t i = 0; i < n; i++) {
    unroll_safetensors *f = NULL;
    unroll_error err = UNROLL_ERROR_INIT;
    put_file(in_folder("h"), bytes, i);
    assert_int_equal(unroll_safetensors_open(in_folder("h"), NULL, &f, &err), UNROLL_E_FORMAT);
    assert_null(f);
  }
  free(bytes);
}

static void every_flipped_bit_is_found(void **state) {
  (void)state;
  assert_ok(write_samples(in_folder("f"), 0, NULL, &err));
  size_t n;
  char *bytes = get_file(in_folder("f"), &n);
  struct counting c = {0};
  const unroll_allocator a = counting_allocator(&c);
  size_t opened = 0;
  for (size_t i = 0; i < n * 8; i++) {
    unroll_safetensors *f = NULL;
    unroll_error err = UNROLL_ERROR_INIT;
    bytes[i / 8] = (char)(bytes[i / 8] ^ 1 << i % 8);
    put_file(in_folder("h"), bytes, n);
    bytes[i / 8] = (char)(bytes[i / 8] ^ 1 << i % 8);
    if (unroll_safetensors_open(in_folder("h"), &a, &f, &err) == UNROLL_OK) {
      opened++;
      const unroll_status status = unroll_safetensors_verify(f, &err);
      assert_true(status == UNROLL_E_FORMAT || status == UNROLL_E_NOT_FOUND);
      unroll_safetensors_close(f);
    }
    assert_int_equal(c.live, 0);
  }
  assert_true(opened > 144 * 8); /* all those of the tensors' bytes at least */
  free(bytes);
}

static void things_that_are_no_files(void **state) {
  (void)state;
  unroll_safetensors *f = NULL;
  const int descriptor = dup(0);
  close(descriptor);
  assert_error(unroll_safetensors_open(in_folder("none"), NULL, &f, &err), UNROLL_E_IO, "No such file");
  assert_error(unroll_safetensors_open(folder, NULL, &f, &err), UNROLL_E_IO, "a directory");
  assert_error(unroll_safetensors_open("/dev/null", NULL, &f, &err), UNROLL_E_IO, "not a regular file");
  assert_int_equal(mkfifo(in_folder("pipe"), 0600), 0);
  assert_error(unroll_safetensors_open(in_folder("pipe"), NULL, &f, &err), UNROLL_E_IO, "not a regular file");
  assert_error(unroll_safetensors_open(NULL, NULL, &f, &err), UNROLL_E_INVALID, "path is NULL");
  assert_error(unroll_safetensors_open("x", NULL, NULL, &err), UNROLL_E_INVALID, "file is NULL");
  unroll_error err = UNROLL_ERROR_INIT;
  assert_int_equal(unroll_safetensors_open(in_folder("none"), NULL, &f, &err), UNROLL_E_IO);
  assert_int_equal(err.native, 2 /* ENOENT */);
  const int next = dup(0);
  close(next);
  assert_int_equal(next, descriptor); /* none of these left one open */
}

static void every_allocation_fails_once(void **state) {
  (void)state;
  assert_ok(write_samples(in_folder("f"), 0, NULL, &err));
  for (long n = 1;; n++) {
    assert_in_range(n, 1, 1000);
    struct counting c = {.fail_at = n};
    const unroll_allocator a = counting_allocator(&c);
    unroll_safetensors *f = NULL;
    unroll_error err = UNROLL_ERROR_INIT;
    const unroll_status status = unroll_safetensors_open(in_folder("f"), &a, &f, &err);
    if (status == UNROLL_OK) {
      unroll_safetensors_close(f);
      assert_int_equal(c.live, 0);
      assert_true(n > 5);
      return;
    }
    assert_int_equal(status, UNROLL_E_MEMORY);
    assert_non_null(strstr(err.message, "no memory"));
    assert_null(f);
    assert_int_equal(c.live, 0);
  }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make_folder, remove_folder)

int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(round_trip),
      TEST(same_content_same_bytes),
      TEST(another_programs_file),
      TEST(hostile_headers),
      TEST(unusual_but_right),
      TEST(lengths_that_lie),
      TEST(very_many_entries),
      TEST(cut_at_every_byte),
      TEST(every_flipped_bit_is_found),
      TEST(things_that_are_no_files),
      TEST(every_allocation_fails_once),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
