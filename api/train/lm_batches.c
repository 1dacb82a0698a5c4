/* SPDX-License-Identifier: Apache-2.0 */
/* The streams of a text, cut into windows of steps. */
#include "train/lm_private.h"

unroll_status lm_evaluation_stream(const unroll_lm_options *o, const int32_t *ids, int64_t n,
                                   unroll_text_stream *stream, unroll_error *err) {
  const int64_t T = o->steps < n - 1 ? o->steps : n - 1;
  const int64_t B = o->training.batch < (n - 1) / T ? o->training.batch : (n - 1) / T;
  return unroll_text_stream_init(stream, ids, n, T, B, err);
}

/* The steps of an epoch's windows. */
static int64_t epoch_steps(const unroll_lm_options *o, uint64_t epoch) {
  if (o->steps_start == 0)
    return o->steps;
  const uint64_t most = (uint64_t)((o->steps - o->steps_start) / o->steps_increment);
  return epoch > most ? o->steps : o->steps_start + (int64_t)epoch * o->steps_increment;
}

/* The first epoch whose windows are as long as they get. */
static uint64_t steady_epoch(const unroll_lm_options *o) {
  if (o->steps_start == 0)
    return 0;
  return (uint64_t)((o->steps - o->steps_start + o->steps_increment - 1) / o->steps_increment);
}

uint64_t lm_epoch_updates(const void *owner, uint64_t epoch) {
  const unroll_lm *lm = owner;
  const int64_t T = epoch_steps(&lm->options, epoch), k1 = lm_update_steps(&lm->options);
  if (lm->options.update_steps)
    return 1 + (uint64_t)((lm->stream.length - T) / k1);
  return (uint64_t)(lm->stream.length / T);
}

unroll_status lm_attach_text(unroll_lm *lm, const unroll_text *text, unroll_error *err) {
  const unroll_lm_options *o = &lm->options;
  const unroll_allocator *a = &lm->trainer.allocator;
  const int32_t *ids = unroll_text_ids(text);
  const int64_t n = unroll_text_count(text), n_train = unroll_text_train_count(text, o->training.validation);
  unroll_text_stream stream, validation = {NULL, 0, 0, 0, 0};
  unroll_error inner = UNROLL_ERROR_INIT;
  const unroll_status status = unroll_text_stream_init(&stream, ids, n_train, o->steps, o->training.batch, &inner);
  if (status != UNROLL_OK)
    return fail(err, status, "the text's part for training, %lld of its %lld characters: %s", (long long)n_train,
                (long long)n, inner.message);
  if (o->training.validation > 0) {
    if (n - n_train < 2)
      return fail(err, UNROLL_E_RANGE, "validation %g leaves %lld characters for validation, it takes at least 2",
                  o->training.validation, (long long)(n - n_train));
    TRY(lm_evaluation_stream(o, ids + n_train, n - n_train, &validation, err));
  }
  /* Validation batches are no larger than these. */
  const uint64_t cells = (uint64_t)(o->steps * o->training.batch);
  int32_t *x = mem_array(a, cells, sizeof *x);
  int32_t *targets = mem_array(a, cells, sizeof *targets);
  if (!x || !targets) {
    mem_free(a, x);
    mem_free(a, targets);
    return fail(err, UNROLL_E_MEMORY, "model: no memory for a batch of %llu characters", (unsigned long long)cells);
  }
  const unroll_text_stream before = lm->stream;
  lm->stream = stream; /* which epochs are counted by */
  const unroll_status attached =
      trainer_attach(&lm->trainer, steady_epoch(o), validation.ids ? (uint64_t)validation.updates : 0, err);
  if (attached != UNROLL_OK) {
    lm->stream = before;
    mem_free(a, x);
    mem_free(a, targets);
    return attached;
  }
  lm->x = x;
  lm->targets = targets;
  lm->text = text;
  lm->text_hash = unroll_text_hash(text);
  lm->text_characters = n;
  lm->validation = validation;
  return UNROLL_OK;
}

/* x and targets [T,rows]: T characters from `at` on of the streams from row0 on. */
static void fill(unroll_lm *lm, const unroll_text_stream *s, int64_t row0, int64_t rows, int64_t at, int64_t T) {
  for (int64_t b = 0; b < rows; b++) {
    const int32_t *from = s->ids + (row0 + b) * s->length + at;
    for (int64_t t = 0; t < T; t++) {
      lm->x[t * rows + b] = from[t];
      lm->targets[t * rows + b] = from[t + 1];
    }
  }
}

static unroll_status write_batch(const unroll_lm *lm, unroll_binding *b, int64_t T, int64_t rows, unroll_error *err) {
  const uint64_t bytes = (uint64_t)(T * rows) * sizeof(int32_t);
  TRY(unroll_binding_write(b, "x", lm->x, bytes, err));
  return unroll_binding_write(b, "targets", lm->targets, bytes, err);
}

unroll_status lm_feed(void *owner, const struct trainer_place *place, unroll_binding *b, struct trainer_feed *feed,
                      unroll_error *err) {
  unroll_lm *lm = owner;
  const unroll_lm_options *o = &lm->options;
  const int64_t T = epoch_steps(o, place->epoch), rows = o->training.batch / place->parts, row0 = place->part * rows;
  const int64_t move = o->update_steps ? o->update_steps : T;
  fill(lm, &lm->stream, row0, rows, (int64_t)place->index * move, T);
  /* What the window before it has counted is not counted again. */
  if (place->index > 0)
    for (int64_t i = 0; i < (T - move) * rows; i++)
      lm->targets[i] = -1;
  if (place->index == 0 && place->part == 0)
    TRY(lm_program_reset(lm, b, err));
  TRY(write_batch(lm, b, T, rows, err));
  feed->row0 = row0;
  feed->items = T * rows;
  if (o->steps_start > 0)
    feed->dims[feed->n_dims++] = T;
  return UNROLL_OK;
}

unroll_status lm_feed_evaluation(void *owner, uint64_t batch, unroll_binding *b, struct trainer_feed *feed,
                                 unroll_error *err) {
  unroll_lm *lm = owner;
  const unroll_text_stream *s = lm->evaluated;
  fill(lm, s, 0, s->B, (int64_t)batch * s->T, s->T);
  if (batch == 0)
    TRY(lm_program_reset(lm, b, err));
  feed->items = s->T * s->B;
  return write_batch(lm, b, s->T, s->B, err);
}
