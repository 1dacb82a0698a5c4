/* SPDX-License-Identifier: Apache-2.0 */
/*
 * activations_ulp FOLDER [all]: FOLDER/activations.cl on the first OpenCL device against this machine's libm in double:
 * about 2^22 floats, among them every special value, in vectors of 1, 4, 8 and 16 lanes; with "all", all 2^32 in vectors
 * of 16. Exit code 77: there is no device.
 */
#include <CL/cl.h>
#include <math.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PIECE = 1 << 20, THREADS = 2, WIDTHS = 4, FUNCTIONS = 3, SKIPPED = 77 };
enum { EXPONENTIAL, SIGMOID, TANGENT };

/* What the file promises: ulp of the true value, or quanta of 2^-149 where that is subnormal. */
static const struct {
  const char *name;
  double ulp, quanta;
} promised[FUNCTIONS] = {{"exponential", 1.02, 1}, {"sigmoid", 2, 1}, {"hyperbolic_tangent", 1.98, 1}};

static const int widths[WIDTHS] = {16, 1, 4, 8};

static const char kernels[] = "__kernel void apply(const __global real *x, __global real *y) {\n"
                              "  const size_t i = get_global_id(0);\n"
                              "  VSTORE(FUNCTION(VLOAD(i, x)), i, y);\n"
                              "}\n";

static struct {
  cl_device_id id;
  cl_context context;
  cl_command_queue queue;
  cl_kernel kernel[FUNCTIONS][WIDTHS];
  cl_mem x, y;
  bool flushes, rounds; /* subnormal values to 0; quotients correctly, where OpenCL allows 2.5 ulp */
} device;

typedef struct seen {
  double ulp, quanta;
  float ulp_at, quanta_at, wrong_at;
  uint64_t wrong;
} seen;

typedef struct part {
  pthread_t thread;
  int function;
  size_t n;
  const float *x, *y[WIDTHS];
  int n_widths;
  seen seen;
} part;

static void check(cl_int code, const char *what) {
  if (code == CL_SUCCESS)
    return;
  fprintf(stderr, "%s: OpenCL error %d\n", what, code);
  exit(1);
}

/* ---- the truth ---- */
static void judge(int function, float x, double t, float y, seen *s) {
  bool wrong = false;
  if (isnan(x))
    wrong = !isnan(y);
  else if (isnan(y) || (!signbit(y) != !signbit(t) && !(device.flushes && y == 0)))
    wrong = true;
  else if (isinf(x) || x == 0)
    wrong = y != (float)t;
  else if (function != EXPONENTIAL && fabsf(y) > 1)
    wrong = true;
  else {
    const double expected = fmin(fabs(t), 0x1p128), got = fmin(fabs((double)y), 0x1p128);
    if (expected < 0x1p-126) {
      const double quanta = fabs(got - expected) * 0x1p149;
      if (quanta > s->quanta) {
        s->quanta = quanta;
        s->quanta_at = x;
      }
      return;
    }
    uint64_t bits; /* of the power of two not above it */
    memcpy(&bits, &(double){fmin(expected, 0x1.fp127)}, sizeof bits);
    bits &= UINT64_C(0x7ff0000000000000);
    double power;
    memcpy(&power, &bits, sizeof power);
    const double ulp = fabs(got - expected) / power * 0x1p23;
    if (ulp > s->ulp) {
      s->ulp = ulp;
      s->ulp_at = x;
    }
    return;
  }
  if (wrong && s->wrong++ == 0)
    s->wrong_at = x;
}

static void *judge_part(void *arg) {
  part *p = arg;
  for (size_t i = 0; i < p->n; i++) {
    const double x = (double)p->x[i];
    const double t = p->function == EXPONENTIAL ? exp(x) : p->function == SIGMOID ? 1 / (1 + exp(-x)) : tanh(x);
    for (int w = 0; w < p->n_widths; w++)
      judge(p->function, p->x[i], t, p->y[w][i], &p->seen);
  }
  return NULL;
}

static void merge(seen *to, const seen *from) {
  if (from->ulp > to->ulp) {
    to->ulp = from->ulp;
    to->ulp_at = from->ulp_at;
  }
  if (from->quanta > to->quanta) {
    to->quanta = from->quanta;
    to->quanta_at = from->quanta_at;
  }
  if (from->wrong && !to->wrong)
    to->wrong_at = from->wrong_at;
  to->wrong += from->wrong;
}

/* ---- the device ---- */
static char *read_text(const char *folder, const char *name) {
  char path[4096];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  FILE *f = fopen(path, "rb");
  char *text = calloc(1, 1 << 16);
  if (!f || !text || fread(text, 1, (1 << 16) - 1, f) == 0) {
    fprintf(stderr, "%s can't be read\n", path);
    exit(1);
  }
  fclose(f);
  return text;
}

static bool find_device(void) {
  cl_platform_id platforms[16];
  cl_uint n = 0;
  if (clGetPlatformIDs(16, platforms, &n) != CL_SUCCESS)
    return false;
  for (cl_uint i = 0; i < n && i < 16; i++)
    if (clGetDeviceIDs(platforms[i], CL_DEVICE_TYPE_ALL, 1, &device.id, NULL) == CL_SUCCESS)
      return true;
  return false;
}

static void start_device(const char *folder, int n_widths) {
  char name[256] = "";
  cl_device_fp_config config = 0;
  cl_device_type type = 0;
  cl_int code;
  check(clGetDeviceInfo(device.id, CL_DEVICE_NAME, sizeof name, name, NULL), "clGetDeviceInfo");
  check(clGetDeviceInfo(device.id, CL_DEVICE_SINGLE_FP_CONFIG, sizeof config, &config, NULL), "clGetDeviceInfo");
  check(clGetDeviceInfo(device.id, CL_DEVICE_TYPE, sizeof type, &type, NULL), "clGetDeviceInfo");
  device.flushes = !(config & CL_FP_DENORM);
  device.rounds = (type & CL_DEVICE_TYPE_CPU) != 0;
  printf("%s\n", name);
  device.context = clCreateContext(NULL, 1, &device.id, NULL, NULL, &code);
  check(code, "clCreateContext");
  device.queue = clCreateCommandQueue(device.context, device.id, 0, &code);
  check(code, "clCreateCommandQueue");
  device.x = clCreateBuffer(device.context, CL_MEM_READ_ONLY, PIECE * sizeof(float), NULL, &code);
  check(code, "clCreateBuffer");
  device.y = clCreateBuffer(device.context, CL_MEM_WRITE_ONLY, PIECE * sizeof(float), NULL, &code);
  check(code, "clCreateBuffer");
  char *text[] = {read_text(folder, "vectors.cl"), read_text(folder, "activations.cl")};
  for (int f = 0; f < FUNCTIONS; f++)
    for (int w = 0; w < n_widths; w++) {
      const char *sources[] = {text[0], text[1], kernels};
      char options[128];
      snprintf(options, sizeof options, "-cl-std=CL1.2 -DWIDTH=%d -DFUNCTION=%s", widths[w], promised[f].name);
      cl_program program = clCreateProgramWithSource(device.context, 3, sources, NULL, &code);
      check(code, "clCreateProgramWithSource");
      check(clBuildProgram(program, 1, &device.id, options, NULL, NULL), "clBuildProgram");
      device.kernel[f][w] = clCreateKernel(program, "apply", &code);
      check(code, "clCreateKernel");
      check(clSetKernelArg(device.kernel[f][w], 0, sizeof(cl_mem), &device.x), "clSetKernelArg");
      check(clSetKernelArg(device.kernel[f][w], 1, sizeof(cl_mem), &device.y), "clSetKernelArg");
      check(clReleaseProgram(program), "clReleaseProgram");
    }
  free(text[0]);
  free(text[1]);
}

static void judge_piece(const float *x, float *y[WIDTHS], int n_widths, seen result[FUNCTIONS]) {
  check(clEnqueueWriteBuffer(device.queue, device.x, CL_TRUE, 0, PIECE * sizeof(float), x, 0, NULL, NULL),
        "clEnqueueWriteBuffer");
  for (int f = 0; f < FUNCTIONS; f++) {
    for (int w = 0; w < n_widths; w++) {
      const size_t items = (size_t)(PIECE / widths[w]);
      check(clEnqueueNDRangeKernel(device.queue, device.kernel[f][w], 1, NULL, &items, NULL, 0, NULL, NULL),
            "clEnqueueNDRangeKernel");
      check(clEnqueueReadBuffer(device.queue, device.y, CL_TRUE, 0, PIECE * sizeof(float), y[w], 0, NULL, NULL),
            "clEnqueueReadBuffer");
    }
    part parts[THREADS];
    for (int i = 0; i < THREADS; i++) {
      const size_t from = (size_t)(PIECE / THREADS * i);
      parts[i] = (part){.function = f, .n = PIECE / THREADS, .x = x + from, .n_widths = n_widths};
      for (int w = 0; w < n_widths; w++)
        parts[i].y[w] = y[w] + from;
      if (pthread_create(&parts[i].thread, NULL, judge_part, &parts[i]) != 0)
        exit(1);
    }
    for (int i = 0; i < THREADS; i++) {
      pthread_join(parts[i].thread, NULL);
      merge(&result[f], &parts[i].seen);
    }
  }
}

/* ---- the inputs ---- */
static uint32_t bits_of(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}

/* Input i of the sample: one of every 2048 floats, and 2^12 neighbours of each place where the code changes its way. */
static uint32_t sample(uint32_t i) {
  static const float places[] = {0,  0x1p-126f, 0x1p-24f, 0.0625f, 0.5f,   1,     8.664f,   9.0109f, 10,      16.636f,
                                 70, 86.99f,    87.3365f, 88.376f, 88.73f, 89.0f, 103.279f, 103.98f, INFINITY};
  enum { PLACES = sizeof places / sizeof *places, AROUND = 1 << 12 };
  if (i < 1u << 21)
    return i * 2048 + (i * 2654435761u >> 21);
  const uint32_t j = (i - (1u << 21)) / AROUND, step = i % AROUND - AROUND / 2, sign = j % 2 << 31;
  if (j < 2 * PLACES)
    return (bits_of(places[j / 2]) + step) ^ sign;
  const uint32_t multiple = (j - 2 * PLACES) / 2 + 1; /* of log(2)/4: n of the reductions changes there */
  return (bits_of((float)multiple * 0.17328680f) + step) ^ sign;
}

int main(int argc, char **argv) {
  if (argc < 2 || argc > 3 || (argc == 3 && strcmp(argv[2], "all") != 0)) {
    fprintf(stderr, "usage: activations_ulp FOLDER [all]\n");
    return 2;
  }
  const bool all = argc == 3;
  const int n_widths = all ? 1 : WIDTHS;
  if (!find_device()) {
    printf("no OpenCL device\n");
    return SKIPPED;
  }
  start_device(argv[1], n_widths);
  float *x = malloc(PIECE * sizeof *x), *y[WIDTHS];
  bool enough = x != NULL;
  for (int w = 0; w < WIDTHS; w++) {
    y[w] = malloc(PIECE * sizeof *x);
    enough = enough && y[w];
  }
  if (!enough)
    return 1;
  seen result[FUNCTIONS] = {{.ulp = 0}};
  const uint32_t pieces = all ? 1u << 12 : 4;
  for (uint32_t piece = 0; piece < pieces; piece++) {
    for (uint32_t i = 0; i < PIECE; i++) {
      const uint32_t at = piece * PIECE + i, bits = all ? at : sample(at);
      memcpy(x + i, &bits, sizeof bits);
    }
    judge_piece(x, y, n_widths, result);
  }
  int code = 0;
  for (int f = 0; f < FUNCTIONS; f++) {
    const double ulp = promised[f].ulp + (device.rounds ? 0 : 2);
    const double quanta = device.flushes ? 0x1p23 : promised[f].quanta;
    const bool good = !result[f].wrong && result[f].ulp <= ulp && result[f].quanta <= quanta;
    printf("%-18s %.4f ulp at %a, subnormal %.2f quanta at %a, %llu wrong%s\n", promised[f].name, result[f].ulp,
           (double)result[f].ulp_at, result[f].quanta, (double)result[f].quanta_at, (unsigned long long)result[f].wrong,
           good ? "" : ": FAILED");
    if (result[f].wrong)
      printf("%-18s wrong first at %a\n", "", (double)result[f].wrong_at);
    if (!good)
      code = 1;
  }
  free(x);
  for (int w = 0; w < WIDTHS; w++)
    free(y[w]);
  for (int f = 0; f < FUNCTIONS; f++)
    for (int w = 0; w < n_widths; w++)
      clReleaseKernel(device.kernel[f][w]);
  clReleaseMemObject(device.x);
  clReleaseMemObject(device.y);
  clReleaseCommandQueue(device.queue);
  clReleaseContext(device.context);
  return code;
}
