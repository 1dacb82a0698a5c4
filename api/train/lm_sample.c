/* SPDX-License-Identifier: Apache-2.0 */
/* Sampling: one character a run; the sampled id is a state, so that the next run finds it on the device. */
#include <string.h>

#include "train/lm_private.h"

/* As many characters make a piece as take about this long. */
#define PIECE_SECONDS 0.05

static unroll_status check_options(const unroll_lm *lm, const unroll_lm_sample_options *o, unroll_error *err) {
  if (o->struct_size < sizeof *o)
    return fail(err, UNROLL_E_INVALID, "unroll_lm_sample_options: struct_size %u, it must be at least %zu",
                o->struct_size, sizeof *o);
  if (!(o->temperature >= 0 && o->temperature <= 100))
    return fail(err, UNROLL_E_INVALID, "temperature %g, it must be from 0 to 100", o->temperature);
  const int32_t V = unroll_vocabulary_count(lm->vocabulary);
  if (o->top_k < 0 || o->top_k > V)
    return fail(err, UNROLL_E_INVALID, "top_k %lld, it must be from 0 to %d, the size of the vocabulary",
                (long long)o->top_k, V);
  return UNROLL_OK;
}

/* top_k is part of the compiled graph, so another one needs another program. */
static unroll_status prepare(unroll_lm *lm, bool greedy, int64_t top_k, unroll_error *err) {
  if (lm->sample.binding && lm->sample_greedy == greedy && (greedy || lm->sample_top_k == top_k))
    return UNROLL_OK;
  trainer_program_free(&lm->sample);
  unroll_graph *graph;
  TRY(lm_graph_sample(lm, greedy, top_k, &graph, err));
  TRY(trainer_program_make(&lm->trainer, graph, &lm->sample, err));
  const unroll_status status = trainer_program_parameters(&lm->trainer, &lm->sample, err);
  if (status != UNROLL_OK)
    trainer_program_free(&lm->sample);
  lm->sample_greedy = greedy;
  lm->sample_top_k = top_k;
  return status;
}

/* The prompt's ids, at least one; to be freed. */
static unroll_status encode_prompt(const unroll_lm *lm, const char *prompt, int32_t **ids, size_t *n,
                                   unroll_error *err) {
  const size_t bytes = prompt ? strlen(prompt) : 0;
  *ids = mem_array(&lm->trainer.allocator, bytes + 1, sizeof **ids);
  if (!*ids)
    return fail(err, UNROLL_E_MEMORY, "prompt: no memory for %zu characters", bytes);
  if (bytes == 0) {
    if (unroll_vocabulary_encode(lm->vocabulary, "\n", 1, *ids, 1, n, NULL) != UNROLL_OK)
      **ids = 0;
    *n = 1;
    return UNROLL_OK;
  }
  unroll_error inner = UNROLL_ERROR_INIT;
  unroll_status status = unroll_vocabulary_encode(lm->vocabulary, prompt, bytes, *ids, bytes, n, &inner);
  if (status == UNROLL_OK && *n == 0)
    status = fail(&inner, UNROLL_E_FORMAT, "nothing but white space");
  if (status == UNROLL_OK)
    return UNROLL_OK;
  mem_free(&lm->trainer.allocator, *ids);
  return fail(err, status, "prompt: %s", inner.message);
}

/* One character: reads the one at `position` of the text, prompt included, and samples the next. */
static unroll_status queue_step(unroll_lm *lm, const unroll_lm_sample_options *o, uint64_t position,
                                unroll_error *err) {
  const unroll_run_options run = {.struct_size = sizeof run, .seed = o->seed, .update = position};
  return unroll_run(lm->sample.binding, &run, err);
}

static unroll_status read_prompt(unroll_lm *lm, const unroll_lm_sample_options *o, const int32_t *ids, size_t n,
                                 unroll_error *err) {
  unroll_binding *b = lm->sample.binding;
  TRY(lm_program_reset(lm, b, err));
  if (o->temperature > 0) {
    const float temperature = (float)o->temperature;
    TRY(unroll_binding_write(b, "temperature", &temperature, sizeof temperature, err));
  }
  /* What was sampled after a character of the prompt is written over by the next one. */
  for (size_t i = 0; i < n; i++) {
    TRY(unroll_binding_write(b, "id", &ids[i], sizeof ids[i], err));
    TRY(queue_step(lm, o, i, err));
  }
  return UNROLL_OK;
}

/* Between two words stands a space, unless one is a line's end. */
static bool are_apart(const char *before, const char *word) {
  return before && strcmp(before, "\n") != 0 && strcmp(word, "\n") != 0;
}

/* before: the word that these follow; NULL: none, or the characters do not stand apart. */
static unroll_status show(unroll_lm *lm, const int32_t *ids, uint32_t n, const char *before, unroll_lm_text_fn text,
                          void *ctx, unroll_error *err) {
  const bool words = unroll_vocabulary_unit(lm->vocabulary) == UNROLL_UNIT_WORD;
  struct text piece;
  text_init(&piece, &lm->trainer.allocator);
  for (uint32_t i = 0; i < n; i++) {
    const char *one = unroll_vocabulary_text(lm->vocabulary, ids[i]);
    if (!one) {
      text_free(&piece);
      return fail(err, UNROLL_E_RANGE, "id %d was sampled: the vocabulary has 0 to %d", ids[i],
                  unroll_vocabulary_count(lm->vocabulary) - 1);
    }
    if (words && are_apart(before, one))
      text_add_bytes(&piece, " ", 1);
    text_add_bytes(&piece, one, strlen(one));
    before = one;
  }
  const size_t size = (size_t)piece.size;
  char *all = text_take(&piece);
  if (!all)
    return fail(err, UNROLL_E_MEMORY, "no memory for %u characters", n);
  lm->trainer.busy = true;
  const int cancelled = text(ctx, all, size);
  lm->trainer.busy = false;
  mem_free(&lm->trainer.allocator, all);
  return cancelled ? fail(err, UNROLL_E_CANCELLED, "the sampling was cancelled") : UNROLL_OK;
}

/* last: the prompt's last id; -1: nothing need stand between it and what follows. */
static unroll_status generate(unroll_lm *lm, const unroll_lm_sample_options *o, uint64_t position, int32_t last,
                              unroll_lm_text_fn text, void *ctx, unroll_error *err) {
  uint64_t piece = 1;
  double start = trainer_seconds();
  /* The prompt's last run has made the first character; whose next one nobody needs is not run. */
  uint64_t queued = 1, shown = 0;
  const char *before = last < 0 ? NULL : unroll_vocabulary_text(lm->vocabulary, last);
  while (shown < o->length) {
    const uint64_t n = piece < o->length - shown ? piece : o->length - shown;
    for (; queued < shown + n; queued++)
      TRY(queue_step(lm, o, position++, err));
    int32_t ids[TRAINER_HISTORY];
    TRY(unroll_binding_read(lm->sample.binding, "ids", ids, sizeof ids, err));
    TRY(show(lm, ids + TRAINER_HISTORY - n, (uint32_t)n, before, text, ctx, err));
    before = unroll_vocabulary_text(lm->vocabulary, ids[TRAINER_HISTORY - 1]);
    shown += n;
    const double now = trainer_seconds();
    if (now - start < PIECE_SECONDS / 2 && piece < TRAINER_HISTORY)
      piece *= 2;
    else if (now - start > PIECE_SECONDS && piece > 1)
      piece /= 2;
    start = now;
  }
  return UNROLL_OK;
}

unroll_status unroll_lm_sample(unroll_lm *lm, const unroll_lm_sample_options *options, unroll_lm_text_fn text,
                               void *ctx, unroll_error *err) {
  if (!lm || !options || !text)
    return fail(err, UNROLL_E_INVALID, "unroll_lm_sample: %s is NULL",
                !lm        ? "the model"
                : !options ? "options"
                           : "text");
  TRY(trainer_not_busy(&lm->trainer, "sampled", err));
  TRY(check_options(lm, options, err));
  int32_t *ids;
  size_t n;
  TRY(encode_prompt(lm, options->prompt, &ids, &n, err));
  unroll_status status = prepare(lm, options->temperature == 0, options->top_k, err);
  if (status == UNROLL_OK)
    status = read_prompt(lm, options, ids, n, err);
  const size_t bytes = options->prompt ? strlen(options->prompt) : 0;
  const bool stands_apart = bytes == 0 || strchr(" \t\r\v\f", options->prompt[bytes - 1]);
  const int32_t last = stands_apart ? -1 : ids[n - 1];
  mem_free(&lm->trainer.allocator, ids);
  return status == UNROLL_OK ? generate(lm, options, n, last, text, ctx, err) : status;
}
