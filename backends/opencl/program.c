/* SPDX-License-Identifier: Apache-2.0 */
/*
 * program.c: programs, built once per device and options, kept in memory and on disk.
 *
 * A file of the disk cache holds everything that its binary depends on, in clear text, and is used only where that
 * text is equal; its name is a hash of the same text. Whatever is wrong with a file, the program is built from source
 * instead and the file dropped. A folder that is missing or can't be written is worth a line in the debug log, no
 * more. Files are written under another name and renamed, so a reader finds a whole one or none; what writers that
 * were killed left behind, and the files that were used least lately when there are too many, go when the next is
 * written.
 */
#include "kernel_sources.h"
#include "opencl.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

typedef struct program {
  struct program *next;
  const struct kernel_source *source;
  char *options;
  cl_program program;
} cached_program;

enum { CACHE_FORMAT = 1 };
enum { CACHE_FILE_MAX = 64 << 20, CACHE_MAX = 256 << 20 }; /* bytes, of a file and of all together */
enum { LEFT_BEHIND_S = 60 * 60, TOUCH_S = 24 * 60 * 60 };
static const char cache_magic[8] = "unrollcl";

typedef struct text { /* grows; data is NULL after a failed allocation */
  const unroll_host *host;
  char *data;
  size_t size, room;
  bool failed;
} text;

static void append(text *t, const void *bytes, size_t n) {
  if (t->failed)
    return;
  if (n > t->room - t->size) {
    const size_t room = 2 * t->room + n + 256;
    char *more = opencl_alloc(t->host, room, 1);
    if (!more) {
      t->failed = true;
      return;
    }
    if (t->size)
      memcpy(more, t->data, t->size);
    opencl_free(t->host, t->data);
    t->data = more;
    t->room = room;
  }
  if (n)
    memcpy(t->data + t->size, bytes, n);
  t->size += n;
}

static void append_line(text *t, const char *line) {
  append(t, line, strlen(line));
  append(t, "\n", 1);
}

/* FNV-1a, 64 bits, from a basis of the caller's. */
static uint64_t hash(uint64_t h, const void *bytes, size_t n) {
  const unsigned char *p = bytes;
  for (size_t i = 0; i < n; i++)
    h = (h ^ p[i]) * UINT64_C(0x100000001b3);
  return h;
}
static const uint64_t hash_basis = UINT64_C(0xcbf29ce484222325);

static const struct kernel_source *find_source(const char *name) {
  for (size_t i = 0; i < kernel_sources_count; i++)
    if (strcmp(kernel_sources[i].name, name) == 0)
      return &kernel_sources[i];
  return NULL;
}

/* ---- where and under which name ---- */
char *program_cache_folder(const unroll_host *host, const char *option) {
  const char *base = option, *more = "";
  if (!base)
    base = secure_getenv("UNROLL_CACHE_DIR");
  if (base && strcmp(base, "off") == 0)
    return NULL;
  if (!base || !*base) {
    base = secure_getenv("XDG_CACHE_HOME");
    more = "/unroll";
  }
  if (!base || !*base) {
    base = secure_getenv("HOME");
    more = "/.cache/unroll";
  }
  if (!base || !*base)
    return NULL;
  char *folder = opencl_alloc(host, strlen(base) + strlen(more) + 1, 1);
  if (folder) {
    strcpy(folder, base);
    strcat(folder, more);
  }
  return folder;
}

static void append_info(text *t, cl_platform_id platform, cl_platform_info what) {
  char value[512] = "";
  if (clGetPlatformInfo(platform, what, sizeof value - 1, value, NULL) != CL_SUCCESS)
    value[0] = 0;
  append_line(t, value);
}

static void append_device_info(text *t, cl_device_id device, cl_device_info what) {
  char value[512] = "";
  if (clGetDeviceInfo(device, what, sizeof value - 1, value, NULL) != CL_SUCCESS)
    value[0] = 0;
  append_line(t, value);
}

/* The variables by which drivers change what their compilers make, in alphabetical order. */
static void append_environment(text *t) {
  static const char *const prefixes[] = {"POCL_", "CL_CONFIG_", "IGC_",     "NEO", "AMD_",  "GPU_",
                                         "CUDA_", "RUSTICL_",   "GALLIVM_", "LP_", "MESA_", "OCLGRIND_"};
  const char *last = "", *next;
  do {
    next = NULL;
    for (char **e = environ; e && *e; e++)
      for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++)
        if (strncmp(*e, prefixes[i], strlen(prefixes[i])) == 0 && strcmp(*e, last) > 0 &&
            (!next || strcmp(*e, next) < 0))
          next = *e;
    if (next)
      append_line(t, last = next);
  } while (next);
}

static void append_device(text *t, const unroll_backend_device *d) {
  append_info(t, d->entry->platform, CL_PLATFORM_NAME);
  append_info(t, d->entry->platform, CL_PLATFORM_VERSION);
  append_device_info(t, d->entry->device, CL_DEVICE_NAME);
  append_device_info(t, d->entry->device, CL_DEVICE_VERSION);
  append_device_info(t, d->entry->device, CL_DRIVER_VERSION);
  append_environment(t);
}

uint64_t program_hash(const void *bytes, size_t n) { return hash(hash_basis, bytes, n); }

char *program_device_key(unroll_backend_device *d, uint64_t *sources) {
  text t = {.host = d->host};
  *sources = hash_basis;
  for (size_t i = 0; i < kernel_sources_count; i++)
    if (strstr(kernel_sources[i].name, ".cl"))
      *sources = hash(*sources, kernel_sources[i].data, kernel_sources[i].size);
  append_device(&t, d);
  append(&t, "", 1);
  if (!t.failed)
    return t.data;
  opencl_free(d->host, t.data);
  return NULL;
}

static void append_key(text *t, const unroll_backend_device *d, const text *source, const char *options) {
  char line[128];
  cl_uint vendor = 0;
  if (clGetDeviceInfo(d->entry->device, CL_DEVICE_VENDOR_ID, sizeof vendor, &vendor, NULL) != CL_SUCCESS)
    vendor = 0;
  snprintf(line, sizeof line, "format %d source %zu %016llx vendor %u", CACHE_FORMAT, source->size,
           (unsigned long long)hash(hash_basis, source->data, source->size), vendor);
  append_line(t, line);
  append_line(t, options);
  append_device(t, d);
}

static char *cache_path(const unroll_backend_device *d, const text *key) {
  if (!d->cache || key->failed)
    return NULL;
  const size_t room = strlen(d->cache) + 64;
  char *path = opencl_alloc(d->host, room, 1);
  if (path)
    snprintf(path, room, "%s/cl-%016llx%016llx.bin", d->cache,
             (unsigned long long)hash(hash_basis, key->data, key->size),
             (unsigned long long)hash(~hash_basis, key->data, key->size));
  return path;
}

/* ---- files: magic, size of the key, key, size of the binary, its hash, the binary ---- */
/* NULL where it can't be read; *there: something has that name. */
static unsigned char *read_file(const unroll_host *host, const char *path, size_t *size, bool *there) {
  /* Not blocking: a FIFO by that name must not hold us. */
  const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  *there = fd >= 0;
  if (fd < 0)
    return NULL;
  struct stat s;
  unsigned char *data = NULL;
  if (fstat(fd, &s) == 0 && S_ISREG(s.st_mode) && s.st_size > 0 && s.st_size <= CACHE_FILE_MAX) {
    size_t got = 0;
    ssize_t n = 1;
    *size = (size_t)s.st_size;
    data = opencl_alloc(host, *size, 1);
    while (data && got < *size && (n > 0 || (n < 0 && errno == EINTR)))
      if ((n = read(fd, data + got, *size - got)) > 0)
        got += (size_t)n;
    if (data && got < *size) {
      opencl_free(host, data);
      data = NULL;
    }
    /* The time of the last use, to a day: drop_files goes by it. */
    if (data && time(NULL) - s.st_mtime > TOUCH_S)
      (void)futimens(fd, NULL);
  }
  close(fd);
  return data;
}

/* The binary within a file: NULL unless the file is whole and its key is this one. */
static const unsigned char *find_binary(const unsigned char *file, size_t size, const text *key, size_t *n) {
  uint64_t n_key = 0, head[2] = {0, 0};
  const size_t fixed = sizeof cache_magic + sizeof n_key + sizeof head;
  if (size <= fixed || memcmp(file, cache_magic, sizeof cache_magic) != 0)
    return NULL;
  memcpy(&n_key, file + sizeof cache_magic, sizeof n_key);
  const unsigned char *p = file + sizeof cache_magic + sizeof n_key;
  if (n_key != key->size || n_key >= size - fixed || memcmp(p, key->data, key->size) != 0)
    return NULL;
  p += n_key;
  memcpy(head, p, sizeof head);
  p += sizeof head;
  *n = size - fixed - (size_t)n_key;
  return head[0] == *n && head[1] == hash(hash_basis, p, *n) ? p : NULL;
}

static cl_program build_binary(unroll_backend_device *d, const unsigned char *binary, size_t n, const char *options) {
  cl_int code, status = CL_SUCCESS;
  size_t kernels = 0;
  cl_program program = clCreateProgramWithBinary(d->context, 1, &d->entry->device, &n, &binary, &status, &code);
  if (code != CL_SUCCESS)
    return NULL;
  if (status == CL_SUCCESS && clBuildProgram(program, 1, &d->entry->device, options, NULL, NULL) == CL_SUCCESS &&
      clGetProgramInfo(program, CL_PROGRAM_NUM_KERNELS, sizeof kernels, &kernels, NULL) == CL_SUCCESS && kernels > 0)
    return program;
  clReleaseProgram(program);
  return NULL;
}

/*
 * A driver may die of a binary that it does not know for another's. So that this happens once, a file stands beside the
 * binary while the driver reads it, locked: one that nobody locks was left by a process that died there.
 * The descriptor of that file, or -1 where there is none to remove later.
 */
static int mark_begin(const char *mark, bool *died) {
  int fd = open(mark, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  *died = false;
  if (fd >= 0) {
    (void)flock(fd, LOCK_EX | LOCK_NB);
    return fd;
  }
  fd = errno == EEXIST ? open(mark, O_RDWR | O_CLOEXEC | O_NONBLOCK) : -1;
  if (fd >= 0) {
    struct stat s;
    *died = flock(fd, LOCK_EX | LOCK_NB) == 0 && fstat(fd, &s) == 0 && s.st_nlink > 0;
    if (!*died) {
      close(fd);
      fd = -1; /* another process is reading it, or has just done so */
    }
  }
  return fd;
}

static cl_program load_marked(unroll_backend_device *d, const char *path, const unsigned char *binary, size_t n,
                              const char *options) {
  const size_t room = strlen(path) + 16;
  char *mark = opencl_alloc(d->host, room, 1);
  if (!mark)
    return NULL;
  snprintf(mark, room, "%s.reading", path);
  bool died;
  const int fd = mark_begin(mark, &died);
  cl_program program = died ? NULL : build_binary(d, binary, n, options);
  if (fd >= 0) {
    (void)unlink(mark);
    close(fd);
  }
  opencl_free(d->host, mark);
  return program;
}

static cl_program load_binary(unroll_backend_device *d, const char *path, const text *key, const char *options) {
  size_t size = 0, n = 0;
  bool there;
  unsigned char *file = read_file(d->host, path, &size, &there);
  const unsigned char *binary = file ? find_binary(file, size, key, &n) : NULL;
  cl_program program = binary ? load_marked(d, path, binary, n, options) : NULL;
  opencl_free(d->host, file);
  if (there && !program) {
    opencl_log(d->host, UNROLL_LOG_DEBUG, "opencl: %s is not usable: dropped", path);
    (void)remove(path); /* an empty folder too */
  }
  return program;
}

/* ---- keeping the folder small ---- */
static bool is_file(const char *name, bool *whole) {
  const char *end = strstr(name, ".bin");
  *whole = end && end[4] == 0;
  return strncmp(name, "cl-", 3) == 0 && end && (end[4] == 0 || end[4] == '.');
}

typedef struct kept_file {
  int64_t used, bytes;
} kept_file;

static int by_use(const void *a, const void *b) {
  const kept_file *x = a, *y = b;
  return x->used < y->used ? 1 : x->used > y->used ? -1 : 0;
}

/* One pass over our files. Drops what writers left behind, and what was last used before; adds the rest to the list. */
static void drop_files(DIR *folder, int64_t before, text *list) {
  const int64_t left_behind = time(NULL) - LEFT_BEHIND_S;
  struct stat s;
  rewinddir(folder);
  for (const struct dirent *e; (e = readdir(folder));) {
    bool whole;
    if (!is_file(e->d_name, &whole) || fstatat(dirfd(folder), e->d_name, &s, AT_SYMLINK_NOFOLLOW) != 0 ||
        !S_ISREG(s.st_mode))
      continue;
    const kept_file file = {s.st_mtime, s.st_size};
    if (file.used < (whole ? before : left_behind))
      (void)unlinkat(dirfd(folder), e->d_name, 0);
    else
      append(list, &file, sizeof file);
  }
}

static void tidy_folder(unroll_backend_device *d) {
  DIR *folder = opendir(d->cache);
  if (!folder)
    return;
  text list = {.host = d->host};
  drop_files(folder, 0, &list);
  kept_file *files = (void *)list.data;
  const size_t n = list.failed ? 0 : list.size / sizeof *files;
  int64_t all = 0, kept = 0;
  for (size_t i = 0; i < n; i++)
    all += files[i].bytes;
  if (all > CACHE_MAX) {
    /* To three quarters, so that it is not full again at once. */
    qsort(files, n, sizeof *files, by_use);
    size_t last = 0;
    while (last < n && kept + files[last].bytes <= CACHE_MAX / 4 * 3)
      kept += files[last++].bytes;
    const int64_t before = last < n ? files[last].used + 1 : 0;
    list.size = 0;
    drop_files(folder, before, &list);
    opencl_log(d->host, UNROLL_LOG_DEBUG, "opencl: %s: %lld bytes of %lld are kept", d->cache, (long long)kept,
               (long long)all);
  }
  opencl_free(d->host, list.data);
  closedir(folder);
}

/* Every missing folder of a path, private to the user. */
static bool make_folders(char *path) {
  for (char *p = path + 1; *p; p++)
    if (*p == '/') {
      *p = 0;
      const int failed = mkdir(path, 0700) != 0 && errno != EEXIST;
      *p = '/';
      if (failed)
        return false;
    }
  return true;
}

static bool write_all(FILE *f, const void *data, size_t n) { return fwrite(data, 1, n, f) == n; }

static void save_binary(unroll_backend_device *d, char *path, const text *key, cl_program program) {
  size_t n = 0;
  int code = 0;
  if (clGetProgramInfo(program, CL_PROGRAM_BINARY_SIZES, sizeof n, &n, NULL) != CL_SUCCESS || n == 0 ||
      n > CACHE_FILE_MAX / 2)
    return;
  const size_t room = strlen(path) + 32;
  unsigned char *binary = opencl_alloc(d->host, n, 1);
  char *other = opencl_alloc(d->host, room, 1);
  bool saved = false;
  if (binary && other && clGetProgramInfo(program, CL_PROGRAM_BINARIES, sizeof binary, &binary, NULL) == CL_SUCCESS &&
      make_folders(path)) {
    snprintf(other, room, "%s.XXXXXX", path);
    const int fd = mkstemp(other);
    FILE *f = fd >= 0 ? fdopen(fd, "wb") : NULL;
    if (f) {
      const uint64_t n_key = key->size, head[2] = {n, hash(hash_basis, binary, n)};
      saved = write_all(f, cache_magic, sizeof cache_magic) && write_all(f, &n_key, sizeof n_key) &&
              write_all(f, key->data, key->size) && write_all(f, head, sizeof head) && write_all(f, binary, n);
      saved = fclose(f) == 0 && saved;
      saved = saved && rename(other, path) == 0;
    }
    code = errno;
    if (fd >= 0 && !f)
      close(fd);
    if (fd >= 0 && !saved)
      unlink(other);
  }
  if (!saved)
    opencl_log(d->host, UNROLL_LOG_DEBUG, "opencl: %s: not written: %s", path, code ? strerror(code) : "no binary");
  opencl_free(d->host, other);
  opencl_free(d->host, binary);
}

/* ---- building ---- */
static unroll_status build_failure(unroll_backend_device *d, cl_program program, cl_int code, const char *source,
                                   const char *options, unroll_error *err) {
  enum { MOST = 1 << 24 }; /* what claims to be longer is no log */
  size_t n = 0;
  char *log = NULL;
  if (clGetProgramBuildInfo(program, d->entry->device, CL_PROGRAM_BUILD_LOG, 0, NULL, &n) == CL_SUCCESS && n &&
      n <= MOST)
    log = opencl_alloc(d->host, n + 1, 1);
  if (log && clGetProgramBuildInfo(program, d->entry->device, CL_PROGRAM_BUILD_LOG, n, log, NULL) != CL_SUCCESS)
    log[0] = 0;
  opencl_log(d->host, UNROLL_LOG_ERROR, "opencl: %s with %s: %s", source, options, log ? log : "");
  const unroll_status status = opencl_fail(err, opencl_error(d, NULL, code, "clBuildProgram", source), code,
                                           "clBuildProgram: %s: OpenCL error %d: %.150s", source, code, log ? log : "");
  opencl_free(d->host, log);
  return status;
}

static unroll_status build(unroll_backend_device *d, const char *name, const text *source, const char *options,
                           cl_program *out, unroll_error *err) {
  cl_int code;
  const char *data = source->data;
  cl_program program = clCreateProgramWithSource(d->context, 1, &data, &source->size, &code);
  if (code != CL_SUCCESS)
    return opencl_error(d, err, code, "clCreateProgramWithSource", name);
  code = clBuildProgram(program, 1, &d->entry->device, options, NULL, NULL);
  if (code != CL_SUCCESS) {
    const unroll_status status = build_failure(d, program, code, name, options, err);
    clReleaseProgram(program);
    return status;
  }
  *out = program;
  return UNROLL_OK;
}

enum { INCLUDE_DEPTH = 4 };

/* The text of a kernel, with `#include "file"` lines replaced by that file of kernels/, as often as they stand there. */
static void full_source(text *t, const struct kernel_source *source, int depth) {
  static const char word[] = "#include \"";
  const char *at = (const char *)source->data, *end = at + source->size;
  while (at < end) {
    const char *stop = memchr(at, '\n', (size_t)(end - at)), *line = at;
    at = stop ? stop + 1 : end;
    const char *quote = NULL;
    if ((size_t)(at - line) > sizeof word && memcmp(line, word, sizeof word - 1) == 0)
      quote = memchr(line + sizeof word - 1, '"', (size_t)(at - line) - sizeof word + 1);
    const struct kernel_source *other = NULL;
    if (quote && depth < INCLUDE_DEPTH) {
      char name[64] = "";
      const size_t n = (size_t)(quote - line) - sizeof word + 1;
      if (n < sizeof name)
        other = find_source(memcpy(name, line + sizeof word - 1, n));
    }
    if (other)
      full_source(t, other, depth + 1);
    else
      append(t, line, (size_t)(at - line)); /* the compiler says what is missing */
  }
}

static unroll_status get_new(unroll_backend_device *d, const struct kernel_source *source, const char *options,
                             cl_program *out, unroll_error *err) {
  char all[1024];
  const int n = snprintf(all, sizeof all, "-cl-std=CL1.2 %s", options);
  if (n < 0 || (size_t)n >= sizeof all)
    return opencl_fail(err, UNROLL_E_INTERNAL, 0, "opencl: %s: the build options are too long", source->name);
  text whole = {.host = d->host}, key = {.host = d->host};
  full_source(&whole, source, 0);
  append_key(&key, d, &whole, all);
  char *path = cache_path(d, &key);
  unroll_status status = UNROLL_OK;
  *out = NULL;
  if (whole.failed || key.failed)
    status = opencl_fail(err, UNROLL_E_MEMORY, 0, "opencl: no memory for the source of %s", source->name);
  else if (path)
    *out = load_binary(d, path, &key, all);
  if (status == UNROLL_OK && !*out) {
    status = build(d, source->name, &whole, all, out, err);
    if (status == UNROLL_OK && path) {
      save_binary(d, path, &key, *out);
      if (!d->tidied)
        tidy_folder(d);
      d->tidied = true;
    }
  }
  opencl_free(d->host, path);
  opencl_free(d->host, whole.data);
  opencl_free(d->host, key.data);
  return status;
}

static unroll_status get_locked(unroll_backend_device *d, const struct kernel_source *source, const char *options,
                                cl_program *out, unroll_error *err) {
  for (const cached_program *p = d->programs; p; p = p->next)
    if (p->source == source && strcmp(p->options, options) == 0) {
      *out = p->program;
      return UNROLL_OK;
    }
  cached_program *p = opencl_alloc(d->host, 1, sizeof *p);
  char *copy = opencl_copy_text(d->host, options);
  unroll_status status =
      p && copy ? UNROLL_OK : opencl_fail(err, UNROLL_E_MEMORY, 0, "opencl: no memory for a program");
  if (status == UNROLL_OK)
    status = get_new(d, source, options, out, err);
  if (status != UNROLL_OK) {
    opencl_free(d->host, copy);
    opencl_free(d->host, p);
    return status;
  }
  *p = (cached_program){.next = d->programs, .source = source, .options = copy, .program = *out};
  d->programs = p;
  return UNROLL_OK;
}

unroll_status program_get(unroll_backend_device *d, const char *name, const char *options, cl_program *out,
                          unroll_error *err) {
  const struct kernel_source *source = find_source(name);
  if (!source)
    return opencl_fail(err, UNROLL_E_INTERNAL, 0, "opencl: there is no kernel source %s", name);
  pthread_mutex_lock(&d->lock);
  const unroll_status status = get_locked(d, source, options, out, err);
  pthread_mutex_unlock(&d->lock);
  return status;
}

void program_free_all(unroll_backend_device *d) {
  for (cached_program *p = d->programs, *next; p; p = next) {
    next = p->next;
    clReleaseProgram(p->program);
    opencl_free(d->host, p->options);
    opencl_free(d->host, p);
  }
  d->programs = NULL;
}
