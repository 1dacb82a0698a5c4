/* SPDX-License-Identifier: Apache-2.0 */
/* A forecaster's life: made, described, trained, destroyed. */
#include <math.h>

#include "train/forecaster_private.h"

static unroll_status initialise(const void *owner, const unroll_tensor_info *info, void *data, unroll_error *err) {
  const unroll_forecaster *f = owner;
  return unroll_init_default(info, f->options.rnn.cell, f->options.training.seed, data, err);
}

static const struct trainer_task task = {.build = forecaster_build,
                                         .initialise = initialise,
                                         .feed = forecaster_feed,
                                         .feed_evaluation = forecaster_feed_evaluation,
                                         .epoch_updates = forecaster_epoch_updates,
                                         .metadata = forecaster_metadata_write,
                                         .data = "series"};

unroll_status forecaster_begin(unroll_device *const *devices, uint32_t n_devices, const unroll_allocator *allocator,
                               unroll_forecaster **out, unroll_error *err) {
  unroll_forecaster *f = mem_zalloc(allocator, sizeof *f);
  if (!f)
    return fail(err, UNROLL_E_MEMORY, "model: no memory");
  f->naive_loss = f->naive_mae = (double)NAN;
  const unroll_status status = trainer_begin(&f->trainer, &task, f, devices, n_devices, allocator, err);
  if (status == UNROLL_OK)
    *out = f;
  else if (f->trainer.task)
    unroll_forecaster_destroy(f);
  else
    mem_free(allocator, f);
  return status;
}

void unroll_forecaster_destroy(unroll_forecaster *f) {
  if (!f)
    return;
  const unroll_allocator allocator = f->trainer.allocator;
  trainer_program_free(&f->forecast);
  trainer_end(&f->trainer);
  forecaster_detach(f);
  mem_free(&allocator, f->name);
  mem_free(&allocator, f);
}

static unroll_status make(unroll_forecaster *f, const double *y, int64_t n, const unroll_forecaster_options *options,
                          unroll_error *err) {
  const unroll_allocator *a = &f->trainer.allocator;
  TRY(forecaster_options_check(options, err));
  TRY(trainer_options_copy(&options->training, a, &f->trainer.options, err));
  f->options = *options;
  f->name = mem_strdup(a, options->name);
  if (options->name && !f->name)
    return fail(err, UNROLL_E_MEMORY, "model: no memory for the series' name");
  TRY(forecaster_attach(f, y, n, true, err));
  return trainer_create(&f->trainer, err);
}

unroll_status unroll_forecaster_create(unroll_device *const *devices, uint32_t n_devices, const double *y, int64_t n,
                                       const unroll_forecaster_options *options, const unroll_allocator *allocator,
                                       unroll_forecaster **out, unroll_error *err) {
  if (!y || !options || !out)
    return fail(err, UNROLL_E_INVALID, "unroll_forecaster_create: %s is NULL",
                !y         ? "y"
                : !options ? "options"
                           : "forecaster");
  if (options->struct_size < sizeof *options)
    return fail(err, UNROLL_E_INVALID,
                "unroll_forecaster_options: struct_size %u, it must be at least %zu; begin with "
                "unroll_forecaster_options_default()",
                options->struct_size, sizeof *options);
  unroll_forecaster *f = NULL;
  TRY(forecaster_begin(devices, n_devices, allocator, &f, err));
  const unroll_status status = make(f, y, n, options, err);
  if (status == UNROLL_OK)
    *out = f;
  else
    unroll_forecaster_destroy(f);
  return status;
}

unroll_forecaster_options forecaster_options_in_use(const unroll_forecaster *f) {
  unroll_forecaster_options o = f->options;
  o.struct_size = sizeof o;
  o.name = f->name;
  o.training = f->trainer.options;
  return o;
}

unroll_forecaster_info unroll_forecaster_describe(const unroll_forecaster *f) {
  unroll_forecaster_info info = {.struct_size = sizeof info,
                                 .naive_loss = (double)NAN,
                                 .naive_mae = (double)NAN,
                                 .best_validation_loss = (double)NAN};
  if (!f)
    return info;
  const struct trainer *t = &f->trainer;
  info.options = forecaster_options_in_use(f);
  info.count = f->count;
  info.least = f->options.lags + forecaster_lost(&f->options);
  info.mean = f->mean;
  info.deviation = f->deviation;
  info.train_count = f->n_train;
  info.validation_count = f->n_validation;
  info.naive_loss = f->naive_loss;
  info.naive_mae = f->naive_mae;
  info.update = t->update;
  info.n_parameters = trainer_count_parameters(t);
  info.updates_per_epoch = f->x ? forecaster_epoch_updates(f, 0) : 0;
  info.best_validation_loss = t->best_loss;
  info.best_update = t->best_update;
  return info;
}

/* ---- training ---- */

unroll_status unroll_forecaster_train(unroll_forecaster *f, const unroll_train_options *options, unroll_error *err) {
  if (!f || !options)
    return fail(err, UNROLL_E_INVALID, "unroll_forecaster_train: %s is NULL", f ? "options" : "the model");
  return trainer_train(&f->trainer, options, err);
}

unroll_status unroll_forecaster_set_schedule(unroll_forecaster *f, const unroll_schedule *schedule, unroll_error *err) {
  if (!f || !schedule)
    return fail(err, UNROLL_E_INVALID, "unroll_forecaster_set_schedule: %s is NULL", f ? "schedule" : "the model");
  return trainer_set_schedule(&f->trainer, schedule, err);
}

double unroll_forecaster_learning_rate(const unroll_forecaster *f, uint64_t update) {
  return f ? trainer_learning_rate(&f->trainer, update) : (double)NAN;
}

unroll_status unroll_forecaster_evaluate(unroll_forecaster *f, double *loss, double *mae, unroll_error *err) {
  if (!f || !loss || !mae)
    return fail(err, UNROLL_E_INVALID, "unroll_forecaster_evaluate: %s is NULL",
                !f      ? "the model"
                : !loss ? "loss"
                        : "mae");
  TRY(trainer_ready(&f->trainer, "evaluated", err));
  if (!f->validation.batches)
    return fail(err, UNROLL_E_STATE, "no windows are kept for validation: the option validation is 0");
  return trainer_evaluate(&f->trainer, loss, mae, err);
}
