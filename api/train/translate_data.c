/* SPDX-License-Identifier: Apache-2.0 */
/* A translator's pairs: vocabularies, parts, classes of lengths, batches. */
#include <math.h>
#include <string.h>

#include "train/translate_private.h"

/* Batches of like length are drawn from so many batches' worth of pairs. */
#define POOL 16
/* Lengths that a class may end with are looked for among at most so many. */
#define CANDIDATES 256

/* ---- vocabularies and ids ---- */

unroll_status translator_vocabularies(unroll_translator *t, const unroll_pairs *pairs, unroll_error *err) {
  const unroll_allocator *a = &t->trainer.allocator;
  const int64_t n = unroll_pairs_count(pairs);
  const unroll_tokens_options source = {
      .struct_size = sizeof source, .unit = t->options.source_unit, .specials = UNROLL_TOKEN_BIT(UNROLL_TOKEN_UNKNOWN)};
  const unroll_tokens_options target = {.struct_size = sizeof target,
                                        .unit = t->options.target_unit,
                                        .specials = UNROLL_TOKEN_BIT(UNROLL_TOKEN_END) |
                                                    UNROLL_TOKEN_BIT(UNROLL_TOKEN_UNKNOWN)};
  TRY(unroll_tokens_build(unroll_pairs_sources(pairs), n, &source, a, &t->sources, err));
  return unroll_tokens_build(unroll_pairs_targets(pairs), n, &target, a, &t->targets, err);
}

void translator_data_free(struct translator_data *data) {
  unroll_sequences_destroy(data->sources);
  unroll_sequences_destroy(data->targets);
  *data = (struct translator_data){NULL, NULL};
}

unroll_status translator_encode(const unroll_translator *t, const char *const *sources, const char *const *targets,
                                int64_t n, struct translator_data *data, unroll_error *err) {
  const unroll_allocator *a = &t->trainer.allocator;
  unroll_error inner = UNROLL_ERROR_INIT;
  *data = (struct translator_data){NULL, NULL};
  unroll_status status = unroll_sequences_encode(sources, n, t->sources, 0, a, &data->sources, &inner);
  if (status != UNROLL_OK)
    return fail(err, status, "sources: %s", inner.message);
  status =
      unroll_sequences_encode(targets, n, t->targets, UNROLL_TOKEN_BIT(UNROLL_TOKEN_END), a, &data->targets, &inner);
  if (status == UNROLL_OK)
    return UNROLL_OK;
  translator_data_free(data);
  return fail(err, status, "targets: %s", inner.message);
}

uint64_t translator_data_hash(const unroll_pairs *pairs) {
  uint64_t hash = HASH64_SEED;
  for (int64_t i = 0; i < unroll_pairs_count(pairs); i++) {
    hash = hash64_string(unroll_pairs_sources(pairs)[i], hash);
    hash = hash64_string(unroll_pairs_targets(pairs)[i], hash);
  }
  return hash;
}

/* ---- classes of lengths ---- */

/*
 * At most TRANSLATOR_CLASSES lengths, the last one the longest, such that the sources, each as long as its class, have
 * the fewest steps together: by dynamic programming over candidates that stand evenly.
 */
static unroll_status make_classes(unroll_translator *t, unroll_error *err) {
  const unroll_allocator *a = &t->trainer.allocator;
  const int32_t *sources = unroll_sequences_lengths(t->data.sources),
                *targets = unroll_sequences_lengths(t->data.targets);
  int64_t longest = 1, count[CANDIDATES] = {0}, most[CANDIDATES] = {0};
  for (int64_t i = 0; i < t->n_pairs; i++)
    longest = sources[i] > longest ? sources[i] : longest;
  const int64_t width = (longest - 1) / CANDIDATES + 1, n = (longest - 1) / width + 1;
  for (int64_t i = 0; i < t->n_pairs; i++) {
    const int64_t k = (sources[i] - 1) / width;
    count[k]++;
    most[k] = targets[i] > most[k] ? targets[i] : most[k];
  }
  struct choice {
    int64_t steps, before; /* of the sources up to here; the candidate that the class before ends with, or -1 */
  };
  struct choice(*best)[CANDIDATES] = mem_array(a, TRANSLATOR_CLASSES, sizeof *best);
  if (!best)
    return fail(err, UNROLL_E_MEMORY, "model: no memory for classes of lengths");
  for (int64_t c = 0; c < TRANSLATOR_CLASSES; c++)
    for (int64_t k = 0; k < n; k++) {
      int64_t within = 0;
      best[c][k].steps = INT64_MAX;
      for (int64_t from = k; from >= 0; from--) { /* the class has the candidates from..k */
        within += count[from];
        const int64_t before = from == 0 ? 0 : c == 0 ? -1 : best[c - 1][from - 1].steps;
        if (before >= 0 && before + within * (k + 1) <= best[c][k].steps) /* of equals the widest */
          best[c][k] = (struct choice){before + within * (k + 1), from - 1};
      }
    }
  int64_t ends[TRANSLATOR_CLASSES], k = n - 1, c = TRANSLATOR_CLASSES - 1;
  t->n_classes = 0;
  for (; k >= 0; k = best[c--][k].before)
    ends[t->n_classes++] = k;
  mem_free(a, best);
  int64_t target = 1, at = 0;
  for (uint32_t i = 0; i < t->n_classes; i++) {
    const int64_t end = ends[t->n_classes - 1 - i];
    for (; at <= end; at++)
      target = most[at] > target ? most[at] : target;
    const int64_t source = (end + 1) * width;
    t->classes[i] = (struct translator_class){source < longest ? source : longest, target};
  }
  return UNROLL_OK;
}

uint32_t translator_class_of(const unroll_translator *t, int64_t source) {
  uint32_t v = 0;
  while (v + 1 < t->n_classes && t->classes[v].source < source)
    v++;
  return v;
}

int64_t translator_steps(const unroll_translator *t, int64_t source) {
  const struct translator_class *k = &t->classes[translator_class_of(t, source)];
  int64_t target = k->target;
  if (source > k->source) /* longer than any that it was made of */
    target = (int64_t)ceil((double)target * ((double)source / (double)k->source));
  const int64_t steps = target + target / 4 + 2;
  return steps < TRANSLATOR_MOST ? steps : TRANSLATOR_MOST;
}

/* ---- the baseline ---- */

/* What most often stands in the training part's targets at the place of each token of their sources. */
static unroll_status count_by_place(unroll_translator *t, unroll_error *err) {
  const unroll_allocator *a = &t->trainer.allocator;
  const uint64_t S = (uint64_t)unroll_tokens_count(t->sources), V = (uint64_t)unroll_tokens_count(t->targets);
  int64_t *counts = mem_array(a, S, V * sizeof *counts);
  t->by_place = mem_array(a, S, sizeof *t->by_place);
  if (!counts || !t->by_place) {
    mem_free(a, counts);
    return fail(err, UNROLL_E_MEMORY, "model: no memory to count %llu by %llu tokens", (unsigned long long)S,
                (unsigned long long)V);
  }
  int64_t all = 0; /* the target that is the most frequent, for tokens that have none */
  for (int64_t i = 0; i < t->counts[UNROLL_TRAINING]; i++) {
    const int64_t item = t->order[i];
    const int32_t *x = unroll_sequences_ids(t->data.sources, item), *y = unroll_sequences_ids(t->data.targets, item);
    const int32_t n = unroll_sequences_lengths(t->data.sources)[item],
                  m = unroll_sequences_lengths(t->data.targets)[item] - 1;
    for (int32_t k = 0; k < n && k < m; k++)
      counts[(uint64_t)x[k] * V + (uint64_t)y[k]]++;
  }
  int32_t most = 0;
  for (uint64_t y = 0; y < V; y++) {
    int64_t sum = 0;
    for (uint64_t x = 0; x < S; x++)
      sum += counts[x * V + y];
    if (sum > all) {
      all = sum;
      most = (int32_t)y;
    }
  }
  for (uint64_t x = 0; x < S; x++) {
    t->by_place[x] = most;
    for (uint64_t y = 0, best = 0; y < V; y++)
      if ((uint64_t)counts[x * V + y] > best) {
        best = (uint64_t)counts[x * V + y];
        t->by_place[x] = (int32_t)y;
      }
  }
  mem_free(a, counts);
  return UNROLL_OK;
}

/* ---- batches ---- */

/* The lengths that an epoch allows; INT64_MAX: all. */
static int64_t limit_of(const unroll_translator *t, uint64_t epoch) {
  const unroll_translator_options *o = &t->options;
  if (o->steps_start == 0 || epoch > TRANSLATOR_MOST)
    return INT64_MAX;
  const struct translator_class *last = &t->classes[t->n_classes - 1];
  const int64_t limit = o->steps_start + (int64_t)epoch * o->steps_increment;
  return limit >= last->source && limit >= last->target - 1 ? INT64_MAX : limit;
}

static bool is_within(const unroll_translator *t, int64_t item, int64_t limit) {
  return unroll_sequences_lengths(t->data.sources)[item] <= limit &&
         unroll_sequences_lengths(t->data.targets)[item] - 1 <= limit;
}

static int64_t count_within(const unroll_translator *t, int64_t limit) {
  int64_t n = 0;
  for (int64_t i = 0; i < t->counts[UNROLL_TRAINING]; i++)
    n += is_within(t, t->order[i], limit);
  return n;
}

uint64_t translator_epoch_updates(const void *owner, uint64_t epoch) {
  const unroll_translator *t = owner;
  const int64_t limit = limit_of(t, epoch);
  const int64_t n = limit == INT64_MAX ? t->counts[UNROLL_TRAINING] : count_within(t, limit);
  return (uint64_t)((n - 1) / t->options.training.batch) + 1;
}

static unroll_status make_batches(const unroll_translator *t, const int64_t *items, int64_t n, int64_t rows,
                                  int64_t pool, unroll_batches **batches, unroll_error *err) {
  const unroll_batches_options o = {.struct_size = sizeof o, .B = rows, .pool = pool, .seed = translator_order_seed(t)};
  return unroll_batches_create(unroll_sequences_lengths(t->data.sources), unroll_sequences_lengths(t->data.targets),
                               items, n, &o, &t->trainer.allocator, batches, err);
}

/* The training part's batches of an epoch. */
static unroll_status start_epoch(unroll_translator *t, uint64_t epoch, unroll_error *err) {
  const unroll_allocator *a = &t->trainer.allocator;
  const int64_t limit = limit_of(t, epoch), all = t->counts[UNROLL_TRAINING];
  if (!t->train || limit != t->limit) {
    int64_t *items = mem_array(a, (uint64_t)all, sizeof *items), n = 0;
    if (!items)
      return fail(err, UNROLL_E_MEMORY, "model: no memory for a list of %lld pairs", (long long)all);
    for (int64_t i = 0; i < all; i++)
      if (is_within(t, t->order[i], limit))
        items[n++] = t->order[i];
    unroll_batches *batches = NULL;
    const unroll_status status = make_batches(t, items, n, t->options.training.batch, POOL, &batches, err);
    mem_free(a, items);
    TRY(status);
    unroll_batches_destroy(t->train);
    t->train = batches;
    t->limit = limit;
    t->epoch = 0;
  }
  if (epoch != t->epoch)
    unroll_batches_start(t->train, epoch);
  t->epoch = epoch;
  return UNROLL_OK;
}

/* ---- with data ---- */

void translator_detach(unroll_translator *t) {
  const unroll_allocator *a = &t->trainer.allocator;
  unroll_batches_destroy(t->train);
  unroll_batches_destroy(t->validation);
  translator_data_free(&t->data);
  mem_free(a, t->order);
  mem_free(a, t->source);
  mem_free(a, t->inputs);
  mem_free(a, t->targets_room);
  mem_free(a, t->lengths[0]);
  mem_free(a, t->lengths[1]);
  t->train = t->validation = NULL;
  t->order = NULL;
  t->source = t->inputs = t->targets_room = t->lengths[0] = t->lengths[1] = NULL;
  memset(t->counts, 0, sizeof t->counts);
}

static unroll_status split(unroll_translator *t, const unroll_pairs *pairs, uint64_t *hash, unroll_error *err) {
  const unroll_translator_options *o = &t->options;
  t->order = mem_array(&t->trainer.allocator, (uint64_t)t->n_pairs, sizeof *t->order);
  if (!t->order)
    return fail(err, UNROLL_E_MEMORY, "model: no memory for the order of %lld pairs", (long long)t->n_pairs);
  TRY(unroll_split(unroll_pairs_keys(pairs), t->n_pairs, o->training.seed, o->training.validation, o->testing, t->order,
                   t->counts, hash, err));
  const int64_t *n = t->counts;
  if (n[UNROLL_TRAINING] < 1 || (o->training.validation > 0 && n[UNROLL_VALIDATION] < 1) ||
      (o->testing > 0 && n[UNROLL_TESTING] < 1))
    return fail(
        err, UNROLL_E_RANGE,
        "validation %g and testing %g make of %lld pairs %lld to train, %lld to validate, %lld to test: at least "
        "1 each is needed",
        o->training.validation, o->testing, (long long)t->n_pairs, (long long)n[UNROLL_TRAINING],
        (long long)n[UNROLL_VALIDATION], (long long)n[UNROLL_TESTING]);
  return UNROLL_OK;
}

static unroll_status make_room(unroll_translator *t, unroll_error *err) {
  const unroll_allocator *a = &t->trainer.allocator;
  const struct translator_class *last = &t->classes[t->n_classes - 1];
  const uint64_t B = (uint64_t)t->options.training.batch;
  t->source = mem_array(a, (uint64_t)last->source * B, sizeof *t->source);
  t->inputs = mem_array(a, (uint64_t)last->target * B, sizeof *t->inputs);
  t->targets_room = mem_array(a, (uint64_t)last->target * B, sizeof *t->targets_room);
  t->lengths[0] = mem_array(a, B, sizeof *t->lengths[0]);
  t->lengths[1] = mem_array(a, B, sizeof *t->lengths[1]);
  if (!t->source || !t->inputs || !t->targets_room || !t->lengths[0] || !t->lengths[1])
    return fail(err, UNROLL_E_MEMORY, "model: no memory for a batch of %llu pairs", (unsigned long long)B);
  return UNROLL_OK;
}

static unroll_status attach(unroll_translator *t, const unroll_pairs *pairs, bool is_new, unroll_error *err) {
  uint64_t hash;
  if (is_new) {
    t->n_pairs = unroll_pairs_count(pairs);
    t->data_hash = translator_data_hash(pairs);
  }
  TRY(translator_encode(t, unroll_pairs_sources(pairs), unroll_pairs_targets(pairs), unroll_pairs_count(pairs),
                        &t->data, err));
  TRY(split(t, pairs, &hash, err));
  if (is_new) {
    t->split_hash = hash;
    TRY(make_classes(t, err));
    TRY(translator_extents_check(t, err));
    TRY(count_by_place(t, err));
  } else if (hash != t->split_hash)
    return fail(err, UNROLL_E_STATE, "the pairs are split as %016llx, the model's as %016llx", (unsigned long long)hash,
                (unsigned long long)t->split_hash);
  TRY(make_room(t, err));
  if (count_within(t, limit_of(t, 0)) == 0)
    return fail(err, UNROLL_E_RANGE, "steps_start %lld: no pair of the training part is as short",
                (long long)t->options.steps_start);
  TRY(start_epoch(t, 0, err));
  const int64_t n = t->counts[UNROLL_VALIDATION], B = t->options.training.batch;
  t->validation_rows = n < B ? n : B;
  if (n > 0)
    TRY(make_batches(t, t->order + t->counts[UNROLL_TRAINING], n, t->validation_rows, 0, &t->validation, err));
  uint64_t steady = 0;
  while (limit_of(t, steady) != INT64_MAX)
    steady++;
  return trainer_attach(&t->trainer, steady, t->validation ? (uint64_t)unroll_batches_count(t->validation) : 0, err);
}

unroll_status translator_attach(unroll_translator *t, const unroll_pairs *pairs, bool is_new, unroll_error *err) {
  const unroll_status status = attach(t, pairs, is_new, err);
  if (status != UNROLL_OK)
    translator_detach(t);
  return status;
}

/* ---- feeding ---- */

unroll_status translator_batch_of(unroll_translator *t, const struct trainer_place *place, unroll_batch *batch,
                                  unroll_error *err) {
  TRY(start_epoch(t, place->epoch, err));
  *batch = unroll_batches_get(t->train, (int64_t)place->index);
  return UNROLL_OK;
}

uint32_t translator_variant(void *owner, const struct trainer_place *place, bool training) {
  unroll_translator *t = owner;
  unroll_batch batch;
  if (!training)
    batch = unroll_batches_get(t->validation, (int64_t)place->index);
  else if (translator_batch_of(t, place, &batch, NULL) != UNROLL_OK)
    return 0; /* it fails in the feed too, where it can be said */
  return translator_class_of(t, batch.T[0]);
}

unroll_status translator_write_sources(const unroll_sequences *sources, const int64_t *items, int64_t rows, int64_t S,
                                       int32_t *ids, int32_t *lengths, unroll_binding *b, unroll_error *err) {
  TRY(unroll_sequences_fill(sources, items, rows, S, UNROLL_I32, 0, ids, lengths, err));
  TRY(unroll_binding_write(b, "source", ids, (uint64_t)(S * rows) * sizeof *ids, err));
  return unroll_binding_write(b, "source_lengths", lengths, (uint64_t)rows * sizeof *lengths, err);
}

/* Targets, and the same one step later behind </s>, T steps. */
static unroll_status write_pairs(unroll_translator *t, const int64_t *items, int64_t rows, uint32_t v, int64_t T,
                                 unroll_binding *b, struct trainer_feed *feed, unroll_error *err) {
  const uint64_t bytes = (uint64_t)(T * rows) * sizeof *t->inputs;
  TRY(translator_write_sources(t->data.sources, items, rows, t->classes[v].source, t->source, t->lengths[0], b, err));
  TRY(unroll_sequences_fill(t->data.targets, items, rows, T, UNROLL_I32, -1, t->targets_room, t->lengths[1], err));
  for (int64_t r = 0; r < rows; r++) {
    t->inputs[r] = translator_end(t);
    feed->items += t->lengths[0][r] + t->lengths[1][r];
  }
  for (int64_t i = rows; i < T * rows; i++) /* past the end 0, which is never looked at */
    t->inputs[i] = t->targets_room[i - rows] < 0 ? 0 : t->targets_room[i - rows];
  feed->dims[feed->n_dims++] = T;
  TRY(unroll_binding_write(b, "inputs", t->inputs, bytes, err));
  TRY(unroll_binding_write(b, "targets", t->targets_room, bytes, err));
  return unroll_binding_write(b, "target_lengths", t->lengths[1], (uint64_t)rows * sizeof(int32_t), err);
}

unroll_status translator_feed(void *owner, const struct trainer_place *place, unroll_binding *b,
                              struct trainer_feed *feed, unroll_error *err) {
  unroll_translator *t = owner;
  unroll_batch batch;
  TRY(translator_batch_of(t, place, &batch, err));
  const int64_t rows = t->options.training.batch / place->parts;
  const uint32_t v = translator_class_of(t, batch.T[0]);
  const int64_t *items = batch.items + place->part * rows;
  feed->row0 = place->part * rows;
  if (t->reinforce.baseline)
    return translator_reinforce_feed(t, place, items, rows, v, b, feed, err);
  if (translator_samples(&t->options)) {
    double rate;
    TRY(unroll_sampling_rate_at((int64_t)place->update, &t->options.sampling, &rate, err));
    const float epsilon = (float)rate;
    TRY(unroll_binding_write(b, "epsilon", &epsilon, sizeof epsilon, err));
  }
  return write_pairs(t, items, rows, v, batch.T[1], b, feed, err);
}

unroll_status translator_feed_evaluation(void *owner, uint64_t index, unroll_binding *b, struct trainer_feed *feed,
                                         unroll_error *err) {
  unroll_translator *t = owner;
  const unroll_batch batch = unroll_batches_get(t->validation, (int64_t)index);
  return write_pairs(t, batch.items, t->validation_rows, translator_class_of(t, batch.T[0]), batch.T[1], b, feed, err);
}
