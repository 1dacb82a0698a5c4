/* SPDX-License-Identifier: Apache-2.0 */
/* exec_run.c: runs of a binding: which launches are queued, how often, and on which queue. */
#include "exec.h"
#include <string.h>

static cl_mem memory_of(const unroll_backend_binding *b, operand o) {
  return o.mem == ARG_SCRATCH  ? b->workspace
         : o.mem == ARG_PACKED ? b->packed
                               : b->slots[b->exec->tensors[o.tensor].slot].buffer->mem;
}

static uint64_t start_of(const unroll_backend_binding *b, operand o, int64_t t) {
  return o.at + (o.mem == ARG_SCRATCH  ? b->workspace_offset
                 : o.mem == ARG_PACKED ? 0
                                       : exec_place(b, &b->exec->tensors[o.tensor], t));
}

static unroll_status run_product(unroll_backend_binding *b, unroll_backend_queue *q, const launch *l,
                                 const run_state *s, unroll_error *err) {
  const unroll_backend_exec *e = b->exec;
  const product *g = l->product;
  int64_t sizes[3];
  const extent extents[3] = {g->m, g->n, g->k};
  for (int i = 0; i < 3; i++)
    sizes[i] = extents[i].dim < 0 ? extents[i].per : extents[i].per * s->args->dims[extents[i].dim];
  if (sizes[0] == 0 || sizes[1] == 0 || sizes[2] == 0)
    return UNROLL_OK;
  const uint64_t bytes = dtype_bytes(g->dtype);
  return product_enqueue(e->device, q->queue, g, sizes[0], sizes[1], sizes[2], memory_of(b, g->a),
                         start_of(b, g->a, s->t) / bytes, memory_of(b, g->b), start_of(b, g->b, s->t) / bytes,
                         memory_of(b, g->y), start_of(b, g->y, s->t) / bytes, b->temp, l->name, err);
}

/* What launch i is in a profile: what is done before a template's first step is done for all of them. */
static unroll_profile_span span_of(unroll_backend_binding *b, const launch *l, const run_state *s) {
  const bool is_template = b->exec->is_template, all = is_template && l->once;
  return (unroll_profile_span){.struct_size = sizeof(unroll_profile_span),
                               .node = l->node,
                               .binding = b,
                               .label = l->kernel,
                               .t = all ? s->args->first : s->t,
                               .count = all ? s->args->count : 1};
}

static unroll_status enqueue(unroll_backend_binding *b, unroll_backend_queue *q, uint32_t i, const run_state *s,
                             unroll_error *err) {
  const launch *l = &b->exec->launches[i];
  if (!l->source) {
    if (q->profile) {
      const unroll_profile_span span = span_of(b, l, s);
      TRY(profile_begin(q, &span, err));
    }
    TRY(run_product(b, q, l, s, err));
    if (q->profile)
      TRY(profile_end(q, err));
  } else if (b->items[i] == 0)
    return UNROLL_OK;
  else if (s->into)
    return commands_add(b, i, s, err);
  else {
    const size_t group = b->groups[i], global = (b->items[i] + group - 1) / group * group;
    cl_event *timed = NULL;
    if (q->profile) {
      const unroll_profile_span span = span_of(b, l, s);
      TRY(profile_command(q, &span, &timed, err));
    }
    const cl_int code = clEnqueueNDRangeKernel(q->queue, b->kernels[i], 1, NULL, &global, &group, 0, NULL, timed);
    if (code != CL_SUCCESS)
      return opencl_error(b->exec->device, err, code, "clEnqueueNDRangeKernel", l->name);
  }
  return queue_count_launch(q, err);
}

uint64_t exec_generation(const unroll_backend_binding *b, uint32_t i, const run_state *s) {
  const launch *l = &b->exec->launches[i];
  return l->cached == UNROLL_NO_TENSOR || !s->args->generations
             ? 0
             : s->args->generations[b->exec->tensors[l->cached].slot];
}

/* A tensor with the sizes of this run, at each t of low..high. */
static bool lies_in_slot(const unroll_backend_binding *b, const place *x, const int64_t *dims, int64_t low,
                         int64_t high) {
  const uint64_t room = b->slots[x->slot].bytes - x->offset;
  const uint64_t bytes = x->dim < 0 ? x->bytes : x->bytes / (uint64_t)b->exec->dim_max[x->dim] * (uint64_t)dims[x->dim];
  if (x->period) {
    const int64_t period = x->period;
    const bool wraps = low / period != high / period;
    low = wraps ? 0 : low % period;
    high = wraps ? period - 1 : high % period;
  }
  int64_t first, last;
  return !__builtin_mul_overflow(x->step, x->step < 0 ? high : low, &first) &&
         !__builtin_mul_overflow(x->step, x->step < 0 ? low : high, &last) &&
         (first >= 0 || (uint64_t)-first <= x->offset) && bytes <= room &&
         (last <= 0 || (uint64_t)last <= room - bytes);
}

static unroll_status check_run(const unroll_backend_binding *b, const unroll_run_args *run, unroll_error *err) {
  const unroll_backend_exec *e = b->exec;
  if (run->n_dims < e->n_dims || (e->n_dims && !run->dims))
    return opencl_fail(err, UNROLL_E_INVALID, 0, "opencl: run: %u run-time sizes, expected %u", run->n_dims, e->n_dims);
  for (uint32_t i = 0; i < e->n_dims; i++)
    if (run->dims[i] < e->dim_min[i] || run->dims[i] > e->dim_max[i])
      return opencl_fail(err, UNROLL_E_RANGE, 0, "opencl: run: size %u is %lld, expected %lld to %lld", i,
                         (long long)run->dims[i], (long long)e->dim_min[i], (long long)e->dim_max[i]);
  int64_t low = 0, high = 0;
  if (e->is_template) {
    const bool reverse = run->direction == UNROLL_REVERSE;
    if (run->count < 0 || run->first < 0 ||
        (reverse ? run->count - 1 > run->first : run->count > INT64_MAX - run->first))
      return opencl_fail(err, UNROLL_E_RANGE, 0, "opencl: run: %lld steps from %lld on", (long long)run->count,
                         (long long)run->first);
    if (run->count == 0)
      return UNROLL_OK;
    low = reverse ? run->first - run->count + 1 : run->first;
    high = low + run->count - 1;
  }
  for (uint32_t i = 0; i < e->n_moving; i++)
    if (!lies_in_slot(b, &e->tensors[e->moving[i]], run->dims, low, high))
      return opencl_fail(err, UNROLL_E_RANGE, 0, "opencl: run: tensor %s leaves its slot at t %lld..%lld",
                         e->tensors[e->moving[i]].name, (long long)low, (long long)high);
  return UNROLL_OK;
}

enum { MAIN, ASIDE, BOTH }; /* branches of a flight */

/* Where a pass over the launches stands, or one over a branch. */
typedef struct cursor {
  uint32_t at, step_arg;
  int64_t first; /* the next step, where that launch is of a loop */
} cursor;

/* Launches from the cursor to end: those before the first step of a template or those of a step, of a branch. */
static unroll_status run_launches(unroll_backend_binding *b, unroll_backend_queue *q, const run_state *s, bool once,
                                  int branch, cursor *c, uint32_t end, unroll_error *err) {
  const unroll_backend_exec *e = b->exec;
  for (; c->at < end; c->at++) {
    const uint32_t i = c->at;
    const launch *l = &e->launches[i];
    while (c->step_arg < b->n_step_args && b->step_args[c->step_arg].launch < i)
      c->step_arg++;
    if (l->once != once || (branch != BOTH && l->aside != (branch == ASIDE)))
      continue;
    for (; c->step_arg < b->n_step_args && b->step_args[c->step_arg].launch == i; c->step_arg++)
      TRY(exec_set_arg(b, i, b->step_args[c->step_arg].index, s, err));
    const uint64_t generation = exec_generation(b, i, s);
    if (generation != 0 && generation == b->generations[i])
      continue;
    b->generations[i] = 0;
    TRY(enqueue(b, q, i, s, err));
    b->generations[i] = generation;
  }
  return UNROLL_OK;
}

static int64_t loop_steps(const time_loop *l, const unroll_run_args *run) {
  return (l->steps.dim < 0 ? l->steps.per : l->steps.per * run->dims[l->steps.dim]) + l->extra;
}

/* The next launches that are of no loop, or some steps of a loop. */
static unroll_status advance(unroll_backend_binding *b, unroll_backend_queue *q, run_state *s, bool once, int branch,
                             cursor *c, uint32_t end, unroll_error *err) {
  const unroll_backend_exec *e = b->exec;
  const uint32_t loop = e->launches[c->at].loop;
  uint32_t stop = c->at + 1;
  while (stop < end && e->launches[stop].loop == loop)
    stop++;
  if (!loop)
    return run_launches(b, q, s, once, branch, c, stop, err);
  if (branch != BOTH && e->launches[c->at].aside != (branch == ASIDE)) {
    *c = (cursor){.at = stop, .step_arg = c->step_arg};
    return UNROLL_OK;
  }
  const time_loop *l = &e->loops[loop - 1];
  if (persistent_skips(b, l)) {
    *c = (cursor){.at = stop, .step_arg = c->step_arg};
    return UNROLL_OK;
  }
  const int64_t steps = loop_steps(l, s->args), left = steps - c->first;
  cursor now = *c;
  s->first = c->first;
  s->count = l->chunk < left ? l->chunk : left;
  if (left > 0) {
    persistent_begin(b, l);
    const unroll_status status = run_launches(b, q, s, once, branch, &now, stop, err);
    TRY(persistent_end(b, q, l, status, err));
  }
  c->first += s->count;
  if (c->first >= steps)
    *c = (cursor){.at = stop, .step_arg = now.step_arg};
  return UNROLL_OK;
}

/* A flight up to its end: a bit of one branch, a bit of the other, so that both queues have work. */
static unroll_status run_flight(unroll_backend_binding *b, unroll_backend_queue *q, run_state *s, bool once, cursor *c,
                                uint32_t end, unroll_error *err) {
  unroll_backend_queue *aside = NULL;
  if (b->apart && !q->profile) /* a profile is of one thing after the other */
    TRY(queue_fork(q, &aside, err));
  cursor other = *c;
  unroll_status status = UNROLL_OK;
  while (status == UNROLL_OK && (c->at < end || (aside && other.at < end))) {
    if (c->at < end)
      status = advance(b, q, s, once, aside ? MAIN : BOTH, c, end, err);
    if (status == UNROLL_OK && aside && other.at < end)
      status = advance(b, aside, s, once, ASIDE, &other, end, err);
  }
  if (!aside)
    return status;
  if (status == UNROLL_OK)
    status = queue_join(q, err);
  if (status != UNROLL_OK)
    queue_drop(q);
  return status;
}

/* One pass over the launches, loops as often as their steps need. */
static unroll_status run_pass(unroll_backend_binding *b, unroll_backend_queue *q, run_state *s, bool once,
                              unroll_error *err) {
  const unroll_backend_exec *e = b->exec;
  cursor c = {0};
  while (c.at < e->n_launches) {
    const uint32_t number = e->launches[c.at].flight;
    uint32_t end = c.at + 1;
    while (end < e->n_launches && e->launches[end].flight == number)
      end++;
    if (number)
      TRY(run_flight(b, q, s, once, &c, end, err));
    while (c.at < end)
      TRY(advance(b, q, s, once, BOTH, &c, end, err));
  }
  return UNROLL_OK;
}

/* How often a run enqueues something, at most. */
static uint64_t spans_of(const unroll_backend_exec *e, const unroll_run_args *run) {
  const uint64_t steps = !e->is_template ? 1 : run->count > 0 ? (uint64_t)run->count : 0;
  uint64_t spans = 0, more;
  for (uint32_t i = 0; i < e->n_launches; i++) {
    uint64_t times = steps;
    if (e->launches[i].loop) {
      const time_loop *l = &e->loops[e->launches[i].loop - 1];
      times = (uint64_t)((loop_steps(l, run) + l->chunk - 1) / l->chunk);
    }
    if (__builtin_add_overflow(spans, times, &more))
      return UINT64_MAX;
    spans = more;
  }
  return spans;
}

unroll_status exec_steps(unroll_backend_binding *b, unroll_backend_queue *q, run_state *s, unroll_error *err) {
  const unroll_run_args *run = s->args;
  if (!b->exec->is_template)
    return run_pass(b, q, s, false, err);
  TRY(run_pass(b, q, s, true, err));
  for (int64_t i = 0; i < run->count; i++) {
    s->t = run->direction == UNROLL_REVERSE ? run->first - i : run->first + i;
    TRY(run_pass(b, q, s, false, err));
  }
  return UNROLL_OK;
}

unroll_status binding_run(unroll_backend_binding *b, unroll_backend_queue *q, const unroll_run_args *run,
                          unroll_backend_event **event, unroll_error *err) {
  const unroll_backend_exec *e = b->exec;
  run_state s = {.args = run};
  TRY(opencl_alive(e->device, err));
  TRY(check_run(b, run, err));
  if (q->profile)
    TRY(profile_room(q, spans_of(e, run), err));
  /* What was queued when a call failed may never have been done: all is packed anew. */
  const uint32_t faults = atomic_load(&e->device->faults);
  if (b->faults != faults)
    memset(b->generations, 0, e->n_launches * sizeof *b->generations);
  b->faults = faults;
  for (uint32_t i = 0; i < e->n_launches; i++)
    if (exec_items_move(e, &e->launches[i]))
      b->items[i] = (size_t)exec_items(e, &e->launches[i], &s);
  for (uint32_t i = 0; i < b->n_run_args; i++)
    TRY(exec_set_arg(b, b->run_args[i].launch, b->run_args[i].index, &s, err));
  if (b->recording && commands_run(b, q, &s, spans_of(e, run)))
    TRY(queue_count_launch(q, err));
  else
    TRY(exec_steps(b, q, &s, err));
  return queue_event(q, event, err);
}
