/* SPDX-License-Identifier: Apache-2.0 */
/* How well a model foretells a text that it need not have seen. */
#include <math.h>
#include <string.h>

#include "train/lm_private.h"

/* -Σ p·ln p over the ids' frequencies. */
static unroll_status unigram_entropy(const unroll_lm *lm, const unroll_text *text, double *entropy, unroll_error *err) {
  const int32_t V = unroll_vocabulary_count(lm->vocabulary), *ids = unroll_text_ids(text);
  const int64_t n = unroll_text_count(text);
  int64_t *counts = mem_array(&lm->trainer.allocator, (uint64_t)V, sizeof *counts);
  if (!counts)
    return fail(err, UNROLL_E_MEMORY, "no memory for %d frequencies", V);
  for (int64_t i = 0; i < n; i++)
    counts[ids[i]]++;
  *entropy = 0;
  for (int32_t v = 0; v < V; v++)
    if (counts[v] > 0)
      *entropy -= (double)counts[v] / (double)n * log((double)counts[v] / (double)n);
  mem_free(&lm->trainer.allocator, counts);
  return UNROLL_OK;
}

/* lm->x, lm->targets and lm->evaluated are the stream's here, and its own again afterwards. */
static unroll_status score_stream(unroll_lm *lm, const unroll_text_stream *stream, double *loss, unroll_error *err) {
  const unroll_lm before = *lm;
  const unroll_allocator *a = &lm->trainer.allocator;
  const uint64_t cells = (uint64_t)(stream->T * stream->B);
  struct trainer_program program = {NULL, NULL};
  unroll_graph *graph;
  double metric;
  lm->x = mem_array(a, cells, sizeof *lm->x);
  lm->targets = mem_array(a, cells, sizeof *lm->targets);
  lm->evaluated = stream;
  unroll_status status = lm->x && lm->targets ? trainer_graph_evaluate(&lm->trainer, 0, &graph, err)
                                              : fail(err, UNROLL_E_MEMORY, "model: no memory for a batch of %llu",
                                                     (unsigned long long)cells);
  if (status == UNROLL_OK)
    status = trainer_program_make(&lm->trainer, graph, &program, err);
  if (status == UNROLL_OK)
    status = trainer_program_parameters(&lm->trainer, &program, err);
  if (status == UNROLL_OK)
    status = trainer_evaluate_with(&lm->trainer, &program, (uint64_t)stream->updates, loss, &metric, err);
  trainer_program_free(&program);
  mem_free(a, lm->x);
  mem_free(a, lm->targets);
  lm->x = before.x;
  lm->targets = before.targets;
  lm->evaluated = before.evaluated;
  return status;
}

unroll_status unroll_lm_score(unroll_lm *lm, const unroll_text *text, unroll_lm_score_info *info, unroll_error *err) {
  if (!lm || !text || !info)
    return fail(err, UNROLL_E_INVALID, "unroll_lm_score: %s is NULL", !lm ? "the model" : !text ? "text" : "info");
  TRY(trainer_not_busy(&lm->trainer, "scored", err));
  if (strcmp(unroll_vocabulary_json(unroll_text_vocabulary(text)), unroll_vocabulary_json(lm->vocabulary)) != 0)
    return fail(err, UNROLL_E_INVALID,
                "the text was loaded with another vocabulary, of %d, than the model's, of %d: give it to "
                "unroll_text_load",
                unroll_vocabulary_count(unroll_text_vocabulary(text)), unroll_vocabulary_count(lm->vocabulary));
  const int64_t n = unroll_text_count(text);
  if (n < 2)
    return fail(err, UNROLL_E_RANGE, "a text of %lld, it takes at least 2 to score it", (long long)n);
  unroll_text_stream stream;
  unroll_lm_score_info result = {.struct_size = sizeof result};
  TRY(lm_evaluation_stream(&lm->options, unroll_text_ids(text), n, &stream, err));
  TRY(unigram_entropy(lm, text, &result.unigram, err));
  TRY(score_stream(lm, &stream, &result.loss, err));
  result.count = stream.updates * stream.T * stream.B;
  *info = result;
  return UNROLL_OK;
}
