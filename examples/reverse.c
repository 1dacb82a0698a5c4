/* SPDX-License-Identifier: Apache-2.0 */
/*
 * reverse.c: an encoder and a decoder with attention learn to say words backwards.
 *
 * The encoder is a bidirectional GRU, the decoder a GRU that looks back at the encoder's states (Bahdanau, Cho,
 * Bengio 2015). Two graphs share their parameters: one is taught, with the right letters as inputs; the other runs
 * freely on the device, each letter it says being its next input. In the end, one word and where the decoder looked
 * while it wrote each letter.
 * Usage: reverse [DEVICE], "cpu" by default; "auto", "opencl", ...
 */
#include <stdio.h>
#include <stdlib.h>
#include <unroll/philox.h>
#include <unroll/runtime.h>
#include <unroll/seq2seq.h>

enum { S = 6, T = S + 1, B = 32, LETTERS = 8, V = LETTERS + 1, EMBED = 16, H = 32, STEPS = 400, SHOW = 50 };
enum { END = 0 }; /* letters are 1 to LETTERS; END also begins */

static const uint64_t seed = 1;

typedef struct batch {
  int32_t source[S * B], source_lengths[B];
  int32_t inputs[T * B], targets[T * B], target_lengths[B];
} batch;

/* Words of 1 to S letters; past a word's end there is anything. */
static void make_batch(uint64_t number, batch *x) {
  const unroll_philox_key key = unroll_philox_site_key(seed, number, 0);
  for (uint32_t b = 0; b < B; b++) {
    const int32_t n = 1 + (int32_t)(unroll_philox_word(key, 0, b, 0) % S);
    x->source_lengths[b] = n;
    x->target_lengths[b] = n + 1;
    for (uint32_t s = 0; s < S; s++)
      x->source[s * B + b] = 1 + (int32_t)(unroll_philox_word(key, 1, b, s) % LETTERS);
    for (int32_t t = 0; t < T; t++) {
      x->targets[t * B + (int)b] = t < n ? x->source[(n - 1 - t) * B + (int)b] : t == n ? END : -1;
      x->inputs[t * B + (int)b] = t == 0 ? END : x->targets[(t - 1) * B + (int)b];
    }
  }
}

/* The encoder, and a decoder that is fed so. */
static unroll_decoder_outputs network(unroll_graph *g, unroll_decoder_feed feed) {
  const int64_t source_shape[] = {S, B}, target_shape[] = {T, B}, batch_shape[] = {B};
  const unroll_tensor source = unroll_input(g, "source", UNROLL_I32, 2, source_shape),
                      lengths = unroll_input(g, "source_lengths", UNROLL_I32, 1, batch_shape);
  const unroll_rnn_options encoder = {.struct_size = sizeof encoder,
                                      .cell = UNROLL_CELL_GRU,
                                      .layers = 1,
                                      .hidden = H,
                                      .bidirectional = 1,
                                      .lengths = lengths};
  unroll_tensor h[2], first[1];
  unroll_rnn_state last = {h, NULL}, initial = {first, NULL};
  const unroll_tensor embedded = unroll_embedding_layer(source, "embed", UNROLL_F32, V, EMBED);
  const unroll_tensor encoded = unroll_rnn(embedded, "encoder", &encoder, NULL, &last);
  unroll_bridge(&last, 1, 2, "bridge", H, &initial);

  const unroll_decoder_options decoder = {.struct_size = sizeof decoder,
                                          .cell = UNROLL_CELL_GRU,
                                          .layers = 1,
                                          .hidden = H,
                                          .vocabulary = V,
                                          .embedding = EMBED,
                                          .attention = UNROLL_ATTENTION_ADDITIVE,
                                          .source = encoded,
                                          .source_lengths = lengths,
                                          .initial = initial};
  feed.struct_size = sizeof feed;
  if (feed.kind == UNROLL_FEED_TEACHER) {
    feed.inputs = unroll_input(g, "inputs", UNROLL_I32, 2, target_shape);
    feed.lengths = unroll_input(g, "target_lengths", UNROLL_I32, 1, batch_shape);
  }
  return unroll_decode("decoder", &decoder, &feed);
}

/* Loss, gradients, and one update of every parameter by Adam. */
static void build_training(unroll_graph *g) {
  const int64_t shape[] = {T, B};
  const unroll_decoder_outputs out = network(g, (unroll_decoder_feed){.kind = UNROLL_FEED_TEACHER});
  const unroll_tensor targets = unroll_input(g, "targets", UNROLL_I32, 2, shape);
  const unroll_tensor loss = unroll_cross_entropy(out.logits, targets, UNROLL_LOSS_MEAN);
  const unroll_tensor lr = unroll_input(g, "lr", UNROLL_F32, 0, NULL),
                      step = unroll_input(g, "step", UNROLL_I32, 0, NULL);
  unroll_tensor params[32], grads[32], norm;
  uint32_t n = 0;
  for (uint32_t i = 0; i < unroll_graph_count(g) && n < 32; i++)
    if (unroll_tensor_describe(unroll_graph_tensor(g, i)).role == UNROLL_ROLE_PARAM)
      params[n++] = unroll_graph_tensor(g, i);
  unroll_gradient(loss, params, n, grads);
  const unroll_tensor scale = unroll_clip_global_norm(grads, n, 1.0, &norm);
  const unroll_optimizer_attr adam = {.kind = UNROLL_ADAM, .beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8};
  for (uint32_t i = 0; i < n; i++)
    unroll_optimize(params[i], grads[i], lr, step, scale, &adam);
  unroll_output(loss, "loss");
}

static void build_running(unroll_graph *g) {
  const unroll_decoder_outputs out =
      network(g, (unroll_decoder_feed){.kind = UNROLL_FEED_FREE, .steps = T, .begin = END, .end = END, .pad = -1});
  unroll_output(out.ids, "said");
  unroll_output(out.weights, "weights");
}

/* First values in the training's binding; the other one shares them. */
static unroll_status initialise(unroll_graph *g, unroll_binding *training, unroll_binding *running, unroll_error *err) {
  unroll_status st = UNROLL_OK;
  for (uint32_t i = 0; i < unroll_graph_count(g) && st == UNROLL_OK; i++) {
    const unroll_tensor_info info = unroll_tensor_describe(unroll_graph_tensor(g, i));
    static float values[3 * H * 2 * H];
    uint64_t bytes = sizeof(float);
    if (info.role != UNROLL_ROLE_PARAM)
      continue;
    for (int32_t axis = 0; axis < info.rank; axis++)
      bytes *= (uint64_t)info.shape[axis];
    st = unroll_init_default(&info, UNROLL_CELL_GRU, seed, values, err);
    if (st == UNROLL_OK)
      st = unroll_binding_write(training, info.name, values, bytes, err);
    if (st == UNROLL_OK)
      st = unroll_binding_share(running, info.name, training, info.name, err);
  }
  return st;
}

static unroll_status write_source(unroll_binding *binding, const batch *x, unroll_error *err) {
  const unroll_status st = unroll_binding_write(binding, "source", x->source, sizeof x->source, err);
  return st != UNROLL_OK
             ? st
             : unroll_binding_write(binding, "source_lengths", x->source_lengths, sizeof x->source_lengths, err);
}

static unroll_status train(unroll_binding *binding, unroll_error *err) {
  const float lr = 0.01f;
  static batch x;
  unroll_status st = unroll_binding_write(binding, "lr", &lr, sizeof lr, err);
  for (int32_t step = 1; step <= STEPS && st == UNROLL_OK; step++) {
    float loss;
    make_batch((uint64_t)step, &x);
    if ((st = write_source(binding, &x, err)) == UNROLL_OK &&
        (st = unroll_binding_write(binding, "inputs", x.inputs, sizeof x.inputs, err)) == UNROLL_OK &&
        (st = unroll_binding_write(binding, "targets", x.targets, sizeof x.targets, err)) == UNROLL_OK &&
        (st = unroll_binding_write(binding, "target_lengths", x.target_lengths, sizeof x.target_lengths, err)) ==
            UNROLL_OK &&
        (st = unroll_binding_write(binding, "step", &step, sizeof step, err)) == UNROLL_OK &&
        (st = unroll_run(binding, NULL, err)) == UNROLL_OK && (step == 1 || step % SHOW == 0) &&
        (st = unroll_binding_read(binding, "loss", &loss, sizeof loss, err)) == UNROLL_OK)
      printf("step %4d  loss %.6f\n", (int)step, (double)loss);
  }
  return st;
}

/* Where the decoder looked at each letter that it wrote: one row each, darker is more. */
static void draw(const batch *x, const int32_t *said, const float *weights, int b) {
  static const char shades[] = " .:-=+*#%@";
  printf("\n    ");
  for (int s = 0; s < x->source_lengths[b]; s++)
    printf("%c ", 'a' - 1 + x->source[s * B + b]);
  for (int t = 0; t < T && said[t * B + b] >= 0; t++) {
    printf("\n  %c ", said[t * B + b] == END ? '.' : 'a' - 1 + said[t * B + b]);
    for (int s = 0; s < x->source_lengths[b]; s++) {
      const char shade = shades[(int)(9.99f * weights[(t * B + b) * S + s])];
      printf("%c%c", shade, shade);
    }
  }
  printf("\n");
}

static unroll_status test(unroll_binding *binding, unroll_error *err) {
  static batch x;
  static int32_t said[T * B];
  static float weights[T * B * S];
  unroll_status st;
  int right = 0, longest = 0;
  make_batch(UINT64_MAX, &x); /* of no update */
  if ((st = write_source(binding, &x, err)) != UNROLL_OK || (st = unroll_run(binding, NULL, err)) != UNROLL_OK ||
      (st = unroll_binding_read(binding, "said", said, sizeof said, err)) != UNROLL_OK ||
      (st = unroll_binding_read(binding, "weights", weights, sizeof weights, err)) != UNROLL_OK)
    return st;
  for (int b = 0; b < B; b++) {
    int same = 1;
    for (int t = 0; t < T; t++)
      same = same && said[t * B + b] == x.targets[t * B + b];
    right += same;
    longest = x.source_lengths[b] > x.source_lengths[longest] ? b : longest;
  }
  printf("%d of %d new words said backwards\n", right, B);
  draw(&x, said, weights, longest);
  return UNROLL_OK;
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
        build_running(graph[i]);
      if ((st = unroll_compile(graph[i], &device, 1, NULL, &exe[i], &err)) == UNROLL_OK)
        st = unroll_binding_create(exe[i], &binding[i], &err);
    }
  if (st == UNROLL_OK && (st = initialise(graph[0], binding[0], binding[1], &err)) == UNROLL_OK &&
      (st = train(binding[0], &err)) == UNROLL_OK)
    st = test(binding[1], &err);
  if (st != UNROLL_OK)
    fprintf(stderr, "reverse: %s: %s\n", unroll_status_name(st), err.message);
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
