/* SPDX-License-Identifier: Apache-2.0 */
/* The rules of a verdict; the header has their sources. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unroll/nn.h>
#include <unroll/verdict.h>

#include "base/base_private.h"

#define MARGINAL 1e-3  /* nats a step: over 1000 steps a factor of e, which no task notices */
#define SURE 3.0       /* standard errors */
#define GROWS 10.0     /* of a gradient on its way back */
#define GIVEN "input " /* how unroll_nonfinite_text begins of data */
#define FEW 0.1        /* of the states: they alone don't explain what happens to gradients */

const char *unroll_level_name(int32_t level) {
  switch (level) {
#define NAME_OF(name, value, text) \
  case name: return text;
    UNROLL_LEVELS(NAME_OF)
#undef NAME_OF
  default: return NULL;
  }
}

unroll_layer_figures unroll_layer_figures_none(void) {
  const double none = (double)NAN;
  return (unroll_layer_figures){.struct_size = sizeof(unroll_layer_figures),
                                .layer = "",
                                .radius = none,
                                .memory = -1,
                                .growth = none,
                                .saturated = none,
                                .dead = none,
                                .time_constant = none,
                                .exponent = none,
                                .exponent_error = none,
                                .nonfinite = -1};
}

/* A rule: false where it finds nothing. Texts come without the layer's name. */
typedef bool (*rule)(const unroll_layer_figures *f, unroll_finding *to);

#define SAY(to, ...) (void)snprintf((to), sizeof(to), __VA_ARGS__)

static bool is_gated(const unroll_layer_figures *f) { return f->cell != UNROLL_CELL_RNN; }

/* The gate that says how much of a state is kept, and which biases of it let it keep more. */
typedef struct keeper {
  const char *name, *biases;
  double sign;
} keeper;
static keeper keeper_of(const unroll_layer_figures *f) {
  const unroll_rnn_options o = {.struct_size = sizeof o, .cell = f->cell};
  unroll_gate gate = {.struct_size = sizeof gate};
  for (int64_t i = 0; unroll_gate_of(&o, i, &gate, NULL) == UNROLL_OK; i++)
    if (gate.keeps)
      return gate.keeps == UNROLL_KEEPS ? (keeper){gate.name, "larger", 1} : (keeper){gate.name, "smaller", -1};
  return (keeper){"update", "larger", 1};
}

/* "0.61", and large ones in short. */
static const char *radius_text(double radius, char text[24]) {
  (void)snprintf(text, 24, radius < 100 ? "%.2f" : "%.3g", radius);
  return text;
}

static bool nonfinite(const unroll_layer_figures *f, unroll_finding *to) {
  if (f->nonfinite < 1)
    return false;
  *to = (unroll_finding){.level = UNROLL_LEVEL_BAD, .what = "nonfinite", .figure = (double)f->nonfinite};
  SAY(to->text, "%" PRId64 " number%s not finite%s%s", f->nonfinite, f->nonfinite == 1 ? " is" : "s are",
      f->nonfinite_first ? ", the first: " : "", f->nonfinite_first ? f->nonfinite_first : "");
  if (f->nonfinite_first && strncmp(f->nonfinite_first, GIVEN, sizeof GIVEN - 1) == 0)
    SAY(to->advice, "look for it in the data");
  else
    SAY(to->advice, "go back to the last saved model; train with a smaller learning rate, clipped gradients and "
                    "--nonfinite skip");
  return true;
}

static bool exploding(const unroll_layer_figures *f, unroll_finding *to) {
  if (!(f->growth > GROWS))
    return false;
  *to = (unroll_finding){
      .level = f->growth > 100 ? UNROLL_LEVEL_BAD : UNROLL_LEVEL_WARNING, .what = "exploding", .figure = f->growth};
  if (is_gated(f) || isnan(f->radius))
    SAY(to->text, "gradients grow by up to %.3g on their way back", f->growth);
  else
    SAY(to->text, "gradients grow by up to %.3g on their way back: W_hh has spectral radius %.3g", f->growth,
        f->radius);
  SAY(to->advice, "clip the gradients' norm (--clip 1), lower the learning rate, or begin from an orthogonal W_hh");
  return true;
}

static bool vanishing(const unroll_layer_figures *f, unroll_finding *to) {
  char radius[24];
  if (f->memory < 0 || f->memory >= f->steps)
    return false;
  *to = (unroll_finding){.level = f->memory < f->steps / 4 ? UNROLL_LEVEL_BAD : UNROLL_LEVEL_WARNING,
                         .what = "vanishing",
                         .figure = (double)f->memory};
  const int used = snprintf(to->text, sizeof to->text, "gradients vanish after %" PRId64 " of %" PRId64 " steps",
                            f->memory, f->steps);
  char *const rest = to->text + used;
  const size_t size = sizeof to->text - (size_t)used;
  if (!is_gated(f) && !isnan(f->radius)) {
    /* ρ bounds what the product would do without the slopes of tanh */
    if (f->radius >= 1 && f->saturated >= FEW)
      snprintf(rest, size, ": W_hh has spectral radius %s, but %.0f%% of the states stand at their ends",
               radius_text(f->radius, radius), 100 * f->saturated);
    else if (f->radius >= 1)
      snprintf(rest, size, ", although W_hh has spectral radius %s: what stands around it lets less through",
               radius_text(f->radius, radius));
    else
      snprintf(rest, size, ": W_hh has spectral radius %s", radius_text(f->radius, radius));
  }
  if (f->cell == UNROLL_CELL_RNN)
    SAY(to->advice, "%s an LSTM or a GRU", f->radius < 0.95 ? "try orthogonal initialisation or" : "try");
  else
    SAY(to->advice, "if the task needs more, begin with %s biases of the %s gate (chrono initialisation)",
        keeper_of(f).biases, keeper_of(f).name);
  return true;
}

static bool forgetful(const unroll_layer_figures *f, unroll_finding *to) {
  if (!(f->time_constant < (double)f->steps / 4) || f->memory >= f->steps)
    return false;
  const keeper gate = keeper_of(f);
  *to = (unroll_finding){.level = UNROLL_LEVEL_WARNING, .what = "forgetful", .figure = f->time_constant};
  SAY(to->text, "even the slowest %s gate keeps for only %.3g of %" PRId64 " steps (its time constant)", gate.name,
      f->time_constant, f->steps);
  SAY(to->advice, "if the task needs more, begin with %s biases of the %s gate: about %sln(%" PRId64 ") = %.1f",
      gate.biases, gate.name, gate.sign < 0 ? "-" : "", f->steps, gate.sign * log((double)f->steps));
  return true;
}

static bool dead(const unroll_layer_figures *f, unroll_finding *to) {
  if (!(f->dead > 0.1))
    return false;
  *to = (unroll_finding){
      .level = f->dead > 0.5 ? UNROLL_LEVEL_BAD : UNROLL_LEVEL_WARNING, .what = "dead", .figure = f->dead};
  SAY(to->text, "%.0f%% of the ReLU units are never active", 100 * f->dead);
  SAY(to->advice, "lower the learning rate, begin with biases above 0, or take tanh or a leaky ReLU");
  return true;
}

static bool saturated(const unroll_layer_figures *f, unroll_finding *to) {
  if (!(f->saturated > 0.5))
    return false;
  *to = (unroll_finding){.level = f->saturated > 0.8 ? UNROLL_LEVEL_BAD : UNROLL_LEVEL_WARNING,
                         .what = "saturated",
                         .figure = f->saturated};
  SAY(to->text, "%.0f%% of the values of gate '%s' stand at its ends, where its slope is small", 100 * f->saturated,
      f->saturated_gate ? f->saturated_gate : "?");
  SAY(to->advice,
      "if training stands still: scale the inputs, lower the learning rate, or add weight decay or layer norm");
  return true;
}

static bool chaotic(const unroll_layer_figures *f, unroll_finding *to) {
  if (!(f->exponent > MARGINAL) || f->exponent <= SURE * f->exponent_error)
    return false;
  *to = (unroll_finding){.level = UNROLL_LEVEL_WARNING, .what = "chaotic", .figure = f->exponent};
  SAY(to->text,
      "what is near comes apart by e in %.3g steps (λ1 = %.3g): the dynamics are unstable, chaotic where they stay "
      "bounded",
      1 / f->exponent, f->exponent);
  SAY(to->advice, "shrink W_hh or lower the learning rate; gradients over many steps explode here");
  return true;
}

static bool marginal(const unroll_layer_figures *f, unroll_finding *to) {
  const double sure = SURE * f->exponent_error;
  if (!(fabs(f->exponent) <= (sure > MARGINAL ? sure : MARGINAL)))
    return false;
  *to = (unroll_finding){.level = UNROLL_LEVEL_GOOD, .what = "marginal", .figure = f->exponent};
  SAY(to->text, "the dynamics stand at the edge of chaos: λ1 = %.2g ± %.1g is 0 within its error", f->exponent,
      f->exponent_error);
  SAY(to->advice, "nothing need be done: states neither fade nor come apart");
  return true;
}

static bool remembers(const unroll_layer_figures *f, unroll_finding *to) {
  char radius[24];
  if (f->memory < 0 || f->memory < f->steps || f->growth > GROWS || f->nonfinite > 0)
    return false;
  *to = (unroll_finding){.level = UNROLL_LEVEL_GOOD, .what = "remembers", .figure = (double)f->memory};
  if (f->time_constant >= 0)
    SAY(to->text, "gradients reach back over all %" PRId64 " steps; the slowest %s gate keeps for %.3g", f->steps,
        keeper_of(f).name, f->time_constant);
  else if (isnan(f->radius))
    SAY(to->text, "gradients reach back over all %" PRId64 " steps", f->steps);
  else
    SAY(to->text, "gradients reach back over all %" PRId64 " steps: W_hh has spectral radius %s", f->steps,
        radius_text(f->radius, radius));
  SAY(to->advice, "nothing need be done");
  return true;
}

uint32_t unroll_layer_verdict(const unroll_layer_figures *f, unroll_finding *findings) {
  static const rule rules[] = {nonfinite, exploding, vanishing, forgetful, dead,
                               saturated, chaotic,   remembers, marginal};
  unroll_finding found;
  uint32_t n = 0;
  _Static_assert(sizeof rules / sizeof rules[0] == UNROLL_MOST_FINDINGS, "a finding a rule");
  if (!f || !findings || f->struct_size < sizeof *f)
    return 0;
  for (int32_t level = UNROLL_LEVEL_BAD; level >= UNROLL_LEVEL_GOOD; level--)
    for (size_t i = 0; i < UNROLL_MOST_FINDINGS; i++)
      if (rules[i](f, &found) && found.level == level)
        findings[n++] = found;
  return n;
}
