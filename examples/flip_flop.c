/* SPDX-License-Identifier: Apache-2.0 */
/*
 * flip_flop.c: how does a network remember three bits? It is trained to say the last pulse, 1 or -1, of each of three
 * channels, and then opened: the fixed points of its map without input, one stable point for each of the eight
 * memories, and saddles between them (Sussillo & Barak 2013).
 *
 *     flip_flop [DEVICE]     cpu unless said
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unroll/diagnose.h>
#include <unroll/nn.h>
#include <unroll/runtime.h>

enum { T = 50, B = 64, BITS = 3, H = 16, UPDATES = 4000, BLOCK = 25, STARTS = 512, MAX_PARAMS = 8 };
#define THRESHOLD 1e-3 /* of the mean squared error */
#define PULSES 0.25    /* of the steps of a channel have one; the first step always */
#define NOISE 1.0      /* of the states from which fixed points are searched */

static uint64_t word = 1;
static double uniform(void) {
  word = word * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
  return (double)(word >> 11) * 0x1p-53;
}

/* x and the targets, [T,B,BITS] */
static void make_sequences(float *x, float *targets) {
  for (int row = 0; row < B; row++)
    for (int bit = 0; bit < BITS; bit++) {
      float memory = 0;
      for (int t = 0; t < T; t++) {
        const int at = (t * B + row) * BITS + bit;
        x[at] = t > 0 && uniform() >= PULSES ? 0.0F : uniform() < 0.5 ? -1.0F : 1.0F;
        targets[at] = memory = x[at] != 0 ? x[at] : memory;
      }
    }
}

static void describe(unroll_graph *g) {
  const int64_t shape[] = {T, B, BITS};
  const unroll_rnn_options rnn = {
      .struct_size = sizeof rnn, .cell = UNROLL_CELL_RNN, .activation = UNROLL_TANH, .layers = 1, .hidden = H};
  const unroll_tensor x = unroll_input(g, "x", UNROLL_F32, 3, shape),
                      targets = unroll_input(g, "targets", UNROLL_F32, 3, shape);
  const unroll_tensor h = unroll_rnn(x, "rnn", &rnn, NULL, NULL);
  const unroll_tensor loss = unroll_mse(unroll_linear(h, "head", BITS, 1), targets, UNROLL_LOSS_MEAN);
  unroll_tensor params[MAX_PARAMS], grads[MAX_PARAMS];
  uint32_t n = 0;
  for (uint32_t i = 0; i < unroll_graph_count(g) && n < MAX_PARAMS; i++)
    if (unroll_tensor_describe(unroll_graph_tensor(g, i)).role == UNROLL_ROLE_PARAM)
      params[n++] = unroll_graph_tensor(g, i);
  unroll_gradient(loss, params, n, grads);
  const unroll_tensor scale = unroll_clip_global_norm(grads, n, 1, NULL);
  const unroll_tensor done = unroll_state(g, "done", UNROLL_I32, 0, NULL);
  const unroll_tensor step = unroll_add(done, unroll_constant(g, UNROLL_I32, 0, NULL, 1));
  const unroll_tensor lr = unroll_constant(g, UNROLL_F32, 0, NULL, 0.01);
  const unroll_optimizer_attr adam = {.kind = UNROLL_ADAM, .beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8};
  for (uint32_t i = 0; i < n; i++)
    unroll_optimize(params[i], grads[i], lr, step, scale, &adam);
  unroll_update(done, step);
  unroll_output(loss, "loss");
  unroll_output(h, "h");
}

static unroll_status begin(unroll_graph *g, unroll_binding *binding, unroll_error *err) {
  unroll_status st = UNROLL_OK;
  for (uint32_t i = 0; i < unroll_graph_count(g) && st == UNROLL_OK; i++) {
    const unroll_tensor_info info = unroll_tensor_describe(unroll_graph_tensor(g, i));
    float values[H * H];
    if (info.role != UNROLL_ROLE_PARAM)
      continue;
    uint64_t bytes = sizeof(float);
    for (int32_t axis = 0; axis < info.rank; axis++)
      bytes *= (uint64_t)info.shape[axis];
    if ((st = unroll_init_default(&info, UNROLL_CELL_RNN, 1, values, err)) == UNROLL_OK)
      st = unroll_binding_write(binding, info.name, values, bytes, err);
  }
  return st;
}

static unroll_status train(unroll_binding *binding, unroll_error *err) {
  static float x[T * B * BITS], targets[T * B * BITS];
  unroll_status st = UNROLL_OK;
  double sum = 0;
  for (int update = 1; update <= UPDATES && st == UNROLL_OK; update++) {
    float loss;
    make_sequences(x, targets);
    if ((st = unroll_binding_write(binding, "x", x, sizeof x, err)) != UNROLL_OK ||
        (st = unroll_binding_write(binding, "targets", targets, sizeof targets, err)) != UNROLL_OK ||
        (st = unroll_run(binding, NULL, err)) != UNROLL_OK ||
        (st = unroll_binding_read(binding, "loss", &loss, sizeof loss, err)) != UNROLL_OK)
      break;
    sum += (double)loss;
    if (update % BLOCK)
      continue;
    if (sum / BLOCK < THRESHOLD || update == UPDATES) {
      printf("%d updates, mean squared error %.1e\n", update, sum / BLOCK);
      break;
    }
    sum = 0;
  }
  return st;
}

static unroll_status read(unroll_binding *binding, const char *name, double *values, size_t n, unroll_error *err) {
  static float stored[T * B * H];
  const unroll_status st = unroll_binding_read(binding, name, stored, n * sizeof *stored, err);
  for (size_t i = 0; i < n && st == UNROLL_OK; i++)
    values[i] = (double)stored[i];
  return st;
}

static void print(const unroll_fixed_point *found, int64_t n) {
  int of[H + 1] = {0};
  int64_t starts = 0;
  double fastest = 0;
  for (int64_t i = 0; i < n; i++) {
    of[found[i].unstable]++;
    starts += found[i].starts;
    fastest = fmax(fastest, found[i].speed);
  }
  printf("%lld fixed points from %lld of %d starts, q at most %.0e\n", (long long)n, (long long)starts, STARTS,
         fastest);
  for (int k = 0; k <= H; k++)
    if (of[k])
      printf("  %2d with %d unstable modes%s\n", of[k], k, k ? "" : ": stable, a memory each");
}

/* Fixed points of h' = tanh(W_h·h + b), from states that it was in, with noise. */
static unroll_status open_up(unroll_binding *binding, unroll_error *err) {
  static double states[T * B * H], starts[STARTS * H], points[STARTS * H];
  static unroll_fixed_point found[STARTS];
  double W_h[H * H], b[H];
  unroll_map *map = NULL;
  int64_t n;
  unroll_status st = read(binding, "h", states, T * B * H, err);
  if (st == UNROLL_OK && (st = read(binding, "rnn.W_h.0.0", W_h, H * H, err)) == UNROLL_OK)
    st = read(binding, "rnn.b.0.0", b, H, err);
  for (int i = 0; i < STARTS; i++) {
    const int from = (int)(uniform() * T * B);
    for (int k = 0; k < H; k++)
      starts[i * H + k] = states[from * H + k] + NOISE * (2 * uniform() - 1);
  }
  const unroll_rnn_options rnn = {.struct_size = sizeof rnn, .cell = UNROLL_CELL_RNN, .layers = 1, .hidden = H};
  const unroll_network_weight weights[] = {{"rnn.W_h.0.0", W_h, H * H}, {"rnn.b.0.0", b, H}};
  const unroll_network net = {
      .struct_size = sizeof net, .options = &rnn, .prefix = "rnn", .input = BITS, .n_weights = 2, .weights = weights};
  const unroll_fixed_point_options o = {.struct_size = sizeof o};
  if (st == UNROLL_OK && (st = unroll_map_of_layer(&net, 0, 0, NULL, 0, NULL, NULL, &map, err)) == UNROLL_OK &&
      (st = unroll_fixed_points(map, starts, STARTS, &o, points, found, &n, err)) == UNROLL_OK)
    print(found, n);
  unroll_map_destroy(map);
  return st;
}

int main(int argc, char **argv) {
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_context *ctx = NULL;
  unroll_device *device = NULL;
  unroll_graph *graph = NULL;
  unroll_executable *exe = NULL;
  unroll_binding *binding = NULL;
  unroll_status st = unroll_context_create(NULL, &ctx, &err);
  if (st == UNROLL_OK &&
      (st = unroll_device_open(ctx, argc > 1 ? argv[1] : "cpu", NULL, 0, &device, &err)) == UNROLL_OK)
    st = unroll_graph_create(NULL, &graph, &err);
  if (st == UNROLL_OK)
    describe(graph);
  if (st == UNROLL_OK && (st = unroll_compile(graph, &device, 1, NULL, &exe, &err)) == UNROLL_OK &&
      (st = unroll_binding_create(exe, &binding, &err)) == UNROLL_OK &&
      (st = begin(graph, binding, &err)) == UNROLL_OK && (st = train(binding, &err)) == UNROLL_OK)
    st = open_up(binding, &err);
  if (st != UNROLL_OK)
    fprintf(stderr, "flip_flop: %s\n", err.message);
  unroll_binding_destroy(binding);
  unroll_executable_destroy(exe);
  unroll_graph_destroy(graph);
  unroll_device_close(device);
  unroll_context_destroy(ctx);
  return st == UNROLL_OK ? 0 : 1;
}
