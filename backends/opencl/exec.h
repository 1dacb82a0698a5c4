/* SPDX-License-Identifier: Apache-2.0 */
/* exec.h: what compiling and binding (exec.c) and running (exec_run.c, command_buffer.c) share. */
#ifndef UNROLL_OPENCL_EXEC_H
#define UNROLL_OPENCL_EXEC_H
#include "opencl.h"

struct unroll_backend_exec {
  unroll_backend_device *device;
  launch *launches;
  launch_arg *args;
  extent *extents;
  time_loop *loops;
  place *tensors;
  char *names; /* of the nodes, one after another */
  int64_t *dim_min, *dim_max;
  uint32_t *moving; /* tensors that lie elsewhere, or have another size, from run to run or from step to step */
  uint32_t n_moving;
  uint32_t n_launches, n_args, n_extents, n_loops, n_tensors, n_dims;
  bool is_template, flights; /* flights: there are some */
  uint64_t workspace, packed, temp, claims;
};

/* An argument that is not fixed: of which launch, and which of its arguments. */
typedef struct moving_arg {
  uint32_t launch, index;
} moving_arg;

struct unroll_backend_binding {
  unroll_backend_exec *exec;
  cl_kernel *kernels;
  unroll_slot *slots;
  moving_arg *run_args, *step_args; /* by launch, ascending */
  uint64_t *generations;            /* of what a launch packed last, 0 for nothing */
  uint32_t faults;                  /* of the device, when that was packed */
  size_t *items;                    /* of this run, by launch */
  size_t *groups;                   /* work-items of a work-group, by launch */
  uint32_t n_slots, n_run_args, n_step_args;
  bool apart; /* no two slots share memory, so that flights may be */
  cl_mem workspace, packed, temp, claims;
  uint64_t workspace_offset;
  struct recording *recording; /* NULL: none is made */
  bool again;                  /* of the persistent loop that was last: its steps are still to be done */
};

typedef struct run_state {
  const unroll_run_args *args; /* NULL while binding */
  int64_t t;                   /* of a template */
  int64_t first, count;        /* of a loop */
  struct recording *into;      /* NULL: onto a queue */
} run_state;

/* The work-items of a launch that have work, and whether they are others from run to run. */
int64_t exec_items(const unroll_backend_exec *e, const launch *l, const run_state *s);
bool exec_items_move(const unroll_backend_exec *e, const launch *l);
/* Where a tensor starts in its buffer at step t of a template. */
uint64_t exec_place(const unroll_backend_binding *b, const place *x, int64_t t);
/* The generation of what launch i packs: 0 where it packs nothing that may be kept. */
uint64_t exec_generation(const unroll_backend_binding *b, uint32_t i, const run_state *s);
/* All launches of a run, all its steps. */
unroll_status exec_steps(unroll_backend_binding *b, unroll_backend_queue *q, run_state *s, unroll_error *err);
unroll_status exec_set_arg(unroll_backend_binding *b, uint32_t l, uint32_t index, const run_state *s,
                           unroll_error *err);

/* ---- runs that are recorded (command_buffer.c) ---- */
unroll_status commands_bind(unroll_backend_binding *b, unroll_error *err);
void commands_unbind(unroll_backend_binding *b);
/* Queues the run, of at most so many launches, by one call; false: it has to be queued launch by launch. */
bool commands_run(unroll_backend_binding *b, unroll_backend_queue *q, const run_state *s, uint64_t launches);
/* A launch into what is recorded. */
unroll_status commands_add(unroll_backend_binding *b, uint32_t i, const run_state *s, unroll_error *err);
#endif
