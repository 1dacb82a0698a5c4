/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of a language model, a task of the trainer. */
#ifndef LM_PRIVATE_H
#define LM_PRIVATE_H
#include "train/trainer.h"

#define LM_MAX_STEPS 65536

struct unroll_lm {
  struct trainer trainer;
  unroll_lm_options options; /* training: see the trainer's */
  unroll_vocabulary *vocabulary;

  uint64_t text_hash; /* of the text it is trained on, as its size: known without the text too */
  int64_t text_characters;
  const unroll_text *text;
  unroll_text_stream stream, validation; /* validation.ids NULL: there is no such part */
  const unroll_text_stream *evaluated;   /* what evaluation programs are made for and read */
  int32_t *x, *targets;                  /* [T,B] */

  struct trainer_program sample;
  int64_t sample_top_k; /* what the sampling program was made for */
  bool sample_greedy;
};

/* ---- options ---- */
/* V: the size of the vocabulary. */
unroll_status lm_options_check(const unroll_lm_options *o, int64_t V, unroll_error *err);
/* The options as they are in use. */
unroll_lm_options lm_options_in_use(const unroll_lm *lm);
static inline int64_t lm_update_steps(const unroll_lm_options *o) {
  return o->update_steps ? o->update_steps : o->steps;
}

/* ---- graphs ---- */
struct trainer_loss lm_build(const void *owner, struct trainer_build *b);
unroll_status lm_graph_sample(const unroll_lm *lm, bool greedy, int64_t top_k, unroll_graph **graph, unroll_error *err);
/* The states h.l and c.l, to zero. */
unroll_status lm_program_reset(const unroll_lm *lm, unroll_binding *binding, unroll_error *err);

/* ---- batches ---- */
/* The streams over the text. Leaves lm as it was on failure. */
unroll_status lm_attach_text(unroll_lm *lm, const unroll_text *text, unroll_error *err);
/* As many of the streams of a training step as n ids have room for; shorter steps only where one stream alone is too
 * long. n >= 2. */
unroll_status lm_evaluation_stream(const unroll_lm_options *o, const int32_t *ids, int64_t n,
                                   unroll_text_stream *stream, unroll_error *err);
unroll_status lm_feed(void *owner, const struct trainer_place *place, unroll_binding *b, struct trainer_feed *feed,
                      unroll_error *err);
unroll_status lm_feed_evaluation(void *owner, uint64_t batch, unroll_binding *b, struct trainer_feed *feed,
                                 unroll_error *err);
uint64_t lm_epoch_updates(const void *owner, uint64_t epoch);

/* ---- life ---- */
/* Devices and allocator; all else as zeros. */
unroll_status lm_begin(unroll_device *const *devices, uint32_t n_devices, const unroll_allocator *allocator,
                       unroll_lm **out, unroll_error *err);

/* ---- file: metadata ---- */
/* The values of a model's metadata; the texts of options.training are the caller's to free. */
struct lm_metadata {
  unroll_lm_options options;
  struct trainer_position position;
  uint64_t vocabulary, text_hash;
  int64_t text_characters, tied;
};
unroll_status lm_metadata_write(const void *owner, unroll_safetensors_writer *writer, unroll_error *err);
/* On failure too options.training has texts to free. */
unroll_status lm_metadata_read(const unroll_safetensors *file, const unroll_allocator *allocator,
                               struct lm_metadata *metadata, unroll_error *err);

#endif
