/* SPDX-License-Identifier: Apache-2.0 */
/* The cpu backend through its vtable, on views made by hand; expected values by hand or in long double. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unroll/philox.h>
#include <unroll/plugin.h>

extern const unroll_plugin unroll_plugin_v1_cpu;

/* ---- a host, and a backend with so many threads ---- */
static void *host_alloc(void *ctx, uint64_t bytes, uint64_t alignment) {
  (void)ctx;
  return aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
}
static void host_free(void *ctx, void *p) {
  (void)ctx;
  free(p);
}
static const void *host_extension(void *ctx, const char *id) {
  return strcmp(id, "unroll.threads/1") == 0 ? ctx : NULL;
}

typedef struct fixture {
  uint32_t threads;
  unroll_backend *backend;
  const unroll_backend_ops *ops;
  unroll_backend_device *device;
  unroll_backend_queue *queue;
  unroll_error err;
} fixture;

#define OK(f, call)                                           \
  do {                                                        \
    const unroll_status ok_status = (call);                   \
    if (ok_status != UNROLL_OK)                               \
      fail_msg("status %d: %s", ok_status, (f)->err.message); \
  } while (0)

static void open_backend(fixture *f, uint32_t threads) {
  *f = (fixture){.threads = threads, .err = {.struct_size = sizeof f->err}};
  const unroll_host host = {.struct_size = sizeof host,
                            .abi_major = UNROLL_ABI_MAJOR,
                            .abi_minor = UNROLL_ABI_MINOR,
                            .ctx = &f->threads,
                            .alloc = host_alloc,
                            .free = host_free,
                            .extension = host_extension};
  OK(f, unroll_plugin_v1_cpu.open(&host, NULL, 0, &f->backend, &f->ops, &f->err));
  OK(f, f->ops->device_open(f->backend, 0, NULL, 0, &f->device, &f->err));
  OK(f, f->ops->queue_create(f->device, 0, &f->queue, &f->err));
}

static void close_backend(fixture *f) {
  f->ops->queue_destroy(f->queue);
  f->ops->device_close(f->device);
  OK(f, unroll_plugin_v1_cpu.close(f->backend, &f->err));
}

/* ---- a graph of one node; every tensor in a slot of its own, over the caller's memory ---- */
enum { MAX_TENSORS = 10 };
typedef struct graph {
  unroll_graph_view view;
  unroll_node_view node;
  unroll_tensor_view tensors[MAX_TENSORS];
  uint32_t edges[MAX_TENSORS];
  void *data[MAX_TENSORS];
  uint64_t bytes[MAX_TENSORS];
  int64_t dim_min[1], dim_max[1];
  unroll_run_args args;
} graph;

static uint64_t size_of(int32_t dtype) {
  return dtype == UNROLL_BOOL ? 1 : dtype == UNROLL_F64 || dtype == UNROLL_I64 ? 8 : 4;
}

static graph make(uint32_t op, const void *attr, size_t attr_size) {
  graph g;
  memset(&g, 0, sizeof g);
  g.view.struct_size = sizeof g.view;
  g.view.node_stride = sizeof g.node;
  g.view.tensor_stride = sizeof g.tensors[0];
  g.view.n_nodes = 1;
  g.node.op = op;
  g.node.attr = attr;
  g.node.attr_size = (uint32_t)attr_size;
  g.node.name = "node";
  g.args.struct_size = sizeof g.args;
  g.args.seed = 5;
  g.args.update = 2;
  return g;
}

static void add_edge(graph *g, uint32_t tensor, int is_output) {
  g->edges[g->view.n_edges++] = tensor;
  if (is_output)
    g->node.n_out++;
  else
    g->node.first_out = ++g->node.n_in;
}

static unroll_tensor_view *add(graph *g, int is_output, int32_t dtype, void *data, int32_t rank, const int64_t *shape) {
  const uint32_t i = g->view.n_tensors++;
  unroll_tensor_view *t = &g->tensors[i];
  int64_t n = 1;
  t->dtype = dtype;
  t->rank = rank;
  t->slot = i;
  t->alias = -1;
  t->name = is_output ? "out" : "in";
  for (int32_t a = UNROLL_MAX_RANK - 1; a >= 0; a--) {
    t->dim[a] = -1;
    if (a >= rank)
      continue;
    t->shape[a] = shape[a];
    t->stride[a] = n;
    n *= shape[a];
  }
  g->data[i] = data;
  g->bytes[i] = (uint64_t)n * size_of(dtype);
  g->view.n_slots = g->view.n_tensors;
  add_edge(g, i, is_output);
  return t;
}
#define DIMS(...) \
  (int32_t)(sizeof((const int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (const int64_t[]) { __VA_ARGS__ }
#define IN(g, dtype, data, ...) add(g, 0, dtype, data, DIMS(__VA_ARGS__))
#define OUT(g, dtype, data, ...) add(g, 1, dtype, data, DIMS(__VA_ARGS__))
#define IN_SCALAR(g, dtype, data) add(g, 0, dtype, data, 0, NULL)
#define ABSENT_IN(g) add_edge(g, UNROLL_NO_TENSOR, 0)
#define ABSENT_OUT(g) add_edge(g, UNROLL_NO_TENSOR, 1)

static void point(graph *g) {
  g->view.nodes = &g->node;
  g->view.tensors = g->tensors;
  g->view.edges = g->edges;
  g->view.dim_min = g->dim_min;
  g->view.dim_max = g->dim_max;
}

static unroll_status try_compile(fixture *f, graph *g) {
  unroll_backend_exec *exec = NULL;
  point(g);
  const unroll_status status = f->ops->compile(f->device, &g->view, NULL, 0, &exec, &f->err);
  f->ops->exec_destroy(exec);
  return status;
}

static uint32_t claim(fixture *f, graph *g) {
  unroll_claim c = {0};
  point(g);
  OK(f, f->ops->claim(f->device, &g->view, &c, sizeof c, &f->err));
  return c.group;
}

static unroll_status try_run(fixture *f, graph *g) {
  const unroll_backend_ops *ops = f->ops;
  unroll_backend_exec *exec = NULL;
  unroll_backend_binding *binding = NULL;
  unroll_backend_buffer *buffers[MAX_TENSORS] = {NULL}, *workspace = NULL;
  unroll_slot slots[MAX_TENSORS];
  unroll_exec_info info = {.struct_size = sizeof info};
  memset(slots, 0, sizeof slots);
  assert_int_equal(UNROLL_GROUP_HOST, claim(f, g));
  OK(f, ops->compile(f->device, &g->view, NULL, 0, &exec, &f->err));
  OK(f, ops->exec_info(exec, &info, &f->err));
  if (info.workspace_bytes)
    OK(f, ops->buffer_create(f->device, info.workspace_bytes, 0, &workspace, &f->err));
  for (uint32_t i = 0; i < g->view.n_slots; i++) {
    slots[i].struct_size = sizeof slots[i];
    if (!g->data[i])
      continue;
    OK(f, ops->buffer_from_host(f->device, g->data[i], g->bytes[i], 0, &buffers[i], &f->err));
    slots[i].buffer = buffers[i];
    slots[i].bytes = g->bytes[i];
  }
  unroll_status status = ops->bind(exec, slots, g->view.n_slots, sizeof slots[0], workspace, 0, &binding, &f->err);
  if (status == UNROLL_OK)
    status = ops->run(binding, f->queue, &g->args, NULL, &f->err);
  ops->binding_destroy(binding);
  ops->exec_destroy(exec);
  for (uint32_t i = 0; i < g->view.n_slots; i++)
    ops->buffer_destroy(buffers[i]);
  ops->buffer_destroy(workspace);
  return status;
}

static void run(fixture *f, graph *g) { OK(f, try_run(f, g)); }

/* ---- data ---- */
static float *values(int64_t n, uint32_t seed) {
  float *v = malloc((size_t)n * sizeof *v);
  assert_non_null(v);
  const unroll_philox_key key = unroll_philox_site_key(seed, 0, 0);
  for (int64_t i = 0; i < n; i++)
    v[i] = 2 * unroll_uniform(unroll_philox_word(key, 0, 0, (uint32_t)i)) - 0.7f;
  return v;
}

static float *nans(int64_t n) {
  float *v = malloc((size_t)n * sizeof *v);
  assert_non_null(v);
  memset(v, 0xFF, (size_t)n * sizeof *v);
  return v;
}

static void close_to(long double want, double got, double tolerance) {
  if (!(fabsl(want - (long double)got) <= (long double)tolerance * (1 + fabsl(want))))
    fail_msg("%.9Lg expected, got %.9g", want, got);
}
#define F32_TOLERANCE 1e-6 /* 8 roundings of 2^-24, and their factor 1 + |want| */

/* ---- products ---- */
typedef struct product_case {
  int64_t batch, rows, inner, M, N, K; /* rows·inner = M: a [rows,inner,K]; rows 0: a of rank 2 */
  int32_t trans_a, trans_b, c;         /* c: 0 none, 1 a row, 2 like y */
} product_case;

static void check_product(fixture *f, const product_case *p) {
  const unroll_matmul_attr attr = {.trans_a = p->trans_a, .trans_b = p->trans_b};
  const int64_t P = p->batch ? p->batch : 1, M = p->M, N = p->N, K = p->K;
  const int64_t n_c = p->c == 1 ? N : P * M * N;
  float *a = values(P * M * K, 1), *b = values(P * K * N, 2), *c = values(n_c, 3), *y = nans(P * M * N);
  graph g = make(UNROLL_OP_MATMUL, &attr, sizeof attr);
  if (p->batch) {
    IN(&g, UNROLL_F32, a, P, p->trans_a ? K : M, p->trans_a ? M : K);
    IN(&g, UNROLL_F32, b, P, p->trans_b ? N : K, p->trans_b ? K : N);
  } else {
    if (p->rows)
      IN(&g, UNROLL_F32, a, p->rows, p->inner, K);
    else
      IN(&g, UNROLL_F32, a, p->trans_a ? K : M, p->trans_a ? M : K);
    IN(&g, UNROLL_F32, b, p->trans_b ? N : K, p->trans_b ? K : N);
  }
  const int is_rank_3 = p->batch || p->rows;
  const int64_t y_shape[3] = {p->batch ? P : p->rows, p->batch ? M : p->inner, N}, y_flat[2] = {M, N};
  if (p->c == 1)
    IN(&g, UNROLL_F32, c, N);
  else if (p->c == 2)
    add(&g, 0, UNROLL_F32, c, is_rank_3 ? 3 : 2, is_rank_3 ? y_shape : y_flat);
  else
    ABSENT_IN(&g);
  add(&g, 1, UNROLL_F32, y, is_rank_3 ? 3 : 2, is_rank_3 ? y_shape : y_flat);
  run(f, &g);
  for (int64_t i = 0; i < P * M * N; i++) {
    const int64_t q = i / (M * N), m = i / N % M, n = i % N;
    long double want = p->c == 0 ? 0 : c[p->c == 1 ? n : i];
    for (int64_t k = 0; k < K; k++)
      want += (long double)a[q * M * K + (p->trans_a ? k * M + m : m * K + k)] *
              b[q * K * N + (p->trans_b ? n * K + k : k * N + n)];
    close_to(want, (double)y[i], 1e-5); /* at most 300 terms of about 1/2, in partial sums of 256 */
  }
  free(a);
  free(b);
  free(c);
  free(y);
}

static void products(void **state) {
  static const product_case cases[] = {
      {0, 2, 3, 6, 5, 4, 0, 0, 0},     {0, 7, 10, 70, 37, 300, 0, 0, 1}, {0, 7, 10, 70, 37, 300, 0, 1, 2},
      {0, 0, 0, 9, 41, 300, 1, 0, 1},  {0, 0, 0, 9, 41, 300, 1, 1, 2},   {3, 0, 0, 6, 33, 7, 0, 0, 2},
      {3, 0, 0, 6, 33, 7, 1, 1, 1},    {3, 0, 0, 66, 3, 7, 0, 1, 0},     {2, 0, 0, 3, 4, 5, 1, 0, 0},
      {0, 1, 1, 1, 130, 257, 0, 1, 0},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
    check_product(*state, &cases[i]);
}

/* A partial sum of 256 terms errs by at most 256·2^-24 of itself, their sum in double by nothing more; summed in f32
 * alone the result is off by 4.6e-4. */
static void long_sums_stay_accurate(void **state) {
  const int64_t K = 200000;
  const unroll_matmul_attr attr = {.trans_a = 1, .trans_b = 0};
  float *a = malloc((size_t)K * sizeof *a), y[1];
  assert_non_null(a);
  long double want = 0;
  for (int64_t k = 0; k < K; k++) {
    a[k] = 1 + (float)(k % 7) * 0.01f;
    want += (long double)a[k] * a[k];
  }
  graph g = make(UNROLL_OP_MATMUL, &attr, sizeof attr);
  IN(&g, UNROLL_F32, a, K, 1);
  IN(&g, UNROLL_F32, a, K, 1);
  OUT(&g, UNROLL_F32, y, 1, 1);
  run(*state, &g);
  close_to(want, (double)y[0], 256 * 0x1p-24);
  free(a);
}

/* The same bits for every number of threads, and for rows alone as for rows together. */
static void threads_change_no_bit(void **state) {
  (void)state;
  const int64_t M = 130, N = 200, K = 300, H = 50;
  const unroll_matmul_attr attr = {.trans_a = 0, .trans_b = 1};
  float *a = values(M * K, 1), *b = values(N * K, 2), *c_prev = values(M * H, 3);
  float *y[4], *h[4];
  for (uint32_t threads = 1; threads <= 3; threads++) {
    fixture f;
    open_backend(&f, threads);
    y[threads] = nans(M * N);
    h[threads] = nans(M * H);
    for (int again = 0; again < 20; again++) {
      graph g = make(UNROLL_OP_MATMUL, &attr, sizeof attr);
      IN(&g, UNROLL_F32, a, M, K);
      IN(&g, UNROLL_F32, b, N, K);
      OUT(&g, UNROLL_F32, y[threads], M, N);
      run(&f, &g);
    }
    graph gates = make(UNROLL_OP_LSTM_GATES, NULL, 0);
    IN(&gates, UNROLL_F32, y[threads], M, 4 * H);
    IN(&gates, UNROLL_F32, c_prev, M, H);
    OUT(&gates, UNROLL_F32, h[threads], M, H);
    ABSENT_OUT(&gates);
    ABSENT_OUT(&gates);
    run(&f, &gates);
    close_backend(&f);
    assert_memory_equal(y[1], y[threads], (size_t)(M * N) * sizeof(float));
    assert_memory_equal(h[1], h[threads], (size_t)(M * H) * sizeof(float));
  }
  fixture f;
  open_backend(&f, 1);
  for (int64_t m = 0; m < M; m += 43) {
    float *row = nans(N);
    graph g = make(UNROLL_OP_MATMUL, &attr, sizeof attr);
    IN(&g, UNROLL_F32, a + m * K, 1, K);
    IN(&g, UNROLL_F32, b, N, K);
    OUT(&g, UNROLL_F32, row, 1, N);
    run(&f, &g);
    assert_memory_equal(row, y[1] + m * N, (size_t)N * sizeof(float));
    free(row);
  }
  close_backend(&f);
  for (int i = 1; i <= 3; i++) {
    free(y[i]);
    free(h[i]);
  }
  free(a);
  free(b);
  free(c_prev);
}

/* Two threads, each with a queue and a binding of its own, share one backend and its pool. */
typedef struct caller {
  fixture f;
  float *a, *b, *y;
} caller;
enum { CALLER_M = 96, CALLER_N = 64, CALLER_K = 128 };

static void *call_often(void *arg) {
  caller *c = arg;
  const unroll_matmul_attr attr = {.trans_a = 0, .trans_b = 0};
  for (int i = 0; i < 30; i++) {
    graph g = make(UNROLL_OP_MATMUL, &attr, sizeof attr);
    IN(&g, UNROLL_F32, c->a, CALLER_M, CALLER_K);
    IN(&g, UNROLL_F32, c->b, CALLER_K, CALLER_N);
    OUT(&g, UNROLL_F32, c->y, CALLER_M, CALLER_N);
    run(&c->f, &g);
  }
  return NULL;
}

static void runs_at_once(void **state) {
  fixture *f = *state;
  caller c[2];
  pthread_t threads[2];
  for (int i = 0; i < 2; i++) {
    c[i] = (caller){*f, values(CALLER_M * CALLER_K, 1), values(CALLER_K * CALLER_N, 2), nans(CALLER_M * CALLER_N)};
    OK(f, f->ops->queue_create(f->device, 0, &c[i].f.queue, &f->err));
  }
  for (int i = 0; i < 2; i++)
    assert_int_equal(0, pthread_create(&threads[i], NULL, call_often, &c[i]));
  for (int i = 0; i < 2; i++)
    assert_int_equal(0, pthread_join(threads[i], NULL));
  assert_memory_equal(c[0].y, c[1].y, CALLER_M * CALLER_N * sizeof(float));
  assert_true(c[0].y[0] == c[0].y[0]);
  for (int i = 0; i < 2; i++) {
    f->ops->queue_destroy(c[i].f.queue);
    free(c[i].a);
    free(c[i].b);
    free(c[i].y);
  }
}

/* ---- elementwise, reductions, rows ---- */
static void broadcasts(void **state) {
  const unroll_binary_attr sub = {UNROLL_SUB, 0};
  float a[6] = {1, 2, 3, 4, 5, 6}, b[4] = {10, 20, 30, 40}, y[24];
  graph g = make(UNROLL_OP_BINARY, &sub, sizeof sub);
  IN(&g, UNROLL_F32, a, 2, 1, 3); /* [2,1,3] - [4,1] -> [2,4,3] */
  IN(&g, UNROLL_F32, b, 4, 1);
  OUT(&g, UNROLL_F32, y, 2, 4, 3);
  run(*state, &g);
  for (int i = 0; i < 24; i++)
    assert_true(y[i] == a[i / 12 * 3 + i % 3] - b[i / 3 % 4]);

  g = make(UNROLL_OP_BINARY, &sub, sizeof sub);
  IN(&g, UNROLL_F32, a, 6);
  IN(&g, UNROLL_F32, b, 3);
  OUT(&g, UNROLL_F32, y, 6);
  assert_int_equal(UNROLL_E_SHAPE, try_compile(*state, &g));
  assert_int_equal(0, claim(*state, &g));

  const unroll_binary_attr max = {UNROLL_MAX, 0};
  float p[3] = {NAN, 1, -0.5f}, q[3] = {1, NAN, 2}, r[3];
  g = make(UNROLL_OP_BINARY, &max, sizeof max);
  IN(&g, UNROLL_F32, p, 3);
  IN(&g, UNROLL_F32, q, 3);
  OUT(&g, UNROLL_F32, r, 3);
  run(*state, &g);
  assert_true(isnan(r[0]) && isnan(r[1]) && r[2] == 2);

  const unroll_binary_attr div = {UNROLL_DIV, 0};
  int32_t i[4] = {7, -7, INT32_MIN, 5}, j[4] = {2, 2, -1, 0}, k[4];
  g = make(UNROLL_OP_BINARY, &div, sizeof div);
  IN(&g, UNROLL_I32, i, 4);
  IN(&g, UNROLL_I32, j, 4);
  OUT(&g, UNROLL_I32, k, 4);
  run(*state, &g);
  assert_true(k[0] == 3 && k[1] == -3 && k[2] == INT32_MIN && k[3] == 0);
}

static void unaries_at_the_edges(void **state) {
  float x[6] = {-200, 200, 0, NAN, INFINITY, -INFINITY}, y[6];
  const unroll_unary_attr sigmoid = {UNROLL_SIGMOID, 0}, relu = {UNROLL_RELU, 0};
  graph g = make(UNROLL_OP_UNARY, &sigmoid, sizeof sigmoid);
  IN(&g, UNROLL_F32, x, 6);
  OUT(&g, UNROLL_F32, y, 6);
  run(*state, &g);
  assert_true(y[0] >= 0 && y[0] < 1e-37f && y[1] == 1 && y[2] == 0.5f && isnan(y[3]) && y[4] == 1 && y[5] == 0);
  g.node.attr = &relu;
  run(*state, &g);
  assert_true(y[0] == 0 && y[1] == 200 && isnan(y[3]) && isinf(y[4]) && y[5] == 0);

  double d[5] = {1e30, -1e30, -2.9, (double)NAN, 0.5};
  int32_t i[5];
  g = make(UNROLL_OP_CAST, NULL, 0);
  IN(&g, UNROLL_F64, d, 5);
  OUT(&g, UNROLL_I32, i, 5);
  run(*state, &g);
  assert_true(i[0] == INT32_MAX && i[1] == INT32_MIN && i[2] == -2 && i[3] == 0 && i[4] == 0);
}

static void reductions(void **state) {
  const int64_t A = 3, B = 70, C = 5;
  float *x = values(A * B * C, 4), y[15], total[1];
  const unroll_reduce_attr over_b = {.kind = UNROLL_SUM, .axes = 2, .keep_dims = 1},
                           all = {.kind = UNROLL_SUM_SQUARES, .axes = 7, .keep_dims = 0};
  graph g = make(UNROLL_OP_REDUCE, &over_b, sizeof over_b);
  IN(&g, UNROLL_F32, x, A, B, C);
  OUT(&g, UNROLL_F32, y, A, 1, C);
  run(*state, &g);
  for (int64_t i = 0; i < A * C; i++) {
    long double want = 0;
    for (int64_t b = 0; b < B; b++)
      want += x[(i / C * B + b) * C + i % C];
    close_to(want, (double)y[i], F32_TOLERANCE);
  }
  g = make(UNROLL_OP_REDUCE, &all, sizeof all);
  IN(&g, UNROLL_F32, x, A, B, C);
  add(&g, 1, UNROLL_F32, total, 0, NULL);
  run(*state, &g);
  long double want = 0;
  for (int64_t i = 0; i < A * B * C; i++)
    want += (long double)x[i] * x[i];
  close_to(want, (double)total[0], F32_TOLERANCE);

  const unroll_reduce_attr max = {.kind = UNROLL_REDUCE_MAX, .axes = 1, .keep_dims = 0};
  float z[4] = {1, NAN, 3, 2}, m[2];
  g = make(UNROLL_OP_REDUCE, &max, sizeof max);
  IN(&g, UNROLL_F32, z, 2, 2);
  OUT(&g, UNROLL_F32, m, 2);
  run(*state, &g);
  assert_true(m[0] == 3 && isnan(m[1]));
  free(x);
}

static void softmax_and_losses(void **state) {
  float x[8] = {1000, 1001, 999, 1000, -3, 0.5f, 2, 1}, y[8], loss[2], dloss[2] = {2, -1};
  graph g = make(UNROLL_OP_SOFTMAX, NULL, 0);
  IN(&g, UNROLL_F32, x, 2, 4);
  OUT(&g, UNROLL_F32, y, 2, 4);
  run(*state, &g);
  for (int i = 0; i < 8; i++) {
    long double sum = 0;
    for (int j = 0; j < 4; j++)
      sum += expl((long double)x[i / 4 * 4 + j] - x[i]);
    close_to(1 / sum, (double)y[i], F32_TOLERANCE);
  }
  for (int32_t target = -1; target <= 4; target++) {
    int32_t targets[2] = {1, target};
    float dx[8];
    g = make(UNROLL_OP_CROSS_ENTROPY, NULL, 0);
    IN(&g, UNROLL_F32, x, 2, 4);
    IN(&g, UNROLL_I32, targets, 2);
    OUT(&g, UNROLL_F32, loss, 2);
    run(*state, &g);
    close_to(logl(expl(-1) + 1 + expl(-2) + expl(-1)), (double)loss[0], F32_TOLERANCE);
    g = make(UNROLL_OP_CROSS_ENTROPY_GRAD, NULL, 0);
    IN(&g, UNROLL_F32, x, 2, 4);
    IN(&g, UNROLL_I32, targets, 2);
    IN(&g, UNROLL_F32, dloss, 2);
    OUT(&g, UNROLL_F32, dx, 2, 4);
    run(*state, &g);
    for (int j = 0; j < 4; j++) {
      close_to(2 * ((long double)y[j] - (j == 1)), (double)dx[j], F32_TOLERANCE);
      if (target < 0)
        assert_true(dx[4 + j] == 0 && loss[1] == 0);
      else if (target == 4)
        assert_true(isnan(dx[4 + j]) && isnan(loss[1]));
      else
        close_to(-((long double)y[4 + j] - (j == target)), (double)dx[4 + j], F32_TOLERANCE);
    }
    if (target >= 0 && target < 4)
      close_to(-logl((long double)y[4 + target]), (double)loss[1], F32_TOLERANCE);
  }
}

static void embeddings(void **state) {
  float table[6] = {1, 2, 3, 4, 5, 6}, y[8], dy[8] = {1, 10, 2, 20, 3, 30, 4, 40}, dtable[6];
  int32_t ids[4] = {2, -1, 2, 3};
  graph g = make(UNROLL_OP_EMBEDDING, NULL, 0);
  IN(&g, UNROLL_F32, table, 3, 2);
  IN(&g, UNROLL_I32, ids, 4);
  OUT(&g, UNROLL_F32, y, 4, 2);
  run(*state, &g);
  assert_true(y[0] == 5 && y[1] == 6 && isnan(y[2]) && isnan(y[3]) && y[4] == 5 && isnan(y[6]) && isnan(y[7]));
  g = make(UNROLL_OP_EMBEDDING_GRAD, NULL, 0);
  IN(&g, UNROLL_I32, ids, 4);
  IN(&g, UNROLL_F32, dy, 4, 2);
  OUT(&g, UNROLL_F32, dtable, 3, 2);
  run(*state, &g);
  const float want[6] = {0, 0, 0, 0, 4, 40};
  assert_memory_equal(want, dtable, sizeof want);
}

static void samples(void **state) {
  enum { ROWS = 4000 };
  static float logits[ROWS][5];
  static int32_t y[ROWS];
  int64_t seen[5] = {0};
  for (int i = 0; i < ROWS; i++)
    memcpy(logits[i], (const float[]){0, logf(3), -1, logf(3), logf(3)}, sizeof logits[i]);
  const unroll_categorical_attr attr = {7, 0, 2, 0};
  graph g = make(UNROLL_OP_CATEGORICAL, &attr, sizeof attr);
  IN(&g, UNROLL_F32, logits, ROWS, 5);
  OUT(&g, UNROLL_I32, y, ROWS);
  g.args.t0 = 3;
  g.args.row0 = 11;
  run(*state, &g);
  const unroll_philox_key key = unroll_philox_site_key(5, 2, 7);
  for (int i = 0; i < ROWS; i++) { /* the two largest, ties by index: 1 and 3, even odds */
    const float u = unroll_uniform(unroll_philox_word(key, 3, 11 + (uint32_t)i, 0));
    assert_int_equal(u < 0.5f ? 1 : 3, y[i]);
    seen[y[i]]++;
  }
  assert_true(seen[1] > ROWS / 2 - 200 && seen[3] > ROWS / 2 - 200);
}

/* ---- optimizers: one step, in long double ---- */
static void optimizers(void **state) {
  for (int32_t kind = UNROLL_SGD; kind <= UNROLL_ADAMW; kind++) {
    const unroll_optimizer_attr attr = {kind, 0, 0.9, 0.99, 1e-3, 0.1};
    double p[2] = {0.5, -2}, g0[2] = {0.3, 4}, lr = 0.05, scale = 0.5, s1[2] = {0.2, 0.7}, s2[2] = {0.4, 0.6};
    const double p_old[2] = {0.5, -2}, s1_old[2] = {0.2, 0.7}, s2_old[2] = {0.4, 0.6};
    int32_t step = 3;
    graph g = make(UNROLL_OP_OPTIMIZER, &attr, sizeof attr);
    IN(&g, UNROLL_F64, p, 2);
    IN(&g, UNROLL_F64, g0, 2);
    IN_SCALAR(&g, UNROLL_F64, &lr);
    IN_SCALAR(&g, UNROLL_I32, &step);
    IN_SCALAR(&g, UNROLL_F64, &scale);
    IN(&g, UNROLL_F64, s1, 2);
    if (kind >= UNROLL_ADAM)
      IN(&g, UNROLL_F64, s2, 2);
    else
      ABSENT_IN(&g);
    OUT(&g, UNROLL_F64, p, 2); /* in place */
    OUT(&g, UNROLL_F64, s1, 2);
    if (kind >= UNROLL_ADAM)
      OUT(&g, UNROLL_F64, s2, 2);
    run(*state, &g);
    for (int i = 0; i < 2; i++) {
      long double w = p_old[i], d = (long double)g0[i] * 0.5L, m1 = s1_old[i], m2 = s2_old[i];
      const long double b1 = attr.beta1, b2 = attr.beta2, rate = lr, eps = attr.epsilon, decay = attr.weight_decay;
      if (kind == UNROLL_ADAMW)
        w -= rate * decay * w;
      else
        d += decay * w;
      if (kind == UNROLL_SGD) {
        m1 = b1 * m1 + d;
        w -= rate * m1;
      } else if (kind == UNROLL_RMSPROP) {
        m1 = b2 * m1 + (1 - b2) * d * d;
        w -= rate * d / (sqrtl(m1) + eps);
      } else {
        m1 = b1 * m1 + (1 - b1) * d;
        m2 = b2 * m2 + (1 - b2) * d * d;
        w -= rate * (m1 / (1 - b1 * b1 * b1)) / (sqrtl(m2 / (1 - b2 * b2 * b2)) + eps);
      }
      close_to(w, p[i], 1e-14);
      close_to(m1, s1[i], 1e-14);
      close_to(m2, s2[i], 1e-14);
    }
  }
}

/* ---- templates: y_t = x_t - y_{t-1}, the carry in turns in two places; y kept for each t by its own tensor ---- */
static void templates(void **state) {
  fixture *f = *state;
  const unroll_binary_attr sub = {UNROLL_SUB, 0};
  for (int32_t direction = UNROLL_FORWARD; direction <= UNROLL_REVERSE; direction++) {
    float x[6][2], carry[2][2] = {{1, 2}, {1, 2}};
    for (int i = 0; i < 12; i++)
      x[i / 2][i % 2] = (float)(i * i);
    graph g = make(UNROLL_OP_BINARY, &sub, sizeof sub);
    g.view.is_template = 1;
    unroll_tensor_view *xt = IN(&g, UNROLL_F32, x, 2);
    xt->step = 2 * sizeof(float);
    g.bytes[0] = sizeof x;
    unroll_tensor_view *before = IN(&g, UNROLL_F32, carry, 2), *after = OUT(&g, UNROLL_F32, NULL, 2);
    before->period = after->period = 2; /* read at t % 2, written at the other */
    before->step = 2 * sizeof(float);
    after->step = -before->step;
    after->offset = 2 * sizeof(float);
    after->slot = 1;
    g.bytes[1] = sizeof carry;
    g.args.first = direction == UNROLL_FORWARD ? 1 : 5;
    g.args.count = 5;
    g.args.direction = direction;
    run(f, &g);
    float want[2] = {1, 2};
    for (int i = 0; i < 5; i++)
      for (int j = 0; j < 2; j++)
        want[j] = x[direction == UNROLL_FORWARD ? 1 + i : 5 - i][j] - want[j];
    const int last = direction == UNROLL_FORWARD ? 5 : 1;
    assert_memory_equal(want, carry[1 - last % 2], sizeof want);

    g.args.count = 6; /* t leaves x, or goes below 0 */
    g.args.first = direction == UNROLL_FORWARD ? 1 : 4;
    assert_int_equal(UNROLL_E_RANGE, try_run(f, &g));
    g.args.count = 0;
    run(f, &g);
  }
}

static void run_time_sizes(void **state) {
  fixture *f = *state;
  const unroll_binary_attr add_attr = {UNROLL_ADD, 0};
  float x[12], b[2] = {100, 200}, y[12];
  for (int i = 0; i < 12; i++) {
    x[i] = (float)i;
    y[i] = -1;
  }
  graph g = make(UNROLL_OP_BINARY, &add_attr, sizeof add_attr);
  IN(&g, UNROLL_F32, x, 6, 2)->dim[0] = 0; /* two rows for each of at most 3 */
  IN(&g, UNROLL_F32, b, 2);
  OUT(&g, UNROLL_F32, y, 6, 2)->dim[0] = 0;
  g.view.n_dims = 1;
  g.dim_min[0] = 1;
  g.dim_max[0] = 3;
  int64_t dims[1] = {2};
  g.args.n_dims = 1;
  g.args.dims = dims;
  run(f, &g);
  for (int i = 0; i < 12; i++)
    assert_true(y[i] == (i < 8 ? x[i] + b[i % 2] : -1));
  dims[0] = 4;
  assert_int_equal(UNROLL_E_RANGE, try_run(f, &g));
}

/* ---- what is refused ---- */
static void malformed_views(void **state) {
  fixture *f = *state;
  const unroll_unary_attr neg = {UNROLL_NEG, 0};
  float x[4] = {0}, y[4];
  graph good = make(UNROLL_OP_UNARY, &neg, sizeof neg);
  IN(&good, UNROLL_F32, x, 4);
  OUT(&good, UNROLL_F32, y, 4);
  run(f, &good);
#define REFUSED(status, change)                   \
  do {                                            \
    graph g = good;                               \
    change;                                       \
    f->err.message[0] = 0;                        \
    assert_int_equal(status, try_compile(f, &g)); \
    assert_int_equal(status, f->err.code);        \
    assert_true(f->err.message[0] != 0);          \
  } while (0)
  REFUSED(UNROLL_E_GRAPH, g.edges[0] = 2);
  REFUSED(UNROLL_E_GRAPH, g.node.first_in = 7);
  REFUSED(UNROLL_E_GRAPH, g.node.n_out = 5);
  REFUSED(UNROLL_E_GRAPH, g.edges[0] = UNROLL_NO_TENSOR);
  REFUSED(UNROLL_E_GRAPH, g.node.attr_size = 4);
  REFUSED(UNROLL_E_GRAPH, g.node.attr = NULL);
  REFUSED(UNROLL_E_GRAPH, g.tensors[0].slot = UNROLL_NO_SLOT);
  REFUSED(UNROLL_E_GRAPH, g.tensors[0].dim[0] = 0);
  REFUSED(UNROLL_E_GRAPH, g.tensors[1].stride[0] = 2);
  REFUSED(UNROLL_E_SHAPE, g.tensors[1].shape[0] = 3);
  REFUSED(UNROLL_E_SHAPE, g.tensors[1].shape[0] = 0);
  REFUSED(UNROLL_E_SHAPE, g.tensors[0].rank = 7);
  REFUSED(UNROLL_E_DTYPE, g.tensors[1].dtype = UNROLL_F64);
  REFUSED(UNROLL_E_DTYPE, g.tensors[0].dtype = 77);
  REFUSED(UNROLL_E_DTYPE, g.tensors[0].dtype = g.tensors[1].dtype = UNROLL_BF16);
  REFUSED(UNROLL_E_UNSUPPORTED, g.node.op = UNROLL_OP_SCAN);
  REFUSED(UNROLL_E_ABI, g.view.struct_size = 8);
  REFUSED(UNROLL_E_ABI, g.view.tensor_stride = 8);
#undef REFUSED
  graph bf16 = good;
  bf16.tensors[0].dtype = bf16.tensors[1].dtype = UNROLL_BF16;
  assert_int_equal(0, claim(f, &bf16));
  graph short_slot = good;
  short_slot.bytes[1] = 12;
  assert_int_equal(UNROLL_E_RANGE, try_run(f, &short_slot));
  graph empty = good;
  empty.view.n_nodes = 0;
  assert_int_equal(UNROLL_OK, try_compile(f, &empty));
  graph unread = good;
  unread.edges[1] = UNROLL_NO_TENSOR;
  y[0] = 9;
  run(f, &unread);
  assert_true(y[0] == 9);
}

static void buffers(void **state) {
  fixture *f = *state;
  const unroll_backend_ops *ops = f->ops;
  unroll_backend_buffer *b = NULL;
  unroll_backend_event *event = NULL;
  uint8_t in[8] = {1, 2, 3, 4, 5, 6, 7, 8}, out[8] = {0};
  const uint8_t want[8] = {1, 2, 1, 2, 3, 6, 9, 9};
  void *mapped = NULL;
  OK(f, ops->buffer_create(f->device, 8, 0, &b, &f->err));
  OK(f, ops->write(f->queue, b, 0, in, 8, NULL, &f->err));
  OK(f, ops->copy(f->queue, b, 2, b, 0, 3, NULL, &f->err));
  OK(f, ops->fill(f->queue, b, 6, 2, 9, NULL, &f->err));
  OK(f, ops->read(f->queue, b, 0, out, 8, &event, &f->err));
  OK(f, ops->event_wait(event, &f->err));
  ops->event_destroy(event);
  assert_memory_equal(want, out, sizeof out);
  OK(f, ops->map(f->queue, b, 4, 4, 0, &mapped, &f->err));
  assert_int_equal(3, *(uint8_t *)mapped);
  OK(f, ops->unmap(f->queue, b, mapped, &f->err));
  assert_int_equal(UNROLL_E_RANGE, ops->write(f->queue, b, 4, in, 5, NULL, &f->err));
  assert_int_equal(UNROLL_E_RANGE, ops->read(f->queue, b, UINT64_MAX, out, 2, NULL, &f->err));
  ops->buffer_destroy(b);

  unroll_device_info info = {.struct_size = sizeof info};
  OK(f, ops->device_info(f->backend, 0, &info, &f->err));
  assert_int_equal(UNROLL_KIND_CPU, info.kind);
  assert_string_equal("0", info.id);
  assert_true(info.name[0] != 0 && info.mem_total > 0 && (info.caps & UNROLL_CAP_DETERMINISTIC));
}

static int setup(void **state) {
  fixture *f = malloc(sizeof *f);
  if (!f)
    return -1;
  open_backend(f, 2);
  *state = f;
  return 0;
}

static int teardown(void **state) {
  close_backend(*state);
  free(*state);
  return 0;
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(products),       cmocka_unit_test(long_sums_stay_accurate),
      cmocka_unit_test(broadcasts),     cmocka_unit_test(unaries_at_the_edges),
      cmocka_unit_test(reductions),     cmocka_unit_test(softmax_and_losses),
      cmocka_unit_test(embeddings),     cmocka_unit_test(samples),
      cmocka_unit_test(optimizers),     cmocka_unit_test(templates),
      cmocka_unit_test(run_time_sizes), cmocka_unit_test(malformed_views),
      cmocka_unit_test(buffers),        cmocka_unit_test(threads_change_no_bit),
      cmocka_unit_test(runs_at_once),
  };
  return cmocka_run_group_tests(tests, setup, teardown);
}
