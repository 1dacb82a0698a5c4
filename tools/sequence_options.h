/* SPDX-License-Identifier: Apache-2.0 */
/* The options by which commands read labelled sequences from CSV. */
#ifndef SEQUENCE_OPTIONS_H
#define SEQUENCE_OPTIONS_H
#include <unroll/datasets.h>

#include "train_options.h"

/* A member `data` of a command's values. */
typedef struct sequence_values {
  const char *csv, *label, *sequence, *separator, *header;
  int64_t features;
} sequence_values;

#define OPTION_CSV(T, help_) TEXT("csv", "FILE", offsetof(T, data.csv), help_)
/* What a file of CSV looks like. */
#define OPTIONS_CSV_FORM(T)                                                                                 \
  CHOICE("header", "H", offsetof(T, data.header), "auto", "auto yes no", "of CSV: does it begin with one"), \
      TEXT("separator", "C", offsetof(T, data.separator), "of CSV: what stands between fields (default ',')")
#define OPTIONS_SEQUENCES(T, label_)                                                                      \
  TEXT("label", "COLUMN", offsetof(T, data.label), label_),                                               \
      TEXT("sequence", "COLUMN", offsetof(T, data.sequence),                                              \
           "of CSV: a record is a step, and records with the same text in this column are one sequence; " \
           "without it a record is a whole sequence"),                                                    \
      OPTIONS_CSV_FORM(T)

/* Is the separator one ASCII character? Otherwise said on stderr. */
bool sequence_check_usage(const sequence_values *values);
/* What the file looks like, where it is said. */
void sequence_add_form(train_words *words, const sequence_values *values);
int32_t sequence_header(const sequence_values *values); /* UNROLL_HEADER_* */
/* features: those of a model, or 0: as the values say. labels: a model's, or NULL. has_labels: or there is no such column. */
unroll_status sequence_load(const sequence_values *values, int64_t features, const unroll_tokens *labels,
                            bool has_labels, unroll_sequences **sequences, unroll_error *err);

#endif
