/* SPDX-License-Identifier: Apache-2.0 */
/*
 * oclgrind_shim.c: preloaded by script/check, in front of Oclgrind 21.10.
 *
 * Oclgrind forgets which bytes of a buffer are initialised when the host writes or copies to a part of it, and takes what it
 * knew of a released buffer for the next one of that number: false reports without end. So a transfer to a part is a kernel
 * here, of whose stores it keeps track, and no buffer is ever released. What is uninitialised stays so.
 *
 * UNROLL_OCLGRIND_GPU, set to anything, makes the device a GPU: other kernels and work-group sizes, and products by our
 * kernel with local memory, for CLBlast, whose kernels are not ours to check, is out of order then.
 */
#include <CL/cl.h>
#include <dlfcn.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

typedef cl_int write_function(cl_command_queue, cl_mem, cl_bool, size_t, size_t, const void *, cl_uint,
                              const cl_event *, cl_event *);

typedef cl_mem create_function(cl_context, cl_mem_flags, size_t, void *, cl_int *);
typedef cl_int info_function(cl_device_id, cl_device_info, size_t, void *, size_t *);

/* The status of a CLBlast that finds no database; only the name counts. */
int CLBlastSGemmTempBufferSize(void);
int CLBlastSGemmTempBufferSize(void) { return -2043; }

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static cl_kernel make_kernel(cl_command_queue queue) {
  static const char *source = "__kernel void transfer(const __global uchar *from, ulong from_at, __global uchar *to,"
                              "                       ulong to_at) {"
                              "  to[to_at + get_global_id(0)] = from[from_at + get_global_id(0)];"
                              "}";
  cl_context context;
  cl_int code = clGetCommandQueueInfo(queue, CL_QUEUE_CONTEXT, sizeof context, &context, NULL);
  if (code != CL_SUCCESS)
    return NULL;
  cl_program program = clCreateProgramWithSource(context, 1, &source, NULL, &code);
  if (code != CL_SUCCESS)
    return NULL;
  cl_kernel kernel = NULL;
  if (clBuildProgram(program, 0, NULL, "", NULL, NULL) == CL_SUCCESS)
    kernel = clCreateKernel(program, "transfer", &code);
  clReleaseProgram(program);
  return kernel;
}

static cl_int transfer(cl_command_queue queue, cl_mem from, cl_ulong from_at, cl_mem to, cl_ulong to_at, size_t bytes,
                       cl_uint n_waits, const cl_event *waits, cl_event *event) {
  cl_kernel kernel = make_kernel(queue);
  if (!kernel)
    return CL_OUT_OF_RESOURCES;
  const bool set = clSetKernelArg(kernel, 0, sizeof from, &from) == CL_SUCCESS &&
                   clSetKernelArg(kernel, 1, sizeof from_at, &from_at) == CL_SUCCESS &&
                   clSetKernelArg(kernel, 2, sizeof to, &to) == CL_SUCCESS &&
                   clSetKernelArg(kernel, 3, sizeof to_at, &to_at) == CL_SUCCESS;
  cl_int code = CL_OUT_OF_RESOURCES;
  if (set)
    code = clEnqueueNDRangeKernel(queue, kernel, 1, NULL, &bytes, NULL, n_waits, waits, event);
  clFinish(queue);
  clReleaseKernel(kernel);
  return code;
}

static bool is_whole(cl_mem mem, size_t offset, size_t bytes) {
  size_t size = 0;
  return offset == 0 && clGetMemObjectInfo(mem, CL_MEM_SIZE, sizeof size, &size, NULL) == CL_SUCCESS && size == bytes;
}

CL_API_ENTRY cl_int CL_API_CALL clGetDeviceInfo(cl_device_id device, cl_device_info what, size_t size, void *value,
                                                size_t *needed) {
  info_function *info;
  *(void **)&info = dlsym(RTLD_NEXT, "clGetDeviceInfo");
  const cl_int code = info(device, what, size, value, needed);
  const cl_device_type gpu = CL_DEVICE_TYPE_GPU;
  if (what == CL_DEVICE_TYPE && code == CL_SUCCESS && value && getenv("UNROLL_OCLGRIND_GPU"))
    memcpy(value, &gpu, sizeof gpu);
  return code;
}

CL_API_ENTRY cl_mem CL_API_CALL clCreateBuffer(cl_context context, cl_mem_flags flags, size_t bytes, void *data,
                                               cl_int *code) {
  create_function *create;
  *(void **)&create = dlsym(RTLD_NEXT, "clCreateBuffer");
  cl_mem mem = create(context, flags, bytes, data, code);
  if (mem)
    clRetainMemObject(mem);
  return mem;
}

CL_API_ENTRY cl_int CL_API_CALL clEnqueueCopyBuffer(cl_command_queue queue, cl_mem from, cl_mem to, size_t from_at,
                                                    size_t to_at, size_t bytes, cl_uint n_waits, const cl_event *waits,
                                                    cl_event *event) {
  pthread_mutex_lock(&lock);
  const cl_int code = transfer(queue, from, from_at, to, to_at, bytes, n_waits, waits, event);
  pthread_mutex_unlock(&lock);
  return code;
}

CL_API_ENTRY cl_int CL_API_CALL clEnqueueWriteBuffer(cl_command_queue queue, cl_mem mem, cl_bool blocking,
                                                     size_t offset, size_t bytes, const void *data, cl_uint n_waits,
                                                     const cl_event *waits, cl_event *event) {
  write_function *write;
  *(void **)&write = dlsym(RTLD_NEXT, "clEnqueueWriteBuffer");
  if (is_whole(mem, offset, bytes))
    return write(queue, mem, blocking, offset, bytes, data, n_waits, waits, event);
  pthread_mutex_lock(&lock);
  cl_context context;
  cl_int code = clGetCommandQueueInfo(queue, CL_QUEUE_CONTEXT, sizeof context, &context, NULL);
  cl_mem whole = NULL;
  if (code == CL_SUCCESS)
    whole = clCreateBuffer(context, CL_MEM_READ_WRITE, bytes, NULL, &code);
  if (code == CL_SUCCESS)
    code = write(queue, whole, CL_TRUE, 0, bytes, data, n_waits, waits, NULL);
  if (code == CL_SUCCESS)
    code = transfer(queue, whole, 0, mem, offset, bytes, 0, NULL, event);
  if (whole)
    clReleaseMemObject(whole);
  pthread_mutex_unlock(&lock);
  return code;
}
