/* SPDX-License-Identifier: Apache-2.0 */
/* A language model's life: made, described, trained, destroyed. */
#include <math.h>
#include <string.h>

#include "train/lm_private.h"

static unroll_status initialise(const void *owner, const unroll_tensor_info *info, void *data, unroll_error *err) {
  const unroll_lm *lm = owner;
  return unroll_init_default(info, lm->options.rnn.cell, lm->options.training.seed, data, err);
}

static const struct trainer_task task = {.build = lm_build,
                                         .initialise = initialise,
                                         .feed = lm_feed,
                                         .feed_evaluation = lm_feed_evaluation,
                                         .epoch_updates = lm_epoch_updates,
                                         .metadata = lm_metadata_write,
                                         .data = "text"};

unroll_status lm_begin(unroll_device *const *devices, uint32_t n_devices, const unroll_allocator *allocator,
                       unroll_lm **out, unroll_error *err) {
  unroll_lm *lm = mem_zalloc(allocator, sizeof *lm);
  if (!lm)
    return fail(err, UNROLL_E_MEMORY, "model: no memory");
  lm->evaluated = &lm->validation;
  const unroll_status status = trainer_begin(&lm->trainer, &task, lm, devices, n_devices, allocator, err);
  if (status == UNROLL_OK)
    *out = lm;
  else if (lm->trainer.task)
    unroll_lm_destroy(lm);
  else
    mem_free(allocator, lm);
  return status;
}

void unroll_lm_destroy(unroll_lm *lm) {
  if (!lm)
    return;
  const unroll_allocator allocator = lm->trainer.allocator;
  trainer_program_free(&lm->sample);
  trainer_end(&lm->trainer);
  unroll_vocabulary_destroy(lm->vocabulary);
  mem_free(&allocator, lm->x);
  mem_free(&allocator, lm->targets);
  mem_free(&allocator, lm);
}

static unroll_status make(unroll_lm *lm, const unroll_text *text, const unroll_lm_options *options, unroll_error *err) {
  const unroll_allocator *a = &lm->trainer.allocator;
  const char *json = unroll_vocabulary_json(unroll_text_vocabulary(text));
  TRY(unroll_vocabulary_from_json(json, strlen(json), a, &lm->vocabulary, err));
  TRY(lm_options_check(options, unroll_vocabulary_count(lm->vocabulary), err));
  TRY(trainer_options_copy(&options->training, a, &lm->trainer.options, err));
  lm->options = *options;
  TRY(lm_attach_text(lm, text, err));
  return trainer_create(&lm->trainer, err);
}

unroll_status unroll_lm_create(unroll_device *const *devices, uint32_t n_devices, const unroll_text *text,
                               const unroll_lm_options *options, const unroll_allocator *allocator, unroll_lm **out,
                               unroll_error *err) {
  if (!text || !options || !out)
    return fail(err, UNROLL_E_INVALID, "unroll_lm_create: %s is NULL", !text ? "text" : !options ? "options" : "lm");
  if (options->struct_size < sizeof *options)
    return fail(err, UNROLL_E_INVALID,
                "unroll_lm_options: struct_size %u, it must be at least %zu; begin with "
                "unroll_lm_options_default()",
                options->struct_size, sizeof *options);
  unroll_lm *lm = NULL;
  TRY(lm_begin(devices, n_devices, allocator, &lm, err));
  const unroll_status status = make(lm, text, options, err);
  if (status == UNROLL_OK)
    *out = lm;
  else
    unroll_lm_destroy(lm);
  return status;
}

unroll_lm_info unroll_lm_describe(const unroll_lm *lm) {
  unroll_lm_info info = {.struct_size = sizeof info, .best_validation_loss = (double)NAN};
  if (!lm)
    return info;
  const struct trainer *t = &lm->trainer;
  info.options = lm_options_in_use(lm);
  info.vocabulary = lm->vocabulary;
  info.update = t->update;
  info.best_validation_loss = t->best_loss;
  info.best_update = t->best_update;
  info.n_parameters = trainer_count_parameters(t);
  if (lm->text) {
    info.updates_per_epoch = lm_epoch_updates(lm, trainer_place_of(t, t->update).epoch);
    info.train_characters = unroll_text_train_count(lm->text, lm->options.training.validation);
    info.validation_characters = lm->text_characters - info.train_characters;
  }
  return info;
}

/* ---- training ---- */

unroll_status unroll_lm_train(unroll_lm *lm, const unroll_lm_train_options *options, unroll_error *err) {
  if (!lm || !options)
    return fail(err, UNROLL_E_INVALID, "unroll_lm_train: %s is NULL", lm ? "options" : "the model");
  return trainer_train(&lm->trainer, options, err);
}

unroll_status unroll_lm_set_schedule(unroll_lm *lm, const unroll_schedule *schedule, unroll_error *err) {
  if (!lm || !schedule)
    return fail(err, UNROLL_E_INVALID, "unroll_lm_set_schedule: %s is NULL", lm ? "schedule" : "the model");
  return trainer_set_schedule(&lm->trainer, schedule, err);
}

double unroll_lm_learning_rate(const unroll_lm *lm, uint64_t update) {
  return lm ? trainer_learning_rate(&lm->trainer, update) : (double)NAN;
}

unroll_status unroll_lm_evaluate(unroll_lm *lm, double *loss, unroll_error *err) {
  if (!lm || !loss)
    return fail(err, UNROLL_E_INVALID, "unroll_lm_evaluate: %s is NULL", lm ? "loss" : "the model");
  TRY(trainer_ready(&lm->trainer, "evaluated", err));
  if (!lm->validation.ids)
    return fail(err, UNROLL_E_STATE, "no part of the text is kept for validation: the option validation is 0");
  double metric;
  return trainer_evaluate(&lm->trainer, loss, &metric, err);
}
