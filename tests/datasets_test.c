/* SPDX-License-Identifier: Apache-2.0 */
/* Tables and labelled sequences out of CSV, splits, shuffles and batches by length. */
#include "io_support.h"
#include <locale.h>
#include <math.h>
#include <unroll/datasets.h>

#define KEEP(text) (text), sizeof(text) - 1

static unroll_status table_of(const char *text, size_t size, const unroll_csv_options *o, unroll_table **t,
                              unroll_error *err) {
  put_file(in_folder("t.csv"), text, size);
  return unroll_table_load(in_folder("t.csv"), o, NULL, t, err);
}
#define TABLE(text, ...) \
  table_of(KEEP(text), &(unroll_csv_options){.struct_size = sizeof(unroll_csv_options), __VA_ARGS__}, &t, &err)
#define COLUMNS(...)                             \
  .columns = (const char *const[]){__VA_ARGS__}, \
  .n_columns = sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *)

static void column_is(const unroll_table *t, uint32_t column, const char *name, const double *want, int64_t rows) {
  assert_string_equal(unroll_table_name(t, column), name);
  assert_int_equal(unroll_table_rows(t), rows);
  for (int64_t i = 0; i < rows; i++)
    if (isnan(want[i]) ? !isnan(unroll_table_values(t, column)[i]) : unroll_table_values(t, column)[i] != want[i])
      fail_msg("%s[%d]: %g, expected %g", name, (int)i, unroll_table_values(t, column)[i], want[i]);
}

static void fields_and_quotes(void **state) {
  (void)state;
  unroll_table *t = NULL;
  assert_ok(TABLE("\xEF\xBB\xBF"
                  "\"a, or \"\"b\"\"\",text,c\r\n1.5,\"x\ny, z\",-2e3\r\n\"7\",,  .25 \r\n",
                  COLUMNS("c", "a, or \"b\"")));
  assert_int_equal(unroll_table_columns(t), 2);
  column_is(t, 0, "c", (double[]){-2000, 0.25}, 2);
  column_is(t, 1, "a, or \"b\"", (double[]){1.5, 7}, 2);
  assert_null(unroll_table_name(t, 2));
  assert_null(unroll_table_values(t, 2));
  unroll_table_destroy(t);

  /* no header, columns by number, another separator, no last line end */
  assert_ok(TABLE("1;x;3\n4;y;6", .separator = ';', COLUMNS("3", "1")));
  column_is(t, 0, "3", (double[]){3, 6}, 2);
  column_is(t, 1, "1", (double[]){1, 4}, 2);
  unroll_table_destroy(t);

  /* a header of numbers is one only where it is said so; empty lines at the end are none */
  assert_ok(TABLE("1990,1991\n1,2\n\n\r\n", .header = UNROLL_HEADER_YES));
  column_is(t, 1, "1991", (double[]){2}, 1);
  unroll_table_destroy(t);
  assert_ok(TABLE("1990,1991\n1,2\n", 0));
  column_is(t, 0, "1", (double[]){1990, 1}, 2);
  unroll_table_destroy(t);
  assert_ok(TABLE("+1e-310\n1.7976931348623157e308\n5.\n-0\n", 0));
  column_is(t, 0, "1", (double[]){1e-310, 1.7976931348623157e308, 5, 0}, 4);
  unroll_table_destroy(t);
}

/* A comma as the decimal point of the locale changes nothing. */
static void locales(void **state) {
  (void)state;
  static const char *const names[] = {"de_DE.UTF-8", "de_DE", "fr_FR.UTF-8"};
  for (int i = 0; i < 3 && setlocale(LC_ALL, names[i]) == NULL; i++)
    ;
  unroll_table *t = NULL;
  assert_ok(TABLE("x\n1.5\n", 0));
  column_is(t, 0, "x", (double[]){1.5}, 1);
  unroll_table_destroy(t);
  assert_error(TABLE("x\n\"1,5\"\n", 0), UNROLL_E_FORMAT, "\"1,5\" is not a number");
  setlocale(LC_ALL, "C");
}

static void holes(void **state) {
  (void)state;
  static const char text[] = "a,b\n1,10\n,NaN\nNA,  \n4,nUlL\n";
  unroll_table *t = NULL;
  put_file(in_folder("t.csv"), KEEP(text));
  unroll_csv_options o = {.struct_size = sizeof o, .holes = UNROLL_HOLES_FORWARD};
  assert_ok(unroll_table_load(in_folder("t.csv"), &o, NULL, &t, &err));
  column_is(t, 0, "a", (double[]){1, 1, 1, 4}, 4);
  column_is(t, 1, "b", (double[]){10, 10, 10, 10}, 4);
  assert_int_equal(unroll_table_holes(t), 5);
  unroll_table_destroy(t);
  o.holes = UNROLL_HOLES_KEEP;
  assert_ok(unroll_table_load(in_folder("t.csv"), &o, NULL, &t, &err));
  column_is(t, 0, "a", (double[]){1, NAN, NAN, 4}, 4);
  unroll_table_destroy(t);
  o.holes = UNROLL_HOLES_INTERPOLATE;
  assert_error(unroll_table_load(in_folder("t.csv"), &o, NULL, &t, &err), UNROLL_E_FORMAT,
               "/t.csv: line 3, column 2 \"b\": a hole with no number behind it");
  assert_ok(TABLE("a\n1\n\n\n4\n\n-4\n", .holes = UNROLL_HOLES_INTERPOLATE)); /* empty lines of one column are holes */
  column_is(t, 0, "a", (double[]){1, 2, 3, 4, 0, -4}, 6);
  unroll_table_destroy(t);
  assert_ok(TABLE("1.7e308\nna\n-1.7e308\n", .holes = UNROLL_HOLES_INTERPOLATE));
  column_is(t, 0, "1", (double[]){1.7e308, 0, -1.7e308}, 3);
  unroll_table_destroy(t);
  assert_error(TABLE("a\nNA\n4\n", .holes = UNROLL_HOLES_FORWARD), UNROLL_E_FORMAT,
               "line 2, column 1 \"a\": a hole with no number before it");
}

static void bad_tables(void **state) {
  (void)state;
  unroll_table *t = NULL;
#define BAD(text, words, ...) assert_error(TABLE(text, __VA_ARGS__), UNROLL_E_FORMAT, words)
  BAD("a,b\n1,2\n3,\n", "/t.csv: line 3, column 2 \"b\": \"\" is a hole where a number is expected", 0);
  BAD("a,b\n1,2\n3,nan\n", "line 3, column 2 \"b\": \"nan\" is a hole", 0);
  BAD("1,2\n3,x\n", "line 2, column 2: \"x\" is not a number", 0);
  BAD("1,2\n3,x\n", "line 2, column 2: \"x\" is not a number", .holes = UNROLL_HOLES_FORWARD);
  BAD("a\n0x10\n", "\"0x10\" is not a number", 0);
  BAD("a\n1e\n", "\"1e\" is not a number", 0);
  BAD("a\n1 2\n", "\"1 2\" is not a number", 0);
  BAD("a\n-Infinity\n", "\"-Infinity\" is not a finite number", .holes = UNROLL_HOLES_KEEP);
  BAD("a\n1e309\n", "\"1e309\" is not a finite number", 0);
  BAD("a,b\n1,2\n\n3,4\n", "line 3: an empty line", 0);
  BAD("a,b\n1,2,3\n", "line 2: 3 fields, the first record has 2", 0);
  BAD("a,b\n1\n", "line 2: 1 fields, the first record has 2", 0);
  BAD("a\n\"1\n2\n", "line 2: a quote that is never closed", 0);
  BAD("a\n\"1\"2\n", "line 2: text behind a closing quote", 0);
  BAD("a\n1\"2\n", "line 2: a quote inside of a field", 0);
  BAD("a\r1\n", "line 1: a carriage return without a line feed", 0);
  BAD("a\n1\n\0\n", "line 3: a NUL", 0);
  BAD("a,b\n", "a header and no record", 0);
  BAD("a,a\n1,2\n", "2 columns have the name \"a\"", COLUMNS("a"));
  BAD("\xFF,a\n1,2\n", "the name of column 1 is not UTF-8", 0);
  assert_error(TABLE("a,b\n1,2\n", COLUMNS("c")), UNROLL_E_NOT_FOUND, "no column \"c\": it has 2 columns");
  assert_error(TABLE("1,2\n", COLUMNS("3")), UNROLL_E_NOT_FOUND, "no column \"3\": it has no header and 2 columns");
  assert_error(TABLE("1,2\n", COLUMNS("0")), UNROLL_E_NOT_FOUND, "no column \"0\"");
  assert_error(TABLE("1,2\n", COLUMNS("4294967297")), UNROLL_E_NOT_FOUND, "no column");
  assert_error(TABLE("1,2\n", .header = 3), UNROLL_E_INVALID, "header is 3");
  assert_error(TABLE("1,2\n", .holes = 4), UNROLL_E_INVALID, "holes is 4");
  assert_error(TABLE("1,2\n", .separator = '"'), UNROLL_E_INVALID, "separator is 34");
  assert_error(table_of("", 0, NULL, &t, &err), UNROLL_E_FORMAT, "the file is empty");
  assert_error(unroll_table_load(in_folder("none"), NULL, NULL, &t, &err), UNROLL_E_IO, "/none: ");
  assert_error(unroll_table_load(folder, NULL, NULL, &t, &err), UNROLL_E_IO, "a directory");
}

/* Larger than what is read at a time, with a field that is as well. */
static void large_tables(void **state) {
  (void)state;
  enum { ROWS = 30000, LONG = 200000 };
  char *text = malloc(ROWS * 24 + LONG + 64), *at = text;
  at += sprintf(at, "x,y\n");
  for (int i = 0; i < ROWS; i++)
    at += sprintf(at, "%d.25,%d\r\n", i, -i);
  at += sprintf(at, "7,\"");
  memset(at, ' ', LONG);
  at += LONG;
  at += sprintf(at, "8\"\r\n");
  unroll_table *t = NULL;
  assert_ok(table_of(text, (size_t)(at - text), NULL, &t, &err));
  assert_int_equal(unroll_table_rows(t), ROWS + 1);
  for (int i = 0; i < ROWS; i++)
    assert_true(unroll_table_values(t, 0)[i] == i + 0.25 && unroll_table_values(t, 1)[i] == -i);
  assert_true(unroll_table_values(t, 1)[ROWS] == 8);
  free(text);
  unroll_table_destroy(t);
}

/* ---- labelled sequences ---- */

static unroll_status labelled_of(const char *text, size_t size, const unroll_labelled_options *o, unroll_sequences **s,
                                 unroll_error *err) {
  put_file(in_folder("s.csv"), text, size);
  return unroll_sequences_load(in_folder("s.csv"), o, NULL, s, err);
}
#define LABELLED(text, ...)                                                                                            \
  labelled_of(KEEP(text), &(unroll_labelled_options){.struct_size = sizeof(unroll_labelled_options), __VA_ARGS__}, &s, \
              &err)

static void records_are_sequences(void **state) {
  (void)state;
  unroll_sequences *s = NULL, *other = NULL;
  assert_ok(LABELLED("1,2,3,4,10\n5,6,7,8, 9 \n9,10,11,12,10\n", .label = "5", .features = 2));
  assert_int_equal(unroll_sequences_count(s), 3);
  assert_int_equal(unroll_sequences_features(s), 2);
  assert_null(unroll_sequences_ids(s, 0));
  for (int i = 0; i < 3; i++) {
    assert_int_equal(unroll_sequences_lengths(s)[i], 2);
    for (int k = 0; k < 4; k++)
      assert_true(unroll_sequences_values(s, i)[k] == 4 * i + k + 1);
  }
  /* by number, not by their bytes */
  assert_string_equal(unroll_tokens_text(unroll_sequences_label_names(s), 0), "9");
  assert_string_equal(unroll_tokens_text(unroll_sequences_label_names(s), 1), "10");
  assert_memory_equal(unroll_sequences_labels(s), ((int32_t[]){1, 0, 1}), 12);

  /* another file, the same ids */
  const char *json = unroll_tokens_json(unroll_sequences_label_names(s));
  unroll_tokens *names = NULL;
  assert_ok(unroll_tokens_from_json(json, strlen(json), NULL, &names, &err));
  unroll_sequences *keep = s;
  assert_ok(LABELLED("10,1,2\n", .features = 2, .labels = names));
  assert_int_equal(unroll_sequences_labels(s)[0], 1);
  assert_int_equal(unroll_tokens_count(unroll_sequences_label_names(s)), 2);
  assert_error(LABELLED("10,1,2\n11,3,4\n", .features = 2, .labels = names), UNROLL_E_NOT_FOUND,
               "/s.csv: line 2, column 1: label \"11\" is none of the 2");
  unroll_sequences_destroy(s);
  unroll_tokens_destroy(names);

  /* batches: [T,B,F], rows of nothing, both types */
  double x[16];
  float xf[16];
  int32_t lengths[2];
  assert_ok(unroll_sequences_fill(keep, (int64_t[]){-1, 2}, 2, 3, UNROLL_F64, 0, x, lengths, &err));
  assert_memory_equal(x, ((double[]){0, 0, 9, 10, 0, 0, 11, 12, 0, 0, 0, 0}), 12 * sizeof *x);
  assert_memory_equal(lengths, ((int32_t[]){0, 2}), 8);
  assert_ok(unroll_sequences_fill(keep, (int64_t[]){0, 1}, 2, 2, UNROLL_F32, 0, xf, lengths, &err));
  assert_memory_equal(xf, ((float[]){1, 2, 5, 6, 3, 4, 7, 8}), 8 * sizeof *xf);
  assert_error(unroll_sequences_fill(keep, (int64_t[]){0}, 1, 1, UNROLL_F32, 0, xf, lengths, &err), UNROLL_E_RANGE,
               "sequence 0 has 2 steps, the batch 1");
  assert_error(unroll_sequences_fill(keep, (int64_t[]){3}, 1, 2, UNROLL_F32, 0, xf, lengths, &err), UNROLL_E_RANGE,
               "item 3 in row 0: there are 3");
  assert_error(unroll_sequences_fill(keep, (int64_t[]){-2}, 1, 2, UNROLL_F32, 0, xf, lengths, &err), UNROLL_E_RANGE,
               "item -2");
  assert_error(unroll_sequences_fill(keep, (int64_t[]){0}, 1, 2, UNROLL_I32, 0, xf, lengths, &err), UNROLL_E_DTYPE,
               "as i32");
  assert_error(unroll_sequences_fill(keep, (int64_t[]){0}, 0, 2, UNROLL_F32, 0, xf, lengths, &err), UNROLL_E_RANGE,
               "B 0");
  (void)other;
  unroll_sequences_destroy(keep);
}

static void records_are_steps(void **state) {
  (void)state;
  unroll_sequences *s = NULL;
  assert_ok(LABELLED("who,x,what,y\nu1,1,dog,2\nu1,3,dog,4\nu1,5,dog,6\nu2,7,cat,8\nu3,9,dog,10\n", .label = "what",
                     .sequence = "who"));
  assert_int_equal(unroll_sequences_count(s), 3);
  assert_int_equal(unroll_sequences_features(s), 2);
  assert_memory_equal(unroll_sequences_lengths(s), ((int32_t[]){3, 1, 1}), 12);
  assert_memory_equal(unroll_sequences_labels(s), ((int32_t[]){1, 0, 1}), 12); /* cat, dog */
  assert_memory_equal(unroll_sequences_values(s, 0), ((double[]){1, 2, 3, 4, 5, 6}), 48);
  assert_memory_equal(unroll_sequences_values(s, 2), ((double[]){9, 10}), 16);
  unroll_sequences_destroy(s);
  /* without labels */
  assert_ok(LABELLED("who,x,y\nu1,1,2\nu1,3,4\nu2,7,8\n", .unlabelled = 1, .sequence = "who", .label = "none"));
  assert_null(unroll_sequences_labels(s));
  assert_null(unroll_sequences_label_names(s));
  assert_memory_equal(unroll_sequences_lengths(s), ((int32_t[]){2, 1}), 8);
  assert_memory_equal(unroll_sequences_values(s, 1), ((double[]){7, 8}), 16);
  unroll_sequences_destroy(s);
  assert_ok(LABELLED("1,2,3,4\n", .unlabelled = 1, .features = 2));
  assert_memory_equal(unroll_sequences_values(s, 0), ((double[]){1, 2, 3, 4}), 32);
  unroll_sequences_destroy(s);
  assert_error(LABELLED("1,2,3\n", .unlabelled = 1, .features = 2), UNROLL_E_FORMAT,
               "3 columns, expected a multiple of the 2");
  assert_error(LABELLED("u\nv\n", .unlabelled = 1, .sequence = "1", .header = UNROLL_HEADER_NO), UNROLL_E_FORMAT,
               "0 columns beside sequence, expected at least 1");
#define BAD_STEPS(text, words) \
  assert_error(LABELLED(text, .header = UNROLL_HEADER_NO, .label = "2", .sequence = "1"), UNROLL_E_FORMAT, words)
  BAD_STEPS("u,dog,1\nu,cat,2\n", "line 2, column 2: sequence \"u\" has another label");
  BAD_STEPS("u,dog,1\nv,cat,2\nu,dog,3\n", "line 3: sequence \"u\" goes on where another one began");
  BAD_STEPS("u,dog,1\n,cat,2\n", "line 2, column 1 is empty");
  BAD_STEPS("u,dog,1\nv, ,2\n", "line 2, column 2 is empty");
  BAD_STEPS("u,dog,1\nv,cat,\n", "line 2, column 3: \"\" is a hole");
  BAD_STEPS("u,dog\nv,cat\n", "0 columns beside sequence and label, expected at least 1");
  BAD_STEPS("u,dog,1\nv,dog,3\n", "all labels are \"dog\"");
  assert_error(LABELLED("1,2,3\n", .label = "1", .sequence = "1"), UNROLL_E_FORMAT, "both the sequence and the label");
  assert_error(LABELLED("1,2,3\n", .label = "x"), UNROLL_E_NOT_FOUND, "no column \"x\"");
  assert_error(LABELLED("a,2,3,4\n", .features = 2), UNROLL_E_FORMAT,
               "3 columns beside the label, expected a multiple of the 2");
  assert_error(LABELLED("a\nb\n", .header = UNROLL_HEADER_NO), UNROLL_E_FORMAT, "0 columns beside the label");
  assert_error(LABELLED("a,1\nb,x\n", .header = UNROLL_HEADER_NO), UNROLL_E_FORMAT,
               "line 2, column 2: \"x\" is not a number");
  assert_error(LABELLED("a,1\n", .features = -1), UNROLL_E_RANGE, "-1 features");
}

/* ---- splits ---- */

static void splits(void **state) {
  (void)state;
  enum { N = 20000 };
  static uint64_t keys[N];
  static int64_t order[N], again[N];
  static int part[N];
  int64_t counts[UNROLL_PARTS];
  uint64_t hash, other;
  for (int i = 0; i < N; i++)
    keys[i] = (uint64_t)(i / 2); /* pairs of items with one key */
  assert_ok(unroll_split(keys, N, 1, 0.1, 0.2, order, counts, &hash, &err));
  assert_int_equal(counts[0] + counts[1] + counts[2], N);
  /* 10,000 keys: 5 standard deviations of a share of 0.1 are 0.015, of 0.2 0.02 */
  assert_true(fabs((double)counts[UNROLL_VALIDATION] / N - 0.1) < 0.015);
  assert_true(fabs((double)counts[UNROLL_TESTING] / N - 0.2) < 0.02);
  int64_t at = 0;
  for (int p = 0; p < UNROLL_PARTS; p++)
    for (int64_t i = 0; i < counts[p]; i++, at++) {
      part[order[at]] = p + 1;
      assert_true(i == 0 || order[at] > order[at - 1]);
    }
  for (int i = 0; i < N; i += 2)
    assert_true(part[i] > 0 && part[i] == part[i + 1]);
  /* deterministic; another seed or share is another split; fewer items do not move the others */
  assert_ok(unroll_split(keys, N, 1, 0.1, 0.2, again, counts, &other, &err));
  assert_memory_equal(order, again, sizeof order);
  assert_int_equal(hash, other);
  assert_ok(unroll_split(keys, N, 2, 0.1, 0.2, again, counts, &other, &err));
  assert_true(hash != other && memcmp(order, again, sizeof order) != 0);
  assert_ok(unroll_split(keys, N / 2, 1, 0.1, 0.2, again, counts, &other, &err));
  at = 0;
  for (int p = 0; p < UNROLL_PARTS; p++)
    for (int64_t i = 0; i < counts[p]; i++)
      assert_int_equal(part[again[at++]], p + 1);
  assert_ok(unroll_split(keys, N, 1, 0, 0, again, counts, NULL, &err));
  assert_int_equal(counts[0], N);
  /* pinned, so that a split of today is one of tomorrow */
  assert_ok(unroll_split((uint64_t[]){11, 22, 33, 44, 55, 66}, 6, 22, 0.25, 0.25, again, counts, &hash, &err));
  assert_memory_equal(again, ((int64_t[]){2, 3, 5, 1, 4, 0}), 48);
  assert_true(hash == UINT64_C(0x3A3DA6BF6154CB02));
  assert_error(unroll_split(keys, N, 1, 0.5, 0.5, order, counts, &hash, &err), UNROLL_E_RANGE, "0.5 for validation");
  assert_error(unroll_split(keys, N, 1, -0.1, 0.5, order, counts, &hash, &err), UNROLL_E_RANGE, "-0.1");
  assert_error(unroll_split(keys, N, 1, NAN, 0.5, order, counts, &hash, &err), UNROLL_E_RANGE, "nan");
  assert_error(unroll_split(NULL, N, 1, 0, 0.5, order, counts, &hash, &err), UNROLL_E_INVALID, "keys");
}

static void shuffles(void **state) {
  (void)state;
  int64_t a[100], b[100], seen[100] = {0};
  int places[5][5] = {{0}};
  for (int i = 0; i < 100; i++)
    a[i] = b[i] = i;
  unroll_shuffle(a, 100, 3, 5);
  unroll_shuffle(b, 100, 3, 5);
  assert_memory_equal(a, b, sizeof a);
  for (int i = 0; i < 100; i++)
    seen[a[i]]++;
  for (int i = 0; i < 100; i++)
    assert_int_equal(seen[i], 1);
  for (int i = 0; i < 100; i++)
    b[i] = i;
  unroll_shuffle(b, 100, 3, 6);
  assert_true(memcmp(a, b, sizeof a) != 0);
  for (uint64_t epoch = 0; epoch < 10000; epoch++) { /* each of 5 in each place 2,000 times, give or take 5·40 */
    int64_t five[5] = {0, 1, 2, 3, 4};
    unroll_shuffle(five, 5, 1, epoch);
    for (int i = 0; i < 5; i++)
      places[i][five[i]]++;
  }
  for (int i = 0; i < 25; i++)
    assert_in_range(places[i / 5][i % 5], 1800, 2200);
}

/* ---- batches ---- */

enum { N = 1003, B = 16 };

static void check_epoch(unroll_batches *b, const int32_t *lengths, const int32_t *targets, const int64_t *items) {
  int seen[2 * N] = {0};
  int64_t padded = 0, left = N;
  for (int64_t i = 0; i < unroll_batches_count(b); i++) {
    const unroll_batch x = unroll_batches_get(b, i);
    int64_t T[2] = {1, 1};
    for (int64_t k = 0; k < B; k++) {
      if (k >= x.n) {
        assert_int_equal(x.items[k], -1);
        continue;
      }
      seen[x.items[k]]++;
      T[0] = lengths[x.items[k]] > T[0] ? lengths[x.items[k]] : T[0];
      T[1] = targets && targets[x.items[k]] > T[1] ? targets[x.items[k]] : T[1];
    }
    left -= x.n;
    assert_true(x.T[0] == T[0] && x.T[1] == T[1]);
    padded += B * (T[0] + (targets ? T[1] : 0));
  }
  assert_int_equal(left, 0);
  for (int i = 0; i < N; i++)
    assert_int_equal(seen[items ? items[i] : i], 1);
  assert_int_equal(unroll_batches_padding(b).padded, padded);
}

static void batches(void **state) {
  (void)state;
  int32_t lengths[2 * N], targets[2 * N];
  int64_t items[N], real = 0, both = 0;
  for (int i = 0; i < 2 * N; i++) {
    lengths[i] = 1 + i * i % 37;
    targets[i] = 1 + i * 7 % 23;
  }
  for (int i = 0; i < N; i++) {
    items[i] = 2 * i + 1;
    real += lengths[i];
    both += lengths[items[i]] + targets[items[i]];
  }
  unroll_batches_options o = {.struct_size = sizeof o, .B = B, .pool = 1, .seed = 4};
  unroll_batches *b = NULL;
  assert_ok(unroll_batches_create(lengths, NULL, NULL, N, &o, NULL, &b, &err));
  assert_int_equal(unroll_batches_count(b), 63);
  check_epoch(b, lengths, NULL, NULL);
  unroll_padding plain = unroll_batches_padding(b);
  assert_true(plain.real == real && plain.plain == plain.padded);
  unroll_batches_destroy(b);

  o.pool = 0; /* all sorted: batches of nearly one length, positions that hold nothing below a tenth */
  assert_ok(unroll_batches_create(lengths, NULL, NULL, N, &o, NULL, &b, &err));
  check_epoch(b, lengths, NULL, NULL);
  unroll_padding p = unroll_batches_padding(b);
  assert_true(p.real == real && p.plain == plain.plain);
  assert_true(p.padded < real + real / 10 && p.plain > real + real / 2);
  int64_t first[B], second[B];
  memcpy(first, unroll_batches_get(b, 0).items, sizeof first);
  unroll_batches_start(b, 1);
  check_epoch(b, lengths, NULL, NULL);
  memcpy(second, unroll_batches_get(b, 0).items, sizeof second);
  assert_true(memcmp(first, second, sizeof first) != 0);
  unroll_batches_start(b, 0);
  assert_memory_equal(first, unroll_batches_get(b, 0).items, sizeof first);
  assert_null(unroll_batches_get(b, 63).items);
  assert_null(unroll_batches_get(b, -1).items);
  unroll_batches_destroy(b);

  o.pool = 8; /* some of them, both sides: between plain and sorted */
  assert_ok(unroll_batches_create(lengths, targets, items, N, &o, NULL, &b, &err));
  check_epoch(b, lengths, targets, items);
  p = unroll_batches_padding(b);
  assert_true(p.real == both && p.padded < p.plain);
  unroll_batches_destroy(b);

  o.in_order = 1;
  assert_ok(unroll_batches_create(lengths, NULL, items, N, &o, NULL, &b, &err));
  for (int i = 0; i < N; i++)
    assert_int_equal(unroll_batches_get(b, i / B).items[i % B], items[i]);
  unroll_batches_destroy(b);

  o.B = 0;
  assert_error(unroll_batches_create(lengths, NULL, NULL, N, &o, NULL, &b, &err), UNROLL_E_RANGE, "B 0");
  o = (unroll_batches_options){.struct_size = sizeof o, .B = 4, .pool = -1};
  assert_error(unroll_batches_create(lengths, NULL, NULL, N, &o, NULL, &b, &err), UNROLL_E_RANGE, "pool -1");
  o.pool = 0;
  assert_error(unroll_batches_create(lengths, NULL, NULL, 0, &o, NULL, &b, &err), UNROLL_E_RANGE, "n 0");
  lengths[3] = -2;
  assert_error(unroll_batches_create(lengths, NULL, NULL, N, &o, NULL, &b, &err), UNROLL_E_RANGE,
               "item 3 has a length of -2");
  items[1] = -1;
  assert_error(unroll_batches_create(lengths, NULL, items, N, &o, NULL, &b, &err), UNROLL_E_RANGE, "item 1 is -1");
}

/* Every allocation fails once. */
static void no_memory(void **state) {
  (void)state;
  put_file(in_folder("t.csv"), KEEP("a,b\n1,2\n,3\n4,5\n"));
  put_file(in_folder("s.csv"), KEEP("u,dog,1\nu,dog,2\nv,cat,3\n"));
  for (long at = 1;; at++) {
    struct counting c = {.fail_at = at};
    const unroll_allocator a = counting_allocator(&c);
    const unroll_csv_options o = {.struct_size = sizeof o, .holes = UNROLL_HOLES_FORWARD};
    const unroll_labelled_options l = {
        .struct_size = sizeof l, .header = UNROLL_HEADER_NO, .label = "2", .sequence = "1"};
    const unroll_batches_options bo = {.struct_size = sizeof bo, .B = 2};
    unroll_table *t = NULL;
    unroll_sequences *s = NULL;
    unroll_batches *b = NULL;
    unroll_error err = UNROLL_ERROR_INIT;
    unroll_status status = unroll_table_load(in_folder("t.csv"), &o, &a, &t, &err);
    if (status == UNROLL_OK)
      status = unroll_sequences_load(in_folder("s.csv"), &l, &a, &s, &err);
    if (status == UNROLL_OK)
      status = unroll_batches_create(unroll_sequences_lengths(s), NULL, NULL, 2, &bo, &a, &b, &err);
    unroll_table_destroy(t);
    unroll_sequences_destroy(s);
    unroll_batches_destroy(b);
    assert_int_equal(c.live, 0);
    if (status == UNROLL_OK) {
      assert_int_equal(c.calls, at - 1);
      break;
    }
    assert_int_equal(status, UNROLL_E_MEMORY);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(fields_and_quotes), cmocka_unit_test(locales),      cmocka_unit_test(holes),
      cmocka_unit_test(bad_tables),        cmocka_unit_test(large_tables), cmocka_unit_test(records_are_sequences),
      cmocka_unit_test(records_are_steps), cmocka_unit_test(splits),       cmocka_unit_test(shuffles),
      cmocka_unit_test(batches),           cmocka_unit_test(no_memory)};
  return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
