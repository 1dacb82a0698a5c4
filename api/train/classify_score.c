/* SPDX-License-Identifier: Apache-2.0 */
/* What a classifier says of sequences that it need not have seen. */
#include <math.h>
#include <string.h>

#include "train/classify_private.h"

/* Logarithms of probabilities [n,C], through a program of `set`. room [rows,C]. */
static unroll_status run_set(unroll_classifier *c, const struct classifier_set *set, struct trainer_program *program,
                             float *room, float *logs, unroll_error *err) {
  const size_t C = (size_t)classifier_classes(c);
  for (int64_t i = 0; i < unroll_batches_count(set->batches); i++) {
    const unroll_batch batch = unroll_batches_get(set->batches, i);
    struct trainer_feed feed = {.n_dims = 0};
    TRY(classifier_write(c, set, &batch, 0, set->rows, false, program->binding, &feed, err));
    const unroll_run_options run = {
        .struct_size = sizeof run, .n_dims = feed.n_dims, .dims = feed.n_dims ? feed.dims : NULL};
    TRY(unroll_run(program->binding, &run, err));
    TRY(unroll_binding_read(program->binding, "classes", room, (size_t)set->rows * C * sizeof *room, err));
    for (int64_t r = 0; r < batch.n; r++)
      memcpy(logs + (size_t)batch.items[r] * C, room + (size_t)r * C, C * sizeof *room);
  }
  return UNROLL_OK;
}

static unroll_status run_all(unroll_classifier *c, const unroll_sequences *sequences, float *logs, unroll_error *err) {
  const unroll_allocator *a = &c->trainer.allocator;
  const struct classifier_set *const before = c->evaluated;
  struct trainer_program program = {NULL, NULL};
  struct classifier_set set;
  unroll_graph *graph;
  TRY(classifier_set_make(c, sequences, NULL, unroll_sequences_count(sequences), true, &set, err));
  const uint64_t cells = (uint64_t)(set.rows * classifier_classes(c));
  float *room = mem_array(a, cells, sizeof *room);
  c->evaluated = &set;
  unroll_status status =
      room ? classifier_graph_predict(c, &graph, err)
           : fail(err, UNROLL_E_MEMORY, "model: no memory for %llu probabilities", (unsigned long long)cells);
  if (status == UNROLL_OK)
    status = trainer_program_make(&c->trainer, graph, &program, err);
  if (status == UNROLL_OK)
    status = trainer_program_parameters(&c->trainer, &program, err);
  if (status == UNROLL_OK)
    status = run_set(c, &set, &program, room, logs, err);
  c->evaluated = before;
  trainer_program_free(&program);
  mem_free(a, room);
  classifier_set_free(c, &set);
  return status;
}

static unroll_status check_sequences(const unroll_classifier *c, const unroll_sequences *sequences, const char *what,
                                     unroll_error *err) {
  TRY(trainer_not_busy(&c->trainer, what, err));
  if (unroll_sequences_features(sequences) != c->features)
    return fail(err, UNROLL_E_SHAPE, "sequences of %lld numbers a step, the model takes %lld",
                (long long)unroll_sequences_features(sequences), (long long)c->features);
  return UNROLL_OK;
}

unroll_status unroll_classifier_predict(unroll_classifier *c, const unroll_sequences *sequences, float *probabilities,
                                        unroll_error *err) {
  if (!c || !sequences || !probabilities)
    return fail(err, UNROLL_E_INVALID, "unroll_classifier_predict: %s is NULL",
                !c           ? "the model"
                : !sequences ? "sequences"
                             : "probabilities");
  TRY(check_sequences(c, sequences, "used", err));
  TRY(run_all(c, sequences, probabilities, err));
  for (int64_t i = 0; i < unroll_sequences_count(sequences) * classifier_classes(c); i++)
    probabilities[i] = expf(probabilities[i]);
  return UNROLL_OK;
}

static unroll_classifier_score_info count(const unroll_classifier *c, const unroll_sequences *sequences,
                                          const float *logs, int64_t *confusion) {
  const int64_t n = unroll_sequences_count(sequences), C = classifier_classes(c);
  const int32_t *labels = unroll_sequences_labels(sequences), majority = classifier_majority(c);
  unroll_classifier_score_info info = {.struct_size = sizeof info, .count = n};
  double all = 0;
  for (int64_t k = 0; k < C; k++)
    all += c->counts[k] + 1;
  if (confusion)
    memset(confusion, 0, (size_t)(C * C) * sizeof *confusion);
  for (int64_t i = 0; i < n; i++) {
    const float *row = logs + i * C;
    int64_t best = 0;
    for (int64_t k = 1; k < C; k++)
      if (row[k] > row[best])
        best = k;
    info.loss -= (double)row[labels[i]] / (double)n;
    info.accuracy += (best == labels[i]) / (double)n;
    info.majority_loss -= log((c->counts[labels[i]] + 1) / all) / (double)n;
    info.majority_accuracy += (majority == labels[i]) / (double)n;
    if (confusion)
      confusion[labels[i] * C + best]++;
  }
  return info;
}

unroll_status unroll_classifier_score(unroll_classifier *c, const unroll_sequences *sequences, int64_t *confusion,
                                      unroll_classifier_score_info *info, unroll_error *err) {
  if (!c || !sequences || !info)
    return fail(err, UNROLL_E_INVALID, "unroll_classifier_score: %s is NULL",
                !c           ? "the model"
                : !sequences ? "sequences"
                             : "info");
  TRY(check_sequences(c, sequences, "scored", err));
  const unroll_tokens *names = unroll_sequences_label_names(sequences);
  if (!names || strcmp(unroll_tokens_json(names), unroll_tokens_json(c->labels)) != 0)
    return fail(err, UNROLL_E_INVALID, "the sequences have %s: give the model's labels to unroll_sequences_load",
                names ? "other labels than the model" : "no labels");
  const uint64_t cells = (uint64_t)(unroll_sequences_count(sequences) * classifier_classes(c));
  float *logs = mem_array(&c->trainer.allocator, cells, sizeof *logs);
  if (!logs)
    return fail(err, UNROLL_E_MEMORY, "model: no memory for %llu probabilities", (unsigned long long)cells);
  const unroll_status status = run_all(c, sequences, logs, err);
  if (status == UNROLL_OK)
    *info = count(c, sequences, logs, confusion);
  mem_free(&c->trainer.allocator, logs);
  return status;
}
