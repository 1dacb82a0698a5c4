/* SPDX-License-Identifier: Apache-2.0 */
/* The recurrent layers that every model has: what they may be, in its file, in its graphs. */
#include <float.h>
#include <math.h>

#include "nn/nn_private.h"
#include "train/trainer.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])
#define AT(member) offsetof(unroll_recurrent, member)
/* As a name in the file. */
static const char *switch_name(int32_t on) { return on == 0 ? "no" : on == 1 ? "yes" : NULL; }

static const char *residual_name(int32_t kind) {
  static const char *const names[] = {"none", "outputs", "states"};
  return kind >= UNROLL_RESIDUAL_NONE && kind <= UNROLL_RESIDUAL_STATES ? names[kind] : NULL;
}

enum { GROUP_PARTS = 1, GROUP_F, GROUP_G, GROUP_H, GROUP_BOUNDS, GROUP_PROJECTION, GROUP_EPSILON, GROUP_PATHS };
enum { GROUP_DROPOUTS = 1, GROUP_ZONEOUT, GROUP_CHECKPOINT };

#define ACTIVATION_FIELDS(member, text, group)                                                       \
  {text, FIELD_NAME, AT(member.kind), unroll_activation_name, 0, UNROLL_ACTIVATION_COUNT, group, 0}, \
      {text "_alpha", FIELD_REAL, AT(member.alpha), NULL, 0, 0, group, 0}, {                         \
    text "_beta", FIELD_REAL, AT(member.beta), NULL, 0, 0, group, 0                                  \
  }

static const struct trainer_field model_fields[] = {
    {"cell", FIELD_NAME, AT(cell), unroll_rnn_cell_name, 1, UNROLL_RNN_END, 0, 0},
    {"layers", FIELD_EXTENT, AT(layers), NULL, 0, 0, 0, 0},
    {"hidden", FIELD_EXTENT, AT(hidden), NULL, 0, 0, 0, 0},
    {"layer_norm", FIELD_NAME, AT(layer_norm), switch_name, 0, 2, GROUP_PARTS, 0},
    {"peepholes", FIELD_NAME, AT(peepholes), switch_name, 0, 2, GROUP_PARTS, 0},
    ACTIVATION_FIELDS(f, "f", GROUP_F),
    ACTIVATION_FIELDS(g, "g", GROUP_G),
    ACTIVATION_FIELDS(h, "h", GROUP_H),
    {"gate_clip", FIELD_REAL, AT(clip), NULL, 0, 0, GROUP_BOUNDS, 0},
    {"cell_clip", FIELD_REAL, AT(cell_clip), NULL, 0, 0, GROUP_BOUNDS, 0},
    {"projection", FIELD_EXTENT, AT(projection), NULL, 0, 0, GROUP_PROJECTION, 0},
    {"layer_norm_epsilon", FIELD_REAL, AT(layer_norm_epsilon), NULL, 0, 0, GROUP_EPSILON, 0},
    {"skip", FIELD_REAL, AT(skip), NULL, 0, 0, GROUP_PATHS, 0},
    {"residual", FIELD_NAME, AT(residual), residual_name, 0, UNROLL_RESIDUAL_STATES + 1, GROUP_PATHS, 0},
};
static const struct trainer_field training_fields[] = {
    {"dropout", FIELD_REAL, AT(dropout), NULL, 0, 0, 0, 0},
    {"input_dropout", FIELD_REAL, AT(input_dropout), NULL, 0, 0, GROUP_DROPOUTS, 0},
    {"weight_dropout", FIELD_REAL, AT(weight_dropout), NULL, 0, 0, GROUP_DROPOUTS, 0},
    {"state_dropout", FIELD_REAL, AT(state_dropout), NULL, 0, 0, GROUP_DROPOUTS, 0},
    {"same_mask", FIELD_NAME, AT(same_mask), switch_name, 0, 2, GROUP_DROPOUTS, 0},
    {"zoneout_h", FIELD_REAL, AT(zoneout_h), NULL, 0, 0, GROUP_ZONEOUT, 0},
    {"zoneout_c", FIELD_REAL, AT(zoneout_c), NULL, 0, 0, GROUP_ZONEOUT, 0},
    {"checkpoint", FIELD_NAME, AT(checkpoint.kind), unroll_checkpoint_name, 0, UNROLL_CHECKPOINT_COUNT,
     GROUP_CHECKPOINT, 0},
    {"checkpoint_every", FIELD_EXTENT, AT(checkpoint.every), NULL, 0, 0, GROUP_CHECKPOINT, 0},
    {"checkpoint_bytes", FIELD_COUNT, AT(checkpoint.bytes), NULL, 0, 0, GROUP_CHECKPOINT, 0},
};

struct trainer_fields trainer_rnn_model_fields(unroll_recurrent *r) {
  return (struct trainer_fields){model_fields, COUNT(model_fields), r};
}
struct trainer_fields trainer_rnn_training_fields(unroll_recurrent *r) {
  r->checkpoint.struct_size = sizeof r->checkpoint; /* no field of a file */
  return (struct trainer_fields){training_fields, COUNT(training_fields), r};
}

/* What only some cells have. */
static unroll_status check_cell(const unroll_recurrent *r, unroll_error *err) {
  const int32_t cell = r->cell;
  const bool rnn = cell == UNROLL_CELL_RNN, lstm = trainer_rnn_has_c(r);
  const bool minimal = cell == UNROLL_RNN_MIN_GRU || cell == UNROLL_RNN_MIN_LSTM;
  static const char an_lstms[] = "an lstm's", of_gates[] = "of cells with gates", of_states[] = "of cells with W_h",
                    an_rnns[] = "an rnn's";
  const struct {
    const char *name, *whose;
    bool given, had;
  } all[] = {{"peepholes", an_lstms, r->peepholes, lstm},
             {"zoneout of c", an_lstms, r->zoneout_c > 0, lstm},
             {"projection", an_lstms, r->projection != 0, lstm},
             {"cell clip", an_lstms, r->cell_clip > 0, lstm},
             {"activation h", an_lstms, r->h.kind != 0, lstm},
             {"activation g", of_gates, r->g.kind != 0, !rnn},
             {"activation modrelu", an_rnns, r->f.kind == UNROLL_ACTIVATION_MODRELU, rnn},
             {"activation f", of_states, r->f.kind != 0, !minimal},
             {"gate clip", of_states, r->clip > 0, !minimal},
             {"layer norm", of_states, r->layer_norm, !minimal},
             {"skip", of_states, r->skip != 0, !minimal},
             {"residual connections of states", of_states, r->residual == UNROLL_RESIDUAL_STATES, !minimal},
             {"weight dropout", of_states, r->weight_dropout > 0, !minimal},
             {"state dropout", of_states, r->state_dropout > 0, !minimal},
             {"zoneout of h", of_states, r->zoneout_h > 0, !minimal},
             {"checkpoint", of_states, r->checkpoint.kind != UNROLL_CHECKPOINT_ALL, !minimal}};
  for (size_t i = 0; i < COUNT(all); i++)
    if (all[i].given && !all[i].had)
      return fail(err, UNROLL_E_INVALID, "%s: %s, but the cell is %s", all[i].name, all[i].whose,
                  unroll_rnn_cell_name(cell));
  return UNROLL_OK;
}

static unroll_status check_activations(const unroll_recurrent *r, unroll_error *err) {
  const unroll_activation *const all[] = {&r->f, &r->g, &r->h};
  for (size_t i = 0; i < COUNT(all); i++) {
    const int letter = "fgh"[i];
    if (!unroll_activation_name(all[i]->kind))
      return fail(err, UNROLL_E_INVALID, "activation %c %d, 0 to %d are known", letter, all[i]->kind,
                  UNROLL_ACTIVATION_COUNT - 1);
    if (!isfinite(all[i]->alpha) || !isfinite(all[i]->beta))
      return fail(err, UNROLL_E_INVALID, "activation %c has alpha %g and beta %g, they must be finite", letter,
                  all[i]->alpha, all[i]->beta);
  }
  if (r->g.kind == UNROLL_ACTIVATION_MODRELU || r->h.kind == UNROLL_ACTIVATION_MODRELU)
    return fail(err, UNROLL_E_INVALID, "activation %c is modrelu, which only the activation f of an rnn can be",
                r->g.kind == UNROLL_ACTIVATION_MODRELU ? 'g' : 'h');
  return UNROLL_OK;
}

unroll_status trainer_rnn_check(const unroll_recurrent *r, unroll_error *err) {
  const double most = (double)FLT_MAX; /* as far as the numbers of a model go */
  if (!unroll_rnn_cell_name(r->cell))
    return fail(err, UNROLL_E_INVALID, "cell %d, expected UNROLL_CELL_* or UNROLL_RNN_*", r->cell);
  TRY(trainer_check_extent("layers", r->layers, TRAINER_MAX_LAYERS, err));
  TRY(trainer_check_extent("hidden", r->hidden, TRAINER_MAX_WIDTH, err));
  if (r->projection != 0)
    TRY(trainer_check_extent("projection", r->projection, TRAINER_MAX_WIDTH, err));
  TRY(trainer_check_real("dropout", r->dropout, 0, 1, err));
  TRY(trainer_check_real("input dropout", r->input_dropout, 0, 1, err));
  TRY(trainer_check_real("weight dropout", r->weight_dropout, 0, 1, err));
  TRY(trainer_check_real("state dropout", r->state_dropout, 0, 1, err));
  TRY(trainer_check_real("zoneout of h", r->zoneout_h, 0, 1, err));
  TRY(trainer_check_real("zoneout of c", r->zoneout_c, 0, 1, err));
  TRY(trainer_check_real("gate clip", r->clip, 0, most, err));
  TRY(trainer_check_real("cell clip", r->cell_clip, 0, most, err));
  TRY(trainer_check_real("layer norm's epsilon", r->layer_norm_epsilon, 0, 1, err));
  TRY(trainer_check_real("skip", r->skip, -most, most, err));
  if (!switch_name(r->same_mask) || !switch_name(r->layer_norm) || !switch_name(r->peepholes))
    return fail(err, UNROLL_E_INVALID, "same mask %d, layer norm %d, peepholes %d: each must be 0 or 1", r->same_mask,
                r->layer_norm, r->peepholes);
  if (!residual_name(r->residual))
    return fail(err, UNROLL_E_INVALID, "residual %d, 0 to %d are known", r->residual, UNROLL_RESIDUAL_STATES);
  if (!unroll_checkpoint_name(r->checkpoint.kind))
    return fail(err, UNROLL_E_INVALID, "checkpoint %d, 0 to %d are known", r->checkpoint.kind,
                UNROLL_CHECKPOINT_COUNT - 1);
  TRY(check_activations(r, err));
  TRY(check_cell(r, err));
  if (r->layer_norm_epsilon > 0 && !r->layer_norm)
    return fail(err, UNROLL_E_INVALID, "layer norm's epsilon %g without layer norm", r->layer_norm_epsilon);
  return UNROLL_OK;
}

unroll_status trainer_rnn_check_input(const unroll_recurrent *r, int64_t input, bool bidirectional, unroll_error *err) {
  const int64_t width = trainer_rnn_outputs(r) * (bidirectional ? 2 : 1);
  if (r->residual == UNROLL_RESIDUAL_NONE || r->layers > 1 || input == width)
    return UNROLL_OK;
  return fail(err, UNROLL_E_INVALID,
              "residual %s: the only layer reads %lld numbers and gives %lld, they must be as many, or layers more",
              residual_name(r->residual), (long long)input, (long long)width);
}

unroll_rnn_options trainer_rnn_options(const unroll_recurrent *r, bool training) {
  const bool keeps_all = r->checkpoint.kind == UNROLL_CHECKPOINT_ALL;
  return (unroll_rnn_options){.struct_size = sizeof(unroll_rnn_options),
                              .cell = r->cell,
                              .layers = (int32_t)r->layers,
                              .hidden = r->hidden,
                              .lengths = unroll_none(),
                              .inference = !training,
                              .same_mask = r->same_mask,
                              .dropout = r->dropout,
                              .input_dropout = r->input_dropout,
                              .weight_dropout = r->weight_dropout,
                              .state_dropout = r->state_dropout,
                              .zoneout_h = r->zoneout_h,
                              .zoneout_c = r->zoneout_c,
                              .f = r->f,
                              .g = r->g,
                              .h = r->h,
                              .clip = r->clip,
                              .cell_clip = r->cell_clip,
                              .projection = r->projection,
                              .peepholes = r->peepholes,
                              .layer_norm = r->layer_norm,
                              .layer_norm_epsilon = r->layer_norm_epsilon,
                              .skip = r->skip,
                              .residual = r->residual,
                              .checkpoint = training && !keeps_all ? &r->checkpoint : NULL};
}

int64_t trainer_rnn_outputs(const unroll_recurrent *r) { return r->projection ? r->projection : r->hidden; }

int64_t trainer_rnn_width(const unroll_recurrent *r) {
  const int64_t gates = unroll_gate_count(r->cell) * r->hidden;
  return gates > r->projection ? gates : r->projection;
}

bool trainer_rnn_has_c(const unroll_recurrent *r) {
  return r->cell == UNROLL_CELL_LSTM || r->cell == UNROLL_RNN_COUPLED_LSTM;
}

bool trainer_rnn_is_plain(const unroll_recurrent *r) {
  return !r->layer_norm && !r->peepholes && !r->same_mask && r->input_dropout == 0 && r->weight_dropout == 0 &&
         r->state_dropout == 0 && r->zoneout_h == 0 && r->zoneout_c == 0 && !r->f.kind && !r->g.kind && !r->h.kind &&
         r->clip == 0 && r->cell_clip == 0 && r->projection == 0 && r->skip == 0 && !r->residual;
}
