/* SPDX-License-Identifier: Apache-2.0 */
#include "cl_faults.h"
#define CL_TARGET_OPENCL_VERSION 300
#pragma GCC visibility push(default) /* the loader looks for the layer's two functions, the test for its state */
#include <CL/cl_layer.h>
#pragma GCC visibility pop
#include <pthread.h>
#include <string.h>

/* ---- which functions are seen, and what they can say ---- */
#define FUNCTIONS(X)                              \
  X(clGetPlatformIDs, INFO)                       \
  X(clGetPlatformInfo, INFO)                      \
  X(clGetDeviceIDs, INFO)                         \
  X(clGetDeviceInfo, INFO)                        \
  X(clGetContextInfo, INFO)                       \
  X(clGetCommandQueueInfo, INFO)                  \
  X(clGetMemObjectInfo, INFO)                     \
  X(clGetProgramInfo, INFO)                       \
  X(clGetProgramBuildInfo, INFO)                  \
  X(clGetKernelInfo, INFO)                        \
  X(clGetKernelArgInfo, INFO)                     \
  X(clGetKernelWorkGroupInfo, INFO)               \
  X(clGetKernelSubGroupInfo, INFO)                \
  X(clGetEventInfo, INFO)                         \
  X(clGetEventProfilingInfo, TIMES)               \
  X(clGetDeviceAndHostTimer, INFO)                \
  X(clGetHostTimer, INFO)                         \
  X(clGetExtensionFunctionAddressForPlatform, NO) \
  X(clCreateContext, CONTEXT)                     \
  X(clCreateContextFromType, CONTEXT)             \
  X(clCreateCommandQueue, MAKE)                   \
  X(clCreateCommandQueueWithProperties, MAKE)     \
  X(clCreateBuffer, BUFFER)                       \
  X(clCreateSubBuffer, BUFFER)                    \
  X(clCreateProgramWithSource, MAKE)              \
  X(clCreateProgramWithBinary, BINARY)            \
  X(clBuildProgram, BUILD)                        \
  X(clCreateKernel, KERNEL)                       \
  X(clCreateUserEvent, MAKE)                      \
  X(clSetUserEventStatus, INFO)                   \
  X(clSetEventCallback, INFO)                     \
  X(clSetKernelArg, ARG)                          \
  X(clEnqueueNDRangeKernel, QUEUE)                \
  X(clEnqueueReadBuffer, QUEUE)                   \
  X(clEnqueueWriteBuffer, QUEUE)                  \
  X(clEnqueueCopyBuffer, QUEUE)                   \
  X(clEnqueueFillBuffer, QUEUE)                   \
  X(clEnqueueMapBuffer, QUEUE)                    \
  X(clEnqueueUnmapMemObject, QUEUE)               \
  X(clEnqueueMarkerWithWaitList, QUEUE)           \
  X(clEnqueueBarrierWithWaitList, QUEUE)          \
  X(clFlush, WAIT)                                \
  X(clFinish, WAIT)                               \
  X(clWaitForEvents, EVENTS)                      \
  X(clRetainContext, INFO)                        \
  X(clRetainCommandQueue, INFO)                   \
  X(clRetainMemObject, INFO)                      \
  X(clRetainProgram, INFO)                        \
  X(clRetainKernel, INFO)                         \
  X(clRetainEvent, INFO)                          \
  X(clReleaseContext, INFO)                       \
  X(clReleaseCommandQueue, INFO)                  \
  X(clReleaseMemObject, INFO)                     \
  X(clReleaseProgram, INFO)                       \
  X(clReleaseKernel, INFO)                        \
  X(clReleaseEvent, INFO)

/* Those that drivers are asked for by name. */
#define EXTENSIONS(X)                 \
  X(clCreateCommandBufferKHR, MAKE)   \
  X(clFinalizeCommandBufferKHR, INFO) \
  X(clCommandNDRangeKernelKHR, INFO)  \
  X(clEnqueueCommandBufferKHR, QUEUE)

enum { LOST = -9999 }; /* what drivers of NVIDIA say after a fault */
enum codes { NO, INFO, TIMES, CONTEXT, MAKE, BUFFER, BINARY, BUILD, KERNEL, ARG, QUEUE, WAIT, EVENTS, N_CODES };
static const cl_int codes[N_CODES][6] = {
    [NO] = {CL_OUT_OF_RESOURCES},
    [INFO] = {CL_OUT_OF_RESOURCES, CL_OUT_OF_HOST_MEMORY},
    [TIMES] = {CL_PROFILING_INFO_NOT_AVAILABLE, CL_OUT_OF_RESOURCES},
    [CONTEXT] = {CL_DEVICE_NOT_AVAILABLE, CL_OUT_OF_HOST_MEMORY},
    [MAKE] = {CL_OUT_OF_HOST_MEMORY, CL_OUT_OF_RESOURCES},
    [BUFFER] = {CL_MEM_OBJECT_ALLOCATION_FAILURE, CL_OUT_OF_RESOURCES, CL_OUT_OF_HOST_MEMORY},
    [BINARY] = {CL_INVALID_BINARY, CL_OUT_OF_HOST_MEMORY},
    [BUILD] = {CL_BUILD_PROGRAM_FAILURE, CL_COMPILER_NOT_AVAILABLE, CL_OUT_OF_HOST_MEMORY},
    [KERNEL] = {CL_INVALID_KERNEL_NAME, CL_OUT_OF_RESOURCES, CL_OUT_OF_HOST_MEMORY},
    [ARG] = {CL_OUT_OF_RESOURCES, CL_OUT_OF_HOST_MEMORY, CL_INVALID_ARG_SIZE},
    [QUEUE] = {CL_OUT_OF_RESOURCES, CL_MEM_OBJECT_ALLOCATION_FAILURE, CL_DEVICE_NOT_AVAILABLE, CL_OUT_OF_HOST_MEMORY,
               CL_INVALID_COMMAND_QUEUE, LOST},
    [WAIT] = {CL_OUT_OF_RESOURCES, LOST, CL_OUT_OF_HOST_MEMORY, CL_INVALID_COMMAND_QUEUE},
    [EVENTS] = {CL_EXEC_STATUS_ERROR_FOR_EVENTS_IN_WAIT_LIST, LOST, CL_OUT_OF_RESOURCES},
};

#define FUNCTION_ID(name, code) F_##name,
enum function { FUNCTIONS(FUNCTION_ID) EXTENSIONS(FUNCTION_ID) N_FUNCTIONS };
#define FUNCTION_ROW(name, code) {#name, code},
static const struct {
  const char *name;
  enum codes codes;
} functions[N_FUNCTIONS] = {FUNCTIONS(FUNCTION_ROW) EXTENSIONS(FUNCTION_ROW)};

static const char *name_of(uint32_t function) { return function < N_FUNCTIONS ? functions[function].name : NULL; }

extern cl_faults cl_faults_state __attribute__((visibility("default")));
cl_faults cl_faults_state = {.name = name_of};
static cl_faults *const f = &cl_faults_state;
static const cl_icd_dispatch *next;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static cl_int late_code; /* waits to be said */

static bool starts(const char *name, const char *word) { return strncmp(name, word, strlen(word)) == 0; }

/* Counts a call; what it has to say instead of what it does, or CL_SUCCESS. */
static cl_int begin(enum function id) {
  const char *name = functions[id].name;
  if (f->only && strcmp(f->only, name) != 0)
    return CL_SUCCESS;
  cl_int code = CL_SUCCESS;
  pthread_mutex_lock(&lock);
  if (f->calls < CL_FAULTS_TRACE) {
    f->trace[f->calls].function = (uint8_t)id;
    f->trace[f->calls].phase = (uint8_t)f->phase;
  }
  f->calls++;
  if (f->fail_at && f->calls == f->fail_at) {
    const cl_int *list = codes[functions[id].codes];
    uint32_t n = 1;
    while (n < 6 && list[n])
      n++;
    code = f->code = list[f->variant % n];
    f->failed = name;
    f->failed_phase = f->phase;
  } else if (f->failed && f->forever && !starts(name, "clRelease"))
    code = f->code;
  pthread_mutex_unlock(&lock);
  return code;
}

static void count(int kind, long by) {
  pthread_mutex_lock(&lock);
  f->references[kind] += by;
  if (kind == CL_FAULTS_EVENT && by > 0)
    f->events++;
  pthread_mutex_unlock(&lock);
}

static cl_int take_late(void) {
  pthread_mutex_lock(&lock);
  const cl_int code = late_code;
  late_code = CL_SUCCESS;
  pthread_mutex_unlock(&lock);
  return code;
}

/* Whether a call that does not wait is dropped, and so is all that comes after it, until one that waits says why. */
static bool is_dropped(cl_int code) {
  pthread_mutex_lock(&lock);
  if (code && f->late && !late_code)
    late_code = code;
  const bool dropped = late_code != CL_SUCCESS;
  pthread_mutex_unlock(&lock);
  return dropped;
}

/* It was queued, as far as its caller knows. */
static cl_int drop(cl_command_queue q, cl_event *event) {
  const cl_int marked = event ? next->clEnqueueMarkerWithWaitList(q, 0, NULL, event) : CL_SUCCESS;
  if (event && marked == CL_SUCCESS)
    count(CL_FAULTS_EVENT, 1);
  return marked;
}

/* ---- functions that give a status ---- */
#define STATUS(name, parameters, arguments)        \
  static cl_int CL_API_CALL my_##name parameters { \
    const cl_int code = begin(F_##name);           \
    return code ? code : next->name arguments;     \
  }
STATUS(clGetPlatformIDs, (cl_uint n, cl_platform_id *p, cl_uint *all), (n, p, all))
STATUS(clGetPlatformInfo, (cl_platform_id p, cl_platform_info what, size_t n, void *v, size_t *all),
       (p, what, n, v, all))
STATUS(clGetDeviceIDs, (cl_platform_id p, cl_device_type type, cl_uint n, cl_device_id *d, cl_uint *all),
       (p, type, n, d, all))
STATUS(clGetContextInfo, (cl_context x, cl_context_info what, size_t n, void *v, size_t *all), (x, what, n, v, all))
STATUS(clGetCommandQueueInfo, (cl_command_queue x, cl_command_queue_info what, size_t n, void *v, size_t *all),
       (x, what, n, v, all))
STATUS(clGetMemObjectInfo, (cl_mem x, cl_mem_info what, size_t n, void *v, size_t *all), (x, what, n, v, all))
STATUS(clGetProgramInfo, (cl_program x, cl_program_info what, size_t n, void *v, size_t *all), (x, what, n, v, all))
STATUS(clGetKernelInfo, (cl_kernel x, cl_kernel_info what, size_t n, void *v, size_t *all), (x, what, n, v, all))
STATUS(clGetKernelArgInfo, (cl_kernel x, cl_uint i, cl_kernel_arg_info what, size_t n, void *v, size_t *all),
       (x, i, what, n, v, all))
STATUS(clGetKernelWorkGroupInfo,
       (cl_kernel x, cl_device_id d, cl_kernel_work_group_info what, size_t n, void *v, size_t *all),
       (x, d, what, n, v, all))
STATUS(clGetKernelSubGroupInfo,
       (cl_kernel x, cl_device_id d, cl_kernel_sub_group_info what, size_t n_in, const void *in, size_t n, void *v,
        size_t *all),
       (x, d, what, n_in, in, n, v, all))
STATUS(clGetEventInfo, (cl_event x, cl_event_info what, size_t n, void *v, size_t *all), (x, what, n, v, all))
STATUS(clGetEventProfilingInfo, (cl_event x, cl_profiling_info what, size_t n, void *v, size_t *all),
       (x, what, n, v, all))
STATUS(clGetDeviceAndHostTimer, (cl_device_id d, cl_ulong *device, cl_ulong *host), (d, device, host))
STATUS(clGetHostTimer, (cl_device_id d, cl_ulong *host), (d, host))
STATUS(clSetUserEventStatus, (cl_event x, cl_int status), (x, status))
STATUS(clSetEventCallback, (cl_event x, cl_int status, void(CL_CALLBACK *call)(cl_event, cl_int, void *), void *data),
       (x, status, call, data))

/* Kernels that wait for something are told how long: not at all. */
static bool is_hurried(cl_kernel k) {
  char options[1024] = "";
  cl_program program;
  cl_device_id device; /* the first one that has the program */
  return next->clGetKernelInfo(k, CL_KERNEL_PROGRAM, sizeof program, (void *)&program, NULL) == CL_SUCCESS &&
         next->clGetProgramInfo(program, CL_PROGRAM_DEVICES, sizeof device, (void *)&device, NULL) == CL_SUCCESS &&
         next->clGetProgramBuildInfo(program, device, CL_PROGRAM_BUILD_OPTIONS, sizeof options, options, NULL) ==
             CL_SUCCESS &&
         strstr(options, f->hurried);
}

static cl_int CL_API_CALL my_clSetKernelArg(cl_kernel k, cl_uint i, size_t n, const void *v) {
  static const cl_uint none = 0;
  const cl_int code = begin(F_clSetKernelArg);
  if (code)
    return code;
  return next->clSetKernelArg(k, i, n, f->hurried && n == sizeof none && is_hurried(k) ? &none : v);
}

STATUS(clFlush, (cl_command_queue q), (q))

/* Of the driver, by whose own types: those of the headers have changed with the extension. */
static struct {
  void *(CL_API_CALL *clCreateCommandBufferKHR)(cl_uint, const cl_command_queue *, const cl_ulong *, cl_int *);
  cl_int(CL_API_CALL *clFinalizeCommandBufferKHR)(void *);
  cl_int(CL_API_CALL *clCommandNDRangeKernelKHR)(void *, cl_command_queue, const cl_ulong *, cl_kernel, cl_uint,
                                                 const size_t *, const size_t *, const size_t *, cl_uint,
                                                 const cl_uint *, cl_uint *, void *);
  cl_int(CL_API_CALL *clEnqueueCommandBufferKHR)(cl_uint, cl_command_queue *, void *, cl_uint, const cl_event *,
                                                 cl_event *);
} extended;

static void *CL_API_CALL my_clCreateCommandBufferKHR(cl_uint n, const cl_command_queue *q, const cl_ulong *p,
                                                     cl_int *status) {
  const cl_int code = begin(F_clCreateCommandBufferKHR);
  if (!code)
    return extended.clCreateCommandBufferKHR(n, q, p, status);
  *status = code;
  return NULL;
}

static cl_int CL_API_CALL my_clFinalizeCommandBufferKHR(void *b) {
  const cl_int code = begin(F_clFinalizeCommandBufferKHR);
  return code ? code : extended.clFinalizeCommandBufferKHR(b);
}

static cl_int CL_API_CALL my_clCommandNDRangeKernelKHR(void *b, cl_command_queue q, const cl_ulong *p, cl_kernel k,
                                                       cl_uint axes, const size_t *offset, const size_t *global,
                                                       const size_t *local, cl_uint n, const cl_uint *before,
                                                       cl_uint *after, void *handle) {
  const cl_int code = begin(F_clCommandNDRangeKernelKHR);
  return code ? code
              : extended.clCommandNDRangeKernelKHR(b, q, p, k, axes, offset, global, local, n, before, after, handle);
}

static cl_int CL_API_CALL my_clEnqueueCommandBufferKHR(cl_uint n, cl_command_queue *q, void *b, cl_uint n_before,
                                                       const cl_event *before, cl_event *event) {
  const cl_int code = begin(F_clEnqueueCommandBufferKHR);
  if (is_dropped(code))
    return CL_SUCCESS;
  return code ? code : extended.clEnqueueCommandBufferKHR(n, q, b, n_before, before, event);
}

static void *CL_API_CALL my_clGetExtensionFunctionAddressForPlatform(cl_platform_id p, const char *name) {
  if (begin(F_clGetExtensionFunctionAddressForPlatform) || (f->more_extensions && strstr(name, "KHR")))
    return NULL;
  void *real = next->clGetExtensionFunctionAddressForPlatform(p, name), *mine = NULL;
#define EXTENDED(function, code)                              \
  if (real && strcmp(name, #function) == 0) {                 \
    void (*const call)(void) = (void (*)(void))my_##function; \
    memcpy(&extended.function, &real, sizeof real);           \
    memcpy(&mine, &call, sizeof mine);                        \
  }
  EXTENSIONS(EXTENDED)
  return mine ? mine : real;
}

/* ---- objects ---- */
#define MAKER(type, kind, name, parameters, arguments) \
  static type CL_API_CALL my_##name parameters {       \
    const cl_int code = begin(F_##name);               \
    if (code) {                                        \
      if (status)                                      \
        *status = code;                                \
      return NULL;                                     \
    }                                                  \
    type made = next->name arguments;                  \
    if (made)                                          \
      count(kind, 1);                                  \
    return made;                                       \
  }
typedef void(CL_CALLBACK *context_call)(const char *, const void *, size_t, void *);
MAKER(cl_context, CL_FAULTS_CONTEXT, clCreateContext,
      (const cl_context_properties *p, cl_uint n, const cl_device_id *d, context_call call, void *data, cl_int *status),
      (p, n, d, call, data, status))
MAKER(cl_context, CL_FAULTS_CONTEXT, clCreateContextFromType,
      (const cl_context_properties *p, cl_device_type type, context_call call, void *data, cl_int *status),
      (p, type, call, data, status))
MAKER(cl_command_queue, CL_FAULTS_QUEUE, clCreateCommandQueue,
      (cl_context c, cl_device_id d, cl_command_queue_properties p, cl_int *status), (c, d, p, status))
MAKER(cl_command_queue, CL_FAULTS_QUEUE, clCreateCommandQueueWithProperties,
      (cl_context c, cl_device_id d, const cl_queue_properties *p, cl_int *status), (c, d, p, status))
MAKER(cl_mem, CL_FAULTS_MEM, clCreateBuffer, (cl_context c, cl_mem_flags flags, size_t n, void *p, cl_int *status),
      (c, flags, n, p, status))
MAKER(cl_mem, CL_FAULTS_MEM, clCreateSubBuffer,
      (cl_mem m, cl_mem_flags flags, cl_buffer_create_type type, const void *p, cl_int *status),
      (m, flags, type, p, status))
/* A compiler that gets something wrong: the driver is handed another text than the program's. */
static cl_program with_source(cl_context c, cl_uint n, const char **text, const size_t *sizes, cl_int *status) {
  const size_t n_from = f->miscompiled ? strlen(f->miscompiled) : 0, n_to = n_from ? strlen(f->as) : 0;
  const char *at = n_from && n == 1 && sizes ? memmem(text[0], sizes[0], f->miscompiled, n_from) : NULL;
  char *copy = at && n_to <= n_from ? malloc(sizes[0]) : NULL;
  if (!copy)
    return next->clCreateProgramWithSource(c, n, text, sizes, status);
  char *to = copy + (at - text[0]);
  memcpy(copy, text[0], sizes[0]);
  memset(to, ' ', n_from);
  memcpy(to, f->as, n_to);
  const char *other = copy;
  const cl_program program = next->clCreateProgramWithSource(c, 1, &other, sizes, status);
  free(copy);
  return program;
}

static cl_program CL_API_CALL my_clCreateProgramWithSource(cl_context c, cl_uint n, const char **text,
                                                           const size_t *sizes, cl_int *status) {
  const cl_int code = begin(F_clCreateProgramWithSource);
  if (code) {
    if (status)
      *status = code;
    return NULL;
  }
  const cl_program program = with_source(c, n, text, sizes, status);
  if (program)
    count(CL_FAULTS_PROGRAM, 1);
  return program;
}

MAKER(cl_program, CL_FAULTS_PROGRAM, clCreateProgramWithBinary,
      (cl_context c, cl_uint n, const cl_device_id *d, const size_t *sizes, const unsigned char **binaries,
       cl_int *each, cl_int *status),
      (c, n, d, sizes, binaries, each, status))
MAKER(cl_kernel, CL_FAULTS_KERNEL, clCreateKernel, (cl_program p, const char *name, cl_int *status), (p, name, status))
MAKER(cl_event, CL_FAULTS_EVENT, clCreateUserEvent, (cl_context c, cl_int *status), (c, status))

/* What is released is gone, whatever the call says: else every such fault would be a leak. */
#define COUNTED(type, kind, object)                              \
  static cl_int CL_API_CALL my_clRetain##object(type x) {        \
    const cl_int code = begin(F_clRetain##object);               \
    const cl_int real = code ? code : next->clRetain##object(x); \
    if (real == CL_SUCCESS)                                      \
      count(kind, 1);                                            \
    return real;                                                 \
  }                                                              \
  static cl_int CL_API_CALL my_clRelease##object(type x) {       \
    const cl_int code = begin(F_clRelease##object);              \
    const cl_int real = next->clRelease##object(x);              \
    if (real == CL_SUCCESS)                                      \
      count(kind, -1);                                           \
    return code ? code : real;                                   \
  }
COUNTED(cl_context, CL_FAULTS_CONTEXT, Context)
COUNTED(cl_command_queue, CL_FAULTS_QUEUE, CommandQueue)
COUNTED(cl_mem, CL_FAULTS_MEM, MemObject)
COUNTED(cl_program, CL_FAULTS_PROGRAM, Program)
COUNTED(cl_kernel, CL_FAULTS_KERNEL, Kernel)
COUNTED(cl_event, CL_FAULTS_EVENT, Event)

/* ---- queues ---- */
#define QUEUED(name, waits, parameters, arguments)                        \
  static cl_int CL_API_CALL my_##name parameters {                        \
    const cl_int code = begin(F_##name);                                  \
    if (!(waits) && is_dropped(code))                                     \
      return drop(q, event);                                              \
    const cl_int late = (waits) ? take_late() : CL_SUCCESS;               \
    const cl_int real = code ? code : late ? late : next->name arguments; \
    if (event && real == CL_SUCCESS)                                      \
      count(CL_FAULTS_EVENT, 1);                                          \
    return real;                                                          \
  }
#define LAST cl_uint n_before, const cl_event *before_it, cl_event *event
QUEUED(clEnqueueReadBuffer, wait, (cl_command_queue q, cl_mem m, cl_bool wait, size_t at, size_t n, void *p, LAST),
       (q, m, wait, at, n, p, n_before, before_it, event))
QUEUED(clEnqueueWriteBuffer, wait,
       (cl_command_queue q, cl_mem m, cl_bool wait, size_t at, size_t n, const void *p, LAST),
       (q, m, wait, at, n, p, n_before, before_it, event))
QUEUED(clEnqueueCopyBuffer, false,
       (cl_command_queue q, cl_mem from, cl_mem to, size_t from_at, size_t to_at, size_t n, LAST),
       (q, from, to, from_at, to_at, n, n_before, before_it, event))
QUEUED(clEnqueueFillBuffer, false,
       (cl_command_queue q, cl_mem m, const void *pattern, size_t n_pattern, size_t at, size_t n, LAST),
       (q, m, pattern, n_pattern, at, n, n_before, before_it, event))
QUEUED(clEnqueueUnmapMemObject, false, (cl_command_queue q, cl_mem m, void *p, LAST),
       (q, m, p, n_before, before_it, event))
QUEUED(clEnqueueMarkerWithWaitList, false, (cl_command_queue q, LAST), (q, n_before, before_it, event))
QUEUED(clEnqueueBarrierWithWaitList, false, (cl_command_queue q, LAST), (q, n_before, before_it, event))

static cl_int CL_API_CALL my_clEnqueueNDRangeKernel(cl_command_queue q, cl_kernel k, cl_uint axes, const size_t *offset,
                                                    const size_t *global, const size_t *local, LAST) {
  const cl_int code = begin(F_clEnqueueNDRangeKernel);
  if (is_dropped(code))
    return drop(q, event);
  const cl_int real =
      code ? code : next->clEnqueueNDRangeKernel(q, k, axes, offset, global, local, n_before, before_it, event);
  if (real == CL_SUCCESS) {
    pthread_mutex_lock(&lock);
    f->launches++;
    pthread_mutex_unlock(&lock);
    if (event)
      count(CL_FAULTS_EVENT, 1);
  }
  return real;
}

static void *CL_API_CALL my_clEnqueueMapBuffer(cl_command_queue q, cl_mem m, cl_bool wait, cl_map_flags flags,
                                               size_t at, size_t n, LAST, cl_int *status) {
  cl_int code = begin(F_clEnqueueMapBuffer);
  if (!code && wait)
    code = take_late();
  if (code) {
    if (status)
      *status = code;
    return NULL;
  }
  void *p = next->clEnqueueMapBuffer(q, m, wait, flags, at, n, n_before, before_it, event, status);
  if (p && event)
    count(CL_FAULTS_EVENT, 1);
  return p;
}

/* The work is waited for even where the call fails: what it wrote to may be freed then. */
static cl_int CL_API_CALL my_clFinish(cl_command_queue q) {
  const cl_int code = begin(F_clFinish), real = next->clFinish(q), late = take_late();
  return code ? code : late ? late : real;
}

static cl_int CL_API_CALL my_clWaitForEvents(cl_uint n, const cl_event *events) {
  const cl_int code = begin(F_clWaitForEvents), real = next->clWaitForEvents(n, events), late = take_late();
  return code ? code : late ? late : real;
}

/* ---- lies ---- */
enum { TEXT, NUMBER };
#define TOLD(X)                                  \
  X(CL_DEVICE_NAME, TEXT)                        \
  X(CL_DEVICE_VENDOR, TEXT)                      \
  X(CL_DEVICE_VERSION, TEXT)                     \
  X(CL_DRIVER_VERSION, TEXT)                     \
  X(CL_DEVICE_TYPE, NUMBER)                      \
  X(CL_DEVICE_MAX_WORK_GROUP_SIZE, NUMBER)       \
  X(CL_DEVICE_MAX_COMPUTE_UNITS, NUMBER)         \
  X(CL_DEVICE_LOCAL_MEM_SIZE, NUMBER)            \
  X(CL_DEVICE_GLOBAL_MEM_SIZE, NUMBER)           \
  X(CL_DEVICE_MAX_MEM_ALLOC_SIZE, NUMBER)        \
  X(CL_DEVICE_HOST_UNIFIED_MEMORY, NUMBER)       \
  X(CL_DEVICE_NATIVE_VECTOR_WIDTH_FLOAT, NUMBER) \
  X(CL_DEVICE_NATIVE_VECTOR_WIDTH_DOUBLE, NUMBER)
#define TOLD_ROW(name, kind) {#name, name, kind},
static const struct {
  const char *name;
  cl_device_info what;
  int kind;
} told[] = {TOLD(TOLD_ROW)};

/* As a driver answers, but it writes no more than a megabyte of a text. */
static cl_int tell_text(char letter, uint64_t length, size_t n, void *v, size_t *all) {
  enum { MOST = 1 << 20 };
  if (v && n)
    memset(v, letter, n < length ? (n < MOST ? n : MOST) : (length < MOST ? (size_t)length : MOST));
  if (v && n > length && length < MOST)
    ((char *)v)[length] = 0;
  if (all)
    *all = length == UINT64_MAX ? SIZE_MAX : (size_t)length + 1;
  return CL_SUCCESS;
}

static cl_int CL_API_CALL my_clGetDeviceInfo(cl_device_id d, cl_device_info what, size_t n, void *v, size_t *all) {
  const cl_int code = begin(F_clGetDeviceInfo);
  if (code)
    return code;
  for (size_t i = 0; i < CL_FAULTS_LIES && f->lies[i].what; i++)
    for (size_t k = 0; k < sizeof told / sizeof *told; k++) {
      if (told[k].what != what || strcmp(told[k].name, f->lies[i].what) != 0)
        continue;
      if (told[k].kind == TEXT)
        return tell_text('?', f->lies[i].value, n, v, all);
      const cl_int real = next->clGetDeviceInfo(d, what, n, v, all);
      if (v) /* little-endian, as all machines are that this runs on */
        memcpy(v, &f->lies[i].value, n < sizeof f->lies[i].value ? n : sizeof f->lies[i].value);
      return real;
    }
  if (what != CL_DEVICE_EXTENSIONS || !f->more_extensions)
    return next->clGetDeviceInfo(d, what, n, v, all);
  char text[1 << 14] = "";
  const cl_int real = next->clGetDeviceInfo(d, what, sizeof text / 2, text, NULL);
  strncat(text, " ", 2);
  strncat(text, f->more_extensions, sizeof text / 2 - 2);
  if (v && n > strlen(text))
    strcpy(v, text);
  else if (v)
    return CL_INVALID_VALUE;
  if (all)
    *all = strlen(text) + 1;
  return real;
}

static cl_int CL_API_CALL my_clBuildProgram(cl_program p, cl_uint n, const cl_device_id *d, const char *options,
                                            void(CL_CALLBACK *call)(cl_program, void *), void *data) {
  const cl_int code = begin(F_clBuildProgram);
  if (code)
    return code;
  if (f->build_fails_with && options && strstr(options, f->build_fails_with))
    return CL_BUILD_PROGRAM_FAILURE;
  return next->clBuildProgram(p, n, d, options, call, data);
}

static cl_int CL_API_CALL my_clGetProgramBuildInfo(cl_program p, cl_device_id d, cl_program_build_info what, size_t n,
                                                   void *v, size_t *all) {
  const cl_int code = begin(F_clGetProgramBuildInfo);
  if (code)
    return code;
  return f->build_fails_with && what == CL_PROGRAM_BUILD_LOG ? tell_text('!', f->build_log, n, v, all)
                                                             : next->clGetProgramBuildInfo(p, d, what, n, v, all);
}

/* ---- the layer ---- */
static cl_icd_dispatch table;

CL_API_ENTRY cl_int CL_API_CALL clGetLayerInfo(cl_layer_info what, size_t n, void *v, size_t *all) {
  static const char name[] = "cl_faults";
  const cl_layer_api_version version = CL_LAYER_API_VERSION_100;
  const bool is_version = what == CL_LAYER_API_VERSION;
  const size_t size = is_version ? sizeof version : sizeof name;
  if ((!is_version && what != CL_LAYER_NAME) || (v && n < size))
    return CL_INVALID_VALUE;
  if (v)
    memcpy(v, is_version ? (const void *)&version : name, size);
  if (all)
    *all = size;
  return CL_SUCCESS;
}

CL_API_ENTRY cl_int CL_API_CALL clInitLayer(cl_uint n, const cl_icd_dispatch *target, cl_uint *n_out,
                                            const cl_icd_dispatch **out) {
  const cl_uint entries = sizeof table / sizeof table.clGetPlatformIDs;
  if (!target || !n_out || !out || n < entries)
    return CL_INVALID_VALUE;
  next = target;
  table = *target;
#define PUT(name, code) table.name = my_##name;
  FUNCTIONS(PUT)
  *n_out = entries;
  *out = &table;
  return CL_SUCCESS;
}
