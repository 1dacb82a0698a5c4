/* SPDX-License-Identifier: Apache-2.0 */
/* nn_sampling.c: how probable the truth is in scheduled sampling, on the host and as a node. */
#include "nn/nn_private.h"
#include <inttypes.h>
#include <math.h>

static unroll_status check(const unroll_sampling_schedule *s, unroll_error *err) {
  if (!s || !UNROLL_HAS(unroll_sampling_schedule, s, least))
    return fail(err, UNROLL_E_INVALID, "scheduled sampling: the schedule is missing, or its struct_size is too small");
  if (s->kind < UNROLL_SAMPLING_EXPONENTIAL || s->kind > UNROLL_SAMPLING_INVERSE_SIGMOID)
    return fail(err, UNROLL_E_INVALID, "scheduled sampling: kind %d, expected UNROLL_SAMPLING_*", s->kind);
  if (!(s->start >= 0 && s->start <= 1))
    return fail(err, UNROLL_E_RANGE, "scheduled sampling: epsilon starts at %g, expected a probability from 0 to 1",
                s->start);
  if (!(s->least >= 0 && s->least <= 1))
    return fail(err, UNROLL_E_RANGE, "scheduled sampling: the least epsilon is %g, expected a probability from 0 to 1",
                s->least);
  if (s->kind == UNROLL_SAMPLING_EXPONENTIAL && !(s->rate > 0 && s->rate <= 1))
    return fail(err, UNROLL_E_RANGE, "scheduled sampling: exponential decay by %g, expected 0 < rate <= 1", s->rate);
  if (s->kind == UNROLL_SAMPLING_LINEAR && (!(s->rate >= 0) || !isfinite(s->rate)))
    return fail(err, UNROLL_E_RANGE, "scheduled sampling: linear decay by %g, expected at least 0", s->rate);
  if (s->kind == UNROLL_SAMPLING_INVERSE_SIGMOID && (!(s->rate >= 1) || !isfinite(s->rate)))
    return fail(err, UNROLL_E_RANGE, "scheduled sampling: inverse sigmoid of k = %g, expected at least 1", s->rate);
  return UNROLL_OK;
}

unroll_status unroll_sampling_rate_at(int64_t update, const unroll_sampling_schedule *s, double *rate,
                                      unroll_error *err) {
  TRY(check(s, err));
  if (!rate)
    return fail(err, UNROLL_E_INVALID, "scheduled sampling: there is no room for the probability");
  if (update < 0)
    return fail(err, UNROLL_E_RANGE, "scheduled sampling: update %" PRId64 ", expected at least 0", update);
  const double t = (double)update;
  double e;
  switch (s->kind) {
  case UNROLL_SAMPLING_EXPONENTIAL: e = s->start * pow(s->rate, t); break;
  case UNROLL_SAMPLING_LINEAR: e = s->start - s->rate * t; break;
  default: e = s->start * s->rate / (s->rate + exp(t / s->rate));
  }
  *rate = e > s->least ? e : s->least;
  return UNROLL_OK;
}

unroll_tensor unroll_sampling_rate(unroll_tensor update, const unroll_sampling_schedule *s, int32_t dtype) {
  unroll_graph *g = update.graph;
  unroll_error err = UNROLL_ERROR_INIT;
  char text[GRAPH_DESCRIBE];
  if (!g || graph_failed(g))
    return unroll_none();
  if (check(s, &err) != UNROLL_OK)
    return graph_fail(g, err.code, "%s", err.message);
  if (graph_spec(update)->rank != 0 || graph_spec(update)->dtype != UNROLL_I32 ||
      (dtype != UNROLL_F32 && dtype != UNROLL_F64))
    return graph_fail(g, UNROLL_E_SHAPE, "scheduled sampling: update %s to %s, expected i32 [] to f32 or f64",
                      graph_describe(g, update.id, text), unroll_dtype_name(dtype));
  const unroll_tensor t = unroll_cast(update, dtype);
  unroll_tensor e;
  switch (s->kind) {
  case UNROLL_SAMPLING_EXPONENTIAL:
    e = unroll_scale(unroll_unary(unroll_scale(t, log(s->rate)), UNROLL_EXP), s->start);
    break;
  case UNROLL_SAMPLING_LINEAR: e = unroll_sub(nn_scalar(t, s->start), unroll_scale(t, s->rate)); break;
  default:
    e = unroll_div(nn_scalar(t, s->start * s->rate),
                   unroll_add(nn_scalar(t, s->rate), unroll_unary(unroll_scale(t, 1.0 / s->rate), UNROLL_EXP)));
  }
  return unroll_binary(e, nn_scalar(e, s->least), UNROLL_MAX);
}
