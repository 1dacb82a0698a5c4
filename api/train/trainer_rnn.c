/* SPDX-License-Identifier: Apache-2.0 */
/* The recurrent layers that every model has: what they may be, in its file, in its graphs. */
#include "nn/nn_private.h"
#include "train/trainer.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])
#define AT(member) offsetof(unroll_recurrent, member)
/* As a name in the file. */
static const char *switch_name(int32_t on) { return on == 0 ? "no" : on == 1 ? "yes" : NULL; }

enum { GROUP_PARTS = 1, GROUP_DROPOUTS, GROUP_ZONEOUT, GROUP_CHECKPOINT };

static const struct trainer_field model_fields[] = {
    {"cell", FIELD_NAME, AT(cell), trainer_cell_name, 1, UNROLL_CELL_COUNT, 0, 0},
    {"layers", FIELD_EXTENT, AT(layers), NULL, 0, 0, 0, 0},
    {"hidden", FIELD_EXTENT, AT(hidden), NULL, 0, 0, 0, 0},
    {"layer_norm", FIELD_NAME, AT(layer_norm), switch_name, 0, 2, GROUP_PARTS, 0},
    {"peepholes", FIELD_NAME, AT(peepholes), switch_name, 0, 2, GROUP_PARTS, 0},
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

unroll_status trainer_rnn_check(const unroll_recurrent *r, unroll_error *err) {
  if (!trainer_cell_name(r->cell))
    return fail(err, UNROLL_E_INVALID, "cell %d, 1 to %d are known", r->cell, UNROLL_CELL_COUNT - 1);
  TRY(trainer_check_extent("layers", r->layers, TRAINER_MAX_LAYERS, err));
  TRY(trainer_check_extent("hidden", r->hidden, TRAINER_MAX_WIDTH, err));
  TRY(trainer_check_real("dropout", r->dropout, 0, 1, err));
  TRY(trainer_check_real("input dropout", r->input_dropout, 0, 1, err));
  TRY(trainer_check_real("weight dropout", r->weight_dropout, 0, 1, err));
  TRY(trainer_check_real("state dropout", r->state_dropout, 0, 1, err));
  TRY(trainer_check_real("zoneout of h", r->zoneout_h, 0, 1, err));
  TRY(trainer_check_real("zoneout of c", r->zoneout_c, 0, 1, err));
  if (!switch_name(r->same_mask) || !switch_name(r->layer_norm) || !switch_name(r->peepholes))
    return fail(err, UNROLL_E_INVALID, "same mask %d, layer norm %d, peepholes %d: each must be 0 or 1", r->same_mask,
                r->layer_norm, r->peepholes);
  if (!unroll_checkpoint_name(r->checkpoint.kind))
    return fail(err, UNROLL_E_INVALID, "checkpoint %d, 0 to %d are known", r->checkpoint.kind,
                UNROLL_CHECKPOINT_COUNT - 1);
  const char *const lstm_only = r->cell == UNROLL_CELL_LSTM ? NULL
                                : r->peepholes              ? "peepholes"
                                : r->zoneout_c > 0          ? "zoneout of c"
                                                            : NULL;
  if (lstm_only)
    return fail(err, UNROLL_E_INVALID, "%s: an lstm's, but the cell is %s", lstm_only, trainer_cell_name(r->cell));
  return UNROLL_OK;
}

unroll_rnn_options trainer_rnn_options(const unroll_recurrent *r, bool training) {
  const bool keeps_all = r->checkpoint.kind == UNROLL_CHECKPOINT_ALL;
  return (unroll_rnn_options){.struct_size = sizeof(unroll_rnn_options),
                              .cell = r->cell,
                              .activation = r->cell == UNROLL_CELL_RNN ? UNROLL_TANH : 0,
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
                              .layer_norm = r->layer_norm,
                              .peepholes = r->peepholes,
                              .checkpoint = training && !keeps_all ? &r->checkpoint : NULL};
}

int64_t trainer_rnn_width(const unroll_recurrent *r) { return unroll_gate_count(r->cell) * r->hidden; }
