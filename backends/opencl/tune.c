/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tune.c: how a layer's work is divided, where the model of plan_layer.c or plan_layer_gpu.c is not asked alone: an
 * answer that was measured before, on this machine or on one like it; else, where the layer has enough to do, the
 * quickest of a few. What is said of splits here is of CPU devices; tune_groups.c has those of others.
 *
 * All splits give the same bits. What would not (whether x's product is hoisted) follows the model, here as everywhere.
 */
#include "tune.h"
#include <stdio.h>
#include <string.h>

enum { QUICK_TRIALS = 5, THOROUGH_TRIALS = 14, CANDIDATES = 256 };
static const double WORTH = 15e6;  /* cycles of a run, some 5 ms, from which on trials are worth their time */
static const double LAUNCH = 24e3; /* cycles of a launch, with the threads that have to wake up */

typedef struct choice { /* a split, as it is written: of any batch of its bucket */
  int64_t pieces, rows, vecs, parts;
  bool step;
} choice;

typedef struct candidate {
  choice choice;
  double cost;
} candidate;

static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

/* ---- splits ---- */
/* false: it makes no sense for this layer. */
static bool split_of(const layer *l, const tune_task *task, const choice *c, layer_split *s) {
  if (c->pieces < 1 || c->pieces > l->B || c->rows < 1 || c->vecs < 1 || c->vecs > 4 || c->parts < 1)
    return false;
  *s = (layer_split){.item_rows = ceil_div(l->B, c->pieces), .vecs = c->vecs, .step_at_a_time = c->step};
  s->units = layer_units(task->gates, task->phases, s->vecs);
  if (s->units == 0 || (s->units > 1 && (s->units - 1) * l->width >= l->H) || s->item_rows > LAYER_ITEM_ROWS)
    return false;
  s->rows = smaller(c->rows, smaller(layer_most_rows(l, s->vecs), s->item_rows));
  s->row_pieces = ceil_div(l->B, s->item_rows);
  s->item_blocks = ceil_div(l->H, l->width * s->units);
  if (c->step)
    s->item_blocks = ceil_div(s->item_blocks, smaller(c->parts, s->item_blocks));
  return true;
}

static choice choice_of(const layer *l, const layer_split *s) {
  const int64_t blocks = ceil_div(l->H, l->width * s->units);
  return (choice){.pieces = s->row_pieces,
                  .rows = s->rows,
                  .vecs = s->vecs,
                  .parts = ceil_div(blocks, s->item_blocks),
                  .step = s->step_at_a_time};
}

static bool same_split(const layer_split *a, const layer_split *b) {
  return a->item_rows == b->item_rows && a->rows == b->rows && a->vecs == b->vecs && a->item_blocks == b->item_blocks &&
         a->step_at_a_time == b->step_at_a_time;
}

/* ---- candidates ---- */
static double cost_of(const layer *l, const tune_task *task, const layer_split *s) {
  if (s->items)
    return tune_group_cost(l, s);
  const double whole = layer_cycles(l, s, task->gates, task->k);
  if (!s->step_at_a_time)
    return whole;
  const int64_t parts = ceil_div(ceil_div(l->H, l->width * s->units), s->item_blocks);
  const int64_t idle = smaller(l->cores / smaller(s->row_pieces, l->cores), parts);
  return whole / (double)idle + LAUNCH * task->phases;
}

static void consider(const layer *l, const tune_task *task, const choice *c, candidate *list, uint32_t *n) {
  layer_split s;
  if (!split_of(l, task, c, &s))
    return;
  const double cost = cost_of(l, task, &s);
  if (*n == CANDIDATES && list[*n - 1].cost <= cost)
    return;
  uint32_t at = *n == CANDIDATES ? *n - 1 : (*n)++;
  for (; at > 0 && list[at - 1].cost > cost; at--)
    list[at] = list[at - 1];
  list[at] = (candidate){*c, cost};
}

/* Of these vectors the rows of a tile that the model likes best. */
static int64_t best_rows(const layer *l, const tune_task *task, layer_split s) {
  int64_t best = 1;
  double least = 0;
  for (s.rows = 1; s.rows <= smaller(layer_most_rows(l, s.vecs), s.item_rows); s.rows++) {
    const double now = layer_cycles(l, &s, task->gates, task->k);
    if (s.rows == 1 || now < least) {
      least = now;
      best = s.rows;
    }
  }
  return best;
}

/* One of each kind, best first: whole sequences, and steps with the units divided, where cores would be idle. */
static void find_candidates(const layer *l, const tune_task *task, candidate *sequences, uint32_t *n_sequences,
                            candidate *steps, uint32_t *n_steps) {
  *n_sequences = *n_steps = 0;
  int64_t last_rows = 0;
  for (int64_t pieces = ceil_div(l->B, LAYER_ITEM_ROWS); pieces <= smaller(l->B, 4 * l->cores); pieces++) {
    if (ceil_div(l->B, pieces) == last_rows)
      continue;
    last_rows = ceil_div(l->B, pieces);
    const int64_t idle = l->cores / ceil_div(l->B, last_rows);
    for (int64_t vecs = 1; vecs <= 4; vecs++) {
      choice c = {.pieces = pieces, .rows = 1, .vecs = vecs, .parts = 1};
      layer_split s;
      if (!split_of(l, task, &c, &s))
        continue;
      c.rows = best_rows(l, task, s);
      consider(l, task, &c, sequences, n_sequences);
      c.step = true;
      for (int64_t each = 1; each <= 4 && idle > 1; each *= 4) {
        c.parts = each * idle;
        consider(l, task, &c, steps, n_steps);
      }
    }
  }
}

/* The model's own first, then by turns the best of both kinds. */
static uint32_t choose_trials(const layer *l, const tune_task *task, const layer_split *model, tune_trial *trials,
                              uint32_t most) {
  candidate lists[2][CANDIDATES];
  uint32_t n[2], next[2] = {0, 0}, count = 1;
  find_candidates(l, task, lists[0], &n[0], lists[1], &n[1]);
  trials[0] = (tune_trial){.split = *model};
  for (uint32_t turn = 0; count < most && (next[0] < n[0] || next[1] < n[1]); turn++) {
    const uint32_t kind = turn % 2;
    bool added = false;
    while (!added && next[kind] < n[kind]) {
      layer_split s;
      added = split_of(l, task, &lists[kind][next[kind]++].choice, &s);
      for (uint32_t i = 0; i < count && added; i++)
        added = !same_split(&trials[i].split, &s);
      if (added)
        trials[count++] = (tune_trial){.split = s};
    }
  }
  return count;
}

/* ---- as text ---- */
static const char *cell_name(int32_t cell) {
  static const char *const names[UNROLL_CELL_COUNT] = {
#define NAME(name, value, text) [value] = (text),
      UNROLL_CELLS(NAME)
#undef NAME
  };
  return names[cell];
}

/* What comes last is what may differ within a bucket. */
static void write_key(const layer *l, const tune_task *task, char *key) {
  snprintf(key, TUNE_LINE, "layer %s %s %s hoisted=%d h=%lld i=%lld b=%lld", task->backward ? "backward" : "forward",
           cell_name(l->cell),
           l->dtype == UNROLL_F64    ? "f64"
           : l->panels == UNROLL_F16 ? "half"
                                     : "f32",
           task->hoisted, (long long)l->H, (long long)(task->hoisted || task->backward ? 0 : l->I), (long long)l->B);
}

static void write_split(const layer *l, const layer_split *s, char *text) {
  if (s->items) {
    tune_write_groups(l, s, text);
    return;
  }
  const choice c = choice_of(l, s);
  snprintf(text, TUNE_LINE, "%s pieces=%lld rows=%lld vecs=%lld parts=%lld", c.step ? "step" : "sequence",
           (long long)c.pieces, (long long)c.rows, (long long)c.vecs, (long long)c.parts);
}

static void write_value(const layer *l, const tune_trial *best, double model, bool thorough, char *value) {
  write_split(l, &best->split, value);
  const size_t n = strlen(value);
  snprintf(value + n, TUNE_LINE - n, " us=%.4g model=%.4g %s", best->best / 1e3, model / 1e3,
           thorough ? "thorough" : "quick");
}

/* *thorough: how it was measured. */
static bool read_value(const char *value, const plan *p, const layer *l, const tune_task *task,
                       const layer_split *model, layer_split *s, bool *thorough) {
  char kind[9], effort[9];
  choice c;
  if (model->items)
    return tune_read_groups(value, p, l, model, s, thorough);
  if (sscanf(value, "%8s", kind) != 1)
    return false;
  value += strlen(kind);
  if (!tune_number(&value, " pieces=", TUNE_DIGITS, &c.pieces) ||
      !tune_number(&value, " rows=", TUNE_DIGITS, &c.rows) || !tune_number(&value, " vecs=", TUNE_DIGITS, &c.vecs) ||
      !tune_number(&value, " parts=", TUNE_DIGITS, &c.parts) || sscanf(value, " us=%*f model=%*f %8s", effort) != 1)
    return false;
  c.step = strcmp(kind, "step") == 0;
  *thorough = strcmp(effort, "thorough") == 0;
  return (c.step || strcmp(kind, "sequence") == 0) && split_of(l, task, &c, s);
}

static int64_t bucket(int64_t n) {
  int64_t b = 1;
  while (b < n)
    b *= 2;
  return b;
}

/* An answer of the same bucket of i and b, unless the model thinks little of it for this one. */
static bool find_near(const tune_lines *lines, const char *key, const plan *p, const layer *l, const tune_task *task,
                      const layer_split *model, layer_split *s, const tune_line **found) {
  const size_t same = (size_t)(strstr(key, " i=") - key);
  bool thorough;
  for (uint32_t i = 0; i < lines->n; i++) {
    if (strncmp(lines->lines[i].key, key, same) != 0)
      continue;
    const char *sizes = lines->lines[i].key + same;
    int64_t I, B;
    if (tune_number(&sizes, " i=", TUNE_SIZE_DIGITS, &I) && tune_number(&sizes, " b=", TUNE_SIZE_DIGITS, &B) && B > 0 &&
        bucket(I) == bucket(task->hoisted || task->backward ? 0 : l->I) && bucket(B) == bucket(l->B) &&
        read_value(lines->lines[i].value, p, l, task, model, s, &thorough) &&
        cost_of(l, task, s) <= 1.5 * cost_of(l, task, model)) {
      *found = &lines->lines[i];
      return true;
    }
  }
  return false;
}

/* ---- the choice ---- */
/*
 * Whether a trial is to take the model's place. A hair's breadth is no reason, and steps wait for each other: other work on
 * the machine hurts them more. It has to win seven turns of ten, too, or what else the machine does has won them.
 */
static bool beats(const tune_trial *t, const tune_trial *model) {
  uint32_t wins = 0;
  for (uint32_t i = 0; i < t->n_runs; i++)
    wins += t->runs[i] < model->runs[i];
  const bool to_steps = t->split.step_at_a_time && !model->split.step_at_a_time;
  return t->best > 0 && t->best < (to_steps ? 0.92 : 0.97) * model->best && 10 * wins >= 7 * t->n_runs;
}

static layer_split measure(plan *p, const layer *l, const layer_split *model, const tune_task *task, const char *key) {
  const bool thorough = p->device->tune != TUNE_QUICK;
  const double step_ns = cost_of(l, task, model) / 3; /* roughly */
  const double steps = 1.5e6 / step_ns;
  const tune_limits limits = {.steps = smaller(l->max_t, steps < 8      ? 8
                                                         : steps > 4096 ? 4096
                                                                        : (int64_t)steps),
                              .timing = thorough ? 2e9 : 0.3e9,
                              .building = thorough ? 60e9 : 4e9,
                              .rounds = thorough ? TUNE_RUNS : 16};
  tune_trial trials[THOROUGH_TRIALS];
  const uint32_t most = thorough ? THOROUGH_TRIALS : QUICK_TRIALS;
  const uint32_t n = model->items ? tune_group_trials(p, l, model, trials, most, limits.building)
                                  : choose_trials(l, task, model, trials, most);
  tune_time(p, l, trials, n, &limits);
  if (trials[0].best <= 0)
    return *model;
  uint32_t best = 0;
  for (uint32_t i = 1; i < n; i++)
    if (beats(&trials[i], &trials[0]) && (best == 0 || trials[i].best < trials[best].best))
      best = i;
  char value[TUNE_LINE];
  for (uint32_t i = 0; i < n; i++) {
    write_value(l, &trials[i], trials[0].best, thorough, value);
    tune_say(p->device, UNROLL_LOG_DEBUG, "tried", key, value);
  }
  write_value(l, &trials[best], trials[0].best, thorough, value);
  tune_put(p->device, key, value);
  tune_say(p->device, UNROLL_LOG_INFO, "measured", key, value);
  return trials[best].split;
}

static layer_split choose(plan *p, const layer *l, const layer_split *model, const tune_task *task) {
  unroll_backend_device *d = p->device;
  struct tuning *t = d->tuning;
  char key[TUNE_LINE];
  layer_split s;
  bool thorough = false;
  write_key(l, task, key);
  tune_load(d);
  const tune_line *found = tune_find(&t->kept, key);
  if (found && read_value(found->value, p, l, task, model, &s, &thorough) &&
      (found->fresh || (d->tune != TUNE_AGAIN && (thorough || d->tune == TUNE_QUICK)))) {
    tune_say(d, UNROLL_LOG_DEBUG, "kept", key, found->value);
    return s;
  }
  if (d->tune == TUNE_THOROUGH || d->tune == TUNE_AGAIN)
    return measure(p, l, model, task, key);
  if (find_near(&t->kept, key, p, l, task, model, &s, &found)) {
    tune_say(d, UNROLL_LOG_DEBUG, "kept", found->key, found->value);
    return s;
  }
  found = tune_find(&t->shipped, key);
  if ((found && read_value(found->value, p, l, task, model, &s, &thorough)) ||
      find_near(&t->shipped, key, p, l, task, model, &s, &found)) {
    tune_say(d, UNROLL_LOG_DEBUG, "shipped", found->key, found->value);
    return s;
  }
  if (d->tune == TUNE_QUICK && cost_of(l, task, model) * (double)l->max_t >= WORTH)
    return measure(p, l, model, task, key);
  return *model;
}

layer_split tune_layer(plan *p, const layer *l, layer_split model, const tune_task *task) {
  if (p->trial)
    return p->trial->split ? *p->trial->split : model;
  const int32_t asked = p->device->recurrence;
  if ((asked != RECURRENCE_AUTO && asked != RECURRENCE_LAYER) || plan_in_flight(p)) /* timed is a layer alone */
    return model;
  pthread_mutex_lock(&p->device->tuning->lock);
  const layer_split s = choose(p, l, &model, task);
  pthread_mutex_unlock(&p->device->tuning->lock);
  return s;
}
