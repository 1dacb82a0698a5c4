/* SPDX-License-Identifier: Apache-2.0 */
/*
 * persistent.c: launches whose work-groups wait for each other (kernels/layer_persistent.cl), which OpenCL does not promise to
 * work: the rehearsal before a plan relies on it, and the watch over each launch. A launch that was given up is done again
 * by the loop that follows it in the plan, a launch a step, and there is none of the kind on this device any more.
 */
#include "exec.h"

enum { REHEARSAL = 32 }; /* as kernels/layer_persistent.cl has it */
enum { PAIRS = 14 };     /* of a buffer and where in it, the first arguments of these kernels; numbers follow */
enum { NEVER = 1 };      /* of device.refused: not even one group */

cl_uint persistent_spins(const unroll_backend_device *d) {
  /*
   * Some half a second. A spin is an atomic operation on memory: most of a microsecond on a GPU. On a processor it is some
   * 20 ns, and what is waited for may be a thread that waits for a core.
   */
  return d->entry->type & CL_DEVICE_TYPE_CPU ? 1u << 26 : 1u << 20;
}

/* ---- before: are so many groups resident at once, and do they see what the others write? ---- */
static cl_int set_rehearsal(cl_kernel kernel, cl_mem words, cl_uint spins) {
  cl_uint n = 0;
  const cl_long zero = 0;
  cl_int code = clGetKernelInfo(kernel, CL_KERNEL_NUM_ARGS, sizeof n, &n, NULL);
  for (cl_uint i = 0; code == CL_SUCCESS && i + 3 < n; i++)
    code = i < 2 * PAIRS && i % 2 == 0 ? clSetKernelArg(kernel, i, sizeof words, NULL)
                                       : clSetKernelArg(kernel, i, sizeof zero, &zero);
  if (code == CL_SUCCESS)
    code = clSetKernelArg(kernel, n - 3, sizeof words, &words);
  if (code == CL_SUCCESS)
    code = clSetKernelArg(kernel, n - 2, sizeof zero, &zero);
  return code == CL_SUCCESS ? clSetKernelArg(kernel, n - 1, sizeof spins, &spins) : code;
}

static cl_int rehearse(unroll_backend_device *d, cl_kernel kernel, size_t group, size_t groups, cl_uint *word) {
  const size_t bytes = (REHEARSAL + groups) * sizeof(cl_uint), global = groups * group;
  void *zeros = opencl_alloc(d->host, bytes, 1);
  cl_int code = CL_OUT_OF_HOST_MEMORY;
  if (!zeros)
    return code;
  cl_mem words = clCreateBuffer(d->context, CL_MEM_READ_WRITE | CL_MEM_COPY_HOST_PTR, bytes, zeros, &code);
  opencl_free(d->host, zeros);
  if (code != CL_SUCCESS)
    return code;
  code = set_rehearsal(kernel, words, persistent_spins(d));
  pthread_mutex_lock(&d->alone);
  if (code == CL_SUCCESS)
    code = clEnqueueNDRangeKernel(d->own_queue, kernel, 1, NULL, &global, &group, 0, NULL, NULL);
  if (code == CL_SUCCESS)
    code = clEnqueueReadBuffer(d->own_queue, words, CL_TRUE, 0, sizeof *word, word, 0, NULL, NULL);
  pthread_mutex_unlock(&d->alone);
  clReleaseMemObject(words);
  return code;
}

bool persistent_works(unroll_backend_device *d, cl_program program, const char *name, size_t group, int64_t groups) {
  const int_least64_t refused = atomic_load(&d->refused);
  cl_int code;
  cl_uint word = 0;
  if (refused && groups >= refused)
    return false;
  cl_kernel kernel = clCreateKernel(program, name, &code);
  if (code == CL_SUCCESS) {
    code = rehearse(d, kernel, group, (size_t)groups, &word);
    clReleaseKernel(kernel);
  }
  if (code != CL_SUCCESS) {
    unroll_error err = {.struct_size = sizeof err};
    opencl_error(d, &err, code, "a rehearsal", name);
    return false;
  }
  if (word & 1) {
    atomic_store(&d->refused, groups);
    opencl_log(d->host, UNROLL_LOG_INFO, "opencl: device %s (%s): %lld work-groups don't wait for each other",
               d->entry->id, d->entry->name, (long long)groups);
  }
  return !(word & 1);
}

/* ---- during a run ---- */
bool persistent_skips(unroll_backend_binding *b, const time_loop *l) {
  if (l->kind == LOOP_PERSISTENT)
    return b->again = atomic_load(&b->exec->device->refused) == NEVER;
  return l->kind == LOOP_INSTEAD && !b->again;
}

/* Two of these at once could each have half of the device, and wait for the other half. */
void persistent_begin(unroll_backend_binding *b, const time_loop *l) {
  if (l->kind == LOOP_PERSISTENT)
    pthread_mutex_lock(&b->exec->device->alone);
}

unroll_status persistent_end(unroll_backend_binding *b, unroll_backend_queue *q, const time_loop *l,
                             unroll_status status, unroll_error *err) {
  unroll_backend_device *d = b->exec->device;
  cl_uint word = 0;
  if (l->kind != LOOP_PERSISTENT)
    return status;
  if (status == UNROLL_OK) {
    const cl_int code =
        clEnqueueReadBuffer(q->queue, b->claims, CL_TRUE, l->meeting, sizeof word, &word, 0, NULL, NULL);
    if (code != CL_SUCCESS)
      status = opencl_error(d, err, code, "clEnqueueReadBuffer", "whether work-groups met");
  }
  pthread_mutex_unlock(&d->alone);
  b->again = word & 1;
  if (b->again && atomic_exchange(&d->refused, NEVER) != NEVER)
    opencl_log(d->host, UNROLL_LOG_WARN,
               "opencl: device %s (%s): work-groups did not wait for each other as they did before: from now on "
               "recurrence=persistent is a launch a step",
               d->entry->id, d->entry->name);
  return status;
}
