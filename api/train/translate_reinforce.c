/* SPDX-License-Identifier: Apache-2.0 */
/* REINFORCE: translations are sampled on the device, judged here, and learnt from by the trainer. */
#include <math.h>
#include <string.h>

#include "nn/nn_private.h"
#include "train/translate_private.h"

/* Whose translations are judged. */
struct judge {
  const unroll_translator *t;
  const int64_t *items;
};

/* Minus the edit distance to the target by its length. A row without a pair has what changes no mean. */
static double reward_of(void *ctx, int64_t row, const int32_t *ids, int64_t n) {
  const struct judge *j = ctx;
  const unroll_sequences *targets = j->t->data.targets;
  const int64_t item = j->items[row];
  if (item < 0)
    return j->t->reinforce.value;
  const int32_t length = unroll_sequences_lengths(targets)[item] - 1;
  if (n > 0 && ids[n - 1] == translator_end(j->t))
    n--;
  const int64_t distance = unroll_edit_distance(ids, n, unroll_sequences_ids(targets, item), length);
  return distance < 0 ? (double)NAN : -(double)distance / (double)length;
}

/* The rewards of greedy translations, [rows], which is freed by the caller. */
static unroll_status greedy_rewards(unroll_translator *t, struct judge *judge, int64_t rows, uint32_t v,
                                    float **rewards, unroll_error *err) {
  const unroll_allocator *a = &t->trainer.allocator;
  const struct translator_way greedy = {.beam = 0};
  const int64_t S = t->classes[v].source, T = translator_steps(t, S);
  const uint64_t B = (uint64_t)rows, n = (uint64_t)T * B;
  struct translator_program *p;
  TRY(translator_program(t, &greedy, false, rows, S, T, &p, err));
  unroll_binding *b = p->program.binding;
  TRY(translator_write_sources(t->data.sources, judge->items, rows, S, t->source, t->lengths[0], b, err));
  TRY(unroll_run(b, NULL, err));
  int32_t *ids = mem_array(a, n + B + (uint64_t)T, sizeof *ids), *lengths = ids + n, *row = lengths + B;
  *rewards = mem_array(a, B, sizeof **rewards);
  unroll_status status = UNROLL_OK;
  if (!ids || !*rewards)
    status = fail(err, UNROLL_E_MEMORY, "no memory for the baseline of %lld rows", (long long)rows);
  if (status == UNROLL_OK)
    status = unroll_binding_read(b, "ids", ids, n * sizeof *ids, err);
  if (status == UNROLL_OK)
    status = unroll_binding_read(b, "lengths", lengths, B * sizeof *lengths, err);
  for (int64_t r = 0; r < rows && status == UNROLL_OK; r++) {
    for (int64_t i = 0; i < lengths[r]; i++)
      row[i] = ids[i * rows + r];
    (*rewards)[r] = (float)reward_of(judge, r, row, lengths[r]);
  }
  mem_free(a, ids);
  if (status != UNROLL_OK) {
    mem_free(a, *rewards);
    *rewards = NULL;
  }
  return status;
}

unroll_status translator_reinforce_feed(unroll_translator *t, const struct trainer_place *place, const int64_t *items,
                                        int64_t rows, uint32_t v, unroll_binding *b, struct trainer_feed *feed,
                                        unroll_error *err) {
  struct translator_reinforce *m = &t->reinforce;
  const int64_t S = t->classes[v].source, T = translator_steps(t, S);
  const struct translator_way drawn = {.sampled = 1, .temperature = 1};
  struct judge judge = {t, items};
  float *baselines = NULL;
  struct translator_program *p;
  if (m->baseline == UNROLL_BASELINE_GREEDY)
    TRY(greedy_rewards(t, &judge, rows, v, &baselines, err));
  int64_t steps = 0;
  unroll_reinforce r = {.struct_size = sizeof r,
                        .ids = "ids",
                        .lengths = "lengths",
                        .learner = b,
                        .inputs = "inputs",
                        .targets = "targets",
                        .reward = "reward",
                        .baseline = "baseline",
                        .steps = T,
                        .batch = rows,
                        .begin = translator_end(t),
                        .reward_of = reward_of,
                        .ctx = &judge,
                        .decay = m->decay,
                        .value = m->value,
                        .seen = m->seen};
  const unroll_run_options run = {
      .struct_size = sizeof run, .seed = m->seed, .update = place->update, .row0 = feed->row0};
  unroll_status status = translator_program(t, &drawn, false, rows, S, T, &p, err);
  if (status == UNROLL_OK) {
    r.sampler = p->program.binding;
    status = translator_write_sources(t->data.sources, items, rows, S, t->source, t->lengths[0], r.sampler, err);
  }
  if (status == UNROLL_OK)
    status = nn_reinforce_prepare(&r, &run, baselines, &steps, NULL, err);
  mem_free(&t->trainer.allocator, baselines);
  TRY(status);
  m->value = r.value;
  m->seen = r.seen;
  feed->dims[feed->n_dims++] = steps;
  for (int64_t k = 0; k < rows; k++)
    feed->items += t->lengths[0][k] > 0 ? t->lengths[0][k] + steps : 0;
  return translator_write_sources(t->data.sources, items, rows, S, t->source, t->lengths[0], b, err);
}

unroll_status translator_reinforce_evaluate(void *owner, double *loss, double *metric, unroll_error *err) {
  unroll_translator *t = owner;
  const unroll_translate_options greedy = {.struct_size = sizeof greedy};
  const int64_t n = t->counts[UNROLL_VALIDATION], *items = t->order + t->counts[UNROLL_TRAINING];
  struct translator_found f;
  struct judge judge = {t, items};
  double sum = 0;
  TRY(translator_find(t, t->data.sources, items, n, &greedy, &f, err));
  for (int64_t k = 0; k < n; k++)
    sum += reward_of(&judge, k, f.ids + f.starts[k], f.lengths[k]);
  translator_found_free(t, &f);
  *metric = sum / (double)n;
  *loss = -*metric;
  return UNROLL_OK;
}

unroll_status translator_reinforce_check(const struct translator_reinforce *r, unroll_error *err) {
  if (r->baseline != UNROLL_BASELINE_MEAN && r->baseline != UNROLL_BASELINE_GREEDY)
    return fail(err, UNROLL_E_INVALID, "baseline %d, expected UNROLL_BASELINE_MEAN or _GREEDY", r->baseline);
  return trainer_check_real("the baseline's decay", r->decay, 0, 1, err);
}

unroll_status unroll_translator_reinforce(unroll_translator *t, const unroll_translator_reinforce_options *o,
                                          unroll_error *err) {
  if (!t || !o)
    return fail(err, UNROLL_E_INVALID, "unroll_translator_reinforce: %s is NULL", t ? "options" : "the model");
  if (o->struct_size < sizeof *o)
    return fail(err, UNROLL_E_INVALID, "unroll_translator_reinforce_options: struct_size %u, it must be at least %zu",
                o->struct_size, sizeof *o);
  struct trainer *r = &t->trainer;
  TRY(trainer_not_busy(r, "changed", err));
  if (r->ready)
    return fail(err, UNROLL_E_STATE, "REINFORCE begins with a loaded model, before it is resumed with its pairs");
  if (t->reinforce.baseline)
    return fail(err, UNROLL_E_STATE, "the model is trained by REINFORCE already");
  const struct translator_reinforce m = {.baseline = o->baseline, .seed = o->seed, .decay = o->decay};
  TRY(translator_reinforce_check(&m, err));
  t->reinforce = m;
  translator_set_task(t);
  r->best_loss = (double)NAN;
  r->best_update = 0;
  r->stale = 0;
  return UNROLL_OK;
}
