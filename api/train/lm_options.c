/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>

#include "train/train_private.h"

const char *lm_cell_name(int32_t cell) {
  switch (cell) {
#define NAME_OF(name, value, text) \
  case name: return text;
    UNROLL_CELLS(NAME_OF)
  default: return NULL;
  }
}

const char *lm_optimizer_name(int32_t kind) {
  switch (kind) {
    UNROLL_OPTIMIZERS(NAME_OF)
#undef NAME_OF
  default: return NULL;
  }
}

int64_t lm_gates(int32_t cell) {
  return cell == UNROLL_CELL_RNN ? 1 : cell == UNROLL_CELL_LSTM ? 4 : lm_cell_name(cell) ? 3 : 0;
}

unroll_lm_options unroll_lm_options_default(void) {
  return (unroll_lm_options){
      .struct_size = sizeof(unroll_lm_options),
      .cell = UNROLL_CELL_LSTM,
      .layers = 2,
      .hidden = 128,
      .embedding = 64,
      .steps = 64,
      .batch = 32,
      .clip = 1,
      .validation = 0.05,
      .seed = 1,
      .optimizer = {.kind = UNROLL_ADAM, .beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8},
      .schedule = {.kind = UNROLL_SCHEDULE_CONSTANT, .base = 2e-3},
      .loss_scale = 1,
  };
}

static unroll_status check_extent(const char *name, int64_t value, int64_t most, unroll_error *err) {
  if (value < 1 || value > most)
    return fail(err, UNROLL_E_INVALID, "%s %lld, it must be from 1 to %lld", name, (long long)value, (long long)most);
  return UNROLL_OK;
}

/* lo <= value < hi */
static unroll_status check_real(const char *name, double value, double lo, double hi, unroll_error *err) {
  if (!(value >= lo && value < hi))
    return fail(err, UNROLL_E_INVALID, "%s %g, it must be at least %g and below %g", name, value, lo, hi);
  return UNROLL_OK;
}

static unroll_status check_optimizer(const unroll_optimizer_attr *o, unroll_error *err) {
  if (!lm_optimizer_name(o->kind))
    return fail(err, UNROLL_E_INVALID, "optimizer %d, 0 to %d are known", o->kind, UNROLL_OPTIMIZER_COUNT - 1);
  TRY(check_real("optimizer: beta1 (sgd: the momentum)", o->beta1, 0, 1, err));
  TRY(check_real("optimizer: beta2", o->beta2, 0, 1, err));
  TRY(check_real("optimizer: epsilon", o->epsilon, 0, (double)INFINITY, err));
  return check_real("optimizer: weight decay", o->weight_decay, 0, (double)INFINITY, err);
}

unroll_status lm_options_check(const unroll_lm_options *o, int64_t V, unroll_error *err) {
  if (!lm_cell_name(o->cell))
    return fail(err, UNROLL_E_INVALID, "cell %d, 1 to %d are known", o->cell, UNROLL_CELL_COUNT - 1);
  TRY(check_extent("layers", o->layers, LM_MAX_LAYERS, err));
  TRY(check_extent("hidden", o->hidden, 16384, err));
  TRY(check_extent("embedding", o->embedding, 16384, err));
  TRY(check_extent("steps", o->steps, 65536, err));
  TRY(check_extent("batch", o->batch, 65536, err));
  int64_t widest = lm_gates(o->cell) * o->hidden;
  widest = widest < o->embedding ? o->embedding : widest;
  widest = widest < V ? V : widest;
  if (o->steps * o->batch > INT32_MAX / widest)
    return fail(err, UNROLL_E_INVALID,
                "steps %lld times batch %lld times %lld, the model's widest tensor, is past 2^31-1",
                (long long)o->steps, (long long)o->batch, (long long)widest);
  TRY(check_real("dropout", o->dropout, 0, 1, err));
  TRY(check_real("clip", o->clip, 0, (double)INFINITY, err));
  TRY(check_real("validation", o->validation, 0, 1, err));
  TRY(check_optimizer(&o->optimizer, err));
  if (!(o->loss_scale >= LM_LOSS_SCALE_LEAST && o->loss_scale <= LM_LOSS_SCALE_MOST))
    return fail(err, UNROLL_E_INVALID, "loss scale %g, it must be from 1 to 2^126", o->loss_scale);
  if (o->loss_scale_interval < 0 || o->loss_scale_interval > INT32_MAX)
    return fail(err, UNROLL_E_INVALID, "loss scale: interval %lld, it must be from 0 to 2^31-1",
                (long long)o->loss_scale_interval);
  unroll_schedule schedule = o->schedule;
  if (schedule.kind == UNROLL_SCHEDULE_COSINE && schedule.total == 0)
    schedule.total = 1; /* the limits of the training will say */
  return unroll_schedule_check(&schedule, err);
}
