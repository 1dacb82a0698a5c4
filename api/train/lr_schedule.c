/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>

#include "train/trainer.h"

const char *unroll_schedule_name(int32_t kind) {
  switch (kind) {
#define NAME_OF(name, value, text) \
  case name: return text;
    UNROLL_SCHEDULES(NAME_OF)
#undef NAME_OF
  default: return NULL;
  }
}

unroll_status unroll_schedule_check(const unroll_schedule *s, unroll_error *err) {
  if (!s)
    return fail(err, UNROLL_E_INVALID, "schedule: NULL");
  if (!unroll_schedule_name(s->kind))
    return fail(err, UNROLL_E_INVALID, "schedule: kind %d, 0 to %d are known", s->kind, UNROLL_SCHEDULE_COUNT - 1);
  if (!(s->base > 0 && isfinite(s->base)))
    return fail(err, UNROLL_E_INVALID, "schedule: learning rate %g, it must be above 0", s->base);
  if (s->kind == UNROLL_SCHEDULE_TIME && !(s->decay >= 0 && isfinite(s->decay)))
    return fail(err, UNROLL_E_INVALID, "schedule time: decay %g, it must be at least 0", s->decay);
  if (s->kind == UNROLL_SCHEDULE_EXPONENTIAL && !(s->decay > 0 && s->decay <= 1))
    return fail(err, UNROLL_E_INVALID, "schedule exponential: decay %g, it must be above 0 and at most 1", s->decay);
  if (s->kind == UNROLL_SCHEDULE_COSINE) {
    if (!(s->minimum >= 0 && s->minimum <= s->base))
      return fail(err, UNROLL_E_INVALID, "schedule cosine: minimum %g, it must be from 0 to the learning rate, %g",
                  s->minimum, s->base);
    if (!(s->total > 0 && isfinite(s->total)))
      return fail(err, UNROLL_E_INVALID, "schedule cosine: a total of %g epochs, it must be above 0", s->total);
  }
  return UNROLL_OK;
}

double unroll_schedule_rate(const unroll_schedule *s, double e) {
  if (unroll_schedule_check(s, NULL) != UNROLL_OK || !(e >= 0))
    return (double)NAN;
  switch (s->kind) {
  case UNROLL_SCHEDULE_TIME: return s->base / (1 + s->decay * e);
  case UNROLL_SCHEDULE_EXPONENTIAL: return s->base * pow(s->decay, e);
  case UNROLL_SCHEDULE_COSINE:
    return e >= s->total ? s->minimum : s->minimum + (s->base - s->minimum) * (1 + cos(M_PI * (e / s->total))) / 2;
  default: return s->base;
  }
}
