/* SPDX-License-Identifier: Apache-2.0 */
/* A trainer's life, and its programs. */
#include "train/trainer.h"

#include <math.h>
#include <string.h>

unroll_status trainer_begin(struct trainer *t, const struct trainer_task *task, void *owner,
                            unroll_device *const *devices, uint32_t n_devices, const unroll_allocator *allocator,
                            unroll_error *err) {
  if (!devices || n_devices == 0)
    return fail(err, UNROLL_E_INVALID, "model: no device was given");
  for (uint32_t i = 0; i < n_devices; i++)
    if (!devices[i])
      return fail(err, UNROLL_E_INVALID, "model: device %u is NULL", i);
  if (allocator)
    t->allocator = *allocator;
  t->task = task;
  t->owner = owner;
  t->best_loss = (double)NAN;
  t->devices = mem_array(allocator, n_devices, sizeof *t->devices);
  if (!t->devices)
    return fail(err, UNROLL_E_MEMORY, "model: no memory for a list of %u devices", n_devices);
  memcpy(t->devices, devices, n_devices * sizeof *devices);
  t->n_devices = n_devices;
  return UNROLL_OK;
}

void trainer_end(struct trainer *t) {
  const unroll_allocator *a = &t->allocator;
  for (uint32_t v = 1; v < TRAINER_MAX_VARIANTS; v++) {
    trainer_program_free(&t->more_evaluate[v]);
    trainer_program_free(&t->more_train[v]);
  }
  trainer_program_free(&t->evaluate);
  trainer_program_free(&t->train);
  for (uint32_t i = 0; i < t->n_tensors; i++) {
    mem_free(a, t->tensors[i].name);
    mem_free(a, t->tensors[i].stored);
  }
  mem_free(a, t->tensors);
  mem_free(a, t->begin_at);
  mem_free(a, t->devices);
  trainer_options_free(&t->options, a);
}

/* The first values of every parameter, written to the training binding; states are zeros already, all but the scale. */
static unroll_status initialise(struct trainer *t, unroll_error *err) {
  if (trainer_scale_is_dynamic(&t->options)) {
    const float scale = (float)t->options.loss_scale, inverse = (float)(1 / t->options.loss_scale);
    TRY(unroll_binding_write(t->train.binding, TRAINER_LOSS_SCALE, &scale, sizeof scale, err));
    TRY(unroll_binding_write(t->train.binding, TRAINER_LOSS_SCALE_INVERSE, &inverse, sizeof inverse, err));
    TRY(unroll_binding_sync(t->train.binding, err));
  }
  for (uint32_t i = 0; i < t->n_tensors; i++) {
    const struct trainer_tensor *p = &t->tensors[i];
    if (p->role != UNROLL_ROLE_PARAM)
      continue;
    unroll_tensor_info info = {
        .struct_size = sizeof info, .dtype = p->dtype, .rank = p->rank, .role = p->role, .name = p->name};
    memcpy(info.shape, p->shape, sizeof info.shape);
    void *data = mem_alloc(&t->allocator, p->bytes);
    if (!data)
      return fail(err, UNROLL_E_MEMORY, "model: no memory for parameter %s, %llu bytes", p->name,
                  (unsigned long long)p->bytes);
    unroll_status status = t->task->initialise(t->owner, &info, data, err);
    if (status == UNROLL_OK)
      status = unroll_binding_write(t->train.binding, p->name, data, p->bytes, err);
    if (status == UNROLL_OK)
      status = unroll_binding_sync(t->train.binding, err);
    mem_free(&t->allocator, data);
    TRY(status);
  }
  return UNROLL_OK;
}

unroll_status trainer_create(struct trainer *t, unroll_error *err) {
  struct trainer_build b;
  TRY(trainer_graph_train(t, 0, &b, err));
  const unroll_status listed = trainer_list_tensors(t, &b, err);
  if (listed != UNROLL_OK) {
    unroll_graph_destroy(b.graph);
    return listed;
  }
  TRY(trainer_program_make(t, b.graph, &t->train, err));
  return initialise(t, err);
}

unroll_status trainer_attach(struct trainer *t, uint64_t steady, uint64_t evaluation_batches, unroll_error *err) {
  uint64_t *begin_at = NULL;
  if (steady > 0) {
    begin_at = mem_array(&t->allocator, steady + 1, sizeof *begin_at);
    if (!begin_at)
      return fail(err, UNROLL_E_MEMORY, "model: no memory for %llu epochs of different lengths",
                  (unsigned long long)steady);
    for (uint64_t e = 0; e < steady; e++)
      begin_at[e + 1] = begin_at[e] + t->task->epoch_updates(t->owner, e);
  }
  t->begin_at = begin_at;
  t->steady = steady;
  t->evaluation_batches = evaluation_batches;
  t->ready = true;
  return UNROLL_OK;
}

unroll_status trainer_not_busy(const struct trainer *t, const char *what, unroll_error *err) {
  if (t->busy)
    return fail(err, UNROLL_E_STATE, "the model can't be %s in a callback of its own", what);
  if (t->diverged)
    return fail(err, UNROLL_E_STATE, "the model can't be %s: its training diverged at update %llu", what,
                (unsigned long long)t->diverged);
  return UNROLL_OK;
}

unroll_status trainer_ready(const struct trainer *t, const char *what, unroll_error *err) {
  TRY(trainer_not_busy(t, what, err));
  if (!t->ready)
    return fail(err, UNROLL_E_STATE, "the model can't be %s before it is resumed with its %s", what, t->task->data);
  return UNROLL_OK;
}

uint64_t trainer_count_parameters(const struct trainer *t) {
  uint64_t n = 0;
  for (uint32_t i = 0; i < t->n_tensors; i++)
    if (t->tensors[i].role == UNROLL_ROLE_PARAM && !trainer_is_frozen(&t->options, t->tensors[i].name))
      n += t->tensors[i].bytes / unroll_dtype_size(t->tensors[i].dtype);
  return n;
}

/* ---- programs ---- */

static bool is_scratch(const struct trainer_build *b, uint32_t id) {
  for (uint32_t i = 0; i < b->n_scratch; i++)
    if (b->scratch[i] == id)
      return true;
  return false;
}

unroll_status trainer_list_tensors(struct trainer *t, const struct trainer_build *b, unroll_error *err) {
  const uint32_t count = unroll_graph_count(b->graph);
  t->tensors = mem_array(&t->allocator, count, sizeof *t->tensors);
  if (!t->tensors)
    return fail(err, UNROLL_E_MEMORY, "model: no memory for a list of %u tensors", count);
  for (uint32_t i = 0; i < count; i++) {
    const unroll_tensor x = unroll_graph_tensor(b->graph, i);
    const unroll_tensor_info info = unroll_tensor_describe(x);
    if ((info.role != UNROLL_ROLE_PARAM && info.role != UNROLL_ROLE_STATE) || is_scratch(b, x.id))
      continue;
    struct trainer_tensor *p = &t->tensors[t->n_tensors];
    *p = (struct trainer_tensor){.dtype = info.dtype, .rank = info.rank, .role = info.role};
    p->bytes = unroll_dtype_size(info.dtype);
    for (int32_t k = 0; k < info.rank; k++) {
      p->shape[k] = info.shape[k];
      if (!size_mul(p->bytes, (uint64_t)info.shape[k], &p->bytes))
        return fail(err, UNROLL_E_RANGE, "model: tensor %s has too many bytes", info.name);
    }
    p->name = mem_strdup(&t->allocator, info.name);
    if (!p->name)
      return fail(err, UNROLL_E_MEMORY, "model: no memory for the name of tensor %s", info.name);
    t->n_tensors++;
  }
  return UNROLL_OK;
}

static unroll_status compile(const struct trainer *t, unroll_graph *graph, struct trainer_program *program,
                             unroll_error *err) {
  unroll_status status = unroll_compile(graph, t->devices, t->n_devices, NULL, &program->exe, err);
  if (status != UNROLL_OK) {
    program->exe = NULL;
    return status;
  }
  status = unroll_binding_create(program->exe, &program->binding, err);
  if (status != UNROLL_OK) {
    program->binding = NULL;
    trainer_program_free(program);
  }
  return status;
}

unroll_status trainer_program_make(const struct trainer *t, unroll_graph *graph, struct trainer_program *program,
                                   unroll_error *err) {
  const unroll_status status = compile(t, graph, program, err);
  unroll_graph_destroy(graph);
  return status;
}

unroll_status trainer_program_variant(const struct trainer *t, unroll_graph *graph, const struct trainer_program *first,
                                      struct trainer_program *program, unroll_error *err) {
  unroll_status status = compile(t, graph, program, err);
  for (uint32_t i = 0; i < unroll_graph_count(graph) && status == UNROLL_OK; i++) {
    const unroll_tensor_info info = unroll_tensor_describe(unroll_graph_tensor(graph, i));
    if (info.role == UNROLL_ROLE_PARAM || info.role == UNROLL_ROLE_STATE)
      status = unroll_binding_share(program->binding, info.name, first->binding, info.name, err);
  }
  unroll_graph_destroy(graph);
  if (status != UNROLL_OK)
    trainer_program_free(program);
  return status;
}

void trainer_program_free(struct trainer_program *program) {
  if (program->binding)
    unroll_binding_destroy(program->binding);
  if (program->exe)
    unroll_executable_destroy(program->exe);
  *program = (struct trainer_program){NULL, NULL};
}

unroll_status trainer_program_parameters(const struct trainer *t, struct trainer_program *program, unroll_error *err) {
  for (uint32_t i = 0; i < t->n_tensors; i++) {
    const struct trainer_tensor *p = &t->tensors[i];
    if (p->role != UNROLL_ROLE_PARAM)
      continue;
    if (t->train.binding)
      TRY(unroll_binding_share(program->binding, p->name, t->train.binding, p->name, err));
    else
      TRY(unroll_binding_write(program->binding, p->name, p->stored, p->bytes, err));
  }
  return UNROLL_OK;
}
