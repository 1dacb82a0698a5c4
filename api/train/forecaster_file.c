/* SPDX-License-Identifier: Apache-2.0 */
/* A forecaster's file. */
#include <math.h>
#include <stddef.h>

#include "train/forecaster_private.h"

#define KIND "series forecaster"
#define COUNT(array) (sizeof(array) / sizeof(array)[0])
#define OWN(member) offsetof(struct metadata, member)

/* The values of a model's metadata. */
struct metadata {
  unroll_forecaster_options options;
  struct trainer_position position;
  double mean, deviation;
  int64_t count;
  uint64_t data_hash;
};

enum { GROUP_NAME = 1 };
static const char *scaling_name(int32_t unscaled) { return unscaled ? "none" : "standard"; }

static const struct trainer_field model_fields[] = {
    {"lags", FIELD_EXTENT, OWN(options.lags), NULL, 0, 0, 0, 0},
    {"horizon", FIELD_EXTENT, OWN(options.horizon), NULL, 0, 0, 0, 0},
    {"differences", FIELD_EXTENT, OWN(options.differences), NULL, 0, 0, 0, 0},
    {"season", FIELD_EXTENT, OWN(options.season), NULL, 0, 0, 0, 0},
    {"scaling", FIELD_NAME, OWN(options.unscaled), scaling_name, 0, 2, 0, 0},
    {"mean", FIELD_REAL, OWN(mean), NULL, 0, 0, 0, 0},
    {"deviation", FIELD_REAL, OWN(deviation), NULL, 0, 0, 0, 0},
};
static const struct trainer_field data_fields[] = {
    {"hash", FIELD_HASH, OWN(data_hash), NULL, 0, 0, 0, 0},
    {"values", FIELD_EXTENT, OWN(count), NULL, 0, 0, 0, 0},
    {"holdout", FIELD_EXTENT, OWN(options.holdout), NULL, 0, 0, 0, 0},
    {"name", FIELD_TEXT, OWN(options.name), NULL, 0, 0, GROUP_NAME, 0},
};

/* Of all objects; their tables point into m. */
struct sections {
  struct trainer_fields model[2], training[2], data;
};
static struct sections sections_of(struct metadata *m) {
  return (struct sections){{trainer_rnn_model_fields(&m->options.rnn), {model_fields, COUNT(model_fields), m}},
                           {trainer_rnn_training_fields(&m->options.rnn), trainer_option_fields(&m->options.training)},
                           {data_fields, COUNT(data_fields), m}};
}

/* ---- writing ---- */

unroll_status forecaster_metadata_write(const void *owner, unroll_safetensors_writer *writer, unroll_error *err) {
  const unroll_forecaster *f = owner;
  const unroll_allocator *a = &f->trainer.allocator;
  struct metadata m = {.options = forecaster_options_in_use(f),
                       .mean = f->mean,
                       .deviation = f->deviation,
                       .count = f->count,
                       .data_hash = f->data_hash};
  m.options.unscaled = m.options.unscaled != 0;
  const struct sections s = sections_of(&m);
  TRY(trainer_metadata_begin(writer, KIND, err));
  TRY(trainer_metadata_write(writer, "unroll.model", s.model, COUNT(s.model), a, err));
  TRY(trainer_metadata_write(writer, "unroll.training", s.training, COUNT(s.training), a, err));
  TRY(trainer_position_write(&f->trainer, writer, err));
  return trainer_metadata_write(writer, "unroll.data", &s.data, 1, a, err);
}

unroll_status unroll_forecaster_save(unroll_forecaster *f, const char *path, unroll_error *err) {
  if (!f || !path)
    return fail(err, UNROLL_E_INVALID, "unroll_forecaster_save: %s is NULL", f ? "path" : "the model");
  return trainer_save(&f->trainer, path, err);
}

/* ---- reading ---- */

static unroll_status read_metadata(const unroll_forecaster *f, const unroll_safetensors *file, struct metadata *m,
                                   unroll_error *err) {
  const unroll_allocator *a = &f->trainer.allocator;
  const struct sections s = sections_of(m);
  TRY(trainer_metadata_check(file, KIND, err));
  TRY(trainer_metadata_read(file, "unroll.model", s.model, COUNT(s.model), a, err));
  TRY(trainer_metadata_read(file, "unroll.training", s.training, COUNT(s.training), a, err));
  TRY(trainer_position_read(file, a, &m->position, err));
  TRY(trainer_metadata_read(file, "unroll.data", &s.data, 1, a, err));
  if (!(m->deviation > 0))
    return fail(err, UNROLL_E_FORMAT, "metadata: deviation %g, expected a number above 0", m->deviation);
  unroll_error inner = UNROLL_ERROR_INIT;
  if (forecaster_options_check(&m->options, &inner) != UNROLL_OK)
    return fail(err, UNROLL_E_FORMAT, "metadata: %s", inner.message);
  return UNROLL_OK;
}

static unroll_status read_model(void *model, const unroll_safetensors *file, unroll_error *err) {
  unroll_forecaster *f = model;
  struct metadata m = {.options = {.struct_size = sizeof m.options, .training = {.loss_scale = 1, .accumulate = 1}}};
  const unroll_status status = read_metadata(f, file, &m, err);
  f->trainer.options = m.options.training; /* with its texts */
  f->name = (char *)(uintptr_t)m.options.name;
  if (status != UNROLL_OK)
    return status;
  f->options = m.options;
  f->mean = m.mean;
  f->deviation = m.deviation;
  f->count = m.count;
  f->data_hash = m.data_hash;
  trainer_take_position(&f->trainer, &m.position);
  return trainer_read_tensors(&f->trainer, file, err);
}

unroll_status unroll_forecaster_load(unroll_device *const *devices, uint32_t n_devices, const char *path,
                                     const unroll_allocator *allocator, unroll_forecaster **out, unroll_error *err) {
  if (!path || !out)
    return fail(err, UNROLL_E_INVALID, "unroll_forecaster_load: %s is NULL", path ? "forecaster" : "path");
  unroll_forecaster *f = NULL;
  TRY(forecaster_begin(devices, n_devices, allocator, &f, err));
  const unroll_status status = trainer_read_file(&f->trainer, path, read_model, f, err);
  if (status == UNROLL_OK)
    *out = f;
  else
    unroll_forecaster_destroy(f);
  return status;
}

unroll_status unroll_forecaster_resume(unroll_forecaster *f, const double *y, int64_t n, unroll_error *err) {
  if (!f || !y)
    return fail(err, UNROLL_E_INVALID, "unroll_forecaster_resume: %s is NULL", f ? "y" : "the model");
  struct trainer *t = &f->trainer;
  TRY(trainer_not_busy(t, "resumed", err));
  if (f->x)
    return fail(err, UNROLL_E_STATE, "the model has its series already");
  const uint64_t hash = n > 0 ? forecaster_data_hash(y, n) : 0;
  if (n != f->count || hash != f->data_hash)
    return fail(err, UNROLL_E_STATE,
                "another series than the model was trained on: hash %016llx of %lld values, the model's is %016llx of "
                "%lld",
                (unsigned long long)hash, (long long)n, (unsigned long long)f->data_hash, (long long)f->count);
  TRY(trainer_upload(t, err));
  const unroll_status status = forecaster_attach(f, y, n, false, err);
  if (status != UNROLL_OK) {
    trainer_program_free(&t->train);
    return status;
  }
  trainer_forget_stored(t);
  trainer_program_free(&f->forecast); /* its parameters are copies of the stored ones */
  return UNROLL_OK;
}
