/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CSV (RFC 4180) as a stream of records, and its numbers.
 *
 *     struct csv c;
 *     TRY_GOTO(status, csv_open(&c, path, header, separator, allocator, err), end);
 *     bool more;
 *     for (;;) {
 *       TRY_GOTO(status, csv_next(&c, &more, err), end);
 *       if (!more) break;
 *       ... csv_field(&c, i), i < c.n ...
 *     }
 * end:
 *     csv_close(&c);
 */
#ifndef CSV_H
#define CSV_H
#include <locale.h>

#include "data/input.h"

struct csv {
  struct input in;
  char separator;
  struct bytes data;     /* the record's fields, each with a final NUL */
  uint32_t *starts;      /* [n] of the fields */
  uint32_t n, capacity;  /* fields of the record; every one has as many */
  int64_t line;          /* where the record begins */
  int64_t records;       /* so far, the header not counted */
  int64_t blank;         /* empty lines that are still to be given as records */
  bool held;             /* the record that is there was not given yet */
  char *names;           /* the header's, each with a final NUL; NULL: no header */
  uint32_t *name_starts; /* [n] */
  locale_t numbers;      /* the C locale */
};

/* header: UNROLL_HEADER_*; separator 0: a comma. Closed by csv_close, also where it fails. */
unroll_status csv_open(struct csv *c, const char *path, int32_t header, int32_t separator,
                       const unroll_allocator *allocator, unroll_error *err);
void csv_close(struct csv *c);
unroll_status csv_next(struct csv *c, bool *more, unroll_error *err);
const char *csv_field(const struct csv *c, uint32_t i);
/* The header's name of a column, or NULL. */
const char *csv_name(const struct csv *c, uint32_t i);
/* A column by its name, or else by its number from 1. */
unroll_status csv_column(const struct csv *c, const char *name, uint32_t *column, unroll_error *err);

enum csv_kind { CSV_NUMBER, CSV_HOLE, CSV_TEXT, CSV_INFINITE };
enum csv_kind csv_number(const struct csv *c, const char *text, double *value);
/* What a field that is no number is, for the field's column and record. */
unroll_status csv_no_number(const struct csv *c, uint32_t i, enum csv_kind kind, unroll_error *err);

/* "column 3 'value'" of a message. */
#define CSV_SHOWN 96
#define SHOWN_COLUMN(c, i) csv_shown((char[CSV_SHOWN]){0}, (c), (i))
const char *csv_shown(char to[CSV_SHOWN], const struct csv *c, uint32_t i);
#endif
