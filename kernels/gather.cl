/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gather.cl: elements of the rows of x [rows][N] by ids [rows][M], and the gradient. The gradient's rows are zeros before;
 * one work-item owns a row of it, so that what has the same id is summed in the order of ids.
 */
#ifdef cl_khr_fp64
#pragma OPENCL EXTENSION cl_khr_fp64 : enable
#endif
#ifndef real
#define real float
#endif

/* One work-item owns an element of y [rows][M]. */
__kernel void gather(const __global real *x, long x_at, const __global int *ids, long ids_at, __global real *y,
                     long y_at, long N, long M, long items) {
  const long item = (long)get_global_id(0);
  if (item >= items)
    return;
  const int id = ids[ids_at + item];
  real value = NAN;
  if (id >= 0 && id < N)
    value = x[x_at + item / M * N + id];
  y[y_at + item] = value;
}

__kernel void gather_grad(const __global int *ids, long ids_at, const __global real *dy, long dy_at, __global real *dx,
                          long dx_at, long N, long M, long items) {
  const long row = (long)get_global_id(0);
  if (row >= items)
    return;
  ids += ids_at + row * M;
  dy += dy_at + row * M;
  dx += dx_at + row * N;
  for (long m = 0; m < M; m++) {
    const int id = ids[m];
    if (id >= 0 && id < N)
      dx[id] += dy[m];
  }
}
