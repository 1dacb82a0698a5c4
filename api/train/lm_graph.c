/* SPDX-License-Identifier: Apache-2.0 */
/* The graphs of a language model. */
#include <stdio.h>
#include <string.h>

#include "train/lm_private.h"

/* The states of all layers. */
struct states {
  unroll_tensor h[TRAINER_MAX_LAYERS], c[TRAINER_MAX_LAYERS];
};

static struct states no_states(void) {
  struct states s;
  for (int l = 0; l < TRAINER_MAX_LAYERS; l++)
    s.h[l] = s.c[l] = unroll_none();
  return s;
}

static bool has_c(const unroll_lm *lm) { return trainer_rnn_has_c(&lm->options.rnn); }

/* The recurrent layers over x [T,B,E], from and to states. */
static unroll_tensor add_layers(const unroll_lm *lm, unroll_tensor x, bool training, struct states *from,
                                struct states *to) {
  unroll_rnn_options rnn = trainer_rnn_options(&lm->options.rnn, training);
  rnn.output_dropout = rnn.dropout;
  const unroll_rnn_state initial = {from->h, has_c(lm) ? from->c : NULL};
  unroll_rnn_state last = {to->h, has_c(lm) ? to->c : NULL};
  return unroll_rnn(x, "rnn", &rnn, &initial, &last);
}

/*
 * Up to the logits [T,B,V] of ids [T,B]. The states h.l and c.l are carried on from run to run: those after the first
 * `carried` of its steps; 0: after all.
 */
static unroll_tensor add_network(const unroll_lm *lm, struct trainer_build *b, unroll_tensor ids, int64_t carried) {
  const unroll_lm_options *o = &lm->options;
  const int64_t V = unroll_vocabulary_count(lm->vocabulary);
  const unroll_tensor_info info = unroll_tensor_describe(ids);
  const int64_t steps = info.shape[0], batch = info.shape[1];
  struct states now = no_states(), next = no_states(), last = no_states();
  for (int64_t l = 0; l < o->rnn.layers; l++) {
    char name[32];
    snprintf(name, sizeof name, "h.%d", (int)l);
    now.h[l] = trainer_state(b, name, batch, trainer_rnn_outputs(&o->rnn));
    snprintf(name, sizeof name, "c.%d", (int)l);
    if (has_c(lm))
      now.c[l] = trainer_state(b, name, batch, o->rnn.hidden);
  }
  const unroll_tensor x = unroll_embedding_layer(ids, "embedding", UNROLL_F32, V, o->embedding);
  unroll_tensor y;
  if (carried > 0 && carried < steps) {
    unroll_tensor part[2];
    part[0] = add_layers(lm, unroll_slice(x, 0, 0, carried), b->training, &now, &next);
    part[1] = add_layers(lm, unroll_slice(x, 0, carried, steps - carried), b->training, &next, &last);
    y = unroll_concat(part, 2, 0);
  } else
    y = add_layers(lm, x, b->training, &now, &next);
  for (int64_t l = 0; l < o->rnn.layers; l++) {
    trainer_carry_on(b, now.h[l], next.h[l]);
    if (has_c(lm))
      trainer_carry_on(b, now.c[l], next.c[l]);
  }
  if (o->tied)
    return unroll_linear_tied(y, unroll_graph_find(b->graph, "embedding.weight"), "linear", 1);
  return unroll_linear(y, "linear", V, 1);
}

struct trainer_loss lm_build(const void *owner, struct trainer_build *b) {
  const unroll_lm *lm = owner;
  const unroll_lm_options *o = &lm->options;
  const unroll_text_stream *s = lm->evaluated;
  int64_t T = b->training ? o->steps : s->T;
  const int64_t rows = b->training ? o->training.batch / b->parts : s->B;
  if (b->training && o->steps_start > 0)
    T = unroll_graph_dim(b->graph, "T", o->steps_start, o->steps);
  const int64_t shape[] = {T, rows};
  const unroll_tensor x = unroll_input(b->graph, "x", UNROLL_I32, 2, shape);
  const unroll_tensor targets = unroll_input(b->graph, "targets", UNROLL_I32, 2, shape);
  const unroll_tensor logits = add_network(lm, b, x, b->training ? o->update_steps : 0);
  return (struct trainer_loss){unroll_cross_entropy(logits, targets, UNROLL_LOSS_MEAN), unroll_none(), unroll_none()};
}

unroll_status lm_graph_sample(const unroll_lm *lm, bool greedy, int64_t top_k, unroll_graph **graph,
                              unroll_error *err) {
  const int64_t V = unroll_vocabulary_count(lm->vocabulary);
  struct trainer_build b = {.training = false, .parts = 1};
  TRY(unroll_graph_create(&lm->trainer.allocator, &b.graph, err));
  const unroll_tensor id = unroll_state(b.graph, "id", UNROLL_I32, 2, (int64_t[]){1, 1});
  unroll_tensor logits = unroll_reshape(add_network(lm, &b, id, 0), 2, (int64_t[]){1, V});
  trainer_update_carries(&b);
  unroll_tensor next;
  if (greedy)
    next = unroll_argmax(logits);
  else
    next = unroll_categorical(unroll_div(logits, unroll_input(b.graph, "temperature", UNROLL_F32, 0, NULL)), top_k);
  unroll_update(id, unroll_reshape(next, 2, (int64_t[]){1, 1}));
  trainer_history(&b, "ids", next, unroll_none());
  return trainer_graph_finish(b.graph, graph, err);
}

unroll_status lm_program_reset(const unroll_lm *lm, unroll_binding *binding, unroll_error *err) {
  for (int64_t l = 0; l < lm->options.rnn.layers; l++) {
    char name[32];
    snprintf(name, sizeof name, "h.%d", (int)l);
    TRY(unroll_binding_clear(binding, name, err));
    if (!has_c(lm))
      continue;
    snprintf(name, sizeof name, "c.%d", (int)l);
    TRY(unroll_binding_clear(binding, name, err));
  }
  return UNROLL_OK;
}
