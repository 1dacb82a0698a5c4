/* SPDX-License-Identifier: Apache-2.0 */
/*
 * opencl_peak: what an OpenCL implementation makes of a device at most: fused multiply-adds a second in f32, and bytes
 * read a second. The counterpart of limits, which knows no compiler but the one that built it. Prints one JSON object.
 *
 *     opencl_peak [P.D [SECONDS [BYTES]...]]     device D of platform P, 0.0 unless said; 0.3 seconds a measurement
 *
 * BYTES is what each compute unit reads again and again: of the size of a cache, or far larger for memory. A single
 * work-group's multiply-adds are told too: on a processor they run on one core, and show the width of its vectors even
 * where other programs keep other cores busy.
 */
#define CL_TARGET_OPENCL_VERSION 120
#include <CL/cl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define LAUNCH_SECONDS 0.004 /* long beside what a launch costs, short beside a turn of the system's scheduler */
#define MOST_COUNT (1 << 28)
#define CHAINS 12
#define LOADS 8
#define MAX_DEVICES 16
#define PLACES_CPU 16 /* groups of one item for each unit: one that is held up does not hold up all */
#define ITEMS_GPU 2048
#define GROUP_GPU 256
#define MAX_SIZES 8

/*
 * As in limits.c: twelve chains hide the latency, and every start is a read of its own, because chains that a compiler
 * knows to be equal become one. The values run to 2.
 */
static const char source[] =
    "#define EACH(f) f(0) f(1) f(2) f(3) f(4) f(5) f(6) f(7) f(8) f(9) f(10) f(11)\n"
    "#define START(i) VEC c##i = (VEC)(in[i]);\n"
    "#define STEP(i) c##i = fma(c##i, x, y);\n"
    "#define SUM(i) sum += c##i;\n"
    "__kernel void multiply_add(__global const float *in, __global VEC *out, int rounds) {\n"
    "  const VEC x = (VEC)(in[12]), y = (VEC)(in[13]);\n"
    "  EACH(START)\n"
    "  for (int n = 0; n < rounds; n++) {\n"
    "    EACH(STEP)\n"
    "  }\n"
    "  VEC sum = (VEC)(0.0f);\n"
    "  EACH(SUM)\n"
    "  out[get_global_id(0)] = sum;\n"
    "}\n"
    "__kernel void read(__global const VEC *data, __global VEC *out, int n, int first, int stride, int times) {\n"
    "  VEC a = (VEC)(0.0f), b = a, c = a, d = a, e = a, f = a, g = a, h = a;\n"
    "  const size_t start = get_global_id(0) * (size_t)first, step = (size_t)stride;\n"
    "  for (int k = 0; k < times; k++)\n"
    "    for (int i = 0; i < n; i += 8) {\n"
    "      __global const VEC *at = data + start + (size_t)i * step;\n"
    "      a += at[0];\n"
    "      b += at[step];\n"
    "      c += at[2 * step];\n"
    "      d += at[3 * step];\n"
    "      e += at[4 * step];\n"
    "      f += at[5 * step];\n"
    "      g += at[6 * step];\n"
    "      h += at[7 * step];\n"
    "    }\n"
    "  out[get_global_id(0)] = a + b + c + d + e + f + g + h;\n"
    "}\n";

typedef struct bench {
  cl_device_id device;
  cl_context context;
  cl_command_queue queue;
  bool gpu;
  size_t units, items, group; /* of a launch of multiply_add */
  double seconds;
} bench;

typedef struct kernels {
  cl_program program;
  cl_kernel multiply_add, read;
  size_t lanes;
} kernels;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void check(cl_int code, const char *what) {
  if (code == CL_SUCCESS)
    return;
  fprintf(stderr, "opencl_peak: %s gave %d\n", what, (int)code);
  exit(1);
}

static cl_device_id find_device(const char *name) {
  char *end = NULL;
  const unsigned long platform = strtoul(name, &end, 10);
  const bool named = end != name && *end == '.';
  const unsigned long device = named ? strtoul(end + 1, &end, 10) : 0;
  cl_platform_id platforms[MAX_DEVICES];
  cl_device_id devices[MAX_DEVICES];
  cl_uint n = 0;
  if (!named || *end || clGetPlatformIDs(MAX_DEVICES, platforms, &n) != CL_SUCCESS || platform >= n ||
      platform >= MAX_DEVICES ||
      clGetDeviceIDs(platforms[platform], CL_DEVICE_TYPE_ALL, MAX_DEVICES, devices, &n) != CL_SUCCESS || device >= n ||
      device >= MAX_DEVICES) {
    fprintf(stderr, "opencl_peak: there is no device %s\n", name);
    exit(1);
  }
  return devices[device];
}

static bench open_device(const char *name, double seconds) {
  bench b = {.device = find_device(name), .seconds = seconds};
  cl_device_type type = 0;
  cl_uint units = 0;
  cl_int code = CL_SUCCESS;
  check(clGetDeviceInfo(b.device, CL_DEVICE_TYPE, sizeof type, &type, NULL), "the device's type");
  check(clGetDeviceInfo(b.device, CL_DEVICE_MAX_COMPUTE_UNITS, sizeof units, &units, NULL), "the number of units");
  b.gpu = (type & CL_DEVICE_TYPE_GPU) != 0;
  b.units = units;
  b.group = b.gpu ? GROUP_GPU : 1;
  b.items = b.units * (b.gpu ? ITEMS_GPU : PLACES_CPU);
  b.context = clCreateContext(NULL, 1, &b.device, NULL, NULL, &code);
  check(code, "clCreateContext");
  b.queue = clCreateCommandQueue(b.context, b.device, 0, &code);
  check(code, "clCreateCommandQueue");
  return b;
}

static void close_device(bench *b) {
  clReleaseCommandQueue(b->queue);
  clReleaseContext(b->context);
}

static kernels build(const bench *b, size_t lanes) {
  kernels k = {.lanes = lanes};
  const char *text = source;
  char options[32];
  cl_int code = CL_SUCCESS;
  if (lanes > 1)
    snprintf(options, sizeof options, "-DVEC=float%zu", lanes);
  else
    snprintf(options, sizeof options, "-DVEC=float");
  k.program = clCreateProgramWithSource(b->context, 1, &text, NULL, &code);
  check(code, "clCreateProgramWithSource");
  check(clBuildProgram(k.program, 1, &b->device, options, NULL, NULL), "clBuildProgram");
  k.multiply_add = clCreateKernel(k.program, "multiply_add", &code);
  check(code, "clCreateKernel");
  k.read = clCreateKernel(k.program, "read", &code);
  check(code, "clCreateKernel");
  return k;
}

static void release(kernels *k) {
  clReleaseKernel(k->read);
  clReleaseKernel(k->multiply_add);
  clReleaseProgram(k->program);
}

static cl_mem allocate(const bench *b, size_t bytes) {
  cl_int code = CL_SUCCESS;
  cl_mem buffer = clCreateBuffer(b->context, CL_MEM_READ_WRITE, bytes, NULL, &code);
  check(code, "clCreateBuffer");
  return buffer;
}

static void set(cl_kernel kernel, cl_uint index, size_t size, const void *value) {
  check(clSetKernelArg(kernel, index, size, value), "clSetKernelArg");
}

/* Seconds of a launch whose last argument, a number of repetitions, is count. */
static double launch(const bench *b, cl_kernel kernel, cl_uint last, size_t items, cl_int count) {
  set(kernel, last, sizeof count, &count);
  const double start = now();
  check(clEnqueueNDRangeKernel(b->queue, kernel, 1, NULL, &items, &b->group, 0, NULL, NULL), "clEnqueueNDRangeKernel");
  check(clFinish(b->queue), "clFinish");
  return now() - start;
}

/* The best rate of many launches: repetitions a second. The first one compiles, with some implementations. */
static double best_rate(const bench *b, cl_kernel kernel, cl_uint last, size_t items) {
  cl_int count = 1;
  (void)launch(b, kernel, last, items, count);
  while (launch(b, kernel, last, items, count) < LAUNCH_SECONDS && count < MOST_COUNT)
    count *= 2;
  double best = 0;
  for (double start = now(); now() - start < b->seconds;) {
    const double rate = count / launch(b, kernel, last, items, count);
    best = rate > best ? rate : best;
  }
  return best;
}

/* Operations a second of so many items; a fused multiply-add is two. */
static double measure_flops(const bench *b, const kernels *k, size_t items) {
  float values[CHAINS + 2];
  for (int i = 0; i < CHAINS + 2; i++)
    values[i] = i == CHAINS + 1 ? 1.0f : 0.5f;
  cl_mem in = allocate(b, sizeof values), out = allocate(b, items * k->lanes * sizeof(float));
  check(clEnqueueWriteBuffer(b->queue, in, CL_TRUE, 0, sizeof values, values, 0, NULL, NULL), "clEnqueueWriteBuffer");
  set(k->multiply_add, 0, sizeof in, &in);
  set(k->multiply_add, 1, sizeof out, &out);
  const double rate = best_rate(b, k->multiply_add, 2, items);
  clReleaseMemObject(out);
  clReleaseMemObject(in);
  return rate * (double)(items * k->lanes * CHAINS * 2);
}

/* Bytes a second of all units. On a processor each reads a stretch of its own, on a GPU neighbours read neighbours. */
static double measure_read(const bench *b, const kernels *k, size_t unit_bytes) {
  const size_t items = b->gpu ? b->items : b->units, width = k->lanes * sizeof(float);
  const size_t n = b->units * unit_bytes / items / width / LOADS * LOADS;
  if (n == 0 || n > INT32_MAX) {
    fprintf(stderr, "opencl_peak: %zu bytes for each of %zu units are too few or too many\n", unit_bytes, b->units);
    exit(1);
  }
  const cl_int count = (cl_int)n, first = b->gpu ? 1 : (cl_int)n, stride = b->gpu ? (cl_int)items : 1;
  const float one = 1.0f;
  cl_mem data = allocate(b, items * n * width), out = allocate(b, items * width);
  check(clEnqueueFillBuffer(b->queue, data, &one, sizeof one, 0, items * n * width, 0, NULL, NULL),
        "clEnqueueFillBuffer");
  set(k->read, 0, sizeof data, &data);
  set(k->read, 1, sizeof out, &out);
  set(k->read, 2, sizeof count, &count);
  set(k->read, 3, sizeof first, &first);
  set(k->read, 4, sizeof stride, &stride);
  const double rate = best_rate(b, k->read, 5, items);
  clReleaseMemObject(out);
  clReleaseMemObject(data);
  return rate * (double)(items * n * width);
}

static void print_text(const char *name, const char *text) {
  printf("\"%s\":\"", name);
  for (; *text; text++)
    if ((unsigned char)*text >= ' ' && *text != '"' && *text != '\\')
      putchar(*text);
  printf("\",");
}

static void print_device(const bench *b) {
  char text[256] = "";
  cl_platform_id platform = NULL;
  check(clGetDeviceInfo(b->device, CL_DEVICE_PLATFORM, sizeof platform, &platform, NULL), "the device's platform");
  check(clGetPlatformInfo(platform, CL_PLATFORM_NAME, sizeof text, text, NULL), "the platform's name");
  print_text("platform", text);
  check(clGetDeviceInfo(b->device, CL_DEVICE_NAME, sizeof text, text, NULL), "the device's name");
  print_text("device", text);
  check(clGetDeviceInfo(b->device, CL_DRIVER_VERSION, sizeof text, text, NULL), "the driver's version");
  print_text("driver", text);
  printf("\"kind\":\"%s\",\"units\":%zu,", b->gpu ? "gpu" : "cpu", b->units);
}

int main(int argc, char **argv) {
  static const size_t wide[] = {16, 8}, narrow[] = {4, 1};
  const char *name = argc > 1 ? argv[1] : "0.0";
  const double seconds = argc > 2 ? atof(argv[2]) : 0.3;
  const int n_sizes = argc > 3 ? argc - 3 : 0;
  if (!(seconds > 0) || n_sizes > MAX_SIZES) {
    fprintf(stderr, "usage: opencl_peak [P.D [SECONDS [BYTES]...]]\n");
    return 2;
  }
  bench b = open_device(name, seconds);
  double flops = 0, group_flops = 0, read[MAX_SIZES] = {0};
  size_t lanes = 0;
  for (int i = 0; i < 2; i++) {
    kernels k = build(&b, b.gpu ? narrow[i] : wide[i]);
    const double rate = measure_flops(&b, &k, b.items), group_rate = measure_flops(&b, &k, b.group);
    group_flops = group_rate > group_flops ? group_rate : group_flops;
    if (rate > flops) {
      flops = rate;
      lanes = k.lanes;
    }
    for (int j = 0; j < n_sizes; j++) {
      const double bytes = measure_read(&b, &k, (size_t)strtoull(argv[3 + j], NULL, 10));
      read[j] = bytes > read[j] ? bytes : read[j];
    }
    release(&k);
  }
  putchar('{');
  print_device(&b);
  printf("\"lanes\":%zu,\"gflops\":%.1f,\"group_gflops\":%.1f,\"read_gbs\":[", lanes, flops / 1e9, group_flops / 1e9);
  for (int j = 0; j < n_sizes; j++)
    printf("%s%.1f", j ? "," : "", read[j] / 1e9);
  printf("]}\n");
  close_device(&b);
  return 0;
}
