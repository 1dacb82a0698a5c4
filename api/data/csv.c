/* SPDX-License-Identifier: Apache-2.0 */
#include "data/csv.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unroll/datasets.h>

#include "data/utf8.h"

const char *csv_field(const struct csv *c, uint32_t i) { return c->data.data + c->starts[i]; }

const char *csv_name(const struct csv *c, uint32_t i) { return c->names == NULL ? NULL : c->names + c->name_starts[i]; }

const char *csv_shown(char to[CSV_SHOWN], const struct csv *c, uint32_t i) {
  const char *name = csv_name(c, i);
  if (name == NULL)
    (void)snprintf(to, CSV_SHOWN, "column %" PRIu32, i + 1);
  else
    (void)snprintf(to, CSV_SHOWN, "column %" PRIu32 " %s", i + 1, SHOWN(name, strlen(name)));
  return to;
}

/* ---- records ---- */

static unroll_status no_memory(const struct csv *c, unroll_error *err) {
  return fail(err, UNROLL_E_MEMORY, "%s: line %" PRId64 ": no memory for the record", SHOWN_PATH(c->in.path), c->line);
}

static unroll_status push(struct csv *c, int byte, unroll_error *err) {
  return bytes_push(c->in.allocator, &c->data, (char)byte) ? UNROLL_OK : no_memory(c, err);
}

/* A line end that starts with `byte`: its LF is taken where it is CR LF. */
static unroll_status line_end(struct csv *c, int byte, unroll_error *err) {
  if (byte != '\r')
    return UNROLL_OK;
  TRY(input_next(&c->in, &byte, err));
  if (byte != '\n')
    return fail(err, UNROLL_E_FORMAT, "%s: line %" PRId64 ": a carriage return without a line feed",
                SHOWN_PATH(c->in.path), c->line);
  return UNROLL_OK;
}

/* What stands in quotes, after the first one; *byte is what follows the last. */
static unroll_status quoted(struct csv *c, int *byte, unroll_error *err) {
  const int64_t line = c->in.line;
  for (;;) {
    TRY(input_next(&c->in, byte, err));
    if (*byte < 0)
      return fail(err, UNROLL_E_FORMAT, "%s: line %" PRId64 ": a quote that is never closed", SHOWN_PATH(c->in.path),
                  line);
    if (*byte == '"') {
      TRY(input_next(&c->in, byte, err));
      if (*byte != '"')
        break;
    }
    TRY(push(c, *byte, err));
  }
  if (*byte >= 0 && *byte != c->separator && *byte != '\n' && *byte != '\r')
    return fail(err, UNROLL_E_FORMAT, "%s: line %" PRId64 ": text behind a closing quote", SHOWN_PATH(c->in.path),
                c->in.line);
  return UNROLL_OK;
}

/* One field; *byte is what ended it: the separator, a line end, or -1. */
static unroll_status read_field(struct csv *c, int *byte, unroll_error *err) {
  if (c->n == INT32_MAX || c->data.size > INT32_MAX)
    return fail(err, UNROLL_E_RANGE, "%s: line %" PRId64 ": a record of more than %d bytes", SHOWN_PATH(c->in.path),
                c->line, INT32_MAX);
  if (!mem_grow(c->in.allocator, &c->starts, &c->capacity, c->n + 1, sizeof *c->starts))
    return no_memory(c, err);
  c->starts[c->n++] = (uint32_t)c->data.size;
  TRY(input_next(&c->in, byte, err));
  if (*byte == '"')
    TRY(quoted(c, byte, err));
  else
    while (*byte >= 0 && *byte != c->separator && *byte != '\n' && *byte != '\r') {
      if (*byte == '"')
        return fail(err, UNROLL_E_FORMAT,
                    "%s: line %" PRId64 ": a quote inside of a field that does not begin with one",
                    SHOWN_PATH(c->in.path), c->in.line);
      TRY(push(c, *byte, err));
      TRY(input_next(&c->in, byte, err));
    }
  return push(c, 0, err);
}

static unroll_status read_record(struct csv *c, unroll_error *err) {
  c->n = 0;
  c->data.size = 0;
  c->line = c->in.line;
  int byte = -1;
  do
    TRY(read_field(c, &byte, err));
  while (byte == c->separator);
  return line_end(c, byte, err);
}

/* Takes the empty lines that are next; *end: nothing is behind them. */
static unroll_status count_blank(struct csv *c, bool *end, unroll_error *err) {
  c->line = c->in.line;
  int byte = -1;
  for (;; c->blank++) {
    TRY(input_peek(&c->in, &byte, err));
    if (byte != '\n' && byte != '\r')
      break;
    TRY(input_next(&c->in, &byte, err));
    TRY(line_end(c, byte, err));
  }
  *end = byte < 0;
  return UNROLL_OK;
}

unroll_status csv_next(struct csv *c, bool *more, unroll_error *err) {
  *more = true;
  const uint32_t expected = c->n;
  if (c->held) {
    c->held = false;
    return UNROLL_OK;
  }
  if (c->blank == 0) {
    bool end = false;
    TRY(count_blank(c, &end, err));
    if (end) {
      *more = false;
      return UNROLL_OK;
    }
    if (c->blank > 0 && expected != 1)
      return fail(err, UNROLL_E_FORMAT, "%s: line %" PRId64 ": an empty line", SHOWN_PATH(c->in.path), c->line);
  } else {
    c->line++;
  }
  if (c->blank > 0) { /* records whose only field is empty */
    c->blank--;
    c->data.data[0] = 0;
    c->starts[0] = 0;
  } else {
    TRY(read_record(c, err));
  }
  if (expected != 0 && c->n != expected)
    return fail(err, UNROLL_E_FORMAT, "%s: line %" PRId64 ": %" PRIu32 " fields, the first record has %" PRIu32,
                SHOWN_PATH(c->in.path), c->line, c->n, expected);
  if (c->records++ == INT32_MAX)
    return fail(err, UNROLL_E_RANGE, "%s: line %" PRId64 ": more than %d records", SHOWN_PATH(c->in.path), c->line,
                INT32_MAX);
  return UNROLL_OK;
}

/* ---- the header ---- */

/* The record that is there becomes the header. */
static unroll_status take_names(struct csv *c, unroll_error *err) {
  for (uint32_t i = 0; i < c->n; i++) {
    const size_t size = strlen(csv_field(c, i));
    if (utf8_check(csv_field(c, i), size) < size)
      return fail(err, UNROLL_E_FORMAT, "%s: line %" PRId64 ": the name of column %" PRIu32 " is not UTF-8",
                  SHOWN_PATH(c->in.path), c->line, i + 1);
  }
  c->names = mem_alloc(c->in.allocator, c->data.size);
  c->name_starts = mem_array(c->in.allocator, c->n, sizeof *c->name_starts);
  if (c->names == NULL || c->name_starts == NULL)
    return no_memory(c, err);
  memcpy(c->names, c->data.data, (size_t)c->data.size);
  memcpy(c->name_starts, c->starts, c->n * sizeof *c->starts);
  return UNROLL_OK;
}

static bool looks_like_names(const struct csv *c) {
  bool text = false;
  for (uint32_t i = 0; i < c->n; i++) {
    double value;
    const enum csv_kind kind = csv_number(c, csv_field(c, i), &value);
    if (kind == CSV_NUMBER)
      return false;
    text = text || kind == CSV_TEXT;
  }
  return text;
}

static unroll_status begin(struct csv *c, int32_t header, unroll_error *err) {
  TRY(read_record(c, err));
  if (header == UNROLL_HEADER_YES || (header == UNROLL_HEADER_AUTO && looks_like_names(c)))
    return take_names(c, err);
  c->held = true;
  c->records = 1;
  return UNROLL_OK;
}

unroll_status csv_open(struct csv *c, const char *path, int32_t header, int32_t separator,
                       const unroll_allocator *allocator, unroll_error *err) {
  *c = (struct csv){.in = {.fd = -1, .allocator = allocator}, .separator = separator == 0 ? ',' : (char)separator};
  if (header < UNROLL_HEADER_AUTO || header > UNROLL_HEADER_NO)
    return fail(err, UNROLL_E_INVALID, "CSV: header is %" PRId32 ", not UNROLL_HEADER_AUTO, _YES or _NO", header);
  if (separator < 0 || separator > 126 || separator == '"' || separator == '\n' || separator == '\r')
    return fail(err, UNROLL_E_INVALID, "CSV: the separator is %" PRId32 ", not an ASCII character other than \" CR LF",
                separator);
  c->numbers = newlocale(LC_ALL_MASK, "C", (locale_t)0);
  if (c->numbers == (locale_t)0)
    return fail(err, UNROLL_E_MEMORY, "no memory to read numbers");
  TRY(input_open(&c->in, path, allocator, err));
  return begin(c, header, err);
}

void csv_close(struct csv *c) {
  const unroll_allocator *a = c->in.allocator;
  input_close(&c->in);
  mem_free(a, c->data.data);
  mem_free(a, c->starts);
  mem_free(a, c->names);
  mem_free(a, c->name_starts);
  if (c->numbers != (locale_t)0)
    freelocale(c->numbers);
  *c = (struct csv){.in = {.fd = -1, .allocator = a}};
}

static bool column_number(const char *name, uint32_t n, uint32_t *column) {
  uint64_t number = 0;
  for (const char *s = name; *s != 0; s++) {
    if (*s < '0' || *s > '9' || number > n)
      return false;
    number = 10 * number + (uint64_t)(*s - '0');
  }
  *column = (uint32_t)number - 1;
  return number >= 1 && number <= n;
}

unroll_status csv_column(const struct csv *c, const char *name, uint32_t *column, unroll_error *err) {
  uint32_t found = 0;
  for (uint32_t i = 0; c->names != NULL && i < c->n; i++)
    if (strcmp(csv_name(c, i), name) == 0 && found++ == 0)
      *column = i;
  if (found > 1)
    return fail(err, UNROLL_E_FORMAT, "%s: %" PRIu32 " columns have the name %s; ask for one by its number",
                SHOWN_PATH(c->in.path), found, SHOWN(name, strlen(name)));
  if (found == 1 || column_number(name, c->n, column))
    return UNROLL_OK;
  return fail(err, UNROLL_E_NOT_FOUND, "%s: no column %s: it has %s%" PRIu32 " columns", SHOWN_PATH(c->in.path),
              SHOWN(name, strlen(name)), c->names == NULL ? "no header and " : "", c->n);
}

/* ---- numbers ---- */

static size_t digits(const char *s) { return strspn(s, "0123456789"); }

/* The length of a decimal number at s, 0 where there is none: strtod alone takes hexadecimal and names too. */
static size_t number_length(const char *s) {
  const char *at = s + (*s == '-' || *s == '+');
  const size_t whole = digits(at);
  at += whole;
  if (*at == '.') {
    const size_t fraction = digits(at + 1);
    if (whole + fraction == 0)
      return 0;
    at += 1 + fraction;
  } else if (whole == 0) {
    return 0;
  }
  if (*at == 'e' || *at == 'E') {
    const char *exponent = at + 1 + (at[1] == '-' || at[1] == '+');
    if (digits(exponent) == 0)
      return 0;
    at = exponent + digits(exponent);
  }
  return (size_t)(at - s);
}

static bool is_word(const char *s, size_t n, const char *word) {
  return n == strlen(word) && strncasecmp(s, word, n) == 0;
}

enum csv_kind csv_number(const struct csv *c, const char *text, double *value) {
  static const char space[] = " \t\r\n";
  const char *s = text + strspn(text, space);
  size_t n = strlen(s);
  while (n > 0 && strchr(space, s[n - 1]) != NULL)
    n--;
  if (n == 0 || is_word(s, n, "NA") || is_word(s, n, "NaN") || is_word(s, n, "null"))
    return CSV_HOLE;
  const char *unsigned_part = s + (*s == '-' || *s == '+');
  const size_t rest = n - (size_t)(unsigned_part - s);
  if (is_word(unsigned_part, rest, "inf") || is_word(unsigned_part, rest, "infinity"))
    return CSV_INFINITE;
  if (number_length(s) != n)
    return CSV_TEXT;
  *value = strtod_l(s, NULL, c->numbers);
  return isfinite(*value) ? CSV_NUMBER : CSV_INFINITE;
}

unroll_status csv_no_number(const struct csv *c, uint32_t i, enum csv_kind kind, unroll_error *err) {
  const char *text = csv_field(c, i);
  return fail(err, UNROLL_E_FORMAT, "%s: line %" PRId64 ", %s: %s is %s", SHOWN_PATH(c->in.path), c->line,
              SHOWN_COLUMN(c, i), SHOWN(text, strlen(text)),
              kind == CSV_HOLE   ? "a hole where a number is expected"
              : kind == CSV_TEXT ? "not a number"
                                 : "not a finite number");
}
