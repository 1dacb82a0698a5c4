/* SPDX-License-Identifier: Apache-2.0 */
/* The trace's file. Plain write(2): a child that is forked meanwhile and ends by exit() must not write a buffer twice. */
#include "plugins/wrap_trace.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { BUFFER = 1 << 16, NAME_MAX_BYTES = 240, END_ROOM = 8, THREADS_MAX = 256 };

struct trace_file {
  unroll_allocator allocator;
  unroll_logger logger;
  pthread_mutex_t mutex; /* of all that follows */
  int fd, failed;        /* failed: errno of the first write that did */
  char *path, *temporary;
  pid_t pid;
  size_t used;
  bool empty;
  uint32_t n_processes;
  uint32_t threads[THREADS_MAX], n_threads; /* that have their name; more of them have it written at each call */
  char buffer[BUFFER];
};

/* ---- events ---- */
static void add(struct trace_event *e, const char *format, ...) PRINTF_LIKE(2, 3);
static void add(struct trace_event *e, const char *format, ...) {
  va_list list;
  va_start(list, format);
  const int n = vsnprintf(e->text + e->n, sizeof e->text - e->n, format, list);
  va_end(list);
  e->n += n > 0 && (size_t)n < sizeof e->text - e->n ? (size_t)n : 0;
}

/* How many bytes the UTF-8 character at s has; 0 where there is none. */
static size_t character(const unsigned char *s) {
  const size_t n = s[0] < 0x80 ? 1 : s[0] < 0xC2 ? 0 : s[0] < 0xE0 ? 2 : s[0] < 0xF0 ? 3 : s[0] < 0xF5 ? 4 : 0;
  for (size_t i = 1; i < n; i++) {
    if ((s[i] & 0xC0) != 0x80) {
      return 0;
    }
  }
  const bool overlong = (s[0] == 0xE0 && s[1] < 0xA0) || (s[0] == 0xF0 && s[1] < 0x90);
  const bool no_character = (s[0] == 0xED && s[1] > 0x9F) || (s[0] == 0xF4 && s[1] > 0x8F);
  return overlong || no_character ? 0 : n;
}

/* A string of JSON; what is no UTF-8 becomes U+FFFD, a long one is cut. */
static void add_string(struct trace_event *e, const char *s) {
  const unsigned char *at = (const unsigned char *)s;
  add(e, "\"");
  for (size_t taken = 0; *at && taken < NAME_MAX_BYTES;) {
    const size_t n = character(at);
    if (*at == '"' || *at == '\\') {
      add(e, "\\%c", *at);
    } else if (*at < 0x20) {
      add(e, "\\u%04x", *at);
    } else if (n == 0) {
      add(e, "\\ufffd");
    } else {
      add(e, "%.*s", (int)n, (const char *)at);
    }
    taken += n ? n : 1;
    at += n ? n : 1;
  }
  add(e, "\"");
}

void trace_event_begin(struct trace_event *e, char phase, const char *name, uint32_t process, uint32_t thread,
                       uint64_t begin_ns, uint64_t end_ns) {
  e->n = 0;
  e->n_args = 0;
  add(e, "{\"ph\":\"%c\",\"pid\":%u,\"tid\":%u,", phase, process, thread);
  if (phase == 'X') {
    const uint64_t took = end_ns > begin_ns ? end_ns - begin_ns : 0;
    add(e, "\"ts\":%" PRIu64 ".%03" PRIu64 ",\"dur\":%" PRIu64 ".%03" PRIu64 ",", begin_ns / 1000, begin_ns % 1000,
        took / 1000, took % 1000);
  }
  add(e, "\"name\":");
  add_string(e, name);
  add(e, ",\"args\":{");
}

static void add_key(struct trace_event *e, const char *key) { add(e, "%s\"%s\":", e->n_args++ ? "," : "", key); }

/* An argument for which there may be no room is left out: names take up to six times their bytes. */
static bool has_room(const struct trace_event *e, size_t bytes) { return sizeof e->text - e->n > bytes + END_ROOM; }

void trace_event_text(struct trace_event *e, const char *key, const char *value) {
  if (value && has_room(e, strlen(key) + 6 * strnlen(value, NAME_MAX_BYTES) + END_ROOM)) {
    add_key(e, key);
    add_string(e, value);
  }
}

void trace_event_number(struct trace_event *e, const char *key, int64_t value) {
  if (has_room(e, strlen(key) + 32)) {
    add_key(e, key);
    add(e, "%" PRId64, value);
  }
}

/* ---- the file. The mutex is held ---- */
static void flush(struct trace_file *f) {
  for (size_t at = 0; at < f->used && !f->failed;) {
    const ssize_t n = write(f->fd, f->buffer + at, f->used - at);
    if (n >= 0) {
      at += (size_t)n;
    } else if (errno != EINTR) {
      f->failed = errno;
      log_message(&f->logger, UNROLL_LOG_ERROR, "trace: %s: %s; nothing more is written", f->temporary,
                  strerror(f->failed));
    }
  }
  f->used = 0;
}

static void put(struct trace_file *f, const char *text, size_t n) {
  if (f->used + n > sizeof f->buffer) {
    flush(f);
  }
  memcpy(f->buffer + f->used, text, n);
  f->used += n;
}

void trace_event_write(struct trace_event *e, struct trace_file *f) {
  add(e, "}}");
  pthread_mutex_lock(&f->mutex);
  put(f, f->empty ? "[\n" : ",\n", 2);
  f->empty = false;
  put(f, e->text, e->n);
  pthread_mutex_unlock(&f->mutex);
}

void trace_file_name(struct trace_file *f, const char *what, uint32_t process, uint32_t thread, const char *name) {
  struct trace_event e;
  trace_event_begin(&e, 'M', what, process, thread, 0, 0);
  trace_event_text(&e, "name", name);
  trace_event_write(&e, f);
}

uint32_t trace_file_process(struct trace_file *f) {
  pthread_mutex_lock(&f->mutex);
  const uint32_t process = ++f->n_processes;
  pthread_mutex_unlock(&f->mutex);
  return process;
}

uint32_t trace_file_thread(struct trace_file *f) {
  const uint32_t thread = (uint32_t)gettid();
  pthread_mutex_lock(&f->mutex);
  bool known = false;
  for (uint32_t i = 0; i < f->n_threads && !known; i++) {
    known = f->threads[i] == thread;
  }
  if (!known && f->n_threads < THREADS_MAX) {
    f->threads[f->n_threads++] = thread;
  }
  pthread_mutex_unlock(&f->mutex);
  if (!known) {
    char own[32] = "", name[64];
    (void)pthread_getname_np(pthread_self(), own, sizeof own);
    (void)snprintf(name, sizeof name, "thread %u (%s)", thread, own);
    trace_file_name(f, "thread_name", 1, thread, name);
  }
  return thread;
}

static void trace_file_free(struct trace_file *f) {
  const unroll_allocator a = f->allocator;
  mem_free(&a, f->path);
  mem_free(&a, f->temporary);
  pthread_mutex_destroy(&f->mutex);
  mem_free(&a, f);
}

unroll_status trace_file_open(const unroll_allocator *a, const unroll_logger *logger, const char *path,
                              struct trace_file **out, unroll_error *err) {
  struct trace_file *f = mem_zalloc(a, sizeof *f);
  if (!f || pthread_mutex_init(&f->mutex, NULL) != 0) {
    mem_free(a, f);
    return fail(err, UNROLL_E_MEMORY, "out of memory for the trace");
  }
  f->allocator = *a;
  f->logger = *logger;
  f->fd = -1;
  f->pid = getpid();
  f->empty = true;
  f->n_processes = 1;
  f->path = mem_strdup(a, path);
  unroll_status status = f->path ? UNROLL_OK : fail(err, UNROLL_E_MEMORY, "out of memory for the trace");
  /* Several registries of a process may write one each; the last to end has the name. */
  for (uint32_t i = 0; i < 100 && status == UNROLL_OK && f->fd < 0; i++) {
    mem_free(a, f->temporary);
    if (!(f->temporary = mem_printf(a, "%s.%ld.%u.tmp", path, (long)f->pid, i))) {
      status = fail(err, UNROLL_E_MEMORY, "out of memory for the trace");
      break;
    }
    f->fd = open(f->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (f->fd < 0 && errno != EEXIST) {
      break;
    }
  }
  if (status == UNROLL_OK && f->fd < 0) {
    status =
        fail_native(err, UNROLL_E_IO, errno, "the trace %s (UNROLL_TRACE) can't be written: %s", path, strerror(errno));
  }
  if (status != UNROLL_OK) {
    trace_file_free(f);
    return status;
  }
  trace_file_name(f, "process_name", 1, 0, "host");
  *out = f;
  return UNROLL_OK;
}

void trace_file_close(struct trace_file *f) {
  if (!f) {
    return;
  }
  const bool mine = f->pid == getpid(); /* a child that was forked has a copy, and no business with the file */
  if (mine) {
    put(f, "\n]\n", 3);
    flush(f);
  }
  if (close(f->fd) != 0 && mine && !f->failed) {
    f->failed = errno;
    log_message(&f->logger, UNROLL_LOG_ERROR, "trace: %s: %s", f->temporary, strerror(f->failed));
  }
  if (mine && !f->failed && rename(f->temporary, f->path) != 0) {
    f->failed = errno;
    log_message(&f->logger, UNROLL_LOG_ERROR, "trace: %s can't be renamed to %s: %s", f->temporary, f->path,
                strerror(f->failed));
  }
  if (mine && f->failed) {
    (void)unlink(f->temporary);
  }
  trace_file_free(f);
}
