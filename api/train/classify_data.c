/* SPDX-License-Identifier: Apache-2.0 */
/* A classifier's sequences: parts, statistics, batches. */
#include <math.h>
#include <string.h>

#include "train/classify_private.h"

/* Batches of like length are drawn from so many batches' worth of sequences. */
#define POOL 16

void classifier_set_free(const unroll_classifier *c, struct classifier_set *set) {
  const unroll_allocator *a = &c->trainer.allocator;
  unroll_batches_destroy(set->batches);
  mem_free(a, set->x);
  mem_free(a, set->lengths);
  mem_free(a, set->labels);
  *set = (struct classifier_set){.batches = NULL};
}

static void find_lengths(const unroll_sequences *s, int64_t *shortest, int64_t *longest) {
  const int32_t *lengths = unroll_sequences_lengths(s);
  *shortest = *longest = lengths[0];
  for (int64_t i = 1; i < unroll_sequences_count(s); i++) {
    *shortest = lengths[i] < *shortest ? lengths[i] : *shortest;
    *longest = lengths[i] > *longest ? lengths[i] : *longest;
  }
}

unroll_status classifier_set_make(const unroll_classifier *c, const unroll_sequences *sequences, const int64_t *items,
                                  int64_t n, bool in_order, struct classifier_set *set, unroll_error *err) {
  const unroll_allocator *a = &c->trainer.allocator;
  int64_t shortest;
  *set = (struct classifier_set){.sequences = sequences, .rows = c->options.training.batch};
  if (in_order && n < set->rows)
    set->rows = n;
  find_lengths(sequences, &shortest, &set->longest);
  set->ragged = shortest < set->longest;
  const unroll_batches_options o = {.struct_size = sizeof o,
                                    .in_order = in_order,
                                    .B = set->rows,
                                    .pool = set->ragged ? POOL : 1,
                                    .seed = c->options.training.seed};
  uint64_t numbers;
  if (!size_mul((uint64_t)(set->longest * set->rows), (uint64_t)c->features, &numbers) || numbers > INT32_MAX)
    return fail(err, UNROLL_E_RANGE, "a batch of %lld sequences of up to %lld steps of %lld features is past 2^31-1",
                (long long)set->rows, (long long)set->longest, (long long)c->features);
  unroll_status status =
      unroll_batches_create(unroll_sequences_lengths(sequences), NULL, items, n, &o, a, &set->batches, err);
  if (status != UNROLL_OK) {
    set->batches = NULL;
    return status;
  }
  set->x = mem_array(a, numbers, sizeof *set->x);
  set->lengths = mem_array(a, (uint64_t)set->rows, sizeof *set->lengths);
  set->labels = mem_array(a, (uint64_t)set->rows, sizeof *set->labels);
  if (!set->x || !set->lengths || !set->labels) {
    classifier_set_free(c, set);
    return fail(err, UNROLL_E_MEMORY, "model: no memory for a batch of %llu numbers", (unsigned long long)numbers);
  }
  return UNROLL_OK;
}

uint64_t classifier_data_hash(const unroll_sequences *s) {
  const size_t n = (size_t)unroll_sequences_count(s);
  const int64_t features = unroll_sequences_features(s);
  uint64_t hash = hash64(&features, sizeof features, HASH64_SEED);
  hash = hash64(unroll_sequences_keys(s), n * sizeof(uint64_t), hash);
  hash = hash64(unroll_sequences_lengths(s), n * sizeof(int32_t), hash);
  hash = hash64(unroll_sequences_labels(s), n * sizeof(int32_t), hash);
  return hash64_string(unroll_tokens_json(unroll_sequences_label_names(s)), hash);
}

/* Of the features from f0 to f1 - 1 together, over all steps of these sequences (Welford 1962). A constant's deviation is
 * 1. */
static void measure(unroll_classifier *c, const unroll_sequences *s, const int64_t *items, int64_t n, int64_t f0,
                    int64_t f1) {
  double mean = 0, squares = 0, count = 0;
  for (int64_t i = 0; i < n; i++) {
    const double *x = unroll_sequences_values(s, items[i]);
    for (int64_t t = 0; t < unroll_sequences_lengths(s)[items[i]]; t++)
      for (int64_t f = f0; f < f1; f++) {
        const double value = x[t * c->features + f], off = value - mean;
        mean += off / ++count;
        squares += off * (value - mean);
      }
  }
  const double deviation = sqrt(squares / count);
  for (int64_t f = f0; f < f1; f++) {
    c->mean[f] = mean;
    c->deviation[f] = deviation > 1e-12 * fabs(mean) && isfinite(deviation) ? deviation : 1;
  }
}

static void measure_all(unroll_classifier *c, const unroll_sequences *s, const int64_t *items, int64_t n) {
  const int32_t scaling = c->options.scaling;
  if (scaling == UNROLL_SCALING_TOGETHER)
    measure(c, s, items, n, 0, c->features);
  for (int64_t f = 0; f < c->features; f++) {
    if (scaling == UNROLL_SCALING_EACH)
      measure(c, s, items, n, f, f + 1);
    else if (scaling == UNROLL_SCALING_NONE)
      c->deviation[f] = 1; /* and the mean is 0 */
  }
}

static void count_classes(unroll_classifier *c, const unroll_sequences *s, const int64_t *items, int64_t n) {
  const int32_t *labels = unroll_sequences_labels(s);
  for (int64_t i = 0; i < n; i++)
    c->counts[labels[items[i]]]++;
}

int32_t classifier_majority(const unroll_classifier *c) {
  int32_t most = 0;
  for (int32_t k = 1; k < classifier_classes(c); k++)
    if (c->counts[k] > c->counts[most])
      most = k;
  return most;
}

/* order [n], of the parts. */
static unroll_status attach_parts(unroll_classifier *c, const unroll_sequences *s, int64_t *order, bool is_new,
                                  unroll_error *err) {
  const unroll_classifier_options *o = &c->options;
  const int64_t n = unroll_sequences_count(s);
  uint64_t hash;
  TRY(unroll_split(unroll_sequences_keys(s), n, o->training.seed, o->training.validation, 0, order, c->parts, &hash,
                   err));
  const int64_t n_train = c->parts[UNROLL_TRAINING], n_validation = c->parts[UNROLL_VALIDATION];
  if (n_train < 1 || (o->training.validation > 0 && n_validation < 1))
    return fail(err, UNROLL_E_RANGE,
                "validation %g makes of %lld sequences %lld to train and %lld to validate, at least 1 each is needed",
                o->training.validation, (long long)n, (long long)n_train, (long long)n_validation);
  if (is_new) {
    c->n_sequences = n;
    c->data_hash = classifier_data_hash(s);
    c->split_hash = hash;
    measure_all(c, s, order, n_train);
    count_classes(c, s, order, n_train);
  } else if (hash != c->split_hash)
    return fail(err, UNROLL_E_STATE, "the sequences are split as %016llx, the model's as %016llx",
                (unsigned long long)hash, (unsigned long long)c->split_hash);
  TRY(classifier_set_make(c, s, order, n_train, false, &c->train, err));
  if (n_validation > 0)
    TRY(classifier_set_make(c, s, order + n_train, n_validation, true, &c->validation, err));
  c->majority_accuracy = (double)NAN;
  int64_t hits = 0;
  for (int64_t i = 0; i < n_validation; i++)
    hits += unroll_sequences_labels(s)[order[n_train + i]] == classifier_majority(c);
  if (n_validation > 0)
    c->majority_accuracy = (double)hits / (double)n_validation;
  c->epoch = 0;
  return trainer_attach(&c->trainer, 0,
                        c->validation.batches ? (uint64_t)unroll_batches_count(c->validation.batches) : 0, err);
}

unroll_status classifier_attach(unroll_classifier *c, const unroll_sequences *s, bool is_new, unroll_error *err) {
  const unroll_allocator *a = &c->trainer.allocator;
  const int64_t n = unroll_sequences_count(s);
  int64_t *order = mem_array(a, (uint64_t)n, sizeof *order);
  if (!order)
    return fail(err, UNROLL_E_MEMORY, "model: no memory for the order of %lld sequences", (long long)n);
  const unroll_status status = attach_parts(c, s, order, is_new, err);
  mem_free(a, order);
  if (status != UNROLL_OK) {
    classifier_set_free(c, &c->train);
    classifier_set_free(c, &c->validation);
    return status;
  }
  c->sequences = s;
  return UNROLL_OK;
}

/* ---- batches ---- */

unroll_status classifier_write(const unroll_classifier *c, const struct classifier_set *set, const unroll_batch *batch,
                               int64_t row0, int64_t rows, bool labels, unroll_binding *b, struct trainer_feed *feed,
                               unroll_error *err) {
  const unroll_sequences *s = set->sequences;
  const int64_t F = c->features, T = set->ragged ? batch->T[0] : set->longest;
  memset(set->x, 0, (size_t)(T * rows * F) * sizeof *set->x);
  feed->items = 0;
  for (int64_t r = 0; r < rows; r++) {
    const int64_t item = batch->items[row0 + r];
    set->lengths[r] = item < 0 ? 0 : unroll_sequences_lengths(s)[item];
    if (labels)
      set->labels[r] = item < 0 ? -1 : unroll_sequences_labels(s)[item];
    feed->items += set->lengths[r];
    const double *from = item < 0 ? NULL : unroll_sequences_values(s, item);
    for (int64_t t = 0; t < set->lengths[r]; t++)
      for (int64_t f = 0; f < F; f++)
        set->x[(t * rows + r) * F + f] = (float)((from[t * F + f] - c->mean[f]) / c->deviation[f]);
  }
  if (set->ragged) {
    feed->dims[feed->n_dims++] = T;
    TRY(unroll_binding_write(b, "lengths", set->lengths, (uint64_t)rows * sizeof *set->lengths, err));
  }
  if (labels)
    TRY(unroll_binding_write(b, "labels", set->labels, (uint64_t)rows * sizeof *set->labels, err));
  return unroll_binding_write(b, "x", set->x, (uint64_t)(T * rows * F) * sizeof *set->x, err);
}

unroll_status classifier_feed(void *owner, const struct trainer_place *place, unroll_binding *b,
                              struct trainer_feed *feed, unroll_error *err) {
  unroll_classifier *c = owner;
  if (place->epoch != c->epoch) {
    unroll_batches_start(c->train.batches, place->epoch);
    c->epoch = place->epoch;
  }
  const unroll_batch batch = unroll_batches_get(c->train.batches, (int64_t)place->index);
  const int64_t rows = c->options.training.batch / place->parts;
  feed->row0 = place->part * rows;
  return classifier_write(c, &c->train, &batch, feed->row0, rows, true, b, feed, err);
}

unroll_status classifier_feed_evaluation(void *owner, uint64_t index, unroll_binding *b, struct trainer_feed *feed,
                                         unroll_error *err) {
  const unroll_classifier *c = owner;
  const unroll_batch batch = unroll_batches_get(c->evaluated->batches, (int64_t)index);
  return classifier_write(c, c->evaluated, &batch, 0, c->evaluated->rows, true, b, feed, err);
}

uint64_t classifier_epoch_updates(const void *owner, uint64_t epoch) {
  (void)epoch;
  const unroll_classifier *c = owner;
  return (uint64_t)unroll_batches_count(c->train.batches);
}
