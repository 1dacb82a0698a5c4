/* SPDX-License-Identifier: Apache-2.0 */
/* queue.c: buffers, in-order queues and events. */
#include "opencl.h"

/* A flush this often hands work to the device while more is queued; a wait this often bounds what is in flight. */
enum { LAUNCHES_A_FLUSH = 64, LAUNCHES_A_MARKER = 2048 };

/* data NULL: memory of the device's. */
static unroll_status make_buffer(unroll_backend_device *d, void *data, uint64_t bytes, unroll_backend_buffer **out,
                                 unroll_error *err) {
  TRY(opencl_alive(d, err));
  if (bytes > d->entry->max_buffer)
    return opencl_fail(err, UNROLL_E_DEVICE_MEMORY, 0, "opencl: a buffer of %llu bytes, the device's largest has %llu",
                       (unsigned long long)bytes, (unsigned long long)d->entry->max_buffer);
  unroll_backend_buffer *b = opencl_alloc(d->host, 1, sizeof *b);
  if (!b)
    return opencl_fail(err, UNROLL_E_MEMORY, 0, "opencl: no memory for a buffer's record");
  cl_int code;
  b->device = d;
  b->bytes = bytes;
  b->borrowed = data && bytes;
  b->mem = clCreateBuffer(d->context, CL_MEM_READ_WRITE | (b->borrowed ? CL_MEM_USE_HOST_PTR : 0), bytes ? bytes : 1,
                          b->borrowed ? data : NULL, &code);
  if (code != CL_SUCCESS) {
    opencl_free(d->host, b);
    return opencl_error(d, err, code, "clCreateBuffer", NULL);
  }
  *out = b;
  return UNROLL_OK;
}

unroll_status buffer_create(unroll_backend_device *d, uint64_t bytes, uint64_t usage, unroll_backend_buffer **out,
                            unroll_error *err) {
  (void)usage;
  return make_buffer(d, NULL, bytes, out, err);
}

unroll_status buffer_from_host(unroll_backend_device *d, void *data, uint64_t bytes, uint64_t usage,
                               unroll_backend_buffer **out, unroll_error *err) {
  (void)usage;
  cl_uint bits = 0;
  const cl_int code = clGetDeviceInfo(d->entry->device, CL_DEVICE_MEM_BASE_ADDR_ALIGN, sizeof bits, &bits, NULL);
  const size_t wanted = code == CL_SUCCESS && bits >= 8 * OPENCL_ALIGNMENT ? bits / 8 : OPENCL_ALIGNMENT;
  if (!data || (uintptr_t)data % wanted != 0)
    return opencl_fail(err, UNROLL_E_INVALID, 0, "opencl: a buffer over memory at %p, a multiple of %zu expected", data,
                       wanted);
  return make_buffer(d, data, bytes, out, err);
}

/* The caller may free the memory next: no command of any queue needs it any more, and it has what they wrote. */
static void give_back(unroll_backend_buffer *b) {
  unroll_backend_device *d = b->device;
  pthread_mutex_lock(&d->lock);
  for (unroll_backend_queue *q = d->live; q; q = q->after)
    (void)clFinish(q->queue);
  pthread_mutex_unlock(&d->lock);
  cl_int code;
  void *memory = clEnqueueMapBuffer(d->own_queue, b->mem, CL_TRUE, CL_MAP_READ, 0, b->bytes, 0, NULL, NULL, &code);
  if (code == CL_SUCCESS)
    (void)clEnqueueUnmapMemObject(d->own_queue, b->mem, memory, 0, NULL, NULL);
  (void)clFinish(d->own_queue);
}

void buffer_destroy(unroll_backend_buffer *b) {
  if (!b)
    return;
  if (b->borrowed)
    give_back(b);
  clReleaseMemObject(b->mem);
  opencl_free(b->device->host, b);
}

static void enlist(unroll_backend_queue *q) {
  unroll_backend_device *d = q->device;
  pthread_mutex_lock(&d->lock);
  q->after = d->live;
  if (d->live)
    d->live->before = q;
  d->live = q;
  pthread_mutex_unlock(&d->lock);
}

static void strike(unroll_backend_queue *q) {
  unroll_backend_device *d = q->device;
  pthread_mutex_lock(&d->lock);
  if (q->before)
    q->before->after = q->after;
  else if (d->live == q)
    d->live = q->after;
  if (q->after)
    q->after->before = q->before;
  pthread_mutex_unlock(&d->lock);
}

unroll_status queue_create(unroll_backend_device *d, uint64_t flags, unroll_backend_queue **out, unroll_error *err) {
  TRY(opencl_alive(d, err));
  unroll_backend_queue *q = opencl_alloc(d->host, 1, sizeof *q);
  if (!q)
    return opencl_fail(err, UNROLL_E_MEMORY, 0, "opencl: no memory for a queue");
  cl_int code;
  q->device = d;
  q->number = atomic_fetch_add(&d->queues, 1) + 1;
  if (flags & UNROLL_QUEUE_PROFILE) {
    q->queue = clCreateCommandQueue(d->context, d->entry->device, CL_QUEUE_PROFILING_ENABLE, &q->profile_refused);
    if (q->profile_refused == CL_SUCCESS) {
      const unroll_status status = profile_create(d, &q->profile, err);
      if (status != UNROLL_OK) {
        queue_destroy(q);
        return status;
      }
      enlist(q);
      *out = q;
      return UNROLL_OK;
    }
  }
  q->queue = clCreateCommandQueue(d->context, d->entry->device, 0, &code);
  if (code != CL_SUCCESS) {
    opencl_free(d->host, q);
    return opencl_error(d, err, code, "clCreateCommandQueue", NULL);
  }
  enlist(q);
  *out = q;
  return UNROLL_OK;
}

void queue_destroy(unroll_backend_queue *q) {
  if (!q)
    return;
  strike(q);
  const cl_int code = clFinish(q->queue);
  if (code != CL_SUCCESS) /* there is nobody to tell, but a lost device has to be noted */
    (void)opencl_error(q->device, NULL, code, "clFinish", NULL);
  queue_destroy(q->aside);
  if (q->marker)
    clReleaseEvent(q->marker);
  if (q->fill)
    clReleaseKernel(q->fill);
  profile_free(q->device, q->profile);
  clReleaseCommandQueue(q->queue);
  opencl_free(q->device->host, q);
}

unroll_status queue_flush(unroll_backend_queue *q, unroll_error *err) {
  TRY(opencl_alive(q->device, err));
  q->launches = 0;
  const cl_int code = clFlush(q->queue);
  return code == CL_SUCCESS ? UNROLL_OK : opencl_error(q->device, err, code, "clFlush", NULL);
}

unroll_status queue_sync(unroll_backend_queue *q, unroll_error *err) {
  TRY(opencl_alive(q->device, err));
  q->launches = q->marked = 0;
  if (q->aside)
    TRY(queue_sync(q->aside, err));
  cl_int code = clFinish(q->queue);
  if (code != CL_SUCCESS)
    return opencl_error(q->device, err, code, "clFinish", NULL);
  if (q->marker) {
    code = clReleaseEvent(q->marker);
    q->marker = NULL;
    if (code != CL_SUCCESS)
      return opencl_error(q->device, err, code, "clReleaseEvent", NULL);
  }
  return UNROLL_OK;
}

unroll_status queue_count_launch(unroll_backend_queue *q, unroll_error *err) {
  if (++q->launches >= LAUNCHES_A_FLUSH)
    TRY(queue_flush(q, err));
  if (++q->marked < LAUNCHES_A_MARKER)
    return UNROLL_OK;
  q->marked = 0;
  cl_event marker = NULL;
  cl_int code = clEnqueueMarkerWithWaitList(q->queue, 0, NULL, &marker);
  if (code != CL_SUCCESS)
    return opencl_error(q->device, err, code, "clEnqueueMarkerWithWaitList", NULL);
  cl_event before = q->marker;
  q->marker = marker;
  const unroll_status status = queue_flush(q, err);
  if (before) {
    if (status == UNROLL_OK)
      code = clWaitForEvents(1, &before);
    clReleaseEvent(before);
    if (code != CL_SUCCESS)
      return opencl_error(q->device, err, code, "clWaitForEvents", NULL);
  }
  return status;
}

/* ---- a second queue ---- */
/* What is queued on `after` from now on begins after what is queued on `before`. */
static unroll_status follow(unroll_backend_queue *after, unroll_backend_queue *before, unroll_error *err) {
  cl_event event = NULL;
  cl_int code = clEnqueueMarkerWithWaitList(before->queue, 0, NULL, &event);
  if (code != CL_SUCCESS)
    return opencl_error(before->device, err, code, "clEnqueueMarkerWithWaitList", NULL);
  const unroll_status status = queue_flush(before, err); /* or a queue that waits for it might do so for ever */
  if (status == UNROLL_OK)
    code = clEnqueueBarrierWithWaitList(after->queue, 1, &event, NULL);
  clReleaseEvent(event);
  return code == CL_SUCCESS ? status : opencl_error(after->device, err, code, "clEnqueueBarrierWithWaitList", NULL);
}

unroll_status queue_fork(unroll_backend_queue *q, unroll_backend_queue **aside, unroll_error *err) {
  if (!q->aside && !q->aside_refused) {
    unroll_error why = {.struct_size = sizeof why};
    q->aside_refused = queue_create(q->device, 0, &q->aside, &why) != UNROLL_OK;
    if (q->aside_refused)
      opencl_log(q->device->host, UNROLL_LOG_WARN, "opencl: no second queue, layers run one by one: %s", why.message);
  }
  *aside = q->aside;
  return q->aside ? follow(q->aside, q, err) : UNROLL_OK;
}

unroll_status queue_join(unroll_backend_queue *q, unroll_error *err) { return follow(q, q->aside, err); }

void queue_drop(unroll_backend_queue *q) {
  (void)clFinish(q->queue); /* aside may wait for it */
  (void)clFinish(q->aside->queue);
}

/* ---- transfers ---- */
static unroll_status check_range(const unroll_backend_buffer *b, uint64_t offset, uint64_t n, const char *call,
                                 unroll_error *err) {
  if (offset <= b->bytes && n <= b->bytes - offset)
    return UNROLL_OK;
  return opencl_fail(err, UNROLL_E_RANGE, 0, "opencl: %s of %llu bytes at %llu of a buffer of %llu", call,
                     (unsigned long long)n, (unsigned long long)offset, (unsigned long long)b->bytes);
}

static unroll_status wrap_event(unroll_backend_queue *q, cl_event cl, unroll_backend_event **event, unroll_error *err) {
  unroll_backend_event *e = opencl_alloc(q->device->host, 1, sizeof *e);
  if (!e) {
    clReleaseEvent(cl);
    return opencl_fail(err, UNROLL_E_MEMORY, 0, "opencl: no memory for an event");
  }
  e->device = q->device;
  e->event = cl;
  *event = e;
  return queue_flush(q, err);
}

unroll_status queue_event(unroll_backend_queue *q, unroll_backend_event **event, unroll_error *err) {
  if (!event)
    return UNROLL_OK;
  cl_event cl = NULL;
  const cl_int code = clEnqueueMarkerWithWaitList(q->queue, 0, NULL, &cl);
  if (code != CL_SUCCESS)
    return opencl_error(q->device, err, code, "clEnqueueMarkerWithWaitList", NULL);
  return wrap_event(q, cl, event, err);
}

/* What follows a transfer: an event, where one is asked for. */
static unroll_status finish(unroll_backend_queue *q, cl_int code, const char *call, unroll_backend_event **event,
                            unroll_error *err) {
  return code == CL_SUCCESS ? queue_event(q, event, err) : opencl_error(q->device, err, code, call, NULL);
}

unroll_status queue_write(unroll_backend_queue *q, unroll_backend_buffer *b, uint64_t offset, const void *data,
                          uint64_t n, unroll_backend_event **event, unroll_error *err) {
  TRY(opencl_alive(q->device, err));
  TRY(check_range(b, offset, n, "a write", err));
  cl_int code = CL_SUCCESS;
  cl_event *timed;
  TRY(profile_transfer(q, "write", n, &timed, err));
  if (n)
    code = clEnqueueWriteBuffer(q->queue, b->mem, event ? CL_FALSE : CL_TRUE, offset, n, data, 0, NULL, timed);
  return finish(q, code, "clEnqueueWriteBuffer", event, err);
}

unroll_status queue_read(unroll_backend_queue *q, unroll_backend_buffer *b, uint64_t offset, void *data, uint64_t n,
                         unroll_backend_event **event, unroll_error *err) {
  TRY(opencl_alive(q->device, err));
  TRY(check_range(b, offset, n, "a read", err));
  cl_int code = CL_SUCCESS;
  cl_event *timed;
  TRY(profile_transfer(q, "read", n, &timed, err));
  if (n)
    code = clEnqueueReadBuffer(q->queue, b->mem, event ? CL_FALSE : CL_TRUE, offset, n, data, 0, NULL, timed);
  return finish(q, code, "clEnqueueReadBuffer", event, err);
}

unroll_status queue_copy(unroll_backend_queue *q, unroll_backend_buffer *to, uint64_t to_offset,
                         unroll_backend_buffer *from, uint64_t from_offset, uint64_t n, unroll_backend_event **event,
                         unroll_error *err) {
  TRY(opencl_alive(q->device, err));
  TRY(check_range(to, to_offset, n, "a copy", err));
  TRY(check_range(from, from_offset, n, "a copy", err));
  cl_int code = CL_SUCCESS;
  cl_event *timed;
  TRY(profile_transfer(q, "copy", n, &timed, err));
  if (n)
    code = clEnqueueCopyBuffer(q->queue, from->mem, to->mem, from_offset, to_offset, n, 0, NULL, timed);
  return finish(q, code, "clEnqueueCopyBuffer", event, err);
}

/* Where device and host share memory, no byte is copied. A range of no bytes has an address of its own all the same. */
unroll_status queue_map(unroll_backend_queue *q, unroll_backend_buffer *b, uint64_t offset, uint64_t n, uint64_t usage,
                        void **out, unroll_error *err) {
  (void)usage;
  TRY(opencl_alive(q->device, err));
  TRY(check_range(b, offset, n, "a map", err));
  if (n == 0) {
    *out = b;
    return UNROLL_OK;
  }
  cl_int code = CL_SUCCESS;
  cl_event *timed;
  TRY(profile_transfer(q, "map", n, &timed, err));
  void *memory =
      clEnqueueMapBuffer(q->queue, b->mem, CL_TRUE, CL_MAP_READ | CL_MAP_WRITE, offset, n, 0, NULL, timed, &code);
  if (code != CL_SUCCESS)
    return opencl_error(q->device, err, code, "clEnqueueMapBuffer", NULL);
  *out = memory;
  return UNROLL_OK;
}

unroll_status queue_unmap(unroll_backend_queue *q, unroll_backend_buffer *b, void *memory, unroll_error *err) {
  TRY(opencl_alive(q->device, err));
  if (memory == (void *)b)
    return UNROLL_OK;
  const cl_int code = clEnqueueUnmapMemObject(q->queue, b->mem, memory, 0, NULL, NULL);
  return code == CL_SUCCESS ? UNROLL_OK : opencl_error(q->device, err, code, "clEnqueueUnmapMemObject", NULL);
}

/* By a kernel of our own: drivers' fills have wanted alignments that the standard doesn't. */
unroll_status queue_fill(unroll_backend_queue *q, unroll_backend_buffer *b, uint64_t offset, uint64_t n, uint8_t value,
                         unroll_backend_event **event, unroll_error *err) {
  enum { EACH = 64 };
  unroll_backend_device *d = q->device;
  TRY(opencl_alive(d, err));
  TRY(check_range(b, offset, n, "a fill", err));
  cl_int code = CL_SUCCESS;
  if (n && !q->fill) {
    cl_program program;
    TRY(program_get(d, "fill.cl", "-Dtype=uchar -DEACH=64", &program, err));
    q->fill = clCreateKernel(program, "fill", &code);
    if (code != CL_SUCCESS)
      return opencl_error(d, err, code, "clCreateKernel", "fill");
  }
  cl_event *timed;
  TRY(profile_transfer(q, "fill", n, &timed, err));
  if (n) {
    const cl_long at = (cl_long)offset, count = (cl_long)n;
    const cl_uchar byte = value;
    const size_t group = d->group, items = (size_t)((n + EACH - 1) / EACH),
                 global = (items + group - 1) / group * group;
    code = clSetKernelArg(q->fill, 0, sizeof b->mem, &b->mem);
    if (code == CL_SUCCESS)
      code = clSetKernelArg(q->fill, 1, sizeof at, &at);
    if (code == CL_SUCCESS)
      code = clSetKernelArg(q->fill, 2, sizeof count, &count);
    if (code == CL_SUCCESS)
      code = clSetKernelArg(q->fill, 3, sizeof byte, &byte);
    if (code != CL_SUCCESS)
      return opencl_error(d, err, code, "clSetKernelArg", "fill");
    code = clEnqueueNDRangeKernel(q->queue, q->fill, 1, NULL, &global, &group, 0, NULL, timed);
  }
  return finish(q, code, "clEnqueueNDRangeKernel: fill", event, err);
}

/* ---- events ---- */
unroll_status queue_wait(unroll_backend_queue *q, unroll_backend_event *event, unroll_error *err) {
  TRY(opencl_alive(q->device, err));
  if (event->device != q->device)
    return event_wait(event, err);
  const cl_int code = clEnqueueBarrierWithWaitList(q->queue, 1, &event->event, NULL);
  return code == CL_SUCCESS ? UNROLL_OK : opencl_error(q->device, err, code, "clEnqueueBarrierWithWaitList", NULL);
}

unroll_status event_wait(unroll_backend_event *event, unroll_error *err) {
  TRY(opencl_alive(event->device, err));
  const cl_int code = clWaitForEvents(1, &event->event);
  return code == CL_SUCCESS ? UNROLL_OK : opencl_error(event->device, err, code, "clWaitForEvents", NULL);
}

void event_destroy(unroll_backend_event *event) {
  if (!event)
    return;
  clReleaseEvent(event->event);
  opencl_free(event->device->host, event);
}
