/* SPDX-License-Identifier: Apache-2.0 */
/* A classifier's options and graphs. */
#include "train/classify_private.h"

const char *unroll_scaling_name(int32_t scaling) {
  switch (scaling) {
#define NAME_OF(name, value, text) \
  case name: return text;
    UNROLL_SCALINGS(NAME_OF)
#undef NAME_OF
  default: return NULL;
  }
}

unroll_classifier_options unroll_classifier_options_default(void) {
  return (unroll_classifier_options){.struct_size = sizeof(unroll_classifier_options),
                                     .rnn = {.cell = UNROLL_CELL_GRU, .layers = 1, .hidden = 64},
                                     .training = unroll_training_default()};
}

unroll_status classifier_options_check(const unroll_classifier_options *o, int64_t longest, int64_t F, int64_t C,
                                       unroll_error *err) {
  TRY(trainer_rnn_check(&o->rnn, err));
  TRY(trainer_rnn_check_input(&o->rnn, F, o->bidirectional, err));
  if (!unroll_scaling_name(o->scaling))
    return fail(err, UNROLL_E_INVALID, "scaling %d, 0 to %d are known", o->scaling, UNROLL_SCALING_COUNT - 1);
  TRY(trainer_options_check(&o->training, err));
  int64_t widest = trainer_rnn_width(&o->rnn);
  widest = widest < F ? F : widest;
  widest = widest < C ? C : widest;
  if (longest > INT32_MAX / widest / o->training.batch)
    return fail(err, UNROLL_E_INVALID,
                "batch %lld times %lld, the longest sequence, times %lld, the model's widest tensor, is past 2^31-1",
                (long long)o->training.batch, (long long)longest, (long long)widest);
  return UNROLL_OK;
}

/* ---- graphs ---- */

/* y [T,rows,N] of one direction at the end of each sequence, of a reverse one at its beginning: [rows,N] */
static unroll_tensor last_output(unroll_tensor y, unroll_tensor lengths, int32_t direction) {
  const unroll_tensor_info info = unroll_tensor_describe(y);
  unroll_scan *scan = unroll_scan_begin(y.graph, direction, lengths);
  const unroll_tensor carry = unroll_scan_carry(scan, unroll_constant(y.graph, UNROLL_F32, 2, info.shape + 1, 0));
  unroll_scan_next(scan, carry, unroll_scan_input(scan, y));
  const unroll_tensor last = unroll_scan_last(scan, carry);
  unroll_scan_end(scan);
  return last;
}

/* Up to the logits [rows,C]. */
static unroll_tensor add_network(const unroll_classifier *c, unroll_graph *g, int64_t rows, int64_t longest,
                                 bool ragged, bool training) {
  const unroll_classifier_options *o = &c->options;
  const int64_t T = ragged ? unroll_graph_dim(g, "T", 1, longest) : longest;
  const int64_t D = o->bidirectional ? 2 : 1, P = trainer_rnn_outputs(&o->rnn);
  const unroll_tensor x = unroll_input(g, "x", UNROLL_F32, 3, (int64_t[]){T, rows, c->features});
  unroll_rnn_options rnn = trainer_rnn_options(&o->rnn, training);
  rnn.bidirectional = o->bidirectional;
  if (ragged)
    rnn.lengths = unroll_input(g, "lengths", UNROLL_I32, 1, &rows);
  unroll_tensor h[2 * TRAINER_MAX_LAYERS];
  for (int i = 0; i < 2 * TRAINER_MAX_LAYERS; i++)
    h[i] = unroll_none();
  unroll_rnn_state last = {h, NULL};
  unroll_tensor y = unroll_rnn(x, "rnn", &rnn, NULL, &last);
  const unroll_tensor *top = h + (o->rnn.layers - 1) * D;
  /* The last states, but where a connection goes around the last layer: then what comes out of both. */
  if (o->rnn.residual == UNROLL_RESIDUAL_OUTPUTS) {
    unroll_tensor ends[2];
    for (int32_t d = 0; d < D; d++)
      ends[d] =
          last_output(D == 2 ? unroll_slice(y, 2, d * P, P) : y, rnn.lengths, d ? UNROLL_REVERSE : UNROLL_FORWARD);
    y = D == 2 ? unroll_concat(ends, 2, 1) : ends[0];
  } else
    y = D == 2 ? unroll_concat(top, 2, 1) : top[0];
  const double dropout = o->rnn.dropout;
  if (training && dropout > 0) {
    y = unroll_dropout(unroll_reshape(y, 3, (int64_t[]){1, rows, D * P}), dropout);
    y = unroll_reshape(y, 2, (int64_t[]){rows, D * P});
  }
  return unroll_linear(y, "linear", classifier_classes(c), 1);
}

/* Rows without a label, -1, count for nothing. */
struct trainer_loss classifier_build(const void *owner, struct trainer_build *b) {
  const unroll_classifier *c = owner;
  unroll_graph *g = b->graph;
  const int64_t rows = b->training ? c->options.training.batch / b->parts : c->evaluated->rows;
  const int64_t longest = b->training ? c->longest : c->evaluated->longest;
  const bool ragged = b->training ? c->shortest < c->longest : c->evaluated->ragged;
  const unroll_tensor labels = unroll_input(g, "labels", UNROLL_I32, 1, &rows);
  const unroll_tensor logits = add_network(c, g, rows, longest, ragged, b->training);
  const unroll_tensor zero = unroll_constant(g, UNROLL_I32, 0, NULL, 0),
                      one = unroll_constant(g, UNROLL_F32, 0, NULL, 1);
  const unroll_tensor known = unroll_cast(unroll_binary(labels, zero, UNROLL_GE), UNROLL_F32);
  const unroll_tensor right = unroll_cast(unroll_binary(unroll_argmax(logits), labels, UNROLL_EQ), UNROLL_F32);
  const unroll_tensor count = unroll_reduce(known, UNROLL_SUM, 0, 0);
  const unroll_tensor hits = unroll_reduce(unroll_mul(right, known), UNROLL_SUM, 0, 0);
  return (struct trainer_loss){.loss = unroll_cross_entropy(logits, labels, UNROLL_LOSS_MEAN),
                               .weight = count,
                               .metric = unroll_div(hits, unroll_binary(count, one, UNROLL_MAX))};
}

unroll_status classifier_graph_predict(const unroll_classifier *c, unroll_graph **graph, unroll_error *err) {
  const struct classifier_set *s = c->evaluated;
  unroll_graph *g;
  TRY(unroll_graph_create(&c->trainer.allocator, &g, err));
  unroll_output(unroll_log_softmax(add_network(c, g, s->rows, s->longest, s->ragged, false)), "classes");
  return trainer_graph_finish(g, graph, err);
}
