/* SPDX-License-Identifier: Apache-2.0 */
/* run.c: one run of the schedule. It allocates nothing. */
#include "runtime/runtime_private.h"
#include <inttypes.h>

/* Where a ref stands at time step t. */
static uint64_t address(const unroll_executable *e, const ref *r, int64_t t) {
  const int64_t k = r->period ? t % (int64_t)r->period : t;
  return e->objects[r->object].at[r->device].offset + r->offset + (uint64_t)(k * r->step);
}

static unroll_status do_copy(unroll_binding *b, const copy *c, int64_t t, unroll_error *err) {
  const unroll_executable *e = b->exe;
  const uint32_t df = c->from.device, dt = c->to.device;
  unroll_backend_buffer *from = binding_slot(b, df, e->objects[c->from.object].at[df].slot);
  unroll_backend_buffer *to = binding_slot(b, dt, e->objects[c->to.object].at[dt].slot);
  const uint64_t from_at = address(e, &c->from, t), to_at = address(e, &c->to, t);
  if (df == dt)
    return e->devices.device[df]->ops->copy(binding_queue(b, df), to, to_at, from, from_at, c->bytes, NULL, err);
  TRY(e->devices.device[df]->ops->read(binding_queue(b, df), from, from_at, b->staging, c->bytes, NULL, err));
  return e->devices.device[dt]->ops->write(binding_queue(b, dt), to, to_at, b->staging, c->bytes, NULL, err);
}

static unroll_status run_group(unroll_binding *b, uint32_t index, const unroll_run_args *args, unroll_error *err) {
  const unroll_executable *e = b->exe;
  const uint32_t d = e->groups[index].device;
  return e->devices.device[d]->ops->run(b->groups[index], binding_queue(b, d), args, NULL, err);
}

static unroll_status run_loop(unroll_binding *b, const item *loop, unroll_run_args *args, unroll_error *err) {
  const int64_t steps = loop->steps_dim >= 0 ? b->dims[loop->steps_dim] : loop->steps;
  const bool reverse = loop->direction == UNROLL_REVERSE;
  const int64_t first = reverse ? steps - 1 : 0, last = reverse ? 0 : steps - 1;
  for (uint32_t i = 0; i < loop->n_starts; i++)
    TRY(do_copy(b, &loop->starts[i], first, err)); /* what has no step stays where it is */
  args->direction = loop->direction;
  args->t0 += loop->t0;
  if (loop->n_stages == 1 && loop->stages[0].kind == STAGE_GROUP) {
    args->first = first;
    args->count = steps;
    TRY(run_group(b, loop->stages[0].group, args, err));
  } else
    for (int64_t i = 0; i < steps; i++) {
      const int64_t t = reverse ? steps - 1 - i : i;
      args->first = t;
      args->count = 1;
      for (uint32_t k = 0; k < loop->n_stages; k++) {
        const stage *s = &loop->stages[k];
        TRY(s->kind == STAGE_GROUP ? run_group(b, s->group, args, err) : do_copy(b, &s->copy, t, err));
      }
    }
  for (uint32_t i = 0; i < loop->n_ends; i++)
    TRY(do_copy(b, &loop->ends[i], last, err));
  args->t0 -= loop->t0;
  args->first = 0;
  args->count = 1;
  args->direction = UNROLL_FORWARD;
  return UNROLL_OK;
}

unroll_status run_check(const unroll_graph *g, const unroll_run_options *options, unroll_error *err) {
  if (options && !UNROLL_HAS(unroll_run_options, options, row0))
    return fail(err, UNROLL_E_INVALID, "unroll_run_options: struct_size is %u, expected at least %zu",
                options->struct_size, sizeof *options);
  const uint32_t given = options ? options->n_dims : 0;
  if (given != 0 && (given != g->n_dims || !options->dims))
    return fail(err, UNROLL_E_INVALID, "%u run-time sizes%s, the graph has %u", given, options->dims ? "" : " at NULL",
                g->n_dims);
  for (uint32_t i = 0; i < given; i++)
    if (options->dims[i] < g->dims[i].min || options->dims[i] > g->dims[i].max)
      return fail(err, UNROLL_E_RANGE, "run-time size %s is %" PRId64 ", expected %" PRId64 " to %" PRId64,
                  g->dims[i].name, options->dims[i], g->dims[i].min, g->dims[i].max);
  return UNROLL_OK;
}

unroll_status unroll_run(unroll_binding *b, const unroll_run_options *options, unroll_error *err) {
  if (!b)
    return fail(err, UNROLL_E_INVALID, "unroll_run: the binding is NULL");
  const unroll_graph *g = b->exe->graph;
  TRY(run_check(g, options, err));
  for (uint32_t i = 0; i < g->n_dims; i++)
    b->dims[i] = options && options->n_dims ? options->dims[i] : g->dims[i].max;
  TRY(binding_prepare(b, err));
  for (uint32_t i = 0; i < b->exe->n_outsides; i++)
    b->generations[i] = b->buffers[i]->generation;
  unroll_run_args args = {.struct_size = sizeof args,
                          .n_dims = g->n_dims,
                          .dims = b->dims,
                          .generations = b->generations,
                          .count = 1,
                          .seed = options ? options->seed : 0,
                          .update = options ? options->update : 0,
                          .t0 = options ? options->t0 : 0,
                          .row0 = options ? options->row0 : 0};
  unroll_status st = UNROLL_OK;
  for (uint32_t i = 0; st == UNROLL_OK && i < b->exe->n_items; i++) {
    const item *it = &b->exe->items[i];
    st = it->kind == ITEM_LOOP           ? run_loop(b, it, &args, err)
         : it->stage.kind == STAGE_GROUP ? run_group(b, it->stage.group, &args, err)
                                         : do_copy(b, &it->stage.copy, 0, err);
  }
  /* Also after a failure: some of it may have been written. */
  for (uint32_t i = 0; i < b->exe->n_outsides; i++)
    if (b->exe->outsides[i].updated || g->tensors[b->exe->outsides[i].tensor].role == UNROLL_ROLE_OUTPUT)
      binding_touch(b, i);
  for (uint32_t d = 0; st == UNROLL_OK && d < b->exe->devices.n; d++)
    st = b->exe->devices.device[d]->ops->queue_flush(binding_queue(b, d), err);
  return st;
}

unroll_status unroll_binding_sync(unroll_binding *b, unroll_error *err) {
  unroll_status first = UNROLL_OK;
  if (!b)
    return fail(err, UNROLL_E_INVALID, "unroll_binding_sync: the binding is NULL");
  for (uint32_t d = 0; b->queues && d < b->exe->devices.n; d++) {
    if (!b->queues[d])
      continue;
    const unroll_status st =
        b->exe->devices.device[d]->ops->queue_sync(binding_queue(b, d), first == UNROLL_OK ? err : NULL);
    first = first == UNROLL_OK ? st : first;
  }
  return first;
}
