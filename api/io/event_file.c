/* SPDX-License-Identifier: Apache-2.0 */
/* Event files: protocol buffers in TFRecords, collected and written whole. */
#include <unroll/event_file.h>

#include <errno.h>
#include <fcntl.h>
#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "data/utf8.h"
#include "io/crc32c.h"
#include "io/file.h"

#define FLUSH_BYTES 65536u
#define FLUSH_SECONDS 2.0
#define NAME_TRIES 1000
#define TAG_MOST 1024
#define HOST_SIZE 65
#define BUCKETS 64
#define RECORD_HEAD 12u /* a length of 8 bytes and its checksum */

struct unroll_event_file {
  unroll_allocator allocator;
  double (*now)(void *ctx);
  void *ctx;
  char *path;
  int fd;
  off_t whole;        /* bytes of the file that are whole records */
  struct text queued; /* records, not written yet */
  uint64_t events;    /* in queued */
  double written_at;  /* seconds of a clock that only goes forward */
};

/* ---- protocol buffers: a message is a struct text, which holds any bytes ---- */

enum { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_32 = 5 };

static void put_varint(struct text *m, uint64_t value) {
  char bytes[10];
  size_t n = 0;
  for (; value >= 128; value >>= 7)
    bytes[n++] = (char)((value & 127) | 128);
  bytes[n++] = (char)value;
  text_add_bytes(m, bytes, n);
}
static void put_key(struct text *m, unsigned field, unsigned wire) { put_varint(m, field << 3 | wire); }
static void put_integer(struct text *m, unsigned field, int64_t value) {
  if (value == 0) /* the standard, which is not written */
    return;
  put_key(m, field, WIRE_VARINT);
  put_varint(m, (uint64_t)value);
}
static void put_double(struct text *m, unsigned field, double value) {
  put_key(m, field, WIRE_64);
  text_add_bytes(m, (const char *)&value, sizeof value);
}
static void put_float(struct text *m, unsigned field, float value) {
  put_key(m, field, WIRE_32);
  text_add_bytes(m, (const char *)&value, sizeof value);
}
static void put_bytes(struct text *m, unsigned field, const void *bytes, uint64_t n) {
  put_key(m, field, WIRE_BYTES);
  put_varint(m, n);
  text_add_bytes(m, bytes, n);
}
static void put_string(struct text *m, unsigned field, const char *string) {
  put_bytes(m, field, string, strlen(string));
}
/* Takes the inner message. */
static void put_message(struct text *m, unsigned field, struct text *inner) {
  put_bytes(m, field, text_peek(inner), inner->size);
  m->failed = m->failed || inner->failed;
  text_free(inner);
}

/* ---- writing ---- */

static unroll_status fail_errno(const unroll_event_file *f, const char *doing, int error, unroll_error *err) {
  return fail_native(err, UNROLL_E_IO, error, "%s: %s: %s", SHOWN_PATH(f->path), doing, strerror(error));
}

static double seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static bool write_all(int fd, const char *data, uint64_t n) {
  while (n > 0) {
    const ssize_t k = write(fd, data, n);
    if (k < 0 && errno == EINTR)
      continue;
    if (k <= 0) {
      errno = k == 0 ? EIO : errno;
      return false;
    }
    data += k;
    n -= (uint64_t)k;
  }
  return true;
}

unroll_status unroll_event_file_flush(unroll_event_file *f, unroll_error *err) {
  if (f == NULL)
    return fail(err, UNROLL_E_INVALID, "unroll_event_file_flush: file is NULL");
  if (f->queued.size == 0)
    return UNROLL_OK;
  unroll_status status = UNROLL_OK;
  if (write_all(f->fd, f->queued.data, f->queued.size))
    f->whole += (off_t)f->queued.size;
  else {
    const int error = errno;
    status = fail_native(err, UNROLL_E_IO, error, "%s: writing %" PRIu64 " events, which are lost: %s",
                         SHOWN_PATH(f->path), f->events, strerror(error));
    /* Half a record would end what a reader believes: the rest of the file would be lost with it. */
    if (ftruncate(f->fd, f->whole) != 0 || lseek(f->fd, f->whole, SEEK_SET) < 0)
      status = fail_errno(f, "cutting off half a record", errno, err);
  }
  f->queued.size = 0;
  f->events = 0;
  f->written_at = seconds();
  return status;
}

static void put_u32(char *to, uint32_t value) { memcpy(to, &value, sizeof value); }

/* Takes the event: queues its record, and writes where it is time to. */
static unroll_status add_record(unroll_event_file *f, struct text *event, unroll_error *err) {
  char head[RECORD_HEAD], tail[4];
  const uint64_t n = event->size, before = f->queued.size;
  memcpy(head, &n, sizeof n);
  put_u32(head + 8, crc32c_masked(head, 8));
  put_u32(tail, crc32c_masked(text_peek(event), n));
  text_add_bytes(&f->queued, head, sizeof head);
  text_add_bytes(&f->queued, text_peek(event), n);
  text_add_bytes(&f->queued, tail, sizeof tail);
  const bool failed = f->queued.failed || event->failed;
  text_free(event);
  if (failed) {
    f->queued.size = before;
    f->queued.failed = false;
    return fail(err, UNROLL_E_MEMORY, "%s: no memory for an event", SHOWN_PATH(f->path));
  }
  f->events++;
  if (f->queued.size < FLUSH_BYTES && seconds() - f->written_at < FLUSH_SECONDS)
    return UNROLL_OK;
  return unroll_event_file_flush(f, err);
}

/* ---- events ---- */

static void begin_event(unroll_event_file *f, int64_t step, struct text *event) {
  text_init(event, &f->allocator);
  put_double(event, 1, f->now(f->ctx));
  put_integer(event, 2, step);
}

static unroll_status check_tag(const unroll_event_file *f, const char *what, const char *tag, unroll_error *err) {
  if (f == NULL || tag == NULL)
    return fail(err, UNROLL_E_INVALID, "unroll_event_file_%s: %s is NULL", what, f == NULL ? "file" : "tag");
  const size_t n = strlen(tag);
  if (n == 0 || n > TAG_MOST)
    return fail(err, UNROLL_E_INVALID, "%s: a tag of %zu bytes, it must have 1 to %d", SHOWN_PATH(f->path), n,
                TAG_MOST);
  const size_t bad = utf8_check(tag, n);
  if (bad < n)
    return fail(err, UNROLL_E_INVALID, "%s: tag %s is not UTF-8 at byte %zu", SHOWN_PATH(f->path), SHOWN(tag, n), bad);
  return UNROLL_OK;
}

static void begin_value(unroll_event_file *f, const char *tag, struct text *value) {
  text_init(value, &f->allocator);
  put_string(value, 1, tag);
}

static unroll_status add_value(unroll_event_file *f, int64_t step, struct text *value, unroll_error *err) {
  struct text event, summary;
  begin_event(f, step, &event);
  text_init(&summary, &f->allocator);
  put_message(&summary, 1, value);
  put_message(&event, 5, &summary);
  return add_record(f, &event, err);
}

static float to_float(double x) {
  return x > (double)FLT_MAX    ? (x - (double)FLT_MAX < 0x1p103 ? FLT_MAX : INFINITY)
         : x < (double)-FLT_MAX ? ((double)-FLT_MAX - x < 0x1p103 ? -FLT_MAX : -INFINITY)
                                : (float)x;
}

unroll_status unroll_event_file_scalar(unroll_event_file *f, const char *tag, int64_t step, double x,
                                       unroll_error *err) {
  TRY(check_tag(f, "scalar", tag, err));
  struct text value;
  begin_value(f, tag, &value);
  put_float(&value, 2, to_float(x));
  return add_value(f, step, &value, err);
}

unroll_status unroll_event_file_text(unroll_event_file *f, const char *tag, int64_t step, const char *string,
                                     unroll_error *err) {
  enum { DT_STRING = 7 };
  TRY(check_tag(f, "text", tag, err));
  if (string == NULL)
    return fail(err, UNROLL_E_INVALID, "%s: text %s is NULL", SHOWN_PATH(f->path), SHOWN(tag, strlen(tag)));
  const size_t n = strlen(string), bad = utf8_check(string, n);
  if (bad < n)
    return fail(err, UNROLL_E_INVALID, "%s: text %s is not UTF-8 at byte %zu", SHOWN_PATH(f->path),
                SHOWN(tag, strlen(tag)), bad);
  struct text value, tensor, shape, dim, metadata, plugin;
  begin_value(f, tag, &value);
  text_init(&tensor, &f->allocator);
  text_init(&shape, &f->allocator);
  text_init(&dim, &f->allocator);
  text_init(&metadata, &f->allocator);
  text_init(&plugin, &f->allocator);
  put_integer(&dim, 1, 1);
  put_message(&shape, 2, &dim);
  put_integer(&tensor, 1, DT_STRING);
  put_message(&tensor, 2, &shape);
  put_string(&tensor, 8, string);
  put_message(&value, 8, &tensor);
  put_string(&plugin, 1, "text");
  put_message(&metadata, 1, &plugin);
  put_message(&value, 9, &metadata);
  return add_value(f, step, &value, err);
}

/* ---- histograms ---- */

static double value_at(int32_t dtype, const void *values, uint64_t i) {
  return dtype == UNROLL_F32 ? (double)((const float *)values)[i] : ((const double *)values)[i];
}

static unroll_event_histogram look_through(int32_t dtype, const void *values, uint64_t n, double *sum,
                                           double *squares) {
  unroll_event_histogram h = {.struct_size = sizeof h, .least = INFINITY, .greatest = -INFINITY};
  *sum = *squares = 0;
  for (uint64_t i = 0; i < n; i++) {
    const double x = value_at(dtype, values, i);
    if (isnan(x))
      h.nans++;
    else if (isinf(x))
      *(x > 0 ? &h.infinities : &h.negative_infinities) += 1;
    else {
      h.finite++;
      h.least = fmin(h.least, x);
      h.greatest = fmax(h.greatest, x);
      h.mean += (x - h.mean) / (double)h.finite;
      *sum += x;
      *squares += x * x;
    }
  }
  if (h.finite == 0)
    h.least = h.greatest = h.mean = (double)NAN;
  return h;
}

/* Too near to each other for 64 edges between them? */
static bool is_narrow(const unroll_event_histogram *h) {
  const double size = fmax(fabs(h->least), fabs(h->greatest));
  return h->greatest / 2 - h->least / 2 < 4 * BUCKETS * fmax(size * DBL_EPSILON, DBL_MIN);
}

/* No difference of two doubles here, which may be infinite. */
static double edge(const unroll_event_histogram *h, int k) {
  const double share = (double)k / BUCKETS;
  return h->least * (1 - share) + h->greatest * share;
}

static int bucket_of(const unroll_event_histogram *h, double x) {
  const double place = (x / 2 - h->least / 2) / (h->greatest / 2 - h->least / 2) * BUCKETS;
  int k = place >= BUCKETS ? BUCKETS - 1 : place > 0 ? (int)place : 0;
  /* as the edges are written, whatever the division was rounded to */
  while (k > 0 && x < edge(h, k))
    k--;
  while (k < BUCKETS - 1 && x >= edge(h, k + 1))
    k++;
  return k;
}

static void put_histogram(unroll_event_file *f, struct text *value, int32_t dtype, const void *values, uint64_t n,
                          const unroll_event_histogram *h, double sum, double squares) {
  double edges[BUCKETS], counts[BUCKETS] = {0};
  const int buckets = is_narrow(h) ? 1 : BUCKETS;
  for (int k = 0; k < buckets; k++)
    edges[k] = buckets == 1 ? h->greatest : edge(h, k + 1);
  for (uint64_t i = 0; i < n; i++) {
    const double x = value_at(dtype, values, i);
    if (isfinite(x))
      counts[buckets == 1 ? 0 : bucket_of(h, x)]++;
  }
  struct text histogram;
  text_init(&histogram, &f->allocator);
  put_double(&histogram, 1, h->least);
  put_double(&histogram, 2, h->greatest);
  put_double(&histogram, 3, (double)h->finite);
  put_double(&histogram, 4, sum);
  put_double(&histogram, 5, squares);
  put_bytes(&histogram, 6, edges, (uint64_t)buckets * sizeof edges[0]);
  put_bytes(&histogram, 7, counts, (uint64_t)buckets * sizeof counts[0]);
  put_message(value, 5, &histogram);
}

unroll_status unroll_event_file_histogram(unroll_event_file *f, const char *tag, int64_t step, int32_t dtype,
                                          const void *values, uint64_t n, unroll_event_histogram *found,
                                          unroll_error *err) {
  TRY(check_tag(f, "histogram", tag, err));
  if (dtype != UNROLL_F32 && dtype != UNROLL_F64)
    return fail(err, UNROLL_E_DTYPE, "%s: histogram %s of %s, it can be of f32 and f64", SHOWN_PATH(f->path),
                SHOWN(tag, strlen(tag)), unroll_dtype_name(dtype));
  if (values == NULL || n == 0)
    return fail(err, UNROLL_E_INVALID, "%s: histogram %s of no values", SHOWN_PATH(f->path), SHOWN(tag, strlen(tag)));
  double sum, squares;
  const unroll_event_histogram h = look_through(dtype, values, n, &sum, &squares);
  if (found != NULL)
    memcpy(found, &h, found->struct_size < sizeof h ? found->struct_size : sizeof h);
  struct text value;
  unroll_status status = UNROLL_OK;
  if (h.finite > 0) {
    begin_value(f, tag, &value);
    put_histogram(f, &value, dtype, values, n, &h, sum, squares);
    status = add_value(f, step, &value, err);
  }
  if (status != UNROLL_OK || h.finite == n)
    return status;
  struct text name;
  text_init(&name, &f->allocator);
  text_add(&name, "%s/nonfinite", tag);
  begin_value(f, text_peek(&name), &value);
  value.failed = value.failed || name.failed;
  text_free(&name);
  put_float(&value, 2, (float)(n - h.finite));
  return add_value(f, step, &value, err);
}

/* ---- from start to end ---- */

static double system_time(void *ctx) {
  (void)ctx;
  struct timespec t;
  clock_gettime(CLOCK_REALTIME, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Every folder of the path that is not there. path is changed, and changed back. */
static bool make_folders(char *path) {
  for (char *p = path + 1; *p; p++) {
    if (*p != '/' || p[-1] == '/')
      continue;
    *p = '\0';
    const bool made = mkdir(path, 0777) == 0 || errno == EEXIST;
    *p = '/';
    if (!made)
      return false;
  }
  return mkdir(path, 0777) == 0 || errno == EEXIST;
}

static void host_name(char host[HOST_SIZE]) {
  if (gethostname(host, HOST_SIZE) != 0 || !host[0])
    strcpy(host, "localhost");
  host[HOST_SIZE - 1] = '\0';
  for (char *p = host; *p; p++)
    if (!(*p >= 'a' && *p <= 'z') && !(*p >= 'A' && *p <= 'Z') && !(*p >= '0' && *p <= '9') && *p != '-')
      *p = '_';
}

static unroll_status open_file(unroll_event_file *f, const char *folder, unroll_error *err) {
  char host[HOST_SIZE];
  host_name(host);
  const double now = f->now(f->ctx);
  const int64_t start = now >= 0 && now < 1e15 ? (int64_t)now : 0;
  for (int i = 0; i < NAME_TRIES; i++) {
    mem_free(&f->allocator, f->path);
    f->path = mem_printf(&f->allocator, "%s/events.out.tfevents.%010" PRId64 ".%s.%ld.%d", folder, start, host,
                         (long)getpid(), i);
    if (f->path == NULL)
      return fail(err, UNROLL_E_MEMORY, "%s: no memory to open an event file in it", SHOWN_PATH(folder));
    f->fd = open(f->path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (f->fd >= 0)
      return UNROLL_OK;
    if (errno != EEXIST)
      break;
  }
  return fail_errno(f, "making it", errno, err);
}

static unroll_status add_restart(unroll_event_file *f, int64_t step, unroll_error *err) {
  enum { START = 1 };
  struct text event, log;
  begin_event(f, step, &event);
  text_init(&log, &f->allocator);
  put_integer(&log, 1, START);
  put_message(&event, 7, &log);
  return add_record(f, &event, err);
}

static unroll_status begin(unroll_event_file *f, const char *folder, int64_t restart, unroll_error *err) {
  char *path = mem_strdup(&f->allocator, folder);
  if (path == NULL)
    return fail(err, UNROLL_E_MEMORY, "%s: no memory to open an event file in it", SHOWN_PATH(folder));
  const bool made = make_folders(path);
  const int error = errno;
  mem_free(&f->allocator, path);
  if (!made)
    return fail_native(err, UNROLL_E_IO, error, "%s: making the folder: %s", SHOWN_PATH(folder), strerror(error));
  TRY(open_file(f, folder, err));
  struct text event;
  begin_event(f, 0, &event);
  put_string(&event, 3, "brain.Event:2");
  TRY(add_record(f, &event, err));
  if (restart > 0)
    TRY(add_restart(f, restart, err));
  return unroll_event_file_flush(f, err);
}

static void end(unroll_event_file *f) {
  const unroll_allocator a = f->allocator;
  if (f->fd >= 0)
    close(f->fd);
  text_free(&f->queued);
  mem_free(&a, f->path);
  mem_free(&a, f);
}

unroll_status unroll_event_file_create(const char *folder, const unroll_event_file_options *options,
                                       const unroll_allocator *allocator, unroll_event_file **file, unroll_error *err) {
  if (folder == NULL || file == NULL || !folder[0])
    return fail(err, UNROLL_E_INVALID, "unroll_event_file_create: %s",
                file == NULL     ? "file is NULL"
                : folder == NULL ? "folder is NULL"
                                 : "folder is empty");
  if (options != NULL && !UNROLL_HAS(unroll_event_file_options, options, ctx))
    return fail(err, UNROLL_E_INVALID, "unroll_event_file_options: struct_size %u, it must be at least %zu",
                options->struct_size, UNROLL_SIZE_TO(unroll_event_file_options, ctx));
  unroll_event_file *f = mem_zalloc(allocator, sizeof *f);
  if (f == NULL)
    return fail(err, UNROLL_E_MEMORY, "%s: no memory to open an event file in it", SHOWN_PATH(folder));
  if (allocator != NULL)
    f->allocator = *allocator;
  f->now = options != NULL && options->now != NULL ? options->now : system_time;
  f->ctx = options != NULL ? options->ctx : NULL;
  f->fd = -1;
  text_init(&f->queued, &f->allocator);
  f->written_at = seconds();
  const bool can_restart = options != NULL && UNROLL_HAS(unroll_event_file_options, options, restart);
  const unroll_status status = begin(f, folder, can_restart ? options->restart : 0, err);
  if (status == UNROLL_OK) {
    *file = f;
    return UNROLL_OK;
  }
  if (f->fd >= 0)
    unlink(f->path);
  end(f);
  return status;
}

const char *unroll_event_file_path(const unroll_event_file *f) { return f == NULL ? "" : f->path; }

unroll_status unroll_event_file_close(unroll_event_file *f, unroll_error *err) {
  if (f == NULL)
    return UNROLL_OK;
  unroll_status status = unroll_event_file_flush(f, err);
  const int fd = f->fd;
  f->fd = -1;
  if (close(fd) != 0 && status == UNROLL_OK)
    status = fail_errno(f, "closing it", errno, err);
  end(f);
  return status;
}
