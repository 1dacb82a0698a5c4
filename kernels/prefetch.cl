/* SPDX-License-Identifier: Apache-2.0 */
/*
 * prefetch.cl: PREFETCH(p): the cache line at p will be read soon. OpenCL's own prefetch does nothing on PoCL, so where the
 * target is known to be a processor the compiler is asked directly.
 */
#ifndef PREFETCH
#if defined(__x86_64__) || defined(__aarch64__)
#define PREFETCH(p) __builtin_prefetch((const void *)(size_t)(p), 0, 3)
#else
#define PREFETCH(p) prefetch(p, 1)
#endif
#endif
