/* SPDX-License-Identifier: Apache-2.0 */
/* What a forecaster says of the values behind a series. */
#include <math.h>
#include <string.h>

#include "train/forecaster_private.h"

static unroll_status make_program(unroll_forecaster *f, unroll_error *err) {
  struct trainer_program program = {NULL, NULL};
  unroll_graph *graph;
  TRY(forecaster_graph_forecast(f, &graph, err));
  TRY(trainer_program_make(&f->trainer, graph, &program, err));
  const unroll_status status = trainer_program_parameters(&f->trainer, &program, err);
  if (status == UNROLL_OK)
    f->forecast = program;
  else
    trainer_program_free(&program);
  return status;
}

/* x [p], the latest values as the network reads them, and next [H], what it says. */
static unroll_status say_next(unroll_forecaster *f, const float *x, float *next, unroll_error *err) {
  const unroll_run_options run = {.struct_size = sizeof run};
  unroll_binding *b = f->forecast.binding;
  TRY(unroll_binding_write(b, "x", x, (uint64_t)f->options.lags * sizeof *x, err));
  TRY(unroll_run(b, &run, err));
  return unroll_binding_read(b, "next", next, (size_t)f->options.horizon * sizeof *next, err);
}

struct room {
  double *c; /* the filter */
  double *y; /* [lost + p + h]: the values that are looked at, and forecasts behind them */
  float *x;  /* [p + H]: the window, and what the network says */
};

static unroll_status fill(unroll_forecaster *f, const struct room *room, int64_t h, unroll_error *err) {
  const int64_t lost = forecaster_lost(&f->options), p = f->options.lags, H = f->options.horizon;
  for (int64_t i = 0; i < p; i++) {
    double x = 0;
    for (int64_t k = 0; k <= lost; k++)
      x += room->c[k] * room->y[lost + i - k];
    room->x[i] = (float)((x - f->mean) / f->deviation);
  }
  for (int64_t done = 0; done < h; done += H) {
    TRY(say_next(f, room->x, room->x + p, err));
    for (int64_t i = 0; i < H && done + i < h; i++) {
      double *y = room->y + lost + p + done + i;
      *y = (double)room->x[p + i] * f->deviation + f->mean;
      for (int64_t k = 1; k <= lost; k++)
        *y -= room->c[k] * y[-k];
    }
    memmove(room->x, room->x + H, (size_t)p * sizeof *room->x);
  }
  return UNROLL_OK;
}

unroll_status unroll_forecaster_forecast(unroll_forecaster *f, const double *y, int64_t n, int64_t h, double *out,
                                         unroll_error *err) {
  if (!f || !y || !out)
    return fail(err, UNROLL_E_INVALID, "unroll_forecaster_forecast: %s is NULL", !f ? "the model" : !y ? "y" : "out");
  TRY(trainer_not_busy(&f->trainer, "used", err));
  const unroll_allocator *a = &f->trainer.allocator;
  const int64_t need = f->options.lags + forecaster_lost(&f->options);
  if (n < need)
    return fail(err, UNROLL_E_RANGE, "forecast: %lld values, the model takes at least %lld", (long long)n,
                (long long)need);
  if (h < 1 || h > INT32_MAX)
    return fail(err, UNROLL_E_RANGE, "forecast: %lld steps ahead, expected 1 to %d", (long long)h, INT32_MAX);
  for (int64_t i = n - need; i < n; i++)
    if (!isfinite(y[i]))
      return fail(err, UNROLL_E_RANGE, "forecast: y[%lld] is %g", (long long)i, y[i]);
  if (!f->forecast.binding)
    TRY(make_program(f, err));
  const struct room room = {forecaster_filter(&f->options, a), mem_array(a, (uint64_t)(need + h), sizeof *room.y),
                            mem_array(a, (uint64_t)(f->options.lags + f->options.horizon), sizeof *room.x)};
  unroll_status status = UNROLL_OK;
  if (!room.c || !room.y || !room.x)
    status = fail(err, UNROLL_E_MEMORY, "model: no memory for %lld steps ahead", (long long)h);
  if (status == UNROLL_OK) {
    memcpy(room.y, y + n - need, (size_t)need * sizeof *y);
    status = fill(f, &room, h, err);
  }
  if (status == UNROLL_OK)
    memcpy(out, room.y + need, (size_t)h * sizeof *out);
  mem_free(a, room.c);
  mem_free(a, room.y);
  mem_free(a, room.x);
  return status;
}

unroll_status unroll_ensemble_forecast(const void *ctx, const double *y, int64_t n, int64_t h, double *out,
                                       unroll_error *err) {
  const unroll_ensemble *e = ctx;
  if (!e || !e->members || e->n < 1 || !out)
    return fail(err, UNROLL_E_INVALID, "ensemble: %s",
                !out                           ? "out is NULL"
                : e && e->members && e->n == 0 ? "it has no member"
                                               : "it, or its members, are NULL");
  for (uint32_t i = 0; i < e->n; i++)
    if (!e->members[i])
      return fail(err, UNROLL_E_INVALID, "ensemble: member %u is NULL", i);
  TRY(unroll_forecaster_forecast(e->members[0], y, n, h, out, err));
  if (e->n == 1)
    return UNROLL_OK;
  const unroll_allocator *a = &e->members[0]->trainer.allocator;
  double *one = mem_array(a, (uint64_t)h, sizeof *one);
  if (!one)
    return fail(err, UNROLL_E_MEMORY, "ensemble: no memory for %lld steps ahead", (long long)h);
  unroll_status status = UNROLL_OK;
  for (uint32_t m = 1; m < e->n && status == UNROLL_OK; m++) {
    status = unroll_forecaster_forecast(e->members[m], y, n, h, one, err);
    for (int64_t i = 0; i < h && status == UNROLL_OK; i++)
      out[i] += one[i];
  }
  for (int64_t i = 0; i < h; i++)
    out[i] /= e->n;
  mem_free(a, one);
  return status;
}
