/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A model's metadata: flat JSON objects whose fields stand in tables. A field that is missing, double or unknown is an
 * error, so that no option of a file is silently ignored. The fields of the loss scale stand only in a model that has
 * one.
 */
#include <inttypes.h>
#include <locale.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/json.h"
#include "train/train_private.h"

#define FORMAT_VERSION 1
#define KIND "character language model"

enum field_type { FIELD_EXTENT, FIELD_COUNT, FIELD_HASH, FIELD_REAL, FIELD_LOSS, FIELD_NAME };

struct field {
  const char *key;
  enum field_type type;
  size_t offset; /* into struct lm_metadata */
  const char *(*name)(int32_t value);
  int32_t first, end; /* the range of the numbers that have names */
};

#define OPTION(member) offsetof(struct lm_metadata, options.member)
#define OWN(member) offsetof(struct lm_metadata, member)

static bool is_of_scale(const struct field *f) {
  return f->offset == OPTION(loss_scale) || f->offset == OPTION(loss_scale_interval);
}

static const struct field model_fields[] = {
    {"cell", FIELD_NAME, OPTION(cell), lm_cell_name, 1, UNROLL_CELL_COUNT},
    {"layers", FIELD_EXTENT, OPTION(layers), NULL, 0, 0},
    {"hidden", FIELD_EXTENT, OPTION(hidden), NULL, 0, 0},
    {"embedding", FIELD_EXTENT, OPTION(embedding), NULL, 0, 0},
    {"vocabulary", FIELD_COUNT, OWN(vocabulary), NULL, 0, 0},
    {NULL, FIELD_COUNT, 0, NULL, 0, 0},
};
static const struct field training_fields[] = {
    {"steps", FIELD_EXTENT, OPTION(steps), NULL, 0, 0},
    {"batch", FIELD_EXTENT, OPTION(batch), NULL, 0, 0},
    {"dropout", FIELD_REAL, OPTION(dropout), NULL, 0, 0},
    {"clip", FIELD_REAL, OPTION(clip), NULL, 0, 0},
    {"validation", FIELD_REAL, OPTION(validation), NULL, 0, 0},
    {"seed", FIELD_COUNT, OPTION(seed), NULL, 0, 0},
    {"optimizer", FIELD_NAME, OPTION(optimizer.kind), lm_optimizer_name, 0, UNROLL_OPTIMIZER_COUNT},
    {"beta1", FIELD_REAL, OPTION(optimizer.beta1), NULL, 0, 0},
    {"beta2", FIELD_REAL, OPTION(optimizer.beta2), NULL, 0, 0},
    {"epsilon", FIELD_REAL, OPTION(optimizer.epsilon), NULL, 0, 0},
    {"weight_decay", FIELD_REAL, OPTION(optimizer.weight_decay), NULL, 0, 0},
    {"schedule", FIELD_NAME, OPTION(schedule.kind), unroll_schedule_name, 0, UNROLL_SCHEDULE_COUNT},
    {"learning_rate", FIELD_REAL, OPTION(schedule.base), NULL, 0, 0},
    {"decay", FIELD_REAL, OPTION(schedule.decay), NULL, 0, 0},
    {"minimum", FIELD_REAL, OPTION(schedule.minimum), NULL, 0, 0},
    {"total", FIELD_REAL, OPTION(schedule.total), NULL, 0, 0},
    {"loss_scale", FIELD_REAL, OPTION(loss_scale), NULL, 0, 0},
    {"loss_scale_interval", FIELD_EXTENT, OPTION(loss_scale_interval), NULL, 0, 0},
    {NULL, FIELD_COUNT, 0, NULL, 0, 0},
};
static const struct field position_fields[] = {
    {"update", FIELD_COUNT, OWN(update), NULL, 0, 0},
    {"best_update", FIELD_COUNT, OWN(best_update), NULL, 0, 0},
    {"best_validation_loss", FIELD_LOSS, OWN(best_loss), NULL, 0, 0},
    {NULL, FIELD_COUNT, 0, NULL, 0, 0},
};
static const struct field text_fields[] = {
    {"hash", FIELD_HASH, OWN(text_hash), NULL, 0, 0},
    {"characters", FIELD_EXTENT, OWN(text_characters), NULL, 0, 0},
    {NULL, FIELD_COUNT, 0, NULL, 0, 0},
};

static const struct section {
  const char *key;
  const struct field *fields;
} sections[] = {
    {"unroll.model", model_fields},
    {"unroll.training", training_fields},
    {"unroll.position", position_fields},
    {"unroll.text", text_fields},
};

/* ---- writing ---- */

/* %.17g gives a double back as it was; the locale decides its point, JSON wants a dot. */
static bool add_real(struct text *t, double value) {
  const locale_t c = newlocale(LC_ALL_MASK, "C", (locale_t)0);
  if (c == (locale_t)0)
    return false;
  const locale_t before = uselocale(c);
  text_add(t, "%.17g", value);
  uselocale(before);
  freelocale(c);
  return true;
}

static bool add_value(struct text *t, const struct field *f, const struct lm_metadata *m) {
  const void *at = (const char *)m + f->offset;
  switch (f->type) {
  case FIELD_EXTENT: text_add(t, "%" PRId64, *(const int64_t *)at); return true;
  case FIELD_COUNT: text_add(t, "%" PRIu64, *(const uint64_t *)at); return true;
  case FIELD_HASH: text_add(t, "\"%016" PRIx64 "\"", *(const uint64_t *)at); return true;
  case FIELD_NAME: text_add(t, "\"%s\"", f->name(*(const int32_t *)at)); return true;
  case FIELD_LOSS:
    if (isnan(*(const double *)at)) {
      text_add(t, "null");
      return true;
    }
    return add_real(t, *(const double *)at);
  default: return add_real(t, *(const double *)at);
  }
}

static unroll_status write_section(const unroll_lm *lm, const struct section *s, const struct lm_metadata *m,
                                   unroll_safetensors_writer *writer, unroll_error *err) {
  struct text t;
  bool ok = true;
  text_init(&t, &lm->allocator);
  text_add(&t, "{");
  const bool scaled = m->options.loss_scale != 1 || lm_scale_is_dynamic(&m->options);
  for (const struct field *f = s->fields; f->key; f++) {
    if (is_of_scale(f) && !scaled)
      continue;
    text_add(&t, "%s\"%s\":", f == s->fields ? "" : ",", f->key);
    ok = add_value(&t, f, m) && ok;
  }
  text_add(&t, "}");
  char *json = text_take(&t);
  const unroll_status status = ok && json ? unroll_safetensors_writer_metadata(writer, s->key, json, err)
                                          : fail(err, UNROLL_E_MEMORY, "model: no memory for the metadata %s", s->key);
  mem_free(&lm->allocator, json);
  return status;
}

unroll_status lm_metadata_write(const unroll_lm *lm, unroll_safetensors_writer *writer, unroll_error *err) {
  const struct lm_metadata m = {.options = lm->options,
                                .vocabulary = (uint64_t)unroll_vocabulary_count(lm->vocabulary),
                                .update = lm->update,
                                .best_update = lm->best_update,
                                .text_hash = lm->text_hash,
                                .text_characters = lm->text_characters,
                                .best_loss = lm->best_loss};
  char version[16];
  snprintf(version, sizeof version, "%d", FORMAT_VERSION);
  TRY(unroll_safetensors_writer_metadata(writer, "unroll.kind", KIND, err));
  TRY(unroll_safetensors_writer_metadata(writer, "unroll.format", version, err));
  TRY(unroll_safetensors_writer_metadata(writer, "unroll.version", unroll_version(), err));
  TRY(unroll_safetensors_writer_metadata(writer, "unroll.vocabulary", unroll_vocabulary_json(lm->vocabulary), err));
  for (size_t i = 0; i < sizeof sections / sizeof sections[0]; i++)
    TRY(write_section(lm, &sections[i], &m, writer, err));
  return UNROLL_OK;
}

/* ---- reading ---- */

/* The text that j reads ends with a zero. */
static unroll_status read_real(struct json_reader *j, double *value, unroll_error *err) {
  (void)json_peek(j);
  const char *start = (const char *)j->data + j->at;
  const locale_t c = newlocale(LC_ALL_MASK, "C", (locale_t)0);
  if (c == (locale_t)0)
    return fail(err, UNROLL_E_MEMORY, "no memory to read a number");
  char *end = NULL;
  /* strtod alone would take what JSON does not: nan, hexadecimal, a plus. */
  const bool digits = strspn(start, "-0123456789.eE+") > 0 && *start != '+' && *start != '.';
  *value = digits ? strtod_l(start, &end, c) : 0;
  freelocale(c);
  if (!digits || end == start || end != start + strspn(start, "-0123456789.eE+") || !isfinite(*value))
    return fail(err, UNROLL_E_FORMAT, "JSON, byte %zu: no finite number", j->at);
  j->at += (size_t)(end - start);
  return UNROLL_OK;
}

static unroll_status read_name(struct json_reader *j, const struct field *f, int32_t *value, unroll_error *err) {
  TRY(json_string(j, err));
  for (int32_t i = f->first; i < f->end; i++)
    if (strcmp(f->name(i), text_peek(&j->string)) == 0) {
      *value = i;
      return UNROLL_OK;
    }
  return fail(err, UNROLL_E_FORMAT, "%s '%s' is none that is known", f->key, text_peek(&j->string));
}

static unroll_status read_hash(struct json_reader *j, uint64_t *value, unroll_error *err) {
  TRY(json_string(j, err));
  const char *s = text_peek(&j->string);
  if (strlen(s) != 16 || strspn(s, "0123456789abcdef") != 16)
    return fail(err, UNROLL_E_FORMAT, "hash '%s', it must be 16 hexadecimal digits", s);
  *value = strtoull(s, NULL, 16);
  return UNROLL_OK;
}

static unroll_status read_value(struct json_reader *j, const struct field *f, struct lm_metadata *m,
                                unroll_error *err) {
  void *at = (char *)m + f->offset;
  uint64_t count;
  switch (f->type) {
  case FIELD_EXTENT:
    TRY(json_number(j, &count, err));
    if (count > INT64_MAX)
      return fail(err, UNROLL_E_FORMAT, "%s %" PRIu64 " is past 2^63-1", f->key, count);
    *(int64_t *)at = (int64_t)count;
    return UNROLL_OK;
  case FIELD_COUNT: return json_number(j, at, err);
  case FIELD_HASH: return read_hash(j, at, err);
  case FIELD_NAME: return read_name(j, f, at, err);
  case FIELD_LOSS:
    if (json_peek(j) == 'n' && strncmp((const char *)j->data + j->at, "null", 4) == 0) {
      j->at += 4;
      *(double *)at = (double)NAN;
      return UNROLL_OK;
    }
    return read_real(j, at, err);
  default: return read_real(j, at, err);
  }
}

static unroll_status read_object(struct json_reader *j, const struct field *fields, struct lm_metadata *m,
                                 unroll_error *err) {
  uint32_t seen = 0;
  bool more = true;
  TRY(json_expect(j, '{', err));
  while (more) {
    TRY(json_string(j, err));
    const struct field *f = fields;
    while (f->key && strcmp(f->key, text_peek(&j->string)) != 0)
      f++;
    if (!f->key)
      return fail(err, UNROLL_E_FORMAT, "'%s' is no field that is known", text_peek(&j->string));
    const uint32_t bit = UINT32_C(1) << (f - fields);
    if (seen & bit)
      return fail(err, UNROLL_E_FORMAT, "%s stands there twice", f->key);
    seen |= bit;
    TRY(json_expect(j, ':', err));
    TRY(read_value(j, f, m, err));
    TRY(json_next(j, '}', &more, err));
  }
  for (const struct field *f = fields; f->key; f++)
    if (!is_of_scale(f) && !(seen & UINT32_C(1) << (f - fields)))
      return fail(err, UNROLL_E_FORMAT, "%s is missing", f->key);
  return json_end(j, err);
}

static unroll_status read_section(const unroll_safetensors *file, const struct section *s,
                                  const unroll_allocator *allocator, struct lm_metadata *m, unroll_error *err) {
  const char *json = unroll_safetensors_metadata(file, s->key);
  if (!json)
    return fail(err, UNROLL_E_FORMAT, "no metadata %s", s->key);
  unroll_error inner = UNROLL_ERROR_INIT;
  struct json_reader j;
  json_reader_init(&j, json, strlen(json), allocator);
  const unroll_status status = read_object(&j, s->fields, m, &inner);
  json_reader_free(&j);
  return status == UNROLL_OK ? UNROLL_OK : fail(err, status, "metadata %s: %s", s->key, inner.message);
}

unroll_status lm_metadata_read(const unroll_safetensors *file, const unroll_allocator *allocator, struct lm_metadata *m,
                               unroll_error *err) {
  const char *kind = unroll_safetensors_metadata(file, "unroll.kind");
  const char *format = unroll_safetensors_metadata(file, "unroll.format");
  if (!kind)
    return fail(err, UNROLL_E_FORMAT, "no model of unroll: it has no metadata unroll.kind");
  if (strcmp(kind, KIND) != 0)
    return fail(err, UNROLL_E_FORMAT, "another kind of file: unroll.kind is '%s', not '" KIND "'", kind);
  const size_t digits = format ? strspn(format, "0123456789") : 0;
  if (!format || digits == 0 || digits > 9 || format[digits] || format[0] == '0')
    return fail(err, UNROLL_E_FORMAT, "metadata unroll.format is '%s', it must be a number from 1 on",
                format ? format : "");
  if (strtol(format, NULL, 10) > FORMAT_VERSION) {
    const char *version = unroll_safetensors_metadata(file, "unroll.version");
    return fail(err, UNROLL_E_UNSUPPORTED,
                "format %s, written by unroll %s: newer than format %d, which unroll %s reads", format,
                version ? version : "of an unknown version", FORMAT_VERSION, unroll_version());
  }
  *m = (struct lm_metadata){.options = {.struct_size = sizeof m->options, .loss_scale = 1}};
  for (size_t i = 0; i < sizeof sections / sizeof sections[0]; i++)
    TRY(read_section(file, &sections[i], allocator, m, err));
  return UNROLL_OK;
}
