/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tune_groups.c: what tune.c times of layers on devices whose work-groups share the work: near the model's way, others
 * that add the same sums in the same order. Each is a launch for many steps or one a step, and lanes, rows and blocks
 * at a time of a work-group; into how many parts a sum is split, and how deep, stays as the model has it.
 */
#include "tune.h"
#include <stdio.h>
#include <string.h>

enum { LEAST_LANES = 8, MOST_LANES = 64, MOST_ROWS = 8, CANDIDATES = 96 };

static group_choice choice_of(const layer *l, const layer_split *s) {
  return (group_choice){
      .step = s->step_at_a_time, .lanes = s->units * l->width, .rows = s->rows, .teams = s->block_teams};
}

/* From the smaller to the other one, at least 1 each. */
static int doublings(int64_t n, int64_t m) {
  int count = 0;
  for (int64_t less = n < m ? n : m, more = n < m ? m : n; less < more; less *= 2)
    count++;
  return count;
}

/* ---- candidates ---- */
/* Those that change least come first: the model is seldom far off, and of quick trials there are few. */
static int distance(const group_choice *a, const group_choice *b) {
  const int path = a->step != b->step;
  return path + doublings(a->lanes, b->lanes) + doublings(a->rows, b->rows) +
         (path || a->step ? 0 : doublings(a->teams * a->lanes, b->teams * b->lanes));
}

static uint32_t find_candidates(const plan *p, const layer *l, const layer_split *model, layer_split *list) {
  const group_choice from = choice_of(l, model);
  int far[CANDIDATES];
  uint32_t n = 0;
  for (int step = 0; step < 2; step++)
    for (int64_t lanes = LEAST_LANES; lanes <= MOST_LANES; lanes *= 2)
      for (int64_t rows = 1; rows <= MOST_ROWS && rows < 2 * l->B; rows *= 2) {
        int64_t blocks = (l->H + lanes - 1) / lanes;
        for (int part = 0; part < (step ? 1 : 2); part++, blocks /= 2) {
          const group_choice c = {.step = step, .lanes = lanes, .rows = rows, .teams = step ? 1 : blocks};
          layer_split s;
          if (n == CANDIDATES || !layer_regroup(p, l, model, &c, &s))
            continue;
          const int at_most = distance(&from, &c);
          uint32_t at = n++;
          for (; at > 0 && far[at - 1] > at_most; at--) {
            list[at] = list[at - 1];
            far[at] = far[at - 1];
          }
          list[at] = s;
          far[at] = at_most;
        }
      }
  return n;
}

static bool same_groups(const layer_split *a, const layer_split *b) {
  return a->step_at_a_time == b->step_at_a_time && a->units == b->units && a->rows == b->rows &&
         a->block_teams == b->block_teams;
}

uint32_t tune_group_trials(const plan *p, const layer *l, const layer_split *model, tune_trial *trials, uint32_t most,
                           double building) {
  layer_split list[CANDIDATES];
  const double start = tune_now();
  const uint32_t n = find_candidates(p, l, model, list);
  uint32_t count = 1;
  trials[0] = (tune_trial){.split = *model};
  for (uint32_t i = 0; i < n && count < most && tune_now() - start < building; i++)
    if (!same_groups(&list[i], model) && layer_takes(p, l, &list[i]))
      trials[count++] = (tune_trial){.split = list[i]};
  return count;
}

/* About the cycles of a step, at 3 GHz: a launch, and what a small device computes meanwhile. */
double tune_group_cost(const layer *l, const layer_split *s) {
  enum { LAUNCH = 15000, FLOPS = 16 }; /* of a cycle and core */
  const double flops = 2.0 * (double)(l->B * l->gates * l->H) * (double)l->H;
  return (s->step_at_a_time ? LAUNCH * l->phases : 0) + flops / (FLOPS * (double)l->cores);
}

/* ---- as text ---- */
void tune_write_groups(const layer *l, const layer_split *s, char *text) {
  const group_choice c = choice_of(l, s);
  snprintf(text, TUNE_LINE, "%s lanes=%lld rows=%lld teams=%lld", c.step ? "step" : "sequence", (long long)c.lanes,
           (long long)c.rows, (long long)c.teams);
}

bool tune_read_groups(const char *value, const plan *p, const layer *l, const layer_split *model, layer_split *s,
                      bool *thorough) {
  char kind[9], effort[9];
  group_choice c = {0};
  if (sscanf(value, "%8s", kind) != 1)
    return false;
  value += strlen(kind);
  if (!tune_number(&value, " lanes=", TUNE_DIGITS, &c.lanes) || !tune_number(&value, " rows=", TUNE_DIGITS, &c.rows) ||
      !tune_number(&value, " teams=", TUNE_DIGITS, &c.teams) || sscanf(value, " us=%*f model=%*f %8s", effort) != 1)
    return false;
  c.step = strcmp(kind, "step") == 0;
  *thorough = strcmp(effort, "thorough") == 0;
  return (c.step || strcmp(kind, "sequence") == 0) && layer_regroup(p, l, model, &c, s) && layer_takes(p, l, s);
}
