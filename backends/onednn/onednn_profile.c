/* SPDX-License-Identifier: Apache-2.0 */
/* "unroll.profile/1": how long each node and transfer took, kept by its queue until it is asked for. */
#include "onednn.h"
#include <string.h>
#include <time.h>

uint64_t onednn_now(void) {
  struct timespec t;
  (void)clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * UINT64_C(1000000000) + (uint64_t)t.tv_nsec;
}

unroll_status onednn_profile_room(unroll_backend_queue *q, uint64_t n, unroll_error *err) {
  const unroll_backend *backend = q->device->backend;
  if (!q->profiled || n <= q->room - q->n_spans)
    return UNROLL_OK;
  uint64_t room = 0, bytes = 0;
  unroll_profile_span *more = NULL;
  if (!__builtin_add_overflow(q->n_spans, n, &room)) {
    room = room < 2 * q->room ? 2 * q->room : room; /* so that copying stays in proportion */
    if (!__builtin_mul_overflow(room, sizeof *more, &bytes))
      more = onednn_alloc(backend, bytes);
  }
  if (!more)
    return onednn_fail(err, UNROLL_E_MEMORY, "onednn: no memory for %llu more spans of a profile",
                       (unsigned long long)n);
  if (q->n_spans)
    memcpy(more, q->spans, q->n_spans * sizeof *more);
  onednn_free(backend, q->spans);
  q->spans = more;
  q->room = room;
  return UNROLL_OK;
}

void onednn_profile_add(unroll_backend_queue *q, const unroll_profile_span *span) {
  if (!q->profiled)
    return;
  unroll_profile_span *s = &q->spans[q->n_spans++];
  *s = *span;
  s->struct_size = sizeof *s;
  s->end_ns = onednn_now();
}

/* One thread did all of it, so they stand in the order of their beginnings. */
static unroll_status spans(unroll_backend_queue *q, void (*each)(void *ctx, const unroll_profile_span *), void *ctx,
                           unroll_error *err) {
  if (!q->profiled)
    return onednn_fail(err, UNROLL_E_STATE, "onednn: the queue was made without UNROLL_QUEUE_PROFILE");
  for (uint64_t i = 0; i < q->n_spans; i++)
    each(ctx, &q->spans[i]);
  q->n_spans = 0;
  return UNROLL_OK;
}

const unroll_profile onednn_profile_table = {sizeof(unroll_profile), 0, spans};
