/* SPDX-License-Identifier: Apache-2.0 */
/* A translator's file. */
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "train/translate_private.h"

#define KIND "translator"
#define COUNT(array) (sizeof(array) / sizeof(array)[0])
#define OWN(member) offsetof(struct metadata, member)

/* The values of a model's metadata; texts are the owner's to free. */
struct metadata {
  unroll_translator_options options;
  struct translator_reinforce reinforce;
  struct trainer_position position;
  int64_t bidirectional, pairs;
  int32_t decoder; /* DECODER_* */
  uint64_t data_hash, split_hash;
  const char *sources, *targets, *by_place; /* numbers, a blank between two */
};

static const char *pick_name(int32_t pick) {
  return pick == UNROLL_PICK_GREEDY ? "greedy" : pick == UNROLL_PICK_SAMPLE ? "sample" : NULL;
}
static const char *baseline_name(int32_t baseline) {
  return baseline == 0 ? "none" : baseline == UNROLL_BASELINE_MEAN ? "mean" : "greedy";
}

/* Files from before decoders took the options of cells say nothing, and theirs are plain. */
enum { DECODER_PLAIN = 0, DECODER_ALIKE = 1 };
static const char *decoder_name(int32_t decoder) {
  return decoder == DECODER_PLAIN ? "plain" : decoder == DECODER_ALIKE ? "as_encoder" : NULL;
}

enum { GROUP_SAMPLING = 1, GROUP_CURRICULUM, GROUP_REINFORCE };
enum { GROUP_DECODER = 1 };

static const struct trainer_field model_fields[] = {
    {"bidirectional", FIELD_EXTENT, OWN(bidirectional), NULL, 0, 0, 0, 0},
    {"encoder_hidden", FIELD_EXTENT, OWN(options.encoder_hidden), NULL, 0, 0, 0, 0},
    {"embedding", FIELD_EXTENT, OWN(options.embedding), NULL, 0, 0, 0, 0},
    {"attention", FIELD_NAME, OWN(options.attention), unroll_attention_name, 0, UNROLL_ATTENTION_COUNT, 0, 0},
    {"context", FIELD_NAME, OWN(options.context), unroll_context_name, 0, UNROLL_CONTEXT_FEEDING + 1, 0, 0},
    {"attention_units", FIELD_EXTENT, OWN(options.attention_units), NULL, 0, 0, 0, 0},
    {"source_lengths", FIELD_TEXT, OWN(sources), NULL, 0, 0, 0, 0},
    {"target_lengths", FIELD_TEXT, OWN(targets), NULL, 0, 0, 0, 0},
    {"decoder", FIELD_NAME, OWN(decoder), decoder_name, 0, 2, GROUP_DECODER, DECODER_PLAIN},
};
static const struct trainer_field training_fields[] = {
    {"testing", FIELD_REAL, OWN(options.testing), NULL, 0, 0, 0, 0},
    {"sampling", FIELD_NAME, OWN(options.sampling.kind), unroll_sampling_name, 0, UNROLL_SAMPLING_INVERSE_SIGMOID + 1,
     GROUP_SAMPLING, UNROLL_SAMPLING_LINEAR},
    {"sampling_start", FIELD_REAL, OWN(options.sampling.start), NULL, 0, 0, GROUP_SAMPLING, 1},
    {"sampling_rate", FIELD_REAL, OWN(options.sampling.rate), NULL, 0, 0, GROUP_SAMPLING, 0},
    {"sampling_least", FIELD_REAL, OWN(options.sampling.least), NULL, 0, 0, GROUP_SAMPLING, 0},
    {"sampling_pick", FIELD_NAME, OWN(options.sampling_pick), pick_name, 0, 2, GROUP_SAMPLING, 0},
    {"steps_start", FIELD_EXTENT, OWN(options.steps_start), NULL, 0, 0, GROUP_CURRICULUM, 0},
    {"steps_increment", FIELD_EXTENT, OWN(options.steps_increment), NULL, 0, 0, GROUP_CURRICULUM, 0},
    {"reinforce", FIELD_NAME, OWN(reinforce.baseline), baseline_name, 0, 3, GROUP_REINFORCE, 0},
    {"reinforce_seed", FIELD_COUNT, OWN(reinforce.seed), NULL, 0, 0, GROUP_REINFORCE, 0},
    {"reinforce_decay", FIELD_REAL, OWN(reinforce.decay), NULL, 0, 0, GROUP_REINFORCE, 0},
    {"reinforce_mean", FIELD_REAL, OWN(reinforce.value), NULL, 0, 0, GROUP_REINFORCE, 0},
    {"reinforce_updates", FIELD_EXTENT, OWN(reinforce.seen), NULL, 0, 0, GROUP_REINFORCE, 0},
};
static const struct trainer_field data_fields[] = {
    {"hash", FIELD_HASH, OWN(data_hash), NULL, 0, 0, 0, 0},
    {"split", FIELD_HASH, OWN(split_hash), NULL, 0, 0, 0, 0},
    {"pairs", FIELD_EXTENT, OWN(pairs), NULL, 0, 0, 0, 0},
    {"by_place", FIELD_TEXT, OWN(by_place), NULL, 0, 0, 0, 0},
};

/* Of all objects; their tables point into m. */
struct sections {
  struct trainer_fields model[2], training[3], data;
};
static struct sections sections_of(struct metadata *m) {
  return (struct sections){{trainer_rnn_model_fields(&m->options.rnn), {model_fields, COUNT(model_fields), m}},
                           {trainer_rnn_training_fields(&m->options.rnn),
                            trainer_option_fields(&m->options.training),
                            {training_fields, COUNT(training_fields), m}},
                           {data_fields, COUNT(data_fields), m}};
}

static void free_texts(const unroll_allocator *a, const struct metadata *m) {
  mem_free(a, (void *)(uintptr_t)m->sources);
  mem_free(a, (void *)(uintptr_t)m->targets);
  mem_free(a, (void *)(uintptr_t)m->by_place);
}

/* ---- writing ---- */

static unroll_status list_texts(const unroll_translator *t, struct metadata *m, unroll_error *err) {
  struct text lists[3];
  for (int i = 0; i < 3; i++)
    text_init(&lists[i], &t->trainer.allocator);
  for (uint32_t i = 0; i < t->n_classes; i++) {
    text_add(&lists[0], "%s%lld", i ? " " : "", (long long)t->classes[i].source);
    text_add(&lists[1], "%s%lld", i ? " " : "", (long long)t->classes[i].target);
  }
  for (int32_t i = 0; i < unroll_tokens_count(t->sources); i++)
    text_add(&lists[2], "%s%d", i ? " " : "", t->by_place[i]);
  m->sources = text_take(&lists[0]);
  m->targets = text_take(&lists[1]);
  m->by_place = text_take(&lists[2]);
  return m->sources && m->targets && m->by_place
             ? UNROLL_OK
             : fail(err, UNROLL_E_MEMORY, "model: no memory for its tables as text");
}

static unroll_status write_all(const unroll_translator *t, struct metadata *m, unroll_safetensors_writer *writer,
                               unroll_error *err) {
  const unroll_allocator *a = &t->trainer.allocator;
  const struct sections s = sections_of(m);
  TRY(list_texts(t, m, err));
  TRY(trainer_metadata_begin(writer, KIND, err));
  TRY(unroll_safetensors_writer_metadata(writer, "unroll.sources", unroll_tokens_json(t->sources), err));
  TRY(unroll_safetensors_writer_metadata(writer, "unroll.targets", unroll_tokens_json(t->targets), err));
  TRY(trainer_metadata_write(writer, "unroll.model", s.model, COUNT(s.model), a, err));
  TRY(trainer_metadata_write(writer, "unroll.training", s.training, COUNT(s.training), a, err));
  TRY(trainer_position_write(&t->trainer, writer, err));
  return trainer_metadata_write(writer, "unroll.data", &s.data, 1, a, err);
}

unroll_status translator_metadata_write(const void *owner, unroll_safetensors_writer *writer, unroll_error *err) {
  const unroll_translator *t = owner;
  struct metadata m = {.options = translator_options_in_use(t),
                       .reinforce = t->reinforce,
                       .bidirectional = t->options.bidirectional != 0,
                       .decoder = !t->options.plain_decoder && !trainer_rnn_is_plain(&t->options.rnn) ? DECODER_ALIKE
                                                                                                      : DECODER_PLAIN,
                       .pairs = t->n_pairs,
                       .data_hash = t->data_hash,
                       .split_hash = t->split_hash};
  const unroll_status status = write_all(t, &m, writer, err);
  free_texts(&t->trainer.allocator, &m);
  return status;
}

unroll_status unroll_translator_save(unroll_translator *t, const char *path, unroll_error *err) {
  if (!t || !path)
    return fail(err, UNROLL_E_INVALID, "unroll_translator_save: %s is NULL", t ? "path" : "the model");
  return trainer_save(&t->trainer, path, err);
}

/* ---- reading ---- */

static unroll_status bad_list(const char *key, const char *list, unroll_error *err) {
  return fail(err, UNROLL_E_FORMAT, "metadata: %s: '%.60s' is no list of numbers as it should be", key, list);
}

/* The next whole number of a list, 0 to most; *list moves behind it. */
static bool next_number(const char **list, long long most, long long *value) {
  char *end;
  if (**list < '0' || **list > '9')
    return false;
  errno = 0;
  *value = strtoll(*list, &end, 10);
  const bool ok = errno == 0 && *value <= most && (*end == '\0' || (*end == ' ' && end[1] != '\0'));
  *list = end + (*end == ' ');
  return ok;
}

static unroll_status read_classes(unroll_translator *t, const struct metadata *m, unroll_error *err) {
  const char *sources = m->sources, *targets = m->targets;
  const struct translator_class *before = NULL;
  while (*sources) {
    long long source, target;
    if (t->n_classes == TRANSLATOR_CLASSES || !next_number(&sources, TRANSLATOR_MOST, &source) || source < 1 ||
        (before && source <= before->source))
      return bad_list("source_lengths", m->sources, err);
    if (!next_number(&targets, TRANSLATOR_MOST, &target) || target < 1 || (before && target < before->target))
      return bad_list("target_lengths", m->targets, err);
    t->classes[t->n_classes] = (struct translator_class){source, target};
    before = &t->classes[t->n_classes++];
  }
  if (*targets || !before)
    return bad_list(before ? "target_lengths" : "source_lengths", before ? m->targets : m->sources, err);
  return UNROLL_OK;
}

static unroll_status read_table(unroll_translator *t, const char *list, unroll_error *err) {
  const int32_t n = unroll_tokens_count(t->sources), V = unroll_tokens_count(t->targets);
  const char *const all = list;
  t->by_place = mem_array(&t->trainer.allocator, (uint64_t)n, sizeof *t->by_place);
  if (!t->by_place)
    return fail(err, UNROLL_E_MEMORY, "no memory for %d numbers", n);
  for (int32_t i = 0; i < n; i++) {
    long long id;
    if (!next_number(&list, V - 1, &id))
      return bad_list("by_place", all, err);
    t->by_place[i] = (int32_t)id;
  }
  return *list ? bad_list("by_place", all, err) : UNROLL_OK;
}

/* A vocabulary with these specials, which stand before all others. */
static unroll_status read_tokens(const unroll_translator *t, const unroll_safetensors *file, const char *key,
                                 uint32_t specials, unroll_tokens **tokens, unroll_error *err) {
  const char *json = unroll_safetensors_metadata(file, key);
  if (!json)
    return fail(err, UNROLL_E_FORMAT, "no metadata %s", key);
  unroll_error inner = UNROLL_ERROR_INIT;
  const unroll_status status = unroll_tokens_from_json(json, strlen(json), &t->trainer.allocator, tokens, &inner);
  if (status != UNROLL_OK)
    return fail(err, status, "metadata %s: %s", key, inner.message);
  uint32_t found = 0;
  for (int32_t kind = 0; kind < UNROLL_TOKEN_KINDS; kind++)
    found |= unroll_tokens_special(*tokens, kind) >= 0 ? UNROLL_TOKEN_BIT(kind) : 0;
  if (found != specials)
    return fail(err, UNROLL_E_FORMAT, "metadata %s: other special tokens than a translator's", key);
  return UNROLL_OK;
}

static unroll_status read_metadata(unroll_translator *t, const unroll_safetensors *file, struct metadata *m,
                                   unroll_error *err) {
  const unroll_allocator *a = &t->trainer.allocator;
  const struct sections s = sections_of(m);
  const uint32_t unknown = UNROLL_TOKEN_BIT(UNROLL_TOKEN_UNKNOWN);
  TRY(trainer_metadata_check(file, KIND, err));
  TRY(trainer_metadata_read(file, "unroll.model", s.model, COUNT(s.model), a, err));
  TRY(trainer_metadata_read(file, "unroll.training", s.training, COUNT(s.training), a, err));
  TRY(trainer_position_read(file, a, &m->position, err));
  TRY(trainer_metadata_read(file, "unroll.data", &s.data, 1, a, err));
  TRY(read_tokens(t, file, "unroll.sources", unknown, &t->sources, err));
  TRY(read_tokens(t, file, "unroll.targets", unknown | UNROLL_TOKEN_BIT(UNROLL_TOKEN_END), &t->targets, err));
  TRY(read_classes(t, m, err));
  return read_table(t, m->by_place, err);
}

/* What the metadata say, once it is right. */
static unroll_status take(unroll_translator *t, const struct metadata *m, unroll_error *err) {
  unroll_translator_options o = m->options;
  unroll_error inner = UNROLL_ERROR_INIT;
  if (m->bidirectional > 1)
    return fail(err, UNROLL_E_FORMAT, "metadata: bidirectional %lld: out of its range", (long long)m->bidirectional);
  o.bidirectional = (int32_t)m->bidirectional;
  o.plain_decoder = m->decoder == DECODER_PLAIN && !trainer_rnn_is_plain(&o.rnn);
  o.source_unit = unroll_tokens_unit(t->sources);
  o.target_unit = unroll_tokens_unit(t->targets);
  t->options = o;
  if (translator_options_check(&o, &inner) != UNROLL_OK || translator_extents_check(t, &inner) != UNROLL_OK ||
      (m->reinforce.baseline && translator_reinforce_check(&m->reinforce, &inner) != UNROLL_OK))
    return fail(err, UNROLL_E_FORMAT, "metadata: %s", inner.message);
  t->reinforce = m->reinforce;
  t->n_pairs = m->pairs;
  t->data_hash = m->data_hash;
  t->split_hash = m->split_hash;
  trainer_take_position(&t->trainer, &m->position);
  translator_set_task(t);
  return UNROLL_OK;
}

static unroll_status read_model(void *model, const unroll_safetensors *file, unroll_error *err) {
  unroll_translator *t = model;
  struct metadata m = {.options = {.struct_size = sizeof m.options,
                                   .sampling = unroll_translator_options_default().sampling,
                                   .training = {.loss_scale = 1, .accumulate = 1}}};
  unroll_status status = read_metadata(t, file, &m, err);
  t->trainer.options = m.options.training; /* with its texts */
  if (status == UNROLL_OK)
    status = take(t, &m, err);
  free_texts(&t->trainer.allocator, &m);
  return status == UNROLL_OK ? trainer_read_tensors(&t->trainer, file, err) : status;
}

unroll_status unroll_translator_load(unroll_device *const *devices, uint32_t n_devices, const char *path,
                                     const unroll_allocator *allocator, unroll_translator **out, unroll_error *err) {
  if (!path || !out)
    return fail(err, UNROLL_E_INVALID, "unroll_translator_load: %s is NULL", path ? "translator" : "path");
  unroll_translator *t = NULL;
  TRY(translator_begin(devices, n_devices, allocator, &t, err));
  const unroll_status status = trainer_read_file(&t->trainer, path, read_model, t, err);
  if (status == UNROLL_OK)
    *out = t;
  else
    unroll_translator_destroy(t);
  return status;
}

unroll_status unroll_translator_resume(unroll_translator *t, const unroll_pairs *pairs, unroll_error *err) {
  if (!t || !pairs)
    return fail(err, UNROLL_E_INVALID, "unroll_translator_resume: %s is NULL", t ? "pairs" : "the model");
  struct trainer *r = &t->trainer;
  TRY(trainer_not_busy(r, "resumed", err));
  if (r->ready)
    return fail(err, UNROLL_E_STATE, "the model has its pairs already");
  const uint64_t hash = translator_data_hash(pairs);
  if (hash != t->data_hash || unroll_pairs_count(pairs) != t->n_pairs)
    return fail(err, UNROLL_E_STATE,
                "other pairs than the model was trained on: hash %016llx of %lld, the model's is %016llx of %lld",
                (unsigned long long)hash, (long long)unroll_pairs_count(pairs), (unsigned long long)t->data_hash,
                (long long)t->n_pairs);
  translator_programs_free(t); /* their parameters are copies of the stored ones */
  TRY(trainer_upload(r, err));
  const unroll_status status = translator_attach(t, pairs, false, err);
  if (status != UNROLL_OK) {
    trainer_program_free(&r->train);
    return status;
  }
  trainer_forget_stored(r);
  return UNROLL_OK;
}
