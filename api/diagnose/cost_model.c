/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cost_model.c: what a batch costs a model. The graphs are the tasks' own: each is built once more, from a copy of the model
 * whose options have other sizes. Such a copy owns nothing, and is gone when the graph stands.
 */
#include <inttypes.h>
#include <string.h>

#include "diagnose/cost_private.h"
#include "train/classify_private.h"
#include "train/forecaster_private.h"
#include "train/lm_private.h"
#include "train/translate_private.h"

typedef struct asked {
  int64_t steps, batch;
  unroll_cost *forward, *update;
  unroll_cost_layers *layers;
  unroll_error *err;
} asked;

static unroll_status size_of(const char *what, int64_t given, int64_t standard, int64_t *size, unroll_error *err) {
  if (given < 0 || given > INT32_MAX)
    return fail(err, UNROLL_E_RANGE, "cost: %s = %" PRId64 ", expected 1 to %d, or 0 for the model's own", what, given,
                INT32_MAX);
  *size = given ? given : standard;
  return *size >= 1 ? UNROLL_OK : fail(err, UNROLL_E_RANGE, "cost: the model says no %s of its own", what);
}

static unroll_status sizes_of(asked *a, const void *model, int64_t steps, const unroll_training *training) {
  if (!model)
    return fail(a->err, UNROLL_E_INVALID, "cost: the model is NULL");
  if (a->layers && !UNROLL_HAS(unroll_cost_layers, a->layers, rnn))
    return fail(a->err, UNROLL_E_INVALID, "cost: layers.struct_size is %u, expected at least %zu",
                a->layers->struct_size, sizeof *a->layers);
  TRY(size_of("steps", a->steps, steps, &a->steps, a->err));
  return size_of("batch", a->batch, training->batch, &a->batch, a->err);
}

/* A trainer for graphs alone: whole batches, and no file of its own. */
static struct trainer trainer_of(const struct trainer *from, void *owner, int64_t batch) {
  struct trainer t = *from;
  t.owner = owner;
  t.options.batch = batch;
  t.options.accumulate = 1;
  return t;
}

static unroll_status cost_and_destroy(unroll_graph *g, unroll_cost *cost, unroll_error *err) {
  const unroll_status st = unroll_cost_of_graph(g, NULL, 0, cost, err);
  unroll_graph_destroy(g);
  return st;
}

/* Costs of the graphs of a copy; what its layers are. */
static unroll_status costs(const asked *a, const struct trainer *t, const unroll_rnn_options *rnn, int64_t input) {
  unroll_graph *g;
  if (a->forward) {
    TRY(trainer_graph_evaluate(t, 0, &g, a->err));
    TRY(cost_and_destroy(g, a->forward, a->err));
  }
  if (a->update) {
    struct trainer_build b;
    TRY(trainer_graph_train(t, 0, &b, a->err));
    TRY(cost_and_destroy(b.graph, a->update, a->err));
  }
  if (a->layers) {
    a->layers->steps = a->steps;
    a->layers->batch = a->batch;
    a->layers->input = input;
    a->layers->rnn = *rnn;
  }
  return UNROLL_OK;
}

unroll_status unroll_cost_of_lm(const unroll_lm *lm, int64_t steps, int64_t batch, unroll_cost *forward,
                                unroll_cost *update, unroll_cost_layers *layers, unroll_error *err) {
  asked a = {steps, batch, forward, update, layers, err};
  TRY(sizes_of(&a, lm, lm ? lm->options.steps : 0, lm ? &lm->trainer.options : NULL));
  unroll_lm copy = *lm;
  const unroll_text_stream stream = {.T = a.steps, .B = a.batch};
  copy.options.steps = a.steps;
  copy.options.steps_start = copy.options.update_steps = 0;
  copy.options.training.batch = a.batch;
  copy.evaluated = &stream;
  copy.trainer = trainer_of(&lm->trainer, &copy, a.batch);
  unroll_rnn_options rnn = trainer_rnn_options(&lm->options.rnn, true);
  rnn.output_dropout = rnn.dropout;
  return costs(&a, &copy.trainer, &rnn, lm->options.embedding);
}

unroll_status unroll_cost_of_classifier(const unroll_classifier *c, int64_t steps, int64_t batch, unroll_cost *forward,
                                        unroll_cost *update, unroll_cost_layers *layers, unroll_error *err) {
  asked a = {steps, batch, forward, update, layers, err};
  TRY(sizes_of(&a, c, c ? c->longest : 0, c ? &c->trainer.options : NULL));
  unroll_classifier copy = *c;
  const bool ragged = c->shortest < c->longest;
  const struct classifier_set set = {.rows = a.batch, .longest = a.steps, .ragged = ragged};
  copy.longest = a.steps;
  copy.shortest = ragged ? a.steps - 1 : a.steps;
  copy.options.training.batch = a.batch;
  copy.evaluated = &set;
  copy.trainer = trainer_of(&c->trainer, &copy, a.batch);
  unroll_rnn_options rnn = trainer_rnn_options(&c->options.rnn, true);
  rnn.bidirectional = c->options.bidirectional;
  return costs(&a, &copy.trainer, &rnn, c->features);
}

unroll_status unroll_cost_of_forecaster(const unroll_forecaster *f, int64_t steps, int64_t batch, unroll_cost *forward,
                                        unroll_cost *update, unroll_cost_layers *layers, unroll_error *err) {
  asked a = {steps, batch, forward, update, layers, err};
  TRY(sizes_of(&a, f, f ? f->options.lags : 0, f ? &f->trainer.options : NULL));
  unroll_forecaster copy = *f;
  copy.options.lags = a.steps;
  copy.options.training.batch = a.batch;
  copy.validation = (struct forecaster_set){.rows = a.batch};
  copy.trainer = trainer_of(&f->trainer, &copy, a.batch);
  const unroll_rnn_options rnn = trainer_rnn_options(&f->options.rnn, true);
  return costs(&a, &copy.trainer, &rnn, 1);
}

unroll_status unroll_cost_of_translator(const unroll_translator *t, int64_t steps, int64_t batch, unroll_cost *forward,
                                        unroll_cost *update, unroll_cost_layers *layers, unroll_error *err) {
  asked a = {steps, batch, forward, update, layers, err};
  TRY(sizes_of(&a, t, t && t->n_classes ? t->classes[t->n_classes - 1].source : 0, t ? &t->trainer.options : NULL));
  unroll_translator copy = *t;
  copy.classes[0] = (struct translator_class){a.steps, a.steps};
  copy.n_classes = 1;
  copy.validation_rows = a.batch;
  copy.reinforce = (struct translator_reinforce){.baseline = 0};
  copy.options.training.batch = a.batch;
  copy.trainer = trainer_of(&t->trainer, &copy, a.batch);
  const unroll_recurrent cells = translator_encoder_cells(&t->options);
  unroll_rnn_options rnn = trainer_rnn_options(&cells, true);
  rnn.checkpoint = rnn.checkpoint ? &t->options.rnn.checkpoint : NULL; /* lives longer than the copy's */
  rnn.bidirectional = t->options.bidirectional;
  rnn.output_dropout = t->options.rnn.dropout;
  return costs(&a, &copy.trainer, &rnn, t->options.embedding);
}
