/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fill.cl: one value everywhere. One work-item owns EACH neighbouring elements.
 */
#ifdef cl_khr_fp64
#pragma OPENCL EXTENSION cl_khr_fp64 : enable
#endif
#ifndef type
#define type uchar
#endif
#ifndef EACH
#define EACH 16
#endif
__kernel void fill(__global type *y, long y_at, long n, type value) {
  const long first = (long)get_global_id(0) * EACH, last = min(first + EACH, n);
  for (long i = first; i < last; i++)
    y[y_at + i] = value;
}
