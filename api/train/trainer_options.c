/* SPDX-License-Identifier: Apache-2.0 */
#include <fnmatch.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "train/trainer.h"

#define MAX_PATTERN 128

const char *trainer_optimizer_name(int32_t kind) {
  switch (kind) {
#define NAME_OF(name, value, text) \
  case name: return text;
    UNROLL_OPTIMIZERS(NAME_OF)
#undef NAME_OF
  default: return NULL;
  }
}

const char *trainer_nonfinite_name(int32_t policy) {
  return policy == UNROLL_NONFINITE_STOP ? "stop" : policy == UNROLL_NONFINITE_SKIP ? "skip" : NULL;
}

/* ---- patterns ---- */

/* The next word of a list between commas, and the number behind its '='; NULL after the last one. Empty words are
 * given too, for the check. */
static const char *next_pattern(const char *list, char word[MAX_PATTERN], const char **value) {
  const size_t n = strcspn(list, ",");
  snprintf(word, MAX_PATTERN, "%.*s", (int)(n < MAX_PATTERN ? n : MAX_PATTERN - 1), list);
  char *equals = strchr(word, '=');
  *value = equals ? equals + 1 : NULL;
  if (equals)
    *equals = '\0';
  return list[n] ? list + n + 1 : NULL;
}

static bool fits(const char *pattern, const char *name) { return fnmatch(pattern, name, 0) == 0; }

bool trainer_is_frozen(const unroll_training *o, const char *name) {
  char word[MAX_PATTERN];
  const char *value;
  for (const char *list = o->freeze; list;) {
    list = next_pattern(list, word, &value);
    if (fits(word, name))
      return true;
  }
  return false;
}

static bool read_number(const char *text, double *value) {
  const char *end;
  return text && trainer_parse_real(text, value, &end) && !*end;
}

double trainer_l2(const unroll_training *o, const char *name) {
  char word[MAX_PATTERN];
  const char *value;
  double lambda = 0;
  for (const char *list = o->l2; list;) {
    list = next_pattern(list, word, &value);
    if (fits(word, name))
      return read_number(value, &lambda) ? lambda : 0;
  }
  return 0;
}

bool trainer_is_recurrent(const char *name) { return fits("W_h.*", name) || fits("*.W_h.*", name); }

/* Names are not known yet: how the lists are written. */
static unroll_status check_list(const char *what, const char *list, bool numbers, unroll_error *err) {
  char word[MAX_PATTERN];
  const char *value;
  while (list) {
    if (strcspn(list, ",") >= MAX_PATTERN)
      return fail(err, UNROLL_E_INVALID, "%s: '%.40s...' is longer than %d bytes", what, list, MAX_PATTERN - 1);
    list = next_pattern(list, word, &value);
    double number = 0;
    if (!word[0])
      return fail(err, UNROLL_E_INVALID, "%s: an empty pattern; it is a list between commas", what);
    if (!numbers && value)
      return fail(err, UNROLL_E_INVALID, "%s: '%s=%s', a pattern without a number was expected", what, word, value);
    if (numbers && (!read_number(value, &number) || number < 0))
      return fail(err, UNROLL_E_INVALID, "%s: '%s%s%s', PATTERN=NUMBER was expected, the number 0 or more", what, word,
                  value ? "=" : "", value ? value : "");
  }
  return UNROLL_OK;
}

static unroll_status check_fit(const char *what, const char *list, const char *const *names, uint32_t n,
                               unroll_error *err) {
  char word[MAX_PATTERN];
  const char *value;
  while (list) {
    list = next_pattern(list, word, &value);
    uint32_t i = 0;
    while (i < n && !fits(word, names[i]))
      i++;
    if (i == n)
      return fail(err, UNROLL_E_INVALID, "%s: no parameter's name fits '%s'; the first ones are %s, %s", what, word,
                  n > 0 ? names[0] : "none", n > 1 ? names[1] : "no more");
  }
  return UNROLL_OK;
}

unroll_status trainer_check_patterns(const unroll_training *o, const char *const *names, uint32_t n,
                                     unroll_error *err) {
  TRY(check_fit("freeze", o->freeze, names, n, err));
  TRY(check_fit("l2", o->l2, names, n, err));
  uint32_t trained = 0, recurrent = 0;
  for (uint32_t i = 0; i < n; i++) {
    trained += !trainer_is_frozen(o, names[i]);
    recurrent += trainer_is_recurrent(names[i]);
  }
  if (trained == 0)
    return fail(err, UNROLL_E_INVALID, "freeze: '%s' leaves no parameter to train", o->freeze);
  if (o->recurrent_decay > 0 && recurrent == 0)
    return fail(err, UNROLL_E_INVALID, "recurrent decay %g: the model has no recurrent matrix W_h", o->recurrent_decay);
  return UNROLL_OK;
}

/* ---- ranges ---- */

unroll_status trainer_check_extent(const char *name, int64_t value, int64_t most, unroll_error *err) {
  if (value < 1 || value > most)
    return fail(err, UNROLL_E_INVALID, "%s %lld, it must be from 1 to %lld", name, (long long)value, (long long)most);
  return UNROLL_OK;
}

unroll_status trainer_check_real(const char *name, double value, double lo, double hi, unroll_error *err) {
  if (!(value >= lo && value < hi))
    return fail(err, UNROLL_E_INVALID, "%s %g, it must be at least %g and below %g", name, value, lo, hi);
  return UNROLL_OK;
}

static unroll_status check_optimizer(const unroll_optimizer_attr *o, unroll_error *err) {
  if (!trainer_optimizer_name(o->kind))
    return fail(err, UNROLL_E_INVALID, "optimizer %d, 0 to %d are known", o->kind, UNROLL_OPTIMIZER_COUNT - 1);
  TRY(trainer_check_real("optimizer: beta1 (sgd: the momentum)", o->beta1, 0, 1, err));
  TRY(trainer_check_real("optimizer: beta2", o->beta2, 0, 1, err));
  TRY(trainer_check_real("optimizer: epsilon", o->epsilon, 0, (double)INFINITY, err));
  return trainer_check_real("optimizer: weight decay", o->weight_decay, 0, (double)INFINITY, err);
}

unroll_training unroll_training_default(void) {
  return (unroll_training){.batch = 32,
                           .seed = 1,
                           .clip = 1,
                           .validation = 0.1,
                           .optimizer = {.kind = UNROLL_ADAM, .beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8},
                           .schedule = {.kind = UNROLL_SCHEDULE_CONSTANT, .base = 2e-3},
                           .loss_scale = 1};
}

static unroll_status check_parts(const unroll_training *t, unroll_error *err) {
  if (t->accumulate < 0 || t->accumulate > t->batch || (t->accumulate > 0 && t->batch % t->accumulate))
    return fail(err, UNROLL_E_INVALID, "accumulate %lld, it must divide the batch, %lld", (long long)t->accumulate,
                (long long)t->batch);
  if (t->warmup < 0 || t->warmup > INT32_MAX)
    return fail(err, UNROLL_E_INVALID, "warm-up %lld, it must be from 0 to 2^31-1 updates", (long long)t->warmup);
  if (!trainer_nonfinite_name(t->nonfinite))
    return fail(err, UNROLL_E_INVALID, "nonfinite %d, 0 (stop) and 1 (skip) are known", t->nonfinite);
  TRY(trainer_check_real("recurrent decay", t->recurrent_decay, 0, 1, err));
  TRY(check_list("freeze", t->freeze, false, err));
  return check_list("l2", t->l2, true, err);
}

unroll_status trainer_options_check(const unroll_training *o, unroll_error *err) {
  TRY(trainer_check_extent("batch", o->batch, TRAINER_MAX_BATCH, err));
  TRY(trainer_check_real("clip", o->clip, 0, (double)INFINITY, err));
  TRY(trainer_check_real("validation", o->validation, 0, 1, err));
  TRY(check_optimizer(&o->optimizer, err));
  if (!(o->loss_scale >= TRAINER_LOSS_SCALE_LEAST && o->loss_scale <= TRAINER_LOSS_SCALE_MOST))
    return fail(err, UNROLL_E_INVALID, "loss scale %g, it must be from 1 to 2^126", o->loss_scale);
  if (o->loss_scale_interval < 0 || o->loss_scale_interval > INT32_MAX)
    return fail(err, UNROLL_E_INVALID, "loss scale: interval %lld, it must be from 0 to 2^31-1",
                (long long)o->loss_scale_interval);
  TRY(check_parts(o, err));
  unroll_schedule schedule = o->schedule;
  if (schedule.kind == UNROLL_SCHEDULE_COSINE && schedule.total == 0)
    schedule.total = 1; /* the limits of the training will say */
  return unroll_schedule_check(&schedule, err);
}

unroll_status trainer_options_copy(const unroll_training *from, const unroll_allocator *allocator, unroll_training *to,
                                   unroll_error *err) {
  const char *const freeze = from->freeze && from->freeze[0] ? from->freeze : NULL;
  const char *const l2 = from->l2 && from->l2[0] ? from->l2 : NULL;
  char *freeze_copy = mem_strdup(allocator, freeze), *l2_copy = mem_strdup(allocator, l2);
  *to = *from;
  to->freeze = freeze_copy;
  to->l2 = l2_copy;
  if (to->accumulate == 0)
    to->accumulate = 1;
  if ((!freeze || freeze_copy) && (!l2 || l2_copy))
    return UNROLL_OK;
  trainer_options_free(to, allocator);
  return fail(err, UNROLL_E_MEMORY, "model: no memory for its options");
}

void trainer_options_free(unroll_training *o, const unroll_allocator *allocator) {
  /* Copies of the allocator's, const for their readers. */
  mem_free(allocator, (void *)(uintptr_t)o->freeze);
  mem_free(allocator, (void *)(uintptr_t)o->l2);
  o->freeze = o->l2 = NULL;
}
