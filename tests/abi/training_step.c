/* SPDX-License-Identifier: Apache-2.0 */
/*
 * training_step FILE ID: three steps of training on the first device of a plugin, which is loaded from that file. Prints what
 * outputs, parameters and states hold after each, to the bit, how much of the graph the plugin took, and what it timed. Every
 * attribute struct of plugin.h crosses the ABI here, layers go in whole and may come back lowered, and the number of time steps
 * is a run-time size.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unroll/nn.h>
#include <unroll/runtime.h>

enum { MAX_T = 7, B = 3, V = 11, E = 6, H = 5, STEPS = 3 };

/* What a training graph seldom has: a term of the loss in which the head's weights are moved about. */
static unroll_tensor moved(unroll_tensor w) {
  const int32_t swapped[] = {1, 0};
  unroll_tensor x = unroll_pad(unroll_slice(unroll_transpose(w, swapped), 1, 1, V - 3), 0, 1, 2);
  unroll_tensor both = unroll_concat((unroll_tensor[]){x, unroll_scale(x, 0.5)}, 2, 1);
  unroll_tensor large = unroll_binary(unroll_unary(both, UNROLL_ABS), unroll_scale(both, 0.25), UNROLL_GT);
  unroll_tensor kept = unroll_mul(unroll_select(large, both, unroll_scale(both, -1.0)), unroll_cast(large, UNROLL_F32));
  return unroll_scale(unroll_reduce(kept, UNROLL_SUM_SQUARES, 0, 0), 0.01);
}

static void build(unroll_graph *g) {
  const int64_t T = unroll_graph_dim(g, "T", 1, MAX_T), ids_shape[] = {T, B}, lengths_shape[] = {B};
  unroll_tensor ids = unroll_input(g, "ids", UNROLL_I32, 2, ids_shape);
  unroll_tensor targets = unroll_input(g, "targets", UNROLL_I32, 2, ids_shape);
  unroll_tensor lengths = unroll_input(g, "lengths", UNROLL_I32, 1, lengths_shape);
  unroll_tensor lr = unroll_input(g, "lr", UNROLL_F32, 0, NULL), step = unroll_input(g, "step", UNROLL_I32, 0, NULL);
  unroll_tensor h[4], c[4];
  unroll_rnn_state last = {h, c};
  const unroll_rnn_options rnn = {.struct_size = sizeof rnn,
                                  .cell = UNROLL_CELL_LSTM,
                                  .layers = 2,
                                  .hidden = H,
                                  .bidirectional = 1,
                                  .dropout = 0.2,
                                  .lengths = lengths};
  unroll_tensor x = unroll_embedding_layer(ids, "embed", UNROLL_F32, V, E);
  unroll_tensor y = unroll_rnn(unroll_dropout(x, 0.25), "rnn", &rnn, NULL, &last);
  unroll_tensor logits = unroll_linear(unroll_length_mask(y, lengths), "head", V, 1);
  unroll_tensor loss =
      unroll_add(unroll_cross_entropy(logits, targets, UNROLL_LOSS_MEAN), moved(unroll_graph_find(g, "head.W")));
  unroll_tensor last_logits = unroll_linear(unroll_concat((unroll_tensor[]){h[2], c[3]}, 2, 1), "head", V, 1);
  unroll_output(unroll_categorical(last_logits, 4), "sample");
  unroll_output(unroll_argmax(last_logits), "best");
  unroll_output(loss, "loss");

  unroll_tensor params[32], grads[32];
  uint32_t n = 0;
  for (uint32_t i = 0; i < unroll_graph_count(g) && n < 32; i++)
    if (unroll_tensor_describe(unroll_graph_tensor(g, i)).role == UNROLL_ROLE_PARAM)
      params[n++] = unroll_graph_tensor(g, i);
  unroll_gradient(loss, params, n, grads);
  unroll_tensor scale = unroll_clip_global_norm(grads, n, 0.5, NULL);
  const unroll_optimizer_attr adam = {
      .kind = UNROLL_ADAMW, .beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8, .weight_decay = 0.01};
  for (uint32_t i = 0; i < n; i++)
    unroll_optimize(params[i], grads[i], lr, step, scale, &adam);
}

static uint64_t bytes_of(const unroll_tensor_info *info) {
  uint64_t bytes = 4; /* f32 and i32 alone */
  for (int32_t axis = 0; axis < info->rank; axis++)
    bytes *= (uint64_t)info->shape[axis];
  return bytes;
}

static unroll_status initialise(unroll_graph *g, unroll_binding *b, unroll_error *err) {
  unroll_status st = UNROLL_OK;
  for (uint32_t i = 0; i < unroll_graph_count(g) && st == UNROLL_OK; i++) {
    const unroll_tensor_info info = unroll_tensor_describe(unroll_graph_tensor(g, i));
    float values[1024];
    if (info.role != UNROLL_ROLE_PARAM || bytes_of(&info) > sizeof values)
      continue;
    st = unroll_init_default(&info, UNROLL_CELL_LSTM, 7, values, err);
    if (st == UNROLL_OK)
      st = unroll_binding_write(b, info.name, values, bytes_of(&info), err);
  }
  return st;
}

static unroll_status print_all(unroll_graph *g, unroll_binding *b, unroll_error *err) {
  for (uint32_t i = 0; i < unroll_graph_count(g); i++) {
    const unroll_tensor_info info = unroll_tensor_describe(unroll_graph_tensor(g, i));
    uint32_t words[1024];
    if (info.role == UNROLL_ROLE_INPUT || bytes_of(&info) > sizeof words)
      continue;
    const unroll_status st = unroll_binding_read(b, info.name, words, bytes_of(&info), err);
    if (st != UNROLL_OK)
      return st;
    printf("%s", info.name);
    for (uint64_t k = 0; k < bytes_of(&info) / 4; k++)
      printf(" %08" PRIx32, words[k]);
    printf("\n");
  }
  return UNROLL_OK;
}

static void print_shares(const unroll_executable *exe) {
  const unroll_executable_info info = unroll_executable_describe(exe);
  printf("groups %u fallbacks %u crossings %u\n", info.n_groups, info.n_fallbacks, info.n_crossings);
}

static void print_entry(void *ctx, const unroll_profile_entry *e) {
  (void)ctx;
  printf("timed %s %s %s %s t %" PRId64 " + %" PRId64 " bytes %" PRIu64 "\n", e->op_name ? e->op_name : "-",
         e->node ? e->node : "-", e->scan ? e->scan : "-", e->label, e->t, e->count, e->bytes);
}

static unroll_status train(unroll_graph *g, unroll_binding *b, unroll_error *err) {
  const float lr = 0.01f;
  const unroll_status timed = unroll_binding_profile(b, 1, err);
  unroll_status st = unroll_binding_write(b, "lr", &lr, sizeof lr, err);
  for (int32_t step = 1; step <= STEPS && st == UNROLL_OK; step++) {
    const int64_t T = MAX_T - step;
    const uint64_t bytes = (uint64_t)T * B * sizeof(int32_t);
    const int32_t lengths[B] = {(int32_t)T, 2, (int32_t)T - 1};
    const unroll_run_options run = {
        .struct_size = sizeof run, .n_dims = 1, .dims = &T, .seed = 5, .update = (uint64_t)step, .t0 = 3, .row0 = 2};
    int32_t ids[MAX_T * B], targets[MAX_T * B];
    for (int32_t i = 0; i < T * B; i++) {
      ids[i] = (i * 5 + step) % V;
      targets[i] = i % 8 == 7 ? -1 : (i * 3) % V;
    }
    if ((st = unroll_binding_write(b, "ids", ids, bytes, err)) == UNROLL_OK &&
        (st = unroll_binding_write(b, "targets", targets, bytes, err)) == UNROLL_OK &&
        (st = unroll_binding_write(b, "lengths", lengths, sizeof lengths, err)) == UNROLL_OK &&
        (st = unroll_binding_write(b, "step", &step, sizeof step, err)) == UNROLL_OK &&
        (st = unroll_run(b, &run, err)) == UNROLL_OK)
      st = print_all(g, b, err);
  }
  if (st == UNROLL_OK && timed == UNROLL_OK)
    st = unroll_binding_profile_read(b, print_entry, NULL, err);
  return st;
}

int main(int argc, char **argv) {
  if (argc != 3) {
    fprintf(stderr, "usage: training_step FILE ID\n");
    return 2;
  }
  const char *const file = argv[1];
  const unroll_context_options options = {
      .struct_size = sizeof options, .n_threads = 2, .plugin_files = &file, .n_plugin_files = 1};
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_context *ctx = NULL;
  unroll_device *device = NULL;
  unroll_graph *graph = NULL;
  unroll_executable *exe = NULL;
  unroll_binding *binding = NULL;
  unroll_status st = unroll_graph_create(NULL, &graph, &err);
  if (st == UNROLL_OK)
    build(graph);
  if (st == UNROLL_OK && (st = unroll_context_create(&options, &ctx, &err)) == UNROLL_OK &&
      (st = unroll_device_open(ctx, argv[2], NULL, 0, &device, &err)) == UNROLL_OK &&
      (st = unroll_compile(graph, &device, 1, NULL, &exe, &err)) == UNROLL_OK &&
      (st = unroll_binding_create(exe, &binding, &err)) == UNROLL_OK &&
      (st = initialise(graph, binding, &err)) == UNROLL_OK) {
    print_shares(exe);
    st = train(graph, binding, &err);
  }
  if (st != UNROLL_OK)
    fprintf(stderr, "training_step: %s: %s\n", unroll_status_name(st), err.message);
  unroll_binding_destroy(binding);
  unroll_executable_destroy(exe);
  if (device)
    unroll_device_close(device);
  if (ctx)
    unroll_context_destroy(ctx);
  unroll_graph_destroy(graph);
  return st == UNROLL_OK ? EXIT_SUCCESS : EXIT_FAILURE;
}
