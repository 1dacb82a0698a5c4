/* SPDX-License-Identifier: Apache-2.0 */
/*
 * embedding.cl: rows of a table [V][E] by id, and the gradient of the table. One work-item owns WIDTH columns of a row.
 *
 * The gradient adds rows of dy in the order of their ids without atomics: lists() first threads the positions of each
 * id into a list, ascending: head[v] is the first position that has v, next[i] the one after i, -1 ends it. Then each
 * item walks one list.
 */
#include "vectors.cl"
#ifndef SERIAL /* one work-item makes all lists: n + V steps, best on a CPU; else one for each v reads all ids */
#define SERIAL 0
#endif

__kernel VECTORISED void embedding(const __global real *table, long table_at, const __global int *ids, long ids_at,
                                   __global real *y, long y_at, long V, long E, long items) {
  const long item = (long)get_global_id(0), strips = (E + WIDTH - 1) / WIDTH;
  if (item >= items)
    return;
  const long row = item / strips, e = (item - row * strips) * WIDTH;
  const int id = ids[ids_at + row]; /* rusticl of Mesa 22 takes -1 for positive when it is widened first */
  vec value = (vec)(NAN);
  if (id >= 0 && id < V)
    value = load(table + table_at + (long)id * E + e, E - e);
  store(value, y + y_at + row * E + e, E - e);
}

__kernel VECTORISED void lists(const __global int *ids, long ids_at, __global int *head, long head_at,
                               __global int *next, long next_at, long V, long n, long items) {
  const long item = (long)get_global_id(0);
  if (item >= items)
    return;
  ids += ids_at;
  head += head_at;
  next += next_at;
#if SERIAL
  for (long v = 0; v < V; v++)
    head[v] = -1;
  for (long i = n - 1; i >= 0; i--) {
    const int v = ids[i];
    if (v >= 0 && v < V) {
      next[i] = head[v];
      head[v] = (int)i;
    }
  }
#else
  int after = -1;
  for (long i = n - 1; i >= 0; i--)
    if (ids[i] == item) {
      next[i] = after;
      after = (int)i;
    }
  head[item] = after;
#endif
}

__kernel VECTORISED void embedding_grad(const __global int *head, long head_at, const __global int *next, long next_at,
                                        const __global real *dy, long dy_at, __global real *dtable, long dtable_at,
                                        long E, long items) {
  const long item = (long)get_global_id(0), strips = (E + WIDTH - 1) / WIDTH;
  if (item >= items)
    return;
  const long v = item / strips, e = (item - v * strips) * WIDTH;
  vec sum = (vec)(0);
  for (int i = head[head_at + v]; i >= 0; i = next[next_at + i])
    sum += load(dy + dy_at + (long)i * E + e, E - e);
  store(sum, dtable + dtable_at + v * E + e, E - e);
}
