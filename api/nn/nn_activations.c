/* SPDX-License-Identifier: Apache-2.0 */
/* nn_activations.c: the activations of cells, composed of ops so that nothing overflows and no gradient is NaN. */
#include "nn/nn_private.h"

unroll_activation unroll_activation_of(int32_t kind) {
  static const double defaults[UNROLL_ACTIVATION_COUNT][2] = {
      [UNROLL_ACTIVATION_LEAKY_RELU] = {0.01, 0},
      [UNROLL_ACTIVATION_SCALED_TANH] = {1, 1}, /* ONNX names none: what makes it tanh */
      [UNROLL_ACTIVATION_HARD_SIGMOID] = {0.2, 0.5},
  };
  unroll_activation a = {.kind = kind, .alpha = 1, .beta = 0};
  if (kind >= 0 && kind < UNROLL_ACTIVATION_COUNT && defaults[kind][0] != 0) {
    a.alpha = defaults[kind][0];
    a.beta = defaults[kind][1];
  }
  return a;
}

const char *unroll_activation_name(int32_t kind) {
  static const char *const names[UNROLL_ACTIVATION_COUNT] = {
      "default",     "tanh",         "sigmoid", "relu",     "affine",   "leaky_relu", "thresholded_relu",
      "scaled_tanh", "hard_sigmoid", "elu",     "softsign", "softplus", "identity",   "modrelu"};
  return kind >= 0 && kind < UNROLL_ACTIVATION_COUNT ? names[kind] : NULL;
}

static unroll_tensor number(unroll_tensor like, double value) {
  if (!like.graph || graph_failed(like.graph))
    return unroll_none();
  return unroll_constant(like.graph, graph_spec(like)->dtype, 0, NULL, value);
}
static unroll_tensor plus(unroll_tensor x, double value) { return value == 0 ? x : unroll_add(x, number(x, value)); }
static unroll_tensor times(unroll_tensor x, double factor) { return factor == 1 ? x : unroll_scale(x, factor); }

unroll_tensor nn_bound(unroll_tensor x, double limit) {
  if (limit == 0)
    return x;
  return unroll_binary(unroll_binary(x, number(x, -limit), UNROLL_MAX), number(x, limit), UNROLL_MIN);
}

/* log(1 + e^x) = (x + |x|)/2 + log1p(e^-|x|): nothing overflows, and as |x| has slope 0 at 0, the slope there is 1/2. */
unroll_tensor nn_softplus(unroll_tensor x) {
  const unroll_tensor small = unroll_unary(unroll_unary(unroll_unary(x, UNROLL_ABS), UNROLL_NEG), UNROLL_EXP);
  const unroll_tensor tail = unroll_unary(small, UNROLL_LOG1P);
  return unroll_add(unroll_scale(unroll_add(x, unroll_unary(x, UNROLL_ABS)), 0.5), tail);
}

/* x < 0 ? alpha·(e^x - 1) : x; e^x only of what is not above 0. */
static unroll_tensor elu(unroll_tensor x, double alpha) {
  const unroll_tensor zero = number(x, 0);
  const unroll_tensor below = times(unroll_unary(unroll_binary(x, zero, UNROLL_MIN), UNROLL_EXPM1), alpha);
  return unroll_select(unroll_binary(x, zero, UNROLL_LT), below, x);
}

unroll_tensor nn_activate(unroll_tensor x, const unroll_activation *a, double clip, unroll_tensor bias) {
  x = nn_bound(x, clip);
  if (!x.graph || graph_failed(x.graph))
    return unroll_none();
  switch (a->kind) {
  case UNROLL_ACTIVATION_TANH: return unroll_tanh(x);
  case UNROLL_ACTIVATION_SIGMOID: return unroll_sigmoid(x);
  case UNROLL_ACTIVATION_RELU: return unroll_relu(x);
  case UNROLL_ACTIVATION_AFFINE: return plus(times(x, a->alpha), a->beta);
  case UNROLL_ACTIVATION_LEAKY_RELU:
    return unroll_select(unroll_binary(x, number(x, 0), UNROLL_LT), times(x, a->alpha), x);
  case UNROLL_ACTIVATION_THRESHOLDED_RELU:
    return unroll_select(unroll_binary(x, number(x, a->alpha), UNROLL_GT), x, number(x, 0));
  case UNROLL_ACTIVATION_SCALED_TANH: return times(unroll_tanh(times(x, a->beta)), a->alpha);
  case UNROLL_ACTIVATION_HARD_SIGMOID: {
    const unroll_tensor line = plus(times(x, a->alpha), a->beta);
    return unroll_binary(unroll_binary(line, number(x, 0), UNROLL_MAX), number(x, 1), UNROLL_MIN);
  }
  case UNROLL_ACTIVATION_ELU: return elu(x, a->alpha);
  case UNROLL_ACTIVATION_SOFTSIGN: return unroll_div(x, plus(unroll_unary(x, UNROLL_ABS), 1));
  case UNROLL_ACTIVATION_SOFTPLUS: return nn_softplus(x);
  case UNROLL_ACTIVATION_MODRELU:
    return unroll_mul(unroll_unary(x, UNROLL_SIGN), unroll_relu(unroll_add(unroll_unary(x, UNROLL_ABS), bias)));
  default: return x;
  }
}
