/* SPDX-License-Identifier: Apache-2.0 */
#include "opencl_lives.h"
#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

cl_faults *f;
run_log seen;

const char *const phase_names[PHASES] = {"create", "open", "compile", "bind", "fill", "run", "sync", "read", "close"};

/* ---- the network, what goes in, what comes out ---- */
const training net = {.T = 2,
                      .B = 2,
                      .I = 4,
                      .H = 8,
                      .V = 5,
                      .dtype = UNROLL_F32,
                      .cell = UNROLL_CELL_LSTM,
                      .layers = 1,
                      .with_state = true,
                      .optimize = true};

static int64_t size_of(const unroll_tensor_info *t) {
  int64_t n = 1;
  for (int32_t i = 0; i < t->rank; i++)
    n *= t->shape[i];
  return n;
}

static values values_of(unroll_graph *g, bool outputs) {
  values v = {.n = 0};
  uint32_t at = 0;
  for (uint32_t i = 0; i < unroll_graph_count(g); i++) {
    const unroll_tensor_info t = unroll_tensor_describe(unroll_graph_tensor(g, i));
    if (outputs ? t.role == UNROLL_ROLE_INPUT : t.role == UNROLL_ROLE_OUTPUT)
      continue;
    const uint32_t n = (uint32_t)size_of(&t);
    assert_true(v.n < MOST_TENSORS && at + n <= MOST_NUMBERS && unroll_dtype_size(t.dtype) == 4);
    snprintf(v.of[v.n].name, sizeof v.of[v.n].name, "%s", t.name);
    v.of[v.n].at = at;
    v.of[v.n++].bytes = 4 * n;
    for (uint32_t k = 0; k < n && !outputs; k++) {
      const int32_t whole = strcmp(t.name, "step") == 0 ? 1 : (int32_t)(k % 5);
      if (t.dtype == UNROLL_I32)
        memcpy(&v.numbers[at + k], &whole, sizeof whole);
      else if (!strchr(t.name, '.')) /* moments of the optimizer start as zeros */
        v.numbers[at + k] = strcmp(t.name, "lr") == 0 ? 0.01F : 0.3F * sinf(1.7F * (float)(at + k));
    }
    at += n;
  }
  return v;
}

/* A test goes on after what is wrong, to show all of it. */
int n_wrong;
char during[160];

void start_checks(const char *what) {
  n_wrong = 0;
  snprintf(during, sizeof during, "%s", what);
}

void wrong(const char *format, ...) {
  char text[2048];
  va_list list;
  va_start(list, format);
  vsnprintf(text, sizeof text, format, list);
  va_end(list);
  if (n_wrong++ < 40)
    print_error("%s: %s\n", during, text);
}

void check_values(const values *got, const values *want, float tolerance) {
  for (uint32_t i = 0; i < want->n; i++) {
    const float *a = &got->numbers[want->of[i].at], *b = &want->numbers[want->of[i].at];
    float largest = 0;
    for (uint32_t k = 0; k < want->of[i].bytes / 4; k++)
      largest = fmaxf(largest, fabsf(b[k]));
    for (uint32_t k = 0; k < want->of[i].bytes / 4; k++)
      if (!isfinite(a[k]) || fabsf(a[k] - b[k]) > tolerance * largest) {
        wrong("%s[%u] is %.9g, expected %.9g", want->of[i].name, k, (double)a[k], (double)b[k]);
        return;
      }
  }
}

void check_status(unroll_status want, unroll_status got, const unroll_error *err) {
  if (got != want)
    wrong("%s, expected %s: %s", unroll_status_name(got), unroll_status_name(want), err->message);
}

/* ---- a life: asserts nothing, goes as far as it gets ---- */
#define TRY(expression)                     \
  do {                                      \
    const unroll_status st_ = (expression); \
    if (st_ != UNROLL_OK)                   \
      return st_;                           \
  } while (0)

static void keep_line(void *ctx, int32_t level, const char *message) {
  run_log *log = ctx;
  (void)level;
  const int n = snprintf(log->text + log->n, sizeof log->text - log->n, "%s\n", message);
  log->n += n > 0 && log->n + (size_t)n < sizeof log->text ? (size_t)n : 0;
}

unroll_status life_open(life *x, unroll_error *err) {
  static const unroll_logger logger = {&seen, keep_line, UNROLL_LOG_WARN};
  x->allocator = runs_allocator(&x->memory);
  seen = (run_log){.n = 0};
  const unroll_context_options options = {
      .struct_size = sizeof options, .n_threads = 1, .allocator = &x->allocator, .logger = &logger};
  f->phase = CREATE;
  TRY(unroll_context_create(&options, &x->ctx, err));
  f->phase = OPEN;
  return unroll_device_open(x->ctx, "opencl", x->with->options, x->with->n_options, &x->device, err);
}

static void note_entry(void *ctx, const unroll_profile_entry *e) {
  (void)e;
  ++*(uint32_t *)ctx;
}

/* Two updates from the same numbers, whatever was there before. */
unroll_status life_run(life *x, unroll_error *err) {
  uint32_t entries = 0;
  f->phase = BIND;
  if (!x->b)
    TRY(unroll_binding_create(x->e, &x->b, err));
  if (x->with->profile) {
    TRY(unroll_binding_profile(x->b, 0, err));
    TRY(unroll_binding_profile(x->b, 1, err));
  }
  f->phase = FILL;
  for (uint32_t i = 0; i < x->in->n; i++)
    TRY(unroll_binding_write(x->b, x->in->of[i].name, &x->in->numbers[x->in->of[i].at], x->in->of[i].bytes, err));
  TRY(unroll_binding_clear(x->b, "c_0", err));
  f->phase = RUN;
  for (int update = 0; update < (x->with->updates ? x->with->updates : 2); update++)
    TRY(unroll_run(x->b, NULL, err));
  f->phase = SYNC;
  TRY(unroll_binding_sync(x->b, err));
  f->phase = READ;
  memset(x->out.numbers, 0xFF, sizeof x->out.numbers);
  for (uint32_t i = 0; i < x->out.n; i++)
    TRY(unroll_binding_read(x->b, x->out.of[i].name, &x->out.numbers[x->out.of[i].at], x->out.of[i].bytes, err));
  if (x->with->profile)
    TRY(unroll_binding_profile_read(x->b, note_entry, &entries, err));
  return UNROLL_OK;
}

unroll_status life_compile(life *x, unroll_error *err) {
  const unroll_compile_options options = {.struct_size = sizeof options, .strict = !x->with->fallback};
  f->phase = COMPILE;
  return unroll_compile(x->g, &x->device, 1, &options, &x->e, err);
}

unroll_status life_live(life *x, unroll_error *err) {
  TRY(life_open(x, err));
  TRY(life_compile(x, err));
  return life_run(x, err);
}

void life_close(life *x) {
  f->phase = CLOSE;
  unroll_binding_destroy(x->b);
  unroll_executable_destroy(x->e);
  unroll_device_close(x->device);
  unroll_context_destroy(x->ctx);
  x->b = NULL;
  x->e = NULL;
  x->device = NULL;
  x->ctx = NULL;
}

void check_nothing_left(const life *x) {
  static const char *const kinds[CL_FAULTS_KINDS] = {"contexts", "queues", "buffers", "programs", "kernels", "events"};
  for (int i = 0; i < CL_FAULTS_KINDS; i++)
    if (f->references[i])
      wrong("%ld %s are left", f->references[i], kinds[i]);
  memset(f->references, 0, sizeof f->references);
  if (x->memory.live)
    wrong("%ld pieces of the host's memory are left", x->memory.live);
}

void disarm(void) {
  f->only = NULL;
  f->fail_at = 0;
  f->variant = 0;
  f->forever = f->late = false;
  f->failed = NULL;
  f->code = 0;
  f->calls = 0;
  f->more_extensions = NULL;
  f->build_fails_with = NULL;
  f->build_log = 0;
  f->miscompiled = NULL;
  memset(f->lies, 0, sizeof f->lies);
}

/* ---- what there is to compare with ---- */
static struct {
  unroll_graph *g;
  values in;
} fixture;

life life_of(const setting *with) {
  return (life){.with = with, .g = fixture.g, .in = &fixture.in, .out = values_of(fixture.g, true)};
}

/* A life in which nothing fails: the numbers, and the trace of its calls. */
values clean_life(const setting *with) {
  unroll_error err = UNROLL_ERROR_INIT;
  life x = life_of(with);
  disarm();
  check_status(UNROLL_OK, life_live(&x, &err), &err);
  life_close(&x);
  check_nothing_left(&x);
  return x.out;
}

int lives_open(void **state) {
  (void)state;
  char path[4096], layer[4200], lib[4200];
  const ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
  assert_true(n > 0);
  path[n] = 0;
  *strrchr(path, '/') = 0;
  snprintf(layer, sizeof layer, "%s/shims/cl_faults.so", path);
  snprintf(lib, sizeof lib, "%s/../lib/unroll", path);
  setenv("UNROLL_PLUGIN_PATH", lib, 0);
  setenv("OPENCL_LAYERS", layer, 1); /* read at the first call of OpenCL in this process */
  void *handle = dlopen(layer, RTLD_NOW | RTLD_LOCAL);
  f = handle ? dlsym(handle, "cl_faults_state") : NULL;
  if (!f)
    return 0;
  fixture.g = runs_training(&net);
  fixture.in = values_of(fixture.g, false);
  return 0;
}

int lives_close(void **state) {
  (void)state;
  unroll_graph_destroy(fixture.g);
  return 0;
}

void need_device(void) {
  if (!f)
    skip();
  unroll_context *ctx = runs_context(NULL, NULL);
  const bool have = runs_have(ctx, "opencl");
  unroll_context_destroy(ctx);
  if (!have)
    skip();
  /* A loader without layers ignores ours. */
  static const setting plain = {.n_options = 0};
  unroll_error err = UNROLL_ERROR_INIT;
  life x = life_of(&plain);
  disarm();
  assert_status(UNROLL_OK, life_open(&x, &err));
  life_close(&x);
  if (f->calls == 0)
    skip();
}
