/* SPDX-License-Identifier: Apache-2.0 */
/* A translator's life: made, described, trained, destroyed. */
#include <math.h>
#include <string.h>

#include "train/translate_private.h"

static unroll_status initialise(const void *owner, const unroll_tensor_info *info, void *data, unroll_error *err) {
  const unroll_translator *t = owner;
  return unroll_init_default(info, t->options.rnn.cell, t->options.training.seed, data, err);
}

#define TASK                                                                                \
  .build = translator_build, .initialise = initialise, .feed = translator_feed,             \
  .feed_evaluation = translator_feed_evaluation, .epoch_updates = translator_epoch_updates, \
  .variant = translator_variant, .metadata = translator_metadata_write, .data = "pairs"
static const struct trainer_task task = {TASK};
static const struct trainer_task reinforce_task = {TASK, .evaluate = translator_reinforce_evaluate};

void translator_set_task(unroll_translator *t) { t->trainer.task = t->reinforce.baseline ? &reinforce_task : &task; }

unroll_status translator_begin(unroll_device *const *devices, uint32_t n_devices, const unroll_allocator *allocator,
                               unroll_translator **out, unroll_error *err) {
  unroll_translator *t = mem_zalloc(allocator, sizeof *t);
  if (!t)
    return fail(err, UNROLL_E_MEMORY, "model: no memory");
  const unroll_status status = trainer_begin(&t->trainer, &task, t, devices, n_devices, allocator, err);
  if (status == UNROLL_OK)
    *out = t;
  else if (t->trainer.task)
    unroll_translator_destroy(t);
  else
    mem_free(allocator, t);
  return status;
}

void unroll_translator_destroy(unroll_translator *t) {
  if (!t)
    return;
  const unroll_allocator allocator = t->trainer.allocator;
  translator_programs_free(t);
  trainer_end(&t->trainer);
  translator_detach(t);
  unroll_tokens_destroy(t->sources);
  unroll_tokens_destroy(t->targets);
  mem_free(&allocator, t->by_place);
  mem_free(&allocator, t);
}

static unroll_status make(unroll_translator *t, const unroll_pairs *pairs, const unroll_translator_options *options,
                          unroll_error *err) {
  TRY(translator_options_check(options, err));
  TRY(trainer_options_copy(&options->training, &t->trainer.allocator, &t->trainer.options, err));
  t->options = *options;
  TRY(translator_vocabularies(t, pairs, err));
  TRY(translator_attach(t, pairs, true, err));
  return trainer_create(&t->trainer, err);
}

unroll_status unroll_translator_create(unroll_device *const *devices, uint32_t n_devices, const unroll_pairs *pairs,
                                       const unroll_translator_options *options, const unroll_allocator *allocator,
                                       unroll_translator **out, unroll_error *err) {
  if (!pairs || !options || !out)
    return fail(err, UNROLL_E_INVALID, "unroll_translator_create: %s is NULL",
                !pairs     ? "pairs"
                : !options ? "options"
                           : "translator");
  if (options->struct_size < sizeof *options)
    return fail(err, UNROLL_E_INVALID,
                "unroll_translator_options: struct_size %u, it must be at least %zu; begin with "
                "unroll_translator_options_default()",
                options->struct_size, sizeof *options);
  unroll_translator *t = NULL;
  TRY(translator_begin(devices, n_devices, allocator, &t, err));
  const unroll_status status = make(t, pairs, options, err);
  if (status == UNROLL_OK)
    *out = t;
  else
    unroll_translator_destroy(t);
  return status;
}

unroll_translator_info unroll_translator_describe(const unroll_translator *t) {
  unroll_translator_info info = {.struct_size = sizeof info, .best_validation_loss = (double)NAN};
  if (!t)
    return info;
  const struct trainer *r = &t->trainer;
  const struct translator_class *last = &t->classes[t->n_classes - 1];
  info.baseline = t->reinforce.baseline;
  info.options = translator_options_in_use(t);
  info.sources = t->sources;
  info.targets = t->targets;
  info.longest_source = last->source;
  info.longest_target = last->target - 1;
  memcpy(info.counts, t->counts, sizeof info.counts);
  info.split_hash = t->split_hash;
  info.update = r->update;
  info.n_parameters = trainer_count_parameters(r);
  if (t->train) {
    info.padding = unroll_batches_padding(t->train);
    info.updates_per_epoch = (uint64_t)((t->counts[UNROLL_TRAINING] - 1) / t->options.training.batch) + 1;
  }
  info.best_validation_loss = r->best_loss;
  info.best_update = r->best_update;
  return info;
}

/* ---- training ---- */

unroll_status unroll_translator_train(unroll_translator *t, const unroll_train_options *options, unroll_error *err) {
  if (!t || !options)
    return fail(err, UNROLL_E_INVALID, "unroll_translator_train: %s is NULL", t ? "options" : "the model");
  return trainer_train(&t->trainer, options, err);
}

unroll_status unroll_translator_set_schedule(unroll_translator *t, const unroll_schedule *schedule, unroll_error *err) {
  if (!t || !schedule)
    return fail(err, UNROLL_E_INVALID, "unroll_translator_set_schedule: %s is NULL", t ? "schedule" : "the model");
  return trainer_set_schedule(&t->trainer, schedule, err);
}

double unroll_translator_learning_rate(const unroll_translator *t, uint64_t update) {
  return t ? trainer_learning_rate(&t->trainer, update) : (double)NAN;
}

unroll_status unroll_translator_evaluate(unroll_translator *t, double *loss, double *metric, unroll_error *err) {
  if (!t || !loss || !metric)
    return fail(err, UNROLL_E_INVALID, "unroll_translator_evaluate: %s is NULL",
                !t      ? "the model"
                : !loss ? "loss"
                        : "metric");
  TRY(trainer_ready(&t->trainer, "evaluated", err));
  if (!t->validation)
    return fail(err, UNROLL_E_STATE, "no pairs are kept for validation: the option validation is 0");
  return trainer_evaluate(&t->trainer, loss, metric, err);
}
