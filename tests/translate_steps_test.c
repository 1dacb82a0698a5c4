/* SPDX-License-Identifier: Apache-2.0 */
/*
 * unroll_translator_follow: the gates of a trained decoder and the gradients of its states, against the same network built
 * here from the file's weights, in double.
 */
#include "translate_support.h"

#include <math.h>
#include <unroll/io.h>

enum { N = 5, STEPS = 8 };
/* Each once, of 1 to 7 letters, not all of which the model has seen; no target has LONGEST letters. */
static const char *const sources[N] = {"abcde", "e", "ddca", "abababa", "cc"};
static const char *const targets[N] = {"edcba", "e", "acdd", "bababaa", "c"};

static int64_t elements(const unroll_tensor_info *info) {
  int64_t n = 1;
  for (int32_t i = 0; i < info->rank; i++)
    n *= info->shape[i];
  return n;
}

static void put_weights(const unroll_safetensors *file, unroll_graph *g, unroll_binding *b) {
  for (uint32_t i = 0; i < unroll_graph_count(g); i++) {
    const unroll_tensor_info info = unroll_tensor_describe(unroll_graph_tensor(g, i));
    unroll_stored_tensor t;
    if (info.role != UNROLL_ROLE_PARAM)
      continue;
    assert_ok(unroll_safetensors_find(file, info.name, &t, &err));
    const int64_t n = elements(&info);
    assert_int_equal(t.bytes, (uint64_t)n * sizeof(float));
    double *const values = malloc((size_t)n * sizeof *values);
    for (int64_t k = 0; k < n; k++)
      values[k] = (double)((const float *)t.data)[k];
    assert_ok(unroll_binding_write(b, info.name, values, (uint64_t)n * sizeof *values, &err));
    free(values);
  }
}

/* ids [steps,N] of texts, time first; -1 past the end. Where `end` is not below 0 it comes last. */
static void encode(const char *const *texts, const unroll_tokens *tokens, int32_t end, int64_t steps, int32_t *ids,
                   int32_t *lengths) {
  unroll_sequences *all;
  assert_ok(unroll_sequences_encode(texts, N, tokens, 0, NULL, &all, &err));
  for (int i = 0; i < N; i++) {
    lengths[i] = unroll_sequences_lengths(all)[i] + (end >= 0);
    for (int64_t t = 0; t < steps; t++)
      ids[t * N + i] = t < unroll_sequences_lengths(all)[i] ? unroll_sequences_ids(all, i)[t]
                       : t < lengths[i]                     ? end
                                                            : -1;
  }
  unroll_sequences_destroy(all);
}

typedef struct known {
  unroll_graph *g;
  unroll_executable *exe;
  unroll_binding *binding;
} known;

static known build(const unroll_translator *t, const char *path) {
  const unroll_translator_info info = unroll_translator_describe(t);
  const unroll_translator_options *o = &info.options;
  const int32_t end = unroll_tokens_special(info.targets, UNROLL_TOKEN_END), L = (int32_t)o->rnn.layers;
  const int64_t n = N;
  const bool lstm = o->rnn.cell == UNROLL_CELL_LSTM;
  known k = {.g = NULL};
  char name[32];
  assert_ok(unroll_graph_create(NULL, &k.g, &err));
  unroll_tensor h[4], c[4], h0[2], c0[2], taps[2], gates[2], d[2];
  const unroll_tensor ids = unroll_input(k.g, "source", UNROLL_I32, 2, (int64_t[]){STEPS, N});
  unroll_rnn_options rnn = {.struct_size = sizeof rnn,
                            .cell = o->rnn.cell,
                            .layers = L,
                            .hidden = o->encoder_hidden ? o->encoder_hidden : o->rnn.hidden,
                            .bidirectional = 1,
                            .lengths = unroll_input(k.g, "source_lengths", UNROLL_I32, 1, &n)};
  unroll_rnn_state last = {h, lstm ? c : NULL}, first = {h0, lstm ? c0 : NULL};
  const unroll_tensor embedded =
      unroll_embedding_layer(ids, "embed", UNROLL_F64, unroll_tokens_count(info.sources), o->embedding);
  const unroll_tensor source = unroll_rnn(embedded, "encoder", &rnn, NULL, &last);
  unroll_bridge(&last, L, 2, "bridge", o->rnn.hidden, &first);
  for (int32_t l = 0; l < L; l++) {
    snprintf(name, sizeof name, "tap %d", l);
    taps[l] = unroll_input(k.g, name, UNROLL_F64, 3, (int64_t[]){STEPS, N, o->rnn.hidden});
  }
  const unroll_rnn_state tapped = {taps, NULL};
  const unroll_rnn_options cells = {.struct_size = sizeof cells,
                                    .cell = o->rnn.cell,
                                    .layers = L,
                                    .hidden = o->rnn.hidden,
                                    .taps = &tapped,
                                    .gates = gates};
  const unroll_decoder_options decoder = {.struct_size = sizeof decoder,
                                          .vocabulary = unroll_tokens_count(info.targets),
                                          .embedding = o->embedding,
                                          .attention = o->attention,
                                          .context = o->context,
                                          .source = source,
                                          .source_lengths = rnn.lengths,
                                          .initial = first,
                                          .rnn = &cells};
  const unroll_decoder_feed feed = {.struct_size = sizeof feed,
                                    .inputs = unroll_input(k.g, "inputs", UNROLL_I32, 2, (int64_t[]){STEPS, N}),
                                    .lengths = unroll_input(k.g, "target_lengths", UNROLL_I32, 1, &n)};
  const unroll_tensor wanted = unroll_input(k.g, "targets", UNROLL_I32, 2, (int64_t[]){STEPS, N});
  unroll_gradient(unroll_cross_entropy(unroll_decode("decoder", &decoder, &feed).logits, wanted, UNROLL_LOSS_MEAN),
                  taps, (uint32_t)L, d);
  for (int32_t l = 0; l < L; l++) {
    snprintf(name, sizeof name, "gates %d", l);
    unroll_output(gates[l], name);
    snprintf(name, sizeof name, "d %d", l);
    unroll_output(d[l], name);
  }
  assert_ok(unroll_graph_status(k.g, &err));
  assert_ok(unroll_compile(k.g, &cpu, 1, NULL, &k.exe, &err));
  assert_ok(unroll_binding_create(k.exe, &k.binding, &err));
  unroll_safetensors *file;
  assert_ok(unroll_safetensors_open(path, NULL, &file, &err));
  put_weights(file, k.g, k.binding);
  unroll_safetensors_close(file);

  int32_t x[STEPS * N], said[STEPS * N], fed[STEPS * N], lengths[2][N];
  encode(sources, info.sources, -1, STEPS, x, lengths[0]);
  encode(targets, info.targets, end, STEPS, said, lengths[1]);
  for (int i = 0; i < STEPS * N; i++) {
    fed[i] = i < N ? end : said[i - N] < 0 ? 0 : said[i - N];
    x[i] = x[i] < 0 ? 0 : x[i];
  }
  assert_ok(unroll_binding_write(k.binding, "source", x, sizeof x, &err));
  assert_ok(unroll_binding_write(k.binding, "source_lengths", lengths[0], sizeof lengths[0], &err));
  assert_ok(unroll_binding_write(k.binding, "inputs", fed, sizeof fed, &err));
  assert_ok(unroll_binding_write(k.binding, "targets", said, sizeof said, &err));
  assert_ok(unroll_binding_write(k.binding, "target_lengths", lengths[1], sizeof lengths[1], &err));
  assert_ok(unroll_run(k.binding, NULL, &err));
  return k;
}

static void known_close(known *k) {
  unroll_binding_destroy(k->binding);
  unroll_executable_destroy(k->exe);
  unroll_graph_destroy(k->g);
}

/* In f32, sums of up to 48 products: 1e-5 of values up to 1; of gradients relative to the largest. */
static void check_layer(known *k, const unroll_translator_steps *s, int32_t layer) {
  const int64_t H = s->hidden, G = s->gates, wide = STEPS * N * G * H, rows = STEPS * N;
  char name[32];
  double *const gates = malloc((size_t)wide * sizeof *gates), *const d = malloc((size_t)(rows * H) * sizeof *d);
  double norms[STEPS * N], most = 0;
  snprintf(name, sizeof name, "gates %d", layer);
  assert_ok(unroll_binding_read(k->binding, name, gates, (uint64_t)wide * sizeof *gates, &err));
  snprintf(name, sizeof name, "d %d", layer);
  assert_ok(unroll_binding_read(k->binding, name, d, (uint64_t)(rows * H) * sizeof *d, &err));
  for (int64_t i = 0; i < wide; i++)
    if (fabs((double)s->values[layer * wide + i] - gates[i]) > 1e-5)
      fail_msg("gate %lld is %g, expected %g", (long long)i, (double)s->values[layer * wide + i], gates[i]);
  for (int64_t i = 0; i < rows; i++) {
    double sum = 0;
    for (int64_t u = 0; u < H; u++)
      sum += d[i * H + u] * d[i * H + u];
    norms[i] = sqrt(sum);
    most = fmax(most, norms[i]);
  }
  assert_true(most > 1e-4);
  for (int64_t i = 0; i < rows; i++) {
    const double got = (double)s->norms[layer * rows + i];
    if (fabs(got - norms[i]) > 1e-4 * most)
      fail_msg("norm %lld is %g, expected %g", (long long)i, got, norms[i]);
    assert_int_equal(got > 0, i / N < s->lengths[i % N]);
  }
  free(gates);
  free(d);
}

static void a_decoder_under_a_teacher(void **state) {
  (void)state;
  static struct seen seen;
  unroll_pairs *pairs = word_pairs(0);
  const struct {
    int32_t cell, attention, context;
    int64_t layers, gates;
  } all[] = {{UNROLL_CELL_GRU, UNROLL_ATTENTION_ADDITIVE, UNROLL_CONTEXT_BEFORE, 2, 3},
             {UNROLL_CELL_LSTM, UNROLL_ATTENTION_MULTIPLICATIVE, UNROLL_CONTEXT_FEEDING, 1, 4},
             {UNROLL_CELL_RNN, UNROLL_ATTENTION_NONE, UNROLL_CONTEXT_BEFORE, 1, 1}};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
    unroll_translator_options o = toy(all[i].cell);
    o.rnn.layers = all[i].layers;
    o.attention = all[i].attention;
    o.context = all[i].context;
    o.rnn.dropout = 0.3; /* not of what is followed */
    unroll_translator_steps *s = NULL;
    unroll_translator *t = new_translator(pairs, &o);
    run_to(t, 20, &seen);
    assert_ok(unroll_translator_save(t, in_folder("followed"), &err));
    for (int loaded = 0; loaded < 2; loaded++) {
      assert_ok(unroll_translator_follow(t, sources, targets, N, &s, &err));
      assert_int_equal(s->layers, all[i].layers);
      assert_int_equal(s->gates, all[i].gates);
      assert_int_equal(s->steps, STEPS);
      assert_int_equal(s->batch, N);
      for (int k = 0; k < N; k++)
        assert_int_equal(s->lengths[k], strlen(targets[k]) + 1);
      known k = build(t, in_folder("followed"));
      for (int32_t l = 0; l < s->layers; l++)
        check_layer(&k, s, l);
      known_close(&k);
      unroll_translator_steps_free(s);
      unroll_translator_destroy(t);
      t = load_translator(in_folder("followed"));
    }
    unroll_translator_destroy(t);
  }
  unroll_pairs_destroy(pairs);
}

static void refused(void **state) {
  (void)state;
  unroll_pairs *pairs = word_pairs(0);
  const unroll_translator_options o = toy(UNROLL_CELL_GRU);
  unroll_translator *t = new_translator(pairs, &o);
  unroll_translator_steps *s = (unroll_translator_steps *)pairs;
  const char *const empty[N] = {"a", "b", "", "c", "d"};
  assert_error(unroll_translator_follow(t, NULL, targets, N, &s, &err), UNROLL_E_INVALID, "sources is NULL");
  assert_error(unroll_translator_follow(t, sources, targets, 0, &s, &err), UNROLL_E_INVALID, "0 pairs");
  assert_null(s);
  assert_error(unroll_translator_follow(t, empty, targets, N, &s, &err), UNROLL_E_FORMAT, "sources: ");
  unroll_translator_steps_free(NULL);
  unroll_translator_destroy(t);
  unroll_pairs_destroy(pairs);
}

static unroll_status attempt(void *ctx, const unroll_allocator *allocator) {
  unroll_translator *t = NULL;
  unroll_translator_steps *s = NULL;
  (void)ctx;
  unroll_status status = unroll_translator_load(&cpu, 1, in_folder("memory"), allocator, &t, NULL);
  if (status == UNROLL_OK)
    status = unroll_translator_follow(t, sources, targets, 2, &s, NULL);
  unroll_translator_steps_free(s);
  unroll_translator_destroy(t);
  return status;
}

static void memory_runs_out(void **state) {
  (void)state;
  unroll_pairs *pairs = word_pairs(0);
  unroll_translator_options o = toy(UNROLL_CELL_GRU);
  o.rnn.hidden = 4;
  unroll_translator *t = new_translator(pairs, &o);
  assert_ok(unroll_translator_save(t, in_folder("memory"), &err));
  unroll_translator_destroy(t);
  unroll_pairs_destroy(pairs);
  memory_runs_out_of(attempt, NULL, 0, 37);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(a_decoder_under_a_teacher), cmocka_unit_test(refused),
                                     cmocka_unit_test(memory_runs_out)};
  return cmocka_run_group_tests(tests, begin, end);
}
