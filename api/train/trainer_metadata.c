/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/json.h"
#include "train/trainer.h"

#define FORMAT_VERSION 1
#define COUNT(array) (sizeof(array) / sizeof(array)[0])

/* ---- the trainer's own fields ---- */

#define AT(member) offsetof(unroll_training, member)
enum { GROUP_SCALE = 1, GROUP_ACCUMULATE, GROUP_WARMUP, GROUP_NONFINITE, GROUP_FREEZE, GROUP_L2, GROUP_DECAY };

static const struct trainer_field option_fields[] = {
    {"batch", FIELD_EXTENT, AT(batch), NULL, 0, 0, 0, 0},
    {"clip", FIELD_REAL, AT(clip), NULL, 0, 0, 0, 0},
    {"validation", FIELD_REAL, AT(validation), NULL, 0, 0, 0, 0},
    {"seed", FIELD_COUNT, AT(seed), NULL, 0, 0, 0, 0},
    {"optimizer", FIELD_NAME, AT(optimizer.kind), trainer_optimizer_name, 0, UNROLL_OPTIMIZER_COUNT, 0, 0},
    {"beta1", FIELD_REAL, AT(optimizer.beta1), NULL, 0, 0, 0, 0},
    {"beta2", FIELD_REAL, AT(optimizer.beta2), NULL, 0, 0, 0, 0},
    {"epsilon", FIELD_REAL, AT(optimizer.epsilon), NULL, 0, 0, 0, 0},
    {"weight_decay", FIELD_REAL, AT(optimizer.weight_decay), NULL, 0, 0, 0, 0},
    {"schedule", FIELD_NAME, AT(schedule.kind), unroll_schedule_name, 0, UNROLL_SCHEDULE_COUNT, 0, 0},
    {"learning_rate", FIELD_REAL, AT(schedule.base), NULL, 0, 0, 0, 0},
    {"decay", FIELD_REAL, AT(schedule.decay), NULL, 0, 0, 0, 0},
    {"minimum", FIELD_REAL, AT(schedule.minimum), NULL, 0, 0, 0, 0},
    {"total", FIELD_REAL, AT(schedule.total), NULL, 0, 0, 0, 0},
    {"loss_scale", FIELD_REAL, AT(loss_scale), NULL, 0, 0, GROUP_SCALE, 1},
    {"loss_scale_interval", FIELD_EXTENT, AT(loss_scale_interval), NULL, 0, 0, GROUP_SCALE, 0},
    {"accumulate", FIELD_EXTENT, AT(accumulate), NULL, 0, 0, GROUP_ACCUMULATE, 1},
    {"warmup", FIELD_EXTENT, AT(warmup), NULL, 0, 0, GROUP_WARMUP, 0},
    {"nonfinite", FIELD_NAME, AT(nonfinite), trainer_nonfinite_name, 0, UNROLL_NONFINITE_COUNT, GROUP_NONFINITE, 0},
    {"freeze", FIELD_TEXT, AT(freeze), NULL, 0, 0, GROUP_FREEZE, 0},
    {"l2", FIELD_TEXT, AT(l2), NULL, 0, 0, GROUP_L2, 0},
    {"recurrent_decay", FIELD_REAL, AT(recurrent_decay), NULL, 0, 0, GROUP_DECAY, 0},
};

struct trainer_fields trainer_option_fields(unroll_training *o) {
  return (struct trainer_fields){option_fields, COUNT(option_fields), o};
}

static const struct trainer_field position_fields[] = {
    {"update", FIELD_COUNT, offsetof(struct trainer_position, update), NULL, 0, 0, 0, 0},
    {"best_update", FIELD_COUNT, offsetof(struct trainer_position, best_update), NULL, 0, 0, 0, 0},
    {"best_validation_loss", FIELD_LOSS, offsetof(struct trainer_position, best_loss), NULL, 0, 0, 0, 0},
    {"evaluations_since_best", FIELD_EXTENT, offsetof(struct trainer_position, stale), NULL, 0, 0, 1, 0},
};

/* ---- numbers ---- */

/* The locale decides a number's point, JSON wants a dot. */
bool trainer_add_real(struct text *t, double value) {
  const locale_t c = newlocale(LC_ALL_MASK, "C", (locale_t)0);
  if (c == (locale_t)0)
    return false;
  const locale_t before = uselocale(c);
  text_add(t, "%.17g", value);
  uselocale(before);
  freelocale(c);
  return true;
}

bool trainer_parse_real(const char *text, double *value, const char **stop) {
  const locale_t c = newlocale(LC_ALL_MASK, "C", (locale_t)0);
  if (c == (locale_t)0)
    return false;
  char *end = NULL;
  /* strtod alone would take what JSON does not: nan, hexadecimal, a plus. */
  const size_t digits = *text != '+' && *text != '.' ? strspn(text, "-0123456789.eE+") : 0;
  *value = digits > 0 ? strtod_l(text, &end, c) : 0;
  freelocale(c);
  *stop = end;
  return digits > 0 && end != text && end == text + digits && isfinite(*value);
}

/* ---- writing ---- */

/* A field's value; which member holds it, its type says. */
struct value {
  uint64_t whole;
  double real;
  int32_t name;
  const char *text;
};

static struct value value_of(const struct trainer_field *f, const void *base) {
  const char *at = (const char *)base + f->offset;
  struct value v = {0, 0, 0, NULL};
  switch (f->type) {
  case FIELD_EXTENT:
  case FIELD_COUNT:
  case FIELD_HASH: memcpy(&v.whole, at, sizeof v.whole); break;
  case FIELD_NAME: memcpy(&v.name, at, sizeof v.name); break;
  case FIELD_TEXT: memcpy(&v.text, at, sizeof v.text); break;
  default: memcpy(&v.real, at, sizeof v.real);
  }
  return v;
}

static bool is_standard(const struct trainer_field *f, const void *base) {
  const struct value v = value_of(f, base);
  switch (f->type) {
  case FIELD_EXTENT:
  case FIELD_COUNT:
  case FIELD_HASH: return v.whole == (uint64_t)f->standard;
  case FIELD_NAME: return v.name == (int32_t)f->standard;
  case FIELD_TEXT: return !v.text;
  default: return v.real == f->standard;
  }
}

static bool is_written(const struct trainer_fields *p, const struct trainer_field *f) {
  if (f->group == 0)
    return true;
  for (uint32_t i = 0; i < p->n; i++)
    if (p->fields[i].group == f->group && !is_standard(&p->fields[i], p->base))
      return true;
  return false;
}

static bool add_value(struct text *t, const struct trainer_field *f, const void *base) {
  const struct value v = value_of(f, base);
  switch (f->type) {
  case FIELD_EXTENT:
  case FIELD_COUNT: text_add(t, "%" PRIu64, v.whole); return true;
  case FIELD_HASH: text_add(t, "\"%016" PRIx64 "\"", v.whole); return true;
  case FIELD_NAME: text_add(t, "\"%s\"", f->name(v.name)); return true;
  case FIELD_TEXT: json_add_string(t, v.text); return true;
  case FIELD_LOSS:
    if (isnan(v.real)) {
      text_add(t, "null");
      return true;
    }
    return trainer_add_real(t, v.real);
  default: return trainer_add_real(t, v.real);
  }
}

unroll_status trainer_metadata_write(unroll_safetensors_writer *writer, const char *key,
                                     const struct trainer_fields *pieces, uint32_t n_pieces,
                                     const unroll_allocator *allocator, unroll_error *err) {
  struct text t;
  bool ok = true, first = true;
  text_init(&t, allocator);
  text_add(&t, "{");
  for (uint32_t k = 0; k < n_pieces; k++)
    for (uint32_t i = 0; i < pieces[k].n; i++) {
      const struct trainer_field *f = &pieces[k].fields[i];
      if (!is_written(&pieces[k], f))
        continue;
      text_add(&t, "%s\"%s\":", first ? "" : ",", f->key);
      ok = add_value(&t, f, pieces[k].base) && ok;
      first = false;
    }
  text_add(&t, "}");
  char *json = text_take(&t);
  const unroll_status status = ok && json ? unroll_safetensors_writer_metadata(writer, key, json, err)
                                          : fail(err, UNROLL_E_MEMORY, "model: no memory for the metadata %s", key);
  mem_free(allocator, json);
  return status;
}

unroll_status trainer_metadata_begin(unroll_safetensors_writer *writer, const char *kind, unroll_error *err) {
  char version[16];
  snprintf(version, sizeof version, "%d", FORMAT_VERSION);
  TRY(unroll_safetensors_writer_metadata(writer, "unroll.kind", kind, err));
  TRY(unroll_safetensors_writer_metadata(writer, "unroll.format", version, err));
  return unroll_safetensors_writer_metadata(writer, "unroll.version", unroll_version(), err);
}

unroll_status trainer_position_write(const struct trainer *t, unroll_safetensors_writer *writer, unroll_error *err) {
  struct trainer_position p = {t->update, t->best_update, t->best_loss, t->stale};
  const struct trainer_fields piece = {position_fields, COUNT(position_fields), &p};
  return trainer_metadata_write(writer, "unroll.position", &piece, 1, &t->allocator, err);
}

/* ---- reading ---- */

/* The text that j reads ends with a zero. */
static unroll_status read_real(struct json_reader *j, double *value, unroll_error *err) {
  (void)json_peek(j);
  const char *start = (const char *)j->data + j->at, *end;
  if (!trainer_parse_real(start, value, &end))
    return fail(err, UNROLL_E_FORMAT, "JSON, byte %zu: no finite number", j->at);
  j->at += (size_t)(end - start);
  return UNROLL_OK;
}

static unroll_status read_name(struct json_reader *j, const struct trainer_field *f, int32_t *value,
                               unroll_error *err) {
  TRY(json_string(j, err));
  for (int32_t i = f->first; i < f->end; i++) {
    const char *name = f->name(i); /* there may be gaps */
    if (name && strcmp(name, text_peek(&j->string)) == 0) {
      *value = i;
      return UNROLL_OK;
    }
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

static unroll_status read_text(struct json_reader *j, const struct trainer_field *f, const char **value,
                               const unroll_allocator *allocator, unroll_error *err) {
  TRY(json_string(j, err));
  *value = mem_strdup(allocator, text_peek(&j->string));
  return *value ? UNROLL_OK : fail(err, UNROLL_E_MEMORY, "no memory for %s", f->key);
}

static unroll_status read_value(struct json_reader *j, const struct trainer_field *f, void *base,
                                const unroll_allocator *allocator, unroll_error *err) {
  void *at = (char *)base + f->offset;
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
  case FIELD_TEXT: return read_text(j, f, at, allocator, err);
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

#define MAX_PIECES 4

static unroll_status read_object(struct json_reader *j, const struct trainer_fields *pieces, uint32_t n_pieces,
                                 const unroll_allocator *allocator, unroll_error *err) {
  uint64_t seen[MAX_PIECES] = {0};
  bool more = true;
  TRY(json_expect(j, '{', err));
  while (more) {
    TRY(json_string(j, err));
    const char *key = text_peek(&j->string);
    uint32_t k = 0, i = 0;
    for (; k < n_pieces; k++) {
      for (i = 0; i < pieces[k].n && strcmp(pieces[k].fields[i].key, key) != 0; i++)
        ;
      if (i < pieces[k].n)
        break;
    }
    if (k == n_pieces)
      return fail(err, UNROLL_E_FORMAT, "'%s' is no field that is known", key);
    const struct trainer_field *f = &pieces[k].fields[i];
    if (seen[k] >> i & 1)
      return fail(err, UNROLL_E_FORMAT, "%s stands there twice", f->key);
    seen[k] |= UINT64_C(1) << i;
    TRY(json_expect(j, ':', err));
    TRY(read_value(j, f, pieces[k].base, allocator, err));
    TRY(json_next(j, '}', &more, err));
  }
  for (uint32_t k = 0; k < n_pieces; k++)
    for (uint32_t i = 0; i < pieces[k].n; i++)
      if (pieces[k].fields[i].group == 0 && !(seen[k] >> i & 1))
        return fail(err, UNROLL_E_FORMAT, "%s is missing", pieces[k].fields[i].key);
  return json_end(j, err);
}

unroll_status trainer_metadata_read(const unroll_safetensors *file, const char *key,
                                    const struct trainer_fields *pieces, uint32_t n_pieces,
                                    const unroll_allocator *allocator, unroll_error *err) {
  const char *json = unroll_safetensors_metadata(file, key);
  if (!json)
    return fail(err, UNROLL_E_FORMAT, "no metadata %s", key);
  unroll_error inner = UNROLL_ERROR_INIT;
  struct json_reader j;
  json_reader_init(&j, json, strlen(json), allocator);
  const unroll_status status = read_object(&j, pieces, n_pieces, allocator, &inner);
  json_reader_free(&j);
  return status == UNROLL_OK ? UNROLL_OK : fail(err, status, "metadata %s: %s", key, inner.message);
}

unroll_status trainer_metadata_check(const unroll_safetensors *file, const char *expected, unroll_error *err) {
  const char *kind = unroll_safetensors_metadata(file, "unroll.kind");
  const char *format = unroll_safetensors_metadata(file, "unroll.format");
  if (!kind)
    return fail(err, UNROLL_E_FORMAT, "no model of unroll: it has no metadata unroll.kind");
  if (strcmp(kind, expected) != 0)
    return fail(err, UNROLL_E_FORMAT, "another kind of file: unroll.kind is '%s', not '%s'", kind, expected);
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
  return UNROLL_OK;
}

unroll_status trainer_position_read(const unroll_safetensors *file, const unroll_allocator *allocator,
                                    struct trainer_position *p, unroll_error *err) {
  *p = (struct trainer_position){.best_loss = (double)NAN};
  const struct trainer_fields piece = {position_fields, COUNT(position_fields), p};
  TRY(trainer_metadata_read(file, "unroll.position", &piece, 1, allocator, err));
  if (p->best_update > p->update)
    return fail(err, UNROLL_E_FORMAT, "metadata unroll.position: best_update %llu is after update %llu",
                (unsigned long long)p->best_update, (unsigned long long)p->update);
  return UNROLL_OK;
}
