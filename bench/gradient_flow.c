/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What it costs to look at the flow of gradients, in training updates: of the same layers on the same batch, in f64 on the
 * cpu reference, loss, gradients and SGD. Prints one JSON object per shape: "norms" is the gradient's norms by step,
 * "products" these and the products of Jacobians of all lags, "sigma" that and the singular values of a dozen lags.
 * All in processor time, building and compiling the graphs included.
 *
 *     gradient_flow [STEPS BATCH HIDDEN]
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unroll/flow.h>

enum { I = 32, MAX_WEIGHTS = 16, UPDATES = 3 };

typedef struct network {
  int64_t T, B;
  unroll_rnn_options rnn;
  unroll_network_weight weights[MAX_WEIGHTS];
  uint32_t n_weights;
  double *x, *dy;
} network;

static double cpu_seconds(void) { return (double)clock() / CLOCKS_PER_SEC; }

static double *filled(int64_t n) {
  uint32_t word = 1;
  double *x = malloc((size_t)n * sizeof *x);
  for (int64_t i = 0; x && i < n; i++) {
    word = word * 1664525u + 1013904223u; /* Numerical Recipes */
    x[i] = (double)(word >> 8) * 0x1p-23 - 1;
  }
  return x;
}

/* The graph of an update; its parameters' first values become the network's weights. */
static unroll_status build(network *n, unroll_graph *g, unroll_error *err) {
  const int64_t D = n->rnn.bidirectional ? 2 : 1, shape[3] = {n->T, n->B, D * n->rnn.hidden};
  const unroll_tensor x = unroll_input(g, "x", UNROLL_F64, 3, (int64_t[]){n->T, n->B, I});
  const unroll_tensor y = unroll_rnn(x, "", &n->rnn, NULL, NULL);
  const unroll_tensor dy = unroll_input(g, "dy", UNROLL_F64, 3, shape);
  const unroll_tensor loss = unroll_reduce(unroll_mul(y, dy), UNROLL_SUM, 0, 0);
  unroll_tensor wrt[MAX_WEIGHTS], d[MAX_WEIGHTS];
  unroll_status status = unroll_graph_status(g, err);
  for (uint32_t i = 0; i < unroll_graph_count(g) && status == UNROLL_OK; i++) {
    const unroll_tensor t = unroll_graph_tensor(g, i);
    const unroll_tensor_info info = unroll_tensor_describe(t);
    if (info.role != UNROLL_ROLE_PARAM || n->n_weights == MAX_WEIGHTS)
      continue;
    uint64_t count = 1;
    for (int32_t k = 0; k < info.rank; k++)
      count *= (uint64_t)info.shape[k];
    double *data = malloc(count * sizeof *data);
    if (!data)
      return UNROLL_E_MEMORY;
    status = unroll_init_default(&info, n->rnn.cell, 1, data, err);
    wrt[n->n_weights] = t;
    n->weights[n->n_weights++] = (unroll_network_weight){info.name, data, count};
  }
  unroll_gradient(loss, wrt, n->n_weights, d);
  const unroll_tensor lr = unroll_constant(g, UNROLL_F64, 0, NULL, 1e-3);
  const unroll_tensor step = unroll_constant(g, UNROLL_I32, 0, NULL, 1);
  for (uint32_t i = 0; i < n->n_weights; i++)
    unroll_optimize(wrt[i], d[i], lr, step, unroll_none(), &(unroll_optimizer_attr){.kind = UNROLL_SGD});
  return status == UNROLL_OK ? unroll_graph_status(g, err) : status;
}

static unroll_status time_update(network *n, unroll_graph *g, unroll_device *device, double *seconds,
                                 unroll_error *err) {
  unroll_executable *exe = NULL;
  unroll_binding *b = NULL;
  unroll_status status = unroll_compile(g, &device, 1, NULL, &exe, err);
  if (status == UNROLL_OK)
    status = unroll_binding_create(exe, &b, err);
  for (uint32_t i = 0; i < n->n_weights && status == UNROLL_OK; i++)
    status = unroll_binding_write(b, n->weights[i].name, n->weights[i].data, n->weights[i].count * sizeof(double), err);
  if (status == UNROLL_OK)
    status = unroll_binding_write(b, "x", n->x, (uint64_t)(n->T * n->B * I) * sizeof(double), err);
  if (status == UNROLL_OK)
    status = unroll_binding_write(b, "dy", n->dy, (uint64_t)(n->T * n->B * n->rnn.hidden) * sizeof(double), err);
  double begin = 0;
  for (int i = 0; i <= UPDATES && status == UNROLL_OK; i++) { /* the first one is for warming up */
    if (i == 1)
      begin = cpu_seconds();
    status = unroll_run(b, NULL, err);
    if (status == UNROLL_OK)
      status = unroll_binding_sync(b, err);
  }
  *seconds = (cpu_seconds() - begin) / UPDATES;
  unroll_binding_destroy(b);
  unroll_executable_destroy(exe);
  return status;
}

static unroll_status time_flow(const network *n, unroll_device *device, int32_t probes, int32_t lags, double *seconds,
                               unroll_error *err) {
  const unroll_network net = {
      .struct_size = sizeof net, .n_weights = n->n_weights, .options = &n->rnn, .input = I, .weights = n->weights};
  const unroll_flow_batch batch = {.struct_size = sizeof batch, .steps = n->T, .batch = n->B, .x = n->x, .dy = n->dy};
  const unroll_flow_options o = {
      .struct_size = sizeof o, .device = device, .probes = probes, .n_lags = lags, .spectrum = lags};
  unroll_flow *flow = NULL;
  const double begin = cpu_seconds();
  const unroll_status status = unroll_flow_measure(&net, &batch, &o, &flow, err);
  *seconds = cpu_seconds() - begin;
  unroll_flow_free(flow);
  return status;
}

static unroll_status measure(network *n, const char *cell, unroll_device *device, unroll_error *err) {
  double update = 0, norms = 0, products = 0, sigma = 0;
  unroll_graph *g;
  n->x = filled(n->T * n->B * I);
  n->dy = filled(n->T * n->B * n->rnn.hidden);
  n->n_weights = 0;
  unroll_status status = n->x && n->dy ? unroll_graph_create(NULL, &g, err) : UNROLL_E_MEMORY;
  if (status == UNROLL_OK) {
    status = build(n, g, err);
    if (status == UNROLL_OK)
      status = time_update(n, g, device, &update, err);
    if (status == UNROLL_OK)
      status = time_flow(n, device, -1, -1, &norms, err);
    if (status == UNROLL_OK)
      status = time_flow(n, device, 1, -1, &products, err);
    if (status == UNROLL_OK)
      status = time_flow(n, device, 1, 12, &sigma, err);
    unroll_graph_destroy(g);
  }
  if (status == UNROLL_OK)
    printf("{\"cell\":\"%s\",\"layers\":%d,\"hidden\":%lld,\"steps\":%lld,\"batch\":%lld,\"update_ms\":%.1f,"
           "\"norms\":%.2f,\"products\":%.2f,\"sigma\":%.2f}\n",
           cell, n->rnn.layers, (long long)n->rnn.hidden, (long long)n->T, (long long)n->B, update * 1e3,
           norms / update, products / update, sigma / update);
  for (uint32_t i = 0; i < n->n_weights; i++)
    free((void *)n->weights[i].data);
  free(n->x);
  free(n->dy);
  return status;
}

int main(int argc, char **argv) {
  static const struct {
    const char *name;
    int32_t cell, layers;
  } cells[] = {{"rnn", UNROLL_CELL_RNN, 1}, {"lstm", UNROLL_CELL_LSTM, 1}, {"gru", UNROLL_CELL_GRU, 2}};
  const long long T = argc == 4 ? atoll(argv[1]) : 100, B = argc == 4 ? atoll(argv[2]) : 32,
                  H = argc == 4 ? atoll(argv[3]) : 128;
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_context *context = NULL;
  unroll_device *device = NULL;
  unroll_status status = unroll_context_create(NULL, &context, &err);
  if (status == UNROLL_OK)
    status = unroll_device_open(context, "cpu", NULL, 0, &device, &err);
  for (size_t i = 0; i < sizeof cells / sizeof *cells && status == UNROLL_OK; i++) {
    network n = {.T = T, .B = B};
    n.rnn = (unroll_rnn_options){
        .struct_size = sizeof n.rnn, .cell = cells[i].cell, .layers = cells[i].layers, .hidden = H};
    status = measure(&n, cells[i].name, device, &err);
  }
  if (status != UNROLL_OK)
    fprintf(stderr, "gradient_flow: %s\n", err.message);
  unroll_device_close(device);
  unroll_context_destroy(context);
  return status == UNROLL_OK ? 0 : 1;
}
