/* SPDX-License-Identifier: Apache-2.0 */
#include "support/io_support.h"

#include <errno.h>
#include <signal.h>
#include <sys/resource.h>
#include <unroll/io.h>

#define KEEP(text) text, sizeof text - 1

static const int64_t shape[] = {2, 1, 3, 1, 1, 2};
static const unsigned char values[96] = {1, 0, 0, 1, 5, 6, 7, 8, 9, 10, 11, 12, 240, 250, 255, 128};

static void round_trip(void **state) {
  (void)state;
  static const int32_t dtypes[] = {UNROLL_F64, UNROLL_F32, UNROLL_F16, UNROLL_I64,
                                   UNROLL_I32, UNROLL_I8,  UNROLL_U8,  UNROLL_BOOL};
  for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++)
    for (int32_t rank = 0; rank <= UNROLL_MAX_RANK; rank++) {
      uint64_t bytes = unroll_dtype_size(dtypes[i]);
      for (int32_t k = 0; k < rank; k++)
        bytes *= (uint64_t)shape[k];
      assert_ok(unroll_npy_write(in_folder("a.npy"), dtypes[i], rank, shape, values, NULL, &err));
      unroll_npy *f = NULL;
      assert_ok(unroll_npy_open(in_folder("a.npy"), NULL, &f, &err));
      const unroll_stored_tensor *t = unroll_npy_tensor(f);
      assert_string_equal(t->name, "");
      assert_int_equal(t->dtype, dtypes[i]);
      assert_int_equal(t->rank, rank);
      for (int32_t k = 0; k < UNROLL_MAX_RANK; k++)
        assert_int_equal(t->shape[k], k < rank ? shape[k] : 0);
      assert_int_equal(t->bytes, bytes);
      assert_memory_equal(t->data, values, bytes);
      assert_int_equal((uintptr_t)t->data % 64, 0);
      unroll_npy_close(f);
    }
  unroll_npy_close(NULL);
}

/* What numpy.save(f, numpy.array([[1, 2], [3, 4]], dtype='<i4')) and the like write, as NumPy's documentation has the
 * format. */
static void the_bytes_are_numpys(void **state) {
  (void)state;
  static const int64_t two[] = {2, 2}, none[] = {0};
  static const int32_t data[] = {1, 2, 3, 4};
  size_t n;
  assert_ok(unroll_npy_write(in_folder("a.npy"), UNROLL_I32, 2, two, data, NULL, &err));
  char *bytes = get_file(in_folder("a.npy"), &n);
  static const char start[] = "\x93NUMPY\x01\x00\x76\x00{'descr': '<i4', 'fortran_order': False, 'shape': (2, 2), }   ";
  assert_int_equal(n, 128 + 16);
  assert_memory_equal(bytes, start, sizeof start - 1);
  assert_int_equal(bytes[127], '\n');
  assert_memory_equal(bytes + 128, data, 16);
  free(bytes);
  assert_ok(unroll_npy_write(in_folder("a.npy"), UNROLL_U8, 1, none, NULL, NULL, &err));
  bytes = get_file(in_folder("a.npy"), &n);
  assert_non_null(strstr(bytes + 10, "{'descr': '|u1', 'fortran_order': False, 'shape': (0,), }"));
  free(bytes);
  assert_ok(unroll_npy_write(in_folder("a.npy"), UNROLL_F64, 0, NULL, values, NULL, &err));
  bytes = get_file(in_folder("a.npy"), &n);
  assert_non_null(strstr(bytes + 10, "'shape': (), }"));
  free(bytes);
}

/* A file of that version, with that header and so many bytes behind it. */
static size_t make_npy(char *to, int major, const char *header, size_t n, size_t data) {
  size_t at = 0;
  memcpy(to, "\x93NUMPY", 6);
  to[6] = (char)major;
  to[7] = 0;
  for (at = 8; at < (major == 1 ? 10u : 12u); at++)
    to[at] = (char)(n >> 8 * (at - 8) & 0xFF);
  memcpy(to + at, header, n);
  for (size_t i = 0; i < data; i++)
    to[at + n + i] = (char)i;
  return at + n + data;
}

#define H(descr, order, dims) KEEP("{'descr': " descr ", 'fortran_order': " order ", 'shape': " dims ", }")

static const struct hostile {
  const char *header;
  size_t size, data;
  unroll_status status;
  const char *words;
} hostiles[] = {
    {KEEP(""), 0, UNROLL_E_FORMAT, "'{' is expected"},
    {KEEP("{"), 0, UNROLL_E_FORMAT, "a string is expected"},
    {KEEP("{}"), 0, UNROLL_E_FORMAT, "no descr"},
    {KEEP("{'descr': '<f4'}"), 0, UNROLL_E_FORMAT, "no fortran_order"},
    {KEEP("{'descr': '<f4', 'fortran_order': False}"), 0, UNROLL_E_FORMAT, "no shape"},
    {KEEP("{'descr': '<f4', 'descr': '<f4'}"), 0, UNROLL_E_FORMAT, "duplicate key \"descr\""},
    {KEEP("{'x': 1}"), 0, UNROLL_E_FORMAT, "unknown key \"x\""},
    {KEEP("{'descr"), 0, UNROLL_E_FORMAT, "a string without an end"},
    {KEEP("{'descr' '<f4'}"), 0, UNROLL_E_FORMAT, "':' is expected"},
    {KEEP("{'descr': '<f4' 'shape': ()}"), 0, UNROLL_E_FORMAT, "',' or '}' is expected"},
    {KEEP("{'descr': '<f4', 'fortran_order': False, 'shape': ()} x"), 4, UNROLL_E_FORMAT, "\"x\" where the end"},
    {H("'<f4'", "False", "()"), 3, UNROLL_E_FORMAT, "takes 4 bytes, behind the header are 3"},
    {H("'<f4'", "False", "()"), 5, UNROLL_E_FORMAT, "takes 4 bytes, behind the header are 5"},
    {H("'<f4'", "False", "(2, 3)"), 20, UNROLL_E_FORMAT, "takes 24 bytes"},
    {H("'<f4'", "True", "(2,)"), 8, UNROLL_E_UNSUPPORTED, "fortran_order is True"},
    {H("'<f4'", "None", "(2,)"), 8, UNROLL_E_FORMAT, "True or False is expected"},
    {H("'|O'", "False", "(1,)"), 8, UNROLL_E_UNSUPPORTED, "Python objects are never read"},
    {H("'|O8'", "False", "(1,)"), 8, UNROLL_E_UNSUPPORTED, "Python objects are never read"},
    {H("'>f4'", "False", "(1,)"), 4, UNROLL_E_UNSUPPORTED, "big endian"},
    {H("'|f4'", "False", "(1,)"), 4, UNROLL_E_UNSUPPORTED, "dtype \"|f4\""},
    {H("'<c8'", "False", "(1,)"), 8, UNROLL_E_UNSUPPORTED, "dtype \"<c8\""},
    {H("'<U4'", "False", "(1,)"), 16, UNROLL_E_UNSUPPORTED, "dtype \"<U4\""},
    {H("''", "False", "(1,)"), 16, UNROLL_E_UNSUPPORTED, "dtype \"\""},
    {H("[('a', '<f4')]", "False", "(1,)"), 4, UNROLL_E_UNSUPPORTED, "structured"},
    {H("4", "False", "(1,)"), 4, UNROLL_E_FORMAT, "a string is expected"},
    {H("'<f4'", "False", "4"), 16, UNROLL_E_FORMAT, "a tuple is expected"},
    {H("'<f4'", "False", "(4)"), 16, UNROLL_E_FORMAT, "',' is expected"},
    {H("'<f4'", "False", "(-4,)"), 16, UNROLL_E_FORMAT, "an extent is expected"},
    {H("'<f4'", "False", "(4.0,)"), 16, UNROLL_E_FORMAT, "',' is expected"},
    {H("'<f4'", "False", "(4"), 16, UNROLL_E_FORMAT, "an extent is expected"},
    {H("'<f4'", "False", "(1,1,1,1,1,1,1)"), 4, UNROLL_E_UNSUPPORTED, "more than 6 axes"},
    {H("'<f4'", "False", "(9223372036854775808,)"), 4, UNROLL_E_FORMAT, "past 2^63-1"},
    {H("'<f4'", "False", "(4611686018427387904, 4)"), 4, UNROLL_E_FORMAT, "more than 2^63"},
    {H("'<f4'", "False", "(9223372036854775807, 9223372036854775807, 0)"), 0, UNROLL_E_FORMAT, "more than 2^63"},
    {KEEP("{'descr': '<f4', 'fortran_order': False, 'shape': (1,), } \0 "), 4, UNROLL_E_FORMAT, "the end is expected"},
};

static void hostile_headers(void **state) {
  (void)state;
  char bytes[512];
  for (size_t i = 0; i < sizeof hostiles / sizeof *hostiles; i++)
    for (int major = 1; major <= 3; major++) {
      const struct hostile *h = &hostiles[i];
      unroll_npy *f = NULL;
      put_file(in_folder("h"), bytes, make_npy(bytes, major, h->header, h->size, h->data));
      assert_error(unroll_npy_open(in_folder("h"), NULL, &f, &err), h->status, h->words);
      assert_null(f);
      unroll_error err = UNROLL_ERROR_INIT;
      assert_int_equal(unroll_npy_open(in_folder("h"), NULL, &f, &err), h->status);
      assert_non_null(strstr(err.message, folder));
    }
}

static void versions_and_lengths(void **state) {
  (void)state;
  char bytes[512];
  unroll_npy *f = NULL;
  static const char good[] = "{\"shape\":(2,3,),'fortran_order':False,\n'descr':'<f4'}";
  for (int major = 0; major <= 4; major++) {
    put_file(in_folder("h"), bytes, make_npy(bytes, major, good, sizeof good - 1, 24));
    if (major >= 1 && major <= 3) {
      assert_ok(unroll_npy_open(in_folder("h"), NULL, &f, &err));
      assert_int_equal(unroll_npy_tensor(f)->rank, 2);
      assert_int_equal(unroll_npy_tensor(f)->shape[1], 3);
      assert_memory_equal(unroll_npy_tensor(f)->data, "\x00\x01\x02\x03", 4);
      unroll_npy_close(f);
    } else {
      assert_error(unroll_npy_open(in_folder("h"), NULL, &f, &err), UNROLL_E_UNSUPPORTED, "of the format");
    }
  }
  put_file(in_folder("h"), KEEP("\x93NUMPY\x01\x01\x02\x00{}"));
  assert_error(unroll_npy_open(in_folder("h"), NULL, &f, &err), UNROLL_E_UNSUPPORTED, "version 1.1");
  put_file(in_folder("h"), KEEP("\x93NUMPX\x01\x00\x02\x00{}"));
  assert_error(unroll_npy_open(in_folder("h"), NULL, &f, &err), UNROLL_E_FORMAT, "don't begin as an npy file");
  put_file(in_folder("h"), KEEP("\x93NUMPY\x01\x00\x03\x00{}"));
  assert_error(unroll_npy_open(in_folder("h"), NULL, &f, &err), UNROLL_E_FORMAT, "claims 3 bytes, the file has 2");
  put_file(in_folder("h"), KEEP("\x93NUMPY\x02\x00\xFF\xFF\xFF\xFF{}"));
  assert_error(unroll_npy_open(in_folder("h"), NULL, &f, &err), UNROLL_E_FORMAT, "claims 4294967295 bytes");
  put_file(in_folder("h"), "", 0);
  assert_error(unroll_npy_open(in_folder("h"), NULL, &f, &err), UNROLL_E_FORMAT, "0 bytes");
  assert_error(unroll_npy_open(in_folder("none"), NULL, &f, &err), UNROLL_E_IO, "No such file");
  assert_error(unroll_npy_open(folder, NULL, &f, &err), UNROLL_E_IO, "a directory");
  assert_error(unroll_npy_open(NULL, NULL, &f, &err), UNROLL_E_INVALID, "path is NULL");
}

static void cuts_and_flips(void **state) {
  (void)state;
  size_t n;
  assert_ok(unroll_npy_write(in_folder("a.npy"), UNROLL_F64, 6, shape, values, NULL, &err));
  char *bytes = get_file(in_folder("a.npy"), &n);
  struct counting c = {0};
  const unroll_allocator a = counting_allocator(&c);
  for (size_t i = 0; i < n; i++) {
    unroll_npy *f = NULL;
    unroll_error err = UNROLL_ERROR_INIT;
    put_file(in_folder("h"), bytes, i);
    assert_int_equal(unroll_npy_open(in_folder("h"), &a, &f, &err), UNROLL_E_FORMAT);
    assert_int_equal(c.live, 0);
  }
  for (size_t i = 0; i < n * 8; i++) {
    unroll_npy *f = NULL;
    unroll_error err = UNROLL_ERROR_INIT;
    bytes[i / 8] = (char)(bytes[i / 8] ^ 1 << i % 8);
    put_file(in_folder("h"), bytes, n);
    bytes[i / 8] = (char)(bytes[i / 8] ^ 1 << i % 8);
    const unroll_status status = unroll_npy_open(in_folder("h"), &a, &f, &err);
    if (status == UNROLL_OK) {
      const unroll_stored_tensor *t = unroll_npy_tensor(f);
      assert_true(t->bytes <= n - 10);
      uint64_t sum = 0; /* every byte that is promised can be read */
      for (uint64_t k = 0; k < t->bytes; k++)
        sum += ((const unsigned char *)t->data)[k];
      assert_true(sum <= 255 * t->bytes);
      unroll_npy_close(f);
    } else {
      assert_true(status == UNROLL_E_FORMAT || status == UNROLL_E_UNSUPPORTED);
    }
    assert_int_equal(c.live, 0);
  }
  free(bytes);
}

static void what_can_not_be_written(void **state) {
  (void)state;
  const char *path = in_folder("a.npy");
  const int64_t negative[] = {-1}, one[] = {1}, many[] = {12};
#define WRITE(path, dtype, rank, shape, data) unroll_npy_write(path, dtype, rank, shape, data, NULL, &err)
  assert_error(WRITE(path, UNROLL_BF16, 1, one, values), UNROLL_E_DTYPE, "bf16");
  assert_error(WRITE(path, 77, 1, one, values), UNROLL_E_DTYPE, "77");
  assert_error(WRITE(path, UNROLL_F32, 7, shape, values), UNROLL_E_SHAPE, "rank 7");
  assert_error(WRITE(path, UNROLL_F32, 1, negative, values), UNROLL_E_SHAPE, "axis 0 is -1");
  assert_error(WRITE(path, UNROLL_F32, 1, one, NULL), UNROLL_E_INVALID, "data is NULL");
  assert_error(WRITE(NULL, UNROLL_F32, 1, one, values), UNROLL_E_INVALID, "path is NULL");
  assert_error(WRITE(in_folder("no/a.npy"), UNROLL_F32, 1, one, values), UNROLL_E_IO, "No such file");
  assert_int_equal(folder_entries(0), 0);

  assert_ok(WRITE(path, UNROLL_U8, 1, one, values));
  struct rlimit old, small;
  assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
  small = old;
  small.rlim_cur = 130;
  void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
  assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
  unroll_error full = UNROLL_ERROR_INIT;
  const unroll_status status = unroll_npy_write(path, UNROLL_U8, 1, many, values, NULL, &full);
  assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
  signal(SIGXFSZ, handler);
  assert_int_equal(status, UNROLL_E_IO);
  assert_int_equal(full.native, EFBIG);
  assert_int_equal(folder_entries(0), 1);
  unroll_npy *f = NULL;
  assert_ok(unroll_npy_open(path, NULL, &f, &err));
  assert_int_equal(unroll_npy_tensor(f)->bytes, 1);
  unroll_npy_close(f);
}

static void every_allocation_fails_once(void **state) {
  (void)state;
  for (long n = 1;; n++) {
    assert_in_range(n, 1, 100);
    struct counting c = {.fail_at = n};
    const unroll_allocator a = counting_allocator(&c);
    unroll_npy *f = NULL;
    unroll_error err = UNROLL_ERROR_INIT;
    unroll_status status = unroll_npy_write(in_folder("a.npy"), UNROLL_F32, 6, shape, values, &a, &err);
    assert_int_equal(c.live, 0);
    assert_int_equal(folder_entries(0), status == UNROLL_OK ? 1 : 0);
    if (status == UNROLL_OK)
      status = unroll_npy_open(in_folder("a.npy"), &a, &f, &err);
    if (status == UNROLL_OK) {
      unroll_npy_close(f);
      assert_int_equal(c.live, 0);
      assert_true(n > 4);
      return;
    }
    folder_entries(1);
    assert_int_equal(status, UNROLL_E_MEMORY);
    assert_int_equal(c.live, 0);
  }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make_folder, remove_folder)

int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(round_trip),
      TEST(the_bytes_are_numpys),
      TEST(hostile_headers),
      TEST(versions_and_lengths),
      TEST(cuts_and_flips),
      TEST(what_can_not_be_written),
      TEST(every_allocation_fails_once),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
