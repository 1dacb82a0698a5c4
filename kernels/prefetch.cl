/* SPDX-License-Identifier: Apache-2.0 */
/*
 * prefetch.cl: PREFETCH(p): the cache line at p will be read soon. Only where the compiler can be asked directly, on
 * processors: OpenCL's own prefetch does nothing on PoCL, and is a call on Intel's runtime, which made a layer four times
 * slower.
 */
#ifndef PREFETCH
#if defined(__x86_64__) || defined(__aarch64__) || defined(__INTEL_LLVM_COMPILER)
#define PREFETCH(p) __builtin_prefetch((const void *)(size_t)(p), 0, 3)
#else
#define PREFETCH(p)
#endif
#endif
