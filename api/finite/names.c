/* SPDX-License-Identifier: Apache-2.0 */
/* names.c: a place in words. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "finite/finite_private.h"

const char *unroll_phase_name(int32_t phase) {
  switch (phase) {
#define PHASE_NAME(code, number, text) \
  case code: return text;
    UNROLL_PHASES(PHASE_NAME)
#undef PHASE_NAME
  default: return NULL;
  }
}

const char *unroll_quantity_name(int32_t quantity) {
  switch (quantity) {
#define QUANTITY_NAME(code, number, text) \
  case code: return text;
    UNROLL_QUANTITIES(QUANTITY_NAME)
#undef QUANTITY_NAME
  default: return NULL;
  }
}

static const char *value_name(double value) { return isnan(value) ? "NaN" : value > 0 ? "inf" : "-inf"; }

struct line {
  char *text;
  size_t size, used;
};
static void add(struct line *l, const char *format, ...) PRINTF_LIKE(2, 3);
static void add(struct line *l, const char *format, ...) {
  va_list list;
  va_start(list, format);
  const int n = l->used < l->size ? vsnprintf(l->text + l->used, l->size - l->used, format, list) : 0;
  va_end(list);
  l->used += n > 0 ? (size_t)n : 0;
}

/* "the pre-activation of the forget gate" */
static void add_quantity(struct line *l, const unroll_nonfinite *f) {
  const char *const of = f->phase == UNROLL_PHASE_GRADIENT ? "gradient of the " : "";
  if (f->phase == UNROLL_PHASE_GIVEN)
    add(l, "%s %s", unroll_quantity_name(f->quantity), f->tensor);
  else if (f->quantity == UNROLL_QUANTITY_PARAMETER)
    add(l, "the %s %s",
        f->phase == UNROLL_PHASE_GRADIENT ? "gradient of parameter"
        : strcmp(f->op, "optimizer") == 0 ? "new value or moment of parameter"
        : strcmp(f->op, "reduce") == 0    ? "squared gradient of parameter"
                                          : "gradient, on its way into the update, of parameter",
        f->tensor);
  else if (f->quantity == UNROLL_QUANTITY_GATE && f->gate >= 0)
    add(l, "the %s%s", of, f->gate_name[0] ? f->gate_name : "gate");
  else if (f->quantity == UNROLL_QUANTITY_PRE_ACTIVATION && f->gate >= 0)
    add(l, "the %spre-activation of the %s", of, f->gate_name[0] ? f->gate_name : "gate");
  else if (f->quantity != UNROLL_QUANTITY_VALUE)
    add(l, "the %s%s", of, unroll_quantity_name(f->quantity));
  else
    add(l, "%s %s (%s)",
        f->phase == UNROLL_PHASE_GRADIENT ? "in the gradient the value of"
        : f->phase == UNROLL_PHASE_UPDATE ? "in the update the value of"
                                          : "the value of",
        f->tensor, f->op);
}

const char *unroll_nonfinite_text(const unroll_nonfinite *f, char *text, size_t size) {
  struct line l = {text, size, 0};
  if (!f || !text || size == 0)
    return "";
  if (!f->found) {
    snprintf(text, size, "all numbers are finite");
    return text;
  }
  add_quantity(&l, f);
  if (f->layer >= 0)
    add(&l, " of layer %d", f->layer);
  if (f->direction >= 0)
    add(&l, ", %s", f->direction == UNROLL_REVERSE ? "reverse" : "forward");
  if (f->step >= 0)
    add(&l, ", step %lld", (long long)f->step);
  if (f->sequence >= 0)
    add(&l, ", sequence %lld", (long long)f->sequence);
  if (f->unit >= 0)
    add(&l, ", %s %lld", f->step < 0 && f->sequence < 0 ? "element" : "unit", (long long)f->unit);
  add(&l, " %s %s", f->phase == UNROLL_PHASE_GIVEN ? "is" : "became", value_name(f->value));
  if (f->fused)
    add(&l, "; only where the layer runs as one node");
  if (f->context[0])
    add(&l, " (%s)", f->context);
  return text;
}
