/* SPDX-License-Identifier: Apache-2.0 */
/* A language model's file. */
#include <string.h>

#include "train/lm_private.h"

unroll_status unroll_lm_save(unroll_lm *lm, const char *path, unroll_error *err) {
  if (!lm || !path)
    return fail(err, UNROLL_E_INVALID, "unroll_lm_save: %s is NULL", lm ? "path" : "the model");
  return trainer_save(&lm->trainer, path, err);
}

static unroll_status read_vocabulary(unroll_lm *lm, const unroll_safetensors *file, uint64_t expected,
                                     unroll_error *err) {
  const char *json = unroll_safetensors_metadata(file, "unroll.vocabulary");
  if (!json)
    return fail(err, UNROLL_E_FORMAT, "no metadata unroll.vocabulary");
  unroll_error inner = UNROLL_ERROR_INIT;
  const unroll_status status =
      unroll_vocabulary_from_json(json, strlen(json), &lm->trainer.allocator, &lm->vocabulary, &inner);
  if (status != UNROLL_OK)
    return fail(err, status, "metadata unroll.vocabulary: %s", inner.message);
  if ((uint64_t)unroll_vocabulary_count(lm->vocabulary) != expected)
    return fail(err, UNROLL_E_FORMAT, "metadata unroll.model says %llu characters, unroll.vocabulary has %d",
                (unsigned long long)expected, unroll_vocabulary_count(lm->vocabulary));
  return UNROLL_OK;
}

/* The options of a file's metadata, once they are right. */
static unroll_status take_options(unroll_lm *lm, struct lm_metadata *m, unroll_error *err) {
  unroll_lm_options o = m->options;
  lm->trainer.options = o.training; /* with its texts */
  o.tied = m->tied > 1 ? -1 : (int32_t)m->tied;
  if (lm_options_check(&o, unroll_vocabulary_count(lm->vocabulary), err) != UNROLL_OK)
    return err ? fail(err, UNROLL_E_FORMAT, "metadata: %s", err->message) : UNROLL_E_FORMAT;
  lm->options = o;
  return UNROLL_OK;
}

static unroll_status read_model(void *model, const unroll_safetensors *file, unroll_error *err) {
  unroll_lm *lm = model;
  struct trainer *t = &lm->trainer;
  struct lm_metadata m;
  unroll_status status = lm_metadata_read(file, &t->allocator, &m, err);
  if (status == UNROLL_OK)
    status = read_vocabulary(lm, file, m.vocabulary, err);
  if (status != UNROLL_OK) {
    trainer_options_free(&m.options.training, &t->allocator);
    return status;
  }
  TRY(take_options(lm, &m, err));
  trainer_take_position(t, &m.position);
  lm->text_hash = m.text_hash;
  lm->text_characters = m.text_characters;
  return trainer_read_tensors(t, file, err);
}

unroll_status unroll_lm_load(unroll_device *const *devices, uint32_t n_devices, const char *path,
                             const unroll_allocator *allocator, unroll_lm **out, unroll_error *err) {
  if (!path || !out)
    return fail(err, UNROLL_E_INVALID, "unroll_lm_load: %s is NULL", path ? "lm" : "path");
  unroll_lm *lm = NULL;
  TRY(lm_begin(devices, n_devices, allocator, &lm, err));
  const unroll_status status = trainer_read_file(&lm->trainer, path, read_model, lm, err);
  if (status == UNROLL_OK)
    *out = lm;
  else
    unroll_lm_destroy(lm);
  return status;
}

unroll_status unroll_lm_resume(unroll_lm *lm, const unroll_text *text, unroll_error *err) {
  if (!lm || !text)
    return fail(err, UNROLL_E_INVALID, "unroll_lm_resume: %s is NULL", lm ? "text" : "the model");
  struct trainer *t = &lm->trainer;
  TRY(trainer_not_busy(t, "resumed", err));
  if (lm->text)
    return fail(err, UNROLL_E_STATE, "the model has a text already");
  if (unroll_text_hash(text) != lm->text_hash || unroll_text_count(text) != lm->text_characters)
    return fail(
        err, UNROLL_E_STATE,
        "another text than the model was trained on: hash %016llx of %lld characters, the model's is %016llx of %lld",
        (unsigned long long)unroll_text_hash(text), (long long)unroll_text_count(text),
        (unsigned long long)lm->text_hash, (long long)lm->text_characters);
  if (strcmp(unroll_vocabulary_json(unroll_text_vocabulary(text)), unroll_vocabulary_json(lm->vocabulary)) != 0)
    return fail(err, UNROLL_E_STATE,
                "the text was loaded with another vocabulary, of %d characters, than the model's, of %d",
                unroll_vocabulary_count(unroll_text_vocabulary(text)), unroll_vocabulary_count(lm->vocabulary));
  TRY(trainer_upload(t, err));
  const unroll_status status = lm_attach_text(lm, text, err);
  if (status != UNROLL_OK) {
    trainer_program_free(&t->train);
    return status;
  }
  /* What sampled with parameters of its own is made again, over those that training changes. */
  trainer_program_free(&lm->sample);
  trainer_forget_stored(t);
  return UNROLL_OK;
}
