/* SPDX-License-Identifier: Apache-2.0 */
/* nn_reinforce.c: Williams' estimator of the gradient of an expected reward, and the two runs that make an update of
 * it. */
#include "nn/nn_private.h"
#include <inttypes.h>
#include <math.h>
#include <string.h>

unroll_tensor unroll_sequence_log_prob(unroll_tensor logits, unroll_tensor ids) {
  if (nn_lost(logits))
    return unroll_none();
  char a[GRAPH_DESCRIBE], b[GRAPH_DESCRIBE];
  if (!ids.graph || graph_spec(logits)->rank != 3 || graph_spec(ids)->rank != 2)
    return graph_fail(
        logits.graph, UNROLL_E_SHAPE, "log-probability of a sequence: logits %s, ids %s, expected [T,B,V], [T,B]",
        graph_describe(logits.graph, logits.id, a), ids.graph ? graph_describe(ids.graph, ids.id, b) : "missing");
  return unroll_unary(unroll_reduce(unroll_cross_entropy_rows(logits, ids), UNROLL_SUM, 1u, 0), UNROLL_NEG);
}

unroll_tensor unroll_reinforce_loss(unroll_tensor log_prob, unroll_tensor reward, unroll_tensor baseline,
                                    int32_t reduction) {
  unroll_graph *g = log_prob.graph;
  char a[GRAPH_DESCRIBE], b[GRAPH_DESCRIBE];
  if (!g || graph_failed(g))
    return unroll_none();
  if (reduction != UNROLL_LOSS_MEAN && reduction != UNROLL_LOSS_SUM)
    return graph_fail(g, UNROLL_E_INVALID, "reinforce: reduction %d, expected UNROLL_LOSS_MEAN or SUM", reduction);
  const unroll_tensor given[2] = {reward, baseline};
  for (int i = 0; i < 2; i++)
    if ((i == 0 && !given[i].graph) || graph_spec(log_prob)->rank != 1 ||
        (given[i].graph && !graph_same_shape(graph_spec(given[i]), graph_spec(log_prob))))
      return graph_fail(g, UNROLL_E_SHAPE, "reinforce: log-probabilities %s, %s %s, expected [B] each",
                        graph_describe(g, log_prob.id, a), i ? "baseline" : "reward",
                        given[i].graph ? graph_describe(g, given[i].id, b) : "missing");
  const unroll_tensor advantage = baseline.graph ? unroll_sub(reward, baseline) : reward;
  const unroll_tensor sum = unroll_reduce(unroll_mul(advantage, log_prob), UNROLL_SUM, 0, 0);
  const double B = (double)graph_spec(log_prob)->shape[0];
  return unroll_scale(sum, reduction == UNROLL_LOSS_MEAN ? -1.0 / B : -1.0);
}

static unroll_status check(const unroll_reinforce *r, unroll_error *err) {
  if (!r || !UNROLL_HAS(unroll_reinforce, r, seen) || !r->sampler || !r->learner || !r->ids || !r->lengths ||
      !r->inputs || !r->targets || !r->reward || !r->baseline || !r->reward_of)
    return fail(err, UNROLL_E_INVALID,
                "reinforce: a binding, a tensor's name or the reward is missing, or struct_size is too small");
  if (r->steps < 1 || r->batch < 1 || r->steps > INT32_MAX / r->batch)
    return fail(err, UNROLL_E_RANGE, "reinforce: %" PRId64 " steps, batch %" PRId64 ", expected at least 1 each",
                r->steps, r->batch);
  if (!(r->decay >= 0 && r->decay < 1))
    return fail(err, UNROLL_E_RANGE, "reinforce: the baseline's decay is %g, expected 0 <= decay < 1", r->decay);
  return UNROLL_OK;
}

typedef struct buffers {
  int32_t *ids, *lengths, *inputs, *targets, *row; /* [T,B], [B], [T,B], [T,B], [T] */
  float *reward, *baseline;                        /* [B] */
} buffers;

/* The rewards of the sequences that were sampled; inputs and targets of the run that learns from them. */
static unroll_status judge(const unroll_reinforce *r, buffers *b, double *mean, int64_t *longest, unroll_error *err) {
  const int64_t T = r->steps, B = r->batch;
  double sum = 0;
  *longest = 1;
  for (int64_t k = 0; k < B; k++) {
    const int64_t n = b->lengths[k];
    if (n < 0 || n > T)
      return fail(err, UNROLL_E_RANGE, "reinforce: row %" PRId64 " has length %" PRId64 ", expected 0 to %" PRId64, k,
                  n, T);
    *longest = n > *longest ? n : *longest;
    for (int64_t t = 0; t < T; t++) {
      const int32_t id = t < n ? b->ids[t * B + k] : -1;
      b->row[t] = b->targets[t * B + k] = id;
      b->inputs[t * B + k] = t > 0 && t < n ? b->ids[(t - 1) * B + k] : r->begin;
    }
    const double reward = r->reward_of(r->ctx, k, b->row, n);
    if (!isfinite(reward))
      return fail(err, UNROLL_E_RANGE, "reinforce: the reward of row %" PRId64 " is %g, expected a finite number", k,
                  reward);
    b->reward[k] = (float)reward;
    sum += reward;
  }
  *mean = sum / (double)B;
  return UNROLL_OK;
}

static unroll_status prepare(unroll_reinforce *r, const unroll_run_options *options, const float *baselines, buffers *b,
                             int64_t *steps, double *mean_reward, unroll_error *err) {
  const uint64_t B = (uint64_t)r->batch;
  uint64_t n = (uint64_t)r->steps * B;
  double mean = 0;
  int64_t longest;
  TRY(unroll_run(r->sampler, options, err));
  TRY(unroll_binding_read(r->sampler, r->ids, b->ids, n * sizeof *b->ids, err));
  TRY(unroll_binding_read(r->sampler, r->lengths, b->lengths, B * sizeof *b->lengths, err));
  TRY(judge(r, b, &mean, &longest, err));
  for (uint64_t k = 0; k < B; k++)
    b->baseline[k] = baselines ? baselines[k] : (float)(r->seen > 0 ? r->value : mean);
  if (steps) {
    *steps = longest;
    n = (uint64_t)longest * B;
  }
  TRY(unroll_binding_write(r->learner, r->inputs, b->inputs, n * sizeof *b->inputs, err));
  TRY(unroll_binding_write(r->learner, r->targets, b->targets, n * sizeof *b->targets, err));
  TRY(unroll_binding_write(r->learner, r->reward, b->reward, B * sizeof *b->reward, err));
  TRY(unroll_binding_write(r->learner, r->baseline, b->baseline, B * sizeof *b->baseline, err));
  r->value = r->seen > 0 ? r->decay * r->value + (1.0 - r->decay) * mean : mean;
  r->seen++;
  if (mean_reward)
    *mean_reward = mean;
  return UNROLL_OK;
}

unroll_status nn_reinforce_prepare(unroll_reinforce *r, const unroll_run_options *options, const float *baselines,
                                   int64_t *steps, double *mean_reward, unroll_error *err) {
  TRY(check(r, err));
  const uint64_t B = (uint64_t)r->batch, n = (uint64_t)r->steps * B;
  int32_t *memory = mem_array(NULL, 3 * n + B + (uint64_t)r->steps, sizeof *memory);
  if (!memory)
    return fail(err, UNROLL_E_MEMORY, "out of memory for the sequences of a REINFORCE update");
  buffers b = {.ids = memory, .inputs = memory + n, .targets = memory + 2 * n, .lengths = memory + 3 * n};
  b.row = b.lengths + B;
  b.reward = mem_array(NULL, 2 * B, sizeof *b.reward);
  unroll_status st = UNROLL_OK;
  if (!b.reward)
    st = fail(err, UNROLL_E_MEMORY, "out of memory for the rewards of a REINFORCE update");
  else {
    b.baseline = b.reward + B;
    st = prepare(r, options, baselines, &b, steps, mean_reward, err);
  }
  mem_free(NULL, memory);
  mem_free(NULL, b.reward);
  return st;
}

unroll_status unroll_reinforce_update(unroll_reinforce *r, const unroll_run_options *options, double *mean_reward,
                                      unroll_error *err) {
  TRY(nn_reinforce_prepare(r, options, NULL, NULL, mean_reward, err));
  return unroll_run(r->learner, options, err);
}
