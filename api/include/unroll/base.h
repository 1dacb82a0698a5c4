/* SPDX-License-Identifier: Apache-2.0 */
/*
 * unroll/base.h: what every other public header stands on: version, statuses and errors, element types, memory, logging,
 * threads.
 *
 *     unroll_error err = UNROLL_ERROR_INIT;
 *     if (unroll_something(..., &err) != UNROLL_OK)
 *       fprintf(stderr, "%s: %s\n", unroll_status_name(err.code), err.message);
 *
 * Thread tags, here and in all public headers: [any] any thread, at once; [obj] the caller serialises per object. Where a
 * function takes an unroll_error it may be NULL; it is written on failure only. The library never aborts, exits or prints.
 */
#ifndef UNROLL_BASE_H
#define UNROLL_BASE_H
#include <stdint.h>
#include <unroll/plugin.h>
#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define UNROLL_API __attribute__((visibility("default")))
#else
#define UNROLL_API
#endif

/* ---- version (semver.org; within 0.x a new minor may break) ---- */
#define UNROLL_VERSION_MAJOR 0
#define UNROLL_VERSION_MINOR 1
#define UNROLL_VERSION_PATCH 0
#define UNROLL_VERSION_NUMBER (UNROLL_VERSION_MAJOR * 1000000 + UNROLL_VERSION_MINOR * 1000 + UNROLL_VERSION_PATCH)

/* Of the library that runs, "0.1.0". Static. [any] */
UNROLL_API const char *unroll_version(void);
/* Of the library that runs: major * 1000000 + minor * 1000 + patch. [any] */
UNROLL_API int32_t unroll_version_number(void);
/*
 * Can a program that was compiled with headers of that version use the library that runs? UNROLL_OK, or UNROLL_E_ABI where
 * the major differs, the library's minor is older, or, within 0.x, the minor is another one. [any]
 */
UNROLL_API unroll_status unroll_version_check(int32_t header_major, int32_t header_minor);
/* The headers that this very file was compiled with, against the library that runs. */
#define UNROLL_CHECK_VERSION() unroll_version_check(UNROLL_VERSION_MAJOR, UNROLL_VERSION_MINOR)

/* ---- statuses and errors; the codes stand in plugin.h ---- */
#define UNROLL_ERROR_INIT \
  { (uint32_t)sizeof(unroll_error), UNROLL_OK, 0, "" }

/* "UNROLL_E_SHAPE"; "UNROLL_E_UNKNOWN" for a number that is no status. Static, never NULL. [any] */
UNROLL_API const char *unroll_status_name(unroll_status status);
/* "shapes do not fit"; "unknown status" for a number that is no status. Static, never NULL. [any] */
UNROLL_API const char *unroll_status_text(unroll_status status);

/* ---- element types; the codes stand in plugin.h ---- */
/* "f32"; "unknown" for a number that is no dtype. Static, never NULL. [any] */
UNROLL_API const char *unroll_dtype_name(int32_t dtype);
/* Bytes of one element; 0 for a number that is no dtype. [any] */
UNROLL_API uint32_t unroll_dtype_size(int32_t dtype);

/* ---- memory ---- */
/*
 * Where host memory comes from. alloc returns `bytes` bytes (never 0) at a multiple of `alignment` (a power of two), or
 * NULL; free gets what alloc gave, never NULL. Both may be called from any thread at once. A struct of zeros, or one that
 * lacks either function, means the C library's.
 */
typedef struct unroll_allocator {
  void *ctx;
  void *(*alloc)(void *ctx, uint64_t bytes, uint64_t alignment);
  void (*free)(void *ctx, void *p);
} unroll_allocator;

/* ---- logging ---- */
/*
 * Where messages go. log gets those of `level` (UNROLL_LOG_ERROR ... UNROLL_LOG_DEBUG) and graver, one line each without a
 * newline, valid during the call; it may be called from any thread at once. Without log, nothing is logged.
 */
typedef struct unroll_logger {
  void *ctx;
  void (*log)(void *ctx, int32_t level, const char *message);
  int32_t level;
} unroll_logger;

/* ---- threads ---- */
/*
 * How many threads to use by default, at least 1: the environment's UNROLL_NUM_THREADS where it is a positive number, else
 * the CPUs that this thread may run on (sched_getaffinity), but no more than the CPU quota of its cgroups (v1 or v2), rounded
 * up. Reads files; ask once and keep the answer. [any], as long as nobody changes the environment meanwhile.
 */
UNROLL_API uint32_t unroll_thread_count(void);

#ifdef __cplusplus
}
#endif
#endif
