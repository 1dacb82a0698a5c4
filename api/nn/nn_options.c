/* SPDX-License-Identifier: Apache-2.0 */
/* nn_options.c: the options of recurrent layers: ranges, what a cell does not have, and what follows from them. */
#include "nn/nn_private.h"
#include <inttypes.h>
#include <math.h>
#include <string.h>

const char *unroll_rnn_cell_name(int32_t cell) {
  switch (cell) {
#define NAME_OF(code, value, text) \
  case code: return text;
    UNROLL_CELLS(NAME_OF)
#undef NAME_OF
  case UNROLL_RNN_COUPLED_LSTM: return "coupled_lstm";
  case UNROLL_RNN_MIN_GRU: return "min_gru";
  case UNROLL_RNN_MIN_LSTM: return "min_lstm";
  default: return NULL;
  }
}

static bool check_numbers(unroll_graph *g, const char *who, const unroll_rnn_options *o) {
  const struct {
    const char *name;
    double p;
  } chances[] = {{"dropout", o->dropout},
                 {"input_dropout", o->input_dropout},
                 {"output_dropout", o->output_dropout},
                 {"weight_dropout", o->weight_dropout},
                 {"state_dropout", o->state_dropout},
                 {"zoneout_h", o->zoneout_h},
                 {"zoneout_c", o->zoneout_c}};
  const struct {
    const char *name;
    double value;
  } bounds[] = {{"clip", o->clip}, {"cell_clip", o->cell_clip}, {"layer_norm_epsilon", o->layer_norm_epsilon}};
  if (o->layers < 1)
    graph_fail(g, UNROLL_E_RANGE, "%s: %d layers, expected at least 1", who, o->layers);
  else if (o->hidden < 1 || o->hidden > INT64_MAX / 8)
    graph_fail(g, UNROLL_E_RANGE, "%s: hidden size %" PRId64 ", expected at least 1", who, o->hidden);
  else if (o->projection < 0 || o->projection > INT64_MAX / 8)
    graph_fail(g, UNROLL_E_RANGE, "%s: projection to %" PRId64 ", expected at least 1, or 0 for none", who,
               o->projection);
  else if (!isfinite(o->skip))
    graph_fail(g, UNROLL_E_RANGE, "%s: skip %g, expected a finite number", who, o->skip);
  else if (o->residual < UNROLL_RESIDUAL_NONE || o->residual > UNROLL_RESIDUAL_STATES)
    graph_fail(g, UNROLL_E_RANGE, "%s: residual %d, expected UNROLL_RESIDUAL_*", who, o->residual);
  for (size_t i = 0; i < sizeof chances / sizeof *chances; i++)
    if (!(chances[i].p >= 0 && chances[i].p < 1))
      graph_fail(g, UNROLL_E_RANGE, "%s: %s %g, expected 0 <= p < 1", who, chances[i].name, chances[i].p);
  for (size_t i = 0; i < sizeof bounds / sizeof *bounds; i++)
    if (!(bounds[i].value >= 0) || !isfinite(bounds[i].value))
      graph_fail(g, UNROLL_E_RANGE, "%s: %s %g, expected a finite number above 0, or 0 for none", who, bounds[i].name,
                 bounds[i].value);
  return !graph_failed(g);
}

/* What only some cells have. */
static bool check_cell(unroll_graph *g, const char *who, const nn_rnn *r) {
  const unroll_rnn_options *o = &r->o;
  const bool lstm = r->family == UNROLL_CELL_LSTM, recurrent = r->family != UNROLL_CELL_NONE;
  const struct {
    const char *name;
    bool given, had;
  } parts[] = {{"activation", o->activation != 0, r->family == UNROLL_CELL_RNN},
               {"f", o->f.kind != 0, recurrent},
               {"g", o->g.kind != 0, r->family != UNROLL_CELL_RNN},
               {"h", o->h.kind != 0, lstm},
               {"cell_clip", o->cell_clip != 0, lstm},
               {"projection", o->projection != 0, lstm},
               {"peepholes", o->peepholes != 0, lstm},
               {"zoneout_c", o->zoneout_c != 0, lstm},
               {"cells", o->cells != NULL, lstm},
               {"a tap of c", o->taps && o->taps->c, lstm},
               {"weight_dropout", o->weight_dropout != 0, recurrent},
               {"state_dropout", o->state_dropout != 0, recurrent},
               {"zoneout_h", o->zoneout_h != 0, recurrent},
               {"clip", o->clip != 0, recurrent},
               {"layer_norm", o->layer_norm != 0, recurrent},
               {"skip", o->skip != 0, recurrent},
               {"checkpoint", o->checkpoint != NULL, recurrent},
               {"UNROLL_RESIDUAL_STATES", o->residual == UNROLL_RESIDUAL_STATES, recurrent}};
  for (size_t i = 0; i < sizeof parts / sizeof *parts && !graph_failed(g); i++)
    /* a LAYER of another cell never looked at its activation */
    if (parts[i].given && !parts[i].had && !(i == 0 && o->cell < UNROLL_CELL_COUNT))
      graph_fail(g, UNROLL_E_INVALID, "%s: %s is no option of cell %s", who, parts[i].name,
                 unroll_rnn_cell_name(o->cell));
  return !graph_failed(g);
}

static bool choose(unroll_graph *g, const char *who, unroll_activation *a, const unroll_activation *given,
                   int32_t otherwise, const char *name, bool modrelu) {
  *a = *given;
  if (a->kind == UNROLL_ACTIVATION_DEFAULT)
    *a = unroll_activation_of(otherwise);
  if (a->kind < 0 || a->kind >= UNROLL_ACTIVATION_COUNT)
    graph_fail(g, UNROLL_E_RANGE, "%s: activation %s is %d, expected UNROLL_ACTIVATION_*", who, name, a->kind);
  else if (!isfinite(a->alpha) || !isfinite(a->beta))
    graph_fail(g, UNROLL_E_RANGE, "%s: activation %s has alpha %g and beta %g, expected finite numbers", who, name,
               a->alpha, a->beta);
  else if (a->kind == UNROLL_ACTIVATION_MODRELU && !modrelu)
    graph_fail(g, UNROLL_E_INVALID, "%s: activation %s is modReLU, which only f of cell rnn can be", who, name);
  return !graph_failed(g);
}

static bool choose_activations(unroll_graph *g, const char *who, nn_rnn *r) {
  const unroll_rnn_options *o = &r->o;
  const bool rnn = r->family == UNROLL_CELL_RNN, minimal = r->family == UNROLL_CELL_NONE;
  int32_t own = UNROLL_ACTIVATION_SIGMOID;
  if (rnn) {
    switch (o->activation) {
    case 0:
    case UNROLL_TANH: own = UNROLL_ACTIVATION_TANH; break;
    case UNROLL_RELU: own = UNROLL_ACTIVATION_RELU; break;
    case UNROLL_SIGMOID: break;
    default:
      graph_fail(g, UNROLL_E_INVALID, "%s: activation %d, expected UNROLL_TANH, UNROLL_RELU or UNROLL_SIGMOID", who,
                 o->activation);
      return false;
    }
    if (o->activation && o->f.kind) {
      graph_fail(g, UNROLL_E_INVALID, "%s: both activation and f are given, expected one of them", who);
      return false;
    }
  }
  if (!choose(g, who, &r->f, &o->f, own, "f", rnn) ||
      !choose(g, who, &r->g, &o->g, minimal ? UNROLL_ACTIVATION_IDENTITY : UNROLL_ACTIVATION_TANH, "g", false) ||
      !choose(g, who, &r->h, &o->h, UNROLL_ACTIVATION_TANH, "h", false))
    return false;
  r->standard = o->clip == 0 && r->g.kind == UNROLL_ACTIVATION_TANH && r->h.kind == UNROLL_ACTIVATION_TANH &&
                (rnn ? r->f.kind <= UNROLL_ACTIVATION_RELU : r->f.kind == UNROLL_ACTIVATION_SIGMOID);
  return true;
}

const char *nn_scan_option(const unroll_rnn_options *o) {
  const bool rnn = o->cell == UNROLL_CELL_RNN;
  const int32_t f = o->f.kind, g = o->g.kind, h = o->h.kind;
  const struct {
    const char *name;
    bool given;
  } options[] = {{"cell", o->cell >= UNROLL_CELL_COUNT},
                 {"f", rnn ? f > UNROLL_ACTIVATION_RELU : f != 0 && f != UNROLL_ACTIVATION_SIGMOID},
                 {"g", g != 0 && g != UNROLL_ACTIVATION_TANH},
                 {"h", h != 0 && h != UNROLL_ACTIVATION_TANH},
                 {"clip", o->clip != 0},
                 {"cell_clip", o->cell_clip != 0},
                 {"projection", o->projection != 0},
                 {"peepholes", o->peepholes != 0},
                 {"layer_norm", o->layer_norm != 0},
                 {"skip", o->skip != 0},
                 {"cells", o->cells != NULL},
                 {"taps", o->taps != NULL},
                 {"gates", o->gates != NULL}};
  for (size_t i = 0; i < sizeof options / sizeof *options; i++)
    if (options[i].given)
      return options[i].name;
  return NULL;
}

static bool check_policy(unroll_graph *g, const char *who, nn_rnn *r) {
  const unroll_rnn_options *o = &r->o;
  if (!o->checkpoint)
    return true;
  if (!UNROLL_HAS(unroll_checkpoint_policy, o->checkpoint, bytes)) {
    graph_fail(g, UNROLL_E_INVALID, "%s: its policy of checkpoints has too small a struct_size", who);
    return false;
  }
  r->policy = *o->checkpoint;
  r->policy.struct_size = sizeof r->policy;
  r->stack = r->layer && !o->bidirectional && o->residual != UNROLL_RESIDUAL_STATES;
  if (!r->stack)
    r->policy.bytes /= (o->bidirectional ? 2 : 1) * (uint64_t)o->layers;
  return true;
}

bool nn_rnn_check(unroll_graph *g, const char *who, const unroll_rnn_options *options, nn_rnn *r) {
  *r = (nn_rnn){.family = UNROLL_CELL_NONE};
  if (!options || !UNROLL_HAS(unroll_rnn_options, options, lengths)) {
    graph_fail(g, UNROLL_E_INVALID, "%s: its options are missing, or their struct_size is too small", who);
    return false;
  }
  unroll_rnn_options *o = &r->o;
  memcpy(o, options, options->struct_size < sizeof *o ? options->struct_size : sizeof *o);
  if (!UNROLL_HAS(unroll_rnn_options, options, checkpoint))
    o->checkpoint = NULL;
  if (!UNROLL_HAS(unroll_rnn_options, options, taps))
    o->taps = NULL;
  if (!UNROLL_HAS(unroll_rnn_options, options, gates))
    o->gates = NULL;
  r->G = unroll_gate_count(o->cell);
  if (r->G == 0) {
    graph_fail(g, UNROLL_E_INVALID, "%s: %d is no cell (UNROLL_CELL_*, UNROLL_RNN_*)", who, o->cell);
    return false;
  }
  r->coupled = o->cell == UNROLL_RNN_COUPLED_LSTM;
  r->family = r->coupled ? UNROLL_CELL_LSTM : o->cell < UNROLL_CELL_COUNT ? o->cell : UNROLL_CELL_NONE;
  if (!check_numbers(g, who, o) || !check_cell(g, who, r) || !choose_activations(g, who, r))
    return false;
  if (o->inference)
    o->dropout = o->input_dropout = o->output_dropout = o->weight_dropout = o->state_dropout = 0;
  if (o->layer_norm_epsilon == 0)
    o->layer_norm_epsilon = 1e-5;
  r->H = o->hidden;
  r->P = o->projection ? o->projection : o->hidden;
  r->layer = !nn_scan_option(o);
  return check_policy(g, who, r);
}
