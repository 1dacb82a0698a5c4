/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fields of a report, read with their types checked. The first that is wrong is kept as a text that names it; what
 * comes after it is empty and still safe to look at. Memory is given back at once, by fields_free.
 */
#ifndef REPORT_FIELDS_H
#define REPORT_FIELDS_H
#include <jansson.h>

#include "chart.h"

typedef struct fields {
  struct fields_block *blocks;
  bool has_failed; /* a field was wrong, or no memory was left */
  char fault[320]; /* which, or "" */
  char place[120]; /* of the object that is being read: "gradient.layers[2]" */
} fields;

void fields_free(fields *f);
/* Zeroed; NULL: no memory, and f has failed. */
void *fields_alloc(fields *f, size_t n, size_t size);
__attribute__((format(printf, 2, 3))) void fields_enter(fields *f, const char *format, ...);
/* "PLACE.name is TYPE, expected ..." as the fault, unless there is one. */
__attribute__((format(printf, 3, 4))) void fields_fail(fields *f, const char *name, const char *format, ...);

/* What kind of JSON this is: "a string", "an array of 3"; NULL: "missing". */
const char *fields_kind(const json_t *json, char *text, size_t size);

/* Required; null counts as missing. */
const char *field_text(fields *f, const json_t *object, const char *name);
double field_number(fields *f, const json_t *object, const char *name);
const json_t *field_object(fields *f, const json_t *object, const char *name);
/* An array of any entries, and of objects alone. */
const json_t *field_array(fields *f, const json_t *object, const char *name);
const json_t *field_objects(fields *f, const json_t *object, const char *name);
/* An array of numbers; where `n` is not SIZE_MAX, of so many. */
series field_series(fields *f, const json_t *object, const char *name, size_t n);
/* An array of n rows of m numbers each; n or m SIZE_MAX: any, all rows alike. *rows and *columns are what was found. */
const double *field_matrix(fields *f, const json_t *object, const char *name, size_t n, size_t m, size_t *rows,
                           size_t *columns);
const char *const *field_texts(fields *f, const json_t *object, const char *name, size_t *n);

/* The same where the field may be absent or null: NULL, NaN, an empty series. */
const char *field_text_or(fields *f, const json_t *object, const char *name, const char *otherwise);
double field_number_or(fields *f, const json_t *object, const char *name, double otherwise);
series field_series_or_none(fields *f, const json_t *object, const char *name);
bool field_is_there(const json_t *object, const char *name);

#endif
