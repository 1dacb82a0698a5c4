/* SPDX-License-Identifier: Apache-2.0 */
#include "runs.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- allocation: the size stands before the memory ---- */
static void *counted_alloc(void *ctx, uint64_t bytes, uint64_t alignment) {
  run_memory *m = ctx;
  if (++m->calls == m->fail_at)
    return NULL;
  const uint64_t before = alignment < sizeof(uint64_t) * 2 ? sizeof(uint64_t) * 2 : alignment;
  void *p = NULL;
  if (posix_memalign(&p, (size_t)before, (size_t)(bytes + before)) != 0)
    return NULL;
  memset(p, 0xA5, (size_t)(bytes + before));
  char *out = (char *)p + before;
  memcpy(out - sizeof bytes, &bytes, sizeof bytes);
  memcpy(out - 2 * sizeof bytes, &before, sizeof before);
  m->live++;
  m->bytes += bytes;
  m->peak = m->bytes > m->peak ? m->bytes : m->peak;
  return out;
}

static void counted_free(void *ctx, void *p) {
  run_memory *m = ctx;
  uint64_t bytes, before;
  memcpy(&bytes, (char *)p - sizeof bytes, sizeof bytes);
  memcpy(&before, (char *)p - 2 * sizeof bytes, sizeof before);
  m->live--;
  m->bytes -= bytes;
  free((char *)p - before);
}

unroll_allocator runs_allocator(run_memory *m) { return (unroll_allocator){m, counted_alloc, counted_free}; }

/* ---- log ---- */
static void keep_line(void *ctx, int32_t level, const char *message) {
  run_log *log = ctx;
  (void)level;
  const int n = snprintf(log->text + log->n, sizeof log->text - log->n, "%s\n", message);
  log->n += n > 0 && log->n + (size_t)n < sizeof log->text ? (size_t)n : 0;
}

uint32_t log_count(const run_log *log, const char *words) {
  uint32_t n = 0;
  for (const char *at = log->text; (at = strstr(at, words)) != NULL; at++)
    n++;
  return n;
}

/* ---- contexts and devices ---- */
unroll_context *runs_context(const unroll_allocator *allocator, run_log *log) {
  char path[4096], lib[4096];
  const char *plugins = getenv("UNROLL_TEST_PLUGINS");
  const ssize_t n = readlink("/proc/self/exe", path, sizeof path - 64);
  assert_true(n > 0);
  path[n] = 0;
  *strrchr(path, '/') = 0; /* BUILD/tests */
  snprintf(lib, sizeof lib, "%.4000s/../lib/unroll", path);
  setenv("UNROLL_PLUGIN_PATH", lib, 0);
  char folder[4096], patchwork[4200], reserver[4200];
  snprintf(folder, sizeof folder, "%.4000s%s", plugins ? plugins : path, plugins ? "" : "/plugins");
  snprintf(patchwork, sizeof patchwork, "%s/patchwork.so", folder);
  snprintf(reserver, sizeof reserver, "%s/reserver.so", folder);
  const char *files[] = {patchwork, reserver};
  unroll_error err = UNROLL_ERROR_INIT;
  const unroll_logger logger = {log, keep_line, UNROLL_LOG_DEBUG};
  if (log)
    *log = (run_log){.n = 0};
  unroll_context_options options = {.struct_size = sizeof options,
                                    .n_threads = 2,
                                    .allocator = allocator,
                                    .logger = log ? &logger : NULL,
                                    .plugin_files = files,
                                    .n_plugin_files = 2};
  unroll_context *ctx;
  assert_status(UNROLL_OK, unroll_context_create(&options, &ctx, &err));
  return ctx;
}

unroll_device *runs_device(unroll_context *ctx, const char *name, ...) {
  char text[8][128];
  unroll_option options[8];
  uint32_t n = 0;
  va_list list;
  va_start(list, name);
  for (const char *o; (o = va_arg(list, const char *)) != NULL; n++) {
    assert_true(n < 8 && strlen(o) < sizeof text[n]);
    strcpy(text[n], o);
    char *equals = strchr(text[n], '=');
    assert_non_null(equals);
    *equals = 0;
    options[n] = (unroll_option){text[n], equals + 1};
  }
  va_end(list);
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_device *device;
  assert_status(UNROLL_OK, unroll_device_open(ctx, name, options, n, &device, &err));
  return device;
}

bool runs_have(unroll_context *ctx, const char *plugin) {
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_plugin_list *list;
  bool have = false;
  assert_status(UNROLL_OK, unroll_context_list(ctx, &list, &err));
  for (uint32_t i = 0; i < list->n_plugins; i++)
    have = have || (strcmp(list->plugins[i].id, plugin) == 0 && list->plugins[i].n_devices > 0);
  unroll_plugin_list_free(ctx, list);
  return have;
}

/* ---- a graph to train ---- */
enum { MAX_PARAMS = 32 };
typedef struct params {
  unroll_tensor of[MAX_PARAMS];
  uint32_t n;
} params;

static unroll_tensor add_param(unroll_graph *g, params *p, int32_t dtype, const char *name, int layer, int64_t rows,
                               int64_t columns) {
  char text[32];
  snprintf(text, sizeof text, layer < 0 ? "%s" : "%s_%d", name, layer);
  assert_true(p->n < MAX_PARAMS);
  return p->of[p->n++] = unroll_param(g, text, dtype, columns ? 2 : 1, (int64_t[]){rows, columns});
}

unroll_graph *runs_training(const training *w) {
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_graph *g;
  assert_status(UNROLL_OK, unroll_graph_create(w->allocator, &g, &err));
  const int64_t T = w->runtime_T ? unroll_graph_dim(g, "T", 1, w->T) : w->T;
  const int64_t G = w->cell == UNROLL_CELL_RNN ? 1 : w->cell == UNROLL_CELL_LSTM ? 4 : 3;
  const unroll_tensor ids = unroll_input(g, "ids", UNROLL_I32, 2, (int64_t[]){T, w->B});
  const unroll_tensor targets = unroll_input(g, "targets", UNROLL_I32, 2, (int64_t[]){T, w->B});
  const unroll_tensor lengths =
      w->lengths ? unroll_input(g, "lengths", UNROLL_I32, 1, (int64_t[]){w->B}) : unroll_none();
  params p = {.n = 0};
  unroll_tensor x = unroll_embedding(add_param(g, &p, w->dtype, "table", -1, w->V, w->I), ids);
  for (int32_t k = 0; k < w->layers; k++) {
    const int64_t in = k == 0 ? w->I : w->H;
    char h_name[16], c_name[16];
    snprintf(h_name, sizeof h_name, "h_%d", k);
    snprintf(c_name, sizeof c_name, "c_%d", k);
    unroll_layer_inputs l = {.x = x,
                             .W_x = add_param(g, &p, w->dtype, "W_x", k, G * w->H, in),
                             .W_h = add_param(g, &p, w->dtype, "W_h", k, G * w->H, w->H),
                             .b = add_param(g, &p, w->dtype, "b", k, G * w->H, 0),
                             .lengths = lengths};
    if (w->cell == UNROLL_CELL_GRU_AFTER)
      l.b_n = add_param(g, &p, w->dtype, "b_n", k, w->H, 0);
    if (w->with_state) {
      l.h0 = unroll_state(g, h_name, w->dtype, 2, (int64_t[]){w->B, w->H});
      if (w->cell == UNROLL_CELL_LSTM)
        l.c0 = unroll_state(g, c_name, w->dtype, 2, (int64_t[]){w->B, w->H});
    }
    const unroll_layer_attr attr = {.cell = w->cell, .direction = w->direction, .activation = UNROLL_TANH};
    const unroll_layer_outputs y = unroll_layer(&l, &attr, k);
    if (w->with_state) {
      unroll_update(l.h0, y.h_last);
      if (w->cell == UNROLL_CELL_LSTM)
        unroll_update(l.c0, y.c_last);
    }
    x = y.y;
  }
  const unroll_tensor W = add_param(g, &p, w->dtype, "W_out", -1, w->H, w->V);
  const unroll_tensor rows = unroll_cross_entropy_rows(unroll_matmul(x, W), targets);
  const unroll_tensor loss = unroll_reduce(rows, UNROLL_SUM, 0, 0);
  unroll_tensor d[MAX_PARAMS];
  unroll_gradient(loss, p.of, p.n, d);
  unroll_output(loss, "loss");
  unroll_output(x, "y");
  for (uint32_t i = 0; i < p.n; i++) {
    char name[64];
    snprintf(name, sizeof name, "d.%s", unroll_tensor_describe(p.of[i]).name);
    unroll_output(d[i], name);
  }
  if (w->optimize) {
    const unroll_tensor lr = unroll_input(g, "lr", w->dtype, 0, NULL),
                        step = unroll_input(g, "step", UNROLL_I32, 0, NULL);
    const unroll_optimizer_attr adam = {
        .kind = UNROLL_ADAM, .beta1 = 0.9, .beta2 = 0.99, .epsilon = 1e-3, .weight_decay = 0};
    for (uint32_t i = 0; i < p.n; i++)
      unroll_optimize(p.of[i], d[i], lr, step, unroll_none(), &adam);
  }
  assert_status(UNROLL_OK, unroll_graph_status(g, &err));
  return g;
}

/* ---- data ---- */
static int64_t elements(const unroll_tensor_info *t) {
  int64_t n = 1;
  for (int32_t i = 0; i < t->rank; i++)
    n *= t->shape[i];
  return n;
}

/* A multiplicative generator modulo 2^64 (Knuth's MMIX constants), started by the name. */
static uint64_t next_number(uint64_t *s) {
  *s = *s * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
  return *s >> 33;
}

void runs_fill(unroll_graph *g, unroll_binding *b, const training *w) {
  unroll_error err = UNROLL_ERROR_INIT;
  for (uint32_t i = 0; i < unroll_graph_count(g); i++) {
    const unroll_tensor_info t = unroll_tensor_describe(unroll_graph_tensor(g, i));
    if (t.role == UNROLL_ROLE_OUTPUT || strchr(t.name, '.')) /* moments of an optimizer start as zeros */
      continue;
    const int64_t n = elements(&t);
    const uint64_t bytes = (uint64_t)n * unroll_dtype_size(t.dtype);
    char *data = malloc(bytes);
    assert_non_null(data);
    uint64_t s = 1;
    for (const char *c = t.name; *c; c++)
      s = s * 31 + (uint64_t)*c;
    const double size = t.rank == 2 ? 1 / sqrt((double)t.shape[1]) : 0.5;
    for (int64_t k = 0; k < n; k++) {
      const uint64_t r = next_number(&s);
      const double u = ((double)(r % 20001) / 10000 - 1) * size;
      const int32_t id = strcmp(t.name, "lengths") == 0 ? (int32_t)(k == 0 ? w->T : (int64_t)(r % (uint64_t)(w->T + 1)))
                         : strcmp(t.name, "step") == 0  ? 1
                                                        : (int32_t)(r % (uint64_t)w->V);
      const double value = strcmp(t.name, "lr") == 0 ? 0.01 : u;
      const float single = (float)value;
      if (t.dtype == UNROLL_I32)
        memcpy(data + k * 4, &id, 4);
      else if (t.dtype == UNROLL_F32)
        memcpy(data + k * 4, &single, 4);
      else
        memcpy(data + k * 8, &value, 8);
    }
    assert_status(UNROLL_OK, unroll_binding_write(b, t.name, data, bytes, &err));
    free(data);
  }
}

/* ---- results ---- */
results runs_read(unroll_graph *g, unroll_binding *b) {
  unroll_error err = UNROLL_ERROR_INIT;
  results r = {.of = calloc(unroll_graph_count(g) + 1, sizeof *r.of)};
  assert_non_null(r.of);
  for (uint32_t i = 0; i < unroll_graph_count(g); i++) {
    const unroll_tensor_info t = unroll_tensor_describe(unroll_graph_tensor(g, i));
    if (t.role == UNROLL_ROLE_INPUT)
      continue;
    struct result *x = &r.of[r.n++];
    snprintf(x->name, sizeof x->name, "%s", t.name);
    x->dtype = t.dtype;
    x->count = elements(&t);
    x->bytes = (uint64_t)x->count * unroll_dtype_size(t.dtype);
    x->data = malloc(x->bytes);
    assert_non_null(x->data);
    memset(x->data, 0xFF, x->bytes);
    assert_status(UNROLL_OK, unroll_binding_read(b, t.name, x->data, x->bytes, &err));
  }
  return r;
}

results runs_all(unroll_graph *g, unroll_device *const *devices, uint32_t n_devices,
                 const unroll_compile_options *options, const training *w, int n_runs) {
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_executable *e;
  unroll_binding *b;
  assert_status(UNROLL_OK, unroll_compile(g, devices, n_devices, options, &e, &err));
  assert_status(UNROLL_OK, unroll_binding_create(e, &b, &err));
  runs_fill(g, b, w);
  for (int i = 0; i < n_runs; i++)
    assert_status(UNROLL_OK, unroll_run(b, NULL, &err));
  const results r = runs_read(g, b);
  unroll_binding_destroy(b);
  unroll_executable_destroy(e);
  return r;
}

void results_free(results *r) {
  for (uint32_t i = 0; i < r->n; i++)
    free(r->of[i].data);
  free(r->of);
  *r = (results){0};
}

static double value_at(const struct result *x, int64_t i) {
  if (x->dtype == UNROLL_F64)
    return ((const double *)x->data)[i];
  return x->dtype == UNROLL_F32 ? (double)((const float *)x->data)[i] : (double)((const int32_t *)x->data)[i];
}

void assert_same_at(const results *got, const results *want, const char *file, int line) {
  assert_int_equal(got->n, want->n);
  for (uint32_t i = 0; i < want->n; i++) {
    const struct result *a = &got->of[i], *b = &want->of[i];
    assert_string_equal(a->name, b->name);
    assert_int_equal(a->bytes, b->bytes);
    for (int64_t k = 0; k < b->count; k++)
      if (b->dtype != UNROLL_I32 && !isfinite(value_at(b, k))) {
        print_error("%s[%ld] of the reference is %g\n", b->name, (long)k, value_at(b, k));
        _fail(file, line);
      }
    if (memcmp(a->data, b->data, b->bytes) == 0)
      continue;
    for (int64_t k = 0; k < b->count; k++)
      if (value_at(a, k) != value_at(b, k)) {
        print_error("%s[%ld]: %.9g, expected %.9g\n", b->name, (long)k, value_at(a, k), value_at(b, k));
        break;
      }
    _fail(file, line);
  }
}

void assert_near(const results *got, const results *want, double tolerance) {
  assert_int_equal(got->n, want->n);
  for (uint32_t i = 0; i < want->n; i++) {
    const struct result *a = &got->of[i], *b = &want->of[i];
    double *x = malloc(sizeof *x * (size_t)b->count), *y = malloc(sizeof *y * (size_t)b->count);
    assert_non_null(x);
    assert_non_null(y);
    for (int64_t k = 0; k < b->count; k++) {
      x[k] = value_at(a, k);
      y[k] = value_at(b, k);
    }
    assert_close(b->name, x, y, b->count, tolerance);
    free(x);
    free(y);
  }
}

void runs_fill_layers(unroll_graph *graph, unroll_binding *binding, const int32_t *lengths, size_t bytes) {
  unroll_error err = UNROLL_ERROR_INIT;
  for (uint32_t i = 0; i < unroll_graph_count(graph); i++) {
    const unroll_tensor_info info = unroll_tensor_describe(unroll_graph_tensor(graph, i));
    if (info.role != UNROLL_ROLE_INPUT && info.role != UNROLL_ROLE_PARAM)
      continue;
    if (info.dtype == UNROLL_I32) {
      assert_status(UNROLL_OK, unroll_binding_write(binding, info.name, lengths, bytes, &err));
      continue;
    }
    size_t n = 1;
    for (int32_t k = 0; k < info.rank; k++)
      n *= (size_t)info.shape[k];
    float *data = malloc(n * sizeof *data);
    assert_non_null(data);
    uint32_t seed = (uint32_t)(i + 1) * 2654435761u;
    for (size_t k = 0; k < n; k++) {
      seed = seed * 1664525u + 1013904223u;
      data[k] = (float)(seed >> 8) / 16777216.0f - 0.5f;
    }
    assert_status(UNROLL_OK, unroll_binding_write(binding, info.name, data, n * sizeof *data, &err));
    free(data);
  }
}
