/* SPDX-License-Identifier: Apache-2.0 */
/*
 * matrix.c: which matrix instruction of kernels/matrix.cl a device has, and the test that it must pass there before products
 * are made with it. What a driver says decides only what is tried: NVIDIA's PTX is given to no compiler but NVIDIA's,
 * and so on, since others may die of it.
 */
#include "opencl.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* As MATRIX in kernels/matrix.cl. */
enum { EMULATED = 0, NVIDIA_K8 = 1, NVIDIA_K16 = 2, AMD_WMMA = 3, AMD_MFMA = 4, INTEL_8 = 5, INTEL_16 = 6, NONE = -1 };
enum { NOT_TRIED = 0, REFUSED = -1 }; /* of matrix_state; else the instruction's number and 1 */
enum { ROW = MATRIX_DEPTH / 2 + 4 };  /* of local memory, in words of 4 bytes: WORDS in kernels/matmul_matrix.cl */
enum { LARGEST_ROW = 1 << 23 };       /* elements: 128 rows of a tile are within reach of an int */

typedef struct tiling {
  int32_t subgroups_m, subgroups_n, fragments_m, fragments_n;
} tiling;

/* Small and large tiles; the same where a large one would not fit into the device's registers. */
static const struct {
  const char *name;
  int32_t m, n, lanes;
  tiling small, large;
} kinds[] = {
    [EMULATED] = {"none (emulated)", 16, 8, 32, {2, 2, 1, 2}, {2, 4, 2, 2}},
    [NVIDIA_K8] = {"mma.sync m16n8k8", 16, 8, 32, {2, 2, 2, 4}, {2, 4, 4, 4}},
    [NVIDIA_K16] = {"mma.sync m16n8k16", 16, 8, 32, {2, 2, 2, 4}, {2, 4, 4, 4}},
    [AMD_WMMA] = {"wmma 16x16x16", 16, 16, 32, {2, 2, 2, 2}, {4, 2, 2, 2}},
    [AMD_MFMA] = {"mfma 16x16x16", 16, 16, 64, {2, 2, 2, 2}, {2, 2, 4, 4}},
    [INTEL_8] = {"matrix_mad_k16 of 8 lanes", 8, 8, 8, {4, 8, 2, 1}, {4, 8, 2, 1}},
    [INTEL_16] = {"matrix_mad_k16 of 16 lanes", 8, 16, 16, {4, 4, 2, 1}, {4, 4, 2, 1}},
};

/* ---- what a driver says ---- */
static bool says(cl_device_id device, const unroll_host *host, const char *extension) {
  size_t size = 0;
  if (clGetDeviceInfo(device, CL_DEVICE_EXTENSIONS, 0, NULL, &size) != CL_SUCCESS || size == 0 || size > 1 << 20)
    return false;
  char *text = opencl_alloc(host, size + 1, 1);
  const bool said =
      text && clGetDeviceInfo(device, CL_DEVICE_EXTENSIONS, size, text, NULL) == CL_SUCCESS && strstr(text, extension);
  opencl_free(host, text);
  return said;
}

static uint32_t number(cl_device_id device, cl_device_info what) {
  cl_uint value = 0;
  return clGetDeviceInfo(device, what, sizeof value, &value, NULL) == CL_SUCCESS ? value : 0;
}

static int32_t of_nvidia(const unroll_backend_device *d) {
  enum { CAPABILITY_MAJOR = 0x4000, CAPABILITY_MINOR = 0x4001, WARP = 0x4003 };
  cl_device_id device = d->entry->device;
  if (!says(device, d->host, "cl_nv_device_attribute_query") || number(device, WARP) != 32)
    return NONE;
  const uint32_t capability = number(device, CAPABILITY_MAJOR) * 10 + number(device, CAPABILITY_MINOR);
  return capability >= 80 ? NVIDIA_K16 : capability >= 75 ? NVIDIA_K8 : NONE;
}

static int32_t of_amd(const unroll_backend_device *d) {
  static const char *const with_mfma[] = {"gfx908", "gfx90a", "gfx940", "gfx941", "gfx942", "gfx950"};
  enum { WAVEFRONT = 0x4043 };
  const uint32_t lanes = number(d->entry->device, WAVEFRONT);
  const size_t n = strcspn(d->entry->name, ":"); /* gfx90a:sramecc+:xnack- */
  if (lanes == 32 && n == 7 && strncmp(d->entry->name, "gfx11", 5) == 0)
    return AMD_WMMA;
  for (size_t i = 0; i < sizeof with_mfma / sizeof *with_mfma; i++)
    if (lanes == 64 && n == 6 && strncmp(d->entry->name, with_mfma[i], n) == 0)
      return AMD_MFMA;
  return NONE;
}

static int32_t of_intel(const unroll_backend_device *d) {
  enum { SUBGROUP_SIZES = 0x4108 };
  size_t sizes[8] = {0}, bytes = 0, least = 0;
  cl_device_id device = d->entry->device;
  if (!says(device, d->host, "cl_intel_subgroup_matrix_multiply_accumulate") ||
      !says(device, d->host, "cl_intel_required_subgroup_size") ||
      clGetDeviceInfo(device, SUBGROUP_SIZES, sizeof sizes, sizes, &bytes) != CL_SUCCESS || bytes > sizeof sizes)
    return NONE;
  for (size_t i = 0; i < bytes / sizeof *sizes; i++)
    if (least == 0 || sizes[i] < least)
      least = sizes[i];
  return least == 8 ? INTEL_8 : least == 16 ? INTEL_16 : NONE;
}

static int32_t candidate(const unroll_backend_device *d) {
  char platform[128] = "";
  if (d->matrix == MATRIX_EMULATED)
    return EMULATED;
  if (!(d->entry->type & CL_DEVICE_TYPE_GPU) ||
      clGetPlatformInfo(d->entry->platform, CL_PLATFORM_NAME, sizeof platform, platform, NULL) != CL_SUCCESS)
    return NONE;
  if (strcmp(platform, "NVIDIA CUDA") == 0)
    return of_nvidia(d);
  if (strcmp(platform, "AMD Accelerated Parallel Processing") == 0)
    return of_amd(d);
  return strncmp(platform, "Intel", 5) == 0 ? of_intel(d) : NONE;
}

/* ---- tiles ---- */
static matrix_tile tile_of(int32_t kind, tiling t) {
  const int32_t m = t.subgroups_m * t.fragments_m * kinds[kind].m, n = t.subgroups_n * t.fragments_n * kinds[kind].n;
  const int32_t subgroups = t.subgroups_m * t.subgroups_n;
  const int32_t exchange = kind == EMULATED ? (kinds[kind].m + kinds[kind].n) * 8 : 1;
  matrix_tile tile = {m, n, (size_t)(subgroups * kinds[kind].lanes),
                      (uint64_t)(2 * (m + n) * ROW + subgroups * exchange) * sizeof(cl_uint), ""};
  snprintf(tile.options, sizeof tile.options,
           "-DMATRIX=%d -DSUBGROUPS_M=%d -DSUBGROUPS_N=%d -DFRAGMENTS_M=%d -DFRAGMENTS_N=%d", kind, t.subgroups_m,
           t.subgroups_n, t.fragments_m, t.fragments_n);
  return tile;
}

static bool has_room(const unroll_backend_device *d, const matrix_tile *t) {
  size_t group = 0;
  return t->local_bytes <= d->local_bytes &&
         clGetDeviceInfo(d->entry->device, CL_DEVICE_MAX_WORK_GROUP_SIZE, sizeof group, &group, NULL) == CL_SUCCESS &&
         t->items <= group;
}

/* ---- the test ---- */
/* Halves without a rounding, from -2 to 2, whose products are exact in floats; no two matrices of one are alike. */
static void fill(float *data, size_t n, uint32_t seed) {
  for (size_t i = 0; i < n; i++) {
    seed = seed * 1664525u + 1013904223u;
    data[i] = (float)((int32_t)(seed >> 20) - 2048) / 1024.0f;
  }
}

static bool sums_agree(const float *a, const float *b, const float *y, size_t m, size_t n, size_t k) {
  for (size_t i = 0; i < m; i++)
    for (size_t j = 0; j < n; j++) {
      double sum = 0, all = 0;
      for (size_t x = 0; x < k; x++) {
        const double term = (double)a[i * k + x] * (double)b[j * k + x];
        sum += term;
        all += fabs(term);
      }
      /* Instructions may cut off what floats round: a few units of 2^-23 of what was added, not a half's 2^-11. */
      if (!(fabs((double)y[i * n + j] - sum) <= 2e-6 * all))
        return false;
    }
  return true;
}

static bool succeeded(unroll_backend_device *d, cl_int code, const char *call, unroll_error *err) {
  return code == CL_SUCCESS || opencl_error(d, err, code, call, "self-test") == UNROLL_OK;
}

static bool set_args(unroll_backend_device *d, cl_kernel kernel, const cl_mem *mem, const cl_long *sizes,
                     unroll_error *err) {
  const cl_long zero = 0, m = sizes[0], n = sizes[1], k = sizes[2];
  const cl_long after[] = {m, n, k, k, k, k, n, 0, 0, 0}; /* k_block, rows of a, b and c, and no batches */
  cl_mem none = NULL;
  cl_uint at = 0;
  bool right = true;
  for (int i = 0; i < 4 && right; i++) { /* a, b, c, y */
    right = succeeded(d, clSetKernelArg(kernel, at++, sizeof none, i == 2 ? &none : &mem[i > 2 ? 2 : i]),
                      "clSetKernelArg", err) &&
            succeeded(d, clSetKernelArg(kernel, at++, sizeof zero, &zero), "clSetKernelArg", err);
  }
  for (size_t i = 0; i < sizeof after / sizeof *after && right; i++)
    right = succeeded(d, clSetKernelArg(kernel, at++, sizeof after[i], &after[i]), "clSetKernelArg", err);
  return right;
}

/* y [m,n] = a [m,k] · b [n,k] transposed, in the buffers' numbers. */
static bool multiply(unroll_backend_device *d, const matrix_tile *t, const cl_mem *mem, const cl_long *sizes,
                     unroll_error *err) {
  char options[256];
  cl_program program;
  cl_int code;
  size_t most = 0;
  snprintf(options, sizeof options, "%s -DTRANS_A=0 -DTRANS_B=1 -DHAVE_C=0 -DPACKED=0 -DCHUNK=512", t->options);
  if (program_get(d, "matmul_matrix.cl", options, &program, err) != UNROLL_OK)
    return false;
  cl_kernel kernel = clCreateKernel(program, "product", &code);
  if (!succeeded(d, code, "clCreateKernel", err))
    return false;
  const size_t tiles = (size_t)((sizes[0] + t->m - 1) / t->m * ((sizes[1] + t->n - 1) / t->n)),
               items = tiles * t->items;
  bool right = succeeded(
      d, clGetKernelWorkGroupInfo(kernel, d->entry->device, CL_KERNEL_WORK_GROUP_SIZE, sizeof most, &most, NULL),
      "clGetKernelWorkGroupInfo", err);
  if (right && most < t->items)
    right =
        opencl_fail(err, UNROLL_E_UNSUPPORTED, 0, "work-groups of %zu items, %zu needed", most, t->items) == UNROLL_OK;
  right = right && set_args(d, kernel, mem, sizes, err) &&
          succeeded(d, clEnqueueNDRangeKernel(d->own_queue, kernel, 1, NULL, &items, &t->items, 0, NULL, NULL),
                    "clEnqueueNDRangeKernel", err);
  clReleaseKernel(kernel);
  return right;
}

/* err says why not, where it is not the numbers. */
static bool test(unroll_backend_device *d, const matrix_tile *t, unroll_error *err) {
  /* More than one tile each way, none of them whole; k is more than two of a buffer. */
  const size_t m = (size_t)t->m + 6, n = (size_t)t->n + 11, k = 85, counts[3] = {m * k, n * k, m * n};
  const cl_long sizes[3] = {(cl_long)m, (cl_long)n, (cl_long)k};
  float *data[3] = {NULL};
  cl_mem mem[3] = {NULL};
  bool right = true;
  for (uint32_t i = 0; i < 3 && right; i++) {
    cl_int code = CL_SUCCESS;
    mem[i] = clCreateBuffer(d->context, CL_MEM_READ_WRITE, counts[i] * sizeof(float), NULL, &code);
    data[i] = opencl_alloc(d->host, counts[i], sizeof(float));
    right = succeeded(d, code, "clCreateBuffer", err) &&
            (data[i] || opencl_fail(err, UNROLL_E_MEMORY, 0, "no memory for %zu numbers", counts[i]) == UNROLL_OK);
    if (!right)
      continue;
    fill(data[i], counts[i], i + 1);
    code = clEnqueueWriteBuffer(d->own_queue, mem[i], CL_TRUE, 0, counts[i] * sizeof(float), data[i], 0, NULL, NULL);
    right = succeeded(d, code, "clEnqueueWriteBuffer", err);
  }
  right =
      right && multiply(d, t, mem, sizes, err) &&
      succeeded(
          d, clEnqueueReadBuffer(d->own_queue, mem[2], CL_TRUE, 0, counts[2] * sizeof(float), data[2], 0, NULL, NULL),
          "clEnqueueReadBuffer", err) &&
      sums_agree(data[0], data[1], data[2], m, n, k);
  for (int i = 0; i < 3; i++) {
    if (mem[i])
      clReleaseMemObject(mem[i]);
    opencl_free(d->host, data[i]);
  }
  return right;
}

/* The instruction's number, or REFUSED. */
static int32_t try_out(unroll_backend_device *d) {
  const int32_t kind = candidate(d);
  if (kind == NONE)
    return REFUSED;
  const matrix_tile small = tile_of(kind, kinds[kind].small), large = tile_of(kind, kinds[kind].large);
  unroll_error err = {.struct_size = sizeof err, .message = "a wrong sum"};
  if (!has_room(d, &small))
    return REFUSED;
  const bool one_size = strcmp(small.options, large.options) == 0 || !has_room(d, &large);
  const bool right = test(d, &small, &err) && (one_size || test(d, &large, &err));
  if (right)
    opencl_log(d->host, UNROLL_LOG_INFO, "opencl: device %s (%s): products of halves by matrix instructions: %s",
               d->entry->id, d->entry->name, kinds[kind].name);
  else
    opencl_log(d->host, UNROLL_LOG_WARN,
               "opencl: device %s (%s): the matrix instruction %s failed its test (%s): it is not used", d->entry->id,
               d->entry->name, kinds[kind].name, err.message);
  return right ? kind + 1 : REFUSED;
}

/* program_get wants the lock for itself: two threads at once may both try, and find the same. */
static int32_t instruction(unroll_backend_device *d) {
  pthread_mutex_lock(&d->lock);
  int32_t state = d->matrix_state;
  pthread_mutex_unlock(&d->lock);
  if (state == NOT_TRIED) {
    state = try_out(d);
    pthread_mutex_lock(&d->lock);
    d->matrix_state = state;
    pthread_mutex_unlock(&d->lock);
  }
  return state == REFUSED ? NONE : state - 1;
}

bool matrix_choose(unroll_backend_device *d, int64_t p, int64_t m, int64_t n, int64_t k, int64_t longest_row,
                   matrix_tile *out) {
  enum { LEAST = 8, LEAST_WORK = 1 << 18 }; /* rows and columns; multiply-adds */
  if (d->precision != PRECISION_HALF || d->matrix == MATRIX_OFF || d->cpu || longest_row > LARGEST_ROW)
    return false;
  if (d->matrix != MATRIX_EMULATED && (m < LEAST || n < LEAST || p * m * n * k < LEAST_WORK))
    return false;
  const int32_t kind = instruction(d);
  if (kind == NONE)
    return false;
  /* Large tiles read less, where there are enough of them for all cores. */
  *out = tile_of(kind, kinds[kind].large);
  const int64_t tiles = p * ((m + out->m - 1) / out->m) * ((n + out->n - 1) / out->n);
  if (tiles < d->cores || 2 * m <= out->m || 2 * n <= out->n || !has_room(d, out))
    *out = tile_of(kind, kinds[kind].small);
  return true;
}
