/* SPDX-License-Identifier: Apache-2.0 */
/* added.cl: for inclusion where an operand may be a sum of two that nobody else reads: with ADDED the second is `more`. */
#ifndef ADDED
#define ADDED 0
#endif
#if ADDED
#define ADDED_ARGUMENT const __global real *more, long more_at,
#define PLUS_ADDED(at, n) +load(more + more_at + (at), n)
#else
#define ADDED_ARGUMENT
#define PLUS_ADDED(at, n)
#endif
