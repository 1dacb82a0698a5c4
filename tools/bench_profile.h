/* SPDX-License-Identifier: Apache-2.0 */
/* Where the time of a run goes: what `bench layer --profile` adds. */
#ifndef BENCH_PROFILE_H
#define BENCH_PROFILE_H
#include <stdbool.h>
#include <unroll/runtime.h>

typedef struct profile_row {               /* a kernel of a node, or a transfer, over all profiled runs */
  char *node, *scan, *op, *label, *device; /* "" where there is none */
  int32_t layer, direction;
  uint64_t calls, ns;
} profile_row;
typedef struct profile_table {
  profile_row *rows;    /* the longest first */
  size_t n, room, next; /* next: the row that probably comes next */
  int runs;
  double wall_ms; /* of all runs */
  bool out_of_memory;
} profile_table;

/* One run, waited for. */
unroll_status run_timed(unroll_binding *binding, double *ms, unroll_error *err);

/* Runs the binding, whose inputs are there, a few times. The table is freed with profile_free, also after an error. */
unroll_status profile_runs(unroll_binding *binding, profile_table *table, unroll_error *err);
void profile_free(profile_table *table);
/* Of a run: the sum over all rows. */
double profile_device_ms(const profile_table *table);
void profile_print(profile_table *table); /* may merge rows: the last thing to do with it */
/* A new JSON array, or NULL when there is no memory. */
struct json_t *profile_json(const profile_table *table);

#endif
