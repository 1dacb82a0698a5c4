/* SPDX-License-Identifier: Apache-2.0 */
#include "train/lm_private.h"

unroll_lm_options unroll_lm_options_default(void) {
  unroll_lm_options o = {.struct_size = sizeof o,
                         .rnn = {.cell = UNROLL_CELL_LSTM, .layers = 2, .hidden = 128},
                         .embedding = 64,
                         .steps = 64,
                         .training = unroll_training_default()};
  o.training.validation = 0.05;
  return o;
}

unroll_lm_options lm_options_in_use(const unroll_lm *lm) {
  unroll_lm_options o = lm->options;
  o.struct_size = sizeof o;
  o.training = lm->trainer.options;
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
  TRY(trainer_rnn_check(&o->rnn, err));
  TRY(trainer_check_extent("embedding", o->embedding, TRAINER_MAX_WIDTH, err));
  TRY(trainer_check_extent("steps", o->steps, LM_MAX_STEPS, err));
  TRY(trainer_options_check(&o->training, err));
  const int64_t batch = o->training.batch;
  int64_t widest = trainer_rnn_width(&o->rnn);
  widest = widest < o->embedding ? o->embedding : widest;
  widest = widest < V ? V : widest;
  if (o->steps * batch * widest > INT32_MAX)
    return fail(err, UNROLL_E_INVALID,
                "steps %lld times batch %lld times %lld, the model's widest tensor, is past 2^31-1",
                (long long)o->steps, (long long)batch, (long long)widest);
  if (o->tied < 0 || o->tied > 1)
    return fail(err, UNROLL_E_INVALID, "tied %d, it must be 0 or 1", o->tied);
  if (o->tied && o->embedding != trainer_rnn_outputs(&o->rnn))
    return fail(err, UNROLL_E_INVALID, "tied: the embedding has %lld numbers and a layer %lld %s, they must be equal",
                (long long)o->embedding, (long long)trainer_rnn_outputs(&o->rnn),
                o->rnn.projection ? "after its projection" : "units");
  TRY(trainer_rnn_check_input(&o->rnn, o->embedding, false, err));
  return check_windows(o, err);
}
