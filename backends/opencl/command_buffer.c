/* SPDX-License-Identifier: Apache-2.0 */
/*
 * command_buffer.c: cl_khr_command_buffer. A run whose launches are the same as those of the run before is recorded, and from
 * then on queued by one call for as long as nothing about it changes.
 *
 * A recording has kernels of its own, with their arguments as they were. So it stands for runs of the same sizes and steps
 * only, on one queue, with all weights packed; runs that draw random numbers and products by CLBlast are never recorded, nor
 * are flights, which want two queues. Where the driver fails at any of it, launches are queued one by one again, from then on.
 *
 * The extension is provisional. Of the five functions that are used, parameters have stayed the same from 0.9.0 to 0.9.8.
 */
#include "exec.h"
#include <string.h>

/* Names of our own: those of the headers have changed from version to version. */
typedef struct name_version {
  uint32_t version;
  char name[64];
} name_version;

enum {
  EXTENSIONS_WITH_VERSION = 0x1060,
  CAPABILITIES = 0x12A9,
  REQUIRED_QUEUE_PROPERTIES = 0x12AA,
  FLAGS = 0x1293,
  SIMULTANEOUS_USE = 1,        /* of the flags, */
  CAPABLE_OF_SIMULTANEOUS = 4, /* and of the capabilities */
  OLDEST = 0x9000,
  NEWEST = 0x9008 /* 10 bits, 10 bits, 12 bits */
};
enum { LEAST_LAUNCHES = 2, MOST_LAUNCHES = 4096 }; /* of a recording */

struct command_calls {
  void *(CL_API_CALL *create)(cl_uint, const cl_command_queue *, const cl_ulong *properties, cl_int *);
  cl_int(CL_API_CALL *finalize)(void *);
  cl_int(CL_API_CALL *release)(void *);
  cl_int(CL_API_CALL *ndrange)(void *, cl_command_queue, const cl_ulong *properties, cl_kernel, cl_uint, const size_t *,
                               const size_t *, const size_t *, cl_uint, const cl_uint *, cl_uint *, void *);
  cl_int(CL_API_CALL *enqueue)(cl_uint, cl_command_queue *, void *, cl_uint, const cl_event *, cl_event *);
};

typedef struct run_key { /* what launches depend on, beside the binding; its dims come last in memory */
  int64_t first, count, t0, row0;
  int64_t direction;
} run_key;

struct recording {
  void *buffer; /* NULL: nothing is recorded */
  uint64_t queue;
  run_key key, last; /* of what is recorded, and of the last run that could have been */
  int64_t *dims, *last_dims;
  cl_kernel *kernels; /* of the recording's own, one a launch: PoCL 3.1 asks them for their arguments when it replays */
  uint32_t n_launches, room;
  bool seen, refused; /* there is a last one; the driver has failed */
};

/* ---- the device ---- */
static bool right_version(const unroll_backend_device *d) {
  size_t bytes = 0;
  if (clGetDeviceInfo(d->entry->device, EXTENSIONS_WITH_VERSION, 0, NULL, &bytes) != CL_SUCCESS || bytes == 0)
    return false;
  name_version *list = opencl_alloc(d->host, bytes, 1);
  bool right = false;
  if (list && clGetDeviceInfo(d->entry->device, EXTENSIONS_WITH_VERSION, bytes, list, NULL) == CL_SUCCESS)
    for (size_t i = 0; i < bytes / sizeof *list; i++)
      if (strncmp(list[i].name, "cl_khr_command_buffer", sizeof list[i].name) == 0)
        right = list[i].version >= OLDEST && list[i].version <= NEWEST;
  opencl_free(d->host, list);
  return right;
}

static cl_bitfield bits_of(const unroll_backend_device *d, cl_device_info what, cl_bitfield otherwise) {
  cl_bitfield bits = 0;
  return clGetDeviceInfo(d->entry->device, what, sizeof bits, &bits, NULL) == CL_SUCCESS ? bits : otherwise;
}

static bool find(const unroll_backend_device *d, const char *name, void *call, size_t size) {
  void *address = clGetExtensionFunctionAddressForPlatform(d->entry->platform, name);
  memcpy(call, &address, size);
  return address != NULL;
}

unroll_status commands_open(unroll_backend_device *d, unroll_error *err) {
  if (d->command_buffer != SWITCH_ON) /* auto: see docs/devices.md, nowhere measured to be quicker */
    return UNROLL_OK;
  struct command_calls c;
  /* A run is queued while the one before it may not be done. */
  if (!right_version(d) || !(bits_of(d, CAPABILITIES, 0) & CAPABLE_OF_SIMULTANEOUS) ||
      bits_of(d, REQUIRED_QUEUE_PROPERTIES, 1) != 0 ||
      !find(d, "clCreateCommandBufferKHR", &c.create, sizeof c.create) ||
      !find(d, "clFinalizeCommandBufferKHR", &c.finalize, sizeof c.finalize) ||
      !find(d, "clReleaseCommandBufferKHR", &c.release, sizeof c.release) ||
      !find(d, "clCommandNDRangeKernelKHR", &c.ndrange, sizeof c.ndrange) ||
      !find(d, "clEnqueueCommandBufferKHR", &c.enqueue, sizeof c.enqueue)) {
    opencl_log(d->host, UNROLL_LOG_WARN,
               "opencl: device %s: no command buffers that are known here: launches are "
               "queued one by one",
               d->entry->id);
    return UNROLL_OK;
  }
  d->commands = opencl_alloc(d->host, 1, sizeof c);
  if (!d->commands)
    return opencl_fail(err, UNROLL_E_MEMORY, 0, "opencl: no memory for the calls of command buffers");
  *d->commands = c;
  return UNROLL_OK;
}

/* ---- a binding ---- */
unroll_status commands_bind(unroll_backend_binding *b, unroll_error *err) {
  const unroll_backend_exec *e = b->exec;
  unroll_backend_device *d = e->device;
  if (!d->commands || d->recurrence == RECURRENCE_PERSISTENT || (e->flights && b->apart))
    return UNROLL_OK;
  for (uint32_t i = 0; i < e->n_launches; i++)
    if (!e->launches[i].source)
      return UNROLL_OK;
  for (uint32_t i = 0; i < e->n_args; i++)
    if (e->args[i].kind == ARG_KEY0 || e->args[i].kind == ARG_KEY1)
      return UNROLL_OK;
  struct recording *r = b->recording = opencl_alloc(d->host, 1, sizeof *r);
  if (r) {
    r->dims = opencl_alloc(d->host, e->n_dims, sizeof *r->dims);
    r->last_dims = opencl_alloc(d->host, e->n_dims, sizeof *r->last_dims);
  }
  return r && r->dims && r->last_dims
             ? UNROLL_OK
             : opencl_fail(err, UNROLL_E_MEMORY, 0, "opencl: no memory for a recording of %u launches", e->n_launches);
}

static void drop(unroll_backend_device *d, struct recording *r) {
  if (r->buffer)
    d->commands->release(r->buffer);
  for (uint32_t i = 0; i < r->n_launches; i++)
    clReleaseKernel(r->kernels[i]);
  opencl_free(d->host, r->kernels);
  r->buffer = NULL;
  r->kernels = NULL;
  r->n_launches = r->room = 0;
}

void commands_unbind(unroll_backend_binding *b) {
  unroll_backend_device *d = b->exec->device;
  struct recording *r = b->recording;
  if (!r)
    return;
  drop(d, r);
  opencl_free(d->host, r->dims);
  opencl_free(d->host, r->last_dims);
  opencl_free(d->host, r);
}

/* Never again for this binding: launches one by one do the same. */
static void give_up(unroll_backend_binding *b, cl_int code, const char *call) {
  unroll_backend_device *d = b->exec->device;
  unroll_error why = {.struct_size = sizeof why};
  (void)opencl_error(d, &why, code, call, NULL);
  opencl_log(d->host, UNROLL_LOG_WARN, "%s: launches are queued one by one", why.message);
  drop(d, b->recording);
  b->recording->refused = true;
}

/* ---- a run ---- */
static bool is_packed(const unroll_backend_binding *b, const run_state *s) {
  for (uint32_t i = 0; i < b->exec->n_launches; i++)
    if (b->exec->launches[i].cached != UNROLL_NO_TENSOR &&
        (exec_generation(b, i, s) == 0 || exec_generation(b, i, s) != b->generations[i]))
      return false;
  return true;
}

static bool same(const unroll_backend_exec *e, const run_key *a, const int64_t *a_dims, const run_key *b,
                 const int64_t *b_dims) {
  return memcmp(a, b, sizeof *a) == 0 && (e->n_dims == 0 || memcmp(a_dims, b_dims, e->n_dims * sizeof *a_dims) == 0);
}

unroll_status commands_add(unroll_backend_binding *b, uint32_t i, const run_state *s, unroll_error *err) {
  unroll_backend_device *d = b->exec->device;
  struct recording *r = s->into;
  const launch *l = &b->exec->launches[i];
  const size_t group = b->groups[i], global = (b->items[i] + group - 1) / group * group;
  cl_int code = CL_SUCCESS;
  if (r->n_launches == r->room)
    return opencl_fail(err, UNROLL_E_RANGE, 0, "opencl: more launches than the %u that a run was to have", r->room);
  cl_kernel own = clCreateKernel(l->program, l->kernel, &code), usual = b->kernels[i];
  if (code != CL_SUCCESS)
    return opencl_error(d, err, code, "clCreateKernel", l->kernel);
  r->kernels[r->n_launches++] = own;
  b->kernels[i] = own;
  unroll_status status = UNROLL_OK;
  for (uint32_t k = 0; k < l->n_args && status == UNROLL_OK; k++)
    status = exec_set_arg(b, i, k, s, err);
  b->kernels[i] = usual;
  TRY(status);
  code = d->commands->ndrange(r->buffer, NULL, NULL, own, 1, NULL, &global, &group, 0, NULL, NULL, NULL);
  return code == CL_SUCCESS ? UNROLL_OK : opencl_error(d, err, code, "clCommandNDRangeKernelKHR", l->name);
}

static bool record(unroll_backend_binding *b, unroll_backend_queue *q, const run_state *s, uint32_t launches) {
  unroll_backend_device *d = b->exec->device;
  struct recording *r = b->recording;
  const cl_ulong properties[] = {FLAGS, SIMULTANEOUS_USE, 0};
  cl_int code = CL_SUCCESS;
  drop(d, r);
  r->kernels = opencl_alloc(d->host, launches, sizeof *r->kernels);
  if (!r->kernels) {
    r->refused = true;
    return false;
  }
  r->room = launches;
  r->buffer = d->commands->create(1, &q->queue, properties, &code);
  if (!r->buffer || code != CL_SUCCESS) {
    r->buffer = NULL;
    give_up(b, code, "clCreateCommandBufferKHR");
    return false;
  }
  run_state into = *s;
  unroll_error err = {.struct_size = sizeof err};
  into.into = r;
  if (exec_steps(b, q, &into, &err) != UNROLL_OK) {
    opencl_log(d->host, UNROLL_LOG_WARN, "%s: launches are queued one by one", err.message);
    drop(d, r);
    r->refused = true;
    return false;
  }
  code = d->commands->finalize(r->buffer);
  if (code != CL_SUCCESS) {
    give_up(b, code, "clFinalizeCommandBufferKHR");
    return false;
  }
  opencl_log(d->host, UNROLL_LOG_DEBUG, "opencl: recorded %u launches", r->n_launches);
  return true;
}

bool commands_run(unroll_backend_binding *b, unroll_backend_queue *q, const run_state *s, uint64_t launches) {
  const unroll_backend_exec *e = b->exec;
  struct recording *r = b->recording;
  if (!r || r->refused || q->profile || launches < LEAST_LAUNCHES || launches > MOST_LAUNCHES || !is_packed(b, s))
    return false;
  const unroll_run_args *a = s->args;
  const run_key key = {.t0 = a->t0,
                       .row0 = a->row0,
                       .first = e->is_template ? a->first : 0,
                       .count = e->is_template ? a->count : 0,
                       .direction = e->is_template ? a->direction : 0};
  if (!r->buffer || r->queue != q->number || !same(e, &key, a->dims, &r->key, r->dims)) {
    const bool again = r->seen && same(e, &key, a->dims, &r->last, r->last_dims);
    r->seen = true;
    r->last = key;
    if (e->n_dims)
      memcpy(r->last_dims, a->dims, e->n_dims * sizeof *a->dims);
    if (!again || !record(b, q, s, (uint32_t)launches))
      return false;
    r->queue = q->number;
    r->key = key;
    if (e->n_dims)
      memcpy(r->dims, a->dims, e->n_dims * sizeof *a->dims);
  }
  if (r->n_launches == 0)
    return true;
  const cl_int code = e->device->commands->enqueue(0, NULL, r->buffer, 0, NULL, NULL);
  if (code != CL_SUCCESS) {
    give_up(b, code, "clEnqueueCommandBufferKHR");
    return false;
  }
  q->launches += r->n_launches - 1;
  q->marked += r->n_launches - 1;
  return true;
}
