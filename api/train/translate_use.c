/* SPDX-License-Identifier: Apache-2.0 */
/* What a translator says: translations in their order, and how good they are. */
#include <math.h>
#include <string.h>

#include "train/translate_private.h"

/* So many are translated before the first of them is given out. */
#define AT_A_TIME 4096
/* A row of an edit distance that takes no memory. */
#define SHORT_ROW 256

int64_t unroll_edit_distance(const int32_t *a, int64_t n, const int32_t *b, int64_t m) {
  int64_t room[SHORT_ROW];
  int64_t *row = m < SHORT_ROW ? room : mem_array(NULL, (uint64_t)m + 1, sizeof *row);
  if (!row)
    return -1;
  row[0] = 0;
  for (int64_t k = 1; k <= m; k++)
    row[k] = k;
  for (int64_t i = 1; i <= n; i++) {
    int64_t diagonal = row[0];
    row[0] = i;
    for (int64_t k = 1; k <= m; k++) {
      const int64_t substituted = diagonal + (a[i - 1] != b[k - 1]),
                    shorter = row[k - 1] < row[k] ? row[k - 1] : row[k];
      diagonal = row[k];
      row[k] = substituted < shorter + 1 ? substituted : shorter + 1;
    }
  }
  const int64_t distance = row[m];
  if (row != room)
    mem_free(NULL, row);
  return distance;
}

static unroll_status check_options(const unroll_translator *t, const unroll_translate_options *o, unroll_error *err) {
  const int32_t V = unroll_tokens_count(t->targets);
  if (o->struct_size < sizeof *o)
    return fail(err, UNROLL_E_INVALID, "unroll_translate_options: struct_size %u, it must be at least %zu",
                o->struct_size, sizeof *o);
  if (o->beam < 0 || o->beam > V)
    return fail(err, UNROLL_E_INVALID, "beam %d, it must be from 1 to %d, the size of the vocabulary, or 0: none",
                o->beam, V);
  if (!(o->alpha >= 0) || !isfinite(o->alpha))
    return fail(err, UNROLL_E_INVALID, "length penalty %g, it must be at least 0", o->alpha);
  if (!(o->temperature >= 0 && o->temperature <= 100))
    return fail(err, UNROLL_E_INVALID, "temperature %g, it must be from 0 to 100", o->temperature);
  if (o->beam > 0 && o->temperature > 0)
    return fail(err, UNROLL_E_INVALID, "beam %d with temperature %g: a search draws nothing", o->beam, o->temperature);
  if (o->top_k < 0 || o->top_k > V)
    return fail(err, UNROLL_E_INVALID, "top_k %lld, it must be from 0 to %d, the size of the vocabulary",
                (long long)o->top_k, V);
  if (!(o->top_p >= 0 && o->top_p <= 1))
    return fail(err, UNROLL_E_INVALID, "top_p %g, it must be from 0 to 1", o->top_p);
  if (o->most < 0 || o->most >= TRANSLATOR_MOST)
    return fail(err, UNROLL_E_INVALID, "most %lld, it must be from 0 to %d", (long long)o->most, TRANSLATOR_MOST - 1);
  if (o->attention && t->options.attention == UNROLL_ATTENTION_NONE)
    return fail(err, UNROLL_E_STATE, "weights are asked for, but the model has no attention");
  return UNROLL_OK;
}

/* The text of ids, in memory that grows with what is asked for. */
struct phrase {
  char *text;
  uint32_t capacity;
};
static unroll_status write_phrase(const unroll_translator *t, const int32_t *ids, int64_t n, struct phrase *to,
                                  unroll_error *err) {
  size_t bytes = 0;
  TRY(unroll_tokens_decode(t->targets, ids, (size_t)n, NULL, 0, &bytes, err));
  if (bytes >= UINT32_MAX || !mem_grow(&t->trainer.allocator, &to->text, &to->capacity, (uint32_t)bytes + 1, 1))
    return fail(err, UNROLL_E_MEMORY, "no memory for a text of %zu bytes", bytes);
  return unroll_tokens_decode(t->targets, ids, (size_t)n, to->text, bytes + 1, &bytes, err);
}

/* ---- translating ---- */

static unroll_status give_out(unroll_translator *t, const unroll_sequences *sources, int64_t from,
                              const struct translator_found *f, unroll_translation_fn each, void *ctx,
                              struct phrase *phrase, unroll_error *err) {
  for (int64_t k = 0; k < f->n; k++) {
    unroll_translation x = {.struct_size = sizeof x,
                            .ended = f->ended[k],
                            .source = unroll_sequences_ids(sources, from + k),
                            .ids = f->ids + f->starts[k],
                            .n_source = unroll_sequences_lengths(sources)[from + k],
                            .n = f->lengths[k],
                            .log_prob = f->log_probs[k]};
    if (f->weights)
      x.weights = f->weights + f->weight_starts[k];
    TRY(write_phrase(t, x.ids, x.n, phrase, err));
    x.text = phrase->text;
    t->trainer.busy = true;
    const int cancelled = each(ctx, from + k, &x);
    t->trainer.busy = false;
    if (cancelled)
      return fail(err, UNROLL_E_CANCELLED, "the translating was cancelled after text %lld", (long long)(from + k));
  }
  return UNROLL_OK;
}

static unroll_status translate(unroll_translator *t, const unroll_sequences *sources, const unroll_translate_options *o,
                               unroll_translation_fn each, void *ctx, unroll_error *err) {
  const unroll_allocator *a = &t->trainer.allocator;
  const int64_t n = unroll_sequences_count(sources);
  int64_t *items = mem_array(a, AT_A_TIME, sizeof *items);
  struct phrase phrase = {NULL, 0};
  unroll_status status = items ? UNROLL_OK : fail(err, UNROLL_E_MEMORY, "no memory for a list of %d texts", AT_A_TIME);
  for (int64_t from = 0; from < n && status == UNROLL_OK; from += AT_A_TIME) {
    struct translator_found found;
    const int64_t some = n - from < AT_A_TIME ? n - from : AT_A_TIME;
    unroll_translate_options each_time = *o;
    each_time.seed += (uint64_t)(from / AT_A_TIME);
    for (int64_t k = 0; k < some; k++)
      items[k] = from + k;
    status = translator_find(t, sources, items, some, &each_time, &found, err);
    if (status != UNROLL_OK)
      break;
    status = give_out(t, sources, from, &found, each, ctx, &phrase, err);
    translator_found_free(t, &found);
  }
  mem_free(a, phrase.text);
  mem_free(a, items);
  return status;
}

unroll_status unroll_translator_translate(unroll_translator *t, const char *const *texts, int64_t n,
                                          const unroll_translate_options *options, unroll_translation_fn each,
                                          void *ctx, unroll_error *err) {
  static const unroll_translate_options greedy = {.struct_size = sizeof greedy};
  const unroll_translate_options *o = options ? options : &greedy;
  if (!t || !texts || !each)
    return fail(err, UNROLL_E_INVALID, "unroll_translator_translate: %s is NULL",
                !t       ? "the model"
                : !texts ? "sources"
                         : "each");
  if (n < 0)
    return fail(err, UNROLL_E_INVALID, "unroll_translator_translate: %lld texts", (long long)n);
  TRY(trainer_not_busy(&t->trainer, "used", err));
  TRY(check_options(t, o, err));
  if (n == 0)
    return UNROLL_OK;
  unroll_sequences *sources = NULL;
  TRY(unroll_sequences_encode(texts, n, t->sources, 0, &t->trainer.allocator, &sources, err));
  const unroll_status status = translate(t, sources, o, each, ctx, err);
  unroll_sequences_destroy(sources);
  return status;
}

/* ---- scoring ---- */

/* The items of a part, and those of one source side by side: where the next source begins. */
struct judged {
  unroll_translator *t;
  const unroll_pairs *pairs;
  struct translator_data data;
  int64_t *items, n;
  int64_t *firsts, *ends, n_sources; /* in items */
};

static unroll_status choose_items(struct judged *j, int32_t part, unroll_error *err) {
  const unroll_translator_options *o = &j->t->options;
  const int64_t n = unroll_pairs_count(j->pairs);
  int64_t counts[UNROLL_PARTS], first = 0;
  if (part == -1) {
    for (int64_t i = 0; i < n; i++)
      j->items[i] = i;
    j->n = n;
    return UNROLL_OK;
  }
  TRY(unroll_split(unroll_pairs_keys(j->pairs), n, o->training.seed, o->training.validation, o->testing, j->items,
                   counts, NULL, err));
  for (int32_t i = 0; i < part; i++)
    first += counts[i];
  j->n = counts[part];
  memmove(j->items, j->items + first, (size_t)j->n * sizeof *j->items);
  if (j->n == 0)
    return fail(err, UNROLL_E_RANGE, "none of the %lld pairs falls into the model's part for %s", (long long)n,
                part == UNROLL_TRAINING     ? "training"
                : part == UNROLL_VALIDATION ? "validation"
                                            : "testing");
  return UNROLL_OK;
}

/* Pairs of one source follow each other, as those of a dictionary do. */
static void group(struct judged *j) {
  const char *const *texts = unroll_pairs_sources(j->pairs);
  for (int64_t i = 0; i < j->n; i++)
    if (i > 0 && strcmp(texts[j->items[i]], texts[j->items[i - 1]]) == 0)
      j->ends[j->n_sources - 1] = i + 1;
    else {
      j->firsts[j->n_sources] = i;
      j->ends[j->n_sources++] = i + 1;
    }
}

/* The nearest target: its item. */
static unroll_status nearest(const struct judged *j, int64_t k, const int32_t *ids, int64_t n, int64_t *item,
                             int64_t *errors, unroll_error *err) {
  *errors = INT64_MAX;
  for (int64_t i = j->firsts[k]; i < j->ends[k]; i++) {
    const int64_t at = j->items[i];
    const int64_t d = unroll_edit_distance(ids, n, unroll_sequences_ids(j->data.targets, at),
                                           unroll_sequences_lengths(j->data.targets)[at] - 1);
    if (d < 0)
      return fail(err, UNROLL_E_MEMORY, "no memory for an edit distance");
    if (d < *errors) {
      *errors = d;
      *item = at;
    }
  }
  return UNROLL_OK;
}

struct sums {
  int64_t errors, tokens, right, base_errors, base_tokens, base_right;
};

static unroll_status judge_baseline(const struct judged *j, int64_t k, int32_t *room, struct sums *sums,
                                    unroll_error *err) {
  int64_t item = j->items[j->firsts[k]], errors;
  const int32_t *source = unroll_sequences_ids(j->data.sources, item);
  const int64_t n = unroll_sequences_lengths(j->data.sources)[item];
  for (int64_t i = 0; i < n; i++)
    room[i] = j->t->by_place[source[i]];
  TRY(nearest(j, k, room, n, &item, &errors, err));
  sums->base_errors += errors;
  sums->base_tokens += unroll_sequences_lengths(j->data.targets)[item] - 1;
  sums->base_right += errors == 0;
  return UNROLL_OK;
}

static unroll_status judge_all(const struct judged *j, const struct translator_found *f, int32_t *room,
                               int (*each)(void *ctx, const unroll_translator_scored *scored), void *ctx,
                               struct sums *sums, unroll_error *err) {
  struct phrase phrase = {NULL, 0};
  unroll_status status = UNROLL_OK;
  for (int64_t k = 0; k < j->n_sources && status == UNROLL_OK; k++) {
    const int32_t *ids = f->ids + f->starts[k];
    int64_t item = 0, errors = 0;
    status = nearest(j, k, ids, f->lengths[k], &item, &errors, err);
    if (status == UNROLL_OK)
      status = judge_baseline(j, k, room, sums, err);
    if (status != UNROLL_OK)
      break;
    const int64_t length = unroll_sequences_lengths(j->data.targets)[item] - 1;
    sums->errors += errors;
    sums->tokens += length;
    sums->right += errors == 0;
    if (!each)
      continue;
    status = write_phrase(j->t, ids, f->lengths[k], &phrase, err);
    const unroll_translator_scored one = {.struct_size = sizeof one,
                                          .source = unroll_pairs_sources(j->pairs)[item],
                                          .translation = phrase.text,
                                          .target = unroll_pairs_targets(j->pairs)[item],
                                          .errors = errors,
                                          .length = length};
    if (status == UNROLL_OK && each(ctx, &one))
      status = fail(err, UNROLL_E_CANCELLED, "the scoring was cancelled after source %lld", (long long)k);
  }
  mem_free(&j->t->trainer.allocator, phrase.text);
  return status;
}

static unroll_status score(struct judged *j, int32_t part, const unroll_translate_options *o,
                           int (*each)(void *ctx, const unroll_translator_scored *scored), void *ctx,
                           unroll_translator_score_info *info, unroll_error *err) {
  const unroll_allocator *a = &j->t->trainer.allocator;
  TRY(choose_items(j, part, err));
  group(j);
  int32_t longest = 1;
  int64_t *sources = mem_array(a, (uint64_t)j->n_sources, sizeof *sources);
  for (int64_t k = 0; k < j->n_sources && sources; k++) {
    sources[k] = j->items[j->firsts[k]];
    const int32_t n = unroll_sequences_lengths(j->data.sources)[sources[k]];
    longest = n > longest ? n : longest;
  }
  int32_t *room = mem_array(a, (uint64_t)longest, sizeof *room);
  struct translator_found found = {.n = 0};
  struct sums s = {0};
  unroll_status status = sources && room ? UNROLL_OK : fail(err, UNROLL_E_MEMORY, "no memory to score");
  if (status == UNROLL_OK)
    status = translator_find(j->t, j->data.sources, sources, j->n_sources, o, &found, err);
  if (status == UNROLL_OK)
    status = judge_all(j, &found, room, each, ctx, &s, err);
  translator_found_free(j->t, &found);
  mem_free(a, sources);
  mem_free(a, room);
  *info = (unroll_translator_score_info){.struct_size = sizeof *info,
                                         .count = j->n_sources,
                                         .tokens = s.tokens,
                                         .error_rate = (double)s.errors / (double)s.tokens,
                                         .accuracy = (double)s.right / (double)j->n_sources,
                                         .baseline_error_rate = (double)s.base_errors / (double)s.base_tokens,
                                         .baseline_accuracy = (double)s.base_right / (double)j->n_sources};
  return status;
}

unroll_status unroll_translator_score(unroll_translator *t, const unroll_pairs *pairs, int32_t part,
                                      const unroll_translate_options *options,
                                      int (*each)(void *ctx, const unroll_translator_scored *scored), void *ctx,
                                      unroll_translator_score_info *info, unroll_error *err) {
  static const unroll_translate_options greedy = {.struct_size = sizeof greedy};
  const unroll_translate_options *o = options ? options : &greedy;
  if (!t || !pairs || !info)
    return fail(err, UNROLL_E_INVALID, "unroll_translator_score: %s is NULL",
                !t       ? "the model"
                : !pairs ? "pairs"
                         : "info");
  if (part < -1 || part >= UNROLL_PARTS)
    return fail(err, UNROLL_E_RANGE, "part %d, expected UNROLL_TRAINING, _VALIDATION, _TESTING or -1", part);
  TRY(trainer_not_busy(&t->trainer, "scored", err));
  TRY(check_options(t, o, err));
  const unroll_allocator *a = &t->trainer.allocator;
  const uint64_t n = (uint64_t)unroll_pairs_count(pairs);
  struct judged j = {.t = t, .pairs = pairs};
  j.items = mem_array(a, n, sizeof *j.items);
  j.firsts = mem_array(a, n, sizeof *j.firsts);
  j.ends = mem_array(a, n, sizeof *j.ends);
  unroll_status status = j.items && j.firsts && j.ends
                             ? UNROLL_OK
                             : fail(err, UNROLL_E_MEMORY, "no memory for a list of %llu pairs", (unsigned long long)n);
  if (status == UNROLL_OK)
    status = translator_encode(t, unroll_pairs_sources(pairs), unroll_pairs_targets(pairs), unroll_pairs_count(pairs),
                               &j.data, err);
  if (status == UNROLL_OK) {
    t->trainer.busy = true;
    status = score(&j, part, o, each, ctx, info, err);
    t->trainer.busy = false;
  }
  translator_data_free(&j.data);
  mem_free(a, j.items);
  mem_free(a, j.firsts);
  mem_free(a, j.ends);
  return status;
}
