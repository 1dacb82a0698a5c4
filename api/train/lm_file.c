/* SPDX-License-Identifier: Apache-2.0 */
/* A language model's file: safetensors with metadata. */
#include <math.h>
#include <string.h>

#include "train/train_private.h"

/* ---- saving ---- */

/* The tensors of the training binding come one at a time through one buffer, that of the largest. */
struct fetch_buffer {
  const struct lm_tensor *holds;
  char *bytes;
};
struct fetch {
  const unroll_lm *lm;
  const struct lm_tensor *tensor;
  struct fetch_buffer *buffer;
};

static unroll_status fetch_piece(void *ctx, uint64_t offset, void *to, uint64_t bytes, unroll_error *err) {
  const struct fetch *f = ctx;
  const struct lm_tensor *t = f->tensor;
  const char *from = t->stored;
  if (!from) {
    if (f->buffer->holds != t) {
      f->buffer->holds = NULL;
      TRY(unroll_binding_read(f->lm->train.binding, t->name, f->buffer->bytes, t->bytes, err));
      f->buffer->holds = t;
    }
    from = f->buffer->bytes;
  }
  memcpy(to, from + offset, bytes);
  return UNROLL_OK;
}

static unroll_status write_tensors(unroll_lm *lm, unroll_safetensors_writer *writer, struct fetch *fetches,
                                   struct fetch_buffer *buffer, unroll_error *err) {
  for (uint32_t i = 0; i < lm->n_tensors; i++) {
    const struct lm_tensor *t = &lm->tensors[i];
    fetches[i] = (struct fetch){lm, t, buffer};
    TRY(unroll_safetensors_writer_add_fetch(writer, t->name, t->dtype, t->rank, t->shape, fetch_piece, &fetches[i],
                                            err));
  }
  TRY(lm_metadata_write(lm, writer, err));
  return unroll_safetensors_writer_commit(writer, err);
}

unroll_status unroll_lm_save(unroll_lm *lm, const char *path, unroll_error *err) {
  if (!lm || !path)
    return fail(err, UNROLL_E_INVALID, "unroll_lm_save: %s is NULL", lm ? "path" : "the model");
  if (lm->diverged)
    return fail(err, UNROLL_E_STATE, "%s: not saved, the training diverged at update %llu", path,
                (unsigned long long)lm->diverged);
  uint64_t largest = 0;
  for (uint32_t i = 0; i < lm->n_tensors; i++)
    if (!lm->tensors[i].stored && lm->tensors[i].bytes > largest)
      largest = lm->tensors[i].bytes;
  unroll_safetensors_writer *writer = NULL;
  struct fetch_buffer buffer = {NULL, mem_alloc(&lm->allocator, largest)};
  struct fetch *fetches = mem_array(&lm->allocator, lm->n_tensors, sizeof *fetches);
  unroll_status status = UNROLL_OK;
  if (!buffer.bytes || !fetches)
    status = fail(err, UNROLL_E_MEMORY, "%s: no memory to read the model from the device", path);
  if (status == UNROLL_OK)
    status = unroll_safetensors_writer_create(path, &lm->allocator, &writer, err);
  if (status == UNROLL_OK) {
    status = write_tensors(lm, writer, fetches, &buffer, err);
    unroll_safetensors_writer_destroy(writer);
  }
  mem_free(&lm->allocator, fetches);
  mem_free(&lm->allocator, buffer.bytes);
  return status;
}

/* ---- loading ---- */

static void add_shape(struct text *text, int32_t dtype, int32_t rank, const int64_t *shape) {
  text_add(text, "%s [", unroll_dtype_name(dtype));
  for (int32_t i = 0; i < rank; i++)
    text_add(text, "%s%lld", i ? "," : "", (long long)shape[i]);
  text_add(text, "]");
}

static unroll_status wrong_tensor(const unroll_lm *lm, const struct lm_tensor *t, const unroll_stored_tensor *stored,
                                  unroll_error *err) {
  struct text text;
  text_init(&text, &lm->allocator);
  text_add(&text, "tensor %s is ", t->name);
  add_shape(&text, stored->dtype, stored->rank, stored->shape);
  text_add(&text, ", the model's options make it ");
  add_shape(&text, t->dtype, t->rank, t->shape);
  const unroll_status status = fail(err, UNROLL_E_FORMAT, "%s", text_peek(&text));
  text_free(&text);
  return status;
}

static unroll_status read_tensor(unroll_lm *lm, struct lm_tensor *t, const unroll_safetensors *file,
                                 unroll_error *err) {
  unroll_stored_tensor stored;
  const unroll_status found = unroll_safetensors_find(file, t->name, &stored, err);
  if (found == UNROLL_E_NOT_FOUND)
    return fail(err, UNROLL_E_FORMAT, "tensor %s is missing", t->name);
  TRY(found);
  if (stored.dtype != t->dtype || stored.rank != t->rank ||
      memcmp(stored.shape, t->shape, (size_t)t->rank * sizeof t->shape[0]) != 0)
    return wrong_tensor(lm, t, &stored, err);
  t->stored = mem_alloc(&lm->allocator, t->bytes);
  if (!t->stored)
    return fail(err, UNROLL_E_MEMORY, "no memory for tensor %s, %llu bytes", t->name, (unsigned long long)t->bytes);
  memcpy(t->stored, stored.data, t->bytes);
  return UNROLL_OK;
}

static unroll_status unknown_tensor(const unroll_lm *lm, const unroll_safetensors *file, unroll_error *err) {
  for (uint64_t i = 0; i < unroll_safetensors_count(file); i++) {
    unroll_stored_tensor stored;
    TRY(unroll_safetensors_get(file, i, &stored, err));
    uint32_t k = 0;
    while (k < lm->n_tensors && strcmp(lm->tensors[k].name, stored.name) != 0)
      k++;
    if (k == lm->n_tensors)
      return fail(err, UNROLL_E_FORMAT, "tensor %s is none of this model's", stored.name);
  }
  return UNROLL_OK;
}

static unroll_status read_vocabulary(unroll_lm *lm, const unroll_safetensors *file, uint64_t expected,
                                     unroll_error *err) {
  const char *json = unroll_safetensors_metadata(file, "unroll.vocabulary");
  if (!json)
    return fail(err, UNROLL_E_FORMAT, "no metadata unroll.vocabulary");
  unroll_error inner = UNROLL_ERROR_INIT;
  const unroll_status status = unroll_vocabulary_from_json(json, strlen(json), &lm->allocator, &lm->vocabulary, &inner);
  if (status != UNROLL_OK)
    return fail(err, status, "metadata unroll.vocabulary: %s", inner.message);
  if ((uint64_t)unroll_vocabulary_count(lm->vocabulary) != expected)
    return fail(err, UNROLL_E_FORMAT, "metadata unroll.model says %llu characters, unroll.vocabulary has %d",
                (unsigned long long)expected, unroll_vocabulary_count(lm->vocabulary));
  return UNROLL_OK;
}

static unroll_status read_model(unroll_lm *lm, const unroll_safetensors *file, unroll_error *err) {
  const unroll_status whole = unroll_safetensors_verify(file, err);
  if (whole == UNROLL_E_NOT_FOUND)
    return fail(err, UNROLL_E_FORMAT, "no model of unroll: it has no metadata " UNROLL_CHECKSUM_KEY);
  TRY(whole);
  struct lm_metadata m;
  TRY(lm_metadata_read(file, &lm->allocator, &m, err));
  TRY(read_vocabulary(lm, file, m.vocabulary, err));
  if (lm_options_check(&m.options, unroll_vocabulary_count(lm->vocabulary), err) != UNROLL_OK)
    return err ? fail(err, UNROLL_E_FORMAT, "metadata: %s", err->message) : UNROLL_E_FORMAT;
  if (m.best_update > m.update)
    return fail(err, UNROLL_E_FORMAT, "metadata unroll.position: best_update %llu is after update %llu",
                (unsigned long long)m.best_update, (unsigned long long)m.update);
  lm->options = m.options;
  lm->update = m.update;
  lm->best_update = m.best_update;
  lm->best_loss = m.best_loss;
  lm->text_hash = m.text_hash;
  lm->text_characters = m.text_characters;

  unroll_graph *graph;
  TRY(lm_graph_train(lm, &graph, err));
  const unroll_status listed = lm_list_tensors(lm, graph, err);
  unroll_graph_destroy(graph);
  TRY(listed);
  for (uint32_t i = 0; i < lm->n_tensors; i++)
    TRY(read_tensor(lm, &lm->tensors[i], file, err));
  return unknown_tensor(lm, file, err);
}

unroll_status unroll_lm_load(unroll_device *const *devices, uint32_t n_devices, const char *path,
                             const unroll_allocator *allocator, unroll_lm **out, unroll_error *err) {
  if (!path || !out)
    return fail(err, UNROLL_E_INVALID, "unroll_lm_load: %s is NULL", path ? "lm" : "path");
  unroll_lm *lm;
  TRY(lm_begin(devices, n_devices, allocator, &lm, err));
  unroll_safetensors *file;
  unroll_status status = unroll_safetensors_open(path, &lm->allocator, &file, err);
  if (status == UNROLL_OK) {
    unroll_error inner = UNROLL_ERROR_INIT;
    status = read_model(lm, file, &inner);
    unroll_safetensors_close(file);
    if (status != UNROLL_OK)
      (fail)(err, status, "%s: %s", path, inner.message);
  }
  if (status == UNROLL_OK)
    *out = lm;
  else
    unroll_lm_destroy(lm);
  return status;
}

/* ---- going on ---- */

static unroll_status upload(unroll_lm *lm, unroll_error *err) {
  unroll_graph *graph;
  TRY(lm_graph_train(lm, &graph, err));
  TRY(lm_program_make(lm, graph, &lm->train, err));
  unroll_status status = UNROLL_OK;
  for (uint32_t i = 0; i < lm->n_tensors && status == UNROLL_OK; i++) {
    const struct lm_tensor *t = &lm->tensors[i];
    status = unroll_binding_write(lm->train.binding, t->name, t->stored, t->bytes, err);
  }
  if (status == UNROLL_OK)
    status = unroll_binding_sync(lm->train.binding, err);
  if (status != UNROLL_OK)
    lm_program_free(&lm->train);
  return status;
}

unroll_status unroll_lm_resume(unroll_lm *lm, const unroll_text *text, unroll_error *err) {
  if (!lm || !text)
    return fail(err, UNROLL_E_INVALID, "unroll_lm_resume: %s is NULL", lm ? "text" : "the model");
  TRY(lm_not_busy(lm, "resumed", err));
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
  TRY(upload(lm, err));
  const unroll_status status = lm_attach_text(lm, text, err);
  if (status != UNROLL_OK) {
    lm_program_free(&lm->train);
    return status;
  }
  /* What sampled with parameters of its own is made again, over those that training changes. */
  lm_program_free(&lm->sample);
  for (uint32_t i = 0; i < lm->n_tensors; i++) {
    mem_free(&lm->allocator, lm->tensors[i].stored);
    lm->tensors[i].stored = NULL;
  }
  return UNROLL_OK;
}
