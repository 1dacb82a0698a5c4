/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a child process found out about a driver, kept for the next process.
 *
 * Whoever is about to run the driver without a child takes the file away first and puts it back once the device is
 * open. A process that dies in between therefore leaves nothing behind, and the next one looks with a child again. The
 * file is used only where all that the answer is known to depend on is the same, for a day; a file that is torn,
 * damaged or another's is as good as none.
 */
#include "base/base_private.h"
#include "plugins/registry_private.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* The first counts up with every change of what is kept or how; of the layout of answers too. */
enum { MEMORY_FORMAT = 1, MEMORY_SECONDS = 24 * 60 * 60, MEMORY_BYTES_MAX = DEVICES_BYTES_MAX + (1 << 16) };

/* ---- what an answer depends on ---- */
static void add_file(struct text *key, const char *path) {
  struct stat s = {0};
  const int code = stat(path, &s) == 0 ? 0 : errno;
  text_add(key, "file %s: %d %llu:%llu %lld bytes %lld.%09ld\n", path, code, (unsigned long long)s.st_dev,
           (unsigned long long)s.st_ino, (long long)s.st_size, (long long)s.st_mtim.tv_sec, s.st_mtim.tv_nsec);
}

static void add_boot(struct text *key) {
  char id[64] = "";
  const int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
  const ssize_t n = fd >= 0 ? read(fd, id, sizeof id - 1) : 0;
  if (fd >= 0) {
    close(fd);
  }
  text_add(key, "boot %.*s\n", n > 0 ? (int)strcspn(id, "\n") : 0, id);
}

/* Who may open a device file. */
static void add_rights(struct text *key) {
  gid_t groups[256];
  const int n = getgroups(sizeof groups / sizeof *groups, groups);
  text_add(key, "user %lld %lld groups", (long long)geteuid(), (long long)getegid());
  for (int i = 0; i < n; i++) {
    text_add(key, " %lld", (long long)groups[i]);
  }
  text_add(key, "\n");
}

/* Loaders and drivers read these; in any order, and without their values, which may be long or private. */
static void add_environment(struct text *key) {
  static const char *const prefixes[] = {"OCL_",    "OPENCL_", "LD_",  "UNROLL_",  "POCL_",  "CL_",   "CLBLAST_",
                                         "CUDA_",   "NVIDIA_", "AMD_", "GPU_",     "HSA_",   "HIP_",  "ROC",
                                         "ONEAPI_", "ZE",      "IGC_", "NEO",      "INTEL_", "SYCL_", "GALLIUM_",
                                         "GALLIVM", "LP_",     "MESA", "RUSTICL_", "LIBGL_", "OMP_",  "TBB",
                                         "DNNL_",   "ONEDNN_", "KMP_", "OCLGRIND"};
  uint64_t sum = 0;
  uint32_t n = 0;
  for (char **e = environ; e && *e; e++) {
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++) {
      if (strncmp(*e, prefixes[i], strlen(prefixes[i])) == 0) {
        sum += hash64_string(*e, HASH64_SEED);
        n++;
        break;
      }
    }
  }
  text_add(key, "environment %u %016llx\n", n, (unsigned long long)sum);
}

static void write_key(const struct candidate *c, struct text *key) {
  text_add(key, "unroll probe %d, library %s of %zu bits\n", MEMORY_FORMAT, unroll_version(), 8 * sizeof(void *));
  text_add(key, "plugin %s\n", c->id);
  add_file(key, c->path);
  /* Installing a driver touches these, plugging in a device the last two. */
  static const char *const files[] = {"/etc/ld.so.cache", "/etc/OpenCL/vendors", "/dev", "/dev/dri"};
  for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
    add_file(key, files[i]);
  }
  const char *vendors = getenv("OCL_ICD_VENDORS");
  if (vendors && vendors[0] == '/') {
    add_file(key, vendors);
  }
  add_boot(key);
  add_rights(key);
  add_environment(key);
}

/* ---- where ---- */
enum { PATH_BYTES = 4096 };

/* false: nothing is kept. */
static bool memory_path(const struct candidate *c, char path[PATH_BYTES]) {
  const char *base = secure_getenv("UNROLL_CACHE_DIR"), *more = "";
  if (c->linked || (base && strcmp(base, "off") == 0)) {
    return false;
  }
  if (!base || !base[0]) {
    base = secure_getenv("XDG_CACHE_HOME");
    more = "/unroll";
  }
  if (!base || !base[0]) {
    base = secure_getenv("HOME");
    more = "/.cache/unroll";
  }
  if (!base || base[0] != '/') {
    return false;
  }
  const int n = snprintf(path, PATH_BYTES, "%s%s/probe-%s-%016llx", base, more, c->id,
                         (unsigned long long)hash64_string(c->path, HASH64_SEED));
  return n > 0 && n < PATH_BYTES;
}

/* Every missing folder of a path, private to the user. */
static void make_folders(char *path) {
  for (char *p = path + 1; *p; p++) {
    if (*p == '/') {
      *p = 0;
      (void)mkdir(path, 0700);
      *p = '/';
    }
  }
}

/* ---- files: the size of the key, the key, when the child answered, what it answered, the hash of all that ---- */
static bool read_whole(const struct plugin_registry *reg, const char *path, char **out, size_t *size) {
  /* Not blocking: a FIFO by that name must not hold us. */
  const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
  struct stat s;
  if (fd < 0) {
    return false;
  }
  char *data = NULL;
  if (fstat(fd, &s) == 0 && S_ISREG(s.st_mode) && s.st_size > 0 && s.st_size <= MEMORY_BYTES_MAX) {
    *size = (size_t)s.st_size;
    data = mem_alloc(&reg->allocator, *size);
    if (data && read(fd, data, *size) != (ssize_t)*size) {
      mem_free(&reg->allocator, data);
      data = NULL;
    }
  }
  close(fd);
  *out = data;
  return data != NULL;
}

/* The answer within a file: *at and *size of it; false where the file is not this key's, whole and young enough. */
static bool find_answer(const char *file, size_t file_size, const struct text *key, size_t *at, size_t *size,
                        int64_t *when) {
  uint64_t n_key = 0, sum = 0;
  const size_t fixed = sizeof n_key + sizeof *when + sizeof sum;
  if (key->failed || file_size < fixed || key->size > file_size - fixed) {
    return false;
  }
  memcpy(&n_key, file, sizeof n_key);
  memcpy(&sum, file + file_size - sizeof sum, sizeof sum);
  if (n_key != key->size || memcmp(file + sizeof n_key, text_peek(key), key->size) != 0 ||
      sum != hash64(file, file_size - sizeof sum, HASH64_SEED)) {
    return false;
  }
  memcpy(when, file + sizeof n_key + key->size, sizeof *when);
  *at = sizeof n_key + key->size + sizeof *when;
  *size = file_size - fixed - key->size;
  const int64_t age = (int64_t)time(NULL) - *when;
  return age >= 0 && age < MEMORY_SECONDS;
}

bool memory_recall(struct plugin_registry *reg, struct candidate *c) {
  char path[PATH_BYTES], *file = NULL;
  size_t file_size = 0, at = 0, size = 0;
  int64_t when = 0;
  bool found = false;
  if (memory_path(c, path) && read_whole(reg, path, &file, &file_size)) {
    struct text key;
    text_init(&key, &reg->allocator);
    write_key(c, &key);
    if (find_answer(file, file_size, &key, &at, &size, &when)) {
      found = candidate_keep_answer(reg, c, file + at, size, when);
    }
    text_free(&key);
  }
  mem_free(&reg->allocator, file);
  return found;
}

bool memory_forget(const struct candidate *c) {
  char path[PATH_BYTES];
  return memory_path(c, path) && unlink(path) == 0;
}

bool memory_take(struct plugin_registry *reg, struct candidate *c) {
  /* Where it can't be removed it would not be missing after a crash either. */
  return memory_recall(reg, c) && memory_forget(c);
}

void memory_store(struct plugin_registry *reg, struct candidate *c) {
  char path[PATH_BYTES];
  if (!c->answer || !memory_path(c, path)) {
    return;
  }
  struct text key, file;
  text_init(&key, &reg->allocator);
  text_init(&file, &reg->allocator);
  write_key(c, &key);
  const uint64_t n_key = key.size;
  text_add_bytes(&file, (const char *)&n_key, sizeof n_key);
  text_add_bytes(&file, text_peek(&key), key.size);
  text_add_bytes(&file, (const char *)&c->answered, sizeof c->answered);
  text_add_bytes(&file, c->answer, c->answer_size);
  const uint64_t sum = hash64(text_peek(&file), file.size, HASH64_SEED);
  text_add_bytes(&file, (const char *)&sum, sizeof sum);
  if (!key.failed && !file.failed) {
    make_folders(path);
    /* In place: a reader who finds half of it sees that by the sum. */
    const int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW, 0600);
    const bool written = fd >= 0 && write(fd, text_peek(&file), file.size) == (ssize_t)file.size;
    if (fd >= 0) {
      close(fd);
    }
    if (!written) {
      log_message(&reg->logger, UNROLL_LOG_DEBUG, "%s: not written: %s", path, strerror(errno));
      (void)unlink(path);
    }
  }
  text_free(&file);
  text_free(&key);
}
