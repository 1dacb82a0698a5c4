/* SPDX-License-Identifier: Apache-2.0 */
#include "sequence_options.h"

#include <string.h>

#include "console.h"

bool sequence_check_usage(const sequence_values *v) {
  if (v->separator && (strlen(v->separator) != 1 || (unsigned char)v->separator[0] > 126)) {
    complain("--separator: '%s' is not one ASCII character", v->separator);
    return false;
  }
  return true;
}

void sequence_add_form(train_words *words, const sequence_values *values) {
  train_add_words(words, "--header", values->header, "auto");
  train_add_words(words, "--separator", values->separator, NULL);
}

int32_t sequence_header(const sequence_values *v) {
  if (strcmp(v->header, "auto") == 0)
    return UNROLL_HEADER_AUTO;
  return strcmp(v->header, "yes") == 0 ? UNROLL_HEADER_YES : UNROLL_HEADER_NO;
}

unroll_status sequence_load(const sequence_values *v, int64_t features, const unroll_tokens *labels, bool has_labels,
                            unroll_sequences **sequences, unroll_error *err) {
  const unroll_labelled_options o = {.struct_size = sizeof o,
                                     .header = sequence_header(v),
                                     .separator = v->separator ? v->separator[0] : 0,
                                     .unlabelled = !has_labels,
                                     .label = v->label,
                                     .sequence = v->sequence,
                                     .features = features ? features : v->features,
                                     .labels = labels};
  return unroll_sequences_load(v->csv, &o, NULL, sequences, err);
}
