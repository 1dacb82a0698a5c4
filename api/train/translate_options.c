/* SPDX-License-Identifier: Apache-2.0 */
/* A translator's options, and the names of what they choose from. */
#include <math.h>

#include "train/translate_private.h"

const char *unroll_attention_name(int32_t attention) {
  static const char *const names[UNROLL_ATTENTION_COUNT] = {"none", "additive", "multiplicative", "dot", "scaled_dot"};
  return attention >= 0 && attention < UNROLL_ATTENTION_COUNT ? names[attention] : NULL;
}

const char *unroll_context_name(int32_t context) {
  static const char *const names[] = {"before", "after", "feeding"};
  return context >= 0 && context <= UNROLL_CONTEXT_FEEDING ? names[context] : NULL;
}

const char *unroll_sampling_name(int32_t schedule) {
  static const char *const names[] = {"exponential", "linear", "inverse_sigmoid"};
  return schedule >= 0 && schedule <= UNROLL_SAMPLING_INVERSE_SIGMOID ? names[schedule] : NULL;
}

unroll_translator_options unroll_translator_options_default(void) {
  unroll_translator_options o = {
      .struct_size = sizeof o,
      .bidirectional = 1,
      .rnn = {.cell = UNROLL_CELL_GRU, .layers = 1, .hidden = 256},
      .embedding = 64,
      .attention = UNROLL_ATTENTION_ADDITIVE,
      .context = UNROLL_CONTEXT_BEFORE,
      .source_unit = UNROLL_UNIT_CHARACTER,
      .target_unit = UNROLL_UNIT_WORD,
      .testing = 0.05,
      .sampling = {.struct_size = sizeof o.sampling, .kind = UNROLL_SAMPLING_LINEAR, .start = 1},
      .training = unroll_training_default()};
  o.training.batch = 128;
  o.training.validation = 0.05;
  return o;
}

static bool is_dot(int32_t attention) {
  return attention == UNROLL_ATTENTION_DOT || attention == UNROLL_ATTENTION_SCALED_DOT;
}

unroll_recurrent translator_encoder_cells(const unroll_translator_options *o) {
  unroll_recurrent cells = o->rnn;
  const bool halves = is_dot(o->attention) && o->bidirectional; /* so that both directions together are as wide */
  if (o->encoder_hidden > 0)
    cells.hidden = o->encoder_hidden;
  else if (halves && !cells.projection)
    cells.hidden /= 2;
  if (halves)
    cells.projection /= 2;
  return cells;
}

unroll_recurrent translator_decoder_cells(const unroll_translator_options *o) {
  if (!o->plain_decoder)
    return o->rnn;
  return (unroll_recurrent){
      .cell = o->rnn.cell, .layers = o->rnn.layers, .hidden = o->rnn.hidden, .dropout = o->rnn.dropout};
}

bool translator_samples(const unroll_translator_options *o) {
  const unroll_sampling_schedule *s = &o->sampling;
  const bool constant = s->kind == UNROLL_SAMPLING_LINEAR        ? s->rate == 0
                        : s->kind == UNROLL_SAMPLING_EXPONENTIAL ? s->rate == 1
                                                                 : false;
  return !constant || s->start < 1;
}

static unroll_status check_attention(const unroll_translator_options *o, unroll_error *err) {
  const unroll_recurrent encoder = translator_encoder_cells(o), decoder = translator_decoder_cells(o);
  const int64_t width = trainer_rnn_outputs(&encoder) * (o->bidirectional ? 2 : 1);
  if (!unroll_attention_name(o->attention))
    return fail(err, UNROLL_E_INVALID, "attention %d, 0 to %d are known", o->attention, UNROLL_ATTENTION_COUNT - 1);
  if (!unroll_context_name(o->context))
    return fail(err, UNROLL_E_INVALID, "context %d, 0 to %d are known", o->context, UNROLL_CONTEXT_FEEDING);
  if (o->attention_units < 0 || o->attention_units > TRAINER_MAX_WIDTH)
    return fail(err, UNROLL_E_INVALID, "attention units %lld, it must be from 0 to %d", (long long)o->attention_units,
                TRAINER_MAX_WIDTH);
  if (is_dot(o->attention) && width != trainer_rnn_outputs(&decoder))
    return fail(err, UNROLL_E_INVALID,
                "attention %s: the source's vectors have %lld numbers, the decoder's state %lld; they must be as wide",
                unroll_attention_name(o->attention), (long long)width, (long long)trainer_rnn_outputs(&decoder));
  return UNROLL_OK;
}

unroll_status translator_options_check(const unroll_translator_options *o, unroll_error *err) {
  double rate;
  TRY(trainer_rnn_check(&o->rnn, err));
  if (o->encoder_hidden < 0 || o->encoder_hidden > TRAINER_MAX_WIDTH)
    return fail(err, UNROLL_E_INVALID, "encoder hidden %lld, it must be from 0 to %d", (long long)o->encoder_hidden,
                TRAINER_MAX_WIDTH);
  TRY(trainer_check_extent("embedding", o->embedding, TRAINER_MAX_WIDTH, err));
  TRY(check_attention(o, err));
  const unroll_recurrent encoder = translator_encoder_cells(o);
  TRY(trainer_rnn_check_input(&encoder, o->embedding, o->bidirectional, err));
  const int32_t units[] = {o->source_unit, o->target_unit};
  for (int i = 0; i < 2; i++)
    if (units[i] != UNROLL_UNIT_CHARACTER && units[i] != UNROLL_UNIT_WORD)
      return fail(err, UNROLL_E_INVALID, "%s unit %d, expected UNROLL_UNIT_CHARACTER or _WORD", i ? "target" : "source",
                  units[i]);
  TRY(trainer_options_check(&o->training, err));
  if (!(o->testing >= 0 && o->training.validation + o->testing < 1))
    return fail(err, UNROLL_E_INVALID,
                "testing %g beside validation %g: each must be at least 0, and their sum less than 1", o->testing,
                o->training.validation);
  TRY(unroll_sampling_rate_at(0, &o->sampling, &rate, err));
  if (o->sampling_pick != UNROLL_PICK_GREEDY && o->sampling_pick != UNROLL_PICK_SAMPLE)
    return fail(err, UNROLL_E_INVALID, "sampling pick %d, expected UNROLL_PICK_GREEDY or _SAMPLE", o->sampling_pick);
  if (o->plain_decoder != 0 && o->plain_decoder != 1)
    return fail(err, UNROLL_E_INVALID, "plain decoder %d, it must be 0 or 1", o->plain_decoder);
  if (o->steps_start < 0 || o->steps_start > TRANSLATOR_MOST ||
      (o->steps_start > 0 && (o->steps_increment < 1 || o->steps_increment > TRANSLATOR_MOST)))
    return fail(err, UNROLL_E_INVALID, "steps_start %lld, steps_increment %lld: expected 0, or 1 to %d and 1 to %d",
                (long long)o->steps_start, (long long)o->steps_increment, TRANSLATOR_MOST, TRANSLATOR_MOST);
  return UNROLL_OK;
}

unroll_status translator_extents_check(const unroll_translator *t, unroll_error *err) {
  const unroll_translator_options *o = &t->options;
  const struct translator_class *last = &t->classes[t->n_classes - 1];
  const int64_t longest = last->source > last->target ? last->source : last->target;
  const unroll_recurrent encoder = translator_encoder_cells(o), decoder = translator_decoder_cells(o);
  int64_t widest = trainer_rnn_width(&decoder);
  widest = widest < trainer_rnn_width(&encoder) ? trainer_rnn_width(&encoder) : widest;
  widest = widest < o->embedding ? o->embedding : widest;
  widest = widest < unroll_tokens_count(t->targets) ? unroll_tokens_count(t->targets) : widest;
  if (longest > TRANSLATOR_MOST || 2 * longest > INT32_MAX / widest / o->training.batch)
    return fail(
        err, UNROLL_E_INVALID,
        "batch %lld times %lld, the longest text's tokens twice, times %lld, the model's widest tensor, is past "
        "2^31-1",
        (long long)o->training.batch, (long long)(2 * longest), (long long)widest);
  return UNROLL_OK;
}

unroll_translator_options translator_options_in_use(const unroll_translator *t) {
  unroll_translator_options o = t->options;
  o.struct_size = sizeof o;
  o.training = t->trainer.options;
  return o;
}
