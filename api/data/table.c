/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unroll/datasets.h>

#include "data/csv.h"
#include "data/utf8.h"

struct column {
  char *name;
  double *values;
  uint32_t at;       /* in the file */
  int64_t holes;     /* of the run that ends with the last row, still to be filled */
  int64_t hole_line; /* where that run began */
};

struct unroll_table {
  unroll_allocator allocator;
  struct column *columns;
  uint32_t n_columns;
  int64_t rows, capacity, holes;
  uint64_t hash;
};

void unroll_table_destroy(unroll_table *t) {
  if (t == NULL)
    return;
  const unroll_allocator a = t->allocator;
  for (uint32_t i = 0; i < t->n_columns; i++) {
    mem_free(&a, t->columns[i].name);
    mem_free(&a, t->columns[i].values);
  }
  mem_free(&a, t->columns);
  mem_free(&a, t);
}

static unroll_status make_columns(unroll_table *t, const struct csv *c, const unroll_csv_options *o,
                                  unroll_error *err) {
  const uint32_t n = o->columns == NULL ? c->n : o->n_columns;
  t->columns = mem_array(&t->allocator, n, sizeof *t->columns);
  if (t->columns == NULL)
    return fail(err, UNROLL_E_MEMORY, "no memory for a table of %" PRIu32 " columns", n);
  t->n_columns = n;
  for (uint32_t i = 0; i < n; i++) {
    struct column *column = &t->columns[i];
    column->at = i;
    if (o->columns != NULL) {
      if (o->columns[i] == NULL)
        return fail(err, UNROLL_E_INVALID, "unroll_table_load: the name of column %" PRIu32 " is NULL", i);
      TRY(csv_column(c, o->columns[i], &column->at, err));
    }
    const char *name = csv_name(c, column->at);
    column->name =
        name != NULL ? mem_strdup(&t->allocator, name) : mem_printf(&t->allocator, "%" PRIu32, column->at + 1);
    if (column->name == NULL)
      return fail(err, UNROLL_E_MEMORY, "no memory for the name of a column");
  }
  return UNROLL_OK;
}

static unroll_status grow(unroll_table *t, unroll_error *err) {
  if (t->rows < t->capacity)
    return UNROLL_OK;
  const int64_t capacity = t->capacity == 0 ? 256 : 2 * t->capacity;
  for (uint32_t i = 0; i < t->n_columns; i++) {
    double *values = mem_alloc(&t->allocator, (uint64_t)capacity * sizeof *values);
    if (values == NULL)
      return fail(err, UNROLL_E_MEMORY, "no memory for a table of %" PRId64 " rows", capacity);
    if (t->rows > 0)
      memcpy(values, t->columns[i].values, (size_t)t->rows * sizeof *values);
    mem_free(&t->allocator, t->columns[i].values);
    t->columns[i].values = values;
  }
  t->capacity = capacity;
  return UNROLL_OK;
}

static unroll_status no_neighbour(const struct csv *c, const struct column *column, const char *where,
                                  unroll_error *err) {
  return fail(err, UNROLL_E_FORMAT, "%s: line %" PRId64 ", %s: a hole with no number %s it", SHOWN_PATH(c->in.path),
              column->hole_line, SHOWN_COLUMN(c, column->at), where);
}

static unroll_status add_hole(unroll_table *t, const struct csv *c, struct column *column, int32_t holes,
                              unroll_error *err) {
  t->holes++;
  if (column->holes++ == 0)
    column->hole_line = c->line;
  if (holes == UNROLL_HOLES_ERROR)
    return csv_no_number(c, column->at, CSV_HOLE, err);
  column->values[t->rows] = NAN;
  if (holes != UNROLL_HOLES_KEEP && column->holes > t->rows)
    return no_neighbour(c, column, "before", err);
  if (holes == UNROLL_HOLES_FORWARD)
    column->values[t->rows] = column->values[t->rows - 1];
  return UNROLL_OK;
}

static void add_number(const unroll_table *t, struct column *column, int32_t holes, double value) {
  column->values[t->rows] = value;
  if (column->holes > 0 && holes == UNROLL_HOLES_INTERPOLATE) {
    double *from = column->values + t->rows - column->holes - 1;
    const double steps = (double)(column->holes + 1);
    for (int64_t k = 1; k <= column->holes; k++) /* a weighted sum: a difference may be past double's range */
      from[k] = from[0] * ((steps - (double)k) / steps) + value * ((double)k / steps);
  }
  column->holes = 0;
}

static unroll_status add_row(unroll_table *t, const struct csv *c, int32_t holes, unroll_error *err) {
  TRY(grow(t, err));
  for (uint32_t i = 0; i < t->n_columns; i++) {
    struct column *column = &t->columns[i];
    double value = 0;
    const enum csv_kind kind = csv_number(c, csv_field(c, column->at), &value);
    if (kind == CSV_NUMBER)
      add_number(t, column, holes, value);
    else if (kind == CSV_HOLE)
      TRY(add_hole(t, c, column, holes, err));
    else
      return csv_no_number(c, column->at, kind, err);
  }
  t->rows++;
  return UNROLL_OK;
}

static unroll_status load(unroll_table *t, struct csv *c, const char *path, const unroll_csv_options *o,
                          unroll_error *err) {
  TRY(csv_open(c, path, o->header, o->separator, &t->allocator, err));
  TRY(make_columns(t, c, o, err));
  for (;;) {
    bool more = false;
    TRY(csv_next(c, &more, err));
    if (!more)
      break;
    TRY(add_row(t, c, o->holes, err));
  }
  if (t->rows == 0)
    return fail(err, UNROLL_E_FORMAT, "%s: a header and no record", SHOWN_PATH(path));
  if (o->holes == UNROLL_HOLES_INTERPOLATE)
    for (uint32_t i = 0; i < t->n_columns; i++)
      if (t->columns[i].holes > 0)
        return no_neighbour(c, &t->columns[i], "behind", err);
  t->hash = c->in.hash;
  return UNROLL_OK;
}

unroll_status unroll_table_load(const char *path, const unroll_csv_options *options, const unroll_allocator *allocator,
                                unroll_table **table, unroll_error *err) {
  static const unroll_csv_options defaults = {.struct_size = sizeof defaults};
  const unroll_csv_options *o = options == NULL ? &defaults : options;
  if (path == NULL || table == NULL)
    return fail(err, UNROLL_E_INVALID, "unroll_table_load: %s is NULL", path == NULL ? "path" : "table");
  if (!UNROLL_HAS(unroll_csv_options, o, n_columns))
    return fail(err, UNROLL_E_INVALID, "unroll_table_load: the options' struct_size is too small");
  if (o->holes < UNROLL_HOLES_ERROR || o->holes > UNROLL_HOLES_KEEP)
    return fail(err, UNROLL_E_INVALID, "unroll_table_load: holes is %" PRId32 ", not one of UNROLL_HOLES_*", o->holes);
  if (o->columns != NULL && o->n_columns == 0)
    return fail(err, UNROLL_E_INVALID, "unroll_table_load: no column is asked for");
  unroll_table *t = mem_zalloc(allocator, sizeof *t);
  if (t == NULL)
    return fail(err, UNROLL_E_MEMORY, "no memory for a table");
  if (allocator != NULL)
    t->allocator = *allocator;
  struct csv c = {.in = {.fd = -1}};
  const unroll_status status = load(t, &c, path, o, err);
  csv_close(&c);
  if (status != UNROLL_OK) {
    unroll_table_destroy(t);
    return status;
  }
  *table = t;
  return UNROLL_OK;
}

int64_t unroll_table_rows(const unroll_table *t) { return t->rows; }

uint32_t unroll_table_columns(const unroll_table *t) { return t->n_columns; }

const char *unroll_table_name(const unroll_table *t, uint32_t column) {
  return column < t->n_columns ? t->columns[column].name : NULL;
}

const double *unroll_table_values(const unroll_table *t, uint32_t column) {
  return column < t->n_columns ? t->columns[column].values : NULL;
}

int64_t unroll_table_holes(const unroll_table *t) { return t->holes; }

uint64_t unroll_table_hash(const unroll_table *t) { return t->hash; }
