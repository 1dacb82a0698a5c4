/* SPDX-License-Identifier: Apache-2.0 */
/* A host for plugins that are opened directly: what it allocates is counted, and fails where that is asked for. */
#include "conform/conform_private.h"
#include <stdlib.h>
#include <string.h>

/* Fresh memory is anything but zero, as far as it doesn't cost much: a plugin that counts on zeros is found. */
enum { FRESH = 0xA5, FRESH_MOST = 1 << 20 };

static void host_log(void *ctx, int32_t level, const char *message) { (void)ctx, (void)level, (void)message; }

static void *host_alloc(void *ctx, uint64_t bytes, uint64_t alignment) {
  struct conform_host *h = ctx;
  const uint64_t number = __atomic_add_fetch(&h->allocations, 1, __ATOMIC_RELAXED);
  if (h->fail_at && (number == h->fail_at || (h->fail_all_after && number > h->fail_at)))
    return NULL;
  alignment = alignment < MEM_ALIGNMENT ? MEM_ALIGNMENT : alignment;
  if ((alignment & (alignment - 1)) != 0 || bytes > SIZE_MAX / 2 || alignment > SIZE_MAX / 2)
    return NULL;
  void *p = NULL;
  if (posix_memalign(&p, (size_t)alignment, (size_t)(bytes ? bytes : 1)) != 0)
    return NULL;
  memset(p, FRESH, bytes < FRESH_MOST ? (size_t)bytes : FRESH_MOST);
  __atomic_add_fetch(&h->live, 1, __ATOMIC_RELAXED);
  return p;
}

static void host_free(void *ctx, void *p) {
  struct conform_host *h = ctx;
  if (p)
    __atomic_sub_fetch(&h->live, 1, __ATOMIC_RELAXED);
  free(p);
}

static const void *host_extension(void *ctx, const char *id) {
  const struct conform_host *h = ctx;
  return id && strcmp(id, "unroll.threads/1") == 0 ? &h->n_threads : NULL;
}

void conform_host_init(struct conform_host *host) {
  /* Two at least: a pool of threads is tried wherever there is one. */
  const uint32_t n = unroll_thread_count();
  *host = (struct conform_host){.n_threads = n < 2 ? 2 : n};
  host->host = (unroll_host){.struct_size = sizeof host->host,
                             .abi_major = UNROLL_ABI_MAJOR,
                             .abi_minor = UNROLL_ABI_MINOR,
                             .ctx = host,
                             .log = host_log,
                             .alloc = host_alloc,
                             .free = host_free,
                             .extension = host_extension};
}
