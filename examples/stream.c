/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stream.c: a signal comes in sample by sample, and now and then somebody asks how it goes on.
 *
 * An LSTM learns two sines of any phase. Then it follows one of them, a run for every sample, its state on the device
 * between the runs. To look ahead it reads its own guesses; after that the state is rolled back to where the signal
 * is, and following goes on as if nothing had been asked.
 * Usage: stream [DEVICE], "cpu" by default; "auto", "opencl", ...
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unroll/nn.h>
#include <unroll/philox.h>
#include <unroll/snapshot.h>

enum { T = 48, B = 16, H = 24, STEPS = 400, SHOW = 50, FOLLOWED = 120, EVERY = 20, AHEAD = 6 };

static const uint64_t seed = 1;

/* Sample t of the signal of that number. */
static float signal_at(uint32_t number, int t) {
  const double turn = 6.283185307179586;
  const unroll_philox_key key = unroll_philox_site_key(seed, 0, 0);
  const double a = (double)unroll_philox_word(key, 0, number, 0) / 4294967296.0,
               b = (double)unroll_philox_word(key, 0, number, 1) / 4294967296.0;
  return (float)(0.6 * sin(turn * (t / 23.0 + a)) + 0.3 * sin(turn * (t / 7.0 + b)));
}

/* x [steps,rows,1] -> the sample after each. carried: the state comes from the run before, and goes to the next one. */
static unroll_tensor network(unroll_graph *g, int64_t steps, int64_t rows, int carried) {
  const int64_t shape[] = {steps, rows, 1}, state_shape[] = {rows, H};
  const unroll_rnn_options lstm = {.struct_size = sizeof lstm, .cell = UNROLL_CELL_LSTM, .layers = 1, .hidden = H};
  unroll_tensor h, c, h_last, c_last;
  const unroll_rnn_state initial = {&h, &c};
  unroll_rnn_state last = {&h_last, &c_last};
  const unroll_tensor x = unroll_input(g, "x", UNROLL_F32, 3, shape);
  if (carried) {
    h = unroll_state(g, "h", UNROLL_F32, 2, state_shape);
    c = unroll_state(g, "c", UNROLL_F32, 2, state_shape);
  }
  const unroll_tensor y = unroll_rnn(x, "lstm", &lstm, carried ? &initial : NULL, carried ? &last : NULL);
  if (carried) {
    unroll_update(h, h_last);
    unroll_update(c, c_last);
  }
  return unroll_linear(y, "head", 1, 1);
}

static void build_training(unroll_graph *g) {
  const int64_t shape[] = {T, B, 1};
  const unroll_tensor y = network(g, T, B, 0), target = unroll_input(g, "target", UNROLL_F32, 3, shape);
  const unroll_tensor loss = unroll_mse(y, target, UNROLL_LOSS_MEAN);
  const unroll_tensor lr = unroll_input(g, "lr", UNROLL_F32, 0, NULL),
                      step = unroll_input(g, "step", UNROLL_I32, 0, NULL);
  unroll_tensor params[8], grads[8], norm;
  uint32_t n = 0;
  for (uint32_t i = 0; i < unroll_graph_count(g) && n < 8; i++)
    if (unroll_tensor_describe(unroll_graph_tensor(g, i)).role == UNROLL_ROLE_PARAM)
      params[n++] = unroll_graph_tensor(g, i);
  unroll_gradient(loss, params, n, grads);
  const unroll_tensor scale = unroll_clip_global_norm(grads, n, 1.0, &norm);
  const unroll_optimizer_attr adam = {.kind = UNROLL_ADAM, .beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8};
  for (uint32_t i = 0; i < n; i++)
    unroll_optimize(params[i], grads[i], lr, step, scale, &adam);
  unroll_output(loss, "loss");
}

/* First values in the training's binding; the other one shares them. */
static unroll_status initialise(unroll_graph *g, unroll_binding *training, unroll_binding *stream, unroll_error *err) {
  unroll_status st = UNROLL_OK;
  for (uint32_t i = 0; i < unroll_graph_count(g) && st == UNROLL_OK; i++) {
    const unroll_tensor_info info = unroll_tensor_describe(unroll_graph_tensor(g, i));
    static float values[4 * H * H];
    uint64_t bytes = sizeof(float);
    if (info.role != UNROLL_ROLE_PARAM)
      continue;
    for (int32_t axis = 0; axis < info.rank; axis++)
      bytes *= (uint64_t)info.shape[axis];
    if ((st = unroll_init_default(&info, UNROLL_CELL_LSTM, seed, values, err)) == UNROLL_OK &&
        (st = unroll_binding_write(training, info.name, values, bytes, err)) == UNROLL_OK)
      st = unroll_binding_share(stream, info.name, training, info.name, err);
  }
  return st;
}

static unroll_status train(unroll_binding *binding, unroll_error *err) {
  const float lr = 0.01f;
  static float x[T * B], target[T * B];
  unroll_status st = unroll_binding_write(binding, "lr", &lr, sizeof lr, err);
  for (int32_t step = 1; step <= STEPS && st == UNROLL_OK; step++) {
    float loss;
    for (int t = 0; t < T; t++)
      for (int b = 0; b < B; b++) {
        x[t * B + b] = signal_at((uint32_t)(step * B + b), t);
        target[t * B + b] = signal_at((uint32_t)(step * B + b), t + 1);
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

/* One sample in; what it expects to come next, where guess is not NULL. */
static unroll_status follow(unroll_binding *b, float sample, float *guess, unroll_error *err) {
  unroll_status st = unroll_binding_write(b, "x", &sample, sizeof sample, err);
  if (st == UNROLL_OK)
    st = unroll_run(b, NULL, err);
  return st == UNROLL_OK && guess ? unroll_binding_read(b, "y", guess, sizeof *guess, err) : st;
}

/* The samples from t on, t being the next one; the binding's state is in the end what it was. */
static unroll_status look_ahead(unroll_binding *b, unroll_snapshot *here, int t, float next, int *near, int *all,
                                unroll_error *err) {
  unroll_status st = unroll_snapshot_save(here, b, NULL, err);
  printf("after %3d samples:", t);
  for (int k = 0; k < AHEAD && st == UNROLL_OK; k++) {
    const float came = signal_at(0, t + k);
    printf("  %+.2f (%+.2f)", (double)next, (double)came);
    *near += fabsf(next - came) < 0.1f;
    ++*all;
    st = follow(b, next, &next, err);
  }
  printf("\n");
  return st == UNROLL_OK ? unroll_snapshot_restore(here, b, NULL, err) : st;
}

static unroll_status stream(unroll_executable *exe, unroll_binding *b, unroll_error *err) {
  unroll_snapshot *here;
  int near = 0, all = 0;
  float next = 0;
  unroll_status st = unroll_snapshot_create(exe, NULL, &here, err);
  if (st != UNROLL_OK)
    return st;
  for (int t = 1; t <= FOLLOWED && st == UNROLL_OK; t++) {
    const int asked = t % EVERY == 0;
    st = follow(b, signal_at(0, t - 1), asked ? &next : NULL, err);
    if (st == UNROLL_OK && asked)
      st = look_ahead(b, here, t, next, &near, &all, err);
  }
  unroll_snapshot_destroy(here);
  if (st == UNROLL_OK)
    printf("%d of %d guesses within 0.1\n", near, all);
  return st;
}

int main(int argc, char **argv) {
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_context *ctx = NULL;
  unroll_device *device = NULL;
  unroll_graph *graph[2] = {NULL, NULL};
  unroll_executable *exe[2] = {NULL, NULL};
  unroll_binding *binding[2] = {NULL, NULL};
  unroll_status st = unroll_context_create(NULL, &ctx, &err);
  if (st == UNROLL_OK)
    st = unroll_device_open(ctx, argc > 1 ? argv[1] : "cpu", NULL, 0, &device, &err);
  for (int i = 0; i < 2 && st == UNROLL_OK; i++)
    if ((st = unroll_graph_create(NULL, &graph[i], &err)) == UNROLL_OK) {
      if (i == 0)
        build_training(graph[i]);
      else
        unroll_output(network(graph[i], 1, 1, 1), "y");
      if ((st = unroll_compile(graph[i], &device, 1, NULL, &exe[i], &err)) == UNROLL_OK)
        st = unroll_binding_create(exe[i], &binding[i], &err);
    }
  if (st == UNROLL_OK && (st = initialise(graph[0], binding[0], binding[1], &err)) == UNROLL_OK &&
      (st = train(binding[0], &err)) == UNROLL_OK)
    st = stream(exe[1], binding[1], &err);
  if (st != UNROLL_OK)
    fprintf(stderr, "stream: %s: %s\n", unroll_status_name(st), err.message);
  for (int i = 0; i < 2; i++) {
    unroll_binding_destroy(binding[i]);
    unroll_executable_destroy(exe[i]);
    unroll_graph_destroy(graph[i]);
  }
  if (device)
    unroll_device_close(device);
  if (ctx)
    unroll_context_destroy(ctx);
  return st == UNROLL_OK ? EXIT_SUCCESS : EXIT_FAILURE;
}
