/* SPDX-License-Identifier: Apache-2.0 */
/* A translator's graphs. */
#include <stdio.h>

#include "train/translate_private.h"

/* What the encoder hands to the decoder. */
struct encoded {
  unroll_tensor source, lengths;                              /* [S,B,E], i32 [B] */
  unroll_tensor h[TRAINER_MAX_LAYERS], c[TRAINER_MAX_LAYERS]; /* the decoder's first states */
};

static void encode(const unroll_translator *t, unroll_graph *g, int64_t S, int64_t rows, bool training,
                   struct encoded *e) {
  const unroll_translator_options *o = &t->options;
  const int32_t D = o->bidirectional ? 2 : 1;
  const unroll_tensor ids = unroll_input(g, "source", UNROLL_I32, 2, (int64_t[]){S, rows});
  e->lengths = unroll_input(g, "source_lengths", UNROLL_I32, 1, &rows);
  const unroll_recurrent cells = translator_encoder_cells(o), decoder = translator_decoder_cells(o);
  unroll_rnn_options rnn = trainer_rnn_options(&cells, training);
  rnn.bidirectional = o->bidirectional;
  rnn.output_dropout = o->rnn.dropout;
  rnn.lengths = e->lengths;
  unroll_tensor h[2 * TRAINER_MAX_LAYERS], c[2 * TRAINER_MAX_LAYERS];
  for (int i = 0; i < 2 * TRAINER_MAX_LAYERS; i++)
    h[i] = c[i] = unroll_none();
  for (int i = 0; i < TRAINER_MAX_LAYERS; i++)
    e->h[i] = e->c[i] = unroll_none();
  const bool has_c = trainer_rnn_has_c(&o->rnn);
  unroll_rnn_state last = {h, has_c ? c : NULL}, first = {e->h, e->c};
  const unroll_tensor embedded =
      unroll_embedding_layer(ids, "embed", UNROLL_F32, unroll_tokens_count(t->sources), o->embedding);
  e->source = unroll_rnn(embedded, "encoder", &rnn, NULL, &last);
  const unroll_rnn_state last_h = {h, NULL}, last_c = {NULL, c}; /* which may differ in width */
  unroll_bridge(&last_h, (int32_t)o->rnn.layers, D, "bridge", trainer_rnn_outputs(&decoder), &first);
  if (has_c)
    unroll_bridge(&last_c, (int32_t)o->rnn.layers, D, "bridge", decoder.hidden, &first);
}

/* The decoder's cells; plain ones have no option but the dropout of what goes in and out. Steps of targets are a run-time
 * size, which no plan of checkpoints knows. */
static unroll_rnn_options decoder_cells(const unroll_translator_options *o, bool training) {
  unroll_recurrent cells = translator_decoder_cells(o);
  cells.checkpoint.kind = UNROLL_CHECKPOINT_ALL;
  unroll_rnn_options rnn = trainer_rnn_options(&cells, training);
  rnn.input_dropout = cells.input_dropout > 0 ? cells.input_dropout : cells.dropout;
  rnn.output_dropout = cells.dropout;
  return rnn;
}

/* e and cells are pointed to. */
static unroll_decoder_options decoder_options(const unroll_translator *t, struct encoded *e,
                                              const unroll_rnn_options *cells) {
  const unroll_translator_options *o = &t->options;
  return (unroll_decoder_options){.struct_size = sizeof(unroll_decoder_options),
                                  .vocabulary = unroll_tokens_count(t->targets),
                                  .embedding = o->embedding,
                                  .attention = o->attention,
                                  .context = o->context,
                                  .attention_units = o->attention_units,
                                  .source = e->source,
                                  .source_lengths = e->lengths,
                                  .initial = {e->h, e->c},
                                  .rnn = cells};
}

static unroll_decoder_feed teacher(unroll_graph *g, const int64_t shape[2], bool ragged) {
  return (unroll_decoder_feed){.struct_size = sizeof(unroll_decoder_feed),
                               .kind = UNROLL_FEED_TEACHER,
                               .inputs = unroll_input(g, "inputs", UNROLL_I32, 2, shape),
                               .lengths = ragged ? unroll_input(g, "target_lengths", UNROLL_I32, 1, &shape[1])
                                                 : unroll_none()};
}

static unroll_tensor real(unroll_graph *g, double value) { return unroll_constant(g, UNROLL_F32, 0, NULL, value); }

/* Rows without a pair have targets of -1, which count for nothing. */
static struct trainer_loss cross_entropy(unroll_graph *g, unroll_tensor logits, unroll_tensor targets) {
  const unroll_tensor zero = unroll_constant(g, UNROLL_I32, 0, NULL, 0);
  const unroll_tensor known = unroll_cast(unroll_binary(targets, zero, UNROLL_GE), UNROLL_F32);
  const unroll_tensor right = unroll_cast(unroll_binary(unroll_argmax(logits), targets, UNROLL_EQ), UNROLL_F32);
  const unroll_tensor count = unroll_reduce(known, UNROLL_SUM, 0, 0);
  const unroll_tensor hits = unroll_reduce(unroll_mul(right, known), UNROLL_SUM, 0, 0);
  return (struct trainer_loss){.loss = unroll_cross_entropy(logits, targets, UNROLL_LOSS_MEAN),
                               .weight = count,
                               .metric = unroll_div(hits, unroll_binary(count, real(g, 1), UNROLL_MAX))};
}

/* Rows without a pair have a source of length 0. */
static struct trainer_loss surrogate(unroll_graph *g, unroll_tensor logits, unroll_tensor targets, int64_t rows,
                                     unroll_tensor source_lengths) {
  const unroll_tensor reward = unroll_input(g, "reward", UNROLL_F32, 1, &rows);
  const unroll_tensor baseline = unroll_input(g, "baseline", UNROLL_F32, 1, &rows);
  const unroll_tensor zero = unroll_constant(g, UNROLL_I32, 0, NULL, 0);
  const unroll_tensor there = unroll_cast(unroll_binary(source_lengths, zero, UNROLL_GT), UNROLL_F32);
  const unroll_tensor count = unroll_reduce(there, UNROLL_SUM, 0, 0);
  const unroll_tensor share = unroll_unary(unroll_binary(count, real(g, 1), UNROLL_MAX), UNROLL_RECIPROCAL);
  const unroll_tensor log_prob = unroll_mul(unroll_sequence_log_prob(logits, targets), there);
  const unroll_tensor sum = unroll_reinforce_loss(log_prob, reward, baseline, UNROLL_LOSS_SUM);
  return (struct trainer_loss){.loss = unroll_mul(sum, share),
                               .weight = count,
                               .metric = unroll_mul(unroll_reduce(unroll_mul(reward, there), UNROLL_SUM, 0, 0), share)};
}

struct trainer_loss translator_build(const void *owner, struct trainer_build *b) {
  const unroll_translator *t = owner;
  const unroll_translator_options *o = &t->options;
  unroll_graph *g = b->graph;
  const struct translator_class *k = &t->classes[b->variant];
  const bool reinforced = b->training && t->reinforce.baseline;
  const int64_t rows = b->training ? o->training.batch / b->parts : t->validation_rows;
  const int64_t most = reinforced ? translator_steps(t, k->source) : k->target;
  const bool drops = b->training && !reinforced;
  struct encoded e;
  encode(t, g, k->source, rows, drops, &e);
  const int64_t shape[2] = {unroll_graph_dim(g, "T", 1, most), rows};
  const unroll_rnn_options cells = decoder_cells(o, drops);
  const unroll_decoder_options decoder = decoder_options(t, &e, &cells);
  unroll_decoder_feed feed = teacher(g, shape, !reinforced);
  const unroll_tensor targets = unroll_input(g, "targets", UNROLL_I32, 2, shape);
  if (drops && translator_samples(o)) {
    feed.kind = UNROLL_FEED_SCHEDULED;
    feed.epsilon = unroll_input(g, "epsilon", UNROLL_F32, 0, NULL);
    feed.pick = o->sampling_pick;
  }
  const unroll_tensor logits = unroll_decode("decoder", &decoder, &feed).logits;
  return reinforced ? surrogate(g, logits, targets, rows, e.lengths) : cross_entropy(g, logits, targets);
}

unroll_status translator_graph_program(const unroll_translator *t, const struct translator_program *p,
                                       unroll_graph **graph, unroll_error *err) {
  unroll_graph *g;
  struct encoded e;
  const int32_t end = translator_end(t);
  TRY(unroll_graph_create(&t->trainer.allocator, &g, err));
  encode(t, g, p->source, p->rows, false, &e);
  const unroll_rnn_options cells = decoder_cells(&t->options, false);
  const unroll_decoder_options decoder = decoder_options(t, &e, &cells);
  if (p->forced) {
    const int64_t shape[2] = {p->steps, p->rows};
    const unroll_decoder_feed feed = teacher(g, shape, true);
    const unroll_decoder_outputs out = unroll_decode("decoder", &decoder, &feed);
    unroll_output(out.weights, "weights");
    unroll_output(unroll_sequence_log_prob(out.logits, unroll_input(g, "targets", UNROLL_I32, 2, shape)), "log_prob");
  } else if (p->way.beam > 0) {
    const unroll_beam_options beam = {.struct_size = sizeof beam,
                                      .beam = p->way.beam,
                                      .steps = p->steps,
                                      .begin = end,
                                      .end = end,
                                      .pad = -1,
                                      .alpha = p->way.alpha};
    const unroll_beam_outputs out = unroll_decode_beam("decoder", &decoder, &beam);
    unroll_output(out.ids, "ids");
    unroll_output(out.lengths, "lengths");
    unroll_output(out.log_probs, "log_prob");
  } else {
    const unroll_decoder_feed feed = {.struct_size = sizeof feed,
                                      .kind = UNROLL_FEED_FREE,
                                      .steps = p->steps,
                                      .begin = end,
                                      .end = end,
                                      .pad = -1,
                                      .pick = p->way.sampled ? UNROLL_PICK_SAMPLE : UNROLL_PICK_GREEDY,
                                      .temperature = p->way.temperature,
                                      .top_k = p->way.top_k,
                                      .top_p = p->way.top_p};
    const unroll_decoder_outputs out = unroll_decode("decoder", &decoder, &feed);
    unroll_output(out.ids, "ids");
    unroll_output(out.lengths, "lengths");
    unroll_output(unroll_sequence_log_prob(out.logits, out.ids), "log_prob");
  }
  return trainer_graph_finish(g, graph, err);
}

static void output(unroll_tensor x, const char *what, int32_t layer) {
  char name[32];
  snprintf(name, sizeof name, "%s %d", what, layer);
  unroll_output(x, name);
}

unroll_status translator_graph_steps(const unroll_translator *t, int64_t S, int64_t T, int64_t B, unroll_graph **graph,
                                     unroll_error *err) {
  unroll_graph *g;
  struct encoded e;
  const int32_t layers = (int32_t)t->options.rnn.layers;
  const int64_t shape[2] = {T, B};
  unroll_tensor taps[TRAINER_MAX_LAYERS], d[TRAINER_MAX_LAYERS], gates[TRAINER_MAX_LAYERS];
  const unroll_rnn_state tapped = {taps, NULL};
  TRY(unroll_graph_create(&t->trainer.allocator, &g, err));
  encode(t, g, S, B, false, &e);
  unroll_rnn_options cells = decoder_cells(&t->options, false);
  for (int32_t l = 0; l < layers && unroll_graph_status(g, NULL) == UNROLL_OK; l++)
    taps[l] = unroll_constant(g, UNROLL_F32, 3, (int64_t[]){T, B, unroll_tensor_describe(e.h[l]).shape[1]}, 0);
  cells.taps = &tapped;
  cells.gates = gates;
  const unroll_decoder_options decoder = decoder_options(t, &e, &cells);
  const unroll_decoder_feed feed = teacher(g, shape, true);
  const unroll_decoder_outputs out = unroll_decode("decoder", &decoder, &feed);
  const unroll_tensor targets = unroll_input(g, "targets", UNROLL_I32, 2, shape);
  unroll_gradient(cross_entropy(g, out.logits, targets).loss, taps, (uint32_t)layers, d);
  for (int32_t l = 0; l < layers && unroll_graph_status(g, NULL) == UNROLL_OK; l++) {
    output(gates[l], "gates", l);
    output(unroll_unary(unroll_reduce(d[l], UNROLL_SUM_SQUARES, 1u << 2, 0), UNROLL_SQRT), "norm", l);
  }
  return trainer_graph_finish(g, graph, err);
}
