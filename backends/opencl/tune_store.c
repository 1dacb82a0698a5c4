/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tune_store.c: where answers are kept: in memory, in a file beside the built programs, and in the table that ships,
 * tuning.txt.
 *
 * The file is text. Its head says what the answers depend on; a file with another head is as good as none. Each line after
 * the empty one is an answer, and whatever does not look like one is skipped. It is written under another name and renamed;
 * of two processes that write at once both leave whole files, and one line may have to be measured again.
 */
#include "kernel_sources.h"
#include "tune.h"
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILE_MAX = 1 << 20, LINES_MAX = 4096 };
static const char arrow[] = " -> ";

/* ---- lists ---- */
static tune_line *find(const tune_lines *lines, const char *key, size_t n) {
  for (uint32_t i = 0; i < lines->n; i++)
    if (strncmp(lines->lines[i].key, key, n) == 0 && lines->lines[i].key[n] == 0)
      return &lines->lines[i];
  return NULL;
}

const tune_line *tune_find(const tune_lines *lines, const char *key) { return find(lines, key, strlen(key)); }

static char *copy_part(const unroll_host *host, const char *text, size_t n) {
  char *copy = opencl_alloc(host, n + 1, 1);
  return copy ? memcpy(copy, text, n) : NULL;
}

/* A line takes the place of one with its key, but never of a fresh one. Without memory it is not kept. */
static void add(const unroll_host *host, tune_lines *lines, const char *key, size_t n_key, const char *value,
                size_t n_value, bool fresh) {
  tune_line *old = find(lines, key, n_key);
  if (old && old->fresh && !fresh)
    return;
  if (!old && lines->n == lines->room) {
    if (lines->n >= LINES_MAX)
      return;
    const uint32_t room = lines->room ? 2 * lines->room : 32;
    tune_line *more = opencl_alloc(host, room, sizeof *more);
    if (!more)
      return;
    if (lines->n)
      memcpy(more, lines->lines, lines->n * sizeof *more);
    opencl_free(host, lines->lines);
    lines->lines = more;
    lines->room = room;
  }
  tune_line line = {copy_part(host, key, n_key), copy_part(host, value, n_value), fresh};
  if (!line.key || !line.value) {
    opencl_free(host, line.key);
    opencl_free(host, line.value);
    return;
  }
  if (old) {
    opencl_free(host, old->key);
    opencl_free(host, old->value);
    *old = line;
  } else
    lines->lines[lines->n++] = line;
}

static void free_lines(const unroll_host *host, tune_lines *lines) {
  for (uint32_t i = 0; i < lines->n; i++) {
    opencl_free(host, lines->lines[i].key);
    opencl_free(host, lines->lines[i].value);
  }
  opencl_free(host, lines->lines);
}

static bool printable(const char *text, size_t n) {
  for (size_t i = 0; i < n; i++)
    if (text[i] < ' ' || text[i] > '~')
      return false;
  return true;
}

/* A line without its end. */
static void add_line(const unroll_host *host, tune_lines *lines, const char *line, size_t n) {
  const size_t n_arrow = sizeof arrow - 1;
  const char *at = n < 2 * TUNE_LINE && printable(line, n) ? memmem(line, n, arrow, n_arrow) : NULL;
  if (!at)
    return;
  const size_t n_key = (size_t)(at - line), n_value = n - n_key - n_arrow;
  if (n_key > 0 && n_key < TUNE_LINE && n_value > 0 && n_value < TUNE_LINE)
    add(host, lines, line, n_key, at + n_arrow, n_value, false);
}

bool tune_number(const char **text, const char *name, size_t digits, int64_t *number) {
  const size_t n_name = strlen(name);
  if (strncmp(*text, name, n_name) != 0)
    return false;
  const char *first = *text + n_name;
  const size_t n = strspn(first, "0123456789");
  if (n == 0 || n > digits)
    return false;
  *number = strtoll(first, NULL, 10);
  *text = first + n;
  return true;
}

/* ---- the file ---- */
static char *read_text(const unroll_host *host, const char *path) {
  const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  struct stat s;
  char *text = NULL;
  if (fd < 0)
    return NULL;
  if (fstat(fd, &s) == 0 && S_ISREG(s.st_mode) && s.st_size > 0 && s.st_size <= FILE_MAX)
    text = opencl_alloc(host, (size_t)s.st_size + 1, 1);
  for (size_t got = 0; text && got < (size_t)s.st_size;) {
    const ssize_t n = read(fd, text + got, (size_t)s.st_size - got);
    if (n < 0 && errno == EINTR)
      continue;
    if (n <= 0)
      break; /* what was cut off meanwhile is no line */
    got += (size_t)n;
  }
  close(fd);
  return text;
}

static void read_lines(unroll_backend_device *d) {
  struct tuning *t = d->tuning;
  char *text = t->path && t->head ? read_text(d->host, t->path) : NULL;
  const size_t n_head = t->head ? strlen(t->head) : 0;
  if (text && strncmp(text, t->head, n_head) == 0)
    for (const char *line = text + n_head, *end; (end = strchr(line, '\n')); line = end + 1)
      add_line(d->host, &t->kept, line, (size_t)(end - line));
  else if (text)
    opencl_log(d->host, UNROLL_LOG_DEBUG, "opencl: %s is of something else: not used", t->path);
  opencl_free(d->host, text);
}

static void write_lines(unroll_backend_device *d) {
  const struct tuning *t = d->tuning;
  if (!t->path)
    return;
  const size_t room = strlen(t->path) + 16;
  char *other = opencl_alloc(d->host, room, 1);
  if (!other)
    return;
  snprintf(other, room, "%s.XXXXXX", t->path);
  const int fd = mkstemp(other);
  FILE *f = fd >= 0 ? fdopen(fd, "w") : NULL;
  bool written = f != NULL;
  if (f) {
    written = fputs(t->head, f) >= 0;
    for (uint32_t i = 0; i < t->kept.n && written; i++)
      written = fprintf(f, "%s%s%s\n", t->kept.lines[i].key, arrow, t->kept.lines[i].value) > 0;
    written = fclose(f) == 0 && written;
    written = written && rename(other, t->path) == 0;
  }
  if (!written)
    opencl_log(d->host, UNROLL_LOG_DEBUG, "opencl: %s: not written: %s", t->path, strerror(errno));
  if (fd >= 0 && !f)
    close(fd);
  if (fd >= 0 && !written)
    unlink(other);
  opencl_free(d->host, other);
}

void tune_put(unroll_backend_device *d, const char *key, const char *value) {
  add(d->host, &d->tuning->kept, key, strlen(key), value, strlen(value), true);
  read_lines(d);
  write_lines(d);
}

void tune_say(unroll_backend_device *d, int32_t level, const char *how, const char *key, const char *value) {
  opencl_log(d->host, level, "opencl: tuning (%s): %s%s%s", how, key, arrow, value);
}

/* ---- what it depends on ---- */
/* Sections of the table begin with "device PATTERN cores=N lanes=N"; this one's is the first that fits. */
static void read_shipped(unroll_backend_device *d) {
  const char *text = NULL;
  bool fits = false;
  for (size_t i = 0; i < kernel_sources_count; i++)
    if (strcmp(kernel_sources[i].name, "tuning.txt") == 0)
      text = (const char *)kernel_sources[i].data;
  for (const char *line = text, *end; line && (end = strchr(line, '\n')); line = end + 1) {
    char section[TUNE_LINE] = "";
    const size_t n = (size_t)(end - line);
    if (strncmp(line, "device ", 7) != 0) {
      if (fits && *line != '#')
        add_line(d->host, &d->tuning->shipped, line, n);
      continue;
    }
    if (fits)
      break;
    memcpy(section, line, n < sizeof section ? n : 0);
    char *sizes = strstr(section, " cores=");
    const char *at = sizes;
    int64_t cores, lanes;
    if (!at || !tune_number(&at, " cores=", TUNE_SIZE_DIGITS, &cores) ||
        !tune_number(&at, " lanes=", TUNE_SIZE_DIGITS, &lanes))
      continue;
    *sizes = 0;
    fits = cores == d->cores && lanes == (int64_t)d->width32 && fnmatch(section + 7, d->entry->name, 0) == 0;
  }
}

/* The head of the file, and its name from that. */
static void name_file(unroll_backend_device *d) {
  struct tuning *t = d->tuning;
  uint64_t sources = 0;
  char *key = program_device_key(d, &sources);
  const size_t room = key ? strlen(key) + 160 : 0, path_room = strlen(d->cache) + 64;
  t->head = key ? opencl_alloc(d->host, room, 1) : NULL;
  t->path = t->head ? opencl_alloc(d->host, path_room, 1) : NULL;
  if (t->path) {
    snprintf(t->head, room, "unroll tuning 1\n%scores %lld, lanes %u, kernels of a %s, sources %016llx\n\n", key,
             (long long)d->cores, d->width32, d->cpu ? "cpu" : "gpu", (unsigned long long)sources);
    snprintf(t->path, path_room, "%s/tune-%016llx.txt", d->cache,
             (unsigned long long)program_hash(t->head, strlen(t->head)));
  }
  opencl_free(d->host, key);
}

void tune_load(unroll_backend_device *d) {
  struct tuning *t = d->tuning;
  if (t->loaded)
    return;
  t->loaded = true;
  opencl_log(d->host, UNROLL_LOG_DEBUG, "opencl: tuning (device): device %s cores=%lld lanes=%u", d->entry->name,
             (long long)d->cores, d->width32);
  read_shipped(d);
  if (d->tune == TUNE_OFF || !d->cache)
    return;
  name_file(d);
  read_lines(d);
}

unroll_status tune_open(unroll_backend_device *d, unroll_error *err) {
  d->tuning = opencl_alloc(d->host, 1, sizeof *d->tuning);
  if (d->tuning && pthread_mutex_init(&d->tuning->lock, NULL) == 0)
    return UNROLL_OK;
  opencl_free(d->host, d->tuning);
  d->tuning = NULL;
  return opencl_fail(err, UNROLL_E_MEMORY, 0, "opencl: no memory for device %s", d->entry->id);
}

void tune_close(unroll_backend_device *d) {
  if (!d->tuning)
    return;
  free_lines(d->host, &d->tuning->kept);
  free_lines(d->host, &d->tuning->shipped);
  opencl_free(d->host, d->tuning->path);
  opencl_free(d->host, d->tuning->head);
  pthread_mutex_destroy(&d->tuning->lock);
  opencl_free(d->host, d->tuning);
}
