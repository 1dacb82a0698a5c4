/* SPDX-License-Identifier: Apache-2.0 */
/* Parameters as a progress callback sees them. */
#include <string.h>

#include "train/trainer.h"

static uint64_t count_of(const struct trainer_tensor *p) { return p->bytes / unroll_dtype_size(p->dtype); }

uint32_t unroll_train_parameters_count(const unroll_train_parameters *parameters) {
  const struct trainer *t = parameters->trainer;
  uint32_t n = 0;
  for (uint32_t i = 0; i < t->n_tensors; i++)
    n += t->tensors[i].role == UNROLL_ROLE_PARAM;
  return n;
}

static unroll_status find(const struct trainer *t, uint32_t i, const struct trainer_tensor **found, unroll_error *err) {
  uint32_t n = 0;
  for (uint32_t k = 0; k < t->n_tensors; k++)
    if (t->tensors[k].role == UNROLL_ROLE_PARAM && n++ == i) {
      *found = &t->tensors[k];
      return UNROLL_OK;
    }
  return fail(err, UNROLL_E_RANGE, "parameter %u, the model has %u", i, n);
}

unroll_status unroll_train_parameters_get(const unroll_train_parameters *parameters, uint32_t i,
                                          unroll_train_parameter *parameter, unroll_error *err) {
  const struct trainer *t = parameters->trainer;
  const struct trainer_tensor *p = NULL;
  TRY(find(t, i, &p, err));
  unroll_train_parameter found = {.struct_size = sizeof found,
                                  .rank = p->rank,
                                  .name = p->name,
                                  .count = count_of(p),
                                  .recurrent = trainer_is_recurrent(p->name),
                                  .frozen = trainer_is_frozen(&t->options, p->name)};
  memcpy(found.shape, p->shape, (size_t)p->rank * sizeof p->shape[0]);
  if (parameter->struct_size < found.struct_size)
    found.struct_size = parameter->struct_size;
  memcpy(parameter, &found, found.struct_size);
  return UNROLL_OK;
}

unroll_status unroll_train_parameters_read(const unroll_train_parameters *parameters, uint32_t i, float *values,
                                           unroll_error *err) {
  const struct trainer *t = parameters->trainer;
  const struct trainer_tensor *p = NULL;
  TRY(find(t, i, &p, err));
  return unroll_binding_read(t->train.binding, p->name, values, p->bytes, err);
}

unroll_status unroll_train_parameters_read_mean_gradient(const unroll_train_parameters *parameters, uint32_t i,
                                                         float *values, unroll_error *err) {
  const struct trainer *t = parameters->trainer;
  const int32_t kind = t->options.optimizer.kind;
  const struct trainer_tensor *p = NULL;
  TRY(find(t, i, &p, err));
  if (kind != UNROLL_ADAM && kind != UNROLL_ADAMW)
    return fail(err, UNROLL_E_NOT_FOUND, "the mean gradient of %s: %s keeps none, adam and adamw do", p->name,
                trainer_optimizer_name(kind));
  if (trainer_is_frozen(&t->options, p->name))
    return fail(err, UNROLL_E_NOT_FOUND, "the mean gradient of %s: it is frozen", p->name);
  char *name = mem_printf(&t->allocator, "%s.s1", p->name);
  if (name == NULL)
    return fail(err, UNROLL_E_MEMORY, "no memory for the name of the mean gradient of %s", p->name);
  const unroll_status status = unroll_binding_read(t->train.binding, name, values, p->bytes, err);
  mem_free(&t->allocator, name);
  return status;
}
