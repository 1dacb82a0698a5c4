/* SPDX-License-Identifier: Apache-2.0 */
/* Translators trained by REINFORCE: what an update learns from, and that it helps. */
#include "train/translate_private.h"
#include "translate_support.h"

enum { ROWS = 6 };

/* ids of a row of [T,ROWS], without the end */
static int64_t row_of(const int32_t *ids, int64_t length, int64_t row, int32_t end_id, int32_t *to) {
  int64_t n = 0;
  for (int64_t i = 0; i < length; i++)
    if (ids[i * ROWS + row] != end_id)
      to[n++] = ids[i * ROWS + row];
  return n;
}

static double reward(const unroll_translator *t, int64_t item, const int32_t *ids, int64_t n) {
  const int64_t length = unroll_sequences_lengths(t->data.targets)[item] - 1;
  return -(double)unroll_edit_distance(ids, n, unroll_sequences_ids(t->data.targets, item), length) / (double)length;
}

/* The program that draws, or the greedy one. */
static unroll_binding *sampler(const unroll_translator *t, int sampled, int64_t *steps) {
  for (int i = 0; i < TRANSLATOR_PROGRAMS; i++)
    if (t->programs[i].program.binding && t->programs[i].way.sampled == sampled) {
      *steps = t->programs[i].steps;
      return t->programs[i].program.binding;
    }
  fail_msg("no program of %d", sampled);
  return NULL;
}

/* What goes into the learner is what was drawn: every step of it, fed one step later, with its reward and its baseline. */
static void the_learner_sees_what_was_drawn(void **state) {
  (void)state;
  unroll_pairs *pairs = load_pairs("abcd\tdcba\nbade\tedab\ncabb\tbbac\ndeed\tdeed\nbbce\tecbb\nacdc\tcdca\n");
  unroll_translator_options o = toy(UNROLL_CELL_GRU);
  o.training.batch = ROWS;
  o.training.validation = o.testing = 0;
  for (int32_t baseline = UNROLL_BASELINE_MEAN; baseline <= UNROLL_BASELINE_GREEDY; baseline++) {
    unroll_translator *t = new_translator(pairs, &o);
    static struct seen seen;
    run_to(t, 15, &seen);
    assert_ok(unroll_translator_save(t, in_folder("m"), &err));
    unroll_translator_destroy(t);
    t = load_translator(in_folder("m"));
    const unroll_translator_reinforce_options r = {.struct_size = sizeof r, .baseline = baseline, .decay = 0.75};
    assert_ok(unroll_translator_reinforce(t, &r, &err));
    assert_ok(unroll_translator_resume(t, pairs, &err));
    assert_int_equal(t->n_classes, 1);
    unroll_binding *learner = t->trainer.train.binding;
    double mean = 0;
    int short_ones = 0;
    for (uint64_t u = 0; u < 6; u++) {
      const struct trainer_place place = {.update = u, .epoch = u, .parts = 1};
      struct trainer_feed feed = {.n_dims = 0};
      assert_ok(translator_feed(t, &place, learner, &feed, &err));
      unroll_batch batch;
      assert_ok(translator_batch_of(t, &place, &batch, &err));
      int64_t steps = 0, longest = 0;
      int32_t ids[64 * ROWS], lengths[ROWS], inputs[64 * ROWS], targets[64 * ROWS], row[64];
      float rewards[ROWS], baselines[ROWS];
      unroll_binding *drawn = sampler(t, 1, &steps);
      assert_in_range(steps, 5, 64);
      assert_ok(unroll_binding_read(drawn, "ids", ids, (uint64_t)steps * ROWS * 4, &err));
      assert_ok(unroll_binding_read(drawn, "lengths", lengths, sizeof lengths, &err));
      for (int b = 0; b < ROWS; b++)
        longest = lengths[b] > longest ? lengths[b] : longest;
      assert_true(feed.n_dims == 1 && feed.dims[0] == longest);
      short_ones += longest < steps;
      assert_ok(unroll_binding_read(learner, "inputs", inputs, (uint64_t)longest * ROWS * 4, &err));
      assert_ok(unroll_binding_read(learner, "targets", targets, (uint64_t)longest * ROWS * 4, &err));
      assert_ok(unroll_binding_read(learner, "reward", rewards, sizeof rewards, &err));
      assert_ok(unroll_binding_read(learner, "baseline", baselines, sizeof baselines, &err));
      double sum = 0;
      for (int b = 0; b < ROWS; b++) {
        for (int64_t i = 0; i < longest; i++) {
          assert_int_equal(targets[i * ROWS + b], i < lengths[b] ? ids[i * ROWS + b] : -1);
          if (i < lengths[b])
            assert_int_equal(inputs[i * ROWS + b], i ? ids[(i - 1) * ROWS + b] : translator_end(t));
        }
        const int64_t n = row_of(ids, lengths[b], b, translator_end(t), row);
        assert_true(rewards[b] == (float)reward(t, batch.items[b], row, n));
        sum += (double)rewards[b] / ROWS;
      }
      if (baseline == UNROLL_BASELINE_GREEDY) {
        unroll_binding *greedy = sampler(t, 0, &steps);
        assert_ok(unroll_binding_read(greedy, "ids", ids, (uint64_t)steps * ROWS * 4, &err));
        assert_ok(unroll_binding_read(greedy, "lengths", lengths, sizeof lengths, &err));
        for (int b = 0; b < ROWS; b++) {
          const int64_t n = row_of(ids, lengths[b], b, translator_end(t), row);
          assert_true(baselines[b] == (float)reward(t, batch.items[b], row, n));
        }
      } else { /* the first update's own mean, from then on that of those before */
        mean = u == 0 ? sum : mean;
        for (int b = 0; b < ROWS; b++)
          assert_true(fabs((double)baselines[b] - mean) < 1e-6);
        mean = 0.75 * mean + 0.25 * sum;
      }
    }
    assert_true(short_ones > 0);
    unroll_translator_destroy(t);
  }
  unroll_pairs_destroy(pairs);
}

/* From a model that has learnt a part of it, the mean reward of what is drawn rises, and the error rate of what is
 * likeliest falls, whichever the baseline. */
static void reinforce_lowers_the_error_rate(void **state) {
  (void)state;
  static struct seen seen;
  unroll_pairs *pairs = word_pairs(0);
  unroll_translator_options o = toy(UNROLL_CELL_GRU);
  o.training.batch = 32;
  unroll_translator *t = new_translator(pairs, &o);
  run_to(t, 45, &seen);
  assert_ok(unroll_translator_save(t, in_folder("m"), &err));
  unroll_translator_score_info before, after;
  assert_ok(unroll_translator_score(t, pairs, UNROLL_TRAINING, NULL, NULL, NULL, &before, &err));
  unroll_translator_destroy(t);
  assert_true(before.error_rate > 0.2 && before.error_rate < 0.8);
  for (int32_t baseline = UNROLL_BASELINE_MEAN; baseline <= UNROLL_BASELINE_GREEDY; baseline++) {
    t = load_translator(in_folder("m"));
    const unroll_translator_reinforce_options reinforce = {
        .struct_size = sizeof reinforce, .baseline = baseline, .decay = 0.9, .seed = 2};
    assert_ok(unroll_translator_reinforce(t, &reinforce, &err));
    assert_ok(unroll_translator_resume(t, pairs, &err));
    assert_ok(unroll_translator_set_schedule(t, &(unroll_schedule){.base = 0.001}, &err));
    double loss, metric;
    assert_ok(unroll_translator_evaluate(t, &loss, &metric, &err));
    assert_true(loss == -metric && loss > 0 && loss < 1.5);
    run_to(t, 445, &seen);
    double first = 0, last = 0;
    for (int i = 0; i < 20; i++) {
      first += seen.metrics[45 + i] / 20;
      last += seen.metrics[425 + i] / 20;
    }
    assert_ok(unroll_translator_score(t, pairs, UNROLL_TRAINING, NULL, NULL, NULL, &after, &err));
    if (!(last > first + 0.1 && after.error_rate < 0.85 * before.error_rate))
      print_error("baseline %d: reward %g to %g, error rate %g to %g\n", baseline, first, last, before.error_rate,
                  after.error_rate);
    assert_true(last > first + 0.1 && after.error_rate < 0.85 * before.error_rate);
    unroll_translator_destroy(t);
  }
  unroll_pairs_destroy(pairs);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(the_learner_sees_what_was_drawn),
                                     cmocka_unit_test(reinforce_lowers_the_error_rate)};
  return cmocka_run_group_tests(tests, begin, end);
}
