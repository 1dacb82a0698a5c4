/* SPDX-License-Identifier: Apache-2.0 */
/* A language model's life: made, described, destroyed. */
#include <math.h>
#include <string.h>

#include "train/train_private.h"

unroll_status lm_begin(unroll_device *const *devices, uint32_t n_devices, const unroll_allocator *allocator,
                       unroll_lm **out, unroll_error *err) {
  if (!devices || n_devices == 0)
    return fail(err, UNROLL_E_INVALID, "model: no device was given");
  for (uint32_t i = 0; i < n_devices; i++)
    if (!devices[i])
      return fail(err, UNROLL_E_INVALID, "model: device %u is NULL", i);
  unroll_lm *lm = mem_zalloc(allocator, sizeof *lm);
  if (!lm)
    return fail(err, UNROLL_E_MEMORY, "model: no memory");
  if (allocator)
    lm->allocator = *allocator;
  lm->best_loss = (double)NAN;
  lm->devices = mem_array(allocator, n_devices, sizeof *lm->devices);
  if (!lm->devices) {
    unroll_lm_destroy(lm);
    return fail(err, UNROLL_E_MEMORY, "model: no memory for a list of %u devices", n_devices);
  }
  memcpy(lm->devices, devices, n_devices * sizeof *devices);
  lm->n_devices = n_devices;
  *out = lm;
  return UNROLL_OK;
}

void unroll_lm_destroy(unroll_lm *lm) {
  if (!lm)
    return;
  const unroll_allocator allocator = lm->allocator;
  lm_program_free(&lm->sample);
  lm_program_free(&lm->evaluate);
  lm_program_free(&lm->train);
  for (uint32_t i = 0; i < lm->n_tensors; i++) {
    mem_free(&allocator, lm->tensors[i].name);
    mem_free(&allocator, lm->tensors[i].stored);
  }
  mem_free(&allocator, lm->tensors);
  unroll_vocabulary_destroy(lm->vocabulary);
  mem_free(&allocator, lm->x);
  mem_free(&allocator, lm->targets);
  mem_free(&allocator, lm->devices);
  mem_free(&allocator, lm);
}

/* As many of the streams of a training step as the validation part has room for; shorter steps only where one stream
 * alone is too long. */
static unroll_status validation_stream(const unroll_lm *lm, const int32_t *ids, int64_t n, unroll_text_stream *stream,
                                       unroll_error *err) {
  if (n < 2)
    return fail(err, UNROLL_E_RANGE, "validation %g leaves %lld characters for validation, it takes at least 2",
                lm->options.validation, (long long)n);
  const int64_t T = lm->options.steps < n - 1 ? lm->options.steps : n - 1;
  const int64_t B = lm->options.batch < (n - 1) / T ? lm->options.batch : (n - 1) / T;
  return unroll_text_stream_init(stream, ids, n, T, B, err);
}

unroll_status lm_attach_text(unroll_lm *lm, const unroll_text *text, unroll_error *err) {
  const unroll_lm_options *o = &lm->options;
  const int32_t *ids = unroll_text_ids(text);
  const int64_t n = unroll_text_count(text), n_train = unroll_text_train_count(text, o->validation);
  unroll_text_stream stream, validation = {NULL, 0, 0, 0, 0};
  unroll_error inner = UNROLL_ERROR_INIT;
  const unroll_status status = unroll_text_stream_init(&stream, ids, n_train, o->steps, o->batch, &inner);
  if (status != UNROLL_OK)
    return fail(err, status, "the text's part for training, %lld of its %lld characters: %s", (long long)n_train,
                (long long)n, inner.message);
  if (o->validation > 0)
    TRY(validation_stream(lm, ids + n_train, n - n_train, &validation, err));
  /* Validation batches are no larger than these. */
  const uint64_t cells = (uint64_t)(o->steps * o->batch);
  int32_t *x = mem_array(&lm->allocator, cells, sizeof *x);
  int32_t *targets = mem_array(&lm->allocator, cells, sizeof *targets);
  if (!x || !targets) {
    mem_free(&lm->allocator, x);
    mem_free(&lm->allocator, targets);
    return fail(err, UNROLL_E_MEMORY, "model: no memory for a batch of %llu characters", (unsigned long long)cells);
  }
  lm->x = x;
  lm->targets = targets;
  lm->text = text;
  lm->text_hash = unroll_text_hash(text);
  lm->text_characters = n;
  lm->stream = stream;
  lm->validation = validation;
  return UNROLL_OK;
}

/* The first values of every parameter, written to the training binding; states are zeros already, all but the scale. */
static unroll_status initialise(unroll_lm *lm, unroll_error *err) {
  if (lm_scale_is_dynamic(&lm->options)) {
    const float scale = (float)lm->options.loss_scale, inverse = (float)(1 / lm->options.loss_scale);
    TRY(unroll_binding_write(lm->train.binding, LM_LOSS_SCALE, &scale, sizeof scale, err));
    TRY(unroll_binding_write(lm->train.binding, LM_LOSS_SCALE_INVERSE, &inverse, sizeof inverse, err));
    TRY(unroll_binding_sync(lm->train.binding, err));
  }
  for (uint32_t i = 0; i < lm->n_tensors; i++) {
    const struct lm_tensor *t = &lm->tensors[i];
    if (t->role != UNROLL_ROLE_PARAM)
      continue;
    unroll_tensor_info info = {
        .struct_size = sizeof info, .dtype = t->dtype, .rank = t->rank, .role = t->role, .name = t->name};
    memcpy(info.shape, t->shape, sizeof info.shape);
    void *data = mem_alloc(&lm->allocator, t->bytes);
    if (!data)
      return fail(err, UNROLL_E_MEMORY, "model: no memory for parameter %s, %llu bytes", t->name,
                  (unsigned long long)t->bytes);
    unroll_status status = unroll_init_default(&info, lm->options.cell, lm->options.seed, data, err);
    if (status == UNROLL_OK)
      status = unroll_binding_write(lm->train.binding, t->name, data, t->bytes, err);
    if (status == UNROLL_OK)
      status = unroll_binding_sync(lm->train.binding, err);
    mem_free(&lm->allocator, data);
    TRY(status);
  }
  return UNROLL_OK;
}

static unroll_status make(unroll_lm *lm, const unroll_text *text, unroll_error *err) {
  const char *json = unroll_vocabulary_json(unroll_text_vocabulary(text));
  TRY(unroll_vocabulary_from_json(json, strlen(json), &lm->allocator, &lm->vocabulary, err));
  TRY(lm_options_check(&lm->options, unroll_vocabulary_count(lm->vocabulary), err));
  TRY(lm_attach_text(lm, text, err));
  unroll_graph *graph;
  TRY(lm_graph_train(lm, &graph, err));
  const unroll_status listed = lm_list_tensors(lm, graph, err);
  if (listed != UNROLL_OK) {
    unroll_graph_destroy(graph);
    return listed;
  }
  TRY(lm_program_make(lm, graph, &lm->train, err));
  return initialise(lm, err);
}

unroll_status unroll_lm_create(unroll_device *const *devices, uint32_t n_devices, const unroll_text *text,
                               const unroll_lm_options *options, const unroll_allocator *allocator, unroll_lm **out,
                               unroll_error *err) {
  if (!text || !options || !out)
    return fail(err, UNROLL_E_INVALID, "unroll_lm_create: %s is NULL", !text ? "text" : !options ? "options" : "lm");
  if (options->struct_size < sizeof *options)
    return fail(err, UNROLL_E_INVALID,
                "unroll_lm_options: struct_size %u, it must be at least %zu; begin with "
                "unroll_lm_options_default()",
                options->struct_size, sizeof *options);
  unroll_lm *lm;
  TRY(lm_begin(devices, n_devices, allocator, &lm, err));
  lm->options = *options;
  lm->options.struct_size = sizeof *options;
  const unroll_status status = make(lm, text, err);
  if (status == UNROLL_OK)
    *out = lm;
  else
    unroll_lm_destroy(lm);
  return status;
}

unroll_lm_info unroll_lm_describe(const unroll_lm *lm) {
  unroll_lm_info info = {.struct_size = sizeof info, .best_validation_loss = (double)NAN};
  if (!lm)
    return info;
  info.options = lm->options;
  info.vocabulary = lm->vocabulary;
  info.update = lm->update;
  info.best_validation_loss = lm->best_loss;
  info.best_update = lm->best_update;
  for (uint32_t i = 0; i < lm->n_tensors; i++)
    if (lm->tensors[i].role == UNROLL_ROLE_PARAM)
      info.n_parameters += lm->tensors[i].bytes / unroll_dtype_size(lm->tensors[i].dtype);
  if (lm->text) {
    info.updates_per_epoch = (uint64_t)lm->stream.updates;
    info.train_characters = unroll_text_train_count(lm->text, lm->options.validation);
    info.validation_characters = lm->text_characters - info.train_characters;
  }
  return info;
}

unroll_status lm_not_busy(const unroll_lm *lm, const char *what, unroll_error *err) {
  if (lm->busy)
    return fail(err, UNROLL_E_STATE, "the model can't be %s in a callback of its own", what);
  if (lm->diverged)
    return fail(err, UNROLL_E_STATE, "the model can't be %s: its training diverged at update %llu", what,
                (unsigned long long)lm->diverged);
  return UNROLL_OK;
}

unroll_status lm_ready(const unroll_lm *lm, const char *what, unroll_error *err) {
  TRY(lm_not_busy(lm, what, err));
  if (!lm->text)
    return fail(err, UNROLL_E_STATE, "the model can't be %s before it is resumed with its text", what);
  return UNROLL_OK;
}
