/* SPDX-License-Identifier: Apache-2.0 */
/*
 * queue_profile.c: "unroll.profile/1". A queue that is profiled keeps the event of each command until the driver's
 * times are read from it. Not longer than it must: drivers slow down under many live events.
 */
#include "opencl.h"
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MOST_PENDING = 4096, CLOCK_TRIES = 8 };

typedef struct pending {
  cl_event before; /* a marker in front of a call that queues several commands; NULL where there is one command */
  cl_event event;  /* NULL where queueing it failed */
  unroll_profile_span span;
} pending;

struct profile {
  pending pending[MOST_PENDING];
  uint32_t n_pending;
  cl_int failure;             /* what the driver said when it was first asked for times in vain */
  unroll_profile_span *spans; /* in the device's time */
  uint64_t n_spans, room;
};

/* ---- clocks ---- */
static int64_t host_now(void) {
  struct timespec t;
  (void)clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static cl_int event_time(cl_event event, cl_profiling_info what, uint64_t *ns) {
  cl_ulong value = 0;
  const cl_int code = clGetEventProfilingInfo(event, what, sizeof value, &value, NULL);
  *ns = value;
  return code;
}

/* What is added to a device's time lies between low and high. */
typedef struct bounds {
  int64_t low, high;
} bounds;

static void narrow(bounds *b, int64_t low, int64_t high) {
  b->low = low > b->low ? low : b->low;
  b->high = high < b->high ? high : b->high;
}

/* OpenCL 2.1 has a call for it, which OpenCL 3.0 lets drivers leave out: then its resolution is 0. */
static bool ask_timer(const unroll_backend_device *d, bounds *b) {
#ifdef CL_VERSION_2_1
  cl_ulong resolution = 0, device = 0, host = 0;
  if (clGetPlatformInfo(d->entry->platform, CL_PLATFORM_HOST_TIMER_RESOLUTION, sizeof resolution, &resolution, NULL) !=
          CL_SUCCESS ||
      resolution == 0)
    return false;
  for (int i = 0; i < CLOCK_TRIES; i++) {
    const int64_t before = host_now();
    if (clGetDeviceAndHostTimer(d->entry->device, &device, &host) != CL_SUCCESS)
      return false;
    narrow(b, before - (int64_t)device, host_now() - (int64_t)device);
  }
  return true;
#else
  (void)d;
  (void)b;
  return false;
#endif
}

/* A marker was queued after the host's time before, and done before the one after. */
static cl_int ask_marker(cl_command_queue queue, bounds *b) {
  for (int i = 0; i < CLOCK_TRIES; i++) {
    cl_event marker = NULL;
    uint64_t queued = 0, end = 0;
    const int64_t before = host_now();
    cl_int code = clEnqueueMarkerWithWaitList(queue, 0, NULL, &marker);
    if (code != CL_SUCCESS)
      return code;
    code = clWaitForEvents(1, &marker);
    const int64_t after = host_now();
    if (code == CL_SUCCESS)
      code = event_time(marker, CL_PROFILING_COMMAND_QUEUED, &queued);
    if (code == CL_SUCCESS)
      code = event_time(marker, CL_PROFILING_COMMAND_END, &end);
    clReleaseEvent(marker);
    if (code != CL_SUCCESS)
      return code;
    narrow(b, before - (int64_t)queued, after - (int64_t)end);
  }
  return CL_SUCCESS;
}

/* Nothing is queued. Measured each time: the two clocks drift apart. */
static cl_int clock_offset(const unroll_backend_queue *q, int64_t *offset) {
  bounds b = {INT64_MIN, INT64_MAX};
  if (!ask_timer(q->device, &b)) {
    b = (bounds){INT64_MIN, INT64_MAX};
    const cl_int code = ask_marker(q->queue, &b);
    if (code != CL_SUCCESS)
      return code;
  }
  *offset =
      b.low + (b.high - b.low) / 2; /* coarse clocks can make low the larger one: the middle is right all the same */
  return CL_SUCCESS;
}

/* ---- recording ---- */
static cl_int read_times(pending *p) {
  cl_int code = p->before ? event_time(p->before, CL_PROFILING_COMMAND_END, &p->span.begin_ns)
                          : event_time(p->event, CL_PROFILING_COMMAND_START, &p->span.begin_ns);
  if (code == CL_SUCCESS)
    code = event_time(p->event, CL_PROFILING_COMMAND_END, &p->span.end_ns);
  return code;
}

static void release(pending *p) {
  if (p->before)
    clReleaseEvent(p->before);
  if (p->event)
    clReleaseEvent(p->event);
}

/* The first n pending ones, which are done, become spans; there is room for them. */
static void take_times(struct profile *p, uint32_t n) {
  for (uint32_t i = 0; i < n; i++) {
    pending *x = &p->pending[i];
    const cl_int code = x->event ? read_times(x) : CL_SUCCESS;
    if (x->event && code == CL_SUCCESS)
      p->spans[p->n_spans++] = x->span;
    if (p->failure == CL_SUCCESS)
      p->failure = code;
    release(x);
  }
  p->n_pending -= n;
  memmove(p->pending, p->pending + n, p->n_pending * sizeof *p->pending);
}

/* Waits for the older half: the device works on the younger one meanwhile. */
static unroll_status take_half(unroll_backend_queue *q, unroll_error *err) {
  struct profile *p = q->profile;
  uint32_t n = MOST_PENDING / 2;
  while (n > 0 && !p->pending[n - 1].event)
    n--;
  TRY(queue_flush(q, err));
  const cl_int code = n ? clWaitForEvents(1, &p->pending[n - 1].event) : CL_SUCCESS;
  if (code != CL_SUCCESS)
    return opencl_error(q->device, err, code, "clWaitForEvents", "profile");
  take_times(p, n ? n : MOST_PENDING / 2);
  return UNROLL_OK;
}

unroll_status profile_room(unroll_backend_queue *q, uint64_t n, unroll_error *err) {
  const unroll_host *host = q->device->host;
  struct profile *p = q->profile;
  const uint64_t used = p->n_spans + p->n_pending;
  if (n <= p->room - used)
    return UNROLL_OK;
  uint64_t room = 0;
  unroll_profile_span *more = NULL;
  if (!__builtin_add_overflow(used, n, &room) && room <= SIZE_MAX / sizeof *more / 2) {
    room = room < 2 * p->room ? 2 * p->room : room;
    more = host->alloc(host->ctx, room * sizeof *more, _Alignof(max_align_t));
  }
  if (!more)
    return opencl_fail(err, UNROLL_E_MEMORY, 0, "opencl: no memory for %llu spans of a profile beside %llu",
                       (unsigned long long)n, (unsigned long long)used);
  if (p->n_spans)
    memcpy(more, p->spans, p->n_spans * sizeof *more);
  opencl_free(host, p->spans);
  p->spans = more;
  p->room = room;
  return UNROLL_OK;
}

static unroll_status add_pending(unroll_backend_queue *q, const unroll_profile_span *span, pending **out,
                                 unroll_error *err) {
  struct profile *p = q->profile;
  if (p->n_pending == MOST_PENDING)
    TRY(take_half(q, err));
  TRY(profile_room(q, 1, err));
  *out = &p->pending[p->n_pending++];
  **out = (pending){.span = *span};
  return UNROLL_OK;
}

unroll_status profile_command(unroll_backend_queue *q, const unroll_profile_span *span, cl_event **event,
                              unroll_error *err) {
  pending *p = NULL;
  TRY(add_pending(q, span, &p, err));
  *event = &p->event;
  return UNROLL_OK;
}

unroll_status profile_transfer(unroll_backend_queue *q, const char *label, uint64_t bytes, cl_event **event,
                               unroll_error *err) {
  *event = NULL;
  if (!q->profile || bytes == 0)
    return UNROLL_OK;
  const unroll_profile_span span = {
      .struct_size = sizeof span, .node = UNROLL_NO_NODE, .label = label, .count = 1, .bytes = bytes};
  return profile_command(q, &span, event, err);
}

static unroll_status put_marker(unroll_backend_queue *q, cl_event *event, unroll_error *err) {
  const cl_int code = clEnqueueMarkerWithWaitList(q->queue, 0, NULL, event);
  return code == CL_SUCCESS ? UNROLL_OK : opencl_error(q->device, err, code, "clEnqueueMarkerWithWaitList", "profile");
}

unroll_status profile_begin(unroll_backend_queue *q, const unroll_profile_span *span, unroll_error *err) {
  pending *p = NULL;
  TRY(add_pending(q, span, &p, err));
  return put_marker(q, &p->before, err);
}

unroll_status profile_end(unroll_backend_queue *q, unroll_error *err) {
  return put_marker(q, &q->profile->pending[q->profile->n_pending - 1].event, err);
}

/* ---- life ---- */
unroll_status profile_create(unroll_backend_device *d, struct profile **out, unroll_error *err) {
  *out = opencl_alloc(d->host, 1, sizeof **out);
  return *out ? UNROLL_OK : opencl_fail(err, UNROLL_E_MEMORY, 0, "opencl: no memory for a queue's profile");
}

void profile_free(unroll_backend_device *d, struct profile *p) {
  if (!p)
    return;
  for (uint32_t i = 0; i < p->n_pending; i++)
    release(&p->pending[i]);
  opencl_free(d->host, p->spans);
  opencl_free(d->host, p);
}

/* ---- the extension ---- */
static int by_begin(const void *a, const void *b) {
  const unroll_profile_span *x = a, *y = b;
  if (x->begin_ns != y->begin_ns)
    return x->begin_ns < y->begin_ns ? -1 : 1;
  return (x->end_ns > y->end_ns) - (x->end_ns < y->end_ns);
}

/* An in-order queue gives them in order, but for clocks that jump. */
static void sort(unroll_profile_span *spans, uint64_t n) {
  bool ordered = true;
  for (uint64_t i = 1; i < n && ordered; i++)
    ordered = spans[i - 1].begin_ns <= spans[i].begin_ns;
  if (!ordered)
    qsort(spans, n, sizeof *spans, by_begin);
}

static unroll_status no_times(const unroll_backend_queue *q, cl_int code, unroll_error *err) {
  const device_entry *e = q->device->entry;
  return opencl_fail(err, UNROLL_E_UNSUPPORTED, code, "opencl: device %s (%s): the driver gives no times, error %d",
                     e->id, e->name, code);
}

static unroll_status spans(unroll_backend_queue *q, void (*each)(void *ctx, const unroll_profile_span *), void *ctx,
                           unroll_error *err) {
  struct profile *p = q->profile;
  if (q->profile_refused != CL_SUCCESS)
    return no_times(q, q->profile_refused, err);
  if (!p)
    return opencl_fail(err, UNROLL_E_STATE, 0, "opencl: the queue was made without UNROLL_QUEUE_PROFILE");
  TRY(queue_sync(q, err));
  take_times(p, p->n_pending);
  int64_t offset = 0;
  const cl_int code = p->failure != CL_SUCCESS ? p->failure : clock_offset(q, &offset);
  const uint64_t n = p->n_spans;
  p->failure = CL_SUCCESS;
  p->n_spans = 0;
  if (code != CL_SUCCESS)
    return no_times(q, code, err);
  for (uint64_t i = 0; i < n; i++) {
    p->spans[i].begin_ns += (uint64_t)offset;
    p->spans[i].end_ns += (uint64_t)offset;
  }
  sort(p->spans, n);
  for (uint64_t i = 0; i < n; i++)
    each(ctx, &p->spans[i]);
  return UNROLL_OK;
}

const unroll_profile opencl_profile = {sizeof(unroll_profile), 0, spans};
