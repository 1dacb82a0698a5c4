/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The oneDNN backend as a plugin: what it promises of a reserve, that a layer and its gradient give the same bits again at
 * sizes at which oneDNN divides work among threads, and that the caller's OpenMP is left as it was. What its ops compute is
 * checked by conform_onednn_test. Skipped where the plugin is not there.
 */
#include "devices.h"
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unroll/plugin.h>

/* ---- through the table ---- */
static struct {
  void *plugin_file;
  const unroll_plugin *plugin;
  unroll_backend *backend;
  const unroll_backend_ops *ops;
  unroll_backend_device *device;
  uint32_t threads;
} test;

static void *host_alloc(void *ctx, uint64_t bytes, uint64_t alignment) {
  (void)ctx;
  return aligned_alloc(alignment < sizeof(void *) ? sizeof(void *) : alignment,
                       (bytes + alignment - 1) / alignment * alignment);
}
static void host_free(void *ctx, void *p) {
  (void)ctx;
  free(p);
}
static const void *host_extension(void *ctx, const char *id) {
  (void)ctx;
  return strcmp(id, "unroll.threads/1") == 0 ? &test.threads : NULL;
}
static const unroll_host host = {.struct_size = sizeof host,
                                 .abi_major = UNROLL_ABI_MAJOR,
                                 .abi_minor = UNROLL_ABI_MINOR,
                                 .alloc = host_alloc,
                                 .free = host_free,
                                 .extension = host_extension};

static void open_plugin(uint32_t threads) {
  char path[4200];
  const char *folder = getenv("UNROLL_PLUGIN_PATH");
  unroll_error err = UNROLL_ERROR_INIT;
  snprintf(path, sizeof path, "%s/unroll-onednn.so", folder ? folder : ".");
  if (!test.plugin_file && !(test.plugin_file = dlopen(path, RTLD_NOW | RTLD_LOCAL))) {
    print_message("%s\n", dlerror());
    skip();
  }
  assert_non_null(test.plugin = dlsym(test.plugin_file, UNROLL_PLUGIN_SYMBOL));
  test.threads = threads;
  assert_status(UNROLL_OK, test.plugin->open(&host, NULL, 0, &test.backend, &test.ops, &err));
  assert_status(UNROLL_OK, test.ops->device_open(test.backend, 0, NULL, 0, &test.device, &err));
}

static int close_plugin(void **state) {
  (void)state;
  if (test.backend) {
    test.ops->device_close(test.device);
    test.plugin->close(test.backend, NULL);
    test.backend = NULL;
  }
  return 0;
}

enum { T = 3, B = 2, I = 5, H = 4, MAX_TENSORS = 13 };

typedef struct graph { /* one node, each tensor in a slot of its own */
  unroll_graph_view view;
  unroll_node_view node;
  unroll_tensor_view tensors[MAX_TENSORS];
  uint32_t edges[20], n_edges;
  unroll_layer_attr attr;
} graph;

static void add_tensor(graph *g, int32_t dtype, int32_t rank, int64_t a, int64_t b, int64_t c) {
  unroll_tensor_view *t = &g->tensors[g->view.n_tensors];
  *t = (unroll_tensor_view){.dtype = dtype, .rank = rank, .slot = g->view.n_tensors, .alias = -1, .name = "t"};
  const int64_t shape[3] = {a, b, c};
  int64_t stride = 1;
  for (int32_t i = UNROLL_MAX_RANK; i-- > 0;) {
    t->dim[i] = -1;
    t->shape[i] = i < rank ? shape[i] : 1;
    t->stride[i] = i < rank ? stride : 0;
    stride *= t->shape[i];
  }
  g->edges[g->n_edges++] = g->view.n_tensors++;
}

/* An LSTM layer; reserve: 0 for the standard saved values, else the bytes of saved 0. */
static void make_layer(graph *g, uint64_t reserve) {
  memset(g, 0, sizeof *g);
  add_tensor(g, UNROLL_F32, 3, T, B, I);
  add_tensor(g, UNROLL_F32, 2, 4 * H, I, 0);
  add_tensor(g, UNROLL_F32, 2, 4 * H, H, 0);
  add_tensor(g, UNROLL_F32, 1, 4 * H, 0, 0);
  g->edges[g->n_edges++] = UNROLL_NO_TENSOR; /* b_n */
  add_tensor(g, UNROLL_F32, 2, B, H, 0);
  add_tensor(g, UNROLL_F32, 2, B, H, 0);
  g->edges[g->n_edges++] = UNROLL_NO_TENSOR; /* lengths */
  add_tensor(g, UNROLL_F32, 3, T, B, H);
  g->edges[g->n_edges++] = UNROLL_NO_TENSOR; /* h_last, c_last: nobody reads them */
  g->edges[g->n_edges++] = UNROLL_NO_TENSOR;
  if (reserve)
    add_tensor(g, UNROLL_U8, 1, (int64_t)reserve, 0, 0);
  else {
    add_tensor(g, UNROLL_F32, 3, T, B, H);
    add_tensor(g, UNROLL_F32, 3, T, B, 4 * H);
    add_tensor(g, UNROLL_F32, 3, T, B, H);
  }
  while (g->n_edges < 15)
    g->edges[g->n_edges++] = UNROLL_NO_TENSOR;
  g->attr = (unroll_layer_attr){.cell = UNROLL_CELL_LSTM, .direction = UNROLL_FORWARD};
  g->node = (unroll_node_view){.op = UNROLL_OP_LAYER,
                               .op_version = 1,
                               .n_in = 8,
                               .first_out = 8,
                               .n_out = 7,
                               .body = UNROLL_NO_BODY,
                               .attr = &g->attr,
                               .attr_size = sizeof g->attr,
                               .name = "layer"};
  g->view.struct_size = sizeof g->view;
  g->view.node_stride = sizeof g->node;
  g->view.tensor_stride = sizeof *g->tensors;
  g->view.n_nodes = 1;
  g->view.n_edges = g->n_edges;
  g->view.n_slots = g->view.n_tensors;
  g->view.nodes = &g->node;
  g->view.tensors = g->tensors;
  g->view.edges = g->edges;
}

static unroll_claim claim(const graph *g) {
  unroll_claim c = {0};
  unroll_error err = UNROLL_ERROR_INIT;
  assert_status(UNROLL_OK, test.ops->claim(test.device, &g->view, &c, sizeof c, &err));
  return c;
}

static unroll_status compile(const graph *g) {
  unroll_backend_exec *exec = NULL;
  unroll_error err = UNROLL_ERROR_INIT;
  const unroll_status status = test.ops->compile(test.device, &g->view, NULL, 0, &exec, &err);
  if (status == UNROLL_OK)
    test.ops->exec_destroy(exec);
  return status;
}

static void reserve_is_asked_for_and_insisted_on(void **state) {
  (void)state;
  open_plugin(2);
  graph g;
  make_layer(&g, 0);
  const unroll_claim first = claim(&g);
  assert_int_equal(first.group, UNROLL_GROUP_HOST);
  assert_int_equal(first.flags, UNROLL_CLAIM_RESERVE);
  assert_true(first.reserve_bytes > (uint64_t)(T * B * H) * sizeof(float));
  assert_int_equal(compile(&g), UNROLL_E_UNSUPPORTED); /* it was not granted */

  make_layer(&g, first.reserve_bytes);
  const unroll_claim again = claim(&g);
  assert_int_equal(again.group, UNROLL_GROUP_HOST);
  assert_int_equal(again.reserve_bytes, first.reserve_bytes);
  assert_int_equal(compile(&g), UNROLL_OK);

  make_layer(&g, first.reserve_bytes - 1);
  assert_int_equal(claim(&g).group, 0);
  assert_true(compile(&g) < 0);

  make_layer(&g, 0);
  for (uint32_t i = 11; i < 15; i++)
    g.edges[i] = UNROLL_NO_TENSOR;
  assert_int_equal(claim(&g).flags, 0); /* nobody reads what it would save */
  assert_int_equal(compile(&g), UNROLL_OK);
}

/* ---- OpenMP ---- */
typedef struct openmp {
  void (*set_num_threads)(int);
  int (*get_max_threads)(void);
} openmp;

static openmp find_openmp(void) {
  openmp o;
  void *set = dlsym(test.plugin_file, "omp_set_num_threads"), *get = dlsym(test.plugin_file, "omp_get_max_threads");
  if (!set || !get) {
    print_message("libdnnl was built without OpenMP\n");
    skip();
  }
  memcpy(&o.set_num_threads, &set, sizeof set);
  memcpy(&o.get_max_threads, &get, sizeof get);
  return o;
}

static void openmp_of_the_caller_stays(void **state) {
  (void)state;
  open_plugin(2);
  const openmp o = find_openmp();
  const int before = o.get_max_threads();
  o.set_num_threads(7);
  graph g;
  make_layer(&g, 0);
  claim(&g);
  assert_int_equal(o.get_max_threads(), 7);
  for (uint32_t i = 11; i < 15; i++)
    g.edges[i] = UNROLL_NO_TENSOR;
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_backend_exec *exec;
  assert_status(UNROLL_OK, test.ops->compile(test.device, &g.view, NULL, 0, &exec, &err));
  assert_int_equal(o.get_max_threads(), 7);
  unroll_exec_info info = {.struct_size = sizeof info};
  assert_status(UNROLL_OK, test.ops->exec_info(exec, &info, &err));
  unroll_backend_buffer *workspace, *buffers[MAX_TENSORS];
  unroll_slot slots[MAX_TENSORS];
  unroll_backend_queue *queue;
  assert_status(UNROLL_OK, test.ops->queue_create(test.device, 0, &queue, &err));
  assert_status(UNROLL_OK, test.ops->buffer_create(test.device, info.workspace_bytes, 0, &workspace, &err));
  for (uint32_t i = 0; i < g.view.n_tensors; i++) {
    const uint64_t bytes = 4096;
    assert_status(UNROLL_OK, test.ops->buffer_create(test.device, bytes, 0, &buffers[i], &err));
    assert_status(UNROLL_OK, test.ops->fill(queue, buffers[i], 0, bytes, 0, NULL, &err));
    slots[i] = (unroll_slot){.struct_size = sizeof *slots, .buffer = buffers[i], .bytes = bytes};
  }
  unroll_backend_binding *binding;
  assert_status(UNROLL_OK, test.ops->bind(exec, slots, g.view.n_slots, sizeof *slots, workspace, 0, &binding, &err));
  const unroll_run_args args = {.struct_size = sizeof args, .count = 1};
  assert_status(UNROLL_OK, test.ops->run(binding, queue, &args, NULL, &err));
  assert_int_equal(o.get_max_threads(), 7);
  o.set_num_threads(before);
  test.ops->binding_destroy(binding);
  for (uint32_t i = 0; i < g.view.n_tensors; i++)
    test.ops->buffer_destroy(buffers[i]);
  test.ops->buffer_destroy(workspace);
  test.ops->queue_destroy(queue);
  test.ops->exec_destroy(exec);
}

/* ---- through the runtime ---- */
enum { LARGE_T = 6, LARGE_B = 64, LARGE_H = 128, RUNS = 6 };

static void fill(model *m, const char *name, int64_t n, uint32_t seed) {
  double *values = malloc((size_t)n * sizeof *values);
  assert_non_null(values);
  for (int64_t i = 0; i < n; i++) {
    seed = seed * 1664525u + 1013904223u;
    values[i] = (double)(seed >> 8) / (1 << 24) - 0.5;
  }
  model_put(m, name, values, n);
  free(values);
}

static void same_bits_again(void **state) {
  static const int32_t cells[] = {UNROLL_CELL_RNN, UNROLL_CELL_LSTM, UNROLL_CELL_GRU, UNROLL_CELL_GRU_AFTER};
  unroll_device *dev = devices_next(*state, UNROLL_F32, NULL);
  unroll_error err = UNROLL_ERROR_INIT;
  for (size_t k = 0; k < sizeof cells / sizeof *cells; k++) {
    const int64_t G = cells[k] == UNROLL_CELL_RNN ? 1 : cells[k] == UNROLL_CELL_LSTM ? 4 : 3;
    const int64_t x_size = LARGE_T * LARGE_B * LARGE_H, W_size = G * LARGE_H * LARGE_H;
    unroll_graph *g;
    assert_status(UNROLL_OK, unroll_graph_create(NULL, &g, &err));
    unroll_layer_inputs in = {.x = unroll_input(g, "x", UNROLL_F32, 3, (int64_t[]){LARGE_T, LARGE_B, LARGE_H}),
                              .W_x = unroll_input(g, "W_x", UNROLL_F32, 2, (int64_t[]){G * LARGE_H, LARGE_H}),
                              .W_h = unroll_input(g, "W_h", UNROLL_F32, 2, (int64_t[]){G * LARGE_H, LARGE_H})};
    if (cells[k] == UNROLL_CELL_GRU_AFTER)
      in.b_n = unroll_input(g, "b_n", UNROLL_F32, 1, (int64_t[]){LARGE_H});
    const unroll_layer_attr attr = {.cell = cells[k], .activation = UNROLL_TANH};
    const unroll_layer_outputs out = unroll_layer(&in, &attr, 0);
    const unroll_tensor dy = unroll_input(g, "dy", UNROLL_F32, 3, (int64_t[]){LARGE_T, LARGE_B, LARGE_H});
    unroll_tensor d[3];
    unroll_vjp(&out.y, &dy, 1, (unroll_tensor[]){in.x, in.W_x, in.W_h}, 3, d);
    static const char *const names[] = {"y", "dx", "dW_x", "dW_h"};
    const int64_t sizes[] = {x_size, x_size, W_size, W_size};
    unroll_output(out.y, names[0]);
    for (int i = 0; i < 3; i++)
      unroll_output(d[i], names[1 + i]);
    model m = model_open(g, dev, true);
    fill(&m, "x", x_size, 1);
    fill(&m, "W_x", W_size, 2);
    fill(&m, "W_h", W_size, 3);
    fill(&m, "dy", x_size, 4);
    double *first[4];
    for (int run = 0; run < RUNS; run++) {
      model_run(&m);
      for (int i = 0; i < 4; i++) {
        double *now = model_get(&m, names[i], sizes[i]);
        if (run == 0)
          first[i] = now;
        else {
          assert_memory_equal(first[i], now, (size_t)sizes[i] * sizeof *now);
          free(now);
        }
      }
    }
    for (int i = 0; i < 4; i++)
      free(first[i]);
    model_close(&m);
    unroll_graph_destroy(g);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      {"same_bits_again", same_bits_again, NULL, NULL, "onednn"},
      cmocka_unit_test_teardown(reserve_is_asked_for_and_insisted_on, close_plugin),
      cmocka_unit_test_teardown(openmp_of_the_caller_stays, close_plugin),
  };
  return cmocka_run_group_tests(tests, devices_open, devices_close);
}
