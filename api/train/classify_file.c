/* SPDX-License-Identifier: Apache-2.0 */
/* A classifier's file. */
#include <math.h>
#include <stddef.h>
#include <string.h>

#include "train/classify_private.h"

#define KIND "sequence classifier"
#define MOST_FEATURES 1000000
#define COUNT(array) (sizeof(array) / sizeof(array)[0])
#define OWN(member) offsetof(struct metadata, member)

/* The values of a model's metadata; texts are the owner's to free. */
struct metadata {
  unroll_classifier_options options;
  struct trainer_position position;
  int64_t bidirectional, features, classes, shortest, longest, sequences;
  uint64_t data_hash, split_hash;
  const char *mean, *deviation, *counts; /* numbers, a blank between two */
};

static const struct trainer_field model_fields[] = {
    {"bidirectional", FIELD_EXTENT, OWN(bidirectional), NULL, 0, 0, 0, 0},
    {"features", FIELD_EXTENT, OWN(features), NULL, 0, 0, 0, 0},
    {"classes", FIELD_EXTENT, OWN(classes), NULL, 0, 0, 0, 0},
    {"scaling", FIELD_NAME, OWN(options.scaling), unroll_scaling_name, 0, UNROLL_SCALING_COUNT, 0, 0},
    {"mean", FIELD_TEXT, OWN(mean), NULL, 0, 0, 0, 0},
    {"deviation", FIELD_TEXT, OWN(deviation), NULL, 0, 0, 0, 0},
};
static const struct trainer_field data_fields[] = {
    {"hash", FIELD_HASH, OWN(data_hash), NULL, 0, 0, 0, 0},
    {"split", FIELD_HASH, OWN(split_hash), NULL, 0, 0, 0, 0},
    {"sequences", FIELD_EXTENT, OWN(sequences), NULL, 0, 0, 0, 0},
    {"shortest", FIELD_EXTENT, OWN(shortest), NULL, 0, 0, 0, 0},
    {"longest", FIELD_EXTENT, OWN(longest), NULL, 0, 0, 0, 0},
    {"counts", FIELD_TEXT, OWN(counts), NULL, 0, 0, 0, 0},
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

static unroll_status list_numbers(const double *values, int64_t n, const unroll_allocator *a, const char **list,
                                  unroll_error *err) {
  struct text t;
  bool ok = true;
  text_init(&t, a);
  for (int64_t i = 0; i < n; i++) {
    text_add(&t, "%s", i ? " " : "");
    ok = trainer_add_real(&t, values[i]) && ok;
  }
  char *all = text_take(&t);
  *list = all;
  return ok && all ? UNROLL_OK : fail(err, UNROLL_E_MEMORY, "model: no memory for %lld numbers", (long long)n);
}

static unroll_status write_all(const unroll_classifier *c, struct metadata *m, unroll_safetensors_writer *writer,
                               unroll_error *err) {
  const unroll_allocator *a = &c->trainer.allocator;
  const struct sections s = sections_of(m);
  TRY(list_numbers(c->mean, c->features, a, &m->mean, err));
  TRY(list_numbers(c->deviation, c->features, a, &m->deviation, err));
  TRY(list_numbers(c->counts, classifier_classes(c), a, &m->counts, err));
  TRY(trainer_metadata_begin(writer, KIND, err));
  TRY(unroll_safetensors_writer_metadata(writer, "unroll.labels", unroll_tokens_json(c->labels), err));
  TRY(trainer_metadata_write(writer, "unroll.model", s.model, COUNT(s.model), a, err));
  TRY(trainer_metadata_write(writer, "unroll.training", s.training, COUNT(s.training), a, err));
  TRY(trainer_position_write(&c->trainer, writer, err));
  return trainer_metadata_write(writer, "unroll.data", &s.data, 1, a, err);
}

static void free_texts(const unroll_allocator *a, const struct metadata *m) {
  mem_free(a, (void *)(uintptr_t)m->mean);
  mem_free(a, (void *)(uintptr_t)m->deviation);
  mem_free(a, (void *)(uintptr_t)m->counts);
}

unroll_status classifier_metadata_write(const void *owner, unroll_safetensors_writer *writer, unroll_error *err) {
  const unroll_classifier *c = owner;
  struct metadata m = {.options = classifier_options_in_use(c),
                       .bidirectional = c->options.bidirectional,
                       .features = c->features,
                       .classes = classifier_classes(c),
                       .shortest = c->shortest,
                       .longest = c->longest,
                       .sequences = c->n_sequences,
                       .data_hash = c->data_hash,
                       .split_hash = c->split_hash};
  const unroll_status status = write_all(c, &m, writer, err);
  free_texts(&c->trainer.allocator, &m);
  return status;
}

unroll_status unroll_classifier_save(unroll_classifier *c, const char *path, unroll_error *err) {
  if (!c || !path)
    return fail(err, UNROLL_E_INVALID, "unroll_classifier_save: %s is NULL", c ? "path" : "the model");
  return trainer_save(&c->trainer, path, err);
}

/* ---- reading ---- */

/* n numbers of at least `least`, or above 0 where that is DBL_TRUE_MIN. */
static unroll_status read_numbers(const char *key, const char *list, int64_t n, double least, const unroll_allocator *a,
                                  double **values, unroll_error *err) {
  *values = mem_array(a, (uint64_t)n, sizeof **values);
  if (!*values)
    return fail(err, UNROLL_E_MEMORY, "no memory for %lld numbers", (long long)n);
  for (int64_t i = 0; i < n; i++) {
    char one[40];
    const char *end;
    const size_t length = strcspn(list, " ");
    if (length == 0 || length >= sizeof one)
      return fail(err, UNROLL_E_FORMAT, "metadata: %s has %lld numbers, expected %lld", key, (long long)i,
                  (long long)n);
    memcpy(one, list, length);
    one[length] = '\0';
    if (!trainer_parse_real(one, &(*values)[i], &end) || *end || (*values)[i] < least)
      return fail(err, UNROLL_E_FORMAT, "metadata: %s: '%s' is no number, or out of its range", key, one);
    list += length + (list[length] == ' ');
  }
  if (*list)
    return fail(err, UNROLL_E_FORMAT, "metadata: %s has more than %lld numbers", key, (long long)n);
  return UNROLL_OK;
}

static unroll_status read_labels(unroll_classifier *c, const unroll_safetensors *file, int64_t expected,
                                 unroll_error *err) {
  const char *json = unroll_safetensors_metadata(file, "unroll.labels");
  if (!json)
    return fail(err, UNROLL_E_FORMAT, "no metadata unroll.labels");
  unroll_error inner = UNROLL_ERROR_INIT;
  const unroll_status status = unroll_tokens_from_json(json, strlen(json), &c->trainer.allocator, &c->labels, &inner);
  if (status != UNROLL_OK)
    return fail(err, status, "metadata unroll.labels: %s", inner.message);
  if (classifier_classes(c) != expected)
    return fail(err, UNROLL_E_FORMAT, "metadata unroll.model says %lld classes, unroll.labels has %lld",
                (long long)expected, (long long)classifier_classes(c));
  return UNROLL_OK;
}

static unroll_status read_metadata(unroll_classifier *c, const unroll_safetensors *file, struct metadata *m,
                                   unroll_error *err) {
  const unroll_allocator *a = &c->trainer.allocator;
  const struct sections s = sections_of(m);
  TRY(trainer_metadata_check(file, KIND, err));
  TRY(trainer_metadata_read(file, "unroll.model", s.model, COUNT(s.model), a, err));
  TRY(trainer_metadata_read(file, "unroll.training", s.training, COUNT(s.training), a, err));
  TRY(trainer_position_read(file, a, &m->position, err));
  TRY(trainer_metadata_read(file, "unroll.data", &s.data, 1, a, err));
  TRY(read_labels(c, file, m->classes, err));
  if (m->features < 1 || m->features > MOST_FEATURES || m->shortest < 1 || m->shortest > m->longest ||
      m->longest > INT32_MAX || m->bidirectional > 1)
    return fail(err, UNROLL_E_FORMAT,
                "metadata: features %lld, lengths %lld to %lld, bidirectional %lld: out of their range",
                (long long)m->features, (long long)m->shortest, (long long)m->longest, (long long)m->bidirectional);
  TRY(read_numbers("mean", m->mean, m->features, -(double)INFINITY, a, &c->mean, err));
  TRY(read_numbers("deviation", m->deviation, m->features, 0x1p-1074, a, &c->deviation, err));
  return read_numbers("counts", m->counts, m->classes, 0, a, &c->counts, err);
}

/* What the metadata say, once it is right. */
static unroll_status take(unroll_classifier *c, const struct metadata *m, unroll_error *err) {
  unroll_classifier_options o = m->options;
  unroll_error inner = UNROLL_ERROR_INIT;
  o.bidirectional = (int32_t)m->bidirectional;
  if (classifier_options_check(&o, m->longest, m->features, m->classes, &inner) != UNROLL_OK)
    return fail(err, UNROLL_E_FORMAT, "metadata: %s", inner.message);
  c->options = o;
  c->features = m->features;
  c->shortest = m->shortest;
  c->longest = m->longest;
  c->n_sequences = m->sequences;
  c->data_hash = m->data_hash;
  c->split_hash = m->split_hash;
  trainer_take_position(&c->trainer, &m->position);
  return UNROLL_OK;
}

static unroll_status read_model(void *model, const unroll_safetensors *file, unroll_error *err) {
  unroll_classifier *c = model;
  struct metadata m = {.options = {.struct_size = sizeof m.options, .training = {.loss_scale = 1, .accumulate = 1}}};
  unroll_status status = read_metadata(c, file, &m, err);
  c->trainer.options = m.options.training; /* with its texts */
  if (status == UNROLL_OK)
    status = take(c, &m, err);
  free_texts(&c->trainer.allocator, &m);
  return status == UNROLL_OK ? trainer_read_tensors(&c->trainer, file, err) : status;
}

unroll_status unroll_classifier_load(unroll_device *const *devices, uint32_t n_devices, const char *path,
                                     const unroll_allocator *allocator, unroll_classifier **out, unroll_error *err) {
  if (!path || !out)
    return fail(err, UNROLL_E_INVALID, "unroll_classifier_load: %s is NULL", path ? "classifier" : "path");
  unroll_classifier *c = NULL;
  TRY(classifier_begin(devices, n_devices, allocator, &c, err));
  const unroll_status status = trainer_read_file(&c->trainer, path, read_model, c, err);
  if (status == UNROLL_OK)
    *out = c;
  else
    unroll_classifier_destroy(c);
  return status;
}

unroll_status unroll_classifier_resume(unroll_classifier *c, const unroll_sequences *sequences, unroll_error *err) {
  if (!c || !sequences)
    return fail(err, UNROLL_E_INVALID, "unroll_classifier_resume: %s is NULL", c ? "sequences" : "the model");
  struct trainer *t = &c->trainer;
  TRY(trainer_not_busy(t, "resumed", err));
  if (c->sequences)
    return fail(err, UNROLL_E_STATE, "the model has its sequences already");
  if (unroll_sequences_features(sequences) < 1 || !unroll_sequences_labels(sequences))
    return fail(err, UNROLL_E_INVALID, "unroll_classifier_resume: the sequences have no %s",
                unroll_sequences_features(sequences) < 1 ? "numbers" : "labels");
  const uint64_t hash = classifier_data_hash(sequences);
  if (hash != c->data_hash || unroll_sequences_count(sequences) != c->n_sequences)
    return fail(err, UNROLL_E_STATE,
                "other sequences than the model was trained on: hash %016llx of %lld, the model's is %016llx of %lld",
                (unsigned long long)hash, (long long)unroll_sequences_count(sequences),
                (unsigned long long)c->data_hash, (long long)c->n_sequences);
  TRY(trainer_upload(t, err));
  const unroll_status status = classifier_attach(c, sequences, false, err);
  if (status != UNROLL_OK) {
    trainer_program_free(&t->train);
    return status;
  }
  trainer_forget_stored(t);
  return UNROLL_OK;
}
