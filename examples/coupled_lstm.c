/* SPDX-License-Identifier: Apache-2.0 */
/*
 * coupled_lstm.c: a recurrent cell of one's own, built, differentiated and trained through the public API.
 *
 * An LSTM whose input and forget gates are coupled (Greff et al. 2017, "LSTM: a search space odyssey", the variant CIFG): what
 * is not forgotten is not written.
 *
 *   f, g, o = split([x_t, h_{t-1}] Wᵀ + b)              W [3H,I+H], b [3H], row blocks f g o
 *   c_t = σ(f) ⊙ c_{t-1} + (1 - σ(f)) ⊙ tanh(g)
 *   h_t = σ(o) ⊙ tanh(c_t)
 *
 * It learns to say what it heard DELAY steps ago. Usage: coupled_lstm [DEVICE], "cpu" by default; "auto", "opencl", ...
 */
#include <stdio.h>
#include <stdlib.h>
#include <unroll/nn.h>
#include <unroll/philox.h>
#include <unroll/runtime.h>

enum { T = 12, B = 16, I = 1, H = 12, DELAY = 2, STEPS = 300, SHOW = 30 };

static const uint64_t seed = 1;

/* x [T,B,I] -> h of every step [T,B,H] */
static unroll_tensor coupled_lstm(unroll_tensor x) {
  unroll_graph *g = x.graph;
  const int64_t W_shape[] = {3 * H, I + H}, b_shape[] = {3 * H}, state[] = {B, H};
  unroll_tensor W = unroll_param(g, "cell.W", UNROLL_F32, 2, W_shape);
  unroll_tensor b = unroll_param(g, "cell.b", UNROLL_F32, 1, b_shape);
  unroll_tensor zeros = unroll_constant(g, UNROLL_F32, 2, state, 0.0);

  unroll_scan *s = unroll_scan_begin(g, UNROLL_FORWARD, unroll_none());
  unroll_tensor x_t = unroll_scan_input(s, x);
  unroll_tensor h = unroll_scan_carry(s, zeros), c = unroll_scan_carry(s, zeros);
  unroll_tensor gates = unroll_matmul_add(unroll_concat((unroll_tensor[]){x_t, h}, 2, 1), 0, W, 1, b);
  unroll_tensor f = unroll_sigmoid(unroll_slice(gates, 1, 0, H));
  unroll_tensor new_c = unroll_tanh(unroll_slice(gates, 1, H, H));
  unroll_tensor o = unroll_sigmoid(unroll_slice(gates, 1, 2 * H, H));
  unroll_tensor one = unroll_constant(unroll_scan_body(s), UNROLL_F32, 0, NULL, 1.0);
  unroll_tensor c_next = unroll_add(unroll_mul(f, c), unroll_mul(unroll_sub(one, f), new_c));
  unroll_tensor h_next = unroll_mul(o, unroll_tanh(c_next));
  unroll_scan_next(s, c, c_next);
  unroll_scan_next(s, h, h_next);
  unroll_tensor y = unroll_scan_output(s, h_next);
  unroll_scan_end(s);
  return y;
}

/* Loss, gradients, and one update of every parameter by Adam: a run of the graph is a step of training. */
static void build(unroll_graph *g) {
  const int64_t shape[] = {T, B, I};
  unroll_tensor x = unroll_input(g, "x", UNROLL_F32, 3, shape),
                target = unroll_input(g, "target", UNROLL_F32, 3, shape);
  unroll_tensor lr = unroll_input(g, "lr", UNROLL_F32, 0, NULL), step = unroll_input(g, "step", UNROLL_I32, 0, NULL);
  unroll_tensor said = unroll_linear(coupled_lstm(x), "head", I, 1);
  unroll_tensor loss = unroll_mse(said, target, UNROLL_LOSS_MEAN);

  const char *names[] = {"cell.W", "cell.b", "head.W", "head.b"};
  unroll_tensor params[4], grads[4], norm;
  for (int i = 0; i < 4; i++)
    params[i] = unroll_graph_find(g, names[i]);
  unroll_gradient(loss, params, 4, grads);
  unroll_tensor scale = unroll_clip_global_norm(grads, 4, 1.0, &norm);
  const unroll_optimizer_attr adam = {.kind = UNROLL_ADAM, .beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8};
  for (int i = 0; i < 4; i++)
    unroll_optimize(params[i], grads[i], lr, step, scale, &adam);
  unroll_output(loss, "loss");
}

/* Every parameter of the graph gets its first values. */
static unroll_status initialise(unroll_graph *g, unroll_binding *binding, unroll_error *err) {
  unroll_status st = UNROLL_OK;
  for (uint32_t i = 0; i < unroll_graph_count(g) && st == UNROLL_OK; i++) {
    const unroll_tensor_info info = unroll_tensor_describe(unroll_graph_tensor(g, i));
    float values[3 * H * (I + H)];
    uint64_t bytes = sizeof(float);
    if (info.role != UNROLL_ROLE_PARAM)
      continue;
    for (int32_t axis = 0; axis < info.rank; axis++)
      bytes *= (uint64_t)info.shape[axis];
    st = unroll_init_default(&info, UNROLL_CELL_NONE, seed, values, err);
    if (st == UNROLL_OK)
      st = unroll_binding_write(binding, info.name, values, bytes, err);
  }
  return st;
}

static unroll_status train(unroll_binding *binding, unroll_error *err) {
  const float lr = 0.01f;
  unroll_status st = unroll_binding_write(binding, "lr", &lr, sizeof lr, err);
  for (int32_t step = 1; step <= STEPS && st == UNROLL_OK; step++) {
    float x[T * B], target[T * B], loss;
    const unroll_philox_key key = unroll_philox_site_key(seed, (uint64_t)step, 0);
    for (int t = 0; t < T; t++)
      for (int b = 0; b < B; b++) {
        x[t * B + b] = unroll_philox_word(key, (uint64_t)t, (uint32_t)b, 0) & 1u ? 1.0f : -1.0f;
        target[t * B + b] = t < DELAY ? 0.0f : x[(t - DELAY) * B + b];
      }
    if ((st = unroll_binding_write(binding, "x", x, sizeof x, err)) == UNROLL_OK &&
        (st = unroll_binding_write(binding, "target", target, sizeof target, err)) == UNROLL_OK &&
        (st = unroll_binding_write(binding, "step", &step, sizeof step, err)) == UNROLL_OK &&
        (st = unroll_run(binding, NULL, err)) == UNROLL_OK && (step == 1 || step % SHOW == 0) &&
        (st = unroll_binding_read(binding, "loss", &loss, sizeof loss, err)) == UNROLL_OK)
      printf("step %4d  loss %.6f\n", (int)step, (double)loss);
  }
  return st;
}

int main(int argc, char **argv) {
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_context *ctx = NULL;
  unroll_device *device = NULL;
  unroll_graph *graph = NULL;
  unroll_executable *exe = NULL;
  unroll_binding *binding = NULL;
  unroll_status st = unroll_graph_create(NULL, &graph, &err);
  if (st == UNROLL_OK)
    build(graph); /* an error in it is kept by the graph; unroll_compile reports it */
  if (st == UNROLL_OK && (st = unroll_context_create(NULL, &ctx, &err)) == UNROLL_OK &&
      (st = unroll_device_open(ctx, argc > 1 ? argv[1] : "cpu", NULL, 0, &device, &err)) == UNROLL_OK &&
      (st = unroll_compile(graph, &device, 1, NULL, &exe, &err)) == UNROLL_OK &&
      (st = unroll_binding_create(exe, &binding, &err)) == UNROLL_OK &&
      (st = initialise(graph, binding, &err)) == UNROLL_OK)
    st = train(binding, &err);
  if (st != UNROLL_OK)
    fprintf(stderr, "coupled_lstm: %s: %s\n", unroll_status_name(st), err.message);
  unroll_binding_destroy(binding);
  unroll_executable_destroy(exe);
  if (device)
    unroll_device_close(device);
  if (ctx)
    unroll_context_destroy(ctx);
  unroll_graph_destroy(graph);
  return st == UNROLL_OK ? EXIT_SUCCESS : EXIT_FAILURE;
}
