/* SPDX-License-Identifier: Apache-2.0 */
/*
 * softmax.cl: what is computed over the last axis of x [rows][N], shifted by the row's largest value. One work-item
 * owns a row, WIDTH elements at a time. A NaN in a row is lost in the maximum and comes back through the sum of
 * exponentials.
 */
#include "activations.cl"
#include "vectors.cl"

static real largest(const __global real *x, long N) {
  const long whole = N / WIDTH * WIDTH;
  vec lanes = (vec)(-INFINITY);
  for (long i = 0; i < whole; i += WIDTH)
    lanes = fmax(lanes, VLOAD(0, x + i));
  real top = -INFINITY;
  for (int i = 0; i < WIDTH; i++)
    top = fmax(top, ((real *)&lanes)[i]);
  for (long i = whole; i < N; i++)
    top = fmax(top, x[i]);
  return top;
}

/* The sum of exp(x - top). */
static real exponentials(const __global real *x, long N, real top) {
  const long whole = N / WIDTH * WIDTH;
  vec lanes = (vec)(0);
  for (long i = 0; i < whole; i += WIDTH)
    lanes += exponential(VLOAD(0, x + i) - (vec)(top));
  real sum = 0;
  for (int i = 0; i < WIDTH; i++)
    sum += ((real *)&lanes)[i];
  for (long i = whole; i < N; i++)
    sum += exp(x[i] - top);
  return sum;
}

__kernel VECTORISED void softmax(const __global real *x, long x_at, __global real *y, long y_at, long N, long items) {
  const long row = (long)get_global_id(0);
  if (row >= items)
    return;
  x += x_at + row * N;
  y += y_at + row * N;
  const real top = largest(x, N), scale = 1 / exponentials(x, N, top);
  for (long i = 0; i < N; i += WIDTH)
    store(exponential(load(x + i, N - i) - (vec)(top)) * (vec)(scale), y + i, N - i);
}

__kernel VECTORISED void log_softmax(const __global real *x, long x_at, __global real *y, long y_at, long N,
                                     long items) {
  const long row = (long)get_global_id(0);
  if (row >= items)
    return;
  x += x_at + row * N;
  y += y_at + row * N;
  const real top = largest(x, N), shift = log(exponentials(x, N, top));
  for (long i = 0; i < N; i += WIDTH)
    store(load(x + i, N - i) - (vec)(top) - (vec)(shift), y + i, N - i);
}

__kernel VECTORISED void cross_entropy(const __global real *x, long x_at, const __global int *targets, long targets_at,
                                       __global real *loss, long loss_at, long N, long items) {
  const long row = (long)get_global_id(0);
  if (row >= items)
    return;
  const int target = targets[targets_at + row];
  real value = 0;
  if (target >= N)
    value = NAN;
  else if (target >= 0) {
    x += x_at + row * N;
    const real top = largest(x, N);
    value = log(exponentials(x, N, top)) - (x[target] - top);
  }
  loss[loss_at + row] = value;
}

/* (softmax - onehot)·dloss, in one multiplication per element: the target's own element is written once more. */
__kernel VECTORISED void cross_entropy_grad(const __global real *x, long x_at, const __global int *targets,
                                            long targets_at, const __global real *dloss, long dloss_at,
                                            __global real *y, long y_at, long N, long items) {
  const long row = (long)get_global_id(0);
  if (row >= items)
    return;
  const int target = targets[targets_at + row];
  y += y_at + row * N;
  if (target < 0 || target >= N) {
    const vec value = (vec)(target < 0 ? (real)0 : (real)NAN);
    for (long i = 0; i < N; i += WIDTH)
      store(value, y + i, N - i);
    return;
  }
  x += x_at + row * N;
  const real d = dloss[dloss_at + row], top = largest(x, N), sum = exponentials(x, N, top), scale = d / sum;
  const real own = exp(x[target] - top) / sum;
  for (long i = 0; i < N; i += WIDTH)
    store(exponential(load(x + i, N - i) - (vec)(top)) * (vec)(scale), y + i, N - i);
  y[target] = (own - 1) * d;
}
