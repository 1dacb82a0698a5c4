/* SPDX-License-Identifier: Apache-2.0 */
/* Classifiers and forecasters of cells with options: what they say is what the layers give, files, resuming, refusals. */
#include <stdbool.h>
#include <unroll/classify.h>
#include <unroll/forecast.h>
#include <unroll/nn.h>
#include <unroll/runtime.h>

#include "train_support.h"

enum { SEQUENCES = 40, FEATURES = 4, CLASSES = 3, LONGEST = 7, SERIES = 120, LAGS = 6, AHEAD = 3 };
enum { PROJECTED, COUPLED, MINIMAL_GRU, MINIMAL_LSTM, LEAKY, AROUND, ALONE, VARIETIES };

/* D·P of ALONE is as many as there are features, so that its only layer has a connection around it. */
static unroll_recurrent variety(int which, bool forecasts) {
  unroll_recurrent r = {.cell = UNROLL_CELL_LSTM, .layers = 2, .hidden = 6};
  switch (which) {
  case PROJECTED:
    r.projection = 3;
    r.residual = UNROLL_RESIDUAL_OUTPUTS;
    r.cell_clip = 0.25;
    break;
  case COUPLED:
    r.cell = UNROLL_RNN_COUPLED_LSTM;
    r.layer_norm = r.peepholes = 1;
    break;
  case MINIMAL_GRU:
    r.cell = UNROLL_RNN_MIN_GRU;
    r.residual = UNROLL_RESIDUAL_OUTPUTS;
    break;
  case MINIMAL_LSTM: r.cell = UNROLL_RNN_MIN_LSTM; break;
  case LEAKY:
    r.cell = UNROLL_CELL_RNN;
    r.f = (unroll_activation){.kind = UNROLL_ACTIVATION_LEAKY_RELU, .alpha = 0.25};
    r.clip = 2;
    r.residual = UNROLL_RESIDUAL_STATES;
    break;
  case AROUND:
    r.cell = UNROLL_CELL_GRU;
    r.skip = 0.25;
    r.residual = UNROLL_RESIDUAL_OUTPUTS;
    break;
  default:
    r.cell = UNROLL_CELL_RNN;
    r.layers = 1;
    r.hidden = forecasts ? 1 : FEATURES / 2;
    r.residual = UNROLL_RESIDUAL_OUTPUTS;
  }
  return r;
}

static unroll_rnn_options as_layers(const unroll_recurrent *r, bool bidirectional) {
  return (unroll_rnn_options){.struct_size = sizeof(unroll_rnn_options),
                              .cell = r->cell,
                              .layers = (int32_t)r->layers,
                              .hidden = r->hidden,
                              .bidirectional = bidirectional,
                              .lengths = unroll_none(),
                              .inference = 1,
                              .f = r->f,
                              .clip = r->clip,
                              .cell_clip = r->cell_clip,
                              .projection = r->projection,
                              .peepholes = r->peepholes,
                              .layer_norm = r->layer_norm,
                              .skip = r->skip,
                              .residual = r->residual};
}

/*
 * What the layers of a file give for one sequence x [T,I] at its end, a reverse direction at its beginning, [D·P]: their states
 * there, but with RESIDUAL_OUTPUTS what they give. Then the file's linear layer, in double.
 */
static void by_layers(const char *path, const unroll_rnn_options *o, const float *x, int64_t T, int64_t I, int n,
                      double *out) {
  unroll_safetensors *file;
  unroll_graph *g;
  unroll_executable *exe;
  unroll_binding *b;
  const int64_t D = o->bidirectional ? 2 : 1, P = o->projection ? o->projection : o->hidden;
  unroll_tensor h[4] = {unroll_none(), unroll_none(), unroll_none(), unroll_none()};
  unroll_rnn_state last = {h, NULL};
  float y[LONGEST][16], top[16];
  assert_ok(unroll_safetensors_open(path, NULL, &file, &err));
  assert_ok(unroll_graph_create(NULL, &g, &err));
  unroll_output(unroll_rnn(unroll_input(g, "x", UNROLL_F32, 3, (int64_t[]){T, 1, I}), "rnn", o, NULL, &last), "y");
  unroll_output(unroll_concat(h + (o->layers - 1) * D, (uint32_t)D, 1), "last");
  assert_ok(unroll_compile(g, &cpu, 1, NULL, &exe, &err));
  assert_ok(unroll_binding_create(exe, &b, &err));
  for (uint32_t i = 0; i < unroll_graph_count(g); i++) {
    const unroll_tensor_info info = unroll_tensor_describe(unroll_graph_tensor(g, i));
    unroll_stored_tensor t;
    if (info.role != UNROLL_ROLE_PARAM)
      continue;
    assert_ok(unroll_safetensors_find(file, info.name, &t, &err));
    assert_ok(unroll_binding_write(b, info.name, t.data, t.bytes, &err));
  }
  float padded[LONGEST * 16];
  memcpy(padded, x, (size_t)(T * I) * sizeof *x);
  assert_ok(unroll_binding_write(b, "x", padded, (size_t)(T * I) * sizeof *x, &err));
  const unroll_run_options run = {.struct_size = sizeof run};
  assert_ok(unroll_run(b, &run, &err));
  float flat[LONGEST * 16];
  assert_ok(unroll_binding_read(b, "y", flat, (size_t)(T * D * P) * sizeof *flat, &err));
  assert_ok(unroll_binding_read(b, "last", top, (size_t)(D * P) * sizeof *top, &err));
  for (int64_t t = 0; t < T; t++)
    memcpy(y[t], flat + t * D * P, (size_t)(D * P) * sizeof *flat);
  unroll_stored_tensor W, bias;
  assert_ok(unroll_safetensors_find(file, "linear.W", &W, &err));
  assert_ok(unroll_safetensors_find(file, "linear.b", &bias, &err));
  assert_int_equal(W.shape[1], D * P);
  for (int k = 0; k < n; k++) {
    out[k] = (double)((const float *)bias.data)[k];
    for (int64_t j = 0; j < D * P; j++) {
      const float given = o->residual == UNROLL_RESIDUAL_OUTPUTS ? y[j < P ? T - 1 : 0][j] : top[j];
      out[k] += (double)((const float *)W.data)[k * D * P + j] * (double)given;
    }
  }
  unroll_binding_destroy(b);
  unroll_executable_destroy(exe);
  unroll_graph_destroy(g);
  unroll_safetensors_close(file);
}

/* ---- classifiers ---- */

static float number_of(int sequence, int t, int f) {
  return (float)(((sequence * 7 + t * 5 + f * 3 + sequence * t) * 37 % 23) - 11) / 8;
}

static unroll_sequences *load_sequences(int shortest) {
  char *all = malloc(1 << 16), *at = all;
  assert_non_null(all);
  at += sprintf(at, "who,what,a,b,c,d\n");
  for (int i = 0; i < SEQUENCES; i++) {
    const int length = shortest + i * 11 % (LONGEST - shortest + 1);
    for (int t = 0; t < length; t++)
      at += sprintf(at, "s%d,%c,%g,%g,%g,%g\n", i, 'p' + (i * 5) % CLASSES, (double)number_of(i, t, 0),
                    (double)number_of(i, t, 1), (double)number_of(i, t, 2), (double)number_of(i, t, 3));
  }
  put_file(in_folder("s.csv"), all, (size_t)(at - all));
  free(all);
  unroll_sequences *s = NULL;
  const unroll_labelled_options o = {.struct_size = sizeof o, .sequence = "who", .label = "what"};
  assert_ok(unroll_sequences_load(in_folder("s.csv"), &o, NULL, &s, &err));
  return s;
}

static unroll_classifier_options classifier_options(int which, bool bidirectional) {
  unroll_classifier_options o = unroll_classifier_options_default();
  o.rnn = variety(which, false);
  o.bidirectional = bidirectional;
  o.scaling = UNROLL_SCALING_NONE;
  o.training.batch = 8;
  o.training.validation = 0; /* a run ends with an evaluation, which stands in the file */
  o.training.schedule.base = 0.02;
  return o;
}

static void classes_are_what_the_layers_give(void **state) {
  (void)state;
  static struct seen straight, halves;
  for (int k = 0; k < 2 * VARIETIES; k++) {
    unroll_sequences *s = load_sequences(k % 2 ? LONGEST : 1); /* of one length, or of many */
    const bool bidirectional = k / 2 == ALONE || k % 3 != 0;
    const unroll_classifier_options o = classifier_options(k / 2, bidirectional);
    unroll_classifier *c = NULL;
    assert_ok(unroll_classifier_create(&cpu, 1, s, &o, NULL, &c, &err));
    unroll_train_options run = {
        .struct_size = sizeof run, .report_every = 1, .updates = 12, .progress = see, .ctx = &straight};
    assert_ok(unroll_classifier_train(c, &run, &err));
    assert_ok(unroll_classifier_save(c, in_folder("straight"), &err));
    float p[SEQUENCES][CLASSES];
    assert_ok(unroll_classifier_predict(c, s, &p[0][0], &err));
    const unroll_rnn_options layers = as_layers(&o.rnn, bidirectional);
    for (int i = 0; i < SEQUENCES; i++) {
      float x[LONGEST * FEATURES];
      double logits[CLASSES], total = 0;
      const int64_t T = unroll_sequences_lengths(s)[i];
      for (int j = 0; j < T * FEATURES; j++)
        x[j] = (float)unroll_sequences_values(s, i)[j];
      by_layers(in_folder("straight"), &layers, x, T, FEATURES, CLASSES, logits);
      for (int j = 0; j < CLASSES; j++)
        total += exp(logits[j]);
      for (int j = 0; j < CLASSES; j++) /* float32, a linear layer in another order */
        if (fabs((double)p[i][j] - exp(logits[j]) / total) > 1e-6)
          fail_msg("variety %d, sequence %d of %d steps: %.9g for %.9g", k, i, (int)T, (double)p[i][j],
                   exp(logits[j]) / total);
    }
    unroll_classifier_destroy(c);

    c = NULL;
    assert_ok(unroll_classifier_create(&cpu, 1, s, &o, NULL, &c, &err));
    run.ctx = &halves;
    run.updates = 5;
    assert_ok(unroll_classifier_train(c, &run, &err));
    assert_ok(unroll_classifier_save(c, in_folder("half"), &err));
    unroll_classifier_destroy(c);
    assert_ok(unroll_classifier_load(&cpu, 1, in_folder("half"), NULL, &c, &err));
    const unroll_recurrent back = unroll_classifier_describe(c).options.rnn;
    assert_memory_equal(&back.f, &o.rnn.f, sizeof back - offsetof(unroll_recurrent, f));
    assert_ok(unroll_classifier_resume(c, s, &err));
    run.updates = 12;
    assert_ok(unroll_classifier_train(c, &run, &err));
    assert_ok(unroll_classifier_save(c, in_folder("half"), &err));
    assert_memory_equal(straight.losses, halves.losses, 12 * sizeof(float));
    assert_same_files(in_folder("straight"), in_folder("half"));
    unroll_classifier_destroy(c);
    unroll_sequences_destroy(s);
  }
}

/* ---- forecasters ---- */

static void forecasts_are_what_the_layers_give(void **state) {
  (void)state;
  static struct seen straight, halves;
  double y[SERIES], next[AHEAD], expected[AHEAD];
  for (int t = 0; t < SERIES; t++)
    y[t] = sin(0.7 * t) + 0.3 * cos(1.9 * t);
  for (int k = 0; k < VARIETIES; k++) {
    unroll_forecaster_options o = unroll_forecaster_options_default();
    o.rnn = variety(k, true);
    o.unscaled = 1;
    o.lags = LAGS;
    o.horizon = AHEAD;
    o.training.validation = 0;
    o.training.schedule.base = 0.02;
    unroll_forecaster *f = NULL;
    assert_ok(unroll_forecaster_create(&cpu, 1, y, SERIES, &o, NULL, &f, &err));
    unroll_train_options run = {
        .struct_size = sizeof run, .report_every = 1, .updates = 12, .progress = see, .ctx = &straight};
    assert_ok(unroll_forecaster_train(f, &run, &err));
    assert_ok(unroll_forecaster_save(f, in_folder("straight"), &err));
    assert_ok(unroll_forecaster_forecast(f, y, SERIES, AHEAD, next, &err));
    unroll_forecaster_destroy(f);
    float x[LAGS];
    for (int t = 0; t < LAGS; t++)
      x[t] = (float)y[SERIES - LAGS + t];
    const unroll_rnn_options layers = as_layers(&o.rnn, false);
    by_layers(in_folder("straight"), &layers, x, LAGS, 1, AHEAD, expected);
    for (int t = 0; t < AHEAD; t++)
      if (fabs(next[t] - expected[t]) > 1e-6)
        fail_msg("variety %d: %.9g for %.9g", k, next[t], expected[t]);

    f = NULL;
    assert_ok(unroll_forecaster_create(&cpu, 1, y, SERIES, &o, NULL, &f, &err));
    run.ctx = &halves;
    run.updates = 5;
    assert_ok(unroll_forecaster_train(f, &run, &err));
    assert_ok(unroll_forecaster_save(f, in_folder("half"), &err));
    unroll_forecaster_destroy(f);
    assert_ok(unroll_forecaster_load(&cpu, 1, in_folder("half"), NULL, &f, &err));
    const unroll_recurrent back = unroll_forecaster_describe(f).options.rnn;
    assert_memory_equal(&back.f, &o.rnn.f, sizeof back - offsetof(unroll_recurrent, f));
    assert_ok(unroll_forecaster_resume(f, y, SERIES, &err));
    run.updates = 12;
    assert_ok(unroll_forecaster_train(f, &run, &err));
    assert_ok(unroll_forecaster_save(f, in_folder("half"), &err));
    assert_memory_equal(straight.losses, halves.losses, 12 * sizeof(float));
    assert_same_files(in_folder("straight"), in_folder("half"));
    unroll_forecaster_destroy(f);
  }
}

static void refused(void **state) {
  (void)state;
  unroll_sequences *s = load_sequences(1);
  unroll_classifier *c = NULL;
  unroll_classifier_options o = classifier_options(ALONE, false);
  assert_error(unroll_classifier_create(&cpu, 1, s, &o, NULL, &c, &err), UNROLL_E_INVALID,
               "residual outputs: the only layer reads 4 numbers and gives 2, they must be as many, or layers more");
  o = classifier_options(AROUND, true);
  o.rnn.projection = 3;
  assert_error(unroll_classifier_create(&cpu, 1, s, &o, NULL, &c, &err), UNROLL_E_INVALID,
               "projection: an lstm's, but the cell is gru");
  unroll_sequences_destroy(s);
  const double y[SERIES] = {0};
  unroll_forecaster *f = NULL;
  unroll_forecaster_options p = unroll_forecaster_options_default();
  p.rnn = variety(ALONE, true);
  p.rnn.hidden = 2;
  p.rnn.residual = UNROLL_RESIDUAL_STATES;
  assert_error(unroll_forecaster_create(&cpu, 1, y, SERIES, &p, NULL, &f, &err), UNROLL_E_INVALID,
               "residual states: the only layer reads 1 numbers and gives 2");
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(classes_are_what_the_layers_give),
                                     cmocka_unit_test(forecasts_are_what_the_layers_give), cmocka_unit_test(refused)};
  return cmocka_run_group_tests(tests, begin, end);
}
