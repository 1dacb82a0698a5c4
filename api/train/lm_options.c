/* SPDX-License-Identifier: Apache-2.0 */
#include "train/lm_private.h"

int64_t lm_gates(int32_t cell) {
  return cell == UNROLL_CELL_RNN ? 1 : cell == UNROLL_CELL_LSTM ? 4 : trainer_cell_name(cell) ? 3 : 0;
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

struct trainer_options lm_trainer_options(const unroll_lm_options *o) {
  return (struct trainer_options){.seed = o->seed,
                                  .clip = o->clip,
                                  .validation = o->validation,
                                  .optimizer = o->optimizer,
                                  .schedule = o->schedule,
                                  .loss_scale = o->loss_scale,
                                  .loss_scale_interval = o->loss_scale_interval,
                                  .training = o->training};
}

unroll_lm_options lm_options_in_use(const unroll_lm *lm) {
  unroll_lm_options o = lm->options;
  o.struct_size = sizeof o;
  o.schedule = lm->trainer.options.schedule;
  o.training = lm->trainer.options.training;
  return o;
}

static unroll_status check_windows(const unroll_lm_options *o, unroll_error *err) {
  if (o->update_steps < 0 || o->update_steps > o->steps)
    return fail(err, UNROLL_E_INVALID, "update_steps %lld, it must be from 1 to steps, %lld, or 0",
                (long long)o->update_steps, (long long)o->steps);
  if (o->steps_start < 0 || o->steps_start > o->steps)
    return fail(err, UNROLL_E_INVALID, "steps_start %lld, it must be from 1 to steps, %lld, or 0",
                (long long)o->steps_start, (long long)o->steps);
  if (o->steps_start == 0 && o->steps_increment != 0)
    return fail(err, UNROLL_E_INVALID, "steps_increment %lld without steps_start", (long long)o->steps_increment);
  if (o->steps_start > 0 && (o->steps_increment < 1 || o->steps_increment > o->steps))
    return fail(err, UNROLL_E_INVALID, "steps_increment %lld, it must be from 1 to steps, %lld",
                (long long)o->steps_increment, (long long)o->steps);
  if (o->steps_start > 0 && o->update_steps > 0)
    return fail(err, UNROLL_E_INVALID,
                "steps_start %lld with update_steps %lld: a curriculum's windows stand side by side",
                (long long)o->steps_start, (long long)o->update_steps);
  return UNROLL_OK;
}

unroll_status lm_options_check(const unroll_lm_options *o, int64_t V, unroll_error *err) {
  if (!trainer_cell_name(o->cell))
    return fail(err, UNROLL_E_INVALID, "cell %d, 1 to %d are known", o->cell, UNROLL_CELL_COUNT - 1);
  TRY(trainer_check_extent("layers", o->layers, LM_MAX_LAYERS, err));
  TRY(trainer_check_extent("hidden", o->hidden, 16384, err));
  TRY(trainer_check_extent("embedding", o->embedding, 16384, err));
  TRY(trainer_check_extent("steps", o->steps, 65536, err));
  TRY(trainer_check_extent("batch", o->batch, 65536, err));
  int64_t widest = lm_gates(o->cell) * o->hidden;
  widest = widest < o->embedding ? o->embedding : widest;
  widest = widest < V ? V : widest;
  if (o->steps * o->batch * widest > INT32_MAX)
    return fail(err, UNROLL_E_INVALID,
                "steps %lld times batch %lld times %lld, the model's widest tensor, is past 2^31-1",
                (long long)o->steps, (long long)o->batch, (long long)widest);
  TRY(trainer_check_real("dropout", o->dropout, 0, 1, err));
  TRY(check_windows(o, err));
  const struct trainer_options trained = lm_trainer_options(o);
  return trainer_options_check(&trained, o->batch, err);
}
