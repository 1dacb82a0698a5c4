/* SPDX-License-Identifier: Apache-2.0 */
/*
 * limits: what this machine's cores can do at most, all of them together: fused multiply-adds a second in f32, and
 * bytes read a second from the second-level caches, the last-level cache and memory. Prints one JSON object.
 *
 *     limits [SECONDS]     per measurement, 0.3 unless said
 *
 * The instruction set is chosen when the program runs, so that one build tells the truth on every machine. What a core
 * reaches with each that the processor has is told too: a compiler may leave the widest unused. near_bytes,
 * middle_bytes and far_bytes are what each thread read again and again from L2, L3 and memory.
 */
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define MAX_THREADS 256
#define TRIALS 25
#define ROUNDS 4096      /* of multiply-adds between two looks at the clock */
#define SLICE (32 << 20) /* bytes read between two looks at the clock, at least */
#define KIB 1024
#define MOST_BYTES ((int64_t)1 << 30)
#define MAX_ISAS 3

typedef struct isa {
  const char *name;
  int64_t flops; /* of one round */
  float (*multiply_add)(int64_t rounds);
  float (*read)(const float *data, int64_t n); /* n: a multiple of 128 */
} isa;

/*
 * Twelve chains of multiply-adds hide the latency of any core's two or more units; eight loads at once reach what the
 * caches give. Every start is a read of its own from memory: chains that a compiler knows to be equal become one.
 * The values run to 2.
 */
static volatile float half = 0.5f, one = 1.0f;

#define KERNELS(name_, target_, vec, lanes, set, load, add, fma, sum)                                            \
  target_ static float multiply_add_##name_(int64_t rounds) {                                                    \
    const vec x = set(half), y = set(one);                                                                       \
    vec a = set(half), b = set(half), c = set(half), d = set(half), e = set(half), f = set(half), g = set(half), \
        h = set(half), i = set(half), j = set(half), k = set(half), l = set(half);                               \
    for (int64_t n = 0; n < rounds; n++) {                                                                       \
      a = fma(a, x, y);                                                                                          \
      b = fma(b, x, y);                                                                                          \
      c = fma(c, x, y);                                                                                          \
      d = fma(d, x, y);                                                                                          \
      e = fma(e, x, y);                                                                                          \
      f = fma(f, x, y);                                                                                          \
      g = fma(g, x, y);                                                                                          \
      h = fma(h, x, y);                                                                                          \
      i = fma(i, x, y);                                                                                          \
      j = fma(j, x, y);                                                                                          \
      k = fma(k, x, y);                                                                                          \
      l = fma(l, x, y);                                                                                          \
    }                                                                                                            \
    a = add(add(add(a, b), add(c, d)), add(add(e, f), add(g, h)));                                               \
    return sum(add(a, add(add(i, j), add(k, l))));                                                               \
  }                                                                                                              \
  target_ static float read_##name_(const float *data, int64_t n) {                                              \
    vec a = set(0), b = a, c = a, d = a, e = a, f = a, g = a, h = a;                                             \
    for (int64_t at = 0; at < n; at += 8 * (lanes)) {                                                            \
      a = add(a, load(data + at));                                                                               \
      b = add(b, load(data + at + (lanes)));                                                                     \
      c = add(c, load(data + at + 2 * (lanes)));                                                                 \
      d = add(d, load(data + at + 3 * (lanes)));                                                                 \
      e = add(e, load(data + at + 4 * (lanes)));                                                                 \
      f = add(f, load(data + at + 5 * (lanes)));                                                                 \
      g = add(g, load(data + at + 6 * (lanes)));                                                                 \
      h = add(h, load(data + at + 7 * (lanes)));                                                                 \
    }                                                                                                            \
    return sum(add(add(add(a, b), add(c, d)), add(add(e, f), add(g, h))));                                       \
  }                                                                                                              \
  static const isa isa_##name_ = {#name_, 12 * 2 * (lanes), multiply_add_##name_, read_##name_};

#if defined(__x86_64__)
#include <immintrin.h>
#define PLAIN
#define AVX2 __attribute__((target("avx2,fma")))
#define AVX512 __attribute__((target("avx512f")))
AVX2 static float sum_avx2(__m256 v) { return _mm256_cvtss_f32(v); }
AVX512 static float sum_avx512(__m512 v) { return _mm512_cvtss_f32(v); }
#define MULTIPLY_THEN_ADD(a, x, y) _mm_add_ps(_mm_mul_ps(a, x), y)
KERNELS(sse2, PLAIN, __m128, 4, _mm_set1_ps, _mm_loadu_ps, _mm_add_ps, MULTIPLY_THEN_ADD, _mm_cvtss_f32)
KERNELS(avx2, AVX2, __m256, 8, _mm256_set1_ps, _mm256_loadu_ps, _mm256_add_ps, _mm256_fmadd_ps, sum_avx2)
KERNELS(avx512, AVX512, __m512, 16, _mm512_set1_ps, _mm512_loadu_ps, _mm512_add_ps, _mm512_fmadd_ps, sum_avx512)

/* What the processor has, the widest first. */
static int list_isas(const isa **list) {
  int n = 0;
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f"))
    list[n++] = &isa_avx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
    list[n++] = &isa_avx2;
  list[n++] = &isa_sse2;
  return n;
}
#elif defined(__aarch64__)
#include <arm_neon.h>
#define PLAIN
#define FMA_NEON(a, x, y) vfmaq_f32(y, a, x)
KERNELS(neon, PLAIN, float32x4_t, 4, vdupq_n_f32, vld1q_f32, vaddq_f32, FMA_NEON, vaddvq_f32)
static int list_isas(const isa **list) {
  list[0] = &isa_neon;
  return 1;
}
#else
#define PLAIN
#define SAME(x) (x)
#define AT(p) (*(p))
#define ADD(a, b) ((a) + (b))
#define MULTIPLY_THEN_ADD(a, x, y) ((a) * (x) + (y))
KERNELS(scalar, PLAIN, float, 1, SAME, AT, ADD, MULTIPLY_THEN_ADD, SAME)
static int list_isas(const isa **list) {
  list[0] = &isa_scalar;
  return 1;
}
#endif

typedef struct job {
  const isa *isa;
  int64_t bytes;  /* of each thread's own data; 0: multiply-adds */
  double seconds; /* of a trial */
  pthread_barrier_t *start;
} job;

typedef struct worker {
  const job *job;
  double rate[TRIALS], sum; /* the sum only keeps the work from being removed */
} worker;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double run_trial(worker *w, const float *data, int64_t n) {
  const job *j = w->job;
  const double start = now();
  double done = 0, end = start;
  while (end - start < j->seconds) {
    if (!n) {
      w->sum += (double)j->isa->multiply_add(ROUNDS);
      done += (double)(ROUNDS * j->isa->flops);
    } else
      for (int64_t bytes = 0; bytes < SLICE; bytes += j->bytes) {
        w->sum += (double)j->isa->read(data, n);
        done += (double)j->bytes;
      }
    end = now();
  }
  return done / (end - start);
}

static void *work(void *arg) {
  worker *w = arg;
  const job *j = w->job;
  const int64_t n = j->bytes / (int64_t)sizeof(float);
  float *data = n ? aligned_alloc(64, (size_t)j->bytes) : NULL;
  for (int64_t i = 0; data && i < n; i++)
    data[i] = 1;
  for (int trial = 0; trial < TRIALS; trial++) {
    pthread_barrier_wait(j->start);
    w->rate[trial] = n && !data ? 0 : run_trial(w, data, n);
  }
  free(data);
  return NULL;
}

/* The best of a few trials, all threads together. */
static double measure(const isa *which, int threads, int64_t bytes, double seconds) {
  pthread_barrier_t start;
  pthread_t ids[MAX_THREADS];
  worker workers[MAX_THREADS];
  const job j = {which, bytes, seconds / TRIALS, &start};
  double best = 0;
  if (pthread_barrier_init(&start, NULL, (unsigned)threads) != 0)
    return 0;
  for (int i = 0; i < threads; i++) {
    workers[i] = (worker){.job = &j};
    if (pthread_create(&ids[i], NULL, work, &workers[i]) != 0) {
      /* Those that have started wait for the others for ever. */
      fprintf(stderr, "limits: cannot start thread %d of %d\n", i + 1, threads);
      exit(1);
    }
  }
  for (int i = 0; i < threads; i++)
    pthread_join(ids[i], NULL);
  pthread_barrier_destroy(&start);
  for (int trial = 0; trial < TRIALS; trial++) {
    double rate = 0;
    for (int i = 0; i < threads; i++)
      rate += workers[i].rate[trial];
    best = rate > best ? rate : best;
  }
  return best;
}

static int count_threads(void) {
  cpu_set_t set;
  const int n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
  return n < 1 ? 1 : n > MAX_THREADS ? MAX_THREADS : n;
}

/* Bytes of cpu 0's cache of a level, or what is usual. A virtual machine's sysconf tells the whole host's. */
static int64_t cache_bytes(int level, int64_t usual) {
  for (int i = 0; i < 8; i++) {
    char path[96];
    int found = 0;
    long kib = 0;
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/level", i);
    FILE *file = fopen(path, "r");
    if (!file)
      break;
    const bool right = fscanf(file, "%d", &found) == 1 && found == level;
    fclose(file);
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/size", i);
    file = right ? fopen(path, "r") : NULL;
    if (!file)
      continue;
    const bool read = fscanf(file, "%ldK", &kib) == 1 && kib > 0;
    fclose(file);
    if (read)
      return (int64_t)kib * KIB;
  }
  return usual;
}

static int64_t whole(int64_t bytes) { return bytes < 4 * KIB ? 4 * KIB : bytes / (4 * KIB) * (4 * KIB); }

int main(int argc, char **argv) {
  const double seconds = argc > 1 ? atof(argv[1]) : 0.3;
  const int threads = count_threads();
  const isa *isas[MAX_ISAS];
  const int n_isas = list_isas(isas);
  const isa *which = isas[0];
  const int64_t l2 = cache_bytes(2, 512 * KIB), l3 = cache_bytes(3, 4 * l2 * threads);
  /* Three quarters of a second-level cache; twice all of them, at most half of the last level; far more than that. */
  const int64_t near_bytes = whole(l2 / 4 * 3);
  const int64_t middle_bytes = whole((2 * l2 * threads < l3 / 2 ? 2 * l2 * threads : l3 / 2) / threads);
  const int64_t far_bytes = whole((8 * l3 < MOST_BYTES ? 8 * l3 : MOST_BYTES) / threads);
  if (!(seconds > 0)) {
    fprintf(stderr, "usage: limits [SECONDS]\n");
    return 2;
  }
  double core[MAX_ISAS];
  for (int i = 0; i < n_isas; i++)
    core[i] = measure(isas[i], 1, 0, seconds);
  const double flops = measure(which, threads, 0, seconds);
  const double near_rate = measure(which, threads, near_bytes, seconds);
  const double middle_rate = measure(which, threads, middle_bytes, seconds);
  const double far_rate = measure(which, threads, far_bytes, seconds);
  if (flops <= 0 || near_rate <= 0 || middle_rate <= 0 || far_rate <= 0) {
    fprintf(stderr, "limits: a measurement failed: no memory for %lld bytes a thread, or no barrier\n",
            (long long)far_bytes);
    return 1;
  }
  printf("{\"isa\":\"%s\",\"threads\":%d,\"l2_bytes\":%lld,\"l3_bytes\":%lld,\"near_bytes\":%lld,"
         "\"middle_bytes\":%lld,\"far_bytes\":%lld,",
         which->name, threads, (long long)l2, (long long)l3, (long long)near_bytes, (long long)middle_bytes,
         (long long)far_bytes);
  for (int i = 0; i < n_isas; i++)
    printf("\"%s_core_gflops\":%.1f,", isas[i]->name, core[i] / 1e9);
  printf("\"gflops\":%.1f,\"l2_gbs\":%.1f,\"l3_gbs\":%.1f,\"memory_gbs\":%.1f}\n", flops / 1e9, near_rate / 1e9,
         middle_rate / 1e9, far_rate / 1e9);
  return 0;
}
