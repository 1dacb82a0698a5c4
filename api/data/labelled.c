/* SPDX-License-Identifier: Apache-2.0 */
/* labelled.c: labelled sequences out of CSV. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "data/csv.h"
#include "data/sequences.h"
#include "data/tokens.h"
#include "data/utf8.h"

#define NO_COLUMN UINT32_MAX

struct labelled {
  struct csv csv;
  const unroll_labelled_options *options;
  unroll_sequences *sequences;
  struct token_set labels, names; /* names: those of the sequences, where a record is a step */
  uint32_t label, name;           /* their columns; NO_COLUMN: there is none */
  double *step;                   /* [features] */
};

static struct token_entry *entry_of(struct labelled *l, struct token_set *set, uint32_t column, unroll_error *err) {
  const char *text = csv_field(&l->csv, column);
  size_t size = strlen(text), blank = strspn(text, " \t");
  uint32_t entry = 0;
  text += blank;
  size -= blank;
  while (size > 0 && (text[size - 1] == ' ' || text[size - 1] == '\t'))
    size--;
  if (size == 0)
    (void)fail(err, UNROLL_E_FORMAT, "%s: line %" PRId64 ", %s is empty", SHOWN_PATH(l->csv.in.path), l->csv.line,
               SHOWN_COLUMN(&l->csv, column));
  else if (utf8_check(text, size) < size)
    (void)fail(err, UNROLL_E_FORMAT, "%s: line %" PRId64 ", %s: %s is not UTF-8", SHOWN_PATH(l->csv.in.path),
               l->csv.line, SHOWN_COLUMN(&l->csv, column), SHOWN(text, size));
  else if (!token_set_add(set, text, size, &entry))
    (void)fail(err, UNROLL_E_MEMORY, "no memory for a label");
  else
    return &set->entries[entry];
  return NULL;
}

/* The label of the record, as an entry of the set or, where labels are given, as an id of those. */
static unroll_status read_label(struct labelled *l, int32_t *label, unroll_error *err) {
  struct token_entry *e = entry_of(l, &l->labels, l->label, err);
  if (e == NULL)
    return err->code;
  *label = (int32_t)(e - l->labels.entries);
  if (l->options->labels == NULL)
    return UNROLL_OK;
  const char *text = token_set_text(&l->labels, (uint32_t)*label);
  *label = unroll_tokens_find(l->options->labels, text, e->size);
  if (*label < 0)
    return fail(err, UNROLL_E_NOT_FOUND, "%s: line %" PRId64 ", %s: label %s is none of the %" PRId32 " that are known",
                SHOWN_PATH(l->csv.in.path), l->csv.line, SHOWN_COLUMN(&l->csv, l->label), SHOWN(text, e->size),
                unroll_tokens_count(l->options->labels));
  return UNROLL_OK;
}

static unroll_status begin(struct labelled *l, int32_t label, unroll_error *err) {
  unroll_sequences *s = l->sequences;
  TRY(sequences_begin(s, err));
  if (l->options->unlabelled)
    return UNROLL_OK;
  if (!mem_grow(&s->allocator, &s->labels, &s->label_capacity, (uint32_t)s->count, sizeof *s->labels))
    return fail(err, UNROLL_E_MEMORY, "no memory for a label");
  s->labels[s->count - 1] = label;
  return UNROLL_OK;
}

/* The record is the next step of a sequence: which one, and does it fit? */
static unroll_status continue_sequence(struct labelled *l, int32_t label, unroll_error *err) {
  unroll_sequences *s = l->sequences;
  struct token_entry *e = entry_of(l, &l->names, l->name, err);
  if (e == NULL)
    return err->code;
  const char *name = token_set_text(&l->names, (uint32_t)(e - l->names.entries));
  if (e->count++ == 0) {
    e->id = (int32_t)s->count;
    return begin(l, label, err);
  }
  if (e->id != s->count - 1)
    return fail(err, UNROLL_E_FORMAT, "%s: line %" PRId64 ": sequence %s goes on where another one began",
                SHOWN_PATH(l->csv.in.path), l->csv.line, SHOWN(name, e->size));
  if (!l->options->unlabelled && s->labels[e->id] != label)
    return fail(err, UNROLL_E_FORMAT, "%s: line %" PRId64 ", %s: sequence %s has another label on the lines above",
                SHOWN_PATH(l->csv.in.path), l->csv.line, SHOWN_COLUMN(&l->csv, l->label), SHOWN(name, e->size));
  return UNROLL_OK;
}

static unroll_status read_record(struct labelled *l, unroll_error *err) {
  const bool steps = l->options->sequence != NULL;
  int32_t label = 0;
  if (!l->options->unlabelled)
    TRY(read_label(l, &label, err));
  TRY(steps ? continue_sequence(l, label, err) : begin(l, label, err));
  int64_t f = 0;
  for (uint32_t i = 0; i < l->csv.n; i++) {
    if (i == l->label || (steps && i == l->name))
      continue;
    const enum csv_kind kind = csv_number(&l->csv, csv_field(&l->csv, i), &l->step[f]);
    if (kind != CSV_NUMBER)
      return csv_no_number(&l->csv, i, kind, err);
    if (++f == l->sequences->features) {
      TRY(sequences_step(l->sequences, l->step, err));
      f = 0;
    }
  }
  return UNROLL_OK;
}

static unroll_status find_columns(struct labelled *l, int64_t *features, unroll_error *err) {
  const unroll_labelled_options *o = l->options;
  const char *path = l->csv.in.path;
  const int64_t labels = o->unlabelled ? 0 : 1;
  if (o->unlabelled)
    l->label = NO_COLUMN;
  else if (o->label != NULL)
    TRY(csv_column(&l->csv, o->label, &l->label, err));
  if (o->sequence == NULL) {
    const int64_t numbers = (int64_t)l->csv.n - labels;
    *features = o->features == 0 ? 1 : o->features;
    if (numbers < 1 || numbers % *features != 0)
      return fail(err, UNROLL_E_FORMAT,
                  "%s: %" PRId64 " columns%s, expected a multiple of the %" PRId64 " features of a step",
                  SHOWN_PATH(path), numbers, labels ? " beside the label" : "", *features);
    return UNROLL_OK;
  }
  TRY(csv_column(&l->csv, o->sequence, &l->name, err));
  if (l->name == l->label)
    return fail(err, UNROLL_E_FORMAT, "%s: %s has both the sequence and the label", SHOWN_PATH(path),
                SHOWN_COLUMN(&l->csv, l->label));
  *features = (int64_t)l->csv.n - 1 - labels;
  if (*features < 1 || (o->features != 0 && o->features != *features))
    return fail(err, UNROLL_E_FORMAT, "%s: %" PRId64 " columns beside sequence%s, expected %s%" PRId64,
                SHOWN_PATH(path), *features, labels ? " and label" : "", o->features == 0 ? "at least " : "",
                o->features == 0 ? 1 : o->features);
  return UNROLL_OK;
}

/* ---- ids of labels ---- */

struct ranked_label {
  const char *text;
  int64_t number;
  uint32_t entry;
};

static bool whole_number(const char *s, int64_t *number) {
  const bool negative = *s == '-';
  s += negative;
  const size_t n = strlen(s);
  if (n < 1 || n > 18 || strspn(s, "0123456789") != n)
    return false;
  *number = 0;
  for (; *s != 0; s++)
    *number = 10 * *number + (*s - '0');
  *number = negative ? -*number : *number;
  return true;
}

/* Labels that are not all numbers have a number of 0 each. */
static int by_number(const void *a, const void *b) {
  const struct ranked_label *x = a, *y = b;
  return x->number != y->number ? (x->number > y->number) - (x->number < y->number) : strcmp(x->text, y->text);
}

static unroll_status rank(struct labelled *l, struct ranked_label *ranked, uint32_t *order, unroll_error *err) {
  struct token_set *set = &l->labels;
  bool numbers = true;
  for (uint32_t i = 0; i < set->n; i++) {
    ranked[i] = (struct ranked_label){token_set_text(set, i), 0, i};
    numbers = numbers && whole_number(ranked[i].text, &ranked[i].number);
  }
  for (uint32_t i = 0; i < set->n && !numbers; i++)
    ranked[i].number = 0;
  qsort(ranked, set->n, sizeof *ranked, by_number);
  for (uint32_t i = 0; i < set->n; i++) {
    order[i] = ranked[i].entry;
    set->entries[order[i]].id = (int32_t)i;
  }
  unroll_sequences *s = l->sequences;
  for (int64_t i = 0; i < s->count; i++)
    s->labels[i] = set->entries[s->labels[i]].id;
  return tokens_of_set(set, order, set->n, &s->allocator, &s->names, err);
}

static unroll_status name_labels(struct labelled *l, unroll_error *err) {
  unroll_sequences *s = l->sequences;
  if (l->options->unlabelled)
    return UNROLL_OK;
  if (l->options->labels != NULL) {
    const char *json = unroll_tokens_json(l->options->labels);
    return unroll_tokens_from_json(json, strlen(json), &s->allocator, &s->names, err);
  }
  if (l->labels.n < 2)
    return fail(err, UNROLL_E_FORMAT, "%s: %s: all labels are %s; there must be at least two",
                SHOWN_PATH(l->csv.in.path), SHOWN_COLUMN(&l->csv, l->label),
                SHOWN(token_set_text(&l->labels, 0), l->labels.entries[0].size));
  struct ranked_label *ranked = mem_array(&s->allocator, l->labels.n, sizeof *ranked);
  uint32_t *order = mem_array(&s->allocator, l->labels.n, sizeof *order);
  const unroll_status status = ranked != NULL && order != NULL ? rank(l, ranked, order, err)
                                                               : fail(err, UNROLL_E_MEMORY, "no memory for labels");
  mem_free(&s->allocator, ranked);
  mem_free(&s->allocator, order);
  return status;
}

static unroll_status load(struct labelled *l, const char *path, const unroll_allocator *allocator, unroll_error *err) {
  TRY(csv_open(&l->csv, path, l->options->header, l->options->separator, allocator, err));
  int64_t features = 0;
  TRY(find_columns(l, &features, err));
  TRY(sequences_create(features, allocator, &l->sequences, err));
  l->step = mem_array(allocator, (uint64_t)features, sizeof *l->step);
  if (l->step == NULL)
    return fail(err, UNROLL_E_MEMORY, "no memory for a step of %" PRId64 " features", features);
  for (;;) {
    bool more = false;
    TRY(csv_next(&l->csv, &more, err));
    if (!more)
      break;
    TRY(read_record(l, err));
  }
  if (l->sequences->count == 0)
    return fail(err, UNROLL_E_FORMAT, "%s: a header and no record", SHOWN_PATH(path));
  TRY(name_labels(l, err));
  return sequences_finish(l->sequences, err);
}

unroll_status unroll_sequences_load(const char *path, const unroll_labelled_options *options,
                                    const unroll_allocator *allocator, unroll_sequences **sequences,
                                    unroll_error *err) {
  static const unroll_labelled_options defaults = {.struct_size = sizeof defaults};
  const unroll_labelled_options *o = options == NULL ? &defaults : options;
  if (path == NULL || sequences == NULL)
    return fail(err, UNROLL_E_INVALID, "unroll_sequences_load: %s is NULL", path == NULL ? "path" : "sequences");
  if (!UNROLL_HAS(unroll_labelled_options, o, labels))
    return fail(err, UNROLL_E_INVALID, "unroll_sequences_load: the options' struct_size is too small");
  if (o->features < 0 || o->features > INT32_MAX)
    return fail(err, UNROLL_E_RANGE, "unroll_sequences_load: %" PRId64 " features, expected 0 to %d", o->features,
                INT32_MAX);
  struct labelled l = {.csv = {.in = {.fd = -1, .allocator = allocator}},
                       .options = o,
                       .labels = {.allocator = allocator},
                       .names = {.allocator = allocator}};
  unroll_error why = UNROLL_ERROR_INIT; /* read where a function returns no status */
  const unroll_status status = load(&l, path, allocator, &why);
  csv_close(&l.csv);
  token_set_free(&l.labels);
  token_set_free(&l.names);
  mem_free(allocator, l.step);
  if (status != UNROLL_OK) {
    unroll_sequences_destroy(l.sequences);
    return fail_native(err, status, why.native, "%s", why.message);
  }
  *sequences = l.sequences;
  return UNROLL_OK;
}
