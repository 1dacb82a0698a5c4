/* SPDX-License-Identifier: Apache-2.0 */
/* Event files: published checksums and records byte by byte, histograms, what is not finite, disks that are full. */
#include "support/io_support.h"

#include <errno.h>
#include <float.h>
#include <math.h>
#include <signal.h>
#include <sys/resource.h>
#include <unroll/event_file.h>

#include "io/crc32c.h"

/* ---- a file whose clock stands at 1 ---- */

static double now_is(void *ctx) { return *(const double *)ctx; }
static double one = 1;
static const unroll_event_file_options at_one = {.struct_size = sizeof at_one, .now = now_is, .ctx = &one};

static unroll_event_file *open_events(void) {
  unroll_event_file *f = NULL;
  assert_ok(unroll_event_file_create(folder, &at_one, NULL, &f, &err));
  return f;
}

/* The file's bytes after a flush, and it is closed. To be freed. */
static unsigned char *close_events(unroll_event_file *f, size_t *size) {
  assert_ok(unroll_event_file_flush(f, &err));
  unsigned char *bytes = (unsigned char *)get_file(unroll_event_file_path(f), size);
  assert_ok(unroll_event_file_close(f, &err));
  return bytes;
}

/* ---- a reader of its own: records with their checksums, bit by bit; fields of a message ---- */

static uint32_t masked(const unsigned char *p, size_t n) {
  uint32_t c = UINT32_MAX;
  for (size_t i = 0; i < 8 * n; i++) {
    if (i % 8 == 0)
      c ^= p[i / 8];
    c = c & 1 ? c >> 1 ^ 0x82F63B78u : c >> 1;
  }
  c = ~c;
  return (c >> 15 | c << 17) + 0xA282EAD8u;
}

struct span {
  const unsigned char *data;
  size_t n;
};

static uint32_t u32_at(const unsigned char *p) {
  uint32_t value;
  memcpy(&value, p, sizeof value);
  return value;
}

/* The first record; rest becomes what is behind it. */
static struct span take_record(struct span *rest) {
  assert_true(rest->n >= 16);
  uint64_t n;
  memcpy(&n, rest->data, sizeof n);
  assert_int_equal(u32_at(rest->data + 8), masked(rest->data, 8));
  assert_true(n <= rest->n - 16);
  const struct span data = {rest->data + 12, (size_t)n};
  assert_int_equal(u32_at(data.data + n), masked(data.data, data.n));
  rest->data += 16 + n;
  rest->n -= 16 + (size_t)n;
  return data;
}

static uint64_t take_varint(struct span *s) {
  uint64_t value = 0;
  for (unsigned shift = 0;; shift += 7) {
    assert_true(s->n > 0 && shift < 64);
    const unsigned char byte = *s->data++;
    s->n--;
    value |= (uint64_t)(byte & 127) << shift;
    if (byte < 128)
      return value;
  }
}

/* The bytes of a field, of a varint those of a uint64_t; n 0: it is not there. */
static struct span field(struct span message, unsigned number) {
  static uint64_t varint;
  while (message.n > 0) {
    const uint64_t key = take_varint(&message);
    const unsigned wire = key & 7;
    struct span value = {message.data, wire == 1 ? 8 : 4};
    if (wire == 0) {
      varint = take_varint(&message);
      value = (struct span){(const unsigned char *)&varint, sizeof varint};
    } else {
      if (wire == 2) {
        value.n = (size_t)take_varint(&message);
        value.data = message.data;
      }
      assert_true(wire == 1 || wire == 2 || wire == 5);
      assert_true(value.n <= message.n);
      message.data += value.n;
      message.n -= value.n;
    }
    if (key >> 3 == number)
      return value;
  }
  return (struct span){NULL, 0};
}

static double double_at(struct span s, size_t i) {
  double value;
  assert_true(8 * (i + 1) <= s.n);
  memcpy(&value, s.data + 8 * i, sizeof value);
  return value;
}
static float float_of(struct span s) {
  float value;
  assert_int_equal(s.n, 4);
  memcpy(&value, s.data, sizeof value);
  return value;
}
static void assert_string(struct span s, const char *text) {
  assert_int_equal(s.n, strlen(text));
  assert_memory_equal(s.data, text, s.n);
}

/* The value of an event's summary, and its step. */
static struct span take_value(struct span *rest, const char *tag, int64_t step) {
  const struct span event = take_record(rest), at = field(event, 2), value = field(field(event, 5), 1);
  int64_t found = 0;
  if (at.n > 0)
    memcpy(&found, at.data, sizeof found);
  assert_int_equal(found, step);
  assert_true(double_at(field(event, 1), 0) == one);
  assert_string(field(value, 1), tag);
  return value;
}

static struct span after_version(unsigned char *bytes, size_t size) {
  struct span rest = {bytes, size};
  assert_string(field(take_record(&rest), 3), "brain.Event:2");
  return rest;
}

/* ---- tests ---- */

static void published_checksums(void **state) {
  (void)state;
  assert_int_equal(crc32c(0, "123456789", 9), 0xE3069283u);
  assert_int_equal(crc32c(crc32c(0, "1234", 4), "56789", 5), 0xE3069283u);
  assert_int_equal(crc32c_masked("123456789", 9), 0xC78AB0E5u);
  unsigned char bytes[48]; /* RFC 3720, B.4 */
  memset(bytes, 0, 32);
  assert_int_equal(crc32c(0, bytes, 32), 0x8A9136AAu);
  memset(bytes, 0xFF, 32);
  assert_int_equal(crc32c(0, bytes, 32), 0x62A8AB43u);
  for (int i = 0; i < 32; i++)
    bytes[i] = (unsigned char)i;
  assert_int_equal(crc32c(0, bytes, 32), 0x46DD794Eu);
}

/* What TensorBoard read: the version, and loss = 0.5 at step 5, both at 1 second. */
static void golden_records(void **state) {
  (void)state;
  static const char golden[] = "1800000000000000a37f4b2209000000000000f03f1a0d627261696e2e4576656e743a3286bf577a"
                               "1a00000000000000129bd82d09000000000000f03f10052a0d0a0b0a046c6f7373150000003f1e6d8ff9";
  unroll_event_file *f = open_events();
  assert_ok(unroll_event_file_scalar(f, "loss", 5, 0.5, &err));
  size_t size;
  unsigned char *bytes = close_events(f, &size);
  assert_int_equal(2 * size, strlen(golden));
  for (size_t i = 0; i < size; i++) {
    char hex[3];
    snprintf(hex, sizeof hex, "%02x", bytes[i]);
    assert_memory_equal(hex, golden + 2 * i, 2);
  }
  free(bytes);
}

/* A run that goes on: TensorFlow's event.proto has session_log = 7, its status = 1, START = 1. */
static void a_restart(void **state) {
  (void)state;
  unroll_event_file_options options = at_one;
  options.restart = 21;
  for (int has = 1; has >= 0; has--) {
    unroll_event_file *f = NULL;
    options.struct_size = has ? sizeof options : (uint32_t)offsetof(unroll_event_file_options, restart);
    assert_ok(unroll_event_file_create(folder, &options, NULL, &f, &err));
    size_t size;
    unsigned char *bytes = close_events(f, &size);
    struct span rest = after_version(bytes, size);
    if (has) {
      static const unsigned char log[] = {0x09, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f, 0x10, 21, 0x3a, 2, 0x08, 1};
      const struct span event = take_record(&rest);
      assert_int_equal(event.n, sizeof log);
      assert_memory_equal(event.data, log, sizeof log);
    }
    assert_int_equal(rest.n, 0);
    free(bytes);
  }
}

static void scalars(void **state) {
  (void)state;
  const struct {
    double value;
    float stored;
    int64_t step;
  } cases[] = {{0.1, 0.1f, 0},
               {(double)INFINITY, INFINITY, 127},
               {(double)-INFINITY, -INFINITY, 128},
               {DBL_MAX, INFINITY, INT64_MAX},
               {-DBL_MAX, -INFINITY, 300},
               {(double)FLT_MAX, FLT_MAX, -1},
               {nextafter(0x1p128 - 0x1p103, 0), FLT_MAX, 1}, /* rounds down to it, */
               {0x1p128 - 0x1p103, INFINITY, 2},              /* and the tie up, as IEEE 754 has it */
               {-(0x1p128 - 0x1p103), -INFINITY, 2},
               {-1e-300, -0.0f, 3}};
  unroll_event_file *f = open_events();
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
    assert_ok(unroll_event_file_scalar(f, "a/β", cases[i].step, cases[i].value, &err));
  assert_ok(unroll_event_file_scalar(f, "nan", 4, (double)NAN, &err));
  size_t size;
  unsigned char *bytes = close_events(f, &size);
  struct span rest = after_version(bytes, size);
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    const float x = float_of(field(take_value(&rest, "a/β", cases[i].step), 2));
    assert_memory_equal(&x, &cases[i].stored, sizeof x);
  }
  assert_true(isnan(float_of(field(take_value(&rest, "nan", 4), 2))));
  assert_int_equal(rest.n, 0);
  free(bytes);
}

static void texts(void **state) {
  (void)state;
  char *const many = malloc(70001); /* a length of three bytes, and more than is collected */
  memset(many, 'x', 70000);
  many[70000] = '\0';
  unroll_event_file *f = open_events();
  assert_ok(unroll_event_file_text(f, "configuration", 7, "| a | b |\n|---|---|\n| ρ | 1 |", &err));
  assert_ok(unroll_event_file_text(f, "many", 8, many, &err));
  size_t size;
  unsigned char *bytes = close_events(f, &size);
  struct span rest = after_version(bytes, size);
  const struct span value = take_value(&rest, "configuration", 7), tensor = field(value, 8);
  assert_int_equal(*field(tensor, 1).data, 7);                     /* DT_STRING */
  assert_int_equal(*field(field(field(tensor, 2), 2), 1).data, 1); /* [1] */
  assert_string(field(tensor, 8), "| a | b |\n|---|---|\n| ρ | 1 |");
  assert_string(field(field(field(value, 9), 1), 1), "text");
  assert_string(field(field(take_value(&rest, "many", 8), 8), 8), many);
  free(bytes);
  free(many);
}

/* The buckets of a value, of which the edges rise from the least value on and the counts are `n` together. */
static struct span check_histogram(struct span value, double least, double greatest, double n, size_t buckets) {
  const struct span h = field(value, 5), edges = field(h, 6), counts = field(h, 7);
  assert_true(double_at(field(h, 1), 0) == least);
  assert_true(double_at(field(h, 2), 0) == greatest);
  assert_true(double_at(field(h, 3), 0) == n);
  assert_int_equal(edges.n, 8 * buckets);
  assert_int_equal(counts.n, 8 * buckets);
  double sum = 0;
  for (size_t i = 0; i < buckets; i++) {
    sum += double_at(counts, i);
    if (i > 0)
      assert_true(double_at(edges, i) > double_at(edges, i - 1));
  }
  assert_true(double_at(edges, 0) >= least);
  assert_true(double_at(edges, buckets - 1) == greatest);
  assert_true(sum == n);
  return h;
}

static void histograms(void **state) {
  (void)state;
  double values[1001];
  for (int i = 0; i < 1001; i++) /* from -0.5 to 2, 400 a unit */
    values[i] = -0.5 + (i * 577 % 1001) / 400.0;
  unroll_event_file *f = open_events();
  unroll_event_histogram found = {.struct_size = sizeof found};
  assert_ok(unroll_event_file_histogram(f, "h", 3, UNROLL_F64, values, 1001, &found, &err));
  assert_int_equal(found.finite, 1001);
  assert_true(fabs(found.mean - 0.75) < 1e-12);
  size_t size;
  unsigned char *bytes = close_events(f, &size);
  struct span rest = after_version(bytes, size);
  const struct span h = check_histogram(take_value(&rest, "h", 3), -0.5, 2, 1001, 64);
  assert_true(fabs(double_at(field(h, 4), 0) - 1001 * 0.75) < 1e-9);
  /* the variance of n whole numbers in a row is (n² - 1)/12 */
  const double variance = (1001.0 * 1001 - 1) / 12 / (400.0 * 400);
  assert_true(fabs(double_at(field(h, 5), 0) - 1001 * (variance + 0.75 * 0.75)) < 1e-9);
  const struct span edges = field(h, 6), counts = field(h, 7);
  for (size_t k = 0; k < 64; k++) {
    const double left = k ? double_at(edges, k - 1) : -0.5, right = double_at(edges, k);
    assert_true(fabs(right - left - 2.5 / 64) < 1e-12);
    int inside = 0;
    for (int i = 0; i < 1001; i++)
      inside += values[i] >= left && (values[i] < right || k == 63);
    assert_true(double_at(counts, k) == inside);
  }
  assert_int_equal(rest.n, 0);
  free(bytes);
}

/* A value on an edge is in the bucket that begins there, whatever a quotient is rounded to. */
static void values_on_edges(void **state) {
  (void)state;
  const double ranges[][2] = {{0.1, 0.7}, {-1.0 / 3, 1.0 / 7}, {1e-3, 1e300}, {-1e-9, 3e-9}, {-7.7, -1.1}};
  for (size_t r = 0; r < sizeof ranges / sizeof ranges[0]; r++) {
    double values[128]; /* the edges, and what is just below the inner ones */
    for (int k = 0; k <= 64; k++) {
      values[k] = ranges[r][0] * (1 - k / 64.0) + ranges[r][1] * (k / 64.0);
      if (k > 0 && k < 64)
        values[64 + k] = nextafter(values[k], (double)-INFINITY);
    }
    unroll_event_file *f = open_events();
    assert_ok(unroll_event_file_histogram(f, "h", 1, UNROLL_F64, values, 128, NULL, &err));
    size_t size;
    unsigned char *bytes = close_events(f, &size);
    struct span rest = after_version(bytes, size);
    const struct span h = check_histogram(take_value(&rest, "h", 1), ranges[r][0], ranges[r][1], 128, 64);
    for (size_t k = 0; k < 64; k++)
      assert_true(double_at(field(h, 7), k) == 2);
    free(bytes);
  }
}

static void values_that_are_not_finite(void **state) {
  (void)state;
  const float values[] = {NAN, 1.5f, INFINITY, -2, -INFINITY, INFINITY, 0.25f, -NAN, INFINITY};
  const float none[] = {INFINITY, NAN};
  unroll_event_file *f = open_events();
  unroll_event_histogram found = {.struct_size = sizeof found};
  assert_ok(unroll_event_file_histogram(f, "h", 1, UNROLL_F32, values, 9, &found, &err));
  assert_true(found.finite == 3 && found.nans == 2 && found.infinities == 3 && found.negative_infinities == 1);
  assert_true(found.least == -2 && found.greatest == 1.5);
  assert_ok(unroll_event_file_histogram(f, "h", 2, UNROLL_F32, none, 2, &found, &err));
  assert_true(found.finite == 0 && found.nans == 1 && found.infinities == 1 && isnan(found.least) && isnan(found.mean));
  size_t size;
  unsigned char *bytes = close_events(f, &size);
  struct span rest = after_version(bytes, size);
  const struct span h = check_histogram(take_value(&rest, "h", 1), -2, 1.5, 3, 64);
  assert_true(double_at(field(h, 4), 0) == -0.25);
  assert_true(double_at(field(h, 5), 0) == 4 + 2.25 + 0.0625);
  assert_true(float_of(field(take_value(&rest, "h/nonfinite", 1), 2)) == 6);
  assert_true(float_of(field(take_value(&rest, "h/nonfinite", 2), 2)) == 2);
  assert_int_equal(rest.n, 0);
  free(bytes);
}

/* Ranges that no difference or no quotient can be made of. */
static void extreme_ranges(void **state) {
  (void)state;
  const double whole[] = {-DBL_MAX, -1, 0, 1, DBL_MAX}, alike[] = {-7, -7, -7}, zeros[] = {0.0, -0.0};
  const double tiny[] = {0, DBL_TRUE_MIN, 2 * DBL_TRUE_MIN}, near[] = {1, nextafter(1, 2)};
  const struct {
    const double *values;
    uint64_t n;
    size_t buckets;
  } cases[] = {{whole, 5, 64}, {alike, 3, 1}, {zeros, 2, 1}, {tiny, 3, 1}, {near, 2, 1}};
  unroll_event_file *f = open_events();
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
    assert_ok(unroll_event_file_histogram(f, "h", 1, UNROLL_F64, cases[i].values, cases[i].n, NULL, &err));
  size_t size;
  unsigned char *bytes = close_events(f, &size);
  struct span rest = after_version(bytes, size);
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
    check_histogram(take_value(&rest, "h", 1), cases[i].values[0], cases[i].values[cases[i].n - 1], (double)cases[i].n,
                    cases[i].buckets);
  free(bytes);
}

static void files_of_their_own(void **state) {
  (void)state;
  unroll_event_file *a = open_events(), *b = open_events();
  const char *const x = unroll_event_file_path(a), *const y = unroll_event_file_path(b);
  char begin[200];
  snprintf(begin, sizeof begin, "%s/events.out.tfevents.0000000001.", folder);
  assert_memory_equal(x, begin, strlen(begin));
  char end[40];
  snprintf(end, sizeof end, ".%ld.0", (long)getpid());
  assert_string_equal(x + strlen(x) - strlen(end), end);
  assert_string_equal(y + strlen(y) - 2, ".1");
  struct stat info;
  assert_int_equal(stat(x, &info), 0);
  assert_int_equal(info.st_size, 40); /* the version is there at once, */
  assert_ok(unroll_event_file_scalar(a, "a", 1, 1, &err));
  assert_int_equal(stat(x, &info), 0);
  assert_int_equal(info.st_size, 40); /* what follows is collected */
  assert_ok(unroll_event_file_close(a, &err));
  assert_ok(unroll_event_file_close(b, &err));
  assert_ok(unroll_event_file_close(NULL, &err));
  assert_int_equal(folder_entries(0), 2);
}

static void folders_are_made(void **state) {
  (void)state;
  unroll_event_file *f = NULL;
  char path[200];
  snprintf(path, sizeof path, "%s/a//b/", folder);
  assert_ok(unroll_event_file_create(path, NULL, NULL, &f, &err));
  assert_int_equal(access(unroll_event_file_path(f), F_OK), 0);
  remove(unroll_event_file_path(f));
  assert_ok(unroll_event_file_close(f, &err));
  remove(in_folder("a/b"));
}

static void mistakes(void **state) {
  (void)state;
  unroll_event_file *f = NULL;
  put_file(in_folder("file"), "x", 1);
  assert_error(unroll_event_file_create(in_folder("file"), NULL, NULL, &f, &err), UNROLL_E_IO, "Not a directory");
  assert_error(unroll_event_file_create(in_folder("file/under"), NULL, NULL, &f, &err), UNROLL_E_IO, "Not a directory");
  assert_error(unroll_event_file_create("/proc/nothing", NULL, NULL, &f, &err), UNROLL_E_IO,
               "/proc/nothing: making the folder");
  assert_error(unroll_event_file_create("", NULL, NULL, &f, &err), UNROLL_E_INVALID, "folder is empty");
  assert_error(unroll_event_file_create(NULL, NULL, NULL, &f, &err), UNROLL_E_INVALID, "folder is NULL");
  assert_error(unroll_event_file_create("x", &(unroll_event_file_options){.struct_size = 4}, NULL, &f, &err),
               UNROLL_E_INVALID, "struct_size 4");
  assert_null(f);
  f = open_events();
  char many[1026];
  memset(many, 'x', 1025);
  many[1025] = '\0';
  const int32_t whole[] = {1};
  assert_error(unroll_event_file_scalar(f, many, 1, 1, &err), UNROLL_E_INVALID, "a tag of 1025 bytes");
  assert_error(unroll_event_file_scalar(f, "", 1, 1, &err), UNROLL_E_INVALID, "a tag of 0 bytes");
  assert_error(unroll_event_file_scalar(f, NULL, 1, 1, &err), UNROLL_E_INVALID, "tag is NULL");
  assert_error(unroll_event_file_scalar(NULL, "x", 1, 1, &err), UNROLL_E_INVALID, "file is NULL");
  assert_error(unroll_event_file_scalar(f, "a\xFF", 1, 1, &err), UNROLL_E_INVALID, "is not UTF-8 at byte 1");
  assert_error(unroll_event_file_text(f, "t", 1, "ab\xC0", &err), UNROLL_E_INVALID,
               "text \"t\" is not UTF-8 at byte 2");
  assert_error(unroll_event_file_text(f, "t", 1, NULL, &err), UNROLL_E_INVALID, "is NULL");
  assert_error(unroll_event_file_histogram(f, "h", 1, UNROLL_I32, whole, 1, NULL, &err), UNROLL_E_DTYPE, "of i32");
  assert_error(unroll_event_file_histogram(f, "h", 1, UNROLL_F32, whole, 0, NULL, &err), UNROLL_E_INVALID, "no values");
  assert_error(unroll_event_file_flush(NULL, &err), UNROLL_E_INVALID, "file is NULL");
  size_t size;
  free(close_events(f, &size));
  assert_int_equal(size, 40); /* nothing of it was written */
}

/* Room for some bytes more than the version: what does not fit is cut off, named, and does not harm what comes after. */
static void full_disk(void **state) {
  (void)state;
  unroll_event_file *f = open_events();
  struct rlimit old, small;
  assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
  small = old;
  small.rlim_cur = 100;
  void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
  assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
  unroll_error full = UNROLL_ERROR_INIT;
  for (int64_t i = 1; i <= 3; i++)
    assert_ok(unroll_event_file_scalar(f, "lost", i, 1, &err));
  const unroll_status status = unroll_event_file_flush(f, &full);
  assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
  signal(SIGXFSZ, handler);
  assert_int_equal(status, UNROLL_E_IO);
  assert_int_equal(full.native, EFBIG);
  assert_non_null(strstr(full.message, "writing 3 events, which are lost"));
  struct stat info;
  assert_int_equal(stat(unroll_event_file_path(f), &info), 0);
  assert_int_equal(info.st_size, 40);
  assert_ok(unroll_event_file_scalar(f, "kept", 4, 2, &err));
  size_t size;
  unsigned char *bytes = close_events(f, &size);
  struct span rest = after_version(bytes, size);
  assert_true(float_of(field(take_value(&rest, "kept", 4), 2)) == 2);
  assert_int_equal(rest.n, 0);
  free(bytes);
}

static void every_allocation_fails_once(void **state) {
  (void)state;
  const double values[] = {1, 2, (double)NAN};
  for (long n = 1;; n++) {
    assert_in_range(n, 1, 100);
    struct counting c = {.fail_at = n};
    const unroll_allocator a = counting_allocator(&c);
    unroll_event_file *f = NULL;
    unroll_error err = UNROLL_ERROR_INIT;
    unroll_status status = unroll_event_file_create(folder, &at_one, &a, &f, &err);
    if (status == UNROLL_OK)
      status = unroll_event_file_histogram(f, "h", 1, UNROLL_F64, values, 3, NULL, &err);
    if (status == UNROLL_OK)
      status = unroll_event_file_text(f, "t", 1, "text", &err);
    size_t size = 0;
    if (f != NULL) {
      unsigned char *bytes = (unsigned char *)get_file(unroll_event_file_path(f), &size);
      struct span rest = after_version(bytes, size);
      while (rest.n > 0)
        take_record(&rest);
      free(bytes);
      assert_int_equal(unroll_event_file_close(f, &err), UNROLL_OK);
    }
    assert_int_equal(c.live, 0);
    assert_int_equal(folder_entries(1), f != NULL);
    if (status == UNROLL_OK)
      return;
    assert_int_equal(status, UNROLL_E_MEMORY);
  }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make_folder, remove_folder)

int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(published_checksums),
      TEST(golden_records),
      TEST(a_restart),
      TEST(scalars),
      TEST(texts),
      TEST(histograms),
      TEST(values_on_edges),
      TEST(values_that_are_not_finite),
      TEST(extreme_ranges),
      TEST(files_of_their_own),
      TEST(folders_are_made),
      TEST(mistakes),
      TEST(full_disk),
      TEST(every_allocation_fails_once),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
