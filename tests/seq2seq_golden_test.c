/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention, decoders under teacher forcing, with cells of every option too, outputs fed back, CTC and REINFORCE's loss
 * against PyTorch in f64, results and gradients, on every device. golden/README.md says what is in the files. What stands
 * past a sequence's end is NaN or no symbol at all.
 */
#include "devices.h"
#include "golden.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unroll/ctc.h>
#include <unroll/seq2seq.h>

typedef struct rig {
  golden file;
  unroll_graph *g;
  unroll_device *dev;
  int32_t dtype;
  int64_t run_time; /* of T where it has a run-time size, planned for 11; else 0 */
  bool seeded;      /* masks are drawn, with the file's seed and update; cells may normalise */
  const char *results[32];
  unroll_tensor tensors[32];
  uint32_t n_results;
} rig;

static int32_t named(const char *text, const char *const *names, int32_t n) {
  for (int32_t i = 0; i < n; i++)
    if (names[i] && strcmp(names[i], text) == 0)
      return i;
  fail_msg("unknown name %s", text);
  return -1;
}
static int32_t activation_of(const rig *r) {
  return strcmp(golden_text(&r->file, "cell"), "rnn_relu") == 0 ? UNROLL_RELU : UNROLL_TANH;
}
static int32_t attention_of(const char *text) {
  static const char *const kinds[] = {"none", "additive", "multiplicative", "dot", "scaled_dot"};
  return named(text, kinds, UNROLL_ATTENTION_COUNT);
}

/* What has target steps (of CTC: input steps) on axis 0. */
static const char *const timed[] = {"inputs", "d.logits", "d.weights", "logits", "d.c_all.0", "d.c_all.1", NULL};

/* An input of the graph with the file's shape, or none. */
static unroll_tensor in(const rig *r, const char *name) {
  if (!golden_has(&r->file, name))
    return unroll_none();
  const unroll_stored_tensor t = golden_describe(&r->file, name);
  int64_t shape[UNROLL_MAX_RANK];
  memcpy(shape, t.shape, sizeof *shape * (size_t)t.rank);
  for (int i = 0; r->run_time && timed[i]; i++)
    if (strcmp(timed[i], name) == 0)
      shape[0] = r->run_time;
  return unroll_input(r->g, name, t.dtype == UNROLL_I32 ? UNROLL_I32 : r->dtype, t.rank, shape);
}
static void result(rig *r, const char *name, unroll_tensor x) {
  assert_in_range(r->n_results, 0, 31);
  r->results[r->n_results] = name;
  r->tensors[r->n_results++] = unroll_output(x, name);
}

static bool begins(const char *s, const char *with) { return strncmp(s, with, strlen(with)) == 0; }

/* Past the end of a source or target: something that spoils whatever looks at it. */
static void spoil(const rig *r, const char *name, double *values, int64_t n) {
  const char *by = strcmp(name, "source") == 0 ? "source_lengths" : strcmp(name, "logits") == 0 ? "lengths" : NULL;
  if (!by || !golden_has(&r->file, by))
    return;
  int64_t B;
  int32_t *lengths = golden_integers(&r->file, by, &B);
  const unroll_stored_tensor t = golden_describe(&r->file, name);
  const int64_t inner = n / t.shape[0] / B;
  for (int64_t i = 0; i < n; i++)
    if (i / (inner * B) >= lengths[i / inner % B])
      values[i] = NAN;
  free(lengths);
}

static void put_all(const rig *r, model *m) {
  for (uint64_t i = 0; i < unroll_safetensors_count(r->file.file); i++) {
    unroll_stored_tensor t;
    int64_t n;
    assert_int_equal(unroll_safetensors_get(r->file.file, i, &t, NULL), UNROLL_OK);
    const unroll_tensor x = unroll_graph_find(r->g, t.name);
    if (!x.graph || unroll_tensor_describe(x).role == UNROLL_ROLE_OUTPUT)
      continue;
    if (t.dtype == UNROLL_I32) {
      int32_t *v = golden_integers(&r->file, t.name, &n);
      if (strcmp(t.name, "inputs") == 0 && golden_has(&r->file, "lengths")) {
        int64_t B;
        int32_t *lengths = golden_integers(&r->file, "lengths", &B);
        for (int64_t k = 0; k < n; k++)
          v[k] = k / B >= lengths[k % B] ? 12345 : v[k];
        free(lengths);
      }
      model_put_i32(m, t.name, v, n);
      free(v);
      continue;
    }
    double *v = golden_values(&r->file, t.name, &n);
    spoil(r, t.name, v, n);
    model_put(m, t.name, v, n);
    free(v);
  }
}

/* f64: a few hundred roundings at 1e-16, as in layers_golden_test; f32: 6e-8 each, through up to 14 cells and a
 * softmax; with layer norm, whose gradient divides by deviations, as cells_golden_test has it. */
static double tolerance(const rig *r) { return r->dtype == UNROLL_F64 ? 1e-10 : r->seeded ? 5e-5 : 2e-5; }

static void compare(const rig *r, const model *m, const char *name) {
  int64_t n;
  char what[160];
  snprintf(what, sizeof what, "%s, %s: %s", r->file.name, unroll_dtype_name(r->dtype), name);
  double *want = golden_values(&r->file, name, &n), *got = model_get((model *)(uintptr_t)m, name, n);
  assert_close(what, got, want, n, tolerance(r));
  free(want);
  free(got);
}

/* The file's grad.NAME, of the sum of the results times d.NAME. */
static void check_all(rig *r) {
  unroll_tensor dy[32], wrt[64], d[64];
  char name[128];
  uint32_t n = 0;
  const char *names[64];
  for (uint32_t i = 0; i < r->n_results; i++) {
    snprintf(name, sizeof name, "d.%s", r->results[i]);
    dy[i] = in(r, name);
  }
  for (uint64_t i = 0; i < unroll_safetensors_count(r->file.file); i++) {
    unroll_stored_tensor t;
    assert_int_equal(unroll_safetensors_get(r->file.file, i, &t, NULL), UNROLL_OK);
    if (!begins(t.name, "grad."))
      continue;
    names[n] = t.name;
    wrt[n] = unroll_graph_find(r->g, t.name + 5);
    if (!wrt[n++].graph)
      fail_msg("%s: the graph has no %s", r->file.name, t.name + 5);
  }
  unroll_vjp(r->tensors, dy, r->n_results, wrt, n, d);
  for (uint32_t i = 0; i < n; i++)
    unroll_output(d[i], names[i]);
  model m = model_open(r->g, r->dev, true);
  if (r->run_time)
    model_set_dim(&m, golden_integer(&r->file, "T"));
  put_all(r, &m);
  if (r->seeded) {
    m.options.seed = (uint64_t)golden_integer(&r->file, "seed");
    m.options.update = (uint64_t)golden_integer(&r->file, "update");
  }
  model_run(&m);
  for (uint32_t i = 0; i < r->n_results; i++)
    compare(r, &m, r->results[i]);
  for (uint32_t i = 0; i < n; i++)
    compare(r, &m, names[i]);
  model_close(&m);
}

static void attention(rig *r) {
  const unroll_attention a = unroll_attention_prepare(in(r, "source"), in(r, "source_lengths"), "",
                                                      attention_of(golden_text(&r->file, "kind")),
                                                      golden_integer(&r->file, "D"), golden_integer(&r->file, "A"));
  unroll_tensor weights;
  result(r, "context", unroll_attend(&a, in(r, "query"), &weights));
  result(r, "weights", weights);
  check_all(r);
}

static const char *const contexts[] = {"before", "after", "feeding"};

/* cells: NULL, or what a decoder with options has in place of those that o names itself. */
static void run_decoder(rig *r, unroll_decoder_options *o, int32_t layers, unroll_rnn_options *cells) {
  unroll_tensor h[2], c[2], c_all[2] = {unroll_none(), unroll_none()};
  const bool ragged = golden_has(&r->file, "lengths");
  char name[16];
  for (int32_t l = 0; l < layers; l++) {
    snprintf(name, sizeof name, "h0.%d", l);
    h[l] = in(r, name);
    name[0] = 'c';
    c[l] = in(r, name);
  }
  o->struct_size = sizeof *o;
  o->vocabulary = golden_integer(&r->file, "V");
  o->embedding = golden_integer(&r->file, "X");
  o->attention = attention_of(golden_text(&r->file, "attention"));
  o->context = named(golden_text(&r->file, "context"), contexts, 3);
  o->attention_units = golden_integer(&r->file, "A");
  o->source = in(r, "source");
  o->source_lengths = in(r, "source_lengths");
  o->initial = (unroll_rnn_state){h, c};
  o->rnn = cells;
  if (cells && golden_has(&r->file, "c_all.0"))
    cells->cells = c_all;
  const unroll_decoder_feed f = {
      .struct_size = sizeof f, .inputs = in(r, "inputs"), .lengths = ragged ? in(r, "lengths") : unroll_none()};
  const unroll_decoder_outputs out = unroll_decode("dec", o, &f);
  result(r, "logits", out.logits);
  if (out.weights.graph)
    result(r, "weights", out.weights);
  static const char *const last[2][3] = {{"h_last.0", "c_last.0", "c_all.0"}, {"h_last.1", "c_last.1", "c_all.1"}};
  for (int32_t l = 0; l < layers; l++) {
    result(r, last[l][0], out.h_last[l]);
    if (out.c_last[l].graph)
      result(r, last[l][1], out.c_last[l]);
    if (c_all[l].graph)
      result(r, last[l][2], c_all[l]);
  }
  check_all(r);
}

static void decoder(rig *r) {
  unroll_decoder_options o = {.cell = golden_cell(&r->file),
                              .activation = activation_of(r),
                              .layers = (int32_t)golden_integer(&r->file, "layers"),
                              .hidden = golden_integer(&r->file, "H")};
  run_decoder(r, &o, o.layers, NULL);
}

static void decoder_with_options(rig *r) {
  unroll_rnn_options cells = golden_rnn_options(&r->file);
  r->seeded = true;
  run_decoder(r, &(unroll_decoder_options){.struct_size = 0}, cells.layers, &cells);
}

static void one_to_many(rig *r) {
  const unroll_one_to_many_options o = {.struct_size = sizeof o,
                                        .cell = golden_cell(&r->file),
                                        .output = UNROLL_SIGMOID,
                                        .hidden = golden_integer(&r->file, "H"),
                                        .outputs = golden_integer(&r->file, "Y"),
                                        .steps = golden_integer(&r->file, "T"),
                                        .lengths = in(r, "lengths")};
  unroll_cell_state last;
  result(r, "y", unroll_one_to_many(in(r, "x"), NULL, &o, &last));
  result(r, "h_last", last.h);
  check_all(r);
}

/* Infinity, which assert_close takes for a mistake, is -1 in the file. */
static unroll_tensor made_finite(unroll_tensor loss) {
  const int32_t dtype = unroll_tensor_describe(loss).dtype;
  const unroll_tensor most = unroll_constant(loss.graph, dtype, 0, NULL, 1e20);
  return unroll_select(unroll_binary(loss, most, UNROLL_GT), unroll_constant(loss.graph, dtype, 0, NULL, -1), loss);
}

static void ctc(rig *r) {
  const unroll_tensor logits = in(r, "logits"), targets = in(r, "targets"), n = in(r, "target_lengths"), d = in(r, "d");
  unroll_ctc_options o = {.struct_size = sizeof o,
                          .blank = (int32_t)golden_integer(&r->file, "blank"),
                          .reduction = UNROLL_LOSS_NONE,
                          .lengths = in(r, "lengths")};
  static const char *const names[] = {"mean.zero", "sum.zero", "none.zero"}, *const grads[] = {"grad.mean.zero",
                                                                                               "grad.sum.zero",
                                                                                               "grad.none.zero"};
  const int64_t one = 1;
  unroll_output(made_finite(unroll_ctc_loss(logits, targets, n, &o)), "none");
  o.zero_infinity = 1;
  for (int32_t k = 0; k < 3; k++) {
    o.reduction = k;
    const unroll_tensor loss = unroll_ctc_loss(logits, targets, n, &o);
    unroll_tensor dx;
    unroll_vjp(&loss, k == UNROLL_LOSS_NONE ? &d : NULL, 1, &logits, 1, &dx);
    unroll_output(k == UNROLL_LOSS_NONE ? loss : unroll_reshape(loss, 1, &one), names[k]);
    unroll_output(dx, grads[k]);
  }
  model m = model_open(r->g, r->dev, true);
  if (r->run_time)
    model_set_dim(&m, golden_integer(&r->file, "T"));
  put_all(r, &m);
  model_run(&m);
  compare(r, &m, "none");
  for (int k = 0; k < 3; k++) {
    compare(r, &m, names[k]);
    compare(r, &m, grads[k]);
  }
  model_close(&m);
}

static void reinforce(rig *r) {
  const unroll_tensor logits = in(r, "logits"), ids = in(r, "ids"), reward = in(r, "reward"),
                      baseline = in(r, "baseline"), d = in(r, "d");
  const unroll_tensor log_prob = unroll_sequence_log_prob(logits, ids);
  const struct {
    const char *name, *grad;
    unroll_tensor loss;
  } all[] = {
      {"log_prob", "grad.log_prob", log_prob},
      {"mean", "grad.mean", unroll_reinforce_loss(log_prob, reward, baseline, UNROLL_LOSS_MEAN)},
      {"sum", "grad.sum", unroll_reinforce_loss(log_prob, reward, baseline, UNROLL_LOSS_SUM)},
      {"mean.plain", "grad.mean.plain", unroll_reinforce_loss(log_prob, reward, unroll_none(), UNROLL_LOSS_MEAN)},
      {"sum.plain", "grad.sum.plain", unroll_reinforce_loss(log_prob, reward, unroll_none(), UNROLL_LOSS_SUM)}};
  enum { N = sizeof all / sizeof *all };
  const int64_t one = 1;
  for (int i = 0; i < N; i++) {
    unroll_tensor dx;
    unroll_vjp(&all[i].loss, i == 0 ? &d : NULL, 1, &logits, 1, &dx);
    unroll_output(i == 0 ? log_prob : unroll_reshape(all[i].loss, 1, &one), all[i].name);
    unroll_output(dx, all[i].grad);
  }
  model m = model_open(r->g, r->dev, true);
  put_all(r, &m);
  model_run(&m);
  for (int i = 0; i < N; i++) {
    compare(r, &m, all[i].name);
    compare(r, &m, all[i].grad);
  }
  model_close(&m);
}

static void run_files(void **state, const char *begin, void (*build)(rig *r), bool run_time) {
  static const int32_t dtypes[] = {UNROLL_F64, UNROLL_F32};
  uint32_t n, n_run = 0;
  char **names = golden_list(begin, &n);
  for (uint32_t i = 0; i < n; i++)
    for (int k = 0; k < 2; k++)
      FOR_EACH_DEVICE(dev, *state, dtypes[k]) {
        rig r = {.file = golden_open(names[i]), .dev = dev, .dtype = dtypes[k]};
        assert_int_equal(unroll_graph_create(NULL, &r.g, NULL), UNROLL_OK);
        r.run_time = run_time ? unroll_graph_dim(r.g, "T", 1, 11) : 0;
        build(&r);
        unroll_graph_destroy(r.g);
        golden_close(&r.file);
        n_run++;
      }
  golden_list_free(names, n);
  assert_in_range(n_run, 1, 1000);
}

static void attention_files(void **state) { run_files(state, "attention_", attention, false); }
static void decoder_files(void **state) { run_files(state, "decoder_", decoder, false); }
static void decoder_files_with_options(void **state) {
  run_files(state, "options_decoder_", decoder_with_options, false);
}
static void one_to_many_files(void **state) { run_files(state, "one_to_many_", one_to_many, false); }
static void ctc_file(void **state) { run_files(state, "ctc", ctc, false); }
static void reinforce_file(void **state) { run_files(state, "reinforce", reinforce, false); }

static void decoder_of_run_time_steps(void **state) { run_files(state, "decoder_", decoder, true); }
static void decoder_with_options_of_run_time_steps(void **state) {
  run_files(state, "options_decoder_", decoder_with_options, true);
}
static void ctc_of_run_time_steps(void **state) { run_files(state, "ctc", ctc, true); }

int main(void) {
  const struct CMUnitTest tests[] = {DEVICE_TESTS(attention_files),
                                     DEVICE_TESTS(decoder_files),
                                     DEVICE_TESTS(decoder_files_with_options),
                                     DEVICE_TESTS(one_to_many_files),
                                     DEVICE_TESTS(ctc_file),
                                     DEVICE_TESTS(decoder_of_run_time_steps),
                                     DEVICE_TESTS(decoder_with_options_of_run_time_steps),
                                     DEVICE_TESTS(ctc_of_run_time_steps),
                                     DEVICE_TESTS(reinforce_file)};
  return cmocka_run_group_tests(tests, devices_open, devices_close);
}
