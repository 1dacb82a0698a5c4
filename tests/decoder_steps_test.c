/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a decoder gives of its steps: the gradients of its states by taps, against central differences, and its gates,
 * against the cells' equations (plugin.h, LSTM_GATES, GRU_*).
 */
#include "devices.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unroll/seq2seq.h>

#include "runs.h"

enum { T = 5, B = 3, S = 4, E = 3, H = 4, V = 6, X = 2, LAYERS = 2, STATE = T * B * H };
static const int32_t lengths[B] = {5, 2, 4}, source_lengths[B] = {4, 1, 3};
static const int32_t inputs[T * B] = {0, 5, 2, 1, 4, 3, 3, 0, 0, 2, 0, 1, 5, 0, 0}; /* 0 past the end */
static const int32_t cells[] = {UNROLL_CELL_RNN, UNROLL_CELL_LSTM, UNROLL_CELL_GRU, UNROLL_CELL_GRU_AFTER};

typedef struct decoder {
  unroll_graph *g;
  bool lstm;
  unroll_tensor taps_h[LAYERS], taps_c[LAYERS], gates[LAYERS], c[LAYERS];
  model m;
} decoder;

static const char *named(char name[32], const char *what, int layer) {
  snprintf(name, 32, "%s %d", what, layer);
  return name;
}

static decoder *decoder_open(unroll_device *dev, int32_t cell, int32_t context) {
  static decoder d;
  char name[32];
  unroll_error err = UNROLL_ERROR_INIT;
  d = (decoder){.lstm = cell == UNROLL_CELL_LSTM};
  assert_int_equal(unroll_graph_create(NULL, &d.g, NULL), UNROLL_OK);
  const unroll_rnn_state taps = {d.taps_h, d.lstm ? d.taps_c : NULL};
  for (int l = 0; l < LAYERS; l++) {
    d.taps_h[l] = unroll_input(d.g, named(name, "tap h", l), UNROLL_F64, 3, (int64_t[]){T, B, H});
    if (d.lstm)
      d.taps_c[l] = unroll_input(d.g, named(name, "tap c", l), UNROLL_F64, 3, (int64_t[]){T, B, H});
  }
  const unroll_rnn_options rnn = {.struct_size = sizeof rnn,
                                  .cell = cell,
                                  .layers = LAYERS,
                                  .hidden = H,
                                  .taps = &taps,
                                  .gates = d.gates,
                                  .cells = d.lstm ? d.c : NULL};
  const int64_t batch = B;
  const unroll_decoder_options o = {.struct_size = sizeof o,
                                    .vocabulary = V,
                                    .embedding = X,
                                    .attention = UNROLL_ATTENTION_ADDITIVE,
                                    .context = context,
                                    .source = unroll_input(d.g, "source", UNROLL_F64, 3, (int64_t[]){S, B, E}),
                                    .source_lengths = unroll_input(d.g, "source_lengths", UNROLL_I32, 1, &batch),
                                    .rnn = &rnn};
  const unroll_decoder_feed f = {.struct_size = sizeof f,
                                 .inputs = unroll_input(d.g, "inputs", UNROLL_I32, 2, (int64_t[]){T, B}),
                                 .lengths = unroll_input(d.g, "lengths", UNROLL_I32, 1, &batch)};
  const unroll_decoder_outputs out = unroll_decode("d", &o, &f);
  const unroll_tensor loss = unroll_reduce(out.logits, UNROLL_SUM_SQUARES, 0, 0);
  unroll_tensor gradients[2 * LAYERS], of[2 * LAYERS];
  for (int l = 0; l < LAYERS; l++) {
    of[l] = d.taps_h[l];
    of[LAYERS + l] = d.taps_c[l];
  }
  unroll_gradient(loss, of, d.lstm ? 2 * LAYERS : LAYERS, gradients);
  unroll_output(loss, "loss");
  unroll_output(unroll_unary(out.hidden, UNROLL_COPY), "hidden");
  for (int l = 0; l < LAYERS; l++) {
    unroll_output(gradients[l], named(name, "d tap h", l));
    unroll_output(d.gates[l], named(name, "gates", l));
    if (d.lstm) {
      unroll_output(gradients[LAYERS + l], named(name, "d tap c", l));
      unroll_output(d.c[l], named(name, "c", l));
    }
  }
  if (unroll_graph_status(d.g, &err) != UNROLL_OK)
    fail_msg("%s", err.message);
  d.m = model_open(d.g, dev, true);
  model_fill(&d.m, 0.9);
  model_put_i32(&d.m, "inputs", inputs, T * B);
  model_put_i32(&d.m, "lengths", lengths, B);
  model_put_i32(&d.m, "source_lengths", source_lengths, B);
  static const double zeros[STATE];
  for (int l = 0; l < LAYERS; l++) {
    model_put(&d.m, named(name, "tap h", l), zeros, STATE);
    if (d.lstm)
      model_put(&d.m, named(name, "tap c", l), zeros, STATE);
  }
  model_run(&d.m);
  return &d;
}

static double loss_with(decoder *d, const char *tap, double *values, int k, double value) {
  values[k] = value;
  model_put(&d->m, tap, values, STATE);
  model_run(&d->m);
  double *loss = model_get(&d->m, "loss", 1);
  const double got = *loss;
  free(loss);
  return got;
}

static void check_tap(decoder *d, const char *what, int layer) {
  char tap[32], name[48];
  double values[STATE] = {0};
  named(tap, what, layer);
  snprintf(name, sizeof name, "d %s", tap);
  double *got = model_get(&d->m, name, STATE), most = 0;
  for (int k = 0; k < STATE; k += 3) {
    const int t = k / (B * H), b = k / H % B;
    const double want = (loss_with(d, tap, values, k, 1e-5) - loss_with(d, tap, values, k, -1e-5)) / 2e-5;
    values[k] = 0;
    most = fmax(most, fabs(want));
    if (fabs(got[k] - want) > 1e-8 * (1 + fabs(want))) /* h² and 1e-16/h */
      fail_msg("%s at %d: %.12g, by differences %.12g", name, k, got[k], want);
    if (t >= lengths[b])
      assert_true(got[k] == 0);
  }
  assert_true(most > 1e-3); /* something flows */
  model_put(&d->m, tap, values, STATE);
  model_run(&d->m);
  free(got);
}

static void taps_are_gradients_of_states(void **state) {
  FOR_EACH_DEVICE(dev, *state, UNROLL_F64)
    for (size_t c = 0; c < sizeof cells / sizeof *cells; c++)
      for (int32_t context = UNROLL_CONTEXT_BEFORE; context <= UNROLL_CONTEXT_FEEDING; context++) {
        decoder *d = decoder_open(dev, cells[c], context);
        for (int l = 0; l < LAYERS; l++) {
          check_tap(d, "tap h", l);
          if (d->lstm)
            check_tap(d, "tap c", l);
        }
        model_close(&d->m);
        unroll_graph_destroy(d->g);
      }
}

/* A step of one unit: what its gates make of the state before. */
static void check_unit(int32_t cell, const double *gates, double before, double c_before, double h, double c) {
  const double *g = gates; /* every H-th */
  double want = g[0];
  if (cell == UNROLL_CELL_LSTM) {
    if (fabs(c - (g[H] * c_before + g[0] * g[2 * H])) > 1e-14)
      fail_msg("c is %.17g, its gates say %.17g", c, g[H] * c_before + g[0] * g[2 * H]);
    want = g[3 * H] * tanh(c);
  } else if (cell != UNROLL_CELL_RNN)
    want = (1 - g[H]) * g[2 * H] + g[H] * before;
  if (fabs(h - want) > 1e-14)
    fail_msg("cell %d: h is %.17g, its gates say %.17g", cell, h, want);
}

/* With the context before the cell what the last product reads is the top layer's h. */
static void gates_are_those_of_the_states(void **state) {
  FOR_EACH_DEVICE(dev, *state, UNROLL_F64)
    for (size_t i = 0; i < sizeof cells / sizeof *cells; i++) {
      const int G = cells[i] == UNROLL_CELL_RNN ? 1 : cells[i] == UNROLL_CELL_LSTM ? 4 : 3, top = LAYERS - 1;
      char name[32];
      decoder *d = decoder_open(dev, cells[i], UNROLL_CONTEXT_BEFORE);
      double *h = model_get(&d->m, "hidden", STATE), *gates = model_get(&d->m, named(name, "gates", top), G * STATE);
      double *c = d->lstm ? model_get(&d->m, named(name, "c", top), STATE) : NULL;
      for (int k = 0; k < STATE; k++) {
        const int t = k / (B * H), b = k / H % B, unit = k % H, before = k - B * H;
        const double *const g = gates + (k / H) * G * H + unit;
        if (t >= lengths[b])
          assert_true(g[0] == 0 && g[(G - 1) * H] == 0);
        else
          check_unit(cells[i], g, t ? h[before] : 0, t && c ? c[before] : 0, h[k], c ? c[k] : 0);
      }
      free(h);
      free(gates);
      free(c);
      model_close(&d->m);
      unroll_graph_destroy(d->g);
    }
}

/* ---- wrong input ---- */

static unroll_graph *built(const unroll_rnn_state *taps, unroll_tensor *gates, bool search) {
  unroll_graph *g;
  assert_int_equal(unroll_graph_create(NULL, &g, NULL), UNROLL_OK);
  const unroll_rnn_options rnn = {
      .struct_size = sizeof rnn, .cell = UNROLL_CELL_GRU, .layers = 1, .hidden = H, .taps = taps, .gates = gates};
  if (taps && taps->h)
    taps->h[0] = unroll_input(g, "tap", UNROLL_F64, 3, (int64_t[]){T, B, H + 1});
  const unroll_decoder_options o = {.struct_size = sizeof o,
                                    .vocabulary = V,
                                    .embedding = X,
                                    .attention = UNROLL_ATTENTION_DOT,
                                    .source = unroll_input(g, "source", UNROLL_F64, 3, (int64_t[]){S, B, H}),
                                    .rnn = &rnn};
  const unroll_beam_options beam = {.struct_size = sizeof beam, .beam = 2, .steps = 3, .end = 1};
  const unroll_decoder_feed f = {.struct_size = sizeof f,
                                 .inputs = unroll_input(g, "inputs", UNROLL_I32, 2, (int64_t[]){T, B})};
  if (search)
    unroll_decode_beam("d", &o, &beam);
  else
    unroll_decode("d", &o, &f);
  return g;
}

static void refuses(unroll_graph *g, unroll_status status, const char *words) {
  unroll_error err = UNROLL_ERROR_INIT;
  assert_int_equal(unroll_graph_status(g, &err), status);
  if (!strstr(err.message, words))
    fail_msg("'%s' is not in '%s'", words, err.message);
  unroll_graph_destroy(g);
}

static void wrong_input(void **state) {
  (void)state;
  unroll_tensor tap, gates;
  const unroll_rnn_state taps = {&tap, NULL}, none = {NULL, NULL};
  refuses(built(&taps, NULL, false), UNROLL_E_SHAPE,
          "decode: the tap of h of layer 0 is tap f64 [5,3,5], expected f64 [T,3,4]");
  refuses(built(&none, NULL, true), UNROLL_E_INVALID, "beam search: taps are no option of a search");
  refuses(built(NULL, &gates, true), UNROLL_E_INVALID, "beam search: gates are no option of a search");
}

int main(void) {
  const struct CMUnitTest tests[] = {DEVICE_TESTS(taps_are_gradients_of_states),
                                     DEVICE_TESTS(gates_are_those_of_the_states), cmocka_unit_test(wrong_input)};
  return cmocka_run_group_tests(tests, devices_open, devices_close);
}
