/* SPDX-License-Identifier: Apache-2.0 */
/* A decoder followed step by step, with the targets given. */
#include <stdio.h>
#include <string.h>

#include "train/translate_private.h"

struct followed {
  unroll_translator_steps steps; /* first: what the caller has */
  unroll_allocator allocator;
  int32_t *lengths;
  float *norms, *values;
};

void unroll_translator_steps_free(unroll_translator_steps *steps) {
  struct followed *f = (struct followed *)steps;
  if (!f)
    return;
  const unroll_allocator a = f->allocator;
  mem_free(&a, f->lengths);
  mem_free(&a, f->norms);
  mem_free(&a, f->values);
  mem_free(&a, f);
}

struct follow {
  unroll_translator *t;
  struct translator_data data;
  int64_t S, T, B;
  struct followed *to;
  unroll_binding *binding;
};

static int64_t longest(const unroll_sequences *x) {
  int64_t most = 1;
  for (int64_t i = 0; i < unroll_sequences_count(x); i++)
    most = unroll_sequences_lengths(x)[i] > most ? unroll_sequences_lengths(x)[i] : most;
  return most;
}

static unroll_status make_room(const struct follow *k, unroll_error *err) {
  struct followed *f = k->to;
  unroll_translator_steps *s = &f->steps;
  const unroll_recurrent *rnn = &k->t->options.rnn;
  *s = (unroll_translator_steps){.struct_size = sizeof *s,
                                 .layers = (int32_t)rnn->layers,
                                 .steps = k->T,
                                 .batch = k->B,
                                 .gates = unroll_gate_count(rnn->cell),
                                 .hidden = rnn->hidden};
  const uint64_t rows = (uint64_t)(s->layers * k->T * k->B);
  s->lengths = f->lengths = mem_array(&f->allocator, (uint64_t)k->B, sizeof *f->lengths);
  s->norms = f->norms = mem_array(&f->allocator, rows, sizeof *f->norms);
  s->values = f->values = mem_array(&f->allocator, rows * (uint64_t)(s->gates * s->hidden), sizeof *f->values);
  return f->lengths && f->norms && f->values
             ? UNROLL_OK
             : fail(err, UNROLL_E_MEMORY, "no memory for %lld steps of %lld targets", (long long)k->T, (long long)k->B);
}

/* room, fed: [max(S,T)·B] each; items: all of them. */
static unroll_status write_texts(const struct follow *k, const int64_t *items, int32_t *room, int32_t *fed,
                                 unroll_error *err) {
  int32_t *const lengths = k->to->lengths;
  const int64_t T = k->T, B = k->B;
  const uint64_t bytes = (uint64_t)(T * B) * sizeof *room;
  TRY(translator_write_sources(k->data.sources, items, B, k->S, room, lengths, k->binding, err));
  TRY(unroll_binding_sync(k->binding, err));
  TRY(unroll_sequences_fill(k->data.targets, items, B, T, UNROLL_I32, -1, room, lengths, err));
  for (int64_t i = 0; i < T * B; i++)
    fed[i] = i < B ? translator_end(k->t) : room[i - B] < 0 ? 0 : room[i - B];
  TRY(unroll_binding_write(k->binding, "inputs", fed, bytes, err));
  TRY(unroll_binding_write(k->binding, "targets", room, bytes, err));
  return unroll_binding_write(k->binding, "target_lengths", lengths, (uint64_t)B * sizeof *lengths, err);
}

static unroll_status read_steps(const struct follow *k, unroll_error *err) {
  const unroll_translator_steps *s = &k->to->steps;
  const uint64_t rows = (uint64_t)(k->T * k->B), wide = rows * (uint64_t)(s->gates * s->hidden);
  char name[32];
  for (int32_t l = 0; l < s->layers; l++) {
    float *const norms = k->to->norms + (uint64_t)l * rows, *const values = k->to->values + (uint64_t)l * wide;
    snprintf(name, sizeof name, "norm %d", l);
    TRY(unroll_binding_read(k->binding, name, norms, rows * sizeof *norms, err));
    snprintf(name, sizeof name, "gates %d", l);
    TRY(unroll_binding_read(k->binding, name, values, wide * sizeof *values, err));
  }
  return UNROLL_OK;
}

static unroll_status run(const struct follow *k, unroll_error *err) {
  const unroll_allocator *a = &k->to->allocator;
  const uint64_t most = (uint64_t)((k->S > k->T ? k->S : k->T) * k->B);
  int64_t *const items = mem_array(a, (uint64_t)k->B, sizeof *items);
  int32_t *const room = mem_array(a, 2 * most, sizeof *room);
  unroll_status status =
      items && room ? UNROLL_OK : fail(err, UNROLL_E_MEMORY, "no memory for %lld targets", (long long)k->B);
  for (int64_t i = 0; i < k->B && items; i++)
    items[i] = i;
  if (status == UNROLL_OK)
    status = write_texts(k, items, room, room + most, err);
  if (status == UNROLL_OK)
    status = unroll_run(k->binding, NULL, err);
  if (status == UNROLL_OK)
    status = read_steps(k, err);
  mem_free(a, items);
  mem_free(a, room);
  return status;
}

static unroll_status follow(struct follow *k, unroll_error *err) {
  unroll_graph *graph;
  struct trainer_program program;
  k->S = longest(k->data.sources);
  k->T = longest(k->data.targets);
  TRY(make_room(k, err));
  TRY(translator_graph_steps(k->t, k->S, k->T, k->B, &graph, err));
  TRY(trainer_program_make(&k->t->trainer, graph, &program, err));
  unroll_status status = trainer_program_parameters(&k->t->trainer, &program, err);
  k->binding = program.binding;
  if (status == UNROLL_OK)
    status = run(k, err);
  trainer_program_free(&program);
  return status;
}

unroll_status unroll_translator_follow(unroll_translator *t, const char *const *sources, const char *const *targets,
                                       int64_t n, unroll_translator_steps **steps, unroll_error *err) {
  if (!t || !sources || !targets || !steps)
    return fail(err, UNROLL_E_INVALID, "unroll_translator_follow: %s is NULL",
                !t         ? "the model"
                : !sources ? "sources"
                : !targets ? "targets"
                           : "steps");
  *steps = NULL;
  if (n < 1)
    return fail(err, UNROLL_E_INVALID, "unroll_translator_follow: %lld pairs, expected at least 1", (long long)n);
  TRY(trainer_not_busy(&t->trainer, "used", err));
  struct follow k = {.t = t, .B = n, .to = mem_zalloc(&t->trainer.allocator, sizeof *k.to)};
  if (!k.to)
    return fail(err, UNROLL_E_MEMORY, "no memory for what a decoder does");
  k.to->allocator = t->trainer.allocator;
  unroll_status status = translator_encode(t, sources, targets, n, &k.data, err);
  if (status == UNROLL_OK)
    status = follow(&k, err);
  translator_data_free(&k.data);
  if (status == UNROLL_OK)
    *steps = &k.to->steps;
  else
    unroll_translator_steps_free(&k.to->steps);
  return status;
}
