/* SPDX-License-Identifier: Apache-2.0 */
/* checkpoint_private.h: schedules of checkpoints, and how a recurrence is built by one. */
#ifndef CHECKPOINT_PRIVATE_H
#define CHECKPOINT_PRIVATE_H
#include "graph/graph_private.h"
#include <unroll/checkpoint.h>

typedef struct checkpoint_schedule {
  const unroll_allocator *allocator;
  unroll_checkpoint_sizes sizes;
  unroll_checkpoint_plan_info info;
  uint16_t *choices; /* y of t segments with m states; NULL where all states are kept */
} checkpoint_schedule;

/* Free it with checkpoint_free, after an error too. */
unroll_status checkpoint_plan(const unroll_allocator *a, const unroll_checkpoint_policy *p,
                              const unroll_checkpoint_sizes *z, checkpoint_schedule *s, unroll_error *err);
void checkpoint_free(checkpoint_schedule *schedule);
/* Of the i-th segment that runs: the how-manieth it is in time, its first step, and how many it has. */
int64_t checkpoint_place(const checkpoint_schedule *schedule, int64_t i);
int64_t checkpoint_start(const checkpoint_schedule *schedule, int64_t i);
int64_t checkpoint_steps(const checkpoint_schedule *schedule, int64_t i);
/* Calls segment for each i in turn, in the regions that the schedule says. */
void checkpoint_build(unroll_graph *graph, const checkpoint_schedule *schedule, void (*segment)(void *user, int64_t i),
                      void *user);
/* Lengths counted from step start on, within so many steps. */
unroll_tensor checkpoint_lengths(unroll_tensor lengths, int64_t start, int64_t steps);
#endif
