/* SPDX-License-Identifier: Apache-2.0 */
/* A forecaster's series: differences, statistics, parts, batches of windows. */
#include <math.h>
#include <string.h>

#include "train/forecaster_private.h"

uint64_t forecaster_data_hash(const double *y, int64_t n) { return hash64(y, (size_t)n * sizeof *y, HASH64_SEED); }

double *forecaster_filter(const unroll_forecaster_options *o, const unroll_allocator *a) {
  const int64_t lost = forecaster_lost(o);
  double *c = mem_array(a, (uint64_t)lost + 1, sizeof *c);
  if (!c)
    return NULL;
  c[0] = 1;
  if (o->season > 0)
    c[o->season] = -1;
  for (int64_t d = 0; d < o->differences; d++)
    for (int64_t i = lost; i > 0; i--)
      c[i] -= c[i - 1];
  return c;
}

static double filtered(const double *c, int64_t lost, const double *y, int64_t t) {
  double x = 0;
  for (int64_t i = 0; i <= lost; i++)
    if (c[i] != 0)
      x += c[i] * y[t - i];
  return x;
}

/* ---- batches ---- */

static void set_free(const unroll_forecaster *f, struct forecaster_set *set) {
  const unroll_allocator *a = &f->trainer.allocator;
  unroll_batches_destroy(set->batches);
  mem_free(a, set->x);
  mem_free(a, set->target);
  mem_free(a, set->known);
  *set = (struct forecaster_set){.batches = NULL};
}

/* Windows that begin at first and the n - 1 places behind it. */
static unroll_status make_batches(const unroll_forecaster *f, int64_t first, int64_t n, bool in_order,
                                  struct forecaster_set *set, unroll_error *err) {
  const unroll_allocator *a = &f->trainer.allocator;
  const unroll_batches_options o = {
      .struct_size = sizeof o, .in_order = in_order, .B = set->rows, .pool = 1, .seed = f->options.training.seed};
  int64_t *places = mem_array(a, (uint64_t)n, sizeof *places);
  int32_t *lengths = mem_array(a, (uint64_t)(first + n), sizeof *lengths);
  unroll_status status =
      places && lengths ? UNROLL_OK
                        : fail(err, UNROLL_E_MEMORY, "model: no memory for the order of %lld windows", (long long)n);
  if (status == UNROLL_OK) {
    for (int64_t i = 0; i < n; i++)
      places[i] = first + i;
    for (int64_t i = 0; i < first + n; i++)
      lengths[i] = (int32_t)f->options.lags;
    status = unroll_batches_create(lengths, NULL, places, n, &o, a, &set->batches, err);
  }
  mem_free(a, places);
  mem_free(a, lengths);
  return status;
}

static unroll_status set_make(const unroll_forecaster *f, int64_t first, int64_t n, bool in_order,
                              struct forecaster_set *set, unroll_error *err) {
  const unroll_allocator *a = &f->trainer.allocator;
  *set = (struct forecaster_set){.rows = f->options.training.batch};
  if (in_order && n < set->rows)
    set->rows = n;
  const unroll_status status = make_batches(f, first, n, in_order, set, err);
  if (status != UNROLL_OK) {
    set->batches = NULL;
    return status;
  }
  const uint64_t rows = (uint64_t)set->rows, H = (uint64_t)f->options.horizon;
  set->x = mem_array(a, rows * (uint64_t)f->options.lags, sizeof *set->x);
  set->target = mem_array(a, rows * H, sizeof *set->target);
  set->known = mem_array(a, rows * H, sizeof *set->known);
  if (!set->x || !set->target || !set->known) {
    set_free(f, set);
    return fail(err, UNROLL_E_MEMORY, "model: no memory for a batch of %llu windows", (unsigned long long)rows);
  }
  return UNROLL_OK;
}

/* ---- parts ---- */

/* The values of x, in double, before they are standardised: in `all` [m]. */
static unroll_status take_differences(const unroll_forecaster *f, const double *y, int64_t m, double *all,
                                      unroll_error *err) {
  const int64_t lost = forecaster_lost(&f->options);
  double *c = forecaster_filter(&f->options, &f->trainer.allocator);
  if (!c)
    return fail(err, UNROLL_E_MEMORY, "model: no memory for a season of %lld", (long long)f->options.season);
  for (int64_t i = 0; i < m; i++)
    all[i] = filtered(c, lost, y, lost + i);
  mem_free(&f->trainer.allocator, c);
  return UNROLL_OK;
}

/* Welford 1962. A constant's deviation is 1. */
static void measure(unroll_forecaster *f, const double *x, int64_t n) {
  double mean = 0, squares = 0, largest = 0;
  for (int64_t i = 0; i < n; i++) {
    const double off = x[i] - mean;
    mean += off / (double)(i + 1);
    squares += off * (x[i] - mean);
    largest = fabs(x[i]) > largest ? fabs(x[i]) : largest;
  }
  const double deviation = sqrt(squares / (double)n);
  f->mean = mean;
  f->deviation = deviation > 1e-12 * largest && isfinite(deviation) ? deviation : 1;
}

/* The errors of y_{t+k} = y_{t-1}, told as the network's are, over the validation's windows. `room` [lost + H]. */
static void measure_naive(unroll_forecaster *f, const double *y, int64_t first, const double *c, double *room) {
  const int64_t lost = forecaster_lost(&f->options), H = f->options.horizon;
  double squares = 0, absolute = 0;
  for (int64_t w = first; w < first + f->n_validation; w++) {
    const int64_t t = lost + w + f->options.lags; /* the first value that is foretold */
    for (int64_t k = 0; k < H; k++) {
      room[lost + k] = y[t + k] - y[t - 1];
      const double off = filtered(c, lost, room, lost + k);
      squares += off * off;
      absolute += fabs(off);
    }
  }
  const double n = (double)(f->n_validation * H);
  f->naive_loss = squares / n / (f->deviation * f->deviation);
  f->naive_mae = absolute / n;
}

static unroll_status find_naive(unroll_forecaster *f, const double *y, int64_t first, unroll_error *err) {
  const unroll_allocator *a = &f->trainer.allocator;
  double *c = forecaster_filter(&f->options, a);
  double *room = mem_array(a, (uint64_t)(forecaster_lost(&f->options) + f->options.horizon), sizeof *room);
  unroll_status status = UNROLL_OK;
  if (c && room)
    measure_naive(f, y, first, c, room);
  else
    status = fail(err, UNROLL_E_MEMORY, "model: no memory for the baseline");
  mem_free(a, room);
  mem_free(a, c);
  return status;
}

/* How many windows each part has. A window of the validation begins to foretell where the training's targets end. */
static unroll_status divide(unroll_forecaster *f, int64_t n, unroll_error *err) {
  const unroll_forecaster_options *o = &f->options;
  const int64_t need = forecaster_lost(o) + o->lags + o->horizon, fitted = n - o->holdout;
  if (fitted < need)
    return fail(err, UNROLL_E_RANGE,
                "%lld values to train on, the last %lld held out: at least %lld are needed, for %lld lags, %lld "
                "differences, a season of %lld and a horizon of %lld",
                (long long)fitted, (long long)o->holdout, (long long)need, (long long)o->lags,
                (long long)o->differences, (long long)o->season, (long long)o->horizon);
  const int64_t windows = fitted - need + 1;
  const double share = o->training.validation;
  f->n_validation = (int64_t)(share * (double)windows);
  f->n_train = f->n_validation > 0 ? windows - f->n_validation - (o->horizon - 1) : windows;
  if (f->n_train < 1 || (share > 0 && f->n_validation < 1))
    return fail(err, UNROLL_E_RANGE,
                "validation %g makes of %lld windows of the series %lld to train and %lld to validate, at least 1 each "
                "is needed",
                share, (long long)windows, (long long)(f->n_train > 0 ? f->n_train : 0), (long long)f->n_validation);
  return UNROLL_OK;
}

/* all [m], x before it is standardised. */
static unroll_status attach_parts(unroll_forecaster *f, const double *y, const double *all, int64_t m, bool is_new,
                                  unroll_error *err) {
  const unroll_forecaster_options *o = &f->options;
  const int64_t first = f->n_train + o->horizon - 1; /* of the validation's windows */
  f->x = mem_array(&f->trainer.allocator, (uint64_t)m, sizeof *f->x);
  if (!f->x)
    return fail(err, UNROLL_E_MEMORY, "model: no memory for a series of %lld", (long long)m);
  if (is_new && o->unscaled)
    f->deviation = 1;
  else if (is_new)
    measure(f, all, f->n_train + o->lags + o->horizon - 1);
  for (int64_t i = 0; i < m; i++)
    f->x[i] = (float)((all[i] - f->mean) / f->deviation);
  TRY(set_make(f, 0, f->n_train, false, &f->train, err));
  if (f->n_validation > 0) {
    TRY(set_make(f, first, f->n_validation, true, &f->validation, err));
    TRY(find_naive(f, y, first, err));
  }
  f->epoch = 0;
  return trainer_attach(&f->trainer, 0,
                        f->validation.batches ? (uint64_t)unroll_batches_count(f->validation.batches) : 0, err);
}

void forecaster_detach(unroll_forecaster *f) {
  set_free(f, &f->train);
  set_free(f, &f->validation);
  mem_free(&f->trainer.allocator, f->x);
  f->x = NULL;
  f->n_train = f->n_validation = 0;
  f->naive_loss = f->naive_mae = (double)NAN;
}

static unroll_status attach(unroll_forecaster *f, const double *y, int64_t n, bool is_new, unroll_error *err) {
  for (int64_t i = 0; i < n; i++)
    if (!isfinite(y[i]))
      return fail(err, UNROLL_E_RANGE, "y[%lld] is %g: holes must be filled before", (long long)i, y[i]);
  if (f->options.holdout >= n)
    return fail(err, UNROLL_E_RANGE, "holdout %lld, but the series has %lld values", (long long)f->options.holdout,
                (long long)n);
  TRY(divide(f, n, err));
  const int64_t m = n - f->options.holdout - forecaster_lost(&f->options);
  double *all = mem_array(&f->trainer.allocator, (uint64_t)m, sizeof *all);
  if (!all)
    return fail(err, UNROLL_E_MEMORY, "model: no memory for a series of %lld", (long long)m);
  unroll_status status = take_differences(f, y, m, all, err);
  if (status == UNROLL_OK)
    status = attach_parts(f, y, all, m, is_new, err);
  mem_free(&f->trainer.allocator, all);
  return status;
}

unroll_status forecaster_attach(unroll_forecaster *f, const double *y, int64_t n, bool is_new, unroll_error *err) {
  const unroll_status status = attach(f, y, n, is_new, err);
  if (status != UNROLL_OK) {
    forecaster_detach(f);
    return status;
  }
  f->count = n;
  f->data_hash = forecaster_data_hash(y, n);
  return UNROLL_OK;
}

/* ---- feeding ---- */

static unroll_status write_batch(const unroll_forecaster *f, const struct forecaster_set *set, int64_t index,
                                 int64_t row0, int64_t rows, unroll_binding *b, struct trainer_feed *feed,
                                 unroll_error *err) {
  const unroll_batch batch = unroll_batches_get(set->batches, index);
  const int64_t p = f->options.lags, H = f->options.horizon;
  feed->row0 = row0;
  feed->items = 0;
  for (int64_t r = 0; r < rows; r++) {
    const int64_t place = batch.items[row0 + r];
    const float *from = place < 0 ? NULL : f->x + place;
    feed->items += from ? p : 0;
    for (int64_t t = 0; t < p; t++)
      set->x[t * rows + r] = from ? from[t] : 0;
    for (int64_t k = 0; k < H; k++) {
      set->target[r * H + k] = from ? from[p + k] : 0;
      set->known[r * H + k] = from ? 1 : 0;
    }
  }
  const uint64_t targets = (uint64_t)(rows * H) * sizeof *set->target;
  TRY(unroll_binding_write(b, "x", set->x, (uint64_t)(p * rows) * sizeof *set->x, err));
  TRY(unroll_binding_write(b, "target", set->target, targets, err));
  return unroll_binding_write(b, "known", set->known, targets, err);
}

unroll_status forecaster_feed(void *owner, const struct trainer_place *place, unroll_binding *b,
                              struct trainer_feed *feed, unroll_error *err) {
  unroll_forecaster *f = owner;
  if (place->epoch != f->epoch) {
    unroll_batches_start(f->train.batches, place->epoch);
    f->epoch = place->epoch;
  }
  const int64_t rows = f->options.training.batch / place->parts;
  return write_batch(f, &f->train, (int64_t)place->index, place->part * rows, rows, b, feed, err);
}

unroll_status forecaster_feed_evaluation(void *owner, uint64_t index, unroll_binding *b, struct trainer_feed *feed,
                                         unroll_error *err) {
  const unroll_forecaster *f = owner;
  return write_batch(f, &f->validation, (int64_t)index, 0, f->validation.rows, b, feed, err);
}

uint64_t forecaster_epoch_updates(const void *owner, uint64_t epoch) {
  (void)epoch;
  const unroll_forecaster *f = owner;
  return (uint64_t)unroll_batches_count(f->train.batches);
}
