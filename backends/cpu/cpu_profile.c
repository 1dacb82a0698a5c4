/* SPDX-License-Identifier: Apache-2.0 */
/* "unroll.profile/1": spans of what a queue did, kept until they are asked for. */
#include "cpu.h"
#include <string.h>
#include <time.h>

static const char *const op_names[UNROLL_OP_END] = {
#define OP_NAME(name, value, text) [value] = (text),
    UNROLL_OPS(OP_NAME)
#undef OP_NAME
};

uint64_t cpu_now(void) {
  struct timespec t;
  (void)clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * UINT64_C(1000000000) + (uint64_t)t.tv_nsec;
}

unroll_status cpu_profile_room(unroll_backend_queue *q, uint64_t n, unroll_error *err) {
  const unroll_host *host = &q->device->backend->host;
  cpu_profile *p = &q->profile;
  if (n <= p->room - p->n)
    return UNROLL_OK;
  uint64_t room = 0;
  unroll_profile_span *more = NULL;
  /* Twice what there was keeps the copying in proportion. */
  if (!__builtin_add_overflow(p->n, n, &room) && room <= SIZE_MAX / sizeof *more / 2) {
    room = room < 2 * p->room ? 2 * p->room : room;
    more = host->alloc(host->ctx, room * sizeof *more, CPU_ALIGNMENT);
  }
  if (!more)
    return cpu_fail(err, UNROLL_E_MEMORY, "cpu: no memory for %llu spans of a profile beside %llu",
                    (unsigned long long)n, (unsigned long long)p->n);
  if (p->spans) {
    memcpy(more, p->spans, p->n * sizeof *more);
    host->free(host->ctx, p->spans);
  }
  p->spans = more;
  p->room = room;
  return UNROLL_OK;
}

void cpu_profile_node(unroll_backend_queue *q, const cpu_node *node, unroll_backend_binding *binding, int64_t t,
                      uint64_t begin, uint64_t end) {
  q->profile.spans[q->profile.n++] = (unroll_profile_span){.struct_size = sizeof(unroll_profile_span),
                                                           .node = node->index,
                                                           .binding = binding,
                                                           .label = op_names[node->op],
                                                           .t = t,
                                                           .count = 1,
                                                           .begin_ns = begin,
                                                           .end_ns = end};
}

void cpu_profile_transfer(unroll_backend_queue *q, const char *label, uint64_t begin, uint64_t bytes) {
  q->profile.spans[q->profile.n++] = (unroll_profile_span){.struct_size = sizeof(unroll_profile_span),
                                                           .node = UNROLL_NO_NODE,
                                                           .label = label,
                                                           .count = 1,
                                                           .begin_ns = begin,
                                                           .end_ns = cpu_now(),
                                                           .bytes = bytes};
}

void cpu_profile_free(unroll_backend_queue *q) {
  const unroll_host *host = &q->device->backend->host;
  if (q->profile.spans)
    host->free(host->ctx, q->profile.spans);
}

/* One thread did all of it, so the spans stand in the order of their beginnings. */
static unroll_status spans(unroll_backend_queue *q, void (*each)(void *ctx, const unroll_profile_span *), void *ctx,
                           unroll_error *err) {
  if (!q->profiled)
    return cpu_fail(err, UNROLL_E_STATE, "cpu: the queue was made without UNROLL_QUEUE_PROFILE");
  for (uint64_t i = 0; i < q->profile.n; i++)
    each(ctx, &q->profile.spans[i]);
  q->profile.n = 0;
  return UNROLL_OK;
}

const unroll_profile cpu_profile_table = {sizeof(unroll_profile), 0, spans};
