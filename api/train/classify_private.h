/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of a classifier of sequences, a task of the trainer. */
#ifndef CLASSIFY_PRIVATE_H
#define CLASSIFY_PRIVATE_H
#include <unroll/classify.h>

#include "train/trainer.h"

/* Sequences in batches, and room for one batch. */
struct classifier_set {
  const unroll_sequences *sequences;
  unroll_batches *batches;
  int64_t rows, longest;
  bool ragged;
  float *x;                  /* [T,rows,F] */
  int32_t *lengths, *labels; /* [rows] */
};

struct unroll_classifier {
  struct trainer trainer;
  unroll_classifier_options options; /* training: see the trainer's */
  unroll_tokens *labels;
  int64_t features, shortest, longest;
  double *mean, *deviation; /* [features], of the training part */
  double *counts;           /* [classes], likewise: sequences of each */
  int64_t n_sequences;
  uint64_t data_hash, split_hash;

  const unroll_sequences *sequences;
  int64_t parts[UNROLL_PARTS]; /* how many each has */
  double majority_accuracy;
  struct classifier_set train, validation;
  uint64_t epoch;                         /* which train.batches were started for */
  const struct classifier_set *evaluated; /* what evaluation programs are made for and read */
};

static inline int64_t classifier_classes(const unroll_classifier *c) { return unroll_tokens_count(c->labels); }
int32_t classifier_majority(const unroll_classifier *c);

/* ---- options ---- */
/* Of sequences up to `longest` steps of F features in C classes. */
unroll_status classifier_options_check(const unroll_classifier_options *o, int64_t longest, int64_t F, int64_t C,
                                       unroll_error *err);

/* The options as they are in use. */
unroll_classifier_options classifier_options_in_use(const unroll_classifier *c);

/* ---- graphs ---- */
struct trainer_loss classifier_build(const void *owner, struct trainer_build *b);
/* The logarithms of the classes' probabilities [rows,C] as an output "classes". */
unroll_status classifier_graph_predict(const unroll_classifier *c, unroll_graph **graph, unroll_error *err);

/* ---- data ---- */
/* items: NULL: all n. */
unroll_status classifier_set_make(const unroll_classifier *c, const unroll_sequences *sequences, const int64_t *items,
                                  int64_t n, bool in_order, struct classifier_set *set, unroll_error *err);
void classifier_set_free(const unroll_classifier *c, struct classifier_set *set);
/* What a model has to be told again: not which labels there are, but what they are of. */
uint64_t classifier_data_hash(const unroll_sequences *sequences);
/* Split, statistics of a new model (or else those of the file), batches. Leaves c as it was on failure. */
unroll_status classifier_attach(unroll_classifier *c, const unroll_sequences *sequences, bool is_new,
                                unroll_error *err);
/* Writes `rows` rows of a batch from row0 on, with labels or without. */
unroll_status classifier_write(const unroll_classifier *c, const struct classifier_set *set, const unroll_batch *batch,
                               int64_t row0, int64_t rows, bool labels, unroll_binding *b, struct trainer_feed *feed,
                               unroll_error *err);
unroll_status classifier_feed(void *owner, const struct trainer_place *place, unroll_binding *b,
                              struct trainer_feed *feed, unroll_error *err);
unroll_status classifier_feed_evaluation(void *owner, uint64_t index, unroll_binding *b, struct trainer_feed *feed,
                                         unroll_error *err);
uint64_t classifier_epoch_updates(const void *owner, uint64_t epoch);

/* ---- life, file ---- */
unroll_status classifier_begin(unroll_device *const *devices, uint32_t n_devices, const unroll_allocator *allocator,
                               unroll_classifier **out, unroll_error *err);
unroll_status classifier_metadata_write(const void *owner, unroll_safetensors_writer *writer, unroll_error *err);

#endif
