/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What options of a layer cost, and what batches of like length save.
 *
 * An LSTM, T 50, B 64, 256 to 256, forward and gradient: plain, and with dropout of x and of h by one mask each for all
 * steps, with dropout of W_h, with zoneout, with layer normalisation, all in turns in the same run. And, with
 * --dictionary, a language model of the letters of its words, 128 units, batches of 64: every batch as long as the
 * longest word of all, as its own longest, and made of words of like length. Prints one JSON object per device.
 *
 *     layer_options [--text] [--dictionary FILE] [SECONDS] DEVICE...     FILE as the CMU pronouncing dictionary has it
 */
#include "rig.h"
#include <inttypes.h>
#include <unroll/datasets.h>

enum { T = 50, B = 64, H = 256, MIN_TURNS = 3 };
enum { WORD_HIDDEN = 128, WORD_EMBEDDING = 32, WORD_BATCHES = 64 };

static const struct {
  const char *name;
  unroll_rnn_options o;
} kinds[] = {{"none", {.cell = UNROLL_CELL_LSTM}},
             {"variational", {.cell = UNROLL_CELL_LSTM, .input_dropout = 0.25, .same_mask = 1, .state_dropout = 0.25}},
             {"recurrent", {.cell = UNROLL_CELL_LSTM, .weight_dropout = 0.5}},
             {"zoneout", {.cell = UNROLL_CELL_LSTM, .zoneout_h = 0.1, .zoneout_c = 0.1}},
             {"layer_norm", {.cell = UNROLL_CELL_LSTM, .layer_norm = 1}}};
enum { N_KINDS = sizeof kinds / sizeof *kinds };

static unroll_status layer(side *s, int kind, unroll_error *err) {
  const unroll_status status = unroll_graph_create(NULL, &s->graph, err);
  if (status != UNROLL_OK)
    return status;
  const unroll_tensor x = unroll_input(s->graph, "x", UNROLL_F32, 3, (int64_t[]){T, B, H});
  unroll_rnn_options o = kinds[kind].o;
  o.struct_size = sizeof o;
  o.layers = 1;
  o.hidden = H;
  side_gradients(s, x, unroll_rnn(x, "", &o, NULL, NULL));
  return UNROLL_OK;
}

static unroll_status measure_layers(unroll_device *device, double seconds, double *ms, unroll_error *err) {
  side s[N_KINDS];
  memset(s, 0, sizeof s);
  unroll_status status = UNROLL_OK;
  for (int k = 0; k < N_KINDS && status == UNROLL_OK; k++) {
    status = layer(&s[k], k, err);
    if (status == UNROLL_OK)
      status = side_bind(&s[k], device, UNROLL_CELL_LSTM, err);
  }
  const double begin = now();
  for (uint64_t turn = 0; status == UNROLL_OK && (turn <= MIN_TURNS || now() - begin < seconds); turn++)
    for (int k = 0; k < N_KINDS && status == UNROLL_OK; k++)
      status = side_time(&s[k], turn, err);
  for (int k = 0; k < N_KINDS; k++) {
    ms[k] = s[k].best * 1e3;
    side_close(&s[k]);
  }
  return status;
}

/* ---- words ---- */
typedef struct words {
  unroll_pairs *pairs;
  unroll_tokens *letters;
  unroll_sequences *sequences;
  int64_t longest;
} words;

static void words_close(words *w) {
  unroll_sequences_destroy(w->sequences);
  unroll_tokens_destroy(w->letters);
  unroll_pairs_destroy(w->pairs);
}

static unroll_status words_open(words *w, const char *path, unroll_error *err) {
  const unroll_pairs_options form = {
      .struct_size = sizeof form, .form = UNROLL_PAIRS_CMUDICT, .flags = UNROLL_PAIRS_FIRST_ONLY};
  const unroll_tokens_options characters = {.struct_size = sizeof characters, .unit = UNROLL_UNIT_CHARACTER};
  unroll_status status = unroll_pairs_load(path, &form, NULL, &w->pairs, err);
  if (status != UNROLL_OK)
    return status;
  const char *const *texts = unroll_pairs_sources(w->pairs);
  const int64_t n = unroll_pairs_count(w->pairs);
  status = unroll_tokens_build(texts, n, &characters, NULL, &w->letters, err);
  if (status == UNROLL_OK)
    status = unroll_sequences_encode(texts, n, w->letters, 0, NULL, &w->sequences, err);
  for (int64_t i = 0; status == UNROLL_OK && i < n; i++) {
    const int32_t length = unroll_sequences_lengths(w->sequences)[i];
    w->longest = length > w->longest ? length : w->longest;
  }
  return status;
}

/* Each letter from those before it. */
static unroll_status letters_model(side *s, const words *w, unroll_error *err) {
  const unroll_status status = unroll_graph_create(NULL, &s->graph, err);
  if (status != UNROLL_OK)
    return status;
  const int64_t steps = unroll_graph_dim(s->graph, "T", 1, w->longest), shape[] = {steps, B}, batch = B;
  const int64_t V = unroll_tokens_count(w->letters);
  const unroll_rnn_options o = {.struct_size = sizeof o,
                                .cell = UNROLL_CELL_LSTM,
                                .layers = 1,
                                .hidden = WORD_HIDDEN,
                                .lengths = unroll_input(s->graph, "lengths", UNROLL_I32, 1, &batch)};
  const unroll_tensor ids = unroll_input(s->graph, "ids", UNROLL_I32, 2, shape),
                      targets = unroll_input(s->graph, "targets", UNROLL_I32, 2, shape);
  const unroll_tensor e = unroll_embedding_layer(ids, "embed", UNROLL_F32, V, WORD_EMBEDDING);
  const unroll_tensor logits = unroll_linear(unroll_rnn(e, "rnn", &o, NULL, NULL), "head", V, 1);
  const unroll_tensor loss = unroll_cross_entropy(logits, targets, UNROLL_LOSS_MEAN);
  unroll_tensor wrt[16], d[16];
  uint32_t n = 0;
  for (uint32_t i = 0; i < unroll_graph_count(s->graph) && n < 16; i++)
    if (unroll_tensor_describe(unroll_graph_tensor(s->graph, i)).role == UNROLL_ROLE_PARAM)
      wrt[n++] = unroll_graph_tensor(s->graph, i);
  unroll_gradient(loss, wrt, n, d);
  for (uint32_t i = 0; i < n; i++) {
    char name[80];
    (void)snprintf(name, sizeof name, "d.%s", unroll_tensor_describe(wrt[i]).name);
    unroll_output(d[i], name);
  }
  unroll_output(loss, "loss");
  return UNROLL_OK;
}

typedef struct way {
  const char *name;
  int64_t pool;
  bool to_longest;
  double seconds;             /* per letter, of the batches that were run */
  int64_t positions, letters; /* of an epoch */
} way;

/* Some batches of an epoch, which is shuffled: a sample of it. */
static unroll_status run_words(side *s, const words *w, way *a, uint64_t epoch, unroll_error *err) {
  const unroll_batches_options options = {.struct_size = sizeof options, .B = B, .pool = a->pool, .seed = 1};
  unroll_batches *batches = NULL;
  int32_t *ids = malloc(sizeof *ids * (size_t)(2 * w->longest * B)), lengths[B];
  unroll_status status = ids ? UNROLL_OK : UNROLL_E_MEMORY;
  if (status == UNROLL_OK)
    status = unroll_batches_create(unroll_sequences_lengths(w->sequences), NULL, NULL,
                                   unroll_sequences_count(w->sequences), &options, NULL, &batches, err);
  if (status == UNROLL_OK) {
    unroll_batches_start(batches, epoch);
    const unroll_padding padding = unroll_batches_padding(batches);
    a->letters = padding.real;
    a->positions = a->to_longest ? unroll_batches_count(batches) * B * w->longest : padding.padded;
  }
  const double start = now();
  int64_t seen = 0;
  for (int64_t i = 0; i < WORD_BATCHES && status == UNROLL_OK; i++) {
    const unroll_batch b = unroll_batches_get(batches, i);
    const int64_t steps = a->to_longest ? w->longest : b.T[0];
    const uint64_t bytes = sizeof *ids * (uint64_t)(steps * B);
    int32_t *targets = ids + steps * B;
    status = unroll_sequences_fill(w->sequences, b.items, B, steps, UNROLL_I32, 0, ids, lengths, err);
    for (int64_t k = 0; k < steps * B && status == UNROLL_OK; k++) {
      const int64_t t = k / B + 1, row = k % B;
      targets[k] = t < lengths[row] ? ids[k + B] : -1;
      seen += t <= lengths[row];
    }
    if (status == UNROLL_OK)
      status = unroll_binding_write(s->binding, "ids", ids, bytes, err);
    if (status == UNROLL_OK)
      status = unroll_binding_write(s->binding, "targets", targets, bytes, err);
    if (status == UNROLL_OK)
      status = unroll_binding_write(s->binding, "lengths", lengths, sizeof lengths, err);
    const unroll_run_options run = {.struct_size = sizeof run, .n_dims = 1, .dims = &steps};
    if (status == UNROLL_OK)
      status = unroll_run(s->binding, &run, err);
  }
  if (status == UNROLL_OK)
    status = unroll_binding_sync(s->binding, err);
  const double took = (now() - start) / (double)(seen ? seen : 1);
  if (epoch > 0 && took < a->seconds)
    a->seconds = took;
  unroll_batches_destroy(batches);
  free(ids);
  return status;
}

enum { N_WAYS = 3 };
static unroll_status measure_words(unroll_device *device, const words *w, double seconds, way *ways,
                                   unroll_error *err) {
  side s = {.graph = NULL};
  unroll_status status = letters_model(&s, w, err);
  if (status == UNROLL_OK)
    status = side_bind(&s, device, UNROLL_CELL_LSTM, err);
  const double begin = now();
  for (uint64_t turn = 0; status == UNROLL_OK && (turn < 2 || now() - begin < seconds); turn++)
    for (int i = 0; i < N_WAYS && status == UNROLL_OK; i++)
      status = run_words(&s, w, &ways[i], turn, err);
  side_close(&s);
  return status;
}

static void print(bool text, const char *id, const double *ms, const words *w, const way *ways) {
  printf(text ? "%s:" : "{\"device\":\"%s\",\"ms\":{", id);
  for (int k = 0; k < N_KINDS; k++)
    printf(text ? "%s %s %.2f ms (%.2f)" : "%s\"%s\":%.3f", k ? "," : "", kinds[k].name, ms[k], ms[k] / ms[0]);
  if (!text)
    printf("}");
  if (w) {
    printf(text ? "; %" PRId64 " words, the longest %" PRId64 ":"
                : ",\"words\":%" PRId64 ",\"longest\":%" PRId64 ",\"ways\":{",
           unroll_sequences_count(w->sequences), w->longest);
    for (int i = 0; i < N_WAYS; i++) {
      const double padding = 1 - (double)ways[i].letters / (double)ways[i].positions;
      if (text)
        printf("%s %s %.0f letters/s, %.1f%% padding", i ? "," : "", ways[i].name, 1 / ways[i].seconds, 100 * padding);
      else
        printf("%s\"%s\":{\"letters_per_s\":%.0f,\"padding\":%.4f}", i ? "," : "", ways[i].name, 1 / ways[i].seconds,
               padding);
    }
    if (!text)
      printf("}");
  }
  printf(text ? "\n" : "}\n");
}

int main(int argc, char **argv) {
  bool text = false;
  double seconds = 3;
  const char *dictionary = NULL;
  const int first = rig_arguments(argc, argv, &dictionary, "--dictionary", &seconds, &text);
  if (!first) {
    fprintf(stderr, "usage: layer_options [--text] [--dictionary FILE] [SECONDS] DEVICE...\n");
    return 2;
  }
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_context *ctx = NULL;
  words w = {.longest = 1};
  unroll_status status = unroll_context_create(NULL, &ctx, &err);
  if (status == UNROLL_OK && dictionary)
    status = words_open(&w, dictionary, &err);
  for (int i = first; i < argc && status == UNROLL_OK; i++) {
    unroll_device *device = NULL;
    double ms[N_KINDS];
    way ways[N_WAYS] = {{.name = "longest_of_all", .pool = 1, .to_longest = true, .seconds = 1e9},
                        {.name = "longest_of_batch", .pool = 1, .seconds = 1e9},
                        {.name = "by_length", .pool = 0, .seconds = 1e9}};
    status = unroll_device_open(ctx, argv[i], NULL, 0, &device, &err);
    if (status == UNROLL_OK)
      status = measure_layers(device, seconds, ms, &err);
    if (status == UNROLL_OK && dictionary)
      status = measure_words(device, &w, seconds, ways, &err);
    if (status == UNROLL_OK)
      print(text, unroll_device_id(device), ms, dictionary ? &w : NULL, ways);
    unroll_device_close(device);
  }
  words_close(&w);
  unroll_context_destroy(ctx);
  if (status != UNROLL_OK)
    fprintf(stderr, "layer_options: %s\n", err.message[0] ? err.message : "out of memory");
  return status == UNROLL_OK ? 0 : 1;
}
