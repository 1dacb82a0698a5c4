/* SPDX-License-Identifier: Apache-2.0 */
/* A model's file: safetensors with metadata. */
#include <string.h>

#include "train/trainer.h"

/* ---- saving ---- */

/* The tensors of the training binding come one at a time through one buffer, that of the largest. */
struct fetch_buffer {
  const struct trainer_tensor *holds;
  char *bytes;
};
struct fetch {
  const struct trainer *trainer;
  const struct trainer_tensor *tensor;
  struct fetch_buffer *buffer;
};

static unroll_status fetch_piece(void *ctx, uint64_t offset, void *to, uint64_t bytes, unroll_error *err) {
  const struct fetch *f = ctx;
  const struct trainer_tensor *p = f->tensor;
  const char *from = p->stored;
  if (!from) {
    if (f->buffer->holds != p) {
      f->buffer->holds = NULL;
      TRY(unroll_binding_read(f->trainer->train.binding, p->name, f->buffer->bytes, p->bytes, err));
      f->buffer->holds = p;
    }
    from = f->buffer->bytes;
  }
  memcpy(to, from + offset, bytes);
  return UNROLL_OK;
}

static unroll_status write_tensors(struct trainer *t, unroll_safetensors_writer *writer, struct fetch *fetches,
                                   struct fetch_buffer *buffer, unroll_error *err) {
  for (uint32_t i = 0; i < t->n_tensors; i++) {
    const struct trainer_tensor *p = &t->tensors[i];
    fetches[i] = (struct fetch){t, p, buffer};
    TRY(unroll_safetensors_writer_add_fetch(writer, p->name, p->dtype, p->rank, p->shape, fetch_piece, &fetches[i],
                                            err));
  }
  TRY(t->task->metadata(t->owner, writer, err));
  return unroll_safetensors_writer_commit(writer, err);
}

unroll_status trainer_save(struct trainer *t, const char *path, unroll_error *err) {
  if (t->diverged)
    return fail(err, UNROLL_E_STATE, "%s: not saved, the training diverged at update %llu", path,
                (unsigned long long)t->diverged);
  uint64_t largest = 0;
  for (uint32_t i = 0; i < t->n_tensors; i++)
    if (!t->tensors[i].stored && t->tensors[i].bytes > largest)
      largest = t->tensors[i].bytes;
  unroll_safetensors_writer *writer = NULL;
  struct fetch_buffer buffer = {NULL, mem_alloc(&t->allocator, largest)};
  struct fetch *fetches = mem_array(&t->allocator, t->n_tensors, sizeof *fetches);
  unroll_status status = UNROLL_OK;
  if (!buffer.bytes || !fetches)
    status = fail(err, UNROLL_E_MEMORY, "%s: no memory to read the model from the device", path);
  if (status == UNROLL_OK)
    status = unroll_safetensors_writer_create(path, &t->allocator, &writer, err);
  if (status == UNROLL_OK) {
    status = write_tensors(t, writer, fetches, &buffer, err);
    unroll_safetensors_writer_destroy(writer);
  }
  mem_free(&t->allocator, fetches);
  mem_free(&t->allocator, buffer.bytes);
  return status;
}

/* ---- loading ---- */

static void add_shape(struct text *text, int32_t dtype, int32_t rank, const int64_t *shape) {
  text_add(text, "%s [", unroll_dtype_name(dtype));
  for (int32_t i = 0; i < rank; i++)
    text_add(text, "%s%lld", i ? "," : "", (long long)shape[i]);
  text_add(text, "]");
}

static unroll_status wrong_tensor(const struct trainer *t, const struct trainer_tensor *p,
                                  const unroll_stored_tensor *stored, unroll_error *err) {
  struct text text;
  text_init(&text, &t->allocator);
  text_add(&text, "tensor %s is ", p->name);
  add_shape(&text, stored->dtype, stored->rank, stored->shape);
  text_add(&text, ", the model's options make it ");
  add_shape(&text, p->dtype, p->rank, p->shape);
  const unroll_status status = fail(err, UNROLL_E_FORMAT, "%s", text_peek(&text));
  text_free(&text);
  return status;
}

static unroll_status read_tensor(const struct trainer *t, struct trainer_tensor *p, const unroll_safetensors *file,
                                 unroll_error *err) {
  unroll_stored_tensor stored;
  const unroll_status found = unroll_safetensors_find(file, p->name, &stored, err);
  if (found == UNROLL_E_NOT_FOUND)
    return fail(err, UNROLL_E_FORMAT, "tensor %s is missing", p->name);
  TRY(found);
  if (stored.dtype != p->dtype || stored.rank != p->rank ||
      memcmp(stored.shape, p->shape, (size_t)p->rank * sizeof p->shape[0]) != 0)
    return wrong_tensor(t, p, &stored, err);
  p->stored = mem_alloc(&t->allocator, p->bytes);
  if (!p->stored)
    return fail(err, UNROLL_E_MEMORY, "no memory for tensor %s, %llu bytes", p->name, (unsigned long long)p->bytes);
  memcpy(p->stored, stored.data, p->bytes);
  return UNROLL_OK;
}

static unroll_status unknown_tensor(const struct trainer *t, const unroll_safetensors *file, unroll_error *err) {
  for (uint64_t i = 0; i < unroll_safetensors_count(file); i++) {
    unroll_stored_tensor stored;
    TRY(unroll_safetensors_get(file, i, &stored, err));
    uint32_t k = 0;
    while (k < t->n_tensors && strcmp(t->tensors[k].name, stored.name) != 0)
      k++;
    if (k == t->n_tensors)
      return fail(err, UNROLL_E_FORMAT, "tensor %s is none of this model's", stored.name);
  }
  return UNROLL_OK;
}

unroll_status trainer_read_tensors(struct trainer *t, const unroll_safetensors *file, unroll_error *err) {
  struct trainer_build b;
  TRY(trainer_graph_train(t, 0, &b, err));
  const unroll_status listed = trainer_list_tensors(t, &b, err);
  unroll_graph_destroy(b.graph);
  TRY(listed);
  for (uint32_t i = 0; i < t->n_tensors; i++)
    TRY(read_tensor(t, &t->tensors[i], file, err));
  return unknown_tensor(t, file, err);
}

static unroll_status verify_and_read(const unroll_safetensors *file, trainer_read_fn read, void *model,
                                     unroll_error *err) {
  const unroll_status whole = unroll_safetensors_verify(file, err);
  if (whole == UNROLL_E_NOT_FOUND)
    return fail(err, UNROLL_E_FORMAT, "no model of unroll: it has no metadata " UNROLL_CHECKSUM_KEY);
  TRY(whole);
  return read(model, file, err);
}

unroll_status trainer_read_file(const struct trainer *t, const char *path, trainer_read_fn read, void *model,
                                unroll_error *err) {
  unroll_safetensors *file;
  TRY(unroll_safetensors_open(path, &t->allocator, &file, err));
  unroll_error inner = UNROLL_ERROR_INIT;
  const unroll_status status = verify_and_read(file, read, model, &inner);
  unroll_safetensors_close(file);
  return status == UNROLL_OK ? status : (fail)(err, status, "%s: %s", path, inner.message);
}

/* ---- going on ---- */

void trainer_take_position(struct trainer *t, const struct trainer_position *position) {
  t->update = position->update;
  t->best_update = position->best_update;
  t->best_loss = position->best_loss;
  t->stale = position->stale;
}

unroll_status trainer_upload(struct trainer *t, unroll_error *err) {
  struct trainer_build b;
  TRY(trainer_graph_train(t, 0, &b, err));
  TRY(trainer_program_make(t, b.graph, &t->train, err));
  unroll_status status = UNROLL_OK;
  for (uint32_t i = 0; i < t->n_tensors && status == UNROLL_OK; i++) {
    const struct trainer_tensor *p = &t->tensors[i];
    status = unroll_binding_write(t->train.binding, p->name, p->stored, p->bytes, err);
  }
  if (status == UNROLL_OK)
    status = unroll_binding_sync(t->train.binding, err);
  if (status != UNROLL_OK)
    trainer_program_free(&t->train);
  return status;
}

void trainer_forget_stored(struct trainer *t) {
  for (uint32_t i = 0; i < t->n_tensors; i++) {
    mem_free(&t->allocator, t->tensors[i].stored);
    t->tensors[i].stored = NULL;
  }
}
