/* SPDX-License-Identifier: Apache-2.0 */
/*
 * program.c: programs, built once per device and options, kept in memory and on disk.
 *
 * A file of the disk cache holds everything that its binary depends on, in clear text, and is used only where that
 * text is equal; its name is a hash of the same text. Whatever is wrong with a file, the program is built from source
 * instead and the file dropped. A folder that is missing or can't be written is worth a line in the debug log, no
 * more.
 */
#include "kernel_sources.h"
#include "opencl.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct program {
  struct program *next;
  const struct kernel_source *source;
  char *options;
  cl_program program;
} cached_program;

enum { CACHE_FORMAT = 1 };
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
  if (clGetPlatformInfo(platform, what, sizeof value, value, NULL) != CL_SUCCESS)
    value[0] = 0;
  append_line(t, value);
}

static void append_device_info(text *t, cl_device_id device, cl_device_info what) {
  char value[512] = "";
  if (clGetDeviceInfo(device, what, sizeof value, value, NULL) != CL_SUCCESS)
    value[0] = 0;
  append_line(t, value);
}

/* The variables by which drivers change what their compilers make. */
static void append_environment(text *t) {
  static const char *const prefixes[] = {"POCL_", "CL_CONFIG_", "IGC_",     "NEO", "AMD_",  "GPU_",
                                         "CUDA_", "RUSTICL_",   "GALLIVM_", "LP_", "MESA_", "OCLGRIND_"};
  for (char **e = environ; e && *e; e++)
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++)
      if (strncmp(*e, prefixes[i], strlen(prefixes[i])) == 0)
        append_line(t, *e);
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
  append_info(t, d->entry->platform, CL_PLATFORM_NAME);
  append_info(t, d->entry->platform, CL_PLATFORM_VERSION);
  append_device_info(t, d->entry->device, CL_DEVICE_NAME);
  append_device_info(t, d->entry->device, CL_DEVICE_VERSION);
  append_device_info(t, d->entry->device, CL_DRIVER_VERSION);
  append_environment(t);
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
static unsigned char *read_file(const unroll_host *host, const char *path, size_t *size) {
  FILE *f = fopen(path, "rbe");
  if (!f)
    return NULL;
  struct stat s;
  unsigned char *data = NULL;
  if (fstat(fileno(f), &s) == 0 && s.st_size > 0) {
    *size = (size_t)s.st_size;
    data = opencl_alloc(host, *size, 1);
    if (data && fread(data, 1, *size, f) != *size) {
      opencl_free(host, data);
      data = NULL;
    }
  }
  fclose(f);
  return data;
}

static cl_program load_binary(unroll_backend_device *d, const char *path, const text *key, const char *options) {
  size_t size = 0;
  unsigned char *file = read_file(d->host, path, &size);
  if (!file)
    return NULL;
  cl_program program = NULL;
  uint64_t n_key = 0, head[2] = {0, 0};
  const size_t fixed = sizeof cache_magic + sizeof n_key + sizeof head;
  if (size > fixed && memcmp(file, cache_magic, sizeof cache_magic) == 0) {
    memcpy(&n_key, file + sizeof cache_magic, sizeof n_key);
    const unsigned char *p = file + sizeof cache_magic + sizeof n_key;
    if (n_key == key->size && n_key < size - fixed && memcmp(p, key->data, key->size) == 0) {
      memcpy(head, p + n_key, sizeof head);
      p += n_key + sizeof head;
      const size_t n = size - fixed - (size_t)n_key;
      if (head[0] == n && head[1] == hash(hash_basis, p, n)) {
        cl_int code, status;
        program = clCreateProgramWithBinary(d->context, 1, &d->entry->device, &n, &p, &status, &code);
        if (code == CL_SUCCESS && clBuildProgram(program, 1, &d->entry->device, options, NULL, NULL) != CL_SUCCESS) {
          clReleaseProgram(program);
          program = NULL;
        } else if (code != CL_SUCCESS)
          program = NULL;
      }
    }
  }
  opencl_free(d->host, file);
  if (!program) {
    opencl_log(d->host, UNROLL_LOG_DEBUG, "opencl: %s is not usable: dropped", path);
    unlink(path);
  }
  return program;
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
  if (clGetProgramInfo(program, CL_PROGRAM_BINARY_SIZES, sizeof n, &n, NULL) != CL_SUCCESS || n == 0)
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
    } else if (fd >= 0)
      close(fd);
    if (fd >= 0 && !saved)
      unlink(other);
  }
  if (!saved)
    opencl_log(d->host, UNROLL_LOG_DEBUG, "opencl: %s: not written: %s", path, strerror(errno));
  opencl_free(d->host, other);
  opencl_free(d->host, binary);
}

/* ---- building ---- */
static unroll_status build_failure(unroll_backend_device *d, cl_program program, cl_int code, const char *source,
                                   const char *options, unroll_error *err) {
  size_t n = 0;
  char *log = NULL;
  if (clGetProgramBuildInfo(program, d->entry->device, CL_PROGRAM_BUILD_LOG, 0, NULL, &n) == CL_SUCCESS && n)
    log = opencl_alloc(d->host, n + 1, 1);
  if (log && clGetProgramBuildInfo(program, d->entry->device, CL_PROGRAM_BUILD_LOG, n, log, NULL) != CL_SUCCESS)
    log[0] = 0;
  opencl_log(d->host, UNROLL_LOG_ERROR, "opencl: %s with %s: %s", source, options, log ? log : "");
  const unroll_status status = opencl_fail(err, UNROLL_E_DEVICE, code, "clBuildProgram: %s: OpenCL error %d: %.150s",
                                           source, code, log ? log : "");
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

/* The text of a kernel, after philox.h where it draws random numbers. */
static void full_source(text *t, const struct kernel_source *source) {
  static const char word[] = "unroll_philox";
  const struct kernel_source *philox = find_source("philox.h");
  bool random = false;
  for (size_t i = 0; i + sizeof word <= source->size && !random; i++)
    random = memcmp(source->data + i, word, sizeof word - 1) == 0;
  if (random && philox)
    append(t, philox->data, philox->size);
  append(t, source->data, source->size);
}

static unroll_status get_new(unroll_backend_device *d, const struct kernel_source *source, const char *options,
                             cl_program *out, unroll_error *err) {
  char all[1024];
  const int n = snprintf(all, sizeof all, "-cl-std=CL1.2 %s", options);
  if (n < 0 || (size_t)n >= sizeof all)
    return opencl_fail(err, UNROLL_E_INTERNAL, 0, "opencl: %s: the build options are too long", source->name);
  text whole = {.host = d->host}, key = {.host = d->host};
  full_source(&whole, source);
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
    if (status == UNROLL_OK && path)
      save_binary(d, path, &key, *out);
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
