/* SPDX-License-Identifier: Apache-2.0 */
/* A classifier's life: made, described, trained, destroyed. */
#include <math.h>
#include <string.h>

#include "train/classify_private.h"

static unroll_status initialise(const void *owner, const unroll_tensor_info *info, void *data, unroll_error *err) {
  const unroll_classifier *c = owner;
  return unroll_init_default(info, c->options.rnn.cell, c->options.training.seed, data, err);
}

static const struct trainer_task task = {.build = classifier_build,
                                         .initialise = initialise,
                                         .feed = classifier_feed,
                                         .feed_evaluation = classifier_feed_evaluation,
                                         .epoch_updates = classifier_epoch_updates,
                                         .metadata = classifier_metadata_write,
                                         .data = "sequences"};

unroll_status classifier_begin(unroll_device *const *devices, uint32_t n_devices, const unroll_allocator *allocator,
                               unroll_classifier **out, unroll_error *err) {
  unroll_classifier *c = mem_zalloc(allocator, sizeof *c);
  if (!c)
    return fail(err, UNROLL_E_MEMORY, "model: no memory");
  c->evaluated = &c->validation;
  c->majority_accuracy = (double)NAN;
  const unroll_status status = trainer_begin(&c->trainer, &task, c, devices, n_devices, allocator, err);
  if (status == UNROLL_OK)
    *out = c;
  else if (c->trainer.task)
    unroll_classifier_destroy(c);
  else
    mem_free(allocator, c);
  return status;
}

void unroll_classifier_destroy(unroll_classifier *c) {
  if (!c)
    return;
  const unroll_allocator allocator = c->trainer.allocator;
  trainer_end(&c->trainer);
  classifier_set_free(c, &c->train);
  classifier_set_free(c, &c->validation);
  unroll_tokens_destroy(c->labels);
  mem_free(&allocator, c->mean);
  mem_free(&allocator, c->deviation);
  mem_free(&allocator, c->counts);
  mem_free(&allocator, c);
}

static unroll_status copy_labels(unroll_classifier *c, const unroll_sequences *sequences, unroll_error *err) {
  const char *json = unroll_tokens_json(unroll_sequences_label_names(sequences));
  return unroll_tokens_from_json(json, strlen(json), &c->trainer.allocator, &c->labels, err);
}

static unroll_status make(unroll_classifier *c, const unroll_sequences *sequences,
                          const unroll_classifier_options *options, unroll_error *err) {
  const unroll_allocator *a = &c->trainer.allocator;
  TRY(copy_labels(c, sequences, err));
  c->features = unroll_sequences_features(sequences);
  c->shortest = INT64_MAX;
  for (int64_t i = 0; i < unroll_sequences_count(sequences); i++) {
    const int64_t length = unroll_sequences_lengths(sequences)[i];
    c->shortest = length < c->shortest ? length : c->shortest;
    c->longest = length > c->longest ? length : c->longest;
  }
  TRY(classifier_options_check(options, c->longest, c->features, classifier_classes(c), err));
  TRY(trainer_options_copy(&options->training, a, &c->trainer.options, err));
  c->options = *options;
  c->mean = mem_array(a, (uint64_t)c->features, sizeof *c->mean);
  c->deviation = mem_array(a, (uint64_t)c->features, sizeof *c->deviation);
  c->counts = mem_array(a, (uint64_t)classifier_classes(c), sizeof *c->counts);
  if (!c->mean || !c->deviation || !c->counts)
    return fail(err, UNROLL_E_MEMORY, "model: no memory for the statistics of %lld features and %lld classes",
                (long long)c->features, (long long)classifier_classes(c));
  TRY(classifier_attach(c, sequences, true, err));
  return trainer_create(&c->trainer, err);
}

unroll_status unroll_classifier_create(unroll_device *const *devices, uint32_t n_devices,
                                       const unroll_sequences *sequences, const unroll_classifier_options *options,
                                       const unroll_allocator *allocator, unroll_classifier **out, unroll_error *err) {
  if (!sequences || !options || !out)
    return fail(err, UNROLL_E_INVALID, "unroll_classifier_create: %s is NULL",
                !sequences ? "sequences"
                : !options ? "options"
                           : "classifier");
  if (options->struct_size < sizeof *options)
    return fail(err, UNROLL_E_INVALID,
                "unroll_classifier_options: struct_size %u, it must be at least %zu; begin with "
                "unroll_classifier_options_default()",
                options->struct_size, sizeof *options);
  if (unroll_sequences_features(sequences) < 1 || !unroll_sequences_labels(sequences))
    return fail(err, UNROLL_E_INVALID, "unroll_classifier_create: the sequences have no %s",
                unroll_sequences_features(sequences) < 1 ? "numbers" : "labels");
  unroll_classifier *c = NULL;
  TRY(classifier_begin(devices, n_devices, allocator, &c, err));
  const unroll_status status = make(c, sequences, options, err);
  if (status == UNROLL_OK)
    *out = c;
  else
    unroll_classifier_destroy(c);
  return status;
}

unroll_classifier_options classifier_options_in_use(const unroll_classifier *c) {
  unroll_classifier_options o = c->options;
  o.struct_size = sizeof o;
  o.training = c->trainer.options;
  return o;
}

unroll_classifier_info unroll_classifier_describe(const unroll_classifier *c) {
  unroll_classifier_info info = {
      .struct_size = sizeof info, .majority_accuracy = (double)NAN, .best_validation_loss = (double)NAN};
  if (!c)
    return info;
  const struct trainer *t = &c->trainer;
  info.options = classifier_options_in_use(c);
  info.labels = c->labels;
  info.features = c->features;
  info.shortest = c->shortest;
  info.longest = c->longest;
  info.train_count = c->parts[UNROLL_TRAINING];
  info.validation_count = c->parts[UNROLL_VALIDATION];
  info.split_hash = c->split_hash;
  info.majority = classifier_majority(c);
  info.majority_accuracy = c->majority_accuracy;
  info.update = t->update;
  info.n_parameters = trainer_count_parameters(t);
  info.updates_per_epoch = c->sequences ? classifier_epoch_updates(c, 0) : 0;
  info.best_validation_loss = t->best_loss;
  info.best_update = t->best_update;
  return info;
}

/* ---- training ---- */

unroll_status unroll_classifier_train(unroll_classifier *c, const unroll_train_options *options, unroll_error *err) {
  if (!c || !options)
    return fail(err, UNROLL_E_INVALID, "unroll_classifier_train: %s is NULL", c ? "options" : "the model");
  return trainer_train(&c->trainer, options, err);
}

unroll_status unroll_classifier_set_schedule(unroll_classifier *c, const unroll_schedule *schedule, unroll_error *err) {
  if (!c || !schedule)
    return fail(err, UNROLL_E_INVALID, "unroll_classifier_set_schedule: %s is NULL", c ? "schedule" : "the model");
  return trainer_set_schedule(&c->trainer, schedule, err);
}

double unroll_classifier_learning_rate(const unroll_classifier *c, uint64_t update) {
  return c ? trainer_learning_rate(&c->trainer, update) : (double)NAN;
}

unroll_status unroll_classifier_evaluate(unroll_classifier *c, double *loss, double *accuracy, unroll_error *err) {
  if (!c || !loss || !accuracy)
    return fail(err, UNROLL_E_INVALID, "unroll_classifier_evaluate: %s is NULL",
                !c      ? "the model"
                : !loss ? "loss"
                        : "accuracy");
  TRY(trainer_ready(&c->trainer, "evaluated", err));
  if (!c->validation.batches)
    return fail(err, UNROLL_E_STATE, "no sequences are kept for validation: the option validation is 0");
  return trainer_evaluate(&c->trainer, loss, accuracy, err);
}
