/* SPDX-License-Identifier: Apache-2.0 */
#include "report_fields.h"

#include <math.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct fields_block {
  struct fields_block *next;
  max_align_t data[];
};

void fields_free(fields *f) {
  while (f->blocks) {
    struct fields_block *const next = f->blocks->next;
    free(f->blocks);
    f->blocks = next;
  }
  *f = (fields){0};
}

void *fields_alloc(fields *f, size_t n, size_t size) {
  struct fields_block *block =
      n > (SIZE_MAX - sizeof *block) / size ? NULL : calloc(1, sizeof *block + (n ? n : 1) * size);
  if (!block) {
    if (!f->has_failed)
      snprintf(f->fault, sizeof f->fault, "out of memory");
    f->has_failed = true;
    return NULL;
  }
  block->next = f->blocks;
  f->blocks = block;
  return block->data;
}

void fields_enter(fields *f, const char *format, ...) {
  va_list args;
  va_start(args, format);
  vsnprintf(f->place, sizeof f->place, format, args);
  va_end(args);
}

void fields_fail(fields *f, const char *name, const char *format, ...) {
  if (f->has_failed)
    return;
  f->has_failed = true;
  const int used = snprintf(f->fault, sizeof f->fault, "%s%s%s ", f->place, f->place[0] && name[0] ? "." : "", name);
  va_list args;
  va_start(args, format);
  if (used > 0 && (size_t)used < sizeof f->fault)
    vsnprintf(f->fault + used, sizeof f->fault - (size_t)used, format, args);
  va_end(args);
}

const char *fields_kind(const json_t *json, char *text, size_t size) {
  if (!json)
    return "missing";
  switch (json_typeof(json)) {
  case JSON_OBJECT: return "an object";
  case JSON_ARRAY: snprintf(text, size, "an array of %zu", json_array_size(json)); return text;
  case JSON_STRING: {
    const char *value = json_string_value(json);
    int shown = json_string_length(json) > 24 ? 24 : (int)json_string_length(json);
    while (value[shown] && ((unsigned char)value[shown] & 0xc0) == 0x80) /* not within a character */
      shown--;
    snprintf(text, size, "the string \"%.*s%s\"", shown, value, value[shown] ? "..." : "");
    return text;
  }
  case JSON_INTEGER:
  case JSON_REAL: snprintf(text, size, "the number %.6g", json_number_value(json)); return text;
  case JSON_TRUE: return "true";
  case JSON_FALSE: return "false";
  default: return "null";
  }
}

static const json_t *get(const json_t *object, const char *name) { return json_object_get(object, name); }

bool field_is_there(const json_t *object, const char *name) {
  const json_t *json = get(object, name);
  return json && !json_is_null(json);
}

static void fail_kind(fields *f, const json_t *json, const char *name, const char *expected) {
  char kind[80];
  fields_fail(f, name, "is %s, expected %s", fields_kind(json, kind, sizeof kind), expected);
}

/* false: it is no number, nor a string that stands for one. */
static bool to_number(const json_t *json, double *value) {
  if (json_is_number(json)) {
    *value = json_number_value(json);
    return true;
  }
  const char *text = json_string_value(json);
  if (!text)
    return false;
  *value = strcmp(text, "-inf") == 0 ? -INFINITY : strcmp(text, "inf") == 0 ? INFINITY : NAN;
  return !isnan(*value) || strcmp(text, "nan") == 0;
}

#define NUMBER "a number, \"inf\", \"-inf\" or \"nan\""

const char *field_text(fields *f, const json_t *object, const char *name) {
  const json_t *json = get(object, name);
  if (!json_is_string(json))
    fail_kind(f, json, name, "a string");
  return json_is_string(json) ? json_string_value(json) : "";
}

double field_number(fields *f, const json_t *object, const char *name) {
  double value = NAN;
  const json_t *json = get(object, name);
  if (!to_number(json, &value))
    fail_kind(f, json, name, NUMBER);
  return value;
}

const json_t *field_object(fields *f, const json_t *object, const char *name) {
  const json_t *json = get(object, name);
  if (!json_is_object(json))
    fail_kind(f, json, name, "an object");
  return json_is_object(json) ? json : NULL;
}

const json_t *field_array(fields *f, const json_t *object, const char *name) {
  const json_t *json = get(object, name);
  if (!json_is_array(json))
    fail_kind(f, json, name, "an array");
  return json_is_array(json) ? json : NULL;
}

const json_t *field_objects(fields *f, const json_t *object, const char *name) {
  const json_t *array = field_array(f, object, name);
  for (size_t i = 0; i < json_array_size(array); i++)
    if (!json_is_object(json_array_get(array, i))) {
      char at[64];
      snprintf(at, sizeof at, "%.40s[%zu]", name, i);
      fail_kind(f, json_array_get(array, i), at, "an object");
      return NULL;
    }
  return array;
}

/* The numbers of `array` into `to`; `name` is what messages call it. */
static bool read_numbers(fields *f, const json_t *array, const char *name, double *to) {
  for (size_t i = 0; i < json_array_size(array); i++)
    if (!to_number(json_array_get(array, i), &to[i])) {
      char at[80];
      snprintf(at, sizeof at, "%.56s[%zu]", name, i);
      fail_kind(f, json_array_get(array, i), at, NUMBER);
      return false;
    }
  return true;
}

series field_series(fields *f, const json_t *object, const char *name, size_t n) {
  const json_t *array = field_array(f, object, name);
  if (!array)
    return (series){0};
  const size_t found = json_array_size(array);
  if (n != SIZE_MAX && found != n) {
    fields_fail(f, name, "has %zu values, expected %zu", found, n);
    return (series){0};
  }
  double *v = fields_alloc(f, found, sizeof *v);
  if (!v || !read_numbers(f, array, name, v))
    return (series){0};
  return (series){v, found};
}

const double *field_matrix(fields *f, const json_t *object, const char *name, size_t n, size_t m, size_t *rows,
                           size_t *columns) {
  *rows = *columns = 0;
  const json_t *array = field_array(f, object, name);
  if (!array)
    return NULL;
  const size_t found = json_array_size(array);
  if (n != SIZE_MAX && found != n) {
    fields_fail(f, name, "has %zu rows, expected %zu", found, n);
    return NULL;
  }
  if (m == SIZE_MAX)
    m = json_array_size(json_array_get(array, 0));
  double *v = m && found > SIZE_MAX / m ? NULL : fields_alloc(f, found * m, sizeof *v);
  for (size_t i = 0; v && i < found; i++) {
    const json_t *row = json_array_get(array, i);
    char at[64];
    snprintf(at, sizeof at, "%.40s[%zu]", name, i);
    if (!json_is_array(row)) {
      fail_kind(f, row, at, "an array");
      return NULL;
    }
    if (json_array_size(row) != m) {
      fields_fail(f, at, "has %zu values, expected %zu", json_array_size(row), m);
      return NULL;
    }
    if (!read_numbers(f, row, at, v + i * m))
      return NULL;
  }
  if (v) {
    *rows = found;
    *columns = m;
  }
  return v;
}

const char *const *field_texts(fields *f, const json_t *object, const char *name, size_t *n) {
  *n = 0;
  const json_t *array = field_array(f, object, name);
  const size_t found = json_array_size(array);
  const char **texts = array ? fields_alloc(f, found, sizeof *texts) : NULL;
  if (!texts)
    return NULL;
  for (size_t i = 0; i < found; i++) {
    texts[i] = json_string_value(json_array_get(array, i));
    if (!texts[i]) {
      char at[64];
      snprintf(at, sizeof at, "%.40s[%zu]", name, i);
      fail_kind(f, json_array_get(array, i), at, "a string");
      return NULL;
    }
  }
  *n = found;
  return texts;
}

const char *field_text_or(fields *f, const json_t *object, const char *name, const char *otherwise) {
  return field_is_there(object, name) ? field_text(f, object, name) : otherwise;
}

double field_number_or(fields *f, const json_t *object, const char *name, double otherwise) {
  return field_is_there(object, name) ? field_number(f, object, name) : otherwise;
}

series field_series_or_none(fields *f, const json_t *object, const char *name) {
  return field_is_there(object, name) ? field_series(f, object, name, SIZE_MAX) : (series){0};
}
