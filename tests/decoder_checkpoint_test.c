/* SPDX-License-Identifier: Apache-2.0 */
/* A decoder whose steps are made once more for its gradient, on every device. */
#include "devices.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unroll/seq2seq.h>

/* A taught decoder over three blocks of steps, whose masks and source stand outside of the loop; policy or NULL. */
enum { H = 3, LONG = 24, ROWS = 64, KEPT = 7 };
static const char *const kept_names[KEPT] = {
    "logits",         "grad.d.W_x.0.0",      "grad.d.W_h.0.0",      "grad.d.ln_x.0.0",
    "grad.d.W_c.0.0", "grad.d.embed.weight", "grad.d.attention.U_a"};
static model open_long(const unroll_checkpoint_policy *policy, unroll_device *dev) {
  unroll_graph *g;
  assert_int_equal(unroll_graph_create(NULL, &g, NULL), UNROLL_OK);
  const int64_t rows = ROWS;
  const unroll_rnn_options cells = {.struct_size = sizeof cells,
                                    .cell = UNROLL_CELL_LSTM,
                                    .layers = 1,
                                    .hidden = H,
                                    .layer_norm = 1,
                                    .zoneout_h = 0.25,
                                    .zoneout_c = 0.25,
                                    .state_dropout = 0.25,
                                    .input_dropout = 0.25,
                                    .checkpoint = policy};
  const unroll_decoder_options o = {.struct_size = sizeof o,
                                    .vocabulary = 5,
                                    .embedding = 2,
                                    .attention = UNROLL_ATTENTION_ADDITIVE,
                                    .source = unroll_input(g, "source", UNROLL_F32, 3, (int64_t[]){2, ROWS, 3}),
                                    .rnn = &cells};
  const unroll_decoder_feed f = {.struct_size = sizeof f,
                                 .inputs = unroll_input(g, "inputs", UNROLL_I32, 2, (int64_t[]){LONG, ROWS}),
                                 .lengths = unroll_input(g, "lengths", UNROLL_I32, 1, &rows)};
  unroll_tensor x[KEPT], dx[KEPT];
  const unroll_tensor logits = unroll_output(unroll_decode("d", &o, &f).logits, kept_names[0]);
  for (int i = 1; i < KEPT; i++)
    x[i] = unroll_graph_find(g, kept_names[i] + 5);
  unroll_gradient(unroll_reduce(logits, UNROLL_SUM_SQUARES, 0, 0), x + 1, KEPT - 1, dx + 1);
  for (int i = 1; i < KEPT; i++)
    unroll_output(dx[i], kept_names[i]);
  model m = model_open(g, dev, true);
  int32_t ids[LONG * ROWS], lengths[ROWS];
  for (int i = 0; i < LONG * ROWS; i++)
    ids[i] = (i * 7 + i / ROWS) % 5;
  for (int i = 0; i < ROWS; i++)
    lengths[i] = i % (LONG + 1);
  model_fill(&m, 0.7);
  model_put_i32(&m, "inputs", ids, LONG * ROWS);
  model_put_i32(&m, "lengths", lengths, ROWS);
  m.options.seed = 4;
  model_run(&m);
  return m;
}

static int scans(unroll_graph *g) {
  char *text;
  int n = 0;
  assert_int_equal(unroll_graph_dump(g, UNROLL_DUMP_TEXT, 0, &text, NULL), UNROLL_OK);
  for (const char *at = text; (at = strstr(at, " scan")); at += 4)
    n++;
  unroll_string_free(text);
  return n;
}

/* What is kept of a decoder's steps changes nothing: the same masks in steps that are made once more. */
static void checkpoints_change_nothing(void **state) {
  static const unroll_checkpoint_policy policy = {
      .struct_size = sizeof policy, .kind = UNROLL_CHECKPOINT_EVERY, .every = 8};
  FOR_EACH_DEVICE(dev, *state, UNROLL_F32) {
    model all = open_long(NULL, dev), few = open_long(&policy, dev);
    for (int i = 0; i < KEPT; i++) {
      const unroll_tensor_info info = unroll_tensor_describe(unroll_graph_find(all.graph, kept_names[i]));
      int64_t n = 1;
      for (int32_t k = 0; k < info.rank; k++)
        n *= info.shape[k];
      double *a = model_get(&all, kept_names[i], n), *b = model_get(&few, kept_names[i], n), sum = 0;
      for (int64_t k = 0; k < n; k++)
        sum += fabs(a[k]);
      assert_true(sum > 0);
      if (strncmp(unroll_device_id(dev), "cpu", 3) == 0)
        assert_memory_equal(a, b, (size_t)n * sizeof *a);
      else
        assert_close(kept_names[i], b, a, n, 2e-5); /* float32 sums over 24 steps of 64 rows, wherever they are cut */
      free(a);
      free(b);
    }
    unroll_graph *graphs[] = {all.graph, few.graph};
    assert_int_equal(scans(graphs[0]), 2); /* and its gradient */
    assert_true(scans(graphs[1]) > 6);     /* it was cut */
    model_close(&all);
    model_close(&few);
    unroll_graph_destroy(graphs[0]);
    unroll_graph_destroy(graphs[1]);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {DEVICE_TESTS(checkpoints_change_nothing)};
  return cmocka_run_group_tests(tests, devices_open, devices_close);
}
