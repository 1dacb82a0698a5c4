/* SPDX-License-Identifier: Apache-2.0 */
#include <stddef.h>

#include "train/lm_private.h"

#define KIND "character language model"
#define COUNT(array) (sizeof(array) / sizeof(array)[0])
#define OPTION(member) offsetof(unroll_lm_options, member)
#define OWN(member) offsetof(struct lm_metadata, member)

static const struct trainer_field model_fields[] = {
    {"embedding", FIELD_EXTENT, OWN(options.embedding), NULL, 0, 0, 0, 0},
    {"vocabulary", FIELD_COUNT, OWN(vocabulary), NULL, 0, 0, 0, 0},
    {"tied", FIELD_EXTENT, OWN(tied), NULL, 0, 0, 1, 0},
};
static const struct trainer_field training_fields[] = {
    {"steps", FIELD_EXTENT, OPTION(steps), NULL, 0, 0, 0, 0},
};
static const struct trainer_field window_fields[] = {
    {"update_steps", FIELD_EXTENT, OPTION(update_steps), NULL, 0, 0, 1, 0},
    {"steps_start", FIELD_EXTENT, OPTION(steps_start), NULL, 0, 0, 2, 0},
    {"steps_increment", FIELD_EXTENT, OPTION(steps_increment), NULL, 0, 0, 2, 0},
};
static const struct trainer_field text_fields[] = {
    {"hash", FIELD_HASH, OWN(text_hash), NULL, 0, 0, 0, 0},
    {"characters", FIELD_EXTENT, OWN(text_characters), NULL, 0, 0, 0, 0},
};

/* Of all objects; their tables point into m. */
struct sections {
  struct trainer_fields model[2], training[4], text;
};
static struct sections sections_of(struct lm_metadata *m) {
  return (struct sections){{trainer_rnn_model_fields(&m->options.rnn), {model_fields, COUNT(model_fields), m}},
                           {{training_fields, COUNT(training_fields), &m->options},
                            trainer_rnn_training_fields(&m->options.rnn),
                            trainer_option_fields(&m->options.training),
                            {window_fields, COUNT(window_fields), &m->options}},
                           {text_fields, COUNT(text_fields), m}};
}

unroll_status lm_metadata_write(const void *owner, unroll_safetensors_writer *writer, unroll_error *err) {
  const unroll_lm *lm = owner;
  const unroll_allocator *a = &lm->trainer.allocator;
  struct lm_metadata m = {.options = lm_options_in_use(lm),
                          .tied = lm->options.tied,
                          .vocabulary = (uint64_t)unroll_vocabulary_count(lm->vocabulary),
                          .text_hash = lm->text_hash,
                          .text_characters = lm->text_characters};
  const struct sections s = sections_of(&m);
  TRY(trainer_metadata_begin(writer, KIND, err));
  TRY(unroll_safetensors_writer_metadata(writer, "unroll.vocabulary", unroll_vocabulary_json(lm->vocabulary), err));
  TRY(trainer_metadata_write(writer, "unroll.model", s.model, COUNT(s.model), a, err));
  TRY(trainer_metadata_write(writer, "unroll.training", s.training, COUNT(s.training), a, err));
  TRY(trainer_position_write(&lm->trainer, writer, err));
  return trainer_metadata_write(writer, "unroll.text", &s.text, 1, a, err);
}

unroll_status lm_metadata_read(const unroll_safetensors *file, const unroll_allocator *allocator, struct lm_metadata *m,
                               unroll_error *err) {
  *m = (struct lm_metadata){
      .options = {.struct_size = sizeof m->options, .training = {.loss_scale = 1, .accumulate = 1}}};
  const struct sections s = sections_of(m);
  TRY(trainer_metadata_check(file, KIND, err));
  TRY(trainer_metadata_read(file, "unroll.model", s.model, COUNT(s.model), allocator, err));
  TRY(trainer_metadata_read(file, "unroll.training", s.training, COUNT(s.training), allocator, err));
  TRY(trainer_position_read(file, allocator, &m->position, err));
  return trainer_metadata_read(file, "unroll.text", &s.text, 1, allocator, err);
}
