/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The same seed trains the same way on every device: losses of 30 updates agree with the reference's to 1e-3, and have
 * the same bits when the training is repeated on the device. With everything that draws random numbers: dropout of
 * every kind, zoneout, scheduled sampling; and with a curriculum, whose steps grow.
 *
 * Other masks or symbols than the reference's change a loss here by some percent: each training is also held against
 * one with another seed, which must not agree.
 */
#include "devices.h"
#include "train_support.h"
#include <unroll/seq2seq.h>

enum { UPDATES = 30, T = 7, S = 5, B = 6, I = 4, H = 12, V = 9, SEED = 11 };
#define TOLERANCE 1e-3

typedef struct network {
  unroll_graph *g;
  unroll_tensor loss;
} network;

static const int32_t lengths[B] = {7, 3, 5, 7, 1, 6}, source_lengths[B] = {5, 2, 0, 4, 5, 3};

/* Numbers in no order, different in every place. */
static double varied(int64_t i) { return sin(0.7 + 1.9 * (double)i + 0.013 * (double)(i * i)); }

static unroll_tensor whole(unroll_graph *g, const char *name, int32_t rank, const int64_t *shape) {
  return unroll_input(g, name, UNROLL_I32, rank, shape);
}

/* Adam on every parameter, gradients clipped together. */
static void add_updates(network *n) {
  unroll_tensor params[64], grads[64];
  uint32_t count = 0;
  for (uint32_t i = 0; i < unroll_graph_count(n->g); i++) {
    const unroll_tensor t = unroll_graph_tensor(n->g, i);
    if (unroll_tensor_describe(t).role == UNROLL_ROLE_PARAM)
      params[count++] = t;
  }
  unroll_gradient(n->loss, params, count, grads);
  const unroll_tensor scale = unroll_clip_global_norm(grads, count, 1, NULL);
  const unroll_tensor rate = unroll_constant(n->g, UNROLL_F32, 0, NULL, 0.02), step = whole(n->g, "step", 0, NULL);
  const unroll_optimizer_attr adam = {.kind = UNROLL_ADAM, .beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8};
  for (uint32_t i = 0; i < count; i++)
    unroll_optimize(params[i], grads[i], rate, step, scale, &adam);
  unroll_output(n->loss, "loss");
}

static void fill(model *m, uint64_t seed, int32_t cell) {
  for (uint32_t i = 0; i < unroll_graph_count(m->graph); i++) {
    const unroll_tensor_info t = unroll_tensor_describe(unroll_graph_tensor(m->graph, i));
    int64_t count = 1;
    for (int32_t k = 0; k < t.rank; k++)
      count *= t.shape[k];
    if (t.role == UNROLL_ROLE_PARAM) {
      float *values = malloc((size_t)count * sizeof *values);
      assert_non_null(values);
      assert_ok(unroll_init_default(&t, cell, seed, values, &err));
      assert_ok(unroll_binding_write(m->binding, t.name, values, (size_t)count * sizeof *values, &err));
      free(values);
    } else if (t.role == UNROLL_ROLE_INPUT && t.dtype == UNROLL_F32) {
      double values[T * B * I];
      for (int64_t k = 0; k < count; k++)
        values[k] = varied(k);
      model_put(m, t.name, values, count);
    } else if (t.role == UNROLL_ROLE_INPUT && t.rank == 2) { /* symbols: what x says is learnt within a few updates */
      int32_t symbols[T * B];
      for (int64_t k = 0; k < count; k++)
        symbols[k] = (int32_t)((k * k + 3 * k) % V);
      model_put_i32(m, t.name, symbols, count);
    }
  }
  model_put_i32(m, "lengths", lengths, B);
  if (unroll_graph_find(m->graph, "source_lengths").graph)
    model_put_i32(m, "source_lengths", source_lengths, B);
}

static void train(unroll_device *device, network (*build)(int32_t form), int32_t form, uint64_t seed, double *losses) {
  network n = build(form);
  add_updates(&n);
  assert_ok(unroll_graph_status(n.g, &err));
  model m = model_open(n.g, device, true);
  fill(&m, SEED, UNROLL_CELL_LSTM);
  const bool scheduled = unroll_graph_find(n.g, "update").graph != NULL;
  for (int32_t u = 0; u < UPDATES; u++) {
    const int32_t step = u + 1;
    m.options.seed = seed;
    m.options.update = (uint64_t)u + 1;
    model_put_i32(&m, "step", &step, 1);
    if (scheduled)
      model_put_i32(&m, "update", &u, 1);
    model_run(&m);
    double *loss = model_get(&m, "loss", 1);
    losses[u] = *loss;
    free(loss);
  }
  model_close(&m);
  unroll_graph_destroy(n.g);
}

/* Of losses that agree: the largest relative difference. */
static double apart(const double *a, const double *b) {
  double most = 0;
  for (int u = 0; u < UPDATES; u++)
    most = fmax(most, fabs(a[u] - b[u]) / fabs(b[u]));
  return most;
}

/* Of every way of building: on each of the plugin's devices as on the reference, and twice the same. */
static void train_everywhere(const char *plugin, network (*build)(int32_t form), int32_t forms,
                             const char *(*name)(int32_t form)) {
  for (int32_t form = 0; form < forms; form++) {
    double want[UPDATES], got[UPDATES], again[UPDATES], other[UPDATES];
    train(cpu, build, form, SEED, want);
    train(cpu, build, form, SEED + 1, other);
    if (apart(other, want) < 10 * TOLERANCE)
      fail_msg("%s: another seed gives the same losses: nothing is drawn", name(form));
    assert_true(want[UPDATES - 1] < 0.9 * want[0]);
    FOR_EACH_DEVICE(device, plugin, UNROLL_F32) {
      train(device, build, form, SEED, got);
      train(device, build, form, SEED, again);
      print_message("%s on %s: within %.1e\n", name(form), unroll_device_id(device), apart(got, want));
      assert_memory_equal(got, again, sizeof got);
      if (!(apart(got, want) <= TOLERANCE))
        fail_msg("%s: losses on %s differ by %.2g from those of cpu", name(form), unroll_device_id(device),
                 apart(got, want));
    }
  }
}

/* ---- dropout of every kind ---- */

static const struct {
  const char *name;
  unroll_rnn_options o;
} kinds[] = {{"input dropout", {.cell = UNROLL_CELL_LSTM, .input_dropout = 0.3}},
             {"output dropout", {.cell = UNROLL_CELL_GRU, .output_dropout = 0.3}},
             {"dropout between layers", {.cell = UNROLL_CELL_LSTM, .layers = 2, .dropout = 0.3}},
             {"one mask for all steps",
              {.cell = UNROLL_CELL_GRU_AFTER,
               .layers = 2,
               .dropout = 0.3,
               .input_dropout = 0.2,
               .output_dropout = 0.2,
               .same_mask = 1}},
             {"weight dropout", {.cell = UNROLL_CELL_LSTM, .weight_dropout = 0.4}},
             {"state dropout", {.cell = UNROLL_CELL_LSTM, .state_dropout = 0.4}},
             {"zoneout of h", {.cell = UNROLL_CELL_LSTM, .zoneout_h = 0.3}},
             {"zoneout of c", {.cell = UNROLL_CELL_LSTM, .zoneout_c = 0.3}},
             {"all of them, both ways",
              {.cell = UNROLL_CELL_LSTM,
               .layers = 2,
               .bidirectional = 1,
               .dropout = 0.1,
               .input_dropout = 0.1,
               .output_dropout = 0.1,
               .weight_dropout = 0.2,
               .state_dropout = 0.2,
               .zoneout_h = 0.1,
               .zoneout_c = 0.1}}};
enum { N_KINDS = sizeof kinds / sizeof *kinds };

static const char *kind_name(int32_t form) { return kinds[form].name; }

static network build_tagger(int32_t form) {
  network n;
  assert_ok(unroll_graph_create(NULL, &n.g, &err));
  const int64_t batch = B, steps[] = {T, B};
  unroll_rnn_options o = kinds[form].o;
  o.struct_size = sizeof o;
  o.layers = o.layers ? o.layers : 1;
  o.hidden = H;
  o.lengths = whole(n.g, "lengths", 1, &batch);
  const unroll_tensor x = unroll_input(n.g, "x", UNROLL_F32, 3, (int64_t[]){T, B, I});
  const unroll_tensor y = unroll_linear(unroll_rnn(x, "rnn", &o, NULL, NULL), "head", V, 1);
  n.loss = unroll_cross_entropy(y, whole(n.g, "targets", 2, steps), UNROLL_LOSS_MEAN);
  return n;
}

static void dropouts(void **state) { train_everywhere(*state, build_tagger, N_KINDS, kind_name); }

/* ---- scheduled sampling ---- */

static const struct {
  const char *name;
  unroll_sampling_schedule schedule;
  int32_t pick;
} samplings[] = {
    {"exponential, greedy",
     {sizeof(unroll_sampling_schedule), UNROLL_SAMPLING_EXPONENTIAL, 0.9, 0.95, 0.1},
     UNROLL_PICK_GREEDY},
    {"linear, sampled", {sizeof(unroll_sampling_schedule), UNROLL_SAMPLING_LINEAR, 1, 0.05, 0.1}, UNROLL_PICK_SAMPLE},
    {"inverse sigmoid, sampled",
     {sizeof(unroll_sampling_schedule), UNROLL_SAMPLING_INVERSE_SIGMOID, 1, 8, 0},
     UNROLL_PICK_SAMPLE}};
enum { N_SAMPLINGS = sizeof samplings / sizeof *samplings };

static const char *sampling_name(int32_t form) { return samplings[form].name; }

static network build_translator(int32_t form) {
  network n;
  assert_ok(unroll_graph_create(NULL, &n.g, &err));
  const int64_t batch = B, steps[] = {T, B};
  unroll_tensor h, c;
  unroll_rnn_state last = {&h, &c};
  const unroll_rnn_options encoder = {.struct_size = sizeof encoder,
                                      .cell = UNROLL_CELL_LSTM,
                                      .layers = 1,
                                      .hidden = H,
                                      .lengths = whole(n.g, "source_lengths", 1, &batch)};
  const unroll_tensor x = unroll_input(n.g, "x", UNROLL_F32, 3, (int64_t[]){S, B, I});
  const unroll_decoder_options o = {.struct_size = sizeof o,
                                    .cell = UNROLL_CELL_LSTM,
                                    .layers = 1,
                                    .hidden = H,
                                    .vocabulary = V,
                                    .embedding = 5,
                                    .attention = UNROLL_ATTENTION_ADDITIVE,
                                    .source = unroll_rnn(x, "encoder", &encoder, NULL, &last),
                                    .source_lengths = encoder.lengths,
                                    .initial = last};
  const unroll_decoder_feed feed = {
      .struct_size = sizeof feed,
      .kind = UNROLL_FEED_SCHEDULED,
      .inputs = whole(n.g, "inputs", 2, steps),
      .lengths = whole(n.g, "lengths", 1, &batch),
      .epsilon = unroll_sampling_rate(whole(n.g, "update", 0, NULL), &samplings[form].schedule, UNROLL_F32),
      .pick = samplings[form].pick};
  n.loss = unroll_cross_entropy(unroll_decode("decoder", &o, &feed).logits, whole(n.g, "targets", 2, steps),
                                UNROLL_LOSS_MEAN);
  return n;
}

static void scheduled_sampling(void **state) { train_everywhere(*state, build_translator, N_SAMPLINGS, sampling_name); }

/* ---- a curriculum ---- */

/* Sequences of 2, 5 and 8 steps in the first three epochs, with every dropout that a language model has. */
static void train_lm(unroll_device *device, uint64_t seed, struct record *r) {
  unroll_lm_options o = small(UNROLL_CELL_LSTM);
  o.steps_start = 2;
  o.steps_increment = 3;
  o.training.batch = 20;
  o.training.seed = seed;
  o.rnn.input_dropout = 0.1;
  o.rnn.weight_dropout = 0.2;
  unroll_lm *lm;
  assert_ok(unroll_lm_create(&device, 1, text, &o, NULL, &lm, &err));
  train_to(lm, 2 * UPDATES + UPDATES / 2, r);
  unroll_lm_destroy(lm);
}

static double records_apart(const struct record *a, const struct record *b) {
  double most = 0;
  for (uint64_t u = 0; u < b->updates; u++)
    most = fmax(most, fabs((double)(a->losses[u] - b->losses[u])) / (double)b->losses[u]);
  return most;
}

static void curriculum(void **state) {
  static struct record want, got, again, other;
  train_lm(cpu, SEED, &want);
  train_lm(cpu, SEED + 1, &other);
  assert_true(records_apart(&other, &want) > 10 * TOLERANCE);
  FOR_EACH_DEVICE(device, *state, UNROLL_F32) {
    train_lm(device, SEED, &got);
    train_lm(device, SEED, &again);
    assert_same_losses(&got, &again, 0, got.updates);
    print_message("curriculum on %s: within %.1e\n", unroll_device_id(device), records_apart(&got, &want));
    assert_true(records_apart(&got, &want) <= TOLERANCE);
  }
}

static int open_all(void **state) { return begin(state) || devices_open(state); }
static int close_all(void **state) { return devices_close(state) || end(state); }

int main(void) {
  const struct CMUnitTest tests[] = {DEVICE_TESTS(dropouts), DEVICE_TESTS(scheduled_sampling),
                                     DEVICE_TESTS(curriculum)};
  return cmocka_run_group_tests(tests, open_all, close_all);
}
