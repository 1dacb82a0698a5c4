/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What it costs to look at the flow of gradients, beside a training update of the same layers on the same batch: loss,
 * gradients and SGD. Prints one JSON object per device, of its shapes in f32 and, where the device has doubles, f64:
 * "norms" is the gradient's norms by step, "products" these and the products of Jacobians of all lags, "sigma" that and the
 * singular values of a dozen lags. Of a look every call is whole, graphs built and compiled in it; of an update only the run.
 *
 *     gradient_flow [--sizes T,B,I,H] [SECONDS] DEVICE...     100,32,32,128; of each device about so many, 3 unless said
 *
 * Looks and updates take turns; of each the fastest counts, in milliseconds on the clock.
 */
#include "rig.h"
#include <unroll/flow.h>

enum { MAX_WEIGHTS = 16, UPDATES = 3, N_CELLS = 3, N_LOOKS = 3, MOST_TURNS = 20 };

typedef struct network {
  int64_t T, B, I;
  int32_t dtype;
  unroll_rnn_options rnn;
  unroll_network_weight weights[MAX_WEIGHTS];
  uint32_t n_weights;
  double *x, *dy;
} network;

/* What is looked at: probes and lags of unroll_flow_options. */
static const struct look {
  const char *name;
  int32_t probes, lags;
} looks[N_LOOKS] = {{"norms", -1, -1}, {"products", 1, -1}, {"sigma", 1, 12}};

static double *filled(int64_t n) {
  uint32_t word = 1;
  double *x = malloc((size_t)n * sizeof *x);
  for (int64_t i = 0; x && i < n; i++) {
    word = word * 1664525u + 1013904223u; /* Numerical Recipes */
    x[i] = (double)(word >> 8) * 0x1p-23 - 1;
  }
  return x;
}

static unroll_status write(const network *n, unroll_binding *b, const char *name, const double *data, uint64_t count,
                           unroll_error *err) {
  if (n->dtype == UNROLL_F64)
    return unroll_binding_write(b, name, data, count * sizeof *data, err);
  float *const x = malloc(count * sizeof *x);
  if (!x)
    return UNROLL_E_MEMORY;
  for (uint64_t i = 0; i < count; i++)
    x[i] = (float)data[i];
  const unroll_status status = unroll_binding_write(b, name, x, count * sizeof *x, err);
  free(x);
  return status;
}

/* The graph of an update; its parameters' first values become the network's weights. */
static unroll_status build(network *n, unroll_graph *g, unroll_error *err) {
  const int64_t shape[3] = {n->T, n->B, n->rnn.hidden};
  const unroll_tensor x = unroll_input(g, "x", n->dtype, 3, (int64_t[]){n->T, n->B, n->I});
  const unroll_tensor y = unroll_rnn(x, "", &n->rnn, NULL, NULL);
  const unroll_tensor dy = unroll_input(g, "dy", n->dtype, 3, shape);
  const unroll_tensor loss = unroll_reduce(unroll_mul(y, dy), UNROLL_SUM, 0, 0);
  unroll_tensor wrt[MAX_WEIGHTS], d[MAX_WEIGHTS];
  unroll_status status = unroll_graph_status(g, err);
  for (uint32_t i = 0; i < unroll_graph_count(g) && status == UNROLL_OK; i++) {
    const unroll_tensor t = unroll_graph_tensor(g, i);
    unroll_tensor_info info = unroll_tensor_describe(t);
    if (info.role != UNROLL_ROLE_PARAM || n->n_weights == MAX_WEIGHTS)
      continue;
    uint64_t count = 1;
    for (int32_t k = 0; k < info.rank; k++)
      count *= (uint64_t)info.shape[k];
    double *data = malloc(count * sizeof *data);
    if (!data)
      return UNROLL_E_MEMORY;
    info.dtype = UNROLL_F64;
    status = unroll_init_default(&info, n->rnn.cell, 1, data, err);
    wrt[n->n_weights] = t;
    n->weights[n->n_weights++] = (unroll_network_weight){info.name, data, count};
  }
  unroll_gradient(loss, wrt, n->n_weights, d);
  const unroll_tensor lr = unroll_constant(g, n->dtype, 0, NULL, 1e-3);
  const unroll_tensor step = unroll_constant(g, UNROLL_I32, 0, NULL, 1);
  for (uint32_t i = 0; i < n->n_weights; i++)
    unroll_optimize(wrt[i], d[i], lr, step, unroll_none(), &(unroll_optimizer_attr){.kind = UNROLL_SGD});
  return status == UNROLL_OK ? unroll_graph_status(g, err) : status;
}

static unroll_status bind(const network *n, side *update, unroll_device *device, unroll_error *err) {
  update->best = 1e9;
  unroll_status status = unroll_compile(update->graph, &device, 1, NULL, &update->exe, err);
  if (status == UNROLL_OK)
    status = unroll_binding_create(update->exe, &update->binding, err);
  for (uint32_t i = 0; i < n->n_weights && status == UNROLL_OK; i++)
    status = write(n, update->binding, n->weights[i].name, n->weights[i].data, n->weights[i].count, err);
  if (status == UNROLL_OK)
    status = write(n, update->binding, "x", n->x, (uint64_t)(n->T * n->B * n->I), err);
  if (status == UNROLL_OK)
    status = write(n, update->binding, "dy", n->dy, (uint64_t)(n->T * n->B * n->rnn.hidden), err);
  return status == UNROLL_OK ? side_time(update, 0, err) : status;
}

/* iterations: of the search for singular values; 0: as many as there are unless one says */
static unroll_status take_look(const network *n, unroll_device *device, const struct look *look, int32_t iterations,
                               double *best, unroll_error *err) {
  const unroll_network net = {
      .struct_size = sizeof net, .n_weights = n->n_weights, .options = &n->rnn, .input = n->I, .weights = n->weights};
  const unroll_flow_batch batch = {.struct_size = sizeof batch, .steps = n->T, .batch = n->B, .x = n->x, .dy = n->dy};
  const unroll_flow_options o = {.struct_size = sizeof o,
                                 .dtype = n->dtype,
                                 .device = device,
                                 .probes = look->probes,
                                 .n_lags = look->lags,
                                 .spectrum = look->lags,
                                 .iterations = iterations};
  unroll_flow *flow = NULL;
  const double begin = now();
  const unroll_status status = unroll_flow_measure(&net, &batch, &o, &flow, err);
  const double took = now() - begin;
  *best = took < *best ? took : *best;
  unroll_flow_free(flow);
  return status;
}

static unroll_status measure(const network *n, side *update, unroll_device *device, double seconds, double *best,
                             unroll_error *err) {
  double unused = 1e9;
  /* kernels are built */
  unroll_status status = take_look(n, device, &looks[N_LOOKS - 1], 1, &unused, err);
  const double begin = now();
  for (int turn = 0; turn < MOST_TURNS && (turn == 0 || now() - begin < seconds) && status == UNROLL_OK; turn++) {
    for (int i = 0; i < UPDATES && status == UNROLL_OK; i++)
      status = side_time(update, 1, err);
    for (int i = 0; i < N_LOOKS && status == UNROLL_OK; i++)
      status = take_look(n, device, &looks[i], 0, &best[i], err);
  }
  return status;
}

static unroll_status row(network *n, const char *cell, unroll_device *device, double seconds, bool first,
                         unroll_error *err) {
  double best[N_LOOKS] = {1e9, 1e9, 1e9};
  side update = {NULL, NULL, NULL, 0};
  n->x = filled(n->T * n->B * n->I);
  n->dy = filled(n->T * n->B * n->rnn.hidden);
  unroll_status status = n->x && n->dy ? unroll_graph_create(NULL, &update.graph, err) : UNROLL_E_MEMORY;
  if (status == UNROLL_OK)
    status = build(n, update.graph, err);
  if (status == UNROLL_OK)
    status = bind(n, &update, device, err);
  if (status == UNROLL_OK)
    status = measure(n, &update, device, seconds, best, err);
  if (status == UNROLL_OK) {
    printf("%s{\"cell\":\"%s\",\"dtype\":\"%s\",\"layers\":%d,\"ms\":{\"update\":%.3f", first ? "" : ",", cell,
           unroll_dtype_name(n->dtype), n->rnn.layers, update.best * 1e3);
    for (int i = 0; i < N_LOOKS; i++)
      printf(",\"%s\":%.3f", looks[i].name, best[i] * 1e3);
    printf("}}");
  }
  side_close(&update);
  for (uint32_t i = 0; i < n->n_weights; i++)
    free((void *)n->weights[i].data);
  free(n->x);
  free(n->dy);
  return status;
}

static unroll_status on_device(unroll_context *context, const char *id, const long long *size, double seconds,
                               unroll_error *err) {
  static const struct {
    const char *name;
    int32_t cell, layers;
  } cells[N_CELLS] = {
      {"rnn", UNROLL_CELL_RNN, 1}, {"lstm", UNROLL_CELL_LSTM, 1}, {"gru_after", UNROLL_CELL_GRU_AFTER, 2}};
  static const int32_t dtypes[] = {UNROLL_F32, UNROLL_F64};
  unroll_device *device = NULL;
  unroll_status status = unroll_device_open(context, id, NULL, 0, &device, err);
  if (status != UNROLL_OK)
    return status;
  const bool doubles = unroll_device_describe(device)->dtypes >> UNROLL_F64 & 1;
  printf("{\"device\":\"%s\",\"steps\":%lld,\"batch\":%lld,\"input\":%lld,\"hidden\":%lld,\"rows\":[",
         unroll_device_id(device), size[0], size[1], size[2], size[3]);
  for (int k = 0; k < (doubles ? 2 : 1); k++)
    for (int i = 0; i < N_CELLS && status == UNROLL_OK; i++) {
      network n = {.T = size[0], .B = size[1], .I = size[2], .dtype = dtypes[k]};
      n.rnn = (unroll_rnn_options){
          .struct_size = sizeof n.rnn, .cell = cells[i].cell, .layers = cells[i].layers, .hidden = size[3]};
      status = row(&n, cells[i].name, device, seconds / (N_CELLS * (doubles ? 2 : 1)), k + i == 0, err);
    }
  printf("]}\n");
  unroll_device_close(device);
  return status;
}

int main(int argc, char **argv) {
  const char *sizes = NULL;
  long long size[4] = {100, 32, 32, 128};
  double seconds = 3;
  bool text = false;
  char rest;
  const int first = rig_arguments(argc, argv, &sizes, "--sizes", &seconds, &text);
  if (!first || text ||
      (sizes && (sscanf(sizes, "%lld,%lld,%lld,%lld%c", &size[0], &size[1], &size[2], &size[3], &rest) != 4 ||
                 size[0] < 2 || size[1] < 1 || size[2] < 1 || size[3] < 1))) {
    fprintf(stderr, "usage: gradient_flow [--sizes T,B,I,H] [SECONDS] DEVICE...\n");
    return 2;
  }
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_context *context = NULL;
  unroll_status status = unroll_context_create(NULL, &context, &err);
  for (int i = first; i < argc && status == UNROLL_OK; i++)
    status = on_device(context, argv[i], size, seconds, &err);
  if (status != UNROLL_OK)
    fprintf(stderr, "gradient_flow: %s\n", err.message);
  unroll_context_destroy(context);
  return status == UNROLL_OK ? 0 : 1;
}
